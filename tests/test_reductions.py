"""Reductions over any axes, against NumPy, and products of matrices."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop import dtype as dt
from tests.helpers import TOLERANCE, assert_bits, assert_same, assert_value

RNG = np.random.default_rng(0)
NUMPY = {
    "sum": np.sum, "prod": np.prod, "mean": np.mean, "var": np.var, "std": np.std,
    "max": np.max, "min": np.min, "amax": np.max, "amin": np.min, "all": np.all, "any": np.any,
    "count_nonzero": np.count_nonzero, "argmax": np.argmax, "argmin": np.argmin,
    "logsumexp": lambda x, **options: np.log(np.sum(np.exp(x.astype("f8")), **options)),
    "norm": lambda x, **options: np.sqrt(np.sum(np.square(x.astype("f8")), **options)),
}  # fmt: skip
PLAIN = [name for name in NUMPY if name not in ("argmax", "argmin")]
CHOOSING = ("max", "min", "amax", "amin", "argmax", "argmin")
FLOATING = ("mean", "var", "std", "logsumexp", "norm")
EXTREMES = ("max", "min", "amax", "amin")


def numpy_value(name: str, array: np.ndarray, **options) -> np.ndarray:
    """NumPy's value, floats computed in float64, in the dtype that metaop returns."""
    wide = array.astype(np.float64) if array.dtype.kind == "f" else array
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # mean of empty slice
        result = np.asarray(NUMPY[name](wide, **options))
        if name in ("all", "any", "argmax", "argmin", "count_nonzero"):
            return result
        if name in FLOATING and array.dtype.kind != "f":
            return result.astype(np.float32)
        if array.dtype.kind == "f" or name in EXTREMES:
            return result.astype(array.dtype)
    return result


def close(got: mo.Var, want: np.ndarray, size: int = 1) -> None:
    """Within the tolerance of the dtype, times a little for long sums."""
    got = got.numpy()
    assert got.dtype == want.dtype and got.shape == want.shape, (got, want)
    relative, absolute = TOLERANCE.get(got.dtype.name, (0, 0))
    np.testing.assert_allclose(got, want, rtol=relative, atol=absolute * max(1, math.sqrt(size)))


# --------------------------------------------------------------------------------- axes and shapes


AXES = (None, 0, -1, 1, (0, 2), (2, 0), (-1, -2), (), (0, 1, 2))


@pytest.mark.parametrize("name", PLAIN)
def test_reduction_over_axes(name):
    array = RNG.normal(size=(3, 5, 17)).astype(np.float32)
    x = mo.array(array)
    for axis in AXES:
        for keepdims in (False, True):
            close(getattr(mo, name)(x, axis, keepdims),
                  numpy_value(name, array, axis=axis, keepdims=keepdims), 255)  # fmt: skip


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_position_over_axes(name):
    array = RNG.normal(size=(3, 5, 17)).astype(np.float32)
    x = mo.array(array)
    for axis in (None, 0, 1, -1):
        for keepdims in (False, True):
            got = getattr(mo, name)(x, axis, keepdims)
            assert got.dtype is mo.int64
            assert_same(got, numpy_value(name, array, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("name", NUMPY)
def test_reduction_of_one_element_and_0d(name):
    for array in (np.float32(2.5), np.array([-1.5], np.float32), np.array([[3.0]], np.float32)):
        array = np.asarray(array)
        for keepdims in (False, True):
            want = numpy_value(name, array, axis=None, keepdims=keepdims)
            close(getattr(mo, name)(mo.array(array), keepdims=keepdims), want)


@pytest.mark.parametrize("name", PLAIN)
def test_reduction_of_empty_arrays(name):
    array = np.zeros((3, 0, 5), np.float32)
    x = mo.array(array)
    for axis in (None, 1, 0, (0, 2)):
        if name in CHOOSING and axis in (None, 1):
            with pytest.raises(mo.ShapeError, match=rf"{name}\(x\): nothing to choose from"):
                getattr(mo, name)(x, axis)
        else:
            close(getattr(mo, name)(x, axis), numpy_value(name, array, axis=axis))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_position_in_an_empty_axis_raises(name):
    x = mo.zeros(3, 0)
    for axis in (None, 1):
        with pytest.raises(mo.ShapeError, match="nothing to choose from, x is f32\\[3,0\\]"):
            getattr(x, name)(axis)
    assert getattr(x, name)(0).shape == (0,)
    with pytest.raises(mo.ShapeError, match="one axis or None"):
        getattr(mo.zeros(2, 3), name)((0, 1))


@pytest.mark.parametrize("name", NUMPY)
def test_aliases_and_methods(name):
    array = RNG.normal(size=(3, 5)).astype(np.float32)
    x, function = mo.array(array), getattr(mo, name)
    want = numpy_value(name, array, axis=1, keepdims=True)
    for got in (function(x, axis=1, keepdims=True), function(x, dim=1, keepdim=True),
                function(x, dims=1, keepdims=True), function(array, 1, True),
                getattr(x, name)(1, True), getattr(x, name)(dim=-1, keepdim=True)):  # fmt: skip
        close(got, want)


@pytest.mark.parametrize("name", NUMPY)
def test_bad_axes_raise(name):
    x = mo.zeros(3, 4)
    with pytest.raises(mo.ShapeError, match=r"axis 2 does not exist, x has 2 axes"):
        getattr(mo, name)(x, 2)
    with pytest.raises(mo.ShapeError, match=r"axis -3 does not exist"):
        getattr(mo, name)(x, axis=-3)
    with pytest.raises(mo.ShapeError, match="axis 0 does not exist, x has 0 axes"):
        getattr(mo, name)(mo.zeros(()), 0)
    if name not in ("argmax", "argmin"):
        with pytest.raises(mo.ShapeError, match=r"axis given twice in \(0, -2\)"):
            getattr(mo, name)(x, (0, -2))


def test_an_axis_that_is_no_integer_raises():
    with pytest.raises(TypeError):
        mo.zeros(3, 4).sum(1.5)


def test_an_unknown_option_raises():
    with pytest.raises(TypeError, match="unexpected keyword"):
        mo.zeros(3).sum(axes=0)


def test_non_contiguous_input_and_both_printers():
    array = RNG.normal(size=(10, 34)).astype(np.float32)[::-2, ::2].T
    for name in ("sum", "max", "prod"):
        for axis in (None, 0, 1):
            want = numpy_value(name, array, axis=axis)
            assert_value(getattr(mo, name)(mo.array(array), axis), want)
    assert_value(
        mo.mean(mo.array(array) * 2 + 1, 0), (array * 2 + 1).mean(0, dtype="f8").astype("f4")
    )


# ------------------------------------------------------------------------------- dtypes and values


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if not d.is_float], ids=str)
@pytest.mark.parametrize("name", NUMPY)
def test_reduction_of_integers_and_bools(name, dtype):
    array = (np.arange(15).reshape(3, 5) * 7 % 5 - (2 if dtype.kind == "i" else 0)).astype(
        dtype.storage
    )
    x = mo.array(array)
    for axis in (None, 1):
        want = numpy_value(name, array, axis=axis)
        if name in ("logsumexp", "norm"):
            want = want.astype(np.float32)
        close(getattr(mo, name)(x, axis), want, 15)


@pytest.mark.parametrize("dtype", [mo.float16, mo.bfloat16, mo.float64], ids=str)
@pytest.mark.parametrize("name", NUMPY)
def test_reduction_of_other_floats(name, dtype):
    x = mo.array(RNG.normal(size=(3, 5)).astype(np.float32), dtype=dtype)
    array = x.numpy()
    for axis in ((0,), 1) if name not in ("argmax", "argmin") else (0, 1):
        got = getattr(mo, name)(x, axis)
        if name not in ("all", "any", "count_nonzero", "argmax", "argmin"):
            assert got.dtype is dtype
        assert_same(got, numpy_value(name, array, axis=axis).astype(got.numpy().dtype), dtype.name)


@pytest.mark.parametrize("dtype", [mo.float16, mo.bfloat16], ids=str)
def test_16_bit_floats_accumulate_in_float32(dtype):
    """The sum overflows float16 and stops growing in bfloat16; mean and variance do not."""
    x = mo.array(np.tile([299.0, 301.0], (3, 50_000)), dtype=dtype)
    values = x.numpy().astype("f8")
    assert_same(x.mean(1), values.mean(1).astype(x.mean(1).numpy().dtype), dtype.name)
    assert_same(x.var(1), values.var(1).astype(x.var(1).numpy().dtype), dtype.name)
    assert_same(x.std(1), values.std(1).astype(x.std(1).numpy().dtype), dtype.name)
    ones = mo.ones(2, 30_000, dtype=dtype)
    assert_same(ones.sum(1), np.full(2, 30_000), dtype.name)
    assert_same((x - 300).norm(1), np.linalg.norm(values - 300, axis=1),
                dtype.name)  # fmt: skip


def test_0d_bfloat16_has_a_value():
    assert mo.ones(4, dtype="bfloat16").sum().item() == 4


def test_integer_sums_wrap_and_small_ones_are_wide():
    assert mo.sum(mo.array(np.full(300, 127, np.int8))).item() == 38100
    assert mo.sum(mo.array(np.full(300, 255, np.uint8))).dtype is mo.uint64
    big = np.array([2**63 - 1, 2, 5], np.int64)
    assert_bits(mo.sum(mo.array(big)).numpy(), big.sum())
    assert_bits(mo.prod(mo.array(big)).numpy(), big.prod())
    assert mo.sum(mo.array([True, True]), dtype="int32").dtype is mo.int32
    assert mo.sum(mo.array([1.5, 2.5]), dtype="float64").dtype is mo.float64


@pytest.mark.parametrize("name", EXTREMES + ("sum", "prod", "mean", "argmax", "argmin"))
def test_nan_and_infinities(name):
    rows = np.array([
        [1, np.nan, 3, 4], [np.inf, 2, 3, 4], [-np.inf, 2, 3, 4], [np.inf, -np.inf, 3, 4],
        [np.nan, np.nan, np.inf, 0], [-np.inf] * 4, [np.inf] * 4, [0, np.inf, 1, 1],
    ], np.float32)  # fmt: skip
    got = getattr(mo, name)(mo.array(rows), 1)
    assert_same(got, numpy_value(name, rows, axis=1))
    for row in rows:
        assert_same(getattr(mo, name)(mo.array(row)), numpy_value(name, row, axis=None))


def test_all_and_any_take_nan_as_true_and_zeros_of_both_signs_as_false():
    rows = np.array([[np.nan, 1], [0.0, -0.0], [np.inf, -0.0]], np.float32)
    x = mo.array(rows)
    assert x.all(1).tolist() == [True, False, False] and x.any(1).tolist() == [True, False, True]
    assert x.count_nonzero().item() == 3


def test_argmax_of_ties_is_the_first():
    array = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [-1, -5, -1, -5]])
    for kind in ("int64", "float32", "int8"):
        x = mo.array(array, dtype=kind)
        for name in ("argmax", "argmin"):
            for axis in (None, 0, 1):
                assert_same(getattr(x, name)(axis), getattr(np, name)(array, axis))
    long = np.zeros(100_003, np.float32)
    long[[777, 99_999]] = 1
    assert mo.array(long).argmax().item() == 777 and mo.array(long).argmin().item() == 0
    assert mo.array([False, True, True]).argmax().item() == 1
    assert mo.array([-np.inf, -np.inf]).argmax().item() == 0


def test_the_smallest_integer_is_its_own_maximum():
    for dtype in (np.int8, np.int64, np.uint8, np.uint64):
        info = np.iinfo(dtype)
        assert mo.array(np.array([info.min, info.min], dtype)).max().item() == info.min
        assert mo.array(np.array([info.max, info.max], dtype)).min().item() == info.max


# ----------------------------------------------------------------------------------- var, std, norm


def test_variance_with_correction():
    array = RNG.normal(size=(3, 17)).astype(np.float32)
    x = mo.array(array)
    for correction in (0, 1, 1.5):
        for axis in (None, 0, 1, (0, 1)):
            n = array.size if axis in (None, (0, 1)) else array.shape[axis]
            want = array.astype("f8").var(axis) * n / (n - correction)
            close(mo.var(x, axis, correction=correction), want.astype(np.float32))
            close(x.std(axis, correction=correction), np.sqrt(want).astype(np.float32))


def test_variance_without_degrees_of_freedom_is_nan_or_infinite():
    assert math.isnan(mo.array([2.5]).var(correction=1).item())
    assert mo.array([1.0, 2.0]).var(correction=2).item() == math.inf
    assert math.isnan(mo.zeros(0).var().item()) and math.isnan(mo.zeros(0).mean().item())


def test_variance_is_accurate_when_the_mean_is_large():
    array = (1e4 + RNG.normal(size=(8192, 3))).astype(np.float32)
    x = mo.array(array)
    np.testing.assert_allclose(x.var(0).numpy(), array.astype("f8").var(0), rtol=1e-5)
    assert abs(x.std().item() - 1) < 0.02
    normalised = (x - x.mean(0)) / mo.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(normalised.numpy().astype("f8").std(0), 1, atol=1e-3)
    offset = np.float32(1e4) + np.tile([-1, 1], 500_000).astype(np.float32)  # variance 1
    assert abs(mo.array(offset).var().item() - 1) < 1e-3


# -------------------------------------------------------------------------------- sums and products


def test_sum_of_ten_million_ones_is_exact():
    x = mo.ones(10_000_000)
    assert x.sum().item() == 1e7
    assert abs(x.mean().item() - 1) < 1e-6
    y = mo.array(np.full((3163, 3163), 0.1, np.float32))
    exact = float(np.float32(0.1)) * 3163
    np.testing.assert_allclose(y.sum(1).numpy(), exact, rtol=3e-6)  # errors of one sign
    np.testing.assert_allclose(y.mean().item(), float(np.float32(0.1)), rtol=3e-6)


def test_long_columns_of_a_wide_matrix_are_summed_in_pieces():
    tall, short = mo.zeros(40_000, 4096).sum(0), mo.zeros(400, 4096).sum(0)
    partial = [mo.dump(x, "canonical").count("reindex_reduce.add") for x in (tall, short)]
    assert partial == [2, 1]


@pytest.mark.parametrize("shape, axis", [
    ((1_000_003,), None), ((300, 1000), 0), ((1000, 1000), 1), ((100, 100, 100), (0, 2)),
    ((7, 142_857), 1), ((142_857, 7), 0)])  # fmt: skip
def test_long_sums_are_accurate_to_a_millionth(shape, axis):
    array = RNG.random(shape, np.float32)
    want = array.sum(axis, dtype=np.float64)
    np.testing.assert_allclose(mo.array(array).sum(axis).numpy(), want, rtol=1e-6)
    np.testing.assert_array_equal(mo.array(array).max(axis).numpy(), array.max(axis))


def test_long_reductions_of_integers_and_bools():
    array = RNG.integers(-(2**40), 2**40, 1_000_003)
    assert mo.array(array).sum().item() == array.sum()
    assert mo.array(array).min().item() == array.min()
    assert mo.array(array).argmax().item() == array.argmax()
    flags = np.ones(1_000_003, bool)
    assert mo.array(flags).all().item() is True and mo.array(flags).sum().item() == flags.size
    flags[-1] = False
    assert mo.array(flags).all().item() is False and mo.array(~flags).any().item() is True


def test_products():
    assert mo.prod(mo.array([2.0, 0.0, -3.0])).item() == 0
    assert mo.array([]).prod().item() == 1
    factors = (1 + RNG.normal(size=(3, 1000)) / 100).astype(np.float32)
    for axis in (None, 0, 1):
        want = factors.prod(axis, dtype="f8")
        np.testing.assert_allclose(mo.array(factors).prod(axis).numpy(), want, rtol=1e-4)
    factors[1, 500] = 0
    assert mo.array(factors).prod(1)[1].item() == 0 and mo.array(factors).prod().item() == 0
    middle = RNG.random((2, 65, 3)).astype(np.float32) + 0.5
    np.testing.assert_allclose(mo.array(middle).prod(1).numpy(), middle.prod(1), rtol=1e-5)
    kept = mo.array(middle).prod((0, 1), keepdims=True)
    np.testing.assert_allclose(kept.numpy(), middle.prod((0, 1), keepdims=True), rtol=1e-4)


def test_logsumexp_of_extremes():
    rows = np.array([
        [1000, 1000, 999], [-1000, -1001, -1000], [-np.inf, 0, 1], [-np.inf] * 3, [np.inf, 0, 1],
        [np.nan, 0, 1], [3e38, 3e38, -3e38],
    ], np.float32)  # fmt: skip
    with np.errstate(all="ignore"):
        want = np.logaddexp.reduce(rows.astype("f8"), 1).astype(np.float32)
    assert_same(mo.logsumexp(mo.array(rows), 1), want)
    assert mo.logsumexp(mo.zeros(0)).item() == -math.inf


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.sampled_from([0, 1, 2, 5, 17]), max_size=3),
    name=st.sampled_from(["sum", "max", "mean"]),
    data=st.data(),
)
def test_reduction_of_any_shape_over_any_axes(shape, name, data):
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)) if shape else st.just(set()))
    keepdims = data.draw(st.booleans())
    array = (np.arange(math.prod(shape)) % 11 - 3).reshape(shape).astype(np.float32)
    axis = tuple(axes)
    if name == "max" and any(shape[k] == 0 for k in axis):
        return
    close(getattr(mo, name)(mo.array(array), axis, keepdims),
          numpy_value(name, array, axis=axis, keepdims=keepdims))  # fmt: skip


# ----------------------------------------------------------------------------- products of matrices


@pytest.mark.parametrize("a, b", [
    ((3,), (3,)), ((3,), (3, 5)), ((5, 3), (3,)), ((5, 3), (3, 2)), ((1, 1), (1, 1)),
    ((2, 5, 3), (3, 7)), ((5, 3), (2, 3, 7)), ((2, 5, 3), (2, 3, 7)), ((4, 1, 5, 3), (2, 3, 7)),
    ((3,), (2, 3, 7)), ((2, 5, 3), (3,)), ((1, 5, 3), (6, 3, 7)), ((0, 3), (3, 2)),
    ((5, 0), (0, 2)), ((0,), (0,)), ((2, 0, 3), (3, 4)), ((0, 5, 3), (0, 3, 2)), ((5, 3), (3, 0)),
], ids=str)  # fmt: skip
def test_matmul_of_shapes(a, b):
    x, y = (RNG.normal(size=s).astype(np.float32) for s in (a, b))
    want = np.matmul(x.astype("f8"), y.astype("f8")).astype(np.float32)
    got = mo.matmul(mo.array(x), mo.array(y))
    assert got.shape == want.shape
    assert_value(got, want)
    assert_same(mo.array(x) @ y, want)
    assert_same(x @ mo.array(y), want)


@pytest.mark.parametrize("m, k, n", [
    (1, 1, 17), (7, 3, 1), (16, 16, 16), (17, 33, 65), (31, 64, 5), (65, 1, 70), (70, 70, 70),
    (33, 49, 15), (2, 69, 3)])  # fmt: skip
def test_matmul_of_odd_sizes(m, k, n):
    x, y = RNG.normal(size=(m, k)).astype("f4"), RNG.normal(size=(k, n)).astype("f4")
    want = x.astype("f8") @ y.astype("f8")
    for left, right in ((x, y), (np.asfortranarray(x), y[:, ::-1][:, ::-1])):
        got = (mo.array(left) @ mo.array(right)).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * math.sqrt(k))
    turned = mo.array(np.ascontiguousarray(x.T)).T @ mo.array(np.ascontiguousarray(y.T)).T
    np.testing.assert_allclose(turned.numpy(), want, rtol=1e-5, atol=1e-5 * math.sqrt(k))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_matmul_of_integers_wraps(dtype):
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, (5, 17), dtype)
    y = RNG.integers(info.min, info.max, (17, 3), dtype)
    assert_bits((mo.array(x) @ mo.array(y)).numpy(), x @ y)


@pytest.mark.parametrize("dtype", [mo.float64, mo.float16, mo.bfloat16], ids=str)
def test_matmul_of_other_floats(dtype):
    x, y = (mo.array(RNG.normal(size=s), dtype=dtype) for s in ((5, 17), (17, 3)))
    want = x.numpy().astype("f8") @ y.numpy().astype("f8")
    got = x @ y
    assert got.dtype is dtype
    assert_same(got, want.astype(got.numpy().dtype), dtype.name)
    assert (x @ mo.ones(17, 2, dtype="int8")).dtype is dtype


def test_matmul_carries_nan_and_infinity():
    x = np.array([[1, np.inf], [np.nan, 0], [0, 1]], np.float32)
    y = np.array([[0, 1], [1, -np.inf]], np.float32)
    with np.errstate(all="ignore"):
        assert_same(mo.array(x) @ mo.array(y), np.einsum("ik,kj->ij", x, y))


@pytest.mark.parametrize("a, b, message", [
    ((64, 32), (31, 16), r"matmul\(a, b\): inner sizes must agree, a is f32\[64,32\], "
     r"b is f32\[31,16\] \(32 != 31\)(.|\n)*a made at test_reductions\.py:\d+, "
     r"b at test_reductions\.py:\d+"),
    ((3,), (4,), r"inner sizes must agree, a is f32\[3\], b is f32\[4\] \(3 != 4\)"),
    ((2, 5, 3), (3, 3, 7), r"leading axes must broadcast, a is f32\[2,5,3\], b is f32\[3,3,7\]"),
    ((), (3,), r"0-d operands, a is f32\[\]"),
    ((3, 3), (), r"0-d operands, a is f32\[3,3\], b is f32\[\]"),
])  # fmt: skip
def test_matmul_of_unfitting_shapes_raises(a, b, message):
    x, y = mo.zeros(a), mo.zeros(b)
    with pytest.raises(mo.ShapeError, match=message):
        x @ y


def test_matmul_of_bools_raises():
    with pytest.raises(mo.DTypeError, match="not defined for bool"):
        mo.array([True]) @ mo.array([True])


def test_dot_and_outer():
    a, b = RNG.normal(size=(2, 5)).astype(np.float32)
    assert_same(mo.dot(a, b), np.dot(a, b))
    assert_same(mo.outer(a, mo.array(b)), np.outer(a, b))
    assert_same(mo.outer(mo.array([[1, 2], [3, 4]]), 2), np.outer([[1, 2], [3, 4]], 2))
    assert_same(mo.dot(mo.array(a), 2.0), a * 2)
    c, d = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(5, 4, 6))
    assert_same(mo.dot(c, d), np.dot(c, d))
    with pytest.raises(mo.ShapeError, match=r"axis -1 of a and axis -2 of b must agree"):
        mo.dot(c, c)


# ------------------------------------------------------------------------- edges that NumPy defines


def test_a_norm_of_more_than_two_axes_has_to_be_told_which() -> None:
    x = RNG.normal(size=(2, 3, 4))
    with pytest.raises(mo.ShapeError, match=r"norm\(x, ord=1\).* x is f64\[2,3,4\]; give axis="):
        mo.linalg.norm(mo.array(x), 1)
    assert_same(mo.linalg.norm(mo.array(x)), np.linalg.norm(x))
    assert_same(mo.linalg.norm(mo.array(x), 1, axis=2), np.linalg.norm(x, 1, axis=2))


def test_the_largest_norm_of_nothing_is_0() -> None:
    assert_same(mo.linalg.norm(mo.zeros(0), math.inf), np.float32(0))
    assert_same(mo.linalg.norm(mo.zeros(2, 0), math.inf, axis=1), np.zeros(2, "f4"))


def test_a_singular_matrix_is_infinitely_badly_conditioned() -> None:
    matrices = np.stack([np.zeros((2, 2)), np.eye(2), np.diag([2.0, 0.0])])
    assert_same(mo.linalg.cond(mo.array(matrices)), np.linalg.cond(matrices))


def test_bincount_of_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"minlength=-1\): it must not be negative"):
        mo.bincount(mo.array([0, 1]), minlength=-1)
