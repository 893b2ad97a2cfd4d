"""Running sums, products and extremes along an axis.

A scan is composed of blocks: `out[b, i] = reduce(x[b, j] over j <= i)` is a reduction over a
triangle, the totals of the blocks are scanned in turn, and every block is combined with the total
before it.  So it is parallel, its rounding errors grow with the logarithm of the length, and its
gradient is that of the reductions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import dtype as dt
from . import elementwise as el
from . import reduction
from .aliases import axis_or_dim
from .build import cast, full, normal_axes, reduce, reshape
from .dtype import DType, as_dtype, floating
from .errors import ShapeError, describe
from .graph import Elementwise, Node, Piece, Reindex, identity_of
from .index import Expr
from .movement import concat
from .recipes import remembered
from .special import logaddexp
from .var import Var, node_of

BLOCK = 32
PRODUCT_BLOCK = 8  # the gradient of a product multiplies all pairs of a block

Within = Callable[[Node], Node]  # the reduction over the last axis
Combine = Callable[[Node, Node], Node]


def _blocked(
    node: Node, axis: int, fill: float, block: int, within: Within, combine: Combine
) -> Node:
    """The inclusive scan of a node along an axis of any length."""
    n, rank = node.shape[axis], len(node.shape)
    blocks = -(-n // block) if n > block else 1
    size = block if n > block else n
    before, after = node.shape[:axis], node.shape[axis + 1 :]
    start = ("mul", ("i", axis), size)
    indices: list[Expr] = [("i", k if k < axis else k + 1) for k in range(rank)]
    indices[axis] = ("add", start, ("i", rank + 1))
    triangle = ("le", ("i", rank + 1), ("i", axis + 1))
    space = (*before, blocks, size, *after, size)
    spread = Reindex(space, (Piece(0, tuple(indices), triangle),), node, fill=fill)
    partial = within(spread)
    if blocks == 1:
        return reshape(partial, node.shape)
    totals = _at(partial, axis, ("i", axis), size - 1, (*before, blocks, *after))
    scanned = _blocked(totals, axis, fill, block, within, combine)
    place = ("floordiv", ("i", axis), size)
    earlier_at: list[Expr] = [("i", k) for k in range(rank)]
    earlier_at[axis] = ("sub", place, 1)
    earlier = Reindex(node.shape, (Piece(0, tuple(earlier_at)),), scanned, fill=fill)
    own = _at(partial, axis, place, ("mod", ("i", axis), size), node.shape)
    return combine(earlier, own)


def _at(partial: Node, axis: int, block: Expr, inside: Expr, shape: tuple[int, ...]) -> Node:
    indices: list[Expr] = [("i", k) for k in range(len(shape))]
    indices[axis : axis + 1] = [block, inside]
    return Reindex(shape, (Piece(0, tuple(indices)),), partial)


def _along(operation: str, x: Any, axis: int | None) -> tuple[Node, int]:
    """The node and its axis; without an axis the flat x."""
    node = node_of(x)
    if axis is None:
        node = reshape(node, (node.size,))
        return node, 0
    if not node.shape:
        raise ShapeError(f"{operation}(x, axis): a 0-d x has no axis {axis}")
    (k,) = normal_axes(axis, len(node.shape), operation)
    return node, k


_COMBINE = {"add": "add", "multiply": "mul", "maximum": "maximum", "minimum": "minimum"}


def _scan(op: str, node: Node, axis: int, dtype: DType) -> Var:
    work = cast(node, dtype.compute)
    if 0 in node.shape:
        return Var._of(Elementwise("copy", cast(work, dtype)))
    last = len(node.shape) + 1
    result = _blocked(
        work, axis, identity_of(op, work.dtype), PRODUCT_BLOCK if op == "multiply" else BLOCK,
        lambda spread: reduce(op, spread, (last,)),
        lambda a, b: Elementwise(_COMBINE[op], a, b),
    )  # fmt: skip
    return Var._of(cast(result, dtype))


def _sum_dtype(node: Node, dtype: Any) -> DType:
    if dtype is not None:
        return as_dtype(dtype)
    if node.dtype.is_float:
        return node.dtype
    return dt.uint64 if node.dtype.kind == "u" else dt.int64


@remembered
def cumsum(x: Any, axis: int | None = None, dtype: Any = None, *, dim: int | None = None) -> Var:
    """The running sum along an axis, of the flat x without one.  Integers are summed in 64 bits."""
    node, k = _along("cumsum", x, axis if dim is None else dim)
    kind = _sum_dtype(node, dtype)
    return _scan("add", cast(node, kind), k, kind)


@remembered
def cumprod(x: Any, axis: int | None = None, dtype: Any = None, *, dim: int | None = None) -> Var:
    """The running product along an axis, of the flat x without one; its gradient is right with
    zeros."""
    node, k = _along("cumprod", x, axis if dim is None else dim)
    kind = _sum_dtype(node, dtype)
    return _scan("multiply", cast(node, kind), k, kind)


@remembered
def cummax(x: Any, axis: int | None = None, *, dim: int | None = None) -> Var:
    """The running maximum (the values alone); NaN stays.  Ties share the gradient."""
    node, k = _along("cummax", x, axis if dim is None else dim)
    return _scan("maximum", node, k, node.dtype)


@remembered
def cummin(x: Any, axis: int | None = None, *, dim: int | None = None) -> Var:
    """The running minimum (the values alone); NaN stays.  Ties share the gradient."""
    node, k = _along("cummin", x, axis if dim is None else dim)
    return _scan("minimum", node, k, node.dtype)


@remembered
def logcumsumexp(x: Any, axis: int | None = None, *, dim: int | None = None) -> Var:
    """The running log(sum(exp(x))), without overflow."""
    node, k = _along("logcumsumexp", x, axis if dim is None else dim)
    kind = floating(node.dtype)
    work = cast(node, kind.compute)
    if 0 in node.shape:
        return Var._of(cast(Elementwise("copy", work), kind))
    result = _blocked(
        work, k, float("-inf"), BLOCK,
        lambda spread: reduction.logsumexp(Var._of(spread), -1)._node,
        lambda a, b: logaddexp(Var._of(a), Var._of(b))._node,
    )  # fmt: skip
    return Var._of(cast(result, kind))


def _cumulative(
    name: str, scan: Any, start: int, x: Any, axis: int | None, dtype: Any, initial: bool
) -> Var:
    node = node_of(x)
    if axis is None and len(node.shape) != 1:
        raise ShapeError(f"{name}(x): give an axis of {describe(node)}")
    (k,) = normal_axes(0 if axis is None else axis, len(node.shape), name)
    result = scan(x, k, dtype)
    if not initial:
        return result
    shape = (*result.shape[:k], 1, *result.shape[k + 1 :])
    from_start = Var._of(full(start, shape, result.dtype))
    return concat([from_start, result], k)


@axis_or_dim
@remembered
def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Var:
    """The running sum; with include_initial a 0 stands in front."""
    return _cumulative("cumulative_sum", cumsum, 0, x, axis, dtype, include_initial)


@axis_or_dim
@remembered
def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Var:
    """The running product; with include_initial a 1 stands in front."""
    return _cumulative("cumulative_prod", cumprod, 1, x, axis, dtype, include_initial)


@axis_or_dim
@remembered
def diff(x: Any, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Var:
    """x[i + 1] - x[i] along an axis, n times; of bools: not equal."""
    var = x if isinstance(x, Var) else Var(x)
    if n < 0:
        raise ValueError(f"diff(x, n): n must not be negative, got {n}")
    (k,) = normal_axes(axis, var.ndim, "diff")
    parts = [p for p in (prepend, var, append) if p is not None]
    if len(parts) > 1:
        whole = [_edge(p, var, k) if p is not var else var for p in parts]
        var = concat(whole, k)
    for _ in range(n):
        later = (slice(None),) * k + (slice(1, None),)
        earlier = (slice(None),) * k + (slice(None, -1),)
        difference = el.not_equal if var.dtype is dt.bool_ else el.subtract
        var = difference(var[later], var[earlier])
    return var


def _edge(value: Any, like: Var, axis: int) -> Any:
    part = value if isinstance(value, Var) else Var(value, like.dtype)
    if part.ndim:
        return part
    shape = (*like.shape[:axis], 1, *like.shape[axis + 1 :])
    return part.broadcast_to(shape)
