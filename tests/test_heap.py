"""Arrays whose memory goes back to the system."""

import os

import numpy as np
import pytest

from minigrad.heap import clear_mapped, mapped_zeros
from tests.engine.test_graphs import resident


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_of_a_mapped_array_is_given_back_where_it_is_cleared_or_gone():
    size, before = 16 << 20, resident()
    x = mapped_zeros((2, size // 2), np.dtype(np.uint8))
    assert resident() - before < size / 4  # nothing is written yet
    x[...] = 1
    assert resident() - before > size * 0.9
    clear_mapped(x.swapaxes(0, 1))
    assert not x[:, :: size // 8].any() and resident() - before < size / 4
    x[...] = 1
    del x
    assert resident() - before < size / 4


def test_small_arrays_are_cleared_in_place():
    x = mapped_zeros((3, 4), np.dtype(np.float32))
    x[...] = 1
    clear_mapped(x[1:])
    assert x.tolist() == [[1] * 4, [0] * 4, [0] * 4]
