"""Why not fused is true: what a boundary says merging costs is what the merged kernel costs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler import pipeline
from metaop.compiler.boundary import Boundary, by_kernels, read_again
from metaop.compiler.emit_python import load_python
from metaop.compiler.group import COSTS
from metaop.compiler.loops import Grid, Load
from metaop.compiler.nest import Buffer, Nest, Tree
from metaop.compiler.schedule import Scheduled
from metaop.errors import CompilerBug
from metaop.index import TRUE, Expr
from metaop.inspection import stages_of
from metaop.stages import Stages, Step
from tests.compiler.stages import only

SHAPE = (1, 3, 16, 16)  # small enough for the printed Python


@pytest.fixture(scope="module")
def step() -> Stages:
    """A training step of ResNet-18."""
    mo.manual_seed(0)
    return stages_of(
        nn.models.resnet18(10, stem="cifar"), [mo.random.normal(SHAPE).sync()], True, "net"
    )


def merged(step: Stages, boundaries: Sequence[Boundary]) -> list[Scheduled]:
    """The kernels of both trees of each boundary, made one whatever it costs."""
    pairs = [(b.source.name, b.target.name) for b in boundaries]
    trees = [
        (tree, {nest.target.name for nest in tree.all_nests})
        for tree in pipeline.group_graph(step.canonical, pairs)[1].trees
        if isinstance(tree, Tree)
    ]
    found = [only([tree for tree, names in trees if set(pair) <= names]) for pair in pairs]
    return [pipeline.schedule_nest(tree, number) for number, tree in enumerate(found)]


class Watched:
    """A buffer that notes which elements are read; what was not written is 0.5."""

    def __init__(self, dtype: mo.dtype.DType):
        self.values: dict[int, object] = {}
        self.read: set[int] = set()
        self.other = dtype.storage.type(0.5)

    def __getitem__(self, at: int) -> object:
        self.read.add(int(at))
        return self.values.get(int(at), self.other)

    def __setitem__(self, at: int, value: object) -> None:
        self.values[int(at)] = value


def bytes_read_again(kernel: Scheduled, iterations: int) -> int:
    """Runs the printed source of one iteration of the outer loops, the first and the last one; what
    all iterations read if the others read as much as the first, less what they read together if
    each takes its own share."""
    function, found = load_python(kernel.kernel), []
    for iteration in (0, iterations - 1):
        buffers = [Watched(b.dtype) for b in kernel.buffers]
        with np.errstate(all="ignore"):
            function(*buffers, *kernel.integers.values(), chunk=iteration, chunks=iterations)
        found.append([len(b.read) for b in buffers])
    total = 0
    for buffer, parameter, first, last in zip(kernel.buffers, kernel.kernel.buffers, *found):
        if not parameter.written:
            shares = (iterations - 1) * first + last
            whole = min(buffer.size, shares)
            total += (shares - whole) * buffer.dtype.itemsize
    return total


def different(step: Stages, stated: Callable[[Boundary], bool], count: int) -> list[Boundary]:
    """Boundaries of other loops than the ones before and between other kernels."""
    kernel_of = {n.target.name: tree for tree in step.trees for n in tree.all_nests}
    seen: set[Any] = set()
    found = []
    for boundary in step.boundaries:
        if stated(boundary):
            ends = {kernel_of[boundary.source.name], kernel_of[boundary.target.name]}
            if str(boundary.loops) not in seen and seen.isdisjoint(ends):
                seen |= {str(boundary.loops), *ends}
                found.append(boundary)
    assert len(found) >= count, found
    return found[:count]


def test_the_stated_loss_of_parallelism_is_what_the_merged_kernel_has(step):
    stated = different(step, lambda b: b.iterations is not None, 5)
    for boundary, kernel in zip(stated, merged(step, stated), strict=True):
        assert kernel.chunks == boundary.iterations, boundary


def test_the_stated_bytes_are_what_the_merged_kernel_reads_again(step):
    stated = different(step, lambda b: b.read_again > 1 << 16 and b.iterations is None, 7)
    for boundary, kernel in zip(stated, merged(step, stated), strict=True):
        grid = only([stmt for stmt in kernel.kernel.body if isinstance(stmt, Grid)])
        iterations = math.prod(integer(e, kernel.integers) for e in grid.extents)
        found = bytes_read_again(kernel, iterations)
        assert found == pytest.approx(boundary.read_again, rel=0.03), boundary


def integer(e: Expr, integers: dict[str, int]) -> int:
    return integers[e[1]] if isinstance(e, tuple) else e


def test_kernels_with_another_between_them_cannot_be_made_one(step):
    between = [b for b in step.boundaries if "stands between" in b.reason]
    for boundary in between[:: len(between) // 2][:2]:
        with pytest.raises(CompilerBug, match="would need the other first"):
            merged(step, [boundary])


def unexplained(stages: Stages) -> list[tuple[str, str, str]]:
    """Buffers that one kernel writes and another reads without a boundary that says why."""
    known = {(b.source, b.target) for b in stages.boundaries}
    writers: dict[Any, list[Step]] = {}
    for step in stages.steps:
        for buffer in step.writes:
            writers.setdefault(buffer, []).append(step)
    return [
        (writer.name, reader.name, buffer.name)
        for reader in stages.steps
        for buffer in reader.reads
        for writer in writers.get(buffer, [])
        if writer is not reader and not any((buffer, n.target) in known for n in targets(reader))
    ]


def targets(step: Step) -> list[Any]:
    return step.tree.all_nests


def test_every_buffer_between_two_kernels_has_a_reason(step):
    assert len(step.boundaries) > 100
    assert unexplained(step) == []
    assert {b.reason for b in step.boundaries}.isdisjoint({"", *COSTS})


def test_windows_that_overlap_are_read_again():
    """Each of 3 x 5 iterations (an output channel, a tap) reads 96 of the image's 100 columns."""
    image, out = (Buffer(name, mo.float32, n, shape=(n,)) for name, n in (("x", 100), ("y", 15)))
    at = ("add", ("i", 1), ("i", 2))
    load = Load("x", at, TRUE, 0, mo.float32)
    nest = Nest(out, [3, 5, 96], 2, load, 0, "add", buffers={"x": image}, reads_at=[("x", (at,))])
    assert read_again([nest], [{nest: 0}, {nest: 1}]) == 4 * (15 * 96 - 100)
    assert read_again([nest], [{nest: 0}]) == 4 * (3 * 100 - 100)


def test_every_kind_of_boundary_says_why():
    x = mo.random.normal((300, 40)).sync()
    rows = mo.array(np.arange(60) % 7)
    summed = mo.reindex_reduce(
        mo.exp(x[:60]).sum(1), "add", (7,), lambda i: (rows[i],)
    )  # a scatter
    called = mo.numpy_code(
        (7,), "float32", [summed], lambda np, data: np.copyto(data["outputs"][0], data["inputs"][0])
    )
    stopped = mo.exp(mo.stop_fuse(x * 2))
    stages = Stages([v._node for v in (called + 1, stopped)])
    reasons = {b.reason for b in stages.boundaries}
    assert unexplained(stages) == []
    assert {"stop_fuse()", "a host callback", "a scatter has a kernel of its own"} <= reasons
    assert reasons.isdisjoint(COSTS)  # the names of rules; "few" was once shown for its words
    lines = by_kernels(stages.boundaries)
    assert any(
        re.fullmatch(r"k\d+ -> a callback: a host callback \(v\d+ -> v\d+\)", x) for x in lines
    )


def test_the_words_of_a_boundary():
    source, target = (Buffer(name, mo.float32, 1) for name in ("v12", "v17"))
    costly = Boundary(source, target, "", ([64], [64, 56, 56]), None, 51_000_000)
    assert repr(costly) == (
        "v12 -> v17: different outer loops [64] / [64, 56, 56]; merging would re-read 51 MB"
    )
    both = [Boundary(source, target, "why", kernels=("k1", "k2")) for target in (source, target)]
    assert by_kernels(both) == ["k1 -> k2: why (v12 -> v12 v17)"]
    assert "re-read" not in Boundary(source, target, "why", read_again=252).reason
    serial = Boundary(source, target, "", ([64], [8]), 1)
    assert serial.reason.endswith("merging would leave 1 iteration to share out")
