"""A training step of LeNet with batch norm, batch 256: metaop, with and without `mo.jit`, and
PyTorch eager take turns.

    python -m benchmarks.lenet
    python -m benchmarks.lenet --rounds 9 --seconds 1 --threads 2

Each framework runs in its own process.  Both get the same initial state and the same batches; their
first losses are compared before anything is timed.  Then each in turn makes steps for `--seconds`
while the others wait, `--rounds` times.  Printed: the median over rounds of milliseconds per step,
and how long metaop takes from the start of a process to the end of its first step with nothing
cached, less what `python -c "import numpy"` takes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import turns

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


def make(framework: str, threads: int) -> turns.Work:
    """Steps on one batch after another; each returns its loss."""
    step, data = MAKERS[framework](threads), itertools.cycle(batches())
    return lambda: [step(*next(data)).detach()]


def first_step(threads: int) -> None:
    """One step and nothing else, for the time of a whole process."""
    images, labels = batches()[0]
    metaop_step(threads)(images, labels).item()


# --- the benchmark --------------------------------------------------------------------------------


def compare(rounds: int, seconds: float, threads: int) -> None:
    workers = {name: turns.Worker("benchmarks.lenet", name, threads) for name in MAKERS}
    digests = {name: worker.ask("row", ["lenet", COMPARED]) for name, worker in workers.items()}
    print(f"losses of the first {COMPARED} steps:")
    for framework, losses in digests.items():
        print(f"  {framework:7} {'  '.join(f'{loss[1]:.6f}' for loss in losses)}")
    apart = max(turns.difference(each, digests["torch"]) for each in digests.values())
    print(f"  largest relative difference: {apart:.1e}")
    if apart > TOLERANCE:
        raise SystemExit("the losses differ: not the same computation")
    times = turns.milliseconds(workers, rounds, seconds)
    for worker in workers.values():
        worker.close()
    print(f"ms per step, batch {BATCH}, {threads} threads, {rounds} rounds:")
    for framework, values in times.items():
        print(
            f"  {framework:7} median {statistics.median(values):6.2f}  "
            f"lowest {min(values):6.2f}  highest {max(values):6.2f}"
        )
    for framework in ("metaop", "jit"):
        faster = turns.ratio(times["torch"], times[framework])
        print(f"speed of {framework}: {faster:.2f} times that of PyTorch eager")


def cold_start(rounds: int, threads: int) -> None:
    first = ["-m", "benchmarks.lenet", "--first-step", "--threads", str(threads)]

    def median(arguments: list[str], cache: str | None = None) -> float:
        """Seconds of a process, with an empty cache or that one."""
        found = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as empty:
                found.append(turns.seconds_of(arguments, threads, METAOP_CACHE=cache or empty))
        return statistics.median(found)

    cold = median(first)
    with tempfile.TemporaryDirectory() as cache:
        turns.seconds_of(first, threads, METAOP_CACHE=cache)
        warm = median(first, cache)
    numpy = median(["-c", "import numpy"])
    print(
        f"process with one step, nothing cached: {cold:.2f} s; with `import numpy`: {numpy:.2f} s; "
        f"difference {cold - numpy:.2f} s"
    )
    print(f"the same with all of it cached on disk: {warm:.2f} s, difference {warm - numpy:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=MAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        turns.serve(lambda _: make(options.worker, options.threads))
    elif options.first_step:
        first_step(options.threads)
    else:
        compare(options.rounds, options.seconds, options.threads)
        cold_start(3, options.threads)


if __name__ == "__main__":
    main()
