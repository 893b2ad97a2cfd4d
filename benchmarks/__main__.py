"""Every row of the table of speed, and the costs beside it: metaop against its peers.

    python -m benchmarks                            all rows and costs, about 20 minutes
    python -m benchmarks --list
    python -m benchmarks --check                    do all compute the same?
    python -m benchmarks --only softmax --rounds 9
    python -m benchmarks --no-more --no-costs --json FILE
    python -m benchmarks --markdown FILE            the tables as Markdown
    python -m benchmarks --markdown FILE --into docs/performance.md

Every framework runs in processes of its own, which take turns; all get the same arrays, and their
results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import costs, report, turns
from benchmarks.frameworks import CONTESTANTS, closing
from benchmarks.peak import bandwidth, peak
from benchmarks.rows import ALL, MORE, ROWS, Row

SECONDS = 0.25  # of a turn
PEERS = ("eager", "compile", "pages", "last", "numpy")


def worker(name: str, threads: int) -> None:
    """Serves rows of one contestant."""
    chosen = CONTESTANTS[name]
    chosen.framework.start(threads)

    def make(row: str) -> turns.Work:
        return ALL[row].makers[chosen.maker](ALL[row].arrays(), chosen.framework)

    def exact(value: Any) -> None:
        row, path = ALL[value[0]], value[1]
        makers = row.exact or row.makers
        save(path, makers[chosen.maker](row.arrays(), chosen.framework))

    turns.serve(
        make,
        exact=exact,
        peak=lambda _: peak(threads),
        bandwidth=lambda _: bandwidth(threads),
        versions=lambda _: chosen.framework.versions(),
    )


def save(path: str, work: turns.Work) -> None:
    """The results of one call, as an .npz file."""
    import numpy as np

    np.savez(path, *[np.asarray(r if isinstance(r, np.ndarray) else r.numpy()) for r in work()])


class Workers(dict):
    """Processes by contestant, started when first needed."""

    def __init__(self, threads: int):
        super().__init__()
        self.threads = threads

    def __missing__(self, name: str) -> turns.Worker:
        variables = CONTESTANTS[name].variables
        self[name] = turns.Worker("benchmarks", name, self.threads, **variables)
        return self[name]


def contestants(row: Row, peers: list[str]) -> list[str]:
    """Who computes a row: metaop with and without jit, and the peers that have it."""
    names = ["metaop", "plain", *peers]
    if not row.compiled:
        names = [name for name in names if name != "compile"]
    return [name for name in names if CONTESTANTS[name].maker in row.makers]


def agreeing(
    row: Row, workers: Workers, peers: list[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """How far the results of each contestant are from PyTorch's, and who fails or is too far."""
    digests, faults = {}, {}
    for name in contestants(row, peers):
        try:
            digests[name] = workers[name].ask("row", [row.name, row.calls])
        except turns.WorkerError as error:
            faults[name] = str(error)
    reference = digests.get("eager") or next(iter(digests.values()), [])
    apart = {name: turns.difference(digest, reference) for name, digest in digests.items()}
    for name in [name for name, value in apart.items() if not value <= row.tolerance]:
        faults[name] = f"differs from PyTorch eager by {apart.pop(name):.1e}"
    return apart, faults


def measure(
    row: Row, workers: Workers, peers: list[str], rounds: int, limits: dict[str, float]
) -> dict[str, Any]:
    """Medians and ratios of one row; who fails or computes something else is named, not timed."""
    apart, faults = agreeing(row, workers, peers)
    times = turns.milliseconds({n: workers[n] for n in apart}, rounds, SECONDS, row.most)
    medians = {name: statistics.median(values) for name, values in times.items()}
    limit = 1e3 * max(row.flops / limits["peak"] / 1e9, row.bytes / limits["bandwidth"] / 1e9)
    found = {"row": row.name, "apart": apart, "faults": faults, "ms": medians, "rounds": times,
             "limit": limit, "bars": row.bars}  # fmt: skip
    return {**found, **report.ratios(times, limit)}


def machine(threads: int) -> dict[str, Any]:
    """What ran this."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(terse=True),
            "python": platform.python_version(), "threads": threads,
            "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def available(peers: list[str]) -> list[str]:
    """The peers that are installed; torch.compile needs a C++ compiler."""
    has_torch = importlib.util.find_spec("torch") is not None
    has_compiler = any(map(shutil.which, ("g++", "clang++", "c++")))
    present = [p for p in peers if CONTESTANTS[p].maker != "torch" or has_torch]
    return [p for p in present if p != "compile" or has_compiler]


def measure_costs(workers: Workers, options: argparse.Namespace) -> dict[str, Any]:
    """The second table."""
    has_torch = "eager" in options.peers
    starters = ["metaop", *(["eager"] if has_torch else [])]
    threads, rounds = options.threads, options.start_rounds
    found: dict[str, Any] = {
        "imports": costs.imports(rounds + 2, threads),
        "launch": costs.launch(),
    }
    found["start"] = {}
    for title, row in costs.STARTS.items():
        also = ["compile"] if "compile" in options.peers and title == "LeNet+BN" else []
        found["start"][title] = costs.start(row, [*starters, *also], rounds, threads)
    if has_torch:
        found["memory"] = {row: costs.memory(row, threads) for row in costs.TRAINED}
        chosen = {name: workers[name] for name in ("metaop", "eager", "float64")}
        found["errors"] = costs.errors(chosen, options.only)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    parser.add_argument("--check", action="store_true", help="compare results, time nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start-rounds", type=int, default=3, help="processes started for a cost")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PEERS))
    parser.add_argument("--json", metavar="FILE", help="a file to write all figures to")
    parser.add_argument("--markdown", metavar="FILE", help="print the tables of such a file")
    parser.add_argument("--into", metavar="PAGE", help="write those tables into this page instead")
    parser.add_argument("--no-more", action="store_true", help="only rows that have a bar")
    parser.add_argument(
        "--costs",
        action=argparse.BooleanOptionalAction,
        help="measure them too (default: unless --only)",
    )
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.threads)
    elif options.markdown:
        table = report.markdown(json.loads(Path(options.markdown).read_text(encoding="utf-8")))
        report.put(options.into, table) if options.into else print(table)
    elif options.list:
        print("\n".join(ALL))
    elif options.check:
        check(options)
    else:
        benchmark(options)


def rows_of(options: argparse.Namespace) -> list[Row]:
    """The rows that were asked for."""
    rows = [*ROWS, *([] if options.no_more else MORE)]
    return [row for row in rows if options.only in row.name]


def check(options: argparse.Namespace) -> None:
    """Prints how far results are apart; ends with status 1 if too far."""
    wrong = 0
    with closing(Workers(options.threads)) as workers:
        for row in rows_of(options):
            apart, faults = agreeing(row, workers, available(options.peers))
            figures = ", ".join(f"{name} {value:.1e}" for name, value in apart.items())
            lines = [figures, *(f"{name}: {fault}" for name, fault in faults.items())]
            print(f"{row.name:38}  " + "\n    ".join(lines), flush=True)
            wrong += len(faults)
    raise SystemExit(bool(wrong))


def benchmark(options: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    options.peers = available(options.peers)
    results: dict[str, Any] = {"machine": machine(options.threads), "rounds": options.rounds}
    with closing(Workers(options.threads)) as workers:
        names = ["metaop", *options.peers]
        results["versions"] = {k: v for n in names for k, v in workers[n].ask("versions").items()}
        limits = {k: workers["metaop"].ask(k) for k in ("peak", "bandwidth")}
        print(report.head(results, limits), flush=True)
        rows = results["rows"] = []
        for row in rows_of(options):
            rows.append(measure(row, workers, options.peers, options.rounds, limits))
            print(report.line(rows[-1]), flush=True)
            limits = {k: max(v, workers["metaop"].ask(k)) for k, v in limits.items()}
        results["limits"] = limits
        print(report.summary(rows))
        if options.costs or (options.costs is None and not options.only):
            results["costs"] = measure_costs(workers, options)
            print(report.costs(results["costs"]))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
