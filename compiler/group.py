"""group: nests that can run inside one iteration of common outer loops become one tree, one kernel.

    mean[c] = sum over (n, i) of x[n, c, i];  y[n, c, i] = x[n, c, i] - mean[c]
 -> tree over c: mean; then y

Two trees may become one where every read between them stays within one iteration of loops that
they share: a read at plain indices of those loops.  It is done where it pays: what one iteration
makes is read while it is in the cache or a register, and an intermediate that nobody else reads
needs no memory.  What is lost is parallelism, if too few iterations remain; then it is not done,
and a `Boundary` says why.  A reduction of what a whole tree made, with little to do, becomes the
tree's last part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from metaop.errors import CompilerBug
from metaop.extent import hint
from metaop.graph import Escape, size_of
from metaop.index import (
    TRUE,
    Expr,
    conjunction,
    conjuncts,
    flatten,
    remembered,
    simplify,
    terms_of,
)

from .boundary import Boundary, read_again
from .follow import Path, can_follow, following, path_of
from .fuse import LOAD_COST, Dear, Fused, is_barrier, memory_cost
from .loops import LANES, Load, Value
from .nest import Buffer, Nest, Part, Tree, dependencies, loops_of_both
from .schedule import (
    MOST_CHUNKS,
    SMALL_WORK,
    VectorCost,
    map_nest,
    map_values,
    permuted,
    runs_across,
    tree_of,
    vector_of_root,
)

ENOUGH_ITEMS = 32  # iterations of the root loops that leave nothing to be desired in parallelism
FEW_ITEMS = 4  # that suffice where there is little work
LITTLE_WORK = 1 << 19
LARGEST_LOCAL = 1 << 17  # bytes of an intermediate that lives within one iteration
LARGEST_TREE = 24  # nests
MOST_LAYERS = 16  # results of a contraction at one place that what follows it combines
MANY_ROWS = 1 << 22  # bytes that are better read row by row than column by column
SCALAR_COST = 32  # of an addition that waits for the one before, in those of whole vectors
WORTH_SHARING = 1 << 16  # bytes of a buffer that is better read once than twice
MOST_PIECES = 8  # boxes of one buffer that one kernel fills
FEW_NUMBERS = 64  # elements of what follows a last part and belongs to it

# Rules whose boundaries state what merging would cost, each with its words.
TILES, OPERAND, FEW, ROWS = "tiles", "operand", "few", "rows"
LANES_DIFFER, LOOPS_DIFFER = "lanes", "loops"
COSTS = {
    TILES: "a contraction keeps its tiles: only what has all loops of its results joins it",
    OPERAND: "a contraction reads each element of an operand for many results: it is made before",
    FEW: "",
    ROWS: "one adds up whole rows, the other goes along columns",
    LANES_DIFFER: "one adds up in lanes along a row, the other across rows",
    LOOPS_DIFFER: "they add up along different loops",
}
BETWEEN = "{} stands between them: it needs the first, and the second needs it"
UNDECIDED = "what they were before others joined them did not fit"


class Grouped:
    """Trees and escapes in an order in which they can run."""

    def __init__(self, grouping: _Grouping):
        self._grouping = grouping

    @cached_property
    def trees(self) -> list[Tree | Escape]:
        """All are made when they are first asked for: then intermediates become local."""
        return [self._grouping.finished(one) for one in self._grouping.ordered()]

    def is_local(self, buffer: Buffer) -> bool:
        """True if a value needs no memory, as only the tree that makes it reads it."""
        grouping = self._grouping
        for writer in grouping.writer[buffer]:
            made = grouping.group_of[writer]
            if buffer in grouping.held(made) or grouping.is_large(made, writer):
                return False
            grouping.finished(made)
        return buffer.role == "local"

    @cached_property
    def readers(self) -> dict[Buffer, list[list[tuple[int, Nest]]]]:
        """What reads a buffer: of each tree the nests, with the depths at which they do."""
        found: dict[Buffer, list[list[tuple[int, Nest]]]] = {}
        for made in dict.fromkeys(self._grouping.group_of.values()):
            of_tree: dict[Buffer, list[tuple[int, Nest]]] = {}
            for depth, nest in _depths(self._grouping.outline(made)) if made.nests else ():
                for buffer in dict.fromkeys(nest.reads):
                    of_tree.setdefault(buffer, []).append((depth, nest))
            for buffer, nests in of_tree.items():
                found.setdefault(buffer, []).append(nests)
        return found

    def boundaries(self, size: Callable[[int], int] = int) -> list[Boundary]:
        """A reason for every buffer that one kernel writes and another reads.

        size: the number that an extent is to be printed as.
        """
        return self._grouping.boundaries(size)


def group(fused: Fused, separate: bool = False, forced: Iterable[tuple[str, str]] = ()) -> Grouped:
    """The trees of nests; `separate` leaves every nest by itself.

    forced: boundaries, as names of source and target, whose two trees are made one all the same,
    whatever it costs; CompilerBug if they cannot be.
    """
    return _Grouping(fused, separate).run(forced)


def is_cheaper_again(grouped: Grouped, buffer: Buffer, price: Dear) -> bool:
    """True if computing an element wherever it is read costs less than writing and reading it.

    What reads it at one depth of one tree shares a loop, and computes it once; what reads it there
    more than once finds it in the nearest cache.
    """
    evaluations = [
        times for nests in grouped.readers.get(buffer, []) for times in _evaluations(nests, buffer)
    ]
    times, reads = sum(evaluations), len(evaluations)
    cost_of_memory = memory_cost(buffer.nbytes, reads) + LOAD_COST * (times - reads)
    return price.again * times - price.once <= cost_of_memory


def _evaluations(nests: Iterable[tuple[int, Nest]], buffer: Buffer) -> list[float]:
    """How often an element of the buffer would be computed by the nests of a tree that read it, at
    each depth at which they do."""
    found: dict[int, float] = {}
    for depth, nest in nests:
        repeats = max(float(nest.iterations) / max(float(buffer.size), 1.0), 1.0)
        found[depth] = max(found.get(depth, 0.0), repeats)
    return list(found.values())


def _depths(tree: Tree) -> Iterator[tuple[int, Nest]]:
    """The nests of a tree, each with the number of loops that end before it begins."""
    depth: dict[Buffer, int] = {}
    for nest in tree.all_nests:
        level = max((depth[b] + 1 for b in nest.reads if b in depth), default=0)
        if nest.op is not None or nest.rank == tree.root:
            depth[nest.target] = level
        else:
            depth[nest.target] = level - 1  # a map is no barrier for those who share its loop
        yield level, nest


@dataclass(eq=False)
class _Group:
    """Nests that will be one tree; axes: per root loop, the loop of each nest that it is.

    members, reached, after, before: sets of positions as the bits of an integer, those of the nests
    themselves, of all that depends on them, of what reads their results and of whose they read.
    """

    number: int
    nests: list[Nest]
    axes: list[dict[Nest, int]]
    last: list[Nest] = field(default_factory=list)
    members: int = 0
    reached: int = 0
    after: int = 0
    before: int = 0

    @property
    def all_nests(self) -> list[Nest]:
        return [*self.nests, *self.last]

    def extents(self) -> list[int]:
        nest = self.nests[0]
        return [nest.extents[axis[nest]] for axis in self.axes]


@remembered
def _vector_loop(nest: Nest) -> int | None:
    """The loop of the result that a nest by itself runs 16 lanes wide."""
    best = VectorCost(nest).best(range(nest.rank))
    return None if best is None else best[1]


class _Grouping:
    def __init__(self, fused: Fused, separate: bool):
        self.fused, self.separate = fused, separate
        self.items = fused.nests
        self.position = {item: k for k, item in enumerate(self.items)}
        self.writer: dict[Buffer, list[Nest | Escape]] = {}
        self.after: dict[Nest | Escape, set[Nest | Escape]] = {}
        self.before: dict[Nest | Escape, set[Nest | Escape]] = {}
        self.reached: dict[Nest | Escape, int] = {}  # positions of an item and what depends on it
        self.readers: dict[Buffer, list[Nest | Escape]] = {}
        self.group_of: dict[Nest | Escape, _Group] = {}
        self.several: dict[_Group, None] = {}  # the groups of more than one nest
        self.taker: _Group | None = None  # of single numbers, see `with_room`
        self.noted: dict[tuple[Buffer, Buffer], str] = {}
        self.costs: dict[tuple[_Group, _Group], tuple[Any, ...]] = {}
        self.made: dict[_Group, Tree] = {}
        self.iterations: dict[Nest, int] = {}
        self.size: Callable[[int], int] = int

    def run(self, forced: Iterable[tuple[str, str]] = ()) -> Grouped:
        self.find_dependencies()
        for number, item in enumerate(self.items):
            if isinstance(item, Nest):
                self.group_of[item] = _Group(number, [item], self.own_axes(item))
                self.measure(self.group_of[item])
            else:
                self.group_of[item] = _Group(number, [], [])
        if not self.separate:
            for item in self.items:
                if isinstance(item, Nest):
                    self.join_producers(item)
            self.join_siblings()
            self.join_pieces()
            for item in self.items:
                if isinstance(item, Nest):
                    self.append_last(item)
        for source, target in forced:
            self.force(source, target)
        return Grouped(self)

    # -- dependencies -------------------------------------------------------------------------

    def find_dependencies(self) -> None:
        """Edges from what writes a buffer to what reads or overwrites it later, and from readers to
        what overwrites."""
        readers = self.readers
        for item in self.items:
            self.after[item], self.before[item] = set(), set()
            for buffer in self.reads(item):
                for writer in self.writer.get(buffer, []):
                    self.edge(writer, item)
                readers.setdefault(buffer, []).append(item)
            target = self.target(item)
            for earlier in [*self.writer.get(target, []), *readers.get(target, [])]:
                if earlier is not item:
                    self.edge(earlier, item)
            self.writer.setdefault(target, []).append(item)
        for item in reversed(self.items):
            reached = 1 << self.position[item]
            for later in self.after[item]:
                reached |= self.reached[later]
            self.reached[item] = reached

    def edge(self, first: Nest | Escape, second: Nest | Escape) -> None:
        self.after[first].add(second)
        self.before[second].add(first)

    def reads(self, item: Nest | Escape) -> list[Buffer]:
        if isinstance(item, Nest):
            return list(item.reads)
        return [self.fused.place[i] for i in item.inputs]

    def target(self, item: Nest | Escape) -> Buffer:
        return item.target if isinstance(item, Nest) else self.fused.place[item]

    @staticmethod
    def own_axes(nest: Nest) -> list[dict[Nest, int]]:
        """Every loop of the result is a root loop, unless it has one iteration."""
        return [{nest: k} for k in range(nest.rank) if nest.extents[k] != 1]

    # -- joining ------------------------------------------------------------------------------

    def join_producers(self, nest: Nest) -> None:
        """Joins the nest's group with those of what it reads, the latest first."""
        if nest.scatter:
            return
        sources = {
            self.group_of[w]
            for buffer in nest.reads
            for w in self.writer.get(buffer, [])
            if self.group_of[w] is not self.group_of[nest]
        }
        for source in sorted(sources, key=lambda g: -g.number):
            mine = self.group_of[nest]
            if source is not mine:
                reason = self.join_source(source, mine)
                if reason is not None:
                    self.note(source, nest, reason)

    def join_source(self, source: _Group, group: _Group) -> str | None:
        """Joins a group with one that reads it, or says why not."""
        between = self.between(source, group)
        if between is not None:  # no rule allows what this forbids, and it is known soonest
            return BETWEEN.format(between.name)
        axes = self.common_axes(source, group)
        reason = self.objection(source, group, axes)
        if reason is None:
            self.join(source, group, axes)
        elif reason in COSTS and self.join_following(source, group):
            return None
        return reason

    def join_following(self, source: _Group, group: _Group) -> bool:
        """Joins a group that follows the loops at which another one reads it."""
        paths = self.paths(source, group)
        if not paths:
            return False
        nests, axes_before = list(source.nests), source.axes
        self.follow(source, paths)
        axes = self.common_axes(source, group)
        if self.objection(source, group, axes) is None:
            self.join(source, group, axes)
            return True
        self.replace(source, dict(zip(source.nests, nests)))
        source.axes = axes_before
        return False

    def paths(self, source: _Group, group: _Group) -> dict[int, Path]:
        """By the number of a root loop of the source, the path at which the group reads it, where
        that is not a loop like it; nothing if something else reads what the source makes."""
        inside = {*source.nests, *group.nests}
        for nest in source.nests:
            others = any(r not in inside for r in self.readers.get(nest.target, []))
            if others or nest.target.role != "tmp" or len(self.writer[nest.target]) > 1:
                return {}
        found: list[set[Path | None]] = [set() for _ in source.axes]
        for writer, nest, at in self.reads_between(source, group):
            loops = {axis[nest]: b for b, axis in enumerate(group.axes)}
            for a, axis in enumerate(source.axes):
                part = None if writer.parts is None else writer.parts[axis[writer]]
                path = part and path_of(at[part.dim], nest.extents, loops)
                found[a].add(path)
        paths: dict[int, Path] = {}
        for a, (axis, each) in enumerate(zip(source.axes, found)):
            path = each.pop() if len(each) == 1 else None
            extent = source.extents()[a]
            if path is not None and not path.is_plain(extent) and not path.wastes(extent):
                if all(can_follow(nest, loop) for nest, loop in axis.items()):
                    paths[a] = path
        return paths

    def follow(self, source: _Group, paths: dict[int, Path]) -> None:
        """Replaces root loops of a group by paths."""
        new: dict[Nest, Nest] = {}
        became: dict[Nest, list[list[int]]] = {}
        for nest in source.nests:
            loops = {source.axes[a][nest]: path for a, path in paths.items()}
            new[nest], became[nest] = following(nest, loops)
        axes = [
            {new[nest]: became[nest][loop][k] for nest, loop in axis.items()}
            for a, axis in enumerate(source.axes)
            for k in range(len(paths[a].steps) if a in paths else 1)
        ]
        self.replace(source, new)
        source.axes = axes

    def replace(self, group: _Group, new: dict[Nest, Nest]) -> None:
        """Puts other nests in the place of a group's."""

        def current(item: Any) -> Any:
            return new.get(item, item)

        group.nests = list(map(current, group.nests))
        self.items[:] = map(current, self.items)
        for table in (self.writer, self.readers):
            for buffer, items in table.items():
                table[buffer] = list(map(current, items))
        self.position = {current(k): v for k, v in self.position.items()}
        self.reached = {current(k): v for k, v in self.reached.items()}
        self.group_of = {current(k): v for k, v in self.group_of.items()}
        self.after = {current(k): set(map(current, v)) for k, v in self.after.items()}
        self.before = {current(k): set(map(current, v)) for k, v in self.before.items()}

    def note(self, source: _Group, nest: Nest, reason: str) -> None:
        made = {n.target for n in source.all_nests}
        for buffer in nest.reads:
            if buffer in made or (not made and self.is_escape_of(source, buffer)):
                self.noted[buffer, nest.target] = reason

    def is_escape_of(self, group: _Group, buffer: Buffer) -> bool:
        """True if a group is an escape that makes the buffer."""
        return any(self.group_of[writer] is group for writer in self.writer.get(buffer, []))

    def common_axes(self, source: _Group, group: _Group) -> list[dict[Nest, int]]:
        """Root loops that both can have: of each root loop of the source, the loop of the group's
        nests at which all its results are read."""
        matches: list[set[int | None]] = [set() for _ in source.axes]
        for writer, nest, at in self.reads_between(source, group):
            for a, b in enumerate(self.axes_of_read(source, writer, group, nest, at)):
                matches[a].add(b)
        result: list[dict[Nest, int]] = []
        taken: set[int] = set()
        for a, found_axes in enumerate(matches):
            (b,) = found_axes if len(found_axes) == 1 else (None,)
            if b is not None and b not in taken:
                taken.add(b)
                result.append({**source.axes[a], **group.axes[b]})
        return result

    def reads_between(
        self, source: _Group, group: _Group
    ) -> Iterator[tuple[Nest, Nest, tuple[Expr, ...]]]:
        """Every read by a group of what the source makes, but for its last part: writer, reader and
        indices."""
        made: dict[Buffer, list[Nest]] = {}
        for writer in source.nests:
            made.setdefault(writer.target, []).append(writer)
        for nest in group.nests:
            for name, at in nest.reads_at:
                for writer in made.get(nest.buffers[name], ()):
                    yield writer, nest, at

    @staticmethod
    def axes_of_read(
        source: _Group, writer: Nest, group: _Group, nest: Nest, at: tuple[Expr, ...]
    ) -> list[int | None]:
        """For each root loop of the source, the root loop of the group that a read runs along."""
        if writer.parts is None:
            return [None] * len(source.axes)
        found: list[int | None] = []
        for axis in source.axes:
            part = writer.parts[axis[writer]]
            modulus = part.modulus
            e = simplify(_loop_of(part, at[part.dim]), nest.extents)
            if not (isinstance(e, tuple) and e[0] == "i" and nest.extents[e[1]] == modulus):
                e = simplify(("mod", e, modulus), nest.extents)
            place = None
            if isinstance(e, tuple) and e[0] == "i" and nest.extents[e[1]] == modulus:
                place = next((b for b, g in enumerate(group.axes) if g[nest] == e[1]), None)
            found.append(place)
        return found

    def objection(self, source: _Group, group: _Group, axes: list[dict[Nest, int]]) -> str | None:
        """Why two groups must not or should not be one, None if they should."""
        if source.last:
            return "it reads what a last part makes"
        nests = [*source.nests, *group.nests]
        return self.rule_against(source, group, axes) or self.cost_objection(
            source, group, axes, nests
        )

    def rule_against(
        self, source: _Group, group: _Group, axes: list[dict[Nest, int]]
    ) -> str | None:
        """The rule that keeps two groups apart."""
        nests = [*source.nests, *group.nests]
        if not source.nests or not group.nests:
            return "a host callback"
        if any(is_barrier(n.nodes[-1]) for n in source.nests):
            return "stop_fuse()"
        if any(n.scatter for n in nests):
            return "a scatter has a kernel of its own"
        targets = [n.target for n in nests]
        if any(n.parts is None and len(self.writer[n.target]) > 1 for n in source.nests):
            return "its source is filled before pieces of it are written"
        if len(set(targets)) < len(targets) and not _write_apart(nests, axes):
            return "both write one buffer"
        contractions = [n for n in nests if n.contraction]
        if len(contractions) > 1:
            return "a kernel has one contraction at most"
        if contractions and not self.keeps_tiles(contractions[0], nests, axes):
            made = {n.target for n in source.nests}
            return TILES if made.isdisjoint(contractions[0].reads) else OPERAND
        if len(nests) > LARGEST_TREE:
            return f"the kernel would have more than {LARGEST_TREE} nests"
        between = self.between(source, group)
        if between is not None:
            return BETWEEN.format(between.name)
        return None

    def keeps_tiles(
        self, contraction: Nest, nests: list[Nest], axes: list[dict[Nest, int]]
    ) -> bool:
        """True if all runs along the results of a contraction; or if these come in a few layers,
        loops of both factors, which nothing else reads, and of which few results are made at once,
        that no other nest reads.
        """
        inside = {nest: self.loops_inside(nest, axes) for nest in nests}
        layers = inside.pop(contraction)
        if not layers:
            return not any(inside.values())
        readers = set(self.readers.get(contraction.target, []))
        alone = contraction.target.role == "tmp" and readers <= set(nests)
        maps = all(nest.op is None for nest in inside)
        each = {contraction: layers, **inside}
        few = all(_are_few([nest.extents[k] for k in loops]) for nest, loops in each.items())
        read = {buffer for nest in inside for buffer in nest.reads}
        last = not any(loops and nest.target in read for nest, loops in inside.items())
        return alone and maps and few and last and set(layers) <= loops_of_both(contraction)

    @staticmethod
    def loops_inside(nest: Nest, axes: list[dict[Nest, int]]) -> list[int]:
        """The loops of a nest inside the root loops, other than those that it reduces if it is a
        contraction."""
        root = {axis[nest] for axis in axes}
        last = nest.rank if nest.contraction else len(nest.extents)
        return [k for k in range(last) if k not in root and nest.extents[k] != 1]

    def cost_objection(
        self, source: _Group, group: _Group, axes: list[dict[Nest, int]], nests: list[Nest]
    ) -> str | None:
        items = 1
        for axis in axes:
            nest = nests[0]
            items *= int(nest.extents[axis[nest]])
        work = max(map(self.work, nests))
        enough = items >= ENOUGH_ITEMS or (items >= FEW_ITEMS and work <= LITTLE_WORK)
        if not enough and work > SMALL_WORK:
            return FEW
        roots = [self.preferred_root(nest, axes) for nest in nests]
        if any(r is not None and self.adds_rows(nest, axes) for nest, r in zip(nests, roots)):
            return ROWS
        across = sum(self.work(n) for n, r in zip(nests, roots) if r is not None)
        if any(n.lanes for n in nests):
            if across * SCALAR_COST > sum(map(self.work, nests)):
                return LANES_DIFFER
            return None
        if len({r for r in roots if r is not None}) > 1:
            return LOOPS_DIFFER
        return None

    def work(self, nest: Nest) -> int:
        """The iterations of a nest as a plain number."""
        found = self.iterations.get(nest)
        if found is None:
            found = self.iterations[nest] = int(nest.iterations)
        return found

    @staticmethod
    def adds_rows(nest: Nest, axes: list[dict[Nest, int]]) -> bool:
        """True for sums of pieces of many rows, whose pieces would not be root loops."""
        if nest.contraction:
            return False  # see `keeps_tiles`
        root = {axis[nest] for axis in axes}
        pieces = any(k not in root and nest.extents[k] != 1 for k in range(nest.rank))
        return pieces and hint(nest.iterations) * nest.target.dtype.itemsize >= MANY_ROWS

    @staticmethod
    def preferred_root(nest: Nest, axes: list[dict[Nest, int]]) -> int | None:
        """The common loop along which a reduction adds up whole vectors, None for any other."""
        if nest.op is None or nest.lanes:
            return None
        vector = _vector_loop(nest)
        return next((a for a, axis in enumerate(axes) if axis[nest] == vector), None)

    def measure(self, group: _Group) -> None:
        """Notes which items are a group's, and which depend on it."""
        for nest in group.all_nests:
            group.members |= 1 << self.position[nest]
            group.reached |= self.reached[nest]
            group.after |= self.positions(self.after[nest])
            group.before |= self.positions(self.before[nest])
        if len(group.all_nests) > 1:
            self.several[group] = None

    def between(self, source: _Group, group: _Group) -> Buffer | None:
        """What something outside makes that depends on one of the groups and is needed by one."""
        inside = source.members | group.members
        reached = 0  # what lies outside and depends on one of them, with all that depends on that
        left = (source.after | group.after) & ~inside
        while left:
            first = (left & -left).bit_length() - 1
            reached |= self.reached[self.items[first]]
            left &= ~reached
        grows = True
        while grows and not reached & inside:
            grows = False
            for other in self.several:
                if other.members & reached and other.reached & ~reached:
                    reached |= other.reached  # what depends on one of them depends on all
                    grows = True
        if not reached & inside:
            return None
        needed = (source.before | group.before) & reached & ~inside
        return self.target(self.items[needed.bit_length() - 1])

    def positions(self, items: Iterable[Nest | Escape]) -> int:
        """The set of their positions."""
        found = 0
        for item in items:
            found |= 1 << self.position[item]
        return found

    def join(self, source: _Group, group: _Group, axes: list[dict[Nest, int]]) -> None:
        nests = sorted([*source.nests, *group.nests], key=self.position.__getitem__)
        number = max(source.number, group.number)
        merged = _Group(number, nests, axes, [*source.last, *group.last])
        for nest in merged.all_nests:
            self.group_of[nest] = merged
        self.several.pop(source, None)
        self.several.pop(group, None)
        self.measure(merged)

    # -- siblings -----------------------------------------------------------------------------

    def join_siblings(self) -> None:
        """Joins groups that walk over the same large buffer in the same way."""
        readers: dict[Buffer, list[Nest]] = {}
        for item in self.items:
            if isinstance(item, Nest):
                for buffer in item.reads:
                    if int(buffer.nbytes) >= WORTH_SHARING:
                        readers.setdefault(buffer, []).append(item)
        refused: set[tuple[_Group, _Group, tuple[tuple[int, int], ...]]] = set()
        for buffer, nests in readers.items():
            for position, second in enumerate(nests):
                for first in nests[:position]:
                    a, b = self.group_of[first], self.group_of[second]
                    pairs = None if a is b else self.alike_axes(a, b, first, second, buffer)
                    if pairs and (a, b, pairs) not in refused and not self.join_alike(a, b, pairs):
                        refused.add((a, b, pairs))  # for good: groups only grow

    def join_alike(self, a: _Group, b: _Group, pairs: Iterable[tuple[int, int]]) -> bool:
        """Joins two groups over these pairs of their root loops; False if they must not be."""
        axes = [{**a.axes[p], **b.axes[q]} for p, q in pairs]
        source, group = (a, b) if a.number < b.number else (b, a)
        if not self.reads_along(a, b, axes) or self.objection(source, group, axes) is not None:
            return False
        self.join(source, group, axes)
        return True

    def reads_along(self, one: _Group, other: _Group, axes: list[dict[Nest, int]]) -> bool:
        """True if what two groups read of each other is made by the same iteration of `axes`."""
        for source, group in ((one, other), (other, one)):
            for writer, nest, at in self.reads_between(source, group):
                loops = {axis[writer]: axis[nest] for axis in axes}
                found = self.axes_of_read(source, writer, group, nest, at)
                for axis, b in zip(source.axes, found):
                    loop = None if b is None else group.axes[b][nest]
                    if axis[writer] in loops and loops[axis[writer]] != loop:
                        return False
        return True

    @staticmethod
    def alike_axes(
        a: _Group, b: _Group, first: Nest, second: Nest, buffer: Buffer
    ) -> tuple[tuple[int, int], ...] | None:
        """The root loops of two groups paired by the dimension of a buffer that they walk along;
        None unless all pair up, and for tiles."""
        if any(n.contraction for n in (*a.nests, *b.nests)):
            return None
        dims: list[dict[tuple[int, int], int]] = []
        for group, nest in ((a, first), (b, second)):
            loops = {axis[nest]: k for k, axis in enumerate(group.axes)}
            found: dict[tuple[int, int], int] = {}  # by the dimension and how far a step goes
            for name, at in nest.reads_at:
                if nest.buffers[name] is buffer:
                    for d, e in enumerate(at):
                        for atom, step in terms_of(e, nest.extents).items():
                            if atom is not None and atom[0] == "i" and atom[1] in loops:
                                found[d, step] = loops[atom[1]]
            dims.append(found)
        shared = sorted(dims[0].keys() & dims[1].keys())
        pairs = tuple([(dims[0][d], dims[1][d]) for d in shared])
        if len(pairs) != len(a.axes) or len(pairs) != len(b.axes) or not pairs:
            return None
        if any(a.extents()[p] != b.extents()[q] for p, q in pairs):
            return None
        return pairs

    # -- pieces -------------------------------------------------------------------------------

    def join_pieces(self) -> None:
        """Joins what fills a few boxes of one buffer: each iteration of leading loops that are as
        long in all boxes fills its part of all of them."""
        for writers in self.writer.values():
            if 1 < len(writers) <= MOST_PIECES:
                for one, other in itertools.pairwise(writers):
                    self.join_boxes(one, other)

    def join_boxes(self, one: Nest | Escape, other: Nest | Escape) -> None:
        source, group = self.group_of[one], self.group_of[other]
        if source is group or isinstance(one, Escape) or isinstance(other, Escape):
            return
        if one.parts is None or other.parts is None:
            return
        axes: list[dict[Nest, int]] = []
        for loop, (mine, its) in enumerate(zip(one.parts, other.parts)):
            if mine.modulus != its.modulus:
                break
            a = next((axis for axis in source.axes if axis[one] == loop), None)
            b = next((axis for axis in group.axes if axis[other] == loop), None)
            if a is not None and b is not None:
                axes.append({**a, **b})
        if not axes or not self.reads_along(source, group, axes):
            return
        if self.objection(source, group, axes) is None:
            self.join(source, group, axes)

    # -- last parts ---------------------------------------------------------------------------

    def append_last(self, nest: Nest) -> None:
        """What finishes the reduction of a whole tree, or makes a few numbers of it, with work for
        one thread only, runs at the end of that tree; so does a single number made of inputs."""
        mine = self.group_of[nest]
        nests = mine.all_nests
        if nest is not nests[0] or not all(self.is_small(n) for n in nests):
            return
        sources = {self.group_of[w] for n in nests for b in n.reads for w in self.writer.get(b, [])}
        sources -= {mine}
        alone = len(nests) == 1 and nest.iterations == 1
        if not sources and alone:
            sources = self.with_room(mine)
        if not sources:
            return
        source = max(sources, key=lambda g: g.number)
        if len(source.all_nests) + len(nests) > LARGEST_TREE:
            return
        finishing = alone or any(n.op is not None for n in nests)
        few = all(int(n.iterations) <= FEW_NUMBERS for n in nests)
        following = few and any(m.target in n.reads for n in nests for m in source.last)
        if not source.nests or not (finishing or following):
            return
        if any(n.scatter or n.contraction for n in source.nests):
            return
        if any(len(self.writer[n.target]) > 1 for n in source.nests):
            return
        if self.between(source, mine) is not None:
            return
        if any(not self.after[n].isdisjoint(source.all_nests) for n in nests):
            return
        source.last += nests
        for moved in nests:
            self.group_of[moved] = source
        source.number = max(source.number, mine.number)
        self.several.pop(mine, None)
        self.measure(source)

    def with_room(self, mine: _Group) -> set[_Group]:
        """A group that takes single numbers: the first that is no contraction, until it is full."""
        taker = self.taker
        if taker is None or not self.has_room(taker):
            groups = (g for g in self.group_of.values() if g.nests and g is not mine)
            taker = self.taker = next(filter(self.has_room, groups), None)
        return set() if taker is None or taker is mine else {taker}

    def has_room(self, group: _Group) -> bool:
        """True if a group that is still one has room for a nest."""
        return (
            self.group_of[group.nests[0]] is group
            and len(group.all_nests) < LARGEST_TREE
            and not any(n.contraction for n in group.nests)
        )

    def is_small(self, nest: Nest) -> bool:
        plain = not nest.scatter and not nest.contraction and len(self.writer[nest.target]) == 1
        return plain and int(nest.iterations) <= SMALL_WORK

    # -- results ------------------------------------------------------------------------------

    def boundaries(self, size: Callable[[int], int]) -> list[Boundary]:
        """Why the kernels that there are at last are not fewer: each buffer and reader once."""
        self.size = size
        self.costs.clear()
        found: dict[tuple[Buffer, Buffer], Boundary] = {}
        for item in self.items:
            for buffer in self.reads(item):
                for writer in self.writer.get(buffer, []):
                    apart = self.group_of[writer] is not self.group_of[item]
                    pair = buffer, self.target(item)
                    if apart and pair not in found and writer in self.before[item]:
                        found[pair] = self.boundary(writer, item, *pair)
        return list(found.values())

    def boundary(
        self, writer: Nest | Escape, reader: Nest | Escape, source: Buffer, target: Buffer
    ) -> Boundary:
        one, other = self.group_of[writer], self.group_of[reader]
        if isinstance(writer, Escape) or isinstance(reader, Escape):
            return Boundary(source, target, "a host callback")
        if self.separate:
            return Boundary(source, target, "nothing is fused")
        if writer in one.last:
            return Boundary(source, target, "it reads what a last part makes")
        if reader in other.last:
            return Boundary(source, target, "it finishes its kernel, when all of that has run")
        if (one, other) not in self.costs:
            self.costs[one, other] = self.cost_between(one, other)
        rule, *cost = self.costs[one, other]
        if rule is None:  # nothing is against it now
            noted = self.noted.get((source, target), UNDECIDED)
            return Boundary(source, target, COSTS.get(noted, noted) or UNDECIDED)
        return Boundary(source, target, COSTS.get(rule, rule), *cost)

    def cost_between(self, one: _Group, other: _Group) -> tuple[Any, ...]:
        """The rule that keeps two groups apart, None if there is none any more, and if it is one of
        `COSTS` what merging costs."""
        between = self.between(one, other)
        if between is not None:
            return (BETWEEN.format(between.name),)
        axes = self.common_axes(one, other)
        nests = [*one.nests, *other.nests]
        rule = self.rule_against(one, other, axes) or self.cost_objection(one, other, axes, nests)
        if rule not in COSTS:
            return (rule,)
        vector = self.side_by_side(nests, axes)
        iterations = 1
        for number, axis in enumerate(axes):
            n = self.size(nests[0].extents[axis[nests[0]]])
            iterations *= -(-n // LANES) if number == vector else n
        loops = list(map(self.size, one.extents())), list(map(self.size, other.extents()))
        few = iterations if iterations < MOST_CHUNKS else None
        return rule, loops, few, read_again(nests, axes, self.size, vector)

    def side_by_side(self, nests: list[Nest], axes: list[dict[Nest, int]]) -> int | None:
        """The root loop of which a kernel of these nests would run LANES iterations at once."""
        if any(n.lanes for n in nests):
            return None
        ordered = sorted(nests, key=self.position.__getitem__)
        tree = Tree(len(axes), [self.rooted(nest, axes) for nest in ordered])
        return None if _has_layers(tree) else vector_of_root(tree)

    def force(self, source: str, target: str) -> None:
        """Makes the groups of a boundary one."""
        by_name = {self.target(item).name: self.group_of[item] for item in self.items}
        one, other = by_name[source], by_name[target]
        if not one.nests or not other.nests or one is other:
            raise CompilerBug(f"group: {source} and {target} are not in two kernels")
        between = self.between(one, other)
        if between is not None:
            raise CompilerBug(
                f"group: {between.name} stands between {source} and {target}: merged, each of two "
                "kernels would need the other first"
            )
        self.join(one, other, self.common_axes(one, other))

    def ordered(self) -> list[_Group | Escape]:
        """Groups in an order in which they can run: of those that can, the earliest first."""
        groups: dict[_Group, set[_Group]] = {}
        item_of: dict[_Group, Nest | Escape] = {}
        for item in self.items:
            mine = self.group_of[item]
            item_of.setdefault(mine, item)
            needs = groups.setdefault(mine, set())
            needs |= {self.group_of[b] for b in self.before[item]} - {mine}
        done: set[_Group] = set()
        order: list[_Group | Escape] = []
        waiting = list(groups)
        while waiting:
            ready = next(g for g in waiting if groups[g] <= done)
            waiting.remove(ready)
            done.add(ready)
            item = item_of[ready]
            order.append(item if isinstance(item, Escape) else ready)
        return order

    def finished(self, made: _Group | Escape) -> Tree | Escape:
        """The tree of a group: root loops first in every nest, intermediates made local."""
        if isinstance(made, Escape):
            return made
        if made not in self.made:
            self.made[made] = self.tree(made)
        return self.made[made]

    def tree(self, made: _Group) -> Tree:
        if len(made.all_nests) == 1:
            return tree_of(made.nests[0])
        nests = [self.rooted(nest, made.axes) for nest in made.nests]
        tree = Tree(len(made.axes), nests, made.last)
        _make_local(tree, self.held(made))
        return tree

    @staticmethod
    def outline(made: _Group) -> Tree:
        """The tree of a group, but for the order of its nests' loops."""
        alone = made.nests[0] if len(made.all_nests) == 1 else None
        if alone is not None:
            return Tree(len(alone.parallel) if alone.scatter else alone.rank, [alone])
        return Tree(len(made.axes), made.nests, made.last)

    @staticmethod
    def rooted(nest: Nest, axes: list[dict[Nest, int]]) -> Nest:
        first = [axis[nest] for axis in axes]
        order = [*first, *(k for k in range(len(nest.extents)) if k not in first)]
        return nest if order == sorted(order) else permuted(nest, order)

    @staticmethod
    def is_large(made: _Group, writer: Nest | Escape) -> bool:
        """True if what a nest of a group makes in an iteration is too large to be local, so that no
        tree is needed to tell."""
        if not isinstance(writer, Nest) or writer.parts is None or writer.piece:
            return False
        root = {axis[writer] for axis in made.axes if writer in axis}
        inside = [part.modulus for k, part in enumerate(writer.parts) if k not in root]
        return int(size_of(inside)) * writer.target.dtype.itemsize > LARGEST_LOCAL

    def held(self, made: _Group) -> set[Buffer]:
        """The buffers of the group that are results, or of which something else, as its last part,
        reads or writes."""
        inside = set(made.nests)
        written = {nest.target for nest in made.all_nests}
        return {
            b
            for b in written
            if b.role == "out" or not inside.issuperset([*self.readers.get(b, []), *self.writer[b]])
        }


def _loop_of(part: Part, index: Expr) -> Expr:
    """(index - low) // divisor: the loop of a part, but for the modulus."""
    e: Expr = ("sub", index, part.low) if part.low else index
    if part.divisor == -1:
        return ("mul", e, -1)
    return ("floordiv", e, part.divisor) if part.divisor != 1 else e


def _write_apart(nests: list[Nest], axes: list[dict[Nest, int]]) -> bool:
    """True if nests that fill boxes of one buffer may run in any order of iterations: an iteration
    of the root loops fills the same part of the dimensions that they are, or the boxes are
    disjoint."""
    for one, other in itertools.combinations(nests, 2):
        if one.target is other.target and not _disjoint(one, other):
            if one.parts is None or other.parts is None:
                return False
            if any(one.parts[axis[one]] != other.parts[axis[other]] for axis in axes):
                return False
    return True


def _disjoint(one: Nest, other: Nest) -> bool:
    """True if two boxes of one buffer have no element in common."""
    if one.parts is None or other.parts is None:
        return False
    return any(
        a.low + a.modulus <= b.low or b.low + b.modulus <= a.low
        for a, b in zip(one.parts, other.parts)
        if a.divisor == b.divisor == 1 and a.dim == b.dim
    )


def _are_few(extents: list[int]) -> bool:
    """True for loops of a known number of iterations, MOST_LAYERS at most."""
    return all(type(n) is int for n in extents) and math.prod(extents) <= MOST_LAYERS


def _has_layers(tree: Tree) -> bool:
    """True if a tree begins with a contraction of which an iteration makes several results."""
    first = tree.nests[0]
    return first.contraction and any(n != 1 for n in first.extents[tree.root : first.rank])


def _make_local(tree: Tree, held: set[Buffer]) -> None:
    """Intermediates that only this tree reads and writes live within one iteration of the root
    loops; `held` are those of which something else reads or writes."""
    tree.across = not _has_layers(tree) and runs_across(tree)
    for buffer in dict.fromkeys(nest.target for nest in tree.nests):
        writers = [k for k, nest in enumerate(tree.nests) if nest.target is buffer]
        first = tree.nests[writers[0]]
        if buffer.role != "tmp" or buffer in held or first.parts is None:
            continue
        if tree.across and len(first.parts) > tree.root:
            continue  # every lane would need an array of its own
        local = _LocalArray(tree.root, first, len(writers) > 1)
        readers = [k for k, nest in enumerate(tree.nests) if buffer in nest.reads]
        if local.nbytes > LARGEST_LOCAL or not all(local.is_of(tree.nests[k]) for k in writers):
            continue
        if any(k <= writers[-1] or not local.fits(tree.nests[k]) for k in readers):
            continue
        buffer.role, buffer.size = "local", local.size
        for k in writers:
            tree.nests[k] = local.written(tree.nests[k])
        for k in readers:
            tree.nests[k] = local.read_by(tree.nests[k])


class _LocalArray:
    """What nests make of one buffer in one iteration of the root loops: the dimensions, or parts of
    them, that are no root loops, in row-major order."""

    def __init__(self, root: int, nest: Nest, pieced: bool):
        assert nest.parts is not None
        self.root, self.buffer, self.parts, self.pieced = root, nest.target, nest.parts, pieced
        whole = self.buffer.shape
        self.axes = [
            Part(part.dim, 1, whole[part.dim]) if pieced else part for part in nest.parts[root:]
        ]
        self.size = 1
        for axis in self.axes:
            self.size *= axis.modulus

    @property
    def nbytes(self) -> int:
        return int(self.size) * self.buffer.dtype.itemsize

    def is_of(self, nest: Nest) -> bool:
        """True if one iteration of a nest writes into one array."""
        if nest.parts is None or nest.parts[: self.root] != self.parts[: self.root]:
            return False
        return [part.dim for part in nest.parts] == [part.dim for part in self.parts]

    def offset(self, indices: list[Expr], extents: list[int]) -> Expr:
        return simplify(flatten(indices, [axis.modulus for axis in self.axes]), extents)

    def written(self, nest: Nest) -> Nest:
        """The nest with the result at its place in the array."""
        assert nest.parts is not None
        own: list[Expr] = [
            ("add", ("i", k), part.low) if self.pieced else ("i", k)
            for k, part in enumerate(nest.parts[self.root :], start=self.root)
        ]
        new = map_nest(nest, lambda e: e)
        new.offset = self.offset(own, nest.extents)
        return new

    def place(self, reader: Nest, at: tuple[Expr, ...]) -> Expr | None:
        """Where a reader finds an element; None if it is not plain."""
        indices: list[Expr] = []
        for axis in self.axes:
            if axis.dim >= len(at):
                return None  # read as another shape
            whole = axis[1:] == (1, self.buffer.shape[axis.dim], 0)
            e = _loop_of(axis, at[axis.dim])
            indices.append(e if whole else ("mod", e, axis.modulus))
        return self.offset(indices, reader.extents)

    def offsets(self, reader: Nest) -> dict[Expr, Expr]:
        """From each offset at which a reader loads the buffer to that in the array."""
        found: dict[Expr, Expr] = {}
        for name, at in reader.reads_at:
            if reader.buffers[name] is self.buffer and len(at) == len(self.buffer.shape):
                place = self.place(reader, at)
                if place is not None:
                    global_offset = flatten(at, self.buffer.shape)
                    found[simplify(global_offset, reader.extents)] = place
        return found

    def loads(self, reader: Nest) -> Iterator[Load]:
        for value, _ in dependencies(reader):
            if isinstance(value, Load) and reader.buffers[value.buffer] is self.buffer:
                yield value

    def fits(self, reader: Nest) -> bool:
        known = self.offsets(reader)
        return all(simplify(v.offset, reader.extents) in known for v in self.loads(reader))

    def read_by(self, reader: Nest) -> Nest:
        """The reader with its loads taken from the array, which has room for all iterations."""
        known, buffer = self.offsets(reader), self.buffer
        exists = conjuncts(reader.exists)

        def local(value: Value) -> Value:
            if not isinstance(value, Load) or reader.buffers[value.buffer] is not buffer:
                return value
            place = known[simplify(value.offset, reader.extents)]
            guard: Expr = TRUE
            for part in conjuncts(value.guard):
                guard = guard if part in exists else conjunction(guard, part)
            return Load(value.buffer, place, guard, value.fill, value.dtype)

        return map_values(reader, local)
