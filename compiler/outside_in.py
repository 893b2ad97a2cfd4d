"""Index arithmetic in the order of the loops, so that what an inner loop repeats can be computed
outside it.

    i2 * 4 + i9 * 640 + i21 - 5     ->   -5 + i9 * 640 + i2 * 4 + i21     i9 around i2 around i21
    0 <= i2 - 1 and i21 < 4         ->   i21 < 4 and 0 <= i2 - 1          i21 one whole vector

Sums and conjunctions only: their parts may be taken in any order.  A vector loop of exactly one
vector has the same lanes always and counts as outside of all loops; unrolled loops count as inside
of all, as what is left of them are constants of the code.
"""

from __future__ import annotations

from collections.abc import Mapping

from metaop.index import Expr, children, conjuncts, integers_of, loops_of, rebuild

from .loops import LANES, For, Grid, Last, Let, Stmt, map_indices

OUTSIDE, INSIDE = 0, 1 << 20


def outside_in(body: list[Stmt]) -> list[Stmt]:
    """The statements of a kernel with sums and conjunctions that begin with what varies least."""
    loops: dict[int, int] = {}
    names: dict[str, int] = {}
    _place(body, 1, loops, names)
    return map_indices(body, _Order(loops, names))


def is_one_vector(stmt: For) -> bool:
    """True for a vector loop of exactly 16 iterations."""
    return stmt.how == "vector" and (stmt.start, stmt.stop) == (0, LANES)


def _place(body: list[Stmt], depth: int, loops: dict[int, int], names: dict[str, int]) -> None:
    """How deep every loop and every named integer lies."""
    for stmt in body:
        match stmt:
            case Let(name=name, dims=()):
                names[name] = depth
            case Grid():
                loops.update(dict.fromkeys(stmt.loops, depth))
                _place(stmt.body, depth + 1, loops, names)
            case For():
                place = OUTSIDE if is_one_vector(stmt) else depth
                loops[stmt.loop] = INSIDE if stmt.how == "unroll" else place
                _place(stmt.body, depth + 1, loops, names)
            case Last():
                _place(stmt.body, depth, loops, names)


class _Order:
    """Index expressions with their parts in order."""

    def __init__(self, loops: Mapping[int, int], names: Mapping[str, int]):
        self.loops, self.names = loops, names
        self._known: dict[Expr, Expr] = {}

    def __call__(self, e: Expr) -> Expr:
        if isinstance(e, int):
            return e
        if e not in self._known:
            self._known[e] = self._ordered(e)
        return self._known[e]

    def depth(self, e: Expr) -> int:
        """Where the innermost loop is that changes e."""
        loops = (self.loops.get(k, INSIDE) for k in loops_of(e))
        names = (self.names.get(name, OUTSIDE) for name in integers_of(e))
        return max([OUTSIDE, *loops, *names])

    def _ordered(self, e: Expr) -> Expr:
        if e[0] in ("add", "sub", "mul"):
            terms = _terms(e)
            if terms != [(1, e)]:
                return _chain("add", "sub", self._sorted(terms))
        if e[0] == "and":
            parts = [(1, part) for part in conjuncts(e)]
            return _chain("and", "and", self._sorted(parts))
        return rebuild(e, [self(part) for part in children(e)]) if children(e) else e

    def _sorted(self, terms: list[tuple[int, Expr]]) -> list[tuple[int, Expr]]:
        """The terms with what varies least first, of those the lanes', which are vectors."""
        terms = [(sign, self(term)) for sign, term in terms]
        return sorted(terms, key=lambda term: self.depth(term[1]))


def _terms(e: Expr, factor: int = 1) -> list[tuple[int, Expr]]:
    """The terms of a sum with their signs; factors that are numbers are taken into brackets."""
    if isinstance(e, int):
        return [(1, e * factor)] if e else []
    if e[0] in ("add", "sub"):
        return _terms(e[1], factor) + _terms(e[2], factor if e[0] == "add" else -factor)
    if e[0] == "mul" and type(e[2]) is int:
        return _terms(e[1], factor * e[2])
    sign = 1 if factor > 0 else -1
    return [(sign, e if abs(factor) == 1 else ("mul", e, abs(factor)))] if factor else []


def _chain(plus: str, minus: str, terms: list[tuple[int, Expr]]) -> Expr:
    total: Expr = None
    for sign, term in terms:
        if total is None:
            total = term if sign > 0 else ("sub", 0, term)
        else:
            total = (plus if sign > 0 else minus, total, term)
    return 0 if total is None else total
