"""Functions that move elements, against NumPy: alone, and in chains drawn by hypothesis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from tests.helpers import assert_bits, python_value

SHAPES = ((), (1,), (0,), (17,), (3, 5), (3, 0, 2), (2, 1, 4, 3))
CUBE = (2, 3, 5)


def numbers(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """0, 1, 2, … so that a misplaced element shows."""
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


def check(got: mo.Var, want: np.ndarray) -> None:
    """Machine code and printed Python give exactly these elements."""
    assert got.shape == np.shape(want)
    if got._node.storage is None:
        assert_bits(python_value(got), want)
    assert_bits(got.numpy(), want)


def on(
    shape: tuple[int, ...], ours: Callable[[mo.Var], mo.Var], numpys: Callable[..., Any]
) -> None:
    """Both functions on the same numbers, once from memory with gaps."""
    array = numbers(shape)
    check(ours(mo.array(array)), numpys(array))
    if shape and 0 not in shape:
        strided = np.repeat(array, 2, axis=-1)[..., ::-2]
        check(ours(mo.array(strided)), numpys(strided))


# ------------------------------------------------------------------------------- reshape and kin


@pytest.mark.parametrize("source, target", [
    ((), (1, 1)), ((1, 1), ()), ((6,), (2, 3)), ((2, 3), (3, 2)), ((2, 3, 5), (30,)),
    ((2, 3, 5), (5, -1)), ((2, 3, 5), (-1, 3, 1, 5)), ((0,), (3, 0, 2)), ((3, 0), (0,)),
    ((3, 0), (3, -1)), ((4, 9), (6, 6)), ((2, 3), (2, 3)), ((17,), (-1,)), ((8, 1, 6), (3, 16)),
])  # fmt: skip
def test_reshape(source, target):
    on(source, lambda x: x.reshape(target), lambda x: x.reshape(target))
    on(source, lambda x: mo.reshape(x, *target), lambda x: x.reshape(target))
    on(source, lambda x: x.view(*target) + 1, lambda x: x.reshape(target) + 1)


@pytest.mark.parametrize("target, message", [
    ((7,), r"sizes must agree, x is f32\[2,3\] with 6 elements, shape \(7,\) has 7"),
    ((4, -1), r"cannot reshape f32\[2,3\] to \(4, -1\)"),
    ((0, -1), r"cannot reshape f32\[2,3\] to \(0, -1\)"),
    ((-1, -1), r"bad shape \(-1, -1\)"), ((-2, 3), r"bad shape \(-2, 3\)"),
    ((2.0, 3), "a shape is a tuple of integers"), (("a",), "a shape is a tuple of integers"),
    (((2, 3), 1), "a shape is a tuple of integers"), ((None,), "a shape is a tuple of integers"),
])  # fmt: skip
def test_reshape_to_something_else_raises(target, message):
    with pytest.raises(mo.ShapeError, match=message):
        mo.zeros(2, 3).reshape(*target)


def test_flatten():
    on((), lambda x: x.flatten(), np.ravel)
    on(CUBE, lambda x: x.flatten(), np.ravel)
    on(CUBE, lambda x: x.flatten(1), lambda x: x.reshape(2, 15))
    on(CUBE, lambda x: mo.flatten(x, 0, 1), lambda x: x.reshape(6, 5))
    on((3, 0, 2), lambda x: x.flatten(-2), lambda x: x.reshape(3, 0))
    with pytest.raises(mo.ShapeError, match="flatten: axis 3 does not exist, x has 3 axes"):
        mo.zeros(CUBE).flatten(3)
    with pytest.raises(mo.ShapeError, match=r"flatten\(x, start, end\): start 2 lies behind end 0"):
        mo.zeros(CUBE).flatten(2, 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transpose_reverses_and_permute_orders(shape):
    on(shape, lambda x: x.T, np.transpose)
    on(shape, lambda x: mo.transpose(x), np.transpose)
    if len(shape) >= 2:
        on(shape, lambda x: x.mT, np.matrix_transpose)
        on(shape, lambda x: mo.matrix_transpose(x), np.matrix_transpose)
        on(shape, lambda x: x.swapaxes(0, -1), lambda x: np.swapaxes(x, 0, -1))
        order = (*range(1, len(shape)), 0)
        on(shape, lambda x: x.permute(order), lambda x: np.transpose(x, order))
        on(shape, lambda x: x.permute(*order), lambda x: np.transpose(x, order))
        on(shape, lambda x: mo.transpose(x, order), lambda x: np.transpose(x, order))
        last = tuple(a - len(shape) for a in order)
        on(shape, lambda x: mo.permute_dims(x, last), lambda x: np.transpose(x, order))


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (0, 1, 3), (-4, 0, 1), (0, 1, 2, 3), ()])
def test_permute_with_no_order_of_the_axes_raises(order):
    with pytest.raises(mo.ShapeError, match=r"is no order of the axes of f32\[2,3,5\]"):
        mo.permute_dims(mo.zeros(CUBE), order)


def test_moveaxis():
    for source, destination in ((0, -1), (-1, 0), (1, 1), ((0, 2), (2, 1)), ([2, 0], [0, 1])):
        on(CUBE, lambda x, s=source, d=destination: mo.moveaxis(x, s, d),
           lambda x, s=source, d=destination: np.moveaxis(x, s, d))  # fmt: skip
    with pytest.raises(mo.ShapeError, match="moveaxis: axis 3 does not exist"):
        mo.moveaxis(mo.zeros(CUBE), 3, 0)
    for source, destination in (((0, 1), 0), ((0, 0), (1, 2)), ((0, 1), (2, 2))):
        with pytest.raises(mo.ShapeError, match="moveaxis"):
            mo.moveaxis(mo.zeros(CUBE), source, destination)


def test_squeeze_and_expand_dims():
    on((1, 3, 1, 5), lambda x: x.squeeze(), np.squeeze)
    on((1, 3, 1, 5), lambda x: x.squeeze(0), lambda x: np.squeeze(x, 0))
    on((1, 3, 1, 5), lambda x: mo.squeeze(x, (0, -2)), lambda x: np.squeeze(x, (0, -2)))
    on((1, 1), lambda x: x.squeeze(), np.squeeze)
    on((), lambda x: x.squeeze(), np.squeeze)
    for shape in ((), (3, 5), (3, 0)):
        for axis in (0, -1, (0, -1)):
            on(
                shape,
                lambda x, a=axis: mo.expand_dims(x, a),
                lambda x, a=axis: np.expand_dims(x, a),
            )
    on((3, 5), lambda x: x.unsqueeze(1), lambda x: x[:, None])
    with pytest.raises(mo.ShapeError, match=r"axis 1 of f32\[1,3\] is not of size one"):
        mo.zeros(1, 3).squeeze(1)
    with pytest.raises(mo.ShapeError, match="squeeze: axis 2 does not exist"):
        mo.zeros(1, 3).squeeze(2)
    with pytest.raises(mo.ShapeError, match="expand_dims: axis 3 does not exist, x has 3 axes"):
        mo.expand_dims(mo.zeros(1, 3), 3)


@pytest.mark.parametrize("source, target", [
    ((), (3, 5)), ((1,), (0,)), ((5,), (3, 5)), ((3, 1), (2, 3, 5)), ((3, 5), (3, 5)),
    ((0,), (4, 0)), ((1, 0), (3, 0)), ((2, 1, 4, 1), (2, 6, 4, 3))])  # fmt: skip
def test_broadcast_to(source, target):
    on(source, lambda x: mo.broadcast_to(x, target), lambda x: np.broadcast_to(x, target))
    on(source, lambda x: x.expand(*target), lambda x: np.broadcast_to(x, target))


@pytest.mark.parametrize("source, target", [((3,), (4,)), ((3, 5), (5,)), ((2,), (0,)), ((3,), ())])
def test_broadcast_to_an_unfitting_shape_raises(source, target):
    with pytest.raises(mo.ShapeError, match=r"broadcast_to\(x, shape\): f32.* does not fit"):
        mo.broadcast_to(mo.zeros(source), target)


# ------------------------------------------------------------------------------------ flip and roll


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flip(shape):
    on(shape, mo.flip, np.flip)
    for axis in range(-len(shape), len(shape)):
        on(shape, lambda x, a=axis: x.flip(a), lambda x, a=axis: np.flip(x, a))
    if len(shape) > 1:
        on(shape, lambda x: mo.flip(x, (0, -1)), lambda x: np.flip(x, (0, -1)))
    with pytest.raises(mo.ShapeError, match="flip: axis 9 does not exist"):
        mo.flip(mo.zeros(shape), 9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_roll(shape):
    for shift in (0, 1, -2, 40):
        on(shape, lambda x, s=shift: mo.roll(x, s), lambda x, s=shift: np.roll(x, s))
    for axis in range(len(shape)):
        on(shape, lambda x, a=axis: x.roll(-2, a), lambda x, a=axis: np.roll(x, -2, a))


def test_roll_of_several_axes():
    for shift, axis in (((1, -1), (0, 2)), (2, (0, 1)), ((1, 2), (0, 0)), ((1, 2), 1)):
        on(CUBE, lambda x, s=shift, a=axis: mo.roll(x, s, a),
           lambda x, s=shift, a=axis: np.roll(x, s, a))  # fmt: skip
    with pytest.raises(mo.ShapeError, match="roll: axis 3 does not exist"):
        mo.roll(mo.zeros(CUBE), 1, 3)
    with pytest.raises(mo.ShapeError, match=r"roll.*as many shifts as axes"):
        mo.roll(mo.zeros(CUBE), (1, 2, 3), (0, 1))


# --------------------------------------------------------------------------------- concat and stack


@pytest.mark.parametrize("shapes, axis", [
    ([(3, 5)], 0), ([(3, 5), (3, 5)], 0), ([(3, 5), (3, 2), (3, 1)], 1), ([(3, 5), (3, 2)], -1),
    ([(0,), (4,), (0,), (17,)], 0), ([(0,), (0,)], 0), ([(3, 0), (3, 5)], 1),
    ([(2, 3, 4), (2, 1, 4), (2, 0, 4)], 1), ([(3, 5), (2,), ()], None), ([()], None),
    ([(2, 0), (3, 0)], 0)], ids=str)  # fmt: skip
def test_concat(shapes, axis):
    arrays = [numbers(s) + 100 * k for k, s in enumerate(shapes)]
    vars = [mo.array(a) for a in arrays]
    check(mo.concat(vars, axis), np.concatenate(arrays, axis))
    check(mo.concatenate(vars, axis=axis) * 2, np.concatenate(arrays, axis) * 2)


def test_concat_of_mixed_dtypes_promotes():
    a, b, c = numbers((2, 3), "i1"), numbers((1, 3), "u1"), numbers((2, 3), "f2")
    check(mo.concat([mo.array(a), b]), np.concatenate([a, b]))
    check(mo.cat([a, b, c]), np.concatenate([a, b, c]))
    check(mo.cat([c, b, a]), np.concatenate([c, b, a]))
    check(mo.concat([mo.array(numbers((3,), "i8")), mo.ones(2)]), np.array([0, 1, 2, 1, 1], "f4"))
    check(mo.concat([mo.array([True]), mo.array([7])]), np.array([1, 7]))


def test_concat_of_many():
    arrays = [np.full((k % 3, 2), k, np.float32) for k in range(40)]
    check(mo.concat([mo.array(a) for a in arrays]), np.concatenate(arrays))


def test_concat_and_stack_of_unfitting_arrays_raise():
    a, b = mo.zeros(3, 5), mo.zeros(4, 6)
    with pytest.raises(mo.ShapeError, match=r"concat\(arrays, axis=0\): all extents but that of "
                       r"the axis must agree, got f32\[3,5\] and f32\[4,6\]"):  # fmt: skip
        mo.concat([a, b])
    with pytest.raises(mo.ShapeError, match=r"got f32\[3,5\] and f32\[5\]"):
        mo.concat([a, mo.zeros(5)])
    with pytest.raises(mo.ShapeError, match="need at least one array"):
        mo.concat([])
    with pytest.raises(mo.ShapeError, match="concat: axis 2 does not exist"):
        mo.concat([a, a], 2)
    with pytest.raises(mo.ShapeError, match="concat: axis 0 does not exist, x has 0 axes"):
        mo.concat([mo.array(1.0), mo.array(2.0)])
    with pytest.raises(mo.ShapeError, match=r"all shapes must agree, got \[\(3, 5\), \(4, 6\)\]"):
        mo.stack([a, b])
    with pytest.raises(mo.ShapeError, match=r"stack.*at least one array"):
        mo.stack([])


@pytest.mark.parametrize("shape", [(), (3, 5), (0, 2)], ids=str)
def test_stack(shape):
    arrays = [numbers(shape) + 100 * k for k in range(3)]
    for axis in range(-len(shape) - 1, len(shape) + 1):
        check(mo.stack([mo.array(a) for a in arrays], axis), np.stack(arrays, axis))
    check(mo.stack([arrays[0], mo.array(arrays[1]).int()]), np.stack(arrays[:2]))


# --------------------------------------------------------------------------------------------- pad


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap", "symmetric"])
@pytest.mark.parametrize("shape, width", [
    ((5,), 2), ((5,), (1, 3)), ((3, 5), 1), ((3, 5), ((0, 2), (3, 0))), ((3, 5), ((1, 2),)),
    ((2, 4, 5), ((0, 0), (1, 1), (4, 2))), ((3, 5), 0)], ids=str)  # fmt: skip
def test_pad(mode, shape, width):
    on(shape, lambda x: mo.pad(x, width, mode), lambda x: np.pad(x, width, mode))


@pytest.mark.parametrize("mode", ["edge", "wrap", "reflect", "symmetric"])
def test_pad_wider_than_the_array(mode):
    on((3,), lambda x: mo.pad(x, (7, 8), mode), lambda x: np.pad(x, (7, 8), mode))
    on((1, 2), lambda x: mo.pad(x, ((1, 1), (4, 5)), mode),
       lambda x: np.pad(x, ((1, 1), (4, 5)), mode))  # fmt: skip


def test_pad_with_values():
    for value in (0, 1.5, -0.0, math.inf, math.nan):
        on((3, 5), lambda x, v=value: mo.pad(x, 1, constant_values=v),
           lambda x, v=value: np.pad(x, 1, constant_values=v))  # fmt: skip
    on((0, 2), lambda x: mo.pad(x, 1, constant_values=7), lambda x: np.pad(x, 1, constant_values=7))
    on((), lambda x: mo.pad(x, 1), lambda x: np.pad(x, 1))
    check(mo.pad(mo.array([1, 2]), 1, constant_values=-5), np.array([-5, 1, 2, -5]))
    check(mo.pad(mo.array([True]), 1, constant_values=True), np.array([True] * 3))


def test_pad_that_is_wrong_raises():
    x = mo.zeros(3, 5)
    for width in (-1, (1, -1), ((1, 1), (1, 1), (1, 1)), ((1, 1), (0, -2))):
        with pytest.raises(mo.ShapeError, match="non-negative integers for each axis of f32"):
            mo.pad(x, width)
    for mode in ("reflect", "edge", "wrap", "symmetric"):
        with pytest.raises(mo.ShapeError, match=r"f32\[0\] is too small for 1"):
            mo.pad(mo.zeros(0), 1, mode)
    with pytest.raises(ValueError, match="mode must be one of"):
        mo.pad(x, 1, "mirror")


# ----------------------------------------------------------------------------- tile, repeat, split


@pytest.mark.parametrize("shape, counts", [
    ((), 3), ((), (2, 3)), ((4,), 2), ((4,), (3, 2)), ((3, 5), 2), ((3, 5), (2, 1)),
    ((3, 5), (2, 1, 3)), ((3, 5), (0, 2)), ((0, 5), (2, 3)), ((1,), ()), ((3, 5), (1, 1))],
    ids=str)  # fmt: skip
def test_tile(shape, counts):
    on(shape, lambda x: mo.tile(x, counts), lambda x: np.tile(x, counts))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_repeat(shape):
    for count in (0, 1, 3):
        on(shape, lambda x, c=count: mo.repeat(x, c), lambda x, c=count: np.repeat(x, c))
        for axis in range(-len(shape), len(shape)):
            on(shape, lambda x, c=count, a=axis: x.repeat(c, a),
               lambda x, c=count, a=axis: np.repeat(x, c, a))  # fmt: skip


def test_tile_and_repeat_of_negative_counts_raise():
    with pytest.raises(mo.ShapeError, match=r"repeat.*must not be negative"):
        mo.repeat(mo.zeros(3), -1)
    with pytest.raises(mo.ShapeError, match=r"tile.*must not be negative"):
        mo.tile(mo.zeros(3), (2, -1))
    with pytest.raises(mo.ShapeError, match="repeat: axis 1 does not exist"):
        mo.repeat(mo.zeros(3), 2, 1)


@pytest.mark.parametrize("sections, axis", [
    (1, 0), (2, 0), (4, 0), (3, 1), ([1, 3], 0), ([0, 2, 2, 9], 0), ([2], -1), ([], 0),
    ([3, 1], 0), ([-1], 0)], ids=str)  # fmt: skip
def test_split(sections, axis):
    array = numbers((4, 6))
    got, want = mo.split(mo.array(array), sections, axis), np.split(array, sections, axis)
    assert isinstance(got, list) and len(got) == len(want)
    for g, w in zip(got, want):
        check(g, w)
    empty = mo.split(mo.zeros(0, 6), 3)
    assert [e.shape for e in empty] == [(0, 6)] * 3


def test_split_into_unequal_sections_raises():
    for sections in (4, 0, -1):
        with pytest.raises(mo.ShapeError, match=r"axis 0 of f32\[3,5\] has 3"):
            mo.split(mo.zeros(3, 5), sections)
    with pytest.raises(mo.ShapeError, match="split: axis 2 does not exist"):
        mo.split(mo.zeros(3, 5), 1, 2)


def test_meshgrid():
    arrays = [numbers((3,)), numbers((5,)) + 10, numbers((2,)) + 20]
    for count in (1, 2, 3):
        for indexing in ("xy", "ij"):
            got = mo.meshgrid(*map(mo.array, arrays[:count]), indexing=indexing)
            want = np.meshgrid(*arrays[:count], indexing=indexing)
            assert len(got) == len(want)
            for g, w in zip(got, want):
                check(g, w)
    assert [g.shape for g in mo.meshgrid(mo.zeros(0), mo.zeros(4))] == [(4, 0), (4, 0)]
    assert [g.shape for g in mo.meshgrid(mo.array(1.0), mo.zeros(4))] == [(4, 1), (4, 1)]
    with pytest.raises(ValueError, match="indexing"):
        mo.meshgrid(mo.zeros(3), indexing="yx")


def test_numpy_integers_and_arrays_are_integers():
    one, two = np.int64(1), np.int32(2)
    x = numbers(CUBE)
    y = mo.array(x)
    check(mo.moveaxis(y, one, np.array([0])), np.moveaxis(x, 1, 0))
    check(mo.roll(y, two, one), np.roll(x, 2, 1))
    check(mo.expand_dims(y, one), np.expand_dims(x, 1))
    check(mo.pad(y, one), np.pad(x, 1))
    check(mo.pad(y, np.array([[1, 2]])), np.pad(x, [[1, 2]]))
    check(mo.tile(y, np.array([1, 2, 1])), np.tile(x, [1, 2, 1]))
    check(mo.repeat(y, two, one), np.repeat(x, 2, 1))
    check(mo.split(y, two)[1], np.split(x, 2)[1])
    check(mo.split(y, np.array([1]))[1], np.split(x, [1])[1])
    check(y.reshape(np.array([5, 6])), x.reshape(5, 6))
    check(mo.flip(y, one), np.flip(x, 1))


def test_results_are_values_of_their_own():
    x = mo.array([1.0, 2.0])
    for same in (x.reshape(2), x.expand(2), mo.concat([x]), x.squeeze(), mo.flatten(x),
                 x.transpose(), mo.tile(x, 1), mo.roll(x, 0), mo.pad(x, 0)):  # fmt: skip
        same += 1
        assert x.tolist() == [1.0, 2.0] and same.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64"])
def test_movement_of_every_width(dtype):
    array = numbers((3, 17), dtype)
    x = mo.array(array)
    check(mo.concat([x.T, x.T], 1), np.concatenate([array.T, array.T], 1))
    check(mo.pad(mo.flip(x, 1), 1, "reflect"), np.pad(np.flip(array, 1), 1, "reflect"))
    check(mo.roll(x, 5).reshape(17, 3), np.roll(array, 5).reshape(17, 3))


# ------------------------------------------------------------------------------------------ chains


def _factors(size: int, draw: Callable[..., Any]) -> tuple[int, ...]:
    """A shape of so many elements."""
    shape = []
    while size > 1 and len(shape) < 3:
        shape.append(draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0])))
        size //= shape[-1]
    return (*shape, size)


def _step(x: Any, y: np.ndarray, kind: str, draw: Callable[..., Any]) -> tuple[Any, np.ndarray]:
    """One movement of a Var and of an array."""
    rank, shape = y.ndim, y.shape
    if kind == "reshape":
        target = _factors(y.size, draw) if y.size else (*shape, 1)
        return x.reshape(target), y.reshape(target)
    if kind == "permute":
        order = draw(st.permutations(range(rank)))
        return x.permute(order), y.transpose(order)
    if kind == "expand":
        target = (draw(st.integers(1, 3)), *shape)
        return x.expand(target), np.broadcast_to(y, target)
    if not rank:
        return x, y
    axis = draw(st.integers(0, rank - 1))
    if kind == "flip":
        return x.flip(axis), np.flip(y, axis)
    if kind == "roll":
        by = draw(st.integers(-3, 3))
        return mo.roll(x, by, axis), np.roll(y, by, axis)
    if kind == "slice":
        start, stop = draw(st.integers(-4, 4)), draw(st.integers(-3, 9))
        key = (*[slice(None)] * axis, slice(start, stop, draw(st.sampled_from([1, 2, -1, -3]))))
        return x[key], y[key]
    width = [(0, 0)] * rank
    width[axis] = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    if kind == "concat":
        return mo.concat([x, x.flip(axis)], axis), np.concatenate([y, np.flip(y, axis)], axis)
    modes = ["constant", "edge", "wrap"] if shape[axis] else ["constant"]
    mode = draw(st.sampled_from(modes if all(shape) else ["constant"]))
    return mo.pad(x, width, mode), np.pad(y, width, mode)


KINDS = ["reshape", "permute", "flip", "slice", "pad", "expand", "roll", "concat"]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 17]), max_size=3),
    kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=8),
    data=st.data(),
)
def test_chains_of_movements(shape, kinds, data):
    y = numbers(tuple(shape)) + 1
    x = mo.array(y)
    for kind in kinds:
        if y.size <= 500:
            x, y = _step(x, y, kind, data.draw)
    assert x.shape == y.shape
    np.testing.assert_array_equal(python_value(x) if x._node.storage is None else x.numpy(), y)
    np.testing.assert_array_equal(x.numpy(), y)


def test_pad_takes_torchs_names_of_modes() -> None:
    x = mo.array(numbers((2, 3)))
    check(mo.pad(x, 2, "replicate"), np.pad(numbers((2, 3)), 2, "edge"))
    check(mo.pad(x, 2, "circular"), np.pad(numbers((2, 3)), 2, "wrap"))


DIMS: dict[str, Callable[..., Any]] = {
    "append": lambda f, x, **where: f(x, x, **where),
    "array_split": lambda f, x, **where: f(x, 2, **where),
    "chunk": lambda f, x, **where: f(x, 2, **where),
    "concat": lambda f, x, **where: f([x, x], **where),
    "diff": lambda f, x, **where: f(x, **where),
    "expand_dims": lambda f, x, **where: f(x, **where),
    "flip": lambda f, x, **where: f(x, **where),
    "index_select": lambda f, x, **where: f(x, index=np.array([1, 0]), **where),
    "repeat": lambda f, x, **where: f(x, 2, **where),
    "repeat_interleave": lambda f, x, **where: f(x, 2, **where),
    "roll": lambda f, x, **where: f(x, 1, **where),
    "split": lambda f, x, **where: f(x, 2, **where),
    "squeeze": lambda f, x, **where: f(x[:, :1], **where),
    "stack": lambda f, x, **where: f([x, x], **where),
    "take": lambda f, x, **where: f(x, np.array([1, 0]), **where),
    "unbind": lambda f, x, **where: f(x, **where),
    "unstack": lambda f, x, **where: f(x, **where),
    "vecdot": lambda f, x, **where: f(x, x, **where),
}


@pytest.mark.parametrize("name", DIMS)
def test_an_axis_is_also_called_dim(name: str) -> None:
    """`mo.cat([x, y], dim=1)`, as every user of torch writes it, was a TypeError."""
    x, function, call = mo.array(numbers((4, 4))), getattr(mo, name), DIMS[name]
    found = [call(function, x, **{word: 1}) for word in ("axis", "dim")]
    for a, b in zip(*(f if isinstance(f, list | tuple) else [f] for f in found)):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(TypeError, match=r"axis is another name of dim|dim is another name of axis"):
        call(function, x, axis=1, dim=1)
