"""`minigrad.jit`: a step that is recorded on its first two calls and replayed from the third on.

    @minigrad.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        return loss

Both recorded calls are real, eager steps, so recording costs time and never correctness. The
contract, in five sentences, is `jit`'s docstring and the first screen of docs/compiler.md.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from minigrad.arguments import as_int, one_of, require
from minigrad.compiler.checks import Before, replay_difference
from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.memory import Arenas
from minigrad.compiler.native import NativeError, has_bfloat16
from minigrad.compiler.plan import Plan
from minigrad.compiler.program import Program
from minigrad.compiler.record import Recording
from minigrad.compiler.replay import NumpyReplay
from minigrad.compiler.structure import alike, flatten, rebuild
from minigrad.dtypes import Array
from minigrad.errors import CaptureError, ConfigError
from minigrad.modes import MODE, STRUCTURE, listening
from minigrad.precision import PRECISION, as_precision, get_matmul_precision, matmul_precision
from minigrad.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_BACKENDS = ("c", "numpy")
_PLANS = 8  # programs of one key, which differ in structure; the oldest beyond them is dropped
_WAITING = 2  # first recordings, which hold what the call read
_PATIENCE = 16  # calls of a program, after which recordings that wait are dropped
_NAMED = 3  # differences that one warning names
# A warning that a process gives once
_NO_BFLOAT16 = ["this CPU has no faster products in bfloat16: compiled steps use float32"]
_RESTLESS = 4  # structural changes in a row, each before a call, that are worth a warning


class Entry:
    """What is known of one key: programs, the one used last first, and first recordings that wait
    for a second one, by the structural state in which they ended.

    keep: the arguments, of which the key holds ids.   restless: calls in a row that were recorded
        because of a structural change.   unequal: lines on which two recordings in a row differed,
        since there was last a program, each worth one warning.
    """

    def __init__(self, keep: Any) -> None:
        self.keep, self.plans = keep, list[Plan]()
        self.waiting: dict[int, Recording] = {}
        self.restless = 0
        self.unequal = set[str]()

    def find(self, tensors: list[Tensor]) -> Plan | None:
        """The program to be replayed."""
        state = STRUCTURE.state
        for plan in self.plans:
            if state in plan.confirmed and plan.fits(tensors):
                return plan
        return None

    def wait(self, recording: Recording) -> None:
        """Keep a first recording until a call in the same structural state."""
        self.waiting[STRUCTURE.state] = recording
        while len(self.waiting) > _WAITING:
            del self.waiting[next(iter(self.waiting))]

    def seen(self) -> list[Tensor]:
        """The tensors that earlier recordings met."""
        known = [*self.waiting.values(), *(plan.trace for plan in self.plans)]
        return [t for recording in known for t in recording.tensors.values()]


class Step(Generic[P, R]):
    """A function with recorded and compiled programs, one per key (structure, shapes, dtypes and
    Python values of the arguments, grad mode). See this module's docstring for what it promises.

    backend: "c", "numpy", or None for C where there is a compiler.   threads: of the C code; None
        for one per core, or one alone for a small step.
    max_programs: the least recently used key beyond this number is dropped.   audit: True for
        audits at calls 4, 9, 18, 35, 68, ... of a program, n for every n-th, False for none.
    matmul: "float32" or "bfloat16", what operands of matrix products are rounded to; None for
        `get_matmul_precision()`.
    note: why the program that ran last does not run in C; empty if it does.
    """

    def __init__(
        self,
        function: Callable[P, R],
        backend: str | None = None,
        threads: int | None = None,
        max_programs: int = 16,
        audit: bool | int = True,
        matmul: str | None = None,
    ) -> None:
        hint = 'jit(f), or jit(backend="numpy") as a decorator'
        require(callable(function), "jit", "function", function, "a function of Tensors", hint)
        functools.update_wrapper(self, function)
        self.function, self.note = function, ""
        backend = backend if backend is None else one_of("jit", "backend", backend, _BACKENDS)
        threads = threads if threads is None else as_int("jit", "threads", threads)
        self.backend, self.threads = backend, threads
        self.max_programs = as_int("jit", "max_programs", max_programs)
        self.audit = audit if type(audit) is bool else as_int("jit", "audit", audit)
        self.matmul = None if matmul is None else as_precision("jit", "matmul", matmul)
        self._name = getattr(function, "__name__", "the step")
        self._entries: OrderedDict[Any, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._last: Plan | None = None
        self._dropped = 0
        self._repeats = False
        self._arenas = Arenas()  # one program runs at a time
        self._warned: set[str] = set()
        self._pending: list[str] = []  # warnings, given once the call is over
        _STEPS.add(self)

    def __reduce__(self) -> Any:
        # By name where it has taken its function's, as functions are; else made without programs
        if getattr(sys.modules.get(self.__module__), self._name, None) is self:
            return self._name
        options = self.backend, self.threads, self.max_programs, self.audit, self.matmul
        return Step, (self.function, *options)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call(args, kwargs)

    def repeat(self, left: Tensor) -> None:
        """Call the step, which takes no arguments, as long as the number `left` is above 0, a 0-d
        int64 tensor that the step counts down. Replays follow one another without Python if all
        of the step is in C, on one thread or on all, whichever takes less time.
        """
        self._repeats = True
        while left.data > 0:
            self._call((), {}, left.data)

    def _call(self, args: Any, kwargs: Any, left: Array | None = None) -> Any:
        mode = MODE.get()
        if mode.listener is not None:  # inside another recording, or under a profiler: eager
            with matmul_precision(PRECISION.get() or self.matmul):
                return self.function(*args, **kwargs)
        # A replay: key, program, arguments that overlap, run. All else is a recorded call
        tensors: list[Tensor] = []
        structure, key = flatten((args, kwargs), tensors)
        precision = self._precision()
        with self._lock, matmul_precision(precision):
            entry = self._entry((key, mode.grad, precision), structure)
            plan = entry.find(tensors)
            if plan is None or plan.is_audited_next():
                out = self._record(entry, structure, tensors, plan)
            elif plan.overlaps(tensors):
                # An argument shares memory with what the step changes: the order matters
                out = self._listen(Recording(tensors), structure, tensors)
            else:
                plan.calls += 1
                entry.restless = 0
                if entry.waiting and plan.calls > _PATIENCE:
                    entry.waiting.clear()
                self._last = plan
                return plan.run(tensors, left)
        # Outside of the lock, since a filter may turn a warning into an error
        while self._pending:
            warnings.warn(f"minigrad.jit: {self._pending.pop(0)}", RuntimeWarning, stacklevel=3)
        return out

    def ready(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """True if a call with these arguments would be a replay, not recorded and no audit."""
        tensors: list[Tensor] = []
        _, key = flatten((args, kwargs), tensors)
        with self._lock:
            entry = self._entries.get((key, MODE.get().grad, self._precision()))
            plan = None if entry is None else entry.find(tensors)
            return plan is not None and not plan.is_audited_next()

    def _precision(self) -> str:
        """What operands of this call's products are rounded to."""
        wanted = self.matmul or get_matmul_precision()
        if wanted == "float32" or self.backend == "numpy":
            return wanted
        try:
            if has_bfloat16():
                return wanted
        except NativeError:
            return wanted  # numpy rounds as well
        self._pending += _NO_BFLOAT16
        _NO_BFLOAT16.clear()
        return "float32"

    def _entry(self, key: Any, structure: Any) -> Entry:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry
        entry = self._entries[key] = Entry(structure)
        if len(self._entries) > self.max_programs:
            self._entries.popitem(last=False)
            self._dropped += 1
            if self._dropped == 4 * self.max_programs:
                self._pending.append(
                    f"{self._dropped} programs of {self._name} have been dropped for new ones, as "
                    "arguments keep changing; pass numbers that change as tensors, or give "
                    f"jit(max_programs=...) more than {self.max_programs}"
                )
        return entry

    # --- recorded calls

    def _record(
        self, entry: Entry, structure: Any, tensors: list[Tensor], audited: Plan | None
    ) -> Any:
        """One eager call, recorded and held against what is known: a program that it equals, or a
        first recording, with which it makes one.
        """
        for plan in entry.plans:
            plan.follow()  # while tensors still have the arrays that the call finds
        # Programs there are, but none for this structural state: something was changed
        is_change = audited is None and bool(entry.plans or entry.waiting)
        seen, first = entry.seen(), entry.waiting.pop(STRUCTURE.state, None)
        # Checksums and copies must be taken before the call, which may be the second of a pair
        before = None if first is None else Before(first, tensors)
        recording = Recording(tensors, seen)
        out = self._listen(recording, structure, tensors)
        # Without ops there is nothing that could be replayed: it may still clear gradients
        if recording.lines:
            if is_change and first is None:
                self._count_changes(entry)
            if not self._is_known(entry, recording, audited):
                if before is None or before.first.pattern != recording.pattern:
                    entry.wait(recording)
                else:
                    self._pair(entry, before, recording)
        return out

    def _listen(self, recording: Recording, structure: Any, tensors: list[Tensor]) -> Any:
        """The eager call; its results as a replay gives them, without a graph. Raises CaptureError
        if it changes a list or dict that it is given, which are copies here.
        """
        args, kwargs = filled = rebuild(structure, tensors)
        before = MODE.get()
        try:
            with listening(recording):
                out = self.function(*args, **kwargs)
        finally:
            MODE.set(before)  # an interrupt may come just where the block ends
        again: list[Tensor] = []
        after, _ = flatten(filled, again)
        if not alike(after, structure) or list(map(id, again)) != list(map(id, tensors)):
            problem = "the step changes a list or dict that it is given; a replay would not"
            hint = "return what is new instead, and put it into the list or dict outside the step"
            raise CaptureError("jit", problem, hint=hint)
        recording.finish(out)
        results = [t if t.is_leaf else t.detach() for t in recording.results]
        return rebuild(recording.shape, results)

    def _count_changes(self, entry: Entry) -> None:
        entry.restless += 1
        if entry.restless == _RESTLESS:
            self._warn_once(
                STRUCTURE.last,
                f"{STRUCTURE.last} changes before each call of {self._name}, which is recorded "
                "each time; keep what changes outside of modules, or pass it as a tensor",
            )

    def _is_known(self, entry: Entry, recording: Recording, audited: Plan | None) -> bool:
        """True if a program equals the recording, which is used from now on. Warns of what an audit
        finds.
        """
        candidates = list(entry.plans)
        if audited is not None:
            found = audited.differences(recording)
            if not found:
                return self._use(entry, audited)
            # One stale value makes each program suspect: others may have it in them, too. They are
            # confirmed again by recordings that equal them, and audited as new ones
            candidates.remove(audited)
            call = audited.calls + 1
            for plan in (p for e in self._entries.values() for p in e.plans):
                plan.confirmed.clear()
                plan.calls = 1
            more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            hint = found[0].hint
            self._pending.append(
                f"call {call} of a program of {self._name} is an audit, and it differs from the "
                f"program: {'; '.join(map(str, found[:_NAMED]))}{more}. It has changed since call "
                f"{audited.checked}, and replays after that call may have used the old value; from "
                f"here on the new one is used. {hint[0].upper()}{hint[1:]}"
            )
        # After a change back, an earlier program is found here, and nothing is built
        known = next((plan for plan in candidates if not plan.differences(recording)), None)
        return known is not None and self._use(entry, known)

    def _use(self, entry: Entry, plan: Plan) -> bool:
        """Use a program, which equals the call that was just recorded, in this structural state."""
        if plan in entry.plans:
            plan.calls += 1
        if self.audit is True:
            # 4 * 2^k + k: powers of two alone would never meet a change with a period of 2 or 4.
            power = max(4, 1 << plan.calls.bit_length())
            plan.audit_at = power + power.bit_length() - 3
        elif self.audit:
            plan.audit_at = (plan.calls // self.audit + 1) * self.audit
        plan.confirm(STRUCTURE.state)
        entry.plans = [plan, *(p for p in entry.plans if p is not plan)][:_PLANS]
        self._last = plan
        return True

    def _pair(self, entry: Entry, before: Before, second: Recording) -> None:
        """Make a program of two recordings, and hold it against the second call. Raises
        CaptureError if they differ, and the step has never been replayed.
        """
        try:
            plan = Plan(before.first, second)
        except CaptureError as error:
            if not any(e.plans for e in self._entries.values()):
                raise
            entry.wait(second)  # the next call is held against this one
            text = "is recorded at each call until two agree, as something changes in between"
            if error.where not in entry.unequal:
                entry.unequal.add(error.where)
                self._pending.append(f"{self._name} {text}: {str(error).removeprefix('jit: ')}")
            return
        # The second call is the oracle: the program must do what that call did
        before.refuse_writes_past_the_ops(plan)
        plan.backend = self._make_backend(plan)
        different = replay_difference(plan, before, second)
        if different and plan.backend.kind == "c":
            compiled, plan.backend = different, plan.numpy_replay()
            different = replay_difference(plan, before, second)
            if not different:
                self._fall_back(f"the compiled step differs from the eager one ({compiled})")
        if different:
            problem = "the step does something that its ops do not show: a replay differs from the "
            problem += f"eager call in {different}"
            hint = "set seeds, states and buffers by ops, or outside the step"
            raise CaptureError("jit", problem, got=different, hint=hint)
        plan.settle()
        entry.unequal.clear()
        self._use(entry, plan)

    def _make_backend(self, plan: Plan) -> NumpyReplay | CompiledReplay:
        self.note = ""
        try:
            if self.backend == "numpy":
                return plan.numpy_replay()
            if plan.shares:  # in C, lines that share memory unseen would change places
                raise NativeError("the step changes memory that two of its tensors share")
            values = plan.program, plan.constants, plan.bound
            made = CompiledReplay(*values, self.threads, self._repeats, self._arenas)
        except NativeError as error:
            self._fall_back(str(error))
            return plan.numpy_replay()
        if made.built.note:
            self._pending.append(made.built.note)
        return made

    def _fall_back(self, why: str) -> None:
        self.note = why
        self._pending.append(f"{why}; the step runs with numpy, with the same results")

    def _warn_once(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self._pending.append(text)

    # --- to look at

    @property
    def program(self) -> Program:
        """The program that ran last."""
        return self.last_plan().program

    @property
    def c_source(self) -> str:
        """The C file of the program that ran last. Raises ConfigError if it runs with numpy."""
        backend = self.last_plan().backend
        if isinstance(backend, CompiledReplay):
            return backend.source
        problem = "there is no C source: the step runs with numpy"
        raise ConfigError("jit", problem, hint="step.explain() says why")

    def explain(self, measure: bool = False) -> str:
        """What runs, kernel by kernel: what was fused, what goes back through numpy, bytes and
        multiplications, estimated share of the time.

        measure: show the measured time of each phase, too: the program is run again, phase by
            phase, on what the last call left, and its states are put back.
        """
        plan = self.last_plan()
        backend = plan.backend
        if not isinstance(backend, CompiledReplay):
            why = f" ({self.note})" if self.note else ""
            return f"numpy replay of {len(backend.program.lines)} lines; no C{why}"
        if measure and plan.gradients:
            problem = "measure=True, but the program adds to gradients that the last call used up"
            raise ConfigError("explain", problem, hint="explain() without measure")
        with self._lock:
            return backend.explain(backend.measure() if measure else None)

    def last_plan(self) -> Plan:
        """The plan of the program that ran last. Raises ConfigError if there is none yet."""
        if self._last is None:
            hint = "call the step twice: its first two calls are recorded"
            raise ConfigError("jit", "there is no program yet", hint=hint)
        return self._last

    def plans(self, key: Any) -> list[Plan]:
        """The plans for arguments of this key, whether gradients are recorded or not."""
        return [plan for (k, *_), e in self._entries.items() if k == key for plan in e.plans]

    def __repr__(self) -> str:
        count = sum(len(entry.plans) for entry in self._entries.values())
        return f"<jit {self._name}: {count} program{'' if count == 1 else 's'}>"


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
    audit: bool | int = True,
    matmul: str | None = None,
) -> Any:
    """Make a function of Tensors into a `Step`: recorded on its first two calls, replayed from the
    third on. As a decorator, with or without arguments.

    1. Tensors are arguments or state: arguments are passed, every other tensor that the function
       touches is held by reference.
    2. Python values are arguments (part of the key) or constants of the program.
    3. The first two calls of a key are recorded eager calls and must agree; from the third on the
       program is replayed.
    4. When something of the library's own changes structurally (train and eval mode, requires_grad
       of a parameter, an attribute of a Module, a parameter group), the next call is recorded
       again, and if the recording equals a program that is already there, that program is used.
    5. Calls 4, 9, 18, 35, ... are audits: ordinary eager calls that are recorded and held against
       the program. A Python constant that has changed anywhere is reported then, with its line and
       both values, and the step goes on with the right program.

    audit: True for these audits, n for every n-th call, False for none.   backend, threads,
        max_programs, matmul: see `Step`.
    """
    if function is None:
        return lambda f: Step(f, backend, threads, max_programs, audit, matmul)
    return Step(function, backend, threads, max_programs, audit, matmul)
