"""What the compiler needs to know about an op is said on the op, or in the header of its C: no room
of the compiler compares names of ops or collects them.
"""

import ast
from pathlib import Path

import pytest

import minigrad.compiler
import minigrad.optim as optim
from minigrad import ops
from minigrad.primitive import Primitive

FOLDER = Path(minigrad.compiler.__file__).parent
NAMES = {
    op.name
    for module in (ops, *(vars(optim).values()))
    for op in (vars(module).values() if hasattr(module, "__dict__") else ())
    if isinstance(op, Primitive)
}


def named(tree):
    """(line, name) wherever a name of an op is compared, or is in a set, a list or the keys of a
    dict; likewise where an op itself is compared, `op is ops.copy`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            for part in parts:
                if isinstance(part, ast.Attribute) and ast.unparse(part).startswith("ops."):
                    yield node.lineno, ast.unparse(part)
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, (ast.Set, ast.List, ast.Tuple)):
            parts = node.elts
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        for part in parts:
            if isinstance(part, ast.Constant) and part.value in NAMES:
                yield node.lineno, part.value


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_no_room_compares_or_collects_names_of_ops(path):
    assert list(named(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "text",
    [
        'line.op.name == "add"',
        'line.op.name in ("add", "linear")',
        '_CHEAP = frozenset({"gelu_tanh", "layer_norm"})',
        '_C = {"exp": "expf"}',
        "op is ops.copy",
        'match name:\n    case "add":\n        pass',
    ],
)
def test_the_search_finds_each_way_to_do_it(text):
    assert list(named(ast.parse(text)))


def test_the_search_knows_the_ops():
    assert {"add", "attention", "merge_heads", "dropout", "sgd_", "adam_", "append_"} <= NAMES
