"""A compiled step as a folder of C that needs nothing but a C compiler: the step, a header, the
numbers it starts from, and a main that runs it.

minigrad.compiler.export(step, "folder", x, y)          cc -O3 -march=native folder/*.c -o run -lm
-lpthread && ./run folder/values.bin
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minigrad.compiler.compiled import CompiledReplay
from minigrad.compiler.jit import Step
from minigrad.compiler.layout import ALIGNMENT
from minigrad.compiler.structure import flatten
from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.tensor import Tensor

_HEADER = """/* A step compiled by minigrad. p: {slots} addresses, which main.c shows how to fill in. Runs phases first .. last - 1 on `threads`
   threads; not 0 if an index was out of its range. bind_blas (optional): cblas_sgemm and functions that set and get its threads. */
enum {{ STEP_SLOTS = {slots}, STEP_PHASES = {phases} }};
int step(void *const *p, int first, int last, int threads);
void bind_blas(void *sgemm, void *set_threads, void *get_threads);
"""

_MAIN = """/* Reads the values a step begins with, makes steps, prints the results of each.   ./run values.bin [steps] [threads] */
#include "step.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const int64_t slots[STEP_SLOTS][2] = {{{slots}}};  /* where: 0 in values.bin, 1 in the arena; and the offset */
static const struct {{ int64_t memory, offset, count; }} results[] = {{{results}}};

int main(int count, char **words) {{
    char *memory[2] = {{aligned_alloc({alignment}, {values}), aligned_alloc({alignment}, {arena})}};
    FILE *file = count > 1 ? fopen(words[1], "rb") : NULL;
    if (!file || fread(memory[0], 1, {values}, file) != {values}) return fprintf(stderr, "usage: run values.bin [steps] [threads]\\n"), 1;
    fclose(file);
    void *p[STEP_SLOTS];
    for (int i = 0; i < STEP_SLOTS; i++) p[i] = memory[slots[i][0]] + slots[i][1];
    for (int n = count > 2 ? atoi(words[2]) : 1; n > 0; n--) {{
        if (step(p, 0, STEP_PHASES, count > 3 ? atoi(words[3]) : 1)) return fprintf(stderr, "an index is out of its range\\n"), 1;
        for (unsigned r = 0; r < sizeof results / sizeof *results; r++)
            for (int64_t i = 0; i < results[r].count; i++) printf("%.9g\\n", ((float *)(memory[results[r].memory] + results[r].offset))[i]);
    }}
    return 0;
}}
"""


def export(step: Step[Any, Any], folder: str | Path, *args: Any, **kwargs: Any) -> Path:
    """Write step.c, step.h, main.c and values.bin into `folder`, which is made if need be; returns
    it.

    args, kwargs: arguments as for the step, whose values go along with the parameters and states as
        they are now. The program for them must be the
    one that ran last. main.c makes steps on these and prints the float32 results.
    Raises ConfigError if the step is not compiled, or if part of it goes through numpy.
    """
    plan = step.last_plan()
    backend = plan.backend
    if not isinstance(backend, CompiledReplay) or backend.called_back:
        through = (
            ""
            if not isinstance(backend, CompiledReplay)
            else ": " + ", ".join(line.op.name for line in backend.called_back)
        )
        raise ConfigError(
            "export",
            f"the step is not all in C{through}",
            hint="step.explain() says what goes through numpy",
        )
    tensors: list[Tensor] = []
    _, key = flatten((args, kwargs), tensors)
    shapes = [plan.program.values[i].shape for i in plan.inputs]
    if [tensors[n].shape for n in plan.inputs.values() if n < len(tensors)] != shapes:
        raise ConfigError(
            "export",
            f"the program that ran last takes tensors of {shapes}",
            got=[t.shape for t in tensors],
            wanted=shapes,
        )
    known = any(plan in e.plans and k[0] == key for k, e in step._entries.items())
    if not known or not plan.fits(tensors):
        raise ConfigError(
            "export",
            "the program that ran last is not the one for these arguments and for what lies in "
            ".grad now",
            hint="call the step with these arguments first, until it is replayed",
        )
    outside = {**plan.constants, **plan.binding(tensors)}
    places, blob = _blob(
        {i: np.ascontiguousarray(a) if i in plan.inputs else a for i, a in outside.items()}
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "values.bin").write_bytes(blob)
    (folder / "step.c").write_text(backend.source)
    (folder / "step.h").write_text(
        _HEADER.format(slots=len(backend.table), phases=len(backend.phases))
    )
    (folder / "main.c").write_text(_main(backend, places, len(blob)))
    return folder


def _blob(arrays: dict[int, Array]) -> tuple[dict[int, int], bytes]:
    """All arrays one after the other, as they lie in memory, and where each begins."""
    places, pieces, at = {}, [], 0
    for i, a in arrays.items():
        if not (a.flags.c_contiguous or 0 in a.strides):
            raise ConfigError(
                "export",
                f"a state of shape {a.shape} has gaps in its memory",
                got=a.strides,
                hint="make it contiguous",
            )
        raw = (
            a.tobytes()
            if a.flags.c_contiguous
            else np.ascontiguousarray(a.base if a.base is not None else a).tobytes()
        )
        places[i] = at
        pieces.append(raw + bytes(-len(raw) % ALIGNMENT))
        at += len(pieces[-1])
    return places, b"".join(pieces)


def _main(backend: CompiledReplay, places: dict[int, int], size: int) -> str:
    """main.c: gradients that Python would own lie behind the arena."""
    layout, end = backend.layout, -(-max(backend.arena_bytes, 1) // ALIGNMENT) * ALIGNMENT
    arena = dict(backend.arena_offsets)
    for i in backend.program.kept:
        root = layout.root[i]
        if root not in places and root not in arena:
            arena[root] = end
            end += -(-layout.roots[root].nbytes // ALIGNMENT) * ALIGNMENT

    def where(i: int) -> tuple[int, int]:
        root = layout.root[i]
        return (
            (0, places[root] + layout.offset(i))
            if root in places
            else (1, arena[root] + layout.offset(i))
        )

    slots = ", ".join(
        _row(*where(i)) for i in sorted(backend.slots, key=lambda i: backend.slots[i])
    )
    floats = [
        i
        for i in backend.program.results
        if layout.stand_in[i].dtype == np.float32 and layout.contiguous(i)
    ]
    results = ", ".join(_row(*where(i), layout.stand_in[i].size) for i in floats)
    return _MAIN.format(
        slots=slots, results=results, values=size, arena=max(end, ALIGNMENT), alignment=ALIGNMENT
    )


def _row(*numbers: int) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"
