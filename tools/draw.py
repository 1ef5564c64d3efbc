"""Draw the graph behind a tensor as text: Mermaid (which GitHub shows as a picture) or DOT (for
Graphviz).

    python tools/draw.py "(Tensor.randn(2, 3, requires_grad=True) @ Tensor.randn(3,
    requires_grad=True)).tanh().sum()" python tools/draw.py --format dot "..." | dot -Tsvg >
    graph.svg

or from a program or a notebook: `from draw import draw; print(draw(loss, names={"w1": model.w1}))`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import minigrad
from minigrad import Tensor

Edge = tuple[str, str, str]  # from, to, label


def draw(
    root: Tensor,
    format: str = "mermaid",
    names: Mapping[str, Tensor] | None = None,
    most: int = 500,
) -> str:
    """The ops between `root` and its leaves, as "mermaid" or "dot" text. names: what to call
    leaves.   most: ops, the newest ones.
    """
    boxes, edges = _graph(root, {id(t): name for name, t in (names or {}).items()}, most)
    return _mermaid(boxes, edges) if format == "mermaid" else _dot(boxes, edges)


def _graph(
    root: Tensor, names: Mapping[int, str], most: int
) -> tuple[dict[str, tuple[str, bool]], list[Edge]]:
    """Boxes, id -> (text, is it an op), and edges from operands to ops, labelled with shapes."""
    boxes: dict[str, tuple[str, bool]] = {"result": (f"result {root.shape}", False)}
    edges: list[Edge] = []
    ids: dict[int, str] = {}
    kept: list[Any] = []  # what `ids` knows by its address must live as long as it does
    stack: list[tuple[Any, str]] = [(root, "result")]
    while stack:
        x, below = stack.pop()
        if len(boxes) > most:
            break
        source = x.grad_fn or x
        new = id(source) not in ids
        name = ids.setdefault(id(source), f"n{len(ids)}")
        edges.append((name, below, str(tuple(x.shape))))
        if not new:
            continue
        kept.append(source)
        if source is x:
            boxes[name] = (
                f"{names.get(id(x), 'leaf' if x.requires_grad else 'constant')} {tuple(x.shape)} "
                f"{x.dtype}",
                False,
            )
            continue
        boxes[name] = (source.op.name, True)
        stack += [
            (operand, name) for operand in reversed(source.operands) if hasattr(operand, "grad_fn")
        ]
    return boxes, edges


def _mermaid(boxes: Mapping[str, tuple[str, bool]], edges: list[Edge]) -> str:
    lines = ["flowchart TD"]
    lines += [
        f'    {name}(["{text}"])' if op else f'    {name}["{text}"]'
        for name, (text, op) in boxes.items()
    ]
    lines += [f'    {above} -->|"{label}"| {below}' for above, below, label in edges]
    return "\n".join(lines)


def _dot(boxes: Mapping[str, tuple[str, bool]], edges: list[Edge]) -> str:
    lines = ["digraph {"]
    lines += [
        f'    {name} [label="{text}", shape={"ellipse" if op else "box"}];'
        for name, (text, op) in boxes.items()
    ]
    lines += [f'    {above} -> {below} [label="{label}"];' for above, below, label in edges]
    return "\n".join([*lines, "}"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "expression", help="Python that gives a Tensor; it may use minigrad, Tensor and F"
    )
    parser.add_argument("--format", choices=["mermaid", "dot"], default="mermaid")
    args = parser.parse_args()
    result = eval(
        args.expression, {"minigrad": minigrad, "Tensor": Tensor, "F": minigrad.functional}
    )
    print(draw(result, args.format))


if __name__ == "__main__":
    main()
