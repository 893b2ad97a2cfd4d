"""Dtypes: their names, their promotion, and what a list, a number or an array becomes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import metaop as mo
from metaop import dtype as dt
from tests.helpers import assert_same

NUMPY_HAS = [d for d in dt.ALL if d is not dt.bfloat16]
INTEGERS = [d for d in dt.ALL if d.is_integer]
FLOATS = [d for d in dt.ALL if d.is_float]


def promoted(a: dt.DType, b: dt.DType) -> dt.DType:
    """NumPy's common type, but float32 where NumPy would make up a float64."""
    if dt.bfloat16 in (a, b):
        other = b if a is dt.bfloat16 else a
        if not other.is_float:
            return dt.bfloat16
        return dt.float32 if other is dt.float16 else other
    result = dt.as_dtype(np.promote_types(a.name, b.name))
    created = result is dt.float64 and dt.float64 not in (a, b)
    return dt.float32 if created else result


@pytest.mark.parametrize("a", dt.ALL, ids=str)
def test_arrays_promote_as_in_numpy_but_never_to_a_new_float64(a):
    for b in dt.ALL:
        want = promoted(a, b)
        x, y = mo.zeros(3, dtype=a), mo.zeros(3, dtype=b)
        assert (x + y).dtype is want and (y + x).dtype is want, (a, b)
        assert mo.maximum(x, y).dtype is want
        assert mo.where(x == y, x, y).dtype is want
        assert mo.concat([x, y]).dtype is want
        assert (x == y).dtype is mo.bool_
        assert (x / y).dtype is (want if want.is_float else mo.float32), (a, b)


@pytest.mark.parametrize("a, b, want", [
    ("int32", "float32", "float32"), ("int64", "float32", "float32"), ("uint8", "int8", "int16"),
    ("uint64", "int64", "float32"), ("int8", "float16", "float16"), ("int16", "float16", "float32"),
    ("int64", "float64", "float64"), ("bool", "uint8", "uint8"), ("bool", "float16", "float16"),
    ("float16", "bfloat16", "float32"), ("bfloat16", "int32", "bfloat16"),
    ("float32", "float64", "float64"), ("uint32", "int32", "int64")])  # fmt: skip
def test_promotion_by_example(a, b, want):
    x, y = mo.array(np.arange(5), dtype=a), mo.array(np.arange(5), dtype=b)
    result = x + y
    assert result.dtype.name == want
    assert_same(result, (np.arange(5).astype(bool) if a == "bool" else np.arange(5)) + np.arange(
        5), want)  # fmt: skip


@pytest.mark.parametrize("dtype", dt.ALL, ids=str)
def test_python_numbers_give_way_to_arrays(dtype):
    x = mo.ones(2, dtype=dtype)
    whole = mo.int64 if dtype is mo.bool_ else dtype
    fraction = dtype if dtype.is_float else mo.float32
    assert (x + 1).dtype is whole and (1 + x).dtype is whole
    assert (x + True).dtype is dtype
    assert (x * 1.5).dtype is fraction and (1.5 * x).dtype is fraction
    assert mo.maximum(x, 2.0).dtype is fraction
    assert (x / 2).dtype is fraction and (2 / x).dtype is fraction
    assert (x**2.0).dtype is fraction
    assert mo.where(x > 0, x, 0.5).dtype is fraction
    assert (x > 0.5).dtype is mo.bool_
    assert mo.exp(x).dtype is fraction and mo.mean(x).dtype is fraction


def test_numbers_among_themselves():
    assert mo.add(1, 2).dtype is mo.int64 and mo.add(1, 2.0).dtype is mo.float32
    assert mo.add(True, 2).dtype is mo.int64 and mo.divide(1, 2).item() == 0.5
    assert mo.where(True, 1.0, 0).dtype is mo.float32


def test_numpy_scalars_keep_their_dtype_as_in_numpy():
    x = mo.ones(2)
    assert (x * np.float32(2)).dtype is mo.float32 and (np.float16(2) * x).dtype is mo.float32
    assert (x * np.float64(2)).dtype is mo.float64
    assert (mo.ones(2, dtype="int8") + np.int16(1)).dtype is mo.int16


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_an_integer_that_does_not_fit_raises(dtype):
    x = mo.zeros(2, dtype=dtype)
    for number in (dtype.highest + 1, dtype.lowest - 1):
        with pytest.raises(OverflowError, match=f"{number} is out of bounds for {dtype}"):
            x + number
        with pytest.raises(OverflowError, match="out of bounds"):
            number - x
    assert (x + dtype.highest).tolist() == [dtype.highest] * 2
    assert (x + dtype.lowest).tolist() == [dtype.lowest] * 2


@pytest.mark.parametrize("dtype", [mo.uint8, mo.int32, mo.uint64], ids=str)
def test_comparison_with_an_integer_that_does_not_fit_is_as_in_numpy(dtype):
    """NumPy compares the numbers: uint8 < 300 holds, uint8 == -1 does not."""
    values = np.array([0, 1, 100], dtype.storage)
    x = mo.array(values)
    for number in (dtype.highest + 1, dtype.lowest - 1):
        for got, want in (
            (x < number, values < number), (x <= number, values <= number),
            (x > number, values > number), (x >= number, values >= number),
            (x == number, values == number), (x != number, values != number),
            (number < x, number < values),
        ):  # fmt: skip
            assert got.dtype is mo.bool_
            assert_same(got, want)


def test_comparison_of_signed_and_unsigned_compares_the_numbers():
    """uint64 and int64 have no common integer type; in float32 2**63 and 2**63 - 1 are equal."""
    a = np.array([2**63, 2**63 - 1, 5, 2**64 - 1], np.uint64)
    b = np.array([2**63 - 1, 2**63 - 1, -5, -1], np.int64)
    for name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
        assert_same(getattr(mo, name)(mo.array(a), mo.array(b)), getattr(np, name)(a, b))
        assert_same(getattr(mo, name)(mo.array(b), mo.array(a)), getattr(np, name)(b, a))


def test_a_float_beyond_the_range_of_its_array_is_infinite_and_an_integer_raises():
    x = mo.ones(2, dtype="float16")
    assert (x * 1e6).tolist() == [np.inf, np.inf]
    with pytest.raises(OverflowError, match="too large"):
        mo.ones(2) + 10**400


def test_lists_numbers_and_arrays():
    assert mo.array([1.0, 2]).dtype is mo.float32 and mo.array(1.5).dtype is mo.float32
    assert mo.array([1, 2]).dtype is mo.int64 and mo.array(3).dtype is mo.int64
    assert mo.array([True]).dtype is mo.bool_ and mo.array([True, 2]).dtype is mo.int64
    assert mo.array([]).dtype is mo.float32 and mo.array([[1, 2.5]]).dtype is mo.float32
    for dtype in NUMPY_HAS:
        array = np.ones(3, dtype.name)
        assert mo.array(array).dtype is dtype
        assert mo.array(array.astype(array.dtype.newbyteorder(">"))).dtype is dtype
        assert_same(mo.array(array.astype(array.dtype.newbyteorder(">"))), array)
        assert mo.array([1, 0], dtype=dtype).dtype is dtype
    assert mo.array(np.float64(1)).dtype is mo.float64


def test_what_makes_floats_of_integers_makes_float32():
    for dtype in (mo.bool_, *INTEGERS):
        x = mo.array([1, 0, 1], dtype=dtype)
        for y in (mo.sqrt(x), mo.sin(x), x.mean(), x.var(), x.std(), x / x, mo.atan2(x, x),
                  mo.sigmoid(x), mo.reciprocal(x), mo.logsumexp(x), mo.copysign(x, x)):  # fmt: skip
            assert y.dtype is mo.float32


def test_names():
    for dtype in dt.ALL:
        assert dt.as_dtype(dtype.name) is dtype and dt.as_dtype(dtype.short) is dtype
        assert dt.as_dtype(dtype) is dtype and str(dtype) == dtype.name
        assert pickle.loads(pickle.dumps(dtype)) is dtype and copy.deepcopy(dtype) is dtype
        assert repr(dtype) == f"metaop.{dtype.name}"
    assert dt.as_dtype(float) is mo.float32 and dt.as_dtype(int) is mo.int64
    assert dt.as_dtype(bool) is mo.bool_ and dt.as_dtype(np.uint8) is mo.uint8
    assert dt.as_dtype(np.dtype(">f4")) is mo.float32


@pytest.mark.parametrize("wrong", ["float8", "complex64", np.complex128, object, None, "S3", "M8"])
def test_unknown_dtypes_raise(wrong):
    with pytest.raises(mo.DTypeError, match=r"no such dtype.*metaop has bool"):
        dt.as_dtype(wrong)


@pytest.mark.parametrize("dtype", dt.ALL, ids=str)
def test_limits(dtype):
    if dtype.is_float:
        assert (dtype.lowest, dtype.highest) == (-np.inf, np.inf)
    elif dtype.is_integer:
        info = np.iinfo(dtype.name)
        assert (dtype.lowest, dtype.highest) == (info.min, info.max)
    else:
        assert (dtype.lowest, dtype.highest) == (0, 1)


def test_bfloat16_reads_as_float32_and_rounds_to_nearest_even():
    x = mo.array([1.0, 1.00390625, 1.01171875, 3.4e38, np.nan], dtype="bfloat16")
    assert x.numpy().dtype == np.float32 and x.nbytes == 10
    np.testing.assert_array_equal(x.numpy(), np.array([1, 1, 1.015625, np.inf, np.nan], "f4"))


def test_conversions_of_a_var():
    x = mo.array([1.7, -2.2])
    assert x.long().dtype is mo.int64 and x.int().tolist() == [1, -2]
    assert x.half().dtype is mo.float16 and x.double().dtype is mo.float64
    assert x.bool().tolist() == [True, True] and x.float() is x
    assert x.to("cpu") is x and x.to(mo.float64).dtype is mo.float64
    assert x.to(dtype="int32").dtype is mo.int32 and x.type_as(x.int()).dtype is mo.int32
    with pytest.raises(ValueError, match="no device"):
        x.to(device="cuda")
