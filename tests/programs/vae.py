"""A variational autoencoder of small pictures: bars that lie or stand."""

import minigrad as torch
from minigrad import nn
from minigrad.nn import functional as F


def bars(n):
    """Pictures of 6 x 6 with one bar."""
    x = torch.zeros(n, 6, 6)
    where = torch.randint(0, 6, (n,))
    for i in range(n):
        if i % 2 == 0:
            x[i, where[i].item(), :] = 1.0
        else:
            x[i, :, where[i].item()] = 1.0
    return x.view(n, 36)


class VAE(nn.Module):
    def __init__(self, latent=4):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(36, 64), nn.ReLU())
        self.mu = nn.Linear(64, latent)
        self.logvar = nn.Linear(64, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, 36), nn.Sigmoid()
        )

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decoder(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    bce = F.binary_cross_entropy(recon_x, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


def main():
    torch.manual_seed(0)
    x = bars(240)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for epoch in range(60):
        train_loss = 0
        for batch in x.split(60):
            optimizer.zero_grad()
            recon, mu, logvar = model(batch)
            loss = loss_function(recon, batch, mu, logvar)
            loss.backward()
            train_loss += loss.item()
            optimizer.step()
        losses.append(train_loss / len(x))
    with torch.no_grad():
        sample = model.decoder(torch.randn(8, 4))
    assert sample.shape == (8, 36) and sample.min() >= 0 and sample.max() <= 1
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses, sample


if __name__ == "__main__":
    main()
