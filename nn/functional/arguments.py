"""What the functions share about their arguments."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import metaop as mo
from metaop import Var

Sizes = int | Sequence[int]
P = ParamSpec("P")
T = TypeVar("T")


def of_arrays(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator: NumPy arrays among the arguments, and a list as the first, become Vars."""

    def as_var(value: Any, also_list: bool = False) -> Any:
        if isinstance(value, Var):
            return value
        is_array = hasattr(value, "__array_interface__") or (also_list and type(value) is list)
        return mo.asarray(value) if is_array else value

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        options = {name: as_var(value) for name, value in options.items()}
        given = [as_var(value, also_list=k == 0) for k, value in enumerate(args)]
        return function(*given, **options)

    return wrapped


def per_channel(vector: Var, rank: int) -> Var:
    """[C] as [1, C, 1, ...] of the given rank."""
    return vector.reshape((1, *vector.shape) + (1,) * (rank - 2))


def vector_norm(x: Var, p: float, axis: int | Sequence[int], keepdims: bool = False) -> Var:
    """`sum(|x| ** p) ** (1/p)` along axes, with the gradient 0 where it is 0."""
    if p == math.inf:
        return mo.abs(x).max(axis=axis, keepdims=keepdims)
    if p == 1:
        return mo.abs(x).sum(axis=axis, keepdims=keepdims)
    powers = x * x if p == 2 else mo.abs(x) ** p
    total = powers.sum(axis=axis, keepdims=keepdims)
    some = mo.where(total > 0, total, 1)
    return mo.where(total > 0, mo.sqrt(some) if p == 2 else some ** (1 / p), 0)
