"""exp, its relatives, and the hyperbolic functions made of it."""

from __future__ import annotations

from .coefficients import EXP, SINH, TANH
from .formats import LN2, format_of, nearest
from .ops import Ops, Value
from .steps import (
    Whole,
    at_least,
    at_most,
    integer,
    polynomial,
    power_of_two,
    quick_two_sum,
    round_to_whole,
    scale,
    two_product,
)


def _exp_reduce(ops: Ops, x: Value) -> tuple[Value, Value, Whole]:
    """(r, low, n) with x = n ln 2 + r + low, |r| <= ln(2)/2."""
    fmt = format_of(ops)
    n, shifted = round_to_whole(ops, x, nearest(1 / LN2, fmt.width))
    ln2_high, ln2_low = (ops.const(part) for part in fmt.parts(LN2, 2))
    minus_n = ops.neg(n)
    first = ops.fma(minus_n, ln2_high, x)  # exact: x and ln2_high have their last bits close by
    r = ops.fma(minus_n, ln2_low, first)
    return r, ops.fma(minus_n, ln2_low, ops.sub(first, r)), Whole(n, shifted)


def exp_core(ops: Ops, r: Value, low: Value | None = None) -> Value:
    """exp(r + low) for |r| <= ln(2)/2 and `low` below the last bit of r."""
    square = ops.mul(r, r)
    q = polynomial(ops, EXP, r)
    tail = ops.add(r, ops.fma(square, q, low)) if low is not None else ops.fma(square, q, r)
    return ops.add(ops.const(1.0), tail)


def _exp_parts(ops: Ops, x: Value) -> tuple[Value, Whole]:
    """(p, n) with exp(x) = p * 2**n, p in [0.7, 1.42]."""
    r, low, n = _exp_reduce(ops, x)
    return exp_core(ops, r, low), n


def exp_parts_wide(ops: Ops, x: Value, x_low: Value) -> tuple[Value, Whole]:
    """As `_exp_parts` for exp(x + x_low)."""
    r, low, n = _exp_reduce(ops, x)
    r, low = quick_two_sum(ops, r, ops.add(low, x_low))
    return exp_core(ops, r, low), n


def exp(ops: Ops, x: Value) -> Value:
    """e**x. Source: Cody and Waite's reduction by ln 2, then a polynomial."""
    low, high = format_of(ops).exp_range
    significand, exponent = _exp_parts(ops, at_most(ops, at_least(ops, x, low), high))
    return scale(ops, significand, exponent)


def exp2(ops: Ops, x: Value) -> Value:
    """2**x; exact for integers."""
    fmt = format_of(ops)
    x = at_least(ops, x, -fmt.bias - fmt.fraction - 1.0)
    x = at_most(ops, x, fmt.bias + 2.0)
    n, shifted = round_to_whole(ops, x, 1.0)
    f = ops.sub(x, n)
    ln2_high, ln2_low = (ops.const(part) for part in fmt.parts(LN2, 2))
    r, low = two_product(ops, f, ln2_high)
    significand = exp_core(ops, r, ops.fma(f, ln2_low, low))
    return scale(ops, significand, Whole(n, shifted))


def expm1(ops: Ops, x: Value) -> Value:
    """e**x - 1, without the cancellation near 0.

    With x = n ln 2 + r it is 2**n (e**r - 1) + (2**n - 1), which is e**r - 1 itself for n = 0.
    """
    fmt = format_of(ops)
    clamped = at_most(ops, x, fmt.exp_range[1])
    clamped = at_least(ops, clamped, -0.75 * (fmt.fraction + 3))
    r, low, whole = _exp_reduce(ops, clamped)
    tail = ops.fma(ops.mul(r, r), polynomial(ops, EXP, r), low)
    near = ops.add(r, tail)
    n = integer(ops, whole)
    # Half of everything, doubled at the end, for 2**n itself can overflow.
    half_power = power_of_two(ops, ops.isub(n, ops.iconst(1)))
    far = ops.fma(half_power, near, ops.sub(half_power, ops.const(0.5)))
    result = ops.select(ops.ieq(n, ops.iconst(0)), near, ops.add(far, far))
    return ops.copysign(result, x)


def _half_exp(ops: Ops, magnitude: Value) -> Value:
    """exp(x)/2 for x >= 0: overflows where sinh and cosh do."""
    clamped = at_most(ops, magnitude, format_of(ops).cosh_inf)
    significand, exponent = _exp_parts(ops, clamped)
    return scale(ops, significand, exponent, less=1)


def sinh(ops: Ops, x: Value) -> Value:
    """(e**x - e**-x) / 2; an odd polynomial below 1."""
    a = ops.abs(x)
    square = ops.mul(a, a)
    near = ops.fma(ops.mul(a, square), polynomial(ops, SINH, square), a)
    grown = _half_exp(ops, a)
    far = ops.sub(grown, ops.div(ops.const(0.25), grown))
    return ops.copysign(ops.select(ops.lt(a, ops.const(1.0)), near, far), x)


def cosh(ops: Ops, x: Value) -> Value:
    """(e**x + e**-x) / 2."""
    grown = _half_exp(ops, ops.abs(x))
    return ops.add(grown, ops.div(ops.const(0.25), grown))


def tanh(ops: Ops, x: Value) -> Value:
    """sinh(x) / cosh(x): an odd polynomial below 5/8, 1 - 2 / (e**2x + 1) above."""
    a = ops.abs(x)
    square = ops.mul(a, a)
    near = ops.fma(ops.mul(a, square), polynomial(ops, TANH, square), a)
    clamped = at_most(ops, a, format_of(ops).tanh_one)
    significand, exponent = _exp_parts(ops, ops.add(clamped, clamped))
    denominator = ops.fma(significand, power_of_two(ops, integer(ops, exponent)), ops.const(1.0))
    far = ops.sub(ops.const(1.0), ops.div(ops.const(2.0), denominator))
    return ops.copysign(ops.select(ops.lt(a, ops.const(0.625)), near, far), x)


def sigmoid(ops: Ops, x: Value) -> Value:
    """1 / (1 + e**-x), computed from e**-|x| so that it underflows gradually."""
    falling = exp(ops, ops.neg(ops.abs(x)))
    one = ops.const(1.0)
    negative = ops.lt(x, ops.const(0.0))
    denominator, lost = quick_two_sum(ops, one, falling)
    result = ops.div(ops.select(negative, falling, one), denominator)
    # n / (d + lost) = n/d - n/d * lost/d, and 1/d is at hand: n/d, or 1 - n/d where n = d - 1.
    reciprocal = ops.select(negative, ops.sub(one, result), result)
    return ops.fma(ops.neg(ops.mul(result, lost)), reciprocal, result)
