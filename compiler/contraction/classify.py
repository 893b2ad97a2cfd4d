"""What a contraction is: the classes of its loops, its two factors, whether panels pay."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import metaop.dtype as dt
from metaop.extent import hint
from metaop.graph import size_of
from metaop.index import (
    TRUE,
    Expr,
    Terms,
    children,
    conjunction,
    conjuncts,
    from_terms,
    interval,
    loops_of,
    simplify,
    substitute,
    terms_of,
)  # fmt: skip

from ..ends import end_of
from ..loops import Load, Op, Value, rewrite, walk
from ..nest import Nest, dependencies
from ..schedule import map_nest


def row_major(lengths: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis of an array of these lengths are."""
    return [math.prod(lengths[p + 1 :]) for p in range(len(lengths))]


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

    @functools.cached_property
    def border(self) -> Expr:
        """A condition without which it is 0."""
        value = self.value
        while isinstance(value, Op) and value.name == "cast":
            value = value.args[0]
        if isinstance(value, Load) and value.fill == 0:
            return conjunction(value.guard, self.guard)
        return self.guard

    @functools.cached_property
    def loads(self) -> int:
        """How much is read for an element."""
        return sum(isinstance(v, Load) for v in walk(self.value))

    def span(self, extents: Sequence[int], loops: Sequence[int] | None = None) -> int:
        """The elements between the first and the last that are read, were it stored; loops: of all
        that these read."""
        distance = 1
        for atom, step in self.access.items():
            if atom is not None and atom[0] == "i" and (loops is None or atom[1] in loops):
                distance += abs(hint(step)) * (hint(extents[atom[1]]) - 1)
        return distance

    def without(self, loop: int, at: Sequence[Expr], extents: Sequence[int]) -> Factor | None:
        """The factor with loops of these extents replaced by `at`, None if it knows `loop` then."""

        def index(e: Expr) -> Expr:
            return simplify(substitute(e, at), extents)

        value, guard = rewrite(self.value, index, {}), index(self.guard)
        found = [guard, *(e for part in walk(value) for e in part.indices)]
        known = any(loop in loops_of(e) for e in found)
        return None if known else Factor(value, guard, self.access)

    def stride(self, loop: int) -> int | None:
        """How far a step of the loop moves the access; None if not by a fixed distance."""
        return None if loop in self._opaque else self.access.get(("i", loop), 0)

    @functools.cached_property
    def _opaque(self) -> set[int]:
        """The loops that the access knows other than as a plain term."""
        atoms = [a for a in self.access if a is not None and a[0] != "i"]
        return set().union(*map(loops_of, atoms))


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
    layers: list[int] = field(default_factory=list)
    # loops of the batch whose results stay with the thread: what is made of them needs all of them

    def turned(self) -> Contraction:
        """The same with M and N in each other's place: vectors across the rows of the result."""
        return replace(self, m=self.n, n=self.m, a=self.b, b=self.a)

    def size(self, loops: Sequence[int]) -> int:
        """The number of iterations of some loops."""
        return size_of(self.nest.extents[loop] for loop in loops)


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
    new = new.having(value=_guarded_at(new.value, {loop, loop + 1}, inside, {}))
    if loop < nest.rank:
        return new, conjunction(exists, inside)
    return new.having(guard=conjunction(new.guard, inside)), exists


def _guarded_at(value: Value, loops: set[int], guard: Expr, memo: dict[Value, Value]) -> Value:
    """value with the guard on what reads at all of these loops."""
    if value not in memo:
        args = tuple(_guarded_at(a, loops, guard, memo) for a in value.args)
        new = value.rebuild(args, lambda e: e)
        if isinstance(new, Load) and loops <= loops_of(new.offset):
            both = conjunction(new.guard, guard)
            new = Load(new.buffer, new.offset, both, new.fill, new.dtype)
        memo[value] = new
    return memo[value]


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
    """The classes of a nest's loops, M empty if a factor has no loops of its own; None if it is no
    contraction."""
    value = nest.value
    if not nest.contraction or nest.scatter or nest.named or nest.checks:
        return None
    if not isinstance(value, Op) or value.name != "mul" or not nest.order:
        return None
    if value.dtype not in (dt.float32, dt.float64):
        return None
    nest = _relaxed(nest)
    assert isinstance(nest.value, Op)
    loops_by_value = dict(dependencies(nest))
    first, second = (loops_by_value[v] for v in nest.value.args)
    rank, count = nest.rank, len(nest.extents)
    batch = [k for k in range(rank) if (k in first) == (k in second)]
    sides = [[k for k in range(rank) if k not in batch and k in f] for f in (first, second)]
    whole, partly = _whole_parts(nest.guard, batch)
    ends, partly = _earlier_ends(partly, batch, nest)
    guards = _guards(partly, [first | set(batch), second | set(batch)])
    if guards is None or not (sides[0] or sides[1]) or rank == count:
        return None
    implied = [part for _, part in ends.values()]
    nest = nest.having(value=without(nest.value, implied, {}))
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
    terms = result_steps(nest)
    return min(loops, key=lambda k: (abs(terms.get(("i", k), 0)) or 1 << 62, -k))


def result_steps(nest: Nest) -> Terms:
    """How far apart results of neighbours along each loop are; where the result has no memory, as
    they would be in memory: what is stored must not decide how a sum is made."""
    if nest.target.role != "local":
        return terms_of(nest.offset, nest.extents)
    steps: Terms = {}
    distance = 1
    for loop in reversed(range(nest.rank)):
        steps["i", loop] = distance
        distance *= nest.extents[loop]
    return steps


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
        if len(summed) != 1 or not loops_of(part) <= {*summed, *batch} or summed[0] in ends:
            others.append(part)
            continue
        loop, extent = summed[0], nest.extents[summed[0]]
        end = end_of(part, loop, nest.extents)
        if end is None:
            others.append(part)
        else:
            ends[loop] = (("max", 0, ("min", end, extent)), part)
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
    memo: dict[Value, Value] = {}

    def visit(value: Value) -> Value:
        if value not in memo:
            new = value.rebuild(tuple(visit(a) for a in value.args), lambda e: e)
            if isinstance(new, Load):
                guard = _needed(new, known, nest.extents)
                new = Load(new.buffer, new.offset, guard, new.fill, new.dtype)
            memo[value] = new
        return memo[value]

    return nest.having(value=visit(nest.value)) if known else nest


def without(value: Value, parts: list[Expr], memo: dict[Value, Value]) -> Value:
    """value with loads not guarded by these parts."""
    if value not in memo:
        new = value.rebuild(tuple(without(a, parts, memo) for a in value.args), lambda e: e)
        if isinstance(new, Load) and parts:
            guard: Expr = TRUE
            for part in conjuncts(new.guard):
                guard = guard if part in parts else conjunction(guard, part)
            new = Load(new.buffer, new.offset, guard, new.fill, new.dtype)
        memo[value] = new
    return memo[value]


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


SHORT_VECTOR, FEW_ROWS, FEW_SUMS, FEW_PRODUCTS = 12, 8, 24, 32_768
ENOUGH_FOR_FEW_ROWS = 128


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
