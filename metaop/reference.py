"""Every meta-operator as a loop over indices: what each means, and the oracle of the tests.

Nothing here runs when a program does, and nothing of metaop is imported.  The loops are in plain
Python, good for arrays of some 10^5 elements.

    index           out[i] = i[axis]
    random_bits     out[i] = threefry2x32(key, (number of i, counter))[0]
    elementwise     out[i] = f(a[i], b[i], ...)
    reindex         out[i] = source[e(i)] of the first piece whose condition holds, else fill
    reindex_reduce  out[e(i)] (+)= y[i], starting from the identity of (+)

A dtype is a name, a NumPy dtype, or any object with a `name`.  float16 and bfloat16 are computed in
float32 and rounded once per operator.  NumPy has no bfloat16, so operands of that type are passed
widened (`bfloat16_to_float32`), and `dtype="bfloat16"` returns its bits as uint16.  A reduction of
floats accumulates in float64 and is rounded once: no order of summation is part of the definition.
Integers wrap.  Mixed operands promote as in NumPy, but float64 comes only from float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
IndexFunction = Callable[..., Sequence[Any]]  # of Python or NumPy integers
Condition = Callable[..., Any] | None
Piece = tuple[int, IndexFunction, Condition]
Pair = tuple[int, int]


# ---------------------------------------------------------------------------------------- dtypes


def bfloat16_to_float32(bits: ArrayLike) -> Array:
    """The float32 values of bfloat16 bits (uint16): exact, the bits are the upper half."""
    upper = np.asarray(np.asarray(bits, np.uint16).astype(np.int64) << 16)
    return upper.astype(np.uint32).view(np.float32)


def float32_to_bfloat16(values: ArrayLike) -> Array:
    """The bfloat16 bits (uint16) nearest to float32 values, ties to even; NaN stays NaN.

    Other dtypes are converted to float32 first, as in torch, which rounds twice.
    """
    floats = np.asarray(values, np.float32)
    bits = floats.view(np.uint32).astype(np.int64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40
    return np.asarray(np.where(np.isnan(floats), quiet_nan, rounded)).astype(np.uint16)


def _name(dtype: Any) -> str:
    name = getattr(dtype, "name", dtype)
    return "bfloat16" if isinstance(name, str) and name == "bfloat16" else np.dtype(name).name


def _compute_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype that arithmetic on `dtype` runs in."""
    name = _name(dtype)
    return np.dtype("float32" if name in ("float16", "bfloat16") else name)


def _accumulator_dtype(dtype: Any) -> np.dtype[Any]:
    compute = _compute_dtype(dtype)
    return np.dtype("float64") if compute.kind == "f" else compute


def _convert(values: Array, dtype: Any) -> Array:
    """`values` in `dtype`, as NumPy's astype; bits for bfloat16."""
    name = _name(dtype)
    with np.errstate(all="ignore"):
        return float32_to_bfloat16(values) if name == "bfloat16" else values.astype(name)


def _common_dtype(arrays: Iterable[Array]) -> np.dtype[Any]:
    """NumPy's common dtype of arrays, but float32 where NumPy would make up a float64."""
    dtypes = [array.dtype for array in arrays]
    common = np.result_type(*dtypes)
    return np.dtype("float32") if common == np.float64 and common not in dtypes else common


# ----------------------------------------------------------------------------------- elementwise


def _keeps_integers(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A rounding function that returns integers and bool as they are."""

    def rounding(x: Array) -> Array:
        return function(x) if x.dtype.kind == "f" else x

    return rounding


def _checks_divisor(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """A division that raises ZeroDivisionError for integers; floats give inf or NaN."""

    def division(a: Array, b: Array) -> Array:
        if b.dtype.kind != "f" and np.any(b == 0):
            raise ZeroDivisionError("integer division or modulo by zero")
        return function(a, b)

    return division


def _by_element(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of Python floats (float64) on arrays of floats."""

    def elements(x: Array) -> Array:
        return np.vectorize(function, otypes=[np.float64])(x).astype(x.dtype)

    return elements


def _lgamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.inf if x > 1e305 else math.lgamma(x)


def _digamma(x: float) -> float:
    """The recurrence up to 10, then the asymptotic series; below 0 by reflection."""
    if x == 0:
        return math.copysign(math.inf, -x)
    if math.isnan(x) or x == -math.inf or (x < 0 and x == math.floor(x)):
        return math.nan
    if x < 0:
        return _digamma(1 - x) - math.pi / math.tan(math.pi * math.fmod(x, 1.0))
    total = 0.0
    while x < 10:
        total -= 1 / x
        x += 1
    if math.isinf(x):
        return x
    series = 0.0
    for coefficient in (-1 / 12, 691 / 32760, -1 / 132, 1 / 240, -1 / 252, 1 / 120, -1 / 12):
        series = series / (x * x) + coefficient
    return total + math.log(x) - 0.5 / x + series / (x * x)


def _erfinv(x: float) -> float:
    """Newton's method on erf, or on erfc where erf is flat."""
    if not -1 < x < 1 or x == 0:
        return math.copysign(math.inf, x) if abs(x) == 1 else x if x == 0 else math.nan
    a = abs(x)
    y = a * 0.9 if a < 0.7 else math.sqrt(-math.log(1 - a))
    for _ in range(60):
        error = math.erf(y) - a if a < 0.5 else (1 - a) - math.erfc(y)
        y -= error * math.sqrt(math.pi) / 2 * math.exp(y * y)
    return math.copysign(y, x)


def _sigmoid(x: Array) -> Array:
    # 1 / (1 + exp(-x)), written so that exp never overflows.
    power = np.exp(-np.abs(x))
    return np.where(x < 0, power, np.ones_like(x)) / (1 + power)


def _truncating_divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.trunc(a / b)
    floor = np.floor_divide(a, b)
    rounded_down = (np.mod(a, b) != 0) & ((a < 0) != (b < 0))
    return floor + rounded_down.astype(floor.dtype)


def _one(x: Array) -> Array:
    return np.ones_like(x)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    # One operand.
    "copy": np.copy,
    "again": np.copy,
    "barrier": np.copy,
    "neg": np.negative,
    "abs": np.absolute,
    "sign": np.sign,
    "square": np.square,
    "reciprocal": lambda x: _one(x) / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: _one(x) / np.sqrt(x),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _by_element(math.erf),
    "erfc": _by_element(math.erfc),
    "erfinv": _by_element(_erfinv),
    "lgamma": _by_element(_lgamma),
    "digamma": _by_element(_digamma),
    "sigmoid": _sigmoid,
    "floor": _keeps_integers(np.floor),
    "ceil": _keeps_integers(np.ceil),
    "round": _keeps_integers(np.rint),  # half to even
    "trunc": _keeps_integers(np.trunc),
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "logical_not": np.logical_not,
    "invert": np.invert,
    # Two operands.
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "floordiv": _checks_divisor(np.floor_divide),  # rounds down, as Python
    "mod": _checks_divisor(np.mod),  # has the sign of the divisor, as Python
    "truncdiv": _checks_divisor(_truncating_divide),  # rounds towards zero, as C
    "truncmod": _checks_divisor(np.fmod),  # has the sign of the dividend, as C
    "pow": np.power,  # integers to a negative integer: ValueError
    "maximum": np.maximum,  # NaN if either is NaN
    "minimum": np.minimum,
    "fmax": np.fmax,  # the other one if either is NaN
    "fmin": np.fmin,
    "atan2": np.arctan2,
    "hypot": np.hypot,
    "copysign": np.copysign,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "shl": np.left_shift,  # by the width or more: 0
    "shr": np.right_shift,  # by the width or more: 0, or -1 for a negative number
    # Three operands.
    "where": lambda condition, a, b: np.where(condition.astype(bool), a, b),
    # One operand and a dtype.  A float becomes an integer by dropping its fraction; what NaN and
    # numbers out of range become is unspecified (here: what astype gives on this machine).
    "cast": _convert,
    "bitcast": lambda x, dtype: x.view(_name(dtype)),
}

# Given the dtype as an argument; all others get their operands converted to it.
CONVERSIONS = frozenset({"cast", "bitcast"})

# Return bool unless told otherwise, and compare in the operands' own dtype.
PREDICATES = frozenset(
    "isnan isinf isfinite lt le gt ge eq ne logical_not logical_and logical_or logical_xor".split()
)

# Return floats: float32 for integers and bool.
FLOATING = frozenset(
    "reciprocal sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh"
    " cosh tanh asinh acosh atanh erf erfc erfinv lgamma digamma sigmoid"
    " div atan2 hypot copysign".split()
)


def elementwise(op: str, *arrays: ArrayLike, dtype: Any = None) -> Array:
    """out[i] = op(a[i], b[i], ...) for operands of one shape.

    dtype: of the result; required by cast and bitcast, else derived from the operands (bool for a
    predicate, float32 for exp, div ... of integers).

    Raises: ValueError for operands of different shapes; ZeroDivisionError for an integer zero
    under floordiv, mod, truncdiv, truncmod; TypeError for a cast without a dtype.
    """
    operands = [np.asarray(array) for array in arrays]
    _require_one_shape(op, operands)
    with np.errstate(all="ignore"):
        if op in CONVERSIONS:
            if dtype is None:
                raise TypeError(f"{op}: say to which dtype")
            return np.asarray(ELEMENTWISE[op](operands[0], dtype))
        dtype = _result_dtype(op, operands) if dtype is None else dtype
        result = ELEMENTWISE[op](*_in_one_dtype(op, operands, dtype))
    return _convert(np.asarray(result), dtype)


def _require_one_shape(op: str, operands: Sequence[Array]) -> None:
    shapes = [operand.shape for operand in operands]
    if len(set(shapes)) > 1:
        raise ValueError(f"{op}: operands must have one shape, got {shapes}")


def _result_dtype(op: str, operands: Sequence[Array]) -> np.dtype[Any]:
    if op in PREDICATES:
        return np.dtype(bool)
    common = _common_dtype(operands[1:] if op == "where" else operands)
    return np.dtype("float32") if op in FLOATING and common.kind != "f" else common


def _in_one_dtype(op: str, operands: Sequence[Array], dtype: Any) -> list[Array]:
    compute = _compute_dtype(_common_dtype(operands) if op in PREDICATES else dtype)
    if op == "where":
        condition, *values = operands
        return [condition, *(value.astype(compute) for value in values)]
    return [operand.astype(compute) for operand in operands]


# ------------------------------------------------------------------------------- index, reindex


def index(shape: Shape, axis: int, dtype: Any = "int64") -> Array:
    """out[i0, i1, ...] = i_axis."""
    out = np.empty(shape, _name(dtype))
    for position in np.ndindex(out.shape):
        out[position] = position[axis]
    return out


def reindex(
    sources: Sequence[Array],
    shape: Shape,
    pieces: Sequence[Piece],
    fill: Any = 0,
    dtype: Any = None,
) -> Array:
    """out[i] = sources[k][e(i)] for the first piece (k, e, condition) whose condition holds at i.

    e(i0, i1, ...) returns an index into sources[k], which may lie outside it; condition(i0, i1,
    ...) may be None, which always holds.  Where the index lies outside its source (a negative one
    does), and where no piece holds, the value is `fill`.

    dtype: of the result, that of the sources unless given.
    """
    arrays = [np.asarray(source) for source in sources]
    dtype = _common_dtype(arrays) if dtype is None else dtype
    out = np.full(shape, fill, _compute_dtype(dtype))
    for position in np.ndindex(out.shape):
        for number, index_function, condition in pieces:
            if condition is None or condition(*position):
                origin = tuple(index_function(*position))
                if _inside(origin, arrays[number].shape):
                    out[position] = arrays[number][origin]
                break
    return _convert(out, dtype)


def _inside(position: Sequence[Any], shape: Shape) -> bool:
    return all(0 <= i < extent for i, extent in zip(position, shape, strict=True))


# -------------------------------------------------------------------------------- reindex_reduce

REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
}


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return -math.inf
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return math.inf
    return True if dtype.kind == "b" else np.iinfo(dtype).max


def _all_bits(dtype: np.dtype[Any]) -> Any:
    return -1 if dtype.kind == "i" else _highest(dtype)


# The number e of each dtype with e (+) x == x for every x.
IDENTITY: dict[str, Callable[[np.dtype[Any]], Any]] = {
    "add": lambda dtype: 0,
    "multiply": lambda dtype: 1,
    "maximum": _lowest,
    "minimum": _highest,
    "logical_and": lambda dtype: True,
    "logical_or": lambda dtype: False,
    "bitwise_and": _all_bits,
    "bitwise_or": lambda dtype: 0,
    "bitwise_xor": lambda dtype: 0,
}


def identity(op: str, dtype: Any) -> Any:
    """The number that leaves every other of this dtype alone under op: what empty reductions are.

    A Python number: a float for bfloat16 too, not bits.
    """
    return IDENTITY[op](_compute_dtype(dtype))


def reindex_reduce(
    op: str,
    y: ArrayLike,
    shape: Shape,
    index_function: IndexFunction,
    condition: Condition = None,
    dtype: Any = None,
) -> Array:
    """out = identity; for i in indices of y: out[e(i)] = out[e(i)] op y[i].

    An i is skipped where condition(i0, i1, ...) is false and where the index e(i0, i1, ...) lies
    outside `shape`.

    dtype: of the result, that of y (bool for logical_and, logical_or) unless given.
    """
    values = np.asarray(y)
    if dtype is None:
        dtype = "bool" if op.startswith("logical") else values.dtype
    accumulator = np.dtype(bool) if op.startswith("logical") else _accumulator_dtype(dtype)
    out = np.full(shape, identity(op, dtype), accumulator)
    combine = REDUCTIONS[op]
    with np.errstate(all="ignore"):
        for position, value in np.ndenumerate(values.astype(accumulator)):
            if condition is None or condition(*position):
                target = tuple(index_function(*position))
                if _inside(target, out.shape):
                    out[target] = combine(out[target], value)
    return _convert(out, dtype)


# ----------------------------------------------------------------------------------- random bits

_WORD = 0xFFFFFFFF
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_ROUNDS = 20


def threefry2x32(key: Pair, counter: Pair) -> Pair:
    """Two random 32-bit words: the block cipher Threefry-2x32-20 applied to a counter.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    schedule = (key[0], key[1], _PARITY ^ key[0] ^ key[1])
    word0 = (counter[0] + schedule[0]) & _WORD
    word1 = (counter[1] + schedule[1]) & _WORD
    for step in range(_ROUNDS):
        word0 = (word0 + word1) & _WORD
        word1 = _rotate_left(word1, _ROTATIONS[step % 8]) ^ word0
        if step % 4 == 3:
            injection = step // 4 + 1
            word0 = (word0 + schedule[injection % 3]) & _WORD
            word1 = (word1 + schedule[(injection + 1) % 3] + injection) & _WORD
    return word0, word1


def _rotate_left(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & _WORD


def random_bits(key: Pair, counter: int, shape: Shape) -> Array:
    """out[i] = threefry2x32(key, (number of i in row-major order mod 2^32, counter))[0], uint32."""
    words = [threefry2x32(key, (i & _WORD, counter))[0] for i in range(math.prod(shape))]
    return np.array(words, np.uint32).reshape(shape)


# ---------------------------------------------------- what the tests compare derived functions to


def matmul(a: ArrayLike, b: ArrayLike) -> Array:
    """out[..., i, j] = sum_k a[..., i, k] * b[..., k, j]; vectors and batches as numpy.matmul."""
    left, right = np.asarray(a), np.asarray(b)
    dtype = _common_dtype([left, right])
    rows = left[np.newaxis, :] if left.ndim == 1 else left
    columns = right[:, np.newaxis] if right.ndim == 1 else right
    out = _matmul_batches(*(x.astype(_accumulator_dtype(dtype)) for x in (rows, columns)))
    if left.ndim == 1:
        out = out[..., 0, :]
    if right.ndim == 1:
        out = out[..., 0]
    return _convert(np.asarray(out), dtype)


def _matmul_batches(a: Array, b: Array) -> Array:
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: inner sizes differ: {a.shape} and {b.shape}")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, batch + a.shape[-2:])
    b = np.broadcast_to(b, batch + b.shape[-2:])
    out = np.zeros((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    with np.errstate(all="ignore"):
        for position in np.ndindex(out.shape):
            n, (i, j) = position[:-2], position[-2:]
            for k in range(a.shape[-1]):
                out[position] += a[n][i, k] * b[n][k, j]
    return out


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """The cross-correlation of x[n, c, h, w] and w[o, c / groups, r, s], as torch's conv2d.

    out[n, o, i, j] = sum over c, r, s of
        x[n, g*C + c, i*stride + r*dilation - padding, j*stride + s*dilation - padding]
        * w[o, c, r, s],
    where g is the group of o, C the channels of a group, and x is 0 outside.
    """
    image, kernel = np.asarray(x), np.asarray(w)
    dtype = _common_dtype([image, kernel])
    image, kernel = (array.astype(_accumulator_dtype(dtype)) for array in (image, kernel))
    batch, _, height, width = image.shape
    features, channels, window_height, window_width = kernel.shape
    rows = _Window(height, window_height, *_first(stride, padding, dilation))
    columns = _Window(width, window_width, *_second(stride, padding, dilation))
    out = np.zeros((batch, features, rows.count(), columns.count()), image.dtype)
    with np.errstate(all="ignore"):
        for n, o, i, j in np.ndindex(out.shape):
            group = o // (features // groups)
            for c in range(channels):
                for r, h in rows.inside(i):
                    for s, v in columns.inside(j):
                        out[n, o, i, j] += image[n, group * channels + c, h, v] * kernel[o, c, r, s]
    return _convert(out, dtype)


def max_pool2d(
    x: ArrayLike,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """The largest of each window of x[n, c, h, w] (NaN if it holds one), as torch's max_pool2d."""
    image = np.asarray(x)
    stride = kernel_size if stride is None else stride
    rows, columns = _windows(image, kernel_size, stride, padding, dilation)
    shape = (*image.shape[:2], rows.count(ceil_mode), columns.count(ceil_mode))
    out = np.full(shape, identity("maximum", image.dtype), image.dtype)
    for n, c, i, j in np.ndindex(shape):
        for _, h in rows.inside(i):
            for _, v in columns.inside(j):
                out[n, c, i, j] = np.maximum(out[n, c, i, j], image[n, c, h, v])
    return out


def avg_pool2d(
    x: ArrayLike,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The mean of each window of x[n, c, h, w], as torch's avg_pool2d.

    The divisor counts the zeros of the padding, if so told, but never what lies beyond it.
    """
    image = np.asarray(x)
    stride = kernel_size if stride is None else stride
    rows, columns = _windows(image, kernel_size, stride, padding, 1)
    out = np.zeros((*image.shape[:2], rows.count(ceil_mode), columns.count(ceil_mode)))
    for n, c, i, j in np.ndindex(out.shape):
        for _, h in rows.inside(i):
            for _, v in columns.inside(j):
                out[n, c, i, j] += image[n, c, h, v]
        out[n, c, i, j] /= rows.size(i, count_include_pad) * columns.size(j, count_include_pad)
    return _convert(out, image.dtype)


def batch_norm(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(variance + eps) * gamma + beta, per channel (axis 1), as in training.

    Returns (y, mean, variance), mean and variance (divided by n, not n - 1) per channel in float64.
    Source: Ioffe and Szegedy, "Batch normalization", 2015, algorithm 1.
    """
    values, scale, shift = np.asarray(x), np.asarray(gamma, float), np.asarray(beta, float)
    channels = values.shape[1]
    y, mean, variance = np.empty(values.shape), np.empty(channels), np.empty(channels)
    for c in range(channels):
        channel = values[:, c].astype(np.float64)
        mean[c] = channel.sum() / channel.size
        variance[c] = ((channel - mean[c]) ** 2).sum() / channel.size
        y[:, c] = (channel - mean[c]) / math.sqrt(variance[c] + eps) * scale[c] + shift[c]
    return _convert(y, values.dtype), mean, variance


class _Window:
    """One axis of a sliding window: which positions of the input belong to output number i."""

    def __init__(self, extent: int, length: int, stride: int, padding: int, dilation: int):
        self.extent, self.length = extent, length
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def count(self, ceil_mode: bool = False) -> int:
        """The number of outputs; in ceil mode also a last window that reaches over the edge."""
        room = self.extent + 2 * self.padding - self.dilation * (self.length - 1) - 1
        if not ceil_mode:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        starts_beyond = (count - 1) * self.stride >= self.extent + self.padding
        return count - 1 if starts_beyond else count

    def positions(self, i: int) -> Iterator[Pair]:
        """(offset in the window, position in the input) for each element of window i."""
        for offset in range(self.length):
            yield offset, i * self.stride + offset * self.dilation - self.padding

    def inside(self, i: int) -> Iterator[Pair]:
        """The positions that lie in the input."""
        return ((offset, p) for offset, p in self.positions(i) if 0 <= p < self.extent)

    def size(self, i: int, include_padding: bool) -> int:
        """How many positions of window i lie in the input, or in the padded input."""
        border = self.padding if include_padding else 0
        return sum(-border <= p < self.extent + border for _, p in self.positions(i))


def _first(*settings: int | Pair) -> list[int]:
    return [value if isinstance(value, int) else value[0] for value in settings]


def _second(*settings: int | Pair) -> list[int]:
    return [value if isinstance(value, int) else value[1] for value in settings]


def _windows(image: Array, kernel_size: int | Pair, *settings: int | Pair) -> tuple[_Window, ...]:
    height, width = image.shape[2:]
    rows = _Window(height, *_first(kernel_size, *settings))
    columns = _Window(width, *_second(kernel_size, *settings))
    return rows, columns
