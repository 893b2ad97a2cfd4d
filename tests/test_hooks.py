"""Hooks on gradients, as torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn


def leaf(*numbers: float) -> mo.Var:
    return mo.array(np.array(numbers), requires_grad=True)


def test_a_hook_sees_the_whole_gradient_and_may_replace_it() -> None:
    torch = pytest.importorskip("torch")

    def run(x: Any, y_of: Any) -> Any:
        seen = []
        y = x * x
        y.register_hook(lambda g: seen.append(g.tolist()))  # None: it stays
        y.register_hook(lambda g: g * 10)
        y.register_hook(lambda g: seen.append(g.tolist()))
        x.register_hook(lambda g: g + 1)
        y_of(y).backward()
        return seen, x.grad.tolist()

    def loss(y: Any) -> Any:
        return (y * 3).sum() + y[0]

    ours = run(leaf(1.0, 2.0), loss)
    assert ours == run(torch.tensor([1.0, 2.0], requires_grad=True), loss)
    assert ours == ([[4.0, 3.0], [40.0, 30.0]], [81.0, 121.0])


def test_a_hook_counts_in_grad_and_in_its_derivative() -> None:
    x = leaf(2.0)
    y = x**3
    y.register_hook(lambda g: g * x)
    g = mo.grad(y.sum(), x)  # 3 x**2 * x
    assert g.tolist() == [24.0]
    assert mo.grad(g.sum(), x).tolist() == [36.0]


def test_a_removed_hook_is_not_called() -> None:
    x = leaf(1.0)
    handle = x.register_hook(lambda g: g * 0)
    handle.remove()
    handle.remove()
    assert mo.grad((2 * x).sum(), x).tolist() == [2.0]


def test_a_hook_of_a_parameter_stays_through_updates_and_retraces() -> None:
    layer = nn.Linear(2, 1)
    opt = nn.optim.SGD(layer.parameters(), lr=1.0)
    x = mo.array(np.ones((3, 2), np.float32))

    @mo.jit
    def step(x: mo.Var) -> mo.Var:
        loss = layer(x).sum()
        opt.step(loss)
        return loss

    def change() -> float:
        before = layer.bias.numpy().item()
        step(x)
        return layer.bias.numpy().item() - before

    assert change() == pytest.approx(-3)
    handle = layer.bias.register_hook(lambda g: g * 2)
    assert change() == pytest.approx(-6) and change() == pytest.approx(-6)
    handle.remove()
    assert change() == pytest.approx(-3)


def test_wrong_hooks_are_named() -> None:
    with pytest.raises(mo.DTypeError, match=r"f64\[1\].* requires no gradient"):
        mo.array(np.ones(1)).register_hook(print)
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: g.sum())
    with pytest.raises(mo.ShapeError, match=r"like the gradient, f64\[2\].*, not f64\[\]"):
        x.sum().backward()
    with pytest.raises(mo.JitError, match="call it outside"):
        mo.jit(lambda y: x.register_hook(print) and y)(mo.zeros(1))
