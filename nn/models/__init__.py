"""Networks ready to train."""

from .lenet import LeNetBN
from .mlp import MLP
from .resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from .transformer import TransformerClassifier

__all__ = [
    "MLP",
    "BasicBlock",
    "Bottleneck",
    "LeNetBN",
    "ResNet",
    "TransformerClassifier",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
]
