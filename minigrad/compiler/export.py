"""A compiled step as a folder of C that needs only a C compiler: the step, a header, the numbers it
starts from, and a main that runs it.

    minigrad.compiler.export(step, "folder", x, y)
    cc -O3 -march=native folder/*.c -o run -lm -lpthread && ./run folder/values.bin
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.jit import Step
from minigrad.compiler.layout import ALIGNMENT
from minigrad.compiler.program import Line
from minigrad.compiler.structure import flatten
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.tensor import Tensor

_MAIN = Path(__file__).parent / "c" / "main.c"
_HEADER = """/* A step compiled by minigrad. p: STEP_SLOTS addresses; main.c shows how to fill in.
   Runs phases first .. last - 1 on `threads` threads; not 0 if an index was out of its range.
   bind_blas (optional): cblas_sgemm and functions that set and get its threads. */
int step(void *const *p, int first, int last, int threads);
void bind_blas(void *sgemm, void *set_threads, void *get_threads);
"""


def export(step: Step[Any, Any], folder: str | Path, *args: Any, **kwargs: Any) -> Path:
    """Write step.c, step.h, main.c and values.bin into `folder`, which is made if need be, and
    return it.

    args, kwargs: arguments as for the step, whose values go along with the parameters and states as
        they are now.
    main.c makes steps on these and prints the float32 results. Raises ConfigError if there is no
    program for these arguments yet, or if part of it goes through numpy.
    """
    tensors: list[Tensor] = []
    _, key = flatten((args, kwargs), tensors)
    plan = next((p for p in step.plans(key) if p.fits(tensors)), None)
    if plan is None:
        hint = "call the step with these arguments first, until it is replayed"
        raise ConfigError("export", "no program fits these arguments and this .grad", hint=hint)
    backend = plan.backend
    whole = backend.sequence if isinstance(backend, CompiledReplay) else backend.program.lines
    through = dict.fromkeys(x.op.name for x in whole if isinstance(x, Line))
    if not isinstance(backend, CompiledReplay) or through:
        problem = f"the step is not all in C: {', '.join(through)}"
        raise ConfigError("export", problem, hint="step.explain() says what goes through numpy")
    # All that the step finds in memory when it begins
    outside = {**plan.constants, **plan.bound, **plan.binding(tensors), **backend.derived}
    # The C reads arguments in row-major order, as `CompiledReplay.run` gives them
    for i in plan.inputs:
        outside[i] = np.ascontiguousarray(outside[i])
    places, values = _values(outside)
    defines = _places(backend, places) | {
        "SLOTS": len(backend.table),
        "PHASES": len(backend.phases),
        "VALUES": len(values),
        "ALIGNMENT": ALIGNMENT,
    }
    header = _HEADER + "".join(f"#define STEP_{name} {text}\n" for name, text in defines.items())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "values.bin").write_bytes(values)
    (folder / "step.c").write_text(backend.source)
    (folder / "step.h").write_text(header)
    (folder / "main.c").write_text(_MAIN.read_text())
    return folder


def _values(arrays: dict[int, Array]) -> tuple[dict[int, int], bytes]:
    """Where each array begins in values.bin, and its contents: one after the other, as they are in
    memory.
    """
    places, pieces, at = {}, list[bytes](), 0
    for i, a in arrays.items():
        if not (a.flags.c_contiguous or 0 in a.strides):
            problem = f"a state of shape {a.shape} has gaps in its memory"
            raise ConfigError("export", problem, got=a.strides, hint="make it contiguous")
        # Of what is broadcast, the memory itself is written: strides of 0 then hold in C as well
        whole = a if a.flags.c_contiguous or a.base is None else np.ascontiguousarray(a.base)
        places[i] = at
        pieces.append(whole.tobytes() + bytes(-whole.nbytes % ALIGNMENT))
        at += len(pieces[-1])
    return places, b"".join(pieces)


def _places(backend: CompiledReplay, places: dict[int, int]) -> dict[str, Any]:
    """What step.h defines about memory: gradients that Python would own follow the arena."""
    # In Python gradients have memory of their own; here they follow the arena
    layout, end = backend.layout, -(-backend.arena_bytes // ALIGNMENT) * ALIGNMENT
    arena = {**backend.arena_offsets, **{r: end + n for r, n in backend.gradients.offsets.items()}}

    def row(i: int, *more: int) -> str:
        # {0: values.bin, 1: the arena; bytes from its beginning; for results, how many numbers}
        root = layout.root[i]
        memory, at = (0, places[root]) if root in places else (1, arena[root])
        return "{" + ", ".join(map(str, (memory, at + layout.offset(i), *more))) + "}"

    floats = [
        i
        for i in backend.program.results
        if layout.stand_in[i].dtype == np.float32 and layout.contiguous(i)
    ]
    return {
        "PLACES": ", ".join(map(row, sorted(backend.slots, key=lambda i: backend.slots[i]))),
        "RESULTS": ", ".join(row(i, layout.stand_in[i].size) for i in floats),
        "ARENA": max(end + backend.gradients.size, ALIGNMENT),
    }
