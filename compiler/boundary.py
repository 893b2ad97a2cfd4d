"""boundary: why a value goes through memory between two kernels, and what merging would cost.

A rule decides, or a cost: too few iterations of the outer loops that both kernels have would be
left to share out, or each of them would read again what no outer loop moves through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaop.index import Expr, loops_of

from .loops import integers_of
from .nest import Buffer, Nest


@dataclass
class Boundary:
    """Why a nest is not in the kernel of what it reads.

    loops: the outer loops of both kernels; iterations: of those that a common kernel would have;
    read_again: bytes that it would read more than once is enough.
    """

    source: Buffer
    target: Buffer
    rule: str
    loops: tuple[list[int], list[int]] | None = None
    iterations: int | None = None
    read_again: int = 0

    @property
    def reason(self) -> str:
        """The rule and the cost in words."""
        if self.loops is None or self.iterations is None:
            return self.rule
        one, other = self.loops
        parts = [self.rule] if self.rule else []
        if one != other:
            parts.append(f"different outer loops {one} / {other}")
        left = "1 iteration" if self.iterations == 1 else f"{self.iterations} iterations"
        cost = f"merged, {left} would be left to share out"
        if self.read_again:
            cost += f", and {megabytes(self.read_again)} would be read again"
        return "; ".join([*parts, cost])

    def __repr__(self) -> str:
        return f"{self.source.name} -> {self.target.name}: {self.reason}"


def megabytes(nbytes: int) -> str:
    """`51 MB`, `3.2 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            number = nbytes / size
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{nbytes} bytes"


def read_again(nests: Iterable[Nest], axes: Sequence[Mapping[Nest, int]]) -> int:
    """Bytes that nests read more than once if each iteration of common root loops `axes` reads its
    part of every buffer anew: a buffer is read once per iteration of the loops that it is not
    indexed by.  Halos of windows are left out."""
    nests = list(nests)
    made = {nest.target for nest in nests}
    times: dict[Buffer, int] = {}
    for nest in nests:
        for name, at in nest.reads_at:
            buffer = nest.buffers[name]
            times[buffer] = max(times.get(buffer, 1), _repeats(nest, at, axes))
    return sum((n - 1) * int(b.nbytes) for b, n in times.items() if b not in made)


def _repeats(nest: Nest, at: Iterable[Expr], axes: Sequence[Mapping[Nest, int]]) -> int:
    """Iterations of the root loops that a read does not move with."""
    if any(integers_of(e) for e in at):
        return 1  # where values say: unknown
    loops = set().union(*map(loops_of, at))
    repeats = 1
    for axis in axes:
        if axis[nest] not in loops:
            repeats *= int(nest.extents[axis[nest]])
    return repeats
