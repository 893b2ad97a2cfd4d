"""html: the page: one file with the data, a style and a script in it."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from .drawing import Drawing, drawing_of
from .layout import Box, Group


def html(document: dict[str, Any]) -> str:
    """The page of a document that has kernels, loops, source and memory."""
    drawing = drawing_of(document)
    data = {
        **document,
        "drawing": {
            "boxes": {
                key: {
                    "lines": picture.lines, "width": round(picture.box.width),
                    "height": picture.box.height, "phase": picture.phase,
                }
                for key, picture in drawing.pictures.items()
            },
            "edges": drawing.edges,
            "groups": _rows(drawing, drawing.groups),
        },
    }  # fmt: skip
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    page = _template().replace("{{title}}", escape(document["title"]))
    # "</" would end the script element that holds the data
    return page.replace("{{data}}", text.replace("</", "<\\/"))


def _rows(drawing: Drawing, group: Group) -> dict[str, Any]:
    rows = [
        [child.key if isinstance(child, Box) else _rows(drawing, child) for child in row]
        for row in group.rows
    ]
    return {"path": ".".join(group.path), "name": group.name, "rows": rows}


@cache
def _template() -> str:
    return (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
