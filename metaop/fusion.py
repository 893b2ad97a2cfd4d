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
