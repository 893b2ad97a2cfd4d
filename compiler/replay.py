"""A bound program that runs again and again: its table is filled from lists, not from nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaop.graph import Node

from .executor import executor
from .program import Bound, launch


class Replay:
    """Runs a program from the addresses of its arrays, its numbers, and where results go.

    arrays, outputs: in which order the addresses come: numbers of the inputs that are values in
    memory, and of the outputs; nodes: the graph as recorded, for a profile.
    """

    def __init__(
        self, program: Bound, arrays: list[int], outputs: list[int], nodes: Sequence[Node] = ()
    ):
        self.program, self.nodes = program, nodes
        slots = [program.inputs[program.arrays[k]][0] for k in arrays]
        slots += [program.outputs[k][0] for k in outputs]
        self._slots = np.array(slots, np.int64)

    def run(self, addresses: list[int], numbers: tuple[Any, ...]) -> None:
        """Raises KernelError; numbers: the inputs that are Python numbers, in their order."""
        with executor().lock:
            self.program.fill(self._slots, addresses, numbers)
            launch(self.program, self.nodes)
