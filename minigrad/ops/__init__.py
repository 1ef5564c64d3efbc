"""The ops, by name: `ops.tanh(x)` works on arrays and on Tensors. See docs/design.md for what an op is."""

from minigrad.ops.attention import (
    attention as attention,
    attention_grad as attention_grad,
)
from minigrad.ops.calculus import (
    abs as abs,
    acos as acos,
    asin as asin,
    atan as atan,
    ceil as ceil,
    cos as cos,
    cosh as cosh,
    exp as exp,
    exp2 as exp2,
    expm1 as expm1,
    floor as floor,
    log as log,
    log1p as log1p,
    log2 as log2,
    log10 as log10,
    pow as pow,
    reciprocal as reciprocal,
    relu as relu,
    round as round,
    rsqrt as rsqrt,
    sigmoid as sigmoid,
    sign as sign,
    sin as sin,
    sinh as sinh,
    sqrt as sqrt,
    square as square,
    tan as tan,
    tanh as tanh,
    trunc as trunc,
)
from minigrad.ops.contract import (
    linear as linear,
    matmul as matmul,
    swap_last as swap_last,
)
from minigrad.ops.elementwise import (
    add as add,
    clamp as clamp,
    div as div,
    equal as equal,
    floor_div as floor_div,
    greater as greater,
    greater_equal as greater_equal,
    guard_div as guard_div,
    guard_mul as guard_mul,
    isfinite as isfinite,
    isinf as isinf,
    isnan as isnan,
    less as less,
    less_equal as less_equal,
    logical_and as logical_and,
    logical_not as logical_not,
    logical_or as logical_or,
    logical_xor as logical_xor,
    maximum as maximum,
    minimum as minimum,
    mod as mod,
    mul as mul,
    neg as neg,
    not_equal as not_equal,
    share as share,
    sub as sub,
    where as where,
    zeros_like as zeros_like,
)
from minigrad.ops.fused import (
    cross_entropy as cross_entropy,
    cross_entropy_grad as cross_entropy_grad,
    gelu_tanh as gelu_tanh,
    gelu_tanh_grad as gelu_tanh_grad,
    layer_norm as layer_norm,
    layer_norm_grad as layer_norm_grad,
    log_softmax as log_softmax,
    softmax as softmax,
)
from minigrad.ops.heads import (
    join_heads as join_heads,
    merge_heads as merge_heads,
    split_heads as split_heads,
)
from minigrad.ops.index import (
    embedding as embedding,
    embedding_grad as embedding_grad,
)
from minigrad.ops.movement import (
    alias as alias,
    assign as assign,
    cast as cast,
    cat as cat,
    copy as copy,
    expand as expand,
    flip as flip,
    getitem as getitem,
    pad as pad,
    permute as permute,
    reshape as reshape,
    ungetitem as ungetitem,
)
from minigrad.ops.philox import (
    dropout as dropout,
    philox as philox,
)
from minigrad.ops.reduce import (
    all as all,
    any as any,
    argmax as argmax,
    argmin as argmin,
    logsumexp as logsumexp,
    max as max,
    mean as mean,
    min as min,
    sum as sum,
    tie_shares as tie_shares,
    var as var,
)
from minigrad.ops.special import (
    erf as erf,
)
from minigrad.ops.update import (
    adam_ as adam_,
    clip_grad_norm_ as clip_grad_norm_,
    sgd_ as sgd_,
)
