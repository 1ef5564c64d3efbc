"""Modules: how parts are found, switched, converted and shown."""

import copy
import pickle

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, functional as F, nn, no_grad
from minigrad.errors import ConfigError, DTypeError, StaleValueError
from minigrad.models import GPT, GPTConfig


class Net(nn.Module):
    def __init__(self):
        self.scale = nn.Parameter([1.0, 2.0])
        self.first = nn.Linear(2, 3)
        self.blocks = nn.ModuleList(
            [nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1))]
        )
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 1, bias=False), "items": nn.LayerNorm(3)})
        self.register_buffer("count", Tensor([7]))
        self.register_buffer("scratch", Tensor([1.0]), persistent=False)

    def forward(self, x):
        x = self.first(x * self.scale)
        for block in self.blocks:
            x = block(x)
        return self.heads["a"](self.heads["items"](x))


NAMES = [
    "scale",
    "first.weight",
    "first.bias",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.0.weight",
    "blocks.1.0.bias",
    "heads.a.weight",
    "heads.items.weight",
    "heads.items.bias",
]


def test_parameters_are_found_by_name_own_ones_first():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.first.named_parameters(prefix="x")] == ["x.weight", "x.bias"]


def test_modules_are_found_parents_first():
    net = Net()
    names = [name for name, _ in net.named_modules()]
    assert names == [
        "",
        "first",
        "blocks",
        "blocks.0",
        "blocks.1",
        "blocks.1.0",
        "blocks.1.1",
        "heads",
        "heads.a",
        "heads.items",
    ]
    assert [name for name, _ in net.named_children()] == ["first", "blocks", "heads"]
    assert list(net.children()) == [net.first, net.blocks, net.heads]
    net.tied = net.first  # a part with two names
    assert list(net.children()) == [net.first, net.blocks, net.heads]


def test_buffers_are_not_trained_and_only_persistent_ones_are_saved():
    net = Net()
    assert [name for name, _ in net.named_buffers()] == ["count", "scratch"]
    assert "count" in net.state_dict()
    assert "scratch" not in net.state_dict()


def test_a_part_with_two_names_comes_once():
    net = Net()
    net.again = net.first
    net.heads["a"].weight = net.scale
    assert [name for name, _ in net.named_parameters()] == [
        n for n in NAMES if n != "heads.a.weight"
    ]
    assert sum(module is net.first for module in net.modules()) == 1


def test_the_whole_is_computed_and_every_parameter_gets_a_gradient():
    net = Net()
    y = net(Tensor(np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)))
    assert y.shape == (4, 1)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(not p.grad.data.any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_results_and_detached_copies_of_parameters_are_plain_tensors():
    p = nn.Parameter([1.0, 2.0])
    assert {type(t) for t in (p * 2, p.detach(), p[0], p + p)} == {Tensor}
    assert type(copy.deepcopy(p)) is nn.Parameter
    assert type(pickle.loads(pickle.dumps(p))) is nn.Parameter


def test_train_eval_apply_and_requires_grad_reach_every_module():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert all(module.training for module in net.train().modules())
    seen = []
    assert net.apply(seen.append) is net
    assert len(seen) == len(list(net.modules()))
    assert seen[-1] is net
    net.first.requires_grad_(False)
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == [
        "first.weight",
        "first.bias",
    ]


def test_to_keeps_the_objects_and_leaves_integers_alone():
    net = Net()
    before = list(net.parameters())
    weights = net.first.weight.data.copy()
    assert net.to("float64") is net
    assert all(a is b for a, b in zip(net.parameters(), before, strict=True))
    assert {p.dtype.name for p in net.parameters()} == {"float64"}
    assert (net.count.dtype.name, net.scratch.dtype.name) == ("int64", "float64")
    assert np.array_equal(net.to("float32").first.weight.data, weights)


def test_backward_of_what_was_computed_before_a_conversion_is_refused():
    layer = nn.Linear(2, 2)
    loss = (layer.weight * layer.weight).sum()
    layer.to("float64")
    with pytest.raises(StaleValueError):
        loss.backward()


def test_a_deep_copy_shares_nothing():
    net = Net()
    twin = copy.deepcopy(net)
    with no_grad():
        twin.scale.assign(5.0)
    assert net.scale.tolist() == [1.0, 2.0]
    assert [name for name, _ in twin.named_parameters()] == NAMES
    assert [name for name, _ in pickle.loads(pickle.dumps(net)).named_buffers()] == [
        "count",
        "scratch",
    ]


def test_a_plain_list_of_modules_is_refused_since_nobody_would_train_it():
    net = Net()
    for hidden in ([nn.Linear(1, 1)], (nn.Parameter([1.0]),), {"a": nn.Linear(1, 1)}):
        net.hidden = hidden
        with pytest.raises(ConfigError, match=r"Net\.hidden"):
            list(net.parameters())


def test_a_tensor_does_not_silently_take_the_place_of_a_parameter():
    layer = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"Linear\.weight"):
        layer.weight = layer.weight * 2
    layer.weight = nn.Parameter(layer.weight.data * 2)
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_containers_behave_like_the_lists_and_dicts_they_are():
    layers = nn.ModuleList([nn.Dropout(0.1)])
    layers.append(nn.Dropout(0.2)).extend([nn.Dropout(0.3)])
    layers[0] = nn.Dropout(0.5)
    assert [layer.p for layer in layers] == [0.5, 0.2, 0.3]
    assert [layer.p for layer in layers[1:]] == [0.2, 0.3]
    assert len(layers) == 3
    named = nn.ModuleDict({"a": nn.Dropout(0.1)})
    named["b"] = nn.Dropout(0.2)
    del named["a"]
    assert list(named) == list(named.keys()) == ["b"]
    assert "b" in named
    assert [(k, v.p) for k, v in named.items()] == [("b", 0.2)]
    assert [v.p for v in named.values()] == [0.2]
    chain = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    assert chain[1].out_features == 4
    assert len(chain) == 2
    assert chain[:1](Tensor.ones(1, 2)).shape == (1, 3)
    for wrong in (
        lambda: nn.ModuleList([1]),
        lambda: nn.Sequential(3),
        lambda: nn.Sequential(nn.Linear),
        lambda: nn.ModuleDict({"a.b": chain}),
    ):
        with pytest.raises(ConfigError):
            wrong()


def test_a_list_of_modules_is_changed_in_every_way_a_list_is():
    chain = nn.Sequential(nn.Linear(2, 3))
    assert chain.append(nn.Dropout(0.1)).extend([nn.Linear(3, 4)]) is chain
    assert chain.insert(1, nn.Linear(3, 3)) is chain
    assert [name for name, _ in chain.named_parameters()] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
    ]
    del chain[2]
    assert chain(Tensor.ones(5, 2)).shape == (5, 4)
    assert type(chain[1:]) is nn.Sequential
    assert [m.out_features for m in chain[1:]] == [3, 4]
    with pytest.raises(IndexError):
        chain[3]


def double(x):
    return x * 2


def test_functions_stand_in_a_sequential():
    layer = nn.Linear(2, 3)
    chain = nn.Sequential(layer, F.relu, double, F.gelu)
    x = Tensor(np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))
    wanted = F.gelu(double(F.relu(layer(x)))).data
    for twin in (chain, copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        assert np.array_equal(twin(x).data, wanted)
    assert repr(chain[1:]) == "Sequential(\n  relu,\n  double,\n  gelu,\n)"
    assert list(chain.state_dict()) == ["0.weight", "0.bias"]


def test_a_module_of_a_module_dict_is_an_attribute_too():
    net = Net()
    assert net.heads.a is net.heads["a"]
    assert callable(net.heads.items)
    for missing in ("b", "_items_"):
        assert not hasattr(net.heads, missing)
    twin = pickle.loads(pickle.dumps(net))
    assert twin.heads.a is twin.heads["a"]
    twin.heads.update({"c": nn.Linear(1, 1)})
    assert list(twin.heads.keys()) == ["a", "items", "c"]


def test_lists_and_dicts_of_parameters_are_found_trained_and_saved():
    class Mixture(nn.Module):
        def __init__(self):
            self.parts = nn.ParameterList([nn.Parameter([1.0]), Tensor([2.0])])
            self.named = nn.ParameterDict({"a": Tensor([3.0, 4.0]), "b": nn.Parameter([5.0])})

        def forward(self, x):
            return sum(p.sum() for p in self.parts) * x + self.named.a.sum()

    net = Mixture()
    assert [name for name, _ in net.named_parameters()] == [
        "parts.0",
        "parts.1",
        "named.a",
        "named.b",
    ]
    net(Tensor(2.0)).backward()
    assert [None if p.grad is None else p.grad.tolist() for p in net.parameters()] == [
        [2.0],
        [2.0],
        [1.0, 1.0],
        None,
    ]
    other = Mixture()
    other.parts[0] = nn.Parameter([7.0])
    other.load_state_dict(net.state_dict())
    assert [p.tolist() for p in other.parts] == [[1.0], [2.0]]
    assert [type(p) for p in other.parts[:1]] == [nn.Parameter]
    with pytest.raises(ConfigError, match="ParameterList"):
        net.parts.append(3.0)


def test_a_change_to_a_container_is_seen_by_a_compiled_step():
    chain = nn.Sequential(nn.Linear(2, 2))
    step = minigrad.jit(lambda x: chain(x))
    x = Tensor.ones(1, 2)
    for _ in range(4):
        step(x)
    chain.append(double)
    assert np.allclose(step(x).data, chain(x).data)
    chain[1] = nn.Linear(2, 2)
    assert np.allclose(step(x).data, chain(x).data)
    del chain[1]
    assert np.allclose(step(x).data, chain(x).data)


REPRS = [
    "Linear(4, 2, bias=True)",
    "Linear(4, 2, bias=False)",
    "Embedding(10, 3)",
    "LayerNorm(8, eps=1e-05, bias=True)",
    "LayerNorm((2, 8), eps=1e-05, bias=False)",
    "RMSNorm(8, eps=1e-06)",
    "Dropout(0.1)",
    "MultiHeadAttention(8, 2, bias=True, causal=False, dropout=0.0)",
    "MLP(8, bias=True, dropout=0.5)",
    "MLP(8, 20, bias=False, dropout=0.5, approximate='none')",
    "TransformerBlock(8, 2, bias=True, causal=True, dropout=0.0, cross=True)",
    "TransformerBlock(8, 2, bias=False, causal=True, dropout=0.0)",
    "TransformerBlock(8, 2, bias=True, causal=False, dropout=0.0, norm_first=False, "
    "norm_eps=1e-12, hidden=20, approximate='none')",
    "TransformerBlock(8, 2, bias=False, causal=True, dropout=0.0, norm='rms', norm_eps=1e-05, "
    "mlp='swiglu', hidden=20)",
    "Sequential(\n  Linear(4, 2, bias=True),\n  Sequential(\n    Dropout(0.1),\n  ),\n)",
    "Sequential()",
    "ModuleList([\n  Dropout(0.1),\n])",
    "ModuleDict({\n  'a': ModuleList([\n    Dropout(0.1),\n  ]),\n})",
    "GPT(GPTConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=4, dropout=0.0, "
    "bias=False, positions='rotary', norm='rms', qk_norm=True, mlp='relu2', init='zero'))",
    "TransformerBlock(8, 2, bias=True, causal=True, dropout=0.0, mlp='relu2')",
    "MLP(4, bias=True, dropout=0.0, activation='relu2')",
]


@pytest.mark.parametrize("text", REPRS)
def test_a_repr_is_the_call_that_makes_the_module(text):
    names = {name: getattr(nn, name) for name in nn.__all__}
    assert repr(eval(text, {**names, "GPT": GPT, "GPTConfig": GPTConfig})) == text


def test_a_module_of_ones_own_shows_its_children_by_name():
    class Tiny(nn.Module):
        def __init__(self):
            self.up = nn.Linear(1, 2)
            self.chain = nn.Sequential(nn.Dropout(0.1))

    assert (
        repr(Tiny())
        == "Tiny(\n  up=Linear(1, 2, bias=True),\n  chain=Sequential(\n    Dropout(0.1),\n  ),\n)"
    )


@pytest.mark.parametrize(
    ("name", "counterpart"),
    [
        ("TransformerEncoderLayer", r"TransformerBlock\(n_embd, n_head, causal=False\)"),
        ("MultiheadAttention", "MultiHeadAttention"),
        ("Mish", r"F\.mish"),
        ("Conv2D", "Conv2d"),
        ("utils", r"optim\.clip_grad_norm_"),
    ],
)
def test_a_name_that_pytorch_has_leads_to_its_counterpart(name, counterpart):
    with pytest.raises(AttributeError, match=rf"'{name}'\. Use {counterpart}"):
        getattr(nn, name)
    with pytest.raises(AttributeError, match=r"no attribute 'Foo'$"):
        _ = nn.Foo


def test_a_method_of_pytorch_s_modules_leads_to_its_counterpart():
    layer = nn.Linear(2, 3)
    hints = {"cuda": "the module as it is", "half": r"module\.to", "compile": r"minigrad\.jit"}
    for name, hint in {**hints, "register_forward_hook": "a subclass"}.items():
        with pytest.raises(AttributeError, match=f"^'Linear' object has no .*'{name}'. Use {hint}"):
            getattr(layer, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        _ = layer.nonsense
    assert copy.deepcopy(layer).weight.tolist() == layer.weight.tolist()


def test_a_layer_with_a_device_or_a_dtype_says_what_to_do():
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose1d, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
    layers += (nn.BatchNorm1d, nn.InstanceNorm2d, nn.GroupNorm, nn.LSTM, nn.GRUCell)
    sizes = {nn.Conv2d: (2, 4, 1), nn.ConvTranspose1d: (2, 4, 1), nn.GroupNorm: (2, 4)}
    for make in layers:
        given = sizes.get(make, (2, 1)[: 2 - ("Norm" in make.__name__)])
        assert repr(make(*given, device="cpu")) == repr(make(*given, device=None))
        with pytest.raises(ConfigError, match=f"^{make.__name__}: no device 'cuda:0'"):
            make(*given, device="cuda:0")
    wanted = r"no argument is called (dtype|device); .* float32 on the CPU\n  module\.to"
    for make, name, value in [(nn.ReLU, "device", "cpu")] + [(m, "dtype", "half") for m in layers]:
        with pytest.raises(DTypeError, match=f"^{make.__name__}: {wanted}"):
            make(2, 3, 1, **{name: value})
    with pytest.raises(
        DTypeError, match=r"^GRU: no argument is called proj_size\n  GRU\(input_size,"
    ):
        nn.GRU(2, 3, proj_size=1)

    class Own(nn.Module):
        def __init__(self, device=None, **options):
            self.device, self.options = device, options

    assert Own(device="cpu", dtype="float32").options == {"dtype": "float32"}


def test_the_functions_are_found_where_pytorch_has_them():
    import minigrad.nn.functional as functional

    assert nn.functional is functional
    assert "gelu" in F.__all__ and "layer_norm" in F.__all__
    assert [name for name in F.__all__ if not hasattr(functional, name)] == []
