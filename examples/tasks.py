"""Small tasks with a known answer, as data to learn from: does a model learn, and has it
understood?

    task = tasks.sort(length=8)
    model = GPT(GPTConfig(**task.sizes, n_layer=2, n_embd=64))
    x, y = task.batch(step)                  # y is -100 where nothing is asked: model.loss(x, y)
    task.accuracy(model)                     # the share of held-out questions answered without a
    mistake
    print(task.show(0))                      # "3 1 2 = 1 2 3"

A row is a question and its answer in tokens; the answer follows from the question by a rule. A GPT
of 2 blocks (1 for modular) 64 wide answers at least 99% of each wholly right (modular: 95%) after
less than a minute on one core, as this file measures (on a busy machine set
OPENBLAS_NUM_THREADS=1):

    python examples/tasks.py [name ...]

    copy, reverse 50 steps   sort 600   addition 700   modular p=23 200   parity 400   brackets 350
    induction 1250
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

import minigrad
from minigrad import optim
from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.autograd import no_grad
from minigrad.dtypes import Array
from minigrad.models import GPT, GPTConfig
from minigrad.nn.module import Module
from minigrad.random import Generator

__all__ = [
    "Task",
    "addition",
    "brackets",
    "copy",
    "induction",
    "modular",
    "parity",
    "reverse",
    "sort",
]

# Tokens (B, T + 1), and where they are answers, bool of that shape or of (T + 1,)
Rows = tuple[Array, Array]
# Held-out questions count up from here, training ones from the upper half of the counters, as in
# TextData
_HELD_OUT = 1 << 61


class Task:
    """Questions with answers.

    make: (generator, number of rows, whether held-out ones) -> tokens and where they are answers.
        words: how the tokens are shown.
    Batches are a function of seed and step. For the tasks here see the functions of this module; a
    rule of your own is a `make` of your own.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        make: Callable[[Generator, int, bool], Rows],
        *,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.batch_size = as_int(name, "batch_size", batch_size)
        self.name, self.words, self.seed = name, list(words), seed
        self._make = make
        self.block_size = self._rows(1, 0, False)[0].shape[1]

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.words)

    @property
    def sizes(self) -> dict[str, int]:
        """What a model has to fit: vocab_size and block_size."""
        return {"vocab_size": self.vocab_size, "block_size": self.block_size}

    def _rows(self, n: int, step: int, held_out: bool) -> Rows:
        generator = Generator(self.seed)
        # A step has 2^32 counters to itself, however many numbers its rows need.
        generator.set_state((self.seed, (_HELD_OUT if held_out else 1 << 63) + (step << 32)))
        tokens, answers = self._make(generator, n, held_out)
        targets = np.where(answers, tokens, -100)
        return tokens[:, :-1], targets[:, 1:]

    def batch(self, step: int) -> Rows:
        """Inputs and targets of a training step, each (B, T); a target is -100 where the next token
        is not part of an answer.
        """
        return self._rows(self.batch_size, step, False)

    def validation(self, batches: int = 4) -> Iterator[Rows]:
        """Batches of held-out questions, always the same ones."""
        return (self._rows(self.batch_size, i, True) for i in range(batches))

    def accuracy(self, model: Module, batches: int = 4) -> float:
        """The share of held-out questions whose whole answer is the model's likeliest: exactly
        those that greedy generation answers rightly.
        """
        was_training, right, total = model.training, 0, 0
        model.eval()
        try:
            for x, y in self.validation(batches):
                with no_grad():
                    best = model(x).numpy().argmax(-1)
                right += int(((best == y) | (y == -100)).all(axis=1).sum())
                total += len(y)
        finally:
            model.train(was_training)
        return right / total

    def show(self, row: int = 0) -> str:
        """A held-out question with its answer."""
        x, y = self._rows(row + 1, 0, True)
        last = y[row, -1] if y[row, -1] >= 0 else x[row, -1]
        return " ".join(self.words[t] for t in [*x[row], last])

    def __repr__(self) -> str:
        return f"<Task {self.name}: {self.vocab_size} tokens, block_size {self.block_size}>"


def copy(length: int = 8, symbols: int = 10, *, batch_size: int = 64, seed: int = 0) -> Task:
    """Say the symbols again: 3 1 2 = 3 1 2."""
    return _rewriting("copy", lambda x: x, length, symbols, batch_size, seed)


def reverse(length: int = 8, symbols: int = 10, *, batch_size: int = 64, seed: int = 0) -> Task:
    """Say the symbols backwards: 3 1 2 = 2 1 3."""
    return _rewriting("reverse", lambda x: x[:, ::-1], length, symbols, batch_size, seed)


def sort(length: int = 8, symbols: int = 10, *, batch_size: int = 64, seed: int = 0) -> Task:
    """Say the symbols in order: 3 1 2 = 1 2 3."""
    return _rewriting("sort", lambda x: np.sort(x, axis=1), length, symbols, batch_size, seed)


def parity(length: int = 12, *, batch_size: int = 64, seed: int = 0) -> Task:
    """Say after each bit whether the ones so far are odd in number: 1 1 0 1 = 1 0 0 1. The last
    answer is the parity of all.
    """
    return _rewriting("parity", lambda x: np.cumsum(x, axis=1) % 2, length, 2, batch_size, seed)


def _rewriting(
    name: str, rule: Callable[[Array], Array], length: int, symbols: int, batch_size: int, seed: int
) -> Task:
    """Symbols, "=", and what the rule makes of them."""
    length = as_int(name, "length", length, 1)
    symbols = as_int(name, "symbols", symbols, 2)

    def make(generator: Generator, n: int, held_out: bool) -> Rows:
        x = generator.integers(0, symbols, (n, length))
        return _asked(x, rule(x), equals=symbols)

    return Task(name, [*map(str, range(symbols)), "="], make, batch_size=batch_size, seed=seed)


def addition(digits: int = 2, *, batch_size: int = 64, seed: int = 0) -> Task:
    """Add two numbers; all are written from the ones up, so that a carry goes the way of writing: 7
    2 + 5 1 = 2 4 0 is 27 + 15 = 42.
    """
    digits = as_int("addition", "digits", digits, 1)
    powers = 10 ** np.arange(digits + 1)

    def make(generator: Generator, n: int, held_out: bool) -> Rows:
        a, b = (generator.integers(0, 10, (n, digits)) for _ in range(2))
        total = (a @ powers[:-1] + b @ powers[:-1])[:, None] // powers % 10
        return _asked(np.concatenate([a, np.full((n, 1), 10), b], axis=1), total, equals=11)

    return Task(
        "addition", [*map(str, range(10)), "+", "="], make, batch_size=batch_size, seed=seed
    )


def modular(
    p: int = 97,
    operation: str = "+",
    train_fraction: float = 0.5,
    *,
    batch_size: int = 512,
    seed: int = 0,
) -> Task:
    """a + b = c modulo p (or a - b, or a * b), learned from a part of the p^2 equations and asked
    about the others.

    This is where grokking was seen: the training equations are known by heart long before the
        others are understood. From Power et al. 2022,
    arXiv:2201.02177.
    """
    p = as_int("modular", "p", p, 2)
    one_of("modular", "operation", operation, ("+", "-", "*"))
    cut = int(p * p * as_float("modular", "train_fraction", train_fraction, 0, 1))
    wanted = "a fraction that leaves equations on both sides"
    require(1 <= cut < p * p, "modular", "train_fraction", train_fraction, wanted)
    a, b = np.divmod(Generator(seed).permutation(p * p), p)
    c = (a + b if operation == "+" else a - b if operation == "-" else a * b) % p

    def make(generator: Generator, n: int, held_out: bool) -> Rows:
        i = generator.integers(cut, p * p, (n,)) if held_out else generator.integers(0, cut, (n,))
        return _asked(np.stack([a[i], b[i]], axis=1), c[i, None], equals=p)

    return Task(
        f"modular {operation}", [*map(str, range(p)), "="], make, batch_size=batch_size, seed=seed
    )


def brackets(length: int = 20, *, batch_size: int = 64, seed: int = 0) -> Task:
    """Are the brackets balanced? ( ( ) ) = yes. Half of them are; in the others two have been
    exchanged so that they are not.
    """
    length = as_int("brackets", "length", length, 4)
    require(length % 2 == 0, "brackets", "length", length, "even, or nothing could be balanced")

    def make(generator: Generator, n: int, held_out: bool) -> Rows:
        x = _balanced(generator, n, length)
        broken = generator.integers(0, 2, (n,)) == 1
        x = np.where(broken[:, None], _broken(x, generator), x)
        return _asked(x, np.where(broken, 3, 4)[:, None], equals=2)

    return Task("brackets", ["(", ")", "=", "no", "yes"], make, batch_size=batch_size, seed=seed)


def _balanced(generator: Generator, n: int, length: int) -> Array:
    """Rows of balanced brackets, 0 for ( and 1 for ): at each place one of the two that can still
    be completed.
    """
    x, depth = np.zeros((n, length), np.int64), np.zeros(n, np.int64)
    coins = generator.integers(0, 2, (n, length))
    for i in range(length):
        left = length - i
        x[:, i] = np.where(depth == 0, 0, np.where(depth == left, 1, coins[:, i]))
        depth += 1 - 2 * x[:, i]
    return x


def _broken(x: Array, generator: Generator) -> Array:
    """Each row with a random "(" and a random ")" after it exchanged; or the outermost two, where
    that leaves it balanced.
    """
    rows, place = np.arange(len(x)), np.arange(x.shape[1])
    chance = generator.uniform((2, *x.shape), 0.1, 1.0)
    first = (chance[0] * (x == 0)).argmax(axis=1)
    second = (chance[1] * ((x == 1) & (place > first[:, None]))).argmax(axis=1)
    out = _exchanged(x, rows, first, second)
    lowest: Array = np.cumsum(1 - 2 * out, axis=1).min(axis=1)
    return np.where(lowest[:, None] >= 0, _exchanged(x, rows, 0 * rows, 0 * rows - 1), out)


def _exchanged(x: Array, rows: Array, first: Array, second: Array) -> Array:
    out = x.copy()
    out[rows, first], out[rows, second] = 1, 0
    return out


def induction(
    length: int = 8, symbols: int = 16, questions: int = 4, *, batch_size: int = 64, seed: int = 0
) -> Task:
    """What came after this one? d b a c = b a d b: after "=" come questions, each followed by the
    symbol that came next in the list.

    The symbols of a list are distinct; the circuit that a transformer makes for it is the induction
    head of Olsson et al. 2022, arXiv:2209.11895.
    """
    length = as_int("induction", "length", length, 2)
    symbols = as_int("induction", "symbols", symbols, length)
    questions = as_int("induction", "questions", questions, 1)
    place = np.arange(length + 1 + 2 * questions)
    answers = (place > length) & ((place - length) % 2 == 0)

    def make(generator: Generator, n: int, held_out: bool) -> Rows:
        x = np.argsort(generator.uniform((n, symbols)), axis=1)[:, :length]
        at = generator.integers(0, length - 1, (n, questions))
        asked = np.stack(
            [np.take_along_axis(x, at, 1), np.take_along_axis(x, at + 1, 1)], axis=2
        ).reshape(n, -1)
        return np.concatenate([x, np.full((n, 1), symbols), asked], axis=1), answers

    return Task(
        "induction", [*map(str, range(symbols)), "="], make, batch_size=batch_size, seed=seed
    )


def _asked(question: Array, answer: Array, equals: int) -> Rows:
    """question, "=", answer in one row, and where the answer is."""
    tokens = np.concatenate([question, np.full((len(question), 1), equals), answer], axis=1)
    return tokens, np.arange(tokens.shape[1]) > question.shape[1]


# --- what a small GPT reaches

# name -> (task, model's sizes, learning rate, weight decay, stated accuracy)
SETTINGS = {
    "copy": (copy(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "reverse": (reverse(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "sort": (sort(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "addition": (addition(), {"n_layer": 2}, 3e-3, 0.01, 0.99),
    "modular": (
        modular(p=23, train_fraction=0.8, batch_size=256),
        {"n_layer": 1},
        4e-3,
        1.0,
        0.95,
    ),
    "parity": (parity(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "brackets": (brackets(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
    "induction": (induction(), {"n_layer": 2}, 2e-3, 0.01, 0.99),
}


def learn(name: str, seconds: float = 60.0, every: int = 50) -> tuple[float, int, float]:
    """Accuracy, steps and seconds of processor time until the stated accuracy or the end of the
    time.
    """
    task, sizes, lr, decay, stated = SETTINGS[name]
    minigrad.manual_seed(0)
    model = GPT(GPTConfig.gpt2(**task.sizes, n_embd=64, **sizes))
    optimizer = optim.AdamW(
        optim.decay_groups(model.named_parameters(), decay), lr=lr, betas=(0.9, 0.98)
    )
    start, step, accuracy = time.process_time(), 0, 0.0
    while accuracy < stated and time.process_time() - start < seconds:
        loss = model.loss(*task.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % every == 0:
            accuracy = task.accuracy(model)
    return accuracy, step, time.process_time() - start


if __name__ == "__main__":
    print(f"{'task':<10} {'stated':>7} {'reached':>8} {'steps':>6} {'seconds':>8}   example")
    for name in sys.argv[1:] or SETTINGS:
        accuracy, steps, seconds = learn(name)
        print(
            f"{name:<10} {SETTINGS[name][4]:>7.0%} {accuracy:>8.1%} {steps:>6} {seconds:>8.1f}   "
            f"{SETTINGS[name][0].show()}",
            flush=True,
        )
