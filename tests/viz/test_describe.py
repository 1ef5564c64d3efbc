"""A model as text: the numbers are those of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad import Tensor, functional as F, nn, random
from minigrad.cli.run_folder import save_model
from minigrad.data import CharTokenizer
from minigrad.models import GPT, GPTConfig
from minigrad.viz import describe
from tests.processes import called

ROOT = Path(__file__).parents[2]


def gpt(**changes: Any) -> GPT:
    return GPT(
        GPTConfig.gpt2(
            **{
                "vocab_size": 11,
                "block_size": 8,
                "n_layer": 3,
                "n_head": 2,
                "n_embd": 16,
                **changes,
            }
        )
    )


BLOCKS = {
    "gpt2": nn.TransformerBlock(16, 4),
    "llama": nn.TransformerBlock(
        16, 4, norm="rms", mlp="swiglu", bias=False, rope="half", n_kv_head=2
    ),
    "bert": nn.TransformerBlock(16, 4, norm_first=False, causal=False, qk_norm=True, alibi=True),
}


def row(text: str, name: str) -> str:
    (found,) = [line for line in text.splitlines() if f"─ {name} " in line]
    return found


def test_the_flops_of_gpt_by_formula_are_those_that_a_pass_is_measured_to_take() -> None:
    model = gpt()
    C, T, V, L = 16, 8, 11, 3
    assert describe(model).flops == L * (2 * 12 * C * C + 4 * T * C) + 2 * C * V
    assert describe(model, np.zeros((2, T), int)).flops == 2 * T * describe(model).flops


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_formula_holds_for_every_kind_of_block(kind: str) -> None:
    block, T = BLOCKS[kind], 8
    assert describe(block, Tensor.zeros(1, T, 16)).flops == T * describe(block, context=T).flops


def test_a_window_bounds_what_attention_looks_at() -> None:
    near, far = (nn.MultiHeadAttention(16, 2, window=w) for w in (4, None))
    assert describe(far, context=64).flops - describe(near, context=64).flops == 4 * 60 * 16


def test_parameters_and_bytes_are_those_of_the_model_shared_ones_once() -> None:
    model = gpt()
    found = describe(model)
    assert found.parameters == sum(p.data.size for p in model.parameters())
    assert (
        found.bytes == 4 * found.parameters
        and f"{found.parameters:,} parameters, 40.7 kB of float32" in str(found)
    )
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    tied["c"] = tied["a"]
    text = describe(tied)
    assert text.parameters == 9 + 3 + 3 and text.flops == 3 * 18
    assert "weight 3×3 (= a.weight, shared)" in row(str(text), "b") and "= a, shared" in row(
        str(text), "c"
    )


def test_the_tree_has_every_module_and_equal_layers_once_unless_all_are_wanted() -> None:
    model = gpt()
    full, folded = describe(model).text(full=True), describe(model).text()
    names = [name.rpartition(".")[2] for name, _ in model.named_modules() if name]
    assert [
        line.split("─ ")[1].split()[0]
        for line in full.splitlines()
        if "─ " in line and "(head" not in line
    ] == names
    assert (
        "0 to 2  3 × TransformerBlock(16, 2" in folded
        and folded.count("c_fc") == 1
        and full.count("c_fc") == 3
    )
    assert "head: wte.weight again, shared" in folded and "352" in row(folded, "(head:")
    assert "in_proj_weight 48×16, in_proj_bias 48" in row(folded, "attn")


def test_layers_that_differ_are_not_folded() -> None:
    model = gpt()
    model.h[1].attn.out_proj.bias = None
    text = str(describe(model))
    assert "×  Transf" not in text and text.count("c_fc") == 3


class Odd(nn.Module):
    """A model that multiplies with a matrix of its own and has a buffer."""

    def __init__(self) -> None:
        self.w = nn.Parameter(np.ones((4, 6), np.float32))
        self.register_buffer("mean", Tensor(np.zeros(4, np.float32)))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean) w, in parts."""
        return self.drop(x - self.mean) @ self.w


def test_what_is_not_known_by_formula_is_said_and_measured_with_inputs() -> None:
    model = Odd()
    text = str(describe(model))
    assert (
        "0 + ?" in text
        and "describe(module, inputs) measures it" in text
        and "mean 4 (buffer)" in text
    )
    measured = describe(model, Tensor.ones(5, 4))
    assert (
        measured.flops == 2 * 5 * 4 * 6 and "-> 5×6" in str(measured) and "?" not in str(measured)
    )
    assert measured.parameters == 24 and measured.bytes == 4 * 28
    assert "18 + ?" in str(describe(nn.Sequential(nn.Linear(3, 3), model))).splitlines()[1]


def test_a_layer_that_is_called_twice_works_twice_and_counts_once() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)
    assert describe(model, Tensor.ones(5, 3)).flops == 5 * describe(model).flops == 5 * 2 * 18
    assert describe(model, Tensor.ones(5, 3)).parameters == 12


def test_values_of_another_width_than_keys_are_counted_as_they_are() -> None:
    class Wide(nn.Module):
        def forward(self, q: Tensor, v: Tensor) -> Tensor:
            """q attends to itself."""
            return F.scaled_dot_product_attention(q, q, v)

    found = describe(Wide(), Tensor.ones(2, 7, 4), Tensor.ones(2, 7, 6))
    assert found.flops == 2 * 2 * 7 * 7 * (4 + 6) and "-> 2×7×6" in str(found)


def test_measuring_draws_no_random_numbers() -> None:
    model = gpt(dropout=0.5)
    before = random.default_generator.get_state()
    describe(model, np.zeros((1, 8), int))
    assert random.default_generator.get_state() == before and all(
        m.training for m in model.modules()
    )


def test_frozen_parameters_are_marked_and_counted() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    model[0].requires_grad_(False)
    text = str(describe(model))
    assert (
        "25 parameters, 16 of them trained" in text
        and "weight 3×2 (frozen)" in row(text, "0")
        and "frozen" not in row(text, "1")
    )


def test_looking_leaves_the_model_as_it_was_also_after_an_error() -> None:
    model = Odd()
    model.drop.training = False
    before = [vars(m).keys() - {"training"} for m in model.modules()]
    describe(model, Tensor.ones(2, 4))
    with pytest.raises(Exception, match=r"matmul|broadcast"):
        describe(model, Tensor.ones(2, 5))
    assert [vars(m).keys() - {"training"} for m in model.modules()] == before
    assert [m.training for m in model.modules()] == [True, False] and model.w.grad is None


def test_the_command_shows_a_trained_model(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.from_text("hello world, 12")
    model = gpt(vocab_size=tokenizer.vocab_size)
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run", model, tokenizer, {})
    done = show("run", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{describe(model)}\n"), done.stderr
    assert called("show", "run/model.mgrd", folder=tmp_path).stdout == f"{describe(model)}\n"
    assert (
        called("show", "run", "--full", folder=tmp_path).stdout
        == describe(model).text(full=True) + "\n"
    )
    done = called("show", "elsewhere", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "elsewhere" in done.stderr


def show(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "minigrad", "show", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
