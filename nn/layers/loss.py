"""The losses as modules; each calls the function of the same name in `functional`."""

from __future__ import annotations

import metaop as mo

from .. import functional
from ..module import Module
from .applied import Applied


class _Loss(Module):
    """A loss with the argument `reduction`: "mean", "sum" or "none"."""

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction


class _WeightedLoss(_Loss):
    """A loss with an optional weight per class, a buffer as in torch."""

    def __init__(self, weight: mo.Var | None = None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)


class MSELoss(_Loss):
    """`(input - target)²`, reduced."""

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input, target: one shape.  Returns a 0-d Var, or the shape with reduction "none"."""
        return functional.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """`|input - target|`, reduced."""

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input, target: one shape.  Returns a 0-d Var, or the shape with reduction "none"."""
        return functional.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """`d²/(2 beta) if |d| < beta else |d| - beta/2`, d = input - target, reduced."""

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input, target: one shape.  Returns a 0-d Var, or the shape with reduction "none"."""
        return functional.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class BCELoss(_WeightedLoss):
    """`-(t log(x) + (1-t) log(1-x))` of probabilities x, reduced."""

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input, target: one shape.  Returns a 0-d Var, or the shape with reduction "none"."""
        return functional.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """`BCELoss` of sigmoid(x), without overflow; pos_weight multiplies the term of t."""

    def __init__(
        self,
        weight: mo.Var | None = None,
        *,
        reduction: str = "mean",
        pos_weight: mo.Var | None = None,
    ):
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input, target: one shape.  Returns a 0-d Var, or the shape with reduction "none"."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class NLLLoss(_WeightedLoss):
    """`-weight[t] * input[n, t]` for labels t = target[n]; the mean divides by the weights used.

    Source: as torch.nn.NLLLoss.
    """

    def __init__(
        self, weight: mo.Var | None = None, *, ignore_index: int = -100, reduction: str = "mean"
    ):
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input: log-probabilities [batch, classes, ...]; target: integer labels [batch, ...]."""
        return functional.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class CrossEntropyLoss(_WeightedLoss):
    """`-log(softmax(input)[n, t])` for labels t = target[n], reduced.

    weight: one number per class; ignore_index: the label that counts for nothing;
    label_smoothing: the share of the uniform distribution mixed into each label.

    Source: as torch.nn.CrossEntropyLoss.
    """

    def __init__(
        self,
        weight: mo.Var | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(weight, reduction=reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: mo.Var, target: mo.Var) -> mo.Var:
        """input: logits [batch, classes, ...]; target: integer labels [batch, ...], or
        probabilities of the shape of input.
        """
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class HuberLoss(Applied):
    """`d²/2 if |d| < delta else delta (|d| - delta/2)`, d = input - target, reduced."""

    inputs, hidden = 2, ("weight",)
    function = staticmethod(functional.huber_loss)


class KLDivLoss(Applied):
    """`t (log(t) - x)`, x log-probabilities, reduced; "batchmean" is the divergence."""

    inputs = 2
    function = staticmethod(functional.kl_div)


class PoissonNLLLoss(Applied):
    """`exp(x) - t x`, or `x - t log(x + eps)` with log_input=False, reduced."""

    inputs = 2
    function = staticmethod(functional.poisson_nll_loss)


class GaussianNLLLoss(Applied):
    """`(log(v) + (x - t)²/v) / 2` of input x, target t and variance v, reduced."""

    inputs = 3
    function = staticmethod(functional.gaussian_nll_loss)


class HingeEmbeddingLoss(Applied):
    """`x if t == 1 else max(0, margin - x)`, reduced."""

    inputs = 2
    function = staticmethod(functional.hinge_embedding_loss)


class MarginRankingLoss(Applied):
    """`max(0, -t (x1 - x2) + margin)` of x1, x2 and t, reduced."""

    inputs = 3
    function = staticmethod(functional.margin_ranking_loss)


class SoftMarginLoss(Applied):
    """`log(1 + exp(-t x))`, reduced."""

    inputs = 2
    function = staticmethod(functional.soft_margin_loss)


class CosineEmbeddingLoss(Applied):
    """`1 - cos(x1, x2) if t == 1 else max(0, cos(x1, x2) - margin)`, reduced."""

    inputs = 3
    function = staticmethod(functional.cosine_embedding_loss)


class TripletMarginLoss(Applied):
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`, reduced."""

    inputs = 3
    function = staticmethod(functional.triplet_margin_loss)


class TripletMarginWithDistanceLoss(Applied):
    """TripletMarginLoss with a distance of one's own."""

    inputs = 3
    function = staticmethod(functional.triplet_margin_with_distance_loss)


class MultiMarginLoss(Applied):
    """`sum(weight[t] max(0, margin - x[t] + x[c])^p over c != t) / classes`, reduced."""

    inputs, saved = 2, ("weight",)
    function = staticmethod(functional.multi_margin_loss)


class MultiLabelMarginLoss(Applied):
    """Every label above every class that is none by 1; see `multilabel_margin_loss`."""

    inputs = 2
    function = staticmethod(functional.multilabel_margin_loss)


class MultiLabelSoftMarginLoss(Applied):
    """Binary cross-entropy of logits, the mean over the classes, reduced."""

    inputs, saved = 2, ("weight",)
    function = staticmethod(functional.multilabel_soft_margin_loss)


class CTCLoss(Applied):
    """A sequence's loss without alignment: log_probs, targets and both lengths; see `ctc_loss`."""

    inputs = 4
    function = staticmethod(functional.ctc_loss)
