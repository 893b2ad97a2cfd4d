"""Activations."""

from __future__ import annotations

import math

import metaop as mo
from metaop import Var, support

from .arguments import of_arrays, per_channel


@support.remembered
def relu(input: Var, inplace: bool = False) -> Var:
    """`max(x, 0)`; NaN stays NaN, and the gradient at 0 is 0.

    inplace: accepted for compatibility; there are no views, so it would change nothing.
    """
    return mo.where(input <= 0, 0, input)


@support.remembered
def relu6(input: Var, inplace: bool = False) -> Var:
    """`min(max(x, 0), 6)`, with gradient 0 at both ends."""
    return hardtanh(input, 0.0, 6.0)


@support.remembered
def hardtanh(input: Var, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Var:
    """`min(max(x, min_val), max_val)`, with gradient 0 at both ends."""
    return mo.where(input <= min_val, min_val, mo.where(input >= max_val, max_val, input))


@support.remembered
def leaky_relu(input: Var, negative_slope: float = 0.01, inplace: bool = False) -> Var:
    """`x if x > 0 else negative_slope * x`."""
    return mo.where(input > 0, input, negative_slope * input)


def _nonpositive(x: Var) -> Var:
    """x where it is at most 0, else 0: keeps exp finite in a branch that `where` discards."""
    return mo.where(x > 0, 0, x)


@support.remembered
def elu(input: Var, alpha: float = 1.0, inplace: bool = False) -> Var:
    """`x if x > 0 else alpha * (exp(x) - 1)`.  Source: Clevert et al. 2016, eq. 15."""
    return mo.where(input > 0, input, alpha * (mo.exp(_nonpositive(input)) - 1))


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@support.remembered
def selu(input: Var, inplace: bool = False) -> Var:
    """`scale * elu(x, alpha)` with the constants that keep mean 0 and variance 1.

    Source: Klambauer et al. 2017, eq. 2.
    """
    return SELU_SCALE * elu(input, SELU_ALPHA)


def sigmoid(input: Var) -> Var:
    """`1 / (1 + exp(-x))`."""
    return mo.sigmoid(input)


def tanh(input: Var) -> Var:
    """The hyperbolic tangent."""
    return mo.tanh(input)


@support.remembered
def softplus(input: Var, beta: float = 1.0, threshold: float = 20.0) -> Var:
    """`log(1 + exp(beta * x)) / beta`, and x itself where `beta * x > threshold`."""
    scaled = input * beta
    smooth = (mo.maximum(scaled, 0) + mo.log1p(mo.exp(-mo.abs(scaled)))) / beta
    return mo.where(scaled > threshold, input, smooth)


@support.remembered
def softsign(input: Var) -> Var:
    """`x / (1 + |x|)`."""
    return input / (1 + mo.abs(input))


@support.remembered
def logsigmoid(input: Var) -> Var:
    """`log(sigmoid(x))`, accurate for large |x|."""
    return mo.minimum(input, 0) - mo.log1p(mo.exp(-mo.abs(input)))


@support.remembered
def silu(input: Var, inplace: bool = False) -> Var:
    """`x * sigmoid(x)`."""
    return input * mo.sigmoid(input)


@support.remembered
def mish(input: Var, inplace: bool = False) -> Var:
    """`x * tanh(softplus(x))`.  Source: Misra 2019."""
    return input * mo.tanh(softplus(input))


@support.remembered
def gelu(input: Var, approximate: str = "none") -> Var:
    """`x * Phi(x)`, Phi the normal distribution's; approximate="tanh" as in the paper.

    Source: Hendrycks and Gimpel 2016.
    """
    if approximate == "none":
        return input * (0.5 * (1 + mo.erf(input * math.sqrt(0.5))))
    if approximate == "tanh":
        double = 2 * math.sqrt(2 / math.pi)  # (1 + tanh(u)) / 2 is sigmoid(2 u)
        return input * mo.sigmoid(input * (double + 0.044715 * double * (input * input)))
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


@support.remembered
def hardsigmoid(input: Var, inplace: bool = False) -> Var:
    """`min(max(x + 3, 0), 6) / 6`."""
    return relu6(input + 3) / 6


@support.remembered
def hardswish(input: Var, inplace: bool = False) -> Var:
    """`x * hardsigmoid(x)`.  Source: Howard et al. 2019, section 5.2."""
    return input * hardsigmoid(input)


def _softmax_axis(x: Var, dim: int | None) -> int:
    """PyTorch's rule for a missing `dim`: the class axis, 0 for ranks 0, 1 and 3, else 1."""
    if dim is not None:
        return dim
    return 0 if x.ndim in (0, 1, 3) else 1


def _shifted(x: Var, axis: int) -> Var:
    """x minus its largest value along axis, which softmax does not see and exp needs."""
    return x if x.shape[axis] == 0 else x - x.detach().max(axis=axis, keepdims=True)


@of_arrays
@support.remembered
def softmax(input: Var, dim: int | None = None) -> Var:
    """`exp(x) / sum(exp(x))` along `dim`, computed from x minus its maximum."""
    axis = _softmax_axis(input, dim)
    exponentials = mo.exp(_shifted(input, axis))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


@support.remembered
def softmin(input: Var, dim: int | None = None) -> Var:
    """`softmax(-x)` along `dim`."""
    return softmax(-input, dim)


@of_arrays
@support.remembered
def log_softmax(input: Var, dim: int | None = None) -> Var:
    """`x - log(sum(exp(x)))` along `dim`, computed from x minus its maximum."""
    axis = _softmax_axis(input, dim)
    shifted = _shifted(input, axis)
    return shifted - mo.log(mo.exp(shifted).sum(axis=axis, keepdims=True))


@support.remembered
def celu(input: Var, alpha: float = 1.0, inplace: bool = False) -> Var:
    """`x if x > 0 else alpha * (exp(x / alpha) - 1)`.  Source: Barron 2017."""
    return mo.where(input > 0, input, alpha * (mo.exp(_nonpositive(input) / alpha) - 1))


@support.remembered
def threshold(input: Var, threshold: float, value: float, inplace: bool = False) -> Var:
    """`x if x > threshold else value`."""
    return mo.where(input > threshold, input, value)


@support.remembered
def hardshrink(input: Var, lambd: float = 0.5) -> Var:
    """`x if |x| > lambd else 0`."""
    return mo.where(mo.abs(input) <= lambd, 0, input)


@support.remembered
def softshrink(input: Var, lambd: float = 0.5) -> Var:
    """`x - lambd if x > lambd, x + lambd if x < -lambd, else 0`."""
    return mo.where(input > lambd, input - lambd, mo.where(input < -lambd, input + lambd, 0))


@support.remembered
def tanhshrink(input: Var) -> Var:
    """`x - tanh(x)`."""
    return input - mo.tanh(input)


@support.remembered
def glu(input: Var, dim: int = -1) -> Var:
    """`a * sigmoid(b)`, a and b the halves of x along dim.  Source: Dauphin et al. 2017."""
    if input.ndim == 0 or input.shape[dim] % 2:
        raise mo.errors.ShapeError(f"glu: axis {dim} must be even in {mo.errors.describe(input)}")
    value, gate = mo.split(input, 2, dim)
    return value * mo.sigmoid(gate)


@of_arrays
@support.remembered
def prelu(input: Var, weight: Var) -> Var:
    """`x if x > 0 else weight[c] * x`, c the channel, axis 1; one weight serves all.

    Source: He et al. 2015, eq. 1.
    """
    if weight.numel() == 1:
        slope = weight.reshape(())
    elif input.ndim > 1 and weight.shape == input.shape[1:2]:
        slope = per_channel(weight, input.ndim)
    else:
        raise mo.errors.ShapeError(
            "prelu: weight must have one number, or one per channel, "
            f"{mo.errors.describe_all(input=input, weight=weight)}"
        )
    return mo.where(input > 0, input, slope * input)


def rrelu(
    input: Var,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Var:
    """`x if x >= 0 else a * x`; a is drawn from [lower, upper] for each element in training, and
    its mean otherwise.  Source: Xu et al. 2015."""
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    slopes = mo.random.uniform(input.shape, lower, upper, dtype=input.dtype)
    return mo.where(input >= 0, input, slopes * input)


def gumbel_softmax(logits: Var, tau: float = 1.0, hard: bool = False, dim: int = -1) -> Var:
    """`softmax((logits + g) / tau)` along dim, g drawn from the Gumbel distribution.

    hard: the result is one at its largest element and 0 elsewhere; its gradient is the soft one's.
    Source: Jang et al. 2017, Maddison et al. 2017.
    """
    noise = -mo.log(mo.random.exponential(logits.shape, dtype=logits.dtype))
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    largest = mo.expand_dims(soft.detach().argmax(axis=dim), dim)
    at = [1] * soft.ndim
    at[dim] = soft.shape[dim]
    one = (mo.arange(soft.shape[dim]).reshape(tuple(at)) == largest).astype(soft.dtype)
    return one - soft.detach() + soft
