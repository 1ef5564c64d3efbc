"""Reading a MGRD 1 file: one validator for every way in.

The checks run from the outside in: regular file, size, preamble, trailer, SHA-256, header, layout,
pads, crc32 of each tensor; only what passed becomes an array. Nothing in a file names code, and no
text of a file reaches numpy's dtype parser.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import mmap as mapping
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import FormatError, StateDictError
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import THREADED, Path, alongside
from minigrad.files.header import Refusal
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import CHUNK, OpenFile, opened, unreadable

_MAGIC = b"\xc4\x1e" + layout.MAGIC
Fetch = Callable[[TensorInfo], tuple[Array, int]]  # a tensor's bytes, and their crc32


class StateDict(dict[str, Array]):
    """What `load` returns: a dict of name -> numpy array, with the file's `info` (meta, kind,
    SHA-256) next to it.
    """

    def __init__(self, arrays: dict[str, Array], info: FileInfo) -> None:
        super().__init__(arrays)
        self.info = info

    @property
    def meta(self) -> dict[str, Any]:
        """The meta that was saved with the arrays."""
        return self.info.meta

    @property
    def sha256(self) -> str:
        """The file's SHA-256, as its trailer states it (hex)."""
        return self.info.sha256


def peek(path: Path) -> FileInfo:
    """Read the header only: kind, meta, and the table of tensors. Damage to the payloads is not
    seen.
    """
    with opened(_File, path, "peek") as file:
        return file.header(verify_up_to=0)


def read(
    path: Path,
    kind: str | None,
    *,
    names: Iterable[str] | None = None,
    mmap: bool = False,
    sha256: str | None = None,
    verify: bool | None = None,
    call: str,
) -> tuple[dict[str, Array], FileInfo]:
    """Read arrays of a file of this kind, or of any kind if None; the way in for `load` and for
    checkpoints.
    """
    most = layout.VERIFIED_BY_DEFAULT
    if verify is not None or sha256 is not None:
        most = sys.maxsize if verify or sha256 is not None else 0
    with opened(_File, path, call) as file:
        info = file.header(most)
        if kind is not None:
            file.expect_kind(kind)
        problem = f"the file's SHA-256 is {info.sha256}, not the one asked for"
        same = sha256 is None or info.sha256 == sha256.lower()
        file.check(same, "sha256-other", problem, info.sha256, sha256)
        # Where each wanted name is stored: under itself, or under the name that it is tied to.
        places = {name: info.aliases.get(name, name) for name in select(info.names, names, file)}
        needed, stored = set(places.values()), dict[str, Array]()
        with file.verifying():
            fetch = file.map() if mmap else file.read
            for tensor in info.tensors:
                if tensor.name in needed:
                    stored[tensor.name] = _checked(tensor, fetch)
        return {name: stored[place] for name, place in places.items()}, info


def verify(path: Path) -> FileInfo:
    """Check a file of either kind down to its last byte, SHA-256 and all, one tensor at a time;
    raises what `load` raises.
    """
    with opened(_File, path, "verify") as file:
        info = file.header(verify_up_to=sys.maxsize)
        with file.verifying():
            for tensor in info.tensors:
                _checked(tensor, file.read)
        return info


def select(known: list[str], names: Iterable[str] | None, file: OpenFile) -> list[str]:
    """The names to return: all that are known, or those asked for; raises StateDictError if one is
    not there.
    """
    if names is None:
        return known
    wanted = [names] if isinstance(names, str) else list(names)
    missing = sorted(set(wanted) - set(known))
    if missing:
        near = difflib.get_close_matches(missing[0], known, 1)
        listed = f"`minigrad inspect {file.path}` lists them"
        hint = f"did you mean {near[0]!r}?" if near else listed
        problem = f"{file.path} has no tensor {missing[0]!r}"
        raise StateDictError(file.call, problem, missing, known, hint)
    return wanted


def _checked(tensor: TensorInfo, fetch: Fetch) -> Array:
    payload, crc = fetch(tensor)
    if crc != tensor.crc32:
        problem = f"tensor {tensor.name!r} is damaged: its crc32 is wrong"
        raise Refusal("crc", problem, crc, tensor.crc32)
    return array_of(tensor, payload)


def array_of(tensor: TensorInfo, payload: Array) -> Array:
    """The array of a payload. A bool with a byte that is neither 0 nor 1 is refused: numpy would
    compute nonsense with it.
    """
    if tensor.dtype == "bool" and payload.size and payload.max() > 1:
        problem = f"tensor {tensor.name!r} is bool and holds the byte {payload.max()}"
        raise Refusal("bool-value", problem)
    return layout.restored(payload, layout.DTYPES[tensor.dtype], tensor.shape)


class _File(OpenFile):
    """An open file of the format, which `header` must have checked before anything else is read."""

    def header(self, verify_up_to: int) -> FileInfo:
        """Check preamble, size, trailer and header, and the SHA-256 up to `verify_up_to` bytes; of
        a large file, that is left to `verifying`.
        """
        version, self.header_len = self._check_preamble()
        trailer = self.bytes_at(self.size - layout.TRAILER_SIZE, layout.TRAILER_SIZE)
        problem = "the end of the file is damaged"
        self.check(trailer[:10] == b"\xc4\x28" + layout.END_MAGIC, "trailer", problem)
        self.digest = trailer[10:]
        self.verify_beside = THREADED <= self.size <= verify_up_to
        if self.size <= verify_up_to and not self.verify_beside:
            self._compare(self._sha256(), None)
        self.info = self._read_header(version)
        return self.info

    # ---- preamble and header

    def _check_preamble(self) -> tuple[tuple[int, int], int]:
        head, check = self.some_at(0, layout.PREAMBLE_SIZE), self.check
        check(self.size > 0 and len(head) > 0, "empty", "the file is empty")
        if head[:10] != _MAGIC:
            self._explain_magic(head)
        self._check_short(min(self.size, len(head)) < layout.PREAMBLE_SIZE)
        _, major, minor, header_len, file_len, right, reserved = layout.unpack_preamble(head)
        check(right, "preamble-crc", "the first 32 bytes are damaged (crc32)")
        check(reserved == b"\0\0", "reserved", "the reserved bytes are not zero", reserved)
        said = f"format {major}.{minor}; this minigrad reads {layout.MAJOR}"
        problem = f"written in {said}: upgrade minigrad"
        check(major <= layout.MAJOR, "version-newer", problem, (major, minor))
        check(major == layout.MAJOR, "version-unknown", f"an unknown {said}", (major, minor))
        problem = f"the file is cut: {self.size:,} of {file_len:,} bytes are there"
        check(self.size >= file_len, "cut", problem, self.size, file_len)
        problem = f"{self.size - file_len:,} bytes too many at the end"
        check(self.size == file_len, "trailing-bytes", problem, self.size, file_len)
        check(header_len > 0, "header-empty", "the header has 0 bytes")
        headers.at_most("header-limit", header_len, layout.MAX_HEADER, "bytes of header")
        fits = layout.PREAMBLE_SIZE + header_len + layout.TRAILER_SIZE <= self.size
        problem = f"a header of {header_len:,} bytes does not fit the file"
        check(fits, "header-past-end", problem, header_len, self.size)
        return (major, minor), header_len

    def _check_short(self, short: bool) -> None:
        problem = f"the file ends after {self.size} bytes, inside its first 32"
        self.check(not short, "short", problem, self.size)

    def _explain_magic(self, head: bytes) -> NoReturn:
        self._check_short(_MAGIC.startswith(head))
        if head.startswith(b"\xc4\x1e\x89MGRD"):
            problem = "line ends were translated on the way (text mode); copy the file as binary"
            raise Refusal("magic-newlines", problem)
        tail = self.some_at(max(0, self.size - (64 << 10)), 64 << 10)
        foreign.refuse(head, tail)
        raise Refusal("magic", "this is not a minigrad file", head[:10], _MAGIC)

    def _read_header(self, version: tuple[int, int]) -> FileInfo:
        header = headers.unpack(self.bytes_at(layout.PREAMBLE_SIZE, self.header_len))
        headers.check(header, version)
        tensors = headers.tensor_infos(header, layout.first_payload(self.header_len))
        wanted = layout.file_length(self.header_len, [t.nbytes for t in tensors])
        problem = f"the tensors need {wanted:,} bytes"
        self.check(wanted == self.size, "file-length", problem, self.size, wanted)
        keys = ("kind", "producer", "meta", "aliases", "state")
        said: dict[str, Any] = {key: header.get(key) for key in keys}
        digest = self.digest.hex()
        return FileInfo(version=version, tensors=tensors, size=self.size, sha256=digest, **said)

    # ---- payloads --------------------------------------------------------------

    def _check_pads(self) -> None:
        """Every byte between two payloads is what the layout says."""
        end = layout.PREAMBLE_SIZE + self.header_len
        for tensor in self.info.tensors:
            wanted = layout.gap(end, tensor.offset, tensor.nbytes)
            found = self.bytes_at(end, tensor.offset - end)
            problem = f"the bytes before tensor {tensor.name!r} are damaged"
            self.check(found == wanted, "pad", problem, found, wanted)
            end = tensor.offset + tensor.nbytes

    def read(self, tensor: TensorInfo) -> tuple[Array, int]:
        """A tensor's bytes in memory of their own, and their crc32."""
        payload, crc = np.empty(tensor.nbytes, np.uint8), 0
        for part in self.chunks(tensor.offset, payload.data):
            crc = zlib.crc32(part, crc)
        return payload, crc

    def map(self) -> Fetch:
        """A function like `read` that gives views of one read-only mapping of the file."""
        try:
            mapped = mapping.mmap(self.fd, self.size, access=mapping.ACCESS_READ)
        except OSError as error:
            raise unreadable(self.call, self.path, error) from error
        whole = np.frombuffer(mapped, np.uint8)

        def view(tensor: TensorInfo) -> tuple[Array, int]:
            payload = whole[tensor.offset : tensor.offset + tensor.nbytes]
            return payload, zlib.crc32(payload.data)

        return view

    def expect_kind(self, kind: str) -> None:
        """Refuse weights where a checkpoint is wanted, and the reverse."""
        found = self.info.kind
        reader = "load_checkpoint" if found == "checkpoint" else "load"
        problem = f"the file's kind is {found!r}, not {kind!r}: minigrad.files.{reader} reads it"
        self.check(found == kind, "kind", problem, found, kind)

    # ---- SHA-256

    @contextlib.contextmanager
    def verifying(self) -> Iterator[None]:
        """Check the bytes between payloads, and for a large file the SHA-256 in a thread while the
        block runs. If that is wrong, it is reported first.
        """
        if not self.verify_beside:
            self._check_pads()
            yield
            return
        cause = None
        with alongside(self._any_sha256, self.size) as digest:
            try:
                self._check_pads()
                yield
            except (FormatError, Refusal) as error:
                cause = error
        self._compare(digest(), cause)
        if cause:
            raise cause

    def _any_sha256(self) -> bytes:
        try:
            return self._sha256()
        except (FormatError, Refusal):  # unreadable or cut, which the block meets too
            return b""

    def _sha256(self) -> bytes:
        sha, end = hashlib.sha256(), self.size - layout.TRAILER_SIZE
        buffer = memoryview(bytearray(min(CHUNK, end)))
        for position in range(0, end, CHUNK):
            for part in self.chunks(position, buffer[: end - position]):
                sha.update(part)
        return sha.digest()

    def _compare(self, digest: bytes, cause: FormatError | Refusal | None) -> None:
        problem = "the file is damaged: its SHA-256 is not the one it states"
        problem += f" ({cause.problem})" if cause else ""
        self.check(digest == self.digest, "sha256", problem, digest.hex(), self.digest.hex())
