"""What must hold of trees, programs and their arena; raises CompilerBug where it does not.

METAOP_CHECK=1 calls these, and the checks of the other stages: `rewrite.verify` of graphs,
`nest.verify`, `loops.verify` of kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from metaop.errors import CompilerBug
from metaop.graph import Escape

from .fuse import Fused
from .group import Grouped
from .nest import Buffer
from .program import Bound, HostCall, KernelLaunch, Program


def verify_grouped(fused: Fused, grouped: Grouped) -> None:
    """A tree reads inputs and what earlier trees wrote; no input is written, every output is."""
    written: set[Buffer] = set()
    for tree in grouped.trees:
        if isinstance(tree, Escape):
            reads, writes = [fused.place[n] for n in tree.inputs], [fused.place[tree]]
        else:
            reads, writes = tree.reads, tree.writes
        for buffer in reads:
            made = buffer.role in ("out", "tmp") and buffer.size  # nothing writes an empty one
            if made and buffer not in written and buffer not in writes:
                raise CompilerBug(f"group: {buffer.name} is read before it is written:\n{tree!r}")
        for buffer in writes:
            if buffer.role == "in":
                raise CompilerBug(f"group: the input {buffer.name} is written:\n{tree!r}")
        written.update(writes)
    outputs = [b for b in fused.buffers if b.role == "out" and b.size]
    missing = [b.name for b in outputs if b not in written]
    if missing:
        raise CompilerBug(f"group: nothing writes the outputs {', '.join(missing)}")


def verify_program(program: Program) -> None:
    """Kernels of one phase do not touch what another of them writes; a slot is read after it is
    written; a launch has as many integers as its kernel; a temporary lives as long as it is used.
    """
    given = {slot for slot, _, _ in program.inputs} | set(program.counters)
    written: set[int] = set()
    life = {t.slot: (t.first, t.last) for t in program.temporaries}
    for number, (reads, writes, launches) in enumerate(_phases(program)):
        where = f"assemble: phase {number} ({', '.join(launches)})"
        if not reads <= given | written:
            raise CompilerBug(f"{where} reads slots that are not written: {reads - written}")
        if writes & given - set(program.counters):
            raise CompilerBug(f"{where} writes the inputs {writes & given}")
        for slot in reads | writes:
            first, last = life.get(slot, (number, number))
            if not first <= number <= last:
                raise CompilerBug(f"{where} uses temporary {slot}, which lives {first} to {last}")
        written |= writes
    missing = {slot for slot, nbytes in program.outputs if nbytes} - written
    if missing:
        raise CompilerBug(f"assemble: nothing writes the outputs in slots {missing}")


def _phases(program: Program) -> Iterator[tuple[set[int], set[int], list[str]]]:
    """Slots read, slots written and names of launches of each phase; a callback is one."""
    for segment in program.segments:
        if isinstance(segment, HostCall):
            read = {slot for slot, _, shape in segment.inputs if 0 not in shape}
            yield read, {segment.output[0]}, ["callback"]
            continue
        for phase in segment:
            yield _phase(phase)


def _phase(phase: list[KernelLaunch]) -> tuple[set[int], set[int], list[str]]:
    reads: set[int] = set()
    writes: set[int] = set()
    for launch in phase:
        own_reads, own_writes = _touched(launch)
        if own_writes & (reads | writes) or own_reads & writes:
            raise CompilerBug(f"assemble: {launch.work.name} races with a kernel of its phase")
        reads |= own_reads
        writes |= own_writes
    return reads, writes, [launch.work.name for launch in phase]


def _touched(launch: KernelLaunch) -> tuple[set[int], set[int]]:
    kernel = launch.kernel
    assert kernel is not None  # as it is in a program that was compiled here
    if len(kernel.buffers) != len(launch.slots) or len(kernel.integers) != len(launch.integers):
        raise CompilerBug(f"assemble: {launch.work.name} gets other arguments than it takes")
    writes = {s for s, p in zip(launch.slots, kernel.buffers) if p.written}
    return set(launch.slots) - writes, writes


def verify_arena(bound: Bound, offsets: dict[int, tuple[int, int]]) -> None:
    """Temporaries that live at the same time do not overlap.  offsets: by slot, offset and size."""
    by_phase: dict[int, list[tuple[int, int, int]]] = {}
    for temporary in bound.program.temporaries:
        offset, nbytes = offsets[temporary.slot]
        if nbytes:
            for phase in range(temporary.first, temporary.last + 1):
                by_phase.setdefault(phase, []).append((offset, offset + nbytes, temporary.slot))
    for phase, places in by_phase.items():
        places.sort()
        for (_, end, slot), (start, _, other) in pairwise(places):
            if start < end:
                raise CompilerBug(f"arena: temporaries {slot} and {other} overlap in phase {phase}")
        if places[-1][1] > bound.arena_bytes:
            raise CompilerBug(f"arena: temporary {places[-1][2]} ends after the arena")
