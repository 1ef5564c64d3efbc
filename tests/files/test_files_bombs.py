"""Small files that would cost much time or memory, if the readers let them."""

import contextlib
import time
import tracemalloc

import msgpack
import pytest
from forging import entry, forge, header

from minigrad.errors import FormatError
from minigrad.files import load, load_checkpoint, peek


def cost(content, tmp_path, read=load):
    """(seconds of processor time, bytes of memory at the most) of reading a file that is refused or not."""
    path = tmp_path / "bomb.mgrd"
    path.write_bytes(content)
    start = time.process_time()
    with contextlib.suppress(FormatError):
        read(path)
    seconds = time.process_time() - start
    tracemalloc.start()
    try:
        with contextlib.suppress(FormatError):
            read(path)
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def late_duplicate(n):
    """A file whose meta holds a map of n sorted keys, the last of them twice."""
    keys = [msgpack.packb(f"{i:05d}") + b"\0" for i in [*range(n - 1), n - 2]]
    inner = b"\x81\xa1x\xde" + n.to_bytes(2, "big") + b"".join(keys)
    return forge(msgpack.packb(header(meta={"x": 0})).replace(b"\x81\xa1x\0", inner))


def test_a_late_duplicate_among_65535_keys_is_found_in_linear_time(tmp_path):
    path = tmp_path / "bomb.mgrd"
    path.write_bytes(late_duplicate(65_535))
    with pytest.raises(FormatError) as caught:
        load(path)
    assert caught.value.code == "header-duplicate-key"
    seconds, memory = cost(late_duplicate(65_535), tmp_path)
    assert seconds < 3 and memory < 64 * path.stat().st_size  # it was 34 s


@pytest.mark.parametrize("read", [load_checkpoint, peek])
def test_a_deep_and_wide_state_takes_little_memory(read, tmp_path):
    state = 0
    for _ in range(25):
        state = [0] * 20_000 + [state]
    content = forge(header(kind="checkpoint", state={"a": state}, meta={}, aliases={}))
    assert cost(content, tmp_path, read)[1] < 64 * len(content)


@pytest.mark.parametrize("change", [
    {"format": "x" * 60_000}, {"kind": ["x" * 60_000] * 20}, {"aliases": {"tied": ["x" * 60_000] * 20}}, {"requires": ["x" * 60_000]},
    {"tensors": [entry("a", "x" * 60_000, [2], b"")]}, {"x" * 60_000: 1},
])  # fmt: skip
def test_an_error_line_is_short_however_long_the_field(change, tmp_path):
    path = tmp_path / "long.mgrd"
    path.write_bytes(forge(header(**change)))
    with pytest.raises(FormatError) as caught:
        load(path)
    assert len(caught.value.problem) < 400 + len(str(path))
