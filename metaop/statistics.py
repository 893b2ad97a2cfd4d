"""mo.stats(): what this process compiled, loaded and launched."""

from __future__ import annotations

from typing import NamedTuple

from . import life
from .compiler.executor import executor
from .compiler.kernels import statistics
from .compiler.program import arena
from .storage import pool


class Stats(NamedTuple):
    """What metaop did in this process.

    compiled, loaded, launched: kernels; programs, loaded_programs: compiled here, and from disk;
    compile_seconds: of kernels; program_seconds: of making programs, compiling and loading their
    kernels included; arena_bytes: of temporaries; used_bytes, free_bytes: of values, in use and
    kept for later ones; live_nodes: of graphs, in memory.
    """

    compiled: int
    loaded: int
    launched: int
    programs: int
    compile_seconds: float
    arena_bytes: int
    live_nodes: int
    loaded_programs: int
    program_seconds: float
    used_bytes: int
    free_bytes: int


def stats() -> Stats:
    """Counters of this process: what was compiled, loaded and launched, and the memory in use."""
    counted = statistics
    return Stats(
        counted.compiled,
        counted.loaded,
        executor().launch_count,
        counted.programs,
        counted.compile_seconds,
        arena.nbytes,
        life.live_nodes(),
        counted.loaded_programs,
        counted.program_seconds,
        pool.used_bytes,
        pool.free_bytes,
    )
