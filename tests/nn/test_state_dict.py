"""Weights by name: snapshots, and loading that is all or nothing."""

import numpy as np
import pytest

from minigrad import Tensor, nn, no_grad
from minigrad.errors import ReadOnlyError, StateDictError


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))


def bits(module):
    return {name: (t.data.tobytes(), t.dtype, t.shape) for name, t in module.state_dict().items()}


def test_a_round_trip_through_arrays_or_tensors_keeps_every_bit():
    for convert in (lambda t: t, lambda t: t.data, lambda t: t.numpy()):
        a, b = model(), model()
        assert b.load_state_dict({name: convert(t) for name, t in a.state_dict().items()}) == (
            [],
            [],
        )
        assert bits(a) == bits(b)


def test_a_state_dict_is_a_snapshot():
    a = model()
    saved = a.state_dict()
    before = {name: t.data.copy() for name, t in saved.items()}
    with no_grad():
        for p in a.parameters():
            p.assign(9.0)
    assert all(np.array_equal(saved[name].data, before[name]) for name in before)
    a.load_state_dict(saved)
    assert all(np.array_equal(t.data, before[name]) for name, t in a.state_dict().items())


def test_loading_writes_into_the_memory_that_is_there():
    a = model()
    parameters = list(a.parameters())
    memory = [p.data for p in parameters]
    a.load_state_dict(model().state_dict())
    assert all(
        p is q and p.data is m for p, q, m in zip(a.parameters(), parameters, memory, strict=True)
    )
    assert all(p.requires_grad for p in a.parameters())


def test_floats_of_another_width_are_cast_and_bfloat16_keeps_its_values():
    a = model()
    wide = {name: t.data.astype(np.float64) for name, t in a.state_dict().items()}
    b = model()
    b.load_state_dict(wide)
    assert bits(a) == bits(b)
    halves = model().to("bfloat16").state_dict()
    b.load_state_dict(halves)
    assert all(
        np.array_equal(t.data, halves[name].float().data) for name, t in b.state_dict().items()
    )


def test_tied_weights_have_all_their_names_and_stay_tied():
    def tied():
        net = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
        net["b"].weight = net["a"].weight
        return net

    first, second = tied(), tied()
    assert list(first.state_dict()) == ["a.weight", "b.weight"]
    second.load_state_dict(first.state_dict())
    assert second["a"].weight is second["b"].weight
    assert bits(first) == bits(second)


def changed(change):
    weights = model().state_dict()
    change(weights)
    return weights


BAD = {
    "missing": lambda w: w.pop("0.weight"),
    "unexpected": lambda w: w.update(extra=Tensor([1.0])),
    "renamed": lambda w: w.update({"0.wieght": w.pop("0.weight")}),
    "another shape": lambda w: w.update({"2.weight": Tensor.zeros(2, 5)}),
    "that would broadcast": lambda w: w.update({"0.bias": Tensor.zeros(1)}),
    "transposed": lambda w: w.update({"0.weight": Tensor.zeros(3, 4)}),
    "integers": lambda w: w.update({"0.bias": Tensor([1, 2, 3, 4])}),
}


@pytest.mark.parametrize("kind", BAD)
def test_weights_that_do_not_fit_leave_the_model_bit_identical(kind):
    a = model()
    before = bits(a)
    with pytest.raises(StateDictError):
        a.load_state_dict(changed(BAD[kind]))
    assert bits(a) == before


def test_memory_that_is_read_only_is_found_before_anything_is_written():
    a = model()
    a[2].weight.data.flags.writeable = False
    before = bits(a)
    with pytest.raises(ReadOnlyError, match=r"2\.weight"):
        a.load_state_dict(model().state_dict())
    assert bits(a) == before


@pytest.mark.parametrize("given", ["model.mgrd", None, ["weight"]])
def test_what_is_not_a_dict_is_refused_as_such(given):
    with pytest.raises(StateDictError, match=r"Linear\.load_state_dict: not a dict of names"):
        nn.Linear(2, 2).load_state_dict(given)


def test_the_error_lists_every_name_with_the_nearest_one():
    with pytest.raises(StateDictError) as caught:
        model().load_state_dict(changed(lambda w: (BAD["renamed"](w), BAD["another shape"](w))))
    error = caught.value
    assert error.got == {
        "missing": ["0.weight"],
        "unexpected": ["0.wieght"],
        "mismatched": ["2.weight"],
    }
    assert "missing: 0.weight (given is 0.wieght)" in str(error)
    assert "unexpected: 0.wieght (the model has 0.weight)" in str(error)
    assert "mismatched: 2.weight: float32[2, 5] for float32[2, 4]" in str(error)


def test_the_error_lists_at_most_20_of_each():
    big = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(50))
    with pytest.raises(StateDictError) as caught:
        big.load_state_dict({})
    assert len(caught.value.got["missing"]) == 50
    assert str(caught.value).count("missing:") == 21
    assert "and 30 more" in str(caught.value)


def test_not_strict_loads_what_fits_and_says_what_did_not():
    a, weights = model(), changed(lambda w: (w.pop("0.weight"), w.update(extra=Tensor([1.0]))))
    own = a[0].weight.data.copy()
    loaded = a.load_state_dict(weights, strict=False)
    assert loaded.missing == ["0.weight"]
    assert loaded.unexpected == ["extra"]
    assert np.array_equal(a[0].weight.data, own)
    assert np.array_equal(a[2].weight.data, weights["2.weight"].data)
    with pytest.raises(StateDictError):
        a.load_state_dict(changed(BAD["another shape"]), strict=False)
