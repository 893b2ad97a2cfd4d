"""What a call of an array function costs in Python beyond the nodes that it records.

    python benchmarks/functions.py [--limit 10]

Every function of `tests/api_table.py` is called on the tests' operands, of which there are several
sets: the extents of each call have another origin than those of the one before, as in a training.
From the time of a call that of as many bare nodes is taken, each with its Var: a function that
records ten nodes may take as long as ten, and the limit besides; a value in memory that it is given
as an array takes as long as `mo.array` does.  Where a row of the table calls several functions and
operators of metaop (it adds an operand to its transpose), it may take the limit for each.

Calls and bare nodes take turns, so that both are measured at one speed of the machine; printed are
medians, in microseconds of the thread's time at the speed of the quickest bare node.  The first
calls are left out: they find the index expressions that later ones remember.  So is what computes
at the call.  Fails if a row exceeds its limit.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
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
from metaop.errors import is_own
from metaop.graph import Elementwise
from tests.api_table import TABLE, Function

ROUNDS, CALLS, SETS = 9, 8, 4


def microseconds(call: Callable[[], object], calls: int) -> float:
    """The mean time of a call."""
    started = time.thread_time_ns()
    for _ in range(calls):
        call()
    return (time.thread_time_ns() - started) / calls / 1000


def nodes_of(call: Callable[[], object]) -> tuple[int, int]:
    """How many nodes a call records, and how many values in memory besides."""
    values = 0
    plain: Any = graph.Buffer._record

    def record(*arguments: Any) -> None:
        nonlocal values
        values += 1
        plain(*arguments)

    graph.Buffer._record = record  # type: ignore[method-assign]
    before = next(graph._sequence)
    try:
        call()
    finally:
        graph.Buffer._record = plain
    return next(graph._sequence) - before - 1 - values, values


def bare_nodes() -> Callable[[], None]:
    """Records two nodes, an elementwise one and a reindex, each with its Var."""
    x = mo.array(np.zeros((3, 5)))._node
    row = mo.array(np.zeros(5))._node

    def record() -> None:
        mo.Var._of(Elementwise("neg", x))
        mo.Var._of(broadcast_to(row, (3, 5)))

    return record


def functions_in(call: Callable[..., Any], operands: list[mo.Var]) -> int:
    """How many functions, operators and properties of metaop a function calls itself."""
    code, count = call.__code__, 0

    def note(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        if event == "call" and frame.f_back is not None and frame.f_back.f_code is code:
            count += is_own(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        call(mo, *operands)
    finally:
        sys.setprofile(None)
    return max(count, 1)


def called_by(function: Function) -> Callable[..., Any]:
    """What a row of the table calls, with operands alone."""
    if function.call is not None:
        return functools.partial(function.call, mo)
    found: Any = mo
    for part in function.name.split("."):
        found = getattr(found, part)
    return found


def measured(
    function: Function, bare: Callable[[], None], value: float
) -> tuple[float, float, int] | None:
    """The time of a call in bare nodes, how many it records, and how many functions it is; None if
    it computes.  value: the time of a value in memory, in bare nodes."""
    rng = np.random.default_rng(zlib.crc32(function.name.encode()))
    sets = [[mo.array(make(rng)) for make in function.operands] for _ in range(SETS)]
    programs = mo.stats().programs
    plain = called_by(function)
    plain(*sets[0])
    if mo.stats().programs != programs or function.note == "computes at the call":
        return None
    functions = 1 if function.call is None else functions_in(function.call, sets[0])
    given = itertools.cycle(sets)

    def call() -> Any:
        return plain(*next(given))

    microseconds(call, SETS)
    nodes, values = nodes_of(call)
    times = []
    for _ in range(ROUNDS):
        before = microseconds(bare, CALLS)
        own = microseconds(call, CALLS)
        after = microseconds(bare, CALLS)
        times.append(own / ((before + after) / 4))
    return statistics.median(times), nodes + values * value, functions


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=10.0, help="microseconds")
    limit = parser.parse_args().limit
    bare, array = bare_nodes(), np.zeros(3)
    node = min(microseconds(bare, CALLS) for _ in range(200)) / 2
    value = min(microseconds(lambda: mo.array(array), CALLS) for _ in range(200)) / node
    print(f"a bare node takes {node:.2f} µs, a value in memory {value * node:.2f} µs")
    rows, slow = [], []
    for function in TABLE:
        found = measured(function, bare, value)
        if found is None:
            continue
        total, allowed, functions = (found[0] * node, found[1] * node, found[2])
        rows.append((total - allowed, total, allowed, functions, function.name))
        if total - allowed > functions * limit:
            slow.append(function.name)
    for rest, total, allowed, functions, name in sorted(rows, reverse=True)[:40]:
        several = f" of {functions} functions" if functions > 1 else ""
        print(f"{name:24} {total:7.1f} µs, its nodes {allowed:6.1f}, beyond {rest:6.1f}{several}")
    print(f"{len(slow)} of {len(rows)} functions exceed {limit} µs: {' '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
