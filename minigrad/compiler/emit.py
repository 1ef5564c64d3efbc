"""From phases to the text of one C file: prelude, kernels (equal ones once), phases, the step."""

from __future__ import annotations

from typing import Any

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.schedule import Phase
from minigrad.compiler.signatures import c_text, files_for


class Emitter:
    """slots: value -> its place in the table of pointers that the step is called with."""

    def __init__(self, phases: list[Phase], blas_int: str, bfloat16: bool = False) -> None:
        self.slots: dict[int, int] = {}
        self._functions: dict[str, str] = {}  # text of a function but for its name -> its name
        self._texts: list[str] = []
        bodies = [self._phase(n, phase) for n, phase in enumerate(phases)]
        rows = [f"    {{phase_{n}, {p.units}, {p.chunks}}}" for n, p in enumerate(phases)]
        table = ",\n".join(rows)
        self.source = "\n".join(
            [
                f"#define BLAS_INT {blas_int}",
                f"#define BFLOAT16 {int(bfloat16)}",
                *map(c_text, files_for("\n".join(self._texts))),
                "/* --- the kernels of this program */\n",
                *self._texts,
                "/* --- its phases: p holds the address of every value */\n",
                *bodies,
                f"static const phase_t phases[] = {{\n{table}\n}};",
                c_text("entry.c"),
            ]
        )

    def _function(self, k: Kernel) -> str:
        """The name of the C function of a kernel, which is written once for all kernels with the
        same text.
        """
        if k.helper and k.helper not in self._texts:
            self._texts.append(k.helper)
        arguments = ", ".join(f"{a.ctype}RESTRICT {a.name}" for a in k.arguments)
        text = f"({arguments}, int64_t lo, int64_t hi) {{\n    {k.body}\n}}\n"
        name = self._functions.get(k.name + text)
        if name is None:
            name = self._functions[k.name + text] = f"{k.name}_{len(self._functions)}"
            fused = f": with {', '.join(k.fused)}" if k.fused else ""
            self._texts.append(f"/* {k.where}{fused} */\nKERNEL {name}{text}")
        return name

    def _call(self, k: Kernel, lo: Any, hi: Any) -> str:
        slots = [self.slots.setdefault(a.value, len(self.slots)) for a in k.arguments]
        pointers = ", ".join(f"p[{slot}]" for slot in slots)
        return f"{self._function(k)}({pointers}, {lo}, {hi});"

    def _phase(self, number: int, phase: Phase) -> str:
        head = (
            f"static void phase_{number}(void *const *p, int64_t lo, int64_t hi, int thread) {{\n"
        )
        head += "    (void)thread;\n"
        if phase.chain:
            calls = []
            # A phase counts the units that all its kernels can be cut at; a kernel with finer ones
            # works on that many of them
            for k in phase.chain:
                factor = k.units // phase.units
                assert factor * phase.units == k.units
                scale = f" * {factor}" if factor != 1 else ""
                calls.append(f"    {self._call(k, f'lo{scale}', f'hi{scale}')}")
            return head + "\n".join(calls) + "\n}\n"
        # Each unit of a phase of tasks is another piece of work
        cases = [
            f"        case {n}: {self._call(k, lo, hi)} break;"
            for n, (k, lo, hi) in enumerate(phase.tasks)
        ]
        loop = "    for (int64_t u = lo; u < hi; u++) switch (u) {\n"
        return head + loop + "\n".join(cases) + "\n    }\n}\n"
