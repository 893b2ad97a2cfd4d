"""New Vars from numbers, arrays and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import dtype as dt
from . import elementwise as el
from . import life
from .aliases import may_require_grad
from .build import cast, normal_axes, where
from .build import full as full_node
from .dtype import as_dtype
from .errors import ShapeError, describe
from .extent import dynamic_shape
from .graph import Buffer, Elementwise, IndexOf, Node, size_of
from .movement import broadcast_to, extents_of, reshape, shape_of, stack, takes_keyword
from .recipes import remembered
from .traced import example_of, scalar_value
from .var import Var, node_of


def check_device(device: Any) -> None:
    """Raises ValueError for any device but the CPU."""
    if device not in (None, "cpu") and str(device) != "cpu":
        raise ValueError(f"metaop computes on the CPU: no device {device!r}")


def array(data: Any, dtype: Any = None, requires_grad: bool = False) -> Var:
    """A Var holding a copy of an array, number or nested list.

    A list of Python floats becomes float32, of ints int64; an ndarray keeps its dtype.
    """
    return Var(data, dtype, requires_grad)


def asarray(data: Any, dtype: Any = None, *, device: Any = None, copy: bool | None = None) -> Var:
    """data as a Var: a Var of the dtype as it is unless copy=True, all else copied.

    Raises ValueError if copy=False cannot be had.
    """
    check_device(device)
    if isinstance(data, Var) and not copy and (dtype is None or data.dtype is as_dtype(dtype)):
        return data
    if copy is False:
        raise ValueError("asarray(data, copy=False): metaop copies; mo.from_dlpack does not")
    return Var(data, dtype)


def dynamic(x: Var, axis: int | Iterable[int] = 0) -> Var:
    """Marks axes of x as dynamic, and returns x: a program made with x serves all their sizes.

        tokens = mo.dynamic(mo.array(numbers), (0, 1))      # batch and length both vary

    Axis 0 of what `array` makes is dynamic already, a Parameter has no dynamic axis by itself.
    Computes x if it is pending.  Extents of 0 and 1 stay what they are.

    Raises ValueError if x was made from something that requires a gradient.
    """
    axes = normal_axes(axis, x.ndim, "dynamic")
    if not x.is_leaf:
        raise ValueError(
            f"dynamic(x): {describe(x)} was made from what requires a gradient; mark the axis of "
            "what it was made from"
        )
    storage = life.value_of(x._node)
    shape = dynamic_shape(x.shape, axes)
    with life.not_recording_gradients():
        x._node = Buffer(storage, shape, x.dtype, x._node.layout)
    life.mark_leaf(x._node, x)
    return x


@may_require_grad
def full(shape: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Var:
    """An array of one number, or of an array that broadcasts to the shape.

    Raises OverflowError for an integer that does not fit the dtype.
    """
    check_device(device)
    target = extents_of("full", shape)
    kind = None if dtype is None else as_dtype(dtype)
    value = fill_value
    if not el.is_number(value):
        var = value if isinstance(value, Var) else Var(value)
        return broadcast_to(var if kind is None else el.astype(var, kind), target)
    kind = kind or dt.PYTHON_TYPES[type(example_of(value))]
    if kind.is_integer and math.isfinite(value) and not kind.lowest <= value <= kind.highest:
        raise OverflowError(f"full: {value} is out of bounds for {kind}")
    if kind.is_integer:
        value = int(value)
    if size_of(target) == 1:
        return reshape(Var(value, kind), target)
    return Var._of(full_node(scalar_value(value), target, kind))


@may_require_grad
@takes_keyword("shape")
def zeros(*shape: Any, dtype: Any = None, device: Any = None) -> Var:
    """An array of zeros; the shape is a tuple or separate integers.  float32 unless asked."""
    return full(shape_of(shape), 0.0, dtype or dt.float32, device=device)


@may_require_grad
@takes_keyword("shape")
def ones(*shape: Any, dtype: Any = None, device: Any = None) -> Var:
    """An array of ones; the shape is a tuple or separate integers.  float32 unless asked."""
    return full(shape_of(shape), 1.0, dtype or dt.float32, device=device)


@may_require_grad
@takes_keyword("shape")
def empty(*shape: Any, dtype: Any = None, device: Any = None) -> Var:
    """An array to be filled: of zeros."""
    return zeros(*shape, dtype=dtype, device=device)


@may_require_grad
def full_like(x: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Var:
    """An array of one number with x's shape and dtype."""
    node = node_of(x)
    return full(node.shape, fill_value, dtype or node.dtype, device=device)


@may_require_grad
def zeros_like(x: Any, dtype: Any = None, *, device: Any = None) -> Var:
    """Zeros of x's shape and dtype."""
    return full_like(x, 0, dtype, device=device)


@may_require_grad
def ones_like(x: Any, dtype: Any = None, *, device: Any = None) -> Var:
    """Ones of x's shape and dtype."""
    return full_like(x, 1, dtype, device=device)


@may_require_grad
def empty_like(x: Any, dtype: Any = None, *, device: Any = None) -> Var:
    """An array to be filled, of x's shape and dtype: of zeros."""
    return zeros_like(x, dtype, device=device)


def index(shape: Any, axis: int | None = None) -> Any:
    """out[i] = i[axis]: every element's coordinate along an axis, int64; without an axis the tuple
    of all of them."""
    target = extents_of("index", shape)
    if axis is None:
        return tuple(Var._of(IndexOf(target, k)) for k in range(len(target)))
    if not -len(target) <= axis < len(target):
        raise ShapeError(f"index(shape, axis): axis {axis} does not exist in {target}")
    return Var._of(IndexOf(target, axis % len(target)))


@may_require_grad
def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    *,
    device: Any = None,
) -> Var:
    """start, start + step, … below stop; int64 for integers, else float32."""
    check_device(device)
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange(start, stop, step): step must not be 0")
    count = max(0, math.ceil((stop - start) / step))
    whole = all(isinstance(v, int | np.integer) for v in (start, stop, step))
    if whole:
        start, stop, step = int(start), int(stop), int(step)
    kind = as_dtype(dtype) if dtype is not None else dt.int64 if whole else dt.float32
    number: Node = IndexOf((count,), 0)
    wide = dt.int64 if whole else dt.float64
    number = cast(number, wide)
    if step != 1:
        number = Elementwise("mul", number, full_node(step, (count,), wide))
    if start != 0:
        number = Elementwise("add", number, full_node(start, (count,), wide))
    return Var._of(cast(number, kind))


@may_require_grad
@remembered
def linspace(
    start: float,
    stop: float,
    num: int = 50,
    dtype: Any = None,
    *,
    device: Any = None,
    endpoint: bool = True,
) -> Var:
    """num evenly spaced numbers from start to stop, which is included unless endpoint=False."""
    check_device(device)
    (count,) = extents_of("linspace", num)
    if count == 1:
        return full((1,), float(start), dtype or dt.float32)
    number = cast(IndexOf((count,), 0), dt.float64)
    step = (stop - start) / (count - 1 if endpoint else max(count, 1))
    scaled = Elementwise("mul", number, full_node(step, (count,), dt.float64))
    exact: Node = Elementwise("add", scaled, full_node(start, (count,), dt.float64))
    if endpoint:
        last = Elementwise("eq", number, full_node(count - 1, (count,), dt.float64))
        exact = where(last, full_node(stop, (count,), dt.float64), exact)
    return Var._of(cast(exact, as_dtype(dtype or dt.float32)))


@remembered
def logspace(
    start: float, stop: float, num: int = 50, *, base: float = 10.0, dtype: Any = None
) -> Var:
    """base**x for num evenly spaced x from start to stop."""
    exponent = linspace(start, stop, num, dt.float64)
    return el.astype(el.exp2(el.multiply(exponent, math.log2(base))), dtype or dt.float32)


@may_require_grad
@remembered
def eye(
    rows: int, columns: int | None = None, k: int = 0, dtype: Any = None, *, device: Any = None
) -> Var:
    """Ones on the k-th diagonal, zeros elsewhere."""
    check_device(device)
    shape = (rows, rows if columns is None else columns)
    on_diagonal = el.equal(index(shape, 1), el.add(index(shape, 0), k))
    return el.astype(on_diagonal, dtype or dt.float32)


@remembered
def identity(n: int, dtype: Any = None) -> Var:
    """The unit matrix."""
    return eye(n, dtype=dtype)


@remembered
def indices(dimensions: Any) -> Var:
    """Every coordinate of a shape: out[d, i, j, …] = (i, j, …)[d]."""
    target = extents_of("indices", dimensions)
    return stack([index(target, axis) for axis in range(len(target))])


@remembered
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Var:  # noqa: N803
    """Powers of a vector as columns, falling unless increasing."""
    node = node_of(x)
    count = node.shape[0] if N is None else N
    powers = Var._of(IndexOf((count,), 0))
    if not increasing:
        powers = el.subtract(count - 1, powers)
    base = reshape(x, (-1, 1))
    return el.pow(base, powers if node.dtype.is_integer else el.astype(powers, node.dtype))


def _corner(rows: int, columns: int | None, k: int, lower: bool) -> tuple[Var, ...]:
    """The coordinates of a triangle, row by row; known from the sizes alone."""
    width = rows if columns is None else columns
    found = [
        (i, j) for i in range(rows) for j in range(width) if (j - i <= k if lower else j - i >= k)
    ]
    return tuple(Var(np.array([pair[axis] for pair in found], np.int64)) for axis in (0, 1))


@remembered
def tril_indices(n: int, m: int | None = None, k: int = 0) -> tuple[Var, ...]:
    """The coordinates of the lower triangle of an n × m matrix (as numpy's but for the order of
    arguments: torch's)."""
    return _corner(n, m, k, True)


@remembered
def triu_indices(n: int, m: int | None = None, k: int = 0) -> tuple[Var, ...]:
    """The coordinates of the upper triangle of an n × m matrix."""
    return _corner(n, m, k, False)


def _triangle(x: Any, k: int, lower: bool) -> Var:
    node = node_of(x)
    rank = len(node.shape)
    if rank < 2:
        raise ShapeError("tril and triu need at least two axes")
    difference = el.subtract(index(node.shape, rank - 1), index(node.shape, rank - 2))
    kept = el.less_equal(difference, k) if lower else el.greater_equal(difference, k)
    return el.where(kept, x, full_like(x, 0))


@remembered
def tril(x: Any, k: int = 0) -> Var:
    """x with zeros above the k-th diagonal of its last two axes."""
    return _triangle(x, k, True)


@remembered
def triu(x: Any, k: int = 0) -> Var:
    """x with zeros below the k-th diagonal of its last two axes."""
    return _triangle(x, k, False)
