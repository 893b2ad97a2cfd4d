"""The loops around the statements of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metaop.index import Expr, loops_of

from ..loops import For, Stmt, Value
from ..nest import Buffer, Nest

MOST_ACCUMULATORS = 16
ITERATION = -1  # stands for all root loops among the loops that a value varies with


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
    rows: bool = False  # see `Scheduler.adds_rows`

    def is_free(self) -> bool:
        """True if its outer loop, around another, may run in any order."""
        if len(self.levels) < 2 or self.levels[0].kind[:1] != ("serial",):
            return False
        (loop,) = self.levels[0].loops
        return all(nest.op is None or loop in loops_of(nest.offset) for nest in self.nests)

    def statements(self) -> list[Stmt]:
        """The stage as it runs."""
        return [*self.before, *nested(self.levels, []), *self.after]


def nested(levels: Sequence[Level], inner: list[Stmt]) -> list[Stmt]:
    """Statements within levels, the first of which is the outermost."""
    for level in reversed(levels):
        inner = [level.around(inner)]
    return inner
