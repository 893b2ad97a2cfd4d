"""The direct form of a contraction: sums over a window with few products each, taps unrolled.

    out[b, i, j] = sum over r, q of A(b, r, q) * B(b, i + r, j + q)

 -> grid b, block of i:
      pack B with its borders             one axis for i and r, one for j and q
      serial tile of i, vector of j:
        acc[i] = 0
        acc[i] fma= A[r, q], B[i + r, j + q]     for every tap; an element of B is read once
        out[…] = acc[i]

For a contraction one of whose factors knows no loop of the result but the batch, as in a window
that slides over each channel by itself: there are no rows to tile, what is read again are the
elements of B that several windows see.  All that is needed is that B at one tap is B at another
tap some rows and columns further on; a panel holds what is so shared.  A window that moves by
steps of two sees panels of even and of odd rows and columns; the classes of residues in the
gradient of such a one see one panel, and their loops are unrolled, so that each has its own taps.

The products of a sum are added in the order of its loops, as by the loop nest that it comes from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from metaop.extent import Extent, has_extents, hint
from metaop.index import (
    TRUE,
    Expr,
    Terms,
    conjunction,
    conjuncts,
    evaluate,
    is_condition,
    loops_of,
    simplify,
    substitute,
    terms_of,
)  # fmt: skip

from ..loops import (
    LANES,
    Const,
    For,
    Grid,
    Init,
    Let,
    Load,
    Ref,
    Scratch,
    Stmt,
    Store,
    Update,
    Value,
    walk,
)  # fmt: skip
from ..nest import Nest, Tree
from .blocks import LONGEST_CHAIN, registers
from .build import Plan, Writer, add, times
from .classify import Contraction, Factor, result_steps, without

MOST_TAPS = 64  # that are unrolled
MOST_ROWS, MOST_UPDATES = 8, 250  # rows of a tile; multiply-adds of one body
MOST_COPIES, MOST_BETWEEN = 9, 4  # results that are unrolled; of them between two columns
FEW_ROWS, SOME_ROWS = 4, 8  # of M: up to which no panels pay, or none that repeat B for every tap
SHORTEST_ROW, LONGEST_ROW = 4, 16_384  # results: shorter ones leave a vector mostly empty
MOST_PANEL = 24_576  # bytes of panels that stay in the first cache
ENOUGH_ITEMS = 16
FARTHEST = 64  # rows and columns between taps


Form = tuple[Any, Terms]  # what an index expression is, or a condition says is at least 0


@dataclass(frozen=True)
class Tap:
    """One product of a sum: the loops of k in numbers, and where its element of B lies."""

    at: tuple[tuple[int, int], ...]  # (loop, number)
    panel: int
    row: int  # further on than the panel's base
    column: int


@dataclass(eq=False)
class Seen:
    """Elements of B that taps share: what B is at the panel's base, where row and column are 0."""

    at: dict[int, int]  # numbers for the unrolled loops and those of k
    place: list[Form]
    shifts: set[tuple[int, int]] = field(default_factory=set)
    last: tuple[int, int] = (0, 0)  # the row and column after the last that is read

    @property
    def rows(self) -> tuple[int, int]:
        """The least and the greatest distance of a tap in rows."""
        return min(r for r, _ in self.shifts), max(r for r, _ in self.shifts)

    @property
    def columns(self) -> tuple[int, int]:
        """The same in columns."""
        return min(c for _, c in self.shifts), max(c for _, c in self.shifts)

    def add(self, shift: tuple[int, int], length: tuple[int, int]) -> None:
        """Notes a tap so far from the base, and how many rows and columns of results it has."""
        self.shifts.add(shift)
        rows, columns = (max(n, s + m) for n, s, m in zip(self.last, shift, length))
        self.last = rows, columns

    def is_full(self) -> bool:
        """True if taps read the corners of the panel, so that all of it is where B may be read."""
        return set(itertools.product(self.rows, self.columns)) <= self.shifts


@dataclass(eq=False)
class Windows:
    """How a contraction slides: over which loops, and the taps of every unrolled result."""

    b: Factor  # without what only says which results exist
    column: int
    row: int | None
    unrolled: list[int]  # loops of the result
    wide: list[int]  # other loops of the result that only A knows
    deep: list[int]  # loops of k that are not unrolled
    panels: list[Seen]
    taps: dict[tuple[int, ...], list[Tap]]  # by the numbers of the unrolled loops

    def products(self, c: Contraction) -> int:
        """Products of one place of a window."""
        taps = sum(map(len, self.taps.values()))
        return taps * math.prod(c.nest.extents[q] for q in self.deep)


def rows_of(c: Contraction) -> int:
    """The rows of M, about."""
    return hint(c.size(c.m))


def choose_direct(c: Contraction) -> tuple[Contraction, Windows] | None:
    """A contraction, itself or turned, and its windows that share elements of B; None without."""
    for one in (c, c.turned()):
        found = find(one) if one.n else None
        if found is not None:
            return one, found
    return None


# ------------------------------------------------------------------------------------ what slides


def find(c: Contraction) -> Windows | None:
    """The windows of B: of the ways to choose rows the one that packs least."""
    found_steps = result_steps(c.nest)
    steps = {k: abs(hint(found_steps.get(("i", k), 0))) for k in range(c.nest.rank)}
    column = min(c.n, key=lambda k: (steps[k] or 1 << 62, -k))
    unrolled = _unrolled(c, steps, column)
    if unrolled is None or not all(_fixed(c, k) for k in [column, *unrolled, *c.k]):
        return None
    if c.size(c.k) > LONGEST_CHAIN or not SHORTEST_ROW <= c.nest.extents[column] <= LONGEST_ROW:
        return None
    rows = sorted((k for k in c.n if k != column and _fixed(c, k)), key=steps.__getitem__)
    best: Windows | None = None
    for row in [*rows, None]:
        found = _Search(c, column, row, unrolled).run()
        if found is not None and (best is None or _packed(c, found) < _packed(c, best)):
            best = found
    if best is None or _packed(c, best) >= best.products(c):
        return None
    return best


def _packed(c: Contraction, w: Windows) -> float:
    """Elements of panels for each place of a window."""
    height = 1 if w.row is None else c.nest.extents[w.row]
    rows = sum(1 + (high - low) / height for low, high in (panel.rows for panel in w.panels))
    return rows * math.prod(c.nest.extents[q] for q in w.deep)


def _fixed(c: Contraction, loop: int) -> bool:
    """True for a loop of known length, along which results lie a known distance apart."""
    step = result_steps(c.nest).get(("i", loop), 0)
    return not isinstance(c.nest.extents[loop], Extent) and not isinstance(step, Extent)


def _unrolled(c: Contraction, steps: dict[int, int], column: int) -> list[int] | None:
    """The loops of the batch by which taps differ, and those between two columns; None if these
    are too long."""
    told_apart = loops_of(c.whole).union(*(loops_of(end) for end, _ in c.ends.values()))
    told_apart |= loops_of(c.a.guard)
    found = [k for k in (*c.batch, *c.m) if k in told_apart or 0 < steps[k] < steps[column]]
    between = math.prod(c.nest.extents[k] for k in found if steps[k] < steps[column])
    if math.prod(hint(c.nest.extents[k]) for k in found) > MOST_COPIES:
        return None
    return found if steps[column] == between and between <= MOST_BETWEEN else None


class _Search:
    """Finds the panels for given loops of rows and columns."""

    def __init__(self, c: Contraction, column: int, row: int | None, unrolled: list[int]):
        self.c, self.column, self.row, self.unrolled = c, column, row, unrolled
        self.extents = c.nest.extents
        self.ends = [p for p in conjuncts(c.exists) if self.is_end(p)]
        self.b = _less(c.b, self.ends)
        self.forms = _plain_forms(self.b, c.nest.extents, {row, column})
        self.panels: list[Seen] = []

    def is_end(self, part: Expr) -> bool:
        """True for what says which is the last row, or column, of the unrolled results."""
        loops = loops_of(part) - set(self.unrolled)
        return len(loops) == 1 and loops <= {self.row, self.column} and not has_extents(part)

    def lengths(self, at: dict[int, int]) -> tuple[int, int]:
        """The rows and columns of one of the unrolled results."""
        rows, columns = (self.length(loop, at) for loop in (self.row, self.column))
        return rows, columns

    def length(self, loop: int | None, at: dict[int, int]) -> int:
        if loop is None:
            return 1
        parts = [p for p in self.ends if loop in loops_of(p)]
        values = [at.get(k, 0) for k in range(len(self.extents))]
        count = 0
        for position in range(self.extents[loop]):
            values[loop] = position
            count += all(evaluate(p, values) for p in parts)
        return count

    def run(self) -> Windows | None:
        if not self.forms:
            return None
        deep = list(itertools.takewhile(lambda q: not self.slides(q), self.c.k))
        inner = self.c.k[len(deep) :]
        if not inner or math.prod(self.extents[q] for q in inner) > MOST_TAPS:
            return None
        if any(q in self.c.ends for q in deep):
            return None
        taps = {}
        for numbers in itertools.product(*(range(self.extents[k]) for k in self.unrolled)):
            found = self.taps_of(dict(zip(self.unrolled, numbers)), inner)
            if found is None:
                return None
            taps[numbers] = found
        if not all(panel.is_full() for panel in self.panels):
            return None
        wide = [k for k in self.c.m if k not in self.unrolled]
        return Windows(self.b, self.column, self.row, self.unrolled, wide, deep, self.panels, taps)

    def slides(self, q: int) -> bool:
        """True if B at one step of a loop of k is B at another one, rows or columns further on."""
        if self.extents[q] > MOST_TAPS:
            return False
        first = self.place({q: 0})
        steps = (self.place({q: t}) for t in range(1, self.extents[q]))
        return any(self.distance(step, first) is not None for step in steps)

    def taps_of(self, at: dict[int, int], inner: list[int]) -> list[Tap] | None:
        """The taps of one of the unrolled results, in the order of the loops."""
        if self.decided(self.c.whole, at) is not True:
            return [] if self.decided(self.c.whole, at) is False else None
        ends = {}
        for q in self.c.ends.keys() & set(inner):
            end = self.number(self.c.ends[q][0], at)
            if end is None:
                return None
            ends[q] = end
        found, lengths = [], self.lengths(at)
        for numbers in itertools.product(*(range(ends.get(q, self.extents[q])) for q in inner)):
            tap = dict(zip(inner, numbers))
            if any(self.decided(f.guard, at | tap) is False for f in (self.c.a, self.b)):
                continue
            found.append(Tap(tuple(tap.items()), *self.seen(at | tap, lengths)))
        return found

    def decided(self, condition: Expr, at: dict[int, int]) -> bool | None:
        """What a condition is with numbers for some loops, None if that depends on others."""
        if condition == TRUE:
            return True
        found = simplify(substitute(condition, _numbered(at, self.extents)), self.extents)
        return True if found == TRUE else False if found == ("not", TRUE) else None

    def number(self, e: Expr, at: dict[int, int]) -> int | None:
        found = simplify(substitute(e, _numbered(at, self.extents)), self.extents)
        return found if isinstance(found, int) else None

    def place(self, at: dict[int, int]) -> list[Form]:
        """B with numbers for some loops."""
        return [_at(form, at, self.extents) for form in self.forms]

    def seen(self, at: dict[int, int], lengths: tuple[int, int]) -> tuple[int, int, int]:
        """The panel that holds an element, and how far from its base: a new one if none does."""
        place = self.place(at)
        for number, panel in enumerate(self.panels):
            found = self.distance(place, panel.place)
            if found is not None:
                panel.add(found, lengths)
                return number, *found
        self.panels.append(Seen(dict(at), place))
        self.panels[-1].add((0, 0), lengths)
        return len(self.panels) - 1, 0, 0

    def distance(self, place: list[Form], base: list[Form]) -> tuple[int, int] | None:
        """How many rows and columns after B at `base` B at `place` is; None if it is another."""
        apart = []
        for (kind, one), (other_kind, other) in zip(place, base):
            if kind != other_kind or not _same_but_constant(one, other):
                return None
            row, column = (one.get(("i", k), 0) for k in (self.row, self.column))
            apart.append((one.get(None, 0) - other.get(None, 0), row, column))
        for rows, columns in _steps(*apart[0], self.extents[self.column]):
            if all(a == rows * row + columns * column for a, row, column in apart):
                return rows, columns
        return None


def _plain_forms(b: Factor, extents: Sequence[int], sliding: set[int | None]) -> list[Form]:
    """The offsets that B reads at, and then its guards, as sums over loops; none if rows or columns
    are in one otherwise."""
    parts = [e for v in walk(b.value) for e in v.indices]
    offsets = [v.offset for v in walk(b.value) if isinstance(v, Load)]
    found: list[Form] = [("offset", terms_of(e, extents)) for e in offsets]
    for e in [*parts, b.guard]:
        for part in conjuncts(e) if is_condition(e) else ():
            if part[0] in ("lt", "le"):
                found.append((part[0], terms_of(("sub", part[2], part[1]), extents)))
            elif part != TRUE:
                found.append((part, {part: 1}))
        if not is_condition(e):
            found.append(("index", terms_of(e, extents)))
    opaque = [a for _, terms in found for a in terms if a is not None and a[0] != "i"]
    return [] if not offsets or any(loops_of(a) & sliding for a in opaque) else found


def _at(form: Form, at: dict[int, int], extents: Sequence[int]) -> Form:
    kind, terms = form
    result: Terms = {}
    for atom, coefficient in terms.items():
        if atom is not None and atom[0] == "i" and atom[1] in at:
            result[None] = result.get(None, 0) + coefficient * at[atom[1]]
        elif atom is not None and atom[0] != "i" and loops_of(atom) & at.keys():
            number = simplify(substitute(atom, _numbered(at, extents)), extents)
            if is_condition(number):
                result[number] = coefficient
                continue
            for part, factor in terms_of(number, extents).items():
                result[part] = result.get(part, 0) + coefficient * factor
        else:
            result[atom] = result.get(atom, 0) + coefficient
    return kind, result


def _numbered(at: dict[int, int], extents: Sequence[int]) -> list[Expr]:
    """The loops, with numbers for some."""
    return [at.get(k, ("i", k)) for k in range(len(extents))]


def _same_but_constant(one: Terms, other: Terms) -> bool:
    keys = {*one, *other} - {None}
    return all(one.get(k, 0) == other.get(k, 0) for k in keys)


def _steps(apart: int, row: int, column: int, length: int) -> list[tuple[int, int]]:
    """The (rows, columns) whose steps lead so far, the nearest first, within a row's length."""
    found = []
    for rows in range(-FARTHEST, FARTHEST + 1) if row else (0,):
        columns, rest = divmod(apart - rows * row, column) if column else (0, apart - rows * row)
        if rest == 0 and abs(columns) < length:
            found.append((rows, columns))
    return sorted(found, key=lambda pair: (abs(pair[0]) + abs(pair[1]), pair))


# -------------------------------------------------------------------------------------- the kernel


class Direct(Writer):
    """Writes the kernel of the direct form."""

    def __init__(self, c: Contraction, w: Windows, name: str, tree: Tree, after: list[Nest]):
        super().__init__(c, name, tree, after)
        self.w = w
        self.length = c.nest.extents[w.column]
        self.height = 1 if w.row is None else c.nest.extents[w.row]
        self.tile = self.rows_of_tile()
        self.tiles = self.tiles_of_block()
        self.block = self.loop(-(-self.height // (self.tile * self.tiles)))
        self.count = 0
        self.places: dict[tuple, Expr] = {}  # of A at a tap, where that is computed before

    # -- sizes ----------------------------------------------------------------------------------

    def rows_of_tile(self) -> int:
        """Rows whose sums take half of the registers at most."""
        count, each = registers(self.dtype)
        updates = sum(map(len, self.w.taps.values()))
        most = max(1, min(MOST_ROWS, count // 2 // each, MOST_UPDATES // max(updates, 1)))
        # the fewest rows in all, but a tile reads rows of B that its neighbours read too
        return min(range(most, 0, -1), key=lambda n: -(-self.height // n) * (n + 1))

    def tiles_of_block(self) -> int:
        """Tiles whose panels stay in the first cache, and few enough to have something to share."""
        tiles = -(-self.height // self.tile)
        row = sum(map(self.pitch, self.w.panels)) * math.prod(self.extents[q] for q in self.w.deep)
        room = MOST_PANEL // (hint(row) * self.dtype.itemsize * self.tile)
        items = math.prod(hint(self.extents[k]) for k in self.around())
        blocks = max(-(-tiles // max(room, 1)), min(tiles, -(-ENOUGH_ITEMS // items)))
        return -(-tiles // blocks)

    def around(self) -> list[int]:
        """The loops of the result that are not inside a block, in the order of memory."""
        inside = {self.w.column, self.w.row, *self.w.unrolled, *self.w.wide}
        steps = result_steps(self.c.nest)
        loops = [k for k in range(self.c.nest.rank) if k not in inside]
        return sorted(loops, key=lambda k: (-abs(hint(steps.get(("i", k), 0))), k))

    def pitch(self, panel: Seen) -> int:
        """Elements of a row of a panel."""
        low, high = panel.columns
        return self.length + high - low

    def rows(self, panel: Seen) -> int:
        low, high = panel.rows
        return self.tile * self.tiles + high - low

    def plane(self, panel: Seen) -> int:
        """Elements of a panel, with what is read and written beyond its last row."""
        return (-(-(self.rows(panel) + 1) * self.pitch(panel) // LANES) + 2) * LANES

    # -- the parts ------------------------------------------------------------------------------

    def plan(self) -> Plan:
        body = [*self.pack(), *self.tiles_loop()]
        loops = [k for k in [*self.around(), self.block] if self.extents[k] != 1]
        extents = tuple(self.integer(self.extents[k]) for k in loops)
        items = math.prod(self.extents[k] for k in loops)
        grid: list[Stmt] = [Grid(tuple(loops), extents, body)]
        launch = self.launchable(self.name, grid, self.tree.writes, items, self.scratch)
        return Plan([launch], [], None, self.c.nest, self.tree)

    def first_row(self) -> Expr:
        return times(self.i(self.block), self.tile * self.tiles)

    def serial(self, loops: Sequence[int], body: list[Stmt]) -> list[Stmt]:
        for loop in reversed(loops):
            body = [For(loop, 0, self.integer(self.extents[loop]), "serial", body)]
        return body

    def vector(self, body: Callable[[Expr], list[Stmt]], start: Expr, count: int) -> list[Stmt]:
        """body(first element) for so many vectors from a start on."""
        if count == 0:
            return []
        lane = self.loop(LANES)

        def one(at: Expr) -> Stmt:
            return For(lane, 0, LANES, "vector", body(add(at, ("i", lane))))

        if count == 1:
            return [one(start)]
        each = self.loop(count)
        inside = one(add(start, times(("i", each), LANES)))
        return [For(each, 0, count, "serial", [inside])]

    # -- panels ---------------------------------------------------------------------------------

    def pack(self) -> list[Stmt]:
        """B's elements of a block, borders included: zeros where B is 0 for a whole row, then
        copies of memory row by row, for all panels together as they lie in it."""
        x = self.loop(max(map(self.rows, self.w.panels)))
        zeros: list[Stmt] = []
        copies: list[tuple[Expr, Expr, list[Stmt]]] = []
        for number, panel in enumerate(self.w.panels):
            self.scratch.append(Scratch(f"panel{number}", self.dtype, self.elements(panel)))
            top, bottom, zero, copy = self.rows_of(number, panel, x)
            zeros += zero
            copies.append((top, bottom, copy))
        if len(copies) == 1:
            (top, bottom, body), *_ = copies
            return self.serial(self.w.deep, [*zeros, For(x, top, bottom, "serial", body)])
        each: list[Stmt] = []
        for top, bottom, body in copies:
            here: Expr = ("where", ("and", ("le", top, ("i", x)), ("lt", ("i", x), bottom)), 1, 0)
            each.append(For(self.loop(2), 0, here, "serial", body))
        return self.serial(self.w.deep, [*zeros, For(x, 0, self.extents[x], "serial", each)])

    def elements(self, panel: Seen) -> int:
        """Elements of a panel for all steps of the loops of k that are not unrolled."""
        return self.plane(panel) * math.prod(self.extents[q] for q in self.w.deep)

    def rows_of(
        self, number: int, panel: Seen, x: int
    ) -> tuple[Expr, Expr, list[Stmt], list[Stmt]]:
        """The first row of a panel that is copied, the one after the last, what writes zeros in the
        others, and what copies row x."""
        rows = self.held(self.w.row, panel.rows[0], panel.last[0], panel)
        columns = self.held(self.w.column, panel.columns[0], panel.last[1], panel)
        factor = _less(self.w.b, [*rows[2], *columns[2]])
        top, bottom = self.clamped(rows[0], panel), self.clamped(rows[1], panel)
        plane = times(self.deep_place(), self.plane(panel))
        start = add(plane, times(("i", x), self.pitch(panel)))
        array = f"panel{number}"
        zero = self.zeros(array, start, self.pitch(panel))
        found: list[Stmt] = [
            For(x, 0, top, "serial", zero),
            For(x, bottom, self.rows(panel), "serial", zero),
        ]
        found = [stmt for stmt in found if isinstance(stmt, For) and stmt.start != stmt.stop]
        if columns[0]:  # every row puts zeros behind itself, to where the copy of the next begins
            first = add(plane, times(top, self.pitch(panel)))
            found += self.zeros(array, first, columns[0])
        return top, bottom, found, self.copy(array, factor, x, start, columns[:2], panel)

    def deep_place(self) -> Expr:
        """The number of this step of the loops of k that are not unrolled."""
        number: Expr = 0
        for q in self.w.deep:
            number = add(times(number, self.extents[q]), ("i", q))
        return number

    def in_block(self, panel: Seen) -> Callable[[Expr, Expr], list[Expr]]:
        """The nest's loops at a row and a column of a panel."""

        def place(x: Expr, y: Expr) -> list[Expr]:
            at = _numbered(panel.at, self.extents)
            if self.w.row is not None:
                at[self.w.row] = _moved(add(self.first_row(), x), panel.rows[0])
            at[self.w.column] = _moved(y, panel.columns[0])
            return at

        return place

    def held(
        self, loop: int | None, first: int, last: int, panel: Seen
    ) -> tuple[int, int, list[Expr]]:
        """Between which rows (or columns) of a panel B is not 0, of a whole image, and the parts of
        its guard that say so."""
        if loop is None:
            return 0, last - first, []
        at = _numbered(panel.at, self.extents)
        parts = [p for p in conjuncts(self.w.b.border) if not has_extents(p)]
        parts = [p for p in parts if loops_of(substitute(p, at)) == {loop}]
        values = [panel.at.get(k, 0) for k in range(len(self.extents))]
        inside = []
        for position in range(first, last):
            values[loop] = position
            if all(evaluate(p, values) for p in parts):
                inside.append(position - first)
        if not inside or inside[-1] - inside[0] + 1 != len(inside):
            return 0, last - first, []
        return inside[0], inside[-1] + 1, parts

    def clamped(self, row: int, panel: Seen) -> Expr:
        """A row of a whole image as one of a block."""
        if self.extents[self.block] == 1:
            return min(row, self.rows(panel))
        here: Expr = ("sub", row, self.first_row())
        return ("max", 0, ("min", here, self.rows(panel)))

    def zeros(self, array: str, start: Expr, count: int) -> list[Stmt]:
        zero = Const(0.0, self.dtype)
        return self.vector(lambda at: [Store(array, at, zero)], start, -(-count // LANES))

    def copy(
        self, array: str, factor: Factor, x: int, start: Expr, columns: tuple[int, int],
        panel: Seen,
    ) -> list[Stmt]:  # fmt: skip
        """One row of a panel: what lies between its borders, then zeros, to the next row's too."""
        first, last = columns
        place = self.in_block(panel)
        whole, rest = divmod(last - first, LANES)

        def fill(length: int) -> Callable[[Expr], list[Stmt]]:
            def one(at: Expr) -> list[Stmt]:
                exists = TRUE if length == LANES else ("lt", ("i", _lane(at)), length)
                index = self.mapping(place(("i", x), at))
                value = self.packed(factor, index, exists)
                return [Store(array, add(start, at), value)]

            return one

        body = self.vector(fill(LANES), first, whole)
        covered = last
        if rest:
            body += self.vector(fill(rest), first + whole * LANES, 1)
            covered = first + (whole + 1) * LANES
        behind = self.pitch(panel) + first - covered
        if behind > 0:
            body += self.zeros(array, add(start, covered), behind)
        return body

    def factors(self) -> list[Stmt]:
        """A at every tap, once for a block, if it must be computed."""
        if isinstance(self.c.a.value, Load) and self.c.a.value.guard == self.c.a.guard == TRUE:
            return []
        taps = [(dict(zip(self.w.unrolled, numbers)), tap)
                for numbers, found in self.w.taps.items() for tap in found]  # fmt: skip
        body: list[Stmt] = []
        start = times(self.deep_place(), len(taps))
        for number, (at, tap) in enumerate(taps):
            index = self.mapping(_numbered(at | dict(tap.at), self.extents))
            self.places[(*at.values(), tap)] = add(start, number)
            body.append(Store("factors", add(start, number), self.packed(self.c.a, index)))
        deep = math.prod(self.extents[q] for q in self.w.deep)
        self.scratch.append(Scratch("factors", self.dtype, deep * len(taps)))
        return self.serial(self.w.deep, body)

    def factor(self, at: dict[int, int], tap: Tap) -> Value:
        """A at a tap of one of the unrolled results."""
        place = self.places.get((*at.values(), tap))
        if place is not None:
            return Load("factors", place, TRUE, 0.0, self.dtype)
        return self.packed(self.c.a, self.mapping(_numbered(at | dict(tap.at), self.extents)))

    # -- tiles ----------------------------------------------------------------------------------

    def tiles_loop(self) -> list[Stmt]:
        tile = self.loop(self.tiles)
        whole, rest = divmod(self.length, LANES)
        at = times(self.i(tile), self.tile)
        factors = self.factors()
        body = self.vector(lambda column: self.sums(at, column, False), 0, whole)
        if rest:
            body += self.vector(lambda column: self.sums(at, column, True), whole * LANES, 1)
        if self.w.wide:
            factors, body = [], self.serial(self.w.wide, [*factors, *body])
        if self.tiles == 1:
            return [*factors, *body]
        count: Expr = self.tiles
        if self.height % (self.tile * self.tiles):
            left = ("sub", self.height, self.first_row())
            pieces = ("floordiv", ("add", left, self.tile - 1), self.tile)
            count = ("min", pieces, self.tiles)
        return [*factors, For(tile, 0, count, "serial", body)]

    def sums(self, first: Expr, column: Expr, masked: bool) -> list[Stmt]:
        """A tile of results: first is the row in the block, column the one of this lane."""
        body: list[Stmt] = []
        for numbers, taps in self.w.taps.items():
            at = dict(zip(self.w.unrolled, numbers))
            names = [f"acc{self.count + i}" for i in range(self.tile)]
            self.count += self.tile
            body += [Init(n, (), "add", self.dtype, 1) for n in names]
            body += self.serial(self.w.deep, self.products(names, at, taps, first, column))
            for i, name in enumerate(names):
                body += self.result(name, at, add(first, i), column, masked)
        return body

    def products(
        self, names: list[str], at: dict[int, int], taps: list[Tap], first: Expr, column: Expr
    ) -> list[Stmt]:
        """The sums of a tile += A * B, every element of B read once, tap after tap of each sum."""
        body: list[Stmt] = []
        for count, (element, users) in enumerate(_in_order(taps, self.tile)):
            x = Ref(f"x{count}", (), self.dtype)
            body.append(Let(x.name, (), self.element(*element, first, column)))
            for i, number in users:
                body.append(Update(names[i], (), "fma", (self.factor(at, taps[number]), x)))
        return body

    def element(self, number: int, row: int, column: int, first: Expr, lane: Expr) -> Load:
        """An element of a panel, so many rows and columns after its base."""
        panel = self.w.panels[number]
        place = times(self.deep_place(), self.plane(panel))
        place = add(place, times(add(first, row - panel.rows[0]), self.pitch(panel)))
        place = add(place, add(lane, column - panel.columns[0]))
        return Load(f"panel{number}", simplify(place, self.extents), TRUE, 0.0, self.dtype)

    def result(
        self, name: str, at: dict[int, int], row: Expr, column: Expr, masked: bool
    ) -> list[Stmt]:
        """What is done with a finished sum."""
        places = _numbered(at, self.extents)
        guard: Expr = ("lt", column, self.length) if masked else TRUE
        places[self.w.column] = column
        if self.w.row is not None:
            row = add(self.first_row(), row)
            places[self.w.row] = row
            if self.height % self.tile:
                guard = conjunction(guard, ("lt", row, self.height))
        value = Ref(name, (), self.dtype)
        return self.finish(lambda layer: value, self.mapping(places), guard, ())


def _moved(e: Expr, by: int) -> Expr:
    return ("sub", e, -by) if by < 0 else add(e, by)


def _lane(at: Expr) -> int:
    """The innermost loop of an index that a vector loop adds its lane to."""
    while not (isinstance(at, tuple) and at[0] == "i"):
        assert isinstance(at, tuple)
        at = at[2]
    return at[1]


def _less(factor: Factor, parts: list[Expr]) -> Factor:
    """The factor without these parts of its guards."""
    guard: Expr = TRUE
    for part in conjuncts(factor.guard):
        guard = guard if part in parts else conjunction(guard, part)
    return Factor(without(factor.value, parts, {}), guard, factor.access)


Element = tuple[int, int, int]  # panel, row, column


def _in_order(taps: list[Tap], rows: int) -> Iterator[tuple[Element, list[tuple[int, int]]]]:
    """The elements of B that a tile of rows needs, each with the (row, tap) that it is multiplied
    at, so that every row meets its taps in order; an element is repeated only if it must be."""
    users: dict[Element, list[tuple[int, int]]] = {}
    for i in range(rows):
        for number, tap in enumerate(taps):
            users.setdefault((tap.panel, tap.row + i, tap.column), []).append((i, number))
    order = sorted(users, key=lambda e: (min(i for i, _ in users[e]), users[e][0][1]))
    done = [0] * rows
    while order:
        ready = (e for e in order if all(done[i] == number for i, number in users[e]))
        element = next(ready, None)
        if element is None:  # only its first user can have it now
            element = next(e for e in order if any(done[i] == n for i, n in users[e]))
        now = [(i, n) for i, n in users[element] if done[i] == n]
        users[element] = [pair for pair in users[element] if pair not in now]
        if not users[element]:
            order.remove(element)
        for i, _ in now:
            done[i] += 1
        yield element, now
