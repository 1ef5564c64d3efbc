"""Views that are read as matrices by their strides alone, against numpy's reshape."""

import numpy as np
from hypothesis import given, strategies as st

from minigrad.compiler.products import joined_stride


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """An array whose axes are permuted, cut, reversed, repeated (stride 0) or of size 0 and 1."""
    shape = draw(st.lists(st.integers(0, 4), min_size=0, max_size=4))
    a = np.zeros(shape, np.float32).transpose(draw(st.permutations(range(len(shape)))))
    steps = [
        draw(st.sampled_from([slice(None)] * 3 + [slice(None, None, 2), slice(1, None)]))
        for _ in shape
    ]
    a = a[tuple(steps)]
    if draw(st.booleans()):
        a = np.broadcast_to(a, (3, *a.shape))
    return a


@given(views())
def test_axes_are_joined_exactly_where_numpy_needs_no_copy(a: np.ndarray) -> None:
    stride, flat = joined_stride(a.shape, a.strides), a.reshape(-1)
    if a.size > 1:
        assert (stride is not None) == np.shares_memory(flat, a)
        assert stride is None or stride == flat.strides[0]
    else:
        assert stride == 0
