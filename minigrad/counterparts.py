"""What to use for a name that PyTorch has and minigrad lacks: the hint of an AttributeError."""

from __future__ import annotations

import sys
from types import ModuleType

_CPU = "the tensor as it is: everything is on the CPU"
_WRITE = "t[index] = values, into a copy: t.clone()"
_NUMPY = "numpy.linalg on t.numpy()"
_ATTENTION = "MultiHeadAttention(n_embd, n_head, causal=False)"
_BLOCK = "TransformerBlock(n_embd, n_head, causal=False)"
_NEW = "minigrad.{}(shape, dtype=t.dtype)"

TENSOR = {
    **dict.fromkeys(("cpu", "cuda", "is_cuda", "pin_memory"), _CPU),
    **dict.fromkeys(("inverse", "det", "svd", "qr", "cholesky"), _NUMPY),
    **dict.fromkeys(("view_as", "reshape_as"), "t.reshape(other.shape)"),
    **dict.fromkeys(("index_put", "index_fill", "index_copy", "masked_scatter"), _WRITE),
    **dict.fromkeys(("tensor_split", "hsplit", "vsplit"), "t.split(sizes, dim)"),
    **dict.fromkeys(("addmm", "baddbmm"), "a + b @ c"),
    **dict.fromkeys(("element_size", "itemsize"), "t.data.itemsize"),
    "type": "t.cast(dtype), or t.dtype",
    "is_contiguous": "t.data.flags.c_contiguous",
    "stride": "t.data.strides",
    "nbytes": "t.data.nbytes",
    "storage": "t.data, the numpy array",
    "new_zeros": _NEW.format("zeros"),
    "new_ones": _NEW.format("ones"),
    "new_empty": _NEW.format("empty"),
    "new_full": "minigrad.full(shape, value, dtype=t.dtype)",
    "new_tensor": "minigrad.tensor(data, dtype=t.dtype)",
    "index_put_": "t[index] = value",
    "masked_fill_": "t[mask] = value",
    "argwhere": "t.nonzero()",
    "count_nonzero": "(t != 0).sum()",
    "nansum": "t.nan_to_num().sum()",
    "nanmean": "t[~t.isnan()].mean()",
    "kthvalue": "t.sort(dim)[0]",
    "addcmul": "a + value * b * c",
    "addcdiv": "a + value * b / c",
    "vdot": "t.dot(other)",
    "inner": "minigrad.tensordot(a, b, 1)",
    "matrix_power": "t @ t",
    "bernoulli": "(minigrad.rand_like(p) < p).float()",
    "uniform_": "nn.init.uniform_(t), or t.copy_(minigrad.Tensor.uniform(...))",
    "normal_": "nn.init.normal_(t), or t.copy_(minigrad.Tensor.normal(...))",
    "unsqueeze_": "t = t.unsqueeze(dim)",
    "squeeze_": "t = t.squeeze(dim)",
    "resize_": "t = t.reshape(shape)",
    "swapdims": "t.swapaxes(dim0, dim1)",
    "moveaxis": "t.movedim(source, destination)",
}
PACKAGE = {
    "device": 'the string "cpu", or nothing',
    "cuda": "the CPU: it is the only device",
    "Size": "tuple",
    "FloatTensor": "Tensor(data)",
    "LongTensor": "Tensor(data), of integers",
    "inference_mode": "no_grad",
    "compile": "jit",
    "autocast": 'Trainer(dtype=), or tensors of dtype "bfloat16"',
    "set_default_dtype": "dtype= where a tensor is made",
    "get_default_dtype": "float32",
    "use_deterministic_algorithms": "minigrad as it is: results are deterministic",
    "set_num_threads": "the environment variables OPENBLAS_NUM_THREADS and MINIGRAD_THREADS",
    **dict.fromkeys(("concat", "concatenate"), "cat"),
    "column_stack": "stack(xs, dim=1)",
    "dstack": "stack(xs, dim=-1)",
    "histc": "bincount, or numpy.histogram",
    "cdist": "((a[:, None] - b) ** 2).sum(-1).sqrt()",
    "logspace": "10 ** linspace(start, stop, steps)",
    "complex": "pairs of real numbers",
    "linalg": _NUMPY,
    "fft": "numpy.fft on t.numpy()",
    "sparse": "dense tensors",
    "utils": "minigrad.checkpoint for checkpointing, x[minigrad.randperm(n)[:B]] for batches",
    "DataLoader": "x[minigrad.randperm(n)[:B]]",
    "short": "int16",
}
FUNCTIONAL = {
    "upsample": "F.interpolate",
    "multi_head_attention_forward": "nn.MultiHeadAttention",
    "glu": "a * b.sigmoid(), for a, b = x.chunk(2, dim)",
    "softmin": "F.softmax(-x, dim)",
    "prelu": "where(x > 0, x, weight * x)",
    "threshold": "where(x > threshold, x, value)",
    "softshrink": "x - x.clamp(-lambd, lambd)",
    "hardshrink": "where(x.abs() > lambd, x, 0.0)",
    "tanhshrink": "x - x.tanh()",
    "pairwise_distance": "(a - b).norm(dim=-1)",
    "dropout1d": "nn.Dropout1d",
    "dropout2d": "nn.Dropout2d",
    "gumbel_softmax": "softmax(logits - minigrad.log(-minigrad.log(minigrad.rand_like(logits))))",
    "triplet_margin_loss": "relu((a - p).norm(dim=-1) - (a - n).norm(dim=-1) + margin).mean()",
}


MODULES = {
    "MultiheadAttention": f"{_ATTENTION}; with a second sequence, attention(x, context)",
    "TransformerEncoderLayer": f"{_BLOCK}, with norm_first=False for PyTorch's default",
    "TransformerEncoder": f"Sequential of {_BLOCK}",
    "TransformerDecoderLayer": "TransformerBlock(n_embd, n_head, cross=True), and block(x, memory)",
    "Transformer": f"{_BLOCK} and TransformerBlock(n_embd, n_head, cross=True)",
    "CosineSimilarity": "F.cosine_similarity",
    "Unflatten": "x.unflatten(axis, sizes)",
    "PixelShuffle": "x.rearrange('n (c p q) h w -> n c (h p) (w q)', p=2, q=2)",
    "utils": "optim.clip_grad_norm_ or optim.clip_grad_value_",
}
_TABLES = {
    "Tensor": TENSOR,
    "minigrad": {**TENSOR, **PACKAGE},
    "minigrad.functional": FUNCTIONAL,
    "minigrad.nn": MODULES,
}
_PARTS = {
    "minigrad.nn": "nn.",
    "minigrad.functional": "F.",
    "minigrad.optim": "optim.",
    "minigrad": "minigrad.",
}


def missing(owner: str, name: str) -> AttributeError:
    """The error to raise for an attribute that `owner` lacks, with what to use in its place: from
    the tables above, or the name in another part of the package, in whatever case.
    """
    hint = _TABLES[owner].get(name, "")
    if not hint and name[0] != "_":
        loaded = [p for p in (owner, *_PARTS) if p in sys.modules]
        places = [
            ("" if p == owner else _PARTS[p], n)
            for p in loaded
            for n in dir(sys.modules[p])
            if not isinstance(vars(sys.modules[p]).get(n), ModuleType)
        ]
        found = [prefix + n for prefix, n in places if n.lower() == name.lower()]
        hint = next((h for h in found if h.endswith(name)), found[0] if found else "")
    kind = "" if owner == "Tensor" else "module "
    text = f"{kind}{owner!r} has no attribute {name!r}"
    return AttributeError(f"{text}. Use {hint}." if hint else text, name=name)
