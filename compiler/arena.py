"""plan_arena: where temporaries lie in the arena, so that those alive together do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from metaop.storage import ALIGNMENT


class Lifetime(Protocol):
    """A buffer's size and the first and the last phase that touches it."""

    @property
    def nbytes(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...


T = TypeVar("T", bound=Lifetime)


def plan_arena(lifetimes: Sequence[T]) -> tuple[dict[T, int], int]:
    """Offsets of the buffers and the size of the arena.

    Largest first, each at the lowest offset that is free for its whole life.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first phase, last phase
    offsets: dict[T, int] = {}
    for buffer in sorted(lifetimes, key=lambda item: -item.nbytes):
        first, last = buffer.first, buffer.last
        size = max(-(-buffer.nbytes // ALIGNMENT), 1) * ALIGNMENT
        offset = 0
        for start, end, born, died in sorted(placed):
            if born <= last and first <= died and start < offset + size and offset < end:
                offset = end
        placed.append((offset, offset + size, first, last))
        offsets[buffer] = offset
    return offsets, max((end for _, end, _, _ in placed), default=0)
