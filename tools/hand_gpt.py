"""A GPT training step in plain numpy, written by hand: forward, backward, clipping, AdamW.

What eager minigrad is measured against (bench_eager.py): the same mathematics without a framework.
It is also an oracle that shares no code with the engine; the tests compare its gradients with the
engine's.
"""

from __future__ import annotations

import numpy as np

SLOPE, CUBE, EPS = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715), np.float32(1e-5)


class HandGPT:
    """weights: the state_dict of a minigrad.models.GPT with biases, as arrays."""

    def __init__(
        self, weights: dict[str, np.ndarray], n_layer: int, n_head: int, lr: float = 1e-3
    ) -> None:
        self.w = {name: np.array(a) for name, a in weights.items()}
        self.n_layer, self.n_head, self.lr, self.t = n_layer, n_head, lr, 0
        self.m = {name: np.zeros_like(a) for name, a in self.w.items()}
        self.v = {name: np.zeros_like(a) for name, a in self.w.items()}

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """One training step; returns the loss before it."""
        loss, grads = self.gradients(x, y)
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
        scale, self.t = min(1.0, 1.0 / (norm + 1e-6)), self.t + 1
        c1, c2 = 1 - 0.9**self.t, 1 - 0.999**self.t
        for name, p in self.w.items():
            g, m, v = grads[name] * scale, self.m[name], self.v[name]
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p *= 1 - self.lr * 0.01
            p -= self.lr * (m / c1) / (np.sqrt(v / c2) + 1e-8)
        return loss

    def gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """The loss, and its gradient with respect to every weight."""
        w, g = self.w, {}
        T, C = x.shape[1], w["wte.weight"].shape[1]
        h = w["wte.weight"][x] + w["wpe.weight"][:T]  # (B, T, C)
        saved = []
        for i in range(self.n_layer):
            h, kept = self._block(h, f"h.{i}.")
            saved.append(kept)
        out, ln_f = _norm(h, w["ln_f.weight"], w["ln_f.bias"])
        flat = out.reshape(-1, C)
        logits = flat @ w["wte.weight"].T  # (N, V)
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(1, keepdims=True)
        rows = np.arange(len(p))
        loss = float((np.log(total[:, 0]) - logits[rows, y.reshape(-1)]).mean())
        p /= total
        p[rows, y.reshape(-1)] -= 1
        p /= len(p)
        g["wte.weight"] = p.T @ flat
        d, g["ln_f.weight"], g["ln_f.bias"] = _norm_back(
            (p @ w["wte.weight"]).reshape(h.shape), w["ln_f.weight"], ln_f
        )
        for i in reversed(range(self.n_layer)):
            d = self._block_back(d, f"h.{i}.", saved[i], g)
        np.add.at(g["wte.weight"], x, d)
        g["wpe.weight"] = np.zeros_like(w["wpe.weight"])
        g["wpe.weight"][:T] = d.sum(0)
        return loss, g

    def _block(self, h: np.ndarray, at: str) -> tuple[np.ndarray, tuple]:
        w, (B, T, C), H = self.w, h.shape, self.n_head
        a, ln_1 = _norm(h, w[at + "ln_1.weight"], w[at + "ln_1.bias"])
        qkv = _linear(a, w[at + "attn.in_proj_weight"], w[at + "attn.in_proj_bias"])
        q, k, v = qkv.reshape(B, T, 3, H, C // H).transpose(2, 0, 3, 1, 4)  # (B, H, T, D)
        s = q @ k.swapaxes(2, 3)
        s *= np.float32((C // H) ** -0.5)
        s[:, :, ~np.tri(T, dtype=bool)] = -np.inf
        s -= s.max(-1, keepdims=True)
        np.exp(s, out=s)
        s /= s.sum(-1, keepdims=True)
        o = (s @ v).transpose(0, 2, 1, 3).reshape(B, T, C)
        h = h + _linear(o, w[at + "attn.out_proj.weight"], w[at + "attn.out_proj.bias"])
        b, ln_2 = _norm(h, w[at + "ln_2.weight"], w[at + "ln_2.bias"])
        u = _linear(b, w[at + "mlp.c_fc.weight"], w[at + "mlp.c_fc.bias"])
        t = np.tanh(SLOPE * (u + CUBE * u * u * u))
        f = np.float32(0.5) * u * (1 + t)
        h = h + _linear(f, w[at + "mlp.c_proj.weight"], w[at + "mlp.c_proj.bias"])
        return h, (ln_1, a, q, k, v, s, o, ln_2, b, u, t, f)

    def _block_back(
        self, d: np.ndarray, at: str, kept: tuple, g: dict[str, np.ndarray]
    ) -> np.ndarray:
        w, (B, T, C), H = self.w, d.shape, self.n_head
        ln_1, a, q, k, v, s, o, ln_2, b, u, t, f = kept
        df = self._linear_back(d, f, at + "mlp.c_proj.weight", at + "mlp.c_proj.bias", g)
        half = np.float32(0.5)
        du = df * (half * (1 + t) + half * u * (1 - t * t) * SLOPE * (1 + 3 * CUBE * u * u))
        db = self._linear_back(du, b, at + "mlp.c_fc.weight", at + "mlp.c_fc.bias", g)
        dn, g[at + "ln_2.weight"], g[at + "ln_2.bias"] = _norm_back(db, w[at + "ln_2.weight"], ln_2)
        d = d + dn
        do = self._linear_back(d, o, at + "attn.out_proj.weight", at + "attn.out_proj.bias", g)
        do = do.reshape(B, T, H, C // H).transpose(0, 2, 1, 3)
        dv = s.swapaxes(2, 3) @ do
        ds = do @ v.swapaxes(2, 3)
        ds = s * (ds - (ds * s).sum(-1, keepdims=True)) * np.float32((C // H) ** -0.5)
        dqkv = (
            np.stack([ds @ k, ds.swapaxes(2, 3) @ q, dv])
            .transpose(1, 3, 0, 2, 4)
            .reshape(B, T, 3 * C)
        )
        da = self._linear_back(dqkv, a, at + "attn.in_proj_weight", at + "attn.in_proj_bias", g)
        dn, g[at + "ln_1.weight"], g[at + "ln_1.bias"] = _norm_back(da, w[at + "ln_1.weight"], ln_1)
        return d + dn

    def _linear_back(
        self, d: np.ndarray, x: np.ndarray, weight: str, bias: str, g: dict[str, np.ndarray]
    ) -> np.ndarray:
        rows = d.reshape(-1, d.shape[-1])
        g[weight], g[bias] = rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(0)
        return (rows @ self.w[weight]).reshape(x.shape)


def _linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x.reshape(-1, x.shape[-1]) @ weight.T + bias).reshape(*x.shape[:-1], len(weight))


def _norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, tuple]:
    n = x - x.mean(-1, keepdims=True)
    r = 1 / np.sqrt((n * n).mean(-1, keepdims=True) + EPS)
    n *= r
    return n * weight + bias, (n, r)


def _norm_back(
    d: np.ndarray, weight: np.ndarray, kept: tuple
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, r = kept
    u = d * weight
    dx = (u - u.mean(-1, keepdims=True) - n * (u * n).mean(-1, keepdims=True)) * r
    return dx, (d * n).sum((0, 1)), d.sum((0, 1))
