"""The kernels of a contraction: packing, tiles, what is done with finished sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import metaop.dtype as dt
from metaop.extent import Extent, hint, minimum
from metaop.index import (
    FALSE,
    TRUE,
    Expr,
    Terms,
    conjunction,
    integers_of,
    loops_of,
    simplify,
    substitute,
    terms_of,
    unflatten,
)  # fmt: skip

from ..arguments import name_extents
from ..loops import (
    LANES,
    Condition,
    Const,
    Fetch,
    For,
    Grid,
    IndexValue,
    Init,
    Kernel,
    Let,
    Load,
    Op,
    Parameter,
    Ref,
    Scratch,
    Stmt,
    Store,
    Update,
    Value,
    accesses_of,
    indices_of,
    loads_of,
    rewrite,
    statements,
    walk,
)  # fmt: skip
from ..nest import Buffer, Nest, Tree
from ..schedule import LITERAL_EXTENT, MOST_CHUNKS, Scheduled
from .blocks import (
    LEAST_PACKED,
    MOST_PADDING,
    SHARED,
    Blocks,
    Cut,
    Flat,
    Windows,
    chain_length,
    least_height,
    odd_lines,
    rows_along,
    several,
    turns,
)  # fmt: skip
from .borders import Border, find_border
from .classify import Contraction, Factor
from .taps import Taps

IndexMap = Callable[[Expr], Expr]
Sums = Callable[[Expr], Value]  # the finished sum of a layer
Place = tuple[Sequence[int], Expr]  # loops of the nest, and the number that tells them
Made = dict[tuple[str, Expr | None], Sums]  # buffer, and offset if it is filled in pieces
NOTHING: Mapping[int, Expr] = {}
FAR_APART = 512  # elements from row to row
ROWS_AHEAD = 8  # as many as a set of the first cache has room for
LONG_ROW = 64  # elements of a row whose last vector is better masked


@dataclass(eq=False)
class Plan:
    """The kernels of a contraction in the order of their phases (packing first), and the
    temporaries that they hand on."""

    launches: list[Scheduled]
    temporaries: list[Buffer]
    blocks: Blocks | None  # None for the direct form
    nest: Nest
    tree: Tree

    @property
    def form(self) -> str:
        """outer, dot or direct."""
        return "direct" if self.blocks is None else self.blocks.form


def add(*parts: Expr) -> Expr:
    """The sum of index expressions, without zeros."""
    total: Expr = 0
    for part in parts:
        if part != 0:
            total = part if total == 0 else ("add", total, part)
    return total


def times(e: Expr, factor: int) -> Expr:
    """e * factor."""
    if isinstance(e, int):
        return e * factor
    return e if factor == 1 else ("mul", e, factor)


@dataclass(eq=False)
class Panel:
    """A packed block of a factor: rows of k for each of its own elements, or the reverse."""

    array: str
    along_k: bool
    stride: int
    start: Expr = 0
    layered: bool = False  # all layers are packed at once

    def place(self, own: Expr, k: Expr) -> Expr:
        """Where element `own` of M or N and `k` of K lies."""
        row, column = (own, k) if self.along_k else (k, own)
        return add(self.start, times(row, self.stride), column)


class Writer:
    """Writes kernels of one contraction: what its forms have in common."""

    def __init__(self, c: Contraction, name: str, tree: Tree, after: list[Nest]):
        self.c, self.name, self.tree, self.after = c, name, tree, after
        self.dtype = c.nest.value.dtype
        self.extents = list(c.nest.extents)  # of the nest's loops, then of the kernel's own
        self.integers: dict[str, int] = {}
        self.unrolled: dict[int, int] = {}
        self.scratch: list[Scratch] = []
        self.buffers = dict(c.nest.buffers)
        for other in after:
            self.buffers.update(other.buffers)
        self.spread = {other: self.inner_loops(other) for other in after}
        targets = [nest.target for nest in (c.nest, *after)]
        self.in_pieces = {target for target in targets if targets.count(target) > 1}

    # -- loops, names and integers ------------------------------------------------------------

    def loop(self, extent: int) -> int:
        """A new loop of the kernel."""
        self.extents.append(extent)
        return len(self.extents) - 1

    def unroll(self, extent: int) -> int:
        loop = self.loop(extent)
        self.unrolled[loop] = extent
        return loop

    def integer(self, value: int) -> Expr:
        """A size: an argument of the kernel if it is large, so that other sizes use its code."""
        if type(value) is int and value <= LITERAL_EXTENT:
            return value
        name = next((n for n, v in self.integers.items() if v == value), f"n{len(self.integers)}")
        self.integers[name] = value
        return ("val", name, (0, value + 1))

    def let(self, name: str, e: Expr, most: int) -> tuple[Stmt, Expr]:
        """A named integer, and the name."""
        return Let(name, (), IndexValue(e)), ("val", name, (0, most + 1))

    def i(self, loop: int) -> Expr:
        """The index of a loop around blocks: there is no loop for a single block."""
        return ("i", loop) if several(self.extents[loop]) else 0

    def each(self, loops: Sequence[int], stmt: Stmt) -> Stmt:
        """stmt for every element of a tile."""
        for loop in reversed(loops):
            stmt = For(loop, 0, self.unrolled[loop], "unroll", [stmt])
        return stmt

    # -- where results are --------------------------------------------------------------------

    def at(self, *places: Place) -> list[Expr]:
        """The nest's loops in terms of the kernel's, some groups of them numbered by one index."""
        result: list[Expr] = [("i", k) for k in range(len(self.extents))]
        for loops, number in places:
            parts = unflatten(number, [self.extents[k] for k in loops])
            for loop, part in zip(loops, parts):
                result[loop] = part
        return result

    def mapping(self, at: list[Expr]) -> IndexMap:
        return lambda e: simplify(substitute(e, at), self.extents)

    def packed(self, factor: Factor, index: IndexMap, exists: Expr = TRUE) -> Value:
        """An element of a panel; anything where it does not exist, but nothing is read there."""
        value = rewrite(factor.value, index, {})
        guard = index(factor.guard)
        if isinstance(value, Load) and value.fill == 0:
            guard = conjunction(conjunction(value.guard, guard), exists)
            return Load(value.buffer, value.offset, guard, value.fill, value.dtype)
        needed = conjunction(guard, exists)
        if needed != TRUE:
            value = _guarded(value, needed, {})
        if guard == TRUE:
            return value
        zero = Const(0.0, value.dtype)
        return Op("where", (Condition(guard), value, zero), value.dtype)

    # -- what is done with them -----------------------------------------------------------------

    def finish(self, sums: Sums, index: IndexMap, guard: Expr, dims: tuple[int, ...]) -> list[Stmt]:
        """What is done with finished sums where the guard holds: they are stored, and so is what is
        made of them."""
        nest = self.c.nest
        exists = conjunction(guard, index(self.c.exists))

        def result(layer: Expr) -> Value:
            value, kind = sums(layer), nest.target.dtype
            return value if value.dtype is kind else Op("cast", (value,), kind)

        made: Made = {}
        body: list[Stmt] = []
        if self.c.layers:
            made[nest.target.name, None] = result
        else:
            body += self.keep(nest.target, result(0), index(nest.offset), exists, dims, made)
        for other in self.after:
            spread = [k for k in self.spread[other] if k is not None]
            where = _through(self.carried(other), index)
            value = _finished(other, where, exists, made)
            kept = self.keep(
                other.target,
                value,
                where(other.offset),
                exists,
                (*dims, *spread),
                made,
                bool(spread),
            )
            body += [self.each(spread, stmt) for stmt in kept]
        return body

    def inner_loops(self, other: Nest) -> list[int | None]:
        """Unrolled loops for those that a nest that follows has inside the root loops; None for one
        of a single iteration."""
        return [self.unroll(n) if n != 1 else None for n in other.extents[self.tree.root :]]

    def carried(self, other: Nest) -> list[Expr]:
        """The loops of a nest that follows in those of the contraction and of the kernel."""
        inner = [0 if k is None else ("i", k) for k in self.spread[other]]
        return [*self.c.nest.carried[: self.tree.root], *inner]

    def keep(
        self,
        target: Buffer,
        value: Value,
        offset: Expr,
        exists: Expr,
        dims: tuple[int, ...],
        made: Made,
        spread: bool = False,
    ) -> list[Stmt]:
        """A name for a result that is read later, and a store for one that has memory; spread: of
        several made of the same sums all are there before one is stored."""
        body: list[Stmt] = []
        if spread or any(target in other.reads for other in self.after):
            known = Ref(f"r{len(made)}", dims, value.dtype)
            body.append(Let(known.name, dims, value))
            piece = offset if target in self.in_pieces else None
            made[target.name, piece] = lambda layer: known
            value = known
        if target.role != "local":
            body.append(Store(target.name, offset, value, None, exists))
        return body

    def launchable(
        self, name: str, body: list[Stmt], targets: list[Buffer], items: int, scratch: list[Scratch]
    ) -> Scheduled:
        """A kernel of these statements that writes the targets."""
        indices = _indices(body)
        own = {array.name for array in scratch}
        read = {load.buffer for load in loads_of(body)} - own
        buffers = [b for n, b in self.buffers.items() if n in read and b not in targets]
        buffers += targets
        parameters = [Parameter(b.name, b.dtype, b in targets) for b in buffers]
        kernel = Kernel(name, parameters, [], self.unrolled, body, scratch)
        kernel.fit_32_bits(indices, self.extents)
        integers = dict(self.integers)
        name_extents(kernel, integers)
        used = set().union(*map(integers_of, _indices(body)))
        used.update(*(integers_of(array.elements) for array in scratch))
        integers = {n: v for n, v in integers.items() if n in used}
        kernel.integers = list(integers)
        chunks = minimum(items, MOST_CHUNKS)
        return Scheduled(kernel, buffers, integers, chunks, self.tree)


@dataclass(eq=False)
class Strip:
    """Tiles of equal height, one below the other."""

    tile: int  # the loop over them
    count: Expr
    row: int  # the unrolled loop over the rows of one
    height: int
    first: Expr = 0  # the row in the block at which the first begins

    def place(self) -> Expr:
        """The number in the block of a row."""
        return add(self.first, times(("i", self.tile), self.height), ("i", self.row))


def _down(strip: Strip, tile: list[Stmt]) -> Stmt:
    """All tiles of a strip."""
    return For(strip.tile, 0, strip.count, "serial", tile)


class Builder(Writer):
    """Writes the kernels of a contraction in tiles over packed panels."""

    def __init__(self, c: Contraction, blocks: Blocks, name: str, tree: Tree, after: list[Nest]):
        super().__init__(c, name, tree, after)
        self.blocks = blocks
        self.packing: list[Scheduled] = []
        m, n, k, tile = blocks.m, blocks.n, blocks.k, blocks.tile
        self.m_block, self.n_block = self.loop(m.count), self.loop(n.count)
        self.k_block = self.loop(k.count)
        self.width = tile.columns * (LANES if blocks.form == "outer" else 1)
        self.m_tile = self.loop(-(-m.capacity // tile.rows))
        self.n_tile = self.loop(-(-blocks.columns // self.width))
        self.row, self.column = self.unroll(tile.rows), self.unroll(tile.columns)
        self.blocked = (
            several(k.count) or bool(k.outer) or blocks.form == "dot" or self.merged() > 0
        )
        self.chain_length = chain_length(k.capacity) if blocks.form == "outer" else k.capacity
        self.chains = -(-k.capacity // self.chain_length)
        self.chain = self.loop(self.chains)
        self.turned = blocks.form == "outer" and not c.layers and self.runs_across()
        self.blocked = self.blocked or blocks.windows is not None or self.turned
        self.blocked = self.blocked or self.chains > 1 or bool(c.layers)
        self.border = find_border(c, blocks)
        self.within: tuple[Expr, Expr] = (0, 0)  # the products of a group that a tile needs
        self.ends = {}
        for loop, (end, part) in c.ends.items():
            if loop not in blocks.k.loops:  # at least once: the first block makes the sums
                end = ("max", 1, end)
                for factor in (c.a, c.b):
                    factor.guard = conjunction(factor.guard, part)
            self.ends[loop] = end
        columns = self.extents[self.n_tile] * self.width
        self.partial_stride = columns if blocks.form == "dot" else odd_lines(columns)
        self.layer_size = self.extents[self.m_tile] * tile.rows * self.partial_stride

    @functools.cached_property
    def steps(self) -> Terms:
        """How far apart in memory neighbours along each loop are: results, or what is stored of
        them."""
        nest = self.c.nest
        offsets = [] if nest.target.role == "local" else [nest.offset]
        for other in self.after:
            if other.target.role != "local":
                offsets.append(substitute(other.offset, self.carried(other)))
        return terms_of(simplify(offsets[0], self.extents), self.extents)

    def runs_across(self) -> bool:
        """True if results that lie next to each other in memory are of different rows."""
        steps = self.steps
        last_of_n = steps.get(("i", self.blocks.n.loops[-1]))
        return last_of_n != 1 and steps.get(("i", self.blocks.m.loops[-1])) == 1

    # -- loops, names and integers ------------------------------------------------------------

    def over(self, loops: Sequence[int], body: list[Stmt]) -> list[Stmt]:
        """body inside serial loops over their whole extents."""
        for loop in reversed(loops):
            if several(self.extents[loop]):
                body = [For(loop, 0, self.end(loop), "serial", body)]
        return body

    def end(self, loop: int) -> Expr:
        """Where a loop of the nest ends."""
        if loop in self.ends:
            return ("val", f"end{loop}", (0, self.extents[loop] + 1))
        return self.integer(self.extents[loop])

    def named_ends(self) -> list[Stmt]:
        """The names of the ends that depend on the batch."""
        return [Let(f"end{loop}", (), IndexValue(end)) for loop, end in self.ends.items()]

    # -- where an element of a block is ---------------------------------------------------------

    def number(self, side: Cut | Flat, block: int, inside: Expr) -> Expr:
        """The number among all elements of one that is `inside` a block."""
        return add(self.start(side, block), inside)

    def start(self, side: Cut | Flat, block: int) -> Expr:
        """The number of a block's first element."""
        return _scaled(self.i(block), self.elements(side))

    def elements(self, side: Cut | Flat) -> Expr:
        """The elements of a block, of all but the last."""
        return self.integer(side.stride) if isinstance(side.stride, Extent) else side.stride

    def pieces(self, side: Cut, block: int) -> Expr:
        """How many pieces of the loop there are in a block."""
        if side.count == 1:
            return self.end(side.loop) if side.loop in self.ends else self.integer(side.extent)
        if side.loop in self.ends:
            left = ("sub", self.end(side.loop), times(self.i(block), side.size))
            return ("max", ("min", left, side.size), 0)
        left = ("sub", self.integer(side.extent), times(self.i(block), side.size))
        return ("min", left, side.size)

    def filled(self, side: Cut | Flat, block: int) -> Expr:
        """Elements of a block."""
        if isinstance(side, Cut):
            pieces = self.pieces(side, block)
            if not self.ends.keys() & set(side.inner):
                return pieces if side.step == 1 else ("mul", pieces, self.integer(side.step))
            for loop in side.inner:
                pieces = ("mul", pieces, self.end(loop))
            return pieces
        if side.count == 1:
            return self.integer(side.total)
        left = ("sub", self.integer(side.total), self.start(side, block))
        return ("min", left, self.elements(side))

    # -- packing --------------------------------------------------------------------------------

    def runs_as_one(self, factor: Factor, index: IndexMap, loop: int) -> bool:
        """True if a group of loops numbered by one needs no division to be told apart."""
        value = self.packed(factor, index)
        found = [e for part in walk(value) for e in part.indices]
        return not any(_divides(e, loop) for e in found)

    def pack(self, panel: Panel, factor: Factor, side: Cut | Flat, block: int) -> list[Stmt]:
        """A block of a factor: serial over its rows, vectors along them."""
        body = self.pack_one(panel, factor, side, block)
        return self.of_all_layers(panel, body) if panel.layered else body

    def pack_one(self, panel: Panel, factor: Factor, side: Cut | Flat, block: int) -> list[Stmt]:
        """The same of one layer."""
        k, k_block = self.blocks.k, self.k_block
        if not panel.along_k and turns(factor, side.loops, k.loops, self.extents):
            assert isinstance(side, Cut)
            return self.pack_turned(panel, factor, side, block)
        if not panel.along_k:
            return self.serial(k, k_block, lambda row, place: self.across(
                factor, side, block, place, lambda e, v: self.fill(panel, e, row, v)))  # fmt: skip
        return self.serial(side, block, lambda row, place: [*self.across(
            factor, k, k_block, place, lambda e, v: self.fill(panel, row, e, v)),
            *self.row_end(panel, row)])  # fmt: skip

    def pack_turned(self, panel: Panel, factor: Factor, side: Cut, block: int) -> list[Stmt]:
        """A block whose memory runs along k: 16 vectors along k at a time, which code generation
        turns into vectors along the panel's rows; rows that are left one by one."""
        piece, row = self.loop(side.size), self.unroll(LANES)
        loops = [piece, *side.inner]
        *between, last = loops
        end = self.pieces(side, block) if last == piece else self.end(last)

        def rows(own: Expr, each: Callable[[Stmt], Stmt]) -> list[Stmt]:
            first = own if last == piece else ("i", piece)
            places: list[Place] = [([side.loop], add(times(self.i(block), side.size), first))]
            if last != piece:
                places.append(([last], own))
            number = self.inside(side, piece, {last: own})
            return self.across(
                factor, self.blocks.k, self.k_block, places,
                lambda k, value: each(self.fill(panel, number, k, value)), padded=False,
            )  # fmt: skip

        groups, single = self.loop(-(-self.extents[last] // LANES)), self.loop(self.extents[last])
        whole = end // LANES if isinstance(end, int) else ("floordiv", end, LANES)
        square = rows(add(times(("i", groups), LANES), ("i", row)),
                      lambda store: For(row, 0, LANES, "unroll", [store]))  # fmt: skip
        body: list[Stmt] = [For(groups, 0, whole, "serial", square)]
        if not isinstance(end, int) or end % LANES:
            left = rows(("i", single), lambda store: store)
            body.append(For(single, times(whole, LANES), end, "serial", left))
        for loop in reversed(between):
            stop = self.pieces(side, block) if loop == piece else self.end(loop)
            body = [For(loop, 0, stop, "serial", body)]
        return body

    def of_all_layers(self, panel: Panel, body: list[Stmt]) -> list[Stmt]:
        """Statements that pack one layer as those for all of them at once: all that is read for an
        element is before the first is written, so what they have in common is read once."""
        loops = [self.unroll(self.extents[k]) for k in self.c.layers]
        at = self.at(*(([k], ("i", loop)) for k, loop in zip(self.c.layers, loops)))

        def of_all(stmt: Stmt) -> list[Stmt]:
            if isinstance(stmt, For):
                stmt.body = [new for inner in stmt.body for new in of_all(inner)]
                return [stmt]
            if not isinstance(stmt, Store):
                return []  # what it asks for is of one layer
            value = rewrite(stmt.value, lambda e: substitute(e, at), {})  # also behind a row's end
            name = Ref("layer", tuple(loops), value.dtype)
            store = Store(panel.array, substitute(stmt.offset, at), name)
            return [self.each(loops, one) for one in (Let(name.name, name.dims, value), store)]

        return [new for stmt in body for new in of_all(stmt)]

    def row_end(self, panel: Panel, row: Expr) -> list[Stmt]:
        """Zeros behind a row that tiles read in whole vectors."""
        if self.blocks.form != "dot":
            return []
        lane = self.loop(LANES)
        behind = add(self.filled(self.blocks.k, self.k_block), ("i", lane))
        zero = Store(panel.array, panel.place(row, behind), Const(0.0, self.dtype))
        return [For(lane, 0, LANES, "vector", [zero])]

    @staticmethod
    def fill(panel: Panel, own: Expr, k: Expr, value: Value) -> Stmt:
        return Store(panel.array, panel.place(own, k), value)

    def serial(
        self, side: Cut | Flat, block: int, body: Callable[[Expr, list[Place]], list[Stmt]]
    ) -> list[Stmt]:
        """Serial loops over a block around body(number in the block, where that is)."""
        if isinstance(side, Flat):
            row = self.loop(side.capacity)
            inside = body(("i", row), [(side.loops, self.number(side, block, ("i", row)))])
            return [For(row, 0, self.filled(side, block), "serial", inside)]
        piece = self.loop(side.size)
        place: Place = ([side.loop], add(times(self.i(block), side.size), ("i", piece)))
        inside = self.over(side.inner, body(self.inside(side, piece), [place]))
        return [For(piece, 0, self.pieces(side, block), "serial", inside)]

    def inside(self, side: Cut, piece: int, known: Mapping[int, Expr] = NOTHING) -> Expr:
        """The number in its block of an element that the loops of the class tell."""
        number = known.get(piece, ("i", piece))
        for loop in side.inner:
            number = add(_scaled(number, self.stride(loop)), known.get(loop, ("i", loop)))
        return number

    def stride(self, loop: int) -> Expr:
        """The elements of a loop: literal, for the normal form, unless they vary."""
        return self.end(loop) if loop in self.ends else self.extents[loop]

    def across(
        self, factor: Factor, side: Cut | Flat, block: int, row: list[Place],
        fill: Callable[[Expr, Value], Stmt], padded: bool = True,
    ) -> list[Stmt]:  # fmt: skip
        """Loops over one row, the innermost one a vector loop, around fill(number, value); padded:
        there is room behind the row, and next to it in memory lies another."""
        for merged in range(len(side.loops)):
            within = set(
                side.loops[max(merged, 1) :]
            )  # the first may end early: what is left runs on
            if len(side.loops) - merged > 1 and self.ends.keys() & within:
                continue  # these do not follow each other at a fixed distance
            order, number, places = self.row_loops(side, block, merged)
            index = self.mapping(self.at(*row, *places))
            if isinstance(side, Flat) or self.runs_as_one(factor, index, order[-1][0]):
                break
        last, stop = order.pop()
        stop, exists = self.whole_vectors(last, stop, factor) if padded else (stop, TRUE)
        body: list[Stmt] = self.fetched(factor, index, row[-1][0][-1], ROWS_AHEAD) if padded else []
        body.append(fill(number, self.packed(factor, index, exists)))
        body = [For(last, 0, stop, "vector", body)]
        for loop, stop in reversed(order):
            body = [For(loop, 0, stop, "serial", body)]
        return body

    def fetched(self, factor: Factor, index: IndexMap, loop: int, ahead: int) -> list[Stmt]:
        """Asks for what a loop reads a few iterations further on, where these are so far apart that
        the processor does not foresee it."""
        step = factor.stride(loop)
        if not isinstance(factor.value, Load) or not isinstance(step, int) or step < FAR_APART:
            return []
        further = times(self.integer(step) if step > LITERAL_EXTENT else step, ahead)
        return [Fetch(factor.value.buffer, add(index(factor.value.offset), further))]

    def row_loops(
        self, side: Cut | Flat, block: int, merged: int
    ) -> tuple[list[tuple[int, Expr]], Expr, list[Place]]:
        """Loops over a block: (loop, end) from the outside in, those of the class from `merged` on
        as one; the number in the block; where that is."""
        if merged == 0 or isinstance(side, Flat):
            one = self.loop(side.capacity)
            place = (side.loops, self.number(side, block, ("i", one)))
            return [(one, self.filled(side, block))], ("i", one), [place]
        loops = side.loops[merged:]
        piece, one = self.loop(side.size), self.loop(self.c.size(loops))
        between = side.loops[1:merged]
        number: Expr = ("i", piece)
        for loop in between:
            number = add(_scaled(number, self.stride(loop)), ("i", loop))
        last = self.stride(loops[0]) if len(loops) == 1 else self.extents[one]
        number = add(_scaled(number, last), ("i", one))
        order = [(piece, self.pieces(side, block))]
        order += [(k, self.end(k)) for k in between]
        order.append((one, self.end(loops[0] if len(loops) == 1 else one)))
        start = add(times(self.i(block), side.size), ("i", piece))
        return order, number, [([side.loop], start), (loops, ("i", one))]

    def whole_vectors(self, loop: int, stop: Expr, factor: Factor) -> tuple[Expr, Expr]:
        """The end of a vector loop over a row, and which of its elements exist.

        A short row is packed in whole vectors: what is written behind its end is overwritten by the
        next row, or lies in the padding of the panel's.
        """
        guarded = factor.guarded
        length = self.extents[loop]
        if (isinstance(stop, int) and stop % LANES == 0) or (length > LONG_ROW and not guarded):
            return stop, TRUE
        return times(_pieces(stop, LANES), LANES), ("lt", ("i", loop), stop)

    def panel(self, array: str, factor: Factor, side: Cut | Flat, block: int) -> Panel:
        """The layout that packing walks along as memory does, where the form leaves a choice; that
        which tiles walk along for layers, whose panels are many."""
        along_k = self.blocks.form == "dot"
        if self.blocks.form == "outer" and isinstance(side, Flat):
            along_k = bool(self.c.layers) or not rows_along(self.c, side.loops)
        tile = self.blocks.tile.rows if side is self.blocks.m else self.width
        most = -(-side.capacity // tile) * tile
        k = self.blocks.k
        rows, length = (most, k) if along_k else (k.capacity, side)
        room = _room(length, self.extents) + (LANES if self.blocks.form == "dot" else 0)
        stride = odd_lines(max(room, 0 if along_k else most))
        panel = Panel(array, along_k, stride)
        own = side.stride if along_k and isinstance(side, Flat) else most
        together = (own if isinstance(own, Extent) else rows) * stride
        if not self.packs_once(panel, factor, block, together):
            size = rows * stride
            if self.c.layers and factor is self.c.b:
                panel.layered, panel.start = True, times(self.c.nest.offset, size)
                size *= self.c.size(self.c.layers)
            self.scratch.append(Scratch(array, self.dtype, size))
        return panel

    def window_panel(self, array: str, w: Windows) -> Panel:
        """The panel of B as it lies; its stride is its size."""
        k = self.blocks.k
        first = [k.size if loop == k.loop else self.extents[loop] for loop in w.first]
        end = self.extents[self.n_tile] * self.width
        if w.row_by_row:
            end = -(-end // w.column_pitch[0]) * w.pitch[0]
        length = end + w.farthest() + LANES
        size = (math.prod(first) - 1) * w.plane + max(w.plane, length)
        self.scratch.append(Scratch(array, self.dtype, size))
        self.scratch.append(Scratch("offsets", dt.int64, k.capacity))
        return Panel(array, False, size)

    def pack_windows(self, panel: Panel, w: Windows) -> list[Stmt]:
        """B's block with the borders that its taps reach."""
        n, k = self.blocks.n, self.blocks.k
        assert isinstance(n, Cut)
        at = self.at()
        axes = [self.loop(length) for length in w.lengths]
        for loop, axis in zip(n.loops, axes):
            at[loop] = ("i", axis)
        at[n.loop] = add(times(self.i(self.n_block), n.size), ("i", axes[0]))
        ends = [add(self.pieces(n, self.n_block), w.reach(n.loop))]
        ends += [self.integer(length) for length in w.lengths[1:]]
        piece, number = self.loop(k.size), 0
        for loop in w.first:
            one = piece if loop == k.loop else loop
            number = add(times(number, self.extents[one]), ("i", one))
        at[k.loop] = add(times(self.i(self.k_block), k.size), ("i", piece))
        place = times(number, w.plane)
        for axis, pitch in zip(axes, w.pitch):
            place = add(place, times(("i", axis), pitch))
        index = self.mapping(at)
        ahead = self.fetched(w.factor, index, k.loop, 1) if k.loop in w.first else []
        body = self.pack_axes(panel, place, w.factor, index, axes, ends, ahead)
        body = self.over([loop for loop in w.first if loop != k.loop], body)
        if k.loop in w.first:
            body = [For(piece, 0, self.pieces(k, self.k_block), "serial", body)]
        return body

    def pack_axes(
        self, panel: Panel, place: Expr, factor: Factor, index: IndexMap, axes: Sequence[int],
        ends: Sequence[Expr], ahead: list[Stmt],
    ) -> list[Stmt]:  # fmt: skip
        """Loops over the axes of a panel that holds a factor as it lies, vectors along the last."""
        *around, last = zip(axes, ends)
        stop, exists = self.whole_vectors(*last, factor)
        value = self.packed(factor, index, exists)
        store = Store(panel.array, place, value)
        body: list[Stmt] = [For(last[0], 0, stop, "vector", [*ahead, store])]
        for axis, stop in reversed(around):
            body = [For(axis, 0, stop, "serial", body)]
        return body

    def in_panel(self, column: Expr) -> Expr:
        """Where in B's panel the column lies that a vector begins with."""
        w = self.blocks.windows
        if w is None or not w.row_by_row:
            return column
        place: Expr = 0
        for index, pitch in zip(unflatten(column, w.column_lengths), w.pitch):
            place = add(place, times(index, pitch))
        return place

    def tap_offsets(self, w: Windows) -> list[Stmt]:
        """Where in B's panel the columns of every k of a block begin."""
        k = self.blocks.k
        piece, place = self.loop(k.size), 0
        for loop in w.first:
            one = piece if loop == k.loop else loop
            place = add(times(place, self.extents[one]), ("i", one))
        place = times(place, w.plane)
        for axis, pitch in zip(w.axes, w.pitch):
            if axis in w.taps:
                tap, distance = w.taps[axis]
                step: Expr = ("i", piece if tap == k.loop else tap)
                if distance < 0:
                    step = ("sub", self.c.nest.extents[tap] - 1, step)
                place = add(place, times(step, abs(distance) * pitch))
        store = Store("offsets", self.inside(k, piece), IndexValue(place))
        return [For(piece, 0, self.integer(k.size), "serial", self.over(k.inner, [store]))]

    def panel_of_a(self) -> Panel:
        """A's panel; of windows packed as it lies its stride is the distance of windows."""
        m, taps = self.blocks.m, self.blocks.taps
        if taps is None:
            return self.panel("panel_a", self.c.a, m, self.m_block)
        whole = -(-m.capacity // self.blocks.tile.rows) * self.blocks.tile.rows
        windows = -(-whole // taps.count)
        self.scratch.append(Scratch("panel_a", self.dtype, windows * taps.plane))
        self.scratch.append(Scratch("steps", dt.int64, self.blocks.k.capacity))
        return Panel("panel_a", True, taps.plane)

    def place_of_tap(self, taps: Taps, row: Expr, along: Expr) -> Expr:
        """Where the element of a row of a block is at a step of k that lies `along`."""
        window, axes = taps.row(row)
        place = times(window, taps.plane)
        for one, pitch in zip(axes, taps.pitch):
            place = add(place, times(one, pitch))
        return simplify(add(place, along), self.extents)

    def pack_taps(self, panel: Panel, taps: Taps) -> list[Stmt]:
        """A's block with the borders that its taps reach."""
        m, k = self.blocks.m, self.blocks.k
        window = self.loop(-(-m.capacity // taps.count))
        axes = [self.loop(length) for length in taps.lengths]
        each = m.stride // taps.count
        step = self.integer(each) if isinstance(each, Extent) else each
        number = add(_scaled(self.i(self.m_block), step), ("i", window))
        at = self.at((taps.own, number)) if taps.own else self.at()
        ends: list[Expr] = []
        place = times(("i", window), taps.plane)
        for loop, axis, length, pitch in zip(taps.axes, axes, taps.lengths, taps.pitch):
            tap, step = taps.taps.get(loop, (loop, 1))
            first = times(self.i(self.k_block), k.size * step) if loop == k.loop else 0
            at[loop] = 0
            at[tap] = add(first, ("i", axis))
            place = add(place, times(("i", axis), pitch))
            left = length - step * k.size
            whole = self.integer(length)
            ends.append(add(times(self.pieces(k, self.k_block), step), left)
                        if loop == k.loop and step > 0 else whole)  # fmt: skip
        index = self.mapping(at)
        ahead = self.fetched(taps.factor, index, taps.own[-1], 1) if taps.own else []
        body = self.pack_axes(panel, place, taps.factor, index, axes, ends, ahead)
        windows = _pieces(self.filled(m, self.m_block), taps.count)
        return [For(window, 0, windows, "serial", body)]

    def step_offsets(self, taps: Taps) -> list[Stmt]:
        """Where in A's panel the columns of every k of a block begin."""
        k = self.blocks.k
        piece, place = self.loop(k.size), 0
        for axis, (first, step), pitch in zip(taps.axes, taps.steps(), taps.pitch):
            loop = ("i", piece if axis == k.loop else axis)
            along = times(loop, step) if step > 0 else ("sub", first, times(loop, -step))
            place = add(place, times(along, pitch))
        store = Store("steps", self.inside(k, piece), IndexValue(place))
        return [For(piece, 0, self.integer(k.size), "serial", self.over(k.inner, [store]))]

    def packs_once(self, panel: Panel, factor: Factor, block: int, elements: int) -> bool:
        """Makes a packing kernel if many items would pack the same blocks and memory allows it."""
        used = set(loops_of(factor.guard)).union(*map(loops_of, self.ends.values()))
        used.update(*(loops_of(e) for v in walk(factor.value) for e in v.indices))
        loops = [k for k in (*self.c.batch, *self.blocks.grid_n) if k in used]
        loops += [*self.blocks.k.outer, self.k_block, block]
        loops = [k for k in loops if several(self.extents[k])]
        shared = math.prod(
            self.blocks.m.needed if k == self.m_block else self.extents[k]
            for k in self.grid_loops()
            if k not in loops
        )
        total = elements * math.prod(self.extents[k] for k in loops)
        size = sum(self.c.nest.buffers[name].size for name in _buffers_of(factor.value))
        nest = self.c.nest
        everything = nest.target.size + sum(b.size for b in nest.buffers.values())
        most = max(MOST_PADDING * hint(size), hint(everything) / 4)
        little = hint(shared) * hint(total) < LEAST_PACKED
        if little or hint(shared) < SHARED or hint(total) > most:
            return False
        number: Expr = 0
        for k in loops:
            number = add(_scaled(number, self.integer(self.extents[k])), ("i", k))
        whole = self.integer(elements) if isinstance(elements, Extent) else elements
        panel.start = _scaled(number, whole)
        buffer = Buffer(f"{self.c.nest.target.name}_{panel.array}", self.dtype, total)
        panel.array = buffer.name
        side = self.blocks.m if block == self.m_block else self.blocks.n
        body = [*self.named_ends(), *self.pack(panel, factor, side, block)]
        extents = tuple(self.integer(self.extents[k]) for k in loops)
        self.buffers[buffer.name] = buffer
        items = math.prod(self.extents[k] for k in loops)
        name = f"{self.name}_{len(self.packing)}"
        grid: list[Stmt] = [Grid(tuple(loops), extents, body)]
        self.packing.append(self.launchable(name, grid, [buffer], items, []))
        return True

    # -- the kernel -----------------------------------------------------------------------------

    def plan(self) -> Plan:
        body = self.kernel_body()
        loops = self.grid_loops()
        body = [Grid(tuple(loops), tuple(self.integer(self.extents[k]) for k in loops), body)]
        items = math.prod(self.extents[k] for k in loops)
        launch = self.launchable(self.name, body, self.tree.writes, items, self.scratch)
        temporaries = self.tree.packed = [one.buffers[-1] for one in self.packing]
        return Plan([*self.packing, launch], temporaries, self.blocks, self.c.nest, self.tree)

    def grid_loops(self) -> list[int]:
        """The loops whose iterations are shared out; those of the batch whose results lie between
        each other's, as residue classes' do, come last."""
        inside = abs(hint(self.steps.get(("i", self.blocks.n.loops[0]), 0)))
        batch = [k for k in self.c.batch if k not in self.c.layers]
        between = [k for k in batch if abs(hint(self.steps.get(("i", k), 0))) < inside]
        apart = [k for k in batch if k not in between]
        loops = [*apart, self.m_block, *self.blocks.grid_n, self.n_block, *between]
        return [k for k in loops if several(self.extents[k])]

    def kernel_body(self) -> list[Stmt]:
        blocks = self.blocks
        a = self.panel_of_a()
        if blocks.windows:
            b = self.window_panel("panel_b", blocks.windows)
        else:
            b = self.panel("panel_b", self.c.b, blocks.n, self.n_block)
        rows, columns, depth = self.named_sizes()
        packing, of_layers = self.packed_here(a, b)
        packing += self.looked_through(a) if self.border else []
        inside = self.over(self.c.layers, [*packing, *self.tiles(a, b)])
        inside = [depth, *of_layers, *inside]
        before = [*self.named_ends(), rows, columns]
        if not self.blocked:
            return [*before, *self.offsets(), *inside]
        finished = self.finished()
        inside = self.over([*blocks.k.outer, self.k_block], inside)
        return [*before, *self.offsets(), *inside, *finished]

    def looked_through(self, a: Panel) -> list[Stmt]:
        """Notes whether A's block has an infinity or a NaN, whose products with the zeros of a
        border are NaN: then no tap is left out."""
        row, step = self.loop(self.blocks.m.capacity), self.loop(self.blocks.k.capacity)
        place = a.place(("i", row), ("i", step))
        product = Op("mul", (Load(a.array, place, TRUE, 0.0, self.dtype), self.zero()), self.dtype)
        loops = [(row, self.rows), (step, self.depth)]
        (outer, many), (inner, each) = loops if a.along_k else loops[::-1]
        sums: Stmt = For(inner, 0, each, "vector", [Update("zeros", (), "add", (product,))])
        total = Ref("zeros", (), self.dtype)
        found = Op("cast", (Op("ne", (total, total), dt.bool_),), dt.int64)
        self.scratch.append(Scratch("found", dt.int64, 1))
        return [
            Init("zeros", (), "add", self.dtype),
            For(outer, 0, many, "serial", [sums]),
            Store("found", 0, found),
            Let("strange", (), Load("found", 0, TRUE, 0, dt.int64)),
        ]

    def zero(self) -> Value:
        """0 in the dtype of the sums."""
        return Const(0.0, self.dtype)

    def offsets(self) -> list[Stmt]:
        """Where products find their factors in panels that lie as in memory."""
        windows, taps = self.blocks.windows, self.blocks.taps
        offsets = self.tap_offsets(windows) if windows else []
        return [*offsets, *(self.step_offsets(taps) if taps else [])]

    def named_sizes(self) -> tuple[Stmt, Stmt, Stmt]:
        """The names of how many rows, columns and products of a result a block has."""
        blocks, whole = self.blocks, self.c.whole
        rows, self.rows = self.let("rows", self.filled(blocks.m, self.m_block), blocks.m.capacity)
        filled = self.filled(blocks.n, self.n_block)
        if blocks.windows:
            assert isinstance(blocks.n, Cut)
            pieces = self.pieces(blocks.n, self.n_block)
            filled = ("sub", _scaled(pieces, blocks.windows.column_pitch[0]), blocks.windows.tail)
        columns, self.columns = self.let("columns", filled, blocks.columns)
        filled = self.filled(blocks.k, self.k_block)
        filled = filled if whole == TRUE else ("where", whole, filled, 0)
        depth, self.depth = self.let("depth", filled, blocks.k.capacity)
        return rows, columns, depth

    def packed_here(self, a: Panel, b: Panel) -> tuple[list[Stmt], list[Stmt]]:
        """The packing of the panels that the kernel itself packs: of one layer, and of all."""
        scratch = {array.name for array in self.scratch}
        body: list[Stmt] = []
        of_layers: list[Stmt] = []
        if self.blocks.taps:
            body += self.pack_taps(a, self.blocks.taps)
        elif a.array in scratch:
            body += self.pack(a, self.c.a, self.blocks.m, self.m_block)
        if self.blocks.windows:
            body += self.pack_windows(b, self.blocks.windows)
        elif b.array in scratch:
            packing = of_layers if b.layered else body
            packing += self.pack(b, self.c.b, self.blocks.n, self.n_block)
        if self.c.whole != TRUE and body:
            body = [For(self.loop(2), 0, ("where", self.c.whole, 1, 0), "serial", body)]
        return body, of_layers

    def finished(self) -> list[Stmt]:
        """What follows the last block of k, where sums are kept until then."""
        size = self.layer_size * self.c.size(self.c.layers)
        finished = self.finish_across() if self.turned else self.finish_block()
        if self.turned:  # rows are read 16 at a time
            size += LANES * self.partial_stride
        if self.blocks.form == "dot":
            self.scratch.append(Scratch("totals", self.dtype, size))
            finished = [*self.add_lanes(), *finished]
            size *= LANES
        self.scratch.append(Scratch("partial", self.dtype, size))
        return finished

    def tiles(self, a: Panel, b: Panel) -> list[Stmt]:
        tile = self.dot_tile if self.blocks.form == "dot" else self.outer_tile
        before, strips = self.strips()
        border = self.taps_within(self.border) if self.border else []

        def across(parts: list[Stmt]) -> Stmt:
            """Statements for every tile of columns."""
            stop = _pieces(self.columns, self.width)
            return For(self.n_tile, 0, stop, "serial", [*border, *parts])

        if self.blocks.group is None:
            return [*before, across([_down(strip, tile(a, b, strip)) for strip in strips])]
        return [*before, *self.by_groups(strips, lambda strip: tile(a, b, strip), across)]

    def by_groups(
        self, strips: list[Strip], tile: Callable[[Strip], list[Stmt]],
        across: Callable[[list[Stmt]], Stmt],
    ) -> list[Stmt]:  # fmt: skip
        """All tiles of columns for some of the rows, which stay in the second cache meanwhile, then
        for the next ones; lower tiles, which are few, at the end."""
        size = self.blocks.group
        assert size is not None
        whole, *low = strips
        group = self.loop(-(-self.extents[whole.tile] // size))
        first = times(("i", group), size)
        stop = ("min", add(first, size), whole.count)
        body = across([For(whole.tile, first, stop, "serial", tile(whole))])
        groups: Stmt = For(group, 0, _pieces(whole.count, size), "serial", [body])
        return [groups, *(across([_down(strip, tile(strip))]) for strip in low)]

    def taps_within(self, border: Border) -> list[Stmt]:
        """The names of the taps that reach more than the border from a tile of columns."""
        first = times(("i", self.n_tile), self.width)
        above = self.start_of_rows()
        top, bottom = (
            add(above, ("floordiv", column, border.pitch))
            for column in (first, add(first, self.width - 1))
        )
        first_tap, last_tap = border.taps(top, bottom)
        is_plain = ("eq", ("val", "strange", (0, 2)), 0)
        first_tap = ("where", is_plain, first_tap, 0)
        last_tap = ("where", is_plain, last_tap, border.count)
        first_name, begin = self.let("first_tap", first_tap, border.count)
        last_name, end = self.let("last_tap", last_tap, border.count)
        self.within = times(begin, border.inner), times(end, border.inner)
        return [first_name, last_name]

    def start_of_rows(self) -> Expr:
        """The row of the panel's first axis at which a block begins."""
        assert isinstance(self.blocks.n, Cut)
        return times(self.i(self.n_block), self.blocks.n.size)

    def along_k(self, step: int, start: Expr, stop: Expr, body: list[Stmt]) -> list[Stmt]:
        """The loop over products, or over those that no border makes 0."""
        if self.border is None:
            return [For(step, start, stop, "serial", body)]
        period = self.border.period
        group = self.loop(-(-self.blocks.k.capacity // period))
        first, last = (add(times(("i", group), period), tap) for tap in self.within)
        start_of_group = ("max", start, first) if start != 0 else first
        within = For(step, start_of_group, ("min", stop, last), "serial", body)
        begin = ("floordiv", start, period) if start != 0 else 0
        return [For(group, begin, _pieces(stop, period), "serial", [within])]

    def strips(self) -> tuple[list[Stmt], list[Strip]]:
        """The tiles of a block of rows, the last rows in lower ones where there may be few."""
        height = self.blocks.tile.rows
        low = least_height(self.c, self.blocks)
        if low is None:
            return [], [Strip(self.m_tile, _pieces(self.rows, height), self.row, height)]
        most = height // 2  # rows that are left for lower tiles
        count, whole = self.let(
            "whole", _pieces(("sub", self.rows, most), height), self.extents[self.m_tile]
        )
        first = times(whole, height)
        left = _pieces(("max", ("sub", self.rows, first), 0), low)
        tile = self.loop(-(-most // low))
        return [count], [
            Strip(self.m_tile, whole, self.row, height),
            Strip(tile, left, self.unroll(low), low, first),
        ]

    def products(
        self, a: Panel, b: Panel, strip: Strip, row: Expr, column: Expr, step: Expr
    ) -> list[Stmt]:
        """The sums of a tile += A * B at one step of k."""
        both, kind = (strip.row, self.column), self.dtype
        offset: list[Stmt] = []
        place = a.place(row, step)
        if self.blocks.taps:
            offset.append(Let("along", (), Load("steps", step, TRUE, 0, dt.int64)))
            place = self.place_of_tap(self.blocks.taps, row, ("val", "along", (0, a.stride)))
        x = Load(a.array, place, TRUE, 0.0, kind)
        y = Load(b.array, b.place(column, step), TRUE, 0.0, kind)
        factors = (Ref("x", (strip.row,), kind), Ref("y", (self.column,), kind))
        if self.blocks.windows:
            offset.append(Let("offset", (), Load("offsets", step, TRUE, 0, dt.int64)))
            place = add(("val", "offset", (0, b.stride)), column)
            y = Load(b.array, place, TRUE, 0.0, kind)
        return [
            *offset,
            self.each([strip.row], Let("x", (strip.row,), x)),
            self.each([self.column], Let("y", (self.column,), y)),
            self.each(both, Update("acc", both, "fma", factors)),
        ]

    def outer_tile(self, a: Panel, b: Panel, strip: Strip) -> list[Stmt]:
        """One tile of results over one block of k, vectors along columns."""
        both = (strip.row, self.column)
        step, lane = self.loop(self.blocks.k.capacity), self.loop(LANES)
        row = strip.place()
        first = add(times(("i", self.n_tile), self.width), times(("i", self.column), LANES))
        column = add(first, ("i", lane))
        in_panel = add(self.in_panel(first), ("i", lane))
        sums = self.products(a, b, strip, row, in_panel, ("i", step))
        body: list[Stmt] = [self.each(both, Init("acc", both, "add", self.dtype))]
        place = self.place_of_sum(self.c.nest.offset if self.c.layers else 0, row, column)
        start, stop, later = self.chain_bounds()
        body += self.along_k(step, start, stop, sums)
        if self.blocked:
            before = Load("partial", place, later, 0.0, self.dtype)
            body.append(self.each(both, Update("acc", both, "add", (before,))))
        result = Ref("acc", both, self.dtype)
        if self.blocked:
            body.append(self.each(both, Store("partial", place, result)))
            if self.chains > 1:
                ends = ("max", 1, _pieces(self.depth, self.chain_length))  # sums of nothing are 0
                body = [For(self.chain, 0, ends, "serial", body)]
        else:
            guard = ("and", ("lt", row, self.rows), ("lt", column, self.columns))
            index = self.result_at(row, column)
            for stmt in self.finish(lambda layer: result, index, guard, both):
                body.append(self.each(both, stmt))
        return [For(lane, 0, LANES, "vector", body)]

    def chain_bounds(self) -> tuple[Expr, Expr, Expr]:
        """Where the sums of a tile that are added up in one go begin and end, and the condition
        that there are sums already."""
        if self.chains == 1:
            return 0, self.depth, self.later()
        start = times(("i", self.chain), self.chain_length)
        stop = ("min", add(start, self.chain_length), self.depth)
        return start, stop, _either(self.later(), ("lt", 0, ("i", self.chain)))

    def dot_tile(self, a: Panel, b: Panel, strip: Strip) -> list[Stmt]:
        """One tile of results over one block of k, vectors along k: 16 sums of every result."""
        both = (strip.row, self.column)
        step, lane = self.loop(-(-self.blocks.k.capacity // LANES)), self.loop(LANES)
        row = strip.place()
        column = add(times(("i", self.n_tile), self.width), ("i", self.column))
        k = add(times(("i", step), LANES), ("i", lane))
        sums = self.products(a, b, strip, row, column, k)
        place = add(times(add(times(row, self.partial_stride), column), LANES), ("i", lane))
        before = Load("partial", place, self.later(), 0.0, self.dtype)
        body: list[Stmt] = [
            self.each(both, Init("acc", both, "add", self.dtype)),
            For(step, 0, _pieces(self.depth, LANES), "serial", sums),
            self.each(both, Update("acc", both, "add", (before,))),
            self.each(both, Store("partial", place, Ref("acc", both, self.dtype))),
        ]
        return [For(lane, 0, LANES, "vector", body)]

    def add_lanes(self) -> list[Stmt]:
        """The 16 sums of every result of a block added up."""
        row, column = self.loop(self.blocks.m.capacity), self.loop(self.blocks.n.capacity)
        lane = self.loop(LANES)
        place = add(times(("i", row), self.partial_stride), ("i", column))
        one = Load("partial", add(times(place, LANES), ("i", lane)), TRUE, 0.0, self.dtype)
        body: list[Stmt] = [
            Init("total", (), "add", self.dtype, 1),
            For(lane, 0, LANES, "vector", [Update("total", (), "add", (one,))]),
            Store("totals", place, Ref("total", (), self.dtype)),
        ]
        body = [For(column, 0, self.columns, "serial", body)]
        return [For(row, 0, self.rows, "serial", body)]

    def place_of_sum(self, layer: Expr, row: Expr, column: Expr) -> Expr:
        """Where the sum of a result of this block is kept."""
        place = add(times(row, self.partial_stride), column)
        return add(times(layer, self.layer_size), place)

    def later(self) -> Expr:
        """The condition that a block of k is not the first."""
        blocks = [k for k in (*self.blocks.k.outer, self.k_block) if several(self.extents[k])]
        condition: Expr = FALSE
        for k in blocks:
            condition = _either(condition, ("lt", 0, ("i", k)))
        return condition

    def result_at(self, row: Expr, column: Expr) -> IndexMap:
        """The nest's loops at a result of this block."""
        m, n = self.blocks.m, self.blocks.n
        places = [(m.loops, self.number(m, self.m_block, row)),
                  (n.loops, self.number(n, self.n_block, column))]  # fmt: skip
        return self.mapping(self.at(*places))

    def merged(self) -> int:
        """From which loop of a block of n on the result is walked as by one loop."""
        side = self.blocks.n
        if isinstance(side, Flat):
            return 0
        steps = [self.steps.get(("i", k), 0) for k in side.loops]
        for position in range(len(steps) - 1, 0, -1):
            length = self.extents[side.loops[position]]
            if steps[position - 1] != steps[position] * length:
                return position
        return 0

    def result_columns(self, merged: int) -> tuple[list[tuple[int, Expr]], Expr, list[Place]]:
        """Loops over the columns of a block's results, those from `merged` on as one; where a
        column's sums are, and its results."""
        w = self.blocks.windows
        if w is None or w.row_by_row:
            return self.row_loops(self.blocks.n, self.n_block, merged)
        merged = len(self.blocks.n.loops) - 1
        order, _, places = self.row_loops(self.blocks.n, self.n_block, merged)
        column: Expr = 0
        for (loop, _), pitch in zip(order, w.pitch):
            column = add(column, times(("i", loop), pitch))
        return order, column, places

    def finish_across(self) -> list[Stmt]:
        """The same where results lie next to each other in memory across the rows of a block: 16
        rows at a time are turned."""
        if self.run_of_rows == 0:
            before = self.number(self.blocks.m, self.m_block, 0)
            return self.turn_rows(
                0, self.rows, lambda row: [(self.blocks.m.loops, add(before, row))]
            )
        return self.turn_runs()

    @functools.cached_property
    def run_of_rows(self) -> int:
        """From which loop of m on results follow each other in memory; 0 also where how long such a
        run is is not known."""
        loops = self.blocks.m.loops
        for position in range(len(loops) - 1, 0, -1):
            length = self.extents[loops[position]]
            step = self.steps.get(("i", loops[position]), 0)
            if isinstance(length, Extent):
                return 0
            if self.steps.get(("i", loops[position - 1]), 0) != length * step:
                return position
        return 0

    def turn_runs(self) -> list[Stmt]:
        """The rows of a block run by run, so that no vector has results of two."""
        m = self.blocks.m
        outer, inner = m.loops[: self.run_of_rows], m.loops[self.run_of_rows :]
        length = self.c.size(inner)
        run = self.loop(self.c.size(outer))
        start = self.start(m, self.m_block)
        before = times(("i", run), length)  # rows of earlier runs
        begin, first = self.let("first", ("max", ("sub", start, before), 0), length)
        left = ("min", ("sub", add(start, self.rows), before), length)
        count, rows = self.let("rows_of_run", ("sub", left, first), length)
        turned = self.turn_rows(
            ("sub", add(before, first), start), rows,
            lambda row: [(outer, ("i", run)), (inner, add(first, row))],
        )  # fmt: skip
        stop = _pieces(add(start, self.rows), length)
        body = [begin, count, *turned]
        return [For(run, ("floordiv", start, length), stop, "serial", body)]

    def turn_rows(
        self, start: Expr, rows: Expr, places_of: Callable[[Expr], list[Place]]
    ) -> list[Stmt]:
        """Results of so many rows of a block from one on, by what tells where each of them is."""
        m = self.blocks.m
        group, row, lane = self.loop(-(-m.capacity // LANES)), self.unroll(LANES), self.loop(LANES)
        one = self.loop(self.blocks.columns)
        first = times(("i", group), LANES)
        in_block = add(start, first, ("i", row))
        place = add(times(in_block, self.partial_stride), ("i", one))
        value = Load("partial", place, TRUE, 0.0, self.dtype)
        store: Stmt = Store("turned", add(times(("i", one), LANES), ("i", row)), value)
        turn = For(one, 0, self.columns, "vector", [For(row, 0, LANES, "unroll", [store])])
        self.scratch.append(Scratch("turned", self.dtype, LANES * self.partial_stride))
        order, column, places = self.result_columns(len(self.blocks.n.loops) - 1)
        value = Load("turned", add(times(column, LANES), ("i", lane)), TRUE, 0.0, self.dtype)
        places += places_of(add(first, ("i", lane)))
        body = self.finish(lambda layer: value, self.mapping(self.at(*places)), TRUE, ())
        body = [*self.fetched_rows(body, order[-1][0]), *body]
        body = [For(lane, 0, ("min", ("sub", rows, first), LANES), "vector", body)]
        for loop, stop in reversed(order):
            body = [For(loop, 0, stop, "serial", body)]
        return [For(group, 0, _pieces(rows, LANES), "serial", [turn, *body])]

    def finish_block(self) -> list[Stmt]:
        """Results from the sums of all blocks of k."""
        m = self.blocks.m
        row = self.loop(m.capacity)
        order, column, places = self.result_columns(self.merged())
        sums = "totals" if self.blocks.form == "dot" else "partial"

        def value(layer: Expr) -> Value:
            place = self.place_of_sum(layer, ("i", row), column)
            return Load(sums, place, TRUE, 0.0, self.dtype)

        places.append((m.loops, self.number(m, self.m_block, ("i", row))))
        body = self.finish(value, self.mapping(self.at(*places)), TRUE, ())
        body = [*self.fetched_rows(body, row), *body]
        how = "vector"
        for loop, stop in reversed(order):
            body = [For(loop, 0, stop, how, body)]
            how = "serial"
        return [For(row, 0, self.rows, "serial", body)]

    def fetched_rows(self, body: list[Stmt], row: int) -> list[Stmt]:
        """Asks for what is read and written a few rows further on: rows of a block are short, and
        lie far apart."""
        found: dict[tuple[str, Expr], Stmt] = {}
        inside = {stmt.loop for stmt in statements(body) if isinstance(stmt, For)}
        for buffer, offset in (access for stmt in statements(body) for access in accesses_of(stmt)):
            known = buffer in self.buffers and not loops_of(offset) & inside
            step = terms_of(offset, self.extents).get(("i", row), 0) if known else 0
            if isinstance(step, int) and step >= FAR_APART // 4:
                further = times(self.integer(step), ROWS_AHEAD)
                found[buffer, offset] = Fetch(buffer, add(offset, further))
        return list(found.values())


def _through(at: Sequence[Expr], index: IndexMap) -> IndexMap:
    """An index map behind the loops of another nest."""
    return lambda e: index(substitute(e, at))


def _finished(nest: Nest, index: IndexMap, exists: Expr, made: Made) -> Value:
    """The value of a nest in the loops of the kernel, what was made before taken as it is."""
    memo: dict[Value, Value] = {}
    buffers = {buffer for buffer, _ in made}

    def sums_of(value: Value) -> Sums | None:
        if not isinstance(value, Load) or value.buffer not in buffers:
            return None
        return made.get((value.buffer, None)) or made.get((value.buffer, index(value.offset)))

    def visit(value: Value) -> Value:
        known = memo.get(value)
        if known is None:
            if sums := sums_of(value):
                assert isinstance(value, Load)
                known = sums(index(value.offset))
            else:
                known = value.rebuild(tuple(visit(a) for a in value.args), index)
                if isinstance(known, Load):
                    guard = conjunction(known.guard, exists)
                    known = Load(known.buffer, known.offset, guard, known.fill, known.dtype)
            memo[value] = known
        return known

    return visit(nest.value)


def _either(a: Expr, b: Expr) -> Expr:
    return b if a == FALSE else ("or", a, b)


def _room(row: Cut | Flat, extents: Sequence[int]) -> int:
    """Elements that a row of a panel takes when its last vector is a whole one, whichever of the
    loops of the row run as one."""
    runs = [row.capacity]
    if isinstance(row, Cut):
        runs += [math.prod(extents[k] for k in row.inner[j:]) for j in range(len(row.inner))]
    return row.capacity + max(-run % LANES for run in runs)


def _guarded(value: Value, guard: Expr, memo: dict[Value, Value]) -> Value:
    """value, reading nothing where the guard does not hold."""
    if value not in memo:
        new = value.rebuild(tuple(_guarded(a, guard, memo) for a in value.args), lambda e: e)
        if isinstance(new, Load):
            both = conjunction(new.guard, guard)
            new = Load(new.buffer, new.offset, both, new.fill, new.dtype)
        memo[value] = new
    return memo[value]


def _scaled(e: Expr, factor: Expr) -> Expr:
    return times(e, factor) if isinstance(factor, int) else 0 if e == 0 else ("mul", e, factor)


def _pieces(total: Expr, size: int) -> Expr:
    if isinstance(total, int):
        return -(-total // size)
    return ("floordiv", ("add", total, size - 1), size)


def _divides(e: Expr, loop: int) -> bool:
    """True if a loop is inside a division or a condition of an index expression."""
    if isinstance(e, int) or loop not in loops_of(e):
        return False
    if e[0] in ("floordiv", "mod", "div", "rem", "where", "min", "max"):
        return True
    return any(_divides(p, loop) for p in e[1:])


def _indices(body: list[Stmt]) -> list[Expr]:
    return [e for stmt in statements(body) for e in indices_of(stmt)]


def _buffers_of(value: Value) -> list[str]:
    return sorted({part.buffer for part in walk(value) if isinstance(part, Load)})
