"""The file commands, run as a user's arguments run them."""

import contextlib
import io
import json
import os
import resource
import struct

import numpy as np
import pytest

from minigrad import dtypes
from minigrad.cli.file_commands import COMMANDS
from minigrad.cli.options import Parser
from minigrad.errors import ConfigError, FormatError, MissingFileError
from minigrad.files import save, save_checkpoint
from minigrad.files.safetensors import save_safetensors


def run(name, *argv):
    """The exit code and the lines of a command."""
    (command,) = [command for command in COMMANDS if command.name == name]
    parser = Parser()
    command.add_to(parser.add_subparsers())
    found = vars(parser.parse_args([name, *map(str, argv)]))
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = command.run(command.complete(found))
    return code, output.getvalue().splitlines()


W = np.array([[1.0, -2.0], [np.nan, 4.0]], np.float32)


def test_inspect_shows_names_dtypes_shapes_bytes_and_meta(tmp_path):
    digest = save(
        tmp_path / "a.mgrd",
        {"w": W, "tied": W, "x": np.float64(3)},
        meta={"lr": 0.1, "text": "a\x1b[2J"},
    )
    code, lines = run("inspect", tmp_path / "a.mgrd")
    assert code == 0
    assert lines[:3] == [
        "name  dtype  shape   bytes",
        "tied  f32    2×2        16",
        "x     f64    scalar      8",
    ]
    assert (
        "w is tied to tied" in lines
        and "meta.lr: 0.1" in lines
        and any(line.startswith(f"SHA-256 {digest} (as") for line in lines)
    )
    assert "\x1b" not in "".join(lines)


def test_inspect_shows_statistics_that_leave_nans_out(tmp_path):
    bf16 = dtypes.cast(np.array([0.5, 1.5], np.float32), dtypes.bfloat16)
    save(
        tmp_path / "a.mgrd",
        {"w": W, "bf": bf16, "none": np.zeros((0, 3)), "nan": W[1:, :1], "on": np.array([True])},
    )
    _, lines = run("inspect", tmp_path / "a.mgrd", "--stats")
    found = {line.split()[0]: line.split()[4:] for line in lines[1:6]}
    assert found == {
        "w": ["-2", "4", "1", "1"],
        "bf": ["0.5", "1.5", "1", "0"],
        "none": ["-", "-", "-", "0"],
        "nan": ["-", "-", "-", "1"],
        "on": ["1", "1", "1", "0"],
    }


def test_inspect_shows_the_state_of_a_checkpoint(tmp_path):
    save_checkpoint(
        tmp_path / "a.mgrd", {"w": W}, {"step": 3, "rng": b"1234", "optimizer": {"m": W}}
    )
    lines = run("inspect", tmp_path / "a.mgrd", "--stats")[1]
    assert "state.step: 3" in lines and 'state.rng: "4 bytes"' in lines
    assert any(
        line.startswith("state/optimizer/m  f32") or "state/optimizer/m" in line for line in lines
    )


def test_verify_judges_a_file_or_a_folder(tmp_path):
    save(tmp_path / "good.mgrd", {"w": W})
    save_checkpoint(tmp_path / "run.mgrd", {"w": W}, {})
    save_safetensors(tmp_path / "st.safetensors", {"w": W})
    assert run("verify", tmp_path)[0] == 0
    content = bytearray((tmp_path / "good.mgrd").read_bytes())
    content[-50] ^= 1
    (tmp_path / "bad.mgrd").write_bytes(content)
    code, lines = run("verify", tmp_path)
    assert code == 1 and [line.split()[0] for line in lines] == ["BAD", "good", "good", "good"]
    assert lines[0].endswith("[sha256]") and lines[0].count("bad.mgrd") == 1
    with pytest.raises(MissingFileError):  # exit code 2, as for every wrong argument
        run("verify", tmp_path / "nothing.mgrd")


def test_verify_of_a_folder_without_files_is_an_error(tmp_path):
    with pytest.raises(ConfigError):
        run("verify", tmp_path)


def test_what_cannot_be_checked_is_an_error_and_not_bad(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    (tmp_path / "a.txt").write_text("a text")
    code, lines = run("verify", tmp_path)
    assert code == 0 and len(lines) == 1 and "a.gguf  (only its header: " in lines[0]
    for command in ("verify", "inspect"):
        with pytest.raises(ConfigError, match=r"the ending '\.txt'") as caught:
            run(command, tmp_path / "a.txt")
        assert caught.value.hint == "use one of .mgrd, .safetensors, .npz, .gguf"
    with pytest.raises(ConfigError, match=r"a GGUF file is not written, converted"):
        run("diff", tmp_path / "a.gguf", tmp_path / "a.gguf")


def test_diff_says_what_differs(tmp_path):
    a, b = tmp_path / "a.mgrd", tmp_path / "b.safetensors"
    save(a, {"w": W, "x": np.zeros(3), "only": W, "s": np.ones(2)}, meta={"lr": "0.1"})
    assert run("diff", a, a) == (0, ["no difference: 4 tensors, equal to the bit"])
    save_safetensors(
        b, {"w": W, "x": np.array([0, 0.5, -0.0]), "other": W, "s": np.ones(2, np.float32)}
    )
    code, lines = run("diff", a, b)
    assert code == 1 and lines == [
        f"only in {a}: only",
        f"only in {b}: other",
        "s: f64[2] against f32[2]",
        "x: 2 of 3 elements differ, by 0.5 at most",
        'meta.lr: "0.1" against (not there)',
    ]


def test_convert_says_what_it_wrote_and_what_was_lost(tmp_path):
    save(tmp_path / "a.mgrd", {"w": W}, meta={"lr": 0.1})
    assert run("convert", tmp_path / "a.mgrd", tmp_path / "b.safetensors")[0] == 0
    assert "no room for the meta" in run("convert", tmp_path / "a.mgrd", tmp_path / "b.npz")[1][0]
    assert run("diff", tmp_path / "a.mgrd", tmp_path / "b.npz")[1] == [
        "meta.lr: 0.1 against (not there)"
    ]
    with pytest.raises(MissingFileError):
        run("convert", tmp_path / "c.mgrd", tmp_path / "d.npz")


def test_convert_replaces_a_file_only_if_asked(tmp_path):
    save(tmp_path / "a.mgrd", {"w": W})
    (tmp_path / "b.npz").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="exists already") as caught:
        run("convert", tmp_path / "a.mgrd", tmp_path / "b.npz")
    assert "--overwrite" in caught.value.hint
    assert (tmp_path / "b.npz").read_bytes() == b"precious"
    assert run("convert", tmp_path / "a.mgrd", tmp_path / "b.npz", "--overwrite")[0] == 0
    assert run("diff", tmp_path / "a.mgrd", tmp_path / "b.npz")[0] == 0


def test_a_checkpoint_is_converted_to_its_weights(tmp_path):
    save_checkpoint(tmp_path / "a.mgrd", {"w": W}, {"m": W + 1})
    run("convert", tmp_path / "a.mgrd", tmp_path / "b.mgrd")
    assert run("diff", tmp_path / "a.mgrd", tmp_path / "b.mgrd") == (
        0,
        ["no difference: 1 tensors, equal to the bit"],
    )


def test_diff_compares_long_meta_to_its_end(tmp_path):
    for name, last, loss in [("a", "z", 1.0), ("b", "Z", 1)]:
        save(
            tmp_path / f"{name}.mgrd",
            {"w": W},
            meta={
                "text": "x" * 100 + last,
                "deep": {"list": ["y" * 80, {"loss": loss}]},
                "nan": float("nan"),
            },
        )
    code, lines = run("diff", tmp_path / "a.mgrd", tmp_path / "b.mgrd")
    assert code == 1 and len(lines) == 2
    assert (
        lines[0] == "meta.deep.list[1].loss: 1.0 against 1"
        and lines[1].startswith("meta.text: ")
        and lines[1].endswith("(further on)")
    )


def test_diff_compares_the_state_and_the_ties_of_checkpoints(tmp_path):
    m = np.zeros(2)
    save_checkpoint(tmp_path / "a.mgrd", {"w": W}, {"m": m, "n": m, "step": 1, "rng": b"\0"})
    save_checkpoint(
        tmp_path / "b.mgrd", {"w": W}, {"m": m + 1, "n": m.copy(), "step": 2, "rng": b"\1"}
    )
    code, lines = run("diff", tmp_path / "a.mgrd", tmp_path / "b.mgrd")
    assert code == 1 and lines[0] == "state/m: 2 of 2 elements differ, by 1 at most"
    assert lines[1].startswith("tied only in ") and lines[1].endswith("a.mgrd: state/n to state/m")
    assert lines[2:] == [
        'state.rng: "1 bytes" against "1 bytes" (further on)',
        "state.step: 1 against 2",
    ]
    save(tmp_path / "c.mgrd", {"w": W})
    assert run("diff", tmp_path / "a.mgrd", tmp_path / "c.mgrd")[1] == [
        "no difference: 1 tensors, equal to the bit"
    ]  # of weights


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (np.array([2**53]), np.array([2**53 + 1]), "1"),
        (np.array([-(2**63), 0]), np.array([2**63 - 1, 0]), f"{2**64 - 1:,}"),
        (np.array([0, 3], np.uint8), np.array([255, 3], np.uint8), "255"),
        (np.array([0.0]), np.array([-0.0]), "0"),
    ],
)
def test_diff_counts_integers_exactly(tmp_path, a, b, distance):
    save(tmp_path / "a.mgrd", {"w": a})
    save(tmp_path / "b.mgrd", {"w": b})
    code, lines = run("diff", tmp_path / "a.mgrd", tmp_path / "b.mgrd")
    assert code == 1 and lines == [f"w: 1 of {a.size} elements differ, by {distance} at most"]


def test_a_file_larger_than_the_memory_is_one_error_line(tmp_path, request):
    path = tmp_path / "big.safetensors"
    raw = json.dumps({"x": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(path, 8 + len(raw) + 2**40)
    assert run("inspect", path)[0] == 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_AS, before))
    resource.setrlimit(
        resource.RLIMIT_AS, (2**38, before[1])
    )  # some systems promise any amount of memory
    for command in [
        ("inspect", path, "--stats"),
        ("convert", path, tmp_path / "b.mgrd"),
        ("diff", path, path),
    ]:
        with pytest.raises(FormatError, match="memory") as caught:
            run(*command)
        assert caught.value.code == "memory"
    code, lines = run("verify", path)
    assert code == 1 and "[memory]" in lines[0] and len(lines) == 1
