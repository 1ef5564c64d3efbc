"""Attributes of containers, and items with names: keys, order and effect as in PyTorch."""

import copy
import inspect
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from minigrad import Tensor, functional as F, nn
from minigrad.errors import ConfigError


class Classifier(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(1, 2), F.relu)
        self.head = nn.Linear(2, 1)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter([2.0])
        self.register_buffer("count", Tensor([1]))


KEYS = ["0.bias", "0.weight", "count", "head.bias", "head.weight", "scale"]  # PyTorch's


def test_a_subclass_of_sequential_keeps_its_attributes():
    net = Classifier()
    assert sorted(net.state_dict()) == KEYS
    assert sorted(n for n, _ in net.named_parameters()) == [k for k in KEYS if k != "count"]
    assert not net.eval().drop.training
    assert (len(net), net[2] is net.head, net[-1] is net.drop) == (4, True, True)
    x = Tensor([[3.0]])
    assert np.array_equal(net(x).data, net.head(F.relu(net[0](x))).data)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert sorted(twin.state_dict()) == KEYS
        assert twin.head is not net.head
        assert np.array_equal(twin(x).data, net(x).data)
    net.head = nn.Linear(2, 3)
    assert net.eval()(x).shape == (1, 3)
    del net.head
    assert not hasattr(net, "head")
    assert "head.weight" not in net.state_dict()


def test_modules_parameters_and_buffers_of_every_container_are_found():
    layers = nn.ModuleList([nn.Linear(1, 1, bias=False)])
    layers.head = nn.Linear(1, 1, bias=False)
    layers += [nn.Linear(1, 1, bias=False)]
    named = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False)})
    named.lin = nn.Linear(1, 1, bias=False)
    assert named.lin is named["lin"]
    parameters = nn.ParameterList([Tensor([1.0])])
    dictionary = nn.ParameterDict({"a": Tensor([1.0])})
    dictionary.b = nn.Parameter([2.0])
    assert dictionary["b"] is dictionary.b
    items = {
        layers: ["0.weight", "head.weight", "2.weight"],
        named: ["a.weight", "lin.weight"],
        parameters: ["0"],
        dictionary: ["a", "b"],
    }
    for container, wanted in items.items():
        assert list(container.state_dict()) == wanted
        container.register_buffer("mean", Tensor([1.0]))
        container.scale = nn.Parameter([1.0])
        if container in (parameters, dictionary):
            container.drop = nn.Dropout(0.5)
            assert not container.eval().drop.training
        assert sorted(container.state_dict()) == sorted([*wanted, "mean", "scale"])
        assert container.scale in [*container.parameters()]
    assert [*parameters] == [parameters[0]]


def test_an_item_is_an_attribute_under_its_name():
    chain = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 3))
    setattr(chain, "1", nn.Linear(2, 4))
    assert getattr(chain, "1") is chain[1]
    assert chain(Tensor([[1.0]])).shape == (1, 4)
    with pytest.raises(AttributeError, match="2"):
        getattr(chain, "2")


def test_a_dict_gives_the_modules_of_a_sequential_names():
    net = nn.Sequential(OrderedDict(fc=nn.Linear(3, 4), act=F.relu, out=nn.Linear(4, 2)))
    assert list(net.state_dict()) == ["fc.weight", "fc.bias", "out.weight", "out.bias"]
    assert net.fc is net[0]
    assert [*net[1:].state_dict()] == ["out.weight", "out.bias"]
    assert net(Tensor.ones(1, 3)).shape == (1, 2)
    net.append(nn.Linear(2, 2))
    assert "3.weight" in net.state_dict()
    net[0] = nn.Linear(3, 4, bias=False)
    del net[2]
    assert [*net.state_dict()] == ["fc.weight", "2.weight", "2.bias"]
    again = eval(repr(net), {**vars(nn), "relu": F.relu})
    assert repr(again) == repr(net)
    assert "'fc': Linear" in repr(net)
    for wrong in ({"a.b": nn.Tanh()}, {"": nn.Tanh()}, {"a": 3}):
        with pytest.raises(ConfigError):
            nn.Sequential(wrong)
    with pytest.raises(ConfigError, match="attribute"):
        named = nn.ModuleDict()
        named.register_buffer("mean", Tensor([1.0]))
        named["mean"] = nn.Tanh()


def test_names_and_order_are_pytorchs():
    torch = pytest.importorskip("torch")
    source = inspect.getsource(Classifier)
    source = source.replace("F.relu", "nn.ReLU()").replace("[2.0]", "Tensor([2.0])")
    namespace = {"nn": torch.nn, "F": torch.nn.functional, "Tensor": torch.tensor}
    exec(source, namespace)
    theirs, ours = namespace["Classifier"](), Classifier()
    assert sorted(theirs.state_dict()) == sorted(ours.state_dict()) == KEYS
    assert [n for n, _ in theirs.named_children()] == [n for n, _ in ours.named_children()]
    assert len(theirs) == len(ours)
