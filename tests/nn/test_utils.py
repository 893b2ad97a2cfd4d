"""Clipping, vectors of parameters and folding of batch norms, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)
ARRAYS = [rng.standard_normal(shape).astype(np.float32) for shape in [(3, 2), (4,), ()]]


def with_gradients(wrap, array):
    made = [wrap(a) for a in ARRAYS]
    for k, parameter in enumerate(made):
        parameter.grad = array(ARRAYS[k] * (k + 1))
    return made


def both():
    ours = with_gradients(nn.Parameter, mo.array)
    return ours, with_gradients(lambda a: torch.nn.Parameter(torch.tensor(a)), torch.tensor)


def assert_same_gradients(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("most, norm", [(0.5, 2.0), (1e3, 2.0), (0.5, 1.0), (0.5, np.inf)])
def test_clipping_by_norm_is_torchs(most, norm):
    ours, theirs = both()
    total = nn.utils.clip_grad_norm_(ours, most, norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, most, norm)
    np.testing.assert_allclose(total.item(), expected.item(), rtol=1e-6)
    assert_same_gradients(ours, theirs)


def test_clipping_by_value_is_torchs():
    ours, theirs = both()
    nn.utils.clip_grad_value_(ours, 0.4)
    torch.nn.utils.clip_grad_value_(theirs, 0.4)
    assert_same_gradients(ours, theirs)


def test_a_norm_that_is_not_finite_is_refused_if_wanted():
    weight = nn.Parameter(np.ones(2, np.float32))
    weight.grad = mo.array([1.0, np.inf])
    with pytest.raises(RuntimeError, match="norm of the gradients is inf"):
        nn.utils.clip_grad_norm_(weight, 1.0, error_if_nonfinite=True)
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_parameters_become_a_vector_and_again_parameters():
    net = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (8,)
    nn.utils.vector_to_parameters(vector * 2, net.parameters())
    np.testing.assert_array_equal(
        nn.utils.parameters_to_vector(net.parameters()).numpy(), 2 * vector.numpy()
    )
    with pytest.raises(mo.errors.ShapeError, match="must have 8 elements"):
        nn.utils.vector_to_parameters(vector[1:], net.parameters())


@pytest.mark.parametrize("layer, norm, shape, transposed", [
    ("Conv2d(2, 3, 3)", "BatchNorm2d(3)", (4, 2, 5, 5), False),
    ("ConvTranspose2d(2, 3, 3, bias=False)", "BatchNorm2d(3)", (4, 2, 5, 5), True),
    ("Linear(2, 3)", "BatchNorm1d(3, affine=False)", (4, 2), None),
])  # fmt: skip
def test_a_folded_batch_norm_changes_nothing(layer, norm, shape, transposed):
    net, bn = eval(f"nn.{layer}"), eval(f"nn.{norm}")
    x = mo.array(rng.standard_normal(shape).astype(np.float32))
    bn(net(x))
    net.eval(), bn.eval()
    fuse = nn.utils.fuse_linear_bn_eval if transposed is None else nn.utils.fuse_conv_bn_eval
    fused = fuse(net, bn, *([True] if transposed else []))
    np.testing.assert_allclose(fused(x).numpy(), bn(net(x)).numpy(), rtol=1e-4, atol=1e-5)
