"""What a process holds for kernels that it compiled: 2000 different ones in at most 200 MB.

    python -m benchmarks.many_kernels
    python -m benchmarks.many_kernels --count 500

Each kernel is a chain of operations of its own; nothing is read from the disk cache.  Printed is by
how much the process has grown, and at the end that per kernel; the exit status is 1 beyond the
bound.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import metaop as mo
from benchmarks.batch_sizes import resident

WARM, BOUND = 50, 200.0  # kernels compiled before memory is looked at; MB for 2000 of them
OPERATIONS: tuple[Callable[[Any], Any], ...] = (
    mo.tanh, mo.exp, mo.sigmoid, mo.abs, mo.sqrt, mo.negative, mo.square, mo.sin,
)  # fmt: skip


def chain(number: int, x: Any) -> Any:
    """x under the operations that the digits of a number name, with a sum at the end."""
    number += len(OPERATIONS) ** 4  # as many digits for each
    while number > 1:
        number, digit = divmod(number, len(OPERATIONS))
        x = OPERATIONS[digit](x) + 0.25
    return x.sum(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    count = parser.parse_args().count
    mo.config.cache = "off"
    x = mo.array(np.full((4, 40), 0.5, np.float32))
    start, base = time.perf_counter(), 0.0
    for number in range(WARM + count):
        if number == WARM:
            base, compiled = resident(), mo.stats().compiled
        chain(number, x).numpy()
        done = number + 1 - WARM
        if done > 0 and (done % 250 == 0 or done == count):
            seconds = time.perf_counter() - start
            print(
                f"{done:5} kernels: {resident() - base:6.1f} MB more, {seconds:.0f} s", flush=True
            )
    made = mo.stats().compiled - compiled
    assert made == count, f"{made} kernels were compiled, not {count}"
    grown = resident() - base
    print(f"{1e3 * grown / count:.0f} kB a kernel; bound for 2000: {BOUND:.0f} MB")
    return int(grown > BOUND * count / 2000)


if __name__ == "__main__":
    sys.exit(main())
