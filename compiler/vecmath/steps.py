"""Steps that several functions share: polynomials, error-free transformations, powers of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .coefficients import Table
from .formats import format_of
from .ops import Ops, Value


def _horner(ops: Ops, x: Value, coefficients: Sequence[float]) -> Value:
    """c[0] + c[1] x + c[2] x**2 + ..., in Horner's order."""
    result = ops.const(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = ops.fma(result, x, ops.const(coefficient))
    return result


def polynomial(ops: Ops, table: Table, x: Value) -> Value:
    """The polynomial that `table` has for this width, at `x`."""
    return _horner(ops, x, table[ops.width])


def two_sum(ops: Ops, a: Value, b: Value) -> tuple[Value, Value]:
    """(s, e) with s = a + b rounded and s + e = a + b exactly (Knuth)."""
    total = ops.add(a, b)
    b_seen = ops.sub(total, a)
    a_seen = ops.sub(total, b_seen)
    return total, ops.add(ops.sub(a, a_seen), ops.sub(b, b_seen))


def quick_two_sum(ops: Ops, a: Value, b: Value) -> tuple[Value, Value]:
    """As `two_sum`, for |a| >= |b| or a = 0 (Dekker)."""
    total = ops.add(a, b)
    return total, ops.sub(b, ops.sub(total, a))


def two_product(ops: Ops, a: Value, b: Value) -> tuple[Value, Value]:
    """(p, e) with p = a * b rounded and p + e = a * b exactly, unless e underflows."""
    product = ops.mul(a, b)
    return product, ops.fma(a, b, ops.neg(product))


def at_most(ops: Ops, x: Value, bound: float) -> Value:
    """min(x, bound) that keeps NaN; one instruction on most machines, unlike `Ops.minimum`."""
    limit = ops.const(bound)
    return ops.select(ops.gt(x, limit), limit, x)


def at_least(ops: Ops, x: Value, bound: float) -> Value:
    """max(x, bound) that keeps NaN."""
    limit = ops.const(bound)
    return ops.select(ops.lt(x, limit), limit, x)


def round_to_whole(ops: Ops, x: Value, factor: float) -> tuple[Value, Value]:
    """(n, t): n the integer nearest to x * factor, and t, whose bits end in those of n.

    Adding 1.5 * 2**fraction pushes the bits behind the point out of the number. No conversion
    is needed, and NaN does no harm. n must be below 2**(fraction - 1).
    """
    magic = ops.const(format_of(ops).magic)
    shifted = ops.add(x, magic) if factor == 1.0 else ops.fma(x, ops.const(factor), magic)
    return ops.sub(shifted, magic), shifted


class Whole(NamedTuple):
    """What `round_to_whole` returns: a whole number n as a float, and t."""

    number: Value
    shifted: Value


def integer(ops: Ops, n: Whole) -> Value:
    """The n of `round_to_whole` as an integer."""
    return ops.isub(ops.bits(n.shifted), ops.iconst(format_of(ops).magic_bits))


def power_of_two(ops: Ops, n: Value) -> Value:
    """2**n for an integer n in the range of normal exponents."""
    fmt = format_of(ops)
    return ops.from_bits(ops.ishl(ops.iadd(n, ops.iconst(fmt.bias)), fmt.fraction))


def scale(ops: Ops, x: Value, whole: Whole, less: int = 0) -> Value:
    """x * 2**(n - less) with one rounding, for x near 1: two steps, so that 2**n may over- or
    underflow."""
    at_once = getattr(ops, "scale", None)
    if at_once is not None:
        return at_once(x, ops.sub(whole.number, ops.const(float(less))) if less else whole.number)
    n = integer(ops, whole)
    n = ops.isub(n, ops.iconst(less)) if less else n
    half = ops.iashr(n, 1)
    first = ops.mul(x, power_of_two(ops, half))
    return ops.mul(first, power_of_two(ops, ops.isub(n, half)))


def sign_mask(ops: Ops, x: Value) -> Value:
    """Where the sign bit of x is set: also for -0.0."""
    return ops.ilt(ops.bits(x), ops.iconst(0))


def mask_xor(ops: Ops, a: Value, b: Value) -> Value:
    """Where exactly one of two masks is set."""
    return ops.mask_and(ops.mask_or(a, b), ops.mask_not(ops.mask_and(a, b)))


def rarely(
    ops: Ops, mask: Value, usual: tuple[Value, ...], slow: Callable[[], tuple[Value, ...]]
) -> tuple[Value, ...]:
    """`usual`, or where `mask` is set `slow()`; see `Ops`."""
    branch = getattr(ops, "rarely", None)
    if branch is not None:
        return tuple(branch(mask, usual, slow))
    return tuple(ops.select(mask, b, a) for a, b in zip(usual, slow(), strict=True))
