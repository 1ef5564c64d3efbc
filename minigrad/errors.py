"""Every error a user can meet, one class per mistake.

An error says which call it was, what is wrong, and one way out; `got` and `wanted` carry the facts
for programs and tests. Each class is also the builtin that a Python programmer would expect to
catch (ShapeError is a ValueError, DTypeError a TypeError, ...).
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

_ENGINE = {
    "dtypes",
    "autograd",
    "modes",
    "primitive",
    "ops",
    "tensor",
    "functional",
    "func",
    "functions",
    "listeners",
    "compiler",
}
_CALLED = {"ops", "tensor", "functional", "functions"}  # where the functions are that people call
_ITEMS = {"__getitem__": "getitem", "__setitem__": "setitem", "__delitem__": "delitem"}


class MinigradError(Exception):
    """The base of all errors of this library.

    call: the name of what was called;  got, wanted: the facts;  hint: a way out;  where: the user's
        line, when it is another one than the
    traceback shows.
    """

    def __init__(
        self,
        call: str,
        problem: str,
        *,
        got: Any = None,
        wanted: Any = None,
        hint: str = "",
        where: str = "",
    ) -> None:
        call = _as_called(call)
        self.call, self.problem = call, problem
        self.got, self.wanted, self.hint, self.where = got, wanted, hint, where
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.call}: {self.problem}"
        if self.where:
            text += f"\n  made at {self.where}"
        return f"{text}\n  {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _as_called(call: str) -> str:
    """The function of the engine that the user's line calls, where it is another than the one that
    noticed: `lerp` and not its `mul`.
    """
    if " " in call:  # "backward of sqrt" says more
        return call
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        package, _, rest = str(frame.f_globals.get("__name__", "")).partition(".")
        room, name = rest.partition(".")[0], _ITEMS.get(frame.f_code.co_name, frame.f_code.co_name)
        if package not in ("minigrad", "contextlib", "numpy") or (
            package == "minigrad" and room not in _ENGINE
        ):
            break
        is_method = frame.f_code.co_varnames[:1] in (("self",), ("cls",))
        if (
            room in _CALLED
            and name.isidentifier()
            and not name.startswith("_")
            and (is_method or room != "tensor")
            and rest != "ops.composite"
        ):
            call = name
        frame = frame.f_back
    return call


def _rebuild(
    kind: type[MinigradError], args: tuple[Any, ...], facts: dict[str, Any]
) -> MinigradError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class ShapeError(MinigradError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(MinigradError, TypeError):
    """A dtype or a kind of data that the call does not take."""


class IndexRangeError(MinigradError, IndexError):
    """An index, target or token outside its range."""


class ConfigError(MinigradError, ValueError):
    """A setting that makes no sense: lr < 0, n_embd not divisible by n_head, an unknown option."""


class DataError(MinigradError, ValueError):
    """A text that nothing can be learned from, that is no text, or that has characters the
    tokenizer does not know.
    """


class MaskError(MinigradError, ValueError):
    """A mask of the wrong shape, or one whose polarity cannot be told."""


class CacheError(MinigradError, RuntimeError):
    """A KV cache that is full, or that belongs to another batch, model or dtype."""


class StateDictError(MinigradError, ValueError):
    """Weights that do not fit the model; lists missing, unexpected and mismatched names. The model
    is unchanged.
    """


class NotFiniteError(MinigradError, ArithmeticError):
    """A NaN or an infinity where none may be."""


class ReadOnlyError(MinigradError, ValueError):
    """Writing to memory that may not be written."""


class MissingDependencyError(MinigradError, ImportError):
    """An optional package is not installed; the hint is the `pip install` line."""


class CaptureError(MinigradError, RuntimeError):
    """Something that a recorded step cannot replay."""


class FormatError(MinigradError, ValueError):
    """A file that is not what it should be; `code` names the broken rule."""

    def __init__(self, call: str, problem: str, *, code: str, **facts: Any) -> None:
        super().__init__(call, problem, **facts)
        self.code = code


class MissingFileError(FormatError, FileNotFoundError):
    """A file that is not there; the hint names the files of its folder that look like it."""


class SaveError(MinigradError, OSError):
    """A file that could not be written. What stood there before is untouched, unless `phase` is
    "flush the folder".

    phase: what failed;  path, errno: of the failure;  needed, free: bytes to write, and bytes free
        on that disk (None
    where it could not be asked).
    """

    def __init__(
        self,
        call: str,
        problem: str,
        *,
        phase: str,
        path: str,
        errno: int | None = None,
        needed: int | None = None,
        free: int | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(call, problem, **facts)
        self.phase, self.path, self.errno, self.needed, self.free = phase, path, errno, needed, free


class LockedError(MinigradError, RuntimeError):
    """A run folder in which another process is training."""


class GradientError(MinigradError, RuntimeError):
    """The base of what can go wrong in a backward pass."""


class NotScalarError(GradientError):
    """backward() of a tensor with more than one element, without a gradient to start from."""


class NoGradientError(GradientError):
    """backward() of a tensor that does not depend on anything that requires a gradient."""


class NoGradModeError(GradientError):
    """backward() of a tensor that was computed under no_grad()."""


class BackwardTwiceError(GradientError):
    """backward() a second time through the same graph."""


class GraphFreedError(GradientError):
    """backward() through a part of a graph that another backward() has freed."""


class StaleValueError(GradientError):
    """A value that the backward pass needs was changed in place after it was used."""


class CacheGradientError(CacheError, GradientError):
    """A backward pass through a forward pass with a KV cache, which records nothing."""


class UnusedInputError(GradientError):
    """grad() with respect to a tensor that the output does not depend on."""


class GradientMismatchError(GradientError, AssertionError):
    """A gradient that is not what finite differences say."""
