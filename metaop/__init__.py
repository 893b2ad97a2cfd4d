"""metaop: networks composed of meta-operators, fused and compiled for the CPU."""

from . import command  # isort: skip  # first: an import can be interrupted, too

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from . import errors, linalg, random
from .compiler.signals import uninterrupted
from .config import config
from .convolution import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    fold,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    sliding_window_view,
    unfold,
)
from .creation import (
    arange,
    array,
    asarray,
    dynamic,
    empty,
    empty_like,
    eye,
    full,
    full_like,
    identity,
    index,
    indices,
    linspace,
    logspace,
    ones,
    ones_like,
    tril,
    tril_indices,
    triu,
    triu_indices,
    vander,
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
from .einsum import einsum
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
    digamma,
    divide,
    e,
    equal,
    erf,
    erfc,
    erfinv,
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
    lgamma,
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
    NonFiniteError,
    ShapeError,
    StaleValueError,
    UnreachedGradientWarning,
)
from .function import Function, FunctionContext
from .fusion import compare, no_fuse, stop_fuse, winograd
from .grad_mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .hints import hint_for as _hint_for
from .indexing import one_hot, take, take_along_axis
from .interchange import (
    __array_namespace_info__,
    can_cast,
    finfo,
    from_dlpack,
    from_numpy,
    iinfo,
    isdtype,
    result_type,
)
from .life import transaction
from .linear import (
    addmm,
    baddbmm,
    bilinear,
    bmm,
    cross,
    dot,
    inner,
    kron,
    matmul,
    mm,
    mv,
    outer,
    tensordot,
    vdot,
    vecdot,
)
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
from .rearrange import (
    append,
    array_split,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    broadcast,
    broadcast_arrays,
    chunk,
    column_stack,
    diag,
    diag_embed,
    diagflat,
    diagonal,
    dsplit,
    dstack,
    expand,
    fliplr,
    flipud,
    hsplit,
    hstack,
    narrow,
    ravel,
    repeat_interleave,
    rot90,
    select,
    swapdims,
    t,
    tensor_split,
    trace,
    unbind,
    unflatten,
    unstack,
    vsplit,
    vstack,
)
from .reduction import (
    amax,
    amin,
    aminmax,
    argmax,
    argmin,
    average,
    count_nonzero,
    dist,
    logsumexp,
    mean,
    nanmax,
    nanmean,
    nanmin,
    nanprod,
    nanstd,
    nansum,
    nanvar,
    norm,
    ptp,
    std,
    std_mean,
    var,
    var_mean,
)
from .samples import (
    corrcoef,
    cov,
    histogram,
    histogram_bin_edges,
    median,
    nanmedian,
    nanpercentile,
    nanquantile,
    percentile,
    quantile,
)
from .scans import (
    cummax,
    cummin,
    cumprod,
    cumsum,
    cumulative_prod,
    cumulative_sum,
    diff,
    logcumsumexp,
)
from .selection import (
    argwhere,
    bincount,
    flatnonzero,
    gather,
    index_add,
    index_copy,
    index_fill,
    index_put,
    index_select,
    isin,
    masked_fill,
    masked_scatter,
    masked_select,
    nonzero,
    scatter,
    scatter_add,
    scatter_reduce,
)
from .sorting import (
    argsort,
    bucketize,
    digitize,
    kthvalue,
    searchsorted,
    sort,
    topk,
    unique,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)
from .special import (
    addcdiv,
    addcmul,
    allclose,
    array_equal,
    conj,
    deg2rad,
    divmod,
    float_power,
    fmod,
    frac,
    heaviside,
    imag,
    isneginf,
    isposinf,
    ldexp,
    logaddexp,
    logaddexp2,
    logit,
    nan_to_num,
    nextafter,
    rad2deg,
    real,
    signbit,
    sinc,
    xlogy,
)
from .statistics import stats
from .threads import get_num_threads, set_num_threads
from .var import Var, assign_all, grad, sync

# last: the methods, of what is above
from . import methods, tracebacks  # isort: skip

tracebacks.install()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import nn, safetensors, support
    from .batching import vmap
    from .control import cond, scan, while_loop
    from .inspection import dump, explain, print_graph
    from .jitted import jit
    from .kernels import kernel, numpy_code
    from .nans import debug_nans
    from .nn import optim
    from .profiling import profile
    from .serialization import load, save
    from .transforms import checkpoint, gradcheck, hessian, hvp, jacobian, jvp, value_and_grad, vjp


# What loads when first used, because `import metaop` is to be quick, and because a program that is
# cached needs no compiler (which `dump` and `explain` load).
_LATER = {
    "batching": ("vmap",),
    "control": ("cond", "scan", "while_loop"),
    "inspection": ("dump", "explain", "print_graph"),
    "jitted": ("jit",),
    "kernels": ("kernel", "numpy_code"),
    "nans": ("debug_nans",),
    "profiling": ("profile",),
    "serialization": ("load", "save"),
    "transforms": (
        "checkpoint", "gradcheck", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp",
    ),
}  # fmt: skip


_MODULES_LATER = {
    "nn": ".nn", "optim": ".nn.optim", "safetensors": ".safetensors", "support": ".support",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """The functions of `_LATER`, and the modules that `import metaop` alone does not need."""
    if name in _MODULES_LATER:
        return _import_module(_MODULES_LATER[name], __name__)
    for module, names in _LATER.items():
        if name in names:
            return getattr(_import_module(f".{module}", __name__), name)
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(_hint_for(f"module {__name__!r}", name, __dir__()))


def __dir__() -> list[str]:
    later = {name for names in _LATER.values() for name in names}
    return sorted({*globals(), *_MODULES_LATER, *later})
