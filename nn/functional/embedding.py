"""Embeddings."""

from __future__ import annotations

import metaop as mo
from metaop import Var, support

from .arguments import of_arrays


@of_arrays
@support.remembered
def embedding(input: Var, weight: Var, padding_idx: int | None = None) -> Var:
    """`weight[input]`: rows of weight [num, dim] for integers in 0 … num-1 of any shape.

    padding_idx: a row that takes part without a gradient.
    Raises: IndexError, from the call that computes, for an index outside the rows, or below 0.
    """
    if not input.dtype.is_integer:
        raise mo.errors.DTypeError(
            f"embedding: input must be integers, got {mo.errors.describe(input)}"
        )
    rows = mo.take(weight, input, axis=0, negative=False)
    if padding_idx is None:
        return rows
    padded = mo.expand_dims(input == padding_idx % weight.shape[0], -1)
    return mo.where(padded, rows.detach(), rows)


BAGS = ("sum", "mean", "max")


@of_arrays
@support.remembered
def embedding_bag(
    input: Var,
    weight: Var,
    offsets: Var | None = None,
    mode: str = "mean",
    per_sample_weights: Var | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Var:
    """The sum, mean or largest of the rows `weight[input]` in every bag: [bags, dim].

    input: integers [bags, length], or with offsets [count], where bag b begins at offsets[b] (with
    include_last_offset the last offset is the end).  per_sample_weights: of input's shape, factors
    of the rows for mode "sum".  padding_idx: integers that count for nothing.  An empty bag is 0.
    """
    if mode not in BAGS:
        raise ValueError(f"embedding_bag: mode must be one of {', '.join(BAGS)}, got {mode!r}")
    if per_sample_weights is not None and mode != "sum":
        raise ValueError("embedding_bag: per_sample_weights needs mode='sum'")
    if (input.ndim == 1) != (offsets is not None):
        raise mo.errors.ShapeError(
            "embedding_bag: input must be [bags, length], or [count] with offsets, "
            f"got {mo.errors.describe(input)}"
        )
    rows = mo.take(weight, input, axis=0, negative=False)
    counted = mo.ones(input.shape, dtype=mo.bool_)
    if padding_idx is not None:
        counted = input != padding_idx % weight.shape[0]
    if offsets is not None:
        return _ragged_bags(rows, counted, offsets, mode, per_sample_weights, include_last_offset)
    if per_sample_weights is not None:
        rows = rows * mo.expand_dims(per_sample_weights, -1)
    return _reduced(rows, mo.expand_dims(counted, -1), mode, 1)


def _ragged_bags(
    rows: Var, counted: Var, offsets: Var, mode: str, factors: Var | None, has_end: bool
) -> Var:
    """Bag b holds the places from offsets[b] up to the next."""
    count = rows.shape[0]
    starts = offsets[:-1] if has_end else offsets
    ends = offsets[1:] if has_end else mo.concat([offsets[1:], mo.array([int(count)])])
    place = mo.arange(count)
    inside = (place >= starts[:, None]) & (place < ends[:, None]) & counted
    if factors is not None:
        rows = rows * factors[:, None]
    if mode == "max":
        return _reduced(rows[None], inside[:, :, None], mode, 1)
    total = inside.astype(rows.dtype) @ rows
    if mode == "sum":
        return total
    return total / mo.maximum(inside.sum(axis=1), 1).astype(rows.dtype)[:, None]


def _reduced(rows: Var, counted: Var, mode: str, axis: int) -> Var:
    if mode == "max":
        largest = mo.where(counted, rows, rows.dtype.lowest).max(axis=axis)
        return mo.where(counted.any(axis=axis), largest, 0)
    total = mo.where(counted, rows, 0).sum(axis=axis)
    if mode == "sum":
        return total
    return total / mo.maximum(counted.sum(axis=axis), 1).astype(rows.dtype)
