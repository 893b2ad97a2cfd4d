"""Gather and scatter along an axis, as torch names them, and what picks elements by a condition.

A gather is a reindex through an index Var; a scatter is the reindex_reduce that writes there.  An
index is checked when the value is computed: IndexError.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import dtype as dt
from . import elementwise as el
from . import reduction
from .aliases import dim_or_axis
from .build import (
    add,
    broadcast_to,
    cast,
    full,
    linear_position,
    normal_axes,
    reshape,
    where,
)
from .errors import DTypeError, ShapeError, describe
from .graph import Elementwise, Node, Piece, Reindex, ReindexReduce, identity_of
from .index import Expr
from .indexing import Selection, _read, select, setitem
from .recipes import remembered
from .scans import cumsum
from .var import Var, node_of


def _along(name: str, x: Any, dim: int, index: Any) -> tuple[Node, int, Node]:
    """The nodes of x and of an index of its rank, and the axis."""
    node, places = node_of(x), node_of(index)
    if places.dtype.kind not in "iu":
        raise DTypeError(f"{name}(x, dim, index): the index must be integers, {describe(places)}")
    if not node.shape:
        node = reshape(node, (1,))
    if not places.shape:
        places = reshape(places, (1,))
    (k,) = normal_axes(dim, len(node.shape), name)
    if len(places.shape) != len(node.shape) or any(
        m > n for j, (m, n) in enumerate(zip(places.shape, node.shape)) if j != k
    ):
        raise ShapeError(
            f"{name}(x, dim={dim}, index): the index must have x's rank and be no larger beside "
            f"the axis, x is {describe(node)}, the index {describe(places)}"
        )
    return node, k, places


def _place(places: Node, axis: int, extent: int) -> tuple[Expr, ...]:
    """Where an element of the index points to: its own coordinates but for the axis."""
    chosen = Selection(places.shape, [])
    loops: list[Expr] = [("i", k) for k in range(len(places.shape))]
    found = _read(chosen, places, loops, places.shape, extent, negative=False)
    return tuple(found if k == axis else ("i", k) for k in range(len(places.shape)))


@dim_or_axis
@remembered
def gather(x: Any, dim: int, index: Any) -> Var:
    """out[i, j, …] = x[i, index[i, j, …], …] along an axis (as torch.gather)."""
    node, k, places = _along("gather", x, dim, index)
    at = _place(places, k, node.shape[k])
    result = Reindex(places.shape, (Piece(0, at),), node, places)
    return Var._of(reshape(result, node_of(index).shape))


def _source(name: str, src: Any, node: Node, places: Node) -> Node:
    """The part of src that the index covers, in x's dtype."""
    source = node_of(src) if hasattr(src, "dtype") else node_of(src, node.dtype)
    if source.dtype.is_float and not node.dtype.is_float:
        raise DTypeError(f"{name}: cannot write {describe(source)} into {describe(node)}")
    source = cast(source, node.dtype)
    if not source.shape:
        return broadcast_to(source, places.shape)
    if len(source.shape) != len(places.shape) or any(
        m > n for m, n in zip(places.shape, source.shape)
    ):
        raise ShapeError(
            f"{name}: src must cover the index, src is {describe(source)}, the index "
            f"{describe(places)}"
        )
    if source.shape == places.shape:
        return source
    corner = Piece(0, tuple(("i", k) for k in range(len(places.shape))))
    return Reindex(places.shape, (corner,), source)


@dim_or_axis
@remembered
def scatter(x: Any, dim: int, index: Any, src: Any, reduce: str | None = None) -> Var:
    """x with out[i, index[i, j], …] = src[i, j, …] along an axis (as torch.scatter).

    Of several values for one place the last one wins; reduce="add" or "multiply" combines them
    with x instead.
    """
    if reduce is not None:
        return scatter_reduce(x, dim, index, src, {"add": "sum", "multiply": "prod"}[reduce])
    node, k, places = _along("scatter", x, dim, index)
    source = _source("scatter(x, dim, index, src)", src, node, places)
    result = _last_written(node, _place(places, k, node.shape[k]), source, places)
    return Var._of(reshape(result, node_of(x).shape))


def _last_written(node: Node, at: tuple[Expr, ...], source: Node, *extra: Node) -> Node:
    """x where nothing is written, else the last source element written there."""
    if 0 in source.shape:
        return Elementwise("copy", node)
    number = linear_position(source.shape)
    last = ReindexReduce("maximum", node.shape, at, number, *extra)
    written = Elementwise("ge", last, full(0, node.shape, dt.int64))
    flat = reshape(source, (source.size,))
    read = ("read", 1, tuple(("i", j) for j in range(len(node.shape))), None)
    taken = Reindex(node.shape, (Piece(0, (read,)),), flat, last)
    return where(written, taken, node)


_REDUCE = {"sum": "add", "prod": "multiply", "mean": "add", "amax": "maximum", "amin": "minimum"}


@dim_or_axis
@remembered
def scatter_reduce(
    x: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True
) -> Var:
    """x with what src writes to one place reduced: sum, prod, mean, amax or amin.

    include_self: whether the old value of x takes part.  As torch.scatter_reduce.
    """
    if reduce not in _REDUCE:
        raise ValueError(f"scatter_reduce: one of {', '.join(_REDUCE)}, not {reduce!r}")
    node, k, places = _along("scatter_reduce", x, dim, index)
    source = _source("scatter_reduce(x, dim, index, src)", src, node, places)
    result = _combined(node, _place(places, k, node.shape[k]), source, places, reduce, include_self)
    return Var._of(reshape(result, node_of(x).shape))


_STEP = {"add": "add", "multiply": "mul", "maximum": "maximum", "minimum": "minimum"}


def _combined(
    node: Node, at: tuple[Expr, ...], source: Node, places: Node, reduce: str, include_self: bool
) -> Node:
    op = _REDUCE[reduce]
    written = ReindexReduce(op, node.shape, at, source, places)
    need_count = reduce == "mean" or not include_self
    ones = full(1, source.shape, dt.int64)
    count = ReindexReduce("add", node.shape, at, ones, places) if need_count else None
    touched = None if count is None else Elementwise("gt", count, full(0, node.shape, dt.int64))
    old = node
    if not include_self:
        assert touched is not None
        old = where(touched, full(identity_of(op, node.dtype), node.shape, node.dtype), node)
    result: Node = Elementwise(_STEP[op], old, written)
    if reduce == "mean":
        assert count is not None
        number = add(count, full(1, node.shape, dt.int64)) if include_self else count
        one = full(1, node.shape, dt.int64)
        divisor = cast(Elementwise("maximum", number, one), node.dtype)
        divide = "div" if node.dtype.is_float else "floordiv"
        result = Elementwise(divide, result, divisor)
    return result


@dim_or_axis
@remembered
def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Var:
    """x plus src[i, j, …] at [i, index[i, j], …] along an axis (as torch.scatter_add)."""
    return scatter_reduce(x, dim, index, src, "sum")


# ------------------------------------------------------------------------- whole slices at an index


def _slices(name: str, x: Any, dim: int, index: Any, src: Any) -> tuple[Node, int, Node, Any]:
    """For index_add and its like: a 1-d index as one of x's rank, src broadcast to it."""
    node = node_of(x)
    (k,) = normal_axes(dim, max(len(node.shape), 1), name)
    places = node_of(index)
    if len(places.shape) != 1:
        raise ShapeError(f"{name}(x, dim, index): the index must be 1-d, it is {describe(places)}")
    shape = (*node.shape[:k], places.shape[0], *node.shape[k + 1 :])
    spread = Reindex(shape, (Piece(0, (("i", k),)),), places)
    return node, k, spread, src


@dim_or_axis
@remembered
def index_select(x: Any, dim: int, index: Any) -> Var:
    """The slices of x along an axis at the positions of a 1-d index."""
    node, k, spread, _ = _slices("index_select", x, dim, index, None)
    return gather(Var._of(node), k, Var._of(spread))


@dim_or_axis
@remembered
def index_add(x: Any, dim: int, index: Any, src: Any, *, alpha: float = 1) -> Var:
    """x with alpha * src[k] added to its slice index[k] along an axis; repeated places add up."""
    node, k, spread, src = _slices("index_add", x, dim, index, src)
    return scatter_add(Var._of(node), k, Var._of(spread), el.multiply(src, alpha))


@dim_or_axis
@remembered
def index_copy(x: Any, dim: int, index: Any, src: Any) -> Var:
    """x with its slices at index replaced by those of src; of repeated places the last."""
    node, k, spread, src = _slices("index_copy", x, dim, index, src)
    return scatter(Var._of(node), k, Var._of(spread), src)


@dim_or_axis
@remembered
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Var:
    """x with its slices at index filled with a number."""
    node, k, spread, value = _slices("index_fill", x, dim, index, value)
    return scatter(Var._of(node), k, Var._of(spread), value)


@remembered
def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Var:
    """x with x[indices] = values, or += with accumulate, where repeated places add up."""
    key = tuple(indices)
    if not accumulate:
        result = el.positive(x)
        setitem(result, key, values)
        return result
    node = node_of(x)
    chosen = select(node, key)
    source = el.astype(el.multiply(Var._of(full(1, chosen.shape, node.dtype)), values), node.dtype)
    total = ReindexReduce("add", node.shape, tuple(chosen.indices), source._node, *chosen.extra)
    return Var._of(Elementwise("add", node, total))


# ---------------------------------------------------------------------------------- by a condition


@remembered
def masked_fill(x: Any, mask: Any, value: Any) -> Var:
    """x with `value` where the mask holds; the mask broadcasts."""
    node = node_of(x)
    kept = value if isinstance(value, Var) else Var._of(full(value, (), node.dtype))
    return el.where(mask, el.astype(kept, node.dtype), Var._of(node))


def masked_select(x: Any, mask: Any) -> Var:
    """The elements of x where the mask holds, in order; how many is computed at the call."""
    node, choice = el.same_shape("masked_select", node_of(x), cast(node_of(mask), dt.bool_))
    return Var._of(node)[Var._of(choice)]


@remembered
def masked_scatter(x: Any, mask: Any, source: Any) -> Var:
    """x with the elements of source, in order, where the mask holds."""
    node, choice = el.same_shape("masked_scatter", node_of(x), cast(node_of(mask), dt.bool_))
    flat = cast(node_of(source), node.dtype)
    flat = reshape(flat, (flat.size,))
    number = cumsum(Var._of(reshape(choice, (choice.size,))), 0) - 1
    places = reshape(number._node, node.shape)
    read = ("read", 1, tuple(("i", k) for k in range(len(node.shape))), None)
    return Var._of(where(choice, Reindex(node.shape, (Piece(0, (read,)),), flat, places), node))


def nonzero(x: Any) -> tuple[Var, ...]:
    """The coordinates of the elements that are not 0, one int64 Var per axis (as numpy.nonzero).

    How many there are depends on the values: x is computed at the call.
    """
    var = x if isinstance(x, Var) else Var(x)
    if not var.ndim:
        raise ShapeError("nonzero(x): x is 0-d; write mo.nonzero(mo.atleast_1d(x))")
    return tuple(Var(p) for p in np.nonzero(var._array()))


def argwhere(x: Any) -> Var:
    """The coordinates of the elements that are not 0 as rows; x is computed at the call."""
    var = x if isinstance(x, Var) else Var(x)
    return Var(np.argwhere(var._array()))


def flatnonzero(x: Any) -> Var:
    """The positions in row-major order of what is not 0; x is computed at the call."""
    var = x if isinstance(x, Var) else Var(x)
    return Var(np.flatnonzero(var._array()))


@remembered
def isin(x: Any, values: Any, *, invert: bool = False) -> Var:
    """True where an element of x is among the values."""
    var = x if isinstance(x, Var) else Var(x)
    given = node_of(values)
    equal = el.equal(var.reshape((*var.shape, 1)), Var._of(reshape(given, (given.size,))))
    found = reduction.any(equal, -1)
    return el.logical_not(found) if invert else found


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Var:
    """How often each of 0, 1, … occurs in a 1-d x of integers, or the sums of their weights.

    The largest decides the shape: x is computed at the call.
    """
    places = node_of(x)
    if len(places.shape) != 1 or places.dtype.is_float:
        raise ShapeError(f"bincount(x): x must be 1-d integers, it is {describe(places)}")
    if operator.index(minlength) < 0:
        raise ValueError(f"bincount(x, minlength={minlength}): it must not be negative")
    found = Var._of(places)._array().tolist()
    if found and min(found) < 0:
        raise ValueError(f"bincount(x): no negative numbers, there is {min(found)}")
    length = max(operator.index(minlength), max(found, default=-1) + 1)
    values = full(1, places.shape, dt.int64) if weights is None else node_of(weights)
    if values.shape != places.shape:
        raise ShapeError(f"bincount: weights {describe(values)} for {describe(places)}")
    kind = values.dtype if values.dtype.is_float or weights is None else dt.float32
    at = (("read", 1, (("i", 0),), None),)
    return Var._of(ReindexReduce("add", (length,), at, cast(values, kind), places))
