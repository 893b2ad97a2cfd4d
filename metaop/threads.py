"""How many threads kernels use."""

from __future__ import annotations

from .compiler.executor import executor


def set_num_threads(count: int) -> None:
    """Kernels use this many threads from now on; results do not depend on it."""
    executor().set_num_threads(count)


def get_num_threads() -> int:
    """The number of threads that kernels use."""
    return executor().threads
