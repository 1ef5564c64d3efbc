"""The names that people type, in both spellings, and what they give."""

import copy
import pickle

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F
from minigrad.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

X = np.random.default_rng(0).standard_normal((3, 4))
NAMES = """
zeros ones full empty arange linspace eye zeros_like ones_like full_like empty_like rand_like randn_like rand randn randint uniform normal
kaiming_uniform kaiming_normal glorot_uniform scaled_uniform multinomial one_hot tril triu
reshape view permute transpose T expand flip squeeze unsqueeze pad shrink cat stack split chunk repeat repeat_interleave roll flatten unflatten
unfold diagonal meshgrid
neg add sub mul div pow mod floor_divide maximum minimum eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or
bitwise_xor bitwise_not exp exp2 log log2 log10 log1p expm1 sqrt rsqrt square reciprocal sin cos tan asin acos atan sinh cosh tanh erf sigmoid
logsigmoid softplus softsign relu relu6 leaky_relu elu selu celu gelu quick_gelu silu mish hardtanh hardswish hardsigmoid abs sign floor ceil
trunc round clamp lerp where isnan isinf isfinite logaddexp
sum mean max min prod var std var_mean std_mean any all argmax argmin logsumexp cumsum cumprod cummax logcumsumexp
matmul dot einsum linear gather scatter scatter_reduce masked_fill masked_select nonzero sort argsort topk
softmax log_softmax layernorm rms_norm cross_entropy nll_loss binary_crossentropy binary_crossentropy_logits sparse_categorical_crossentropy mse
dropout sequential conv1d conv2d max_pool2d avg_pool2d batchnorm rearrange scaled_dot_product_attention manual_seed
cast float half bfloat16 double int long bool numpy item tolist detach clone contiguous requires_grad_ assign backward gradient
"""


def test_tensor_has_every_name_of_the_public_surface() -> None:
    assert [name for name in NAMES.split() if not hasattr(Tensor, name)] == []


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
    (Tensor.full((2,), 7), np.full(2, 7, "f")),
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
]


@pytest.mark.parametrize(("made", "wanted"), CREATED)
def test_created_tensors_have_these_values_and_dtypes(made: Tensor, wanted: np.ndarray) -> None:
    assert (
        made.dtype == wanted.dtype
        and made.shape == wanted.shape
        and made.tolist() == wanted.tolist()
    )


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
