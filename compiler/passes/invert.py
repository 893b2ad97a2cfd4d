"""invert: an affine reindex_reduce becomes a gather followed by a plain reduction.

    out[i0 + i1] += y[i0, i1]         ->  v[o, i1] = y[o - i1, i1] (0 outside); out = sum over i1
    out[2*i0 + i1] += y[i0, i1], i1<3 ->  v[o, q] = y[o//2 - q, o%2 + 2*q];     out = sum over q

The second line is the residue form: i1 takes only the values that leave o - i1 divisible by the
stride, so the gradient of a strided convolution does no arithmetic on structural zeros.  A write
index that grows with one loop, by floors and bounds, is solved by the few loops that it may come
from (the gradient of a resized image):

    out[min(2*i0 // 3, 7)] += y[i0]   ->  v[o, r] = y[(3*o + 1)//2 + r] if it is written to o

A write index read from an integer input becomes a condition when all its loops are solved by other
dimensions (the gradient of picking a label is a select).  What stays is a scatter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from metaop.extent import at_least, hint, require
from metaop.graph import Node, Piece, Reindex, ReindexReduce, identity_of, is_projection, size_of
from metaop.index import (
    TRUE,
    Expr,
    Terms,
    conjunction,
    evaluate,
    flatten,
    from_terms,
    identity_range,
    loops_of,
    simplify,
    substitute,
    terms_of,
    unflatten,
    within,
)

from ..rewrite import Graph, map_graph

# More iterations than this many times the definition's: a scatter is better.
LARGEST_GROWTH = 64
LONGEST_STEPS = 4096  # loops of so many iterations are looked through for a growing write index


def invert(graph: Graph) -> Graph:
    """The graph whose reindex_reduces are plain reductions, or scatters that cannot be inverted."""
    return map_graph(graph, lambda node: inverted(node) or node)


def inverted(node: Node) -> Node | None:
    """The inverted form of one node, None if it is a plain reduction or has none."""
    if not isinstance(node, ReindexReduce) or is_projection(node):
        return None
    if 0 in node.shape or 0 in node.inputs[0].shape:
        return None
    reshaped = _as_reshape(node)
    if reshaped is not None:
        return reshaped
    solution = _Solver(node)
    if not solution.solve():
        return None
    return solution.result()


def _as_reshape(node: ReindexReduce) -> Node | None:
    """A write that keeps the row-major order is a reshape of the other direction."""
    y = node.inputs[0]
    if len(node.inputs) > 1 or node.condition != TRUE or node.size != y.size:
        return None
    if simplify(within(node.indices, node.shape), y.shape) != TRUE:
        return None
    offset = simplify(flatten(node.indices, node.shape), y.shape)
    if offset != simplify(flatten(identity_range(len(y.shape)), y.shape), y.shape):
        return None
    back = flatten(identity_range(len(node.shape)), node.shape)
    indices = tuple(simplify(e, node.shape) for e in unflatten(back, y.shape))
    return Reindex(node.shape, (Piece(0, indices),), y)


class _Solver:
    """Solves out = e(i) for the loops i.

    Loop ("i", d) for d < rank is dimension d of the result; the loops of y, and those that the
    solution introduces, follow.  `value[k]` is loop k of y in terms of all of these.
    """

    def __init__(self, node: ReindexReduce):
        self.node = node
        self.rank = len(node.shape)
        shape = node.inputs[0].shape
        self.extents: list[int] = [*node.shape, *shape]
        self.value: list[Expr] = [("i", self.rank + k) for k in range(len(shape))]
        self.free = set(range(self.rank, len(self.extents)))
        self.condition: Expr = TRUE

    def require(self, condition: Expr) -> None:
        self.condition = conjunction(self.condition, condition)

    def assign(self, loop: int, expr: Expr, check: bool = True) -> None:
        """Loop := expr everywhere, where it lies in the loop's range."""
        at = [("i", k) for k in range(len(self.extents))]
        at[loop] = expr
        self.value = [substitute(v, at) for v in self.value]
        self.condition = substitute(self.condition, at)
        self.free.discard(loop)
        if check:
            self.require(("le", 0, expr))
            self.require(("lt", expr, self.extents[loop]))

    def new_loop(self, extent: int) -> Expr:
        self.extents.append(extent)
        self.free.add(len(self.extents) - 1)
        return ("i", len(self.extents) - 1)

    def expression(self, d: int) -> Expr:
        return simplify(substitute(self.node.indices[d], self.value), self.extents)

    def solve(self) -> bool:
        """True if every dimension was solved within the bound on extra work."""
        waiting = list(range(self.rank))
        while waiting:
            progress = [d for d in waiting if self.solve_dimension(d)]
            waiting = [d for d in waiting if d not in progress]
            if not progress:
                return False
        work = size_of(self.node.shape) * size_of(self.extents[k] for k in self.free)
        defined = self.node.inputs[0].size + size_of(self.node.shape)
        return hint(work) <= LARGEST_GROWTH * hint(defined)

    def solve_dimension(self, d: int) -> bool:
        expr = self.expression(d)
        terms = dict(terms_of(expr, self.extents))
        unsolved = loops_of(expr) & self.free
        if not unsolved:
            self.require(("eq", expr, ("i", d)))
            return True
        plain = {
            a[1]: c for a, c in terms.items() if a is not None and a[0] == "i" and a[1] in self.free
        }
        opaque: set[int] = set()
        for atom in terms:
            if atom is not None and atom[0] != "i":
                opaque |= loops_of(atom) & self.free
        candidates = {k: c for k, c in plain.items() if k not in opaque}
        if candidates and not opaque:
            self.solve_affine(d, terms, candidates)
            return True
        if not plain and self.solve_division(d, terms):
            return True
        return self.solve_steps(d, expr)

    def solve_affine(self, d: int, terms: Terms, candidates: dict[int, int]) -> None:
        """out = c*u + rest for a loop u."""
        if len(candidates) == 2 and self.solve_residues(d, terms, candidates):
            return
        units = [k for k, c in candidates.items() if c == 1 or c == -1]
        loop = max(units or candidates, key=lambda k: (hint(self.extents[k]), -k))
        self.solve_for(d, terms, loop, candidates[loop])

    def solve_for(self, d: int, terms: Terms, loop: int, coefficient: int) -> None:
        rest = {a: c for a, c in terms.items() if a != ("i", loop)}
        difference: Expr = ("sub", ("i", d), from_terms(rest))
        if not at_least(coefficient, 0):
            difference, coefficient = ("sub", 0, difference), -coefficient
        require(coefficient, 1)
        if coefficient != 1:
            self.require(("eq", ("mod", difference, coefficient), 0))
            difference = ("floordiv", difference, coefficient)
        self.assign(loop, difference)

    def solve_residues(self, d: int, terms: Terms, candidates: dict[int, int]) -> bool:
        """out = s*a + b + rest: b = (out - rest) % s + s*q and a = (out - rest) // s - q."""
        (a, s), (b, one) = sorted(candidates.items(), key=lambda item: -hint(item[1]))
        if one != 1 or not at_least(s, 2):
            return False
        if hint(-(-self.extents[b] // s)) >= hint(self.extents[a]):
            return False
        rest = {t: c for t, c in terms.items() if t not in (("i", a), ("i", b))}
        difference: Expr = ("sub", ("i", d), from_terms(rest))
        one_step = at_least(s, self.extents[b])
        q: Expr = 0 if one_step else self.new_loop(-(-self.extents[b] // s))
        self.assign(a, ("sub", ("floordiv", difference, s), q))
        self.assign(b, ("add", ("mod", difference, s), ("mul", q, s)))
        return True

    def solve_division(self, d: int, terms: Terms) -> bool:
        """out = u // k + rest: u = k*(out - rest) + r;  out = u % k + rest: u = k*q + out - rest"""
        atoms = [a for a in terms if a is not None and loops_of(a) & self.free]
        if len(atoms) != 1 or terms[atoms[0]] != 1 or atoms[0][0] not in ("floordiv", "mod"):
            return False
        kind, inner, k = atoms[0]
        if not isinstance(k, int) or not at_least(k, 1):
            return False
        if inner[0] != "i" or inner[1] not in self.free:
            return False
        rest = {a: c for a, c in terms.items() if a != atoms[0]}
        difference: Expr = ("sub", ("i", d), from_terms(rest))
        extent = self.extents[inner[1]]
        if kind == "floordiv":
            self.assign(inner[1], ("add", ("mul", difference, k), self.new_loop(k)))
        else:
            self.require(("le", 0, difference))
            self.require(("lt", difference, k))
            q = self.new_loop(-(-extent // k))
            self.assign(inner[1], ("add", ("mul", q, k), difference))
        return True

    def solve_steps(self, d: int, expr: Expr) -> bool:
        """out = e(u), where e grows with u: u = first(out) + r, for the few r that may hold."""
        if len(loops_of(expr)) != 1:
            return False
        (loop,) = loops_of(expr)
        extent = self.extents[loop]
        if type(extent) is not int or extent > LONGEST_STEPS:
            return False
        found = _steps(expr, loop, extent)
        if found is None:
            return False
        first, count = found
        if count * hint(self.node.shape[d]) > 4 * (extent + hint(self.node.shape[d])):
            return False
        at = substitute(first, [("i", d) if k == loop else ("i", k) for k in range(loop + 1)])
        self.assign(loop, ("add", at, self.new_loop(count)))
        self.require(("eq", self.expression(d), ("i", d)))
        return True

    def result(self) -> Node:
        """The gather over out dimensions and free loops, reduced over the free loops."""
        free = sorted(self.free)
        shape = (*self.node.shape, *(self.extents[k] for k in free))
        at: list[Expr] = [("i", k) for k in range(len(self.extents))]
        for position, k in enumerate(free):
            at[k] = ("i", self.rank + position)
        indices = tuple(simplify(substitute(v, at), shape) for v in self.value)
        condition = conjunction(
            substitute(self.condition, at), substitute(self.node.condition, indices)
        )
        gathered = Reindex(
            shape,
            (Piece(0, indices, simplify(condition, shape)),),
            *self.node.inputs,
            fill=identity_of(self.node.op, self.node.dtype),
        )
        if not free:
            return gathered
        kept = tuple(("i", k) for k in range(self.rank))
        return ReindexReduce(self.node.op, self.node.shape, kept, gathered, ties=self.node.ties)


@lru_cache(maxsize=256)
def _steps(expr: Expr, loop: int, extent: int) -> tuple[Expr, int] | None:
    """Where e(u) = o lies for a loop u of so many iterations: from first(o) on, of which the loop
    itself stands for o, within so many; None if e does not grow."""
    first = _least(expr, ("i", loop))
    if first is None:
        return None

    def at(e: Expr, k: int) -> int:
        return evaluate(e, [k] * (loop + 1))

    written = [at(expr, u) for u in range(extent)]
    if any(a > b for a, b in pairwise(written)):
        return None
    early = max(at(first, o) - u for u, o in enumerate(written))
    late = max(u - at(first, o) for u, o in enumerate(written))
    return ("sub", first, early), early + late + 1


def _least(expr: Expr, bound: Expr) -> Expr | None:
    """The least u for which e(u) >= bound, bounds within e left aside; None for another form."""
    match expr:
        case ("i", _):
            return bound
        case (kind, inner, k) if type(k) is int:
            return _least(inner, _LEAST[kind](bound, k)) if _grows(kind, k) else None
        case (kind, k, inner) if type(k) is int and kind in ("add", "mul", "min", "max"):
            return _least((kind, inner, k), bound)
    return None


# e(u) = f(u) op k >= bound where f(u) >= this
_LEAST: dict[str, Callable[[Expr, int], Expr]] = {
    "add": lambda bound, k: ("sub", bound, k),
    "sub": lambda bound, k: ("add", bound, k),
    "mul": lambda bound, k: ("floordiv", ("add", bound, k - 1), k),
    "floordiv": lambda bound, k: ("mul", bound, k),
    "min": lambda bound, k: bound,
    "max": lambda bound, k: bound,
}


def _grows(kind: str, k: int) -> bool:
    """Whether f(u) op k grows where f(u) does, in a way that is known here."""
    return kind in _LEAST and (k > 0 or kind not in ("mul", "floordiv"))
