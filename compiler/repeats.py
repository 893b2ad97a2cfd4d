"""repeats: values that the nests of one loop have in common are named once.

    x0 = sigmoid(mul(a[i0], w))            x1 = mul(a[i0], w)
    acc add= x0                        ->  x0 = sigmoid(x1)
    acc1 add= mul(mul(a[i0], w), x0)       acc add= x0
                                           acc1 add= mul(x1, x0)

Every nest is scheduled by itself; those that share a loop compute from the same loads.  Only bodies
without loops inside are looked at.  Left alone: loads of what the body itself stores.
"""

from __future__ import annotations

from collections.abc import Callable

from metaop import dtype as dt

from .loops import (
    Apply,
    Check,
    Condition,
    Const,
    For,
    Grid,
    IndexValue,
    Last,
    Let,
    Load,
    Op,
    Ref,
    Stmt,
    Store,
    Update,
    Value,
    values_of,
)


def name_repeats(body: list[Stmt], fresh: Callable[[], str]) -> None:
    """Changes every innermost body so that what two statements compute is computed once."""
    loops = [stmt for stmt in body if isinstance(stmt, Grid | For | Last)]
    for stmt in loops:
        if not (isinstance(stmt, For) and stmt.how == "unroll"):
            name_repeats(stmt.body, fresh)
    if not loops:
        body[:] = _Repeats(body, fresh).run()


class _Repeats:
    def __init__(self, body: list[Stmt], fresh: Callable[[], str]):
        self.body, self.fresh = body, fresh
        self.stored = {stmt.buffer for stmt in body if isinstance(stmt, Store)}
        self.updated = {stmt.name for stmt in body if isinstance(stmt, Update)}
        self.numbers: dict[tuple, int] = {}  # of what a value is: equal numbers, equal values
        self.known: dict[Value, int] = {}
        self.let: dict[str, int] = {}
        self.named: dict[int, Ref] = {}

    def run(self) -> list[Stmt]:
        repeated = self.repeated()
        if not repeated:
            return self.body
        made: list[Stmt] = []

        def visit(value: Value) -> Value:
            number = self.number(value)
            if number in self.named:
                return self.named[number]
            if isinstance(value, Ref):
                return value
            value = value.rebuild(tuple(map(visit, value.args)), lambda e: e)
            if number in repeated:
                name = self.fresh()
                made.append(Let(name, (), value))
                value = self.named[number] = Ref(name, (), value.dtype)
            return value

        for stmt in self.body:
            match stmt:
                case Let(value=value, dims=()):
                    number = self.number(value)
                    alone = number in repeated and number not in self.named
                    repeated -= {number} if alone else set()
                    stmt.value = visit(value)
                    if alone:  # it has a name now
                        self.named[number] = Ref(stmt.name, (), value.dtype)
                    elif number in self.named and value.dtype is not dt.int64:
                        continue  # nothing reads it by this name but, maybe, an index
                case Let() | Store():
                    stmt.value = visit(stmt.value)
                case Update():
                    stmt.values = tuple(map(visit, stmt.values))
            made.append(stmt)
        return made

    def repeated(self) -> set[int]:
        """The numbers of what more than one statement computes, not of the parts of that."""
        found: set[int] = set()
        seen: set[int] = set()

        def visit(value: Value, mine: set[int]) -> None:
            number = self.number(value)
            if isinstance(value, Const | IndexValue | Condition | Ref) or number in mine:
                return
            if number in seen:
                found.add(number)
                return
            mine.add(number)
            for arg in value.args:
                visit(arg, mine)

        for stmt in self.body:
            mine: set[int] = set()
            for value in values_of(stmt):
                visit(value, mine)
            if isinstance(stmt, Let) and not stmt.dims:
                self.let[stmt.name] = self.number(stmt.value)
            seen |= mine
        return found

    def number(self, value: Value) -> int:
        known = self.known.get(value)
        if known is None:
            if isinstance(value, Ref) and value.name in self.let and not value.dims:
                return self.let[value.name]
            key = self.key(value)
            known = self.known[value] = self.numbers.setdefault(key, len(self.numbers))
        return known

    def key(self, value: Value) -> tuple:
        match value:
            case Load() if value.buffer not in self.stored:
                return ("load", value.buffer, value.offset, value.guard, repr(value.fill))
            case Const():
                return ("const", repr(value.value), value.dtype)
            case Ref() if value.name not in self.updated:
                return ("ref", value.name, value.dims)
            case IndexValue() | Condition():
                return ("index", value.expr)
            case Check():
                bounds = (value.low, value.high, value.number, value.guard)
                return ("check", *bounds, self.number(value.value))
            case Apply():
                called = (value.function, value.dtype, value.number, value.guard)
                return ("apply", *called, *map(self.number, value.args))
            case Op():
                return (value.name, value.dtype, *map(self.number, value.args))
        return (value,)
