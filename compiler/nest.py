"""What fusion produces: nests of loops around one expression, each filling (part of) a buffer.

There are three kinds:

    buffer[offset(out loops)] = value(out loops)                          a map
    buffer[offset(out loops)] = op over reduced loops of value(all loops) a reduction
    buffer[offset(all loops)] op= value(all loops)                        a scatter
"""

from __future__ import annotations

from collections.abc import ValuesView
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from metaop.dtype import DType
from metaop.errors import CompilerBug
from metaop.graph import Node, ScalarFunction, size_of
from metaop.index import TRUE, Expr, integers_of, loops_of, remembered, show

from .loops import (
    Apply,
    Check,
    Condition,
    Const,
    IndexValue,
    Load,
    Op,
    Value,
    show_value,
)


@dataclass(eq=False)
class Buffer:
    """Memory that kernels read and write; elements of one dtype.

    role: "in", "out", "tmp" (in the arena), "counter" (one integer of a kernel), "local" (an array
    or, of one element, a number that lives within one iteration of a kernel's root loops).
    """

    name: str
    dtype: DType
    size: int
    role: str = "tmp"
    position: int = -1  # of an input
    shape: tuple[int, ...] = ()  # of the value that it was made for

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.size * self.dtype.itemsize


@dataclass(eq=False)
class CheckSite:
    """What a kernel reports when a check fails: the node whose index or divisor is wrong."""

    node: Node
    low: int
    high: int


class Part(NamedTuple):
    """Loop = ((index - low) // divisor) % modulus of dimension `dim` of the result; a divisor of -1
    is that of a loop that runs backwards."""

    dim: int
    divisor: int
    modulus: int
    low: int = 0


@dataclass(eq=False)
class Tree:
    """What becomes one kernel: nests that share their first `root` loops.

    Every iteration of the root loops runs the nests one after the other; iterations do not depend
    on each other.  When all have been run, `last` runs once.
    """

    root: int
    nests: list[Nest]
    last: list[Nest] = field(default_factory=list)
    across: bool | None = None  # whether a root loop is the vector loop; None: not decided yet
    packed: list[Buffer] = field(default_factory=list)  # operands that a kernel of their own packs

    @property
    def all_nests(self) -> list[Nest]:
        """The nests of every iteration and the last ones."""
        return [*self.nests, *self.last]

    @property
    def writes(self) -> list[Buffer]:
        """The buffers in memory that the tree writes, each once."""
        return list(dict.fromkeys(n.target for n in self.all_nests if n.target.role != "local"))

    @property
    def reads(self) -> list[Buffer]:
        """The buffers in memory that the tree reads and has not made before, each once."""
        made: set[Buffer] = set()
        found: dict[Buffer, None] = {}
        for nest in self.all_nests:
            for buffer in nest.reads:
                if buffer not in made and buffer.role != "local":
                    found[buffer] = None
            made.add(nest.target)
        return list(found)

    @property
    def iterations(self) -> int:
        """Evaluations of all values."""
        return sum(nest.iterations for nest in self.all_nests)

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are computed, in order."""
        return [node for nest in self.all_nests for node in nest.nodes]

    @property
    def checks(self) -> dict[str, CheckSite]:
        """Every check by the name of its number."""
        return {name: site for nest in self.all_nests for name, site in nest.checks.items()}

    def show(self) -> str:
        """The tree as text."""
        lines = [f"tree of {self.root} root loops"]
        lines += ["  " + line for nest in self.nests for line in nest.show().splitlines()]
        if self.last:
            lines.append("last")
            lines += ["  " + line for nest in self.last for line in nest.show().splitlines()]
        return "\n".join(lines)


@dataclass(eq=False)
class Nest:
    """One loop nest; loops 0 … rank-1 are the result's, the others are reduced."""

    target: Buffer
    extents: list[int]
    rank: int
    value: Value
    offset: Expr
    op: str | None = None
    scatter: bool = False
    parallel: tuple[int, ...] = ()  # of a scatter: the loops whose iterations never collide
    contraction: bool = False
    piece: bool = False  # it fills a part of the target, and other nests the rest
    named: dict[str, Value] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    checks: dict[str, CheckSite] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    guard: Expr = TRUE
    exists: Expr = TRUE  # where there is a result, of loops 0 … rank-1
    order: tuple[Expr, ...] = ()  # of a reduction: the accesses that decide how it adds up
    lanes: bool = False  # a reduction that adds up in lanes over a reduced loop, not one by one
    parts: tuple[Part, ...] | None = None  # how loops 0 … rank-1 follow from the result's indices
    reads_at: list[tuple[str, tuple[Expr, ...]]] = field(default_factory=list)
    carried: tuple[Expr, ...] = ()  # what the loops it was made with are in the loops it has now

    @property
    def reads(self) -> ValuesView[Buffer]:
        """The buffers that the nest loads from."""
        return self.buffers.values()

    @property
    def iterations(self) -> int:
        """The number of evaluations of the value."""
        return size_of(self.extents)

    def having(self, **fields: Any) -> Nest:
        """This nest with other values of some fields (`dataclasses.replace` takes three times as
        long)."""
        new = object.__new__(Nest)
        new.__dict__.update(self.__dict__)
        new.__dict__.update(fields)
        return new

    def show(self) -> str:
        """The nest as text."""
        loops = ", ".join(f"i{k}<{n}" for k, n in enumerate(self.extents[: self.rank]))
        over = ", ".join(f"i{k}<{n}" for k, n in enumerate(self.extents) if k >= self.rank)
        names = "".join(f"  {n} = {show_value(v)}\n" for n, v in self.named.items())
        reduced = f"= {self.op} over ({over}) of" if self.op else "="
        sign = f"{self.op}=" if self.scatter else reduced
        head = f"{self.target.name}[{show(self.offset)}] for ({loops})"
        return f"{names}{head} {sign} {show_value(self.value)}"


class Values:
    """Makes the values of one nest, equal ones only once, and remembers what they use."""

    def __init__(self, extents: list[int]):
        self.extents = extents
        self.named: dict[str, Value] = {}
        self.buffers: dict[str, Buffer] = {}
        self.checks: dict[str, CheckSite] = {}
        self._known: dict[Any, Value] = {}
        self._names: dict[Value, str] = {}

    def _make(self, key: Any, value: Value) -> Value:
        return self._known.setdefault(key, value)

    def load(self, buffer: Buffer, offset: Expr, guard: Expr, fill: Any = 0) -> Value:
        """buffer[offset] if guard else fill."""
        self.buffers[buffer.name] = buffer
        compute = buffer.dtype.compute
        key = ("load", buffer.name, offset, guard, repr(fill))
        if key in self._known:
            return self._known[key]
        value: Value = Load(buffer.name, offset, guard, fill, buffer.dtype)
        if compute is not buffer.dtype:
            value = Op("cast", (value,), compute)
        return self._make(key, value)

    def const(self, number: Any, dtype: DType) -> Value:
        """A literal of the type arithmetic on dtype runs in."""
        dtype = dtype.compute
        return self._make(("const", repr(number), dtype), Const(number, dtype))

    def op(self, name: str, args: tuple[Value, ...], dtype: DType) -> Value:
        """op(args)."""
        key = ("op", name, dtype, *args)
        return self._known.get(key) or self._make(key, Op(name, args, dtype))

    def index(self, expr: Expr) -> Value:
        """An index expression as a number."""
        return self._make(("index", expr), IndexValue(expr))

    def condition(self, expr: Expr) -> Value:
        """A condition as a bool."""
        return self._make(("condition", expr), Condition(expr))

    def check(self, value: Value, site: CheckSite, guard: Expr) -> Value:
        """value, reported at `site` if it is not within [low, high)."""
        key = ("check", value, site.node.site, site.low, site.high, guard)
        if key not in self._known:
            name = f"check{len(self.checks)}"
            self.checks[name] = site
            number = ("val", name)
            self._known[key] = Check(value, site.low, site.high, number, guard)
        return self._known[key]

    def apply(
        self,
        function: ScalarFunction,
        args: tuple[Value, ...],
        dtype: DType,
        site: CheckSite,
        guard: Expr,
    ) -> Value:
        """function(args) where the guard holds."""
        key = ("apply", function, dtype, site.node.site, guard, *args)
        if key not in self._known:
            name = f"check{len(self.checks)}"
            self.checks[name] = site
            self._known[key] = Apply(function, args, ("val", name), guard, dtype)
        return self._known[key]

    def name(self, value: Value, bounds: tuple[int, int] | None) -> Expr:
        """An index expression that stands for an integer value."""
        name = self._names.get(value)
        if name is None:
            name = self._names[value] = f"t{len(self.named)}"
            self.named[name] = value
        return ("val", name, bounds) if bounds else ("val", name)


@remembered
def dependencies(nest: Nest) -> list[tuple[Value, frozenset[int]]]:
    """Every value of the nest with the loops that it depends on, arguments first."""
    found: list[tuple[Value, frozenset[int]]] = []
    known: dict[Value, frozenset[int]] = {}
    by_name: dict[str, frozenset[int]] = {}

    def visit(value: Value) -> None:
        if value in known:
            return
        loops: frozenset[int] = frozenset()
        for arg in value.args:
            visit(arg)
            loops |= known[arg]
        for e in value.indices:
            loops |= loops_of(e)
            for name in integers_of(e):
                loops |= by_name.get(name, frozenset())
        known[value] = loops
        found.append((value, loops))

    for name, value in nest.named.items():
        visit(value)
        by_name[name] = known[value]
    visit(nest.value)
    return found


def loops_of_both(nest: Nest) -> set[int]:
    """The loops that both factors of a contraction vary with."""
    known = dict(dependencies(nest))
    first, second = (known[factor] for factor in nest.value.args)
    return set(first & second)


def verify(nest: Nest) -> None:
    """Raises CompilerBug unless every index stays within the nest's loops."""
    count = len(nest.extents)
    for value, loops in dependencies(nest):
        if loops and max(loops) >= count:
            what = f"{show_value(value)} uses a loop that does not exist"
            raise CompilerBug(f"{what}:\n{nest.show()}")
    if nest.op is None and len(nest.extents) != nest.rank:
        raise CompilerBug(f"a map has no reduced loops:\n{nest.show()}")
