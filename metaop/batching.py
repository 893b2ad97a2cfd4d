"""vmap: a function of one example as a function of many.

The function is called once, on placeholders of one example's shape; what it recorded is rewritten
with a batch axis in front: one rule per kind of node.  No example is computed by itself, so the
result fuses like a function written for batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .build import broadcast_to, permute, reduce
from .compiler.rewrite import rebuild
from .errors import CompilerBug, JitError, ShapeError, describe
from .graph import Apply, Custom, Elementwise, Escape, Node, Piece, Reindex, ReindexReduce, toposort
from .index import Expr, transform
from .placeholder import Placeholder, Recorded, all_inputs, as_var, leaves_of, rebuilt
from .recording import recording
from .var import Var

# ----------------------------------------------------------------------------------- node by node


def _shifted(e: Expr, batched: list[bool]) -> Expr:
    """An index expression with a loop in front; reads of batched inputs start with it."""

    def leaf(part: Expr) -> Expr | None:
        if isinstance(part, tuple) and part[0] == "i":
            return ("i", part[1] + 1)
        if isinstance(part, tuple) and part[0] == "read":
            position = tuple(_shifted(p, batched) for p in part[2])
            if batched[part[1]]:
                position = (("i", 0), *position)
            return ("read", part[1], position, *part[3:])
        return None

    return transform(e, leaf)


def _spread(node: Node, count: int) -> Node:
    """A node of one example for all of them."""
    rank = len(node.shape)
    piece = Piece(0, tuple(("i", k + 1) for k in range(rank)))
    return Reindex((count, *node.shape), (piece,), node)


def _elementwise(node: Elementwise, inputs: list[Node], batched: list[bool], count: int) -> Node:
    whole = [i if b else _spread(i, count) for i, b in zip(inputs, batched)]
    return rebuild(node, tuple(whole))


def _reindex(node: Reindex, inputs: list[Node], batched: list[bool], count: int) -> Node:
    pieces = []
    for piece in node.pieces:
        indices = tuple(_shifted(e, batched) for e in piece.indices)
        if batched[piece.source]:
            indices = (("i", 0), *indices)
        pieces.append(Piece(piece.source, indices, _shifted(piece.condition, batched)))
    return Reindex((count, *node.shape), tuple(pieces), *inputs, fill=node.fill)


def _reindex_reduce(
    node: ReindexReduce, inputs: list[Node], batched: list[bool], count: int
) -> Node:
    source = inputs[0] if batched[0] else _spread(inputs[0], count)
    indices = tuple(_shifted(e, batched) for e in node.indices)
    return ReindexReduce(
        node.op, (count, *node.shape), (("i", 0), *indices), source, *inputs[1:],
        condition=_shifted(node.condition, batched), ties=node.ties,
    )  # fmt: skip


def _escape(node: Escape, inputs: list[Node], batched: list[bool], count: int) -> Node:
    """The callback example by example."""
    flags = tuple(batched)
    key = None if node.key is None else ("each", flags, node.key)
    call = functools.partial(_each, node.call, flags)
    gradient = None
    if node.gradient is not None:
        gradient = functools.partial(_escape_gradient, node, flags)
    return Escape(
        f"each {node.name}", call, (count, *node.shape), node.dtype, *inputs,
        gradient=gradient, key=key, any_size=node.any_size,
    )  # fmt: skip


def _each(call: Callable[..., Any], flags: tuple[bool, ...], *arrays: np.ndarray) -> np.ndarray:
    count = next(len(a) for a, flag in zip(arrays, flags) if flag)
    return np.stack(
        [call(*(a[k] if flag else a for a, flag in zip(arrays, flags))) for k in range(count)]
    )


def _escape_gradient(
    example: Escape, flags: tuple[bool, ...], node: Escape, g: Node
) -> tuple[Node | None, ...]:
    """The gradient rule of one example, batched; inputs that all share get the sum."""
    places = [Placeholder(i.shape, i.dtype, "vmap") for i in example.inputs]
    own = rebuild(example, tuple(places))
    cotangent = Placeholder(example.shape, example.dtype, "vmap")
    assert example.gradient is not None
    found = example.gradient(own, cotangent)
    many: dict[Node, Node] = {own: node, cotangent: g}
    one: dict[Node, Node] = {}
    for place, whole, flag in zip(places, node.inputs, flags):
        (many if flag else one)[place] = whole
    wanted = [k for k, part in enumerate(found) if part is not None]
    results = batched_nodes([found[k] for k in wanted], many, node.shape[0], one)
    gradients: list[Node | None] = [None] * len(places)
    for k, (result, is_batched) in zip(wanted, results):
        whole = result if is_batched else _spread(result, node.shape[0])
        gradients[k] = whole if flags[k] else reduce("add", whole, (0,))
    return tuple(gradients)


class BatchedCall:
    """A call of a `mo.Function` for many examples: the gradients of one of them, batched."""

    def __init__(self, call: Any, new: dict[Node, Node], has_axis: dict[Node, bool], count: int):
        self.call, self.new, self.has_axis, self.count = call, new, has_axis, count

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that its gradients belong to."""
        return tuple(self.new[n] for n in self.call.inputs)

    def gradients(self, given: dict[int, Node]) -> tuple[Node | None, ...]:
        """The gradients of the inputs from those of the results, by number."""
        places: dict[int, Node] = {
            k: Placeholder(g.shape[1:], g.dtype, "vmap") for k, g in given.items()
        }
        found = self.call.gradients(places)
        many = {n: v for n, v in self.new.items() if self.has_axis[n]}
        one = {n: v for n, v in self.new.items() if not self.has_axis[n]}
        many |= {place: given[k] for k, place in places.items()}
        wanted = [f for f in found if f is not None]
        results = iter(batched_nodes(wanted, many, self.count, one))
        return tuple(
            None if f is None else self._of_all(*next(results), self.has_axis[source])
            for f, source in zip(found, self.call.inputs)
        )

    def _of_all(self, gradient: Node, is_batched: bool, wanted: bool) -> Node:
        whole = gradient if is_batched else _spread(gradient, self.count)
        return whole if wanted else reduce("add", whole, (0,))


RULES: dict[type[Node], Callable[..., Node]] = {
    Elementwise: _elementwise,
    Apply: _elementwise,
    Reindex: _reindex,
    ReindexReduce: _reindex_reduce,
    Escape: _escape,
}


def batched_nodes(
    outputs: list[Any], many: dict[Node, Node], count: int, one: dict[Node, Node] | None = None
) -> list[tuple[Node, bool]]:
    """Nodes of one example as nodes of `count` of them, and whether they have the batch axis.

    many: what stands for an input with the axis; one: for an input without.
    """
    new: dict[Node, Node] = dict(many) | (one or {})
    calls: dict[int, BatchedCall] = {}
    has_axis: dict[Node, bool] = dict.fromkeys(many, True) | dict.fromkeys(one or {}, False)
    saved = recording.site
    try:
        for node in toposort(outputs, lambda n: n in has_axis, all_inputs):
            if node in new:
                continue
            if type(node) is Custom and any(has_axis[i] for i in all_inputs(node)):
                call = calls.setdefault(id(node.call), BatchedCall(node.call, new, has_axis, count))
                value = new[node.inputs[0]]
                value = value if has_axis[node.inputs[0]] else _spread(value, count)
                new[node], has_axis[node] = Custom(value, call, node.number), True
                continue
            flags = [has_axis[i] for i in node.inputs]
            inputs = [new[i] for i in node.inputs]
            has_axis[node] = any(flags)
            recording.site = node.site
            if any(flags):
                if type(node) not in RULES:
                    raise CompilerBug(f"vmap has no rule for {node!r}")
                new[node] = RULES[type(node)](node, inputs, flags, count)
                if node.stop:
                    new[node].stop, new[node].requires_grad = True, False
            elif any(a is not b for a, b in zip(inputs, node.inputs)):
                new[node] = rebuild(node, tuple(inputs))
            else:
                new[node] = node
    finally:
        recording.site = saved
    return [(new[node], has_axis[node]) for node in outputs]


# -------------------------------------------------------------------------------------------- vmap


def _axes_for(axes: Any, arguments: Any) -> list[int | None]:
    """One axis (or None) for every leaf of the arguments."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(leaves_of(arguments))
    if isinstance(arguments, dict):
        return [a for key, item in arguments.items() for a in _axes_for(axes[key], item)]
    if isinstance(arguments, list | tuple) and len(axes) == len(arguments):
        return [a for axis, item in zip(axes, arguments) for a in _axes_for(axis, item)]
    raise ShapeError(f"vmap: in_axes {axes} does not fit the arguments")


def _in_front(node: Node, axis: int) -> Node:
    rank = len(node.shape)
    if not -rank <= axis < rank:
        raise ShapeError(f"vmap: axis {axis} does not exist in {describe(node)}")
    axis %= rank
    if axis == 0:
        return node
    return permute(node, [axis, *(k for k in range(rank) if k != axis)])


def _placed(node: Node, axis: int) -> Node:
    """The batch axis moved from the front to where the result shall have it."""
    rank = len(node.shape)
    axis %= rank
    order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
    return permute(node, order) if axis else node


def vmap(function: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """The function of one example as one of many: it is called once, on values without the axis.

    in_axes: the axis of the examples in every argument (an int for all, None: the argument is
    shared, or one for each argument, nested like it); out_axes: where it stands in the results.
    Numbers among the arguments are shared.  Maps may be nested, and differentiated.

        squared = mo.vmap(lambda x, w: (x @ w) ** 2, in_axes=(0, None))(xs, w)

    Raises JitError if the function asks for a value or writes to a Var.
    """

    @functools.wraps(function)
    def mapped(*arguments: Any) -> Any:
        given = [as_var(leaf) for leaf in leaves_of(arguments)]
        axes = [
            None if axis is None or not leaf.ndim else axis
            for axis, leaf in zip(_axes_for(in_axes, arguments), given)
        ]
        fronts = [
            leaf._node if axis is None else _in_front(leaf._node, axis)
            for leaf, axis in zip(given, axes)
        ]
        counts = {front.shape[0] for front, axis in zip(fronts, axes) if axis is not None}
        if len(counts) != 1:
            raise ShapeError(
                f"vmap: the mapped axes must have one extent, they have {sorted(counts)}"
            )
        (count,) = counts
        kinds = [
            (n.shape if axis is None else n.shape[1:], n.dtype) for n, axis in zip(fronts, axes)
        ]
        recorded = Recorded("vmap", function, arguments, kinds)
        many: dict[Node, Node] = {}
        one: dict[Node, Node] = {}
        for place, front, axis in zip(recorded.inputs, fronts, axes):
            (one if axis is None else many)[place] = front
        results = batched_nodes(recorded.outputs, many, count, one)
        return _results(recorded.structure, results, out_axes, count)

    return mapped


def _results(structure: Any, results: list[tuple[Node, bool]], out_axes: Any, count: int) -> Any:
    axes = _axes_for(out_axes, structure)
    vars = []
    for (node, is_batched), axis in zip(results, axes):
        if axis is None:
            if is_batched:
                raise JitError("vmap: out_axes is None for a result that differs by example")
            vars.append(Var._of(Elementwise("copy", node)))
        else:
            whole = node if is_batched else broadcast_to(_spread(node, count), (count, *node.shape))
            placed = _placed(whole, axis)
            vars.append(Var._of(placed if placed is not node else Elementwise("copy", node)))
    return rebuilt(structure, vars)
