"""algebra: rewrites that hold for every value, NaN, infinities and signed zeros included.

    x * 1 -> x      x / 1 -> x      x - 0 -> x      x + (-0.0) -> x     --x -> x
    copy x -> x     cast x to its own dtype -> x    reindex x [i0, i1, …] -> x
    where c x x -> x                                x ** 2 -> x * x     x ** 1 -> x

It leaves alone what only looks neutral: x + 0.0 (turns -0.0 into 0.0), x * 0, x - x, x / x.
"""

from __future__ import annotations

from collections.abc import Callable

from metaop.graph import (
    Elementwise,
    Node,
    Reindex,
    ReindexReduce,
    Scalar,
    identity_indices,
    is_projection,
)
from metaop.index import TRUE

from ..rewrite import Graph, map_graph


def algebra(graph: Graph) -> Graph:
    """The graph after the rewrites above."""
    return map_graph(graph, _simplify)


def _simplify(node: Node) -> Node:
    if isinstance(node, Elementwise):
        rule = _RULES.get(node.op)
        return (rule(node) if rule else None) or node
    if isinstance(node, Reindex) and _is_identity(node):
        return node.inputs[node.pieces[0].source]
    if (
        isinstance(node, ReindexReduce)
        and is_projection(node)
        and node.shape == node.inputs[0].shape
    ):
        return node.inputs[0]
    return node


def _is_identity(node: Reindex) -> bool:
    piece = node.pieces[0]
    source = node.inputs[piece.source]
    return (
        piece.condition == TRUE
        and source.shape == node.shape
        and piece.indices == identity_indices(len(node.shape))
    )


def literal(node: Node) -> float | None:
    """The number that every element of a node is known to be, else None."""
    while isinstance(node, Reindex) and len(node.pieces) == 1:
        if node.pieces[0].condition != TRUE or node.pieces[0].indices:
            return None
        node = node.inputs[node.pieces[0].source]
    return node.value if isinstance(node, Scalar) and node.literal else None


def _times(node: Elementwise) -> Node | None:
    a, b = node.inputs
    return a if literal(b) == 1 else b if literal(a) == 1 else None


def _divided(node: Elementwise) -> Node | None:
    return node.inputs[0] if literal(node.inputs[1]) == 1 else None


def _minus(node: Elementwise) -> Node | None:
    return node.inputs[0] if literal(node.inputs[1]) == 0 else None


def _plus(node: Elementwise) -> Node | None:
    if node.dtype.is_float:
        return None
    a, b = node.inputs
    return a if literal(b) == 0 else b if literal(a) == 0 else None


def _negated(node: Elementwise) -> Node | None:
    inner = node.inputs[0]
    return inner.inputs[0] if isinstance(inner, Elementwise) and inner.op == "neg" else None


def _cast(node: Elementwise) -> Node | None:
    return node.inputs[0] if node.inputs[0].dtype is node.dtype else None


def _where(node: Elementwise) -> Node | None:
    return node.inputs[1] if node.inputs[1] is node.inputs[2] else None


def _power(node: Elementwise) -> Node | None:
    base, exponent = node.inputs
    value = literal(exponent)
    if value == 1:
        return base
    if value == 2:
        return Elementwise("mul", base, base)
    return None


_RULES: dict[str, Callable[[Elementwise], Node | None]] = {
    "mul": _times,
    "div": _divided,
    "sub": _minus,
    "add": _plus,
    "neg": _negated,
    "copy": lambda node: node.inputs[0],
    "cast": _cast,
    "where": _where,
    "pow": _power,
}
