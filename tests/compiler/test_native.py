"""Compilers and the cache: what is wrong with them costs one clear line, never the result."""

import os
import re
import stat
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

from minigrad import Tensor, functional as F
from minigrad.compiler import environment, jit, native
from minigrad.compiler.lower import LOWERINGS
from minigrad.compiler.signatures import all_signatures
from minigrad.errors import ConfigError
from minigrad.ops.parallel import find_blas

pytestmark = pytest.mark.as_for_users


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def three_calls(backend=None):
    step = jit(lambda x: (x * 2 + 1).tanh().sum(), backend=backend)
    x = Tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    results = [step(x).item() for _ in range(3)]
    assert results == pytest.approx([np.tanh(np.linspace(-1, 1, 12) * 2 + 1).sum()] * 3, rel=1e-6)
    return step


def test_a_step_is_compiled_and_its_source_is_at_hand():
    step = three_calls("c")
    assert "tanh_f" in step.c_source and "phase" in step.explain()


def test_the_cache_folder_is_the_users_alone_and_the_second_build_comes_from_it(own_cache):
    three_calls("c")
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    assert "from the cache" in three_calls("c").explain()


def test_code_that_moved_to_other_lines_comes_from_the_cache():
    functions = (
        lambda x: (x * 3).sin().sum(),
        lambda x: (x * 3).sin().sum(),
    )
    x, sources = Tensor(np.ones((3, 4), np.float32)), set()
    for function, where in zip(functions, ("compiled in", "from the cache"), strict=True):
        step = jit(function, backend="c")
        for _ in range(3):
            step(x)
        assert where in step.explain()
        sources.add(step.c_source)
    assert len(sources) == 2  # each names its own lines


def test_a_folder_that_others_may_enter_is_closed_to_them(own_cache):
    own_cache.mkdir(mode=0o755)
    three_calls("c")
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700


def test_a_folder_that_all_users_share_is_left_as_it_is(own_cache):
    own_cache.mkdir()
    own_cache.chmod(0o1777)  # as /tmp is, which root owns and could close to everybody else
    with pytest.warns(RuntimeWarning, match="all users share"):
        three_calls("c")
    assert "all users share" in environment()["cache"]
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o1777 and not list(own_cache.iterdir())


def test_without_a_compiler_one_line_says_so_and_results_are_right(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.warns(RuntimeWarning, match=r"no C compiler works.*no-such-compiler.*CC"):
        step = three_calls()
    assert "numpy replay" in step.explain()


def test_what_is_not_a_command_is_one_line_and_a_blank_is_nothing(monkeypatch):
    monkeypatch.setenv("CC", "gcc -DNAME='x")
    with pytest.warns(RuntimeWarning, match=r"\$CC is .*no closing quotation"):
        three_calls()
    monkeypatch.setenv("CC", " ")
    three_calls("c")


def test_a_user_without_a_home_has_a_cache_in_the_temporary_folder(monkeypatch, tmp_path):
    for name in ("HOME", "MINIGRAD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    three_calls("c")
    assert list((tmp_path / "minigrad").glob("*.so"))


def test_a_broken_compiler_costs_one_line(monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text(
        "#!/bin/sh\ncase $1 in --version) echo broken 1.0;; *) echo 'step.c: error: no luck' >&2; "
        "exit 3;; esac\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.warns(RuntimeWarning, match="no luck"):
        three_calls()


def test_a_damaged_object_is_built_again(own_cache):
    three_calls("c")
    (made,) = own_cache.glob("*.so")
    contents = made.read_bytes()
    made.unlink()  # what is loaded must not be cut short under our feet
    made.write_bytes(contents[:1000])
    with pytest.warns(RuntimeWarning, match="was damaged and has been built again"):
        assert "was damaged" in three_calls("c").explain()
    assert "was damaged" not in three_calls("c").explain()


def test_a_cache_that_cannot_be_written_costs_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="cannot be written .*: the compiled step is not kept"):
        assert "cannot be written" in three_calls("c").explain()


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away"
)
def test_a_cache_of_another_user_is_not_used(own_cache):
    own_cache.mkdir(mode=0o700)
    os.chown(own_cache, 12345, 12345)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert "belongs to another user" in three_calls("c").explain()
    assert not list(own_cache.iterdir())


def test_a_link_is_not_followed_to_a_cache(own_cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    own_cache.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(RuntimeWarning, match="link or a file"):
        assert "link or a file" in three_calls("c").explain()


def test_an_error_in_the_source_is_a_native_error_of_one_line():
    with pytest.raises(native.NativeError) as caught:
        native.build("int step( {")
    assert "\n" not in str(caught.value)


def test_products_go_through_blas_where_that_is_wanted(monkeypatch):
    monkeypatch.setenv("MINIGRAD_PRODUCTS", "blas")
    if find_blas() is not None:
        assert f"products by {find_blas().name}" in three_calls("c").explain()
    monkeypatch.setenv("MINIGRAD_PRODUCTS", "tiles")
    assert "products by tiles" in three_calls("c").explain()
    monkeypatch.setenv("MINIGRAD_PRODUCTS", "fast")
    with pytest.raises(ConfigError, match="MINIGRAD_PRODUCTS"):
        three_calls("c")


def test_a_number_of_threads_that_is_none_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("MINIGRAD_THREADS", "many")
    with pytest.raises(ConfigError, match=r"MINIGRAD_THREADS.*many"):
        three_calls("c")
    for threads in (0, -1, "2", 1.5):
        with pytest.raises(ConfigError, match="threads must be"):
            jit(lambda x: x, threads=threads)


def test_numpys_blas_is_found_and_named():
    blas = find_blas()
    assert blas is None or (blas.sgemm and os.path.exists(blas.path))


def test_nothing_is_printed_when_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        three_calls()


def test_the_table_of_what_has_c_names_every_op_that_has():
    table = (Path(__file__).parents[2] / "docs" / "compiler.md").read_text()
    assert [name for name in (*LOWERINGS, *all_signatures()) if name not in table] == []


def test_what_is_found_on_the_machine_is_told_without_changing_it(own_cache):
    facts = environment()
    assert {"BLAS", "compiler", "flags", "threads", "cache"} <= set(facts) and str(
        own_cache
    ) in facts["cache"]
    fast = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}  # in this order
    wanted = [name for flag, name in fast.items() if flag in native.cpu_identity().split()]
    if native.find_compiler().version.startswith("cc") and Path("/proc/cpuinfo").exists():
        assert facts["in bfloat16"] == (wanted or ["none faster than float32"])[0]


def test_the_flags_are_told_where_there_is_no_compiler_for_them(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert environment()["flags"] == " ".join(native.FLAGS)


def test_gcc_vectorises_the_loops_of_activations_and_their_gradients(tmp_path):
    """A loop of scalars takes eight times as long, and nothing else would tell."""
    compiler = native.find_compiler()
    command, source = [*compiler.command, *native.flags()], tmp_path / "step.c"
    macros = subprocess.run(
        [*command, "-dM", "-E", "-x", "c", os.devnull], capture_output=True, text=True, check=True
    ).stdout
    if "__clang__" in macros or "__x86_64__" not in macros:
        pytest.skip("reads what GCC says of loops, on x86-64")

    def body(x, y):
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        gated = F.swiglu(x, y).sum().gradient(x, y)
        return (*gated, *(F.gelu(x) + y.clamp(-1, 1) + F.relu(y)).sum().gradient(x, y))

    step, x = jit(body, backend="c"), Tensor(np.ones((64, 256), np.float32))
    for _ in range(3):
        step(x, x)
    source.write_text(step.c_source)
    said = subprocess.run(
        [*command, "-fopt-info-vec", str(source), "-o", str(tmp_path / "step.so"), "-lm"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    vectorised = set(map(int, re.findall(r":(\d+):\d+: optimized: loop vectorized", said)))
    lines = step.c_source.splitlines()
    loops = {
        n + 1: line
        for n, line in enumerate(lines, 1)
        if line.startswith("KERNEL") and lines[n].lstrip().startswith("for (int64_t i = lo")
    }
    assert len(loops) >= 2
    assert not {name for n, name in loops.items() if n not in vectorised}


def test_further_options_come_after_minigrads_own_and_are_part_of_the_key(own_cache, monkeypatch):
    three_calls("c")
    monkeypatch.setenv("MINIGRAD_CFLAGS", "-O1 -DNAME='a b'")
    assert native.flags() == [*native.FLAGS, "-O1", "-DNAME=a b"]
    assert environment()["flags"].endswith("-O1 -DNAME=a b")
    assert "compiled in" in three_calls("c").explain()
    assert "from the cache" in three_calls("c").explain()


def test_an_option_that_the_compiler_does_not_know_costs_one_clear_line(monkeypatch):
    monkeypatch.setenv("MINIGRAD_CFLAGS", "-fno-such-thing")
    with pytest.warns(RuntimeWarning, match="no-such-thing"):
        three_calls()
    monkeypatch.setenv("MINIGRAD_CFLAGS", "'-O1")
    with pytest.warns(RuntimeWarning, match=r"\$MINIGRAD_CFLAGS is .* no closing quotation"):
        three_calls()
