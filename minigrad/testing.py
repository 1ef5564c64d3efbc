"""Checks for your own ops, layers and tests: gradients against finite differences, and closeness
with a message that helps.

    from minigrad.testing import assert_close, gradcheck

    x = Tensor(np.random.randn(3, 4), requires_grad=True)      # float64
    gradcheck(lambda x: my_op(x), x)

Finite differences are good to about ten digits: they find a wrong rule, they do not prove a right
one to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.autograd import grad
from minigrad.dtypes import Array, cast, computing, float16, float32, float64, is_float, name
from minigrad.errors import ConfigError, DTypeError, GradientMismatchError
from minigrad.tensor import Tensor

Place = tuple[int, tuple[int, ...]]  # the number of an output or an input, and its shape
# Relative and absolute tolerances of `assert_close`, the ones that PyTorch users know.
_TOLERANCES = {float64: (1e-7, 1e-7), float32: (1.3e-6, 1e-5), float16: (1e-3, 1e-5)}
_OF_BFLOAT16 = (1.6e-2, 1e-5)


def gradcheck(
    f: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare the gradients of f, element by element, with central differences.

    (f(x + eps) - f(x - eps)) / (2 eps)

    f: takes the inputs, returns a Tensor or several.   inputs: a Tensor or a sequence; those with
        requires_grad are checked, and must be float64.
    An element passes if |rule - difference| <= atol + rtol |difference|. Returns True; on a
    mismatch raises GradientMismatchError, or returns False if raise_exception is False. f must be
    smooth around the inputs and give the same result each time.
    """
    xs = _checked_inputs("gradcheck", inputs)
    try:
        outputs = _outputs(f, xs)
        for y, again in zip(outputs, _outputs(f, xs), strict=True):
            if not np.array_equal(y.numpy(), again.numpy(), equal_nan=True):
                problem = "f gives two results for the same inputs"
                hint = "take randomness out, or call minigrad.manual_seed inside f"
                raise GradientMismatchError("gradcheck", problem, got=again, wanted=y, hint=hint)
        wanted = [i for i, x in enumerate(xs) if x.requires_grad]
        differences = {i: _differences(f, xs, i, eps) for i in wanted}
        for k, y in enumerate(outputs):
            rules = _jacobians(y, [xs[i] for i in wanted])
            for i, rule in zip(wanted, rules, strict=True):
                _compare(rule, differences[i][k], (k, y.shape), (i, xs[i].shape), atol, rtol)
    except GradientMismatchError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    f: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """`gradcheck` of the gradients of f themselves: second derivatives, with respect to the inputs
    and to the cotangent.

    The cotangent is random, the same in each call. Arguments, result and errors are those of
    gradcheck.
    """
    xs = _checked_inputs("gradgradcheck", inputs)
    wanted = [i for i, x in enumerate(xs) if x.requires_grad]
    rng = np.random.default_rng(0)
    cotangents = [
        Tensor(rng.normal(size=y.shape), requires_grad=True)
        for y in _outputs(f, xs)
        if y.requires_grad
    ]

    def gradients(*operands: Tensor) -> tuple[Tensor, ...]:
        at, g = operands[: len(xs)], operands[len(xs) :]
        outputs = [y for y in _outputs(f, at) if y.requires_grad]
        return grad(outputs, [at[i] for i in wanted], g, create_graph=True, materialize_grads=True)

    settings: dict[str, Any] = {"eps": eps, "atol": atol, "rtol": rtol}
    return gradcheck(gradients, (*xs, *cotangents), raise_exception=raise_exception, **settings)


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_dtype: bool = True,
) -> None:
    """Raise AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere, for
    Tensors, arrays, numbers and lists of numbers.

    Shapes must agree, and dtypes unless check_dtype is False. Without tolerances: 1e-7 and 1e-7 for
    float64, 1.3e-6 and 1e-5 for float32, 1e-3 and 1e-5 for float16, 1.6e-2 and 1e-5 for bfloat16
    (rtol and atol), equality for integers and bool. NaN equals NaN if equal_nan.
    """
    if (rtol is None) != (atol is None):
        problem = "rtol and atol come together or not at all"
        raise ConfigError("assert_close", problem, got=(rtol, atol))
    a, b = _array(actual), _array(expected)
    if a.shape != b.shape:
        raise AssertionError(f"assert_close: shape {a.shape}, wanted {b.shape}")
    if check_dtype and a.dtype != b.dtype:
        hint = "check_dtype=False compares the values alone"
        dtypes = f"dtype {name(a.dtype)}, wanted {name(b.dtype)}"
        raise AssertionError(f"assert_close: {dtypes}\n  {hint}")
    if rtol is None or atol is None:
        rtol, atol = _tolerances(a.dtype, b.dtype)
    a, b = (cast(x, float64) if is_float(x.dtype) else x for x in (a, b))
    with np.errstate(all="ignore"):
        logical = np.bool_ in (a.dtype, b.dtype)
        off = np.asarray(a != b, float) if logical else np.abs(a - b)
        fine = (a == b) | (np.isfinite(b) & (off <= atol + rtol * np.abs(b)))
    if equal_nan:
        fine |= np.isnan(a) & np.isnan(b)
    if not fine.all():
        off = np.where(np.isnan(off), np.inf, off)
        raise AssertionError(_difference(a, b, off, fine, atol, rtol))


def _difference(a: Array, b: Array, off: Array, fine: Array, atol: float, rtol: float) -> str:
    """How many elements differ, and which one most."""
    at = np.unravel_index(int(np.argmax(np.where(fine, -1.0, off))), a.shape)
    place = f" at {tuple(int(i) for i in at)}" if a.ndim else ""
    bad = int(np.sum(~fine))
    return (
        f"assert_close: {bad} of {a.size} elements differ ({100 * bad / a.size:.3g} %)\n"
        f"  worst{place}: {a[at]!s}, wanted {b[at]!s}; off by {off[at]:.3g}, allowed {atol:.3g} + "
        f"{rtol:.3g} * |wanted|"
    )


def _array(x: Any) -> Array:
    return x.data if isinstance(x, Tensor) else np.asarray(x)


def _tolerances(*dtypes: np.dtype[Any]) -> tuple[float, float]:
    """The looser of the two dtypes' tolerances."""
    found = [_TOLERANCES.get(d, _OF_BFLOAT16) for d in dtypes if is_float(d)]
    return max(found, default=(0.0, 0.0))


# --- finite differences


def _checked_inputs(call: str, inputs: Any) -> tuple[Tensor, ...]:
    xs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
    if not wanted or len([x for x in xs if isinstance(x, Tensor)]) < len(xs):
        problem = "wants Tensors, one of them with requires_grad=True"
        raise ConfigError(call, problem, got=xs, hint="Tensor(array, requires_grad=True)")
    for x in wanted:
        if x.dtype != float64:
            problem = f"an input is {name(x.dtype)}: differences of 1e-6 are lost in it"
            hint = "x.double(), or Tensor(array, dtype='float64')"
            raise DTypeError(call, problem, got=x.dtype, wanted=float64, hint=hint)
    return xs


def _outputs(f: Callable[..., Any], xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What f returns, the floats of it, as a tuple."""
    y = f(*xs)
    return tuple(t for t in ((y,) if isinstance(y, Tensor) else y) if is_float(t.dtype))


def _jacobians(y: Tensor, xs: Sequence[Tensor]) -> list[Array]:
    """d y / d x for each x, (y.size, x.size), one backward pass per element of y."""
    size = y.numpy().size
    rows = [np.zeros((size, x.numpy().size)) for x in xs]
    for row in range(size if y.requires_grad else 0):
        one = np.zeros(size)
        one[row] = 1
        cotangent = Tensor(cast(one.reshape(y.shape), computing(y.dtype)))
        grads = grad(y, xs, cotangent, retain_graph=True, materialize_grads=True)
        for found, g, x in zip(rows, grads, xs, strict=True):
            if g.shape != x.shape or g.dtype != x.dtype:
                problem = f"a gradient is {g.shape} {name(g.dtype)}"
                raise GradientMismatchError("gradcheck", problem, got=g.shape, wanted=x.shape)
            found[row] = g.numpy().ravel()
    return rows


def _differences(f: Callable[..., Any], xs: Sequence[Tensor], i: int, eps: float) -> list[Array]:
    """d y / d xs[i] by central differences, (y.size, x.size), for each output y of f."""
    base = xs[i].numpy()
    if base.size == 0:
        return [np.zeros((y.numpy().size, 0)) for y in _outputs(f, xs)]
    columns: list[list[Array]] = []
    for element in range(base.size):
        sides = []
        for step in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[element] += step
            ys = _outputs(f, [*xs[:i], Tensor(moved, requires_grad=True), *xs[i + 1 :]])
            sides.append([cast(y.numpy(), float64).ravel() for y in ys])
        columns.append([(up - down) / (2 * eps) for up, down in zip(*sides, strict=True)])
    return [np.stack(parts, axis=1) for parts in zip(*columns, strict=True)]


def _compare(rule: Array, difference: Array, y: Place, x: Place, atol: float, rtol: float) -> None:
    """Raise GradientMismatchError unless d y / d x is the same by its rule and by differences."""
    with np.errstate(all="ignore"):
        excess = np.abs(rule - difference) - (atol + rtol * np.abs(difference))
    excess = np.where(np.isnan(excess), np.inf, excess)
    if excess.size == 0 or excess.max() <= 0:
        return
    row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
    place_y = tuple(int(n) for n in np.unravel_index(row, y[1]))
    place_x = tuple(int(n) for n in np.unravel_index(column, x[1]))
    got, wanted = float(rule[row, column]), float(difference[row, column])
    which = f"d output[{y[0]}]{place_y} / d input[{x[0]}]{place_x}"
    count = f"{int(np.sum(excess > 0))} of {excess.size} such pairs differ"
    problem = f"{which} is {got:.9g} by its rule, {wanted:.9g} by differences; {count}"
    allowed = f"allowed are {atol:g} + {rtol:g} |difference|"
    hint = f"{allowed}; a kink or a jump near the inputs looks like this as well"
    raise GradientMismatchError("gradcheck", problem, got, wanted, hint)
