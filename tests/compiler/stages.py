"""The stages of the compiler one by one, for tests: graphs, nests, kernels, single launches."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import metaop as mo
from metaop import reference
from metaop.compiler import pipeline
from metaop.compiler.emit_python import load_python
from metaop.compiler.fuse import Fused, fuse
from metaop.compiler.loops import Kernel
from metaop.compiler.nest import Nest
from metaop.compiler.rewrite import Graph, Input, verify
from metaop.compiler.schedule import Scheduled
from metaop.graph import Elementwise, Node, RandomBits, Reindex, ReindexReduce, Scalar, pending
from metaop.index import evaluate
from metaop.show import show_graph
from tests.helpers import leaf_array

GraphPass = Callable[[Graph], Graph]
ALL_PASSES = tuple(graph_pass for _, graph_pass in pipeline.passes())

# --------------------------------------------------------------------------------------- stages


def recorded(*results: mo.Var) -> Graph:
    """The graph of pending Vars as it was recorded."""
    asked = [x._node for x in results]
    return pipeline.import_graph(pending(asked), asked)


def after(graph: Graph, passes: Iterable[GraphPass]) -> Graph:
    """The graph after some passes, verified after each."""
    for graph_pass in passes:
        graph = graph_pass(graph)
        verify(graph)
    return graph


def text_of(graph: Graph, title: str = "graph") -> str:
    """The graph as text."""
    return show_graph(graph.nodes, graph.outputs, graph.names, title)


def operations(graph: Graph) -> list[str]:
    """What the graph's nodes do, leaves left out: exp, reindex, reindex_reduce.add …"""
    names = {Elementwise: lambda n: n.op, ReindexReduce: lambda n: f"reindex_reduce.{n.op}"}
    inner = [n for n in graph.nodes if not isinstance(n, Input | Scalar)]
    return [names.get(type(n), lambda n: n.kind)(n) for n in inner]


def fused(*results: mo.Var) -> Fused:
    """The nests of pending Vars."""
    return pipeline.fuse_graph(after(recorded(*results), ALL_PASSES))


def nests(*results: mo.Var) -> list[Nest]:
    """The nests of pending Vars, without escapes."""
    return [nest for nest in fused(*results).nests if isinstance(nest, Nest)]


def scheduled(*results: mo.Var) -> list[Scheduled]:
    """The scheduled kernels of pending Vars."""
    return [pipeline.schedule_nest(nest, k) for k, nest in enumerate(nests(*results))]


def only(items: list) -> Any:
    """The one item of a list."""
    assert len(items) == 1, items
    return items[0]


# --------------------------------------------------------------------------- one launch, two ways


def run_machine(
    kernel: Kernel, buffers: Sequence[np.ndarray], integers: Sequence[int], chunks: int,
    only_chunks: Iterable[int] | None = None,
) -> int:  # fmt: skip
    """Runs a kernel's machine code on flat arrays; the status word, 0 if no check failed."""
    compiled = pipeline.machine_code(pipeline.kernel_key(kernel), kernel)
    call = ctypes.CFUNCTYPE(
        ctypes.c_int32, *[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    )(compiled.address)
    own = np.full(max(kernel.scratch_bytes(integers), 64), 0xFF, np.uint8)  # NaN, until written
    status, scratch = np.zeros(8, np.int64), np.zeros(16, np.int64)
    table = np.array([status.ctypes.data, *(b.ctypes.data for b in buffers)], np.int64)
    arguments = np.array([*range(1, len(buffers) + 1), *integers], np.int64)
    for chunk in range(chunks) if only_chunks is None else only_chunks:
        call(
            scratch.ctypes.data, scratch.ctypes.data + 64, table.ctypes.data,
            arguments.ctypes.data, chunk, chunks, own.ctypes.data,
        )  # fmt: skip
    return int(status[0])


def run_printed(
    kernel: Kernel, buffers: Sequence[np.ndarray], integers: Sequence[int], chunks: int = 1,
    only_chunks: Iterable[int] | None = None,
) -> None:  # fmt: skip
    """Runs a kernel's printed Python on flat arrays."""
    function = load_python(kernel)
    with np.errstate(all="ignore"):
        for chunk in range(chunks) if only_chunks is None else only_chunks:
            function(*buffers, *integers, chunk, chunks)


# ----------------------------------------------------------------------------------- evaluation


def reference_values(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph by the loops that define its nodes."""
    values: dict[Node, np.ndarray] = {}
    for node in graph.nodes:
        values[node] = _reference_value(node, [values[i] for i in node.inputs], inputs)
    return [values[node] for node in graph.outputs]


def _reference_value(
    node: Node, args: list[np.ndarray], inputs: Sequence[np.ndarray]
) -> np.ndarray:
    def at(indices: Sequence[Any]) -> Callable[..., tuple]:
        return lambda *i: tuple(evaluate(e, i, read) for e in indices)

    def holds(condition: Any) -> Callable[..., bool]:
        return lambda *i: evaluate(condition, i, read)

    def read(k: int, position: tuple[int, ...]) -> int:
        inside = all(0 <= p < n for p, n in zip(position, args[k].shape))
        return int(args[k][position]) if inside else 0

    match node:
        case Input():
            return np.asarray(inputs[node.position]).reshape(node.shape)
        case Scalar():
            return np.array(node.value, node.dtype.storage)
        case Elementwise():
            return reference.elementwise(node.op, *args, dtype=node.dtype.name)
        case Reindex():
            pieces = [(p.source, at(p.indices), holds(p.condition)) for p in node.pieces]
            return reference.reindex(args, node.shape, pieces, node.fill, node.dtype.name)
        case ReindexReduce():
            condition = holds(node.condition)
            return reference.reindex_reduce(
                node.op, args[0], node.shape, at(node.indices), condition, node.dtype.name
            )
        case RandomBits():
            key = (int(args[0][0]), int(args[0][1]))
            return reference.random_bits(key, int(args[1]), node.shape)
    assert node.kind == "index", node
    return reference.index(node.shape, node.axis)  # type: ignore[attr-defined]


def printed_values(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph by the printed Python of its kernels."""
    return _computed(graph, inputs, lambda s, arrays, k: run_printed(s.kernel, arrays, k))


def machine_values(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph by the machine code of its kernels."""
    return _computed(graph, inputs, lambda s, arrays, k: run_machine(s.kernel, arrays, k, s.chunks))


def _computed(graph: Graph, inputs: Sequence[np.ndarray], run: Callable[..., Any]) -> list:
    made = pipeline.merge_copies(fuse(graph))
    memory = {b: np.zeros(max(b.size, 1), b.dtype.storage) for b in made.buffers}
    for buffer in made.buffers:
        if buffer.role == "in":
            memory[buffer] = np.array(inputs[buffer.position]).ravel()
    for number, nest in enumerate(made.nests):
        assert isinstance(nest, Nest)
        one = pipeline.schedule_nest(nest, number)
        run(one, [memory[b] for b in one.buffers], list(one.integers.values()))
    return [memory[made.place[n]][: n.size].reshape(n.shape) for n in graph.outputs]


def input_values(*results: mo.Var) -> list[np.ndarray]:
    """What the inputs of `recorded(*results)` hold."""
    asked = [x._node for x in results]
    return [leaf_array(n) for n in pipeline.structure_of(pending(asked), asked)[1]]
