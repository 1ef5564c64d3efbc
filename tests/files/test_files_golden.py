"""Files of every released version of the format, kept for ever: they load, and are written to the
same bytes again.
"""

from pathlib import Path

import numpy as np

from minigrad import dtypes
from minigrad.files import layout, load, load_checkpoint, save, save_checkpoint

DATA = Path(__file__).parent.parent / "data"


def content():
    """What the golden files hold."""
    arrays = {
        f"dtype.{name}": np.arange(6).reshape(2, 3).astype(d)
        for name, d in layout.DTYPES.items()
        if name != "bf16"
    }
    arrays["dtype.bf16"] = dtypes.cast(np.array([[0.0, 1.0, -2.5]], np.float32), dtypes.bfloat16)
    arrays["wte.weight"] = arrays["lm_head.weight"] = np.linspace(
        -1, 1, 20, dtype=np.float32
    ).reshape(5, 4)
    arrays |= {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 7), np.float32),
        "naïve.ключ": np.ones(1, np.uint8),
    }
    arrays["special"] = np.array([np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    meta = {
        "text": "so ☃",
        "list": [1, -1, None, True, 0.1, {"deep": []}],
        "low": -(2**63),
        "high": 2**63 - 1,
    }
    return arrays, meta


def test_the_golden_file_of_version_1_0_loads():
    loaded = load(
        DATA / "mgrd-1.0-weights.mgrd",
        sha256="7e31c01864fb7b5fd1bf5f2d585f42e2bf6b616f70534443556f012fdcb3277f",
    )
    arrays, meta = content()
    assert loaded.meta == meta and list(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()
    assert loaded["wte.weight"] is loaded["lm_head.weight"]


def test_the_same_content_is_written_to_the_bytes_of_the_golden_file(tmp_path):
    arrays, meta = content()
    save(tmp_path / "a.mgrd", arrays, meta=meta)
    assert (tmp_path / "a.mgrd").read_bytes() == (DATA / "mgrd-1.0-weights.mgrd").read_bytes()


def training_state():
    """What the golden checkpoint holds beside the weights."""
    moments = {"wte.weight": np.full((5, 4), 0.25, np.float32)}
    optimizer = {"kind": "AdamW", "step": 7, "betas": [0.9, 0.95], "exp_avg": moments}
    return {
        "optimizer": optimizer,
        "rng": b"\x00\xff" * 8,
        "loader": {"epoch": 1, "seed": np.array([7, 2**63], np.uint64)},
        "best": None,
    }


def test_the_golden_checkpoint_of_version_1_0_loads_and_is_written_to_the_same_bytes(tmp_path):
    found = load_checkpoint(DATA / "mgrd-1.0-checkpoint.mgrd")
    state = training_state()
    assert found.meta == content()[1] and list(found.weights) == sorted(content()[0])
    assert (
        found.state["optimizer"]["exp_avg"]["wte.weight"].tolist()
        == state["optimizer"]["exp_avg"]["wte.weight"].tolist()
    )
    assert (
        found.state["loader"]["seed"].tolist() == [7, 2**63] and found.state["rng"] == state["rng"]
    )
    save_checkpoint(tmp_path / "a.mgrd", content()[0], state, meta=content()[1])
    assert (tmp_path / "a.mgrd").read_bytes() == (DATA / "mgrd-1.0-checkpoint.mgrd").read_bytes()
