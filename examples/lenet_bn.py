"""LeNet with batch normalisation on Fashion-MNIST: train, test, save, reload, draw the curves.

    python examples/lenet_bn.py                       # ten epochs
    python examples/lenet_bn.py --epochs 1 --threads 1 --out results
    python examples/lenet_bn.py --check-torch         # the same net in PyTorch: the same logits?

Weights start Xavier-uniform, biases where PyTorch starts them (uniform on ±1/sqrt(fan_in)).  SGD
with learning rate 1.0, batches of 256 in shuffled order, pixels divided by 255 in the graph.  Where
Fashion-MNIST is neither on the machine nor to be downloaded, the embedded handwritten digits take
its place.

Source: LeCun et al. 1998, section 2.B; Ioffe and Szegedy 2015.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import metaop as mo
from metaop import nn
from metaop.nn.data import DataLoader, DataNotFoundError, Digits, FashionMNIST, ImageDataset

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None


def lenet(layers: Any = nn) -> Any:
    """[batch, 1, 28, 28] to logits [batch, 10].

    layers: metaop.nn, or another module with its names; torch.nn gives PyTorch's own network, with
    the same keys in its state dict.
    """
    net = layers.Sequential(
        *(layers.Conv2d(1, 6, 5), layers.BatchNorm2d(6), layers.Sigmoid()),
        layers.AvgPool2d(2, 2),
        *(layers.Conv2d(6, 16, 5), layers.BatchNorm2d(16), layers.Sigmoid()),
        layers.AvgPool2d(2, 2),
        layers.Flatten(),
        *(layers.Linear(256, 120), layers.BatchNorm1d(120), layers.Sigmoid()),
        *(layers.Linear(120, 84), layers.BatchNorm1d(84), layers.Sigmoid()),
        layers.Linear(84, 10),
    )
    for layer in net:
        if isinstance(layer, (layers.Conv2d, layers.Linear)):
            layers.init.xavier_uniform_(layer.weight)
    return net


def scaled(images: mo.Var) -> mo.Var:
    """uint8 [batch, 28, 28] as float32 [batch, 1, 28, 28] between 0 and 1."""
    return images[:, None] / 255


# --- training -------------------------------------------------------------------------------------


class Means:
    """Mean loss and accuracy over many batches.

    Both are summed in Vars, as part of the program of each step; nothing is read before `read`.
    """

    def __init__(self) -> None:
        self.loss = mo.zeros(())
        self.correct = mo.zeros((), dtype=mo.int64)
        self.count = 0

    def add(self, loss: mo.Var, logits: mo.Var, labels: mo.Var) -> None:
        """Count one batch, whose mean loss is `loss`."""
        with mo.no_grad():
            self.loss += loss * len(labels)
            self.correct += (logits.argmax(1) == labels).sum()
        self.count += len(labels)

    def read(self) -> tuple[float, float]:
        """(mean loss, accuracy)."""
        return self.loss.item() / self.count, self.correct.item() / self.count


class Epoch(NamedTuple):
    """What one epoch gave: means while training, then on the test set."""

    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float
    examples_per_second: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}  accuracy {self.accuracy:.4f}  "
            f"test loss {self.test_loss:.4f}  test accuracy {self.test_accuracy:.4f}  "
            f"{self.examples_per_second:,.0f} examples/s"
        )


class Progress:
    """The examples done so far and their rate: tqdm's bar, or a plain line where tqdm is missing.

    Silent where standard error is no terminal; the line of each epoch is printed in any case.
    """

    def __init__(self, total: int, title: str):
        self.total, self.title, self.done, self.shown = total, title, 0, 0.0
        self.start = time.perf_counter()
        self.bar = None
        if tqdm is not None:
            self.bar = tqdm(total=total, desc=title, unit=" examples", leave=False, disable=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif sys.stderr.isatty():
            print(f"\r{'':70}\r", end="", file=sys.stderr)

    @property
    def rate(self) -> float:
        """Examples per second since the start."""
        return self.done / (time.perf_counter() - self.start)

    def add(self, count: int) -> None:
        """Note that `count` more examples are done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif sys.stderr.isatty() and time.perf_counter() - self.shown > 0.2:
            self.shown = time.perf_counter()
            line = f"{self.title}: {self.done}/{self.total}, {self.rate:,.0f} examples/s"
            print(f"\r{line:70}", end="", file=sys.stderr, flush=True)


def train(
    net: nn.Module, optimizer: nn.optim.Optimizer, loader: DataLoader, progress: Progress
) -> tuple[float, float]:
    """One epoch; the mean loss and accuracy of its batches, each before its own step."""
    net.train()
    means = Means()
    for images, labels in loader:
        logits = net(scaled(images))
        loss = nn.functional.cross_entropy(logits, labels)
        means.add(loss, logits, labels)
        optimizer.step(loss)
        progress.add(len(labels))
    return means.read()


@mo.no_grad()
def test(net: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Mean loss and accuracy in inference mode."""
    net.eval()
    means = Means()
    for images, labels in loader:
        logits = net(scaled(images))
        means.add(nn.functional.cross_entropy(logits, labels), logits, labels)
    return means.read()


def fit(net: nn.Module, train_loader: DataLoader, test_loader: DataLoader, epochs: int) -> list:
    """Train, printing a line after each epoch; returns the epochs' figures."""
    optimizer = nn.optim.SGD(net.parameters(), lr=1.0)
    history = []
    for number in range(1, epochs + 1):
        with Progress(len(train_loader.dataset), f"epoch {number}/{epochs}") as progress:
            means = train(net, optimizer, train_loader, progress)
            rate = progress.rate
        history.append(Epoch(*means, *test(net, test_loader), rate))
        print(f"epoch {number:2}: {history[-1]}", flush=True)
        if number == 1:
            compiled = mo.stats().compiled
    print(f"kernels compiled: {compiled} in epoch 1, {mo.stats().compiled - compiled} afterwards")
    return history


# --- afterwards -----------------------------------------------------------------------------------


def logits_of(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """The network's output for all images, in inference mode."""
    net.eval()
    with mo.no_grad():
        batches = [net(scaled(part)) for (part,) in DataLoader(images, 256)]
        return np.concatenate([batch.numpy() for batch in batches])


def digest(net: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of the state."""
    result = hashlib.sha256()
    for name, value in net.state_dict().items():
        result.update(f"{name} {value.dtype} {value.shape}\n".encode())
        result.update(value.numpy().tobytes())
    return result.hexdigest()


def save_and_reload(net: nn.Module, path: Path, images: np.ndarray) -> bool:
    """Whether a new network with the saved state has the same bits, and so have its logits."""
    mo.save(net.state_dict(), path)
    again = lenet()
    again.load_state_dict(mo.load(path))
    same_logits = logits_of(net, images).tobytes() == logits_of(again, images).tobytes()
    return same_logits and digest(net) == digest(again)


def compare_with_torch(net: nn.Module, images: np.ndarray) -> bool:
    """Whether PyTorch's network with the same state gives the same logits, to 1e-5."""
    import torch

    theirs = lenet(torch.nn).eval()
    theirs.load_state_dict(
        {name: torch.from_numpy(value.numpy()) for name, value in net.state_dict().items()}
    )
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)[:, None] / 255).numpy()
    ours = logits_of(net, images)
    largest = np.abs(ours - expected).max()
    print(
        f"test logits: the largest difference from PyTorch's is {largest:.1e}, "
        f"{largest / np.abs(expected).max():.1e} of the largest logit"
    )
    return np.allclose(ours, expected, rtol=1e-5, atol=1e-5)


def draw_curves(history: list[Epoch], path: Path) -> bool:
    """A PNG of losses and accuracies over the epochs; False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    losses.plot(epochs, [e.loss for e in history], "o-", label="training loss")
    losses.plot(epochs, [e.test_loss for e in history], "s--", label="test loss")
    accuracies.plot(epochs, [e.accuracy for e in history], "o-", label="training accuracy")
    accuracies.plot(epochs, [e.test_accuracy for e in history], "s--", label="test accuracy")
    for axes in (losses, accuracies):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    return True


# --- the program ----------------------------------------------------------------------------------


def numbers(x: mo.Var) -> str:
    """A vector with four decimals."""
    return "  ".join(f"{value:7.4f}" for value in x.tolist())


def load_data(data: str | None) -> tuple[ImageDataset, ImageDataset]:
    """Training and test set: Fashion-MNIST, or the embedded digits where it is not to be had."""
    if data != "digits":
        try:
            return FashionMNIST(data, train=True), FashionMNIST(data, train=False)
        except DataNotFoundError:
            print("Fashion-MNIST is neither on this machine nor to be downloaded: ", end="")
    print(
        "using the embedded 8x8 handwritten digits, enlarged to 28x28 "
        "(the figures for Fashion-MNIST do not apply to them)"
    )
    return Digits(train=True).as_fashion_shape(), Digits(train=False).as_fashion_shape()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: as many as there are processors")
    parser.add_argument("--data", help="the folder of Fashion-MNIST, or: digits")
    parser.add_argument("--limit", type=int, help="train and test with this many images at most")
    parser.add_argument("--out", type=Path, default=Path("runs/lenet_bn"), help="folder of results")
    parser.add_argument("--check-torch", action="store_true", help="compare logits with PyTorch")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error("--epochs must be at least 1")
    return options


def main() -> None:
    options = arguments()
    if options.threads is not None:
        mo.set_num_threads(options.threads)
    mo.manual_seed(options.seed)
    train_set, test_set = load_data(options.data)
    rows = slice(options.limit)
    train_rows = (train_set.images[rows], train_set.labels[rows])
    test_rows = (test_set.images[rows], test_set.labels[rows])
    train_loader = DataLoader(train_rows, options.batch_size, shuffle=True, seed=options.seed)
    test_loader = DataLoader(test_rows, options.batch_size)
    print(f"{len(train_rows[0])} images to train with, {len(test_rows[0])} to test with")

    net = lenet()
    print(net)
    wall, busy = time.perf_counter(), time.process_time()
    history = fit(net, train_loader, test_loader, options.epochs)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    print(f"{wall:.1f} s with {mo.get_num_threads()} threads; {busy / wall:.2f} processors busy")

    best = max(epoch.test_accuracy for epoch in history[-3:])
    print(f"last epoch: training loss {history[-1].loss:.4f}, accuracy {history[-1].accuracy:.4f}")
    print(f"best test accuracy of the last {len(history[-3:])} epochs: {best:.4f}")
    norm = net[1]
    print(f"gamma of the first batch norm: {numbers(norm.weight)}")
    print(f"beta of the first batch norm:  {numbers(norm.bias)}")

    options.out.mkdir(parents=True, exist_ok=True)
    state = options.out / "lenet_bn.safetensors"
    equal = save_and_reload(net, state, test_rows[0])
    print(f"saved {state}, reloaded: {'equal to the bit' if equal else 'DIFFERENT'}")
    curves = options.out / "lenet_bn.png"
    drawn = draw_curves(history, curves)
    print(f"curves: {curves}" if drawn else "curves: not drawn, matplotlib is not installed")
    agrees = not options.check_torch or compare_with_torch(net, test_rows[0])
    print(f"sha256 of the final state: {digest(net)}")
    if not (equal and agrees):
        sys.exit("the state was not restored, or PyTorch disagrees: see above")


if __name__ == "__main__":
    main()
