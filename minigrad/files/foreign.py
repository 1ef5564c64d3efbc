"""What a file is that is not ours: words for the formats that people try to load.

Looks at the first and the last bytes only. Never reads a pickle, never opens an archive.
"""

from __future__ import annotations

from minigrad.files.header import Refusal

_BEGINNINGS = (
    (b"\x93NUMPY", "npy", "a numpy .npy file: numpy.load reads it"),
    (b"\x89HDF\r\n\x1a\n", "hdf5", "an HDF5 file: read it with h5py, then minigrad.save"),
    (b"GGUF", "gguf", "a GGUF file: name it FILE.gguf for commands; minigrad.models.load reads it"),
    (b"version https://git-lfs", "git-lfs", "a Git LFS pointer, not the file: run `git lfs pull`"),
    (b"\x1f\x8b", "gzip", "a gzip file: unpack it first"),
)
_PICKLE = (
    "a pickle or PyTorch checkpoint; minigrad never unpickles, since a pickle can run code. "
    "Save it as safetensors and `minigrad convert` that"
)


def refuse(head: bytes, tail: bytes, wanted: str = "") -> None:
    """Raise Refusal for a file of a format that is known and not `wanted`."""
    found = recognise(head, tail)
    if found and found[0] != wanted:
        raise Refusal(f"foreign-{found[0]}", f"this is {found[1]}", found[0], wanted or "MGRD 1")


def recognise(head: bytes, tail: bytes) -> tuple[str, str] | None:
    """(format, what to say of it) for a file that begins with `head` and ends with `tail`;

    None if nothing is known of it.
    """
    for beginning, name, words in _BEGINNINGS:
        if head.startswith(beginning):
            return name, words
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle", _PICKLE
    if head.startswith(b"PK\x03\x04"):
        # The names of a zip archive stand in its directory, at the end.
        if b".npy" in tail:
            return "npz", "a numpy .npz archive: name it FILE.npz to load it"
        if b"data.pkl" in tail:
            return "pickle", _PICKLE
        return "zip", "a zip archive: perhaps a PyTorch checkpoint, but minigrad never unpickles"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        return "safetensors", "a safetensors file, which minigrad.load reads by that ending"
    return None
