"""The networks of nn.models: parameters as published, values and gradients as PyTorch's layers."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn import models

# Parameters of torchvision's models, as its documentation publishes them.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_resnet_has_as_many_parameters_as_torchvisions(name):
    net = getattr(models, name)()
    assert sum(p.size for p in net.parameters()) == PUBLISHED[name]


def test_resnet_has_torchvisions_keys():
    keys = [k for k in models.resnet18().state_dict() if k.startswith(("conv1", "layer2.0", "fc"))]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = [
        *("conv1.weight", *(f"bn1.{n}" for n in norm)),
        *("conv2.weight", *(f"bn2.{n}" for n in norm)),
        *("downsample.0.weight", *(f"downsample.1.{n}" for n in norm)),
    ]
    assert keys == ["conv1.weight", *(f"layer2.0.{k}" for k in block), "fc.weight", "fc.bias"]
    assert "layer4.2.conv3.weight" in models.resnet50().state_dict()


def torch_block(torch, inputs, width, stride, expansion):
    """A residual block of PyTorch's layers, by the names that torchvision gives them."""
    t = torch.nn
    outputs = width * expansion
    shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
    if expansion == 4:
        shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]

    class Block(t.Module):
        def __init__(self):
            super().__init__()
            for k, (i, o, window, s) in enumerate(shapes, 1):
                conv = t.Conv2d(i, o, window, s, window // 2, bias=False)
                self.add_module(f"conv{k}", conv)
                self.add_module(f"bn{k}", t.BatchNorm2d(o))
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = t.Sequential(
                    t.Conv2d(inputs, outputs, 1, stride, bias=False), t.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = x
            for k in range(1, len(shapes) + 1):
                y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
                y = torch.relu(y) if k < len(shapes) else y
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    return Block()


def gradients_agree(torch, ours, theirs, x, tolerance):
    """Outputs, and gradients of a weighted sum of them in x and all parameters."""
    data, tensor = mo.Var(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, expected = ours(data), theirs(tensor)
    weights = np.random.default_rng(2).standard_normal(out.shape).astype(np.float32)
    parameters = dict(ours.named_parameters())
    gradients = mo.grad((out * mo.array(weights)).sum(), [data, *parameters.values()])
    (expected * torch.tensor(weights)).sum().backward()
    named = dict(theirs.named_parameters())
    pairs = [(out, expected.detach()), (gradients[0], tensor.grad)]
    pairs += [(g, named[n].grad) for n, g in zip(parameters, gradients[1:], strict=True)]
    for one, other in pairs:
        scale = max(float(other.abs().max()), 1e-3)
        np.testing.assert_allclose(one.numpy() / scale, other.numpy() / scale, atol=tolerance)


@pytest.mark.parametrize("block", ["BasicBlock", "Bottleneck"])
@pytest.mark.parametrize("shape", [(6, 6, 2), (24, 6, 1)], ids=["stride 2", "24 channels"])
def test_residual_block_agrees_with_torch(block, shape):
    torch = pytest.importorskip("torch")
    inputs, width, stride = shape
    ours = getattr(models, block)(inputs, width, stride)
    theirs = torch_block(torch, inputs, width, stride, ours.expansion)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = np.random.default_rng(1).standard_normal((3, inputs, 8, 8)).astype(np.float32)
    gradients_agree(torch, ours, theirs, x, 1e-5)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_resnet_in_inference_agrees_with_torch(stem):
    torch = pytest.importorskip("torch")
    t, large = torch.nn, stem == "imagenet"
    ours = models.ResNet(models.BasicBlock, (1, 1, 1, 1), 7, stem=stem)
    theirs = t.Module()
    theirs.conv1 = t.Conv2d(3, 64, *((7, 2, 3) if large else (3, 1, 1)), bias=False)
    theirs.bn1 = t.BatchNorm2d(64)
    for k, (i, o) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
        theirs.add_module(
            f"layer{k}", t.Sequential(torch_block(torch, i, o, 1 if k == 1 else 2, 1))
        )
    theirs.fc = t.Linear(512, 7)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for buffer in theirs.buffers():
            if buffer.dtype.is_floating_point:
                buffer.uniform_(0.5, 1.5, generator=generator)
    ours.load_state_dict(theirs.state_dict())
    ours.eval(), theirs.eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad(), mo.no_grad():
        y = torch.relu(theirs.bn1(theirs.conv1(torch.tensor(x))))
        y = torch.nn.functional.max_pool2d(y, 3, 2, 1) if large else y
        for k in range(1, 5):
            y = getattr(theirs, f"layer{k}")(y)
        expected = theirs.fc(y.mean((2, 3))).numpy()
        np.testing.assert_allclose(ours(mo.array(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_resnet_names_its_stems():
    with pytest.raises(ValueError, match=r"stem must be one of \('imagenet', 'cifar'\), got 'x'"):
        models.resnet18(stem="x")


def test_convolutions_of_a_resnet_start_kaiming_normal():
    weight = models.resnet18().layer3[1].conv2.weight.numpy()
    assert weight.std() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_mlp_agrees_with_torch():
    torch = pytest.importorskip("torch")
    t = torch.nn
    theirs = t.Sequential(t.Linear(5, 4), t.Tanh(), t.Linear(4, 6), t.Tanh(), t.Linear(6, 3))
    ours = models.MLP(5, 4, 6, 3, activation=nn.Tanh)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    gradients_agree(torch, ours, theirs, x, 1e-6)
    assert [tuple(p.shape) for p in models.MLP().parameters()][::2] == [
        (512, 784), (512, 512), (10, 512)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"an input and an output size are needed, got \(4,\)"):
        models.MLP(4)


def test_transformer_classifier_agrees_with_torch_and_ignores_padding():
    torch = pytest.importorskip("torch")
    t = torch.nn
    theirs = t.Module()
    layer = t.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    theirs.encoder, theirs.fc = t.TransformerEncoder(layer, 1), t.Linear(8, 3)
    ours = models.TransformerClassifier(1, 8, 2, 16, 3)
    ours.load_state_dict(theirs.state_dict())
    theirs.forward = lambda x: theirs.fc(theirs.encoder(x)).mean(1)
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    gradients_agree(torch, ours, theirs, x, 1e-5)
    padding = np.zeros((2, 5), bool)
    padding[0, 3:] = True
    padded = ours(mo.array(x), mo.array(padding)).numpy()
    np.testing.assert_allclose(padded[:1], ours(mo.array(x[:1, :3])).numpy(), atol=1e-5)
    np.testing.assert_allclose(padded[1:], ours(mo.array(x[1:])).numpy(), atol=1e-5)
