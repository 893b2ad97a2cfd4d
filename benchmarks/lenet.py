"""A training step of LeNet with batch norm, batch 256: metaop, with and without `mo.jit`, and
PyTorch eager take turns.

    python -m benchmarks.lenet
    python -m benchmarks.lenet --rounds 9 --steps 40 --threads 2

Each framework runs in its own process.  Both get the same initial state and the same batches; their
first losses are compared before anything is timed.  Then each in turn makes `--steps` steps while
the other one waits, `--rounds` times.  Printed: the median over rounds of milliseconds per step,
and how long metaop takes from the start of a process to the end of its first step with nothing
cached, less what `python -c "import numpy"` takes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BATCH, BATCHES, COMPARED = 256, 8, 5
TOLERANCE = 1e-4  # of the losses; rounding is multiplied by every step


# --- what both are given --------------------------------------------------------------------------


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [256, 28, 28] of noise whose mean brightness tells the label."""
    generator = np.random.default_rng(0)
    result = []
    for _ in range(BATCHES):
        labels = generator.integers(0, 10, BATCH)
        noise = generator.integers(0, 128, (BATCH, 28, 28))
        result.append(((noise + 12 * labels[:, None, None]).astype(np.uint8), labels))
    return result


def initial_state() -> dict[str, np.ndarray]:
    """The parameters and statistics from which both start, by their names in the state dict."""
    generator = np.random.default_rng(1)
    state = {}
    weights = {"0": (6, 1, 5, 5), "4": (16, 6, 5, 5), "9": (120, 256), "12": (84, 120),
               "15": (10, 84)}  # fmt: skip
    for name, shape in weights.items():
        window = int(np.prod(shape[2:]))
        bound = (6 / ((shape[0] + shape[1]) * window)) ** 0.5
        state[f"{name}.weight"] = generator.uniform(-bound, bound, shape).astype(np.float32)
        state[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    for name, features in {"1": 6, "5": 16, "10": 120, "13": 84}.items():
        for key, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
            state[f"{name}.{key}"] = np.full(features, value, np.float32)
        state[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)
    return state


# --- the two workers: each returns a step, a function of a batch that returns its loss ------------


def metaop_step(threads: int) -> Callable[[Any, Any], float]:
    import metaop as mo
    from metaop import nn

    mo.set_num_threads(threads)
    net = nn.models.LeNetBN()
    net.load_state_dict(initial_state())
    optimizer = nn.optim.SGD(net.parameters(), lr=1.0)

    def step(images: np.ndarray, labels: np.ndarray) -> Any:
        logits = net(mo.array(images)[:, None] / 255)
        loss = nn.functional.cross_entropy(logits, mo.array(labels))
        optimizer.step(loss)
        return loss

    return step


def torch_step(threads: int) -> Callable[[Any, Any], float]:
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid()),
        *(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, 10)),
    )
    net.load_state_dict({name: torch.from_numpy(v) for name, v in initial_state().items()})
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)

    def step(images: np.ndarray, labels: np.ndarray) -> Any:
        logits = net(torch.from_numpy(images)[:, None] / 255)
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def jit_step(threads: int) -> Callable[[Any, Any], float]:
    import metaop as mo

    return mo.jit(metaop_step(threads))


MAKERS = {"metaop": metaop_step, "jit": jit_step, "torch": torch_step}


def work(framework: str, threads: int) -> None:
    """Answer lines of standard input: a number of steps; with the losses, or with seconds."""
    step, data = MAKERS[framework](threads), batches()
    losses = [float(step(*data[k % BATCHES]).item()) for k in range(COMPARED)]
    print(json.dumps(losses), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for k in range(int(line)):
            loss = step(*data[k % BATCHES])
        loss.item()
        print(json.dumps(time.perf_counter() - start), flush=True)


def first_step(threads: int) -> None:
    """One step and nothing else, for the time of a whole process."""
    images, labels = batches()[0]
    metaop_step(threads)(images, labels).item()


# --- the benchmark --------------------------------------------------------------------------------


def environment(threads: int, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), **more}


class Worker:
    """A framework in its own process, idle until it is asked."""

    def __init__(self, framework: str, threads: int):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", framework, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads),
        )

    def read(self) -> Any:
        """The next answer."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self.process.wait()}")
        return json.loads(line)

    def milliseconds(self, steps: int) -> float:
        """Time per step."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.read() / steps * 1e3

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def seconds_of(arguments: list[str], threads: int, kept: str | None = None) -> float:
    """How long a Python process takes, from start to end, with an empty cache or that one."""
    with tempfile.TemporaryDirectory() as empty:
        cache = kept or empty
        start = time.perf_counter()
        variables = environment(threads, METAOP_CACHE=cache)
        subprocess.run([sys.executable, *arguments], check=True, env=variables)
        return time.perf_counter() - start


def compare(rounds: int, steps: int, threads: int) -> None:
    workers = {framework: Worker(framework, threads) for framework in MAKERS}
    losses = {framework: worker.read() for framework, worker in workers.items()}
    print(f"losses of the first {COMPARED} steps:")
    for framework, values in losses.items():
        print(f"  {framework:7} {'  '.join(f'{v:.6f}' for v in values)}")
    apart = max(
        abs(value - other) / abs(other)
        for values in losses.values()
        for value, other in zip(values, losses["torch"], strict=True)
    )
    print(f"  largest relative difference: {apart:.1e}")
    if apart > TOLERANCE:
        raise SystemExit("the losses differ: not the same computation")
    for worker in workers.values():
        worker.milliseconds(steps)  # warm
    times: dict[str, list[float]] = {framework: [] for framework in MAKERS}
    for _ in range(rounds):
        for framework, worker in workers.items():
            times[framework].append(worker.milliseconds(steps))
    for worker in workers.values():
        worker.close()
    print(f"ms per step, batch {BATCH}, {threads} threads, {rounds} rounds of {steps} steps:")
    for framework, values in times.items():
        print(
            f"  {framework:7} median {statistics.median(values):6.2f}  "
            f"lowest {min(values):6.2f}  highest {max(values):6.2f}"
        )
    for framework in ("metaop", "jit"):
        rounds_of_both = zip(times["torch"], times[framework], strict=True)
        ratio = statistics.median(other / own for other, own in rounds_of_both)
        print(f"speed of {framework}: {ratio:.2f} times that of PyTorch eager")


def cold_start(rounds: int, threads: int) -> None:
    first = [__file__, "--first-step", "--threads", str(threads)]
    cold = statistics.median(seconds_of(first, threads) for _ in range(rounds))
    with tempfile.TemporaryDirectory() as cache:
        seconds_of(first, threads, cache)
        warm = statistics.median(seconds_of(first, threads, cache) for _ in range(rounds))
    numpy = statistics.median(seconds_of(["-c", "import numpy"], threads) for _ in range(rounds))
    print(
        f"process with one step, nothing cached: {cold:.2f} s; with `import numpy`: {numpy:.2f} s; "
        f"difference {cold - numpy:.2f} s"
    )
    print(f"the same with all of it cached on disk: {warm:.2f} s, difference {warm - numpy:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=MAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads)
    elif options.first_step:
        first_step(options.threads)
    else:
        compare(options.rounds, options.steps, options.threads)
        cold_start(3, options.threads)


if __name__ == "__main__":
    main()
