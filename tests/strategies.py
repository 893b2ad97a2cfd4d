"""What hypothesis draws in several test files: index expressions and maps between shapes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from metaop.graph import Piece
from metaop.index import TRUE, Expr, evaluate, reads_of


@dataclass(frozen=True)
class IndexMap:
    """A reindex: from `source` to `shape` by pieces that may read the integer `inputs`."""

    source: tuple[int, ...]
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    inputs: tuple[np.ndarray, ...] = ()


def index_function(indices: tuple[Expr, ...], condition: Expr, inputs: Any = ()) -> tuple[Any, Any]:
    """The index and the condition as functions of integers, as `metaop.reference` takes them.

    A read outside an input is 0, as in a kernel: another part of the condition is false there.
    """

    def read(k: int, position: tuple[int, ...]) -> int:
        array = inputs[k - 1]
        inside = all(0 <= p < n for p, n in zip(position, array.shape))
        return int(array[position]) if inside else 0

    def index(*loops: int) -> tuple[int, ...]:
        return tuple(evaluate(e, loops, read) for e in indices)

    def holds(*loops: int) -> bool:
        return bool(evaluate(condition, loops, read))

    return index, holds


def reads_of_inputs(piece: Piece) -> list[int]:
    """The numbers of the integer inputs that a piece reads."""
    return [r[1] for e in (*piece.indices, piece.condition) for r in reads_of(e)]


def compiled(case: Any, share: int = 6) -> bool:
    """True for about one case in `share`: those that machine code computes too."""
    return zlib.crc32(repr(case).encode()) % share == 0


SMALL = st.integers(-3, 4)


@st.composite
def expressions(draw: Any, rank: int, depth: int = 3) -> Expr:
    """An index expression over `rank` loops, of every kind but reads."""
    leaf = st.integers(-6, 9) if not rank else st.one_of(
        st.integers(-6, 9), st.integers(0, rank - 1).map(lambda k: ("i", k))
    )  # fmt: skip
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw(leaf)
    kind = draw(
        st.sampled_from("add add sub sub mul mul floordiv mod div rem min max where".split())
    )
    a = draw(expressions(rank, depth - 1))
    if kind == "where":
        condition = draw(conditions(rank, depth - 1))
        return ("where", condition, a, draw(expressions(rank, depth - 1)))
    if kind in ("floordiv", "mod", "div", "rem"):
        divisor = draw(st.sampled_from([1, 2, 2, 3, 4, 6, 8, 12]))
        return (kind, a, divisor)
    return (kind, a, draw(expressions(rank, depth - 1)))


@st.composite
def conditions(draw: Any, rank: int, depth: int = 2) -> Expr:
    """A condition over `rank` loops."""
    kind = draw(st.sampled_from("lt le eq ne and or not".split()))
    if kind in ("and", "or") and depth > 0:
        return (kind, draw(conditions(rank, depth - 1)), draw(conditions(rank, depth - 1)))
    if kind == "not" and depth > 0:
        return ("not", draw(conditions(rank, depth - 1)))
    if kind not in ("lt", "le", "eq", "ne"):
        kind = "lt"
    inner = max(depth - 1, 0)
    return (kind, draw(expressions(rank, inner)), draw(expressions(rank, inner)))


@st.composite
def affine(draw: Any, rank: int, extent: int) -> Expr:
    """A sum of coefficients times loops and a constant, sometimes divided, in range or not."""
    e: Expr = draw(st.integers(-2, int(extent)))
    for k in range(rank):
        coefficient = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 3, -1, -2]))
        if coefficient:
            term = ("i", k) if coefficient == 1 else ("mul", ("i", k), coefficient)
            e = ("add", term, e) if e else term
    style = draw(st.integers(0, 9))
    if style == 0:
        e = ("floordiv", e, draw(st.integers(2, 3)))
    elif style == 1:
        e = ("mod", e, draw(st.integers(2, int(extent) + 2)))
    elif style == 2 and rank:
        e = ("i", draw(st.integers(0, rank - 1)))
    return e


@st.composite
def index_maps(draw: Any, pieces: int = 3, reads: bool = True) -> IndexMap:
    """Strides, dilation, negative coefficients, padding, diagonals, // and %, several pieces,
    gathers."""
    source = tuple(draw(st.lists(st.integers(1, 5), min_size=0, max_size=3)))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=3)))
    rank = len(shape)
    inputs: list[np.ndarray] = []

    def index(extent: int) -> Expr:
        if reads and rank and draw(st.integers(0, 7)) == 0:
            axes = sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1)))
            size = [shape[a] for a in axes]
            count = int(np.prod(size))
            values = draw(st.lists(st.integers(-1, int(extent)), min_size=count, max_size=count))
            inputs.append(np.array(values).reshape(size))
            return ("read", len(inputs), tuple(("i", a) for a in axes), None)
        return draw(affine(rank, extent))

    drawn = []
    for number in range(draw(st.integers(1, pieces))):
        indices = tuple(index(n) for n in source)
        plain = number == 0 and draw(st.booleans())
        condition = TRUE if plain else draw(conditions(rank, 1))
        drawn.append(Piece(0, indices, condition))
    return IndexMap(source, shape, tuple(drawn), tuple(inputs))
