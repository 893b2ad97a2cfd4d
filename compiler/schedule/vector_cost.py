"""What a loop costs as the one that runs in vectors."""

from __future__ import annotations

from collections.abc import Iterable

from metaop.extent import guess, hint
from metaop.graph import size_of
from metaop.index import TRUE, Expr, Terms, integers_of, loops_of, recalled, terms_of

from ..loops import LANES, LONGEST_STEP
from ..nest import Nest, dependencies
from .collapse import accesses, collapse

GATHER_COST = 8.0
BROADCAST_COST = 0.3
TURNED_COST = 3.0
PAGE = 1024  # elements; what is read of a page at a time, in squares of 16 x 16
SQUARES_OF_PAGE = 4


class VectorCost:
    """What one evaluation of a nest costs if a loop runs 16 lanes wide."""

    def __init__(self, nest: Nest):
        self.nest = nest
        self.value_loops = dependencies(nest)
        order = nest.order or tuple(accesses(nest)[1:])
        self.loads = [terms_of(e, nest.extents) for e in order]
        self.store = terms_of(nest.offset, nest.extents)
        self.reduced = range(nest.rank, len(nest.extents))
        self.repeats = max(1, hint(size_of(nest.extents[nest.rank :])))

    def depends(self, e: Expr, loop: int) -> bool:
        """True if an index expression varies with a loop, also through integer values."""
        if loop in loops_of(e):
            return True
        return any(
            loop in loops
            for name in integers_of(e)
            for value, loops in self.value_loops
            if name in self.nest.named and value is self.nest.named[name]
        )

    def stride(self, terms: Terms, loop: int) -> int | None:
        """How far one step of a loop moves an access; None if not by a fixed distance."""
        for atom in terms:
            if atom is not None and atom[0] != "i" and self.depends(atom, loop):
                return None
        return terms.get(("i", loop), 0)

    def __call__(self, loop: int) -> float:
        cost = sum(access_cost(self.stride(t, loop)) for t in self.loads) + 0.5
        if loop in self.reduced:
            cost += 8.0 / self.repeats
        elif self.turned(loop, range(self.nest.rank)) is not None:
            cost += TURNED_COST
        else:
            cost += access_cost(self.stride(self.store, loop)) / self.repeats
        n = max(int(self.nest.extents[loop]), 1)
        return cost / (n / (LANES * -(-n // LANES)))

    def turned(self, vector: int, loops: Iterable[int]) -> int | None:
        """One of some loops along which a map writes elements in order, if along the vector loop
        it does not: then 16 iterations of both are a square that is turned in registers."""
        nest = self.nest
        plain = nest.op is None and not (nest.scatter or nest.named or nest.checks)
        if not plain or nest.guard != TRUE or nest.exists != TRUE:
            return None
        stride = self.stride(self.store, vector)
        if stride is None or 0 <= stride <= LONGEST_STEP:
            return None
        for loop in loops:
            if loop != vector and self.stride(self.store, loop) == 1:
                return loop if guess(nest.extents[loop]) >= LANES else None
        return None

    def scalar(self) -> float:
        """The cost with no vector loop."""
        return (len(self.loads) + 1) * LANES

    def best(self, loops: Iterable[int]) -> tuple[float, int] | None:
        """The cheapest of some loops, inner ones first among equals."""
        found: tuple[float, int] | None = None
        for loop in sorted(loops, reverse=True):
            cost = self(loop)
            if found is None or cost < found[0] - 1e-9:
                found = (cost, loop)
        return found


def access_cost(stride: int | None) -> float:
    """In whole vectors that are read or written one after the other."""
    if stride == 0:
        return BROADCAST_COST
    if stride is None or not 1 <= stride <= LONGEST_STEP:
        return GATHER_COST
    return 1.0 if stride == 1 else stride + 0.5


def adds_in_lanes(nest: Nest) -> bool:
    """Whether a reduction adds up in lanes over a reduced loop, by what the nest is by itself."""
    if nest.op is None or nest.scatter:
        return False
    if nest.named or not nest.order:
        return _adds_in_lanes(nest)
    key = (adds_in_lanes, tuple(nest.extents), nest.rank, nest.offset, nest.order)
    return recalled(key, lambda: _adds_in_lanes(nest))  # what decides is the same in equal layers


def _adds_in_lanes(nest: Nest) -> bool:
    alone = collapse(nest)
    cost = VectorCost(alone)
    reduced = cost.best(cost.reduced)
    kept = cost.best(range(alone.rank))
    return reduced is not None and (kept is None or kept[0] >= reduced[0] - 1e-9)
