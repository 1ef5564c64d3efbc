"""The Llama-type model of `bench.py`: RMSNorm, rotary positions, QK-norm and SwiGLU, its matrices
trained by Muon and the rest by AdamW, in minigrad and in PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_worker import BETAS, DECAY, EPS, LR, Contender, Sizes, training_step

MUON_LR, MOMENTUM, NS_STEPS = 0.02, 0.95, 5
NORM_EPS, BASE = 1e-6, 10000.0  # of RMSNorm, and of the rotary angles
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def weights(sizes: Sizes, vocabulary: int) -> dict[str, np.ndarray]:
    """First weights, by minigrad's names."""
    _, _, L, H, C = sizes
    rng, hidden = np.random.default_rng(0), 8 * C // 3
    matrices = {
        "attn.in_proj_weight": (3 * C, C),
        "attn.out_proj.weight": (C, C),
        "mlp.gate_proj.weight": (hidden, C),
        "mlp.up_proj.weight": (hidden, C),
        "mlp.down_proj.weight": (C, hidden),
    }
    norms = {"ln_1": C, "ln_2": C, "attn.q_norm": C // H, "attn.k_norm": C // H}
    arrays = {"wte.weight": rng.normal(0, 0.02, (vocabulary, C)), "ln_f.weight": np.ones(C)}
    for i in range(L):
        for name, shape in matrices.items():
            arrays[f"h.{i}.{name}"] = rng.normal(0, shape[1] ** -0.5, shape)
        for name, width in norms.items():
            arrays[f"h.{i}.{name}.weight"] = np.ones(width)
    return {name: a.astype(np.float32) for name, a in arrays.items()}


def flops(sizes: Sizes, vocabulary: int) -> float:
    """The operations in the products of a step, attention's as whole squares, Muon's by the
    formula.
    """
    B, T, L, _, C = sizes
    hidden, muon = 8 * C // 3, 0.0
    for rows, columns in ((C, 3 * C), (C, C), *[(C, hidden)] * 3):
        muon += NS_STEPS * (4.0 * rows * rows * columns + 2.0 * rows**3)
    model = 6.0 * B * T * (L * (4 * C * C + 3 * C * hidden) + vocabulary * C)
    return model + 12.0 * L * B * T * T * C + L * muon


def for_muon(name: str) -> bool:
    """True for the matrices of the blocks."""
    return name.startswith("h.") and "ln_" not in name and "norm" not in name


def minigrad(backend: str | None) -> Callable[[dict[str, Any], Sizes], Contender]:
    """minigrad, eager (None) or by one of jit's back ends."""

    def make(arrays: dict[str, Any], sizes: Sizes) -> Contender:
        from minigrad import Tensor, optim
        from minigrad.models import GPT, GPTConfig

        _, T, L, H, C = sizes
        model = GPT(GPTConfig(len(arrays["wte.weight"]), T, L, H, C))
        model.load_state_dict({k: Tensor(v) for k, v in arrays.items()})
        named = list(model.named_parameters())
        matrices = [p for name, p in named if for_muon(name)]
        rest = [p for name, p in named if not for_muon(name)]
        muon = optim.Muon(
            matrices, MUON_LR, weight_decay=DECAY, momentum=MOMENTUM, ns_steps=NS_STEPS
        )
        adamw = optim.AdamW(rest, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
        run = training_step(model, optim.ChainedOptimizer([muon, adamw]), backend)

        def step(x: Any, y: Any) -> float:
            return float(run(Tensor(x), Tensor(y)))

        return Contender(step, phases=lambda: str(run.explain(measure=True)))

    return make


def torch(compiled: bool) -> Callable[[dict[str, Any], Sizes], Contender]:
    """PyTorch with its fused attention and fused AdamW, and Muon in float32, as minigrad's; eager,
    or forward, backward and the iterations of Muon by torch.compile.
    """

    def make(arrays: dict[str, Any], sizes: Sizes) -> Contender:
        import torch
        import torch.nn.functional as F

        _, T, L, H, C = sizes
        D = C // H
        w = {k: torch.nn.Parameter(torch.from_numpy(v.copy())) for k, v in arrays.items()}
        matrices = [p for name, p in w.items() if for_muon(name)]
        rest = [p for name, p in w.items() if not for_muon(name)]
        adamw = torch.optim.AdamW(rest, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)
        moments = [torch.zeros_like(p) for p in matrices]
        angles = torch.outer(torch.arange(T), BASE ** (-torch.arange(0, D, 2) / D))
        cos, sin = (torch.cat((t, t), -1) for t in (angles.cos(), angles.sin()))

        def norm(x: Any, name: str) -> Any:
            return F.rms_norm(x, x.shape[-1:], w[name + ".weight"], NORM_EPS)

        def turned(x: Any) -> Any:
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat((-b, a), -1) * sin

        def loss_of(x: Any, y: Any) -> Any:
            h = w["wte.weight"][x]
            for i in range(L):
                p = f"h.{i}."
                qkv: Any = F.linear(norm(h, p + "ln_1"), w[p + "attn.in_proj_weight"])
                q, k, v = (t.unflatten(2, (H, D)).transpose(1, 2) for t in qkv.split(C, 2))
                q, k = turned(norm(q, p + "attn.q_norm")), turned(norm(k, p + "attn.k_norm"))
                z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                h = h + F.linear(z.transpose(1, 2).flatten(2), w[p + "attn.out_proj.weight"])
                z = norm(h, p + "ln_2")
                gate, up = (F.linear(z, w[f"{p}mlp.{n}_proj.weight"]) for n in ("gate", "up"))
                h = h + F.linear(F.silu(gate) * up, w[p + "mlp.down_proj.weight"])
            return F.cross_entropy(
                F.linear(norm(h, "ln_f"), w["wte.weight"]).flatten(0, 1), y.flatten()
            )

        def newton_schulz(g: Any) -> Any:
            a, b, c = COEFFICIENTS
            x = g.T if g.shape[0] > g.shape[1] else g
            x = x / (x.norm() + 1e-7)
            for _ in range(NS_STEPS):
                gram = x @ x.T
                x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
            return x.T if g.shape[0] > g.shape[1] else x

        @torch.no_grad()
        def muon() -> None:
            for p, m in zip(matrices, moments, strict=True):
                m.lerp_(p.grad, 1 - MOMENTUM)
                u = iterated(torch.lerp(p.grad, m, MOMENTUM))
                p.mul_(1 - MUON_LR * DECAY)
                p.add_(u, alpha=-MUON_LR * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)

        compiling = functools.partial(torch.compile, dynamic=False)
        function = compiling(loss_of) if compiled else loss_of
        iterated = compiling(newton_schulz) if compiled else newton_schulz

        def step(x: Any, y: Any) -> float:
            for p in w.values():
                p.grad = None
            loss = function(torch.from_numpy(x), torch.from_numpy(y))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
            muon()
            adamw.step()
            return float(loss.detach())

        return Contender(step)

    return make


CONTENDERS: dict[str, Callable[[dict[str, Any], Sizes], Contender]] = {
    "minigrad C": minigrad("c"),
    "minigrad eager": minigrad(None),
    "PyTorch eager": torch(False),
    "PyTorch compile": torch(True),
}
