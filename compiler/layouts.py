"""layouts: where the elements of values would lie in memory, were nothing stored on the way.

    t = reindex x [i1, i0], x: f32[8,5]         element i0, i1 of t: i0 + i1*5
    e = exp t                                   the same: its axes are those of t
    s = reindex x [i0, i1 + 2], s: f32[8,3]     i0*5 + i1
    a = reindex x [i0, i2], b = reindex y [i1, i2]
    p = maximum a b, p: f32[8,8,5]              i0*5 + i2 and i1*5 + i2: both repeat elements

A reduction adds up in an order chosen by these accesses.  They do not depend on what happens to be
stored or is expressed by something else, and a value in memory carries its own: so neither do the
bits of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from metaop.extent import hint
from metaop.graph import Elementwise, Layout, Node, Reindex, Scalar
from metaop.index import (
    Expr,
    flatten,
    from_terms,
    identity_range,
    loops_of,
    simplify,
    substitute,
    terms_of,
)

from .rewrite import Graph, Input, fewest_elements


class Layouts:
    """The layouts of the values of a graph."""

    def __init__(self, graph: Graph):
        self.axes = _axes_of_all(graph)

    def access(self, node: Node, at: tuple[Expr, ...], extents: Sequence[int]) -> Expr:
        """Where element `at` of a value lies in what it is a reindex of, but for a constant."""
        source, place = _source(node, at, extents)
        if isinstance(source, Input) and source.layout is not None:
            known = source.layout.accesses
            if len(known) == 1:
                return _but_constant(substitute(known[0], place), extents)
        return self._place(source, place, extents)

    def accesses(
        self, node: Node, at: tuple[Expr, ...], extents: Sequence[int]
    ) -> tuple[Expr, ...]:
        """The same; of what is computed from values that all repeat elements, where it lies in each
        of those."""
        found: dict[Expr, None] = {}
        todo = [_source(node, at, extents)]
        met = set(todo)
        for source, place in todo:
            known = source.layout if isinstance(source, Input) else None
            if known is not None:
                places = [substitute(e, place) for e in known.accesses]
                found |= {_but_constant(e, extents): None for e in places}
            elif isinstance(source, Elementwise) and source not in self.axes:
                below = [_source(operand, place, extents) for operand in source.inputs]
                todo += [one for one in dict.fromkeys(below) if one not in met]
                met.update(below)
            else:
                found[self._place(source, place, extents)] = None
        found.pop(0, None)  # one number for all
        return tuple(found) or (self._place(*todo[0], extents),)

    def _place(self, node: Node, at: tuple[Expr, ...], extents: Sequence[int]) -> Expr:
        axes = self.axes.get(node) or range(len(node.shape))
        return _but_constant(flatten([at[k] for k in axes], [node.shape[k] for k in axes]), extents)

    def of(self, node: Node) -> Layout | None:
        """The layout that a value has to carry if it is stored; None for that of its shape, and for
        a value that is one number everywhere."""
        indices = identity_range(len(node.shape))
        accesses = self.accesses(node, indices, node.shape)
        axes, least = self.axes.get(node), fewest_elements(node)
        plain = _but_constant(flatten(indices, node.shape), node.shape)
        whole = least == node.size and axes == tuple(range(len(indices)))
        if (whole and accesses == (plain,)) or accesses == (0,):
            return None
        return Layout(accesses, axes, least)


def _source(
    node: Node, at: tuple[Expr, ...], extents: Sequence[int]
) -> tuple[Node, tuple[Expr, ...]]:
    """What a value is a reindex of, and the index there."""
    while isinstance(node, Reindex) and len(node.pieces) == 1 and len(node.inputs) == 1:
        if 0 in node.inputs[0].shape:
            break
        at = tuple(simplify(substitute(e, at), extents) for e in node.pieces[0].indices)
        node = node.inputs[0]
    return node, at


def _but_constant(place: Expr, extents: Sequence[int]) -> Expr:
    terms = dict(terms_of(simplify(place, extents), extents))
    terms.pop(None, None)
    return from_terms(terms)


def _axes_of_all(graph: Graph) -> dict[Node, tuple[int, ...]]:
    """The axes of values from the outermost to the innermost: a transposed array lies as the array
    does, and what is computed from it element by element as its first operand that says how it
    lies.  A value that is not in it spreads out others."""
    found: dict[Node, tuple[int, ...]] = {}
    for node in graph.nodes:
        match node:
            case Elementwise():
                known = (found[i] for i in node.inputs if i in found)
                axes = next(known, None)
            case Reindex():
                axes = _axes_of_reindex(node, found)
            case Scalar():
                axes = None
            case Input() if node.layout is not None:
                axes = node.layout.axes
            case _:
                axes = tuple(range(len(node.shape)))
        if axes is not None:
            found[node] = axes
    return found


def _axes_of_reindex(node: Reindex, found: dict[Node, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The axes of a reindex: its loops in the order in which they walk the axes of its source; None
    if it repeats elements."""
    piece = node.pieces[0]
    source, rank = node.inputs[piece.source], len(node.shape)
    used: dict[int, None] = {}
    for axis in found.get(source, range(len(source.shape))):
        used |= dict.fromkeys(_loops_in_order(piece.indices[axis], node.shape))
    if any(n != 1 for k, n in enumerate(node.shape) if k not in used):
        return None
    if len(node.pieces) > 1 or len(node.inputs) > 1:
        return tuple(range(rank))
    axes = list(used)
    for k in range(rank):
        if k not in used:  # of one element: anywhere, so after its neighbour
            axes.insert(axes.index(k - 1) + 1 if k else 0, k)
    return tuple(axes)


def _loops_in_order(e: Expr, shape: Sequence[int]) -> list[int]:
    """The loops of an index expression, those that take long steps first."""
    terms = terms_of(e, shape)
    atoms = sorted((a for a in terms if a is not None), key=lambda a: -abs(hint(terms[a])))
    return [loop for atom in atoms for loop in sorted(loops_of(atom))]
