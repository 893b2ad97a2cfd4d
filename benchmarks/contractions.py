"""Contractions: products of matrices and convolutions with their gradients, against PyTorch eager.

    python -m benchmarks.contractions
    python -m benchmarks.contractions --only conv3x3 --rounds 9 --threads 2
    python -m benchmarks.contractions --more --json contractions.json

Each framework runs in its own process and waits while the other one works.  Both get the same
operands; their results are compared before anything is timed.  Printed for every row: the median
over rounds of milliseconds, metaop's speed in times PyTorch's, and the share of the peak that
metaop reaches, where the peak is what a loop of nothing but multiply-adds does in the same run.
`--more` adds shapes that no bar names: odd channel counts, small images, dilation, groups.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import turns
from benchmarks.peak import peak
from benchmarks.turns import Work

TOLERANCE = 1e-4  # of results against each other, in units of the largest
SECONDS = 0.25  # that one round of a row takes, about


@dataclass(frozen=True)
class Product:
    """a [m, k] times b [k, n]."""

    name: str
    m: int
    k: int
    n: int
    backward: bool = False

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.k * self.n * (3 if self.backward else 1)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.m, self.k), (self.k, self.n), (self.m, self.n)]

    def call(self, library: Any, a: Any, b: Any) -> Any:
        return a @ b


@dataclass(frozen=True)
class Convolution:
    """A square convolution of square images, padded as far as `pad`."""

    name: str
    batch: int
    channels: int
    size: int
    outputs: int
    window: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1
    groups: int = 1
    backward: bool = False

    @property
    def out(self) -> int:
        span = (self.window - 1) * self.dilation + 1
        return (self.size + 2 * self.pad - span) // self.stride + 1

    @property
    def flops(self) -> float:
        taps = self.channels // self.groups * self.window**2
        once = 2.0 * self.batch * self.outputs * self.out**2 * taps
        return once * (3 if self.backward else 1)

    def shapes(self) -> list[tuple[int, ...]]:
        return [
            (self.batch, self.channels, self.size, self.size),
            (self.outputs, self.channels // self.groups, self.window, self.window),
            (self.batch, self.outputs, self.out, self.out),
        ]

    def call(self, library: Any, x: Any, w: Any) -> Any:
        settings = {"stride": self.stride, "padding": self.pad, "dilation": self.dilation}
        return library.conv2d(x, w, groups=self.groups, **settings)


Row = Product | Convolution

ROWS: list[Row] = [
    Product("matmul 1024", 1024, 1024, 1024),
    Convolution("conv3x3 256 14² b32", 32, 256, 14, 256, 3, pad=1),
    Convolution("conv3x3 256 14² b32 +bwd", 32, 256, 14, 256, 3, pad=1, backward=True),
    Convolution("conv3x3 64 56² b32", 32, 64, 56, 64, 3, pad=1),
    Convolution("conv3x3 64 56² b32 +bwd", 32, 64, 56, 64, 3, pad=1, backward=True),
    Convolution("conv7x7s2 3→64 224² b32 +bwd", 32, 3, 224, 64, 7, 2, 3, backward=True),
    Convolution("conv1x1 256→64 56² b32 +bwd", 32, 256, 56, 64, 1, backward=True),
]
MORE: list[Row] = [
    Product("matmul 1000x37x515", 1000, 37, 515),
    Product("matmul 100000x64x32", 100_000, 64, 32),
    Product("linear 256x784x512 +bwd", 256, 784, 512, backward=True),
    Convolution("conv3x3 3→17 64² b8 +bwd", 8, 3, 64, 17, 3, pad=1, backward=True),
    Convolution("conv3x3 17→100 30² b8 +bwd", 8, 17, 30, 100, 3, pad=1, backward=True),
    Convolution("conv1x1 512→512 7² b32 +bwd", 32, 512, 7, 512, 1, backward=True),
    Convolution("conv3x3 512 7² b32 +bwd", 32, 512, 7, 512, 3, pad=1, backward=True),
    Convolution("conv3x3s2 64→128 56² b8 +bwd", 8, 64, 56, 128, 3, 2, 1, backward=True),
    Convolution("conv3x3 64 28² d2 b8 +bwd", 8, 64, 28, 64, 3, 1, 2, 2, backward=True),
    Convolution("conv3x3 64 28² g4 b8 +bwd", 8, 64, 28, 64, 3, 1, 1, 1, 4, backward=True),
    Convolution("depthwise 64 28² b8 +bwd", 8, 64, 28, 64, 3, 1, 1, 1, 64, backward=True),
    Convolution("depthwise 32 112² b1", 1, 32, 112, 32, 3, 1, 1, 1, 32),
    Convolution("depthwise5x5s2 144 56² b8 +bwd", 8, 144, 56, 144, 5, 2, 2, 1, 144, backward=True),
    Convolution("depthwise 512 14² b32 +bwd", 32, 512, 14, 512, 3, 1, 1, 1, 512, backward=True),
    Convolution("depthwise5x5 512 7² b32 +bwd", 32, 512, 7, 512, 5, 1, 2, 1, 512, backward=True),
    Convolution("conv3x3 128 56² g32 b8 +bwd", 8, 128, 56, 128, 3, 1, 1, 1, 32, backward=True),
    Convolution("conv3x3s2 256 56² g32 b8 +bwd", 8, 256, 56, 256, 3, 2, 1, 1, 32, backward=True),
    Convolution("conv3x3 1024 7² g32 b8 +bwd", 8, 1024, 7, 1024, 3, 1, 1, 1, 32, backward=True),
    Convolution("lenet 1→6 28² b256 +bwd", 256, 1, 28, 6, 5, backward=True),
    Convolution("lenet 6→16 12² b256 +bwd", 256, 6, 12, 16, 5, backward=True),
]
ALL = {row.name: row for row in [*ROWS, *MORE]}


def operands(row: Row) -> list[np.ndarray]:
    """Both factors, and what is given as the gradient of the result."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(np.float32) for shape in row.shapes()]


# --- the two workers: each makes a function that computes a row and returns its results ----------


def metaop_row(row: Row, threads: int) -> Work:
    import metaop as mo

    mo.set_num_threads(threads)
    a, b, g = (mo.array(x) for x in operands(row))
    a.requires_grad = b.requires_grad = row.backward

    def work() -> list[Any]:
        y = row.call(mo, a, b)
        results = [y, *mo.grad(y, [a, b], g, retain_graph=False)] if row.backward else [y]
        mo.sync()
        return results

    return work


def torch_row(row: Row, threads: int) -> Work:
    import torch

    torch.set_num_threads(threads)
    a, b, g = (torch.from_numpy(x) for x in operands(row))
    a.requires_grad = b.requires_grad = row.backward

    def work() -> list[Any]:
        y = row.call(torch.nn.functional, a, b)
        return [y.detach(), *torch.autograd.grad(y, [a, b], g)] if row.backward else [y]

    return work


MAKERS = {"metaop": metaop_row, "torch": torch_row}

# --- the benchmark --------------------------------------------------------------------------------


def measure(row: Row, workers: dict[str, turns.Worker], rounds: int) -> dict[str, Any]:
    """Median milliseconds of both, and the peak, in turns."""
    digests = [worker.ask("row", [row.name, 1]) for worker in workers.values()]
    apart = turns.difference(*digests)
    if apart > TOLERANCE:
        raise SystemExit(f"{row.name}: results differ by {apart:.1e}")
    times = turns.milliseconds(workers, rounds, SECONDS)
    most = max(workers["metaop"].ask("peak") for _ in range(2))
    found: dict[str, Any] = {name: statistics.median(values) for name, values in times.items()}
    rate = row.flops / found["metaop"] / 1e6
    found.update(row=row.name, apart=apart, ratio=found["torch"] / found["metaop"], rate=rate,
                 peak=most, share=rate / most,
                 lowest={name: min(values) for name, values in times.items()})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--more", action="store_true", help="also shapes that no bar names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="a file to write the figures to")
    parser.add_argument("--worker", choices=MAKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        turns.serve(
            lambda name: MAKERS[options.worker](ALL[name], options.threads),
            peak=lambda _: peak(options.threads),
        )
        return
    rows = [row for row in (list(ALL.values()) if options.more else ROWS)
            if options.only in row.name]  # fmt: skip
    workers = {n: turns.Worker("benchmarks.contractions", n, options.threads) for n in MAKERS}
    print(f"{options.threads} threads, {options.rounds} rounds, medians in ms; "
          f"ratio: metaop's speed in times PyTorch's")  # fmt: skip
    print(
        f"{'':30} {'metaop':>9} {'torch':>9} {'ratio':>6} {'lowest':>7} {'GFLOP/s':>8} {'peak':>6}"
    )
    results = []
    for row in rows:
        found = measure(row, workers, options.rounds)
        results.append(found)
        low = found["lowest"]
        print(
            f"{row.name:30} {found['metaop']:9.3f} {found['torch']:9.3f} {found['ratio']:6.2f} "
            f"{low['torch'] / low['metaop']:7.2f} {found['rate']:8.1f} {found['peak']:6.0f} "
            f"{found['share']:5.0%}",
            flush=True,
        )
    for worker in workers.values():
        worker.close()
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
