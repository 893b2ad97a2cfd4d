"""What the functions share about their arguments."""

from __future__ import annotations

import functools
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
