"""Synthetic tasks: the answers are right, the batches a function of seed and step, and a small
model learns.
"""

import numpy as np
import pytest

import minigrad
from examples import tasks
from minigrad import optim
from minigrad.errors import ConfigError
from minigrad.models import GPT, GPTConfig

ALL = [
    tasks.copy(),
    tasks.reverse(),
    tasks.sort(5, 7),
    tasks.parity(9),
    tasks.addition(2),
    tasks.modular(13),
    tasks.modular(7, "-"),
    tasks.modular(11, "*"),
    tasks.brackets(10),
    tasks.induction(),
]


def rows(task, steps=5):
    """Questions with their answers, as words; the answers, as words."""
    for step in range(steps):
        x, y = task.batch(step)
        for row, targets in zip(x, y, strict=True):
            whole = [*row, targets[-1]]
            asked = np.flatnonzero(targets >= 0) + 1
            assert all(whole[i] == targets[i - 1] for i in asked)
            yield [task.words[t] for t in whole], [task.words[whole[i]] for i in asked]


def number(digits):
    return int("".join(reversed(digits)))


def is_balanced(text):
    while "()" in text:
        text = text.replace("()", "")
    return text == ""


RULES = {
    "copy": lambda q: q,
    "reverse": lambda q: q[::-1],
    "sort": sorted,
    "parity": lambda q: [str(q[: i + 1].count("1") % 2) for i in range(len(q))],
    "addition": lambda q: list(
        f"{number(q[: len(q) // 2]) + number(q[len(q) // 2 + 1 :]):0{len(q) // 2 + 1}d}"[::-1]
    ),
    "brackets": lambda q: ["yes" if is_balanced("".join(q)) else "no"],
}


@pytest.mark.parametrize("task", [t for t in ALL if t.name in RULES], ids=repr)
def test_the_answer_is_what_the_rule_says(task):
    for row, answer in rows(task):
        question = row[: row.index("=")]
        assert row[len(question) + 1 :] == answer == RULES[task.name](question)


@pytest.mark.parametrize("task", [t for t in ALL if t.name.startswith("modular")], ids=repr)
def test_equations_hold_modulo_p_and_the_held_out_ones_are_never_trained_on(task):
    p, sign = task.vocab_size - 1, task.name[-1]
    trained = {tuple(row) for row, _ in rows(task, 20)}
    for a, b, _, c in trained:
        assert (
            int(c) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] % p
        )
    held_out = {tuple(map(int, x)) for xs, _ in task.validation() for x in xs}
    assert {tuple(task.words[t] for t in x) for x in held_out}.isdisjoint(
        {row[:3] for row in trained}
    )
    assert len(trained) + len(held_out) == p * p


def test_an_answer_of_induction_is_what_followed_in_the_list():
    task = tasks.induction(length=6, symbols=9, questions=3)
    for row, answers in rows(task):
        listed, asked = row[:6], row[7:]
        assert len(set(listed)) == 6 and asked[1::2] == answers
        assert all(
            listed[listed.index(a) + 1] == b for a, b in zip(asked[::2], asked[1::2], strict=True)
        )


def test_half_of_the_brackets_are_balanced_and_counting_alone_does_not_tell():
    found = list(rows(tasks.brackets(12), 8))
    assert 0.45 < np.mean([answer == ["yes"] for _, answer in found]) < 0.55
    assert all(row[:12].count("(") == 6 for row, _ in found)
    assert len({tuple(row[:12]) for row, answer in found if answer == ["yes"]}) > 60  # of 132


@pytest.mark.parametrize("task", ALL, ids=repr)
def test_batches_are_a_function_of_seed_and_step(task):
    x, y = task.batch(3)
    assert x.shape == y.shape == (task.batch_size, task.block_size)
    assert np.array_equal(task.batch(3)[0], x) and np.array_equal(task.batch(3)[1], y)
    assert not np.array_equal(task.batch(4)[0], x)
    assert x.min() >= 0 and x.max() < task.vocab_size == task.sizes["vocab_size"]
    held_out = [x for x, _ in task.validation(2)]
    assert len(held_out) == 2 and not any(np.array_equal(x, h) for h in held_out)


def test_accuracy_counts_whole_answers_and_is_what_greedy_generation_gives():
    minigrad.manual_seed(1)
    task = tasks.copy(length=3, symbols=5)
    model = GPT(GPTConfig.gpt2(**task.sizes, n_layer=1, n_embd=16, n_head=2, dropout=0.2))
    optimizer = optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(40):
        optimizer.zero_grad()
        model.loss(*task.batch(step)).backward()
        optimizer.step()
    accuracy = task.accuracy(model)
    right = []
    for x, y in task.validation():
        said = np.stack(list(model.generate(x[:, :4], 3, temperature=0)), axis=1)
        right += (said == y[:, -3:]).all(axis=1).tolist()
    assert 0.01 < accuracy == np.mean(right) < 1
    assert model.training


def test_a_small_transformer_learns_to_sort():
    minigrad.manual_seed(0)
    task = tasks.sort(length=3, symbols=5, batch_size=32)
    model = GPT(GPTConfig.gpt2(**task.sizes, n_layer=1, n_embd=24, n_head=2))
    optimizer = optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(200):
        optimizer.zero_grad()
        model.loss(*task.batch(step)).backward()
        optimizer.step()
    assert task.accuracy(model) >= 0.95


def test_what_makes_no_sense_is_refused():
    bad = [
        lambda: tasks.copy(length=0),
        lambda: tasks.sort(symbols=1),
        lambda: tasks.brackets(7),
        lambda: tasks.modular(1),
        lambda: tasks.modular(7, "/"),
        lambda: tasks.modular(7, train_fraction=1.0),
        lambda: tasks.induction(9, 8),
        lambda: tasks.addition(digits=0),
        lambda: tasks.parity(batch_size=0),
    ]
    for call in bad:
        with pytest.raises(ConfigError):
            call()


def test_a_question_is_shown_as_text():
    words = tasks.addition(2).show(0).split()
    assert (
        words[2] == "+"
        and words[5] == "="
        and number(words[:2]) + number(words[3:5]) == number(words[6:])
    )
