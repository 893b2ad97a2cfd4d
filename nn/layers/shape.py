"""What moves elements to other axes."""

from __future__ import annotations

from collections.abc import Sequence

import metaop as mo

from .. import functional
from ..module import Module
from .applied import Applied


class Flatten(Module):
    """The axes start_dim to end_dim (included) merged: [batch, ...] to [batch, features]."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [..., *merged, ...].  Returns [..., product, ...]."""
        return functional.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis `dim` split into axes of the given sizes, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [..., product, ...].  Returns [..., *unflattened_size, ...]."""
        return functional.unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class PixelShuffle(Applied):
    """[…, c*r*r, h, w] as […, c, h*r, w*r], r = upscale_factor."""

    function = staticmethod(functional.pixel_shuffle)


class PixelUnshuffle(Applied):
    """[…, c, h*r, w*r] as […, c*r*r, h, w], r = downscale_factor."""

    function = staticmethod(functional.pixel_unshuffle)


class ChannelShuffle(Applied):
    """[batch, g*k, ...] with channel i*k + j at j*g + i, g = groups."""

    function = staticmethod(functional.channel_shuffle)


class Unfold(Applied):
    """Windows as columns: [batch, channels * taps, positions]."""

    function = staticmethod(functional.unfold)


class Fold(Applied):
    """Columns added up where Unfold had read them."""

    function = staticmethod(functional.fold)
