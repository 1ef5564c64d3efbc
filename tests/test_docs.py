"""The pages of docs/ that can be wrong: code on them is run, generated ones are generated again."""

from __future__ import annotations

import ast
import doctest
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import Tensor

ROOT = Path(__file__).parents[1]


def run(tool: str, *args: str) -> str:
    command = [sys.executable, "-W", "error", str(ROOT / "tools" / tool), *args]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    ).stdout


def test_the_code_of_add_an_op_runs_as_it_stands() -> None:
    page = (ROOT / "docs" / "add_an_op.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    names: dict[str, object] = {}
    exec(compile(code, "docs/add_an_op.md", "exec"), names)
    op = names["softclip"]
    x = Tensor(np.linspace(-1, 1, 5))
    second = minigrad.func.hessian(lambda t: op(t).sum())(x).numpy()
    np.testing.assert_allclose(
        np.diag(second), -3 * x.numpy() * (1 + x.numpy() ** 2) ** -2.5, atol=1e-12
    )


def names_of(node: ast.AST) -> list[str]:
    """What a statement defines: a function, a class, or `name = ...`."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [getattr(node, "name", "")]


def lines_of(path: Path, name: str) -> int:
    """The lines of a function or class (`Class.method` too), with the rules that stand below it."""
    body, count = ast.parse(path.read_text()).body, 0
    for part in name.split("."):
        found = [i for i, node in enumerate(body) if part in names_of(node)]
        assert found, f"{path} has no {name}"
        after = itertools.takewhile(
            lambda node: getattr(node, "name", None) == "_", body[found[0] + 1 :]
        )
        pieces = [body[found[0]], *after]
        body = getattr(pieces[0], "body", [])
        count = sum((node.end_lineno or 0) - node.lineno + 1 for node in pieces)
    return count


def test_the_reading_path_names_what_exists_and_is_about_1500_lines() -> None:
    page = (ROOT / "docs" / "reading.md").read_text()
    total = 0
    for sentence in re.findall(r"^Read .*?(?=\n\n)", page, flags=re.MULTILINE | re.DOTALL):
        pieces = re.findall(r"`(minigrad/[\w/]+\.py)`: ((?:`[\w.]+`,?\s*)+)", sentence)
        assert pieces
        for path, names in pieces:
            total += sum(lines_of(ROOT / path, name) for name in re.findall(r"`([\w.]+)`", names))
    assert 1000 < total < 1700, total


def test_the_table_of_differences_from_pytorch_is_true() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "pytorch.md"), module_relative=False)
    assert found.attempted > 20 and not found.failed


def test_ops_md_is_what_the_docstrings_say() -> None:
    assert run("make_docs.py", "--print") == (ROOT / "docs" / "ops.md").read_text(), (
        "run python tools/make_docs.py"
    )


def test_every_fault_of_the_mutation_run_can_be_put_into_the_present_source() -> None:
    run("mutate.py", "--check")


def test_modules_md_is_what_the_docstrings_say_and_has_every_layer_schedule_and_error() -> None:
    page = (ROOT / "docs" / "modules.md").read_text()
    assert run("make_docs.py", "--print", "modules") == page, "run python tools/make_docs.py"
    owners = (
        minigrad.nn,
        minigrad.optim,
        minigrad.optim.lr_scheduler,
        minigrad.errors,
        minigrad.testing,
    )
    things = {n: getattr(owner, n) for owner in owners for n in dir(owner)}
    names = {
        n
        for n, thing in things.items()
        if isinstance(thing, type)
        and thing.__module__.startswith("minigrad")
        and thing is not Tensor
    }
    assert [n for n in sorted(names) if not re.search(rf"\*\*`{n}\b", page)] == []


def test_ops_md_has_every_method_of_tensor_and_every_function() -> None:
    page = (ROOT / "docs" / "ops.md").read_text()
    for owner in (Tensor, minigrad.functional):
        names = [
            n
            for n in dir(owner)
            if not n.startswith("_")
            and callable(getattr(owner, n))
            and not isinstance(getattr(owner, n), type)
        ]
        assert [n for n in names if not re.search(rf"\b{n}(\(|`\*\* is )", page)] == []


@pytest.mark.parametrize(
    ("form", "marks"),
    [("mermaid", ["flowchart", "matmul", "-->"]), ("dot", ["digraph", "matmul", "->"])],
)
def test_draw_prints_the_graph_of_a_python_expression(form: str, marks: list[str]) -> None:
    text = run(
        "draw.py",
        "--format",
        form,
        "(Tensor.randn(2, 3, requires_grad=True) @ Tensor.randn(3, "
        "requires_grad=True)).tanh().sum()",
    )
    assert all(mark in text for mark in marks) and "(2, 3)" in text and text.count("sum") == 1
