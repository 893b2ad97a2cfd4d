"""The rows: what is computed, on which arrays, by which function of each framework."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks import contractions, networks
from benchmarks.turns import Work

Maker = Callable[[list[np.ndarray], Any], Work]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    shapes: of the arrays, normally distributed, or a function that makes them.  makers: by
    framework, from arrays and settings to the work.  exact: makers of the results whose error is
    measured, where they are not those of the work.  flops, bytes: that any implementation needs.
    bars: the speed wanted in times the default peer's and the expert's.  calls: how many are
    compared before timing; most: how many a turn makes at most.
    """

    name: str
    shapes: list[tuple[int, ...]] | Callable[[], list[np.ndarray]]
    makers: dict[str, Maker]
    exact: dict[str, Maker] = field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0
    bars: tuple[float, float] | None = None
    compiled: bool = False  # torch.compile is among the peers
    calls: int = 1
    tolerance: float = 1e-4
    most: int = 500

    def arrays(self) -> list[np.ndarray]:
        """The same in every process."""
        if callable(self.shapes):
            return self.shapes()
        generator = np.random.default_rng(0)
        return [generator.standard_normal(shape).astype(np.float32) for shape in self.shapes]


# --- functions of arrays --------------------------------------------------------------------------


def forward(ours: Callable[[], Any], torchs: Callable[[], Any], numpys: Any = None) -> dict:
    """Makers of a function; each argument returns it, so that only its own process imports it."""
    makers: dict[str, Maker] = {
        "metaop": lambda arrays, settings: settings.forward(ours(), arrays),
        "torch": lambda arrays, settings: settings.forward(torchs(), arrays),
    }
    if numpys is not None:
        makers["numpy"] = lambda arrays, settings: settings.forward(numpys, arrays)
    return makers


def gradients(ours: Callable[[], Any], torchs: Callable[[], Any]) -> dict[str, Maker]:
    """Makers of a function with its gradients; the last array is what comes from above."""
    return {
        "metaop": lambda arrays, settings: settings.gradients(ours(), arrays, []),
        "torch": lambda arrays, settings: settings.gradients(torchs(), arrays, []),
    }


def metaop_functional(name: str, *arguments: Any, **settings: Any) -> Callable[[], Any]:
    def get() -> Any:
        from metaop import nn

        function = getattr(nn.functional, name)
        return lambda x: function(x, *arguments, **settings)

    return get


def torch_functional(name: str, *arguments: Any, **settings: Any) -> Callable[[], Any]:
    def get() -> Any:
        from torch.nn import functional

        function = getattr(functional, name)
        return lambda x: function(x, *arguments, **settings)

    return get


def both(name: str, *arguments: Any, **settings: Any) -> tuple[Callable[[], Any], ...]:
    """A function that both frameworks have under one name."""
    return (
        metaop_functional(name, *arguments, **settings),
        torch_functional(name, *arguments, **settings),
    )


def numpy_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + 0.044715 * x * x * x)))


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def numpy_layer_norm(x: np.ndarray) -> np.ndarray:
    c = x - x.mean(1, keepdims=True)
    return c / np.sqrt((c * c).mean(1, keepdims=True) + np.float32(1e-5))


def matmul(a: Any, b: Any) -> Any:
    return a @ b


def metaop_batch_norm(arrays: list[np.ndarray], settings: Any) -> Work:
    from metaop import nn

    net = settings.network(nn.BatchNorm2d(arrays[0].shape[1]))
    relu = nn.functional.relu
    return settings.gradients(lambda x: relu(net(x)), arrays, list(net.parameters()))


def torch_batch_norm(arrays: list[np.ndarray], settings: Any) -> Work:
    from torch import nn

    net = settings.network(nn.BatchNorm2d(arrays[0].shape[1]))
    relu = nn.functional.relu
    return settings.gradients(lambda x: relu(net(x)), arrays, list(net.parameters()))


def contraction(row: Any, bars: tuple[float, float] | None = None) -> Row:
    """A row of benchmarks.contractions."""

    def ours() -> Any:
        import metaop as mo

        return lambda a, b: row.call(mo, a, b)

    def torchs() -> Any:
        import torch

        return lambda a, b: row.call(torch.nn.functional, a, b)

    shapes = row.shapes()
    if row.backward:
        makers = gradients(ours, torchs)
    else:
        shapes = shapes[:2]
        numpys = matmul if isinstance(row, contractions.Product) else None
        makers = forward(ours, torchs, numpys)
    nbytes = 4.0 * sum(math.prod(shape) for shape in row.shapes()) * (2 if row.backward else 1)
    return Row(row.name, shapes, makers, flops=row.flops, bytes=nbytes, bars=bars)


# --- networks -------------------------------------------------------------------------------------


def samples(shape: tuple[int, ...], classes: int = 10) -> Callable[[], list[np.ndarray]]:
    """A batch of noise with labels."""

    def make() -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        x = generator.standard_normal(shape).astype(np.float32)
        return [x, generator.integers(0, classes, shape[0])]

    return make


def metaop_model(name: str, *arguments: Any, **settings: Any) -> Callable[[], Any]:
    def get() -> Any:
        from metaop import nn

        return getattr(nn.models, name)(*arguments, **settings)

    return get


def training(
    name: str, shape: tuple[int, ...], ours: Callable[[], Any], torchs: Callable[[], Any],
    lr: float = 0.01, **more: Any,
) -> Row:  # fmt: skip
    """Steps of SGD on one batch; the first losses are compared."""
    nets = {"metaop": ours, "torch": torchs}

    def steps(net: Callable[[], Any]) -> Maker:
        return lambda arrays, s: s.training(s.network(net()), arrays, lr)

    def exact(net: Callable[[], Any]) -> Maker:
        return lambda arrays, s: s.loss_gradients(s.network(net()), arrays)

    return Row(
        name, samples(shape), {k: steps(net) for k, net in nets.items()},
        {k: exact(net) for k, net in nets.items()}, calls=3, **more,
    )  # fmt: skip


def inference(
    name: str, shape: tuple[int, ...], ours: Callable[[], Any], torchs: Callable[[], Any],
    batches: int = 1, **more: Any,
) -> Row:  # fmt: skip
    """`net(x)` in inference, for so many batches of that shape after each other."""

    def arrays() -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        return [generator.standard_normal((batches * shape[0], *shape[1:])).astype(np.float32)]

    def metaop(arrays: list[np.ndarray], settings: Any) -> Work:
        import metaop as mo

        call = settings.compiled(settings.network(ours()).eval())

        def work() -> list[Any]:
            with mo.no_grad():
                return [call(mo.array(x)).sync() for x in np.split(arrays[0], batches)][-1:]

        return work

    def torch(arrays: list[np.ndarray], settings: Any) -> Work:
        import torch

        call = settings.compiled(settings.network(torchs()).eval())

        def work() -> list[Any]:
            with torch.no_grad():
                given = (settings.given([x])[0] for x in np.split(arrays[0], batches))
                return [call(x) for x in given][-1:]

        return work

    return Row(name, arrays, {"metaop": metaop, "torch": torch}, **more)


# --- an LSTM in a Python loop, two operators that nobody ships, data loading ----------------------

LSTM = (128, 32, 64, 128)  # steps, batch, input size, hidden size


def metaop_lstm(arrays: list[np.ndarray], settings: Any) -> Work:
    from metaop import nn

    cell = settings.network(nn.LSTMCell(*LSTM[2:]))
    return settings.gradients(lambda xs: unrolled(cell, xs), arrays, list(cell.parameters()))


def torch_lstm(arrays: list[np.ndarray], settings: Any) -> Work:
    from torch import nn

    cell = settings.network(nn.LSTMCell(*LSTM[2:]))
    return settings.gradients(lambda xs: unrolled(cell, xs), arrays, list(cell.parameters()))


def unrolled(cell: Any, xs: Any) -> Any:
    """The state after the last step."""
    state = None
    for t in range(LSTM[0]):
        state = cell(xs[t], state)
    return state[0]


def windows_metaop(combine: str) -> Callable[[], Any]:
    """Max-plus or adder convolution in index notation, 3x3."""

    def get() -> Any:
        import metaop as mo

        def convolve(x: Any, w: Any) -> Any:
            batch, channels, height, width = x.shape
            outputs, _, window, _ = w.shape
            places = (height - window + 1, width - window + 1)
            n, o, i, j, c, r, s = mo.axes(batch, outputs, *places, channels, window, window)
            read, weight = x[n, c, i + r, j + s], w[o, c, r, s]
            if combine == "max-plus":
                return mo.max(read + weight, over=(c, r, s))
            return -mo.sum(abs(read - weight), over=(c, r, s))

        return convolve

    return get


def windows_torch(combine: str) -> Callable[[], Any]:
    """The same over PyTorch's unfold: [n, 1, c*r*s, places] against [1, o, c*r*s, 1]."""

    def get() -> Any:
        from torch.nn import functional

        def convolve(x: Any, w: Any) -> Any:
            taps = functional.unfold(x, w.shape[2])[:, None]
            weight = w.reshape(1, w.shape[0], -1, 1)
            if combine == "max-plus":
                y = (taps + weight).amax(2)
            else:
                y = -(taps - weight).abs().sum(2)
            size = x.shape[2] - w.shape[2] + 1
            return y.reshape(x.shape[0], w.shape[0], size, size)

        return convolve

    return get


def metaop_loader(arrays: list[np.ndarray], settings: Any) -> Work:
    from metaop.nn.data import DataLoader, TensorDataset

    data = TensorDataset(*arrays)
    loader = DataLoader(data, 256)

    def work() -> list[Any]:
        return [np.asarray(sum(float(np.asarray(x)[0, 0, 0]) for x, _ in loader))]

    return work


def torch_loader(arrays: list[np.ndarray], settings: Any) -> Work:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(*map(torch.from_numpy, arrays)), 256)

    def work() -> list[Any]:
        return [np.asarray(sum(float(x[0, 0, 0]) for x, _ in loader))]

    return work


# --- the table ------------------------------------------------------------------------------------

_BY_NAME = contractions.ALL
_MATRIX = (8192, 1024)
_NORM = ((1024,),)
_IMAGE = (64, 64, 56, 56)


def _elements(shape: tuple[int, ...], passes: int) -> float:
    """Bytes of so many passes over float32 numbers of this shape."""
    return 4.0 * passes * math.prod(shape)


def _row_function(
    name: str, arguments: tuple[Any, ...], numpys: Any, bars: tuple[float, float]
) -> list[Row]:
    functions = both(name, *arguments)
    title = name.replace("_", " ") + " 8192x1024"
    return [
        Row(title, [_MATRIX], forward(*functions, numpys), bytes=_elements(_MATRIX, 2), bars=bars,
            compiled=True),
        Row(f"{title} +bwd", [_MATRIX, _MATRIX], gradients(*functions),
            bytes=_elements(_MATRIX, 4), compiled=True),
    ]  # fmt: skip


def _contractions(bars: dict[str, tuple[float, float] | None]) -> list[Row]:
    return [contraction(_BY_NAME[name], bar) for name, bar in bars.items()]


def _by_winograd(row: Row) -> Row:
    """A row with `mo.winograd` in metaop; what any implementation needs is not known."""

    def make(arrays: list[np.ndarray], settings: Any) -> Work:
        import metaop as mo

        with mo.winograd():
            work = row.makers["metaop"](arrays, settings)
        return mo.winograd()(work)

    makers = {**row.makers, "metaop": make}
    return replace(row, name=f"{row.name}, Winograd", makers=makers, flops=0.0, bars=None)


ROWS = [
    training("LeNet+BN b256, step", (256, 1, 28, 28), metaop_model("LeNetBN"), networks.lenet,
             lr=0.1, flops=3 * 145.4e6, bars=(3, 3), compiled=True),
    Row("batch norm + ReLU 64x64x56x56 +bwd", [_IMAGE, _IMAGE],
        {"metaop": metaop_batch_norm, "torch": torch_batch_norm}, bytes=_elements(_IMAGE, 5),
        bars=(4, 2.5), compiled=True),
    Row("gelu(tanh) 16M", [(16, 1024, 1024)],
        forward(*both("gelu", approximate="tanh"), numpy_gelu),
        bytes=_elements((16, 1024, 1024), 2), bars=(1.3, 3), compiled=True),
    *_row_function("softmax", (1,), numpy_softmax, (2.5, 1.4)),
    *_row_function("layer_norm", _NORM, numpy_layer_norm, (2.5, 1.4)),
    *_contractions({
        "matmul 1024": (0.95, 0.95),
        "conv3x3 256 14² b32": (0.9, 0.9), "conv3x3 256 14² b32 +bwd": (0.9, 0.9),
        "conv3x3 64 56² b32": (1.1, 1), "conv3x3 64 56² b32 +bwd": (1.1, 1),
        "conv7x7s2 3→64 224² b32 +bwd": (2.5, 2), "conv1x1 256→64 56² b32 +bwd": (2.5, 1),
    }),
    training("MLP 784-512-512-10 b256, step", (256, 784), metaop_model("MLP"), networks.mlp,
             flops=6 * 256 * 668_672, bars=(1.3, 1.3), compiled=True),
    training("ResNet-18 CIFAR b64, step", (64, 3, 32, 32),
             metaop_model("resnet18", 10, stem="cifar"), networks.resnet18,
             flops=3 * 2 * 64 * 555.4e6, bars=(1, 1), tolerance=1e-3, most=5),
    training("transformer 4x d256 16x128, step", (16, 128, 256),
             metaop_model("TransformerClassifier"), networks.transformer,
             flops=3 * 14.0e9, bars=(1.3, 1.3), tolerance=1e-3, most=10),
]  # fmt: skip

_RESNET = (metaop_model("resnet18"), lambda: networks.resnet18(1000, "imagenet"))
_LENET = (metaop_model("LeNetBN"), networks.lenet)
_WINDOWS = [(8, 16, 32, 32), (16, 16, 3, 3)]
_FLOPS = 2.0 * 8 * 16 * 30 * 30 * 16 * 9
MORE = [
    *_contractions(dict.fromkeys(row.name for row in contractions.MORE)),
    *(_by_winograd(row) for row in ROWS if row.name.startswith(("conv3x3", "ResNet-18"))),
    inference("ResNet-18 224², batch 1", (1, 3, 224, 224), *_RESNET, flops=3.63e9),
    inference("LeNet+BN, 10 000 images at batch 1", (1, 1, 28, 28), *_LENET, batches=10_000,
              flops=10_000 * 0.568e6, most=1),
    inference("LeNet+BN, 10 240 images at batch 256", (256, 1, 28, 28), *_LENET, batches=40,
              flops=10_240 * 0.568e6),
    Row("LSTM cell, 128 steps +bwd", [LSTM[:3], (LSTM[1], LSTM[3])],
        {"metaop": metaop_lstm, "torch": torch_lstm},
        flops=3 * 2 * 128 * 32 * 4 * 128 * (64 + 128), most=20),
    *(Row(f"{kind} convolution 16→16 32² b8", _WINDOWS,
          forward(windows_metaop(kind), windows_torch(kind)), flops=_FLOPS, bars=(5, 5))
      for kind in ("max-plus", "adder")),
    Row("DataLoader, 60 000 images at batch 256",
        lambda: [np.zeros((60_000, 28, 28), np.uint8), np.arange(60_000)],
        {"metaop": metaop_loader, "torch": torch_loader}),
]  # fmt: skip
ALL = {row.name: row for row in [*ROWS, *MORE]}
