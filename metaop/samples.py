"""Statistics of samples: quantiles, histograms, covariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from . import dtype as dt
from . import elementwise as el
from . import reduction
from .build import expand, normal_axes
from .creation import arange, full, zeros
from .errors import ShapeError, describe
from .indexing import take_along_axis
from .linear import matmul
from .movement import broadcast_to, concat, expand_dims, matrix_transpose, stack
from .movement import reshape as reshape_var
from .rearrange import diagonal
from .recipes import remembered
from .selection import scatter_add
from .sorting import searchsorted, sort
from .var import Var, node_of

# ------------------------------------------------------------------------------------- quantiles

# Where among n sorted elements, numbered from 0, the quantile q stands; between two of them it is
# interpolated.  (m, n, q): m has floor, ceil and round for numbers, or for Vars.
# Source: Hyndman and Fan 1996, whose nine definitions NumPy names so; the others are NumPy's, too.
_Position = Callable[[Any, Any, float], Any]


def _continuous(alpha: float, beta: float) -> _Position:
    return lambda m, n, q: n * q + (alpha + q * (1 - alpha - beta)) - 1


_POSITIONS: dict[str, _Position] = {
    "inverted_cdf": lambda m, n, q: m.ceil(n * q - 1),
    "averaged_inverted_cdf": lambda m, n, q: (m.ceil(n * q - 1) + m.floor(n * q)) * 0.5,
    "closest_observation": lambda m, n, q: m.round(n * q) - 1,
    "interpolated_inverted_cdf": _continuous(0, 1),
    "hazen": _continuous(0.5, 0.5),
    "weibull": _continuous(0, 0),
    "linear": lambda m, n, q: (n - 1) * q,
    "median_unbiased": _continuous(1 / 3, 1 / 3),
    "normal_unbiased": _continuous(3 / 8, 3 / 8),
    "lower": lambda m, n, q: m.floor((n - 1) * q),
    "higher": lambda m, n, q: m.ceil((n - 1) * q),
    "midpoint": lambda m, n, q: (m.floor((n - 1) * q) + m.ceil((n - 1) * q)) * 0.5,
    "nearest": lambda m, n, q: m.round((n - 1) * q),
}
_NUMBERS = SimpleNamespace(floor=math.floor, ceil=math.ceil, round=round)


def _sorted_last(operation: str, x: Any, axis: Any) -> tuple[Var, tuple[int, ...]]:
    """x sorted, with the given axes merged into a last one; floats."""
    var = x if isinstance(x, Var) else Var(x)
    axes = normal_axes(axis, var.ndim, operation)
    kept = [k for k in range(var.ndim) if k not in axes]
    moved = var.permute((*kept, *axes)) if var.ndim else var
    shape = tuple(var.shape[k] for k in kept)
    count = 1
    for k in axes:
        count = count * var.shape[k]
    if count == 0:
        raise ShapeError(f"{operation}(x): nothing to choose from, x is {describe(var)}")
    flat = reshape_var(moved, (*shape, count))
    if not flat.dtype.is_float:
        flat = el.astype(flat, dt.float32)
    return sort(flat, -1), axes


def _finish(result: Var, axes: tuple[int, ...], keepdims: bool) -> Var:
    return Var._of(expand(result._node, axes)) if keepdims else result


def _interpolated(low: Var, high: Var, share: Any) -> Var:
    """low + (high - low) share; where both are equal (infinite, too) nothing is interpolated."""
    step = el.where(el.equal(low, high), 0.0, el.subtract(high, low))
    return el.add(low, el.multiply(step, share))


def _between(ordered: Var, position: _Position, q: float) -> Var:
    """The quantile q of the sorted last axis; NaN if there is one."""
    top = ordered.shape[-1] - 1
    at = min(max(position(_NUMBERS, ordered.shape[-1], q), 0), top)
    below = int(at)
    value = ordered[..., below]
    if at > below:
        value = _interpolated(value, ordered[..., below + 1], at - below)
    last = ordered[..., -1]
    return el.where(el.isnan(last), last, value)


def _between_known(ordered: Var, position: _Position, q: float) -> Var:
    """The quantile q of the sorted last axis without its NaN, which stand at the end; NaN if there
    is nothing else."""
    known = reduction.count_nonzero(el.logical_not(el.isnan(ordered)), -1)
    count = el.astype(known, dt.float64)
    at = el.clip(position(el, count, q), 0.0, el.maximum(count - 1.0, 0.0))
    whole = el.floor(at)
    below = el.astype(whole, dt.int64)
    above = el.minimum(below + 1, el.maximum(known - 1, 0))
    low, high = (
        reshape_var(take_along_axis(ordered, expand_dims(k, -1), -1), k.shape)
        for k in (below, above)
    )
    return _interpolated(low, high, el.astype(el.subtract(at, whole), low.dtype.compute))


def _quantiles(
    name: str, between: Callable[..., Var], x: Any, q: Any, axis: Any, method: str, keepdims: bool
) -> Var:
    fractions = q.tolist() if hasattr(q, "tolist") else q
    several = isinstance(fractions, list | tuple)
    for f in fractions if several else [fractions]:
        if not 0 <= f <= 1:
            raise ValueError(f"{name}(x, q): q must be in [0, 1], got {f}")
    if method not in _POSITIONS:
        raise ValueError(f"{name}: the method is one of {', '.join(_POSITIONS)}, not {method!r}")
    ordered, axes = _sorted_last(name, x, axis)
    parts = [
        _finish(between(ordered, _POSITIONS[method], f), axes, keepdims)
        for f in (fractions if several else [fractions])
    ]
    return stack(parts) if several else parts[0]


@remembered
def quantile(
    x: Any, q: Any, axis: Any = None, keepdims: bool = False, *, method: str = "linear",
    interpolation: str | None = None, dim: Any = None, keepdim: bool = False,
) -> Var:  # fmt: skip
    """The value below which a fraction q of the elements lie; NaN if there is one.

    q: a number or a list of numbers in [0, 1]; of a list the results stand along a new first axis.
    method: as numpy.quantile, also interpolation: linear between two elements, lower, higher,
    midpoint, nearest, inverted_cdf, averaged_inverted_cdf, closest_observation,
    interpolated_inverted_cdf, hazen, weibull, median_unbiased or normal_unbiased.
    """
    axis = axis if dim is None else dim
    method = interpolation or method
    return _quantiles("quantile", _between, x, q, axis, method, keepdims or keepdim)


@remembered
def nanquantile(
    x: Any, q: Any, axis: Any = None, keepdims: bool = False, *, method: str = "linear",
    interpolation: str | None = None, dim: Any = None, keepdim: bool = False,
) -> Var:  # fmt: skip
    """`quantile` of what is not NaN; NaN where nothing else is."""
    axis = axis if dim is None else dim
    method = interpolation or method
    return _quantiles("nanquantile", _between_known, x, q, axis, method, keepdims or keepdim)


def _share(q: Any) -> Any:
    q = q.tolist() if hasattr(q, "tolist") else q
    return [f / 100 for f in q] if isinstance(q, list | tuple) else q / 100


@remembered
def percentile(
    x: Any, q: Any, axis: Any = None, keepdims: bool = False, *, method: str = "linear"
) -> Var:
    """`quantile` with q in percent."""
    return quantile(x, _share(q), axis, keepdims, method=method)


@remembered
def nanpercentile(
    x: Any, q: Any, axis: Any = None, keepdims: bool = False, *, method: str = "linear"
) -> Var:
    """`nanquantile` with q in percent."""
    return nanquantile(x, _share(q), axis, keepdims, method=method)


@remembered
def median(
    x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False
) -> Var:
    """The middle of the sorted elements over axes, the mean of the two middle ones if their number
    is even (NumPy's, not torch's lower one); NaN if there is one."""
    axis = axis if dim is None else dim
    ordered, axes = _sorted_last("median", x, axis)
    half = ordered.shape[-1] // 2
    value = ordered[..., half]
    if ordered.shape[-1] % 2 == 0:
        value = el.multiply(el.add(ordered[..., half - 1], value), 0.5)
    last = ordered[..., -1]
    return _finish(el.where(el.isnan(last), last, value), axes, keepdims or keepdim)


@remembered
def nanmedian(
    x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False
) -> Var:
    """`median` of what is not NaN; NaN where nothing else is."""
    return nanquantile(x, 0.5, axis, keepdims, dim=dim, keepdim=keepdim)


# ------------------------------------------------------------------------------------- histograms


def _floats(x: Any) -> Var:
    """x in one axis, integers as float64."""
    flat = reshape_var(x, (-1,))
    return flat if flat.dtype.is_float else el.astype(flat, dt.float64)


def _edges(values: Var, bins: Any, range: tuple[float, float] | None) -> Var:
    """The edges of bins that are given, or as many equal ones."""
    if not isinstance(bins, int):
        edges = el.astype(bins if isinstance(bins, Var) else Var(bins), values.dtype)
        if edges.ndim != 1 or not edges.shape[0]:
            raise ShapeError(
                f"histogram(x, bins): a number, or edges in 1-d, not {describe(edges)}"
            )
        return edges
    if bins < 1 or (range is not None and not range[0] <= range[1]):
        raise ValueError(f"histogram: at least one bin and a range upwards, got {bins}, {range}")
    if range is None and not values.shape[0]:
        range = (0.0, 1.0)
    ends = range or (reduction.min(values), reduction.max(values))
    low, high = (el.astype(v if isinstance(v, Var) else Var(v), values.dtype) for v in ends)
    apart = el.where(el.equal(low, high), 0.5, 0.0)  # one value lies in the middle of its bins
    low, high = el.subtract(low, apart), el.add(high, apart)
    number = arange(bins + 1)
    steps = el.add(low, el.multiply(number, el.divide(el.subtract(high, low), bins)))
    return el.where(el.equal(number, bins), high, steps)


@remembered
def histogram_bin_edges(x: Any, bins: Any = 10, range: tuple[float, float] | None = None) -> Var:
    """The edges of `histogram`'s bins."""
    edges = _edges(_floats(x), bins, range)
    return edges if node_of(x).dtype.is_float else el.astype(edges, dt.float32)


@remembered
def histogram(
    x: Any, bins: Any = 10, range: tuple[float, float] | None = None, density: bool = False,
    weights: Any = None,
) -> tuple[Var, Var]:  # fmt: skip
    """How many elements lie in each bin, and the edges of the bins (as numpy.histogram).

    bins: a number of equal bins over range (default: from the least element to the largest), or
    increasing edges; a bin holds its lower edge, the last one both.  weights: what an element
    counts, of x's shape.  density: divided by the sum and by the width of the bin.
    """
    values = _floats(x)
    edges = _edges(values, bins, range)
    count = edges.shape[0] - 1
    amounts = full(values.shape, 1) if weights is None else reshape_var(weights, (-1,))
    if amounts.shape != values.shape:
        raise ShapeError(f"histogram: weights {describe(amounts)} for {describe(values)}")
    at = el.subtract(searchsorted(edges, values, side="right"), 1)
    at = el.where(el.equal(values, edges[-1]), count - 1, at)
    inside = el.logical_and(el.greater_equal(at, 0), el.less(at, count))
    found = scatter_add(
        zeros((count,), dtype=amounts.dtype), 0, el.where(inside, at, 0),
        el.where(inside, amounts, 0),
    )  # fmt: skip
    shown = edges if node_of(x).dtype.is_float else el.astype(edges, dt.float32)
    if density:
        found = el.divide(el.divide(found, reduction.sum(found)), shown[1:] - shown[:-1])
    return found, shown


# ------------------------------------------------------------------------------------ covariances


@remembered
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None,
    fweights: Any = None, aweights: Any = None, *, correction: int | None = None,
) -> Var:  # fmt: skip
    """The covariances of the rows of m (columns unless rowvar), and of y's below them.

    The divisor is the number of observations less ddof (also correction; default 1, or 0 with
    bias).  fweights: how often each observation occurs; aweights: what it weighs, as numpy.cov.
    """
    x = _observations("cov", m, rowvar)
    if y is not None:
        x = concat([x, _observations("cov", y, rowvar)], 0)
    taken = ddof if correction is None else correction
    taken = (0 if bias else 1) if taken is None else taken
    if fweights is None and aweights is None:
        centred = el.subtract(x, reduction.mean(x, 1, True))
        total = x.shape[1] - taken
        product = matmul(centred, matrix_transpose(centred))
        return _squeezed(el.divide(product, max(total, 0) or math.nan))
    repeats, own = (
        el.astype(v if isinstance(v, Var) else Var(v), x.dtype)
        for v in (1.0 if w is None else w for w in (fweights, aweights))
    )
    weights = broadcast_to(el.multiply(repeats, own), (x.shape[1],))
    sum_of = reduction.sum(weights)
    mean = el.divide(reduction.sum(el.multiply(x, weights), 1, True), sum_of)
    centred = el.subtract(x, mean)
    squares = reduction.sum(el.multiply(weights, own))
    divisor = el.subtract(sum_of, el.divide(el.multiply(squares, float(taken)), sum_of))
    product = matmul(el.multiply(centred, weights), matrix_transpose(centred))
    return _squeezed(el.divide(product, divisor))


def _observations(name: str, m: Any, rowvar: bool) -> Var:
    """Variables along axis 0, observations along axis 1; floats."""
    var = m if isinstance(m, Var) else Var(m)
    if var.ndim > 2:
        raise ShapeError(f"{name}(m): m has at most 2 axes, it is {describe(var)}")
    if not var.dtype.is_float:
        var = el.astype(var, dt.float32)
    if var.ndim < 2:
        return reshape_var(var, (1, -1))
    return var if rowvar else matrix_transpose(var)


def _squeezed(matrix: Var) -> Var:
    return reshape_var(matrix, ()) if matrix.shape == (1, 1) else matrix


@remembered
def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Var:
    """The correlation coefficients of the rows of x (columns unless rowvar), and of y's below them,
    within [-1, 1]."""
    c = cov(x, y, rowvar)
    if not c.ndim:
        return el.divide(c, c)
    deviation = el.sqrt(diagonal(c))
    scaled = el.divide(el.divide(c, expand_dims(deviation, 1)), deviation)
    return el.clip(scaled, -1.0, 1.0)
