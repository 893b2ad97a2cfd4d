"""Further names of functions: torch's and NumPy's, and reductions that also take named axes."""

from __future__ import annotations

from typing import Any

from . import (
    build,
    creation,
    dtype,
    elementwise,
    indexing,
    linalg,
    linear,
    movement,
    random,
    rearrange,
    reduction,
    sorting,
    special,
)
from .aliases import dim_or_axis
from .errors import ShapeError
from .notation import Indexed, reduce_over
from .var import Var, node_of

# dtypes
bool, short, int, long = dtype.bool_, dtype.int16, dtype.int32, dtype.int64
half, float, double = dtype.float16, dtype.float32, dtype.float64
newaxis = None

# elementwise
arcsin, arccos, arctan = elementwise.asin, elementwise.acos, elementwise.atan
arcsinh, arccosh, arctanh = elementwise.asinh, elementwise.acosh, elementwise.atanh
arctan2, absolute, fabs = elementwise.atan2, elementwise.abs, elementwise.abs
mul, sub = elementwise.multiply, elementwise.subtract
div = true_divide = elementwise.divide
mod, power, neg = elementwise.remainder, elementwise.pow, elementwise.negative
eq, ne = elementwise.equal, elementwise.not_equal
lt, le = elementwise.less, elementwise.less_equal
gt, ge = elementwise.greater, elementwise.greater_equal
clamp, cast, sgn = elementwise.clip, elementwise.astype, elementwise.sign
fix, rint, around = elementwise.trunc, elementwise.round, elementwise.round
expit, gammaln = elementwise.sigmoid, elementwise.lgamma
invert = bitwise_not = elementwise.bitwise_invert
left_shift, right_shift = elementwise.bitwise_left_shift, elementwise.bitwise_right_shift
radians, degrees = special.deg2rad, special.rad2deg
clone = copy = elementwise.positive
conjugate = special.conj

# movement and creation
cat = concatenate = movement.concat
permute, unsqueeze = movement.permute_dims, movement.expand_dims
movedim = movement.moveaxis
row_stack = rearrange.vstack
as_tensor, tensor = creation.asarray, creation.array
ascontiguousarray = creation.asarray
broadcast_tensors = rearrange.broadcast_arrays

# linear algebra
ger = linear.outer
det, slogdet, logdet = linalg.det, linalg.slogdet, linalg.logdet
inverse, pinverse, matrix_power = linalg.inv, linalg.pinv, linalg.matrix_power

# random
seed = set_global_seed = random.manual_seed
rand, randn, randint = random.rand, random.randn, random.randint
randperm, bernoulli, multinomial = random.randperm, random.bernoulli, random.multinomial
rand_like, randn_like = random.rand_like, random.randn_like


@dim_or_axis
def take_along_dim(x: Any, indices: Any, dim: Any = None) -> Var:
    """x at indices along an axis, of the flat x without one (torch's name of take_along_axis)."""
    if dim is None:
        flat = movement.reshape(x, (node_of(x).size,))
        return indexing.take_along_axis(flat, movement.reshape(indices, (-1,)), 0)
    return indexing.take_along_axis(x, indices, dim)


def msort(x: Any) -> Var:
    """x sorted along its first axis."""
    return sorting.sort(x, 0)


def chain_matmul(*matrices: Any) -> Var:
    """The product of matrices in the cheapest order."""
    return linalg.multi_dot(matrices)


def matvec(a: Any, x: Any) -> Var:
    """The products of matrices and vectors; leading axes broadcast."""
    return linear.einsum("...ij,...j->...i", a, x)


def vecmat(x: Any, a: Any) -> Var:
    """The products of vectors and matrices; leading axes broadcast."""
    return linear.einsum("...i,...ij->...j", x, a)


def broadcast_shapes(*shapes: Any) -> Any:
    """The common shape of some shapes.  Raises ShapeError."""
    try:
        return build.broadcast_shapes(*(movement.shape_of((s,)) for s in shapes))
    except ValueError as error:
        raise ShapeError(f"broadcast_shapes: {shapes} do not broadcast ({error})") from None


def clamp_min(x: Any, low: Any) -> Var:
    """x limited from below."""
    return elementwise.clip(x, low)


def clamp_max(x: Any, high: Any) -> Var:
    """x limited from above."""
    return elementwise.clip(x, None, high)


def numel(x: Any) -> Any:
    """The number of elements."""
    return node_of(x).size


size = numel


def shape(x: Any) -> Any:
    """The extents of the axes."""
    return node_of(x).shape


def ndim(x: Any) -> Any:
    """The number of axes."""
    return len(node_of(x).shape)


def is_tensor(x: Any) -> Any:
    """True for a Var."""
    return isinstance(x, Var)


def is_floating_point(x: Any) -> Any:
    """True for a Var of floats."""
    return node_of(x).dtype.is_float


_OVER = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum",
         "all": "logical_and", "any": "logical_or"}  # fmt: skip


def _reduction(name: str) -> Any:
    plain = getattr(reduction, name)

    def function(x: Any, *args: Any, over: Any = None, **options: Any) -> Any:
        if isinstance(x, Indexed):
            return reduce_over(_OVER[name], x, () if over is None else over)
        return plain(x, *args, **options)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{plain.__doc__}\n\n    With `over=`: of an expression over named axes."
    return function


sum, prod = _reduction("sum"), _reduction("prod")
max, min = _reduction("max"), _reduction("min")
all, any = _reduction("all"), _reduction("any")

__all__ = [
    "absolute", "all", "any", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
    "arctanh", "around", "as_tensor", "ascontiguousarray", "bernoulli", "bitwise_not", "bool",
    "broadcast_shapes", "broadcast_tensors", "cast", "cat", "chain_matmul", "clamp",
    "clamp_max", "clamp_min", "clone", "concatenate", "conjugate", "copy", "degrees", "det",
    "div", "double", "eq", "expit", "fabs", "fix", "float", "gammaln", "ge", "ger", "gt",
    "half", "int", "inverse", "invert", "is_floating_point", "is_tensor", "le", "left_shift",
    "logdet", "long", "lt", "matrix_power", "matvec", "max", "min", "mod", "movedim", "msort",
    "mul", "multinomial", "ndim", "ne", "neg", "newaxis", "numel", "permute", "pinverse",
    "power", "prod", "radians", "rand", "rand_like", "randint", "randn", "randn_like",
    "randperm", "right_shift", "rint", "row_stack", "seed", "set_global_seed", "sgn", "shape",
    "short", "size", "slogdet", "sub", "sum", "take_along_dim", "tensor", "true_divide",
    "unsqueeze", "vecmat",
]  # fmt: skip
