"""GPT: a decoder-only transformer. Its parts are options; the default is today's form, with rotary
positions, RMSNorm and SwiGLU, and `GPTConfig.gpt2` is that of GPT-2 (Radford et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minigrad import functional as F
from minigrad.arguments import as_float, as_int, one_of, require
from minigrad.autograd import no_grad
from minigrad.dtypes import Array, cast, computing, float32, float64, is_half
from minigrad.errors import CacheError, ConfigError, ShapeError
from minigrad.models.batch import Batch
from minigrad.models.prompts import checked_prompt, evaluating, generator_of, parts, stop_mask
from minigrad.models.sampling import Sampling, log_probability
from minigrad.nn import init
from minigrad.nn.attention import KVCache, StaticCache, check_heads
from minigrad.nn.cache import without_gradient
from minigrad.nn.containers import ModuleList
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, RMSNorm
from minigrad.nn.module import Module
from minigrad.nn.transformer import TransformerBlock
from minigrad.random import Generator
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from minigrad.models.decoding import Decoder


_MODERN: dict[str, Any] = {
    "bias": False,
    "positions": "rotary",
    "norm": "rms",
    "qk_norm": True,
    "mlp": "swiglu",
    "init": "zero",
}
# The parts of known architectures; those of "modern" are the defaults of GPTConfig.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "modern": _MODERN,
    "llama": {**_MODERN, "qk_norm": False, "init": "gpt2"},
    "gpt2": {
        "bias": True,
        "positions": "learned",
        "norm": "layer",
        "qk_norm": False,
        "mlp": "gelu",
        "init": "gpt2",
    },
}
_CHOICES = {
    "positions": ("rotary", "learned"),
    "norm": ("rms", "layer"),
    "mlp": ("swiglu", "gelu", "relu2"),
    "init": ("zero", "gpt2"),
}
_LOGITS = 1 << 21  # that are computed at a time, where not all are needed at once
# The projections into the residual sum.
_RESIDUAL = ("out_proj.weight", "c_proj.weight", "down_proj.weight")


@dataclass(frozen=True)
class GPTConfig:
    """The sizes and parts of a GPT. Raises ConfigError for an invalid one.

    vocab_size: number of tokens.  block_size: longest context.  n_layer blocks of n_head heads,
        n_embd wide.  dropout: on embeddings, attention weights and residual sums.  bias: whether
        Linear and LayerNorm have one.
    positions: "rotary", turning queries and keys, or "learned", a table added to the embeddings.
    norm: "rms" or "layer".   qk_norm: RMSNorm over each head of queries and keys.
    mlp: "swiglu", "gelu" or "relu2".   init: "zero" or "gpt2", see `GPT`.
    """

    vocab_size: int
    block_size: int = 256
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False
    positions: Literal["rotary", "learned"] = "rotary"
    norm: Literal["rms", "layer"] = "rms"
    qk_norm: bool = True
    mlp: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    init: Literal["zero", "gpt2"] = "zero"

    @classmethod
    def gpt2(cls, vocab_size: int, *sizes: Any, **options: Any) -> GPTConfig:
        """Return the config of a GPT-2: learned positions, LayerNorm, GELU, biases, its
        initialisation. Arguments are those of GPTConfig and override these.
        """
        return cls(vocab_size, *sizes, **{**ARCHITECTURES["gpt2"], **options})

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> GPTConfig:
        """Return the config of a saved model, from `dataclasses.asdict(config)`. Files from before
        there was a choice name no parts: theirs are GPT-2's.
        """
        return cls(**saved) if "positions" in saved else cls.gpt2(**saved)

    def __post_init__(self) -> None:
        for name in ("bias", "qk_norm"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                problem = f"{name} must be True or False, got {value!r}"
                raise ConfigError("GPTConfig", problem, got=value, wanted="True or False")
        plain: dict[str, Any] = {
            name: as_int("GPTConfig", name, getattr(self, name))
            for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        }
        plain["dropout"] = as_float("GPTConfig", "dropout", self.dropout, 0, 1, below=True)
        plain |= {"bias": bool(self.bias), "qk_norm": bool(self.qk_norm)}
        vars(self).update(plain)  # Python numbers in place of numpy's, so that they can be saved
        for name, choices in _CHOICES.items():
            one_of("GPTConfig", name, getattr(self, name), choices)
        check_heads("GPTConfig", self.n_embd, self.n_head)
        even = self.positions != "rotary" or self.n_embd // self.n_head % 2 == 0
        hint = "n_embd / n_head even, or positions='learned'"
        wanted = "heads of an even width with rotary positions"
        require(even, "GPTConfig", "n_head", self.n_head, wanted, hint)


class GPT(Module):
    """Tokens in, logits of the next token out; embedding and head share their weights.

    x = wte[tokens] (+ wpe[0..T-1] with learned positions)
    x = h_i(x) for each block;   logits = ln_f(x) wte^T

    tokens: (B, T) integers, T <= block_size   ->   (B, T, vocab_size)
    First values, init="zero": normal; embeddings with standard deviation 0.02, matrices of
        M inputs with M^-1/2, the projections into the residual sum zero, so that each block begins
        as the identity. "gpt2": all with 0.02, the projections into the residual sum with
        1 / sqrt(2 n_layer) times that. Biases 0.
    """

    def __init__(self, config: GPTConfig) -> None:
        self.config = config
        width, learned = config.n_embd, config.positions == "learned"
        self.wte = Embedding(config.vocab_size, width)
        self.wpe = Embedding(config.block_size, width) if learned else None
        self.drop = Dropout(config.dropout)
        self.h = ModuleList(
            TransformerBlock(
                width,
                config.n_head,
                bias=config.bias,
                dropout=config.dropout,
                norm=config.norm,
                mlp=config.mlp,
                rope=None if learned else "half",
                qk_norm=config.qk_norm,
            )
            for _ in range(config.n_layer)
        )
        self.ln_f = RMSNorm(width) if config.norm == "rms" else LayerNorm(width, bias=config.bias)
        self._caches: list[KVCache] | None = None
        self._decoders: dict[int, Decoder] = {}  # idle ones, by batch
        self._initialise()

    def _initialise(self) -> None:
        zero, n_layer = self.config.init == "zero", self.config.n_layer
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                init.zeros_(p)
            elif p.ndim == 2:
                std = 0.02
                if name.endswith(_RESIDUAL):
                    std = 0.0 if zero else std / math.sqrt(2 * n_layer)
                elif zero and name.startswith("h."):
                    std = p.shape[1] ** -0.5
                init.normal_(p, std=std)

    def forward(
        self, tokens: Any, *, caches: Sequence[KVCache] | None = None, pad: Any = None
    ) -> Tensor:
        """The logits at each position.

        pad: (B,), how many tokens at the start of each row, caches included, are padding: no
            token attends to them, and positions are counted without them. Their own logits mean
            nothing.
        caches: one per layer, from `make_caches()`, with all earlier positions of the conversation;
            `tokens` are those that follow. Nothing is recorded for backward then: a later
            backward() through the logits raises CacheGradientError. Raises CacheError, with the
            caches as they were, if there is no room left or they do not fit.
        """
        caches = self._caches if caches is None else caches
        if caches is None:
            return self._head(self._hidden(tokens, None, pad))  # (B, T, V)
        with no_grad():
            logits = self._head(self._hidden(tokens, caches, pad))
        return without_gradient(logits, self.parameters())

    def loss(self, tokens: Any, targets: Any) -> Tensor:
        """The mean cross-entropy in nats of the targets, (B, T), a 0-d tensor, float32 for 16-bit
        weights too. A target of -100 does not count.
        """
        logits = self._head(self._hidden(tokens, None, None))  # (B, T, V)
        logits = logits.float() if is_half(logits.dtype) else logits
        return F.cross_entropy(logits, targets, axis=-1)

    def logits_in_parts(self, tokens: Any) -> Iterator[tuple[Any, Tensor]]:
        """Yield the logits of tokens, (B, T), in parts with their index in (B, T): (B, t, V). With
        many words, all of them may take more memory than the model.
        """
        if type(self).forward is not GPT.forward:  # a subclass with other logits
            yield ..., self(tokens)
            return
        x = self._hidden(tokens, None, None)  # (B, T, C)
        step = max(_LOGITS // (x.shape[0] * self.config.vocab_size), 1)
        for start in range(0, x.shape[1], step):
            part = np.s_[:, start : start + step]
            yield part, self._head(x[part])

    def _head(self, x: Tensor) -> Tensor:
        """The logits of what the blocks say: (..., C) -> (..., V)."""
        return F.linear(x, self.wte.weight)

    def _hidden(self, tokens: Any, caches: Sequence[KVCache] | None, pad: Any) -> Tensor:
        """What the head reads, (B, T, C)."""
        tokens = tokens if isinstance(tokens, Tensor) else Tensor(tokens)
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            problem = f"tokens of shape {tokens.shape}"
            hint = "a batch of at least one token each: [[1, 2, 3]]"
            raise ShapeError("GPT", problem, got=tokens.shape, wanted=("B", "T"), hint=hint)
        if caches is None:
            return self._blocks(tokens, 0, [None] * len(self.h), pad)
        start = self._common_length(caches)
        try:
            return self._blocks(tokens, start, caches, pad)
        except BaseException:
            for cache in caches:
                cache.truncate(start)  # only some layers have appended
            raise

    def _blocks(
        self, tokens: Tensor, start: int, caches: Sequence[KVCache | None], pad: Any
    ) -> Tensor:
        stop = start + tokens.shape[1]
        if stop > self.config.block_size:
            problem = f"{stop} positions, but block_size={self.config.block_size}"
            hint = "give the last block_size tokens only"
            call = type(self).__name__
            raise ShapeError(call, problem, got=stop, wanted=self.config.block_size, hint=hint)
        if pad is None:
            mask = None
        else:
            first = self._checked_pad(pad, tokens.shape[0])[:, None]  # (B, 1)
            mask = (np.arange(stop) >= first)[:, None, None, :]  # (B, 1, 1, S)
        x = self.wte(tokens)  # (B, T, C)
        if self.wpe is not None:
            places = np.arange(start, stop)
            x = x + (
                self.wpe.weight[start:stop]
                if pad is None
                else self.wpe(Tensor(np.maximum(places - first, 0)))
            )
        x = self.drop(x)
        for block, cache in zip(self.h, caches, strict=True):
            x = block(x, mask=mask, cache=cache)
        return self.ln_f(x)

    def _checked_pad(self, pad: Any, batch: int) -> Array:
        counts = np.asarray(pad.data if isinstance(pad, Tensor) else pad)
        if counts.shape != (batch,) or counts.dtype.kind not in "iu" or counts.min(initial=0) < 0:
            problem = f"pad={pad!r} for a batch of {batch}"
            hint = "one integer >= 0 per row"
            raise ShapeError("GPT", problem, got=counts.shape, wanted=(batch,), hint=hint)
        return counts

    def _common_length(self, caches: Sequence[KVCache]) -> int:
        lengths = [cache.length for cache in caches]
        if len(lengths) != len(self.h) or len(set(lengths)) != 1:
            problem = f"caches of lengths {lengths} for {len(self.h)} layers"
            hint = "caches = model.make_caches()"
            wanted = "one per layer, of one length"
            raise CacheError("GPT", problem, got=lengths, wanted=wanted, hint=hint)
        return lengths[0]

    def make_caches(self, capacity: int | None = None) -> list[KVCache]:
        """Empty caches for one conversation of up to `capacity` positions (block_size unless
        given): one per layer.
        """
        return [KVCache(self.config.block_size if capacity is None else capacity) for _ in self.h]

    def enable_kv_cache(self, capacity: int | None = None) -> list[KVCache]:
        """Keep caches in the model, for one conversation; returns them. Calls without `caches`
        continue where the last one ended.
        """
        self._caches = self.make_caches(capacity)
        return self._caches

    def disable_kv_cache(self) -> None:
        """Forget the model's own caches."""
        self._caches = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_caches": None, "_decoders": {}}  # caches are never saved

    def generate(
        self,
        prompt: Any,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        use_cache: bool = True,
        jit: bool = False,
        return_log_probs: bool = False,
        stop_tokens: Sequence[int] = (),
    ) -> Iterator[Any]:
        """Yield max_new_tokens tokens that continue the prompt, one by one.

        prompt: (T,) tokens, then ints are yielded; or (B, T), or a list of prompts of different
            lengths, then arrays (B,).
        temperature, top_k, top_p, min_p, repetition_penalty: see `sampling.Sampling`; the penalty
            looks at the context that the model sees.
        seed: of the draws; None goes on with the library's generator.   use_cache=False computes
            the whole context for every token.
        jit: from the third token on by one compiled step, kept by the model: several times faster,
            after a second or two of compiling the first time. Groups of up to 64 tokens, which take
            about 50 ms, are made ahead. Once reading prompts has cost as much as compiling, a
            second step reads those of 64 tokens or more. The same tokens come, but for ties within
            rounding. float32 and float64 models are compiled, others are not.
        return_log_probs: yield pairs (token, log p) instead, p the model's own probability of that
            token, whatever temperature and the others have made of it; for a batch, (B,) and (B,)
            float64.
        stop_tokens: end after one of these. A row of a batch that has made one repeats it (with log
            p 0) until each has, and is no longer computed, unless jit: its compiled step is for all
            rows. The draws of a row do not depend on the others.
        When the context is full, its older half is dropped (in a batch: when that of the longest
        is). Dropout is off meanwhile. Raises ConfigError, ShapeError, DTypeError or IndexRangeError
        for bad arguments, at the call.
        """
        how = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        count = as_int("generate", "max_new_tokens", max_new_tokens, least=0)
        if jit and not use_cache:
            problem = "jit=True with use_cache=False"
            hint = "the compiled step works with a cache"
            raise ConfigError("generate", problem, got=False, wanted=True, hint=hint)
        tokens, pad = checked_prompt("generate", prompt, self.config.vocab_size)
        stops = stop_mask("generate", stop_tokens, self.config.vocab_size)
        caches = self.make_caches if use_cache else lambda: None
        batch = Batch(np.atleast_2d(tokens), pad, stops, self.config.block_size, caches)
        generator = generator_of("generate", seed)
        made = self._generate(batch, count, how, generator, jit, return_log_probs)
        if tokens.ndim == 1:
            made = ((int(row[0]), float(logp[0])) for row, logp in made)
        return made if return_log_probs else (token for token, _ in made)

    def _generate(
        self, batch: Batch, count: int, how: Sampling, generator: Generator, jit: bool, scored: bool
    ) -> Iterator[Any]:
        """Yield pairs (tokens, scores), (B,) each; scores are 0 unless `scored`."""
        size, decoder = batch.size, None
        ahead: Iterator[tuple[Array, Array | None]] | None = None  # what the decoder makes
        if jit:
            length = min(batch.context.shape[1] + count, size)
            decoder = self._take_decoder(len(batch.rows), length)
        try:
            for left in reversed(range(count)):
                room = min(left, size - batch.context.shape[1])
                if ahead:
                    drawn, scores = next(ahead)
                else:
                    last = None if decoder is None else decoder.read(batch.context, batch.pad, room)
                    if last is None:
                        last = self._last_logits(batch.new, batch.caches, batch.pad)[:, 0]
                    drawn, scores = self._next(batch, last, how, generator, scored)
                yield batch.take(drawn, scores)
                if batch.ended.all():
                    return
                if decoder is None:  # which is compiled for all rows
                    batch.leave()
                if batch.grow():
                    ahead = None
                elif decoder is not None and ahead is None:
                    assert batch.caches is not None
                    if batch.caches[0].length:
                        decoder.take(batch.caches, batch.pad)
                    decoder.begin(batch.seen, batch.ended)
                    ahead = decoder.tokens(room, how, generator, scored, batch.stops)
        finally:
            if decoder is not None:
                self._decoders[len(batch.rows)] = decoder

    def _next(
        self,
        batch: Batch,
        logits: Array,
        how: Sampling,
        generator: Generator,
        scored: bool,
    ) -> tuple[Array, Array | None]:
        """The next token of each computed row, by its last logits, (B, V), and its log-probability
        if scored.
        """
        penalised = how.penalised(logits, batch.seen)
        drawn = how.draw(penalised, generator, batch.rows, len(batch.ended))
        return drawn, log_probability(logits, drawn) if scored else None

    def _take_decoder(self, batch: int, length: int) -> Decoder | None:
        """A decoder for this many rows and at least `length` positions that no other conversation
        uses: a new one, or an idle one of the same kind. None if C cannot compute in this dtype.
        """
        from minigrad.models.decoding import Decoder

        decoder = self._decoders.pop(batch, None)
        dtype = next(iter(self.ln_f.parameters())).dtype
        shape = self._cache_shape(batch, length)
        if dtype not in (float32, float64):
            return None
        if decoder is not None and decoder.dtype == dtype and decoder.shape[2] >= shape[2]:
            return decoder
        return Decoder(self, self._decode, len(self.h), shape, dtype, self.config.vocab_size)

    def _cache_shape(self, batch: int, length: int) -> tuple[int, int, int, int]:
        """Of each layer's cache in a decoder, (B, heads, positions, D): as many positions as the
        context has, up to 1,024, and beyond that no more than twice what is needed.
        """
        attn: Any = next(iter(self.h)).attn
        positions = min(self.config.block_size, max(1024, 1 << (length - 1).bit_length()))
        return batch, attn.n_kv_head, positions, attn.head_dim

    def _decode(self, tokens: Tensor, caches: Sequence[StaticCache]) -> Tensor:
        """The logits after some more tokens per row: (B, T) -> (B, V)."""
        x = self.wte(tokens)  # (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe(caches[0].positions(tokens.shape[1]))
        x = self.drop(x)
        for block, cache in zip(self.h, caches, strict=True):
            x = block(x, cache=cache)
        return self._head(self.ln_f(x)[:, -1])

    def _last_logits(
        self, tokens: Array, caches: Sequence[KVCache] | None, pad: Any = None, last: int = 1
    ) -> Array:
        """The logits after the last ones of the tokens, (B, last, V), without dropout. Modes are
        set only while it runs: a generator may be left in the middle.
        """
        with evaluating(self):
            for part in [tokens] if caches is None else parts(tokens, last):
                x = self._hidden(Tensor._wrap(part), caches, pad)
            logits = self._head(x[:, -last:]).data
        return cast(logits, computing(logits.dtype))  # numpy knows only the bits of bfloat16

    def own_products(self) -> list[tuple[str, int]]:
        """What it multiplies itself, for `minigrad.viz.describe`: the head, with its FLOPs per
        token.
        """
        return [("head: wte.weight again, shared", 2 * self.config.n_embd * self.config.vocab_size)]

    def extra_repr(self) -> str:
        return repr(self.config)
