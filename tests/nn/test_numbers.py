"""Sizes, counts and rates: numpy scalars are as good as Python numbers, and bools are neither."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, strategies as st

from minigrad import Tensor, finetune, nn
from minigrad.arguments import as_float, as_int
from minigrad.errors import ConfigError
from minigrad.functional import layer_norm, rms_norm
from minigrad.models import GPT, GPTConfig, beam_search, speculative_generate
from tests.nn.rows import ROWS, Row

INTEGERS = [np.int64, np.int32, np.uint8]
FLOATS = [np.float64, np.float32]
GPT_ROW = Row(
    GPTConfig,
    (),
    {"vocab_size": 5, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 4, "dropout": 0.5},
)


def replaced(x, integer, real):
    """`x` with every Python number in it as a numpy scalar."""
    if isinstance(x, Mapping):
        return {key: replaced(value, integer, real) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return type(x)(replaced(part, integer, real) for part in x)
    if type(x) is int:
        return integer(x) if x >= 0 else np.int64(x)
    return real(x) if type(x) is float else x


def is_number(x):
    return is_number(x[0]) if isinstance(x, tuple) else type(x) in (int, float)


def numbers(x):
    """The numbers that an object keeps as attributes, those of its parts included."""
    for value in vars(x).values():
        if isinstance(value, nn.Module):
            yield from numbers(value)
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, np.generic | np.ndarray) and np.ndim(part) == 0:
                yield part


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("real", FLOATS)
@pytest.mark.parametrize("row", [*ROWS, GPT_ROW], ids=lambda row: row.name)
def test_a_module_takes_numpy_scalars_and_keeps_python_numbers(row, integer, real):
    plain = row.make(*row.args, **row.options)
    made = row.make(*replaced(row.args, integer, real), **replaced(row.options, integer, real))
    assert list(numbers(made)) == []
    if real is np.float64 and not isinstance(made, nn.KVCache):
        assert repr(made) == repr(plain)
    if isinstance(made, nn.Module):
        shapes = [{name: p.shape for name, p in m.state_dict().items()} for m in (made, plain)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("row", [*ROWS, GPT_ROW], ids=lambda row: row.name)
def test_a_bool_is_neither_a_size_nor_a_rate(row):
    for wrong in (True, np.True_, "3", Tensor([1.0])):
        for i, arg in enumerate(row.args):
            if not is_number(arg):
                continue
            bad = (wrong,) if isinstance(arg, tuple) else wrong
            with pytest.raises(ConfigError):
                row.make(*row.args[:i], bad, *row.args[i + 1 :], **row.options)
        for name in filter(lambda name: is_number(row.options[name]), row.options):
            with pytest.raises(ConfigError):
                row.make(*row.args, **{**row.options, name: wrong})


def test_functions_and_models_take_numpy_scalars():
    x = Tensor(np.ones((2, 4), np.float32))
    assert layer_norm(x, np.int64(4)).shape == rms_norm(x, [np.int64(4)]).shape == (2, 4)
    model = GPT(GPTConfig.gpt2(5, 8, 1, 2, 4))
    two = np.int64(2)
    assert len(list(model.generate([1], two, top_k=two, temperature=np.float32(1)))) == 2
    assert len(list(speculative_generate(model, model, [1], two, lookahead=two))) == 2
    assert len(beam_search(model, [1], two, beams=two)) == 2
    assert len(finetune.add_lora(model, rank=two, alpha=np.float32(4))) == 4


@given(st.integers(-5, 5), st.integers(-3, 3), st.sampled_from([int, np.int8, np.int64]))
def test_an_integer_is_taken_from_its_least_value_on(value, least, kind):
    if value >= least:
        assert as_int("f", "n", kind(value), least) == value
        assert type(as_int("f", "n", kind(value), least)) is int
    else:
        with pytest.raises(ConfigError, match=rf"^f: n must be an integer >= {least}, got "):
            as_int("f", "n", kind(value), least)


@given(st.floats(), st.sampled_from([float, np.float64]), st.booleans())
def test_a_rate_is_taken_within_its_bounds_and_a_nan_never(value, kind, below):
    if 0 <= value < 1 or (value == 1 and not below):
        assert as_float("f", "p", kind(value), 0, 1, below=below) == value
    else:
        with pytest.raises(ConfigError, match=r"^f: p must be a number in \[0, 1[\])], got "):
            as_float("f", "p", kind(value), 0, 1, below=below)
