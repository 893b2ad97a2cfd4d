"""follow: loops of nests replaced by those of what reads their results.

    m[i0] = max over i1 of x[i0, i1]              read as m[j0 - 1] where 1 <= j0 < 65, j0 < 66
 -> m[j0 - 1] = max over i1 of x[j0 - 1, i1]      where 1 <= j0 < 65

So a row and what is made of it share an iteration though a pad, a slice or a reshape is between.
Only for results that nothing else reads: those that are not read are not computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from metaop.extent import Extent, hint
from metaop.index import TRUE, Expr, conjunction, simplify, substitute, terms_of, within

from .loops import Apply, Check, Load, Value
from .nest import Nest, Part
from .schedule import map_nest, map_values

MOST_WASTE = 2  # times as many iterations as there are results


class Step(NamedTuple):
    """A term of an index: stride * loop `axis` of the reader."""

    axis: int
    stride: int
    extent: int


class Path(NamedTuple):
    """An index as low + a sum of terms, outer ones first: each value of it belongs to one iteration
    of their loops."""

    low: int
    steps: tuple[Step, ...]

    def is_plain(self, extent: int) -> bool:
        """True for a loop of its own of this extent."""
        steps = self.steps
        return self.low == 0 and len(steps) == 1 and steps[0][1:] == (1, extent)

    def wastes(self, extent: int) -> bool:
        """True if many iterations have no result."""
        iterations = 1
        for step in self.steps:
            iterations *= hint(step.extent)
        return iterations > MOST_WASTE * hint(extent)


def path_of(e: Expr, extents: Sequence[int], axis_of: Mapping[int, int]) -> Path | None:
    """The path of an index expression over loops with these extents, `axis_of` those that count."""
    terms = dict(terms_of(e, extents))
    low = terms.pop(None, 0)
    steps = []
    for atom, stride in terms.items():
        plain = isinstance(atom, tuple) and atom[0] == "i" and atom[1] in axis_of
        if not plain or isinstance(stride, Extent):
            return None
        steps.append(Step(axis_of[atom[1]], stride, extents[atom[1]]))
    if any(step.stride < 1 for step in steps) and [step.stride for step in steps] != [-1]:
        return None
    steps.sort(key=lambda step: -step.stride)
    for outer, inner in pairwise(steps):
        if isinstance(inner.extent, Extent) or outer.stride % (inner.stride * inner.extent):
            return None  # a loop has to follow from the index by // and %
    return Path(low, tuple(steps)) if steps else None


def can_follow(nest: Nest, loop: int) -> bool:
    """True for a loop of a map or a plain reduction that is a whole dimension of its result."""
    if nest.scatter or nest.contraction or nest.parts is None:
        return False
    part = nest.parts[loop]
    return part[1:] == (1, nest.extents[loop], 0)


def following(nest: Nest, paths: Mapping[int, Path]) -> tuple[Nest, list[list[int]]]:
    """The nest with loops replaced by paths, and what each of its loops has become."""
    assert nest.parts is not None
    at: list[Expr] = []
    extents: list[int] = []
    parts: list[Part] = []
    became: list[list[int]] = []
    for loop, extent in enumerate(nest.extents):
        low, steps = paths.get(loop, Path(0, (Step(-1, 1, extent),)))
        first = len(extents)
        became.append(list(range(first, first + len(steps))))
        e: Expr = low
        for k, step in enumerate(steps, start=first):
            e = ("add", e, ("mul", ("i", k), step.stride))
            if loop in paths:
                parts.append(Part(nest.parts[loop].dim, step.stride, step.extent, low))
        if loop not in paths and loop < nest.rank:
            parts.append(nest.parts[loop])
        at.append(e)
        extents += [step.extent for step in steps]
    exists = within([at[k] for k in paths], [nest.extents[k] for k in paths])
    exists = simplify(conjunction(substitute(nest.exists, at), exists), extents)
    new = map_nest(nest, lambda e: simplify(substitute(e, at), extents))
    new = new.having(
        extents=extents,
        rank=sum(len(b) for b in became[: nest.rank]),
        parts=tuple(parts),
        exists=exists,
        reads_at=[
            (n, tuple(simplify(substitute(e, at), extents) for e in place))
            for n, place in nest.reads_at
        ],
    )
    return (new if exists == TRUE else _guarded(new)), became


def _guarded(nest: Nest) -> Nest:
    """The nest with reads and checks only where the result exists."""

    def guarded(value: Value) -> Value:
        match value:
            case Load():
                guard = conjunction(nest.exists, value.guard)
                return Load(value.buffer, value.offset, guard, value.fill, value.dtype)
            case Check():
                guard = conjunction(nest.exists, value.guard)
                return Check(value.value, value.low, value.high, value.number, guard)
            case Apply():
                guard = conjunction(nest.exists, value.guard)
                return Apply(value.function, value.args, value.number, guard, value.dtype)
        return value

    return map_values(nest, guarded)
