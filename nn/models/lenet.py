"""LeNet with batch normalisation, for 28x28 grey images."""

from __future__ import annotations

from .. import init
from ..layers.activation import Sigmoid
from ..layers.container import Sequential
from ..layers.convolution import Conv2d
from ..layers.linear import Linear
from ..layers.norm import BatchNorm1d, BatchNorm2d
from ..layers.pooling import AvgPool2d
from ..layers.shape import Flatten


class LeNetBN(Sequential):
    """Two convolutions and three linear layers, batch norm before each sigmoid.

    [batch, 1, 28, 28] to logits [batch, classes]; 6 and 16 channels through 5x5 windows, average
    pooling by 2, then 256 → 120 → 84 → classes.  Weights start Xavier-uniform.  The state dict has
    the keys of a torch.nn.Sequential of the same layers: "0.weight", "1.running_mean", …

    Source: LeCun et al. 1998, section 2.B; batch normalisation: Ioffe and Szegedy 2015.
    """

    def __init__(self, classes: int = 10):
        super().__init__(
            Conv2d(1, 6, 5),
            BatchNorm2d(6),
            Sigmoid(),
            AvgPool2d(2, 2),
            Conv2d(6, 16, 5),
            BatchNorm2d(16),
            Sigmoid(),
            AvgPool2d(2, 2),
            Flatten(),
            Linear(256, 120),
            BatchNorm1d(120),
            Sigmoid(),
            Linear(120, 84),
            BatchNorm1d(84),
            Sigmoid(),
            Linear(84, classes),
        )
        for layer in self:
            if isinstance(layer, (Conv2d, Linear)):
                init.xavier_uniform_(layer.weight)
