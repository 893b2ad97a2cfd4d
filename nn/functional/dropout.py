"""Dropout."""

from __future__ import annotations

import metaop as mo
from metaop import Var


def dropout(input: Var, p: float = 0.5, training: bool = True, inplace: bool = False) -> Var:
    """Each element 0 with probability p, else divided by 1 - p; x itself when not training.

    Source: Srivastava et al. 2014, in its scale-at-training form.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0
    keep = mo.random.uniform(input.shape) >= p
    return mo.where(keep, input * (1 / (1 - p)), 0)
