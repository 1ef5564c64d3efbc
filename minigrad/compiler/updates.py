"""Optimizers and clipping: all parameters of a group as pieces of about equal length in one phase.

The C of an optimizer is two functions: NAME_scalars, and NAME_piece with the header `pieces of p`,
which updates n numbers of a parameter p by its gradient g; its other pointers that are written are
the flat moments, in order. Its whole numbers are params of the op.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.lower import Builder, Call, literal, lowers, need, plain
from minigrad.compiler.signatures import signatures_of

_PIECE = 8192  # numbers per unit: a fixed cut, so that sums do not depend on the number of threads


def _pieces(sizes: list[int]) -> list[tuple[int, int, int]]:
    """(which array, where it starts, how many numbers) for each unit."""
    return [(i, at, min(_PIECE, n - at)) for i, n in enumerate(sizes) for at in range(0, n, _PIECE)]


def _need_flat(call: Call, values: list[int]) -> None:
    need(plain(call.layout, *values) and all(call.array(i).size for i in values))


class _Pieces:
    """A kernel over pieces of several lists of arrays, by a table of the units."""

    def __init__(self, call: Call, prefix: str, rows: Sequence[tuple[int, ...]]) -> None:
        self.builder = Builder(call)
        self.name, self.rows, self.heads = f"{prefix}_{call.number}", rows, list[str]()
        self.sizes = tuple(row[2] for row in rows)

    def use(self, values: list[int], name: str, write: bool = False) -> None:
        """A C array `name`s of the pointers to these values."""
        found = [self.builder.use(v, f"{name}{i}", write=write) for i, v in enumerate(values)]
        const = "" if write else "const "
        self.heads.append(f"{const}float *const {name}s[] = {{{', '.join(found)}}};\n    ")

    def kernel(self, name: str, body: str, flops: float, solo: bool = True) -> Kernel:
        """body: what to do for unit u, whose row of the table is w."""
        loop = f"for (int64_t u = lo; u < hi; u++) {{\n        const int64_t *w = {self.name}[u];\n"
        text, units = f"{''.join(self.heads)}{loop}        {body}\n    }}", len(self.rows)
        listed = ", ".join(f"{{{', '.join(map(str, row))}}}" for row in self.rows)
        table = f"static const int64_t {self.name}[][{len(self.rows[0])}] = {{{listed}}};"
        return self.builder.kernel(
            name, text, units, flops, helper=table, sizes=self.sizes, solo=solo
        )


@lowers("clip_grad_norm_")
def _clip(call: Call) -> list[Kernel]:
    gradients, layout, params = call.operands(), call.layout, call.line.params
    _need_flat(call, gradients)
    sizes = [call.array(g).size for g in gradients]
    rows = _pieces(sizes)
    part, scale = layout.scratch((len(rows),), np.float64), layout.scratch((1,))
    # Three phases: squares of all pieces; their sum, in a fixed order, and the factor; the scaling,
    # which returns at once if nothing is to be clipped.
    squares, scaling = _Pieces(call, "clip", rows), _Pieces(call, "clip", rows)
    squares.use(gradients, "g")
    squares.builder.writes(part=part)
    total = Builder(call)
    total.reads(part=part)
    total.writes(scale=scale, norm=call.y)
    limit = literal(params["max_norm"], np.dtype(np.float64))
    numbers = f"{len(rows)}, {limit}, {int(params['error_if_nonfinite'])}"
    norm = f"(void)lo, (void)hi; clip_norm(part, scale, norm, {numbers});"
    scaling.builder.reads(scale=scale)
    scaling.heads.append("if (*scale == 1) return;\n    ")
    scaling.use(gradients, "g", write=True)
    square = "part[u] = sum_of_squares(gs[w[0]] + w[1], w[2]);"
    times = "float *g = gs[w[0]] + w[1]; for (int64_t i = 0; i < w[2]; i++) g[i] *= *scale;"
    return [
        squares.kernel("squares", square, 2 * sum(sizes), solo=False),
        total.kernel("clip_norm", norm, 1, len(rows)),
        scaling.kernel("clip_scale", times, sum(sizes)),
    ]


class _Update:
    """The operands of an update: the step count, flat moments, parameters, settings, gradients."""

    def __init__(self, call: Call, moments: int) -> None:
        self.call, changes = call, call.line.params["changes"]
        self.step, *values = call.operands()
        self.flat, self.params = values[:moments], values[moments : changes - 1]
        self.settings, *self.gradients = values[changes - 1 :]
        need(len(self.params) == len(self.gradients))
        self.shared = call.layout.scratch((8,))
        self.sizes = [call.array(p).size for p in self.params]

    def scalars(self) -> Kernel:
        """The few numbers that all units share, once per step."""
        k = Builder(self.call)
        k.reads(set=self.settings)
        k.writes(step=self.step, c=self.shared)
        name = f"{self.call.line.op.name}scalars"
        return k.kernel(name, f"(void)lo, (void)hi; {name}(step, set, c);", 1, 1, solo=True)

    def pieces(self, rows: Sequence[tuple[int, ...]]) -> _Pieces:
        """The kernel of the units, which reads what they share."""
        pieces = _Pieces(self.call, "pieces", rows)
        pieces.builder.use(self.shared, "c")
        pieces.use(self.params, "p", write=True)
        pieces.use(self.gradients, "g")
        return pieces


@lowers("adam_")
@lowers("sgd_")
@lowers("lion_")
def _update(call: Call) -> list[Kernel]:
    signature = signatures_of(call.line.op)["pieces"]
    moments = [name for name in signature.names(written=True) if name != "p"]
    update = _Update(call, len(moments))
    _need_flat(call, [*update.flat, *update.params, *update.gradients])
    # The flat moments hold all parameters one after the other.
    starts = np.cumsum([0, *update.sizes]).tolist()
    rows = [(i, at, n, starts[i] + at) for i, at, n in _pieces(update.sizes)]
    k = update.pieces(rows)
    words = {"p": "ps[w[0]] + w[1]", "g": "gs[w[0]] + w[1]", "n": "w[2]", "c": "c"}
    for name, value in zip(moments, update.flat, strict=True):
        words[name] = f"{k.builder.use(value, name, write=True)} + w[3]"
    params = call.line.params
    arguments = [
        words[p.name] if p.name in words else str(int(params[p.name])) for p in signature.parameters
    ]
    body = f"{signature.function}({', '.join(arguments)});"
    name = call.line.op.name.rstrip("_")
    return [update.scalars(), k.kernel(name, body, signature.flops * starts[-1])]


@lowers("adafactor_")
def _adafactor(call: Call) -> list[Kernel]:
    """A parameter is a unit: its rows, columns and norms depend on all of it."""
    update = _Update(call, 3)
    moments = [i for i in update.flat if call.array(i).size]
    _need_flat(call, [*moments, *update.params, *update.gradients])
    rows, at = [], [0, 0, 0, 0]
    for n, p in enumerate(call.array(i).shape for i in update.params):
        # (parameter, B matrices of R x C, and where its rows, columns, squares and sums begin); B =
        # 0 for what is not a matrix
        B, R, C = (math.prod(p[:-2]), *p[-2:]) if len(p) > 1 else (0, 0, math.prod(p))
        rows.append((n, B, R, C, *at))
        sizes = (B * R, B * C, 0 if B else C, C if B else 0)
        at = [now + size for now, size in zip(at, sizes, strict=True)]
    k = update.pieces(rows)
    k.sizes = ()  # a unit is a whole parameter
    k.builder.writes(sums=call.layout.scratch((at[3] + 1,), np.float64))
    row, column, square = (
        k.builder.use(i, name, write=True) if i in moments else "NULL"
        for i, name in zip(update.flat, ("row", "column", "squares"), strict=True)
    )
    body = (
        f"adafactor_whole(ps[u], gs[u], {row} + w[4], {column} + w[5], {square} + w[6], "
        "sums + w[7], w[1], w[2], w[3], c);"
    )
    return [update.scalars(), k.kernel("adafactor", body, 20 * sum(update.sizes))]


@lowers("muon_")
def _muon(call: Call) -> list[Kernel]:
    """A matrix is a unit."""
    update = _Update(call, 1)
    _need_flat(call, [*update.flat, *update.params, *update.gradients])
    starts = accumulate(update.sizes, initial=0)
    shapes = [call.array(i).shape for i in update.params]
    k = update.pieces(
        [(i, *shape, at) for i, (shape, at) in enumerate(zip(shapes, starts, strict=False))]
    )
    m, params = k.builder.use(update.flat[0], "m", write=True), call.line.params
    # Per iteration R x R times R x R four times, half of each; R x R times R x C with two in five
    steps, sides = params["ns_steps"], [sorted(shape) for shape in shapes]
    k.sizes = tuple(steps * R * R * (4 * R + 6 * C // 5) for R, C in sides)
    words = f"{int(params['nesterov'])}, {steps}, {int(params['adjust_lr'] == 'match_rms_adamw')}"
    body = f"muon_whole(ps[u], gs[u], {m} + w[3], w[1], w[2], c, {words});"
    return [update.scalars(), k.kernel("muon", body, sum(k.sizes))]
