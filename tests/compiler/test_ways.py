"""The ways in which a Python value or object can change between two calls of a step: the result is
right, or the change is reported, at the latest at the next audit.
"""

import array
import builtins
import contextlib
import ctypes
import decimal
import fractions
import functools
import json
import logging
import operator
import os
import queue
import sys
import threading
import types
import warnings
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.compiler import jit
from minigrad.nn import Module


def x(*shape, start=1.0):
    return Tensor((np.arange(int(np.prod(shape)), dtype=np.float32) + start).reshape(shape))


FACTOR = 2.0
MANY = {f"key {i}": 0.0 for i in range(1000)}
Pair = namedtuple("Pair", "scale shift")
context = ContextVar("scale", default=2.0)


class Base:
    scale = 2.0


class Derived(Base):
    pass


class Meta(type):
    @property
    def scale(cls):
        return cls.hidden


class WithMeta(metaclass=Meta):
    hidden = 2.0


class Slots:
    __slots__ = ("scale",)


class Properties:
    hidden = 2.0

    @property
    def scale(self):
        return self.hidden

    def __getattr__(self, name):
        return vars(self).get("_" + name, 1.0)

    def __call__(self, t):
        return t * self.scale

    def method(self, t):
        return t * FACTOR


@dataclass
class Config:
    scale: float = 2.0


class Deep(dict):
    __getattr__ = dict.__getitem__


class Rate(Enum):
    SLOW = 2.0
    FAST = 3.0


class Described:
    def __get__(self, owner, kind=None):
        return self.value

    value = 2.0


class Holder:
    scale = Described()


def by_attribute(function):
    return function.scale


by_attribute.scale = 2.0


def default(t, scale=[2.0]):  # noqa: B006 (what is tested)
    return t * scale[0]


def set_global(v):
    global FACTOR
    FACTOR = v


def ways():
    """Each a step, and how the number that it reads is changed."""
    listed, named, deep = [2.0], {"scale": 2.0}, {"a": {"b": {"c": [{"d": 2.0}]}}}
    module, plain, slots = types.ModuleType("own"), SimpleNamespace(scale=2.0), Slots()
    module.scale, slots.scale, Base.scale, WithMeta.hidden = 2.0, 2.0, 2.0, 2.0
    row, many, counts = deque([2.0]), {2.0}, defaultdict(float, scale=2.0)
    user, chain, ordered = UserDict(scale=2.0), ChainMap({}, {"scale": 2.0}), OrderedDict(scale=2.0)
    own, config, data, array = Deep(scale=2.0), Config(), Properties(), np.full(1, 2.0, np.float32)
    held, rate, pair = [Rate.SLOW], SimpleNamespace(scale=np.float32(2)), [Pair(2.0, 0.0)]
    helpers, text, bits = [lambda t: t * plain.scale], ["2"], bytearray(b"\x02")
    partial, cells = [functools.partial(lambda s, t: t * s, 2.0)], [2.0]
    counter, mocked, generator = iter(()), mock.Mock(scale=2.0), np.random.default_rng(0)
    tensors, nested = {"w": Tensor([2.0])}, [SimpleNamespace(inner=SimpleNamespace(scale=2.0))]
    os.environ["MINIGRAD_TEST"], by_attribute.scale, Described.value = "2", 2.0, 2.0
    default.__defaults__ = ([2.0],)
    data.hidden, MANY["key 999"] = 2.0, 2.0
    set_global(2.0)
    context.set(2.0)
    assert counter is not None and generator is not None

    def closure(t):
        return t * cells[0]

    def nonlocal_number():
        scale = 2.0

        def read(t):
            return t * scale

        def write(v):
            nonlocal scale
            scale = v

        return read, write

    read, write = nonlocal_number()
    return {
        "a list": (lambda t: t * listed[0], lambda v: listed.__setitem__(0, v)),
        "a dict": (lambda t: t * named["scale"], lambda v: named.update(scale=v)),
        "a deep container": (
            lambda t: t * deep["a"]["b"]["c"][0]["d"],
            lambda v: deep["a"]["b"]["c"][0].update(d=v),
        ),
        "a large dict": (lambda t: t * MANY["key 999"], lambda v: MANY.update({"key 999": v})),
        "a set": (lambda t: t * max(many), lambda v: (many.clear(), many.add(v))),
        "a deque": (lambda t: t * row[0], lambda v: row.__setitem__(0, v)),
        "a defaultdict": (lambda t: t * counts["scale"], lambda v: counts.update(scale=v)),
        "an OrderedDict": (lambda t: t * ordered["scale"], lambda v: ordered.update(scale=v)),
        "a UserDict": (lambda t: t * user["scale"], lambda v: user.update(scale=v)),
        "a ChainMap": (lambda t: t * chain["scale"], lambda v: chain.update(scale=v)),
        "a dict subclass": (lambda t: t * own.scale, lambda v: own.update(scale=v)),
        "a module": (lambda t: t * module.scale, lambda v: setattr(module, "scale", v)),
        "an object": (lambda t: t * plain.scale, lambda v: setattr(plain, "scale", v)),
        "an object in an object in a list": (
            lambda t: t * nested[0].inner.scale,
            lambda v: setattr(nested[0].inner, "scale", v),
        ),
        "__slots__": (lambda t: t * slots.scale, lambda v: setattr(slots, "scale", v)),
        "a base class": (lambda t: t * Derived.scale, lambda v: setattr(Base, "scale", v)),
        "an instance of a class": (
            lambda t: t * Derived().scale,
            lambda v: setattr(Base, "scale", v),
        ),
        "a metaclass": (lambda t: t * WithMeta.scale, lambda v: setattr(WithMeta, "hidden", v)),
        "a property": (lambda t: t * data.scale, lambda v: setattr(data, "hidden", v)),
        "__getattr__": (
            lambda t: t * data.missing * 2.0,
            lambda v: setattr(data, "_missing", v / 2.0),
        ),
        "a descriptor": (lambda t: t * Holder.scale, lambda v: setattr(Described, "value", v)),
        "a callable object": (lambda t: data(t), lambda v: setattr(data, "hidden", v)),
        "a global named by a method": (lambda t: data.method(t), set_global),
        "a global": (lambda t: t * FACTOR, set_global),
        "globals()": (lambda t: t * globals()["FACTOR"], set_global),
        "a dataclass": (lambda t: t * config.scale, lambda v: setattr(config, "scale", v)),
        "an enum": (
            lambda t: t * held[0].value,
            lambda v: held.__setitem__(0, Rate.FAST if v == 3 else Rate.SLOW),
        ),
        "a named tuple": (lambda t: t * pair[0].scale, lambda v: pair.__setitem__(0, Pair(v, 0.0))),
        "a number of numpy": (
            lambda t: t * rate.scale,
            lambda v: setattr(rate, "scale", np.float32(v)),
        ),
        "an array of numpy": (lambda t: t * array, lambda v: array.__setitem__(0, v)),
        "an array made a tensor": (lambda t: t * Tensor(array), lambda v: array.__setitem__(0, v)),
        "an element of an array": (
            lambda t: t * float(array[0]),
            lambda v: array.__setitem__(0, v),
        ),
        "a bytearray": (lambda t: t * float(bits[0]), lambda v: bits.__setitem__(0, int(v))),
        "text": (lambda t: t * float(text[0]), lambda v: text.__setitem__(0, str(v))),
        "os.environ": (
            lambda t: t * float(os.environ["MINIGRAD_TEST"]),
            lambda v: os.environ.update(MINIGRAD_TEST=str(v)),
        ),
        "a ContextVar": (lambda t: t * context.get(), context.set),
        "a helper in a list": (lambda t: helpers[0](t), lambda v: setattr(plain, "scale", v)),
        "another helper": (
            lambda t: helpers[0](t),
            lambda v: helpers.__setitem__(0, lambda t: t * v),
        ),
        "a partial": (
            lambda t: partial[0](t),
            lambda v: partial.__setitem__(0, functools.partial(lambda s, t: t * s, v)),
        ),
        "a closure": (closure, lambda v: cells.__setitem__(0, v)),
        "a nonlocal": (read, write),
        "a default": (lambda t: default(t), lambda v: default.__defaults__[0].__setitem__(0, v)),
        "an attribute of a function": (
            lambda t: t * by_attribute(by_attribute),
            lambda v: setattr(by_attribute, "scale", v),
        ),
        "a mock": (lambda t: t * mocked.scale, lambda v: setattr(mocked, "scale", v)),
        "another tensor in a dict": (
            lambda t: t * tensors["w"],
            lambda v: tensors.update(w=Tensor([v])),
        ),
        "sys.modules": (
            lambda t: t * sys.modules[__name__].FACTOR,
            set_global,
        ),
        "a branch": (
            lambda t: t * 2 if plain.scale == 2 else t + t + t,
            lambda v: setattr(plain, "scale", v),
        ),
        "an axis": (
            lambda t: t * t.sum(axis=int(plain.scale) - 3, keepdim=True) / t.sum() * plain.scale,
            lambda v: setattr(plain, "scale", v),
        ),
    }


class Steep:
    scale = 2.0

    def __call__(self, t):
        return t * self.scale


class Steeper(Steep):
    scale = 3.0


class Configured(Module):
    """settings: a list, which is not a Module's business when its items change."""

    shared = 2.0

    def __init__(self):
        self.settings, self.options, self.hidden = [2.0], {"scale": 2.0}, SimpleNamespace(scale=2.0)

    def forward(self, t):
        return t * self.settings[0]


def more_ways(folder=None):
    """More of them, of other kinds."""
    holder, text, cell = (
        SimpleNamespace(scale=2.0),
        (folder or Path()) / "scale.json",
        types.CellType(2.0),
    )
    numbers, memory, c_number = array.array("d", [2.0]), np.full(2, 2.0), ctypes.c_double(2.0)
    local, level, stack = threading.local(), logging.getLogger("minigrad.test"), [2.0]
    model, steep, patched = Configured(), Steep(), Steep()
    waiting, exact, part = queue.LifoQueue(), [decimal.Decimal(2)], [fractions.Fraction(2)]
    record = np.zeros(1, [("scale", np.float32)])
    counted, read_only, keys = Counter("aa"), {"scale": 2.0}, {"double": True}
    reference, order, names = weakref.ref(steep), {"double": 2.0, "add": 0.0}, ["mul"]
    local.scale, memory[:], record["scale"] = 2.0, 2.0, 2.0
    proxy, view = types.MappingProxyType(read_only), memoryview(bytearray(b"\x02"))
    builtins.MINIGRAD_SCALE, Configured.shared = 2.0, 2.0
    if folder:
        text.write_text("2.0")
    level.setLevel(2)
    waiting.put(2.0)
    kinds, sizes, where, table = ["int32"], [2], [slice(0, 1)], Tensor([2.0, 3.0])
    scaled = {"mul": lambda t: t * 2, "triple": lambda t: t * 3}

    def keyword(t, *, scale=2.0):
        return t * scale

    def coded(t):
        return t * 2.0

    def tripled(t):
        return t * 3.0

    @functools.lru_cache
    def cached():
        return holder.scale

    @contextlib.contextmanager
    def scope():
        yield stack[-1]

    def in_scope(t):
        with scope() as scale:
            return t * scale

    def cell_reader():
        def read(t):
            return t * hidden

        hidden = 2.0
        return read, read.__closure__[0]

    by_cell, own_cell = cell_reader()
    assert cell is not own_cell
    return {
        "a keyword default": (
            keyword,
            lambda v: keyword.__kwdefaults__.update(scale=v),
        ),
        "the code of a function": (coded, lambda v: setattr(coded, "__code__", tripled.__code__)),
        "the contents of a cell": (by_cell, lambda v: setattr(own_cell, "cell_contents", v)),
        "the class of an object": (steep, lambda v: setattr(steep, "__class__", Steeper)),
        "an attribute over a class attribute": (patched, lambda v: setattr(patched, "scale", v)),
        "a patched method": (
            lambda t: model.forward(t) if not hasattr(holder, "run") else holder.run(t),
            lambda v: setattr(holder, "run", lambda t: t * v),
        ),
        "a cache that is cleared": (
            lambda t: t * cached(),
            lambda v: (setattr(holder, "scale", v), cached.cache_clear()),
        ),
        "a context manager": (in_scope, stack.append),
        "a thread's own value": (lambda t: t * local.scale, lambda v: setattr(local, "scale", v)),
        "a weak reference": (
            lambda t: t * reference().scale,
            lambda v: setattr(steep, "scale", v),
        ),
        "an array.array": (lambda t: t * numbers[0], lambda v: numbers.__setitem__(0, v)),
        "a number of ctypes": (
            lambda t: t * c_number.value,
            lambda v: setattr(c_number, "value", v),
        ),
        "a memoryview": (lambda t: t * float(view[0]), lambda v: view.__setitem__(0, int(v))),
        "a view of an array": (lambda t: t * float(memory[1:][0]), lambda v: memory.fill(v)),
        "a field of a record": (
            lambda t: t * float(record["scale"][0]),
            lambda v: record["scale"].fill(v),
        ),
        "a file": (
            lambda t: t * json.loads(text.read_text()),
            lambda v: text.write_text(str(v)),
        ),
        "a Decimal": (lambda t: t * float(exact[0]), lambda v: exact.__setitem__(0, v)),
        "a Fraction": (lambda t: t * float(part[0]), lambda v: part.__setitem__(0, v)),
        "the length of a list": (
            lambda t: t * (1 + len(stack)),
            lambda v: stack.append(v),
        ),
        "whether a key is there": (
            lambda t: t * (2 if "double" in keys else 3),
            lambda v: keys.clear(),
        ),
        "the order of a dict": (
            lambda t: t * (2 if next(iter(order)) == "double" else 3),
            lambda v: order.update(double=order.pop("double")),
        ),
        "a name that is looked up": (
            lambda t: scaled[names[0]](t),
            lambda v: names.__setitem__(0, "triple"),
        ),
        "a read-only view of a dict": (
            lambda t: t * proxy["scale"],
            lambda v: read_only.update(scale=v),
        ),
        "a Counter": (lambda t: t * counted["a"], lambda v: counted.update("a")),
        "a queue": (lambda t: t * waiting.queue[-1], waiting.put),
        "a logger's level": (lambda t: t * level.level, lambda v: level.setLevel(int(v))),
        "a name among the builtins": (
            lambda t: t * MINIGRAD_SCALE,  # noqa: F821
            lambda v: setattr(builtins, "MINIGRAD_SCALE", v),
        ),
        "a list in a Module": (model, lambda v: model.settings.__setitem__(0, v)),
        "a dict in a Module": (
            lambda t: t * model.options["scale"],
            lambda v: model.options.update(scale=v),
        ),
        "an object in a Module": (
            lambda t: t * model.hidden.scale,
            lambda v: setattr(model.hidden, "scale", v),
        ),
        "a class attribute of a Module": (
            lambda t: t * model.shared,
            lambda v: setattr(Configured, "shared", v),
        ),
        "an attribute that is reached by name": (
            lambda t: t * operator.attrgetter("inner.scale")(SimpleNamespace(inner=holder)),
            lambda v: setattr(holder, "scale", v),
        ),
        "a dtype": (
            lambda t: t * 2 + t * (Tensor(0.5).to(kinds[0]) * 2),
            lambda v: kinds.__setitem__(0, "float32"),
        ),
        "a shape": (
            lambda t: t * Tensor.ones(*sizes).sum(),
            lambda v: sizes.__setitem__(0, 3),
        ),
        "a slice": (
            lambda t: t * table[where[0]],
            lambda v: where.__setitem__(0, slice(1, 2)),
        ),
    }


def held(body, change):
    """Hold a step whose factor changes from 2 to 3 after call 3 against eager code."""
    step = jit(body, backend="numpy")
    for _ in range(3):
        assert step(x(2)).tolist() == [2, 4]
    change(3.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = [step(x(2)).tolist() for _ in range(9)]
    assert got == [[3, 6]] * 9  # the first of these is call 4, an audit
    assert all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught if "is an audit" in str(w.message)]


@pytest.mark.parametrize("way", list(ways()))
def test_a_number_that_changes_is_right_or_reported_at_the_next_audit(way):
    told = held(*ways()[way])
    assert (len(told) == 1 and "since call 2" in told[0]) or way == "an array of numpy"


@pytest.mark.parametrize("way", list(more_ways()))
def test_further_changes_are_right_or_reported_at_the_next_audit(way, tmp_path):
    (told,) = held(*more_ways(tmp_path)[way])
    assert "since call 2" in told


CLOSED = [mock.call, mock.Mock(), Deep(a=1), sys, np, object(), iter([1]), type, Properties()]


@pytest.mark.parametrize("number", range(len(CLOSED)))
def test_objects_in_a_closure_are_not_touched(number):
    closed = CLOSED[number]
    step = jit(lambda t: (closed, t * 2)[1], backend="numpy")
    for _ in range(9):
        assert step(x(2)).tolist() == [2, 4]
