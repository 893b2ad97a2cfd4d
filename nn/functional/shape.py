"""What changes the shape alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import metaop as mo
from metaop import Var, support

from .arguments import Sizes, of_arrays


@support.remembered
def flatten(input: Var, start_dim: int = 0, end_dim: int = -1) -> Var:
    """The axes start_dim to end_dim (included) merged into one."""
    if input.ndim == 0:
        return input.reshape((1,))
    start, end = (_axis("flatten", d, input.ndim) for d in (start_dim, end_dim))
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    merged = math.prod(input.shape[start : end + 1])
    return input.reshape((*input.shape[:start], merged, *input.shape[end + 1 :]))


@support.remembered
def unflatten(input: Var, dim: int, sizes: Sequence[int]) -> Var:
    """Axis `dim` split into axes of the given sizes, one of which may be -1."""
    axis = _axis("unflatten", dim, input.ndim)
    split = tuple(sizes)
    if split.count(-1) == 1:
        rest = -math.prod(split)
        split = tuple(input.shape[axis] // rest if s == -1 and rest else s for s in split)
    if min(split, default=0) < 0 or math.prod(split) != input.shape[axis]:
        raise mo.errors.ShapeError(
            f"unflatten: sizes {tuple(sizes)} do not multiply to axis {dim} "
            f"of {mo.errors.describe(input)}"
        )
    return input.reshape((*input.shape[:axis], *split, *input.shape[axis + 1 :]))


def _axis(name: str, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise mo.errors.ShapeError(f"{name}: axis {axis} is out of range for rank {rank}")
    return axis % rank


def one_hot(tensor: Var, num_classes: int = -1) -> Var:
    """`out[..., c] = 1 if tensor[...] == c else 0`, int64; -1: as many classes as there are labels,
    which are computed then.

    Raises: IndexError, from the call that computes, for a label outside 0 … num_classes-1.
    """
    classes = int(tensor.max().item()) + 1 if num_classes == -1 else num_classes
    return mo.take(mo.eye(classes, dtype=mo.int64), tensor, axis=0, negative=False)


PAD_MODES = ("constant", "reflect", "replicate", "circular")


@of_arrays
@support.remembered
def pad(input: Var, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Var:
    """input with elements before and after its last axes.

    pad: pairs (before, after) from the last axis to the first that changes; a negative number takes
    elements away.  mode: "constant" (value, 0 if None), "reflect", "replicate" or "circular".
    """
    if mode not in PAD_MODES:
        raise ValueError(f"pad: mode must be one of {', '.join(PAD_MODES)}, got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(
            f"pad: a pair is needed for each of the last axes of {mo.errors.describe(input)}, "
            f"got {tuple(pad)}"
        )
    pairs = [(0, 0)] * (input.ndim - len(pad) // 2)
    pairs += [(pad[k], pad[k + 1]) for k in range(len(pad) - 2, -1, -2)]
    if any(min(pair) < 0 for pair in pairs):
        input = input[tuple(
            slice(max(-before, 0), int(n) - max(-after, 0))
            for n, (before, after) in zip(input.shape, pairs, strict=True)
        )]  # fmt: skip
        pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    return mo.pad(input, pairs, mode, 0 if value is None else value)


@support.remembered
def pixel_shuffle(input: Var, upscale_factor: int) -> Var:
    """[…, c*r*r, h, w] as […, c, h*r, w*r], r = upscale_factor.  Source: Shi et al. 2016."""
    r, (*lead, channels, height, width) = upscale_factor, input.shape
    if channels % (r * r):
        raise mo.errors.ShapeError(
            f"pixel_shuffle: {r}² must divide the channels of {mo.errors.describe(input)}"
        )
    blocks = input.reshape((*lead, int(channels) // (r * r), r, r, height, width))
    n = len(lead)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return blocks.permute(order).reshape((*lead, int(channels) // (r * r), height * r, width * r))


@support.remembered
def pixel_unshuffle(input: Var, downscale_factor: int) -> Var:
    """[…, c, h*r, w*r] as […, c*r*r, h, w], r = downscale_factor: `pixel_shuffle` back."""
    r, (*lead, channels, height, width) = downscale_factor, input.shape
    if height % r or width % r:
        raise mo.errors.ShapeError(
            f"pixel_unshuffle: {r} must divide the last axes of {mo.errors.describe(input)}"
        )
    h, w = int(height) // r, int(width) // r
    n = len(lead)
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    blocks = input.reshape((*lead, channels, h, r, w, r)).permute(order)
    return blocks.reshape((*lead, channels * r * r, h, w))


@support.remembered
def channel_shuffle(input: Var, groups: int) -> Var:
    """[batch, g*k, ...] with channel i*k + j at j*g + i.  Source: Zhang et al. 2018."""
    if input.shape[1] % groups:
        raise mo.errors.ShapeError(
            f"channel_shuffle: {groups} groups do not divide the channels of "
            f"{mo.errors.describe(input)}"
        )
    blocks = unflatten(input, 1, (groups, int(input.shape[1]) // groups))
    return blocks.swapaxes(1, 2).reshape(input.shape)


def unfold(
    input: Var, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Var:
    """The windows of input as columns; see `mo.unfold`."""
    return mo.unfold(input, kernel_size, dilation, padding, stride)


def fold(
    input: Var,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Var:
    """Columns added up where `unfold` had read them; see `mo.fold`."""
    return mo.fold(input, output_size, kernel_size, dilation, padding, stride)
