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

The order of additions depends on extents, index maps and the target's registers: k in order (dot:
16 sums side by side, added up in a fixed tree at the end) within a block, then block after block.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from metaop import dtype as dt
from metaop.dtype import DType
from metaop.extent import Extent, hint, minimum, recording_guards
from metaop.index import (
    TRUE,
    Expr,
    Terms,
    children,
    conjunction,
    conjuncts,
    from_terms,
    interval,
    is_condition,
    loops_of,
    simplify,
    substitute,
    terms_of,
    unflatten,
)

from .arguments import name_extents
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
    integers_of,
    rewrite,
    statements,
    values_of,
    walk,
)
from .nest import Buffer, Nest, Tree, dependencies
from .schedule import (
    LITERAL_EXTENT,
    MOST_CHUNKS,
    Scheduled,
    distinct_names,
    map_nest,
)

IndexMap = Callable[[Expr], Expr]


@dataclass(eq=False)
class Plan:
    """The kernels of a contraction in the order of their phases (packing first), and the
    temporaries that they hand on."""

    launches: list[Scheduled]
    temporaries: list[Buffer]
    blocks: Blocks
    nest: Nest
    tree: Tree


# ----------------------------------------------------------------------------------- classification


@dataclass(eq=False)
class Factor:
    """One factor of the product: 0 where the guard does not hold."""

    value: Value
    guard: Expr
    access: Terms  # where it lies in memory, were what it is made of stored

    @functools.cached_property
    def guarded(self) -> bool:
        """True if something is not read everywhere."""
        return any(v.guard != TRUE for v in walk(self.value) if isinstance(v, Load))

    def span(self, extents: Sequence[int]) -> int:
        """The elements between the first and the last that are read, were it stored."""
        distance = 1
        for atom, step in self.access.items():
            if atom is not None and atom[0] == "i":
                distance += abs(hint(step)) * (hint(extents[atom[1]]) - 1)
        return distance

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
    whole: Expr = TRUE  # the part of the guard that whole blocks have in common
    ends: dict[int, tuple[Expr, Expr]] = field(default_factory=dict)
    # loops of k that end earlier for some of the batch: (end, the part of the guard that says so)

    def size(self, loops: Sequence[int]) -> int:
        """The number of iterations of some loops."""
        total = 1
        for loop in loops:
            total *= self.nest.extents[loop]
        return total


def prepared(nest: Nest) -> tuple[Nest, Expr]:
    """The nest without loops of extent one, and loops that a division tells apart cut in two;
    with the condition that a result exists (where the parts of a loop overhang)."""
    live = [k for k, n in enumerate(nest.extents) if n != 1]
    at: list[Expr] = [("i", live.index(k)) if k in live else 0 for k in range(len(nest.extents))]
    nest = _renumbered(nest, at, [nest.extents[k] for k in live], sum(k < nest.rank for k in live))
    exists: Expr = TRUE
    for _ in range(MOST_SPLITS):
        found = _divided_loop(nest)
        if found is None:
            break
        loop, divisor = found
        nest, exists = _split_loop(nest, loop, divisor, exists)
    return nest, exists


MOST_SPLITS = 6


def _renumbered(nest: Nest, at: list[Expr], extents: list[int], rank: int) -> Nest:
    new = map_nest(nest, lambda e: simplify(substitute(e, at), extents))
    new.extents, new.rank = extents, rank
    return new


def _split_loop(nest: Nest, loop: int, divisor: int, exists: Expr) -> tuple[Nest, Expr]:
    """i -> d * high + low: the residue classes of a strided gradient, the groups of a channel."""
    n = nest.extents[loop]
    extents = [*nest.extents[:loop], -(-n // divisor), divisor, *nest.extents[loop + 1 :]]
    at: list[Expr] = [("i", k + (k > loop)) for k in range(len(nest.extents))]
    at[loop] = ("add", ("mul", ("i", loop), divisor), ("i", loop + 1))
    new = _renumbered(nest, at, extents, nest.rank + (loop < nest.rank))
    exists = simplify(substitute(exists, at), extents)
    if n % divisor == 0:
        return new, exists
    inside: Expr = ("lt", at[loop], n)
    new = replace(new, value=_guarded_at(new.value, {loop, loop + 1}, inside, {}))
    if loop < nest.rank:
        return new, conjunction(exists, inside)
    return replace(new, guard=conjunction(new.guard, inside)), exists


def _guarded_at(value: Value, loops: set[int], guard: Expr, memo: dict[int, Value]) -> Value:
    """value with the guard on what reads at all of these loops."""
    if id(value) not in memo:
        args = tuple(_guarded_at(a, loops, guard, memo) for a in value.args)
        new = value.rebuild(args, lambda e: e)
        if isinstance(new, Load) and loops <= loops_of(new.offset):
            both = conjunction(new.guard, guard)
            new = Load(new.buffer, new.offset, both, new.fill, new.dtype)
        memo[id(value)] = new
    return memo[id(value)]


def _divided_loop(nest: Nest) -> tuple[int, int] | None:
    """A loop that occurs plainly in a dividend, and the divisor."""
    found = [nest.offset, nest.guard]
    for value, _ in dependencies(nest):
        found.extend(value.indices)
    for e in found:
        for inner, divisor in _divisions(e):
            terms = terms_of(inner, nest.extents)
            loops = [a[1] for a, c in terms.items() if a is not None and a[0] == "i" and c == 1]
            if len(loops) == 1 and nest.extents[loops[0]] > divisor:
                return loops[0], divisor
    return None


def _divisions(e: Expr) -> list[tuple[Expr, int]]:
    if isinstance(e, int) or e[0] in ("i", "val"):
        return []
    found = [d for part in children(e) for d in _divisions(part)]
    if e[0] in ("floordiv", "mod") and isinstance(e[2], int):
        found.append((e[1], e[2]))
    return found


def classify(nest: Nest, exists: Expr = TRUE) -> Contraction | None:
    """The classes of a nest's loops, None if it is no contraction with both M and N."""
    value = nest.value
    if not nest.contraction or nest.scatter or nest.named or nest.checks:
        return None
    if not isinstance(value, Op) or value.name != "mul" or not nest.order:
        return None
    if value.dtype not in (dt.float32, dt.float64):
        return None
    nest = _relaxed(nest)
    assert isinstance(nest.value, Op)
    loops_by_value = {id(v): loops for v, loops in dependencies(nest)}
    first, second = (loops_by_value[id(v)] for v in nest.value.args)
    rank, count = nest.rank, len(nest.extents)
    batch = [k for k in range(rank) if (k in first) == (k in second)]
    sides = [[k for k in range(rank) if k not in batch and k in f] for f in (first, second)]
    whole, partly = _whole_parts(nest.guard, batch)
    ends, partly = _earlier_ends(partly, batch, nest)
    guards = _guards(partly, [first | set(batch), second | set(batch)])
    if guards is None or not sides[0] or not sides[1] or rank == count:
        return None
    implied = [part for _, part in ends.values()]
    nest = replace(nest, value=_without(nest.value, implied, {}))
    assert isinstance(nest.value, Op)
    accesses = [terms_of(e, nest.extents) for e in nest.order]
    factors = [Factor(*found) for found in zip(nest.value.args, guards, accesses)]
    if _contiguous_loop(nest, sides[0] + sides[1]) in sides[0]:
        sides.reverse()
        factors.reverse()
    k = list(range(rank, count))
    a, b = factors
    return Contraction(nest, batch, sides[0], sides[1], k, a, b, exists, whole, ends)


def _contiguous_loop(nest: Nest, loops: list[int]) -> int:
    """The loop with the shortest step through the memory of the result."""
    terms = terms_of(nest.offset, nest.extents)
    return min(loops, key=lambda k: (abs(terms.get(("i", k), 0)) or 1 << 62, -k))


def _whole_parts(guard: Expr, batch: list[int]) -> tuple[Expr, list[Expr]]:
    """What the guard says about the loops of the batch alone, and its other parts."""
    whole: Expr = TRUE
    partly = []
    for part in conjuncts(guard):
        if loops_of(part) <= set(batch):
            whole = conjunction(whole, part)
        else:
            partly.append(part)
    return whole, partly


def _earlier_ends(
    parts: list[Expr], batch: list[int], nest: Nest
) -> tuple[dict[int, tuple[Expr, Expr]], list[Expr]]:
    """Loops of k that a guard ends early, as a residue class has fewer taps than another one:
    q * 2 + b < 3 ends q at (3 - b + 1) // 2; and the other parts of the guard."""
    ends: dict[int, tuple[Expr, Expr]] = {}
    others = []
    for part in parts:
        summed = [k for k in loops_of(part) if k >= nest.rank]
        if part[0] != "lt" or len(summed) != 1 or not loops_of(part) <= {*summed, *batch}:
            others.append(part)
            continue
        loop, extent = summed[0], nest.extents[summed[0]]
        room = dict(terms_of(("sub", part[2], part[1]), nest.extents))
        step = -room.pop(("i", loop), 0)
        if step <= 0 or any(a is not None and loop in loops_of(a) for a in room) or loop in ends:
            others.append(part)
            continue
        end = ("floordiv", ("add", from_terms(room), step - 1), step)
        ends[loop] = (("max", 0, ("min", simplify(end, nest.extents), extent)), part)
    return ends, others


def _guards(parts: list[Expr], loops: list[frozenset[int] | set[int]]) -> list[Expr] | None:
    """The parts of a guard by factor, None if one concerns both at once."""
    guards: list[Expr] = [TRUE, TRUE]
    for part in parts:
        found = [loops_of(part) <= own for own in loops]
        if not any(found):
            return None
        guards = [conjunction(g, part) if f else g for g, f in zip(guards, found)]
    return guards


def _relaxed(nest: Nest) -> Nest:
    """The nest with loads guarded by no more than keeps them inside their buffers.

    What the nest's guard excludes is not added up, so it does not matter what a factor is there:
    a[o - r] * w[r] if 0 <= o - r needs the condition around a only, and w varies with r only.
    """
    known = conjuncts(nest.guard)
    memo: dict[int, Value] = {}

    def visit(value: Value) -> Value:
        if id(value) not in memo:
            new = value.rebuild(tuple(visit(a) for a in value.args), lambda e: e)
            if isinstance(new, Load):
                guard = _needed(new, known, nest.extents)
                new = Load(new.buffer, new.offset, guard, new.fill, new.dtype)
            memo[id(value)] = new
        return memo[id(value)]

    return replace(nest, value=visit(nest.value)) if known else nest


def _without(value: Value, parts: list[Expr], memo: dict[int, Value]) -> Value:
    """value with loads not guarded by these parts."""
    if id(value) not in memo:
        new = value.rebuild(tuple(_without(a, parts, memo) for a in value.args), lambda e: e)
        if isinstance(new, Load) and parts:
            guard: Expr = TRUE
            for part in conjuncts(new.guard):
                guard = guard if part in parts else conjunction(guard, part)
            new = Load(new.buffer, new.offset, guard, new.fill, new.dtype)
        memo[id(value)] = new
    return memo[id(value)]


def _needed(load: Load, known: list[Expr], extents: Sequence[int]) -> Expr:
    parts = conjuncts(load.guard)
    loops = {k for p in parts for k in loops_of(p)} - loops_of(load.offset)
    for loop in sorted(loops):
        about = [p for p in parts if loop in loops_of(p)]
        if all(p in known for p in about) and _satisfiable(about, loop, extents):
            parts = [p for p in parts if p not in about]
    guard: Expr = TRUE
    for part in parts:
        guard = conjunction(guard, part)
    return guard


def _satisfiable(parts: list[Expr], loop: int, extents: Sequence[int]) -> bool:
    """True if for all values of the other loops there is one of this loop that meets all parts.

    So these parts say nothing about the other loops.
    """
    lows: list[Terms] = [{}]  # every part as low <= loop or loop <= high
    highs: list[Terms] = [{None: extents[loop] - 1}]
    for part in parts:
        if part[0] not in ("le", "lt"):
            return False
        strict = 1 if part[0] == "lt" else 0
        rest = dict(terms_of(("sub", ("sub", part[2], part[1]), strict), extents))  # >= 0
        coefficient = rest.pop(("i", loop), 0)
        if abs(coefficient) != 1 or any(a is not None and loop in loops_of(a) for a in rest):
            return False
        if coefficient > 0:
            lows.append({a: -c for a, c in rest.items()})
        else:
            highs.append(rest)
    return all(
        interval(simplify(("sub", from_terms(h), from_terms(w)), extents), extents)[0] >= 0
        for w in lows
        for h in highs
    )


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

    @property
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
    return Cut(list(loops[:position]), loop, size, list(loops[position + 1 :]), extents[loop], step)


@dataclass(eq=False)
class Flat:
    """All loops of a class numbered by one index, in blocks that may cut across any of them."""

    loops: list[int]
    capacity: int
    total: int

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self.total // self.capacity)


def flat(c: Contraction, loops: list[int], tile: int, most: int) -> Flat:
    """Blocks of whole tiles of up to `most` rows, as equal as they can be."""
    total = c.size(loops)
    tiles = -(-hint(total) // tile)
    blocks = -(-tiles // max(1, most // tile))
    return Flat(loops, -(-tiles // blocks) * tile, total)


def odd_lines(elements: int) -> int:
    """A row length from which rows spread over all sets of a cache: an odd number of vectors."""
    return (-(-elements // LANES) | 1) * LANES


@dataclass(frozen=True)
class Tile:
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
    Columns run on from row to row of the panel, over its borders too; those results are dropped.
    """

    factor: Factor  # with i for i + d * q, counted from the first tap
    taps: dict[int, tuple[int, int]]  # loop of n -> (loop of k, d)
    lengths: list[int]  # of the panel's axes, one for each loop of a block of n
    first: list[int]  # the loops of a block of k that are no taps
    axes: list[int]  # the loops of the block of n

    @property
    def pitch(self) -> list[int]:
        """How far apart neighbours along an axis are."""
        return [math.prod(self.lengths[p + 1 :]) for p in range(len(self.lengths))]

    @property
    def plane(self) -> int:
        """The distance of panels for different k that are no taps."""
        return odd_lines(math.prod(self.lengths) + LANES)

    def columns(self, pieces: int) -> int:
        """Columns of `pieces` steps of the first loop."""
        return pieces * self.pitch[0] - self.tail

    @property
    def tail(self) -> int:
        """What the last step lacks: it ends with its last result, not with the border."""
        inner = zip(self.axes[1:], self.lengths[1:], self.pitch[1:])
        return self.pitch[0] - 1 - sum((n - 1 - self.reach(k)) * p for k, n, p in inner)

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


def find_windows(c: Contraction, n: Cut, k: Cut) -> Windows | None:
    """The windows of B within blocks of n and k, None if there are none."""
    extents = list(c.nest.extents)
    factor, taps, reach = c.b, {}, {}
    candidates = [q for q in k.loops if q != k.loop or not _several(k.count)]
    for loop in n.loops:
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
    reach = abs(distance) * (extents[tap] - 1)
    longer = [n + reach if k == loop else n for k, n in enumerate(extents)]
    at: list[Expr] = [("i", k) for k in range(len(extents))]
    at[loop] = ("sub", ("i", loop), ("mul", ("i", tap), distance))
    if distance < 0:
        at[loop] = ("sub", at[loop], reach)

    def index(e: Expr) -> Expr:
        return simplify(substitute(e, at), longer)

    value, guard = rewrite(factor.value, index, {}), index(factor.guard)
    found = [guard, *(e for part in walk(value) for e in part.indices)]
    if any(tap in loops_of(e) for e in found):
        return None
    return Factor(value, guard, factor.access)


# products added up before a tile moves on
KEPT = {"outer": (128, 192, 320), "dot": (512, 1024), "windows": (256, 640)}
MOST_ROWS, MOST_DOT = (64, 192), 64
MOST_COLUMNS = (128, 256, 512)
ENOUGH_SUMS = 0.43  # of the registers


def registers(dtype: DType) -> tuple[int, int]:
    """How many vector registers there are, and how many a vector of 16 lanes takes."""
    from .machine import cpu_features  # llvmlite loads when something is compiled

    features = cpu_features()
    wide, count = (64, 32) if "+avx512f" in features else (32, 16) if "+avx" in features else (
        (16, 32) if "+neon" in features else (16, 16)
    )  # fmt: skip
    return count, max(1, LANES * dtype.itemsize // wide)


def tiles(form: str, dtype: DType, most: int) -> list[Tile]:
    """The tiles of up to `most` rows whose sums and operands fit in registers, and nearly fill
    half of them."""
    count, each = registers(dtype)
    found = []
    for rows in range(1, 15):
        for columns in range(1, 9):
            operands = columns * each + 1 if form == "outer" else (min(rows, columns) + 1) * each
            sums = rows * columns * each
            fits = sums + operands <= count and rows <= most
            if fits and (sums >= ENOUGH_SUMS * count or rows == most):
                found.append(Tile(rows, columns))
    return found


def pays(c: Contraction, divided: bool) -> bool:
    """False where one loop nest without packing does as well: where panels would be used for few
    products, and its vectors are full and contiguous without them (`divided`: they are not)."""
    extents = c.nest.extents
    n, k = c.n[-1], c.k[-1]
    along_n = c.b.stride(n) == 1 and extents[n] >= SHORT_VECTOR
    along_k = (c.a.stride(k), c.b.stride(k)) == (1, 1) and extents[k] >= SHORT_VECTOR
    if divided or not (along_n or along_k):
        return True
    source = c.b.span(extents)
    windows = 2 * source < c.size([*c.batch, *c.n, *c.k])  # packing multiplies B
    sums = c.size(c.k)
    few = c.size(c.m) < FEW_ROWS and (not along_n or sums < ENOUGH_FOR_FEW_ROWS)
    few = few or (along_n and windows and sums < FEW_SUMS)
    return not few and math.prod(extents) >= FEW_PRODUCTS


def _buffers_of(value: Value) -> list[str]:
    return sorted({part.buffer for part in walk(value) if isinstance(part, Load)})


def choose(c: Contraction) -> Blocks | None:
    """The cheapest blocks of a contraction, None if no tile fits in the registers.

    What decides the order in which products are added, the form and the blocks of *dot*, depends on
    extents and on where the operands would lie in memory, not on what happens to be stored.
    """
    dtype, extents = c.nest.value.dtype, c.nest.extents
    options = []
    for tile in tiles("dot", dtype, c.size(c.m)):
        m = flat(c, c.m, tile.rows, MOST_DOT)
        all_n = flat(c, c.n, tile.columns, MOST_DOT)
        options += [Blocks("dot", tile, m, all_n, cut(c.k, extents, d), []) for d in KEPT["dot"]]
    columns = [cut(_by_stride(c), extents, most) for most in MOST_COLUMNS]
    plain = [(n, cut(c.k, extents, depth)) for n in columns for depth in KEPT["outer"]]
    outer = list(_outer_blocks(c, [(n, k, None) for n, k in plain]))
    best = min([*options, *outer], key=lambda blocks: _cost(c, blocks), default=None)
    if best is None or best.form == "dot":
        return best
    inner: list[tuple[Cut, Cut, Windows | None]] = []
    for n in columns:
        for depth in KEPT["windows"]:
            k = cut(c.k, extents, depth)
            windows = find_windows(c, n, k)
            inner += [(n, k, windows)] if windows is not None else []
    return min([best, *_outer_blocks(c, inner)], key=lambda blocks: _cost(c, blocks))


def _outer_blocks(c: Contraction, inner: list[tuple[Cut, Cut, Windows | None]]) -> Iterator[Blocks]:
    """The form with vectors along n, with every tile and every number of rows."""
    for tile in tiles("outer", c.nest.value.dtype, c.size(c.m)):
        for most in MOST_ROWS:
            m = flat(c, c.m, tile.rows, most)
            for n, k, windows in inner:
                yield Blocks("outer", tile, m, n, k, n.outer, windows)


# Cycles by which the forms are compared.
SHORT_VECTOR, FEW_ROWS, FEW_SUMS, FEW_PRODUCTS = 12, 8, 24, 32_768
ENOUGH_FOR_FEW_ROWS = 128
SHARED = 4  # items that share a block which is then packed once, by a kernel of its own
MOST_PADDING = 1.25  # of what is packed once, against the operand
LONG_ROW = 64  # elements of a row whose last vector is better masked

LOAD, FAR_LOAD, PARTIAL = 0.25, 0.5, 12.0  # a vector from the first cache, from the second; its sum
FIRST_CACHE = 26_000  # bytes of a panel that stay there beside what passes by
COPY, GUARDED, GATHER = 3.0, 8.0, 24.0  # of 16 elements packed: plainly, conditions, with a stride
SHORT_LOOP = 3.0  # to begin a row
APART = 10.0  # of 16 elements that lie 2 to 4 apart
STREAM = 0.5  # to bring an element of a panel near again for another block
ACROSS = 4.0  # to fetch and put away 16 sums of a result
SECOND_CACHE, CROWDED = 500_000, 0.3  # bytes of blocks that it holds well, and the cost of more
ENOUGH_ITEMS, FEW_ITEMS = 32, 0.4


def _cost(c: Contraction, blocks: Blocks) -> float:
    """Cycles for 16 products, with what tiles compute beyond the edges."""
    tile, n, m, k = blocks.tile, blocks.n, blocks.m, blocks.k
    dot, sums = blocks.form == "dot", tile.rows * tile.columns
    width = tile.columns * (1 if dot else LANES)
    exact = n.total if isinstance(n, Flat) else n.extent * n.step
    waste = -(-m.total // tile.rows) * tile.rows / m.total
    waste *= _computed(blocks, width) / exact
    taps = blocks.windows.count(c) if blocks.windows else 1
    lines = 2 if blocks.windows else 1  # vectors that are not aligned lie in two lines
    loads = LOAD * (tile.rows + lines * tile.columns) / sums
    itemsize = c.nest.value.dtype.itemsize
    if not dot and min(width, n.capacity) * k.capacity * itemsize / taps > FIRST_CACHE:
        loads += FAR_LOAD / tile.rows
    cost = waste * (max(1.0, 8 / sums) + loads)
    if k.count > 1 or k.outer:
        cost += PARTIAL / k.capacity
    if dot:
        cost += LANES * ACROSS / k.capacity
    rows, columns = min(m.capacity, m.total), min(n.capacity, exact)
    outer = c.size(blocks.grid_n)
    once = n.count * outer if n.count * outer >= SHARED else 1
    cost += LANES * STREAM * (1 / columns + 1 / rows)
    cost += LANES * _packing(c, c.a, k if dot else _rows_along(c, m) or k) / columns / once
    again = math.prod(blocks.windows.lengths) / (n.capacity * taps) if blocks.windows else 1.0
    cost += LANES * again * _packing(c, c.b, k if dot else n) / rows
    depth = k.capacity / taps
    sums = rows * columns * (LANES if dot else 1)
    held = itemsize * (rows * k.capacity + columns * depth + sums)
    items = c.size(c.batch) * m.count * outer * n.count
    cost *= 1 + CROWDED * max(0.0, held / SECOND_CACHE - 1)
    return cost * (1 + FEW_ITEMS * max(0.0, 1 - items / ENOUGH_ITEMS))


def _computed(blocks: Blocks, width: int) -> int:
    """Columns that tiles of this width compute in all blocks of n, the last one not full."""
    n = blocks.n
    if isinstance(n, Flat):
        return -(-n.total // width) * width
    pieces = n.extent - n.size * (n.count - 1)
    last = blocks.windows.columns(pieces) if blocks.windows else pieces * n.step
    full = -(-blocks.columns // width)
    return ((n.count - 1) * full + -(-last // width)) * width


def _rows_along(c: Contraction, m: Flat) -> Flat | None:
    """M where panels of A are best packed along it, None where along K."""
    return m if len(m.loops) == 1 and c.a.stride(m.loops[0]) == 1 else None


def _packing(c: Contraction, factor: Factor, side: Cut | Flat) -> float:
    """Cycles for an element of a factor that is packed in vectors along some loops."""
    loops = side.loops
    step = factor.stride(loops[-1])
    length = c.nest.extents[loops[-1]]
    length = min(length, side.capacity) if len(loops) == 1 else length
    for outer in reversed(loops[:-1]):
        if factor.guard != TRUE or step is None or factor.stride(outer) != step * length:
            break
        length *= c.nest.extents[outer]
    cost = COPY if step in (0, 1) else APART if step in (2, 3, 4) else GATHER
    cost += GUARDED if factor.guard != TRUE else 0.0
    return (cost * -(-length // LANES) + SHORT_LOOP) / length


def _by_stride(c: Contraction) -> list[int]:
    """The loops of n, the one with the longest step through the result first."""
    terms = terms_of(c.nest.offset, c.nest.extents)
    return sorted(c.n, key=lambda k: (-abs(terms.get(("i", k), 0)), k))


# --------------------------------------------------------------------------------------- building


def plan(work: Tree | Nest, name: str) -> Plan | None:
    """The kernels of a contraction and of maps that read its result where they write their own;
    None where loops without packing serve it better."""
    tree = distinct_names(work if isinstance(work, Tree) else Tree(work.rank, [work]))
    nest, after = tree.nests[0], tree.nests[1:]
    if not nest.contraction or tree.last:
        return None
    if any(other.op is not None or other.named or other.checks for other in after):
        return None
    nest = dataclasses.replace(nest, carried=tuple(("i", k) for k in range(nest.rank)))
    ready, exists = prepared(nest)
    divided = len(ready.extents) > sum(n != 1 for n in nest.extents)
    found = classify(ready, exists)
    if found is None:
        return None
    with recording_guards():  # what only costs are decided by restricts no sizes
        if not pays(found, divided):
            return None
        blocks = choose(found)
    if blocks is None:
        return None
    return _Builder(found, blocks, name, tree, after).plan()


def _add(*parts: Expr) -> Expr:
    total: Expr = 0
    for part in parts:
        if part != 0:
            total = part if total == 0 else ("add", total, part)
    return total


def _times(e: Expr, factor: int) -> Expr:
    return e if factor == 1 else 0 if e == 0 else ("mul", e, factor)


@dataclass(eq=False)
class Panel:
    """A packed block of a factor: rows of k for each of its own elements, or the reverse."""

    array: str
    along_k: bool
    stride: int
    start: Expr = 0

    def place(self, own: Expr, k: Expr) -> Expr:
        """Where element `own` of M or N and `k` of K lies."""
        row, column = (own, k) if self.along_k else (k, own)
        return _add(self.start, _times(row, self.stride), column)


class _Builder:
    """Writes the kernels of one contraction."""

    def __init__(self, c: Contraction, blocks: Blocks, name: str, tree: Tree, after: list[Nest]):
        self.c, self.blocks, self.name, self.tree = c, blocks, name, tree
        self.after = after
        self.dtype = c.nest.value.dtype
        self.extents = list(c.nest.extents)  # of the nest's loops, then of the kernel's own
        self.integers: dict[str, int] = {}
        self.unrolled: dict[int, int] = {}
        self.scratch: list[Scratch] = []
        self.buffers = dict(c.nest.buffers)
        for other in after:
            self.buffers.update(other.buffers)
        self.packing: list[Scheduled] = []
        m, n, k, tile = blocks.m, blocks.n, blocks.k, blocks.tile
        self.m_block, self.n_block = self.loop(m.count), self.loop(n.count)
        self.k_block = self.loop(k.count)
        self.width = tile.columns * (LANES if blocks.form == "outer" else 1)
        self.m_tile = self.loop(-(-m.capacity // tile.rows))
        self.n_tile = self.loop(-(-blocks.columns // self.width))
        self.row, self.column = self.unroll(tile.rows), self.unroll(tile.columns)
        self.blocked = (
            _several(k.count) or bool(k.outer) or blocks.form == "dot" or self.merged() > 0
        )
        self.blocked = self.blocked or blocks.windows is not None
        self.ends = {k: end for k, (end, _) in c.ends.items() if k in blocks.k.loops}
        for loop, (_, part) in c.ends.items():
            if loop not in self.ends:
                for factor in (c.a, c.b):
                    factor.guard = conjunction(factor.guard, part)
        columns = self.extents[self.n_tile] * self.width
        self.partial_stride = columns if blocks.form == "dot" else odd_lines(columns)

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

    def over(self, loops: Sequence[int], body: list[Stmt]) -> list[Stmt]:
        """body inside serial loops over their whole extents."""
        for loop in reversed(loops):
            if _several(self.extents[loop]):
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

    def i(self, loop: int) -> Expr:
        """The index of a loop around blocks: there is no loop for a single block."""
        return ("i", loop) if _several(self.extents[loop]) else 0

    def each(self, loops: Sequence[int], stmt: Stmt) -> Stmt:
        """stmt for every element of a tile."""
        for loop in reversed(loops):
            stmt = For(loop, 0, self.unrolled[loop], "unroll", [stmt])
        return stmt

    # -- where an element of a block is ---------------------------------------------------------

    def at(self, *places: tuple[Sequence[int], Expr]) -> list[Expr]:
        """The nest's loops in terms of the kernel's, some groups of them numbered by one index."""
        result: list[Expr] = [("i", k) for k in range(len(self.extents))]
        for loops, number in places:
            parts = unflatten(number, [self.extents[k] for k in loops])
            for loop, part in zip(loops, parts):
                result[loop] = part
        return result

    def mapping(self, at: list[Expr]) -> IndexMap:
        return lambda e: simplify(substitute(e, at), self.extents)

    def number(self, side: Cut | Flat, block: int, inside: Expr) -> Expr:
        """The number among all elements of one that is `inside` a block."""
        return _add(_times(self.i(block), side.capacity), inside)

    def pieces(self, side: Cut, block: int) -> Expr:
        """How many pieces of the loop there are in a block."""
        if side.count == 1:
            return self.end(side.loop) if side.loop in self.ends else self.integer(side.extent)
        if side.loop in self.ends:
            left = ("sub", self.end(side.loop), _times(self.i(block), side.size))
            return ("max", ("min", left, side.size), 0)
        left = ("sub", self.integer(side.extent), _times(self.i(block), side.size))
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
        left = ("sub", self.integer(side.total), _times(self.i(block), side.capacity))
        return ("min", left, side.capacity)

    # -- packing --------------------------------------------------------------------------------

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

    def runs_as_one(self, factor: Factor, index: IndexMap, loop: int) -> bool:
        """True if a group of loops numbered by one needs no division to be told apart."""
        value = self.packed(factor, index)
        found = [e for part in walk(value) for e in part.indices]
        return not any(_divides(e, loop) for e in found)

    def pack(self, panel: Panel, factor: Factor, side: Cut | Flat, block: int) -> list[Stmt]:
        """A block of a factor: serial over its rows, vectors along them."""
        k, k_block = self.blocks.k, self.k_block
        if not panel.along_k:
            return self.serial(k, k_block, lambda row, place: self.across(
                factor, side, block, place, lambda e, v: self.fill(panel, e, row, v)))  # fmt: skip
        return self.serial(side, block, lambda row, place: [*self.across(
            factor, k, k_block, place, lambda e, v: self.fill(panel, row, e, v)),
            *self.row_end(panel, row)])  # fmt: skip

    def row_end(self, panel: Panel, row: Expr) -> list[Stmt]:
        """Zeros behind a row that tiles read in whole vectors."""
        if self.blocks.form != "dot":
            return []
        lane = self.loop(LANES)
        behind = _add(self.filled(self.blocks.k, self.k_block), ("i", lane))
        zero = Store(panel.array, panel.place(row, behind), Const(0.0, self.dtype))
        return [For(lane, 0, LANES, "vector", [zero])]

    @staticmethod
    def fill(panel: Panel, own: Expr, k: Expr, value: Value) -> Stmt:
        return Store(panel.array, panel.place(own, k), value)

    def serial(
        self, side: Cut | Flat, block: int, body: Callable[[Expr, tuple], list[Stmt]]
    ) -> list[Stmt]:
        """Serial loops over a block around body(number in the block, place)."""
        if isinstance(side, Flat):
            row = self.loop(side.capacity)
            place = (side.loops, self.number(side, block, ("i", row)))
            inside = body(("i", row), place)
            return [For(row, 0, self.filled(side, block), "serial", inside)]
        piece = self.loop(side.size)
        place = ([side.loop], _add(_times(self.i(block), side.size), ("i", piece)))
        inside = self.over(side.inner, body(self.inside(side, piece), place))
        return [For(piece, 0, self.pieces(side, block), "serial", inside)]

    def inside(self, side: Cut, piece: int) -> Expr:
        """The number in its block of an element that the loops of the class tell."""
        number: Expr = ("i", piece)
        for loop in side.inner:
            number = _add(_scaled(number, self.stride(loop)), ("i", loop))
        return number

    def stride(self, loop: int) -> Expr:
        """The elements of a loop: literal, for the normal form, unless they vary."""
        return self.end(loop) if loop in self.ends else self.extents[loop]

    def across(
        self, factor: Factor, side: Cut | Flat, block: int, row: tuple[Sequence[int], Expr],
        fill: Callable[[Expr, Value], Stmt],
    ) -> list[Stmt]:  # fmt: skip
        """Loops over one row, the innermost one a vector loop, around fill(number, value)."""
        for merged in range(len(side.loops)):
            within = set(
                side.loops[max(merged, 1) :]
            )  # the first may end early: what is left runs on
            if len(side.loops) - merged > 1 and self.ends.keys() & within:
                continue  # these do not follow each other at a fixed distance
            order, number, places = self.row_loops(side, block, merged)
            index = self.mapping(self.at(row, *places))
            if isinstance(side, Flat) or self.runs_as_one(factor, index, order[-1][0]):
                break
        last, stop = order.pop()
        stop, exists = self.whole_vectors(last, stop, factor)
        body: list[Stmt] = [fill(number, self.packed(factor, index, exists))]
        body = [For(last, 0, stop, "vector", body)]
        for loop, stop in reversed(order):
            body = [For(loop, 0, stop, "serial", body)]
        return body

    def row_loops(
        self, side: Cut | Flat, block: int, merged: int
    ) -> tuple[list[tuple[int, Expr]], Expr, list[tuple[Sequence[int], Expr]]]:
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
            number = _add(_scaled(number, self.stride(loop)), ("i", loop))
        last = self.stride(loops[0]) if len(loops) == 1 else self.extents[one]
        number = _add(_scaled(number, last), ("i", one))
        order = [(piece, self.pieces(side, block))]
        order += [(k, self.end(k)) for k in between]
        order.append((one, self.end(loops[0] if len(loops) == 1 else one)))
        start = _add(_times(self.i(block), side.size), ("i", piece))
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
        return _times(_pieces(stop, LANES), LANES), ("lt", ("i", loop), stop)

    def panel(self, array: str, factor: Factor, side: Cut | Flat, block: int) -> Panel:
        """The layout that packing walks along as memory does, where the form leaves a choice."""
        along_k = self.blocks.form == "dot"
        if self.blocks.form == "outer" and isinstance(side, Flat):
            along_k = _rows_along(self.c, side) is None
        tile = self.blocks.tile.rows if side is self.blocks.m else self.width
        own = -(-side.capacity // tile) * tile
        k = self.blocks.k
        rows, length = (own, k) if along_k else (k.capacity, side)
        room = _room(length, self.extents) + (LANES if self.blocks.form == "dot" else 0)
        stride = odd_lines(max(room, 0 if along_k else own))
        panel = Panel(array, along_k, stride)
        if not self.packs_once(panel, factor, block, rows * stride):
            self.scratch.append(Scratch(array, self.dtype, rows * stride))
        return panel

    def window_panel(self, array: str, w: Windows) -> Panel:
        """The panel of B as it lies; its stride is its size."""
        k = self.blocks.k
        first = [k.size if loop == k.loop else self.extents[loop] for loop in w.first]
        length = self.extents[self.n_tile] * self.width + w.farthest() + LANES
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
        at[n.loop] = _add(_times(self.i(self.n_block), n.size), ("i", axes[0]))
        ends = [_add(self.pieces(n, self.n_block), w.reach(n.loop))]
        ends += [self.integer(length) for length in w.lengths[1:]]
        piece, number = self.loop(k.size), 0
        for loop in w.first:
            one = piece if loop == k.loop else loop
            number = _add(_times(number, self.extents[one]), ("i", one))
        at[k.loop] = _add(_times(self.i(self.k_block), k.size), ("i", piece))
        place = _times(number, w.plane)
        for axis, pitch in zip(axes, w.pitch):
            place = _add(place, _times(("i", axis), pitch))
        last, stop = axes.pop(), ends.pop()
        stop, exists = self.whole_vectors(last, stop, w.factor)
        value = self.packed(w.factor, self.mapping(at), exists)
        body: list[Stmt] = [For(last, 0, stop, "vector", [Store(panel.array, place, value)])]
        for axis, stop in zip(reversed(axes), reversed(ends)):
            body = [For(axis, 0, stop, "serial", body)]
        body = self.over([loop for loop in w.first if loop != k.loop], body)
        if k.loop in w.first:
            body = [For(piece, 0, self.pieces(k, self.k_block), "serial", body)]
        return body

    def tap_offsets(self, w: Windows) -> list[Stmt]:
        """Where in B's panel the columns of every k of a block begin."""
        k = self.blocks.k
        piece, place = self.loop(k.size), 0
        for loop in w.first:
            one = piece if loop == k.loop else loop
            place = _add(_times(place, self.extents[one]), ("i", one))
        place = _times(place, w.plane)
        for axis, pitch in zip(w.axes, w.pitch):
            if axis in w.taps:
                tap, distance = w.taps[axis]
                step: Expr = ("i", piece if tap == k.loop else tap)
                if distance < 0:
                    step = ("sub", self.c.nest.extents[tap] - 1, step)
                place = _add(place, _times(step, abs(distance) * pitch))
        store = Store("offsets", self.inside(k, piece), IndexValue(place))
        return [For(piece, 0, self.integer(k.size), "serial", self.over(k.inner, [store]))]

    def packs_once(self, panel: Panel, factor: Factor, block: int, elements: int) -> bool:
        """Makes a packing kernel if many items would pack the same blocks and memory allows it."""
        used = loops_of(factor.guard).union(*(loops_of(end) for end in self.ends.values()))
        used.update(*(loops_of(e) for v in walk(factor.value) for e in v.indices))
        loops = [k for k in (*self.c.batch, *self.blocks.grid_n) if k in used]
        loops += [*self.blocks.k.outer, self.k_block, block]
        loops = [k for k in loops if _several(self.extents[k])]
        shared = math.prod(self.extents[k] for k in self.grid_loops() if k not in loops)
        total = elements * math.prod(self.extents[k] for k in loops)
        size = sum(self.c.nest.buffers[name].size for name in _buffers_of(factor.value))
        nest = self.c.nest
        everything = nest.target.size + sum(b.size for b in nest.buffers.values())
        most = max(MOST_PADDING * hint(size), hint(everything) / 4)
        if hint(shared) < SHARED or hint(total) > most:
            return False
        number: Expr = 0
        for k in loops:
            number = _add(_scaled(number, self.integer(self.extents[k])), ("i", k))
        panel.start = _times(number, elements)
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
        target = self.c.nest.target
        targets = [target, *(other.target for other in self.after)]
        targets = [t for t in targets if t.role != "local"]
        launch = self.launchable(self.name, body, targets, items, self.scratch)
        temporaries = self.tree.packed = [one.buffers[-1] for one in self.packing]
        return Plan([*self.packing, launch], temporaries, self.blocks, self.c.nest, self.tree)

    def grid_loops(self) -> list[int]:
        """The loops whose iterations are shared out."""
        loops = [*self.c.batch, self.m_block, *self.blocks.grid_n, self.n_block]
        return [k for k in loops if _several(self.extents[k])]

    def launchable(
        self, name: str, body: list[Stmt], targets: list[Buffer], items: int, scratch: list[Scratch]
    ) -> Scheduled:
        """A kernel of these statements that writes the targets."""
        indices = _indices(body)
        own = {array.name for array in scratch}
        read = {
            part.buffer
            for stmt in statements(body)
            for value in values_of(stmt)
            for part in walk(value)
            if isinstance(part, Load) and part.buffer not in own
        }
        buffers = [b for n, b in self.buffers.items() if n in read and b not in targets]
        buffers += targets
        parameters = [Parameter(b.name, b.dtype, b in targets) for b in buffers]
        narrow = all(self.is_narrow(e) for e in indices)
        kernel = Kernel(name, parameters, [], self.unrolled, body, narrow, scratch)
        integers = dict(self.integers)
        name_extents(kernel, integers)
        used = set().union(*map(integers_of, _indices(body)))
        used.update(*(integers_of(array.elements) for array in scratch))
        integers = {n: v for n, v in integers.items() if n in used}
        kernel.integers = list(integers)
        chunks = minimum(items, MOST_CHUNKS)
        return Scheduled(kernel, buffers, integers, chunks, self.tree)

    def is_narrow(self, e: Expr) -> bool:
        """True if no part of an index expression can leave 32 bits."""
        if isinstance(e, int):
            return abs(e) < 1 << 31
        if not is_condition(e):
            low, high = interval(e, self.extents)
            if low < -(1 << 31) or high >= 1 << 31:
                return False
        return all(self.is_narrow(part) for part in children(e))

    def kernel_body(self) -> list[Stmt]:
        blocks, c = self.blocks, self.c
        panel_a = self.panel("panel_a", c.a, blocks.m, self.m_block)
        if blocks.windows:
            panel_b = self.window_panel("panel_b", blocks.windows)
        else:
            panel_b = self.panel("panel_b", c.b, blocks.n, self.n_block)
        scratch = {array.name for array in self.scratch}
        rows, self.rows = self.let("rows", self.filled(blocks.m, self.m_block), blocks.m.capacity)
        filled: Expr
        if blocks.windows:
            assert isinstance(blocks.n, Cut)
            pieces = self.pieces(blocks.n, self.n_block)
            filled = ("sub", _scaled(pieces, blocks.windows.pitch[0]), blocks.windows.tail)
        else:
            filled = self.filled(blocks.n, self.n_block)
        columns, self.columns = self.let("columns", filled, blocks.columns)
        filled = self.filled(blocks.k, self.k_block)
        filled = filled if c.whole == TRUE else ("where", c.whole, filled, 0)
        depth, self.depth = self.let("depth", filled, blocks.k.capacity)
        inside: list[Stmt] = []
        if panel_a.array in scratch:
            inside += self.pack(panel_a, c.a, blocks.m, self.m_block)
        if blocks.windows:
            inside += self.pack_windows(panel_b, blocks.windows)
        elif panel_b.array in scratch:
            inside += self.pack(panel_b, c.b, blocks.n, self.n_block)
        if c.whole != TRUE and inside:
            inside = [For(self.loop(2), 0, ("where", c.whole, 1, 0), "serial", inside)]
        inside.insert(0, depth)
        inside += self.tiles(panel_a, panel_b)
        if not self.blocked:
            return [*self.named_ends(), rows, columns, *inside]
        size = self.extents[self.m_tile] * blocks.tile.rows * self.partial_stride
        finished = self.finish_block()
        if blocks.form == "dot":
            self.scratch.append(Scratch("totals", self.dtype, size))
            finished = [*self.add_lanes(), *finished]
            size *= LANES
        self.scratch.append(Scratch("partial", self.dtype, size))
        loops = [*blocks.k.outer, self.k_block]
        inside = self.over(loops, inside)
        offsets = self.tap_offsets(blocks.windows) if blocks.windows else []
        before = [*self.named_ends(), rows, columns, *offsets]
        return [*before, *inside, *finished]

    def tiles(self, a: Panel, b: Panel) -> list[Stmt]:
        body = self.dot_tile(a, b) if self.blocks.form == "dot" else self.outer_tile(a, b)
        rows = _pieces(self.rows, self.blocks.tile.rows)
        body = [For(self.m_tile, 0, rows, "serial", body)]
        return [For(self.n_tile, 0, _pieces(self.columns, self.width), "serial", body)]

    def products(self, a: Panel, b: Panel, row: Expr, column: Expr, step: Expr) -> list[Stmt]:
        """The sums of a tile += A * B at one step of k."""
        both, kind = (self.row, self.column), self.dtype
        x = Load(a.array, a.place(row, step), TRUE, 0.0, kind)
        y = Load(b.array, b.place(column, step), TRUE, 0.0, kind)
        factors = (Ref("x", (self.row,), kind), Ref("y", (self.column,), kind))
        offset: list[Stmt] = []
        if self.blocks.windows:
            offset = [Let("offset", (), Load("offsets", step, TRUE, 0, dt.int64))]
            place = _add(("val", "offset", (0, b.stride)), column)
            y = Load(b.array, place, TRUE, 0.0, kind)
        return [
            *offset,
            self.each([self.row], Let("x", (self.row,), x)),
            self.each([self.column], Let("y", (self.column,), y)),
            self.each(both, Update("acc", both, "fma", factors)),
        ]

    def outer_tile(self, a: Panel, b: Panel) -> list[Stmt]:
        """One tile of results over one block of k, vectors along columns."""
        both = (self.row, self.column)
        step, lane = self.loop(self.blocks.k.capacity), self.loop(LANES)
        row = _add(_times(("i", self.m_tile), self.blocks.tile.rows), ("i", self.row))
        column = _add(_times(("i", self.n_tile), self.width),
                      _times(("i", self.column), LANES), ("i", lane))  # fmt: skip
        sums = self.products(a, b, row, column, ("i", step))
        body: list[Stmt] = [self.each(both, Init("acc", both, "add", self.dtype))]
        place = _add(_times(row, self.partial_stride), column)
        if self.blocked:  # goes on where the block before stopped: blocks do not change the sum
            before = Load("partial", place, self.later(), 0.0, self.dtype)
            body.append(self.each(both, Update("acc", both, "add", (before,))))
        body.append(For(step, 0, self.depth, "serial", sums))
        result = Ref("acc", both, self.dtype)
        if self.blocked:
            body.append(self.each(both, Store("partial", place, result)))
        else:
            guard = ("and", ("lt", row, self.rows), ("lt", column, self.columns))
            for stmt in self.finish(result, self.result_at(row, column), guard, both):
                body.append(self.each(both, stmt))
        return [For(lane, 0, LANES, "vector", body)]

    def dot_tile(self, a: Panel, b: Panel) -> list[Stmt]:
        """One tile of results over one block of k, vectors along k: 16 sums of every result."""
        both = (self.row, self.column)
        step, lane = self.loop(-(-self.blocks.k.capacity // LANES)), self.loop(LANES)
        row = _add(_times(("i", self.m_tile), self.blocks.tile.rows), ("i", self.row))
        column = _add(_times(("i", self.n_tile), self.width), ("i", self.column))
        sums = self.products(a, b, row, column, _add(_times(("i", step), LANES), ("i", lane)))
        place = _add(_times(_add(_times(row, self.partial_stride), column), LANES), ("i", lane))
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
        place = _add(_times(("i", row), self.partial_stride), ("i", column))
        one = Load("partial", _add(_times(place, LANES), ("i", lane)), TRUE, 0.0, self.dtype)
        body: list[Stmt] = [
            Init("total", (), "add", self.dtype, 1),
            For(lane, 0, LANES, "vector", [Update("total", (), "add", (one,))]),
            Store("totals", place, Ref("total", (), self.dtype)),
        ]
        body = [For(column, 0, self.columns, "serial", body)]
        return [For(row, 0, self.rows, "serial", body)]

    def later(self) -> Expr:
        """The condition that a block of k is not the first."""
        blocks = [k for k in (*self.blocks.k.outer, self.k_block) if _several(self.extents[k])]
        condition: Expr = ("not", TRUE)
        for k in blocks:
            more = ("lt", 0, ("i", k))
            condition = more if condition == ("not", TRUE) else ("or", condition, more)
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
        terms = terms_of(self.c.nest.offset, self.extents)
        steps = [terms.get(("i", k), 0) for k in side.loops]
        for position in range(len(steps) - 1, 0, -1):
            length = self.extents[side.loops[position]]
            if steps[position - 1] != steps[position] * length:
                return position
        return 0

    def finish_block(self) -> list[Stmt]:
        """Results from the sums of all blocks of k."""
        m, n = self.blocks.m, self.blocks.n
        row, w = self.loop(m.capacity), self.blocks.windows
        merged = len(n.loops) - 1 if w else self.merged()
        order, column, places = self.row_loops(n, self.n_block, merged)
        if w:
            column = 0
            for (loop, _), pitch in zip(order, w.pitch):
                column = _add(column, _times(("i", loop), pitch))
        place = _add(_times(("i", row), self.partial_stride), column)
        sums = "totals" if self.blocks.form == "dot" else "partial"
        value = Load(sums, place, TRUE, 0.0, self.dtype)
        places.append((m.loops, self.number(m, self.m_block, ("i", row))))
        body = self.finish(value, self.mapping(self.at(*places)), TRUE, ())
        how = "vector"
        for loop, stop in reversed(order):
            body = [For(loop, 0, stop, how, body)]
            how = "serial"
        return [For(row, 0, self.rows, "serial", body)]

    def finish(
        self, value: Value, index: IndexMap, guard: Expr, dims: tuple[int, ...]
    ) -> list[Stmt]:
        """What is done with a finished sum where the guard holds: it is stored, and so is what is
        made of it."""
        nest = self.c.nest
        exists = conjunction(guard, index(self.c.exists))
        if value.dtype is not nest.target.dtype:
            value = Op("cast", (value,), nest.target.dtype)
        made: dict[str, Value] = {}
        body = self.keep(nest.target, value, index(nest.offset), exists, dims, made)
        for other in self.after:
            at = [*nest.carried[: len(other.extents)]]
            body += self.keep(
                other.target,
                _finished(other, lambda e, at=at: index(substitute(e, at)), exists, made),  # type: ignore[misc]
                index(substitute(other.offset, at)),
                exists,
                dims,
                made,
            )
        return body

    def keep(
        self,
        target: Buffer,
        value: Value,
        offset: Expr,
        exists: Expr,
        dims: tuple[int, ...],
        made: dict[str, Value],
    ) -> list[Stmt]:
        """A name for a result that is read later, and a store for one that has memory."""
        body: list[Stmt] = []
        if any(target in other.reads for other in self.after):
            name = f"r{len(made)}"
            body.append(Let(name, dims, value))
            value = made[target.name] = Ref(name, dims, value.dtype)
        if target.role != "local":
            body.append(Store(target.name, offset, value, None, exists))
        return body


def _finished(nest: Nest, index: IndexMap, exists: Expr, made: dict[str, Value]) -> Value:
    """The value of a nest in the loops of the kernel, what was made before taken as it is."""
    memo: dict[int, Value] = {}

    def visit(value: Value) -> Value:
        known = memo.get(id(value))
        if known is None:
            if isinstance(value, Load) and value.buffer in made:
                known = made[value.buffer]
            else:
                known = value.rebuild(tuple(visit(a) for a in value.args), index)
                if isinstance(known, Load):
                    guard = conjunction(known.guard, exists)
                    known = Load(known.buffer, known.offset, guard, known.fill, known.dtype)
            memo[id(value)] = known
        return known

    return visit(nest.value)


def _several(count: int) -> bool:
    """True for a loop that may have more than one iteration."""
    return isinstance(count, Extent) or count > 1


def _room(row: Cut | Flat, extents: Sequence[int]) -> int:
    """Elements that a row of a panel takes when its last vector is a whole one."""
    last = row.capacity
    if isinstance(row, Cut):
        last = extents[row.inner[-1]] if row.inner else row.size
    whole = -(-row.capacity // LANES) * LANES
    return max(whole, row.capacity - last + -(-last // LANES) * LANES)


def _guarded(value: Value, guard: Expr, memo: dict[int, Value]) -> Value:
    """value, reading nothing where the guard does not hold."""
    if id(value) not in memo:
        new = value.rebuild(tuple(_guarded(a, guard, memo) for a in value.args), lambda e: e)
        if isinstance(new, Load):
            both = conjunction(new.guard, guard)
            new = Load(new.buffer, new.offset, both, new.fill, new.dtype)
        memo[id(value)] = new
    return memo[id(value)]


def _scaled(e: Expr, factor: Expr) -> Expr:
    return _times(e, factor) if isinstance(factor, int) else 0 if e == 0 else ("mul", e, factor)


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
        match stmt:
            case Store():
                found += [stmt.offset, stmt.guard]
            case For():
                found += [stmt.start, stmt.stop]
            case Grid():
                found += stmt.extents
    return found
