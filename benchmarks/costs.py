"""What is no speed of a kernel: starting, importing, launching, memory, rounding."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import turns
from benchmarks.frameworks import CONTESTANTS
from benchmarks.rows import ALL, ROWS

STARTS = {"LeNet+BN": "LeNet+BN b256, step", "ResNet-18": "ResNet-18 CIFAR b64, step"}
TRAINED = (*STARTS.values(), "MLP 784-512-512-10 b256, step", "transformer 4x d256 16x128, step")
STEPS = 4  # of a process whose memory is read


def child(contestant: str, row: str, calls: int, threads: int) -> list[str]:
    """The arguments of a process that makes so many calls of a row and prints its memory."""
    return ["-m", "benchmarks.costs", "--contestant", contestant, "--row", row,
            "--calls", str(calls), "--threads", str(threads)]  # fmt: skip


def run(contestant: str, row: str, calls: int, threads: int) -> None:
    """Prints the most memory that the process held, in MB."""
    import resource

    chosen = CONTESTANTS[contestant]
    chosen.framework.start(threads)
    work = ALL[row].makers[chosen.maker](ALL[row].arrays(), chosen.framework)
    for _ in range(calls):
        work()[0].numpy()
    unit = 1e6 if sys.platform == "darwin" else 1e3
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit))


def _seconds(arguments: list[str], threads: int, folder: str) -> float:
    caches = {"METAOP_CACHE": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
    return turns.seconds_of(arguments, threads, **caches)


def start(row: str, contestants: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """Seconds from the start of a process to the end of its first step, less `import numpy`, with
    empty caches on disk and with full ones."""
    with tempfile.TemporaryDirectory() as none:
        numpy = statistics.median(
            _seconds(["-c", "import numpy"], threads, none) for _ in range(rounds)
        )
    found: dict[str, Any] = {}
    for name in contestants:
        arguments, cold, warm = child(name, row, 1, threads), [], []
        for _ in range(rounds if name != "compile" else 1):
            with tempfile.TemporaryDirectory() as folder:
                cold.append(_seconds(arguments, threads, folder))
                warm.append(_seconds(arguments, threads, folder))
        medians = (statistics.median(cold) - numpy, statistics.median(warm) - numpy)
        found[name] = dict(zip(("cold", "warm"), medians))
    return found


def imports(rounds: int, threads: int) -> dict[str, float]:
    """Seconds of processes that import a package and nothing else, less an empty one's."""
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for code in ("pass", "import numpy", "import metaop", "import torch"):
            times.setdefault(code, []).append(turns.seconds_of(["-c", code], threads))
    empty = statistics.median(times.pop("pass"))
    return {code: statistics.median(values) - empty for code, values in times.items()}


def launch() -> float:
    """Microseconds a launch of a kernel inside a program."""
    from benchmarks.overhead import launches

    return {name: 1e6 * statistics.median(v) for name, v in launches(20).items()}["2 threads"]


def memory(row: str, threads: int) -> dict[str, float]:
    """MB that a fresh process of each framework holds at most while it trains."""
    found = {}
    for name in ("metaop", "eager"):
        process = subprocess.run(
            [sys.executable, *child(name, row, STEPS, threads)], check=True, text=True,
            capture_output=True, cwd=turns.ROOT, env=turns.environment(threads),
        )  # fmt: skip
        found[name] = json.loads(process.stdout.splitlines()[-1])
    return found


def errors(workers: dict[str, turns.Worker], only: str) -> list[dict[str, Any]]:
    """Root mean square of the differences from float64, in units of the exact results' own, for
    the worst result of every row: forward (the first result) and gradients."""
    found = []
    for row in ROWS:
        if only not in row.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results = {}
            for name, worker in workers.items():
                path = str(Path(folder) / f"{name}.npz")
                worker.ask("exact", [row.name, path])
                with np.load(path) as arrays:
                    results[name] = [arrays[key].astype(np.float64) for key in arrays.files]
        exact = results.pop("float64")
        line: dict[str, Any] = {"row": row.name}
        for name, values in results.items():
            each = [_relative(a, b) for a, b in zip(values, exact, strict=True)]
            line[name] = {"forward": each[0], "gradients": max(each[1:], default=None)}
        found.append(line)
    return found


def _relative(value: np.ndarray, exact: np.ndarray) -> float:
    """A result that is zero but for rounding has no relative error: those are left out."""
    size = float(np.sqrt(np.mean(exact * exact)))
    return float(np.sqrt(np.mean((value - exact) ** 2))) / size if size > 1e-9 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="One process of a cost: see python -m benchmarks.")
    parser.add_argument("--contestant", choices=CONTESTANTS, required=True)
    parser.add_argument("--row", choices=ALL, required=True)
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    run(options.contestant, options.row, options.calls, options.threads)


if __name__ == "__main__":
    main()
