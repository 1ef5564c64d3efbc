"""Optimizers and clipping in C: all parameters of a group as pieces of equal length in one phase."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.compiler.kernel import Kernel, c_text
from minigrad.compiler.layout import Layout
from minigrad.compiler.lower import Builder, index, literal, lowers
from minigrad.compiler.program import Line

_PIECE = 8192  # numbers per unit: a fixed cut, so that sums do not depend on the number of threads


def _pieces(sizes: list[int]) -> list[tuple[int, int, int]]:
    """(which array, where it starts, how many numbers) for each unit."""
    return [(i, at, min(_PIECE, n - at)) for i, n in enumerate(sizes) for at in range(0, n, _PIECE)]


def _table(name: str, rows: Sequence[tuple[int, ...]]) -> str:
    width = len(rows[0])
    text = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in rows)
    return f"static const int64_t {name}[][{width}] = {{{text}}};"


@lowers("clip_grad_norm_")
def _clip(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    gradients = [index(x) for x in line.operands]
    if any(
        layout.stand_in[g].dtype != np.float32
        or not layout.contiguous(g)
        or layout.stand_in[g].size == 0
        for g in gradients
    ):
        return None
    pieces = _pieces([layout.stand_in[g].size for g in gradients])
    part, scale, norm = (
        layout.scratch((len(pieces),), np.float64),
        layout.scratch((1,), np.float32),
        line.made()[0],
    )
    table, sizes = _table(f"clip_pieces_{number}", pieces), tuple(n for _, _, n in pieces)
    squares, total, scaling = (Builder(layout, line, number) for _ in range(3))
    names = [squares.use(g, f"g{i}") for i, g in enumerate(gradients)]
    squares.use(part, "part", write=True)
    head = f"const float *const all[] = {{{', '.join(names)}}};\n    "
    loop = f"for (int64_t u = lo; u < hi; u++) {{ const float *g = all[clip_pieces_{number}[u][0]] + clip_pieces_{number}[u][1]; "
    first = squares.kernel(
        "squares",
        f"{head}{loop}part[u] = sum_of_squares(g, clip_pieces_{number}[u][2]); }}",
        len(pieces),
        2 * sum(sizes),
        helper=table,
        sizes=sizes,
    )
    (
        total.use(part, "part"),
        total.use(scale, "scale", write=True),
        total.use(norm, "norm", write=True),
    )
    refuse = (
        "if (!isfinite(n)) atomic_store(&status, 1);" if line.params["error_if_nonfinite"] else ""
    )
    limit = literal(line.params["max_norm"], np.dtype(np.float64))
    body = (
        f"(void)lo, (void)hi; double s = 0; for (int64_t i = 0; i < {len(pieces)}; i++) s += part[i];\n    double n = sqrt(s), f = "
        f"{limit} / (n + 1e-6); {refuse}\n    *norm = (float)n, *scale = f >= 1 ? 1 : (float)f;"
    )
    second = total.kernel("clip_norm", body, 1, len(pieces))
    scaling.use(scale, "scale")
    names = [scaling.use(g, f"g{i}", write=True) for i, g in enumerate(gradients)]
    head = f"if (*scale == 1) return;\n    float *const all[] = {{{', '.join(names)}}};\n    "
    loop = f"for (int64_t u = lo; u < hi; u++) {{ float *g = all[clip_pieces_{number}[u][0]] + clip_pieces_{number}[u][1]; "
    third = scaling.kernel(
        "clip_scale",
        f"{head}{loop}for (int64_t i = 0; i < clip_pieces_{number}[u][2]; i++) g[i] *= *scale; }}",
        len(pieces),
        sum(sizes),
        helper=table,
        sizes=sizes,
        solo=True,
    )
    return [first, second, third]


@lowers("adam_")
def _adam(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    scalars = """*step += 1;
    double lr = set[0], b1 = set[1], b2 = set[2], eps = set[3], decay = set[4], t = (double)*step, root = sqrt(1 - pow(b2, t));
    c[0] = b1, c[1] = 1 - b1, c[2] = b2, c[3] = 1 - b2, c[4] = eps * root, c[5] = lr * root / (1 - pow(b1, t));
    c[6] = 1 - lr * decay, c[7] = decay;"""
    piece = f"adam_piece(ps[i] + at, gs[i] + at, m0 + w[3], m1 + w[3], w[2], c, {int(line.params['decoupled'])});"
    return _update(layout, line, number, 2, scalars, piece)


@lowers("sgd_")
def _sgd(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    scalars = "*step += 1;\n    c[0] = set[0], c[1] = set[1], c[2] = *step == 1 ? 1 : 1 - set[2], c[3] = set[3];"
    piece = (
        f"sgd_piece(ps[i] + at, gs[i] + at, m0 + w[3], w[2], c, {int(line.params['nesterov'])});"
    )
    return _update(layout, line, number, 1, scalars, piece)


@lowers("lion_")
def _lion(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    scalars = """*step += 1;
    double lr = set[0], b1 = set[1], b2 = set[2], decay = set[3];
    c[0] = b1, c[1] = 1 - b1, c[2] = b2, c[3] = 1 - b2, c[4] = lr, c[5] = 1 - lr * decay;"""
    return _update(
        layout,
        line,
        number,
        1,
        scalars,
        "lion_piece(ps[i] + at, gs[i] + at, m0 + w[3], w[2], c);",
        c_text("updates.c"),
    )


def _update(
    layout: Layout,
    line: Line,
    number: int,
    moments: int,
    scalars: str,
    piece: str,
    functions: str = "",
) -> list[Kernel] | None:
    """Operands are the step count, flat moments, parameters, settings, gradients. First the few
    numbers that all share, then all pieces.

    functions: C text that `piece` calls and kernels.c does not have."""
    changes: int = line.params["changes"]
    values = [index(x) for x in line.operands]
    step, flat, params = values[0], values[1 : 1 + moments], values[1 + moments : changes]
    settings, gradients = values[changes], values[changes + 1 :]
    if not _flat(layout, [*flat, *params, *gradients]) or len(params) != len(gradients):
        return None
    shared = layout.scratch((8,), np.float32)
    first = Builder(layout, line, number)
    (
        first.use(step, "step", write=True),
        first.use(settings, "set"),
        first.use(shared, "c", write=True),
    )
    one = first.kernel(
        f"{line.op.name}scalars",
        f"(void)lo, (void)hi; {scalars}",
        1,
        1,
        helper=functions,
        solo=True,
    )
    sizes = [layout.stand_in[p].size for p in params]
    starts = np.cumsum([0, *sizes]).tolist()
    rows = [(i, at, n, starts[i] + at) for i, at, n in _pieces(sizes)]
    k = Builder(layout, line, number)
    k.use(shared, "c")
    ps = [k.use(p, f"p{i}", write=True) for i, p in enumerate(params)]
    gs = [k.use(g, f"g{i}") for i, g in enumerate(gradients)]
    for i, m in enumerate(flat):
        k.use(m, f"m{i}", write=True)
    name = f"pieces_{number}"
    arrays = f"float *const ps[] = {{{', '.join(ps)}}};\n    const float *const gs[] = {{{', '.join(gs)}}};"
    loop = f"{arrays}\n    for (int64_t u = lo; u < hi; u++) {{\n        const int64_t *w = {name}[u], i = w[0], at = w[1];\n        {piece}\n    }}"
    work = tuple(n for _, _, n, _ in rows)
    return [
        one,
        k.kernel(
            line.op.name.rstrip("_"),
            loop,
            len(rows),
            12 * starts[-1],
            helper=_table(name, rows),
            sizes=work,
            solo=True,
        ),
    ]


@lowers("adafactor_")
def _adafactor(layout: Layout, line: Line, number: int) -> list[Kernel] | None:
    """A parameter is a unit: its rows, columns and norms depend on all of it."""
    changes: int = line.params["changes"]
    values = [index(x) for x in line.operands]
    step, flat, params, settings, gradients = (
        values[0],
        values[1:4],
        values[4:changes],
        values[changes],
        values[changes + 1 :],
    )
    moments = [i for i in flat if layout.stand_in[i].size]
    if not _flat(layout, [*moments, *params, *gradients]):
        return None
    shared, rows, at = layout.scratch((8,), np.float32), [], [0, 0, 0, 0]
    for n, p in enumerate(layout.stand_in[i].shape for i in params):
        B, R, C = (
            (math.prod(p[:-2]), *p[-2:]) if len(p) > 1 else (0, 0, math.prod(p))
        )  # no matrix: B = 0
        rows.append((n, B, R, C, *at))
        at = [
            now + more
            for now, more in zip(at, (B * R, B * C, 0 if B else C, C if B else 0), strict=True)
        ]
    first, k = Builder(layout, line, number), Builder(layout, line, number)
    (
        first.use(step, "step", write=True),
        first.use(settings, "set"),
        first.use(shared, "c", write=True),
    )
    scalars = """(void)lo, (void)hi; *step += 1;
    double share = pow((double)*step, set[1]), lr = set[0];
    c[0] = share, c[1] = 1 - share, c[2] = set[2], c[3] = fmin(lr, 1 / sqrt((double)*step)), c[4] = set[3], c[5] = set[4], c[6] = 1 - lr * set[5];"""
    one = first.kernel("adafactor_scalars", scalars, 1, 1, helper=c_text("updates.c"), solo=True)
    k.use(shared, "c"), k.use(layout.scratch((at[3] + 1,), np.float64), "sums", write=True)
    ps = [k.use(p, f"p{i}", write=True) for i, p in enumerate(params)]
    gs = [k.use(g, f"g{i}") for i, g in enumerate(gradients)]
    names = [
        k.use(i, name, write=True) if i in moments else "NULL"
        for i, name in zip(flat, ("row", "column", "square"), strict=True)
    ]
    name = f"adafactor_{number}"
    body = (
        f"float *const ps[] = {{{', '.join(ps)}}};\n    const float *const gs[] = {{{', '.join(gs)}}};\n"
        f"    for (int64_t u = lo; u < hi; u++) {{\n        const int64_t *w = {name}[u];\n        adafactor_whole(ps[u], gs[u], "
        f"{names[0]} + w[4], {names[1]} + w[5], {names[2]} + w[6], sums + w[7], w[1], w[2], w[3], c);\n    }}"
    )
    size = sum(layout.stand_in[i].size for i in params)
    return [
        one,
        k.kernel("adafactor", body, len(rows), 20 * size, helper=_table(name, rows), solo=True),
    ]


def _flat(layout: Layout, values: list[int]) -> bool:
    arrays: list[Any] = [layout.stand_in[i] for i in values]
    return all(a.dtype == np.float32 and a.flags.c_contiguous and a.size > 0 for a in arrays)
