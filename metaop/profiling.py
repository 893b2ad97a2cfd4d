"""mo.profile: where the time of a program goes, kernel by kernel.

    with mo.profile() as p:
        for x, t in batches:
            step(x, t)
    print(p)                        # a table; p.kernels, p.json(), p.csv(), p.chrome_trace(path)

The time of a kernel is its part of the wall time of its phase (kernels of one phase run side by
side): from the first start of a chunk to the last end, shared out by the time that the threads
spent in each kernel's chunks.  So the times of all kernels add up to the time in which any ran.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import life, roofline
from .compiler.executor import executor
from .compiler.kernels import statistics
from .compiler.program import Bound, HostCall, KernelLaunch
from .compiler.recorder import RECORD, Recorder, Run
from .errors import Site, is_own
from .extent import evaluate

VERSION = 1
KEPT_BYTES = 64 << 20  # of records, for the trace; past it only sums are kept
DIGESTED_BYTES = 8 << 20  # of records that wait to be added up


@dataclass
class KernelProfile:
    """One kernel of one program: what it is, and what all its calls took.

    program: its number in the profile; operators: what was fused into it; lines: of the user's, as
    "file.py:12"; modules: their paths, as "Net.layers.0"; phase: forward, backward or optimizer,
    several joined by +; threads: the most that a run had; seconds: of all calls, see the module;
    busy: the part of its launches' time that threads spent in kernels; bytes, flops: of a call, as
    mo.explain counts them; share: of the roofline, the least time that the machine needs for a call
    (`roofline.Point.bound`) over the mean time, None if no roofline was measured;
    compile_seconds: 0 if it came from the disk cache.
    """

    name: str
    program: int
    operators: list[str]
    lines: list[str]
    modules: list[str]
    phase: str
    threads: int
    calls: int
    seconds: float
    min_seconds: float
    busy: float
    bytes: int
    flops: int
    compile_seconds: float
    share: float | None = None

    @property
    def mean_seconds(self) -> float:
        """Of one call."""
        return self.seconds / self.calls

    @property
    def gbytes_per_second(self) -> float:
        """Bytes over the mean time, in 10⁹ per second."""
        return self.bytes / self.mean_seconds / 1e9 if self.seconds else 0.0

    @property
    def gflops_per_second(self) -> float:
        """Operations over the mean time, in 10⁹ per second."""
        return self.flops / self.mean_seconds / 1e9 if self.seconds else 0.0

    def row(self) -> dict[str, Any]:
        """Every figure by name, as in JSON and CSV."""
        return {
            **asdict(self),
            "mean_seconds": self.mean_seconds,
            "gbytes_per_second": self.gbytes_per_second,
            "gflops_per_second": self.gflops_per_second,
        }


# What a table may be sorted by, the largest first; "order" is that of the program.
SORT_KEYS = {
    "time": lambda k: -k.seconds,
    "mean": lambda k: -k.mean_seconds,
    "min": lambda k: -k.min_seconds,
    "calls": lambda k: -k.calls,
    "bytes": lambda k: -k.bytes,
    "flops": lambda k: -k.flops,
    "gbytes": lambda k: -k.gbytes_per_second,
    "gflops": lambda k: -k.gflops_per_second,
    "share": lambda k: -(k.share or 0.0),
    "compile": lambda k: -k.compile_seconds,
    "order": lambda k: 0,
}


@dataclass
class Totals:
    """Where the wall time went, in seconds.

    kernels: while any kernel ran; launches: inside native calls otherwise (entering, waiting at the
    end of phases); callbacks: host callbacks; compiling: making programs; python: CPU time of the
    thread that profiles outside of these; other: the rest, in which this thread waited.
    """

    wall: float = 0.0
    kernels: float = 0.0
    launches: float = 0.0
    callbacks: float = 0.0
    compiling: float = 0.0
    python: float = 0.0
    other: float = 0.0


@dataclass
class _Sums:
    """Sums over the runs of one segment, per launch, in ticks."""

    runs: int
    threads: int
    ticks: Any
    least: Any
    spent: Any  # by all threads in the phase
    held: Any  # threads times the phase's time


@functools.cache
def _recorder_code() -> Any:
    """The recording worker, compiled once per process."""
    return Recorder.compiled()


class profile:  # noqa: N801 - read as a word in a with statement
    """Records what runs inside a with block, by any Python thread.

    What is pending before is computed first, what is pending at the end is computed as its last
    part; so all that was recorded inside is measured, and nothing else.  One profile at a time.
    """

    def __init__(self) -> None:
        self.kernels: list[KernelProfile] = []
        self.totals = Totals()
        self.programs = self.arena_bytes = self.threads = 0
        self.roofline: roofline.Point | None = None
        self._recorder: Recorder | None = None
        self._sums: dict[tuple[int, int], _Sums] = {}
        self._host_calls: dict[tuple[int, int], list[float]] = {}
        self._trace: list[Run] = []
        self._trace_bytes = 0

    # -- recording ------------------------------------------------------------------------------

    def __enter__(self) -> profile:
        runner = executor()
        if runner.recorder is not None:
            raise RuntimeError("profile: another profile is being taken")
        life.sync()
        self.__init__()  # type: ignore[misc]
        self._recorder = Recorder(_recorder_code(), DIGESTED_BYTES, self._digest)
        self._compiled = statistics.program_seconds, statistics.program_cpu
        self._start_clock = self._clock()
        self._cpu = time.thread_time()
        self._start = time.perf_counter()
        runner.recorder = self._recorder
        return self

    def __exit__(self, *exception: Any) -> None:
        runner, recorder = executor(), self._recorder
        assert recorder is not None
        try:
            if exception[0] is None:
                life.sync()
        finally:
            self.totals.wall = time.perf_counter() - self._start
            cpu = time.thread_time() - self._cpu
            with runner.lock:
                runner.recorder = None
            (ticks, now), (first_ticks, then) = self._clock(), self._start_clock
            self._seconds_per_tick = (now - then) / max(ticks - first_ticks, 1)
            self._first_tick = first_ticks
            self._digest()
            self._finish(runner.threads, cpu)

    def _clock(self) -> tuple[int, float]:
        """Ticks and seconds at the same moment: of several tries the quickest."""
        assert self._recorder is not None
        tries = []
        for _ in range(5):
            before = time.perf_counter()
            ticks = self._recorder.ticks()
            after = time.perf_counter()
            tries.append((after - before, ticks, (before + after) / 2))
        return min(tries)[1:]

    # -- from records to sums -------------------------------------------------------------------

    def _digest(self) -> None:
        """Adds up the runs that wait; keeps their records for the trace, while there is room."""
        assert self._recorder is not None
        for run in self._recorder.take():
            if not run.threads:
                self._host_calls.setdefault((run.use, run.segment), []).append(run.end - run.start)
            else:
                self._add(run)
                self.totals.launches += run.end - run.start
            if self._trace_bytes + len(run.records) <= KEPT_BYTES:
                self._trace.append(run)
                self._trace_bytes += len(run.records) + 100

    def _add(self, run: Run) -> None:
        launches = self._launches(run)
        records = _records(run, len(launches))
        phases = self._phase_starts(run)
        ran = records[:, :, 3] > 0
        first = np.where(ran, records[:, :, 0], np.iinfo(np.int64).max).min(0)
        last = np.where(ran, records[:, :, 1], 0).max(0)
        spent = records[:, :, 2].sum(0).astype(float)
        wall = np.maximum.reduceat(last, phases) - np.minimum.reduceat(first, phases)
        together = np.add.reduceat(spent, phases)
        sizes = np.diff([*phases, len(launches)])
        wall, together = np.repeat(wall, sizes).astype(float), np.repeat(together, sizes)
        ticks = np.where(together > 0, wall * spent / np.maximum(together, 1), 0)
        sums = self._sums.get((run.use, run.segment))
        if sums is None:
            zero = np.zeros(len(launches))
            sums = _Sums(0, 0, zero, zero + np.inf, zero, zero)
            self._sums[run.use, run.segment] = sums
        sums.runs, sums.threads = sums.runs + 1, max(sums.threads, run.threads)
        sums.ticks, sums.least = sums.ticks + ticks, np.minimum(sums.least, ticks)
        sums.spent, sums.held = sums.spent + together, sums.held + run.threads * wall

    def _program(self, use: int) -> Bound:
        assert self._recorder is not None
        return self._recorder.uses[use].program

    def _phases(self, run: Run) -> list[list[KernelLaunch]]:
        segment = self._program(run.use).program.segments[run.segment]
        assert not isinstance(segment, HostCall)
        return segment

    def _launches(self, run: Run) -> list[KernelLaunch]:
        return [launch for phase in self._phases(run) for launch in phase]

    def _phase_starts(self, run: Run) -> list[int]:
        """The number of the first launch of each phase."""
        starts, count = [], 0
        for phase in self._phases(run):
            starts.append(count)
            count += len(phase)
        return starts

    # -- from sums to results -------------------------------------------------------------------

    def _finish(self, threads: int, cpu: float) -> None:
        assert self._recorder is not None
        known = roofline.known(threads)
        self.roofline = None if known is None else known.at(threads)
        self.threads = threads
        uses = self._recorder.uses
        self.programs = len({id(use.program) for use in uses})
        self.arena_bytes = max((use.program.arena_bytes for use in uses), default=0)
        self.kernels = [k for key, sums in sorted(self._sums.items()) for k in self._of(key, sums)]
        self.kernels += [self._callback(*item) for item in sorted(self._host_calls.items())]
        totals = self.totals
        totals.kernels = sum(k.seconds for k in self.kernels if k.phase != "callback")
        totals.launches -= totals.kernels
        totals.callbacks = sum(map(sum, self._host_calls.values()))
        totals.compiling = statistics.program_seconds - self._compiled[0]
        compiling = statistics.program_cpu - self._compiled[1]
        totals.python = cpu - self._recorder.own_cpu - compiling
        known_parts = (totals.kernels, totals.launches, totals.callbacks, totals.compiling,
                       totals.python)  # fmt: skip
        totals.other = totals.wall - sum(known_parts)

    def _of(self, key: tuple[int, int], sums: _Sums) -> Iterator[KernelProfile]:
        """The kernels of a segment."""
        assert self._recorder is not None
        use, segment = key
        bound = self._program(use)
        before = [s for s in bound.program.segments[:segment] if not isinstance(s, HostCall)]
        first = sum(len(phase) for s in before for phase in s)
        run = Run(use, segment, sums.threads, 0.0, 0.0, b"")
        for k, launch in enumerate(self._launches(run)):
            seconds = float(sums.ticks[k]) * self._seconds_per_tick
            work = launch.work
            made = KernelProfile(
                work.name, use, work.operators, *self._origins(use, first + k), work.phase,
                sums.threads, sums.runs, seconds, float(sums.least[k]) * self._seconds_per_tick,
                float(sums.spent[k] / sums.held[k]) if sums.held[k] else 0.0,
                evaluate(work.nbytes, bound.sizes), evaluate(work.flops, bound.sizes),
                launch.code.compile_seconds,
            )  # fmt: skip
            if self.roofline is not None and seconds:
                made.share = self.roofline.bound(made.flops, made.bytes) / made.mean_seconds
            yield made

    def _origins(self, use: int, launch: int) -> tuple[list[str], list[str]]:
        """The user's lines (metaop's own if there are none), and the modules."""
        assert self._recorder is not None
        return self._lines_and_modules(self._recorder.uses[use].origins[launch])

    @staticmethod
    def _lines_and_modules(origins: Sequence[tuple[Site, str]]) -> tuple[list[str], list[str]]:
        sites = [site for site, _ in origins]
        lines = [str(s) for s in sites if not is_own(s.filename)] or [
            str(s) for s in sites if not s.filename.startswith("<")
        ]
        modules = [path for _, path in origins if path]
        return list(dict.fromkeys(lines)), list(dict.fromkeys(modules))

    def _callback(self, key: tuple[int, int], seconds: list[float]) -> KernelProfile:
        assert self._recorder is not None
        use, segment = key
        call = self._program(use).program.segments[segment]
        assert isinstance(call, HostCall)
        origin = self._recorder.uses[use].calls.get(segment)
        lines, modules = self._lines_and_modules([origin] if origin else [])
        return KernelProfile("callback", use, [call.name], lines, modules, "callback", 1,
                             len(seconds), sum(seconds), min(seconds), 1.0, 0, 0, 0.0)  # fmt: skip

    # -- looking at it --------------------------------------------------------------------------

    def sorted(self, sort: str = "time") -> list[KernelProfile]:
        """The kernels by one of SORT_KEYS."""
        if sort not in SORT_KEYS:
            raise ValueError(f"profile: sort is one of {', '.join(SORT_KEYS)}, not {sort!r}")
        return sorted(self.kernels, key=SORT_KEYS[sort])

    def table(self, sort: str = "time", rows: int | None = None) -> str:
        """The kernels as text, a line each (the first `rows`), and where the wall time went."""
        kernels = self.sorted(sort)
        shown = kernels if rows is None else kernels[:rows]
        lines = [HEAD, *(self._row(kernel) for kernel in shown)]
        if len(shown) < len(kernels):
            rest = sum(k.seconds for k in kernels[len(shown) :])
            lines.append(f"{1e3 * rest:9.3f}  {100 * rest / self._kernel_time:5.1f}  "
                         f"{len(kernels) - len(shown)} more kernels")  # fmt: skip
        return "\n".join([*lines, "", self.summary()])

    @property
    def _kernel_time(self) -> float:
        return sum(k.seconds for k in self.kernels) or 1.0

    def _row(self, k: KernelProfile) -> str:
        share = "" if k.share is None else f"{100 * k.share:.0f}%"
        name = k.name if self.programs == 1 else f"p{k.program}.{k.name}"
        phase = {"forward": "", "callback": ""}.get(k.phase, f"{k.phase} ")
        where = _first(k.lines) + (f" ({_first(k.modules)})" if k.modules else "")
        return (
            f"{1e3 * k.seconds:9.3f}  {100 * k.seconds / self._kernel_time:5.1f}  {k.calls:5}  "
            f"{1e6 * k.mean_seconds:9.1f}  {1e6 * k.min_seconds:9.1f}  {k.bytes / 1e6:8.2f}  "
            f"{k.flops / 1e6:8.2f}  {k.gbytes_per_second:6.1f}  {k.gflops_per_second:7.1f}  "
            f"{share:>5}  {name:8} {phase}{_few(k.operators)}  {where}"
        ).rstrip()

    def summary(self) -> str:
        """Where the wall time went, in three lines."""
        t = self.totals
        parts = {
            "kernels": t.kernels, "launching them": t.launches, "Python": t.python,
            "compiling": t.compiling, "callbacks": t.callbacks, "waiting": t.other,
        }  # fmt: skip
        shown = {name: s for name, s in parts.items() if abs(s) >= 0.0005 * t.wall}
        wall = t.wall or 1.0
        text = ", ".join(f"{n} {1e3 * s:.3f} ({100 * s / wall:.1f}%)" for n, s in shown.items())
        machine = self.roofline
        bound = (
            "no roofline is measured: `metaop roofline` does it"
            if machine is None
            else f"roofline: {machine.peak:.0f} GFLOP/s, {machine.memory:.0f} GB/s from memory, "
            f"{max(rate for _, rate in machine.copy):.0f} GB/s from the caches"
        )
        return (
            f"wall {1e3 * t.wall:.3f} ms: {text}\n"
            f"programs {self.programs}, threads {self.threads}, arena {self.arena_bytes:,} bytes\n"
            f"{bound}"
        )

    def __repr__(self) -> str:
        return self.table()

    def by_kernel(self) -> dict[str, dict[str, float]]:
        """Mean seconds and share of the roofline by name of kernel, which `mo.dump` shades its page
        by; of one program."""
        return {
            k.name: {"seconds": k.mean_seconds} | ({} if k.share is None else {"roofline": k.share})
            for k in self.kernels
            if k.phase != "callback"
        }

    def json(self) -> str:
        """As JSON; docs/inspect.md has the schema."""
        return json.dumps(
            {
                "version": VERSION,
                "threads": self.threads,
                "programs": self.programs,
                "arena_bytes": self.arena_bytes,
                "seconds": asdict(self.totals),
                "roofline": None if self.roofline is None else asdict(self.roofline),
                "kernels": [k.row() for k in self.sorted()],
            },
            indent=1,
        ) + "\n"  # fmt: skip

    def csv(self, sort: str = "time") -> str:
        """A line for each kernel; operators, lines and modules are joined by spaces."""
        rows = [k.row() for k in self.sorted(sort)]
        out = io.StringIO()
        names = list(KernelProfile.__dataclass_fields__) + COMPUTED
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            row |= {name: " ".join(row[name]) for name in ("operators", "lines", "modules")}
            writer.writerow(row)
        return out.getvalue()

    def chrome_trace(self, file: str | os.PathLike[str] | None = None) -> str:
        """The runs on a time line, as chrome://tracing and ui.perfetto.dev read it; also written to
        `file` if given.

        A row for each thread of the pool, and one for the calls from Python.  Of long profiles the
        first 64 MiB of records.
        """
        text = json.dumps({
            "displayTimeUnit": "ms",
            "otherData": {"version": VERSION},
            "traceEvents": list(self._events()),
        })  # fmt: skip
        if file is not None:
            with open(file, "w", encoding="utf-8") as out:
                out.write(text)
        return text

    def _events(self) -> Iterator[dict[str, Any]]:
        yield _named("process_name", 0, "metaop")
        yield _named("thread_name", 0, "calls from Python")
        for thread in range(max((run.threads for run in self._trace), default=0)):
            yield _named("thread_name", thread + 1, f"thread {thread}")
        for run in self._trace:
            name = f"program {run.use}" if run.threads else "callback"
            start = run.start - self._start
            yield _event(name, 0, start, run.end - run.start, {"segment": run.segment})
            if run.threads:
                yield from self._kernel_events(run)

    def _kernel_events(self, run: Run) -> Iterator[dict[str, Any]]:
        launches = self._launches(run)
        records = _records(run, len(launches))
        offset = self._start_clock[1] - self._start
        for thread, launch in zip(*np.nonzero(records[:, :, 3])):
            first, last, spent, calls = map(int, records[thread, launch])
            start = (first - self._first_tick) * self._seconds_per_tick + offset
            work = launches[launch].work
            yield _event(
                f"{work.name} {_few(work.operators)}", int(thread) + 1, start,
                (last - first) * self._seconds_per_tick,
                {"chunks": calls, "us_in_chunks": 1e6 * spent * self._seconds_per_tick},
            )  # fmt: skip


HEAD = (
    " total ms      %  calls    mean us     min us        MB     MFLOP    GB/s  GFLOP/s   roof  "
    "kernel   what it does, for which lines (and modules)"
)
COMPUTED = ["mean_seconds", "gbytes_per_second", "gflops_per_second"]


def _records(run: Run, launches: int) -> np.ndarray:
    """int64[threads, launches, RECORD]."""
    rows = np.frombuffer(run.records, np.int64).reshape(run.threads, -1)
    return rows[:, : launches * RECORD].reshape(run.threads, launches, RECORD)


def _few(operators: list[str]) -> str:
    """The last few operators, those that are no mere indexing first."""
    told = [o for o in operators if o not in ("reindex", "copy", "cast")] or operators
    told = [o.replace("reindex_reduce.", "sum." if o.endswith(".add") else "reduce.") for o in told]
    told = ["sum" if o == "sum.add" else o for o in told]
    return " ".join(told[-4:]) if len(told) <= 4 else f"… {' '.join(told[-4:])}"


def _first(names: list[str]) -> str:
    """The first two, and how many more there are."""
    return ", ".join(names[:2]) + (f", +{len(names) - 2}" if len(names) > 2 else "")


def _named(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}}


def _event(
    name: str, thread: int, start: float, seconds: float, args: dict[str, Any]
) -> dict[str, Any]:
    """A complete event; the times of the format are microseconds."""
    return {
        "name": name, "ph": "X", "pid": 1, "tid": thread, "ts": 1e6 * start, "dur": 1e6 * seconds,
        "args": args,
    }  # fmt: skip
