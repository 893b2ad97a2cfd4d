"""A bound program that runs again and again: its table is filled from lists, not from nodes."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaop.dtype import DType
from metaop.graph import Node

from .executor import executor
from .program import _CODES, _STATUS_ADDRESS, Bound, launch, number_bytes


class Replay:
    """Runs a program from the addresses of its arrays, its numbers, and where results go.

    arrays, outputs: in which order the addresses come: numbers of the inputs that are values in
    memory, and of the outputs; nodes: the graph as recorded, for a profile.
    """

    def __init__(
        self, program: Bound, arrays: list[int], outputs: list[int], nodes: Sequence[Node] = ()
    ):
        self.program, self.nodes = program, nodes
        in_memory = [k for k, (_, _, number) in enumerate(program.inputs) if not number]
        self.numbers = [k for k, (_, _, number) in enumerate(program.inputs) if number]
        slots = [program.inputs[in_memory[k]][0] for k in arrays]
        slots += [program.outputs[k][0] for k in outputs]
        self._slots = np.array(slots, np.int64)
        self._dtypes: list[DType] = [program.inputs[k][1] for k in self.numbers]
        self._format = _format({k: program.inputs[k][1] for k in self.numbers})
        size = 8 * max(len(program.inputs), 1)
        program.table[0] = _STATUS_ADDRESS
        for k in self.numbers:
            program.table[program.inputs[k][0]] = program.numbers_address + 8 * k
        self._memory = (ctypes.c_char * size).from_address(program.numbers_address)

    def run(self, addresses: list[int], numbers: tuple[Any, ...]) -> None:
        """Raises KernelError; numbers: the inputs that are Python numbers, in their order."""
        with executor().lock:
            self.program.table[self._slots] = addresses
            self._write(numbers)
            launch(self.program, self.nodes)

    def _write(self, numbers: tuple[Any, ...]) -> None:
        try:
            if self._format is not None:
                self._format.pack_into(self._memory, 0, *numbers)
                return
        except (struct.error, OverflowError):  # beyond the range of its dtype
            pass
        for k, value, dtype in zip(self.numbers, numbers, self._dtypes):
            content = number_bytes(value, dtype)
            ctypes.memmove(self.program.numbers_address + 8 * k, content, len(content))


def _format(dtypes: dict[int, DType]) -> struct.Struct | None:
    """The layout of numbers that have eight bytes each; None if struct does not know a dtype."""
    text, position = "<", 0
    for k, dtype in dtypes.items():
        if dtype.name not in _CODES:
            return None
        text += f"{8 * (k - position)}x{_CODES[dtype.name][1:]}{8 - dtype.itemsize}x"
        position = k + 1
    return struct.Struct(text)
