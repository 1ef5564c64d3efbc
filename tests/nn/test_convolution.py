"""Convolution and pooling as modules, against loops in numpy."""

import itertools

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, nn
from minigrad.errors import ConfigError, ShapeError

rng = np.random.default_rng(0)


def correlated(x, weight, bias, stride, padding, dilation, groups):
    """The cross-correlation by its formula, one output at a time: (N, C, *L) -> (N, O, *M)."""
    n = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    sizes = [
        (length - d * (k - 1) - 1) // s + 1
        for length, k, s, d in zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
    ]
    O, share = len(weight), weight.shape[1]
    y = np.zeros((len(x), O, *sizes))
    for o in range(O):
        first = o // (O // groups) * share
        for at in itertools.product(*map(range, sizes)):
            part = tuple(
                slice(
                    at[i] * stride[i],
                    at[i] * stride[i] + dilation[i] * weight.shape[2 + i],
                    dilation[i],
                )
                for i in range(n)
            )
            window = x[(slice(None), slice(first, first + share), *part)]
            y[(slice(None), o, *at)] = (window * weight[o]).sum(axis=tuple(range(1, n + 2)))
            y[(slice(None), o, *at)] += 0 if bias is None else bias[o]
    return y


CONVOLUTIONS = [
    ((4, 6, 3), {}),
    ((4, 6, 3), {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}),
    ((3, 3, 1), {"bias": False, "groups": 3}),
    ((2, 4, 2), {"padding": 2, "stride": 3}),
]


@pytest.mark.parametrize(("args", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("n", [1, 2])
def test_a_convolution_is_its_formula(n, args, options):
    layer = (nn.Conv1d, nn.Conv2d)[n - 1](*args, **options).to("float64")
    x = rng.normal(size=(2, args[0], 8, 7)[: 2 + n])
    each = [
        (options.get(key, usual),) * n
        for key, usual in (("stride", 1), ("padding", 0), ("dilation", 1))
    ]
    bias = None if layer.bias is None else layer.bias.data
    wanted = correlated(x, layer.weight.data, bias, *each, options.get("groups", 1))
    assert np.allclose(layer(Tensor(x)).data, wanted, rtol=1e-12, atol=1e-12)


def test_sizes_may_differ_by_axis_and_padding_may_be_named():
    layer = nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    assert layer.weight.shape == (3, 2, 2, 3)
    assert layer(Tensor.zeros(1, 2, 6, 9)).shape == (1, 3, 3, 7)
    assert nn.Conv2d(2, 3, 3, padding="same")(Tensor.zeros(1, 2, 6, 9)).shape == (1, 3, 6, 9)
    assert nn.Conv2d(2, 3, 3, padding="valid")(Tensor.zeros(1, 2, 6, 9)).shape == (1, 3, 4, 7)


def test_first_values_are_uniform_in_one_over_the_root_of_fan_in():
    minigrad.manual_seed(0)
    layer = nn.Conv2d(16, 200, 5, groups=4)
    for p in layer.parameters():
        assert 0.098 < np.abs(p.data).max() <= 0.1
        assert abs(p.data.mean()) < 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 4, 2, groups=2),
        lambda: nn.Conv2d(4, 3, 2, groups=2),
        lambda: nn.Conv2d(1, 1, (1, 2, 3)),
        lambda: nn.Conv2d(1, 1, 0),
        lambda: nn.Conv1d(1, 1, 2, padding=-1),
        lambda: nn.Conv1d(1, 1, 2, padding="sane"),
        lambda: nn.MaxPool2d(0),
        lambda: nn.AvgPool2d(2, padding=-1),
    ],
)
def test_sizes_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_an_input_of_another_kind_is_refused():
    with pytest.raises(ShapeError):
        nn.Conv2d(3, 4, 2)(Tensor.zeros(1, 2, 5, 5))
    with pytest.raises(ShapeError):
        nn.Conv1d(3, 4, 2)(Tensor.zeros(1, 3, 5, 5))


def test_pools_take_the_largest_and_the_mean_of_windows():
    x = rng.normal(size=(2, 3, 4, 6))
    windows = x.reshape(2, 3, 2, 2, 3, 2)
    assert np.array_equal(nn.MaxPool2d(2)(Tensor(x)).data, windows.max((3, 5)))
    assert np.allclose(nn.AvgPool2d(2)(Tensor(x)).data, windows.mean((3, 5)), rtol=1e-14)
    assert nn.MaxPool2d((2, 3), stride=1)(Tensor(x)).shape == (2, 3, 3, 4)
    assert nn.MaxPool2d(4, ceil_mode=True)(Tensor(x)).shape == (2, 3, 1, 2)


TRANSPOSED = [
    ((4, 6, 3), {}),
    ((4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2}),
    ((3, 3, 1), {"bias": False, "groups": 3}),
    ((2, 4, 2), {"padding": 1, "stride": 3}),
]


@pytest.mark.parametrize(("args", "options"), TRANSPOSED)
@pytest.mark.parametrize("n", [1, 2])
def test_a_transposed_convolution_is_the_transpose_of_a_convolution(n, args, options):
    """<y, T x> = <C y, x> for the convolution C with the same weight, from T's output back."""
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d)[n - 1](*args, **options).to("float64")
    if layer.bias is not None:
        layer.bias.data[:] = 0
    x = rng.normal(size=(2, args[0], 4, 3)[: 2 + n])
    image = layer(Tensor(x)).data
    assert image.shape[1] == args[1]
    y = rng.normal(size=image.shape)
    assert layer(Tensor(x[:0])).shape == (0, *image.shape[1:])
    keys = ("stride", "padding", "dilation")
    each = [(options.get(key, int(key != "padding")),) * n for key in keys]
    back = correlated(y, layer.weight.data, None, *each, options.get("groups", 1))
    assert back.shape == x.shape
    assert np.isclose((y * image).sum(), (back * x).sum(), rtol=1e-12)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_places_added_at_the_end_may_be_more_than_a_step_where_windows_are_dilated(padding):
    x = Tensor(rng.normal(size=(2, 4, 5)), requires_grad=True)
    w = Tensor(rng.normal(size=(4, 3, 2)))
    whole = F.conv_transpose1d(x, w, dilation=3)
    y = F.conv_transpose1d(x, w, padding=padding, output_padding=2, dilation=3)
    wanted = whole.pad((0, 2))[..., padding : 10 - padding]
    assert np.array_equal(y.data, wanted.data)
    up = Tensor(rng.normal(size=y.shape))
    assert np.array_equal(minigrad.grad(y, x, up)[0].data, minigrad.grad(wanted, x, up)[0].data)


def test_pools_over_one_axis_are_those_over_two():
    x = rng.normal(size=(2, 3, 9))
    for one, two in ((nn.MaxPool1d, nn.MaxPool2d), (nn.AvgPool1d, nn.AvgPool2d)):
        wanted = two((1, 3), (1, 2), (0, 1))(Tensor(x[:, :, None])).data[:, :, 0]
        assert np.array_equal(one(3, 2, 1)(Tensor(x)).data, wanted)


@pytest.mark.parametrize(("length", "count"), [(6, 3), (7, 3), (5, 5), (5, 1), (3, 5)])
def test_adaptive_pools_divide_an_axis_as_evenly_as_they_can(length, count):
    x = rng.normal(size=(2, 3, length))
    parts = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    wanted = np.stack([x[..., a:b].mean(-1) for a, b in parts], -1)
    assert np.allclose(nn.AdaptiveAvgPool1d(count)(Tensor(x)).data, wanted, rtol=1e-12)
    both = nn.AdaptiveAvgPool2d((None, count))(Tensor(np.stack([x, 2 * x], -2)))
    assert np.allclose(both.data, np.stack([wanted, 2 * wanted], -2), rtol=1e-12)


def test_a_small_network_learns_to_tell_stripes_apart():
    minigrad.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 2),
    )
    x, y = rng.normal(size=(40, 1, 8, 8)) * 0.3, np.arange(40) % 2
    x[y == 0, :, ::2] += 1
    x[y == 1, :, :, ::2] += 1
    x = Tensor(x.astype(np.float32))
    optimizer = minigrad.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        model(x).cross_entropy(Tensor(y)).backward()
        optimizer.step()
    assert (model.eval()(x).data.argmax(1) == y).all()


def test_padding_with_other_than_zeros_is_refused_with_the_way_out():
    for make in (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d):
        assert "padding_mode" not in repr(make(2, 3, 3, padding=1, padding_mode="zeros"))
        with pytest.raises(ConfigError, match=r"padding_mode must be 'zeros'[^$]*F\.pad"):
            make(2, 3, 3, padding=1, padding_mode="reflect")
