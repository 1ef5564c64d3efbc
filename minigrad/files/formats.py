"""Weights in any of the formats, chosen by the ending of the name: .mgrd, .safetensors, .npz."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minigrad.errors import ConfigError
from minigrad.files import layout, writer
from minigrad.files.durable import Path
from minigrad.files.gguf import peek_gguf
from minigrad.files.header import ARRAY_PREFIX
from minigrad.files.layout import FileInfo
from minigrad.files.npz import load_npz, peek_npz, save_npz
from minigrad.files.reader import StateDict, peek, read
from minigrad.files.safetensors import META, load_safetensors, peek_safetensors, save_safetensors

ENDINGS = (".mgrd", ".safetensors", ".npz")
READABLE = (*ENDINGS, ".gguf")
_LOAD = {".safetensors": load_safetensors, ".npz": load_npz}
_PEEK = {".mgrd": peek, ".npz": peek_npz, ".safetensors": peek_safetensors, ".gguf": peek_gguf}
# What other programs keep their files in: never written, where MGRD would not be expected.
_FOREIGN = re.compile(
    r"\.(npy|pth?|pkl|pickle|joblib|bin|ckpt|h5|hdf5|gguf|onnx|pb|zip|gz|tar|json|msgpack)"
)


def save(
    path: Path, state_dict: Mapping[str, Any], *, meta: Mapping[str, Any] | None = None
) -> str:
    """Write named arrays to `path`, durably, in the format of its ending: .safetensors, .npz, or
    MGRD for .mgrd and for an ending that is not another format's. Returns the SHA-256 of a MGRD
    file, for `load(..., sha256=...)`, and "" for the others.

    state_dict: name -> Tensor, numpy array, or what numpy.asarray takes. Names that share the same
        memory are stored once and tied at load; the other formats store each.
    meta: text keys -> None, bool, int, float, str, lists and dicts of these, to 8 levels; tuples
        become lists. An npz archive has no room for it.

    The old file at `path` stays until the new one is on the disk. Do not change the arrays while
    they are written. Raises DTypeError for anything but a dict of arrays of numbers, ConfigError
    for an ending, FormatError for names and meta that the format has no room for, SaveError for
    the disk.
    """
    writer.check_arguments("save", path, state_dict)
    ending = savable_ending("save", path)
    if ending == ".safetensors":
        save_safetensors(path, state_dict, meta=_as_text(meta or {}))
    elif ending == ".npz":
        if meta:
            problem = f"meta must be left out for an .npz archive, got {dict(meta)!r}"
            hint = "save to FILE.mgrd or FILE.safetensors"
            raise ConfigError("save", problem, dict(meta), None, hint)
        save_npz(path, state_dict)
    else:
        return writer.write(path, "weights", state_dict, meta or {}, call="save")
    return ""


def load(
    path: Path,
    *,
    names: Iterable[str] | None = None,
    mmap: bool = False,
    sha256: str | None = None,
    verify: bool | None = None,
) -> StateDict:
    """Read a file of weights, of any of the formats: a dict of name -> numpy array. Names that were
    tied share one array.

    names: only these.
    mmap: read-only views of the file, no copies. Do not cut the file while they live: the process
        would be killed.
    sha256: refuse any other content than this.
    verify: check the SHA-256 of the whole file; by default up to 256 MiB, also with names= and
        mmap=. The crc32 of every tensor that is loaded is checked always. Neither is a signature:
        they find damage, not forgery.
    mmap, sha256 and verify are for MGRD files.

    Raises FormatError, whose `code` names the broken rule, MissingFileError, or StateDictError for
    unknown names.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise writer.wrong_kind("load", path, "the path", "minigrad.load(path)")
    ending = _ending(path)
    if ending in _LOAD and not _is_mgrd(path):
        if mmap or sha256 is not None or verify:
            problem = f"mmap, sha256 and verify are for .mgrd files, got {os.fsdecode(path)}"
            hint = "convert it: minigrad convert FILE OUT.mgrd"
            raise ConfigError("load", problem, ending, ".mgrd", hint)
        return _LOAD[ending](path, names=names)
    options: dict[str, Any] = {"names": names, "mmap": mmap, "sha256": sha256, "verify": verify}
    return StateDict(*read(path, "weights", call="load", **options))


def _ending(path: Path) -> str:
    return os.path.splitext(os.fsdecode(path))[1].lower()


def _is_mgrd(path: Path) -> bool:
    """True for a file that begins as MGRD does: any ending could be given to one once."""
    try:
        with open(path, "rb") as file:
            return file.read(10)[2:] == layout.MAGIC
    except OSError:
        return False


def savable_ending(call: str, path: Path) -> str:
    """The ending of a file to save; raises ConfigError for one of another program's files."""
    return ending_of(path, ENDINGS, call) if _FOREIGN.fullmatch(_ending(path)) else _ending(path)


def ending_of(path: Path, known: Sequence[str] = ENDINGS, call: str = "convert") -> str:
    """The ending that names a format; raises ConfigError for one that is not known."""
    ending = _ending(path)
    if ending not in known:
        problem = f"{os.fsdecode(path)}: the ending {ending!r} is not that of a format to choose"
        if ending == ".gguf":
            what = "a GGUF file is not written, converted or compared, and has no --stats"
            problem = f"{os.fsdecode(path)}: {what}"
        raise ConfigError(call, problem, ending, known, f"use one of {', '.join(known)}")
    return ending


def load_any(path: Path, with_state: bool = False) -> StateDict:
    """The weights of a file of any of the formats, by its ending; of a checkpoint, the arrays of
    the training state only if asked for.
    """
    if (ending := ending_of(path)) in _LOAD:
        return _LOAD[ending](path)
    names = None
    if not with_state and (info := peek(path)).kind == "checkpoint":
        names = [name for name in info.names if not name.startswith(ARRAY_PREFIX)]
    return StateDict(*read(path, None, names=names, verify=True, call="load"))


def peek_any(path: Path) -> FileInfo:
    """The header of a file of any of the formats, by its ending."""
    return _PEEK[ending_of(path, READABLE)](path)


def convert(source: Path, target: Path) -> StateDict:
    """Write the weights in `source` to `target`, in the formats that their endings name; returns
    them.

    Names stay as they are, and minigrad's are PyTorch's. Meta is kept, but an npz archive has no
    room for it. Of a checkpoint only the weights are taken. Names that were tied are written each
    in full where the format knows no ties.
    """
    ending = ending_of(target)
    content = load_any(source)
    save(target, content, meta=None if ending == ".npz" else content.meta)
    return content


def _as_text(meta: Mapping[str, Any]) -> dict[str, str]:
    """Meta as text -> text: itself where it is that, else JSON under one key."""
    if all(type(value) is str for value in meta.values()) and META not in meta:
        return dict(meta)
    return {META: json.dumps(meta)}
