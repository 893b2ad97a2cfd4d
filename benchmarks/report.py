"""The tables of `python -m benchmarks`, for the terminal and for docs/performance.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import turns
from benchmarks.frameworks import CONTESTANTS, DEFAULT, EXPERT

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def ratios(times: dict[str, list[float]], limit: float) -> dict[str, Any]:
    """metaop's speed in times that of the fastest default peer and of the fastest expert setting,
    the speed without jit in times that with it, and the share of the limit."""
    found: dict[str, Any] = {}
    own = times.get("metaop")
    for group, names in (("default", DEFAULT), ("expert", EXPERT)):
        medians = {name: statistics.median(times[name]) for name in names if name in times}
        if own and medians:
            best = min(medians, key=medians.__getitem__)
            found[group] = {"name": best, "ratio": turns.ratio(times[best], own)}
    if own and "plain" in times:
        found["plain"] = turns.ratio(own, times["plain"])
    if own and limit:
        found["share"] = limit / statistics.median(own)
    return found


def head(results: dict[str, Any], limits: dict[str, float]) -> str:
    """What ran, and the columns."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    columns = f"{'':38}{'metaop':>10}{'default':>10}{'x':>6}{'expert':>10}{'x':>6}"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}\n{versions}; {machine['threads']} threads each, "
        f"{results['rounds']} rounds\npeak {limits['peak']:.0f} GFLOP/s, bandwidth "
        f"{limits['bandwidth']:.1f} GB/s; medians in ms, x: metaop's speed in times the peer's\n"
        f"{columns}{'no jit':>8}{'limit':>8}  bars"
    )


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    text = f"{row['row']:38}{_number(row['ms'].get('metaop')):>10}"
    for group in ("default", "expert"):
        peer = row.get(group)
        text += f"{_number(peer and row['ms'][peer['name']]):>10}"
        text += f"{_times(peer):>6}"
    text += f"{_share(row.get('plain')):>8}{_share(row.get('share')):>8}"
    text += f"  {bars(row)}" if row["bars"] else ""
    text += f"  ({row['default']['name']}, {row['expert']['name']})" if row.get("expert") else ""
    return text + "".join(f"\n    {name}: {fault}" for name, fault in row["faults"].items())


def bars(row: dict[str, Any]) -> str:
    """Both bars, and whether they are met."""
    met = []
    for group, bar in zip(("default", "expert"), row["bars"]):
        if row.get(group):
            met.append(f"{bar}{'' if row[group]['ratio'] >= bar else ' missed'}")
    return " / ".join(met)


def summary(rows: list[dict[str, Any]]) -> str:
    """The geometric mean of the ratios to the fastest peer of all, over the rows with bars."""
    best = [min(row[g]["ratio"] for g in ("default", "expert") if row.get(g))
            for row in rows if row["bars"] and row.get("default")]  # fmt: skip
    if not best:
        return ""
    mean = math.exp(statistics.fmean(map(math.log, best)))
    return f"geometric mean over {len(best)} rows with bars, against the fastest peer: {mean:.2f}"


def costs(found: dict[str, Any]) -> str:
    """The second table, for the terminal."""
    return "\n".join(": ".join(cells) for cells in _cost_cells(found))


def _cost_cells(found: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for title, start in found["start"].items():
        for state in ("cold", "warm"):
            kind = "nothing cached" if state == "cold" else "all cached on disk"
            values = (f"{_title(name)} {times[state]:.2f} s" for name, times in start.items())
            yield f"first step of {title}, {kind}", ", ".join(values)
    for code, seconds in found["imports"].items():
        yield f"`{code}`", f"{seconds:.3f} s"
    yield "launch of a kernel inside a program", f"{found['launch']:.2f} µs"
    for row, peaks in found.get("memory", {}).items():
        values = ", ".join(f"{_title(name)} {mb:.0f} MB" for name, mb in peaks.items())
        yield f"memory of {row}", f"{values} ({peaks['metaop'] / peaks['eager']:.2f}x)"
    for each in found.get("errors", []):
        parts = []
        for kind in ("forward", "gradients"):
            own, other = each["metaop"][kind], each["eager"][kind]
            if own is not None:
                apart = f" ({own / other:.2f}x)" if other else ""
                parts.append(f"{kind} {own:.1e}, PyTorch's {other:.1e}{apart}")
        yield f"error of {each['row']}", "; ".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    machine, limits = results["machine"], results["limits"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, {machine['date']}; {versions}; {machine['threads']} threads each, "
        f"{results['rounds']} rounds. Peak {limits['peak']:.0f} GFLOP/s, bandwidth "
        f"{limits['bandwidth']:.1f} GB/s.",
        "",
        "| work | metaop (ms) | default (ms) | x | bar | expert (ms) | x | bar | no jit | limit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        cells = [row["row"], _number(row["ms"].get("metaop"))]
        for k, group in enumerate(("default", "expert")):
            peer = row.get(group)
            name = f" ({_title(peer['name'])})" if peer else ""
            cells += [f"{_number(peer and row['ms'][peer['name']])}{name}", _times(peer)]
            cells.append(str(row["bars"][k]) if row["bars"] else "")
        cells += [_share(row.get("plain")), _share(row.get("share"))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", summary(results["rows"]).capitalize() + "."]
    if "costs" in results:
        lines += ["", "| cost | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in _cost_cells(results["costs"])]
    return "\n".join(lines)


def put(path: str, table: str) -> None:
    """Writes the tables into a page, between the lines BEGIN and END."""
    page = Path(path)
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{path} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def _title(name: str) -> str:
    return CONTESTANTS[name].title


def _number(ms: float | None) -> str:
    """Three digits."""
    if ms is None:
        return "-"
    return f"{ms:.{max(0, 2 - math.floor(math.log10(ms)))}f}" if ms < 100 else f"{ms:.0f}"


def _times(peer: dict[str, Any] | None) -> str:
    return f"{peer['ratio']:.2f}" if peer else "-"


def _share(value: float | None) -> str:
    return f"{value:.0%}" if value is not None else "-"
