"""The life of a program, from recorded nodes to launches; the passes in order, one list.

nodes --import--> graph --PASSES--> graph --fuse--> nests --schedule--> kernels --> program
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metaop.config import config
from metaop.errors import CompilerBug, MetaopError
from metaop.graph import Escape, Node, Scalar

from . import nest as nests_module
from . import rewrite
from .arena import plan_arena
from .fuse import Fused, fuse
from .loops import Kernel, show_kernel
from .loops import verify as verify_kernel
from .merge import merge_copies
from .nest import Buffer, Nest
from .passes.algebra import algebra
from .passes.compose import compose
from .passes.invert import invert
from .passes.share import share
from .passes.split import split
from .program import FailedCheck, HostCall, KernelLaunch, Program
from .rewrite import Graph, Input
from .schedule import Scheduled, schedule
from .signals import uninterrupted

GraphPass = Callable[[Graph], Graph]

PASSES: list[tuple[str, GraphPass]] = [
    ("share", share),
    ("algebra", algebra),
    ("invert", invert),
    ("split", split),
    ("compose", compose),
    ("share", share),
]


@dataclass
class Statistics:
    """What the compiler did in this process."""

    compiled: int = 0
    compile_seconds: float = 0.0
    programs: int = 0


statistics = Statistics()
_kernels: dict[str, Any] = {}
_programs: dict[Any, Program] = {}
_compiling = threading.RLock()


# -------------------------------------------------------------------------------------- keys


def structure_of(nodes: list[Node], asked: list[Node]) -> tuple[Any, list[Node]]:
    """The key of a recorded graph, and its leaves in the order of the program's inputs.

    Two graphs of equal keys differ only in what their leaves hold.
    """
    number: dict[Node, int] = {}
    leaves: list[Node] = []
    key: list[Any] = []
    for position, node in enumerate(nodes):
        number[node] = position
        if is_leaf(node):
            leaves.append(node)
            key.append(("leaf", node.shape, node.dtype.name, isinstance(node, Scalar)))
        else:
            inputs = tuple([number[i] for i in node.inputs])
            key.append((node.signature, node.shape, inputs, node.requires_grad))
    return (tuple(key), tuple([number[n] for n in asked]), config.cpu), leaves


def is_leaf(node: Node) -> bool:
    """True for what a program takes as an input."""
    return node.storage is not None or (isinstance(node, Scalar) and not node.literal)


# ------------------------------------------------------------------------------------- stages


def import_graph(nodes: list[Node], asked: list[Node]) -> Graph:
    """The recorded nodes as a graph of its own, leaves replaced by inputs."""
    new: dict[Node, Node] = {}
    inputs: list[Input] = []
    keep: dict[Node, list[int]] = {}
    for position, node in enumerate(nodes):
        if is_leaf(node):
            new[node] = Input(len(inputs), node.shape, node.dtype)
            new[node].site = node.site
            inputs.append(new[node])  # type: ignore[arg-type]
            continue
        new[node] = rewrite.rebuild(node, tuple(new[i] for i in node.inputs))
        new[node].site = node.site
        if node.requires_grad:
            keep.setdefault(new[node], []).append(position)
    return Graph([new[n] for n in asked], inputs, keep)


def run_passes(graph: Graph, after: Callable[[str, Graph], None] | None = None) -> Graph:
    """The graph after every pass; `after(name, graph)` sees each stage."""
    for name, graph_pass in PASSES:
        try:
            graph = graph_pass(graph)
            if config.check:
                rewrite.verify(graph)
        except MetaopError:
            raise
        except Exception as error:
            raise CompilerBug(f"pass {name}: {type(error).__name__}: {error}") from error
        if after is not None:
            after(name, graph)
    return graph


def fuse_graph(graph: Graph) -> Fused:
    """Nests with superfluous copies merged away."""
    fused = merge_copies(fuse(graph))
    if config.check:
        for nest in fused.nests:
            if isinstance(nest, Nest):
                nests_module.verify(nest)
    return fused


def schedule_nest(nest: Nest, number: int) -> Scheduled:
    """The kernel of a nest."""
    scheduled = schedule(nest, f"k{number}")
    if config.check:
        verify_kernel(scheduled.kernel)
    return scheduled


def kernel_key(kernel: Kernel) -> str:
    """The text of a kernel with canonical names: equal keys are one piece of machine code."""
    names = {kernel.name: "k"}
    for position, parameter in enumerate(kernel.buffers):
        names[parameter.name] = f"b{position}"
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    return pattern.sub(lambda match: names[match.group(1)], show_kernel(kernel))


# ------------------------------------------------------------------------------------ program


def program_for(nodes: list[Node], asked: list[Node]) -> tuple[Program, list[Node]]:
    """The program that computes `asked`, from the cache or compiled now, and its leaves."""
    key, leaves = structure_of(nodes, asked)
    program = _programs.get(key)
    if program is None:
        with _compiling:
            program = _programs.get(key)
            if program is None:
                program = compile_program(nodes, asked)
                if not any(isinstance(n, Escape) and n.key is None for n in nodes):
                    _programs[key] = program
    return program, leaves


def compile_program(nodes: list[Node], asked: list[Node]) -> Program:
    """Runs every stage."""
    graph = run_passes(import_graph(nodes, asked))
    fused = fuse_graph(graph)
    statistics.programs += 1
    return _Assembler(nodes, graph, fused).program()


class _Assembler:
    """Puts kernels, buffers and phases together into plain data."""

    def __init__(self, nodes: list[Node], graph: Graph, fused: Fused):
        self.nodes, self.graph, self.fused = nodes, graph, fused
        self.position_of_site = {id(node.site): k for k, node in reversed(list(enumerate(nodes)))}
        self.leaves = [node for node in nodes if is_leaf(node)]
        self.slots: dict[Buffer, int] = {}
        self.checks: list[FailedCheck] = []
        self.count = 0

    def program(self) -> Program:
        self.keep_stored()
        buffers = [b for b in self.fused.buffers if b.size >= 0]
        for slot, buffer in enumerate(buffers, start=1):
            self.slots[buffer] = slot
        segments = self.segments()
        offsets, arena_bytes = plan_arena(self.lifetimes(segments))
        outputs = [b for b in buffers if b.role == "out"]
        number = {b: k for k, b in enumerate(outputs)}
        return Program(
            inputs=[
                (self.slots[self.input_buffer(node)], node.dtype, self.is_number(node))
                for node in self.graph.inputs
            ],
            outputs=[(self.slots[b], b.nbytes) for b in outputs],
            temporaries=[(self.slots[b], offset) for b, offset in offsets.items()],
            arena_bytes=arena_bytes,
            results=[self.result(node, number) for node in self.graph.outputs],
            kept=[
                (position, number[self.fused.place[node]])
                for node, positions in self.graph.keep.items()
                for position in positions
                if node in self.fused.place and self.fused.place[node] in number
            ],
            segments=segments,
            checks=self.checks,
            slots=len(buffers) + 1,
        )

    def keep_stored(self) -> None:
        """A stored value through which a gradient may be asked for outlives the program."""
        for node in self.graph.keep:
            buffer = self.fused.place.get(node)
            if buffer is not None and buffer.role == "tmp":
                buffer.role = "out"

    def input_buffer(self, node: Input) -> Buffer:
        return self.fused.place[node]

    def is_number(self, node: Input) -> bool:
        return isinstance(self.leaves[node.position], Scalar)

    def result(self, node: Node, number: dict[Buffer, int]) -> tuple[str, int]:
        buffer = self.fused.place[node]
        if buffer.role == "in":
            return ("in", buffer.position)
        return ("out", number[buffer])

    def segments(self) -> list[Any]:
        """Phases of launches; a nest joins the current phase if it needs nothing made in it."""
        segments: list[Any] = []
        phases: list[list[KernelLaunch]] = []
        made: set[Buffer] = set()
        for nest in self.fused.nests:
            if isinstance(nest, Escape):
                segments += [phases] if phases else []
                phases, made = [], set()
                segments.append(self.host_call(nest))
                continue
            if not phases or nest.target in made or made.intersection(nest.reads):
                phases.append([])
                made = set()
            phases[-1].append(self.launch(nest))
            made.add(nest.target)
        return segments + ([phases] if phases else [])

    def host_call(self, node: Escape) -> HostCall:
        place = self.fused.place
        return HostCall(
            node.call,
            [(self.slots[place[i]], i.dtype, i.shape) for i in node.inputs],
            (self.slots[place[node]], node.dtype, node.shape),
        )

    def launch(self, nest: Nest) -> KernelLaunch:
        scheduled = schedule_nest(nest, self.count)
        self.count += 1
        key = kernel_key(scheduled.kernel)
        integers = dict(scheduled.integers)
        for name, site in nest.checks.items():
            position = self.position_of_site.get(id(site.node.site), 0)
            integers[name] = len(self.checks)
            self.checks.append(FailedCheck(position, site.low, site.high))
        return KernelLaunch(
            key,
            scheduled.kernel,
            machine_code(key, scheduled.kernel).address,
            [self.slots[b] for b in scheduled.buffers],
            list(integers.values()),
            scheduled.chunks,
            nest,
        )

    def lifetimes(self, segments: list[Any]) -> list[tuple[Buffer, int, int]]:
        """Every temporary with the first and the last phase that touches it."""
        by_slot = {slot: b for b, slot in self.slots.items() if b.role == "tmp"}
        span: dict[Buffer, tuple[int, int]] = {}
        time_of_phase = 0
        for segment in segments:
            for phase in segment if not isinstance(segment, HostCall) else [segment]:
                touched = (
                    [s for s, _, _ in phase.inputs] + [phase.output[0]]
                    if isinstance(phase, HostCall)
                    else [slot for launch in phase for slot in launch.slots]
                )
                for slot in touched:
                    if slot in by_slot:
                        first, _ = span.get(by_slot[slot], (time_of_phase, 0))
                        span[by_slot[slot]] = (first, time_of_phase)
                time_of_phase += 1
        return [(buffer, first, last) for buffer, (first, last) in span.items()]


def machine_code(key: str, kernel: Kernel) -> Any:
    """The compiled kernel of a key, compiled now if it is new."""
    compiled = _kernels.get(key)
    if compiled is None:
        from .codegen import compile_kernel  # numba and llvmlite.ir load at the first compilation

        started = time.perf_counter()
        with uninterrupted():  # a signal inside one of LLVM's callbacks would be lost
            compiled = _kernels[key] = compile_kernel(kernel)
        statistics.compiled += 1
        statistics.compile_seconds += time.perf_counter() - started
    return compiled


def forget() -> None:
    """Drops every cached program and kernel."""
    _programs.clear()
    _kernels.clear()
