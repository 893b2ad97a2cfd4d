"""boundary: why a value goes through memory between two kernels, and what merging would cost.

A rule decides, or a cost: too few iterations of the outer loops that both kernels have would be
left to share out, or each of them would read again what no outer loop moves through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaop.index import Expr, integers_of, loops_of

from .nest import Buffer, Nest


@dataclass
class Boundary:
    """Why a nest is not in the kernel of what it reads.

    loops: the outer loops of both kernels; iterations: those that a common kernel would have, if
    they are too few to keep all threads busy; read_again: bytes that it would read once more
    than is needed.
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
        parts = [self.rule] if self.rule else []
        if self.loops is not None and self.loops[0] != self.loops[1]:
            parts.append("different outer loops {} / {}".format(*self.loops))
        if self.iterations is not None:
            left = "1 iteration" if self.iterations == 1 else f"{self.iterations} iterations"
            parts.append(f"merging would leave {left} to share out")
        if self.read_again:
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


def read_again(
    nests: Iterable[Nest], axes: Sequence[Mapping[Nest, int]], size: Callable[[int], int] = int
) -> int:
    """Bytes that nests read more than once if each iteration of common root loops `axes` reads its
    part of every buffer anew: a buffer is read once per iteration of the loops that it is not
    indexed by.  Halos of windows are left out."""
    nests = list(nests)
    made = {nest.target for nest in nests}
    most: dict[Buffer, int] = {}
    for nest in nests:
        for name, at in nest.reads_at:
            buffer = nest.buffers[name]
            most[buffer] = max(most.get(buffer, 0), _repeated(nest, buffer, at, axes, size))
    return sum(n * buffer.dtype.itemsize for buffer, n in most.items() if buffer not in made)


def _repeated(
    nest: Nest,
    buffer: Buffer,
    at: Iterable[Expr],
    axes: Sequence[Mapping[Nest, int]],
    size: Callable[[int], int],
) -> int:
    """Elements that a read takes more than once, because root loops do not move it."""
    if any(integers_of(e) for e in at):
        return 0  # where values say: unknown
    loops = set().union(*map(loops_of, at))
    elements, repeats = 1, 1
    for loop in loops:
        elements *= size(nest.extents[loop])
    for axis in axes:
        if axis[nest] not in loops:
            repeats *= size(nest.extents[axis[nest]])
    return (repeats - 1) * min(elements, size(buffer.size))
