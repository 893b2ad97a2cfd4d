"""Taps of a window that see nothing but the border: left out where a tile's rows all do.

    dx[i] = sum over r of dy[i - r] * w[r], 0 <= i - r < 8        i < 12, r < 5
    the rows i = 0, 1 need r < 2, the rows 10, 11 need r > 2

A panel of windows (blocks.Windows) holds the border as zeros.  A tile of columns lies in a few rows
of the panel's first axis, so the taps along it that reach an element for one of these rows are
those from `first` to `last`; products with zeros only are not added up, in an order that is the
same otherwise.  Where a filter has an infinity or a NaN they are, because 0 times that is a NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from metaop.extent import Extent, has_extents
from metaop.index import Expr, conjuncts, evaluate, loops_of

from ..loops import LANES
from .blocks import Blocks, Cut, Windows
from .classify import Contraction

BEGIN = 20.0  # cycles to begin the taps of one group


@dataclass(eq=False)
class Border:
    """Where the elements of a panel's first axis are, and how taps move along it."""

    begin: int
    end: int
    count: int  # of taps
    distance: int  # from tap to tap
    inner: int  # products of a tap
    pitch: int  # columns of a row

    @property
    def period(self) -> int:
        """Products of all taps: what a group of them has."""
        return self.count * self.inner

    def taps(self, top: Expr, bottom: Expr) -> tuple[Expr, Expr]:
        """The first of the taps that reach an element from rows `top` to `bottom`, and the one
        after the last."""
        step = abs(self.distance)
        low = _steps(("sub", self.begin, bottom), step)
        high: Expr = ("min", _steps(("sub", self.end, top), step), self.count)
        if self.distance > 0:
            return low, high
        return ("sub", self.count, high), ("sub", self.count, ("min", low, self.count))

    def share(self, rows: int, width: int) -> float:
        """The share of all products that is left, of tiles of so many columns."""
        starts = range(0, rows * self.pitch, width)
        kept = 0
        for start in starts:
            first, last = self.taps(start // self.pitch, (start + width - 1) // self.pitch)
            kept += max(0, evaluate(last, []) - evaluate(first, []))
        return kept / (self.count * len(starts))


def _steps(rows: Expr, step: int) -> Expr:
    """The steps that lead over so many rows."""
    return ("floordiv", ("add", ("max", 0, rows), step - 1), step)


def find_border(c: Contraction, blocks: Blocks) -> Border | None:
    """The border along the first axis of a panel of windows, None where leaving it out gains less
    than it costs."""
    w, n, k = blocks.windows, blocks.n, blocks.k
    if w is None or not isinstance(n, Cut) or w.axes[0] not in w.taps or c.ends or blocks.taps:
        return None
    if isinstance(n.extent, Extent):
        return None
    tap, distance = w.taps[w.axes[0]]
    position = k.loops.index(tap)
    sizes = [c.nest.extents[q] for q in k.loops[position:]]
    if any(isinstance(size, Extent) for size in sizes) or (tap == k.loop and k.count > 1):
        return None
    begin, end = _held(w, n.extent + w.reach(n.loop), len(c.nest.extents))
    found = Border(begin, end, sizes[0], distance, math.prod(sizes[1:]), w.column_pitch[0])
    tile = blocks.tile
    left = found.share(n.extent, tile.columns * LANES)
    spared = (1 - left) * found.period * tile.rows * tile.columns
    return found if spared > BEGIN else None


def _held(w: Windows, length: int, loops: int) -> tuple[int, int]:
    """Between which places of its first axis a panel holds what is not 0."""
    loop = w.axes[0]
    parts = [p for p in conjuncts(w.factor.border) if loops_of(p) == {loop}]
    parts = [p for p in parts if not has_extents(p)]
    inside = []
    for place in range(length):
        values = [0] * loops
        values[loop] = place
        if all(evaluate(p, values) for p in parts):
            inside.append(place)
    return (inside[0], inside[-1] + 1) if inside else (0, length)
