"""What to use for a name that PyTorch has and minigrad lacks: the hint of an AttributeError. The
table is in counterparts.txt.
"""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType

_PARTS = {
    "minigrad.nn": "nn.",
    "minigrad.functional": "F.",
    "minigrad.optim": "optim.",
    "minigrad": "minigrad.",
}


@functools.cache
def counterparts() -> dict[str, dict[str, str]]:
    """For each owner the hints by name. Tensor's methods are functions of the package, too."""
    tables: dict[str, dict[str, str]] = {}
    with open(os.path.splitext(__file__)[0] + ".txt", encoding="utf-8") as file:
        text = file.read()
    for section in text.split("\n[")[1:]:
        owner, _, lines = section.partition("]\n")
        rows = (line.split(": ", 1) for line in lines.splitlines() if line)
        tables[owner] = {name: hint for names, hint in rows for name in names.split()}
    return {**tables, "minigrad": {**tables["Tensor"], **tables["minigrad"]}}


def missing(owner: str, name: str, kind: str = "") -> AttributeError:
    """The error to raise for an attribute that `owner` lacks, with what to use in its place: from
    the table, or the name in another part of the package, in whatever case.

    kind: how the owner is called in the message, unless by its own name.
    """
    hint = counterparts()[owner].get(name, "")
    if not hint and name[0] != "_" and not kind:
        loaded = [p for p in (owner, *_PARTS) if p in sys.modules]
        places = [
            ("" if p == owner else _PARTS[p], n)
            for p in loaded
            for n in dir(sys.modules[p])
            if not isinstance(vars(sys.modules[p]).get(n), ModuleType)
        ]
        found = [prefix + n for prefix, n in places if n.lower() == name.lower()]
        hint = next((h for h in found if h.endswith(name)), found[0] if found else "")
    kind = kind or (f"{owner!r}" if owner == "Tensor" else f"module {owner!r}")
    text = f"{kind} has no attribute {name!r}"
    return AttributeError(f"{text}. Use {hint}." if hint else text, name=name)
