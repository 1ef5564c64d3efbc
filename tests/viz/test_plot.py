"""The pictures of runs: what is drawn is what stands in the files."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad.errors import ConfigError
from minigrad.viz import find_runs, plot, read_run
from minigrad.viz.curves import smoothed
from tests.processes import called

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
needs_matplotlib = pytest.mark.skipif(not find_spec("matplotlib"), reason="needs matplotlib")


def a_run(folder: Path, steps: int, scale: float = 1.0, **others: float) -> Path:
    """A run with a bumpy loss and evaluations every 50 steps."""
    folder.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w") as file:
        for s in range(1, steps + 1):
            loss = scale * (1.5 + 3 * math.exp(-s / 30) + 0.1 * math.sin(7 * s))
            line = {
                "step": s,
                "time": 1.7e9 + s,
                "seconds": 0.1 * s,
                "loss": loss,
                "lr": 1e-3 * min(1, s / 20),
                "grad_norm": 1 + math.cos(s) / 2,
                "tokens_per_second": 12000.0 + s,
                **({"val_loss": loss + 0.2} if s % 50 == 0 else {}),
                **others,
            }
            file.write(json.dumps(line) + "\n")
    return folder


def drawn(axes: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of a series in a panel."""
    (line,) = [line for line in axes.lines if line.get_gid() == name]
    return line.get_xdata(), line.get_ydata()


@needs_matplotlib
@pytest.mark.parametrize("log", [False, True])
def test_the_numbers_drawn_are_those_of_the_file(tmp_path: Path, log: bool) -> None:
    run = read_run(a_run(tmp_path / "one", 200))
    found = {axes.get_title(loc="left"): axes for axes in plot([run], log=log).figure().axes}
    assert list(found) == ["loss", "learning rate", "gradient norm", "tokens per second"]
    where = dict(zip(("loss", "lr", "grad_norm", "tokens_per_second"), found, strict=True))
    for name, title in {**where, "val_loss": "loss"}.items():
        np.testing.assert_array_equal(drawn(found[title], f"one: {name}"), run.column(name))
        assert found[title].get_yscale() == ("log" if log else "linear")


@needs_matplotlib
def test_every_run_has_a_look_of_its_own_which_the_legend_names(tmp_path: Path) -> None:
    for i in range(11):
        a_run(tmp_path / f"run-{i:02d}", 30, scale=1 + i / 10)
    figure = plot(find_runs([tmp_path]), ["loss"], smooth=1).figure()
    (legend,) = figure.legends
    looks, lines = (
        [(line.get_color(), line.get_linestyle()) for line in group]
        for group in (legend.get_lines(), figure.axes[0].lines)
    )
    assert len(set(looks)) == 11 and looks == lines[:11]
    assert [t.get_text() for t in legend.get_texts()] == [f"run-{i:02d}" for i in range(11)]


@needs_matplotlib
def test_a_noisy_curve_is_thin_under_its_mean_and_validation_has_dots(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "one", 500))
    axes = plot([run], smooth=21).figure().axes[0]
    thin, mean, val = (drawn(axes, f"one: {n}") for n in ("loss", "loss, mean of 21", "val_loss"))
    assert [line.get_alpha() for line in axes.lines[:3]] == [0.25, 1, 1]
    assert [line.get_marker() for line in axes.lines[:3]] == ["", "", "o"]
    assert (len(thin[0]), len(val[0])) == (500, 10)
    np.testing.assert_allclose(mean[1][249], run.column("loss")[1][239:260].mean(), atol=1e-9)


@needs_matplotlib
def test_a_picture_refers_to_nothing_outside_and_is_the_same_every_time(tmp_path: Path) -> None:
    chart = plot([read_run(a_run(tmp_path / "one", 60))])
    svg = chart.svg()
    assert svg == chart.svg() == chart._repr_svg_()
    assert not re.search(r'<script|@import|href="http|url\(http', svg)


@needs_matplotlib
def test_a_run_of_any_name_gives_valid_xml(tmp_path: Path) -> None:
    name = 'a<b> & "c" \x1b[31m ü 😀 \udcff $x_1$'
    run = read_run(a_run(tmp_path / "one", 30), name)
    texts = [t.text for t in ET.fromstring(plot([run]).svg()).iter(f"{SVG}text")]
    assert 'a<b> & "c" �[31m ü 😀 � $x_1$' in texts


@needs_matplotlib
def test_a_long_name_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "one", 30), "sweep-" + "x" * 80 + "-lr0.003")
    (label,) = plot([run]).figure().legends[0].get_texts()
    shown = label.get_text()
    assert shown.startswith("sweep-xx") and shown.endswith("xx-lr0.003") and "…" in shown
    assert len(shown) == 40


@needs_matplotlib
def test_a_loss_that_is_not_a_number_leaves_a_gap(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "one", 40)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[19] = '{"step": 20, "loss": NaN}'
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    chart = plot([read_run(folder)], ["loss"], smooth=1)
    path = chart.figure().axes[0].lines[0]
    assert np.isnan(path.get_ydata()).nonzero()[0].tolist() == [19]
    (drawn,) = re.findall(r'<g id="one: loss">\s*<path d="(.*?)"', chart.svg(), flags=re.DOTALL)
    assert drawn.count("M") == 2


@needs_matplotlib
def test_amounts_are_drawn_from_zero_on(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "one", 30))
    figure = plot([run]).figure()
    assert [axes.get_ylim()[0] == 0 for axes in figure.axes] == [False, True, False, True]


@needs_matplotlib
def test_a_single_record_is_a_dot_and_validation_alone_has_dots(tmp_path: Path) -> None:
    one = plot([read_run(a_run(tmp_path / "one", 1))], ["lr"]).figure().axes[0]
    several = plot([read_run(a_run(tmp_path / "several", 150))], ["val_loss"]).figure().axes[0]
    assert [axes.lines[0].get_marker() for axes in (one, several)] == ["o", "o"]
    assert len(several.lines[0].get_xdata()) == 3


def test_a_run_without_a_record_stands_in_the_legend_and_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    a_run(tmp_path / "other" / "full", 30)
    runs = [read_run(tmp_path, "empty"), read_run(tmp_path / "other" / "full")]
    assert [run.name for run in plot(runs).runs] == ["empty", "full"]
    with pytest.raises(ConfigError, match="nothing yet"):
        plot(runs[:1])


def test_a_name_that_no_run_has_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "one", 30, accuracy=0.5))
    assert plot([run], ["accuracy"]).values == ["accuracy"]
    with pytest.raises(ConfigError, match=r"perplexity.*\n.*accuracy"):
        plot([run], ["perplexity"])


# --- as text


def test_a_chart_of_characters_has_the_curve_between_its_extremes(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    rows = (f'{{"step": {s}, "lr": {s / 2}}}\n' for s in range(1, 12))
    (folder / "metrics.jsonl").write_text("".join(rows))
    title, *lines, axis, last = plot([read_run(folder)]).text(width=11, height=11).splitlines()
    assert (title, last) == ("learning rate", "               step 11")
    assert lines[0].startswith("      5.5 │") and lines[-1].startswith("      0.5 │")
    assert [line.partition("│")[2] for line in lines] == [" " * i + "*" for i in range(10, -1, -1)]
    assert axis == "          └" + "─" * 11


def test_a_chart_of_characters_names_the_mark_of_each_of_several_runs(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n')
    first, second = find_runs([tmp_path])
    assert plot([first, second]).text().splitlines()[-1].split() == ["*", "first", "o", "second"]
    assert "first" not in plot([first]).text()


def test_a_chart_of_characters_leaves_out_what_cannot_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 1}\n{"step": 3, "loss": -1}\n'
    )
    run = read_run(tmp_path)
    assert plot([run]).text().count("*") == 2
    assert plot([run], log=True).text().count("*") == 1
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    assert plot([read_run(tmp_path)]).text() == "loss: nothing to draw"


# --- the parts


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(1, 30))
def test_smoothing_is_the_mean_of_the_neighbours(values: list[float], window: int) -> None:
    y, half = np.array(values), window // 2
    wanted = [y[i - min(i, half) : i + min(i, half) + 1].mean() for i in range(len(y))]
    np.testing.assert_allclose(smoothed(y, window), wanted, atol=1e-9)


# --- the command


def command(
    *arguments: str, folder: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join(str(p) for p in (path, ROOT) if p)
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "minigrad", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": places, "PYTHONUTF8": "1"},
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


@needs_matplotlib
def test_a_png_is_drawn(tmp_path: Path) -> None:
    plot([read_run(a_run(tmp_path / "one", 60))]).save(tmp_path / "plot.png")
    content = (tmp_path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20], "big") > 800


@pytest.mark.parametrize(
    ("name", "better"), [("maps.pdf", "maps.svg"), ("maps", "maps.svg"), (".", "plot.svg")]
)
def test_a_picture_of_another_kind_is_refused_with_a_name_that_is_taken(
    tmp_path: Path, name: str, better: str
) -> None:
    picture = plot([read_run(a_run(tmp_path / "one", 60))])
    with pytest.raises(ConfigError, match=f"neither in .svg nor in .png\n.*name it {better}"):
        picture.save(name)


def test_without_matplotlib_a_chart_of_characters_and_the_line_that_installs_it_are_printed(
    tmp_path: Path,
) -> None:
    a_run(tmp_path / "one", 60)
    (tmp_path / "blocked" / "matplotlib").mkdir(parents=True)
    (tmp_path / "blocked" / "matplotlib" / "__init__.py").write_text("raise ImportError")
    blocked = tmp_path / "blocked"
    done = command("plot", "one", folder=tmp_path, path=blocked)
    assert done.returncode == 0 and done.stderr == "" and "│*" in done.stdout
    assert "pip install 'minigrad[plot]'" in done.stdout.splitlines()[-1]
    for out in ("plot.png", "plot.svg"):  # a file that was asked for is an error
        done = command("plot", "one", "--out", out, folder=tmp_path, path=blocked)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "pip install 'minigrad[plot]'" in done.stderr and not (tmp_path / out).exists()


@needs_matplotlib
def test_the_command_draws_all_runs_of_a_folder_and_prints_a_table(tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "a", 120)
    a_run(tmp_path / "runs" / "b", 60)
    done = command("plot", "runs", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    rows = [line.split()[:2] for line in done.stdout.splitlines()[1:3]]
    assert rows == [["a", "120"], ["b", "60"]]
    assert "drawn in runs/plot.svg" in done.stdout
    assert "tokens per second" in (tmp_path / "runs" / "plot.svg").read_text()


@needs_matplotlib
def test_the_command_draws_what_it_is_asked_for(tmp_path: Path) -> None:
    a_run(tmp_path / "a", 120)
    options = ("--what", "grad_norm, loss", "--smooth", "5", "--log", "--out", "x.svg")
    done = called("plot", "a", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / "x.svg").read_text()
    assert svg.index("gradient norm") < svg.index(">loss<") and "mean of 5" in svg
    assert "learning rate" not in svg


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        pytest.param(["a", "--out", "x.gif"], ".svg", marks=needs_matplotlib),
        (["a", "--what", "foo"], "grad_norm"),
        (["a", "--smooth", "0"], "--smooth"),
        pytest.param(["a", "--out", "gone/x.svg"], "gone/x.svg", marks=needs_matplotlib),
        ([], "DIR"),
        (["a", "--tensorboard", "logs", "--log"], "so --log has no use"),
        (["a", "--tensorboard", "logs", "--smooth", "2"], "--out FILE"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    a_run(tmp_path / "a", 10)
    done = called("plot", *arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert "drawn" not in done.stdout
