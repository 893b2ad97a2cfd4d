"""schedule: from a nest to a kernel: loop order, collapsing, tiles, the vector loop, the grid.

    out[i0, i1] = sum over i2 of a[i0*K + i2] * b[i2*N + i1]
 -> grid i0 tile, i1 block:
      vector i1:
        acc[tile] = 0
        serial i2:
          unroll tile: acc += a[…] * b[…]
        unroll tile: out[…] = acc

The order in which a reduction adds up depends on the nest alone, never on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from metaop.index import (
    Expr,
    Terms,
    children,
    from_terms,
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
    Stmt,
    Store,
    Update,
    Value,
    integers_of,
    rewrite,
)
from .nest import Buffer, Nest, dependencies

MOST_CHUNKS = 64
SMALL_WORK = 16_384  # evaluations that are not worth waking a second thread for
LITERAL_EXTENT = 32  # larger extents and offsets are arguments of the kernel
MOST_ACCUMULATORS = 16
LARGEST_TILE = 8
GATHER_COST = 8.0
BROADCAST_COST = 0.3


@dataclass(eq=False)
class Scheduled:
    """A kernel and what one launch of it needs: buffers, integers, chunks."""

    kernel: Kernel
    buffers: list[Buffer]
    integers: dict[str, int]
    chunks: int
    nest: Nest


def schedule(nest: Nest, name: str = "k0") -> Scheduled:
    """The kernel for a nest."""
    return _Scheduler(collapse(nest)).run(name)


# --------------------------------------------------------------------------------- collapse loops


def map_nest(nest: Nest, index: Callable[[Expr], Expr]) -> Nest:
    """The nest with every index expression mapped."""
    memo: dict[int, Value] = {}
    named = {n: rewrite(v, index, memo) for n, v in nest.named.items()}
    return Nest(
        nest.target, nest.extents, nest.rank, rewrite(nest.value, index, memo), index(nest.offset),
        nest.op, nest.scatter, nest.parallel, nest.contraction, named, nest.buffers, nest.checks,
        nest.nodes, index(nest.guard), tuple(map(index, nest.order)),
    )  # fmt: skip


def accesses(nest: Nest) -> list[Expr]:
    """The index expressions that are offsets or numbers, the store's among them."""
    found = [nest.offset]
    for value, _ in dependencies(nest):
        if isinstance(value, Load):
            found.append(value.offset)
        elif isinstance(value, IndexValue):
            found.append(value.expr)
    return found


def _opaque_terms(forms: list[Terms]) -> set[int]:
    """Loops that occur in an offset other than as a plain term."""
    opaque: set[int] = set()
    for terms in forms:
        for atom in terms:
            if atom is not None and atom[0] != "i":
                opaque |= loops_of(atom)
    return opaque


def opaque_loops(nest: Nest, forms: list[Terms]) -> set[int]:
    """Loops that occur anywhere but as a plain term of an offset."""
    opaque = loops_of(nest.guard) | _opaque_terms(forms)
    for value, _ in dependencies(nest):
        for e in value.indices:
            if is_condition(e):
                opaque |= loops_of(e)
    return opaque


def collapse(nest: Nest) -> Nest:
    """Merges adjacent loops that every access walks as one, and drops loops of extent one.

    for i0 < 256: for i1 < 576: y[i0*576 + i1]   ->   for i1 < 147456: y[i1]

    For a reduction the accesses are those that decide its order; another access may then need the
    parts of the merged loop, i1 // 576 and i1 % 576.
    """
    if nest.order:
        forms = [terms_of(e, nest.extents) for e in (nest.offset, *nest.order)]
        opaque = _opaque_terms(forms)
    else:
        forms = [terms_of(e, nest.extents) for e in accesses(nest)]
        opaque = opaque_loops(nest, forms)
    extents = list(nest.extents)
    live = [k for k, n in enumerate(extents) if n != 1]
    owner: dict[int, int] = {}  # of a merged loop: the one that it became part of
    for group in ([k for k in live if k < nest.rank], [k for k in live if k >= nest.rank]):
        for outer, inner in reversed(list(pairwise(group))):
            if outer in opaque or inner in opaque or nest.scatter:
                continue
            if all(_walks_as_one(terms, outer, inner, extents[inner]) for terms in forms):
                for terms in forms:
                    coefficient = terms.pop(("i", inner), 0)
                    terms.pop(("i", outer), None)
                    if coefficient:
                        terms[("i", outer)] = coefficient
                extents[outer] *= extents[inner]
                extents[inner] = 1
                owner[inner] = outer
    return _renumbered(nest, extents, owner)


def _walks_as_one(terms: Terms, outer: int, inner: int, extent: int) -> bool:
    return terms.get(("i", outer), 0) == terms.get(("i", inner), 0) * extent


def _renumbered(nest: Nest, extents: list[int], owner: dict[int, int]) -> Nest:
    """The nest over the loops that are left, numbered from 0."""
    live = [k for k, n in enumerate(extents) if n != 1]
    number = {k: position for position, k in enumerate(live)}
    new_extents = [extents[k] for k in live]
    at: list[Expr] = [("i", number[k]) if k in number else 0 for k in range(len(extents))]
    for first in set(owner.values()) - set(owner):
        parts = [k for k in range(len(extents)) if _merged_into(k, owner) == first]
        merged = unflatten(at[first], [nest.extents[k] for k in parts])
        for k, part in zip(parts, merged):
            at[k] = part

    def index(e: Expr) -> Expr:
        return simplify(substitute(e, at), new_extents)

    new = map_nest(nest, index)
    new.extents = new_extents
    new.rank = sum(k < nest.rank for k in live)
    new.parallel = tuple(number[k] for k in nest.parallel if k in number)
    return new


def _merged_into(loop: int, owner: dict[int, int]) -> int:
    while loop in owner:
        loop = owner[loop]
    return loop


# ----------------------------------------------------------------------------------- scheduling


@dataclass
class Tile:
    """An output loop processed `size` iterations at a time in registers."""

    loop: int
    size: int
    block: int = -1  # the loop over tiles
    lane: int = -1  # the unrolled loop within one


@dataclass
class Level:
    """One loop of the chain, and the statements before and after the next one."""

    loops: tuple[int, ...]
    make: Callable[[list[Stmt]], Stmt]
    before: list[Stmt] = field(default_factory=list)
    after: list[Stmt] = field(default_factory=list)


class _Scheduler:
    def __init__(self, nest: Nest):
        self.nest = nest
        self.extents = list(nest.extents)
        self.outer = list(range(nest.rank))
        self.reduced = list(range(nest.rank, len(nest.extents)))
        self.integers: dict[str, int] = {}
        self.unrolled: dict[int, int] = {}
        self.order = nest.order or tuple(accesses(nest)[1:])
        self.offsets = [terms_of(e, self.extents) for e in (nest.offset, *self.order)]

    # -- choices ------------------------------------------------------------------------------

    def stride(self, terms: Terms, loop: int) -> int | None:
        """How far one step of a loop moves an access; None if not by a fixed distance."""
        for atom in terms:
            if atom is not None and atom[0] != "i" and self.depends(atom, loop):
                return None
        return terms.get(("i", loop), 0)

    def depends(self, e: Expr, loop: int) -> bool:
        """True if an index expression varies with a loop, also through integer values."""
        if loop in loops_of(e):
            return True
        return any(
            loop in loops
            for name in integers_of(e)
            for value, loops in self.value_loops
            if name in self.nest.named and value is self.nest.named[name]
        )

    def access_cost(self, stride: int | None) -> float:
        return BROADCAST_COST if stride == 0 else 1.0 if stride == 1 else GATHER_COST

    def choose_vector(self) -> int | None:
        """The loop that costs least per element when it runs 16 lanes wide."""
        store, loads = self.offsets[0], self.offsets[1:]
        candidates = self.outer if not self.nest.scatter else [
            k for k in self.nest.parallel if self.stride(store, k) == 1
        ]  # fmt: skip
        repeats = max(1, self.size(self.reduced))
        best: tuple[float, int] | None = None
        for loop in [*self.reduced[::-1], *candidates[::-1]]:
            n = self.extents[loop]
            cost = sum(self.access_cost(self.stride(t, loop)) for t in loads) + 0.5
            if loop in self.outer:
                cost += self.access_cost(self.stride(store, loop)) / repeats
            else:
                cost += 8.0 / repeats
            cost /= n / (LANES * -(-n // LANES))
            if best is None or cost < best[0] - 1e-9:
                best = (cost, loop)
        return best[1] if best else None

    def size(self, loops: Sequence[int]) -> int:
        total = 1
        for k in loops:
            total *= self.extents[k]
        return total

    def choose_tiles(self, vector: int | None) -> list[Tile]:
        """Up to two output loops to unroll, so that loads are shared between accumulators."""
        if self.nest.op is None or self.nest.scatter or self.size(self.reduced) < 4:
            return []
        named = {id(value) for value in self.nest.named.values()}  # one integer, not one per lane
        held = {k for value, loops in self.value_loops if id(value) in named for k in loops}
        free = [k for k in self.outer if k not in (vector, *held) and self.extents[k] > 1]
        loads = [frozenset(loops_of(e)) for e in self.order]
        options: list[list[Tile]] = [[]]
        for position, k in enumerate(free):
            options += [[Tile(k, n)] for n in self.tile_sizes(k)]
            for other in free[position + 1 :]:
                options += [
                    [Tile(k, n), Tile(other, m)]
                    for n in self.tile_sizes(k)
                    for m in self.tile_sizes(other)
                    if n * m <= MOST_ACCUMULATORS
                ]
        best = min(options, key=lambda tiles: (self.tile_cost(tiles, loads, vector), len(tiles)))
        return best

    def tile_sizes(self, loop: int) -> list[int]:
        return [n for n in range(2, LARGEST_TILE + 1) if n <= self.extents[loop]]

    def tile_cost(
        self, tiles: list[Tile], loads: list[frozenset[int]], vector: int | None
    ) -> float:
        """Loads per update, with the waste of tiles that do not divide their loop."""
        count, waste = 1, 1.0
        for tile in tiles:
            n = self.extents[tile.loop]
            count *= tile.size
            waste *= -(-n // tile.size) * tile.size / n
        loaded = 0.0
        for loops in loads:
            copies = 1
            for tile in tiles:
                copies *= tile.size if tile.loop in loops else 1
            loaded += copies * (1.0 if vector in loops else 0.6)
        latency = 4 / min(count, 8)  # independent chains hide the latency of an update
        return (loaded / count + 0.5 + 0.1 * latency) * waste

    # -- building -----------------------------------------------------------------------------

    def run(self, name: str) -> Scheduled:
        self.value_loops = list(dependencies(self.nest))
        vector = self.choose_vector()
        tiles = self.choose_tiles(vector)
        names: dict[str, Value] = {}
        nest = self.apply_tiles(tiles, names)
        levels, items = self.chain(vector, tiles)
        body = _Body(nest, levels, [t.lane for t in tiles], names, self.depth_of_result(levels))
        statements = body.build()
        arguments = {n: b for n, b in nest.buffers.items() if n != nest.target.name}
        arguments[nest.target.name] = nest.target
        buffers = list(arguments.values())
        self.integers |= dict.fromkeys(nest.checks, 0)  # numbered by the program
        kernel = Kernel(
            name,
            [Parameter(n, b.dtype, n == nest.target.name) for n, b in arguments.items()],
            [],
            self.unrolled,
            statements,
        )
        _name_integers(kernel, self.integers)
        kernel.integers = list(self.integers)
        kernel.narrow = self.fits_32_bits(nest)
        work = self.nest.iterations
        chunks = 1 if work < SMALL_WORK else min(items, MOST_CHUNKS)
        return Scheduled(kernel, buffers, self.integers, chunks, nest)

    def fits_32_bits(self, nest: Nest) -> bool:
        """True if no index expression, nor any part of one, can leave 32 bits."""
        found = [nest.offset, nest.guard]
        for value, _ in dependencies(nest):
            found.extend(value.indices)
        return all(self.is_narrow(e) for e in found)

    def is_narrow(self, e: Expr) -> bool:
        if not is_condition(e):
            low, high = interval(e, self.extents)
            if low < -(1 << 31) or high >= 1 << 31:
                return False
        return all(self.is_narrow(part) for part in children(e))

    def new_loop(self, extent: int) -> int:
        self.extents.append(extent)
        return len(self.extents) - 1

    def apply_tiles(self, tiles: list[Tile], names: dict[str, Value]) -> Nest:
        """i -> block*size + lane; the last tile moves back to stay inside, computing some
        results twice rather than needing code for a remainder."""
        at: list[Expr] = [("i", k) for k in range(len(self.extents))]
        for number, tile in enumerate(tiles):
            n = self.extents[tile.loop]
            tile.block = self.new_loop(-(-n // tile.size))
            tile.lane = self.new_loop(tile.size)
            self.unrolled[tile.lane] = tile.size
            start: Expr = ("mul", ("i", tile.block), tile.size)
            if n % tile.size:
                names[f"s{number}"] = IndexValue(("min", start, n - tile.size))
                start = ("val", f"s{number}", (0, n - tile.size + 1))
            at[tile.loop] = ("add", start, ("i", tile.lane))
        if not tiles:
            return self.nest
        extents = self.extents

        def index(e: Expr) -> Expr:
            full = [*at, *(("i", k) for k in range(len(at), len(extents)))]
            if is_condition(e):
                return substitute(e, full)
            return from_terms(terms_of(substitute(e, full), extents))

        return map_nest(self.nest, index)

    def chain(self, vector: int | None, tiles: list[Tile]) -> tuple[list[Level], int]:
        """The loops from the outside in, and the number of grid items."""
        blocks = {tile.loop: tile.block for tile in tiles}
        outer = [blocks.get(k, k) for k in self.outer if k != vector]
        if self.nest.scatter:
            plain = [k for k in outer if k in self.nest.parallel]
            grid, serial = plain, [k for k in outer if k not in self.nest.parallel]
        else:
            cut = self.grid_length(outer)
            grid, serial = outer[:cut], outer[cut:]
        levels: list[Level] = []
        block = None
        if vector is not None and vector < self.nest.rank:
            block = self.vector_block(vector, self.size(grid))
        if block is not None:
            grid = [*grid, block[0]]
        items = self.size(grid)
        loops, extents = tuple(grid), tuple(self.extents[k] for k in grid)
        levels.append(Level(loops, lambda body: Grid(loops, extents, body)))
        for k in serial:
            levels.append(self.serial_level(k, "serial"))
        if vector is not None and vector < self.nest.rank:
            levels.append(self.vector_level(vector, block))
        for k in self.reduced:
            if k != vector:
                levels.append(self.serial_level(k, "serial"))
        if vector is not None and vector >= self.nest.rank:
            levels.append(self.vector_level(vector, None))
        return levels, items

    def depth_of_result(self, levels: list[Level]) -> int:
        """How many levels surround one result (for a map: all of them)."""
        reduced = set(self.reduced)
        return sum(not (set(level.loops) & reduced) for level in levels)

    def grid_length(self, outer: list[int]) -> int:
        """How many of the outermost loops the grid takes: enough for all chunks."""
        total = 1
        for position, k in enumerate(outer):
            if total >= MOST_CHUNKS:
                return position
            total *= self.extents[k]
        return len(outer)

    def vector_block(self, vector: int, items: int) -> tuple[int, int] | None:
        """Cuts the vector loop into grid items when the other loops are too few for that."""
        n = self.extents[vector]
        shortest = LANES if self.size(self.reduced) >= 16 else 512
        size = max(shortest, -(-n * items // MOST_CHUNKS // LANES) * LANES)
        size = min(size, 65_536)
        if items >= MOST_CHUNKS // 2 or n <= size:
            return None
        return self.new_loop(-(-n // size)), size

    def serial_level(self, loop: int, how: str) -> Level:
        n = self.extents[loop]
        return Level((loop,), lambda body: For(loop, 0, n, how, body))

    def vector_level(self, vector: int, block: tuple[int, int] | None) -> Level:
        n = self.extents[vector]
        if block is None:
            return self.serial_level(vector, "vector")
        loop, size = block
        start: Expr = ("mul", ("i", loop), size)
        stop: Expr = ("min", ("add", start, size), n)
        return Level((vector,), lambda body: For(vector, start, stop, "vector", body))


class _Body:
    """Places every value at the outermost level where it can be computed."""

    def __init__(
        self,
        nest: Nest,
        levels: list[Level],
        lanes: list[int],
        names: dict[str, Value],
        result_depth: int,
    ):
        self.nest, self.levels, self.lanes = nest, levels, lanes
        self.result_depth = result_depth
        self.top: list[Stmt] = []
        self.level_of_loop = {k: d + 1 for d, level in enumerate(levels) for k in level.loops}
        self.named = {**names, **nest.named}
        self.loops: dict[int, frozenset[int]] = {}
        self.replaced: dict[int, Value] = {}
        self.count = 0

    def build(self) -> list[Stmt]:
        nest = self.nest
        shadow = Nest(nest.target, nest.extents, nest.rank, nest.value, nest.offset,
                      named=self.named)  # fmt: skip
        order = list(dependencies(shadow))
        names = {id(v): n for n, v in self.named.items()}
        self.loops = {id(v): loops for v, loops in order}
        shared = self.shared_values([v for v, _ in order])
        for value, loops in order:
            new = value.rebuild(tuple(self.replaced[id(a)] for a in value.args), lambda e: e)
            self.replaced[id(value)] = new
            if id(value) in names:
                self.let(names[id(value)], loops, new)
            elif id(value) in shared and not isinstance(value, Const | IndexValue | Condition):
                self.replaced[id(value)] = self.let(self.fresh(), loops, new)
        self.result(self.replaced[id(nest.value)])
        return self.assemble()

    def fresh(self) -> str:
        self.count += 1
        return f"x{self.count - 1}"

    def depth(self, loops: frozenset[int]) -> int:
        return max((self.level_of_loop[k] for k in loops if k in self.level_of_loop), default=0)

    def dims(self, loops: frozenset[int]) -> tuple[int, ...]:
        return tuple(k for k in self.lanes if k in loops)

    def shared_values(self, order: list[Value]) -> set[int]:
        """Values used twice, or by a value at a deeper level or with more unrolled loops."""
        uses: dict[int, int] = {}
        shared: set[int] = set()
        result_loops = frozenset(self.lanes) if self.nest.op else self.loops[id(self.nest.value)]
        for value in order:
            here = self.loops[id(value)]
            for arg in value.args:
                uses[id(arg)] = uses.get(id(arg), 0) + 1
                there = self.loops[id(arg)]
                if self.depth(there) < self.depth(here) or self.dims(there) != self.dims(here):
                    shared.add(id(arg))
        top = self.nest.value
        operands = self.operands(top)
        for value in operands:
            there = self.loops[id(value)]
            if self.depth(there) < len(self.levels) or self.dims(there) != self.dims(result_loops):
                shared.add(id(value))
        return shared | {key for key, count in uses.items() if count > 1}

    def operands(self, value: Value) -> tuple[Value, ...]:
        """What an update reads: both factors of a contraction, else the value."""
        if self.nest.contraction and isinstance(value, Op) and value.name == "mul":
            return value.args
        return (value,)

    def let(self, name: str, loops: frozenset[int], value: Value) -> Ref:
        dims = self.dims(loops)
        depth = self.depth(loops)
        target = self.levels[depth - 1].before if depth else self.top
        target.append(self.unroll(dims, Let(name, dims, value)))
        return Ref(name, dims, value.dtype)

    def unroll(self, dims: tuple[int, ...], stmt: Stmt) -> Stmt:
        for k in reversed(dims):
            stmt = For(k, 0, ("val", f"unroll{k}"), "unroll", [stmt])
        return stmt

    def result(self, value: Value) -> None:
        nest = self.nest
        lanes = tuple(self.lanes)
        if nest.op is None or nest.scatter:
            op = nest.op if nest.scatter else None
            self.levels[-1].after.append(
                Store(nest.target.name, nest.offset, value, op, nest.guard)
            )
            return
        dtype = value.dtype
        place = self.levels[self.result_depth - 1]
        place.before.append(self.unroll(lanes, Init("acc", lanes, nest.op, dtype)))
        update = Update("acc", lanes, nest.op, (value,))
        if nest.contraction and isinstance(value, Op) and value.name == "mul":
            update = Update("acc", lanes, "fma", value.args)
        update.guard = nest.guard
        self.levels[-1].after.append(self.unroll(lanes, update))
        final: Value = Ref("acc", lanes, dtype)
        if dtype is not nest.target.dtype:
            final = Op("cast", (final,), nest.target.dtype)
        store = Store(nest.target.name, nest.offset, final)
        place.after.append(self.unroll(lanes, store))

    def assemble(self) -> list[Stmt]:
        inner: list[Stmt] = []
        for level in reversed(self.levels):
            # the innermost level has its update in `after` and no loop between
            inner = [level.make([*level.before, *inner, *level.after])]
        return [*self.top, *inner]


def _name_integers(kernel: Kernel, integers: dict[str, int]) -> None:
    """Makes large extents and offsets arguments, so that other sizes use the same code."""
    _Integers(kernel, integers).run()


class _Integers:
    def __init__(self, kernel: Kernel, integers: dict[str, int]):
        self.kernel, self.integers = kernel, integers

    def name(self, prefix: str, value: int) -> Expr:
        name = f"{prefix}{sum(n[0] == prefix for n in self.integers)}"
        self.integers[name] = value
        return ("val", name)

    def run(self) -> None:
        memo: dict[int, Value] = {}
        self.body(self.kernel.body, memo)

    def extent(self, e: Expr) -> Expr:
        if isinstance(e, int):
            return self.name("n", e) if e > LITERAL_EXTENT else e
        if e[0] == "min" and isinstance(e[2], int) and e[2] > LITERAL_EXTENT:
            return ("min", e[1], self.name("n", e[2]))
        return e

    def offset(self, e: Expr) -> Expr:
        if isinstance(e, int):
            return self.name("o", e) if e else e
        match e:
            case ("add", inner, int() as c):
                return ("add", inner, self.name("o", c))
            case ("sub", inner, int() as c):
                return ("sub", inner, self.name("o", c))
        return e

    def value(self, value: Value, memo: dict[int, Value]) -> Value:
        known = memo.get(id(value))
        if known is None:
            args = tuple(self.value(a, memo) for a in value.args)
            known = value.rebuild(args, lambda e: e)
            if isinstance(known, Load):
                known = Load(known.buffer, self.offset(known.offset), known.guard, known.fill,
                             known.dtype)  # fmt: skip
            elif isinstance(known, IndexValue):
                known = IndexValue(self.bound(known.expr))
            memo[id(value)] = known
        return known

    def bound(self, e: Expr) -> Expr:
        """The last tile's start is an argument too."""
        if isinstance(e, tuple) and e[0] == "min" and isinstance(e[2], int):
            return self.extent(e)
        return e

    def body(self, body: list[Stmt], memo: dict[int, Value]) -> None:
        for stmt in body:
            match stmt:
                case Grid():
                    stmt.extents = tuple(self.extent(e) for e in stmt.extents)
                    self.body(stmt.body, memo)
                case For():
                    stmt.stop = self.stop(stmt)
                    self.body(stmt.body, memo)
                case Let():
                    stmt.value = self.value(stmt.value, memo)
                case Update():
                    stmt.values = tuple(self.value(v, memo) for v in stmt.values)
                case Store():
                    stmt.offset = self.offset(stmt.offset)
                    stmt.value = self.value(stmt.value, memo)

    def stop(self, stmt: For) -> Expr:
        if stmt.how == "unroll":
            return self.kernel.extents[stmt.loop]
        return self.extent(stmt.stop)
