"""Conv1d to Conv3d, and ConvTranspose1d to 3d."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter

Sizes = int | Sequence[int]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


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
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
    ):
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"{type(self).__name__}: padding_mode must be one of {', '.join(PADDING_MODES)}, "
                f"got {padding_mode!r}"
            )
        self.padding_mode = padding_mode
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
        shape = self._weight_shape()
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

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.fan_in_uniform_(self.weight, self.bias)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, in_channels, *space].  Returns [batch, out_channels, *space']."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = functional.pad(x, self._margins(), self.padding_mode), 0
        return type(self).function(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _margins(self) -> list[int]:
        """What `functional.pad` adds, from the last axis to the first."""
        pairs: list[tuple[int, int]] = []
        for k, (size, gap) in enumerate(zip(self.kernel_size, self.dilation, strict=True)):
            span = (size - 1) * gap
            if isinstance(self.padding, str):
                pairs.append((span // 2, span - span // 2) if self.padding == "same" else (0, 0))
            else:
                pairs.append((self.padding[k], self.padding[k]))
        return [margin for pair in reversed(pairs) for margin in pair]

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
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
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


class Conv3d(_Convolution):
    """Conv2d with three axes: x [batch, in_channels, depth, height, width].

    Source: as torch.nn.Conv3d.
    """

    rank = 3
    function = staticmethod(functional.conv3d)


class _TransposedConvolution(_Convolution):
    """What transposed convolutions of every rank share; see ConvTranspose2d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        *,
        dtype: Any = None,
    ):
        self.output_padding = _per_axis(output_padding, self.rank)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            dtype=dtype,
        )  # fmt: skip

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, x: mo.Var, output_size: Sequence[int] | None = None) -> mo.Var:
        """x: [batch, in_channels, *space].  Returns [batch, out_channels, *space'].

        output_size: space', one of those that convolve to space; it takes output_padding's place.
        """
        extra = self.output_padding if output_size is None else self._extra(x, output_size)
        return type(self).function(
            x, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra(self, x: mo.Var, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output_padding that gives this size."""
        pads: Any = self.padding
        wanted = tuple(output_size)[-self.rank :]
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                map(int, x.shape[2:]), self.stride, pads, self.dilation, self.kernel_size,
                strict=True,
            )
        ]  # fmt: skip
        extra = tuple(w - n for w, n in zip(wanted, least, strict=True))
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            raise ValueError(
                f"{type(self).__name__}: output_size must be at least {least} and less than a "
                f"stride more, got {list(wanted)}"
            )
        return extra

    def extra_repr(self) -> str:
        """The constructor's arguments, those at their default left out."""
        shown = super().extra_repr()
        if self.output_padding != (0,) * self.rank:
            shown += f", output_padding={self.output_padding}"
        return shown


class ConvTranspose1d(_TransposedConvolution):
    """`out[n, o, i*s + r*d - p] += x[n, c, i] * weight[c, o, r]`, plus bias[o].

    Source: as torch.nn.ConvTranspose1d.
    """

    rank = 1
    function = staticmethod(functional.conv_transpose1d)


class ConvTranspose2d(_TransposedConvolution):
    """`out[n, o, i*s + r*d - p, …] += x[n, c, i, …] * weight[c, o, r, …]`, plus bias[o].

    x: [batch, in_channels, height, width]; weight: [in_channels, out_channels/groups, window,
    window].  Returns [batch, out_channels, (height - 1)*s - 2p + d*(window - 1) + output_padding +
    1, likewise].

    Source: as torch.nn.ConvTranspose2d.
    """

    rank = 2
    function = staticmethod(functional.conv_transpose2d)


class ConvTranspose3d(_TransposedConvolution):
    """ConvTranspose2d with three axes.  Source: as torch.nn.ConvTranspose3d."""

    rank = 3
    function = staticmethod(functional.conv_transpose3d)
