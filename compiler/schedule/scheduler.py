"""The order of loops, tiles and vectors of a tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from metaop import dtype as dt
from metaop.extent import guess, hint, maximum, minimum, require
from metaop.graph import size_of
from metaop.index import TRUE, Expr, loops_of, terms_of

from ..arguments import name_extents
from ..ends import end_early
from ..fetching import fetch_ahead
from ..loops import (
    LANES,
    For,
    Grid,
    IndexValue,
    Kernel,
    Last,
    Load,
    Parameter,
    Scratch,
    Stmt,
    Store,
    Value,
    loads_of,
)
from ..nest import Buffer, Nest, Tree
from ..repeats import name_repeats
from .body import Body, drop_stores
from .collapse import accesses, collapse_tree
from .integers import as_argument, indices_of, name_integers
from .levels import MOST_ACCUMULATORS, Level, Tile, nested
from .rewriting import distinct_names, tree_of
from .vector_cost import PAGE, SQUARES_OF_PAGE, VectorCost, access_cost

MOST_CHUNKS = 64
SMALL_WORK = 16_384  # evaluations that are not worth waking a second thread for
LARGEST_TILE = 8
LEAST_ROW, LEAST_ROWS = 64, 1 << 20  # elements of a row, bytes of all rows that are added up whole


@dataclass(eq=False)
class Scheduled:
    """A kernel and what one launch of it needs: buffers, integers, chunks."""

    kernel: Kernel
    buffers: list[Buffer]
    integers: dict[str, int]
    chunks: int
    tree: Tree


def schedule(work: Tree | Nest, name: str = "k0") -> Scheduled:
    """The kernel for a tree, or for a nest by itself."""
    tree = work if isinstance(work, Tree) else tree_of(work)
    return Scheduler(collapse_tree(distinct_names(tree))).run(name)


def runs_across(tree: Tree) -> bool:
    """True if a root loop is the vector loop, so that 16 iterations of it run side by side."""
    return Scheduler(collapse_tree(tree)).choose_root_vector() is not None


def vector_of_root(tree: Tree) -> int | None:
    """The root loop of `runs_across`, None if there is none."""
    if not runs_across(tree):
        return None
    return Scheduler(dataclasses.replace(tree, across=True)).choose_root_vector()


class Scheduler:
    """Schedules one tree.  Loops are renumbered: root loops first, then those of each nest."""

    def __init__(self, tree: Tree):
        self.tree = tree
        self.root = tree.root
        self.extents: list[int] = list(tree.nests[0].extents)  # of the first nest's loops at first
        self.unrolled: dict[int, int] = {}
        self.costs = [VectorCost(nest) for nest in tree.nests]
        self.choices: dict[str, int] = {}  # integers that say what to do about the caches

    def run(self, name: str) -> Scheduled:
        tree = self.tree
        lone = tree.nests[0] if tree.nests[0].scatter else None
        vector = self.choose_scatter_vector(lone) if lone else self.choose_root_vector()
        if vector is not None and self.adds_rows(vector):
            return self.run_rows(name, vector)
        tiles = self.choose_tiles(vector)
        names: dict[str, Value] = {}
        start = self.apply_tiles(tiles, names)
        shared, items = self.shared_levels(None if lone else vector, tiles)
        body = Body(self, shared, [t.lane for t in tiles], names)
        for nest, cost in zip(tree.nests, self.costs):
            if lone is not None:
                order = self.scatter_order(nest, vector)
            else:
                order = self.inner_order(nest, cost, vector)
            body.add(nest, order, start)
        body.turn_round()
        if vector is None and not tiles:
            fetch_ahead(body.stages, shared[-1], self.extents, self.choices)
        inner = [stmt for stage in body.stages for stmt in stage.statements()]
        whole = [*body.top, *nested(shared, inner)]
        end_early(whole, self.extents)
        name_repeats(whole, body.fresh)
        whole += self.last_statements(body)
        return self.finish(name, whole, body, items)

    def adds_rows(self, vector: int) -> bool:
        """True for sums of many rows along them: they are read whole, each added to a row of
        results in memory, rather than column by column."""
        rows = not self.tree.last and all(
            nest.op is not None
            and not (nest.scatter or nest.contraction or nest.named)
            and nest.rank == self.root
            and nest.exists == TRUE
            and nest.value.dtype is nest.target.dtype
            and hint(nest.extents[vector]) >= LEAST_ROW
            and hint(nest.iterations) * nest.target.dtype.itemsize >= LEAST_ROWS
            and cost.repeats >= LANES
            and cost.stride(cost.store, vector) == 1
            and all(cost.stride(terms, vector) in (0, 1) for terms in cost.loads)
            for nest, cost in zip(self.tree.nests, self.costs)
        )
        if not rows:
            return False
        block = self.vector_block(vector, self.size([k for k in range(self.root) if k != vector]))
        return block is None or hint(block[1]) >= LEAST_ROW

    def run_rows(self, name: str, vector: int) -> Scheduled:
        """The kernel of such sums."""
        shared, items = self.shared_levels(vector, [])
        across = shared.pop()
        body = Body(self, shared, [], {})
        for nest in self.tree.nests:
            body.add_rows(nest, across)
        inner = [stmt for stage in body.stages for stmt in stage.statements()]
        whole = [*body.top, *nested(shared, inner)]
        end_early(whole, self.extents)
        name_repeats(whole, body.fresh)
        return self.finish(name, whole, body, items)

    def finish(self, name: str, body_of_kernel: list[Stmt], body: Body, items: int) -> Scheduled:
        """The kernel with its arguments: what is read, what is written, integers."""
        tree = self.tree
        made = dict.fromkeys(n.target for n in tree.nests if n.target in body.arrays)
        arrays = [*made, *body.staged]
        read = {load.buffer for load in loads_of(body_of_kernel)}
        unread = {b.name for b in arrays} - read
        arrays = [b for b in arrays if b.name not in unread]
        drop_stores(body_of_kernel, unread)
        written = {b.name for b in tree.writes}
        arguments = {b.name: b for b in tree.reads if b.name in read and b.name not in written}
        arguments |= {b.name: b for b in tree.writes}
        if tree.last:
            counter = Buffer("counter", dt.int64, 1, "counter")
            arguments["counter"] = counter
            written.add("counter")
        integers: dict[str, int] = dict.fromkeys(tree.checks, 0)  # numbered by the program
        integers.update(self.choices)
        kernel = Kernel(
            name,
            [Parameter(n, b.dtype, n in written) for n, b in arguments.items()],
            [],
            self.unrolled,
            body_of_kernel,
            scratch=[Scratch(b.name, b.dtype, b.size) for b in arrays],
        )
        name_extents(kernel, integers)
        name_integers(kernel, integers)
        kernel.integers = list(integers)
        indices = [e for nest in body.scheduled for e in indices_of(nest)]
        kernel.fit_32_bits(indices, self.extents)
        enough = maximum(1, tree.iterations // SMALL_WORK * MOST_CHUNKS)
        chunks = minimum(minimum(items, MOST_CHUNKS), enough)
        return Scheduled(kernel, list(arguments.values()), integers, chunks, tree)

    # -- choices ------------------------------------------------------------------------------

    def choose_root_vector(self) -> int | None:
        """The root loop that runs 16 lanes wide around everything, None if each nest has a vector
        loop of its own."""
        if self.tree.across is False or any(nest.lanes for nest in self.tree.nests):
            return None
        pairs = list(zip(self.tree.nests, self.costs))
        inside = sum(self.inner_cost(nest, cost) * nest.iterations for nest, cost in pairs)
        best: tuple[float, int] | None = None
        for loop in reversed(range(self.root)):
            total = sum(cost(loop) * nest.iterations for nest, cost in pairs)
            if best is None or total < best[0] * (1 - 1e-9):
                best = (total, loop)
        return best[1] if best is not None and (self.tree.across or best[0] <= inside) else None

    def inner_cost(self, nest: Nest, cost: VectorCost) -> float:
        found = self.inner_vector(nest, cost)
        return cost.scalar() if found is None else cost(found)

    def inner_vector(self, nest: Nest, cost: VectorCost) -> int | None:
        """The vector loop of a nest inside the root loops."""
        if nest.lanes:
            best = cost.best(cost.reduced)
        else:
            best = cost.best(range(self.root, nest.rank))
        if best is None or (not nest.lanes and best[0] > cost.scalar()):
            return None
        return best[1]

    def choose_scatter_vector(self, nest: Nest) -> int | None:
        cost = self.costs[0]
        candidates = [k for k in nest.parallel if cost.stride(cost.store, k) == 1]
        best = cost.best(candidates)
        return None if best is None else best[1]

    def scatter_order(self, nest: Nest, vector: int | None) -> list[tuple[int, str]]:
        """Elements that may collide are combined one after the other."""
        order = [(k, "serial") for k in range(self.root, len(nest.extents))]
        return order if vector is None else [*order, (vector, "vector")]

    def inner_order(
        self, nest: Nest, cost: VectorCost, root_vector: int | None
    ) -> list[tuple[int, str]]:
        """The loops inside the root loops from the outside in, and how each runs."""
        vector = None if root_vector is not None else self.inner_vector(nest, cost)
        kept = [k for k in range(self.root, nest.rank) if k != vector]
        reduced = [k for k in range(nest.rank, len(nest.extents)) if k != vector]
        order = [(k, "serial") for k in kept]
        turned = None if root_vector is None else cost.turned(root_vector, kept)
        if turned is not None:
            order = [*((k, "serial") for k in kept if k != turned), (turned, "turned")]
        if vector is not None and vector < nest.rank:
            order.append((vector, "vector"))
        order += [(k, "serial") for k in reduced]
        if vector is not None and vector >= nest.rank:
            order.append((vector, "vector"))
        return order

    def size(self, loops: Sequence[int]) -> int:
        return size_of([self.extents[k] for k in loops])

    def root_size(self) -> int:
        return size_of(self.tree.nests[0].extents[: self.root])

    def choose_tiles(self, vector: int | None) -> list[Tile]:
        """Up to two root loops to unroll, so that loads are shared between accumulators; or one of
        a map, so that what is read along another loop is written in order."""
        nest, cost = self.tree.nests[0], self.costs[0]
        if vector is not None and self.is_map():
            turned = {c.turned(vector, range(self.root)) for c in self.costs}
            loop = turned.pop() if len(turned) == 1 else None
            return [] if loop is None or self.tree.last else [Tile(loop, LANES)]
        if nest.op is None or nest.scatter or cost.repeats < 4 or nest.rank != self.root:
            return []
        if nest.lanes and not nest.contraction:
            return []  # copies of the lanes hide the latency
        if any(len(other.extents) != self.root for other in self.tree.nests[1:]):
            return []
        held = {  # one integer, not one per lane
            k
            for n, c in zip(self.tree.nests, self.costs)
            for value, loops in c.value_loops
            if any(value is v for v in n.named.values())
            for k in loops
        }
        if nest.lanes:
            vector = self.inner_vector(nest, cost)
        free = [k for k in range(self.root) if k not in (vector, *held) and self.extents[k] != 1]
        loads = [frozenset(loops_of(e)) for e in nest.order or tuple(accesses(nest)[1:])]
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
        return min(options, key=lambda tiles: (self.tile_cost(tiles, loads, vector), len(tiles)))

    def tile_sizes(self, loop: int) -> list[int]:
        return [n for n in range(2, LARGEST_TILE + 1) if n <= guess(self.extents[loop])]

    def tile_cost(
        self, tiles: list[Tile], loads: list[frozenset[int]], vector: int | None
    ) -> float:
        """Loads per update, with the waste of tiles that do not divide their loop."""
        count, waste = 1, 1.0
        for tile in tiles:
            n = int(self.extents[tile.loop])
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

    # -- loops --------------------------------------------------------------------------------

    def new_loop(self, extent: int) -> int:
        self.extents.append(extent)
        return len(self.extents) - 1

    def apply_tiles(self, tiles: list[Tile], names: dict[str, Value]) -> list[Expr]:
        """What each root loop is: block*size + lane for a tiled one.  The last tile moves back to
        stay inside, computing some results twice rather than needing code for a remainder."""
        at: list[Expr] = [("i", k) for k in range(self.root)]
        for number, tile in enumerate(tiles):
            n = self.extents[tile.loop]
            tile.block = self.new_loop(-(-n // tile.size))
            tile.lane = self.new_loop(tile.size)
            self.unrolled[tile.lane] = tile.size
            start: Expr = ("mul", ("i", tile.block), tile.size)
            require(n, tile.size)
            if n % tile.size != 0:
                names[f"s{number}"] = IndexValue(("min", start, n - tile.size))
                start = ("val", f"s{number}", (0, n - tile.size + 1))
            at[tile.loop] = ("add", start, ("i", tile.lane))
        return at

    def shared_levels(self, vector: int | None, tiles: list[Tile]) -> tuple[list[Level], int]:
        """The root loops from the outside in, and the number of grid items."""
        blocks = {tile.loop: tile.block for tile in tiles}
        outer = [blocks.get(k, k) for k in range(self.root) if k != vector]
        if self.tree.nests[0].scatter:
            scattered = self.choose_scatter_vector(self.tree.nests[0])
            outer = [k for k in outer if k != scattered]
        cut = self.grid_length(outer)
        grid, serial = outer[:cut], outer[cut:]
        block = None
        if vector is not None and tiles and self.is_map():
            width = self.turned_at_once(vector, tiles[0])
            block = self.new_loop(-(-self.extents[vector] // width)), width
            squares = tiles[0].block
            grid, serial = [*(k for k in outer if k != squares), block[0], squares], []
        elif vector is not None:
            block = self.vector_block(vector, self.size(grid))
            if block is not None:
                grid = [*grid, block[0]]
        items = self.size(grid)
        loops, extents = tuple(grid), tuple(self.extents[k] for k in grid)
        levels = [Level(loops, lambda body: Grid(loops, extents, body))]
        levels += [self.serial_level(k, "serial") for k in serial]
        if vector is not None:
            levels.append(self.vector_level(vector, block))
        return levels, items

    def turned_at_once(self, vector: int, tile: Tile) -> int:
        """How much of the rows that are read is turned before the next 16 rows: several vectors
        if each row lies in another page, which costs more than a line of it."""
        strides = [self.costs[0].stride(terms, tile.loop) for terms in self.costs[0].loads]
        furthest = max((abs(hint(n)) for n in strides if n is not None), default=0)
        squares = hint(self.root_size()) // LANES**2
        if furthest < PAGE or squares < MOST_CHUNKS * SQUARES_OF_PAGE:
            return LANES
        return LANES * SQUARES_OF_PAGE

    def grid_length(self, outer: list[int]) -> int:
        """How many of the outermost loops the grid takes: enough for all chunks."""
        total = 1
        for position, k in enumerate(outer):
            if total >= MOST_CHUNKS:
                return position
            total *= int(self.extents[k])
        return len(outer)

    def vector_block(self, vector: int, items: int) -> tuple[int, int] | None:
        """Cuts the vector loop into grid items when the other loops are too few for that."""
        n = int(self.extents[vector])
        if self.is_flat():
            length = self.extents[vector]
            shared = -(-length // MOST_CHUNKS // LANES) * LANES
            size = minimum(maximum(512, shared), 65_536)
            self.extents[vector] = as_argument(length)
            return self.new_loop(as_argument(-(-length // size))), as_argument(size)
        reduced = max(
            hint(nest.iterations) // max(hint(size_of(nest.extents[: self.root])), 1)
            for nest in self.tree.nests
        )
        shortest = LANES if reduced >= 16 else 512
        size = max(shortest, -(-n * int(items) // MOST_CHUNKS // LANES) * LANES)
        size = min(size, 65_536)
        if hint(items) >= MOST_CHUNKS // 2 or n <= size:
            return None
        return self.new_loop(-(-self.extents[vector] // size)), size

    def is_map(self) -> bool:
        """True if there are root loops only, and no reduction."""
        return all(n.op is None and n.rank == self.root for n in self.tree.nests)

    def is_flat(self) -> bool:
        """True if there is but one loop and no reduction: one kernel serves all its lengths."""
        nests = [*self.tree.nests, *self.tree.last]
        return self.root == 1 and all(len(n.extents) == 1 and n.op is None for n in nests)

    def copy(self, loops: Sequence[int], store: Store) -> Stmt:
        """The loops around a store of a load, the cheapest as the vector loop."""
        assert isinstance(store.value, Load)
        forms = [terms_of(e, self.extents) for e in (store.value.offset, store.offset)]

        def cost(loop: int) -> float:
            steps = sum(access_cost(terms.get(("i", loop), 0)) for terms in forms)
            return (steps + 2) * -(-self.extents[loop] // LANES) / self.extents[loop]

        vector = min(loops, key=cost)
        order = [*((k, "serial") for k in loops if k != vector), (vector, "vector")]
        (stmt,) = nested([self.serial_level(k, how) for k, how in order], [store])
        return stmt

    def serial_level(self, loop: int, how: str) -> Level:
        n = self.extents[loop]
        return Level((loop,), lambda body: For(loop, 0, n, how, body), (how, n))

    def vector_level(self, vector: int, block: tuple[int, int] | None) -> Level:
        n = self.extents[vector]
        if block is None:
            return self.serial_level(vector, "vector")
        loop, size = block
        start: Expr = ("mul", ("i", loop), size)
        stop: Expr = ("min", ("add", start, size), n)
        return Level((vector,), lambda body: For(vector, start, stop, "vector", body))

    def last_statements(self, body: Body) -> list[Stmt]:
        """What runs once at the end: the nests of `last`, without a grid."""
        if not self.tree.last:
            return []
        ending = Body(self, [], [], {}, body)
        for nest in self.tree.last:
            cost = VectorCost(nest)
            best = cost.best(cost.reduced if nest.lanes else range(nest.rank))
            vector = None if best is None else best[1]
            kept = [(k, "serial") for k in range(nest.rank) if k != vector]
            reduced = [(k, "serial") for k in cost.reduced if k != vector]
            wide = [] if vector is None else [(vector, "vector")]
            order = [*kept, *reduced, *wide] if nest.lanes else [*kept, *wide, *reduced]
            ending.add(nest, order, [])
        stages = [s for stage in ending.stages for s in stage.statements()]
        last: list[Stmt] = [Last("counter", [*ending.top, *stages])]
        name_repeats(last, ending.fresh)
        return last
