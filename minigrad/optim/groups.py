"""Parameters sorted into groups with settings of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from minigrad.errors import ConfigError
from minigrad.tensor import Tensor

Rule = str | Callable[[str, Tensor], bool]


def grouped(
    named_parameters: Iterable[tuple[str, Tensor]], rules: Sequence[tuple[Rule, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Groups for an optimizer: each parameter goes to the first rule that it fits, the others to a
    last group with the optimizer's own settings.

    rules: (pattern of the name, or function of name and parameter; settings). Groups without a
        parameter are left out.

        AdamW(grouped(model.named_parameters(), [("wte.*", {"lr": 1e-4}), (lambda name, p: p.ndim <
        2, {"weight_decay": 0.0})]))

    Raises ConfigError for a pattern that no name fits, as a misspelt one.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], **settings} for _, settings in [*rules, ("*", {})]
    ]
    names = []
    for name, p in named_parameters:
        names.append(name)
        at = next((i for i, (rule, _) in enumerate(rules) if fits(rule, name, p)), len(rules))
        groups[at]["params"].append((name, p))
    for rule, _ in rules:
        if isinstance(rule, str) and not any(fnmatchcase(name, rule) for name in names):
            raise ConfigError(
                "grouped",
                f"no parameter's name fits {rule!r}",
                got=rule,
                wanted=names,
                hint=f"names are like {names[:3]}",
            )
    return [group for group in groups if group["params"]]


def decay_groups(
    named_parameters: Iterable[tuple[str, Tensor]],
    weight_decay: float,
    exclude: Rule = lambda name, p: p.ndim < 2,
) -> list[dict[str, Any]]:
    """Two groups: what `exclude` names has no weight decay, the rest `weight_decay`. Unless told
    otherwise, biases and norms, which have one axis, are excluded, as for GPT-2 and its kin.

        AdamW(decay_groups(model.named_parameters(), 0.1), lr=3e-4)
    """
    everything: Rule = "*"
    return grouped(
        named_parameters,
        [(exclude, {"weight_decay": 0.0}), (everything, {"weight_decay": weight_decay})],
    )


def fits(rule: Rule, name: str, p: Tensor) -> bool:
    """Whether a parameter falls under a rule: the pattern fits its name, or the function says so."""
    return fnmatchcase(name, rule) if isinstance(rule, str) else rule(name, p)
