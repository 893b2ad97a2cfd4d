"""What looking costs, and whether it is right: the profile of a LeNet step, the measured roofline
beside a C program, pictures of ResNet-18's training step.

    python -m benchmarks.inspection

Of the profile: its parts, each measured on its own, over the wall time of steps that nobody
profiles (bar: within 10 %), and profiled steps over plain ones (bar: 1.05), taking turns.  Of the
roofline: figures of one thread over those of the C program (bar: within 15 %), the best of some
turns.  Of the pictures: seconds of CPU for drawing what is compiled already.
"""

from __future__ import annotations

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
from metaop.inspection import stages_of
from metaop.pictures.render import render

TURNS, STEPS = 15, 5

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


def peer_figures(turns: int = 5) -> np.ndarray | None:
    """The best GFLOP/s and GB/s of one thread that the C program saw; None without gcc."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "peer.c").write_text(PEER, encoding="utf-8")
        command = [compiler, "-O3", "-march=native", "peer.c", "-o", "peer",
                   f"-DBITS={machine.instruction_set().vector_bits}"]  # fmt: skip
        subprocess.run(command, cwd=folder, check=True)
        runs = [subprocess.run(["./peer"], cwd=folder, capture_output=True, text=True, check=True)
                for _ in range(turns)]  # fmt: skip
    return np.max([[float(part) for part in run.stdout.split()] for run in runs], axis=0)


def compare_roofline() -> None:
    point = roofline.measure([1]).points[0]
    peer = peer_figures()
    if peer is None:
        print("roofline: there is no gcc to compare with")
        return
    print(f"roofline of one thread, over the C program's: peak {point.peak / peer[0]:.3f} "
          f"({point.peak:.0f} GFLOP/s), memory {point.memory / peer[1]:.3f} "
          f"({point.memory:.1f} GB/s)")  # fmt: skip


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
