"""The table that a notebook shows of a module: its layers and their parameters."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import metaop as mo

if TYPE_CHECKING:
    from .module import Module

HEAD = ("name", "layer", "parameters", "count")


def table(module: Module) -> str:
    """HTML with a row for every module that has no modules in it, or parameters of its own; shapes
    only, nothing is computed."""
    rows = [_row(name, each) for name, each in module.named_modules() if _is_shown(each)]
    total = sum(parameter.numel() for parameter in module.parameters())
    head = _cells("th", HEAD)
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    foot = _cells("th", (type(module).__name__, "", "", f"{total:,}"))
    return f"<table><tr>{head}</tr>{body}<tr>{foot}</tr></table>"


def _is_shown(module: Module) -> bool:
    own = any(True for _ in module.named_parameters(recurse=False))
    return own or not any(True for _ in module.children())


def _row(name: str, module: Module) -> tuple[str, str, str, str]:
    own = list(module.named_parameters(recurse=False))
    shapes = ", ".join(f"{key} {mo.errors.describe(value)}" for key, value in own)
    count = sum(value.numel() for _, value in own)
    kind = f"{type(module).__name__}({module.extra_repr()})"
    return name or "(this)", kind, shapes, f"{count:,}" if own else ""


def _cells(tag: str, texts: tuple[str, ...]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
