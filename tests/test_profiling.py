"""mo.profile: times that add up, counts that explain knows, formats that parse."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler.executor import executor, worker_assembly
from metaop.profiling import SORT_KEYS, KernelProfile, Totals


def step_of(batch: int, jit: bool):
    mo.manual_seed(0)
    net = nn.models.LeNetBN()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

    def step(images, labels):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.step(loss)
        return loss

    generator = np.random.default_rng(0)
    images = mo.array(generator.standard_normal((batch, 1, 28, 28)).astype(np.float32))
    labels = mo.array(generator.integers(0, 10, batch))
    mo.sync()
    chosen = mo.jit(step) if jit else step
    return lambda: chosen(images, labels).item()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "jit"])
def lenet(request):
    """A LeNet step, and the profile of three of them."""
    step = step_of(64, request.param)
    for _ in range(2):
        step()
    with mo.profile() as found:
        for _ in range(3):
            step()
    return step, found


def test_every_launch_is_profiled_once(lenet):
    step, _ = lenet
    before = mo.stats().launched
    with mo.profile() as found:
        step()
    assert sum(k.calls for k in found.kernels) == mo.stats().launched - before


def test_a_kernel_has_the_bytes_and_flops_that_explain_counts():
    a, b = mo.random.normal((40, 30)).sync(), mo.random.normal((40, 30)).sync()

    def value():
        return mo.exp(a) * b + 1

    (explained,) = mo.explain(value()).kernels
    with mo.profile() as found:
        value().sync()
    (kernel,) = found.kernels
    assert (kernel.bytes, kernel.flops) == (explained.bytes, explained.flops)
    assert kernel.bytes == 3 * 4 * 1200 and kernel.flops == 3 * 1200
    assert kernel.operators[0] == "exp" and kernel.phase == "forward"
    assert kernel.lines and kernel.lines[0].startswith("test_profiling.py:")


def test_flops_of_a_matrix_product_are_counted_once_beside_what_packs_it():
    a, b = mo.random.normal((300, 200)).sync(), mo.random.normal((200, 100)).sync()
    with mo.profile() as found:
        (a @ b).sync()
    assert sum(k.flops for k in found.kernels) == 2 * 300 * 200 * 100


def test_the_phases_of_a_training_step_are_told_apart(lenet):
    _, found = lenet
    assert {"forward", "backward"} <= {k.phase for k in found.kernels}


def test_times_are_consistent(lenet):
    _, found = lenet
    t = found.totals
    for kernel in found.kernels:
        assert 0 <= kernel.min_seconds <= kernel.mean_seconds
        assert 0 < kernel.busy <= 1.0001
    assert t.kernels == pytest.approx(sum(k.seconds for k in found.kernels))
    assert 0 < t.kernels < t.wall and t.launches > 0 and t.python > 0
    parts = t.kernels + t.launches + t.python + t.compiling + t.callbacks + t.other
    assert parts == pytest.approx(t.wall)


def test_a_program_from_disk_is_profiled_as_one_that_was_compiled_here(tmp_path, monkeypatch):
    from metaop.compiler import programs

    monkeypatch.setattr(mo.config, "cache", str(tmp_path))
    monkeypatch.setattr(mo.config, "check", False)
    x = mo.random.normal((33, 44)).sync()
    rows = []
    for _ in range(2):
        programs.forget()
        with mo.profile() as found:
            mo.tanh(x @ x.T).sync()
        rows.append([(k.name, k.operators, k.lines, k.bytes, k.flops) for k in found.kernels])
        compiled = [k.compile_seconds for k in found.kernels]
        assert all(compiled) if len(rows) == 1 else not any(compiled)
    assert rows[0] == rows[1] and rows[0]


def test_two_kernels_of_one_phase_share_its_time_by_their_chunks():
    """One does a hundred times the work of the other, side by side in one phase."""
    large, small = mo.random.normal((400_000,)).sync(), mo.random.normal((4_000,)).sync()

    pair = mo.jit(lambda a, b: (mo.tanh(a), mo.tanh(b)))
    pair(large, small)
    with mo.profile() as found:
        for _ in range(5):
            pair(large, small)
    assert len(found.kernels) == 2
    one, other = sorted(found.kernels, key=lambda k: k.bytes)
    assert other.seconds > 10 * one.seconds


def test_host_callbacks_have_a_line_of_their_own():
    def slow(np_, data):
        time.sleep(0.02)
        data["outputs"][0][...] = data["inputs"][0]

    x = mo.random.normal((5,)).sync()
    with mo.profile() as found:
        (mo.numpy_code((5,), "float32", [x], slow) + 1).sync()
    (callback,) = [k for k in found.kernels if k.phase == "callback"]
    assert 0.02 <= callback.seconds < 0.2
    assert found.totals.callbacks == callback.seconds
    line = test_host_callbacks_have_a_line_of_their_own.__code__.co_firstlineno + 7
    assert (callback.operators, callback.lines) == (["numpy_code"], [f"test_profiling.py:{line}"])


def test_what_was_pending_before_is_not_part_of_a_profile_and_what_is_pending_after_is():
    x = mo.random.normal((50,)).sync()
    before = mo.exp(x)
    with mo.profile() as found:
        after = mo.sin(x)
    assert "computed" in repr(before) or before._node.storage is not None
    assert after._node.storage is not None
    assert [k.operators for k in found.kernels] == [["sin"]]


def test_runs_of_other_threads_are_recorded():
    x = mo.random.normal((50,)).sync()
    with mo.profile() as found:
        thread = threading.Thread(target=lambda: mo.exp(x).sync())
        thread.start()
        thread.join()
    assert [k.operators for k in found.kernels] == [["exp"]]


def test_one_profile_at_a_time_and_none_left_after_an_error():
    with pytest.raises(ZeroDivisionError):
        with mo.profile():
            with pytest.raises(RuntimeError, match="another profile"):
                mo.profile().__enter__()
            raise ZeroDivisionError
    assert executor().recorder is None


def test_the_plain_worker_reads_no_clock():
    """What a profile costs when there is none: not an instruction of the worker."""
    for triple in ("x86_64-unknown-linux-gnu", "arm64-apple-darwin"):
        plain, recording = worker_assembly(triple), worker_assembly(triple, recording=True)
        clock = "readcyclecounter" if "x86" in triple else "cntvct_el0"
        assert clock not in plain and clock in recording
        marks = ("FIND_RECORDS", "START_RECORD", "END_RECORD", "CLOCK", "DECLARATIONS")
        assert not any(mark in text for mark in marks for text in (plain, recording))


# ------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("sort", SORT_KEYS)
def test_a_table_has_a_line_for_each_kernel_in_order(lenet, sort):
    _, found = lenet
    lines = found.table(sort).splitlines()
    shown = lines[1 : lines.index("")]
    assert [line.split()[10 - (k.share is None)] for line, k in zip(shown, found.sorted(sort))] == [
        k.name for k in found.sorted(sort)
    ]
    keys = [SORT_KEYS[sort](k) for k in found.sorted(sort)]
    assert keys == sorted(keys)


def test_a_short_table_sums_up_the_rest(lenet):
    _, found = lenet
    assert f"{len(found.kernels) - 3} more kernels" in found.table(rows=3)
    assert repr(found) == found.table()
    with pytest.raises(ValueError, match="sort is one of time, mean"):
        found.table("size")


def test_json_has_the_documented_schema(lenet):
    _, found = lenet
    data = json.loads(found.json())
    assert set(data) == {"version", "threads", "programs", "arena_bytes", "seconds", "roofline",
                         "kernels"}  # fmt: skip
    assert data["version"] == 1 and set(data["seconds"]) == set(Totals().__dict__)
    fields = {*KernelProfile.__dataclass_fields__, "mean_seconds", "gbytes_per_second",
              "gflops_per_second"}  # fmt: skip
    assert all(set(k) == fields for k in data["kernels"])
    assert len(data["kernels"]) == len(found.kernels)


def test_csv_has_a_line_for_each_kernel(lenet):
    _, found = lenet
    rows = list(csv.DictReader(io.StringIO(found.csv("order"))))
    assert [row["name"] for row in rows] == [k.name for k in found.kernels]
    assert [int(row["flops"]) for row in rows] == [k.flops for k in found.kernels]


def test_a_trace_has_events_within_the_profile_that_do_not_overlap(lenet, tmp_path):
    _, found = lenet
    text = found.chrome_trace(tmp_path / "trace.json")
    assert (tmp_path / "trace.json").read_text() == text
    events = [e for e in json.loads(text)["traceEvents"] if e["ph"] == "X"]
    calls = [e for e in events if e["tid"] == 0]
    assert len(calls) == 3
    for thread in {e["tid"] for e in events} - {0}:
        own = sorted((e for e in events if e["tid"] == thread), key=lambda e: e["ts"])
        for one, following in pairwise(own):
            # side by side in a phase: a thread may take chunks of two kernels in turn
            assert following["ts"] >= one["ts"]
        assert all(
            any(c["ts"] - 5 <= e["ts"] and e["ts"] + e["dur"] <= c["ts"] + c["dur"] + 5
                for c in calls) for e in own
        )  # fmt: skip


def test_the_summary_says_how_to_measure_a_roofline(tmp_path, monkeypatch):
    monkeypatch.setattr(mo.config, "cache", str(tmp_path))
    with mo.profile() as found:
        mo.ones(7, 7).sync()
    assert found.roofline is None and "`metaop roofline` does it" in found.summary()
    assert all(k.share is None for k in found.kernels)
