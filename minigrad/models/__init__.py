"""Whole models, and generating with them."""

from minigrad.models.conversation import Conversation
from minigrad.models.generation import Beam, beam_search, generate_text, speculative_generate
from minigrad.models.gpt import GPT, GPTConfig
from minigrad.models.sampling import Sampling

__all__ = [
    "GPT",
    "Beam",
    "Conversation",
    "GPTConfig",
    "Sampling",
    "beam_search",
    "generate_text",
    "speculative_generate",
]
