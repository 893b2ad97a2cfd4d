"""contraction: a sum of products as one kernel of register tiles over packed panels.

    out[b, m, n] = sum over k of A(b, m, k) * B(b, n, k)

 -> grid b, block of m, block of n:
      serial block of k:
        pack A, pack B                      into scratch, by evaluating their index maps
        serial tile of n, tile of m:
          vector lane:
            acc[i][j] = 0
            serial k:  acc[i][j] fma= A[i], B[j]
            out[…] = acc[i][j]              or partial sums, if there are more blocks of k

Every loop of a contraction is of one class: batch (both factors and the result), M (one factor and
the result), N (the other and the result) or K (summed).  N is the class with the loop along which
the result lies contiguous in memory.  A class may have several loops or none; nothing here knows
what they stand for.  A factor is any expression over its loops: it is evaluated once per element of
a panel, and 0 where the nest's guard does not hold, so windows, strides, borders and residue
classes are matters of packing alone.

Two forms.  *outer*: vectors along N, panel B as rows of n for each k.  *dot*: vectors along K, both
panels as rows of k; for factors that lie contiguous along K, which to turn around would cost more.

The order of additions depends on extents and index maps only: k in order (dot: 16 lanes and a fixed
tree) within a block, then block after block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metaop import dtype as dt
from metaop.index import (
    TRUE,
    Expr,
    Terms,
    conjunction,
    conjuncts,
    interval,
    is_condition,
    loops_of,
    simplify,
    substitute,
    terms_of,
    unflatten,
)

from .loops import (
    LANES,
    Condition,
    Const,
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
    rewrite,
    statements,
    values_of,
    walk,
)
from .nest import Buffer, Nest, dependencies
from .schedule import LITERAL_EXTENT, MOST_CHUNKS, map_nest

IndexMap = Callable[[Expr], Expr]
# What is done with a finished sum: the sum, the map from the nest's loops to the kernel's, and the
# condition that the element exists.
Finish = Callable[[Value, IndexMap, Expr], list[Stmt]]


@dataclass(eq=False)
class Launchable:
    """A kernel and what one launch of it needs."""

    kernel: Kernel
    buffers: list[Buffer]
    integers: dict[str, int]
    chunks: int


@dataclass(eq=False)
class Plan:
    """The kernels of a contraction in the order of their phases (packing first), and the
    temporaries that they hand on."""

    launches: list[Launchable]
    temporaries: list[Buffer]
    form: str
    nest: Nest


# ----------------------------------------------------------------------------------- classification


@dataclass(eq=False)
class Factor:
    """One factor of the product: 0 where the guard does not hold."""

    value: Value
    guard: Expr
    access: Terms  # where it lies in memory, were what it is made of stored

    def stride(self, loop: int) -> int | None:
        """How far a step of the loop moves the access; None if not by a fixed distance."""
        if any(a is not None and a[0] != "i" and loop in loops_of(a) for a in self.access):
            return None
        return self.access.get(("i", loop), 0)


@dataclass(eq=False)
class Contraction:
    """A nest with its loops in classes; the result is contiguous along the last loop of n."""

    nest: Nest
    batch: list[int]
    m: list[int]
    n: list[int]
    k: list[int]
    a: Factor
    b: Factor
    exists: Expr = TRUE  # of a result, where loops were cut into parts that overhang

    def size(self, loops: Sequence[int]) -> int:
        """The number of iterations of some loops."""
        total = 1
        for loop in loops:
            total *= self.nest.extents[loop]
        return total


def without_single_loops(nest: Nest) -> Nest:
    """The nest without its loops of extent one."""
    live = [k for k, n in enumerate(nest.extents) if n != 1]
    extents = [nest.extents[k] for k in live]
    at: list[Expr] = [("i", live.index(k)) if k in live else 0 for k in range(len(nest.extents))]
    new = map_nest(nest, lambda e: simplify(substitute(e, at), extents))
    new.extents, new.rank = extents, sum(k < nest.rank for k in live)
    return new


def classify(nest: Nest) -> Contraction | None:
    """The classes of a nest's loops, None if it is no contraction with both M and N."""
    value = nest.value
    if not nest.contraction or nest.scatter or nest.named or nest.checks:
        return None
    if (
        not isinstance(value, Op)
        or value.name != "mul"
        or value.dtype not in (dt.float32, dt.float64)
    ):
        return None
    loops_by_value = {id(v): loops for v, loops in dependencies(nest)}
    first, second = (loops_by_value[id(v)] for v in value.args)
    rank, count = nest.rank, len(nest.extents)
    batch = [k for k in range(rank) if (k in first) == (k in second)]
    sides = [[k for k in range(rank) if k not in batch and k in f] for f in (first, second)]
    guards = _guards(nest, [first | set(batch), second | set(batch)])
    if guards is None or not sides[0] or not sides[1]:
        return None
    accesses = [terms_of(e, nest.extents) for e in nest.order or (0, 0)]
    factors = [Factor(*parts) for parts in zip(value.args, guards, accesses)]
    unit = _contiguous_loop(nest)
    if unit in sides[0]:
        sides.reverse()
        factors.reverse()
    elif unit not in sides[1]:
        return None
    return Contraction(nest, batch, sides[0], sides[1], list(range(rank, count)), *factors)


def _contiguous_loop(nest: Nest) -> int:
    """The loop of the result with the shortest step through its memory."""
    terms = terms_of(nest.offset, nest.extents)
    steps = {a[1]: abs(c) for a, c in terms.items() if a is not None and a[0] == "i"}
    return min(steps, key=lambda k: (steps[k], -k), default=-1)


def _guards(nest: Nest, loops: list[set[int]]) -> list[Expr] | None:
    """The parts of the nest's guard by factor, None if one concerns both at once."""
    guards = [TRUE, TRUE]
    for part in conjuncts(nest.guard):
        found = [loops_of(part) <= own for own in loops]
        if not any(found):
            return None
        guards = [conjunction(g, part) if f else g for g, f in zip(guards, found)]
    return guards


# --------------------------------------------------------------------------------------- blocking


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
    def count(self) -> int:
        """Pieces of the loop."""
        return -(-self.extent // self.size)


def cut(loops: Sequence[int], extents: Sequence[int], most: int) -> Cut:
    """Blocks of up to `most` elements, as equal as they can be."""
    step, position = 1, len(loops) - 1
    while position > 0 and step * extents[loops[position]] <= most // 2:
        step *= extents[loops[position]]
        position -= 1
    loop = loops[position]
    pieces = -(-extents[loop] // max(1, most // step))
    size = -(-extents[loop] // pieces)
    return Cut(list(loops[:position]), loop, size, list(loops[position + 1 :]), extents[loop], step)


def odd_lines(elements: int) -> int:
    """A row length from which rows spread over all sets of a cache: an odd number of vectors."""
    return (-(-elements // LANES) | 1) * LANES


@dataclass(frozen=True)
class Tile:
    """A tile of results in registers: rows x vectors (dot: rows x columns)."""

    rows: int
    columns: int


@dataclass(eq=False)
class Blocks:
    """Everything that is chosen: form, tile, blocks."""

    form: str
    tile: Tile
    m: int  # rows of a block, a multiple of the tile's
    n: Cut
    k: Cut
    grid_n: list[int]  # loops of n that are outside all blocks


KEPT_IN_L1 = 256  # products added up before a tile moves on
KEPT_DOT = 1024
MOST_ROWS = 192
MOST_COLUMNS = 256
TILES = (Tile(8, 2), Tile(6, 4), Tile(12, 2), Tile(9, 3), Tile(7, 4), Tile(4, 4))


def choose(c: Contraction) -> Blocks | None:
    """The blocks of a contraction, None if its loops are too few for tiles."""
    extents = c.nest.extents
    group, rest = _merging(c)
    k = cut(c.k, extents, KEPT_IN_L1)
    rows = c.size(c.m)
    best: tuple[float, Blocks] | None = None
    for tile in TILES:
        width = tile.columns * LANES
        n = cut(group, extents, MOST_COLUMNS)
        m = _even_rows(rows, tile.rows)
        waste = -(-rows // tile.rows) * tile.rows / rows
        waste *= (
            -(-n.capacity // width)
            * width
            / n.capacity
            * (n.capacity * n.count)
            / (n.extent * n.step)
        )
        cost = waste * (1 + 0.2 * (tile.rows + tile.columns) / (tile.rows * tile.columns))
        if best is None or cost < best[0] - 1e-9:
            best = (cost, Blocks("outer", tile, m, n, k, [*rest, *n.outer]))
    assert best is not None
    return best[1]


def _even_rows(rows: int, tile: int) -> int:
    panels = -(-rows // tile)
    blocks = -(-panels // max(1, MOST_ROWS // tile))
    return -(-panels // blocks) * tile


def _merging(c: Contraction) -> tuple[list[int], list[int]]:
    """The innermost loops of n along which the result is walked as by one loop; the others."""
    terms = terms_of(c.nest.offset, c.nest.extents)
    steps = {k: terms.get(("i", k), 0) for k in c.n}
    loops = sorted(c.n, key=lambda k: (abs(steps[k]), -k))
    group = [loops[0]]
    length = c.nest.extents[loops[0]]
    for loop in loops[1:]:
        if steps[loop] != steps[loops[0]] * length:
            break
        group.insert(0, loop)
        length *= c.nest.extents[loop]
    return group, [k for k in c.n if k not in group]


# --------------------------------------------------------------------------------------- building


def plan(nest: Nest, name: str, finish: Finish | None = None) -> Plan | None:
    """The kernels of a contraction; None where loops without packing serve it better."""
    found = classify(without_single_loops(nest))
    blocks = choose(found) if found is not None else None
    if found is None or blocks is None:
        return None
    return _Builder(found, blocks, name, finish).plan()


def _add(*parts: Expr) -> Expr:
    total: Expr = 0
    for part in parts:
        if part != 0:
            total = part if total == 0 else ("add", total, part)
    return total


def _times(e: Expr, factor: int) -> Expr:
    return e if factor == 1 else 0 if e == 0 else ("mul", e, factor)


class _Builder:
    """Writes the kernels of one contraction."""

    def __init__(self, c: Contraction, blocks: Blocks, name: str, finish: Finish | None):
        self.c, self.blocks, self.name = c, blocks, name
        self.finish = finish or self.store
        self.dtype = c.nest.value.dtype
        self.extents = list(c.nest.extents)  # of the nest's loops, then of the kernel's own
        self.integers: dict[str, int] = {}
        self.unrolled: dict[int, int] = {}
        self.scratch: list[Scratch] = []
        self.names: dict[str, tuple[int, int]] = {}
        k, n, tile = blocks.k, blocks.n, blocks.tile
        self.m_block, self.n_block = self.loop(self.m_count), self.loop(n.count)
        self.k_block = self.loop(k.count)
        self.m_tile = self.loop(blocks.m // tile.rows)
        self.width = tile.columns * LANES
        self.n_tile = self.loop(-(-n.capacity // self.width))
        self.row, self.column = self.unroll(tile.rows), self.unroll(tile.columns)
        self.lane = self.loop(LANES)

    @property
    def m_count(self) -> int:
        return -(-self.c.size(self.c.m) // self.blocks.m)

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
        if value <= LITERAL_EXTENT:
            return value
        name = next((n for n, v in self.integers.items() if v == value), f"n{len(self.integers)}")
        self.integers[name] = value
        return ("val", name, (0, value + 1))

    def let(self, name: str, e: Expr, most: int) -> tuple[Stmt, Expr]:
        return Let(name, (), IndexValue(e)), ("val", name, (0, most + 1))

    def over(self, loops: Sequence[int], body: list[Stmt]) -> list[Stmt]:
        """body inside serial loops over their whole extents."""
        for loop in reversed(loops):
            if self.extents[loop] > 1:
                body = [For(loop, 0, self.integer(self.extents[loop]), "serial", body)]
        return body

    def i(self, loop: int) -> Expr:
        """The index of a loop around blocks: there is no loop for a single block."""
        return ("i", loop) if self.extents[loop] > 1 else 0

    def each(self, loops: Sequence[int], stmt: Stmt) -> Stmt:
        for loop in reversed(loops):
            stmt = For(loop, 0, self.unrolled[loop], "unroll", [stmt])
        return stmt

    # -- where an element of a block is ---------------------------------------------------------

    def at(self, *places: tuple[Sequence[int], Expr]) -> list[Expr]:
        """The nest's loops in terms of the kernel's, some groups of them numbered by one index."""
        result: list[Expr] = [("i", k) for k in range(len(self.extents))]
        for loops, flat in places:
            parts = unflatten(flat, [self.extents[k] for k in loops])
            for loop, part in zip(loops, parts):
                result[loop] = part
        return result

    def mapping(self, at: list[Expr]) -> IndexMap:
        return lambda e: simplify(substitute(e, at), self.extents)

    def whole(self, c: Cut) -> list[int]:
        return [c.loop, *c.inner]

    def start(self, c: Cut, block: int) -> Expr:
        """The number of a block's first element."""
        return _times(self.i(block), c.capacity)

    def filled(self, c: Cut, block: int) -> Expr:
        """Elements of a block along the loop in pieces."""
        if c.count == 1:
            return self.integer(c.extent)
        left = ("sub", self.integer(c.extent), _times(self.i(block), c.size))
        return ("min", left, c.size)

    # -- packing --------------------------------------------------------------------------------

    def packed(self, factor: Factor, index: IndexMap) -> Value:
        """An element of a panel."""
        value = rewrite(factor.value, index, {})
        guard = index(factor.guard)
        if guard == TRUE:
            return value
        if isinstance(value, Load) and value.fill == 0:
            both = conjunction(value.guard, guard)
            return Load(value.buffer, value.offset, both, value.fill, value.dtype)
        zero = Const(0.0, value.dtype)
        return Op("where", (Condition(guard), value, zero), value.dtype)

    def runs_as_one(self, factor: Factor, index: IndexMap, loop: int) -> bool:
        """True if a group of loops numbered by one needs no division to be told apart."""
        value = self.packed(factor, index)
        found = [e for part in walk(value) for e in part.indices]
        return not any(_divides(e, loop) for e in found)

    def across(
        self, factor: Factor, c: Cut, block: int, rows: tuple[Sequence[int], Expr] | None,
        store: Callable[[Expr, Value], Stmt],
    ) -> list[Stmt]:  # fmt: skip
        """Loops over a block of the cut class, the innermost one a vector loop, around
        store(number in the block, value)."""
        places = [rows] if rows else []
        flat = self.loop(c.capacity)
        number = _add(self.start(c, block), ("i", flat))
        index = self.mapping(self.at(*places, (self.whole(c), number)))
        if self.runs_as_one(factor, index, flat):
            stop = self.filled(c, block)
            stop = stop if c.step == 1 else ("mul", stop, self.integer(c.step))
            body: list[Stmt] = [store(("i", flat), self.packed(factor, index))]
            return [For(flat, 0, stop, "vector", body)]
        piece = self.loop(c.size)
        at = self.at(*places)
        at[c.loop] = _add(_times(self.i(block), c.size), ("i", piece))
        number = ("i", piece)
        for loop in c.inner:
            number = _add(_times(number, self.extents[loop]), ("i", loop))
        body = [store(number, self.packed(factor, self.mapping(at)))]
        order = [(piece, self.filled(c, block))]
        order += [(k, self.integer(self.extents[k])) for k in c.inner]
        for position, (loop, stop) in reversed(list(enumerate(order))):
            how = "vector" if position == len(order) - 1 else "serial"
            body = [For(loop, 0, stop, how, body)]
        return body

    def pack_rows(self, array: str, rows: Expr) -> list[Stmt]:
        """A's block, one row of k after the other."""
        row = self.loop(self.blocks.m)
        stride = self.a_stride

        def store(number: Expr, value: Value) -> Stmt:
            return Store(array, _add(_times(("i", row), stride), number), value)

        m = _add(_times(self.i(self.m_block), self.blocks.m), ("i", row))
        body = self.across(self.c.a, self.blocks.k, self.k_block, (self.c.m, m), store)
        return [For(row, 0, rows, "serial", body)]

    def pack_columns(self, array: str) -> list[Stmt]:
        """B's block, one row of n for each k."""
        k = self.blocks.k
        piece = self.loop(k.size)
        number: Expr = ("i", piece)
        for loop in k.inner:
            number = _add(_times(number, self.extents[loop]), ("i", loop))

        def store(column: Expr, value: Value) -> Stmt:
            return Store(array, _add(_times(number, self.b_stride), column), value)

        place = ([k.loop], _add(_times(self.i(self.k_block), k.size), ("i", piece)))
        body = self.across(self.c.b, self.blocks.n, self.n_block, place, store)
        body = self.over(k.inner, body)
        return [For(piece, 0, self.filled(k, self.k_block), "serial", body)]

    # -- the kernel -----------------------------------------------------------------------------

    def plan(self) -> Plan:
        body = self.kernel_body()
        c = self.c
        loops = [*c.batch, self.m_block, *self.blocks.grid_n, self.n_block]
        loops = [k for k in loops if self.extents[k] > 1]
        body = [Grid(tuple(loops), tuple(self.integer(self.extents[k]) for k in loops), body)]
        items = 1
        for k in loops:
            items *= self.extents[k]
        kernel, buffers = self.kernel(self.name, body)
        launch = Launchable(kernel, buffers, self.integers, min(items, MOST_CHUNKS))
        return Plan([launch], [], self.blocks.form, c.nest)

    def kernel(self, name: str, body: list[Stmt]) -> tuple[Kernel, list[Buffer]]:
        nest = self.c.nest
        scratch = {array.name for array in self.scratch}
        read = {
            part.buffer
            for stmt in statements(body)
            for value in values_of(stmt)
            for part in walk(value)
            if isinstance(part, Load) and part.buffer not in scratch
        }
        buffers = [b for n, b in nest.buffers.items() if n in read] + [nest.target]
        parameters = [Parameter(b.name, b.dtype, b is nest.target) for b in buffers]
        narrow = all(self.is_narrow(e) for e in _indices(body))
        kernel = Kernel(name, parameters, list(self.integers), self.unrolled, body, narrow,
                        self.scratch)  # fmt: skip
        return kernel, buffers

    def is_narrow(self, e: Expr) -> bool:
        """True if no part of an index expression can leave 32 bits."""
        if isinstance(e, int):
            return abs(e) < 1 << 31
        if not is_condition(e):
            low, high = interval(e, self.extents)
            if low < -(1 << 31) or high >= 1 << 31:
                return False
        return e[0] in ("i", "val", "true") or all(self.is_narrow(p) for p in e[1:])

    def kernel_body(self) -> list[Stmt]:
        blocks, k = self.blocks, self.blocks.k
        self.a_stride = odd_lines(k.capacity)
        columns = -(-blocks.n.capacity // self.width) * self.width
        self.b_stride = odd_lines(columns)
        self.scratch += [
            Scratch("panel_a", self.dtype, blocks.m * self.a_stride),
            Scratch("panel_b", self.dtype, k.capacity * self.b_stride),
        ]
        body: list[Stmt] = []
        all_rows = self.integer(self.c.size(self.c.m))
        left: Expr = all_rows
        if self.m_count > 1:
            left = ("sub", all_rows, _times(self.i(self.m_block), blocks.m))
            left = ("min", left, blocks.m)
        let, self.rows = self.let("rows", left, blocks.m)
        body.append(let)
        let, self.columns = self.let("columns", self.scaled(blocks.n, self.n_block), columns)
        body.append(let)
        blocked = k.count > 1 or bool(k.outer)
        inside: list[Stmt] = []
        let, self.depth = self.let("depth", self.scaled(k, self.k_block), k.capacity)
        inside.append(let)
        inside += self.pack_rows("panel_a", self.rows)
        inside += self.pack_columns("panel_b")
        if blocked:
            self.scratch.append(Scratch("partial", self.dtype, blocks.m * self.b_stride))
        inside += self.tiles(blocked)
        if blocked:
            body += self.over([*k.outer, self.k_block], inside)
            body += self.finish_block()
        else:
            body += inside
        return body

    def scaled(self, c: Cut, block: int) -> Expr:
        filled = self.filled(c, block)
        return filled if c.step == 1 else ("mul", filled, self.integer(c.step))

    def tiles(self, blocked: bool) -> list[Stmt]:
        body = [self.tile(blocked)]
        rows, columns = self.blocks.tile.rows, self.width
        body = [For(self.m_tile, 0, _pieces(self.rows, rows), "serial", body)]
        return [For(self.n_tile, 0, _pieces(self.columns, columns), "serial", body)]

    def tile(self, blocked: bool) -> Stmt:
        """One tile of results over one block of k."""
        both, kind = (self.row, self.column), self.dtype
        step = self.loop(self.blocks.k.capacity)
        row = _add(_times(("i", self.m_tile), self.blocks.tile.rows), ("i", self.row))
        column = _add(_times(("i", self.n_tile), self.width),
                      _times(("i", self.column), LANES), ("i", self.lane))  # fmt: skip
        a = Load("panel_a", _add(_times(row, self.a_stride), ("i", step)), TRUE, 0.0, kind)
        b = Load("panel_b", _add(_times(("i", step), self.b_stride), column), TRUE, 0.0, kind)
        factors = (Ref("x", (self.row,), kind), Ref("y", (self.column,), kind))
        sums: list[Stmt] = [
            self.each([self.row], Let("x", (self.row,), a)),
            self.each([self.column], Let("y", (self.column,), b)),
            self.each(both, Update("acc", both, "fma", factors)),
        ]
        body = [
            self.each(both, Init("acc", both, "add", kind)),
            For(step, 0, self.depth, "serial", sums),
        ]
        result = Ref("acc", both, kind)
        if blocked:
            place = _add(_times(row, self.b_stride), column)
            later = self.later()
            before = Load("partial", place, later, 0.0, kind)
            body.append(self.each(both, Update("acc", both, "add", (before,))))
            body.append(self.each(both, Store("partial", place, result)))
        else:
            guard = ("and", ("lt", row, self.rows), ("lt", column, self.columns))
            for stmt in self.finish(result, self.result_at(row, column), guard):
                body.append(self.each(both, stmt))
        return For(self.lane, 0, LANES, "vector", body)

    def later(self) -> Expr:
        """The condition that a block of k is not the first."""
        blocks = [k for k in (*self.blocks.k.outer, self.k_block) if self.extents[k] > 1]
        condition: Expr = ("lt", 0, ("i", blocks[0]))
        for k in blocks[1:]:
            condition = ("or", condition, ("lt", 0, ("i", k)))
        return condition

    def result_at(self, row: Expr, column: Expr) -> IndexMap:
        m = _add(_times(self.i(self.m_block), self.blocks.m), row)
        n = _add(self.start(self.blocks.n, self.n_block), column)
        return self.mapping(self.at((self.c.m, m), (self.whole(self.blocks.n), n)))

    def finish_block(self) -> list[Stmt]:
        """Results from the sums of all blocks of k."""
        row, column = self.loop(self.blocks.m), self.loop(self.blocks.n.capacity)
        place = _add(_times(("i", row), self.b_stride), ("i", column))
        value = Load("partial", place, TRUE, 0.0, self.dtype)
        body = self.finish(value, self.result_at(("i", row), ("i", column)), TRUE)
        body = [For(column, 0, self.columns, "vector", body)]
        return [For(row, 0, self.rows, "serial", body)]

    def store(self, value: Value, index: IndexMap, guard: Expr) -> list[Stmt]:
        """The plain result."""
        nest = self.c.nest
        if value.dtype is not nest.target.dtype:
            value = Op("cast", (value,), nest.target.dtype)
        exists = conjunction(guard, index(self.c.exists))
        return [Store(nest.target.name, index(nest.offset), value, None, exists)]


def _pieces(total: Expr, size: int) -> Expr:
    return ("floordiv", ("add", total, size - 1), size)


def _divides(e: Expr, loop: int) -> bool:
    """True if a loop is inside a division or a condition of an index expression."""
    if isinstance(e, int) or loop not in loops_of(e):
        return False
    if e[0] in ("floordiv", "mod", "div", "rem", "where", "min", "max"):
        return True
    return any(_divides(p, loop) for p in e[1:])


def _indices(body: list[Stmt]) -> list[Expr]:
    found: list[Expr] = []
    for stmt in statements(body):
        found += [e for v in values_of(stmt) for part in walk(v) for e in part.indices]
        if isinstance(stmt, Store):
            found += [stmt.offset, stmt.guard]
    return found
