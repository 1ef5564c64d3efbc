"""Whole models."""

from minigrad.models.gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig"]
