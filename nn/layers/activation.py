"""The activations as modules: each calls the function of the same meaning in `functional`.

`inplace` is accepted for compatibility and changes nothing: there are no views to share.
"""

from __future__ import annotations

from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter
from .applied import Applied


class _InPlace(Module):
    """An activation whose only argument is `inplace`."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The constructor's argument, if set."""
        return "inplace=True" if self.inplace else ""


class Sigmoid(Module):
    """`1 / (1 + exp(-x))`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.tanh(x)


class LogSigmoid(Module):
    """`log(sigmoid(x))`, accurate for large |x|."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.logsigmoid(x)


class Softsign(Module):
    """`x / (1 + |x|)`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.softsign(x)


class ReLU(_InPlace):
    """`max(x, 0)`; NaN stays NaN, and the gradient at 0 is 0."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.relu(x)


class ReLU6(_InPlace):
    """`min(max(x, 0), 6)`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.relu6(x)


class SELU(_InPlace):
    """`scale * elu(x, alpha)` with the constants that keep mean 0 and variance 1."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.selu(x)


class SiLU(_InPlace):
    """`x * sigmoid(x)`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.silu(x)


class Mish(_InPlace):
    """`x * tanh(softplus(x))`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.mish(x)


class Hardsigmoid(_InPlace):
    """`min(max(x + 3, 0), 6) / 6`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.hardsigmoid(x)


class Hardswish(_InPlace):
    """`x * hardsigmoid(x)`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.hardswish(x)


class LeakyReLU(Module):
    """`x if x > 0 else negative_slope * x`."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(Module):
    """`x if x > 0 else alpha * (exp(x) - 1)`."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class Hardtanh(Module):
    """`min(max(x, min_val), max_val)`."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__()
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"min_val={self.min_val}, max_val={self.max_val}" + (
            ", inplace=True" if self.inplace else ""
        )


class Softplus(Module):
    """`log(1 + exp(beta * x)) / beta`, and x itself where `beta * x > threshold`."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"beta={self.beta}, threshold={self.threshold}"


class GELU(Module):
    """`x * Phi(x)`, Phi the normal distribution's; approximate="tanh" as in the paper."""

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"approximate={self.approximate!r}"


class _AlongAxis(Module):
    """An activation whose only argument is the axis `dim`."""

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """The constructor's argument."""
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """`exp(x) / sum(exp(x))` along `dim`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.softmax(x, self.dim)


class Softmin(_AlongAxis):
    """`softmax(-x)` along `dim`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.softmin(x, self.dim)


class LogSoftmax(_AlongAxis):
    """`x - log(sum(exp(x)))` along `dim`."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.log_softmax(x, self.dim)


class CELU(Applied):
    """`x if x > 0 else alpha * (exp(x / alpha) - 1)`."""

    function = staticmethod(functional.celu)


class Threshold(Applied):
    """`x if x > threshold else value`."""

    function = staticmethod(functional.threshold)


class Hardshrink(Applied):
    """`x if |x| > lambd else 0`."""

    function = staticmethod(functional.hardshrink)


class Softshrink(Applied):
    """`x - lambd if x > lambd, x + lambd if x < -lambd, else 0`."""

    function = staticmethod(functional.softshrink)


class Tanhshrink(Applied):
    """`x - tanh(x)`."""

    function = staticmethod(functional.tanhshrink)


class GLU(Applied):
    """`a * sigmoid(b)`, a and b the halves of x along dim."""

    function = staticmethod(functional.glu)


class RReLU(Applied):
    """`x if x >= 0 else a * x`; a is drawn from [lower, upper] in training, else its mean."""

    function = staticmethod(functional.rrelu)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: any shape.  Returns the same shape."""
        return functional.rrelu(x, self.lower, self.upper, self.training)


class PReLU(Module):
    """`x if x > 0 else weight[c] * x`, c the channel, axis 1.

    num_parameters: 1, or the number of channels; weight: [num_parameters], init at first.
    Source: He et al. 2015; as torch.nn.PReLU.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = None):
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(mo.full((num_parameters,), init, dtype=dtype or mo.float32))

    def reset_parameters(self) -> None:
        """Set weight to init."""
        init.constant_(self.weight, self.init)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, channels, ...].  Returns the same shape."""
        return functional.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """The constructor's argument."""
        return f"num_parameters={self.num_parameters}"


class Softmax2d(Module):
    """`softmax` over the channels of [batch, channels, height, width]."""

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, channels, height, width] or without batch.  Returns the same shape."""
        if x.ndim not in (3, 4):
            raise mo.errors.ShapeError(
                f"Softmax2d: x must have rank 3 or 4, got {mo.errors.describe(x)}"
            )
        return functional.softmax(x, -3)
