"""What holds for every module: derivatives, saving, showing, copying, 64 bits, compiled steps."""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.testing import gradcheck, gradgradcheck
from tests.nn.rows import CONTAINERS, MODULES, ROWS

every_module = pytest.mark.parametrize("row", MODULES, ids=lambda row: row.name)


def outputs(result):
    """The tensors that a module returns, however nested."""
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result for t in outputs(part)]


def prepared(row, seed=0):
    """The module in float64 and eval mode, with random parameters, and float64 inputs."""
    minigrad.manual_seed(seed)
    module = row.made().to("float64").eval()
    rng = np.random.default_rng(seed)
    for p in module.parameters():
        p.data[...] = rng.normal(size=p.shape) * 0.7 + 0.1
    return module, [Tensor(x) for x in row.arrays(seed)]


def with_parameters(module, xs):
    """(f, inputs): f(*inputs) is what the module gives for given floats and given parameters."""
    places = [
        (owner, name)
        for owner in module.modules()
        for name, value in vars(owner).items()
        if isinstance(value, nn.Parameter)
    ]
    inputs = [Tensor(x.data, requires_grad=True) if x.dtype == np.float64 else x for x in xs]
    parameters = [Tensor(vars(owner)[name].data, requires_grad=True) for owner, name in places]

    def f(*given):
        for (owner, name), p in zip(places, given[len(xs) :], strict=True):
            vars(owner)[name] = p
        return tuple(outputs(module(*given[: len(xs)])))

    return f, [*inputs, *parameters]


def test_every_module_has_a_row():
    modules = {
        name
        for name in nn.__all__
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Module)
    }
    assert modules <= CONTAINERS | {row.name for row in ROWS}


@every_module
def test_first_and_second_derivatives_agree_with_differences(row):
    if row.options.get("padding_idx") is not None:
        pytest.skip("the gradient of the padding is left out on purpose")
    module, xs = prepared(row)
    training = row.name.startswith(("BatchNorm", "InstanceNorm", "GroupNorm"))
    module.train(training)
    f, inputs = with_parameters(module, xs)
    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


@every_module
def test_a_module_loads_the_state_of_another_and_gives_its_numbers(row):
    (module, xs), (other, _) = prepared(row), prepared(row, seed=1)
    other.load_state_dict(module.state_dict())
    for y, z in zip(outputs(module(*xs)), outputs(other(*xs)), strict=True):
        assert np.array_equal(y.data, z.data)
    for name, value in module.state_dict().items():
        assert np.array_equal(value.data, other.state_dict()[name].data)


@every_module
def test_a_module_keeps_the_dtype_of_its_input(row):
    module, xs = prepared(row)
    for dtype in ("float32", "float16"):
        module.to(dtype)
        for y in outputs(module(*[x.cast(dtype) if x.dtype.kind == "f" else x for x in xs])):
            assert y.dtype.name == dtype


@every_module
def test_a_repr_is_the_call_that_makes_the_module(row):
    made = row.made()
    again = eval(repr(made), {**vars(minigrad), **vars(nn)})
    assert repr(again) == repr(made)
    shapes = [{name: t.shape for name, t in m.state_dict().items()} for m in (made, again)]
    assert shapes[0] == shapes[1]


@every_module
def test_a_compiled_step_gives_the_numbers_of_an_ordinary_one(row):
    module, xs = prepared(row)
    module.to("float32").train(row.name.startswith("BatchNorm"))
    step = minigrad.jit(lambda *xs: tuple(outputs(module(*xs))))
    twin, _ = prepared(row)
    twin.to("float32").train(module.training)
    for seed in range(4):
        xs = [Tensor(x.astype(np.float32) if x.dtype.kind == "f" else x) for x in row.arrays(seed)]
        for y, z in zip(step(*xs), outputs(twin(*xs)), strict=True):
            assert np.allclose(y.data, z.data, rtol=1e-5, atol=1e-6)
    for name, value in twin.state_dict().items():
        assert np.allclose(module.state_dict()[name].data, value.data, rtol=1e-5, atol=1e-6)
