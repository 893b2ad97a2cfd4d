"""What Python costs around the kernels of a LeNet training step: with jit, and without.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --batch 256 --steps 50 --rounds 7

With jit: the wall time of a call less that of the native run inside it, both measured in the same
calls; and that of a call whose native run is left out.  Without: microseconds for each node of the
step's graph, for each part of a step: recording the forward pass, the gradient with the optimiser's
update, finding the program (the key and the look-up), the native run, and binding the results; for
`optimizer.step(loss)`, which repeats a step that is known, and for `loss.backward();
optimizer.step()`, which records all of it.  Printed are medians over calls, and lowest tenths in
brackets.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import metaop as mo
from metaop import life, nn, repeated
from metaop.compiler import executor, programs
from metaop.compiler.program import run
from metaop.graph import pending
from metaop.nn import functional

clock: Callable[[], float] = time.perf_counter


class Clock:
    """Adds up the time spent in a function that it replaces; nested calls count once."""

    def __init__(self, owner: Any, name: str):
        self.owner, self.name, self.plain = owner, name, getattr(owner, name)
        self.seconds, self.calls, self.depth = 0.0, 0, 0
        setattr(owner, name, self.timed(self.plain))

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += clock() - start
                    self.calls += 1

        return call

    def take(self) -> float:
        """The seconds since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def restore(self) -> None:
        setattr(self.owner, self.name, self.plain)


def training(
    batch: int, momentum: float, backward: bool = False
) -> tuple[Callable[..., Any], Any, Any]:
    """A LeNet step as a function of images and labels, and one batch; backward: in two calls."""
    mo.manual_seed(0)
    net = nn.models.LeNetBN()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=momentum)

    def step(images: Any, labels: Any) -> Any:
        loss = functional.cross_entropy(net(images), labels)
        if backward:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        else:
            optimizer.step(loss)
        return loss

    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch, 1, 28, 28)).astype(np.float32)
    return step, images, generator.integers(0, 10, batch)


def shown(values: list[float], unit: str, scale: float) -> str:
    low = sorted(values)[len(values) // 10]
    return f"{statistics.median(values) * scale:8.2f} ({low * scale:.2f}) {unit}"


def with_jit(batch: int, momentum: float, rounds: int, steps: int, arrays: bool) -> list[float]:
    """Seconds that are not spent in native code, for every call."""
    plain, images, labels = training(batch, momentum)
    step = mo.jit(plain)
    given = (images, labels) if arrays else (mo.array(images), mo.array(labels))
    for _ in range(3):
        step(*given)
    native = Clock(executor.executor(), "_enter")
    found = []
    for _ in range(rounds * steps):
        native.take()
        start = clock()
        step(*given)
        found.append(clock() - start - native.take())
    native.restore()
    return found


def replayed_alone(batch: int, momentum: float, rounds: int, steps: int) -> list[float]:
    """Seconds of every call with the native run left out: a replay's Python, in warm caches."""
    plain, images, labels = training(batch, momentum)
    step = mo.jit(plain)
    given = (mo.array(images), mo.array(labels))
    for _ in range(3):
        step(*given)
    runner = executor.executor()
    native, runner._enter = runner._enter, lambda *arguments: None
    found = []
    for _ in range(rounds * steps):
        start = clock()
        step(*given)
        found.append(clock() - start)
    runner._enter = native
    return found


def without_jit(
    batch: int, momentum: float, rounds: int, steps: int, backward: bool
) -> dict[str, list[float]]:
    """Seconds a step in each part, for each node of its graph; and the number of those."""
    nodes = count_nodes(*training(batch, momentum, True))
    step, images, labels = training(batch, momentum, backward)
    given = (mo.array(images), mo.array(labels))
    for _ in range(3):
        step(*given)
    clocks = {
        "update": [Clock(nn.optim.Optimizer, "step"), Clock(mo.Var, "backward")],
        "compute": [Clock(life, "compute")],
        "lookup": [Clock(programs, "program_for"), Clock(repeated.Attempt, "_key")],
        "run": [Clock(life, "run"), Clock(repeated, "run")],
        "commit": [Clock(repeated.Attempt, "_bind")],
    }
    parts: dict[str, list[float]] = {}
    for _ in range(rounds * steps):
        for each in itertools.chain(*clocks.values()):
            each.take()
        start = clock()
        step(*given)
        whole = clock() - start
        took = {name: sum(each.take() for each in group) for name, group in clocks.items()}
        lookup, run = took["lookup"], took["run"]
        commit = took["commit"] + (took["compute"] - lookup - run if took["compute"] else 0.0)
        shares = {
            "recording": whole - took["update"],
            "gradient and update": took["update"] - lookup - run - commit,
            "keying and look-up": lookup,
            "run": run,
            "commit and the rest": commit,
            "all but run": whole - run,
        }
        for name, seconds in shares.items():
            parts.setdefault(name, []).append(seconds / nodes)
    for each in itertools.chain(*clocks.values()):
        each.restore()
    parts["nodes"] = [float(nodes)]
    return parts


def count_nodes(step: Callable[..., Any], images: Any, labels: Any) -> int:
    """Nodes that the third step records."""
    given = (mo.array(images), mo.array(labels))
    for _ in range(3):
        before = next(mo.graph._sequence)
        step(*given)
    return next(mo.graph._sequence) - before - 1


def launches(rounds: int, count: int = 2000) -> dict[str, list[float]]:
    """Seconds a launch of a kernel that doubles 16 numbers, in a program of so many phases."""
    x = mo.array(np.ones(16, np.float32))
    y = x * 2.0
    program, leaves = programs.program_for(pending([y._node]), [y._node])
    storages = run(program, leaves)
    (launch,) = program.launches
    runner = executor.executor()
    times: dict[str, list[float]] = {}
    for threads in (1, 2):
        one = executor.Launch(launch.address, [*launch.slots, *launch.integers], threads)
        phases = executor.NativeProgram([[one]] * count)
        runner.run(phases, program.table_address, threads)
        found = times[f"{threads} thread{'s' * (threads > 1)}"] = []
        for _ in range(rounds):
            start = time.perf_counter()
            runner.run(phases, program.table_address, threads)
            found.append((time.perf_counter() - start) / count)
    del storages
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--cpu", action="store_true", help="the thread's own time, not the wall's")
    options = parser.parse_args()
    if options.cpu:
        global clock
        clock = time.thread_time
    size = (options.rounds, options.steps)
    print(f"LeNet with batch norm, batch {options.batch}, training steps")
    print("with jit, a call less its native run:")
    for momentum in (0.0, 0.9):
        for arrays in (False, True):
            times = with_jit(options.batch, momentum, *size, arrays)
            kind = "ndarrays" if arrays else "Vars"
            print(f"  momentum {momentum}, given {kind:8}: {shown(times, 'µs', 1e6)}")
    print("with jit, a call with the native run left out:")
    for momentum in (0.0, 0.9):
        times = replayed_alone(options.batch, momentum, *size)
        print(f"  momentum {momentum}                : {shown(times, 'µs', 1e6)}")
    print("a launch, each in a phase of its own:")
    for name, values in launches(4 * options.rounds).items():
        print(f"  {name:28}: {shown(values, 'µs', 1e6)}")
    for backward in (False, True):
        parts = without_jit(options.batch, 0.9, *size, backward)
        form = "loss.backward(); optimizer.step()" if backward else "optimizer.step(loss)"
        print(f"without jit, {form}, {parts.pop('nodes')[0]:.0f} nodes, microseconds a node:")
        for name, values in parts.items():
            print(f"  {name:20} {shown(values, 'µs', 1e6)}")


if __name__ == "__main__":
    main()
