"""document: the stages of a program as plain data; docs/inspect.md describes every key."""

from __future__ import annotations

import linecache
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..compiler.loops import For, Grid, Kernel, Last, Stmt, Store, show_kernel
from ..compiler.rewrite import Graph
from ..errors import Site
from ..graph import Elementwise, Escape, Node, ReindexReduce
from ..index import Expr, contains, evaluate, loops_of, show, transform
from ..show import describe_operation, number_of
from ..stages import Stages, Step

SCHEMA = "metaop.dump"
VERSION = 1

Data = dict[str, Any]


def document(
    stages: Stages,
    wanted: Iterable[str],
    kernels: Sequence[str] = (),
    profile: Mapping[str, Any] | None = None,
) -> Data:
    """The wanted stages of a program; if kernels are named, the code of these only."""
    from .. import __version__

    return {
        "schema": SCHEMA,
        "version": VERSION,
        "metaop": __version__,
        "title": stages.title,
        "stages": {stage: MAKE[stage](stages, kernels, profile or {}) for stage in wanted},
    }


# --- graphs ---------------------------------------------------------------------------------------


def _graph(stages: Stages, graph: Graph) -> Data:
    shown = [n for n in graph.nodes if number_of(n) is None or n in graph.outputs]
    return {
        "nodes": [_node(stages, graph, node) for node in shown],
        "outputs": [graph.names[node] for node in graph.outputs],
    }


def _node(stages: Stages, graph: Graph, node: Node) -> Data:
    given = node in graph.inputs
    return {
        "name": graph.names[node],
        "kind": node.kind,
        "op": _operator(node),
        "text": "" if given else describe_operation(node, graph.names),
        "dtype": node.dtype.short,
        "shape": [stages.size(n) for n in node.shape],
        "inputs": [graph.names[i] for i in dict.fromkeys(node.inputs) if number_of(i) is None],
        "module": stages.path_of(node),
        "phase": node.scope.phase,
        "line": _line(node.site),
    }


def _operator(node: Node) -> str:
    match node:
        case Elementwise(op=op):
            return op
        case ReindexReduce(op=op):
            return f"reindex_reduce.{op}"
        case Escape(name=name):
            return f"escape.{name}"
    return node.kind


def _line(site: Site) -> Data:
    line = site.line
    code = linecache.getline(site.filename, line).strip()
    return {"file": str(site).rpartition(":")[0], "number": line, "code": code}


# --- kernels --------------------------------------------------------------------------------------


def _fused(stages: Stages, kernels: Sequence[str], profile: Mapping[str, Any]) -> Data:
    chosen = stages.chosen(kernels)
    names = {step.name for step in chosen}
    boundaries = [b for b in _boundaries(stages) if names & {b["from"], b["to"]}]
    return {"kernels": [_kernel(stages, s, profile) for s in chosen], "boundaries": boundaries}


def _kernel(stages: Stages, step: Step, profile: Mapping[str, Any]) -> Data:
    made = _maker(stages, step)
    lines = {str(n.site): _line(n.site) for n in made.nodes}
    known: Data = {
        "name": step.name,
        "packs": step.packs,
        "nodes": stages.names_of(step),
        "operators": _summary(step.nodes),
        "module": _common_path(
            [stages.path_of(n) for n in made.nodes if _phase(made) == n.scope.phase]
        ),
        "phase": _phase(made),
        "lines": list(lines.values()),
        "reads": [b.name for b in step.reads],
        "writes": [b.name for b in step.writes],
        "bytes": stages.bytes_of(step),
        "flops": stages.flops_of(step),
        "chunks": step.chunks,
        "step": step.phase,
    }
    measured = profile.get(step.name)
    if measured is not None:
        known |= measured if isinstance(measured, Mapping) else {"seconds": float(measured)}
    return known


def _maker(stages: Stages, step: Step) -> Step:
    """The kernel itself, or the one that it packs for."""
    return next(s for s in stages.steps if s.name == step.packs) if step.packs else step


def _phase(step: Step) -> str:
    """The phase of most of what a kernel computes."""
    phases = Counter(node.scope.phase for node in step.nodes)
    return phases.most_common(1)[0][0] if phases else "forward"


def _common_path(paths: list[str]) -> str:
    """The innermost module that all paths are within; those outside of all modules do not count."""
    parts = [path.split(".") for path in paths if path]
    if not parts:
        return ""
    common = []
    for names in zip(*parts):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common)


def _summary(nodes: Iterable[Node]) -> str:
    """The operators of a kernel, the most frequent ones first; copies and indexing left out."""
    named = [
        _operator(n).replace("reindex_reduce.", "reduce ")
        for n in nodes
        if isinstance(n, Elementwise | ReindexReduce)
    ]
    return ", ".join(name for name, _ in Counter(named).most_common())


def _boundaries(stages: Stages) -> list[Data]:
    return [
        {
            "source": b.source.name,
            "target": b.target.name,
            "from": b.kernels[0],
            "to": b.kernels[1],
            "reason": b.reason,
            "iterations": b.iterations,
            "read_again": b.read_again,
        }
        for b in stages.boundaries
    ]


# --- the code of kernels --------------------------------------------------------------------------


def _loops(stages: Stages, kernels: Sequence[str], profile: Mapping[str, Any]) -> Data:
    return {
        step.name: {"text": show_kernel(step.kernel), "tree": loop_tree(step.kernel, step.integers)}
        for step in stages.chosen(kernels)
    }


def loop_tree(kernel: Kernel, integers: Mapping[str, int]) -> list[list[Any]]:
    """[depth, text] of every loop and store of a kernel, with numbers for its integers."""

    def known(e: Expr) -> Expr | None:
        return integers.get(e[1]) if isinstance(e, tuple) and e[0] == "val" else None

    def number(e: Expr) -> str:
        e = transform(e, known)
        plain = not loops_of(e) and not contains(e, ("val", "read"))
        return str(evaluate(e, ())) if plain else show(e)

    def visit(body: list[Stmt], depth: int) -> None:
        for stmt in body:
            match stmt:
                case Grid():
                    extents = " x ".join(number(e) for e in stmt.extents) or "1"
                    lines.append([depth, f"grid {extents}"])
                    visit(stmt.body, depth + 1)
                case For():
                    start = "" if stmt.start == 0 else f"{number(stmt.start)} to "
                    lines.append([depth, f"{stmt.how} {start}{number(stmt.stop)}"])
                    visit(stmt.body, depth + 1)
                case Last():
                    lines.append([depth, "last"])
                    visit(stmt.body, depth + 1)
                case Store():
                    lines.append([depth, f"store {stmt.buffer}"])

    lines: list[list[Any]] = []
    visit(kernel.body, 0)
    return lines


def _source(stages: Stages, kernels: Sequence[str], profile: Mapping[str, Any]) -> Data:
    return {step.name: stages.source_of(step) for step in stages.chosen(kernels)}


def _code(stage: str) -> Callable[[Stages, Sequence[str], Mapping[str, Any]], Data]:
    def make(stages: Stages, kernels: Sequence[str], profile: Mapping[str, Any]) -> Data:
        chosen = stages.chosen(kernels)
        codes = stages.code_of(stage, chosen)
        return {
            step.name: codes.get(step.name) or {"same_as": stages.first_of(step).name}
            for step in chosen
        }

    return make


# --- memory ---------------------------------------------------------------------------------------


def _memory(stages: Stages, kernels: Sequence[str], profile: Mapping[str, Any]) -> Data:
    places, nbytes = stages.arena
    steps: list[list[str]] = [[] for _ in stages.phases]
    for step in stages.steps:
        steps[step.phase].append(step.name)
    return {
        "arena_bytes": nbytes,
        "steps": steps,
        "buffers": [
            {
                "name": place.buffer.name,
                "role": place.buffer.role,
                "dtype": place.buffer.dtype.short,
                "shape": [stages.size(n) for n in place.buffer.shape],
                "bytes": place.nbytes,
                "first": place.first,
                "last": place.last,
                "offset": place.offset,
                "written_by": place.written_by,
                "read_by": place.read_by,
            }
            for place in places
        ],
    }


MAKE: dict[str, Callable[[Stages, Sequence[str], Mapping[str, Any]], Any]] = {
    "graph": lambda stages, kernels, profile: _graph(stages, stages.recorded),
    "canonical": lambda stages, kernels, profile: _graph(stages, stages.canonical),
    "fused": _fused,
    "loops": _loops,
    "source": _source,
    "llvm": _code("llvm"),
    "asm": _code("asm"),
    "memory": _memory,
}
