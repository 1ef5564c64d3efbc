"""The functions of `minigrad.functional`, by the place where PyTorch has them."""

from minigrad.functional import *  # noqa: F403
