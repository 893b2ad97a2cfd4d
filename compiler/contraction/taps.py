"""A packed as it lies, borders included, instead of once for every tap of a window.

    dw[c, q, o] = sum of x[c, i + q] * dy[i, o] over i        rows (c, q), columns o

A loop q of m and a loop i of k of which A knows only s*i + q: the panel has one axis for the two,
longer by the reach of the taps, and row (c, q) at i is the element s*i + q of c.  Of q - s*i it
holds the elements from the last i on, and i counts backwards.  A tile has the rows of whole
windows, or divides the rows of one, so where each row lies is known when the kernel is compiled;
where each i lies is read from a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaop.extent import Extent
from metaop.index import Expr, unflatten

from ..loops import LANES
from .classify import Contraction, Factor, row_major

if TYPE_CHECKING:
    from .blocks import Cut

LARGEST_STEP = 4  # of a window


@dataclass(eq=False)
class Taps:
    """The windows of A within blocks of k."""

    factor: Factor  # with q for s*i + q, and nothing of i
    own: list[int]  # the loops of m that are no taps
    taps: dict[int, tuple[int, int]]  # loop of k -> (loop of m, s, or -s)
    order: list[int]  # the taps, as m has them
    extents: list[int]  # of them
    axes: list[int]  # the loops of the block of k
    lengths: list[int]  # of the panel's axes, one for each of them

    @property
    def count(self) -> int:
        """The rows of a window."""
        return math.prod(self.extents)

    @property
    def pitch(self) -> list[int]:
        """How far apart neighbours along an axis are."""
        return row_major(self.room)

    @property
    def room(self) -> list[int]:
        """The axes' lengths in memory."""
        *outer, row = self.lengths
        whole = -(-row // LANES) * LANES
        return [*outer, whole if row > LANES else row]

    @property
    def plane(self) -> int:
        """The distance of windows that see different elements."""
        return (-(-math.prod(self.room) // LANES) + 1) * LANES

    def row(self, number: Expr) -> tuple[Expr, list[Expr]]:
        """The window that a row belongs to, and how far along each axis its tap is."""
        tap = ("mod", number, self.count)
        at = dict(zip(self.order, unflatten(tap, self.extents)))
        along = [at[self.taps[axis][0]] if axis in self.taps else 0 for axis in self.axes]
        return ("floordiv", number, self.count), along

    def steps(self) -> list[tuple[int, int]]:
        """Where each loop of k begins along its axis, and how far one step of it moves."""
        found = []
        for axis, length in zip(self.axes, self.lengths):
            tap, step = self.taps.get(axis, (axis, 1))
            last = 0 if step > 0 else length - self.extents[self.order.index(tap)]
            found.append((last, step))
        return found

    def rows_of_tiles(self, most: int) -> Iterator[int]:
        """Rows of a tile: of whole windows, or of the innermost taps of one."""
        rows = 1
        for extent in reversed(self.extents):
            rows *= extent
            if 1 < rows < self.count:
                yield rows
        yield from range(self.count, most + 1, self.count)


def find_taps(c: Contraction, k: Cut) -> Taps | None:
    """The windows of A within blocks of k, None if there are none; taps are the last loops of m."""
    if c.layers or c.ends:
        return None
    extents = list(c.nest.extents)
    factor = c.a
    taps: dict[int, tuple[int, int]] = {}
    for loop in k.loops:
        for step, q in _candidates(c, loop, {found for found, _ in taps.values()}):
            if step < 0 and loop == k.loop and k.count != 1:
                continue  # blocks would have to be counted backwards, too
            moved = _without(factor, loop, q, step, extents)
            if moved is not None:
                factor, taps[loop] = moved, (q, step)
                extents[q] += abs(step) * (extents[loop] - 1)
                break
    found = {q for q, _ in taps.values()}
    order = [q for q in c.m if q in found]
    sizes = [k.size if loop == k.loop else c.nest.extents[loop] for loop in k.loops]
    if not taps or c.m[-len(order) :] != order or any(isinstance(n, Extent) for n in sizes):
        return None
    lengths = [
        abs(taps[loop][1]) * (n - 1) + c.nest.extents[taps[loop][0]] if loop in taps else n
        for loop, n in zip(k.loops, sizes)
    ]
    own = [q for q in c.m if q not in found]
    return Taps(factor, own, taps, order, [c.nest.extents[q] for q in order], k.loops, lengths)


def _candidates(c: Contraction, loop: int, found: set[int]) -> list[tuple[int, int]]:
    """Loops of m that may be the taps of a loop of k, with the step of that between taps."""
    extents, step = c.nest.extents, c.a.access.get(("i", loop), 0)
    steps = {q: c.a.access.get(("i", q), 0) for q in c.m if q not in found}
    candidates = [
        (step // own, q)
        for q, own in steps.items()
        if own and step % own == 0 and 1 <= abs(step // own) <= LARGEST_STEP
        if extents[q] != 1 and not isinstance(extents[q], Extent)
        if not isinstance(extents[loop], Extent)
    ]
    return sorted(candidates, key=lambda one: (abs(one[0]), one))


def _without(
    factor: Factor, loop: int, tap: int, step: int, extents: Sequence[int]
) -> Factor | None:
    """The factor in terms of the tap alone, which stands for step * loop + tap, counted from the
    least there is; None if it knows one of the two apart."""
    reach = step * (extents[loop] - 1)
    longer = list(extents)
    longer[tap] = extents[tap] + abs(reach)
    at: list[Expr] = [("i", k) for k in range(len(extents))]
    at[tap] = ("sub", ("i", tap), ("mul", ("i", loop), step))
    if step < 0:
        at[tap] = ("add", at[tap], reach)
    return factor.without(loop, at, longer)
