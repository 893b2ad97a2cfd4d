"""Elementwise functions composed of others: NumPy's and torch's, differentiated through what they
are made of."""

from __future__ import annotations

import math
from typing import Any

from . import dtype as dt
from . import elementwise as el
from . import reduction
from .build import full
from .dtype import DType
from .errors import DTypeError, describe
from .graph import Elementwise, Node
from .recipes import remembered
from .var import Var, node_of


def _as_var(x: Any) -> Var:
    return x if isinstance(x, Var) else Var(x)


def _floats(operation: str, *values: Any) -> list[Var]:
    """The operands as Vars of one float dtype and one shape."""
    nodes = el.operands(operation, *values)
    if not nodes[0].dtype.is_float:
        nodes = [Elementwise("cast", n, dtype=dt.float32) for n in nodes]
    return [Var._of(n) for n in nodes]


# ------------------------------------------------------------------------- exponentials, logarithms


def _log_sum(operation: str, a: Any, b: Any, base: float) -> Var:
    """high + log(1 + base**(low - high)); the order is chosen without a gradient, so that a tie is
    smooth."""
    x, y = _floats(operation, a, b)
    first = el.greater_equal(x, y)
    high, low = el.where(first, x, y), el.where(first, y, x)
    endless = el.logical_and(el.isinf(high), el.equal(low, low))  # low is not NaN
    distance = el.where(endless, 0.0, el.subtract(low, high))
    if base != math.e:
        distance = el.multiply(distance, math.log(base))
    grown = el.log1p(el.exp(distance))
    return el.add(high, grown if base == math.e else el.multiply(grown, 1 / math.log(base)))


@remembered
def logaddexp(a: Any, b: Any) -> Var:
    """log(exp(a) + exp(b)) without overflow."""
    return _log_sum("logaddexp", a, b, math.e)


@remembered
def logaddexp2(a: Any, b: Any) -> Var:
    """log2(2**a + 2**b) without overflow."""
    return _log_sum("logaddexp2", a, b, 2.0)


@remembered
def xlogy(x: Any, y: Any) -> Var:
    """x * log(y), 0 where x is 0 and y is not NaN."""
    a, b = _floats("xlogy", x, y)
    zero = el.logical_and(el.equal(a, 0), el.logical_not(el.isnan(b)))
    return el.where(zero, 0.0, el.multiply(a, el.log(el.where(zero, 1.0, b))))


@remembered
def logit(x: Any, eps: float | None = None) -> Var:
    """log(x / (1 - x)), the inverse of sigmoid; x is first limited to [eps, 1 - eps] if given."""
    (p,) = _floats("logit", x)
    if eps is not None:
        p = el.clip(p, eps, 1 - eps)
    return el.subtract(el.log(p), el.log1p(el.negative(p)))


@remembered
def float_power(a: Any, b: Any) -> Var:
    """a ** b as floats."""
    return el.pow(*_floats("float_power", a, b))


@remembered
def ldexp(x: Any, n: Any) -> Var:
    """x * 2**n."""
    return el.multiply(x, el.exp2(n))


# ------------------------------------------------------------------------------------ trigonometry


def deg2rad(x: Any) -> Var:
    """x * pi / 180."""
    return el.multiply(_floats("deg2rad", x)[0], math.pi / 180)


def rad2deg(x: Any) -> Var:
    """x * 180 / pi."""
    return el.multiply(_floats("rad2deg", x)[0], 180 / math.pi)


@remembered
def sinc(x: Any) -> Var:
    """sin(pi x) / (pi x), 1 at 0; near 0 by its series, so that derivatives there are right."""
    (a,) = _floats("sinc", x)
    near = el.less(el.abs(a), 0.01)
    angle = el.multiply(el.where(near, 1.0, a), math.pi)
    u = el.square(el.multiply(el.where(near, a, 0.0), math.pi))
    series: Any = -1 / 5040
    for coefficient in (1 / 120, -1 / 6, 1.0):
        series = el.add(el.multiply(u, series), coefficient)
    return el.where(near, series, el.divide(el.sin(angle), angle))


# ------------------------------------------------------------------------------- signs and rounding


@remembered
def signbit(x: Any) -> Var:
    """True where the sign bit is set: below 0, and at -0.0."""
    var = _as_var(x)
    if var.dtype.is_float:
        return el.less(el.copysign(_like(1, var), var), 0)
    return el.less(var, 0)


@remembered
def heaviside(x: Any, value: Any) -> Var:
    """0 below 0, 1 above, `value` at 0; NaN for NaN."""
    a, h = _floats("heaviside", x, value)
    step = el.where(el.less(a, 0), 0.0, el.where(el.greater(a, 0), 1.0, a))
    return el.where(el.equal(a, 0), h, step)


@remembered
def fmod(a: Any, b: Any) -> Var:
    """The remainder with the sign of a, as C's fmod."""
    x, y = (Var._of(n) for n in el.operands("fmod", a, b))
    if x.dtype.is_integer:
        return Var._of(Elementwise("truncmod", x._node, y._node))
    size = el.abs(y)
    rest = el.where(
        el.less(x, 0), el.negative(el.remainder(el.negative(x), size)), el.remainder(x, size)
    )
    plain = el.logical_and(el.equal(x, 0), el.greater(size, 0))
    return el.where(plain, x, rest)  # which keeps -0.0


@remembered
def frac(x: Any) -> Var:
    """x - trunc(x)."""
    return el.subtract(x, el.trunc(x))


@remembered
def divmod(a: Any, b: Any) -> tuple[Var, Var]:
    """(floor_divide(a, b), remainder(a, b))."""
    return el.floor_divide(a, b), el.remainder(a, b)


@remembered
def nextafter(a: Any, b: Any) -> Var:
    """The float next to a in the direction of b; it has no gradient."""
    x, y = _floats("nextafter", a, b)
    if x.dtype is dt.bfloat16:
        raise DTypeError(f"nextafter(a, b): not defined for bfloat16, a is {describe(x)}")
    whole = {2: dt.int16, 4: dt.int32, 8: dt.int64}[x.dtype.itemsize]
    bits = Var._of(Elementwise("bitcast", x._node, dtype=whole))
    away = el.equal(el.greater(y, x), el.greater(x, 0))
    moved = el.add(bits, el.where(away, Var._of(full(1, x.shape, whole)), -1))
    step = Var._of(Elementwise("bitcast", moved._node, dtype=x.dtype))
    smallest = Var._of(Elementwise("bitcast", full(1, x.shape, whole), dtype=x.dtype))
    step = el.where(el.equal(x, 0), el.copysign(smallest, y), step)
    unordered = el.logical_or(el.isnan(x), el.isnan(y))
    return el.where(unordered, math.nan, el.where(el.equal(x, y), y, step))


# ---------------------------------------------------------------------------- NaN, inf and complex


def isposinf(x: Any) -> Var:
    """True where x is inf."""
    return el.logical_and(el.isinf(x), el.greater(x, 0))


def isneginf(x: Any) -> Var:
    """True where x is -inf."""
    return el.logical_and(el.isinf(x), el.less(x, 0))


_LARGEST = {
    dt.float16: 65504.0,
    dt.bfloat16: (2 - 2.0**-7) * 2.0**127,
    dt.float32: (2 - 2.0**-23) * 2.0**127,
    dt.float64: (2 - 2.0**-52) * 2.0**1023,
}


def largest(dtype: DType) -> float:
    """The largest finite number of a float dtype."""
    return _LARGEST[dtype]


@remembered
def nan_to_num(
    x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Var:
    """x with NaN, inf and -inf replaced, by default by 0 and the largest numbers of its dtype."""
    var = _as_var(x)
    if not var.dtype.is_float:
        return el.positive(var)
    high = _LARGEST[var.dtype] if posinf is None else posinf
    low = -_LARGEST[var.dtype] if neginf is None else neginf
    finite = el.where(el.isinf(var), el.where(el.greater(var, 0), _like(high, var), low), var)
    return el.where(el.isnan(var), nan, finite)


def _like(number: float, x: Var) -> Var:
    return Var._of(full(number, x.shape, x.dtype))


def real(x: Any) -> Var:
    """x: metaop has no complex numbers."""
    return el.positive(x)


def conj(x: Any) -> Var:
    """x: metaop has no complex numbers."""
    return el.positive(x)


def imag(x: Any) -> Var:
    """Zeros: metaop has no complex numbers."""
    node: Node = node_of(x)
    return Var._of(full(0, node.shape, node.dtype))


# ---------------------------------------------------------------------------------- three at once


@remembered
def addcmul(x: Any, a: Any, b: Any, *, value: float = 1) -> Var:
    """x + value * a * b."""
    product = el.multiply(a, b)
    return el.add(x, product if value == 1 else el.multiply(value, product))


@remembered
def addcdiv(x: Any, a: Any, b: Any, *, value: float = 1) -> Var:
    """x + value * a / b."""
    quotient = el.divide(a, b)
    return el.add(x, quotient if value == 1 else el.multiply(value, quotient))


# -------------------------------------------------------------------------------------- comparison


@remembered
def allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Var:
    """True (a 0-d Var) if all elements are close, as `isclose`."""
    return reduction.all(el.isclose(a, b, rtol, atol, equal_nan))


@remembered
def array_equal(a: Any, b: Any) -> Var:
    """True (a 0-d Var) if shapes and elements are equal."""
    if node_of(a).shape != node_of(b).shape:
        return Var(False)
    return reduction.all(el.equal(a, b))
