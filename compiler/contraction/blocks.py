"""Which blocks and tiles a contraction is computed in: the options, what each costs, the cheapest.

The options are compared with extents as plain numbers, many hundreds for a contraction; only the
chosen one is written in formulas of the extents.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain, islice
from typing import Any, NamedTuple

from metaop.dtype import DType
from metaop.extent import Extent, at_least, hint, maximum, minimum
from metaop.index import TRUE, Expr, recalled

from ..loops import LANES, walk
from .classify import Contraction, Factor, result_steps, row_major
from .taps import Taps, find_taps


@dataclass(eq=False)
class Cut:
    """Some loops of a class as blocks: outer loops | one loop in pieces of `size` | inner loops.

    A block has up to `capacity` elements, numbered in row-major order.
    """

    outer: list[int]
    loop: int
    size: int
    inner: list[int]
    extent: int  # of the loop in pieces
    step: int  # elements of the inner loops

    @property
    def capacity(self) -> int:
        return self.size * self.step

    @property
    def stride(self) -> int:
        """The elements from one block to the next."""
        return self.capacity

    @property
    def count(self) -> int:
        """Pieces of the loop."""
        return -(-self.extent // self.size)

    @cached_property
    def loops(self) -> list[int]:
        """The loops inside a block, the one in pieces first."""
        return [self.loop, *self.inner]


def cut(loops: Sequence[int], extents: Sequence[int], most: int) -> Cut:
    """Blocks of up to `most` elements, as equal as they can be; a loop of dynamic extent runs in
    pieces of a fixed size."""
    step, position = 1, len(loops) - 1
    while position > 0 and step * hint(extents[loops[position]]) <= most // 2:
        if isinstance(extents[loops[position]], Extent):
            break
        step *= extents[loops[position]]
        position -= 1
    loop = loops[position]
    pieces = -(-hint(extents[loop]) // max(1, most // step))
    size = -(-hint(extents[loop]) // pieces)
    if isinstance(extents[loop], Extent):
        size = round_number(size)
    return Cut(list(loops[:position]), loop, size, list(loops[position + 1 :]), extents[loop], step)


@dataclass(eq=False)
class Flat:
    """All loops of a class numbered by one index, in blocks that may cut across any of them.

    wanted: as many blocks keep all threads busy, if each is worth it.
    """

    loops: list[int]
    capacity: int
    total: int
    tile: int
    wanted: int = 1

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self.total // self.stride)

    @property
    def needed(self) -> int:
        """The number of blocks if they are as large as they may be."""
        return -(-self.total // self.capacity)

    @property
    def stride(self) -> int:
        """The elements from one block to the next: if how many there are is known only when the
        kernel runs, as many as make equal blocks then."""
        if not isinstance(self.total, Extent):
            return self.capacity
        blocks = enough(self.total, self.needed, self.wanted)
        equal = (self.total + blocks - 1) // blocks
        return (equal + self.tile - 1) // self.tile * self.tile


def flat(c: Contraction, loops: list[int], tile: int, most: int, others: int = 1) -> Flat:
    """Blocks of whole tiles of up to `most` rows, as equal as they can be; others: the items that
    there are for each of them."""
    total = c.size(loops)
    if isinstance(total, Extent):
        wanted = wanted_beside(hint(others))
        return Flat(loops, round_number(most // tile) * tile, total, tile, wanted)
    return Flat(loops, evenly(total, tile, most), total, tile)


def round_number(most: int) -> int:
    """The largest power of two up to that, at least 1: pieces that an extent which the kernel
    learns is most often a multiple of."""
    return 1 << max(0, most.bit_length() - 1)


def enough(rows: int, needed: int, wanted: int) -> int:
    """As many blocks of rows as are needed, or wanted if rows suffice."""
    return maximum(needed, minimum(-(-rows // LEAST_ROWS), wanted))


def wanted_beside(others: int) -> int:
    """The blocks that give all processors work, of which each makes so many items."""
    return -(-ITEMS * processors() // max(1, others))


def whole_tiles(tile: int, most: int) -> int:
    """Rows of as many whole tiles as fit in `most`, of at least one."""
    return max(1, most // tile) * tile


def evenly(total: int, tile: int, most: int) -> int:
    """Rows of a block of whole tiles, so that blocks are as equal as they can be."""
    tiles = -(-total // tile)
    blocks = -(-tiles // max(1, most // tile))
    return -(-tiles // blocks) * tile


def group_of(rows: int, depth: int, itemsize: int) -> int:
    """How many tiles of so many rows, of a block of k of this depth, stay in the second cache
    beside what passes through it."""
    return max(1, GROUP // (rows * depth * itemsize))


def several(count: int) -> bool:
    """True for a loop that may have more than one iteration."""
    return isinstance(count, Extent) or count > 1


def odd_lines(elements: int) -> int:
    """A row length from which rows spread over all sets of a cache: an odd number of vectors."""
    return (-(-elements // LANES) | 1) * LANES


class Tile(NamedTuple):
    """A tile of results in registers: rows x vectors of columns (dot: rows x columns)."""

    rows: int
    columns: int


@dataclass(eq=False)
class Blocks:
    """Everything that is chosen: form, tile, blocks."""

    form: str  # "outer" or "dot"
    tile: Tile
    m: Flat
    n: Cut | Flat
    k: Cut
    grid_n: list[int]  # loops of n that are outside all blocks
    windows: Windows | None = None
    taps: Taps | None = None
    group: int | None = None  # tiles of rows that all columns pass before the next; None for all

    @property
    def columns(self) -> int:
        """Columns of a block, with those between the rows of windows that are computed in vain."""
        if self.windows is None:
            return self.n.capacity
        assert isinstance(self.n, Cut)
        return self.windows.columns(self.n.size)


@dataclass(eq=False)
class Windows:
    """B packed as it lies, borders included, instead of once for every tap of a window.

    A loop i of n and a loop q of k of which B knows only i + d * q: the panel has one axis for the
    two, longer by the reach of the taps, and column j at tap q is the element j + d * q further on.
    Columns run on from row to row of the panel, over its borders too, and those results are
    dropped; or, where rows of results are whole vectors, each vector lies in one row of it.
    """

    factor: Factor  # with i for i + d * q, counted from the first tap
    taps: dict[int, tuple[int, int]]  # loop of n -> (loop of k, d)
    lengths: list[int]  # of the panel's axes, one for each loop of a block of n
    first: list[int]  # the loops of a block of k that are no taps
    axes: list[int]  # the loops of the block of n

    @property
    def pitch(self) -> list[int]:
        """How far apart neighbours along an axis are."""
        return row_major(self.room)

    @property
    def room(self) -> list[int]:
        """The axes' lengths in memory, where rows are whole vectors if columns leave the choice."""
        if not self.row_by_row:
            return self.lengths
        return [*self.lengths[:-1], -(-self.lengths[-1] // LANES) * LANES]

    @property
    def plane(self) -> int:
        """The distance of panels for different k that are no taps."""
        return odd_lines(math.prod(self.room) + LANES)

    @cached_property
    def row_by_row(self) -> bool:
        """Whether columns are those of results alone, since no vector has some of two rows."""
        last = self.lengths[-1] - self.reach(self.axes[-1])
        return len(self.axes) > 1 and isinstance(last, int) and last % LANES == 0

    @property
    def column_lengths(self) -> list[int]:
        """The axes' lengths as columns are numbered."""
        if not self.row_by_row:
            return self.lengths
        return [n - self.reach(k) for k, n in zip(self.axes, self.lengths)]

    @property
    def column_pitch(self) -> list[int]:
        """How many columns lie between neighbours along an axis."""
        return row_major(self.column_lengths)

    def columns(self, pieces: int) -> int:
        """Columns of `pieces` steps of the first loop."""
        return pieces * self.column_pitch[0] - self.tail

    @property
    def tail(self) -> int:
        """What the last step lacks: it ends with its last result, not with the border."""
        if self.row_by_row:
            return 0
        inner = zip(self.axes[1:], self.lengths[1:], self.pitch[1:])
        return self.pitch[0] - 1 - sum((n - 1 - self.reach(k)) * p for k, n, p in inner)

    @property
    def lines(self) -> float:
        """The lines that a vector lies in: two unless rows begin where vectors do."""
        shifted = self.axes[-1] in self.taps
        if self.row_by_row:
            return 1.5 if shifted else 1
        return 2 if shifted else 1 if self.lengths[-1] % LANES == 0 else 1.5

    def reach(self, loop: int) -> int:
        """By how much the taps make an axis longer."""
        return self._reach.get(loop, 0)

    def __post_init__(self) -> None:
        self._reach: dict[int, int] = {}

    def count(self, c: Contraction) -> int:
        """The number of taps."""
        return c.size([q for q, _ in self.taps.values()])

    def farthest(self) -> int:
        """The distance of the last tap from the first."""
        return sum(self.reach(k) * p for k, p in zip(self.axes, self.pitch))


def find_windows(c: Contraction, n: Cut, k: Cut, along: bool = True) -> Windows | None:
    """The windows of B within blocks of n and k, None if there are none; along: also those along
    the innermost loop of n, which make rows of the panel longer than those of results."""
    extents = list(c.nest.extents)
    factor, taps, reach = c.b, {}, {}
    candidates = [q for q in k.loops if q != k.loop or not several(k.count)]
    for loop in n.loops if along else n.loops[:-1]:
        own = c.b.access.get(("i", loop), 0)
        steps = {q: c.b.access.get(("i", q), 0) for q in candidates if own}
        fitting = [q for q, step in steps.items() if step and step % own == 0]
        for q in sorted(fitting, key=lambda q: abs(steps[q])):
            distance = steps[q] // own
            longer = abs(distance) * (c.nest.extents[q] - 1)
            if longer > c.nest.extents[loop]:
                continue
            moved = _from_first_tap(factor, loop, q, distance, extents)
            if moved is not None:
                factor, taps[loop] = moved, (q, distance)
                reach[loop] = longer
                extents[loop] += reach[loop]
                candidates.remove(q)
                break
    if not taps:
        return None
    used = {q for q, _ in taps.values()}
    lengths = [n.size if loop == n.loop else c.nest.extents[loop] for loop in n.loops]
    lengths = [length + reach.get(loop, 0) for loop, length in zip(n.loops, lengths)]
    found = Windows(factor, taps, lengths, [q for q in k.loops if q not in used], n.loops)
    found._reach = reach
    return found


def _from_first_tap(
    factor: Factor, loop: int, tap: int, distance: int, extents: list[int]
) -> Factor | None:
    """The factor in terms of i + d * q alone, None if it knows i or q apart."""
    key = (_from_first_tap, factor, loop, tap, distance, tuple(extents))  # for blocks of any size
    return recalled(key, lambda: _shifted(factor, loop, tap, distance, extents))


def _shifted(
    factor: Factor, loop: int, tap: int, distance: int, extents: list[int]
) -> Factor | None:
    reach = abs(distance) * (extents[tap] - 1)
    longer = [n + reach if k == loop else n for k, n in enumerate(extents)]
    at: list[Expr] = [("i", k) for k in range(len(extents))]
    at[loop] = ("sub", ("i", loop), ("mul", ("i", tap), distance))
    if distance < 0:
        at[loop] = ("sub", at[loop], reach)
    return factor.without(tap, at, longer)


# What is tried: products added up before a tile moves on, rows and columns of a block.
KEPT, KEPT_DOTS = 640, (512, 1024)  # the first is one, so that no choice changes a sum
LONGEST_CHAIN = 384  # products added up in a register: rounding errors grow with their number
MOST_ROWS, MOST_DOT = (64, 128, 256, 512), (64, 128)
GROUP = 300_000  # bytes of rows that all columns of a block pass before the next rows
MOST_COLUMNS = (64, 128, 256, 400, 800)
FEW_COLUMNS = (32, 64, 96)  # of all layers at once
MOST_SCRATCH = 1_500_000  # bytes that a thread may hold
MOST_OF_LAYERS = 3_500_000  # the same of layers, of which one is in use at a time
ENOUGH_SUMS = 0.43  # of the registers
MOST_TILE_ROWS, MOST_TILE_COLUMNS = 16, 8
ENOUGH_CHAINS = 4  # sums of a tile of few rows
MOST_TAP_ROWS = 27  # of a tile that has the rows of whole windows
ALL_ROWS = 1024  # of a block whose panel of A is small, since it does not repeat A
LEAST_ROWS = 64  # of a block that is made smaller only so that there are more


def registers(dtype: DType) -> tuple[int, int]:
    """How many vector registers there are, and how many a vector of 16 lanes takes."""
    from ..machine import vector_registers  # llvmlite loads when something is compiled

    count, wide = vector_registers()
    return count, max(1, LANES * dtype.itemsize // wide)


@cache
def processors() -> int:
    """How many processors the machine has, whoever may use them."""
    return os.cpu_count() or 1


def tiles(form: str, dtype: DType, most: int) -> list[Tile]:
    """The tiles of up to `most` rows whose sums and operands fit in registers and nearly fill half
    of them, of those with as many tiles in `most` rows the one with the fewest rows."""
    return recalled((tiles, form, dtype, hint(most)), lambda: _tiles(form, dtype, hint(most)))


def _tiles(form: str, dtype: DType, most: int) -> list[Tile]:
    count, each = registers(dtype)
    found: dict[tuple[int, int], Tile] = {}
    for rows in range(min(most, MOST_TILE_ROWS), 0, -1):
        for columns in range(1, MOST_TILE_COLUMNS + 1):
            operands = columns * each + 1 if form == "outer" else (min(rows, columns) + 1) * each
            sums = rows * columns * each
            fits = sums + operands <= count
            if fits and (sums >= ENOUGH_SUMS * count or rows == most):
                found[columns, -(-most // rows)] = Tile(rows, columns)
    return list(found.values())


def tiles_of(rows: int, dtype: DType) -> list[Tile]:
    """The tiles of vectors along columns of so many rows that fit in registers and nearly fill half
    of them."""
    count, each = registers(dtype)
    fitting = (count // each - 1) // (rows + 1)
    found = [Tile(rows, columns) for columns in range(1, min(fitting, MOST_TILE_COLUMNS) + 1)]
    return [tile for tile in found if rows * tile.columns * each >= ENOUGH_SUMS * count]


def least_height(c: Contraction, blocks: Blocks) -> int | None:
    """The rows of tiles for a few rows that are left, as many as hide how long a sum takes; None if
    what tiles compute in vain is known, or never is much."""
    rows, columns = blocks.tile
    low = -(-ENOUGH_CHAINS // columns)
    unknown = isinstance(c.size(c.m), Extent) and not at_least(c.size(c.m), rows)
    if blocks.form == "dot" or blocks.taps or c.layers or not unknown or rows < 2 * low:
        return None
    return low


def choose(c: Contraction) -> tuple[Contraction, Blocks] | None:
    """The cheapest blocks of a contraction, and itself or itself turned, whichever they are of;
    None if no tile fits in the registers.

    What decides the order in which products are added, the form and the blocks of *dot*, depends on
    extents and on where the operands would lie in memory, not on what happens to be stored.
    """
    found = recalled((choose, *_decisive(c)), lambda: _search(c))
    if found is None:
        return None
    c = c.turned() if found.turned else c
    family, position = found.place
    return c, next(islice(_options(c, found), family, None))[position].blocks(c)


def _decisive(c: Contraction) -> Iterator[Any]:
    """All that the choice depends on: equal layers of a network are looked at once."""
    yield from (c.nest.value.dtype, tuple(c.nest.extents), tuple(result_steps(c.nest).items()))
    yield from map(tuple, (c.batch, c.layers, c.m, c.n, c.k))
    for factor in (c.a, c.b):
        yield from (factor.guard, tuple(factor.access.items()))
        yield tuple([part.indices for part in walk(factor.value)])


@dataclass(frozen=True)
class Choice:
    """An option by its place among those of a contraction, or of it turned."""

    turned: bool
    panels: str = "plain"  # windows, taps: packed as B or A lies
    place: tuple[int, int] = 0, 0  # the family, and which of it


def _options(c: Contraction, choice: Choice) -> Iterator[Family]:
    """The options of a contraction, turned already if it is to be."""
    if choice.panels != "plain":
        return _window_options(c) if choice.panels == "windows" else _tap_options(c)
    if choice.turned or c.layers:
        return _outer_options(c)
    return chain(_outer_options(c), _dot_options(c))


def _search(c: Contraction) -> Choice | None:
    plain = Costs(c)
    best = _cheaper(plain, Choice(False), None)
    if c.layers:
        return best and best[2]
    turned = Costs(c.turned())
    best = _cheaper(turned, Choice(True), best)
    if best is None or best[1].form != "outer":
        return best and best[2]
    is_turned = best[2].turned
    best = _cheaper(turned if is_turned else plain, Choice(is_turned, "windows"), best)
    best = _cheaper(plain, Choice(False, "taps"), best)
    best = _cheaper(turned, Choice(True, "taps"), best)
    return best and best[2]


def _cheaper(costs: Costs, choice: Choice, best: Found | None) -> Found | None:
    """The cheapest of some options and the best of those before, which it must beat."""
    least = math.inf if best is None else best[0]
    for k, family in enumerate(_options(costs.c, choice)):
        for position, floor in enumerate(costs.floors(family)):
            if floor < least:
                option = family[position]
                cost = costs.of(option, least)
                if best is None or cost < least:
                    best = cost, option, replace(choice, place=(k, position))
                    least = cost
    return best


class Inner(NamedTuple):
    """The part of an option that many have in common: blocks of n and k, and their panels."""

    n: Cut | int  # dot: columns
    k: Cut
    windows: Windows | None = None
    taps: Taps | None = None


@dataclass(eq=False)
class Option:
    """Blocks that may be chosen: the limits that they are cut by."""

    form: str
    tile: Tile
    rows: int
    n: Cut | int
    k: Cut
    windows: Windows | None = None
    taps: Taps | None = None

    @property
    def unit(self) -> int:
        """Rows that a block has a multiple of."""
        return rows_together(self.tile, self.taps)

    def others(self, c: Contraction) -> int:
        """Items for each block of rows."""
        batch = hint(c.size([k for k in c.batch if k not in c.layers]))
        if isinstance(self.n, Cut):
            return batch * hint(c.size(self.n.outer)) * hint(self.n.count)
        return batch * -(-hint(c.size(c.n)) // evenly(hint(c.size(c.n)), self.tile.columns, self.n))

    def blocks(self, c: Contraction) -> Blocks:
        """The blocks themselves."""
        m = flat(c, c.m, self.unit, self.rows, self.others(c))
        if isinstance(self.n, Cut):
            panels = self.windows, self.taps
            group = None
            if self.taps is None and not c.layers:
                group = group_of(self.tile.rows, hint(self.k.capacity), c.nest.value.dtype.itemsize)
                group = group if group * self.tile.rows < m.capacity else None
            return Blocks(self.form, self.tile, m, self.n, self.k, self.n.outer, *panels, group)
        return Blocks(self.form, self.tile, m, flat(c, c.n, self.tile.columns, self.n), self.k, [])


@dataclass(eq=False)
class Family:
    """Options of one tile and one number of rows."""

    form: str
    tile: Tile
    rows: int
    inner: tuple[Inner, ...]  # taps: the same of all

    def __getitem__(self, position: int) -> Option:
        return Option(self.form, self.tile, self.rows, *self.inner[position])


def rows_together(tile: Tile, taps: Taps | None) -> int:
    """Rows that a block has a multiple of: those of a tile, of whole windows if A has any."""
    return max(tile.rows, taps.count) if taps else tile.rows


Found = tuple[float, Option, Choice]  # what an option costs, itself, its place


def _limits(total: int, unit: int, limits: Iterable[int]) -> list[int]:
    """Of limits by which so many rows are cut into equally many blocks, the first."""
    found: dict[int, int] = {}
    if isinstance(total, Extent):  # there may be more rows than it is taken to be
        limits = reversed(list(limits))
    for most in limits:
        found.setdefault(-(-hint(total) // whole_tiles(unit, most)), most)
    return list(found.values())


def _dot_options(c: Contraction) -> Iterator[Family]:
    kept = [cut(c.k, c.nest.extents, depth) for depth in KEPT_DOTS]
    for tile in tiles("dot", c.nest.value.dtype, c.size(c.m)):
        columns = _limits(c.size(c.n), tile.columns, MOST_DOT)
        inner = tuple([Inner(n, k) for n in columns for k in kept])
        for rows in _limits(c.size(c.m), tile.rows, MOST_DOT):
            yield Family("dot", tile, rows, inner)


def _outer_options(c: Contraction) -> Iterator[Family]:
    return _with_tiles(c, [Inner(n, k) for n in _columns(c) for k in _depths(c)])


def _depths(c: Contraction) -> list[Cut]:
    """Blocks of k of one depth, and of half of it where that adds up in the same order."""
    k = cut(c.k, c.nest.extents, KEPT)
    length = chain_length(k.capacity)
    half = cut(c.k, c.nest.extents, length)
    return [k, half] if half.capacity == length < k.capacity else [k]


def chain_length(depth: int) -> int:
    """As many products are added up in a register."""
    return -(-depth // -(-depth // LONGEST_CHAIN))


def _window_options(c: Contraction) -> Iterator[Family]:
    k = cut(c.k, c.nest.extents, KEPT)
    columns = [(n, along) for n in _columns(c) for along in (True, False)]
    inner = [Inner(n, k, find_windows(c, n, k, along)) for n, along in columns]
    return _with_tiles(c, [one for one in inner if one.windows is not None])


def _tap_options(c: Contraction) -> Iterator[Family]:
    k = cut(c.k, c.nest.extents, KEPT)
    taps = find_taps(c, k)
    if taps is None:
        return
    inner = tuple([Inner(n, k, None, taps) for n in _columns(c)])
    for rows in taps.rows_of_tiles(MOST_TAP_ROWS):
        for tile in tiles_of(rows, c.nest.value.dtype):
            unit = max(rows, taps.count)
            for most in _limits(c.size(c.m), unit, (*MOST_ROWS, ALL_ROWS)):
                yield Family("outer", tile, most, inner)


def _columns(c: Contraction) -> list[Cut]:
    """Blocks of columns that differ."""
    limits = (*FEW_COLUMNS, *MOST_COLUMNS) if c.layers else MOST_COLUMNS
    cuts = [cut(_by_stride(c), c.nest.extents, most) for most in limits]
    found: dict[tuple[int, int], Cut] = {}
    for one in cuts:
        found.setdefault((one.loop, one.size), one)
    return list(found.values())


def _with_tiles(c: Contraction, inner: Sequence[Inner]) -> Iterator[Family]:
    """The form with vectors along n, with every tile and every number of rows."""
    if not inner:
        return
    for tile in tiles("outer", c.nest.value.dtype, c.size(c.m)):
        for rows in _limits(c.size(c.m), tile.rows, MOST_ROWS):
            yield Family("outer", tile, rows, tuple(inner))


# --------------------------------------------------------------------------------------------- cost

# Cycles for 16 products, where one multiply-add of a vector takes one: fitted to measured times of
# some forty blockings of each of a dozen contractions.
DOT = 0.65  # a vector that a tile of dots loads, by its products
LOAD = 0.35  # a vector that a tile loads (an element costs nothing: it is an operand)
FIRST_CACHE, FAR_LOAD = 30_000, 0.8  # bytes of a panel that stay there; a vector from the second
SECOND_CACHE, FAR_ROW = 500_000, 0.12  # the same of the second cache, and an element
PARTIAL, FAR_PARTIAL, LANE_PARTIAL = 25.0, 15.0, 90.0  # 16 sums fetched and put away
COPY, GUARDED, GATHER = 1.5, 1.5, 15.0  # of 16 elements packed: plainly, conditions, with a stride
APART, APART_STEPS = 5.0, (2, 3, 4)  # of 16 elements that lie so far apart
TURN = 6.0  # of 16 elements that are read along k and put down along n
SHORT_LOOP = 6.0  # to begin a row
ACROSS = 1.5  # of a result that is not stored along its row
STREAM = 0.5  # to bring an element near that is packed
STREAM_PACKED, WRITE = 0.8, 1.5  # the same of one that a kernel has packed, and to put it in memory
LATENCY = 8  # sums that must be under way
VARYING = 1.1  # what is computed along rows of results whose length the kernel learns: maybe few
ITEMS, GRAIN = 4, 0.1  # wanted for each processor; what one that must wait for the last loses
IDLE = 0.15  # what processors lose that have no work where there are few rows
MOST_PADDING = 1.3  # of what is packed once, against the operand
SHARED = 4  # items that share a block which is then packed once, by a kernel of its own
LEAST_PACKED = 1 << 13  # elements that items would pack, which are worth such a kernel's launch


class Costs:
    """What the options of one contraction cost."""

    def __init__(self, c: Contraction):
        self.c = c
        self.itemsize = c.nest.value.dtype.itemsize
        self.m, self.n, self.k = (hint(c.size(loops)) for loops in (c.m, c.n, c.k))
        self.batch = hint(c.size([k for k in c.batch if k not in c.layers]))
        self.layers = hint(c.size(c.layers))
        self.dynamic = isinstance(c.size(c.m), Extent)
        self.along_m = rows_along(c, c.m)
        inside = c.b.span(c.nest.extents, (*c.n, *c.k))
        self.plain_b = self.n * self.k <= MOST_PADDING * inside
        self.across = result_steps(c.nest).get(("i", _by_stride(c)[-1])) != 1
        # what options have in common is computed once
        self.depth_of, self.rows_of = cache(self._depth), cache(self._rows_of)
        self.columns_of, self.outer = cache(self._cut), cache(self._outer)
        self.pack_a, self.pack_b, self.row = (
            cache(self._pack_a), cache(self._pack_b), cache(self._row)
        )  # fmt: skip
        self.shares = cache(self._shares)

    def of(self, option: Option, least: float = math.inf) -> float:
        """Cycles for 16 products, with what tiles compute beyond the edges; of what costs more than
        the least anyway only a part."""
        dot, tile, n, k = option.form == "dot", option.tile, option.n, option.k
        depth = self.depth_of(k)
        if isinstance(n, Cut):
            columns, blocks, more = self.columns_of(n, option.windows, tile.columns * LANES)
        else:
            columns = min(evenly(self.n, tile.columns, n), self.n)
            blocks, more = -(-self.n // columns), -(-self.n // tile.columns) * tile.columns / self.n
        unit = option.unit
        rows, groups, waste = self.rows_of(unit, option.rows, self.batch * blocks)
        kept = rows * (LANES if dot else self.layers)
        most = MOST_SCRATCH if self.layers == 1 else MOST_OF_LAYERS
        repeated = self._again(option.windows, columns)  # windows hold what taps repeat once
        if self.itemsize * columns * (depth * self.layers * repeated + kept) > most:
            return math.inf
        if dot:
            cost = waste * more * self._dot(tile)
        else:
            panels = option.windows, option.taps
            cost = waste * more * self.outer(tile, *panels, rows, depth)
        if cost >= least:
            return cost
        if dot:
            cost += LANE_PARTIAL / depth
        elif self._in_parts(depth, option.windows):
            cost += (PARTIAL + FAR_PARTIAL * self._over(kept * columns, SECOND_CACHE)) / depth
        if not dot and self.across:
            cost += LANES * ACROSS / self.k
        if option.taps is None:
            packing = self.pack_a(dot, k, rows, depth)
            cost += self._panel(packing, columns, blocks)
        else:
            cost += self._pack_taps(option.taps, depth) * LANES / columns
        if cost >= least:
            return cost
        shared = -(-self.m // whole_tiles(unit, option.rows)) if self.plain_b else 1
        packing = self.pack_b(n, k, columns, depth)
        cost += repeated * self._panel(packing, rows, shared)
        items = self.batch * groups * blocks
        rounds = -(-items // processors())
        share = processors() / items
        if self.dynamic:  # there may be rows for one block only
            cost *= 1 + IDLE * max(0.0, 1 - self.batch * blocks / processors())
        return cost * rounds * share * (1 + GRAIN * share)

    def floors(self, family: Family) -> list[float]:
        """A number for each option that its cost is not below: most are dearer by that alone."""
        tile, taps = family.tile, family.inner[0].taps
        unit = rows_together(tile, taps)
        waste = 1.0 if self.dynamic else -(-self.m // unit) * unit / self.m
        if family.form == "dot":
            products, loads = waste * self._dot(tile), 0.0
        else:
            products, loads = (waste * cost for cost in self._products(tile))
        packing = LANES * STREAM / whole_tiles(unit, family.rows)
        return [
            more * (products + lines * loads) + again * packing + fixed
            for more, lines, again, fixed in self.shares(family.form, family.inner)
        ]

    def _shares(self, form: str, inner: Sequence[Inner]) -> list[tuple[float, ...]]:
        """What the floor of each option is made of: by how much more is computed than wanted, the
        lines of a vector, how often B is packed; what does not depend on tile and rows."""
        if form == "dot":
            return [(1.0, 1.0, 1.0, LANE_PARTIAL / self.depth_of(k)) for _, k, _, _ in inner]
        found: list[tuple[float, ...]] = []
        for n, k, windows, taps in inner:
            assert isinstance(n, Cut)
            columns, blocks, more = self.columns_of(n, windows, LANES)
            depth = self.depth_of(k)
            fixed = PARTIAL / depth if self._in_parts(depth, windows) else 0.0
            if taps is not None:
                fixed += self._pack_taps(taps, depth) * LANES / columns
            else:
                least = 0.0 if self.along_m else self.pack_a(False, k, 0, depth)
                fixed += self._panel(least, columns, blocks)
            lines = windows.lines if windows else 1.0
            found.append((more, lines, self._again(windows, columns), fixed))
        return found

    def _in_parts(self, depth: int, windows: Windows | None) -> bool:
        """Whether sums of vectors along n are put away before they are finished."""
        return depth < self.k or windows is not None or self.across or self.layers > 1

    def _depth(self, k: Cut) -> int:
        """Products that are added up in a block."""
        return min(hint(k.capacity), self.k)

    def _rows_of(self, tile: int, most: int, others: int) -> tuple[int, int, float]:
        """Rows of a block, the number of blocks, and what tiles compute for each result: nothing in
        vain if how many rows there are is not known, since most often it is a round number."""
        if self.dynamic:
            needed = -(-self.m // (round_number(most // tile) * tile))
            count = enough(self.m, needed, wanted_beside(others))
            return -(-self.m // count), count, 1.0
        rows = min(evenly(self.m, tile, most), self.m)
        return rows, -(-self.m // rows), -(-self.m // tile) * tile / self.m

    @staticmethod
    def _panel(packing: float, uses: float, items: int) -> float:
        """Cycles for a panel whose elements are used so often by each of these items, by what it
        takes to pack one of them."""
        if items < SHARED:
            return LANES * (STREAM + packing) / uses
        return LANES * (STREAM_PACKED + (WRITE + packing) / items) / uses

    def _pack_a(self, dot: bool, k: Cut, rows: int, depth: int) -> float:
        """Cycles for an element of a panel of A."""
        if self.along_m and not dot:
            return self._packing(self.c.a, self.c.m, rows)
        return self._packing(self.c.a, k.loops, depth)

    def _pack_taps(self, taps: Taps, depth: int) -> float:
        """Cycles for an element of A that is packed as it lies."""
        row = taps.lengths[-1]
        packing = ((COPY + GUARDED) * -(-row // LANES) + SHORT_LOOP) / row
        return (STREAM + packing) * math.prod(taps.lengths) / (depth * taps.count)

    def _pack_b(self, n: Cut | int, k: Cut, columns: int, depth: int) -> float:
        """Cycles for an element of a panel of B."""
        if not isinstance(n, Cut):
            return self._packing(self.c.b, k.loops, depth)
        if turns(self.c.b, n.loops, k.loops, self.c.nest.extents):
            return TURN / LANES + SHORT_LOOP / depth
        return self._packing(self.c.b, n.loops, columns)

    def _again(self, windows: Windows | None, columns: int) -> float:
        """How often an element of B is packed: once for every tap, or with borders for all."""
        if windows is None:
            return 1.0
        panel = math.prod(hint(n) for n in windows.lengths)
        return panel / (columns * hint(windows.count(self.c)))

    def _dot(self, tile: Tile) -> float:
        sums = tile.rows * tile.columns
        return max(1.0, LATENCY / sums) + DOT * (tile.rows + tile.columns) / sums

    @staticmethod
    def _products(tile: Tile) -> tuple[float, float]:
        """Cycles of a tile for a vector of products, and for what it loads if that is in lines."""
        sums = tile.rows * tile.columns
        return max(1.0, LATENCY / sums), LOAD * tile.columns / sums

    def _outer(
        self, tile: Tile, windows: Windows | None, taps: Taps | None, rows: int, depth: int
    ) -> float:
        """Cycles of a tile for a vector of products."""
        products, loads = self._products(tile)
        cost = products + loads * (windows.lines if windows else 1)
        shared = hint(windows.count(self.c)) if windows else 1
        own = depth if taps is None else math.prod(taps.room) / taps.count
        if taps is None and self.layers == 1:
            rows = min(rows, group_of(tile.rows, depth, self.itemsize) * tile.rows)
        strip = own * tile.rows + depth * tile.columns * LANES / shared
        cost += FAR_LOAD * self._over(strip, FIRST_CACHE) / tile.rows
        return cost + FAR_ROW * self._over(rows * own, SECOND_CACHE) / tile.columns

    def _over(self, elements: float, room: int) -> float:
        """The share of these elements that a cache has no room for."""
        return max(0.0, 1 - room / (elements * self.itemsize))

    def _cut(self, n: Cut, windows: Windows | None, width: int) -> tuple[int, int, float]:
        """Columns of a block, the number of blocks, and what tiles compute for each result."""
        extent, size, step, count = (hint(v) for v in (n.extent, n.size, n.step, n.count))
        pieces = extent - size * (count - 1)
        last = hint(windows.columns(pieces)) if windows else pieces * step
        block = hint(windows.columns(size)) if windows else size * step
        computed: float = ((count - 1) * -(-block // width) + -(-last // width)) * width
        computed *= VARYING if isinstance(n.extent, Extent) and step == 1 else 1
        around = hint(self.c.size(n.outer))
        return size * step, count * around, computed / (extent * step)

    def _packing(self, factor: Factor, loops: Sequence[int], capacity: int) -> float:
        """Cycles for an element of a factor that is packed in vectors along some loops."""
        cost, length, alone = self.row(factor, tuple(loops))
        length = min(length, capacity) if alone else length
        return (cost * -(-length // LANES) + SHORT_LOOP) / length

    def _row(self, factor: Factor, loops: Sequence[int]) -> tuple[float, int, bool]:
        """Cycles for 16 elements of a factor, the elements that follow each other in rows along
        some loops, and whether blocks may cut such a row."""
        extents = self.c.nest.extents
        step, length = factor.stride(loops[-1]), extents[loops[-1]]
        for outer in reversed(loops[:-1]):
            if factor.guard != TRUE or step is None or factor.stride(outer) != step * length:
                break
            length *= extents[outer]
        cost = COPY if step in (0, 1) else APART if step in APART_STEPS else GATHER
        cost += GUARDED if factor.guard != TRUE else 0.0
        if self.layers > 1 and factor.loads > 1:  # every element that is read is for one layer
            cost = APART + GUARDED
        return cost, hint(length), len(loops) == 1


def rows_along(c: Contraction, loops: Sequence[int]) -> bool:
    """True if panels of A are best packed along m, False if along k."""
    return len(loops) == 1 and c.a.stride(loops[0]) == 1


def turns(
    factor: Factor, loops_n: Sequence[int], loops_k: Sequence[int], extents: Sequence[int]
) -> bool:
    """True if a panel with rows along n is packed from memory that is walked along k."""
    along_k, along_n = factor.stride(loops_k[-1]), factor.stride(loops_n[-1])
    if along_k not in (1, *APART_STEPS) or along_n in (0, 1):
        return False
    return along_n not in APART_STEPS or (along_k == 1 and extents[loops_k[-1]] >= LANES)


def _by_stride(c: Contraction) -> list[int]:
    """The loops of n, the one with the longest step through the result first."""
    terms = result_steps(c.nest)
    return sorted(c.n, key=lambda k: (-abs(terms.get(("i", k), 0)), k))
