"""Norms per channel, against numpy, with their running numbers."""

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.errors import ConfigError, ShapeError

rng = np.random.default_rng(0)


def per_channel(v, ndim):
    return np.asarray(v).reshape(-1, *(1,) * (ndim - 2))


BATCHES = [(nn.BatchNorm1d, (8, 3)), (nn.BatchNorm1d, (4, 3, 5)), (nn.BatchNorm2d, (4, 3, 2, 5))]


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize(("make", "shape"), BATCHES)
def test_batch_norm_normalises_by_the_batch_and_then_by_the_running_numbers(make, shape, momentum):
    layer = make(3, eps=1e-3, momentum=momentum).to("float64")
    layer.weight.data[:], layer.bias.data[:] = [1, 2, 3], [4, 5, 6]
    axes, mean, var = (0, *range(2, len(shape))), np.zeros(3), np.ones(3)
    for i in range(1, 4):
        x = rng.normal(size=shape) * 2 + 1
        m, v = x.mean(axes), x.var(axes)
        shown = [per_channel(p, x.ndim) for p in (m, v, layer.weight.data, layer.bias.data)]
        wanted = (x - shown[0]) / np.sqrt(shown[1] + 1e-3) * shown[2] + shown[3]
        assert np.allclose(layer(Tensor(x)).data, wanted, rtol=1e-10)
        share = 1 / i if momentum is None else momentum
        mean, var = mean + share * (m - mean), var + share * (x.var(axes, ddof=1) - var)
        assert np.allclose(layer.running_mean.data, mean, rtol=1e-12)
        assert np.allclose(layer.running_var.data, var, rtol=1e-12)
        assert layer.num_batches_tracked.item() == i
    layer.eval()
    shown = [per_channel(p, x.ndim) for p in (mean, var, layer.weight.data, layer.bias.data)]
    wanted = (x - shown[0]) / np.sqrt(shown[1] + 1e-3) * shown[2] + shown[3]
    assert np.allclose(layer(Tensor(x)).data, wanted, rtol=1e-10)
    assert layer.num_batches_tracked.item() == 3


def test_batch_norm_without_running_numbers_always_takes_the_batchs():
    layer = nn.BatchNorm1d(3, affine=False, track_running_stats=False).to("float64").eval()
    x = rng.normal(size=(16, 3))
    assert np.allclose(layer(Tensor(x)).data, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5))
    assert list(layer.state_dict()) == []


def test_the_state_of_batch_norm_has_pytorchs_names():
    layer = nn.BatchNorm2d(3)
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(layer.state_dict()) == names
    assert layer.num_batches_tracked.dtype == np.int64
    other = nn.BatchNorm2d(3)
    layer(Tensor(rng.normal(size=(2, 3, 2, 2)).astype(np.float32)))
    other.load_state_dict(layer.state_dict())
    assert other.num_batches_tracked.item() == 1
    assert np.array_equal(other.running_var.data, layer.running_var.data)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 3, 2)])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm_normalises_each_group_of_each_row(shape, groups):
    if groups == 6 and len(shape) == 2:
        pytest.skip("a group of one element is its own mean")
    layer = nn.GroupNorm(groups, 6, eps=1e-3).to("float64")
    layer.weight.data[:], layer.bias.data[:] = np.arange(6), np.arange(6)[::-1]
    x = rng.normal(size=shape)
    rows = x.reshape(2, groups, -1)
    y = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-3)
    weight, bias = (per_channel(p.data, x.ndim) for p in (layer.weight, layer.bias))
    wanted = y.reshape(shape) * weight + bias
    assert np.allclose(layer(Tensor(x)).data, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "shape"), [(nn.InstanceNorm1d, (2, 3, 7)), (nn.InstanceNorm2d, (2, 3, 4, 5))]
)
def test_instance_norm_normalises_each_channel_of_each_row(make, shape):
    x = rng.normal(size=shape) * 3 + 1
    axes = tuple(range(2, len(shape)))
    wanted = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    assert np.allclose(make(3).to("float64")(Tensor(x)).data, wanted, rtol=1e-9, atol=1e-12)
    assert list(make(3).state_dict()) == []
    assert list(make(3, affine=True).state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.BatchNorm1d(3), (2, 4)),
        (lambda: nn.BatchNorm1d(3), (2, 3, 4, 4)),
        (lambda: nn.BatchNorm2d(3), (2, 3, 4)),
        (lambda: nn.GroupNorm(2, 4), (2, 3, 4)),
        (lambda: nn.InstanceNorm2d(3), (2, 4, 4, 4)),
    ],
)
def test_an_input_of_another_kind_is_refused(make, shape):
    with pytest.raises(ShapeError):
        make()(Tensor.zeros(*shape))


def test_settings_that_make_no_sense_are_refused():
    for make in (
        lambda: nn.GroupNorm(3, 4),
        lambda: nn.BatchNorm1d(0),
        lambda: nn.BatchNorm1d(3, momentum=1.5),
        lambda: nn.InstanceNorm1d(3, track_running_stats=True),
    ):
        with pytest.raises(ConfigError):
            make()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_value_per_channel_is_refused_and_the_running_numbers_stay(momentum):
    for make, shape in ((nn.BatchNorm1d, (1, 3)), (nn.BatchNorm1d, (1, 3, 1))):
        layer = make(3, momentum=momentum)
        before = {name: t.tolist() for name, t in layer.state_dict().items()}
        with pytest.raises(ShapeError, match="one value per channel"):
            layer(Tensor.ones(*shape))
        assert {name: t.tolist() for name, t in layer.state_dict().items()} == before
        assert layer.eval()(Tensor.ones(*shape)).shape == shape
    for make, shape in ((nn.BatchNorm1d, (0, 3)), (nn.BatchNorm2d, (2, 3, 0, 4))):
        layer = make(3, momentum=momentum)
        assert layer(Tensor.zeros(*shape)).shape == shape  # as PyTorch
        assert layer.running_mean.tolist() == [0, 0, 0]
        assert layer.running_var.tolist() == [1, 1, 1]


def test_instance_norm_takes_one_instance_without_a_batch():
    for make, shape in ((nn.InstanceNorm1d, (3, 5)), (nn.InstanceNorm2d, (3, 4, 5))):
        x, layer = Tensor.randn(*shape), make(3, affine=True)
        assert np.array_equal(layer(x).data, layer(x.unsqueeze(0))[0].data)
        with pytest.raises(ShapeError) as error:
            layer(x[:2])
        assert f"{x.ndim} axes, axis 0 of 3 channels, got {(2, *shape[1:])}" in str(error.value)
