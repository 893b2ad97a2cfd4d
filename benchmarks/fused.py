"""Memory-bound work as one kernel: batch norm with ReLU and softmax beside a copy of their input.

    python -m benchmarks.fused
    python -m benchmarks.fused --rounds 9 --threads 2

The copy is metaop's own, of the input into memory that was touched before, in the same run; each
line prints the median over rounds of milliseconds, and how many copies that is: of whole calls,
with the recording of the graph, and of the time in kernels alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import metaop as mo
from metaop import nn
from metaop.compiler.executor import executor

BARS = {"batch norm + ReLU forward": 2.0, "batch norm + ReLU backward": 3.0, "softmax": 1.8}


def copying(x: mo.Var) -> Callable[[], object]:
    """Copies x."""
    return lambda: (x + 0.0).sync()


def batch_norm_forward(x: mo.Var) -> Callable[[], object]:
    net = nn.Sequential(nn.BatchNorm2d(x.shape[1]), nn.ReLU())

    def run() -> object:
        with mo.no_grad():
            return net(x).sync()

    return run


def batch_norm_backward(x: mo.Var) -> Callable[[], object]:
    """The gradients of input, scale and shift; of a forward pass that is not timed."""
    x = x.detach().requires_grad_()
    net = nn.Sequential(nn.BatchNorm2d(x.shape[1]), nn.ReLU())
    upstream = mo.array(np.random.default_rng(1).standard_normal(x.shape).astype(np.float32))
    y = net(x)
    mo.sync()

    def run() -> object:
        grads = mo.grad((y * upstream).sum(), [x, *net.parameters()])
        with mo.no_grad():
            return [g.detach().sync() for g in grads[:1]]

    return run


def softmax(x: mo.Var) -> Callable[[], object]:
    return lambda: nn.functional.softmax(x, 1).sync()


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a call, and of the kernels of another one."""
    started = time.perf_counter()
    run()
    whole = time.perf_counter() - started
    with mo.profile() as profile:
        run()
    return 1e3 * whole, 1e3 * sum(kernel.seconds for kernel in profile.kernels)


def compare(shape: tuple[int, ...], makers: dict[str, Callable], rounds: int) -> None:
    x = mo.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    runs = {"copy": copying(x), **{name: make(x) for name, make in makers.items()}}
    for run in runs.values():
        run()
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(measure(run))
    for name, measured in times.items():
        pairs = list(zip(measured, times["copy"]))
        ms = [statistics.median(column) for column in zip(*measured)]
        copies = [statistics.median(t[k] / c[k] for t, c in pairs) for k in (0, 1)]
        if name == "copy":
            rate = 2e-6 * x.nbytes / ms[1]
            print(f"copy of {'x'.join(map(str, shape))}: {ms[0]:.2f} ms, {ms[1]:.2f} in kernels, "
                  f"{rate:.1f} GB/s")  # fmt: skip
        else:
            print(f"  {name}: {ms[0]:.2f} ms, {copies[0]:.2f} copies; {ms[1]:.2f} in kernels, "
                  f"{copies[1]:.2f} copies (bar {BARS[name]})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    mo.set_num_threads(options.threads)
    layers = {
        "batch norm + ReLU forward": batch_norm_forward,
        "batch norm + ReLU backward": batch_norm_backward,
    }
    compare((64, 64, 56, 56), layers, options.rounds)
    compare((8192, 1024), {"softmax": softmax}, options.rounds)
    print(f"{executor().threads} threads, {executor().layer}")


if __name__ == "__main__":
    main()
