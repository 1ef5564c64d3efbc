"""Training a part of a model: freezing by pattern, and low-rank adapters (LoRA).

names = add_lora(model, rank=8)                       # everything else is frozen
optimizer = AdamW(trainable(model), lr=1e-3)
minigrad.save("adapter.mgrd", lora_state(model))      # the adapter alone
load_lora(other, minigrad.load("adapter.mgrd"))
merge_lora(model)                                     # one model again, without adapters
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from minigrad.arguments import as_float, as_int
from minigrad.autograd import no_grad
from minigrad.dtypes import Array, name as dtype_name
from minigrad.errors import ConfigError, StateDictError
from minigrad.nn import Linear, MultiHeadAttention, init
from minigrad.nn.containers import ModuleDict
from minigrad.nn.module import Module, Parameter
from minigrad.nn.quantised import Blocks, blocks_of, linear
from minigrad.tensor import Tensor

__all__ = [
    "LoRA",
    "add_lora",
    "freeze",
    "load_lora",
    "lora_state",
    "merge_lora",
    "trainable",
    "unfreeze",
]


def freeze(model: Module, *patterns: str) -> list[str]:
    """Stop training the parameters whose names match a pattern ("wte.*", "h.[01].*", "*").

    Returns the names. Raises ConfigError for a pattern that matches no name.
    """
    return _set(model, "freeze", patterns, False)


def unfreeze(model: Module, *patterns: str) -> list[str]:
    """The reverse of `freeze`."""
    return _set(model, "unfreeze", patterns, True)


def _set(model: Module, call: str, patterns: Sequence[str], requires_grad: bool) -> list[str]:
    named = dict(model.named_parameters())
    chosen = _matching(call, "parameter", list(named), patterns)
    for name in chosen:
        named[name].requires_grad_(requires_grad)
        named[name].grad = None
    return chosen


def _matching(call: str, what: str, names: list[str], patterns: Sequence[str]) -> list[str]:
    """The names that match a pattern. Raises ConfigError for a pattern that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            problem, hint = f"no {what}'s name fits {pattern!r}", f"names are like {names[:3]}"
            raise ConfigError(call, problem, got=pattern, wanted=names, hint=hint)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def trainable(model: Module) -> Iterator[tuple[str, Parameter]]:
    """Return name and parameter of all that is not frozen, for an optimizer."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


class LoRA(Module):
    """What is added to a weight W (out, in), of rank `rank` at most: W + scale b a.

    a: (rank, in).   b: (out, rank), 0 at first.   scale = alpha / rank.
    A weight in blocks stays as it is: x is multiplied by W and by a and b, and the results added.
    From Hu et al. 2022, arXiv:2106.09685.
    """

    def __init__(self, shape: tuple[int, int], rank: int, alpha: float) -> None:
        bound = 1 / math.sqrt(shape[1])
        self.a = init.uniform_(Parameter(np.zeros((rank, shape[1]), np.float32)), -bound, bound)
        self.b = Parameter(np.zeros((shape[0], rank), np.float32))
        self.scale = Tensor(alpha / rank)
        self.register_buffer("scale", self.scale)  # part of what is saved

    def forward(self, weight: Tensor | Blocks) -> Tensor | _Sum:
        """weight + scale b a."""
        if isinstance(weight, Blocks):
            return _Sum(weight, self)
        return weight + (self.b @ self.a) * self.scale

    def extra_repr(self) -> str:
        return f"{(self.b.shape[0], self.a.shape[1])}, rank={self.a.shape[0]}"


class _Sum(NamedTuple):
    """A weight in blocks and what is added to it."""

    weight: Blocks
    lora: LoRA

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x @ (weight + scale b a).T + bias: (..., in) -> (..., out)."""
        narrow = linear(x, self.lora.a) * self.lora.scale  # (..., rank)
        return self.weight.linear(x, bias) + linear(narrow, self.lora.b)


class _Adapted(Module):
    """The part of an adapted layer's class that computes with W + scale b a in place of W. What is
    trained is in `lora`, by the weight's name.
    """

    lora: ModuleDict

    def forward(self, *args: Any, **settings: Any) -> Any:
        """The layer's own forward, with adapted weights."""
        own = {name: vars(self)[name] for name in self.lora}
        vars(self).update({name: adapter(own[name]) for name, adapter in self.lora.items()})
        try:
            return super().forward(*args, **settings)  # that of the layer's class, which comes next
        finally:
            vars(self).update(own)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Pickle and deepcopy find a class by its name, which an adapted class shares with its
        # layer's: name the layer's class, and adapt it again.
        reduced: Any = super().__reduce_ex__(2)
        return _unfilled, (type(self).__mro__[2],), *reduced[2:]


def _unfilled(layer: type[Module]) -> Module:
    adapted = _adapted(layer)
    return adapted.__new__(adapted)


_ADAPTED: dict[type[Module], type[Module]] = {}  # one adapted class per class of layer


def _adapted(layer: type[Module]) -> type[Module]:
    if layer not in _ADAPTED:
        _ADAPTED[layer] = type(layer.__name__, (_Adapted, layer), {"__doc__": layer.__doc__})
    return _ADAPTED[layer]


def _weights(model: Module) -> Iterator[tuple[str, Module, str]]:
    """(full name, layer, name in the layer) of every matrix that can be adapted: those of Linear
    and MultiHeadAttention.
    """
    for prefix, module in model.named_modules():
        if isinstance(module, Linear | MultiHeadAttention):
            for name, p in vars(module).items():
                if isinstance(p, Blocks) or (isinstance(p, Parameter) and p.ndim == 2):
                    yield f"{prefix}.{name}" if prefix else name, module, name


def _adapt(layer: Module, name: str, rank: int, alpha: float) -> None:
    if not isinstance(layer, _Adapted):
        # As torch's parametrizations do: the layer stays the same object under the same name, so
        # nothing around it has to know.
        layer.__class__ = _adapted(type(layer))
        setattr(layer, "lora", ModuleDict())  # noqa: B010
    rows, columns = getattr(layer, name).shape
    _adapters(layer)[name] = LoRA((rows, columns), rank, alpha)


def add_lora(
    model: Module, rank: int = 8, alpha: float | None = None, targets: str | Sequence[str] = "*"
) -> list[str]:
    """Give the weights whose names match a pattern an adapter each, and freeze all other
    parameters; return the names of the weights.

    alpha: the adapters' scale is alpha / rank; 2 rank by default.   targets: patterns, say
        "*.attn.*", of the weights of Linear and MultiHeadAttention.
    At first the model computes what it did before. Raises ConfigError for a rank < 1, a pattern
    that matches nothing, or a weight with an adapter.
    """
    rank = as_int("add_lora", "rank", rank)
    alpha = 2.0 * rank if alpha is None else as_float("add_lora", "alpha", alpha, 0, below=True)
    patterns = [targets] if isinstance(targets, str) else list(targets)
    weights = {full: (layer, name) for full, layer, name in _weights(model)}
    names = _matching("add_lora", "Linear's or MultiHeadAttention's weight", [*weights], patterns)
    for full in names:
        layer, name = weights[full]
        if name in _adapters(layer):
            problem, hint = f"{full} has an adapter already", "merge_lora(model) first"
            raise ConfigError("add_lora", problem, got=full, wanted=None, hint=hint)
    model.requires_grad_(False)
    for layer, name in map(weights.__getitem__, names):
        _adapt(layer, name, rank, alpha)
    for adapter in (m for m in model.modules() if isinstance(m, LoRA)):
        adapter.requires_grad_(True)
    return names


def _adapters(layer: Module) -> ModuleDict:
    return layer.lora if isinstance(layer, _Adapted) else ModuleDict()


def _is_adapter(name: str) -> bool:
    return ".lora." in f".{name}"


BASE = "lora.base_sha256"


def base_digest(model: Module) -> Array:
    """Return the SHA-256 of names, dtypes or formats, shapes and values of all weights but the
    adapters', (32,) uint8.
    """
    digest = hashlib.sha256()
    own = {
        name: (dtype_name(p.dtype), p.shape, [p.data])
        for name, p in model.named_parameters()
        if not _is_adapter(name)
    }
    for name, _, _, weight in blocks_of(model):
        own[name] = weight.kind, weight.shape, [part.blocks for part in weight.parts]
    for name, (kind, shape, arrays) in sorted(own.items()):
        digest.update(f"{name} {kind} {shape}\n".encode())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return np.frombuffer(digest.digest(), np.uint8)


def lora_state(model: Module) -> dict[str, Tensor]:
    """Return the adapters alone, by name, for `save`, with the SHA-256 of the weights that they
    were made for. Raises ConfigError if there are none.
    """
    state = {name: t for name, t in model.state_dict().items() if _is_adapter(name)}
    if not state:
        problem = "the model has no adapters"
        wanted = "a model after add_lora"
        raise ConfigError("lora_state", problem, got=type(model).__name__, wanted=wanted)
    return {**state, BASE: Tensor(base_digest(model))}


def load_lora(model: Module, state: Mapping[str, Any], *, check_base: bool = True) -> list[str]:
    """Load adapters, making those that the model lacks, with the rank they have; return the names
    of the weights.

    check_base: whether the model's own weights must be those that the adapters were made for, to
        the bit; older files do not record them.
    Raises StateDictError, with the model unchanged, if they are others, and for an adapter of a
    weight that the model lacks, or has in another shape.
    """
    call, base = "load_lora", state.get(BASE)
    state = {key: value for key, value in state.items() if key != BASE}
    weights = {full: (layer, name) for full, layer, name in _weights(model)}
    found = {}
    for key in state:
        if not key.endswith(".a"):
            continue
        before, _, name = ("." + key.removesuffix(".a")).rpartition(".lora.")
        full = f"{before}.{name}".lstrip(".")
        a, b = (np.asarray(state[key.removesuffix("a") + part]) for part in "ab")
        shape = (b.shape[0], a.shape[1])
        if full not in weights or getattr(weights[full][0], name).shape != shape:
            problem = f"an adapter of {full} {shape}, {dtype_name(a.dtype)}, does not fit"
            hint = "it was made for another model"
            raise StateDictError(call, problem, got=full, wanted=list(weights), hint=hint)
        found[full] = a.shape[0]
    if check_base and base is not None:
        own, made_for = base_digest(model).tobytes().hex(), np.asarray(base).tobytes().hex()
        if own != made_for:
            problem = "the adapters were made for a model with other weights"
            hint = "load that model's weights first, or say check_base=False"
            raise StateDictError(call, problem, got=own, wanted=made_for, hint=hint)
    for full, rank in found.items():
        layer, name = weights[full]
        if name not in _adapters(layer) or _adapters(layer)[name].a.shape[0] != rank:
            _adapt(layer, name, rank, rank)
    model.load_state_dict({**model.state_dict(), **state})
    return list(found)


def merge_lora(model: Module) -> list[str]:
    """Add every adapter to its weight and remove it; return the names of the weights. What was
    frozen stays frozen: see `unfreeze`. A weight in blocks becomes a float32 Parameter.
    """
    merged = []
    for full, layer, name in list(_weights(model)):
        if name in _adapters(layer):
            weight = getattr(layer, name)
            if isinstance(weight, Blocks):
                weight = Parameter(weight.dequantise(), requires_grad=False)
                setattr(layer, name, weight)
            with no_grad():
                weight.assign(_adapters(layer)[name](weight))
            merged.append(full)
    for module in model.modules():
        if isinstance(module, _Adapted):
            del module.lora
            module.__class__ = type(module).__mro__[2]
    return merged
