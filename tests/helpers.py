"""What several test files need: values through both printers, central differences, tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import metaop as mo
from metaop.compiler import pipeline
from metaop.compiler.assemble import schedule_tree
from metaop.compiler.emit_python import run_python
from metaop.compiler.nest import Nest
from metaop.graph import Escape, Scalar, pending

# relative and absolute tolerance of one operation, by result dtype
TOLERANCE = {
    "float64": (1e-12, 1e-13),
    "float32": (3e-6, 1e-6),
    "float16": (2e-3, 1e-3),
    "bfloat16": (2e-2, 1e-2),
}
# units in the last place by which an approximated operator may differ from the rounded true value
ULPS = {"float64": 4, "float32": 4, "float16": 1, "bfloat16": 1}
_LAST_PLACE = {  # machine epsilon, smallest subnormal
    "float64": (2.0**-52, 2.0**-1074),
    "float32": (2.0**-23, 2.0**-149),
    "float16": (2.0**-10, 2.0**-24),
    "bfloat16": (2.0**-7, 2.0**-133),
}


def assert_same(got: Any, want: Any, dtype: str | None = None) -> None:
    """Shapes equal; floats within the tolerance of their dtype (or of `dtype`), NaN equal to NaN;
    everything else equal."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (got.shape, want.shape)
    relative, absolute = TOLERANCE.get(dtype or got.dtype.name, (0, 0))
    np.testing.assert_allclose(got, want, rtol=relative, atol=absolute, equal_nan=True)


def assert_bits(got: Any, want: Any, signs: bool = True) -> None:
    """Dtypes, shapes and values equal, of floats also the sign of zero; NaN equals NaN."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, (got.dtype, want.dtype)
    assert got.shape == want.shape, (got.shape, want.shape)
    np.testing.assert_array_equal(got, want)
    if signs and got.dtype.kind == "f":
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])


def assert_ulps(got: Any, want: Any, dtype: str) -> None:
    """Floats within ULPS[dtype] units in the last place; zeros, infinities and NaN equal."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    plain = np.isfinite(want) & (want != 0)
    assert_bits(np.where(plain, 0, got), np.where(plain, 0, want))
    epsilon, smallest = _LAST_PLACE[dtype]
    unit = np.maximum(np.abs(want[plain]) * epsilon, smallest)
    error = np.abs(got[plain] - want[plain]) / unit
    worst = np.argmax(error) if error.size else 0
    assert not error.size or error[worst] <= ULPS[dtype], (
        f"{error[worst]} units: {got[plain][worst]!r} instead of {want[plain][worst]!r}"
    )


def leaf_array(node: Any) -> np.ndarray:
    """The flat array of a leaf."""
    if node.storage is None and isinstance(node, Scalar):
        return np.array([node.value]).astype(node.dtype.storage)
    return np.array(node.storage.view(node.dtype.storage, (node.size,)))


def python_value(x: mo.Var, grouped: bool = False) -> np.ndarray:
    """The value of a pending Var computed by its printed Python kernels under CPython: a kernel of
    every nest, or the kernels that machine code would have."""
    node = x._node
    nodes = pending([node])
    graph = pipeline.run_passes(pipeline.import_graph(nodes, [node]))
    if grouped:
        fused, found = pipeline.group_graph(graph)
        works = found.trees
    else:
        fused = pipeline.fuse_graph(graph)
        works = fused.nests
    leaves = [n for n in nodes if pipeline.is_leaf(n)]
    memory = {b: np.zeros(max(b.size, 1), b.dtype.storage) for b in fused.buffers}
    for buffer in fused.buffers:
        if buffer.role == "in":
            memory[buffer] = leaf_array(leaves[buffer.position])
    for number, work in enumerate(works):
        if isinstance(work, Escape):
            arguments = [memory[fused.place[i]][: i.size].reshape(i.shape) for i in work.inputs]
            memory[fused.place[work]][: work.size] = np.ravel(work.call(*arguments))
            continue
        one = [pipeline.schedule_nest(work, number)] if isinstance(work, Nest) else None
        for scheduled in one or schedule_tree(work, number):
            for b in scheduled.buffers:
                memory.setdefault(b, np.zeros(max(b.size, 1), b.dtype.storage))
            integers = list(scheduled.integers.values())
            run_python(scheduled.kernel, [memory[b] for b in scheduled.buffers], integers)
    result = memory[fused.place[graph.outputs[0]]][: node.size].reshape(node.shape)
    if x.dtype is mo.bfloat16:
        result = (result.astype(np.uint32) << 16).view(np.float32)
    return result


def assert_value(x: mo.Var, want: Any, dtype: str | None = None, printed: bool = True) -> None:
    """The Var, computed by machine code and (if printed) by its Python kernels, is `want`."""
    if printed and x._node.storage is None:
        assert_same(python_value(x), want, dtype)
    assert_same(x.numpy(), want, dtype)


# by order: steps and their weights
DIFFERENCES = {2: ((1, 1 / 2), (-1, -1 / 2)),
               4: ((1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12))}  # fmt: skip


def numeric_gradient(
    f: Callable[..., Any], arrays: list[np.ndarray], h: float = 1e-5, order: int = 2
) -> list:
    """Central differences of a function of float64 arrays that returns a number."""
    gradients = []
    for k, array in enumerate(arrays):
        result = np.zeros_like(array)
        for i in np.ndindex(*array.shape):
            for steps, weight in DIFFERENCES[order]:
                moved = array.copy()
                moved[i] += steps * h
                result[i] += weight * f(*arrays[:k], moved, *arrays[k + 1 :]) / h
        gradients.append(result)
    return gradients


def kernel_count(*vars: mo.Var) -> int:
    """How many kernels computing these Vars would launch."""
    return len(mo.explain(*vars).kernels)
