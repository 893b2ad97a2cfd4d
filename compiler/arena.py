"""plan_arena: where temporaries lie in the arena, so that those alive together do not overlap."""

from __future__ import annotations

from metaop.storage import ALIGNMENT

from .nest import Buffer


def plan_arena(lifetimes: list[tuple[Buffer, int, int]]) -> tuple[dict[Buffer, int], int]:
    """Offsets of the buffers and the size of the arena, given first and last phase of each.

    Largest first, each at the lowest offset that is free for its whole life.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first phase, last phase
    offsets: dict[Buffer, int] = {}
    for buffer, first, last in sorted(lifetimes, key=lambda item: -item[0].nbytes):
        size = max(-(-buffer.nbytes // ALIGNMENT), 1) * ALIGNMENT
        offset = 0
        for start, end, born, died in sorted(placed):
            if born <= last and first <= died and start < offset + size and offset < end:
                offset = end
        placed.append((offset, offset + size, first, last))
        offsets[buffer] = offset
    return offsets, max((end for _, end, _, _ in placed), default=0)
