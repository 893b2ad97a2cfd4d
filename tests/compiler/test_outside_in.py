"""Sums and conjunctions ordered by loops: the same value, what varies least first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metaop import dtype as dt
from metaop.compiler.loops import Const, For, Load, Store, indices_of, statements
from metaop.compiler.outside_in import outside_in
from metaop.index import TRUE, conjuncts, evaluate

ROW, COLUMN, LANE = ("i", 0), ("i", 1), ("i", 2)
leaves = st.sampled_from([ROW, COLUMN, LANE, 0, 1, 3, -2])
sums = st.recursive(
    leaves,
    lambda e: st.one_of(
        st.tuples(st.sampled_from(["add", "sub", "min"]), e, e),
        st.tuples(st.just("mul"), e, st.sampled_from([0, 1, 4, -3])),
        st.tuples(st.sampled_from(["floordiv", "mod"]), e, st.sampled_from([2, 5])),
    ),
    max_leaves=12,
)


def nest(offset, guard=TRUE, lanes=16):
    """for i: for j: lanes: out[0] = a[offset] if guard."""
    load = Load("a", offset, guard, 0.0, dt.float32)
    body = [Store("out", 0, load)]
    body = [For(2, 0, lanes, "vector", body)]
    return [For(0, 0, 9, "serial", [For(1, 0, 9, "serial", body)])]


def ordered(offset, guard=TRUE, lanes=16):
    last = list(statements(outside_in(nest(offset, guard, lanes))))[-1]
    return last.value.offset, last.value.guard


@given(sums, st.tuples(*[st.integers(0, 8)] * 3))
def test_values_stay(e, at):
    assert evaluate(ordered(e)[0], at) == evaluate(e, at)


def test_inner_loops_come_last():
    inner = ("sub", ("add", ("mul", COLUMN, 4), ("add", ("mul", ROW, 640), LANE)), 5)
    assert ordered(inner)[0] == (
        "add",
        ("add", ("add", LANE, -5), ("mul", ROW, 640)),
        ("mul", COLUMN, 4),
    )


def test_a_loop_of_several_vectors_is_inside():
    assert ordered(("add", LANE, COLUMN), lanes=32)[0] == ("add", COLUMN, LANE)


def test_numbers_are_taken_into_brackets():
    assert ordered(("mul", ("add", ("mul", COLUMN, 3), ROW), 2))[0] == (
        "add",
        ("mul", ROW, 2),
        ("mul", COLUMN, 6),
    )


def test_conjunctions_too():
    a, b, c = ("lt", COLUMN, 3), ("lt", LANE, 4), ("lt", ROW, 2)
    guard = ordered(0, ("and", ("and", a, b), c))[1]
    assert conjuncts(guard) == [b, c, a]


def test_what_has_no_parts_stays():
    one = Store("out", ROW, Const(1.0, dt.float32))
    (stmt,) = outside_in([one])
    assert indices_of(stmt) == indices_of(one)
