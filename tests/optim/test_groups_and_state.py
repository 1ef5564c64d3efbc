"""Parameter groups, settings that change in place, saving and loading, and what is refused."""

import copy
import math

import numpy as np
import pytest

from minigrad import Tensor, nn, optim
from minigrad.errors import ConfigError, DTypeError, StateDictError


def parameter(*values):
    p = Tensor(list(values), requires_grad=True)
    p.grad = Tensor([0.5] * len(values))
    return p


def test_groups_have_settings_of_their_own_and_defaults_for_the_rest():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.1)
    optimizer.step()
    assert (a.item(), b.item()) == (0.75, np.float32(1 - np.float32(0.1) * np.float32(0.5)))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]


def test_setting_lr_changes_every_group_in_place():
    optimizer = optim.AdamW([{"params": [parameter(1.0)], "lr": 0.5}, {"params": [parameter(1.0)]}])
    leaves = [group.settings for group in optimizer.param_groups]
    memory = [leaf.data for leaf in leaves]
    optimizer.lr = 0.25
    assert optimizer.lr == 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    assert all(
        group.settings is leaf for group, leaf in zip(optimizer.param_groups, leaves, strict=True)
    )
    assert all(
        leaf.data is m and leaf.data[0] == 0.25 for leaf, m in zip(leaves, memory, strict=True)
    )


def test_every_way_of_writing_a_setting_reaches_the_next_step():
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=0.1)
    optimizer.param_groups[0].update(lr=0.0)
    optimizer.step()
    assert p.item() == 1.0
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert p.item() == 0.5


def test_named_parameters_and_tinygrads_b1_b2_are_taken():
    optimizer = optim.Adam([("w", parameter(1.0)), ("b", parameter(1.0))], b1=0.8, b2=0.9)
    assert optimizer.param_groups[0]["param_names"] == ["w", "b"]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_a_generator_of_parameters_is_enough():
    p = parameter(1.0)
    optim.SGD((p for _ in range(1)), lr=1.0).step()
    assert p.item() == 0.5


def test_a_repr_is_the_constructor():
    assert (
        repr(optim.AdamW([parameter(1.0)], lr=0.1))
        == "AdamW(lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    )
    assert repr(optim.SGD([parameter(1.0)]).param_groups[0]).startswith(
        "ParamGroup(1 tensors, lr=0.001, momentum=0.0"
    )


def test_zero_grad_forgets_or_writes_zeros():
    p = parameter(1.0, 2.0)
    optimizer, gradient = optim.SGD([p]), p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is gradient
    assert p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("owner", ["module", "optimizer"])
def test_zeros_are_written_over_a_gradient_that_is_part_of_a_graph(owner):
    layer = nn.Linear(2, 1)
    clearing = layer if owner == "module" else optim.SGD(layer.parameters())
    (layer(Tensor([[1.0, 2.0]])) ** 3).sum().backward(create_graph=True)
    clearing.zero_grad(set_to_none=False)
    assert [p.grad.tolist() for p in layer.parameters()] == [[[0.0, 0.0]], [0.0]]
    assert not any(p.grad.requires_grad for p in layer.parameters())


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("lr", -1e-3),
        ("lr", math.nan),
        ("lr", math.inf),
        ("betas", (1.0, 0.9)),
        ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.9)),
        ("betas", (math.nan, 0.9)),
        ("eps", -1.0),
        ("weight_decay", -0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_given_and_when_written(setting, bad):
    with pytest.raises(ConfigError) as caught:
        optim.AdamW([parameter(1.0)], **{setting: bad})
    assert setting.rstrip("s") in str(caught.value)
    optimizer = optim.AdamW([parameter(1.0)])
    before = optimizer.param_groups[0].settings.data.copy()
    with pytest.raises(ConfigError):
        optimizer.param_groups[0][setting] = bad
    assert np.array_equal(optimizer.param_groups[0].settings.data, before)


@pytest.mark.parametrize(
    "settings", [{"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}]
)
def test_nesterov_wants_momentum_without_dampening(settings):
    with pytest.raises(ConfigError):
        optim.SGD([parameter(1.0)], **settings)


def test_a_parameter_given_twice_is_refused():
    p = parameter(1.0)
    for params in ([p, p], [{"params": [p]}, {"params": [p]}]):
        with pytest.raises(ConfigError, match="twice"):
            optim.AdamW(params)


def test_what_was_computed_is_refused_since_it_would_not_be_trained():
    w = parameter(1.0) * 2
    with pytest.raises(ConfigError, match=r"SGD: params\[0\] must be a leaf tensor, got"):
        optim.SGD([w], lr=0.1)
    w.retain_grad()
    optim.SGD([w, w.detach()], lr=0.1)


@pytest.mark.parametrize(("kind", "name"), [(optim.Adam, "foreach"), (optim.SGD, "maximize")])
def test_a_setting_that_there_is_not_is_named(kind, name):
    with pytest.raises(DTypeError, match=f"{kind.__name__}: no argument is called {name}"):
        kind([parameter(1.0)], **{name: True})


def test_what_is_no_list_of_floating_tensors_is_refused():
    with pytest.raises(ConfigError, match="no parameters"):
        optim.AdamW([])
    with pytest.raises(DTypeError, match="one tensor"):
        optim.AdamW(parameter(1.0))
    with pytest.raises(DTypeError, match=r"params\[1\]"):
        optim.AdamW([parameter(1.0), np.zeros(3)])
    with pytest.raises(DTypeError, match="int64"):
        optim.AdamW([Tensor([1, 2])])
    with pytest.raises(ConfigError, match="learning_rate"):
        optim.AdamW([{"params": [parameter(1.0)], "learning_rate": 0.1}])


# --- state

KINDS = [
    lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0.1),
    lambda ps: optim.AdamW([{"params": ps[:1], "lr": 0.3}, {"params": ps[1:]}], lr=0.1),
    lambda ps: optim.Adam([{"params": ps[:1], "amsgrad": True}, {"params": ps[1:]}], lr=0.1),
    lambda ps: optim.RMSprop(ps, momentum=0.9, centered=True),
    lambda ps: optim.RMSprop(ps),
]


def three(seed):
    rng = np.random.default_rng(seed)
    return [
        Tensor(rng.normal(size=s).astype(np.float32), requires_grad=True)
        for s in [(5, 3), (3,), (2,)]
    ]


def steps(optimizer, params, seed, n=4):
    rng = np.random.default_rng(seed)
    for i in range(n):
        for p in params:
            p.grad = Tensor(rng.normal(size=p.shape).astype(np.float32))
        params[2].grad = None if i % 2 else params[2].grad
        optimizer.step()


@pytest.mark.parametrize("make", KINDS)
def test_going_on_from_a_saved_state_is_going_on_without_a_break(make):
    params = three(0)
    optimizer = make(params)
    steps(optimizer, params, 1)
    saved, weights = optimizer.state_dict(), [p.data.copy() for p in params]
    steps(optimizer, params, 2)
    resumed = [Tensor(w, requires_grad=True) for w in weights]
    again = make(resumed)
    again.load_state_dict(saved)
    steps(again, resumed, 2)
    for p, q in zip(params, resumed, strict=True):
        assert np.array_equal(p.data, q.data)


def test_a_saved_state_does_not_change_as_training_goes_on():
    params = three(0)
    optimizer = optim.AdamW(params)
    steps(optimizer, params, 1)
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved)
    steps(optimizer, params, 2)
    optimizer.lr = 0.5
    assert saved["param_groups"] == before["param_groups"]
    for i, entry in saved["state"].items():
        assert entry["step"] == before["state"][i]["step"]
        assert np.array_equal(entry["exp_avg"].data, before["state"][i]["exp_avg"].data)


def broken(change):
    params = three(0)
    optimizer = optim.AdamW(params)
    steps(optimizer, params, 1)
    state = optimizer.state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["param_groups"][0]["params"].pop(),
        lambda s: s["param_groups"].append(s["param_groups"][0]),
        lambda s: s["param_groups"][0].pop("betas"),
        lambda s: s["state"][0].pop("exp_avg_sq"),
        lambda s: s["state"][2].update(exp_avg=Tensor([1.0, 2.0, 3.0])),
        lambda s: s.pop("state"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change):
    params = three(5)
    optimizer = optim.AdamW(params, lr=0.7)
    steps(optimizer, params, 6)
    before = optimizer.state_dict()
    with pytest.raises(StateDictError):
        optimizer.load_state_dict(broken(change))
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, entry in before["state"].items():
        assert all(
            np.array_equal(np.asarray(entry[k]), np.asarray(after["state"][i][k])) for k in entry
        )


def test_the_state_of_another_kind_of_optimizer_is_refused():
    saved = optim.SGD(three(0), momentum=0.9).state_dict()
    with pytest.raises(StateDictError, match="another kind"):
        optim.AdamW(three(0)).load_state_dict(saved)


def test_a_state_decides_whether_there_is_a_third_moment():
    params, others = three(0), three(0)
    with_top, without = optim.Adam(params, amsgrad=True), optim.Adam(others)
    steps(with_top, params, 1)
    steps(without, others, 1)
    saved = without.state_dict()
    for group in saved["param_groups"]:
        del group["amsgrad"]  # as earlier versions saved it
    optim.Adam(three(0)).load_state_dict(saved)
    assert "max_exp_avg_sq" not in without.state_dict()["state"][0]
    without.load_state_dict(with_top.state_dict())
    steps(with_top, params, 2)
    copies = [p.detach() for p in params]
    assert without.param_groups[0]["amsgrad"] is True
    assert "max_exp_avg_sq" in without.state_dict()["state"][0]
    assert all(np.isfinite(p.data).all() for p in copies)


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda ps: optim.Adam(ps), "amsgrad"), (lambda ps: optim.RMSprop(ps), "centered")],
)
def test_a_setting_that_decides_about_moments_does_not_change_later(make, name):
    optimizer = make(three(0))
    optimizer.param_groups[0][name] = False
    with pytest.raises(ConfigError, match=f"{name} cannot be changed"):
        optimizer.param_groups[0][name] = True


def test_numpy_numbers_and_tensors_are_settings_and_bools_are_not():
    optimizer = optim.AdamW([parameter(1.0)], lr=np.float32(0.5), betas=(np.float64(0.5), 0))
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.param_groups[0]["betas"] == (0.5, 0)
    assert type(optimizer.lr) is float
    for lr in (np.array(0.25), np.array([0.25]), Tensor(0.25), np.int64(2)):
        optimizer.lr = lr
        assert optimizer.lr == float(np.asarray(lr).item())
    for make, name in [
        (optim.AdamW, "lr"),
        (optim.AdamW, "weight_decay"),
        (optim.SGD, "momentum"),
        (optim.RMSprop, "alpha"),
        (optim.Adafactor, "clip"),
        (optim.Adafactor, "beta2_decay"),
    ]:
        for bad in (True, np.True_, "0.1", None, 1j, [0.1, 0.2]):
            with pytest.raises(ConfigError, match=name):
                make([parameter(1.0)], **{name: bad})
    assert (
        optim.Muon([Tensor(np.ones((2, 2)))], ns_steps=np.int64(3)).param_groups[0]["ns_steps"] == 3
    )
    for make, name in [
        (optim.AdamW, "amsgrad"),
        (optim.SGD, "nesterov"),
        (optim.RMSprop, "centered"),
    ]:
        with pytest.raises(ConfigError, match=name):
            make([parameter(1.0)], **{name: 1})
