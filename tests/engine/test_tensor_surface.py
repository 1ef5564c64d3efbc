"""The names that people type, in both spellings, and what they give."""

import copy
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import minigrad
from minigrad import Tensor, functional as F
from minigrad.errors import ConfigError, DTypeError, IndexRangeError, ShapeError
from tests.engine.cases import UNARY

X = np.random.default_rng(0).standard_normal((3, 4))
NAMES = """
zeros ones full empty arange linspace eye zeros_like ones_like full_like empty_like rand_like
randn_like rand randn randint uniform normal
kaiming_uniform kaiming_normal glorot_uniform scaled_uniform multinomial bernoulli one_hot tril triu
reshape view permute transpose T expand flip squeeze unsqueeze pad shrink cat stack split chunk
repeat repeat_interleave roll flatten unflatten
unfold diagonal meshgrid
add sub mul div pow mod floor_divide maximum minimum eq ne lt le gt ge logical_and logical_or
logical_xor logical_not bitwise_and bitwise_or
bitwise_xor bitwise_not logsigmoid softplus softsign relu6 leaky_relu elu selu celu gelu quick_gelu
silu mish hardtanh hardswish hardsigmoid
clamp lerp where isnan isinf isfinite logaddexp rsqrt erf erfc sigmoid relu
sum mean max min prod var std var_mean std_mean any all argmax argmin logsumexp cumsum cumprod
cummax logcumsumexp
matmul dot einsum linear gather scatter scatter_reduce masked_fill masked_select nonzero sort
argsort topk
softmax log_softmax layernorm rms_norm cross_entropy nll_loss binary_crossentropy
binary_crossentropy_logits sparse_categorical_crossentropy mse
dropout sequential conv1d conv2d max_pool2d avg_pool2d batchnorm rearrange
scaled_dot_product_attention manual_seed
cast float half bfloat16 double int long bool numpy item tolist detach clone contiguous
requires_grad_ assign backward gradient
"""


def test_tensor_has_every_name_of_the_public_surface() -> None:
    numpys = {name for name, case in UNARY.items() if case.op.numpy}
    assert [name for name in {*NAMES.split(), *numpys} if not hasattr(Tensor, name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "sum",
        "mean",
        "max",
        "min",
        "prod",
        "var",
        "std",
        "any",
        "all",
        "argmax",
        "argmin",
        "logsumexp",
    ],
)
def test_reductions_take_both_spellings(name: str) -> None:
    t = Tensor(X)
    ours = getattr(t, name)(axis=1, keepdim=True)
    theirs = getattr(t, name)(dim=1, keepdims=True)
    assert ours.shape == theirs.shape == (3, 1) and np.array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    "name",
    [
        "cumsum",
        "cumprod",
        "cummax",
        "logcumsumexp",
        "sort",
        "argsort",
        "softmax",
        "flip",
        "unsqueeze",
        "squeeze",
    ],
)
def test_methods_along_an_axis_take_both_spellings(name: str) -> None:
    ours, theirs = getattr(Tensor(X), name)(axis=0), getattr(Tensor(X), name)(dim=0)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


CREATED = [
    (Tensor.zeros(2, 3), np.zeros((2, 3), "f")),
    (Tensor.ones((2, 3)), np.ones((2, 3), "f")),
    (Tensor.full((2,), 7), np.full(2, 7)),
    (Tensor.full((2,), 7.0), np.full(2, 7, "f")),
    (Tensor.full((2,), True), np.full(2, True)),
    (Tensor.full((2,), np.float64(0.1)), np.full(2, 0.1, "f")),
    (Tensor.full((2,), 0.1, dtype="float64"), np.full(2, 0.1)),
    (Tensor.full((2,), 7, dtype=int), np.full(2, 7)),
    (Tensor.empty(2), np.zeros(2, "f")),
    (Tensor.arange(5), np.arange(5)),
    (Tensor.arange(1, 2, 0.25), np.arange(1, 2, 0.25, dtype="f")),
    (Tensor.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype="f")),
    (Tensor.eye(2, 3), np.eye(2, 3, dtype="f")),
    (Tensor([1, 2]).zeros_like(), np.zeros(2, int)),
    (Tensor.ones_like(Tensor([1, 2]), dtype="float64"), np.ones(2)),
    (Tensor([1.0]).full_like(3), np.full(1, 3, "f")),
    (Tensor([0, 2]).one_hot(), np.array([[1, 0, 0], [0, 0, 1]])),
    (Tensor(True), np.array(True)),
    (Tensor([[1, 2.5]]), np.array([[1, 2.5]], "f")),
    (Tensor(np.float64(2)), np.array(2.0)),
    (Tensor([np.array([0.1])]), np.array([[0.1]])),
    (Tensor([Tensor([0.1], dtype="float64")]), np.array([[0.1]])),
    (Tensor([np.float64(0.1), 1, True]), np.array([0.1, 1, 1])),
    (Tensor([np.float32(0.1), 0.1]), np.array([0.1, 0.1], "f")),
    (Tensor([np.array([1]), (2.5,)]), np.array([[1], [2.5]], "f")),
    (Tensor([2**63], dtype="uint64"), np.array([2**63], np.uint64)),
]


@pytest.mark.parametrize(("made", "wanted"), CREATED)
def test_created_tensors_have_these_values_and_dtypes(made: Tensor, wanted: np.ndarray) -> None:
    assert (
        made.dtype == wanted.dtype
        and made.shape == wanted.shape
        and made.tolist() == wanted.tolist()
    )


LEAVES = st.one_of(
    st.floats(-1, 1),
    st.integers(-3, 3),
    st.booleans(),
    *(st.floats(-1, 1).map(t) for t in (np.float16, np.float32, np.float64)),
    *(st.floats(-1, 1).map(lambda v, d=d: Tensor(v, dtype=d)) for d in ("float32", "float64")),
    st.floats(-1, 1).map(np.array),
    st.integers(-3, 3).map(np.int32),
)


@given(st.lists(LEAVES, min_size=1, max_size=4), st.booleans())
def test_in_a_list_only_what_has_a_dtype_decides_the_dtype(leaves: list[Any], nested: bool) -> None:
    typed = [x.dtype for x in leaves if hasattr(x, "dtype") and x.dtype.kind == "f"]
    t = Tensor([leaves, leaves] if nested else leaves)
    if typed:
        assert t.dtype == np.result_type(*typed)
    elif any(type(x) is float for x in leaves):
        assert t.dtype == np.float32
    else:
        assert t.dtype.kind != "f"
    plain = np.array([x.item() if hasattr(x, "item") else x for x in leaves])
    assert np.array_equal(t.numpy()[0] if nested else t.numpy(), plain.astype(t.dtype))


def test_torch_s_tensors_keep_their_dtype_in_lists_too() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.1], dtype=torch.float64)
    assert Tensor(x).tolist() == [0.1] and Tensor([x]).tolist() == [[0.1]]
    assert Tensor([x.float()]).dtype == np.float32


@pytest.mark.parametrize("data", [2**63, [2**63], [2**63, -1], [-(2**63) - 1], [[2**70]], 2**70])
def test_an_integer_beyond_int64_is_refused(data: Any) -> None:
    with pytest.raises(DTypeError, match="int64"):
        Tensor(data)
    with pytest.raises(DTypeError, match="int64"):
        Tensor.full((1,), 2**63)


def test_python_s_protocols_work_as_people_expect() -> None:
    t, one = Tensor([1.0, 2.0]), Tensor([1.25])
    for refused, kind in (
        (lambda: len(Tensor(1.0)), TypeError),
        (lambda: list(Tensor(1.0)), TypeError),
        (lambda: t[0.0], IndexError),
        (lambda: t[Tensor([0.5])], IndexError),
        (lambda: t["a"], IndexError),
        (lambda: t.__delitem__(0), TypeError),
        (lambda: f"{t:.3f}", ValueError),
        (lambda: round(t, 1), ValueError),
    ):
        with pytest.raises(kind):
            refused()
    with pytest.raises(TypeError, match="deleted"):
        del t[0]
    assert None not in [t] and [t, None].count(None) == 1 and t in [t] and "x" not in [t]
    assert (t == None) is False and (t != None) is True  # noqa: E711
    assert (t == []) is False and [] not in [t]
    half = [False, True]
    numbers = Tensor([1.0, 0.5])
    for number in (Fraction(1, 2), Decimal("0.5"), 0.5 + 0j, np.complex128(0.5), np.float16(0.5)):
        assert (numbers == number).tolist() == half
        assert (numbers != number).tolist() == [True, False]
    assert (Fraction(1, 2) == numbers).tolist() == half
    if np.longdouble(1).itemsize > 8:
        for data in ([np.longdouble(0.1)], [np.array([0.1], np.longdouble)]):
            with pytest.raises(DTypeError, match="not supported"):
                Tensor(data)
    table = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert F.embedding(1, table).tolist() == F.embedding(np.int64(1), table).tolist() == [3, 4]
    for got, wanted in zip(divmod(numbers, 0.375), divmod(numbers.numpy(), 0.375), strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted)
    assert [y.tolist() for y in divmod(0.75, numbers)] == [[0, 1], [0.75, 0.25]]
    assert minigrad.hstack([Tensor(1.0), Tensor(2.0)]).tolist() == [1, 2]
    assert minigrad.vstack([Tensor(1.0), Tensor(2.0)]).tolist() == [[1], [2]]
    assert (t == "x") is False and (t != object()) is True and (t == [1, None]) is False
    assert (t == [1.0, 3.0]).tolist() == [True, False] and (t != 1).tolist() == [False, True]
    assert f"{Tensor(1.5):.3f}" == "1.500" and f"{one:8.2f}" == "    1.25" and f"{t}" == repr(t)
    assert round(one, 1) == 1.2 and round(Tensor(2.5)) == 2 and f"{Tensor(7):03d}" == "007"
    assert [math.floor(one), math.ceil(one), math.trunc(-one)] == [1, 2, -1]
    assert math.floor(Tensor(2**62 + 1)) == 2**62 + 1  # not through a float


def test_a_condition_is_bool_and_masked_fill_keeps_the_dtype() -> None:
    x = Tensor(X)
    for refused in (lambda: x.where(x > 0, 0.0), lambda: minigrad.where(x, x, 0.0)):
        with pytest.raises(DTypeError, match=r"minigrad\.where\(cond, x, y\)"):
            refused()
    for dtype in ("float16", "float32", "bfloat16", "int64", "uint8", "bool"):
        t = Tensor([1, 0, 1], dtype=dtype)
        values = (1, True, np.int64(1), Tensor(1, dtype="uint8"), np.array(1))
        for value in (*values, Tensor(1.0, dtype="float64")) if dtype[0] != "i" else values:
            if dtype in ("uint8", "bool") and getattr(value, "dtype", t.dtype).kind == "f":
                continue
            filled = t.masked_fill(t == 0, value)
            assert filled.dtype == t.dtype and filled.float().tolist() == [1, 1, 1]
    with pytest.raises(DTypeError, match="masked_fill"):
        Tensor([1, 2]).masked_fill(Tensor([True, False]), Tensor(0.5))


AXIS_METHODS = {
    "sum mean prod max min any all argmax argmin logsumexp softmax log_softmax cumsum cumprod "
    "cummax "
    "logcumsumexp sort argsort var std var_mean std_mean unsqueeze squeeze flip layernorm rms_norm "
    "size": lambda f, a: f(a),
    "gather": lambda f, a: f(a, Tensor([[0, 0, 0, 0]])),
    "scatter": lambda f, a: f(a, Tensor([[0, 0, 0, 0]]), 0.0),
    "split chunk roll repeat_interleave": lambda f, a: f(1, a),
    "topk": lambda f, a: f(1, a),
    "transpose": lambda f, a: f(a, 1),
    "unflatten": lambda f, a: f(a, (3, -1)),
    "unfold": lambda f, a: f(a, 2, 1),
    "flatten": lambda f, a: f(a, 1),
    "permute": lambda f, a: f(a, 1),
    "diagonal": lambda f, a: f(0, a, 1),
}


@pytest.mark.parametrize("axis", [False, np.False_])
@pytest.mark.parametrize(
    ("name", "call"), [(n, c) for names, c in AXIS_METHODS.items() for n in names.split()]
)
def test_a_bool_is_no_axis(name: str, call: Any, axis: Any) -> None:
    with pytest.raises(TypeError, match=r"axis|order|integer"):
        call(getattr(Tensor(X), name), axis)
    call(getattr(Tensor(X), name), 0 if isinstance(axis, bool) else np.int64(0))


def test_var_names_correction_for_what_pytorch_reads_as_unbiased() -> None:
    t = Tensor(X)
    for call in (
        lambda: t.var(0, False),
        lambda: t.std(False),
        lambda: t.std(0, True),
        lambda: t.var(True),
        lambda: t.var_mean(0, False),
        lambda: minigrad.std_mean(t, 1, False),
    ):
        with pytest.raises((TypeError, ValueError), match="correction="):
            call()
    for correction in (12, 13, 100):
        assert t.var(correction=correction).item() == t.std(correction=correction).item() == np.inf
    assert np.isnan(Tensor([1.0]).var().item())  # 0 / 0, as in numpy and PyTorch


INTEGER_CALLS: list[Callable[[Tensor, Any], Any]] = [
    lambda x, n: minigrad.zeros(n(2), n(3)) + minigrad.ones((n(2), n(3))),
    lambda x, n: minigrad.full((n(2), n(2)), n(3)),
    lambda x, n: minigrad.eye(n(2), n(3)),
    lambda x, n: minigrad.arange(n(1), n(7), n(2)),
    lambda x, n: minigrad.linspace(n(0), n(1), n(3)),
    lambda x, n: minigrad.randn(n(2)) * 0,
    lambda x, n: minigrad.randint(n(3), n(4), (n(2),)),
    lambda x, n: x.reshape(n(2), n(-1)),
    lambda x, n: x.expand(n(2), n(-1), n(4)),
    lambda x, n: x.permute(n(1), n(0)),
    lambda x, n: x.transpose(n(0), n(1)),
    lambda x, n: x.flatten(n(0), n(1)),
    lambda x, n: x.unflatten(n(1), (n(2), n(2))),
    lambda x, n: x.squeeze(n(0)).unsqueeze(n(1)),
    lambda x, n: x.split(n(2), n(1))[0],
    lambda x, n: x.split([n(1), n(3)], n(1))[0],
    lambda x, n: x.chunk(n(2), n(1))[0],
    lambda x, n: x.repeat(n(2), n(1)),
    lambda x, n: x.repeat_interleave(n(2), n(1)),
    lambda x, n: x.roll(n(1), n(1)),
    lambda x, n: x.roll(n(1)),
    lambda x, n: x.tril(n(1)).triu(n(-1)),
    lambda x, n: x.diagonal(n(1), n(0), n(1)),
    lambda x, n: x.unfold(n(1), n(2), n(1)),
    lambda x, n: x.pad((n(1), n(1))),
    lambda x, n: x.shrink(((n(0), n(1)), None)),
    lambda x, n: x.topk(n(2), n(1))[0],
    lambda x, n: x.round(n(1)),
    lambda x, n: x.var(n(0), correction=n(0)),
    lambda x, n: x.sum((n(0), n(1))),
    lambda x, n: x[n(1)],
    lambda x, n: x[n(0) : n(2), :: n(2)],
    lambda x, n: x[:2, :2].long().abs().clamp(n(0), n(2)).one_hot(n(3)),
    lambda x, n: F.one_hot(x[:1].long() * 0, n(2)),
    lambda x, n: F.avg_pool2d(x[None, None], n(2), n(1), n(1)),
    lambda x, n: F.max_pool2d(x[None, None], n(2), n(1), n(1), n(1)),
    lambda x, n: F.conv1d(x[None], x[None], None, n(1), n(1), n(1), n(1)),
    lambda x, n: F.pad(x, (n(1), n(0)), value=n(2)),
    lambda x, n: x.sum() * n(2) + n(1),
    lambda x, n: x.masked_fill(x > 0, n(2)).clamp(n(-1), n(1)),
    lambda x, n: x.leaky_relu(n(2)).softplus(n(1)).elu(n(1)),
    lambda x, n: x.dropout(n(0)),
    lambda x, n: F.cross_entropy(x, Tensor([0, 1, 2]), ignore_index=n(0), label_smoothing=n(0)),
]


@pytest.mark.parametrize("call", INTEGER_CALLS)
def test_numpy_s_integers_are_taken_wherever_python_s_are(call: Any) -> None:
    wanted = call(Tensor(X), int)
    for kind in (np.int64, np.int32):
        got = call(Tensor(X), kind)
        assert got.dtype == wanted.dtype and np.array_equal(got.numpy(), wanted.numpy())


def test_random_creation_keeps_its_bounds_and_follows_the_seed() -> None:
    def draw() -> list[Tensor]:
        minigrad.manual_seed(3)
        return [
            Tensor.uniform(1000, low=2, high=3),
            Tensor.normal(1000, mean=5, std=0.1),
            Tensor.scaled_uniform(10, 100),
            Tensor.glorot_uniform(30, 70),
            Tensor.kaiming_uniform(40, 60, a=0),
            Tensor.kaiming_normal(40, 50, a=0),
            Tensor.randint(2, 5, (100,)),
            Tensor.randint(50, low=-1, high=1),
            Tensor.randint(4, [9]),
            Tensor.zeros(7).rand_like(),
            Tensor.zeros(7).randn_like(),
        ]

    first, again = draw(), draw()
    assert {t.dtype.name for t in first} == {"float32", "int64"}
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(first, again, strict=True))
    for t, low, high in zip(
        first,
        (2, 4, -0.0317, -0.245, -0.317, -2, 2, -1, 0, 0),
        (3, 6, 0.0317, 0.245, 0.317, 2, 4, 0, 3, 1),
        strict=False,
    ):
        assert low <= t.min().item() <= t.max().item() <= high
    assert abs(first[5].std().item() - (2 / 50) ** 0.5) < 0.01
    with pytest.raises(ConfigError):
        Tensor.randint(1, 2, 3)


def test_multinomial_draws_in_proportion_and_without_replacement_each_at_most_once() -> None:
    minigrad.manual_seed(0)
    weights = Tensor([1.0, 0.0, 3.0])
    drawn = weights.multinomial(4000, replacement=True).numpy()
    assert set(drawn.tolist()) == {0, 2} and abs((drawn == 2).mean() - 0.75) < 0.03
    rows = Tensor(np.tile([[1.0, 2.0, 0.0, 1.0]], (500, 1))).multinomial(3).numpy()
    assert rows.shape == (500, 3) and all(sorted(row) == [0, 1, 3] for row in rows.tolist())
    assert abs((rows[:, 0] == 1).mean() - 0.5) < 0.1
    for bad in ([0.0, 0.0], [-1.0, 2.0], [np.inf, 1.0], [np.nan, 1.0]):
        with pytest.raises(ConfigError):
            Tensor(bad).multinomial(1)
    with pytest.raises(ConfigError, match="replacement=True"):
        weights.multinomial(3)


def test_bernoulli_draws_ones_in_proportion_eager_and_jitted() -> None:
    minigrad.manual_seed(0)
    p = Tensor(np.tile([0.0, 0.25, 1.0], (4000, 1)).astype("float32"), requires_grad=True)
    drawn = minigrad.bernoulli(p)
    assert drawn.dtype == p.dtype and not drawn.requires_grad
    assert set(drawn.unique().tolist()) == {0, 1}
    never, sometimes, always = drawn.numpy().mean(axis=0)
    assert never == 0 and always == 1 and abs(sometimes - 0.25) < 0.03
    whole = Tensor.zeros(4000, dtype="int32").bernoulli(0.75)
    assert whole.dtype == "int32" and abs(whole.numpy().mean() - 0.75) < 0.03
    assert minigrad.ones(2, 3).half().bernoulli(Tensor([0.0, 1.0, 0.0])).tolist() == [[0, 1, 0]] * 2

    generator, unit = minigrad.Generator(3), minigrad.Generator(3).uniform((9,))
    half, step = Tensor.full((9,), 0.5), minigrad.jit(lambda t: t.bernoulli())
    assert half.bernoulli(generator=generator).tolist() == (unit < 0.5).tolist()
    runs = []
    for draw in (step, Tensor.bernoulli):
        minigrad.manual_seed(1)
        runs.append([draw(half).tolist() for _ in range(5)])
    assert runs[0] == runs[1] and runs[0][3] != runs[0][4]
    for bad in (-0.1, 1.1, np.nan, Tensor([0.5, 2.0])):
        with pytest.raises(ConfigError, match="probabilities, from 0 to 1"):
            minigrad.ones(2).bernoulli(bad)


def test_bools_have_signs_and_lengths() -> None:
    t, x = Tensor([True, False, True]), Tensor([1.0, -2.0, 3.0], requires_grad=True)
    assert t.sign().dtype == bool and t.sign().tolist() == [True, False, True]
    minigrad.copysign(t, x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 0, 0]
    assert [t.norm(p).item() for p in (0, 1, math.inf)] == [2, 2, 1]
    assert abs(t.norm().item() - 2**0.5) < 1e-6


def test_values_and_indices_have_their_names() -> None:
    t = Tensor([3.0, 1.0, 2.0])
    assert t.sort().values.tolist() == [1, 2, 3] and t.sort().indices.tolist() == [1, 2, 0]
    assert t.topk(2).values.tolist() == [3, 2] and minigrad.topk(t, 2).indices.tolist() == [0, 2]
    assert t.max_with_index(0).values == 3 and t.min_with_index(0).indices == 1
    assert Tensor(4.0).sort().values == 4 and Tensor(4.0).topk(1).indices == 0
    step = minigrad.jit(lambda x: x.topk(2))
    assert [step(t).indices.tolist() for _ in range(3)] == [[0, 2]] * 3
    values, indices = t.half().sort()
    assert values.dtype == "float16" and indices.tolist() == [1, 2, 0]


def test_quantiles_next_to_infinities_are_where_they_lead() -> None:
    inf = math.inf
    for numbers, q, wanted in (
        ([-inf, -2, 2, 2], 0.25, -inf),
        ([-inf, -2, 2, 2], 0.1, -inf),
        ([-inf, -inf, inf, inf], 0.25, -inf),
        ([inf, inf, inf], 0.3, inf),
        ([1, inf], 0.5, inf),
        ([-inf, inf], 0.5, math.nan),
        ([-inf, 1], 1.0, 1),
    ):
        got = Tensor(np.array(numbers, np.float32)).quantile(q).item()
        assert got == wanted or (math.isnan(got) and math.isnan(wanted))


def test_two_tensors_for_max_or_min_are_told_of_maximum_and_minimum() -> None:
    t = minigrad.ones(3, 4)
    for name in ("max", "min"):
        problem = rf"axis Tensor \(3, 4\) is not an integer\n  minigrad.{name}imum\(a, b\)"
        with pytest.raises(DTypeError, match=problem):
            getattr(minigrad, name)(t, t)


def test_movement_methods_take_the_habits_of_both_worlds() -> None:
    t = Tensor(X)
    assert t.reshape(2, 6).shape == t.view((2, 6)).shape == t.reshape([2, -1]).shape == (2, 6)
    assert (
        t.transpose().shape
        == t.T.shape
        == t.permute(1, 0).shape
        == t.permute((-1, 0)).shape
        == (4, 3)
    )
    assert t.size() == (3, 4) and t.size(-1) == 4 and t.dim() == 2 and len(t) == 3
    with pytest.raises(ShapeError, match=r"size: a tensor without axes"):
        Tensor(1.0).size(0)
    assert np.array_equal(t.pad((1, 2)).numpy(), np.pad(X, ((0, 0), (1, 2))))
    assert np.array_equal(
        t.pad(((1, 0), None), value=5).numpy(), np.pad(X, ((1, 0), (0, 0)), constant_values=5)
    )
    assert np.array_equal(
        t.pad((1, 1), mode="circular").numpy(), np.pad(X, ((0, 0), (1, 1)), mode="wrap")
    )
    assert np.array_equal(t.shrink(((1, 3), None)).numpy(), X[1:3])
    for joined in (
        t.cat(t, dim=1),
        Tensor.cat([t, t], dim=1),
        Tensor.cat((t, t), axis=-1),
        t.cat([t], dim=1),
    ):
        assert np.array_equal(joined.numpy(), np.concatenate([X, X], 1))
    assert Tensor.stack([t, t], dim=-1).shape == t.stack(t, dim=2).shape == (3, 4, 2)
    assert [p.shape for p in t.split([1, 3], dim=1)] == [(3, 1), (3, 3)] and [
        p.shape for p in t.chunk(2)
    ] == [(2, 4), (1, 4)]
    assert t.repeat(2, 1, 1).shape == t.repeat((2, 1, 1)).shape == (2, 3, 4)
    assert t.unflatten(1, (2, -1)).shape == (3, 2, 2) and t.rearrange(
        "a (b c) -> c (a b)", b=2
    ).shape == (2, 6)
    assert [r.shape for r in t] == [(4,)] * 3 and X[0, 0] in t and 99.0 not in t
    for refused in (
        lambda: t.pad((1, 2, 3)),
        lambda: t.pad((1,) * 6),
        lambda: t.shrink((None,)),
        lambda: t.unflatten(1, (3, 2)),
        lambda: t.rearrange("a -> a"),
        lambda: t.rearrange("a (b c) -> a b c"),
        lambda: t.repeat(2),
        lambda: t.pad((9, 0), "reflect"),
        lambda: t.unfold(1, 5),
        lambda: Tensor([1.0]).tril(),
        lambda: Tensor.cat([]),
    ):
        with pytest.raises(ShapeError):
            refused()
    for strange in (
        lambda: t.pad((1, 1), mode="mirror"),
        lambda: t.topk(5),
        lambda: t.meshgrid(indexing="yx"),
        lambda: t.roll((1, 2), (0,)),
    ):
        with pytest.raises(ConfigError):
            strange()


def test_bits_and_logic_have_operators() -> None:
    a, b = Tensor([True, True, False]), Tensor([True, False, False])
    assert (
        (a & b).tolist() == [True, False, False]
        and (a | b).tolist() == [True, True, False]
        and (a ^ b).tolist() == [False, True, False]
    )
    assert (
        (~a).tolist() == [False, False, True]
        and (~Tensor([1])).tolist() == [-2]
        and (6 & Tensor([3])).tolist() == [2]
    )
    assert (
        (Tensor([1]) << 3).tolist() == [8]
        and (8 >> Tensor([1])).tolist() == [4]
        and (1 | Tensor([2])).tolist() == [3]
    )
    with pytest.raises(DTypeError):
        Tensor([1.0]) & Tensor([1.0])


def test_gather_and_scatter_check_their_indices() -> None:
    t = Tensor(X)
    for index in ([[4]], [[-1]]):
        with pytest.raises(IndexRangeError):
            t.gather(1, Tensor(index))
        with pytest.raises(IndexRangeError):
            t.scatter(1, Tensor(index), 1.0)
    with pytest.raises(ShapeError):
        t.gather(1, Tensor([0]))
    with pytest.raises(ConfigError):
        t.scatter(1, Tensor([[0]]), 1.0, reduce="xor")
    assert t.scatter(dim=1, index=Tensor([[0], [1], [3]]), src=9.0).numpy()[
        [0, 1, 2], [0, 1, 3]
    ].tolist() == [9, 9, 9]
    assert t.scatter(1, Tensor([[0, 0]]), 1.0, reduce="add").numpy()[0, 0] == X[0, 0] + 2


def test_batch_norm_normalises_by_the_batch_in_training_and_by_the_running_numbers_after() -> None:
    x = Tensor(np.random.default_rng(1).standard_normal((8, 3, 5)) * 2 + 1)
    mean, var = Tensor(np.zeros(3)), Tensor(np.ones(3))
    y = F.batch_norm(x, mean, var, training=True)
    np.testing.assert_allclose(y.mean(axis=(0, 2)).numpy(), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 2), correction=0).numpy(), 1, atol=1e-4)
    np.testing.assert_allclose(mean.numpy(), 0.1 * x.numpy().mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(var.numpy(), 0.9 + 0.1 * x.numpy().var((0, 2), ddof=1), rtol=1e-12)
    z = F.batch_norm(x, mean, var, weight=Tensor(np.full(3, 2.0)), bias=Tensor(np.ones(3)))
    wanted = (x.numpy() - mean.numpy()[:, None]) / np.sqrt(var.numpy() + 1e-5)[:, None] * 2 + 1
    np.testing.assert_allclose(z.numpy(), wanted, rtol=1e-12)
    with pytest.raises(ConfigError):
        F.batch_norm(x)


def test_repr_shows_values_dtype_and_the_op_that_made_it() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert (
        repr(x) == "Tensor([1., 2.], requires_grad=True)"
        and repr(x * 2) == "Tensor([2., 4.], grad_fn=<mul>)"
    )
    assert (
        repr(Tensor([1])) == "Tensor([1])"
        and repr(Tensor([1.0], dtype="bfloat16")) == "Tensor([1.], dtype=bfloat16)"
    )
    assert (
        x.grad_fn is None
        and repr((x * 2).grad_fn).startswith("<mul at ")
        and "test_tensor_surface.py" in repr((x * 2).grad_fn)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int64", "bool"])
def test_pickle_and_deepcopy_keep_values_dtype_gradient_and_share_nothing(dtype: str) -> None:
    t = Tensor([1.0, 0.0], dtype=dtype)
    if t.is_floating_point():
        t.requires_grad_()
        (t * t).sum().backward()
    for twin in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t), copy.copy(t)):
        assert (
            twin.dtype == t.dtype
            and twin.tolist() == t.tolist()
            and twin.requires_grad == t.requires_grad
        )
        assert (twin.grad is None) == (t.grad is None) and (
            t.grad is None or twin.grad.tolist() == t.grad.tolist()
        )
        assert not np.shares_memory(twin.data, t.data)
    pair = copy.deepcopy([t, t])
    assert pair[0] is pair[1]


def test_methods_are_functions_too_on_tensors_arrays_and_lists() -> None:
    t = Tensor(X, requires_grad=True)
    for name in (
        "exp",
        "sum",
        "softmax",
        "tril",
        "zeros_like",
        "abs",
        "tanh",
        "cumsum",
        "argsort",
        "isnan",
        "logsumexp",
        "max",
    ):
        ours, method = getattr(minigrad, name)(t), getattr(t, name)()
        assert np.array_equal(ours.numpy(), method.numpy()) and np.array_equal(
            getattr(minigrad, name)(X).numpy(), method.numpy()
        )
    assert minigrad.sum([1.0, 2.0], dim=0).item() == 3 and minigrad.maximum(t, 0).shape == (3, 4)
    assert minigrad.topk(t, 2, dim=1)[0].shape == (3, 2) and [
        p.shape for p in minigrad.split(t, 2)
    ] == [(2, 4), (1, 4)]
    minigrad.sum(minigrad.exp(t)).backward()
    assert t.grad is not None and np.array_equal(t.grad.numpy(), np.exp(X))
    assert minigrad.from_dlpack(np.ones(2)).tolist() == [1, 1]
    with pytest.raises(AttributeError, match="no_such_name"):
        minigrad.no_such_name  # noqa: B018


def test_small_dtypes_testing_and_the_names_on_tensor_are_there() -> None:
    assert [
        minigrad.zeros(1, dtype=d).dtype.name
        for d in (minigrad.bool, minigrad.uint8, minigrad.int8, minigrad.int16)
    ] == ["bool", "uint8", "int8", "int16"]
    assert minigrad.testing.gradcheck(
        lambda x: x.exp(), [Tensor([1.0], dtype="float64", requires_grad=True)]
    )
    q = Tensor(X).unsqueeze(0)
    wanted = F.scaled_dot_product_attention(q, q, q, is_causal=True).numpy()
    assert np.array_equal(q.scaled_dot_product_attention(q, q, is_causal=True).numpy(), wanted)
    Tensor.manual_seed(5)
    first = Tensor.rand(3).tolist()
    minigrad.manual_seed(5)
    assert Tensor.rand(3).tolist() == first
