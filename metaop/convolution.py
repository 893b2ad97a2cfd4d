"""Convolution and pooling as functions over `reindex`, `*` and reductions.

Both slide a window: output position `i` reads tap `r` at `i*stride + r*dilation - before`, and what
lies outside the input reads a fill value (0 for sums, the lowest value for maxima).  A convolution
multiplies the windows by the kernel and sums; a pooling reduces the windows themselves.  Nothing
here is known to the compiler: it sees a sum over a product of two affine reads.

Layouts are PyTorch's: images are [batch, channel, *space], kernels [out, in/groups, *window].
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import build, elementwise
from .errors import DTypeError, ShapeError, describe, describe_all
from .extent import Extent
from .graph import IndexOf, Node, Piece, Reindex, ReindexReduce, size_of
from .index import Expr
from .recipes import remembered
from .var import Var

Sizes = int | Sequence[int]


class Window(NamedTuple):
    """How a window slides along one axis: `out` positions of `size` taps each."""

    size: int
    stride: int
    dilation: int
    before: int
    out: int

    def source(self, position: Expr, tap: Expr) -> Expr:
        """The input coordinate that `tap` of the window at `position` reads."""
        e: Expr = ("add", _times(position, self.stride), _times(tap, self.dilation))
        return ("sub", e, self.before) if self.before else e


def _times(e: Expr, factor: int) -> Expr:
    return e if factor == 1 else ("mul", e, factor)


def _loops(first: int, count: int) -> list[Expr]:
    return [("i", k) for k in range(first, first + count)]


# --- arguments ------------------------------------------------------------------------------------


def _sizes(name: str, argument: str, value: Sizes, rank: int, least: int) -> tuple[int, ...]:
    """`value` as one integer per spatial axis, each at least `least`."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) == 1:
        values *= rank
    try:
        sizes = tuple(operator.index(v) for v in values)
    except TypeError:
        raise ValueError(f"{name}: {argument} must be integers, got {value!r}") from None
    if len(sizes) != rank:
        raise ValueError(f"{name}: {argument} must be one integer or {rank}, got {value!r}")
    if min(sizes) < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {value!r}")
    return sizes


def _padding(
    name: str, padding: Sizes | str, stride: Sequence[int], span: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """(before, after) per axis; "same" puts the odd element after, "valid" is none."""
    if padding == "valid":
        return ((0, 0),) * len(span)
    if padding == "same":
        if max(stride) > 1:
            raise ValueError(f"{name}: padding='same' needs stride 1, got stride {tuple(stride)}")
        return tuple(((s - 1) // 2, s - 1 - (s - 1) // 2) for s in span)
    if isinstance(padding, str):
        raise ValueError(f"{name}: padding must be integers, 'same' or 'valid', got {padding!r}")
    return tuple((p, p) for p in _sizes(name, "padding", padding, len(span), 0))


def _check_rank(name: str, argument: str, x: Var, layout: str) -> None:
    rank = layout.count(",") + 1
    if x.ndim != rank:
        hint = "; write x[None] to add the batch axis" if x.ndim == rank - 1 else ""
        raise ShapeError(f"{name}: {argument} must be [{layout}], got {describe(x)}{hint}")


def _windows(
    name: str,
    x: Var,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> list[Window]:
    """One Window per spatial axis of x, or a ShapeError where the kernel does not fit."""
    windows = []
    for size, k, s, (before, after), d in zip(
        x.shape[2:], kernel, stride, padding, dilation, strict=True
    ):
        span = (k - 1) * d + 1
        room = size + before + after - span
        if room < 0:
            raise ShapeError(
                f"{name}: the window does not fit in x {describe(x)}: it spans {span}, "
                f"the padded axis has {size + before + after}"
            )
        out = room // s + 1
        # With ceil_mode a last, cut-off window is kept if it starts inside the input.
        if ceil_mode and room % s and out * s < size + before:
            out += 1
        windows.append(Window(k, s, d, before, out))
    return windows


# --- convolution ----------------------------------------------------------------------------------


def _check_operands(name: str, x: Var, w: Var, groups: int, space: str) -> None:
    _check_rank(f"{name}(x, w)", "x", x, f"batch,channels,{space}")
    _check_rank(f"{name}(x, w)", "w", w, f"out,in,{space}")
    if x.dtype is not w.dtype:
        raise DTypeError(
            f"{name}(x, w): dtypes must agree, {describe_all(x=x, w=w)}; "
            f"write x.astype({w.dtype.name!r})"
        )
    if x.shape[1] != w.shape[1] * groups:
        times = f" * {groups} groups" if groups > 1 else ""
        raise ShapeError(
            f"{name}(x, w): channels must agree, {describe_all(x=x, w=w)} "
            f"({x.shape[1]} != {w.shape[1]}{times})"
        )
    if w.shape[0] % groups:
        raise ShapeError(f"{name}(x, w): {groups} groups do not divide w's {w.shape[0]} outputs")


def _convolve(
    name: str, space: str, x: Var, w: Var, stride: Any, padding: Any, dilation: Any, groups: int
) -> Var:
    (groups,) = _sizes(name, "groups", groups, 1, 1)
    _check_operands(name, x, w, groups, space)
    rank = x.ndim - 2
    kernel = w.shape[2:]
    if 0 in kernel:
        raise ShapeError(f"{name}(x, w): the window must not be empty, w is {describe(w)}")
    steps = _sizes(name, "stride", stride, rank, 1)
    gaps = _sizes(name, "dilation", dilation, rank, 1)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, gaps, strict=True)]
    pads = _padding(name, padding, steps, span)
    windows = _windows(f"{name}(x, w)", x, kernel, steps, pads, gaps)
    if groups == 1:
        return _sum_of_products(x, w, windows)
    return _grouped_sum_of_products(x, w, windows, groups)


def _sum_of_products(x: Var, w: Var, windows: list[Window]) -> Var:
    """`out[n,o,i…] = sum(x[n, c, i*s + r*d - p …] * w[o, c, r…] over c, r…)`."""
    rank = len(windows)
    taps = tuple(window.size for window in windows)
    positions = tuple(window.out for window in windows)
    shape = (x.shape[0], w.shape[0], *positions, x.shape[1], *taps)
    channel, at_taps = ("i", rank + 2), _loops(rank + 3, rank)
    image = (("i", 0), channel, *_sources(windows, _loops(2, rank), at_taps))
    kernel = (("i", 1), channel, *at_taps)
    return _multiplied(x._node, image, w._node, kernel, shape, rank + 2)


def _multiplied(
    x: Node, image: tuple[Expr, ...], w: Node, kernel: tuple[Expr, ...], shape: Any, kept: int
) -> Var:
    """The sum of x[image] * w[kernel] over all but the first loops."""
    product = build.mul(
        Reindex(shape, (Piece(0, image),), x), Reindex(shape, (Piece(0, kernel),), w)
    )
    return Var._of(build.reduce("add", product, tuple(range(kept, len(shape)))))


def _grouped_sum_of_products(x: Var, w: Var, windows: list[Window], groups: int) -> Var:
    """The same within each group g: channels `g*C/G + c` to outputs `g*O/G + o`."""
    rank = len(windows)
    outputs, channels = int(w.shape[0]) // groups, int(w.shape[1])
    space = tuple(window.out for window in windows)
    taps = tuple(window.size for window in windows)
    shape = (x.shape[0], groups, outputs, *space, channels, *taps)
    group, channel, at_taps = ("i", 1), ("i", rank + 3), _loops(rank + 4, rank)
    of_group = ("add", ("mul", group, channels), channel)
    image = (("i", 0), of_group, *_sources(windows, _loops(3, rank), at_taps))
    kernel = (("add", ("mul", group, outputs), ("i", 2)), channel, *at_taps)
    summed = _multiplied(_sized(x, 1), image, _sized(w, 0), kernel, shape, rank + 3)
    return summed.reshape((x.shape[0], groups * outputs, *space))


def _sized(x: Var, axis: int) -> Node:
    """x with a plain number for the extent of an axis that groups divide: loops over parts of an
    axis of any size would need divisions by its size."""
    if not isinstance(x.shape[axis], Extent):
        return x._node
    shape = (*x.shape[:axis], int(x.shape[axis]), *x.shape[axis + 1 :])
    return Reindex(shape, (Piece(0, tuple(_loops(0, x.ndim))),), x._node)


def _sources(windows: list[Window], positions: Any, taps: Any) -> list[Expr]:
    return [w.source(i, r) for w, i, r in zip(windows, positions, taps, strict=True)]


@remembered
def conv1d(
    x: Var,
    w: Var,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Var:
    """`out[n,o,i] = sum(x[n, c, i*stride + r*dilation - padding] * w[o, c, r] over c, r)`.

    x: [batch, channels, length]; w: [out, channels/groups, window].  See `conv2d`.
    """
    return _convolve("conv1d", "length", x, w, stride, padding, dilation, groups)


@remembered
def conv2d(
    x: Var,
    w: Var,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Var:
    """`out[n,o,i,j] = sum(x[n, c, i*s + r*d - p, j*s + q*d - p] * w[o, c, r, q] over c, r, q)`.

    x: [batch, channels, height, width]; w: [out, channels/groups, window, window].  What is outside
    x reads 0.  stride, padding and dilation are one integer or one per axis; padding may be "same"
    (the output has the size of x; stride 1 only) or "valid" (none).  With groups, output block g
    sees input block g only.

    Returns: [batch, out, (height + 2p - d*(window-1) - 1) // s + 1, likewise].
    Raises: ShapeError, DTypeError (x and w must have one dtype), ValueError for a bad argument.
    Source: as torch.nn.functional.conv2d (a cross-correlation: the window is not flipped).
    """
    return _convolve("conv2d", "height,width", x, w, stride, padding, dilation, groups)


@remembered
def conv3d(
    x: Var,
    w: Var,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Var:
    """`conv2d` with three axes: x [batch, channels, depth, height, width].

    w: [out, channels/groups, window, window, window].
    """
    return _convolve("conv3d", "depth,height,width", x, w, stride, padding, dilation, groups)


# --- transposed convolution -----------------------------------------------------------------------


def _transposed(
    name: str,
    space: str,
    x: Var,
    w: Var,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Var:
    """`out[n, o, i*s + r*d - p] += x[n, c, i] * w[c, o, r]`: what a convolution gives back."""
    (groups,) = _sizes(name, "groups", groups, 1, 1)
    _check_rank(f"{name}(x, w)", "x", x, f"batch,channels,{space}")
    _check_rank(f"{name}(x, w)", "w", w, f"in,out,{space}")
    if x.dtype is not w.dtype:
        raise DTypeError(
            f"{name}(x, w): dtypes must agree, {describe_all(x=x, w=w)}; "
            f"write x.astype({w.dtype.name!r})"
        )
    if x.shape[1] != w.shape[0] or x.shape[1] % groups:
        raise ShapeError(
            f"{name}(x, w): channels must agree and groups divide them, {describe_all(x=x, w=w)}"
        )
    rank = x.ndim - 2
    steps = _sizes(name, "stride", stride, rank, 1)
    gaps = _sizes(name, "dilation", dilation, rank, 1)
    pads = _sizes(name, "padding", padding, rank, 0)
    extra = _sizes(name, "output_padding", output_padding, rank, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, gaps, strict=True)):
        raise ValueError(f"{name}: output_padding must be smaller than stride or dilation")
    out = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], steps, pads, gaps, w.shape[2:], extra, strict=True)
    )
    if min(out) < 1:
        raise ShapeError(
            f"{name}(x, w): nothing is left of the output {out}, {describe_all(x=x, w=w)}"
        )
    windows = [
        Window(k, s, d, p, n)
        for k, s, d, p, n in zip(w.shape[2:], steps, gaps, pads, x.shape[2:], strict=True)
    ]
    return _spread_products(x, w, windows, groups, out)


def _spread_products(
    x: Var, w: Var, windows: list[Window], groups: int, out: tuple[int, ...]
) -> Var:
    """The sum over windows, in loops [n, g, o, *positions, c, *taps]; out is [n, g * o, *space]."""
    rank = len(windows)
    channels = int(x.shape[1]) // groups if groups > 1 else x.shape[1]
    outputs = w.shape[1]
    taps = tuple(window.size for window in windows)
    shape = (x.shape[0], groups, outputs, *x.shape[2:], channels, *taps)
    positions, at_taps = _loops(3, rank), _loops(rank + 4, rank)
    channel: Expr = ("i", rank + 3)
    image, kernel = x._node, w._node
    if groups > 1:
        channel = ("add", ("mul", ("i", 1), channels), channel)
        image, kernel = _sized(x, 1), _sized(w, 0)
    product = build.mul(
        Reindex(shape, (Piece(0, (("i", 0), channel, *positions)),), image),
        Reindex(shape, (Piece(0, (channel, ("i", 2), *at_taps)),), kernel),
    )
    target = (*_loops(0, 3), *_sources(windows, positions, at_taps))
    total = ReindexReduce("add", (x.shape[0], groups, outputs, *out), target, product)
    return Var._of(build.reshape(total, (x.shape[0], groups * outputs, *out)))


@remembered
def conv_transpose1d(
    x: Var,
    w: Var,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Var:
    """`conv_transpose2d` with one axis: x [batch, in, length], w [in, out/groups, window]."""
    return _transposed(
        "conv_transpose1d", "length", x, w, stride, padding, output_padding, groups, dilation
    )


@remembered
def conv_transpose2d(
    x: Var,
    w: Var,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Var:
    """`out[n, o, i*s + r*d - p, j*s + q*d - p] += x[n, c, i, j] * w[c, o, r, q]`: the gradient of
    `conv2d` as an operation of its own.

    x: [batch, in, height, width]; w: [in, out/groups, window, window].
    Returns: [batch, out, (height - 1)*s - 2p + d*(window - 1) + output_padding + 1, likewise].
    Source: as torch.nn.functional.conv_transpose2d.
    """
    return _transposed(
        "conv_transpose2d", "height,width", x, w, stride, padding, output_padding, groups, dilation
    )


@remembered
def conv_transpose3d(
    x: Var,
    w: Var,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Var:
    """`conv_transpose2d` with three axes: x [batch, in, depth, height, width]."""
    return _transposed(
        "conv_transpose3d", "depth,height,width", x, w, stride, padding, output_padding, groups,
        dilation,
    )  # fmt: skip


# --- windows as columns ---------------------------------------------------------------------------


def _columns_of(
    name: str, space: Sequence[int], kernel: Any, dilation: Any, padding: Any, stride: Any
) -> list[Window]:
    rank = len(space)
    sizes = _sizes(name, "kernel_size", kernel, rank, 1)
    steps = _sizes(name, "stride", stride, rank, 1)
    gaps = _sizes(name, "dilation", dilation, rank, 1)
    pads = _sizes(name, "padding", padding, rank, 0)
    found = []
    for n, k, s, d, p in zip(space, sizes, steps, gaps, pads, strict=True):
        room = n + 2 * p - (k - 1) * d - 1
        if room < 0:
            raise ShapeError(f"{name}: the window {sizes} does not fit into {tuple(space)}")
        found.append(Window(k, s, d, p, room // s + 1))
    return found


@remembered
def unfold(
    x: Var, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Var:
    """The windows of x as columns: [batch, channels * taps, positions].

    x: [batch, channels, *space] of any number of axes.  Source: as torch.nn.functional.unfold.
    """
    if x.ndim < 3:
        raise ShapeError(f"unfold(x): x must be [batch, channels, ...], got {describe(x)}")
    windows = _columns_of("unfold(x)", x.shape[2:], kernel_size, dilation, padding, stride)
    taps, positions = _taps_and_positions(windows)
    rank = len(windows)
    source = (*_loops(0, 2), *_sources(windows, _loops(rank + 2, rank), _loops(2, rank)))
    shape = (*x.shape[:2], *taps, *positions)
    seen = Var._of(Reindex(shape, (Piece(0, source),), x._node))
    return seen.reshape((x.shape[0], x.shape[1] * size_of(taps), size_of(positions)))


def _taps_and_positions(windows: list[Window]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(w.size for w in windows), tuple(w.out for w in windows)


@remembered
def fold(
    x: Var,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Var:
    """Columns [batch, channels * taps, positions] added up where `unfold` had read them.

    output_size: the extents of the space.  Source: as torch.nn.functional.fold.
    """
    if x.ndim != 3:
        raise ShapeError(f"fold(x): x must be [batch, columns, positions], got {describe(x)}")
    space = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * 2
    windows = _columns_of("fold(x)", space, kernel_size, dilation, padding, stride)
    taps, positions = _taps_and_positions(windows)
    if x.shape[1] % size_of(taps) or x.shape[2] != size_of(positions):
        raise ShapeError(
            f"fold(x): x must be [batch, channels * {size_of(taps)}, {size_of(positions)}], "
            f"got {describe(x)}"
        )
    channels, rank = x.shape[1] // size_of(taps), len(windows)
    target = (*_loops(0, 2), *_sources(windows, _loops(rank + 2, rank), _loops(2, rank)))
    columns = build.reshape(x._node, (x.shape[0], channels, *taps, *positions))
    return Var._of(ReindexReduce("add", (x.shape[0], channels, *space), target, columns))


@remembered
def sliding_window_view(x: Var, window_shape: Sizes, axis: Any = None) -> Var:
    """Every window of x: new last axes run over the window (as
    numpy.lib.stride_tricks.sliding_window_view, but a value and no view)."""
    axes = tuple(range(x.ndim)) if axis is None else axis
    axes = (axes,) if hasattr(axes, "__index__") else tuple(axes)
    axes = tuple(a % x.ndim for a in axes)
    sizes = _sizes("sliding_window_view", "window_shape", window_shape, len(axes), 1)
    shape = list(x.shape)
    for a, size in zip(axes, sizes, strict=True):
        if size > shape[a]:
            raise ShapeError(f"sliding_window_view: a window of {size} on axis {a}, {describe(x)}")
        shape[a] = shape[a] - size + 1
    at = _loops(0, x.ndim)
    for a, tap in zip(axes, _loops(x.ndim, len(axes)), strict=True):
        at[a] = ("add", at[a], tap)
    return Var._of(Reindex((*shape, *sizes), (Piece(0, tuple(at)),), x._node))


# --- pooling --------------------------------------------------------------------------------------


SPACES = ("length", "height,width", "depth,height,width")


def _pool_windows(
    name: str, x: Var, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[Window]:
    rank = int(name[-2])  # max_pool2d
    _check_rank(f"{name}(x)", "x", x, f"batch,channels,{SPACES[rank - 1]}")
    sizes = _sizes(name, "kernel_size", kernel, rank, 1)
    steps = sizes if stride is None else _sizes(name, "stride", stride, rank, 1)
    gaps = _sizes(name, "dilation", dilation, rank, 1)
    pads = _sizes(name, "padding", padding, rank, 0)
    for k, d, p in zip(sizes, gaps, pads, strict=True):
        # More would make windows that see nothing of x.
        if p > ((k - 1) * d + 1) // 2:
            raise ValueError(
                f"{name}: padding must be at most half the window, got padding {padding!r} "
                f"for kernel_size {kernel!r}"
            )
    both_sides = [(p, p) for p in pads]
    return _windows(f"{name}(x)", x, sizes, steps, both_sides, gaps, ceil_mode)


def _unfold(x: Var, windows: list[Window], fill: float | int) -> Var:
    """x seen through its windows: [batch, channels, *positions, *taps]."""
    rank = len(windows)
    taps, positions = _taps_and_positions(windows)
    shape = (*x.shape[:2], *positions, *taps)
    source = (*_loops(0, 2), *_sources(windows, _loops(2, rank), _loops(2 + rank, rank)))
    return Var._of(Reindex(shape, (Piece(0, source),), x._node, fill=fill))


def _over_taps(windows: list[Window]) -> tuple[int, ...]:
    """The axes of `_unfold` that run over a window."""
    rank = len(windows)
    return tuple(range(2 + rank, 2 + 2 * rank))


def _max_pool(
    name: str, x: Var, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    windows = _pool_windows(name, x, kernel, stride, padding, dilation, ceil_mode)
    seen = _unfold(x, windows, x.dtype.lowest)
    largest = seen.max(axis=_over_taps(windows))
    return (largest, _places(x, seen, windows)) if return_indices else largest


def _places(x: Var, seen: Var, windows: list[Window]) -> Var:
    """Where in the flat space of x the first largest element of every window is."""
    taps, positions = _taps_and_positions(windows)
    shape = (*x.shape[:2], *positions)
    tap = seen.detach().reshape((*shape, size_of(taps))).argmax(axis=-1)
    place: Any = 0
    left = size_of(taps)
    for axis, (window, size) in enumerate(zip(windows, x.shape[2:], strict=True)):
        left //= window.size
        start = Var._of(IndexOf(shape, 2 + axis)) * window.stride - window.before
        at = start + tap // left % window.size * window.dilation
        place = place * size + elementwise.clip(at, 0, size - 1)  # a window of -inf alone
    return place


def _avg_pool(
    name: str, x: Var, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, include_pad: bool,
    divisor: int | None,
) -> Var:  # fmt: skip
    windows = _pool_windows(name, x, kernel, stride, padding, 1, ceil_mode)
    taps, axes = _unfold(x, windows, 0), _over_taps(windows)
    if divisor is not None:
        if divisor == 0:
            raise ValueError(f"{name}: divisor_override must not be 0")
        return taps.sum(axis=axes) / divisor
    if not ceil_mode and (include_pad or not any(window.before for window in windows)):
        return taps.mean(axis=axes)
    total = taps.sum(axis=axes)
    return total / _counted(windows, x.shape[2:], include_pad).astype(total.dtype)


def _counted(windows: list[Window], space: Sequence[int], include_pad: bool) -> Var:
    """How many elements each window counts: the product over the axes."""
    counts = [_counts(w, size, include_pad) for w, size in zip(windows, space, strict=True)]
    product = counts[0]
    for one in counts[1:]:
        product = product.reshape((*product.shape, 1)) * one
    return product


@remembered
def max_pool1d(
    x: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` with one axis: x [batch, channels, length]."""
    return _max_pool(
        "max_pool1d", x, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@remembered
def max_pool2d(
    x: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`out[n,c,i,j] = max(x[n, c, i*s + r*d - p, j*s + q*d - p] over r, q)`.

    x: [batch, channels, height, width]; stride None is kernel_size.  Padding never wins: it reads
    the lowest value of the dtype.  With ceil_mode a last window that is cut off by the border
    counts too.  return_indices: (out, int64 places of the maxima in [height * width]).

    Gradient: to the first of equal maxima, in row order.
    Raises: ShapeError where the window does not fit; ValueError for a bad argument, among them
    padding over half the window.
    Source: as torch.nn.functional.max_pool2d.
    """
    return _max_pool(
        "max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@remembered
def max_pool3d(
    x: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` with three axes: x [batch, channels, depth, height, width]."""
    return _max_pool(
        "max_pool3d", x, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@remembered
def avg_pool1d(
    x: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Var:
    """`avg_pool2d` with one axis: x [batch, channels, length]."""
    return _avg_pool(
        "avg_pool1d", x, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


@remembered
def avg_pool2d(
    x: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Var:
    """`out[n,c,i,j] = mean(x[n, c, i*s + r - p, j*s + q - p] over r, q)`.

    x: [batch, channels, height, width]; stride None is kernel_size.  Padding reads 0; it counts in
    the mean's divisor unless count_include_pad is False.  divisor_override divides the sum instead.

    Raises: as max_pool2d.
    Source: as torch.nn.functional.avg_pool2d.
    """
    return _avg_pool(
        "avg_pool2d", x, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


@remembered
def avg_pool3d(
    x: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Var:
    """`avg_pool2d` with three axes: x [batch, channels, depth, height, width]."""
    return _avg_pool(
        "avg_pool3d", x, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


def _counts(window: Window, size: int, include_pad: bool) -> Var:
    """How many elements the window at each position counts along one axis, as an integer Var."""
    margin = window.before if include_pad else 0
    seen = [
        min(start + window.size, size + margin) - max(start, -margin)
        for start in (i * window.stride - window.before for i in range(window.out))
    ]
    return Var(seen)
