"""Looking inside: what a value will become, without computing anything.

mo.dump(y, stage="loops")       a stage as text, JSON or a picture
mo.print_graph(y)               the graph as text
mo.explain(y).kernels           every kernel: what it reads, writes, computes
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import life
from .build import times
from .compiler.boundary import Boundary, by_kernels
from .compiler.collector import collecting_seldom
from .elementwise import square, subtract
from .graph import Elementwise, Node
from .indexing import take_along_axis
from .jitted import Jitted
from .placeholder import leaves_of
from .profiling import profile
from .promised import promise_pending
from .recording import recording
from .reduction import logsumexp, mean
from .stages import STAGES, Stages, Step
from .var import Var, grad

FORMATS = ("text", "json", "dot", "svg", "html")


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
        work = f"{self.flops:,} flops, fuses {' '.join(self.nodes)}" if self.nodes else "packs"
        return (
            f"{self.name}: {', '.join(self.reads)} -> {', '.join(self.writes)}, "
            f"{self.bytes:,} bytes, {work}"
        )


@dataclass
class Explanation:
    """What computing some Vars takes: its kernels, and why they are not fewer; what the host
    computes between them."""

    kernels: list[KernelInfo]
    boundaries: list[Boundary]
    callbacks: list[str]

    def __repr__(self) -> str:
        lines = [*map(repr, self.kernels), *(f"host callback: {c}" for c in self.callbacks)]
        lines += [f"not fused: {line}" for line in by_kernels(self.boundaries)]
        return "\n".join(lines) or "nothing to compute"


def explain(*targets: Any, inputs: Sequence[Var] = ()) -> Explanation:
    """The kernels that computing targets will run; computes nothing itself.

    targets: Vars, structures of them (tuples, lists, dicts), or one Module or function, which is
    called with `inputs`, or without arguments.
    """
    target = targets[0] if len(targets) == 1 else list(targets)
    stages = stages_of(target, inputs, False, "graph")
    kernels = [_kernel_info(step, stages) for step in stages.steps]
    return Explanation(kernels, stages.boundaries, stages.callbacks)


def _kernel_info(step: Step, stages: Stages) -> KernelInfo:
    return KernelInfo(
        step.name,
        stages.names_of(step),
        [b.name for b in step.reads],
        [b.name for b in step.writes],
        stages.bytes_of(step),
        stages.flops_of(step),
        stages.source_of(step),
        step.chunks,
    )


def dump(
    target: Any,
    stage: str = "graph",
    file: str | os.PathLike[str] | None = None,
    *,
    format: str = "text",
    inputs: Sequence[Var] = (),
    train: bool = False,
    title: str | None = None,
    pass_name: str | None = None,
    kernels: Sequence[str] = (),
    profile: profile | Mapping[str, Any] | None = None,
) -> str:
    """A stage of what `target` becomes: text, JSON or a picture; also written to `file` if given.

    target: a Var, several, a Module or function of Vars (called with `inputs`), or a function of
    no arguments.  stage: graph (as recorded), canonical (after the passes), fused (which nests are
    one kernel, and why the others are not), loops, source, llvm (after the optimiser's passes), asm
    (machine code), memory (buffers, their lives, the arena), or all; by default graph.
    format: text, json (docs/inspect.md has the schema), dot (for Graphviz), svg, or html (one page
    of everything, whatever the stage).  kernels: names of those whose code is wanted.
    train: with the loss, gradients and a step of SGD 0.1; without a loss of its own, cross-entropy
    for [N, C] outputs with drawn labels, else the mean square.  pass_name: instead of a stage, the
    graph before and after a pass, as a unified diff.  profile: a `mo.profile` of this program,
    or {"k0": {"seconds": …, "roofline": share}}; JSON has it, the page shades by it.  Computes
    nothing of the target.
    """
    if stage not in (*STAGES, "all"):
        raise ValueError(f"dump: stage must be one of {', '.join(STAGES)} or all, not {stage!r}")
    if format not in FORMATS:
        raise ValueError(f"dump: format must be one of {', '.join(FORMATS)}, not {format!r}")
    name = title or str(getattr(target, "__name__", type(target).__name__.lower()))
    with collecting_seldom():
        stages = stages_of(target, inputs, train, name)
        if pass_name is not None:
            text = stages.difference(pass_name)
        elif format == "text":
            text = _text(stages, stage, kernels)
        else:
            from .pictures.render import render  # loads with the first picture

            text = render(stages, stage, format, kernels, _measured(stages, profile))
    if file is not None:
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
    return text


def stages_of(target: Any, inputs: Sequence[Var], train: bool, title: str) -> Stages:
    """The stages of a target, of its training step with `train`."""
    target = called(target)
    root = (type(target).__name__, title) if hasattr(target, "parameters") else ("", "")
    return Stages(_recorded(target, inputs, train), title, root=root)


def _text(stages: Stages, stage: str, kernels: Sequence[str]) -> str:
    if stage != "all":
        return stages.text(stage, kernels)
    return "\n".join(f"# ---- {one}\n{stages.text(one, kernels)}" for one in STAGES)


def _measured(
    stages: Stages, profile: profile | Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """What was measured of the kernels, by name."""
    if profile is None:
        return None
    if isinstance(profile, Mapping):
        return profile
    ours = {step.name: stages.flops_of(step) for step in stages.steps}
    theirs = {k.name: k.flops for k in profile.kernels if k.phase != "callback"}
    if profile.programs != 1 or ours != theirs:
        raise ValueError(
            f"dump: the profile is of {profile.programs} programs, or of another one than is shown "
            "(mo.jit may order kernels in its own way: take the profile without it)"
        )
    return profile.by_kernel()


def print_graph(*targets: Any, inputs: Sequence[Var] = ()) -> None:
    """Prints the graph of Vars, a Module or a function, as recorded."""
    target = targets[0] if len(targets) == 1 else list(targets)
    print(dump(target, inputs=inputs, title="graph"), end="")


def _recorded(target: Any, inputs: Sequence[Var], train: bool) -> list[Node]:
    """The nodes to show; writes that recording them makes are undone."""
    nodes: list[Node] = []
    with life.rehearsal():
        if callable(target) and not isinstance(target, Var):
            promise_pending()  # a network's initial values are not part of what is shown
        promises = len(life.recorded_writes())
        outputs = outputs_of(target, inputs)
        if train:
            outputs = training_step(target, outputs)
        nodes = [v._node for v in outputs] + life.recorded_writes()[promises:]
    return nodes


def called(target: Any) -> Any:
    """The Module or function that a function of no arguments (or a Module's class) makes; anything
    else as it is, a training step too: that is called when it is recorded."""
    if isinstance(target, Jitted):
        target = target.function  # what it records
    if inspect.iscoroutinefunction(target):
        raise TypeError("an async function cannot be looked at: its call returns no Vars")
    made_already = hasattr(target, "parameters") and not isinstance(target, type)
    if isinstance(target, Var) or made_already or not callable(target):
        return target
    try:
        inspect.signature(target).bind()
    except (TypeError, ValueError):
        return target
    with life.rehearsal() as rehearsal:
        made = target()
        rehearsal.keep = callable(made) and not isinstance(made, Var)
    return made if rehearsal.keep else target


def outputs_of(target: Any, inputs: Sequence[Var]) -> list[Var]:
    """The Vars that a target is, or returns for the inputs."""
    if callable(target) and not isinstance(target, Var):
        target = target(*inputs)
    outputs = leaves_of(target)
    if outputs and all(isinstance(v, Var) for v in outputs):
        return outputs
    raise TypeError(f"expected Vars or something that returns Vars, got {_kind_of(target)}")


def _kind_of(value: Any) -> str:
    """`None`, `5`; what may be long or show an address by its type: `generator`, `[Var, str]`."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(dict.fromkeys(type(v).__name__ for v in value))}]"
    return type(value).__name__


def training_step(target: Any, outputs: list[Var]) -> list[Var]:
    """The loss of the outputs, and what a step of SGD 0.1 would make of each parameter."""
    loss = outputs[0]
    if loss.ndim or not loss.dtype.is_float:
        loss = _drawn_loss(loss)
    named = list(target.named_parameters()) if hasattr(target, "named_parameters") else []
    if not named:
        raise TypeError("dump(train=True): the target has no parameters() to train")
    gradients = grad(loss, [parameter for _, parameter in named], retain_graph=False)
    scope = recording.scope
    steps = []
    with life.not_recording_gradients():
        for (name, p), g in zip(named, gradients):
            path = ".".join([type(target).__name__, *name.split(".")[:-1]])
            recording.scope = scope.inner(path).within("optimizer")
            steps.append(Var._of(Elementwise("sub", p._node, times(g._node, 0.1))))
        recording.scope = scope
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
