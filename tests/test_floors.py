"""Who may import whom: the floors of docs/design.md, read from the source files."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "minigrad").rglob("*.py"))

FLOORS = {
    0: [
        "version",
        "errors",
        "arguments",
        "columns",
        "counterparts",
        "dtypes",
        "heap",
        "start",
    ],
    1: ["primitive", "precision"],
    2: ["ops", "modes", "tape"],
    3: ["autograd", "random", "files"],
    4: ["tensor"],
    5: [
        "distributed",
        "functional",
        "func",
        "interop",
        "listeners",
        "optim",
        "testing",
        "text",
        "compiler",
    ],
    6: ["nn.module", "nn.init"],
    7: ["nn"],
    8: ["train", "data", "models", "evaluate", "finetune", "viz"],
    9: ["__init__", "__main__", "cli"],
}
# Imported where they are used, with the `pip install` line on absence; minigrad works without them.
# tomllib came with Python 3.11.
OPTIONAL = {
    "rich",
    "matplotlib",
    "optuna",
    "tensorboardX",
    "pydoc_data",
    "tokenizers",
    "jinja2",
    "einops",
    "safetensors",
    "readline",
    "tomllib",
    "tomli",
    "mpi4py",
}
# The files of the core that import the annex. Who imports them, does so where it is asked for.
BRING_THE_COMPILER = {"models.decoding", "train.compiled"}
RUN_TIME = {"numpy", "msgpack"}
WITHIN_A_FLOOR = {(name, "errors") for name in ("dtypes", "arguments")}  # the pairs on floor 0


def module_of(path: Path) -> str:
    """minigrad/ops/basic.py -> "ops.basic"; minigrad/nn/__init__.py -> "nn"; minigrad/__init__.py
    -> "__init__".
    """
    parts = path.relative_to(ROOT / "minigrad").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_of(path): path for path in FILES}
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def floor_of(module: str) -> int:
    """The floor of a module: that of the longest name in FLOORS that it is or lies in."""
    places = [
        (len(name), floor)
        for floor, names in FLOORS.items()
        for name in names
        if (module + ".").startswith(name + ".")
    ]
    assert places, f"minigrad/{module} has no floor: give it one in docs/design.md and in this test"
    return max(places)[1]


def package_of(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """The full names that a file imports, wherever in the file: "numpy", "minigrad.ops.basic"."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the full name"
            assert node.module is not None
            inside = node.module.removeprefix("minigrad").lstrip(".")
            for alias in node.names:
                # `from minigrad.nn import module` imports a file, `from minigrad.nn.module import
                # Module` a name from one.
                whole = f"{inside}.{alias.name}".lstrip(".")
                yield (
                    (
                        f"minigrad.{whole}"
                        if is_ours(node.module) and whole in MODULES
                        else node.module
                    ),
                    node,
                )


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "minigrad"


def inner_imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """The modules of minigrad that a file imports, by their names in MODULES."""
    for name, node in imports(path):
        if is_ours(name):
            inside = name.removeprefix("minigrad").lstrip(".") or "__init__"
            assert inside in MODULES, f"{path}:{node.lineno}: there is no {name}"
            yield inside, node


def test_every_file_has_a_floor_and_design_md_names_it() -> None:
    lines = re.findall(
        r"^    (\d)  (.*)$", (ROOT / "docs" / "design.md").read_text(), flags=re.MULTILINE
    )
    assert [int(number) for number, _ in lines] == list(range(9, -1, -1))
    documented = {int(number): text for number, text in lines}
    for module in MODULES:
        assert re.search(rf"\b{package_of(module)}\b", documented[floor_of(module)]), module


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_strictly_lower_floors_or_its_own_package(module: str) -> None:
    for imported, node in inner_imports(MODULES[module]):
        where = f"minigrad/{module}:{node.lineno}"
        at_home = (
            package_of(module) in ("compiler", "cli", "__init__") or module in BRING_THE_COMPILER
        )
        assert package_of(imported) != "compiler" or at_home, f"{where}: the core imports the annex"
        if package_of(module) == "compiler" and package_of(imported) != "compiler":
            assert floor_of(imported) <= 4, (
                f"{where}: the annex may import floors 0 to 4, not {imported}"
            )
        elif (
            package_of(imported) != package_of(module)
            and floor_of(module) < 9
            and (module, imported) not in WITHIN_A_FLOOR
        ):
            assert floor_of(imported) < floor_of(module), (
                f"{where}: {imported} is on floor {floor_of(imported)}, this on {floor_of(module)}"
            )
        else:
            assert floor_of(imported) <= floor_of(module), f"{where}: {imported} lies above"


def test_no_file_imports_itself_by_any_way_round() -> None:
    below = {
        module: {name for name, _ in inner_imports(path)} - {module}
        for module, path in MODULES.items()
    }
    # The package's own __init__ runs first for every import of minigrad.x; it is a table of
    # contents and no dependency of the others.
    done: set[str] = set()
    while ready := [module for module in below if module not in done and below[module] <= done]:
        done.update(ready)
    assert done == set(below), f"a cycle among {sorted(set(below) - done)}"


def for_types_only(path: Path) -> list[ast.stmt]:
    """What stands in `if TYPE_CHECKING:` at the top of the file: it is never run."""
    blocks = (
        n
        for n in TREES[path].body
        if isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING")
    )
    return [node for block in blocks for node in block.body]


@pytest.mark.parametrize("module", MODULES)
def test_imports_stand_at_the_top_of_the_file_except_optional_packages(module: str) -> None:
    path = MODULES[module]
    top = [*TREES[path].body, *for_types_only(path)]
    for name, node in imports(path):
        package, where = name.split(".")[0], f"minigrad/{module}:{node.lineno}"
        if module == "__init__":
            continue  # the top floor imports what is named first, on the first use of the name
        assert package != "importlib", f"{where}: importlib hides an import"
        if name.removeprefix("minigrad.") in BRING_THE_COMPILER:
            assert node not in TREES[path].body, (
                f"{where}: {name} brings the compiler; import it where it is asked for"
            )
            continue
        if package in OPTIONAL:
            assert node not in top, f"{where}: {package} is optional; import it where it is used"
        else:
            assert node in top, f"{where}: an import that is not at the top"
    assert "__import__" not in {n.id for n in ast.walk(TREES[path]) if isinstance(n, ast.Name)}


def test_only_numpy_and_msgpack_are_needed_to_run() -> None:
    allowed = set(sys.stdlib_module_names) | RUN_TIME | OPTIONAL | {"minigrad"}
    for path in FILES:
        needed = {
            name.split(".")[0] for name, node in imports(path) if node not in for_types_only(path)
        }
        assert needed <= allowed, path


def test_examples_and_tools_import_public_names_only() -> None:
    for path in [*(ROOT / "examples").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
                private = [
                    part
                    for part in [*(node.module or "").split("."), *(a.name for a in node.names)]
                    if part.startswith("_")
                ]
                assert not private or private == ["__version__"], f"{path}:{node.lineno}: {private}"


def test_there_is_no_utils_file() -> None:
    assert not [m for m in MODULES if re.search(r"\b(utils?|helpers?|common|misc)\b", m)]
