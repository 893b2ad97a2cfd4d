"""The executor: order, completeness and errors of a run, on every threading layer.

`PYTHONPATH=. python tests/compiler/test_executor.py` prints what a launch costs on each of them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from metaop.compiler import threading_layer
from metaop.compiler.executor import (
    KERNEL_RAISED,
    Executor,
    Launch,
    NativeProgram,
    executor,
    worker_assembly,
)
from metaop.compiler.signals import uninterrupted

REPOSITORY = Path(__file__).resolve().parents[2]
LAYERS = ("omp", "tbb", "workqueue", "alone")

# Each kernel reads its buffers' slots in the table from its args.
KERNELS = """
; y[i] = 2 x[i] for the chunk's share of i < n; args: x, y, n
define i32 @double(ptr %ret, ptr %exc, ptr %table, ptr %args, i64 %chunk, i64 %chunks) {
entry:
  %x.slot = load i64, ptr %args
  %args.1 = getelementptr i64, ptr %args, i64 1
  %y.slot = load i64, ptr %args.1
  %args.2 = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %args.2
  %x.at = getelementptr ptr, ptr %table, i64 %x.slot
  %y.at = getelementptr ptr, ptr %table, i64 %y.slot
  %x = load ptr, ptr %x.at
  %y = load ptr, ptr %y.at
  %scaled = mul i64 %n, %chunk
  %first = sdiv i64 %scaled, %chunks
  %chunk.next = add i64 %chunk, 1
  %scaled.next = mul i64 %n, %chunk.next
  %end = sdiv i64 %scaled.next, %chunks
  br label %head
head:
  %i = phi i64 [ %first, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %leave
body:
  %x.i = getelementptr float, ptr %x, i64 %i
  %y.i = getelementptr float, ptr %y, i64 %i
  %value = load float, ptr %x.i
  %doubled = fmul float %value, 2.0
  store float %doubled, ptr %y.i
  %i.next = add nsw i64 %i, 1
  br label %head
leave:
  ret i32 0
}

; counts[first + chunk] += 1, atomically; args: counts, first
define i32 @visit(ptr %ret, ptr %exc, ptr %table, ptr %args, i64 %chunk, i64 %chunks) {
  %slot = load i64, ptr %args
  %args.1 = getelementptr i64, ptr %args, i64 1
  %first = load i64, ptr %args.1
  %at = getelementptr ptr, ptr %table, i64 %slot
  %counts = load ptr, ptr %at
  %index = add i64 %first, %chunk
  %count = getelementptr i64, ptr %counts, i64 %index
  %before = atomicrmw add ptr %count, i64 1 monotonic
  ret i32 0
}

; status[0] = code if it is 0; args: code
define i32 @report(ptr %ret, ptr %exc, ptr %table, ptr %args, i64 %chunk, i64 %chunks) {
  %status = load ptr, ptr %table
  %code = load i64, ptr %args
  %exchange = cmpxchg ptr %status, i64 0, i64 %code monotonic monotonic
  ret i32 0
}

; returns args[0], and touches the places Numba's kernels touch
define i32 @raise(ptr %ret, ptr %exc, ptr %table, ptr %args, i64 %chunk, i64 %chunks) {
  store ptr null, ptr %ret
  store ptr null, ptr %exc
  %code = load i64, ptr %args
  %code.32 = trunc i64 %code to i32
  ret i32 %code.32
}
"""


class Kernels:
    """The kernels above as machine code: `kernels.double` is an address."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            opt=1, reloc="pic", codemodel="jitdefault", jit=True
        )
        object_code = machine.emit_object(llvm.parse_assembly(KERNELS))
        builder = llvm.JITLibraryBuilder().add_object_img(object_code)
        for name in ("double", "visit", "report", "raise"):
            builder.export_symbol(name)
        self.compiler = llvm.create_lljit_compiler(machine)
        self.library = builder.link(self.compiler, "test_kernels")
        self.double: int = self.library["double"]
        self.visit: int = self.library["visit"]
        self.report: int = self.library["report"]
        self.raises: int = self.library["raise"]


class Table:
    """The status word and some arrays, as a run's buffer table; array k is in slot k + 1."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self.status = np.zeros(8, np.int64)
        self.arrays = arrays
        self.addresses = np.array(
            [self.status.ctypes.data, *(array.ctypes.data for array in arrays)], np.int64
        )
        self.address: int = self.addresses.ctypes.data


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels()


@pytest.fixture(params=(1, 2, 3))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = executor().threads
    executor().threads = request.param
    yield request.param
    executor().threads = before


def doubling_chain(kernel: int, length: int, size: int, chunks: int) -> NativeProgram:
    """`length` phases that double an array back and forth between slots 1 and 2."""
    return NativeProgram(
        [[Launch(kernel, (1 + k % 2, 2 - k % 2, size), chunks)] for k in range(length)]
    )


def run_doubling_chain(kernels: Kernels, length: int = 20, size: int = 1000) -> bool:
    """Whether a chain of doublings gives powers of two everywhere."""
    table = Table(np.ones(size, np.float32), np.zeros(size, np.float32))
    program = doubling_chain(kernels.double, length, size, 7)
    executor().run(program, table.address)
    return bool((table.arrays[length % 2] == 2.0**length).all())


# -- order and completeness --------------------------------------------------------------------


def test_a_phase_sees_all_that_the_phase_before_wrote(kernels: Kernels, threads: int) -> None:
    size = 1001
    start = np.arange(size, dtype=np.float32)
    for chunks in (1, 2, 5, 64):
        table = Table(start.copy(), np.zeros(size, np.float32))
        executor().run(doubling_chain(kernels.double, 16, size, chunks), table.address)
        np.testing.assert_array_equal(table.arrays[0], start * 2.0**16)


def test_a_program_runs_again_with_another_table(kernels: Kernels, threads: int) -> None:
    program = doubling_chain(kernels.double, 3, 10, 2)
    for value in (1.0, 5.0, -3.0):
        table = Table(np.full(10, value, np.float32), np.zeros(10, np.float32))
        program.run(table.address, threads)
        assert (table.arrays[1] == 8 * value).all()


def test_each_chunk_of_each_launch_runs_once(kernels: Kernels, threads: int) -> None:
    sizes = [3, 1, 1000, 0, 2, 17, 0, 64]
    firsts = [sum(sizes[:k]) for k in range(len(sizes))]
    launches = [
        Launch(kernels.visit, (1, first), size) for first, size in zip(firsts, sizes, strict=True)
    ]
    program = NativeProgram([launches, [], launches[::-1], launches[3:4]])
    table = Table(np.zeros(sum(sizes), np.int64))
    runs = 5
    for _ in range(runs):
        executor().run(program, table.address)
    assert (table.arrays[0] == 2 * runs).all()


def test_a_program_without_work_returns(threads: int) -> None:
    executor().run(NativeProgram([]), 0)
    executor().run(NativeProgram([[], []]), 0)


def test_many_short_runs_end(kernels: Kernels, threads: int) -> None:
    table = Table(np.zeros(2, np.int64))
    program = NativeProgram([[Launch(kernels.visit, (1, 0), 2)]] * 3)
    for _ in range(2000):
        executor().run(program, table.address)
    assert table.arrays[0].tolist() == [6000, 6000]


def test_launches_are_counted(kernels: Kernels) -> None:
    table = Table(np.zeros(4, np.int64))
    program = NativeProgram(
        [[Launch(kernels.visit, (1, 0), 4)] * 2, [Launch(kernels.visit, (1, 0), 1)]]
    )
    before = executor().launch_count
    executor().run(program, table.address)
    assert program.launches == 3
    assert executor().launch_count == before + 3


# -- errors ------------------------------------------------------------------------------------


def test_an_error_stops_the_phases_after_it(kernels: Kernels, threads: int) -> None:
    visit = [Launch(kernels.visit, (1, 0), 4)]
    program = NativeProgram([visit, [Launch(kernels.report, (7,), 3)], visit, visit])
    table = Table(np.zeros(4, np.int64))
    executor().run(program, table.address)
    assert table.status[0] == 7
    assert table.arrays[0].tolist() == [1, 1, 1, 1]
    table.status[0] = 0
    executor().run(program, table.address)
    assert table.arrays[0].tolist() == [2, 2, 2, 2]


def test_nothing_runs_while_the_status_is_set(kernels: Kernels, threads: int) -> None:
    table = Table(np.zeros(4, np.int64))
    table.status[0] = 3
    executor().run(NativeProgram([[Launch(kernels.visit, (1, 0), 4)]]), table.address)
    assert not table.arrays[0].any()


@pytest.mark.parametrize("code", [-1, 1, 5])
def test_an_exception_code_names_the_launch(kernels: Kernels, code: int) -> None:
    visit = Launch(kernels.visit, (1, 0), 4)
    program = NativeProgram([[visit, visit], [visit, Launch(kernels.raises, (code,), 4)], [visit]])
    table = Table(np.zeros(4, np.int64))
    executor().run(program, table.address)
    assert table.status[:2].tolist() == [KERNEL_RAISED, 3]
    assert table.arrays[0].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("code", [0, -2])
def test_success_codes_report_nothing(kernels: Kernels, code: int) -> None:
    table = Table()
    executor().run(NativeProgram([[Launch(kernels.raises, (code,), 4)]]), table.address)
    assert not table.status.any()


# -- threads and layers ------------------------------------------------------------------------


def test_four_python_threads_at_once(kernels: Kernels) -> None:
    right: list[bool] = []

    def work() -> None:
        right.extend(run_doubling_chain(kernels) for _ in range(50))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert right == [True] * 200


PARALLEL_FOR = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, *[ctypes.c_size_t] * 2, ctypes.c_int)
WORKER = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)
GET_THREADS = ctypes.CFUNCTYPE(ctypes.c_int)
SET_THREADS = ctypes.CFUNCTYPE(None, ctypes.c_int)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_thread_that_comes_late_or_never_is_not_waited_for(kernels: Kernels, calls: int) -> None:
    """The pool is one thread that runs the worker `calls` times, where three threads were asked."""

    def parallel_for(function: int, args: int, dims: int, steps: int, data: int, *_: int) -> None:
        for _call in range(calls):
            WORKER(function)(args, dims, steps, data)

    kept: list[int] = []
    entries = PARALLEL_FOR(parallel_for), GET_THREADS(lambda: 6), SET_THREADS(kept.append)
    addresses = [ctypes.cast(entry, ctypes.c_void_p).value or 0 for entry in entries]
    one = Executor()
    one._layer = threading_layer.ThreadingLayer("stub", 3)
    one._pool[:3] = addresses
    table = Table(np.zeros(10, np.int64))
    launches = [Launch(kernels.visit, (1, 0), 3), Launch(kernels.visit, (1, 3), 7)]
    one.run(NativeProgram([launches, launches[:1], [], launches]), table.address, 3)
    assert table.arrays[0].tolist() == [3] * 3 + [2] * 7
    assert kept == [6], "Numba's own thread count is as it was"


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", True, None, 10**6])
def test_a_bad_number_of_threads_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match=r"the number of threads must be a whole number from 1"):
        executor().threads = count  # type: ignore[assignment]


@pytest.mark.parametrize("text", ["0", "many", "-2", "1.5", "99999"])
def test_a_bad_variable_for_threads_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAOP_THREADS", text)
    with pytest.raises(ValueError, match=f"METAOP_THREADS must be a whole number .* is .*{text}"):
        threading_layer.default_threads()


def test_the_variable_for_threads_overrides_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAOP_THREADS", "5")
    assert threading_layer.default_threads() == 5
    monkeypatch.setenv("METAOP_THREADS", "")
    assert threading_layer.default_threads() == threading_layer.usable_cpus()


def test_an_unknown_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAOP_THREADING_LAYER", "threads")
    with pytest.raises(ValueError, match="METAOP_THREADING_LAYER must be one of omp, tbb"):
        Executor()


def test_the_first_layer_that_loads_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, threads: int) -> threading_layer.ThreadingLayer:
        if name != "workqueue":
            raise threading_layer.LayerError("libgomp.so.1: not found")
        return threading_layer.ThreadingLayer(name, capacity=threads)

    monkeypatch.setattr(threading_layer, "_load", load)
    assert threading_layer.start_layer("auto", 2).name == "workqueue"
    with pytest.raises(ValueError, match=r"METAOP_THREADING_LAYER=tbb: .*libgomp.so.1: not found"):
        threading_layer.start_layer("tbb", 2)


def test_without_numba_the_calling_thread_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading_layer.importlib.util, "find_spec", lambda name: None)
    for module in threading_layer.MODULES.values():
        monkeypatch.delitem(sys.modules, f"numba.np.ufunc.{module}", raising=False)
    assert threading_layer.start_layer("auto", 2) is threading_layer.ALONE


@pytest.mark.parametrize(
    ("files", "membership", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "300000 100000"}, "0::/not/mounted/here\n", 3.0),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "4:memory:/x\n2:cpu,cpuacct:/docker/1\n0::/\n",
            2.0,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "2:cpu:/\n", None),
        ({}, "", None),
    ],
)
def test_the_cgroup_quota_is_the_smallest_on_the_way_up(
    tmp_path: Path, files: dict[str, str], membership: str, cpus: float | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert (
        threading_layer.cgroup_quota(str(tmp_path / "root"), str(tmp_path / "membership")) == cpus
    )


def test_a_quota_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading_layer, "cgroup_quota", lambda: 0.3)
    assert threading_layer.usable_cpus() == 1


@pytest.mark.parametrize(
    "triple",
    ["x86_64-unknown-linux-gnu", "arm64-apple-darwin23", "aarch64-linux-gnu", "riscv64-linux"],
)
def test_the_worker_is_valid_for_every_processor(triple: str) -> None:
    llvm.parse_assembly(worker_assembly(triple)).verify()


def run_script(script: str, **variables: str) -> str:
    """What the script prints in a process of its own, in which this file is `tests`."""
    prelude = f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(Path(__file__).parent)!r}]\n"
    environment = {key: value for key, value in os.environ.items() if key != "METAOP_THREADS"}
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            prelude + "import test_executor as tests\n" + script,
        ],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


LAYER_SCRIPT = """
from metaop.compiler.threading_layer import LayerError, _load, ALONE
layer = tests.executor()._wanted_layer
try:
    _load(layer, 2) if layer != "alone" else ALONE
except LayerError as reason:
    print("skip", reason)
    raise SystemExit
kernels = tests.Kernels()
right = []
for count in (2, 1, 3, 2):
    tests.executor().threads = count
    right.append(all(tests.run_doubling_chain(kernels) for _ in range(20)))
tests.test_four_python_threads_at_once(kernels)
FORK
print(tests.executor().layer, all(right), "numba" in sys.modules)
"""

FORK_SCRIPT = """
import os
child = os.fork()
if child == 0:
    right = tests.run_doubling_chain(kernels) and tests.executor().layer == "alone"
    os._exit(0 if right and tests.executor().threads == 1 else 3)
right.append(os.waitpid(child, 0)[1] == 0)
right.append(tests.run_doubling_chain(kernels))
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_layer(layer: str) -> None:
    """Each layer, with 1 to 3 threads, from four Python threads, and around a fork."""
    fork = FORK_SCRIPT if hasattr(os, "fork") else ""
    printed = run_script(LAYER_SCRIPT.replace("FORK", fork), METAOP_THREADING_LAYER=layer)
    if printed.startswith("skip"):
        pytest.skip(printed.removeprefix("skip "))
    assert printed == f"{layer} True False"


# -- signals -----------------------------------------------------------------------------------


def interrupt() -> None:
    """Ctrl-C, as Python sees it."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_end_of_the_body() -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            with uninterrupted():
                interrupt()
                steps.append("inner")
            steps.append("outer")
        steps.append("after")
    assert steps == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_the_body_passes_and_the_handler_returns() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_handler_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [before]


# -- cost --------------------------------------------------------------------------------------


def launch_cost(threads: int, launches: int = 200, size: int = 1000, chunks: int = 2) -> float:
    """Microseconds per kernel, its work on `size` floats included: the median of 200 runs."""
    kernels = Kernels()
    table = Table(np.ones(size, np.float32), np.zeros(size, np.float32))
    program = doubling_chain(kernels.double, launches, size, chunks)
    seconds = []
    for _ in range(220):
        start = time.perf_counter()
        executor().run(program, table.address, threads)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[20:]) / launches * 1e6


def report_launch_costs() -> None:
    """Print the launch cost and the cost of a whole small run for each layer."""
    cases = [(200, 1000, 2), (200, 10, 2), (200, 1000, 32), (1, 10, 2)]
    for layer in LAYERS:
        costs = "*(f'{tests.launch_cost(n, *case):.2f}' for n in (1, 2, 3))"
        script = f"for case in {cases}: print(case, {costs})"
        print(f"{layer}: (launches, floats, chunks) us per kernel with 1, 2, 3 threads")
        print(run_script(script, METAOP_THREADING_LAYER=layer))


if __name__ == "__main__":
    report_launch_costs()
