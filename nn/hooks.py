"""Functions that see, and may replace, what a module is given and returns, and the gradients of it.

Every hook is kept as one of all arguments, in the module's own attributes: so copies of the module
have it, and a trace of `mo.jit` is guarded by it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import metaop as mo
from metaop import Var, support

if TYPE_CHECKING:
    from .module import Module

BEFORE, AFTER = "_forward_pre_hooks", "_forward_hooks"
BEFORE_BACKWARD, BACKWARD = "_backward_pre_hooks", "_backward_hooks"
TABLES = frozenset((BEFORE, AFTER, BEFORE_BACKWARD, BACKWARD))
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
    module: Module, table: str, hook: Callable[..., Any], prepend: bool, with_kwargs: bool = True
) -> ModuleHook:
    """Adds a hook to one of a module's TABLES."""
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
    backward = _Backward(module) if _has_backward(module) else None
    if backward is not None:
        args = backward.enter(args)
    output = forward(args, kwargs)
    for hook in list(module.__dict__.get(AFTER, {}).values()):
        found = hook(module, args, kwargs, output)
        if found is not None:
            output = found
    return output if backward is None else backward.leave(output)


# -------------------------------------------------------------------------------------- gradients


class BackwardHook(mo.Function):
    """The identity, whose gradients pass through a function."""

    def __init__(self, rule: Callable[..., tuple[Var | None, ...]]):
        self.grad = rule

    def execute(self, *vars: Var) -> tuple[Var, ...]:
        """The Vars themselves."""
        return vars


def _has_backward(module: Module) -> bool:
    return bool(module.__dict__.get(BEFORE_BACKWARD) or module.__dict__.get(BACKWARD))


class _Backward:
    """One call of a module: its hooks, and the gradients of its outputs until those of its inputs
    are known."""

    def __init__(self, module: Module):
        self.module = module
        self.before = list(module.__dict__.get(BEFORE_BACKWARD, {}).values())
        self.after = list(module.__dict__.get(BACKWARD, {}).values())
        self.inputs: list[int] = []  # those of the arguments that require a gradient
        self.outputs: list[int] = []
        self.of_outputs: tuple[Var | None, ...] | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, whose gradients the hooks will see."""
        self.zeros: list[Any] = [None] * len(args)  # as torch's for what requires no gradient
        self.inputs, passed = _through(args, self._gradients_of_inputs)
        for k, value in enumerate(args) if self.inputs else ():
            if isinstance(value, Var) and value.dtype.is_float and k not in self.inputs:
                self.zeros[k] = mo.zeros(value.shape, dtype=value.dtype)
        return passed

    def leave(self, output: Any) -> Any:
        """What the module returns, a Var or a tuple, whose gradients the hooks will see."""
        outputs = output if isinstance(output, tuple) else (output,)
        self.nothing = [None] * len(outputs)
        self.outputs, outputs = _through(outputs, self._gradients_of_outputs)
        if not isinstance(output, tuple):
            return outputs[0]
        return type(output)(*outputs) if hasattr(output, "_fields") else outputs

    def _gradients_of_outputs(self, *gradients: Var | None) -> tuple[Var | None, ...]:
        found = _placed(self.nothing, self.outputs, gradients)
        for hook in self.before:
            found = _replaced(found, hook(self.module, found))
        self.of_outputs = found
        if not self.inputs:
            self._see(tuple(self.zeros))
        return tuple([found[k] for k in self.outputs])

    def _gradients_of_inputs(self, *gradients: Var | None) -> tuple[Var | None, ...]:
        if self.of_outputs is None:  # they come from elsewhere than from the outputs
            return gradients
        found = self._see(_placed(self.zeros, self.inputs, gradients))
        return tuple([found[k] for k in self.inputs])

    def _see(self, found: tuple[Var | None, ...]) -> tuple[Var | None, ...]:
        """Calls the hooks with the gradients of the inputs: what they leave of those."""
        for hook in self.after:
            found = _replaced(found, hook(self.module, found, self.of_outputs))
        self.of_outputs = None
        return found


def _through(
    values: tuple[Any, ...], rule: Callable[..., tuple[Var | None, ...]]
) -> tuple[list[int], tuple[Any, ...]]:
    """Which values are Vars that require a gradient; all of them, whose gradients pass through a
    rule."""
    if not support.recording.grad:
        return [], values
    places = [k for k, v in enumerate(values) if isinstance(v, Var) and v.requires_grad]
    passed = list(values)
    for place, value in zip(places, BackwardHook(rule)(*[values[k] for k in places])):
        passed[place] = value
    return places, tuple(passed)


def _placed(
    others: list[Any], places: list[int], gradients: tuple[Var | None, ...]
) -> tuple[Var | None, ...]:
    """Gradients at their places among others."""
    found = others.copy()
    for place, gradient in zip(places, gradients):
        found[place] = gradient
    return tuple(found)


def _replaced(given: tuple[Var | None, ...], found: Any) -> tuple[Var | None, ...]:
    """Gradients after a hook, of which it returned None or all."""
    if found is None:
        return given
    if not isinstance(found, tuple) or len(found) != len(given):
        kind = f"{len(found)} values" if isinstance(found, tuple) else type(found).__name__
        raise ValueError(
            f"a backward hook must return None or a tuple of {len(given)} gradients, got {kind}"
        )
    return found
