"""What a kernel costs: bytes of the buffers it touches, arithmetic operations."""

from __future__ import annotations

from collections.abc import Iterable

from metaop.graph import size_of

from .loops import Op
from .nest import Buffer, Nest, Tree, dependencies

FREE = ("cast", "copy", "bitcast")


def nbytes_of(buffers: Iterable[Buffer]) -> int:
    """Bytes of the buffers in memory that a kernel reads and writes, each once and whole."""
    return sum({b.name: b.nbytes for b in buffers}.values())


def flops_of(tree: Tree) -> int:
    """Arithmetic operations: an operator counts one for every iteration of the loops that it varies
    with, a reduction one for every iteration of its nest; conversions and copies are free."""
    return sum(_operations(nest) for nest in tree.all_nests)


def _operations(nest: Nest) -> int:
    total = nest.iterations if nest.op is not None else 0
    for value, loops in dependencies(nest):
        if isinstance(value, Op) and value.name not in FREE:
            total += size_of(nest.extents[loop] for loop in loops)
    return total
