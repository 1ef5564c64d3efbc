"""One contender of `bench.py`: reads numbers of steps from standard input, answers each with a line
of JSON.

A contender is a function (arrays, sizes) -> Contender; its step(x, y) makes one training step and
returns the loss as a float.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LR, DECAY, BETAS, EPS = 1e-3, 0.1, (0.9, 0.99), 1e-8
Sizes = tuple[int, int, int, int, int]  # B, T, layers, heads, width


class Contender(NamedTuple):
    """step(x, y, lr) trains and returns the loss; loss(x, y), where there is one, only looks;
    phases() says where the time goes.
    """

    step: Callable[..., float]
    loss: Callable[[Any, Any], float] | None = None
    phases: Callable[[], str] | None = None


def training_step(
    model: Any, optimizer: Any, backend: str | None, matmul: str = "float32"
) -> Callable[[Any, Any], Any]:
    """step(x, y) of minigrad: loss, gradients, clipping and update; eager (None) or by one of jit's
    back ends.
    """
    from minigrad import jit
    from minigrad.optim import clip_grad_norm_

    params = list(model.parameters())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        clip_grad_norm_(params, 1.0)
        optimizer.step()
        return loss

    return step if backend is None else jit(step, backend=backend, matmul=matmul)


def minigrad(
    backend: str | None, matmul: str = "float32"
) -> Callable[[dict[str, Any], Sizes], Contender]:
    """minigrad, eager (None) or by one of jit's back ends."""

    def make(arrays: dict[str, Any], sizes: Sizes) -> Contender:
        from minigrad import Tensor, no_grad
        from minigrad.models.gpt import GPT, GPTConfig
        from minigrad.optim import AdamW

        _, T, L, H, C = sizes
        model = GPT(
            GPTConfig.gpt2(
                vocab_size=len(arrays["wte.weight"]), block_size=T, n_layer=L, n_head=H, n_embd=C
            )
        )
        model.load_state_dict({k: Tensor(v) for k, v in arrays.items()})
        optimizer = AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)

        run = training_step(model, optimizer, backend, matmul)

        def trained(x: Any, y: Any, lr: float | None = None) -> float:
            if lr is not None:
                optimizer.lr = lr
            return float(run(Tensor(x), Tensor(y)))

        def loss(x: Any, y: Any) -> float:
            with no_grad():
                return float(model.loss(x, y))

        return Contender(trained, loss, lambda: str(run.explain(measure=True)))

    return make


def torch(compiled: bool, half: bool = False) -> Callable[[dict[str, Any], Sizes], Contender]:
    """PyTorch with its fused attention and fused AdamW; eager, or forward and backward by
    torch.compile. half: under autocast to bfloat16.
    """

    def make(arrays: dict[str, Any], sizes: Sizes) -> Contender:
        import torch
        import torch.nn.functional as F

        _, _, L, H, C = sizes
        w = {k: torch.nn.Parameter(torch.from_numpy(v.copy())) for k, v in arrays.items()}
        optimizer = torch.optim.AdamW(
            w.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True
        )

        def loss_of(x: Any, y: Any) -> Any:
            h = w["wte.weight"][x] + w["wpe.weight"][: x.shape[1]]
            for i in range(L):
                p = f"h.{i}."
                z = F.layer_norm(h, (C,), w[p + "ln_1.weight"], w[p + "ln_1.bias"])
                qkv: Any = F.linear(z, w[p + "attn.in_proj_weight"], w[p + "attn.in_proj_bias"])
                q, k, v = (t.unflatten(2, (H, C // H)).transpose(1, 2) for t in qkv.split(C, 2))
                z = (
                    F.scaled_dot_product_attention(q, k, v, is_causal=True)
                    .transpose(1, 2)
                    .flatten(2)
                )
                h = h + F.linear(z, w[p + "attn.out_proj.weight"], w[p + "attn.out_proj.bias"])
                z = F.layer_norm(h, (C,), w[p + "ln_2.weight"], w[p + "ln_2.bias"])
                z = F.gelu(
                    F.linear(z, w[p + "mlp.c_fc.weight"], w[p + "mlp.c_fc.bias"]),
                    approximate="tanh",
                )
                h = h + F.linear(z, w[p + "mlp.c_proj.weight"], w[p + "mlp.c_proj.bias"])
            h = F.layer_norm(h, (C,), w["ln_f.weight"], w["ln_f.bias"])
            return F.cross_entropy(F.linear(h, w["wte.weight"]).flatten(0, 1), y.flatten())

        function = torch.compile(loss_of) if compiled else loss_of

        def step(x: Any, y: Any, lr: float | None = None) -> float:
            if lr is not None:
                optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = function(torch.from_numpy(x), torch.from_numpy(y))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
            optimizer.step()
            return float(loss.detach())

        def look(x: Any, y: Any) -> float:
            with torch.no_grad():
                return float(loss_of(torch.from_numpy(x), torch.from_numpy(y)))

        return Contender(step, look)

    return make


def jax(arrays: dict[str, Any], sizes: Sizes) -> Contender:
    """JAX: the whole step, AdamW included, in one jit with donated buffers."""
    import jax
    import jax.numpy as jnp

    B, T, L, H, C = sizes

    def norm(x: Any, weight: Any, bias: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * weight
            + bias
        )

    mask = jnp.tril(jnp.ones((T, T), bool))

    def loss_of(w: Any, x: Any, y: Any) -> Any:
        h = w["wte.weight"][x] + w["wpe.weight"]
        for i in range(L):
            p = f"h.{i}."
            z = norm(h, w[p + "ln_1.weight"], w[p + "ln_1.bias"])
            qkv = z @ w[p + "attn.in_proj_weight"].T + w[p + "attn.in_proj_bias"]
            q, k, v = (
                t.reshape(B, T, H, C // H).transpose(0, 2, 1, 3) for t in jnp.split(qkv, 3, 2)
            )
            s = jnp.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(C // H), -jnp.inf)
            z = (jax.nn.softmax(s) @ v).transpose(0, 2, 1, 3).reshape(B, T, C)
            h = h + z @ w[p + "attn.out_proj.weight"].T + w[p + "attn.out_proj.bias"]
            z = norm(h, w[p + "ln_2.weight"], w[p + "ln_2.bias"])
            z = jax.nn.gelu(
                z @ w[p + "mlp.c_fc.weight"].T + w[p + "mlp.c_fc.bias"], approximate=True
            )
            h = h + z @ w[p + "mlp.c_proj.weight"].T + w[p + "mlp.c_proj.bias"]
        logp = jax.nn.log_softmax(norm(h, w["ln_f.weight"], w["ln_f.bias"]) @ w["wte.weight"].T)
        return -jnp.take_along_axis(logp, y[..., None], -1).mean()

    def update(w: Any, m: Any, v: Any, t: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(w, x, y)
        total = jnp.sqrt(sum((a * a).sum() for a in jax.tree.leaves(g)))
        g = jax.tree.map(lambda a: a * jnp.minimum(1, 1 / (total + 1e-6)), g)
        m = jax.tree.map(lambda a, b: BETAS[0] * a + (1 - BETAS[0]) * b, m, g)
        v = jax.tree.map(lambda a, b: BETAS[1] * a + (1 - BETAS[1]) * b * b, v, g)
        c1, c2 = 1 - BETAS[0] ** t, 1 - BETAS[1] ** t
        w = jax.tree.map(
            lambda p, a, b: p * (1 - LR * DECAY) - LR * (a / c1) / (jnp.sqrt(b / c2) + EPS), w, m, v
        )
        return w, m, v, t + 1, loss

    compiled = jax.jit(update, donate_argnums=(0, 1, 2, 3))
    state = [
        {k: jnp.asarray(a) for k, a in arrays.items()},
        *({k: jnp.zeros(a.shape) for k, a in arrays.items()} for _ in range(2)),
        jnp.float32(1),
    ]

    def step(x: Any, y: Any) -> float:
        *state[:], loss = compiled(*state, x, y)
        return float(loss)

    return Contender(step)


def tinygrad(arrays: dict[str, Any], sizes: Sizes) -> Contender:
    """tinygrad: the whole step, AdamW included, in one TinyJit, which replays from the third call
    on.
    """
    from tinygrad.engine.jit import TinyJit
    from tinygrad.helpers import TRAINING
    from tinygrad.nn.optim import AdamW
    from tinygrad.tensor import Tensor

    TRAINING.value = 1  # for good: the process has no other contender
    _, T, L, H, C = sizes
    mask = Tensor.ones(T, T, dtype="bool").tril().realize()
    w: dict[str, Any] = {k: Tensor(v.copy()).realize() for k, v in arrays.items()}
    optimizer = AdamW(
        list(w.values()), lr=LR, b1=BETAS[0], b2=BETAS[1], eps=EPS, weight_decay=DECAY
    )

    def norm(x: Any, p: str) -> Any:
        return x.layernorm(eps=1e-5) * w[p + ".weight"] + w[p + ".bias"]

    def kept(
        x: Any,
    ) -> (
        Any
    ):  # written out, and so its gradient: fused into a product, both are computed anew per element
        return x.contiguous().contiguous_backward()

    def linear(x: Any, p: str) -> Any:
        return kept(kept(x).linear(w[p + "weight"].T, w[p + "bias"]))

    def loss_of(x: Any, y: Any) -> Any:
        h = w["wte.weight"][x] + w["wpe.weight"]
        for i in range(L):
            p = f"h.{i}."
            qkv = linear(norm(h, p + "ln_1"), p + "attn.in_proj_").split(C, 2)
            q, k, v = (kept(t.unflatten(2, (H, C // H)).transpose(1, 2)) for t in qkv)
            s = mask.where(kept(q @ k.transpose(2, 3)) / math.sqrt(C // H), -math.inf)
            h = h + linear((kept(s.softmax()) @ v).transpose(1, 2).flatten(2), p + "attn.out_proj.")
            h = h + linear(linear(norm(h, p + "ln_2"), p + "mlp.c_fc.").gelu(), p + "mlp.c_proj.")
        return kept(
            kept(norm(h, "ln_f")).linear(w["wte.weight"].T)
        ).sparse_categorical_crossentropy(y)

    @TinyJit
    def update(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, y).backward()
        total = sum(((a.grad * a.grad).sum() for a in w.values()), Tensor(0.0)).sqrt()
        for a in w.values():
            a.grad = a.grad * (1 / (total + 1e-6)).minimum(1)
        return loss.realize(*optimizer.schedule_step())

    def step(x: Any, y: Any) -> float:
        return float(update(Tensor(x.astype(np.int32)), Tensor(y.astype(np.int32))).item())

    return Contender(step)


def floor(arrays: dict[str, Any], sizes: Sizes) -> Contender:
    """The matrix products of the step alone, by numpy's BLAS with all its threads: weights'
    products forward and twice backward, and attention's.
    """
    B, T, L, H, C = sizes
    N, D, V = B * T, C // H, len(arrays["wte.weight"])
    rng = np.random.default_rng(0)
    products = []
    for (rows, columns), count in {
        (3 * C, C): L,
        (C, C): L,
        (4 * C, C): L,
        (C, 4 * C): L,
        (V, C): 1,
    }.items():
        w, x, g = (
            rng.normal(size=s).astype(np.float32)
            for s in ((rows, columns), (N, columns), (N, rows))
        )
        products += [
            (x, w.T, np.empty_like(g)),
            (g, w, np.empty_like(x)),
            (g.T, x, np.empty_like(w)),
        ] * count
    q, s = (
        rng.normal(size=(B * H, T, D)).astype(np.float32),
        rng.normal(size=(B * H, T, T)).astype(np.float32),
    )
    out_s, out_q = np.empty_like(s), np.empty_like(q)
    pairs = (
        [(q, q.swapaxes(1, 2), out_s)] * 2
        + [(s, q, out_q)] * 2
        + [(s.swapaxes(1, 2), q, out_q)] * 2
    )

    def step(_x: Any, _y: Any) -> float:
        for a, b, out in products:
            np.matmul(a, b, out=out)
        for _ in range(L):
            for a, b, out in pairs:
                np.matmul(a, b, out=out)
        return math.nan

    return Contender(step)


CONTENDERS: dict[str, Callable[[dict[str, Any], Sizes], Contender]] = {
    "minigrad C": minigrad("c"),
    "minigrad C, bfloat16": minigrad("c", "bfloat16"),
    "minigrad numpy replay": minigrad("numpy"),
    "minigrad eager": minigrad(None),
    "PyTorch eager": torch(False),
    "PyTorch compile": torch(True),
    "PyTorch eager, bfloat16": torch(False, half=True),
    "PyTorch compile, bfloat16": torch(True, half=True),
    "JAX jit": jax,
    "tinygrad": tinygrad,
    "floor": floor,
}


def main() -> None:
    """Make the step, then answer."""
    name, shape, path = sys.argv[1:4]
    started = time.perf_counter()
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    tokens = arrays.pop("tokens")
    kind, _, numbers = shape.rpartition(":")
    B, T, L, H, C = map(int, numbers.split(","))
    contenders = CONTENDERS
    if kind == "llama":
        from bench_llama import CONTENDERS as contenders
    contender = contenders[name](arrays, (B, T, L, H, C))
    batches = [(np.ascontiguousarray(t[:, :-1]), np.ascontiguousarray(t[:, 1:])) for t in tokens]
    done, ready = 0, 0.0
    for line in sys.stdin:
        if line.strip() == "phases":
            print(
                json.dumps({"phases": contender.phases() if contender.phases else ""}), flush=True
            )
            continue
        times, loss = [], math.nan
        for _ in range(int(line)):
            x, y = batches[done % len(batches)]
            begun = time.perf_counter()
            loss = contender.step(x, y)
            times.append(time.perf_counter() - begun)
            done += 1
        ready = ready or time.perf_counter() - started
        print(
            json.dumps(
                {"times": times, "loss": None if math.isnan(loss) else loss, "start": ready}
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
