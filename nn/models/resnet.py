"""Residual networks, for 224x224 images (as torchvision's) and for 32x32 ones."""

from __future__ import annotations

from typing import Any

import metaop as mo

from .. import init
from ..layers.activation import ReLU
from ..layers.container import Sequential
from ..layers.convolution import Conv2d
from ..layers.linear import Identity, Linear
from ..layers.norm import BatchNorm2d
from ..layers.pooling import MaxPool2d
from ..module import Module

WIDTHS = (64, 128, 256, 512)
STEMS = ("imagenet", "cifar")


def _conv(inputs: int, outputs: int, window: int, stride: int = 1) -> Conv2d:
    """A convolution without bias, padded so that stride 1 keeps the size."""
    return Conv2d(inputs, outputs, window, stride, padding=window // 2, bias=False)


class _Block(Module):
    """What both blocks share: `relu(residual(x) + shortcut(x))`.

    The shortcut is x itself, or a 1x1 convolution with batch norm where the shape changes.
    """

    expansion: int

    def _add_shortcut(self, inputs: int, outputs: int, stride: int) -> None:
        changes = stride != 1 or inputs != outputs
        shortcut = Sequential(_conv(inputs, outputs, 1, stride), BatchNorm2d(outputs))
        self.register_module("downsample", shortcut if changes else None)

    def residual(self, x: mo.Var) -> mo.Var:
        """The part that is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, inputs, h, w].  Returns [batch, width * expansion, h/stride, w/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + shortcut)


class BasicBlock(_Block):
    """Two 3x3 convolutions, the first with the stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), BatchNorm2d(width)
        self.relu = ReLU()
        self.conv2, self.bn2 = _conv(width, width, 3), BatchNorm2d(width)
        self._add_shortcut(inputs, width, stride)

    def residual(self, x: mo.Var) -> mo.Var:
        """conv, norm, ReLU, conv, norm."""
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(_Block):
    """A 1x1, a 3x3 (with the stride) and a 1x1 convolution to four times the width."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = _conv(inputs, width, 1), BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), BatchNorm2d(outputs)
        self.relu = ReLU()
        self._add_shortcut(inputs, outputs, stride)

    def residual(self, x: mo.Var) -> mo.Var:
        """Three times conv and norm, with ReLU between."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNet(Module):
    """Four stages of residual blocks, the mean over space, a linear layer: logits [batch, classes].

    block: BasicBlock or Bottleneck; layers: how many of them in each stage.  stem: "imagenet", a
    7x7 convolution of stride 2 and max pooling, for images of about 224x224; "cifar", a 3x3
    convolution, for 32x32.  The state dict has torchvision's keys.

    Source: He et al. 2016; the stride on the 3x3 convolution as in torchvision.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        num_classes: int = 1000,
        stem: str = "imagenet",
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"ResNet: stem must be one of {STEMS}, got {stem!r}")
        large = stem == "imagenet"
        self.conv1 = _conv(3, WIDTHS[0], 7, 2) if large else _conv(3, WIDTHS[0], 3)
        self.bn1, self.relu = BatchNorm2d(WIDTHS[0]), ReLU()
        self.maxpool = MaxPool2d(3, 2, 1) if large else Identity()
        channels = WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, layers, strict=True)):
            blocks = []
            for number in range(count):
                blocks.append(block(channels, width, 2 if stage and not number else 1))
                channels = width * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(*blocks))
        self.fc = Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [batch, 3, height, width].  Returns logits [batch, num_classes]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(axis=(2, 3)))


def resnet18(num_classes: int = 1000, **settings: Any) -> ResNet:
    """18 layers: basic blocks 2, 2, 2, 2; settings as of ResNet."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, **settings)


def resnet34(num_classes: int = 1000, **settings: Any) -> ResNet:
    """34 layers: basic blocks 3, 4, 6, 3; settings as of ResNet."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, **settings)


def resnet50(num_classes: int = 1000, **settings: Any) -> ResNet:
    """50 layers: bottlenecks 3, 4, 6, 3; settings as of ResNet."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, **settings)


def resnet101(num_classes: int = 1000, **settings: Any) -> ResNet:
    """101 layers: bottlenecks 3, 4, 23, 3; settings as of ResNet."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, **settings)


def resnet152(num_classes: int = 1000, **settings: Any) -> ResNet:
    """152 layers: bottlenecks 3, 8, 36, 3; settings as of ResNet."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, **settings)
