"""C that describes itself: headers and signatures of the C functions are the lowering of row-wise
ops.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, ops, optim, primitive
from minigrad.compiler import jit, signatures
from minigrad.compiler.signatures import all_signatures, arguments_of, signatures_of
from minigrad.primitive import Primitive
from tests.compiler.in_c import compiled, near, with_gradients

C = Path(minigrad.__file__).parent / "compiler" / "c"
RNG = np.random.default_rng(7)
NUMBERS = {"C", "rows", "lo", "hi", "inner", "n"}
PROPERTIES = {"rows", "width", "bytes", "step", "kind", "at"}


def some(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def rows():
    """(op, signature) of all ops that are lowered by their signature."""
    for name, found in all_signatures().items():
        for s in found.values():
            if s.unit in signatures.BY_SIGNATURE:
                yield pytest.param(getattr(ops, name), s, id=f"{name}-{s.unit}")


@pytest.mark.parametrize("op, s", list(rows()))
def test_every_parameter_of_a_row_wise_function_is_bound(op, s):
    names, params = arguments_of(op)
    read = s.names(written=False)
    assert set(read) - {"residual"} <= set(names)
    assert len(s.names(written=True)) == op.outputs
    pointers = {*read, *s.names(written=True)}
    assert set(s.cut) <= pointers and s.nullable - {""} <= pointers
    for p in s.parameters:
        name, _, what = p.name.rpartition("_")
        bound = p.name in params or (name in pointers and what in PROPERTIES)
        assert p.pointer or p.name in NUMBERS or bound, p.name


def test_every_header_names_an_op_and_stands_above_a_function():
    headers = sum(text.read_text().count("/* op ") for text in C.glob("*.c"))
    assert headers == len(
        {(s.function, s.unit) for found in all_signatures().values() for s in found.values()}
    )
    known = {*vars(ops), "adam_", "sgd_", "lion_", "sample_"}
    assert set(all_signatures()) <= known


def test_a_header_has_no_clause_that_nothing_reads():
    flags = {
        flag for found in all_signatures().values() for s in found.values() for flag in s.flags
    }
    read = {flag for flag in flags if not re.fullmatch(r"lowered by \w+\.py", flag)} - {""}
    assert read == {"cheap", "draws", "any strides", "tiled"}
    assert all(f"    {flag}  " in str(signatures.__doc__) for flag in read)


def test_a_header_is_read_clause_by_clause():
    (s,) = signatures_of(ops.layer_norm).values()
    assert (s.function, s.unit, s.cut, s.flops) == ("layer_norm_rows", "rows", ("x",), 8)
    assert s.nullable == {"weight", "bias"} and "cheap" in s.flags
    assert s.names(written=True) == ["y", "means", "scale"]


def test_what_passes_ask_is_in_the_headers():
    assert signatures.adds_residual(ops.linear) and signatures.adds_residual(ops.layer_norm_grad)
    assert not signatures.adds_residual(ops.layer_norm)
    assert signatures.spare_outputs(ops.gelu_tanh) == [1] == signatures.spare_outputs(ops.attention)
    assert signatures.unread_operands(ops.gelu_tanh_grad) == [1]
    assert [
        n for n in all_signatures() if signatures.unread_operands(getattr(ops, n, ops.add))
    ] == ["gelu_tanh_grad"]


@pytest.mark.parametrize("name", ["softmax", "add", "layer_norm", "assign"])
def test_an_op_of_the_users_own_never_gets_the_c_of_one_of_that_name(name):
    def forward(x, *others):
        return x * np.float32(3)

    forward.__name__ = forward.__qualname__ = name
    forward.__module__ = "elsewhere"
    own = primitive(kind="elementwise")(forward)
    step = jit(lambda x: own(x), backend="c")
    x = some(4, 8)
    for _ in range(4):
        assert np.array_equal(step(Tensor(x)).numpy(), 3 * x)


@pytest.mark.parametrize("shape, axis", [((7, 33), -1), ((3, 5, 16), 2), ((5, 1), 0), ((40,), 0)])
def test_cumsum_along_the_last_axis(shape, axis):
    x = some(*shape)
    x.flat[0] = -0.0
    (got,), (wanted,) = compiled(lambda t: t.cumsum(axis), x)
    assert np.array_equal(got, wanted) and np.array_equal(np.signbit(got), np.signbit(wanted))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"])
def test_indices_of_any_integer_dtype(dtype):
    index = RNG.integers(0, 10, (6,)).astype(dtype)
    weight, logits = some(10, 4), some(6, 10)
    run = with_gradients(ops.embedding, Tensor(index))
    for got, wanted in zip(*compiled(run, weight), strict=True):
        assert near(got, wanted)
    run = with_gradients(lambda x: ops.cross_entropy(x, Tensor(index))[0])
    for got, wanted in zip(*compiled(run, logits), strict=True):
        assert near(got, wanted)
    (got,), (wanted,) = compiled(lambda i: ops.one_hot(i, num_classes=10), index)
    assert np.array_equal(got, wanted) and got.dtype == wanted.dtype


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2)])
@pytest.mark.parametrize("index", [3, [1, 4, 0], [[1, 2], [3, 4], [0, 0]]])
def test_tables_of_any_number_of_axes(shape, index):
    at = Tensor(np.array(index))
    (got,), (wanted,) = compiled(lambda t: ops.embedding(t, at), some(*shape))
    assert np.array_equal(got, wanted)


def test_rope_reads_rows_of_any_strides():
    """Views with several leading axes, tables that broadcast over some of them."""
    angles = some(5, 4)
    cos, sin = np.cos(angles), np.sin(angles)

    def turned(x):
        return ops.rope(x.permute(1, 2, 0, 3), Tensor(cos), Tensor(sin))

    for got, wanted in zip(*compiled(with_gradients(turned), some(5, 2, 3, 8)), strict=True):
        assert near(got, wanted)
    per_batch = Tensor(np.cos(some(2, 1, 5, 4)))

    def by_batch(x):
        return ops.rope(x, per_batch, per_batch, interleaved=True)

    for got, wanted in zip(*compiled(with_gradients(by_batch), some(2, 3, 5, 8)), strict=True):
        assert near(got, wanted)


@pytest.mark.parametrize("widths", [(0, 0, -1, -1), (0, 0, 2, 1), (0, 0, 0, 0)])
def test_what_attention_makes_may_be_cut_padded_or_put_together(widths):
    """Operands are computed in their places only where these are all of the output, and the
    operands all of what is copied.
    """

    def step(q, k):
        a = minigrad.functional.scaled_dot_product_attention(q, k, k)
        b = minigrad.functional.scaled_dot_product_attention(k, q, q)
        return ops.cat(
            minigrad.functional.pad(a, widths), minigrad.functional.pad(b, widths), axis=1
        )

    run = with_gradients(lambda q, k: step(minigrad.functional.pad(q, (0, 0, 1, 1)), k))
    for got, wanted in zip(*compiled(run, some(2, 3, 4, 8), some(2, 3, 6, 8)), strict=True):
        assert near(got, wanted)


@pytest.mark.parametrize(
    "op, operands, params, value",
    [
        (ops.reshape, [(3, 4)], {"shape": (2, 6)}, 0),
        (ops.merge_heads, [(2, 3, 4, 5)], {}, 0),
        (ops.join_heads, [(2, 3, 4, 5)] * 3, {}, 0),
        (ops.cat, [(3, 2), (3, 4)], {"axis": 1}, 0),
        (ops.pad, [(3, 4)], {"widths": ((1, -1), (-2, 3)), "value": 2.0}, 2),
        (ops.pad, [()], {"widths": ()}, 0),
        (ops.ungetitem, [(2, 3)], {"index": (slice(1, 3), slice(None)), "shape": (4, 3)}, 0),
        (ops.ungetitem, [()], {"index": (1, 2), "shape": (4, 3)}, 0),
        (ops.ungetitem, [(4,)], {"index": (Ellipsis, 1), "shape": (4, 3)}, 0),
    ],
)
def test_the_parts_of_an_op_are_what_its_forward_copies(op, operands, params, value):
    arrays = [some(*shape) for shape in operands]
    wanted = op(*arrays, **params)
    got = np.full_like(wanted, value)
    for place, piece in op.parts(got, *arrays, **params):
        assert np.shares_memory(place, got)
        place[...] = piece
    assert np.array_equal(got, wanted)


def test_every_op_with_parts_is_tried():
    tried = {ops.reshape, ops.merge_heads, ops.join_heads, ops.cat, ops.pad, ops.ungetitem}
    found = {op for op in vars(ops).values() if isinstance(op, Primitive) and op.parts is not None}
    assert found == tried


def test_a_bool_among_integers_is_0_or_1():
    for got, wanted in zip(
        *compiled(lambda b, x: (b * x, x + b, x - b), np.arange(7) % 2 == 0, np.arange(-3, 4)),
        strict=True,
    ):
        assert np.array_equal(got, wanted)


def test_a_program_gets_only_the_files_of_c_that_it_calls():
    step = jit(lambda x: x + 1, backend="c")
    for _ in range(3):
        step(Tensor(some(4)))
    assert "float_add" in step.c_source and "BODY layer_norm_rows" not in step.c_source
    step = jit(lambda x: ops.softmax(x), backend="c")
    for _ in range(3):
        step(Tensor(some(4, 4)))
    assert "BODY softmax_rows" in step.c_source and "attention_pairs(" not in step.c_source


def test_the_page_shows_c_as_it_stands_in_the_library():
    page = (Path(__file__).parents[2] / "docs" / "add_an_op.md").read_text()
    blocks = re.findall(r"```c\n(.*?)```", page, re.S)
    texts = "\n".join(path.read_text() for path in C.glob("*.c"))
    assert blocks and all(block in texts for block in blocks)


def test_a_function_added_as_the_page_says_is_the_whole_lowering(monkeypatch):
    """An op gets a C function and a header, and nothing in Python."""

    def halved(x, weight, *, bias=0.5):
        return x * weight * np.float32(0.5) + np.float32(bias)

    halved.__module__ = "minigrad.ops.somewhere"
    op = primitive(kind="reduce")(halved)
    function = """
/* op halved: rows of x; 3 flops */
BODY halved_rows(const float *RESTRICT x, const float *RESTRICT weight, float *RESTRICT y,
                 int64_t C, float bias, int64_t lo, int64_t hi) {
    for (int64_t i = lo * C; i < hi * C; i++) y[i] = x[i] * weight[i % C] * 0.5f + bias;
}
"""
    text = signatures.c_text
    added = lambda name: text(name) + function if name == "rows.c" else text(name)  # noqa: E731
    monkeypatch.setattr(signatures, "c_text", added)
    monkeypatch.setattr("minigrad.compiler.emit.c_text", added)
    for cached in (signatures.all_signatures, signatures._functions):
        cached.cache_clear()
        monkeypatch.setattr(signatures, cached.__name__, cached.__wrapped__)
    weight = Tensor(some(8))
    (got,), (wanted,) = compiled(lambda x: op(x, weight, bias=0.25), some(6, 8))
    assert near(got, wanted)


def test_optimizers_bind_their_moments_and_params_by_the_signature():
    for make in (
        lambda p: optim.AdamW(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: optim.Lion(p, lr=0.01),
    ):
        ends = []
        for backend in (None, "c"):
            w = Tensor(np.linspace(-1, 1, 9000, dtype=np.float32), requires_grad=True)
            optimizer = make([w])

            def step(x, w=w, optimizer=optimizer):
                optimizer.zero_grad()
                (w * x).square().sum().backward()
                optimizer.step()

            run = jit(step, backend=backend) if backend else step
            for _ in range(6):
                run(Tensor(np.ones(9000, np.float32)))
            if backend:
                assert "numpy" not in run.explain()
            ends.append(w.numpy())
        assert near(ends[1], ends[0])


def test_a_program_takes_no_file_of_c_for_the_sake_of_a_local_variable():
    """quantised.c includes all intrinsics, which takes a tenth of a step's compiling."""
    needed = signatures.files_for("attention_pairs(a); muon_scalars(b); layer_norm_rows(c);")
    assert "updates.c" in needed and "quantised.c" not in needed
    assert "quantised.c" in signatures.files_for("quantised_rows(a);")
