"""Functions as graphs: a function called once on placeholders, and what it recorded put together
anew over other inputs.  `vmap`, `scan`, `while_loop` and `cond` are built on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import life
from .compiler.rewrite import imported, rebuild
from .dtype import DType
from .errors import JitError
from .graph import Custom, Node, Scalar, Shape, _sequence, toposort
from .recording import recording
from .var import Var, node_of


class Placeholder(Node):
    """An input of a function that is being recorded: it has no value."""

    __slots__ = ()
    kind = "placeholder"

    def __init__(self, shape: Shape, dtype: DType, where: str):
        self._record(shape, dtype, (), ("placeholder",))
        self.depth = 0
        # so that a write to a Var of the function's own keeps its history
        self.requires_grad = recording.grad and dtype.is_float
        self.error = JitError(
            f"the value of an argument of {where} is asked for (by if, float, print or the like), "
            "but the function is recorded once for all values; write mo.where(condition, a, b), "
            "or mo.cond"
        )


# ------------------------------------------------------------------------------ nested structures


def leaves_of(structure: Any) -> list[Any]:
    """The Vars, arrays and numbers of nested tuples, lists and dicts, in order."""
    if isinstance(structure, dict):
        return [leaf for item in structure.values() for leaf in leaves_of(item)]
    if isinstance(structure, list | tuple):
        return [leaf for item in structure for leaf in leaves_of(item)]
    return [] if structure is None else [structure]


def rebuilt(structure: Any, leaves: Iterable[Any]) -> Any:
    """The structure with other leaves."""
    supply = iter(leaves)

    def build(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: build(item) for key, item in part.items()}
        if isinstance(part, tuple) and hasattr(part, "_fields"):
            return type(part)(*(build(item) for item in part))
        if isinstance(part, list | tuple):
            return type(part)(build(item) for item in part)
        return None if part is None else next(supply)

    return build(structure)


def as_var(value: Any) -> Var:
    """A Var, made of an array or number if need be."""
    return value if isinstance(value, Var) else Var(value)


# ---------------------------------------------------------------------------- recording a function


class Recorded:
    """What a function of placeholders recorded.

    inputs: the placeholders; outputs: the nodes of the results, whose structure is `structure`.
    """

    def __init__(self, where: str, function: Callable[..., Any], arguments: Any, kinds: Any):
        """kinds: (shape, dtype) of every leaf of the arguments, which are given for structure."""
        self.first = next(_sequence)  # what is made from now on is the function's own
        self.inputs = [Placeholder(shape, dtype, where) for shape, dtype in kinds]
        self.structure, self.outputs = self._call(where, function, arguments)

    def _call(
        self, where: str, function: Callable[..., Any], arguments: Any
    ) -> tuple[Any, list[Node]]:
        with life.transaction():
            given = rebuilt(arguments, [Var._of(node) for node in self.inputs])
            before = len(life.recorded_writes())
            results = function(*given)
            leaves = leaves_of(results)
            outputs = [node_of(leaf) for leaf in leaves]
            writes = list(life._transactions.log or ())[before:]
            if any(w.old.sequence < self.first for w in writes):
                raise JitError(
                    f"the function given to {where} writes to a Var from outside (random numbers "
                    "and running statistics do, too), which would happen once instead of at every "
                    "call; pass random numbers in, and return what is to be kept"
                )
            life.undo(writes)  # to Vars of its own: their values are in the results
        # no Var that has no value must stay alive: `mo.sync()` would try to compute it
        return rebuilt(results, range(len(leaves))), outputs

    def dependent(self) -> set[Node]:
        """The nodes that depend on an input."""
        found: set[Node] = set(self.inputs)
        for node in toposort(self.outputs):
            if any(source in found for source in node.inputs):
                found.add(node)
        return found

    def constants(self) -> list[Node]:
        """What the function reads from outside, in a fixed order; plain numbers spread over a shape
        stay inside."""
        depends = self.dependent()
        found: dict[Node, None] = {}

        def visit(node: Node) -> None:
            if node in depends or _is_fixed(node):
                return
            if len(node.inputs) == 1 and isinstance(node.inputs[0], Scalar):
                visit(node.inputs[0])
            else:
                found.setdefault(node)

        for node in toposort(self.outputs, lambda n: n not in depends):
            if node in depends:
                for source in node.inputs:
                    visit(source)
        for node in self.outputs:
            visit(node)
        return list(found)

    def instantiate(self, replace: dict[Node, Node]) -> list[Node]:
        """The outputs over other nodes in the place of inputs and constants."""
        return substitute(self.outputs, replace)


def _is_fixed(node: Node) -> bool:
    """True for nodes that are the same everywhere: coordinates, literal numbers spread out."""
    if isinstance(node, Scalar):
        return node.literal
    if node.storage is not None:
        return False
    return node.kind == "index" or (
        len(node.inputs) == 1 and isinstance(node.inputs[0], Scalar) and node.inputs[0].literal
    )


def all_inputs(node: Node) -> tuple[Node, ...]:
    """What a node is computed from, and where gradients go that a `mo.Function` computes."""
    if type(node) is Custom and node.call is not None:
        return (*node.inputs, *node.call.inputs)
    return node.inputs


class MovedCall:
    """A call of a `mo.Function` over other nodes: its gradients are those that were recorded on the
    nodes of the first time, moved in turn."""

    def __init__(self, call: Any, new: dict[Node, Node]):
        self.call, self.new = call, new

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that its gradients belong to."""
        return tuple(self.new.get(n, n) for n in self.call.inputs)

    def gradients(self, given: dict[int, Node]) -> tuple[Node | None, ...]:
        """The gradients of the inputs from those of the results, by number."""
        places: dict[int, Node] = {k: Placeholder(g.shape, g.dtype, "it") for k, g in given.items()}
        found = self.call.gradients(places)
        moved = {place: given[k] for k, place in places.items()}
        results = iter(substitute([f for f in found if f is not None], self.new | moved))
        return tuple(None if f is None else next(results) for f in found)


def substitute(outputs: Sequence[Node], replace: dict[Node, Node]) -> list[Node]:
    """The outputs with some nodes replaced by others; what depends on none of them is kept."""
    new = dict(replace)
    calls: dict[int, MovedCall] = {}
    saved = recording.site
    try:
        for node in toposort(outputs, lambda n: n in replace, all_inputs):
            if node in new:
                continue
            if any(new[source] is not source for source in all_inputs(node)):
                recording.site = node.site
                if type(node) is Custom and node.call is not None:
                    call = calls.setdefault(id(node.call), MovedCall(node.call, new))
                    new[node] = Custom(new[node.inputs[0]], call, node.number)
                else:
                    new[node] = rebuild(node, tuple(new[source] for source in node.inputs))
                    _keep_rule(node, new[node])
            else:
                new[node] = node
    finally:
        recording.site = saved
    return [new[node] for node in outputs]


def copied(
    outputs: Sequence[Node], replace: dict[Node, Node], extents: Callable[[Any], Any] = lambda e: e
) -> list[Node]:
    """The outputs over other nodes and with other extents, to be computed and not differentiated:
    nothing of the old nodes is kept.

    replace: for all inputs; extents: maps what holds extents.
    """
    new = dict(replace)
    for node in toposort(outputs, replace.__contains__):
        if node not in new:
            new[node] = imported(node, tuple(new[source] for source in node.inputs), extents)
            if new[node] is not node:
                new[node].site = node.site
    return [new[node] for node in outputs]


def _keep_rule(old: Node, new: Node) -> None:
    """An escape keeps its gradient; what stops a gradient goes on doing so."""
    if old.kind == "escape":
        new.gradient = old.gradient  # type: ignore[attr-defined]
    if old.stop:
        new.stop, new.requires_grad = True, False
