"""pow and hypot."""

from __future__ import annotations

from .exponential import exp_parts_wide
from .formats import INF, NAN, format_of
from .logarithm import log_wide, split_exponent
from .ops import Ops, Value
from .steps import at_least, at_most, quick_two_sum, scale, sign_mask, two_product


def _is_odd(ops: Ops, y: Value, whole: Value) -> Value:
    """Where y, known to be an integer where the mask `whole` is set, is odd."""
    half = ops.mul(y, ops.const(0.5))
    return ops.mask_and(whole, ops.ne(ops.floor(half), half))


def _pow_magnitude(ops: Ops, a: Value, y: Value) -> Value:
    """a**y = exp(y log(a)) for a >= 0, the product carried in two numbers."""
    zero = ops.const(0.0)
    high, low = log_wide(ops, *split_exponent(ops, a))
    edge = ops.mask_or(ops.eq(a, zero), ops.eq(a, ops.const(INF)))
    limit = ops.select(ops.eq(a, zero), ops.const(-INF), ops.const(INF))
    high = ops.select(edge, limit, high)

    product, product_low = two_product(ops, y, high)
    product_low = ops.fma(y, low, product_low)
    # log(1) * inf is not NaN here: pow(-1, inf) = 1.
    product = ops.select(ops.eq(a, ops.const(1.0)), zero, product)
    floor, ceiling = format_of(ops).exp_range
    inside = ops.mask_and(ops.gt(product, ops.const(floor)), ops.lt(product, ops.const(ceiling)))
    inside = ops.mask_and(inside, ops.ne(product, zero))
    product_low = ops.select(inside, product_low, zero)
    product = at_most(ops, at_least(ops, product, floor), ceiling)
    return scale(ops, *exp_parts_wide(ops, product, product_low))


def pow(ops: Ops, x: Value, y: Value) -> Value:
    """x**y. pow(x, 0) = pow(1, y) = 1 for every x and y; a negative base needs an integer y."""
    a = ops.abs(x)
    zero, one, nan = ops.const(0.0), ops.const(1.0), ops.const(NAN)
    result = _pow_magnitude(ops, a, y)
    whole = ops.eq(ops.floor(y), y)
    flips = ops.mask_and(sign_mask(ops, x), _is_odd(ops, y, whole))
    result = ops.select(flips, ops.neg(result), result)
    rootless = ops.mask_and(ops.lt(x, zero), ops.mask_not(whole))
    rootless = ops.mask_and(rootless, ops.ne(a, ops.const(INF)))
    unknown = ops.mask_or(rootless, ops.mask_or(ops.isnan(x), ops.isnan(y)))
    result = ops.select(unknown, nan, result)
    return ops.select(ops.mask_or(ops.eq(x, one), ops.eq(y, zero)), one, result)


def hypot(ops: Ops, x: Value, y: Value) -> Value:
    """sqrt(x**2 + y**2) without overflow or underflow in between; inf beats NaN."""
    a, b = ops.abs(x), ops.abs(y)
    swap = ops.lt(a, b)
    larger, smaller = ops.select(swap, b, a), ops.select(swap, a, b)
    reach = format_of(ops).bias // 2 - 3
    shift = reach + format_of(ops).fraction // 2
    huge = ops.gt(larger, ops.const(2.0**reach))
    tiny = ops.lt(larger, ops.const(2.0**-reach))

    def by_size(for_huge: float, for_tiny: float) -> Value:
        scale = ops.select(tiny, ops.const(for_tiny), ops.const(1.0))
        return ops.select(huge, ops.const(for_huge), scale)

    scale = by_size(2.0**-shift, 2.0**shift)
    larger, smaller = ops.mul(larger, scale), ops.mul(smaller, scale)
    square, square_low = two_product(ops, larger, larger)
    total, total_low = quick_two_sum(ops, square, ops.mul(smaller, smaller))
    root = ops.sqrt(ops.add(total, ops.add(total_low, square_low)))
    result = ops.mul(root, by_size(2.0**shift, 2.0**-shift))
    infinite = ops.mask_or(ops.eq(a, ops.const(INF)), ops.eq(b, ops.const(INF)))
    return ops.select(infinite, ops.const(INF), result)
