"""What people do wrong with the engine, and what they are told: the class, the facts, the line.
Prose may change; these may not.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, errors, functional as F
from minigrad.errors import (
    BackwardTwiceError,
    ConfigError,
    DTypeError,
    GradientError,
    GraphFreedError,
    IndexRangeError,
    MaskError,
    MinigradError,
    NoGradientError,
    NoGradModeError,
    NotFiniteError,
    NotScalarError,
    ReadOnlyError,
    ShapeError,
    StaleValueError,
    UnusedInputError,
)


def zeros(*shape: int, requires_grad: bool = False) -> Tensor:
    return Tensor.zeros(*shape, requires_grad=requires_grad)


X = zeros(2, 3, requires_grad=True)
WRONG: list[tuple[str, Callable[[], Any], type[MinigradError], type[Exception], str, Any]] = [
    (
        "shapes that do not broadcast",
        lambda: zeros(2, 3) + zeros(4, 5),
        ShapeError,
        ValueError,
        "add",
        ((2, 3), (4, 5)),
    ),
    (
        "matrices that do not multiply",
        lambda: zeros(2, 3) @ zeros(4, 5),
        ShapeError,
        ValueError,
        "matmul",
        ((2, 3), (4, 5)),
    ),
    (
        "batches that do not fit",
        lambda: zeros(2, 3, 4) @ zeros(5, 4, 2),
        ShapeError,
        ValueError,
        "matmul",
        ((2, 3, 4), (5, 4, 2)),
    ),
    (
        "a scalar in a product",
        lambda: zeros(2, 3) @ Tensor(1.0),
        ShapeError,
        ValueError,
        "matmul",
        ((2, 3), ()),
    ),
    (
        "a weight of another width",
        lambda: F.linear(zeros(2, 3), zeros(4, 5)),
        ShapeError,
        ValueError,
        "linear",
        (2, 3),
    ),
    (
        "a reshape that does not hold all",
        lambda: zeros(2, 3).reshape(4),
        ShapeError,
        ValueError,
        "reshape",
        (2, 3),
    ),
    (
        "an expansion of a size that is not 1",
        lambda: zeros(2, 3).expand(2, 6),
        ShapeError,
        ValueError,
        "expand",
        (2, 3),
    ),
    (
        "an axis that is not there",
        lambda: zeros(2, 3).sum(axis=2),
        IndexRangeError,
        IndexError,
        "sum",
        2,
    ),
    (
        "an axis named twice",
        lambda: zeros(2, 3).sum(axis=(0, -2)),
        ShapeError,
        ValueError,
        "sum",
        (0, -2),
    ),
    (
        "the maximum of nothing",
        lambda: zeros(0, 3).max(axis=0),
        ShapeError,
        ValueError,
        "max",
        (0, 3),
    ),
    ("the truth of many elements", lambda: bool(zeros(2)), ShapeError, ValueError, "bool", (2,)),
    ("the number of many elements", lambda: float(zeros(2)), ShapeError, ValueError, "item", (2,)),
    ("the length of a number", lambda: len(Tensor(1.0)), DTypeError, TypeError, "len", ()),
    (
        "backward of a non-scalar",
        lambda: (X * 2).backward(),
        NotScalarError,
        RuntimeError,
        "backward",
        (2, 3),
    ),
    (
        "backward without a leaf that wants it",
        lambda: zeros(2).sum().backward(),
        NoGradientError,
        RuntimeError,
        "backward",
        (),
    ),
    (
        "a gradient of another shape",
        lambda: (X * 2).backward(zeros(3)),
        ShapeError,
        ValueError,
        "backward",
        (3,),
    ),
    (
        "grad of an input not used",
        lambda: minigrad.grad(X.sum(), zeros(1, requires_grad=True)),
        UnusedInputError,
        RuntimeError,
        "grad",
        0,
    ),
    ("grad of no outputs", lambda: minigrad.grad([], X), ShapeError, ValueError, "grad", 0),
    ("grad of a number", lambda: minigrad.grad(3.0, X), DTypeError, TypeError, "grad", float),
    (
        "grad with respect to nothing",
        lambda: minigrad.grad(X.sum(), []),
        ShapeError,
        ValueError,
        "grad",
        0,
    ),
    (
        "grad with respect to a number",
        lambda: minigrad.grad(X.sum(), 3.0),
        DTypeError,
        TypeError,
        "grad",
        float,
    ),
    (
        "grad with respect to a name",
        lambda: minigrad.grad(X.sum(), [X, "w"]),
        DTypeError,
        TypeError,
        "grad",
        str,
    ),
    (
        "a gradient with respect to an array",
        lambda: X.sum().gradient(np.ones(3)),
        DTypeError,
        TypeError,
        "gradient",
        np.ndarray,
    ),
    ("grad_outputs of text", lambda: minigrad.grad(X, X, "a"), DTypeError, TypeError, "grad", "a"),
    (
        "a ragged gradient",
        lambda: X.backward([[1, 2], [3]]),
        DTypeError,
        TypeError,
        "backward",
        [[1, 2], [3]],
    ),
    (
        "gradients for integers",
        lambda: Tensor([1, 2], requires_grad=True),
        DTypeError,
        TypeError,
        "requires_grad_",
        np.int64,
    ),
    (
        "a computed tensor that shall not want one",
        lambda: (X * 2).requires_grad_(False),
        GradientError,
        RuntimeError,
        "requires_grad_",
        None,
    ),
    ("a ragged list", lambda: Tensor([[1, 2], [3, 4], [5]]), DTypeError, TypeError, "Tensor", None),
    (
        "a dtype that is none",
        lambda: Tensor([1], dtype="complex64"),
        DTypeError,
        TypeError,
        "Tensor",
        "complex64",
    ),
    ("an operand of another kind", lambda: X + "a", DTypeError, TypeError, "add", str),
    (
        "a token outside the vocabulary",
        lambda: F.embedding(Tensor([0, 3]), zeros(3, 2)),
        IndexRangeError,
        IndexError,
        "embedding",
        3,
    ),
    (
        "a negative token",
        lambda: F.embedding(Tensor([-1]), zeros(3, 2)),
        IndexRangeError,
        IndexError,
        "embedding",
        -1,
    ),
    (
        "tokens that are floats",
        lambda: F.embedding(Tensor([1.0]), zeros(3, 2)),
        DTypeError,
        TypeError,
        "embedding",
        np.float32,
    ),
    (
        "a target outside the classes",
        lambda: F.cross_entropy(zeros(2, 3), [0, 3]),
        IndexRangeError,
        IndexError,
        "cross_entropy",
        3,
    ),
    (
        "a negative target",
        lambda: F.cross_entropy(zeros(2, 3), [0, -1]),
        IndexRangeError,
        IndexError,
        "cross_entropy",
        -1,
    ),
    (
        "targets of another shape",
        lambda: F.cross_entropy(zeros(2, 3), [0]),
        ShapeError,
        ValueError,
        "cross_entropy",
        (1,),
    ),
    (
        "a loss over shapes that broadcast",
        lambda: zeros(2, 1).mse(zeros(2)),
        ShapeError,
        ValueError,
        "mse_loss",
        (2,),
    ),
    (
        "an unknown reduction",
        lambda: zeros(2).mse(zeros(2), reduction="avg"),
        ConfigError,
        ValueError,
        "mse_loss",
        "avg",
    ),
    (
        "an unknown approximation",
        lambda: F.gelu(X, approximate="erf"),
        ConfigError,
        ValueError,
        "gelu",
        "erf",
    ),
    ("a probability above 1", lambda: F.dropout(X, 1.5), ConfigError, ValueError, "dropout", 1.5),
    (
        "a mask of zeros and ones",
        lambda: F.scaled_dot_product_attention(
            zeros(2, 2), zeros(2, 2), zeros(2, 2), Tensor(np.eye(2, dtype="f"))
        ),
        MaskError,
        ValueError,
        "scaled_dot_product_attention",
        None,
    ),
    (
        "a mask of another shape",
        lambda: F.scaled_dot_product_attention(
            zeros(2, 2), zeros(2, 2), zeros(2, 2), Tensor([[True] * 3])
        ),
        MaskError,
        ValueError,
        "scaled_dot_product_attention",
        (1, 3),
    ),
    ("None to an activation", lambda: F.relu(None), DTypeError, TypeError, "relu", None),
    ("None to a softmax", lambda: F.softmax(None, 0), DTypeError, TypeError, "softmax", None),
    (
        "None for an element",
        lambda: zeros(2).__setitem__(0, None),
        DTypeError,
        TypeError,
        "setitem",
        "None, not a number",
    ),
    (
        "text for an element",
        lambda: zeros(2).__setitem__(0, "1.5"),
        DTypeError,
        TypeError,
        "setitem",
        "'1.5', not a number",
    ),
    (
        "a None in a list of elements",
        lambda: zeros(2).__setitem__(..., [1, None]),
        DTypeError,
        TypeError,
        "setitem",
        "None, not a number",
    ),
    (
        "a ragged list of elements",
        lambda: zeros(2, 2).__setitem__(..., [[1, 2], [3]]),
        DTypeError,
        TypeError,
        "setitem",
        None,
    ),
    (
        "an array of complex elements",
        lambda: zeros(2).__setitem__(..., np.ones(2) * 1j),
        DTypeError,
        TypeError,
        "setitem",
        np.complex128,
    ),
    (
        "a tensor whose gradient a list would lose",
        lambda: zeros(2).__setitem__(..., [X[0, 0], 1.0]),
        GradientError,
        RuntimeError,
        "setitem",
        (),
    ),
    (
        "elements that do not fit",
        lambda: zeros(2, 3).__setitem__(0, [1, 2]),
        ShapeError,
        ValueError,
        "setitem",
        None,
    ),
    (
        "a ragged index",
        lambda: zeros(2, 3)[[0], [[1], [0, 1]]],
        IndexRangeError,
        IndexError,
        "getitem",
        [[1], [0, 1]],
    ),
    (
        "None for a branch",
        lambda: minigrad.where(X > 0, X, None),
        DTypeError,
        TypeError,
        "where",
        type(None),
    ),
    (
        "None to fill in",
        lambda: X.masked_fill(X > 0, None),
        DTypeError,
        TypeError,
        "masked_fill",
        type(None),
    ),
    ("a write into a leaf", lambda: X.assign(0.0), GradientError, RuntimeError, "assign", None),
    (
        "a seed below 0",
        lambda: minigrad.manual_seed(-1),
        ConfigError,
        ValueError,
        "manual_seed",
        -1,
    ),
    (
        "an einsum that names too few axes",
        lambda: minigrad.einsum("i->i", X),
        ShapeError,
        ValueError,
        "einsum",
        (2, 3),
    ),
    (
        "an einsum whose sizes differ",
        lambda: minigrad.einsum("ij,jk", X, X),
        ShapeError,
        ValueError,
        "einsum",
        (3, 2),
    ),
    (
        "an einsum of too few operands",
        lambda: minigrad.einsum("ij,jk", X),
        ShapeError,
        ValueError,
        "einsum",
        1,
    ),
    (
        "a window larger than the picture",
        lambda: zeros(1, 1, 2, 2).max_pool2d(3),
        ShapeError,
        ValueError,
        "max_pool2d",
        2,
    ),
    (
        "a kernel for other channels",
        lambda: zeros(1, 2, 4, 4).conv2d(zeros(1, 3, 2, 2)),
        ShapeError,
        ValueError,
        "conv2d",
        2,
    ),
    (
        "a diagonal of a vector",
        lambda: zeros(3).diagonal(),
        ShapeError,
        ValueError,
        "diagonal",
        (3,),
    ),
    (
        "a deep copy of a graph",
        lambda: __import__("copy").deepcopy(X * 2),
        GradientError,
        RuntimeError,
        "deepcopy",
        None,
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "builtin", "name", "got"),
    [row[1:] for row in WRONG],
    ids=[row[0] for row in WRONG],
)
def test_a_mistake_has_one_class_names_the_call_and_carries_what_came(
    call: Callable[[], Any],
    kind: type[MinigradError],
    builtin: type[Exception],
    name: str,
    got: Any,
) -> None:
    with pytest.raises(builtin) as caught:
        call()
    error = caught.value
    assert type(error) is kind and error.call == name and str(error).startswith(f"{name}: ")
    if got is not None:
        assert error.got == got
    again = pickle.loads(pickle.dumps(error)) if name not in ("add",) else error
    assert str(again) == str(error) and again.call == name


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ([1, 2, "a"], "input[2]"),
        ([1, None], "input[1]"),
        ([[1, 2], [3]], "input[1]"),
        ([[1, 2], 3], "input[1]"),
        ("text", "input"),
        ([[1, 2], [3, "b"]], "input[1][1]"),
        (None, "input"),
        ([{}], "input[0]"),
    ],
)
def test_a_list_that_is_no_array_is_told_the_place(data: Any, place: str) -> None:
    with pytest.raises(DTypeError) as caught:
        Tensor(data)
    assert caught.value.problem.split(" ")[0] == place and caught.value.hint


def test_the_five_ways_in_which_backward_can_be_too_late_have_five_names() -> None:
    x = zeros(2, requires_grad=True)
    with minigrad.no_grad():
        hidden = (x * 2).sum()
    with pytest.raises(NoGradModeError):
        hidden.backward()
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(BackwardTwiceError) as twice:
        loss.backward()
    assert __file__ in twice.value.where
    shared = x * x
    first, second = (shared * 2).sum(), (shared * 3).sum()
    first.backward()
    with pytest.raises(GraphFreedError) as freed:
        second.backward()
    assert (
        "mul" in freed.value.problem
        and "retain_graph" in freed.value.hint
        and __file__ in freed.value.where
    )
    assert {
        c.__base__
        for c in (
            NoGradModeError,
            BackwardTwiceError,
            GraphFreedError,
            NotScalarError,
            NoGradientError,
        )
    } == {GradientError}


def test_a_change_in_place_is_told_with_both_lines() -> None:
    x, scale = zeros(2, requires_grad=True), zeros(2)
    y = x * scale
    scale.assign(1.0)
    with pytest.raises(StaleValueError) as caught:
        y.sum().backward()
    used, changed = (
        int(caught.value.where.rpartition(":")[2]),
        int(str(caught.value.got).rpartition(":")[2]),
    )
    assert (
        changed == used + 1 and __file__ in caught.value.where and __file__ in str(caught.value.got)
    )


def test_a_shape_error_says_which_axis_and_what_to_do() -> None:
    with pytest.raises(ShapeError) as caught:
        zeros(2, 3) + zeros(4, 5)
    assert (
        "axis -1: 3 against 5" in caught.value.hint and "axis -2: 2 against 4" in caught.value.hint
    )
    with pytest.raises(ShapeError, match="transposed"):
        zeros(2, 3) @ zeros(4, 3)


def test_memory_that_is_read_only_is_not_written() -> None:
    array = np.zeros(2)
    array.flags.writeable = False
    t = Tensor([1.0, 2.0])
    t.data = array
    with pytest.raises(ReadOnlyError, match="clone"):
        t.assign(1.0)
    with pytest.raises(ValueError, match="read-only"):
        Tensor([1.0]).numpy()[0] = 2


def test_an_error_keeps_its_facts_when_it_is_pickled() -> None:
    error = ShapeError(
        "linear",
        "does not fit",
        got=(2, 3),
        wanted=(..., 4),
        hint="transpose it",
        where="train.py:3",
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ShapeError and vars(again) == vars(error) and str(again) == str(error)
    assert "made at train.py:3" in str(error) and "transpose it" in str(error)
    for error in (
        errors.MissingFileError("load", "is missing", code="no-such-file", hint="look there"),
        errors.SaveError("save", "failed", phase="write", path="x.mgrd", errno=28, needed=3),
        ShapeError("linear", "does not fit", (2, 3), (..., 4), "transpose it", "train.py:3"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and vars(again) == vars(error)
        assert str(again) == str(error) and getattr(again, "errno", None) in (None, 28)


# --- debug


def test_debug_names_the_first_op_that_made_a_nan_or_an_infinity_and_its_line() -> None:
    x = Tensor([0.0, 1.0], requires_grad=True)
    with minigrad.debug(), pytest.raises(NotFiniteError) as caught:
        (x.log() * 0).sum()
    assert (
        caught.value.call == "log" and caught.value.got == "inf" and __file__ in caught.value.where
    )
    with (
        np.errstate(all="ignore"),
        minigrad.debug(inf=False),
        pytest.raises(NotFiniteError) as caught,
    ):
        (x.log() * 0).sum()
    assert caught.value.call == "mul" and caught.value.got == "NaN"
    with np.errstate(all="ignore"), minigrad.debug(nan=False, inf=False):
        assert np.isnan((x.log() * 0).sum().item())


def test_debug_finds_what_a_backward_pass_made_and_names_the_forward_line() -> None:
    x = Tensor([0.0, 1.0], requires_grad=True)
    with minigrad.debug():
        root = x.sqrt()
        y = root.sum()
        with pytest.raises(NotFiniteError) as caught:
            y.backward()
    assert caught.value.call == "backward of sqrt" and caught.value.where == str(root.grad_fn.where)
    with minigrad.debug(), pytest.raises(NotFiniteError) as after:
        Tensor([0.0]).log()
    assert after.value.call == "log"


def test_debug_lets_masks_of_minus_infinity_pass() -> None:
    x = Tensor(np.zeros((2, 3, 4)), requires_grad=True)
    with minigrad.debug():
        seen = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        hidden = Tensor.where(Tensor([[True, False, True]]), x.sum(-1), -np.inf).softmax()
        (seen.sum() + (hidden * hidden).sum()).backward()
    assert np.isfinite(x.grad.numpy()).all()


# --- profile


def test_profile_counts_calls_and_bytes_per_op_and_per_line_forward_and_backward(
    capsys: pytest.CaptureFixture[str],
) -> None:
    w = Tensor(np.zeros((4, 8), "f"), requires_grad=True)
    with minigrad.profile() as seen:
        for _ in range(3):
            y = w.exp()
            y.sum().backward()
    ops = {row.name: row for row in seen.by_op()}
    assert (ops["exp"].calls, ops["exp"].bytes) == (3, 3 * 4 * 8 * 4)
    assert ops["mul (backward of exp)"].calls == 3 and all(row.seconds >= 0 for row in seen.by_op())
    lines = {row.name: row.calls for row in seen.by_line() if __file__ in row.name}
    assert len(lines) == 2 and sum(lines.values()) == sum(row.calls for row in seen.by_op())
    printed = capsys.readouterr().out
    assert "exp" in printed and f"{__file__}:" in printed and "all" in printed
    with minigrad.profile(show=False):
        w.exp()
    assert capsys.readouterr().out == ""


def test_listeners_pass_on_what_they_hear() -> None:
    w = Tensor([0.0, 1.0], requires_grad=True)
    with (
        minigrad.profile(show=False) as outer,
        minigrad.debug(),
        minigrad.profile(show=False) as inner,
    ):
        with pytest.raises(NotFiniteError):
            w.exp().log().sqrt().sum().backward()
        minigrad.checkpoint(lambda t: t.sin(), w).sum().backward()
    counts = [{row.name: row.calls for row in seen.by_op()} for seen in (outer, inner)]
    assert counts[0]["exp"] == counts[1]["exp"] == 1 and counts[0]["sin"] == counts[1]["sin"] >= 1


def asked_for(t: Tensor) -> None:
    t.requires_grad = True


@pytest.mark.parametrize(
    "make",
    [
        lambda: minigrad.arange(3, requires_grad=True),
        lambda: minigrad.zeros(2, dtype=int, requires_grad=True),
        lambda: minigrad.ones(2, dtype=bool, requires_grad=True),
        lambda: minigrad.eye(2, dtype="int32", requires_grad=True),
        lambda: minigrad.full((2,), 1, dtype=int, requires_grad=True),
        lambda: minigrad.empty(2, dtype="uint8", requires_grad=True),
        lambda: Tensor([1, 2]).zeros_like(requires_grad=True),
        lambda: Tensor([True]).ones_like(requires_grad=True),
        lambda: Tensor([1]).full_like(2, requires_grad=True),
        lambda: minigrad.linspace(0, 1, 2, dtype=int, requires_grad=True),
        lambda: minigrad.rand(2, dtype=int, requires_grad=True),
        lambda: asked_for(Tensor([1])),
        lambda: asked_for(Tensor([1.0]) > 0),
    ],
)
def test_no_way_leads_to_an_integer_or_bool_that_requires_a_gradient(make: object) -> None:
    with pytest.raises(DTypeError, match="requires_grad") as caught:
        make()
    assert caught.value.wanted == minigrad.float32


def test_requires_grad_can_be_set_on_leaves_of_floats_and_not_taken_from_computed_tensors() -> None:
    t = minigrad.zeros(2)
    t.requires_grad = True
    assert (t * 2).requires_grad and minigrad.ones(
        2, dtype="bfloat16", requires_grad=True
    ).requires_grad
    with pytest.raises(GradientError, match="detach"):
        (t * 2).requires_grad = False
    t.requires_grad = False
    assert not (t * 2).requires_grad


def test_debug_tells_of_what_is_written_in_place() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    for make in (minigrad.optim.SGD, minigrad.optim.AdamW):
        optimizer = make([w], lr=1e30)
        w.grad = Tensor([1e30, 0.0])
        with (
            np.errstate(all="ignore"),
            minigrad.debug(),
            pytest.raises(NotFiniteError, match="writing in place") as caught,
        ):
            optimizer.step()
        assert __file__ in caught.value.where
        with minigrad.no_grad():
            w.assign(Tensor([1.0, 2.0]))
    t = minigrad.zeros(3)
    with minigrad.debug(), pytest.raises(NotFiniteError, match="NaN") as caught:
        t[0] = np.nan
    assert caught.value.call == "setitem" and __file__ in caught.value.where
    with minigrad.debug():
        t[1] = -np.inf  # as masks are made


def test_debug_does_not_call_an_infinite_operand_finite() -> None:
    x = Tensor([np.inf, 1.0])
    with (
        np.errstate(all="ignore"),
        minigrad.debug(inf=False),
        pytest.raises(NotFiniteError, match="some are infinite"),
    ):
        x - x
    with minigrad.debug(), pytest.raises(NotFiniteError, match="of finite operands"):
        Tensor([0.0]).log()


def test_lines_inside_layers_models_and_optimizers_are_not_the_user_s() -> None:
    model = minigrad.nn.Sequential(
        minigrad.nn.Linear(3, 4), minigrad.nn.LayerNorm(4), minigrad.nn.Linear(4, 2)
    )
    with minigrad.profile(show=False) as seen:
        loss = model(minigrad.ones(2, 3)).sum()
        loss.backward()
    assert {row.name.rsplit(":", 1)[0] for row in seen.by_line()} == {__file__}
    with minigrad.no_grad():
        model[0].weight.assign(minigrad.full((4, 3), 3e38))
    with np.errstate(all="ignore"), minigrad.debug(), pytest.raises(NotFiniteError) as caught:
        model(minigrad.ones(2, 3))
    assert __file__ in caught.value.where and caught.value.call == "linear"


# --- ops of one's own


@pytest.mark.parametrize("answer", [lambda g: (), lambda g: (g, g), lambda g: g, lambda g: None])
def test_a_rule_that_does_not_give_one_cotangent_per_operand_is_refused_by_name(
    answer: Callable[[Any], Any],
) -> None:
    @minigrad.primitive(kind="elementwise")
    def mine(x: Any) -> Any:
        return x * 2

    @mine.vjp
    def _(g: Any, _y: Any, _x: Any) -> Any:
        return answer(g)

    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GradientError, match=r"rule of mine gave .* for 1 operands") as caught:
        mine(x).sum().backward()
    assert __file__ in caught.value.where and caught.value.wanted == 1


def test_an_op_is_made_with_a_kind_and_a_dtype_that_there_are() -> None:
    def mine(x: Any) -> Any:
        return x

    for make in (
        lambda: minigrad.primitive(mine),
        lambda: minigrad.primitive()(mine),
        lambda: minigrad.primitive(kind="pointwise")(mine),
        lambda: minigrad.primitive(kind="view", dtype="int")(mine),
        lambda: minigrad.primitive(kind="view", outputs=0)(mine),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.call == "primitive" and caught.value.wanted


def test_backward_through_an_op_without_a_rule_names_it() -> None:
    @minigrad.primitive(kind="elementwise")
    def ruleless(x: Any) -> Any:
        return x * 2

    x = Tensor([1.0, 2.0], requires_grad=True)
    for loss in (lambda: ruleless(x).sum(), lambda: (ruleless(x) * 3.0).mean()):
        with pytest.raises(NoGradientError, match="ruleless, which has no rule") as caught:
            loss().backward()
        assert "@ruleless.vjp" in caught.value.hint
    (ruleless(x) * x).sum().backward()
    assert x.grad.tolist() == [2, 4] and ruleless(x).requires_grad_().is_leaf


def test_the_errors_of_save_name_what_came_once(tmp_path: Any) -> None:
    with pytest.raises(DTypeError, match=r"^save: expected the path first, got a Tensor\n"):
        minigrad.save(Tensor(1.0), tmp_path / "a.mgrd")  # type: ignore[arg-type]
    wanted = r"^save: expected an array for 'a' in the dict of arrays, got a dict\n"
    with pytest.raises(DTypeError, match=wanted):
        minigrad.save(tmp_path / "a.mgrd", {"a": {"b": Tensor(1.0)}})  # type: ignore[dict-item]


@pytest.mark.parametrize("one", [Tensor(0.5), np.float64(0.5)])
def test_full_takes_a_tensor_without_axes(one: Any) -> None:
    t = minigrad.full((2,), one)
    assert t.tolist() == [0.5, 0.5] and t.dtype == np.float32
