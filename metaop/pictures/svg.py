"""svg: a drawing as one SVG, light or dark as its reader prefers."""

from __future__ import annotations

from html import escape

from .drawing import LINE, LONGEST_EDGE, Drawing, Picture
from .layout import GAP_Y, Group, place

STYLE = """
svg { font: 11px ui-monospace, Menlo, Consolas, monospace; background: var(--paper);
  --paper: #fbfaf7; --ink: #1d2733; --soft: #5d6b7a; --box: #ffffff; --group: #6b7c8f14;
  --edge: #8a97a5; --forward: #2f6fb3; --backward: #b3662f; --optimizer: #3d8a5a }
@media (prefers-color-scheme: dark) { svg { --paper: #14181d; --ink: #e4e9ee; --soft: #98a5b3;
  --box: #1e252d; --group: #9fb2c814; --edge: #66758a; --forward: #6ea8e0; --backward: #e0995f;
  --optimizer: #6cbf8c } }
text { fill: var(--ink) } .detail, .loop, .stub { fill: var(--soft) }
.title, .name { font-weight: 600 } .stub { font-size: 9.5px }
.box { fill: var(--box); stroke-width: 1.2 } .group { fill: var(--group); stroke: var(--edge);
  stroke-width: .6 } .edge { fill: none; stroke: var(--edge); stroke-width: 1.1 }
.forward { stroke: var(--forward) } .backward { stroke: var(--backward) }
.optimizer { stroke: var(--optimizer) }
"""
MOST_NAMED = 4  # ends of edges in the label of a stub


def svg(drawing: Drawing) -> str:
    """The picture; edges that are long or lead upwards are stubs with the name of the other end."""
    place(drawing.groups)
    root = drawing.groups
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{root.width:.0f}" '
        f'height="{root.height:.0f}" viewBox="0 0 {root.width:.0f} {root.height:.0f}" '
        f'role="img"><title>{escape(drawing.title)}</title><style>{STYLE}</style>'
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker>'
    ]
    parts += [_group(group) for group in root.groups() if group.path]
    parts += _edges(drawing)
    parts += [_box(picture) for picture in drawing.pictures.values()]
    return "".join(parts) + "</svg>\n"


def _group(group: Group) -> str:
    return (
        f'<rect class="group" x="{group.x:.0f}" y="{group.y:.0f}" width="{group.width:.0f}" '
        f'height="{group.height:.0f}" rx="8"/><text class="name" x="{group.x + 12:.0f}" '
        f'y="{group.y + 19:.0f}">{escape(group.name)}</text>'
    )


def _box(picture: Picture) -> str:
    box = picture.box
    lines = "".join(
        f'<text class="{style}" x="{box.x + 10:.0f}" y="{box.y + 18 + LINE * k:.0f}">'
        f"{escape(text)}</text>"
        for k, (style, text) in enumerate(picture.lines)
    )
    return (
        f'<g id="{escape(picture.key)}"><rect class="box {picture.phase}" x="{box.x:.0f}" '
        f'y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="4"/>{lines}</g>'
    )


def _edges(drawing: Drawing) -> list[str]:
    heights = [picture.box.height for picture in drawing.pictures.values()]
    rank_height = sum(heights) / max(len(heights), 1) + GAP_Y
    parts: list[str] = []
    leaving: dict[str, list[str]] = {}
    coming: dict[str, list[str]] = {}
    for source, target in drawing.edges:
        one, other = drawing.pictures[source].box, drawing.pictures[target].box
        distance = other.y - (one.y + one.height)
        if not 0 < distance < LONGEST_EDGE * rank_height:
            leaving.setdefault(source, []).append(target)
            coming.setdefault(target, []).append(source)
            continue
        x0, x1 = one.x + one.width / 2, other.x + other.width / 2
        y0, y1 = one.y + one.height, other.y
        bend = max(distance / 2, 16)
        hidden = distance > rank_height + GAP_Y / 2 and abs(x0 - x1) < 30  # by boxes between
        aside = (one.width / 2 + 30) / 0.75 if hidden else 0
        parts.append(
            f'<path class="edge" marker-end="url(#arrow)" d="M{x0:.0f} {y0:.0f}C{x0 + aside:.0f} '
            f'{y0 + bend:.0f} {x1 + aside:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"/>'
        )
    for ends, below in ((leaving, True), (coming, False)):
        parts += [_stub(drawing.pictures[key], names, below) for key, names in ends.items()]
    return parts


def _stub(picture: Picture, names: list[str], below: bool) -> str:
    box = picture.box
    more = f" +{len(names) - MOST_NAMED}" if len(names) > MOST_NAMED else ""
    text = " ".join(names[:MOST_NAMED]) + more
    y = box.y + box.height if below else box.y
    label = f"\u2192 {text}" if below else f"{text} \u2192"
    x, step = box.x + box.width - 14, 9 if below else -9
    return (
        f'<path class="edge" d="M{x:.0f} {y:.0f}v{step}"/><text class="stub" text-anchor="end" '
        f'x="{x - 4:.0f}" y="{y + (11 if below else -4):.0f}">{escape(label)}</text>'
    )
