"""fuse: from a graph of operators to nests of loops.

Elementwise and reindex nodes are expressions: a consumer substitutes its indices into them.
A place in memory is needed by outputs, reductions, escapes, and expressions too dear to repeat;
a reindex of several pieces fills one buffer box by box.  A reshape of a stored value is a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from metaop import dtype as dt
from metaop.errors import CompilerBug
from metaop.extent import hint
from metaop.graph import (
    OPERATORS,
    Apply,
    Elementwise,
    Escape,
    IndexOf,
    Node,
    Piece,
    RandomBits,
    Reindex,
    ReindexReduce,
    Scalar,
    identity_indices,
    identity_of,
    is_projection,
    size_of,
)
from metaop.index import (
    FALSE,
    TRUE,
    Expr,
    conjunction,
    conjuncts,
    contains,
    flatten,
    identity_range,
    loops_of,
    simplify,
    transform,
    unflatten,
    within,
)

from .layouts import Layouts
from .loops import IndexValue, Load, Op, Value
from .nest import Buffer, CheckSite, Nest, Part, Values
from .rewrite import Graph, Input, is_contraction
from .schedule import adds_in_lanes

LOAD_COST = 2
APPLY_COST = 100  # of a user's function, which most likely has a loop
RANDOM_COST = 16  # 75 integer operations, several of which run side by side
FEW_LAYERS = 2  # results of a contraction for an element of what is made of them
MOST_BASES = 8  # values told apart of those that another is made from
LONGEST_CHAIN = 64  # levels of inlined operators before a value is stored
MOST_WASTE = 16  # operators that an element of several pieces may evaluate for nothing
MOST_SPLITS = 4  # loops of a result that are cut in two


class Dear(NamedTuple):
    """What an element of a value costs if it is stored, to make it once, and if it is not, every
    time it is read.  They differ for one of several pieces: stored, each piece fills its box."""

    once: float
    again: float


@dataclass(eq=False)
class Fused:
    """Nests in an order in which they can run, the buffers, and where each value ended up."""

    nests: list[Nest | Escape]
    place: dict[Node, Buffer]
    buffers: list[Buffer]
    layouts: Layouts
    names: dict[Node, str] = field(default_factory=dict)
    stored: set[Node] = field(default_factory=set)
    dear: set[Node] = field(default_factory=set)  # of these, what is stored to save work
    made: dict[Node, list[Nest]] = field(default_factory=dict)  # the nests of each stored value


def fuse(
    graph: Graph, inlined: frozenset[Node] = frozenset(), earlier: Fused | None = None
) -> Fused:
    """The nests that compute the graph's outputs; `inlined` values are computed where they are read
    though that is more work.

    earlier: the same graph with other values inlined; nests that do not touch these are its own.
    """
    stored, dear = choose_stores(graph, inlined)
    fused = _Builder(graph, stored, earlier).run()
    fused.stored, fused.dear = stored, dear
    return fused


def is_barrier(node: Node) -> bool:
    """True for a value that the user wants in memory."""
    return isinstance(node, Elementwise) and node.op == "barrier"


def reshape_base(node: Node) -> Node:
    """The node whose memory this one can share: what it is a chain of reshapes of."""
    while isinstance(node, Reindex) and _is_reshape(node):
        node = node.inputs[0]
    return node


_reshapes: dict[tuple, bool] = {}


def _is_reshape(node: Reindex) -> bool:
    piece, source = node.pieces[0], node.inputs[0]
    if len(node.pieces) > 1 or len(node.inputs) > 1 or node.size != source.size:
        return False
    if piece.condition != TRUE:
        return False
    key = (piece.indices, node.shape, source.shape)
    known = _reshapes.get(key)
    if known is None:
        offset = simplify(flatten(piece.indices, source.shape), node.shape)
        plain = simplify(flatten(identity_range(len(node.shape)), node.shape), node.shape)
        inside = simplify(within(piece.indices, source.shape), node.shape) == TRUE
        known = _reshapes[key] = offset == plain and inside
        if len(_reshapes) > 10_000:
            _reshapes.clear()
    return known


# ------------------------------------------------------------------------------- what is stored


def choose_stores(
    graph: Graph, inlined: frozenset[Node] = frozenset()
) -> tuple[set[Node], set[Node]]:
    """The nodes that get memory: outputs, reductions, and what is dear and would be repeated; and
    the latter alone."""
    stored = {reshape_base(n) for n in graph.outputs}
    stored |= {n for n in graph.nodes if isinstance(n, ReindexReduce | Escape)}
    stored |= {i for n in graph.nodes if isinstance(n, Escape) for i in map(reshape_base, n.inputs)}
    stored |= {n for n in graph.nodes if is_barrier(n)}
    stored = {n for n in stored if not isinstance(n, Input)}
    stored |= _of_layers(graph)
    stored |= _gathered_factors(graph)
    cost, footprint = _costs(graph, stored)
    evaluations = dict.fromkeys(graph.nodes, 0.0)
    dear: set[Node] = set()
    overwritten: set[Node] = set()  # they become what their parts are assigned to, not a copy of it
    for node in reversed(graph.nodes):
        worth = 2 * int(footprint[node]) >= hint(node.size)  # else store what it is spread from
        if node not in stored and (node in overwritten or worth):
            price = _price(node, cost, stored)
            if node in overwritten or price.again - price.once > MOST_WASTE:
                stored.add(node)
            elif node not in inlined and _too_dear(node, evaluations[node], price):
                stored.add(node)
                dear.add(node)
        if node in stored and _is_pieced(node):
            overwritten |= {source for source in _copied_whole(node) if _is_pieced(source)}
        # the cost of an inlined value holds that of its inputs: they are not dear once more
        once = node in stored or node in inlined
        count = float(node.size) if once else evaluations[node]
        for source, times in _demand(node, count):
            evaluations[source] += times
    return stored, dear


def _of_layers(graph: Graph) -> set[Node]:
    """What makes each of its elements of many results of a contraction, with the operators that
    follow: it is stored, so that the contraction's results need no memory (see `group`)."""
    users: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        for source in dict.fromkeys(node.inputs):
            users.setdefault(source, []).append(node)
    found: set[Node] = set()
    for node in graph.nodes:
        if isinstance(node, Elementwise) and any(_are_layers(i, node.size) for i in node.inputs):
            last: Node | None = node
            while last is not None:
                node, last = last, _all_through(last, users)
            found.add(node)
    return found


def _gathered_factors(graph: Graph) -> set[Node]:
    """What contractions read at integers read from memory: gathered once, not for every product."""
    found: set[Node] = set()
    waiting = [
        factor
        for node in graph.nodes
        if isinstance(node, ReindexReduce) and node.dtype.is_float
        for product in [_summed_product(node)]
        if product is not None
        for factor in product.inputs
    ]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen or not isinstance(node, Elementwise | Reindex):
            continue
        seen.add(node)
        if isinstance(node, Reindex) and len(node.inputs) > 1 and len(node.pieces) == 1:
            if not contains(node.pieces[0].condition, ("read",)):
                found.add(node)
        else:
            waiting += node.inputs
    return found


def _summed_product(node: ReindexReduce) -> Node | None:
    """The product that a contraction sums, None for any other reduction."""
    y, size = node.inputs[0], node.inputs[0].size
    while isinstance(y, Reindex) and len(y.pieces) == 1:
        y = y.inputs[y.pieces[0].source]
    return y if node.op == "add" and is_contraction(y, size) else None


def _all_through(node: Node, users: dict[Node, list[Node]]) -> Node | None:
    """The operator through which all goes that is made of a value, None if there is none."""
    waiting = list(users.get(node, []))
    while len(set(waiting)) > 1:
        first = min(waiting, key=lambda n: n.sequence)
        waiting = [n for n in waiting if n is not first] + users.get(first, [])
        if not isinstance(first, Elementwise) or first not in users:
            return None
    return waiting[0] if waiting and isinstance(waiting[0], Elementwise) else None


def _are_layers(node: Node, size: int) -> bool:
    """True for results of a contraction with many for each of `size` elements."""
    if not isinstance(node, Reindex) or not isinstance(node.inputs[0], ReindexReduce):
        return False
    made = node.inputs[0]
    product = made.inputs[0]
    return is_contraction(product, product.size) and hint(made.size) > FEW_LAYERS * hint(size)


def cheap_again(graph: Graph, fused: Fused, is_cheap: Callable[[Node, Dear], bool]) -> set[Node]:
    """The dear values that are cheap by what an element costs, where what they are made from is
    loaded, or computed again if that is cheap."""
    cost: dict[Node, float] = {}
    stored = set(fused.stored)
    cheap: set[Node] = set()
    for node in graph.nodes:
        inputs = (LOAD_COST if i in stored else cost[i] for i in node.inputs)
        cost[node] = min(_own_cost(node) + sum(inputs), 1e9)
        if node in fused.dear and is_cheap(node, _price(node, cost, stored)):
            cheap.add(node)
            stored.discard(node)
    return cheap


def memory_cost(nbytes: int, reads: float) -> float:
    """What it costs to write an element to memory (twice what a read does) and to read it so many
    times, in simple instructions."""
    size = int(nbytes)
    one = 5.0 if size <= 1 << 18 else 16.0 if size <= 1 << 24 else 25.0
    return (2 + reads) * one


def _costs(graph: Graph, stored: set[Node]) -> tuple[dict[Node, float], dict[Node, float]]:
    """Per node the cost of evaluating one element inline, and its footprint: the elements that it
    is made from, less than its size if it only spreads them out.

    A chain of inlined operators that reaches the bound is cut by storing its last node; but what is
    larger than all that it is made from, as a product that is summed at once, is not stored for
    that: what it is made from is.
    """
    cost: dict[Node, float] = {}
    chain: dict[Node, int] = {}
    footprint: dict[Node, float] = {}
    made_from: dict[Node, dict[Node, int]] = {}
    for node in graph.nodes:
        inputs = [(0.0, 0) if i in stored else (cost[i], chain[i]) for i in node.inputs]
        inputs = [(LOAD_COST, 0) if i in stored else p for i, p in zip(node.inputs, inputs)]
        cost[node] = min(_own_cost(node) + sum(c for c, _ in inputs), 1e9)
        chain[node] = (0 if isinstance(node, Reindex) else 1) + max(
            (n for _, n in inputs), default=0
        )
        made_from[node] = _made_from(node, made_from, stored)
        footprint[node] = sum(made_from[node].values())
        if chain[node] > LONGEST_CHAIN and isinstance(node, Elementwise):
            spread = hint(node.size) > footprint[node]
            if not spread or chain[node] > 2 * LONGEST_CHAIN:
                stored.add(node)
                chain[node] = 0
                footprint[node] = hint(node.size)
                made_from[node] = {node: hint(node.size)}
    return cost, footprint


def _own_cost(node: Node) -> float:
    """Of one element, with what it is made from at hand."""
    match node:
        case Input():
            return LOAD_COST if node.shape else 0
        case Apply():
            return APPLY_COST
        case Elementwise():
            return OPERATORS[node.op].cost if node.op in OPERATORS else 1
        case RandomBits():
            return RANDOM_COST
        case Reindex():
            return len(node.pieces) - 1
    return 0


def _made_from(
    node: Node, made_from: dict[Node, dict[Node, int]], stored: set[Node]
) -> dict[Node, int]:
    """What a value is made from, with how many elements of it; itself if that is much."""
    if isinstance(node, Input | RandomBits) or node in stored:
        return {node: hint(node.size)}
    found: dict[Node, int] = {}
    if isinstance(node, Reindex):
        for source in dict.fromkeys(node.inputs[piece.source] for piece in node.pieces):
            bases, most = made_from[source], hint(source.size)
            found |= bases if sum(bases.values()) <= most else {source: most}
    else:
        for source in dict.fromkeys(node.inputs):
            found |= made_from[source]
    return found if len(found) <= MOST_BASES else {node: sum(found.values())}


def _price(node: Node, cost: dict[Node, float], stored: set[Node]) -> Dear:
    """What an element of a value costs, stored and not, where `stored` is what it can read."""
    again = cost[node] - LOAD_COST
    if not _is_pieced(node):
        return Dear(again, again)
    sources = (node.inputs[piece.source] for piece in node.pieces)
    each = (LOAD_COST if source in stored else cost[source] for source in sources)
    once = sum(c * share for c, share in zip(each, _shares(node)))
    return Dear(once - LOAD_COST, again)


def _too_dear(node: Node, evaluations: float, price: Dear) -> bool:
    """True if writing a value once and reading it costs less than computing it again."""
    if not isinstance(node, Elementwise | Reindex | RandomBits) or not node.size:
        return False
    repeats = evaluations / node.size
    if repeats <= 1.5 and price.once == price.again:
        return False
    return price.again * repeats - price.once > 6 + LOAD_COST * repeats


def _demand(node: Node, count: float) -> list[tuple[Node, float]]:
    """How often each input is evaluated when the node is evaluated `count` times."""
    if isinstance(node, ReindexReduce):
        return [(i, float(node.inputs[0].size)) for i in node.inputs]
    if not isinstance(node, Reindex) or not node.size:
        return [(i, count) for i in node.inputs]
    demand = [(i, count) for i in node.inputs[len(node.pieces) :]]
    for piece, share in zip(node.pieces, _shares(node)):
        loops = set().union(*map(loops_of, piece.indices)) if piece.indices else set()
        inner = size_of(node.shape[max(loops) + 1 :]) if loops else node.size
        demand.append((node.inputs[piece.source], count * share / inner))
    return demand


def _shares(node: Reindex) -> list[float]:
    """The part of a value that each of its pieces makes."""
    boxes = _boxes(node)
    if boxes is None or not node.size:
        return [1 / len(node.pieces)] * len(node.pieces)
    return [_box_size(box) / node.size for box in boxes]


# --------------------------------------------------------------------- several pieces, box by box

Box = list[tuple[int, int]]


def _box_size(box: Box) -> int:
    return size_of(max(high - low, 0) for low, high in box)


def _is_pieced(node: Node) -> TypeGuard[Reindex]:
    """True for a value that, stored, is filled box by box."""
    return isinstance(node, Reindex) and _boxes(node) is not None


def _copied_whole(node: Reindex) -> Iterator[Node]:
    """What a reindex of several pieces is, where its other pieces do not overwrite it."""
    for piece in node.pieces:
        source = node.inputs[piece.source]
        if source.shape == node.shape and piece.indices == identity_indices(len(node.shape)):
            yield source


def _boxes(node: Reindex) -> list[Box] | None:
    """The box of indices on which each piece's condition holds, or None if one is no box."""
    if len(node.pieces) < 2:
        return None
    boxes = []
    for piece in node.pieces:
        box = _box(piece.condition, node.shape)
        if box is None:
            return None
        boxes.append(box)
    return boxes


def _box(condition: Expr, shape: tuple[int, ...]) -> Box | None:
    bounds = [[0, n] for n in shape]
    for part in conjuncts(simplify(condition, shape)):
        match part:
            case ("le", int() as low, ("i", k)):
                bounds[k][0] = max(bounds[k][0], low)
            case ("lt", int() as low, ("i", k)):
                bounds[k][0] = max(bounds[k][0], low + 1)
            case ("lt", ("i", k), int() as high):
                bounds[k][1] = min(bounds[k][1], high)
            case ("le", ("i", k), int() as high):
                bounds[k][1] = min(bounds[k][1], high + 1)
            case ("eq", ("i", k), int() as at) | ("eq", int() as at, ("i", k)):
                bounds[k] = [max(bounds[k][0], at), min(bounds[k][1], at + 1)]
            case _:
                return None
    return [(low, high) for low, high in bounds]


# -------------------------------------------------------------------------------------- building


class Lowering:
    """Turns nodes into values by substituting indices, within one nest."""

    def __init__(self, place: dict[Node, Buffer], extents: list[int]):
        self.place = place
        self.extents = extents
        self.values = Values(extents)
        self.nodes: list[Node] = []
        self.reads_at: list[tuple[str, tuple[Expr, ...]]] = []
        self._memo: dict[tuple, Value] = {}

    def value(self, node: Node, indices: tuple[Expr, ...], guard: Expr) -> Value:
        """Element `indices` of a node, needed only where the guard holds."""
        key = (node, indices, guard)
        known = self._memo.get(key)
        if known is None:
            known = self._memo[key] = self._lower(node, indices, guard)
        return known

    def _lower(self, node: Node, indices: tuple[Expr, ...], guard: Expr) -> Value:
        buffer = self.place.get(node)
        if buffer is not None:
            offset = simplify(flatten(indices, node.shape), self.extents)
            self.reads_at.append((buffer.name, self._at_base(node, buffer, indices, offset)))
            if guard != TRUE and simplify(within(indices, node.shape), self.extents) == TRUE:
                guard = TRUE  # nothing can go wrong by reading it anyway
            return self.values.load(buffer, offset, guard)
        self.nodes.append(node)
        match node:
            case Scalar():
                return self.values.const(node.value, node.dtype)
            case IndexOf():
                return self.values.index(simplify(indices[node.axis], self.extents))
            case RandomBits():
                return self._random_bits(node, indices, guard)
            case Elementwise():
                return self._elementwise(node, indices, guard)
            case Reindex():
                return self._reindex(node, indices, guard)
        raise CompilerBug(f"{node!r} has no place in memory")

    def _at_base(
        self, node: Node, buffer: Buffer, indices: tuple[Expr, ...], offset: Expr
    ) -> tuple[Expr, ...]:
        """The indices of an element in the array whose memory a reshaped one shares."""
        if node.shape == buffer.shape:
            return tuple(simplify(e, self.extents) for e in indices)
        return tuple(simplify(e, self.extents) for e in unflatten(offset, buffer.shape))

    def _elementwise(self, node: Elementwise, indices: tuple[Expr, ...], guard: Expr) -> Value:
        args = tuple(self.value(i, indices, guard) for i in node.inputs)
        compute = node.dtype.compute
        if node.op in ("floordiv", "mod", "truncdiv", "truncmod") and node.dtype.is_integer:
            args = (args[0], self.values.check(args[1], CheckSite(node, 0, 0), guard))
        if node.op == "bitcast":
            return self._bitcast(node, args[0])
        if isinstance(node, Apply):
            site = CheckSite(node, 0, 0)
            result = self.values.apply(node.function, args, compute, site, guard)
        elif node.op == "cast":
            result = args[0]
            if args[0].dtype is not compute:
                result = self.values.op("cast", args, compute)
        else:
            result = self.values.op(node.op, args, compute)
        if compute is not node.dtype:  # a 16-bit float is rounded after every operator
            result = self.values.op("cast", (result,), node.dtype)
            result = self.values.op("cast", (result,), compute)
        return result

    def _bitcast(self, node: Elementwise, value: Value) -> Value:
        """The bits as they lie in memory, where a 16-bit float is one."""
        stored = node.inputs[0].dtype
        if value.dtype is not stored:
            value = self.values.op("cast", (value,), stored)
        value = self.values.op("bitcast", (value,), node.dtype)
        compute = node.dtype.compute
        return value if compute is node.dtype else self.values.op("cast", (value,), compute)

    def _random_bits(self, node: RandomBits, indices: tuple[Expr, ...], guard: Expr) -> Value:
        key, call = node.inputs
        counter = self.values.index(simplify(flatten(indices, node.shape), self.extents))
        word = self.values.op("cast", (counter,), dt.uint32)
        keys = tuple(self.value(key, (k,), guard) for k in (0, 1))
        return self.values.op("threefry", (*keys, word, self.value(call, (), guard)), dt.uint32)

    def resolve(self, node: Node, expr: Expr, indices: tuple[Expr, ...], guard: Expr) -> Expr:
        """An index expression of a node in terms of this nest's loops, reads made values."""

        def leaf(e: Expr) -> Expr | None:
            if isinstance(e, tuple) and e[0] == "i":
                return indices[e[1]]
            if isinstance(e, tuple) and e[0] == "read":
                return self._read(node, e, indices, guard)
            return None

        return simplify(transform(expr, leaf), self.extents)

    def _read(self, node: Node, read: Expr, indices: tuple[Expr, ...], guard: Expr) -> Expr:
        _, source, position, bounds = read
        at = tuple(self.resolve(node, p, indices, guard) for p in position)
        array = node.inputs[source]
        inside = simplify(within(at, array.shape), self.extents)
        value = self.value(array, at, conjunction(guard, inside))
        if isinstance(value, IndexValue) and self._is_in(value.expr, bounds):
            return value.expr  # what is computed from an arange
        if value.dtype is not dt.int64:
            value = self.values.op("cast", (value,), dt.int64)
        if bounds is not None:
            value = self.values.check(value, CheckSite(node, *bounds), guard)
        return self.values.name(value, bounds)

    def _is_in(self, e: Expr, bounds: tuple[int, int] | None) -> bool:
        if bounds is None:
            return True
        low, high = bounds
        return simplify(conjunction(("le", low, e), ("lt", e, high)), self.extents) == TRUE

    def _reindex(self, node: Reindex, indices: tuple[Expr, ...], guard: Expr) -> Value:
        result = None
        for piece in reversed(self._live(node, indices, guard)):
            result = self._piece(node, piece, indices, guard, result)
        return self.values.const(node.fill, node.dtype) if result is None else result

    def _live(self, node: Reindex, indices: tuple[Expr, ...], guard: Expr) -> list[Piece]:
        """The pieces that some index reads: of a part of a concat only those that lie in it."""
        live: list[Piece] = []
        for piece in node.pieces:
            condition = self.resolve(node, piece.condition, indices, guard)
            if condition != FALSE:
                live.append(piece)
            if condition == TRUE:
                break
        return live

    def _piece(
        self,
        node: Reindex,
        piece: Piece,
        indices: tuple[Expr, ...],
        guard: Expr,
        other: Value | None,
    ) -> Value:
        source = node.inputs[piece.source]
        condition = self.resolve(node, piece.condition, indices, guard)
        inner_guard = conjunction(guard, condition)
        at = tuple(self.resolve(node, e, indices, inner_guard) for e in piece.indices)
        inside = simplify(within(at, source.shape), self.extents)
        fill = self.values.const(node.fill, node.dtype)
        if 0 in source.shape:
            value = fill
        else:
            # Where the piece does not hold its value is not used, unless it is the last one.
            valid = inside if other is not None else conjunction(condition, inside)
            value = self._filled(source, at, guard, inner_guard, valid, node.fill, fill)
        if other is None or condition == TRUE:
            return value
        test = self.values.condition(condition)
        return self.values.op("where", (test, value, other), value.dtype)

    def _filled(
        self,
        source: Node,
        at: tuple[Expr, ...],
        guard: Expr,
        inner_guard: Expr,
        valid: Expr,
        number: float,
        fill: Value,
    ) -> Value:
        """source[at] where valid, else fill; a plain load carries the fill itself."""
        needed = conjunction(inner_guard, valid)
        value = self.value(source, at, needed)
        if valid == TRUE:
            return value
        if isinstance(value, Load) and source in self.place:
            buffer = self.values.buffers[value.buffer]
            return self.values.load(buffer, value.offset, needed, number)
        if isinstance(value, Load) and value.guard != TRUE and repr(value.fill) == repr(number):
            return value  # below is another reindex, whose guard contains this one
        return self.values.op("where", (self.values.condition(valid), value, fill), value.dtype)


class _Builder:
    """Makes the nests of a graph, one stored node after the other."""

    def __init__(self, graph: Graph, stored: set[Node], earlier: Fused | None = None):
        self.graph, self.stored = graph, stored
        self.place: dict[Node, Buffer] = {}
        self.buffers: dict[str, Buffer] = {}
        self.nests: list[Nest | Escape] = []
        self.names = graph.names
        self.layouts = Layouts(graph) if earlier is None else earlier.layouts
        self.reduced: dict[str, tuple[Part, ...]] = {}  # the loops of reductions by their buffers
        self.made: dict[Node, list[Nest]] = {}
        self.earlier = {} if earlier is None else earlier.made
        # what is stored now and was not then, or the other way round, and sums over other loops
        self.changed = set() if earlier is None else stored ^ earlier.stored
        self.changed_names = {self.names[node] for node in self.changed}

    def run(self) -> Fused:
        for given in self.graph.inputs:
            self._new_buffer(given, "in", given.position)
        for node in self.graph.nodes:
            if isinstance(node, Input):
                continue
            if node in self.stored:
                self._store(node)
            elif isinstance(node, Reindex) and reshape_base(node) in self.place:
                self.place[node] = self.place[reshape_base(node)]
        for node in self.graph.outputs:
            buffer = self.place[node] = self.place[reshape_base(node)]
            if buffer.role == "tmp":
                buffer.role = "out"
        return Fused(
            self.nests, self.place, list(self.buffers.values()), self.layouts, self.names,
            made=self.made,
        )  # fmt: skip

    def _new_buffer(self, node: Node, role: str, position: int = -1) -> Buffer:
        buffer = Buffer(self.names[node], node.dtype, node.size, role, position, node.shape)
        self.place[node] = self.buffers[buffer.name] = buffer
        return buffer

    def _store(self, node: Node) -> None:
        if isinstance(node, Escape):
            self._new_buffer(node, "out")
            self.nests.append(node)
            return
        nests = self.made[node] = self._again(node) or self._nests(node)
        buffer = self._new_buffer(node, "tmp")
        if isinstance(node, ReindexReduce):
            self._note_parts(node, nests[-1].parts or ())
        for nest in nests:
            nest.target, nest.piece = buffer, len(nests) > 1
        self.nests.extend(n for n in nests if n.iterations)

    def _again(self, node: Node) -> list[Nest] | None:
        """The earlier nests of a value over the buffers of now, None if they would differ."""
        earlier = self.earlier.get(node)
        if earlier is None or not all(map(self._is_same, earlier)):
            return None
        return [
            nest.having(buffers={name: self.buffers[name] for name in nest.buffers})
            for nest in earlier
        ]

    def _is_same(self, nest: Nest) -> bool:
        """True for an earlier nest of which nothing that it computes or reads has changed."""
        inside = self.changed.isdisjoint(nest.nodes[:-1])
        return inside and self.changed_names.isdisjoint(nest.buffers)

    def _note_parts(self, node: Node, parts: tuple[Part, ...]) -> None:
        """Notes the loops of a reduction, which those of what reads it follow."""
        name, earlier = self.names[node], self.earlier.get(node)
        self.reduced[name] = parts
        if earlier is not None and (earlier[-1].parts or ()) != parts:
            self.changed_names.add(name)

    def _nests(self, node: Node) -> list[Nest]:
        if isinstance(node, ReindexReduce):
            if 0 in node.inputs[0].shape:
                return [self._constant(node, identity_of(node.op, node.dtype))]
            return [self._reduction(node)] if is_projection(node) else self._scatter(node)
        boxes = _boxes(node) if isinstance(node, Reindex) else None
        if boxes is None:
            return [self._map(node)]
        assert isinstance(node, Reindex)
        return self._pieces(node, boxes)

    def _finish(self, node: Node, lowering: Lowering, **fields: object) -> Nest:
        values = lowering.values
        return Nest(
            target=None,  # type: ignore[arg-type]
            named=values.named,
            buffers=values.buffers,
            checks=values.checks,
            nodes=[n for n in lowering.nodes if n is not node] + [node],
            reads_at=lowering.reads_at,
            **fields,  # type: ignore[arg-type]
        )

    def _constant(self, node: Node, number: float) -> Nest:
        extents = [node.size]
        lowering = Lowering(self.place, extents)
        value = self._stored(lowering, lowering.values.const(number, node.dtype), node)
        return self._finish(node, lowering, extents=extents, rank=1, value=value, offset=("i", 0))

    @staticmethod
    def _stored(lowering: Lowering, value: Value, node: Node) -> Value:
        """The value in the dtype that is stored."""
        if value.dtype is node.dtype:
            return value
        if isinstance(value, Op) and value.name == "cast" and value.args[0].dtype is node.dtype:
            return value.args[0]
        return lowering.values.op("cast", (value,), node.dtype)

    def _map(self, node: Node) -> Nest:
        return self._over_parts(self._map_over, node, node.shape)

    def _reduction(self, node: ReindexReduce) -> Nest:
        """Loops of the result first, in order, then the reduced ones."""
        return self._over_parts(self._reduction_over, node, node.shape)

    def _over_parts(
        self, build: Callable[[Any, Sequence[Part]], Nest], node: Node, shape: tuple[int, ...]
    ) -> Nest:
        """The nest over the dimensions of the result, or over parts of them where a reduction is
        read at i // k: so what is read and what reads it can share loops."""
        parts = [Part(d, 1, n) for d, n in enumerate(shape)]
        nest = build(node, parts)
        for _ in range(MOST_SPLITS):
            cut = None if nest.contraction else self._cut(nest)
            if cut is None:  # a contraction shares no loops with what it reads
                break
            at, k = cut
            dim, divisor, n, _ = parts[at]
            parts[at : at + 1] = [Part(dim, divisor * k, n // k), Part(dim, divisor, k)]
            nest = build(node, parts)
        nest.parts = tuple(parts)
        nest.lanes = adds_in_lanes(nest)
        return nest

    def _cut(self, nest: Nest) -> tuple[int, int] | None:
        """A loop of the result and the divisor by which the index of a reduction's result divides
        it, or the reduction's loops do."""
        for name, at in nest.reads_at:
            divided = [d for e in at for d in _divisions(e)] if name in self.reduced else []
            for dim, divisor, *_ in self.reduced.get(name, ()):
                if divisor != 1 and dim < len(at) and _is_loop(at[dim]):
                    divided.append((at[dim][1], divisor))
            for loop, k in divided:
                if loop < nest.rank and nest.extents[loop] % k == 0 and 1 < k < nest.extents[loop]:
                    return loop, k
        return None

    def _map_over(self, node: Node, parts: Sequence[Part]) -> Nest:
        extents = [part.modulus for part in parts]
        lowering = Lowering(self.place, extents)
        indices = _joined(parts, len(node.shape))
        value = self._stored(lowering, lowering.value(node, indices, TRUE), node)
        offset = simplify(flatten(indices, node.shape), extents)
        return self._finish(
            node, lowering, extents=extents, rank=len(extents), value=value, offset=offset
        )

    def _reduction_over(self, node: ReindexReduce, parts: Sequence[Part]) -> Nest:
        y = node.inputs[0]
        kept = [e[1] for e in node.indices]
        reduced = [k for k in range(len(y.shape)) if k not in kept and y.shape[k] != 1]
        extents = [part.modulus for part in parts] + [y.shape[k] for k in reduced]
        at_result = _joined(parts, len(kept))
        indices: list[Expr] = [0] * len(y.shape)
        for k, e in zip(kept, at_result):
            indices[k] = e
        for position, k in enumerate(reduced, start=len(parts)):
            indices[k] = ("i", position)
        lowering = Lowering(self.place, extents)
        inner, at, guard = self._unguarded(lowering, node, y, tuple(indices))
        value = lowering.value(inner, at, guard)
        offset = simplify(flatten(at_result, node.shape), extents)
        if not reduced and guard == TRUE:  # a sum of one term
            value = self._stored(lowering, value, node)
            return self._finish(
                node, lowering, extents=extents, rank=len(parts), value=value, offset=offset
            )
        nest = self._finish(
            node, lowering, extents=extents, rank=len(parts), value=value, offset=offset,
            op=node.op,
            contraction=node.op == "add" and node.dtype.is_float and is_contraction(inner, y.size),
        )  # fmt: skip
        nest.guard = guard
        if node.dtype.is_float:  # else every order gives the same
            if nest.contraction:
                nest.order = tuple(self.layouts.access(f, at, extents) for f in inner.inputs)
            else:
                operand = (y, tuple(indices)) if reduced else (inner, at)
                nest.order = self.layouts.accesses(*operand, extents)
        return nest

    def _unguarded(
        self, lowering: Lowering, node: ReindexReduce, y: Node, indices: tuple[Expr, ...]
    ) -> tuple[Node, tuple[Expr, ...], Expr]:
        """What is reduced, below reindexes that fill with the identity: where they fill, the
        reduction has nothing to do."""
        guard: Expr = TRUE
        identity = identity_of(node.op, node.dtype)
        while isinstance(y, Reindex) and y not in self.place and len(y.pieces) == 1:
            piece = y.pieces[0]
            source = y.inputs[piece.source]
            if y.fill != identity or 0 in source.shape:
                break
            lowering.nodes.append(y)
            condition = lowering.resolve(y, piece.condition, indices, guard)
            inner = conjunction(guard, condition)
            at = tuple(lowering.resolve(y, e, indices, inner) for e in piece.indices)
            guard = conjunction(inner, simplify(within(at, source.shape), lowering.extents))
            y, indices = source, at
        return y, indices, guard

    def _scatter(self, node: ReindexReduce) -> list[Nest]:
        """Identity everywhere, then every element combined in order; only loops that are a
        dimension of the result by themselves may run in parallel."""
        y = node.inputs[0]
        extents = list(y.shape)
        lowering = Lowering(self.place, extents)
        indices = identity_range(len(extents))
        at = tuple(lowering.resolve(node, e, indices, TRUE) for e in node.indices)
        condition = lowering.resolve(node, node.condition, indices, TRUE)
        guard = conjunction(condition, simplify(within(at, node.shape), extents))
        value = self._stored(lowering, lowering.value(y, indices, guard), node)
        offset = simplify(flatten(at, node.shape), extents)
        plain = {e[1] for e in at if isinstance(e, tuple) and e[0] == "i"}
        nest = self._finish(
            node, lowering, extents=extents, rank=len(extents), value=value, offset=offset,
            op=node.op, scatter=True, parallel=tuple(sorted(plain)),
        )  # fmt: skip
        nest.guard = guard
        return [self._constant(node, identity_of(node.op, node.dtype)), nest]

    def _pieces(self, node: Reindex, boxes: list[Box]) -> list[Nest]:
        """The last piece first, so that earlier ones overwrite it where they overlap."""
        nests = []
        if not _covers(boxes, node.shape):
            nests.append(self._constant(node, node.fill))
        for piece, box in reversed(list(zip(node.pieces, boxes))):
            extents = [max(high - low, 0) for low, high in box]
            lowering = Lowering(self.place, extents)
            at = tuple(
                ("add", ("i", k), low) if low else ("i", k) for k, (low, _) in enumerate(box)
            )
            at = tuple(simplify(e, extents) for e in at)
            plain = Piece(piece.source, piece.indices, TRUE)
            value = lowering._piece(node, plain, at, TRUE, None)
            value = self._stored(lowering, value, node)
            offset = simplify(flatten(at, node.shape), extents)
            nest = self._finish(
                node, lowering, extents=extents, rank=len(extents), value=value, offset=offset
            )
            nest.parts = tuple(Part(k, 1, n, box[k][0]) for k, n in enumerate(extents))
            nests.append(nest)
        return nests


def _is_loop(e: Expr) -> bool:
    return isinstance(e, tuple) and e[0] == "i"


def _divisions(e: Expr) -> Iterator[tuple[int, int]]:
    """The terms i // k of an index expression, as loop and divisor."""
    match e:
        case ("floordiv", ("i", loop), int() as k):
            yield loop, k
        case ("add", a, b):
            yield from _divisions(a)
            yield from _divisions(b)
        case ("mul", a, int()):
            yield from _divisions(a)


def _joined(parts: Sequence[Part], rank: int) -> tuple[Expr, ...]:
    """The index of every dimension of the result from the loops over its parts."""
    indices: list[Expr] = [0] * rank
    for loop, (dim, divisor, *_) in enumerate(parts):
        index: Expr = ("i", loop)
        index = ("mul", index, divisor) if divisor != 1 else index
        indices[dim] = index if indices[dim] == 0 else ("add", indices[dim], index)
    return tuple(indices)


def _covers(boxes: list[Box], shape: tuple[int, ...]) -> bool:
    """True if the boxes surely fill the shape: one of them is everything, or they are disjoint
    and their sizes add up."""
    sizes = list(map(_box_size, boxes))
    if size_of(shape) in sizes:
        return True
    disjoint = all(
        any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one, two))
        for k, one in enumerate(boxes)
        for two in boxes[:k]
    )
    return disjoint and sum(sizes) == size_of(shape)
