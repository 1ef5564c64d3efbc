"""Models that others have trained, from GGUF files and from folders of safetensors.

    model, tokenizer = minigrad.models.load("SmolLM2-135M-Instruct.Q4_1.gguf")

A file gives settings and tensors. The settings of a GGUF file get the names they have in a
config.json, from which the model's config is made; then every parameter takes the tensor that a
table names. Whatever does not fit is a FormatError.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.dtypes import Array, as_dtype, float32
from minigrad.errors import DTypeError, FormatError, MinigradError, MissingFileError
from minigrad.files.formats import load as load_file
from minigrad.files.gguf import load_gguf
from minigrad.files.header import shortened
from minigrad.files.layout import DTYPE_NAMES
from minigrad.files.opening import unreadable
from minigrad.models.bert import Bert, BertConfig
from minigrad.models.gpt import GPT, GPTConfig
from minigrad.models.llama import Llama, LlamaConfig
from minigrad.nn import init
from minigrad.nn.module import Module
from minigrad.nn.quantised import Blocks, QuantisedWeight, StackedWeight
from minigrad.ops.quantised import dequantise
from minigrad.text import published as text
from minigrad.text.published import PublishedTokenizer, read_json

_CALL = "models.load"
Settings = Mapping[str, Any]  # of a config.json
Names = Mapping[str, str]  # our name -> theirs, {i} the layer, {a,b,c} several one above the other


def load(
    path: str | Path, *, dtype: Any = None, int8: bool = False
) -> tuple[Any, PublishedTokenizer]:
    """Return a published model and its tokenizer: of a .gguf file (llama, qwen2, qwen3, gemma3), or
    of a folder with config.json, tokenizer.json and safetensors (those, gpt2 and bert). Rows of the
    embedding after the last token, which only fill it up, are left out.

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
    path = Path(path)
    with _fitting(path):
        model, tokenizer = (_of_folder if path.is_dir() else _of_gguf)(path, dtype is None)
    if int8:
        from minigrad.models.decoding import use_int8

        use_int8(model)
    return model, tokenizer


@contextlib.contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Turn whatever a damaged config raises into a FormatError that names the file."""
    try:
        yield
    except FormatError:
        raise
    except FileNotFoundError as error:
        problem = f"there is no file {error.filename}"
        raise MissingFileError(_CALL, problem, code="no-such-file") from None
    except OSError as error:
        raise unreadable(_CALL, str(error.filename), error) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problem = error.problem if isinstance(error, MinigradError) else repr(error)
        problem = f"{path}: the settings or the weights do not fit: {problem}"
        raise FormatError(_CALL, problem, code="model") from error


def _check(good: Any, code: str, problem: str, got: Any = None, wanted: Any = None) -> None:
    """Raise FormatError unless good."""
    if not good:
        raise FormatError(_CALL, problem, code=code, got=got, wanted=wanted)


# --- files


class Stored(NamedTuple):
    """A tensor of a file: its format, its shape, and (rows, bytes) of uint8."""

    kind: str
    shape: tuple[int, ...]
    blocks: Array

    def values(self) -> Array:
        """The values in float32."""
        return dequantise(self.blocks, self.kind).reshape(self.shape)


Tensors = Mapping[str, Stored]


def _of_folder(folder: Path, frozen: bool) -> tuple[Module, PublishedTokenizer]:
    sentences = read_json(folder / "sentence_bert_config.json", optional=True)
    config = {**sentences, **read_json(folder / "config.json")}
    kind = config.get("model_type", "")
    problem = f"models of the type {shortened(kind)} are not supported"
    _check(kind in _ARCHITECTURES, "unsupported", problem, kind, [*_ARCHITECTURES])
    architecture = _ARCHITECTURES[kind]
    act = next((config[name] for name in _ACTS if name in config), None)
    problem = f"{kind} models with the activation {shortened(act)} are not supported"
    _check(act in (None, *architecture.activations), "unsupported", problem, act)
    if kind == "bert":
        config["pooling"] = _pooling(folder)
    tokenizer = text.tokenizer_of_folder(folder)
    model = _build(architecture, config, _safetensors(folder), tokenizer, frozen)
    if kind == "gemma3_text":
        _raise_norms(model, config)
    return model, tokenizer


def _pooling(folder: Path) -> str:
    """How sentence-transformers makes the vector of a text."""
    found = read_json(folder / "1_Pooling" / "config.json", optional=True)
    on = [name for name, value in found.items() if name.startswith("pooling_mode_") and value]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    problem = f"the pooling {shortened(on)} of {folder} is not supported"
    _check(len(on) < 2 and known.keys() >= {*on}, "unsupported", problem, on, [*known])
    return known[on[0]] if on else "mean"


def _safetensors(folder: Path) -> dict[str, Stored]:
    """The tensors of model.safetensors, or of the files that its index names."""
    index = read_json(folder / "model.safetensors.index.json", optional=True)
    files = sorted({str(name) for name in index.get("weight_map", {}).values()})
    found: dict[str, Stored] = {}
    for file in files or ["model.safetensors"]:
        _check(Path(file).name == file, "index", f"the index names {shortened(file)}", file)
        for name, array in load_file(folder / file).items():
            raw = np.ascontiguousarray(array).view(np.uint8)  # with at least one axis
            stored = Stored(DTYPE_NAMES[array.dtype], array.shape, raw.reshape(-1, raw.shape[-1]))
            found[name.removeprefix("bert.").removeprefix("transformer.")] = stored
    return found


def _of_gguf(path: Path, frozen: bool) -> tuple[Module, PublishedTokenizer]:
    file = load_gguf(path)
    meta, kind = file.meta, file.meta.get("general.architecture", "")
    problem = f"GGUF files of the architecture {shortened(kind)} are not supported"
    _check(kind in _GGUF_KINDS, "unsupported", problem, kind, [*_GGUF_KINDS])
    tensors = {t.name: Stored(t.dtype, t.shape, file[t.name]) for t in file.info.tensors}
    config = {theirs: meta[f"{kind}.{name}"] for name, theirs in _GGUF_SETTINGS.items()}
    own = {theirs: f"{kind}.{name}" for name, theirs in _GGUF_OPTIONAL.items()}
    config |= {theirs: meta[name] for theirs, name in own.items() if name in meta}
    config["model_type"] = _GGUF_KINDS[kind]
    config["vocab_size"] = _named(tensors, "token_embd.weight").shape[0]
    scaling, factor = (f"{kind}.rope.scaling.{name}" for name in ("type", "factor"))
    config["rope_scaling"] = {"type": meta.get(scaling, "none"), "factor": meta.get(factor, 1.0)}
    options: dict[str, Any] = {"rope_layout": "interleaved" if kind == "llama" else "half"}
    head = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    turned = meta.get(f"{kind}.rope.dimension_count", head)
    problem = f"positions that turn {shortened(turned)} of {head} features are not supported"
    _check(turned == head, "unsupported", problem, turned, head)
    if divisors := tensors.pop("rope_freqs.weight", None):  # as Llama 3 stores its scaling
        options["rope_divisors"] = _fits(divisors, (head // 2,), "rope_freqs").values().tolist()
    architecture = _ARCHITECTURES[config["model_type"]]._replace(names=_GGUF)
    tokenizer = text.tokenizer_of_gguf(meta)
    return _build(architecture, config, tensors, tokenizer, frozen, **options), tokenizer


_GGUF_KINDS = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
_GGUF_SETTINGS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_GGUF_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
}

# --- names

_DECODERS = {  # ours: those of safetensors, and of GGUF files; each has a weight or a bias or both
    "wte": ("model.embed_tokens", "token_embd"),
    "h.{i}.ln_1": ("model.layers.{i}.input_layernorm", "blk.{i}.attn_norm"),
    "h.{i}.attn.in_proj": ("model.layers.{i}.self_attn.{q,k,v}_proj", "blk.{i}.attn_{q,k,v}"),
    "h.{i}.attn.q_norm": ("model.layers.{i}.self_attn.q_norm", "blk.{i}.attn_q_norm"),
    "h.{i}.attn.k_norm": ("model.layers.{i}.self_attn.k_norm", "blk.{i}.attn_k_norm"),
    "h.{i}.attn.out_proj": ("model.layers.{i}.self_attn.o_proj", "blk.{i}.attn_output"),
    "h.{i}.post_1": ("model.layers.{i}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
    "h.{i}.ln_2": ("model.layers.{i}.post_attention_layernorm", "blk.{i}.ffn_norm"),
    "h.{i}.post_2": ("model.layers.{i}.post_feedforward_layernorm", "blk.{i}.post_ffw_norm"),
    "h.{i}.mlp.gate_proj": ("model.layers.{i}.mlp.gate_proj", "blk.{i}.ffn_gate"),
    "h.{i}.mlp.up_proj": ("model.layers.{i}.mlp.up_proj", "blk.{i}.ffn_up"),
    "h.{i}.mlp.down_proj": ("model.layers.{i}.mlp.down_proj", "blk.{i}.ffn_down"),
    "ln_f": ("model.norm", "output_norm"),
    "lm_head": ("lm_head", "output"),
}
_LLAMA: Names = {ours: theirs for ours, (theirs, _) in _DECODERS.items()}
_GGUF: Names = {ours: theirs for ours, (_, theirs) in _DECODERS.items()}
_GEMMA: Names = {**_LLAMA, "h.{i}.ln_2": "model.layers.{i}.pre_feedforward_layernorm"}
_GPT2: Names = {
    **{name: name for name in ("wte", "wpe", "h.{i}.ln_1", "h.{i}.ln_2", "ln_f")},
    **{f"h.{{i}}.mlp.{name}": f"h.{{i}}.mlp.{name}" for name in ("c_fc", "c_proj")},
    "h.{i}.attn.in_proj": "h.{i}.attn.c_attn",
    "h.{i}.attn.out_proj": "h.{i}.attn.c_proj",
}
_BERT: Names = {
    "wte": "embeddings.word_embeddings",
    "wpe": "embeddings.position_embeddings",
    "wtt": "embeddings.token_type_embeddings",
    "ln": "embeddings.LayerNorm",
    "h.{i}.attn.in_proj": "encoder.layer.{i}.attention.self.{query,key,value}",
    "h.{i}.attn.out_proj": "encoder.layer.{i}.attention.output.dense",
    "h.{i}.ln_1": "encoder.layer.{i}.attention.output.LayerNorm",
    "h.{i}.mlp.c_fc": "encoder.layer.{i}.intermediate.dense",
    "h.{i}.mlp.c_proj": "encoder.layer.{i}.output.dense",
    "h.{i}.ln_2": "encoder.layer.{i}.output.LayerNorm",
}


def _theirs(ours: str, names: Names) -> list[str]:
    """The names in the file of one of our parameters."""
    layer = ours.split(".")[1]
    module, kind = re.split(r"[._](?=weight$|bias$)", ours.replace(f"h.{layer}.", "h.{i}.", 1))
    before, _, rest = names[module].replace("{i}", layer).partition("{")
    parts, _, after = rest.partition("}")
    return [f"{before}{part}{after}.{kind}" for part in parts.split(",")]


# --- architectures

Has = Callable[[str], bool]  # whether the file has what our parameter of this name needs
_SIZES = {  # ours: GPT-2's, and everybody's
    "vocab_size": ("vocab_size", "vocab_size"),
    "block_size": ("n_positions", "max_position_embeddings"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_embd": ("n_embd", "hidden_size"),
}


def _llama(config: Settings, sizes: Settings, has: Has) -> LlamaConfig:
    kind, heads, ropes = config["model_type"], sizes["n_head"], config.get("rope_parameters") or {}
    rope: Settings = ropes.get("full_attention", ropes) or config.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type", "default")) not in ("default", "none")
    base = config.get("rope_theta", 1e6 if kind == "gemma3_text" else 1e4)
    biased = kind == "qwen2" or config.get("attention_bias") is True
    return LlamaConfig(
        **sizes,
        n_kv_head=config.get("num_key_value_heads") or heads,
        hidden=config["intermediate_size"],
        head_dim=config.get("head_dim") or sizes["n_embd"] // heads,
        norm_eps=config["rms_norm_eps"],
        rope_base=rope.get("rope_theta", base),
        rope_scaling={k: v for k, v in rope.items() if k != "rope_theta"} if scaled else None,
        qkv_bias=biased or has("h.0.attn.in_proj_bias"),
        qk_norm=kind in ("qwen3", "gemma3_text"),
        tied=config.get("tie_word_embeddings") is True or not has("lm_head.weight"),
    )


def _gemma(config: Settings, sizes: Settings, has: Has) -> LlamaConfig:
    """Gemma 3, of whose layers every sixth sees everything."""
    every = config.get("sliding_window_pattern", 6)
    full = tuple(range(every - 1, sizes["n_layer"], every))
    if kinds := config.get("layer_types"):
        full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    return replace(
        _llama(config, sizes, has),
        mlp="geglu",
        post_norm=True,
        embedding_scale=sizes["n_embd"] ** 0.5,
        window=config["sliding_window"],
        full=full,
        local_base=local.get("rope_theta", config.get("rope_local_base_freq", 1e4)),
    )


def _raise_norms(model: Any, config: Settings) -> None:
    """Gemma's norms multiply by 1 + weight, and its queries have a scale of their own."""
    for norm in model.parameters():
        if norm.ndim == 1:
            norm.data = 1 + norm.data
    size = model.config.head_dim
    scale = (size / config.get("query_pre_attn_scalar", size)) ** 0.5
    for block in model.h:
        block.attn.q_norm.weight.data *= scale


def _gpt2(config: Settings, sizes: Settings, _: Has) -> GPTConfig:
    inner, usual = config.get("n_inner"), 4 * sizes["n_embd"]
    problem = f"gpt2 models with n_inner {shortened(inner)} are not supported"
    _check(inner in (None, usual), "unsupported", problem, inner, usual)
    return GPTConfig.gpt2(**sizes)


def _bert(config: Settings, sizes: Settings, _: Has) -> BertConfig:
    longest = config.get("max_seq_length")
    return BertConfig(
        **sizes,
        hidden=config["intermediate_size"],
        n_type=config.get("type_vocab_size", 2),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        pooling=config["pooling"],
        longest=None if longest is None else min(int(longest), sizes["block_size"]),
    )


class Architecture(NamedTuple):
    """A class of models, its config from a config.json, its names, its activations. turned: the
    matrices of its layers are stored (in, out).
    """

    model: Callable[[Any], Module]
    config: Callable[[Settings, Settings, Has], Any]
    names: Names
    activations: tuple[str, ...]
    turned: bool = False


_ACTS = ("hidden_act", "hidden_activation", "activation_function")
_TANH = ("gelu_new", "gelu_pytorch_tanh")
_ARCHITECTURES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3"), Architecture(Llama, _llama, _LLAMA, ("silu",))),
    "gemma3_text": Architecture(Llama, _gemma, _GEMMA, _TANH),
    "gpt2": Architecture(GPT, _gpt2, _GPT2, _TANH, turned=True),
    "bert": Architecture(Bert, _bert, _BERT, ("gelu",)),
}


_ONLY = {  # settings that change what a model computes, and the one value that is supported
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "is_decoder": False,
    "layer_norm_epsilon": 1e-5,
    "partial_rotary_factor": 1.0,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "use_bidirectional_attention": False,
    "use_sliding_window": False,
}
# Tensors that are no part of the result: constants that code computes, heads outside the model.
_HARMLESS = re.compile(
    r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|position_ids$|^(pooler|cls)\."
)


# --- building


def _build(
    architecture: Architecture,
    config: dict[str, Any],
    tensors: dict[str, Stored],
    tokenizer: PublishedTokenizer,
    frozen: bool,
    **options: Any,
) -> Module:
    """Return the model of a config.json with its weights; options go to the model's config.

    frozen: matrices of Llama-type models that are not float32 stay as stored.
    """
    names = architecture.names
    _check_settings(config)
    _leave_padding_out(config, tensors, names, tokenizer)
    sizes = {ours: config[a if a in config else b] for ours, (a, b) in _SIZES.items()}
    layers, most = sizes["n_layer"], len(tensors) // 9  # a layer has nine tensors and more
    problem = f"{layers} layers in a file of {len(tensors)} tensors"
    _check(0 < layers <= most, "layers", problem, layers, f"at most {most}")
    made = architecture.config(config, sizes, lambda ours: _theirs(ours, names)[0] in tensors)
    with init.skipped():
        model = architecture.model(replace(made, **options)).eval()
    owners, used = dict(model.named_modules()), set[str]()
    if config.get("tie_word_embeddings", True):
        used.add("lm_head.weight")  # may be stored twice
    for ours, parameter in list(model.named_parameters()):
        used.update(theirs := _theirs(ours, names))
        parts = [_named(tensors, name) for name in theirs]
        stays = frozen and isinstance(model, Llama) and any(part.kind != "f32" for part in parts)
        matrix, (owner, _, attribute) = parameter.ndim == 2, ours.rpartition(".")
        for part in parts[1:]:  # k and v: of one size, where in_proj holds but a sum
            attn: Any = owners[owner]
            _fits(part, (attn.n_kv_head * attn.head_dim, *parameter.shape[1:]), ours)
        if stays and matrix:
            setattr(owners[owner], attribute, _fits(_blocks(parts), parameter.shape, ours))
        else:
            values = np.concatenate([part.values() for part in parts])
            if architecture.turned and matrix and ours.startswith("h."):
                values = np.ascontiguousarray(values.T)
            parameter.data = _fits(values, parameter.shape, ours)
    extra = [name for name in tensors if name not in used and not _HARMLESS.search(name)]
    first = shortened(next(iter(extra), ""))
    _check(not extra, "tensor-extra", f"the tensor {first} is not supported", extra)
    return model


def _check_settings(config: Settings) -> None:
    for name, only in _ONLY.items():
        got = config.get(name, only)
        problem = f"{config['model_type']} models with {name} {shortened(got)} are not supported"
        _check(got == only, "unsupported", problem, got, only)


def _leave_padding_out(
    config: dict[str, Any], tensors: dict[str, Stored], names: Names, tokenizer: PublishedTokenizer
) -> None:
    """Cut the rows of embedding and head that are no token: they must never be drawn."""
    rows, needed, used = config["vocab_size"], tokenizer.rows(added=False), tokenizer.rows()
    problem = f"an embedding of {shortened(rows)} rows for a vocabulary of {needed} tokens"
    _check(needed <= rows, "vocabulary", problem, rows, needed)
    if used >= rows:
        return
    config["vocab_size"] = used
    for name in (f"{names[ours]}.weight" for ours in ("wte", "lm_head") if ours in names):
        if name in tensors:
            kind, shape, blocks = tensors[name]
            _fits(tensors[name], (rows, *shape[1:]), name)
            tensors[name] = Stored(kind, (used, *shape[1:]), blocks[:used])


def _fits(weight: Any, shape: tuple[int, ...], ours: str) -> Any:
    problem = f"{ours} of shape {weight.shape}, the settings make it {shape}"
    _check(weight.shape == shape, "shape", problem, weight.shape, shape)
    return weight


def _named(tensors: Tensors, name: str) -> Stored:
    _check(name in tensors, "tensor-missing", f"the file has no tensor {name!r}", name)
    return tensors[name]


def _blocks(parts: list[Stored]) -> Blocks:
    if len(parts) > 1 and len({part.kind for part in parts}) == 1:  # one product instead of three
        rows = np.concatenate([part.blocks for part in parts])
        parts = [Stored(parts[0].kind, (len(rows), parts[0].shape[-1]), rows)]
    weights = [QuantisedWeight(*part) for part in parts]
    return weights[0] if len(weights) == 1 else StackedWeight(weights)
