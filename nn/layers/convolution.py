"""Conv1d and Conv2d."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter

Sizes = int | Sequence[int]


def _per_axis(value: Sizes, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


class _Convolution(Module):
    """What convolutions of every rank share: arguments, parameters, repr."""

    rank: int
    function: Callable[..., mo.Var]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{type(self).__name__}: groups must divide in_channels {in_channels} and "
                f"out_channels {out_channels}, got {groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _per_axis(kernel_size, self.rank)
        self.stride = _per_axis(stride, self.rank)
        self.padding = padding if isinstance(padding, str) else _per_axis(padding, self.rank)
        self.dilation = _per_axis(dilation, self.rank)
        dtype = dtype or mo.float32
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        if math.prod(shape) < 1 or min(shape) < 0:
            raise ValueError(
                f"{type(self).__name__}: channels and kernel_size must be positive, "
                f"the weight would be {shape}"
            )
        self.weight = Parameter(mo.zeros(shape, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(mo.zeros((out_channels,), dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.fan_in_uniform_(self.weight, self.bias)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, in_channels, *space].  Returns [batch, out_channels, *space']."""
        return type(self).function(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        """The constructor's arguments, those at their default left out."""
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}, stride={self.stride}",
        ]
        if self.padding != (0,) * self.rank:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.rank:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class Conv1d(_Convolution):
    """`out[n,o,i] = sum(x[n, c, i*s + r*d - p] * weight[o, c, r] over c, r) + bias[o]`.

    x: [batch, in_channels, length]; weight: [out_channels, in_channels/groups, kernel_size].
    Parameters start uniform on ±1/sqrt(in_channels/groups * kernel_size).

    Source: as torch.nn.Conv1d.
    """

    rank = 1
    function = staticmethod(functional.conv1d)


class Conv2d(_Convolution):
    """`out[n,o,i,j] = sum(x[n, c, i*s + r*d - p, j*s + q*d - p] * weight[o, c, r, q]) + bias[o]`.

    x: [batch, in_channels, height, width]; weight: [out_channels, in_channels/groups, window,
    window].  padding may be "same" or "valid".  Parameters start uniform on
    ±1/sqrt(in_channels/groups * window²).

    Source: as torch.nn.Conv2d.
    """

    rank = 2
    function = staticmethod(functional.conv2d)
