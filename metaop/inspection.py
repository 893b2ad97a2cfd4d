"""Looking inside: what a value will become, without computing anything."""

from __future__ import annotations

from typing import Any, NamedTuple

from .compiler import pipeline
from .compiler.program import arena
from .var import Var


class Stats(NamedTuple):
    """What metaop did in this process."""

    compiled: int
    loaded: int
    launched: int
    programs: int
    compile_seconds: float
    arena_bytes: int
    live_nodes: int


def stats() -> Stats:
    """Counters of this process: kernels compiled, loaded and launched, programs, arena bytes."""
    from .compiler.executor import executor
    from .life import live_nodes

    counted = pipeline.statistics
    return Stats(counted.compiled, 0, executor().launch_count, counted.programs,
                 counted.compile_seconds, arena.nbytes, live_nodes())  # fmt: skip


def explain(*vars: Var) -> Any:
    """placeholder"""


def dump(*args: Any, **options: Any) -> Any:
    """placeholder"""
