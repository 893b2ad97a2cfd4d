"""Index expressions: simplify keeps every value, interval bounds it, reshapes leave no division."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.build import reshape
from metaop.index import (
    FALSE,
    FOLD,
    TRUE,
    Expr,
    Index,
    as_index,
    as_integer,
    as_truth,
    conjunction,
    conjuncts,
    contains,
    evaluate,
    flatten,
    from_terms,
    identity_range,
    interval,
    is_condition,
    loops_of,
    maximum,
    minimum,
    show,
    simplify,
    substitute,
    terms_of,
    unflatten,
    where,
    within,
)
from tests.strategies import conditions, expressions

EXTENTS = st.lists(st.integers(1, 7), min_size=0, max_size=3)


@st.composite
def cases(draw: Any, kind: Any = expressions) -> tuple[Expr, tuple[int, ...]]:
    extents = tuple(draw(EXTENTS))
    return draw(kind(len(extents))), extents


def points(extents: tuple[int, ...]) -> Any:
    return itertools.product(*map(range, extents))


def no_reads(k: int, position: tuple[int, ...]) -> int:
    raise AssertionError


@settings(max_examples=400, deadline=None)
@given(st.one_of(cases(), cases(conditions)))
def test_simplify_keeps_the_value_at_every_index(case: Any) -> None:
    e, extents = case
    simple = simplify(e, extents)
    assert is_condition(simple) == is_condition(e)
    for at in points(extents):
        assert evaluate(simple, at) == evaluate(e, at), (e, simple, at)
    assert loops_of(simple) <= {k for k in loops_of(e) if extents[k] > 1}


@settings(max_examples=200, deadline=None)
@given(cases())
def test_simplify_of_a_normal_form_changes_nothing_more(case: Any) -> None:
    e, extents = case
    once = simplify(e, extents)
    for at in points(extents):
        assert evaluate(simplify(once, extents), at) == evaluate(once, at)
    assert len(repr(simplify(once, extents))) <= len(repr(once))


@settings(max_examples=300, deadline=None)
@given(st.one_of(cases(), cases(conditions)))
def test_interval_holds_every_value(case: Any) -> None:
    e, extents = case
    low, high = interval(e, extents)
    for at in points(extents):
        assert low <= evaluate(e, at) <= high


@settings(max_examples=200, deadline=None)
@given(cases())
def test_linear_terms_add_up_to_the_expression(case: Any) -> None:
    e, extents = case
    terms = terms_of(e, extents)
    for at in points(extents):
        total = terms.get(None, 0) + sum(
            c * evaluate(atom, at) for atom, c in terms.items() if atom is not None
        )
        assert total == evaluate(e, at) == evaluate(from_terms(terms), at)


@settings(max_examples=200, deadline=None)
@given(st.one_of(cases(), cases(conditions)))
def test_show_prints_what_python_evaluates_to_the_same(case: Any) -> None:
    e, extents = case
    text = show(e)
    functions = {"truncdiv": FOLD["div"], "truncmod": FOLD["rem"]}
    for at in points(extents):
        names = {f"i{k}": value for k, value in enumerate(at)}
        assert eval(text, functions | names) == evaluate(e, at), text


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_substitution_is_evaluation_at_the_substituted_indices(case: Any, data: Any) -> None:
    e, extents = case
    inner = [data.draw(expressions(2, 1)) for _ in extents]
    for at in points((2, 3)):
        values = [evaluate(i, at) for i in inner]
        assert evaluate(substitute(e, inner), at) == evaluate(e, values)


def test_reads_are_evaluated_bounded_by_their_check_and_printed() -> None:
    e = ("add", ("read", 1, (("i", 0),), (-3, 3)), 3)
    assert evaluate(e, [1], lambda k, at: [-3, 2][at[0]]) == 5
    assert interval(e, [2]) == (0, 5)
    assert show(e) == "@1[i0] + 3"
    assert show(e, read=lambda r, at: f"rows[{at}]") == "rows[i0] + 3"
    assert simplify(("mod", e, 6), [2]) == simplify(e, [2])
    low, high = interval(("read", 1, (), None), [])
    assert low < -(2**60) and high > 2**60


# ------------------------------------------------------------------------------------- reshapes


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.data())
def test_reshaping_back_gives_the_indices_again(shape: list[int], data: Any) -> None:
    """flatten(unflatten(i)) is i, without // or %, whatever the shapes."""
    size = math.prod(shape)
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    first = data.draw(st.sampled_from(divisors))
    rest = size // first
    second = data.draw(st.sampled_from([d for d in divisors if rest % d == 0]))
    other = (first, second, rest // second)
    inner = unflatten(flatten(identity_range(len(shape)), shape), other)
    offset = simplify(flatten(inner, other), shape)
    assert not contains(offset, ("floordiv", "mod")), show(offset)
    assert offset == simplify(flatten(identity_range(len(shape)), shape), shape)
    back = [simplify(e, shape) for e in unflatten(flatten(inner, other), shape)]
    assert back == [("i", k) if n > 1 else 0 for k, n in enumerate(shape)]


RESHAPES = [
    ((6,), (2, 3)),
    ((2, 3, 4), (6, 4)),
    ((2, 3, 4), (2, 12)),
    ((24,), (2, 3, 4)),
    ((2, 1, 3), (2, 3, 1, 1)),
    ((8, 15), (2, 4, 3, 5)),
]


@pytest.mark.parametrize(("source", "target"), RESHAPES)
def test_splitting_axes_needs_no_division(source: Any, target: Any) -> None:
    node = reshape(mo.array(np.zeros(source))._node, target)
    divided = [e for e in node.pieces[0].indices if contains(e, ("floordiv", "mod"))]
    merges = any(n not in target and math.prod(source) != n for n in source if n > 1)
    assert not divided or merges or len(target) < len(source)


GOLDEN = [
    ("add", ("i", 0), ("i", 0)), "i0 * 2",
    ("floordiv", ("add", ("mul", ("i", 0), 4), ("i", 1)), 4), "i0",
    ("mod", ("add", ("mul", ("i", 0), 4), ("i", 1)), 4), "i1",
    ("floordiv", ("floordiv", ("i", 2), 3), 4), "i2 // 12",
    ("mod", ("mod", ("i", 2), 12), 4), "i2 % 4",
    ("mod", ("mul", ("i", 2), 6), 4), "i2 * 3 % 2 * 2",
    ("floordiv", ("add", ("mul", ("i", 2), 6), 3), 4), "(i2 * 2 + 1) * 3 // 4",
    ("add", ("mul", ("floordiv", ("i", 2), 5), 5), ("mod", ("i", 2), 5)), "i2",
    ("min", ("i", 0), 9), "i0",
    ("max", ("i", 0), 9), "9",
    ("where", ("lt", ("i", 0), 5), ("i", 1), ("i", 2)), "i1",
    ("rem", ("sub", ("i", 0), 4), 3), "truncmod(i0 - 4, 3)",
    ("div", ("i", 2), 7), "i2 // 7",
]  # fmt: skip


@pytest.mark.parametrize(("e", "text"), list(zip(GOLDEN[::2], GOLDEN[1::2])))
def test_normal_forms(e: Expr, text: str) -> None:
    extents = (5, 4, 100)
    got = simplify(e, extents)
    names: dict[str, Any] = {f"i{k}": Index(("i", k)) for k in range(3)}
    names["truncmod"] = lambda a, b: Index(("rem", a.expr, b))
    want = as_index(eval(text, names))
    for at in points((5, 4, 30)):
        assert evaluate(got, at) == evaluate(want, at)
    assert len(show(got)) <= len(text), show(got)


# ----------------------------------------------------------------------------------- conditions


@settings(max_examples=100, deadline=None)
@given(cases(conditions), st.data())
def test_a_conjunction_holds_where_both_hold(case: Any, data: Any) -> None:
    a, extents = case
    b = data.draw(conditions(len(extents)))
    both = conjunction(a, b)
    for at in points(extents):
        assert bool(evaluate(both, at)) == bool(evaluate(a, at) and evaluate(b, at))
    assert all(part[0] != "and" for part in conjuncts(both))


def test_trivial_conditions_are_decided() -> None:
    i = ("i", 0)
    assert simplify(("lt", i, 5), [5]) == TRUE
    assert simplify(("lt", i, 0), [5]) == FALSE
    assert simplify(("le", 0, i), [5]) == TRUE
    assert simplify(("eq", i, 7), [5]) == FALSE
    assert simplify(("ne", i, 7), [5]) == TRUE
    assert simplify(("not", ("not", ("lt", i, 3))), [5]) == ("lt", i, 3)
    assert simplify(within((i, ("sub", i, 1)), (5, 5)), [5]) == ("le", 0, ("sub", i, 1))
    assert conjunction(FALSE, ("lt", i, 3)) == FALSE


def test_conditions_and_integers_stand_for_each_other_as_in_c() -> None:
    i = ("i", 0)
    e = ("add", ("lt", i, 2), ("eq", ("not", i), 0))
    typed = as_integer(e)
    for n in range(4):
        assert evaluate(typed, [n]) == int(n < 2) + int(n != 0)
    assert evaluate(as_truth(("and", i, 2)), [0]) is False
    assert as_integer(i) == i and as_truth(("lt", i, 2)) == ("lt", i, 2)


# ------------------------------------------------------------------------------ what users write


def test_arithmetic_on_indices_is_pythons() -> None:
    i, j = Index(("i", 0)), Index(("i", 1))
    pairs = [
        (i + j * 2 - 3, lambda i, j: i + j * 2 - 3),
        (7 - i, lambda i, j: 7 - i),
        (-i // 2, lambda i, j: -i // 2),
        ((i - j) % 3, lambda i, j: (i - j) % 3),
        (9 // (j + 1), lambda i, j: 9 // (j + 1)),
        (5 % (i + 1), lambda i, j: 5 % (i + 1)),
        (minimum(i, j) + maximum(i, 2), lambda i, j: min(i, j) + max(i, 2)),
        (where((i > j) & ~(i == 3), i, -j), lambda i, j: i if i > j and i != 3 else -j),
        (where((i >= 2) | (j != 1), 1, j), lambda i, j: 1 if i >= 2 or j != 1 else j),
        (where(True & (i <= 1), 1, 2), lambda i, j: 1 if i <= 1 else 2),
    ]
    for e, f in pairs:
        for at in points((5, 4)):
            assert evaluate(e.expr, at) == f(*at), e


def test_the_index_and_the_message_that_fit_no_integer() -> None:
    i = Index(("i", 0))
    with pytest.raises(mo.IndexExpressionError, match=r"i0 / 2: an index is an integer: write //"):
        i / 2
    with pytest.raises(
        mo.IndexExpressionError, match=r"expected integers and loop indices, got 0.5"
    ):
        i + 0.5
    with pytest.raises(
        mo.IndexExpressionError, match=r"not known while .* combine .* with & and \|"
    ):
        if i > 2:
            pass
    with pytest.raises(
        mo.IndexExpressionError, match=r"i0 is an integer: & \| ~ combine conditions"
    ):
        i & 1
    with pytest.raises(mo.IndexExpressionError, match=r"i0 \+ 1 is an integer"):
        ~(i + 1)
    with pytest.raises(mo.IndexExpressionError, match=r"is an integer"):
        where(i, 1, 2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(i)


@pytest.mark.parametrize(
    ("e", "text"),
    [
        (("sub", ("i", 0), ("sub", ("i", 1), 2)), "i0 - (i1 - 2)"),
        (("mul", ("add", ("i", 0), 1), 3), "(i0 + 1) * 3"),
        (("mul", ("i", 0), -2), "i0 * (-2)"),
        (("mod", ("floordiv", ("i", 0), 2), 3), "i0 // 2 % 3"),
        (("floordiv", ("i", 0), ("mod", ("i", 1), 3)), "i0 // (i1 % 3)"),
        (("and", ("lt", ("i", 0), 3), ("not", ("eq", ("i", 1), 0))), "i0 < 3 and (not i1 == 0)"),
        (("div", ("i", 0), 2), "truncdiv(i0, 2)"),
        (("rem", ("i", 0), 2), "truncmod(i0, 2)"),
        (("where", ("lt", ("i", 0), 1), 5, ("i", 0)), "(5 if i0 < 1 else i0)"),
        (("true",), "True"),
    ],
)
def test_show(e: Expr, text: str) -> None:
    assert show(e) == text


def test_show_with_names() -> None:
    assert show(("add", ("i", 1), 1), name=lambda k: "nij"[k]) == "i + 1"
