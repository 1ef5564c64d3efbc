"""The example pages: each runs as a reader would run it, with few steps, and what it claims can be
seen already.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.size import code_lines

ROOT = Path(__file__).parents[1]
# Small matrices gain nothing from a second BLAS thread, and lose much where another process holds
# the second core.
ENVIRONMENT = {
    name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
}  # where a C compiler and the cache are
ENVIRONMENT |= {
    "PYTHONPATH": str(ROOT),
    "PYTHONUTF8": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
PAGES = [
    "custom_op",
    "encoder",
    "export_to_c",
    "grokking",
    "lora",
    "physics_informed",
    "sorting",
    "test_custom_op",
    "tiny_llama",
]


def run(name: str, *arguments: str) -> str:
    call = [sys.executable, "-W", "error", f"examples/{name}.py", *arguments]
    done = subprocess.run(
        call, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    assert found, output
    return float(found[1])


@pytest.mark.parametrize("name", PAGES)
def test_an_example_is_a_page_that_says_how_to_run_it(name: str) -> None:
    path = ROOT / "examples" / f"{name}.py"
    assert len(code_lines(path)) <= 80
    assert re.search(rf"(python|pytest) examples/{name}\.py", path.read_text())


def test_microgpt_learns_a_rule_of_names_in_few_lines() -> None:
    output = run("microgpt", "150")
    first, last = (number(rf"step +{step} +loss ([\d.]+)", output) for step in (1, 150))
    assert last < 0.6 * first
    assert number(r"(\d+)% are new", output) > 60
    assert number(r"(\d+)% obey the rule", output) > 85  # of names by chance, 40% do
    assert len(code_lines(ROOT / "examples" / "microgpt.py")) <= 65


def test_sorting_is_learned() -> None:
    output = run("sorting", "150")
    assert number(r"new lists: ([\d.]+)%", output) > 60
    assert re.search(r"\[3, 1, 4, 1, 5, 9\] -> \[[0-9, ]+\]", output)


def test_equations_are_known_before_they_are_understood() -> None:
    output = run("grokking", "200")
    known, understood = (
        number(rf"step  200 .*{word} +([\d.]+)%", output) for word in ("known", "understood")
    )
    assert known > 90 and known > understood + 3


def test_a_llama_type_model_beats_the_table_of_pairs_on_a_text_of_its_own(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{a} plus {b} is {a + b}. " for a in range(30) for b in range(30)))
    output = run("tiny_llama", str(text), "80")
    assert number(r"validation ([\d.]+) nats", output) < 0.7 * number(r"pairs has ([\d.]+)", output)


def test_an_adapter_turns_the_order_around() -> None:
    output = run("lora", "100", "100")
    assert number(r"base model +sorts up +[\d.]+% +down +([\d.]+)%", output) < 5
    adapted = number(r"adapter +sorts up +[\d.]+% +down +([\d.]+)%", output)
    assert adapted > 30 and number(r"merged +sorts down +([\d.]+)%", output) == pytest.approx(
        adapted, abs=1
    )


def test_a_network_follows_its_differential_equation() -> None:
    assert number(r"distance from sin\(t\): ([\d.]+)", run("physics_informed", "400")) < 0.6


def test_an_encoder_reads_digits_it_has_not_seen() -> None:
    assert number(r"new pictures: ([\d.]+)%", run("encoder", "400")) > 55


def test_an_encoder_reads_scanned_digits() -> None:
    pytest.importorskip("sklearn")
    assert number(r"new pictures: ([\d.]+)%", run("encoder", "150", "scanned")) > 80


def test_a_step_and_a_model_in_c_give_the_numbers_of_python(tmp_path: Path) -> None:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("needs a C compiler")
    output = run("export_to_c", str(tmp_path / "c"))
    assert (
        number(r"apart than ([\d.e+-]+)", output) < 1e-5
        and number(r"; +in C: ([\d.]+)", output) < 0.01
    )
    said = re.search(r"in C says (\[.*\]) wanted (\[.*\])", output)
    assert said and said[1] == said[2] == "[0, 1, 1, 0, 1, 0, 0, 1]"
    built = subprocess.run(
        ["./run", "values.bin"],
        cwd=tmp_path / "c" / "model",
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(built.stdout.split()) == 16  # it needs no Python


def test_an_op_of_ones_own_is_checked_and_learns() -> None:
    output = run("custom_op", "200")
    assert "say: True" in output and "too: True" in output
    assert number(r"last loss ([\d.]+)", output) < 0.1


def test_the_property_tests_pass_and_find_a_wrong_rule(tmp_path: Path) -> None:
    op, tests = (
        (ROOT / "examples" / f"{name}.py").read_text() for name in ("custom_op", "test_custom_op")
    )
    # That a fault is found is what counts; making the example small takes hypothesis longer than
    # all the rest.
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import Phase, settings\n"
        "settings.register_profile('no shrinking', phases=[Phase.explicit, Phase.generate])\n"
        "settings.load_profile('no shrinking')\n"
    )
    for rule, code in ((op, 0), (op.replace("dx = 1 + ops", "dx = 1 - ops"), 1)):
        (tmp_path / "custom_op.py").write_text(rule)
        (tmp_path / "test_custom_op.py").write_text(tests)
        call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_custom_op.py"]
        done = subprocess.run(
            call, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == code, done.stdout
