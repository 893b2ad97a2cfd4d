"""Initial values, written into a Var in place; names and defaults of torch.nn.init.

Each function fills its argument without history and returns it.  `fan_in` and `fan_out` count the
inputs and outputs that one weight of a [out, in, *window] tensor connects.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import metaop as mo
from metaop import Var

from .hints import refuse

GAINS: dict[str, float] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1.0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1.0),
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights make up for what a nonlinearity does to the variance.

    param: the negative slope of "leaky_relu" (0.01 if None).
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in GAINS:
        known = ", ".join(sorted([*GAINS, "leaky_relu"]))
        raise ValueError(f"calculate_gain: no nonlinearity {nonlinearity!r}; there are {known}")
    return GAINS[nonlinearity]


def fans(tensor: Var) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, *window]."""
    if tensor.ndim < 2:
        raise mo.errors.ShapeError(
            f"fan in and fan out need two axes or more, got {mo.errors.describe(tensor)}"
        )
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fill(tensor: Var, value: Var) -> Var:
    with mo.no_grad():
        tensor.assign(value.astype(tensor.dtype))
    return tensor


# --- distributions given directly -----------------------------------------------------------------


def constant_(tensor: Var, val: float) -> Var:
    """Every element is val."""
    return _fill(tensor, mo.full(tensor.shape, val, dtype=tensor.dtype))


def zeros_(tensor: Var) -> Var:
    """Every element is 0."""
    return constant_(tensor, 0)


def ones_(tensor: Var) -> Var:
    """Every element is 1."""
    return constant_(tensor, 1)


def uniform_(tensor: Var, a: float = 0.0, b: float = 1.0) -> Var:
    """Uniform on [a, b)."""
    return _fill(tensor, mo.random.uniform(tensor.shape, a, b, dtype=tensor.dtype))


def normal_(tensor: Var, mean: float = 0.0, std: float = 1.0) -> Var:
    """Normal with this mean and standard deviation."""
    return _fill(tensor, mo.random.normal(tensor.shape, mean, std, dtype=tensor.dtype))


def trunc_normal_(
    tensor: Var, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Var:
    """Normal, cut off to [a, b]: the inverse distribution function at uniform numbers."""
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    unit = mo.random.uniform(tensor.shape, low, high, dtype=tensor.dtype)
    normal = _erfinv(unit) * (std * math.sqrt(2)) + mean
    return _fill(tensor, mo.clip(normal, a, b))


_ERFINV_CENTRAL = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def _erfinv(x: Var) -> Var:
    """The inverse of erf on (-1, 1) to float32.  Source: Giles 2010, single precision."""
    w = -mo.log((1 - x) * (1 + x))
    central = _polynomial(w - 2.5, _ERFINV_CENTRAL)
    tail = _polynomial(mo.sqrt(mo.maximum(w, 5.0)) - 3.0, _ERFINV_TAIL)
    return x * mo.where(w < 5, central, tail)


def _polynomial(x: Var, coefficients: tuple[float, ...]) -> Var:
    """Horner's scheme, the highest power first."""
    total = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        total = total * x + coefficient
    return total


# --- fixed patterns -------------------------------------------------------------------------------


def eye_(tensor: Var) -> Var:
    """The identity matrix; tensor must have two axes."""
    if tensor.ndim != 2:
        raise mo.errors.ShapeError(f"eye_: a matrix is needed, got {mo.errors.describe(tensor)}")
    return _fill(tensor, mo.eye(*tensor.shape))


def dirac_(tensor: Var, groups: int = 1) -> Var:
    """A convolution weight [out, in, *window] that copies channel o to output o in each group."""
    if not 3 <= tensor.ndim <= 5:
        raise mo.errors.ShapeError(
            f"dirac_: a weight of 3 to 5 axes is needed, got {mo.errors.describe(tensor)}"
        )
    if tensor.shape[0] % groups:
        raise ValueError(f"dirac_: {groups} groups do not divide {tensor.shape[0]} outputs")
    shape = tensor.shape
    hits = mo.index(shape, 0) % (shape[0] // groups) == mo.index(shape, 1)
    for axis in range(2, tensor.ndim):
        hits = hits & (mo.index(shape, axis) == shape[axis] // 2)
    return _fill(tensor, hits)


# --- distributions scaled by the fans -------------------------------------------------------------


def _bound(std: float) -> float:
    """Half the width of the uniform distribution around 0 with this standard deviation."""
    return math.sqrt(3.0) * std


def _xavier_std(tensor: Var, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(fans(tensor)))


def xavier_uniform_(tensor: Var, gain: float = 1.0) -> Var:
    """Uniform on ±gain * sqrt(6 / (fan_in + fan_out)).  Source: Glorot and Bengio 2010, eq. 16."""
    bound = _bound(_xavier_std(tensor, gain))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Var, gain: float = 1.0) -> Var:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out)).  Source: Glorot and Bengio 2010."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain))


def _kaiming_std(tensor: Var, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: Var, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Var:
    """Uniform on ±gain * sqrt(3 / fan); a is the negative slope of leaky_relu.

    Source: He et al. 2015, section 2.2.
    """
    bound = _bound(_kaiming_std(tensor, a, mode, nonlinearity))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Var, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Var:
    """Normal with std gain / sqrt(fan).  Source: He et al. 2015, section 2.2."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def lecun_uniform_(tensor: Var) -> Var:
    """Uniform on ±sqrt(3 / fan_in).  Source: LeCun et al. 1998, section 4.6."""
    return kaiming_uniform_(tensor, nonlinearity="linear")


def lecun_normal_(tensor: Var) -> Var:
    """Normal with std sqrt(1 / fan_in).  Source: LeCun et al. 1998, section 4.6."""
    return kaiming_normal_(tensor, nonlinearity="linear")


def fan_in_uniform_(weight: Var, *others: Var | None) -> None:
    """Uniform on ±1 / sqrt(fan_in of weight), for the weight and its bias: PyTorch's default."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    bound = 1 / math.sqrt(max(fans(weight)[0], 1))
    for other in others:
        if other is not None:
            uniform_(other, -bound, bound)


def orthogonal_(tensor: Var, gain: float = 1.0) -> Var:
    """A matrix [out, in * window] whose rows, or columns if there are fewer, are orthogonal and of
    length gain.  Source: Saxe et al. 2014."""
    if tensor.ndim < 2:
        raise mo.errors.ShapeError(
            f"orthogonal_: two axes or more are needed, got {mo.errors.describe(tensor)}"
        )
    rows = int(tensor.shape[0])
    columns = math.prod(map(int, tensor.shape[1:]))
    tall = (max(rows, columns), min(rows, columns))
    q, r = mo.linalg.qr(mo.random.normal(tall, dtype=tensor.dtype))
    q = q * mo.where(mo.diagonal(r) < 0, -1.0, 1.0).astype(tensor.dtype)
    square = q.T if rows < columns else q
    return _fill(tensor, gain * square.reshape(tensor.shape))


def sparse_(tensor: Var, sparsity: float, std: float = 0.01) -> Var:
    """Normal, and 0 in that share of the rows of each column of a matrix.

    Source: Martens 2010, section 5.
    """
    if tensor.ndim != 2:
        raise mo.errors.ShapeError(f"sparse_: a matrix is needed, got {mo.errors.describe(tensor)}")
    zeros = math.ceil(sparsity * int(tensor.shape[0]))
    order = mo.argsort(mo.argsort(mo.random.uniform(tensor.shape), 0), 0)
    values = mo.random.normal(tensor.shape, 0.0, std, dtype=tensor.dtype)
    return _fill(tensor, mo.where(order < zeros, 0, values))


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
