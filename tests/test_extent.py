"""Extents: ints that remember what they were computed from."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaop import extent as ex
from metaop.extent import Extent, Symbolic, fresh, hint, polynomial_of, symbol

SIZES = st.integers(2, 40)
OPERATORS = ("+", "-", "*", "//", "%", "min", "max", "neg")

# an expression over three symbols: (operator, parts), a number, or the name of a symbol
EXPRESSIONS = st.recursive(
    st.one_of(st.integers(-9, 9), st.sampled_from("abc")),
    lambda inner: st.tuples(st.sampled_from(OPERATORS), inner, inner),
    max_leaves=8,
)


def compute(expression, values):
    """An expression's value by Python's own operators; None where it divides by zero."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        return values[expression]
    kind = expression[0]
    a, b = (compute(part, values) for part in expression[1:])
    if a is None or b is None or (kind in ("//", "%") and int(b) == 0):
        return None
    match kind:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
        case "%":
            return a % b
        case "min":
            return ex.minimum(a, b)
        case "max":
            return ex.maximum(a, b)
    return -a


@given(EXPRESSIONS, SIZES, SIZES, SIZES)
@settings(max_examples=400, deadline=None)
def test_an_extent_is_the_int_that_plain_arithmetic_gives(expression, a, b, c):
    values = dict(zip("abc", map(fresh, (a, b, c))))
    want = compute(expression, {"a": a, "b": b, "c": c})
    got = compute(expression, values)
    assert got == want
    if isinstance(got, Extent):
        assert got.polynomial


@given(EXPRESSIONS, st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_a_symbolic_extent_has_the_value_of_plain_arithmetic_for_all_sizes(expression, sizes):
    with ex.recording_guards():
        symbols = {name: symbol(k, ex.standard_hint(0)) for k, name in enumerate("abc")}
        formula = compute(expression, symbols)
    for values in sizes:
        want = compute(expression, dict(zip("abc", values)))
        if formula is not None and want is not None:
            assert ex.evaluate(formula, values) == want


@given(EXPRESSIONS, EXPRESSIONS, st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=5, max_size=5))
@settings(max_examples=400, deadline=None)
def test_an_order_that_is_said_to_hold_always_holds(one, other, sizes):
    symbols = {name: symbol(k, 251 + k) for k, name in enumerate("abc")}
    a, b = compute(one, symbols), compute(other, symbols)
    if a is None or b is None:
        return
    known = ex.at_least(a, b)
    with ex.recording_guards() as guards:
        decided = a >= b
    for values in sizes:
        try:
            x, y = ex.evaluate(a, values), ex.evaluate(b, values)
            held = all(ex.evaluate_polynomial(guard, values) >= 0 for guard in guards)
        except ZeroDivisionError:
            continue
        assert not known or x >= y
        assert not held or decided == (x >= y)


@pytest.mark.parametrize(
    ("compute_it", "text"),
    [
        (lambda b, t: (b * t * 64) // (t * 64), "s0"),
        (lambda b, t: (b * 784) // 784 * 10, "10*s0"),
        (lambda b, t: -(-(b * 16) // 8), "2*s0"),
        (lambda b, t: (b * t + 3) // t, "(3 // s1) + s0"),
        (lambda b, t: (b + 7) // 16, "((s0 + 7) // 16)"),
        (lambda b, t: b // 4 // 8, "(s0 // 32)"),
        (lambda b, t: (b * t - 1) % (b * t), "s0*s1 - 1"),
        (lambda b, t: 1 % b, "1"),
        (lambda b, t: -1 % b, "s0 - 1"),
        (lambda b, t: (b - 1 + t) * (b + 1 - t), "s0*s0 - s1*s1 + 2*s1 - 1"),
        (lambda b, t: (b * b - 1) // (b - 1), "s0 + 1"),
        (lambda b, t: ex.minimum(b, b + t), "s0"),
        (lambda b, t: ex.minimum(b, 64), "min(64, s0)"),
        (lambda b, t: ex.common_factor(6 * b * t, 4 * b), "2*s0"),
    ],
)
def test_normal_forms(compute_it, text):
    assert str(compute_it(symbol(0, 251), symbol(1, 257))) == text


@pytest.mark.parametrize(
    "claim",
    [
        lambda b, t: ex.at_least(b, 4 * (b // 4)),
        lambda b, t: ex.at_least(64 * -(-b // 64), b),
        lambda b, t: ex.at_least(b + 63, 64 * -(-b // 64)),
        lambda b, t: ex.at_least(b * t - 1, (b - 1) * t),
        lambda b, t: ex.at_least(t - 1, b % t),
        lambda b, t: ex.at_least(64, ex.minimum(b, 64)),
        lambda b, t: ex.at_least(b * t, b + t),
        lambda b, t: not ex.at_least(b, t),
        lambda b, t: not ex.at_least(b, 3),
        lambda b, t: ex.at_least(b, 2),
    ],
)
def test_signs(claim):
    assert claim(symbol(0, 251), symbol(1, 257))


def test_everybody_sees_an_int():
    n = fresh(256)
    assert type(n) is Extent
    assert (repr(n), str(n), f"{n:5d}", hash(n)) == ("256", "256", "  256", hash(256))
    assert json.dumps({"n": n}) == '{"n": 256}'
    assert list(range(n))[-1] == 255
    assert np.zeros((n, 2)).shape == (256, 2)
    assert {256: "found"}[n] == "found"
    assert (n / 2, 2.5 * n, n**2) == (128.0, 640.0, 65536)
    for copied in (pickle.loads(pickle.dumps(n)), copy.deepcopy(n)):
        assert type(copied) is int
        assert copied == 256


def test_zero_and_one_are_constants():
    assert type(fresh(0)) is int
    assert type(fresh(1)) is int
    assert type(fresh(7) - fresh(7)) is Extent
    n = fresh(7)
    assert type(n - n) is int
    assert type(n // n) is int


def test_equality_of_symbolic_extents_is_that_of_formulas():
    b, other = symbol(0, 251), symbol(1, 251)
    assert b != other
    assert b != 251
    assert 251 != b
    assert 0 not in (b, 5)
    assert (b * 6) // 6 == b
    assert {(b + 1) - 1: 1}[b] == 1
    assert hint(b * 2) == 502


def test_a_decision_by_the_hint_is_a_guard():
    b = symbol(0, 251)
    with ex.recording_guards() as guards:
        assert b >= 2
        assert not b > 1000
        assert b >= 16
    assert sorted(map(ex.show, guards)) == ["-s0 + 1000", "s0 - 16"]


def test_bits_of_an_unknown_extent_are_refused():
    for use in (lambda n: n >> 1, lambda n: n & 3, lambda n: n.bit_length()):
        with pytest.raises(TypeError, match="not known"):
            use(symbol(0, 251))


@given(EXPRESSIONS)
@settings(max_examples=100, deadline=None)
def test_what_is_encoded_is_decoded(expression):
    symbols = {name: symbol(k, ex.standard_hint(0)) for k, name in enumerate("abc")}
    formula = compute(expression, symbols)
    if formula is None:
        return
    again = ex.decode(json.loads(json.dumps(ex.encode(formula))))
    assert polynomial_of(again) == polynomial_of(formula)
    assert type(again) is type(formula)
    assert isinstance(again, Symbolic) or again == formula


@given(st.lists(EXPRESSIONS, max_size=6), st.lists(st.tuples(SIZES, SIZES, SIZES), max_size=5))
@settings(max_examples=200, deadline=None)
def test_simplified_guards_are_as_strict(expressions, sizes):
    symbols = {name: symbol(k, 251 + k) for k, name in enumerate("abc")}
    formulas = [f for f in (compute(e, symbols) for e in expressions) if isinstance(f, Symbolic)]
    guards = [f.polynomial for f in formulas]
    fewer = ex.simplified(guards)
    assert len(fewer) <= len(guards)
    for values in sizes:
        try:
            strict = [ex.evaluate_polynomial(guard, values) >= 0 for guard in guards]
        except ZeroDivisionError:
            continue
        assert all(strict) == all(ex.evaluate_polynomial(g, values) >= 0 for g in fewer)
