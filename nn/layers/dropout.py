"""Dropout of elements and of channels."""

from __future__ import annotations

from collections.abc import Callable

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
            raise ValueError(f"{type(self).__name__}: p must be between 0 and 1, got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"p={self.p}, inplace={self.inplace}"


class _Applied(Dropout):
    """A dropout by another function."""

    drop: Callable[..., mo.Var]

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape that the function takes.  Returns the same shape."""
        return type(self).drop(x, self.p, self.training)


class Dropout1d(_Applied):
    """Each channel of [batch, channels, length] 0 with probability p in training."""

    drop = staticmethod(functional.dropout1d)


class Dropout2d(_Applied):
    """Each channel of [batch, channels, height, width] 0 with probability p in training."""

    drop = staticmethod(functional.dropout2d)


class Dropout3d(_Applied):
    """Each channel of [batch, channels, *space] 0 with probability p in training."""

    drop = staticmethod(functional.dropout3d)


class AlphaDropout(_Applied):
    """Dropout that keeps mean 0 and variance 1 behind SELU."""

    drop = staticmethod(functional.alpha_dropout)


class FeatureAlphaDropout(_Applied):
    """AlphaDropout of whole channels."""

    drop = staticmethod(functional.feature_alpha_dropout)
