"""Text in pieces, as tokens are drawn: together they are what the tokens say."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad.models import GPT, Conversation, GPTConfig, generate_text
from minigrad.models.generation import text_after, text_pieces
from minigrad.text import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, TokenizerFile

LETTERS = CharTokenizer("abcdefgh\n")
PUBLISHED = ("byte-level", "byte-fallback", "no prefix")
JAPANESE = "漢字仮名交じり文を生成する場合、バイト列に分かれる文字がある。" * 3


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "char":
        return LETTERS
    if kind == "byte":
        return ByteTokenizer()
    if kind == "bpe":
        return BPETokenizer.train("日本語 日本 語る aaab abab" * 3, 270)
    pytest.importorskip("tokenizers")
    from tests.text.test_published_tokenizer import gguf, sentence_piece, tokenizer_of_gguf

    if kind == "byte-level":
        return tokenizer_of_gguf(gguf())
    return sentence_piece(add_space_prefix=kind != "no prefix")


def together(kind: str, tokens: list[int], stops: list[str], before: list[int]) -> str:
    return "".join(text_pieces(tokenizer(kind), iter(tokens), stops, before))


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", *PUBLISHED])
@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(0, 300), st.integers(0, 40), st.data())
def test_the_pieces_are_what_all_tokens_say_more_than_those_before(kind, draws, n, said, data):
    known = tokenizer(kind)
    # Many bytes of the same few characters, valid and not; and any token
    few = [draws.randrange(known.vocab_size) for _ in range(4)]
    row = few if kind in ("char", "byte-level") else known.encode("é日😀").tolist()
    tokens = []
    while len(tokens) < n:
        tokens += draws.choice([row, row, few, [draws.randrange(known.vocab_size)]])
    before = known.encode("ab" * said).tolist()
    whole = known.decode([*before, *tokens])[len(known.decode(before)) :]
    assert together(kind, tokens, [], before) == whole == text_after(known, before, tokens)
    if not whole:
        return
    at = data.draw(st.integers(0, len(whole) - 1))
    stop = whole[at : at + data.draw(st.integers(1, 4))]
    assert together(kind, tokens, [stop], before) == whole[: whole.find(stop)]


@pytest.mark.parametrize("kind", ["byte", "byte-fallback", "no prefix"])
def test_a_character_is_whole_wherever_its_bytes_lie(kind):
    tokens = tokenizer(kind).encode(JAPANESE).tolist()
    assert together(kind, tokens, [], []) == JAPANESE
    assert together(kind, tokens, ["分"], []) == JAPANESE.partition("分")[0]


def test_a_text_of_any_length_comes_once():
    text = "abcdefgh\n" * 25
    for n in range(len(text)):
        assert together("char", LETTERS.encode(text[:n]).tolist(), [], []) == text[:n]


def test_a_bad_byte_spoils_no_character_beside_it():
    for kind in ("byte-fallback", "no prefix"):
        known = tokenizer(kind)

        def said(row, known=known):
            return known.decode([3 + byte for byte in row])

        good = "日😀\ufffdé".encode()
        assert said(good) == "日😀\ufffdé"
        assert said(b"\xff" + good + b"\xe6") == "\ufffd日😀\ufffdé\ufffd"
        assert said(b"\xe6\x97" + good + b"\xe6\x97A") == "\ufffd\ufffd日😀\ufffdé\ufffd\ufffdA"
        assert said(b"\xe6\xe6\x97\xa5\xed\xa0\x80") == "\ufffd日\ufffd\ufffd\ufffd"


def model(known: Tokenizer) -> GPT:
    minigrad.manual_seed(0)
    made = GPT(GPTConfig(vocab_size=known.vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=8))
    for p in made.parameters():
        p.data *= 8  # far from uniform
    return made


@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_follows_a_prompt_keeps_the_space_it_begins_with(kind):
    known = tokenizer(kind)
    gpt, prompt = model(known), known.encode_prompt("ab")
    for seed in range(20):
        drawn = list(gpt.generate(prompt, 6, seed=seed))
        wanted = known.decode([*prompt, *drawn])[len(known.decode(prompt)) :]
        for end in known.eos:
            wanted = wanted.partition(end)[0]
        assert "".join(generate_text(gpt, known, "ab", 6, seed=seed)) == wanted


@pytest.mark.parametrize("kind", PUBLISHED)
def test_an_answer_of_any_length_is_what_a_conversation_holds(kind):
    known = tokenizer(kind)
    for n in (1, 17, 65, 114):
        talk = Conversation(model(known), known, seed=n)
        talk.add("ab")
        said = talk.text + "".join(talk.answer(n))
        assert talk.text == said


def test_what_is_added_later_gets_no_space_of_its_own():
    known = tokenizer("byte-fallback")
    metaspace = TokenizerFile(
        known.content.replace(
            '"pre_tokenizer":null',
            '"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first",'
            '"split":false}',
        ).replace('{"type":"Prepend","prepend":"▁"},', "")
    )
    for tokens in (known, metaspace):
        assert tokens.encode_after([], "ab").tolist() == tokens.encode("ab").tolist()
        talk = Conversation(model(tokens), tokens)
        for part in ("ab", "ab", " ab", "ab a", "</s>"):
            talk.add(part)
        text = talk.text.removeprefix("<s>").lstrip(" ")
        assert text == "abab abab a</s>"
        # After a special token comes what comes there in a whole text
        talk.add("b")
        whole = tokens.encode("a</s>b").tolist()
        after = whole[whole.index(2) + 1 :]
        assert talk.tokens[-len(after) :] == after
