"""Logarithms, and the inverse hyperbolic functions made of them."""

from __future__ import annotations

from fractions import Fraction

from .coefficients import LOG, LOG_WIDE
from .formats import INF, LN2, LN10_OVER_LN2, NAN, format_of
from .ops import Ops, Value
from .steps import polynomial, quick_two_sum, two_product, two_sum


def split_exponent(ops: Ops, x: Value) -> tuple[Value, Value]:
    """(m, e) with x = m * 2**e, m in [sqrt(1/2), sqrt(2)), e a float; x positive and finite."""
    fmt = format_of(ops)
    tiny = ops.lt(x, ops.const(fmt.smallest_normal))
    shift = fmt.fraction + 1
    scaled = ops.select(tiny, ops.mul(x, ops.const(2.0**shift)), x)
    offset = ops.iconst(fmt.sqrt_half_bits)
    above = ops.isub(ops.bits(scaled), offset)
    fraction = ops.iand(above, ops.iconst((1 << fmt.fraction) - 1))
    exponent = ops.to_float(ops.iashr(above, fmt.fraction))
    correction = ops.select(tiny, ops.const(-float(shift)), ops.const(0.0))
    return ops.from_bits(ops.iadd(fraction, offset)), ops.add(exponent, correction)


def _log_short(ops: Ops, m: Value, e: Value, low: Value | None) -> Value:
    """e ln 2 + log(m) + low, in single numbers: enough for float32."""
    ln2_high, ln2_low = (ops.const(part) for part in format_of(ops).parts(LN2, 2))
    f = ops.sub(m, ops.const(1.0))
    square = ops.mul(f, f)
    tail = ops.mul(ops.mul(f, square), polynomial(ops, LOG, f))
    tail = ops.fma(e, ln2_low, tail)
    if low is not None:
        tail = ops.add(tail, low)
    tail = ops.fma(ops.const(-0.5), square, tail)
    return ops.fma(e, ln2_high, ops.add(f, tail))


def log_wide(ops: Ops, m: Value, e: Value, low: Value | None = None) -> tuple[Value, Value]:
    """e ln 2 + log(m) + low as (high, low), with some twelve bits more than one number.

    log(m) = 2 atanh(s) = s (2 + s**2 (2/3 + s**2 Q(s**2))), s = (m - 1) / (m + 1). Everything but
    s**2 Q is carried in two numbers.
    """
    fmt = format_of(ops)
    one = ops.const(1.0)
    f = ops.sub(m, one)
    d, d_low = two_sum(ops, m, one)
    reciprocal = ops.div(one, d)
    s = ops.mul(f, reciprocal)
    remainder = ops.sub(ops.fma(ops.neg(s), d, f), ops.mul(s, d_low))
    s_low = ops.mul(remainder, reciprocal)

    z, z_low = two_product(ops, s, s)
    z_low = ops.fma(ops.add(s, s), s_low, z_low)
    third_high, third_low = (ops.const(part) for part in fmt.parts(Fraction(2, 3), 2))
    inner, inner_low = quick_two_sum(ops, third_high, ops.mul(z, polynomial(ops, LOG_WIDE, z)))
    inner_low = ops.add(inner_low, third_low)
    product, product_low = two_product(ops, z, inner)
    product_low = ops.fma(z, inner_low, ops.fma(z_low, inner, product_low))
    outer, outer_low = quick_two_sum(ops, ops.const(2.0), product)
    outer_low = ops.add(outer_low, product_low)
    log_m, log_m_low = two_product(ops, s, outer)
    log_m_low = ops.fma(s, outer_low, ops.fma(s_low, outer, log_m_low))

    ln2_high, ln2_low = (ops.const(part) for part in fmt.parts(LN2, 2))
    whole, whole_low = two_product(ops, e, ln2_high)
    whole_low = ops.fma(e, ln2_low, whole_low)
    high, rest = two_sum(ops, whole, log_m)
    rest = ops.add(rest, ops.add(whole_low, log_m_low))
    if low is not None:
        rest = ops.add(rest, low)
    return quick_two_sum(ops, high, rest)


def _log_special(ops: Ops, x: Value, result: Value) -> Value:
    """`result`, and at the ends: log(inf) = inf, log(0) = -inf, log of a negative number NaN."""
    result = ops.select(ops.lt(x, ops.const(INF)), result, x)  # x is inf or NaN: itself
    zero = ops.const(0.0)
    pole = ops.select(ops.eq(x, zero), ops.const(-INF), ops.const(NAN))
    return ops.select(ops.le(x, zero), pole, result)


def _log_sum(ops: Ops, x: Value, low: Value | None, double: Value | None = None) -> Value:
    """log(x) + low, and ln 2 more where the mask `double` is set."""
    m, e = split_exponent(ops, x)
    if double is not None:
        e = ops.add(e, ops.select(double, ops.const(1.0), ops.const(0.0)))
    if ops.width == 32:
        result = _log_short(ops, m, e, low)
    else:
        result = log_wide(ops, m, e, low)[0]
    return _log_special(ops, x, result)


def log(ops: Ops, x: Value) -> Value:
    """The natural logarithm."""
    return _log_sum(ops, x, None)


def _log_times(ops: Ops, x: Value, factor: Fraction) -> Value:
    """log(x) * factor, rounded once but for an error far below the last bit."""
    high, low = log_wide(ops, *split_exponent(ops, x))
    factor_high, factor_low = (ops.const(part) for part in format_of(ops).parts(factor, 2))
    product, product_low = two_product(ops, high, factor_high)
    product_low = ops.fma(high, factor_low, ops.fma(low, factor_high, product_low))
    return _log_special(ops, x, ops.add(product, product_low))


def log2(ops: Ops, x: Value) -> Value:
    """The logarithm to base 2; exact for powers of two."""
    return _log_times(ops, x, 1 / LN2)


def log10(ops: Ops, x: Value) -> Value:
    """The logarithm to base 10; exact for powers of ten."""
    return _log_times(ops, x, 1 / (LN2 * LN10_OVER_LN2))


def log1p(ops: Ops, x: Value) -> Value:
    """log(1 + x), with what 1 + x loses by rounding put back: log(u + c) = log(u) + c/u."""
    u, c = two_sum(ops, ops.const(1.0), x)
    return ops.copysign(_log_sum(ops, u, ops.div(c, u)), x)


def _log_of_sum_with_root(ops: Ops, a: Value, offset: float) -> Value:
    """log(a + sqrt(a**2 + offset)) for a >= 0; offset is 1 or -1."""
    square, square_low = two_product(ops, a, a)
    inside, inside_low = two_sum(ops, square, ops.const(offset))
    root = ops.sqrt(inside)
    remainder = ops.add(ops.fma(ops.neg(root), root, inside), ops.add(inside_low, square_low))
    root_low = ops.div(remainder, ops.add(root, root))
    root_low = ops.select(ops.eq(root, ops.const(0.0)), root, root_low)  # acosh(1)
    u, c = two_sum(ops, a, root)
    low = ops.div(ops.add(c, root_low), u)
    large = ops.gt(a, ops.const(2.0**30))  # log(2 a); a**2 may overflow
    u = ops.select(large, a, u)
    low = ops.select(large, ops.const(0.0), low)
    return _log_sum(ops, u, low, large)


def asinh(ops: Ops, x: Value) -> Value:
    """log(x + sqrt(x**2 + 1)), odd."""
    return ops.copysign(_log_of_sum_with_root(ops, ops.abs(x), 1.0), x)


def acosh(ops: Ops, x: Value) -> Value:
    """log(x + sqrt(x**2 - 1)) for x >= 1."""
    result = _log_of_sum_with_root(ops, x, -1.0)
    return ops.select(ops.lt(x, ops.const(1.0)), ops.const(NAN), result)


def atanh(ops: Ops, x: Value) -> Value:
    """log((1 + x) / (1 - x)) / 2 = log1p(2 x / (1 - x)) / 2, odd."""
    a = ops.abs(x)
    one = ops.const(1.0)
    doubled = ops.add(a, a)
    d, d_low = two_sum(ops, one, ops.neg(a))
    q = ops.div(doubled, d)
    remainder = ops.sub(ops.fma(ops.neg(q), d, doubled), ops.mul(q, d_low))
    u, c = two_sum(ops, one, q)
    low = ops.div(ops.add(c, ops.div(remainder, d)), u)
    return ops.copysign(ops.mul(ops.const(0.5), _log_sum(ops, u, low)), x)
