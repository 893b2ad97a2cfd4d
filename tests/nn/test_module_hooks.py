"""Hooks before and after a module's forward and backward, as torch's."""

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


# ------------------------------------------------------------------------------- of gradients


def shown(value: Any) -> Any:
    """Gradients, in tuples, as lists of numbers."""
    if isinstance(value, tuple):
        return tuple(map(shown, value))
    return None if value is None else value.detach().numpy().round(4).tolist()


def layers(framework: Any) -> dict[str, Any]:
    """Modules of several arguments and results, by either framework."""

    class Two(framework.Module):
        def forward(self, a: Any, b: Any, by: float = 1.0) -> Any:
            return a * b * by, a + 1, b * 2

    class Same(framework.Module):
        def forward(self, a: Any) -> Any:
            return a

    return {"two": Two(), "same": Same(), "sigmoid": framework.Sigmoid()}


def test_backward_hooks_see_and_replace_as_torchs() -> None:
    torch = pytest.importorskip("torch")

    def run(make: Any, made: dict[str, Any]) -> list[Any]:
        seen: list[Any] = []
        two, same, sigmoid = made["two"], made["same"], made["sigmoid"]
        for module in made.values():
            module.register_full_backward_hook(
                lambda m, given, found: seen.append(
                    (type(m).__name__, shown(given), shown(found), found[0] is None)
                )
            )
        two.register_full_backward_hook(lambda m, given, found: (given[0] * 3, *given[1:]))
        two.register_full_backward_hook(
            lambda m, given, found: (given[0] + 1, *given[1:]), prepend=True
        )
        same.register_full_backward_pre_hook(lambda m, found: (found[0] * 5,))
        sigmoid.register_full_backward_pre_hook(lambda m, found: seen.append(shown(found)))
        for needs in ((True, True), (True, False), (False, True)):
            a, b = make([1.0, 2.0], needs[0]), make([3.0, 4.0], needs[1])
            product, plus, twice = two(a, b, by=2.0)
            del twice  # has no gradient
            loss = (sigmoid(same(product)) + plus * plus).sum()
            loss.backward(retain_graph=True)
            loss.backward()
            seen.append([shown(v.grad) for v in (a, b)])
        return seen

    def of_torch(values: Any, needs: bool) -> Any:
        return torch.tensor(values, requires_grad=needs)

    def of_ours(values: Any, needs: bool) -> Any:
        x = mo.array(np.array(values, np.float32))
        x.requires_grad = needs
        return x

    assert run(of_ours, layers(nn)) == run(of_torch, layers(torch.nn))


def test_a_backward_hook_of_a_module_whose_arguments_require_no_gradient() -> None:
    torch, ours, theirs = pair()

    def run(layer: Any, x: Any) -> Any:
        seen: list[Any] = []
        layer.register_full_backward_hook(
            lambda m, given, found: seen.append((given, shown(found)))
        )
        layer.register_full_backward_pre_hook(lambda m, found: (found[0] * 2,))
        layer(x).sum().backward()
        return seen, layer.weight.grad.numpy().tolist()

    with pytest.warns(UserWarning, match="no inputs require gradients"):
        expected = run(theirs, torch.tensor(X))
    assert run(ours, mo.array(X)) == expected


@pytest.mark.parametrize("jitted", [False, True])
def test_backward_hooks_of_a_training_are_those_of_every_step(jitted: bool) -> None:
    """A step that is like an earlier one does not pass over them; a jitted one replays them."""

    def trained(scale: float, hooked: bool) -> Any:
        mo.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            loss = mo.square(net(x)).mean()
            optimizer.step(loss)
            return loss

        run = mo.jit(step) if jitted else step
        run(mo.array(X))
        if hooked:
            handle = net[1].register_full_backward_hook(lambda m, given, _: (given[0] * scale,))
        for _ in range(3):
            run(mo.array(X))
        if hooked:
            handle.remove()
        run(mo.array(X))
        return [v.numpy() for v in net.state_dict().values()]

    plain = trained(0.0, False)
    for same, scale in ((True, 1.0), (False, 0.0)):
        found = trained(scale, True)
        assert all(map(np.array_equal, plain, found)) == same


def test_what_a_backward_hook_may_return() -> None:
    layer = nn.Linear(3, 2)
    x = mo.array(X)
    x.requires_grad = True
    for answer, text in ((x, "got Parameter|got Var"), ((None, None), "got 2 values")):
        with layer.register_full_backward_hook(lambda m, given, found, answer=answer: answer):
            with pytest.raises(ValueError, match=f"tuple of 1 gradients, ({text})"):
                layer(x).sum().backward()
    with layer.register_full_backward_hook(lambda m, given, found: (given[0].sum(0),)):
        with pytest.raises(mo.errors.ShapeError, match="BackwardHook: the gradient of an argument"):
            layer(x).sum().backward()
    with mo.no_grad(), layer.register_full_backward_hook(lambda m, given, found: 1 / 0):
        assert not layer(x).requires_grad
