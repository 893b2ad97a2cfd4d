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
    Raises: IndexError, from the call that computes, for an index outside the rows.
    """
    if not input.dtype.is_integer:
        raise mo.errors.DTypeError(
            f"embedding: input must be integers, got {mo.errors.describe(input)}"
        )
    rows = mo.take(weight, input, axis=0)
    if padding_idx is None:
        return rows
    padded = mo.expand_dims(input == padding_idx % weight.shape[0], -1)
    return mo.where(padded, rows.detach(), rows)
