"""schedule: from a tree of nests to a kernel: order of loops, tiles, the vector loops, the grid.

    out[i0, i1] = sum over i2 of a[i0*K + i2] * b[i2*N + i1]
 -> grid i0 tile, i1 block:
      vector i1:
        acc[tile] = 0
        serial i2:
          unroll tile: acc += a[…] * b[…]
        unroll tile: out[…] = acc

    m[i0] = max over i1 of x[i0*N + i1];  y[i0, i1] = x[i0*N + i1] - m[i0]     (one root loop)
 -> grid i0:
      acc = -inf;  vector i1: acc max= x[i0*N + i1];  m = acc
      vector i1: y[i0*N + i1] = x[i0*N + i1] - m

The order in which a reduction adds up depends on its nest alone, never on threads or on what
shares its kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from metaop import dtype as dt
from metaop.extent import Extent, guess, hint, maximum, minimum, require
from metaop.graph import identity_of, size_of
from metaop.index import (
    TRUE,
    Expr,
    Terms,
    conjunction,
    flatten,
    from_terms,
    integers_of,
    is_condition,
    loops_of,
    recalled,
    simplify,
    substitute,
    terms_of,
    transform,
    unflatten,
)

from .arguments import name_extents
from .ends import end_early
from .fetching import fetch_ahead
from .loops import (
    LANES,
    LONGEST_STEP,
    MOST_COPIES,
    Apply,
    Check,
    Condition,
    Const,
    Fetch,
    For,
    Grid,
    IndexValue,
    Init,
    Kernel,
    Last,
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
    loads_of,
    rewrite,
)
from .nest import Buffer, Nest, Tree, dependencies
from .repeats import name_repeats
from .staging import in_parts, parts_of

MOST_CHUNKS = 64
SMALL_WORK = 16_384  # evaluations that are not worth waking a second thread for
LITERAL_EXTENT = 32  # larger extents and offsets are arguments of the kernel
MOST_ACCUMULATORS = 16
LARGEST_TILE = 8
GATHER_COST = 8.0
BROADCAST_COST = 0.3
TURNED_COST = 3.0
PAGE = 1024  # elements; what is read of a page at a time, in squares of 16 x 16
SQUARES_OF_PAGE = 4
LEAST_PAST, MOST_CACHED = 1 << 22, 1 << 25  # bytes of a result; of what caches may hold
LEAST_ROW, LEAST_ROWS = 64, 1 << 20  # elements of a row, bytes of all rows that are added up whole
ITERATION = -1  # stands for all root loops among the loops that a value varies with


class Argument(int):
    """A number that is an argument of the kernel however small it is."""


def _argument(n: int) -> int:
    return n if isinstance(n, Extent) else Argument(n)


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
    return _Scheduler(collapse_tree(distinct_names(tree))).run(name)


def tree_of(nest: Nest) -> Tree:
    """The tree of one nest: iterations that write different results share nothing."""
    if not nest.scatter:
        return Tree(nest.rank, [nest])
    inner = [k for k in range(nest.rank) if k not in nest.parallel]
    order = [*nest.parallel, *inner]
    nest = permuted(nest, [*order, *range(nest.rank, len(nest.extents))])
    nest.parallel = tuple(range(len(nest.parallel)))
    return Tree(len(nest.parallel), [nest])


# ------------------------------------------------------------------------------- rewriting nests


def map_nest(nest: Nest, index: Callable[[Expr], Expr]) -> Nest:
    """The nest with every index expression mapped, each once."""
    memo: dict[Value, Value] = {}
    known: dict[Expr, Expr] = {}

    def once(e: Expr) -> Expr:
        found = known.get(e)
        if found is None:
            found = known[e] = index(e)
        return found

    return nest.having(
        named={n: rewrite(v, once, memo) for n, v in nest.named.items()},
        value=rewrite(nest.value, once, memo),
        offset=once(nest.offset),
        guard=once(nest.guard),
        exists=once(nest.exists),
        order=tuple(map(once, nest.order)),
        carried=tuple(map(once, nest.carried)),
    )


def permuted(nest: Nest, order: Sequence[int]) -> Nest:
    """The nest with its loops in another order: new loop p is loop order[p]."""
    at: list[Expr] = [0] * len(order)
    for position, k in enumerate(order):
        at[k] = ("i", position)
    new = map_nest(nest, lambda e: substitute(e, at))
    new.extents = [nest.extents[k] for k in order]
    if nest.parts is not None:
        new.parts = tuple(nest.parts[k] for k in order[: nest.rank])
    new.reads_at = [(n, tuple(substitute(e, at) for e in place)) for n, place in nest.reads_at]
    return new


def map_values(nest: Nest, change: Callable[[Value], Value]) -> Nest:
    """The nest with `change` applied to every value after its arguments."""
    memo: dict[Value, Value] = {}

    def visit(value: Value) -> Value:
        known = memo.get(value)
        if known is None:
            args = tuple(visit(a) for a in value.args)
            known = memo[value] = change(value.rebuild(args, lambda e: e))
        return known

    named = {name: visit(value) for name, value in nest.named.items()}
    return nest.having(named=named, value=visit(nest.value))


def runs_across(tree: Tree) -> bool:
    """True if a root loop is the vector loop, so that 16 iterations of it run side by side."""
    return _Scheduler(collapse_tree(tree)).choose_root_vector() is not None


def vector_of_root(tree: Tree) -> int | None:
    """The root loop of `runs_across`, None if there is none."""
    if not runs_across(tree):
        return None
    return _Scheduler(dataclasses.replace(tree, across=True)).choose_root_vector()


def distinct_names(tree: Tree) -> Tree:
    """The tree with the names of integers and checks numbered through its nests."""
    count = checks = 0
    nests: list[Nest] = []
    for nest in tree.all_nests:
        names = {name: f"t{count + k}" for k, name in enumerate(nest.named)}
        names |= {name: f"check{checks + k}" for k, name in enumerate(nest.checks)}
        count += len(nest.named)
        checks += len(nest.checks)
        nests.append(_renamed(nest, names))
    count_of_nests = len(tree.nests)
    return Tree(tree.root, nests[:count_of_nests], nests[count_of_nests:], tree.across)


def _renamed(nest: Nest, names: dict[str, str]) -> Nest:
    called = {name: buffer.name for name, buffer in nest.buffers.items()}
    if all(old == new for old, new in (names | called).items()):
        return nest

    def leaf(e: Expr) -> Expr | None:
        if isinstance(e, tuple) and e[0] == "val":
            return ("val", names.get(e[1], e[1]), *e[2:])
        return None

    def change(value: Value) -> Value:
        value = value.rebuild(value.args, lambda e: transform(e, leaf))
        match value:
            case Load():
                return Load(
                    called[value.buffer], value.offset, value.guard, value.fill, value.dtype
                )
            case Check():
                number = transform(value.number, leaf)
                return Check(value.value, value.low, value.high, number, value.guard)
            case Apply():
                number = transform(value.number, leaf)
                return Apply(value.function, value.args, number, value.guard, value.dtype)
        return value

    new = map_values(nest, change)
    return new.having(
        named={names[n]: v for n, v in new.named.items()},
        checks={names[n]: site for n, site in nest.checks.items()},
        buffers={b.name: b for b in nest.buffers.values()},
        reads_at=[(called[n], at) for n, at in nest.reads_at],
        offset=transform(nest.offset, leaf),
        guard=transform(nest.guard, leaf),
        exists=transform(nest.exists, leaf),
    )


# --------------------------------------------------------------------------------- collapse loops


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
    opaque = _opaque_terms(forms) | loops_of(nest.guard) | loops_of(nest.exists)
    for value, _ in dependencies(nest):
        for e in value.indices:
            if is_condition(e):
                opaque |= loops_of(e)
    return opaque


def collapse(nest: Nest) -> Nest:
    """A nest by itself with its loops collapsed."""
    return collapse_tree(tree_of(nest)).nests[0]


def collapse_tree(tree: Tree) -> Tree:
    """Merges adjacent loops that every access walks as one, and drops loops of extent one.

    for i0 < 256: for i1 < 576: y[i0*576 + i1]   ->   for i1 < 147456: y[i1]

    Root loops are merged in all nests alike.  For a reduction the accesses are those that decide
    its order; another access may then need the parts of the merged loop, i1 // 576 and i1 % 576.
    A map is made to run in the loops of a reduction of its tree where its store alone allows it.
    """
    each = [_Collapse(nest, tree.root) for nest in tree.nests]
    reductions = {tuple(one.inside()): None for one in each if one.nest.op is not None}
    for position, one in enumerate(each):
        if one.nest.op is None and tuple(one.inside()) not in reductions:
            whole = _Collapse(one.nest, tree.root, merged=False)
            if any(whole.adopt(extents) for extents in reductions):
                each[position] = whole
    roots = [k for k in range(tree.root) if tree.nests[0].extents[k] != 1]
    for outer, inner in reversed(list(pairwise(roots))):
        if all(one.walks_as_one(outer, inner) for one in each):
            for one in each:
                one.merge(outer, inner)
    last = [_Collapse(nest, 0) for nest in tree.last]
    nests = [one.finished() for one in each]
    root = sum(n != 1 for n in each[0].extents[: tree.root])
    return Tree(root, nests, [one.finished() for one in last], tree.across)


class _Collapse:
    """The loops of one nest while they are merged."""

    def __init__(self, nest: Nest, root: int, merged: bool = True):
        self.nest, self.root = nest, root
        self.extents = list(nest.extents)
        if nest.order:
            self.forms = [terms_of(e, nest.extents) for e in (nest.offset, *nest.order)]
            self.opaque = _opaque_terms(self.forms)
        else:
            self.forms = [terms_of(e, nest.extents) for e in accesses(nest)]
            self.opaque = opaque_loops(nest, self.forms)
        self.owner: dict[int, int] = {}  # of a merged loop: the one that it became part of
        live = [k for k, n in enumerate(nest.extents) if n != 1]
        inner = [k for k in live if root <= k < nest.rank]
        for group in (inner, [k for k in live if k >= nest.rank]) if merged else ():
            for outer, second in reversed(list(pairwise(group))):
                if self.walks_as_one(outer, second):
                    self.merge(outer, second)

    def inside(self) -> list[int]:
        """The extents of the loops that are left inside the root loops."""
        return [n for n in self.extents[self.root :] if n != 1]

    def adopt(self, extents: Sequence[int]) -> bool:
        """Merges loops of a map to those extents, if the store walks each group as one."""
        live = [k for k in range(self.root, len(self.extents)) if self.extents[k] != 1]
        pairs: list[tuple[int, int]] = []
        for wanted in extents:
            if not live:
                return False
            group = [live.pop(0)]
            total = self.extents[group[0]]
            while live and total != wanted:
                total *= self.extents[live[0]]
                group.append(live.pop(0))
            if total != wanted:
                return False
            pairs += pairwise(group)
        store = terms_of(self.nest.offset, self.nest.extents)
        if live or self.nest.scatter or _opaque_terms([store]):
            return False
        for outer, inner in pairs:
            ratio = store.get(("i", outer), 0), store.get(("i", inner), 0) * self.extents[inner]
            if ratio[0] != ratio[1]:
                return False
        for outer, inner in reversed(pairs):
            self.merge(outer, inner)
        return True

    def walks_as_one(self, outer: int, inner: int) -> bool:
        if outer in self.opaque or inner in self.opaque or self.nest.scatter:
            return False
        n = self.extents[inner]
        return all(
            terms.get(("i", outer), 0) == terms.get(("i", inner), 0) * n for terms in self.forms
        )

    def merge(self, outer: int, inner: int) -> None:
        for terms in self.forms:
            coefficient = terms.pop(("i", inner), 0)
            terms.pop(("i", outer), None)
            if coefficient != 0:
                terms[("i", outer)] = coefficient
        self.extents[outer] *= self.extents[inner]
        self.extents[inner] = 1
        self.owner[inner] = outer

    def first_of(self, loop: int) -> int:
        while loop in self.owner:
            loop = self.owner[loop]
        return loop

    def finished(self) -> Nest:
        """The nest over the loops that are left, numbered from 0."""
        nest, extents = self.nest, self.extents
        live = [k for k, n in enumerate(extents) if n != 1]
        number = {k: position for position, k in enumerate(live)}
        new_extents = [extents[k] for k in live]
        at: list[Expr] = [("i", number[k]) if k in number else 0 for k in range(len(extents))]
        for first in set(self.owner.values()) - set(self.owner):
            parts = [k for k in range(len(extents)) if self.first_of(k) == first]
            merged = unflatten(at[first], [nest.extents[k] for k in parts])
            for k, part in zip(parts, merged):
                at[k] = part

        def index(e: Expr) -> Expr:
            return simplify(substitute(e, at), new_extents)

        new = map_nest(nest, index)
        new.extents = new_extents
        new.rank = sum(k < nest.rank for k in live)
        new.parallel = tuple(number[k] for k in nest.parallel if k in number)
        new.parts = None
        return new


# ------------------------------------------------------------------------- costs of vector loops


class VectorCost:
    """What one evaluation of a nest costs if a loop runs 16 lanes wide."""

    def __init__(self, nest: Nest):
        self.nest = nest
        self.value_loops = dependencies(nest)
        order = nest.order or tuple(accesses(nest)[1:])
        self.loads = [terms_of(e, nest.extents) for e in order]
        self.store = terms_of(nest.offset, nest.extents)
        self.reduced = range(nest.rank, len(nest.extents))
        self.repeats = max(1, hint(size_of(nest.extents[nest.rank :])))

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

    def stride(self, terms: Terms, loop: int) -> int | None:
        """How far one step of a loop moves an access; None if not by a fixed distance."""
        for atom in terms:
            if atom is not None and atom[0] != "i" and self.depends(atom, loop):
                return None
        return terms.get(("i", loop), 0)

    def __call__(self, loop: int) -> float:
        cost = sum(_access_cost(self.stride(t, loop)) for t in self.loads) + 0.5
        if loop in self.reduced:
            cost += 8.0 / self.repeats
        elif self.turned(loop, range(self.nest.rank)) is not None:
            cost += TURNED_COST
        else:
            cost += _access_cost(self.stride(self.store, loop)) / self.repeats
        n = max(int(self.nest.extents[loop]), 1)
        return cost / (n / (LANES * -(-n // LANES)))

    def turned(self, vector: int, loops: Iterable[int]) -> int | None:
        """One of some loops along which a map writes elements in order, if along the vector loop
        it does not: then 16 iterations of both are a square that is turned in registers."""
        nest = self.nest
        plain = nest.op is None and not (nest.scatter or nest.named or nest.checks)
        if not plain or nest.guard != TRUE or nest.exists != TRUE:
            return None
        stride = self.stride(self.store, vector)
        if stride is None or 0 <= stride <= LONGEST_STEP:
            return None
        for loop in loops:
            if loop != vector and self.stride(self.store, loop) == 1:
                return loop if guess(nest.extents[loop]) >= LANES else None
        return None

    def scalar(self) -> float:
        """The cost with no vector loop."""
        return (len(self.loads) + 1) * LANES

    def best(self, loops: Iterable[int]) -> tuple[float, int] | None:
        """The cheapest of some loops, inner ones first among equals."""
        found: tuple[float, int] | None = None
        for loop in sorted(loops, reverse=True):
            cost = self(loop)
            if found is None or cost < found[0] - 1e-9:
                found = (cost, loop)
        return found


def _access_cost(stride: int | None) -> float:
    """In whole vectors that are read or written one after the other."""
    if stride == 0:
        return BROADCAST_COST
    if stride is None or not 1 <= stride <= LONGEST_STEP:
        return GATHER_COST
    return 1.0 if stride == 1 else stride + 0.5


def adds_in_lanes(nest: Nest) -> bool:
    """Whether a reduction adds up in lanes over a reduced loop, by what the nest is by itself."""
    if nest.op is None or nest.scatter:
        return False
    if nest.named or not nest.order:
        return _adds_in_lanes(nest)
    key = (adds_in_lanes, tuple(nest.extents), nest.rank, nest.offset, nest.order)
    return recalled(key, lambda: _adds_in_lanes(nest))  # what decides is the same in equal layers


def _adds_in_lanes(nest: Nest) -> bool:
    alone = collapse(nest)
    cost = VectorCost(alone)
    reduced = cost.best(cost.reduced)
    kept = cost.best(range(alone.rank))
    return reduced is not None and (kept is None or kept[0] >= reduced[0] - 1e-9)


def past_caches(target: Buffer, integers: dict[str, int]) -> Expr:
    """An integer that is not 0 if a result is larger than the caches; 0 for one that rarely is."""
    if target.role not in ("out", "tmp") or hint(target.nbytes) < LEAST_PAST:
        return 0
    name = f"past{len(integers)}"
    integers[name] = target.nbytes // MOST_CACHED
    return ("val", name)


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
    kind: tuple = ()  # equal kinds can share a loop
    reverse: bool = False
    before: list[Stmt] = field(default_factory=list)
    after: list[Stmt] = field(default_factory=list)

    def around(self, body: list[Stmt]) -> Stmt:
        """The loop with everything in it."""
        stmt = self.make([*self.before, *body, *self.after])
        if self.reverse:
            assert isinstance(stmt, For)
            stmt.how = "reverse"
        return stmt


@dataclass(eq=False)
class Stage:
    """Nests that share the loops inside one iteration of the root loops."""

    levels: list[Level]
    nests: list[Nest]
    before: list[Stmt] = field(default_factory=list)
    after: list[Stmt] = field(default_factory=list)
    made: dict[tuple[str, Expr], Value] = field(default_factory=dict)  # in this iteration
    staged: dict[tuple, Buffer] = field(default_factory=dict)  # see `staging`
    rows: bool = False  # see `_Scheduler.adds_rows`

    def is_free(self) -> bool:
        """True if its outer loop, around another, may run in any order."""
        if len(self.levels) < 2 or self.levels[0].kind[:1] != ("serial",):
            return False
        (loop,) = self.levels[0].loops
        return all(nest.op is None or loop in loops_of(nest.offset) for nest in self.nests)

    def statements(self) -> list[Stmt]:
        """The stage as it runs."""
        return [*self.before, *_nested(self.levels, []), *self.after]


def _nested(levels: Sequence[Level], inner: list[Stmt]) -> list[Stmt]:
    for level in reversed(levels):
        inner = [level.around(inner)]
    return inner


class _Scheduler:
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
        body = _Body(self, shared, [t.lane for t in tiles], names)
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
        whole = [*body.top, *_nested(shared, inner)]
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
        body = _Body(self, shared, [], {})
        for nest in self.tree.nests:
            body.add_rows(nest, across)
        inner = [stmt for stage in body.stages for stmt in stage.statements()]
        whole = [*body.top, *_nested(shared, inner)]
        end_early(whole, self.extents)
        name_repeats(whole, body.fresh)
        return self.finish(name, whole, body, items)

    def finish(self, name: str, body_of_kernel: list[Stmt], body: _Body, items: int) -> Scheduled:
        """The kernel with its arguments: what is read, what is written, integers."""
        tree = self.tree
        made = dict.fromkeys(n.target for n in tree.nests if n.target in body.arrays)
        arrays = [*made, *body.staged]
        read = {load.buffer for load in loads_of(body_of_kernel)}
        unread = {b.name for b in arrays} - read
        arrays = [b for b in arrays if b.name not in unread]
        _drop_stores(body_of_kernel, unread)
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
        _name_integers(kernel, integers)
        kernel.integers = list(integers)
        indices = [e for nest in body.scheduled for e in _indices_of(nest)]
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
            self.extents[vector] = _argument(length)
            return self.new_loop(_argument(-(-length // size))), _argument(size)
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
            steps = sum(_access_cost(terms.get(("i", loop), 0)) for terms in forms)
            return (steps + 2) * -(-self.extents[loop] // LANES) / self.extents[loop]

        vector = min(loops, key=cost)
        order = [*((k, "serial") for k in loops if k != vector), (vector, "vector")]
        (stmt,) = _nested([self.serial_level(k, how) for k, how in order], [store])
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

    def last_statements(self, body: _Body) -> list[Stmt]:
        """What runs once at the end: the nests of `last`, without a grid."""
        if not self.tree.last:
            return []
        ending = _Body(self, [], [], {}, body)
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


class _Body:
    """Places every value at the outermost level where it can be computed, nest after nest."""

    def __init__(
        self,
        scheduler: _Scheduler,
        shared: list[Level],
        lanes: list[int],
        names: dict[str, Value],
        earlier: _Body | None = None,
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

    def __init__(self, body: _Body, stage: Stage, nest: Nest):
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


def _drop_stores(body: list[Stmt], buffers: set[str]) -> None:
    """Leaves out what nothing reads: every reader has got the value before it was stored."""
    body[:] = [stmt for stmt in body if not (isinstance(stmt, Store) and stmt.buffer in buffers)]
    for stmt in body:
        if isinstance(stmt, Grid | For | Last):
            _drop_stores(stmt.body, buffers)


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


def _indices_of(nest: Nest) -> list[Expr]:
    """Every index expression of a nest."""
    values = (value for value, _ in dependencies(nest))
    return [nest.offset, nest.guard, nest.exists, *(e for v in values for e in v.indices)]


def _name_integers(kernel: Kernel, integers: dict[str, int]) -> None:
    """Makes large extents and offsets arguments, so that other sizes use the same code."""
    _Integers(kernel, integers).run()


class _Integers:
    """Large extents and offsets become arguments, and every number that is an Argument."""

    def __init__(self, kernel: Kernel, integers: dict[str, int]):
        self.kernel, self.integers = kernel, integers
        self.named: dict[int, Expr] = {}  # by identity: the same Argument is one argument
        self.kept: list[int] = []

    def name(self, prefix: str, value: int) -> Expr:
        known = self.named.get(id(value)) if type(value) is not int else None
        if known is None:
            name = f"{prefix}{sum(n[0] == prefix for n in self.integers)}"
            self.integers[name] = value
            known = ("val", name)
            if type(value) is not int:
                self.named[id(value)] = known
                self.kept.append(value)
        return known

    def run(self) -> None:
        memo: dict[Value, Value] = {}
        self.body(self.kernel.body, memo)

    def arguments(self, e: Expr) -> Expr:
        """e with its Arguments named."""
        return transform(e, self.argument)

    def argument(self, e: Expr) -> Expr | None:
        return self.name("n", e) if isinstance(e, int) and type(e) is not int else None

    def extent(self, e: Expr) -> Expr:
        if isinstance(e, int):
            return self.name("n", e) if e > LITERAL_EXTENT or type(e) is not int else e
        e = self.arguments(e)
        if e[0] == "min" and isinstance(e[2], int) and e[2] > LITERAL_EXTENT:
            return ("min", e[1], self.name("n", e[2]))
        return e

    def offset(self, e: Expr) -> Expr:
        e = self.arguments(e)
        if isinstance(e, int):
            return self.name("o", e) if e else e
        match e:
            case ("add", inner, int() as c):
                return ("add", inner, self.name("o", c))
            case ("sub", inner, int() as c):
                return ("sub", inner, self.name("o", c))
        return e

    def value(self, value: Value, memo: dict[Value, Value]) -> Value:
        known = memo.get(value)
        if known is None:
            args = tuple(self.value(a, memo) for a in value.args)
            known = value.rebuild(args, self.arguments)
            if isinstance(known, Load):
                known = Load(known.buffer, self.offset(known.offset), known.guard, known.fill,
                             known.dtype)  # fmt: skip
            elif isinstance(known, IndexValue):
                known = IndexValue(self.bound(known.expr))
            memo[value] = known
        return known

    def bound(self, e: Expr) -> Expr:
        """The last tile's start is an argument too."""
        if isinstance(e, tuple) and e[0] == "min" and isinstance(e[2], int):
            return self.extent(e)
        return e

    def body(self, body: list[Stmt], memo: dict[Value, Value]) -> None:
        for stmt in body:
            match stmt:
                case Grid():
                    stmt.extents = tuple(self.extent(e) for e in stmt.extents)
                    self.body(stmt.body, memo)
                case Last():
                    self.body(stmt.body, memo)
                case For():
                    stmt.start = self.arguments(stmt.start)
                    stmt.stop = self.stop(stmt)
                    self.body(stmt.body, memo)
                case Let():
                    stmt.value = self.value(stmt.value, memo)
                case Update():
                    stmt.values = tuple(self.value(v, memo) for v in stmt.values)
                    stmt.guard = self.arguments(stmt.guard)
                case Fetch():
                    stmt.offset = self.offset(stmt.offset)
                case Store():
                    stmt.offset = self.offset(stmt.offset)
                    stmt.value = self.value(stmt.value, memo)
                    stmt.guard = self.arguments(stmt.guard)

    def stop(self, stmt: For) -> Expr:
        if stmt.how == "unroll":
            return self.kernel.extents[stmt.loop]
        return self.extent(stmt.stop)
