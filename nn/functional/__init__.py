"""The layers of `metaop.nn` as functions: each composed of public functions of metaop.

Names, argument order, defaults and numerics are those of torch.nn.functional.  Nothing here has a
kernel or a gradient rule of its own.
"""

from .activation import (
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softsign,
    tanh,
)
from .attention import attention_scores, scaled_dot_product_attention
from .dropout import dropout
from .embedding import embedding
from .linear import conv1d, conv2d, linear
from .loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from .norm import batch_norm, group_norm, layer_norm
from .pooling import avg_pool2d, max_pool2d
from .recurrent import recur
from .shape import flatten, one_hot, unflatten
