"""The ops, by name: `ops.tanh(x)` works on arrays and on Tensors. See docs/design.md for what an op
is.
"""

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
from minigrad.ops.arrange import (
    diagonal as diagonal,
    meshgrid as meshgrid,
    one_hot as one_hot,
    pad_by as pad_by,
    repeat as repeat,
    repeat_interleave as repeat_interleave,
    roll as roll,
    tril as tril,
    triu as triu,
    unflatten as unflatten,
)
from minigrad.ops.attention import (
    attention as attention,
    attention_grad as attention_grad,
)
from minigrad.ops.cached import (
    append_ as append_,
    through_cache as through_cache,
)
from minigrad.ops.calculus import (
    acos as acos,
    acosh as acosh,
    asin as asin,
    asinh as asinh,
    atan as atan,
    atan2 as atan2,
    atanh as atanh,
    cos as cos,
    cosh as cosh,
    exp as exp,
    exp2 as exp2,
    expm1 as expm1,
    hypot as hypot,
    log as log,
    log1p as log1p,
    log2 as log2,
    log10 as log10,
    pow as pow,
    reciprocal as reciprocal,
    rsqrt as rsqrt,
    sigmoid as sigmoid,
    sin as sin,
    sinh as sinh,
    sqrt as sqrt,
    square as square,
    tan as tan,
    tanh as tanh,
)
from minigrad.ops.contract import (
    guard_matmul as guard_matmul,
    linear as linear,
    matmul as matmul,
    swap_last as swap_last,
)
from minigrad.ops.convolve import (
    avg_pool2d as avg_pool2d,
    conv as conv,
    fold as fold,
    max_pool2d as max_pool2d,
    unfold as unfold,
)
from minigrad.ops.einsum import (
    einsum as einsum,
)
from minigrad.ops.elementwise import (
    abs as abs,
    add as add,
    bitwise_and as bitwise_and,
    bitwise_not as bitwise_not,
    bitwise_or as bitwise_or,
    bitwise_xor as bitwise_xor,
    ceil as ceil,
    clamp as clamp,
    copysign as copysign,
    div as div,
    equal as equal,
    floor as floor,
    floor_div as floor_div,
    fmod as fmod,
    greater as greater,
    greater_equal as greater_equal,
    has_nan as has_nan,
    isfinite as isfinite,
    isinf as isinf,
    isnan as isnan,
    left_shift as left_shift,
    lerp as lerp,
    less as less,
    less_equal as less_equal,
    logical_and as logical_and,
    logical_not as logical_not,
    logical_or as logical_or,
    logical_xor as logical_xor,
    mask_cotangent as mask_cotangent,
    maximum as maximum,
    minimum as minimum,
    mod as mod,
    mul as mul,
    nan_to_num as nan_to_num,
    neg as neg,
    not_equal as not_equal,
    relu as relu,
    right_shift as right_shift,
    round as round,
    share as share,
    sign as sign,
    sub as sub,
    trunc as trunc,
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
    rms_norm as rms_norm,
    rms_norm_grad as rms_norm_grad,
    softmax as softmax,
)
from minigrad.ops.heads import (
    join_heads as join_heads,
    merge_heads as merge_heads,
    split_heads as split_heads,
)
from minigrad.ops.index import (
    add_along as add_along,
    add_at as add_at,
    embedding as embedding,
    embedding_grad as embedding_grad,
    last_along as last_along,
    last_at as last_at,
    nonzero as nonzero,
    put as put,
    put_ as put_,
    put_along as put_along,
    take as take,
    take_along as take_along,
)
from minigrad.ops.loss import (
    batchnorm as batchnorm,
    binary_crossentropy as binary_crossentropy,
    binary_crossentropy_logits as binary_crossentropy_logits,
    cross_entropy_loss as cross_entropy_loss,
    huber_loss as huber_loss,
    kl_div as kl_div,
    l1_loss as l1_loss,
    mse as mse,
    nll_loss as nll_loss,
    smooth_l1_loss as smooth_l1_loss,
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
    kept as kept,
    multinomial as multinomial,
    philox as philox,
)
from minigrad.ops.rearrange import (
    rearrange as rearrange,
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
    std as std,
    std_mean as std_mean,
    sum as sum,
    tie_shares as tie_shares,
    var as var,
    var_mean as var_mean,
)
from minigrad.ops.rope import (
    rope as rope,
)
from minigrad.ops.scan import (
    cummax as cummax,
    cummax_index as cummax_index,
    cumprod as cumprod,
    cumsum as cumsum,
    logcumsumexp as logcumsumexp,
    prod as prod,
    recurrence as recurrence,
)
from minigrad.ops.scatter import (
    scatter as scatter,
    scatter_reduce as scatter_reduce,
)
from minigrad.ops.sort import (
    argsort as argsort,
    sort as sort,
    topk as topk,
)
from minigrad.ops.special import (
    erf as erf,
    erfc as erfc,
    gauss as gauss,
    logaddexp as logaddexp,
)
