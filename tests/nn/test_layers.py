"""The plain layers and their first values, against formulas in numpy and PyTorch's names."""

import importlib.util

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, nn
from minigrad.errors import ConfigError, IndexRangeError, ShapeError


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_linear_is_x_times_the_transposed_weight_plus_bias():
    layer, x = nn.Linear(3, 5), random(2, 4, 3)
    assert np.allclose(layer(Tensor(x)).data, x @ layer.weight.data.T + layer.bias.data, atol=1e-6)
    plain = nn.Linear(3, 5, bias=False)
    assert plain.bias is None
    assert np.allclose(plain(Tensor(x)).data, x @ plain.weight.data.T, atol=1e-6)


def test_linear_says_which_shapes_do_not_fit():
    with pytest.raises(ShapeError):
        nn.Linear(3, 5)(Tensor(random(2, 4)))


def test_embedding_takes_rows_and_never_wraps_an_index():
    layer = nn.Embedding(10, 4)
    assert np.array_equal(layer(Tensor([[1, 9], [0, 1]])).data, layer.weight.data[[[1, 9], [0, 1]]])
    for bad in (10, -1):
        with pytest.raises(IndexRangeError):
            layer(Tensor([bad]))


def test_layer_norm_has_mean_0_and_variance_1_before_its_weight():
    x = random(2, 3, 8) * 5 + 3
    y = nn.LayerNorm(8)(Tensor(x)).data
    assert np.allclose(y.mean(-1), 0, atol=1e-6)
    assert np.allclose(y.var(-1), 1, atol=1e-4)
    both = nn.LayerNorm((3, 8), eps=1e-3, bias=False)(Tensor(x)).data
    centred = x - x.mean((1, 2), keepdims=True)
    assert np.allclose(both, centred / np.sqrt(x.var((1, 2), keepdims=True) + 1e-3), atol=1e-5)


def test_rms_norm_divides_by_the_root_mean_square():
    x = random(2, 8)
    layer = nn.RMSNorm(8, eps=1e-3)
    assert np.allclose(
        layer(Tensor(x)).data, x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3), atol=1e-6
    )


def test_dropout_drops_a_share_and_scales_the_rest_but_only_in_training():
    minigrad.manual_seed(0)
    layer, x = nn.Dropout(0.25), Tensor(np.ones((100, 1000), np.float32))
    y = layer(x).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_dropout_uses_the_same_mask_backward_as_forward():
    x = Tensor(np.ones((50, 50), np.float32), requires_grad=True)
    y = nn.Dropout(0.5)(x)
    y.sum().backward()
    assert np.array_equal(x.grad.data, y.data)


def test_first_values_have_the_spread_that_pytorch_gives_them():
    minigrad.manual_seed(0)
    layer = nn.Linear(100, 300)
    for values in (layer.weight.data, layer.bias.data):
        assert 0.095 < np.abs(values).max() <= 0.1
        assert abs(values.mean()) < 0.01
    assert abs(nn.Embedding(100, 100).weight.data.std() - 1) < 0.02


def test_the_same_seed_gives_the_same_first_values():
    made = []
    for seed in (3, 3, 4):
        minigrad.manual_seed(seed)
        made.append(nn.TransformerBlock(8, 2).state_dict())
    assert all(np.array_equal(made[0][name].data, made[1][name].data) for name in made[0])
    assert not np.array_equal(
        made[0]["attn.in_proj_weight"].data, made[2]["attn.in_proj_weight"].data
    )


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda w: nn.init.uniform_(w, -1, 1), 1 / np.sqrt(3)),
        (lambda w: nn.init.normal_(w, 0.0, 0.3), 0.3),
        (nn.init.xavier_uniform_, np.sqrt(2 / 500)),
        (lambda w: nn.init.xavier_normal_(w, gain=2.0), 2 * np.sqrt(2 / 500)),
        (nn.init.kaiming_uniform_, np.sqrt(2 / 200)),
        (
            lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
            np.sqrt(2 / 300),
        ),
        (lambda w: nn.init.kaiming_normal_(w, a=1.0), np.sqrt(1 / 200)),
        (lambda w: nn.init.constant_(w, 3.0), 0.0),
        (nn.init.zeros_, 0.0),
        (nn.init.ones_, 0.0),
    ],
)
def test_an_initialiser_gives_its_spread_in_place_and_from_its_generator(fill, std):
    weight = nn.Parameter(np.full((300, 200), 7.0, np.float32))
    memory = weight.data
    assert fill(weight) is weight
    assert weight.data is memory
    assert weight.requires_grad
    assert abs(weight.data.std() - std) <= 0.02 * std + 1e-7
    assert abs(weight.data.mean()) < 0.02 or std == 0


def test_a_given_generator_is_used_and_the_librarys_left_alone():
    before = minigrad.random.default_generator.get_state()
    a, b = (nn.init.normal_(Tensor.zeros(5), generator=minigrad.Generator(1)) for _ in range(2))
    assert np.array_equal(a.data, b.data)
    assert minigrad.random.default_generator.get_state() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(0, 3),
        lambda: nn.Linear(3, 2.5),
        lambda: nn.Embedding(True, 3),
        lambda: nn.LayerNorm(0),
        lambda: nn.Dropout(1.5),
        lambda: nn.Dropout(float("nan")),
        lambda: nn.MultiHeadAttention(10, 3),
        lambda: nn.MultiHeadAttention(8, 2, dropout=1.0),
        lambda: nn.init.kaiming_uniform_(Tensor.zeros(2, 2), mode="fan"),
        lambda: nn.init.kaiming_uniform_(Tensor.zeros(2, 2), nonlinearity="sin"),
        lambda: nn.KVCache(0),
    ],
)
def test_sizes_and_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_fan_in_of_a_vector_is_refused():
    with pytest.raises(ShapeError):
        nn.init.xavier_uniform_(Tensor.zeros(3))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_pytorchs_weights_load_by_key_and_give_its_numbers():
    import torch

    x = random(2, 5, 8)
    pairs = [
        (torch.nn.Linear(8, 3), nn.Linear(8, 3)),
        (torch.nn.LayerNorm(8), nn.LayerNorm(8)),
        (torch.nn.RMSNorm(8, eps=1e-6), nn.RMSNorm(8)),
        (
            torch.nn.MultiheadAttention(8, 2, batch_first=True),
            nn.MultiHeadAttention(8, 2, causal=False),
        ),
    ]
    for theirs, ours in pairs:
        ours.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
        tx = torch.tensor(x)
        wanted = (
            theirs(tx, tx, tx, need_weights=False)[0]
            if isinstance(ours, nn.MultiHeadAttention)
            else theirs(tx)
        )
        assert np.allclose(ours(Tensor(x)).data, wanted.detach().numpy(), atol=1e-5)


def test_the_padding_of_an_embedding_is_one_of_its_rows():
    w, index = Tensor(np.ones((3, 2)), requires_grad=True), Tensor([0, 1, 2, 2])
    for place, row in ((-1, 2), (2, 2), (-3, 0), (0, 0)):
        w.grad = None
        F.embedding(index, w, padding_idx=place).sum().backward()
        counts = np.array([1.0, 1.0, 2.0])  # as PyTorch
        counts[row] = 0
        assert np.array_equal(w.grad.data, np.stack([counts, counts], 1))
        layer = nn.Embedding(3, 2, padding_idx=place)
        assert layer.padding_idx == row
        assert not layer.weight.data[row].any()
    for place in (3, 7, -4, 1.0):
        with pytest.raises(ConfigError, match="padding_idx must be an integer"):
            nn.Embedding(3, 2, padding_idx=place)
        with pytest.raises(ConfigError, match="padding_idx must be an integer"):
            F.embedding(index, w, padding_idx=place)
