"""What a batch size costs that was not seen before, and what 500 of them cost in memory.

    python -m benchmarks.batch_sizes

Trains LeNet with batch normalisation and dropout at batch 512, then at every size from 2 to 501 in
random order.  Prints, for sizes met for the first time, the milliseconds beyond those of the next
step of the same size, the parts of that in processor time (key, binding), what was compiled, and by
how much the process grew.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

import metaop as mo
from metaop import nn
from metaop.compiler import programs
from metaop.compiler.kernels import statistics as compiled
from metaop.compiler.program import Program, arena

LARGEST = 512
SAMPLED = 40  # sizes whose first step is compared with the next


def network() -> nn.Module:
    """LeNet with batch normalisation and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Dropout(0.1), nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


def resident() -> float:
    """Megabytes of memory in use by this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def timed(name: str, function: Callable[..., Any], seconds: dict[str, list[float]]) -> Any:
    """The function, whose processor time is noted."""

    def measured(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        result = function(*args, **options)
        seconds[name].append(time.process_time() - started)
        return result

    return measured


def main() -> None:
    """Prints the table."""
    rng = np.random.default_rng(0)
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    seconds: dict[str, list[float]] = defaultdict(list)
    programs.canonical = timed("key", programs.canonical, seconds)
    Program.bind = timed("bind", Program.bind, seconds)  # type: ignore[method-assign]

    def step(batch: int) -> float:
        images = mo.array(rng.standard_normal((batch, 1, 28, 28)).astype(np.float32))
        labels = mo.array(rng.integers(0, 10, batch))
        started = time.perf_counter()
        optimizer.step(nn.functional.cross_entropy(net(images), labels))
        return 1e3 * (time.perf_counter() - started)

    for batch in (LARGEST,) * 5:
        step(batch)
    before, kernels, made, arena_before = (
        resident(),
        compiled.compiled,
        compiled.programs,
        arena.nbytes,
    )
    sizes = list(range(2, 502))
    random.Random(0).shuffle(sizes)
    seconds.clear()
    extra = []
    for number, batch in enumerate(sizes):
        first = step(batch)
        if number < SAMPLED:
            extra.append(first - min(step(batch), step(batch)))
    parts = ", ".join(f"{n} {1e3 * statistics.median(s):.1f} ms" for n, s in seconds.items())
    print(f"a new batch size: {statistics.median(extra):.1f} ms over a repeated step ({parts})")
    print(f"{len(sizes)} sizes: {compiled.programs - made} programs and "
          f"{compiled.compiled - kernels} kernels were compiled; memory {before:.0f} MB before, "
          f"{100 * (resident() / before - 1):+.1f} % after; arena {arena_before / 1e6:.1f} MB, "
          f"{arena.nbytes / 1e6:.1f} MB after")  # fmt: skip


if __name__ == "__main__":
    main()
