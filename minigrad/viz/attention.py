"""The attention weights of every layer and head for a prompt, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.nn import Module, MultiHeadAttention
from minigrad.nn.module import at_rest
from minigrad.tensor import Tensor
from minigrad.viz.flops import Forward, watching
from minigrad.viz.picture import Picture, plain

_BLOCKS = " ░▒▓█"
_MOST_LABELS = 32  # tokens along a map; longer prompts get positions
_SHOWN = {"\n": "⏎", "\t": "⇥", " ": "␣"}


@dataclass(frozen=True)
class AttentionMaps(Picture):
    """The attention weights of a model for one sequence. In a notebook they show themselves.

    layers: their names in the model.
    weights: per layer, (H, T, S): the probability with which each query reads each key.
    labels: how to write the T tokens.
    """

    layers: list[str]
    weights: list[Array]
    labels: list[str]

    def _fill(self, figure: Any) -> None:
        """A row of maps per layer and a column per head. Queries go down, keys to the right; the
        colour scale is the square root of the weight.
        """
        from matplotlib.colors import PowerNorm

        rows, columns = len(self.layers), max(map(len, self.weights))
        side = float(np.clip(0.16 * max(max(w.shape[1:]) for w in self.weights), 1.6, 4)) + 0.6
        figure.set_size_inches(side * columns + 1, side * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for layer, weights, row in zip(self.layers, self.weights, grid, strict=True):
            for head, axes in enumerate(row):
                axes.set_visible(head < len(weights))
                if head < len(weights):
                    norm = PowerNorm(0.5, vmin=0, vmax=1)
                    image = axes.imshow(weights[head], cmap="Blues", norm=norm)
                    axes.set_title(plain(f"{layer}, head {head}"))
                    self._label(axes, *weights[head].shape)
        figure.colorbar(image, ax=grid, label="weight", shrink=0.6)

    def _label(self, axes: Any, T: int, S: int) -> None:
        labels = [plain(label) for label in self.labels]
        if max(T, S) <= _MOST_LABELS and len(labels) >= max(T, S):
            axes.set_yticks(range(T), labels[:T])
            axes.set_xticks(range(S), labels[:S], rotation=90 if max(map(len, labels)) > 1 else 0)

    def text(self, layer: int = -1, head: int = 0, width: int = 80) -> str:
        """Return one head's map for a terminal: darker is more. If it is too wide, its last
        positions. Raises ConfigError for an unknown layer or head.
        """
        _check("layer", layer, len(self.layers))
        _check("head", head, len(self.weights[layer]))
        weights = self.weights[layer][head]
        columns = max(width - 14, 8)
        T, S = weights.shape
        first = max(S - columns, 0)
        doubled = 2 if columns >= 2 * S else 1  # a letter is about half as wide as it is high
        title = f"{self.layers[layer]}, head {head}: a row per token, darker where it attends more"
        lines = [title] + [f"(the last {columns} of {S} positions)"] * bool(first)
        for i in range(max(T - columns, 0), T):
            levels = np.rint(np.sqrt(weights[i, first:]) * (len(_BLOCKS) - 1)).astype(int)
            label = self.labels[i] if i < len(self.labels) else str(i)
            row = "".join(_BLOCKS[level] * doubled for level in levels)
            lines.append(f"{label:>10} │{row}".rstrip())
        return "\n".join(lines)


def _check(name: str, index: int, count: int) -> None:
    if not -count <= index < count:
        hint = f"the first is 0, the last {count - 1}"
        raise ConfigError("attention_maps", f"{name} {index} of {count}", got=index, hint=hint)


def attention_maps(
    model: Module, tokens: Any, labels: Sequence[str] | None = None
) -> AttentionMaps:
    """Return the attention weights of every MultiHeadAttention that `model(tokens)` calls, in the
    order of the calls, without dropout.

    tokens: (T,) or (1, T) integers; or a Tensor, which the model gets as it is, and of whose batch
        the first row is shown.
    labels: how to write the tokens; by default their numbers.
    Raises ConfigError if the model calls no such layer.
    """
    inputs = tokens if isinstance(tokens, Tensor) else Tensor(np.atleast_2d(np.asarray(tokens)))
    names = {id(module): name for name, module in model.named_modules()}
    called, found = list[str](), list[Array]()

    def wrap(module: Module, forward: Forward) -> Forward:
        def noted(*args: Any, return_weights: bool = False, **kwargs: Any) -> Any:
            y, weights = forward(*args, return_weights=True, **kwargs)
            called.append(names[id(module)] or "attention")
            found.append(weights.numpy()[0].copy())
            return (y, weights) if return_weights else y

        return noted

    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    with at_rest(model), watching(layers, wrap):
        model(inputs)
    if not found:
        problem = f"{type(model).__name__} calls no MultiHeadAttention"
        raise ConfigError("attention_maps", problem, wanted="a model with attention")
    if labels is None:
        numbers = inputs.numpy()[0] if inputs.ndim == 2 else np.arange(inputs.shape[1])
        labels = [str(n) for n in numbers.tolist()]
    return AttentionMaps(called, found, [_visible(label) for label in labels])


def _visible(label: str) -> str:
    """Return the label with signs for spaces and line ends, at most 10 characters."""
    seen = "".join(_SHOWN.get(c, c if c.isprintable() else "·") for c in label)
    return seen if len(seen) <= 10 else seen[:9] + "…"
