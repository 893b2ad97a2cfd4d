"""A program as plain data, and how it runs: one native call per segment, then the commit.

A program computes the outputs of a graph of some structure, for any inputs of that structure.
Its table of addresses has a slot for every buffer: slot 0 the status word, then inputs, outputs
and temporaries.  Temporaries live in the arena, one block of memory reused by every program.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metaop.config import config
from metaop.dtype import DType
from metaop.extent import Polynomial, evaluate, evaluate_polynomial, has_extents, map_extents
from metaop.graph import Layout, Node, Scalar, Shape
from metaop.storage import ALIGNMENT, Storage, aligned_bytes

from .arena import plan_arena
from .executor import Launch, NativeProgram, executor
from .kernels import LoadedKernel

if TYPE_CHECKING:
    from .loops import Kernel
    from .nest import Tree


@dataclass(eq=False)
class Work:
    """What a launch does, for whoever wants to know.

    operators: the kinds of the nodes it computes; positions: in the graph as recorded, of one node
    for each line of the user's and module; phase: forward, backward or optimizer, several joined by
    +; flops, nbytes: as `compiler.cost` counts them.
    """

    name: str
    operators: list[str]
    positions: list[int]
    phase: str
    flops: int
    nbytes: int


@dataclass(eq=False)
class KernelLaunch:
    """One launch: the kernel, its buffers' slots, its integers, in how many chunks.

    In a program, integers, chunks and scratch may be formulas over the sizes.
    """

    key: str
    kernel: Kernel | None  # None in a program from disk, as is the tree
    code: LoadedKernel
    slots: list[int]
    integers: list[int]
    chunks: int
    scratch: int  # bytes for each thread
    tree: Tree | None
    work: Work

    @property
    def address(self) -> int:
        """Where the machine code is, for as long as `code` is held."""
        return self.code.address


class Temporary(NamedTuple):
    """A buffer of the arena: its slot, its size, the first and the last phase that touches it."""

    slot: int
    nbytes: int
    first: int
    last: int


@dataclass(eq=False)
class HostCall:
    """An escape: called with arrays over the input slots, its result copied to the output slot.

    name, position: what it is, and its place in the program's graph, for a profile.
    """

    call: Callable[..., Any]
    inputs: list[tuple[int, DType, tuple[int, ...]]]
    output: tuple[int, DType, tuple[int, ...]]
    name: str
    position: int


@dataclass(eq=False)
class FailedCheck:
    """Where a kernel found a bad value: a position in the program's graph, and the bounds."""

    position: int
    low: int
    high: int


class Form(NamedTuple):
    """What a computed value carries besides its bytes."""

    shape: Shape
    layout: Layout | None


class Place(NamedTuple):
    """An axis of an input of a program."""

    input: int
    axis: int


Segment = list[list[KernelLaunch]] | HostCall


@dataclass(eq=False)
class Program:
    """Everything that running needs but the sizes: `bind` gives it those."""

    inputs: list[tuple[int, DType, bool]]  # slot, dtype, is a Python number
    outputs: list[tuple[int, int]]  # slot, bytes
    temporaries: list[Temporary]
    results: list[tuple[str, int]]  # per asked value: ("in", input) or ("out", output)
    kept: list[tuple[int, int]]  # (position in the graph, output) of values that history needs
    forms: list[Form]  # of the results and of what is kept
    segments: list[Segment]
    checks: list[FailedCheck]
    counters: list[int]  # slots of integers that are 0 before a run
    slots: int
    guards: list[Polynomial] = field(default_factory=list)  # at least 0 for sizes that may be bound

    @property
    def launches(self) -> list[KernelLaunch]:
        """Every kernel launch, in order, with formulas for what depends on sizes."""
        return list(_launches_of(self.segments))

    def forget_stages(self) -> None:
        """Forgets what is only for looking at: more than the rest, and not in a program from disk
        either."""
        for launch in self.launches:
            launch.key, launch.kernel, launch.tree = launch.code.name, None, None

    def admits(self, sizes: Sequence[int]) -> bool:
        """True if the program is right for these sizes of its dynamic axes."""
        return all(evaluate_polynomial(guard, sizes) >= 0 for guard in self.guards)

    def bind(
        self, sizes: Sequence[int] = (), places: Sequence[Place | None] | None = None
    ) -> Bound:
        """The program ready to run with certain sizes of its dynamic axes.

        places: where in the shapes of the inputs each size is found; None if the program was not
        compiled for other sizes.
        """
        return Bound(self, sizes, places)


class Bound:
    """A program for inputs of certain sizes: places in the arena, native code to call."""

    def __init__(
        self,
        program: Program,
        sizes: Sequence[int] = (),
        places: Sequence[Place | None] | None = None,
    ):
        self.program, self.sizes = program, tuple(sizes)
        self.size_places = [place for place in places or [] if place is not None]
        self.knows_extents = places is not None and None not in places
        self._sized_forms = [k for k, form in enumerate(program.forms) if has_extents(form)]
        self.inputs, self.results, self.kept = program.inputs, program.results, program.kept
        self.outputs = [(slot, evaluate(nbytes, sizes)) for slot, nbytes in program.outputs]
        self.checks = [
            replace(c, low=evaluate(c.low, sizes), high=evaluate(c.high, sizes))
            for c in program.checks
        ]
        self.runs = 0
        offsets, self.arena_bytes = plan_arena(
            [t._replace(nbytes=evaluate(t.nbytes, sizes)) for t in program.temporaries]
        )
        self.temporaries = [(t.slot, offset) for t, offset in offsets.items()]
        if config.check:
            from .verify import verify_arena  # with what the compiler needs and a run does not

            verify_arena(self, {t.slot: (offset, t.nbytes) for t, offset in offsets.items()})
        segments = self.segments
        self.native = [_native(segment) for segment in segments]
        # a program without enough work for two threads runs on one
        alone = all(n.chunks == 1 for n in _launches_of(segments))
        self.threads = 1 if alone else None
        self.table = np.zeros(program.slots, np.int64)
        self.table_address: int = self.table.ctypes.data
        self._counters, start = aligned_bytes(ALIGNMENT * max(len(program.counters), 1))
        self._counters[:] = 0
        for position, slot in enumerate(program.counters):
            self.table[slot] = start + ALIGNMENT * position
        self.table[0] = _STATUS_ADDRESS
        self.arrays = [k for k, (_, _, number) in enumerate(self.inputs) if not number]
        self._place_numbers()
        slots = [self.inputs[k][0] for k in self.arrays] + [slot for slot, _ in self.outputs]
        self.places = np.array(slots, np.int64)
        self.arena_address = -1

    def forms(self, leaves: Sequence[Node]) -> list[Form]:
        """Those of the results and of what is kept, with the extents of these inputs: where the
        program knows an extent to be a constant, or to be another one, so do its results."""
        if not self._sized_forms:
            return self.program.forms
        values: Sequence[int] = self.sizes
        if self.knows_extents:
            values = [leaves[place.input].shape[place.axis] for place in self.size_places]
        forms = self.program.forms.copy()
        for k in self._sized_forms:
            forms[k] = map_extents(forms[k], lambda n: evaluate(n, values))
        return forms

    def _place_numbers(self) -> None:
        """Gives the inputs that are Python numbers a memory of their own, eight bytes each."""
        self.numbers = [k for k, (_, _, number) in enumerate(self.inputs) if number]
        self._dtypes = [self.inputs[k][1] for k in self.numbers]
        size = 8 * max(len(self.numbers), 1)
        self._owner, self.numbers_address = aligned_bytes(size)
        self._memory = (ctypes.c_char * size).from_address(self.numbers_address)
        self._format = _format(self._dtypes)
        for position, k in enumerate(self.numbers):
            self.table[self.inputs[k][0]] = self.numbers_address + 8 * position

    def fill(
        self, slots: np.ndarray, addresses: list[int] | np.ndarray, numbers: Sequence[Any]
    ) -> None:
        """Makes the table ready: where the arrays and the results lie, and what the numbers are."""
        self.table[slots] = addresses
        try:
            if self._format is not None:
                self._format.pack_into(self._memory, 0, *numbers)
                return
        except (struct.error, OverflowError):  # beyond the range of its dtype
            pass
        for position, (value, dtype) in enumerate(zip(numbers, self._dtypes)):
            content = number_bytes(value, dtype)
            ctypes.memmove(self.numbers_address + 8 * position, content, len(content))

    @property
    def segments(self) -> list[Segment]:
        """The program's segments for these sizes."""
        return [_sized(segment, self.sizes) for segment in self.program.segments]

    @property
    def launches(self) -> list[KernelLaunch]:
        """Every kernel launch, in order."""
        return list(_launches_of(self.segments))


def _launches_of(segments: list[Segment]) -> Iterator[KernelLaunch]:
    for segment in segments:
        if not isinstance(segment, HostCall):
            for phase in segment:
                yield from phase


def _native(segment: Segment) -> NativeProgram | HostCall:
    if isinstance(segment, HostCall):
        return segment
    phases = [
        [Launch(n.address, [*n.slots, *n.integers], n.chunks) for n in phase] for phase in segment
    ]
    scratch = max((n.scratch for phase in segment for n in phase), default=0)
    return NativeProgram(phases, scratch)


def _sized(segment: Segment, sizes: Sequence[int]) -> Segment:
    """A segment with formulas evaluated."""
    if isinstance(segment, HostCall):
        places = [
            (slot, dtype, tuple([evaluate(n, sizes) for n in shape]))
            for slot, dtype, shape in (*segment.inputs, segment.output)
        ]
        return replace(segment, inputs=places[:-1], output=places[-1])
    return [
        [
            replace(
                launch,
                integers=[evaluate(n, sizes) for n in launch.integers],
                chunks=evaluate(launch.chunks, sizes),
                scratch=evaluate(launch.scratch, sizes),
            )
            for launch in phase
        ]
        for phase in segment
    ]


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


def run(program: Bound, leaves: list[Node], nodes: Sequence[Node] = ()) -> list[Storage]:
    """Computes the program's outputs from its leaves; KernelError if a check failed.

    Nothing that a user can see is written: the caller binds the returned storages.
    nodes: the graph as recorded, for a profile.
    """
    runner = executor()
    with runner.lock:
        storages = [Storage(nbytes) for _, nbytes in program.outputs]
        held: list[Any] = [leaves[k].storage for k in program.arrays] + storages
        numbers: list[Any] = [leaves[k] for k in program.numbers]
        program.fill(
            program.places, [s.address for s in held], [number.value for number in numbers]
        )
        launch(program, nodes)
    return storages


def launch(program: Bound, nodes: Sequence[Node] = ()) -> None:
    """Runs a program whose table is filled but for the temporaries; the caller holds the lock."""
    base = arena.reserve(program.arena_bytes)
    if base != program.arena_address:
        for slot, offset in program.temporaries:
            program.table[slot] = base + offset
        program.arena_address = base
    _status[0] = 0
    program.runs += 1
    runner = executor()
    if runner.recorder is not None:
        runner.recorder.begin(program, nodes)
    for native in program.native:
        if isinstance(native, HostCall):
            if runner.recorder is None:
                _call_host(native, program.table)
            else:
                runner.recorder.call_host(functools.partial(_call_host, native, program.table))
        else:
            runner.run(native, program.table_address, program.threads)
        if _status[0]:
            code, value = int(_status[0]), int(_status[1])
            raise KernelError(program.checks[code - 1], value)


def _format(dtypes: list[DType]) -> struct.Struct | None:
    """The layout of numbers that have eight bytes each; None if struct does not know a dtype."""
    if any(dtype.name not in _CODES for dtype in dtypes):
        return None
    parts = [f"{_CODES[dtype.name][1:]}{8 - dtype.itemsize}x" for dtype in dtypes]
    return struct.Struct("<" + "".join(parts))


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
