"""What a kernel costs: bytes of the buffers it touches, arithmetic operations."""

from __future__ import annotations

from collections.abc import Iterable

from .loops import Op
from .nest import Buffer, Nest, Tree, dependencies

FREE = ("cast", "copy", "bitcast")


def nbytes_of(buffers: Iterable[Buffer]) -> int:
    """Bytes of the buffers in memory that a kernel reads and writes, each once and whole."""
    return sum({b.name: b.nbytes for b in buffers}.values())


def flops_of(tree: Tree) -> int:
    """Arithmetic operations: each operator counts one for every iteration of its nest, a reduction
    one more.  Conversions and copies are free."""
    return sum(_operations(nest) * nest.iterations for nest in tree.all_nests)


def _operations(nest: Nest) -> int:
    """Arithmetic operations per iteration of the innermost loop."""
    count = sum(isinstance(value, Op) and value.name not in FREE for value, _ in dependencies(nest))
    return count + (nest.op is not None)
