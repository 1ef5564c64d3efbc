"""Functions of neural networks, by PyTorch's names and arguments; numbers mean what they mean
there.

They work on Tensors. The activations, softmax and log_softmax are ops, or made of ops, and work on
plain arrays, too.
"""

from minigrad.counterparts import FUNCTIONAL as _FUNCTIONAL, missing as _missing
from minigrad.functional.attention import (
    alibi_slopes as alibi_slopes,
    apply_rotary as apply_rotary,
    attention as attention,
    attention_weights as attention_weights,
    attention_with_mask as attention_with_mask,
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from minigrad.functional.convolution import (
    fold as fold,
    one_hot as one_hot,
    pad as pad,
    unfold as unfold,
)
from minigrad.functional.layers import (
    batch_norm as batch_norm,
    dropout as dropout,
    embedding as embedding,
    group_norm as group_norm,
    instance_norm as instance_norm,
    layer_norm as layer_norm,
    linear as linear,
    log_softmax as log_softmax,
    rms_norm as rms_norm,
    softmax as softmax,
    stable_softmax as stable_softmax,
    swiglu as swiglu,
)
from minigrad.ops.activation import (
    celu as celu,
    elu as elu,
    gelu as gelu,
    hardsigmoid as hardsigmoid,
    hardswish as hardswish,
    hardtanh as hardtanh,
    leaky_relu as leaky_relu,
    logsigmoid as logsigmoid,
    mish as mish,
    quick_gelu as quick_gelu,
    relu6 as relu6,
    selu as selu,
    silu as silu,
    softplus as softplus,
    softsign as softsign,
)
from minigrad.ops.calculus import sigmoid as sigmoid, tanh as tanh
from minigrad.ops.elementwise import relu as relu
from minigrad.ops.loss import (
    binary_cross_entropy as binary_cross_entropy,
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
    cross_entropy as cross_entropy,
    huber_loss as huber_loss,
    kl_div as kl_div,
    l1_loss as l1_loss,
    mse_loss as mse_loss,
    nll_loss as nll_loss,
    smooth_l1_loss as smooth_l1_loss,
)
from minigrad.ops.more.convolve import (
    conv1d as conv1d,
    conv2d as conv2d,
    conv_transpose1d as conv_transpose1d,
    conv_transpose2d as conv_transpose2d,
)
from minigrad.ops.more.norm import (
    cosine_similarity as cosine_similarity,
    normalize as normalize,
)
from minigrad.ops.more.pool import (
    adaptive_avg_pool1d as adaptive_avg_pool1d,
    adaptive_avg_pool2d as adaptive_avg_pool2d,
    avg_pool1d as avg_pool1d,
    avg_pool2d as avg_pool2d,
    interpolate as interpolate,
    max_pool1d as max_pool1d,
    max_pool2d as max_pool2d,
)
from minigrad.tensor import Tensor as _Tensor


def __getattr__(name: str) -> object:
    hint = _FUNCTIONAL.get(name, "")
    if not hint and hasattr(_Tensor, name) and not name.startswith("_"):
        hint = f"minigrad.{name}(x), or the method"
    raise _missing("module 'minigrad.functional'", name, hint)
