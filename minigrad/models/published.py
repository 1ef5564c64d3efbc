"""Models that others have trained, from GGUF files and from folders of safetensors.

    model, tokenizer = minigrad.models.load("SmolLM2-135M-Instruct.Q4_1.gguf")

The file's settings become a config, its names those of our modules; whatever does not fit is a
FormatError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.dtypes import Array, as_dtype, float32
from minigrad.errors import DTypeError, FormatError, MinigradError
from minigrad.files.formats import load as load_file
from minigrad.files.gguf import load_gguf
from minigrad.files.header import shortened
from minigrad.files.layout import DTYPE_NAMES
from minigrad.models.bert import Bert, BertConfig
from minigrad.models.gpt import GPT, GPTConfig
from minigrad.models.llama import Llama, LlamaConfig
from minigrad.nn import init
from minigrad.nn.module import Module
from minigrad.nn.quantised import Blocks, QuantisedWeight, StackedWeight
from minigrad.text.published import (
    PublishedTokenizer,
    read_json,
    tokenizer_of_folder,
    tokenizer_of_gguf,
)

_CALL = "models.load"
Weight = Any  # an Array, a QuantisedWeight or a StackedWeight
Names = Mapping[str, str]  # our name -> theirs, {i} the layer, {a,b,c} several one above the other


def load(
    path: str | Path, *, dtype: Any = None, int8: bool = False
) -> tuple[Any, PublishedTokenizer]:
    """Return a published model and its tokenizer: of a .gguf file (llama, qwen2, qwen3, gemma3), or
    of a folder with config.json, tokenizer.json and safetensors (those, gpt2 and bert).

    dtype: "float32" for weights in float32, which are exact, can be trained, and take 4 bytes each;
        None leaves the matrices of Llama-type models as they are stored, frozen, in 4 to 16 bits.
    int8: products with weights of 4 to 8 bits round what they multiply to the sum of two int8 and
        run in C: tokens come several times as fast, logits differ by about 1e-4.

    Raises FormatError for a file that does not fit and for an architecture that is not supported,
    MissingFileError, MissingDependencyError without tokenizers or safetensors.
    """
    if dtype is not None and as_dtype(dtype, _CALL) != float32:
        problem = f"dtype must be None or float32, got {dtype!r}"
        raise DTypeError(_CALL, problem, got=dtype, wanted="float32")
    path, frozen = Path(path), dtype is None
    with _fitting(path):
        model, tokenizer = _of_path(path, frozen)
    if int8:
        from minigrad.models.decoding import use_int8

        use_int8(model)
    return model, tokenizer


def _of_path(path: Path, frozen: bool) -> tuple[Any, PublishedTokenizer]:
    if path.is_dir():
        tensors = _of_folder(path)
        model = _build(read_json(path / "config.json"), tensors, frozen)
        if isinstance(model, Bert):
            _cut(model, read_json(path / "sentence_bert_config.json", optional=True))
        return model, tokenizer_of_folder(path)
    file = load_gguf(path)
    stored = {
        t.name: Stored(t.dtype, t.shape, file[t.name], file[t.name]) for t in file.info.tensors
    }
    return _build_gguf(file.meta, stored, frozen), tokenizer_of_gguf(file.meta)


@contextlib.contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Turn whatever a damaged config raises into a FormatError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        problem = error.problem if isinstance(error, MinigradError) else repr(error)
        problem = f"{path}: the settings or the weights do not fit: {problem}"
        raise FormatError(_CALL, problem, code="model") from error


class Stored(NamedTuple):
    """A tensor of a file: its format, its shape, and (rows, bytes) of uint8."""

    kind: str
    shape: tuple[int, ...]
    blocks: Array
    plain: Array  # the values, where they need no decoding

    def values(self) -> Array:
        """The values in float32."""
        if self.kind == "f32" and self.plain.dtype == np.float32:
            return self.plain.reshape(self.shape)
        rows = QuantisedWeight(self.kind, (len(self.blocks), self.shape[-1]), self.blocks)
        return rows.dequantise().reshape(self.shape)


def _of_folder(folder: Path) -> dict[str, Stored]:
    """The tensors of model.safetensors, or of the files that its index names."""
    index = read_json(folder / "model.safetensors.index.json", optional=True)
    files = sorted({str(name) for name in index.get("weight_map", {}).values()})
    found: dict[str, Stored] = {}
    for name in files or ["model.safetensors"]:
        if Path(name).name != name:
            raise FormatError(_CALL, f"the index names {name!r}", code="index")
        for key, array in load_file(folder / name).items():
            rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
            raw = np.ascontiguousarray(rows).view(np.uint8)
            found[key] = Stored(DTYPE_NAMES[array.dtype], array.shape, raw, array)
    return found


# --- architectures

_BLOCK = {
    "h.{i}.ln_1.weight": "input_layernorm.weight",
    "h.{i}.attn.in_proj_weight": "self_attn.{q,k,v}_proj.weight",
    "h.{i}.attn.in_proj_bias": "self_attn.{q,k,v}_proj.bias",
    "h.{i}.attn.q_norm.weight": "self_attn.q_norm.weight",
    "h.{i}.attn.k_norm.weight": "self_attn.k_norm.weight",
    "h.{i}.attn.out_proj.weight": "self_attn.o_proj.weight",
    "h.{i}.ln_2.weight": "post_attention_layernorm.weight",
    "h.{i}.mlp.gate_proj.weight": "mlp.gate_proj.weight",
    "h.{i}.mlp.up_proj.weight": "mlp.up_proj.weight",
    "h.{i}.mlp.down_proj.weight": "mlp.down_proj.weight",
}
_LLAMA: Names = {
    "wte.weight": "model.embed_tokens.weight",
    **{ours: f"model.layers.{{i}}.{theirs}" for ours, theirs in _BLOCK.items()},
    "ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_AROUND = {"post_1": "post_attention", "ln_2": "pre_feedforward", "post_2": "post_feedforward"}
_GEMMA: Names = {
    **_LLAMA,
    **{
        f"h.{{i}}.{ours}.weight": f"model.layers.{{i}}.{theirs}_layernorm.weight"
        for ours, theirs in _AROUND.items()
    },
}
_GGUF: Names = {
    "wte.weight": "token_embd.weight",
    "h.{i}.ln_1.weight": "blk.{i}.attn_norm.weight",
    "h.{i}.attn.in_proj_weight": "blk.{i}.attn_{q,k,v}.weight",
    "h.{i}.attn.in_proj_bias": "blk.{i}.attn_{q,k,v}.bias",
    "h.{i}.attn.q_norm.weight": "blk.{i}.attn_q_norm.weight",
    "h.{i}.attn.k_norm.weight": "blk.{i}.attn_k_norm.weight",
    "h.{i}.attn.out_proj.weight": "blk.{i}.attn_output.weight",
    "h.{i}.post_1.weight": "blk.{i}.post_attention_norm.weight",
    "h.{i}.ln_2.weight": "blk.{i}.ffn_norm.weight",
    "h.{i}.post_2.weight": "blk.{i}.post_ffw_norm.weight",
    "h.{i}.mlp.gate_proj.weight": "blk.{i}.ffn_gate.weight",
    "h.{i}.mlp.up_proj.weight": "blk.{i}.ffn_up.weight",
    "h.{i}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight",
    "ln_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def _with_bias(names: Names) -> Names:
    """A row for the weight and one for the bias of each: `*` in our name stands for them."""
    return {
        ours.replace("*", p): f"{theirs}.{p}"
        for p in ("weight", "bias")
        for ours, theirs in names.items()
    }


_BERT: Names = {
    "wte.weight": "embeddings.word_embeddings.weight",
    "wpe.weight": "embeddings.position_embeddings.weight",
    "wtt.weight": "embeddings.token_type_embeddings.weight",
    **_with_bias(
        {
            "ln.*": "embeddings.LayerNorm",
            "h.{i}.attn.in_proj_*": "encoder.layer.{i}.attention.self.{query,key,value}",
            "h.{i}.attn.out_proj.*": "encoder.layer.{i}.attention.output.dense",
            "h.{i}.ln_1.*": "encoder.layer.{i}.attention.output.LayerNorm",
            "h.{i}.mlp.c_fc.*": "encoder.layer.{i}.intermediate.dense",
            "h.{i}.mlp.c_proj.*": "encoder.layer.{i}.output.dense",
            "h.{i}.ln_2.*": "encoder.layer.{i}.output.LayerNorm",
        }
    ),
}
_GPT2: Names = {
    "wte.weight": "wte.weight",
    "wpe.weight": "wpe.weight",
    **_with_bias(
        {
            "h.{i}.ln_1.*": "h.{i}.ln_1",
            "h.{i}.attn.in_proj_*": "h.{i}.attn.c_attn",
            "h.{i}.attn.out_proj.*": "h.{i}.attn.c_proj",
            "h.{i}.ln_2.*": "h.{i}.ln_2",
            "h.{i}.mlp.c_fc.*": "h.{i}.mlp.c_fc",
            "h.{i}.mlp.c_proj.*": "h.{i}.mlp.c_proj",
            "ln_f.*": "ln_f",
        }
    ),
}
_TANH = ("gelu_new", "gelu_pytorch_tanh")
_ACTIVATIONS = {"llama": ("silu",), "gpt2": _TANH, "bert": ("gelu",), "gemma3_text": _TANH}
_LLAMAS = ("llama", "qwen2", "qwen3")
_ACTS = ("hidden_act", "hidden_activation", "activation_function")
_EVERY = 6  # every sixth layer of Gemma 3 sees everything


def _build(config: Mapping[str, Any], tensors: Mapping[str, Stored], frozen: bool) -> Module:
    """The model that a config.json describes, with its weights."""
    kind, prefix = config.get("model_type"), ""
    if kind not in (*_LLAMAS, "gemma3_text", "gpt2", "bert"):
        raise _unsupported("models of the type", kind, [*_LLAMAS, "gemma3_text", "gpt2", "bert"])
    act = next((config[k] for k in _ACTS if k in config), None)
    if act is not None and act not in _ACTIVATIONS.get(kind, _ACTIVATIONS["llama"]):
        raise _unsupported(f"{kind} models with the activation", act)
    for prefix in ("", "bert.", "transformer."):
        if any(name.startswith(prefix) for name in tensors) and prefix:
            break
    else:
        prefix = ""

    def read(name: str) -> Stored:
        return _named(tensors, prefix + name)

    if kind == "gpt2":
        return _gpt2(config, read, len(tensors))
    if kind == "bert":
        return _bert(config, read, len(tensors))
    if kind == "gemma3_text":
        return _gemma(config, read, tensors, frozen)
    model = _make(Llama, _llama(config, kind, tensors))
    _fill(model, _LLAMA, read, frozen)
    return model


def _gemma(
    config: Mapping[str, Any],
    read: Callable[[str], Stored],
    tensors: Mapping[str, Stored],
    frozen: bool,
) -> Llama:
    """Gemma 3, whose norms multiply by 1 + weight, and whose queries have a scale of their own."""
    for name in ("final_logit_softcapping", "attn_logit_softcapping"):
        if config.get(name) is not None:
            raise _unsupported("gemma3_text models with", name)
    ropes = config.get("rope_parameters") or {}
    scaling = {"rope_theta": config.get("rope_theta", 1e6), **(config.get("rope_scaling") or {})}
    rope = {"rope_parameters": ropes.get("full_attention", scaling)}
    plain = _llama({**config, **rope}, "qwen3", tensors)
    every = config.get("sliding_window_pattern", _EVERY)
    kinds = config.get("layer_types") or [
        "sliding_attention" if (i + 1) % every else "full_attention" for i in range(plain.n_layer)
    ]
    full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    parts = _gemma_parts(plain.n_embd, config["sliding_window"], full)
    local = config.get("rope_local_base_freq", 10000.0)
    parts["local_base"] = ropes.get("sliding_attention", {}).get("rope_theta", local)
    model = _make(Llama, replace(plain, **parts))
    asked = config.get("query_pre_attn_scalar", plain.head_dim)

    def raised(name: str) -> Stored:
        stored = read(name)
        if not name.endswith("norm.weight"):
            return stored
        scale = (plain.head_dim / asked) ** 0.5 if name.endswith("q_norm.weight") else 1.0
        values = np.asarray((1 + stored.values()) * scale, np.float32)
        return Stored("f32", values.shape, values.view(np.uint8), values)

    _fill(model, _GEMMA, raised, frozen)
    return model


def _gemma_parts(width: int, window: int, full: tuple[int, ...]) -> dict[str, Any]:
    parts = {"mlp": "geglu", "post_norm": True, "embedding_scale": width**0.5}
    return {**parts, "window": window, "full": full}


def _llama(config: Mapping[str, Any], kind: str, tensors: Mapping[str, Stored]) -> LlamaConfig:
    rope = config.get("rope_parameters") or {}
    scaling = rope or config.get("rope_scaling") or {}
    scaled = scaling.get("rope_type", scaling.get("type", "default")) != "default"
    scaling = {k: v for k, v in scaling.items() if k != "rope_theta"} if scaled else None
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return LlamaConfig(
        vocab_size=config["vocab_size"],
        block_size=config["max_position_embeddings"],
        n_layer=_at_most(config["num_hidden_layers"], len(tensors)),
        n_head=heads,
        n_kv_head=config.get("num_key_value_heads") or heads,
        n_embd=width,
        hidden=config["intermediate_size"],
        head_dim=config.get("head_dim") or width // heads,
        norm_eps=config["rms_norm_eps"],
        rope_base=rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        rope_scaling=scaling,
        qkv_bias=kind == "qwen2" or config.get("attention_bias") is True,
        qk_norm=kind == "qwen3",
        tied=config.get("tie_word_embeddings") is True or "lm_head.weight" not in tensors,
    )


def _build_gguf(meta: Mapping[str, Any], tensors: Mapping[str, Stored], frozen: bool) -> Module:
    """The model that the meta of a GGUF file describes, with its weights."""
    kind = meta.get("general.architecture")
    if kind not in (*_LLAMAS, "gemma3"):
        raise _unsupported("GGUF files of the architecture", kind, [*_LLAMAS, "gemma3"])

    def own(name: str, *default: Any) -> Any:
        return meta.get(f"{kind}.{name}", *default) if default else meta[f"{kind}.{name}"]

    heads, width = own("attention.head_count"), own("embedding_length")
    scaling = {"type": own("rope.scaling.type", "none"), "factor": own("rope.scaling.factor", 1.0)}
    layers, parts = _at_most(own("block_count"), len(tensors)), dict[str, Any]()
    if kind == "gemma3":
        full = tuple(range(_EVERY - 1, layers, _EVERY))
        parts = _gemma_parts(width, own("attention.sliding_window"), full)
    if "rope_freqs.weight" in tensors:  # Llama 3 stores its scaling as a divisor per pair
        parts["rope_divisors"] = tensors["rope_freqs.weight"].values().tolist()
    model = _make(
        Llama,
        LlamaConfig(
            vocab_size=_named(tensors, "token_embd.weight").shape[0],
            block_size=own("context_length"),
            n_layer=layers,
            n_head=heads,
            n_kv_head=own("attention.head_count_kv", heads),
            n_embd=width,
            hidden=own("feed_forward_length"),
            head_dim=own("attention.key_length", width // heads),
            norm_eps=own("attention.layer_norm_rms_epsilon"),
            rope_base=own("rope.freq_base", 10000.0),
            rope_layout="interleaved" if kind == "llama" else "half",
            rope_scaling=scaling if scaling["type"] != "none" else None,
            qkv_bias="blk.0.attn_q.bias" in tensors,
            qk_norm="blk.0.attn_q_norm.weight" in tensors,
            tied="output.weight" not in tensors,
            **parts,
        ),
    )
    _fill(model, _GGUF, lambda name: _named(tensors, name), frozen)
    return model


def _gpt2(config: Mapping[str, Any], read: Callable[[str], Stored], most: int) -> GPT:
    """GPT-2, whose matrices are stored (in, out)."""
    width, inner = config["n_embd"], config.get("n_inner")
    if inner not in (None, 4 * width):
        raise _unsupported("gpt2 models with n_inner", inner, 4 * width)
    sizes = (config["vocab_size"], config["n_positions"], _at_most(config["n_layer"], most))
    model = _make(GPT, GPTConfig.gpt2(*sizes, config["n_head"], width))

    def turned(name: str) -> Stored:
        stored = read(name)
        if not name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            return stored
        values = np.ascontiguousarray(stored.values().T)
        return Stored("f32", values.shape, values.view(np.uint8), values)

    _fill(model, _GPT2, turned, frozen=False)
    return model


def _bert(config: Mapping[str, Any], read: Callable[[str], Stored], most: int) -> Bert:
    model = _make(
        Bert,
        BertConfig(
            vocab_size=config["vocab_size"],
            block_size=config["max_position_embeddings"],
            n_layer=_at_most(config["num_hidden_layers"], most),
            n_head=config["num_attention_heads"],
            n_embd=config["hidden_size"],
            hidden=config["intermediate_size"],
            n_type=config.get("type_vocab_size", 2),
            norm_eps=config.get("layer_norm_eps", 1e-12),
        ),
    )
    _fill(model, _BERT, read, frozen=False)
    return model


def _cut(model: Bert, config: Mapping[str, Any]) -> None:
    longest = config.get("max_seq_length")
    if longest is not None:
        vars(model.config)["longest"] = min(int(longest), model.config.block_size)


def _unsupported(what: str, got: Any, wanted: Any = None) -> FormatError:
    problem = f"{what} {shortened(got)} are not supported"
    return FormatError(_CALL, problem, code="unsupported", got=got, wanted=wanted)


# --- filling


def _at_most(layers: int, tensors: int) -> int:
    """A number of layers; a file has nine tensors and more for each."""
    if not 0 < 9 * layers <= tensors:
        problem = f"{layers} layers in a file of {tensors} tensors"
        raise FormatError(_CALL, problem, code="layers", got=layers)
    return layers


def _named(tensors: Mapping[str, Stored], name: str) -> Stored:
    if name not in tensors:
        raise FormatError(
            _CALL, f"the file has no tensor {name!r}", code="tensor-missing", got=name
        )
    return tensors[name]


def _make(kind: Callable[[Any], Any], config: Any) -> Any:
    with init.skipped():
        return kind(config).eval()


def _fill(model: Module, names: Names, read: Callable[[str], Stored], frozen: bool) -> None:
    """Give every parameter its weight. frozen: matrices that are not float32 stay as stored."""
    owners = dict(model.named_modules())
    for ours, parameter in list(model.named_parameters()):
        parts = [read(name) for name in _theirs(ours, names)]
        keep = frozen and parameter.ndim == 2 and any(part.kind != "f32" for part in parts)
        weight = _blocks(parts) if keep else np.concatenate([part.values() for part in parts])
        if weight.shape != parameter.shape:
            problem = f"{ours} of shape {weight.shape}, the settings make it {parameter.shape}"
            raise FormatError(
                _CALL, problem, code="shape", got=weight.shape, wanted=parameter.shape
            )
        owner, _, attribute = ours.rpartition(".")
        if isinstance(weight, np.ndarray):
            parameter.data = weight
        else:
            setattr(owners[owner], attribute, weight)


def _blocks(parts: list[Stored]) -> Blocks:
    if len(parts) > 1 and len({part.kind for part in parts}) == 1:  # one product instead of three
        rows = np.concatenate([part.blocks for part in parts])
        return QuantisedWeight(parts[0].kind, (len(rows), parts[0].shape[-1]), rows)
    weights = [QuantisedWeight(part.kind, part.shape, part.blocks) for part in parts]
    return weights[0] if len(weights) == 1 else StackedWeight(weights)


def _theirs(ours: str, names: Names) -> list[str]:
    """The names in the file of one of our parameters."""
    parts = ours.split(".")
    layer = parts[1] if parts[0] == "h" else ""
    pattern = names[ours.replace(f"h.{layer}.", "h.{i}.", 1) if layer else ours]
    pattern = pattern.replace("{i}", layer)
    before, brace, rest = pattern.partition("{")
    inside, _, after = rest.partition("}")
    return [f"{before}{part}{after}" for part in inside.split(",")] if brace else [pattern]
