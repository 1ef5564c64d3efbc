"""From one format to another, by the endings of the names: .mgrd, .safetensors, .npz."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minigrad.errors import ConfigError
from minigrad.files import layout
from minigrad.files.durable import Path
from minigrad.files.header import ARRAY_PREFIX, Refusal, check_tree
from minigrad.files.layout import FileInfo
from minigrad.files.npz import load_npz, save_npz
from minigrad.files.reader import StateDict, peek, read
from minigrad.files.safetensors import load_safetensors, peek_safetensors, save_safetensors
from minigrad.files.writer import save

ENDINGS = (".mgrd", ".safetensors", ".npz")
_META = (
    "minigrad.meta"  # the key under which meta that is not all text is kept in safetensors, as JSON
)


def ending_of(path: Path) -> str:
    """The ending that names a format; raises ConfigError for any other."""
    ending = os.path.splitext(os.fsdecode(path))[1].lower()
    if ending not in ENDINGS:
        raise ConfigError(
            "convert",
            f"{os.fsdecode(path)}: the ending {ending!r} names no format",
            got=ending,
            wanted=ENDINGS,
            hint="use one of " + ", ".join(ENDINGS),
        )
    return ending


def load_all(path: Path) -> StateDict:
    """Every array of a file of any of the formats, by its ending; of a checkpoint, those of the
    training state too.
    """
    ending = ending_of(path)
    if ending == ".npz":
        return load_npz(path)
    if ending == ".safetensors":
        found = load_safetensors(path)
        return StateDict(found, _with_own_meta(found.info))
    return StateDict(*read(path, None, verify=True, call="load"))


def load_any(path: Path) -> StateDict:
    """The weights of a file of any of the formats, by its ending; of a checkpoint, without the
    training state.
    """
    if ending_of(path) != ".mgrd" or (info := peek(path)).kind != "checkpoint":
        return load_all(path)
    names = [name for name in info.names if not name.startswith(ARRAY_PREFIX)]
    return StateDict(*read(path, None, names=names, verify=True, call="load"))


def peek_any(path: Path) -> FileInfo:
    """The header of a file of any of the formats, by its ending. An npz archive has none, so it is
    read.
    """
    ending = ending_of(path)
    if ending == ".npz":
        return load_npz(path).info
    return _with_own_meta(peek_safetensors(path)) if ending == ".safetensors" else peek(path)


def convert(source: Path, target: Path) -> StateDict:
    """Write the weights in `source` to `target`, in the formats that their endings name; returns
    them.

    Names stay as they are, and minigrad's are PyTorch's. Meta is kept, but an npz archive has no
    room for it. Of a checkpoint only the weights are taken. Names that were tied are written each
    in full where the format knows no ties.
    """
    ending = ending_of(target)
    content = load_any(source)
    if ending == ".npz":
        save_npz(target, content)
    elif ending == ".safetensors":
        save_safetensors(target, content, meta=_as_text(content.meta))
    else:
        save(target, content, meta=content.meta)
    return content


def _as_text(meta: Mapping[str, Any]) -> dict[str, str]:
    """Meta as text -> text: itself where it is that, else JSON under one key."""
    if all(type(value) is str for value in meta.values()) and _META not in meta:
        return dict(meta)
    return {_META: json.dumps(meta)}


def _with_own_meta(info: FileInfo) -> FileInfo:
    """Meta that `_as_text` has put under one key, unpacked again; anything else stays as it is."""
    if set(info.meta) != {_META}:
        return info
    try:
        found = json.loads(info.meta[_META])
        if not isinstance(found, dict):
            return info
        check_tree("meta", found, layout.MAX_META_DEPTH)
    except (ValueError, RecursionError, Refusal):
        return info
    return replace(info, meta=found)
