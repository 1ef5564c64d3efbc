"""rearrange: reshape and permute written as a picture of the axes, in the notation of einops
(Rogozhnikov 2022, ICLR).
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

from minigrad.errors import ShapeError
from minigrad.ops.movement import permute, reshape

Groups = tuple[tuple[str, ...], ...]
_TOKEN = re.compile(r"\s*(\.\.\.|[A-Za-z_]\w*|1|[()])")


def rearrange(x: Any, pattern: str, **sizes: int) -> Any:
    """The axes of x, named on the left of "->", in the order and grouping of the right.

    rearrange(x, "b t (h d) -> b h t d", h=4) splits the last axis into heads and moves them
    forward. (a b) is one axis whose index runs through all pairs, b fastest; "..." stands for any
    axes; 1 for an axis of size 1. sizes: of the names that the shape of x does not tell. Raises
    ShapeError that names the pattern.
    """
    left, right = _parsed(pattern)
    names = [name for group in left for name in group]
    if "..." in names:
        hidden = x.ndim - len(left) + 1
        if hidden < 0:
            _refuse(pattern, f"names more axes than {x.shape} has", x.shape)
        dots = tuple(f"...{i}" for i in range(hidden))
        left, right = _spelled_out(left, dots), _spelled_out(right, dots)
    if len(left) != x.ndim:
        _refuse(pattern, f"names {len(left)} axes, {x.shape} has {x.ndim}", x.shape)
    found = _sizes(left, x.shape, sizes, pattern)
    flat = [name for group in left for name in group]
    x = reshape(x, shape=tuple(found[name] for name in flat))
    x = permute(x, order=tuple(flat.index(name) for group in right for name in group))
    return reshape(x, shape=tuple(prod(found[name] for name in group) for group in right))


@lru_cache(256)
def _parsed(pattern: str) -> tuple[Groups, Groups]:
    left, arrow, right = pattern.partition("->")
    if not arrow:
        _refuse(pattern, 'has no "->"', pattern)
    sides = _groups(left, pattern), _groups(right, pattern)
    names = [[name for group in side for name in group] for side in sides]
    for side in names:
        if len(set(side)) < len(side):
            _refuse(pattern, "names an axis twice on one side", pattern)
    odd = sorted(set(names[0]) ^ set(names[1]))
    if odd:
        _refuse(pattern, f"has {', '.join(odd)} on one side only", odd)
    return sides


def _groups(side: str, pattern: str) -> Groups:
    """ "b (h d) ..." as (("b",), ("h", "d"), ("...",)). An axis of size 1 is an empty group."""
    groups: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    at = 0
    side = side.rstrip()
    while at < len(side):
        token = _TOKEN.match(side, at)
        if token is None:
            _refuse(pattern, f"cannot be read at {side[at:].strip()!r}", side[at:])
        at, word = token.end(), token[1]
        if word == "(" and inside is None:
            inside = []
        elif word == ")" and inside is not None:
            groups.append(tuple(inside))
            inside = None
        elif word in "()":
            _refuse(pattern, "has brackets inside brackets, or one without its partner", pattern)
        elif inside is not None:
            inside += [word] if word != "1" else []
        else:
            groups.append((word,) if word != "1" else ())
    if inside is not None:
        _refuse(pattern, "has a bracket that does not close", pattern)
    return tuple(groups)


def _spelled_out(side: Groups, dots: tuple[str, ...]) -> Groups:
    """ "..." as names: axes of their own when it stands alone, part of one axis inside brackets (on
    the right).
    """
    groups: list[tuple[str, ...]] = []
    for group in side:
        if group == ("...",):
            groups += [(dot,) for dot in dots]
        else:
            groups.append(
                tuple(name for part in group for name in (dots if part == "..." else (part,)))
            )
    return tuple(groups)


def _sizes(
    left: Groups, shape: tuple[int, ...], given: dict[str, int], pattern: str
) -> dict[str, int]:
    """The size of each name: given, or what is left of the axis it stands in."""
    found = dict(given)
    names = {name for group in left for name in group}
    if given.keys() - names:
        _refuse(pattern, f"does not have {', '.join(sorted(given.keys() - names))}", sorted(given))
    for group, size in zip(left, shape, strict=True):
        unknown = [name for name in group if name not in found]
        known = prod(found[name] for name in group if name in found)
        if len(unknown) > 1:
            _refuse(pattern, f"leaves the sizes of {', '.join(unknown)} open", unknown)
        if unknown and known and size % known == 0:
            found[unknown[0]] = size // known
        elif unknown or known != size:
            _refuse(
                pattern,
                f"does not split the axis of size {size} into ({' '.join(group)}) with {given}",
                size,
            )
    return found


def _refuse(pattern: str, problem: str, got: Any) -> NoReturn:
    raise ShapeError(
        "rearrange", f'"{pattern}" {problem}', got=got, wanted='as in "b t (h d) -> b h t d"'
    )
