"""rearrange against einops, over random patterns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad import Tensor
from minigrad.errors import ShapeError

einops = pytest.importorskip("einops")


def grouped(draw: Any, names: list[str], *, dots_inside: bool) -> list[list[str]]:
    """The names cut into groups, with axes of size 1 ("1" or "()") put between them."""
    groups: list[list[str]] = []
    for name in names:
        mergeable = groups and (dots_inside or "..." not in [*groups[-1], name])
        if mergeable and draw(st.booleans()):
            groups[-1].append(name)
        else:
            groups.append([name])
    for _ in range(draw(st.integers(0, 2))):
        groups.insert(draw(st.integers(0, len(groups))), [])
    return groups


def written(draw: Any, groups: list[list[str]]) -> str:
    words = []
    for group in groups:
        if not group:
            words.append(draw(st.sampled_from(["1", "()"])))
        elif len(group) == 1 and draw(st.booleans() if group[0] != "..." else st.just(True)):
            words.append(group[0])
        else:
            words.append(f"({' '.join(group)})")
    return " ".join(words)


@st.composite
def calls(draw: Any) -> tuple[tuple[int, ...], str, dict[str, int]]:
    """A shape, a pattern that fits it, and the sizes to name."""
    names = list("abcdef"[: draw(st.integers(0, 5))])
    size = {name: draw(st.integers(1, 4)) for name in names}
    hidden = tuple(draw(st.lists(st.integers(1, 3), max_size=3))) if draw(st.booleans()) else None
    if hidden is not None:
        names.insert(draw(st.integers(0, len(names))), "...")
    left = grouped(draw, names, dots_inside=False)
    right_names = draw(st.permutations(names))
    right = grouped(draw, list(right_names), dots_inside=True)
    shape: list[int] = []
    for group in left:
        shape += (
            hidden
            if group == ["..."] and hidden is not None
            else [math.prod(size[n] for n in group)]
        )
    sizes = {n: size[n] for group in left if len(group) > 1 for n in group[1:]}
    right_text = written(draw, right)
    if "..." in right_text and draw(st.booleans()):
        right_text = right_text.replace("...", "(...)") if "(" not in right_text else right_text
    return tuple(shape), f"{written(draw, left)} -> {right_text}", sizes


@settings(max_examples=400, deadline=None)
@given(calls())
def test_rearrange_agrees_with_einops(call: Any) -> None:
    shape, pattern, sizes = call
    x = np.arange(math.prod(shape)).reshape(shape)
    expected = einops.rearrange(x, pattern, **sizes)
    np.testing.assert_array_equal(Tensor(x).rearrange(pattern, **sizes).numpy(), expected)


def test_dots_in_parentheses_join_the_axes_they_stand_for() -> None:
    x = Tensor(np.arange(120).reshape(2, 3, 4, 5))
    assert x.rearrange("a b ... -> b (...) a").shape == (3, 20, 2)
    assert x.rearrange("... -> (...)").shape == (120,)
    assert x.rearrange("a ... b -> (a ... b)").shape == (120,)


@pytest.mark.parametrize(
    "pattern",
    [
        "a (b c d -> a b c d",
        "((a) b) c d -> a b c d",
        "(...) b -> b",
        "(a ...) b -> a b",
        "... ... -> ...",
        "a ... -> a",
        "a b c d -> a b c ...",
        "a b c d e -> a b c d e",
        "a 2 c d -> a 2 c d",
        "a b c 1 -> a b c",
        "a b c (d e) -> a b c d e",
        "a a c d -> a c d",
    ],
)
def test_patterns_that_einops_refuses_are_refused(pattern: str) -> None:
    x = np.zeros((2, 3, 4, 5))
    with pytest.raises(einops.EinopsError):
        einops.rearrange(x, pattern)
    with pytest.raises(ShapeError) as refusal:
        Tensor(x).rearrange(pattern)
    assert pattern in str(refusal.value)


def test_axes_may_have_the_names_of_arguments() -> None:
    x = Tensor(np.arange(6))
    assert x.rearrange("(x pattern self) -> x pattern self", x=2, pattern=3).shape == (2, 3, 1)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ShapeError):
        Tensor(np.zeros((2, 6))).rearrange("a (b c) -> a b c", b=-1)
