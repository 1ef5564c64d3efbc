"""Every op against the 50-digit oracle: value, first and second derivative, both dtypes."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.primitive import Primitive
from tests.engine.cases import CASES, EXACT, Case, Exact
from tests.engine.table import judge
from tests.oracle import is_float


def rng_of(name: str) -> np.random.Generator:
    """A generator of a row's own, so that rows do not depend on their order."""
    return np.random.default_rng(zlib.crc32(name.encode()))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_gradient_and_second_derivative_are_exact(case: Case, dtype: Any) -> None:
    verdict = judge(case, dtype, rng_of(case.name), count=20)
    assert verdict.worst <= case.budget, f"{case.name}: {verdict}, in eps x scale"


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
def test_ops_without_a_gradient_are_right_to_the_bit(case: Exact) -> None:
    got = case.call(*(Tensor(x) for x in case.inputs))
    wanted = np.asarray(case.numpy(*case.inputs))
    assert got.dtype == wanted.dtype and got.shape == wanted.shape and not got.requires_grad
    assert got.numpy().tobytes() == wanted.tobytes()


def primitives() -> list[Primitive]:
    """Every primitive that minigrad.ops defines, in any of its files."""
    modules = [m for name, m in sys.modules.items() if name.startswith("minigrad.ops")]
    found = {id(p): p for m in modules for p in vars(m).values() if isinstance(p, Primitive)}
    return list(found.values())


@contextmanager
def counting(called: set[str]) -> Iterator[None]:
    """Inside, `called` collects the names of the primitives whose forward runs."""
    forwards = {p: p.forward for p in primitives()}

    def counted(p: Primitive) -> Any:
        def forward(*operands: Any, **params: Any) -> Any:
            called.add(p.name)
            return forwards[p](*operands, **params)

        return forward

    for p in forwards:
        p.forward = counted(p)
    try:
        yield
    finally:
        for p, forward in forwards.items():
            p.forward = forward


def test_every_primitive_is_judged_by_some_row() -> None:
    called: set[str] = set()
    with counting(called):
        for case in CASES:
            operands = [
                Tensor(x, requires_grad=True) if is_float(x) else x
                for x in case.inputs(rng_of(case.name), np.float64, 2, 0)
            ]
            y = case.call(*operands)
            if y.requires_grad:
                y.backward(Tensor(np.ones(y.shape)))
        for row in EXACT:
            row.call(*(Tensor(x) for x in row.inputs))
    assert {p.name for p in primitives() if p.kind not in ("random", "effect")} - called == set()


def test_row_names_are_unique() -> None:
    names = [row.name for row in (*CASES, *EXACT)]
    assert len(names) == len(set(names))
