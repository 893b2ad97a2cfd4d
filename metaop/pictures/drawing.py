"""drawing: what a picture shows: boxes with lines of text, edges, groups; no places yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..compiler.boundary import megabytes
from .layout import Box, Group, arrange

CHARACTER = 6.7  # pixels of a character of 11 pixels
LINE = 15.0
MOST_CHARACTERS = 40
MOST_LOOPS = 7  # lines of a loop tree in a box
LONGEST_EDGE = 6  # ranks; longer ones are drawn as two labelled stubs


@dataclass(eq=False)
class Picture:
    """A box with its lines of (style, text): title, type, detail or loop."""

    key: str
    lines: list[tuple[str, str]]
    phase: str
    box: Box


@dataclass(eq=False)
class Drawing:
    """Boxes in groups, and edges between them; data: the document that it shows."""

    title: str
    pictures: dict[str, Picture]
    edges: list[tuple[str, str]]
    groups: Group

    def ranks(self) -> dict[str, int]:
        """The longest path that leads to each box."""
        rank = dict.fromkeys(self.pictures, 0)
        sources: dict[str, list[str]] = {}
        for a, b in self.edges:
            sources.setdefault(b, []).append(a)
        for key in self.pictures:
            rank[key] = 1 + max((rank[a] for a in sources.get(key, [])), default=-1)
        return rank


def drawing_of(document: dict[str, Any]) -> Drawing:
    """The kernels of a document if it has them, else its graph."""
    stages = document["stages"]
    if "fused" in stages:
        pictures, edges = _kernels(stages)
    else:
        pictures, edges = _nodes(next(iter(stages.values())))
    known = {picture.key: picture for picture in pictures}
    groups = arrange([picture.box for picture in pictures], edges)
    return Drawing(document["title"], known, edges, groups)


def _nodes(graph: dict[str, Any]) -> tuple[list[Picture], list[tuple[str, str]]]:
    pictures, edges = [], []
    for node in graph["nodes"]:
        kind = _type(node)
        text = node["text"] or node["kind"]
        lines = [("title", f"{node['name']}  {kind}"), ("detail", text)]
        pictures.append(_picture(node, lines))
        edges += [(source, node["name"]) for source in node["inputs"]]
    known = {picture.key for picture in pictures}
    return pictures, [(a, b) for a, b in edges if a in known]


def _kernels(stages: dict[str, Any]) -> tuple[list[Picture], list[tuple[str, str]]]:
    kernels = stages["fused"]["kernels"]
    pictures = []
    writer: dict[str, list[str]] = {}
    step = {kernel["name"]: kernel["step"] for kernel in kernels}
    # what packs operands stands before what reads them, not where it could begin
    for kernel in sorted(kernels, key=lambda k: step.get(k["packs"], k["step"] + 0.5)):
        head = f"{kernel['name']}  {' '.join(kernel['writes'])}"
        what = f"packs for {kernel['packs']}" if kernel["packs"] else kernel["operators"]
        lines = [("title", head), ("detail", what or "copy"), ("detail", costs(kernel))]
        tree = stages["loops"][kernel["name"]]["tree"]
        lines += [("loop", "\u00a0\u00a0" * depth + text) for depth, text in tree[:MOST_LOOPS]]
        if len(tree) > MOST_LOOPS:
            lines.append(("loop", f"\u2026 {len(tree) - MOST_LOOPS} more"))
        pictures.append(_picture(kernel, lines))
        for name in kernel["writes"]:
            writer.setdefault(name, []).append(kernel["name"])
    edges = {
        (source, kernel["name"]): None
        for kernel in kernels
        for buffer in kernel["reads"]
        for source in writer.get(buffer, [])
        if source != kernel["name"]
    }
    return pictures, list(edges)


def costs(kernel: dict[str, Any]) -> str:
    """`9.6 MB, 1.2 GFLOP, 64 chunks`, and the time if it was measured."""
    parts = [megabytes(kernel["bytes"]), operations(kernel["flops"])]
    parts.append(f"{kernel['chunks']} chunk{'s' if kernel['chunks'] != 1 else ''}")
    if "seconds" in kernel:
        parts.append(_time(kernel["seconds"]))
    return ", ".join(parts)


def operations(flops: float) -> str:
    """`1.2 GFLOP`."""
    for unit, size in (("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops} FLOP"


def _time(seconds: float) -> str:
    """`1.23 ms`, below one `456 µs`."""
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"


def _type(node: dict[str, Any]) -> str:
    return f"{node['dtype']}[{','.join(map(str, node['shape']))}]"


def _picture(entry: dict[str, Any], lines: list[tuple[str, str]]) -> Picture:
    lines = [(style, shortened(text)) for style, text in lines]
    longest = max(len(text) for _, text in lines)
    path = tuple(entry["module"].split(".")) if entry["module"] else ()
    phase = entry["phase"]
    width = CHARACTER * max(longest, 10) + 20
    box = Box(entry["name"], width, LINE * len(lines) + 14, (phase, *path))
    return Picture(entry["name"], lines, phase, box)


def shortened(text: str) -> str:
    """The text, cut where it is too long for a box."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "\u2026"
