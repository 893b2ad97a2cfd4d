"""Keys: what two graphs, or two kernels, must share to be one program, or one piece of code.

The first key of a recorded graph, `structure_of`, holds every extent by value: it is what a
repeated step finds its program by.  Where it misses, `canonical` makes the second one, in which
extents are formulas over the graph's dynamic axes: another batch size has the same key, and needs
only to bind the program to its sizes.
"""

from __future__ import annotations

import itertools
import operator
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from metaop.config import config
from metaop.extent import (
    Atom,
    Extent,
    Polynomial,
    Symbolic,
    constant,
    evaluate_polynomial,
    has_extents,
    map_extents,
    polynomial_of,
    replaced,
    size_range,
    standard_hint,
    subtract,
    symbols_of,
)
from metaop.graph import Elementwise, Node, Reindex, ReindexReduce, Scalar
from metaop.index import Expr

if TYPE_CHECKING:
    from .loops import Kernel


def structure_of(nodes: list[Node], asked: list[Node]) -> tuple[Any, list[Node]]:
    """The key of a recorded graph, and its leaves in the order of the program's inputs.

    Two graphs of equal keys differ only in what their leaves hold.
    """
    leaves: list[Node] = []
    made: list[Node] = []
    for node in nodes:
        if node.storage is not None or (type(node) is Scalar and not node.literal):
            leaves.append(node)
        else:
            made.append(node)
    position = dict(zip(nodes, itertools.count())).__getitem__
    inputs = list(map(inputs_of, made))
    key = (
        packed(map(position, leaves)),
        tuple([type(node) is Scalar for node in leaves]),
        each(shape_of, leaves),
        bytes([type(n) is not int for leaf in leaves for n in leaf.shape]),  # which are dynamic
        each(dtype_of, leaves),
        each(layout_of, leaves),
        each(signature_of, made),
        bytes(map(requires_grad_of, made)),
        packed(map(len, inputs)),
        packed(map(position, itertools.chain.from_iterable(inputs))),
        packed(map(position, asked)),
        config.cpu,
        config.fuse,
        config.winograd,
    )
    return key, leaves


def packed(numbers: Iterable[int]) -> bytes:
    """Small numbers in four bytes each: a key of a large graph is kept for many sizes."""
    return array("i", numbers).tobytes()


def each(get: Callable[[Node], Any], nodes: list[Node]) -> tuple[Any, ...]:
    """What `get` returns for each node.

    Not by `tuple(map(…))`, which is made too long and then cut: of such the interpreter keeps up to
    2 000 of each length when they are freed, and uses none again.
    """
    return (*map(get, nodes),)


# What `each` gets of nodes.
inputs_of = operator.attrgetter("inputs")
shape_of = operator.attrgetter("shape")
dtype_of = operator.attrgetter("dtype")
layout_of = operator.attrgetter("layout")
signature_of = operator.attrgetter("signature")
requires_grad_of = operator.attrgetter("requires_grad")


def is_leaf(node: Node) -> bool:
    """True for what a program takes as an input."""
    return node.storage is not None or (isinstance(node, Scalar) and not node.literal)


def kernel_key(kernel: Kernel) -> str:
    """The text of a kernel with canonical names: equal keys are one piece of machine code."""
    from .loops import show_kernel  # loads with the first compilation

    names = {kernel.name: "k"}
    for position, parameter in enumerate(kernel.buffers):
        names[parameter.name] = f"b{position}"
    for position, scratch in enumerate(kernel.scratch):
        names[scratch.name] = f"w{position}"
    return _WORD.sub(lambda word: names.get(word[0], word[0]), show_kernel(kernel))


_WORD = re.compile(r"\w+")


# ------------------------------------------------------------------------ keys without the sizes


class Canonical(NamedTuple):
    """A recorded graph seen without its sizes.

    key: equal for graphs that one program computes; values: of the symbols, in the order of their
    numbers; extents: maps whatever holds recorded extents (a shape, pieces) to formulas over the
    symbols.
    """

    key: Any
    values: tuple[int, ...]
    extents: Callable[[Any], Any]


def canonical(nodes: list[Node], asked: list[Node]) -> Canonical:
    """The key of a recorded graph by the origin of its extents.

    Extents that have to be the same, such as those of the operands of an addition, become one
    symbol, and a constant if one of them is: optimiser state and running statistics are constant
    because the parameters are.  The key holds the order of magnitude of each symbol too, by which
    costs are judged.
    """
    same = _Unifier()
    for node in nodes:
        if not is_leaf(node):
            for a, b in _equal_extents(node):
                same.unify(a, b)
    naming = _Naming(same)
    number: dict[Node, int] = {}
    key: list[Any] = []
    for position, node in enumerate(nodes):
        number[node] = position
        shape = naming(node.shape)
        if is_leaf(node):
            layout = naming(node.layout)
            key.append(("leaf", shape, node.dtype.name, isinstance(node, Scalar), layout))
        else:
            inputs = tuple([number[i] for i in node.inputs])
            key.append((naming(node.definition()), shape, inputs, node.requires_grad))
    scales = tuple(map(size_range, naming.values))
    options = (config.cpu, config.fuse, config.winograd)
    whole = (tuple(key), tuple([number[n] for n in asked]), options, scales)
    return Canonical(whole, tuple(naming.values), naming)


def _equal_extents(node: Node) -> Iterator[tuple[int, int]]:
    """Pairs of extents that are equal in every graph of this structure."""
    if isinstance(node, Elementwise):
        for source in node.inputs:
            if source.shape is not node.shape:
                yield from zip(source.shape, node.shape)
    elif isinstance(node, Reindex):
        for piece in node.pieces:
            yield from _walked(piece.indices, node.shape, node.inputs[piece.source].shape)
            yield from _reads(piece.indices, node.shape, node.inputs)
    elif isinstance(node, ReindexReduce):
        loops = node.inputs[0].shape
        yield from _walked(node.indices, loops, node.shape)
        yield from _reads(node.indices, loops, node.inputs)


def _walked(
    indices: tuple[Expr, ...], loops: tuple[int, ...], shape: tuple[int, ...]
) -> Iterator[tuple[int, int]]:
    """An axis that a plain loop index walks from end to end is as long as the loop."""
    for e, extent in zip(indices, shape):
        if type(e) is tuple and e[0] == "i" and loops[e[1]] == extent:
            yield loops[e[1]], extent


def _reads(
    indices: tuple[Expr, ...], loops: tuple[int, ...], inputs: tuple[Node, ...]
) -> Iterator[tuple[int, int]]:
    """The same for integer inputs that are read at loop indices."""
    if len(inputs) > 1:
        for e in indices:
            yield from _reads_in(e, loops, inputs)


def _reads_in(
    e: Expr, loops: tuple[int, ...], inputs: tuple[Node, ...]
) -> Iterator[tuple[int, int]]:
    if type(e) is not tuple or e[0] == "i":
        return
    if e[0] == "read":
        yield from _walked(e[2], loops, inputs[e[1]].shape)
    for part in e[2] if e[0] == "read" else e[1:]:
        yield from _reads_in(part, loops, inputs)


class _Unifier:
    """Which symbols are the same, or constants: `value` holds what each is replaced by."""

    def __init__(self) -> None:
        self.value: dict[Atom, Polynomial] = {}
        self._known: dict[Polynomial, Polynomial] = {}

    def resolved(self, polynomial: Polynomial) -> Polynomial:
        """A polynomial over symbols that nothing is known of."""
        known = self._known.get(polynomial)
        if known is None:
            known = polynomial
            while any(symbol in self.value for symbol in symbols_of(known)):
                known = replaced(known, self.value)
            self._known[polynomial] = known
        return known

    def unify(self, a: int, b: int) -> None:
        """Notes that two extents, equal in this graph, always are."""
        if a is b or (type(a) is int and type(b) is int):
            return
        one, other = polynomial_of(a), polynomial_of(b)
        if one == other:
            return
        one, other = self.resolved(one), self.resolved(other)
        if one != other:
            self.solve(subtract(one, other))
            self._known.clear()

    def solve(self, difference: Polynomial) -> None:
        """Replaces a symbol so that the difference is 0, or all of its symbols by their values."""
        symbols = symbols_of(difference)
        for symbol in reversed(symbols):
            coefficient = dict(difference).get((symbol,), 0)
            rest = tuple([term for term in difference if term[0] != (symbol,)])
            if abs(coefficient) == 1 and symbol not in symbols_of(rest):
                self.value[symbol] = tuple([(m, -coefficient * c) for m, c in rest])
                return
        for symbol in symbols:
            self.value[symbol] = constant(symbol[2])


class _Naming:
    """Maps recorded extents to formulas over symbols numbered in order of appearance."""

    def __init__(self, same: _Unifier):
        self.same = same
        self.values: list[int] = []
        self.number: dict[Atom, Polynomial] = {}
        self._known: dict[Polynomial, int] = {}
        self._tuples: dict[int, tuple[Any, Any]] = {}

    def __call__(self, e: Any) -> Any:
        """A shape, signature or expression with formulas for extents."""
        known = self._tuples.get(id(e))
        if known is None:
            new = map_extents(e, self.extent) if has_extents(e) else e
            known = self._tuples[id(e)] = (new, e)  # e is kept: its id is not used again
        return known[0]

    def extent(self, n: int) -> int:
        """The formula of one extent."""
        assert isinstance(n, Extent)
        known = self._known.get(n.polynomial)
        if known is None:
            polynomial = self.same.resolved(n.polynomial)
            for symbol in symbols_of(polynomial):
                if symbol not in self.number:
                    self.number[symbol] = (((("s", len(self.values)),), 1),)
                    self.values.append(symbol[2])
            polynomial = replaced(polynomial, self.number)
            likely = [standard_hint(size_range(value)) for value in self.values]
            known = Symbolic(evaluate_polynomial(polynomial, likely), polynomial)
            self._known[n.polynomial] = known
        return known
