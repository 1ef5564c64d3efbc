"""Two half moons, told apart by a small network: nn.Sequential, a loss module, a loop."""

import minigrad as torch
from minigrad import nn, optim


def two_moons(n):
    t = torch.rand(n) * torch.pi
    upper = torch.stack([torch.cos(t), torch.sin(t)], dim=1)
    lower = torch.stack([1 - torch.cos(t), 0.5 - torch.sin(t)], dim=1)
    x = torch.cat([upper, lower], dim=0) + 0.1 * torch.randn(2 * n, 2)
    y = torch.cat([torch.zeros(n, dtype=torch.long), torch.ones(n, dtype=torch.long)])
    return x, y


def main():
    torch.manual_seed(0)
    x, y = two_moons(200)
    model = nn.Sequential(
        nn.Linear(2, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.Tanh(),
        nn.Linear(32, 2),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for epoch in range(100):
        model.train()
        perm = torch.randperm(len(x))
        for i in range(0, len(x), 100):
            index = perm[i : i + 100]
            output = model(x[index])
            loss = criterion(output, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        accuracy = (model(x).argmax(dim=1) == y).float().mean().item()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}  accuracy {accuracy:.1%}")
    return losses, accuracy


if __name__ == "__main__":
    main()
