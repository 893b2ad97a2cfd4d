"""Runs a compiled program: plain data, one native call, one parallel region.

    program = phase*                 between two phases every thread waits
    phase   = launch*                these may run side by side
    launch  = (kernel, args, chunks) the kernel is called once for each chunk

A kernel has Numba's calling convention:

    int32_t kernel(void **ret, void **exc, int64_t *table, int64_t *args,
                   int64_t chunk, int64_t chunks, void *scratch)

`table` holds the addresses of the run's buffers; its first entry is the address of the status
word, `int64_t status[8]`, which the caller zeroes.  `args` are the launch's own integers, fixed in
the program.  `scratch` is memory of the calling thread alone, as many bytes as the program asks
for, 64-byte aligned; what it holds at the start of a call is undefined.

Every thread of the region runs the same *worker*.  The items of a phase are the chunks of all its
launches, numbered through.  Each thread owns an equal run of them, the same in every phase, so that
what it wrote is still in its cache.  It takes items from its own *slot*, which no one else touches
unless the phase is overdue: then a thread that waits takes from the others'.  A phase ends when as
many items are *done* as there are.  So nothing depends on how many threads came: one that the pool
never sends is not waited for, one that comes late finds all items taken and walks through.

A slot holds phase + 1 in its upper half and the number of items taken in its lower half, so it only
grows, a value from an earlier phase means "none taken", and nothing is zeroed between phases.

A phase begins only while status[0] is 0.  A kernel that returns one of Numba's error codes without
having written the status has it written for it: status[0] = KERNEL_RAISED, status[1] = the launch.

The worker is LLVM assembly, compiled once per process by llvmlite alone.  A second one, which reads
a clock around every kernel call, is compiled when the first profile is taken; see `recorder`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metaop.compiler.threading_layer import (
    ALONE,
    MOST_THREADS,
    ThreadingLayer,
    check_thread_count,
    default_threads,
    start_layer,
    usable_cpus,
    wanted_layer,
)
from metaop.storage import aligned_bytes

if TYPE_CHECKING:
    from .recorder import Recorder

KERNEL_RAISED = -1

# How often a waiting thread looks before it offers its CPU to others: some microseconds, longer
# than the usual wait.  With more threads than CPUs the one waited for may be off its CPU.
SPINS = 2000
SPINS_CROWDED = 20
NEVER = 2**63 - 1

# How often it looks before it searches the other threads' items: the balanced phase ends sooner.
SPINS_BEFORE_STEALING = 16

SCRATCH_ALIGNMENT = 4096  # so that no two threads share a page of scratch memory

LINE = 16  # int64s in 128 bytes: two cache lines on x86, one on Apple's arm64

# Calls `enter` of a worker: program, table, threads, pool.
ENTER = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
)  # fmt: skip


class Launch(NamedTuple):
    """One kernel over all its chunks: `kernel` is an address, `args` its integers."""

    kernel: int
    args: Sequence[int]
    chunks: int


class NativeProgram:
    """Phases of launches laid out in memory as the worker reads them.

    `widest` is the number of items in the largest phase, beyond which threads find no work.
    `scratch` is how many bytes of memory of its own each thread needs.
    """

    def __init__(self, phases: Sequence[Sequence[Launch]], scratch: int = 0) -> None:
        self.scratch = -(-scratch // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT
        self.launches = sum(len(phase) for phase in phases)
        self.widest = max((sum(launch.chunks for launch in phase) for phase in phases), default=0)
        self._args = _integers([value for phase in phases for la in phase for value in la.args])
        self._launches = _integers(_launch_rows(phases, self._args.ctypes.data))
        self._phases = _integers(_phase_rows(phases))
        self._header = _integers(
            [
                len(phases),
                self._phases.ctypes.data,
                self._launches.ctypes.data,
                *[0] * 6,  # table, pool, dims, step, args: each run writes its own
            ]
        )
        self.address: int = self._header.ctypes.data

    def run(self, table_address: int, threads: int) -> None:
        """Run every phase with at most `threads` threads; return when the last item is done."""
        executor().run(self, table_address, threads)


def _launch_rows(phases: Sequence[Sequence[Launch]], args: int) -> list[int]:
    """Four integers a launch: kernel, address of its args, chunks, first item in its phase."""
    rows = []
    for phase in phases:
        first = 0
        for launch in phase:
            rows += [launch.kernel, args, launch.chunks, first]
            args += 8 * len(launch.args)
            first += launch.chunks
    return rows


def _phase_rows(phases: Sequence[Sequence[Launch]]) -> list[int]:
    """Three integers a phase: its first launch, its items, the items up to its end."""
    rows = []
    first = total = 0
    for phase in phases:
        items = sum(launch.chunks for launch in phase)
        total += items
        rows += [first, items, total]
        first += len(phase)
    return rows


def _integers(values: list[int]) -> np.ndarray:
    """The values in memory that stays where it is; never empty, so that it has an address."""
    return np.array(values or [0], np.int64)


class _Scratch:
    """Memory that kernels use and nothing outlives, grown when a program needs more."""

    def __init__(self) -> None:
        self._block: Any = None
        self._nbytes = 0
        self.address = 0

    def reserve(self, nbytes: int) -> int:
        if nbytes > self._nbytes:
            self._block = None  # give the old one back first
            self._block, start = aligned_bytes(nbytes + SCRATCH_ALIGNMENT)
            self.address = -(-start // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT
            self._nbytes = nbytes
        return self.address


class Executor:
    """The one place in a process where programs run: the worker, the pool, the lock.

    Any Python thread may call `run`; they take turns, because two programs at once would only
    share the CPUs, and because one of the pools cannot be entered twice.  A forked child has no
    pool (OpenMP ends a child that tries) and runs everything in the calling thread.
    """

    def __init__(self) -> None:
        self.launch_count = 0
        self._threads = default_threads()
        self._wanted_layer = wanted_layer()
        self._layer: ThreadingLayer | None = None
        self._lock = threading.RLock()
        self._cpus = usable_cpus()
        self._yield = yield_address()
        self._counters = np.zeros((MOST_THREADS + 3) * LINE, np.int64)
        counters = -(-self._counters.ctypes.data // (8 * LINE)) * (8 * LINE)  # the next whole line
        self._pool = _integers([0, 0, 0, NEVER, 0, counters, 0, 0, 0, 0])  # as %Pool below
        self._scratch = _Scratch()
        self._pool_address: int = self._pool.ctypes.data
        self._code, functions = compile_worker()
        self._enter = ENTER(functions["enter"])
        self.recorder: Recorder | None = None  # while a profile is taken
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @property
    def lock(self) -> Any:
        """Held while a program runs; a caller holds it around what a run reads and writes."""
        return self._lock

    @property
    def threads(self) -> int:
        """How many threads a run uses: what was asked for, or the most that the pool can give."""
        layer = self._layer
        return self._threads if layer is None else min(self._threads, layer.capacity)

    @threads.setter
    def threads(self, count: int) -> None:
        self.set_num_threads(count)

    def set_num_threads(self, count: int) -> None:
        """Use `count` threads from the next run on; results do not depend on it.

        Raises ValueError if it is not a whole number from 1 to 1024.
        """
        count = check_thread_count(count)
        with self._lock:
            self._threads = count

    @property
    def layer(self) -> str:
        """The layer in use: omp, tbb, workqueue or alone.  Asking starts it."""
        with self._lock:
            return self._started_layer(self._threads).name

    def run(self, program: NativeProgram, table_address: int, threads: int | None = None) -> None:
        """Run a program over the buffers of `table`, with `self.threads` threads or fewer.

        Other Python threads go on meanwhile; a signal is seen by Python after the call.
        """
        if not program.widest:
            return
        with self._lock:
            wanted = self._threads if threads is None else max(threads, 1)
            count = min(wanted, program.widest)
            if count > 1:
                count = self._prepare(count)
            self._pool[6] = self._scratch.reserve(program.scratch * count)
            self._pool[7] = program.scratch
            if self.recorder is None:
                self._enter(program.address, table_address, count, self._pool_address)
            else:
                self.recorder.enter(program, table_address, count, self._pool)
            self.launch_count += program.launches

    def _prepare(self, threads: int) -> int:
        """Start the pool if this is the first region; how many threads this region gets."""
        threads = min(threads, self._started_layer(threads).capacity)
        if self._yield:
            self._pool[3] = SPINS if threads <= self._cpus else SPINS_CROWDED
        return threads

    def _started_layer(self, threads: int) -> ThreadingLayer:
        """The threading layer, started on the first call."""
        if self._layer is None:
            layer = start_layer(self._wanted_layer, max(threads, self._threads))
            self._pool[:3] = [layer.parallel_for, layer.get_num_threads, layer.set_num_threads]
            self._pool[4] = self._yield
            self._layer = layer
        return self._layer

    def _after_fork(self) -> None:
        """In a forked child: no pool, and a lock that no vanished thread holds."""
        self._lock = threading.RLock()
        self._layer = ALONE


_executor: Executor | None = None
_making_executor = threading.Lock()


def executor() -> Executor:
    """The process's executor, made on the first call.

    Raises ValueError if METAOP_THREADS or METAOP_THREADING_LAYER holds something else than it may.
    """
    global _executor
    if _executor is None:
        with _making_executor:
            if _executor is None:
                _executor = Executor()
    return _executor


# -- the worker --------------------------------------------------------------------------------


WORKER = """
%Phase = type { i64, i64, i64 }            ; first launch, items, items of all phases so far
%Launch = type { ptr, ptr, i64, i64 }      ; kernel, args, chunks, first item
%Line = type [16 x i64]                    ; a counter alone on its cache lines
%Counters = type { %Line, %Line, [0 x %Line] }    ; threads arrived, items done, slots
%Pool = type {
  ptr, ptr, ptr,                           ; parallel_for, get and set threads
  i64, ptr, ptr,                           ; spins, yield, counters
  ptr, i64,                                ; scratch memory, bytes of it for each thread
  ptr, i64                                 ; %Record[threads][launches], bytes for each thread
}
%Record = type { i64, i64, i64, i64 }      ; ticks: first start, last end, all calls; calls
%Program = type {
  i64, ptr, ptr,                           ; phase count, phases, launches
  ptr, ptr,                                ; table and pool of this run
  [2 x i64], i64, ptr                      ; dims, step and args in the form parallel_for wants
}

DECLARATIONS

; Zero the counters, then run the worker: in this thread, or in every thread of one region.
; Numba's own thread count of the calling thread, which a region overwrites, is put back.
define void @enter(ptr %program, ptr %table, i64 %threads, ptr %pool) {
entry:
  %table.slot = getelementptr %Program, ptr %program, i64 0, i32 3
  %pool.slot = getelementptr %Program, ptr %program, i64 0, i32 4
  %dims = getelementptr %Program, ptr %program, i64 0, i32 5
  %step = getelementptr %Program, ptr %program, i64 0, i32 6
  %args = getelementptr %Program, ptr %program, i64 0, i32 7
  store ptr %table, ptr %table.slot
  store ptr %pool, ptr %pool.slot
  store i64 %threads, ptr %dims
  %counters.slot = getelementptr %Pool, ptr %pool, i64 0, i32 5
  %counters = load ptr, ptr %counters.slot
  %count.lines = add i64 %threads, 2
  br label %zero

zero:
  %line = phi i64 [ 0, %entry ], [ %line.next, %zero ]
  %counter = getelementptr %Line, ptr %counters, i64 %line
  store i64 0, ptr %counter
  %line.next = add i64 %line, 1
  %more = icmp ult i64 %line.next, %count.lines
  br i1 %more, label %zero, label %choose

choose:
  %several = icmp ugt i64 %threads, 1
  br i1 %several, label %region, label %alone

alone:
  call void @worker(ptr %args, ptr %dims, ptr %step, ptr %program)
  ret void

region:
  %get.slot = getelementptr %Pool, ptr %pool, i64 0, i32 1
  %set.slot = getelementptr %Pool, ptr %pool, i64 0, i32 2
  %parallel.for = load ptr, ptr %pool
  %get = load ptr, ptr %get.slot
  %set = load ptr, ptr %set.slot
  %found = call i32 %get()
  %known = icmp sgt i32 %found, 0
  %kept = select i1 %known, i32 %found, i32 0    ; 0 stands for "not set yet"
  %count = trunc i64 %threads to i32
  call void %parallel.for(ptr @worker, ptr %args, ptr %dims, ptr %step, ptr %program,
                          i64 0, i64 1, i32 %count)
  call void %set(i32 %kept)
  ret void
}

; What each thread runs.  `dims` counts the calls that the pool lumped together, not all threads.
define void @worker(ptr %args, ptr %dims, ptr %steps, ptr %program) {
entry:
  %ret = alloca [8 x i64]
  %exc = alloca [8 x i64]
  %phases.slot = getelementptr %Program, ptr %program, i64 0, i32 1
  %launches.slot = getelementptr %Program, ptr %program, i64 0, i32 2
  %table.slot = getelementptr %Program, ptr %program, i64 0, i32 3
  %pool.slot = getelementptr %Program, ptr %program, i64 0, i32 4
  %threads.slot = getelementptr %Program, ptr %program, i64 0, i32 5
  %phase.count = load i64, ptr %program
  %phases = load ptr, ptr %phases.slot
  %launches = load ptr, ptr %launches.slot
  %table = load ptr, ptr %table.slot
  %pool = load ptr, ptr %pool.slot
  %threads = load i64, ptr %threads.slot
  %spins.slot = getelementptr %Pool, ptr %pool, i64 0, i32 3
  %yield.slot = getelementptr %Pool, ptr %pool, i64 0, i32 4
  %counters.slot = getelementptr %Pool, ptr %pool, i64 0, i32 5
  %spins = load i64, ptr %spins.slot
  %yield.function = load ptr, ptr %yield.slot
  %counters = load ptr, ptr %counters.slot
  %done = getelementptr %Counters, ptr %counters, i64 0, i32 1
  %status = load ptr, ptr %table
  %threads.less = sub i64 %threads, 1
  %scratch.slot = getelementptr %Pool, ptr %pool, i64 0, i32 6
  %stride.slot = getelementptr %Pool, ptr %pool, i64 0, i32 7
  %scratches = load ptr, ptr %scratch.slot
  %stride = load i64, ptr %stride.slot
  %rank = atomicrmw add ptr %counters, i64 1 monotonic
  %scratch.offset = mul i64 %rank, %stride
  %scratch = getelementptr i8, ptr %scratches, i64 %scratch.offset
  FIND_RECORDS
  br label %next

next:                                    ; is there another phase, and no error so far?
  %phase = phi i64 [ 0, %entry ], [ %phase.next, %wait ]
  %phase.next = add i64 %phase, 1
  %more = icmp ult i64 %phase, %phase.count
  br i1 %more, label %check, label %leave

check:
  %code = load atomic i64, ptr %status monotonic, align 8
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %leave, label %begin

begin:                                   ; rank r owns the items from r * share
  %launch.slot = getelementptr %Phase, ptr %phases, i64 %phase, i32 0
  %items.slot = getelementptr %Phase, ptr %phases, i64 %phase, i32 1
  %target.slot = getelementptr %Phase, ptr %phases, i64 %phase, i32 2
  %launch.first = load i64, ptr %launch.slot
  %items = load i64, ptr %items.slot
  %target = load i64, ptr %target.slot
  %items.up = add i64 %items, %threads.less
  %share = udiv i64 %items.up, %threads
  %tag = shl i64 %phase.next, 32
  br label %choose

choose:                                  ; whose items: own ones at distance 0, then the others'
  %distance = phi i64 [ 0, %begin ], [ %distance.next, %steal ], [ %tried, %wait.steal ]
  %distance.next = add i64 %distance, 1
  %owner.far = add i64 %rank, %distance
  %owner.over = sub i64 %owner.far, %threads
  %around = icmp sge i64 %owner.over, 0
  %owner = select i1 %around, i64 %owner.over, i64 %owner.far
  %slot = getelementptr %Counters, ptr %counters, i64 0, i32 2, i64 %owner
  %owned.first = mul i64 %owner, %share
  %owned.rest = sub i64 %items, %owned.first
  %is.last = icmp slt i64 %owned.rest, %share
  %owned = select i1 %is.last, i64 %owned.rest, i64 %share    ; below 1 if there are none
  br label %take

take:                                    ; items come in rising order: look on from the last launch
  %launch.last = phi i64 [ %launch.first, %choose ], [ %launch, %count ]
  %mine = phi i64 [ 0, %choose ], [ %mine.next, %count ]
  %seen.first = load atomic i64, ptr %slot monotonic, align 8
  br label %take.try

take.try:                                ; a slot below the tag is left from an earlier phase
  %seen = phi i64 [ %seen.first, %take ], [ %seen.now, %take.one ]
  %is.old = icmp ult i64 %seen, %tag
  %taken.now = sub i64 %seen, %tag
  %taken = select i1 %is.old, i64 0, i64 %taken.now
  %open = icmp slt i64 %taken, %owned
  br i1 %open, label %take.one, label %publish

take.one:
  %taken.next = add i64 %taken, 1
  %slot.next = add i64 %tag, %taken.next
  %swap = cmpxchg ptr %slot, i64 %seen, i64 %slot.next monotonic monotonic
  %seen.now = extractvalue { i64, i1 } %swap, 0
  %got = extractvalue { i64, i1 } %swap, 1
  br i1 %got, label %found, label %take.try

found:
  %item = add i64 %owned.first, %taken
  br label %find

find:
  %launch = phi i64 [ %launch.last, %found ], [ %launch.after, %find.on ]
  %chunks.slot = getelementptr %Launch, ptr %launches, i64 %launch, i32 2
  %first.slot = getelementptr %Launch, ptr %launches, i64 %launch, i32 3
  %chunks = load i64, ptr %chunks.slot
  %first = load i64, ptr %first.slot
  %chunk = sub i64 %item, %first
  %here = icmp slt i64 %chunk, %chunks
  br i1 %here, label %call, label %find.on

find.on:
  %launch.after = add i64 %launch, 1
  br label %find

call:
  %kernel.slot = getelementptr %Launch, ptr %launches, i64 %launch, i32 0
  %args.slot = getelementptr %Launch, ptr %launches, i64 %launch, i32 1
  %kernel = load ptr, ptr %kernel.slot
  %kernel.args = load ptr, ptr %args.slot
  START_RECORD
  %returned = call i32 %kernel(ptr %ret, ptr %exc, ptr %table, ptr %kernel.args,
                               i64 %chunk, i64 %chunks, ptr %scratch)
  END_RECORD
  %is.exception = icmp eq i32 %returned, -1
  %is.user.exception = icmp sgt i32 %returned, 0
  %raised = or i1 %is.exception, %is.user.exception
  br i1 %raised, label %report, label %count

report:                                  ; the first to report wins and writes the rest
  %exchange = cmpxchg ptr %status, i64 0, i64 KERNEL_RAISED monotonic monotonic
  %won = extractvalue { i64, i1 } %exchange, 1
  br i1 %won, label %describe, label %count

describe:
  %launch.report = getelementptr i64, ptr %status, i64 1
  store i64 %launch, ptr %launch.report
  br label %count

count:
  %mine.next = add i64 %mine, 1
  br label %take

publish:                                 ; once for all items taken from this slot
  %any = icmp sgt i64 %mine, 0
  br i1 %any, label %publish.some, label %published

publish.some:
  %done.before = atomicrmw add ptr %done, i64 %mine release
  br label %published

published:
  %own = icmp eq i64 %distance, 0
  br i1 %own, label %wait, label %steal

steal:
  %others = icmp slt i64 %distance.next, %threads
  br i1 %others, label %choose, label %wait

wait:                                    ; until all is done; look once for items left lying
  %spin = phi i64 [ 0, %published ], [ 0, %steal ], [ %spin.next, %pause.on ],
                  [ %spin.next, %yield ]
  %tried = phi i64 [ %distance.next, %published ], [ %distance.next, %steal ],
                   [ %tried, %pause.on ], [ %tried, %yield ]
  %done.now = load atomic i64, ptr %done acquire, align 8
  %all = icmp sge i64 %done.now, %target
  br i1 %all, label %next, label %pause

pause:
  PAUSE
  %spin.next = add i64 %spin, 1
  %overdue = icmp eq i64 %spin.next, SPINS_BEFORE_STEALING
  %untried = icmp slt i64 %tried, %threads
  %look = and i1 %overdue, %untried
  br i1 %look, label %wait.steal, label %pause.on

wait.steal:
  br label %choose

pause.on:
  %patient = icmp slt i64 %spin.next, %spins
  br i1 %patient, label %wait, label %yield

yield:
  %ignored = call i32 %yield.function()
  br label %wait

leave:
  ret void
}
"""

CONSTANTS = {
    "KERNEL_RAISED": KERNEL_RAISED,
    "SPINS_BEFORE_STEALING": SPINS_BEFORE_STEALING,
}

# The hint that a thread is spinning: declaration and call, by processor.
PAUSES = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": (
        "declare void @llvm.aarch64.hint(i32)",
        "call void @llvm.aarch64.hint(i32 1)",
    ),
}


# A clock that every CPU of the machine shares and that costs some nanoseconds to read.
CLOCKS = {
    "x86_64": ("declare i64 @llvm.readcyclecounter()", "call i64 @llvm.readcyclecounter()"),
    "aarch64": ("", 'call i64 asm sideeffect "mrs $0, cntvct_el0", "=r"()'),
}

RECORDING = {
    "FIND_RECORDS": """
  %records.slot = getelementptr %Pool, ptr %pool, i64 0, i32 8
  %row.slot = getelementptr %Pool, ptr %pool, i64 0, i32 9
  %all.records = load ptr, ptr %records.slot
  %row = load i64, ptr %row.slot
  %records.offset = mul i64 %rank, %row
  %records = getelementptr i8, ptr %all.records, i64 %records.offset
""",
    "START_RECORD": """
  %start = CLOCK
""",
    "END_RECORD": """
  %end = CLOCK
  %first.at = getelementptr %Record, ptr %records, i64 %launch, i32 0
  %last.at = getelementptr %Record, ptr %records, i64 %launch, i32 1
  %spent.at = getelementptr %Record, ptr %records, i64 %launch, i32 2
  %calls.at = getelementptr %Record, ptr %records, i64 %launch, i32 3
  %calls.so.far = load i64, ptr %calls.at
  %calls.next = add i64 %calls.so.far, 1
  store i64 %calls.next, ptr %calls.at
  %is.first = icmp eq i64 %calls.so.far, 0
  %first.so.far = load i64, ptr %first.at
  %first.now = select i1 %is.first, i64 %start, i64 %first.so.far
  store i64 %first.now, ptr %first.at
  store i64 %end, ptr %last.at
  %spent.so.far = load i64, ptr %spent.at
  %spent.here = sub i64 %end, %start
  %spent.now = add i64 %spent.so.far, %spent.here
  store i64 %spent.now, ptr %spent.at
""",
}

TICKS = """
define i64 @ticks() {
  %now = CLOCK
  ret i64 %now
}
"""


def worker_assembly(triple: str, recording: bool = False) -> str:
    """The worker's LLVM assembly for a target triple such as x86_64-unknown-linux-gnu.

    recording: the one that notes when each thread ran which launch, with `ticks`, its clock.
    """
    processor = triple.split("-")[0].replace("arm64", "aarch64").replace("amd64", "x86_64")
    declaration, pause = PAUSES.get(processor, ("", ""))
    declare_clock, clock = CLOCKS.get(processor, CLOCKS["x86_64"])
    text = WORKER + TICKS if recording else WORKER
    for mark, content in RECORDING.items():
        text = text.replace(f"  {mark}\n", content.lstrip("\n") if recording else "")
    text = text.replace("DECLARATIONS", f"{declaration}\n{declare_clock if recording else ''}")
    text = text.replace("  PAUSE", f"  {pause}").replace("CLOCK", clock)
    for name, value in CONSTANTS.items():
        text = text.replace(name, str(value))
    return text


def compile_worker(recording: bool = False) -> tuple[object, dict[str, int]]:
    """The owner of the worker's machine code, to be kept with it, and the addresses of `enter`
    and, if it is the recording one, `ticks`."""
    import llvmlite.binding as llvm  # not at the start: 30 ms of `import metaop`

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=_host_features(),
        opt=2,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )
    module = llvm.parse_assembly(worker_assembly(triple, recording))
    module.verify()
    builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module))
    compiler = llvm.create_lljit_compiler(machine)
    names = ("enter", "ticks") if recording else ("enter",)
    for name in names:
        builder.export_symbol(name)
    library = builder.link(compiler, f"metaop_worker{'_recording' if recording else ''}")
    return (compiler, library), {name: library[name] for name in names}


def _host_features() -> str:
    """The CPU's features as LLVM writes them; empty where LLVM cannot tell."""
    import llvmlite.binding as llvm

    try:
        return str(llvm.get_host_cpu_features().flatten())
    except RuntimeError:
        return ""


def yield_address() -> int:
    """The address of the system's function that gives the CPU to another thread, 0 if none."""
    try:
        if sys.platform == "win32":
            function = ctypes.WinDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0
