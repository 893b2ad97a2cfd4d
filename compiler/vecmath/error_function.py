"""erf, erfc and erfinv."""

from __future__ import annotations

from .coefficients import ERF, ERF_TAIL, ERFCX, ERFINV_FAR, ERFINV_MIDDLE, ERFINV_NEAR, Table
from .exponential import exp_core, exp_parts_wide
from .formats import INF, LN2, NAN, format_of, nearest
from .logarithm import log
from .ops import Ops, Value
from .steps import (
    Whole,
    at_most,
    integer,
    polynomial,
    power_of_two,
    round_to_whole,
    scale,
    two_product,
    two_sum,
)


def _erf_near(ops: Ops, a: Value) -> Value:
    """erf(a) for 0 <= a <= 1."""
    return ops.fma(a, polynomial(ops, ERF, ops.mul(a, a)), a)


def _erfc_parts(ops: Ops, a: Value) -> tuple[Value, Whole]:
    """(p, n) with erfc(a) = p * 2**n, for 0 <= a <= erfc_zero.

    exp(a**2) erfc(a) (1 + 2a) is a slowly varying function of (a - k)/(a + k), which maps
    [0, inf) to [-1, 1]. Source: Shepherd and Laframboise, "Chebyshev approximation of
    (1 + 2x) exp(x**2) erfc x in 0 <= x < inf" (1981).
    """
    center = ops.const(2.0 if ops.width == 32 else 4.0)
    t = ops.div(ops.sub(a, center), ops.add(a, center))
    two, one = ops.const(2.0), ops.const(1.0)
    square, square_low = two_product(ops, a, a)
    significand, exponent = exp_parts_wide(ops, ops.neg(square), ops.neg(square_low))
    smooth = polynomial(ops, ERFCX, t)
    d, d_low = two_sum(ops, one, ops.mul(two, a))
    reciprocal = ops.div(one, d)
    quotient = ops.mul(smooth, reciprocal)
    remainder = ops.sub(ops.fma(ops.neg(quotient), d, smooth), ops.mul(quotient, d_low))
    quotient_low = ops.mul(remainder, reciprocal)
    return ops.fma(significand, quotient, ops.mul(significand, quotient_low)), exponent


def _erfc_short(ops: Ops, a: Value) -> Value:
    """erfc(a) for 0.92 <= a to float32's accuracy of 1 - erfc(a): 2 to a polynomial."""
    power = polynomial(ops, ERF_TAIL, at_most(ops, a, 3.95))
    n, shifted = round_to_whole(ops, power, 1.0)
    r = ops.mul(ops.sub(power, n), ops.const(nearest(LN2, 32)))
    raised = ops.ishl(ops.bits(shifted), format_of(ops).fraction)  # n in the exponent's place
    return ops.from_bits(ops.iadd(ops.bits(exp_core(ops, r)), raised))


def erf(ops: Ops, x: Value) -> Value:
    """The error function, 2/sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    a = ops.abs(x)
    if ops.width == 32:
        tail = _erfc_short(ops, a)
    else:
        significand, exponent = _erfc_parts(ops, at_most(ops, a, 6.0))
        tail = ops.mul(significand, power_of_two(ops, integer(ops, exponent)))
    far = ops.sub(ops.const(1.0), tail)
    near = ops.lt(a, ops.const(0.95))
    return ops.copysign(ops.select(near, _erf_near(ops, a), far), x)


def erfc(ops: Ops, x: Value) -> Value:
    """1 - erf(x), without the cancellation for positive x."""
    a = at_most(ops, ops.abs(x), format_of(ops).erfc_zero)
    one = ops.const(1.0)
    tail = scale(ops, *_erfc_parts(ops, a))
    tail = ops.select(ops.lt(a, ops.const(0.5)), ops.sub(one, _erf_near(ops, a)), tail)
    return ops.select(ops.lt(x, ops.const(0.0)), ops.sub(ops.const(2.0), tail), tail)


def erfinv(ops: Ops, x: Value) -> Value:
    """The number whose erf is x, by polynomials in w = -log(1 - x**2) or sqrt(w).

    Source: M. Giles, "Approximating the erfinv function" (2012); other polynomials.
    """
    a = ops.abs(x)
    one = ops.const(1.0)
    w = ops.neg(log(ops, ops.fma(ops.neg(a), a, one)))
    root = ops.sqrt(w)
    pieces: list[tuple[Table, Value, float, float]] = [
        (ERFINV_NEAR, w, 2.5, 5.0),
        (ERFINV_MIDDLE, root, 3.0, INF),
    ]
    if ops.width == 64:
        pieces = [
            (ERFINV_NEAR, w, 3.125, 6.25),
            (ERFINV_MIDDLE, root, 3.25, 16.0),
            (ERFINV_FAR, root, 5.0, INF),
        ]
    ratio = ops.const(0.0)
    for table, argument, center, until in reversed(pieces):
        value = polynomial(ops, table, ops.sub(argument, ops.const(center)))
        ratio = value if until == INF else ops.select(ops.lt(w, ops.const(until)), value, ratio)
    result = ops.select(ops.eq(a, one), ops.const(INF), ops.mul(a, ratio))
    return ops.copysign(ops.select(ops.gt(a, one), ops.const(NAN), result), x)
