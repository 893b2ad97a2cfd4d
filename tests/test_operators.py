"""Every elementwise operator of the table, on every dtype it is defined on, against NumPy.

The cases are the table's own: an operator without a line in `NUMPY` fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import dtype as dt
from metaop import reference
from metaop.dtype import DType
from metaop.graph import CONVERSIONS, OPERATORS, Elementwise
from tests.helpers import ULPS, assert_bits, assert_same, assert_ulps, python_value


def _c_remainder(a: Any, b: Any) -> Any:
    return np.fmod(a, b)


def _c_quotient(a: Any, b: Any) -> Any:
    """Rounded towards zero; min / -1 wraps, as NumPy's own division does."""
    floor = np.floor_divide(a, b)
    inexact = np.fmod(a, b) != 0
    return floor + (inexact & ((a < 0) != (b < 0))).astype(floor.dtype)


def _sigmoid(x: Any) -> Any:
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def _each(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return np.vectorize(function, otypes=[np.float64])


def _scipy(name: str) -> Callable[..., Any]:
    """A function of SciPy, in float64; a test that needs it is skipped without SciPy."""

    def function(x: Any) -> Any:
        special = pytest.importorskip("scipy.special")
        return getattr(special, name)(np.asarray(x, np.float64))

    return function


def _log_gamma(x: Any) -> Any:
    """SciPy's, but C99's inf at -inf, and -log|x| for subnormals."""
    tiny = np.abs(x) < 1e-300
    result = np.where(tiny, -np.log(np.abs(x)), _scipy("gammaln")(np.where(tiny, 1, x)))
    return np.where(np.isinf(x), np.inf, result)


NUMPY: dict[str, Callable[..., Any]] = {
    "erfinv": lambda x: np.copysign(_scipy("erfinv")(np.abs(x)), x),
    "lgamma": _log_gamma,
    "digamma": _scipy("psi"),
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "copy": np.copy, "again": np.copy,
    "barrier": np.copy,
    "floor": np.floor,
    "ceil": np.ceil, "round": np.rint, "trunc": np.trunc, "sqrt": np.sqrt, "exp": np.exp,
    "exp2": np.exp2, "sigmoid": _sigmoid, "tanh": np.tanh, "expm1": np.expm1, "log": np.log,
    "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "erf": _each(math.erf), "erfc": _each(math.erfc), "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "isnan": np.isnan, "isinf": np.isinf,
    "isfinite": np.isfinite, "logical_not": np.logical_not, "invert": np.invert, "add": np.add,
    "sub": np.subtract, "mul": np.multiply, "div": np.divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "truncdiv": _c_quotient, "truncmod": _c_remainder, "pow": np.power,
    "atan2": np.arctan2, "hypot": np.hypot, "copysign": np.copysign, "maximum": np.maximum,
    "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor, "bitand": np.bitwise_and, "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor, "shl": np.left_shift, "shr": np.right_shift, "where": np.where,
}  # fmt: skip

# Computed by polynomials: right to a few units in the last place instead of to the bit.
APPROXIMATE = frozenset(
    "exp exp2 sigmoid tanh expm1 log log2 log10 log1p sin cos tan erf erfc asin acos atan sinh "
    "cosh asinh acosh atanh pow atan2 hypot erfinv lgamma digamma".split()
)
# Exact to some units in the last place for positive numbers only: they have zeros elsewhere.
GAMMA = frozenset(("lgamma", "digamma"))
DIVISIONS = frozenset(("floordiv", "mod", "truncdiv", "truncmod"))
# Which of 0.0 and -0.0 is the larger is not NumPy's to say.
UNSIGNED_ZERO = frozenset(("maximum", "minimum", "fmax", "fmin"))

OPS_AND_DTYPES = [
    pytest.param(op, dtype, id=f"{op}-{dtype.short}")
    for op, operator in OPERATORS.items()
    for dtype in dt.ALL
    if dtype.kind in operator.kinds
]


# ------------------------------------------------------------------------------ values and oracle


def special_values(dtype: DType) -> np.ndarray:
    """NaN, infinities, both zeros, subnormals and the extremes of a dtype (bfloat16 as float32)."""
    if dtype is dt.bool_:
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.storage)
        wanted = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 65, 100, info.max, info.max - 1,
                  info.min, info.min + 1, -1, -2, -3, -7, -64, 46341, 3037000500]  # fmt: skip
        fitting = sorted({v for v in wanted if info.min <= v <= info.max})
        return np.array(fitting, dtype.storage)
    if dtype is dt.bfloat16:
        plain = special_values(dt.float32)
        return reference.bfloat16_to_float32(reference.float32_to_bfloat16(plain))
    info = np.finfo(dtype.storage)
    plain = [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.25, 20.0, 100.25, 1000.5, math.pi]
    edges = [info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, info.eps, info.max,
             np.inf]  # fmt: skip
    values = np.array(plain + edges, dtype.storage)
    return np.concatenate([values, -values, np.array([np.nan], dtype.storage)])


def operand_values(op: str, dtype: DType) -> list[np.ndarray]:
    """Flat operands: every pair of special values on which the operator is defined."""
    arity, values = OPERATORS[op].arity, special_values(dtype)
    if op == "where":
        a, b = values, values[::-1]
        return [np.arange(a.size) % 3 == 0, a, np.ascontiguousarray(b)]
    if arity == 1:
        return [values]
    a, b = (grid.ravel() for grid in np.meshgrid(values, values, indexing="ij"))
    if dtype.is_integer and op in DIVISIONS:  # by zero: see the test of its error
        a, b = a[b != 0], b[b != 0]
    if dtype.kind == "i" and op == "pow":
        a, b = a[b >= 0], b[b >= 0]
    return [a, b]


def leaves(op: str, dtype: DType, arrays: list[np.ndarray]) -> list[mo.Var]:
    """Vars holding the operands; the first operand of where is a bool."""
    kinds = [dt.bool_, dtype, dtype] if op == "where" else [dtype] * len(arrays)
    return [mo.array(a, dtype=k).sync() for a, k in zip(arrays, kinds)]


def record(op: str, *vars: mo.Var) -> mo.Var:
    """One node of an operator, whether or not a function has its name."""
    return mo.Var._of(Elementwise(op, *(v._node for v in vars)))


def expected(op: str, dtype: DType, arrays: list[np.ndarray]) -> np.ndarray:
    """NumPy's values: 16-bit floats in float32, polynomials in float64, then rounded once."""
    work = dtype.compute.storage
    if op in APPROXIMATE and dtype.is_float:
        work = np.dtype(np.longdouble) if dtype is dt.float64 else np.dtype(np.float64)
        if op in ("erf", "erfc"):
            work = np.dtype(np.float64)
    operands = [a if a.dtype == bool else a.astype(work) for a in arrays]
    with np.errstate(all="ignore"):
        result = np.asarray(NUMPY[op](*operands))
        if OPERATORS[op].result(dtype) is dt.bool_:
            return result
        if dtype is dt.bfloat16:
            bits = reference.float32_to_bfloat16(result.astype(np.float32))
            return reference.bfloat16_to_float32(bits)
        return result.astype(dtype.storage)


def check(op: str, dtype: DType, got: np.ndarray, want: np.ndarray) -> None:
    if op in GAMMA:
        assert_same(got, want, dtype.name)
    elif op in APPROXIMATE and dtype.is_float:
        assert_ulps(got, want, dtype.name)
    else:
        assert_bits(got, want, signs=op not in UNSIGNED_ZERO)


# ----------------------------------------------------------------------------------- the operators


def test_every_operator_has_a_case():
    assert set(NUMPY) == set(OPERATORS)


@pytest.mark.parametrize("op, dtype", OPS_AND_DTYPES)
def test_operator_equals_numpy_on_special_values(op, dtype):
    arrays = operand_values(op, dtype)
    want = expected(op, dtype, arrays)
    y = record(op, *leaves(op, dtype, arrays))
    check(op, dtype, python_value(y), want)
    check(op, dtype, y.numpy(), want)


def _first_dtype(op: str) -> DType:
    kinds = OPERATORS[op].kinds
    return dt.float32 if "f" in kinds else dt.int32 if "i" in kinds else dt.bool_


def _plain_values(dtype: DType, count: int) -> np.ndarray:
    """Numbers on which every operator is defined, away from zero."""
    if dtype is dt.bool_:
        return np.arange(count) % 3 == 1
    if dtype.is_integer:
        return (1 + np.arange(count) % 7).astype(dtype.storage)
    return (0.05 + (np.arange(count) % 17) / 19).astype(dtype.storage)


def _strided(array: np.ndarray) -> np.ndarray:
    """The same values in memory with gaps and in reverse order."""
    base = np.empty(tuple(2 * n for n in array.shape), array.dtype)
    view = base[tuple(slice(None, None, -2) for _ in array.shape)]
    view[...] = array
    return view


@pytest.mark.parametrize("op", OPERATORS)
def test_operator_on_shapes(op):
    dtype = _first_dtype(op)
    for shape in ((), (0,), (1,), (3, 0), (3, 5), (2, 1, 17)):
        count = math.prod(shape)
        arrays = [
            np.roll(_plain_values(dt.bool_ if op == "where" and k == 0 else dtype, count), k)
            for k in range(OPERATORS[op].arity)
        ]
        arrays = [_strided(a.reshape(shape)) if shape else a.reshape(()) for a in arrays]
        y = record(op, *leaves(op, dtype, arrays))
        want = expected(op, dtype, arrays)
        assert y.shape == shape
        check(op, dtype, y.numpy(), want)


SCALAR_DTYPES = (dt.float32, dt.float64, dt.float16, dt.int32, dt.uint8, dt.bool_)


@pytest.mark.parametrize(
    "op, dtype", [p for p in OPS_AND_DTYPES if p.values[1] in SCALAR_DTYPES]
)  # fmt: skip
def test_operator_outside_a_vector_loop_gives_the_bits_of_a_lane(op, dtype):
    arrays = operand_values(op, dtype)
    lanes = record(op, *leaves(op, dtype, arrays)).numpy()
    picked = np.unique(np.linspace(0, lanes.size - 1, 11).astype(int))
    for k in picked:
        vars = leaves(op, dtype, [a[k] for a in arrays])
        assert_bits(record(op, *vars).numpy(), lanes[k])


BINARY = {
    "add": mo.add, "sub": mo.subtract, "mul": mo.multiply, "div": mo.divide, "mod": mo.remainder,
    "floordiv": mo.floor_divide, "pow": mo.pow, "maximum": mo.maximum, "lt": mo.less,
    "fmax": mo.fmax, "atan2": mo.atan2, "hypot": mo.hypot, "copysign": mo.copysign,
}  # fmt: skip


@pytest.mark.parametrize("op", BINARY)
def test_binary_functions_broadcast(op):
    a = _plain_values(dt.float32, 15).reshape(3, 5)
    for b in (_plain_values(dt.float32, 5), _plain_values(dt.float32, 3).reshape(3, 1)):
        check(op, dt.float32, BINARY[op](mo.array(a), mo.array(b)).numpy(),
              expected(op, dt.float32, list(np.broadcast_arrays(a, b))))  # fmt: skip
        check(op, dt.float32, BINARY[op](b, mo.array(a[:, None])).numpy(),
              expected(op, dt.float32, list(np.broadcast_arrays(b, a[:, None]))))  # fmt: skip
    empty = BINARY[op](mo.array(a[:, :0]), mo.array(a[:, :1]))
    assert empty.shape == (3, 0) and empty.numpy().size == 0


def test_where_broadcasts_all_three():
    condition = np.array([True, False, True])[:, None]
    got = mo.where(condition, np.arange(5, dtype=np.float32), 7.5)
    assert got.dtype is mo.float32
    assert_same(got, np.where(condition, np.arange(5), 7.5).astype(np.float32))
    # numbers count as != 0, and NaN is not 0
    assert_same(mo.where(np.array([0.0, np.nan, -0.0, 2.0]), 1, 2), np.array([2, 1, 2, 1]))


# --------------------------------------------------------------------------------- several in one


@pytest.mark.parametrize("dtype", [mo.float16, mo.bfloat16, mo.float32], ids=str)
def test_fused_operators_round_each_as_alone(dtype):
    a, b, c = (mo.array(v, dtype=dtype).sync() for v in np.random.default_rng(0).normal(
        size=(3, 101)).astype(np.float32) * 30)  # fmt: skip
    alone = (a * b).sync()
    alone = (alone + c).sync()
    alone = (alone / b).sync()
    fused = (a * b + c) / b
    assert_bits(python_value(fused), alone.numpy())
    assert_bits(fused.numpy(), alone.numpy())


def test_infinity_minus_itself_and_zero_over_subnormal_in_a_fused_pair():
    x = mo.array(np.array([np.inf, 1.0, -np.inf, np.nan, 1e-40], np.float32))
    y = (x - np.inf) + np.inf
    with np.errstate(all="ignore"):
        assert_bits(y.numpy(), (x.numpy() - np.float32(np.inf)) + np.float32(np.inf))
        assert_bits(((x * 0.0) / x).numpy(), x.numpy() * np.float32(0) / x.numpy())


def test_adding_zero_and_multiplying_by_zero_are_not_simplified_away():
    x = mo.array(np.array([-0.0, np.nan, np.inf, 3.0], np.float32))
    assert_bits((x + 0.0).numpy(), np.array([0.0, np.nan, np.inf, 3.0], np.float32))
    assert_bits((x * 0.0).numpy(), np.array([-0.0, np.nan, np.nan, 0.0], np.float32))
    assert_bits((x - x).numpy(), np.array([0.0, np.nan, np.nan, 0.0], np.float32))
    assert_bits((0.0 - x).numpy(), np.array([0.0, np.nan, -np.inf, -3.0], np.float32))
    assert_bits((x * 1 + -0.0).numpy(), x.numpy())


# ------------------------------------------------------------------------------------ conversions


def test_every_conversion_has_a_test():
    assert set(CONVERSIONS) == {"cast", "bitcast"}


@pytest.mark.parametrize("source", dt.ALL, ids=str)
def test_cast_from(source):
    """To every dtype, for values that the target can hold: others are unspecified in NumPy."""
    values = special_values(source)
    x = mo.array(values, dtype=source).sync()
    for target in dt.ALL:
        keep = np.ones(values.shape, bool)
        if source.is_float and target.is_integer:
            info = np.iinfo(target.storage)
            wide = values.astype(np.longdouble)
            keep = np.isfinite(values) & (wide > info.min - 1) & (wide < info.max)
        with np.errstate(all="ignore"):
            want = (
                reference.bfloat16_to_float32(
                    reference.float32_to_bfloat16(values.astype(np.float32))
                )
                if target is dt.bfloat16
                else values.astype(target.storage)
            )
        y = x.astype(target)
        assert y.dtype is target
        assert_bits(python_value(y)[keep], want[keep])
        assert_bits(y.numpy()[keep], want[keep])


def test_cast_of_float_out_of_range_saturates_and_nan_is_zero():
    x = mo.array([math.inf, -math.inf, 1e30, -1e30, math.nan])
    info = np.iinfo(np.int32)
    want = np.array([info.max, info.min, info.max, info.min, 0], np.int32)
    y = x.astype(mo.int32)
    assert_bits(python_value(y), want)
    assert_bits(y.numpy(), want)
    assert_bits(x.astype(mo.uint8).numpy(), np.array([255, 0, 255, 0, 0], np.uint8))


@pytest.mark.parametrize("source, target", [
    ("float32", "int32"), ("int32", "float32"), ("float64", "uint64"), ("int8", "uint8"),
    ("uint16", "float16"), ("float16", "uint16"),
])  # fmt: skip
def test_bitcast_keeps_the_bytes(source, target):
    values = special_values(dt.as_dtype(source))
    values = values[values == values]
    y = mo.Var._of(
        Elementwise("bitcast", mo.array(values)._node, dtype=dt.as_dtype(target))
    )  # fmt: skip
    assert_bits(python_value(y), values.view(target))
    assert_bits(y.numpy(), values.view(target))


# -------------------------------------------------------------------------------- integer errors


@pytest.mark.parametrize("function", [mo.floor_divide, mo.remainder], ids=["//", "%"])
def test_integer_division_by_zero_names_the_line_that_recorded_it(function):
    a = mo.array([1, 2, 3])
    y = function(a, mo.array([1, 0, 1]))  # the line that the error names
    with pytest.raises(ZeroDivisionError, match=r"test_operators\.py:\d+"):
        y.numpy()


def test_integer_division_by_zero_in_a_branch_not_taken_still_raises():
    y = mo.where(mo.array([True]), 1, mo.array([1]) // mo.array([0]))
    with pytest.raises(ZeroDivisionError):
        y.numpy()


def test_float_division_by_zero_is_infinite():
    x = mo.array([1.0, -1.0, 0.0])
    with np.errstate(all="ignore"):
        assert_bits((x / 0).numpy(), x.numpy() / np.float32(0))
        assert_bits((x // 0.0).numpy(), x.numpy() // np.float32(0))
        assert_bits((x % 0.0).numpy(), x.numpy() % np.float32(0))
    assert_bits((mo.array([1, -1, 0]) / 0).numpy(), np.array([np.inf, -np.inf, np.nan], "f4"))


def test_integer_to_a_negative_power_raises():
    with pytest.raises(ValueError, match="negative integer powers are not allowed"):
        mo.array([1, 2]) ** -1
    assert_same(mo.array([1.0, 2.0]) ** -1, np.array([1, 0.5], np.float32))


# ------------------------------------------------------------------------------ derived functions


def test_derived_elementwise_functions():
    values = special_values(dt.float32)
    x = mo.array(values)
    with np.errstate(all="ignore"):
        assert_bits(mo.square(x).numpy(), values * values)
        assert_bits(mo.reciprocal(x).numpy(), 1 / values)
        assert_ulps(mo.rsqrt(x).numpy(), 1 / np.sqrt(values.astype("f8")), "float32")
        assert_bits(mo.clip(x, -1.0, 2.5).numpy(), np.clip(values, -1, 2.5), signs=False)
        assert_bits(mo.clip(x, max=0.5).numpy(), np.minimum(values, np.float32(0.5)))
        assert_bits(mo.clip(x, min=0.5).numpy(), np.maximum(values, np.float32(0.5)))
        assert_bits(mo.positive(x).numpy(), values)
        other = values[::-1]
        assert_same(mo.isclose(x, other), np.isclose(values, other))
        assert_same(mo.isclose(x, x, equal_nan=True), np.isclose(values, values, equal_nan=True))
    assert_same(mo.lerp(mo.array([1.0, 2.0]), mo.array([3.0, 6.0]), 0.25),
                np.array([1.5, 3], np.float32))  # fmt: skip


@pytest.mark.parametrize("name", "floor ceil round trunc".split())
def test_rounding_keeps_integers(name):
    x = mo.array([1, -7, 2])
    assert getattr(mo, name)(x).dtype is mo.int64
    assert_same(getattr(mo, name)(x), x)


def test_predicates_of_integers():
    x = mo.array([0, 5])
    assert mo.isnan(x).tolist() == [False, False]
    assert mo.isinf(x).tolist() == [False, False]
    assert mo.isfinite(x).tolist() == [True, True]


@pytest.mark.parametrize("name", "logical_and logical_or logical_xor".split())
def test_logical_functions_take_numbers_as_not_zero(name):
    a, b = np.array([0, 0, 3, -1]), np.array([0.0, np.nan, 0.0, 1e-45], np.float32)
    assert_same(getattr(mo, name)(a, mo.array(b)), getattr(np, name)(a, b))


def test_bool_arithmetic_is_or_and():
    a, b = mo.array([True, True, False]), mo.array([True, False, False])
    assert (a + b).tolist() == [True, True, False] and (a + b).dtype is mo.bool_
    assert (a * b).tolist() == [True, False, False]
    assert (~a).tolist() == [False, False, True]
    assert mo.abs(a).dtype is mo.bool_
    assert (a / b).dtype is mo.float32


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda b: -b, r"negative\(x\): not defined for bool, x is bool\[2\]"),
        (lambda b: mo.sign(b), "sign.*not defined for bool"),
        (lambda b: b - b, r"subtract\(a, b\): not defined for bool"),
        (lambda b: b // b, "floor_divide.*not defined for bool"),
        (lambda b: b << b, "left_shift.*not defined for bool"),
        (lambda b: ~b.astype("float32"), r"~x: not defined for floats, x is f32\[2\]"),
        (lambda b: b.astype("float32") & b, "bitwise_and.*not defined for float32"),
        (lambda b: b.astype("float32") << 1, "left_shift.*not defined for float32"),
        (lambda b: mo.array("abc"), "no such dtype"),
        (lambda b: mo.array(1j), "no such dtype"),
        (lambda b: b + object(), "cannot make a Var of object"),
    ],
)
def test_undefined_operands_raise_a_dtype_error(call, message):
    with pytest.raises(mo.DTypeError, match=message):
        call(mo.array([True, False]))


def test_shapes_that_do_not_broadcast_are_named_with_their_lines():
    a, b = mo.zeros(3, 4), mo.zeros(5)
    with pytest.raises(
        mo.ShapeError,
        match=r"add\(a, b\): shapes do not broadcast, a is f32\[3,4\] and b is f32\[5\]"
        r"(.|\n)*a at test_operators\.py:\d+, b at test_operators\.py:\d+",
    ):
        a + b
    with pytest.raises(mo.ShapeError, match=r"where.*do not broadcast"):
        mo.where(a > 0, b, a)


# ------------------------------------------------------------------------- Python's own protocols


def test_reflected_operators_with_ndarrays_and_numpy_scalars_give_vars():
    x = mo.array([1.0, 2.0])
    array = np.array([10.0, 20.0], np.float32)
    for got, want in (
        (array * x, [10, 40]), (x * array, [10, 40]), (np.float32(2) * x, [2, 4]),
        (np.float32(2) - x, [1, 0]), (np.int64(3) + x, [4, 5]), (array @ x, 50),
        (array / x, [10, 10]), (2 ** x, [2, 4]), (7 // x, [7, 3]), (7 % x, [0, 1]),
    ):  # fmt: skip
        assert isinstance(got, mo.Var) and got.dtype is mo.float32
        assert_same(got, np.array(want, np.float32))
    assert isinstance(array == x, mo.Var) and isinstance(array < x, mo.Var)
    i = mo.array([6, 5])
    assert (5 & i).tolist() == [4, 5] and (1 << i).tolist() == [64, 32]
    assert (8 >> mo.array([1, 2])).tolist() == [4, 2]
    assert (6 ^ i).tolist() == [0, 3] and (1 | i).tolist() == [7, 5]


def test_in_place_operators_keep_the_object():
    x = mo.array([4.0, 9.0])
    same = x
    x += 1
    x *= 2
    x -= 4
    x /= 2
    x **= 2
    x //= 2
    assert x is same and x.tolist() == [4.0, 32.0]
    i = mo.array([7, 8])
    i <<= 1
    i |= 1
    i %= 9
    assert i.tolist() == [6, 8]
    with pytest.raises(mo.DTypeError, match="in-place: cannot write float32 into a Var of int64"):
        i /= 2
    with pytest.raises(mo.ShapeError, match="in-place: the result is"):
        i += mo.zeros(3, 2, dtype="int64")


def test_a_var_is_used_like_a_number():
    loss = mo.array([1.0, 2.0, 3.0]).sum()
    assert sum([loss, loss * 2, 1]).item() == 19
    assert math.exp(loss) == math.exp(6)
    assert f"{loss:.4f}" == "6.0000" and f"{loss:>8.1f}|" == "     6.0|"
    assert float(loss) == 6.0 and int(loss) == 6 and bool(loss)
    assert isinstance(loss.item(), float) and isinstance(mo.array(3).item(), int)
    assert mo.array(True).item() is True
    assert [10, 20, 30][mo.array(1)] == 20 and list(range(mo.array(3))) == [0, 1, 2]
    assert round(math.sqrt(loss), 3) == 2.449
    with pytest.raises(TypeError, match="cannot be used as an index"):
        [10, 20][loss]
    with pytest.raises(ValueError, match=r"bool\(x\), .*: x must have one element, it is f32\[2\]"):
        bool(mo.array([1.0, 2.0]))


def test_a_var_is_used_like_a_sequence():
    x = mo.array([[1, 2], [3, 4], [5, 6]])
    assert len(x) == 3 and [row.tolist() for row in x] == [[1, 2], [3, 4], [5, 6]]
    assert 4 in x and 7 not in x
    a, b, c = x
    assert c.tolist() == [5, 6]
    assert np.asarray(x).dtype == np.int64 and np.asarray(x, np.float32).dtype == np.float32
    assert_same(np.array(x), np.array([[1, 2], [3, 4], [5, 6]]))
    assert np.stack([a, b]).shape == (2, 2)
    for wrong in (len, iter):
        with pytest.raises(TypeError, match="0-d"):
            wrong(mo.array(1.0))


def test_comparison_with_none_and_hash():
    x = mo.array([1.0])
    assert (x == None) is False and (x != None) is True  # noqa: E711
    assert (x == "a") is False
    assert x not in ({} | {mo.array([1.0]): 1}) and len({x, x}) == 1
    with pytest.raises(TypeError):
        x < None  # noqa: B015
    with pytest.raises(TypeError):
        x + None
    with pytest.raises(TypeError):
        x + "a"


def test_printing_computes_and_repr_does_not():
    x = mo.array([1.0, 2.0])
    y = x + 1
    assert repr(y) == "Var(f32[2], pending)"
    assert str(y) == "Var([2., 3.], dtype=float32)" and repr(y) == str(y)


def test_unknown_attributes_say_what_to_write():
    x = mo.array([1.0])
    with pytest.raises(AttributeError, match="did you mean reshape"):
        x.reshap(1)
    with pytest.raises(AttributeError, match=r"x\.detach\(\)"):
        x.clone()


def test_ulps_table_covers_the_floats():
    assert set(ULPS) == {d.name for d in dt.ALL if d.is_float}


@pytest.mark.parametrize(
    ("exponent", "op"), [(1, "copy"), (2, "mul"), (-1.0, "div"), (0.5, "sqrt")]
)
def test_a_power_known_as_a_number_is_a_simpler_operator(exponent: float, op: str) -> None:
    values = np.array([0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 3e38], np.float32)
    y = mo.array(values) ** exponent
    assert y._node.op == op
    with np.errstate(all="ignore"):
        expected = np.power(values, np.float32(exponent))
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6)
    x = mo.array(np.array([0.5, 1.5, 3.0], np.float32))
    (gradient,) = mo.grad((x**exponent).sum(), [x])
    assert "pow" not in mo.dump(gradient, stage="graph")
    slope = exponent * x.numpy() ** (exponent - 1)
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=1e-6)
