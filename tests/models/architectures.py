"""The configs that the tests of models run with, one after the other."""

from minigrad.models import GPTConfig
from minigrad.models.gpt import ARCHITECTURES

NAMES = ["modern", "gpt2"]
current = NAMES[0]


def config(*sizes, **options):
    """A config of the architecture that the tests run with now, with weights that all matter: a
    block that is the identity would hide faults."""
    return GPTConfig(*sizes, **{**ARCHITECTURES[current], "init": "gpt2", **options})
