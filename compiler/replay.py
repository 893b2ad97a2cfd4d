"""A bound program that runs again and again: its table is filled from an array, not from nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaop.graph import Node

from .executor import executor
from .program import Bound, launch


class Replay:
    """Runs a program from the addresses of its arrays, its numbers, and where results go.

    slots: of the program's table, in the order in which the addresses come; nodes: the graph as
    recorded, for a profile.
    """

    def __init__(self, program: Bound, slots: list[int], nodes: Sequence[Node] = ()):
        self.program, self.nodes = program, nodes
        self._slots = np.array(slots, np.int64)

    def run(self, addresses: np.ndarray, numbers: tuple[Any, ...]) -> None:
        """Raises KernelError; numbers: the inputs that are Python numbers, in their order."""
        with executor().lock:
            self.program.fill(self._slots, addresses, numbers)
            launch(self.program, self.nodes)
