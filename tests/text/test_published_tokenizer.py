"""Tokenizers of GGUF files and of folders: special tokens, templates, bytes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.errors import ConfigError, DataError, FormatError
from minigrad.models.generation import text_pieces
from minigrad.text.published import (
    PublishedTokenizer,
    read_json,
    tokenizer_of_folder,
    tokenizer_of_gguf,
)

pytest.importorskip("tokenizers")
BYTES = [f"<0x{i:02X}>" for i in range(256)]
SPM = ["<unk>", "<s>", "</s>", *BYTES, "▁", "a", "b", "▁a", "ab", "▁ab", "abab"]
GPT2 = ["<|end|>", "a", "b", "1", "2", "12", "Ġ", "ab", "Ġa", "Ã", "¼", "Ġ1"]


def gguf(**changes: Any) -> dict[str, Any]:
    """The meta of a byte-level tokenizer."""
    own = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": GPT2,
        "merges": ["a b", "Ġ a", "1 2", "Ġ 1"],
        "token_type": [3] + [1] * (len(GPT2) - 1),
        "eos_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": x for key, x in {**own, **changes}.items()}


def sentence_piece(**changes: Any) -> PublishedTokenizer:
    own = {
        "model": "llama",
        "tokens": SPM,
        "scores": [0.0] * 259 + [-1.0, -2, -3, -0.5, -0.1, -0.3, -0.2],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * 7,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return tokenizer_of_gguf({f"tokenizer.ggml.{k}": x for k, x in {**own, **changes}.items()})


def pieces(tokenizer: PublishedTokenizer, text: str, names: list[str]) -> list[str]:
    return [names[i] for i in tokenizer.encode(text)]


def test_the_cut_decides_what_is_merged() -> None:
    plain, single = tokenizer_of_gguf(gguf()), tokenizer_of_gguf(gguf(pre="smollm"))
    assert pieces(plain, "ab 12ab", GPT2) == ["ab", "Ġ", "12", "ab"]
    assert pieces(single, "ab 12ab", GPT2) == ["ab", "Ġ", "1", "2", "ab"]
    assert pieces(tokenizer_of_gguf(gguf(pre="llama-bpe")), "12", GPT2) == ["12"]
    assert pieces(tokenizer_of_gguf(gguf(pre="qwen2")), "12", GPT2) == ["1", "2"]


@pytest.mark.parametrize("pre", [None, "default"])
def test_a_file_that_names_no_cut_is_cut_as_llama_cpp_does(pre: str | None) -> None:
    names = [*(str(i) for i in range(10)), "12", "123", "34", "a", "=", "a=", "Ġ", "Ġ1"]
    merges = ["1 2", "12 3", "3 4", "a =", "Ġ 1"]
    meta = gguf(tokens=names, merges=merges, token_type=[1] * len(names), pre=pre)
    if pre is None:
        del meta["tokenizer.ggml.pre"]
    found = tokenizer_of_gguf(meta)
    assert pieces(found, "1234", names) == ["123", "4"]
    assert pieces(found, "a= 12", names) == ["a", "=", "Ġ", "12"]


def test_the_end_tokens_that_a_gguf_file_names_or_has_end_answers() -> None:
    names = ["<eos>", "<end_of_turn>", "<|im_end|>", *GPT2[1:]]
    kinds = [3, 3, 1] + [1] * len(GPT2[1:])  # of these only control tokens count
    meta = gguf(tokens=names, token_type=kinds)
    assert tokenizer_of_gguf(meta).eos == ("<eos>", "<end_of_turn>")
    for ends in (np.array([3, 99, 0], np.int32), ["x"], "x", True):
        found = tokenizer_of_gguf(meta | {"tokenizer.ggml.eos_token_ids": ends}).eos
        own = ("a",) if isinstance(ends, np.ndarray) else ()
        assert found == ("<eos>", *own, "<end_of_turn>")
    assert tokenizer_of_gguf(meta | {"tokenizer.ggml.eom_token_id": 3}).eos[:2] == ("<eos>", "a")
    llama = tokenizer_of_gguf(
        gguf(
            tokens=["<|eot_id|>", "<|end_of_text|>", *GPT2[2:]],
            merges=[],
            token_type=[3, 3] + [1] * 10,
        )
    )
    assert llama.eos == ("<|eot_id|>", "<|end_of_text|>")


def test_a_text_begins_with_bos_by_default_where_llama_cpp_lets_it() -> None:
    for pre, begins in {"llama-bpe": True, "llama3": True, "qwen2": False, "gpt-2": False}.items():
        settings = gguf(pre=pre, bos_token_id=0)
        assert tokenizer_of_gguf(settings).encode_prompt("ab").tolist() == [0] * begins + [7]
        for said in (True, False):
            found = tokenizer_of_gguf({**settings, "tokenizer.ggml.add_bos_token": said})
            assert found.encode_prompt("ab").tolist() == [0] * said + [7]


def test_special_tokens_are_recognised_and_written_out() -> None:
    tokenizer = tokenizer_of_gguf(gguf())
    assert tokenizer.encode("ab<|end|>a").tolist() == [7, 0, 1]
    assert tokenizer.decode([7, 0, 1]) == "ab<|end|>a"
    assert tokenizer.eos == ("<|end|>",) and tokenizer.bos is None
    assert tokenizer.encode_prompt("ab").tolist() == [7]


def test_half_a_character_waits_while_streaming() -> None:
    tokenizer = tokenizer_of_gguf(gguf())
    assert list(text_pieces(tokenizer, iter([1, 9, 10, 2]), [])) == ["a", "ü", "b"]
    byte_fallback = sentence_piece()
    tokens = byte_fallback.encode("a→b")
    assert "".join(text_pieces(byte_fallback, iter(tokens), [])) == "a→b"
    assert all("\ufffd" not in p for p in text_pieces(byte_fallback, iter(tokens), []))


def test_sentence_piece_merges_by_score_and_falls_back_to_bytes() -> None:
    tokenizer = sentence_piece()
    assert pieces(tokenizer, "ab", SPM) == ["▁ab"]
    assert pieces(tokenizer, "aé", SPM) == ["▁a", "<0xC3>", "<0xA9>"]
    assert tokenizer.encode_prompt("ab").tolist()[0] == 1 and tokenizer.decode([1]) == "<s>"
    for text in ("ab", "a b", "é a", "x"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "bert"},
        {"model": 3},
        {"model": np.array([1, 2])},
        {"pre": np.array([1, 2])},
        {"tokens": []},
        {"tokens": [1, 2]},
        {"pre": "unheard-of"},
        {"merges": None},
        {"merges": ["a z"]},
        {"token_type": [1]},
        {"tokens": ["a"] * 12},
    ],
)
def test_damaged_meta_is_a_format_error(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        tokenizer_of_gguf(gguf(**changes))


def test_types_that_are_no_numbers_are_those_of_no_token() -> None:
    plain = gguf()
    names = ["x"] * len(plain["tokenizer.ggml.tokens"])
    assert tokenizer_of_gguf({**plain, "tokenizer.ggml.token_type": names}).encode("a").size


def with_template(template: str | None) -> PublishedTokenizer:
    pytest.importorskip("jinja2")
    return tokenizer_of_gguf(gguf() | {"tokenizer.chat_template": template})


def test_a_chat_template_is_rendered_in_a_sandbox() -> None:
    turns = [{"role": "user", "content": "ab"}]
    line = "{% for m in messages %}[{{ m['role'] }}]{{ m.content }}{% endfor %}"
    tokenizer = with_template(
        line + "{% if add_generation_prompt %}[bot]{{ eos_token }}{% endif %}"
    )
    assert tokenizer.chat(turns) == "[user]ab[bot]<|end|>"
    assert tokenizer.chat(turns, answer=False) == "[user]ab"
    first = "{% for m in messages %}{{ m.content }}{% break %}{% endfor %}"
    assert with_template(first).chat([*turns, *turns]) == "ab"
    for bad in (
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no system') }}",
        "{% for %}",
        "{{ 1 // 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages|dictsort }}",
        "{{ cycler().next() }}",
    ):
        with pytest.raises(ConfigError, match="template"):
            with_template(bad).chat(turns)
    with pytest.raises(ConfigError, match="no system"):
        with_template("{{ raise_exception('no system') }}").chat(turns)
    with pytest.raises(ConfigError, match="no chat template"):
        with_template(None).chat(turns)


def test_a_folder_is_read_with_its_settings(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(sentence_piece().content, encoding="utf-8")
    plain = tokenizer_of_folder(tmp_path)
    assert plain.bos is None and plain.template is None and plain.eos == ()
    settings = {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "add_bos_token": True,
        "chat_template": "one",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = tokenizer_of_folder(tmp_path)
    assert (found.bos, found.eos, found.template) == ("<s>", ("</s>",), "one")
    assert found.encode_prompt("ab").tolist() == [1, *found.encode("ab").tolist()]
    assert found.encode_prompt("<s>ab").tolist()[:2] != [1, 1]
    (tmp_path / "chat_template.jinja").write_text("two")
    assert tokenizer_of_folder(tmp_path).template == "two"
    assert read_json(tmp_path / "none.json", optional=True) == {}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}], "b"),
        ([{"name": "tool_use", "template": "a"}, "default", {"name": "default"}], None),
        ({"default": "a"}, None),
    ],
)
def test_of_several_templates_the_default_counts(
    template: Any, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(sentence_piece().content, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert tokenizer_of_folder(tmp_path).template == expected


def test_added_tokens_are_those_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(sentence_piece().content, encoding="utf-8")
    plain = {"lstrip": False, "normalized": False, "single_word": False, "special": True}
    stripped = {"content": "</s>", "rstrip": True, **plain}
    new = {"content": "<new>", **plain}
    for added, text, expected in (
        ({"2": stripped}, "ab</s>  ab", [264, 2, 264]),
        ({"266": new, "2": stripped}, "a<new> </s> b", [262, 266, 259, 259, 2, 259, 261]),
    ):
        content = json.dumps({"added_tokens_decoder": added})
        (tmp_path / "tokenizer_config.json").write_text(content)
        assert tokenizer_of_folder(tmp_path).encode(text).tolist() == expected
    for bad in ([1], "x", {"x": stripped}, {"2": "x"}, {"2": {"content": 1}}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": bad}))
        with pytest.raises(FormatError, match="added_tokens_decoder is damaged"):
            tokenizer_of_folder(tmp_path)


def test_an_older_folder_names_its_special_tokens_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(sentence_piece().content, encoding="utf-8")
    named = {"bos_token": {"content": "<s>", "rstrip": False}, "eos_token": "</s>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a", "unk_token": "<unk>"}')
    found = tokenizer_of_folder(tmp_path)
    assert (found.bos, found.eos, found.names["unk_token"]) == ("<s>", ("</s>",), "<unk>")
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": {}}')
    assert tokenizer_of_folder(tmp_path).bos is None


def with_begin(special: list[str]) -> str:
    """The tokenizer.json of `sentence_piece`, which puts these tokens before a text."""
    import tokenizers

    plain = tokenizers.Tokenizer.from_str(sentence_piece().content)
    pieces = [(piece, SPM.index(piece)) for piece in special]
    post = tokenizers.processors.TemplateProcessing(
        single=" ".join([*special, "$A"]), special_tokens=pieces
    )
    plain.post_processor = post
    return str(plain.to_str())


def test_a_text_that_begins_with_bos_gets_no_second_one(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(with_begin(["<s>"]), encoding="utf-8")
    settings = {"bos_token": "<s>", "eos_token": "</s>"}
    for add_bos in (False, True):
        content = json.dumps({**settings, "add_bos_token": add_bos})
        (tmp_path / "tokenizer_config.json").write_text(content)
        found = tokenizer_of_folder(tmp_path)
        plain = found.encode("ab").tolist()
        for text in ("ab", "<s>ab"):
            assert found.encode_prompt(text).tolist() == [1, *plain]
        assert found.encode_prompt("").tolist() == found.encode_prompt("<s>").tolist() == [1]


def test_a_panic_of_the_library_is_a_data_error(tmp_path: Path) -> None:
    content = json.loads(with_begin(["<s>"]))
    content["post_processor"]["special_tokens"] = {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="cannot encode the text: no entry found"):
        tokenizer_of_folder(tmp_path).encode_sentences(["ab"], 8)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (1, ("</s>", "<s>")),
        ([2, 1, 2], ("</s>", "<s>")),
        (None, ("</s>",)),
        ([True, "x", 10**6, 3 + 0xC3], ("</s>",)),  # no token, or half a character
    ],
)
def test_the_end_tokens_of_generation_config_end_answers(
    ends: Any, expected: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(sentence_piece().content, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    assert tokenizer_of_folder(tmp_path).eos == expected


def test_the_end_tokens_of_config_count_without_a_generation_config(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(sentence_piece().content, encoding="utf-8")
    (tmp_path / "config.json").write_text('{"eos_token_id": [1, 2]}')
    assert tokenizer_of_folder(tmp_path).eos == ("<s>", "</s>")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert tokenizer_of_folder(tmp_path).eos == ("</s>",)


def test_an_empty_end_token_ends_nothing() -> None:
    assert tokenizer_of_gguf(gguf(tokens=["", *GPT2[1:]])).eos == ()


def test_a_text_that_the_tokenizer_cannot_encode_is_a_data_error() -> None:
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="[UNK]"))
    for special in (False, True):
        tokenizer = PublishedTokenizer(words, special=special)
        assert tokenizer.encode_prompt("a").tolist() == [0]
        for encode in (tokenizer.encode, tokenizer.encode_prompt):
            with pytest.raises(DataError, match="UNK"):
                encode("b")
        with pytest.raises(DataError, match="UNK"):
            tokenizer.encode_sentences(["a", "b"], 8)


def test_cutting_sentences_in_one_thread_cuts_no_text_of_another() -> None:
    found = PublishedTokenizer(with_begin(["<s>"]), special=True)
    text = "ab" * 2000
    whole = found.encode_prompt(text).tolist()
    assert len(whole) > 8 and found.encode_sentences([text], 8)[0].tolist() == whole[:8]

    def lengths(i: int) -> int:
        rows = found.encode_sentences([text, "b"], 8) if i % 2 else [found.encode_prompt(text)]
        return len(rows[0])

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(lengths, range(200))] == 100 * [len(whole), 8]
