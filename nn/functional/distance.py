"""Distances and similarities of vectors."""

from __future__ import annotations

import metaop as mo
from metaop import Var, support

from .arguments import of_arrays, vector_norm


@of_arrays
@support.remembered
def cosine_similarity(x1: Var, x2: Var, dim: int = 1, eps: float = 1e-8) -> Var:
    """`<x1, x2> / (max(|x1|, eps) * max(|x2|, eps))` along dim; x1 and x2 broadcast."""
    x1, x2 = mo.broadcast_arrays(x1, x2)
    norms = (mo.maximum(vector_norm(x, 2, dim, True), eps) for x in (x1, x2))
    one, other = (x / norm for x, norm in zip((x1, x2), norms, strict=True))
    return (one * other).sum(axis=dim)


@of_arrays
@support.remembered
def pairwise_distance(
    x1: Var, x2: Var, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Var:
    """The p-norm of `x1 - x2 + eps` along the last axis."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


@of_arrays
@support.remembered
def pdist(input: Var, p: float = 2.0) -> Var:
    """The p-norm distances of all pairs of rows, in the order (0, 1), (0, 2), … (1, 2), …."""
    rows, columns = mo.triu_indices(input.shape[0], k=1)
    return vector_norm(mo.take(input, rows, 0) - mo.take(input, columns, 0), p, -1)
