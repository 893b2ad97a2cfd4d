"""boundary: why a value goes through memory between two kernels, and what merging would cost.

A rule decides, or a cost: too few iterations of the outer loops that both kernels have would be
left to share out, or each of them would read again what no outer loop moves through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaop.index import Expr, integers_of, loops_of, terms_of

from .loops import LANES
from .nest import Buffer, Nest

LEAST_READ_AGAIN = 1 << 16  # bytes: fewer stay in the nearest cache, and are no reason


@dataclass
class Boundary:
    """Why a nest is not in the kernel of what it reads.

    loops: the outer loops of both kernels; iterations: those that a common kernel would have, if
    they are too few to keep all threads busy; read_again: bytes that it would read once more
    than is needed; kernels: the names of both.
    """

    source: Buffer
    target: Buffer
    rule: str
    loops: tuple[list[int], list[int]] | None = None
    iterations: int | None = None
    read_again: int = 0
    kernels: tuple[str, str] = ("", "")

    @property
    def reason(self) -> str:
        """The rule and the cost in words."""
        parts = [self.rule] if self.rule else []
        if self.loops is not None and self.loops[0] != self.loops[1]:
            parts.append("different outer loops {} / {}".format(*self.loops))
        if self.iterations is not None:
            left = "1 iteration" if self.iterations == 1 else f"{self.iterations} iterations"
            parts.append(f"merging would leave {left} to share out")
        if self.read_again >= LEAST_READ_AGAIN:
            parts.append(f"merging would re-read {megabytes(self.read_again)}")
        return "; ".join(parts)

    def __repr__(self) -> str:
        return f"{self.source.name} -> {self.target.name}: {self.reason}"


def megabytes(nbytes: int) -> str:
    """`51 MB`, `3.2 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            number = nbytes / size
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{nbytes} bytes"


def by_kernels(boundaries: Iterable[Boundary]) -> list[str]:
    """A line for each pair of kernels and reason: `k3 -> k4: the reason (v12 v13 -> v17)`."""
    found: dict[tuple[tuple[str, str], str], list[Boundary]] = {}
    for boundary in boundaries:
        found.setdefault((boundary.kernels, boundary.reason), []).append(boundary)
    lines = []
    for ((one, other), reason), members in found.items():
        sources = dict.fromkeys(b.source.name for b in members)
        targets = dict.fromkeys(b.target.name for b in members)
        ends = f"{one or 'a callback'} -> {other or 'a callback'}"
        lines.append(f"{ends}: {reason} ({' '.join(sources)} -> {' '.join(targets)})")
    return lines


def read_again(
    nests: Iterable[Nest],
    axes: Sequence[Mapping[Nest, int]],
    size: Callable[[int], int] = int,
    vector: int | None = None,
) -> int:
    """Bytes that nests read more than once if each iteration of common root loops `axes` reads its
    part of every buffer anew; of the root loop number `vector` LANES iterations read together."""
    nests = list(nests)
    made = {nest.target for nest in nests}
    most: dict[Buffer, int] = {}
    for nest in nests:
        steps = {axis[nest]: size(nest.extents[axis[nest]]) for axis in axes}
        if vector is not None:
            loop = axes[vector][nest]
            steps[loop] = -(-steps[loop] // LANES)
        lengths = {k: float(size(n)) for k, n in enumerate(nest.extents)}
        for buffer, at in dict.fromkeys((nest.buffers[name], at) for name, at in nest.reads_at):
            if buffer not in made:
                again = _repeated(nest, buffer, at, steps, lengths, size)
                most[buffer] = max(most.get(buffer, 0), again)
    return sum(n * buffer.dtype.itemsize for buffer, n in most.items())


def _repeated(
    nest: Nest,
    buffer: Buffer,
    at: Sequence[Expr],
    steps: Mapping[int, int],
    lengths: Mapping[int, float],
    size: Callable[[int], int],
) -> int:
    """Elements that a read takes more than once, if every step of root loops reads anew.

    steps: by root loop, how many there are; lengths: of all loops.
    """
    if all(isinstance(e, int) or e[0] == "i" for e in at):  # a part for each of the loops it knows
        known = {e[1] for e in at if not isinstance(e, int)}
        times = math.prod(n for k, n in steps.items() if k not in known)
        return round((times - 1) * math.prod(lengths[k] for k in known))
    if any(integers_of(e) for e in at):
        return 0  # where values say: unknown
    whole = _elements(nest, buffer, at, lengths, size)
    each = _elements(nest, buffer, at, {k: n / steps.get(k, 1) for k, n in lengths.items()}, size)
    return max(round(math.prod(steps.values()) * each - whole), 0)


def _elements(
    nest: Nest,
    buffer: Buffer,
    at: Sequence[Expr],
    lengths: Mapping[int, float],
    size: Callable[[int], int],
) -> float:
    """Elements that a read touches while loops run so long."""
    found = 1.0
    for place, e in enumerate(at):
        loops = loops_of(e)
        here = math.prod(lengths[k] for k in loops)
        if len(loops) > 1:  # a window: neighbours overlap
            terms = terms_of(e, nest.extents)
            if all(atom is None or atom[0] == "i" for atom in terms):
                spans = ((lengths[k] - 1) * abs(size(terms.get(("i", k), 0))) for k in loops)
                here = min(here, sum(spans) + 1)
        found *= min(here, size(buffer.shape[place])) if len(at) == len(buffer.shape) else here
    moved = frozenset[int]().union(*map(loops_of, at))
    return min(found, math.prod(lengths[k] for k in moved), size(buffer.size))
