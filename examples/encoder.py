"""An encoder reads pictures of digits: patches as tokens, attention in all directions, the mean of
all positions says which digit it is.

python examples/encoder.py [steps] [scanned]

The pictures are drawn here: ten glyphs of 3 x 5 points, anywhere in a field of 8 x 8, each point as
    bright as chance will have it, in noise. With
`scanned` they are scikit-learn's scans of handwriting instead (pip install scikit-learn; nothing is
downloaded).
"""

import sys

import numpy as np

import minigrad
from minigrad import functional as F, nn
from minigrad.evaluate import accuracy
from minigrad.optim import AdamW, lr_scheduler

# The rows of each glyph, from above, as three bits: 7 is a whole line, 5 its two ends.
GLYPHS = ["75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717"]
BITS = np.array(
    [[[int(row) >> 2 & 1, int(row) >> 1 & 1, int(row) & 1] for row in glyph] for glyph in GLYPHS]
)  # (10, 5, 3)


def drawn(n, rng):
    """n pictures (n, 8, 8) and their digits (n,)."""
    digits = rng.integers(0, 10, n)
    pictures = rng.normal(0, 0.15, (n, 8, 8))
    for picture, digit in zip(pictures, digits, strict=True):
        top, left = rng.integers(0, 4), rng.integers(0, 6)
        picture[top : top + 5, left : left + 3] += BITS[digit] * rng.uniform(0.7, 1.3, (5, 3))
    return pictures.astype(np.float32), digits


def scanned():
    """scikit-learn's 1,797 pictures, 8 x 8, and their digits, in an order of chance."""
    from sklearn.datasets import load_digits

    data, order = load_digits(), np.random.default_rng(0).permutation(1797)
    return (data.images[order] / 8 - 1).astype(np.float32), data.target[order]


class Encoder(nn.Module):
    """pictures (B, 8, 8) -> logits (B, 10)"""

    def __init__(self, n_embd=48, n_layer=2, n_head=4):
        self.embed = nn.Linear(4, n_embd)
        self.place = nn.Parameter(minigrad.randn(16, n_embd) * 0.5)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(n_embd, n_head, causal=False) for _ in range(n_layer)
        )
        self.norm, self.head = nn.LayerNorm(n_embd), nn.Linear(n_embd, 10)

    def forward(self, pictures):
        x = (
            minigrad.as_tensor(pictures).reshape(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4)
        )  # (B, 4, 4, 2, 2): patches of 2 x 2
        x = self.embed(x.reshape(-1, 16, 4)) + self.place  # (B, 16, C)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def main(steps: int = 1500, source: str = "drawn") -> float:
    minigrad.manual_seed(0)
    pictures, digits = scanned() if source == "scanned" else drawn(8000, np.random.default_rng(0))
    seen, held = slice(0, len(digits) - 400), slice(len(digits) - 400, None)
    model, rng = Encoder(), np.random.default_rng(1)
    optimizer = AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = lr_scheduler.WarmupCosineLR(optimizer, steps // 10, steps)
    for step in range(steps):
        batch = rng.integers(0, seen.stop, 64)
        loss = F.cross_entropy(model(pictures[batch]), digits[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step:4d}  loss {loss.item():.3f}", flush=True)
    right = accuracy(model, [(pictures[held], digits[held])])
    print(f"right on {len(digits[held])} new pictures: {right:.1%}")
    return right


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
