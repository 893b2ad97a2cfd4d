"""Upsampling, and what is added around an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import metaop as mo

from .. import functional
from ..module import Module
from .applied import Applied


class Upsample(Applied):
    """[batch, channels, *space] at another size; see `functional.interpolate`."""

    function = staticmethod(functional.interpolate)
    hidden = ("antialias",)


class UpsamplingNearest2d(Upsample):
    """Upsample with mode "nearest"."""


class UpsamplingBilinear2d(Upsample):
    """Upsample with mode "bilinear" and align_corners."""

    function = staticmethod(functional.interpolate)
    defaults = {"mode": "bilinear", "align_corners": True}


class _Pad(Module):
    """A pad of the last `rank` axes: padding is one number, or pairs from the last axis on."""

    rank: int
    mode: str
    value: float | None = None

    def __init__(self, padding: int | Sequence[int]):
        super().__init__()
        self.padding: Any = (
            tuple(padding) if isinstance(padding, Sequence) else (padding,) * (2 * self.rank)
        )

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [..., *space].  Returns [..., *space'], each axis longer by its pair."""
        return functional.pad(x, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The constructor's argument."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float):
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """x with value before and after its last axis."""

    rank = 1


class ZeroPad1d(_Pad):
    """x with 0 before and after its last axis."""

    rank, mode = 1, "constant"


class ReflectionPad1d(_Pad):
    """x with its reflection before and after its last axis."""

    rank, mode = 1, "reflect"


class ReplicationPad1d(_Pad):
    """x with its border before and after its last axis."""

    rank, mode = 1, "replicate"


class CircularPad1d(_Pad):
    """x with what comes at its other end before and after its last axis."""

    rank, mode = 1, "circular"


class ConstantPad2d(_ConstantPad):
    """x with value before and after its last two axes."""

    rank = 2


class ZeroPad2d(_Pad):
    """x with 0 before and after its last two axes."""

    rank, mode = 2, "constant"


class ReflectionPad2d(_Pad):
    """x with its reflection before and after its last two axes."""

    rank, mode = 2, "reflect"


class ReplicationPad2d(_Pad):
    """x with its border before and after its last two axes."""

    rank, mode = 2, "replicate"


class CircularPad2d(_Pad):
    """x with what comes at its other end before and after its last two axes."""

    rank, mode = 2, "circular"


class ConstantPad3d(_ConstantPad):
    """x with value before and after its last three axes."""

    rank = 3


class ZeroPad3d(_Pad):
    """x with 0 before and after its last three axes."""

    rank, mode = 3, "constant"


class ReflectionPad3d(_Pad):
    """x with its reflection before and after its last three axes."""

    rank, mode = 3, "reflect"


class ReplicationPad3d(_Pad):
    """x with its border before and after its last three axes."""

    rank, mode = 3, "replicate"


class CircularPad3d(_Pad):
    """x with what comes at its other end before and after its last three axes."""

    rank, mode = 3, "circular"
