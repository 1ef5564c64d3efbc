"""Digits of 8 x 8 pixels, drawn by the program, read by a small convolutional network."""

import numpy as np

import minigrad as torch
import minigrad.nn as nn
import minigrad.nn.functional as F
from minigrad import optim

SEGMENTS = {
    0: "abcdef", 1: "bc", 2: "abged", 3: "abgcd", 4: "fgbc",
    5: "afgcd", 6: "afgedc", 7: "abc", 8: "abcdefg", 9: "abcdfg",
}  # fmt: skip


def draw(digit, rng):
    """A digit as a clock radio shows it, moved by up to a pixel, and noise."""
    image = np.zeros((8, 8), dtype=np.float32)
    top, left = rng.integers(0, 2), rng.integers(0, 4)
    lines = {
        "a": (top, slice(left, left + 4)), "g": (top + 3, slice(left, left + 4)),
        "d": (top + 6, slice(left, left + 4)), "f": (slice(top, top + 4), left),
        "b": (slice(top, top + 4), left + 3), "e": (slice(top + 3, top + 7), left),
        "c": (slice(top + 3, top + 7), left + 3),
    }  # fmt: skip
    for segment in SEGMENTS[digit]:
        image[lines[segment]] = 1
    return image + rng.normal(0, 0.2, image.shape)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        x = torch.flatten(x, 1)
        return self.fc(self.dropout(x))


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    images = np.stack([draw(digit, rng) for digit in labels])
    x = torch.tensor(images, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(labels)
    x_train, y_train, x_test, y_test = x[:400], y[:400], x[400:], y[400:]

    model = Net()
    print(model)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    for epoch in range(8):
        model.train()
        for i in range(0, len(x_train), 40):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x_train[i : i + 40]), y_train[i : i + 40])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        pred = model(x_test).argmax(1)
        accuracy = pred.eq(y_test).sum().item() / len(y_test)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}  accuracy {accuracy:.1%}")
    return losses, accuracy


if __name__ == "__main__":
    main()
