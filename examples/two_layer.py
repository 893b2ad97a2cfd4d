"""A network 1 → 10 → 1 learns y = x² on [0, 1): in Jittor's style and in PyTorch's, same numbers.

    python examples/two_layer.py
    python examples/two_layer.py --out results       # where the dumped graph goes

The sigmoid is written by hand; the framework differentiates it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import metaop as mo
from metaop import nn

STEPS, BATCH = 1000, 50


def sigmoid(x: mo.Var) -> mo.Var:
    return 1 / (1 + mo.exp(-x))


def batches(seed: int) -> Iterator[tuple[mo.Var, mo.Var]]:
    """STEPS batches of (x, x²), x uniform on [0, 1)."""
    generator = np.random.default_rng(seed)
    for _ in range(STEPS):
        x = generator.random((BATCH, 1), dtype=np.float32)
        yield mo.array(x), mo.array(x * x)


# --- in Jittor's style ----------------------------------------------------------------------------


class JittorNet(nn.Module):
    def __init__(self):
        self.layer1 = nn.Linear(1, 10)
        self.layer2 = nn.Linear(10, 1)

    def execute(self, x):
        return self.layer2(sigmoid(self.layer1(x)))


def train_in_jittors_style(seed: int) -> tuple[nn.Module, list[mo.Var]]:
    mo.set_global_seed(seed)
    net = JittorNet()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for x, y in batches(seed):
        difference = net(x) - y
        loss = (difference * difference).mean()
        optimizer.step(loss)
        losses.append(loss)
    return net, losses


# --- in PyTorch's style ---------------------------------------------------------------------------


class TorchNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(1, 10)
        self.layer2 = nn.Linear(10, 1)

    def forward(self, x):
        return self.layer2(sigmoid(self.layer1(x)))


def train_in_torchs_style(seed: int) -> tuple[nn.Module, list[mo.Var]]:
    mo.manual_seed(seed)
    net = TorchNet()
    criterion = nn.MSELoss()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for x, y in batches(seed):
        loss = criterion(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return net, losses


# --- the program ----------------------------------------------------------------------------------


def same_bits(ours: list[mo.Var], theirs: list[mo.Var]) -> bool:
    return all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(ours, theirs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/two_layer"), help="folder")
    options = parser.parse_args()

    net, losses = train_in_jittors_style(options.seed)
    for step in (1, 10, 100, 500, STEPS):
        print(f"step {step:4}: loss {losses[step - 1]:.6f}")
    other, other_losses = train_in_torchs_style(options.seed)
    equal = same_bits(losses, other_losses)
    equal = equal and same_bits(list(net.parameters()), list(other.parameters()))
    print(f"Jittor's style and PyTorch's: {'equal to the bit' if equal else 'DIFFERENT'}")

    points = np.arange(100, dtype=np.float32).reshape(100, 1) / 100
    x = mo.array(points)

    def two_layer() -> mo.Var:
        return net(x)

    print(f"final MSE on [0, 1): {nn.functional.mse_loss(two_layer(), x * x).item():.6f}")
    values = two_layer().numpy()
    for row in (10, 50, 90):
        point = points[row, 0]
        print(f"  f({point:.1f}) = {values[row, 0]:.4f}, {point:.1f}² = {point**2:.4f}")

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "graph.txt"
    text = mo.dump(two_layer, stage="graph", file=path)
    print(f"the network's graph, in {path}:\n\n{text}")


if __name__ == "__main__":
    main()
