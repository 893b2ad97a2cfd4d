"""The logarithm of the gamma function, and its derivative."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .circular import cos_core, sin_core
from .coefficients import DIGAMMA, DIGAMMA_TAIL, LGAMMA, LGAMMA_TAIL
from .formats import HALF_PI, INF, NAN, format_of, nearest
from .logarithm import log, log_wide, split_exponent
from .ops import Ops, Value
from .steps import polynomial, rarely, two_product, two_sum

# Both functions: a polynomial on [1, 2], one step of the recurrence for [0, 1] and [2, 3],
# Stirling's series with fitted coefficients from 3 on, the reflection formula for negative numbers.

_DIGAMMA_ZERO = Fraction("0.461632144968362341262659542325721328468196204006446351")  # less 1
_LOG_TWO_PI = Fraction("1.837877066409345483560659472811235279722794947275566825634")
_PI = 2 * HALF_PI


@dataclass(frozen=True)
class _GammaRange:
    """Where a positive number is, and its distance u from 0, 1 or 2 below 3."""

    below_one: Value
    above_two: Value
    large: Value
    u: Value


def _gamma_range(ops: Ops, a: Value) -> _GammaRange:
    zero, one, two = ops.const(0.0), ops.const(1.0), ops.const(2.0)
    below_one, above_two = ops.lt(a, one), ops.ge(a, two)
    start = ops.select(below_one, zero, ops.select(above_two, two, one))
    return _GammaRange(below_one, above_two, ops.ge(a, ops.const(3.0)), ops.sub(a, start))


def _pi_times(ops: Ops, x: Value) -> tuple[Value, Value]:
    """pi times the distance of x from the nearest integer, as (r, low)."""
    pi, pi_low = (ops.const(part) for part in format_of(ops).parts(_PI, 2))
    f = ops.sub(x, ops.round_even(x))
    r, low = two_product(ops, f, pi)
    return r, ops.fma(f, pi_low, low)


def _sin_pi(ops: Ops, x: Value) -> tuple[Value, Value]:
    """(sin, cos) of pi f, f the distance of x from the nearest integer.

    |pi f| reaches pi/2, twice the interval of the polynomials: so from the half angle.
    """
    r, low = _pi_times(ops, x)
    half = ops.const(0.5)
    r, low = ops.mul(r, half), ops.mul(low, half)
    sine, cosine = sin_core(ops, r, low), cos_core(ops, r, low)
    double_sine = ops.mul(ops.add(sine, sine), cosine)
    return double_sine, ops.mul(ops.sub(cosine, sine), ops.add(cosine, sine))


def _lgamma_positive(ops: Ops, a: Value) -> Value:
    """lgamma(a) for a >= 0."""
    at, one = _gamma_range(ops, a), ops.const(1.0)
    smooth = polynomial(ops, LGAMMA, at.u)
    roots, roots_low = two_product(ops, at.u, ops.sub(at.u, one))
    base, base_low = two_product(ops, roots, smooth)
    base_low = ops.fma(roots_low, smooth, base_low)
    # lgamma(a) is lgamma(a + 1) - log(a) below 1 and lgamma(a - 1) + log(a - 1) above 2.
    shifted = ops.select(at.above_two, ops.sub(a, one), one)
    argument = ops.select(ops.mask_or(at.below_one, at.large), a, shifted)
    high, low = log_wide(ops, *split_exponent(ops, argument))
    step = ops.select(at.below_one, ops.neg(high), high)
    step_low = ops.select(at.below_one, ops.neg(low), low)
    small, small_low = two_sum(ops, base, step)
    small = ops.add(small, ops.add(small_low, ops.add(base_low, step_low)))
    small = ops.select(ops.eq(a, ops.const(0.0)), ops.const(INF), small)

    # (a - 1/2) (log(a) - 1) + (log(2 pi) - 1) / 2 + 1 / (12 a) - ...
    less_one, lost = two_sum(ops, high, ops.const(-1.0))
    less_one_low = ops.add(lost, low)
    factor = ops.sub(a, ops.const(0.5))
    product, product_low = two_product(ops, factor, less_one)
    product_low = ops.fma(factor, less_one_low, product_low)
    inverse = ops.div(one, a)
    tail = ops.mul(inverse, polynomial(ops, LGAMMA_TAIL, ops.mul(inverse, inverse)))
    constant = ops.const(nearest((_LOG_TWO_PI - 1) / 2, ops.width))
    total = ops.add(product, ops.add(constant, ops.add(tail, product_low)))
    total = ops.select(ops.eq(product, ops.const(INF)), product, total)
    return ops.select(at.large, total, small)


def lgamma(ops: Ops, x: Value) -> Value:
    """log(|gamma(x)|); inf at 0, -1, -2, ...

    For negative x it is log(pi / |sin(pi x)|) - log(-x) - lgamma(-x): near its zeros there the
    error is a few units of the last place of these terms.
    """
    a = ops.abs(x)
    positive = _lgamma_positive(ops, a)

    def reflected() -> tuple[Value]:
        sine, _ = _sin_pi(ops, a)
        over_pi = ops.mul(ops.abs(sine), ops.const(nearest(1 / _PI, ops.width)))
        logs = ops.add(log(ops, over_pi), log(ops, a))
        value = ops.neg(ops.add(logs, positive))
        infinite, pole = ops.const(INF), ops.eq(sine, ops.const(0.0))
        return (ops.select(ops.mask_or(ops.eq(a, infinite), pole), infinite, value),)

    return rarely(ops, ops.lt(x, ops.const(0.0)), (positive,), reflected)[0]


def _digamma_positive(ops: Ops, a: Value) -> tuple[Value, Value]:
    """(digamma(a), digamma(a + 1)) for a >= 0."""
    at, one = _gamma_range(ops, a), ops.const(1.0)
    zero_high, zero_low = (ops.const(part) for part in format_of(ops).parts(_DIGAMMA_ZERO, 2))
    distance = ops.sub(ops.sub(at.u, zero_high), zero_low)
    base = ops.mul(distance, polynomial(ops, DIGAMMA, at.u))
    between = ops.mask_and(at.above_two, ops.mask_not(at.large))
    inverse = ops.div(one, ops.select(between, ops.sub(a, one), a))
    down = ops.select(at.below_one, ops.sub(base, inverse), base)
    small = ops.select(at.above_two, ops.add(base, inverse), down)

    square = ops.mul(inverse, inverse)
    tail = ops.mul(square, polynomial(ops, DIGAMMA_TAIL, square))
    tail = ops.fma(ops.const(0.5), inverse, tail)
    value = ops.select(at.large, ops.sub(log(ops, a), tail), small)
    following = ops.select(at.below_one, base, ops.add(value, ops.div(one, a)))
    return value, following


def digamma(ops: Ops, x: Value) -> Value:
    """The derivative of lgamma; -inf at 0, inf at -0.0, NaN at -1, -2, ...

    For negative x it is digamma(1 - x) - pi / tan(pi x): near its zeros there the error is a few
    units of the last place of these terms.
    """
    a, zero = ops.abs(x), ops.const(0.0)
    positive, following = _digamma_positive(ops, a)

    def reflected() -> tuple[Value]:
        sine, cosine = _sin_pi(ops, a)
        cotangent = ops.div(ops.mul(ops.const(nearest(_PI, ops.width)), cosine), sine)
        value = ops.add(following, cotangent)
        return (ops.select(ops.eq(sine, zero), ops.const(NAN), value),)

    result = rarely(ops, ops.lt(x, zero), (positive,), reflected)[0]
    pole = ops.copysign(ops.const(INF), ops.neg(x))
    return ops.select(ops.eq(x, zero), pole, result)
