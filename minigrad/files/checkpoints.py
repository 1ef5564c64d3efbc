"""Checkpoints: weights together with everything that a run needs to go on as if nothing had
happened.

A checkpoint is one file, so one rename commits it. Its `state` is a tree of dicts, lists, scalars,
bytes and arrays; the arrays are stored among the tensors, under "state/" and their path. The
trainer decides what belongs to the state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigrad.dtypes import Array
from minigrad.files.durable import Path
from minigrad.files.header import ARRAY_KEY, ARRAY_PREFIX, Refusal, holds_containers, refusing
from minigrad.files.layout import FileInfo
from minigrad.files.reader import StateDict, read
from minigrad.files.writer import array_in, check_arguments, identity, write


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """What `load_checkpoint` returns: `weights` (name -> array), the `state` tree with its arrays
    in place, and the file's `info`.
    """

    weights: StateDict
    state: dict[str, Any]
    info: FileInfo
    path: str

    @property
    def meta(self) -> dict[str, Any]:
        """The meta that was saved with it."""
        return self.info.meta

    def __repr__(self) -> str:
        held = f"{len(self.weights)} weights, state={sorted(self.state)}, meta={self.meta}"
        return f"Checkpoint({self.path!r}, {held})"


def save_checkpoint(
    path: Path,
    weights: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    meta: Mapping[str, Any] | None = None,
) -> str:
    """Write weights and training state to one file, durably; returns its SHA-256.

    weights: name -> Tensor or array.
    state: a tree, 32 levels deep at most, of dicts with text keys, lists, None, bool, int64, float,
        str, bytes, Tensors and arrays. Tuples become lists, keys that are ints become text; wider
        integers go in as bytes or as uint64 arrays.

    Raises what `save` raises.
    """
    call = "save_checkpoint"
    check_arguments(call, path, weights)
    with refusing(call, path):
        for name in weights:
            if type(name) is str and name.startswith(ARRAY_PREFIX):
                problem = f"the name {name!r} begins with {ARRAY_PREFIX!r}, kept for the state"
                raise Refusal("name-reserved", problem, name)
    return write(path, "checkpoint", weights, meta or {}, state, call=call)


def load_checkpoint(
    path: Path, *, sha256: str | None = None, verify: bool | None = None
) -> Checkpoint:
    """Read a checkpoint. Arrays that shared memory when they were saved share it again. Options and
    errors are those of `load`.
    """
    arrays, info = read(path, "checkpoint", sha256=sha256, verify=verify, call="load_checkpoint")
    weights = {name: array for name, array in arrays.items() if not name.startswith(ARRAY_PREFIX)}
    state = _put_arrays(info.state, arrays)
    assert isinstance(state, dict)
    return Checkpoint(StateDict(weights, info), state, info, os.fsdecode(path))


def snapshot(tree: Any) -> Any:
    """The tree with copies of its arrays and Tensors, as arrays. What shared memory shares the
    copy.
    """
    copies: dict[Any, Array] = {}

    def copy(value: Any) -> Any:
        if (array := array_in(value)) is not None:
            if (key := identity(array)) not in copies:
                copies[key] = array.copy()
            return copies[key]
        if isinstance(value, Mapping):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(item) for item in value]
        return value

    return copy(tree)


def _put_arrays(value: Any, arrays: dict[str, Array]) -> Any:
    """The state with its arrays in their places; what holds none stays the same object."""
    if type(value) is dict and ARRAY_KEY in value:
        return arrays[value[ARRAY_KEY]]
    if type(value) not in (dict, list) or not holds_containers(value):
        return value
    if type(value) is list:
        return [_put_arrays(item, arrays) for item in value]
    return {key: _put_arrays(item, arrays) for key, item in value.items()}
