"""Functions that move elements: each is one reindex."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import build
from .aliases import axis_or_dim
from .build import broadcast_shapes, cast, normal_axes
from .dtype import promote_all
from .errors import ShapeError, describe
from .extent import keep_origin, slice_indices
from .graph import Node, Piece, Reindex, Shape, count_of, size_of
from .index import TRUE, Expr, conjunction
from .recipes import remembered
from .var import Var, node_of


def takes_keyword(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets a function of separate integers (`*shape`) take them as one keyword, too."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if name in options:
                arguments = (*arguments, options.pop(name))
            return function(*arguments, **options)

        return wrapped

    return decorate


def shape_of(shape: Any) -> Shape:
    """A shape given as a tuple or as separate integers.  Raises ShapeError."""
    if len(shape) == 1 and isinstance(shape[0], list | tuple | np.ndarray):
        shape = shape[0]
    try:
        extents = tuple([n if type(n) is int else keep_origin(n) for n in shape])
    except TypeError:
        raise ShapeError(f"a shape is a tuple of integers, not {tuple(shape)!r}") from None
    return extents


def extents_of(operation: str, *shape: Any) -> Shape:
    """The shape of a new array.  Raises ShapeError, also for negative extents."""
    extents = shape_of(shape)
    if any(n < 0 for n in extents):
        raise ShapeError(f"{operation}(shape): extents must not be negative, got {extents}")
    return extents


def _integers(value: Any) -> list[int]:
    """One integer, or several, as a list.  Raises TypeError for anything else."""
    try:
        return [operator.index(value)]
    except TypeError:
        return [operator.index(v) for v in value]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer)


@remembered
@takes_keyword("shape")
def reshape(x: Any, *shape: Any, copy: bool | None = None) -> Var:
    """x with the same elements in row-major order; one extent may be -1.

    copy: accepted and without meaning, values never change.
    """
    node = node_of(x)
    target = shape_of(shape)
    if min(target, default=0) < 0:
        target = _completed(node, target)
    if count_of(target) != count_of(node.shape):
        raise ShapeError(
            f"reshape(x, shape): sizes must agree, x is {describe(node)} with {node.size} "
            f"elements, shape {target} has {size_of(target)}"
        )
    return Var._of(_new(build.reshape(node, target), node))


def _completed(node: Node, target: Shape) -> Shape:
    """A target of a reshape with the extent that is written as -1."""
    if target.count(-1) > 1 or min(target) < -1:
        raise ShapeError(f"reshape(x, shape): bad shape {target}")
    rest = size_of([n for n in target if n != -1])
    if rest == 0 or node.size % rest:
        raise ShapeError(f"reshape(x, shape): cannot reshape {describe(node)} to {target}")
    missing = node.size // rest
    return tuple([missing if n == -1 else n for n in target])


def _new(result: Node, source: Node) -> Node:
    """A node of its own even when nothing moves: a Var must not share its node with another."""
    if result is not source:
        return result
    rank = len(source.shape)
    return Reindex(source.shape, (Piece(0, tuple(("i", k) for k in range(rank))),), source)


@remembered
def flatten(x: Any, start: int = 0, end: int = -1) -> Var:
    """x with the axes from start to end (inclusive) merged into one."""
    node = node_of(x)
    if not node.shape:
        return reshape(x, 1)
    (first,) = normal_axes(start, len(node.shape), "flatten")
    (last,) = normal_axes(end, len(node.shape), "flatten")
    if first > last:
        raise ShapeError(f"flatten(x, start, end): start {start} lies behind end {end}")
    middle = size_of(node.shape[first : last + 1])
    return reshape(x, (*node.shape[:first], middle, *node.shape[last + 1 :]))


@remembered
@takes_keyword("axes")
def permute_dims(x: Any, *axes: Any) -> Var:
    """x with its axes in another order: axis k of the result is axes[k] of x."""
    node = node_of(x)
    order = shape_of(axes)
    rank = len(node.shape)
    if sorted(a % rank if rank and -rank <= a < rank else -1 for a in order) != list(range(rank)):
        raise ShapeError(f"permute(x, axes): {order} is no order of the axes of {describe(node)}")
    return Var._of(build.permute(node, [a % rank for a in order]))


def transpose(x: Any, *axes: Any) -> Var:
    """x with its axes permuted; without axes, reversed (as numpy.transpose)."""
    rank = len(node_of(x).shape)
    if not axes or axes == (None,):
        axes = tuple(range(rank))[::-1]
    return permute_dims(x, *axes)


def matrix_transpose(x: Any) -> Var:
    """x with its last two axes swapped."""
    return swapaxes(x, -1, -2)


@remembered
def swapaxes(x: Any, a: int, b: int) -> Var:
    """x with two axes exchanged."""
    rank = len(node_of(x).shape)
    (first,), (second,) = normal_axes(a, rank, "swapaxes"), normal_axes(b, rank, "swapaxes")
    order = list(range(rank))
    order[first], order[second] = second, first
    return permute_dims(x, order)


@remembered
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Var:
    """x with some axes moved to other places, the rest in order."""
    rank = len(node_of(x).shape)
    starts = [normal_axes(a, rank, "moveaxis")[0] for a in _integers(source)]
    ends = [normal_axes(a, rank, "moveaxis")[0] for a in _integers(destination)]
    if len(starts) != len(ends) or len({*starts}) != len(starts) or len({*ends}) != len(ends):
        raise ShapeError(
            f"moveaxis(x, source, destination): need as many different axes in both, got "
            f"{source} and {destination}"
        )
    order = [k for k in range(rank) if k not in starts]
    for end, start in sorted(zip(ends, starts)):
        order.insert(end, start)
    return permute_dims(x, order)


@axis_or_dim
@remembered
def expand_dims(x: Any, axis: int | Sequence[int] = 0) -> Var:
    """x with new axes of size one at the given places of the result."""
    node = node_of(x)
    given = _integers(axis)
    rank = len(node.shape) + len(given)
    axes = normal_axes(given, rank, "expand_dims")
    rest = iter(node.shape)
    return reshape(x, tuple(1 if k in axes else next(rest) for k in range(rank)))


@axis_or_dim
@remembered
def squeeze(x: Any, axis: Any = None) -> Var:
    """x without axes of size one: all of them, or those given."""
    node = node_of(x)
    if axis is None:
        return reshape(x, tuple(n for n in node.shape if n != 1))
    axes = normal_axes(axis, len(node.shape), "squeeze")
    if any(node.shape[k] != 1 for k in axes):
        raise ShapeError(f"squeeze(x, axis): axis {axis} of {describe(node)} is not of size one")
    return reshape(x, tuple(n for k, n in enumerate(node.shape) if k not in axes))


@takes_keyword("shape")
def broadcast_to(x: Any, *shape: Any) -> Var:
    """x repeated along new and size-one axes to a shape."""
    node = node_of(x)
    target = shape_of(shape)
    try:
        fits = broadcast_shapes(node.shape, target) == target
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"broadcast_to(x, shape): {describe(node)} does not fit {target}")
    return Var._of(_new(build.broadcast_to(node, target), node))


@axis_or_dim
def flip(x: Any, axis: Any = None) -> Var:
    """x with the order of elements along axes reversed."""
    node = node_of(x)
    axes = normal_axes(axis, len(node.shape), "flip")
    indices = tuple(
        ("sub", n - 1, ("i", k)) if k in axes else ("i", k) for k, n in enumerate(node.shape)
    )
    return Var._of(Reindex(node.shape, (Piece(0, indices),), node))


@axis_or_dim
@remembered
def roll(x: Any, shift: Any, axis: Any = None) -> Var:
    """x moved by `shift` places along axes, wrapping around; without axis, as if flat."""
    node = node_of(x)
    if axis is None:
        return reshape(roll(reshape(x, -1), shift, 0), node.shape)
    shifts, axes = _integers(shift), _integers(axis)
    if len(shifts) != len(axes) and 1 not in (len(shifts), len(axes)):
        raise ShapeError(
            f"roll(x, shift, axis): need as many shifts as axes, got {shift} and {axis}"
        )
    count = max(len(shifts), len(axes))
    shifts, axes = (v * count if len(v) == 1 else v for v in (shifts, axes))
    indices: list[Expr] = [("i", k) for k in range(len(node.shape))]
    for by, a in zip(shifts, axes):
        (k,) = normal_axes(a, len(node.shape), "roll")
        if node.shape[k]:
            indices[k] = ("mod", ("sub", indices[k], by % node.shape[k]), node.shape[k])
    return Var._of(Reindex(node.shape, (Piece(0, tuple(indices)),), node))


@axis_or_dim
@remembered
def concat(arrays: Sequence[Any], axis: int | None = 0) -> Var:
    """Arrays joined along an axis (None: as if flat); one reindex with a piece for each."""
    nodes = [node_of(a) for a in arrays]
    if not nodes:
        raise ShapeError("concat(arrays): need at least one array")
    if axis is None:
        nodes = [build.reshape(n, (n.size,)) for n in nodes]
        axis = 0
    dtype = promote_all([node.dtype for node in nodes])
    first = nodes[0]
    (k,) = normal_axes(axis, len(first.shape), "concat")
    for node in nodes:
        if _without(node.shape, k) != _without(first.shape, k):
            raise ShapeError(
                f"concat(arrays, axis={axis}): all extents but that of the axis must agree, "
                f"got {describe(first)} and {describe(node)}"
            )
    return Var._of(_joined([cast(n, dtype) for n in nodes], k))


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], -1, *shape[axis + 1 :])


def _joined(nodes: list[Node], axis: int) -> Node:
    if len(nodes) == 1:
        return _new(nodes[0], nodes[0])
    pieces = []
    start = 0
    for number, node in enumerate(nodes):
        end = start + node.shape[axis]
        indices: list[Expr] = [("i", k) for k in range(len(node.shape))]
        indices[axis] = ("sub", ("i", axis), start) if start else ("i", axis)
        condition = conjunction(("le", start, ("i", axis)), ("lt", ("i", axis), end))
        pieces.append(Piece(number, tuple(indices), condition))
        start = end
    shape = (*nodes[0].shape[:axis], start, *nodes[0].shape[axis + 1 :])
    return Reindex(shape, tuple(pieces), *nodes)


@axis_or_dim
@remembered
def stack(arrays: Sequence[Any], axis: int = 0) -> Var:
    """Arrays of one shape joined along a new axis."""
    shapes = {node_of(a).shape for a in arrays}
    if not shapes:
        raise ShapeError("stack(arrays): need at least one array")
    if len(shapes) != 1:
        raise ShapeError(f"stack(arrays): all shapes must agree, got {sorted(shapes)}")
    return concat([expand_dims(a, axis) for a in arrays], axis)


_PAD_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
_TORCH_MODES = {"replicate": "edge", "circular": "wrap"}


@remembered
def pad(x: Any, width: Any, mode: str = "constant", constant_values: float = 0) -> Var:
    """x with elements added before and after each axis.

    width: one int, one pair for all axes, or a pair per axis (as numpy.pad); mode: constant,
    edge (= replicate), reflect, symmetric or wrap (= circular).
    """
    node = node_of(x)
    pairs = _pad_pairs(width, node)
    mode = _TORCH_MODES.get(mode, mode)
    if mode not in _PAD_MODES:
        raise ValueError(f"pad(x, width, mode): mode must be one of {_PAD_MODES}, not {mode!r}")
    shape = tuple(n + before + after for n, (before, after) in zip(node.shape, pairs))
    indices: list[Expr] = []
    for k, (n, (before, after)) in enumerate(zip(node.shape, pairs)):
        inner: Expr = ("sub", ("i", k), before) if before else ("i", k)
        if mode != "constant" and (before or after):
            inner = _pad_index(mode, inner, n, max(before, after), node)
        indices.append(inner)
    return Var._of(Reindex(shape, (Piece(0, tuple(indices), TRUE),), node, fill=constant_values))


def _pad_index(mode: str, inner: Expr, n: int, most: int, node: Node) -> Expr:
    if n == 0:
        raise ShapeError(f"pad(x, width, {mode!r}): {describe(node)} is too small for {most}")
    if mode == "wrap":
        return ("mod", inner, n)
    if mode == "edge":
        return ("min", ("max", inner, 0), n - 1)
    if n == 1:
        return 0
    # symmetric repeats the edge (-1 -> 0), reflect does not (-1 -> 1)
    first = -1 if mode == "symmetric" else 0
    last = 2 * (n - 1) - first
    if most > n - 1 - first:  # wider than one reflection: it repeats
        inner = ("mod", inner, last - first)
        return ("min", inner, ("sub", last, inner))
    positive = ("max", inner, ("sub", first, inner))
    return ("min", positive, ("sub", last, positive))


def _pad_pairs(width: Any, node: Node) -> list[tuple[int, int]]:
    rank = len(node.shape)
    listed = [width] if _is_integer(width) else list(width)
    if all(_is_integer(w) for w in listed) and len(listed) <= 2:
        pairs = [(int(listed[0]), int(listed[-1]))] * rank
    else:
        pairs = [(int(_integers(w)[0]), int(_integers(w)[-1])) for w in listed]
        if len(pairs) == 1:
            pairs = pairs * rank
    if len(pairs) != rank or any(w < 0 for pair in pairs for w in pair):
        raise ShapeError(
            f"pad(x, width): need a pair of non-negative integers for each axis of "
            f"{describe(node)}, got {width}"
        )
    return pairs


@remembered
def tile(x: Any, repeats: Any) -> Var:
    """x repeated whole along each axis."""
    node = node_of(x)
    counts = _integers(repeats)
    if any(c < 0 for c in counts):
        raise ShapeError(f"tile(x, repeats): counts must not be negative, got {repeats}")
    rank = max(len(counts), len(node.shape))
    counts = [1] * (rank - len(counts)) + counts
    extents = [1] * (rank - len(node.shape)) + list(node.shape)
    shape = tuple(n * c for n, c in zip(extents, counts))
    skip = rank - len(node.shape)
    if 0 in extents:
        return reshape(x, shape)
    indices = tuple(("mod", ("i", k + skip), n) for k, n in enumerate(node.shape))
    return Var._of(Reindex(shape, (Piece(0, indices),), node))


@axis_or_dim
@remembered
def repeat(x: Any, count: Any, axis: int | None = None) -> Var:
    """x with every element repeated along an axis (None: of the flat x).

    count: one integer, or one for each element of the axis, whose sum is the new extent: a Var of
    counts is computed at the call.
    """
    if axis is None:
        return repeat(reshape(x, -1) if node_of(x).size else reshape(x, 0), count, 0)
    node = node_of(x)
    (k,) = normal_axes(axis, len(node.shape), "repeat")
    counts = _integers(count.tolist() if isinstance(count, Var) else count)
    if any(c < 0 for c in counts):
        raise ShapeError(f"repeat(x, count): counts must not be negative, got {count}")
    if len(counts) != 1:
        return _repeated(node, counts, k)
    each = counts[0]
    shape = (*node.shape[:k], node.shape[k] * each, *node.shape[k + 1 :])
    indices = tuple(
        ("floordiv", ("i", j), each) if j == k and each > 1 else ("i", j)
        for j in range(len(node.shape))
    )
    return Var._of(Reindex(shape, (Piece(0, indices),), node))


def _repeated(node: Node, counts: list[int], axis: int) -> Var:
    if len(counts) != node.shape[axis]:
        raise ShapeError(
            f"repeat(x, count): need one count or {node.shape[axis]}, got {len(counts)}; "
            f"x is {describe(node)}"
        )
    source = [position for position, count in enumerate(counts) for _ in range(count)]
    places = node_of(np.array(source, np.int64))
    shape = (*node.shape[:axis], len(source), *node.shape[axis + 1 :])
    indices: list[Expr] = [("i", k) for k in range(len(node.shape))]
    indices[axis] = ("read", 1, (("i", axis),), None)
    return Var._of(Reindex(shape, (Piece(0, tuple(indices)),), node, places))


@axis_or_dim
@remembered
def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> list[Var]:
    """x cut along an axis into equal sections, or at the given places (as numpy.split)."""
    node = node_of(x)
    (k,) = normal_axes(axis, len(node.shape), "split")
    n = node.shape[k]
    if isinstance(sections, int | np.integer):
        count = int(sections)
        if count <= 0 or n % count:
            raise ShapeError(f"split(x, {count}): axis {axis} of {describe(node)} has {n}")
        cuts = [n // count * part for part in range(count + 1)]
    else:
        cuts = [0, *(slice_indices(slice(c, None), n)[0] for c in sections), n]
    parts = []
    for start, end in itertools.pairwise(cuts):
        extent = max(end - start, 0)
        shape = (*node.shape[:k], extent, *node.shape[k + 1 :])
        indices = tuple(
            ("add", ("i", j), start) if j == k and start else ("i", j)
            for j in range(len(node.shape))
        )
        parts.append(Var._of(Reindex(shape, (Piece(0, indices),), node)))
    return parts


@remembered
def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Var]:
    """Coordinate arrays over the product of 1-d arrays (as numpy.meshgrid)."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid(arrays, indexing): 'xy' or 'ij', not {indexing!r}")
    nodes = [node_of(a) for a in arrays]
    order = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        order[0], order[1] = 1, 0
    shape = tuple(nodes[k].size for k in order)
    return [
        Var._of(Reindex(shape, (Piece(0, (("i", order.index(k)),)),), build.reshape(n, (n.size,))))
        for k, n in enumerate(nodes)
    ]
