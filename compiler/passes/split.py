"""split: a long reduction with a small result runs in pieces that threads can share.

    out[] = sum over i < 10^7 of y[i]  ->  v[p] = sum over l of y[p*156250 + l];  out = sum over p

Also what keeps long sums accurate: no running sum is longer than a piece.  Decided by shapes
alone, so results do not depend on the number of threads; of a dynamic axis by its hint, with
pieces of a fixed length, so that all ordinary sizes are one program.  Leaves alone: short
reductions, and sums of products with so many results that their tiles are work enough.
"""

from __future__ import annotations

from metaop.extent import Extent, hint
from metaop.graph import (
    Node,
    Piece,
    Reindex,
    ReindexReduce,
    identity_of,
    is_projection,
)
from metaop.index import TRUE, Expr

from ..rewrite import Graph, is_contraction, map_graph

ENOUGH_RESULTS = 2048  # results that need no splitting: 64 threads, 32 results a tile
SHORT = 8192  # terms of a sum that one thread may add up alone
ACCURATE = 2048  # terms of a piece of a longer one, so that rounding errors stay small
ENOUGH_BLOCKS = 16  # blocks of a matrix product that threads can share
BLOCK = 4096  # its results
FIXED_AXIS = 16  # iterations of an axis of one size that is cut rather than a dynamic one
LONG_PIECE = 1024  # the shortest piece of a sum of products with many results
ROW = 48  # terms of one index of a dynamic axis that are a piece
FEW_RESULTS = 4096  # of a product, so few that every index may have its own
PIECE = 512  # the shortest piece worth a result of its own
MOST_PIECES = 64
LONG_ROW, MANY = 64, 1 << 20  # results that are a row; terms of all of them that are many
ROWS, FEWEST_PIECES = 64, 8  # the fewest rows that are a piece, and pieces that are worth it


def split(graph: Graph) -> Graph:
    """The graph with long reductions in two stages."""
    return map_graph(graph, _split)


def _split(node: Node) -> Node:
    if not isinstance(node, ReindexReduce) or not is_projection(node) or node.size == 0:
        return node
    y = node.inputs[0]
    terms = hint(y.size) // hint(node.size)
    kept = [e[1] for e in node.indices]
    reduced = [k for k in range(len(y.shape)) if k not in kept]
    by_rows = _adds_rows(y, kept, reduced)
    if terms < (FEWEST_PIECES * ROWS if by_rows else SHORT):
        return node
    # a piece of a dynamic axis has a fixed length, so few examples would fill a part of one
    fixed = [k for k in reduced if not isinstance(y.shape[k], Extent)]
    if _is_product(y) and fixed and max(hint(y.shape[k]) for k in fixed) >= FIXED_AXIS:
        reduced = fixed
    axis = max(reduced, key=lambda k: hint(y.shape[k]) * (8 if k == reduced[0] else 1))
    results, extent = hint(node.size), y.shape[axis]
    if _is_product(y) and results >= ENOUGH_RESULTS:
        shared = min(-(-ENOUGH_BLOCKS * BLOCK // results), terms // LONG_PIECE)
        accurate = 1
    elif by_rows:
        shared = min(MOST_PIECES, terms // ROWS)
        accurate = -(-terms // ACCURATE)
    else:
        shared = min(MOST_PIECES, -(-ENOUGH_RESULTS // results), terms // PIECE)
        accurate = -(-terms // ACCURATE)
    wanted = min(max(shared, accurate), hint(extent))
    if wanted < 2:
        return node
    if isinstance(extent, Extent):
        each = terms // hint(extent)  # terms of one index
        single = each >= ROW and (not _is_product(y) or results <= FEW_RESULTS)
        length = 1 if single else -(-hint(extent) // wanted)
        return _in_pieces(node, kept, axis, -(-extent // length), length)
    pieces = _pieces(extent, wanted)
    return _in_pieces(node, kept, axis, pieces, -(-extent // pieces))


def _adds_rows(y: Node, kept: list[int], reduced: list[int]) -> bool:
    """True for a sum of many long rows, where a thread should read whole rows."""
    if not kept or not reduced or max(reduced) > min(kept) or _is_product(y):
        return False
    row = 1
    for k in kept:
        row *= hint(y.shape[k])
    return row >= LONG_ROW and hint(y.size) >= MANY


def _is_product(y: Node) -> bool:
    """A contraction's product, perhaps behind the gather that a gradient reads it through."""
    size = y.size
    while isinstance(y, Reindex) and len(y.pieces) == 1:
        y = y.inputs[y.pieces[0].source]
    return is_contraction(y, size)


def _pieces(extent: int, wanted: int) -> int:
    """The largest divisor of extent up to wanted if it comes near, else wanted."""
    for count in range(wanted, wanted // 2, -1):
        if extent % count == 0:
            return count
    return wanted


def _in_pieces(node: ReindexReduce, kept: list[int], axis: int, pieces: int, length: int) -> Node:
    y = node.inputs[0]
    shape = (*y.shape[:axis], pieces, length, *y.shape[axis + 1 :])
    indices: tuple[Expr, ...] = tuple(
        ("add", ("mul", ("i", k), length), ("i", k + 1)) if k == axis else ("i", k + (k > axis))
        for k in range(len(y.shape))
    )
    cut = Reindex(shape, (Piece(0, indices, TRUE),), y, fill=identity_of(node.op, node.dtype))
    # the piece number becomes the first axis of the partial result
    partial_shape = (*node.shape, pieces)
    moved = tuple(("i", k + (k > axis)) for k in kept)
    order = (*moved, ("i", axis))
    axes = [e[1] for e in order]
    arranged = sorted(range(len(axes)), key=lambda position: axes[position])
    inner = ReindexReduce(
        node.op,
        tuple(partial_shape[p] for p in arranged),
        tuple(("i", axes[p]) for p in arranged),
        cut,
    )
    where_pieces = arranged.index(len(kept))
    outer = tuple(("i", k) for k in range(len(arranged)) if k != where_pieces)
    return _split(ReindexReduce(node.op, node.shape, outer, inner, ties=node.ties))
