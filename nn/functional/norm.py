"""Normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import metaop as mo
from metaop import Var, support

from .arguments import of_arrays, per_channel, vector_norm
from .shape import unflatten


def _moments(x: Var, axes: tuple[int, ...]) -> tuple[Var, Var, Var]:
    """Mean, x minus mean, and variance over axes, which stay as size 1.

    The variance is the mean square of what is left after the mean is subtracted: E[x²] - E[x]²
    would cancel for a large mean.
    """
    mean = x.mean(axis=axes, keepdims=True)
    centered = x - mean
    return mean, centered, (centered * centered).mean(axis=axes, keepdims=True)


def _scale_and_shift(x: Var, weight: Var | None, bias: Var | None) -> Var:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def batch_norm(
    input: Var,
    running_mean: Var | None,
    running_var: Var | None,
    weight: Var | None = None,
    bias: Var | None = None,
    training: bool = False,
    momentum: float | Var = 0.1,
    eps: float = 1e-5,
) -> Var:
    """`(x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]` for channel c, axis 1.

    Training uses the batch's mean and (biased) variance and moves the running statistics, if
    given, in place: `running = (1 - momentum) * running + momentum * batch`, with the unbiased
    variance n/(n-1).  Otherwise the running statistics are used.

    Gradient: derived, through the mean and the variance too.
    Source: Ioffe and Szegedy 2015, algorithm 1.
    """
    return counting_batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )


@of_arrays
def counting_batch_norm(
    input: Var,
    running_mean: Var | None,
    running_var: Var | None,
    weight: Var | None,
    bias: Var | None,
    training: bool,
    momentum: float | Var,
    eps: float,
    counter: Var | None = None,
) -> Var:
    """`batch_norm`, which adds 1 to a counter where it moves the statistics."""
    _check_channels(input, running_mean, running_var, weight, bias)
    axes = (0, *range(2, input.ndim))
    if training:
        if math.prod([int(input.shape[axis]) for axis in axes]) == 1:
            raise ValueError(
                "batch_norm: training needs more than one value per channel, "
                f"input is {mo.errors.describe(input)}"
            )
        statistics = (running_mean, running_var, counter)
        result, *moved = _moving_batch(input, statistics, weight, bias, momentum, eps, axes)
        present = [running for running in statistics if running is not None]
        with mo.uninterrupted(), mo.no_grad():
            mo.assign_all(list(zip(present, moved)))
        return result
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: without training, running_mean and running_var are used")
    return _normalized(input, running_mean, running_var, weight, bias, eps)


@support.remembered
def _moving_batch(
    x: Var,
    statistics: tuple[Var | None, Var | None, Var | None],
    weight: Var | None,
    bias: Var | None,
    momentum: float | Var,
    eps: float,
    axes: tuple[int, ...],
) -> tuple[Var, ...]:
    """The result by the batch's own statistics; the new mean, variance and count that there are."""
    running_mean, running_var, counter = statistics
    count = math.prod(x.shape[axis] for axis in axes)
    result, mean, unbiased = _normalized_batch(x, weight, bias, eps, axes, count)
    with mo.no_grad():
        moved = [
            _moved(running, batch, momentum)
            for running, batch in ((running_mean, mean), (running_var, unbiased))
            if running is not None
        ]
        if counter is not None:
            moved.append(counter + 1)
    return (result, *moved)


@support.remembered
def _normalized_batch(
    x: Var, weight: Var | None, bias: Var | None, eps: float, axes: tuple[int, ...], count: int
) -> tuple[Var, Var, Var]:
    """The result by the batch's own statistics, and those, the variance unbiased."""
    mean, centered, var = _moments(x, axes)
    result = centered * mo.rsqrt(var + eps)
    scale, shift = (None if v is None else per_channel(v, x.ndim) for v in (weight, bias))
    return _scale_and_shift(result, scale, shift), mean, var * (count / max(count - 1, 1))


@support.remembered
def _normalized(
    x: Var, mean: Var, var: Var, weight: Var | None, bias: Var | None, eps: float
) -> Var:
    """The result by given statistics, one of each per channel."""
    centered = x - per_channel(mean, x.ndim)
    scale, shift = (None if v is None else per_channel(v, x.ndim) for v in (weight, bias))
    return _scale_and_shift(centered * mo.rsqrt(per_channel(var, x.ndim) + eps), scale, shift)


def _check_channels(x: Var, *vectors: Var | None) -> None:
    if x.ndim < 2:
        raise mo.errors.ShapeError(
            f"batch_norm: input must be [batch, channels, ...], got {mo.errors.describe(x)}"
        )
    channels = x.shape[1:2]
    for vector in vectors:
        if vector is not None and vector.shape != channels:
            raise mo.errors.ShapeError(
                f"batch_norm: channels must agree, input is {mo.errors.describe(x)}, "
                f"a statistic or weight is {mo.errors.describe(vector)} "
                f"({x.shape[1]} != {vector.size})"
            )


def _move(statistics: list[tuple[Var | None, Var]], momentum: float | Var) -> None:
    """`running = (1 - momentum) * running + momentum * batch`, in place, without history."""
    with mo.uninterrupted(), mo.no_grad():
        mo.assign_all(
            [
                (running, _moved(running, batch, momentum))
                for running, batch in statistics
                if running is not None
            ]
        )


@support.remembered
def _moved(running: Var, batch: Var, momentum: float | Var) -> Var:
    return (1 - momentum) * running + momentum * batch.detach().reshape(running.shape)


@support.remembered
def layer_norm(
    input: Var,
    normalized_shape: Sequence[int],
    weight: Var | None = None,
    bias: Var | None = None,
    eps: float = 1e-5,
) -> Var:
    """`(x - mean) / sqrt(var + eps) * weight + bias`, over the last axes.

    normalized_shape: the sizes of those axes, and the shape of weight and bias.
    Source: Ba et al. 2016, eq. 4.
    """
    sizes = tuple(normalized_shape)
    if not sizes or input.shape[-len(sizes) :] != sizes:
        raise mo.errors.ShapeError(
            f"layer_norm: input must end in the axes {sizes}, got {mo.errors.describe(input)}"
        )
    _, centered, var = _moments(input, tuple(range(input.ndim - len(sizes), input.ndim)))
    return _scale_and_shift(centered * mo.rsqrt(var + eps), weight, bias)


@support.remembered
def group_norm(
    input: Var,
    num_groups: int,
    weight: Var | None = None,
    bias: Var | None = None,
    eps: float = 1e-5,
) -> Var:
    """Each of num_groups blocks of channels normalised by its own mean and variance.

    input: [batch, channels, ...]; weight, bias: [channels].
    Source: Wu and He 2018, section 3.
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise mo.errors.ShapeError(
            f"group_norm: {num_groups} groups do not divide the channels (axis 1) "
            f"of {mo.errors.describe(input)}"
        )
    blocks = unflatten(input, 1, (num_groups, input.shape[1] // num_groups))
    _, centered, var = _moments(blocks, tuple(range(2, blocks.ndim)))
    normal = (centered * mo.rsqrt(var + eps)).reshape(input.shape)
    scale, shift = (None if v is None else per_channel(v, input.ndim) for v in (weight, bias))
    return _scale_and_shift(normal, scale, shift)


@of_arrays
def instance_norm(
    input: Var,
    running_mean: Var | None = None,
    running_var: Var | None = None,
    weight: Var | None = None,
    bias: Var | None = None,
    use_input_stats: bool = True,
    momentum: float | Var | None = 0.1,
    eps: float = 1e-5,
) -> Var:
    """Each channel of each sample normalised by its own mean and variance.

    input: [batch, channels, ...]; weight, bias, running_mean, running_var: [channels].  With
    use_input_stats False the running statistics are used; else they move towards the mean over the
    batch of the samples' statistics, the variance unbiased.
    Source: Ulyanov et al. 2016.
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("instance_norm: without use_input_stats, running statistics are used")
        return _normalized(input, running_mean, running_var, weight, bias, eps)
    _check_channels(input, running_mean, running_var, weight, bias)
    if momentum is None:
        raise ValueError("instance_norm: momentum must be a number, got None")
    count = math.prod(input.shape[2:])
    if count == 1:
        raise ValueError(
            "instance_norm: more than one value per channel is needed, "
            f"input is {mo.errors.describe(input)}"
        )
    axes = tuple(range(2, input.ndim))
    result, mean, unbiased = _normalized_batch(input, weight, bias, eps, axes, count)
    _move(
        [(running, batch) for running, batch in (
            (running_mean, mean.mean(axis=0)), (running_var, unbiased.mean(axis=0))
        )], momentum,
    )  # fmt: skip
    return result


@of_arrays
@support.remembered
def rms_norm(
    input: Var, normalized_shape: Sequence[int], weight: Var | None = None, eps: float | None = None
) -> Var:
    """`x / sqrt(mean(x²) + eps) * weight`, over the last axes; eps None is the dtype's epsilon.

    Source: Zhang and Sennrich 2019, eq. 4.
    """
    sizes = tuple(normalized_shape)
    if not sizes or input.shape[-len(sizes) :] != sizes:
        raise mo.errors.ShapeError(
            f"rms_norm: input must end in the axes {sizes}, got {mo.errors.describe(input)}"
        )
    axes = tuple(range(input.ndim - len(sizes), input.ndim))
    least = mo.finfo(input.dtype).eps if eps is None else eps
    normal = input * mo.rsqrt((input * input).mean(axis=axes, keepdims=True) + least)
    return normal if weight is None else normal * weight


@of_arrays
@support.remembered
def local_response_norm(
    input: Var, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Var:
    """`x[c] / (k + alpha * mean(x[c']² over size channels around c)) ** beta`, 0 beyond the ends.

    Source: Krizhevsky et al. 2012, section 3.3.
    """
    if input.ndim < 3:
        raise mo.errors.ShapeError(
            f"local_response_norm: input must be [batch, channels, ...] with an axis of space, "
            f"got {mo.errors.describe(input)}"
        )
    square, before = input * input, size // 2
    near = mo.reindex(
        square, (*square.shape, size), lambda n, c, *i: (n, c + i[-1] - before, *i[:-1])
    )
    return input / (k + alpha * near.mean(axis=-1)) ** beta


@of_arrays
@support.remembered
def normalize(input: Var, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Var:
    """`x / max(norm(x), eps)`, the p-norm along dim."""
    return input / mo.maximum(vector_norm(input, p, dim, True), eps)
