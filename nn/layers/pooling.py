"""MaxPool2d and AvgPool2d."""

from __future__ import annotations

from collections.abc import Sequence

import metaop as mo

from .. import functional
from ..module import Module

Sizes = int | Sequence[int]


class MaxPool2d(Module):
    """The largest value in each window of [batch, channels, height, width].

    stride None is kernel_size.  Padding never wins.  The gradient goes to the first of equal
    maxima.  Source: as torch.nn.MaxPool2d.
    """

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        *,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, channels, height, width].  Returns [batch, channels, height', width']."""
        return functional.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of each window of [batch, channels, height, width].

    stride None is kernel_size.  Padding reads 0 and counts in the divisor unless count_include_pad
    is False.  Source: as torch.nn.AvgPool2d.
    """

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, channels, height, width].  Returns [batch, channels, height', width']."""
        return functional.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
