"""The networks of the rows in PyTorch's layers, with the names that metaop's own have."""

from __future__ import annotations

from typing import Any


def lenet() -> Any:
    """LeNet with batch norm, as nn.models.LeNetBN."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid()),
        *(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, 10)),
    )


def mlp() -> Any:
    """784-512-512-10 with ReLU, as nn.models.MLP."""
    from torch import nn

    layers = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(*layers)


def resnet18(num_classes: int = 10, stem: str = "cifar") -> Any:
    """As nn.models.resnet18."""
    from torch import nn
    from torch.nn import functional

    def conv(inputs: int, outputs: int, window: int, stride: int = 1) -> Any:
        return nn.Conv2d(inputs, outputs, window, stride, window // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
            self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(
                    conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
            y = self.bn2(self.conv2(y))
            y = y + (x if self.downsample is None else self.downsample(x))
            return functional.relu(y, inplace=True)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            large = stem == "imagenet"
            self.conv1 = conv(3, 64, 7, 2) if large else conv(3, 64, 3)
            self.bn1 = nn.BatchNorm2d(64)
            self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
            for k, (i, o) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
                blocks = nn.Sequential(Block(i, o, 1 + (k > 1)), Block(o, o, 1))
                self.add_module(f"layer{k}", blocks)
            self.fc = nn.Linear(512, num_classes)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    return Net()


def transformer() -> Any:
    """4 encoder layers of width 256 and a linear layer, as nn.models.TransformerClassifier."""
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
            self.fc = nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            return self.fc(self.encoder(x)).mean(1)

    return Net()
