"""dot: a drawing in Graphviz's language; nothing of Graphviz is needed to write it."""

from __future__ import annotations

import json

from .drawing import LONGEST_EDGE, Drawing, Picture
from .layout import Box, Group

COLOURS = {"forward": "#2f6fb3", "backward": "#b3662f", "optimizer": "#3d8a5a"}


def dot(drawing: Drawing) -> str:
    """The graph with a cluster for each group.  Long edges have no say in the ranks, which spares
    Graphviz a minute of work."""
    rank = drawing.ranks()
    lines = [
        f"digraph {json.dumps(drawing.title)} {{",
        '  node [shape=box fontname=monospace fontsize=10]; edge [color="#8a97a5"]',
        *_cluster(drawing, drawing.groups, "  "),
    ]
    for source, target in drawing.edges:
        long = rank[target] - rank[source] > LONGEST_EDGE
        style = " [constraint=false style=dashed]" if long else ""
        lines.append(f"  {json.dumps(source)} -> {json.dumps(target)}{style}")
    return "\n".join([*lines, "}"]) + "\n"


def _cluster(drawing: Drawing, group: Group, indent: str) -> list[str]:
    lines = []
    for row in group.rows:
        for child in row:
            if isinstance(child, Box):
                lines.append(indent + _node(drawing.pictures[child.key]))
                continue
            name = json.dumps("cluster " + ".".join(child.path))
            lines += [f"{indent}subgraph {name} {{", f"{indent}  label={json.dumps(child.name)}"]
            lines += [*_cluster(drawing, child, indent + "  "), indent + "}"]
    return lines


def _node(picture: Picture) -> str:
    text = json.dumps("\n".join(text for _, text in picture.lines), ensure_ascii=False)
    label = text.replace("\\n", "\\l")[:-1] + '\\l"'
    return f'{json.dumps(picture.key)} [label={label} color="{COLOURS[picture.phase]}"]'
