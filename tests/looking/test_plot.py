"""The pictures of runs: what is drawn is what stands in the files."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minigrad.errors import ConfigError
from minigrad.looking import find_runs, plot, read_run
from minigrad.looking.axis import Axis, spelled
from minigrad.looking.panels import smoothed, thinned
from tests.processes import called

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


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


def panels(svg: str) -> dict[str, ET.Element]:
    """The panels of a picture by their titles; the picture must be valid XML."""
    found = [g for g in ET.fromstring(svg).iter(f"{SVG}g") if g.get("class") == "panel"]
    return {
        next(t.text or "" for t in g.iter(f"{SVG}text") if t.get("class") == "heading"): g
        for g in found
    }


def tick_value(label: str) -> float:
    label = label.replace(",", "")
    return float(label[:-1]) * UNITS[label[-1]] if label[-1] in UNITS else float(label)


def scale(panel: ET.Element, which: str, at: str, log: bool = False) -> tuple[float, float]:
    """What the ticks say of an axis: value (or its logarithm) = a + b * pixel."""
    ticks = [t for t in panel.iter(f"{SVG}text") if f"tick-{which}" in (t.get("class") or "")]
    values = [tick_value(t.text or "") for t in ticks]
    b, a = np.polyfit(
        [float(t.get(at) or 0) for t in ticks], np.log10(values) if log else values, 1
    )
    return a + (4 * b if which == "y" else 0), b  # a label's baseline is 4 pixels below its line


def drawn(panel: ET.Element, name: str, log: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of a series, read from its lines by means of the ticks."""
    (ax, bx), (ay, by) = scale(panel, "x", "x"), scale(panel, "y", "y", log)
    series = next(
        g
        for g in panel.iter(f"{SVG}g")
        if (g.get("class") or "").startswith("series") and g.findtext(f"{SVG}title") == name
    )
    points = (
        " ".join(line.get("points") or "" for line in series.iter(f"{SVG}polyline"))
        .replace(",", " ")
        .split()
    )
    xy = np.array(points, np.float64).reshape(-1, 2)
    y = ay + by * xy[:, 1]
    return ax + bx * xy[:, 0], 10**y if log else y


@pytest.mark.parametrize("log", [False, True])
def test_the_numbers_drawn_are_those_of_the_file(tmp_path: Path, log: bool) -> None:
    run = read_run(a_run(tmp_path / "one", 200))
    found = panels(plot([run], log=log).svg())
    assert list(found) == ["loss", "learning rate", "gradient norm", "tokens per second"]
    where = {
        "loss": "loss",
        "val_loss": "loss",
        "lr": "learning rate",
        "grad_norm": "gradient norm",
        "tokens_per_second": "tokens per second",
    }
    for name, title in where.items():
        steps, values = run.column(name)
        x, y = drawn(found[title], f"one: {name}", log)
        np.testing.assert_allclose(x, steps, atol=0.05)
        np.testing.assert_allclose(
            y, values, rtol=2e-3 if log else 0, atol=1e-9 if log else 2e-4 * np.ptp([0, *values])
        )


def test_every_run_is_drawn_in_a_colour_of_its_own_which_the_legend_names(tmp_path: Path) -> None:
    for i in range(11):
        a_run(tmp_path / f"run-{i:02d}", 30, scale=1 + i / 10)
    root = ET.fromstring(plot(find_runs([tmp_path]), ["loss"], smooth=1).svg())
    legend = next(g for g in root.iter(f"{SVG}g") if g.get("class") == "legend")
    looks = [
        (line.get("stroke"), line.get("stroke-dasharray")) for line in legend.iter(f"{SVG}line")
    ]
    lines = [
        (line.get("stroke"), line.get("stroke-dasharray")) for line in root.iter(f"{SVG}polyline")
    ]
    assert len(set(looks)) == 11 and looks == lines
    names = [(t.findtext(f"{SVG}title") or "") for t in legend.iter(f"{SVG}text")]
    assert names == [f"run-{i:02d}" for i in range(11)]


def test_a_noisy_curve_is_thin_under_its_mean_and_validation_has_a_dot_for_each_value(
    tmp_path: Path,
) -> None:
    run = read_run(a_run(tmp_path / "one", 500))
    loss = panels(plot([run], smooth=21).svg())["loss"]
    styles = [
        g.get("class") for g in loss.iter(f"{SVG}g") if (g.get("class") or "").startswith("series")
    ]
    assert styles == ["series thin", "series line", "series points"]
    assert len(list(loss.iter(f"{SVG}circle"))) == 10
    x, y = drawn(loss, "one: loss, mean of 21")
    at = np.argmin(np.abs(x - 250))
    np.testing.assert_allclose(y[at], run.column("loss")[1][239:260].mean(), atol=2e-3)


def test_the_picture_is_one_file_that_is_readable_in_light_and_in_dark(tmp_path: Path) -> None:
    svg = plot([read_run(a_run(tmp_path / "one", 60))]).svg()
    assert "@media (prefers-color-scheme: dark)" in svg and 'class="ground"' in svg
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|@import|url\(", svg)
    width, height = (
        float(v)
        for v in re.search(
            r'viewBox="0 0 (\S+) '
            r'(\S+)"',
            svg,
        ).groups()
    )  # type: ignore[union-attr]
    for number in re.findall(r' (?:x|x1|x2|cx)="(\S+)"', svg):
        assert 0 <= float(number) <= width
    for number in re.findall(r' (?:y|y1|y2|cy)="(\S+)"', svg):
        assert 0 <= float(number) <= height


def test_a_run_of_any_name_gives_valid_xml(tmp_path: Path) -> None:
    name = 'a<b> & "c" \x1b[31m ü 😀 \udcff'
    run = read_run(a_run(tmp_path / "one", 30), name)
    texts = [t.text for t in ET.fromstring(plot([run]).svg()).iter(f"{SVG}title")]
    assert 'a<b> & "c" �[31m ü 😀 �: lr' in texts


def test_a_long_name_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "one", 30), "sweep-" + "x" * 80 + "-lr0.003")
    (label,) = [
        t
        for t in ET.fromstring(plot([run]).svg()).iter(f"{SVG}text")
        if t.find(f"{SVG}title") is not None
    ]
    shown = "".join(label.itertext()).removeprefix(run.name)
    assert (
        shown.startswith("sweep-xx")
        and shown.endswith("xx-lr0.003")
        and len(shown) == 39
        and "…" in shown
    )


def test_a_chart_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    chart = plot([read_run(a_run(tmp_path / "one", 30))])
    assert chart._repr_svg_() == chart.svg()


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "one", 40)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[19] = '{"step": 20, "loss": NaN}'
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    loss = panels(plot([read_run(folder)], ["loss"], smooth=1).svg())["loss"]
    assert [len((p.get("points") or "").split()) for p in loss.iter(f"{SVG}polyline")] == [19, 20]


def test_amounts_are_drawn_from_zero_on_and_a_logarithmic_axis_leaves_out_what_has_no_logarithm(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"step": {s}, "lr": {0.5 if s > 2 else 0.25 * (s - 1)}}}\n' for s in range(1, 9))
    )
    run = read_run(folder)
    even, log = (panels(plot([run], log=log).svg())["learning rate"] for log in (False, True))
    labels = [t.text for t in even.iter(f"{SVG}text") if "tick-y" in (t.get("class") or "")]
    ground = next(
        line
        for line in even.iter(f"{SVG}line")
        if line.get("class") == "axis" and line.get("y1") == line.get("y2")
    )
    assert labels[0] == "0" and drawn(even, "one: lr")[1][0] == pytest.approx(0, abs=1e-3)
    assert float(
        next(iter(even.iter(f"{SVG}polyline"))).get("points", "").split()[0].split(",")[1]
    ) == float(ground.get("y1") or 0)
    np.testing.assert_allclose(drawn(log, "one: lr", log=True)[1], [0.25] + [0.5] * 6, rtol=1e-2)


def test_a_single_record_is_a_dot_and_validation_alone_has_dots(tmp_path: Path) -> None:
    one = panels(plot([read_run(a_run(tmp_path / "one", 1))], ["lr"]).svg())["learning rate"]
    several = panels(plot([read_run(a_run(tmp_path / "several", 150))], ["val_loss"]).svg())[
        "validation loss"
    ]
    assert [len(list(p.iter(f"{SVG}circle"))) for p in (one, several)] == [1, 3]


def test_a_run_without_a_record_stands_in_the_legend_and_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    a_run(tmp_path / "other" / "full", 30)
    runs = [read_run(tmp_path, "empty"), read_run(tmp_path / "other" / "full")]
    assert ">empty<" in plot(runs).svg() and panels(plot(runs).svg())
    with pytest.raises(ConfigError, match="nothing yet"):
        plot(runs[:1])


def test_a_name_that_no_run_has_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "one", 30, accuracy=0.5))
    assert "accuracy" in panels(plot([run], ["accuracy"]).svg())
    with pytest.raises(ConfigError, match=r"perplexity.*\n.*accuracy"):
        plot([run], ["perplexity"])


# --- the parts


@settings(deadline=None)
@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_a_few_round_numbers_on_the_axis_and_their_labels_say_so(
    low: float, width: float
) -> None:
    axis = Axis.around(np.array([low, low + width]), 0, 100)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 12 and all(
        axis.low - 1e-6 * width <= t <= axis.high + 1e-6 * width for t in ticks
    )
    assert np.ptp(np.diff(ticks)) <= 1e-6 * (ticks[1] - ticks[0]) + 1e-9 * max(map(abs, ticks))
    np.testing.assert_allclose(
        [tick_value(label) for label in spelled(ticks)],
        ticks,
        rtol=1e-5,
        atol=1e-9 * max(map(abs, ticks)),
    )


@settings(deadline=None)
@given(low=st.floats(1e-8, 1e6), factor=st.floats(1.01, 1e9))
def test_a_logarithmic_axis_has_ticks_too(low: float, factor: float) -> None:
    axis = Axis.around(np.array([low, low * factor]), 0, 100, log=True)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12 and len(set(spelled(ticks))) == len(ticks)
    pixels = axis.place(np.array(ticks))
    assert (np.diff(pixels) > 0).all() and pixels[0] >= -0.1 and pixels[-1] <= 100.1


def test_labels_are_short_and_of_one_kind_on_an_axis() -> None:
    assert spelled([0, 500, 1500]) == ["0", "500", "1,500"]
    assert spelled([0, 5000, 10000, 25000]) == ["0", "5k", "10k", "25k"]
    assert spelled([0.5, 1, 1.5]) == ["0.5", "1", "1.5"] and spelled([0, 5e-4, 1e-3]) == [
        "0",
        "5e-4",
        "1e-3",
    ]
    assert spelled([2e6, 2.5e6]) == ["2M", "2.5M"]


def test_the_axis_of_amounts_begins_at_zero() -> None:
    assert (
        Axis.around(np.array([5.0, 6.0]), 0, 100, zero=True).low
        == 0
        < Axis.around(np.array([5.0, 6.0]), 0, 100).low
    )


def test_numbers_that_are_all_alike_have_an_axis() -> None:
    for value in (0.0, 3.0, -2e-9):
        axis = Axis.around(np.array([value, value]), 0, 100)
        assert 0 < float(axis.place(value)) < 100 and axis.ticks()


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(1, 30))
def test_smoothing_is_the_mean_of_the_neighbours(values: list[float], window: int) -> None:
    y, half = np.array(values), window // 2
    wanted = [y[i - min(i, half) : i + min(i, half) + 1].mean() for i in range(len(y))]
    np.testing.assert_allclose(smoothed(y, window), wanted, atol=1e-9)


def test_a_long_curve_is_drawn_with_fewer_points_and_keeps_its_peaks_and_ends() -> None:
    x, y = np.arange(100_000), np.random.default_rng(0).normal(size=100_000)
    y[[1234, 77_777]] = 50, -50
    y[55_555] = np.nan
    few, values = thinned(x, y)
    assert len(few) < 1500 and {0, 1234, 55_555, 77_777, 99_999} <= set(few.tolist())
    assert (np.diff(few) > 0).all()
    np.testing.assert_array_equal(values, y[few])


# --- PNG


def test_a_png_is_drawn_by_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot([read_run(a_run(tmp_path / "one", 60))]).save(tmp_path / "plot.png")
    content = (tmp_path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20], "big") > 800


def test_without_matplotlib_a_png_names_the_line_that_installs_it_and_svg_works(
    tmp_path: Path,
) -> None:
    a_run(tmp_path / "one", 60)
    (tmp_path / "blocked" / "matplotlib").mkdir(parents=True)
    (tmp_path / "blocked" / "matplotlib" / "__init__.py").write_text(
        "raise ImportError('not here')"
    )
    done = command("plot", "one", "--out", "plot.png", folder=tmp_path, path=tmp_path / "blocked")
    assert (
        done.returncode == 2
        and "pip install 'minigrad[plot]'" in done.stderr
        and done.stderr.count("\n") == 1
    )
    assert (
        command(
            "plot", "one", "--out", "plot.svg", folder=tmp_path, path=tmp_path / "blocked"
        ).returncode
        == 0
    )


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


def test_the_command_draws_all_runs_of_a_folder_and_prints_a_table(tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "a", 120)
    a_run(tmp_path / "runs" / "b", 60)
    done = command("plot", "runs", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:3]] == [
        ["a", "120"],
        ["b", "60"],
    ]
    assert "drawn in runs/plot.svg" in done.stdout
    assert len(panels((tmp_path / "runs" / "plot.svg").read_text())) == 4


def test_the_command_draws_what_it_is_told(tmp_path: Path) -> None:
    a_run(tmp_path / "a", 120)
    done = command(
        "plot",
        "a",
        "--what",
        "grad_norm, loss",
        "--smooth",
        "5",
        "--log",
        "--out",
        "x.svg",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = panels((tmp_path / "x.svg").read_text())
    assert (
        list(found) == ["gradient norm", "loss"] and "mean of 5" in (tmp_path / "x.svg").read_text()
    )
    assert drawn(found["loss"], "a: val_loss", log=True)[0].round().tolist() == [50, 100]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["a", "--out", "x.gif"], ".svg"),
        (["a", "--what", "foo"], "grad_norm"),
        (["a", "--smooth", "0"], "--smooth"),
        (["a", "--out", "gone/x.svg"], "gone/x.svg"),
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
