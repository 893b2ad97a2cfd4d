"""More functions that move elements, composed of those of `metaop.movement`: joining, cutting,
diagonals, rotation."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from .aliases import axis_or_dim, dim_or_axis
from .build import broadcast_shapes, normal_axes
from .errors import ShapeError, describe
from .graph import Node, Piece, Reindex, size_of
from .index import Expr
from .indexing import getitem
from .movement import (
    broadcast_to,
    concat,
    expand_dims,
    flip,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    split,
    swapaxes,
)
from .recipes import remembered
from .var import Var, node_of


def _as_var(x: Any) -> Var:
    return x if isinstance(x, Var) else Var(x)


def _axis(x: Any, axis: int, operation: str) -> int:
    (k,) = normal_axes(axis, len(node_of(x).shape), operation)
    return k


# --------------------------------------------------------------------------------- shapes


@remembered
def ravel(x: Any) -> Var:
    """x as one axis, in row-major order."""
    return reshape(x, (-1,) if node_of(x).size else (0,))


@axis_or_dim
@remembered
def unflatten(x: Any, axis: int, sizes: Sequence[int]) -> Var:
    """x with one axis cut into several, of which one size may be -1."""
    node = node_of(x)
    k = _axis(x, axis, "unflatten")
    inner = list(sizes)
    if inner.count(-1) == 1:
        rest = size_of(n for n in inner if n != -1)
        if rest and node.shape[k] % rest == 0:
            inner[inner.index(-1)] = node.shape[k] // rest
    if size_of(inner) != node.shape[k]:
        raise ShapeError(
            f"unflatten(x, axis, sizes): {tuple(sizes)} do not multiply to axis {axis} of "
            f"{describe(node)}"
        )
    return reshape(x, (*node.shape[:k], *inner, *node.shape[k + 1 :]))


def _at_least(x: Any, rank: int) -> Var:
    var = _as_var(x)
    if rank == 3 and var.ndim == 2:  # as NumPy: matrices are stacked behind
        return expand_dims(var, 2)
    if rank == 3 and var.ndim == 1:
        return expand_dims(var, (0, 2))
    return reshape(var, ((1,) * (rank - var.ndim) + var.shape)) if var.ndim < rank else var


def _each(arrays: tuple[Any, ...], rank: int) -> Any:
    found = [_at_least(a, rank) for a in arrays]
    return found[0] if len(found) == 1 else found


@remembered
def atleast_1d(*arrays: Any) -> Any:
    """Each array with at least one axis."""
    return _each(arrays, 1)


@remembered
def atleast_2d(*arrays: Any) -> Any:
    """Each array with at least two axes, new ones in front."""
    return _each(arrays, 2)


@remembered
def atleast_3d(*arrays: Any) -> Any:
    """Each array with at least three axes, as numpy.atleast_3d."""
    return _each(arrays, 3)


@remembered
def broadcast_arrays(*arrays: Any) -> list[Var]:
    """The arrays repeated to their common shape."""
    nodes = [node_of(a) for a in arrays]
    try:
        shape = broadcast_shapes(*(n.shape for n in nodes)) if nodes else ()
    except ValueError as error:
        kinds = ", ".join(describe(n) for n in nodes)
        raise ShapeError(f"broadcast_arrays: {kinds} do not broadcast ({error})") from None
    return [broadcast_to(a, shape) for a in arrays]


@remembered
def expand(x: Any, *shape: Any) -> Var:
    """x repeated to a shape, in which -1 keeps an extent (as torch.Tensor.expand)."""
    node = node_of(x)
    target = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], Iterable) else list(shape)
    skip = len(target) - len(node.shape)
    for k, n in enumerate(target):
        if n == -1 and k >= skip:
            target[k] = node.shape[k - skip]
    return broadcast_to(x, tuple(target))


@remembered
def broadcast(x: Any, shape: Any, dims: Any = ()) -> Var:
    """x repeated to a shape (or to that of a Var), `dims` being the axes of it that x lacks.

    As Jittor's broadcast: `a.broadcast((n, m, k), dims=[2])[i, j, l] = a[i, j]`.
    """
    target = tuple(shape.shape) if hasattr(shape, "shape") else tuple(shape)
    missing = normal_axes(dims, len(target), "broadcast") if dims or dims == 0 else ()
    return broadcast_to(expand_dims(x, missing) if missing else x, target)


# --------------------------------------------------------------------------------- joining


@remembered
def vstack(arrays: Sequence[Any]) -> Var:
    """Arrays joined as rows: along the first axis, after atleast_2d."""
    return concat([_at_least(a, 2) for a in arrays], 0)


@remembered
def hstack(arrays: Sequence[Any]) -> Var:
    """Arrays joined along the second axis, 1-d ones along the first."""
    found = [_at_least(a, 1) for a in arrays]
    return concat(found, 0 if found and found[0].ndim == 1 else 1)


@remembered
def dstack(arrays: Sequence[Any]) -> Var:
    """Arrays joined along the third axis, after atleast_3d."""
    return concat([_at_least(a, 3) for a in arrays], 2)


@remembered
def column_stack(arrays: Sequence[Any]) -> Var:
    """1-d arrays as the columns of a matrix."""
    found = [_as_var(a) for a in arrays]
    return concat([reshape(a, (-1, 1)) if a.ndim < 2 else a for a in found], 1)


@axis_or_dim
@remembered
def append(x: Any, values: Any, axis: int | None = None) -> Var:
    """values joined behind x, flat without an axis."""
    return concat([x, values], axis)


# --------------------------------------------------------------------------------- cutting


@axis_or_dim
@remembered
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Var, ...]:
    """The slices of x along an axis, without it."""
    k = _axis(x, axis, "unstack")
    var = _as_var(x)
    return tuple(getitem(var, (slice(None),) * k + (n,)) for n in range(var.shape[k]))


@dim_or_axis
@remembered
def unbind(x: Any, dim: int = 0) -> tuple[Var, ...]:
    """The slices of x along an axis, without it."""
    return unstack(x, axis=dim)


@dim_or_axis
@remembered
def chunk(x: Any, chunks: int, dim: int = 0) -> list[Var]:
    """x cut into at most `chunks` parts of equal size, the last one smaller (as torch.chunk)."""
    k = _axis(x, dim, "chunk")
    if chunks < 1:
        raise ShapeError(f"chunk(x, chunks): need at least one chunk, got {chunks}")
    n = node_of(x).shape[k]
    size = max(-(-n // chunks), 1)
    return split(x, [*range(size, n, size)], k)


@axis_or_dim
@remembered
def array_split(x: Any, sections: int | Sequence[int], axis: int = 0) -> list[Var]:
    """x cut into `sections` parts whose sizes differ by at most one, the larger ones first."""
    if not hasattr(sections, "__index__"):
        return split(x, sections, axis)
    count = operator.index(sections)
    if count < 1:
        raise ShapeError(f"array_split(x, sections): need at least one section, got {count}")
    n = node_of(x).shape[_axis(x, axis, "array_split")]
    base, extra = n // count, n % count
    cuts = [base * k + min(k, extra) for k in range(1, count)]
    return split(x, cuts, axis)


tensor_split = array_split


@remembered
def hsplit(x: Any, sections: int | Sequence[int]) -> list[Var]:
    """x cut along its second axis, a 1-d x along its first."""
    return split(x, sections, 0 if node_of(x).shape[1:] == () else 1)


@remembered
def vsplit(x: Any, sections: int | Sequence[int]) -> list[Var]:
    """x cut along its first axis."""
    return split(x, sections, 0)


@remembered
def dsplit(x: Any, sections: int | Sequence[int]) -> list[Var]:
    """x cut along its third axis."""
    return split(x, sections, 2)


@dim_or_axis
@remembered
def narrow(x: Any, dim: int, start: int, length: int) -> Var:
    """x[start : start + length] along an axis; start may count from the end."""
    k = _axis(x, dim, "narrow")
    var = _as_var(x)
    first = start + var.shape[k] if start < 0 else start
    if first < 0 or length < 0 or first + length > var.shape[k]:
        raise ShapeError(
            f"narrow(x, {dim}, {start}, {length}): axis {dim} of {describe(var)} is too short"
        )
    return getitem(var, (slice(None),) * k + (slice(first, first + length),))


@dim_or_axis
@remembered
def select(x: Any, dim: int, index: int) -> Var:
    """x[index] along an axis, which disappears (as torch.select)."""
    return getitem(x, (slice(None),) * _axis(x, dim, "select") + (index,))


# ------------------------------------------------------------------------- turning and mirroring


def fliplr(x: Any) -> Var:
    """x with the order of its second axis reversed."""
    return flip(x, 1)


def flipud(x: Any) -> Var:
    """x with the order of its first axis reversed."""
    return flip(x, 0)


@remembered
def rot90(x: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Var:
    """x turned k times by a quarter from the first towards the second of two axes."""
    first, second = (_axis(x, a, "rot90") for a in axes)
    if first == second:
        raise ShapeError(f"rot90(x, k, axes): two different axes, not {tuple(axes)}")
    turns = k % 4
    if turns == 0:
        return reshape(x, node_of(x).shape)
    if turns == 2:
        return flip(x, (first, second))
    if turns == 1:
        return swapaxes(flip(x, second), first, second)
    return flip(swapaxes(x, first, second), second)


def t(x: Any) -> Var:
    """A matrix transposed; what has fewer axes as it is (as torch.t)."""
    node = node_of(x)
    if len(node.shape) > 2:
        raise ShapeError(f"t(x): at most two axes, x is {describe(node)}")
    return permute_dims(x, tuple(range(len(node.shape)))[::-1])


# --------------------------------------------------------------------------------- diagonals


@remembered
def diagonal(
    x: Any,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    *,
    dim1: int | None = None,
    dim2: int | None = None,
) -> Var:
    """out[…, i] = x[i, i + offset] of two axes, which become the last one of the result."""
    node = node_of(x)
    first = _axis(x, axis1 if dim1 is None else dim1, "diagonal")
    second = _axis(x, axis2 if dim2 is None else dim2, "diagonal")
    if first == second:
        raise ShapeError("diagonal(x): two different axes are needed")
    rest = [k for k in range(len(node.shape)) if k not in (first, second)]
    rows, columns = node.shape[first], node.shape[second]
    down, right = max(-offset, 0), max(offset, 0)
    count = max(min(rows - down, columns - right), 0)
    last = ("i", len(rest))
    indices: list[Expr] = [0] * len(node.shape)
    for position, k in enumerate(rest):
        indices[k] = ("i", position)
    indices[first], indices[second] = ("add", last, down), ("add", last, right)
    shape = (*(node.shape[k] for k in rest), count)
    return Var._of(Reindex(shape, (Piece(0, tuple(indices)),), node))


@remembered
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Var:
    """The last axis of x on a diagonal of two new ones, zeros elsewhere (as torch.diag_embed)."""
    node = node_of(x)
    if not node.shape:
        raise ShapeError("diag_embed(x): x needs an axis")
    rank = len(node.shape)
    down, right = max(-offset, 0), max(offset, 0)
    size = node.shape[-1] + down + right
    row, column = ("i", rank - 1), ("i", rank)
    on_diagonal = ("eq", ("sub", column, right), ("sub", row, down))
    indices = (*(("i", k) for k in range(rank - 1)), ("sub", row, down))
    shape = (*node.shape[:-1], size, size)
    made = Var._of(Reindex(shape, (Piece(0, indices, on_diagonal),), node))
    return moveaxis(made, (-2, -1), (dim1, dim2)) if (dim1, dim2) != (-2, -1) else made


@remembered
def diag(x: Any, k: int = 0) -> Var:
    """A 1-d x as the k-th diagonal of a matrix, or the k-th diagonal of a matrix."""
    rank = len(node_of(x).shape)
    if rank == 1:
        return diag_embed(x, k)
    if rank == 2:
        return diagonal(x, k)
    raise ShapeError(f"diag(x): one or two axes, x is {describe(node_of(x))}")


@remembered
def diagflat(x: Any, k: int = 0) -> Var:
    """The flat x as the k-th diagonal of a matrix."""
    return diag_embed(ravel(x), k)


@remembered
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Var:
    """The sum of a diagonal."""
    return diagonal(x, offset, axis1, axis2).sum(-1)


# --------------------------------------------------------------------------------- repetition


@dim_or_axis
@remembered
def repeat_interleave(x: Any, repeats: Any, dim: int | None = None) -> Var:
    """x with each element repeated along an axis, flat without one (torch's name of `repeat`)."""
    return repeat(x, repeats, dim)


def swapdims(x: Any, a: int, b: int) -> Var:
    """x with two axes exchanged."""
    return swapaxes(x, a, b)


@remembered
def block_diag(*arrays: Any) -> Var:
    """Matrices along the diagonal of one, zeros elsewhere."""
    found = [_at_least(a, 2) for a in arrays]
    width = sum(a.shape[1] for a in found)
    rows, start = [], 0
    for a in found:
        rows.append(_padded(a._node, start, width))
        start = start + a.shape[1]
    return concat(rows, 0)


def _padded(node: Node, before: int, width: int) -> Var:
    piece = Piece(0, (("i", 0), ("sub", ("i", 1), before)))
    return Var._of(Reindex((node.shape[0], width), (piece,), node))
