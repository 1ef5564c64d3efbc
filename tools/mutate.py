"""Fifty faults put into the backward rules, and some around them, one at a time: does a test
notice?

    python tools/mutate.py              try all of them, print each one's fate, and write the kill
    rate into docs/exactness.md
    python tools/mutate.py 3 17         try only these, and write nothing
    python tools/mutate.py --check      try none, only see that each can be put into the present
    source (a test does this)

A fault is a replacement in a copy of the source; tests/engine runs against the copy in a process of
its own, first the rows of the op table that the fault names, then, if those have passed, the rest.
A text that is no longer in the source is an error: the list follows the code. Ends with status 1 if
more than two faults survive. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from exactness import ROOT, write_section


class Fault(NamedTuple):
    """What is wrong, in which file, words that select the rows of the op table to try first, the
    right text and the wrong one.
    """

    what: str
    file: str
    rows: str
    right: str
    wrong: str


ELEMENTWISE, CALCULUS, REDUCE, MOVEMENT = (
    "ops/elementwise.py",
    "ops/calculus.py",
    "ops/reduce.py",
    "ops/movement.py",
)
CONTRACT, FUSED, ATTENTION, TILES, INDEX, SCAN = (
    "ops/contract.py",
    "ops/fused.py",
    "ops/attention.py",
    "ops/tiles.py",
    "ops/index.py",
    "ops/more/along.py",
)

FAULTS = [
    Fault(
        "sub: the sign of the second operand",
        ELEMENTWISE,
        "sub",
        "(g, -g)",
        "(g, g)",
    ),
    Fault(
        "mul: the operands exchanged",
        ELEMENTWISE,
        "mul",
        "(g * b if needs[0] else None), (g * a if",
        "(g * a if needs[0] else None), (g * b if",
    ),
    Fault(
        "div: the minus dropped",
        ELEMENTWISE,
        "div",
        "-(g * y / b)",
        "(g * y / b)",
    ),
    Fault(
        "div: g / b y, which overflows",
        ELEMENTWISE,
        "div",
        "-(g * y / b)",
        "-(g / b * y)",
    ),
    Fault("pow: the exponent not lowered", CALCULUS, "pow", "x ** (p - 1)", "x ** p"),
    Fault(
        "pow: the factor p dropped",
        CALCULUS,
        "pow",
        "slope = p * x **",
        "slope = x **",
    ),
    Fault(
        "pow: log of y instead of x",
        CALCULUS,
        "pow",
        "g * (y * log(base))",
        "g * (y * log(y))",
    ),
    Fault(
        "mod: the quotient not rounded down",
        ELEMENTWISE,
        "mod",
        "-(g * floor_div(a, b))",
        "-(g * a / b)",
    ),
    Fault(
        "maximum: a tie goes to both in full",
        ELEMENTWISE,
        "maximum",
        "np.where(ties, np.float32(0.5)",
        "np.where(ties, np.float32(1)",
    ),
    Fault(
        "maximum: gradient to the smaller",
        ELEMENTWISE,
        "maximum",
        "g * share(greater(a, b), ties), g",
        "g * share(less(a, b), ties), g",
    ),
    Fault(
        "clamp: 0 at the bound",
        ELEMENTWISE,
        "clamp",
        "below, above, crossed = less(x, low)",
        "below, above, crossed = less_equal(x, low)",
    ),
    Fault(
        "where: the branches exchanged",
        ELEMENTWISE,
        "where",
        "where(condition, g, 0), where(condition, 0, g)",
        "where(condition, 0, g), where(condition, g, 0)",
    ),
    Fault(
        "mask_cotangent: what was masked passes a gradient on",
        ELEMENTWISE,
        "mask",
        "return where(logical_and(isnan(x), equal(g, 0)), 0, h), None",
        "return h, None",
    ),
    Fault("log1p: the 1 dropped", CALCULUS, "log1p", "g / (1 + x),", "g / (x),"),
    Fault("sqrt: the half dropped", CALCULUS, "sqrt", "g * 0.5 / y", "g / y"),
    Fault(
        "rsqrt: divided by y instead of x",
        CALCULUS,
        "rsqrt",
        "g * -0.5 * y / x",
        "g * -0.5 * y / y",
    ),
    Fault("exp2: log 2 in float32", CALCULUS, "exp2", "y * math.log(2)", "y * 0.6931472"),
    Fault("atan: x instead of x^2", CALCULUS, "atan", "g / (1 + x * x)", "g / (1 + x)"),
    Fault(
        "tanh: the square dropped",
        CALCULUS,
        "tanh",
        "g * ((1 - y) * (1 + y))",
        "g * (1 - y)",
    ),
    Fault(
        "sigmoid: s instead of s (1 - s)",
        CALCULUS,
        "sigmoid",
        "g * (sigmoid(x) * sigmoid(-x))",
        "g * sigmoid(x)",
    ),
    Fault("abs: slope 1 at 0", ELEMENTWISE, "abs", "g * sign(x)", "where(less(x, 0), -g, g)"),
    Fault(
        "relu: slope 1 at 0",
        ELEMENTWISE,
        "relu",
        "where(less(0, y), g, 0)",
        "where(less(y, 0), 0, g)",
    ),
    Fault(
        "hypot: the operands exchanged",
        CALCULUS,
        "hypot",
        "return g * (a / length), g * (b / length)",
        "return g * (b / length), g * (a / length)",
    ),
    Fault("atan2: divided once", CALCULUS, "atan2", "(b / length) / length", "(b / length)"),
    Fault("fmod: rounded down", ELEMENTWISE, "fmod", "g * trunc(a / b)", "g * floor(a / b)"),
    Fault("copysign: the sign of b", ELEMENTWISE, "copysign", "sign(y) * sign(a)", "sign(y)"),
    Fault(
        "atanh: that of tanh",
        CALCULUS,
        "atanh",
        "g / ((1 - x) * (1 + x))",
        "g * ((1 - x) * (1 + x))",
    ),
    Fault(
        "erf: sqrt(pi) dropped",
        "ops/calculus.py",
        "erf",
        "gauss(x) * _SLOPE",
        "gauss(x) * 2.0",
    ),
    Fault(
        "max: ties not shared", REDUCE, "max", "ties / np.maximum(count, 1)", "ties * np.float64(1)"
    ),
    Fault(
        "max: ties counted along the wrong axis",
        REDUCE,
        "max",
        'np.add.reduce(ties, axis=axes(axis, x.ndim, "max")',
        "np.add.reduce(ties, axis=None",
    ),
    Fault(
        "logsumexp: not normalised",
        REDUCE,
        "logsumexp",
        "weights = exp(difference(x, top))",
        "weights = exp(difference(x, 0 * top))",
    ),
    Fault(
        "broadcasting: one axis too few summed",
        "autograd.py",
        "mul",
        "if n == 1 and g.shape[i + extra] != 1]",
        "if n == 1 and g.shape[i + extra] > 2]",
    ),
    Fault(
        "two uses: the second replaces the first",
        "autograd.py",
        "square",
        "            self.sums[slot] = before + g\n",
        "            self.sums[slot] = g\n",
    ),
    Fault("permute: not inverted", MOVEMENT, "permute", "back[axis] = i", "back[i] = axis"),
    Fault("flip: left out", MOVEMENT, "flip", "(flip(g, axis=axis),)", "(g,)"),
    Fault(
        "pad: before and after exchanged",
        MOVEMENT,
        "pad",
        "pad(g, widths=tuple((-a, -b) for a, b in widths))",
        "pad(g, widths=tuple((-b, -a) for a, b in widths))",
    ),
    Fault(
        "cat: pieces start one too late",
        MOVEMENT,
        "cat",
        "part(g, axis % g.ndim, *pair)",
        "part(g, axis % g.ndim, pair[0] - 1, pair[1] - 1)",
    ),
    Fault(
        "matmul: the right operand not transposed",
        CONTRACT,
        "matmul",
        "matmul(g, swap_last(columns))",
        "matmul(g, columns)",
    ),
    Fault(
        "linear: the rows of x in reverse",
        CONTRACT,
        "linear",
        "        matmul(swap_last(rows), reshape(x, shape=matrix_shape(x.shape)))",
        "        matmul(swap_last(rows), reshape(x, shape=matrix_shape(x.shape))[::-1])",
    ),
    Fault(
        "linear: the bias's gradient is a mean",
        CONTRACT,
        "linear",
        "sum_(rows, axis=0) if len(needs)",
        "sum_(rows, axis=0) / rows.shape[0] if len(needs)",
    ),
    Fault(
        "embedding: of equal indices only the last counts",
        INDEX,
        "embedding",
        "np.add.reduceat(rows[order], starts, axis=0)",
        "rows[order][starts]",
    ),
    Fault(
        "softmax: the row's sum dropped",
        FUSED,
        "softmax",
        "    return (gy - mask_cotangent(total * y, total),)",
        "    return (gy,)",
    ),
    Fault(
        "log_softmax: y instead of exp(y)",
        FUSED,
        "softmax",
        "g - exp(y) * sum_(g",
        "g - y * sum_(g",
    ),
    Fault(
        "layer_norm: the mean of u dropped",
        FUSED,
        "layer_norm",
        "    h += row_sums(u) / width\n",
        "",
    ),
    Fault(
        "layer_norm: the weight left out of dx",
        FUSED,
        "layer_norm",
        "u = g if weight is None else np.multiply(g, weight, out=gx)\n    h *= np.vecdot(u, h)[:, "
        "None] / width\n",
        "u = g\n    h *= np.vecdot(u, h)[:, None] / width\n",
    ),
    Fault(
        "rms_norm: the sum of u h instead of its mean",
        FUSED,
        "rms_norm",
        "h *= np.vecdot(u, h)[..., None] / x.dtype.type(x.shape[-1])",
        "h *= np.vecdot(u, h)[..., None]",
    ),
    Fault(
        "gelu_tanh: 3 dropped from the cube's slope",
        CALCULUS,
        "gelu",
        "out *= 6 * _GELU_SLOPE * _GELU_CUBE",
        "out *= 2 * _GELU_SLOPE * _GELU_CUBE",
    ),
    Fault(
        "cross_entropy: smoothing not divided by V",
        FUSED,
        "cross_entropy",
        "y -= label_smoothing / V",
        "y -= label_smoothing",
    ),
    Fault(
        "cross_entropy: ignored rows keep their gradient",
        FUSED,
        "cross_entropy",
        "    if len(kept) < N:\n",
        "    if False:\n",
    ),
    Fault(
        "attention: the scale of dq dropped",
        TILES,
        "attention",
        "    x.gq[..., a:b, :] *= q.dtype.type(x.scale)\n",
        "",
    ),
    Fault(
        "attention: dS without rowsum(dP P)",
        TILES,
        "attention",
        "        ds -= delta\n",
        "",
    ),
    Fault(
        "attention: dk from P instead of dS",
        TILES,
        "attention",
        "_put(x.gk[..., c:d, :], ds.swapaxes(-1, -2), q, careful, add)",
        "_put(x.gk[..., c:d, :], p.swapaxes(-1, -2), q, careful, add)",
    ),
    Fault(
        "attention: 0 * NaN from behind the mask",
        TILES,
        "attention",
        "        for careful in (False, True):\n            _backward_part",
        "        for careful in (False,):\n            _backward_part",
    ),
    Fault(
        "attention: every row of a block that is mended gets its maximum subtracted",
        TILES,
        "attention",
        "np.where(_in_range(total), 0, top).astype(q.dtype)",
        "np.where(True, top, 0).astype(q.dtype)",
    ),
    Fault(
        "attention, tiled: rowsum(g o) not divided by the sum",
        TILES,
        "attention",
        "g, delta = (y / np.where(total == 0, 1, total) for y in (g, delta))",
        "g = g / np.where(total == 0, 1, total)",
    ),
    Fault(
        "attention: the window a key too wide",
        TILES,
        "attention",
        "causal_masks.added(b - a, stop - c, a + self.first - 1 - c, ",
        "causal_masks.added(b - a, stop - c, a + self.first - 2 - c, ",
    ),
    Fault(
        "attention: dv from the weights before dropout",
        TILES,
        "attention",
        "weights = operand(p if kept is None else p * kept).swapaxes(-1, -2)",
        "weights = operand(p).swapaxes(-1, -2)",
    ),
    Fault(
        "rope: turned forward again",
        "ops/attention.py",
        "rope",
        "rope(g, cos, -sin, interleaved=interleaved)",
        "rope(g, cos, sin, interleaved=interleaved)",
    ),
    Fault(
        "cumprod: the product before k includes k",
        SCAN,
        "cumprod",
        "cumprod(_shifted(x, axis, 1, 1.0), axis=axis) * _after(x, g, axis)",
        "cumprod(x, axis=axis) * _after(x, g, axis)",
    ),
    # Beside the fifty in the rules: faults in forwards, in the tape and in checkpoints, among them
    # four that no test caught once.
    Fault(
        "views: a version of their own",
        "tensor/core.py",
        "reshape",
        "y._version, y._is_view = operands[0]._version, True",
        "y._is_view = True",
    ),
    Fault(
        "argsort: not stable",
        "ops/more/along.py",
        "argsort",
        'return np.argsort(x, axis=axis, kind="stable")',
        "return np.argsort(x, axis=axis)",
    ),
    Fault(
        "argsort: descending, not stable",
        "ops/more/along.py",
        "argsort",
        'axis=axis, kind="stable"), axis)',
        "axis=axis), axis)",
    ),
    Fault(
        "cumsum: added up in float32",
        SCAN,
        "cumsum",
        'dtype=np.float64 if x.dtype.kind == "f" else adding',
        'dtype=x.dtype if x.dtype.kind == "f" else adding',
    ),
    Fault(
        "cummax: forgets a NaN",
        SCAN,
        "cummax",
        "np.where((x == best) | np.isnan(x), place, 0)",
        "np.where(x == best, place, 0)",
    ),
    Fault(
        "put: what was overwritten keeps its gradient",
        INDEX,
        "put",
        "return (put(g, 0, *keys, spec=spec), gvalue",
        "return (g, gvalue",
    ),
    Fault(
        "put: every writer to a place has its gradient",
        INDEX,
        "put",
        "if needs[1] and keys:",
        "if needs[1] and not keys:",
    ),
    Fault(
        "scatter: a negative index counts from the end",
        INDEX,
        "scatter",
        "for key, n in () if wrap else zip(keys, x.shape, strict=True):",
        "for key, n in ():",
    ),
    Fault(
        "huber_loss: the half dropped",
        "ops/loss.py",
        "loss",
        "inner * (d - inner / 2)",
        "inner * (d - inner)",
    ),
    Fault(
        "cross_entropy: the mean not divided by the weights",
        "ops/loss.py",
        "cross_entropy_loss and weighted",
        'reduction == "mean" and share is None',
        'reduction == "mean"',
    ),
    Fault(
        "fold: the dilation dropped",
        "ops/more/convolve.py",
        "fold or conv",
        "slice(i * dilation, i * dilation + reach, step)",
        "slice(i, i + reach, step)",
    ),
    Fault(
        "conv_transpose: the padding not cut off",
        "ops/more/convolve.py",
        "conv_transpose",
        "around(x, [(-w.padding, n - w.padding) for w, n in zip(windows, extra, strict=False)])",
        "around(x, [(0, -2 * w.padding) for w in windows])",
    ),
    Fault(
        "bincount: the weights' gradient not gathered",
        "ops/more/along.py",
        "bincount",
        "(None, take_along(g, x, axis=0))",
        "(None, part(g, 0, 0, x.shape[0]))",
    ),
    Fault(
        "scatter_reduce: a mean that forgets what was there",
        "ops/more/along.py",
        "scatter",
        "maximum(count + int(include_self), 1)",
        "maximum(count, 1)",
    ),
    Fault(
        "checkpoint: other random numbers the second time",
        "func.py",
        "tanh",
        "        ops.assign(state, then)\n",
        "        pass\n",
    ),
    Fault(
        "checkpoint: generators go on from the recomputation",
        "func.py",
        "tanh",
        "            ops.assign(state, before)\n",
        "            pass\n",
    ),
    Fault(
        "checkpoint: draws outside ops unheard",
        "random.py",
        "tanh",
        "            listener.drawing(self.state)\n",
        "            pass\n",
    ),
    Fault(
        "checkpoint: derivatives run on past its operands",
        "autograd.py",
        "tanh",
        "for x in wanted}, since)",
        "for x in wanted}, 0)",
    ),
    Fault(
        "checkpoint: what f closes over is not found",
        "func.py",
        "tanh",
        ", *heard.read.values()]",
        "]",
    ),
    Fault(
        "checkpoint: a tensor given twice counts twice",
        "func.py",
        "tanh",
        "list({slot_of(x): x for x in read}.values())",
        "read",
    ),
    Fault(
        "pow: no mixed derivative at p = 0",
        CALCULUS,
        "pow",
        "x ** (p - 1)",
        "x ** where(equal(p, 0), 1, p - 1)",
    ),
    Fault(
        "a cotangent of 0 times an infinite derivative is NaN",
        "autograd.py",
        "log",
        "np.where((asked == 0) & np.isnan(g), 0, g) if",
        "g if",
    ),
    Fault(
        "the same, of a gradient that is differentiated again",
        "autograd.py",
        "log",
        "ops.mask_cotangent(g, asked) if",
        "g if",
    ),
    Fault(
        "guard_matmul: a rule that is not guarded",
        CONTRACT,
        "attention",
        "guard_matmul(g, swap_last(b)) if",
        "matmul(g, swap_last(b)) if",
    ),
    Fault(
        "composed attention: hidden scores are added to, not selected away",
        ATTENTION,
        "attention",
        "softmax(where(seen, s, -np.inf), axis=-1)",
        "softmax(s + where(seen, 0, -np.inf), axis=-1)",
    ),
    Fault(
        "backward: .grad replaced",
        "autograd.py",
        "mul",
        "x.grad = g if x.grad is None else x.grad + g",
        "x.grad = g",
    ),
]


def with_fault(fault: Fault, source: str) -> str:
    """The source with the fault in. Raises ValueError if its text is not there exactly once,
    SyntaxError if this is no Python any more.
    """
    found = list(_however_wrapped(fault.right).finditer(source))
    if len(found) != 1:
        raise ValueError(
            f"{fault.what}: {fault.file} has this text {len(found)} times, not once:\n{fault.right}"
        )
    wrong = fault.wrong.lstrip() if fault.right[:1].isspace() else fault.wrong
    wrong = wrong.rstrip() if fault.right[-1:].isspace() else wrong
    faulty = source[: found[0].start()] + wrong + source[found[0].end() :]
    compile(faulty, fault.file, "exec")
    return faulty


def _however_wrapped(text: str) -> re.Pattern[str]:
    """Match `text` however the formatter wraps it: white space and trailing commas are free."""
    pieces = re.findall(r"\w+|\S", text)
    for i, piece in enumerate(pieces):
        pieces[i] = (r",?\s*" if piece in ")]}" else "") + re.escape(piece)
    end = r"(?=[ ]*\n)" if text.endswith("\n") else r"(?!\w)"
    return re.compile(r"\s*".join(pieces) + end)


def survives(fault: Fault, work: Path) -> bool:
    """Whether every test still passes with the fault in."""
    target = work / "minigrad" / fault.file
    source = target.read_text(encoding="utf-8")
    target.write_text(with_fault(fault, source), encoding="utf-8")
    try:
        return passes(work, "tests/engine/test_op_table.py", "-k", fault.rows) and passes(
            work, "tests/engine", *QUICK
        )
    finally:
        target.write_text(source, encoding="utf-8")


# Of the rest, what is not about memory or other frameworks.
QUICK = ("--ignore", "tests/engine/test_graphs.py", "-k", "not pytorch and not jax and not GPT")


def passes(work: Path, *arguments: str) -> bool:
    """Run pytest on the copy; True if nothing fails."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": str(work), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1, 2):  # 1: a test failed; 2: the import did
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main() -> int:
    """Run from the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", type=int, help="only these faults, counted from 1")
    parser.add_argument(
        "--check", action="store_true", help="only see that each fault can be put in"
    )
    arguments = parser.parse_args()
    if arguments.check:
        for fault in FAULTS:
            with_fault(fault, (ROOT / "minigrad" / fault.file).read_text(encoding="utf-8"))
        return 0
    numbers = arguments.numbers
    alive = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("minigrad", "tests"):
            shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", work)
        if not passes(work, "tests/engine/test_op_table.py"):
            raise RuntimeError("the op table fails without any fault")
        for number, fault in enumerate(FAULTS, 1):
            if numbers and number not in numbers:
                continue
            if survives(fault, work):
                alive.append(fault)
            print(
                f"{number:3}  {'SURVIVED' if fault in alive else 'caught':8}  {fault.what}",
                flush=True,
            )
    tried = len(numbers or FAULTS)
    print(f"{tried - len(alive)} of {tried} caught")
    if not numbers:
        lines = [
            f"Caught: **{tried - len(alive)} of {tried}**." + (" These were not:" if alive else ""),
            "",
        ]
        write_section("mutations", [*lines, *(f"- {fault.what}" for fault in alive), *table()])
    return 0 if len(alive) <= 2 else 1


def table() -> list[str]:
    """The faults, by file, as lines of the page."""
    files = dict.fromkeys(fault.file for fault in FAULTS)
    return [
        f"- `{file}`: " + "; ".join(fault.what for fault in FAULTS if fault.file == file)
        for file in files
    ]


if __name__ == "__main__":
    sys.exit(main())
