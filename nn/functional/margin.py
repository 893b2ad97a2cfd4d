"""Losses with a margin: of scores against labels, of distances against each other."""

from __future__ import annotations

from collections.abc import Callable

import metaop as mo
from metaop import Var, support

from .activation import logsigmoid
from .arguments import of_arrays
from .distance import cosine_similarity, pairwise_distance
from .loss import reduce

Distance = Callable[[Var, Var], Var]


def _above(x: Var) -> Var:
    """`max(x, 0)`, with the gradient 0 at 0."""
    return mo.where(x > 0, x, 0)


@of_arrays
@support.remembered
def hinge_embedding_loss(
    input: Var, target: Var, margin: float = 1.0, *, reduction: str = "mean"
) -> Var:
    """`x if t == 1 else max(0, margin - x)`, reduced; target: 1 or -1."""
    losses = mo.where(target == 1, input, _above(margin - input))
    return reduce("hinge_embedding_loss", losses, reduction)


@of_arrays
@support.remembered
def margin_ranking_loss(
    input1: Var, input2: Var, target: Var, margin: float = 0.0, *, reduction: str = "mean"
) -> Var:
    """`max(0, -t (x1 - x2) + margin)`, reduced; target: 1 where x1 is to be larger, else -1."""
    losses = mo.maximum(margin - target * (input1 - input2), 0)
    return reduce("margin_ranking_loss", losses, reduction)


@of_arrays
@support.remembered
def soft_margin_loss(input: Var, target: Var, *, reduction: str = "mean") -> Var:
    """`log(1 + exp(-t x))`, reduced; target: 1 or -1."""
    return reduce("soft_margin_loss", -logsigmoid(target * input), reduction)


@of_arrays
@support.remembered
def cosine_embedding_loss(
    input1: Var, input2: Var, target: Var, margin: float = 0.0, *, reduction: str = "mean"
) -> Var:
    """`1 - cos(x1, x2) if t == 1 else max(0, cos(x1, x2) - margin)`, reduced; x: [batch, dim]."""
    cosine = cosine_similarity(input1, input2, -1)
    losses = mo.where(target == 1, 1 - cosine, _above(cosine - margin))
    return reduce("cosine_embedding_loss", losses, reduction)


@of_arrays
@support.remembered
def triplet_margin_loss(
    anchor: Var,
    positive: Var,
    negative: Var,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Var:
    """`max(0, d(a, p) - d(a, n) + margin)`, d the p-norm of the difference + eps, reduced.

    swap: the smaller of d(a, n) and d(p, n) counts.  Source: Balntas et al. 2016.
    """

    def distance(one: Var, other: Var) -> Var:
        return pairwise_distance(one, other, p, eps)

    losses = _triplet(distance, anchor, positive, negative, margin, swap)
    return reduce("triplet_margin_loss", losses, reduction)


def triplet_margin_with_distance_loss(
    anchor: Var,
    positive: Var,
    negative: Var,
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Var:
    """`triplet_margin_loss` with a distance of one's own, `pairwise_distance` if None."""
    distance = distance_function or pairwise_distance
    losses = _triplet(distance, anchor, positive, negative, margin, swap)
    return reduce("triplet_margin_with_distance_loss", losses, reduction)


def _triplet(
    distance: Distance, anchor: Var, positive: Var, negative: Var, margin: float, swap: bool
) -> Var:
    far = distance(anchor, negative)
    if swap:
        far = mo.minimum(far, distance(positive, negative))
    return mo.maximum(margin + distance(anchor, positive) - far, 0)


def _of_label(x: Var, label: Var) -> Var:
    """`x[n, label[n]]` as [batch, 1], checked."""
    return mo.take_along_axis(x, mo.expand_dims(label, 1), axis=1, negative=False)


@of_arrays
@support.remembered
def multi_margin_loss(
    input: Var,
    target: Var,
    p: int = 1,
    margin: float = 1.0,
    weight: Var | None = None,
    *,
    reduction: str = "mean",
) -> Var:
    """`sum(weight[t] max(0, margin - x[t] + x[c])^p over c != t) / classes`, reduced.

    input: [batch, classes] or [classes]; target: integer labels.
    """
    single = input.ndim == 1
    if single:
        input, target = input[None], target.reshape((1,))
    over = _above(margin - _of_label(input, target) + input)
    losses = over if p == 1 else over**p
    if weight is not None:
        losses = losses * mo.expand_dims(mo.take(weight, target, axis=0), 1)
    others = mo.arange(input.shape[1]) != mo.expand_dims(target, 1)
    losses = mo.where(others, losses, 0).mean(axis=1)
    return reduce("multi_margin_loss", losses[0] if single else losses, reduction)


@of_arrays
@support.remembered
def multilabel_margin_loss(input: Var, target: Var, *, reduction: str = "mean") -> Var:
    """`sum(max(0, 1 - x[t] + x[c]) over labels t and classes c that are none) / classes`, reduced.

    input: [batch, classes] or [classes]; target: of that shape, the labels first, then -1.
    """
    single = input.ndim == 1
    if single:
        input, target = input[None], target[None]
    given = mo.cumsum((target < 0).astype(mo.int64), 1) == 0
    label = mo.where(given, target, 0)
    classes = mo.arange(input.shape[1])
    named = ((classes == label[:, :, None]) & given[:, :, None]).any(axis=1)
    scores = mo.take_along_axis(input, label, axis=1, negative=False)
    over = _above(1 - scores[:, :, None] + input[:, None, :])
    counted = given[:, :, None] & mo.logical_not(named)[:, None, :]
    losses = mo.where(counted, over, 0).sum(axis=(1, 2)) / input.shape[1]
    return reduce("multilabel_margin_loss", losses[0] if single else losses, reduction)


@of_arrays
@support.remembered
def multilabel_soft_margin_loss(
    input: Var, target: Var, weight: Var | None = None, *, reduction: str = "mean"
) -> Var:
    """`-mean(t log(sigmoid(x)) + (1-t) log(sigmoid(-x)) over classes)`, reduced; target: 0 or 1."""
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    losses = losses if weight is None else losses * weight
    return reduce("multilabel_soft_margin_loss", losses.mean(axis=-1), reduction)
