"""Drawing the next token, which goes through each row of logits on one thread."""

from __future__ import annotations

import numpy as np

from minigrad.compiler.kernel import Kernel
from minigrad.compiler.lower import Builder, Call, lowers, need, plain
from minigrad.compiler.signatures import arguments_of


@lowers("sample_")
def _sample(call: Call) -> list[Kernel]:
    values, names = call.operands(), arguments_of(call.line.op)[0]
    named, k, layout = dict(zip(names, values, strict=True)), Builder(call), call.layout
    need(plain(layout, named["logits"]) and all(map(layout.contiguous, values)))
    (B, V), capacity = call.array(named["logits"]).shape, call.array(named["drawn"]).shape[1]
    changed = call.line.params["changes"]
    for i, (name, value) in enumerate(named.items()):
        k.use(value, name, write=i < changed)
    k.writes(x=layout.scratch((V,), np.float64), heap=layout.scratch((V,), np.int64))
    arguments = ", ".join((*names, "x", "heap", str(B), str(V), str(capacity)))
    body = f"(void)lo, (void)hi; sample_rows({arguments});"
    return [k.kernel("sample", body, 1, 60.0 * B * V, solo=True)]
