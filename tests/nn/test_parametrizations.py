"""Parameters computed from others: weight norm, spectral norm, and what a user writes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn.utils import parametrizations, parametrize

torch = pytest.importorskip("torch")
THEIRS = torch.nn.utils.parametrizations

LAYERS: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "Linear": ((5, 3), (4, 5)),
    "Conv2d": ((2, 3, 3), (2, 2, 5, 6)),
    "ConvTranspose1d": ((2, 3, 3), (2, 2, 5)),
}


def pair(layer: str, norm: str, **options: Any) -> tuple[Any, Any, np.ndarray]:
    """A layer here and in torch, of equal state, and an input."""
    arguments, shape = LAYERS[layer]
    theirs = getattr(THEIRS, norm)(getattr(torch.nn, layer)(*arguments), **options)
    ours = getattr(parametrizations, norm)(getattr(nn, layer)(*arguments), **options)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_same_steps(ours: Any, theirs: Any, x: np.ndarray, steps: int = 3) -> None:
    """Outputs, gradients and states agree over some steps of training, and in inference."""
    optimizer = nn.optim.SGD(ours.parameters(), lr=0.1)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(steps):
        y, z = ours(mo.array(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=2e-5, atol=2e-6)
        optimizer.step((y * y).mean())
        reference.zero_grad()
        (z * z).mean().backward()
        reference.step()
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-4, atol=1e-5, err_msg=key
        )
    y, z = ours.eval()(mo.array(x)), theirs.eval()(torch.tensor(x))
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_trains_as_in_torch(name: str, dim: int | None) -> None:
    assert_same_steps(*pair(name, "weight_norm", dim=dim))


@pytest.mark.parametrize("name, options", [
    ("Linear", {}), ("Linear", {"name": "bias"}), ("Conv2d", {"n_power_iterations": 3}),
    ("Conv2d", {"dim": 1}), ("ConvTranspose1d", {}),
], ids=str)  # fmt: skip
def test_spectral_norm_trains_as_in_torch(name: str, options: dict[str, Any]) -> None:
    assert_same_steps(*pair(name, "spectral_norm", **options))


def test_a_spectral_norm_bounds_the_largest_singular_value() -> None:
    layer = nn.utils.spectral_norm(nn.Linear(30, 20), n_power_iterations=50)
    assert np.linalg.norm(layer.weight.numpy(), 2) == pytest.approx(1, abs=1e-3)
    assert mo.nn.utils.remove_spectral_norm(layer) is layer
    assert list(layer.state_dict()) == ["bias", "weight"]
    assert isinstance(layer.weight, nn.Parameter)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_a_jitted_step_is_the_step_without(norm: str) -> None:
    first, _, x = pair("Linear", norm)
    second = copy.deepcopy(first)
    results = []
    for net, wrap in ((first, lambda f: f), (second, mo.jit)):
        optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        @wrap
        def step(x: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            loss = (net(x) ** 2).mean()
            optimizer.step(loss)
            return loss

        results.append([step(mo.array(x)).item() for _ in range(4)])
        results.append([v.numpy().tolist() for v in net.state_dict().values()])
    assert results[:2] == results[2:]


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_a_state_dict_may_have_the_names_of_older_versions(norm: str) -> None:
    old = getattr(torch.nn.utils, norm)(torch.nn.Linear(5, 3))
    x = np.ones((2, 5), np.float32)
    old(torch.tensor(x))
    net = nn.Sequential(getattr(nn.utils, norm)(nn.Linear(5, 3)))
    state = {f"0.{key}": value for key, value in old.state_dict().items()}
    net.load_state_dict(state)
    assert "0.bias" in state and len(state) == len(old.state_dict())  # the given dict stays
    want = old.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(net.eval()(mo.array(x)).numpy(), want, rtol=1e-5, atol=1e-6)


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return mo.triu(x) + mo.triu(x, 1).T


class Doubled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2

    def right_inverse(self, x: Any) -> Any:
        return x / 2


class Cut(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[:1]


def test_parametrizations_of_ones_own_are_chained_removed_and_checked() -> None:
    layer = nn.Linear(3, 3)
    start = layer.weight.numpy()
    parametrize.register_parametrization(layer, "weight", Doubled())
    np.testing.assert_array_equal(layer.weight.numpy(), start)
    np.testing.assert_array_equal(layer.parametrizations.weight.original.numpy(), start / 2)
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    weight = layer.weight.numpy()
    np.testing.assert_array_equal(weight, np.triu(start) + np.triu(start, 1).T)
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    with pytest.raises(TypeError, match=r"Linear\.weight is computed: write to parametrizations"):
        layer.weight = nn.Parameter(mo.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"is f32\[3,3\] and would be f32\[1,3\]"):
        parametrize.register_parametrization(layer, "weight", Cut())
    with pytest.raises(ValueError, match="has no parameter or buffer 'wait'"):
        parametrize.register_parametrization(layer, "wait", Cut())
    again = copy.deepcopy(layer)
    np.testing.assert_array_equal(again.weight.numpy(), weight)
    parametrize.remove_parametrizations(layer, "weight")
    np.testing.assert_array_equal(layer.weight.numpy(), weight)
    parametrize.remove_parametrizations(again, "weight", leave_parametrized=False)
    np.testing.assert_array_equal(again.weight.numpy(), start / 2)
    assert list(again.state_dict()) == ["bias", "weight"]
    with pytest.raises(ValueError, match="'weight' has no parametrization"):
        parametrize.remove_parametrizations(again, "weight")
