"""Bytes of GGUF files, for tests and for the fuzzer: minigrad itself only reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

# name -> (number, numbers in a block, bytes of a block)
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "bf16": (30, 1, 2), "q4_0": (2, 32, 18)}
TYPES |= {"q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24), "q8_0": (8, 32, 34)}
TYPES |= {"q4_k": (12, 256, 144), "q5_k": (13, 256, 176), "q6_k": (14, 256, 210)}


def text(value: str) -> bytes:
    """A string with its length."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(x: Any) -> bytes:
    """A value of the meta with its type."""
    if isinstance(x, bool):
        return struct.pack("<I?", 7, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if isinstance(x, str):
        return struct.pack("<I", 8) + text(x)
    kind, pack = (8, text) if isinstance(x[0], str) else (6, lambda v: struct.pack("<f", v))
    if isinstance(x[0], int):
        kind, pack = 5, lambda v: struct.pack("<i", v)
    return struct.pack("<IIQ", 9, kind, len(x)) + b"".join(map(pack, x))


def gguf_bytes(
    meta: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]],
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A file of meta and tensors: name -> (type, shape, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(meta))
    head += b"".join(text(key) + value(x) for key, x in meta.items())
    offset, data = 0, b""
    for name, (kind, shape, raw) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += struct.pack("<IQ", TYPES[kind][0], offset)
        data += raw + b"\0" * (-len(raw) % alignment)
        offset = len(data)
    return head + b"\0" * (-len(head) % alignment) + data


PIECES = ["<unk>", "<s>", "</s>", *"abcdefghijklmnop0123", "Ġ", "ab", "cd", "abcd", "Ġa", "!"]
MERGES = ["a b", "c d", "ab cd", "Ġ a"]


def small_llama(kind: str = "q8_0", seed: int = 0) -> bytes:
    """A whole Llama with a vocabulary: 2 layers, 2 heads of 16, random weights of a type."""
    rng, C, hidden = np.random.default_rng(seed), 32, 64
    _, block, nbytes = TYPES[kind]

    def matrix(rows: int, width: int) -> tuple[str, tuple[int, ...], bytes]:
        raw = rng.integers(0, 256, (rows * width // block, nbytes)).astype(np.uint8)
        raw[:, :2] = np.full((len(raw), 1), 0.002, np.float16).view(np.uint8)
        if kind.endswith("_1"):
            raw[:, 2:4] = np.full((len(raw), 1), -0.015, np.float16).view(np.uint8)
        return kind, (rows, width), raw.tobytes()

    def vector(n: int) -> tuple[str, tuple[int, ...], bytes]:
        return "f32", (n,), rng.uniform(0.5, 1.5, n).astype("<f4").tobytes()

    tensors = {"token_embd.weight": matrix(len(PIECES), C), "output_norm.weight": vector(C)}
    for i in range(2):
        sizes = {"attn_q": (C, C), "attn_k": (C // 2, C), "attn_v": (C // 2, C)}
        sizes |= {"attn_output": (C, C), "ffn_gate": (hidden, C), "ffn_up": (hidden, C)}
        sizes |= {"ffn_down": (C, hidden)}
        tensors |= {f"blk.{i}.{name}.weight": matrix(*size) for name, size in sizes.items()}
        tensors |= {f"blk.{i}.{name}.weight": vector(C) for name in ("attn_norm", "ffn_norm")}
    meta = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 64,
        "llama.embedding_length": C,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": PIECES,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(PIECES) - 3),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }
    return gguf_bytes(meta, tensors)
