"""Arguments that functions take beside their own: torch's names of NumPy's, `requires_grad`."""

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


def may_require_grad(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: requires_grad=True makes the new Var a leaf to differentiate by."""

    @functools.wraps(function)
    def wrapped(*args: Any, requires_grad: bool = False, **options: Any) -> Any:
        made = function(*args, **options)
        return made.requires_grad_() if requires_grad else made

    return wrapped
