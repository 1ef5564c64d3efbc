"""Axes by name. einsum and tensordot: sums of products over them, computed by matrix products;
rearrange: reshape and permute written as a pattern, in the notation of einops (Rogozhnikov 2022,
ICLR).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

import numpy as np

from minigrad.arguments import fits
from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.axis import flat, one_axis
from minigrad.ops.composite import composite
from minigrad.ops.contract import matmul
from minigrad.ops.movement import expand, permute, reshape
from minigrad.ops.reduce import sum as sum_
from minigrad.ops.shape import diagonal

Groups = tuple[tuple[str, ...], ...]
_GROUP = re.compile(r"\s*(?:\(([\w\s]*)\)|(\w+))\s*")
_NAME = re.compile(r"[^\W\d]\w*|1")
_HINT = 'one group of letters per operand, as in "bij,bjk->bik"'


@composite(widen=True, numpy=np.einsum)
def einsum(formula: str, *operands: Any) -> Any:
    """Return the sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a,
    b) is a batched matrix product.

    A letter that one operand has twice takes its diagonal; "..." stands for further axes, which
    broadcast; without "->" the result has the letters that occur once, sorted, as in numpy.
    Operands are contracted from left to right. Raises ShapeError.
    """
    operands = flat(operands)
    written, result = _parsed(formula, operands)
    singles = [_diagonal(formula, *pair) for pair in zip(written, operands, strict=True)]
    terms, xs = [term for term, _ in singles], [x for _, x in singles]
    term, x = _summed_alone(terms[0], xs[0], set("".join(terms[1:]) + result))
    for i in range(1, len(xs)):
        later = set("".join(terms[i + 1 :]) + result)
        right, y = _summed_alone(terms[i], xs[i], later | set(term))
        term, x = _pair(formula, term, x, right, y, later)
    return permute(x, order=tuple(map(term.index, result))) if term != result else x


def _parsed(formula: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    """Return one string of letters per operand, and the result's. Axes under "..." get letters of
    their own, counted from the right.
    """
    if not isinstance(formula, str):
        problem = f"the formula is a {type(formula).__name__}, not a str"
        raise DTypeError("einsum", problem, got=type(formula))
    left, arrow, right = formula.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        _refuse(formula, f"is for {len(terms)} operands, got {len(operands)}", len(operands))
    found, most = [], 0
    for term, x in zip(terms, operands, strict=True):
        hidden = x.ndim - len(term.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in term):
            _refuse(formula, f'does not name the axes of {x.shape} in "{term}"', x.shape)
        most = max(most, hidden if "..." in term else 0)
        found.append(term.replace("...", _dots(hidden)))
    letters = "".join(found)
    if not arrow:
        once = (c for c in set(letters) if letters.count(c) == 1 and ord(c) < 256)
        right = "..." + "".join(sorted(once))
    result = right.replace("...", _dots(most))
    named = set(result)
    if (not (letters + result).isalpha() and letters + result) or len(named) < len(result):
        _refuse(formula, "cannot be read", formula)
    if named - set(letters):
        _refuse(formula, f"has {min(named - set(letters))} on the right only", formula)
    return found, result


def _dots(count: int) -> str:
    """Return letters for `count` unnamed axes, the last axis always the same one; Greek ones, which
    no formula uses.
    """
    return "".join(chr(0x3B1 + i) for i in reversed(range(count)))


def _refuse(formula: str, problem: str, got: Any) -> NoReturn:
    raise ShapeError("einsum", f'"{formula}" {problem}', got=got, wanted=_HINT, hint=_HINT)


def _diagonal(formula: str, term: str, x: Any) -> tuple[str, Any]:
    """Return term and operand with each letter once."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            if x.shape[i] != x.shape[j]:
                _refuse(formula, f'has "{letter}" of sizes {x.shape[i]} and {x.shape[j]}', x.shape)
            x = diagonal(x, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    return term, x


def _summed_alone(term: str, x: Any, others: set[str]) -> tuple[str, Any]:
    """Return x summed over the letters that no other operand and no result has."""
    gone = tuple(i for i, letter in enumerate(term) if letter not in others)
    return "".join(c for c in term if c in others), sum_(x, axis=gone) if gone else x


def _pair(formula: str, left: str, a: Any, right: str, b: Any, later: set[str]) -> tuple[str, Any]:
    """Return the product of two operands and its letters: letters of both that are needed later
    are a batch, the others of both are summed.
    """
    both = [c for c in left if c in right]
    batch, inner = [c for c in both if c in later], [c for c in both if c not in later]
    rows, columns = [c for c in left if c not in both], [c for c in right if c not in both]
    sizes = dict(zip(left + right, a.shape + b.shape, strict=True))
    for c in both:
        n, m = a.shape[left.index(c)], b.shape[right.index(c)]
        if n != m and 1 not in (n, m):
            _refuse(formula, f'has "{c}" of sizes {n} and {m}', (n, m))
        sizes[c] = m if n == 1 else n

    def as_matrices(term: str, x: Any, *groups: list[str]) -> Any:
        x = expand(x, shape=tuple(sizes[c] for c in term))
        x = permute(x, order=tuple(term.index(c) for group in groups for c in group))
        return reshape(x, shape=tuple(prod(sizes[c] for c in group) for group in groups))

    product = matmul(
        as_matrices(left, a, batch, rows, inner), as_matrices(right, b, batch, inner, columns)
    )
    letters = "".join((*batch, *rows, *columns))
    return letters, reshape(product, shape=tuple(sizes[c] for c in letters))


@composite(widen=True, numpy=np.tensordot)
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """Return the sum of products over pairs of axes: the last `dims` of a with the first of b, or,
    for dims=(axes of a, axes of b), those. The other axes of a come first, then those of b.
    """
    ours, theirs = dims if hasattr(dims, "__len__") else (range(a.ndim - dims, a.ndim), range(dims))
    left, right = ([chr(start + i) for i in range(x.ndim)] for start, x in ((256, a), (512, b)))
    for i, j in zip(_axes(ours, a.ndim), _axes(theirs, b.ndim), strict=True):
        problem = f"axis {i} of {a.shape} and axis {j} of {b.shape} differ"
        fits(a.shape[i] == b.shape[j], "tensordot", problem, (a.shape, b.shape))
        right[j] = left[i]
    later = set(left) ^ set(right)
    return _pair("", "".join(left), a, "".join(right), b, later)[1]


def _axes(axes: Any, ndim: int) -> list[int]:
    return [one_axis(a, ndim, "tensordot") for a in np.atleast_1d(axes)]


# --- rearrange


@composite
def rearrange(x: Any, pattern: str, /, **sizes: int) -> Any:
    """Return the axes of x, named on the left of "->", in the order and grouping of the right.

    rearrange(x, "b t (h d) -> b h t d", h=4) splits the last axis into heads and moves them
    forward. (a b) is one axis whose index runs through all pairs, b fastest; "..." stands for any
    number of axes, and "(...)" on the right joins them; 1 and () are axes of size 1.

    sizes: of the names that the shape of x does not determine. Raises ShapeError that quotes the
    pattern.
    """
    left, right = _sides(pattern, x.ndim)
    found = _sizes_of_names(left, x.shape, sizes, pattern)
    flat = [name for group in left for name in group]
    x = reshape(x, shape=tuple(found[name] for name in flat))
    x = permute(x, order=tuple(flat.index(name) for group in right for name in group))
    return reshape(x, shape=tuple(prod(found[name] for name in group) for group in right))


@lru_cache(256)
def _sides(pattern: str, ndim: int) -> tuple[Groups, Groups]:
    """Return both sides as groups of names: "b (h d)" is (("b",), ("h", "d")), 1 is ()."""
    left, arrow, right = pattern.partition("->")
    if not arrow:
        _reject(pattern, 'has no "->"', pattern)
    if "..." in left:
        hidden = ndim - len(_groups(left.replace("...", " "), pattern))
        if re.search(r"\([^)]*\.\.\.", left):
            _reject(pattern, 'has "..." inside parentheses on the left', pattern)
        # Should the caller use such a name too, it is refused below as one named twice.
        dots = " ".join(f"_{i}_" for i in range(hidden))
        left, right = left.replace("...", f" {dots} "), right.replace("...", f" {dots} ")
    sides = _groups(left, pattern), _groups(right, pattern)
    if len(sides[0]) != ndim:
        _reject(pattern, f"names {len(sides[0])} axes of a tensor that has {ndim}", ndim)
    names = [[name for group in side for name in group] for side in sides]
    for side in names:
        if len(set(side)) < len(side):
            _reject(pattern, "names an axis twice on one side", pattern)
    odd = sorted(set(names[0]) ^ set(names[1]))
    if odd:
        _reject(pattern, f"has {', '.join(odd)} on one side only", odd)
    return sides


def _groups(side: str, pattern: str) -> Groups:
    rest = _GROUP.sub("", side).strip()
    groups = [(match[2] or match[1]).split() for match in _GROUP.finditer(side)]
    wrong = [rest] if rest else [n for group in groups for n in group if not _NAME.fullmatch(n)]
    if wrong:
        _reject(pattern, f"cannot be read at {wrong[0]!r}", pattern)
    return tuple(tuple(name for name in group if name != "1") for group in groups)


def _sizes_of_names(
    left: Groups, shape: tuple[int, ...], given: dict[str, int], pattern: str
) -> dict[str, int]:
    """Return the size of each name: given, or derived from the axis that the name is part of."""
    found = dict(given)
    names = {name for group in left for name in group}
    if given.keys() - names:
        _reject(pattern, f"does not have {', '.join(sorted(given.keys() - names))}", sorted(given))
    if min(given.values(), default=0) < 0:
        _reject(pattern, f"got a negative size in {given}", given)
    for group, size in zip(left, shape, strict=True):
        unknown = [name for name in group if name not in found]
        known = prod(found[name] for name in group if name in found)
        if len(unknown) > 1:
            _reject(pattern, f"leaves the sizes of {', '.join(unknown)} open", unknown)
        if unknown and known and size % known == 0:
            found[unknown[0]] = size // known
        elif unknown or known != size:
            whole = f"({' '.join(group)}) with {given}"
            _reject(pattern, f"does not split the axis of size {size} into {whole}", size)
    return found


def _reject(pattern: str, problem: str, got: Any) -> NoReturn:
    wanted = 'as in "b t (h d) -> b h t d"'
    raise ShapeError("rearrange", f'"{pattern}" {problem}', got=got, wanted=wanted)
