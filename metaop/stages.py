"""The stages of compiling some nodes, each made when it is first looked at, and its text.

graph, canonical     nodes as recorded, and after the passes
fused                which nests became one kernel, and why the others did not
loops, source        the kernels as loop IR, and as plain Python
llvm, asm            as LLVM assembly after the optimiser's passes, and as machine code
memory               buffers with their sizes, lives and places in the arena
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .compiler import pipeline
from .compiler.arena import plan_arena
from .compiler.assemble import Assembler
from .compiler.boundary import Boundary, by_kernels
from .compiler.cost import flops_of, nbytes_of
from .compiler.emit_python import HEADER, emit_python
from .compiler.fuse import Fused
from .compiler.group import Grouped
from .compiler.keys import Canonical, canonical
from .compiler.loops import Kernel, show_kernel
from .compiler.nest import Buffer, Tree
from .compiler.program import HostCall, KernelLaunch, Program
from .compiler.rewrite import Graph
from .extent import evaluate
from .graph import Elementwise, Escape, Node, pending
from .show import number_of, show_graph

STAGES = ("graph", "canonical", "fused", "loops", "source", "llvm", "asm", "memory")


@dataclass(eq=False)
class Step:
    """One launch of a kernel, as data.

    phase: kernels of one phase run side by side; packs: the kernel that reads what this one only
    copies into the order of its tiles.
    """

    name: str
    kernel: Kernel
    tree: Tree
    buffers: list[Buffer]
    integers: dict[str, int]
    chunks: int
    phase: int
    packs: str | None

    @property
    def reads(self) -> list[Buffer]:
        """The buffers that the kernel only reads."""
        pairs = zip(self.buffers, self.kernel.buffers)
        return [b for b, p in pairs if not p.written]

    @property
    def writes(self) -> list[Buffer]:
        """The buffers that it writes, without the counter of its chunks."""
        pairs = zip(self.buffers, self.kernel.buffers)
        return [b for b, p in pairs if p.written and b.role != "counter"]

    @property
    def nodes(self) -> list[Node]:
        """The nodes whose values the kernel computes, in the order they were made."""
        if self.packs:
            return []
        return sorted(dict.fromkeys(self.tree.nodes), key=lambda n: n.sequence)


@dataclass(eq=False)
class Place:
    """A buffer in memory: what touches it, in which phases it lives, where it lies in the arena."""

    buffer: Buffer
    nbytes: int
    first: int
    last: int
    offset: int | None
    written_by: list[str]
    read_by: list[str]


class Stages:
    """Every stage of compiling some nodes.

    All but the graph as recorded are of the program that runs: it serves all sizes of the dynamic
    axes, s0, s1 and so on.  root: (the class of the module that is looked at, what to call it).
    """

    def __init__(
        self,
        asked: Sequence[Node],
        title: str = "graph",
        root: tuple[str, str] = ("", ""),
    ):
        # a computed value has no kernels: show it as a copy of what is in memory
        self.roots = [n if n.storage is None else Elementwise("copy", n) for n in asked]
        self.title, self.root = title, root
        self.nodes = pending(self.roots)

    @cached_property
    def _form(self) -> Canonical:
        return canonical(self.nodes, self.roots)

    @cached_property
    def recorded(self) -> Graph:
        """The graph as recorded."""
        return pipeline.import_graph(self.nodes, self.roots)

    @cached_property
    def _imported(self) -> Graph:
        """The graph as the passes get it, of any sizes."""
        if not self._form.values:
            return self.recorded
        return pipeline.import_graph(self.nodes, self.roots, self._form.extents)

    @cached_property
    def canonical(self) -> Graph:
        """The graph after the passes."""
        with pipeline.compiling():
            return pipeline.run_passes(self._imported)

    @cached_property
    def _grouped(self) -> tuple[Fused, Grouped]:
        with pipeline.compiling():
            return pipeline.group_graph(self.canonical)

    @property
    def fused(self) -> Fused:
        """The nests."""
        return self._grouped[0]

    @property
    def trees(self) -> list[Tree]:
        """The nests of each kernel."""
        return [tree for tree in self._grouped[1].trees if isinstance(tree, Tree)]

    @cached_property
    def boundaries(self) -> list[Boundary]:
        """Why the kernels are not fewer: for every buffer that goes from one to another."""
        targets = {step.name: step.tree.nests[0].target for step in self.steps}
        packed = [
            Boundary(
                step.writes[0],
                targets[step.packs],
                "an operand is packed once for all tiles",
                kernels=(step.name, step.packs),
            )
            for step in self.steps
            if step.packs
        ]
        kernel = {n.target: s.name for s in self.steps if not s.packs for n in s.tree.all_nests}
        found = self._grouped[1].boundaries(self.size)
        for boundary in found:
            boundary.kernels = kernel.get(boundary.source, ""), kernel.get(boundary.target, "")
        return found + packed

    @cached_property
    def callbacks(self) -> list[str]:
        """What the host computes between kernels, and why no kernel does."""
        fused, grouped = self._grouped
        found = [(fused.place[t].name, t) for t in grouped.trees if isinstance(t, Escape)]
        return [f"{name}: {t.name}" + (f", {t.reason}" if t.reason else "") for name, t in found]

    @cached_property
    def _assembled(self) -> tuple[Assembler, Program]:
        fused, grouped = self._grouped
        assembler = Assembler(self.nodes, self.canonical, fused, grouped, _no_code)
        with pipeline.compiling():
            return assembler, assembler.program()

    @cached_property
    def phases(self) -> list[list[KernelLaunch] | HostCall]:
        """The launches that run side by side, and host callbacks, in order."""
        found: list[list[KernelLaunch] | HostCall] = []
        for segment in self._assembled[1].segments:
            if isinstance(segment, HostCall):
                found.append(segment)
            else:
                found += segment
        return found

    @cached_property
    def steps(self) -> list[Step]:
        """The launches, in the order of the kernels' numbers."""
        assembler, _ = self._assembled
        buffer_at = {slot: buffer for buffer, slot in assembler.slots.items()}
        steps = [
            Step(
                launch.kernel.name,
                launch.kernel,
                launch.tree,
                [buffer_at[slot] for slot in launch.slots],
                dict(zip(launch.kernel.integers, map(self.size, launch.integers))),
                self.size(launch.chunks),
                number,
                _packed_for(launch.kernel.name),
            )
            for number, phase in enumerate(self.phases)
            if not isinstance(phase, HostCall)
            for launch in phase
            if launch.kernel is not None and launch.tree is not None
        ]
        return sorted(steps, key=lambda step: [int(n) for n in step.name[1:].split("_")])

    def size(self, n: int) -> int:
        """A number that may be a formula over the dynamic axes."""
        return n if type(n) is int else evaluate(n, self._form.values)

    # --- what is known about kernels and buffers --------------------------------------------------

    def names_of(self, step: Step) -> list[str]:
        """The names of the nodes fused into a kernel."""
        names = self.fused.names
        return list(
            dict.fromkeys(names[n] for n in step.nodes if n in names and number_of(n) is None)
        )

    def path_of(self, node: Node) -> str:
        """The path of the module in whose call a node was recorded."""
        kind, title = self.root
        first, dot, rest = node.scope.path.partition(".")
        return title + dot + rest if first == kind and title else node.scope.path

    def note(self, node: Node) -> str:
        """The user's line, the module and the phase."""
        phase = "" if node.scope.phase == "forward" else node.scope.phase
        return ", ".join(part for part in (str(node.site), self.path_of(node), phase) if part)

    def comment(self, step: Step) -> str:
        """What a kernel is made of."""
        if step.packs:
            return f"packs {' '.join(b.name for b in step.reads) or 'numbers'} for {step.packs}"
        sites = dict.fromkeys(str(n.site) for n in step.nodes)
        return f"fuses {' '.join(self.names_of(step))}; from {', '.join(sites)}"

    def bytes_of(self, step: Step) -> int:
        """Bytes of the buffers a kernel reads and writes, each once."""
        return self.size(nbytes_of([*step.reads, *step.writes]))

    def flops_of(self, step: Step) -> int:
        """Arithmetic operations of a kernel."""
        return 0 if step.packs else self.size(flops_of(step.tree))

    @cached_property
    def arena(self) -> tuple[list[Place], int]:
        """Every buffer in memory, in order of slots, and the size of the arena."""
        assembler, program = self._assembled
        temporaries = [t._replace(nbytes=self.size(t.nbytes)) for t in program.temporaries]
        offsets, nbytes = plan_arena(temporaries)
        at = {t.slot: (offset, t) for t, offset in offsets.items()}
        writers: dict[Buffer, list[Step]] = {}
        readers: dict[Buffer, list[Step]] = {}
        for step in self.steps:
            for buffer in step.writes:
                writers.setdefault(buffer, []).append(step)
            for buffer in step.reads:
                readers.setdefault(buffer, []).append(step)
        places = []
        for buffer, slot in assembler.slots.items():
            if buffer.role == "counter":
                continue
            wrote, read = writers.get(buffer, []), readers.get(buffer, [])
            phases = [step.phase for step in [*wrote, *read]] or [0]
            offset, temporary = at.get(slot, (None, None))
            places.append(
                Place(
                    buffer, self.size(buffer.nbytes),
                    temporary.first if temporary else 0 if buffer.role == "in" else min(phases),
                    temporary.last if temporary else len(self.phases) - 1,
                    offset, [s.name for s in wrote], [s.name for s in read],
                )
            )  # fmt: skip
        return places, nbytes

    # --- texts ------------------------------------------------------------------------------------

    def text(self, stage: str, kernels: Iterable[str] = ()) -> str:
        """The text of a stage, of some kernels only if they are named."""
        if stage == "graph":
            return self.graph_text(self.recorded)
        if stage == "canonical":
            return self.graph_text(self.canonical)
        if stage == "memory":
            return self.memory_text()
        chosen = self.chosen(kernels)
        if stage == "fused":
            return self.fused_text(chosen)
        if stage == "loops":
            return "\n".join(
                f"# {self.comment(step)}; {_arguments(step)}\n{show_kernel(step.kernel)}"
                for step in chosen
            )
        if stage == "source":
            return HEADER + "\n\n" + "\n\n".join(map(self.source_of, chosen))
        mark, title, _ = CODE[stage]
        heads = [f"{mark} ---- {step.name}: {title}; {self.comment(step)}" for step in chosen]
        codes = self.code_of(stage, chosen)
        return "\n".join(
            f"{head}\n{codes[step.name]}"
            if step.name in codes
            else f"{head}\n{mark} as that of {self.first_of(step).name}\n"
            for head, step in zip(heads, chosen)
        )

    def chosen(self, kernels: Iterable[str]) -> list[Step]:
        """The steps of some kernels, all if none is named."""
        wanted = list(kernels)
        known = {step.name: step for step in self.steps}
        for name in wanted:
            if name not in known:
                raise ValueError(f"dump: no kernel {name!r}; there are {', '.join(known)}")
        return [known[name] for name in wanted] if wanted else self.steps

    def graph_text(self, graph: Graph) -> str:
        """A graph with the user's lines; the sizes of dynamic axes stand above it."""
        sizes = [] if graph is self.recorded else enumerate(self._form.values)
        head = "".join(f"# s{k} = {size}, or any other size\n" for k, size in sizes)
        return head + show_graph(graph.nodes, graph.outputs, graph.names, self.title, self.note)

    def source_of(self, step: Step) -> str:
        """A kernel as plain Python."""
        return emit_python(step.kernel, self.comment(step))

    @cached_property
    def _keys(self) -> dict[str, str]:
        return {step.name: pipeline.kernel_key(step.kernel) for step in self.steps}

    def first_of(self, step: Step) -> Step:
        """The first kernel whose machine code is the same."""
        return next(s for s in self.steps if self._keys[s.name] == self._keys[step.name])

    def code_of(self, stage: str, steps: Sequence[Step]) -> dict[str, str]:
        """The code of some kernels by name; of equal ones the first only."""
        seen: set[str] = set()
        found: dict[str, str] = {}
        for step in steps:
            if self._keys[step.name] not in seen:
                seen.add(self._keys[step.name])
                found[step.name] = CODE[stage][2](step.kernel, step.name)
        return found

    def fused_text(self, chosen: Sequence[Step]) -> str:
        """Which nests became one kernel, and why the others did not."""
        lines = []
        for step in chosen:
            lines.append(f"{step.name}: {_arguments(step)}")
            if step.packs:
                lines.append(f"  {self.comment(step)}")
            else:
                lines += ["  " + line for line in step.tree.show().splitlines()]
        if self.boundaries and len(chosen) == len(self.steps):
            lines.append("boundaries")
            lines += [f"  {line}" for line in by_kernels(self.boundaries)]
        if self.callbacks and len(chosen) == len(self.steps):
            lines += ["host callbacks", *(f"  {callback}" for callback in self.callbacks)]
        return "\n".join(lines) + "\n"

    def memory_text(self) -> str:
        """Buffers with their sizes, the phases they live in, and where they lie."""
        places, nbytes = self.arena
        lines = [f"arena of {nbytes:,} bytes, {len(self.phases)} phases"]
        for number in range(len(self.phases)):
            names = [step.name for step in self.steps if step.phase == number]
            lines.append(f"  phase {number}: {' '.join(names) or 'a host callback'}")
        for place in places:
            where = f"at {place.offset:,}" if place.offset is not None else place.buffer.role
            users = f"written by {' '.join(place.written_by)}; " if place.written_by else ""
            shape = ",".join(str(self.size(n)) for n in place.buffer.shape)
            lines.append(
                f"  {place.buffer.name}: {place.buffer.dtype.short}[{shape}], {place.nbytes:,} "
                f"bytes {where}, phases {place.first}-{place.last}; {users}"
                f"read by {' '.join(place.read_by) or 'none'}"
            )
        return "\n".join(lines) + "\n"

    def difference(self, pass_name: str) -> str:
        """The graph before and after a pass, as a unified diff; one for each time that it runs."""
        known = list(dict.fromkeys(name for name, _ in pipeline.passes()))
        if pass_name not in known:
            raise ValueError(f"dump: no pass {pass_name!r}; there are {', '.join(known)}")
        before = self.graph_text(self._imported)
        parts: list[str] = []

        def compare(name: str, graph: Graph) -> None:
            nonlocal before
            after = self.graph_text(graph)
            if name == pass_name:
                lines = difflib.unified_diff(
                    before.splitlines(), after.splitlines(), f"before {name}", f"after {name}",
                    lineterm="",
                )  # fmt: skip
                parts.append("\n".join(lines) or f"# {name} changes nothing")
            before = after

        pipeline.run_passes(self._imported, compare)
        return "\n".join(parts) + "\n"


def _no_code(kernel: Kernel) -> tuple[str, None]:
    return "", None


def _packed_for(name: str) -> str | None:
    kernel, mark, _ = name.partition("_")
    return kernel if mark else None


def _arguments(step: Step) -> str:
    integers = ", ".join(f"{name}={value}" for name, value in step.integers.items())
    return f"{step.chunks} chunks{', ' + integers if integers else ''}"


def _llvm(kernel: Kernel, name: str) -> str:
    from .compiler.codegen import optimised_assembly  # loads numba

    return optimised_assembly(kernel, name)


def _asm(kernel: Kernel, name: str) -> str:
    from .compiler.codegen import machine_text

    return machine_text(kernel, name)


# Per stage of code: how its comments begin, what it is, what makes it.
CODE: dict[str, tuple[str, str, Callable[[Kernel, str], str]]] = {
    "llvm": (";", "LLVM IR after the optimiser's passes", _llvm),
    "asm": ("#", "machine code", _asm),
}
