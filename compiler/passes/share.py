"""share: two nodes that compute the same become one.

    v0 = exp a; v1 = exp a; v2 = add v0 v1   ->   v0 = exp a; v2 = add v0 v0

Leaves escapes alone: a host callback may have effects.
"""

from __future__ import annotations

from typing import Any

from metaop.graph import Escape, Node, ReindexReduce

from ..rewrite import Graph, map_graph


def share(graph: Graph) -> Graph:
    """The graph in which structurally equal nodes are identical."""
    known: dict[Any, Node] = {}

    def first_of_its_kind(node: Node) -> Node:
        if isinstance(node, Escape):
            return node
        ties = node.ties if isinstance(node, ReindexReduce) else ""
        key = (node.definition(), ties, node.shape, node.dtype, node.inputs)
        return known.setdefault(key, node)

    return map_graph(graph, first_of_its_kind)
