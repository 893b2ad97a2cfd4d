"""assemble: nests become kernels, and kernels, buffers and phases become a program: plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaop.config import config
from metaop.graph import Escape, Node, Scalar

from .contraction import Launchable, plan
from .fuse import Fused
from .kernels import machine_code
from .keys import is_leaf, kernel_key
from .loops import verify as verify_kernel
from .nest import Buffer, Nest
from .program import FailedCheck, HostCall, KernelLaunch, Program, Temporary
from .rewrite import Graph, Input
from .schedule import Scheduled, schedule


def assemble(nodes: list[Node], graph: Graph, fused: Fused) -> Program:
    """The program of the nests that compute a graph; `nodes` is the graph as recorded."""
    return _Assembler(nodes, graph, fused).program()


def schedule_nest(nest: Nest, number: int) -> Scheduled:
    """The kernel of a nest."""
    scheduled = schedule(nest, f"k{number}")
    if config.check:
        verify_kernel(scheduled.kernel)
    return scheduled


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
        outputs = [b for b in buffers if b.role == "out"]
        number = {b: k for k, b in enumerate(outputs)}
        return Program(
            inputs=[
                (self.slots[self.input_buffer(node)], node.dtype, self.is_number(node))
                for node in self.graph.inputs
            ],
            outputs=[(self.slots[b], b.nbytes) for b in outputs],
            temporaries=self.temporaries(segments),
            results=[self.result(node, number) for node in self.graph.outputs],
            kept=[
                (position, number[self.fused.place[node]])
                for node, positions in self.graph.keep.items()
                for position in positions
                if node in self.fused.place and self.fused.place[node] in number
            ],
            segments=segments,
            checks=self.checks,
            slots=len(self.slots) + 1,
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
            for scheduled in self.launchables(nest):
                target = scheduled.buffers[-1]
                if not phases or target in made or made.intersection(scheduled.buffers):
                    phases.append([])
                    made = set()
                phases[-1].append(self.launch(nest, scheduled))
                made.add(target)
        return segments + ([phases] if phases else [])

    def host_call(self, node: Escape) -> HostCall:
        place = self.fused.place
        return HostCall(
            node.call,
            [(self.slots[place[i]], i.dtype, i.shape) for i in node.inputs],
            (self.slots[place[node]], node.dtype, node.shape),
        )

    def launchables(self, nest: Nest) -> Sequence[Scheduled | Launchable]:
        """The kernels of a nest, in order; the last buffer of each is what it writes."""
        self.count += 1
        planned = plan(nest, f"k{self.count - 1}")
        if planned is None:
            return [schedule_nest(nest, self.count - 1)]
        for buffer in planned.temporaries:
            self.slots[buffer] = len(self.slots) + 1
        if config.check:
            for one in planned.launches:
                verify_kernel(one.kernel)
        return planned.launches

    def launch(self, nest: Nest, scheduled: Scheduled | Launchable) -> KernelLaunch:
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
            scheduled.kernel.scratch_bytes(list(integers.values())),
            nest,
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
