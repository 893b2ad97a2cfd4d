"""A program as plain data, and how it runs: one native call per segment, then the commit.

A program computes the outputs of a graph of some structure, for any inputs of that structure.
Its table of addresses has a slot for every buffer: slot 0 the status word, then inputs, outputs
and temporaries.  Temporaries live in the arena, one block of memory reused by every program.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metaop.dtype import DType
from metaop.graph import Node, Scalar
from metaop.storage import ALIGNMENT, Storage, aligned_bytes

from .executor import Launch, NativeProgram, executor
from .loops import Kernel
from .nest import Nest


@dataclass(eq=False)
class KernelLaunch:
    """One launch: the kernel, its buffers' slots, its integers, in how many chunks."""

    key: str
    kernel: Kernel
    address: int
    slots: list[int]
    integers: list[int]
    chunks: int
    nest: Nest


@dataclass(eq=False)
class HostCall:
    """An escape: called with arrays over the input slots, its result copied to the output slot."""

    call: Callable[..., Any]
    inputs: list[tuple[int, DType, tuple[int, ...]]]
    output: tuple[int, DType, tuple[int, ...]]


@dataclass(eq=False)
class FailedCheck:
    """Where a kernel found a bad value: a position in the program's graph, and the bounds."""

    position: int
    low: int
    high: int


@dataclass(eq=False)
class Program:
    """Everything that running needs."""

    inputs: list[tuple[int, DType, bool]]  # slot, dtype, is a Python number
    outputs: list[tuple[int, int]]  # slot, bytes
    temporaries: list[tuple[int, int]]  # slot, offset in the arena
    arena_bytes: int
    results: list[tuple[str, int]]  # per asked value: ("in", input) or ("out", output)
    kept: list[tuple[int, int]]  # (position in the graph, output) of values that history needs
    segments: list[list[list[KernelLaunch]] | HostCall]
    checks: list[FailedCheck]
    slots: int
    runs: int = 0
    _native: list[Any] = field(default_factory=list)
    _table: Any = None
    _numbers: Any = None
    _numbers_address: int = 0
    _threads: int | None = None  # 1 for a program without enough work for two
    _arena_address: int = -1

    @property
    def launches(self) -> list[KernelLaunch]:
        """Every kernel launch, in order."""
        return [
            launch
            for segment in self.segments
            if not isinstance(segment, HostCall)
            for phase in segment
            for launch in phase
        ]

    def prepare(self) -> None:
        """Builds what native calls need, once."""
        for segment in self.segments:
            if isinstance(segment, HostCall):
                self._native.append(segment)
            else:
                phases = [
                    [Launch(n.address, [*n.slots, *n.integers], n.chunks) for n in phase]
                    for phase in segment
                ]
                self._native.append(NativeProgram(phases))
        if all(launch.chunks == 1 for launch in self.launches):
            self._threads = 1
        self._table = np.zeros(self.slots, np.int64)
        self._numbers, start = aligned_bytes(8 * max(len(self.inputs), 1))
        self._numbers_address = start


class KernelError(Exception):
    """A check failed in a kernel."""

    def __init__(self, check: FailedCheck, value: int):
        super().__init__(f"value {value} is not in [{check.low}, {check.high})")
        self.check, self.value = check, value


class _Arena:
    """Memory of temporaries, grown when a program needs more."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.address = 0
        self._block: Any = None

    def reserve(self, nbytes: int) -> int:
        if nbytes > self.nbytes or self._block is None:
            self._block = None  # give the old one back first
            self._block, self.address = aligned_bytes(max(nbytes, ALIGNMENT))
            self.nbytes = nbytes
        return self.address


arena = _Arena()
_status = np.zeros(8, np.int64)
_STATUS_ADDRESS = _status.__array_interface__["data"][0]
_CODES = {"float32": "<f", "float64": "<d", "float16": "<e", "bool": "<?",
          "int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q",
          "uint8": "<B", "uint16": "<H", "uint32": "<I", "uint64": "<Q"}  # fmt: skip


def run(program: Program, leaves: list[Node]) -> list[Storage]:
    """Computes the program's outputs from its leaves; KernelError if a check failed.

    Nothing that a user can see is written: the caller binds the returned storages.
    """
    runner = executor()
    with runner.lock:
        if program._table is None:
            program.prepare()
        storages = [Storage(nbytes) for _, nbytes in program.outputs]
        _fill_table(program, leaves, storages)
        _status[0] = 0
        program.runs += 1
        for native in program._native:
            if isinstance(native, HostCall):
                _call_host(native, program._table)
            else:
                runner.run(native, program._table.__array_interface__["data"][0], program._threads)
            if _status[0]:
                code, value = int(_status[0]), int(_status[1])
                raise KernelError(program.checks[code - 1], value)
    return storages


def _fill_table(program: Program, leaves: list[Node], storages: list[Storage]) -> None:
    table = program._table
    table[0] = _STATUS_ADDRESS
    for position, ((slot, dtype, is_number), leaf) in enumerate(zip(program.inputs, leaves)):
        if is_number:
            assert isinstance(leaf, Scalar)
            content = number_bytes(leaf.value, dtype)
            ctypes.memmove(program._numbers_address + 8 * position, content, len(content))
            table[slot] = program._numbers_address + 8 * position
        else:
            assert leaf.storage is not None
            table[slot] = leaf.storage.address
    for (slot, _), storage in zip(program.outputs, storages):
        table[slot] = storage.address
    base = arena.reserve(program.arena_bytes)
    if base != program._arena_address:
        for slot, offset in program.temporaries:
            table[slot] = base + offset
        program._arena_address = base


def number_bytes(value: Any, dtype: DType) -> bytes:
    """A Python number as it lies in memory: floats rounded to the dtype, integers wrapped."""
    if dtype.name == "bfloat16":
        return struct.pack("<f", value)[2:]
    if dtype.is_float:
        try:
            return struct.pack(_CODES[dtype.name], value)
        except OverflowError:
            return struct.pack(_CODES[dtype.name], float("inf") if value > 0 else float("-inf"))
    width = 8 * dtype.itemsize
    wrapped = int(value) & ((1 << width) - 1)
    if dtype.kind == "i" and wrapped >> (width - 1):
        wrapped -= 1 << width
    return struct.pack(_CODES[dtype.name], wrapped)


def number_storage(number: Scalar) -> Storage:
    """The memory of a Python number that is asked for by itself."""
    storage = Storage(number.dtype.itemsize)
    ctypes.memmove(storage.address, number_bytes(number.value, number.dtype), storage.nbytes)
    return storage


class _View:
    def __init__(self, address: int, dtype: DType, shape: tuple[int, ...]):
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.storage.str, "data": (address, False)
        }  # fmt: skip


def _call_host(call: HostCall, table: Any) -> None:
    arrays = [np.asarray(_View(int(table[s]), d, shape)) for s, d, shape in call.inputs]
    slot, dtype, shape = call.output
    result = np.asarray(call.call(*arrays))
    np.asarray(_View(int(table[slot]), dtype, shape))[...] = result
