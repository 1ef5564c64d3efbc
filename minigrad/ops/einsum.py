"""einsum: sums of products written with one letter per axis, done by matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.arrange import diagonal
from minigrad.ops.composite import composite
from minigrad.ops.contract import matmul
from minigrad.ops.movement import expand, permute, reshape
from minigrad.ops.reduce import sum as sum_

_WAY_OUT = 'one group of letters per operand, as in "bij,bjk->bik"'


@composite(widen=True)
def einsum(formula: str, *operands: Any) -> Any:
    """The sum of products over the letters that the result lacks: einsum("bij,bjk->bik", a, b) is a
    batched matrix product.

    A letter that one operand has twice takes its diagonal; "..." stands for further axes, which
    broadcast; without "->" the result has the letters that occur once, sorted, as in numpy.
    Operands are contracted from left to right. Raises ShapeError.
    """
    written, result = _parsed(formula, operands)
    singles = [
        _without_doubles(term, x, formula) for term, x in zip(written, operands, strict=True)
    ]
    terms, xs = [term for term, _ in singles], [x for _, x in singles]
    _check_sizes(formula, terms, xs)
    term, x = _summed_alone(terms[0], xs[0], set("".join(terms[1:]) + result))
    for i in range(1, len(xs)):
        later = set("".join(terms[i + 1 :]) + result)
        right, y = _summed_alone(terms[i], xs[i], later | set(term))
        term, x = _pair(term, x, right, y, later)
    return permute(x, order=tuple(term.index(letter) for letter in result)) if term != result else x


def _parsed(formula: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    """One string of letters per operand, and the result's. Axes under "..." get letters of their
    own, counted from the right.
    """
    if not isinstance(formula, str):
        raise DTypeError(
            "einsum",
            f"the formula is a {type(formula).__name__}",
            got=type(formula),
            wanted="str",
            hint='einsum("ij,jk->ik", a, b)',
        )
    left, arrow, right = formula.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ShapeError(
            "einsum",
            f'"{formula}" is for {len(terms)} operands, not {len(operands)}',
            got=len(operands),
            wanted=len(terms),
        )
    found, most = [], 0
    for term, x in zip(terms, operands, strict=True):
        hidden = x.ndim - len(term.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in term):
            raise ShapeError(
                "einsum",
                f'"{term}" in "{formula}" does not name the axes of {x.shape}',
                got=x.shape,
                wanted=term,
                hint=_WAY_OUT,
            )
        most = max(most, hidden if "..." in term else 0)
        found.append(term.replace("...", _dots(hidden)))
    if not arrow:
        letters = "".join(found)
        right = _dots(most) + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1 and ord(c) < 256)
        )
    result = right.replace("...", _dots(most))
    if (
        any(not c.isalpha() for c in "".join(found) + result)
        or len(set(result)) < len(result)
        or set(result) - set("".join(found))
    ):
        raise ShapeError(
            "einsum", f'"{formula}" cannot be read', got=formula, wanted=_WAY_OUT, hint=_WAY_OUT
        )
    return found, result


def _dots(count: int) -> str:
    """Letters for `count` unnamed axes, the last axis always the same one; from the Greek, which no
    formula uses.
    """
    return "".join(chr(0x3B1 + i) for i in reversed(range(count)))


def _without_doubles(term: str, x: Any, formula: str) -> tuple[str, Any]:
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            if x.shape[i] != x.shape[j]:
                raise ShapeError(
                    "einsum",
                    f'"{letter}" in "{formula}" is {x.shape[i]} and {x.shape[j]}',
                    got=x.shape,
                    wanted="equal sizes",
                )
            x = diagonal(x, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    return term, x


def _check_sizes(formula: str, terms: Sequence[str], xs: Sequence[Any]) -> None:
    sizes: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for letter, n in zip(term, x.shape, strict=True):
            known = sizes.setdefault(letter, n)
            if known == 1 and n != 1:
                sizes[letter] = n
            elif n not in (1, known):
                raise ShapeError(
                    "einsum",
                    f'"{letter}" in "{formula}" is {known} and {n}',
                    got=(known, n),
                    wanted="equal sizes",
                )


def _summed_alone(term: str, x: Any, others: set[str]) -> tuple[str, Any]:
    """x summed over the letters that nobody else has."""
    gone = tuple(i for i, letter in enumerate(term) if letter not in others)
    return "".join(c for c in term if c in others), sum_(x, axis=gone) if gone else x


def _pair(left: str, a: Any, right: str, b: Any, later: set[str]) -> tuple[str, Any]:
    """Two operands made one: letters of both that are needed later are a batch, the others of both
    are summed by the product.
    """
    both = [c for c in left if c in right]
    sizes = {c: max(a.shape[left.index(c)], b.shape[right.index(c)]) for c in both}
    a, b = _grown(left, a, sizes), _grown(right, b, sizes)
    batch = [c for c in both if c in later]
    inner = [c for c in both if c not in later]
    rows, columns = [c for c in left if c not in both], [c for c in right if c not in both]
    x = _as_matrices(left, a, batch, rows, inner)
    y = _as_matrices(right, b, batch, inner, columns)
    sizes = dict(zip(left + right, a.shape + b.shape, strict=True))
    letters = "".join((*batch, *rows, *columns))
    return letters, reshape(matmul(x, y), shape=tuple(sizes[c] for c in letters))


def _grown(term: str, x: Any, sizes: dict[str, int]) -> Any:
    shape = tuple(sizes.get(c, n) for c, n in zip(term, x.shape, strict=True))
    return x if shape == x.shape else expand(x, shape=shape)


def _as_matrices(term: str, x: Any, batch: list[str], first: list[str], second: list[str]) -> Any:
    """x as (batch, first, second), each group of letters one axis."""
    x = permute(x, order=tuple(term.index(c) for c in (*batch, *first, *second)))
    sizes = dict(zip((*batch, *first, *second), x.shape, strict=True))
    shape = tuple(int(np.prod([sizes[c] for c in group])) for group in (batch, first, second))
    return reshape(x, shape=shape)
