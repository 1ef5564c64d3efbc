"""Small models of every architecture, written as others write them, give the logits that
transformers gives (tools/model_references.py); and models.load refuses what does not fit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad import files
from minigrad.cli import main
from minigrad.cli.run_folder import load_model
from minigrad.errors import ConfigError, DTypeError, FormatError, MissingFileError
from minigrad.files.gguf import load_gguf
from minigrad.models import load
from minigrad.nn.quantised import QuantisedWeight, StackedWeight
from minigrad.text import WordPieceTokenizer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from gguf_bytes import MERGES, PIECES, gguf_bytes, small_llama  # noqa: E402
from model_references import made  # noqa: E402

pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")
TINY = json.loads((ROOT / "tests/data/published.json").read_text(encoding="utf-8"))["tiny"]
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])


def write(folder: Path, row: dict[str, Any], dtype: Any = None) -> Path:
    """A model's folder, as Hugging Face's."""
    weights: dict[str, Any] = {name: made(name, tuple(s)) for name, s in row["shapes"].items()}
    if dtype is not None:
        weights = {name: w.astype(dtype) for name, w in weights.items()}
    files.save(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps(row["config"]))
    (folder / "small.gguf").write_bytes(small_llama())
    content = load(folder / "small.gguf")[1].content
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize("row", TINY, ids=[row["config"]["model_type"] for row in TINY])
def test_a_small_model_gives_the_reference(row: dict[str, Any], tmp_path: Path) -> None:
    model, _ = load(write(tmp_path, row))
    y = model(TOKENS)
    np.testing.assert_allclose(y.numpy()[0, -1, :24], row["last"], atol=5e-6)
    if row["config"]["model_type"] != "bert":
        caches = model.make_caches()
        parts = [model(TOKENS[:, a:b], caches=caches).numpy() for a, b in ((0, 7), (7, 9), (9, 10))]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), y.numpy(), atol=5e-6)


GEMMA = next(row for row in TINY if row["config"]["model_type"] == "gemma3_text")


@pytest.mark.parametrize(("layers", "scalar"), [(7, 16), (62, 32 // 4)])
def test_gemmas_settings_of_2025_and_its_gguf_file_mean_the_same(
    layers: int, scalar: int, tmp_path: Path
) -> None:
    """Every sixth layer sees everything. With 62 it is the model of 27B, whose queries have a scale
    that a GGUF file does not name.
    """
    ropes = GEMMA["config"]["rope_parameters"]
    config = {**GEMMA["config"], "num_hidden_layers": layers, "query_pre_attn_scalar": scalar}
    kinds = [*["sliding_attention"] * 5, "full_attention"] * (layers // 6 + 1)
    config["layer_types"] = kinds[:layers]
    shapes = {name: shape for name, shape in GEMMA["shapes"].items() if ".layers." not in name}
    first = {name: s for name, s in GEMMA["shapes"].items() if ".layers.0." in name}
    for i in range(layers):
        shapes |= {name.replace(".0.", f".{i}."): shape for name, shape in first.items()}
    wanted = load(write(tmp_path, {"config": config, "shapes": shapes}))[0](TOKENS).numpy()

    for name in ("rope_parameters", "layer_types"):
        del config[name]
    config |= {"rope_theta": 1e6, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6}
    config["rope_scaling"] = {"rope_type": "linear", "factor": ropes["full_attention"]["factor"]}
    older, _ = load(write(tmp_path, {"config": config, "shapes": shapes}))
    np.testing.assert_array_equal(older(TOKENS).numpy(), wanted)

    sizes = {"block_count": layers, "context_length": 64, "embedding_length": 32}
    sizes |= {"feed_forward_length": 56, "attention.head_count": 4, "attention.head_count_kv": 2}
    sizes |= {"attention.key_length": 16, "attention.layer_norm_rms_epsilon": 1e-6}
    sizes |= {"attention.sliding_window": 4, "rope.freq_base": 1e6, "rope.scaling.factor": 8.0}
    meta = {f"gemma3.{key}": value for key, value in sizes.items()}
    meta |= {"gemma3.rope.scaling.type": "linear", "general.architecture": "gemma3"}
    meta |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": PIECES}
    meta |= {"tokenizer.ggml.merges": MERGES}
    tensors = {}
    for name, shape in shapes.items():
        values = made(name, tuple(shape)) + (1 if name.endswith("norm.weight") else 0)
        for theirs, ours in GGUF_NAMES.items():
            name = name.replace(theirs, ours)
        tensors[name] = ("f32", tuple(shape), values.astype("<f4").tobytes())
    (tmp_path / "gemma.gguf").write_bytes(gguf_bytes(meta, tensors))
    model, _ = load(tmp_path / "gemma.gguf")
    np.testing.assert_array_equal(model(TOKENS).numpy(), wanted)
    prompt = [1, 2, 3]
    plain = list(model.generate(prompt, 12, temperature=0, use_cache=False))
    assert list(model.generate(prompt, 12, temperature=0, jit=True)) == plain


GGUF_NAMES = {
    "model.layers": "blk",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"self_attn.{x}_norm": f"attn_{x}_norm" for x in "qk"},
    **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
}


def test_weights_of_16_bits_stay_as_stored_unless_float32_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, TINY[0], np.float16)
    stored, wide = load(tmp_path)[0], load(tmp_path, dtype="float32")[0]
    assert isinstance(stored.h[0].mlp.up_proj.weight, QuantisedWeight)
    assert [p.ndim for p in stored.parameters()].count(2) == 0
    np.testing.assert_allclose(stored(TOKENS).numpy(), wide(TOKENS).numpy(), atol=1e-5)
    loss = wide.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    loss.backward()
    assert all(p.grad is not None for p in wide.parameters())


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1"])
def test_a_model_in_blocks_generates_what_it_does_in_float32(kind: str, tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(small_llama(kind))
    model, tokenizer = load(tmp_path / "small.gguf")
    wide, _ = load(tmp_path / "small.gguf", dtype="float32")
    prompt = tokenizer.encode("abcd a 12")
    found = list(model.generate(prompt, 16, temperature=0))
    assert found == list(wide.generate(prompt, 16, temperature=0))
    assert found == list(model.generate(prompt, 16, temperature=0, use_cache=False))
    together = list(model.generate([prompt, prompt[:2]], 16, temperature=0))
    assert found == [int(row[0]) for row in together]
    assert [int(row[1]) for row in together] == list(model.generate(prompt[:2], 16, temperature=0))


def test_parts_in_several_formats_are_stacked() -> None:
    rng = np.random.default_rng(0)
    parts = [
        QuantisedWeight("f32", (n, 32), rng.normal(size=(n, 32)).astype(np.float32).view(np.uint8))
        for n in (4, 2)
    ]
    parts[1] = QuantisedWeight("f16", (2, 32), np.ones((2, 32), np.float16).view(np.uint8))
    stacked = StackedWeight(parts)
    x = rng.normal(size=(3, 32)).astype(np.float32)
    from minigrad import Tensor

    y = stacked.linear(Tensor(x), Tensor(np.arange(6.0)))
    np.testing.assert_allclose(y.numpy(), x @ stacked.dequantise().T + np.arange(6), atol=1e-5)
    assert stacked.shape == (6, 32) and stacked.nbytes == 4 * 128 + 2 * 64


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_type": "t5"}, "unsupported"),
        ({"hidden_act": "relu"}, "unsupported"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"num_hidden_layers": "2"}, "model"),
        ({"hidden_size": 48}, "shape"),
        ({"intermediate_size": 8}, "shape"),
        ({"head_dim": 10**9}, "model"),
        ({"rope_theta": float("nan")}, "model"),
        ({"rope_scaling": {"rope_type": "warp"}}, "model"),
    ],
)
def test_a_config_that_does_not_fit_is_a_format_error(
    change: dict[str, Any], code: str, tmp_path: Path
) -> None:
    write(tmp_path, TINY[0])
    (tmp_path / "config.json").write_text(json.dumps({**TINY[0]["config"], **change}))
    with pytest.raises(FormatError) as caught:
        load(tmp_path)
    assert caught.value.code == code


def kind_of(row: dict[str, Any]) -> str:
    return str(row["config"]["model_type"])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("qwen2", {"use_sliding_window": True}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gpt2", {"layer_norm_epsilon": 1e-2}),
        ("gpt2", {"n_inner": 100}),
        ("gemma3_text", {"final_logit_softcapping": 30.0}),
        ("bert", {"default_prompt_name": "query"}),
        ("bert", {"is_decoder": True}),
        ("llama", {"partial_rotary_factor": 0.5}),
    ],
)
def test_settings_that_would_change_the_result_are_refused(
    kind: str, change: dict[str, Any], tmp_path: Path
) -> None:
    row = next(row for row in TINY if kind_of(row) == kind)
    write(tmp_path, {**row, "config": {**row["config"], **change}})
    with pytest.raises(FormatError, match=next(iter(change))) as caught:
        load(tmp_path)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("rope_type", ["default", "linear"])
def test_turning_some_of_the_features_is_refused_where_rope_parameters_say_it(
    rope_type: str, nested: bool, tmp_path: Path
) -> None:
    row = GEMMA if nested else TINY[0]
    for part in (1.0, 0.5):
        rope: Any = {"rope_type": rope_type, "rope_theta": 500.0, "partial_rotary_factor": part}
        rope |= {"factor": 2.0} if rope_type == "linear" else {}
        ropes = {"full_attention": rope, "sliding_attention": {}} if nested else rope
        write(tmp_path, {**row, "config": {**row["config"], "rope_parameters": ropes}})
        if part == 1:
            assert load(tmp_path)[0].config.rope_base == 500
            continue
        with pytest.raises(FormatError, match=r"partial_rotary_factor 0\.5") as caught:
            load(tmp_path)
        assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("max_position_embeddings", TINY[0]),
        ("num_hidden_layers", GEMMA),
        ("n_embd", next(row for row in TINY if kind_of(row) == "gpt2")),
        ("intermediate_size", next(row for row in TINY if kind_of(row) == "bert")),
    ],
)
def test_a_setting_that_is_missing_is_named(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    config = {key: value for key, value in row["config"].items() if key != name}
    with pytest.raises(FormatError, match=name):
        load(write(tmp_path, {**row, "config": config}))
    with pytest.raises(FormatError, match=name):
        load(write(tmp_path, {**row, "config": {**config, name: None}}))


@pytest.mark.parametrize("row", [TINY[0], GEMMA], ids=kind_of)
def test_a_setting_of_another_architecture_changes_nothing(
    row: dict[str, Any], tmp_path: Path
) -> None:
    alone = load(write(tmp_path, row))[0]
    others = {"layer_norm_eps": 0.1, "rope_parameters": {"full_attention": None}}
    if kind_of(row) != "gemma3_text":
        others["query_pre_attn_scalar"] = 4
    model = load(write(tmp_path, {**row, "config": {**others, **row["config"]}}))[0]
    np.testing.assert_array_equal(model(TOKENS).numpy(), alone(TOKENS).numpy())
    config = {name: value for name, value in row["config"].items() if name != "rms_norm_eps"}
    assert load(write(tmp_path, {**row, "config": config}))[0].config.norm_eps == 1e-6


@pytest.mark.parametrize(
    ("kind", "name", "harmless"),
    [
        ("llama", "model.layers.0.self_attn.o_proj.bias", False),
        ("llama", "model.layers.1.mlp.up_proj.bias", False),
        ("llama", "model.layers.2.input_layernorm.weight", False),
        ("qwen3", "model.layers.0.self_attn.o_proj.bias", False),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", True),
        ("gpt2", "transformer.h.0.attn.bias", True),
        ("gpt2", "transformer.h.1.attn.masked_bias", True),
        ("gpt2", "lm_head.weight", False),
        ("bert", "embeddings.position_ids", True),
        ("bert", "pooler.dense.weight", True),
        ("bert", "cls.predictions.bias", True),
        ("bert", "embeddings.distance_embedding.weight", False),
    ],
)
def test_a_tensor_that_the_model_does_not_use_is_refused_unless_it_is_harmless(
    kind: str, name: str, harmless: bool, tmp_path: Path
) -> None:
    row = next(row for row in TINY if kind_of(row) == kind)
    write(tmp_path, {**row, "shapes": {**row["shapes"], name: [32]}})
    if harmless:
        load(tmp_path)
        return
    with pytest.raises(FormatError, match=name) as caught:
        load(tmp_path)
    assert caught.value.code == "tensor-extra"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_head_that_is_stored_though_it_is_tied_must_be_the_embedding(
    kind: str, tmp_path: Path
) -> None:
    row = next(row for row in TINY if kind_of(row) == kind)
    shapes = {name: shape for name, shape in row["shapes"].items() if name != "lm_head.weight"}
    config = {**row["config"], "tie_word_embeddings": True}
    write(tmp_path, {"config": config, "shapes": shapes})
    weights = dict(files.load(tmp_path / "model.safetensors"))
    name = next(name for name in weights if name.endswith(("wte.weight", "embed_tokens.weight")))
    wanted = load(tmp_path)[0](TOKENS).numpy()
    files.save(tmp_path / "model.safetensors", {**weights, "lm_head.weight": weights[name]})
    np.testing.assert_array_equal(load(tmp_path)[0](TOKENS).numpy(), wanted)
    files.save(tmp_path / "model.safetensors", {**weights, "lm_head.weight": weights[name] + 1})
    with pytest.raises(FormatError, match="lm_head") as caught:
        load(tmp_path)
    assert caught.value.code == "tensor-extra"


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": None},
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 4.0}}},
    ],
)
def test_layers_of_gemma_that_look_back_in_another_way_are_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    row = {**GEMMA, "config": {**GEMMA["config"], **change}}
    if ropes := change.get("rope_parameters"):
        ropes["full_attention"] = {"rope_type": "default", "rope_theta": 1e6}
    write(tmp_path, row)
    with pytest.raises(FormatError):
        load(tmp_path)


def test_gemmas_queries_have_the_scale_of_256_unless_it_is_given(tmp_path: Path) -> None:
    config = {k: x for k, x in GEMMA["config"].items() if k != "query_pre_attn_scalar"}
    found = load(write(tmp_path, {**GEMMA, "config": config}))[0](TOKENS).numpy()
    config["query_pre_attn_scalar"] = 256
    given = load(write(tmp_path, {**GEMMA, "config": config}))[0](TOKENS).numpy()
    np.testing.assert_array_equal(found, given)


def test_a_head_of_its_own_is_refused_where_the_model_has_none(tmp_path: Path) -> None:
    row = next(row for row in TINY if kind_of(row) == "gpt2")
    config = {**row["config"], "tie_word_embeddings": False}
    write(tmp_path, {"config": config, "shapes": {**row["shapes"], "lm_head.weight": [48, 32]}})
    with pytest.raises(FormatError, match="lm_head"):
        load(tmp_path)


BERT = next(row for row in TINY if kind_of(row) == "bert")


@pytest.mark.parametrize(
    ("modes", "pooling"), [(["mean_tokens"], "mean"), (["cls_token"], "cls"), ([], "mean")]
)
def test_a_text_is_pooled_as_its_folder_says(modes: Any, pooling: str, tmp_path: Path) -> None:
    write(tmp_path, BERT)
    (tmp_path / "1_Pooling").mkdir()
    settings = {f"pooling_mode_{mode}": mode in modes for mode in ("mean_tokens", "cls_token")}
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(settings))
    model, tokenizer = load(tmp_path)
    texts = ["abcd a 12", "b", "cd ab"]
    found = model.embed(tokenizer, texts)
    for text, vector in zip(texts, found, strict=True):
        x = model(tokenizer.encode(text)[None]).numpy()[0]
        wanted = x[0] if pooling == "cls" else x.mean(axis=0)
        np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_folder_of_sentence_transformers_6_is_read(pooling: str, tmp_path: Path) -> None:
    write(tmp_path, BERT)
    (tmp_path / "1_Pooling").mkdir()
    settings = {"embedding_dimension": 32, "pooling_mode": pooling, "include_prompt": True}
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(settings))
    settings = {"default_prompt_name": None, "prompts": {"query": "", "document": ""}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    config = load(tmp_path)[0].config
    assert (config.pooling, config.longest) == (pooling, 9)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert load(tmp_path)[0].config.longest == 64
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert load(tmp_path)[0].config.longest == 7


def test_lowercasing_is_refused_unless_the_tokenizer_does_it(tmp_path: Path) -> None:
    write(tmp_path, BERT)
    for lowercase in (True, False):
        words = WordPieceTokenizer(["[UNK]", "[CLS]", "[SEP]", "A", "a"], lowercase)
        (tmp_path / "tokenizer.json").write_text(words._tokenizer.to_str())
        for asked in (None, False, True):
            settings = json.dumps({"do_lower_case": asked})
            (tmp_path / "sentence_bert_config.json").write_text(settings)
            if lowercase or not asked:
                load(tmp_path)
                continue
            with pytest.raises(FormatError, match="do_lower_case") as caught:
                load(tmp_path)
            assert caught.value.code == "unsupported"


def test_names_of_the_first_norms_are_understood(tmp_path: Path) -> None:
    model, tokenizer = load(write(tmp_path, BERT))
    weights = dict(files.load(tmp_path / "model.safetensors"))
    for old, new in (("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")):
        weights = {name.replace(old, new): x for name, x in weights.items()}
    assert "embeddings.LayerNorm.gamma" in weights
    files.save(tmp_path / "model.safetensors", {f"bert.{name}": x for name, x in weights.items()})
    wanted = model.embed(tokenizer, ["abcd"])
    np.testing.assert_array_equal(load(tmp_path)[0].embed(tokenizer, ["abcd"]), wanted)


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": True},
        {"pooling_mode": "max"},
        {"pooling_mode": ["mean", "cls"]},
    ],
)
def test_other_poolings_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, BERT)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(settings))
    with pytest.raises(FormatError, match="pooling"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("names", "good"),
    [
        (["Transformer"], True),
        (["Transformer", "Pooling"], True),
        (["Transformer", "Pooling", "Normalize"], True),
        (["Transformer", "Pooling", "Dense"], False),
        (["Transformer", "Pooling", "Dense", "Normalize"], False),
        (["Transformer", "Normalize"], False),
    ],
)
def test_modules_that_would_change_the_vector_of_a_text_are_refused(
    names: list[str], good: bool, tmp_path: Path
) -> None:
    write(tmp_path, BERT)
    modules = [{"type": f"sentence_transformers.models.{name}"} for name in names]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    if good:
        load(tmp_path)
        return
    with pytest.raises(FormatError, match=names[-1]) as caught:
        load(tmp_path)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("longest", "found"), [(9, 9), (None, 64), (1000, 64), (0, 0), (-3, 0), ("x", 0)]
)
def test_the_longest_text_is_the_one_of_the_folder(
    longest: Any, found: int, tmp_path: Path
) -> None:
    write(tmp_path, BERT)
    settings = json.dumps({"max_seq_length": longest})
    (tmp_path / "sentence_bert_config.json").write_text(settings)
    if found:
        assert load(tmp_path)[0].config.longest == found
        return
    with pytest.raises(FormatError):
        load(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"name": "0"}]', "["])
def test_a_damaged_list_of_modules_is_a_format_error(content: str, tmp_path: Path) -> None:
    write(tmp_path, BERT)
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(FormatError):
        load(tmp_path)


@pytest.mark.parametrize("jit", [False, True])
def test_a_text_without_tokens_has_the_vector_zero(jit: bool, tmp_path: Path) -> None:
    model, tokenizer = load(write(tmp_path, BERT))
    alone = model.embed(tokenizer, ["abcd", "b"])
    found = model.embed(tokenizer, ["", "abcd", "", "b", ""], jit=jit)
    np.testing.assert_allclose(found[[1, 3]], alone, atol=1e-6)
    assert not found[[0, 2, 4]].any()
    assert model.embed(tokenizer, [""], jit=jit).tolist() == [[0.0] * 32]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("row", TINY, ids=[row["config"]["model_type"] for row in TINY])
def test_rows_of_the_embedding_that_are_no_token_are_never_drawn(
    row: dict[str, Any], dtype: Any, tmp_path: Path
) -> None:
    model, tokenizer = load(write(tmp_path, row, dtype))
    assert tokenizer.vocab_size == model.config.vocab_size == len(PIECES) < 48
    if kind_of(row) != "bert":
        assert model(TOKENS).shape == (1, 10, len(PIECES))
        drawn = list(model.generate([1, 2], 60, temperature=50.0, seed=0))
        assert max(drawn) < len(PIECES)


def test_an_embedding_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    shapes = {name: [20 if n == 48 else n for n in s] for name, s in TINY[0]["shapes"].items()}
    write(tmp_path, {"shapes": shapes, "config": {**TINY[0]["config"], "vocab_size": 20}})
    with pytest.raises(FormatError, match="20 rows") as caught:
        load(tmp_path)
    assert caught.value.code == "vocabulary"
    small = changed_llama({}, {"token_embd.weight": (20, 32)}, tmp_path)
    with pytest.raises(FormatError, match="20 rows"):
        load(small)


def test_added_tokens_that_have_no_row_of_the_embedding_stay_when_adapters_are_merged(
    tmp_path: Path,
) -> None:
    folder, run, text = write(tmp_path, TINY[0]), tmp_path / "run", tmp_path / "own.txt"
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    token = {**content["added_tokens"][0], "special": True}
    for i in range(len(PIECES), 60):  # of 48 rows
        content["added_tokens"].append({**token, "id": i, "content": f"<t{i}>"})
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    text.write_text("abcd a 12 b cd " * 200)
    words = ["finetune", "--model", str(folder), "--text", str(text), "--out", str(run)]
    assert main([*words, "--lora", "2", "--steps", "1", "--sample", "0"]) == 0
    assert main(["finetune", "--merge", str(run)]) == 0
    model, tokenizer = load_model(str(run / "model.mgrd"))
    assert model.config.vocab_size == 48 and tokenizer.vocab_size == 60


def test_show_prints_a_model_that_generates_no_text(tmp_path: Path, capsys: Any) -> None:
    folder = str(write(tmp_path, BERT))
    assert main(["show", f"{folder}/small.gguf"]) == 0
    assert " of float32 and q8_0\n" in capsys.readouterr().out
    assert main(["show", folder]) == 0
    assert capsys.readouterr().out.lstrip().splitlines()[1].startswith("Bert(")
    assert main(["show", folder, "--attention", "ab"]) == 2
    assert "does not generate text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (None, "not NoneType"),
        (5, "not int"),
        ("nope", "models.load: there is no file nope"),
        ("empty", "there is no file empty/config.json"),
        ("a.txt", "not a GGUF file\n  give a .gguf file"),
        ("inside/model.safetensors", "give a .gguf file, or a folder"),
    ],
)
def test_what_holds_no_model_is_told_from_one(
    place: Any, words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "inside"):
        Path(name).mkdir()
    for name in ("a.txt", "inside/model.safetensors"):
        Path(name).write_text("a text of more than 24 bytes")
    with pytest.raises(FormatError, match=words):
        load(place)


def test_only_lists_of_texts_are_embedded(tmp_path: Path) -> None:
    model, words = load(write(tmp_path, BERT))
    with pytest.raises(ConfigError, match="a list of texts"):
        model.embed(words, "abc")
    with pytest.raises(DTypeError):
        model.embed(words, [5])


def test_a_file_that_a_folder_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path, TINY[0])
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(MissingFileError, match=name):
            load(tmp_path)
        (tmp_path / name).mkdir()
        with pytest.raises(FormatError, match=name):
            load(tmp_path)
        (tmp_path / name).rmdir()
        (tmp_path / name).write_bytes(content)


def test_damaged_folders_are_format_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        load(tmp_path / "nothing.gguf")
    write(tmp_path, {**TINY[0], "shapes": {"model.norm.weight": [32]}})
    with pytest.raises(FormatError):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2")
    with pytest.raises(FormatError):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}')
    with pytest.raises(FormatError):
        load(tmp_path)


def changed_llama(meta: dict[str, Any], shapes: dict[str, tuple[int, ...]], folder: Path) -> Path:
    """A small Llama as a GGUF file, with other meta and other tensors, these in float32."""
    (folder / "good.gguf").write_bytes(small_llama())
    file = load_gguf(folder / "good.gguf")
    tensors = {t.name: (t.dtype, t.shape, file[t.name].tobytes()) for t in file.info.tensors}
    for name, shape in shapes.items():
        tensors[name] = "f32", shape, np.ones(shape, "<f4").tobytes()
    (folder / "changed.gguf").write_bytes(gguf_bytes({**file.meta, **meta}, tensors))
    return folder / "changed.gguf"


@pytest.mark.parametrize(
    ("meta", "shapes", "code"),
    [
        ({"llama.rope.dimension_count": 8}, {}, "unsupported"),
        ({"llama.rope.scale_linear": 4.0}, {}, "unsupported"),
        ({}, {"blk.0.attn_output.bias": (32,)}, "tensor-extra"),
        ({}, {"blk.1.attn_q_norm.weight": (16,)}, "tensor-extra"),
        ({}, {"blk.0.attn_k.weight": (8, 32), "blk.0.attn_v.weight": (24, 32)}, "shape"),
        ({}, {"blk.0.attn_q.weight": (48, 32), "blk.0.attn_k.weight": (0, 32)}, "shape"),
        ({}, {"rope_freqs.weight": (1,)}, "shape"),
        ({}, {"rope_freqs.weight": (1, 8)}, "shape"),
    ],
)
def test_a_gguf_file_that_would_give_other_logits_is_refused(
    meta: dict[str, Any], shapes: dict[str, tuple[int, ...]], code: str, tmp_path: Path
) -> None:
    same = {"llama.rope.dimension_count": 16, "llama.rope.scale_linear": 1.0}
    load(changed_llama(same, {"rope_freqs.weight": (8,)}, tmp_path))
    with pytest.raises(FormatError) as caught:
        load(changed_llama(meta, shapes, tmp_path))
    assert caught.value.code == code


def test_yarn_is_read_from_a_gguf_file(tmp_path: Path) -> None:
    own = {"type": "yarn", "factor": 4.0, "original_context_length": 32, "yarn_beta_fast": 16.0}
    meta = {f"llama.rope.scaling.{name}": value for name, value in own.items()}
    rope = load(changed_llama(meta, {}, tmp_path))[0].h[0].attn.rope
    wanted = {"type": "yarn", "factor": 4.0, "original": 32, "beta_fast": 16.0}
    assert rope.scaling == wanted and rope.attention_factor > 1
    with pytest.raises(FormatError, match="attn_factor"):
        load(changed_llama({**meta, "llama.rope.scaling.attn_factor": 2.0}, {}, tmp_path))


def test_whether_a_gguf_file_was_tuned_for_its_scaling_changes_nothing(tmp_path: Path) -> None:
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    plain = load(changed_llama(scaling, {}, tmp_path))[0](TOKENS).numpy()
    tuned = changed_llama({**scaling, "llama.rope.scaling.finetuned": True}, {}, tmp_path)
    np.testing.assert_array_equal(load(tuned)[0](TOKENS).numpy(), plain)


def test_fuzzed_files_give_nothing_but_format_errors() -> None:
    command = [sys.executable, "tools/fuzz_models.py", "--runs", "300", "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("300 inputs, no failure"), done.stderr
