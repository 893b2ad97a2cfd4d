"""How a Python thread records: the one object that everything which records looks at."""

from __future__ import annotations

import threading
from typing import Any


class _Recording(threading.local):
    """The state of one thread.

    grad, backward: see `metaop.grad_mode`; trace: the trace of `mo.jit` that sees what this thread
    does; site: the site of what is recorded, if not the user's line (a gradient belongs to its
    forward line); layer: the site of all that a layer or an optimiser of metaop's own records in
    a call, found once.
    """

    def __init__(self) -> None:
        self.grad = True
        self.backward = False
        self.trace: Any = None
        self.site: Any = None
        self.layer: Any = None


recording: Any = _Recording()
