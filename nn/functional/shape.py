"""What changes the shape alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import metaop as mo
from metaop import Var, support


@support.remembered
def flatten(input: Var, start_dim: int = 0, end_dim: int = -1) -> Var:
    """The axes start_dim to end_dim (included) merged into one."""
    if input.ndim == 0:
        return input.reshape((1,))
    start, end = (_axis("flatten", d, input.ndim) for d in (start_dim, end_dim))
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    merged = math.prod(input.shape[start : end + 1])
    return input.reshape((*input.shape[:start], merged, *input.shape[end + 1 :]))


@support.remembered
def unflatten(input: Var, dim: int, sizes: Sequence[int]) -> Var:
    """Axis `dim` split into axes of the given sizes, one of which may be -1."""
    axis = _axis("unflatten", dim, input.ndim)
    split = tuple(sizes)
    if split.count(-1) == 1:
        rest = -math.prod(split)
        split = tuple(input.shape[axis] // rest if s == -1 and rest else s for s in split)
    if min(split, default=0) < 0 or math.prod(split) != input.shape[axis]:
        raise mo.errors.ShapeError(
            f"unflatten: sizes {tuple(sizes)} do not multiply to axis {dim} "
            f"of {mo.errors.describe(input)}"
        )
    return input.reshape((*input.shape[:axis], *split, *input.shape[axis + 1 :]))


def _axis(name: str, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise mo.errors.ShapeError(f"{name}: axis {axis} is out of range for rank {rank}")
    return axis % rank


def one_hot(tensor: Var, num_classes: int) -> Var:
    """`out[..., c] = 1 if tensor[...] == c else 0`, int64."""
    return mo.one_hot(tensor, num_classes, dtype=mo.int64)
