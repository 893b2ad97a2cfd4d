"""Losses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import metaop as mo
from metaop import Var, support

from .activation import log_softmax, logsigmoid
from .arguments import of_arrays, per_channel

REDUCTIONS: dict[str, Callable[[Var], Var]] = {
    "mean": lambda losses: losses.mean(),
    "sum": lambda losses: losses.sum(),
    "none": lambda losses: losses,
}


def check_reduction(name: str, reduction: str) -> None:
    """Raise ValueError for an unknown reduction."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def reduce(name: str, losses: Var, reduction: str) -> Var:
    """The losses, or their mean or sum."""
    check_reduction(name, reduction)
    return REDUCTIONS[reduction](losses)


def warn_if_broadcast(name: str, input: Var, target: Var) -> None:
    """Warn of two shapes that may differ by mistake."""
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: target {mo.errors.describe(target)} is broadcast against "
            f"input {mo.errors.describe(input)}; is that meant?",
            stacklevel=3,
        )


def mse_loss(input: Var, target: Var, *, reduction: str = "mean") -> Var:
    """`(input - target)²`, reduced."""
    warn_if_broadcast("mse_loss", input, target)
    difference = input - target
    return reduce("mse_loss", difference * difference, reduction)


def l1_loss(input: Var, target: Var, *, reduction: str = "mean") -> Var:
    """`|input - target|`, reduced."""
    warn_if_broadcast("l1_loss", input, target)
    return reduce("l1_loss", mo.abs(input - target), reduction)


def smooth_l1_loss(input: Var, target: Var, *, reduction: str = "mean", beta: float = 1.0) -> Var:
    """`d²/(2 beta) if |d| < beta else |d| - beta/2`, d = input - target, reduced."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    warn_if_broadcast("smooth_l1_loss", input, target)
    distance = mo.abs(input - target)
    square = distance * distance * (0.5 / beta)
    losses = mo.where(distance < beta, square, distance - 0.5 * beta)
    return reduce("smooth_l1_loss", losses, reduction)


@support.remembered
def binary_cross_entropy(
    input: Var, target: Var, weight: Var | None = None, *, reduction: str = "mean"
) -> Var:
    """`-(t log(x) + (1-t) log(1-x))`, the logarithms at least -100, reduced.

    input: probabilities; target: of the same shape, between 0 and 1.
    """
    yes = mo.maximum(mo.log(input), -100.0)
    no = mo.maximum(mo.log(1 - input), -100.0)
    losses = -(target * yes + (1 - target) * no)
    return reduce("binary_cross_entropy", losses if weight is None else losses * weight, reduction)


@support.remembered
def binary_cross_entropy_with_logits(
    input: Var,
    target: Var,
    weight: Var | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Var | None = None,
) -> Var:
    """`binary_cross_entropy(sigmoid(x), t)` without overflow; pos_weight multiplies the t term."""
    positive = target if pos_weight is None else target * pos_weight
    losses = -(positive * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return reduce(
        "binary_cross_entropy_with_logits", losses if weight is None else losses * weight, reduction
    )


@of_arrays
@support.remembered
def nll_loss(
    input: Var,
    target: Var,
    weight: Var | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Var:
    """`-weight[t] * input[n, t]` for labels t = target[n], reduced.

    input: log-probabilities [batch, classes, ...] or [classes]; target: integer labels [batch, ...]
    or a single one; weight: [classes].  Labels equal to ignore_index count for nothing; the mean
    divides by the sum of the weights of the others.

    Raises: IndexError, from the call that computes, for a label outside 0 … classes-1.
    """
    check_reduction("nll_loss", reduction)
    _check_labels("nll_loss", input, target)
    input, target = _batched(input, target)
    counted = target != ignore_index
    label = mo.where(counted, target, 0)
    picked = _at_label(input, label)
    share = counted.astype(input.dtype)
    if weight is not None:
        share = share * mo.take(_class_weights("nll_loss", weight, input), label, axis=0)
    losses = mo.where(counted, -picked * share, 0)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / share.sum()


def _check_labels(name: str, input: Var, target: Var) -> None:
    describe_all = mo.errors.describe_all
    if not target.dtype.is_integer:
        raise mo.errors.DTypeError(
            f"{name}(input, target): labels must be integers, "
            f"{describe_all(input=input, target=target)}"
        )
    if input.ndim == 0 or input.shape[:1] * (input.ndim > 1) + input.shape[2:] != target.shape:
        raise mo.errors.ShapeError(
            f"{name}(input, target): target must have the shape of input without its class axis, "
            f"{describe_all(input=input, target=target)}"
        )


def _batched(input: Var, target: Var) -> tuple[Var, Var]:
    """A single sample [classes] as a batch of one, whose label keeps its shape ()."""
    if input.ndim > 1:
        return input, target
    return mo.expand_dims(input, 0), target


def _at_label(x: Var, label: Var) -> Var:
    """`out[n, ...] = x[n, label[n, ...], ...]`, checked; of the shape of label."""
    index = mo.expand_dims(label, 1) if label.ndim else label.reshape((1, 1))
    return mo.take_along_axis(x, index, axis=1, negative=False).reshape(label.shape)


def _class_weights(name: str, weight: Var, x: Var) -> Var:
    if weight.shape != (x.shape[1],):
        raise mo.errors.ShapeError(
            f"{name}: weight must have one number per class, input is {mo.errors.describe(x)}, "
            f"weight is {mo.errors.describe(weight)}"
        )
    return weight


@of_arrays
@support.remembered
def cross_entropy(
    input: Var,
    target: Var,
    weight: Var | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Var:
    """`-log(softmax(input)[n, t])` for labels t = target[n], reduced.

    input: logits [batch, classes, ...] or [classes]; target: integer labels [batch, ...], or
    probabilities of the shape of input; weight: [classes].  label_smoothing mixes each label with
    the uniform distribution, by that share.

    Raises: IndexError, from the call that computes, for a label outside 0 … classes-1.
    Source: as torch.nn.functional.cross_entropy; smoothing: Szegedy et al. 2016, section 7.
    """
    check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in 0 … 1, got {label_smoothing}")
    axis = 1 if input.ndim > 1 else 0
    logs = log_softmax(input, axis)
    if target.dtype.is_float and target.shape == input.shape:
        return _soft_cross_entropy(logs, target, weight, reduction, label_smoothing)
    _check_labels("cross_entropy", input, target)
    exact = nll_loss(logs, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0:
        return exact
    uniform = _uniform_cross_entropy(logs, target, weight, ignore_index, reduction)
    return (1 - label_smoothing) * exact + label_smoothing * uniform


def _weigh_classes(logs: Var, weight: Var | None) -> Var:
    if weight is None:
        return logs
    if logs.ndim == 1:
        return logs * weight
    return logs * per_channel(_class_weights("cross_entropy", weight, logs), logs.ndim)


def _soft_cross_entropy(
    logs: Var, target: Var, weight: Var | None, reduction: str, smoothing: float
) -> Var:
    """`-sum(target * logs)` over the classes; the mean is over the samples."""
    axis = 1 if logs.ndim > 1 else 0
    target = (1 - smoothing) * target + smoothing / logs.shape[axis]
    losses = -(target * _weigh_classes(logs, weight)).sum(axis=axis)
    return reduce("cross_entropy", losses, reduction)


def _uniform_cross_entropy(
    logs: Var, target: Var, weight: Var | None, ignore_index: int, reduction: str
) -> Var:
    """The loss against equal probabilities, with the labels' own divisor in the mean."""
    axis = 1 if logs.ndim > 1 else 0
    counted = target != ignore_index
    losses = -_weigh_classes(logs, weight).mean(axis=axis)
    losses = mo.where(counted, losses, 0)
    if reduction != "mean":
        return reduce("cross_entropy", losses, reduction)
    share = counted.astype(logs.dtype)
    if weight is not None:
        share = share * mo.take(weight, mo.where(counted, target, 0), axis=0)
    return losses.sum() / share.sum()


def huber_loss(
    input: Var,
    target: Var,
    delta: float = 1.0,
    weight: Var | None = None,
    *,
    reduction: str = "mean",
) -> Var:
    """`d²/2 if |d| < delta else delta (|d| - delta/2)`, d = input - target, times weight, reduced.

    Source: Huber 1964.
    """
    if delta <= 0:
        raise ValueError(f"huber_loss: delta must be above 0, got {delta}")
    warn_if_broadcast("huber_loss", input, target)
    distance = mo.abs(input - target)
    losses = mo.where(distance < delta, 0.5 * distance * distance, delta * (distance - 0.5 * delta))
    return reduce("huber_loss", losses if weight is None else losses * weight, reduction)


def kl_div(input: Var, target: Var, *, reduction: str = "mean", log_target: bool = False) -> Var:
    """`t (log(t) - x)`, x log-probabilities, reduced; target log(t) with log_target.

    reduction "batchmean" divides the sum by the size of axis 0, as the divergence is defined.
    """
    if log_target:
        losses = mo.exp(target) * (target - input)
    else:
        known = mo.where(target > 0, target, 1)
        losses = mo.where(target > 0, target * mo.log(known), 0) - target * input
    if reduction == "batchmean":
        return losses.sum() / losses.shape[0]
    return reduce("kl_div", losses, reduction)


def poisson_nll_loss(
    input: Var,
    target: Var,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    *,
    reduction: str = "mean",
) -> Var:
    """`exp(x) - t x`, or `x - t log(x + eps)` with log_input=False, reduced.

    full adds Stirling's `t log(t) - t + log(2 pi t)/2` where t > 1.
    """
    losses = mo.exp(input) - target * input if log_input else (
        input - target * mo.log(input + eps)
    )  # fmt: skip
    if full:
        t = mo.where(target > 1, target, 1)
        stirling = t * mo.log(t) - t + 0.5 * mo.log(2 * math.pi * t)
        losses = losses + mo.where(target > 1, stirling, 0)
    return reduce("poisson_nll_loss", losses, reduction)


def gaussian_nll_loss(
    input: Var,
    target: Var,
    var: Var | float,
    full: bool = False,
    eps: float = 1e-6,
    *,
    reduction: str = "mean",
) -> Var:
    """`(log(v) + (x - t)²/v) / 2`, v = max(var, eps) without a gradient of max, reduced.

    var: of input's shape, without its last axis, or with 1 there; full adds log(2 pi)/2.
    Source: Nix and Weigend 1994.
    """
    spread = var if isinstance(var, Var) else mo.full(input.shape, var, dtype=input.dtype)
    if spread.shape == input.shape[:-1] and spread.shape != input.shape:
        spread = mo.expand_dims(spread, -1)
    if spread.shape not in (input.shape, (*input.shape[:-1], 1)):
        raise mo.errors.ShapeError(
            "gaussian_nll_loss: var must have the shape of input, or 1 at the end, "
            f"{mo.errors.describe_all(input=input, var=spread)}"
        )
    spread = spread + (mo.maximum(spread, eps) - spread).detach()
    losses = 0.5 * (mo.log(spread) + (input - target) ** 2 / spread)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduce("gaussian_nll_loss", losses, reduction)
