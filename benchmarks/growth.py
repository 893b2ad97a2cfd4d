"""How time and memory grow: with the batch, with threads, with the depth of a network.

    python -m benchmarks.growth
    python -m benchmarks.growth --json growth.json --plot growth.png

Time per example of LeNet (batch norm after its convolutions) against batch size, with 1 and 2
threads; of a stack of residual blocks against its depth: the first step with nothing cached, a
repeated step, the most memory that the process held.  Each depth runs in a fresh process.  --plot
needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import turns

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
THREADS = (1, 2)
DEPTHS = (1, 2, 4, 8)
CHANNELS, SIZE, SAMPLES = 32, 16, 32


def training(net: Any, shape: tuple[int, ...]) -> Any:
    """A jitted step of SGD as a function without arguments."""
    import metaop as mo
    from metaop import nn

    optimizer = nn.optim.SGD(net.parameters(), lr=0.01)
    generator = np.random.default_rng(0)
    x = mo.array(generator.standard_normal(shape).astype(np.float32))
    labels = mo.array(generator.integers(0, 10, shape[0]))

    @mo.jit
    def step(x: Any, labels: Any) -> Any:
        loss = nn.functional.cross_entropy(net(x), labels)
        optimizer.step(loss)
        return loss

    return lambda: step(x, labels).item()


def repeated(step: Any, rounds: int, seconds: float) -> float:
    """The median over rounds of milliseconds a call."""
    step()
    start = time.perf_counter()
    step()
    calls = max(1, min(500, int(seconds / (time.perf_counter() - start))))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            step()
        times.append(1e3 * (time.perf_counter() - start) / calls)
    return statistics.median(times)


def over_batches(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds a step of LeNet for every batch size and number of threads."""
    import metaop as mo
    from metaop import nn

    # Of one example BatchNorm1d has one value a channel, which has no variance.
    layers = [x for x in nn.models.LeNetBN() if not isinstance(x, nn.BatchNorm1d)]
    net, found = nn.Sequential(*layers), []
    for batch in BATCHES:
        step = training(net, (batch, 1, 28, 28))
        line: dict[str, Any] = {"batch": batch}
        for threads in THREADS:
            mo.set_num_threads(threads)
            line[f"{threads} threads"] = repeated(step, rounds, seconds)
        found.append(line)
    return found


def deep(depth: int) -> Any:
    """A 3x3 convolution, so many pairs of residual blocks, a linear layer."""
    from metaop import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
            block = nn.models.BasicBlock
            self.blocks = nn.Sequential(*(block(CHANNELS, CHANNELS) for _ in range(2 * depth)))
            self.fc = nn.Linear(CHANNELS, 10)

        def forward(self, x: Any) -> Any:
            return self.fc(self.blocks(self.stem(x)).mean(axis=(2, 3)))

    return Net()


def at_depth(depth: int, rounds: int, seconds: float, threads: int) -> None:
    """Prints what a network of this depth costs this process."""
    import resource

    import metaop as mo

    mo.set_num_threads(threads)
    net = deep(depth)
    mo.sync()
    step = training(net, (SAMPLES, 3, SIZE, SIZE))
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    found = {"depth": depth, "first": first, "step": repeated(step, rounds, seconds),
             "kernels": mo.stats().compiled}  # fmt: skip
    unit = 1e6 if sys.platform == "darwin" else 1e3
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found["arena"] = mo.stats().arena_bytes / 1e6
    print(json.dumps(found))


def over_depths(rounds: int, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Seconds of the first step, milliseconds of a repeated one and MB, for every depth."""
    found = []
    for depth in DEPTHS:
        with tempfile.TemporaryDirectory() as empty:
            given = ["--depth", str(depth), "--rounds", str(rounds), "--seconds", str(seconds)]
            process = subprocess.run(
                [sys.executable, "-m", "benchmarks.growth", *given, "--threads", str(threads)],
                check=True, capture_output=True, text=True, cwd=turns.ROOT,
                env=turns.environment(threads, METAOP_CACHE=empty),
            )  # fmt: skip
        found.append(json.loads(process.stdout.splitlines()[-1]))
    return found


def show(batches: list[dict[str, Any]], depths: list[dict[str, Any]]) -> None:
    """Both tables."""
    print("LeNet, training step, microseconds an example")
    print(f"{'batch':>6}" + "".join(f"{f'{t} thread' + 's' * (t > 1):>12}" for t in THREADS))
    for line in batches:
        each = (1e3 * line[f"{threads} threads"] / line["batch"] for threads in THREADS)
        print(f"{line['batch']:6}" + "".join(f"{value:12.1f}" for value in each))
    print(
        f"\n{CHANNELS} channels, {SIZE}x{SIZE}, batch {SAMPLES}: 2 residual blocks times the depth"
    )
    print(f"{'depth':>6}{'first step':>12}{'step':>12}{'kernels':>9}{'memory':>10}{'arena':>10}")
    for line in depths:
        print(
            f"{line['depth']:6}{line['first']:10.2f} s{line['step']:9.2f} ms{line['kernels']:9}"
            f"{line['memory']:7.0f} MB{line['arena']:7.0f} MB"
        )


def plot(batches: list[dict[str, Any]], depths: list[dict[str, Any]], path: str) -> None:
    """The tables as four curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for threads in THREADS:
        values = [1e3 * line[f"{threads} threads"] / line["batch"] for line in batches]
        label = f"{threads} thread" + "s" * (threads > 1)
        axes[0, 0].loglog([line["batch"] for line in batches], values, "o-", base=2, label=label)
    axes[0, 0].set(xlabel="batch", ylabel="µs an example", title="LeNet, training step")
    axes[0, 0].legend()
    curves = {"first": "first step (s)", "step": "repeated step (ms)", "memory": "memory (MB)"}
    for axis, (key, label) in zip([axes[0, 1], axes[1, 0], axes[1, 1]], curves.items()):
        axis.plot([line["depth"] for line in depths], [line[key] for line in depths], "o-")
        axis.set(xlabel="depth", ylabel=label, ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a round")
    parser.add_argument("--threads", type=int, default=2, help="of the networks of several depths")
    parser.add_argument("--json", help="a file to write the figures to")
    parser.add_argument("--plot", metavar="FILE", help="a picture (.png, .svg)")
    parser.add_argument("--depth", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.depth:
        at_depth(options.depth, options.rounds, options.seconds, options.threads)
        return
    batches = over_batches(options.rounds, options.seconds)
    depths = over_depths(options.rounds, options.seconds, options.threads)
    show(batches, depths)
    if options.json:
        text = json.dumps({"batches": batches, "depths": depths}, indent=1)
        Path(options.json).write_text(text, encoding="utf-8")
    if options.plot:
        plot(batches, depths, options.plot)


if __name__ == "__main__":
    main()
