"""rearrange: reshape and permute written as a pattern of named axes, in the notation of einops
(Rogozhnikov 2022, ICLR).
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

from minigrad.errors import ShapeError
from minigrad.ops.composite import composite
from minigrad.ops.movement import permute, reshape

Groups = tuple[tuple[str, ...], ...]
_GROUP = re.compile(r"\s*(?:\(([\w\s]*)\)|(\w+))\s*")
_NAME = re.compile(r"[^\W\d]\w*|1")


@composite
def rearrange(x: Any, pattern: str, /, **sizes: int) -> Any:
    """Return the axes of x, named on the left of "->", in the order and grouping of the right.

    rearrange(x, "b t (h d) -> b h t d", h=4) splits the last axis into heads and moves them
    forward. (a b) is one axis whose index runs through all pairs, b fastest; "..." stands for any
    number of axes, and "(...)" on the right joins them; 1 and () are axes of size 1.

    sizes: of the names that the shape of x does not determine. Raises ShapeError that quotes the
    pattern.
    """
    left, right = _parsed(pattern, x.ndim)
    found = _sizes(left, x.shape, sizes, pattern)
    flat = [name for group in left for name in group]
    x = reshape(x, shape=tuple(found[name] for name in flat))
    x = permute(x, order=tuple(flat.index(name) for group in right for name in group))
    return reshape(x, shape=tuple(prod(found[name] for name in group) for group in right))


@lru_cache(256)
def _parsed(pattern: str, ndim: int) -> tuple[Groups, Groups]:
    """Return both sides as groups of names: "b (h d)" is (("b",), ("h", "d")), 1 is ()."""
    left, arrow, right = pattern.partition("->")
    if not arrow:
        _refuse(pattern, 'has no "->"', pattern)
    if "..." in left:
        hidden = ndim - len(_groups(left.replace("...", " "), pattern))
        if re.search(r"\([^)]*\.\.\.", left):
            _refuse(pattern, 'has "..." inside parentheses on the left', pattern)
        # Should the caller use such a name too, it is refused below as one named twice.
        dots = " ".join(f"_{i}_" for i in range(hidden))
        left, right = left.replace("...", f" {dots} "), right.replace("...", f" {dots} ")
    sides = _groups(left, pattern), _groups(right, pattern)
    if len(sides[0]) != ndim:
        _refuse(pattern, f"names {len(sides[0])} axes of a tensor that has {ndim}", ndim)
    names = [[name for group in side for name in group] for side in sides]
    for side in names:
        if len(set(side)) < len(side):
            _refuse(pattern, "names an axis twice on one side", pattern)
    odd = sorted(set(names[0]) ^ set(names[1]))
    if odd:
        _refuse(pattern, f"has {', '.join(odd)} on one side only", odd)
    return sides


def _groups(side: str, pattern: str) -> Groups:
    rest = _GROUP.sub("", side).strip()
    groups = [(match[2] or match[1]).split() for match in _GROUP.finditer(side)]
    wrong = [rest] if rest else [n for group in groups for n in group if not _NAME.fullmatch(n)]
    if wrong:
        _refuse(pattern, f"cannot be read at {wrong[0]!r}", pattern)
    return tuple(tuple(name for name in group if name != "1") for group in groups)


def _sizes(
    left: Groups, shape: tuple[int, ...], given: dict[str, int], pattern: str
) -> dict[str, int]:
    """Return the size of each name: given, or derived from the axis that the name is part of."""
    found = dict(given)
    names = {name for group in left for name in group}
    if given.keys() - names:
        _refuse(pattern, f"does not have {', '.join(sorted(given.keys() - names))}", sorted(given))
    if min(given.values(), default=0) < 0:
        _refuse(pattern, f"got a negative size in {given}", given)
    for group, size in zip(left, shape, strict=True):
        unknown = [name for name in group if name not in found]
        known = prod(found[name] for name in group if name in found)
        if len(unknown) > 1:
            _refuse(pattern, f"leaves the sizes of {', '.join(unknown)} open", unknown)
        if unknown and known and size % known == 0:
            found[unknown[0]] = size // known
        elif unknown or known != size:
            whole = f"({' '.join(group)}) with {given}"
            _refuse(pattern, f"does not split the axis of size {size} into {whole}", size)
    return found


def _refuse(pattern: str, problem: str, got: Any) -> NoReturn:
    wanted = 'as in "b t (h d) -> b h t d"'
    raise ShapeError("rearrange", f'"{pattern}" {problem}', got=got, wanted=wanted)
