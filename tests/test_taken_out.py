"""Sums of gradients without the factors that are constant along them: the same in one pass."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.graph import Reindex, ReindexReduce, toposort
from metaop.taken_out import sum_apart


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sums_waiting(gradient: mo.Var, size: int) -> int:
    """The longest chain of sums over so many elements, each of which needs the one before."""
    depth: dict = {}
    for node in toposort([gradient._node]):
        own = isinstance(node, ReindexReduce) and node.inputs and node.inputs[0].size >= size
        depth[node] = max((depth[i] for i in node.inputs), default=0) + bool(own)
    return depth[gradient._node]


def channel_gradient(x: mo.Var, upstream: mo.Var) -> mo.Var:
    y = nn.functional.batch_norm(x, None, None, training=True)
    return mo.grad((nn.functional.relu(y) * upstream).sum(), x)


def by_formula(x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """Ioffe and Szegedy's gradient of relu(batch_norm(x)), in float64."""
    x, g = x.astype(np.float64), upstream.astype(np.float64)
    axes = (0, 2, 3)
    deviation = np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    normal = (x - x.mean(axes, keepdims=True)) / deviation
    g = g * (normal > 0)
    shared = g.mean(axes, keepdims=True) + normal * (g * normal).mean(axes, keepdims=True)
    return (g - shared) / deviation


def test_the_sums_of_batch_norms_gradient_do_not_wait_for_each_other():
    x, upstream = mo.array(f32(4, 3, 5, 6)).requires_grad_(), mo.array(f32(4, 3, 5, 6, seed=1))
    y = nn.functional.relu(nn.functional.batch_norm(x, None, None, training=True))
    mo.sync()
    gradient = mo.grad((y * upstream).sum(), x)
    assert sums_waiting(gradient, x.size) == 3  # mean, variance, and all that the gradient needs


@pytest.mark.parametrize("offset", [0, 1000])
def test_batch_norms_gradient_is_that_of_the_formula(offset: float):
    """Also far from zero, where the sum of x and its mean's would cancel."""
    x, upstream = f32(16, 3, 9, 9) + np.float32(offset), f32(16, 3, 9, 9, seed=1)
    got = channel_gradient(mo.array(x).requires_grad_(), mo.array(upstream)).numpy()
    want = by_formula(x, upstream)
    assert np.abs(got - want).max() < 3e-6 * max(1, offset / 10)


def test_sixteen_bits_and_factors_that_wait_for_nothing_are_left_alone():
    for dtype in ("float16", "float32"):
        row = mo.array(f32(1, 8)).astype(dtype)
        repeated = mo.broadcast_to(row, (5, 8))
        g = mo.array(f32(5, 8)).astype(dtype) * repeated
        node = repeated._node
        assert isinstance(node, Reindex)
        assert sum_apart(node, g._node) is None


def test_a_sum_of_products_is_taken_apart_only_as_a_whole():
    """With one term that has no factor there is a sum over all terms, and nothing is gained."""
    x = mo.array(f32(5, 8))
    row = mo.broadcast_to(x.sum(0, keepdims=True), (5, 8))
    product = x * row
    assert sum_apart(row._node, product._node) is not None
    assert sum_apart(row._node, (product + x)._node) is None
    assert sum_apart(row._node, (-(product + product))._node) is not None


def test_a_factor_may_have_more_axes_than_the_sum():
    """The gradient of a bias that is one number asked for axis 0 of (): IndexError."""
    x, w, c = (np.arange(4.0) + k for k in range(3))
    bias = mo.array(np.array(0.3), requires_grad=True)
    loss = ((mo.array(x) + bias) * (mo.array(w) * mo.array(c).sum(keepdims=True))).sum()
    assert mo.grad(loss, bias).item() == (w * c.sum()).sum()
