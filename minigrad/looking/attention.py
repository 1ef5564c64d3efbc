"""Where a model looks: the attention weights of every layer and head for a prompt, as heat maps."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.dtypes import Array
from minigrad.errors import ConfigError
from minigrad.looking.axis import Axis
from minigrad.looking.svg import document, tag, text
from minigrad.looking.watch import at_rest, watching
from minigrad.nn import Module, MultiHeadAttention
from minigrad.tensor import Tensor

_COLOUR = (
    0x3B,
    0x7D,
    0xD8,
)  # its opacity is what is shown, so that it reads on a light and on a dark ground
_BLOCKS = " ░▒▓█"
_SIDE, _LABELLED = (
    200.0,
    9.0,
)  # pixels of a map, about; of a cell from which tokens are written beside it
_SHOWN = {"\n": "⏎", "\t": "⇥", " ": "␣"}


@dataclass(frozen=True)
class AttentionMaps:
    """What `attention_maps` gives. In a notebook it shows itself.

    layers: their names in the model.   weights: of each layer, (H, T, S), the probabilities by
        which each query takes from each key.
    labels: of the T tokens.
    """

    layers: list[str]
    weights: list[Array]
    labels: list[str]

    def svg(self) -> str:
        """A row of maps per layer, a column per head. Queries go down, keys to the right; opacity
        is the square root of the weight.
        """
        T, S = (max(w.shape[i] for w in self.weights) for i in (1, 2))
        cell = float(np.clip(_SIDE / max(T, S), 1, 14))
        written = cell >= _LABELLED
        margin = 14 + (7.0 * max(map(len, self.labels), default=0) if written else 24)
        across, down = S * cell + margin + 12, T * cell + margin + 30
        parts, top = [_scale(24.0, 30.0)], 52.0
        for row, (layer, weights) in enumerate(zip(self.layers, self.weights, strict=True)):
            for head, weight in enumerate(weights):
                x, y = 12 + margin + head * across, top + 20 + row * down
                parts.append(self._map(f"{layer}, head {head}", weight, x, y, cell, written))
        width = max(12 + max(len(w) for w in self.weights) * across + margin / 2, 420.0)
        return document(
            width,
            top + len(self.layers) * down + 8,
            f"attention in {len(self.layers)} layers",
            parts,
        )

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the heat maps of all layers and heads as SVG. Raises ConfigError for a name that
        does not end so.
        """
        if Path(path).suffix.lower() != ".svg":
            raise ConfigError(
                "attention_maps",
                f"{path} does not end in .svg",
                got=str(path),
                wanted=".svg",
                hint="name it attention.svg",
            )
        Path(path).write_text(self.svg(), encoding="utf-8")

    def text(self, layer: int = -1, head: int = 0, width: int = 80) -> str:
        """One head's map for a terminal: darker is more. If it is too wide, the last positions of
        it. Raises ConfigError.
        """
        weights = self._head(layer, head)
        columns = max(width - 14, 8)
        T, S = weights.shape
        first = max(S - columns, 0)
        doubled = 2 if columns >= 2 * S else 1  # a letter is about half as wide as it is high
        lines = [
            f"{self.layers[layer]}, head {head}: each row is a token, darker where it looks more"
        ]
        lines += [f"(the last {columns} of {S} positions)"] if first else []
        for i in range(max(T - columns, 0), T):
            levels = np.rint(np.sqrt(weights[i, first:]) * (len(_BLOCKS) - 1)).astype(int)
            label = self.labels[i] if i < len(self.labels) else str(i)
            lines.append(
                f"{label:>10} │" + "".join(_BLOCKS[level] * doubled for level in levels).rstrip()
            )
        return "\n".join(lines)

    def _head(self, layer: int, head: int) -> Array:
        for name, index, count in (
            ("layer", layer, len(self.layers)),
            ("head", head, len(self.weights[-1])),
        ):
            if not -count <= index < count:
                raise ConfigError(
                    "attention_maps",
                    f"{name} {index} of {count}",
                    got=index,
                    wanted=f"0 to {count - 1}",
                    hint=f"the first is 0, the last {count - 1}",
                )
        weights: Array = self.weights[layer][head]
        return weights

    def _map(
        self, heading: str, weights: Array, x: float, y: float, cell: float, written: bool
    ) -> str:
        T, S = weights.shape
        pixels = np.rint(np.sqrt(weights.astype(np.float64)) * 255).astype(np.uint8)
        # Cells are drawn larger than a pixel, since not every viewer knows `pixelated`; equal rows
        # cost next to nothing when compressed.
        times = max(int(cell), 1)
        data = base64.b64encode(
            indexed_png(pixels.repeat(times, 0).repeat(times, 1), _COLOUR)
        ).decode()
        parts = [
            text(x, y - 8, heading, class_="heading"),
            tag(
                "image",
                x=x,
                y=y,
                width=S * cell,
                height=T * cell,
                preserveAspectRatio="none",
                style="image-rendering: pixelated",
                href=f"data:image/png;base64,{data}",
            ),
            tag("rect", x=x, y=y, width=S * cell, height=T * cell, class_="axis"),
        ]
        return tag(
            "g", *parts, *(self._written if written else _counted)(T, S, x, y, cell), class_="map"
        )

    def _written(self, T: int, S: int, x: float, y: float, cell: float) -> list[str]:
        """The tokens, beside the rows and under the columns."""
        upright = max(map(len, self.labels), default=0) <= 1
        parts = [
            text(x - 5, y + (i + 0.5) * cell + 3.5, label, "end", class_="small")
            for i, label in enumerate(self.labels[:T])
        ]
        for j, label in enumerate(self.labels[:S]):
            middle, below = x + (j + 0.5) * cell, y + T * cell
            if upright:
                parts.append(text(middle, below + 12, label, "middle", class_="small"))
            else:
                turned = f"rotate(-90 {middle + 3.5:.2f} {below + 5:.2f})"
                parts.append(
                    text(middle + 3.5, below + 5, label, "end", class_="small", transform=turned)
                )
        return parts


def _counted(T: int, S: int, x: float, y: float, cell: float) -> list[str]:
    """Positions by number, where tokens have no room."""
    rows, columns = ([int(v) for v in Axis(0, n - 1, 0, 1).ticks(4) if v == int(v)] for n in (T, S))
    return [
        text(x - 5, y + (i + 0.5) * cell + 3.5, str(i), "end", class_="small soft") for i in rows
    ] + [
        text(x + (j + 0.5) * cell, y + T * cell + 13, str(j), "middle", class_="small soft")
        for j in columns
    ]


def _scale(x: float, y: float) -> str:
    """What the opacities mean."""
    parts = [text(x, y, "weight", class_="soft")]
    colour = "#{:02x}{:02x}{:02x}".format(*_COLOUR)
    for i, weight in enumerate((0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)):
        at = x + 56 + i * 46
        parts.append(
            tag(
                "rect",
                x=at,
                y=y - 11,
                width=14,
                height=14,
                fill=colour,
                fill_opacity=f"{weight**0.5:.3f}",
                class_="swatch",
            )
        )
        parts.append(tag("rect", x=at, y=y - 11, width=14, height=14, class_="axis"))
        parts.append(text(at + 18, y, f"{weight:g}", class_="small soft"))
    return tag("g", *parts, class_="scale")


def attention_maps(
    model: Module, tokens: Any, labels: Sequence[str] | None = None
) -> AttentionMaps:
    """The attention weights of every MultiHeadAttention that `model(tokens)` calls, in the order of
    the calls, without dropout.

    tokens: (T,) or (1, T) integers, or a Tensor that the model takes as it is, of whose batch the
        first row is shown.
    labels: how to write the tokens; their numbers unless given. Raises ConfigError if the model
        calls no such layer.
    """
    inputs = tokens if isinstance(tokens, Tensor) else Tensor(np.atleast_2d(np.asarray(tokens)))
    names = {id(module): name for name, module in model.named_modules()}
    found: list[tuple[str, Array]] = []

    def around(
        module: Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        y, weights = forward(*args, **{**kwargs, "return_weights": True})
        found.append((names[id(module)] or "attention", weights.numpy()[0].copy()))
        return (y, weights) if kwargs.get("return_weights") else y

    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    with at_rest(model), watching(layers, around):
        model(inputs)
    if not found:
        raise ConfigError(
            "attention_maps",
            f"{type(model).__name__} calls no MultiHeadAttention",
            got=type(model).__name__,
            wanted="a model with attention",
        )
    if labels is None:
        labels = (
            [str(t) for t in inputs.numpy()[0].tolist()]
            if inputs.ndim == 2
            else [str(i) for i in range(inputs.shape[1])]
        )
    return AttentionMaps(
        [name for name, _ in found], [w for _, w in found], [_visible(label) for label in labels]
    )


def _visible(label: str) -> str:
    """The label with something to see for spaces and line ends, and not too long."""
    seen = "".join(_SHOWN.get(c, c if c.isprintable() else "·") for c in label)
    return seen if len(seen) <= 10 else seen[:9] + "…"


def indexed_png(pixels: Array, colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour with the opacity pixels / 255, (height, width) of uint8: all palette
    entries are `colour`, entry i with alpha i.

    From the PNG specification (W3C, third edition): colour type 3, chunks PLTE and tRNS, filter 0
    in front of each row.
    """
    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1).tobytes()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(colour) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
