"""Elementwise functions of Vars: NumPy's names, broadcasting and promotion.

Every function is one Elementwise node per operator, after casts and broadcasts.  metaop never
creates float64: int / int, exp(int) and int array + 1.0 are float32.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from . import dtype as dt
from .build import broadcast_shapes, broadcast_to, cast, covers, full
from .dtype import DType, as_dtype, floating, promote, promote_scalar
from .errors import DTypeError, ShapeError, describe
from .graph import OPERATORS, Elementwise, Node, Scalar
from .recipes import remembered
from .traced import TracedNumber, example_of, scalar_value
from .var import Var, node_of

Number = bool | int | float
_NUMBERS = frozenset((bool, int, float))
_SMALL = 128  # every integer dtype holds what is less


def is_number(value: Any) -> bool:
    """True for a Python number, whose dtype gives way to an array's."""
    if type(value) in _NUMBERS:
        return True
    if isinstance(value, bool | int | float):
        return not isinstance(value, np.generic)
    return isinstance(value, TracedNumber)


def operands(operation: str, *values: Any) -> list[Node]:
    """The nodes of the operands, of one dtype and one shape.

    Raises ShapeError or DTypeError naming the operation and both operands.
    """
    nodes = [None if is_number(v) else node_of(v) for v in values]
    if None not in nodes:
        return _converted(operation, nodes)  # type: ignore[arg-type]
    dtype = _common_dtype(operation, values, nodes)
    if nodes.count(None) == len(nodes):  # numbers only: one of them becomes a value in memory
        nodes[0] = node_of(_checked(operation, values[0], dtype))
    nodes = [
        Scalar(_checked(operation, v, dtype), dtype) if n is None else cast(n, dtype)
        for v, n in zip(values, nodes)
    ]
    return same_shape(operation, *nodes)  # type: ignore[arg-type]


def _plain_operands(a: Any, b: Any) -> tuple[Node, Node] | None:
    """The operands where nothing is to be promoted: Vars of one dtype, or a Var and a number that
    its dtype holds; None otherwise, and for shapes that do not broadcast."""
    if isinstance(a, Var):
        x = a._node
        dtype = x.dtype
        if isinstance(b, Var):
            y = b._node
            return _of_one_shape(x, y) if dtype is y.dtype else None
        if dtype.is_float:
            if type(b) is float or type(b) is int:
                return x, full(float(b), x.shape, dtype)
        elif type(b) is int and dtype.is_integer and 0 <= b < _SMALL:
            return x, full(b, x.shape, dtype)
    elif isinstance(b, Var) and (type(a) is float or type(a) is int):
        y = b._node
        dtype = y.dtype
        if dtype.is_float:
            return full(float(a), y.shape, dtype), y
    return None


def _of_one_shape(x: Node, y: Node) -> tuple[Node, Node] | None:
    """The two broadcast to the shape of one of them, None if neither has the shape of both."""
    if x.shape == y.shape:
        return x, y
    if covers(x.shape, y.shape):
        return x, broadcast_to(y, x.shape)
    if covers(y.shape, x.shape):
        return broadcast_to(x, y.shape), y
    return None


def _converted(operation: str, nodes: list[Node]) -> list[Node]:
    """Operands that are all values."""
    dtype = nodes[0].dtype
    for node in nodes:
        if node.dtype is not dtype:
            dtype = promote(dtype, node.dtype)
    return same_shape(operation, *[cast(node, dtype) for node in nodes])


def _common_dtype(operation: str, values: tuple[Any, ...], nodes: list[Node | None]) -> DType:
    dtype: DType | None = None
    for node in nodes:
        if node is not None:
            dtype = node.dtype if dtype is None else promote(dtype, node.dtype)
    for value, node in zip(values, nodes):
        if node is None:
            if dtype is None:
                dtype = dt.PYTHON_TYPES[type(example_of(value))]
            else:
                dtype = promote_scalar(dtype, example_of(value))
    assert dtype is not None
    return dtype


def _checked(operation: str, value: Number, dtype: DType) -> Number:
    """A Python integer must fit the dtype it takes, as in NumPy."""
    if dtype.is_integer and not dtype.lowest <= value <= dtype.highest:
        raise OverflowError(f"{operation}: {value} is out of bounds for {dtype}")
    if isinstance(value, TracedNumber):
        return scalar_value(value)
    return float(value) if dtype.is_float else value  # OverflowError beyond float64


def same_shape(operation: str, *nodes: Node) -> list[Node]:
    """The nodes broadcast to their common shape."""
    shapes = [node.shape for node in nodes]
    if shapes.count(shapes[0]) == len(shapes):
        return list(nodes)
    try:
        shape = broadcast_shapes(*shapes)
    except ValueError as error:
        names = ", ".join("abc"[: len(nodes)])
        kinds = " and ".join(f"{name} is {describe(node)}" for name, node in zip("abc", nodes))
        places = ", ".join(f"{name} at {node.site}" for name, node in zip("abc", nodes))
        raise ShapeError(
            f"{operation}({names}): shapes do not broadcast, {kinds} ({error}).\n"
            f"            made: {places}; add axes with x[:, None] or reshape"
        ) from None
    return [broadcast_to(node, shape) for node in nodes]


# ----------------------------------------------------------------------------------------- unary


def _document(function: Any, name: str, text: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


def _float_unary(op: str, text: str, name: str | None = None) -> Callable[[Any], Var]:
    """A function of floats; integers and bools are computed in float32."""

    def function(x: Any) -> Var:
        node = node_of(x)
        return Var._of(Elementwise(op, cast(node, floating(node.dtype))))

    return _document(function, name or op, text)


def _rounding(op: str, text: str) -> Callable[[Any], Var]:
    """A function that leaves integers as they are."""

    def function(x: Any) -> Var:
        node = node_of(x)
        return Var._of(Elementwise(op if node.dtype.is_float else "copy", node))

    return _document(function, op, text)


exp = _float_unary("exp", "e**x; error at most 2 units in the last place.")
exp2 = _float_unary("exp2", "2**x.")
expm1 = _float_unary("expm1", "e**x - 1, accurate near 0.")
log = _float_unary("log", "The natural logarithm: -inf at 0, NaN below.")
log2 = _float_unary("log2", "The logarithm to base 2.")
log10 = _float_unary("log10", "The logarithm to base 10.")
log1p = _float_unary("log1p", "log(1 + x), accurate near 0.")
sqrt = _float_unary("sqrt", "The square root: NaN below 0.")
sin = _float_unary("sin", "The sine of x in radians.")
cos = _float_unary("cos", "The cosine of x in radians.")
tan = _float_unary("tan", "The tangent of x in radians.")
asin = _float_unary("asin", "The inverse sine in [-pi/2, pi/2].")
acos = _float_unary("acos", "The inverse cosine in [0, pi].")
atan = _float_unary("atan", "The inverse tangent in [-pi/2, pi/2].")
sinh = _float_unary("sinh", "The hyperbolic sine.")
cosh = _float_unary("cosh", "The hyperbolic cosine.")
tanh = _float_unary("tanh", "The hyperbolic tangent.")
asinh = _float_unary("asinh", "The inverse hyperbolic sine.")
acosh = _float_unary("acosh", "The inverse hyperbolic cosine: NaN below 1.")
atanh = _float_unary("atanh", "The inverse hyperbolic tangent: NaN outside [-1, 1].")
erf = _float_unary("erf", "The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x.")
erfc = _float_unary("erfc", "1 - erf(x), accurate for large x.")
erfinv = _float_unary("erfinv", "The inverse of erf: ±inf at ±1, NaN beyond.")
lgamma = _float_unary("lgamma", "The logarithm of |gamma(x)|: inf at 0, -1, -2, …")
digamma = _float_unary("digamma", "The derivative of lgamma: NaN at -1, -2, …")
sigmoid = _float_unary("sigmoid", "1 / (1 + exp(-x)), without overflow.")
floor = _rounding("floor", "The largest integer not above x, in x's dtype.")
ceil = _rounding("ceil", "The smallest integer not below x, in x's dtype.")
trunc = _rounding("trunc", "x without its fraction, in x's dtype.")
round = _rounding("round", "The nearest integer, halves to even, in x's dtype.")


def _predicate(op: str, on_integers: bool, text: str) -> Callable[[Any], Var]:
    def function(x: Any) -> Var:
        node = node_of(x)
        if node.dtype.is_float:
            return Var._of(Elementwise(op, node))
        return Var._of(full(on_integers, node.shape, dt.bool_))

    return _document(function, op, text)


isnan = _predicate("isnan", False, "True where x is NaN.")
isinf = _predicate("isinf", False, "True where x is inf or -inf.")
isfinite = _predicate("isfinite", True, "True where x is neither NaN nor infinite.")


def _arithmetic_unary(operation: str, op: str, x: Any) -> Var:
    node = node_of(x)
    if node.dtype is dt.bool_:
        raise DTypeError(f"{operation}(x): not defined for bool, x is {describe(node)}")
    return Var._of(Elementwise(op, node))


def negative(x: Any) -> Var:
    """-x; unsigned integers wrap.  Raises DTypeError for bool."""
    return _arithmetic_unary("negative", "neg", x)


def positive(x: Any) -> Var:
    """x."""
    return Var._of(Elementwise("copy", node_of(x)))


def abs(x: Any) -> Var:
    """|x|; the gradient at 0 is 0."""
    node = node_of(x)
    return Var._of(Elementwise("copy" if node.dtype is dt.bool_ else "abs", node))


def sign(x: Any) -> Var:
    """-1, 0 or 1; NaN for NaN."""
    return _arithmetic_unary("sign", "sign", x)


def square(x: Any) -> Var:
    """x * x."""
    return multiply(x, x)


def reciprocal(x: Any) -> Var:
    """1 / x."""
    return divide(1, x)


def rsqrt(x: Any) -> Var:
    """1 / sqrt(x)."""
    return divide(1, sqrt(x))


def logical_not(x: Any) -> Var:
    """not x; numbers count as x != 0."""
    return Var._of(Elementwise("logical_not", cast(node_of(x), dt.bool_)))


def bitwise_invert(x: Any) -> Var:
    """~x of integers and bools."""
    node = node_of(x)
    if node.dtype.is_float:
        raise DTypeError(f"~x: not defined for floats, x is {describe(node)}")
    return Var._of(Elementwise("invert", node))


def astype(x: Any, dtype: Any, *, copy: bool = True, device: Any = None) -> Var:
    """x converted to a dtype; float to integer truncates toward zero.

    copy: False returns a Var of the dtype itself; device: "cpu" or None.
    """
    if device not in (None, "cpu"):
        raise ValueError(f"metaop computes on the CPU: no device {device!r}")
    if not copy and isinstance(x, Var) and x.dtype is as_dtype(dtype):
        return x
    return Var._of(Elementwise("copy", cast(node_of(x), as_dtype(dtype))))


# ---------------------------------------------------------------------------------------- binary


def _binary(
    op: str, text: str, name: str, on_bool: str | None = None, as_float: bool = False
) -> Callable[[Any, Any], Var]:
    """A function of two operands; `on_bool` is what it means for bools, None: an error."""

    kinds = OPERATORS[op].kinds

    def function(a: Any, b: Any) -> Var:
        x, y = _plain_operands(a, b) or operands(name, a, b)
        kind = x.dtype.kind
        if as_float and kind != "f":
            x, y = cast(x, dt.float32), cast(y, dt.float32)
            kind = "f"
        if kind in kinds:
            return Var._of(Elementwise(op, x, y))
        if x.dtype is dt.bool_ and on_bool is not None:
            return Var._of(Elementwise(on_bool, x, y))
        raise DTypeError(f"{name}(a, b): not defined for {x.dtype}")

    return _document(function, name, text)


add = _binary("add", "a + b; or for bools.", "add", "logical_or")
subtract = _binary("sub", "a - b.  Raises DTypeError for bools: use logical_xor.", "subtract")
multiply = _binary("mul", "a * b; and for bools.", "multiply", "logical_and")
divide = _binary("div", "a / b, always a float.", "divide", as_float=True)
floor_divide = _binary(
    "floordiv",
    "The floor of a / b.  An integer division by zero raises ZeroDivisionError when computed.",
    "floor_divide",
)
remainder = _binary(
    "mod",
    "a - b * floor(a / b): the sign of b.  Integer division by zero raises ZeroDivisionError.",
    "remainder",
)
atan2 = _binary("atan2", "The angle of the point (b, a) in [-pi, pi].", "atan2", as_float=True)
hypot = _binary("hypot", "sqrt(a*a + b*b) without overflow.", "hypot", as_float=True)
copysign = _binary("copysign", "|a| with the sign of b.", "copysign", as_float=True)
maximum = _binary("maximum", "The larger; NaN if either is.  A tie shares the gradient.", "maximum")
minimum = _binary("minimum", "The smaller; NaN if either is.  A tie shares it.", "minimum")


_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip


def _comparison(op: str, text: str, name: str) -> Callable[[Any, Any], Var]:
    """A comparison of the numbers themselves, also where two integers have no common dtype."""
    plain = _binary(op, text, name)

    def function(a: Any, b: Any) -> Var:
        if not isinstance(a, Var) and not is_number(a):
            a = Var(a)
        if not isinstance(b, Var) and not is_number(b):
            b = Var(b)
        if isinstance(a, Var) and isinstance(b, Var):
            if (a.dtype is dt.uint64 or b.dtype is dt.uint64) and a.dtype is not b.dtype:
                if {a.dtype.kind, b.dtype.kind} == {"i", "u"}:
                    return _compare_signs(op, name, a._node, b._node)
        elif isinstance(a, Var) and _beyond(a.dtype, b):
            return Var._of(full(_HOLDS[op](0, b), a.shape, dt.bool_))
        elif isinstance(b, Var) and _beyond(b.dtype, a):
            return Var._of(full(_HOLDS[op](a, 0), b.shape, dt.bool_))
        return plain(a, b)

    return _document(function, name, text)


def _beyond(dtype: DType, number: Number) -> bool:
    """True for a Python integer outside a dtype: all elements compare to it as 0 does."""
    return (
        dtype.is_integer and isinstance(number, int) and not dtype.lowest <= number <= dtype.highest
    )


def _compare_signs(op: str, name: str, x: Node, y: Node) -> Var:
    """uint64 with signed: a negative number is below every unsigned one."""
    x, y = same_shape(name, x, y)
    first = x.dtype.kind == "i"
    signed = x if first else y
    negative = Elementwise("lt", signed, full(0, signed.shape, signed.dtype))
    holds = full(_HOLDS[op](-1, 0) if first else _HOLDS[op](0, -1), x.shape, dt.bool_)
    compared = Elementwise(op, cast(x, dt.uint64), cast(y, dt.uint64))
    return Var._of(Elementwise("where", negative, holds, compared))


less = _comparison("lt", "a < b.", "less")
less_equal = _comparison("le", "a <= b.", "less_equal")
greater = _comparison("gt", "a > b.", "greater")
greater_equal = _comparison("ge", "a >= b.", "greater_equal")
equal = _comparison("eq", "a == b.", "equal")
not_equal = _comparison("ne", "a != b.", "not_equal")
bitwise_and = _binary("bitand", "a & b of integers and bools.", "bitwise_and")
bitwise_or = _binary("bitor", "a | b of integers and bools.", "bitwise_or")
bitwise_xor = _binary("bitxor", "a ^ b of integers and bools.", "bitwise_xor")
bitwise_left_shift = _binary("shl", "a << b; 0 when b reaches the width.", "bitwise_left_shift")
bitwise_right_shift = _binary("shr", "a >> b, keeping the sign.", "bitwise_right_shift")


def _float_choice(op: str, exact: str, text: str, name: str) -> Callable[[Any, Any], Var]:
    def function(a: Any, b: Any) -> Var:
        x, y = _plain_operands(a, b) or operands(name, a, b)
        return Var._of(Elementwise(op if x.dtype.is_float else exact, x, y))

    return _document(function, name, text)


fmax = _float_choice("fmax", "maximum", "The larger; a number rather than NaN.", "fmax")
fmin = _float_choice("fmin", "minimum", "The smaller; a number rather than NaN.", "fmin")


def _logical(op: str, text: str, name: str) -> Callable[[Any, Any], Var]:
    def function(a: Any, b: Any) -> Var:
        x, y = (cast(node_of(v), dt.bool_) for v in (a, b))
        return Var._of(Elementwise(op, *same_shape(name, x, y)))

    return _document(function, name, text)


logical_and = _logical("logical_and", "a and b; numbers count as != 0.", "logical_and")
logical_or = _logical("logical_or", "a or b; numbers count as != 0.", "logical_or")
logical_xor = _logical("logical_xor", "Exactly one of a and b.", "logical_xor")


def pow(a: Any, b: Any) -> Var:
    """a ** b.  Integers to a negative Python integer raise ValueError, as in NumPy."""
    x, y = _plain_operands(a, b) or operands("pow", a, b)
    if x.dtype is dt.bool_:
        x, y = cast(x, dt.int8), cast(y, dt.int8)
    if x.dtype.is_integer and is_number(b) and b < 0:
        raise ValueError("pow(a, b): integers to negative integer powers are not allowed")
    if type(b) in (int, float) and b in _POWERS:
        return Var._of(_POWERS[b](x))
    return Var._of(Elementwise("pow", x, y))


# By exponent, as NumPy does it: its roots of -0.0 and -inf are those of sqrt too.
_POWERS: dict[float, Callable[[Node], Node]] = {
    1: lambda a: Elementwise("copy", a),
    2: lambda a: Elementwise("mul", a, a),
    -1: lambda a: Elementwise("div", full(1, a.shape, a.dtype), a),
    0.5: lambda a: Elementwise("sqrt", a),
}


def where(condition: Any, a: Any = None, b: Any = None) -> Any:
    """a where the condition holds, else b; the gradient goes to the chosen one only.

    Without a and b: `nonzero(condition)`, computed at the call.
    """
    if a is None or b is None:
        from .selection import nonzero  # which is built on this module

        if a is not None or b is not None:
            raise TypeError("where(condition, a, b): give both a and b, or neither")
        return nonzero(condition)
    x, y = _plain_operands(a, b) or operands("where", a, b)
    chosen = same_shape("where", cast(node_of(condition), dt.bool_), x, y)
    return Var._of(Elementwise("where", *chosen))


def clip(x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Var:
    """x limited to [low, high]; either bound may be None.  NaN stays NaN."""
    low, high = low if min is None else min, high if max is None else max
    result = x if isinstance(x, Var) else Var(x)
    if low is not None:
        result = maximum(result, low)
    return minimum(result, high) if high is not None else result


def lerp(a: Any, b: Any, weight: Any) -> Var:
    """a + weight * (b - a)."""
    return add(a, multiply(weight, subtract(b, a)))


@remembered
def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Var:
    """|a - b| <= atol + rtol * |b|; infinities are close to themselves."""
    near = less_equal(abs(subtract(a, b)), add(atol, multiply(rtol, abs(b))))
    close = logical_or(equal(a, b), logical_and(near, isfinite(b)))
    return logical_or(close, logical_and(isnan(a), isnan(b))) if equal_nan else close


pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
