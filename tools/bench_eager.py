"""Eager speed: one GPT training step in minigrad, in numpy written by hand, and in PyTorch (where
installed), side by side.

    python tools/bench_eager.py                        # both shapes
    python tools/bench_eager.py --shape 8,256,6,6,384

A step is forward, backward, clipping and AdamW, with the same weights and the same batch; the
losses of the first steps are compared before anything is timed. The three take turns in one
process, so that a machine that slows down slows all of them; ratios are what counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
from hand_gpt import HandGPT

import minigrad
from minigrad.models import GPT, GPTConfig
from minigrad.optim import AdamW, clip_grad_norm_

SHAPES = [(12, 64, 4, 4, 128), (4, 32, 2, 2, 32)]
VOCAB = 65


def minigrad_step(model: GPT, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """A function that does one step and returns the loss."""
    parameters = list(model.parameters())
    optimizer = AdamW(parameters, lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step


def torch_step(
    weights: dict[str, np.ndarray], shape: tuple[int, ...], x: np.ndarray, y: np.ndarray
) -> Callable[[], float] | None:
    """The same in PyTorch, written as PyTorch users would; None where it is not installed."""
    try:
        import torch
        from torch.nn import functional as F
    except ImportError:
        return None
    B, T, n_layer, n_head, C = shape
    w = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in weights.items()}
    optimizer = torch.optim.AdamW(w.values(), lr=1e-3)
    tokens, targets = torch.tensor(x), torch.tensor(y).view(-1)

    def block(h: torch.Tensor, at: str) -> torch.Tensor:
        a = F.layer_norm(h, (C,), w[at + "ln_1.weight"], w[at + "ln_1.bias"])
        qkv = F.linear(a, w[at + "attn.in_proj_weight"], w[at + "attn.in_proj_bias"])
        q, k, v = (
            part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in qkv.split(C, dim=2)
        )
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        h = h + F.linear(o, w[at + "attn.out_proj.weight"], w[at + "attn.out_proj.bias"])
        b = F.layer_norm(h, (C,), w[at + "ln_2.weight"], w[at + "ln_2.bias"])
        f = F.gelu(
            F.linear(b, w[at + "mlp.c_fc.weight"], w[at + "mlp.c_fc.bias"]), approximate="tanh"
        )
        return h + F.linear(f, w[at + "mlp.c_proj.weight"], w[at + "mlp.c_proj.bias"])

    def step() -> float:
        optimizer.zero_grad()
        h = F.embedding(tokens, w["wte.weight"]) + w["wpe.weight"][:T]
        for i in range(n_layer):
            h = block(h, f"h.{i}.")
        logits = F.linear(F.layer_norm(h, (C,), w["ln_f.weight"], w["ln_f.bias"]), w["wte.weight"])
        loss = F.cross_entropy(logits.view(-1, VOCAB), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def compare(shape: tuple[int, ...], seconds: float) -> None:
    """Print one line per contender: median, spread, and the ratio to minigrad."""
    B, T, n_layer, n_head, C = shape
    minigrad.manual_seed(0)
    model = GPT(
        GPTConfig.gpt2(vocab_size=VOCAB, block_size=T, n_layer=n_layer, n_head=n_head, n_embd=C)
    )
    weights = {name: np.array(t.data) for name, t in model.state_dict().items()}
    generator = minigrad.Generator(1)
    x, y = generator.integers(0, VOCAB, (B, T)), generator.integers(0, VOCAB, (B, T))
    hand = HandGPT(weights, n_layer, n_head)
    steps = {"minigrad": minigrad_step(model, x, y), "numpy by hand": lambda: hand.step(x, y)}
    rival = torch_step(weights, shape, x, y)
    if rival is not None:
        steps["PyTorch eager"] = rival
    losses = {name: [step() for _ in range(4)] for name, step in steps.items()}
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["minigrad"], rtol=1e-4, err_msg=name)
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - start) * 1e3)
    ours = statistics.median(times["minigrad"])
    print(
        f"batch {B}, T {T}, {n_layer} layers, {n_head} heads, {C} wide; loss after 4 steps "
        f"{losses['minigrad'][-1]:.4f} in all"
    )
    for name, values in times.items():
        tenths = statistics.quantiles(values, n=10)
        median = statistics.median(values)
        spread = f"10-90%: {tenths[0]:.2f} .. {tenths[-1]:.2f}, {len(values)} steps"
        print(f"  {name:14s} {median:8.2f} ms   ({spread})   minigrad / this: {ours / median:.2f}")


def machine() -> str:
    """What the figures depend on: load, cores, numpy, the BLAS kernels in use where threadpoolctl
    can tell.
    """
    kernels = "unknown (pip install threadpoolctl)"
    try:
        from threadpoolctl import threadpool_info

        kernels = ", ".join(
            f"{i['internal_api']} {i.get('architecture', '')} x{i['num_threads']}"
            for i in threadpool_info()
        )
    except ImportError:
        pass
    forced = {
        name: os.environ[name]
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        if name in os.environ
    }
    load = os.getloadavg()[0]
    return (
        f"load {load:.2f}, {os.cpu_count()} cores, {platform.machine()}, numpy "
        f"{np.__version__}, BLAS {kernels}, forced {forced or 'nothing'}"
    )


def main() -> None:
    """Read the options, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", help="batch,T,layers,heads,width")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="of timing per shape (default: 15)"
    )
    args = parser.parse_args()
    print(machine())
    for shape in [tuple(map(int, args.shape.split(",")))] if args.shape else SHAPES:
        compare(shape, args.seconds)


if __name__ == "__main__":
    main()
