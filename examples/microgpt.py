"""A character GPT from scratch: nothing but Tensors, a few ops and an Adam written by hand.

    python examples/microgpt.py [steps]

It makes names in which all vowels are bright (e, i) or all dark (a, o, u), learns to write such
names, and prints the loss, new names, and how many of them obey a rule that it was never given.
"""

import sys

import numpy as np

import minigrad
from minigrad import Tensor

LAYERS, HEADS, WIDTH, BATCH, LEARNING_RATE = 1, 4, 32, 32, 1e-2
BRIGHT, DARK = "ei", "aou"
rng = np.random.default_rng(0)


def make_name() -> str:
    vowels = (BRIGHT, DARK)[rng.integers(2)]
    syllables = [rng.choice([*"bdklmnrst"]) + rng.choice([*vowels]) for _ in range(3)]
    return "".join(syllables[: rng.integers(2, 4)]) + rng.choice([*"nrs"])


names = [make_name() for _ in range(1000)]
chars = "." + "".join(sorted(set("".join(names))))  # "." begins a name and ends it
LENGTH = max(map(len, names)) + 1  # tokens that the model reads at once
tokens = np.array([[chars.index(c) for c in f".{name}".ljust(LENGTH + 1, ".")] for name in names])


def weight(*shape: int) -> Tensor:
    return Tensor(rng.normal(0, 0.1, shape).astype(np.float32), requires_grad=True)


token_table, place_table = weight(len(chars), WIDTH), weight(LENGTH, WIDTH)
attention_weights = [[weight(WIDTH, WIDTH) for _ in "qkvo"] for _ in range(LAYERS)]
mlp_weights = [(weight(WIDTH, 4 * WIDTH), weight(4 * WIDTH, WIDTH)) for _ in range(LAYERS)]
head = weight(WIDTH, len(chars))
weights = [token_table, place_table, head]
weights += [w for layer in (*attention_weights, *mlp_weights) for w in layer]
future = Tensor(np.triu(np.full((LENGTH, LENGTH), -np.inf, np.float32), 1))  # must not be seen


def normalize(x: Tensor) -> Tensor:
    return x / ((x * x).mean(-1, keepdim=True) + 1e-5).sqrt()


def attention(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
    """Each place asks (q) the places up to it what they offer (k) and takes what they hold (v)."""
    B, T, _ = x.shape
    q, k, v = ((x @ w).reshape(B, T, HEADS, -1).transpose(1, 2) for w in (wq, wk, wv))
    scores = q @ k.transpose(-1, -2) / (WIDTH / HEADS) ** 0.5 + future[:T, :T]
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, WIDTH) @ wo


def gpt(tokens: np.ndarray) -> Tensor:
    """The logits of the next character, at every place."""
    x = token_table[tokens] + place_table[: tokens.shape[1]]
    for qkvo, (up, down) in zip(attention_weights, mlp_weights, strict=True):
        x = x + attention(normalize(x), *qkvo)
        x = x + (normalize(x) @ up).relu() @ down
    return normalize(x) @ head


def write_name() -> str:
    name = [0]
    while len(name) <= LENGTH and (len(name) == 1 or name[-1] != 0):
        p = gpt(np.array([name]))[0, -1].softmax(-1).numpy().astype(np.float64)
        name.append(int(rng.choice(len(chars), p=p / p.sum())))
    return "".join(chars[i] for i in name).strip(".")


steps = int(sys.argv[1]) if len(sys.argv) > 1 else 500
means, squares = ([np.zeros(w.shape, np.float32) for w in weights] for _ in range(2))
for step in range(1, steps + 1):
    batch = tokens[rng.integers(0, len(tokens), BATCH)]
    log_p = gpt(batch[:, :-1]).log_softmax(-1)
    loss = -log_p.gather(-1, Tensor(batch[:, 1:, None])).mean()
    gradients = minigrad.grad(loss, weights)
    with minigrad.no_grad():  # Adam, by running means of each gradient and of its square
        for w, g, m, v in zip(weights, gradients, means, squares, strict=True):
            m += 0.1 * (g.numpy() - m)
            v += 0.01 * (g.numpy() ** 2 - v)
            change = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
            w.assign(w - LEARNING_RATE * (1 - step / steps) * change)
    if step % 100 == 0 or step in (1, steps):
        print(f"step {step:4d}  loss {loss.item():.3f}")

written = [write_name() for _ in range(200)]
mixed = sum(any(c in BRIGHT for c in name) and any(c in DARK for c in name) for name in written)
print(*written[:16])
print(f"{sum(name not in names for name in written) / 2:.0f}% are new,", end=" ")
print(f"{100 - mixed / 2:.0f}% obey the rule")
