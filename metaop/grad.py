"""Gradients: one table over node kinds, written with meta-operators, so that gradients of any
order exist.

A rule takes the node and the gradient of its value, and returns one gradient (or None) for each
input.  Contributions to one node are added in descending order of creation of their consumer.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import warnings
import weakref
from collections.abc import Callable, Container, Sequence
from typing import Any

from . import dtype as dt
from .build import (
    add,
    cast,
    compare,
    div,
    full,
    linear_position,
    minus_from,
    mul,
    neg,
    plus,
    reduce,
    sub,
    times,
    unary,
    where,
)
from .errors import DTypeError, NotScalar, StaleValueError, UnreachedGradientWarning, describe
from .graph import (
    Apply,
    Custom,
    Elementwise,
    Escape,
    Node,
    Piece,
    RandomBits,
    Reindex,
    ReindexReduce,
    Shape,
    history_inputs,
    is_projection,
    numbered,
    toposort,
)
from .index import TRUE, Expr, conjunction, transform
from .recording import recording
from .taken_out import sum_apart

Gradients = Sequence[Node | None]
Side = Callable[..., Node]
ElementwiseRule = Callable[..., Gradients] | tuple[Side | None, ...]

# ------------------------------------------------------------------------- elementwise operators
# rule(g, y, a, b, …): g is the gradient of y = op(a, b, …).  A tuple has one rule for each input,
# of which only those that are asked for are recorded.


def _one(rule: Callable[[Node, Node, Node], Node | None]) -> ElementwiseRule:
    return lambda g, y, a: (rule(g, y, a),)


def _nothing(g: Node, y: Node, *inputs: Node) -> Gradients:
    return (None,) * len(inputs)


def _square(a: Node) -> Node:
    return mul(a, a)


def _where_equal(g: Node, y: Node, a: Node, b: Node) -> Gradients:
    """maximum and minimum: the winner takes the gradient, a tie shares it."""
    half = times(g, 0.5)
    tie = unary("logical_not", Elementwise("ne", a, b))
    won = Elementwise("eq", a, y)
    return where(tie, half, where(won, g)), where(
        tie, half, where(won, full(0, g.shape, g.dtype), g)
    )


def _first_wins(g: Node, y: Node, a: Node, b: Node) -> Gradients:
    """fmax and fmin: a where y is a, else b."""
    won = Elementwise("eq", a, y)
    return where(won, g), where(won, full(0, g.shape, g.dtype), g)


def _pow(g: Node, y: Node, a: Node, b: Node) -> Gradients:
    """d/da = b a^(b-1), zero for b = 0;  d/db = y log a, zero for a = 0 with b >= 0.

    At b = 0 and a = 0 the factor a^(b-1) is infinite; it is not formed, so that 0 times its own
    derivative is not NaN either.
    """
    away_from_zero = Elementwise("logical_or", compare("lt", a, 0), compare("gt", a, 0))
    undefined = Elementwise(
        "logical_and", compare("eq", b, 0), unary("logical_not", away_from_zero)
    )
    da = mul(b, Elementwise("pow", a, where(undefined, full(0, b.shape, b.dtype), plus(b, -1))))
    safe = where(compare("gt", a, 0), a, 1)
    db = where(
        Elementwise("logical_and", compare("eq", a, 0), compare("ge", b, 0)),
        full(0, y.shape, y.dtype),
        mul(y, unary("log", where(compare("ge", a, 0), safe, math.nan))),
    )
    return mul(g, da), mul(g, db)


def _mod(g: Node, y: Node, a: Node, b: Node) -> Gradients:
    """a % b = a - b floor(a / b)."""
    return g, neg(mul(g, Elementwise("floordiv", a, b)))


def _atan2(g: Node, y: Node, a: Node, b: Node) -> Gradients:
    norm = add(_square(a), _square(b))
    return div(mul(g, b), norm), neg(div(mul(g, a), norm))


def _cast_gradient(g: Node, y: Node, a: Node) -> Gradients:
    return (cast(g, a.dtype) if a.dtype.is_float and y.dtype.is_float else None,)


def _else_gradient(g: Node, y: Node, condition: Node, a: Node, b: Node) -> Node:
    return where(condition, full(0, g.shape, g.dtype), g)


# Bernoulli numbers B2, B4, …: the coefficients of trigamma's asymptotic series.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
_TRIGAMMA_STEPS = 8


def trigamma(a: Node) -> Node:
    """The derivative of digamma: the recurrence 1/x² + trigamma(x + 1) up to 8.5, then the
    asymptotic series; below 1/2 by reflection."""
    wide = cast(a, a.dtype.compute)
    reflected = compare("lt", wide, 0.5)
    x = where(reflected, minus_from(1, wide), wide)
    z = plus(x, _TRIGAMMA_STEPS)
    inverse = div(full(1, z.shape, z.dtype), z)
    square = _square(inverse)
    series = full(_BERNOULLI[-1], z.shape, z.dtype)
    for coefficient in reversed(_BERNOULLI[:-1]):
        series = plus(mul(series, square), coefficient)
    total = add(mul(plus(times(inverse, 0.5), 1), inverse), mul(mul(series, square), inverse))
    for k in range(_TRIGAMMA_STEPS):
        step = plus(x, k) if k else x
        total = add(total, div(full(1, x.shape, x.dtype), _square(step)))
    sine = unary("sin", times(where(reflected, wide, 0.25), math.pi))
    mirror = sub(div(full(math.pi**2, x.shape, x.dtype), _square(sine)), total)
    return cast(where(reflected, mirror, total), a.dtype)


_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)

ELEMENTWISE: dict[str, ElementwiseRule] = {
    "neg": _one(lambda g, y, a: neg(g)),
    **dict.fromkeys(("copy", "again", "barrier"), _one(lambda g, y, a: g)),
    "abs": _one(lambda g, y, a: mul(g, unary("sign", a))),
    "sqrt": _one(lambda g, y, a: div(g, times(y, 2))),
    "exp": _one(lambda g, y, a: mul(g, y)),
    "exp2": _one(lambda g, y, a: times(mul(g, y), math.log(2))),
    "expm1": _one(lambda g, y, a: mul(g, plus(y, 1))),
    "log": _one(lambda g, y, a: div(g, a)),
    "log2": _one(lambda g, y, a: div(g, times(a, math.log(2)))),
    "log10": _one(lambda g, y, a: div(g, times(a, math.log(10)))),
    "log1p": _one(lambda g, y, a: div(g, plus(a, 1))),
    "sin": _one(lambda g, y, a: mul(g, unary("cos", a))),
    "cos": _one(lambda g, y, a: neg(mul(g, unary("sin", a)))),
    "tan": _one(lambda g, y, a: mul(g, plus(_square(y), 1))),
    "asin": _one(lambda g, y, a: div(g, unary("sqrt", minus_from(1, _square(a))))),
    "acos": _one(lambda g, y, a: neg(div(g, unary("sqrt", minus_from(1, _square(a)))))),
    "atan": _one(lambda g, y, a: div(g, plus(_square(a), 1))),
    "sinh": _one(lambda g, y, a: mul(g, unary("cosh", a))),
    "cosh": _one(lambda g, y, a: mul(g, unary("sinh", a))),
    "tanh": _one(lambda g, y, a: mul(g, minus_from(1, _square(y)))),
    "asinh": _one(lambda g, y, a: div(g, unary("sqrt", plus(_square(a), 1)))),
    "acosh": _one(lambda g, y, a: div(g, unary("sqrt", plus(_square(a), -1)))),
    "atanh": _one(lambda g, y, a: div(g, minus_from(1, _square(a)))),
    "sigmoid": _one(lambda g, y, a: mul(g, mul(y, minus_from(1, y)))),
    "erf": _one(lambda g, y, a: times(mul(g, unary("exp", neg(_square(a)))), _TWO_OVER_ROOT_PI)),
    "erfc": _one(lambda g, y, a: times(mul(g, unary("exp", neg(_square(a)))), -_TWO_OVER_ROOT_PI)),
    "erfinv": _one(lambda g, y, a: times(mul(g, unary("exp", _square(y))), 1 / _TWO_OVER_ROOT_PI)),
    "lgamma": _one(lambda g, y, a: mul(g, unary("digamma", a))),
    "digamma": _one(lambda g, y, a: mul(g, trigamma(a))),
    "add": lambda g, y, a, b: (g, g),
    "sub": (lambda g, y, a, b: g, lambda g, y, a, b: neg(g)),
    "mul": (lambda g, y, a, b: mul(g, b), lambda g, y, a, b: mul(g, a)),
    "div": (lambda g, y, a, b: div(g, b), lambda g, y, a, b: neg(div(mul(g, y), b))),
    "mod": _mod,
    "pow": _pow,
    "atan2": _atan2,
    "hypot": (lambda g, y, a, b: div(mul(g, a), y), lambda g, y, a, b: div(mul(g, b), y)),
    "copysign": lambda g, y, a, b: (
        mul(g, mul(unary("sign", a), unary("sign", y))), None
    ),
    "maximum": _where_equal,
    "minimum": _where_equal,
    "fmax": _first_wins,
    "fmin": _first_wins,
    "cast": _cast_gradient,
    "where": (None, lambda g, y, condition, a, b: where(condition, g), _else_gradient),
}  # fmt: skip
# constant almost everywhere, or of no float value
CONSTANT = (
    "sign floor ceil round trunc floordiv truncdiv truncmod isnan isinf isfinite logical_not "
    "invert lt le gt ge eq ne logical_and logical_or logical_xor bitand bitor bitxor shl shr "
    "bitcast"
).split()
ELEMENTWISE |= dict.fromkeys(CONSTANT, _nothing)


def _elementwise(node: Elementwise, g: Node, wanted: Container[Node]) -> Gradients:
    rule = ELEMENTWISE[node.op]
    inputs = node.inputs
    if isinstance(rule, tuple):
        return [
            side(g, node, *inputs) if side is not None and source in wanted else None
            for side, source in zip(rule, inputs)
        ]
    return rule(g, node, *inputs)


# --------------------------------------------------------------------------- reindex and its like


def _renumber_reads(e: Expr, number: dict[int, int]) -> Expr:
    """An index expression whose k-th input is now the number[k]-th."""

    if not number:
        return e

    def leaf(part: Expr) -> Expr | None:
        if isinstance(part, tuple) and part[0] == "read":
            position = tuple(_renumber_reads(p, number) for p in part[2])
            return ("read", number[part[1]], position, part[3])
        return None

    return transform(e, leaf)


def _reindex(node: Reindex, g: Node, *_: Any) -> Gradients:
    """Each piece's gradient goes back to where it was read: a masked reindex_reduce(add)."""
    if len(node.inputs) == 1 and len(node.pieces) == 1 and node.dtype.is_float:
        (piece,) = node.pieces
        shape = node.inputs[0].shape
        apart = sum_apart(node, g) if piece.condition == TRUE else None
        if apart is not None:
            return (apart,)
        signature = _likewise(node, shape)
        back: Node = ReindexReduce(
            "add", shape, piece.indices, g, condition=piece.condition, signature=signature
        )
        return (back,)
    readers = [k for k in range(len(node.inputs)) if not node.inputs[k].dtype.is_float]
    number = {k: position + 1 for position, k in enumerate(readers)}
    extra = [node.inputs[k] for k in readers]
    gradients: list[Node | None] = [None] * len(node.inputs)
    if not node.dtype.is_float:
        return tuple(gradients)
    earlier: Expr = ("true",)
    for piece in node.pieces:
        condition = conjunction(earlier, piece.condition)
        back = ReindexReduce(
            "add",
            node.inputs[piece.source].shape,
            tuple(_renumber_reads(e, number) for e in piece.indices),
            g,
            *extra,
            condition=_renumber_reads(condition, number),
        )
        known = gradients[piece.source]
        gradients[piece.source] = back if known is None else add(known, back)
        if piece is not node.pieces[-1]:
            earlier = conjunction(earlier, ("not", piece.condition))
    return tuple(gradients)


def _at_source(node: ReindexReduce, value: Node) -> Node:
    """value[e(i)] for every i of the reduced array: 0 where nothing was written."""
    y = node.inputs[0]
    signature = _likewise(node, y.shape)
    pieces = (Piece(0, node.indices, node.condition),)
    return Reindex(y.shape, pieces, value, *node.inputs[1:], fill=0, signature=signature)


def _likewise(node: Node, shape: Shape) -> int | None:
    """The signature of what goes the other way than a node, to this shape.

    Known if the node's is a number: equal nodes have gradients of equal indices and conditions.
    """
    number = node.signature
    return _other_way(number, shape) if type(number) is int else None


@functools.lru_cache(maxsize=512)
def _other_way(number: int, shape: Shape) -> int:
    return numbered()


def _reindex_reduce(node: ReindexReduce, g: Node, *_: Any) -> Gradients:
    rest = (None,) * (len(node.inputs) - 1)
    if not node.dtype.is_float:
        return (None, *rest)
    return (_REDUCTIONS[node.op](node, g), *rest)


def _extreme(node: ReindexReduce, g: Node) -> Node:
    """maximum and minimum: equal elements share the gradient, or the first takes it."""
    y = node.inputs[0]
    best = _at_source(node, node)
    winner = Elementwise("eq", y, best)
    both_nan = Elementwise("logical_and", unary("isnan", y), unary("isnan", best))
    winner = Elementwise("logical_or", winner, both_nan)
    if node.ties == "share":
        count = _same_reduction(node, "add", cast(winner, node.dtype))
        return where(winner, _at_source(node, div(g, count)))
    position = linear_position(y.shape)
    nowhere = full(1 << 62, y.shape, dt.int64)
    first = _same_reduction(node, "minimum", where(winner, position, nowhere))
    is_first = Elementwise("eq", position, _at_source(node, first))
    return where(Elementwise("logical_and", winner, is_first), _at_source(node, g))


def _same_reduction(node: ReindexReduce, op: str, y: Node) -> Node:
    return ReindexReduce(
        op, node.shape, node.indices, y, *node.inputs[1:], condition=node.condition
    )


def _product(node: ReindexReduce, g: Node) -> Node:
    """The product of all other factors, formed again from the factors: right with zeros, and
    to every order."""
    if is_projection(node):
        return mul(_at_source(node, g), _others(node))
    from .compiler.passes.invert import inverted

    plain = inverted(node)
    if isinstance(plain, Reindex):  # at most one factor each
        alone = _reindex(plain, g)[0]
        assert alone is not None
        return alone
    if isinstance(plain, ReindexReduce) and is_projection(plain):
        gathered = plain.inputs[0]
        assert isinstance(gathered, Reindex)
        gradient = _reindex(gathered, _product(plain, g))[0]
        assert gradient is not None
        return gradient
    return _product_by_division(node, g)


def _others(node: ReindexReduce) -> Node:
    """For every factor the product of the others: prod over j of (1 if j is i else y[j])."""
    y = node.inputs[0]
    kept = {e[1] for e in node.indices}
    reduced = [k for k in range(len(y.shape)) if k not in kept]
    rank = len(y.shape)
    shape = (*y.shape, *(y.shape[k] for k in reduced))
    indices: list[Expr] = [("i", k) for k in range(rank)]
    for position, k in enumerate(reduced):
        indices[k] = ("i", rank + position)
    same: Expr = ("true",)
    for position, k in enumerate(reduced):
        same = conjunction(same, ("eq", ("i", k), ("i", rank + position)))
    spread = Reindex(shape, (Piece(0, tuple(indices), ("not", same)),), y, fill=1)
    return reduce("multiply", spread, tuple(range(rank, len(shape))))


def _product_by_division(node: ReindexReduce, g: Node) -> Node:
    """For a write that cannot be inverted: from the product of the factors that are not zero.

    The product of the others is that times the zeros among the others, if there are any.  One of
    them is kept as a factor (it is 0, but its derivative is not), so second derivatives are right.
    """
    y = node.inputs[0]
    is_zero = compare("eq", y, 0)
    ones = full(1, y.shape, y.dtype)
    nonzero = where(is_zero, ones, y)
    product = _at_source(node, _same_reduction(node, "multiply", nonzero))
    zero = where(is_zero, y)
    zeros = _at_source(node, _same_reduction(node, "add", cast(is_zero, node.dtype)))
    other_zeros = sub(zeros, cast(is_zero, node.dtype))
    other_zero = sub(_at_source(node, _same_reduction(node, "add", zero)), zero)
    rest = where(
        compare("eq", other_zeros, 0), ones, where(compare("eq", other_zeros, 1), other_zero)
    )
    return mul(_at_source(node, g), mul(div(product, nonzero), rest))


_REDUCTIONS: dict[str, Callable[[ReindexReduce, Node], Node]] = {
    "add": _at_source,
    "maximum": _extreme,
    "minimum": _extreme,
    "multiply": _product,
}


def _apply(node: Apply, g: Node, wanted: Container[Node]) -> Gradients:
    """For each input the derivative by it, another function of the same inputs."""
    from .scalar_gradient import derivative  # loads for who needs it

    found: list[Node | None] = []
    for k, source in enumerate(node.inputs):
        if source not in wanted or not source.dtype.is_float:
            found.append(None)
            continue
        try:
            function = derivative(node.function, k)
        except NotScalar as reason:
            name = node.function.label
            raise DTypeError(
                f"{name} has no gradient: {reason} (recorded at {node.site})"
            ) from None
        found.append(cast(mul(g, Apply(function, node.dtype, *node.inputs)), source.dtype))
    return found


def _escape(node: Escape, g: Node, *_: Any) -> Gradients:
    if node.gradient is None:
        raise DTypeError(f"{node.name} has no gradient (recorded at {node.site})")
    return tuple(node.gradient(node, g))


# rule(node, g, wanted): one gradient for each input, None for what is not asked for or has none
TABLE: dict[type[Node], Callable[..., Gradients]] = {
    Elementwise: _elementwise,
    Apply: _apply,
    Reindex: _reindex,
    ReindexReduce: _reindex_reduce,
    Escape: _escape,
    RandomBits: lambda *_: (None, None),
}

# ---------------------------------------------------------------------------------- the traversal


class _Hooks:
    """What `metaop.hooks` has registered; a leaf's hooks are in its Var, as they outlive the node.

    registered: whether there ever was a hook; leaves: changes with the hooks of leaves.
    """

    def __init__(self) -> None:
        self.of_nodes: weakref.WeakKeyDictionary[Node, dict[int, Callable[[Node], Node]]] = (
            weakref.WeakKeyDictionary()
        )
        self.registered = False
        self.leaves = 0


hooks = _Hooks()


def _hooks_of(node: Node) -> dict[int, Callable[[Node], Node]]:
    leaf = None if node.owner is None else node.owner()
    own = hooks.of_nodes.get(node, {}) if leaf is None else leaf.__dict__.get("_hooks", {})
    return own


def has_hooks(node: Node) -> bool:
    """True if a hook sees the node's gradient."""
    return bool(_hooks_of(node))


def _hooked(node: Node, g: Node) -> Node:
    """A node's gradient after its hooks."""
    for function in list(_hooks_of(node).values()):
        g = function(g)
    return g


def gradients_of(
    loss: Node,
    targets: Sequence[Node],
    gradient: Node | None = None,
    graph: list[Node] | None = None,
) -> list[Node | None]:
    """d loss / d target for every target; None for one that the loss does not depend on.

    graph: the nodes through which gradients pass on the way to the targets, if known.
    """
    wanted = set(targets)
    if graph is None:
        graph = toposort([loss], lambda node: node in wanted and node is not loss, history_inputs)
    depends = _dependent(graph, wanted)
    calls = _calls(graph)
    start = full(1, loss.shape, loss.dtype) if gradient is None else gradient
    totals: dict[Node, Node] = {loss: start}
    _check_history(loss, wanted)
    state = recording.__dict__  # of this thread; quicker than its attributes
    saved = state["site"], state["scope"]
    state["scope"] = state["scope"].within("backward")
    scope = None
    try:
        for node in reversed(graph):
            g = totals.get(node)
            if hooks.registered and g is not None and node in depends:
                g = totals[node] = _hooked(node, g)
            if calls and type(node) is Custom and node in depends and node not in wanted:
                state["site"], scope = node.site, node.scope
                state["scope"] = scope.within("backward")
                _spread_call(node, g, calls, depends, totals)
                continue
            if g is None or node not in depends or (node in wanted and node is not loss):
                continue
            state["site"] = node.site
            if node.scope is not scope:
                scope = node.scope
                state["scope"] = scope.within("backward")
            rule = TABLE.get(type(node))
            if rule is not None and node.inputs:
                _add_parts(node.inputs, rule(node, g, depends), depends, totals)
    finally:
        state["site"], state["scope"] = saved
    unreached = [t for t in targets if t not in totals]
    if unreached:
        _check_leaves(graph, unreached)
    if calls or _reads_overwritten(graph):
        _check_overwritten([totals[t] for t in targets if t in totals], loss, start)
    return [totals.get(target) for target in targets]


def _check_history(loss: Node, wanted: set[Node]) -> None:
    """A loss that was computed while nothing required a gradient has forgotten how."""
    made = isinstance(loss, Elementwise | Reindex | ReindexReduce | Escape)
    if made and not loss.inputs and not loss.stop and loss not in wanted:
        raise StaleValueError(
            f"the loss {describe(loss)} made at {loss.site} was computed while nothing required a "
            "gradient, so its history is gone; write x.requires_grad = True first, or call "
            "grad(loss, x) before reading the loss"
        )


def _dependent(graph: list[Node], wanted: set[Node]) -> set[Node]:
    """The nodes through which a gradient reaches a target."""
    depends: set[Node] = set()
    for node in graph:
        if node in wanted:
            depends.add(node)
        elif not node.stop and node.dtype.kind == "f":
            sources = history_inputs(node) if type(node) is Custom else node.inputs
            if not depends.isdisjoint(sources):
                depends.add(node)
    return depends


class _CallGradients:
    """The gradients of the results of one call of a Function, as they become known; its own are
    computed when the first of its results, the last to be met, is reached."""

    def __init__(self, first: Custom):
        self.first = first
        self.given: dict[int, Node] = {}


def _calls(graph: list[Node]) -> dict[int, _CallGradients]:
    calls: dict[int, _CallGradients] = {}
    for node in graph if Custom in map(type, graph) else ():
        if type(node) is Custom:
            calls.setdefault(id(node.call), _CallGradients(node))
    return calls


def _spread_call(
    node: Custom,
    g: Node | None,
    calls: dict[int, _CallGradients],
    depends: set[Node],
    totals: dict[Node, Node],
) -> None:
    gathered = calls[id(node.call)]
    if g is not None:
        gathered.given[node.number] = g
    if node is gathered.first and gathered.given:
        _add_parts(node.call.inputs, node.call.gradients(gathered.given), depends, totals)


def _add_parts(
    sources: tuple[Node, ...], parts: Gradients, depends: set[Node], totals: dict[Node, Node]
) -> None:
    for source, part in zip(sources, parts):
        if part is None or source not in depends:
            continue
        known = totals.get(source)
        totals[source] = part if known is None else add(known, part)


def _check_leaves(graph: list[Node], unreached: list[Node]) -> None:
    """A leaf that was updated since the loss was recorded is not the one that the loss read."""
    owners = {id(t.owner()) for t in unreached if t.owner is not None and t.owner() is not None}
    for node in graph:
        if node.owner is not None and id(node.owner()) in owners and node.overwritten is not None:
            raise StaleValueError(
                f"the loss was recorded with {describe(node)} made at {node.site}, which was "
                f"overwritten at {node.overwritten}; ask for the gradient before the write"
            )


def _reads_overwritten(graph: list[Node]) -> bool:
    """True if a gradient through these nodes may read a value that was overwritten since."""
    sources = itertools.chain.from_iterable(map(_inputs, graph))
    return (
        Escape in map(type, graph)
        or any(map(_overwritten, graph))
        or any(map(_overwritten, sources))
    )


_inputs = operator.attrgetter("inputs")
_overwritten = operator.attrgetter("overwritten")


def _check_overwritten(gradients: list[Node], loss: Node, start: Node) -> None:
    """A gradient must not read a version that has been overwritten since."""

    def given(node: Node) -> bool:
        return node.sequence <= loss.sequence or node is start

    for node in toposort(gradients, given):
        if given(node):
            continue
        for source in node.inputs:
            if source.overwritten is not None and source.sequence <= loss.sequence:
                raise StaleValueError(
                    f"the gradient needs {describe(source)} made at {source.site}, which was "
                    f"overwritten at {source.overwritten}; write x = x + … instead of x += …, "
                    "or call backward() before the write"
                )


def warn_unreached(count: int) -> None:
    """One warning for all targets that the loss does not depend on."""
    recording.unreached += 1
    warnings.warn(
        f"{count} of the Vars do not influence the loss: their gradient is zero",
        UnreachedGradientWarning,
        stacklevel=3,
    )
