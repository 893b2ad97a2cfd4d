"""ends: a serial loop ends where the condition on all that it does first fails.

    for i1 in range(0, 23):                       for i1 in range(0, min(max(0, s - i0*23), 23)):
      acc += x[i0*23 + i1] if i0*23 + i1 < s  ->    acc += x[i0*23 + i1]

The pieces of a long sum are of one length, of which the last has only a part.  What no iteration
does costs time all the same: a processor needs hundreds of cycles for a vector without lanes that
it would read from a page that is not there.  Left alone: conditions on loops inside or on lanes,
and bodies that do anything without the condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from metaop.index import (
    TRUE,
    Expr,
    conjunction,
    conjuncts,
    from_terms,
    integers_of,
    is_condition,
    loops_of,
    simplify,
    terms_of,
)  # fmt: skip

from .loops import (
    Apply,
    Check,
    For,
    Let,
    Stmt,
    Store,
    Update,
    Value,
    rewrite,
    statements,
    values_of,
    walk,
)  # fmt: skip


def end_of(part: Expr, loop: int, extents: Sequence[int]) -> Expr | None:
    """Where a loop ends because a comparison never holds from there on, which may be below 0 or
    beyond the loop; None if it does not end so."""
    if part[0] not in ("lt", "le"):
        return None
    room = dict(terms_of(("sub", part[2], part[1]), extents))
    step = -room.pop(("i", loop), 0)
    if step <= 0 or any(atom is not None and loop in loops_of(atom) for atom in room):
        return None
    room[None] = room.get(None, 0) + (step if part[0] == "le" else step - 1)
    return simplify(("floordiv", from_terms(room), step), extents)


def end_early(body: list[Stmt], extents: Sequence[int]) -> None:
    """Shortens every serial loop that can be."""
    across = {s.loop for s in statements(body) if isinstance(s, For) and s.how in PARALLEL}
    for stmt in statements(body):
        if isinstance(stmt, For) and stmt.how == "serial" and stmt.start == 0:
            _shorten(stmt, across, extents)


PARALLEL = ("vector", "unroll")  # loops whose iterations share the loops inside them


def _shorten(loop: For, across: set[int], extents: Sequence[int]) -> None:
    inside = list(statements(loop.body))
    done = [stmt for stmt in inside if isinstance(stmt, Store | Update)]
    values = [part for stmt in inside for value in values_of(stmt) for part in walk(value)]
    if not done or any(isinstance(value, Check | Apply) for value in values):
        return
    varying = across | {stmt.loop for stmt in inside if isinstance(stmt, For)}
    named = {stmt.name for stmt in inside if isinstance(stmt, Let)}
    for part in conjuncts(done[0].guard):
        if loops_of(part) & varying or integers_of(part) & named:
            continue
        end = end_of(part, loop.loop, extents)
        if end is not None and all(part in conjuncts(stmt.guard) for stmt in done):
            loop.stop = ("min", ("max", 0, end), loop.stop)
            _assume(part, inside)


def _assume(part: Expr, stmts: Sequence[Stmt]) -> None:
    """Takes what holds out of all conditions."""
    memo: dict[Value, Value] = {}

    def index(e: Expr) -> Expr:
        return (
            reduce(conjunction, (p for p in conjuncts(e) if p != part), TRUE)
            if is_condition(e)
            else e
        )

    def value(old: Value) -> Value:
        return rewrite(old, index, memo)

    for stmt in stmts:
        match stmt:
            case Let():
                stmt.value = value(stmt.value)
            case Update():
                stmt.values, stmt.guard = tuple(map(value, stmt.values)), index(stmt.guard)
            case Store():
                stmt.value, stmt.guard = value(stmt.value), index(stmt.guard)
