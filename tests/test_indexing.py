"""x[…], x[…] = v and x[…] += v are NumPy's, but for views: there are none."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.errors import user_site
from tests.helpers import assert_value, python_value
from tests.strategies import compiled

rng = np.random.default_rng(2)
# METAOP_FUZZ=20000 draws so many cases over all fuzzers of this file instead of 500
SHARE = int(os.environ.get("METAOP_FUZZ", "500")) / 500


def same(got: mo.Var, want: Any) -> None:
    want = np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_array_equal(python_value(got), want)


# ---------------------------------------------------------------------------------------- fuzz


@st.composite
def slices(draw: Any, extent: int) -> slice:
    bound = st.one_of(st.none(), st.integers(-extent - 2, extent + 2))
    return slice(draw(bound), draw(bound), draw(st.sampled_from([None, 1, 2, 3, -1, -2, -5])))


@st.composite
def masks(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    bits = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return np.array(bits, bool).reshape(shape)


@st.composite
def keys(draw: Any, shape: tuple[int, ...]) -> Any:
    """Any index of an array of this shape, as NumPy takes it."""
    common = draw(st.sampled_from([(), (1,), (2,), (3,), (2, 3), (2, 0)]))
    entries: list[Any] = []
    before = draw(st.integers(0, len(shape)))
    after = draw(st.integers(before, len(shape)))  # the axes between are left to an Ellipsis
    masked = 0  # axes that a mask has taken
    for axis, extent in enumerate(shape):
        if axis == before and before < after:
            entries.append(Ellipsis)
        if before <= axis < after:
            continue
        if axis < masked:
            continue
        kind = draw(st.sampled_from("slice slice slice integer array array mask".split()))
        if kind == "mask":
            rank = draw(st.integers(1, (before if axis < before else len(shape)) - axis))
            masked = axis + rank
            entries.append(draw(masks(shape[axis:masked])))
            continue
        if kind == "slice":
            entries.append(draw(slices(extent)))
        elif extent == 0:
            entries.append(slice(None))
        elif kind == "integer":
            entries.append(draw(st.integers(-extent, extent - 1)))
        else:
            own = common[draw(st.integers(0, len(common))) :]
            own = tuple(1 if n > 1 and draw(st.booleans()) else n for n in own)
            count = int(np.prod(own))
            values = draw(
                st.lists(st.integers(-extent, extent - 1), min_size=count, max_size=count)
            )
            entries.append(np.array(values, np.int64).reshape(own))
    for _ in range(draw(st.integers(0, 2))):
        entries.insert(draw(st.integers(0, len(entries))), None)
    if draw(st.integers(0, 9)) == 0:
        entries.insert(draw(st.integers(0, len(entries))), draw(st.booleans()))
    if before == after and draw(st.booleans()):
        entries.append(Ellipsis)
    elif before < after == len(shape) and draw(st.booleans()):
        entries = [e for e in entries if e is not Ellipsis]
    if len(entries) == 1 and draw(st.booleans()):
        return entries[0]
    return tuple(entries)


@st.composite
def readings(draw: Any) -> tuple[tuple[int, ...], Any]:
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), min_size=0, max_size=4)))
    key = draw(keys(shape))
    try:
        np.zeros(shape)[key]
    except IndexError:  # a mask chooses as many as no other index array can have
        assume(False)
    return shape, key


def as_vars(key: Any, style: int) -> Any:
    """The key with its arrays as Vars, ndarrays of several dtypes, or lists."""
    if isinstance(key, tuple):
        return tuple(as_vars(k, style + p) for p, k in enumerate(key))
    if not isinstance(key, np.ndarray):
        return key
    if style % 3 == 0:
        return mo.array(key)
    if key.dtype == bool:
        return key.tolist() if style % 3 == 2 and key.size else key
    if style % 3 == 1 or not key.shape or not key.size:
        return key.astype(["int64", "int32", "int8"][style % 2])
    return key.tolist()


@settings(max_examples=int(150 * SHARE), deadline=None)
@given(readings(), st.integers(0, 5))
def test_reading_is_numpys(case: Any, style: int) -> None:
    shape, key = case
    x = np.arange(float(np.prod(shape))).reshape(shape)
    want = x[key]
    got = mo.array(x)[as_vars(key, style)]
    same(got, want)
    if compiled(case, 12):
        np.testing.assert_array_equal(got.numpy(), want)


@settings(max_examples=int(150 * SHARE), deadline=None)
@given(readings(), st.integers(0, 5), st.data())
def test_assignment_is_numpys(case: Any, style: int, data: Any) -> None:
    shape, key = case
    x = np.arange(float(np.prod(shape))).reshape(shape)
    part = x[key].shape
    own = part[data.draw(st.integers(0, len(part))) :]
    own = tuple(1 if data.draw(st.booleans()) else n for n in own)
    value = -1.0 - np.arange(float(np.prod(own))).reshape(own)
    y = mo.array(x)
    old = y + 0.0
    y[as_vars(key, style)] = mo.array(value) if style % 2 else value
    want = x.copy()
    want[key] = value
    same(y, want)
    same(old, x)
    if compiled(case, 12):
        np.testing.assert_array_equal(y.numpy(), want)


@settings(max_examples=int(60 * SHARE), deadline=None)
@given(readings(), st.integers(0, 5))
def test_updating_a_part_is_numpys(case: Any, style: int) -> None:
    shape, key = case
    x = np.arange(float(np.prod(shape))).reshape(shape)
    y = mo.array(x)
    y[as_vars(key, style)] += 10.0
    y[as_vars(key, style)] *= 2.0
    want = x.copy()
    want[key] += 10.0
    want[key] *= 2.0
    same(y, want)


@settings(max_examples=int(40 * SHARE), deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.data())
def test_mask_assignment_is_numpys(shape: list[int], data: Any) -> None:
    x = np.arange(float(np.prod(shape))).reshape(shape)
    rank = data.draw(st.integers(1, len(shape)))
    count = int(np.prod(shape[:rank]))
    bits = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    mask = np.array(bits, bool).reshape(shape[:rank])
    y, want = mo.array(x), x.copy()
    key = mo.array(mask) if data.draw(st.booleans()) else mask
    y[key] = -1.0
    want[mask] = -1.0
    same(y, want)


def winners(shape: tuple[int, ...], key: Any) -> np.ndarray:
    """For every element the number of the one in the selected part that is written last, or -1."""
    number = np.full(shape, -1)
    part = np.zeros(shape)[key].shape
    number[key] = np.arange(int(np.prod(part))).reshape(part)
    return number


def summed_to(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of a broadcast from a shape."""
    array = array.sum(tuple(range(array.ndim - len(shape))))
    axes = tuple(k for k, n in enumerate(shape) if n == 1 and array.shape[k] != 1)
    return array.sum(axes, keepdims=True)


@settings(max_examples=int(100 * SHARE), deadline=None)
@given(readings(), st.integers(0, 5), st.sampled_from(["read", "write", "add"]), st.data())
@pytest.mark.filterwarnings("ignore::metaop.UnreachedGradientWarning")
def test_gradients_go_to_what_was_read_and_what_was_written(
    case: Any, style: int, how: str, data: Any
) -> None:
    shape, key = case
    x = np.arange(float(np.prod(shape))).reshape(shape)
    part = x[key].shape
    vx = mo.array(x, requires_grad=True)
    if how == "read":
        weights = rng.normal(size=part)
        want = np.zeros(shape)
        np.add.at(want, key, weights)
        got = mo.grad((vx[as_vars(key, style)] * weights).sum(), vx)
        np.testing.assert_allclose(python_value(got), want)
        return
    own = part[data.draw(st.integers(0, len(part))) :]
    own = tuple(1 if data.draw(st.booleans()) else n for n in own)
    value = mo.array(rng.normal(size=own), requires_grad=True)
    y = vx + 0.0
    if how == "write":
        y[as_vars(key, style)] = value
    else:
        y[as_vars(key, style)] += value
    weights = rng.normal(size=shape)
    number = winners(shape, key)
    slope = np.zeros(int(np.prod(part)))
    np.add.at(slope, number[number >= 0], weights[number >= 0])
    want_x = np.where(number < 0, weights, 0.0)
    if how == "add":
        np.add.at(want_x, key, slope.reshape(part))
    got_x, got_value = mo.grad((y * weights).sum(), [vx, value])
    np.testing.assert_allclose(python_value(got_x), want_x, atol=1e-12)
    np.testing.assert_allclose(
        python_value(got_value), summed_to(slope.reshape(part), own), atol=1e-12
    )


# ---------------------------------------------------------------------------------- named cases

X = rng.normal(size=(3, 4, 5))
FORMS: list[Any] = [
    0, -1, (1, 2), (0, -1, 2), (), ..., None, slice(None), slice(None, None, -1),
    (slice(1, None), slice(None, None, 2)), (..., 0), (0, ..., 0), (..., None), (None, 0, None),
    (slice(5, 2), 0), slice(-100, 100), slice(2, 0, -1), [0, 2], [], [[0, 1], [2, 0]],
    ([0, 2], [1, 3]), ([0, 2], slice(None), [1, 3]), (slice(None), [0, 1], [2, 3]),
    ([[0], [2]], [1, 2, 3]), ([0, 1], None, [1, 2]), (0, slice(None), [0, 1]),
    (slice(None), 0, [0, 1]), ([0, 1], 0), (..., [4, 0]), (np.int64(1), np.array(2)),
    (np.array(0), slice(None), np.array(1)), ([-1, -3], ..., [-5, 4]),
    X > 0, X[:, 0, 0] > 0, (slice(None), X[0] > 0), (X[:, :, 0] > 0, 2), (0, X[0, :, 0] > 0, None),
    ([0, 2], [True, False, True, False]), (..., [True, False, True, False, True]),
    True, False, (True, 0), (None, True), np.array(True), ([0], False),
    np.zeros((3, 4, 5), bool),
    [[True, False, True, True]] * 3, ([True, True, False], [1, 2], slice(None, None, -2)),
]  # fmt: skip


@pytest.mark.parametrize("key", FORMS, ids=repr)
def test_every_form_reads_and_writes_as_in_numpy(key: Any) -> None:
    same(mo.array(X)[key], X[key])
    y, want = mo.array(X), X.copy()
    value = rng.normal(size=X[key].shape)
    y[key] = value
    want[key] = value
    same(y, want)


def test_a_0d_index_var_takes_its_axis_away() -> None:
    k = mo.array(2)
    assert_value(mo.array(X)[k], X[2])
    assert_value(mo.array(X)[:, k, 1:], X[:, 2, 1:])
    y = mo.array(X)
    y[k] = 0.0
    assert y.numpy()[2].any() == np.False_ and y.numpy()[0].all()


def test_index_arrays_of_every_integer_dtype() -> None:
    for dtype in "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split():
        index = np.array([0, 2, 1]).astype(dtype)
        same(mo.array(X)[mo.array(index)], X[index])
        if dtype.startswith("int"):
            same(mo.array(X)[mo.array(-index)], X[-index])


def test_of_repeated_indices_the_last_assignment_wins() -> None:
    x = mo.array(np.zeros(4))
    x[[1, 1, 3, 1]] = np.array([1.0, 2.0, 3.0, 4.0])
    assert_value(x, [0, 4, 0, 3])
    x[[0, 0, 0]] += 1.0
    np.testing.assert_array_equal(x.numpy(), [1, 4, 0, 3])


def test_an_assignment_by_a_slice_that_turns_out_to_be_everything() -> None:
    """Found as a random graph: y was written twice, with x + 1 and then with a copy of v, and the
    copy was merged into v: v got x + 1, and y nothing."""
    x = mo.array(np.array([3.0]))
    v = mo.array(np.array([[1.0], [5.0]])).sum(0)
    sine = mo.sum(mo.sin(v))
    y = x + 1.0
    y[::2] = v
    same(sine + mo.sum(y * 2.0), np.sin(6.0) + 12.0)


def test_dtypes_of_what_is_assigned() -> None:
    x = mo.zeros(3)
    x[0] = 1
    x[1] = np.float64(2.5)
    x[2] = mo.array(3)
    assert x.dtype is mo.float32
    np.testing.assert_array_equal(x.numpy(), [1, 2.5, 3])
    n = mo.array([1, 2, 3])
    with pytest.raises(mo.DTypeError, match=r"cannot write f32\[\] into i64\[3\]"):
        n[0] = 1.5


def test_take_is_numpys() -> None:
    for axis in (None, 0, 1, -1):
        for index in ([0, 2], [[1, -1], [0, 0]], 1):
            same(mo.take(mo.array(X), index, axis), np.take(X, index, axis))
    with pytest.raises(mo.ShapeError, match=r"axis=3\): x is f64\[3,4,5\]"):
        mo.take(mo.array(X), [0], 3)


def test_take_along_axis_is_numpys() -> None:
    for axis in (0, 1, 2, -1):
        order = np.argsort(X, axis)
        same(mo.take_along_axis(mo.array(X), mo.array(order), axis), np.sort(X, axis))
    one = np.array([[[2]], [[0]], [[1]]])
    same(mo.take_along_axis(mo.array(X), one, 1), np.take_along_axis(X, one, 1))
    with pytest.raises(mo.ShapeError, match="must be integers of x's rank"):
        mo.take_along_axis(mo.array(X), mo.array([0]), 1)


def test_one_hot() -> None:
    labels = np.array([[0, 2], [1, 5]])
    assert_value(mo.one_hot(mo.array(labels), 3), (labels[..., None] == np.arange(3)) * 1.0,
                 "float32")  # fmt: skip


# ---------------------------------------------------------------------------------- no views


def test_there_are_no_views() -> None:
    x = mo.array(X)
    row = x[0]
    row += 1.0
    same(x, X)
    np.testing.assert_array_equal(row.numpy(), X[0] + 1)
    y = x.reshape(12, 5)
    y[0] = 0.0
    same(x, X)
    x[0] += 1.0
    want = X.copy()
    want[0] += 1
    same(x, want)


def test_writing_into_what_an_index_gave_says_what_to_write() -> None:
    x = mo.array(X)
    with pytest.raises(TypeError, match=r"x\[0\] is a new value, .*; write x\[0, 1\] = v"):
        x[0][1] = 2.0
    with pytest.raises(TypeError, match=r"write x\[-1, 2, 3\] = v"):
        x[-1][2, 3] = 2.0
    same(x, X)


# -------------------------------------------------------------------------------------- errors

REFUSED = {
    "an integer beyond the end": (lambda x: x[3], r"index 3 is out of bounds for axis 0 with size"),
    "an integer before the start": (lambda x: x[:, -5], r"index -5 is out of bounds for axis 1"),
    "an integer on an empty axis": (lambda x: x[:0][0], r"index 0 is out of bounds .* size 0"),
    "too many indices": (lambda x: x[0, 0, 0, 0], r"too many indices: x is f64\[3,4,5\], 4 were"),
    "two ellipses": (lambda x: x[..., 0, ...], r"only have one Ellipsis"),
    "a float": (lambda x: x[1.5], r"x\[1.5\]: an index is an integer, slice, None"),
    "a string": (lambda x: x["a"], r"an index is an integer, slice"),
    "a float array": (lambda x: x[np.array([1.0])], r"must be an integer, got f64\[1\]"),
    "a mask of another shape": (
        lambda x: x[:, np.ones(5, bool)], r"the mask must have the shape of x or of the axes"),
    "arrays that do not broadcast": (
        lambda x: x[[0, 1], [0, 1, 2]], r"do not broadcast: i64\[2\], i64\[3\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_at_the_call_as_an_index_error(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(IndexError, match=message):
        call(mo.array(X))


def test_assignments_refused_at_the_call() -> None:
    x = mo.array(X)
    with pytest.raises(mo.ShapeError, match=r"v is f64\[2\], the part has shape \(4, 5\)"):
        x[0] = np.zeros(2)
    with pytest.raises(IndexError, match=r"index 7 is out of bounds"):
        x[7] = 0.0
    with pytest.raises(IndexError, match=r"the mask must have the shape of x or of its first axes"):
        x[np.zeros(4, bool)] = 0.0
    with pytest.raises(mo.ShapeError, match=r"v must broadcast to the selected part"):
        x[np.zeros((3, 4), bool)] = np.zeros((2, 3, 4, 5))
    same(x, X)


def test_an_index_out_of_range_is_reported_by_the_read_on_the_recorded_line() -> None:
    x, index = mo.array(X), mo.array(np.array([0, 3]))
    line = user_site().line + 1
    y = x[index]
    z = y * 2.0
    for value in (z, y, z):
        with pytest.raises(IndexError, match=rf"index 3 .* size 3 .*test_indexing\.py:{line}"):
            value.numpy()
    np.testing.assert_array_equal((x * 2.0).numpy(), X * 2)


@pytest.mark.parametrize("bad", [-4, 3, 1 << 40])
def test_all_ways_to_gather_check_their_indices(bad: int) -> None:
    index = np.array([[0, bad]])
    for gathered in (
        mo.array(X)[mo.array(index)],
        mo.take(mo.array(X), mo.array(index), 0),
        mo.take_along_axis(mo.array(X[0, :3, :2]), mo.array(index), 0),
        mo.array(X)[mo.array(index), :, mo.array(np.array([0]))],
    ):
        with pytest.raises(IndexError, match=rf"index {bad} is out of bounds"):
            gathered.numpy()


def test_an_assignment_out_of_range_is_reported_and_leaves_x_as_it_was() -> None:
    x = mo.array(X)
    line = user_site().line + 1
    x[mo.array(np.array([1, 5]))] = 0.0
    with pytest.raises(IndexError, match=rf"index 5 .*test_indexing\.py:{line}"):
        x.numpy()
    np.testing.assert_array_equal(x.numpy(), X)
