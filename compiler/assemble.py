"""assemble: nests become kernels, and kernels, buffers and phases become a program: plain data."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from metaop.config import config
from metaop.graph import Elementwise, Escape, Node, Scalar

from .contraction import plan
from .cost import flops_of, nbytes_of
from .fuse import Fused
from .group import Grouped
from .kernels import Batch, LoadedKernel
from .keys import is_leaf, kernel_key
from .loops import Kernel
from .loops import verify as verify_kernel
from .nest import Buffer, Nest, Tree
from .program import FailedCheck, Form, HostCall, KernelLaunch, Program, Temporary, Work
from .rewrite import Graph, Input
from .schedule import Scheduled, schedule


def assemble(nodes: list[Node], graph: Graph, fused: Fused, grouped: Grouped) -> Program:
    """The program of the trees that compute a graph; `nodes` is the graph as recorded."""
    with Batch() as batch:

        def code(kernel: Kernel) -> tuple[str, Any]:
            key = kernel_key(kernel)
            return key, batch.add(key, kernel)

        program = Assembler(nodes, graph, fused, grouped, code).program()
        loaded: dict[Any, LoadedKernel] = dict(batch.loaded())
    for launch in program.launches:
        launch.code = loaded[launch.code]  # until now its name
    return program


def schedule_nest(work: Tree | Nest, number: int) -> Scheduled:
    """The kernel of a tree, or of a nest by itself."""
    scheduled = schedule(work, f"k{number}")
    if config.check:
        verify_kernel(scheduled.kernel)
    return scheduled


def schedule_tree(tree: Tree, number: int) -> Sequence[Scheduled]:
    """The kernels of a tree: several if a contraction's operands are packed for all of it."""
    planned = plan(tree, f"k{number}")
    if planned is None:
        return [schedule_nest(tree, number)]
    if config.check:
        for one in planned.launches:
            verify_kernel(one.kernel)
    return planned.launches


def _touched(scheduled: Scheduled) -> tuple[list[Buffer], list[Buffer]]:
    """The buffers that a kernel reads, and those that it writes."""
    pairs = list(zip(scheduled.buffers, scheduled.kernel.buffers, strict=True))
    return [b for b, p in pairs if not p.written], [b for b, p in pairs if p.written]


def _origin(node: Node) -> tuple[int, str]:
    """The user's line and the module that a node comes from, as a key."""
    return id(node.site), node.scope.path


def _operator(node: Node) -> str:
    """mul, reindex, reindex_reduce.add, index: what a node does, in a word; "" for a number."""
    if isinstance(node, Scalar):
        return ""
    op = getattr(node, "op", None)
    if op is None:
        return node.kind
    return op if isinstance(node, Elementwise) else f"{node.kind}.{op}"


_by_sequence = operator.attrgetter("sequence")


class Assembler:
    """Puts kernels, buffers and phases together into plain data.

    code: the key of a kernel and what stands for its machine code; a program that is only looked
    at needs neither.
    """

    def __init__(
        self,
        nodes: list[Node],
        graph: Graph,
        fused: Fused,
        grouped: Grouped,
        code: Callable[[Kernel], tuple[str, Any]],
    ):
        self.nodes, self.graph, self.fused, self.grouped = nodes, graph, fused, grouped
        self.code = code
        self.position = {_origin(node): k for k, node in reversed(list(enumerate(nodes)))}
        self.leaves = [node for node in nodes if is_leaf(node)]
        self.slots: dict[Buffer, int] = {}
        self.checks: list[FailedCheck] = []
        self.counters: list[int] = []
        self.count = 0

    def program(self) -> Program:
        buffers = [b for b in self.fused.buffers if b.role != "local"]
        for slot, buffer in enumerate(buffers, start=1):
            self.slots[buffer] = slot
        segments = self.segments()
        outputs = [b for b in buffers if b.role == "out"]
        number = {b: k for k, b in enumerate(outputs)}
        kept = [
            (node, position)
            for node, positions in self.graph.keep.items()
            for position in positions
            if node in self.fused.place and self.fused.place[node] in number
        ]
        return Program(
            inputs=[
                (self.slots[self.input_buffer(node)], node.dtype, self.is_number(node))
                for node in self.graph.inputs
            ],
            outputs=[(self.slots[b], b.nbytes) for b in outputs],
            temporaries=self.temporaries(segments),
            results=[self.result(node, number) for node in self.graph.outputs],
            kept=[(position, number[self.fused.place[node]]) for node, position in kept],
            forms=[
                Form(node.shape, self.fused.layouts.of(node))
                for node in [*self.graph.outputs, *(node for node, _ in kept)]
            ],
            segments=segments,
            checks=self.checks,
            counters=self.counters,
            slots=len(self.slots) + 1,
        )

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
        """Phases of launches between host callbacks."""
        segments: list[Any] = []
        run: list[Tree] = []
        for tree in self.grouped.trees:
            if isinstance(tree, Escape):
                segments += [self.phases(run)] if run else []
                run = []
                segments.append(self.host_call(tree))
            else:
                run.append(tree)
        return segments + ([self.phases(run)] if run else [])

    def phases(self, trees: list[Tree]) -> list[list[KernelLaunch]]:
        """Each kernel in the first phase after those of what it needs or overwrites."""
        phases: list[list[KernelLaunch]] = []
        written: dict[Buffer, int] = {}
        read: dict[Buffer, int] = {}
        for tree in trees:
            for scheduled in self.kernels(tree):
                reads, writes = _touched(scheduled)
                needs = [written[b] for b in (*reads, *writes) if b in written]
                needs += [read[b] for b in writes if b in read]
                number = 1 + max(needs, default=-1)
                if number == len(phases):
                    phases.append([])
                phases[number].append(self.launch(scheduled))
                for buffer in writes:
                    written[buffer] = number
                for buffer in reads:
                    read[buffer] = max(read.get(buffer, 0), number)
        return phases

    def host_call(self, node: Escape) -> HostCall:
        place = self.fused.place
        return HostCall(
            node.call,
            [(self.slots[place[i]], i.dtype, i.shape) for i in node.inputs],
            (self.slots[place[node]], node.dtype, node.shape),
            node.name,
            self.position.get(_origin(node), 0),
        )

    def slot(self, buffer: Buffer) -> int:
        if buffer.role == "counter" and buffer not in self.slots:
            self.slots[buffer] = len(self.slots) + 1
            self.counters.append(self.slots[buffer])
        return self.slots[buffer]

    def kernels(self, tree: Tree) -> Sequence[Scheduled]:
        """The kernels of a tree, in order: for a contraction, what packs operands comes first."""
        made = schedule_tree(tree, self.count)
        self.count += 1
        for one in made:
            for buffer in one.buffers:
                if buffer not in self.slots and buffer.role == "tmp":
                    self.slots[buffer] = len(self.slots) + 1
        return made

    def launch(self, scheduled: Scheduled) -> KernelLaunch:
        key, code = self.code(scheduled.kernel)
        integers = dict(scheduled.integers)
        for name, site in scheduled.tree.checks.items():
            if name in integers:
                position = self.position.get(_origin(site.node), 0)
                integers[name] = len(self.checks)
                self.checks.append(FailedCheck(position, site.low, site.high))
        return KernelLaunch(
            key,
            scheduled.kernel,
            code,
            [self.slot(b) for b in scheduled.buffers],
            list(integers.values()),
            scheduled.chunks,
            scheduled.kernel.scratch_bytes(list(integers.values())),
            scheduled.tree,
            self.work(scheduled),
        )

    def work(self, scheduled: Scheduled) -> Work:
        tree = scheduled.tree
        packs = any(b in tree.packed for b in _touched(scheduled)[1])
        nodes = sorted(tree.nodes, key=_by_sequence)
        origins: dict[tuple[str, str], int] = {}  # as many as there are, not one for each node
        for node in nodes:
            position = self.position.get(_origin(node))
            if position is not None:
                origins.setdefault((str(node.site), node.scope.path), position)
        made = [max(nest.nodes, key=_by_sequence) for nest in tree.all_nests if nest.nodes
                and nest.target.role != "local"]  # fmt: skip
        phases = dict.fromkeys(n.scope.phase for n in made)
        return Work(
            scheduled.kernel.name,
            ["pack"] if packs else [o for o in dict.fromkeys(map(_operator, nodes)) if o],
            list(origins.values()),
            "+".join(phases) or "forward",
            0 if packs else flops_of(tree),
            nbytes_of(scheduled.buffers),
        )

    def temporaries(self, segments: list[Any]) -> list[Temporary]:
        """Every temporary with the first and the last phase that touches it."""
        by_slot = {slot: b for b, slot in self.slots.items() if b.role == "tmp"}
        span: dict[int, tuple[int, int]] = {}
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
                        first, _ = span.get(slot, (time_of_phase, 0))
                        span[slot] = (first, time_of_phase)
                time_of_phase += 1
        return [Temporary(slot, by_slot[slot].nbytes, *phases) for slot, phases in span.items()]
