"""Programs: phases, keys, what is compiled once, and results that no thread count changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler import pipeline, programs
from metaop.compiler.program import Program
from metaop.graph import pending

REPOSITORY = Path(__file__).resolve().parents[2]


def f32(*shape: int) -> mo.Var:
    count = int(np.prod(shape))
    return mo.array((np.arange(count, dtype=np.float32) % 19 - 9).reshape(shape) / 8)


def program_of(*results: mo.Var) -> Program:
    asked = [x._node for x in results]
    return programs.program_for(pending(asked), asked)[0]


def compiled_by(action) -> tuple[int, int]:
    """Kernels compiled and programs made by an action."""
    before = pipeline.statistics.compiled, pipeline.statistics.programs
    action()
    after = pipeline.statistics.compiled, pipeline.statistics.programs
    return after[0] - before[0], after[1] - before[1]


# --- phases ---------------------------------------------------------------------------------------


def test_a_phase_never_reads_what_it_writes():
    a = f32(40, 40)
    program = program_of(mo.exp(a @ a).sum(axis=0) @ (a @ a @ a))
    for segment in program.segments:
        for phase in segment:
            written = {
                slot
                for launch in phase
                for slot, p in zip(launch.slots, launch.kernel.buffers)
                if p.written
            }
            read = {
                slot
                for launch in phase
                for slot, p in zip(launch.slots, launch.kernel.buffers)
                if not p.written
            }
            assert not written & read
            outputs = [p for launch in phase for p in launch.kernel.buffers if p.written]
            assert len(written) == len(outputs), "two launches of a phase write one buffer"


def test_independent_results_share_a_phase():
    a, b = f32(8, 8), f32(6, 6)
    program = program_of(a @ a, b @ b, a.sum(axis=0))
    (segment,) = program.segments
    assert [len(phase) for phase in segment] == [3]


def test_every_value_is_written_before_it_is_read():
    a = f32(12, 12)
    program = program_of((mo.tanh(a @ a) @ a).sum(axis=0), mo.max(a @ a, axis=1))
    known = {slot for slot, *_ in program.inputs}
    for launch in program.launches:
        for slot, parameter in zip(launch.slots, launch.kernel.buffers):
            assert parameter.written or slot in known
        known |= {s for s, p in zip(launch.slots, launch.kernel.buffers) if p.written}
    assert {slot for slot, _ in program.outputs} <= known


# --- what is compiled once ------------------------------------------------------------------------


@pytest.mark.usefixtures("no_disk_cache")
def test_the_second_iteration_compiles_nothing():
    w = mo.Var(f32(7, 7), requires_grad=True)

    def step() -> None:
        loss = (mo.tanh(f32(5, 7) @ w) ** 2).sum()
        mo.grad(loss, [w])[0].numpy()

    step()
    assert compiled_by(step) == (0, 0)


@pytest.mark.usefixtures("no_disk_cache")
def test_another_number_compiles_nothing():
    x = f32(31)
    (x * 0.7 + 0.3).numpy()
    assert compiled_by(lambda: (x * 0.9 + 0.1).numpy()) == (0, 0)


@pytest.mark.usefixtures("no_disk_cache")
def test_another_large_extent_compiles_no_kernel_and_a_dynamic_one_no_program():
    (f32(3, 1000) * 0.7).numpy()
    assert compiled_by(lambda: (f32(3, 1001) * 0.7).numpy()) == (0, 1)
    assert compiled_by(lambda: (f32(4, 1001) * 0.7).numpy()) == (0, 0)


@pytest.mark.usefixtures("no_disk_cache")
def test_equal_kernels_of_one_program_are_compiled_once():
    def run() -> None:
        parts = [mo.sinh(f32(40, 41) * float(k + 3)) for k in range(8)]
        mo.sync()
        assert all(np.isfinite(p.numpy()).all() for p in parts)

    pipeline.forget()
    compiled, _ = compiled_by(run)
    assert compiled == 1


STALE = {
    "fill": [
        lambda x, f=fill: mo.reindex(x, (9,), lambda i: (i - 2,), fill=f)
        for fill in (0.0, 1.0, 2.5, float("inf"), -0.0)
    ],
    "shape": [lambda x: x.reshape(5, 1) * 1.5, lambda x: x.reshape(1, 5) * 1.5],
    "index": [lambda x, s=s: mo.reindex(x, (5,), lambda i: (i + s,)) for s in range(3)],
    "condition": [
        lambda x, n=n: mo.reindex(x, (5,), lambda i: (i,), where=lambda i: i < n) for n in (2, 3)
    ],
    "literal": [lambda x, n=n: x * n for n in (1.0, 2.0, -1.0, 0.5, 0.0, -0.0)],
    "number": [lambda x, n=n: x * n for n in (0.3, 0.4)],
    "exponent": [lambda x, n=n: mo.abs(x) ** n for n in (1.0, 2.0, 0.5, 3.0)],
    "dtype": [lambda x, t=t: x.astype(t) for t in ("float64", "int32", "float16", "bool")],
    "reduction": [mo.sum, mo.max, mo.min, mo.prod, mo.mean],
    "axis": [lambda x: x.reshape(5, 1).sum(axis=0), lambda x: x.reshape(5, 1).sum(axis=1)],
    "repeated operand": [lambda x: x - x, lambda x: x - mo.array(np.ones(5, np.float32))],
    "bounds": [
        lambda x, n=n: mo.take(mo.ones((n,)) * x.sum(), mo.array(np.array([2])), axis=0)
        for n in (3, 4)
    ],
}


@pytest.mark.parametrize("name", STALE)
def test_programs_that_differ_never_share_a_key(name):
    x = f32(5)
    fresh = []
    for make in STALE[name]:
        pipeline.forget()
        fresh.append(make(x).numpy())
    pipeline.forget()
    for make, want in zip(STALE[name], fresh):
        got = make(x).numpy()
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
        if got.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


def test_ties_of_a_maximum_are_part_of_the_key():
    # Forward graphs of both rules are equal; their gradients are not.
    x = mo.Var(np.array([1, 3, 3], np.float32), requires_grad=True)
    shared = mo.grad(mo.amax(x), [x])[0].numpy()
    picked = mo.grad(mo.max(x), [x])[0].numpy()
    again = mo.grad(mo.amax(x), [x])[0].numpy()
    np.testing.assert_array_equal(shared, again)
    assert shared.sum() == picked.sum() == 1


# --- determinism ----------------------------------------------------------------------------------

STEPS = """
import hashlib
import numpy as np
import metaop as mo
from metaop import nn

def state_after_two_steps():
    mo.manual_seed(3)
    draw = np.random.default_rng(3)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 2),
                        nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 13 * 13, 10))
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        images = mo.array(draw.random((24, 1, 28, 28)).astype(np.float32))
        labels = mo.array(draw.integers(0, 10, 24))
        loss = nn.CrossEntropyLoss()(net(images), labels)
        optimizer.step(loss)
        mo.sync()
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    return hashlib.sha256(b"".join(state[n].tobytes() for n in sorted(state))).hexdigest()
"""


def state_after_two_steps() -> str:
    namespace: dict = {}
    exec(STEPS, namespace)
    return namespace["state_after_two_steps"]()


def test_one_two_and_three_threads_train_to_the_same_bytes():
    before = mo.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3, 1):
            mo.set_num_threads(count)
            found.append(state_after_two_steps())
    finally:
        mo.set_num_threads(before)
    assert len(set(found)) == 1
    wide = [la.chunks for p in programs._programs.values() for la in p.launches if la.chunks > 1]
    assert len(wide) > 3, "nothing here would have run on a second thread"


@pytest.mark.parametrize("threads,layer", [("1", "alone"), ("2", "workqueue"), ("3", "omp")])
def test_another_process_trains_to_the_same_bytes(threads, layer):
    environment = {**os.environ, "METAOP_THREADS": threads, "METAOP_THREADING_LAYER": layer,
                   "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    program = STEPS + "\nprint(state_after_two_steps())\n"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == state_after_two_steps()


def test_a_hash_seed_changes_nothing():
    program = (
        "import metaop as mo, numpy as np\n"
        "from metaop.compiler import programs\n"
        "x = mo.array(np.ones((20, 30), np.float32))\n"
        "y = (mo.exp(x @ x.T) + x.sum(axis=1)).sum(); z = mo.max(x * 3.0, axis=0); mo.sync()\n"
        "print([la.key for p in programs._programs.values() for la in p.launches])\n"
        "print([p.temporaries for p in programs._programs.values()])\n"
    )
    found = set()
    for seed in ("1", "2"):
        environment = {
            **os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY),
            "METAOP_CACHE": "off",
        }  # fmt: skip
        found.add(
            subprocess.run(
                [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
                timeout=60, check=True,
            ).stdout
        )  # fmt: skip
    assert len(found) == 1


def test_the_arena_is_reused_from_step_to_step():
    a = f32(50, 50)
    ((a @ a) @ a).numpy()
    size = mo.stats().arena_bytes
    for _ in range(5):
        ((a @ a) @ a).numpy()
    assert mo.stats().arena_bytes == size


def test_a_failed_check_leaves_no_result():
    table, at = f32(4, 3), mo.array(np.array([0, 9]))
    picked = mo.take(table, at, axis=0) * 2.0
    with pytest.raises(IndexError, match="index 9 is out of bounds for an axis of size 4"):
        picked.numpy()
    assert picked._node.storage is None


def test_what_is_only_for_looking_at_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    """Loop IR and trees were half of the memory of a program."""
    monkeypatch.setattr(mo.config, "check", False)
    program = program_of((f32(3, 7) * 1.75).sum(0) - 5.25).program
    assert [(n.key, n.kernel, n.tree) for n in program.launches] == [
        (n.code.name, None, None) for n in program.launches
    ]
    assert all(n.work.operators for n in program.launches)


def test_layers_are_no_part_of_a_program():
    program = program_of(nn.functional.softmax(f32(4, 5), dim=1))
    text = " ".join(la.key for la in program.launches)
    assert "softmax" not in text
