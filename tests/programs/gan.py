"""A generator and a discriminator, each with its optimizer: points on a ring."""

import math

import minigrad as torch
import minigrad.nn as nn
import minigrad.optim as optim


class Generator(nn.Module):
    def __init__(self, nz=4):
        super().__init__()
        self.main = nn.Sequential(
            nn.Linear(nz, 32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(32, 32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(32, 2),
        )

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Linear(2, 32),
            nn.LeakyReLU(0.2),
            nn.Linear(32, 32),
            nn.LeakyReLU(0.2),
            nn.Linear(32, 1),
        )

    def forward(self, x):
        return self.main(x).squeeze(1)


def ring(n):
    angle = 2 * math.pi * torch.rand(n)
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=1) + 0.05 * torch.randn(n, 2)


def main():
    torch.manual_seed(0)
    netG, netD, nz, n = Generator(), Discriminator(), 4, 64
    criterion = nn.BCEWithLogitsLoss()
    optimizerD = optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizerG = optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
    fixed_noise = torch.randn(200, nz)
    before = (netG(fixed_noise).norm(dim=1) - 1).abs().mean().item()
    for step in range(500):
        # (1) Update D: maximize log D(x) + log(1 - D(G(z)))
        netD.zero_grad()
        errD_real = criterion(netD(ring(n)), torch.ones(n))
        errD_real.backward()
        fake = netG(torch.randn(n, nz))
        errD_fake = criterion(netD(fake.detach()), torch.zeros(n))
        errD_fake.backward()
        optimizerD.step()
        # (2) Update G: maximize log D(G(z))
        netG.zero_grad()
        errG = criterion(netD(fake), torch.ones(n))
        errG.backward()
        optimizerG.step()
    with torch.no_grad():
        after = (netG(fixed_noise).norm(dim=1) - 1).abs().mean().item()
    print(f"distance from the ring {before:.3f} -> {after:.3f}")
    return before, after


if __name__ == "__main__":
    main()
