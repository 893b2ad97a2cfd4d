"""Builders of nodes: broadcasting, casts, plain reductions, reshapes, on nodes instead of Vars.

The gradient table and the derived functions are written with these.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from . import dtype as dt
from .dtype import DType
from .errors import ShapeError
from .extent import Extent, generalise, has_extents, linear_form, same_extent, specialise
from .graph import (
    Elementwise,
    IndexOf,
    Node,
    Piece,
    Reindex,
    ReindexReduce,
    Scalar,
    Shape,
    numbered,
    size_of,
)
from .index import Expr, flatten, simplify, substitute, unflatten

# What is made again at every step is looked up here by its shapes: index expressions, and a number
# for the node's signature.  Extents of equal values are one key, so no expression may hold one.


@functools.lru_cache(maxsize=512)
def _broadcast(source: Shape, target: Shape) -> tuple[tuple[Piece, ...], int]:
    skip = len(target) - len(source)
    indices = tuple(0 if n == 1 else ("i", skip + k) for k, n in enumerate(source))
    return (Piece(0, indices),), numbered()


def broadcast_to(node: Node, shape: Shape) -> Node:
    """node repeated along new and size-one axes (shapes must fit: see `broadcast_shapes`)."""
    if node.shape == shape:
        return node
    pieces, signature = _broadcast(node.shape, shape)
    return Reindex(shape, pieces, node, signature=signature)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape of operands by NumPy's rule; ValueError if there is none."""
    if len(shapes) == 2:
        if covers(*shapes):
            return shapes[0]
        if covers(*shapes[::-1]):
            return shapes[1]
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        for k, extent in enumerate(shape, rank - len(shape)):
            if extent != result[k]:
                if result[k] == 1:
                    result[k] = extent
                elif extent != 1:
                    raise ValueError(f"{extent} != {result[k]}")
            elif type(extent) is int:  # what meets a constant is one
                result[k] = extent
    return tuple(result)


def covers(large: Shape, small: Shape) -> bool:
    """True if broadcasting the two gives the large one, with its extents' origins."""
    skip = len(large) - len(small)
    if skip < 0:
        return False
    for k, extent in enumerate(small, skip):
        own = large[k]
        if own is not extent and extent != 1 and (own != extent or type(own) is not int):
            return False
        if extent == 1 and own == 1 and type(own) is not int:
            return False
    return True


def full(value: bool | int | float, shape: Shape, dtype: DType) -> Node:
    """An array of one number."""
    number = Scalar(value, dtype)
    if not shape:
        return number
    pieces, signature = _broadcast((), shape)
    return Reindex(shape, pieces, number, signature=signature)


def cast(node: Node, dtype: DType) -> Node:
    """node with elements converted to a dtype."""
    return node if node.dtype is dtype else Elementwise("cast", node, dtype=dtype)


def add(a: Node, b: Node) -> Node:
    """a + b."""
    return Elementwise("add", a, b)


def sub(a: Node, b: Node) -> Node:
    """a - b."""
    return Elementwise("sub", a, b)


def mul(a: Node, b: Node) -> Node:
    """a * b."""
    return Elementwise("mul", a, b)


def div(a: Node, b: Node) -> Node:
    """a / b of floats."""
    return Elementwise("div", a, b)


def neg(a: Node) -> Node:
    """-a."""
    return Elementwise("neg", a)


def times(a: Node, number: float) -> Node:
    """a times a number."""
    return Elementwise("mul", a, full(number, a.shape, a.dtype))


def plus(a: Node, number: float) -> Node:
    """a plus a number."""
    return Elementwise("add", a, full(number, a.shape, a.dtype))


def minus_from(number: float, a: Node) -> Node:
    """number - a."""
    return Elementwise("sub", full(number, a.shape, a.dtype), a)


def compare(op: str, a: Node, number: float) -> Node:
    """a compared with a number."""
    return Elementwise(op, a, full(number, a.shape, a.dtype))


def where(condition: Node, yes: Node, no: Node | float = 0) -> Node:
    """yes where the condition holds, else no."""
    if not isinstance(no, Node):
        no = full(no, yes.shape, yes.dtype)
    return Elementwise("where", condition, yes, no)


def unary(op: str, a: Node) -> Node:
    """op(a)."""
    return Elementwise(op, a)


def normal_axes(axes: Any, rank: int, operation: str) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers; None means all.  Raises ShapeError."""
    if axes is None:
        return tuple(range(rank))
    if type(axes) is int and -rank <= axes < rank:
        return (axes % rank,)
    if type(axes) is tuple:
        plain = {a % rank for a in axes if type(a) is int and -rank <= a < rank}
        if len(plain) == len(axes):
            return tuple(sorted(plain))
    if isinstance(axes, Iterable):
        listed = [operator.index(a) for a in axes]
    else:
        listed = [operator.index(axes)]
    result = []
    for axis in listed:
        if not -rank <= axis < rank:
            raise ShapeError(f"{operation}: axis {axis} does not exist, x has {rank} axes")
        result.append(axis % rank)
    if len(set(result)) != len(result):
        raise ShapeError(f"{operation}: axis given twice in {axes}")
    return tuple(sorted(result))


@functools.lru_cache(maxsize=512)
def _reduction(op: str, shape: Shape, axes: tuple[int, ...]) -> tuple[tuple[Expr, ...], int]:
    return tuple(("i", k) for k in range(len(shape)) if k not in axes), numbered()


def reduce(op: str, node: Node, axes: tuple[int, ...], ties: str = "share") -> Node:
    """node reduced over axes, which disappear."""
    if not axes:
        return node
    shape = tuple([n for k, n in enumerate(node.shape) if k not in axes])
    indices, signature = _reduction(op, node.shape, axes)
    return ReindexReduce(op, shape, indices, node, ties=ties, signature=signature)


def expand(node: Node, axes: tuple[int, ...]) -> Node:
    """node with axes of size one inserted where `reduce` dropped them."""
    if not axes:
        return node
    shape = list(node.shape)
    for axis in axes:
        shape.insert(axis, 1)
    return reshape(node, tuple(shape))


@functools.lru_cache(maxsize=512)
def _general_reshape(source: Shape, target: Shape) -> tuple[tuple[Piece, ...], bool]:
    """The pieces, and whether they speak of dynamic extents."""
    offset = flatten(tuple(("i", k) for k in range(len(target))), target)
    pieces = (Piece(0, tuple(simplify(e, target) for e in unflatten(offset, source))),)
    return pieces, has_extents(pieces)


@functools.lru_cache(maxsize=512)
def _reshape_behind(
    head: tuple[Expr, ...], source: Shape, target: Shape
) -> tuple[tuple[Piece, ...], int]:
    """The same behind leading axes that stay, read at `head`; the others are not dynamic."""
    kept = len(head)
    ((_, inner, _),), _ = _general_reshape(source[kept:], target[kept:])
    behind = [("i", kept + k) for k in range(len(target) - kept)]
    return (Piece(0, (*head, *[substitute(e, behind) for e in inner])),), numbered()


def _reshape_pieces(source: Shape, target: Shape) -> tuple[tuple[Piece, ...], int | None]:
    """The pieces, and a signature if they are known by the values of the extents."""
    head: list[Expr] = []
    for a, b in zip(source, target):
        if not same_extent(a, b):
            break
        head.append(0 if type(a) is int and a == 1 else ("i", len(head)))
    kept = len(head)
    if Extent not in map(type, source[kept:]) and Extent not in map(type, target[kept:]):
        return _reshape_behind(tuple(head), source, target)
    form = linear_form(source, target)
    pieces = _static_reshapes.get(form)
    if pieces is not None:
        return pieces, _reshape_number(form, source, target)
    general, symbols = generalise(source, target)
    pieces, dynamic = _general_reshape(*general)
    if dynamic:
        return specialise(pieces, symbols), None
    if form is None:
        return pieces, None
    if len(_static_reshapes) >= 512:
        _static_reshapes.clear()
    _static_reshapes[form] = pieces
    return pieces, _reshape_number(form, source, target)


_static_reshapes: dict[Any, tuple[Piece, ...]] = {}  # those in which no dynamic extent is left


@functools.lru_cache(maxsize=512)
def _reshape_number(form: Any, source: Shape, target: Shape) -> int:
    return numbered()


def reshape(node: Node, shape: Shape) -> Node:
    """node with the same elements in row-major order under another shape."""
    if node.shape == shape:
        return node
    if 0 in shape:
        return Reindex(shape, (Piece(0, (0,) * len(node.shape)),), node)
    pieces, signature = _reshape_pieces(node.shape, shape)
    return Reindex(shape, pieces, node, signature=signature)


def permute(node: Node, order: Sequence[int]) -> Node:
    """node with axis k of the result being axis order[k] of node."""
    own = node.shape
    pieces, signature = _permuted(own, tuple(order))
    return Reindex(tuple([own[axis] for axis in order]), pieces, node, signature=signature)


@functools.lru_cache(maxsize=512)
def _permuted(shape: Shape, order: tuple[int, ...]) -> tuple[tuple[Piece, ...], int]:
    inverse = [0] * len(order)
    for position, axis in enumerate(order):
        inverse[axis] = position
    return (Piece(0, tuple([("i", k) for k in inverse])),), numbered()


def linear_position(shape: Shape) -> Node:
    """The row-major number of every element, int64."""
    result: Node | None = None
    stride = size_of(shape)
    for axis, extent in enumerate(shape):
        stride //= max(extent, 1)
        term: Node = IndexOf(shape, axis)
        if stride != 1:
            term = times(term, stride)
        result = term if result is None else add(result, term)
    return full(0, shape, dt.int64) if result is None else result
