"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ..layers.activation import ReLU
from ..layers.container import Sequential
from ..layers.linear import Linear
from ..module import Module


class MLP(Sequential):
    """Linear layers with an activation between them: [batch, sizes[0]] to [batch, sizes[-1]].

    The state dict has the keys of a torch.nn.Sequential of the same layers: "0.weight", "2.weight",
    …  With its defaults it classifies 28x28 images that are flattened.
    """

    def __init__(self, *sizes: int, activation: Callable[[], Module] = ReLU, bias: bool = True):
        sizes = sizes or (784, 512, 512, 10)
        if len(sizes) < 2:
            raise ValueError(f"MLP: an input and an output size are needed, got {sizes}")
        layers: list[Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [activation(), Linear(inputs, outputs, bias)]
        super().__init__(*layers[1:])
