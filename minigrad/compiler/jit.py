"""`minigrad.jit`: a step that is recorded on its first two calls and replayed from the third on.

    @minigrad.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        return loss

Both recorded calls are real, eager steps. Whatever could make a replay differ from an eager call is
a CaptureError when it is recorded, or makes a
new program when it changes later: nothing is replayed silently on something else.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from minigrad.autograd import MODE, listening
from minigrad.compiler.checks import (
    difference,
    marks,
    moved_differently,
    refuse_writes_past_the_ops,
    snapshot,
)
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.layout import address_of
from minigrad.compiler.native import NativeError
from minigrad.compiler.plan import Plan, Start, make_plan
from minigrad.compiler.program import Program
from minigrad.compiler.record import Recording
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.signatures import Entry, Signature
from minigrad.compiler.structure import alike, flatten, rebuild
from minigrad.compiler.surroundings import Surroundings, within
from minigrad.dtypes import Array
from minigrad.errors import CaptureError, ConfigError
from minigrad.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A function with recorded and compiled programs, one per signature (shapes, dtypes, Python
    arguments, grad mode, train/eval mode).

    backend: "c", "numpy", or None for C where there is a compiler.   threads: of the C code; None
        for one per core, or one alone for a small step.
    max_programs: the least recently used program beyond this number is dropped.
    """

    def __init__(
        self,
        function: Callable[P, R],
        backend: str | None = None,
        threads: int | None = None,
        max_programs: int = 16,
    ) -> None:
        if not callable(function):
            raise ConfigError(
                "jit",
                f"{function!r} is no function",
                got=function,
                wanted="a function of Tensors",
                hint='jit(f), or jit(backend="numpy") as a decorator',
            )
        if backend not in (None, "c", "numpy"):
            raise ConfigError(
                "jit", f"backend={backend!r}", got=backend, wanted=["c", "numpy", None]
            )
        if threads is not None and (type(threads) is not int or threads < 1):
            raise ConfigError(
                "jit", f"threads={threads!r}", got=threads, wanted="a number of threads, or None"
            )
        if type(max_programs) is not int or max_programs < 1:
            raise ConfigError(
                "jit",
                f"max_programs={max_programs!r}",
                got=max_programs,
                wanted="a number of programs, 1 or more",
            )
        functools.update_wrapper(self, function)
        self.function, self.backend, self.threads, self.max_programs = (
            function,
            backend,
            threads,
            max_programs,
        )
        self._entries: OrderedDict[Any, Entry] = OrderedDict()
        self._lock = threading.Lock()
        _STEPS.add(self)
        self._around = Surroundings(function)
        self._last: Plan | None = None
        self._dropped = 0
        self._told: set[str] = set()  # names that a warning was about

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        mode = MODE.get()
        if mode.listener is not None:  # within another recording, or while somebody watches: eager
            return self.function(*args, **kwargs)
        tensors: list[Tensor] = []
        structure, key = flatten((args, kwargs), tensors)
        with self._lock:
            around = self._around.values()
            own_key = (key, self._around.signature(), mode.grad)
            entry = self._entry(own_key, (args, kwargs), around)
            signature = entry.signature()
            plan = next((p for p in signature.plans if p.fits(tensors)), None)
            if plan is None:
                seen = self._around.keys(around)
                known = [
                    x
                    for x in within([*around, *entry.reach.inside.values()])
                    if isinstance(x, (Tensor, np.ndarray))
                ]
                out = self._record(entry, signature, structure, tensors, known)
                changed = self._around.ignore_changes(seen)
                self._rename(own_key, (key, self._around.signature_of(seen), mode.grad))
                entry.reach.look()
                self._say_what_changes(
                    entry,
                    signature,
                    changed | entry.reach.of_user(signature.own(entry.reach.inside)),
                )
                return out
            if not plan.overlaps(tensors):
                self._last = plan
                return plan.run(tensors)
        filled = rebuild(structure, tensors)
        return self.function(*filled[0], **filled[1])

    def _entry(self, key: Any, arguments: Any, around: list[Any]) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            given = [x for x in within(arguments) if not isinstance(x, (Tensor, np.ndarray))]
            entry = self._entries[key] = Entry([*given, *within(around)])
            while len(self._entries) > self.max_programs:
                self._entries.popitem(last=False)
                self._dropped += 1
                if self._dropped == 4 * self.max_programs:
                    warnings.warn(
                        f"minigrad.jit: {self._dropped} programs of "
                        f"{getattr(self.function, '__name__', 'the step')} have been dropped for "
                        "new ones, as arguments or what the step sees keep changing; pass numbers "
                        "that change as tensors, or give "
                        f"jit(max_programs=...) more than {self.max_programs}",
                        RuntimeWarning,
                        stacklevel=3,
                    )
        else:
            self._entries.move_to_end(key)
        return entry

    def _say_what_changes(self, entry: Entry, signature: Signature, changed: set[str]) -> None:
        """Warn, once a program is made, of what the step changes itself; and of what keeps it from
        being replayed.
        """
        step = getattr(self.function, "__name__", "the step")
        if changed - self._told and signature.plans:
            warnings.warn(
                f"minigrad.jit: {step} changes {', '.join(sorted(changed))} itself, which replays "
                "do not do again: they run its ops alone; "
                "keep counters, lists and branches on them outside the step",
                RuntimeWarning,
                stacklevel=3,
            )
        if named := entry.reach.of_user(signature.named) - self._told:
            warnings.warn(
                f"minigrad.jit: {', '.join(sorted(named))} changes from call to call, and {step} "
                "names it: it is recorded anew each time; "
                "pass what changes as a tensor",
                RuntimeWarning,
                stacklevel=3,
            )
        if signature.plans:
            self._told |= changed
        self._told |= named

    def _rename(self, key: Any, without: Any) -> None:
        """Know an entry by a key without what the call has changed."""
        if without != key and key in self._entries:
            self._entries.setdefault(without, self._entries.pop(key))

    def _record(
        self,
        entry: Entry,
        signature: Signature,
        structure: Any,
        tensors: list[Tensor],
        known: list[Any],
    ) -> Any:
        """One eager call, heard by a recording; after the second, the program is made. known:
        tensors and arrays that the function sees by itself.
        """
        first, signature.recording = (
            signature.recording,
            None,
        )  # an exception leaves no half of a pair behind
        start = Start(first, tensors, [x for x in known if isinstance(x, Tensor)])
        before = {} if first is None else marks(first)
        states = {} if first is None else snapshot(first)
        recording = Recording(tensors, known)
        out = self._heard(recording, structure, tensors)
        recording.read_gradients = recording.reads(start.gradients)
        if not recording.calls:
            return _detached(out)  # nothing that could be replayed: it may still clear gradients
        # The first call of a step that lets gradients add up finds none: only calls that found them
        # alike are compared.
        if first is None or (first.read_gradients, first.pattern) != (
            recording.read_gradients,
            recording.pattern,
        ):
            signature.begin(recording)
            return _detached(out)
        try:
            plan = make_plan(first, recording, start, tensors)
        except CaptureError:
            if not signature.suspects:
                raise
            signature.begin(
                recording
                # What differs may be what has changed inside an object: the next call is held
                # against this one
            )
            return _detached(out)
        refuse_writes_past_the_ops(before, plan.captured, set(plan.changed))
        if signature.known(
            plan, lambda place: self._around.mention(place[1], entry.reach.objects.values())
        ):
            return _detached(out)
        plan.watch([x for x in known if isinstance(x, np.ndarray)])
        plan.backend = self._make_backend(plan)
        self._check(plan, tensors, states, out)
        signature.plans = [*signature.plans[-3:], plan]
        self._last = plan
        return _detached(out)

    def _heard(self, recording: Recording, structure: Any, tensors: list[Tensor]) -> Any:
        """The eager call. Raises CaptureError if it changes a list or dict that it is given, which
        are copies here.
        """
        filled = rebuild(structure, tensors)
        before = MODE.get()
        try:
            with listening(recording):
                out = self.function(*filled[0], **filled[1])
        finally:
            MODE.set(before)  # an interrupt may come just where the block ends
        again: list[Tensor] = []
        after, _ = flatten(filled, again)
        if not alike(after, structure) or any(
            x is not y for x, y in zip(again, tensors, strict=True)
        ):
            raise CaptureError(
                "jit",
                "the step changes a list or dict that it is given, which a replay would not do",
                hint="return what is new instead, and put it into the list or dict outside the "
                "step",
            )
        recording.finish(out)
        return out

    def _make_backend(self, plan: Plan) -> NumpyReplay | CompiledReplay:
        # In C, lines that share memory in ways that the program does not show would change places
        if plan.captured.shares:
            if self.backend != "numpy":
                warnings.warn(
                    "minigrad.jit: the step changes memory that two of its tensors share; it runs "
                    "with numpy, with the same results",
                    RuntimeWarning,
                    stacklevel=4,
                )
        elif self.backend != "numpy":
            try:
                made = CompiledReplay(
                    plan.program, plan.captured.constants, plan.bound, self.threads
                )
            except NativeError as error:
                warnings.warn(
                    f"minigrad.jit: {error}; the step runs with numpy, with the same results",
                    RuntimeWarning,
                    stacklevel=4,
                )
            else:
                if made.built.note:
                    warnings.warn(f"minigrad.jit: {made.built.note}", RuntimeWarning, stacklevel=4)
                return made
        return NumpyReplay(plan.program, plan.captured.constants)

    def _check(
        self, plan: Plan, tensors: list[Tensor], states_before: dict[int, Array], out: Any
    ) -> None:
        """Run the program once on the second call's inputs and states, and hold it against what
        eager got; then put eager's state back.
        """
        values = plan.program.values
        states = {i: plan.bound[i] for i in plan.changed if values[i].source == "state"}
        if any(address_of(a) not in states_before for a in states.values()) or len(states) < len(
            plan.changed
        ):
            return  # no copy of the state before: the tests of the op table have to do
        different = self._difference(plan, tensors, states, states_before, out)
        if different and isinstance(plan.backend, CompiledReplay):
            compiled, plan.backend = different, NumpyReplay(plan.program, plan.captured.constants)
            different = self._difference(plan, tensors, states, states_before, out)
            if not different:
                warnings.warn(
                    f"minigrad.jit: the compiled step differs from the eager one ({compiled}); the "
                    "step runs with numpy instead",
                    RuntimeWarning,
                    stacklevel=4,
                )
        if different:
            raise CaptureError(
                "jit",
                "the step does something that its ops do not show: a replay differs from the "
                f"eager call in {different}",
                got=different,
                hint="set seeds, states and buffers by ops, or outside the step",
            )

    def _difference(
        self,
        plan: Plan,
        tensors: list[Tensor],
        states: dict[int, Array],
        before: dict[int, Array],
        out: Any,
    ) -> str:
        """What differs between a replay of the call and the call; nothing if it is the same. Leaves
        the states as the call left them.
        """
        after = {i: a.copy() for i, a in states.items()}
        found = {i: plan.bound[i] for i in plan.captured.gradients}  # those that the call added to
        magnified = plan.magnified()
        for a in states.values():
            a[...] = before[address_of(a)]
        eager = [
            t.data for t, given in zip(_tensors(out), plan.given, strict=True) if given is None
        ]
        eager += [t.grad.data for t in plan.grads.at(tensors) if t.grad is not None]
        try:
            different = difference(
                plan.backend.run({**plan.binding(tensors), **found}, True), eager
            )
            for i, a in states.items():
                different = different or moved_differently(
                    a, after[i], before[address_of(a)], i in magnified
                )
        finally:
            plan.bound.update(found)
            for i, a in states.items():
                a[...] = after[i]
        return different

    # --- to look at

    @property
    def program(self) -> Program:
        """The program that ran last."""
        return self._ready().program

    @property
    def c_source(self) -> str:
        """The C file of the program that ran last. Raises ConfigError if it runs with numpy."""
        backend = self._ready().backend
        if isinstance(backend, CompiledReplay):
            return backend.source
        raise ConfigError(
            "jit", "there is no C source: the step runs with numpy", hint="step.explain() says why"
        )

    def explain(self) -> str:
        """What runs, kernel by kernel: what was fused, what goes back through numpy, bytes and
        multiplications, share of the time.
        """
        backend = self._ready().backend
        if isinstance(backend, CompiledReplay):
            return backend.explain()
        return f"numpy replay of {len(backend.program.lines)} lines; no C"

    def _ready(self) -> Plan:
        if self._last is None:
            raise ConfigError(
                "jit",
                "there is no program yet",
                hint="call the step twice: its first two calls are recorded",
            )
        return self._last

    def _arguments_of(self, plan: Plan) -> list[Any]:
        """The keys of the arguments that a program is for."""
        return [
            key[0]
            for key, entry in self._entries.items()
            for s in entry.signatures.values()
            if plan in s.plans
        ]

    def __repr__(self) -> str:
        count = sum(
            len(s.plans) for entry in self._entries.values() for s in entry.signatures.values()
        )
        return (
            f"<jit {getattr(self.function, '__name__', 'step')}: {count} "
            f"program{'' if count == 1 else 's'}>"
        )


_STEPS: weakref.WeakSet[Step[Any, Any]] = weakref.WeakSet()


def _forget_threads() -> None:
    """A forked child has none of the parent's threads, one of which may have been inside a step."""
    for step in _STEPS:
        step._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def jit(
    function: Any = None,
    *,
    backend: str | None = None,
    threads: int | None = None,
    max_programs: int = 16,
) -> Any:
    """Make a function of Tensors into a `Step`. As a decorator, with or without arguments. See
    `Step` and this module's docstring.
    """
    if function is None:
        return lambda f: Step(f, backend, threads, max_programs)
    return Step(function, backend, threads, max_programs)


def _tensors(out: Any) -> list[Tensor]:
    found: list[Tensor] = []
    flatten(out, found)
    return found


def _detached(out: Any) -> Any:
    """Results of a recorded call as a replay gives them: without a graph."""
    tensors: list[Tensor] = []
    shape, _ = flatten(out, tensors)
    return rebuild(shape, [t if t.is_leaf else t.detach() for t in tensors])
