"""Looking inside: what a value will become, without computing anything.

mo.dump(y, stage="loops")       the text of a stage
mo.explain(y).kernels           every kernel: what it reads, writes, computes
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import life
from .build import times
from .compiler import pipeline
from .compiler.cost import flops_of, nbytes_of
from .compiler.emit_python import HEADER, emit_python
from .compiler.group import Boundary
from .compiler.keys import canonical
from .compiler.loops import show_kernel
from .compiler.nest import Tree
from .compiler.schedule import Scheduled
from .elementwise import square, subtract
from .extent import evaluate
from .graph import Elementwise, Node, pending
from .indexing import take_along_axis
from .reduction import logsumexp, mean
from .show import number_of, show_graph
from .var import Var, grad

STAGES = ("graph", "canonical", "fused", "loops", "source")


@dataclass
class KernelInfo:
    """One kernel of an explanation.

    nodes: the operators fused into it; reads, writes: buffers by name; bytes: of what it reads
    and writes, each buffer once; flops: arithmetic operations; source: as plain Python; chunks: the
    pieces that threads share out.
    """

    name: str
    nodes: list[str]
    reads: list[str]
    writes: list[str]
    bytes: int
    flops: int
    source: str
    chunks: int

    def __repr__(self) -> str:
        return (
            f"{self.name}: {', '.join(self.reads)} -> {', '.join(self.writes)}, "
            f"{self.bytes:,} bytes, {self.flops:,} flops, fuses {' '.join(self.nodes)}"
        )


@dataclass
class Explanation:
    """What computing some Vars takes: its kernels, and why they are not fewer."""

    kernels: list[KernelInfo]
    boundaries: list[Boundary]

    def __repr__(self) -> str:
        lines = [*map(repr, self.kernels), *(f"not fused: {b}" for b in self.boundaries)]
        return "\n".join(lines) or "nothing to compute"


def explain(*vars: Var) -> Explanation:
    """The kernels that computing these Vars will run; computes nothing itself."""
    stages = _Stages([v._node for v in vars], dynamic=True)
    kernels = [_kernel_info(s, stages) for s in stages.scheduled]
    return Explanation(kernels, stages.grouped.boundaries)


def _kernel_info(scheduled: Scheduled, stages: _Stages) -> KernelInfo:
    tree, names, sizes = scheduled.tree, stages.fused.names, stages.sizes
    reads, writes = tree.reads, tree.writes
    return KernelInfo(
        scheduled.kernel.name,
        _fused_names(tree, names),
        [b.name for b in reads if b not in writes],
        [b.name for b in writes],
        evaluate(nbytes_of([*reads, *writes]), sizes),
        evaluate(flops_of(tree), sizes),
        emit_python(scheduled.kernel, _comment(tree, names)),
        evaluate(scheduled.chunks, sizes),
    )


def _fused_names(tree: Tree, names: dict[Node, str]) -> list[str]:
    shown = [n for n in tree.nodes if n in names and number_of(n) is None]
    return list(dict.fromkeys(names[n] for n in sorted(shown, key=lambda n: n.sequence)))


def _comment(tree: Tree, names: dict[Node, str]) -> str:
    sites = dict.fromkeys(str(n.site) for n in tree.nodes)
    return f"fuses {' '.join(_fused_names(tree, names))}; from {', '.join(sites)}"


class _Stages:
    """Every stage of compiling some nodes, each computed once.

    dynamic: of the program for all sizes of the dynamic axes, which is what runs; else with numbers
    for them, as they are read.
    """

    def __init__(self, asked: Sequence[Node], dynamic: bool = False):
        # a computed value has no kernels: show it as a copy of what is in memory
        roots = [n if n.storage is None else Elementwise("copy", n) for n in asked]
        self.nodes = pending(roots)
        form = canonical(self.nodes, roots)
        self.sizes = form.values
        extents = form.extents if dynamic else pipeline.numbers
        self.recorded = pipeline.import_graph(self.nodes, roots, extents)
        self.canonical = pipeline.run_passes(self.recorded)
        self.fused, self.grouped = pipeline.group_graph(self.canonical)
        self.scheduled = [
            pipeline.schedule_nest(tree, number)
            for number, tree in enumerate(t for t in self.grouped.trees if isinstance(t, Tree))
        ]

    def text(self, stage: str, title: str) -> str:
        if stage == "graph":
            graph = self.recorded
            return show_graph(graph.nodes, graph.outputs, graph.names, title, sites=True)
        if stage == "canonical":
            graph = self.canonical
            return show_graph(graph.nodes, graph.outputs, graph.names, title)
        names = self.fused.names
        if stage == "fused":
            return self.fused_text()
        if stage == "loops":
            return "\n".join(
                f"# {_comment(s.tree, names)}; {_arguments(s)}\n{show_kernel(s.kernel)}"
                for s in self.scheduled
            )
        return (
            HEADER
            + "\n\n"
            + "\n\n".join(emit_python(s.kernel, _comment(s.tree, names)) for s in self.scheduled)
        )

    def fused_text(self) -> str:
        """Which nests became one kernel, and why the others did not."""
        lines = []
        for one in self.scheduled:
            lines.append(f"{one.kernel.name}: {_arguments(one)}")
            lines += ["  " + line for line in one.tree.show().splitlines()]
        if self.grouped.boundaries:
            lines.append("boundaries")
            lines += [f"  {boundary}" for boundary in self.grouped.boundaries]
        return "\n".join(lines) + "\n"


def _arguments(scheduled: Scheduled) -> str:
    integers = ", ".join(f"{name}={value}" for name, value in scheduled.integers.items())
    return f"{scheduled.chunks} chunks{', ' + integers if integers else ''}"


def dump(
    target: Any,
    stage: str = "graph",
    file: str | os.PathLike[str] | None = None,
    *,
    inputs: Sequence[Var] = (),
    train: bool = False,
    title: str | None = None,
) -> str:
    """The text of a stage of what `target` becomes; also written to `file` if given.

    target: a Var, several, a Module or function of Vars (called with `inputs`), or a function of
    no arguments.  stage: graph (as recorded), canonical (after the passes), fused (which nests are
    one kernel, and why the others are not), loops, source, or all.
    train: with the loss, gradients and a step of SGD 0.1; without a loss of its own, cross-entropy
    for [N, C] outputs with drawn labels, else the mean square.  Computes nothing of the target.
    """
    if stage not in (*STAGES, "all"):
        raise ValueError(f"dump: stage must be one of {', '.join(STAGES)} or all, not {stage!r}")
    wanted = STAGES if stage == "all" else (stage,)
    title = title or getattr(target, "__name__", type(target).__name__).lower()
    stages = _Stages(_recorded(target, inputs, train))
    parts = [stages.text(one, title) for one in wanted]
    text = "\n".join(parts) if stage != "all" else "\n".join(
        f"# ---- {one}\n{part}" for one, part in zip(wanted, parts)
    )  # fmt: skip
    if file is not None:
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
    return text


class _Rehearsed(Exception):
    """Leaves a transaction so that its writes are undone."""


def _recorded(target: Any, inputs: Sequence[Var], train: bool) -> list[Node]:
    """The nodes to show; writes that recording them makes are undone."""
    nodes: list[Node] = []
    target = called(target)
    if hasattr(target, "parameters"):
        life.sync()  # a network's initial values are not part of what is shown
    try:
        with life.transaction():
            outputs = outputs_of(target, inputs)
            if train:
                outputs = training_step(target, outputs)
            nodes = [v._node for v in outputs] + life.recorded_writes()
            raise _Rehearsed
    except _Rehearsed:
        pass
    return nodes


def called(target: Any) -> Any:
    """What a function of no arguments (or a Module's class) returns; anything else as it is."""
    if isinstance(target, Var) or (hasattr(target, "parameters") and not isinstance(target, type)):
        return target
    if callable(target):
        try:
            inspect.signature(target).bind()
        except (TypeError, ValueError):
            return target
        return target()
    return target


def outputs_of(target: Any, inputs: Sequence[Var]) -> list[Var]:
    """The Vars that a target is, or returns for the inputs."""
    if callable(target) and not isinstance(target, Var):
        target = target(*inputs)
    if isinstance(target, Var):
        return [target]
    if isinstance(target, dict):
        target = list(target.values())
    if isinstance(target, list | tuple) and target and all(isinstance(v, Var) for v in target):
        return list(target)
    raise TypeError(f"dump: expected Vars or something that returns Vars, got {target!r}")


def training_step(target: Any, outputs: list[Var]) -> list[Var]:
    """The loss of the outputs, and what a step of SGD 0.1 would make of each parameter."""
    loss = outputs[0]
    if loss.ndim or not loss.dtype.is_float:
        loss = _drawn_loss(loss)
    parameters = list(target.parameters()) if hasattr(target, "parameters") else []
    if not parameters:
        raise TypeError("dump(train=True): the target has no parameters() to train")
    gradients = grad(loss, parameters, retain_graph=False)
    with life.not_recording_gradients():
        steps = [
            Var._of(Elementwise("sub", p._node, times(g._node, 0.1)))
            for p, g in zip(parameters, gradients)
        ]
    return [loss, *steps]


def _drawn_loss(output: Var) -> Var:
    """Cross-entropy with drawn labels for [N, C], else the mean square distance from noise."""
    generator = np.random.default_rng(0)
    if output.ndim == 2:
        labels = Var(generator.integers(0, output.shape[1], (output.shape[0], 1)))
        chosen = take_along_axis(output, labels, 1)[:, 0]
        return mean(subtract(logsumexp(output, 1), chosen))
    target = Var(generator.standard_normal(output.shape), output.dtype)
    return mean(square(subtract(output, target)))
