"""How a Python thread records: the one object that everything which records looks at."""

from __future__ import annotations

import threading
from typing import Any


class Scope:
    """Where in a program nodes are recorded: in the call of which module, in which phase.

    path: of the module, `ResNet.layer1.0.conv1`: the class of the outermost one, then the names of
    attributes; "" outside of all.  phase: forward, backward or optimizer.  All nodes of a module
    share one, so that a node stores a reference, found by one look-up.
    """

    __slots__ = ("path", "phase", "_inner", "_phases")

    def __init__(self, path: str, phase: str, phases: dict[str, Scope]):
        self.path, self.phase = path, phase
        self._inner: dict[str, Scope] = {}
        self._phases = phases
        phases[phase] = self

    def inner(self, name: str) -> Scope:
        """The scope of a module that this one's calls by that name."""
        found = self._inner.get(name)
        if found is None:
            path = f"{self.path}.{name}" if self.path else name
            found = self._inner.setdefault(name, Scope(path, self.phase, {}))
        return found

    def within(self, phase: str) -> Scope:
        """The scope of the same module in another phase."""
        return self._phases.get(phase) or Scope(self.path, phase, self._phases)


OUTSIDE = Scope("", "forward", {})


class _Recording(threading.local):
    """The state of one thread.

    grad: see `metaop.grad_mode`; scope, module: of what is recorded now; trace: the trace of
    `mo.jit` that sees what this thread does; site: the site of what is recorded, if not the user's
    line (a gradient belongs to its forward line); layer: the site of all that a layer or an
    optimiser of metaop's own records in a call, found once; looks: how often it looked at a value;
    unreached: how often it was warned of gradients of what a loss does not depend on.
    """

    def __init__(self) -> None:
        self.grad = True
        self.scope = OUTSIDE
        self.module: Any = None
        self.trace: Any = None
        self.site: Any = None
        self.layer: Any = None
        self.looks = 0
        self.unreached = 0


recording: Any = _Recording()
