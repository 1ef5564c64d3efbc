"""GPT: its sizes, its numbers with and without a cache, and generation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import minigrad
from minigrad import Tensor, nn, optim
from minigrad.errors import (
    CacheError,
    ConfigError,
    DTypeError,
    GradientError,
    IndexRangeError,
    ShapeError,
)
from minigrad.models import GPT, GPTConfig
from minigrad.models.gpt import ARCHITECTURES
from tests.models.architectures import config

pytestmark = pytest.mark.usefixtures("architecture")


def gpt(seed=0, scale=3.0, **sizes):
    """A small GPT with weights large enough that its logits differ."""
    minigrad.manual_seed(seed)
    model = GPT(
        config(
            **{"vocab_size": 17, "block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 16, **sizes}
        )
    )
    for p in model.parameters():
        if p.ndim == 2:
            p.data *= scale
    return model.eval()


def tokens(*shape, seed=0, vocab_size=17):
    return np.random.default_rng(seed).integers(0, vocab_size, shape)


# --- the model


def test_logits_are_those_of_the_parts_put_together():
    model, x = gpt(), tokens(3, 9)
    h = model.wte(Tensor(x))
    if model.wpe is not None:
        h = h + model.wpe(Tensor(np.arange(9)))
    for block in model.h:
        h = block(h)
    wanted = model.ln_f(h) @ model.wte.weight.transpose(0, 1)
    assert np.allclose(model(Tensor(x)).data, wanted.data, atol=1e-6)
    assert np.array_equal(model(x.tolist()).data, model(x).data)


def test_the_first_loss_is_that_of_a_uniform_guess():
    minigrad.manual_seed(0)
    model = GPT(config(vocab_size=65, block_size=32))
    loss = model.loss(tokens(4, 32, vocab_size=65), tokens(4, 32, seed=1, vocab_size=65))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.log(65), abs=0.05)


def test_first_values_of_gpt_2():
    minigrad.manual_seed(0)
    model = GPT(GPTConfig.gpt2(vocab_size=300, block_size=100, n_layer=8, n_head=2, n_embd=128))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.data.any(), name
        elif p.ndim == 1:
            assert (p.data == 1).all(), name
        else:
            residual = name.endswith(("out_proj.weight", "c_proj.weight"))
            assert p.data.std() == pytest.approx(0.005 if residual else 0.02, rel=0.03), name


@pytest.mark.parametrize("mlp", ["swiglu", "gelu", "relu2"])
def test_each_block_begins_as_the_identity(mlp):
    minigrad.manual_seed(0)
    model, x = GPT(GPTConfig(300, 100, 4, 2, 128, mlp=mlp)), tokens(2, 50)
    wanted = nn.functional.rms_norm(model.wte(Tensor(x)), 128)
    assert np.allclose(model._hidden(x, None, None).data, wanted.data, atol=1e-5)
    for name, p in model.named_parameters():
        if name.endswith(("out_proj.weight", "c_proj.weight", "down_proj.weight")):
            assert not p.data.any(), name
        elif p.ndim == 2 and name != "wte.weight":
            assert p.data.std() == pytest.approx(128**-0.5, rel=0.03), name


@pytest.mark.parametrize("mlp", ["swiglu", "gelu", "relu2"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_parts_go_together(mlp, norm, positions):
    model = gpt(mlp=mlp, norm=norm, positions=positions, bias=True, qk_norm=True)
    assert list(model.generate([1, 2], 8, temperature=0, jit=True)) == list(
        model.generate([1, 2], 8, temperature=0, use_cache=False)
    )
    x = tokens(1, 6)
    model.loss(x[:, :-1], x[:, 1:]).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.data.any(), name


def test_a_saved_config_without_parts_is_gpt_2s():
    sizes = {"vocab_size": 9, "block_size": 8, "n_layer": 1, "n_head": 1, "n_embd": 8}
    old = {**sizes, "dropout": 0.0, "bias": True}
    assert GPTConfig.from_dict(old) == GPTConfig.gpt2(**sizes)
    assert GPTConfig.from_dict({**old, "bias": False}) == GPTConfig.gpt2(**sizes, bias=False)
    for options in ARCHITECTURES.values():
        made = GPTConfig(**sizes, **options)
        assert GPTConfig.from_dict(dataclasses.asdict(made)) == made


def test_embedding_and_head_are_one_parameter(architecture):
    names = [name for name, _ in gpt().named_parameters()]
    if architecture == "gpt2":
        assert names[:3] == ["wte.weight", "wpe.weight", "h.0.ln_1.weight"]
        assert len(names) == 2 + 2 * 12 + 2
        assert len(list(gpt(bias=False).parameters())) == 2 + 2 * 6 + 1
    else:
        assert names[:2] == ["wte.weight", "h.0.ln_1.weight"]
        assert len(names) == 1 + 2 * 9 + 1
    model = gpt()
    model.loss(tokens(2, 5), tokens(2, 5, seed=1)).backward()
    assert model.wte.weight.grad.data.any(axis=1).all()


def test_a_token_sees_nothing_after_it():
    model, x, j = gpt(), tokens(2, 12, vocab_size=16), 7
    clean = model(x).data
    x[:, j] = 16
    model.wte.weight.data[16] = np.nan
    with np.errstate(all="ignore"):
        spoilt = model(x).data
    assert np.array_equal(spoilt[:, :j, :16], clean[:, :j, :16])
    assert np.isnan(spoilt[:, j:]).all()


def test_a_row_alone_is_the_row_in_a_batch():
    model, x = gpt(), tokens(5, 10)
    whole = model(x).data
    for b in range(5):
        alone = model(x[b : b + 1]).data[0]
        assert np.abs(alone - whole[b]).max() <= 8 * np.finfo(np.float32).eps * np.abs(whole).max()


def test_the_same_seed_gives_the_same_losses_and_bytes():
    def train():
        minigrad.manual_seed(5)
        model = GPT(config(17, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1))
        optimizer, losses = optim.AdamW(model.parameters(), lr=1e-2), []
        for step in range(8):
            optimizer.zero_grad()
            loss = model.loss(tokens(4, 8, seed=step), tokens(4, 8, seed=step + 1))
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        return losses, [t.data.tobytes() for t in model.state_dict().values()]

    assert train() == train()


def test_it_learns_a_sequence_by_heart():
    model = gpt(scale=1.0).train()
    x = tokens(1, 25)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(x[:, :-1], x[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert list(model.generate(x[0, :5], 20, temperature=0)) == x[0, 5:].tolist()


# --- caches


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_decoding_in_random_chunks_is_the_full_forward_to_rounding(data):
    model = gpt(block_size=100, seed=data.draw(st.integers(0, 3)))
    T = data.draw(st.integers(1, 100))
    x = tokens(2, T, seed=data.draw(st.integers(0, 100)))
    full = model(x).data
    caches, at = model.make_caches(), 0
    while at < T:
        if at and data.draw(st.integers(0, 9)) == 0:
            at = data.draw(st.integers(0, at))
            for cache in caches:
                cache.truncate(at)
        n = data.draw(st.integers(1, min(T - at, 40)))
        logits = model(x[:, at : at + n], caches=caches).data
        assert (
            np.abs(logits - full[:, at : at + n]).max()
            <= 8 * np.finfo(np.float32).eps * np.abs(full).max()
        )
        at += n


def test_reordered_caches_go_on_as_the_rows_they_were():
    model, x = gpt(), tokens(3, 10)
    caches = model.make_caches()
    model(x, caches=caches)
    for cache in caches:
        cache.reorder([2, 0])
    more = tokens(2, 3, seed=1)
    got = model(more, caches=caches).data
    full = model(np.concatenate([x[[2, 0]], more], 1)).data[:, 10:]
    assert np.abs(got - full).max() <= 8 * np.finfo(np.float32).eps * np.abs(full).max()


def test_an_exception_in_any_layer_leaves_all_caches_at_one_length():
    model, x = gpt(), tokens(1, 6)
    full = model(x).data
    caches = model.make_caches()
    model(x[:, :4], caches=caches)

    class Broken(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    mlp, model.h[1].mlp = model.h[1].mlp, Broken()
    with pytest.raises(KeyboardInterrupt):
        model(x[:, 4:], caches=caches)
    assert [cache.length for cache in caches] == [4, 4]
    model.h[1].mlp = mlp
    assert np.allclose(model(x[:, 4:], caches=caches).data, full[:, 4:], atol=1e-5)


def test_a_full_context_is_refused_with_the_caches_as_they_were():
    model = gpt()
    caches = model.make_caches()
    model(tokens(1, 20), caches=caches)
    with pytest.raises(ShapeError) as caught:
        model(tokens(1, 5), caches=caches)
    assert (caught.value.got, caught.value.wanted) == (25, 24)
    small = model.make_caches(capacity=10)
    with pytest.raises(CacheError):
        model(tokens(1, 11), caches=small)
    assert [c.length for c in (*caches, *small)] == [20, 20, 0, 0]


def test_caches_of_another_model_or_of_two_lengths_are_refused():
    model = gpt()
    caches = model.make_caches()
    model(tokens(1, 4), caches=caches)
    for wrong in (caches[:1], gpt(n_layer=3).make_caches()):
        with pytest.raises(CacheError, match="make_caches"):
            model(tokens(1, 1), caches=wrong)
    caches[0].truncate(2)
    with pytest.raises(CacheError):
        model(tokens(1, 1), caches=caches)


def test_no_gradient_is_asked_of_a_cached_forward():
    model = gpt()
    with pytest.raises(GradientError):
        model(tokens(1, 4), caches=model.make_caches()).sum().backward()


# --- generation


def test_greedy_tokens_are_the_same_with_and_without_a_cache():
    model = gpt(scale=20.0, block_size=256)
    with_cache = list(model.generate([1, 2, 3], 200, temperature=0))
    assert with_cache == list(model.generate([1, 2, 3], 200, temperature=0, use_cache=False))
    assert len(set(with_cache)) > 1


def test_generation_goes_on_past_the_context_the_same_with_and_without_a_cache():
    model = gpt(block_size=8)
    runs = [
        list(model.generate([1, 2, 3], 60, seed=3, use_cache=use_cache))
        for use_cache in (True, False)
    ]
    assert runs[0] == runs[1]
    assert list(model.generate(tokens(50), 5, seed=1)) == list(
        model.generate(tokens(50)[-8:], 5, seed=1)
    )


def test_a_batch_of_prompts_gives_the_rows_greedily_that_each_gives_alone():
    model, prompts = gpt(), tokens(3, 4)
    together = np.stack(list(model.generate(prompts, 10, temperature=0)), 1)
    for row, prompt in zip(together, prompts, strict=True):
        assert row.tolist() == list(model.generate(prompt, 10, temperature=0))


def test_a_seed_fixes_the_draws_and_none_goes_on_with_the_librarys_generator():
    model = gpt()
    assert list(model.generate([1], 20, seed=4)) == list(model.generate([1], 20, seed=4))
    assert list(model.generate([1], 20, seed=4)) != list(model.generate([1], 20, seed=5))
    minigrad.manual_seed(9)
    first = list(model.generate([1], 20))
    assert first != list(model.generate([1], 20))
    minigrad.manual_seed(9)
    assert first == list(model.generate([1], 20))


def test_tokens_stream_and_leave_modes_alone_between_them():
    model = gpt(dropout=0.5).train()
    model.h[0].eval()
    flags = [m.training for m in model.modules()]
    stream = model.generate([1, 2], 5, temperature=0)
    first = [next(stream), next(stream)]
    assert minigrad.is_grad_enabled()
    assert [m.training for m in model.modules()] == flags
    assert first + list(stream) == list(model.eval().generate([1, 2], 5, temperature=0))


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ConfigError, {"temperature": -1.0}),
        (ConfigError, {"temperature": float("nan")}),
        (ConfigError, {"top_k": 0}),
        (ConfigError, {"top_p": 0.0}),
        (ConfigError, {"top_p": 1.1}),
        (ConfigError, {"max_new_tokens": -1}),
        (ShapeError, {"prompt": []}),
        (ShapeError, {"prompt": 3}),
        (DTypeError, {"prompt": [0.5]}),
        (IndexRangeError, {"prompt": [17]}),
        (IndexRangeError, {"prompt": [-1]}),
    ],
)
def test_bad_arguments_are_refused_at_the_call(error, arguments):
    with pytest.raises(error):
        gpt().generate(**{"prompt": [1], "max_new_tokens": 3, **arguments})


@pytest.mark.parametrize(
    "wrong",
    [
        {"vocab_size": 0},
        {"block_size": -1},
        {"n_layer": 1.5},
        {"n_head": 3},
        {"n_embd": True},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": "0"},
        {"bias": 1},
        {"qk_norm": None},
        {"positions": "sinus"},
        {"norm": "batch"},
        {"mlp": "relu"},
        {"init": "ones"},
        {"n_head": 128},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError) as caught:
        GPTConfig(**{"vocab_size": 17, **wrong})
    assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize("wrong", [[1, 2], [[]], [[[1]]]])
def test_tokens_of_the_wrong_shape_are_refused(wrong):
    with pytest.raises(ShapeError):
        gpt()(np.array(wrong, dtype=np.int64))


def test_a_token_out_of_the_vocabulary_is_refused():
    for bad in (17, -1):
        with pytest.raises(IndexRangeError):
            gpt()([[1, bad]])
