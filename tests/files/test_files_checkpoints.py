"""Checkpoints and their folder: a state tree comes back as it was, the good ones stay, and nobody
writes beside another.
"""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forging import entry, forge, header
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from minigrad import Tensor, dtypes, nn
from minigrad.errors import ConfigError, DTypeError, FormatError, LockedError, SaveError
from minigrad.files import CheckpointFolder, load, load_checkpoint, peek, save, save_checkpoint
from minigrad.optim import AdamW

INT64 = st.integers(-(2**63), 2**63 - 1)
KEYS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc",), min_codepoint=32, max_codepoint=127),
    max_size=4,
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.bool_, np.uint64]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)
LEAVES = (
    st.none()
    | st.booleans()
    | INT64
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=20)
    | ARRAYS
)
TREES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=3), max_leaves=12
)


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (
            b.dtype,
            b.shape,
            b.tobytes(),
        )
    if isinstance(a, dict):
        return sorted(a) == sorted(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_a_state_tree_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "a.mgrd"
    save_checkpoint(path, {"w": np.ones(2)}, state)
    assert same(load_checkpoint(path).state, state)
    content = path.read_bytes()
    save_checkpoint(path, {"w": np.ones(2)}, dict(reversed(state.items())))
    assert path.read_bytes() == content


def test_weights_and_state_are_apart_and_ties_hold_across_them(tmp_path):
    w = np.arange(4.0)
    digest = save_checkpoint(
        tmp_path / "a.mgrd",
        {"w": w, "head": w},
        {"ema": {"w": w}, "moments": [w * 2]},
        meta={"n": 1},
    )
    found = load_checkpoint(tmp_path / "a.mgrd", sha256=digest)
    assert list(found.weights) == ["head", "w"] and found.meta == {"n": 1}
    assert found.weights["w"] is found.weights["head"] is found.state["ema"]["w"]
    assert peek(tmp_path / "a.mgrd").names == ["head", "state/ema/w", "state/moments/0", "w"]
    assert "2 weights" in repr(found)


def test_names_with_slashes_cannot_be_confused(tmp_path):
    state = {
        "a": {"b": np.zeros(1), "b/c": np.ones(1)},
        "a/b": {"c": np.full(1, 2)},
        "a%2Fb": [np.full(1, 3)],
    }
    save_checkpoint(tmp_path / "a.mgrd", {}, state)
    assert same(load_checkpoint(tmp_path / "a.mgrd").state, state)


def test_numpy_scalars_and_tuples_become_plain_values(tmp_path):
    save_checkpoint(
        tmp_path / "a.mgrd", {}, {"betas": (0.9, np.float32(0.5)), "n": np.int64(3), "on": np.True_}
    )
    assert same(
        load_checkpoint(tmp_path / "a.mgrd").state, {"betas": [0.9, 0.5], "n": 3, "on": True}
    )


def cycle():
    tree = {}
    tree["again"] = tree
    return tree


@pytest.mark.parametrize(
    ("weights", "state", "error"),
    [
        ({"state/x": np.ones(1)}, {}, FormatError),
        ({}, {"x": object()}, FormatError),
        ({}, {1.5: 2}, FormatError),
        ({}, {1: 2, "1": 3}, FormatError),
        ({}, {"$array": "w"}, FormatError),
        ({}, {"x": 2**63}, FormatError),
        ({}, cycle(), FormatError),
        ({}, {"x": np.array([None])}, DTypeError),
        ({}, {"a\0": np.ones(1)}, FormatError),
        ({}, {"x": {1, 2}}, FormatError),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_refused_before_the_disk_is_touched(
    tmp_path, weights, state, error
):
    with pytest.raises(error):
        save_checkpoint(tmp_path / "a.mgrd", weights, state)
    assert os.listdir(tmp_path) == []


def test_weights_and_checkpoints_are_not_mistaken_for_each_other(tmp_path):
    save(tmp_path / "w.mgrd", {})
    save_checkpoint(tmp_path / "c.mgrd", {}, {})
    for reader, name in [(load, "c.mgrd"), (load_checkpoint, "w.mgrd")]:
        with pytest.raises(FormatError) as caught:
            reader(tmp_path / name)
        assert caught.value.code == "kind"


A = b"\0\0\0\0\0\0\x80\x3f"


def checkpoint(state, *names):
    tensors = [entry(name, "f32", [2], A, offset=128 * i) for i, name in enumerate(names)]
    tensors = [[*t[:3], 64 * 2 * i, *t[4:]] for i, t in enumerate(tensors)]
    return forge(
        header(kind="checkpoint", state=state, tensors=tensors, aliases={}), [A] * len(names)
    )


def nested(levels):
    return {"x": nested(levels - 1)} if levels else 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (forge(header(kind="checkpoint")), "header-key-missing"),
        (forge(header(kind="checkpoint", state=[])), "field-type"),
        (checkpoint({"m": {"$array": "state/m"}}), "state-arrays"),
        (checkpoint({}, "state/m"), "state-arrays"),
        (checkpoint({"m": {"$array": "state/n"}}, "state/n"), "state-reference"),
        (checkpoint({"m": {"$array": "w"}}, "w"), "state-reference"),
        (checkpoint({"m": {"$array": 1}}, "state/m"), "state-reference"),
        (checkpoint({"m": {"$array": "state/m", "x": 1}}, "state/m"), "state-reference"),
        (checkpoint({"$array": "state/"}, "state/"), "state-reference"),
        (checkpoint({"n": 2**63}), "int64"),
        (checkpoint(nested(33)), "depth"),
    ],
)
def test_a_malformed_state_is_refused(tmp_path, content, code):
    (tmp_path / "a.mgrd").write_bytes(content)
    with pytest.raises(FormatError) as caught:
        load_checkpoint(tmp_path / "a.mgrd")
    assert caught.value.code == code


def test_every_bit_flip_and_every_cut_of_a_small_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.mgrd"
    moments = {"m": [np.ones(3, np.float32)], "v": np.zeros(2)}
    save_checkpoint(
        path, {"w": np.arange(3.0)}, {"optimizer": moments, "rng": b"\x01" * 16, "step": 7}
    )
    good = path.read_bytes()
    for i in range(len(good)):
        faulty = [good[:i]] + [
            good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1 :] for bit in range(8)
        ]
        for content in faulty:
            path.write_bytes(content)
            with pytest.raises(FormatError):
                load_checkpoint(path)


# ---- the folder
# --------------------------------------------------------------------------------------------------
# - -


def fill(folder, steps, metrics=None):
    for i, step in enumerate(steps):
        folder.save(
            step,
            {"w": np.full(3, float(step))},
            {"step": step},
            metric=metrics[i] if metrics else None,
        )


def kept(folder):
    return [step for step, _ in folder.steps()]


def test_the_last_ones_and_the_best_stay(tmp_path):
    with CheckpointFolder(tmp_path / "run", keep=2) as folder:
        fill(folder, range(0, 60, 10), [5.0, 3.0, 4.0, float("nan"), 3.5, 3.7])
        assert kept(folder) == [10, 40, 50]
        assert folder.best().name == "step-00000010.mgrd"
        found = folder.load_latest()
        assert (found.state["step"], found.meta["metric"], found.path) == (
            50,
            3.7,
            str(folder.steps()[-1][1]),
        )


def test_without_metrics_the_last_ones_stay(tmp_path):
    with CheckpointFolder(tmp_path, keep=3) as folder:
        fill(folder, range(6))
        assert kept(folder) == [3, 4, 5] and folder.best() is None


def test_a_new_folder_has_no_latest(tmp_path):
    folder = CheckpointFolder(tmp_path / "nothing")
    assert folder.load_latest() is None and folder.steps() == [] and folder.best() is None
    assert not (tmp_path / "nothing").exists()


def test_the_latest_is_the_highest_step_that_is_whole(tmp_path):
    with CheckpointFolder(tmp_path, keep=4) as folder:
        fill(folder, [1, 2, 3, 4])
        damaged = folder.steps()[3][1]
        damaged.write_bytes(damaged.read_bytes()[:-1])
        payload = folder.steps()[2][1]
        content = bytearray(payload.read_bytes())
        content[-60] ^= 1
        payload.write_bytes(content)
        assert folder.load_latest().state["step"] == 2
        assert [error.code for error in folder.damaged] == ["cut", "sha256"]
        fill(folder, [5])
        assert kept(folder) == [1, 2, 3, 4, 5]  # the one that is cut is not counted among the last


def damage(path):
    """One bit of the payload: the header stays good."""
    content = bytearray(path.read_bytes())
    content[-60] ^= 1
    path.write_bytes(content)


def saves_damaged(monkeypatch, steps):
    """From now on the checkpoints of these steps are damaged as soon as they are written."""

    def write(path, *args, **settings):
        save_checkpoint(path, *args, **settings)
        if int(path.stem.removeprefix("step-")) in steps:
            damage(path)

    monkeypatch.setattr("minigrad.files.folder.save_checkpoint", write)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_damaged_payloads_do_not_push_the_last_whole_checkpoint_out(tmp_path, monkeypatch, keep):
    saves_damaged(monkeypatch, {4, 5, 6, 7, 8})
    with CheckpointFolder(tmp_path, keep=keep) as folder:
        fill(folder, range(1, 9))
        assert folder.load_latest().state["step"] == 3
        assert [error.code for error in folder.damaged] == ["sha256"] * keep
        assert kept(folder) == [3, *range(9 - keep, 9)]
        fill(folder, range(9, 9 + keep))  # whole ones again: the old one may go
        assert kept(folder) == list(range(9, 9 + keep))


def test_a_checkpoint_that_was_whole_and_was_damaged_since_is_not_counted_on(tmp_path, monkeypatch):
    saves_damaged(monkeypatch, {4})
    with CheckpointFolder(tmp_path, keep=2) as folder:
        fill(folder, [1, 2, 3])
        assert kept(folder) == [2, 3]
        damage(folder.steps()[-1][1])  # the one that was read when 1 went
        fill(folder, [4])
        assert kept(folder) == [2, 3, 4] and folder.load_latest().state["step"] == 2


def test_of_the_checkpoints_that_stay_one_is_read_again_for_every_keep_that_are_written(
    tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr("minigrad.files.folder.verify", lambda path: seen.append(path.name))
    with CheckpointFolder(tmp_path, keep=3) as folder:
        fill(folder, range(30))
    assert len(seen) == len(set(seen)) == 9


def test_the_one_just_written_stays_even_if_its_step_is_not_the_highest(tmp_path):
    with CheckpointFolder(tmp_path, keep=1) as folder:
        fill(folder, [100, 50])
        assert kept(folder) == [50, 100]


def test_other_files_of_the_folder_are_left_alone(tmp_path):
    for name in ["step-1.mgrd", "step-00000001.mgrd.bak", "weights.mgrd", "step-0000000x.mgrd"]:
        (tmp_path / name).write_text("mine")
    with CheckpointFolder(tmp_path, keep=1) as folder:
        fill(folder, [1, 2, 3])
        assert kept(folder) == [3]
    assert len(os.listdir(tmp_path)) == 6


HOLD = """
import sys, time
from minigrad.files import CheckpointFolder
with CheckpointFolder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_trainer_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError) as caught, CheckpointFolder(tmp_path):
            pass
        assert f"pid {other.pid}," in caught.value.got
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with CheckpointFolder(tmp_path) as folder:
        fill(folder, [1])


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path):
    with CheckpointFolder(tmp_path), pytest.raises(LockedError), CheckpointFolder(tmp_path):
        pass


def test_saving_needs_the_lock(tmp_path):
    with pytest.raises(LockedError):
        fill(CheckpointFolder(tmp_path), [1])


def test_who_holds_the_lock_sweeps_every_leftover_whatever_its_number(tmp_path):
    for number in [
        os.getpid(),
        os.getppid(),
        0,
        1,
        2**31,
        10**20,
    ]:  # a number can have been given to another process since
        (tmp_path / f".minigrad-{number}-00ff.tmp").write_bytes(b"half")
    (tmp_path / ".minigrad-99-ab.tmp").mkdir()
    for _ in range(2):
        with CheckpointFolder(tmp_path):
            assert sorted(os.listdir(tmp_path)) == [".minigrad-99-ab.tmp", "lock"]


def test_an_error_while_locking_leaves_no_lock(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available"))
        )
        with pytest.raises(SaveError, match="No locks available"):
            CheckpointFolder(tmp_path).__enter__()
    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(SaveError):
            CheckpointFolder(tmp_path).__enter__()
        patch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            CheckpointFolder(tmp_path).__enter__()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with CheckpointFolder(tmp_path) as folder:
            fill(folder, [1])
    with CheckpointFolder(tmp_path):
        pass


def test_a_metric_that_is_no_finite_number_is_not_the_best(tmp_path):
    with CheckpointFolder(tmp_path, keep=1) as folder:
        for step, metric in enumerate([3.0, float("-inf"), float("nan"), 4.0]):
            folder.save(step, {"w": np.ones(1)}, {"step": step}, metric=metric)
        assert folder.best().name == "step-00000000.mgrd" and kept(folder) == [0, 3]
        with pytest.raises(ConfigError, match="metric"):
            folder.save(9, {}, {}, metric="low")


def test_a_background_save_writes_what_the_arrays_held_when_it_was_called(tmp_path):
    w = np.zeros(1_000_000)
    with CheckpointFolder(tmp_path, background=True) as folder:
        for step in range(3):
            folder.save(step, {"w": w, "tied": w}, {"m": [w]})
            w += 1
        found = folder.load_latest()
        assert set(found.weights["w"]) == {2.0} and found.weights["tied"] is found.state["m"][0]
        fill(folder, [9])
    assert kept(folder) == [1, 2, 9]


def test_a_failed_background_save_surfaces_at_the_next_call(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with CheckpointFolder(tmp_path, background=True) as folder:
        fill(folder, [1])
        folder._wait()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            fill(folder, [2])
            folder._wait()
        with pytest.raises(SaveError) as caught:
            folder.check()
        assert caught.value.errno == 28
        folder.check()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            fill(folder, [3])
            folder._wait()
        with pytest.raises(SaveError):
            fill(folder, [4])
        fill(folder, [5])
    assert kept(folder) == [1, 5]


def test_leaving_the_folder_waits_for_the_background_save_and_raises_its_failure(
    tmp_path, monkeypatch
):
    def slow_and_full(*_):
        time.sleep(0.05)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", slow_and_full)
    with pytest.raises(SaveError), CheckpointFolder(tmp_path, background=True) as folder:
        fill(folder, [1])
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["lock"]
    with CheckpointFolder(tmp_path) as folder:
        fill(folder, [2])


def test_a_failed_save_removes_no_good_checkpoint(tmp_path, monkeypatch):
    with CheckpointFolder(tmp_path, keep=1) as folder:
        fill(folder, [1])
        monkeypatch.setattr(
            os, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error"))
        )
        with pytest.raises(SaveError):
            fill(folder, [2])
        assert folder.load_latest().state["step"] == 1


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, None])
def test_keeping_nothing_is_refused(tmp_path, keep):
    with pytest.raises(ConfigError):
        CheckpointFolder(tmp_path, keep=keep)


def test_bfloat16_moments_are_kept(tmp_path):
    m = np.arange(4, dtype=np.uint16).view(dtypes.bfloat16)
    save_checkpoint(tmp_path / "a.mgrd", {}, {"m": m})
    assert same(load_checkpoint(tmp_path / "a.mgrd").state, {"m": m})


def test_an_optimizers_state_goes_through_a_checkpoint_as_it_is(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = AdamW(model.parameters(), lr=0.1)
    model(Tensor(np.ones((1, 3), np.float32))).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path / "a.mgrd", model.state_dict(), state)
    found = load_checkpoint(tmp_path / "a.mgrd")
    again = AdamW(model.parameters(), lr=0.5)
    again.load_state_dict(found.state["optimizer"])
    assert again.lr == 0.1
    for key, moments in again.state_dict()["state"].items():
        for name, value in moments.items():
            assert np.array_equal(value, optimizer.state_dict()["state"][key][name])
