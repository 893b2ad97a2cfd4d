"""arguments: every extent of a kernel that is not known becomes an integer argument of it.

    for i0 in range(s0): y[i0] = x[i0 + 3*s0]   ->   for i0 in range(n0): y[i0] = x[i0 + n1]

where n0 is s0 and n1 is 3*s0 at every launch.  Equal formulas are one argument.
"""

from __future__ import annotations

from typing import Any

from metaop.extent import Extent, has_extents, map_extents
from metaop.index import HUGE, Expr, transform

from .loops import Fetch, For, Grid, Kernel, Last, Let, Stmt, Store, Update, Value, rewrite


def name_extents(kernel: Kernel, integers: dict[str, int]) -> None:
    """Replaces extents in a kernel by named integers, which are added to `integers`."""
    _Naming(kernel, integers).run()


def _bounds_known(e: Expr) -> Expr | None:
    """A named integer without the bound that is not known."""
    if isinstance(e, tuple) and e[0] == "val" and has_extents(e):
        return ("val", e[1], tuple([HUGE if isinstance(n, Extent) else n for n in e[2]]))
    return None


class _Naming:
    def __init__(self, kernel: Kernel, integers: dict[str, int]):
        self.kernel, self.integers = kernel, integers
        self.names: dict[int, Expr] = {}
        self.memo: dict[Value, Value] = {}
        self.known: dict[Expr, Expr] = {}  # of expressions with extents in them

    def run(self) -> None:
        for array in self.kernel.scratch:
            array.elements = self.index(array.elements)
        self.body(self.kernel.body)

    def argument(self, extent: int) -> Any:
        """The name of an extent."""
        if extent not in self.names:
            name = f"n{sum(n[0] == 'n' for n in self.integers)}"
            self.integers[name] = extent
            self.names[extent] = ("val", name)
        return self.names[extent]

    def index(self, e: Expr) -> Expr:
        if not has_extents(e):
            return e
        found = self.known.get(e)
        if found is None:
            found = map_extents(transform(e, _bounds_known), self.argument)
            self.known[e] = found
        return found

    def body(self, body: list[Stmt]) -> None:
        for stmt in body:
            match stmt:
                case Grid():
                    stmt.extents = tuple(map(self.index, stmt.extents))
                    self.body(stmt.body)
                case For():
                    stmt.start, stmt.stop = self.index(stmt.start), self.index(stmt.stop)
                    self.body(stmt.body)
                case Last():
                    self.body(stmt.body)
                case Let():
                    stmt.value = rewrite(stmt.value, self.index, self.memo)
                case Update():
                    stmt.values = tuple(rewrite(v, self.index, self.memo) for v in stmt.values)
                    stmt.guard = self.index(stmt.guard)
                case Fetch():
                    stmt.offset = self.index(stmt.offset)
                case Store():
                    stmt.offset, stmt.guard = self.index(stmt.offset), self.index(stmt.guard)
                    stmt.past = self.index(stmt.past)
                    stmt.value = rewrite(stmt.value, self.index, self.memo)
