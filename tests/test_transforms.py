"""Transformations of functions: vmap, products with the Jacobian, Hessians, checks of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.graph import toposort
from tests.helpers import python_value

RNG = np.random.default_rng(0)
X = RNG.normal(size=4)
A = RNG.normal(size=(5, 4))


def same(got: mo.Var, want: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(python_value(got), want, rtol=rtol, atol=1e-12)


def vector_function(x: mo.Var) -> mo.Var:
    return mo.tanh(mo.array(A) @ x) * x.sum()


def vector_jacobian(x: np.ndarray) -> np.ndarray:
    y = np.tanh(A @ x)
    return (1 - y**2)[:, None] * A * x.sum() + y[:, None]


def scalar_function(x: mo.Var) -> mo.Var:
    return (mo.sin(x) * x[::-1] ** 2).sum()


def numeric_hessian(x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    def slope(v: np.ndarray) -> np.ndarray:
        return np.cos(v) * v[::-1] ** 2 + 2 * v * np.sin(v[::-1])

    return np.stack([(slope(x + h * e) - slope(x - h * e)) / (2 * h) for e in np.eye(x.size)])


# ------------------------------------------------------------------------------------ derivatives


def test_jacobian_is_the_matrix_of_derivatives() -> None:
    same(mo.jacobian(vector_function)(mo.array(X)), vector_jacobian(X))


def test_vjp_and_jvp_are_products_with_the_jacobian() -> None:
    weights, direction = RNG.normal(size=5), RNG.normal(size=4)
    y, pullback = mo.vjp(vector_function, mo.array(X))
    same(y, np.tanh(A @ X) * X.sum())
    same(pullback(weights)[0], weights @ vector_jacobian(X))
    y, along = mo.jvp(vector_function, (mo.array(X),), (direction,))
    same(along, vector_jacobian(X) @ direction)


def test_hessian_and_hvp() -> None:
    direction = RNG.normal(size=4)
    want = numeric_hessian(X)
    same(mo.hessian(scalar_function)(mo.array(X)), want, 1e-7)
    same(mo.hvp(scalar_function, mo.array(X), direction), want @ direction, 1e-7)


def test_hvp_of_several_arguments_keeps_their_structure() -> None:
    a, b = RNG.normal(size=(2, 3))
    found = mo.hvp(lambda a, b: (a * a * b).sum(), (mo.array(a), mo.array(b)), (a, b))
    same(found[0], 2 * b * a + 2 * a * b)
    same(found[1], 2 * a * a)


def test_value_and_grad_of_nested_arguments() -> None:
    weights = {"w": mo.array(X), "b": mo.array(np.array(2.0))}

    def loss(p: dict[str, mo.Var], x: Any) -> Any:
        y = (p["w"] * x).sum() * p["b"]
        return y, y * 2

    (value, twice), found = mo.value_and_grad(loss, has_aux=True)(weights, 3.0)
    same(value, 6 * X.sum())
    same(twice, 12 * X.sum())
    assert set(found) == {"w", "b"}
    same(found["w"], np.full(4, 6.0))
    same(found["b"], 3 * X.sum())


def test_gradients_pass_through_transformed_functions() -> None:
    x = mo.array(X, requires_grad=True)
    _, pullback = mo.vjp(lambda v: v**3, x)
    (slope,) = pullback(mo.ones_like(x))
    same(mo.grad(slope.sum(), x), 6 * X)


def test_a_jacobian_through_a_factorisation() -> None:
    m = RNG.normal(size=(3, 3)) + 3 * np.eye(3)
    inverse = np.linalg.inv(m)
    want = -np.einsum("ia,bj->ijab", inverse, inverse)
    same(mo.jacobian(mo.linalg.inv)(mo.array(m)), want)


# ------------------------------------------------------------------------------------------- vmap


def test_vmap_is_a_loop_over_examples() -> None:
    xs, w = RNG.normal(size=(6, 4)), RNG.normal(size=(4, 3))
    got = mo.vmap(lambda x, w: mo.tanh(x @ w).max(), in_axes=(0, None))(xs, w)
    same(got, np.tanh(xs @ w).max(1))


@pytest.mark.parametrize("in_axis, out_axis", [(0, 0), (1, 0), (2, 1), (-1, -1), (0, 2)])
def test_vmap_maps_any_axis_to_any(in_axis: int, out_axis: int) -> None:
    x = RNG.normal(size=(2, 3, 4))
    got = mo.vmap(lambda v: v.T * 2, in_axes=in_axis, out_axes=out_axis)(x)
    want = np.stack([v.T * 2 for v in np.moveaxis(x, in_axis, 0)])
    same(got, np.moveaxis(want, 0, out_axis))


FUNCTIONS = {
    "reductions": lambda v: v.sum(0) + v.max(0) + v.prod(0),
    "gather": lambda v: v[mo.argsort(v[:, 0])],
    "scatter": lambda v: mo.scatter_add(v, 0, mo.argsort(v, 0), v * 2),
    "assignment": lambda v: _assigned(v),
    "pad and concat": lambda v: mo.concat([mo.pad(v, 1), mo.pad(v * 2, 1, "reflect")]),
    "scan": lambda v: mo.cumsum(v, 0),
    "sort": lambda v: mo.sort(v, 0),
    "inverse": lambda v: mo.linalg.inv(v[:, :3] + 4 * mo.eye(3, dtype="float64")),
    "convolution": lambda v: mo.conv1d(v[None], mo.array(KERNEL)),
    "constant": lambda v: mo.eye(3, dtype="float64"),
}
KERNEL = RNG.normal(size=(2, 3, 2))


def _assigned(v: mo.Var) -> mo.Var:
    v = v + 0
    v[1:, ::2] = 7.0
    return v


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_of_every_kind_of_node(name: str) -> None:
    function = FUNCTIONS[name]
    batch = RNG.normal(size=(4, 3, 5))
    got = mo.vmap(function)(batch)
    same(got, np.stack([python_value(function(mo.array(v)) + 0) for v in batch]))


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "constant"])
def test_gradients_through_vmap_are_those_of_a_loop(name: str) -> None:
    function = FUNCTIONS[name]
    batch = RNG.normal(size=(2, 3, 5))
    x = mo.array(batch, requires_grad=True)
    mapped = mo.vmap(function)(x)
    weights = RNG.normal(size=mapped.shape)
    got = mo.grad((mapped * weights).sum(), x)
    for k, v in enumerate(batch):
        one = mo.array(v, requires_grad=True)
        same(got[k], python_value(mo.grad((function(one) * weights[k]).sum(), one)))


def test_gradients_of_each_example() -> None:
    xs, labels, w = RNG.normal(size=(6, 4)), RNG.integers(0, 3, 6), RNG.normal(size=(4, 3))

    def loss(w: mo.Var, x: mo.Var, label: mo.Var) -> mo.Var:
        return nn.functional.cross_entropy((x @ w)[None], label[None])

    slope = mo.vmap(lambda x, y: mo.value_and_grad(loss)(mo.array(w), x, y)[1])
    probability = np.exp(xs @ w) / np.exp(xs @ w).sum(1, keepdims=True)
    want = np.einsum("ni,nj->nij", xs, probability - np.eye(3)[labels])
    same(slope(xs, labels), want)


def test_vmaps_nest() -> None:
    x = RNG.normal(size=(2, 3, 4))
    got = mo.vmap(mo.vmap(lambda a: mo.sort(a)[:2]), in_axes=1, out_axes=2)(x)
    want = np.moveaxis(np.sort(x, -1)[..., :2].transpose(1, 0, 2), 0, 2)
    same(got, want)


def test_vmap_fuses_like_a_function_of_batches() -> None:
    x = mo.array(RNG.normal(size=(64, 8)).astype(np.float32)).sync()
    mapped = mo.vmap(lambda v: (v * v).sum())(x)
    assert len(mo.explain(mapped).kernels) == 1


def test_vmap_refuses_what_cannot_be_mapped() -> None:
    x = RNG.normal(size=(3, 2))
    with pytest.raises(mo.JitError, match="recorded once for all values"):
        mo.vmap(lambda v: v if v.sum() > 0 else -v)(x)
    with pytest.raises(mo.JitError, match="random numbers"):
        mo.vmap(lambda v: v + mo.random.normal((2,)))(x)
    with pytest.raises(mo.ShapeError, match=r"one extent, they have \[2, 3\]"):
        mo.vmap(lambda a, b: a + b)(x, x.T)
    with pytest.raises(mo.ShapeError, match="axis 5"):
        mo.vmap(lambda a: a, in_axes=5)(x)


def test_a_write_refused_by_vmap_is_undone() -> None:
    total = mo.array([0.0, 0.0])

    def accumulate(v: mo.Var) -> mo.Var:
        total.assign(v.astype("float32"))
        return v

    with pytest.raises(mo.JitError):
        mo.vmap(accumulate)(RNG.normal(size=(3, 2)))
    assert total.numpy().tolist() == [0.0, 0.0]


def test_nothing_of_a_recorded_function_is_left_pending() -> None:
    """The results on placeholders stayed alive, and `mo.sync()` raised their error."""
    x = mo.array(RNG.normal(size=(3, 3, 5)))
    y = mo.vmap(_assigned)(x)
    last, ys = mo.scan(lambda c, v: (_assigned(c + v), v), x[0], x)
    mo.sync()
    assert all(v._node.storage is not None for v in (y, last, ys))


# ------------------------------------------------------------------------------------- checkpoint


def deep(x: mo.Var, w: mo.Var) -> mo.Var:
    for _ in range(3):
        x = mo.tanh(x @ w)
    return x


def test_checkpoint_changes_no_value_and_no_gradient() -> None:
    x, w = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 5))
    vx, vw = mo.array(x, requires_grad=True), mo.array(w, requires_grad=True)
    plain = deep(vx, vw)
    kept = mo.checkpoint(lambda v: deep(v, vw), vx)  # w is read from outside
    same(kept, python_value(plain))
    weights = RNG.normal(size=(4, 5))
    for got, want in zip(
        mo.grad((kept * weights).sum(), [vx, vw]), mo.grad((plain * weights).sum(), [vx, vw])
    ):
        same(got, python_value(want))
    assert mo.gradcheck(lambda a, b: mo.checkpoint(deep, a, b), (x, w), order=2)


def test_a_checkpoint_of_integers_and_nested_results() -> None:
    x, k = mo.array(X, requires_grad=True), np.array([2, 0])

    def pick(v: mo.Var, k: mo.Var, scale: float) -> Any:
        return {"a": v[k] * scale, "b": (k + 1, v.sum())}

    found = mo.checkpoint(pick, x, k, 3.0)
    assert found["b"][0].numpy().tolist() == [3, 1]
    same(mo.grad(found["a"].sum() + found["b"][1], x), np.array([4.0, 1.0, 4.0, 1.0]))


def test_a_checkpoint_is_computed_again_and_keeps_nothing() -> None:
    x = mo.array(RNG.normal(size=(4, 5)), requires_grad=True).sync()
    w = mo.array(RNG.normal(size=(5, 5))).sync()
    plain, kept = deep(x, w).sum(), mo.checkpoint(deep, x, w).sum()
    forward = len(mo.explain(plain).kernels)
    both = len(mo.explain(plain, mo.grad(plain, x)).kernels)
    assert len(mo.explain(kept).kernels) == forward
    assert len(mo.explain(kept, mo.grad(kept, x)).kernels) > both
    middle = [n for n in toposort([kept._node]) if n.kind == "reindex_reduce"][:3]
    kept.item()
    assert all(n.storage is None for n in middle)


def test_backward_through_a_checkpoint_fills_grad() -> None:
    layer = nn.Linear(5, 5)
    x = mo.array(RNG.normal(size=(4, 5)).astype(np.float32))
    (layer(x) ** 2).sum().backward()
    want = layer.weight.grad.numpy()
    layer.weight.grad = None
    (mo.checkpoint(layer, x) ** 2).sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), want, rtol=1e-5)


# ------------------------------------------------------------------- gradients of a user's own


class Doubled(mo.Function):
    """x * w, whose gradient is twice the right one."""

    @staticmethod
    def forward(ctx: Any, x: mo.Var, w: mo.Var) -> mo.Var:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, g: mo.Var) -> Any:
        x, w = ctx.saved_tensors
        return 2 * g * w, 2 * g * x


def test_a_function_of_its_own_gradient_under_vmap_scan_and_checkpoint() -> None:
    xs, w = RNG.normal(size=(5, 3)), RNG.normal(size=3)
    for run in (
        lambda x, v: mo.vmap(Doubled.apply, in_axes=(0, None))(x, v).sum(),
        lambda x, v: mo.scan(lambda c, row: (c, Doubled.apply(row, v)), 0.0, x)[1].sum(),
        lambda x, v: mo.checkpoint(Doubled.apply, x, v + mo.zeros_like(x)).sum(),
    ):
        vx, vw = mo.array(xs, requires_grad=True), mo.array(w, requires_grad=True)
        y = run(vx, vw)
        gx, gw = mo.grad(y, [vx, vw])
        np.testing.assert_allclose(y.item(), (xs * w).sum())
        np.testing.assert_allclose(gx.numpy(), 2 * np.tile(w, (5, 1)))
        np.testing.assert_allclose(gw.numpy(), 2 * xs.sum(0))


# -------------------------------------------------------------------------------------- gradcheck


def test_gradcheck_accepts_right_gradients_to_second_order() -> None:
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 2))
    assert mo.gradcheck(lambda a, b: (a @ b, mo.sin(a)), (a, b), order=2)
    assert mo.gradcheck(lambda a, k: a * k, (a, np.array(3)))  # integers have none


def test_gradcheck_names_the_wrong_element() -> None:
    def wrong(a: mo.Var) -> mo.Var:
        return a * mo.where(a > 0, a, a.detach())

    a = np.array([1.0, -1.0])
    with pytest.raises(AssertionError, match=r"input 0 at \[1\]: gradient .*, central difference"):
        mo.gradcheck(wrong, a)
    assert mo.gradcheck(wrong, a, raise_exception=False) is False


@pytest.mark.parametrize(
    "derivative, expected",
    [
        (lambda f, x: mo.value_and_grad(f)(x)[1], [3, 12]),
        (lambda f, x: mo.vjp(f, x)[1](mo.array(1.0))[0], [3, 12]),
        (lambda f, x: mo.jvp(f, (x,), (x,))[1], 27),
        (lambda f, x: mo.jacobian(f)(x), [3, 12]),
        (lambda f, x: mo.hessian(f)(x), [[6, 0], [0, 12]]),
        (lambda f, x: mo.hvp(f, x, x), [6, 24]),
    ],
)
def test_no_grad_around_a_transformation_changes_nothing(derivative: Any, expected: Any) -> None:
    """Story: under no_grad, as in the backward of a Function, all of them were silently zero."""
    x = mo.array([1.0, 2.0])
    with mo.no_grad():
        found = derivative(lambda x: (x * x * x).sum(), x)
    assert found.tolist() == expected
