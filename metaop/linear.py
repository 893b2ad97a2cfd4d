"""Products of matrices: each is a broadcast, a multiplication and a sum, which the compiler
recognises as a contraction."""

from __future__ import annotations

import string
from typing import Any

from . import reduction
from .aliases import axis_or_dim
from .build import broadcast_shapes, cast, full, mul, normal_axes, reduce, reshape
from .dtype import promote
from .einsum import einsum
from .elementwise import add, multiply, subtract
from .errors import DTypeError, ShapeError, describe
from .graph import Node, Piece, Reindex, Shape
from .index import Expr
from .movement import roll
from .rearrange import broadcast_arrays
from .recipes import remembered
from .var import Var, node_of


@remembered
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


@remembered
def dot(a: Any, b: Any) -> Var:
    """The sum of products over the last axis of a and the second to last of b (as numpy.dot)."""
    x, y = node_of(a), node_of(b)
    if not x.shape or not y.shape:
        return multiply(a, b)
    if len(x.shape) <= 2 and len(y.shape) <= 2:
        return matmul(a, b)
    return tensordot(a, b, ([-1], [-2 if len(y.shape) > 1 else -1]))


@remembered
def outer(a: Any, b: Any) -> Var:
    """out[i, j] = a[i] * b[j] of the flat a and b."""
    x, y = node_of(a), node_of(b)
    return matmul(Var._of(reshape(x, (x.size, 1))), Var._of(reshape(y, (1, y.size))))


def _letters(count: int, start: int = 0) -> str:
    return string.ascii_letters[start : start + count]


@remembered
def tensordot(x1: Any, x2: Any, /, axes: Any = 2, *, dims: Any = None) -> Var:
    """The sum of products over axes: the last n of x1 and the first n of x2, or two sequences."""
    a, b = node_of(x1), node_of(x2)
    axes = axes if dims is None else dims
    rank_a, rank_b = len(a.shape), len(b.shape)
    if hasattr(axes, "__index__"):
        count = axes.__index__()
        first, second = list(range(rank_a - count, rank_a)), list(range(count))
    else:
        first, second = ([s] if hasattr(s, "__index__") else list(s) for s in axes)
    if len(first) != len(second) or len(first) > min(rank_a, rank_b):
        raise ShapeError(f"tensordot(a, b, axes={axes}): a is {describe(a)}, b is {describe(b)}")
    left = list(_letters(rank_a))
    right = list(_letters(rank_b, rank_a))
    for i, j in zip(first, second):
        (k,), (m,) = normal_axes(i, rank_a, "tensordot"), normal_axes(j, rank_b, "tensordot")
        if a.shape[k] != b.shape[m]:
            raise ShapeError(
                f"tensordot(a, b, axes={axes}): axis {i} of a and axis {j} of b must agree, a is "
                f"{describe(a)}, b is {describe(b)}"
            )
        right[m] = left[k]
    summed = set(left) & set(right)
    result = "".join(c for c in (*left, *right) if c not in summed)
    return einsum(f"{''.join(left)},{''.join(right)}->{result}", x1, x2)


@axis_or_dim
@remembered
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Var:
    """The sum of products over an axis, which counts from the end after broadcasting."""
    a, b = node_of(x1), node_of(x2)
    if axis >= 0 or -axis > min(len(a.shape), len(b.shape)):
        (axis,) = normal_axes(axis, max(len(a.shape), len(b.shape)), "vecdot")
        axis = axis - max(len(a.shape), len(b.shape))
    if a.shape[axis] != b.shape[axis]:
        raise ShapeError(
            f"vecdot(a, b, axis={axis}): a is {describe(a)}, b is {describe(b)} "
            f"({a.shape[axis]} != {b.shape[axis]})"
        )
    dtype = promote(a.dtype, b.dtype)
    wide = multiply(Var._of(cast(a, dtype.compute)), Var._of(cast(b, dtype.compute)))
    if dtype.kind == "b":
        return reduction.any(wide, axis)
    return Var._of(cast(reduction.sum(wide, axis)._node, dtype))


@remembered
def inner(a: Any, b: Any) -> Var:
    """The sum of products over the last axes of a and b (as numpy.inner)."""
    x, y = node_of(a), node_of(b)
    if not x.shape or not y.shape:
        return multiply(a, b)
    return tensordot(a, b, ([-1], [-1]))


@remembered
def vdot(a: Any, b: Any) -> Var:
    """The sum of products of the flat a and b."""
    x, y = node_of(a), node_of(b)
    return matmul(Var._of(reshape(x, (x.size,))), Var._of(reshape(y, (y.size,))))


@remembered
def kron(a: Any, b: Any) -> Var:
    """The product of every element of a with all of b: out[i * n + j] = a[i] * b[j] per axis."""
    x, y = same_dtype(node_of(a), node_of(b))
    rank = max(len(x.shape), len(y.shape))
    x = reshape(x, (*(1,) * (rank - len(x.shape)), *x.shape))
    y = reshape(y, (*(1,) * (rank - len(y.shape)), *y.shape))
    shape = tuple(m * n for m, n in zip(x.shape, y.shape))
    if 0 in shape:
        return Var._of(full(0, shape, x.dtype))
    left = tuple(("floordiv", ("i", k), n) for k, n in enumerate(y.shape))
    right = tuple(("mod", ("i", k), n) for k, n in enumerate(y.shape))
    return multiply(
        Var._of(Reindex(shape, (Piece(0, left),), x)),
        Var._of(Reindex(shape, (Piece(0, right),), y)),
    )


def same_dtype(a: Node, b: Node) -> tuple[Node, Node]:
    """Both in their common dtype."""
    dtype = promote(a.dtype, b.dtype)
    return cast(a, dtype), cast(b, dtype)


@remembered
def cross(x1: Any, x2: Any, /, *, axis: int = -1, dim: int | None = None) -> Var:
    """The vector product over an axis of three."""
    a, b = broadcast_arrays(x1, x2)
    (k,) = normal_axes(axis if dim is None else dim, a.ndim, "cross")
    if a.shape[k] != 3:
        raise ShapeError(f"cross(a, b): axis {axis} must have 3 elements, a is {describe(a)}")
    ahead, behind = (roll(v, -1, k) for v in (a, b))
    return roll(subtract(multiply(a, behind), multiply(ahead, b)), -1, k)


@remembered
def bilinear(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Var:
    """out[…, o] = sum over i, j of x1[…, i] * weight[o, i, j] * x2[…, j], plus bias[o]."""
    result = einsum("...i,oij,...j->...o", x1, weight, x2)
    return result if bias is None else add(result, bias)


def mm(a: Any, b: Any) -> Var:
    """The product of two matrices (2-d only)."""
    return _of_rank("mm", 2, 2, a, b)


def mv(a: Any, b: Any) -> Var:
    """The product of a matrix and a vector."""
    return _of_rank("mv", 2, 1, a, b)


def bmm(a: Any, b: Any) -> Var:
    """The products of two batches of matrices (3-d only)."""
    return _of_rank("bmm", 3, 3, a, b)


def _of_rank(name: str, rank_a: int, rank_b: int, a: Any, b: Any) -> Var:
    x, y = node_of(a), node_of(b)
    if (len(x.shape), len(y.shape)) != (rank_a, rank_b):
        raise ShapeError(
            f"{name}(a, b): {rank_a} and {rank_b} axes are needed, a is {describe(x)}, b is "
            f"{describe(y)}; matmul takes any"
        )
    return matmul(a, b)


@remembered
def addmm(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Var:
    """beta * x + alpha * (a @ b)."""
    product = matmul(a, b)
    product = product if alpha == 1 else multiply(alpha, product)
    return add(x if beta == 1 else multiply(beta, x), product)


baddbmm = addmm
