"""What a notebook shows of a Var that is not computed: its graph if that is small, else a line."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..errors import describe
from ..graph import Node, pending
from ..stages import Stages
from .document import document
from .drawing import drawing_of
from .svg import svg

MOST_NODES = 60


def graph_svg(nodes: Sequence[Node]) -> str | None:
    """The recorded graph of some nodes as SVG; None for a large one."""
    if len(pending(nodes)) > MOST_NODES:
        return None
    return svg(drawing_of(document(Stages(nodes), ("graph",))))


def summary_html(node: Node) -> str | None:
    """What a pending value is, in a table of one row; None for a small graph, which is drawn."""
    count = len(pending([node]))
    if count <= MOST_NODES:
        return None
    cells = [describe(node), f"{count} nodes", str(node.site)]
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<table><tr><th>Var</th><th>pending</th><th>from</th></tr><tr>{row}</tr></table>"
