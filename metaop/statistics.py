"""mo.stats(): what this process compiled, loaded and launched."""

from __future__ import annotations

from typing import NamedTuple

from . import life
from .compiler.executor import executor
from .compiler.kernels import statistics
from .compiler.program import arena


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
    """Counters of this process: kernels compiled, loaded from disk and launched, programs made,
    seconds of compilation, bytes of the arena, graph nodes in memory."""
    counted = statistics
    return Stats(counted.compiled, counted.loaded, executor().launch_count, counted.programs,
                 counted.compile_seconds, arena.nbytes, life.live_nodes())  # fmt: skip
