"""The Tensor. `core` has the class and the door that every op goes through; the methods are in the
files named after what they do.
"""

from minigrad.tensor.core import Tensor as Tensor
