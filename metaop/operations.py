"""How much arithmetic was recorded: for tables of layers."""

from __future__ import annotations

from collections.abc import Sequence

from . import graph
from .graph import Elementwise, Node, ReindexReduce, pending
from .var import Var

# Operators that choose, compare or convert: no arithmetic.
FREE = frozenset(
    "copy barrier again where cast lt le gt ge eq ne isnan isinf isfinite logical_not logical_and "
    "logical_or logical_xor invert bitand bitor bitxor shl shr".split()
)


def moment() -> int:
    """A number between those of the nodes recorded before and after this call."""
    return next(graph._sequence)


def flops(node: Node) -> int:
    """One for each element of an arithmetic operator, one for each element that a reduction reads.

    A sum of products over k so counts 2k for each of its elements, padding included.
    """
    if isinstance(node, ReindexReduce):
        return int(node.inputs[0].size)
    if isinstance(node, Elementwise) and node.op not in FREE and node.dtype.is_float:
        return int(node.size)
    return 0


def flops_by_span(results: Sequence[Var], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The arithmetic that the results need, each node counted for the innermost span it is in.

    spans: pairs of moments, each pair inside another one or apart from it.
    """
    totals = [0] * len(spans)
    starts = sorted(range(len(spans)), key=lambda k: spans[k])
    following = iter([*starts, None])
    upcoming = next(following)
    open_: list[int] = []
    for node in pending([result._node for result in results]):
        while upcoming is not None and spans[upcoming][0] < node.sequence:
            open_.append(upcoming)
            upcoming = next(following)
        while open_ and spans[open_[-1]][1] < node.sequence:
            open_.pop()
        if open_:
            totals[open_[-1]] += flops(node)
    return totals
