"""Dropout."""

from __future__ import annotations

import metaop as mo

from .. import functional
from ..module import Module


class Dropout(Module):
    """In training, each element 0 with probability p, else divided by 1 - p; in inference x.

    Source: Srivastava et al. 2014; as torch.nn.Dropout.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be between 0 and 1, got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"p={self.p}, inplace={self.inplace}"
