"""The loss of a sequence whose labels are not aligned with its steps."""

from __future__ import annotations

from typing import Any

import metaop as mo
from metaop import Var

from .arguments import of_arrays
from .loss import check_reduction

NEVER = -1e30  # the logarithm of 0, with differences that are numbers


@of_arrays
def ctc_loss(
    log_probs: Var,
    targets: Var,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    *,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Var:
    """`-log(sum of the probabilities of all alignments of targets)`, for each sequence, reduced.

    log_probs: [steps, batch, classes], or [steps, classes]; targets: labels [batch, most], or all
    one after another; input_lengths, target_lengths: how much of each counts.  "mean" divides each
    loss by the length of its target.  zero_infinity: 0 where no alignment is possible, else inf.

    Source: Graves et al. 2006; as torch.nn.functional.ctc_loss.
    """
    check_reduction("ctc_loss", reduction)
    single = log_probs.ndim == 2
    if single:
        log_probs = log_probs[:, None]
    steps = mo.asarray(input_lengths).reshape((-1,))
    lengths = mo.asarray(target_lengths).reshape((-1,))
    labels = _padded(targets, lengths, log_probs.shape[1], blank)
    losses = _negative_logs(log_probs, labels, steps, lengths, blank)
    impossible = losses > -NEVER / 2
    losses = mo.where(impossible, 0 if zero_infinity else mo.inf, losses)
    if reduction == "mean":
        return (losses / mo.maximum(lengths, 1).astype(losses.dtype)).mean()
    if reduction == "sum":
        return losses.sum()
    return losses[0] if single else losses


def _padded(targets: Var, lengths: Var, batch: int, blank: int) -> Var:
    """The labels as [batch, most], blank beyond the end of each."""
    if targets.ndim == 1 and batch == 1:
        targets = targets[None]
    if targets.ndim == 2:
        places = mo.arange(targets.shape[1])
        return mo.where(places < lengths[:, None], targets, blank)
    most = max(int(lengths.max().item()), 1)
    starts = mo.cumsum(lengths, 0) - lengths
    inside = mo.arange(most) < lengths[:, None]
    places = mo.where(inside, starts[:, None] + mo.arange(most), 0)
    return mo.where(inside, mo.take(targets, places, axis=0), blank)


def _negative_logs(logs: Var, labels: Var, steps: Var, lengths: Var, blank: int) -> Var:
    """By the forward algorithm: over states blank, label, blank, label, …, blank."""
    batch, most = labels.shape
    blanks = mo.full((batch, most, 1), blank, dtype=labels.dtype)
    pairs = mo.concat([blanks, labels[:, :, None]], axis=2).reshape((batch, 2 * most))
    states = mo.concat([pairs, mo.full((batch, 1), blank, dtype=labels.dtype)], axis=1)
    before = mo.concat([mo.full((batch, 2), blank, dtype=labels.dtype), states[:, :-2]], axis=1)
    skips = (states != blank) & (states != before)
    at = mo.broadcast_to(states[None], (logs.shape[0], *states.shape))
    seen = mo.take_along_axis(logs, at, axis=2, negative=False)
    seen = mo.maximum(seen, NEVER)
    first = mo.where(mo.arange(states.shape[1]) < 2, seen[0], NEVER)

    def advance(scores: Var, row: Any) -> tuple[Var, None]:
        now, t = row
        one, two = _shifted(scores, 1), mo.where(skips, _shifted(scores, 2), NEVER)
        largest = mo.maximum(mo.maximum(scores, one), two).detach()
        total = sum(mo.exp(part - largest) for part in (scores, one, two))
        following = mo.maximum(mo.log(total) + largest + now, NEVER)
        return mo.where(t < steps[:, None], following, scores), None

    scores, _ = mo.scan(advance, first, (seen[1:], mo.arange(1, logs.shape[0])))
    ends = mo.stack([2 * lengths, mo.maximum(2 * lengths - 1, 0)], axis=1)
    last = mo.take_along_axis(scores, ends, axis=1)
    only = mo.stack([lengths >= 0, lengths > 0], axis=1)
    return -mo.logsumexp(mo.where(only, last, NEVER), axis=1)


def _shifted(scores: Var, places: int) -> Var:
    """The scores of the states that many before."""
    return mo.pad(scores, [(0, 0), (places, 0)], "constant", NEVER)[:, : scores.shape[1]]
