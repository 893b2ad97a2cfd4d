"""The losses as modules; each calls the function of the same name in `functional`."""

from __future__ import annotations

import metaop as mo

from .. import functional
from ..module import Module


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
