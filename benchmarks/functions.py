"""What a call of an array function costs in Python beyond the nodes that it records.

    python benchmarks/functions.py [--limit 10]

Every function of `tests/api_table.py` is called on the tests' operands; from its time that of as
many bare nodes is taken.  Prints the functions in order of the rest, in microseconds per call, and
fails if one exceeds the limit; what computes at the call is left out.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import metaop as mo
from metaop import graph
from metaop.build import broadcast_to
from metaop.graph import Elementwise
from tests.api_table import TABLE, Function

ROUNDS, CALLS = 9, 20


def microseconds(call: Callable[[], object]) -> float:
    """The least mean time of a call over some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        best = min(best, (time.perf_counter() - started) / CALLS)
    return 1e6 * best


def nodes_of(call: Callable[[], object]) -> int:
    """How many nodes a call records."""
    before = next(graph._sequence)
    call()
    return next(graph._sequence) - before - 1


def bare_node() -> float:
    """The time of one recorded node in its Var: the mean of an elementwise one and a reindex."""
    x = mo.array(np.zeros((3, 5)))._node
    row = mo.array(np.zeros(5))._node
    return (
        microseconds(lambda: mo.Var._of(Elementwise("neg", x)))
        + microseconds(lambda: mo.Var._of(broadcast_to(row, (3, 5))))
    ) / 2


def measured(function: Function) -> tuple[float, int] | None:
    """(microseconds, nodes) of a call; None if it computes at once."""
    rng = np.random.default_rng(zlib.crc32(function.name.encode()))
    operands = [mo.array(make(rng)) for make in function.operands]
    given: Any = mo
    for part in function.name.split("."):
        given = getattr(given, part)
    call = function.call or (lambda m, *x: given(*x))
    programs = mo.stats().programs
    call(mo, *operands)
    if mo.stats().programs != programs or function.note == "computes at the call":
        return None
    return microseconds(lambda: call(mo, *operands)), nodes_of(lambda: call(mo, *operands))


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=10.0, help="microseconds")
    limit = parser.parse_args().limit
    node = bare_node()
    print(f"a bare node takes {node:.1f} µs")
    rows = []
    for function in TABLE:
        found = measured(function)
        if found is not None:
            rows.append((found[0] - found[1] * node, found[0], found[1], function.name))
    for rest, total, nodes, name in sorted(rows, reverse=True)[:40]:
        print(f"{name:32} {total:8.1f} µs, {nodes:3} nodes, {rest:8.1f} µs beyond them")
    slow = [name for rest, _, _, name in rows if rest > limit]
    print(f"{len(slow)} of {len(rows)} functions exceed {limit} µs: {' '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
