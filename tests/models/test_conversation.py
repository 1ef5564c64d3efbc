"""A conversation gives what generation from its whole text gives; each position runs once."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad.errors import CacheError, ConfigError, DataError
from minigrad.files import load, save
from minigrad.models import GPT, Conversation, generate_text
from minigrad.text import ByteTokenizer, CharTokenizer
from tests.models.architectures import config

pytestmark = pytest.mark.usefixtures("architecture")

LETTERS = CharTokenizer("abcdefgh\n")


class Counting(GPT):
    """A GPT that knows how many positions it has computed."""

    positions = 0

    def _hidden(self, tokens, caches, pad):
        self.positions += tokens.data.size
        return super()._hidden(tokens, caches, pad)


def model(vocab_size=LETTERS.vocab_size, block_size=64):
    minigrad.manual_seed(0)
    made = Counting(
        config(vocab_size=vocab_size, block_size=block_size, n_layer=2, n_head=2, n_embd=16)
    )
    for p in made.parameters():
        p.data *= 8  # far from uniform
    return made


def test_answers_are_what_generation_from_the_whole_text_gives_and_no_position_runs_twice():
    gpt = model()
    talk = Conversation(gpt, LETTERS)
    for message in ("abc", "hg", "a\n", "ddd"):
        talk.add(message)
        wanted = "".join(generate_text(model(), LETTERS, talk.text, 7, temperature=0))
        assert "".join(talk.answer(7, temperature=0)) == wanted
    assert gpt.positions == len(talk.tokens) - 1  # the last token has not been looked at yet


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize(
    "how",
    [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 5}, {"repetition_penalty": 1.3}],
    ids=["greedy", "top-k", "penalty"],
)
def test_compiled_answers_are_those_of_the_eager_model(how, block_size):
    talks = [Conversation(model(block_size=block_size), LETTERS, seed=3) for _ in range(2)]
    for message, count in (("abc", 9), ("hg", 25), ("a\n", 1), ("ddd", 40)):
        for talk in talks:
            talk.add(message)
        plain = "".join(talks[0].answer(count, **how))
        answer = talks[1].answer(count, jit=True, **how)
        assert "".join(answer) == plain and talks[1].tokens == talks[0].tokens
        assert talks[1].seen == talks[0].seen
    plain, answer = talks[0].answer(30, **how), talks[1].answer(30, jit=True, **how)
    assert [next(plain) for _ in range(7)] == [next(answer) for _ in range(7)]
    plain.close(), answer.close()  # left in the middle of a group that was made ahead
    assert talks[1].tokens == talks[0].tokens and talks[1].seen == talks[0].seen
    for talk in talks:
        talk.add("g")
    assert "".join(talks[1].answer(5, jit=True, **how)) == "".join(talks[0].answer(5, **how))


def test_a_stop_string_is_no_part_of_the_conversation():
    gpt = model()
    full = "".join(generate_text(gpt, LETTERS, "abc", 20, temperature=0))
    stop = full[6:9]
    talk = Conversation(gpt, LETTERS)
    talk.add("abc")
    assert "".join(talk.answer(20, stop=stop, temperature=0)) == full[: full.index(stop)]
    assert talk.text == "abc" + full[: full.index(stop)]
    assert (
        "".join(talk.answer(len(stop), temperature=0)) == stop
    )  # and the caches are those of what was kept


def test_an_answer_that_is_left_in_the_middle_is_kept_as_far_as_it_was_told():
    gpt = model()
    talk = Conversation(gpt, LETTERS)
    talk.add("abc")
    answer = talk.answer(20, temperature=0)
    told = next(answer) + next(answer)
    answer.close()
    assert talk.text == "abc" + told
    assert told + "".join(talk.answer(18, temperature=0)) == "".join(
        generate_text(gpt, LETTERS, "abc", 20, temperature=0)
    )


def test_taking_back_and_answering_again_gives_the_same_greedy_answer_for_one_position():
    gpt = model()
    talk = Conversation(gpt, LETTERS)
    talk.add("abcd")
    first = "".join(talk.answer(9, temperature=0))
    talk.take_back(4)
    gpt.positions = 0
    assert "".join(talk.answer(9, temperature=0)) == first and gpt.positions == 9


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.text("abcdefgh\n", min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 40),
)
def test_a_conversation_longer_than_the_context_goes_on(messages, block_size, back):
    gpt = model(block_size=block_size)
    talk = Conversation(gpt, LETTERS, seed=1)
    text = ""
    for message in messages:
        talk.add(message)
        text += message + "".join(talk.answer(5))
        assert talk.text == text
    talk.take_back(max(len(text) - back, 1))
    text = text[: max(len(text) - back, 1)] + "".join(talk.answer(3))
    assert talk.text == text


def test_half_a_character_is_not_kept():
    gpt = model(vocab_size=256)
    talk = Conversation(gpt, ByteTokenizer(), seed=3)
    talk.add("é")
    pieces = "".join(talk.answer(30, temperature=5))
    assert talk.text == "é" + pieces


def test_mistakes_are_named():
    talk = Conversation(model(), LETTERS)
    with pytest.raises(ConfigError, match="nothing to answer"):
        talk.answer(3)
    with pytest.raises(DataError, match="unknown character"):
        talk.add("xyz")
    talk.add("a")
    for bad in ({"stop": ""}, {"temperature": -1}):
        with pytest.raises(ConfigError, match=r"^Conversation\.answer"):
            talk.answer(3, **bad)
    with pytest.raises(ConfigError, match="to 2 of 1 tokens"):
        talk.take_back(2)
    with pytest.raises(ConfigError, match=r"^Conversation: the seed"):
        Conversation(model(), LETTERS, seed=-1)


def test_what_a_file_holds_is_not_computed_again(tmp_path):
    first = Conversation(model(), LETTERS)
    first.add("abcabcabc")
    wanted = "".join(first.answer(5, temperature=0))
    first.save_cache(tmp_path / "talk.mgrd")
    for text, computed in (("abcabcabc", 1 + 4), ("abcabcdef", 3 + 4), ("hh", 2 + 4)):
        gpt = model()
        talk = Conversation(gpt, LETTERS)
        talk.load_cache(tmp_path / "talk.mgrd")
        for _ in range(2):  # after starting again, too
            gpt.positions = 0
            talk.add(text)
            plain = "".join(generate_text(model(), LETTERS, text, 5, temperature=0))
            assert "".join(talk.answer(5, temperature=0)) == plain
            assert gpt.positions == computed
            talk.take_back(0)
        assert text != "abcabcabc" or plain == wanted


def test_a_cache_of_another_model_is_refused_and_the_conversation_goes_on(tmp_path):
    talk = Conversation(model(), LETTERS)
    with pytest.raises(ConfigError, match="no token"):
        talk.save_cache(tmp_path / "talk.mgrd")
    talk.add("abc")
    wanted = "".join(talk.answer(5, temperature=0))
    talk.save_cache(tmp_path / "talk.mgrd")
    gpt = model()
    gpt.h[-1].attn.in_proj_weight.data[16:, 0] += 0.05
    other = Conversation(gpt, LETTERS)
    with pytest.raises(CacheError, match="another model"):
        other.load_cache(tmp_path / "talk.mgrd")
    other.add("abc")
    assert len("".join(other.answer(5, temperature=0))) == len(wanted)
    narrow = GPT(
        config(vocab_size=LETTERS.vocab_size, block_size=64, n_layer=2, n_head=1, n_embd=8)
    )
    with pytest.raises(CacheError, match="another model"):
        Conversation(narrow, LETTERS).load_cache(tmp_path / "talk.mgrd")
    deep = GPT(config(vocab_size=LETTERS.vocab_size, block_size=64, n_layer=3, n_head=2, n_embd=16))
    with pytest.raises(CacheError, match="another model"):
        Conversation(deep, LETTERS).load_cache(tmp_path / "talk.mgrd")
    save(tmp_path / "weights.mgrd", {"w": np.zeros(3)})
    with pytest.raises(CacheError, match=r"weights\.mgrd is not a cache"):
        Conversation(deep, LETTERS).load_cache(tmp_path / "weights.mgrd")


@pytest.mark.parametrize("name", ["tokens", "0.keys", "1.values"])
def test_a_cache_whose_parts_do_not_fit_is_refused(tmp_path, name):
    talk = Conversation(model(), LETTERS)
    talk.add("abcabc")
    list(talk.answer(2, temperature=0))
    talk.save_cache(tmp_path / "talk.mgrd")
    held = load(tmp_path / "talk.mgrd")
    shorter = held[name][:-1] if name == "tokens" else held[name][:, :, :3]
    for other in (shorter, shorter[..., :0], np.zeros((), held[name].dtype), held[name] + 999):
        save(tmp_path / "odd.mgrd", {**held, name: other})
        with pytest.raises(CacheError, match="another model"):
            Conversation(model(), LETTERS).load_cache(tmp_path / "odd.mgrd")
