"""Pooling of one to three axes: the largest, the mean or the norm of windows and bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import metaop as mo

from .. import functional
from ..module import Module
from .applied import Applied

Sizes = int | Sequence[int]


class MaxPool2d(Module):
    """The largest value in each window of [batch, channels, height, width].

    stride None is kernel_size.  Padding never wins.  The gradient goes to the first of equal
    maxima.  Source: as torch.nn.MaxPool2d.
    """

    pool: Callable[..., Any] = staticmethod(functional.max_pool2d)

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode
        self.return_indices = return_indices

    def forward(self, x: mo.Var) -> Any:
        """x: [batch, channels, *space].  Returns [batch, channels, *space'], and with
        return_indices the places of the maxima."""
        return type(self).pool(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of each window of [batch, channels, height, width].

    stride None is kernel_size.  Padding reads 0 and counts in the divisor unless count_include_pad
    is False; divisor_override divides in its place.  Source: as torch.nn.AvgPool2d.
    """

    pool: Callable[..., Any] = staticmethod(functional.avg_pool2d)

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, channels, *space].  Returns [batch, channels, *space']."""
        divisor = () if self.divisor_override is None else (self.divisor_override,)
        return type(self).pool(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            *divisor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(MaxPool2d):
    """MaxPool2d of [batch, channels, length]."""

    pool = staticmethod(functional.max_pool1d)


class AvgPool1d(AvgPool2d):
    """AvgPool2d of [batch, channels, length]."""

    pool = staticmethod(functional.avg_pool1d)


class MaxPool3d(MaxPool2d):
    """MaxPool2d of [batch, channels, depth, height, width]."""

    pool = staticmethod(functional.max_pool3d)


class AvgPool3d(AvgPool2d):
    """AvgPool2d of [batch, channels, depth, height, width]."""

    pool = staticmethod(functional.avg_pool3d)


class LPPool1d(Applied):
    """`sum(x ** norm_type) ** (1/norm_type)` over windows of [batch, channels, length]."""

    function = staticmethod(functional.lp_pool1d)


class AdaptiveAvgPool1d(Applied):
    """The mean of every bin of [batch, channels, length]."""

    function = staticmethod(functional.adaptive_avg_pool1d)


class AdaptiveMaxPool1d(Applied):
    """The largest of every bin of [batch, channels, length]."""

    function = staticmethod(functional.adaptive_max_pool1d)


class LPPool2d(Applied):
    """`sum(x ** norm_type) ** (1/norm_type)` over windows of [batch, channels, height, width]."""

    function = staticmethod(functional.lp_pool2d)


class AdaptiveAvgPool2d(Applied):
    """The mean of every bin of [batch, channels, height, width]."""

    function = staticmethod(functional.adaptive_avg_pool2d)


class AdaptiveMaxPool2d(Applied):
    """The largest of every bin of [batch, channels, height, width]."""

    function = staticmethod(functional.adaptive_max_pool2d)


class LPPool3d(Applied):
    """`sum(x ** norm_type) ** (1/norm_type)` over windows of three axes."""

    function = staticmethod(functional.lp_pool3d)


class AdaptiveAvgPool3d(Applied):
    """The mean of every bin of [batch, channels, depth, height, width]."""

    function = staticmethod(functional.adaptive_avg_pool3d)


class AdaptiveMaxPool3d(Applied):
    """The largest of every bin of [batch, channels, depth, height, width]."""

    function = staticmethod(functional.adaptive_max_pool3d)


class MaxUnpool1d(Module):
    """What MaxPool1d gave with return_indices back in its places, 0 elsewhere."""

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(
        self, x: mo.Var, indices: mo.Var, output_size: Sequence[int] | None = None
    ) -> mo.Var:
        """x, indices: [batch, channels, *space]; output_size: one that pools to space."""
        return functional.max_unpool1d(
            x, indices, self.kernel_size, self.stride, self.padding, output_size
        )


class MaxUnpool2d(Module):
    """What MaxPool2d gave with return_indices back in its places, 0 elsewhere."""

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(
        self, x: mo.Var, indices: mo.Var, output_size: Sequence[int] | None = None
    ) -> mo.Var:
        """x, indices: [batch, channels, *space]; output_size: one that pools to space."""
        return functional.max_unpool2d(
            x, indices, self.kernel_size, self.stride, self.padding, output_size
        )


class MaxUnpool3d(Module):
    """What MaxPool3d gave with return_indices back in its places, 0 elsewhere."""

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(
        self, x: mo.Var, indices: mo.Var, output_size: Sequence[int] | None = None
    ) -> mo.Var:
        """x, indices: [batch, channels, *space]; output_size: one that pools to space."""
        return functional.max_unpool3d(
            x, indices, self.kernel_size, self.stride, self.padding, output_size
        )
