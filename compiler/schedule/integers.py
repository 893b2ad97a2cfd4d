"""Extents and offsets as arguments of the kernel, so that one kernel serves many sizes."""

from __future__ import annotations

from metaop.extent import Extent
from metaop.index import Expr, transform

from ..loops import (
    Fetch,
    For,
    Grid,
    IndexValue,
    Kernel,
    Last,
    Let,
    Load,
    Stmt,
    Store,
    Update,
    Value,
)
from ..nest import Nest, dependencies

LITERAL_EXTENT = 32  # larger extents and offsets are arguments of the kernel


class Argument(int):
    """A number that is an argument of the kernel however small it is."""


def as_argument(n: int) -> int:
    """The number as an argument of the kernel, unless it is one already."""
    return n if isinstance(n, Extent) else Argument(n)


def indices_of(nest: Nest) -> list[Expr]:
    """Every index expression of a nest."""
    values = (value for value, _ in dependencies(nest))
    return [nest.offset, nest.guard, nest.exists, *(e for v in values for e in v.indices)]


def name_integers(kernel: Kernel, integers: dict[str, int]) -> None:
    """Makes large extents and offsets arguments, so that other sizes use the same code."""
    _Integers(kernel, integers).run()


class _Integers:
    """Large extents and offsets become arguments, and every number that is an Argument."""

    def __init__(self, kernel: Kernel, integers: dict[str, int]):
        self.kernel, self.integers = kernel, integers
        self.named: dict[int, Expr] = {}  # by identity: the same Argument is one argument
        self.kept: list[int] = []

    def name(self, prefix: str, value: int) -> Expr:
        known = self.named.get(id(value)) if type(value) is not int else None
        if known is None:
            name = f"{prefix}{sum(n[0] == prefix for n in self.integers)}"
            self.integers[name] = value
            known = ("val", name)
            if type(value) is not int:
                self.named[id(value)] = known
                self.kept.append(value)
        return known

    def run(self) -> None:
        memo: dict[Value, Value] = {}
        self.body(self.kernel.body, memo)

    def arguments(self, e: Expr) -> Expr:
        """e with its Arguments named."""
        return transform(e, self.argument)

    def argument(self, e: Expr) -> Expr | None:
        return self.name("n", e) if isinstance(e, int) and type(e) is not int else None

    def extent(self, e: Expr) -> Expr:
        if isinstance(e, int):
            return self.name("n", e) if e > LITERAL_EXTENT or type(e) is not int else e
        e = self.arguments(e)
        if e[0] == "min" and isinstance(e[2], int) and e[2] > LITERAL_EXTENT:
            return ("min", e[1], self.name("n", e[2]))
        return e

    def offset(self, e: Expr) -> Expr:
        e = self.arguments(e)
        if isinstance(e, int):
            return self.name("o", e) if e else e
        match e:
            case ("add", inner, int() as c):
                return ("add", inner, self.name("o", c))
            case ("sub", inner, int() as c):
                return ("sub", inner, self.name("o", c))
        return e

    def value(self, value: Value, memo: dict[Value, Value]) -> Value:
        known = memo.get(value)
        if known is None:
            args = tuple(self.value(a, memo) for a in value.args)
            known = value.rebuild(args, self.arguments)
            if isinstance(known, Load):
                known = Load(known.buffer, self.offset(known.offset), known.guard, known.fill,
                             known.dtype)  # fmt: skip
            elif isinstance(known, IndexValue):
                known = IndexValue(self.bound(known.expr))
            memo[value] = known
        return known

    def bound(self, e: Expr) -> Expr:
        """The last tile's start is an argument too."""
        if isinstance(e, tuple) and e[0] == "min" and isinstance(e[2], int):
            return self.extent(e)
        return e

    def body(self, body: list[Stmt], memo: dict[Value, Value]) -> None:
        for stmt in body:
            match stmt:
                case Grid():
                    stmt.extents = tuple(self.extent(e) for e in stmt.extents)
                    self.body(stmt.body, memo)
                case Last():
                    self.body(stmt.body, memo)
                case For():
                    stmt.start = self.arguments(stmt.start)
                    stmt.stop = self.stop(stmt)
                    self.body(stmt.body, memo)
                case Let():
                    stmt.value = self.value(stmt.value, memo)
                case Update():
                    stmt.values = tuple(self.value(v, memo) for v in stmt.values)
                    stmt.guard = self.arguments(stmt.guard)
                case Fetch():
                    stmt.offset = self.offset(stmt.offset)
                case Store():
                    stmt.offset = self.offset(stmt.offset)
                    stmt.value = self.value(stmt.value, memo)
                    stmt.guard = self.arguments(stmt.guard)

    def stop(self, stmt: For) -> Expr:
        if stmt.how == "unroll":
            return self.kernel.extents[stmt.loop]
        return self.extent(stmt.stop)
