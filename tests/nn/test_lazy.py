"""Layers that learn their number of inputs: the plain layer, from an input or a state dict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn

# name -> arguments, the shape of an input
LAYERS: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "LazyLinear": ((4,), {}, (2, 3, 5)),
    "LazyConv1d": ((4, 3), {"padding": 1}, (2, 5, 7)),
    "LazyConv2d": ((6, 3), {"groups": 3, "bias": False}, (2, 9, 5, 6)),
    "LazyConv3d": ((2, (1, 2, 3)), {"stride": 2}, (1, 3, 4, 5, 6)),
    "LazyConvTranspose1d": ((4, 3), {"stride": 2}, (2, 5, 4)),
    "LazyConvTranspose2d": ((4, 3), {"groups": 2}, (1, 6, 3, 4)),
    "LazyConvTranspose3d": ((2, 2), {}, (1, 3, 2, 3, 2)),
    "LazyBatchNorm1d": ((), {}, (4, 5)),
    "LazyBatchNorm2d": ((), {"eps": 0.1, "affine": False}, (4, 3, 2, 2)),
    "LazyBatchNorm3d": ((), {"momentum": None}, (4, 3, 2, 2, 1)),
    "LazyInstanceNorm1d": ((), {}, (4, 3, 7)),
    "LazyInstanceNorm2d": ((), {"affine": False}, (4, 3, 5, 2)),
    "LazyInstanceNorm3d": ((), {"track_running_stats": False}, (2, 3, 5, 2, 2)),
}


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_a_lazy_layer_is_that_of_torch_after_an_input_and_after_a_state_dict(name: str) -> None:
    torch = pytest.importorskip("torch")
    args, options, shape = LAYERS[name]
    theirs = getattr(torch.nn, name)(*args, **options)
    x = numbers(shape)
    theirs(torch.tensor(x))
    seen, loaded = (getattr(nn, name)(*args, **options) for _ in range(2))
    seen(mo.array(x))
    loaded.load_state_dict(theirs.state_dict())
    for ours in (seen, loaded):
        assert type(ours) is getattr(nn, name.removeprefix("Lazy"))
        shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
        assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    np.testing.assert_allclose(
        loaded(mo.array(x)).numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=2e-5, atol=1e-5
    )


def test_a_network_of_lazy_layers_trains_after_its_first_input() -> None:
    net = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    x = mo.array(numbers((3, 2, 5, 5)))
    with pytest.raises(
        ValueError, match=r"LazyConv2d has no parameters yet.* call the network once"
    ):
        nn.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no parameters yet"):
        net.state_dict()
    with pytest.raises(mo.JitError, match=r"call the network once before mo\.jit"):
        mo.jit(net)(x)
    net.eval()
    assert net(x).shape == (3, 2) and not net[1].training
    assert repr(net[4]) == "Linear(in_features=36, out_features=2, bias=True)"
    optimizer = nn.optim.SGD(net.train().parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = (net(x) ** 2).mean()
        optimizer.step(loss)
        losses.append(loss.item())
    assert losses[2] < losses[0]
    np.testing.assert_allclose(mo.jit(net)(x).numpy(), net(x).numpy(), rtol=1e-4, atol=1e-5)


def test_wrong_arguments_are_refused_at_once_or_leave_the_layer_as_it_was() -> None:
    with pytest.raises(TypeError, match="out_features"):
        nn.LazyLinear()
    layer = nn.LazyConv2d(4, 3, groups=2)
    with pytest.raises(ValueError, match="groups must divide in_channels 3"):
        layer(mo.zeros((1, 3, 5, 5)))
    with pytest.raises(mo.ShapeError, match="x has no axis -3"):
        layer(mo.zeros((5, 5)))
    assert repr(layer) == "LazyConv2d(out_channels=4, kernel_size=3, groups=2)"
    assert layer(mo.zeros((1, 4, 5, 5))).shape == (1, 4, 3, 3)
