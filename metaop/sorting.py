"""Sorting, searching and sets.

The order of elements is found by a host callback (a merge sort, stable); the sorted values are a
gather at that order, which is where their gradient goes.  NaN counts as the largest number.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from . import dtype as dt
from . import elementwise as el
from .build import cast, normal_axes
from .errors import ShapeError, describe
from .graph import Escape, Node
from .indexing import getitem, take_along_axis
from .movement import reshape as reshape_var
from .recipes import remembered
from .var import Var, node_of


def _as_var(x: Any) -> Var:
    return x if isinstance(x, Var) else Var(x)


def _on_host(node: Node) -> Node:
    """A node whose memory NumPy understands: bfloat16 as float32."""
    return cast(node, dt.float32) if node.dtype is dt.bfloat16 else node


def _order(axis: int, descending: bool, x: np.ndarray) -> np.ndarray:
    """The stable order of elements along an axis."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(backwards, axis)


@remembered
def argsort(
    x: Any, axis: int | None = -1, descending: bool = False, stable: bool = True, *,
    dim: int | None = None,
) -> Var:  # fmt: skip
    """The order (int64) that sorts x along an axis, of the flat x if it is None; always stable."""
    axis = axis if dim is None else dim
    var = _as_var(x)
    if axis is None or not var.ndim:
        var, axis = reshape_var(var, (var._node.size,)), 0
    (k,) = normal_axes(axis, var.ndim, "argsort")
    node = _on_host(var._node)
    call = functools.partial(_order, k, descending)
    key = ("argsort", k, descending)
    found = Var._of(Escape("argsort", call, node.shape, dt.int64, node, key=key, any_size=True))
    return found if node_of(x).shape else reshape_var(found, ())


@remembered
def sort(
    x: Any, axis: int | None = -1, descending: bool = False, stable: bool = True, *,
    dim: int | None = None,
) -> Var:  # fmt: skip
    """x sorted along an axis, flat if it is None (the values alone); always stable.

    Gradient: each goes back to where its element was.
    """
    axis = axis if dim is None else dim
    var = _as_var(x)
    if axis is None:
        var, axis = reshape_var(var, (var._node.size,)), 0
    if not var.ndim:
        return el.positive(var)
    return take_along_axis(var, argsort(var, axis, descending), axis)


class Chosen(NamedTuple):
    """Values and where they were."""

    values: Var
    indices: Var


@remembered
def topk(
    x: Any, k: int, axis: int = -1, largest: bool = True, sorted: bool = True, *,
    dim: int | None = None,
) -> Chosen:  # fmt: skip
    """The k largest (or smallest) elements along an axis, in order, and their positions."""
    axis = axis if dim is None else dim
    var = _as_var(x)
    (j,) = normal_axes(axis, var.ndim, "topk")
    if not 0 <= k <= var.shape[j]:
        raise ShapeError(f"topk(x, {k}): axis {axis} of {describe(var)} has {var.shape[j]}")
    order = getitem(argsort(var, j, descending=largest), (slice(None),) * j + (slice(0, k),))
    return Chosen(take_along_axis(var, order, j), order)


@remembered
def kthvalue(
    x: Any, k: int, axis: int = -1, keepdims: bool = False, *,
    dim: int | None = None, keepdim: bool = False,
) -> Chosen:  # fmt: skip
    """The k-th smallest element along an axis (from 1), and its position."""
    axis = axis if dim is None else dim
    var = _as_var(x)
    (j,) = normal_axes(axis, var.ndim, "kthvalue")
    if not 1 <= k <= var.shape[j]:
        raise ShapeError(f"kthvalue(x, {k}): axis {axis} of {describe(var)} has {var.shape[j]}")
    order = getitem(argsort(var, j), (slice(None),) * j + (slice(k - 1, k),))
    values = take_along_axis(var, order, j)
    if keepdims or keepdim:
        return Chosen(values, order)
    shape = (*var.shape[:j], *var.shape[j + 1 :])
    return Chosen(reshape_var(values, shape), reshape_var(order, shape))


# -------------------------------------------------------------------------------------- searching


def _search(side: str, sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.searchsorted(sorted_values, values, side)  # type: ignore[call-overload]


@remembered
def searchsorted(
    sorted_sequence: Any, values: Any, /, *, side: str = "left", sorter: Any = None,
    right: bool = False,
) -> Var:  # fmt: skip
    """Where values would stand in a sorted 1-d sequence (int64): before equal ones, or behind
    them with side="right"; sorter: the order that sorts the sequence."""
    sequence = _as_var(sorted_sequence)
    if sequence.ndim != 1 or side not in ("left", "right"):
        raise ShapeError(
            f"searchsorted: a 1-d sequence and side 'left' or 'right', got {describe(sequence)}, "
            f"{side!r}"
        )
    if sorter is not None:
        sequence = sequence[sorter]
    side = "right" if right else side
    a, b = _on_host(sequence._node), _on_host(node_of(values))
    call = functools.partial(_search, side)
    key = ("searchsorted", side)
    node = Escape("searchsorted", call, b.shape, dt.int64, a, b, key=key, any_size=True)
    return Var._of(node)


def bucketize(x: Any, boundaries: Any, *, right: bool = False) -> Var:
    """The number of the bin of each x: boundaries[k - 1] < x <= boundaries[k], or with right=True
    boundaries[k - 1] <= x < boundaries[k] (as torch.bucketize)."""
    return searchsorted(boundaries, x, side="right" if right else "left")


def digitize(x: Any, bins: Any, right: bool = False) -> Var:
    """The number of the bin of each x: bins[k - 1] <= x < bins[k] (as numpy.digitize)."""
    return searchsorted(bins, x, side="left" if right else "right")


# ------------------------------------------------------------------------------------------- sets


class UniqueAll(NamedTuple):
    """What unique_all returns."""

    values: Var
    indices: Var
    inverse_indices: Var
    counts: Var


class UniqueCounts(NamedTuple):
    """What unique_counts returns."""

    values: Var
    counts: Var


class UniqueInverse(NamedTuple):
    """What unique_inverse returns."""

    values: Var
    inverse_indices: Var


def unique_all(x: Any, /) -> UniqueAll:
    """The distinct elements in order, where each is met first, the number of each element of x
    among them, and how often each occurs.  How many there are depends on the values: x is computed
    at the call.  Every NaN is distinct."""
    var = _as_var(x)
    array = var._array()
    options: dict[str, Any] = {"equal_nan": False}
    _, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, **options
    )
    values = reshape_var(var, (var._node.size,))[np.asarray(first, np.int64)]
    inverse = np.asarray(inverse, np.int64).reshape(array.shape)
    return UniqueAll(values, Var(first), Var(inverse), Var(counts))


def unique_values(x: Any, /) -> Var:
    """The distinct elements in order; x is computed at the call."""
    return unique_all(x).values


def unique_counts(x: Any, /) -> UniqueCounts:
    """The distinct elements in order, and how often each occurs; x is computed at the call."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The distinct elements in order, and the number of each element of x among them; x is computed
    at the call."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique(
    x: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """The distinct elements in order (as numpy.unique), and a tuple with what else is asked for;
    x is computed at the call."""
    found = unique_all(x)
    wanted = (True, return_index, return_inverse, return_counts)
    parts = tuple(part for part, is_wanted in zip(found, wanted) if is_wanted)
    return parts if len(parts) > 1 else parts[0]
