"""The graph: every kind of node, with its shape and dtype rule beside it.

    node ::= Buffer                              a value in memory: a version of a Var
           | Scalar(value)                       a Python number, an input of the program
           | IndexOf(shape, axis)                out[i] = i[axis]
           | RandomBits(shape; key, counter)     out[i] = Threefry word of (key, counter, i)
           | Elementwise(op; a, b, …)            out[i] = op(a[i], b[i], …), all of one shape
           | Apply(function; a, b, …)            the same with a function that a user wrote
           | Reindex(shape, pieces, fill; x, …)  out[i] = x_k[e_k(i)] for the first piece whose
                                                 condition holds; fill outside x_k or if none does
           | ReindexReduce(op, shape, e; y, …)   out = identity; for i: out[e(i)] op= y[i]
           | Escape(call; a, …)                  a host callback, a boundary of native execution

Nodes have identity equality and are never changed after construction, with one exception that
is the life of a value: a node acquires a storage when it is computed, and loses its inputs when
nobody can ask for a gradient through it.
"""

from __future__ import annotations

import itertools
import math
import operator
import struct
from collections.abc import Callable, Container, Iterable
from types import FunctionType
from typing import Any, NamedTuple

from . import dtype as dt
from .dtype import DType
from .errors import CompilerBug, Site, site_above
from .extent import Extent
from .index import TRUE, Expr
from .recording import OUTSIDE, Scope, recording
from .storage import Storage

Shape = tuple[int, ...]
_sequence = itertools.count()


def count_of(shape: Iterable[int]) -> int:
    """The number of elements of a shape, as a plain number."""
    return math.prod(map(int, shape))


def size_of(shape: Iterable[int]) -> int:
    """The number of elements of a shape, with its origin."""
    size, dynamic = 1, []
    for extent in shape:
        if type(extent) is int:
            size *= extent
        else:
            dynamic.append(extent)
    for extent in dynamic:  # each product of these is a polynomial: as few as can be
        size *= extent
    return size


class Layout(NamedTuple):
    """How a computed value would lie in memory, had nothing been stored on the way to it: what is
    reduced adds up in the order of this, so that it is the same whatever was read before.

    accesses: where element i0, i1, … lies, but for a constant; of what spreads out several values,
    in each of them; axes: from the outermost to the innermost for what is computed from it element
    by element, None if it spreads out others and has no say; least: how many elements made it.
    """

    accesses: tuple[Expr, ...]
    axes: tuple[int, ...] | None
    least: int


class Node:
    """What all kinds share.

    sequence: creation number, a topological order of every graph;
    signature: what makes two recorded nodes of equal inputs compute the same, see `definition`;
    depth: the longest chain of values that are not computed yet below this one;
    storage: the bytes, once computed; error: why it can never be computed;
    layout: of a computed value, None where it is that of its shape in row-major order;
    requires_grad: a gradient may be asked for through it; stop: no gradient passes below it;
    overwritten: the site of the write that replaced this version; dropped: where its history went;
    owner: a weak reference to the Var whose gradient this node's is, for a leaf of the history;
    scope: the module and the phase of the program that it was recorded in.
    """

    __slots__ = (
        "sequence", "shape", "dtype", "inputs", "signature", "site", "depth", "storage", "layout",
        "error", "requires_grad", "stop", "overwritten", "dropped", "scope", "owner", "__weakref__",
    )  # fmt: skip
    kind = "node"
    lowest = 1  # the depth of a node without inputs
    depth: int
    requires_grad: bool

    def __init_subclass__(cls) -> None:
        """Every kind records with a copy of the code of its own.

        The interpreter fits code to the class that it sees; if it sees several, to none.
        """
        plain: Any = Node._record
        copy = FunctionType(plain.__code__.replace(), plain.__globals__, "_record")
        cls._record = copy  # type: ignore[method-assign]

    def _record(self, shape: Shape, dtype: DType, inputs: tuple[Node, ...], signature: Any) -> None:
        """Fills all slots; called by the constructor of every kind, and by nothing else."""
        state = recording.__dict__
        self.sequence = next(_sequence)
        self.shape = shape
        self.dtype = dtype
        self.inputs = inputs
        self.signature = signature
        self.site: Site = state["site"] or state["layer"] or site_above(3)
        self.storage: Storage | None = None
        self.layout: Layout | None = None
        self.error: BaseException | None = None
        self.overwritten: Site | None = None
        self.dropped: Site | None = None
        self.owner: Any = None
        self.scope: Scope = state["scope"]
        depth = 0
        requires_grad = False
        for node in inputs:
            if node.depth > depth:
                depth = node.depth
            if node.requires_grad:
                requires_grad = True
        self.depth = depth + 1
        if state["grad"]:
            self.requires_grad = requires_grad and dtype.kind == "f"
            self.stop = False
        else:
            self.requires_grad = False
            self.stop = True

    def definition(self) -> tuple[Any, ...]:
        """What makes two nodes of equal inputs compute the same, with all expressions and extents.

        A signature may be a number that stands for this, given by whoever knows the node to be
        like an earlier one (see `numbered`): that saves hashing expressions again at every step.
        """
        return self.signature

    @property
    def size(self) -> int:
        """The number of elements."""
        return size_of(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the value."""
        return size_of(self.shape) * self.dtype.itemsize

    def __repr__(self) -> str:
        shape = ",".join(map(str, self.shape))
        return f"<{self.kind} {self.dtype.short}[{shape}] from {self.site}>"


_numbers = itertools.count(1)


def numbered() -> int:
    """A signature for all nodes of one definition, to be kept in a memo by whoever makes them."""
    return next(_numbers)


class Buffer(Node):
    """A value in memory."""

    __slots__ = ()
    kind = "buffer"

    def __init__(self, storage: Storage, shape: Shape, dtype: DType, layout: Layout | None = None):
        self._record(shape, dtype, (), ("buffer",))
        self.storage, self.layout = storage, layout
        self.depth = 0


def computed(
    kind: type[Buffer],
    storage: Storage,
    shape: Shape,
    dtype: DType,
    site: Site,
    layout: Layout | None = None,
) -> Buffer:
    """A Buffer of a known site, made in a hurry."""
    node = kind.__new__(kind)
    node.sequence = next(_sequence)
    node.shape, node.dtype, node.inputs, node.signature = shape, dtype, (), ("buffer",)
    node.site, node.storage, node.layout, node.depth = site, storage, layout, 0
    node.error = node.overwritten = node.dropped = node.owner = None
    node.scope, node.requires_grad, node.stop = OUTSIDE, False, True
    return node


def clone(node: Node, inputs: tuple[Node, ...]) -> Node:
    """A node like another one that is not computed, over other inputs; gradients pass as there."""
    new = type(node).__new__(type(node))
    for kind in type(node).__mro__[:-1]:
        for name in kind.__slots__:  # type: ignore[attr-defined]
            if name != "__weakref__":
                setattr(new, name, getattr(node, name))
    new.sequence, new.inputs = next(_sequence), inputs
    new.storage = new.layout = new.error = new.overwritten = None
    new.depth = 1 + max([source.depth for source in inputs], default=-1)
    return new


# The values that a rewrite may test for are part of a program's key; all others are its inputs.
LITERALS = frozenset((0.0, 1.0, -1.0, 2.0, -2.0, 0.5))


class Scalar(Node):
    """A Python number of some dtype: an input of the program, so that another value (a learning
    rate, a seed) compiles nothing.  `literal` if the value is part of the key."""

    __slots__ = ("value", "literal")
    kind = "scalar"
    lowest = 0

    value: Any  # a bool, int or float, or a TracedNumber

    def __init__(self, value: Any, dtype: DType):
        self.value = int(value) if type(value) is Extent else value  # an input, or in the key
        value = self.value
        self.literal = dtype is dt.bool_ or (value in LITERALS and _sign_is_plain(value))
        signature = ("literal", value, dtype.name) if self.literal else ("scalar",)
        self._record((), dtype, (), signature)
        self.depth = 0


def _sign_is_plain(value: float) -> bool:
    """False for -0.0, which `value in LITERALS` cannot tell from 0.0."""
    return value != 0 or struct.pack("d", value) == bytes(8)


class IndexOf(Node):
    """out[i] = i[axis] as int64."""

    __slots__ = ("axis",)
    kind = "index"

    def __init__(self, shape: Shape, axis: int):
        self.axis = axis
        self._record(shape, dt.int64, (), ("index", axis, shape))


class RandomBits(Node):
    """out[i] = word 0 of Threefry-2x32-20 of key (k0, k1) and counter (i mod 2^32, call), uint32.

    inputs: key uint32[2], call uint32[].  Source: Salmon et al., "Parallel random numbers: as
    easy as 1, 2, 3", SC 2011.
    """

    __slots__ = ()
    kind = "random_bits"

    def __init__(self, shape: Shape, key: Node, call: Node):
        self._record(shape, dt.uint32, (key, call), ("random_bits", shape))


def _same(*dtypes: DType) -> DType:
    return dtypes[-1]


def _bool(*dtypes: DType) -> DType:
    return dt.bool_


class Operator(NamedTuple):
    """One elementwise operator: arity, dtype rule, cost in simple instructions, on which kinds."""

    arity: int
    result: Callable[..., DType]
    cost: int
    kinds: str  # which dtype kinds it is defined on: f i u b


def _table() -> dict[str, Operator]:
    table: dict[str, Operator] = {}

    def define(names: str, arity: int, cost: int, kinds: str, result: Any = _same) -> None:
        for name in names.split():
            table[name] = Operator(arity, result, cost, kinds)

    define("neg", 1, 1, "fiu")
    define("abs sign", 1, 1, "fiu")
    define("copy barrier", 1, 0, "fiub")  # a barrier is read from memory
    define("again", 1, 0, "fiub")  # a copy that no rewrite removes: what reads it is recomputed
    define("floor ceil round trunc", 1, 1, "f")
    define("sqrt", 1, 6, "f")
    define("exp exp2 sigmoid tanh", 1, 12, "f")
    define("expm1 log log2 log10 log1p sin cos tan erf erfc", 1, 16, "f")
    define("asin acos atan sinh cosh asinh acosh atanh", 1, 24, "f")
    define("erfinv lgamma digamma", 1, 60, "f")
    define("isnan isinf isfinite", 1, 1, "f", _bool)
    define("logical_not", 1, 1, "b", _bool)
    define("invert", 1, 1, "iub")
    define("add sub mul", 2, 1, "fiu")
    define("div", 2, 4, "f")
    define("floordiv mod", 2, 8, "fiu")
    define("truncdiv truncmod", 2, 8, "iu")
    define("pow", 2, 40, "fiu")
    define("atan2 hypot", 2, 30, "f")
    define("copysign", 2, 1, "f")
    define("maximum minimum", 2, 1, "fiub")
    define("fmax fmin", 2, 2, "f")
    define("lt le gt ge eq ne", 2, 1, "fiub", _bool)
    define("logical_and logical_or logical_xor", 2, 1, "b", _bool)
    define("bitand bitor bitxor", 2, 1, "iub")
    define("shl shr", 2, 1, "iu")
    define("where", 3, 1, "fiub")
    return table


OPERATORS = _table()
_PREDICATES = frozenset(name for name, own in OPERATORS.items() if own.result is _bool)
CONVERSIONS = ("cast", "bitcast")


class Elementwise(Node):
    """out[i] = op(a[i], b[i], …); the inputs have one shape."""

    __slots__ = ("op",)
    kind = "elementwise"

    def __init__(self, op: str, *inputs: Node, dtype: DType | None = None):
        self.op = op
        if dtype is None:
            dtype = dt.bool_ if op in _PREDICATES else inputs[-1].dtype
        operations = dtype.operations
        number = operations[op] if op in operations else operations.setdefault(op, numbered())
        self._record(inputs[0].shape, dtype, inputs, number)

    def definition(self) -> tuple[Any, ...]:
        """As `Node.definition`."""
        return (self.op, self.dtype.name)

    def check(self) -> None:
        """Raises CompilerBug unless the inputs fit the operator."""
        if any(node.shape != self.shape for node in self.inputs):
            raise CompilerBug(f"elementwise {self.op}: inputs {self.inputs} differ in shape")
        if self.op in CONVERSIONS:
            return
        operands = self.inputs[1:] if self.op == "where" else self.inputs
        if len({node.dtype for node in operands}) != 1:
            raise CompilerBug(f"elementwise {self.op}: inputs {self.inputs} differ in dtype")
        if operands[0].dtype.kind not in OPERATORS[self.op].kinds:
            raise CompilerBug(f"elementwise {self.op} is not defined on {operands[0].dtype}")


class ScalarFunction(NamedTuple):
    """A function of numbers, as Python source that needs nothing from outside but the names of
    `compiler.python_kernels`: floats are float64, integers int64.

    name: under which the source defines it, different for different sources; label: the user's.
    """

    name: str
    label: str
    source: str


class Apply(Elementwise):
    """out[i] = function(a[i], b[i], …): a user's function of numbers, compiled into the kernel.

    The inputs have one shape, each a dtype of its own; the result is converted to the node's.
    """

    __slots__ = ("function",)

    def __init__(self, function: ScalarFunction, dtype: DType, *inputs: Node):
        self.function = function
        super().__init__(function.name, *inputs, dtype=dtype)

    def check(self) -> None:
        """Raises CompilerBug unless the inputs have the shape of the result."""
        if any(node.shape != self.shape for node in self.inputs):
            raise CompilerBug(f"{self.op}: inputs {self.inputs} differ in shape")


class Custom(Elementwise):
    """A copy of a value whose gradient a `mo.Function` computes: the k-th result of a call.

    History leads from it to the inputs of the call, not to the value.
    """

    __slots__ = ("call", "number")
    call: Any  # a metaop.function.Call; None once the history is forgotten

    def __init__(self, value: Node, call: Any, number: int):
        self.call, self.number = call, number
        super().__init__("copy", value)
        self.requires_grad = any(source.requires_grad for source in call.inputs)


def history_inputs(node: Node) -> tuple[Node, ...]:
    """The nodes to which a gradient passes on from a node."""
    if type(node) is Custom:
        return node.call.inputs if node.call is not None else ()
    return node.inputs


class Piece(NamedTuple):
    """One piece of a reindex: reads inputs[source][indices] where the condition holds."""

    source: int
    indices: tuple[Expr, ...]
    condition: Expr = TRUE


class Reindex(Node):
    """out[i] = x_k[e_k(i)] of the first piece whose condition holds, else fill."""

    __slots__ = ("pieces", "fill")
    kind = "reindex"

    def __init__(
        self,
        shape: Shape,
        pieces: tuple[Piece, ...],
        *inputs: Node,
        fill: bool | int | float = 0,
        signature: int | None = None,
    ):
        self.shape = shape
        self.pieces = pieces
        self.fill = fill
        known = self.definition() if signature is None else signature
        self._record(shape, inputs[pieces[0].source].dtype, inputs, known)

    def definition(self) -> tuple[Any, ...]:
        """As `Node.definition`."""
        fill = self.fill
        text = "0" if type(fill) is int and fill == 0 else repr(fill)
        return ("reindex", self.shape, self.pieces, text)

    def check(self) -> None:
        """Raises CompilerBug unless every piece indexes its source with its rank."""
        for piece in self.pieces:
            source = self.inputs[piece.source]
            if len(piece.indices) != len(source.shape) or source.dtype is not self.dtype:
                raise CompilerBug(f"reindex piece {piece} does not fit {source}")


REDUCTIONS = ("add", "multiply", "maximum", "minimum", "logical_and", "logical_or",
              "bitwise_and", "bitwise_or", "bitwise_xor")  # fmt: skip


def identity_of(op: str, dtype: DType) -> bool | int | float:
    """The identity element of a reduction."""
    if op == "maximum":
        return dtype.lowest
    if op == "minimum":
        return dtype.highest
    if op in ("multiply", "logical_and"):
        return 1
    if op == "bitwise_and":
        return -1 if dtype.kind == "i" else dtype.highest
    return 0


class ReindexReduce(Node):
    """out = identity; for i over y: out[e(i)] op= y[i], skipped outside out.

    ties: how maximum and minimum share a gradient among equal elements, "share" or "first".
    """

    __slots__ = ("op", "indices", "condition", "ties")
    kind = "reindex_reduce"

    def __init__(
        self,
        op: str,
        shape: Shape,
        indices: tuple[Expr, ...],
        *inputs: Node,
        condition: Expr = TRUE,
        ties: str = "share",
        signature: int | None = None,
    ):
        self.shape = shape
        self.op, self.indices, self.condition, self.ties = op, indices, condition, ties
        known = self.definition() if signature is None else signature
        self._record(shape, inputs[0].dtype, inputs, known)

    def definition(self) -> tuple[Any, ...]:
        """As `Node.definition`."""
        return ("reindex_reduce", self.op, self.shape, self.indices, self.condition)

    def check(self) -> None:
        """Raises CompilerBug unless the write index has the rank of the result."""
        if len(self.indices) != len(self.shape) or self.op not in REDUCTIONS:
            raise CompilerBug(f"reindex_reduce {self.op} {self.indices} does not fit {self.shape}")


class Escape(Node):
    """A host callback: `call(*ndarrays) -> ndarray` of this shape and dtype, run between segments.

    gradient: (node, output gradient) -> gradients of the inputs, or None if it has none.
    reason: why no kernel can hold it, for whoever asks.
    key: a hashable value; two escapes of one key and equal shapes compute the same, so that their
    program is compiled once.  None: each is its own, and its program is compiled each time.
    any_size: the call takes sizes from its arrays, so that the program serves all of them; one that
    knows sizes itself has them in its key.
    """

    __slots__ = ("call", "gradient", "name", "key", "reason", "any_size")
    kind = "escape"

    def __init__(
        self,
        name: str,
        call: Callable[..., Any],
        shape: Shape,
        dtype: DType,
        *inputs: Node,
        gradient: Callable[..., Any] | None = None,
        key: Any = None,
        reason: str = "",
        any_size: bool = False,
    ):
        self.name, self.call, self.gradient, self.key = name, call, gradient, key
        self.reason, self.any_size = reason, any_size and key is not None
        identity = id(call) if key is None else key
        self._record(shape, dtype, inputs, ("escape", name, dtype.name, identity, shape))


def toposort(
    roots: Iterable[Node],
    leaf: Callable[[Node], bool] | None = None,
    inputs: Callable[[Node], tuple[Node, ...]] | None = None,
) -> list[Node]:
    """Every node that the roots are computed from, inputs first; `leaf` nodes are not entered.

    inputs: the inputs of a node, if not those it is computed from.

    The creation number is a topological order, so sorting by it is all there is to do.
    """
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if leaf is None or not leaf(node):
            for source in node.inputs if inputs is None else inputs(node):
                if source not in seen:
                    seen.add(source)
                    stack.append(source)
    return sorted(seen, key=_by_sequence)


_by_sequence = operator.attrgetter("sequence")


def history(root: Node, ends: Container[Node]) -> list[Node]:
    """The nodes through which a gradient of the root passes, inputs first.

    It passes on from what requires one, but not below `ends`.
    """
    seen = {root}
    found = [root]
    for node in found:  # which grows meanwhile
        if node.requires_grad and not node.stop and node not in ends:
            for source in node.inputs if type(node) is not Custom else history_inputs(node):
                if source not in seen:
                    seen.add(source)
                    found.append(source)
    found.sort(key=_by_sequence)
    return found


def pending(roots: Iterable[Node]) -> list[Node]:
    """What has to be known to compute the roots, inputs first; computed nodes are leaves.

    A leaf stands before its first user, so that the order does not tell when it was made: the
    first step of a training is the same graph as the second.
    """
    wanted = set(roots)
    seen = {node for node in wanted if node.storage is None}
    found = list(seen)
    readers: set[Node] = set()
    for node in found:  # which grows meanwhile
        for source in node.inputs:
            if source not in seen:
                if source.storage is None:
                    seen.add(source)
                    found.append(source)
                else:
                    readers.add(node)
    found.sort(key=_by_sequence)
    placed: set[Node] = set()
    ordered: list[Node] = []
    for node in found:
        if node in readers:
            for source in node.inputs:
                if source.storage is not None and source not in placed:
                    placed.add(source)
                    ordered.append(source)
        ordered.append(node)
    if not wanted <= seen:  # computed roots
        ordered += sorted(wanted - seen - placed, key=_by_sequence)
    return ordered


# ---------------------------------------------------------------------------- frequent reindexes


def identity_indices(rank: int) -> tuple[Expr, ...]:
    """(i0, i1, …)."""
    return tuple(("i", k) for k in range(rank))


def is_projection(node: ReindexReduce) -> bool:
    """True if the write index is distinct loop indices in increasing order: a plain reduction."""
    axes = [e[1] if isinstance(e, tuple) and e[0] == "i" else -1 for e in node.indices]
    shape = node.inputs[0].shape
    return (
        node.condition == TRUE
        and len(node.inputs) == 1
        and all(a >= 0 for a in axes)
        and axes == sorted(set(axes))
        and all(shape[a] == extent for a, extent in zip(axes, node.shape))
    )
