"""The NaN finder: which operation first made a NaN or an infinity, out of what, on which line.

    with mo.debug_nans():           # or METAOP_CHECK_NAN=1
        loss = step(x, t)           # NonFiniteError: div made 3 NaN in f32[8,4] at train.py:12 …

Every float result of a program is searched.  Where one holds a NaN or an infinity, what it was
computed from is computed once more, an operation at a time in recording order, and searched, too.
An operation *makes* a NaN or an infinity if it has one and its inputs have none, or if it has a NaN
and its inputs only infinities.  Reported is the first that makes one which reaches the result.
Infinities that a program is given and passes on (a mask, a bound to start from) are no error; a NaN
that it is given is.

Cost: one more pass over every result; after a find some milliseconds for each operation, most of
them for compiling it alone.  Host callbacks are called once more.  Functions under `mo.jit` run
unrecorded, so that each line is the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ContextDecorator
from typing import Any, NamedTuple

import numpy as np

from . import dtype as dt
from . import life
from .build import cast, full
from .compiler import programs
from .compiler.program import run
from .config import config
from .dtype import DType
from .errors import NonFiniteError, describe
from .extent import dynamic_shape
from .graph import (
    Buffer,
    Elementwise,
    Node,
    Reindex,
    ReindexReduce,
    Scalar,
    clone,
    pending,
    toposort,
)
from .show import describe_operation, number_of
from .storage import Storage

# A value of more bytes that is spread from smaller ones, as the products of a matrix product before
# they are summed, is not stored: what reads it computes it.
STORED_BYTES = 32 << 20


class debug_nans(ContextDecorator):  # noqa: N801 - read as a word in a with statement
    """The first operation inside that makes a NaN or an infinity raises NonFiniteError.

    with mo.debug_nans():
        optimizer.step(loss(x, t))

    The error names the operation, its inputs' statistics and the user's line; writes that depend on
    it are undone.  What is pending at the end of the block is computed there.
    """

    def __init__(self) -> None:
        self._saved: list[bool] = []

    def __enter__(self) -> debug_nans:
        self._saved.append(config.check_nan)
        config.check_nan = True
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            if exception[0] is None:
                life.sync()
        finally:
            config.check_nan = self._saved.pop()


class Statistics(NamedTuple):
    """Of a float value: how many NaN and infinities, and between what the rest lies."""

    nan: int
    inf: int
    low: float
    high: float

    @property
    def is_finite(self) -> bool:
        """No NaN and no infinity."""
        return not self.nan and not self.inf

    def __str__(self) -> str:
        parts = [f"{self.nan:,} NaN"] * bool(self.nan) + [f"{self.inf:,} inf"] * bool(self.inf)
        if self.low <= self.high:
            parts.append(f"{'the rest' if parts else 'all'} from {self.low:.6g} to {self.high:.6g}")
        return ", ".join(parts) or "empty"


class Find(NamedTuple):
    """The operation at fault, and the error that says so."""

    node: Node
    error: NonFiniteError


FINITE = Statistics(0, 0, 1.0, 0.0)  # and nothing more is known


def find(roots: Sequence[Node], values: dict[Node, Storage]) -> Find | None:
    """Why one of the results is not finite; None if all are, or if they were given infinities.

    roots: what was asked for; values: what was computed, not bound to the nodes yet.
    """
    for root in sorted(roots, key=lambda node: node.sequence):
        storage = values.get(root)
        if storage is not None and root.dtype.is_float:
            if not _statistics(_flat(storage, root.size, root.dtype)).is_finite:
                found = _Search(root).run()
                if found is not None:
                    return found
    return None


# ------------------------------------------------------------------------------------ statistics


def _flat(storage: Storage, size: int, dtype: DType) -> Node:
    """A value as a vector of any size: all of a dtype share a program."""
    return Buffer(storage, dynamic_shape((size,)), dtype)


def _statistics(node: Node) -> Statistics:
    """Of a float node, computed now."""
    wide = cast(node, dt.float64)
    finite = Elementwise("isfinite", node)
    roots = [
        _reduced("add", cast(Elementwise("isnan", node), dt.int64)),
        _reduced("add", cast(Elementwise("isinf", node), dt.int64)),
        _reduced("minimum", _where(finite, wide, float("inf"))),
        _reduced("maximum", _where(finite, wide, float("-inf"))),
    ]
    nan, inf, low, high = (
        storage.view(root.dtype.storage, ()).item() for root, storage in zip(roots, _run(roots))
    )
    return Statistics(nan, inf, low, high)


def _reduced(op: str, node: Node) -> Node:
    return ReindexReduce(op, (), (), node)


def _where(condition: Node, node: Node, other: float) -> Node:
    return Elementwise("where", condition, node, full(other, node.shape, node.dtype))


def _run(roots: list[Node]) -> list[Storage]:
    """The values of some nodes, computed now and bound to nothing."""
    nodes = pending(roots)
    program, leaves = programs.program_for(nodes, roots)
    storages = run(program, leaves)
    found = []
    for kind, number in program.results:
        leaf = leaves[number] if kind == "in" else None
        found.append(storages[number] if leaf is None else life.value_of(leaf))
    return found


# ---------------------------------------------------------------------------------------- search


class _Search:
    """What a result was computed from, one operation at a time."""

    def __init__(self, root: Node):
        self.root = root
        self.nodes = pending([root])
        self.value: dict[Node, Node] = {}  # in memory, or to be computed where it is read
        self.known: dict[Node, Statistics] = {}
        self.spread: dict[Node, bool] = {}
        self.last = {source: node for node in self.nodes for source in node.inputs}

    def run(self) -> Find | None:
        reads: dict[Node, list[Node]] = {}  # what is not needed after a node
        for source, node in self.last.items():
            reads.setdefault(node, []).append(source)
        for node in self.nodes:
            self.compute(node)
            if self.is_spread(node):
                self.known[node] = FINITE  # until a sum over it turns out not to be
            else:
                self.known[node] = self.statistics(node)
                if not self.known[node].is_finite:
                    self.examine_spread(node)
            for source in reads.get(node, ()):
                if self.known[source].is_finite and not self.is_spread(source):
                    self.value.pop(source)
        return self.verdict()

    def compute(self, node: Node) -> None:
        if node.storage is not None or isinstance(node, Scalar):
            self.value[node] = node
            return
        new = clone(node, tuple([self.value[source] for source in node.inputs]))
        new.requires_grad, new.stop = False, True
        self.value[node] = new if self.is_spread(node) else self.stored(new)

    def is_spread(self, node: Node) -> bool:
        """Large, and made of smaller values: see STORED_BYTES."""
        known = self.spread.get(node)
        if known is None:
            known = self.spread[node] = self._is_spread(node)
        return known

    def _is_spread(self, node: Node) -> bool:
        if node.nbytes <= STORED_BYTES or node is self.root or node.storage is not None:
            return False
        if isinstance(node, Elementwise):
            return any(map(self.is_spread, node.inputs))
        return isinstance(node, Reindex) and node.size > sum(n.size for n in node.inputs)

    def examine_spread(self, reader: Node) -> None:
        """The statistics of the large values that a node was computed from."""
        large = [n for n in reader.inputs if n in self.value and self.is_spread(n)]
        for node in toposort(
            large, inputs=lambda n: tuple([i for i in n.inputs if self.is_spread(i)])
        ):
            self.known[node] = self.statistics(node)

    def stored(self, node: Node) -> Node:
        (storage,) = _run([node])
        return Buffer(storage, node.shape, node.dtype)

    def statistics(self, node: Node) -> Statistics:
        value = self.value[node]
        if not node.dtype.is_float:
            return FINITE
        if isinstance(value, Scalar):
            return _of_number(float(value.value))
        if value.storage is None:
            return _statistics(value)
        return _statistics(_flat(value.storage, value.size, value.dtype))

    def verdict(self) -> Find | None:
        reaching = set(toposort([self.root], inputs=self.bad_inputs))
        in_order = [node for node in self.nodes if node in reaching]
        for node in in_order:
            if node.inputs and node.storage is None and self.makes(node):
                return Find(node, NonFiniteError(self.report(node)))
        for node in in_order:
            given = [n for n in self.bad_inputs(node) if n.storage is not None]
            if node.storage is None and any(self.known[n].nan for n in given):
                return Find(node, NonFiniteError(self.report(node)))
        return None

    def bad_inputs(self, node: Node) -> tuple[Node, ...]:
        if node.storage is not None:
            return ()
        return tuple([n for n in node.inputs if not self.known[n].is_finite])

    def makes(self, node: Node) -> bool:
        inputs = [self.known[source] for source in node.inputs]
        given = _of_number(float(getattr(node, "fill", 0)))
        if all(known.is_finite for known in [*inputs, given]):
            return True
        return bool(self.known[node].nan) and not any(known.nan for known in [*inputs, given])

    def report(self, node: Node) -> str:
        inputs = [n for n in dict.fromkeys(node.inputs) if number_of(n) is None]
        names = {n: chr(ord("a") + k) for k, n in enumerate(inputs)}
        known = self.known[node]
        count = f"{known.nan:,} NaN" if known.nan else f"{known.inf:,} inf"
        verb = "made" if self.makes(node) else "was given NaN, and made"
        phase = ", in the backward pass" if node.scope.phase == "backward" else ""
        lines = [
            f"{node.site}: {getattr(node, 'op', node.kind)} {verb} {count} in "
            f"{describe(node)}{phase}",
            f"  {describe_operation(node, names)}: {known}",
        ]
        for source, name in names.items():
            lines.append(f"  {name}: {describe(source)}: {self.described(source)}")
        if node is not self.root:
            lines.append(f"  it reaches {describe(self.root)}, recorded at {self.root.site}")
        return "\n".join(lines)

    def described(self, source: Node) -> str:
        if not source.dtype.is_float:
            return f"recorded at {source.site}"
        return f"{self.known[source]}, recorded at {source.site}"


def _of_number(value: float) -> Statistics:
    if np.isnan(value):
        return Statistics(1, 0, 1.0, 0.0)
    if np.isinf(value):
        return Statistics(0, 1, 1.0, 0.0)
    return Statistics(0, 0, value, value)
