"""Reading a MGRD 1 file: one validator for every way in.

The checks run from the outside in: regular file, size, preamble, trailer, SHA-256, header, layout,
    pads, crc32 of each
tensor; only what passed becomes an array. Nothing in a file names code, and no text of a file
reaches numpy's dtype parser.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import mmap as mapping
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import FormatError, StateDictError
from minigrad.files import foreign, header as headers, layout
from minigrad.files.durable import Path
from minigrad.files.header import Refusal
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.opening import CHUNK, OpenFile, unreadable, within_memory

_THREADED = 4 << 20


class StateDict(dict[str, Array]):
    """What `load` returns: a dict of name -> numpy array, with the file's `info` (meta, kind,
    SHA-256) beside it.
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


def load(
    path: Path,
    *,
    names: Iterable[str] | None = None,
    mmap: bool = False,
    sha256: str | None = None,
    verify: bool | None = None,
) -> StateDict:
    """Read a file of weights: a dict of name -> numpy array. Names that were tied share one array.

    names: only these.
    mmap: read-only views of the file, no copies. Do not cut the file while they live: the process
        would be killed.
    sha256: refuse any other content than this.
    verify: check the SHA-256 of the whole file; by default up to 256 MiB, also with names= and
        mmap=. The crc32 of every tensor that is loaded is checked always. Neither is a signature:
        they find damage, not forgery.

    Raises FormatError, whose `code` names the broken rule, MissingFileError, or StateDictError for
    unknown names.
    """
    arrays, info = read(
        path, "weights", names=names, mmap=mmap, sha256=sha256, verify=verify, call="load"
    )
    return StateDict(arrays, info)


def peek(path: Path) -> FileInfo:
    """Read the header only: kind, meta, and the table of tensors. Damage to the payloads is not
    seen.
    """
    with (
        within_memory("peek", path),
        contextlib.closing(_File(path, "peek", verify_up_to=0)) as file,
    ):
        return file.info


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
    with (
        within_memory(call, path),
        contextlib.closing(_File(path, call, verify_up_to=most)) as file,
    ):
        if kind is not None:
            file.expect_kind(kind)
        if sha256 is not None:
            file.expect_sha256(sha256)
        # Where each wanted name is stored: under itself, or under the name that it is tied to.
        places = {
            name: file.info.aliases.get(name, name) for name in select(file.info.names, names, file)
        }
        needed, stored = set(places.values()), dict[str, Array]()
        with file.verifying():
            file.check_pads()
            fetch = file.map() if mmap else file.read
            for tensor in file.info.tensors:
                if tensor.name in needed:
                    stored[tensor.name] = _checked(file, tensor, fetch)
        file.check_unchanged()
        return {name: stored[place] for name, place in places.items()}, file.info


def verify(path: Path) -> FileInfo:
    """Check a file of either kind down to its last byte, SHA-256 and all, one tensor at a time;
    raises what `load` raises.
    """
    with (
        within_memory("verify", path),
        contextlib.closing(_File(path, "verify", verify_up_to=sys.maxsize)) as file,
    ):
        with file.verifying():
            file.check_pads()
            for tensor in file.info.tensors:
                _checked(file, tensor, file.read)
        file.check_unchanged()
        return file.info


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
        hint = (
            f"did you mean {near[0]!r}?" if near else f"`minigrad inspect {file.path}` lists them"
        )
        problem = f"{file.path} has no tensor {missing[0]!r}"
        raise StateDictError(file.call, problem, got=missing, wanted=known, hint=hint)
    return wanted


def _checked(file: _File, tensor: TensorInfo, fetch: Any) -> Array:
    payload, crc = fetch(tensor)
    if crc != tensor.crc32:
        file.refuse(
            "crc", f"tensor {tensor.name!r} is damaged: its crc32 is wrong", crc, tensor.crc32
        )
    check_bool(file, tensor, payload)
    return layout.restored(payload, layout.DTYPES[tensor.dtype], tensor.shape)


def check_bool(file: OpenFile, tensor: TensorInfo, payload: Array) -> None:
    """Refuse a bool tensor with a byte that is neither 0 nor 1: numpy would compute nonsense with
    it.
    """
    if tensor.dtype == "bool" and payload.size and payload.max() > 1:
        file.refuse(
            "bool-value", f"tensor {tensor.name!r} is bool and holds the byte {payload.max()}"
        )


class _File(OpenFile):
    """An open file whose preamble, size, trailer and header have passed; SHA-256 too, up to
    `verify_up_to` bytes.
    """

    def __init__(self, path: Path, call: str, verify_up_to: int) -> None:
        super().__init__(path, call)
        try:
            version, header_len = self._check_preamble()
            trailer = self.bytes_at(self.size - layout.TRAILER_SIZE, layout.TRAILER_SIZE)
            problem = "the end of the file is damaged"
            self.check(trailer[:10] == b"\xc4\x28" + layout.END_MAGIC, "trailer", problem)
            self.digest, self.header_len = trailer[10:], header_len
            self.verify_beside = _THREADED <= self.size <= verify_up_to
            if self.size <= verify_up_to and not self.verify_beside:
                self._compare(self._sha256(), None)
            self.info = self._read_header(version)
        except BaseException:
            self.close()
            raise

    # ---- preamble and header ---------------------------------------------------

    def _check_preamble(self) -> tuple[tuple[int, int], int]:
        head = self.some_at(0, layout.PREAMBLE_SIZE)
        self.check(self.size > 0 and len(head) > 0, "empty", "the file is empty")
        if head[:10] != b"\xc4\x1e" + layout.MAGIC:
            self._explain_magic(head)
        if self.size < layout.PREAMBLE_SIZE or len(head) < layout.PREAMBLE_SIZE:
            self.refuse(
                "short", f"the file ends after {self.size} bytes, inside its first 32", self.size
            )
        _, major, minor, header_len, file_len, right, reserved = layout.unpack_preamble(head)
        self.check(right, "preamble-crc", "the first 32 bytes are damaged (crc32)")
        self.check(reserved == b"\0\0", "reserved", "the reserved bytes are not zero", reserved)
        if major > layout.MAJOR:
            newer = (
                f"written in format {major}.{minor}; this minigrad reads {layout.MAJOR}: "
                "upgrade minigrad"
            )
            self.refuse("version-newer", newer, (major, minor))
        problem = f"there is no format {major}.{minor}"
        self.check(major == layout.MAJOR, "version-unknown", problem, (major, minor))
        if self.size < file_len:
            problem = f"the file is cut: {self.size:,} of {file_len:,} bytes are there"
            self.refuse("cut", problem, self.size, file_len)
        extra = self.size - file_len
        problem = f"{extra:,} bytes too many at the end"
        self.check(extra == 0, "trailing-bytes", problem, self.size, file_len)
        self.check(header_len > 0, "header-empty", "the header has 0 bytes")
        said = f"a header of {header_len:,} bytes"
        problem = f"{said}; {layout.MAX_HEADER:,} is the limit"
        self.check(header_len <= layout.MAX_HEADER, "header-limit", problem)
        fits = layout.PREAMBLE_SIZE + header_len + layout.TRAILER_SIZE <= self.size
        self.check(fits, "header-past-end", f"{said} does not fit the file", header_len, self.size)
        return (major, minor), header_len

    def _explain_magic(self, head: bytes) -> None:
        whole = (b"\xc4\x1e" + layout.MAGIC).startswith(head)
        problem = f"the file ends after {self.size} bytes, inside its first 32"
        self.check(not whole, "short", problem, self.size)
        if head.startswith(b"\xc4\x1e\x89MGRD"):
            problem = "line ends were translated on the way (text mode); copy the file as binary"
            self.refuse("magic-newlines", problem)
        found = foreign.recognise(head, self.some_at(max(0, self.size - (64 << 10)), 64 << 10))
        if found:
            self.refuse(f"foreign-{found[0]}", f"this is {found[1]}", found[0], "MGRD 1")
        self.refuse("magic", "this is no minigrad file", head[:10], b"\xc4\x1e" + layout.MAGIC)

    def _read_header(self, version: tuple[int, int]) -> FileInfo:
        raw = self.bytes_at(layout.PREAMBLE_SIZE, self.header_len)
        try:
            header = headers.unpack(raw)
            headers.check(header, version)
        except Refusal as refusal:
            raise refusal.at(self.call, self.path) from None
        tensors = headers.tensor_infos(header, layout.first_payload(self.header_len))
        wanted = layout.file_length(self.header_len, [t.nbytes for t in tensors])
        problem = f"the tensors need {wanted:,} bytes"
        self.check(wanted == self.size, "file-length", problem, self.size, wanted)
        return FileInfo(
            header["kind"],
            version,
            header["producer"],
            header["meta"],
            tensors,
            header["aliases"],
            self.size,
            self.digest.hex(),
            header.get("state"),
        )

    # ---- payloads --------------------------------------------------------------

    def check_pads(self) -> None:
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

    def map(self) -> Any:
        """A function like `read` that gives views of one read-only mapping of the file."""
        try:
            whole = np.frombuffer(
                mapping.mmap(self.fd, self.size, access=mapping.ACCESS_READ), np.uint8
            )
        except OSError as error:
            raise unreadable(self.call, self.path, error) from error

        def view(tensor: TensorInfo) -> tuple[Array, int]:
            payload = whole[tensor.offset : tensor.offset + tensor.nbytes]
            return payload, zlib.crc32(payload.data)

        return view

    # ---- SHA-256 ---------------------------------------------------------------

    def expect_kind(self, kind: str) -> None:
        """Refuse weights where a checkpoint is wanted, and the reverse."""
        reader = "load_checkpoint" if self.info.kind == "checkpoint" else "load"
        problem = (
            f"this is a file of kind {self.info.kind!r}, not {kind!r}: "
            f"minigrad.files.{reader} reads it"
        )
        self.check(self.info.kind == kind, "kind", problem, self.info.kind, kind)

    def expect_sha256(self, sha256: str) -> None:
        """Refuse a file whose trailer states another SHA-256."""
        found = self.digest.hex()
        problem = f"the file's SHA-256 is {found}, not the one asked for"
        self.check(found == sha256.lower(), "sha256-other", problem, found, sha256)

    @contextlib.contextmanager
    def verifying(self) -> Iterator[None]:
        """For a large file, check the SHA-256 in a thread beside the block. If it is wrong, it is
        reported first.
        """
        if not self.verify_beside:
            yield
            return
        sums: list[bytes] = []

        def work() -> None:
            try:
                sums.append(self._sha256())
            except (
                FormatError
            ):  # unreadable or cut: then the digest stays wrong, and the block meets the same
                sums.append(b"")

        thread = threading.Thread(target=work)
        thread.start()
        cause = None
        try:
            yield
        except FormatError as error:
            cause = error
        finally:
            thread.join()
        self._compare(sums[0], cause)
        if cause:
            raise cause

    def _sha256(self) -> bytes:
        sha, end = hashlib.sha256(), self.size - layout.TRAILER_SIZE
        buffer = memoryview(bytearray(min(CHUNK, end)))
        for position in range(0, end, CHUNK):
            for part in self.chunks(position, buffer[: end - position]):
                sha.update(part)
        return sha.digest()

    def _compare(self, digest: bytes, cause: FormatError | None) -> None:
        problem = "the file is damaged: its SHA-256 is not the one it states" + (
            f" ({cause.problem})" if cause else ""
        )
        self.check(digest == self.digest, "sha256", problem, digest.hex(), self.digest.hex())
