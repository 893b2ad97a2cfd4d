"""What looking costs, and whether it is right: the profile of a LeNet step, the measured roofline
beside a C program, pictures of ResNet-18's training step.

    python -m benchmarks.inspection

Of the profile: its parts, each measured on its own, over the wall time of steps that nobody
profiles (bar: within 10 %), and profiled steps over plain ones (bar: 1.05), taking turns.  Of the
roofline: figures over those of a C program on the same arrays (bar: within 15 %), the best of some
turns.  Of the pictures: seconds of CPU for drawing what is compiled already.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import metaop as mo
from metaop import nn, roofline
from metaop.compiler import machine
from metaop.compiler.executor import executor
from metaop.inspection import stages_of
from metaop.pictures.render import render
from metaop.roofline import thread_counts

TURNS, STEPS = 15, 5

PEER = r"""
#include <immintrin.h>
#include <omp.h>
#include <stddef.h>
typedef float vec __attribute__((vector_size(BITS / 8)));
enum { LANES = BITS / 32, CHAINS = 12 };
static double since(double t) { return omp_get_wtime() - t; }

double peak(int threads, long steps) {
  volatile float sink; double t = omp_get_wtime();
  #pragma omp parallel num_threads(threads)
  {
    vec a[CHAINS], f, c;
    for (int l = 0; l < LANES; l++) { f[l] = 1.0000001f; c[l] = 1e-9f; }
    for (int k = 0; k < CHAINS; k++) for (int l = 0; l < LANES; l++) a[k][l] = k;
    for (long i = 0; i < steps; i++) for (int k = 0; k < CHAINS; k++) a[k] = a[k] * f + c;
    float s = 0; for (int k = 0; k < CHAINS; k++) s += a[k][0]; sink = s;
  }
  return threads * steps * 2.0 * CHAINS * LANES / since(t) / 1e9;
}
double memory(int threads, const float *x, float *y, size_t n) {
  double t = omp_get_wtime();
  #pragma omp parallel for num_threads(threads)
  for (size_t i = 0; i < n; i++) y[i] = x[i] * 1.5f + 1;
  return 8.0 * n / since(t) / 1e9;
}
double stream(int threads, const float *x, float *y, size_t n) {
  double t = omp_get_wtime();
  #pragma omp parallel for num_threads(threads)
#ifdef __AVX512F__
  for (size_t i = 0; i < n; i += 16)
    _mm512_stream_ps(y + i, _mm512_add_ps(_mm512_load_ps(x + i), _mm512_set1_ps(1)));
#else
  for (size_t i = 0; i < n; i += 4)
    _mm_stream_ps(y + i, _mm_add_ps(_mm_load_ps(x + i), _mm_set1_ps(1)));
#endif
  return 8.0 * n / since(t) / 1e9;
}
"""


def lenet_step() -> Callable[[], Any]:
    """A jitted training step of LeNet with batch norm, batch 256."""
    mo.manual_seed(0)
    net = nn.models.LeNetBN()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

    @mo.jit
    def step(images: Any, labels: Any) -> Any:
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.step(loss)
        return loss

    generator = np.random.default_rng(0)
    images = mo.array(generator.standard_normal((256, 1, 28, 28)).astype(np.float32))
    labels = mo.array(generator.integers(0, 10, 256))
    return lambda: step(images, labels).item()


def seconds(function: Callable[[], Any], calls: int = 1, clock: Any = time.perf_counter) -> float:
    started = clock()
    for _ in range(calls):
        function()
    return clock() - started


def profile() -> None:
    step = lenet_step()
    seconds(step, 10)
    parts, costs = [], []
    for _ in range(TURNS):
        plain = seconds(step, STEPS)
        with mo.profile() as found:
            profiled = seconds(step, STEPS)
        totals = found.totals
        parts.append((totals.kernels + totals.launches + totals.python) / plain)
        costs.append(profiled / plain)
    print(f"profile of LeNet's step: parts over wall time {statistics.median(parts):.3f}, "
          f"profiled over plain {statistics.median(costs):.3f}")  # fmt: skip


def peer(folder: str) -> ctypes.CDLL | None:
    """The C program, compiled; None without gcc or on another processor than x86-64."""
    compiler = shutil.which("gcc")
    if compiler is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    (Path(folder) / "peer.c").write_text(PEER, encoding="utf-8")
    command = [compiler, "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "peer.c", "-o",
               "peer.so", f"-DBITS={machine.instruction_set().vector_bits}"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(Path(folder) / "peer.so"))
    for name in ("peak", "memory", "stream"):
        getattr(library, name).restype = ctypes.c_double
    return library


def compare_roofline(turns: int = 5) -> None:
    """Both on the same arrays, taking turns: how fast memory is depends on where its pages lie."""
    with tempfile.TemporaryDirectory() as folder:
        library = peer(folder)
        if library is None:
            print("roofline: there is no gcc to compare with")
            return
        print("roofline over the C program's: peak, memory, stream (GFLOP/s, GB/s)")
        for pages, plain in (("plain", True), ("huge", False)):
            measured = roofline._Measured(plain)
            for threads in thread_counts(executor().threads):
                pairs = [(own_figures(measured, threads), peer_figures(library, measured, threads))
                         for _ in range(turns)]  # fmt: skip
                own, other = np.max(pairs, axis=0)
                ratios = "  ".join(f"{a / b:.3f} ({a:.1f})" for a, b in zip(own, other))
                print(f"  {pages} pages, {threads} threads: {ratios}")


def own_figures(measured: Any, threads: int) -> list[float]:
    """Peak, memory and stream."""
    rates = [measured.rate(kind, threads) for kind in ("copy", "stream")]
    return [measured.peak(threads), *rates]


def peer_figures(library: ctypes.CDLL, measured: Any, threads: int) -> list[float]:
    """The same of the C program, the best of five runs."""
    x, y = map(ctypes.c_void_p, measured.table[1:].tolist())
    arrays = x, y, ctypes.c_size_t(measured.nbytes // 4)
    arguments = {"peak": (ctypes.c_long(3_000_000),), "memory": arrays, "stream": arrays}
    return [max(getattr(library, name)(threads, *given) for _ in range(5))
            for name, given in arguments.items()]  # fmt: skip


def pictures() -> None:
    net = nn.models.resnet18(10, stem="cifar")
    stages = stages_of(net, [mo.ones(64, 3, 32, 32).sync()], True, "net")
    print(f"ResNet-18's training step, {len(stages.recorded.nodes)} nodes, "
          f"{len(stages.steps)} kernels; drawn in seconds of CPU:")  # fmt: skip
    for stage, form in (("graph", "svg"), ("fused", "svg"), ("all", "html")):
        took = seconds(lambda s=stage, f=form: render(stages, s, f), clock=time.process_time)
        print(f"  {stage} {form}: {took:.2f}")
    took = seconds(lambda: stages.text("graph"), clock=time.process_time)
    print(f"  graph text: {took:.2f}")


if __name__ == "__main__":
    profile()
    compare_roofline()
    pictures()
