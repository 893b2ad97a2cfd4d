"""The machine's roofline, measured: what no kernel can be faster than.

Each figure is for a number of threads, the best of several rounds, of kernels in plain LLVM run as
metaop's own are:

    peak      GFLOP/s of independent chains of f32 a = a * b + c on the widest vectors, two
              operations per element (where the CPU has no such instruction, of * and then +)
    copy      GB/s of y[i] = 1.5 x[i] + 1, bytes read and written, by the bytes of x and y together:
              from a size that the caches hold to one that they do not, which is `memory`
    stream    GB/s of y[i] = x[i] + 1 from memory with stores that go around the caches
    plain_memory, plain_stream
              the same as a C compiler writes it, for comparison: the widest vectors, a part for
              each thread, and pages that nobody asked to be huge, as NumPy does, and so metaop,
              where the system has such pages
    launch    microseconds that one more kernel adds to a program
    call      microseconds of a program of one empty kernel, called from Python

A kernel's bound is the larger of flops / peak and bytes / copy at its own number of bytes: its
buffers lie where `copy` was measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .compiler import machine
from .compiler.cache import cache
from .compiler.executor import Launch, NativeProgram, executor
from .compiler.threading_layer import usable_cpus
from .storage import aligned_bytes

VERSION, METHOD = 1, 3  # of the JSON; of measuring: what was measured in another way is not used
ARRAY_BYTES = 256 << 20  # of x and of y: more than any cache holds
LEAST_BYTES = 64 << 20  # where memory is short
SIZES = tuple(1 << k for k in range(16, 27, 2))  # bytes of x and y together: 64 KiB to 64 MiB
ROUNDS, MOST_ROUNDS = 5, 50
SHORT = 0.005  # seconds: the clock of CPU time may be too coarse for what is quicker
QUIET = 0.97  # of the CPU time that all threads could have
SECONDS = 0.02  # of one measurement, about
CHAINS = 12  # of multiply-adds: latency times units, within the registers
COPY_BITS = 256  # of vectors that copies move: with wider ones fewer lines are under way
PARTS = 8  # of an array for each thread
UNROLLED = (1, 4)  # vectors that an iteration of a copy moves: the faster counts
LAUNCHES = 400


@dataclass
class Point:
    """The roofline of a number of threads: see the module for what the figures are."""

    threads: int
    peak: float
    memory: float
    stream: float
    plain_memory: float
    plain_stream: float
    launch: float
    call: float
    copy: list[tuple[int, float]]  # bytes, GB/s; the last is `memory`

    def bandwidth(self, nbytes: float) -> float:
        """GB/s of copying that many bytes, between measured sizes by the logarithm of the size."""
        sizes = [size for size, _ in self.copy]
        return float(np.interp(np.log2(max(nbytes, 1)), np.log2(sizes), [b for _, b in self.copy]))

    def bound(self, flops: float, nbytes: float) -> float:
        """The seconds that a kernel needs at least."""
        return max(flops / self.peak, nbytes / self.bandwidth(nbytes)) / 1e9


@dataclass
class Roofline:
    """What a machine can do, for several numbers of threads.

    disturbed: other programs took CPUs from some measurement every time, so figures are too low.
    """

    cpu: str
    instruction_set: str
    points: list[Point]
    disturbed: bool = False

    def at(self, threads: int) -> Point:
        """The roofline of the nearest number of threads that was measured."""
        return min(self.points, key=lambda point: abs(point.threads - threads))

    def json(self) -> str:
        """As JSON; docs/inspect.md has the schema."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Roofline:
        """What `json` wrote."""
        found = json.loads(text)
        points = [Point(**{**p, "copy": [tuple(c) for c in p["copy"]]}) for p in found["points"]]
        return cls(found["cpu"], found["instruction_set"], points, found["disturbed"])

    def __repr__(self) -> str:
        heads = "".join(f"{name:>{width}}" for name, (_, width, _) in COLUMNS.items())
        lines = [f"{self.cpu}, {self.instruction_set}", heads]
        for p in self.points:
            lines.append("".join(
                f"{getattr(p, field):{width}{form}}" for field, width, form in COLUMNS.values()
            ))  # fmt: skip
        sizes = [f"{_size(size):>9}" for size, _ in self.points[0].copy]
        lines += ["", f"threads   copy, GB/s at{''.join(sizes)}"]
        for p in self.points:
            lines.append(f"{p.threads:7}{'':16}" + "".join(f"{rate:9.1f}" for _, rate in p.copy))
        lines += [
            "",
            "memory, stream, copy: GB/s read and written; launch, call: microseconds",
            "plain: as a loop in C does it; no share of the roofline is held against it",
        ]
        if self.disturbed:
            lines.append("other programs used the CPUs: some figures are too low, and none is kept")
        return "\n".join(lines)


# Of the table: what stands above a column, the figure, its width and form.
COLUMNS = {
    "threads": ("threads", 7, "d"),
    "GFLOP/s": ("peak", 10, ".1f"),
    "memory": ("memory", 9, ".1f"),
    "stream": ("stream", 9, ".1f"),
    "plain memory": ("plain_memory", 15, ".1f"),
    "plain stream": ("plain_stream", 14, ".1f"),
    "launch": ("launch", 9, ".2f"),
    "call": ("call", 8, ".2f"),
}


def _size(nbytes: int) -> str:
    return f"{nbytes >> 20} MiB" if nbytes >= 1 << 20 else f"{nbytes >> 10} KiB"


def thread_counts(most: int) -> list[int]:
    """1 to 8, then powers of two, and `most`."""
    powers = [1 << k for k in range(4, most.bit_length())]
    return sorted({n for n in (*range(1, 9), *powers, most) if n <= most})


def known(threads: int | None = None) -> Roofline | None:
    """The roofline that was measured earlier on this machine, None if none was."""
    store = cache()
    content = None if store is None else store.read(_entry(threads or executor().threads))
    return None if content is None else Roofline.from_json(content)


def roofline(threads: int | None = None, again: bool = False) -> Roofline:
    """What this machine can do with 1 to `threads` threads (default: as many as kernels use).

    Measured once and kept in the disk cache, unless it was disturbed; again: measured now.  That
    takes some seconds (longer while other programs use the CPUs, which makes it wait) and two
    arrays of 256 MiB.
    """
    most = threads or executor().threads
    found = None if again else known(most)
    if found is None:
        found = measure(thread_counts(most))
        store = cache()
        if store is not None and not found.disturbed:
            store.write(_entry(most), found.json().encode())
    return found


def _entry(threads: int) -> str:
    parts = (VERSION, METHOD, machine.brand(), *machine.processor(), threads)
    return f"roofline-{hashlib.sha256(repr(parts).encode()).hexdigest()}"


# -------------------------------------------------------------------------------------- measuring


def measure(counts: Iterable[int]) -> Roofline:
    """Measures now, for these numbers of threads.  Raises ValueError for more than can run."""
    counts, most = list(counts), max(executor().threads, usable_cpus())
    if max(counts) > most:
        raise ValueError(f"roofline: {max(counts)} threads cannot be measured, {most} can run")
    plain = _Measured(plain=True)
    rates = [(plain.rate("copy", count), plain.rate("stream", count)) for count in counts]
    disturbed = plain.disturbed
    del plain  # its arrays
    measured = _Measured()
    measured.disturbed = disturbed
    points = [measured.point(count, *rate) for count, rate in zip(counts, rates)]
    name = machine.instruction_set().name
    return Roofline(machine.brand(), name, points, measured.disturbed)


def _plain_bytes(nbytes: int) -> tuple[np.ndarray, int]:
    """Memory as `aligned_bytes`, on pages that nobody asked to be huge."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    array = np.frombuffer(mmap.mmap(-1, nbytes, **private), np.uint8)
    return array, array.__array_interface__["data"][0]


class _Measured:
    """The kernels, the memory that they move, and the clock; plain: see the module."""

    def __init__(self, plain: bool = False) -> None:
        isa = machine.instruction_set()
        widest = isa.vector_bits if plain else min(isa.vector_bits, COPY_BITS)
        lanes, moved = isa.vector_bits // 32, widest // 32
        texts = {"peak": _peak(lanes, isa.fma), "empty": EMPTY}
        for kind in ("copy", "stream"):
            for vectors in UNROLLED:
                texts[f"{kind}_{vectors}"] = _copy(moved, vectors, kind == "stream")
        names = {name: f"roofline_{name}" for name in texts}
        objects = [machine.object_code(text, names[name]) for name, text in texts.items()]
        self._code = machine.load(objects, list(names.values()))
        self.kernels = {name: self._code.addresses[names[name]] for name in texts}
        self.lanes, self.moved, self.parts = lanes, moved, 1 if plain else PARTS
        self.disturbed = False
        self.nbytes = _array_bytes()
        memory = _plain_bytes if plain else aligned_bytes
        self._held = [memory(self.nbytes) for _ in range(2)]
        self._status = np.zeros(8, np.int64)
        addresses = [start for _, start in self._held]
        self.table = np.array([self._status.ctypes.data, *addresses], np.int64)
        self.seconds(NativeProgram([[Launch(self.kernels["empty"], [], 1)]]), 1)  # loads the worker
        for array, _ in self._held:
            array.fill(1)  # page after page, so that they lie in order if they are small

    def point(self, threads: int, plain_memory: float, plain_stream: float) -> Point:
        sizes = [size for size in SIZES if size < self.nbytes]
        copies = [(size, self.copy(size, threads)) for size in sizes]
        memory = self.rate("copy", threads)
        return Point(
            threads,
            self.peak(threads),
            memory,
            self.rate("stream", threads),
            plain_memory,
            plain_stream,
            *self.launch(threads),
            [*copies, (2 * self.nbytes, memory)],
        )

    def seconds(self, program: NativeProgram, threads: int) -> float:
        """Of one run."""
        started = time.perf_counter()
        executor().run(program, self.table.ctypes.data, threads)
        return time.perf_counter() - started

    def best(self, program: NativeProgram, threads: int) -> float:
        """Seconds of the fastest of ROUNDS runs during which no other program took a CPU from us:
        that is, in which this process had as much CPU time as its threads could have.  There are
        no more rounds once a measurement was disturbed: no figure is kept then."""
        best, quiet = math.inf, 0
        for _ in range(ROUNDS if self.disturbed else MOST_ROUNDS):
            before = time.process_time()
            seconds = self.seconds(program, threads)
            quiet += time.process_time() - before > QUIET * threads * seconds
            best = min(best, seconds)
            if quiet == ROUNDS:
                break
        if not quiet and best > SHORT:
            self.disturbed = True
        return best

    def peak(self, threads: int) -> float:
        """GFLOP/s."""

        def program(steps: int, chunks: int = 1) -> NativeProgram:
            return NativeProgram([[Launch(self.kernels["peak"], [1, steps], chunks)]])

        steps = self.calibrated(program)
        operations = 2 * CHAINS * self.lanes * steps * threads
        return operations / self.best(program(steps, threads), threads) / 1e9

    def copying(
        self, kind: str, vectors: int, nbytes: int, repeats: int, chunks: int
    ) -> NativeProgram:
        """Copies `nbytes` of x to y, `repeats` times, so many vectors in an iteration."""
        args = [1, 2, nbytes // (vectors * self.moved * 4), repeats]
        return NativeProgram([[Launch(self.kernels[f"{kind}_{vectors}"], args, chunks)]])

    def copy(self, size: int, threads: int) -> float:
        """GB/s for x and y of `size` bytes together, each thread its own part again and again."""
        half = size // 2
        repeats = threads * self.calibrated(lambda n: self.copying("copy", 1, half, n, 1))
        return repeats * self.fastest("copy", half, repeats, threads, threads)

    def rate(self, kind: str, threads: int) -> float:
        """GB/s from memory."""
        return self.fastest(kind, self.nbytes, 1, self.parts * threads, threads)

    def fastest(self, kind: str, nbytes: int, repeats: int, chunks: int, threads: int) -> float:
        """GB/s of one repetition, in the form that is faster in three runs."""
        programs = [self.copying(kind, k, nbytes, repeats, chunks) for k in UNROLLED]
        runs = [min(self.seconds(p, threads) for _ in range(3)) for p in programs]
        return 2 * nbytes / self.best(programs[runs.index(min(runs))], threads) / 1e9

    def launch(self, threads: int) -> tuple[float, float]:
        """Microseconds of one more kernel, and of a call."""
        one = [Launch(self.kernels["empty"], [], threads)]
        call = self.best(NativeProgram([one]), threads)
        many = self.best(NativeProgram([one] * LAUNCHES), threads)
        return 1e6 * max(many - call, 0) / (LAUNCHES - 1), 1e6 * call

    def calibrated(self, program: Callable[[int], NativeProgram]) -> int:
        """How often to repeat what a program does for one thread to take SECONDS."""
        count = 16
        while (seconds := self.seconds(program(count), 1)) < SECONDS / 8:
            count *= 4
        return max(int(count * SECONDS / seconds), 1)


def _array_bytes() -> int:
    """Bytes of an array: an eighth of the machine's memory at most."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return ARRAY_BYTES
    return min(ARRAY_BYTES, max(LEAST_BYTES, installed // 8 >> 20 << 20))


# ----------------------------------------------------------------------------------- the kernels

SIGNATURE = "ptr %ret, ptr %exc, ptr %table, ptr %args, i64 %chunk, i64 %chunks, ptr %scratch"

EMPTY = f"define i32 @empty({SIGNATURE}) {{\n  ret i32 0\n}}\n"


def _load(names: Sequence[str]) -> str:
    """Lines that load the kernel's integers."""
    lines = []
    for k, name in enumerate(names):
        lines += [f"  %{name}.at = getelementptr i64, ptr %args, i64 {k}",
                  f"  %{name} = load i64, ptr %{name}.at"]  # fmt: skip
    return "\n".join(lines)


def _pointer(name: str, slot: str) -> str:
    return (f"  %{name}.in.table = getelementptr ptr, ptr %table, i64 %{slot}\n"
            f"  %{name} = load ptr, ptr %{name}.in.table")  # fmt: skip


def _splat(lanes: int, number: float) -> str:
    bits = np.float32(number).astype(np.float64).view(np.uint64)
    return f"<{', '.join([f'float 0x{int(bits):016X}'] * lanes)}>"


def _peak(lanes: int, fma: bool) -> str:
    """CHAINS accumulators, `steps` times a = a * 1.0000001 + 1e-9; what is left is stored."""
    vector = f"<{lanes} x float>"
    factor, addend = _splat(lanes, 1.0000001), _splat(lanes, 1e-9)
    phis, body = [], []
    for k in range(CHAINS):
        start = _splat(lanes, float(k))
        phis.append(f"  %a{k} = phi {vector} [ {start}, %entry ], [ %a{k}.next, %loop ]")
        if fma:
            body.append(f"  %a{k}.next = call {vector} @llvm.fma.v{lanes}f32("
                        f"{vector} %a{k}, {vector} {factor}, {vector} {addend})")  # fmt: skip
        else:
            body += [f"  %m{k} = fmul {vector} %a{k}, {factor}",
                     f"  %a{k}.next = fadd {vector} %m{k}, {addend}"]  # fmt: skip
    total = [f"  %s1 = fadd {vector} %a0.next, %a1.next"]
    total += [f"  %s{k} = fadd {vector} %s{k - 1}, %a{k}.next" for k in range(2, CHAINS)]
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define i32 @peak({SIGNATURE}) {{
entry:
{_load(["slot", "steps"])}
{_pointer("out", "slot")}
  br label %loop
loop:
  %step = phi i64 [ 0, %entry ], [ %step.next, %loop ]
{chr(10).join(phis)}
{chr(10).join(body)}
  %step.next = add i64 %step, 1
  %more = icmp ult i64 %step.next, %steps
  br i1 %more, label %loop, label %leave
leave:
{chr(10).join(total)}
  %place = getelementptr {vector}, ptr %out, i64 %chunk
  store {vector} %s{CHAINS - 1}, ptr %place, align 4
  ret i32 0
}}
"""


def _copy(lanes: int, vectors: int, stream: bool) -> str:
    """The chunk's part of y[i] = 1.5 x[i] + 1, or x[i] + 1 by streaming stores, again and again;
    an iteration moves so many vectors."""
    vector, align = f"<{lanes} x float>", 4 * lanes
    hint = ", !nontemporal !0" if stream else ""
    one, factor = _splat(lanes, 1.0), _splat(lanes, 1.5)
    body = []
    for k in range(vectors):
        scaled = f"%x{k}" if stream else f"%m{k}"
        body += [f"  %v{k} = add i64 %first.vector, {k}",
                 f"  %x{k}.at = getelementptr {vector}, ptr %x, i64 %v{k}",
                 f"  %x{k} = load {vector}, ptr %x{k}.at, align {align}",
                 *([] if stream else [f"  %m{k} = fmul {vector} %x{k}, {factor}"]),
                 f"  %y{k} = fadd {vector} {scaled}, {one}",
                 f"  %y{k}.at = getelementptr {vector}, ptr %y, i64 %v{k}",
                 f"  store {vector} %y{k}, ptr %y{k}.at, align {align}{hint}"]  # fmt: skip
    return f"""
define i32 @copy({SIGNATURE}) {{
entry:
{_load(["x.slot", "y.slot", "blocks", "repeats"])}
{_pointer("x", "x.slot")}
{_pointer("y", "y.slot")}
  %scaled = mul i64 %blocks, %chunk
  %first = udiv i64 %scaled, %chunks
  %chunk.next = add i64 %chunk, 1
  %scaled.next = mul i64 %blocks, %chunk.next
  %end = udiv i64 %scaled.next, %chunks
  %any = icmp ult i64 %first, %end
  br i1 %any, label %again, label %leave
again:
  %round = phi i64 [ 0, %entry ], [ %round.next, %done ]
  br label %loop
loop:
  %block = phi i64 [ %first, %again ], [ %block.next, %loop ]
  %first.vector = mul i64 %block, {vectors}
{chr(10).join(body)}
  %block.next = add i64 %block, 1
  %more = icmp ult i64 %block.next, %end
  br i1 %more, label %loop, label %done
done:
  %round.next = add i64 %round, 1
  %another = icmp ult i64 %round.next, %repeats
  br i1 %another, label %again, label %leave
leave:
  ret i32 0
}}
!0 = !{{i32 1}}
"""
