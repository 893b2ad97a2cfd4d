"""Both printers print one scheduled object: whatever is changed in it changes both results, and
they still agree; and the printed Python of a whole training step gives the machine's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler import program as program_module
from metaop.compiler import programs
from metaop.compiler.emit_python import emit_python
from metaop.compiler.loops import (
    Const,
    For,
    Init,
    Kernel,
    Let,
    Load,
    Op,
    Store,
    Update,
    Value,
    statements,
    verify,
)
from metaop.compiler.nest import Tree
from metaop.compiler.program import KernelLaunch
from metaop.compiler.schedule import Scheduled
from metaop.extent import evaluate
from tests.compiler.stages import input_values, only, run_machine, run_printed, scheduled
from tests.golden import assert_golden

RELATIVE, ABSOLUTE = 1e-5, 1e-6


def f32(*shape: int) -> mo.Var:
    count = int(np.prod(shape))
    return mo.array((np.arange(count, dtype=np.float32) % 13 - 6).reshape(shape) / 4)


# --- one change, both results ---------------------------------------------------------------------


def both(made: Scheduled, inputs: list[np.ndarray]) -> np.ndarray:
    """What the kernel writes, by machine code and by printed Python, which agree."""
    arrays = {b: np.ravel(inputs[b.position]) for b in made.buffers if b.role == "in"}
    results = []
    for run in (run_machine, run_printed):
        out = {b: np.full(b.size, 77, b.dtype.storage) for b in made.buffers if b not in arrays}
        memory = [arrays[b] if b in arrays else out[b] for b in made.buffers]
        run(made.kernel, memory, list(made.integers.values()), made.chunks)
        results.append(only(list(out.values())))
    np.testing.assert_allclose(results[0], results[1], rtol=RELATIVE, atol=ABSOLUTE)
    return results[0]


def replaced(kernel: Kernel, change: Callable[[Value], Value]) -> int:
    """Replaces every value of a kernel, arguments first; how many were changed."""
    memo: dict[int, Value] = {}
    count = 0

    def visit(value: Value) -> Value:
        nonlocal count
        if id(value) not in memo:
            rebuilt = value.rebuild(tuple(map(visit, value.args)), lambda e: e)
            memo[id(value)] = new = change(rebuilt)
            count += new is not rebuilt
        return memo[id(value)]

    for stmt in statements(kernel.body):
        if isinstance(stmt, Let | Store):
            stmt.value = visit(stmt.value)
        elif isinstance(stmt, Update):
            stmt.values = tuple(map(visit, stmt.values))
    return count


def subtract(kernel: Kernel) -> int:
    def change(value: Value) -> Value:
        plus = isinstance(value, Op) and value.name == "add"
        return Op("sub", value.args, value.dtype) if plus else value

    return replaced(kernel, change)


def another_fill(kernel: Kernel) -> int:
    def change(value: Value) -> Value:
        if not isinstance(value, Load) or value.guard == ("true",):
            return value
        return Load(value.buffer, value.offset, value.guard, 5.0, value.dtype)

    return replaced(kernel, change)


def another_offset(kernel: Kernel) -> int:
    def change(value: Value) -> Value:
        if not isinstance(value, Load):
            return value
        return Load(value.buffer, 0, value.guard, value.fill, value.dtype)

    return replaced(kernel, change)


def another_constant(kernel: Kernel) -> int:
    return replaced(kernel, lambda v: Const(-3.0, v.dtype) if isinstance(v, Const) else v)


def in_statements(kind: type, change: Callable[[Any], bool]) -> Callable[[Kernel], int]:
    def apply(kernel: Kernel) -> int:
        return sum(change(s) for s in statements(kernel.body) if isinstance(s, kind))

    return apply


def _shorter(stmt: For) -> bool:
    if stmt.how == "unroll" or not isinstance(stmt.stop, int):
        return False
    stmt.stop -= 1
    return True


def _later(stmt: For) -> bool:
    if stmt.how == "unroll" or stmt.start != 0:
        return False
    stmt.start = 1
    return True


def _narrower(stmt: Any) -> bool:
    if stmt.guard == ("true",):
        return False
    stmt.guard = ("and", stmt.guard, ("lt", ("i", 0), 2))
    return True


def _maximum(stmt: Any) -> bool:
    if stmt.op != "add":
        return False
    stmt.op = "maximum"
    return True


CHANGES: dict[str, tuple[Callable[[], mo.Var], Callable[[Kernel], int]]] = {
    "add for sub in a map": (lambda: mo.exp(f32(5, 21) + f32(21)), subtract),
    "add for sub under a sum": (lambda: (f32(5, 21) + f32(21)).sum(axis=1), subtract),
    "the end of a vector loop": (
        lambda: f32(5, 21) * f32(21),
        in_statements(For, _shorter),
    ),
    "the end of a sum": (
        lambda: f32(9, 21).sum(axis=0),
        in_statements(For, lambda s: s.how == "serial" and _shorter(s)),
    ),
    "the end of a matrix product": (
        lambda: f32(5, 9) @ f32(9, 21),
        in_statements(For, lambda s: s.how == "serial" and _shorter(s)),
    ),
    "the start of a loop": (lambda: f32(5, 21) * f32(21), in_statements(For, _later)),
    "a fill": (lambda: mo.reindex(f32(5, 21), (5, 24), lambda i, j: (i, j - 2)), another_fill),
    "an offset": (lambda: f32(5, 21) + f32(21), another_offset),
    "a constant": (lambda: f32(5, 21) * 2.0, another_constant),
    "the guard of a sum": (
        lambda: mo.reindex_reduce(f32(20, 3), "add", (22,), lambda i, j: (i + j,)),
        in_statements(Update, _narrower),
    ),
    "the operation of a sum": (
        lambda: f32(5, 21).sum(axis=1),
        in_statements(Init | Update, _maximum),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_the_loops_changes_both_results(name):
    make, change = CHANGES[name]
    result = make()
    inputs = input_values(result)
    made = only(scheduled(result))
    before = both(made, inputs)
    assert change(made.kernel) > 0, "the kernel has nothing to change"
    verify(made.kernel)
    after = both(made, inputs)
    assert not np.allclose(before, after)


def test_a_swapped_sign_gives_the_difference():
    a, b = f32(4, 20), f32(4, 20) * 2.0
    b.numpy()
    made = only(scheduled(a + b))
    inputs = input_values(a + b)
    assert subtract(made.kernel) == 1
    np.testing.assert_array_equal(both(made, inputs).reshape(4, 20), a.numpy() - b.numpy())


# --- what the printed Python looks like -----------------------------------------------------------


def test_matmul_golden():
    assert_golden(emit_python(only(scheduled(f32(19, 9) @ f32(9, 20))).kernel, "matmul"))


def test_elementwise_golden():
    x = f32(5, 21)
    result = mo.where(x > 0, mo.exp(x), -x) / 2.0
    assert_golden(emit_python(only(scheduled(result)).kernel))


def test_printed_source_is_plain_python():
    source = emit_python(only(scheduled(f32(19, 9) @ f32(9, 20))).kernel)
    compile(source, "kernel", "exec")
    assert "metaop" not in source
    assert max(map(len, source.splitlines())) < 200


# --- operators, types, edges ----------------------------------------------------------------------

LENGTHS = [1, 2, 15, 16, 17, 31, 33, 64, 65, 100]


@pytest.mark.parametrize("length", LENGTHS)
def test_masked_tails_of_every_length(length):
    x = f32(3, length)
    for result in (x * 2.0, x.sum(axis=1), mo.max(x, axis=1), x @ mo.transpose(x)):
        both(only(scheduled(result)), input_values(result))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_tail_writes_nothing_behind_its_end(length):
    a = f32(length)
    made = only(scheduled(a * 2.0))
    out = np.full(length + 40, 77, np.float32)
    run_machine(made.kernel, [a.numpy(), out], list(made.integers.values()), made.chunks)
    np.testing.assert_array_equal(out[length:], 77)
    np.testing.assert_array_equal(out[:length], a.numpy() * 2)


@pytest.mark.parametrize("chunks", [1, 2, 3, 5, 64, 1000])
@pytest.mark.parametrize("make", [lambda x: x * 2.0, lambda x: x.sum(axis=1), lambda x: x @ x.T])
def test_any_number_of_chunks_gives_the_same(make, chunks):
    result = make(f32(23, 19))
    inputs = input_values(result)
    made = only(scheduled(result))
    want = both(made, inputs)
    made.chunks = chunks
    np.testing.assert_array_equal(both(made, inputs), want)


@pytest.mark.parametrize("name", ["float64", "float16", "int8", "int32", "uint8", "int64"])
def test_every_type_through_both(name):
    x = (f32(5, 19) * 4.0).astype(name)
    x.numpy()
    for result in (x + x, x.sum(axis=1), mo.max(x, axis=0), mo.where(x > 1, x, x * x)):
        for made in scheduled(result)[:1]:
            both(made, input_values(result))


# --- a whole training step ------------------------------------------------------------------------

MOST_ITERATIONS = 12_000  # of one kernel that plain Python runs: about 30 ms


def memory_at(address: int, dtype: Any, size: int) -> np.ndarray:
    """The array over a program's buffer."""

    class View:
        __array_interface__ = {
            "version": 3, "shape": (size,), "typestr": dtype.storage.str, "data": (address, False),
        }  # fmt: skip

    return np.asarray(View())


def terms(tree: Tree) -> int:
    """How many numbers a result sums up: lanes add them in another order than a plain loop, and
    what cancels leaves the rounding errors of all."""
    sums = [n for n in tree.all_nests if n.op and not n.scatter]
    return max((int(np.prod(n.extents[n.rank :])) for n in sums), default=1)


class Checker:
    """Runs a program launch by launch; of each it runs machine code and printed Python on copies of
    the buffers (some chunks only, if there is much to do) and compares all that was written."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.launches = 0
        self.worst = 0.0

    def launch(self, launch: KernelLaunch, table: np.ndarray, bound_to: Any) -> None:
        self.launches += 1
        buffers = [*launch.tree.reads, *launch.tree.writes, *launch.tree.packed]
        sizes = {b.name: evaluate(b.size, bound_to) for b in buffers}
        live = [
            memory_at(int(table[slot]), p.dtype, max(sizes.get(p.name, 1), 1))
            for slot, p in zip(launch.slots, launch.kernel.buffers)
        ]
        if launch.key not in self.seen:
            self.seen.add(launch.key)
            self.compare(launch, live)
        assert run_machine(launch.kernel, live, launch.integers, launch.chunks) == 0

    def compare(self, launch: KernelLaunch, live: list[np.ndarray]) -> None:
        machine, printed = ([array.copy() for array in live] for _ in range(2))
        pieces, chosen = self.sample(launch)
        run_machine(launch.kernel, machine, launch.integers, pieces, chosen)
        run_printed(launch.kernel, printed, launch.integers, pieces, chosen)
        for parameter, one, two in zip(launch.kernel.buffers, machine, printed):
            np.testing.assert_allclose(
                one, two, rtol=RELATIVE, atol=ABSOLUTE * terms(launch.tree) ** 0.5,
                err_msg=f"{parameter.name}\n{emit_python(launch.kernel)}",
            )  # fmt: skip
        assert any(p.written for p in launch.kernel.buffers)

    @staticmethod
    def sample(launch: KernelLaunch) -> tuple[int, list[int]]:
        """In how many chunks to cut the kernel, and which to run: first, middle and last."""
        iterations = int(launch.tree.iterations)
        if iterations <= MOST_ITERATIONS:
            return launch.chunks, list(range(launch.chunks))
        pieces = 3 * -(-iterations // MOST_ITERATIONS)
        return pieces, [0, pieces // 2, pieces - 1]


@pytest.fixture
def checker(monkeypatch):
    """Every program runs through a Checker, whatever the thread count."""
    found = Checker()

    class Native:
        def __init__(self, phases: Any) -> None:
            self.phases = phases
            self.sizes = bound_to[-1]

    bound_to: list[Any] = []  # the sizes of the segment that was evaluated last
    sized = program_module._sized

    def noting(segment: Any, sizes: Any) -> Any:
        bound_to.append(sizes)
        return sized(segment, sizes)

    def watched(segment: Any) -> Any:
        return segment if isinstance(segment, program_module.HostCall) else Native(segment)

    class Runner:
        recorder = None
        lock = program_module.executor().lock

        @staticmethod
        def run(native: Native, address: int, threads: int | None = None) -> None:
            size = 1 + max(s for p in native.phases for la in p for s in la.slots)
            table = memory_at(address, mo.int64, size)
            for phase in native.phases:
                for launch in phase:
                    found.launch(launch, table, native.sizes)

    programs._programs.clear()  # programs prepared earlier run natively
    monkeypatch.setattr(program_module, "_sized", noting)
    monkeypatch.setattr(program_module, "_native", watched)
    monkeypatch.setattr(program_module, "executor", lambda: Runner)
    yield found
    programs._programs.clear()  # and these do not


def batch(count: int) -> tuple[mo.Var, mo.Var]:
    draw = np.random.default_rng(0)
    images = draw.random((count, 1, 28, 28)).astype(np.float32)
    return mo.array(images), mo.array(draw.integers(0, 10, count))


def test_printed_python_of_every_kernel_of_a_lenet_step_gives_the_machines_numbers(checker):
    mo.manual_seed(0)
    net = nn.models.LeNetBN()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-4)
    images, labels = batch(2)
    for _ in range(2):  # the second step has momentum
        loss = nn.CrossEntropyLoss()(net(images), labels)
        optimizer.step(loss)
        mo.sync()
    assert np.isfinite(loss.item())
    assert checker.launches > 40
    keys = {la.key for p in programs._programs.values() for la in p.launches}
    assert keys == checker.seen


def test_the_comparison_fails_for_a_kernel_that_is_printed_otherwise(checker, monkeypatch):
    import tests.compiler.stages as stages

    original = stages.load_python

    def wrong(kernel: Kernel) -> Any:
        for stmt in statements(kernel.body):
            if isinstance(stmt, Store):
                stmt.value = Op("neg", (stmt.value,), stmt.value.dtype)
        return original(kernel)

    monkeypatch.setattr(stages, "load_python", wrong)
    with pytest.raises(AssertionError, match="def k0"):
        (f32(6, 7) * 3.0 + 1.0).numpy()
