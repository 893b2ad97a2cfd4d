"""The life of a program, from recorded nodes to launches; the passes in order, one list.

nodes --import--> graph --PASSES--> graph --fuse--> nests --schedule--> kernels --> program
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

from metaop.config import config
from metaop.errors import CompilerBug, MetaopError
from metaop.extent import map_extents, recording_guards, require, simplified
from metaop.graph import Node
from metaop.index import remembering
from metaop.show import show_graph

from . import nest as nests_module
from . import rewrite
from .assemble import assemble, schedule_nest
from .collector import collecting_seldom
from .fuse import Dear, Fused, cheap_again, fuse, reshape_base
from .group import Grouped, group, is_cheaper_again
from .kernels import machine_code, statistics
from .keys import is_leaf, kernel_key, structure_of
from .merge import merge_copies
from .nest import Nest
from .passes.algebra import algebra
from .passes.compose import compose
from .passes.invert import invert
from .passes.share import share
from .passes.split import split
from .passes.winograd import winograd
from .program import Program
from .programs import forget, program_for
from .rewrite import Graph, Input
from .verify import verify_grouped, verify_program

__all__ = [
    "PASSES", "GraphPass", "compile_program", "forget", "fuse_graph", "group_graph",
    "import_graph", "is_leaf", "kernel_key", "machine_code", "merge_copies", "numbers",
    "passes", "program_for", "run_passes", "schedule_nest", "statistics", "structure_of",
]  # fmt: skip

GraphPass = Callable[[Graph], Graph]

PASSES: list[tuple[str, GraphPass]] = [
    ("share", share),
    ("algebra", algebra),
    ("invert", invert),
    ("winograd", winograd),
    ("split", split),
    ("compose", compose),
    ("share", share),
]


MOST_ROUNDS = 5  # of choosing what is stored


# ------------------------------------------------------------------------------------- stages


@contextmanager
def compiling() -> Iterator[None]:
    """Around stages of one program: nothing is worked out twice, and Python's collector waits."""
    with collecting_seldom(), remembering():
        yield


def numbers(e: Any) -> Any:
    """What holds extents with plain numbers for them: a program for these sizes alone."""
    return map_extents(e, int)


def import_graph(
    nodes: list[Node], asked: list[Node], extents: Callable[[Any], Any] = numbers
) -> Graph:
    """The recorded nodes as a graph of its own, leaves replaced by inputs.

    extents: maps what holds extents to the form in which the program knows them.
    """
    new: dict[Node, Node] = {}
    inputs: list[Input] = []
    keep: dict[Node, list[int]] = {}
    needed = _needed_by_gradients(nodes)
    for position, node in enumerate(nodes):
        if is_leaf(node):
            new[node] = Input(len(inputs), extents(node.shape), node.dtype, extents(node.layout))
            new[node].site = node.site
            inputs.append(new[node])  # type: ignore[arg-type]
        else:
            new[node] = rewrite.imported(node, tuple(new[i] for i in node.inputs), extents)
            new[node].site = node.site
        for extent in new[node].shape:
            require(extent, 1)  # dynamic loops run
        if node in needed and not is_leaf(node):
            keep.setdefault(new[node], []).append(position)
    graph = Graph([new[n] for n in asked], inputs, keep)
    if config.check:
        rewrite.verify(graph)
    return graph


def _needed_by_gradients(nodes: list[Node]) -> set[Node]:
    """What a gradient that is asked for later may read, beside the leaves: it must not be computed
    twice if it is stored."""
    needed: set[Node] = set()
    for node in reversed(nodes):
        if node.requires_grad:
            needed.add(node)
        if node in needed and not node.stop:
            needed.update(node.inputs)
    return needed


def passes() -> list[tuple[str, GraphPass]]:
    """The passes that run for this Python thread: `winograd` only where it is asked for."""
    return [one for one in PASSES if one[0] != "winograd" or config.winograd]


def run_passes(graph: Graph, after: Callable[[str, Graph], None] | None = None) -> Graph:
    """The graph after every pass that runs; `after(name, graph)` sees each stage."""
    for name, graph_pass in passes():
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
        if config.dump:
            _print_after(name, graph)
    return graph


def _print_after(name: str, graph: Graph) -> None:
    """The graph on stderr if METAOP_DUMP asks for it after this pass."""
    known = {name for name, _ in PASSES}
    when, _, wanted = config.dump.partition(":")
    if when != "after" or wanted not in known:
        choices = ", ".join(f"after:{name}" for name in sorted(known))
        raise ValueError(f"METAOP_DUMP={config.dump}: it is one of {choices}")
    if name == wanted:
        text = show_graph(graph.nodes, graph.outputs, graph.names, f"after_{name}")
        print(text, end="", file=sys.stderr)


def fuse_graph(
    graph: Graph, inlined: frozenset[Node] = frozenset(), earlier: Fused | None = None
) -> Fused:
    """Nests with superfluous copies merged away; `earlier` is what `fuse` has it for."""
    fused = merge_copies(fuse(graph, inlined, earlier))
    for node in graph.keep:  # a stored value through which a gradient may be asked for
        buffer = fused.place.get(node)
        if buffer is not None and buffer.role == "tmp":
            buffer.role = "out"
    if config.check:
        for nest in fused.nests:
            if isinstance(nest, Nest):
                nests_module.verify(nest)
    return fused


def group_graph(graph: Graph, forced: Iterable[tuple[str, str]] = ()) -> tuple[Fused, Grouped]:
    """The nests of a graph grouped into trees.

    A value that was stored to save work, and that costs more to write and read than to compute
    again because its readers are in other trees, is computed where it is read after all.

    forced: boundaries that are to be none in the end, as `group` has them.
    """
    chosen = inlined = frozenset[Node]()
    fused = fuse_graph(graph)
    kept = graph.keep.keys() - {reshape_base(node) for node in graph.outputs}
    for _ in range(MOST_ROUNDS):
        if inlined > chosen:
            fused, chosen = fuse_graph(graph, inlined, fused), inlined
        grouped = group(fused, separate=not config.fuse)
        cheap = cheap_again(graph, fused, partial(_is_cheap, fused, grouped, kept))
        if not config.fuse or cheap <= inlined:
            break
        inlined |= cheap
    if forced:
        fused = fuse_graph(graph, chosen, fused)
        grouped = group(fused, forced=forced)
    if grouped.trees and config.check:
        verify_grouped(fused, grouped)
    return fused, grouped


def _is_cheap(fused: Fused, grouped: Grouped, kept: Set[Node], node: Node, price: Dear) -> bool:
    """True for a value that nobody asked for and that is cheaper computed again than stored."""
    buffer = fused.place.get(node)
    if buffer is None or not (buffer.role == "tmp" or node in kept):
        return False
    return is_cheaper_again(grouped, buffer, price) and not grouped.is_local(buffer)


# ------------------------------------------------------------------------------------ program


def compile_program(
    nodes: list[Node],
    asked: list[Node],
    extents: Callable[[Any], Any] = numbers,
    sizes: Sequence[int] | None = None,
) -> Program:
    """Runs every stage.

    extents: maps recorded extents to those of the program; sizes: of the symbols in them, for which
    decisions are to be right.
    """
    with recording_guards(sizes) as guards:
        with remembering():
            graph = run_passes(import_graph(nodes, asked, extents))
            fused, grouped = group_graph(graph)
            program = assemble(nodes, graph, fused, grouped)
    if config.check:
        verify_program(program)
    program.guards = simplified(guards)
    statistics.programs += 1
    return program
