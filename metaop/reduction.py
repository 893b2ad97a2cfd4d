"""Reductions over axes: each is one reindex_reduce, or a short composition.

All accept `axis` (= `dim` = `dims`: an int, several, or None for all) and `keepdims` (= `keepdim`).
"""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable
from typing import Any

from . import dtype as dt
from . import elementwise as el
from .build import cast, expand, full, linear_position, normal_axes, reduce, reshape, where
from .dtype import DType, as_dtype, floating
from .errors import DTypeError, ShapeError, describe
from .graph import Elementwise, IndexOf, Node, Piece, Reindex, count_of, identity_of, size_of
from .index import Expr
from .recipes import remembered
from .var import Var, node_of

STAGE = 64  # factors of a product that one stage multiplies: bounds the work of its gradient


def _with_aliases(function: Callable[..., Var]) -> Callable[..., Var]:
    """Accepts dim, dims and keepdim beside axis and keepdims, and ddof for correction."""

    @functools.wraps(function)
    def wrapped(x: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Var:
        if not options:
            return function(x, axis, keepdims)
        for alias in ("dim", "dims"):
            if alias in options:
                axis = options.pop(alias)
        if "keepdim" in options:
            keepdims = options.pop("keepdim")
        if "ddof" in options:
            options["correction"] = options.pop("ddof")
        return function(x, axis, keepdims, **options)

    return wrapped


def _finish(node: Node, axes: tuple[int, ...], keepdims: bool) -> Var:
    return Var._of(expand(node, axes) if keepdims else node)


def _sum_dtype(dtype: DType) -> DType:
    """Small integers are summed in 64 bits, as in NumPy."""
    if dtype.is_float:
        return dtype
    return dt.uint64 if dtype.kind == "u" else dt.int64


@_with_aliases
def sum(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Var:
    """The sum over axes.  Small integers and bools are summed as 64-bit integers.

    Long sums are added up in blocks, so 10^7 float32 ones sum to 10^7.
    """
    node = node_of(x)
    axes = normal_axes(axis, len(node.shape), "sum")
    node = cast(node, _sum_dtype(node.dtype) if dtype is None else as_dtype(dtype))
    return _finish(reduce("add", node, axes), axes, keepdims)


@_with_aliases
def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Var:
    """The product over axes; its gradient is right with zeros, to every order."""
    node = node_of(x)
    axes = normal_axes(axis, len(node.shape), "prod")
    node = cast(node, _sum_dtype(node.dtype) if dtype is None else as_dtype(dtype))
    result = node
    if size_of(node.shape[k] for k in axes) > STAGE and node.dtype.is_float:
        result = _staged_product(node, axes)
    else:
        result = reduce("multiply", node, axes)
    return _finish(result, axes, keepdims)


def _staged_product(node: Node, axes: tuple[int, ...]) -> Node:
    """The product in stages of a few factors, so that its gradient stays cheap."""
    rank = len(node.shape)
    kept = [k for k in range(rank) if k not in axes]
    order = [*kept, *axes]
    shape = tuple(node.shape[k] for k in kept)
    count = size_of(node.shape[k] for k in axes)
    inverse = [order.index(k) for k in range(rank)]
    moved = Reindex(
        tuple(node.shape[k] for k in order), (Piece(0, tuple(("i", k) for k in inverse)),), node
    )
    flat = reshape(moved, (*shape, count))
    while count > 1:
        stages = -(-count // STAGE)
        indices: list[Expr] = [("i", k) for k in range(len(shape))]
        position = ("add", ("mul", ("i", len(shape)), STAGE), ("i", len(shape) + 1))
        padded = Reindex((*shape, stages, STAGE), (Piece(0, (*indices, position)),), flat, fill=1)
        flat = reduce("multiply", padded, (len(shape) + 1,))
        count = stages
    return reshape(flat, shape)


@remembered
@_with_aliases
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The mean over axes: a float, float32 for integers; of 16-bit floats computed in float32."""
    node = node_of(x)
    dtype = floating(node.dtype)
    axes = normal_axes(axis, len(node.shape), "mean")
    count = count_of([node.shape[k] for k in axes])
    total = reduce("add", cast(node, dtype.compute), axes)
    result = Elementwise("div", total, full(float(count), total.shape, total.dtype))
    return _finish(cast(result, dtype), axes, keepdims)


def _wide(x: Any) -> tuple[Var, DType]:
    """x as a float in which its squares and sums do not overflow, and the dtype of the result."""
    node = node_of(x)
    dtype = floating(node.dtype)
    if isinstance(x, Var) and node.dtype is dtype.compute:
        return x, dtype
    return Var._of(cast(node, dtype.compute)), dtype


def _narrow(x: Var, dtype: DType) -> Var:
    return x if x.dtype is dtype else Var._of(cast(x._node, dtype))


@remembered
@_with_aliases
def var(x: Any, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Var:
    """The variance over axes: sum of (x - mean)**2 divided by n - correction.

    In two passes about the mean; never as E[x**2] - E[x]**2, which loses all digits when the mean
    is large.
    """
    wide, dtype = _wide(x)
    axes = normal_axes(axis, wide.ndim, "var")
    centred = el.square(el.subtract(wide, mean(wide, axes, True)))
    count = count_of([wide.shape[k] for k in axes])
    total = sum(centred, axes, keepdims)
    return _narrow(el.divide(total, float(builtins.max(count - correction, 0))), dtype)


@remembered
@_with_aliases
def std(x: Any, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Var:
    """The square root of the variance."""
    wide, dtype = _wide(x)
    return _narrow(_root(var(wide, axis, keepdims, correction=correction)), dtype)


def _extreme(op: str, name: str, x: Any, axis: Any, keepdims: bool, ties: str) -> Var:
    node = node_of(x)
    axes = normal_axes(axis, len(node.shape), name)
    if 0 in (node.shape[k] for k in axes) and 0 not in (
        node.shape[k] for k in range(len(node.shape)) if k not in axes
    ):
        raise ShapeError(f"{name}(x): nothing to choose from, x is {describe(node)}")
    return _finish(reduce(op, node, axes, ties), axes, keepdims)


@_with_aliases
def max(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The largest value over axes; NaN if there is one.

    Gradient: over chosen axes to the first of equal values, over all of them shared, as PyTorch's
    `max(dim)` and `max()`.
    """
    return _extreme("maximum", "max", x, axis, keepdims, "share" if axis is None else "first")


@_with_aliases
def min(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The smallest value over axes; NaN if there is one.  Gradient as `max`."""
    return _extreme("minimum", "min", x, axis, keepdims, "share" if axis is None else "first")


@_with_aliases
def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The largest value over axes; equal values share the gradient."""
    return _extreme("maximum", "amax", x, axis, keepdims, "share")


@_with_aliases
def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The smallest value over axes; equal values share the gradient."""
    return _extreme("minimum", "amin", x, axis, keepdims, "share")


@_with_aliases
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """True where every element over the axes is true (not 0)."""
    node = cast(node_of(x), dt.bool_)
    axes = normal_axes(axis, len(node.shape), "all")
    return _finish(reduce("logical_and", node, axes), axes, keepdims)


@_with_aliases
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """True where some element over the axes is true (not 0)."""
    node = cast(node_of(x), dt.bool_)
    axes = normal_axes(axis, len(node.shape), "any")
    return _finish(reduce("logical_or", node, axes), axes, keepdims)


@_with_aliases
def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """How many elements over the axes are not 0."""
    return sum(Var._of(cast(node_of(x), dt.bool_)), axis, keepdims)


def _arg_extreme(op: str, name: str, x: Any, axis: Any, keepdims: bool) -> Var:
    node = node_of(x)
    rank = len(node.shape)
    axes = normal_axes(axis, rank, name)
    if axis is not None and len(axes) != 1:
        raise ShapeError(f"{name}(x, axis): one axis or None, got {axis}")
    if size_of(node.shape[k] for k in axes) == 0:
        raise ShapeError(f"{name}(x): nothing to choose from, x is {describe(node)}")
    best = reduce(op, node, axes)
    spread = Reindex(
        node.shape, (Piece(0, tuple(("i", k) for k in range(rank) if k not in axes)),), best
    )
    found: Node = Elementwise("eq", node, spread)
    if node.dtype.is_float:  # the first NaN wins, as in NumPy
        found = Elementwise("logical_or", found, Elementwise("isnan", node))
    position = linear_position(node.shape) if axis is None else IndexOf(node.shape, axes[0])
    chosen = where(found, position, full(1 << 62, node.shape, dt.int64))
    return _finish(reduce("minimum", chosen, axes), axes, keepdims)


@remembered
@_with_aliases
def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The position of the first largest element (int64), along an axis or in row-major order."""
    return _arg_extreme("maximum", "argmax", x, axis, keepdims)


@remembered
@_with_aliases
def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The position of the first smallest element (int64), along an axis or in row-major order."""
    return _arg_extreme("minimum", "argmin", x, axis, keepdims)


@remembered
@_with_aliases
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """log(sum(exp(x))) about the largest value, so that nothing overflows; -inf of nothing."""
    wide, dtype = _wide(x)
    axes = normal_axes(axis, wide.ndim, "logsumexp")
    if 0 in wide.shape:
        return _narrow(el.log(sum(el.exp(wide), axes, keepdims)), dtype)
    largest = amax(wide, axes, True).detach()
    shift = el.where(el.isfinite(largest), largest, 0)
    total = el.log(sum(el.exp(el.subtract(wide, shift)), axes, True))
    result = _narrow(el.add(total, shift), dtype)
    if keepdims:
        return result
    shape = tuple(n for k, n in enumerate(result.shape) if k not in axes)
    return Var._of(reshape(result._node, shape))


def _root(total: Var) -> Var:
    """The square root whose gradient at 0 is 0."""
    zero = el.equal(total, 0)
    return el.where(zero, total, el.sqrt(el.where(zero, 1.0, total)))


@remembered
@_with_aliases
def norm(
    x: Any, axis: Any = None, keepdims: bool = False, ord: float = 2, *, p: float | None = None
) -> Var:
    """sum(|x|**ord)**(1/ord) over axes; inf: the largest |x|, -inf: the smallest, 0: how many are
    not 0.  The gradient at 0 is 0."""
    wide, dtype = _wide(x)
    order = ord if p is None else p
    if order == 2:
        result = _root(sum(el.square(wide), axis, keepdims))
    elif order == math.inf:
        length = el.abs(wide)
        is_empty = 0 in length.shape
        result = sum(length, axis, keepdims) if is_empty else amax(length, axis, keepdims)
    elif order == -math.inf:
        result = amin(el.abs(wide), axis, keepdims)
    elif order == 0:
        result = el.astype(count_nonzero(wide, axis, keepdims), wide.dtype)
    elif order == 1:
        result = sum(el.abs(wide), axis, keepdims)
    else:
        result = el.pow(sum(el.pow(el.abs(wide), order), axis, keepdims), 1 / order)
    return _narrow(result, dtype)


# ----------------------------------------------------------------------------- NaN left out of them


def _without_nan(name: str, function: Callable[..., Var], fill: str) -> Callable[..., Var]:
    """The reduction over what is not NaN: NaN counts as what changes nothing."""

    @remembered
    @_with_aliases
    def reduction(x: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Var:
        node = node_of(x)
        if not node.dtype.is_float:
            return function(x, axis, keepdims, **options)
        missing = Elementwise("isnan", node)
        number = identity_of(fill, node.dtype)
        filled = where(missing, full(number, node.shape, node.dtype), node)
        result = function(Var._of(filled), axis, keepdims, **options)
        if fill in ("add", "multiply"):
            return result
        return el.where(all(Var._of(missing), axis, keepdims), math.nan, result)

    reduction.__name__ = reduction.__qualname__ = name
    reduction.__doc__ = f"`{name[3:]}` of what is not NaN."
    return reduction


nansum = _without_nan("nansum", sum, "add")
nanprod = _without_nan("nanprod", prod, "multiply")
nanmax = _without_nan("nanmax", max, "maximum")
nanmin = _without_nan("nanmin", min, "minimum")


@remembered
@_with_aliases
def nanmean(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The mean of what is not NaN; NaN of nothing."""
    wide, dtype = _wide(x)
    count = sum(el.logical_not(el.isnan(wide)), axis, keepdims)
    return _narrow(el.divide(nansum(wide, axis, keepdims), el.astype(count, wide.dtype)), dtype)


@remembered
@_with_aliases
def nanvar(x: Any, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Var:
    """The variance of what is not NaN: sum of squares about its mean over count - correction."""
    wide, dtype = _wide(x)
    known = el.logical_not(el.isnan(wide))
    centred = el.where(known, el.subtract(wide, nanmean(wide, axis, True)), 0.0)
    count = el.astype(sum(known, axis, keepdims), wide.dtype)
    divisor = el.where(el.greater(count, correction), el.subtract(count, correction), math.nan)
    return _narrow(el.divide(sum(el.square(centred), axis, keepdims), divisor), dtype)


@remembered
@_with_aliases
def nanstd(x: Any, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Var:
    """The square root of `nanvar`."""
    return el.sqrt(nanvar(x, axis, keepdims, correction=correction))


@remembered
@_with_aliases
def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The largest value less the smallest."""
    return el.subtract(amax(x, axis, keepdims), amin(x, axis, keepdims))


@_with_aliases
def average(x: Any, axis: Any = None, keepdims: bool = False, weights: Any = None) -> Var:
    """The mean, or with weights (of x's shape, or 1-d along one axis) sum(x * w) / sum(w)."""
    if weights is None:
        return mean(x, axis, keepdims)
    return _weighted(x, axis, keepdims, weights if isinstance(weights, Var) else Var(weights))


@remembered
def _weighted(x: Any, axis: Any, keepdims: bool, weights: Var) -> Var:
    node, weight = node_of(x), weights._node
    if weight.shape != node.shape:
        axes = normal_axes(axis, len(node.shape), "average")
        if len(axes) != 1 or weight.shape != (node.shape[axes[0]],):
            raise ShapeError(
                f"average(x, weights): x is {describe(node)}, the weights {describe(weight)}"
            )
        spread = tuple(n if k == axes[0] else 1 for k, n in enumerate(node.shape))
        weight = reshape(weight, spread)
    factor = el.add(Var._of(weight), Var._of(full(0, node.shape, weight.dtype)))
    total = sum(factor, axis, keepdims)
    return el.divide(sum(el.multiply(x, factor), axis, keepdims), total)


def reduce_by(
    x: Any, op: str, axis: Any = None, keepdims: bool = False, *, dims: Any = None
) -> Var:
    """The reduction of a meta-operator's name over axes: add, multiply, maximum, minimum,
    logical_and, logical_or (as Jittor's `x.reduce`)."""
    named = {"add": sum, "multiply": prod, "maximum": amax, "minimum": amin,
             "logical_and": all, "logical_or": any}  # fmt: skip
    if op not in named:
        raise ValueError(f"reduce(op): one of {', '.join(named)}, not {op!r}")
    return named[op](x, axis if dims is None else dims, keepdims)


@remembered
def var_mean(x: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> tuple[Var, Var]:
    """(var(x), mean(x)); correction is 0 unless given."""
    return var(x, axis, keepdims, **options), mean(x, axis, keepdims)


@remembered
def std_mean(x: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> tuple[Var, Var]:
    """(std(x), mean(x)); correction is 0 unless given."""
    return std(x, axis, keepdims, **options), mean(x, axis, keepdims)


@remembered
def aminmax(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None) -> Any:
    """(amin(x), amax(x))."""
    axis = axis if dim is None else dim
    return amin(x, axis, keepdims), amax(x, axis, keepdims)


@remembered
def dist(a: Any, b: Any, p: float = 2) -> Var:
    """The norm of a - b."""
    return norm(el.subtract(a, b), ord=p)


def require_float(x: Var, name: str) -> None:
    """Raises DTypeError unless x is a float."""
    if not x.dtype.is_float:
        raise DTypeError(f"{name}(x): x must be a float, it is {describe(x)}")
