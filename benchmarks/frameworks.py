"""The contestants: in which process, with which settings, a framework computes a row.

A maker of a row gets the arrays and one of these; it returns the work, a function without arguments
that computes the row once and returns its results.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.turns import Work

# glibc keeps freed pages instead of giving them back and faulting them in again.
KEEP_PAGES = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), "10000000000")


@dataclass
class Metaop:
    """metaop, with `mo.jit` or without."""

    jit: bool = True
    dtype: str = "float32"

    def start(self, threads: int) -> None:
        import metaop as mo

        mo.set_num_threads(threads)

    def versions(self) -> dict[str, str]:
        import llvmlite
        import numba

        import metaop as mo

        return {"metaop": mo.__version__, "numba": numba.__version__,
                "llvmlite": llvmlite.__version__}  # fmt: skip

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import metaop as mo

        return mo.jit(function) if self.jit else function

    def given(self, arrays: list[np.ndarray]) -> list[Any]:
        import metaop as mo

        return [mo.array(x) for x in arrays]

    def forward(self, function: Callable[..., Any], arrays: list[np.ndarray]) -> Work:
        """`function(*arrays)`."""
        import metaop as mo

        given, call = self.given(arrays), self.compiled(function)

        def work() -> list[Any]:
            with mo.no_grad():
                result = call(*given)
            mo.sync()
            return [result]

        return work

    def gradients(
        self, function: Callable[..., Any], arrays: list[np.ndarray], parameters: list[Any]
    ) -> Work:
        """`function` of all arrays but the last, and its gradients for the last one, in the arrays
        and the parameters."""
        import metaop as mo

        *given, upstream = self.given(arrays)

        @self.compiled
        def both(*values: Any) -> list[Any]:
            *inputs, g = values
            inputs = [x.detach().requires_grad_() for x in inputs]
            y = function(*inputs)
            return [y, *mo.grad(y, [*inputs, *parameters], g, retain_graph=False)]

        def work() -> list[Any]:
            results = both(*given, upstream)
            mo.sync()
            return [result.detach() for result in results]

        return work

    def network(self, net: Any) -> Any:
        net.load_state_dict(state_of({k: v.shape for k, v in net.state_dict().items()}))
        return net

    def training(self, net: Any, arrays: list[np.ndarray], lr: float) -> Work:
        """Steps of SGD on cross-entropy; each returns its loss."""
        from metaop import nn

        optimizer = nn.optim.SGD(net.parameters(), lr=lr)

        @self.compiled
        def step(x: Any, labels: Any) -> Any:
            loss = nn.functional.cross_entropy(net(x), labels)
            optimizer.step(loss)
            return loss

        given = self.given(arrays)
        return lambda: [step(*given).detach()]

    def loss_gradients(self, net: Any, arrays: list[np.ndarray]) -> Work:
        """The loss and its gradients in all parameters."""
        import metaop as mo
        from metaop import nn

        def work() -> list[Any]:
            x, labels = self.given(arrays)
            loss = nn.functional.cross_entropy(net(x), labels)
            results = [loss, *mo.grad(loss, list(net.parameters()))]
            mo.sync()
            return [result.detach() for result in results]

        return work


@dataclass
class Torch:
    """PyTorch, eager or compiled, its 4-d arrays contiguous or channels_last."""

    compile: bool = False
    channels_last: bool = False
    dtype: str = "float32"

    def start(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_default_dtype(getattr(torch, self.dtype))

    def versions(self) -> dict[str, str]:
        import torch

        return {"torch": torch.__version__}

    def compiled(self, function: Any) -> Any:
        import torch

        return torch.compile(function) if self.compile else function

    def laid_out(self, x: Any) -> Any:
        import torch

        if self.channels_last and x.ndim == 4:
            return x.to(memory_format=torch.channels_last)
        return x

    def given(self, arrays: list[np.ndarray]) -> list[Any]:
        import torch

        kinds = [self.dtype if x.dtype.kind == "f" else x.dtype for x in arrays]
        return [self.laid_out(torch.from_numpy(x.astype(k))) for x, k in zip(arrays, kinds)]

    def forward(self, function: Callable[..., Any], arrays: list[np.ndarray]) -> Work:
        import torch

        given, call = self.given(arrays), self.compiled(function)

        def work() -> list[Any]:
            with torch.no_grad():
                return [call(*given)]

        return work

    def gradients(
        self, function: Callable[..., Any], arrays: list[np.ndarray], parameters: list[Any]
    ) -> Work:
        import torch

        *given, upstream = self.given(arrays)
        inputs = [x.requires_grad_() for x in given]
        call = self.compiled(function)

        def work() -> list[Any]:
            y = call(*inputs)
            grads = torch.autograd.grad(y, [*inputs, *parameters], upstream)
            return [y.detach(), *grads]

        return work

    def network(self, net: Any) -> Any:
        import torch

        state = state_of({k: tuple(v.shape) for k, v in net.state_dict().items()})
        net.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in state.items()})
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def training(self, net: Any, arrays: list[np.ndarray], lr: float) -> Work:
        import torch

        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        (x, labels), call = self.given(arrays), self.compiled(net)

        def work() -> list[Any]:
            loss = torch.nn.functional.cross_entropy(call(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return [loss.detach()]

        return work

    def loss_gradients(self, net: Any, arrays: list[np.ndarray]) -> Work:
        import torch

        x, labels = self.given(arrays)

        def work() -> list[Any]:
            loss = torch.nn.functional.cross_entropy(net(x), labels)
            return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]

        return work


@dataclass
class Numpy:
    """NumPy with its BLAS."""

    dtype: str = "float32"

    def start(self, threads: int) -> None:
        """OPENBLAS_NUM_THREADS is set."""

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def forward(self, function: Callable[..., Any], arrays: list[np.ndarray]) -> Work:
        return lambda: [function(*arrays)]


def state_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Values of a state dict by its names and shapes: He's initial weights, scales 1, biases 0."""
    state = {}
    for name, shape in shapes.items():
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) > 1:
            deviation = (2 / np.prod(shape[1:])) ** 0.5
            state[name] = (deviation * generator.standard_normal(shape)).astype(np.float32)
        elif name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
        else:
            one = name.endswith(("weight", "running_var"))
            state[name] = np.full(shape, one, np.float32)
    return state


@dataclass(frozen=True)
class Contestant:
    """A process: whose makers it uses, with what settings and environment."""

    maker: str  # of a row
    framework: Any
    title: str
    variables: dict[str, str]


CONTESTANTS = {
    "metaop": Contestant("metaop", Metaop(), "metaop", {}),
    "plain": Contestant("metaop", Metaop(jit=False), "metaop without jit", {}),
    "eager": Contestant("torch", Torch(), "PyTorch eager", {}),
    "compile": Contestant("torch", Torch(compile=True), "torch.compile", {}),
    "pages": Contestant("torch", Torch(), "PyTorch keeping pages", KEEP_PAGES),
    "last": Contestant(
        "torch", Torch(channels_last=True), "PyTorch keeping pages, channels_last", KEEP_PAGES
    ),
    "numpy": Contestant("numpy", Numpy(), "NumPy", {}),
    "float64": Contestant("torch", Torch(dtype="float64"), "PyTorch in float64", {}),
}
DEFAULT, EXPERT = ("eager", "compile", "numpy"), ("pages", "last")


@contextlib.contextmanager
def closing(workers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The workers, ended when done."""
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()
