"""The package as it is built: its files and what it asks for."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import minigrad

ROOT = Path(__file__).parents[1]


def copy_of_checkout(folder: Path) -> Path:
    """What a build reads, copied, so that the checkout stays as it is."""
    source = folder / "minigrad"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "minigrad", source / "minigrad", ignore=shutil.ignore_patterns("__pycache__")
    )
    return source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_of_checkout(folder)
    call = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    subprocess.run(call, check=True, timeout=120)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_every_source_file_and_the_typing_mark_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    built = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "minigrad").rglob("*")
        if p.is_file() and p.suffix != ".pyc"
    }
    assert built == sources
    assert "minigrad/py.typed" in built


def test_the_metadata_asks_for_numpy_and_msgpack_and_python_3_10(wheel: zipfile.ZipFile) -> None:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == ["msgpack>=1.2.3", "numpy>=2"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Version"] == minigrad.__version__
    assert {"dev", "test", "progress", "plot", "tensorboard"} <= set(
        metadata.get_all("Provides-Extra", [])
    )


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    name = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    assert re.search(
        r"^minigrad = minigrad\.cli:main$", wheel.read(name).decode(), flags=re.MULTILINE
    )


def test_a_program_next_to_the_clone_imports_the_package_that_is_installed(tmp_path: Path) -> None:
    """There the clone's folder, which has the package's name, is on the path as well."""
    source, prefix = copy_of_checkout(tmp_path), tmp_path / "prefix"
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed"]
    call += ["--no-warn-script-location", "--prefix", str(prefix), "--editable", str(source)]
    subprocess.run(call, check=True, timeout=120)
    (pth,) = prefix.rglob("*.pth")
    program = (
        f"import site; site.addsitedir({str(pth.parent)!r})\n"
        "import importlib.util; print(importlib.util.find_spec('minigrad').origin)"
    )
    call = [sys.executable, "-S", "-c", program]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{source / 'minigrad' / '__init__.py'}\n"


def test_the_top_level_of_the_repository_is_short() -> None:
    allowed = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "minigrad",
        "tests",
        "examples",
        "tools",
        "docs",
    }
    made = {"build", "dist", "runs"}  # what .gitignore names: a build, a run
    names = {
        p.name
        for p in ROOT.iterdir()
        if not p.name.startswith(".") and not p.name.endswith(".egg-info")
    }
    assert names - made == allowed
