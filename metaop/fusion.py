"""What a user can say about fusion: where it stops, whether it happens, what it brings."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ContextDecorator
from dataclasses import dataclass
from typing import Any

from .config import config
from .elementwise import node_of
from .graph import Elementwise
from .var import Var


class no_fuse(ContextDecorator):  # noqa: N801 - read as a word in a with statement
    """Values computed inside are computed nest by nest, each in a kernel of its own.

    with mo.no_fuse():
        y.sync()
    """

    def __init__(self) -> None:
        self._saved: list[bool] = []

    def __enter__(self) -> no_fuse:
        self._saved.append(config.fuse)
        config.fuse = False
        return self

    def __exit__(self, *exception: Any) -> None:
        config.fuse = self._saved.pop()


class winograd(ContextDecorator):  # noqa: N801 - read as a word in a with statement
    """Computes sums over 3 x 3 windows of stride 1 by Winograd's algorithm from now on, or inside a
    `with`, or in a function: what is *computed* then, whenever it was recorded.

    mo.winograd(True)
    with mo.winograd(False):
        y.sync()

    `F(2x2, 3x3)`: Y = A [(G w G^T) * (B x B^T)] A^T for every tile of 2 x 2 results, with 16
    multiplications instead of 36.  It is used for convolutions and the gradients of their images
    where there are channels enough, on float32 and float64.  Results differ in rounding: with 256
    channels of float32 their relative root mean square error is 5e-7, of the sums themselves 3e-7.
    An infinity or a NaN reaches all results of its tile.

    It holds for the Python thread that says so.  Off by default, METAOP_WINOGRAD=1 turns it on.
    Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015.
    """

    def __init__(self, enabled: bool = True):
        self.enabled = bool(enabled)
        self._saved = [config.winograd]
        config.winograd = self.enabled

    def __call__(self, function: Any) -> Any:
        """The function, computing so."""
        config.winograd = self._saved[0]  # a decorator changes nothing where it stands
        return super().__call__(function)

    def _recreate_cm(self) -> winograd:
        return winograd(self.enabled)

    def __enter__(self) -> winograd:
        config.winograd = self.enabled
        return self

    def __exit__(self, *exception: Any) -> None:
        config.winograd = self._saved[0]


def stop_fuse(x: Any) -> Var:
    """x, written to memory before anything that is made of the result is computed.

    Gradient: passes.  Source: as Var.stop_fuse in Jittor.
    """
    return Var._of(Elementwise("barrier", node_of(x)))


@dataclass
class Cost:
    """Kernels launched, bytes that they read and write, milliseconds (the median)."""

    kernels: int
    bytes: int
    ms: float


@dataclass
class Comparison:
    """What `compare` found: the cost with fusion and without."""

    fused: Cost
    unfused: Cost

    def __repr__(self) -> str:
        rows = [f"{'':8} {'kernels':>8} {'bytes':>16} {'ms':>10}"]
        for name, cost in (("fused", self.fused), ("unfused", self.unfused)):
            rows.append(f"{name:8} {cost.kernels:8} {cost.bytes:16,} {cost.ms:10.3f}")
        return "\n".join(rows)


def compare(function: Callable[..., Any], *arguments: Any, rounds: int = 5) -> Comparison:
    """The cost of computing `function(*arguments)` fused and unfused, in turn, after a first time.

    function: returns a Var, or a list, tuple or dict of Vars.  Writes that it makes take effect.
    """
    costs = []
    times: dict[bool, list[float]] = {True: [], False: []}
    from statistics import median  # not at the start: it imports six modules

    saved = config.fuse
    try:
        for fuse in (True, False):
            config.fuse = fuse
            costs.append(_explained(function, arguments))
        for _ in range(rounds):
            for fuse in (True, False):
                config.fuse = fuse
                started = time.perf_counter()
                _compute(function(*arguments))
                times[fuse].append(1e3 * (time.perf_counter() - started))
    finally:
        config.fuse = saved
    for cost, fuse in zip(costs, (True, False)):
        cost.ms = median(times[fuse])
    return Comparison(*costs)


def _vars(found: Any) -> list[Var]:
    if isinstance(found, Var):
        return [found]
    items = list(found.values()) if isinstance(found, dict) else list(found)
    return [v for item in items for v in _vars(item)]


def _compute(found: Any) -> None:
    for var in _vars(found):
        var.sync()


def _explained(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Cost:
    from .inspection import explain  # loads every stage of the compiler

    made = _vars(function(*arguments))
    kernels = explain(*made).kernels
    for var in made:
        var.sync()
    return Cost(len(kernels), sum(k.bytes for k in kernels), 0.0)
