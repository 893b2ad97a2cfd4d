"""Numbers that a trace reads by reference: a learning rate, a count of steps, a float argument.

Under `mo.jit` such a number is a `TracedNumber`.  Arithmetic on it is recorded, and done again in
Python at every replay, by the same operations in the same order: so a jitted step computes with
the bits of a plain one.  A comparison becomes a guard of the trace.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import JitError, user_site
from .graph import LITERALS
from .recording import recording

if TYPE_CHECKING:
    from .tracing import Trace

NUMBERS = (bool, int, float)


class TracedNumber:
    """A Python number that may differ at every replay; `example` is its value now."""

    __slots__ = ("trace", "example", "name")
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, example: bool | int | float, expression: str):
        self.trace, self.example = trace, example
        self.name = trace.let(expression)

    if TYPE_CHECKING:

        def __eq__(self, other: object) -> bool: ...
        def __lt__(self, other: Any) -> bool: ...
        def __le__(self, other: Any) -> bool: ...
        def __gt__(self, other: Any) -> bool: ...
        def __ge__(self, other: Any) -> bool: ...

    def __bool__(self) -> bool:
        outcome = bool(self.example)
        self.trace.require(f"bool({self.name}) is {outcome}", f"bool({self.name}) is {outcome}")
        return outcome

    def __neg__(self) -> TracedNumber:
        return TracedNumber(self.trace, -self.example, f"-{self.name}")

    def __pos__(self) -> TracedNumber:
        return self

    def __abs__(self) -> TracedNumber:
        return TracedNumber(self.trace, abs(self.example), f"abs({self.name})")

    def __repr__(self) -> str:
        return f"TracedNumber({self.example!r})"

    def _fixed(self, *_: Any) -> NoReturn:
        raise JitError(
            f"{user_site()}: a number that may differ at every call of {self.trace.name} (a float "
            "argument, a learning rate, a count of steps) is made a plain Python number here, "
            "which a replay would repeat for ever; use + - * / // % ** and comparisons on it "
            "(x ** 0.5 for math.sqrt(x)), or functions of metaop"
        )

    __float__ = __int__ = __index__ = __round__ = __trunc__ = __floor__ = __ceil__ = _fixed
    __str__ = __format__ = __complex__ = _fixed


def _names(trace: Trace, value: Any) -> tuple[str, Any] | None:
    """How a replay writes an operand, and its value now; None for what is no Python number."""
    if isinstance(value, TracedNumber):
        return value.name, value.example
    if type(value) in NUMBERS:
        return trace.constant(value), value
    return None


def _arithmetic(symbol: str, function: Callable[[Any, Any], Any], swap: bool) -> Any:
    def method(self: TracedNumber, other: Any) -> Any:
        named = _names(self.trace, other)
        if named is None:
            return NotImplemented
        (left, a), (right, b) = (self.name, self.example), named
        if swap:
            left, a, right, b = right, b, left, a
        return TracedNumber(self.trace, function(a, b), f"{left} {symbol} {right}")

    return method


def _comparison(symbol: str, function: Callable[[Any, Any], bool]) -> Any:
    def method(self: TracedNumber, other: Any) -> Any:
        named = _names(self.trace, other)
        if named is None:
            return NotImplemented
        outcome = bool(function(self.example, named[1]))
        text = f"({self.name} {symbol} {named[0]}) is {outcome}"
        self.trace.require(text, f"({self.name} {symbol} {other!r}) is {outcome}")
        return outcome

    return method


def _install() -> None:
    arithmetic = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//",
                  "mod": "%", "pow": "**"}  # fmt: skip
    for name, symbol in arithmetic.items():
        function = getattr(operator, name)
        setattr(TracedNumber, f"__{name}__", _arithmetic(symbol, function, False))
        setattr(TracedNumber, f"__r{name}__", _arithmetic(symbol, function, True))
    comparisons = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
    for name, symbol in comparisons.items():
        setattr(TracedNumber, f"__{name}__", _comparison(symbol, getattr(operator, name)))


_install()


def example_of(value: Any) -> Any:
    """The value of a number now, traced or not."""
    return value.example if isinstance(value, TracedNumber) else value


def scalar_value(value: Any) -> Any:
    """What a Scalar holds for a number: a traced one stays an input of the program, unless it is
    one of the values that are part of a program's key, and then a guard holds it to that."""
    if isinstance(value, TracedNumber) and value.example in LITERALS:
        name = value.trace.constant(value.example)
        value.trace.require(f"same({value.name}, {name})", f"{value.name} == {value.example!r}")
        return value.example
    return value


class _Changes:
    """How often the structure of any Module or optimiser changed: the guards on those need not be
    looked at again before it has moved."""

    count = 0


changes = _Changes()


def _noted(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        changes.count += 1
        return plain(self, *args, **kwargs)

    return method


class Watched(dict[Any, Any]):
    """A dict of which every change counts as a change of structure."""

    __setitem__ = _noted("__setitem__")
    __delitem__ = _noted("__delitem__")
    __ior__ = _noted("__ior__")
    clear, pop, popitem = _noted("clear"), _noted("pop"), _noted("popitem")
    setdefault, update = _noted("setdefault"), _noted("update")


class Cells(Watched):
    """A dict whose floats a trace reads and writes by reference; everything else is guarded.

    counts: integers are read by reference as well, as the number of steps of an optimiser.
    """

    counts = False

    def __getitem__(self, key: str) -> Any:
        if recording.trace is None:
            return dict.__getitem__(self, key)
        return recording.trace.read_cell(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if recording.trace is not None:
            recording.trace.write_cell(self, key, value)
            return
        if type(value) not in (float, int) or type(value) is not type(self.get(key)):
            changes.count += 1
        elif type(value) is int and not self.counts:
            changes.count += 1
        dict.__setitem__(self, key, value)

    def read(self) -> dict[str, Any]:
        """All entries as a plain dict, traced ones in a trace."""
        if recording.trace is None:
            return dict(self)
        return {key: self[key] for key in self}


class Counters(Cells):
    """Cells that hold counts too."""

    counts = True
