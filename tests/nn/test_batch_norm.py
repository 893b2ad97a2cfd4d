"""Batch norm against PyTorch, to 1e-5 of the largest value: outputs, statistics, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn

SHAPES = [(33, 7), (256, 120), (5, 3, 11), (9, 6, 12, 10), (2, 1, 5, 5)]
ARGUMENTS = [
    {},
    {"momentum": None},
    {"momentum": 0.3, "eps": 1e-2},
    {"affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def kind_of(shape: tuple[int, ...]) -> str:
    return "BatchNorm2d" if len(shape) == 4 else "BatchNorm1d"


def assert_close(ours: mo.Var, theirs, tolerance: float) -> None:
    """Equal up to `tolerance` of the largest expected value."""
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape
    largest = max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance * largest)


class Pair:
    """A batch norm of ours and PyTorch's with the same drawn weights, asked the same questions."""

    def __init__(self, shape, dtype="float32", **arguments):
        self.torch = pytest.importorskip("torch")
        self.shape, self.dtype = shape, dtype
        self.tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
        kind, features = kind_of(shape), shape[1]
        theirs = getattr(self.torch.nn, kind)
        self.theirs = theirs(features, **arguments).to(getattr(self.torch, dtype))
        self.ours = getattr(nn, kind)(features, **arguments, dtype=getattr(mo, dtype))
        with self.torch.no_grad():
            for seed, parameter in enumerate(self.theirs.parameters()):
                parameter.copy_(self.torch.from_numpy(draw(seed, features) + 0.5))
        self.ours.load_state_dict(self.theirs.state_dict())

    def check(self, seed: int) -> None:
        """Output, gradients in x, weight and bias, and the state afterwards."""
        x = (3 * draw(seed, *self.shape) - 1).astype(self.dtype)
        dy = draw(seed + 1, *self.shape).astype(self.dtype)
        ours, theirs = mo.Var(x, requires_grad=True), self.torch.tensor(x, requires_grad=True)
        y, expected = self.ours(ours), self.theirs(theirs)
        gradients = mo.grad(y, [ours, *self.ours.parameters()], grad_outputs=mo.array(dy))
        wanted = self.torch.autograd.grad(
            expected, [theirs, *self.theirs.parameters()], self.torch.from_numpy(dy)
        )
        for a, b in zip([y, *gradients], [expected, *wanted], strict=True):
            assert_close(a, b, self.tolerance)
        state = self.ours.state_dict()
        assert list(state) == list(self.theirs.state_dict())
        for name, value in self.theirs.state_dict().items():
            assert_close(state[name], value, self.tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_training_then_inference_agrees_with_torch(shape, arguments):
    pair = Pair(shape, **arguments)
    for seed in (10, 20, 30):
        pair.check(seed)
    for module in (pair.ours, pair.theirs):
        module.eval()
    pair.check(40)


@pytest.mark.parametrize("shape", [(33, 7), (9, 6, 12, 10)], ids=str)
def test_float64_agrees_with_torch_to_1e_12(shape):
    pair = Pair(shape, dtype="float64")
    pair.check(10)
    for module in (pair.ours, pair.theirs):
        module.eval()
    pair.check(20)


@pytest.mark.parametrize("shape", [(64, 5), (8, 3, 6, 7)], ids=str)
def test_running_variance_is_unbiased_and_running_mean_moves_by_momentum(shape):
    norm = getattr(nn, kind_of(shape))(shape[1], momentum=0.25)
    x = draw(0, *shape).astype(np.float32) * 2 + 3
    norm(mo.array(x)).sync()
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.25 * x.mean(axes), rtol=1e-5)
    wanted = 0.75 + 0.25 * x.astype(np.float64).var(axes, ddof=1)
    np.testing.assert_allclose(norm.running_var.numpy(), wanted, rtol=1e-5)
    assert norm.num_batches_tracked.item() == 1


def test_momentum_none_averages_over_all_batches():
    norm = nn.BatchNorm1d(3, momentum=None)
    batches = [draw(seed, 16, 3).astype(np.float32) + seed for seed in range(5)]
    for x in batches:
        norm(mo.array(x))
    mean = np.mean([x.mean(0) for x in batches], axis=0)
    variance = np.mean([x.var(0, ddof=1) for x in batches], axis=0)
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-5)


@pytest.mark.parametrize("shape", [(256, 4), (4096, 2), (32, 3, 8, 8), (8, 2, 64, 64)], ids=str)
def test_mean_1e4_with_std_1_is_normalised_to_1(shape):
    """E[x²] - E[x]² in float32 would give variances anywhere between -8 and 16 here."""
    x = (draw(0, *shape) + 1e4).astype(np.float32)
    norm = getattr(nn, kind_of(shape))(shape[1])
    y = norm(mo.array(x)).numpy().astype(np.float64)
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(y.std(axes), 1, atol=1e-3)
    # Neighbouring float32 are 1e-3 apart at 1e4, so the mean itself is off by a few of these steps.
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-2)
    wide = x.astype(np.float64)
    variance = 0.9 + 0.1 * wide.var(axes, ddof=1)
    np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-3)


def test_gradient_sums_to_zero_and_is_orthogonal_to_the_input():
    """Adding a constant to a channel, or scaling it, changes nothing of the output."""
    x = mo.Var(draw(0, 50, 4), requires_grad=True)
    y = nn.BatchNorm1d(4, eps=0.0, dtype=mo.float64)(x)
    (dx,) = mo.grad(y, [x], grad_outputs=mo.array(draw(1, 50, 4)))
    np.testing.assert_allclose(dx.numpy().sum(0), 0, atol=1e-12)
    np.testing.assert_allclose((dx.numpy() * x.numpy()).sum(0), 0, atol=1e-12)
