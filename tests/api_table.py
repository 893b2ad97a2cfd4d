"""The array functions of `metaop`, one line each: what NumPy and PyTorch call them, on which
operands they are compared, and how often they are differentiated.

`tests/test_api.py` runs the comparisons; `docs/generate_api.py` prints the table as docs/api.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Make = Callable[[np.random.Generator], np.ndarray]


# ------------------------------------------------------------------------------------- operands


def real(*shape: int) -> Make:
    """Normal numbers."""
    return lambda rng: np.asarray(rng.normal(size=shape))


def positive(*shape: int) -> Make:
    """Numbers in [0.2, 2.2)."""
    return lambda rng: np.asarray(rng.uniform(0.2, 2.2, size=shape))


def inside(*shape: int) -> Make:
    """Numbers in (-0.9, 0.9)."""
    return lambda rng: np.asarray(rng.uniform(-0.9, 0.9, size=shape))


def above_one(*shape: int) -> Make:
    """Numbers in [1.1, 4)."""
    return lambda rng: np.asarray(rng.uniform(1.1, 4, size=shape))


def integers(*shape: int, low: int = -9, high: int = 10) -> Make:
    """int64 in [low, high)."""
    return lambda rng: np.asarray(rng.integers(low, high, size=shape))


def bools(*shape: int) -> Make:
    """True and False."""
    return lambda rng: np.asarray(rng.random(size=shape) < 0.5)


def with_nan(*shape: int) -> Make:
    """Normal numbers, some of them NaN."""

    def make(rng: np.random.Generator) -> np.ndarray:
        x = rng.normal(size=shape)
        x[rng.random(size=shape) < 0.2] = np.nan
        return x

    return make


def spd(n: int) -> Make:
    """A symmetric positive definite matrix."""

    def make(rng: np.random.Generator) -> np.ndarray:
        a = rng.normal(size=(n, n))
        return a @ a.T + np.eye(n)

    return make


# ----------------------------------------------------------------------------------------- entries


@dataclass
class Function:
    """One function: compared with `numpy` if there is one, else with `torch`; gradients with
    `torch`, or with central differences.

    call: (module, *operands) -> result, for metaop; numpy, torch: the same for theirs, or a name.
    grad: how many orders of derivatives are compared; None: it has none.
    """

    name: str
    section: str
    operands: tuple[Make, ...]
    numpy: Any = None
    torch: Any = None
    grad: int | None = None
    call: Callable[..., Any] | None = None
    note: str = ""
    aliases: tuple[str, ...] = field(default=())


TABLE: list[Function] = []


def add(
    section: str, names: str, *operands: Make, grad: int | None = None, numpy: Any = True,
    torch: Any = True, call: Any = None, note: str = "", aliases: str = "",
) -> None:  # fmt: skip
    """Entries for several functions on the same operands; True: the same name there, with `call`
    the same call there."""
    for name in names.split():
        ours, _, theirs = name.partition(":")
        numpy_name, torch_name = (theirs.split("/") + [theirs])[:2] if theirs else (ours, ours)

        def counterpart(given: Any, called: str) -> Any:
            if given is not True:
                return given
            return called if call is None else call

        TABLE.append(
            Function(
                ours, section, operands, counterpart(numpy, numpy_name),
                counterpart(torch, torch_name), grad, call, note, tuple(aliases.split()),
            )
        )  # fmt: skip


X = (real(3, 5),)
P = (positive(3, 5),)
TWO = (real(3, 5), real(5))

# -- elementwise
E = "Elementwise"
add(E, "exp exp2 expm1 sin cos sinh cosh tanh square", *X, grad=2)
add(E, "asinh:arcsinh/asinh atan:arctan/atan", *X, grad=2)
add(E, "asin:arcsin/asin acos:arccos/acos atanh:arctanh/atanh tan", inside(3, 5), grad=2)
add(E, "acosh:arccosh/acosh", above_one(3, 5), grad=2)
add(E, "log log2 log10 log1p sqrt reciprocal", *P, grad=2)
add(E, "rsqrt", *P, grad=2, numpy=None)
add(E, "erf erfc sigmoid", *X, grad=2, numpy=None)
add(E, "erfinv", inside(3, 5), grad=2, numpy=None)
add(E, "lgamma digamma", *X, grad=2, numpy=None)
add(E, "abs negative:negative/neg", *X, grad=2, aliases="absolute neg")
add(E, "positive", *X, grad=2, aliases="clone")
add(E, "sign floor ceil trunc round", *X, grad=2)
add(E, "isnan isinf isfinite isposinf isneginf signbit", with_nan(3, 5))
add(E, "logical_not", bools(4))
add(E, "bitwise_invert:invert/bitwise_not", integers(7), aliases="invert bitwise_not")
add(E, "add subtract multiply divide", *TWO, grad=2, aliases="")
add(E, "floor_divide", real(3, 5), positive(5), grad=2, torch=None)
add(E, "remainder", real(3, 5), positive(5), grad=2)
add(E, "fmod", *TWO, grad=2)
add(E, "pow:power/pow", positive(3, 5), real(5), grad=2, aliases="power")
add(E, "float_power", positive(3, 5), real(5), grad=2)
add(E, "atan2:arctan2/atan2 hypot", *TWO, grad=2)
add(E, "maximum minimum fmax fmin copysign", *TWO, grad=2)
add(E, "logaddexp logaddexp2", *TWO, grad=2)
add(E, "xlogy", real(3, 5), positive(5), grad=2, numpy=None)
add(E, "logit", inside(3, 5), call=lambda m, x: m.logit(x * x + 0.05), numpy=None, grad=2)
add(E, "heaviside", *TWO, torch=None)
add(E, "nextafter", *TWO)
add(E, "ldexp", real(3, 5), integers(5), grad=2, torch=None)
add(E, "deg2rad rad2deg sinc", *X, grad=2)
add(E, "nan_to_num", with_nan(3, 5), grad=2)
add(E, "frac", *X, grad=2, numpy=None)
add(E, "divmod", integers(3, 5), integers(5, low=1), torch=None)
add(E, "less less_equal greater greater_equal equal not_equal", integers(3, 5), integers(5),
    aliases="", torch=None)  # fmt: skip
add(E, "logical_and logical_or logical_xor", bools(3, 5), bools(5))
add(E, "bitwise_and bitwise_or bitwise_xor", integers(3, 5), integers(5))
add(E, "bitwise_left_shift:left_shift/bitwise_left_shift", integers(3, 5), integers(5, low=0))
add(E, "bitwise_right_shift:right_shift/bitwise_right_shift", integers(3, 5), integers(5, low=0))
add(E, "where", bools(3, 5), real(5), real(3, 1), grad=2)
add(E, "clip", *X, call=lambda m, x: m.clip(x, -0.5, 0.7), grad=2, aliases="clamp")
add(E, "lerp", real(4), real(4), real(4), numpy=None, grad=2)
add(E, "addcmul addcdiv", real(4), real(4), above_one(4), numpy=None, grad=2)
add(E, "isclose", integers(9), integers(9), aliases="")
add(E, "allclose array_equal", integers(9), integers(9), torch=None)
add(E, "real conj", *X, grad=2, torch=None)
add(E, "imag", *X, torch=None)
add(E, "astype", *X, call=lambda m, x: m.astype(x, m.float32), torch=None,
    numpy=lambda m, x: x.astype(np.float32), aliases="cast")  # fmt: skip

# -- reductions
R = "Reductions"
AXES = (real(3, 4, 5),)


def over(name: str) -> Callable[..., Any]:
    """A reduction over one axis, called alike by all three."""
    return lambda m, x: getattr(m, name)(x, -2)


for _name in ("sum", "mean", "prod"):
    add(R, _name, *AXES, call=over(_name), grad=2)
for _name in ("amax", "amin"):
    add(R, _name, *AXES, call=over(_name), grad=2)
add(R, "max", *AXES, call=over("max"), torch=lambda m, x: m.max(x, -2).values, grad=2)
add(R, "min", *AXES, call=over("min"), torch=lambda m, x: m.min(x, -2).values, grad=2)
for _name in ("argmax", "argmin", "all", "any", "count_nonzero"):
    add(R, _name, *AXES, call=over(_name))
add(R, "var", *AXES, call=over("var"), torch=lambda m, x: m.var(x, -2, correction=0), grad=2)
add(R, "std", *AXES, call=over("std"), torch=lambda m, x: m.std(x, -2, correction=0), grad=2)
add(R, "var_mean std_mean", *AXES, call=None, numpy=None,
    torch=lambda m, x: m.var_mean(x, correction=0), grad=2)  # fmt: skip
TABLE[-1].torch = lambda m, x: m.std_mean(x, correction=0)
add(R, "logsumexp", *AXES, call=over("logsumexp"), numpy=None, grad=2)
add(R, "norm", *AXES, call=lambda m, x: m.norm(x, 1), numpy=lambda m, x: m.linalg.norm(x, axis=1),
    torch=lambda m, x: m.linalg.vector_norm(x, dim=1), grad=2)  # fmt: skip
add(R, "dist", real(4), real(4), numpy=None, grad=2)
add(R, "ptp", *AXES, call=over("ptp"), torch=None, grad=2)
add(R, "aminmax", *AXES, call=lambda m, x: tuple(m.aminmax(x, dim=1)), numpy=None, grad=2)
add(R, "average", real(3, 5), call=lambda m, x: m.average(x, 1, weights=np.arange(1.0, 6)),
    torch=None, grad=2)  # fmt: skip
for _name in ("nansum", "nanmean"):
    add(R, _name, with_nan(3, 9), call=lambda m, x, n=_name: getattr(m, n)(x, 1), grad=2)
for _name in ("nanmax", "nanmin", "nanprod", "nanvar", "nanstd"):
    add(R, _name, with_nan(3, 9), call=lambda m, x, n=_name: getattr(m, n)(x, 1), torch=None)
add(R, "median", *AXES, call=over("median"), torch=lambda m, x: m.quantile(x, 0.5, -2), grad=2)
add(R, "quantile", real(3, 6), call=lambda m, x: m.quantile(x, 0.3, 1), grad=2)
add(R, "percentile", real(3, 6), call=lambda m, x: m.percentile(x, 30, 1), torch=None, grad=2)
add(R, "nanmedian", with_nan(3, 9), call=lambda m, x: m.nanmedian(x, 1), torch=None)
add(R, "nanquantile", with_nan(3, 9), call=lambda m, x: m.nanquantile(x, 0.3, 1), grad=2)
add(R, "nanpercentile", with_nan(3, 9), call=lambda m, x: m.nanpercentile(x, 30, 1), torch=None)
add(R, "histogram", real(40), call=lambda m, x: m.histogram(x, 7), torch=None,
    note="counts have no derivative")  # fmt: skip
add(R, "histogram_bin_edges", real(9), call=lambda m, x: m.histogram_bin_edges(x, 4), torch=None,
    grad=2)  # fmt: skip
add(R, "cov corrcoef", real(3, 6), grad=2)
add(R, "cov", real(3, 6), note="weights", call=lambda m, x: m.cov(
    x, fweights=m.asarray([1, 3, 1, 2, 1, 1]), aweights=m.asarray(np.arange(1.0, 7))),
    grad=2)  # fmt: skip
add(R, "cumsum cumprod", *AXES, call=None, numpy=None, torch=None)
TABLE[-2].call = TABLE[-2].numpy = TABLE[-2].torch = lambda m, x: m.cumsum(x, 1)
TABLE[-1].call = TABLE[-1].numpy = TABLE[-1].torch = lambda m, x: m.cumprod(x, 1)
TABLE[-2].grad = TABLE[-1].grad = 2
add(R, "cummax", *AXES, call=lambda m, x: m.cummax(x, 1),
    numpy=lambda m, x: m.maximum.accumulate(x, 1), torch=lambda m, x: m.cummax(x, 1).values,
    grad=2)  # fmt: skip
add(R, "cummin", *AXES, call=lambda m, x: m.cummin(x, 1),
    numpy=lambda m, x: m.minimum.accumulate(x, 1), torch=lambda m, x: m.cummin(x, 1).values,
    grad=2)  # fmt: skip
add(R, "logcumsumexp", *AXES, call=lambda m, x: m.logcumsumexp(x, 1),
    numpy=lambda m, x: m.logaddexp.accumulate(x, 1), grad=2)  # fmt: skip
add(R, "cumulative_sum cumulative_prod", real(7), torch=None, call=None, grad=2)
add(R, "diff", *AXES, call=lambda m, x: m.diff(x, n=2), grad=2)
add(R, "trace", real(4, 5), grad=2)

# -- movement
M = "Movement"
add(M, "reshape", *AXES, call=lambda m, x: m.reshape(x, (4, -1)), grad=2)
add(M, "permute_dims", *AXES, call=lambda m, x: m.permute_dims(x, (2, 0, 1)), grad=2,
    torch=lambda m, x: m.permute(x, (2, 0, 1)), aliases="permute")  # fmt: skip
add(M, "transpose", *AXES, call=lambda m, x: m.transpose(x), grad=2, note="reverses all axes",
    torch=lambda m, x: m.permute(x, (2, 1, 0)))  # fmt: skip
add(M, "matrix_transpose", *AXES, torch=lambda m, x: x.mT, grad=2)
add(M, "swapaxes moveaxis", *AXES, call=lambda m, x: m.swapaxes(x, 0, 2), grad=2)
TABLE[-1].call = TABLE[-1].numpy = TABLE[-1].torch = lambda m, x: m.moveaxis(x, 0, 2)
add(M, "expand_dims", *AXES, call=lambda m, x: m.expand_dims(x, 1), grad=2,
    torch=lambda m, x: m.unsqueeze(x, 1), aliases="unsqueeze")  # fmt: skip
add(M, "squeeze", real(3, 1, 5), call=lambda m, x: m.squeeze(x, 1), grad=2)
add(M, "flatten", *AXES, call=lambda m, x: m.flatten(x), numpy=lambda m, x: x.ravel(), grad=2)
add(M, "ravel", *AXES, grad=2)
add(M, "unflatten", real(3, 6), call=lambda m, x: m.unflatten(x, 1, (2, -1)), numpy=None, grad=2)
add(M, "broadcast_to expand", real(3, 1), call=lambda m, x: m.broadcast_to(x, (2, 3, 4)), grad=2)
TABLE[-1].call, TABLE[-1].numpy = lambda m, x: m.expand(x, 2, -1, 4), None
TABLE[-1].torch = lambda m, x: x.expand(2, -1, 4)
add(M, "flip", *AXES, call=lambda m, x: m.flip(x, (0, 2)), grad=2)
add(M, "fliplr flipud", *AXES, grad=2)
add(M, "roll", *AXES, call=lambda m, x: m.roll(x, (1, -2), (0, 2)), grad=2)
add(M, "rot90", *AXES, call=lambda m, x: m.rot90(x, 3, (0, 2)), grad=2)
add(M, "repeat", real(3, 2), call=lambda m, x: m.repeat(x, 3, 0), grad=2,
    torch=lambda m, x: m.repeat_interleave(x, 3, 0), note="repeats elements")  # fmt: skip
add(M, "repeat_interleave", real(3, 2), numpy=lambda m, x: m.repeat(x, [2, 0, 3], 0), grad=2,
    call=lambda m, x: m.repeat_interleave(x, [2, 0, 3], 0), torch=None)  # fmt: skip
add(M, "tile", real(3, 2), call=lambda m, x: m.tile(x, (2, 1, 3)), grad=2)
add(M, "pad", real(3, 4), call=lambda m, x: m.pad(x, ((1, 2), (0, 1)), mode="reflect"), grad=2,
    torch=None)  # fmt: skip
add(M, "concat", real(2, 3), real(4, 3), call=lambda m, a, b: m.concat([a, b]), grad=2,
    aliases="cat concatenate")  # fmt: skip
add(M, "stack", real(3), real(3), call=lambda m, a, b: m.stack([a, b], 1), grad=2)
for _name in ("vstack", "hstack", "dstack", "column_stack"):
    add(M, _name, real(3), real(3), call=lambda m, a, b, n=_name: getattr(m, n)([a, b]), grad=2)
add(M, "block_diag", real(2, 3), real(3, 1), numpy=None, grad=2)
add(M, "append", real(2, 3), real(4), torch=None, grad=2)
add(M, "split", real(6, 2), call=lambda m, x: m.split(x, 3), grad=2,
    torch=lambda m, x: m.split(x, 2), note="takes sections")  # fmt: skip
add(M, "array_split", real(7, 2), call=lambda m, x: m.array_split(x, 3), grad=2,
    torch=lambda m, x: m.tensor_split(x, 3), aliases="tensor_split")  # fmt: skip
add(M, "chunk", real(7, 2), call=lambda m, x: m.chunk(x, 3), numpy=None, grad=2)
add(M, "hsplit vsplit", real(4, 4, 2), call=lambda m, x: m.hsplit(x, 2), grad=2)
TABLE[-1].call = TABLE[-1].numpy = TABLE[-1].torch = lambda m, x: m.vsplit(x, 2)
add(M, "dsplit", real(1, 2, 4), call=lambda m, x: m.dsplit(x, 2), grad=2)
add(M, "unstack:unstack/unbind", real(3, 2), grad=2, aliases="unbind", numpy=None)
add(M, "narrow select", real(5, 2), call=lambda m, x: m.narrow(x, 0, 1, 3), numpy=None, grad=2)
TABLE[-1].call = TABLE[-1].torch = lambda m, x: m.select(x, 0, 2)
add(M, "diagonal", real(4, 5, 3), call=lambda m, x: m.diagonal(x, 1), grad=2)
add(M, "diag", real(4), call=lambda m, x: m.diag(x, -1), grad=2)
add(M, "diagflat", real(2, 2), grad=2)
add(M, "diag_embed", real(2, 3), call=lambda m, x: m.diag_embed(x, 1), numpy=None, grad=2)
add(M, "tril triu", real(2, 4, 5), grad=2)
add(M, "meshgrid", real(2), real(3), call=lambda m, a, b: m.meshgrid(a, b, indexing="ij"), grad=2)
add(M, "broadcast_arrays", real(3, 1), real(4), torch=lambda m, a, b: m.broadcast_tensors(a, b),
    grad=2)  # fmt: skip
add(M, "atleast_1d atleast_2d atleast_3d", real(3), grad=2)
add(M, "t swapdims", real(3, 4), numpy=None, grad=2, call=lambda m, x: m.t(x))
TABLE[-1].call = TABLE[-1].torch = lambda m, x: m.swapdims(x, 0, 1)
add(M, "sliding_window_view", real(6), grad=2, torch=None,
    call=lambda m, x: m.sliding_window_view(x, 3),
    numpy=lambda m, x: m.lib.stride_tricks.sliding_window_view(x, 3))  # fmt: skip

# -- indexing, gathering, sorting
G = "Selection, sorting, sets"
WHERE = integers(2, 3, low=0, high=4)
ROWS = np.array([2, -1, 2])
add(G, "take", real(4, 3), call=lambda m, x: m.take(x, ROWS, axis=0), torch=None,
    grad=2)  # fmt: skip
add(G, "take_along_axis", real(4, 3), WHERE, call=lambda m, x, i: m.take_along_axis(x, i, 0),
    torch=lambda m, x, i: m.take_along_dim(x, i, 0), grad=2)  # fmt: skip
add(G, "gather", real(4, 5), WHERE, call=lambda m, x, i: m.gather(x, 0, i), numpy=None, grad=2)
UNIQUE = (real(4, 5), lambda rng: rng.permutation(4)[:3, None] + np.zeros((3, 2), int))
add(G, "scatter", *UNIQUE, real(3, 2), numpy=None, grad=2,
    call=lambda m, x, i, s: m.scatter(x, 0, i, s))  # fmt: skip
add(G, "scatter_add", real(4, 5), WHERE, real(2, 3), numpy=None, grad=2,
    call=lambda m, x, i, s: m.scatter_add(x, 0, i, s))  # fmt: skip
for _op in ("sum", "prod", "mean", "amax", "amin"):
    for _self in (True, False):
        add(G, "scatter_reduce", real(4, 5), WHERE, real(2, 3), numpy=None, note=_op,
            grad=2 if _op in ("sum", "mean") else None,
            call=lambda m, x, i, s, o=_op, k=_self: m.scatter_reduce(
                x, 0, i, s, o, include_self=k))  # fmt: skip
ONE_D = integers(3, low=0, high=4)
add(G, "index_select", real(4, 3), ONE_D, call=lambda m, x, i: m.index_select(x, 0, i),
    numpy=None, grad=2)  # fmt: skip
add(G, "index_add", real(4, 3), ONE_D, real(3, 3), numpy=None, grad=2,
    call=lambda m, x, i, s: m.index_add(x, 0, i, s, alpha=2.0))  # fmt: skip
add(G, "index_copy", real(4, 3), lambda rng: rng.permutation(4)[:3], real(3, 3), numpy=None,
    grad=2, call=lambda m, x, i, s: m.index_copy(x, 0, i, s))  # fmt: skip
add(G, "index_fill", real(4, 3), ONE_D, numpy=None, grad=2,
    call=lambda m, x, i: m.index_fill(x, 0, i, 2.5))  # fmt: skip
add(G, "index_put", real(4, 3), ONE_D, real(3, 3), numpy=None, grad=2,
    call=lambda m, x, i, s: m.index_put(x, (i,), s, accumulate=True),
    torch=lambda m, x, i, s: m.index_put(x, (i,), s, accumulate=True))  # fmt: skip
add(G, "masked_fill", real(4, 3), bools(3), numpy=None, grad=2,
    call=lambda m, x, k: m.masked_fill(x, k, 7.0))  # fmt: skip
add(G, "masked_select", real(4, 3), bools(4, 3), numpy=None, grad=2, note="computes at the call")
add(G, "masked_scatter", real(4, 3), bools(4, 3), real(12), numpy=None, grad=2)
add(G, "nonzero", bools(4, 3), torch=None, note="computes at the call")
add(G, "argwhere", bools(4, 3), note="computes at the call")
add(G, "flatnonzero", bools(4, 3), torch=None, note="computes at the call")
add(G, "isin", integers(3, 5), integers(4))
add(G, "bincount", integers(9, low=0, high=5), positive(9), note="computes at the call")
add(G, "sort", real(4, 7), torch=lambda m, x: m.sort(x).values, grad=2)
add(G, "argsort", real(4, 7))
add(G, "topk", real(4, 7), call=lambda m, x: tuple(m.topk(x, 3)), numpy=None, grad=2)
add(G, "kthvalue", real(4, 7), call=lambda m, x: tuple(m.kthvalue(x, 3)), numpy=None, grad=2)
add(G, "searchsorted", lambda rng: np.sort(rng.normal(size=9)), real(4, 3))
add(G, "bucketize", real(4, 3), lambda rng: np.sort(rng.normal(size=9)), numpy=None)
add(G, "digitize", real(4, 3), lambda rng: np.sort(rng.normal(size=9)), torch=None)
add(G, "unique unique_values:unique", integers(12), torch=None, note="computes at the call")
for _name in ("unique_all", "unique_counts", "unique_inverse"):
    add(G, _name, integers(3, 4), torch=None, note="computes at the call",
        call=lambda m, x, n=_name: tuple(getattr(m, n)(x)))  # fmt: skip
add(G, "one_hot", integers(5, low=0, high=4), numpy=None,
    call=lambda m, x: m.astype(m.one_hot(x, 4), "int64"),
    torch=lambda m, x: m.nn.functional.one_hot(x, 4))  # fmt: skip

# -- linear algebra
L = "Linear algebra"
add(L, "matmul", real(2, 3, 4), real(4, 5), grad=2)
add(L, "dot", real(4), real(4), grad=2)
add(L, "vecdot", real(3, 4), real(3, 4), grad=2, torch=lambda m, a, b: m.linalg.vecdot(a, b))
add(L, "inner", real(3, 4), real(2, 4), grad=2)
add(L, "outer", real(3), real(4), grad=2, aliases="ger")
add(L, "vdot", real(4), real(4), grad=2)
add(L, "tensordot", real(2, 3, 4), real(4, 3, 2), grad=2,
    call=lambda m, a, b: m.tensordot(a, b, ([1, 2], [1, 0])))  # fmt: skip
add(L, "einsum", real(2, 3, 4), real(4, 5), grad=2,
    call=lambda m, a, b: m.einsum("bij,jk->kbi", a, b))  # fmt: skip
add(L, "kron", real(2, 3), real(3, 2), grad=2)
add(L, "cross", real(4, 3), real(4, 3), grad=2, torch=lambda m, a, b: m.linalg.cross(a, b))
add(L, "bilinear", real(4, 2), real(4, 3), real(5, 2, 3), real(5), numpy=None, grad=2,
    torch=lambda m, a, b, w, c: m.nn.functional.bilinear(a, b, w, c))  # fmt: skip
add(L, "mm", real(2, 3), real(3, 4), numpy=None, grad=2)
add(L, "mv", real(2, 3), real(3), numpy=None, grad=2)
add(L, "bmm", real(2, 2, 3), real(2, 3, 4), numpy=None, grad=2)
add(L, "addmm", real(2, 4), real(2, 3), real(3, 4), numpy=None, grad=2,
    call=lambda m, x, a, b: m.addmm(x, a, b, beta=0.5, alpha=2.0))  # fmt: skip
add(L, "baddbmm", real(2, 2, 4), real(2, 2, 3), real(2, 3, 4), numpy=None, grad=2)


def lapack(name: str, *operands: Make, grad: int | None = 2, **given: Any) -> None:
    """A function of `linalg` in all three."""
    same = given.pop("call", lambda m, *x: getattr(m.linalg, name)(*x))
    add(L, f"linalg.{name}", *operands, grad=grad, call=same, **given)


lapack("inv", spd(4))
lapack("det", spd(3))
lapack("slogdet", spd(3), call=lambda m, x: tuple(m.linalg.slogdet(x)))
lapack("solve", spd(4), real(4, 2))
lapack("solve_triangular", spd(4), real(4, 2), numpy=None,
       call=lambda m, a, b: m.linalg.solve_triangular(a, b, upper=True))  # fmt: skip
lapack("cholesky", real(4, 4), call=lambda m, x: m.linalg.cholesky(
    m.matmul(x, x.T) + m.asarray(np.eye(4))))  # fmt: skip
lapack("qr", real(5, 3), call=lambda m, x: tuple(m.linalg.qr(x)))
lapack("svdvals", real(4, 3), numpy=lambda m, x: m.linalg.svd(x, compute_uv=False))
lapack("svd", real(4, 3), call=lambda m, x: m.linalg.svd(x, full_matrices=False)[0] ** 2)
lapack("svd", real(3, 4), call=lambda m, x: m.linalg.svd(x)[2][:3] ** 2, note="full matrices")
lapack("qr", real(3, 4), call=lambda m, x: tuple(m.linalg.qr(x, mode="complete")), note="complete")
lapack("eigh", real(4, 4), call=lambda m, x: m.linalg.eigh(x + x.T)[1] ** 2)
lapack("eigvalsh", real(4, 4), call=lambda m, x: m.linalg.eigvalsh(x + x.T))
lapack("pinv", real(5, 3))
lapack("matrix_rank", real(5, 3), grad=None)
lapack("matrix_power", spd(3), call=lambda m, x: m.linalg.matrix_power(x, 3))
lapack("multi_dot", real(3, 4), real(4, 2), real(2, 5), grad=2,
       call=lambda m, *x: m.linalg.multi_dot(list(x)))  # fmt: skip
lapack("matrix_norm", real(4, 3), call=lambda m, x: m.linalg.matrix_norm(x, ord="nuc"))
lapack("vector_norm", real(4, 3), call=lambda m, x: m.linalg.vector_norm(x, ord=3))
lapack("norm", real(4, 3))
lapack("cond", spd(3), grad=2)
lapack("lstsq", real(5, 3), real(5, 2), call=lambda m, a, b: m.linalg.lstsq(a, b)[0],
       numpy=lambda m, a, b: m.linalg.lstsq(a, b, rcond=None)[0], grad=2)  # fmt: skip
lapack("diagonal", real(2, 4, 5), grad=2, torch=None)
lapack("trace", real(4, 5), grad=2, torch=lambda m, x: m.trace(x[:, :4]))

# -- convolution
C = "Convolution"


def layer(name: str, *operands: Make, arguments: tuple[Any, ...], bias: bool = True) -> None:
    """A function of torch.nn.functional, whose third argument is a bias that ours lacks."""
    middle = (None,) if bias else ()
    add(C, name, *operands, numpy=None, grad=2,
        call=lambda m, *x: getattr(m, name)(*x, *arguments),
        torch=lambda m, *x: getattr(m.nn.functional, name)(*x, *middle, *arguments))  # fmt: skip


layer("conv1d", real(2, 2, 9), real(4, 1, 3), arguments=(2, 1, 1, 2))
layer("conv2d", real(1, 2, 6, 5), real(3, 2, 3, 2), arguments=(2, 1))
layer("conv3d", real(1, 2, 3, 4, 3), real(2, 2, 2, 2, 2), arguments=(1, 1))
layer("conv_transpose1d", real(1, 2, 4), real(2, 3, 3), arguments=(2, 1, 1))
layer("conv_transpose2d", real(1, 2, 3, 3), real(2, 2, 3, 3), arguments=((2, 1), 1, 0, 2))
layer("conv_transpose3d", real(1, 1, 2, 2, 2), real(1, 2, 2, 2, 2), arguments=(2,))
layer("unfold", real(1, 2, 4, 5), arguments=((2, 3), 1, 1, 2), bias=False)
layer("fold", real(1, 4, 6), arguments=((3, 4), (2, 2)), bias=False)
layer("max_pool1d", real(1, 2, 7), arguments=(3, 2, 1), bias=False)
layer("max_pool2d", real(1, 2, 6, 6), arguments=(2,), bias=False)
layer("max_pool3d", real(1, 1, 3, 4, 4), arguments=(2, 1), bias=False)
layer("avg_pool1d", real(1, 2, 7), arguments=(3, 2, 1), bias=False)
layer("avg_pool2d", real(1, 2, 6, 6), arguments=(2,), bias=False)
layer("avg_pool3d", real(1, 1, 3, 4, 4), arguments=(2, 1), bias=False)

# -- creation: no operands
N = "Creation"
add(N, "arange", call=lambda m: m.arange(2, 17, 3))
add(N, "linspace", call=lambda m: m.linspace(0.0, 1.0, 5, dtype=m.float64))
add(N, "logspace", call=lambda m: m.logspace(0.0, 2.0, 5, dtype=m.float64))
add(N, "eye", call=lambda m: m.eye(3, dtype=m.float64))
add(N, "identity", call=lambda m: m.identity(3, dtype=m.float64), torch=None)
add(N, "zeros ones", call=lambda m: m.zeros((2, 3), dtype=m.int32))
TABLE[-1].call = TABLE[-1].numpy = TABLE[-1].torch = lambda m: m.ones((2, 3), dtype=m.int32)
add(N, "full", call=lambda m: m.full((2, 3), 2.5, dtype=m.float64))
add(N, "full_like", *X, call=lambda m, x: m.full_like(x, 7))
add(N, "zeros_like ones_like", *X)
add(N, "indices", call=lambda m: m.indices((2, 3)), torch=None)
add(N, "vander", real(4), call=lambda m, x: m.vander(x, 3), grad=2, torch=None)
add(N, "tril_indices", call=lambda m: m.tril_indices(4, 5, 1), torch=None,
    numpy=lambda m: m.tril_indices(4, 1, 5))  # fmt: skip
add(N, "triu_indices", call=lambda m: m.triu_indices(4, 5, 1), torch=None,
    numpy=lambda m: m.triu_indices(4, 1, 5))  # fmt: skip
