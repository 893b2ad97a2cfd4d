"""What a printed Python kernel needs to run as it stands: `from metaop.compiler.python_kernels
import *`.  Plain NumPy scalars; every function is one operator on scalars.

This is the slow oracle: kernels printed as Python are read by people and run by tests, never in
the execution path.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

f16, f32, f64 = np.float16, np.float32, np.float64
i8, i16, i32, i64 = np.int8, np.int16, np.int32, np.int64
u8, u16, u32, u64 = np.uint8, np.uint16, np.uint32, np.uint64
bool_ = np.bool_
inf, nan = math.inf, math.nan


class CheckFailed(Exception):
    """A kernel read an index outside its bounds or divided an integer by zero."""

    def __init__(self, number: int, value: int):
        super().__init__(f"check {number} failed for {value}")
        self.number, self.value = number, value


def grid(chunk: int, chunks: int, *extents: int) -> Iterator[Any]:
    """The iterations of chunk `chunk` of `chunks`, in row-major order: index tuples."""
    total = math.prod(extents)
    low, high = total * chunk // chunks, total * (chunk + 1) // chunks
    for k in range(low, high):
        index = []
        for extent in reversed(extents):
            k, i = divmod(k, extent)
            index.append(i)
        yield index[0] if len(extents) == 1 else tuple(reversed(index))


def last(counter: Any, chunks: int) -> bool:
    """True in the call that is the last of all chunks to end."""
    counter[0] = (counter[0] + 1) % chunks
    return bool(counter[0] == 0)


def scratch(dtype: Any, elements: int) -> Any:
    """An array of this thread, undefined at first: NaN, where floats."""
    return np.frombuffer(b"\xff" * (elements * np.dtype(dtype).itemsize), dtype).copy()


def check(value: Any, low: int, high: int, number: int, guard: bool) -> Any:
    """value if it lies in [low, high) (low == high: if it is not low), else CheckFailed."""
    good = value != low if low == high else low <= value < high
    if guard and not good:
        raise CheckFailed(number, int(value))
    return value if good else type(value)(1 if low == high else 0)


def cast(value: Any, dtype: Any) -> Any:
    """value converted as NumPy's astype does; to an integer a float saturates and NaN is 0."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        whole = 0 if np.isnan(array) else info.max if array > info.max else array
        return dtype(int(info.min if whole < info.min else whole))
    return array.astype(dtype)[()]


def from_bfloat16(value: Any) -> Any:
    """The float32 of stored bfloat16 bits."""
    return np.asarray(u32(value) << u32(16)).view(f32)[()]


def to_bfloat16(value: Any) -> Any:
    """The bits of a float32 rounded to nearest even bfloat16; NaN stays NaN."""
    bits = int(np.asarray(f32(value)).view(u32)[()])
    if math.isnan(value):
        return u16((bits >> 16) | 0x40)
    return u16(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF)


def bitcast(value: Any, dtype: Any) -> Any:
    """The same bytes read as another type."""
    return np.asarray(value).view(dtype)[()]


def fma(a: Any, b: Any, c: Any) -> Any:
    """a*b + c; float32 through float64, which is exact up to a rare double rounding."""
    if type(c) is f32:
        return f32(f64(a) * f64(b) + f64(c))
    return a * b + c


def identity(op: str, dtype: Any) -> Any:
    """The identity element of a reduction."""
    kind = np.dtype(dtype).kind
    if op in ("maximum", "minimum"):
        if kind == "f":
            return dtype(-inf if op == "maximum" else inf)
        if kind == "b":
            return dtype(op == "minimum")
        info = np.iinfo(dtype)
        return dtype(info.min if op == "maximum" else info.max)
    if op in ("multiply", "logical_and"):
        return dtype(1)
    if op == "bitwise_and":
        return cast(-1, dtype)
    return dtype(0)


def threefry(key0: Any, key1: Any, word: Any, call: Any) -> Any:
    """Word 0 of Threefry-2x32, 20 rounds."""
    mask = 0xFFFFFFFF
    keys = [int(key0), int(key1)]
    keys.append(keys[0] ^ keys[1] ^ 0x1BD11BDA)
    x, y = (int(word) + keys[0]) & mask, (int(call) + keys[1]) & mask
    for rounds, rotation in zip(range(20), itertools.cycle((13, 15, 26, 6, 17, 29, 16, 24))):
        x = (x + y) & mask
        y = ((y << rotation) | (y >> (32 - rotation))) & mask
        y ^= x
        if rounds % 4 == 3:
            step = rounds // 4 + 1
            x = (x + keys[step % 3]) & mask
            y = (y + keys[(step + 1) % 3] + step) & mask
    return u32(x)


def _same_type(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return cast(function(*args), np.asarray(args[0]).dtype)

    wrapped.__name__ = getattr(function, "__name__", "function")
    return wrapped


def _erf(x: Any) -> Any:
    return math.erf(x)


def _erfc(x: Any) -> Any:
    return math.erfc(x)


def _lgamma(x: Any) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.inf if x > 1e305 else math.lgamma(x)


def _digamma(x: Any) -> float:
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


def _erfinv(x: Any) -> float:
    """Newton's method on erf, or on erfc where erf is flat."""
    if not -1 < x < 1 or x == 0:
        return math.copysign(math.inf, x) if abs(x) == 1 else x if x == 0 else math.nan
    a = abs(x)
    y = a * 0.9 if a < 0.7 else math.sqrt(-math.log(1 - a))
    for _ in range(60):
        error = math.erf(y) - a if a < 0.5 else (1 - a) - math.erfc(y)
        y -= error * math.sqrt(math.pi) / 2 * math.exp(y * y)
    return math.copysign(y, x)


def _sigmoid(x: Any) -> Any:
    x = f64(x)
    return 1 / (1 + np.exp(-x))


def _pow(a: Any, b: Any) -> Any:
    # for a scalar 0.5 NumPy takes the square root, which differs from pow at -inf and -0.0
    return np.power(np.array([a, a]), np.array([b, b]))[0]


def _truncdiv(a: Any, b: Any) -> Any:
    quotient = math.trunc(Fraction(int(a), int(b)))
    return np.array(quotient & 0xFFFFFFFFFFFFFFFF, u64)  # min / -1 wraps


def _truncmod(a: Any, b: Any) -> Any:
    return int(a) - int(b) * math.trunc(Fraction(int(a), int(b)))


_DEFINITIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "trunc": np.trunc, "sqrt": np.sqrt, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "erf": _erf, "erfc": _erfc,
    "erfinv": _erfinv, "lgamma": _lgamma, "digamma": _digamma,
    "sigmoid": _sigmoid, "floordiv": np.floor_divide, "mod": np.remainder,
    "truncdiv": _truncdiv, "truncmod": _truncmod, "pow": _pow, "atan2": np.arctan2,
    "hypot": np.hypot, "copysign": np.copysign, "maximum": np.maximum,
    "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin,
}  # fmt: skip
# What a user's function may call, on Python's numbers, by the names in its source: how many numbers
# each takes.
SCALAR_FUNCTIONS = dict.fromkeys(
    "math_sqrt math_exp math_exp2 math_expm1 math_log math_log2 math_log10 math_log1p math_sin "
    "math_cos math_tan math_asin math_acos math_atan math_sinh math_cosh math_tanh math_asinh "
    "math_acosh math_atanh math_erf math_erfc math_lgamma math_digamma math_floor math_ceil "
    "math_trunc math_fabs math_isnan math_isinf math_isfinite".split(), 1
) | dict.fromkeys("math_div math_pow math_atan2 math_hypot math_copysign".split(), 2)  # fmt: skip
FUNCTIONS = {name: _same_type(function) for name, function in _DEFINITIONS.items()}
PREDICATES = {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite}


def _of_numbers(name: str) -> Callable[..., Any]:
    """An operator of floats as a function of Python's numbers that returns one."""
    known: dict[str, Callable[..., Any]] = {**FUNCTIONS, **PREDICATES}
    operator = (known | {"fabs": np.abs, "div": np.divide})[name]

    def function(*numbers: Any) -> float:
        with np.errstate(all="ignore"):
            return float(operator(*map(f64, numbers)))

    return function


globals().update(FUNCTIONS | PREDICATES)
globals().update({name: _of_numbers(name.partition("_")[2]) for name in SCALAR_FUNCTIONS})
