"""The measured roofline: beside a C program that nobody here wrote for it, and its arithmetic."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
import types

import numpy as np
import pytest

import metaop as mo
from metaop import roofline
from metaop.compiler import machine
from metaop.roofline import Point, Roofline, thread_counts

# One thread, timed by its own CPU time, so that other programs do not count.
PEER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
typedef float vec __attribute__((vector_size(BITS / 8)));
enum { LANES = BITS / 32, CHAINS = 12 };
static double now() {
  struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec + 1e-9 * t.tv_nsec;
}
int main() {
  size_t n = 64 << 20; float *x = aligned_alloc(64, 4 * n), *y = aligned_alloc(64, 4 * n);
  for (size_t i = 0; i < n; i++) { x[i] = 1; y[i] = 0; }
  double peak = 0, copy = 0;
  for (int round = 0; round < 5; round++) {
    long steps = 3000000; volatile float sink; double t = now();
    {
      vec a[CHAINS], f, c;
      for (int l = 0; l < LANES; l++) { f[l] = 1.0000001f; c[l] = 1e-9f; }
      for (int k = 0; k < CHAINS; k++) for (int l = 0; l < LANES; l++) a[k][l] = k;
      for (long i = 0; i < steps; i++) for (int k = 0; k < CHAINS; k++) a[k] = a[k] * f + c;
      float s = 0; for (int k = 0; k < CHAINS; k++) s += a[k][0]; sink = s;
    }
    double rate = steps * 2.0 * CHAINS * LANES / (now() - t) / 1e9;
    if (rate > peak) peak = rate;
    t = now();
    for (size_t i = 0; i < n; i++) y[i] = x[i] * 1.5f + 1;
    rate = 8.0 * n / (now() - t) / 1e9;
    if (rate > copy) copy = rate;
  }
  printf("%f %f\n", peak, copy);
  return 0;
}
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no gcc")
    folder = tmp_path_factory.mktemp("peer")
    (folder / "peer.c").write_text(PEER)
    command = [compiler, "-O3", "-march=native", "peer.c", "-o", "peer",
               f"-DBITS={machine.instruction_set().vector_bits}"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"gcc cannot compile the peer: {done.stderr[-200:]}")

    def figures() -> list[float]:
        run = subprocess.run([folder / "peer"], capture_output=True, text=True)
        return [float(part) for part in run.stdout.split()]

    return figures


def test_peak_and_memory_agree_with_the_peer_within_15_percent(peer, monkeypatch):
    """The best of a few turns each, by the thread's CPU time: others only ever make both slower."""
    monkeypatch.setattr(roofline, "time", types.SimpleNamespace(
        perf_counter=time.thread_time, process_time=time.process_time))  # fmt: skip
    measured = roofline._Measured()
    best = np.zeros((2, 2))
    for _ in range(8):
        best[0] = np.maximum(best[0], [measured.peak(1), measured.rate("copy", 1)])
        best[1] = np.maximum(best[1], peer())
        if np.all(np.abs(best[0] / best[1] - 1) < 0.15):
            break
    np.testing.assert_allclose(best[0], best[1], rtol=0.15)


POINT = Point(2, 100.0, 10.0, 15.0, 0.1, 4.0, [(1 << 16, 80.0), (1 << 20, 40.0), (1 << 29, 10.0)])


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
    assert set(data["points"][0]) == {"threads", "peak", "memory", "stream", "launch", "call",
                                      "copy"}  # fmt: skip
    assert "64 KiB" in repr(made) and "a CPU, x86-64 AVX2" in repr(made)


def test_the_nearest_number_of_threads_counts():
    made = Roofline("", "", [Point(n, 1, 1, 1, 1, 1, []) for n in (1, 8, 32)])
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


@pytest.mark.parametrize(("share", "disturbed"), [(1.0, False), (0.5, True)])
def test_it_is_disturbed_if_every_run_had_too_little_of_the_cpus(monkeypatch, share, disturbed):
    measured = roofline._Measured()
    program = measured.copying("copy", measured.nbytes, 1, 8)
    clock = itertools.count()
    monkeypatch.setattr(measured, "seconds", lambda *_: 1.0)
    fake = types.SimpleNamespace(process_time=lambda: share * next(clock))
    monkeypatch.setattr(roofline, "time", fake)
    measured.best(program, 1)
    assert measured.disturbed is disturbed


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

    for text in (roofline._peak(lanes, fma), roofline._copy(lanes, False),
                 roofline._copy(lanes, True), roofline.EMPTY):  # fmt: skip
        llvm.parse_assembly(text).verify()
