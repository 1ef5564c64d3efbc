"""Tensors with other libraries: numpy's functions, DLPack, einops; several threads at once."""

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import Tensor
from minigrad.errors import DTypeError, GradientError, ShapeError
from minigrad.interop import use_einops

X = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4))
UFUNCS = """add subtract multiply divide power maximum minimum exp log sqrt sin arctan tanh
negative absolute floor rint isnan equal less logical_and matmul"""
FUNCTIONS: list[Callable[[Any], Any]] = [
    np.sum,
    np.mean,
    np.max,
    np.min,
    np.prod,
    np.argmax,
    np.transpose,
    np.cumsum,
    np.std,
    np.var,
    np.sort,
    lambda x: np.sum(x, axis=1, keepdims=True),
    lambda x: np.var(x, axis=0, ddof=1),
    lambda x: np.reshape(x, (2, 6)),
    lambda x: np.concatenate([x, x], axis=1),
    lambda x: np.stack([x, x]),
    lambda x: np.where(x > 0.5, x, 0),
    lambda x: np.clip(x, 0.2, 0.6),
    lambda x: np.expand_dims(x, 1),
    lambda x: np.squeeze(x[:1]),
    lambda x: np.swapaxes(x, 0, 1),
    lambda x: np.einsum("ij->ji", x),
    lambda x: np.cumsum(x, axis=1),
    lambda x: np.roll(x, 1, 0),
    lambda x: np.flip(x, 0),
    lambda x: np.tril(x),
    lambda x: np.diagonal(x),
    lambda x: np.broadcast_to(x, (2, 3, 4)),
    lambda x: np.dot(x, x.T),
    lambda x: np.transpose(x, (1, 0)),
]


@pytest.mark.parametrize("name", UFUNCS.split())
def test_numpy_s_ufuncs_give_tensors_with_gradients(name: str) -> None:
    ufunc = getattr(np, name)
    operands = [X, X.T if name == "matmul" else X[::-1].copy()][: ufunc.nin]
    tensors = [Tensor(x, requires_grad=True) for x in operands]
    y, wanted = ufunc(*tensors), ufunc(*operands)
    assert (
        isinstance(y, Tensor)
        and y.requires_grad == (wanted.dtype.kind == "f")
        and np.array_equal(y.numpy(), wanted)
    )
    if ufunc.nin == 2:
        assert np.array_equal(ufunc(operands[0], tensors[1]).numpy(), wanted) and np.array_equal(
            ufunc(tensors[0], operands[1]).numpy(), wanted
        )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numpy_s_functions_give_tensors_with_gradients(function: Callable[[Any], Any]) -> None:
    x = Tensor(X, requires_grad=True)
    y, wanted = function(x), np.asarray(function(X))
    assert (
        isinstance(y, Tensor)
        and y.shape == wanted.shape
        and y.requires_grad == (wanted.dtype.kind == "f")
    )
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-14)


def test_numpy_functions_that_minigrad_lacks_work_on_the_arrays_where_no_gradient_is_lost() -> None:
    t = Tensor(X)
    assert (
        np.linalg.norm(t) == np.linalg.norm(X)
        and np.median(t) == np.median(X)
        and np.add.reduce(t).tolist() == X.sum(0).tolist()
    )
    total = np.zeros((3, 4))
    total += t
    assert np.array_equal(total, X) and type(total) is np.ndarray
    t.requires_grad_()
    assert (
        np.allclose(t, X)
        and np.shape(t) == (3, 4)
        and np.array_equal(np.asarray(t), X)
        and np.asarray(t, dtype="f").dtype == np.float32
    )
    for refused in (
        lambda: np.median(t),
        lambda: np.add.reduce(t),
        lambda: np.add(t, 1, out=total),
        lambda: np.kron(t, t),
    ):
        with pytest.raises(GradientError, match="detach"):
            refused()
    assert np.sum(t, dtype=np.float32).dtype == np.float32
    with pytest.raises(DTypeError, match="detach"):
        np.sum(t, initial=1.0)


def test_an_array_on_the_left_of_an_operator_gives_a_tensor() -> None:
    t = Tensor(X, requires_grad=True)
    for y in (X + t, X * t, X @ t.T, X / t, X - t, X**t, np.float64(2) * t):
        assert isinstance(y, Tensor)
    assert (np.float64(2) * Tensor([1.0])).dtype == np.float32


def test_dlpack_shares_memory_both_ways() -> None:
    t = Tensor([1.0, 2.0])
    array = np.from_dlpack(t)
    assert np.shares_memory(array, t.data)
    source = np.zeros(3)
    back = Tensor.from_dlpack(source)
    source[0] = 5
    assert (
        back.tolist() == [5, 0, 0] and Tensor.from_dlpack(t).data.ctypes.data == t.data.ctypes.data
    )
    with pytest.raises(GradientError, match="detach"):
        np.from_dlpack(Tensor([1.0], requires_grad=True))
    with pytest.raises(DTypeError, match="float"):
        Tensor([1.0], dtype="bfloat16").__dlpack__()
    with pytest.raises(DTypeError):
        Tensor.from_dlpack([1.0])


def test_dlpack_shares_memory_with_torch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.arange(4.0)
    ours = Tensor.from_dlpack(theirs)
    theirs[0] = 7
    ours[1] = 8.0
    assert ours.tolist() == theirs.tolist() == [7, 8, 2, 3]
    assert torch.from_dlpack(ours).data_ptr() == theirs.data_ptr()


def test_einops_works_on_tensors_with_gradients() -> None:
    einops = pytest.importorskip("einops")
    use_einops()
    use_einops()
    gc.collect()  # which must not take what einops was given
    x = Tensor(X, requires_grad=True)
    for call in (
        lambda e: einops.rearrange(e, "a (b c) -> b (c a)", b=2),
        lambda e: einops.reduce(e, "a b -> a", "mean"),
        lambda e: einops.reduce(e, "a (b c) -> b", "max", c=2),
        lambda e: einops.repeat(e, "a b -> a k b", k=3),
        lambda e: einops.einsum(e, e, "a b, c b -> a c"),
        lambda e: einops.rearrange([e, e], "n a b -> a (n b)"),
        lambda e: einops.pack([e, e], "* b")[0],
    ):
        y = call(x)
        assert isinstance(y, Tensor) and y.requires_grad
        np.testing.assert_allclose(y.numpy(), call(X), rtol=1e-14)
    einops.reduce(x, "a b -> a", "mean").sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 0.25, rtol=1e-15)


@pytest.mark.parametrize(
    "pattern",
    [
        "b t (h d) -> b h t d",
        "b ... d -> (b d) ...",
        "b t d -> d 1 b t",
        "b t d -> (b t d)",
        "b 1 d -> b d",
    ],
)
def test_rearrange_is_what_einops_says(pattern: str) -> None:
    einops = pytest.importorskip("einops")
    x = np.arange(24).reshape((4, 1, 6) if " 1 d ->" in pattern else (2, 2, 6))
    sizes = {"h": 3} if "h" in pattern else {}
    assert np.array_equal(
        Tensor(x).rearrange(pattern, **sizes).numpy(), einops.rearrange(x, pattern, **sizes)
    )


def test_threads_do_not_see_one_another_s_modes_or_graphs() -> None:
    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for step in range(20):
            x, w = (
                Tensor(rng.standard_normal((4, 5)), requires_grad=True),
                Tensor(rng.standard_normal((5, 3)), requires_grad=True),
            )
            with minigrad.set_grad_enabled((seed + step) % 2 == 0):
                y = (x @ w).tanh().sum()
            if y.requires_grad != ((seed + step) % 2 == 0):
                return False
            if y.requires_grad:
                y.backward()
                slope = 1 - np.tanh(x.numpy() @ w.numpy()) ** 2
                if not np.allclose(w.grad.numpy(), x.numpy().T @ slope, rtol=1e-12):
                    return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))
    assert minigrad.is_grad_enabled()


def test_threads_may_run_backward_through_shared_parameters_each_in_a_graph_of_its_own() -> None:
    w = Tensor(np.ones((50, 50)), requires_grad=True)
    barrier = threading.Barrier(4)

    def work(k: int) -> Any:
        barrier.wait()
        return minigrad.grad((w * k).sum() + (w @ w).sum() * 0, w)[0].numpy()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert [np.unique(g).tolist() for g in found] == [[0], [1], [2], [3]] and w.grad is None


def test_indexing_and_interop_leave_no_reference_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        x = Tensor(X, requires_grad=True)
        t = x * 1
        t[0] = x[1] * 2
        np.sum(np.sin(t)[[0, 1]]).backward()
        del t
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_dlpack_copies_what_runs_backwards_in_memory() -> None:
    t = Tensor([[1.0, 2.0], [3.0, 4.0]])
    for source in (t.flip(0), t.flip(1)[0], t.flip((0, 1))):
        array = np.from_dlpack(source)
        assert (
            min(array.strides) > 0
            and np.array_equal(array, source.numpy())
            and not np.shares_memory(array, t.data)
        )
    with pytest.raises(BufferError, match="backwards"):
        t.flip(0).__dlpack__(copy=False)


C, D = (
    np.random.default_rng(1).normal(size=(2, 3, 4)),
    np.random.default_rng(2).normal(size=(5, 4, 6)),
)
AS_NUMPY: list[Callable[[Any, Any], Any]] = [
    lambda c, d: np.argsort(c, -1, "stable"),
    lambda c, d: np.argsort(c, axis=None),
    lambda c, d: np.sort(c, axis=None),
    lambda c, d: np.sort(c, 0, "heapsort"),
    lambda c, d: np.dot(c, d),
    lambda c, d: np.dot(c, d[0]),
    lambda c, d: np.dot(c, d[0, :, 0]),
    lambda c, d: np.dot(c[0, 0], d),
    lambda c, d: np.dot(c, 2.0),
    lambda c, d: np.sum(c, 0, None, None, True),
    lambda c, d: np.max(c, 1, None, True),
    lambda c, d: np.var(c, 0, None, None, 1, True),
    lambda c, d: np.concatenate([c, c[:1]], axis=None),
    lambda c, d: np.squeeze(c[:1], 0),
    lambda c, d: np.any(c > 0, 1),
    lambda c, d: np.argmax(c, 1),
]


@pytest.mark.parametrize("function", AS_NUMPY)
def test_numpy_s_functions_mean_on_tensors_what_they_mean_on_arrays(
    function: Callable[[Any, Any], Any],
) -> None:
    got, wanted = function(Tensor(C), Tensor(D)), np.asarray(function(C, D))
    assert isinstance(got, Tensor) and got.shape == wanted.shape
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-13, atol=1e-14)


def test_numpy_s_options_that_tensors_lack_are_refused_and_never_taken_for_another() -> None:
    t = Tensor(C)
    for call in (
        lambda: np.sum(t, 0, None, np.zeros((3, 4))),
        lambda: np.var(t, 0, None, np.zeros((3, 4))),
        lambda: np.sort(t, 0, None, "field"),
        lambda: np.max(t, 0, np.zeros((3, 4))),
        lambda: np.median(t, out=t),
        lambda: np.sinc(t, out=t),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ShapeError, match="squeeze"):
        np.squeeze(t, 0)


def test_out_writes_into_a_tensor_and_says_so_where_it_cannot() -> None:
    t, out = Tensor(C), Tensor(np.zeros(C.shape))
    assert (
        np.add(t, 1.0, out=out) is out
        and np.array_equal(out.numpy(), C + 1)
        and out._version[0] == 1
    )
    with pytest.raises(ShapeError):
        np.add(t, 1.0, out=Tensor(np.zeros(2)))
    with pytest.raises(DTypeError):
        np.add(t, 1.0, out=Tensor(np.zeros(C.shape, np.int64)))
    with pytest.raises(GradientError, match="out="):
        np.add(Tensor(C, requires_grad=True), 1.0, out=out)
    with pytest.raises(DTypeError, match="assign"):
        np.spacing(t, out=out)
