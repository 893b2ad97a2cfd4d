"""New arrays from shapes, numbers and ranges, against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metaop as mo
from metaop import life
from tests.helpers import assert_bits, assert_same, python_value

SHAPES = ((), (0,), (1,), (17,), (3, 5), (2, 0, 3))


def check(got: mo.Var, want: np.ndarray) -> None:
    assert_bits(python_value(got), want)
    assert_bits(got.numpy(), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filled_arrays(shape):
    check(mo.zeros(shape), np.zeros(shape, np.float32))
    check(mo.ones(*shape), np.ones(shape, np.float32))
    check(mo.zeros(list(shape), dtype="int8"), np.zeros(shape, np.int8))
    check(mo.ones(shape, dtype=bool), np.ones(shape, bool))
    check(mo.full(shape, 7), np.full(shape, 7))
    check(mo.full(shape, -0.0), np.full(shape, -0.0, np.float32))
    check(mo.full(shape, True), np.full(shape, True))
    check(mo.full(shape, 2.75, dtype="float64"), np.full(shape, 2.75))
    check(mo.full(shape, math.nan, dtype="float16"), np.full(shape, np.nan, np.float16))
    assert mo.empty(shape).shape == shape
    x = mo.zeros(shape, dtype="uint8")
    check(mo.ones_like(x), np.ones(shape, np.uint8))
    check(mo.zeros_like(x, dtype="float32"), np.zeros(shape, np.float32))
    check(mo.full_like(x, 200), np.full(shape, 200, np.uint8))


def test_full_of_an_array_value():
    check(mo.full(3, mo.array(2.5).sync()), np.full(3, 2.5, np.float32))
    check(mo.full((2, 3), mo.array([1, 2, 3]).sync()), np.full((2, 3), [1, 2, 3]))
    check(mo.full((2, 3), mo.array([1, 2, 3]).sync(), dtype="float32"),
          np.full((2, 3), [1, 2, 3], np.float32))  # fmt: skip
    check(mo.full((2, 3), np.arange(3)), np.full((2, 3), np.arange(3)))
    check(mo.full(2, np.float32(1.5)), np.full(2, np.float32(1.5)))
    check(mo.full(np.int64(2), np.int8(3)), np.full(2, np.int8(3)))
    with pytest.raises(mo.ShapeError, match=r"i64\[3\] does not fit \(2, 4\)"):
        mo.full((2, 4), mo.array([1, 2, 3]))


def test_a_number_that_rewriting_leaves_alone_has_a_value():
    """mo.full((3,), 7)[0].numpy() did not return: `compose` left the program's input as its
    result, the commit bound no storage, and `value_of` computed it again and again."""
    for y, want in (
        (mo.full((3,), 7)[0], 7),
        (mo.full((2, 2), 7.5).reshape(4)[1:2].squeeze(), 7.5),
        (mo.multiply(3, 1), 3),
    ):
        life.compute([y._node])
        assert y._node.storage is not None
        assert y.item() == want


def test_numbers_that_do_not_fit_their_dtype_raise():
    for number in (256, -1):
        with pytest.raises(OverflowError, match=f"{number} is out of bounds for uint8"):
            mo.full((2,), number, dtype="uint8")
        with pytest.raises(OverflowError, match="out of bounds"):
            mo.full_like(mo.zeros(2, dtype="uint8"), number)


@pytest.mark.parametrize("call", [
    lambda: mo.zeros(-1), lambda: mo.ones((2, -3)), lambda: mo.full((-2,), 1.0),
    lambda: mo.index((2, -1), 0), lambda: mo.eye(-1), lambda: mo.linspace(0, 1, -1)])  # fmt: skip
def test_negative_extents_raise(call):
    with pytest.raises(mo.ShapeError, match="must not be negative"):
        call()


@pytest.mark.parametrize("shape", [1.5, "3", (2, 2.5), None, ((2,), 3)], ids=str)
def test_a_shape_that_is_none_raises(shape):
    with pytest.raises(mo.ShapeError, match="a shape is a tuple of integers"):
        mo.zeros(shape)


def test_index():
    for axis in (0, 1, -1):
        check(mo.index((3, 5), axis), np.indices((3, 5))[axis])
    check(mo.index(4, 0), np.arange(4))
    check(mo.index((0, 2), 1), np.zeros((0, 2), np.int64))
    for shape, axis in (((2, 3), 2), ((2, 3), -3), ((), 0)):
        with pytest.raises(mo.ShapeError, match=f"axis {axis} does not exist"):
            mo.index(shape, axis)


@pytest.mark.parametrize("arguments", [
    (5,), (0,), (-3,), (2, 7), (7, 2), (1, 10, 3), (10, 1, -3), (0, -5, -1), (5, 5), (100_003,),
    (-(2**40), -(2**40) + 3), (3, 4, 17)], ids=str)  # fmt: skip
def test_arange_of_integers(arguments):
    got = mo.arange(*arguments)
    assert got.dtype is mo.int64
    assert_bits(got.numpy(), np.arange(*arguments))


@pytest.mark.parametrize("arguments", [
    (5.0,), (0, 1, 0.1), (1.5, 4), (0.5, -2, -0.25), (1, 0, 0.5), (0, 10.5, 2), (0.0,)],
    ids=str)  # fmt: skip
def test_arange_of_floats(arguments):
    got = mo.arange(*arguments)
    assert got.dtype is mo.float32
    assert_same(got, np.arange(*arguments).astype(np.float32))


def test_arange_with_dtype_and_wrong_step():
    check(mo.arange(5, dtype="float16"), np.arange(5, dtype=np.float16))
    check(mo.arange(1, 6, 2, dtype="uint8"), np.arange(1, 6, 2, np.uint8))
    check(mo.arange(3.0, dtype="int64"), np.arange(3))
    check(mo.arange(start=1, stop=4), np.arange(1, 4))
    check(mo.arange(np.int64(4)), np.arange(4))
    assert mo.arange(np.float32(3)).dtype is mo.float32
    with pytest.raises(ValueError, match="step must not be 0"):
        mo.arange(1, 2, 0)


@pytest.mark.parametrize("arguments", [
    (0, 1, 5), (1, 0, 3), (-2.5, 7, 17), (3, 3, 4), (0, 1, 1), (0, 1, 0), (0, 1e6, 7), (0, 1, 2)],
    ids=str)  # fmt: skip
def test_linspace(arguments):
    got = mo.linspace(*arguments)
    assert got.dtype is mo.float32
    assert_same(got, np.linspace(*arguments).astype(np.float32))
    assert_same(mo.linspace(*arguments, dtype="float64"), np.linspace(*arguments))


def test_linspace_ends_exactly_at_stop():
    for stop in (0.1, 0.7, 1e10 / 3):
        for num in (4, 7, 50):
            assert mo.linspace(0, stop, num, dtype="float64").numpy()[-1] == stop


def test_eye():
    check(mo.eye(3), np.eye(3, dtype=np.float32))
    check(mo.eye(3, 5), np.eye(3, 5, dtype=np.float32))
    for k in (-1, 0, 2, 9):
        check(mo.eye(4, 3, k, dtype="int64"), np.eye(4, 3, k, np.int64))
    check(mo.eye(0), np.eye(0, dtype=np.float32))


@pytest.mark.parametrize("name", ["tril", "triu"])
def test_triangles(name):
    ours, numpys = getattr(mo, name), getattr(np, name)
    for shape in ((3, 5), (4, 4), (2, 3, 3), (0, 3)):
        array = np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
        for k in (-2, 0, 1, 7):
            check(ours(mo.array(array), k), numpys(array, k))
    holes = np.array([[1, np.nan], [np.inf, 2]], np.float32)  # a product with 0 would keep the NaN
    check(ours(mo.array(holes)), numpys(holes))
    check(ours(mo.array([[1, 2], [3, 4]])), numpys([[1, 2], [3, 4]]))
    check(ours(mo.array([[True, True], [True, True]])), numpys([[True, True], [True, True]]))
    with pytest.raises(mo.ShapeError, match="at least two axes"):
        ours(mo.zeros(3))


def test_array_copies_at_the_call():
    batch = np.array([1.0, 2.0])
    x = mo.array(batch)
    batch[0] = 99
    assert x.tolist() == [1.0, 2.0]
    y = mo.array(x)
    y += 1
    assert x.tolist() == [1.0, 2.0] and y.tolist() == [2.0, 3.0]
    out = x.numpy()
    out[:] = 5
    assert x.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_array_of_any_memory_layout(shape):
    array = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    assert_same(mo.array(array), array)
    if 0 not in shape:
        assert_same(mo.array(array.tolist(), dtype="float64"), array)
    if shape:
        assert_same(mo.array(np.asfortranarray(array)), array)
        assert_same(mo.array(np.repeat(array, 3, -1)[..., ::3]), array)
        assert_same(mo.array(array[::-1]), array[::-1])
    read_only = array.copy()
    read_only.flags.writeable = False
    assert_same(mo.array(read_only), array)


def test_array_of_vars_in_a_list():
    a, b = mo.array(1.5), mo.array(2.5)
    assert_same(mo.array([a, b]), np.array([1.5, 2.5], np.float32))
    assert_same(mo.array([[1, 2], [3, 4]], dtype="float32"), np.array([[1, 2], [3, 4]], "f4"))


def test_what_is_no_array_raises():
    with pytest.raises(mo.DTypeError, match="cannot make a Var of dict"):
        mo.array({})
    with pytest.raises(mo.DTypeError, match="cannot make a Var of NoneType"):
        mo.array(None)
    with pytest.raises(ValueError, match="inhomogeneous"):
        mo.array([[1, 2], [3]])


def test_new_arrays_may_require_a_gradient() -> None:
    x = mo.ones(3)
    made = [
        mo.zeros(3, requires_grad=True), mo.ones((3,), requires_grad=True),
        mo.full((3,), 2.0, requires_grad=True), mo.zeros_like(x, requires_grad=True),
        mo.randn(3, requires_grad=True), mo.linspace(0, 1, 3, requires_grad=True),
    ]  # fmt: skip
    sum((m * m).sum() for m in made).backward()
    for m in made:
        np.testing.assert_array_equal(m.grad.numpy(), 2 * m.numpy())
    with pytest.raises(mo.DTypeError, match="only a float Var"):
        mo.zeros(3, dtype=mo.int64, requires_grad=True)


def test_what_users_of_torch_try_says_what_to_write() -> None:
    x = mo.ones(3)
    with pytest.raises(mo.ShapeError, match=r"bool\(x\), as in `if x`.* write x.any\(\)"):
        bool(x > 0)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match="computes on the CPU"):
            x.to(device)
    with pytest.raises(TypeError, match=r"as net.parameters\(\), got Linear"):
        mo.optim.SGD(mo.nn.Linear(2, 2), lr=0.1)
