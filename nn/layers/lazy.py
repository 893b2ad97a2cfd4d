"""Layers that learn their number of inputs from the first input, or from a state dict.

    net = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(),
                        nn.LazyLinear(10))
    net(images)                                   # now they are Conv2d, BatchNorm2d and Linear
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

Until then they have no parameters, and who asks for them is told so.
"""

from __future__ import annotations

import inspect
from typing import Any

import metaop as mo
from metaop import support

from ..module import Module
from .convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from .linear import Linear
from .norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)

TRACKED = {"affine": True, "track_running_stats": True}


class _Lazy(Module):
    """The layer `becomes` without its first argument, which is the extent of the input's axis.

    As torch.nn.modules.lazy.LazyModuleMixin; under `mo.jit` only what was called once before.
    """

    becomes: type[Module]
    axis: int
    defaults: dict[str, Any] = {}  # that differ from those of the plain layer
    in_weight = 0  # the axis of the weight that has this extent, times groups where it is not 0

    def __init__(self, *args: Any, **options: Any):
        super().__init__()
        given = dict(inspect.signature(self.becomes).bind(1, *args, **options).arguments)
        del given[next(iter(given))]  # the extent
        self._arguments = {**self.defaults, **given}

    def forward(self, x: mo.Var, *args: Any, **options: Any) -> Any:
        """Makes the layer for this input, and calls it."""
        if support.recording.trace is not None:
            raise mo.errors.JitError(
                f"{type(self).__name__} is called for the first time in a trace, where it makes "
                "its parameters; call the network once before mo.jit"
            )
        if not -x.ndim <= self.axis < x.ndim:
            raise mo.errors.ShapeError(
                f"{type(self).__name__}: x has no axis {self.axis}, got {mo.errors.describe(x)}"
            )
        self._become(int(x.shape[self.axis]))
        return self.forward(x, *args, **options)

    def _become(self, extent: int) -> None:
        training, kind, arguments = self.training, type(self), self._arguments
        del self._arguments
        self.__class__ = self.becomes  # type: ignore[assignment]
        try:
            type(self).__init__(self, extent, **arguments)
        except BaseException:
            self.__class__ = kind
            self._arguments = arguments
            raise
        self.training = training
        mo.sync()

    def _entries(self, table: str) -> dict[str, Any]:
        raise ValueError(
            f"{type(self).__name__} has no parameters yet, because it has seen no input; call the "
            "network once before you ask for its parameters"
        )

    def _adapt(self, state: dict[str, Any], prefix: str) -> None:
        for name in ("weight", "running_mean"):
            if f"{prefix}{name}" in state:
                extent = state[f"{prefix}{name}"].shape[self.in_weight]
                groups = self._arguments.get("groups", 1) if self.in_weight else 1
                self._become(int(extent) * groups)
                return

    def extra_repr(self) -> str:
        """The arguments it was made with."""
        return ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())


class LazyLinear(_Lazy):
    """`Linear(in_features, …)`, in_features the extent of the last axis."""

    becomes, axis, in_weight = Linear, -1, 1


class LazyConv1d(_Lazy):
    """`Conv1d(in_channels, …)`, in_channels the extent of axis 1."""

    becomes, axis, in_weight = Conv1d, -2, 1


class LazyConv2d(_Lazy):
    """`Conv2d(in_channels, …)`, in_channels the extent of axis 1."""

    becomes, axis, in_weight = Conv2d, -3, 1


class LazyConv3d(_Lazy):
    """`Conv3d(in_channels, …)`, in_channels the extent of axis 1."""

    becomes, axis, in_weight = Conv3d, -4, 1


class LazyConvTranspose1d(_Lazy):
    """`ConvTranspose1d(in_channels, …)`, in_channels the extent of axis 1."""

    becomes, axis = ConvTranspose1d, -2


class LazyConvTranspose2d(_Lazy):
    """`ConvTranspose2d(in_channels, …)`, in_channels the extent of axis 1."""

    becomes, axis = ConvTranspose2d, -3


class LazyConvTranspose3d(_Lazy):
    """`ConvTranspose3d(in_channels, …)`, in_channels the extent of axis 1."""

    becomes, axis = ConvTranspose3d, -4


class LazyBatchNorm1d(_Lazy):
    """`BatchNorm1d(num_features, …)`, num_features the extent of axis 1."""

    becomes, axis = BatchNorm1d, 1


class LazyBatchNorm2d(_Lazy):
    """`BatchNorm2d(num_features, …)`, num_features the extent of axis 1."""

    becomes, axis = BatchNorm2d, 1


class LazyBatchNorm3d(_Lazy):
    """`BatchNorm3d(num_features, …)`, num_features the extent of axis 1."""

    becomes, axis = BatchNorm3d, 1


class LazyInstanceNorm1d(_Lazy):
    """`InstanceNorm1d(num_features, …)`, num_features the extent of axis -2; by default affine,
    and with running statistics, as in torch."""

    becomes, axis, defaults = InstanceNorm1d, -2, TRACKED


class LazyInstanceNorm2d(_Lazy):
    """`InstanceNorm2d(num_features, …)`, num_features the extent of axis -3; by default affine,
    and with running statistics, as in torch."""

    becomes, axis, defaults = InstanceNorm2d, -3, TRACKED


class LazyInstanceNorm3d(_Lazy):
    """`InstanceNorm3d(num_features, …)`, num_features the extent of axis -4; by default affine,
    and with running statistics, as in torch."""

    becomes, axis, defaults = InstanceNorm3d, -4, TRACKED
