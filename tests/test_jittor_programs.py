"""Programs in the manner of Jittor's documentation, against plain loops.

Jittor's meta-operators are reindex, reindex_reduce, broadcast, reduce and element-wise operators;
its users write layers with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metaop as mo
from tests.helpers import python_value

RNG = np.random.default_rng(0)


def same(got: mo.Var, want: Any) -> None:
    np.testing.assert_allclose(python_value(got), want, rtol=1e-9, atol=1e-12)


# ----------------------------------------------------------------------------------------- matmul


def matmul(a: mo.Var, b: mo.Var) -> mo.Var:
    (n, m), k = a.shape, b.shape[-1]
    a = a.broadcast([n, m, k], dims=[2])
    b = b.broadcast([n, m, k], dims=[0])
    return (a * b).sum(dim=1)


def test_matmul_by_broadcast_multiply_sum() -> None:
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5))
    same(matmul(mo.array(a), mo.array(b)), a @ b)
    c = mo.array(a).broadcast(mo.zeros((3, 4, 5)), dims=[2]) * mo.array(b).broadcast((3, 4, 5), [0])
    same(c.reduce("add", dims=[1]), a @ b)


def test_its_gradient_and_its_one_kernel() -> None:
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5))
    x = mo.array(a, requires_grad=True)
    same(mo.grad(matmul(x, mo.array(b)).sum(), x), np.ones((3, 5)) @ b.T)
    found = mo.explain(matmul(mo.array(a).sync(), mo.array(b).sync())).kernels
    assert len([kernel for kernel in found if kernel.nodes]) == 1  # others only pack an operand


# ------------------------------------------------------------------------------------ convolution


def conv_nhwc(x: mo.Var, w: mo.Var) -> mo.Var:
    n, h, width, c = x.shape
    kh, kw, _, oc = w.shape
    shape = [n, h - kh + 1, width - kw + 1, kh, kw, c, oc]
    xx = x.reindex(shape, ["i0", "i1+i3", "i2+i4", "i5"])
    ww = w.broadcast(shape, dims=[0, 1, 2])
    return (xx * ww).sum([3, 4, 5])


def test_convolution_nhwc_by_reindex() -> None:
    x, w = RNG.normal(size=(2, 5, 6, 3)), RNG.normal(size=(3, 2, 3, 4))
    want = np.zeros((2, 3, 5, 4))
    for n, i, j, r, s, c, o in np.ndindex(2, 3, 5, 3, 2, 3, 4):
        want[n, i, j, o] += x[n, i + r, j + s, c] * w[r, s, c, o]
    same(conv_nhwc(mo.array(x), mo.array(w)), want)


# -------------------------------------------------------------------------- transposed convolution


def conv_transpose_stride_2(x: mo.Var, w: mo.Var) -> mo.Var:
    """Every output reads the inputs at (i1 - i3) / 2 where that is whole."""
    n, h, width, c = x.shape
    kh, kw, _, oc = w.shape
    oh, ow = (h - 1) * 2 + kh, (width - 1) * 2 + kw
    shape = [n, oh, ow, kh, kw, c, oc]
    overflow = ["(i1-i3)%2", "(i2-i4)%2"]
    xx = x.reindex(shape, ["i0", "(i1-i3)/2", "(i2-i4)/2", "i5"], 0.0, overflow)
    return (xx * w.broadcast(shape, dims=[0, 1, 2])).sum([3, 4, 5])


def test_transposed_convolution_of_stride_2_by_an_overflow_condition() -> None:
    x, w = RNG.normal(size=(2, 3, 4, 3)), RNG.normal(size=(3, 3, 3, 2))
    want = np.zeros((2, 7, 9, 2))
    for n, i, j, r, s, c, o in np.ndindex(2, 3, 4, 3, 3, 3, 2):
        want[n, 2 * i + r, 2 * j + s, o] += x[n, i, j, c] * w[r, s, c, o]
    same(conv_transpose_stride_2(mo.array(x), mo.array(w)), want)


def test_the_gradient_of_the_transposed_convolution_is_the_convolution() -> None:
    x, w = RNG.normal(size=(1, 3, 3, 2)), RNG.normal(size=(2, 2, 2, 2))
    v = mo.array(x, requires_grad=True)
    y = conv_transpose_stride_2(v, mo.array(w))
    weights = RNG.normal(size=y.shape)
    want = np.zeros_like(x)
    for n, i, j, r, s, c, o in np.ndindex(1, 3, 3, 2, 2, 2, 2):
        want[n, i, j, c] += weights[n, 2 * i + r, 2 * j + s, o] * w[r, s, c, o]
    same(mo.grad((y * weights).sum(), v), want)


# ----------------------------------------------------------------------------------- ragged pooling


@pytest.mark.parametrize("op, combine, start", [
    ("add", np.add, 0.0), ("maximum", np.maximum, -np.inf), ("minimum", np.minimum, np.inf),
    ("multiply", np.multiply, 1.0),
])  # fmt: skip
def test_block_pooling_of_a_ragged_array_by_reindex_reduce(op: str, combine: Any, start: float):
    """Blocks of 3 × 2 of a 7 × 5 array: the last ones are cut off."""
    x = RNG.normal(size=(2, 7, 5))
    got = mo.array(x).reindex_reduce(op, [2, 3, 3], ["i0", "i1/3", "i2/2"])
    want = np.full((2, 3, 3), start)
    for n, i, j in np.ndindex(2, 7, 5):
        want[n, i // 3, j // 2] = combine(want[n, i // 3, j // 2], x[n, i, j])
    same(got, want)


def test_segments_of_a_ragged_batch_by_an_extra_var() -> None:
    rows, segment = RNG.normal(size=(6, 3)), np.array([0, 0, 2, 2, 2, 1])
    got = mo.array(rows).reindex_reduce(
        "add", [3, 3], ["@e0(i0)", "i1"], extras=[mo.array(segment)]
    )
    want = np.zeros((3, 3))
    np.add.at(want, segment, rows)
    same(got, want)


# --------------------------------------------------------------------------------- crop and resize


def crop_and_resize(image: mo.Var, box: Any, size: tuple[int, int], how: str) -> mo.Var:
    """image: [n, h, w, c]; box: (top, left, height, width); size: of the result."""
    n, h, w, c = image.shape
    top, left, box_height, box_width = box
    nid, hid, wid, cid = mo.index((n, *size, c))
    y = top + hid.astype(image.dtype) * ((box_height - 1) / (size[0] - 1))
    x = left + wid.astype(image.dtype) * ((box_width - 1) / (size[1] - 1))
    if how == "nearest":
        return image.reindex([nid, mo.round(y), mo.round(x), cid])
    fy, fx = mo.floor(y), mo.floor(x)
    cy, cx = mo.minimum(fy + 1, h - 1), mo.minimum(fx + 1, w - 1)
    dy, dx = y - fy, x - fx
    a = image.reindex([nid, fy, fx, cid])
    b = image.reindex([nid, cy, fx, cid])
    d = image.reindex([nid, fy, cx, cid])
    e = image.reindex([nid, cy, cx, cid])
    return (a * (1 - dy) + b * dy) * (1 - dx) + (d * (1 - dy) + e * dy) * dx


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_crop_and_resize_with_index_vars(how: str) -> None:
    image, box, size = RNG.normal(size=(2, 8, 9, 3)), (1.0, 2.0, 6.0, 5.0), (7, 4)
    want = np.zeros((2, *size, 3))
    for n, i, j, c in np.ndindex(2, *size, 3):
        y, x = 1.0 + i * 5 / 6, 2.0 + j * 4 / 3
        if how == "nearest":
            want[n, i, j, c] = image[n, round(y), round(x), c]
            continue
        fy, fx = int(y), int(x)
        cy, cx = min(fy + 1, 7), min(fx + 1, 8)
        upper = image[n, fy, fx, c] * (1 - (x - fx)) + image[n, fy, cx, c] * (x - fx)
        lower = image[n, cy, fx, c] * (1 - (x - fx)) + image[n, cy, cx, c] * (x - fx)
        want[n, i, j, c] = upper * (1 - (y - fy)) + lower * (y - fy)
    v = mo.array(image, requires_grad=True)
    got = crop_and_resize(v, box, size, how)
    same(got, want)
    weights = RNG.normal(size=want.shape)
    slope = mo.grad((got * weights).sum(), v)
    h = 1e-6
    moved = image.copy()
    moved[1, 4, 5, 2] += h
    change = crop_and_resize(mo.array(moved), box, size, how)
    wanted = ((python_value(change) - want) * weights).sum() / h
    assert python_value(slope)[1, 4, 5, 2] == pytest.approx(wanted, abs=1e-6)


def test_outside_the_image_reads_the_overflow_value() -> None:
    image = mo.array(np.arange(4.0).reshape(2, 2))
    i, j = mo.index((3, 2))
    same(image.reindex([i, j], overflow_value=-1.0), [[0, 1], [2, 3], [-1, -1]])
