"""Processes that take turns: each holds one framework, waits while another works, and is asked.

A benchmark is a module that starts `Worker`s of itself and serves in them:

    if options.worker:
        turns.serve(lambda row: make(options.worker, row, options.threads))

Requests and answers are lines of JSON.  Two OpenMP pools in one process disturb each other, and a
machine drifts: so every framework has its own process, and they are timed alternately.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

Work = Callable[[], list[Any]]  # computes once; returns arrays, Vars or tensors


def environment(threads: int, **more: str) -> dict[str, str]:
    """The variables of a process that imports this checkout and uses so many threads.

    It may write bytecode, which installed packages have.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": path, **counts, **more}


def seconds_of(arguments: list[str], threads: int, **variables: str) -> float:
    """How long a Python process takes, from start to end."""
    start = time.perf_counter()
    given = environment(threads, **variables)
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, env=given, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


class WorkerError(RuntimeError):
    """What a worker was asked for raised an exception there."""


class Worker:
    """`python -m module --worker name`, idle until it is asked."""

    def __init__(self, module: str, name: str, threads: int, **variables: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", name, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env=environment(threads, **variables),
        )

    def ask(self, kind: str, value: Any = None) -> Any:
        """The answer to a request."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([kind, value]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        """Ends the process."""
        with self.process:  # closes both pipes and waits
            pass


# --- in a worker ----------------------------------------------------------------------------------


def serve(make: Callable[[str], Work], **others: Callable[[Any], Any]) -> None:
    """Answers requests on standard input until it ends.

    row: [name, calls], prepares the work of that name, answers a digest of the results of so many
    calls.  repeat: a number of calls, answers their seconds.  save: a path, to which the results of
    one call are written.  Further kinds are `others`.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    current: list[Work] = []

    def row(value: Any) -> Any:
        name, calls = value
        current.clear()  # its memory first
        current.append(make(name))
        return digest([result for _ in range(calls) for result in current[0]()])

    def repeat(count: int) -> float:
        work = current[0]
        start = time.perf_counter()
        for _ in range(count):
            work()
        return time.perf_counter() - start

    def save(path: str) -> None:
        np.savez(path, *[np.asarray(result.numpy()) for result in current[0]()])

    kinds = {"row": row, "repeat": repeat, "save": save, **others}
    for line in sys.stdin:
        kind, value = json.loads(line)
        try:
            answer = {"answer": kinds[kind](value)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def digest(results: list[Any]) -> list[list[float]]:
    """Of each result: its largest value, and 50 values spread over it."""
    found = []
    for result in results:
        flat = np.asarray(result if isinstance(result, np.ndarray) else result.numpy(), np.float64)
        flat = flat.ravel()
        places = np.linspace(0, flat.size - 1, 50).astype(int)
        found.append([float(np.abs(flat).max()), *flat[places].tolist()])
    return found


# --- in the process that asks ---------------------------------------------------------------------


def difference(one: list[list[float]], two: list[list[float]]) -> float:
    """The largest difference between two digests, in units of the largest value."""
    return max(
        max(abs(a - b) for a, b in zip(x, y, strict=True)) / max(x[0], 1e-30)
        for x, y in zip(one, two, strict=True)
    )


def milliseconds(
    workers: Mapping[str, Worker], rounds: int, seconds: float, most: int = 500
) -> dict[str, list[float]]:
    """Milliseconds a call, of every worker's current row, a number for each round, in turns.

    seconds: about how long a worker's turn takes; most: how many calls it makes at most.  A turn
    begins with calls that are not timed: what was idle has to find its memory and caches again.
    """
    calls = {}
    for name, worker in workers.items():
        worker.ask("repeat", 2)
        calls[name] = max(1, min(most, int(seconds / max(worker.ask("repeat", 1), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.ask("repeat", max(2, calls[name] // 2))
            times[name].append(1e3 * worker.ask("repeat", calls[name]) / calls[name])
    return times


def ratio(other: list[float], own: list[float]) -> float:
    """How many times faster `own` is: the median over rounds, each compared within itself."""
    return statistics.median(a / b for a, b in zip(other, own, strict=True))
