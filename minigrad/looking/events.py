"""TensorBoard's event files: scalars, texts and histograms, written without TensorBoard.

A file is a row of records, each an `Event` message:

    uint64 length | uint32 masked CRC of those 8 bytes | data | uint32 masked CRC of the data
    all little-endian

The framing is TFRecord's (tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details");
the mask turns the CRC right by 15 bits and adds 0xa282ead8, so that the CRC of data with CRCs in
them stays sound. The CRC is CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), as in RFC 3720,
section 12.1, with test vectors in its appendix B.4. The messages are protocol buffers
(protobuf.dev/programming-guides/encoding): each field is a key, number * 8 + wire type, and its
value; their numbers are those of event.proto, summary.proto, histogram.proto and tensor.proto in
tensorboard/compat/proto.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from minigrad.errors import ConfigError, DTypeError
from minigrad.looking.metrics import Run
from minigrad.tensor import Tensor

_TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
}  # side by side in one group; others are a group each
_NOT_DRAWN = {"step", "time"}


class EventWriter:
    """Writes an event file that TensorBoard shows: `tensorboard --logdir FOLDER`.

        with EventWriter("logs/run-1") as events:
            events.add_scalar("loss/train", 2.5, step=10)

    Called with a report of the Trainer it writes the report's numbers: a callback. Every record is
    on its way to the disk when `add_...` returns, so that TensorBoard can be watched during
    training. name: of the file, which is then written anew; a new name for every writer unless
        given.
    """

    def __init__(self, folder: str | os.PathLike[str], *, name: str | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder whose names hold "tfevents", in the order of their
        # names.
        own = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.perf_counter_ns()}"
        self.path = self.folder / (own if name is None else name)
        self._file = open(self.path, "wb")  # noqa: SIM115 (open until close)
        self._write(_text(3, "brain.Event:2"), None, time.time())

    def add_scalar(self, tag: str, value: float, step: int, wall_time: float | None = None) -> None:
        """A point of the curve `tag`; "loss/train" and "loss/validation" stand in one group.
        wall_time: Unix seconds, now unless given.
        """
        number = _number("add_scalar", value)
        self._summary(tag, _float(2, number), step, wall_time)

    def add_text(self, tag: str, text: str, step: int = 0, wall_time: float | None = None) -> None:
        """A text, which TensorBoard shows as Markdown."""
        plugin = _message(
            9, _message(1, _text(1, "text"))
        )  # SummaryMetadata.plugin_data.plugin_name
        tensor = (
            _varint(1, 7) + _message(2, _message(2, _varint(1, 1))) + _text(8, text)
        )  # DT_STRING, of shape (1,)
        self._summary(tag, plugin + _message(8, tensor), step, wall_time)

    def add_histogram(
        self, tag: str, values: Any, step: int, bins: int = 30, wall_time: float | None = None
    ) -> None:
        """How values (a Tensor or an array; NaN and infinity are left out) are spread, in `bins`
        buckets of one width.
        """
        array = np.asarray(
            values.numpy() if isinstance(values, Tensor) else values, np.float64
        ).reshape(-1)
        array = array[np.isfinite(array)]
        counts, edges = np.histogram(array, bins) if len(array) else (np.zeros(1), np.zeros(2))
        facts = (
            (array.min(), array.max(), len(array), array.sum(), np.square(array).sum())
            if len(array)
            else (0,) * 5
        )
        # HistogramProto: min, max, num, sum, sum_squares; then the right edge of each bucket and
        # its count. The first reaches from -inf to its edge, so an empty one is put before the
        # others, up to the smallest value.
        histogram = b"".join(_double(i, float(fact)) for i, fact in enumerate(facts, 1))
        histogram += _doubles(6, edges) + _doubles(7, [0.0, *counts])
        self._summary(tag, _message(5, histogram), step, wall_time)

    def __call__(self, report: Any) -> None:
        """Write the numbers of a report, or of a mapping with the keys of metrics.jsonl: loss,
        val_loss, lr, grad_norm, tokens_per_second.
        """
        facts: Mapping[str, Any] = report if isinstance(report, Mapping) else vars(report)
        for name in ("loss", "val_loss", "lr", "grad_norm", "tokens_per_second"):
            if facts.get(name) is not None:
                self.add_scalar(
                    _TAGS.get(name, name), facts[name], facts["step"], facts.get("time")
                )

    def close(self) -> None:
        """Close the file; nothing is written by it any more."""
        self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _summary(self, tag: str, value: bytes, step: int, wall_time: float | None) -> None:
        if self._file.closed:
            raise ConfigError(
                "EventWriter",
                f"{self.path} is closed",
                got=tag,
                wanted="an open writer",
                hint="make a new EventWriter",
            )
        self._write(
            _message(5, _message(1, _text(1, tag) + value)),
            step,
            time.time() if wall_time is None else wall_time,
        )

    def _write(self, content: bytes, step: int | None, wall_time: float) -> None:
        event = _double(1, wall_time) + (b"" if step is None else _varint(2, _step(step))) + content
        length = struct.pack("<Q", len(event))
        self._file.write(
            length
            + struct.pack("<I", masked_crc32c(length))
            + event
            + struct.pack("<I", masked_crc32c(event))
        )
        self._file.flush()


def export_runs(runs: Sequence[Run], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the numbers of each run to an event file in a folder of its name; returns the files.
    What an earlier export wrote is replaced.
    """
    written = []
    for run in runs:
        with EventWriter(
            Path(folder, *run.name.split("/")), name="events.out.tfevents.0000000000.metrics"
        ) as events:
            for record in run.records:
                for name in [name for name in record if name not in _NOT_DRAWN]:
                    events.add_scalar(
                        _TAGS.get(name, name), record[name], int(record["step"]), record.get("time")
                    )
        written.append(events.path)
    return written


def _number(call: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DTypeError(
            call,
            f"{value!r} is no number",
            got=value,
            wanted="a number",
            hint="one number per call",
        ) from None


def _step(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step < 1 << 63:
        raise DTypeError(
            "EventWriter", f"step={step!r} is no step", got=step, wanted="a whole number from 0 on"
        )
    return int(step)


# --- CRC-32C


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of the data, byte by byte: crc32c(b"123456789") == 0xe3069283."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C as records have it: turned right by 15 bits, plus 0xa282ead8."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- protocol buffers: fields by number


def _plain_varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that there are more."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(field: int, value: int) -> bytes:
    return _plain_varint(field << 3) + _plain_varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _plain_varint(field << 3 | 2) + _plain_varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "replace"))


def _double(field: int, value: float) -> bytes:
    return _plain_varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    with np.errstate(over="ignore"):  # beyond float32 there is infinity
        return _plain_varint(field << 3 | 5) + np.array(value, "<f4").tobytes()


def _doubles(field: int, values: Any) -> bytes:
    return _message(field, np.asarray(values, "<f8").tobytes())
