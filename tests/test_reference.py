"""The reference is checked against NumPy, SciPy, PyTorch and examples worked by hand."""

from __future__ import annotations

import ast
import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaop import reference

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, math.inf, -math.inf, math.nan, 1e-40, 300.0]


def draw(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def equal(actual: Any, expected: Any, dtype: Any = None) -> None:
    """Equal to the bit in values and signs of zero, NaN equal to NaN, and of one dtype."""
    expected = np.asarray(expected, dtype)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    if expected.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual[numbers]), np.signbit(expected[numbers]))


def all_pairs(values: list[Any], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    grid = np.array(values, dtype)
    return np.repeat(grid, len(grid)), np.tile(grid, len(grid))


def test_it_imports_nothing_of_the_project() -> None:
    tree = ast.parse(inspect.getsource(reference))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {getattr(n, "module", None) or n.names[0].name for n in imports}
    assert names <= {"__future__", "collections.abc", "math", "numpy", "numpy.typing", "typing"}
    assert all(getattr(node, "level", 0) == 0 for node in imports)


class TestBfloat16:
    def test_every_bfloat16_survives_the_trip_through_float32(self) -> None:
        bits = np.arange(1 << 16).astype(np.uint16)
        values = reference.bfloat16_to_float32(bits)
        quiet = np.where(np.isnan(values), bits | 0x40, bits)
        equal(reference.float32_to_bfloat16(values), quiet)

    def test_rounding_is_that_of_torch(self) -> None:
        torch = pytest.importorskip("torch")
        bits = np.random.default_rng(0).integers(0, 1 << 32, 20000, dtype=np.uint32)
        values = np.concatenate([bits, (bits & 0xFFFF0000) | 0x8000]).view(np.float32)  # and ties
        values = values[~np.isnan(values)]
        expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
        equal(reference.float32_to_bfloat16(values), expected)

    @pytest.mark.parametrize(
        ("value", "bits"),
        [(1.0, 0x3F80), (1 + 2**-8, 0x3F80), (1 + 3 * 2**-8, 0x3F82), (3.4e38, 0x7F80)],
    )
    def test_ties_go_to_even_and_overflow_to_infinity(self, value: float, bits: int) -> None:
        assert reference.float32_to_bfloat16(value) == bits

    def test_a_single_number_is_a_0d_array(self) -> None:
        equal(reference.bfloat16_to_float32(reference.float32_to_bfloat16(-1.5)), -1.5, "float32")

    def test_nan_whose_payload_is_in_the_lower_half_stays_nan(self) -> None:
        nan = np.array([0x7F800001, 0xFF800001, 0xFFFFFFFF], np.uint32).view(np.float32)
        bits = reference.float32_to_bfloat16(nan)
        assert np.isnan(reference.bfloat16_to_float32(bits)).all()


# What each operator is in NumPy or SciPy's words, for floats; None: no NumPy function of this name.
UNARY_FLOAT = {
    "copy": "positive", "again": "positive", "barrier": "positive",
    "neg": "negative", "abs": "abs", "sign": "sign", "square": "square",
    "reciprocal": "reciprocal", "sqrt": "sqrt", "exp": "exp", "exp2": "exp2", "expm1": "expm1",
    "log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p", "sin": "sin", "cos": "cos",
    "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "floor": "floor", "ceil": "ceil", "round": "round", "trunc": "trunc", "isnan": "isnan",
    "isinf": "isinf", "isfinite": "isfinite", "logical_not": "logical_not",
}  # fmt: skip
BINARY_FLOAT = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "truncmod": "fmod", "pow": "power",
    "maximum": "maximum", "minimum": "minimum", "fmax": "fmax", "fmin": "fmin",
    "atan2": "arctan2", "hypot": "hypot", "copysign": "copysign", "lt": "less",
    "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
    "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
}  # fmt: skip
UNARY_INTEGER = ("copy", "barrier", "again", "neg", "abs", "square", "invert", "logical_not")
BINARY_INTEGER = {name: BINARY_FLOAT[name] for name in (
    "add", "sub", "mul", "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne",
)} | {"bitand": "bitwise_and", "bitor": "bitwise_or", "bitxor": "bitwise_xor"}  # fmt: skip
ON_THEIR_OWN = {
    "rsqrt", "erf", "erfc", "erfinv", "lgamma", "digamma", "sigmoid", "invert", "truncdiv",
    "bitand", "bitor", "bitxor",
    "shl", "shr", "where", "cast", "bitcast",
}  # fmt: skip


def test_every_operator_has_a_test() -> None:
    assert set(reference.ELEMENTWISE) == {*UNARY_FLOAT, *BINARY_FLOAT, *ON_THEIR_OWN}


class TestElementwiseOnFloats:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("op", UNARY_FLOAT)
    def test_unary_operators_are_numpys(self, op: str, dtype: str) -> None:
        with np.errstate(all="ignore"):
            x = np.concatenate([SPECIAL, draw((50,)) * 3]).astype(dtype)
            wide = x.astype("float32") if dtype == "float16" else x
            expected = getattr(np, UNARY_FLOAT[op])(wide)
            expected = expected if op in reference.PREDICATES else expected.astype(dtype)
        equal(reference.elementwise(op, x), expected)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("op", BINARY_FLOAT)
    def test_binary_operators_are_numpys(self, op: str, dtype: str) -> None:
        with np.errstate(all="ignore"):
            a, b = all_pairs(SPECIAL, dtype)
            wide_a, wide_b = (x.astype("float32") if dtype == "float16" else x for x in (a, b))
            expected = getattr(np, BINARY_FLOAT[op])(wide_a, wide_b)
            expected = expected if op in reference.PREDICATES else expected.astype(dtype)
        equal(reference.elementwise(op, a, b), expected)

    @pytest.mark.parametrize(("op", "scipys"), [
        ("erf", "erf"), ("erfc", "erfc"), ("erfinv", "erfinv"), ("lgamma", "gammaln"),
        ("digamma", "psi"),
    ])  # fmt: skip
    def test_error_functions_are_scipys(self, op: str, scipys: str) -> None:
        special = pytest.importorskip("scipy.special")
        x = np.concatenate([SPECIAL, np.linspace(-5, 5, 101)])
        expected = getattr(special, scipys)(x)
        if op == "lgamma":  # C99's value at -inf, where SciPy has NaN
            expected[np.isinf(x)] = np.inf
        np.testing.assert_allclose(reference.elementwise(op, x), expected, rtol=1e-12, atol=1e-15)
        single = x.astype("float32")
        assert reference.elementwise(op, single).dtype == np.float32

    def test_sigmoid_is_scipys_and_never_overflows(self) -> None:
        special = pytest.importorskip("scipy.special")
        x = np.array([*SPECIAL, -700.0, 700.0, -1000.0, 1000.0])
        np.testing.assert_allclose(reference.elementwise("sigmoid", x), special.expit(x), 1e-14)

    def test_rsqrt_is_one_over_the_root(self) -> None:
        equal(
            reference.elementwise("rsqrt", [4.0, 0.0, -0.0, math.inf]),
            [0.5, math.inf, -math.inf, 0.0],
        )
        assert np.isnan(reference.elementwise("rsqrt", [-1.0]))

    def test_round_takes_halves_to_even(self) -> None:
        equal(reference.elementwise("round", [0.5, 1.5, 2.5, -0.5]), [0.0, 2.0, 2.0, -0.0])

    def test_maximum_spreads_nan_and_fmax_drops_it(self) -> None:
        equal(reference.elementwise("maximum", [math.nan, 1.0], [1.0, math.nan]), [math.nan] * 2)
        equal(reference.elementwise("fmax", [math.nan, 1.0], [1.0, math.nan]), [1.0, 1.0])

    def test_truncdiv_rounds_toward_zero(self) -> None:
        a, b = [7.0, -7.0, 7.0, -7.0, 1.0], [2.0, 2.0, -2.0, -2.0, 0.0]
        equal(reference.elementwise("truncdiv", a, b), [3.0, -3.0, -3.0, 3.0, math.inf])

    def test_float16_is_computed_in_float32_and_rounded_once(self) -> None:
        # 300 squared is too large for float16; the result is not.
        a = np.array([300.0], "float16")
        equal(reference.elementwise("hypot", a, a), [np.float32(300) * np.float32(2) ** 0.5], "f2")

    def test_bfloat16_takes_widened_operands_and_returns_bits(self) -> None:
        one = np.ones(1, np.float32)
        tiny = np.full(1, 2**-8, np.float32)
        bits = reference.elementwise("add", one, 3 * tiny, dtype="bfloat16")
        equal(bits, [0x3F82], np.uint16)

    def test_a_dtype_may_be_any_object_with_a_name(self) -> None:
        class Named:
            name = "bfloat16"

        equal(reference.elementwise("neg", [1.0], dtype=Named()), [0xBF80], np.uint16)


class TestElementwiseOnIntegers:
    @pytest.mark.parametrize("dtype", INTEGERS)
    @pytest.mark.parametrize("op", UNARY_INTEGER)
    def test_unary_operators_wrap_as_numpy(self, op: str, dtype: str) -> None:
        limits = np.iinfo(dtype)
        x = np.array([limits.min, limits.min + 1, 0, 1, 2, limits.max], dtype)
        expected = getattr(np, UNARY_FLOAT.get(op, op))(x)
        equal(reference.elementwise(op, x), expected)

    @pytest.mark.parametrize("dtype", INTEGERS)
    @pytest.mark.parametrize("op", BINARY_INTEGER)
    def test_binary_operators_wrap_as_numpy(self, op: str, dtype: str) -> None:
        limits = np.iinfo(dtype)
        a, b = all_pairs([limits.min, 0, 1, 3, limits.max], dtype)
        equal(reference.elementwise(op, a, b), getattr(np, BINARY_INTEGER[op])(a, b))

    def test_divisions_are_pythons_and_cs(self) -> None:
        a, b = all_pairs(list(range(-8, 9)), "int16")
        a, b = a[b != 0], b[b != 0]
        for op, by_hand in {
            "floordiv": lambda x, y: x // y,
            "mod": lambda x, y: x % y,
            "truncdiv": lambda x, y: int(x / y),
            "truncmod": math.fmod,
        }.items():
            expected = [by_hand(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
            equal(reference.elementwise(op, a, b), expected, "int16")

    @pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
    def test_the_smallest_integer_divided_by_minus_one_wraps(self, dtype: str) -> None:
        smallest, minus_one = np.array([np.iinfo(dtype).min], dtype), np.array([-1], dtype)
        for op, expected in {
            "floordiv": smallest, "truncdiv": smallest, "mod": [0], "truncmod": [0]
        }.items():  # fmt: skip
            equal(reference.elementwise(op, smallest, minus_one), expected, dtype)

    @pytest.mark.parametrize("op", ["floordiv", "mod", "truncdiv", "truncmod"])
    def test_division_by_zero_raises_for_integers_only(self, op: str) -> None:
        with pytest.raises(ZeroDivisionError, match="integer division or modulo by zero"):
            reference.elementwise(op, [1, 2], [1, 0])
        assert not np.isfinite(reference.elementwise(op, [1.0, 2.0], [1.0, 0.0])[1])

    def test_shifts_by_the_width_or_more_leave_nothing(self) -> None:
        x, by = np.array([5, -5, 5, -5], "int8"), np.array([1, 1, 8, 9], "int8")
        equal(reference.elementwise("shl", x, by), [10, -10, 0, 0], "int8")
        equal(reference.elementwise("shr", x, by), [2, -3, 0, -1], "int8")

    def test_rounding_leaves_large_integers_exact(self) -> None:
        x = np.array([2**53 + 1, -(2**53) - 1])
        for op in ("floor", "ceil", "round", "trunc"):
            equal(reference.elementwise(op, x), x)

    def test_functions_that_need_floats_give_float32(self) -> None:
        x = np.array([1, 2, 4])
        for op in reference.FLOATING:
            operands = [x, x] if op in BINARY_FLOAT else [x]
            assert reference.elementwise(op, *operands).dtype == np.float32
        equal(reference.elementwise("div", x, [2, 2, 2]), [0.5, 1, 2], "float32")

    def test_bool_has_and_or_xor_not(self) -> None:
        a, b = all_pairs([False, True], "bool")
        equal(reference.elementwise("bitand", a, b), a & b)
        equal(reference.elementwise("bitor", a, b), a | b)
        equal(reference.elementwise("bitxor", a, b), a ^ b)
        equal(reference.elementwise("invert", a), ~a)


class TestSelectionAndConversion:
    def test_where_picks_by_the_condition(self) -> None:
        picked = reference.elementwise("where", [True, False], [1, 2], [3, 4])
        equal(picked, [1, 4])
        condition = np.array([0.0, math.nan])
        equal(
            reference.elementwise(
                "where", condition, np.array([1, 2], "f4"), np.array([3, 4], "f4")
            ),
            [3, 2],
            "f4",
        )

    def test_cast_drops_the_fraction(self) -> None:
        equal(reference.elementwise("cast", [1.9, -1.9, 0.5], dtype="int32"), [1, -1, 0], "int32")

    def test_cast_to_bool_is_unequal_to_zero(self) -> None:
        equal(
            reference.elementwise("cast", [0.0, -0.0, math.nan, 0.1], dtype="bool"),
            [0, 0, 1, 1],
            bool,
        )

    def test_a_conversion_needs_a_dtype(self) -> None:
        with pytest.raises(TypeError, match="cast: say to which dtype"):
            reference.elementwise("cast", [1.0])

    def test_cast_of_integers_wraps(self) -> None:
        equal(reference.elementwise("cast", [300, -1], dtype="uint8"), [44, 255], "uint8")

    def test_cast_of_nan_to_an_integer_does_not_warn(self) -> None:
        assert reference.elementwise("cast", [math.nan, 1e30], dtype="int32").shape == (2,)

    def test_cast_rounds_to_bfloat16(self) -> None:
        equal(
            reference.elementwise("cast", [1.0, 1 + 3 * 2**-8], dtype="bfloat16"),
            [0x3F80, 0x3F82],
            "u2",
        )

    def test_bitcast_keeps_the_bits(self) -> None:
        x = np.array([1.0, -0.0, math.nan], np.float32)
        bits = reference.elementwise("bitcast", x, dtype="uint32")
        equal(bits, [0x3F800000, 0x80000000, 0x7FC00000], np.uint32)
        equal(reference.elementwise("bitcast", bits, dtype="float32"), x)

    @pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3)])
    def test_any_shape_is_kept(self, shape: tuple[int, ...]) -> None:
        x = np.ones(shape, np.float32)
        for op in ("add", "erf", "sigmoid", "cast", "where", "round"):
            count = {"add": 2, "where": 3}.get(op, 1)
            assert reference.elementwise(op, *[x] * count, dtype="float32").shape == shape

    def test_operands_of_two_shapes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"add: operands must have one shape, got \[\(2,\), "):
            reference.elementwise("add", [1, 2], [1])


class TestReindex:
    def test_index_counts_along_its_axis(self) -> None:
        equal(reference.index((2, 3), 1), [[0, 1, 2], [0, 1, 2]])
        equal(reference.index((2, 3), 0, dtype="float32"), [[0, 0, 0], [1, 1, 1]], "float32")
        assert reference.index((2, 0), 0).shape == (2, 0)

    def test_broadcast_transpose_slice_and_flip_are_numpys(self) -> None:
        x = draw((3, 4))

        def of(shape: tuple[int, ...], index: reference.IndexFunction) -> np.ndarray:
            return reference.reindex([x], shape, [(0, index, None)])

        equal(of((2, 3, 4), lambda i, j, k: (j, k)), np.broadcast_to(x, (2, 3, 4)))
        equal(of((4, 3), lambda i, j: (j, i)), x.T)
        equal(of((2, 2), lambda i, j: (i + 1, 2 * j)), x[1:, ::2])
        equal(of((3, 4), lambda i, j: (2 - i, j)), x[::-1])
        equal(of((12,), lambda i: (i // 4, i % 4)), x.reshape(12))
        equal(of((), lambda: (2, 3)), x[2, 3])

    def test_outside_the_source_it_reads_fill_also_below_zero(self) -> None:
        x = np.array([1, 2, 3])
        padded = reference.reindex([x], (6,), [(0, lambda i: (i - 2,), None)], fill=9)
        equal(padded, [9, 9, 1, 2, 3, 9])

    def test_gather_reads_its_index_from_an_array(self) -> None:
        x, rows = draw((5, 2)), np.array([4, 0, 7])
        taken = reference.reindex([x], (3, 2), [(0, lambda i, j: (rows[i], j), None)], math.nan)
        equal(taken, [x[4], x[0], [math.nan] * 2])

    def test_concatenation_has_a_piece_for_each_source(self) -> None:
        x, y = draw((2, 3)), draw((4, 3), seed=1)
        pieces: list[reference.Piece] = [
            (0, lambda i, j: (i, j), lambda i, j: i < 2),
            (1, lambda i, j: (i - 2, j), None),
        ]
        equal(reference.reindex([x, y], (6, 3), pieces), np.concatenate([x, y]))

    def test_a_piece_that_holds_hides_later_ones_even_where_it_reads_fill(self) -> None:
        x, y = np.array([1, 2]), np.array([5, 6, 7, 8])
        pieces: list[reference.Piece] = [
            (0, lambda i: (i,), lambda i: i < 3),
            (1, lambda i: (i,), None),
        ]
        equal(reference.reindex([x, y], (4,), pieces, fill=-1), [1, 2, -1, 8])

    def test_where_no_piece_holds_it_is_fill(self) -> None:
        piece: reference.Piece = (0, lambda i: (i,), lambda i: i != 1)
        equal(reference.reindex([np.arange(3)], (3,), [piece], fill=7), [0, 7, 2])

    def test_dtype_is_that_of_the_sources_or_as_told(self) -> None:
        x = np.ones(2, np.float32)
        piece: reference.Piece = (0, lambda i: (i,), None)
        assert reference.reindex([x], (2,), [piece]).dtype == np.float32
        bits = reference.reindex([x], (3,), [piece], fill=-math.inf, dtype="bfloat16")
        equal(bits, [0x3F80, 0x3F80, 0xFF80], np.uint16)

    def test_an_index_of_the_wrong_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            reference.reindex([np.ones((2, 2))], (2,), [(0, lambda i: (i,), None)])


class TestReindexReduce:
    @pytest.mark.parametrize(
        ("op", "function"),
        [("add", np.sum), ("multiply", np.prod), ("maximum", np.max), ("minimum", np.min)],
    )
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint32"])
    def test_over_an_axis_it_is_numpys_reduction(self, op: str, function: Any, dtype: str) -> None:
        x = np.random.default_rng(0).integers(0, 5, (4, 3, 5)).astype(dtype)
        result = reference.reindex_reduce(op, x, (4, 5), lambda i, j, k: (i, k))
        equal(
            result, function(x, axis=1, **({} if "max" in op or "min" in op else {"dtype": dtype}))
        )

    @pytest.mark.parametrize("op", ["logical_and", "logical_or"])
    def test_logical_reductions_are_all_and_any(self, op: str) -> None:
        x = draw((4, 3)) > 0
        function = np.all if op == "logical_and" else np.any
        equal(reference.reindex_reduce(op, x, (4,), lambda i, j: (i,)), function(x, axis=1))
        equal(reference.reindex_reduce(op, [0.0, math.nan], (), lambda i: ()), op == "logical_or")

    @pytest.mark.parametrize("op", ["bitwise_and", "bitwise_or", "bitwise_xor"])
    @pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
    def test_bitwise_reductions_are_numpys(self, op: str, dtype: str) -> None:
        x = np.random.default_rng(0).integers(0, 128, (3, 4)).astype(dtype)
        result = reference.reindex_reduce(op, x, (3,), lambda i, j: (i,))
        equal(result, getattr(np, op).reduce(x, axis=1))

    @pytest.mark.parametrize(
        ("op", "dtype"),
        [
            (op, dtype)
            for op in reference.IDENTITY
            for dtype in [*FLOATS, *INTEGERS, "bool"]
            if not (op.startswith("bitwise") and dtype in FLOATS)
        ],
    )
    def test_the_identity_leaves_every_value_alone(self, op: str, dtype: str) -> None:
        values = np.array([0, 1, 5], dtype)
        values = values.astype(bool) if op.startswith("logical") else values
        identity = np.full(3, reference.identity(op, dtype), values.dtype)
        equal(reference.REDUCTIONS[op](identity, values), values)

    def test_an_empty_reduction_is_the_identity(self) -> None:
        empty = np.ones((2, 0), np.float32)
        for op, expected in {"add": 0, "multiply": 1, "maximum": -math.inf}.items():
            result = reference.reindex_reduce(op, empty, (2,), lambda i, j: (i,))
            equal(result, [expected] * 2, "float32")
        assert reference.identity("maximum", "bfloat16") == -math.inf

    def test_scatter_adds_where_it_is_sent_and_drops_what_falls_outside(self) -> None:
        target = np.array([2, 0, 2, -1, 3])
        result = reference.reindex_reduce("add", [1, 2, 4, 8, 16], (3,), lambda i: (target[i],))
        equal(result, [2, 0, 5])

    def test_a_false_condition_skips(self) -> None:
        result = reference.reindex_reduce("add", np.arange(5), (), lambda i: (), lambda i: i % 2)
        equal(result, 4)

    def test_maximum_spreads_nan(self) -> None:
        equal(reference.reindex_reduce("maximum", [1.0, math.nan, 2.0], (), lambda i: ()), math.nan)

    def test_integer_sums_wrap(self) -> None:
        sums = reference.reindex_reduce("add", np.array([100, 100], "int8"), (), lambda i: ())
        equal(sums, -56, "int8")

    def test_a_sum_of_floats_is_rounded_once(self) -> None:
        x = np.full(4000, 0.1, np.float32)
        total = reference.reindex_reduce("add", x, (), lambda i: ())
        equal(total, np.float32(math.fsum(x)))
        halves = np.ones(4096, np.float16)
        equal(reference.reindex_reduce("add", halves, (), lambda i: ()), np.float16(4096))
        bits = reference.reindex_reduce(
            "add", [1.0, 2**-8, 2**-8], (), lambda i: (), dtype="bfloat16"
        )
        equal(bits, 0x3F81, np.uint16)


@st.composite
def affine_problems(draw_from: st.DrawFn) -> tuple[Any, ...]:
    """x, y and an affine index map from the indices of y into x that may leave x."""
    extents = st.sampled_from([1, 2, 3, 4, 5, 0])
    x_shape = draw_from(st.lists(extents, max_size=3))
    y_shape = draw_from(st.lists(extents, max_size=3))
    number = st.integers(-2, 2)
    rows = st.lists(number, min_size=len(y_shape), max_size=len(y_shape))
    matrix = draw_from(st.lists(rows, min_size=len(x_shape), max_size=len(x_shape)))
    offset = draw_from(st.lists(number, min_size=len(x_shape), max_size=len(x_shape)))
    rng = np.random.default_rng(draw_from(st.integers(0, 1000)))
    x, y = (rng.integers(-9, 10, shape) for shape in (x_shape, y_shape))

    def index(*i: int) -> tuple[int, ...]:
        return tuple(
            sum(a * b for a, b in zip(row, i, strict=True)) + c
            for row, c in zip(matrix, offset, strict=True)
        )

    return x, y, index


@settings(deadline=None, max_examples=200)
@given(affine_problems(), st.integers(1, 3))
def test_reindex_reduce_add_is_the_adjoint_of_reindex(
    problem: tuple[Any, ...], period: int
) -> None:
    x, y, index = problem

    def condition(*i: int) -> bool:
        return sum(i) % period == 0

    there = reference.reindex([x], y.shape, [(0, index, condition)])
    back = reference.reindex_reduce("add", y, x.shape, index, condition)
    assert (there * y).sum() == (x * back).sum()


@settings(deadline=None, max_examples=200)
@given(affine_problems(), st.integers(0, 3))
def test_with_several_pieces_the_adjoint_is_masked_by_the_first_that_holds(
    problem: tuple[Any, ...], bound: int
) -> None:
    x, y, index = problem
    z = x[::-1] if x.ndim else x + 1

    def first(*i: int) -> bool:
        return sum(i) < bound

    there = reference.reindex([x, z], y.shape, [(0, index, first), (1, index, None)])
    back_x = reference.reindex_reduce("add", y, x.shape, index, first)
    back_z = reference.reindex_reduce("add", y, z.shape, index, lambda *i: not first(*i))
    assert (there * y).sum() == (x * back_x).sum() + (z * back_z).sum()


class TestRandomBits:
    @pytest.mark.parametrize(
        ("counter", "key", "words"),
        [
            ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
            ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
            ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
        ],
    )
    def test_threefry_gives_the_published_vectors(
        self, counter: tuple[int, int], key: tuple[int, int], words: tuple[int, int]
    ) -> None:
        assert reference.threefry2x32(key, counter) == words

    def test_each_element_is_a_word_of_its_own_number(self) -> None:
        bits = reference.random_bits((3, 4), 5, (2, 3))
        assert bits.dtype == np.uint32
        assert bits[1, 2] == reference.threefry2x32((3, 4), (5, 5))[0]
        equal(bits.ravel(), reference.random_bits((3, 4), 5, (6,)))
        assert reference.random_bits((0, 0), 0, ()) == 0x6B200159
        assert reference.random_bits((0, 0), 0, (0, 2)).shape == (0, 2)

    def test_bits_are_even_and_change_with_key_and_counter(self) -> None:
        bits = reference.random_bits((1, 2), 3, (2000,))
        ones = np.unpackbits(bits.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 0.01
        assert (bits != reference.random_bits((1, 3), 3, (2000,))).all()
        assert (bits != reference.random_bits((1, 2), 4, (2000,))).all()


class TestMatmul:
    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ((3, 4), (4, 5)), ((4,), (4,)), ((4,), (4, 2)), ((3, 4), (4,)), ((3, 0), (0, 2)),
            ((2, 1, 3, 4), (5, 4, 2)), ((4,), (2, 4, 3)), ((1, 1), (1, 1)),
        ],
    )  # fmt: skip
    def test_shapes_and_values_are_numpys(self, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        x, y = draw(a), draw(b, seed=1)
        result = reference.matmul(x, y)
        assert result.shape == np.matmul(x, y).shape
        np.testing.assert_allclose(result, np.matmul(x, y), rtol=1e-12)

    def test_integers_wrap_and_float32_stays_float32(self) -> None:
        x = np.full((2, 2), 100, np.int8)
        equal(reference.matmul(x, x), x @ x)
        assert (
            reference.matmul(draw((2, 2), "float32"), draw((2, 2), "float32")).dtype == np.float32
        )

    def test_inner_sizes_must_agree(self) -> None:
        with pytest.raises(ValueError, match="inner sizes differ"):
            reference.matmul(np.ones((2, 3)), np.ones((4, 2)))


class TestLayers:
    @pytest.mark.parametrize(
        "settings",
        [
            {}, {"stride": 2, "padding": 1}, {"stride": (2, 1), "padding": (0, 2)},
            {"dilation": 2, "padding": 2}, {"groups": 2}, {"groups": 4, "dilation": (1, 2)},
        ],
    )  # fmt: skip
    def test_conv2d_is_torchs(self, settings: dict[str, Any]) -> None:
        torch = pytest.importorskip("torch")
        x, w = draw((2, 4, 6, 7)), draw((8, 4 // settings.get("groups", 1), 3, 2), seed=1)
        expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), **settings)
        np.testing.assert_allclose(
            reference.conv2d(x, w, **settings), expected, rtol=1e-10, atol=1e-12
        )

    def test_conv2d_worked_by_hand(self) -> None:
        x = np.arange(9, dtype="float32").reshape(1, 1, 3, 3)
        w = np.array([[[[1, 0], [0, -1]]]], "float32")
        equal(reference.conv2d(x, w), np.full((1, 1, 2, 2), -4), "float32")

    @pytest.mark.parametrize("ceil_mode", [False, True])
    @pytest.mark.parametrize(
        "settings",
        [
            {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0)},
            {"kernel_size": 1, "stride": 3},
        ],
    )  # fmt: skip
    def test_pooling_is_torchs(self, settings: dict[str, Any], ceil_mode: bool) -> None:
        torch = pytest.importorskip("torch")
        settings = settings | {"ceil_mode": ceil_mode}
        x = draw((2, 3, 7, 8))
        image = torch.tensor(x)
        expected = torch.nn.functional.max_pool2d(image, **settings)
        equal(reference.max_pool2d(x, **settings), expected.numpy())
        for include in (True, False):
            average = reference.avg_pool2d(x, **settings, count_include_pad=include)
            expected = torch.nn.functional.avg_pool2d(image, **settings, count_include_pad=include)
            np.testing.assert_allclose(average, expected, rtol=1e-12)

    def test_max_pool2d_with_dilation_is_torchs_and_spreads_nan(self) -> None:
        torch = pytest.importorskip("torch")
        x = draw((1, 2, 7, 7), "float32")
        x[0, 0, 3, 3] = math.nan
        expected = torch.nn.functional.max_pool2d(torch.tensor(x), 2, 1, 1, dilation=2)
        equal(reference.max_pool2d(x, 2, 1, 1, dilation=2), expected.numpy())

    def test_pooling_worked_by_hand(self) -> None:
        x = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
        equal(reference.max_pool2d(x, 2), [[[[5, 7], [13, 15]]]], "float32")
        equal(reference.avg_pool2d(x, 2), [[[[2.5, 4.5], [10.5, 12.5]]]], "float32")

    @pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5, 2)])
    def test_batch_norm_is_torchs(self, shape: tuple[int, ...]) -> None:
        torch = pytest.importorskip("torch")
        x, gamma, beta = draw(shape), draw((3,), seed=1), draw((3,), seed=2)
        running = torch.zeros(3).double(), torch.zeros(3).double()
        expected = torch.nn.functional.batch_norm(
            torch.tensor(x), *running, torch.tensor(gamma), torch.tensor(beta), True, 1.0
        )
        y, mean, variance = reference.batch_norm(x, gamma, beta)
        count = x.size // 3
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(mean, running[0], rtol=1e-12)
        np.testing.assert_allclose(variance * count / (count - 1), running[1], rtol=1e-12)
