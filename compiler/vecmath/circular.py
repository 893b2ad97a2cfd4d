"""The circular functions and their inverses."""

from __future__ import annotations

from .coefficients import ASIN, ATAN, COS, SIN
from .formats import HALF_PI, INF, TWO_OVER_PI, format_of, nearest, words_of
from .ops import Ops, Value
from .steps import (
    mask_xor,
    polynomial,
    quick_two_sum,
    rarely,
    round_to_whole,
    sign_mask,
    two_product,
    two_sum,
)


def _vector_sum(ops: Ops, terms: list[Value]) -> list[Value]:
    """The same sum in other terms: the last is the rounded total, the others what it lost."""
    terms = list(terms)
    for i in range(1, len(terms)):
        terms[i], terms[i - 1] = two_sum(ops, terms[i], terms[i - 1])
    return terms


def _modulo_four(ops: Ops, x: Value) -> Value:
    """x less the nearest multiple of 4, exactly."""
    quarters = ops.round_even(ops.mul(x, ops.const(0.25)))
    return ops.fma(ops.const(-4.0), quarters, x)


# v * numerator >> shift is v // bits of a word, for every exponent that occurs
_WORD_DIVISION = {32: (43, 10), 64: (1237, 16)}


def _words_of_two_over_pi(ops: Ops, x: Value) -> tuple[list[Value], Value]:
    """Five words of 2/pi and x over a power of two: those that matter in x * 2/pi modulo 4.

    Words before them give multiples of 4, words after them less than the last bit. The first is
    chosen by the exponent of x, in a cascade of selects by the bits of its number.
    """
    fmt = format_of(ops)
    word_bits = fmt.fraction + 1
    steps = 3 if fmt.width == 32 else 5
    words = [ops.const(w) for w in words_of(TWO_OVER_PI, word_bits, (1 << steps) + 4)]
    field = ops.ilshr(ops.bits(ops.abs(x)), fmt.fraction)
    above = ops.isub(field, ops.iconst(fmt.bias + fmt.fraction + 2))
    above = ops.select(ops.ilt(above, ops.iconst(0)), ops.iconst(0), above)
    numerator, shift = _WORD_DIVISION[fmt.width]
    first = ops.ilshr(ops.imul(above, ops.iconst(numerator)), shift)
    for step in reversed(range(steps)):
        distance = 1 << step
        zero = ops.ieq(ops.iand(first, ops.iconst(distance)), ops.iconst(0))
        keep = distance + 4
        words = [ops.select(zero, words[i], words[i + distance]) for i in range(keep)]
    exponent = ops.ishl(ops.imul(first, ops.iconst(word_bits)), fmt.fraction)
    return words, ops.from_bits(ops.isub(ops.bits(x), exponent))


def _reduce_long(ops: Ops, x: Value) -> tuple[Value, Value, Value]:
    """As `_reduce_angle`, for every finite x of at least `trig_limit`.

    Source: Payne and Hanek, "Radian reduction for trigonometric functions" (1983).
    """
    fmt = format_of(ops)
    words, scaled = _words_of_two_over_pi(ops, x)
    products = []
    for i, word in enumerate(words):
        factor = ops.mul(scaled, ops.const(2.0 ** (-i * (fmt.fraction + 1))))
        products.append(two_product(ops, factor, word))
    terms = [
        _modulo_four(ops, products[0][0]),
        _modulo_four(ops, products[0][1]),
        _modulo_four(ops, products[1][0]),
        products[1][1],
        products[2][0],
        products[2][1],
        products[3][0],
        ops.add(products[3][1], products[4][0]),
    ]
    terms = _vector_sum(ops, terms)
    n, shifted = round_to_whole(ops, terms[-1], 1.0)
    terms[-1] = ops.sub(terms[-1], n)
    terms = _vector_sum(ops, _vector_sum(ops, terms))
    turn, turn_low = terms[-1], terms[0]
    for term in terms[1:-1]:
        turn_low = ops.add(turn_low, term)
    half_pi, half_pi_low = (ops.const(part) for part in fmt.parts(HALF_PI, 2))
    r, r_low = two_product(ops, turn, half_pi)
    r_low = ops.fma(turn, half_pi_low, ops.fma(turn_low, half_pi, r_low))
    not_finite = ops.sub(x, x)  # 0, or NaN for inf
    return ops.add(r, not_finite), r_low, ops.bits(shifted)


def _reduce_angle(ops: Ops, x: Value) -> tuple[Value, Value, Value]:
    """(r, low, q) with x = n pi/2 + r + low, |r| <= pi/4, and n = q modulo 4.

    Source: Cody and Waite, with fma: the first step is exact, as the product is.
    """
    fmt = format_of(ops)
    n, shifted = round_to_whole(ops, x, nearest(TWO_OVER_PI, fmt.width))
    minus_n = ops.neg(n)
    first, second, third = (ops.const(part) for part in fmt.parts(HALF_PI, 3))
    begun = ops.fma(minus_n, first, x)
    step, step_low = two_product(ops, minus_n, second)
    r, low = two_sum(ops, begun, step)
    low = ops.fma(minus_n, third, ops.add(low, step_low))
    large = ops.ge(ops.abs(x), ops.const(fmt.trig_limit))
    usual = (r, low, ops.bits(shifted))
    r, low, quadrant = rarely(ops, large, usual, lambda: _reduce_long(ops, x))
    return r, low, quadrant


def sin_core(ops: Ops, r: Value, low: Value) -> Value:
    """sin(r + low) for |r| <= pi/4."""
    square = ops.mul(r, r)
    return ops.add(r, ops.fma(ops.mul(r, square), polynomial(ops, SIN, square), low))


def cos_core(ops: Ops, r: Value, low: Value) -> Value:
    """cos(r + low) = 1 - r**2/2 + ... - r low, for |r| <= pi/4."""
    square, square_low = two_product(ops, r, r)
    half = ops.mul(ops.const(-0.5), square)
    total, total_low = quick_two_sum(ops, ops.const(1.0), half)
    tail = ops.fma(ops.mul(square, square), polynomial(ops, COS, square), total_low)
    tail = ops.fma(ops.const(-0.5), square_low, tail)
    return ops.add(total, ops.fma(ops.neg(r), low, tail))


def _sin_or_cos(ops: Ops, r: Value, low: Value, quadrant: Value) -> Value:
    """sin(r + low + quadrant * pi/2)."""
    even = ops.ieq(ops.iand(quadrant, ops.iconst(1)), ops.iconst(0))
    value = ops.select(even, sin_core(ops, r, low), cos_core(ops, r, low))
    sign = ops.ishl(ops.iand(quadrant, ops.iconst(2)), ops.width - 2)
    return ops.from_bits(ops.ixor(ops.bits(value), sign))


def sin(ops: Ops, x: Value) -> Value:
    """The sine of x radians, for arguments of any size."""
    result = _sin_or_cos(ops, *_reduce_angle(ops, x))
    return ops.select(ops.eq(x, ops.const(0.0)), x, result)


def cos(ops: Ops, x: Value) -> Value:
    """The cosine of x radians, for arguments of any size."""
    r, low, quadrant = _reduce_angle(ops, x)
    return _sin_or_cos(ops, r, low, ops.iadd(quadrant, ops.iconst(1)))


def tan(ops: Ops, x: Value) -> Value:
    """sin(x) / cos(x); in odd quadrants -cos(r) / sin(r)."""
    r, low, quadrant = _reduce_angle(ops, x)
    sine, cosine = sin_core(ops, r, low), cos_core(ops, r, low)
    even = ops.ieq(ops.iand(quadrant, ops.iconst(1)), ops.iconst(0))
    numerator = ops.select(even, sine, ops.neg(cosine))
    result = ops.div(numerator, ops.select(even, cosine, sine))
    return ops.select(ops.eq(x, ops.const(0.0)), x, result)


def _asin_parts(ops: Ops, a: Value) -> tuple[Value, Value]:
    """(s, w) with asin(s) = s + w and s = a below 1/2, sqrt((1 - a) / 2) above."""
    half = ops.const(0.5)
    small = ops.le(a, half)
    other = ops.fma(ops.const(-0.5), a, half)  # exact
    square = ops.select(small, ops.mul(a, a), other)
    s = ops.select(small, a, ops.sqrt(other))
    return s, ops.mul(ops.mul(s, square), polynomial(ops, ASIN, square))


def asin(ops: Ops, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose sine is x; pi/2 - 2 asin(sqrt((1 - x)/2)) above 1/2."""
    a = ops.abs(x)
    s, w = _asin_parts(ops, a)
    near = ops.add(s, w)
    high, low = (ops.const(part) for part in format_of(ops).parts(HALF_PI, 2))
    minus_two = ops.const(-2.0)
    far = ops.add(ops.fma(minus_two, s, high), ops.fma(minus_two, w, low))
    return ops.copysign(ops.select(ops.le(a, ops.const(0.5)), near, far), x)


def acos(ops: Ops, x: Value) -> Value:
    """The angle in [0, pi] whose cosine is x.

    pi/2 - asin(x) up to 1/2; beyond 2 asin(sqrt((1 - |x|)/2)), for negative x taken from pi.
    """
    a = ops.abs(x)
    s, w = _asin_parts(ops, a)
    value = ops.add(s, w)
    high, low = (ops.const(part) for part in format_of(ops).parts(HALF_PI, 2))
    negative = ops.lt(x, ops.const(0.0))
    near = ops.add(high, ops.add(low, ops.select(negative, value, ops.neg(value))))
    twice = ops.add(value, value)
    two = ops.const(2.0)
    supplement = ops.add(ops.mul(two, high), ops.fma(two, low, ops.neg(twice)))
    far = ops.select(negative, supplement, twice)
    return ops.select(ops.le(a, ops.const(0.5)), near, far)


def _atan_core(ops: Ops, t: Value) -> Value:
    """atan(t) for 0 <= t <= 1."""
    square = ops.mul(t, t)
    return ops.fma(ops.mul(t, square), polynomial(ops, ATAN, square), t)


def atan(ops: Ops, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose tangent is x; pi/2 - atan(1/x) above 1."""
    a = ops.abs(x)
    one = ops.const(1.0)
    large = ops.gt(a, one)
    value = _atan_core(ops, ops.select(large, ops.div(one, a), a))
    high, low = (ops.const(part) for part in format_of(ops).parts(HALF_PI, 2))
    complement = ops.add(high, ops.sub(low, value))
    return ops.copysign(ops.select(large, complement, value), x)


def atan2(ops: Ops, y: Value, x: Value) -> Value:
    """The angle in [-pi, pi] of the point (x, y); the signs of zeros choose the side."""
    rise, run = ops.abs(y), ops.abs(x)
    zero, infinity = ops.const(0.0), ops.const(INF)
    steep = ops.gt(rise, run)
    numerator, denominator = ops.select(steep, run, rise), ops.select(steep, rise, run)
    t = ops.div(numerator, denominator)
    t = ops.select(ops.eq(denominator, zero), numerator, t)  # 0/0
    both = ops.mask_and(ops.eq(numerator, infinity), ops.eq(denominator, infinity))
    value = _atan_core(ops, ops.select(both, ops.const(1.0), t))

    left = sign_mask(ops, x)
    high, low = format_of(ops).parts(HALF_PI, 2)

    def start(part: float) -> Value:
        flat = ops.select(left, ops.const(2.0 * part), zero)
        return ops.select(steep, ops.const(part), flat)

    turned = ops.select(mask_xor(ops, steep, left), ops.neg(value), value)
    angle = ops.add(start(high), ops.add(start(low), turned))
    return ops.copysign(angle, y)
