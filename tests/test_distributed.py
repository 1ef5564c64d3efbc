"""Sums over parts in one process: what they are, and which parts there can be."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

import minigrad
from minigrad import Tensor, distributed, nn
from minigrad.errors import ConfigError
from minigrad.files import CheckpointFolder
from minigrad.ops.parallel import find_blas
from minigrad.random import default_generator
from tests.ranks import Normalized, make_trainer, sha256, tree

ROOT = Path(__file__).parents[1]


class One(nn.Module):
    """A single weight and one that no loss reads."""

    def __init__(self, n: int = 1) -> None:
        self.weight = nn.Parameter(np.zeros(n, np.float32))
        self.unused = nn.Parameter(np.zeros(3, np.float32))


def test_a_process_that_was_started_alone_is_rank_0_of_1_and_does_not_import_mpi4py() -> None:
    program = (
        "import sys; from minigrad import distributed as d; from minigrad.train import Trainer\n"
        "d.barrier(); d.check_same('x', {'a': 1})\n"
        "found = d.rank(), d.size(), d.is_first(), d.broadcast(5), d.largest(3)\n"
        "assert found == (0, 1, True, 5, 3)\n"
        "assert 'mpi4py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    model = One()
    model.weight.grad = Tensor(np.ones(1, np.float32))
    assert distributed.sum_gradients(model) == 0.0 and model.weight.grad.numpy() == 1


@given(st.integers(1, 17), st.integers(0, 2**32))
def test_parts_are_added_in_one_binary_tree(parts: int, seed: int) -> None:
    leaves = np.random.default_rng(seed).standard_normal((parts, 5)).astype(np.float32)
    model, order = One(5), list[int]()

    def part(i: int) -> float:
        assert model.weight.grad is None
        order.append(i)
        (model.weight * Tensor(leaves[i])).sum().backward()
        return float(leaves[i, 0])

    loss = distributed.sum_gradients(model, part, parts=parts)
    assert model.weight.grad is not None and model.unused.grad is None
    np.testing.assert_array_equal(model.weight.grad.numpy(), tree(list(leaves)))
    assert loss == tree(list(leaves[:, 0].astype(np.float64))) and order == list(range(parts))


def test_gradients_that_share_memory_are_added_once() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = (nn.Parameter(np.ones(3, np.float32)) for _ in range(2))

    model = Two()

    def part(i: int) -> Tensor:
        loss = (model.a + model.b).sum()
        loss.backward()
        return loss

    assert distributed.sum_gradients(model, part, parts=4) == 24.0
    for p in model.parameters():
        np.testing.assert_array_equal(p.grad.numpy(), np.full(3, 4, np.float32))


def test_random_numbers_of_a_part_depend_on_the_part_alone() -> None:
    drawn: dict[int, np.ndarray] = {}

    def part(i: int) -> float:
        drawn[i] = minigrad.rand(6).numpy()
        return 0.0

    minigrad.manual_seed(1)
    alone = minigrad.rand(6).numpy()
    counted = default_generator.get_state()[1]
    minigrad.manual_seed(1)
    distributed.sum_gradients(One(), part, parts=4)
    assert default_generator.get_state() == (1, 4 * counted), "the draws of all parts are counted"
    assert len({x.tobytes() for x in drawn.values()}) == 4
    np.testing.assert_array_equal(drawn[0], alone)  # the first part draws as if there were no parts
    default_generator.set_state((1, 2 << 48))
    np.testing.assert_array_equal(drawn[2], minigrad.rand(6).numpy())


def test_the_sum_of_parts_does_not_depend_on_the_threads_of_blas() -> None:
    blas = find_blas()
    if blas is None or blas.get_threads is None or blas.set_threads is None:
        pytest.skip("needs a BLAS whose threads can be set")
    x, before, seen = np.random.default_rng(0).normal(size=(96, 256)), blas.get_threads(), set()
    minigrad.manual_seed(0)
    model = nn.Linear(256, 64)
    rows = np.split(x.astype(np.float32), 2)

    def part(i: int) -> Tensor:
        seen.add(blas.get_threads())
        loss = (model(Tensor(rows[i])) ** 2).sum()
        loss.backward()
        return loss

    try:
        for threads in (1, 2):
            blas.set_threads(threads)
            distributed.sum_gradients(model, part, parts=2)
            assert seen == {1} and blas.get_threads() == threads
    finally:
        blas.set_threads(before)


def test_running_means_move_by_the_average_of_the_parts() -> None:
    x = np.random.default_rng(0).integers(0, 7, (8, 4))
    model, moves = Normalized(), []
    start = model.norm.running_mean.numpy().copy()

    def part(i: int) -> Tensor:
        np.testing.assert_array_equal(model.norm.running_mean.numpy(), start)
        loss = model.loss(x[2 * i : 2 * i + 2], x[2 * i : 2 * i + 2])
        loss.backward()
        moves.append(model.norm.running_mean.numpy() - start)
        return loss

    distributed.sum_gradients(model, part, parts=4)
    np.testing.assert_array_equal(model.norm.running_mean.numpy(), start + tree(moves) / 4)
    assert int(model.norm.num_batches_tracked.item()) == 1


@pytest.mark.parametrize("jit", [None, False])
def test_a_trainer_with_parts_is_the_one_without_to_rounding(jit: bool | None) -> None:
    runs = []
    for parts in (1, 2, 8):
        # So small a norm that a gradient which is clipped twice, as by a rehearsal, would be seen
        trainer = make_trainer(parts=parts, jit=jit, dropout=0.0, clip_norm=0.1, steps=10)
        runs.append([(r.loss, r.grad_norm, r.val_loss or 0.0) for r in trainer.run()])
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-4)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"jit": False}, {"mixed": "float16", "accumulate": 2}])
def test_a_run_with_parts_goes_on_to_the_bit(tmp_path: Path, settings: dict[str, object]) -> None:
    whole = make_trainer(**settings)
    *_, last = whole.run()
    first = make_trainer(**settings)
    with CheckpointFolder(tmp_path) as folder:
        for report in first.run():
            if report.step == 4:
                first.save(folder)
                break
        found = folder.load_latest()
    second = make_trainer(**settings)
    assert found is not None
    second.restore(found)
    *_, again = second.run()
    assert (sha256(second.model), again.loss) == (sha256(whole.model), last.loss)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="parts=3 times accumulate=1 does not divide a batch"):
        next(make_trainer(parts=3).run())
    for parts in (0, -4, 2.5, "4"):
        with pytest.raises(ConfigError, match="parts"):
            make_trainer(parts=parts)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="parts"):
        distributed.sum_gradients(One(), lambda i: 0.0, parts=0)


def started_as(size: int, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that a launcher seems to have started."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMPI_COMM_WORLD_SIZE": str(size), **environment},
    )


TRAIN = "import sys; {}; from minigrad.cli import main; sys.exit(main(['train', '--steps', '1']))"


def test_without_mpi4py_one_of_several_processes_says_what_to_install() -> None:
    blocked = TRAIN.format("sys.modules['mpi4py'] = None")
    done = started_as(2, blocked, OMPI_COMM_WORLD_RANK="0")
    assert done.returncode == 2 and done.stdout == ""
    assert "one of 2 processes" in done.stderr and "pip install 'minigrad[mpi]'" in done.stderr
    assert done.stderr.count("\n") == 1
    other = started_as(2, blocked, OMPI_COMM_WORLD_RANK="1")
    assert (other.returncode, other.stderr) == (2, "")


def test_a_launcher_of_another_mpi_is_an_error() -> None:
    pytest.importorskip("mpi4py", exc_type=ImportError)
    done = started_as(2, TRAIN.format("pass"), OMPI_COMM_WORLD_RANK="0")
    if "no MPI library" in done.stderr or "cannot load MPI" in done.stderr:
        pytest.skip("no MPI library")
    assert done.returncode == 2
    assert "the launcher started 2 processes, but MPI connects 1" in done.stderr
