"""Reading and writing parts: every NumPy index of integers, slices, None, Ellipsis, integer and
boolean Vars and arrays.

A read is one reindex.  A write `x[i] = v` makes a new version of x: a reindex of two pieces, v
inside the written part and the old x elsewhere.  Where a boolean mask decides how many elements
there are, it is computed at the call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import dtype as dt
from . import elementwise as el
from .aliases import axis_or_dim
from .build import (
    broadcast_shapes,
    broadcast_to,
    cast,
    full,
    linear_position,
    reshape,
    where,
)
from .errors import DTypeError, ShapeError, describe
from .extent import keep_origin, slice_indices, slice_length
from .graph import Elementwise, IndexOf, Node, Piece, Reindex, ReindexReduce, Shape
from .index import TRUE, Expr, conjunction
from .recipes import remembered
from .var import Var, buffer_of, node_of


@dataclass
class Selection:
    """What an index selects: per axis of x an expression over the result's loops.

    shape: of the result; indices: what is read; conditions, inverse: for basic indices the part
    of x that is selected and, per axis of the result, which element of it an element of x is.
    """

    shape: Shape
    indices: list[Expr]
    extra: list[Node] = field(default_factory=list)
    conditions: list[Expr] = field(default_factory=list)
    inverse: list[Expr] = field(default_factory=list)
    advanced: bool = False  # there are index arrays


class _Mask:
    """A boolean array among the keys: it takes as many axes of x as it has (0-d: none)."""

    def __init__(self, node: Node):
        self.node = node

    def positions(self) -> list[Any]:
        """One array of coordinates per axis, computed now; for a 0-d mask one that only counts."""
        mask = Var._of(self.node)._array()
        if not mask.ndim:
            return [_Count(1 if mask else 0)]
        return [buffer_of(p.astype(np.uint64)) for p in np.nonzero(mask)]


class _Count:
    """x[True] and x[False]: an index array of one or no elements that takes no axis of x."""

    def __init__(self, count: int):
        self.shape = (count,)


def _is_array(key: Any) -> bool:
    return isinstance(key, Var | np.ndarray | list)


def _axes_taken(key: Any) -> int:
    if key is None or key is Ellipsis:
        return 0
    return len(key.node.shape) if isinstance(key, _Mask) else 1


def _normalised(node: Node, key: Any) -> list[Any]:
    """The index as one entry per axis of x (and None), the Ellipsis expanded, masks as the
    coordinates of what they choose."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [_index_array(k) if _is_array(k) else k for k in keys]
    keys = [_Mask(node_of(bool(k))) if isinstance(k, bool | np.bool_) else k for k in keys]
    used = sum(map(_axes_taken, keys))
    rank = len(node.shape)
    if sum(k is Ellipsis for k in keys) > 1:
        raise IndexError("an index can only have one Ellipsis ('...')")
    if used > rank:
        raise IndexError(f"too many indices: x is {describe(node)}, {used} were given")
    if not any(k is Ellipsis for k in keys):
        keys.append(Ellipsis)
    position = next(i for i, k in enumerate(keys) if k is Ellipsis)
    keys = [*keys[:position], *[slice(None)] * (rank - used), *keys[position + 1 :]]
    return _unmasked(node, keys) if any(isinstance(k, _Mask) for k in keys) else keys


def _unmasked(node: Node, keys: list[Any]) -> list[Any]:
    result: list[Any] = []
    axis = 0
    for k in keys:
        taken = _axes_taken(k)
        if isinstance(k, _Mask):
            if k.node.shape != node.shape[axis : axis + taken]:
                raise IndexError(
                    f"x[mask]: the mask must have the shape of x or of the axes that it stands "
                    f"for, x is {describe(node)}, the mask {describe(k.node)}"
                )
            result += k.positions()
        else:
            result.append(k)
        axis += taken
    return result


def _index_array(key: Any) -> Any:
    array = node_of(key)
    if array.dtype is dt.bool_:
        return _Mask(array)
    if array.dtype.is_float:
        if isinstance(key, list) and not key:
            return cast(array, dt.int64)
        raise IndexError(f"an index must be an integer, got {describe(array)}")
    return array


def _integer(node: Node, key: Any, axis: int) -> int:
    if isinstance(key, bool) or not hasattr(key, "__index__"):
        raise IndexError(
            f"x[{key!r}]: an index is an integer, slice, None, Ellipsis or integer array; "
            f"x is {describe(node)}"
        )
    position, extent = keep_origin(key), node.shape[axis]
    if not -extent <= position < extent:
        raise IndexError(
            f"index {position} is out of bounds for axis {axis} with size {extent}; "
            f"x is {describe(node)}"
        )
    return position if position >= 0 else position + extent


def select(node: Node, key: Any) -> Selection:
    """What x[key] selects.  Raises IndexError as NumPy does."""
    keys = _normalised(node, key)
    if any(isinstance(k, Node | _Count) for k in keys):
        return _advanced(node, keys)
    shape: list[int] = []
    result = Selection((), [])
    axis = 0
    for k in keys:
        if k is None:
            shape.append(1)
            result.inverse.append(0)
            continue
        if isinstance(k, slice):
            start, step, count = _slice(k, node.shape[axis])
            loop: Expr = ("i", len(shape))
            result.indices.append(_affine(loop, step, start))
            _invert_slice(result, axis, start, step, count, node.shape[axis])
            shape.append(count)
        else:
            position = _integer(node, k, axis)
            result.indices.append(position)
            result.conditions.append(("eq", ("i", axis), position))
        axis += 1
    result.shape = tuple(shape)
    return result


def _slice(key: slice, extent: int) -> tuple[int, int, int]:
    """(start, step, count) of a slice of an axis."""
    start, stop, step = slice_indices(key, extent)
    return start, step, slice_length(start, stop, step)


def _affine(loop: Expr, step: int, start: int) -> Expr:
    e = loop if step == 1 else ("mul", loop, step)
    return ("add", e, start) if start else e


def _invert_slice(
    result: Selection, axis: int, start: int, step: int, count: int, extent: int
) -> None:
    """Which elements of an axis a slice selects, and the number of each among them."""
    loop: Expr = ("i", axis)
    last = start + (count - 1) * step
    low, high = (start, last) if step > 0 else (last, start)
    if count == 0:
        result.conditions.append(("lt", loop, 0))
        result.inverse.append(0)
        return
    if low > 0:
        result.conditions.append(("le", low, loop))
    if high < extent - 1:
        result.conditions.append(("lt", loop, high + 1))
    distance: Expr = ("sub", loop, start) if step > 0 else ("sub", start, loop)
    if abs(step) > 1:
        result.conditions.append(("eq", ("mod", distance, abs(step)), 0))
        distance = ("floordiv", distance, abs(step))
    result.inverse.append(distance)


def _advanced(node: Node, keys: list[Any]) -> Selection:
    """Integer arrays among the keys: they broadcast together and become axes of the result at
    the place of the first one, or in front if a slice or None separates them (as NumPy)."""
    places = [p for p, k in enumerate(keys) if k is not None and not isinstance(k, slice)]
    arrays = [k for k in keys if isinstance(k, Node | _Count)]
    try:
        common = broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        raise IndexError(
            "shape mismatch: index arrays do not broadcast: "
            + ", ".join(describe(a) if isinstance(a, Node) else "a bool" for a in arrays)
        ) from None
    together = places == list(range(places[0], places[-1] + 1))
    front = sum(k is None or isinstance(k, slice) for k in keys[: places[0]]) if together else 0
    loops: list[Expr] = [("i", front + k) for k in range(len(common))]
    result = Selection((), [], advanced=True)
    outer: list[int] = []  # extents of the axes that slices and None make
    axis = 0
    for k in keys:
        number = len(outer) if len(outer) < front else len(outer) + len(common)
        if k is None:
            outer.append(1)
            continue
        if isinstance(k, _Count):
            continue
        if isinstance(k, slice):
            start, step, count = _slice(k, node.shape[axis])
            result.indices.append(_affine(("i", number), step, start))
            outer.append(count)
        elif isinstance(k, Node):
            result.indices.append(_read(result, k, loops, common, node.shape[axis]))
        else:
            result.indices.append(_integer(node, k, axis))
        axis += 1
    result.shape = (*outer[:front], *common, *outer[front:])
    return result


def _read(
    result: Selection,
    array: Node,
    loops: list[Expr],
    common: Shape,
    extent: int,
    negative: bool = True,
) -> Expr:
    """A checked read of an index array; negative numbers count from the end, or are refused."""
    result.extra.append(array)
    skip = len(common) - len(array.shape)
    at = tuple(0 if n == 1 else loops[skip + k] for k, n in enumerate(array.shape))
    if array.dtype.kind == "u" or not negative:
        return ("read", len(result.extra), at, (0, extent))
    read = ("read", len(result.extra), at, (-extent, extent))
    return ("where", ("lt", read, 0), ("add", read, extent), read)


def getitem(x: Any, key: Any) -> Var:
    """x[key].  An integer array is checked when the value is computed: IndexError."""
    if type(key) is tuple:
        for part in key:
            if type(part) is np.ndarray:
                return _part(x, tuple([_array_as_var(k) for k in key]))
    return _part(x, _array_as_var(key))


def _array_as_var(key: Any) -> Any:
    return Var(key) if type(key) is np.ndarray else key


@remembered
def _part(x: Any, key: Any) -> Var:
    node = node_of(x)
    chosen = select(node, key)
    return Var._of(Reindex(chosen.shape, (Piece(0, tuple(chosen.indices)),), node, *chosen.extra))


def setitem(x: Var, key: Any, value: Any) -> None:
    """x[key] = value: x becomes a new version; what was recorded with the old one keeps it.

    Repeated integer indices: the last one wins.  A boolean mask with a value that does not depend
    on how many elements are chosen stays lazy; else the mask is computed at the call.
    """
    x._before_update()
    node = x._node
    mask = _whole_mask(x, key)
    if mask is not None:
        source = _assignable(value, None, node)
        if len(source.shape) <= len(node.shape) - len(mask.shape):
            x._update(Var._of(_masked(node, mask, source)))
            return
    chosen = select(node, key)
    source = _assignable(value, chosen.shape, node)
    if chosen.advanced:
        x._update(Var._of(_scattered(node, chosen, source)))
        return
    condition: Expr = TRUE
    for part in chosen.conditions:
        condition = conjunction(condition, part)
    inside = Piece(0, tuple(chosen.inverse), condition)
    rank = len(node.shape)
    elsewhere = Piece(1, tuple(("i", k) for k in range(rank)))
    pieces = (inside,) if condition == TRUE else (inside, elsewhere)
    x._update(Var._of(Reindex(node.shape, pieces, *((source, node)[: len(pieces)]))))


def _whole_mask(x: Var, key: Any) -> Node | None:
    """The key if it is a boolean mask over the first axes of x."""
    if isinstance(key, tuple) or not _is_array(key):
        return None
    node = node_of(key)
    if node.dtype is not dt.bool_:
        return None
    if node.shape != x.shape[: len(node.shape)]:
        raise IndexError(
            f"x[mask]: the mask must have the shape of x or of its first axes, "
            f"x is {describe(x)}, the mask {describe(node)}"
        )
    return node


def _masked(node: Node, mask: Node, source: Node) -> Node:
    """source where the mask holds: it broadcasts against the axes behind those of the mask."""
    rest = node.shape[len(mask.shape) :]
    try:
        fits = broadcast_shapes(source.shape, rest) == rest
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"x[mask] = v: v must broadcast to x behind the mask, v is {describe(source)}, x is "
            f"{describe(node)}, the mask {describe(mask)}"
        )
    spread = reshape(mask, (*mask.shape, *(1,) * len(rest)))
    return where(broadcast_to(spread, node.shape), broadcast_to(source, node.shape), node)


def _assignable(value: Any, shape: Shape | None, target: Node) -> Node:
    """The value in the target's dtype, broadcast to a shape unless that is None."""
    node = node_of(value)
    if not hasattr(value, "dtype") and target.dtype.is_float:
        node = node_of(value, target.dtype)  # a Python float is not rounded to float32 first
    if node.dtype.is_float and not target.dtype.is_float:
        raise DTypeError(f"x[i] = v: cannot write {describe(node)} into {describe(target)}")
    node = cast(node, target.dtype)
    if shape is None:
        return node
    while len(node.shape) > len(shape) and node.shape[0] == 1:
        node = reshape(node, node.shape[1:])
    try:
        fits = broadcast_shapes(node.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"x[i] = v: v must broadcast to the selected part, v is {describe(node)}, "
            f"the part has shape {shape}"
        )
    return broadcast_to(node, shape)


def _scattered(node: Node, chosen: Selection, source: Node) -> Node:
    """Assignment through integer arrays: each place takes the last value written to it."""
    number = linear_position(chosen.shape)
    last = ReindexReduce("maximum", node.shape, tuple(chosen.indices), number, *chosen.extra)
    written = Elementwise("ge", last, full(0, node.shape, dt.int64))
    flat = reshape(source, (source.size,))
    if not source.size:
        return node
    read = ("read", 1, tuple(("i", k) for k in range(len(node.shape))), None)
    taken = Reindex(node.shape, (Piece(0, (read,)),), flat, last)
    return where(written, taken, node)


@axis_or_dim
def take(x: Any, indices: Any, axis: int | None = None, *, negative: bool = True) -> Var:
    """Slices of x along an axis at integer indices (as numpy.take); indices are checked.

    negative: whether -1 counts from the end, as in NumPy, or is out of range, as in PyTorch.
    """
    given = indices if isinstance(indices, Var) else Var(np.asarray(indices))
    return _taken(x, given, axis) if negative else _taken_from_0(x, given, axis)


@remembered
def _taken(x: Any, indices: Var, axis: int | None) -> Var:
    node, axis = _axis_to_take(x, axis)
    return getitem(Var._of(node), (slice(None),) * axis + (indices,))


@remembered
def _taken_from_0(x: Any, indices: Var, axis: int | None) -> Var:
    node, axis = _axis_to_take(x, axis)
    index = indices._node
    if not index.dtype.is_integer:
        raise DTypeError(f"take(x, indices): indices must be integers, got {describe(index)}")
    rank = len(index.shape)
    chosen = Selection((*node.shape[:axis], *index.shape, *node.shape[axis + 1 :]), [])
    loops: list[Expr] = [("i", k) for k in range(len(chosen.shape))]
    places = loops[axis : axis + rank]
    found = _read(chosen, index, places, index.shape, node.shape[axis], negative=False)
    at = (*loops[:axis], found, *loops[axis + rank :])
    return Var._of(Reindex(chosen.shape, (Piece(0, at),), node, index))


def _axis_to_take(x: Any, axis: int | None) -> tuple[Node, int]:
    """x and the axis to take from, the only one of all elements where axis is None."""
    node = node_of(x)
    if axis is None:
        return reshape(node, (node.size,)), 0
    if not -len(node.shape) <= axis < len(node.shape):
        raise ShapeError(f"take(x, indices, axis={axis}): x is {describe(node)}")
    return node, axis % len(node.shape)


@axis_or_dim
@remembered
def take_along_axis(x: Any, indices: Any, axis: int = -1, *, negative: bool = True) -> Var:
    """out[i, j, …] = x[i, indices[i, j, …], …] along an axis; indices are checked.

    negative: whether -1 counts from the end, as in NumPy, or is out of range, as in PyTorch.
    """
    node, index = node_of(x), node_of(indices)
    rank = len(node.shape)
    if len(index.shape) != rank or index.dtype.is_float:
        raise ShapeError(
            f"take_along_axis(x, indices): indices must be integers of x's rank, "
            f"x is {describe(node)}, indices {describe(index)}"
        )
    axis %= rank
    outer = tuple(n if k == axis else max(n, node.shape[k]) for k, n in enumerate(index.shape))
    for k in range(rank):
        if k != axis and {node.shape[k], index.shape[k]} - {1, outer[k]}:
            raise ShapeError(
                f"take_along_axis(x, indices): extents must agree beside axis {axis}, "
                f"x is {describe(node)}, indices {describe(index)}"
            )
    chosen = Selection(outer, [])
    loops: list[Expr] = [("i", k) for k in range(rank)]
    found = _read(chosen, index, loops, outer, node.shape[axis], negative)
    at = tuple(found if k == axis else (0 if node.shape[k] == 1 else ("i", k)) for k in range(rank))
    return Var._of(Reindex(outer, (Piece(0, at),), node, index))


@remembered
def one_hot(labels: Any, classes: int, dtype: Any = dt.float32) -> Var:
    """out[…, k] = 1 where labels[…] is k, else 0."""
    node = node_of(labels)
    spread = Var._of(reshape(node, (*node.shape, 1)))
    return el.astype(el.equal(spread, Var._of(IndexOf((classes,), 0))), dtype)
