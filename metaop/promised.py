"""Values that are computed when somebody reads them, and inputs until then.

A dump shows what a step does with a network's parameters and with its inputs, not how these were
made, and most often nobody ever reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import life
from .compiler.layouts import Layouts
from .compiler.pipeline import import_graph, run_passes
from .dtype import DType
from .graph import Buffer, Layout, Shape, pending
from .storage import Storage


class Promised(Storage):
    """The bytes of a value, made by `make` when their address is first asked for."""

    __slots__ = ("_make",)

    def __init__(self, nbytes: int, make: Callable[[], Storage]):
        self.nbytes, self._make = nbytes, make

    def __getattr__(self, name: str) -> Any:  # for a slot that is still empty
        if name != "address":
            raise AttributeError(name)
        self._lease = made = self._make()
        self.address = made.address
        return self.address


def promised(
    make: Callable[[], Storage], shape: Shape, dtype: DType, layout: Layout | None = None
) -> Buffer:
    """A value in memory that `make` fills when it is first read."""
    node = Buffer(Promised(0, make), shape, dtype, layout)
    node.storage.nbytes = node.nbytes  # type: ignore[union-attr]
    return node


def promise_pending() -> None:
    """Binds every live pending Var to a promise of its value: what is recorded from now on reads it
    as an input.  For a `life.rehearsal`, which takes that back.

    A value through which a gradient may be asked for stays what it is.
    """
    found = [v for v in life.live_pending() if v._node.stop or not v._node.requires_grad]
    nodes = [var._node for var in found]
    graph = run_passes(import_graph(pending(nodes), nodes))
    layouts = Layouts(graph)
    for var, node, imported in zip(found, nodes, graph.outputs):
        value = partial(life.value_of, node)
        life.write(var, promised(value, node.shape, node.dtype, layouts.of(imported)))
