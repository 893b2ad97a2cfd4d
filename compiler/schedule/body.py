"""Where the statements of nests go: into which loops, and what stays in a register."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from metaop.extent import hint, require
from metaop.graph import identity_of, size_of
from metaop.index import (
    TRUE,
    Expr,
    conjunction,
    flatten,
    from_terms,
    integers_of,
    is_condition,
    loops_of,
    simplify,
    substitute,
    terms_of,
)

from ..loops import (
    LANES,
    MOST_COPIES,
    Apply,
    Check,
    Condition,
    Const,
    For,
    Grid,
    IndexValue,
    Init,
    Last,
    Let,
    Load,
    Op,
    Ref,
    Stmt,
    Store,
    Update,
    Value,
)
from ..nest import Buffer, Nest, dependencies
from ..staging import in_parts, parts_of
from .levels import ITERATION, Level, Stage
from .rewriting import map_nest

if TYPE_CHECKING:
    from .scheduler import Scheduler

LEAST_PAST, MOST_CACHED = 1 << 22, 1 << 25  # bytes of a result; of what caches may hold


def past_caches(target: Buffer, integers: dict[str, int]) -> Expr:
    """An integer that is not 0 if a result is larger than the caches; 0 for one that rarely is."""
    if target.role not in ("out", "tmp") or hint(target.nbytes) < LEAST_PAST:
        return 0
    name = f"past{len(integers)}"
    integers[name] = target.nbytes // MOST_CACHED
    return ("val", name)


class Body:
    """Places every value at the outermost level where it can be computed, nest after nest."""

    def __init__(
        self,
        scheduler: Scheduler,
        shared: list[Level],
        lanes: list[int],
        names: dict[str, Value],
        earlier: Body | None = None,
    ):
        self.scheduler, self.shared, self.lanes = scheduler, shared, lanes
        self.root = scheduler.root if earlier is None else 0
        self.names = names
        self.top: list[Stmt] = []
        self.stages: list[Stage] = []
        self.stage_of: dict[Buffer, int] = {}
        self.registers: dict[str, str] = {}  # buffer -> the name of its value in this iteration
        self.arrays: set[Buffer] = set() if earlier is None else earlier.arrays
        self.staged: list[Buffer] = [] if earlier is None else earlier.staged
        self.turned: dict[int, Expr] = {}  # of loops over pieces of a loop: what that is
        self.lanes_within: list[int] = []  # unrolled loops over one piece
        self.parts: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        self.scheduled: list[Nest] = [] if earlier is None else earlier.scheduled
        self.interned: dict[tuple, tuple[Value, int]] = {}  # and the stage where they are named
        self.count: int = 0 if earlier is None else earlier.count
        self.results: int = 0 if earlier is None else earlier.results
        self.level_of_loop = {k: d + 1 for d, level in enumerate(shared) for k in level.loops}
        self.level_of_loop[ITERATION] = len(shared)
        self.named_loops: dict[str, frozenset[int]] = {}
        for name, value in names.items():
            loops = frozenset(k for e in value.indices for k in loops_of(e))
            self.named_loops[name] = loops
            self.let_outside(name, loops, value)

    # -- one nest -----------------------------------------------------------------------------

    def add(self, nest: Nest, order: list[tuple[int, str]], start: list[Expr]) -> None:
        """Schedules a nest after those added before, into the loops of one of them if it can."""
        stage, nest = self.place_loops(nest, order, start)
        _Placement(self, stage, nest).run()

    def add_rows(self, nest: Nest, across: Level) -> None:
        """Schedules a sum of rows: its reduced loops around the one that runs along them."""
        order = [(k, "serial") for k in range(nest.rank, len(nest.extents))]
        kinds = [("serial", nest.extents[k]) for k, _ in order]
        made = max((self.stage_of.get(buffer, -1) for buffer in nest.reads), default=-1)
        later = range(made + 1, len(self.stages))  # than what makes a whole row that it reads
        alike = (k for k in later if [v.kind for v in self.stages[k].levels[:-1]] == kinds)
        number = next(alike, len(self.stages))
        if number == len(self.stages):
            loops = [self.scheduler.new_loop(nest.extents[k]) for k, _ in order]
            rows = [self.scheduler.serial_level(k, "serial") for k in loops]
            across = dataclasses.replace(across, before=[], after=[])
            self.stages.append(Stage([*rows, across], [], rows=True))
        stage = self.stages[number]
        self.stage_of[nest.target] = number
        nest = self.renumbered(nest, order, stage, [("i", k) for k in range(self.root)])
        stage.nests.append(nest)
        self.scheduled.append(nest)
        _Placement(self, stage, nest).run()

    def place_loops(
        self, nest: Nest, order: list[tuple[int, str]], start: list[Expr]
    ) -> tuple[Stage, Nest]:
        scheduler = self.scheduler
        kinds = [(how, nest.extents[k]) for k, how in order]
        number = self.find_stage(nest, order, kinds, start)
        if number is None:
            if self.scheduled or not self.shared or any(how == "turned" for _, how in order):
                loops = [scheduler.new_loop(nest.extents[k]) for k, _ in order]
            else:
                loops = [k for k, _ in order]
            levels = [self.level(new, how) for new, (_, how) in zip(loops, order)]
            self.stages.append(Stage(levels, []))
            number = len(self.stages) - 1
        stage = self.stages[number]
        nest = self.renumbered(nest, order, stage, start)
        stage.nests.append(nest)
        self.stage_of[nest.target] = number
        self.scheduled.append(nest)
        return stage, nest

    def level(self, loop: int, how: str) -> Level:
        """A loop of a nest; of a turned one, that over its pieces of 16."""
        scheduler = self.scheduler
        if how != "turned":
            return scheduler.serial_level(loop, how)
        extent = scheduler.extents[loop]
        require(extent, LANES)
        block, lane = scheduler.new_loop(-(-extent // LANES)), scheduler.new_loop(LANES)
        scheduler.unrolled[lane] = LANES
        level = dataclasses.replace(
            scheduler.serial_level(block, "serial"), kind=("turned", extent), before=[]
        )
        start: Expr = ("mul", ("i", block), LANES)
        if extent % LANES != 0:
            name = self.fresh()
            level.before.append(Let(name, (), IndexValue(("min", start, extent - LANES))))
            self.named_loops[name] = frozenset([block])
            start = ("val", name, (0, extent - LANES + 1))
        self.turned[block] = ("add", start, ("i", lane))
        self.lanes_within.append(lane)
        return level

    def renumbered(
        self, nest: Nest, order: list[tuple[int, str]], stage: Stage, start: list[Expr]
    ) -> Nest:
        """The nest in the loops of the kernel."""
        at: list[Expr] = [0] * len(nest.extents)
        at[: self.root] = start[: self.root]
        for (k, _), level in zip(order, stage.levels):
            (loop,) = level.loops
            at[k] = self.turned.get(loop, ("i", loop))
        extents = self.scheduler.extents
        plain = all(isinstance(e, tuple) and e[0] == "i" for e in at)

        def index(e: Expr) -> Expr:
            if plain or is_condition(e):
                return substitute(e, at)
            return from_terms(terms_of(substitute(e, at), extents))

        return map_nest(nest, index)

    def find_stage(
        self, nest: Nest, order: list[tuple[int, str]], kinds: list[tuple], start: list[Expr]
    ) -> int | None:
        """The stage whose loops the nest can share: same loops, data in common, and nothing it
        needs from a later iteration."""
        if not order or not self.stages:
            return None
        first = 0
        for buffer in nest.reads:
            if buffer in self.stage_of:
                first = max(first, self.stage_of[buffer])
        if any(self.stage_of.get(nest.target, -1) >= s for s in range(len(self.stages))):
            return None
        for number in range(first, len(self.stages)):
            stage = self.stages[number]
            if [level.kind for level in stage.levels] != kinds:
                continue
            if self.shares(self.renumbered(nest, order, stage, start), stage):
                return number
        return None

    def shares(self, nest: Nest, stage: Stage) -> bool:
        """True if the nest reads what the stage reads or writes, and what is written only where it
        has been written in the same iteration."""
        reads = {(v.buffer, v.offset) for v, _ in dependencies(nest) if isinstance(v, Load)}
        common = False
        for other in stage.nests:
            mine = [offset for name, offset in reads if nest.buffers[name] is other.target]
            if mine and (other.op is not None or any(offset != other.offset for offset in mine)):
                return False
            common = common or bool(mine)
            theirs = {(v.buffer, v.offset) for v, _ in dependencies(other) if isinstance(v, Load)}
            common = common or not reads.isdisjoint(theirs)
            if nest.target in other.reads:
                return False
        return common

    def turn_round(self) -> None:
        """Lets every other stage begin where the one before, which reads the same, has ended: what
        is left of that in a cache is read first."""
        known: set[Buffer] = set()
        reverse = True
        for stage in self.stages:
            used = {b for nest in stage.nests for b in (*nest.reads, nest.target)}
            if stage.is_free():
                reverse = not reverse if known & used else False
                stage.levels[0].reverse = reverse
                known = used

    # -- names --------------------------------------------------------------------------------

    def loops_over(self, loop: int, parts: tuple[int, ...]) -> list[int]:
        """The loops over the parts of a loop, the same for all that are divided alike."""
        if (loop, parts) not in self.parts:
            self.parts[loop, parts] = [self.scheduler.new_loop(n) for n in parts]
        return self.parts[loop, parts]

    def fresh(self) -> str:
        self.count += 1
        return f"x{self.count - 1}"

    def accumulator(self) -> str:
        """acc, acc1, acc2, …"""
        count = sum(nest.op is not None for nest in self.scheduled)
        return "acc" if count == 1 else f"acc{count - 1}"

    def depth(self, loops: frozenset[int], inner: dict[int, int]) -> int:
        return max(
            (d for k in loops if (d := self.level_of_loop.get(k, inner.get(k, 0)))), default=0
        )

    def dims(self, loops: frozenset[int]) -> tuple[int, ...]:
        return tuple(k for k in (*self.lanes, *self.lanes_within) if k in loops)

    def unroll(self, dims: tuple[int, ...], stmt: Stmt) -> Stmt:
        for k in reversed(dims):
            stmt = For(k, 0, ("val", f"unroll{k}"), "unroll", [stmt])
        return stmt

    def let_outside(self, name: str, loops: frozenset[int], value: Value) -> None:
        depth = self.depth(loops, {})
        target = self.shared[depth - 1].before if depth else self.top
        dims = self.dims(loops)
        target.append(self.unroll(dims, Let(name, dims, value)))


class _Placement:
    """Places the values of one nest, and its result."""

    def __init__(self, body: Body, stage: Stage, nest: Nest):
        self.body, self.stage, self.nest = body, stage, nest
        count = len(body.shared)
        self.inner = {k: count + d + 1 for d, level in enumerate(stage.levels) for k in level.loops}
        self.bottom = count + len(stage.levels)
        self.loops: dict[Value, frozenset[int]] = {}
        self.replaced: dict[Value, Value] = {}
        self.earlier = {one.target for one in body.scheduled}  # and of this nest itself

    def depth(self, loops: frozenset[int]) -> int:
        return self.body.depth(loops, self.inner)

    def run(self) -> None:
        nest = self.nest
        order = list(self.values())
        names = {v: n for n, v in nest.named.items()}
        shared = self.shared_values([v for v, _ in order])
        for value, loops in order:
            new = self.rebuilt(value)
            self.replaced[value] = new
            if isinstance(new, Ref) and not isinstance(value, Ref) and value not in names:
                continue
            if value in names:
                self.let(names[value], loops, new)
                self.body.named_loops[names[value]] = loops
            elif value in shared and not isinstance(value, Const | IndexValue | Condition):
                self.replaced[value] = self.shared_let(loops, new)
        self.result(self.replaced[nest.value])

    def values(self) -> Iterable[tuple[Value, frozenset[int]]]:
        """Every value with the loops that it varies with, arguments first."""
        body = self.body
        root = frozenset((ITERATION, *body.lanes))
        known = self.loops

        def visit(value: Value) -> Iterable[tuple[Value, frozenset[int]]]:
            if value in known:
                return
            for arg in value.args:
                yield from visit(arg)
            loops: frozenset[int] = frozenset()
            if self.register(value) is not None or self.written_before(value):
                loops = root
            for arg in value.args:
                loops |= known[arg]
            for e in value.indices:
                loops |= frozenset(loops_of(e))
                for name in integers_of(e):
                    loops |= body.named_loops.get(name, frozenset())
            known[value] = loops
            yield value, loops

        for name, value in self.nest.named.items():
            yield from visit(value)
            body.named_loops[name] = known[value]
        yield from visit(self.nest.value)

    def written_before(self, value: Value) -> bool:
        """True for a load of what an earlier nest of this kernel stores: it cannot move in front of
        all of them."""
        if not isinstance(value, Load):
            return False
        return self.nest.buffers[value.buffer] in self.earlier

    def register(self, value: Value) -> str | None:
        """The name that holds what a load of a result of this iteration reads."""
        if not isinstance(value, Load):
            return None
        return self.body.registers.get(self.nest.buffers[value.buffer].name)

    def rebuilt(self, value: Value) -> Value:
        if isinstance(value, Load) and value.guard == TRUE:
            made = self.stage.made.get((self.nest.buffers[value.buffer].name, value.offset))
            if made is not None:
                return made
        name = self.register(value)
        if isinstance(value, Load) and name is None:
            return self.staged(value)
        if name is not None:
            assert isinstance(value, Load)
            dims = self.body.dims(frozenset(self.body.lanes))
            found: Value = Ref(name, dims, value.dtype)
            if value.guard != TRUE:
                where = (Condition(value.guard), found, Const(value.fill, value.dtype))
                found = Op("where", where, value.dtype)
            return found
        return value.rebuild(tuple(self.replaced[a] for a in value.args), lambda e: e)

    def staged(self, load: Load) -> Load:
        """The load, or one of the same element in an array where the vector loop reads it in
        order."""
        scheduler, levels = self.body.scheduler, self.stage.levels
        if not levels or levels[-1].kind[:1] != ("vector",) or self.written_before(load):
            return load
        if self.body.dims(self.loops[load]):
            return load  # another array for each element of an unrolled loop
        (loop,) = levels[-1].loops
        parts = parts_of(load, loop, scheduler.extents)
        if parts is None:
            return load
        loops = self.body.loops_over(loop, parts)
        place = simplify(flatten([("i", k) for k in loops], parts), scheduler.extents)
        at: list[Expr] = [("i", k) for k in range(len(scheduler.extents))]
        at[loop] = place
        source = in_parts(load, at, loops, scheduler.extents)
        if source is None:
            return load
        key = (source.buffer, source.offset, source.guard, repr(source.fill))
        if key not in self.stage.staged:
            kind = self.nest.buffers[load.buffer].dtype
            target = Buffer(f"s{len(self.body.staged)}", kind, scheduler.extents[loop], "local")
            self.body.staged.append(target)
            self.stage.staged[key] = target
            around = self.before(self.depth(self.loops[load] - {loop}))
            around.append(scheduler.copy(loops, Store(target.name, place, source)))
        return Load(self.stage.staged[key].name, ("i", loop), TRUE, 0, load.dtype)

    def shared_values(self, order: list[Value]) -> set[Value]:
        """Values used twice, or by a value at a deeper level or with more unrolled loops."""
        body, nest = self.body, self.nest
        uses: dict[Value, int] = {}
        shared: set[Value] = set()
        own = self.loops[nest.value]
        result_loops = frozenset(body.lanes) if nest.op else own
        for value in order:
            here = self.loops[value]
            for arg in value.args:
                uses[arg] = uses.get(arg, 0) + 1
                there = self.loops[arg]
                if self.depth(there) < self.depth(here) or body.dims(there) != body.dims(here):
                    shared.add(arg)
        for value in self.operands(nest.value):
            there = self.loops[value]
            if self.depth(there) < self.bottom or body.dims(there) != body.dims(result_loops):
                shared.add(value)
        return shared | {key for key, count in uses.items() if count > 1}

    def operands(self, value: Value) -> tuple[Value, ...]:
        """What an update reads: both factors of a contraction, else the value."""
        if self.nest.contraction and isinstance(value, Op) and value.name == "mul":
            return value.args
        return (value,)

    def before(self, depth: int) -> list[Stmt]:
        """Where statements of a depth stand, before the next level."""
        count = len(self.body.shared)
        if depth == 0 and count:
            return self.body.top
        if depth == self.bottom > count:
            return self.after(depth)  # in the order of the nests that share the loop
        if depth < count:
            return self.body.shared[depth - 1].before
        return self.stage.before if depth == count else self.stage.levels[depth - count - 1].before

    def after(self, depth: int) -> list[Stmt]:
        count = len(self.body.shared)
        return self.stage.after if depth == count else self.stage.levels[depth - count - 1].after

    def let(self, name: str, loops: frozenset[int], value: Value) -> Ref:
        dims = self.body.dims(loops)
        place = self.before(self.depth(loops))
        place.append(self.body.unroll(dims, Let(name, dims, value)))
        return Ref(name, dims, value.dtype)

    def shared_let(self, loops: frozenset[int], value: Value) -> Value:
        """A name for a value; outside of the stage's loops one name for all nests."""
        if self.depth(loops) > len(self.body.shared):
            return self.let(self.body.fresh(), loops, value)
        key, number = _structure(value), self.body.stages.index(self.stage)
        known, since = self.body.interned.get(key, (None, 0))
        if known is None or since > number:
            known = self.let(self.body.fresh(), loops, value)
            self.body.interned[key] = (known, number)
        return known

    # -- results ------------------------------------------------------------------------------

    def result(self, value: Value) -> None:
        nest, body = self.nest, self.body
        if nest.scatter:
            self.stage_bottom().append(
                Store(nest.target.name, nest.offset, value, nest.op, nest.guard)
            )
        elif nest.op is None:
            self.mapped(value)
        elif self.stage.rows:
            self.added(value)
        else:
            self.reduced(value)
        if nest.target.role == "local" and nest.target.name not in body.registers:
            body.arrays.add(nest.target)

    def stage_bottom(self) -> list[Stmt]:
        return self.after(self.bottom)

    def mapped(self, value: Value) -> None:
        nest = self.nest
        if self.bottom == len(self.body.shared) and self.is_read_later() and not self.is_piece():
            self.register_result(value, self.stage.before)
            return
        dims = self.body.dims(self.loops[nest.value] | loops_of(nest.offset))
        if self.bottom > len(self.body.shared) and not dims and self.is_read_later():
            value = self.let(self.body.fresh(), frozenset(self.inner), value)
            self.stage.made[nest.target.name, nest.offset] = value
        guard = conjunction(nest.guard, nest.exists)
        store = Store(nest.target.name, nest.offset, value, None, guard)
        if not any(nest.target in other.reads for other in self.body.scheduler.tree.all_nests):
            store.past = past_caches(nest.target, self.body.scheduler.choices)
        self.stage_bottom().append(self.body.unroll(dims, store))

    def is_piece(self) -> bool:
        """True if the nest writes a part of a buffer, and others, here or elsewhere, the rest."""
        nests = self.body.scheduler.tree.nests
        return self.nest.piece or sum(n.target is self.nest.target for n in nests) > 1

    def is_read_later(self) -> bool:
        return self.nest.target.role == "local" or any(
            self.nest.target in other.reads for other in self.body.scheduler.tree.nests
        )

    def register_result(self, value: Value, place: list[Stmt]) -> None:
        """The result of an iteration of the root loops: a name for later nests, and a store."""
        nest, body = self.nest, self.body
        lanes = tuple(body.lanes)
        if not self.is_read_later():
            stored = Store(nest.target.name, nest.offset, value, None, nest.exists)
            place.append(body.unroll(lanes, stored))
            return
        name = f"r{body.results}"
        body.results += 1
        place.append(body.unroll(lanes, Let(name, lanes, value)))
        body.registers[nest.target.name] = name
        if nest.target.role != "local":
            result = Ref(name, lanes, value.dtype)
            stored = Store(nest.target.name, nest.offset, result, None, nest.exists)
            place.append(body.unroll(lanes, stored))

    def reduced(self, value: Value) -> None:
        nest, body = self.nest, self.body
        assert nest.op is not None
        lanes = tuple(body.lanes)
        name = body.accumulator()
        depth = self.depth_of_result()
        # a contraction's tile keeps the registers busy; by the result, however it is made or kept
        busy = nest.contraction and size_of(nest.target.shape) >= MOST_COPIES
        copies = 1 if busy else MOST_COPIES
        self.before(depth).append(
            body.unroll(lanes, Init(name, lanes, nest.op, value.dtype, copies))
        )
        update = Update(name, lanes, nest.op, (value,))
        if nest.contraction and isinstance(value, Op) and value.name == "mul":
            update = Update(name, lanes, "fma", value.args)
        update.guard = nest.guard
        self.stage_bottom().append(body.unroll(lanes, update))
        final: Value = Ref(name, lanes, value.dtype)
        if value.dtype is not nest.target.dtype:
            final = Op("cast", (final,), nest.target.dtype)
        place = self.after(depth)
        if depth == len(body.shared):
            self.register_result(final, place)
        else:
            store = Store(nest.target.name, nest.offset, final, None, nest.exists)
            place.append(body.unroll(lanes, store))

    def added(self, value: Value) -> None:
        """The sum of a row of results and another row, in memory."""
        nest = self.nest
        assert nest.op is not None
        start = Const(identity_of(nest.op, value.dtype), value.dtype)
        first = Store(nest.target.name, nest.offset, start)
        self.stage.before.append(self.stage.levels[-1].make([first]))
        one = Store(nest.target.name, nest.offset, value, nest.op, nest.guard)
        self.stage_bottom().append(one)

    def depth_of_result(self) -> int:
        """How many levels surround one result."""
        count = len(self.body.shared)
        kept = 0
        for level in self.stage.levels:
            if level.loops[0] in self.kept_loops():
                kept += 1
            else:
                break
        return count + kept

    def kept_loops(self) -> frozenset[int]:
        """The loops of the stage that are the result's own."""
        return loops_of(self.nest.offset)


def drop_stores(body: list[Stmt], buffers: set[str]) -> None:
    """Leaves out what nothing reads: every reader has got the value before it was stored."""
    body[:] = [stmt for stmt in body if not (isinstance(stmt, Store) and stmt.buffer in buffers)]
    for stmt in body:
        if isinstance(stmt, Grid | For | Last):
            drop_stores(stmt.body, buffers)


def _structure(value: Value) -> tuple:
    """Equal for values that compute the same."""
    match value:
        case Load():
            return ("load", value.buffer, value.offset, value.guard, repr(value.fill))
        case Const():
            return ("const", repr(value.value), value.dtype)
        case Ref():
            return ("ref", value.name, value.dims)
        case IndexValue() | Condition():
            return ("index", value.expr)
        case Check():
            return ("check", value.number, _structure(value.value))
        case Apply():
            args = map(_structure, value.args)
            return ("apply", value.function, value.dtype, value.number, value.guard, *args)
        case Op():
            return (value.name, value.dtype, *map(_structure, value.args))
    return (value,)
