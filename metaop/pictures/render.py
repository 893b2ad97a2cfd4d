"""render: the stages of a program in one of the formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..stages import STAGES, Stages
from .document import document
from .dot import dot
from .drawing import drawing_of
from .html import html
from .svg import svg

# What the page is made of.
PAGE = ("canonical", "fused", "loops", "source", "memory")


def render(
    stages: Stages,
    stage: str,
    format: str,
    kernels: Sequence[str] = (),
    profile: Mapping[str, Any] | None = None,
) -> str:
    """A stage, or all of them, as json, dot, svg or html."""
    if format == "html":
        return html(document(stages, PAGE, (), profile))
    wanted: tuple[str, ...] = STAGES if stage == "all" else (stage,)
    if format == "json":
        return json.dumps(document(stages, wanted, kernels, profile), indent=1) + "\n"
    if stage not in ("graph", "canonical"):
        wanted = ("fused", "loops")
    drawing = drawing_of(document(stages, wanted, (), profile))
    return svg(drawing) if format == "svg" else dot(drawing)
