"""`minigrad.jit`: a step that is recorded on its first two calls and replayed from the third on.

    @minigrad.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        return loss

Both recorded calls are real, eager steps. Whatever could make a replay differ from an eager call is a CaptureError when it is recorded, or makes a
new program when it changes later: nothing is replayed
silently on something else.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
import warnings
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from operator import gt
from sys import getrefcount
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.lib.array_utils import byte_bounds

from minigrad.autograd import MODE, listening
from minigrad.compiler import passes
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.native import NativeError
from minigrad.compiler.program import Program
from minigrad.compiler.record import Captured, Recording, capture
from minigrad.compiler.replay import NumpyReplay
from minigrad.dtypes import Array
from minigrad.errors import CaptureError, ConfigError
from minigrad.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")


_LISTED = next(map(getrefcount, [object()]))  # the count of what one list alone holds, which differs between versions of Python


class _Slot:
    """Stands in a structure of arguments or results for tensor number `index`."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


def flatten(x: Any, tensors: list[Tensor]) -> tuple[Any, Any]:
    """(x with its tensors replaced by slots, a hashable key of x by shapes, dtypes and values). Tensors and arrays are appended to `tensors`."""
    if isinstance(x, np.ndarray):
        x = Tensor._wrap(x)
    if isinstance(x, Tensor):
        for i, known in enumerate(tensors):
            if known is x:
                return _Slot(i), ("again", i)
        tensors.append(x)
        return _Slot(len(tensors) - 1), (x.data.shape, x.data.dtype, x.requires_grad)
    if type(x) in (tuple, list):
        parts = [flatten(item, tensors) for item in x]
        return type(x)(p for p, _ in parts), (type(x), *(k for _, k in parts))
    if type(x) is dict:
        named = {k: flatten(item, tensors) for k, item in x.items()}
        return {k: p for k, (p, _) in named.items()}, (dict, *((k, key) for k, (_, key) in named.items()))
    if isinstance(x, float):
        return x, (float, repr(x))  # NaN is equal to itself here, and -0.0 is not 0.0
    if isinstance(x, (int, str, bytes, bool, type(None))):
        return x, (type(x), x)
    return x, ("object", id(x))


def rebuild(x: Any, tensors: list[Any]) -> Any:
    """The structure with its slots filled."""
    if isinstance(x, _Slot):
        return tensors[x.index]
    if type(x) in (tuple, list):
        return type(x)(rebuild(item, tensors) for item in x)
    return {k: rebuild(item, tensors) for k, item in x.items()} if type(x) is dict else x


class _Surroundings:
    """What a function sees besides its arguments: the variables of its closure and the globals that it names.

    Numbers and strings among them are part of the signature by value, other objects by identity; what the step itself changes is not.
    """

    def __init__(self, function: Any) -> None:
        plain = function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
        plain = getattr(plain, "__func__", plain)
        code, names = getattr(plain, "__code__", None), getattr(plain, "__globals__", {})
        self.owner = getattr(function, "__self__", None)
        self.cells = list(getattr(plain, "__closure__", None) or ())
        self.names, self.globals = sorted(_named(code) & names.keys()) if code else [], names
        self.ignored: set[int] = set()

    def values(self) -> list[Any]:
        """What they hold now."""
        return [self.owner, *map(_contents, self.cells), *[self.globals.get(n) for n in self.names]]

    def key(self, values: list[Any]) -> tuple[Any, ...]:
        """The part of the signature."""
        return tuple([0 if i in self.ignored else (x if type(x) in _PLAIN else id(x)) for i, x in enumerate(values)])

    def ignore_changes(self, before: tuple[Any, ...]) -> None:
        """Leave out what a call has changed: a counter of the step's own is no reason to record it anew."""
        after = self.key(self.values())
        self.ignored.update(i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y)


_PLAIN = frozenset({int, float, bool, str, type(None)})


def _named(code: Any) -> set[str]:
    """The global names in a function's code and in the functions inside it."""
    inner = [_named(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _modules(found: list[Any]) -> list[Any]:
    """The modules whose train or eval mode is part of the signature: those among some objects and their attributes."""
    found = found + [value for owner in found if hasattr(owner, "__dict__") for value in list(vars(owner).values())]
    modules: dict[int, Any] = {}
    for x in found:
        if callable(getattr(type(x), "modules", None)) and hasattr(x, "training"):
            modules.update((id(m), m) for m in x.modules())
    return list(modules.values())


class _Plan:
    """A program of one signature, ready to run: where its values come from, and what becomes of its results."""

    def __init__(self, captured: Captured, program: Program, out: Any, result_tensors: list[Tensor | None], grads: dict[int, Tensor]) -> None:
        self.captured, self.program, self.out, self.result_tensors = captured, program, out, result_tensors
        self.grads = list(grads.values())  # tensors whose .grad is program.kept, in order
        self.handed_out: list[Any] = []  # the gradients of the last replay
        self.cleared: list[Tensor] = []  # tensors whose .grad is None when the call ends
        self.expect_none: list[Tensor] = []  # tensors whose .grad must be None when the call begins
        self.backend: NumpyReplay | CompiledReplay
        self._ranges: list[tuple[int, int]] | None = None
        changed = {i for line in program.lines for i in line.changes()}
        self.cells = [t._version for i, (_, t) in captured.states.items() if t is not None and i in changed]
        self.bound = {i: array for i, (array, _) in captured.states.items()}
        self.changed = [i for i in sorted(changed) if program.values[i].source in ("state", "input")]

    def fits(self) -> bool:
        """True if the gradients that lie in .grad are there, or not there, as when it was recorded, and no tensor changed its shape."""
        for number, t in self.captured.gradients.items():
            value = self.program.values[number]
            if t.grad is None or (t.grad.data.shape, t.grad.data.dtype) != (value.shape, value.dtype):
                return False
        moved = False
        for number, (array, tensor) in self.captured.states.items():
            if tensor is not None and tensor.data is not array:
                value = self.program.values[number]
                if (tensor.data.shape, tensor.data.dtype) != (value.shape, value.dtype):
                    return False
                self.captured.states[number] = tensor.data, tensor
                self.bound[number] = tensor.data
                moved, self._ranges = True, None
        if moved and isinstance(self.backend, CompiledReplay):
            self.backend.rebind(self.bound)
        return all(t.grad is None for t in self.expect_none)

    def binding(self, tensors: list[Tensor]) -> dict[int, Array]:
        """value -> array, for inputs, states and gradients."""
        bound = self.bound
        for number, position in self.captured.inputs.items():
            bound[number] = tensors[position].data
        for number, t in self.captured.gradients.items():
            assert t.grad is not None
            bound[number] = t.grad.data
        return bound

    def overlaps(self, tensors: list[Tensor]) -> bool:
        """True if an argument shares memory with another that the step changes, or with such a state: then order matters, and eager knows it."""
        if self._ranges is None:
            spans = [_span(self.bound[i]) for i in self.changed if self.program.values[i].source == "state"]
            self._ranges = sorted(spans)
        for number, position in self.captured.inputs.items():
            low, high = _span(tensors[position].data)
            at = bisect_left(self._ranges, (high, 0))
            if any(stop > low for _, stop in self._ranges[max(at - 1, 0) : at]):
                return True
            if number in self.changed and (len(tensors) > 1 or not tensors[position].data.flags.c_contiguous):
                return True
        return False

    def _held(self) -> bool:
        """True if somebody else holds a gradient that the last replay handed out: then it is not written to again."""
        handed = self.handed_out
        if len(handed) != len(self.grads):
            return True
        counts, arrays = list(map(getrefcount, handed)), list(map(getrefcount, [g.data for g in handed]))
        own = [_LISTED + (t.grad is g) for t, g in zip(self.grads, handed, strict=True)]
        return any(map(gt, counts, own)) or max(arrays, default=0) > _LISTED + 2  # the tensor and the back end

    def run(self, tensors: list[Tensor]) -> Any:
        """Replay, and hand out the results as new tensors."""
        arrays = self.backend.run(self.binding(tensors), self._held())
        for number in self.captured.gradients:
            del self.bound[number]  # held by nobody, the step that made it may write its next gradient there
        for cell in self.cells:
            cell[0] += 1
        for t, array in zip(self.grads, arrays[len(self.program.results) :], strict=True):
            t.grad = Tensor._wrap(array)
        self.handed_out = [t.grad for t in self.grads]
        for t in self.cleared:
            t.grad = None
        fresh = iter(arrays[: len(self.program.results)])
        return rebuild(self.out, [Tensor._wrap(next(fresh)) if t is None else t for t in self.result_tensors])


class _Signature:
    """What is known of one signature: recordings so far, then plans."""

    def __init__(self, keep: Any) -> None:
        self.keep = keep
        self.recording: Recording | None = None
        self.plans: list[_Plan] = []


class Step(Generic[P, R]):
    """A function with recorded and compiled programs, one per signature (shapes, dtypes, Python arguments, grad mode, train/eval mode).

    backend: "c", "numpy", or None for C where there is a compiler.   threads: how many the C code uses; None for one per core.
    max_programs: the least recently used program beyond this number is dropped.
    """

    def __init__(self, function: Callable[P, R], backend: str | None = None, threads: int | None = None, max_programs: int = 16) -> None:
        if backend not in (None, "c", "numpy"):
            raise ConfigError("jit", f"backend={backend!r}", got=backend, wanted=["c", "numpy", None])
        functools.update_wrapper(self, function)
        self.function, self.backend, self.threads, self.max_programs = function, backend, threads, max_programs
        self._signatures: OrderedDict[Any, _Signature] = OrderedDict()
        self._lock = threading.Lock()
        self._around = _Surroundings(function)
        self._modules: OrderedDict[Any, list[Any]] = OrderedDict()
        self._last: _Plan | None = None

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if MODE.get().listener is not None:  # within another recording, or while somebody watches: eager
            return self.function(*args, **kwargs)
        tensors: list[Tensor] = []
        structure, key = flatten((args, kwargs), tensors)
        with self._lock:
            around = self._around.values()
            seen = self._around.key(around)
            signature = self._signature((key, seen, MODE.get().grad), (args, kwargs, around))
            plan = next((p for p in signature.plans if p.fits()), None)
            if plan is None:
                out = self._record(signature, structure, tensors)
                self._around.ignore_changes(seen)
                return out
            if not plan.overlaps(tensors):
                self._last = plan
                try:
                    return plan.run(tensors)
                except IndexError:
                    pass  # an index out of its range: the eager call says which
        filled = rebuild(structure, tensors)
        return self.function(*filled[0], **filled[1])

    def _signature(self, key: Any, keep: tuple[Any, ...]) -> _Signature:
        modules = self._modules.get(key)
        if modules is None:
            modules = self._modules[key] = _modules([*_leaves(keep[:2]), *keep[2]])
            while len(self._modules) > 2 * self.max_programs:
                self._modules.popitem(last=False)
        key = key, tuple([m.training for m in modules])
        signature = self._signatures.get(key)
        if signature is None:
            # Objects in the key are known by id, so they must live.
            signature = self._signatures[key] = _Signature([x for x in _leaves(keep) if not isinstance(x, (Tensor, np.ndarray))])
            while len(self._signatures) > self.max_programs:
                self._signatures.popitem(last=False)
        else:
            self._signatures.move_to_end(key)
        return signature

    def _record(self, signature: _Signature, structure: Any, tensors: list[Tensor]) -> Any:
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
            signature.recording = recording
            return _detached(out)
        plan = self._plan(first, recording, start_grads, had_none, out)
        self._check(plan, tensors, snapshot, out)
        signature.plans = [*signature.plans[-3:], plan]
        self._last = plan
        return _detached(out)

    def _plan(self, first: Recording, second: Recording, start_grads: dict[int, Tensor], had_none: list[Tensor], out: Any) -> _Plan:
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
        plan = _Plan(captured, program, shape, given, grads)
        graded = set(map(id, grads.values()))
        plan.bound.update((i, second.leaves[i].array) for i in captured.gradients)
        plan.cleared = [t for t in second.tensors.values() if t.requires_grad and t.grad is None]
        plan.expect_none = [t for t in had_none if id(t) in graded]
        plan.backend = self._make_backend(plan)
        return plan

    def _make_backend(self, plan: _Plan) -> NumpyReplay | CompiledReplay:
        if self.backend != "numpy":
            try:
                return CompiledReplay(plan.program, plan.captured.constants, plan.bound, self.threads)
            except NativeError as error:
                warnings.warn(f"minigrad.jit: {error}; the step runs with numpy, with the same results", RuntimeWarning, stacklevel=5)
        return NumpyReplay(plan.program, plan.captured.constants)

    def _check(self, plan: _Plan, tensors: list[Tensor], snapshot: dict[int, Array], out: Any) -> None:
        """Run the program once on the second call's inputs and states, and hold it against what eager got; then put eager's state back."""
        values = plan.program.values
        states = {i: plan.bound[i] for i in plan.changed if values[i].source == "state"}
        if any(_address(a) not in snapshot for a in states.values()) or plan.captured.gradients or len(states) < len(plan.changed):
            return  # no copy of the state before: the tests of the op table have to do
        after = {i: a.copy() for i, a in states.items()}
        for a in states.values():
            a[...] = snapshot[_address(a)]
        eager = [t.data for t, given in zip(_tensors(out), plan.result_tensors, strict=True) if given is None]
        eager += [t.grad.data for t in plan.grads if t.grad is not None]
        try:
            got = plan.backend.run(plan.binding(tensors), True)
            different = _difference(got, eager)
            for i, a in states.items():
                different = different or _moved_differently(a, after[i], snapshot[_address(a)])
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

    def _ready(self) -> _Plan:
        if self._last is None:
            raise ConfigError("jit", "there is no program yet", hint="call the step twice: its first two calls are recorded")
        return self._last

    def __repr__(self) -> str:
        count = sum(len(s.plans) for s in self._signatures.values())
        return f"<jit {getattr(self.function, '__name__', 'step')}: {count} program{'' if count == 1 else 's'}>"


def jit(function: Any = None, *, backend: str | None = None, threads: int | None = None, max_programs: int = 16) -> Any:
    """Make a function of Tensors into a `Step`. As a decorator, with or without arguments. See `Step` and this module's docstring."""
    if function is None:
        return lambda f: Step(f, backend, threads, max_programs)
    return Step(function, backend, threads, max_programs)


def _leaves(x: Any) -> Iterator[Any]:
    if isinstance(x, (tuple, list)):
        for item in x:
            yield from _leaves(item)
    elif isinstance(x, dict):
        for item in x.values():
            yield from _leaves(item)
    else:
        yield x


def _tensors(out: Any) -> list[Tensor]:
    found: list[Tensor] = []
    flatten(out, found)
    return found


def _detached(out: Any) -> Any:
    """Results of a recorded call as a replay gives them: without a graph."""
    tensors: list[Tensor] = []
    shape, _ = flatten(out, tensors)
    return rebuild(shape, [t if t.is_leaf else t.detach() for t in tensors])


def _address(a: Array) -> int:
    return int(a.__array_interface__["data"][0])


def _span(a: Array) -> tuple[int, int]:
    """Where the array's memory begins and ends."""
    if a.flags.c_contiguous:
        start = _address(a)
        return start, start + a.nbytes
    return byte_bounds(a)


def _snapshot(first: Recording) -> dict[int, Array]:
    """Copies of the states that the step changes, by address, as they are before the second call."""
    changed: dict[int, Array] = {}
    for call in first.calls:
        n = call.params.get("changes", 1) if call.op.kind == "effect" else 0
        operands = call.operands[:n] if call.op.kind == "effect" else call.operands[-1:] if call.op.kind == "random" else ()
        for x in operands:
            if x.index in first.leaves:
                array = first.leaves[x.index].array
                changed[_address(array)] = array.copy()
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
