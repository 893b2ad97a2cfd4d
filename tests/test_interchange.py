"""The Python Array API standard (2024.12): names, signatures, inspection, DLPack, pickling."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest

import metaop as mo

# The standard's functions with their arguments: "/" ends positional ones, "*" begins keywords.
STANDARD = """
arange(start, /, stop, step, *, dtype, device)  asarray(obj, /, *, dtype, device, copy)
empty(shape, *, dtype, device)  empty_like(x, /, *, dtype, device)
eye(n_rows, n_cols, /, *, k, dtype, device)  from_dlpack(x, /, *, device, copy)
full(shape, fill_value, *, dtype, device)  full_like(x, /, fill_value, *, dtype, device)
linspace(start, stop, /, num, *, dtype, device, endpoint)  meshgrid(arrays, *, indexing)
ones(shape, *, dtype, device)  ones_like(x, /, *, dtype, device)  tril(x, /, *, k)
triu(x, /, *, k)  zeros(shape, *, dtype, device)  zeros_like(x, /, *, dtype, device)
astype(x, dtype, /, *, copy, device)  broadcast_arrays(arrays)  broadcast_to(x, /, shape)
can_cast(from_, to, /)  finfo(type, /)  iinfo(type, /)  isdtype(dtype, kind)
result_type(arrays_and_dtypes)
abs(x, /)  acos(x, /)  acosh(x, /)  add(a, b, /)  asin(x, /)  asinh(x, /)  atan(x, /)
atan2(a, b, /)  atanh(x, /)  bitwise_and(a, b, /)  bitwise_left_shift(a, b, /)
bitwise_invert(x, /)  bitwise_or(a, b, /)  bitwise_right_shift(a, b, /)  bitwise_xor(a, b, /)
ceil(x, /)  clip(x, /, min, max)  conj(x, /)  copysign(a, b, /)  cos(x, /)  cosh(x, /)
divide(a, b, /)  equal(a, b, /)  exp(x, /)  expm1(x, /)  floor(x, /)  floor_divide(a, b, /)
greater(a, b, /)  greater_equal(a, b, /)  hypot(a, b, /)  imag(x, /)  isfinite(x, /)
isinf(x, /)  isnan(x, /)  less(a, b, /)  less_equal(a, b, /)  log(x, /)  log1p(x, /)
log2(x, /)  log10(x, /)  logaddexp(a, b, /)  logical_and(a, b, /)  logical_not(x, /)
logical_or(a, b, /)  logical_xor(a, b, /)  maximum(a, b, /)  minimum(a, b, /)
multiply(a, b, /)  negative(x, /)  nextafter(a, b, /)  not_equal(a, b, /)  positive(x, /)
pow(a, b, /)  real(x, /)  reciprocal(x, /)  remainder(a, b, /)  round(x, /)  sign(x, /)
signbit(x, /)  sin(x, /)  sinh(x, /)  square(x, /)  sqrt(x, /)  subtract(a, b, /)  tan(x, /)
tanh(x, /)  trunc(x, /)  take(x, indices, /, *, axis)  take_along_axis(x, indices, /, *, axis)
matmul(a, b, /)  matrix_transpose(x, /)  tensordot(a, b, /, *, axes)  vecdot(a, b, /, *, axis)
concat(arrays, /, *, axis)  expand_dims(x, /, *, axis)  flip(x, /, *, axis)
moveaxis(x, source, destination, /)  permute_dims(x, /, axes)  repeat(x, repeats, /, *, axis)
reshape(x, /, shape, *, copy)  roll(x, /, shift, *, axis)  squeeze(x, /, axis)
stack(arrays, /, *, axis)  tile(x, repetitions, /)  unstack(x, /, *, axis)
argmax(x, /, *, axis, keepdims)  argmin(x, /, *, axis, keepdims)
count_nonzero(x, /, *, axis, keepdims)  nonzero(x, /)
searchsorted(x1, x2, /, *, side, sorter)  where(condition, a, b, /)
unique_all(x, /)  unique_counts(x, /)  unique_inverse(x, /)  unique_values(x, /)
argsort(x, /, *, axis, descending, stable)  sort(x, /, *, axis, descending, stable)
cumulative_prod(x, /, *, axis, dtype, include_initial)
cumulative_sum(x, /, *, axis, dtype, include_initial)  max(x, /, *, axis, keepdims)
mean(x, /, *, axis, keepdims)  min(x, /, *, axis, keepdims)
prod(x, /, *, axis, dtype, keepdims)  std(x, /, *, axis, correction, keepdims)
sum(x, /, *, axis, dtype, keepdims)  var(x, /, *, axis, correction, keepdims)
all(x, /, *, axis, keepdims)  any(x, /, *, axis, keepdims)
diff(x, /, *, axis, n, prepend, append)
linalg.cholesky(x, /, *, upper)  linalg.cross(a, b, /, *, axis)  linalg.det(x, /)
linalg.diagonal(x, /, *, offset)  linalg.eigh(x, /)  linalg.eigvalsh(x, /)  linalg.inv(x, /)
linalg.matmul(a, b, /)  linalg.matrix_norm(x, /, *, keepdims, ord)
linalg.matrix_power(x, n, /)  linalg.matrix_rank(x, /, *, rtol)  linalg.matrix_transpose(x, /)
linalg.outer(a, b, /)  linalg.pinv(x, /, *, rtol)  linalg.qr(x, /, *, mode)
linalg.slogdet(x, /)  linalg.solve(a, b, /)  linalg.svd(x, /, *, full_matrices)
linalg.svdvals(x, /)  linalg.tensordot(a, b, /, *, axes)  linalg.trace(x, /, *, offset)
linalg.vecdot(a, b, /, *, axis)  linalg.vector_norm(x, /, *, axis, keepdims, ord)
"""
ENTRIES = [e.strip() + ")" for line in STANDARD.splitlines() for e in line.split(")") if e.strip()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_functions_of_the_standard_take_its_arguments(entry: str) -> None:
    name, _, rest = entry.partition("(")
    function: Any = mo
    for part in name.split("."):
        function = getattr(function, part)
    signature = inspect.signature(function)
    positional, _, keywords = rest.rstrip(")").partition("*")
    first, slash, second = positional.partition("/")
    if not slash:
        first, second = "", first
    by_position = [a for a in first.replace(" ", "").split(",") if a]
    named = [a for a in (second + "," + keywords).replace(" ", "").split(",") if a]
    takes_any = {p.kind for p in signature.parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in takes_any:
        named = [n for n in named if n not in ("shape", "arrays", "axes", "arrays_and_dtypes")]
    options = (
        dict.fromkeys(named)
        if inspect.Parameter.VAR_KEYWORD not in takes_any
        else {n: None for n in named if n in signature.parameters}
    )
    signature.bind(*[None] * len(by_position), **options)


def test_shapes_and_axes_as_keywords() -> None:
    assert mo.zeros(shape=(2, 3)).shape == mo.ones(shape=(2, 3)).shape == (2, 3)
    x = mo.empty(shape=(2, 3))
    assert mo.reshape(x, shape=(3, 2), copy=True).shape == (3, 2)
    assert mo.permute_dims(x, axes=(1, 0)).shape == (3, 2)
    assert mo.broadcast_to(x, shape=(4, 2, 3)).shape == (4, 2, 3)


@pytest.mark.parametrize("name", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16",
                                  "uint32", "uint64", "float32", "float64"])  # fmt: skip
def test_dtypes_of_the_standard(name: str) -> None:
    assert getattr(mo, name).name == name
    assert mo.__array_namespace_info__().dtypes()[name] is getattr(mo, name)


def test_constants_of_the_standard() -> None:
    assert (mo.e, mo.pi, mo.inf, mo.newaxis) == (math.e, math.pi, math.inf, None)
    assert math.isnan(mo.nan)


def test_the_namespace_of_an_array_is_metaop() -> None:
    x = mo.array([1.0])
    assert x.__array_namespace__() is mo
    assert x.__array_namespace__(api_version="2023.12") is mo
    with pytest.raises(ValueError, match=r"up to 2024\.12"):
        x.__array_namespace__(api_version="2025.12")
    assert x.to_device("cpu") is x and x.device == "cpu"
    with pytest.raises(ValueError, match="no device 'cuda'"):
        x.to_device("cuda")


def test_namespace_info() -> None:
    info = mo.__array_namespace_info__()
    assert info.capabilities()["data-dependent shapes"] is True
    assert info.default_device() == "cpu" and info.devices() == ["cpu"]
    assert info.default_dtypes()["real floating"] is mo.float32
    assert "complex floating" not in info.default_dtypes()
    assert set(info.dtypes(kind="signed integer")) == {"int8", "int16", "int32", "int64"}
    assert info.dtypes(kind="complex floating") == {}
    assert set(info.dtypes(kind=("bool", "real floating"))) == {"bool", "float32", "float64"}


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_finfo_is_numpys(name: str) -> None:
    ours, theirs = mo.finfo(name), np.finfo(name)
    assert (ours.bits, ours.eps, ours.max, ours.min) == (
        theirs.bits, float(theirs.eps), float(theirs.max), float(theirs.min)
    )  # fmt: skip
    assert ours.smallest_normal == float(theirs.smallest_normal) == ours.tiny
    assert mo.finfo(mo.bfloat16).eps == 2.0**-7


@pytest.mark.parametrize("name", ["int8", "int64", "uint16", "uint64"])
def test_iinfo_is_numpys(name: str) -> None:
    ours, theirs = mo.iinfo(name), np.iinfo(name)
    assert (ours.bits, ours.max, ours.min) == (theirs.bits, theirs.max, theirs.min)


def test_promotion_of_dtypes_arrays_and_numbers() -> None:
    assert mo.result_type(mo.int32, mo.uint8) is mo.int32
    assert mo.result_type(mo.array([1]), 1.5) is mo.float32
    assert mo.result_type(mo.array([1], "int8"), 3) is mo.int8
    assert mo.can_cast(mo.int8, mo.int32) and not mo.can_cast(mo.int32, mo.int8)
    assert mo.isdtype(mo.uint8, ("bool", "unsigned integer"))
    assert not mo.isdtype(mo.float32, "complex floating")
    assert mo.isdtype(mo.float32, mo.float32)


# ----------------------------------------------------------------------------------------- DLPack

EXCHANGED = ["float32", "float64", "float16", "int8", "int64", "uint8", "bool"]


@pytest.mark.parametrize("name", EXCHANGED)
def test_dlpack_lends_the_memory_of_a_value(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = mo.array(np.arange(6).reshape(2, 3).astype(name)).sync()
    theirs = torch.from_dlpack(x)
    assert theirs.data_ptr() == x._node.storage.address
    np.testing.assert_array_equal(theirs.numpy(), x.numpy())
    old = np.from_dlpack(x)
    assert old.__array_interface__["data"][0] == x._node.storage.address


@pytest.mark.parametrize("name", EXCHANGED)
def test_from_dlpack_reads_the_memory_of_another_library(name: str) -> None:
    torch = pytest.importorskip("torch")
    array = np.arange(6).reshape(2, 3).astype(name)
    theirs = torch.from_numpy(array)
    x = mo.from_dlpack(theirs)
    assert x._node.storage.address == theirs.data_ptr()
    np.testing.assert_array_equal(x.numpy(), array)
    np.testing.assert_array_equal((x.astype("float64") + 1).numpy(), array.astype(float) + 1)


def test_lent_memory_outlives_its_var() -> None:
    x = mo.array(np.arange(5.0)).sync()
    array = np.from_dlpack(x)
    del x
    for _ in range(20):
        mo.array(np.zeros(5)).sync()
    np.testing.assert_array_equal(array, np.arange(5.0))


def test_from_dlpack_copies_what_is_not_contiguous() -> None:
    array = np.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(mo.from_dlpack(array).numpy(), array)
    with pytest.raises(BufferError, match="not C-contiguous"):
        mo.from_dlpack(array, copy=False)
    plain = np.arange(3.0)
    copied = mo.from_dlpack(plain, copy=True)
    plain[0] = 7
    assert copied.numpy()[0] == 0


def test_bfloat16_is_exported_as_float32() -> None:
    x = mo.array([1.0, -2.5], dtype="bfloat16")
    assert np.from_dlpack(x).tolist() == [1.0, -2.5]


def test_asarray_copies_as_the_standard_says() -> None:
    x = mo.array([1, 2])
    assert mo.asarray(x) is x and mo.asarray(x, copy=True) is not x
    assert mo.asarray(x, dtype=mo.float64).dtype is mo.float64
    with pytest.raises(ValueError, match="copy=False"):
        mo.asarray([1, 2], copy=False)


# ---------------------------------------------------------------------------------------- pickling


@pytest.mark.parametrize("dtype", mo.dtype.ALL if hasattr(mo.dtype, "ALL") else [], ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_pickling_keeps_values_and_dtypes(dtype: mo.DType, shape: tuple[int, ...]) -> None:
    x = mo.array(np.arange(math.prod(shape)).reshape(shape), dtype=dtype)
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y.dtype is dtype and y.shape == shape
        np.testing.assert_array_equal(y.numpy(), x.numpy())
