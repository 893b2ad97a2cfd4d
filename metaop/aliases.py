"""Other names of arguments: NumPy's `axis` is torch's `dim` and `dims`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def also_named(name: str, *aliases: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: the function takes its argument `name` under the aliases, too."""

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            if options:
                for alias in aliases:
                    if alias in options:
                        if name in options:
                            raise TypeError(
                                f"{function.__name__}: {alias} is another name of {name}; "
                                "give one of them"
                            )
                        options[name] = options.pop(alias)
            return function(*args, **options)

        return wrapped

    return decorated


axis_or_dim = also_named("axis", "dim", "dims")
dim_or_axis = also_named("dim", "axis")
