"""Whole models, generating with them, and models that others have trained (`load`)."""

from minigrad.models.bert import Bert, BertConfig
from minigrad.models.conversation import Conversation
from minigrad.models.generation import Beam, beam_search, generate_text, speculative_generate
from minigrad.models.gpt import GPT, GPTConfig
from minigrad.models.llama import Llama, LlamaConfig
from minigrad.models.published import load
from minigrad.models.sampling import Sampling

__all__ = [
    "GPT",
    "Beam",
    "Bert",
    "BertConfig",
    "Conversation",
    "GPTConfig",
    "Llama",
    "LlamaConfig",
    "Sampling",
    "beam_search",
    "generate_text",
    "load",
    "speculative_generate",
]
