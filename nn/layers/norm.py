"""Normalisation by the statistics of batches, layers, groups, samples and channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import metaop as mo

from .. import functional, init
from ..functional.norm import counting_batch_norm
from ..module import Module
from ..parameter import Parameter
from .applied import Applied


def _affine(module: Module, shape: tuple[int, ...], present: bool, bias: bool, dtype: Any) -> None:
    """Register `weight` (ones) and `bias` (zeros) of this shape, or their absence."""
    weight = Parameter(mo.ones(shape, dtype=dtype)) if present else None
    module.register_parameter("weight", weight)
    module.register_parameter(
        "bias", Parameter(mo.zeros(shape, dtype=dtype)) if present and bias else None
    )


def _reset_affine(module: Module) -> None:
    if module.weight is not None:
        init.ones_(module.weight)
    if module.bias is not None:
        init.zeros_(module.bias)


class _BatchNorm(Module):
    """What batch norms of every rank share; see BatchNorm2d."""

    ranks: tuple[int, ...]
    optional_state = frozenset({"num_batches_tracked"})

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = None,
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        dtype = dtype or mo.float32
        _affine(self, (num_features,), affine, bias, dtype)
        tracked = track_running_stats
        zeros = mo.zeros((num_features,), dtype=dtype) if tracked else None
        ones = mo.ones((num_features,), dtype=dtype) if tracked else None
        self.register_buffer("running_mean", zeros)
        self.register_buffer("running_var", ones)
        count = mo.zeros((), dtype=mo.int64) if tracked else None
        self.register_buffer("num_batches_tracked", count)

    def reset_running_stats(self) -> None:
        """Forget the statistics: mean 0, variance 1, no batch seen."""
        if self.running_mean is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Forget the statistics and set weight to 1, bias to 0."""
        self.reset_running_stats()
        _reset_affine(self)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, num_features, ...].  Returns the same shape."""
        if x.ndim not in self.ranks:
            allowed = " or ".join(map(str, self.ranks))
            raise mo.errors.ShapeError(
                f"{type(self).__name__}: x must have rank {allowed}, got {mo.errors.describe(x)}"
            )
        moving = self.training and self.track_running_stats
        momentum: float | mo.Var = 0.0
        counter = None
        if moving:
            if self.momentum is None:
                momentum = self._share_of_batch()
            else:
                momentum, counter = self.momentum, self.num_batches_tracked
        running = (None, None)
        if moving or not self.training:
            running = (self.running_mean, self.running_var)
        training = self.training or self.running_mean is None
        return counting_batch_norm(
            x, *running, self.weight, self.bias, training, momentum, self.eps, counter
        )

    def _share_of_batch(self) -> mo.Var:
        """Count one more batch; the weight of its statistics among those of all: 1/count."""
        count = self.num_batches_tracked
        with mo.uninterrupted(), mo.no_grad():
            count.assign(count + 1)
        return 1.0 / self.num_batches_tracked.astype(self.running_mean.dtype)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """`(x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]` for [batch, c] or [batch, c, n].

    See BatchNorm2d.  Source: as torch.nn.BatchNorm1d.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """`(x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]` for [batch, c, height, width].

    In training, mean and (biased) variance are those of the batch, and running_mean and running_var
    move by `momentum` towards the batch's mean and unbiased variance; momentum None makes them the
    average over all batches so far.  In inference the running statistics are used, or the batch's
    where there are none (track_running_stats=False).

    weight, bias: [num_features] (affine).  Buffers: running_mean, running_var: [num_features];
    num_batches_tracked: int64, which a state dict may omit.

    Source: Ioffe and Szegedy 2015; as torch.nn.BatchNorm2d.
    """

    ranks = (4,)


class LayerNorm(Module):
    """`(x - mean) / sqrt(var + eps) * weight + bias`, over the last axes of each sample.

    normalized_shape: the sizes of those axes, or of the one last axis.

    Source: Ba et al. 2016; as torch.nn.LayerNorm.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        shape = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape, self.eps = tuple(shape), eps
        self.elementwise_affine = elementwise_affine
        _affine(self, self.normalized_shape, elementwise_affine, bias, dtype or mo.float32)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        _reset_affine(self)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [..., *normalized_shape].  Returns the same shape."""
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class GroupNorm(Module):
    """Each of num_groups blocks of channels normalised by its own mean and variance.

    x: [batch, num_channels, ...].  Source: Wu and He 2018; as torch.nn.GroupNorm.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = None,
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_groups must divide num_channels {num_channels}, got {num_groups}"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        _affine(self, (num_channels,), affine, bias, dtype or mo.float32)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        _reset_affine(self)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, num_channels, ...].  Returns the same shape."""
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class BatchNorm3d(_BatchNorm):
    """BatchNorm2d of [batch, c, depth, height, width].  Source: as torch.nn.BatchNorm3d."""

    ranks = (5,)


class _InstanceNorm(_BatchNorm):
    """Each channel of each sample normalised by its own mean and variance.

    With track_running_stats, inference uses the moving averages of the samples' statistics.
    Source: Ulyanov et al. 2016.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: Any = None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype=dtype)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, num_features, *space], or without batch.  Returns the same shape."""
        if x.ndim == self.ranks[0] - 1:
            return self.forward(x[None])[0]
        if x.ndim not in self.ranks:
            raise mo.errors.ShapeError(
                f"{type(self).__name__}: x must have rank {self.ranks[0] - 1} or {self.ranks[0]}, "
                f"got {mo.errors.describe(x)}"
            )
        own = self.training or not self.track_running_stats
        return functional.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, own, self.momentum,
            self.eps,
        )  # fmt: skip


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each sample of [batch, c, length] normalised; as torch.nn.InstanceNorm1d."""

    ranks = (3,)


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each sample of [batch, c, height, width] normalised."""

    ranks = (4,)


class InstanceNorm3d(_InstanceNorm):
    """Each channel of each sample of [batch, c, depth, height, width] normalised."""

    ranks = (5,)


class RMSNorm(Module):
    """`x / sqrt(mean(x²) + eps) * weight`, over the last axes of each sample.

    normalized_shape: as in LayerNorm; eps None is the dtype's epsilon.
    Source: Zhang and Sennrich 2019; as torch.nn.RMSNorm.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        shape = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape, self.eps = tuple(shape), eps
        self.elementwise_affine = elementwise_affine
        ones = mo.ones(self.normalized_shape, dtype=dtype or mo.float32)
        weight = Parameter(ones) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Set weight to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [..., *normalized_shape].  Returns the same shape."""
        return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class LocalResponseNorm(Applied):
    """`x[c] / (k + alpha * mean(x[c']² over size channels around c)) ** beta`."""

    function = staticmethod(functional.local_response_norm)
