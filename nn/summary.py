"""The table of a network's layers: output shapes, parameters, arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import metaop as mo
from metaop import support

from .module import Module


@dataclass
class Row:
    """One module: its path, its class, the shape of what it returned last, parameters, flops.

    Parameters and flops are its own, those of its submodules left out, so that the rows add up;
    flops: of all its calls together.  output is "" where it was not called.
    """

    path: str
    kind: str
    output: str
    parameters: int
    flops: int


@dataclass
class Summary:
    """The rows of a network and their totals; `print` shows the table.

    flops are counted in the recorded graph: 1 for an arithmetic operation on an element, so 2 for a
    multiply-add; comparisons, selections and moves are free.
    """

    rows: list[Row]
    parameters: int
    trained: int
    flops: int

    def __repr__(self) -> str:
        head = ("layer", "module", "output", "parameters", "flops")
        lines = [
            (r.path or ".", r.kind, r.output or "not called", f"{r.parameters:,}", f"{r.flops:,}")
            for r in self.rows
        ]
        total = ("total", "", "", f"{self.parameters:,}", f"{self.flops:,}")
        widths = [max(map(len, column)) for column in zip(head, *lines, total)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        table = [_line(head, widths), rule, *(_line(line, widths) for line in lines), rule]
        table.append(_line(total, widths))
        return "\n".join(table) + f"\n{self.trained:,} of the parameters are trained"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Texts to the left, numbers to the right."""
    aligned = [c.ljust(w) for c, w in zip(cells[:3], widths)]
    aligned += [c.rjust(w) for c, w in zip(cells[3:], widths[3:])]
    return "  ".join(aligned).rstrip()


@dataclass
class _Call:
    path: str
    start: int
    end: int
    output: Any


def summary(net: Module, *inputs: Any) -> Summary:
    """The layers of a network as `net(*inputs)` in inference uses them.  Computes nothing.

    inputs: what `net` takes; only shapes and dtypes matter.  What a forward pass computes at once,
    because it reads a value, is not counted.
    """
    calls: list[_Call] = []
    with _inference(net), _watched(net, calls), mo.no_grad():
        net(*inputs)
    results = [var for call in calls for var in _vars(call.output)]
    spans = [(call.start, call.end) for call in calls]
    flops: dict[str, int] = {}
    for call, count in zip(calls, support.flops_by_span(results, spans), strict=True):
        flops[call.path] = flops.get(call.path, 0) + count
    outputs = {call.path: _shapes(call.output) for call in calls}
    rows = []
    for path, module in net.named_modules():
        own = [p for _, p in module.named_parameters(recurse=False)]
        called = path in outputs
        if own or (called and (flops[path] or not list(module.children()))):
            kind = type(module).__name__
            size = sum(p.size for p in own)
            rows.append(Row(path, kind, outputs.get(path, ""), size, flops.get(path, 0)))
    parameters = list(net.parameters())
    return Summary(
        rows,
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.requires_grad),
        sum(flops.values()),
    )


@contextmanager
def _inference(net: Module) -> Iterator[None]:
    """All modules in inference mode, for a while."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _watched(net: Module, calls: list[_Call]) -> Iterator[None]:
    """Each call of a module of the tree is noted, for a while."""
    modules = list(net.named_modules())
    before = [(module, module.__dict__.get("forward")) for _, module in modules]
    for path, module in modules:
        object.__setattr__(module, "forward", _noting(path, module.forward, calls))
    try:
        yield
    finally:
        for module, own in before:
            object.__delattr__(module, "forward")
            if own is not None:
                object.__setattr__(module, "forward", own)


def _noting(path: str, forward: Callable[..., Any], calls: list[_Call]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        start = support.moment()
        output = forward(*args, **kwargs)
        calls.append(_Call(path, start, support.moment(), output))
        return output

    return noted


def _vars(output: Any) -> list[mo.Var]:
    """The Vars in what a module returns."""
    if isinstance(output, mo.Var):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [v for item in output for v in _vars(item)] if isinstance(output, list | tuple) else []


def _shapes(output: Any) -> str:
    return ", ".join(mo.errors.describe(var) for var in _vars(output)) or type(output).__name__
