"""What a profile records: when each thread ran which launch, in ticks of the CPU's clock.

The recording worker notes for every thread and launch the first start, the last end, the ticks
inside the kernel, and the number of calls (`executor.RECORDING`).  A run copies these numbers and
goes on; they become times when the profile is read.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from metaop.errors import Site
from metaop.graph import Node

from .executor import ENTER, SCRATCH_ALIGNMENT, NativeProgram, _Scratch, compile_worker
from .program import Bound, HostCall

RECORD = 4  # int64s: first start, last end, ticks in the kernel, calls
LINE_BYTES = 128
RUN_BYTES = 200  # what a run costs beside its records


class Use(NamedTuple):
    """A program at a place of the user's: the lines and the modules' paths of each launch, and of
    each host call by the number of its segment."""

    program: Bound
    origins: list[list[tuple[Site, str]]]
    calls: dict[int, tuple[Site, str]]


class Run(NamedTuple):
    """One native call, or one host callback (threads is 0 then, and the records are empty).

    segment: its number in the program; start, end: seconds of time.perf_counter; records: int64 of
    [threads][launches][RECORD], each thread's on cache lines of its own.
    """

    use: int
    segment: int
    threads: int
    start: float
    end: float
    records: bytes


class Recorder:
    """Stands in for the executor's own native call while a profile is taken.

    uses: programs that ran, by number; own_cpu: CPU seconds of the profiling thread inside native
    calls, callbacks and this recorder.  Once `limit` bytes of runs wait, `full` is called, which
    takes them.
    """

    def __init__(self, code: Any, limit: int, full: Callable[[], None]) -> None:
        self._code, functions = code
        self._enter = ENTER(functions["enter"])
        self.ticks: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_int64)(functions["ticks"])
        self._memory = _Scratch()
        self.uses: list[Use] = []
        self._number: dict[Any, int] = {}
        self._runs: list[Run] = []
        self._limit, self._full, self._nbytes = limit, full, 0
        self._thread = threading.get_ident()
        self.own_cpu = 0.0
        self._use = self._segment = self._depth = 0
        self._inside = 0.0  # seconds of native calls within the callback that runs

    @staticmethod
    def compiled() -> Any:
        """The machine code of the recording worker, and where its functions are."""
        return compile_worker(recording=True)

    def take(self) -> list[Run]:
        """The runs that wait, in order."""
        runs, self._runs, self._nbytes = self._runs, [], 0
        return runs

    def begin(self, program: Bound, nodes: Sequence[Node]) -> None:
        """A program starts: what is recorded next are its segments, in order."""
        key = (program, nodes[-1].site if nodes else None)
        number = self._number.get(key)
        if number is None:
            number = self._number[key] = len(self.uses)
            places = [(node.site, node.scope.path) for node in nodes]
            launches = [la.work.positions if nodes else [] for la in program.launches]
            calls = {
                number: places[segment.position]
                for number, segment in enumerate(program.program.segments)
                if isinstance(segment, HostCall) and nodes
            }
            self.uses.append(Use(program, [[places[k] for k in some] for some in launches], calls))
        self._use, self._segment = number, 0

    def enter(self, program: NativeProgram, table: int, threads: int, state: Any) -> None:
        """The native call of a segment; state: the integers of the executor, as its %Pool."""
        row = -(-8 * RECORD * program.launches // LINE_BYTES) * LINE_BYTES
        address = self._memory.reserve(max(row * threads, SCRATCH_ALIGNMENT))
        ctypes.memset(address, 0, row * threads)
        state[8], state[9] = address, row
        cpu, start = time.thread_time(), time.perf_counter()
        self._enter(program.address, table, threads, state.ctypes.data)
        end = time.perf_counter()
        self._note(threads, start, end, ctypes.string_at(address, row * threads))
        self._count_cpu(cpu)

    def call_host(self, call: Callable[[], object]) -> None:
        """A host callback; programs that it runs are recorded, too, and are no part of its time."""
        use, segment, inside = self._use, self._segment, self._inside
        self._inside = 0.0
        cpu, start = time.thread_time(), time.perf_counter()
        self._depth += 1
        try:
            call()
        finally:
            self._depth -= 1
            seconds = time.perf_counter() - start
            self._use, self._segment = use, segment
            self._note(0, start + self._inside, start + seconds, b"")
            self._inside = inside + seconds
            self._count_cpu(cpu)

    def _count_cpu(self, since: float) -> None:
        if not self._depth and threading.get_ident() == self._thread:
            self.own_cpu += time.thread_time() - since

    def _note(self, threads: int, start: float, end: float, records: bytes) -> None:
        self._runs.append(Run(self._use, self._segment, threads, start, end, records))
        self._segment += 1
        if threads and self._depth:
            self._inside += end - start
        self._nbytes += len(records) + RUN_BYTES
        if self._nbytes > self._limit:
            self._full()
