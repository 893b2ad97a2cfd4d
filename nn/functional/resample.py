"""Images of other sizes: interpolation, and reading at given places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import metaop as mo
from metaop import Var, support

from .arguments import of_arrays
from .pooling import adaptive_avg_pool

CUBIC = -0.75  # the slope of the cubic kernel at 1
RANKS = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,),
    "bilinear": (2,), "bicubic": (2,), "trilinear": (3,),
}  # fmt: skip


@of_arrays
def interpolate(
    input: Var,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Var:
    """input [batch, channels, *space] at another size, or `floor(space * scale_factor)`.

    mode: "nearest", "nearest-exact", "area", and "linear" (one axis), "bilinear", "bicubic" (two),
    "trilinear" (three).  Place i of the result lies at `(i + 1/2) / scale - 1/2` of the input,
    with align_corners at `i * (n - 1) / (size - 1)`; "nearest" reads `floor(i / scale)`.

    Places are computed with integers, so they are exact; a scale_factor counts as the fraction with
    a denominator up to 10^6 that is nearest to it.
    Source: as torch.nn.functional.interpolate; cubic: Keys 1981 with a = -0.75.
    """
    rank = input.ndim - 2
    if mode not in RANKS:
        raise ValueError(f"interpolate: mode must be one of {', '.join(RANKS)}, got {mode!r}")
    if rank not in RANKS[mode]:
        raise mo.errors.ShapeError(
            f"interpolate: mode {mode!r} needs {' or '.join(map(str, RANKS[mode]))} axes behind "
            f"batch and channels, got {mo.errors.describe(input)}"
        )
    if antialias:
        raise ValueError("interpolate: there is no antialias; write mode='area' to shrink an image")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"interpolate: align_corners has no meaning with mode {mode!r}")
    sizes, ratios = _sizes_and_ratios(input, rank, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return adaptive_avg_pool(input, sizes)
    return _interpolated(input, mode, tuple(sizes), tuple(ratios), bool(align_corners))


def _sizes_and_ratios(
    x: Var, rank: int, size: Any, factor: Any, recompute: bool | None
) -> tuple[list[int], list[tuple[int, int]]]:
    """The extents of the result, and input extents over those as fractions."""
    if (size is None) == (factor is None):
        raise ValueError("interpolate: give size or scale_factor, and not both")
    given = size if factor is None else factor
    each = list(given) if isinstance(given, Sequence) else [given] * rank
    if len(each) != rank:
        raise ValueError(f"interpolate: one number or {rank} are needed, got {given!r}")
    space = [int(n) for n in x.shape[2:]]
    sizes = each if factor is None else [math.floor(n * f) for n, f in zip(space, each)]
    if min(sizes, default=0) < 1:
        raise ValueError(f"interpolate: sizes must be at least 1, got {sizes}")
    if factor is None or recompute:
        return sizes, list(zip(space, sizes, strict=True))
    exact = [1 / Fraction(f).limit_denominator(10**6) for f in each]
    return sizes, [(r.numerator, r.denominator) for r in exact]


@support.remembered
def _interpolated(
    x: Var, mode: str, sizes: tuple[int, ...], ratios: tuple[Any, ...], align: bool
) -> Var:
    resized: Callable[..., Var] = _WAYS[mode]
    for axis, (size, ratio) in enumerate(zip(sizes, ratios, strict=True), 2):
        x = resized(x, axis, size, *ratio, align)
    return x


Place = Callable[[Any], Any]  # of an index: an index, or a Var of them


def _read(x: Var, axis: int, size: int, place: Place) -> Var:
    """x[..., place(i), ...] for i in 0 … size - 1 along an axis, the border beyond it."""
    last = int(x.shape[axis]) - 1
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])

    def at(*i: Any) -> tuple[Any, ...]:
        inner = support.index_minimum(support.index_maximum(place(i[axis]), 0), last)
        return (*i[:axis], inner, *i[axis + 1 :])

    return mo.reindex(x, shape, at)


def _nearest(x: Var, axis: int, size: int, p: int, q: int, align: bool) -> Var:
    return _read(x, axis, size, lambda i: i * p // q)


def _nearest_exact(x: Var, axis: int, size: int, p: int, q: int, align: bool) -> Var:
    return _read(x, axis, size, lambda i: (2 * i + 1) * p // (2 * q))


def _source(n: int, size: int, p: int, q: int, align: bool) -> tuple[Place, int]:
    """The place that i reads, as a numerator, and its denominator."""
    if align:
        return (lambda i: i * (n - 1)), max(size - 1, 1)
    return (lambda i: (2 * i + 1) * p - q), 2 * q


def _share(x: Var, axis: int, size: int, numerator: Place, below: int) -> Var:
    """How far between two elements each place lies, in [0, 1), shaped to multiply x."""
    shares = mo.index((below,), 0).astype(x.dtype) / below
    shape = (size, *(1,) * (x.ndim - axis - 1))
    return mo.reindex(shares, shape, lambda i, *rest: (numerator(i) % below,))


def _linear(x: Var, axis: int, size: int, p: int, q: int, align: bool) -> Var:
    # Both elements are the border's where a place is before the first: the share is nothing then.
    place, below = _source(int(x.shape[axis]), size, p, q, align)
    share = _share(x, axis, size, place, below)
    low = _read(x, axis, size, lambda i: place(i) // below)
    high = _read(x, axis, size, lambda i: place(i) // below + 1)
    return low * (1 - share) + high * share


def _cubic(x: Var, axis: int, size: int, p: int, q: int, align: bool) -> Var:
    place, below = _source(int(x.shape[axis]), size, p, q, align)
    t = _share(x, axis, size, place, below)

    def tap(step: int) -> Var:
        return _read(x, axis, size, lambda i: place(i) // below + step)

    return tap(-1) * _far(1 + t) + tap(0) * _near(t) + tap(1) * _near(1 - t) + tap(2) * _far(2 - t)


def _near(t: Var) -> Var:
    """The cubic kernel at a distance up to 1."""
    return ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1


def _far(t: Var) -> Var:
    """The cubic kernel at a distance of 1 to 2."""
    return ((CUBIC * t - 5 * CUBIC) * t + 8 * CUBIC) * t - 4 * CUBIC


_WAYS = {
    "nearest": _nearest, "nearest-exact": _nearest_exact, "linear": _linear, "bilinear": _linear,
    "trilinear": _linear, "bicubic": _cubic,
}  # fmt: skip


def upsample(
    input: Var,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Var:
    """`interpolate` under its older name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


# --- reading at given places ----------------------------------------------------------------------


@of_arrays
@support.remembered
def affine_grid(theta: Var, size: Sequence[int], align_corners: bool = False) -> Var:
    """`grid[n, i, j] = theta[n] @ (x_j, y_i, 1)`, x and y from -1 to 1 over the image.

    theta: [batch, 2, 3] with size [batch, channels, height, width], or [batch, 3, 4] with a depth.
    -1 and 1 are the middles of the outer elements with align_corners, else their outer edges.
    Returns: [batch, height, width, 2] or [batch, depth, height, width, 3].
    """
    space = tuple(size)[2:]
    rank = len(space)
    if theta.shape[1:] != (rank, rank + 1):
        raise mo.errors.ShapeError(
            f"affine_grid: theta must be [batch, {rank}, {rank + 1}] for size {tuple(size)}, "
            f"got {mo.errors.describe(theta)}"
        )
    total: Any = None
    for k in range(rank):  # x runs along the last axis
        n = space[rank - 1 - k]
        at = mo.index(space, rank - 1 - k).astype(theta.dtype)
        line = (2 * at + 1 - n) / (max(n - 1, 1) if align_corners else n)
        coefficient = theta[:, :, k].reshape((theta.shape[0], *(1,) * rank, rank))
        term = mo.expand_dims(line, -1) * coefficient
        total = term if total is None else total + term
    return total + theta[:, :, rank].reshape((theta.shape[0], *(1,) * rank, rank))


GRID_MODES = ("bilinear", "nearest", "bicubic")
GRID_PADDINGS = ("zeros", "border", "reflection")


@of_arrays
@support.remembered
def grid_sample(
    input: Var,
    grid: Var,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Var:
    """`out[n, c, …] = input[n, c]` at the place `grid[n, …]`, between -1 and 1 on every axis.

    input: [batch, channels, *space] of two or three axes; grid: [batch, *places, axes], the last
    axis of input first.  mode: "bilinear", "nearest", or "bicubic" (two axes).  padding_mode:
    what lies outside is 0 ("zeros"), the border, or its reflection.  align_corners: as affine_grid.

    Gradient: in input, and with "bilinear" and "bicubic" in grid.
    Source: Jaderberg et al. 2015, section 3.3; as torch.nn.functional.grid_sample.
    """
    rank = input.ndim - 2
    if mode not in GRID_MODES or padding_mode not in GRID_PADDINGS:
        raise ValueError(
            f"grid_sample: mode must be one of {GRID_MODES} and padding_mode one of "
            f"{GRID_PADDINGS}, got {mode!r} and {padding_mode!r}"
        )
    if grid.ndim != input.ndim or grid.shape[-1] != rank or (mode == "bicubic" and rank != 2):
        raise mo.errors.ShapeError(
            f"grid_sample: grid must be [batch, *places, {rank}], "
            f"{mo.errors.describe_all(input=input, grid=grid)}"
        )
    places = []
    for axis, n in enumerate(map(int, input.shape[2:])):
        at = grid[..., rank - 1 - axis]
        place = (at + 1) * ((n - 1) / 2) if align_corners else ((at + 1) * n - 1) * 0.5
        if mode != "bicubic":
            place = _returned(place, n, padding_mode, bool(align_corners))
        places.append(place)
    if mode == "nearest":
        return _at_places(input, [mo.round(p) for p in places])
    taps = [_taps(place, mode) for place in places]
    total: Any = None
    for choice in _choices(taps):
        at = [_returned(p, int(n), padding_mode, bool(align_corners)) if mode == "bicubic" else p
              for (p, _), n in zip(choice, input.shape[2:], strict=True)]  # fmt: skip
        weight = choice[0][1]
        for _, other in choice[1:]:
            weight = weight * other
        term = _at_places(input, at) * mo.expand_dims(weight, 1)
        total = term if total is None else total + term
    return total


def _choices(taps: list[list[Any]]) -> list[tuple[Any, ...]]:
    """One tap for every axis, in every way."""
    chosen: list[tuple[Any, ...]] = [()]
    for options in taps:
        chosen = [(*before, option) for before in chosen for option in options]
    return chosen


def _taps(place: Var, mode: str) -> list[tuple[Var, Var]]:
    """The whole places around one, each with its weight."""
    low = mo.floor(place.detach())
    t = place - low
    if mode == "bilinear":
        return [(low, 1 - t), (low + 1, t)]
    weights = (_far(1 + t), _near(t), _near(1 - t), _far(2 - t))
    return [(low + step, w) for step, w in zip((-1, 0, 1, 2), weights, strict=True)]


def _returned(place: Var, n: int, padding_mode: str, align: bool) -> Var:
    """The place inside the image that stands for one outside."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        low, span = (0.0, n - 1) if align else (-0.5, n)
        if span == 0:
            return place * 0
        distance = mo.abs(place - low) % (2 * span)
        place = mo.minimum(distance, 2 * span - distance) + low
    return mo.clip(place, 0, n - 1)


def _at_places(x: Var, places: list[Var]) -> Var:
    """x[n, c, p…] for whole places p[n, …], 0 outside."""
    indices = [mo.where((p >= -1) & (p <= n), p, -1).astype(mo.int64)
               for p, n in zip(places, x.shape[2:], strict=True)]  # fmt: skip
    shape = (*x.shape[:2], *places[0].shape[1:])

    def at(n: Any, c: Any, *i: Any) -> tuple[Any, ...]:
        return (n, c, *(index[(n, *i)] for index in indices))

    return mo.reindex(x, shape, at)
