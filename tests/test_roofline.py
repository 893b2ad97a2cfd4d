"""The measured roofline: its arithmetic, and when it is kept."""

from __future__ import annotations

import itertools
import json
import mmap
import types

import pytest

import metaop as mo
from metaop import roofline
from metaop.compiler import machine
from metaop.roofline import Point, Roofline, thread_counts

POINT = Point(
    2, 100.0, 10.0, 15.0, 9.0, 14.0, 0.1, 4.0, [(1 << 16, 80.0), (1 << 20, 40.0), (1 << 29, 10.0)]
)


def test_a_bound_is_the_larger_of_computing_and_copying():
    assert POINT.bound(flops=1e9, nbytes=0) == pytest.approx(0.01)
    assert POINT.bound(flops=0, nbytes=1 << 29) == pytest.approx((1 << 29) / 10e9)
    assert POINT.bound(flops=1e12, nbytes=1 << 29) == pytest.approx(10.0)


def test_bandwidth_between_measured_sizes_goes_by_the_logarithm():
    assert POINT.bandwidth(1 << 18) == pytest.approx(60.0)
    assert POINT.bandwidth(100) == 80.0 and POINT.bandwidth(1 << 40) == 10.0


def test_a_roofline_is_what_its_json_says():
    made = Roofline("a CPU", "x86-64 AVX2", [POINT])
    assert Roofline.from_json(made.json()) == made
    data = json.loads(made.json())
    assert (
        set(data) == {"version", "cpu", "instruction_set", "points", "disturbed"}
        and data["version"] == 1
    )
    assert set(data["points"][0]) == {"threads", "peak", "memory", "stream", "plain_memory",
                                      "plain_stream", "launch", "call", "copy"}  # fmt: skip
    assert "64 KiB" in repr(made) and "a CPU, x86-64 AVX2" in repr(made)


def test_the_nearest_number_of_threads_counts():
    made = Roofline("", "", [Point(n, 1, 1, 1, 1, 1, 1, 1, []) for n in (1, 8, 32)])
    assert [made.at(n).threads for n in (1, 3, 7, 64)] == [1, 1, 8, 32]


def test_all_small_numbers_of_threads_are_measured_and_powers_of_two():
    assert thread_counts(2) == [1, 2]
    assert thread_counts(6) == [1, 2, 3, 4, 5, 6]
    assert thread_counts(48) == [*range(1, 9), 16, 32, 48]


def test_it_is_measured_once_and_kept_beside_the_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(mo.config, "cache", str(tmp_path))
    calls = []

    def measure(counts):
        calls.append(list(counts))
        return Roofline("a CPU", "", [POINT])

    monkeypatch.setattr(roofline, "measure", measure)
    assert roofline.known(2) is None
    assert roofline.roofline(2) == roofline.roofline(2) == roofline.known(2)
    assert calls == [[1, 2]]
    roofline.roofline(2, again=True)
    assert len(calls) == 2
    assert roofline.known(3) is None
    (entry,) = tmp_path.iterdir()
    assert entry.name.startswith("roofline-")


def test_what_others_disturbed_is_told_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(mo.config, "cache", str(tmp_path))
    monkeypatch.setattr(roofline, "measure", lambda _: Roofline("a CPU", "", [POINT], True))
    assert "other programs used the CPUs" in repr(roofline.roofline(2))
    assert roofline.known(2) is None


def test_more_threads_than_can_run_are_not_measured():
    with pytest.raises(ValueError, match="99999 threads cannot be measured"):
        roofline.measure([1, 99999])


@pytest.mark.parametrize(("share", "disturbed"), [(1.0, False), (0.5, True)])
def test_it_is_disturbed_if_every_run_had_too_little_of_the_cpus(monkeypatch, share, disturbed):
    measured = roofline._Measured()
    program = measured.copying("copy", 1, measured.nbytes, 1, 8)
    clock = itertools.count()
    runs: list[float] = []
    monkeypatch.setattr(measured, "seconds", lambda *_: runs.append(1.0) or 1.0)
    fake = types.SimpleNamespace(process_time=lambda: share * next(clock))
    monkeypatch.setattr(roofline, "time", fake)
    measured.best(program, 1)
    assert measured.disturbed is disturbed
    del runs[:]
    measured.best(program, 1)
    assert len(runs) == roofline.ROUNDS  # none is repeated for a figure that is not kept


def test_plain_figures_are_those_of_the_widest_vectors_in_one_part_a_thread():
    plain, own = roofline._Measured(plain=True), roofline._Measured()
    assert plain.moved * 32 == machine.instruction_set().vector_bits >= own.moved * 32
    assert (plain.parts, own.parts) == (1, roofline.PARTS)
    assert plain.rate("copy", 1) > 0 and plain.table[1] % mmap.PAGESIZE == 0


@pytest.mark.parametrize(("features", "name", "bits", "fma"), [
    ("+avx512f,+fma", "x86-64 AVX-512", 512, True),
    ("+avx2,+fma,-avx512f", "x86-64 AVX2", 256, True),
    ("+avx,-fma", "x86-64 AVX", 256, False),
    ("", "x86-64 SSE2", 128, False),
])  # fmt: skip
def test_instruction_sets_are_told_by_features(monkeypatch, features, name, bits, fma):
    processor = machine.Processor("x86_64-unknown-linux-gnu", "cpu", features)
    monkeypatch.setattr(machine, "processor", lambda: processor)
    assert machine.instruction_set() == (name, bits, fma)


@pytest.mark.parametrize("fma", [False, True])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_the_kernels_compile_for_every_width(lanes, fma):
    import llvmlite.binding as llvm

    for text in (roofline._peak(lanes, fma), roofline._copy(lanes, 1, False),
                 roofline._copy(lanes, 4, True), roofline.EMPTY):  # fmt: skip
        llvm.parse_assembly(text).verify()
