"""What a checkpoint draws again, and what several threads may do with one tensor."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Generator, Tensor
from minigrad.func import checkpoint
from minigrad.nn import Linear
from minigrad.ops import parallel
from minigrad.ops.contract import product

own = Generator(7)
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rand": lambda x: x * Tensor.rand(5),
    "randn_like": lambda x: x.sin() * x.randn_like(),
    "normal beside dropout": lambda x: F.dropout(x * Tensor.normal(5), 0.5) * Tensor.uniform(5),
    "a generator of its own": lambda x: (
        x * Tensor.rand(5, generator=own) + F.dropout(x, 0.3, generator=own)
    ),
    "two generators": lambda x: x * Tensor.rand(5, generator=own) * Tensor.randint(9, (5,)).float(),
    "numbers that are no op's": lambda x: x * Tensor(own.uniform((5,))),
    "multinomial": lambda x: x * (Tensor.ones(5).multinomial(5, True) + 1).float(),
    "a checkpoint inside": lambda x: checkpoint(lambda t: t * Tensor.rand(5), x) * Tensor.rand(5),
}


def test_whatever_can_be_called_can_be_checkpointed() -> None:
    layer = Linear(5, 3)
    for f in (layer, functools.partial(layer.forward)):
        grads = []
        for wrap in (checkpoint, lambda f, x: f(x)):
            x = Tensor(np.linspace(1, 2, 5, dtype=np.float32), requires_grad=True)
            layer.zero_grad()
            wrap(f, x).sum().backward()
            grads.append((x.grad.tolist(), layer.weight.grad.tolist()))
        assert grads[0] == grads[1]
    assert repr(checkpoint(layer, x).grad_fn).startswith("<checkpoint(Linear) at ")


@pytest.mark.parametrize("name", DRAWS)
def test_a_checkpoint_draws_the_same_numbers_again_whatever_draws_them(name: str) -> None:
    def run(wrap: Callable[..., Tensor]) -> list[np.ndarray]:
        minigrad.manual_seed(3)
        own.manual_seed(11)
        x = Tensor(np.linspace(1, 2, 5), requires_grad=True)
        y = wrap(DRAWS[name], x)
        between = Tensor.rand(3)
        y.sum().backward()
        return [
            y.numpy(),
            x.grad.numpy(),
            between.numpy(),
            Tensor.rand(2).numpy(),
            np.array(own.get_state()),
        ]

    for plain, again in zip(run(lambda f, x: f(x)), run(checkpoint), strict=True):
        assert np.array_equal(plain, again)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run work(0), work(1), ... at once; the first exception comes out."""
    wrong: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def test_backward_in_four_threads_adds_every_gradient_to_a_leaf_that_they_share() -> None:
    w = Tensor(np.ones(3), requires_grad=True)

    def work(_i: int) -> None:
        for _ in range(300):
            (w * 1.0).sum().backward()

    in_threads(4, work)
    assert w.grad.tolist() == [1200.0] * 3


def test_threads_may_checkpoint_on_one_computed_tensor_that_they_share() -> None:
    x = Tensor(np.linspace(1, 2, 4), requires_grad=True)
    h = x * x
    found: list[np.ndarray | None] = [None] * 4

    def work(i: int) -> None:
        for _ in range(60):
            y = checkpoint(lambda t: t * h * float(i + 1), h)
            (g,) = minigrad.grad(y.sum(), h, retain_graph=True)
            found[i] = g.numpy()

    in_threads(4, work)
    for i, g in enumerate(found):
        assert np.array_equal(g, 2 * h.numpy() * (i + 1))


def test_a_checkpoint_leaves_the_tensors_that_it_was_given_alone_while_it_recomputes() -> None:
    x = Tensor(np.ones(2), requires_grad=True)
    h, leaves = x * x, []

    def f(t: Tensor) -> Tensor:
        leaves.append(h.is_leaf)  # what another thread would see
        return t * h

    checkpoint(f, h).sum().backward()
    assert leaves == [False, False] and x.grad.tolist() == [4.0, 4.0]


class Watching:
    """A number that notes, when it is multiplied, how many threads BLAS may use."""

    seen: ClassVar[set[int]] = set()
    blas: Any = None

    def __mul__(self, other: object) -> int:
        self.seen.add(self.blas.get_threads())
        return 0


@pytest.mark.parametrize("columns", [300, 600, 3000])
def test_a_small_product_keeps_blas_to_one_thread_and_gives_the_others_back(columns: int) -> None:
    Watching.blas, Watching.seen = parallel.find_blas(), set()
    if Watching.blas is None or not Watching.blas.get_threads or Watching.blas.get_threads() == 1:
        pytest.skip("numpy's BLAS has one thread, or is not OpenBLAS")
    before = Watching.blas.get_threads()
    product(np.array([[Watching()] + [0] * 749], object), np.zeros((750, columns), object))
    assert Watching.seen == {before if columns != 600 else 1}
    with pytest.raises(ValueError, match="mismatch"):
        product(np.ones((128, 128)), np.ones((127, 128)))
    assert Watching.blas.get_threads() == before and not parallel._state.holders


def test_pytorch_s_options_of_a_checkpoint_are_accepted_and_others_reach_the_function() -> None:
    x, w = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 5.0], requires_grad=True)

    def scaled(x: Tensor, *, weight: Tensor, power: int = 1) -> Tensor:
        return x * weight**power

    options: Any = {"use_reentrant": False, "preserve_rng_state": True}
    checkpoint(scaled, x, weight=w, power=2, **options).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [9.0, 25.0]
    assert w.grad is not None and w.grad.tolist() == [6.0, 20.0]
    assert checkpoint(scaled, x, weight=w, use_reentrant=True).tolist() == [3.0, 10.0]
