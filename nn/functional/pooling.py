"""Pooling: the largest, the mean or the norm of every window, of every bin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import metaop as mo
from metaop import Var, support

from .arguments import Sizes, of_arrays


def _with_batch(function: Callable[..., Any], rank: int, x: Var, *arguments: Any) -> Any:
    """The function of [batch, channels, *space], also of [channels, *space]."""
    if x.ndim != rank + 1:
        return function(x, *arguments)
    result = function(x[None], *arguments)
    return tuple(part[0] for part in result) if isinstance(result, tuple) else result[0]


@of_arrays
def max_pool1d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value in each window of [batch, channels, length]; see `mo.max_pool2d`."""
    return _with_batch(
        mo.max_pool1d, 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@of_arrays
def max_pool2d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value in each window of [batch, channels, height, width]; see `mo.max_pool2d`."""
    return _with_batch(
        mo.max_pool2d, 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@of_arrays
def max_pool3d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value in each window of [batch, channels, depth, height, width]."""
    return _with_batch(
        mo.max_pool3d, 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@of_arrays
def avg_pool1d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Var:
    """The mean of each window of [batch, channels, length]; see `mo.avg_pool2d`."""
    return _with_batch(
        mo.avg_pool1d, 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad
    )


@of_arrays
def avg_pool2d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Var:
    """The mean of each window of [batch, channels, height, width]; see `mo.avg_pool2d`."""
    return _with_batch(
        mo.avg_pool2d,
        2,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


@of_arrays
def avg_pool3d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Var:
    """The mean of each window of [batch, channels, depth, height, width]; see `mo.avg_pool2d`."""
    return _with_batch(
        mo.avg_pool3d,
        3,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


# --- norms ----------------------------------------------------------------------------------------


def _lp_pool(
    rank: int, x: Var, norm_type: float, kernel_size: Sizes, stride: Sizes | None, ceil_mode: bool
) -> Var:
    sizes = kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,) * rank
    mean = (avg_pool1d, avg_pool2d, avg_pool3d)[rank - 1]
    powers = mean(x**norm_type, kernel_size, stride, 0, ceil_mode)
    count = 1
    for size in sizes:
        count *= size
    total = mo.where(powers > 0, powers, 0) * count  # even roots of odd sums are none
    return mo.where(total > 0, mo.where(total > 0, total, 1) ** (1 / norm_type), 0)


@of_arrays
def lp_pool1d(
    input: Var,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Var:
    """`sum(x ** p) ** (1/p)` over each window of [batch, channels, length]."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


@of_arrays
def lp_pool2d(
    input: Var,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Var:
    """`sum(x ** p) ** (1/p)` over each window of [batch, channels, height, width]."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


@of_arrays
def lp_pool3d(
    input: Var,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Var:
    """`sum(x ** p) ** (1/p)` over each window of [batch, channels, depth, height, width]."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# --- adaptive: bins that divide the space ---------------------------------------------------------


def _bins(
    x: Var, output_size: Any, rank: int | None = None
) -> tuple[list[int], list[int], list[int]]:
    """The extents of the space and of the result, and the largest bin of each axis."""
    rank = x.ndim - 2 if rank is None else rank
    space = [int(n) for n in x.shape[x.ndim - rank :]]
    given = list(output_size) if isinstance(output_size, Sequence) else [output_size] * rank
    if len(given) != rank:
        raise ValueError(f"adaptive pooling: one size or {rank} are needed, got {output_size!r}")
    out = [n if size is None else int(size) for n, size in zip(space, given, strict=True)]
    if min(out) < 1 or min(space) < 1:
        raise mo.errors.ShapeError(
            f"adaptive pooling: sizes must be at least 1, {out} of {mo.errors.describe(x)}"
        )
    widest = [
        max(-(-(i + 1) * n // size) - i * n // size for i in range(size))
        for n, size in zip(space, out, strict=True)
    ]
    return space, out, widest


def _in_bins(x: Var, space: list[int], out: list[int], widest: list[int], fill: float) -> Var:
    """x seen through its bins, [batch, channels, *out, *widest]; fill beyond a bin's end."""
    rank = len(space)

    def at(*i: Any) -> tuple[Any, ...]:
        starts = [i[2 + k] * space[k] // out[k] for k in range(rank)]
        return (*i[:2], *(start + i[2 + rank + k] for k, start in enumerate(starts)))

    def inside(*i: Any) -> Any:
        condition: Any = None
        for k in range(rank):
            n, size = space[k], out[k]
            end = ((i[2 + k] + 1) * n + size - 1) // size
            holds = i[2 + k] * n // size + i[2 + rank + k] < end
            condition = holds if condition is None else condition & holds
        return condition

    uneven = any(n % size for n, size in zip(space, out, strict=True))
    shape = (*x.shape[:2], *out, *widest)
    return mo.reindex(x, shape, at, fill, inside if uneven else None)


def _tap_axes(rank: int) -> tuple[int, ...]:
    return tuple(range(2 + rank, 2 + 2 * rank))


@of_arrays
def adaptive_avg_pool(input: Var, output_size: Sizes) -> Var:
    """The mean of every bin: bin i along n elements is `i*n // size … ceil((i+1)*n / size)`.

    input: [batch, channels, *space]; output_size: one number or one per axis, None keeps an axis.
    """
    return _adaptive_avg_pool(input, *map(tuple, _bins(input, output_size)))


@support.remembered
def _adaptive_avg_pool(x: Var, space: Any, out: Any, widest: Any) -> Var:
    seen = _in_bins(x, space, out, widest, 0)
    axes = _tap_axes(len(out))
    if not any(n % size for n, size in zip(space, out, strict=True)):
        return seen.mean(axis=axes)
    count: Any = None
    for k, (n, size) in enumerate(zip(space, out, strict=True)):
        i = mo.index((size, *(1,) * (len(out) - 1 - k)), 0)
        width = ((i + 1) * n + size - 1) // size - i * n // size
        count = width if count is None else count * width
    return seen.sum(axis=axes) / count.astype(x.dtype)


@of_arrays
def adaptive_max_pool(input: Var, output_size: Sizes, return_indices: bool = False) -> Any:
    """The largest of every bin, as `adaptive_avg_pool`; with return_indices also its place in the
    flat space."""
    space, out, widest = map(tuple, _bins(input, output_size))
    return _adaptive_max_pool(input, space, out, widest, return_indices)


@support.remembered
def _adaptive_max_pool(x: Var, space: Any, out: Any, widest: Any, return_indices: bool) -> Any:
    rank = len(out)
    seen = _in_bins(x, space, out, widest, x.dtype.lowest)
    largest = seen.max(axis=_tap_axes(rank))
    if not return_indices:
        return largest
    tap = seen.detach().reshape((*x.shape[:2], *out, -1)).argmax(axis=-1)
    place, left = 0, 1
    for size in widest:
        left *= size
    for k, (n, size) in enumerate(zip(space, out, strict=True)):
        left //= widest[k]
        start = mo.index(tuple(tap.shape), 2 + k) * n // size
        place = place * n + start + tap // left % widest[k]
    return largest, place


@of_arrays
def adaptive_avg_pool1d(input: Var, output_size: Any) -> Var:
    """`adaptive_avg_pool` of [batch, channels, length]."""
    return _with_batch(adaptive_avg_pool, 1, input, output_size)


@of_arrays
def adaptive_avg_pool2d(input: Var, output_size: Any) -> Var:
    """`adaptive_avg_pool` of [batch, channels, height, width]."""
    return _with_batch(adaptive_avg_pool, 2, input, output_size)


@of_arrays
def adaptive_avg_pool3d(input: Var, output_size: Any) -> Var:
    """`adaptive_avg_pool` of [batch, channels, depth, height, width]."""
    return _with_batch(adaptive_avg_pool, 3, input, output_size)


@of_arrays
def adaptive_max_pool1d(input: Var, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool` of [batch, channels, length]."""
    return _with_batch(adaptive_max_pool, 1, input, output_size, return_indices)


@of_arrays
def adaptive_max_pool2d(input: Var, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool` of [batch, channels, height, width]."""
    return _with_batch(adaptive_max_pool, 2, input, output_size, return_indices)


@of_arrays
def adaptive_max_pool3d(input: Var, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool` of [batch, channels, depth, height, width]."""
    return _with_batch(adaptive_max_pool, 3, input, output_size, return_indices)


# --- back ----------------------------------------------------------------------------------------


def _max_unpool(
    rank: int, x: Var, indices: Var, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
    output_size: Sequence[int] | None,
) -> Var:  # fmt: skip
    if x.ndim == rank + 1:
        return _max_unpool(rank, x[None], indices[None], kernel_size, stride, padding, output_size)[
            0
        ]

    def each(value: Any) -> list[int]:
        return list(value) if isinstance(value, Sequence) else [value] * rank

    steps = each(kernel_size if stride is None else stride)
    space = [
        (n - 1) * s - 2 * p + k
        for n, s, p, k in zip(
            map(int, x.shape[2:]), steps, each(padding), each(kernel_size), strict=True
        )
    ]
    if output_size is not None:
        space = list(output_size)[-rank:]
    count = 1
    for n in space:
        count *= n
    flat = (*x.shape[:2], -1)
    empty = mo.zeros((*x.shape[:2], count), dtype=x.dtype)
    return mo.scatter(empty, 2, indices.reshape(flat), x.reshape(flat)).reshape(
        (*x.shape[:2], *space)
    )


@of_arrays
def max_unpool1d(
    input: Var,
    indices: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Var:
    """What `max_pool1d` gave with return_indices back in its places, 0 elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


@of_arrays
def max_unpool2d(
    input: Var,
    indices: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Var:
    """What `max_pool2d` gave with return_indices back in its places, 0 elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


@of_arrays
def max_unpool3d(
    input: Var,
    indices: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Var:
    """What `max_pool3d` gave with return_indices back in its places, 0 elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
