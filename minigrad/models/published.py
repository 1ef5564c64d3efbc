"""Models that others have trained, from GGUF files and from folders of safetensors.

    model, tokenizer = minigrad.models.load("SmolLM2-135M-Instruct.Q4_1.gguf")

A file gives settings and tensors. One table has the names of a setting, in a config.json and in a
GGUF file, and from them the model's config is made; then every parameter takes the tensor that
another table names. Whatever does not fit is a FormatError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad.dtypes import Array, as_dtype, float32
from minigrad.errors import DTypeError, FormatError
from minigrad.files.formats import load as load_file
from minigrad.files.gguf import load_gguf
from minigrad.files.header import shortened
from minigrad.files.layout import DTYPE_NAMES
from minigrad.files.opening import unreadable
from minigrad.models.bert import Bert, BertConfig
from minigrad.models.gpt import ARCHITECTURES, GPT, GPTConfig
from minigrad.models.llama import Llama, LlamaConfig
from minigrad.nn import init
from minigrad.nn.quantised import Blocks, QuantisedWeight, StackedWeight
from minigrad.ops.quantised import dequantise
from minigrad.text import published as text
from minigrad.text.published import PublishedTokenizer, check, read_json, supported

_CALL = "models.load"
_PLACES = "give a .gguf file, or a folder with config.json, tokenizer.json and *.safetensors"
Settings = Mapping[str, Any]  # of a config.json, or of a model's config
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
        run in C: tokens come several times as fast, logits differ by 2e-4 of their deviation
        (1e-2 where a long prompt was read by a compiled step, see docs/compiler.md).

    Raises FormatError for a file that does not fit and for an architecture that is not supported,
    MissingFileError, MissingDependencyError without tokenizers or safetensors.
    """
    if dtype is not None and as_dtype(dtype, _CALL) != float32:
        raise DTypeError(_CALL, f"dtype must be None or float32, got {dtype!r}", dtype, "float32")
    try:
        path = Path(path)
        source = (_of_folder if path.is_dir() else _of_gguf)(path)
        model = source.build(frozen=dtype is None)
    except FormatError as error:
        error.hint = error.hint or (_PLACES if error.code in ("magic", "no-such-file") else "")
        raise error.named(_CALL) from error.__cause__
    except OSError as error:
        raise unreadable(_CALL, str(error.filename), error) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problem = getattr(error, "problem", repr(error))  # of an error of ours, or of Python's
        problem = f"{path}: the settings or the weights do not fit: {problem}"
        raise FormatError(_CALL, problem, code="model") from error
    if int8:
        from minigrad.models.decoding import use_int8

        use_int8(model)
    return model, source.tokenizer


# --- files


class Stored(NamedTuple):
    """A tensor of a file: its format, its shape, and (rows, bytes) of uint8."""

    kind: str
    shape: tuple[int, ...]
    blocks: Array

    def values(self) -> Array:
        """The values in float32."""
        return dequantise(self.blocks, self.kind).reshape(self.shape)


def _of_folder(folder: Path) -> Source:
    config: dict[str, Any] = {"query_pre_attn_scalar": 256}  # transformers' value for Gemma 3
    # Where a setting is in several files, the last one counts.
    for name in ("tokenizer_config", "config_sentence_transformers", "sentence_bert_config"):
        config |= read_json(folder / f"{name}.json", optional=True)
    config |= read_json(folder / "config.json")
    kind = config.get("model_type", "")
    supported("models of the type", kind, _ARCHITECTURES)
    architecture = _ARCHITECTURES[kind]
    act = next((config[name] for name in _ACTS if name in config), None)
    supported(f"{kind} models with the activation", act, (None, *architecture.activations))
    options = {"pooling": _pooling(folder)} if kind == "bert" else {}
    tokenizer = text.tokenizer_of_folder(folder)
    return Source(architecture, config, _safetensors(folder), tokenizer, options)


def _pooling(folder: Path) -> str:
    """How sentence-transformers makes the vector of a text."""
    modules = read_json(folder / "modules.json", list, optional=True)
    known = ["Transformer", "Pooling", "Normalize"]  # what `Bert.embed` does
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    supported(f"embeddings by {folder} with the modules", kinds, [known[:n] for n in range(4)])
    found = read_json(folder / "1_Pooling" / "config.json", optional=True)
    on = [f"{name} {x}" for name, x in found.items() if name.startswith("pooling_mode") and x]
    mean = ["pooling_mode mean"], ["pooling_mode_mean_tokens True"]  # of version 6, and before
    first = ["pooling_mode cls"], ["pooling_mode_cls_token True"]
    supported(f"embeddings by {folder} with the pooling", on, ([], *mean, *first))
    return "cls" if on in first else "mean"


def _safetensors(folder: Path) -> dict[str, Stored]:
    """The tensors of model.safetensors, or of the files that its index names."""
    index = read_json(folder / "model.safetensors.index.json", optional=True)
    files = sorted({str(name) for name in index.get("weight_map", {}).values()})
    found: dict[str, Stored] = {}
    for file in files or ["model.safetensors"]:
        check(Path(file).name == file, "index", f"the index names {shortened(file)}", file)
        for name, array in load_file(folder / file).items():
            raw = np.ascontiguousarray(array).view(np.uint8)  # with at least one axis
            stored = Stored(DTYPE_NAMES[array.dtype], array.shape, raw.reshape(-1, raw.shape[-1]))
            name = name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")
            found[name.removeprefix("bert.").removeprefix("transformer.")] = stored
    return found


def _of_gguf(path: Path) -> Source:
    file = load_gguf(path)
    kind = file.meta.get("general.architecture", "")
    supported("GGUF files of the architecture", kind, _GGUF_KINDS)
    tensors = {t.name: Stored(t.dtype, t.shape, file[t.name]) for t in file.info.tensors}
    config = {name.removeprefix(f"{kind}."): value for name, value in file.meta.items()}
    config["model_type"] = _GGUF_KINDS[kind]
    config["vocab_size"] = _named(tensors, "token_embd.weight").shape[0]
    config.pop("rope.scaling.finetuned", None)  # changes nothing
    scaling = {name: value for name, value in config.items() if name.startswith("rope.scaling.")}
    config["rope_scaling"] = {name.removeprefix("rope.scaling."): x for name, x in scaling.items()}
    usual = config["embedding_length"] // config["attention.head_count"]
    if kind == "gemma3" and config["block_count"] == 62:  # the one of 27B, which does not say it
        config["query_pre_attn_scalar"] = usual
    head = config.get("attention.key_length", usual)
    config["partial_rotary_factor"] = config.get("rope.dimension_count", head) / head
    options: dict[str, Any] = {"rope_layout": "interleaved" if kind == "llama" else "half"}
    if divisors := tensors.pop("rope_freqs.weight", None):  # as Llama 3 stores its scaling
        options["rope_divisors"] = _fits(divisors, (head // 2,), "rope_freqs").values().tolist()
    architecture = _ARCHITECTURES[_GGUF_KINDS[kind]]._replace(names=_GGUF, raised=False)
    return Source(architecture, config, tensors, text.tokenizer_of_gguf(file.meta), options)


_GGUF_KINDS = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}

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
_GPT2 = {"h.{i}.attn.in_proj": "h.{i}.attn.c_attn", "h.{i}.attn.out_proj": "h.{i}.attn.c_proj"}
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

# --- architectures

_SETTINGS = {  # ours: theirs, in a config.json and in GGUF files; the last one there counts
    "vocab_size": ("vocab_size",),
    "block_size": ("n_positions", "max_position_embeddings", "context_length"),
    "n_layer": ("n_layer", "num_hidden_layers", "block_count"),
    "n_head": ("n_head", "num_attention_heads", "attention.head_count"),
    "n_embd": ("n_embd", "hidden_size", "embedding_length"),
    "n_kv_head": ("num_key_value_heads", "attention.head_count_kv"),
    "head_dim": ("head_dim", "attention.key_length"),
    "hidden": ("intermediate_size", "feed_forward_length"),
    "norm_eps": ("layer_norm_eps", "rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    "n_type": ("type_vocab_size",),
    "longest": ("model_max_length", "max_seq_length"),
    "rope_base": ("rope_theta", "rope.freq_base"),
}
_NEEDED = ("block_size", "n_layer", "n_head", "n_embd", "hidden")  # nothing stands for them


def _llama(config: Settings, given: Settings, source: Source) -> Settings:
    kind, rope = config["model_type"], config["rope"]
    biased = config.get("attention_bias", kind == "qwen2") is True
    scaled = rope.get("rope_type", rope.get("type")) not in (None, "default", "none")
    scaling = {k: v for k, v in rope.items() if k not in ("rope_theta", "partial_rotary_factor")}
    usual = {"n_kv_head": given["n_head"], "head_dim": given["n_embd"] // given["n_head"]}
    return {
        **usual,
        "norm_eps": 1e-6,  # transformers' value where it is not given
        **given,
        "rope_scaling": scaling if scaled else None,
        "qkv_bias": biased or source.has("h.0.attn.in_proj_bias"),
        "qk_norm": kind in ("qwen3", "gemma3_text"),
        "tied": config.get("tie_word_embeddings") is True or not source.has("lm_head.weight"),
    }


def _gemma(config: Settings, given: Settings, source: Source) -> Settings:
    """Gemma 3, of whose layers every sixth sees everything."""
    every = config.get("sliding_window_pattern", 6)
    full = tuple(range(every - 1, given["n_layer"], every))
    if kinds := config.get("layer_types"):
        full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    supported("local rope of the type", local.get("rope_type", "default"), ["default"])
    usual = {"rope_base": 1e6, "mlp": "geglu", "post_norm": True, **_llama(config, given, source)}
    return {
        **usual,
        "embedding_scale": given["n_embd"] ** 0.5,
        "window": int(config.get("attention.sliding_window") or config["sliding_window"]),
        "full": full,
        "local_base": local.get("rope_theta", config.get("rope_local_base_freq", 1e4)),
    }


def _gpt2(config: Settings, given: Settings, _: Source) -> Settings:
    supported("gpt2 models with n_inner", config.get("n_inner"), (None, 4 * given["n_embd"]))
    return {**ARCHITECTURES["gpt2"], **given}


def _bert(config: Settings, given: Settings, source: Source) -> Settings:
    words, lower = source.tokenizer, config.get("do_lower_case")
    cased = lower and words.encode("A").tolist() != words.encode("a").tolist()
    check(not cased, "unsupported", "do_lower_case with a cased tokenizer is not supported")
    return {**given, "longest": min(given["block_size"], given.get("longest", 1e30))}


class Architecture(NamedTuple):
    """A class of models, that of its config, the settings that a config.json means, its names, its
    activations. turned: the matrices of its layers are stored (in, out).   raised: its norms
    multiply by 1 + weight.
    """

    model: type[GPT] | type[Bert]
    config: Any
    settings: Callable[[Settings, Settings, Source], Settings]
    names: Names
    activations: tuple[str, ...]
    turned: bool = False
    raised: bool = False


_ACTS = ("hidden_act", "hidden_activation", "activation_function")
_TANH = ("gelu_new", "gelu_pytorch_tanh")
_LIKE_LLAMA = Architecture(Llama, LlamaConfig, _llama, _LLAMA, ("silu",))
_ARCHITECTURES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3"), _LIKE_LLAMA),
    "gemma3_text": Architecture(Llama, LlamaConfig, _gemma, _GEMMA, _TANH, raised=True),
    "gpt2": Architecture(GPT, GPTConfig, _gpt2, _GPT2, _TANH, turned=True),
    "bert": Architecture(Bert, BertConfig, _bert, _BERT, ("gelu",)),
}


_ONLY = {  # settings that change what a model computes, and the one value that is supported
    "attn_logit_softcapping": None,
    "default_prompt_name": None,
    "final_logit_softcapping": None,
    "is_decoder": False,
    "layer_norm_epsilon": 1e-5,
    "partial_rotary_factor": 1.0,
    "rope.scale_linear": 1.0,  # of GGUF files of 2023, now rope.scaling.factor
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "use_bidirectional_attention": False,
    "use_sliding_window": False,
}
# Tensors that are no part of the result: constants that code computes, heads outside the model.
_HARMLESS = re.compile(r"\.inv_freq$|\.attn\.(masked_)?bias$|position_ids$|^(pooler|cls)\.")


# --- building


class Source(NamedTuple):
    """A file or a folder: its architecture, its settings as a config.json has them, its tensors,
    its tokenizer, and further options of our config.
    """

    architecture: Architecture
    config: Settings
    tensors: Mapping[str, Stored]
    tokenizer: PublishedTokenizer
    options: Settings

    def theirs(self, ours: str) -> list[str]:
        """The names here of one of our parameters: ours, for a module that no table names."""
        layer = ours.split(".")[1]
        module, kind = re.split(r"[._](?=weight$|bias$)", ours.replace(f"h.{layer}.", "h.{i}.", 1))
        named = self.architecture.names.get(module, module).replace("{i}", layer)
        before, _, rest = named.partition("{")
        parts, _, after = rest.partition("}")
        return [f"{before}{part}{after}.{kind}" for part in parts.split(",")]

    def has(self, ours: str) -> bool:
        """True if there is what a parameter of ours needs."""
        return self.theirs(ours)[0] in self.tensors

    def configured(self) -> Any:
        """Our config, whose sizes are checked before anything is made of them. It leaves out rows
        of the embedding after the last token, which must never be drawn.
        """
        fields = set(self.architecture.config.__dataclass_fields__)
        ropes = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        rope: Any = ropes.get("full_attention", ropes) or {}
        config = {**self.config, **rope, "rope": rope}
        for name, only in _ONLY.items():
            supported(f"{config['model_type']} models with {name}", config.get(name, only), [only])
        given = {
            ours: config[name]
            for ours, names in _SETTINGS.items()
            for name in names
            if ours in fields and config.get(name) is not None
        }
        lacking = [" or ".join(_SETTINGS[ours]) for ours in _NEEDED if ours in fields - {*given}]
        check(not lacking, "model", f"the settings lack {', '.join(lacking)}", [*config], lacking)
        layers, most = given["n_layer"], len(self.tensors) // 9  # a layer has nine and more
        check(0 < layers <= most, "layers", f"{layers} layers, tensors for {most}", layers, most)
        rows, needed = config["vocab_size"], self.tokenizer.rows(added=False)
        problem = f"an embedding of {shortened(rows)} rows for a vocabulary of {needed} tokens"
        check(needed <= rows, "vocabulary", problem, rows, needed)
        given["vocab_size"] = min(rows, self.tokenizer.rows())
        made = self.architecture.settings(config, given, self)
        return self.architecture.config(**made, **self.options)

    def build(self, frozen: bool) -> GPT | Bert:
        """The model with its weights. frozen: matrices of Llama-type models that are not float32
        stay as stored.
        """
        made = self.configured()
        with init.skipped():
            model = self.architecture.model(made).eval()
        owners, used = dict(model.named_modules()), set[str]()
        head = self.config.get("tie_word_embeddings", True) and self.tensors.get("lm_head.weight")
        if head and np.array_equal(head.blocks, self.tensors[self.theirs("wte.weight")[0]].blocks):
            used.add("lm_head.weight")  # stored twice
        for ours, parameter in list(model.named_parameters()):
            used.update(theirs := self.theirs(ours))
            parts = [_named(self.tensors, name) for name in theirs]
            path, _, attribute = ours.rpartition(".")
            owner: Any = owners[path]
            for part in parts[1:]:  # k and v: of one size, where in_proj holds but a sum
                _fits(part, (owner.n_kv_head * owner.head_dim, *parameter.shape[1:]), ours)
            if ours in ("wte.weight", "lm_head.weight"):  # without the rows that are no token
                kind, _, blocks = _fits(parts[0], (self.config["vocab_size"], made.n_embd), ours)
                parts = [Stored(kind, parameter.shape, blocks[: made.vocab_size])]
            stays = frozen and isinstance(model, Llama) and parameter.ndim == 2
            if stays and any(part.kind != "f32" for part in parts):
                setattr(owner, attribute, _fits(_blocks(parts), parameter.shape, ours))
            else:
                values = np.concatenate([part.values() for part in parts])
                if self.architecture.turned and values.ndim == 2 and ours.startswith("h."):
                    values = np.ascontiguousarray(values.T)
                if self.architecture.raised and values.ndim == 1:
                    values = 1 + values
                if ours.endswith("q_norm.weight") and self.config["model_type"] == "gemma3_text":
                    size = len(values)  # where its queries have their scale
                    values *= (size / self.config.get("query_pre_attn_scalar", size)) ** 0.5
                parameter.data = _fits(values, parameter.shape, ours)
        extra = [name for name in self.tensors if name not in used and not _HARMLESS.search(name)]
        check(not extra, "tensor-extra", f"unsupported tensors: {shortened(extra)}", extra)
        return model


def _fits(weight: Any, shape: tuple[int, ...], ours: str) -> Any:
    problem = f"{ours} of shape {weight.shape}, the settings make it {shape}"
    check(weight.shape == shape, "shape", problem, weight.shape, shape)
    return weight


def _named(tensors: Mapping[str, Stored], name: str) -> Stored:
    check(name in tensors, "tensor-missing", f"the file has no tensor {name!r}", name)
    return tensors[name]


def _blocks(parts: list[Stored]) -> Blocks:
    if len(parts) > 1 and len({part.kind for part in parts}) == 1:  # one product instead of three
        rows = np.concatenate([part.blocks for part in parts])
        parts = [Stored(parts[0].kind, (len(rows), parts[0].shape[-1]), rows)]
    weights = [QuantisedWeight(*part) for part in parts]
    return weights[0] if len(weights) == 1 else StackedWeight(weights)
