"""Index expressions over dynamic extents: what is simplified once holds for all sizes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaop import build, extent
from metaop.extent import evaluate as size
from metaop.extent import map_extents, recording_guards, standard_hint, symbol
from metaop.index import (
    TRUE,
    Expr,
    evaluate,
    flatten,
    from_terms,
    identity_range,
    interval,
    is_condition,
    show,
    simplify,
    terms_of,
    transform,
    unflatten,
    within,
)
from tests.strategies import conditions, expressions

B, T = symbol(0, standard_hint(0)), symbol(1, standard_hint(0))
FORMULAS = (B, T, 2 * B, B + 1, B * T, B - 1, -(-B // 4), B // 2, 3 * T - 2)
SIZES = st.lists(st.tuples(st.integers(2, 6), st.integers(2, 6)), min_size=3, max_size=3)


@st.composite
def cases(draw: Any, kind: Any = expressions) -> tuple[Expr, tuple[int, ...]]:
    """An expression and extents, some of whose numbers are formulas of B and T."""
    extent = st.one_of(st.integers(1, 5), st.sampled_from(FORMULAS[:6]))
    extents = tuple(draw(st.lists(extent, max_size=2)))
    e = draw(kind(len(extents)))

    def formula(part: Expr) -> Expr | None:
        if isinstance(part, int) and part > 0 and draw(st.booleans()):
            return draw(st.sampled_from(FORMULAS))
        return None

    return transform(e, formula), extents


def at_sizes(e: Any, values: tuple[int, int]) -> Any:
    """Nested tuples with plain numbers for formulas."""
    return map_extents(e, lambda n: size(n, values))


@settings(max_examples=400, deadline=None)
@given(st.one_of(cases(), cases(conditions)), SIZES)
def test_simplify_keeps_the_value_at_every_index_for_all_sizes(case: Any, sizes: Any) -> None:
    e, extents = case
    with recording_guards() as guards:
        simple = simplify(e, extents)
    assert not guards
    assert is_condition(simple) == is_condition(e)
    for values in sizes:
        plain, known = at_sizes(e, values), at_sizes(simple, values)
        for at in itertools.product(*map(range, at_sizes(extents, values))):
            try:
                want = evaluate(plain, at)
            except ZeroDivisionError:
                continue
            assert evaluate(known, at) == want, (e, simple, values, at)


@settings(max_examples=300, deadline=None)
@given(st.one_of(cases(), cases(conditions)), SIZES)
def test_interval_holds_every_value_for_all_sizes(case: Any, sizes: Any) -> None:
    e, extents = case
    with recording_guards() as guards:
        bounds = interval(e, extents)
    assert not guards
    for values in sizes:
        low, high = at_sizes(bounds, values)
        for at in itertools.product(*map(range, at_sizes(extents, values))):
            try:
                value = evaluate(at_sizes(e, values), at)
            except ZeroDivisionError:
                continue
            assert low <= value <= high, (e, bounds, values, at)


@settings(max_examples=200, deadline=None)
@given(cases(), SIZES)
def test_linear_terms_add_up_for_all_sizes(case: Any, sizes: Any) -> None:
    e, extents = case
    total = from_terms(terms_of(e, extents))
    for values in sizes:
        for at in itertools.product(*map(range, at_sizes(extents, values))):
            try:
                want = evaluate(at_sizes(e, values), at)
            except ZeroDivisionError:
                continue
            assert evaluate(at_sizes(total, values), at) == want


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ((B, 1, 28, 28), (B, 784), "i0, 0, i1 // 28, i1 % 28"),
        ((B, 16, 5, 5), (B, 400), "i0, i1 // 25, i1 // 5 % 5, i1 % 5"),
        ((B, T, 64), (B, T, 4, 16), "i0, i1, i2 * 16 + i3"),
        ((B, T, 64), (B * T, 64), "i0 // s1, i0 % s1, i1"),
        ((B * T, 64), (B, T, 64), "i0 * s1 + i1, i2"),
        ((B, 10), (10 * B,), "i0 // 10, i0 % 10"),
        ((T, B, 8), (T, B * 8), "i0, i1 // 8, i1 % 8"),
        ((B, T), (B, 1, T), "i0, i2"),
    ],
)
def test_reshapes_of_dynamic_axes(source: Any, target: Any, text: str) -> None:
    offset = flatten(identity_range(len(target)), target)
    indices = [simplify(e, target) for e in unflatten(offset, source)]
    assert ", ".join(map(show, indices)) == text


def test_what_lies_inside_a_dynamic_axis_is_known() -> None:
    i = ("i", 0)
    assert simplify(within((i,), (B,)), (B,)) == TRUE
    assert simplify(within((("add", i, 1),), (B,)), (B - 1,)) == TRUE
    assert simplify(within((("sub", B - 1, i),), (B,)), (B,)) == TRUE
    assert simplify(within((("add", ("mul", i, 4), ("i", 1)),), (4 * B,)), (B, 4)) == TRUE
    assert simplify(within((i,), (T,)), (B,)) == ("lt", i, T)
    cut = ("add", ("mul", i, 16), ("i", 1))
    assert simplify(within((cut,), (B,)), (-(-B // 16), 16)) == ("lt", cut, B)


def test_equal_numbers_are_not_the_same_extent() -> None:
    i, j = ("i", 0), ("i", 1)
    same = symbol(0, 64)
    e = simplify(("sub", ("floordiv", i, same), ("floordiv", i, 64)), (same * 64, 64))
    assert e != 0
    assert simplify(("eq", ("add", i, 0), j), (same, 64)) == ("eq", i, j)


def test_a_reshape_found_quickly_is_that_of_the_general_rule() -> None:
    """Merged, split and new axes, dynamic or not, behind axes that stay."""
    rng = random.Random(0)
    for _ in range(300):
        source = tuple(
            extent.fresh(n) if k < 2 and rng.random() < 0.5 else n
            for k, n in enumerate(rng.choices((1, 2, 3, 4, 6, 8), k=rng.randint(1, 4)))
        )
        target = list(source)
        for _ in range(rng.randint(1, 3)):
            k = rng.randrange(len(target))
            if rng.random() < 0.4 and k + 1 < len(target):
                target[k : k + 2] = [target[k] * target[k + 1]]
            elif rng.random() < 0.6:
                target.insert(k, 1)
            elif type(target[k]) is int and target[k] % 2 == 0:
                target[k : k + 1] = [2, target[k] // 2]
        quick, _ = build._reshape_pieces(source, tuple(target))
        general, symbols = extent.generalise(source, tuple(target))
        pieces, _ = build._general_reshape(*general)
        assert quick == extent.specialise(pieces, symbols), (source, target)
