"""`minigrad.jit`: a step that is recorded on its first two calls and replayed from the third on.

    @minigrad.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        return loss

Both recorded calls are real, eager steps. Whatever could make a replay differ from an eager call is a CaptureError when it is recorded, or makes a
new program when it changes later: nothing is replayed silently on something else.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from minigrad.autograd import MODE, listening
from minigrad.compiler import passes
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.layout import address_of
from minigrad.compiler.native import NativeError
from minigrad.compiler.plan import Plan
from minigrad.compiler.program import Program
from minigrad.compiler.record import Recording, capture
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.signatures import Entry, Signature
from minigrad.compiler.structure import flatten, leaves, rebuild
from minigrad.compiler.surroundings import Surroundings
from minigrad.dtypes import Array
from minigrad.errors import CaptureError, ConfigError
from minigrad.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A function with recorded and compiled programs, one per signature (shapes, dtypes, Python arguments, grad mode, train/eval mode).

    backend: "c", "numpy", or None for C where there is a compiler.   threads: of the C code; None for one per core, or one alone for a small step.
    max_programs: the least recently used program beyond this number is dropped.
    """

    def __init__(self, function: Callable[P, R], backend: str | None = None, threads: int | None = None, max_programs: int = 16) -> None:
        if backend not in (None, "c", "numpy"):
            raise ConfigError("jit", f"backend={backend!r}", got=backend, wanted=["c", "numpy", None])
        functools.update_wrapper(self, function)
        self.function, self.backend, self.threads, self.max_programs = function, backend, threads, max_programs
        self._entries: OrderedDict[Any, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._around = Surroundings(function)
        self._last: Plan | None = None

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
            seen = self._around.key(around)
            entry = self._entry((key, seen, mode.grad), (args, kwargs, around))
            signature = entry.signature()
            plan = next((p for p in signature.plans if p.fits()), None)
            if plan is None:
                out = self._record(signature, structure, tensors)
                self._around.ignore_changes(seen)
                entry.reach.look()
                signature.own(entry.reach.inside)
                return out
            if not plan.overlaps(tensors):
                self._last = plan
                try:
                    return plan.run(tensors)
                except IndexError:
                    pass  # an index out of its range: the eager call says which
        filled = rebuild(structure, tensors)
        return self.function(*filled[0], **filled[1])

    def _entry(self, key: Any, keep: tuple[Any, ...]) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(list(leaves(keep)))
            while len(self._entries) > self.max_programs:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        return entry

    def _record(self, signature: Signature, structure: Any, tensors: list[Tensor]) -> Any:
        """One eager call, heard by a recording; after the second, the program is made."""
        first, signature.recording = signature.recording, None  # an exception leaves no half of a pair behind
        start_grads, snapshot = {}, {}
        if first is not None:
            start_grads = {id(t.grad.data): t for t in first.tensors.values() if t.grad is not None}
            snapshot = _snapshot(first)
        had_none = [] if first is None else [t for t in first.tensors.values() if t.requires_grad and t.grad is None]
        recording = Recording(tensors)
        filled = rebuild(structure, tensors)
        with listening(recording):
            out = self.function(*filled[0], **filled[1])
        recording.read_gradients = recording.reads(start_grads)
        # The first call of a step that lets gradients add up finds none: only calls that found them alike are compared.
        if first is None or first.read_gradients != recording.read_gradients:
            signature.begin(recording)
            return _detached(out)
        try:
            plan = self._plan(first, recording, start_grads, had_none, out)
        except CaptureError:
            if not signature.suspects:
                raise
            signature.begin(recording)  # what differs may be what has changed inside an object: the next call is held against this one
            return _detached(out)
        if signature.known(plan):
            return _detached(out)
        plan.backend = self._make_backend(plan)
        self._check(plan, tensors, snapshot, out)
        signature.plans = [*signature.plans[-3:], plan]
        self._last = plan
        return _detached(out)

    def _plan(self, first: Recording, second: Recording, start_grads: dict[int, Tensor], had_none: list[Tensor], out: Any) -> Plan:
        results: list[Tensor] = []
        shape, _ = flatten(out, results)
        numbers, given = [], []
        for t in results:
            number = second.find(t.data)
            if number is None:
                raise CaptureError("jit", f"the step returns a tensor of shape {t.shape} that no recorded op made", got=t.shape,
                                   hint="compute it from the arguments with ops, or return it from another function")  # fmt: skip
            persistent = number in second.leaves and second.leaves[number].tensor is t
            given.append(t if persistent else None)
            if not persistent:
                numbers.append(number)
        grads = {}
        for t in second.tensors.values():
            number = None if t.grad is None else second.find(t.grad.data)
            if number is not None and id(t.grad.data if t.grad is not None else None) not in start_grads:
                grads[number] = t
        captured = capture(first, second, start_grads, numbers, list(grads))
        program, captured.constants = passes.simplify(captured.program, captured.constants)
        plan = Plan(captured, program, shape, given, grads)
        graded = set(map(id, grads.values()))
        plan.bound.update((i, second.leaves[i].array) for i in captured.gradients)
        plan.cleared = [t for t in second.tensors.values() if t.requires_grad and t.grad is None]
        plan.expect_none = [t for t in had_none if id(t) in graded]
        return plan

    def _make_backend(self, plan: Plan) -> NumpyReplay | CompiledReplay:
        if self.backend != "numpy":
            try:
                made = CompiledReplay(plan.program, plan.captured.constants, plan.bound, self.threads)
            except NativeError as error:
                warnings.warn(f"minigrad.jit: {error}; the step runs with numpy, with the same results", RuntimeWarning, stacklevel=5)
            else:
                if made.built.note:
                    warnings.warn(f"minigrad.jit: {made.built.note}", RuntimeWarning, stacklevel=5)
                return made
        return NumpyReplay(plan.program, plan.captured.constants)

    def _check(self, plan: Plan, tensors: list[Tensor], snapshot: dict[int, Array], out: Any) -> None:
        """Run the program once on the second call's inputs and states, and hold it against what eager got; then put eager's state back."""
        values = plan.program.values
        states = {i: plan.bound[i] for i in plan.changed if values[i].source == "state"}
        if any(address_of(a) not in snapshot for a in states.values()) or plan.captured.gradients or len(states) < len(plan.changed):
            return  # no copy of the state before: the tests of the op table have to do
        after = {i: a.copy() for i, a in states.items()}
        for a in states.values():
            a[...] = snapshot[address_of(a)]
        eager = [t.data for t, given in zip(_tensors(out), plan.result_tensors, strict=True) if given is None]
        eager += [t.grad.data for t in plan.grads if t.grad is not None]
        try:
            got = plan.backend.run(plan.binding(tensors), True)
            different = _difference(got, eager)
            for i, a in states.items():
                different = different or _moved_differently(a, after[i], snapshot[address_of(a)])
        finally:
            for i, a in states.items():
                a[...] = after[i]
        if different and isinstance(plan.backend, CompiledReplay):
            warnings.warn(f"minigrad.jit: the compiled step differs from the eager one ({different}); the step runs with numpy instead",
                          RuntimeWarning, stacklevel=5)  # fmt: skip
            plan.backend = NumpyReplay(plan.program, plan.captured.constants)

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
        raise ConfigError("jit", "there is no C source: the step runs with numpy", hint="step.explain() says why")

    def explain(self) -> str:
        """What runs, kernel by kernel: what was fused, what goes back through numpy, bytes and multiplications, share of the time."""
        backend = self._ready().backend
        if isinstance(backend, CompiledReplay):
            return backend.explain()
        return f"numpy replay of {len(backend.program.lines)} lines; no C"

    def _ready(self) -> Plan:
        if self._last is None:
            raise ConfigError("jit", "there is no program yet", hint="call the step twice: its first two calls are recorded")
        return self._last

    def __repr__(self) -> str:
        count = sum(len(s.plans) for entry in self._entries.values() for s in entry.signatures.values())
        return f"<jit {getattr(self.function, '__name__', 'step')}: {count} program{'' if count == 1 else 's'}>"


def jit(function: Any = None, *, backend: str | None = None, threads: int | None = None, max_programs: int = 16) -> Any:
    """Make a function of Tensors into a `Step`. As a decorator, with or without arguments. See `Step` and this module's docstring."""
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


def _snapshot(first: Recording) -> dict[int, Array]:
    """Copies of the states that the step changes, by address, as they are before the second call."""
    changed: dict[int, Array] = {}
    for call in first.calls:
        n = call.params.get("changes", 1) if call.op.kind == "effect" else 0
        operands = call.operands[:n] if call.op.kind == "effect" else call.operands[-1:] if call.op.kind == "random" else ()
        for x in operands:
            if x.index in first.leaves:
                array = first.leaves[x.index].array
                changed[address_of(array)] = array.copy()
    return changed


def _difference(got: list[Array], wanted: list[Array]) -> str:
    """What is wrong with results and gradients, or nothing. Gradients are measured against the largest of all."""
    floats = [w for w in wanted if w.dtype.kind == "f" and w.size]
    scale = max((float(np.max(np.abs(w), initial=0, where=np.isfinite(w))) for w in floats), default=0.0)
    for g, w in zip(got, wanted, strict=True):
        if w.dtype.kind != "f":
            if not np.array_equal(g, w):
                return f"a result of shape {w.shape} and {w.dtype}"
        elif not np.allclose(g, w, rtol=1e-3, atol=1e-3 * scale, equal_nan=True):
            with np.errstate(all="ignore"):
                return f"a result of shape {w.shape} by up to {np.max(np.abs(g - w)):.2g}"
    return ""


def _moved_differently(got: Array, wanted: Array, before: Array) -> str:
    """What is wrong with a state after the step. A step of Adam magnifies rounding where gradients vanish: steps are measured against the largest."""
    if got.dtype.kind != "f":
        return "" if np.array_equal(got, wanted) else f"a state of shape {wanted.shape} and {wanted.dtype}"
    step = np.max(np.abs(wanted - before), initial=0, where=np.isfinite(wanted) & np.isfinite(before))
    scale = np.max(np.abs(wanted), initial=0, where=np.isfinite(wanted))
    same = np.allclose(got, wanted, rtol=1e-3, atol=float(4 * step + 1e-5 * scale), equal_nan=True)
    return "" if same else f"a state of shape {wanted.shape}"
