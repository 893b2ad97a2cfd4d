"""Keys: what two graphs, or two kernels, must share to be one program, or one piece of code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from metaop.config import config
from metaop.graph import Node, Scalar

if TYPE_CHECKING:
    from .loops import Kernel


def structure_of(nodes: list[Node], asked: list[Node]) -> tuple[Any, list[Node]]:
    """The key of a recorded graph, and its leaves in the order of the program's inputs.

    Two graphs of equal keys differ only in what their leaves hold.
    """
    number: dict[Node, int] = {}
    leaves: list[Node] = []
    key: list[Any] = []
    for position, node in enumerate(nodes):
        number[node] = position
        if is_leaf(node):
            leaves.append(node)
            key.append(("leaf", node.shape, node.dtype.name, isinstance(node, Scalar)))
        else:
            inputs = tuple([number[i] for i in node.inputs])
            key.append((node.signature, node.shape, inputs, node.requires_grad))
    return (tuple(key), tuple([number[n] for n in asked]), config.cpu, config.fuse), leaves


def is_leaf(node: Node) -> bool:
    """True for what a program takes as an input."""
    return node.storage is not None or (isinstance(node, Scalar) and not node.literal)


def kernel_key(kernel: Kernel) -> str:
    """The text of a kernel with canonical names: equal keys are one piece of machine code."""
    from .loops import show_kernel  # loads with the first compilation

    names = {kernel.name: "k"}
    for position, parameter in enumerate(kernel.buffers):
        names[parameter.name] = f"b{position}"
    for position, array in enumerate(kernel.scratch):
        names[array.name] = f"w{position}"
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    return pattern.sub(lambda match: names[match.group(1)], show_kernel(kernel))
