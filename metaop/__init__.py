"""metaop: networks composed of meta-operators, fused and compiled for the CPU."""

from . import errors, random, safetensors
from .compiler.signals import uninterrupted
from .config import config
from .convolution import avg_pool2d, conv1d, conv2d, max_pool2d
from .creation import (
    arange,
    array,
    asarray,
    dynamic,
    empty,
    eye,
    full,
    full_like,
    index,
    linspace,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from .dtype import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    astype,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clip,
    copysign,
    cos,
    cosh,
    divide,
    e,
    equal,
    erf,
    erfc,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    fmax,
    fmin,
    greater,
    greater_equal,
    hypot,
    inf,
    isclose,
    isfinite,
    isinf,
    isnan,
    lerp,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    nan,
    negative,
    not_equal,
    pi,
    positive,
    pow,
    reciprocal,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    trunc,
    where,
)
from .errors import (
    CheckpointError,
    CompilerBug,
    DTypeError,
    IndexExpressionError,
    JitError,
    MetaopError,
    ShapeError,
    StaleValueError,
    UnreachedGradientWarning,
)
from .grad_mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .indexing import one_hot, take, take_along_axis
from .inspection import dump, explain, stats
from .life import transaction
from .linear import dot, matmul, outer
from .movement import (
    broadcast_to,
    concat,
    expand_dims,
    flatten,
    flip,
    matrix_transpose,
    meshgrid,
    moveaxis,
    pad,
    permute_dims,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    tile,
    transpose,
)
from .names import *  # noqa: F403
from .notation import Axis, Indexed, axes, reindex, reindex_reduce
from .random import Generator, manual_seed
from .reduction import (
    amax,
    amin,
    argmax,
    argmin,
    count_nonzero,
    logsumexp,
    mean,
    norm,
    std,
    var,
)
from .serialization import load, save
from .threads import get_num_threads, set_num_threads
from .var import Var, assign_all, grad, sync

# last: the methods, then what is built on all of the above
from . import methods, nn  # isort: skip
from .nn import optim  # isort: skip

__version__ = "0.1.0"
