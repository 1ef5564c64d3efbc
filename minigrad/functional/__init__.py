"""Functions of neural networks, by PyTorch's names and arguments; numbers mean what they mean there.

They work on Tensors (and, where no randomness is in them, on plain arrays).
"""

from minigrad.functional.attention import (
    alibi_slopes as alibi_slopes,
    apply_rotary as apply_rotary,
    attention as attention,
    attention_weights as attention_weights,
    attention_with_mask as attention_with_mask,
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from minigrad.functional.layers import (
    cross_entropy as cross_entropy,
    dropout as dropout,
    embedding as embedding,
    gelu as gelu,
    layer_norm as layer_norm,
    linear as linear,
    log_softmax as log_softmax,
    relu as relu,
    rms_norm as rms_norm,
    silu as silu,
    softmax as softmax,
    stable_softmax as stable_softmax,
    swiglu as swiglu,
)
