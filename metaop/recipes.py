"""Functions that record what they recorded before: a call whose operands have the kinds of those of
two earlier ones, and whose other arguments are equal, makes the same nodes without running again.

    @remembered
    def var(x, axis=None): ...          # twelve nodes, all known to the third call of a kind

Such a function is pure, and so are the gradients of its escapes: what it records depends on the
shapes, the dtypes and the origins of the extents of its operands, on its other arguments, and on
nothing else.  It runs in a trace of `mo.jit`, where a number may stand for others; when it is given
something that is no Var, number, text or tuple or list of those; and when it looks at a value.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .dtype import DType
from .errors import site_above
from .extent import Atom, Extent, replaced, symbols_of
from .graph import (
    Buffer,
    Elementwise,
    Escape,
    IndexOf,
    Node,
    Reindex,
    ReindexReduce,
    Scalar,
    Shape,
    _sequence,
    toposort,
)
from .recording import recording
from .var import Var

MOST = 1024  # recipes of one function
MOST_MET = 512  # calls of it that were met once
LONGEST = 64  # elements of a list that is an argument
_CONSTANTS = frozenset((int, str, bool, type(None), type(Ellipsis), DType, type))
_DEFINED_BY_SIGNATURE = frozenset((IndexOf, Escape))
_RECORDED = frozenset((Elementwise, Reindex, ReindexReduce, IndexOf, Scalar, Escape))


class _Call:
    """What a recipe is found by, and followed with: operands, and the symbols of their extents."""

    __slots__ = ("extents", "operands", "parts", "symbols")

    def __init__(self, grad: bool):
        self.parts: list[Any] = [grad]
        self.operands: list[Var] = []
        self.symbols: dict[Atom, int] = {}
        self.extents: list[Extent] = []  # those that are nothing but a symbol

    def describe(self, values: Iterable[Any]) -> bool:
        """Adds what tells the values from others; False if one is of an unknown kind."""
        parts = self.parts
        for value in values:
            kind = type(value)
            if kind is Var:
                if not self._operand(value):
                    return False
            elif kind in _CONSTANTS:
                parts += (kind, value)
            elif kind is float:
                parts += (kind, value or str(value))  # 0.0 is not -0.0
            elif kind is tuple or kind is list:
                parts += (kind, len(value))
                if len(value) > LONGEST or not self.describe(value):
                    return False
            elif kind is slice:
                parts.append(kind)
                if not self.describe((value.start, value.stop, value.step)):
                    return False
            elif kind is Extent:
                if not self._extent(value):
                    return False
            elif isinstance(value, Var):
                parts.append(kind)
                if not self._operand(value):
                    return False
            else:
                return False
        return True

    def _operand(self, var: Var) -> bool:
        node = var._node
        for position, other in enumerate(self.operands):
            if other is var:
                self.parts += (Var, position)
                return True
        self.operands.append(var)
        self.parts += (node.dtype, node.requires_grad, node.shape)
        for axis, n in enumerate(node.shape):
            if type(n) is not int:
                self.parts.append(axis)
                if not self._extent(n):
                    return False
        return True

    def _extent(self, n: int) -> bool:
        """Adds a sum of multiples of symbols, by the numbers of those; False for other extents."""
        if type(n) is not Extent:
            return False
        parts, symbols = self.parts, self.symbols
        polynomial = n.polynomial
        parts += (Extent, int(n), len(polynomial))
        for monomial, factor in polynomial:
            if not monomial:
                parts += (factor, None)
                continue
            atom = monomial[0]
            if len(monomial) != 1 or atom[0] != "s":
                return False
            number = symbols.get(atom)
            if number is None:
                number = symbols[atom] = len(symbols)
                is_symbol = factor == 1 and len(polynomial) == 1
                self.extents.append(n if is_symbol else Extent(atom[2], (((atom,), 1),)))
            parts += (factor, number)
        return True


class _Dynamic:
    """What in a recipe has extents in it: tuples, each made of plain parts and of earlier ones.

    All of these are numbered: first the symbols, then the extents that are nothing but a symbol.
    """

    def __init__(self, call: _Call):
        self._symbols = call.symbols
        self._order = _order(list(call.symbols))
        self._number: dict[Any, int] = {}  # of tuples by identity, of extents by polynomial
        self._held: list[Any] = []  # so that no identity is used again
        self._values: list[Any] = [None] * (2 * len(call.symbols))  # the plain parts by number
        # the number of what has extents, and what makes it of the values before it
        self._steps: list[tuple[int, Callable[[list[Any]], Any]]] = []
        self._sums: dict[int, Extent] = {}  # of several symbols, whose terms are sorted

    def number(self, e: Any) -> int | None:
        """The number of nested tuples, or of an extent; None without extents."""
        if type(e) is Extent:
            return self._extent(e)
        if not isinstance(e, tuple):
            return None
        if e in self._symbols:
            return self._symbols[e]
        known = self._number.get(id(e))
        if known is None:
            numbers = [self.number(part) for part in e]
            if numbers == [None] * len(e):
                return None
            places = [self._plain(part) if n is None else n for n, part in zip(numbers, e)]
            known = self._number[id(e)] = self._add(_maker(type(e), places))
            self._held.append(e)
        return known

    def _extent(self, n: Extent) -> int | None:
        known = self._number.get(n.polynomial)
        if known is not None:
            return known
        ((monomial, factor), *rest) = n.polynomial
        of_one_symbol = not rest and len(monomial) == 1 and monomial[0] in self._symbols
        if of_one_symbol and factor == 1:
            known = len(self._symbols) + self._symbols[monomial[0]]
        elif of_one_symbol:
            known = self._add(_multiple_maker(int(n), factor, self._symbols[monomial[0]]))
        else:
            polynomial = self.number(n.polynomial)
            if polynomial is None:  # of a value that the function makes
                return None
            known = self._add(_extent_maker(int(n), polynomial))
            if len(symbols_of(n.polynomial)) > 1:
                self._sums[known] = n
        self._number[n.polynomial] = known
        return known

    def _plain(self, part: Any) -> int:
        self._values.append(part)
        return len(self._values) - 1

    def _add(self, make: Callable[[list[Any]], Any]) -> int:
        number = self._plain(None)
        self._steps.append((number, make))
        return number

    def over(self, call: _Call) -> list[Any]:
        """All of them for a call with other symbols, by their numbers."""
        atoms = list(call.symbols)
        values = self._values.copy()
        values[: 2 * len(atoms)] = *atoms, *call.extents
        if self._sums and _order(atoms) != self._order:
            other = {a: (((b,), 1),) for a, b in zip(self._symbols, atoms)}
            for number, make in self._steps:
                n = self._sums.get(number)
                if n is None:
                    values[number] = make(values)
                else:
                    values[number] = Extent(int(n), replaced(n.polynomial, other))
            return values
        for number, make in self._steps:
            values[number] = make(values)
        return values


def _maker(kind: type, places: list[int]) -> Callable[[list[Any]], Any]:
    """What makes a tuple of some kind of the values with these numbers."""
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    parts = operator.itemgetter(*places)
    if kind is tuple:
        return parts
    return lambda values: tuple.__new__(kind, parts(values))


def _extent_maker(value: int, place: int) -> Callable[[list[Any]], Any]:
    """What makes an extent of the polynomial with this number."""

    def make(values: list[Any]) -> Extent:
        extent: Any = int.__new__(Extent, value)
        extent.polynomial = values[place]
        return extent

    return make


def _multiple_maker(value: int, factor: int, place: int) -> Callable[[list[Any]], Any]:
    """What makes an extent that is a multiple of the symbol with this number."""

    def make(values: list[Any]) -> Extent:
        extent: Any = int.__new__(Extent, value)
        extent.polynomial = (((values[place],), factor),)
        return extent

    return make


def _order(atoms: list[Atom]) -> list[int]:
    if len(atoms) == 2:  # the most frequent, quickly
        return [0, 1] if atoms[0] < atoms[1] else [1, 0]
    return sorted(range(len(atoms)), key=atoms.__getitem__)


_MAKER = """
def make(shape, inputs, signature, site, scope, dtype, requires_grad, stop, own):
    node = new(kind)
    node.sequence = next(sequence)
    node.shape = shape
    node.dtype = dtype
    node.inputs = inputs
    node.signature = signature
    node.site = site
    node.storage = node.layout = node.error = None
    node.overwritten = node.dropped = node.owner = None
    node.scope = scope
    node.requires_grad = requires_grad
    node.stop = stop
    depth = {below}
    for source in inputs:
        if source.depth > depth:
            depth = source.depth
    node.depth = depth + 1
    {slots} = own
    return node
"""


def _maker_of_nodes(kind: type[Node]) -> Callable[..., Node]:
    """What makes a node of a kind of which all is known, and looks for nothing.

    The interpreter fits code to the class that it sees, so each kind has code of its own.
    """
    slots = "".join([f"node.{name}, " for name in kind.__slots__])
    names: dict[str, Any] = {"kind": kind, "new": object.__new__, "sequence": _sequence}
    exec(_MAKER.format(below=kind.lowest - 1, slots=slots), names)
    make: Callable[..., Node] = names["make"]
    return make


_MAKERS = {kind: _maker_of_nodes(kind) for kind in _RECORDED}


class _Step(NamedTuple):
    """How one node is made: its inputs and its shape are numbers in the lists of the recipe."""

    make: Callable[..., Node]
    shape: int
    inputs: Callable[[list[Node]], tuple[Node, ...]]  # takes them out of the list
    own: tuple[Any, ...]  # what the kind's own slots hold
    signature: Any
    dynamic: list[tuple[Callable[[Node, Any], None], int]]  # those that have extents, by number
    signed: int | None  # the number of a signature with extents
    known: tuple[Any, ...]  # dtype, requires_grad, stop


class _Recipe:
    """What a call recorded, to be recorded over other operands of the same kinds."""

    def __init__(self, call: _Call, made: list[Node], result: Any):
        self.symbols = list(call.symbols)
        self.dynamic = _Dynamic(call)
        given = [var._node for var in call.operands]
        self.constants = [node for node in made if type(node) is Buffer and node not in given]
        number = {node: k for k, node in enumerate([*given, *self.constants])}
        self.shapes: list[tuple[Shape, int | None]] = []  # with their numbers, if they have extents
        self.steps: list[_Step] = []
        shapes: dict[int, int] = {}
        for node in made:
            if node not in number:
                self.steps.append(self._step(node, number, shapes))
                number[node] = len(number)
        self.result = _positions(result, number, len(given))

    def _step(self, node: Node, number: dict[Node, int], shapes: dict[int, int]) -> _Step:
        if id(node.shape) not in shapes:
            shapes[id(node.shape)] = len(self.shapes)
            self.shapes.append((node.shape, self.dynamic.number(node.shape)))
        kind = type(node)
        own = tuple([getattr(node, name) for name in kind.__slots__])
        setters = [getattr(kind, name).__set__ for name in kind.__slots__]
        numbers = [(setter, self.dynamic.number(value)) for setter, value in zip(setters, own)]
        # where the definition is made of the slots, the signature stands for it by numbers alone
        is_definition = kind in _DEFINED_BY_SIGNATURE
        return _Step(
            _MAKERS[kind],
            shapes[id(node.shape)],
            _taker([number[source] for source in node.inputs]),
            own,
            node.signature,
            [(setter, number) for setter, number in numbers if number is not None],
            self.dynamic.number(node.signature) if is_definition else None,
            (node.dtype, node.requires_grad, node.stop),
        )

    def follow(self, call: _Call, state: dict[str, Any]) -> Any:
        """The result of the call, recorded."""
        nodes = [var._node for var in call.operands]
        nodes += self.constants
        site = state["site"] or state["layer"] or site_above(2)
        scope = state["scope"]
        values = None
        if self.symbols and list(call.symbols) != self.symbols:
            values = self.dynamic.over(call)
            shapes = [shape if n is None else values[n] for shape, n in self.shapes]
        else:
            shapes = [shape for shape, _ in self.shapes]
        for make, shape, inputs, own, signature, dynamic, signed, known in self.steps:
            if signed is not None and values is not None:
                signature = values[signed]
            node = make(shapes[shape], inputs(nodes), signature, site, scope, *known, own)
            if values is not None:
                for setter, k in dynamic:
                    setter(node, values[k])
            nodes.append(node)
        return _rebuilt(self.result, nodes, call.operands)


def _taker(numbers: list[int]) -> Callable[[list[Node]], tuple[Node, ...]]:
    """What takes the items of these numbers out of a list."""
    if len(numbers) > 1:
        return operator.itemgetter(*numbers)
    if not numbers:
        return _nothing
    (number,) = numbers
    return lambda nodes: (nodes[number],)


def _nothing(nodes: list[Node]) -> tuple[Node, ...]:
    return ()


# A result is a number of a node, of an operand (negative, from -1), or a structure of those.


def _positions(result: Any, number: dict[Node, int], given: int) -> Any:
    if isinstance(result, Var):
        position = number[result._node]
        return -1 - position if position < given else position
    kind = type(result)
    return (kind, [_positions(part, number, given) for part in result])


def _rebuilt(result: Any, nodes: list[Node], operands: list[Var]) -> Any:
    if type(result) is int:
        return Var._of(nodes[result]) if result >= 0 else operands[-1 - result]
    kind, parts = result
    values = [_rebuilt(part, nodes, operands) for part in parts]
    return kind(*values) if hasattr(kind, "_fields") else kind(values)


def _vars_of(result: Any) -> list[Var] | None:
    """The Vars of a result, None if there is anything else in it."""
    if type(result) is Var:
        return [result]
    if not isinstance(result, tuple | list):
        return None
    parts = [_vars_of(part) for part in result]
    return None if None in parts else [var for part in parts for var in part or ()]


def _recipe_of(call: _Call, result: Any, first: int) -> _Recipe | None:
    """How to do a call again that recorded the nodes from `first` on; None if that is unknown."""
    results = _vars_of(result)
    if results is None or any(var.__dict__ for var in results):
        return None
    given = {var._node for var in call.operands}
    made = toposort([var._node for var in results], given.__contains__)
    for node in made:
        is_new = node.sequence > first and (
            node.storage is None if type(node) in _RECORDED else type(node) is Buffer
        )
        if node not in given and not is_new:
            return None
        if type(node) is Escape and node.key is None:
            return None
    if any(type(var._node) is Buffer and var._node not in given for var in results):
        return None
    return _Recipe(call, made, result)


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which runs for operands of new kinds only: see above.

    Whatever a call records has one site, the user's line, which is looked for once.
    """
    recipes: dict[Any, _Recipe | None] = {}  # None: there is no recipe
    met: set[int] = set()  # the hashes of what was met once: a few bytes for what never comes again

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        state = recording.__dict__
        if state["trace"] is not None:
            return function(*arguments, **options)
        call = _Call(state["grad"])
        known = call.describe(arguments)
        if options and known:
            known = call.describe(options) and call.describe(options.values())
        if not known:
            return _at_one_site(function, arguments, options, state)
        key = tuple(call.parts)
        recipe = recipes.get(key)
        if recipe is not None:
            return recipe.follow(call, state)
        first, looks = next(_sequence), state["looks"]
        result = _at_one_site(function, arguments, options, state)
        once = hash(key)
        if once in met:
            if len(recipes) >= MOST:
                recipes.clear()
            has_looked = state["looks"] != looks
            recipes[key] = None if has_looked else _recipe_of(call, result, first)
            met.remove(once)
        elif key not in recipes:  # a call that is never repeated needs no recipe
            if len(met) >= MOST_MET:
                met.clear()
            met.add(once)
        return result

    return wrapped


def _at_one_site(
    function: Callable[..., Any], arguments: Any, options: Any, state: dict[str, Any]
) -> Any:
    if state["layer"] is not None:
        return function(*arguments, **options)
    try:
        state["layer"] = site_above(2)
        return function(*arguments, **options)
    finally:
        state["layer"] = None
