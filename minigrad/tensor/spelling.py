"""Two habits, one meaning: `dim` is accepted for `axis`, `keepdims` for `keepdim`, and so on, in
one place. And what is no habit at all is told in minigrad's words, with the call that was made,
instead of Python's or numpy's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from minigrad.errors import ConfigError, DTypeError, IndexRangeError, MinigradError

R = TypeVar("R")
C = TypeVar("C")

# (what others write, what an argument is called here): for a function that has the second and not
# the first.
_SPELLINGS = (
    ("dim", "axis"),
    ("dims", "axis"),
    ("dimension", "axis"),
    ("dims", "order"),
    ("keepdims", "keepdim"),
    ("axis1", "dim1"),
    ("axis2", "dim2"),
    ("split_size", "sizes"),
    ("split_size_or_sections", "sizes"),
    ("chunks", "n"),
    ("end", "stop"),
    ("ddof", "correction"),
    ("unbiased", "correction"),
    ("value", "src"),
    ("size", "shape"),
    ("fill_value", "value"),
)
_RAW = (TypeError, ValueError, IndexError, AttributeError, OverflowError, ZeroDivisionError)
_VARIADIC = 0x04


def both_spellings(function: Callable[..., R]) -> Callable[..., R]:
    """Let `function` be called with PyTorch's or numpy's names of arguments, whichever it uses
    itself; sizes in a row also by their name.

    Python's and numpy's own errors come out as one of minigrad's, which names the call.
    """
    code = function.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[: count + bool(code.co_flags & _VARIADIC)]
    row = names[count] if len(names) > count else None  # reshape(2, 3) and reshape(shape=(2, 3))
    others = {theirs: ours for theirs, ours in _SPELLINGS if ours in names and theirs not in names}

    @functools.wraps(function)
    def _spelled(*args: Any, **kwargs: Any) -> R:
        try:
            if kwargs:
                for other in others.keys() & kwargs.keys():
                    if others[other] in kwargs:
                        raise ConfigError(
                            function.__name__,
                            f"{other} and {others[other]} are the same argument",
                            got=tuple(kwargs),
                            hint="give one of them",
                        )
                    value = kwargs.pop(other)
                    kwargs[others[other]] = int(value) if other == "unbiased" else value
                if row in kwargs:
                    args = (*args, kwargs.pop(row))
            return function(*args, **kwargs)
        except MinigradError:
            raise
        except _RAW as error:
            raise _told(function, args, kwargs, error) from error

    return _spelled


def told(cls: type[C]) -> type[C]:
    """Every public method of the class as by `both_spellings`."""
    for name, member in vars(cls).copy().items():
        function = getattr(member, "__func__", member)
        if (
            not name.startswith("_")
            and hasattr(function, "__code__")
            and not hasattr(function, "__wrapped__")
        ):
            wrapped = both_spellings(function)
            setattr(cls, name, classmethod(wrapped) if isinstance(member, classmethod) else wrapped)
    return cls


def _told(
    function: Callable[..., Any], args: Any, kwargs: dict[str, Any], error: Exception
) -> MinigradError:
    """The error to raise instead of Python's or numpy's own."""
    given = ", ".join(
        [
            *(_shown(x) for x in args if not isinstance(x, type)),
            *(f"{key}={_shown(x)}" for key, x in kwargs.items()),
        ]
    )
    kind = (
        DTypeError
        if isinstance(error, (TypeError, AttributeError))
        else IndexRangeError
        if isinstance(error, IndexError)
        else ConfigError
    )
    wanted = (function.__doc__ or "").partition("\n")[0]
    return kind(
        function.__name__,
        f"cannot work on ({given}): {error}",
        got=given,
        wanted=wanted,
        hint=f"{function.__name__}: {wanted}",
    )


def _shown(x: Any) -> str:
    return f"{type(x).__name__} {tuple(x.shape)}" if hasattr(x, "shape") else repr(x)[:60]
