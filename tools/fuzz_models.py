"""Feed `minigrad.models.load` with GGUF files and config.json files that are wrong on purpose.

    python tools/fuzz_models.py --runs 100000 [--seed 0]

Every input begins as a small good model. In a GGUF file, bytes of the header are changed, cut,
repeated or swapped, or a length becomes a large one; in a config.json, values become others. What
must hold: nothing but FormatError comes out, within five seconds and 256 MiB.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gguf_bytes import small_llama

import minigrad
from minigrad.errors import FormatError
from minigrad.models import load

SECONDS, BYTES = 5.0, 256 << 20
NUMBERS = [0, 1, 2, 3, 7, 8, 9, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1]
VALUES: list[Any] = [None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308]
VALUES += [float("nan"), "", "x", "silu", [], [1], {}, {"type": "linear", "factor": -1}]
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
}


def changed(raw: bytes, header: int, rng: random.Random) -> bytes:
    """A GGUF file with one to four changes in its header."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(header), rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            number = rng.choice(NUMBERS)
            size = 8 if number >= 2**32 or rng.random() < 0.5 else 4
            data[at : at + size] = number.to_bytes(size, "little")
        elif kind == 3:
            del data[at : at + rng.randint(1, 16)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        else:
            del data[rng.randrange(len(data)) :]
        header = min(header, max(len(data), 1))
        if not data:
            break
    return bytes(data)


def changed_config(rng: random.Random) -> str:
    """A config.json with some values changed, or a damaged one."""
    config = dict(CONFIG)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*CONFIG, "rope_parameters", "activation_function"])
        if rng.random() < 0.15:
            config.pop(key, None)
        elif rng.random() < 0.15:
            config[key] = rng.choice(["gpt2", "bert", "qwen2", "qwen3", "t5"])
        else:
            config[key] = rng.choice(VALUES)
    raw = json.dumps(config)
    if rng.random() < 0.1:
        raw = raw[: rng.randrange(len(raw))] + "[" * rng.choice([1, 100_000])
    return raw


def judge(path: Path, outcomes: collections.Counter[str], name: str) -> str | None:
    """Load the input; the fault, or None."""
    began = time.process_time()
    try:
        load(path)
        outcomes[f"{name} accepted"] += 1
    except FormatError as error:
        outcomes[f"{name} {error.code}"] += 1
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    took = time.process_time() - began
    return f"{took:.1f} s" if took > SECONDS else None


def make_folder(folder: Path, gguf: Path) -> None:
    """A folder with weights and a tokenizer, for config.json files."""
    heads = {"q": 16, "k": 8, "v": 8}
    shapes = {f"model.layers.0.self_attn.{k}_proj.weight": (n, 16) for k, n in heads.items()}
    shapes |= {"model.embed_tokens.weight": (32, 16), "model.norm.weight": (16,)}
    shapes |= {"model.layers.0.self_attn.o_proj.weight": (16, 16)}
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"model.layers.0.{name}.weight"] = (16,)
    for name, shape in {"gate": (24, 16), "up": (24, 16), "down": (16, 24)}.items():
        shapes[f"model.layers.0.mlp.{name}_proj.weight"] = shape
    folder.mkdir()
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    minigrad.save(folder / "model.safetensors", weights)
    (folder / "tokenizer.json").write_text(load(gguf)[1].content, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    load(folder)


def main() -> int:
    """Run from the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    good = small_llama()
    header = good.index(b"output_norm.weight") + 1500
    with tempfile.TemporaryDirectory() as place:
        gguf, folder = Path(place, "input.gguf"), Path(place, "folder")
        gguf.write_bytes(good)
        load(gguf)
        make_folder(folder, gguf)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for run in range(arguments.runs):
            rng = random.Random(f"{arguments.seed} {run}")
            if run % 4:
                gguf.write_bytes(changed(good, header, rng))
                fault = judge(gguf, outcomes, "GGUF")
            else:
                (folder / "config.json").write_text(changed_config(rng), encoding="utf-8")
                fault = judge(folder, outcomes, "config.json")
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
            if fault is None and grown > BYTES:
                fault = f"{grown >> 20} MiB more memory"
            if fault:
                print(f"run {run} of seed {arguments.seed}: {fault}", file=sys.stderr)
                return 1
    print(f"{arguments.runs:,} inputs, no failure")
    for name, count in outcomes.most_common():
        print(f"  {count:8,} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
