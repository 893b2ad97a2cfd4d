"""Pooling."""

from __future__ import annotations

import metaop as mo
from metaop import Var

from .arguments import Sizes, of_arrays


@of_arrays
def max_pool2d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Var:
    """The largest value in each window; see `mo.max_pool2d`."""
    return mo.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


@of_arrays
def avg_pool2d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Var:
    """The mean of each window; see `mo.avg_pool2d`."""
    return mo.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
