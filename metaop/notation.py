"""Meta-operators as users write them, in three notations that make the same nodes.

x.reindex((n, oh, ow, kh, kw), lambda n, i, j, r, s: (n, i + r, j + s))        # Python
x.reindex([n, oh, ow, kh, kw], ["i0", "i1+i3", "i2+i4"])                        # Jittor
n, i, j, r, s = mo.axes(N, OH, OW, KH, KW);  x[n, i + r, j + s]                 # index notation
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from . import dtype as dt
from . import elementwise as el
from .build import broadcast_shapes, broadcast_to, cast
from .errors import DTypeError, IndexExpressionError, ShapeError, describe
from .extent import keep_origin
from .graph import REDUCTIONS, Node, Piece, Reindex, ReindexReduce, Shape
from .index import (
    TRUE,
    Expr,
    Index,
    as_index,
    as_integer,
    as_truth,
    children,
    interval,
    show,
    transform,
    undecided,
)
from .jittor_strings import parse
from .movement import shape_of
from .var import Var, node_of

# ------------------------------------------------------------------------------ index functions


class _Reads:
    """The integer Vars that an index expression reads: inputs after the first."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def number(self, node: Node) -> int:
        if node.dtype.is_float:
            raise DTypeError(f"an index must be an integer, got {describe(node)}")
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node) + 1


def _expressions(
    operation: str,
    index: Any,
    loops: Shape,
    wanted: int,
    extras: Sequence[Any],
    names: dict[str, int],
    reads: _Reads,
) -> tuple[Expr, ...]:
    """The `wanted` expressions over the loops that a lambda or a list of strings gives."""
    if callable(index):
        given = _call(operation, index, len(loops))
    else:
        listed = [index] if isinstance(index, str | Index | int) else list(index)
        given = [Index(parse(e, len(loops), names)) if isinstance(e, str) else e for e in listed]
    if len(given) != wanted:
        raise IndexExpressionError(
            f"{operation}: {wanted} index expressions are needed, {len(given)} were given"
        )
    return tuple(as_integer(_resolve(operation, e, loops, extras, reads)) for e in given)


def _call(operation: str, index: Callable[..., Any], rank: int) -> list[Any]:
    try:
        result = index(*[Index(("i", k)) for k in range(rank)])
    except TypeError:
        _check_arity(operation, index, rank)
        raise
    return list(result) if isinstance(result, tuple | list) else [result]


def _check_arity(operation: str, index: Callable[..., Any], rank: int) -> None:
    """Raises IndexExpressionError if the function cannot take as many indices as there are."""
    try:
        signature = inspect.signature(index)
        signature.bind(*range(rank))
    except TypeError:
        raise IndexExpressionError(
            f"{operation}: the index function takes {len(signature.parameters)} indices, but there "
            f"are {rank} loops"
        ) from None
    except ValueError:
        pass


def _resolve(
    operation: str, given: Any, loops: Shape, extras: Sequence[Any], reads: _Reads
) -> Expr:
    """One expression; a Var of at most as many axes as loops is read at the first loops."""
    rank = len(loops)
    if isinstance(given, Var):
        given = _whole_read(given, rank)
    expr = as_index(given, operation)

    def leaf(e: Expr) -> Expr | None:
        if isinstance(e, tuple) and e[0] == "axis":
            raise IndexExpressionError(
                f"{operation}: {e[1]!r} is an axis of index notation: write x[…] with it, "
                "or use the function's own indices"
            )
        if isinstance(e, tuple) and e[0] == "i" and e[1] >= rank:
            raise IndexExpressionError(
                f"{operation}: i{e[1]} does not exist, there are {rank} loops"
            )
        if not (isinstance(e, tuple) and e[0] == "read"):
            return None
        source = e[1]
        if isinstance(source, int):
            if source >= len(extras):
                raise IndexExpressionError(f"{operation}: @e{source} needs extras[{source}]")
            source = node_of(extras[source])
        if len(e[2]) != len(source.shape):
            raise IndexExpressionError(
                f"{operation}: {describe(source)} is read with {len(e[2])} indices"
            )
        at = tuple(transform(p, leaf) for p in e[2])
        return ("read", reads.number(source), at, e[3])

    resolved = transform(expr, leaf)
    _check_divisors(operation, resolved, loops)
    return resolved


def _check_divisors(operation: str, e: Expr, loops: Shape) -> None:
    """Raises IndexExpressionError unless every divisor in e is positive wherever it is used."""
    for part in children(e):
        _check_divisors(operation, part, loops)
    if isinstance(e, tuple) and e[0] in ("floordiv", "mod", "div", "rem"):
        low, _ = interval(e[2], loops)
        if low < 1:
            raise IndexExpressionError(
                f"{operation}: the divisor of {show(e)} must be positive, but may be "
                f"{'anything' if low < -(1 << 60) else low}; write max(divisor, 1)"
            )


def _whole_read(var: Var, rank: int) -> Index:
    if var.ndim > rank:
        raise IndexExpressionError(f"an index Var of {var.ndim} axes among {rank} loops")
    return Index(("read", var._node, tuple(("i", k) for k in range(var.ndim)), None))


def _condition(
    operation: str,
    where: Any,
    loops: Shape,
    extras: Sequence[Any],
    names: dict[str, int],
    reads: _Reads,
) -> Expr:
    if where is None:
        return TRUE
    if callable(where):
        where = _call(operation, where, len(loops))[0]
    elif isinstance(where, str):
        where = Index(parse(where, len(loops), names))
    return as_truth(_resolve(operation, where, loops, extras, reads))


def _extent_names(x: Node, shape: Shape) -> dict[str, int]:
    names = {f"xshape{k}": n for k, n in enumerate(x.shape)}
    return names | {f"oshape{k}": n for k, n in enumerate(shape)}


def reindex(
    x: Any,
    shape: Any,
    index: Any = None,
    fill: float = 0,
    where: Any = None,
    extras: Sequence[Any] = (),
    *,
    overflow_value: float | None = None,
    overflow_conditions: Sequence[str] = (),
) -> Var:
    """out[i] = x[index(i)] if that lies inside x and where(i) holds, else fill.

    shape: of the result.  index: a function of the loop indices returning one index per axis of
    x, or a list of strings in Jittor's notation; an integer Var inside is read at the loop
    indices (its mode is fill: a number outside x reads fill).  where: a condition on the indices.
    extras: Vars that strings read as @e0(…), @e1(…).  overflow_value and overflow_conditions are
    Jittor's names of fill and of the negated where, for which strings may stand in its place, too.
    x.reindex([a, b, …]) reads x[a[i], b[i], …] at the integers of Vars, which broadcast: their
    shape is that of the result.

        for i in np.ndindex(*shape):
            at = index(*i)
            out[i] = x[at] if inside(at, x.shape) and where(*i) else fill

    Gradient: a reindex_reduce(add) with the same index.
    """
    node = node_of(x)
    if index is None:
        shape, index = _at_vars(shape)
    where, overflow_conditions = _jittors_conditions(where, overflow_conditions)
    target = _checked_shape("reindex", shape)
    reads, names = _Reads(), _extent_names(node, target)
    expressions = _expressions("reindex", index, target, len(node.shape), extras, names, reads)
    condition = _condition("reindex", where, target, extras, names, reads)
    for text in overflow_conditions:
        outside = _condition("reindex", text, target, extras, names, reads)
        condition = ("not", outside) if condition == TRUE else ("and", condition, ("not", outside))
    number = fill if overflow_value is None else overflow_value
    _check_fill(number, node)
    piece = Piece(0, expressions, condition)
    return Var._of(Reindex(target, (piece,), node, *reads.nodes, fill=number))


def _at_vars(places: Any) -> tuple[Any, Any]:
    """The shape and the index function of `x.reindex([a, b, …])`."""
    if not isinstance(places, list | tuple) or not any(isinstance(p, Var) for p in places):
        raise IndexExpressionError("reindex(x, shape, index): the index is missing")
    nodes = [cast(node_of(p), dt.int64) for p in places]
    try:
        shape = broadcast_shapes(*(n.shape for n in nodes))
    except ValueError:
        kinds = ", ".join(describe(n) for n in nodes)
        raise ShapeError(f"reindex(x, [a, b, …]): {kinds} do not broadcast") from None
    spread = [Var._of(broadcast_to(n, shape)) for n in nodes]
    return shape, lambda *loops: tuple(index_read(v, loops) for v in spread)


def _jittors_conditions(where: Any, overflow: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Strings in the place of `where` are Jittor's overflow conditions: outside where one holds."""
    if isinstance(where, list | tuple) and all(isinstance(w, str) for w in where):
        return None, [*where, *overflow]
    return where, overflow


def _check_fill(fill: Any, node: Node) -> None:
    if not isinstance(fill, bool | int | float):
        raise DTypeError(f"reindex: fill must be a number, got {fill!r}")
    if isinstance(fill, float) and not node.dtype.is_float and not float(fill).is_integer():
        raise DTypeError(f"reindex: fill {fill} does not fit {describe(node)}")


def _checked_shape(operation: str, shape: Any) -> Shape:
    target = shape_of((shape,))
    if any(n < 0 for n in target):
        raise ShapeError(f"{operation}: extents must not be negative, got {target}")
    return target


_REDUCTION_NAMES = {"sum": "add", "mul": "multiply", "max": "maximum", "min": "minimum",
                    "and": "logical_and", "or": "logical_or",
                    **{op: op for op in REDUCTIONS}}  # fmt: skip


def reindex_reduce(
    x: Any,
    op: str,
    shape: Any,
    index: Any,
    where: Any = None,
    extras: Sequence[Any] = (),
    *,
    overflow_conditions: Sequence[str] = (),
) -> Var:
    """out = identity; for every i of x: out[index(i)] op= x[i], skipped outside out.

    op: add, multiply, minimum, maximum, logical_and/or, bitwise_and/or/xor.  shape: of the result.
    index, where, extras: as in `reindex`, over the loops of x.

    Gradient: add: a reindex; minimum, maximum: shared among equal elements; multiply: the product
    of the others.
    """
    node = node_of(x)
    if op not in _REDUCTION_NAMES:
        raise ValueError(f"reindex_reduce: op must be one of {', '.join(REDUCTIONS)}, not {op!r}")
    name = _REDUCTION_NAMES[op]
    if name.startswith("logical"):
        node = cast(node, dt.bool_)
    if name.startswith("bitwise") and node.dtype.is_float:
        raise DTypeError(f"reindex_reduce {name}: not defined for {describe(node)}")
    if node.dtype is dt.bool_ and name in ("add", "multiply"):
        node = cast(node, dt.int64)
    where, overflow_conditions = _jittors_conditions(where, overflow_conditions)
    target = _checked_shape("reindex_reduce", shape)
    reads, names = _Reads(), _extent_names(node, target)
    loops = node.shape
    expressions = _expressions("reindex_reduce", index, loops, len(target), extras, names, reads)
    condition = _condition("reindex_reduce", where, loops, extras, names, reads)
    for text in overflow_conditions:
        outside = _condition("reindex_reduce", text, loops, extras, names, reads)
        condition = ("not", outside) if condition == TRUE else ("and", condition, ("not", outside))
    return Var._of(
        ReindexReduce(name, target, expressions, node, *reads.nodes, condition=condition)
    )


# -------------------------------------------------------------------------------- index notation


class Axis(Index):
    """A named loop of index notation: `i, j = mo.axes(3, 4)`."""

    __slots__ = ("extent", "number")
    _count = 0

    def __init__(self, extent: int):
        if not hasattr(extent, "__index__") or extent < 0:
            raise ShapeError(f"axes(n, …): an extent is a non-negative integer, not {extent!r}")
        Axis._count += 1
        self.number = Axis._count
        self.extent = keep_origin(extent)
        super().__init__(("axis", self))

    def __repr__(self) -> str:
        return f"axis{self.number}"


def axes(*extents: int) -> tuple[Axis, ...]:
    """One loop for each extent, to index Vars with: `x[n, i + r]`, `mo.sum(…, over=(r,))`."""
    return tuple(Axis(n) for n in extents)


def _axes_of(expr: Expr) -> list[Axis]:
    if isinstance(expr, Axis):
        return [expr]
    if not isinstance(expr, tuple):
        return []
    found: list[Axis] = []
    for part in expr[1:]:
        if isinstance(part, tuple | Axis):
            inner = _axes_of(part)
            found += [a for a in inner if all(a is not f for f in found)]
    return found


def uses_axes(key: Any) -> bool:
    """True if an index is written in index notation."""
    keys = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, Indexed) or (isinstance(k, Index) and _axes_of(k.expr)) for k in keys)


def uses_loops(key: Any) -> bool:
    """True if an index is made of a meta-operator's loop indices."""
    keys = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, Index) for k in keys)


def index_read(x: Var, key: Any) -> Index:
    """`label[i]` inside the index function of a meta-operator: a read of an integer Var."""
    keys = key if isinstance(key, tuple) else (key,)
    if x.dtype.is_float:
        raise DTypeError(f"an index must be an integer, got {describe(x)}")
    return Index(("read", x._node, tuple(as_index(k) for k in keys), None))


class Indexed:
    """An expression over named axes, `x[n, i + r] * w[r]`: arithmetic works as on Vars.

    `mo.sum(e, over=(r,))` reduces axes, `e.array(n, i)` makes a Var of the axes in some order (by
    default that in which `mo.axes` made them).
    """

    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(self, node_for: Callable[[tuple[Axis, ...]], Node], axes: list[Axis]):
        self._node_for, self.axes = node_for, axes

    def __bool__(self) -> bool:
        if undecided.decide is not None:
            return undecided.decide(self)
        raise TypeError("an expression over named axes has no truth value; write mo.where(c, a, b)")

    def array(self, *order: Axis) -> Var:
        """The Var with the given axes in this order (all axes of the expression, each once)."""
        order = order or tuple(_natural(self.axes))
        if {id(a) for a in order} != {id(a) for a in self.axes} or len(order) != len(self.axes):
            raise IndexExpressionError(
                f"array(…): name each of the {len(self.axes)} axes of the expression once"
            )
        return Var._of(self._node_for(tuple(order)))


def index_var(x: Var, key: Any) -> Indexed:
    """x[…] with named axes: reads outside x give 0."""
    keys = key if isinstance(key, tuple) else (key,)
    node = x._node
    if len(keys) != len(node.shape):
        raise IndexExpressionError(
            f"x[…]: {len(node.shape)} index expressions are needed, {len(keys)} were given"
        )
    found: list[Axis] = []
    for k in keys:
        parts = k.axes if isinstance(k, Indexed) else _axes_of(as_index(k))
        found += [a for a in parts if all(a is not f for f in found)]

    def node_for(order: tuple[Axis, ...]) -> Node:
        reads: list[Node] = []
        expressions = tuple(_in_order(k, order, reads) for k in keys)
        shape = tuple(a.extent for a in order)
        return Reindex(shape, (Piece(0, expressions),), node, *reads)

    return Indexed(node_for, found)


def _in_order(key: Any, order: tuple[Axis, ...], reads: list[Node]) -> Expr:
    """An index over named axes as one over loops; an Indexed of integers is a read."""
    if isinstance(key, Indexed):
        index_node = key._node_for(tuple(key.axes))
        if index_node.dtype.is_float:
            raise DTypeError(f"an index must be an integer, got {describe(index_node)}")
        reads.append(index_node)
        at = tuple(("i", _place(a, order)) for a in key.axes)
        return ("read", len(reads), at, None)

    def leaf(e: Expr) -> Expr | None:
        if isinstance(e, tuple) and e[0] == "axis":
            return ("i", _place(e[1], order))
        return None

    placed = as_integer(transform(as_index(key), leaf))
    _check_divisors("x[…]", placed, tuple(a.extent for a in order))
    return placed


def _place(axis: Axis, order: tuple[Axis, ...]) -> int:
    for position, other in enumerate(order):
        if other is axis:
            return position
    raise IndexExpressionError("an axis of the index is not among the axes of the expression")


def _natural(axes: Sequence[Axis]) -> list[Axis]:
    """Axes in the order in which `mo.axes` made them: that of an array's dimensions."""
    return sorted(axes, key=lambda axis: axis.number)


def _merged(parts: Sequence[Any]) -> list[Axis]:
    found: list[Axis] = []
    for part in parts:
        if isinstance(part, Indexed):
            found += [a for a in part.axes if all(a is not f for f in found)]
    return found


def lift(function: Callable[..., Var]) -> Callable[..., Any]:
    """The function of Vars as one of expressions over named axes."""

    def lifted(*args: Any) -> Indexed:
        every = _merged(args)

        def node_for(order: tuple[Axis, ...]) -> Node:
            values = [_spread(a, order) if isinstance(a, Indexed) else a for a in args]
            return function(*values)._node

        return Indexed(node_for, every)

    return lifted


def _spread(part: Indexed, order: tuple[Axis, ...]) -> Var:
    """A part over all axes of the expression, those it lacks repeated."""
    own = tuple(part.axes)
    node = part._node_for(tuple(a for a in order if any(a is o for o in own)))
    inside = tuple(("i", k) for k, a in enumerate(order) if any(a is o for o in own))
    shape = tuple(a.extent for a in order)
    return Var._of(Reindex(shape, (Piece(0, inside),), node))


def reduce_over(op: str, part: Indexed, over: Any) -> Indexed | Var:
    """The reduction over named axes: a Var whose dimensions are the remaining axes in the order
    in which `mo.axes` made them."""
    gone = [over] if isinstance(over, Axis) else list(over)
    for axis in gone:
        if all(axis is not a for a in part.axes):
            raise IndexExpressionError("over=…: not an axis of the expression")
    rest = [a for a in _natural(part.axes) if all(a is not g for g in gone)]
    node = part._node_for((*rest, *gone))
    shape = tuple(a.extent for a in rest)
    kept = tuple(("i", k) for k in range(len(rest)))
    if op in ("logical_and", "logical_or"):
        node = cast(node, dt.bool_)
    return Var._of(ReindexReduce(op, shape, kept, node))


for _symbol, _function in {
    "add": el.add, "sub": el.subtract, "mul": el.multiply, "truediv": el.divide,
    "floordiv": el.floor_divide, "mod": el.remainder, "pow": el.pow,
}.items():  # fmt: skip
    setattr(Indexed, f"__{_symbol}__", lift(_function))
    setattr(Indexed, f"__r{_symbol}__", lift(lambda a, b, f=_function: f(b, a)))
for _symbol, _function in {
    "lt": el.less, "le": el.less_equal, "gt": el.greater, "ge": el.greater_equal, "eq": el.equal,
    "ne": el.not_equal,
}.items():  # fmt: skip
    setattr(Indexed, f"__{_symbol}__", lift(_function))
setattr(Indexed, "__neg__", lift(el.negative))  # noqa: B010
setattr(Indexed, "__abs__", lift(el.abs))  # noqa: B010
