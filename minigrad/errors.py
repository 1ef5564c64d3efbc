"""The errors of the library, one class per mistake.

An error names the call, what is wrong, and a way to mend it; `got` and `wanted` carry the facts for
programs and tests. Each class is also the builtin that a Python programmer would expect to catch
(ShapeError is a ValueError, DTypeError a TypeError, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class MinigradError(Exception):
    """The base of all errors of this library.

    call: the name of the function that was called.   problem: what is wrong.
    got, wanted: the facts.   hint: what to change.
    where: the user's line, if it is not in the traceback.   facts: what else a class has.
    """

    def __init__(
        self,
        call: str,
        problem: str,
        got: Any = None,
        wanted: Any = None,
        hint: str = "",
        where: str = "",
        **facts: Any,
    ) -> None:
        assert all(hasattr(self, name) for name in facts), facts
        vars(self).update(facts)
        self.call, self.problem = call, problem
        self.got, self.wanted, self.hint, self.where = got, wanted, hint, where
        self.args = (call, problem)  # which pickle calls the class with

    def __str__(self) -> str:
        made = f"\n  made at {self.where}" if self.where else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{self.call}: {self.problem}{made}{hint}"

    def named(self, call: str) -> MinigradError:
        """The error, as one of the call that the user made: `lerp` and not its `mul`. "backward of
        sqrt" stays.
        """
        if " " not in self.call:
            self.call = call
        return self


class ShapeError(MinigradError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(MinigradError, TypeError):
    """A dtype or a kind of data that the call does not take."""


class IndexRangeError(MinigradError, IndexError):
    """An index, target or token outside its range."""


class ConfigError(MinigradError, ValueError):
    """A setting that makes no sense: lr < 0, n_embd not divisible by n_head, an unknown option."""


class DataError(MinigradError, ValueError):
    """A text that is empty or too short, a value that is not a text, or characters that the
    tokenizer does not know.
    """


class MaskError(MinigradError, ValueError):
    """A mask of the wrong shape or dtype."""


class CacheError(MinigradError, RuntimeError):
    """A KV cache that is full, or that belongs to another batch, model or dtype."""


class StateDictError(MinigradError, ValueError):
    """Weights that do not fit the model: missing, unexpected and mismatched names. The model is
    unchanged.
    """


class NotFiniteError(MinigradError, ArithmeticError):
    """A NaN or an infinity where finite numbers are required."""


class ReadOnlyError(MinigradError, ValueError):
    """A write to read-only memory."""


class MissingDependencyError(MinigradError, ImportError):
    """An optional package is not installed; the hint is the `pip install` line."""


def kind_of(error: Exception, usual: type[MinigradError]) -> type[MinigradError]:
    """The class to raise for an error of Python's or numpy's own; `usual` for a ValueError."""
    if isinstance(error, (TypeError, AttributeError)):
        return DTypeError
    return IndexRangeError if isinstance(error, IndexError) else usual


@contextmanager
def needs(call: str, problem: str, install: str) -> Iterator[None]:
    """Raise MissingDependencyError if the block cannot import a package, which `pip install
    {install}` brings.
    """
    try:
        yield
    except ImportError:
        raise MissingDependencyError(call, problem, hint=f"pip install {install}") from None


class CaptureError(MinigradError, RuntimeError):
    """A step that cannot be recorded, or that a replay would get wrong."""


class FormatError(MinigradError, ValueError):
    """A file that breaks its format; `code` names the broken rule."""

    code: str = ""


class MissingFileError(FormatError, FileNotFoundError):
    """A missing file; the hint names similar files in its folder."""


class SaveError(MinigradError, OSError):
    """A file that could not be written. An older file of that name is untouched, unless `phase` is
    "flush the folder".

    phase: the step that failed.
    path, errno: of the failure.
    needed, free: the bytes to write, and the bytes free on that disk (None if unknown).
    """

    phase: str = ""
    path: str = ""
    errno: int | None = None  # in place of OSError's own, which is not pickled
    needed: int | None = None
    free: int | None = None


class LockedError(MinigradError, RuntimeError):
    """A run folder in which another process is training."""


class GradientError(MinigradError, RuntimeError):
    """The base of the errors of a backward pass."""


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
