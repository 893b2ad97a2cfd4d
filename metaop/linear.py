"""Products of matrices: each is a broadcast, a multiplication and a sum, which the compiler
recognises as a contraction."""

from __future__ import annotations

from typing import Any

from .build import broadcast_shapes, cast, mul, reduce, reshape
from .dtype import promote
from .elementwise import multiply
from .errors import DTypeError, ShapeError, describe
from .graph import Node, Piece, Reindex, Shape
from .index import Expr
from .var import Var, node_of


def matmul(a: Any, b: Any) -> Var:
    """out[…, i, j] = sum over k of a[…, i, k] * b[…, k, j] (as numpy.matmul).

    1-d operands are vectors; leading axes broadcast.  Raises ShapeError.
    """
    x, y = node_of(a), node_of(b)
    if not x.shape or not y.shape:
        raise ShapeError(f"matmul(a, b): 0-d operands, a is {describe(x)}, b is {describe(y)}")
    dtype = promote(x.dtype, y.dtype)
    if dtype.kind == "b":
        raise DTypeError("matmul(a, b): not defined for bool; cast to a number first")
    # 16-bit floats: exact products, added in float32, rounded once
    x, y = cast(x, dtype.compute), cast(y, dtype.compute)
    row, column = len(x.shape) == 1, len(y.shape) == 1
    x = reshape(x, (1, *x.shape)) if row else x
    y = reshape(y, (*y.shape, 1)) if column else y
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul(a, b): inner sizes must agree, a is {describe(node_of(a))}, "
            f"b is {describe(node_of(b))} ({x.shape[-1]} != {y.shape[-2]}).\n"
            f"            a made at {x.site}, b at {y.site}."
        )
    result = cast(_contract(x, y), dtype)
    if row or column:
        shape = list(result.shape)
        if column:
            del shape[-1]
        if row:
            del shape[-1 if column else -2]
        result = reshape(result, tuple(shape))
    return Var._of(result)


def _contract(x: Node, y: Node) -> Node:
    try:
        batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul(a, b): leading axes must broadcast, a is {describe(x)}, b is {describe(y)}"
        ) from None
    rank = len(batch)
    i, j, k = ("i", rank), ("i", rank + 1), ("i", rank + 2)
    space = (*batch, x.shape[-2], y.shape[-1], x.shape[-1])
    left = Reindex(space, (Piece(0, (*_leading(x, batch), i, k)),), x)
    right = Reindex(space, (Piece(0, (*_leading(y, batch), k, j)),), y)
    return reduce("add", mul(left, right), (rank + 2,))


def _leading(node: Node, batch: Shape) -> tuple[Expr, ...]:
    skip = len(batch) - (len(node.shape) - 2)
    return tuple(0 if n == 1 else ("i", skip + k) for k, n in enumerate(node.shape[:-2]))


def dot(a: Any, b: Any) -> Var:
    """The sum of products over the last axis of a and the second to last of b (as numpy.dot)."""
    x, y = node_of(a), node_of(b)
    if not x.shape or not y.shape:
        return multiply(a, b)
    if len(x.shape) <= 2 and len(y.shape) <= 2:
        return matmul(a, b)
    raise ShapeError(f"dot(a, b): for more than two axes write matmul, a is {describe(x)}")


def outer(a: Any, b: Any) -> Var:
    """out[i, j] = a[i] * b[j] of the flat a and b."""
    x, y = node_of(a), node_of(b)
    return matmul(Var._of(reshape(x, (x.size, 1))), Var._of(reshape(y, (1, y.size))))
