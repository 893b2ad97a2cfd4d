"""The life of a program, from recorded nodes to launches; the passes in order, one list.

nodes --import--> graph --PASSES--> graph --fuse--> nests --schedule--> kernels --> program
"""

from __future__ import annotations

from collections.abc import Callable

from metaop.config import config
from metaop.errors import CompilerBug, MetaopError
from metaop.graph import Node

from . import nest as nests_module
from . import rewrite
from .assemble import assemble, schedule_nest
from .fuse import Fused, fuse
from .group import group
from .kernels import machine_code, statistics
from .keys import is_leaf, kernel_key, structure_of
from .merge import merge_copies
from .nest import Nest
from .passes.algebra import algebra
from .passes.compose import compose
from .passes.invert import invert
from .passes.share import share
from .passes.split import split
from .program import Program
from .programs import forget, program_for
from .rewrite import Graph, Input

__all__ = [
    "PASSES", "GraphPass", "compile_program", "forget", "fuse_graph", "import_graph", "is_leaf",
    "kernel_key", "machine_code", "merge_copies", "program_for", "run_passes", "schedule_nest",
    "statistics", "structure_of",
]  # fmt: skip

GraphPass = Callable[[Graph], Graph]

PASSES: list[tuple[str, GraphPass]] = [
    ("share", share),
    ("algebra", algebra),
    ("invert", invert),
    ("split", split),
    ("compose", compose),
    ("share", share),
]


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
    for node in graph.keep:  # a stored value through which a gradient may be asked for
        buffer = fused.place.get(node)
        if buffer is not None and buffer.role == "tmp":
            buffer.role = "out"
    if config.check:
        for nest in fused.nests:
            if isinstance(nest, Nest):
                nests_module.verify(nest)
    return fused


# ------------------------------------------------------------------------------------ program


def compile_program(nodes: list[Node], asked: list[Node]) -> Program:
    """Runs every stage."""
    graph = run_passes(import_graph(nodes, asked))
    fused = fuse_graph(graph)
    statistics.programs += 1
    return assemble(nodes, graph, fused, group(fused, separate=not config.fuse))
