"""Graphs as text: every node on a line, typed, named in topological order, no addresses.

graph matmul(a0: f32[64,32], a1: f32[32,16]) -> v3
  v0: f32[64,16,32] = reindex a0 [i0, i2]
  v1: f32[64,16,32] = reindex a1 [i2, i1]
  v2: f32[64,16,32] = mul v0 v1
  v3: f32[64,16] = reindex_reduce.add v2 [i0, i1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .errors import describe
from .graph import (
    Elementwise,
    Escape,
    IndexOf,
    Node,
    Piece,
    RandomBits,
    Reindex,
    ReindexReduce,
    Scalar,
)
from .index import TRUE, Expr, show, simplify


def number_of(node: Node) -> str | None:
    """The text of a node that is one literal number everywhere, else None."""
    while (
        isinstance(node, Reindex)
        and len(node.pieces) == 1
        and not node.pieces[0].indices
        and node.pieces[0].condition == TRUE
    ):
        node = node.inputs[0]
    if isinstance(node, Scalar) and node.literal:
        return repr(node.value)
    return None


def show_graph(
    nodes: Iterable[Node],
    outputs: Iterable[Node],
    names: Mapping[Node, str],
    title: str = "graph",
    note: Callable[[Node], str] | None = None,
) -> str:
    """The text of a graph whose nodes have names; `note` is a comment on a node."""
    nodes = list(nodes)
    results = list(outputs)
    inputs = [n for n in nodes if n.kind in ("input", "buffer")]
    arguments = ", ".join(f"{names[n]}: {describe(n)}" for n in inputs)
    head = f"graph {title}({arguments}) -> {', '.join(names[n] for n in results)}"
    lines = [head]
    for node in nodes:
        if node in inputs or (number_of(node) is not None and node not in results):
            continue
        line = f"  {names[node]}: {describe(node)} = {describe_operation(node, names)}"
        if note is not None:
            line += f"    # {note(node)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def describe_operation(node: Node, names: Mapping[Node, str]) -> str:
    """What a node does to its inputs: `mul v0 v1`, `reindex a0 [i0, i2]`."""

    def name(n: Node) -> str:
        return number_of(n) or names[n]

    match node:
        case Scalar():
            return repr(node.value)
        case IndexOf():
            return f"index {node.axis}"
        case RandomBits():
            return f"random_bits {' '.join(map(name, node.inputs))}"
        case Elementwise():
            return f"{node.op} {' '.join(map(name, node.inputs))}"
        case Escape():
            return f"escape.{node.name} {' '.join(map(name, node.inputs))}"
        case Reindex():
            fill = "" if _never_fills(node) else f" else {node.fill!r}"
            return "reindex " + " | ".join(_piece(node, p, names) for p in node.pieces) + fill
        case ReindexReduce():
            where = "" if node.condition == TRUE else f" if {_text(node, node.condition, names)}"
            at = ", ".join(_text(node, e, names) for e in node.indices)
            return f"reindex_reduce.{node.op} {name(node.inputs[0])} [{at}]{where}"
    return node.kind


def _never_fills(node: Reindex) -> bool:
    return node.fill == 0


def _piece(node: Reindex, piece: Piece, names: Mapping[Node, str]) -> str:
    source = number_of(node.inputs[piece.source]) or names[node.inputs[piece.source]]
    at = ", ".join(_text(node, e, names) for e in piece.indices)
    condition = "" if piece.condition == TRUE else f" if {_text(node, piece.condition, names)}"
    return f"{source} [{at}]{condition}"


def _text(node: Node, e: Expr, names: Mapping[Node, str]) -> str:
    e = simplify(e, node.inputs[0].shape if isinstance(node, ReindexReduce) else node.shape)

    def read(r: Expr, position: str) -> str:
        mark = "" if r[3] is None else "!"  # a checked read
        return f"{names[node.inputs[r[1]]]}{mark}[{position}]"

    return show(e, read=read)
