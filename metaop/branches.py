"""A user's function of indices as meta-operators, its ifs included: `mo.kernel`.

The function is called on symbols, once for every way through it: where it asks for the truth of a
condition that only values decide, one answer is given now and the other in a later call.  The
results are put together by `where`:

    if x[i] > 0:                        where(x[i] > 0,
        return 2 * x[i]         ->            2 * x[i],
    return 0.0                                0.0)

A way's gradient is 0 where it was not taken, even if its derivative is infinite there: what the way
reads passes its gradient on only where all its conditions hold.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import dtype as dt
from . import elementwise as el
from .build import full
from .graph import Piece, Reindex
from .index import as_truth, transform, undecided
from .notation import Axis, Indexed, _axes_of, _place, lift
from .var import Var

MOST_WAYS, MOST_CONDITIONS = 32, 12  # beyond, it is a loop that Numba runs better

_choose, _and, _not = lift(el.where), lift(el.logical_and), lift(el.logical_not)
_where_taken = lift(lambda way, v: el.where(way, v, v.detach()))
_FUNCTIONS = """exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan asin acos atan sinh cosh tanh
    asinh acosh atanh erf erfc pow atan2 hypot copysign arcsin arccos arctan arctan2 abs absolute
    maximum minimum where sign square""".split()


class TooManyWays(Exception):
    """The function cannot be followed."""


class _Operand:
    """An operand of which every read is known to belong to a way through the function."""

    def __init__(self, var: Var, way: Indexed | None):
        self._var, self._way = var, way

    def __getitem__(self, key: Any) -> Any:
        read = self._var[key]
        if self._way is None or not isinstance(read, Indexed) or not self._var.dtype.is_float:
            return read
        return _where_taken(self._way, read)

    def __len__(self) -> int:
        return len(self._var)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._var, name)


class _Module(types.ModuleType):
    """math or numpy, whose functions also take expressions over axes."""

    def __init__(self, module: types.ModuleType):
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._module, name)
        if name not in _FUNCTIONS:
            return own
        ours = lift(getattr(el, _NAMES.get(name, name)))

        def function(*args: Any) -> Any:
            return ours(*args) if any(isinstance(a, Indexed) for a in args) else own(*args)

        return function


_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
          "absolute": "abs"}  # fmt: skip


def _on_symbols(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with modules whose functions take expressions."""
    if not isinstance(function, types.FunctionType):
        return function
    space = dict(function.__globals__)
    for name in function.__code__.co_names:
        if space.get(name) in (math, np):
            space[name] = _Module(space[name])
    made = types.FunctionType(
        function.__code__, space, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _as_expression(condition: Any) -> Indexed:
    """A condition as an expression of bools over the axes it depends on."""
    if isinstance(condition, Indexed):
        return lift(lambda c: el.astype(c, dt.bool_))(condition)
    expr = condition.expr
    axes: list[Axis] = _axes_of(expr)

    def node_for(order: tuple[Axis, ...]) -> Reindex:
        def leaf(e: Any) -> Any:
            return ("i", _place(e[1], order)) if isinstance(e, tuple) and e[0] == "axis" else None

        holds = as_truth(transform(expr, leaf))
        shape = tuple(a.extent for a in order)
        return Reindex(shape, (Piece(0, (), holds),), full(1, (), dt.bool_))

    return Indexed(node_for, axes)


class _Explorer:
    """Calls a function along every way through it."""

    def __init__(self, function: Callable[..., Any], loops: Sequence[Axis], vars: Sequence[Var]):
        self.function, self.loops, self.vars = _on_symbols(function), loops, vars
        self.ways = 0

    def follow(self, answers: Sequence[bool], way: Indexed | None) -> tuple[Any, list[Any]]:
        """What the function returns if its conditions are answered so, True beyond; and they."""
        asked: list[Indexed] = []

        def decide(condition: Any) -> bool:
            if len(asked) >= MOST_CONDITIONS:
                raise TooManyWays
            asked.append(_as_expression(condition))
            return answers[len(asked) - 1] if len(asked) <= len(answers) else True

        saved, undecided.decide = undecided.decide, decide
        try:
            return self.function(*self.loops, *(_Operand(v, way) for v in self.vars)), asked
        finally:
            undecided.decide = saved

    def result(self, answers: Sequence[bool] = ()) -> Any:
        """The value of the function where its first conditions have these answers."""
        self.ways += 1
        if self.ways > MOST_WAYS:
            raise TooManyWays
        value, conditions = self.follow(answers, None)
        answered = [*answers, *[True] * (len(conditions) - len(answers))]
        if conditions:
            way = conditions[0] if answered[0] else _not(conditions[0])
            for condition, answer in zip(conditions[1:], answered[1:]):
                way = _and(way, condition if answer else _not(condition))
            value, _ = self.follow(answered, way)
        if not isinstance(value, Indexed | bool | int | float):
            raise TooManyWays
        for k in range(len(conditions) - 1, len(answers) - 1, -1):
            value = _choose(conditions[k], value, self.result([*answered[:k], False]))
        return value


def explored(function: Callable[..., Any], loops: Sequence[Axis], vars: Sequence[Var]) -> Any:
    """What the function returns for symbols, and whether it asked for the truth of something.

    Raises whatever user code raises on symbols that it cannot handle, or TooManyWays.
    """
    explorer = _Explorer(function, loops, vars)
    value = explorer.result()
    return value, explorer.ways > 1
