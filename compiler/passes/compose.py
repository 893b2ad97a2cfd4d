"""compose: a reindex of a reindex becomes one.

    v0 = reindex x [i1, i0]; v1 = reindex v0 [i0, i1 + 2]   ->   v1 = reindex x [i1 + 2, i0]

Leaves alone: pieces, and an outer reindex that may read outside the inner one with another fill.
"""

from __future__ import annotations

from metaop.graph import Node, Piece, Reindex
from metaop.index import TRUE, Expr, conjunction, contains, simplify, substitute, within

from ..rewrite import Graph, map_graph


def compose(graph: Graph) -> Graph:
    """The graph without reindexes of single-piece reindexes."""
    return map_graph(graph, _composed)


def _composed(node: Node) -> Node:
    while True:
        new = _compose_once(node)
        if new is None:
            return node
        node = new


def _compose_once(outer: Node) -> Reindex | None:
    if not isinstance(outer, Reindex) or len(outer.pieces) != 1:
        return None
    piece = outer.pieces[0]
    inner = outer.inputs[piece.source]
    if not isinstance(inner, Reindex) or len(inner.pieces) != 1:
        return None
    if len(outer.inputs) > 1 or len(inner.inputs) > 1:
        return None  # reads of integer inputs: substitution while lowering handles them
    inside = simplify(conjunction(piece.condition, within(piece.indices, inner.shape)), outer.shape)
    if inside != TRUE and outer.fill != inner.fill:
        return None
    below = inner.pieces[0]
    condition = simplify(
        conjunction(inside, substitute(below.condition, piece.indices)), outer.shape
    )
    indices: tuple[Expr, ...] = tuple(
        simplify(substitute(e, piece.indices), outer.shape) for e in below.indices
    )
    if any(contains(e, ("read",)) for e in indices):
        return None
    return Reindex(outer.shape, (Piece(0, indices, condition),), inner.inputs[0], fill=inner.fill)
