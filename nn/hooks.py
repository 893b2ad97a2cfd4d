"""Functions that see, and may replace, what a module is given and what it returns.

Every hook is kept as one of all arguments, in the module's own attributes: so copies of the module
have it, and a trace of `mo.jit` is guarded by it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import Module

BEFORE, AFTER = "_forward_pre_hooks", "_forward_hooks"
_numbers = itertools.count(1)


class ModuleHook:
    """What registering a hook of a module returns; in a `with` statement, removed at its end."""

    def __init__(self, place: dict[int, Callable[..., Any]], number: int):
        self._place, self._number = place, number

    def remove(self) -> None:
        """The function is not called any more."""
        self._place.pop(self._number, None)

    def __enter__(self) -> ModuleHook:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def register(
    module: Module, table: str, hook: Callable[..., Any], prepend: bool, with_kwargs: bool
) -> ModuleHook:
    """Adds a hook to those that run BEFORE or AFTER a module's forward."""
    if not callable(hook):
        raise TypeError(f"a hook must be a function, not {type(hook).__name__}")
    if table not in module.__dict__:
        setattr(module, table, {})
    place, number = module.__dict__[table], next(_numbers)
    others = dict(place) if prepend else {}
    if prepend:
        place.clear()
    place[number] = hook if with_kwargs else functools.partial(_PLAIN[table], hook)
    place.update(others)
    return ModuleHook(place, number)


def _before(hook: Callable[..., Any], module: Module, args: Any, kwargs: Any) -> Any:
    found = hook(module, args)
    if found is None:
        return None
    return (found if isinstance(found, tuple) else (found,)), kwargs


def _after(hook: Callable[..., Any], module: Module, args: Any, kwargs: Any, output: Any) -> Any:
    return hook(module, args, output)


_PLAIN: dict[str, Callable[..., Any]] = {BEFORE: _before, AFTER: _after}


def called(
    module: Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What a module with hooks returns; forward: its own, of args and kwargs."""
    for hook in list(module.__dict__.get(BEFORE, {}).values()):
        found = hook(module, args, kwargs)
        if found is None:
            continue
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(
                "a forward pre-hook with_kwargs must return None or (args, kwargs), got "
                f"{type(found).__name__}"
            )
        args, kwargs = found
    output = forward(args, kwargs)
    for hook in list(module.__dict__.get(AFTER, {}).values()):
        found = hook(module, args, kwargs, output)
        if found is not None:
            output = found
    return output
