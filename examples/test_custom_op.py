"""Property tests for an op of one's own (examples/custom_op.py), as one would write them for any:
pytest examples/test_custom_op.py

For inputs of any shape that broadcasts: the value is the formula's, the gradients are those of
    finite differences, and a gradient has its operand's
shape. Needs hypothesis.
"""

import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes

sys.path.insert(0, str(Path(__file__).parent))
from custom_op import snake

from minigrad import Tensor
from minigrad.testing import gradcheck, gradgradcheck

SHAPES = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)


def operands(data):
    """x of ordinary size and a away from 0, of shapes that broadcast."""
    x_shape, a_shape = data.draw(SHAPES).input_shapes
    x = data.draw(arrays(np.float64, x_shape, elements=st.floats(-3, 3, width=32)))
    a = data.draw(arrays(np.float64, a_shape, elements=st.floats(0.25, 2, width=32)))
    return Tensor(x, requires_grad=True), Tensor(a, requires_grad=True)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_value_is_the_formula(data):
    x, a = operands(data)
    assert np.allclose(
        snake(x, a).numpy(), x.numpy() + (1 - np.cos(2 * a.numpy() * x.numpy())) / (2 * a.numpy())
    )


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_gradients_are_those_of_finite_differences_to_second_order(data):
    x, a = operands(data)
    assert gradcheck(snake, (x, a)) and gradgradcheck(snake, (x, a))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_gradient_has_its_operands_shape(data):
    x, a = operands(data)
    snake(x, a).sum().backward()
    assert x.grad.shape == x.shape and a.grad.shape == a.shape


def test_float32_stays_float32_and_integers_become_it():
    assert snake(Tensor([1.0, 2.0]), 1.0).dtype == np.float32
    assert snake(Tensor([1, 2]), 1.0).dtype == np.float32
