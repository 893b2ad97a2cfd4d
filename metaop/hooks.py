"""Functions that see, and may replace, the gradient of a Var on its way: `Var.register_hook`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from .errors import DTypeError, JitError, ShapeError, describe
from .grad import hooks
from .graph import Node
from .recording import recording
from .var import Var

_numbers = itertools.count(1)


class HookHandle:
    """What `register_hook` returns."""

    def __init__(self, place: dict[int, Callable[[Node], Node]], number: int, is_leaf: bool):
        self._place, self._number, self._is_leaf = place, number, is_leaf

    def remove(self) -> None:
        """The function is not called any more."""
        if self._place.pop(self._number, None) is not None and self._is_leaf:
            hooks.leaves = next(_numbers)


def register_hook(x: Var, function: Callable[[Var], Var | None]) -> HookHandle:
    """Calls function(g) with the whole gradient of x in every backward pass that computes it; what
    it returns, unless None, takes the gradient's place.

    A hook of a leaf (a parameter) stays through updates; one of another Var belongs to its value.
    A jitted function calls hooks when it is traced: what they record is replayed.  Returns a handle
    with remove().  Raises DTypeError for a Var that requires no gradient.  Source: as
    torch.Tensor.register_hook.
    """
    if not x.requires_grad:
        raise DTypeError(f"register_hook: {describe(x)} requires no gradient")
    if x._is_leaf:
        if recording.trace is not None:
            raise JitError("register_hook of a leaf in a trace: call it outside")
        place = x.__dict__.setdefault("_hooks", {})
        hooks.leaves = next(_numbers)
    else:
        place = hooks.of_nodes.setdefault(x._node, {})
    number = next(_numbers)
    place[number] = functools.partial(_called, function)
    hooks.registered = True
    return HookHandle(place, number, x._is_leaf)


def _called(function: Callable[[Var], Var | None], g: Node) -> Node:
    """The gradient after a hook."""
    found: Any = function(Var._of(g))
    if found is None:
        return g
    if not isinstance(found, Var) or found.shape != g.shape or found.dtype is not g.dtype:
        kind = describe(found) if isinstance(found, Var) else type(found).__name__
        raise ShapeError(
            f"a hook must return None or a Var like the gradient, {describe(g)}, not {kind}"
        )
    return found._node
