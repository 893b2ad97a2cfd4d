"""Hooks before and after a module's forward, as torch's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def pair() -> tuple[Any, Any, Any]:
    """Torch, and a Linear layer of either framework with the same weights."""
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    return torch, ours, theirs


def test_hooks_run_and_replace_as_torchs() -> None:
    torch, ours, theirs = pair()

    def run(layer: Any, x: Any) -> Any:
        seen: list[Any] = []
        layer.register_forward_pre_hook(lambda m, args: seen.append([a.tolist() for a in args]))
        layer.register_forward_pre_hook(lambda m, args: args[0] + 1)
        layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,), prepend=True)
        layer.register_forward_pre_hook(lambda m, a, k: (a, {"input": k["x"]} if k else k),
                                        with_kwargs=True)  # fmt: skip
        layer.register_forward_hook(lambda m, args, y: seen.append((m is layer, args[0].tolist())))
        layer.register_forward_hook(lambda m, args, y: y * 3)
        layer.register_forward_hook(lambda m, a, k, y: y + len(k), with_kwargs=True, prepend=True)
        y = layer(x)
        y.sum().backward()
        return seen, y.detach().numpy(), layer.weight.grad.numpy()

    ours_seen, ours_y, ours_grad = run(ours, mo.array(X))
    seen, y, grad = run(theirs, torch.tensor(X))
    assert ours_seen == seen
    np.testing.assert_allclose(ours_y, y, rtol=1e-6)
    np.testing.assert_allclose(ours_grad, grad, rtol=1e-6)


def test_a_hook_may_change_keyword_arguments() -> None:
    class Scale(nn.Module):
        def forward(self, x: Any, by: float = 1.0) -> Any:
            return x * by

    layer = Scale()
    layer.register_forward_pre_hook(lambda m, a, k: (a, {"by": k["by"] + 1}), with_kwargs=True)
    assert layer(mo.array([1.0]), by=2.0).tolist() == [3.0]
    with layer.register_forward_pre_hook(lambda m, a, k: 5, with_kwargs=True):
        with pytest.raises(TypeError, match=r"must return None or \(args, kwargs\), got int"):
            layer(mo.array([1.0]), by=2.0)
    assert layer(mo.array([1.0]), by=2.0).tolist() == [3.0]
    with pytest.raises(TypeError, match="must be a function, not int"):
        layer.register_forward_hook(1)


def test_a_removed_hook_is_not_called_and_a_copy_has_its_own() -> None:
    net = nn.Sequential(nn.ReLU())
    handle = net[0].register_forward_hook(lambda m, args, y: y + 1)
    other = copy.deepcopy(net)
    handle.remove()
    handle.remove()
    assert net(mo.array([1.0])).tolist() == [1.0]
    assert other(mo.array([1.0])).tolist() == [2.0]


def test_a_jitted_function_is_recorded_again_for_another_hook() -> None:
    layer = nn.ReLU()
    scale = [2.0]

    @mo.jit
    def step(x: Any) -> Any:
        return layer(x)

    x = mo.array([1.0])
    assert step(x).tolist() == [1.0]
    first = layer.register_forward_hook(lambda m, args, y: y * scale[0])
    assert step(x).tolist() == step(x).tolist() == [2.0]
    second = layer.register_forward_hook(lambda m, args, y: y + 5)
    assert step(x).tolist() == [7.0]
    scale[0] = 3.0
    assert step(x).tolist() == [8.0]
    first.remove()
    assert step(x).tolist() == [6.0]
    second.remove()
    assert step(x).tolist() == [1.0]


def test_a_method_of_the_users_named_forward_of_some_kind_is_the_users() -> None:
    """GoogLeNet of torchvision has a `_forward`, which was called with (args, kwargs)."""

    class Net(nn.Module):
        def _forward(self, x: Any) -> Any:
            return x + 1

        def forward(self, x: Any) -> Any:
            return self._forward(x)

    assert Net()(mo.array([1.0])).tolist() == [2.0]
