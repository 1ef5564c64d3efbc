"""Functions of neural networks, by PyTorch's names and arguments; numbers mean what they mean
there.

They work on Tensors. The activations, softmax and log_softmax are ops, or made of ops, and work on
plain arrays, too. The types that editors and type checkers see are in functional.pyi.
"""

from minigrad import ops
from minigrad.counterparts import missing as _missing
from minigrad.ops import loss
from minigrad.ops.more.convolve import blocks as _blocks, from_blocks as _from_blocks
from minigrad.tensor import Tensor as _Tensor, functions as _functions

# --- activations
relu, relu6, leaky_relu, sigmoid = ops.relu, ops.relu6, ops.leaky_relu, ops.sigmoid
gelu, quick_gelu, silu, mish, tanh = ops.gelu, ops.quick_gelu, ops.silu, ops.mish, ops.tanh
elu, selu, celu = ops.elu, ops.selu, ops.celu
softplus, logsigmoid, softsign = ops.softplus, ops.logsigmoid, ops.softsign
hardtanh, hardsigmoid, hardswish = ops.hardtanh, ops.hardsigmoid, ops.hardswish
softmax, log_softmax, stable_softmax = _Tensor.softmax, _Tensor.log_softmax, _Tensor.softmax

# --- layers
linear, embedding, swiglu = ops.linear, _functions.embedding, _functions.swiglu
dropout, one_hot, pad = map(_functions.function, ("dropout", "one_hot", "pad"))
layer_norm, rms_norm, batch_norm = _functions.layer_norm, _functions.rms_norm, _functions.batch_norm
group_norm, instance_norm = _functions.group_norm, _functions.instance_norm
normalize, cosine_similarity = ops.normalize, ops.cosine_similarity

# --- convolution and pooling
conv1d, conv2d = ops.conv1d, ops.conv2d
conv_transpose1d, conv_transpose2d = ops.conv_transpose1d, ops.conv_transpose2d
unfold, fold, interpolate = _blocks, _from_blocks, ops.interpolate
max_pool1d, max_pool2d = ops.max_pool1d, ops.max_pool2d
avg_pool1d, avg_pool2d = ops.avg_pool1d, ops.avg_pool2d
adaptive_avg_pool1d, adaptive_avg_pool2d = ops.adaptive_avg_pool1d, ops.adaptive_avg_pool2d

# --- losses
cross_entropy, nll_loss, kl_div = loss.cross_entropy, ops.nll_loss, ops.kl_div
mse_loss, l1_loss = ops.mse_loss, ops.l1_loss
smooth_l1_loss, huber_loss = ops.smooth_l1_loss, ops.huber_loss
binary_cross_entropy = ops.binary_cross_entropy
binary_cross_entropy_with_logits = ops.binary_cross_entropy_with_logits

# --- attention
scaled_dot_product_attention = _Tensor.scaled_dot_product_attention
attention, attention_with_mask = _functions.attention, _functions.attention_with_mask
attention_weights, alibi_slopes = _functions.attention_weights, _functions.alibi_slopes
apply_rotary = _functions.apply_rotary

__all__ = sorted(n for n, f in globals().items() if n[0] != "_" and callable(f))


def __getattr__(name: str) -> object:
    raise _missing("minigrad.functional", name)
