"""What every graph pass needs: the graph it works on, and rebuilding nodes over new inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metaop.dtype import DType
from metaop.errors import CompilerBug
from metaop.extent import hint
from metaop.graph import (
    Apply,
    Elementwise,
    Escape,
    IndexOf,
    Layout,
    Node,
    RandomBits,
    Reindex,
    ReindexReduce,
    Scalar,
    Shape,
    toposort,
)
from metaop.recording import recording


class Input(Node):
    """The n-th input of a program: a value in memory, or a Python number that is no literal."""

    __slots__ = ("position",)
    kind = "input"

    def __init__(self, position: int, shape: Shape, dtype: DType, layout: Layout | None = None):
        self.position = position
        self._record(shape, dtype, (), ("input", position))
        self.layout = layout


class Graph:
    """A program's graph: nodes in topological order, the inputs and the outputs.

    keep: nodes whose value has to outlive the program if it is stored at all, each with the
    number under which the caller knows it.  names: what dumps call the nodes; a rewritten node
    keeps the name of what it replaces.
    """

    def __init__(
        self,
        outputs: list[Node],
        inputs: list[Input],
        keep: dict[Node, list[int]],
        names: dict[Node, str] | None = None,
    ):
        self.outputs, self.inputs, self.keep = outputs, inputs, keep
        self.nodes = toposort(outputs)
        self.names = self.name_all(names or {})

    def name_all(self, known: dict[Node, str]) -> dict[Node, str]:
        """a0, a1, … for inputs; known names; v0, v1, … in topological order for the rest, literal
        numbers last, because texts show their value."""
        names: dict[Node, str] = {}
        for given in self.inputs:
            names[given] = f"a{given.position}"
        names |= {node: known[node] for node in self.nodes if node in known}
        taken = set(known.values())
        count = 0
        unnamed = [node for node in self.nodes if node not in names]
        for node in sorted(unnamed, key=_is_number):
            while f"v{count}" in taken:
                count += 1
            names[node] = f"v{count}"
            taken.add(f"v{count}")
        return names


def rebuild(node: Node, inputs: tuple[Node, ...]) -> Node:
    """A node like this one over other inputs, with the same user's line and scope."""
    if inputs == node.inputs:
        return node
    match node:
        case Apply():
            new: Node = Apply(node.function, node.dtype, *inputs)
        case Elementwise():
            new = Elementwise(node.op, *inputs, dtype=node.dtype)
        case Reindex():
            new = Reindex(node.shape, node.pieces, *inputs, fill=node.fill)
        case ReindexReduce():
            new = ReindexReduce(
                node.op, node.shape, node.indices, *inputs,
                condition=node.condition, ties=node.ties,
            )  # fmt: skip
        case RandomBits():
            new = RandomBits(node.shape, *inputs)
        case Escape():
            new = Escape(
                node.name, node.call, node.shape, node.dtype, *inputs, key=node.key,
                reason=node.reason, any_size=node.any_size,
            )  # fmt: skip
        case _:
            raise CompilerBug(f"{node!r} has no inputs to replace")
    new.scope = node.scope
    return new


def imported(node: Node, inputs: tuple[Node, ...], extents: Callable[[Any], Any]) -> Node:
    """A recorded node over a program's nodes, its extents mapped."""
    match node:
        case Apply():
            new: Node = Apply(node.function, node.dtype, *inputs)
        case Elementwise():
            new = Elementwise(node.op, *inputs, dtype=node.dtype)
        case Reindex():
            shape, pieces = extents(node.shape), extents(node.pieces)
            new = Reindex(shape, pieces, *inputs, fill=node.fill)
        case ReindexReduce():
            new = ReindexReduce(
                node.op, extents(node.shape), extents(node.indices), *inputs,
                condition=extents(node.condition), ties=node.ties,
            )  # fmt: skip
        case IndexOf():
            new = IndexOf(extents(node.shape), node.axis)
        case RandomBits():
            new = RandomBits(extents(node.shape), *inputs)
        case Escape():
            new = Escape(
                node.name, node.call, extents(node.shape), node.dtype, *inputs,
                key=extents(node.key), reason=node.reason, any_size=node.any_size,
            )  # fmt: skip
        case _:
            return node
    new.scope = node.scope
    return new


def _is_number(node: Node) -> bool:
    """A literal number, or one spread over a shape."""
    while isinstance(node, Reindex) and not node.pieces[0].indices:
        node = node.inputs[0]
    return isinstance(node, Scalar)


Rule = Callable[[Node], Node]


def map_graph(graph: Graph, rule: Rule) -> Graph:
    """The graph with `rule` applied to every node after its inputs were mapped."""
    new: dict[Node, Node] = {}
    keep: dict[Node, list[int]] = {}
    names: dict[Node, str] = {}
    saved = recording.site, recording.scope
    try:
        for node in graph.nodes:
            recording.site, recording.scope = node.site, node.scope
            mapped = rule(rebuild(node, tuple(new[i] for i in node.inputs)))
            if mapped.shape != node.shape or mapped.dtype is not node.dtype:
                raise CompilerBug(f"{rule.__name__} changed the type of {node!r} to {mapped!r}")
            new[node] = mapped
            if not isinstance(mapped, Input):
                names.setdefault(mapped, graph.names[node])
            if node in graph.keep:
                keep.setdefault(mapped, []).extend(graph.keep[node])
    finally:
        recording.site, recording.scope = saved
    return Graph([new[n] for n in graph.outputs], graph.inputs, keep, names)


def verify(graph: Graph) -> None:
    """Raises CompilerBug unless every node fits its inputs and stands after them."""
    position = {node: k for k, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if any(position.get(i, len(position)) >= position[node] for i in node.inputs):
            raise CompilerBug(f"{node!r} stands before one of its inputs")
        if isinstance(node, Elementwise | Reindex | ReindexReduce):
            node.check()
        elif not isinstance(node, Input | Scalar | IndexOf | RandomBits | Escape):
            raise CompilerBug(f"{node!r} cannot be compiled")


def is_contraction(y: Node, size: int) -> bool:
    """A product of two factors that are both smaller than the space that is summed over, by half
    at least: rounding up to whole pieces makes the space larger too.  A square, or what is only
    scaled by a number, shares nothing between its factors."""
    if not isinstance(y, Elementwise) or y.op != "mul" or y.inputs[0] is y.inputs[1]:
        return False
    fewest = [hint(fewest_elements(factor)) for factor in y.inputs]
    return min(fewest) > 1 and 2 * max(fewest) <= hint(size)


def fewest_elements(node: Node) -> int:
    """The size of a value, or of what it is a reindex of if that is less."""
    sizes = [node.size]
    while isinstance(node, Reindex) and len(node.pieces) == 1:
        node = node.inputs[node.pieces[0].source]
        sizes.append(node.size)
    if node.layout is not None:
        sizes.append(node.layout.least)
    return min(sizes, key=hint)
