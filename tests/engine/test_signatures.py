"""The order of positional arguments in `functional`, held against PyTorch's documentation."""

from __future__ import annotations

import inspect

import pytest

from minigrad import functional as F

# Positional arguments after the first tensor, as PyTorch 2 documents them.
PYTORCH = {
    "adaptive_avg_pool1d": "output_size",
    "adaptive_avg_pool2d": "output_size",
    "avg_pool1d": "kernel_size stride padding ceil_mode count_include_pad",
    "avg_pool2d": "kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "batch_norm": "running_mean running_var weight bias training momentum eps",
    "binary_cross_entropy": "target weight size_average reduce reduction",
    "binary_cross_entropy_with_logits": ("target weight size_average reduce reduction pos_weight"),
    "celu": "alpha inplace",
    "conv1d": "weight bias stride padding dilation groups",
    "conv2d": "weight bias stride padding dilation groups",
    "conv_transpose1d": "weight bias stride padding output_padding groups dilation",
    "conv_transpose2d": "weight bias stride padding output_padding groups dilation",
    "cosine_similarity": "x2 dim eps",
    "cross_entropy": "target weight size_average ignore_index reduce reduction label_smoothing",
    "dropout": "p training inplace",
    "elu": "alpha inplace",
    "embedding": "weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
    "fold": "output_size kernel_size dilation padding stride",
    "gelu": "approximate",
    "group_norm": "num_groups weight bias eps",
    "hardsigmoid": "inplace",
    "hardswish": "inplace",
    "hardtanh": "min_val max_val inplace",
    "huber_loss": "target reduction delta weight",
    "instance_norm": ("running_mean running_var weight bias use_input_stats momentum eps"),
    "interpolate": ("size scale_factor mode align_corners recompute_scale_factor antialias"),
    "kl_div": "target size_average reduce reduction log_target",
    "l1_loss": "target size_average reduce reduction",
    "layer_norm": "normalized_shape weight bias eps",
    "leaky_relu": "negative_slope inplace",
    "linear": "weight bias",
    "log_softmax": "dim _stacklevel dtype",
    "logsigmoid": "",
    "max_pool1d": "kernel_size stride padding dilation ceil_mode return_indices",
    "max_pool2d": "kernel_size stride padding dilation ceil_mode return_indices",
    "mish": "inplace",
    "mse_loss": "target size_average reduce reduction weight",
    "nll_loss": "target weight size_average ignore_index reduce reduction",
    "normalize": "p dim eps out",
    "one_hot": "num_classes",
    "pad": "pad mode value",
    "relu": "inplace",
    "relu6": "inplace",
    "rms_norm": "normalized_shape weight eps",
    "scaled_dot_product_attention": ("key value attn_mask dropout_p is_causal scale enable_gqa"),
    "selu": "inplace",
    "sigmoid": "",
    "silu": "inplace",
    "smooth_l1_loss": "target size_average reduce reduction beta",
    "softmax": "dim _stacklevel dtype",
    "softplus": "beta threshold",
    "softsign": "",
    "tanh": "",
    "unfold": "kernel_size dilation padding stride",
}
# Functions without a counterpart in PyTorch.
OURS = {
    "alibi_slopes",
    "apply_rotary",
    "attention",
    "attention_weights",
    "attention_with_mask",
    "quick_gelu",
    "stable_softmax",
    "swiglu",
}
SAME = {"axis": "dim", "k": "key", "v": "value"}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def functions() -> list[str]:
    return [n for n in dir(F) if not n.startswith("_") and callable(getattr(F, n))]


@pytest.mark.parametrize("name", sorted(set(functions()) - OURS))
def test_positional_arguments_come_in_pytorchs_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(F, name)).parameters.values())[1:]
    ours = [SAME.get(p.name, p.name) for p in parameters if p.kind in POSITIONAL]
    assert ours == PYTORCH[name].split()[: len(ours)]
