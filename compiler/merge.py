"""merge_copies: a buffer that starts as a copy of a temporary nobody reads later is that temporary.

    v1 = v0; v1[box] = e; (v0 not used again)   ->   v0[box] = e

So a thousand assignments of a row each cost a thousand rows, not a thousand matrices.  Leaves
alone: copies of inputs and outputs, and boxes whose expression reads what the box overwrites.
"""

from __future__ import annotations

from dataclasses import replace

from metaop.graph import Escape
from metaop.index import TRUE, Expr, interval

from .fuse import Fused
from .loops import Load
from .nest import Buffer, Nest, dependencies


def merge_copies(fused: Fused) -> Fused:
    """The same nests with mergeable copies dropped."""
    last_read: dict[Buffer, int] = {}
    for position, nest in enumerate(fused.nests):
        for buffer in _inputs(nest, fused):
            last_read[buffer] = position
    same: dict[Buffer, Buffer] = {}

    def owner(buffer: Buffer) -> Buffer:
        while buffer in same:
            buffer = same[buffer]
        return buffer

    kept: list[Nest | Escape] = []
    overwritten: set[Buffer] = set()  # what these held is gone when the program ends
    begun: set[Buffer] = set()  # a copy over what was already written is no beginning
    for position, nest in enumerate(fused.nests):
        source = _copied(nest)
        if source is not None and isinstance(nest, Nest) and nest.target not in begun:
            later = fused.nests[position + 1 : last_read[source] + 1]
            if source.role == "tmp" and _harmless(later, source, nest.target):
                same[nest.target] = owner(source)
                overwritten.add(source)
                continue
        kept.append(nest)
        if isinstance(nest, Nest):
            begun.add(nest.target)
    if not same:
        return fused
    for nest in kept:
        if isinstance(nest, Nest):
            _retarget(nest, {b: owner(b) for b in [*nest.reads, nest.target]})
    for buffer in same:
        if buffer.role == "out":
            owner(buffer).role = "out"
    place = {n: owner(b) for n, b in fused.place.items() if b not in overwritten}
    buffers = [b for b in fused.buffers if b not in same]
    return replace(fused, nests=kept, place=place, buffers=buffers)


def _inputs(nest: Nest | Escape, fused: Fused) -> list[Buffer]:
    if isinstance(nest, Nest):
        return list(nest.reads)
    return [fused.place[i] for i in nest.inputs]


def _copied(nest: Nest | Escape) -> Buffer | None:
    """The buffer that the nest copies whole, element for element."""
    if not isinstance(nest, Nest) or nest.op is not None or not isinstance(nest.value, Load):
        return None
    load = nest.value
    source = nest.buffers[load.buffer]
    whole = nest.iterations == source.size and source.shape == nest.target.shape
    plain = load.guard == TRUE and load.offset == nest.offset and source.dtype is nest.target.dtype
    return source if whole and plain else None


def _harmless(later: list[Nest | Escape], source: Buffer, target: Buffer) -> bool:
    """True if the last readers of the source do not mind that it is the target: they fill boxes of
    the target, and read only outside of what has been filled by then."""
    filled: list[tuple[int, int]] = []
    for nest in later:
        if not isinstance(nest, Nest):
            return False
        reads = source in nest.reads
        if nest.target is target:
            filled.append(_span(nest.offset, nest))
        elif reads:
            return False
        if reads and (nest.op is not None or _reads_within(nest, source, filled)):
            return False
    return True


def _reads_within(nest: Nest, source: Buffer, filled: list[tuple[int, int]]) -> bool:
    for value, _ in dependencies(nest):
        if isinstance(value, Load) and nest.buffers[value.buffer] is source:
            first, last = _span(value.offset, nest)
            if any(first <= high and low <= last for low, high in filled):
                return True
    return False


def _span(offset: Expr, nest: Nest) -> tuple[int, int]:
    return interval(offset, nest.extents)


def _retarget(nest: Nest, owner: dict[Buffer, Buffer]) -> None:
    nest.target = owner[nest.target]
    nest.buffers = {name: owner[b] for name, b in nest.buffers.items()}
