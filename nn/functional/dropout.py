"""Dropout."""

from __future__ import annotations

import metaop as mo
from metaop import Var

SELU_FLOOR = -1.7580993408473766  # what selu approaches for large negative numbers


def _check_share(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p must be between 0 and 1, got {p}")


def _dropped(x: Var, p: float, shape: tuple[int, ...]) -> Var:
    """x divided by 1 - p, and 0 where a draw of the shape, which broadcasts, falls below p."""
    if p == 1:
        return x * 0
    keep = mo.random.uniform(shape) >= p
    return mo.where(keep, x * (1 / (1 - p)), 0)


def dropout(input: Var, p: float = 0.5, training: bool = True, inplace: bool = False) -> Var:
    """Each element 0 with probability p, else divided by 1 - p; x itself when not training.

    Source: Srivastava et al. 2014, in its scale-at-training form.
    """
    _check_share("dropout", p)
    return _dropped(input, p, input.shape) if training and p else input


def _dropped_channels(x: Var, p: float, training: bool, rank: int) -> Var:
    _check_share(f"dropout{rank}d", p)
    if not training or p == 0:
        return x
    if x.ndim not in (rank + 1, rank + 2):
        raise mo.errors.ShapeError(
            f"dropout{rank}d: x must be [batch, channels, *space] or [channels, *space] with "
            f"{rank} axes of space, got {mo.errors.describe(x)}"
        )
    return _dropped(x, p, (*x.shape[:-rank], *(1,) * rank))


def dropout1d(input: Var, p: float = 0.5, training: bool = True, inplace: bool = False) -> Var:
    """Each channel of [batch, channels, length] 0 with probability p, else divided by 1 - p.

    Source: Tompson et al. 2015.
    """
    return _dropped_channels(input, p, training, 1)


def dropout2d(input: Var, p: float = 0.5, training: bool = True, inplace: bool = False) -> Var:
    """Each channel of [batch, channels, height, width] 0 with probability p; see `dropout1d`."""
    return _dropped_channels(input, p, training, 2)


def dropout3d(input: Var, p: float = 0.5, training: bool = True, inplace: bool = False) -> Var:
    """Each channel of [batch, channels, depth, height, width] 0 with probability p."""
    return _dropped_channels(input, p, training, 3)


def _alpha_dropped(x: Var, p: float, shape: tuple[int, ...]) -> Var:
    keep = mo.random.uniform(shape) >= p
    scale = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5 if p < 1 else 0.0
    return mo.where(keep, x, SELU_FLOOR) * scale - SELU_FLOOR * p * scale


def alpha_dropout(input: Var, p: float = 0.5, training: bool = False, inplace: bool = False) -> Var:
    """Each element selu's least value with probability p, all scaled and shifted so that mean 0 and
    variance 1 stay.  Source: Klambauer et al. 2017, section 3."""
    _check_share("alpha_dropout", p)
    return _alpha_dropped(input, p, input.shape) if training and p else input


def feature_alpha_dropout(
    input: Var, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Var:
    """`alpha_dropout` of whole channels of [batch, channels, ...]."""
    _check_share("feature_alpha_dropout", p)
    if not training or p == 0:
        return input
    return _alpha_dropped(input, p, (*input.shape[:2], *(1,) * (input.ndim - 2)))
