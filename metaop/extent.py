"""Extents that remember where they come from.

    x = mo.array(images)        x.shape == (256, 1, 28, 28); the 256 is an Extent
    x.reshape(-1).shape         (200704,), an Extent that knows it is 784 times that axis

An `Extent` is an int, and to everybody who looks it is nothing but that int.  It also carries a
polynomial over *symbols*, each standing for one dynamic axis of one value: sums, products and
divisions of extents keep it, so that two extents of a graph are known to be the same, or one a
multiple of the other, by their origin and never by equal numbers.

A program is compiled for all values of its symbols at once.  There an extent is a `Symbolic`: its
int is only a `hint` of what the value may be, equality is that of polynomials, and an order that
is not the same for all values is a guard of the program.

    polynomial ::= ((monomial, coefficient), …)     sorted; the empty monomial is the constant
    monomial   ::= (atom, …)                        sorted
    atom       ::= ("s", number[, value])           a symbol, at least 2
                 | ("//" | "%", polynomial, polynomial)
                 | ("min" | "max", polynomial, polynomial)
"""

from __future__ import annotations

import itertools
import math
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

Atom = tuple[Any, ...]
Monomial = tuple[Atom, ...]
Polynomial = tuple[tuple[Monomial, int], ...]

LEAST = 2  # a symbol is at least this: extents 0 and 1 are constants
ZERO: Polynomial = ()
ONE: Polynomial = (((), 1),)

# What a symbol of a program is taken to be where only cost matters: one number for all ordinary
# sizes, so that none of them is special, others for longer axes: (up to, taken to be).
SIZE_RANGES = ((1024, 251), (1 << 15, 8209), (1 << 20, 250_007), (1 << 62, 4_000_037))

_numbers = itertools.count()


# --------------------------------------------------------------------------------- polynomials


def constant(n: int) -> Polynomial:
    """The polynomial of a plain number."""
    return (((), n),) if n else ZERO


def _sorted(terms: dict[Monomial, int]) -> Polynomial:
    return tuple(sorted(item for item in terms.items() if item[1]))


def add(a: Polynomial, b: Polynomial) -> Polynomial:
    """a + b."""
    terms = dict(a)
    for monomial, coefficient in b:
        terms[monomial] = terms.get(monomial, 0) + coefficient
    return _sorted(terms)


def scale(a: Polynomial, factor: int) -> Polynomial:
    """a times a plain number."""
    if factor == 1:
        return a
    return tuple([(monomial, c * factor) for monomial, c in a]) if factor else ZERO


def subtract(a: Polynomial, b: Polynomial) -> Polynomial:
    """a - b."""
    return add(a, scale(b, -1))


def multiply(a: Polynomial, b: Polynomial) -> Polynomial:
    """a * b."""
    for one, other in ((a, b), (b, a)):
        if len(one) == 1 and not one[0][0]:
            return scale(other, one[0][1])
    terms: dict[Monomial, int] = {}
    for m, c in a:
        for n, d in b:
            monomial = tuple(sorted((*m, *n)))
            terms[monomial] = terms.get(monomial, 0) + c * d
    return _sorted(terms)


def _constant_of(a: Polynomial) -> int | None:
    """The number that a polynomial is, None if it has symbols."""
    if not a:
        return 0
    return a[0][1] if len(a) == 1 and not a[0][0] else None


@lru_cache(maxsize=4096)
def _divided(a: Polynomial, b: Polynomial) -> tuple[Polynomial, Polynomial]:
    """q and r with a == q*b + r, r as short as can be known."""
    divisor = _constant_of(b)
    quotient: dict[Monomial, int] = {}
    if divisor:
        rest: dict[Monomial, int] = {}
        for monomial, c in a:
            if c % divisor == 0 or not monomial:
                quotient[monomial], rest[monomial] = divmod(c, divisor)
            else:
                rest[monomial] = c
        return _sorted(quotient), _sorted(rest)
    lead, factor = max(b, key=lambda term: (len(term[0]), term))
    left = a
    for _ in range(32):  # polynomial division: each step removes one term
        for monomial, c in left:
            part = _without(monomial, lead)
            if part is not None and c % factor == 0:
                break
        else:
            break
        quotient[part] = quotient.get(part, 0) + c // factor
        left = subtract(left, multiply(b, ((part, c // factor),)))
    return _sorted(quotient), left


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    """monomial / part, None if that is none."""
    left = list(monomial)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


@lru_cache(maxsize=4096)
def floordiv(a: Polynomial, b: Polynomial) -> Polynomial:
    """a // b, without an atom where the quotient is a polynomial."""
    quotient, rest = _divided(a, b)
    if not rest or _is_remainder(rest, b):
        return quotient
    if _is_remainder(add(rest, b), b):
        return subtract(quotient, ONE)
    return add(quotient, _floordiv_atom(rest, b))


@lru_cache(maxsize=4096)
def modulo(a: Polynomial, b: Polynomial) -> Polynomial:
    """a % b."""
    _, rest = _divided(a, b)
    if not rest or _is_remainder(rest, b):
        return rest
    if _is_remainder(add(rest, b), b):
        return add(rest, b)
    return (((("%", rest, b),), 1),)


def _is_remainder(rest: Polynomial, divisor: Polynomial) -> bool:
    return nonnegative(rest) and nonnegative(subtract(subtract(divisor, rest), ONE))


def _floordiv_atom(a: Polynomial, b: Polynomial) -> Polynomial:
    """The atom a // b: (g*x + c) // (g*k) -> (x + c//g) // k, and (x // i) // k -> x // (i*k)."""
    divisor = _constant_of(b)
    if divisor is not None and divisor > 0:
        factor = math.gcd(divisor, *(c for monomial, c in a if monomial))
        if factor > 1:
            reduced = _sorted({monomial: c // factor for monomial, c in a})
            return floordiv(reduced, constant(divisor // factor))
        if len(a) == 1 and a[0][1] == 1 and len(a[0][0]) == 1:
            inner = a[0][0][0]
            if inner[0] == "//" and (_constant_of(inner[2]) or 0) > 0:
                return floordiv(inner[1], scale(inner[2], divisor))
    return (((("//", a, b),), 1),)


def _extreme(kind: str, a: Polynomial, b: Polynomial) -> Polynomial:
    """The smaller ("min") or larger ("max") of two."""
    if nonnegative(subtract(b, a)):
        return a if kind == "min" else b
    if nonnegative(subtract(a, b)):
        return b if kind == "min" else a
    first, second = sorted((a, b))
    return ((((kind, first, second),), 1),)


_RULES: dict[str, Callable[[Polynomial, Polynomial], Polynomial]] = {
    "//": floordiv,
    "%": modulo,
    "min": lambda a, b: _extreme("min", a, b),
    "max": lambda a, b: _extreme("max", a, b),
}
_NUMBERS: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}


def symbols_of(a: Polynomial) -> list[Atom]:
    """The symbols of a polynomial, in order of appearance."""
    found: dict[Atom, None] = {}
    for monomial, _ in a:
        for atom in monomial:
            if atom[0] == "s":
                found[atom] = None
            else:
                found |= dict.fromkeys(symbols_of(atom[1]))
                found |= dict.fromkeys(symbols_of(atom[2]))
    return list(found)


def replaced(a: Polynomial, value: Mapping[Atom, Polynomial]) -> Polynomial:
    """a with symbols replaced by polynomials."""
    total: Polynomial = ZERO
    for monomial, coefficient in a:
        product = constant(coefficient)
        for atom in monomial:
            if atom[0] == "s":
                factor = value.get(atom, (((atom,), 1),))
            else:
                factor = _RULES[atom[0]](replaced(atom[1], value), replaced(atom[2], value))
            product = multiply(product, factor)
        total = add(total, product)
    return total


def evaluate(n: int, values: Sequence[int]) -> int:
    """The value of an extent of a program when symbol k has value values[k]."""
    return evaluate_polynomial(n.polynomial, values) if isinstance(n, Extent) else n


def evaluate_polynomial(a: Polynomial, values: Sequence[int]) -> int:
    """The value of a polynomial when symbol k has value values[k]."""
    total = 0
    for monomial, coefficient in a:
        for atom in monomial:
            if atom[0] == "s":
                coefficient *= values[atom[1]]
            else:
                parts = [evaluate_polynomial(part, values) for part in atom[1:]]
                coefficient *= _NUMBERS[atom[0]](*parts)
        total += coefficient
    return total


# ----------------------------------------------------------------------------------------- signs


@lru_cache(maxsize=16_384)
def nonnegative(a: Polynomial) -> bool:
    """True if a is at least 0 whatever the symbols are; False says nothing."""
    for monomial, coefficient in a:
        for atom in monomial:
            if atom[0] != "s":
                rest = add(a, ((monomial, -coefficient),))
                return _bounded(rest, monomial, coefficient, atom)
    return all(c >= 0 for _, c in _from_least(a))


def _from_least(a: Polynomial) -> Polynomial:
    """a over what the symbols exceed their least value by."""
    terms: dict[Monomial, int] = {}
    for monomial, coefficient in a:
        for size in range(len(monomial) + 1):
            for kept in itertools.combinations(monomial, size):
                part = coefficient * LEAST ** (len(monomial) - size)
                terms[kept] = terms.get(kept, 0) + part
    return _sorted(terms)


def _bounded(rest: Polynomial, monomial: Monomial, coefficient: int, atom: Atom) -> bool:
    """True if rest + coefficient*monomial >= 0 by what is known of an atom of the monomial."""
    others: Polynomial = ((_without(monomial, (atom,)) or (), coefficient),)
    if not nonnegative(scale(others, 1 if coefficient > 0 else -1)):
        return False

    def holds(bound: tuple[Polynomial, int]) -> bool:
        value, divisor = bound
        return nonnegative(add(scale(rest, divisor), multiply(others, value)))

    if atom[0] in ("min", "max"):
        both = (atom[0] == "min") == (coefficient > 0)
        return (all if both else any)(holds((part, 1)) for part in atom[1:])
    return any(map(holds, _lower_bounds(atom) if coefficient > 0 else _upper_bounds(atom)))


def _lower_bounds(atom: Atom) -> list[tuple[Polynomial, int]]:
    """Polynomials p and numbers k with p/k <= atom."""
    kind, a, b = atom
    divisor = _constant_of(b)
    bounds: list[tuple[Polynomial, int]] = []
    if not nonnegative(subtract(b, ONE)):
        return bounds
    if kind == "%" or nonnegative(a):
        bounds.append((ZERO, 1))
    if kind == "//" and divisor is not None:
        bounds.append((subtract(a, constant(divisor - 1)), divisor))
        least = _extreme_number(a, 1)
        if least is not None:
            bounds.append((constant(least // divisor), 1))
    return bounds


def _extreme_number(a: Polynomial, sign: int) -> int | None:
    """The least (sign 1) or greatest (-1) value of a polynomial over symbols, None if it has none
    or that is not known."""
    if any(atom[0] != "s" for monomial, _ in a for atom in monomial):
        return None
    terms = dict(_from_least(a))
    number = terms.pop((), 0)
    return number if all(sign * c >= 0 for c in terms.values()) else None


def _upper_bounds(atom: Atom) -> list[tuple[Polynomial, int]]:
    """Polynomials p and numbers k with atom <= p/k."""
    kind, a, b = atom
    divisor = _constant_of(b)
    bounds: list[tuple[Polynomial, int]] = []
    if not nonnegative(subtract(b, ONE)):
        return bounds
    if kind == "%":
        bounds.append((subtract(b, ONE), 1))
    elif divisor is not None:
        bounds.append((a, divisor))
        greatest = _extreme_number(a, -1)
        if greatest is not None:
            bounds.append((constant(greatest // divisor), 1))
    if nonnegative(a):
        bounds.append((a, 1))
    return bounds


def at_least(a: int, b: int) -> bool:
    """True if a >= b is known, whatever the symbols are."""
    if type(a) is type(b) is int:
        return a >= b
    return nonnegative(subtract(polynomial_of(a), polynomial_of(b)))


# --------------------------------------------------------------------------------------- extents


def polynomial_of(n: int) -> Polynomial:
    """The polynomial of an extent or a plain number."""
    return n.polynomial if isinstance(n, Extent) else constant(n)


class Extent(int):
    """An int that knows which axes it was computed from."""

    polynomial: Polynomial

    def __new__(cls, value: int, polynomial: Polynomial) -> Any:
        """The extent of a value and a polynomial; a plain int if that has no symbols."""
        if not polynomial or (len(polynomial) == 1 and not polynomial[0][0]):
            return polynomial[0][1] if polynomial else 0
        extent = int.__new__(cls, value)
        extent.polynomial = polynomial
        return extent

    def __reduce__(self) -> Any:
        return int, (int(self),)  # a copy elsewhere is a plain number

    def __add__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return type(self)(int.__add__(self, other), add(self.polynomial, polynomial_of(other)))

    __radd__ = __add__

    def __sub__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        difference = subtract(self.polynomial, polynomial_of(other))
        return type(self)(int.__sub__(self, other), difference)

    def __rsub__(self, other: int) -> Any:
        return -self + other

    def __mul__(self, other: int) -> Any:
        if type(other) is int:
            return self if other == 1 else self._scaled(other)
        if not isinstance(other, int):
            return NotImplemented
        product = multiply(self.polynomial, polynomial_of(other))
        return type(self)(int.__mul__(self, other), product)

    def _scaled(self, factor: int) -> Any:
        """This many times a plain number: what is asked for most."""
        if not factor:
            return 0
        product = int.__new__(type(self), int.__mul__(self, factor))
        product.polynomial = tuple([(monomial, c * factor) for monomial, c in self.polynomial])
        return product

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _divide(type(self), floordiv, int.__floordiv__, self, other)

    def __rfloordiv__(self, other: int) -> Any:
        return _divide(type(self), floordiv, int.__floordiv__, other, self)

    def __mod__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _divide(type(self), modulo, int.__mod__, self, other)

    def __rmod__(self, other: int) -> Any:
        return _divide(type(self), modulo, int.__mod__, other, self)

    def __divmod__(self, other: int) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: int) -> Any:
        return other // self, other % self

    def __neg__(self) -> Any:
        return type(self)(int.__neg__(self), scale(self.polynomial, -1))

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self


def _divide(
    kind: type[Extent],
    rule: Callable[[Polynomial, Polynomial], Polynomial],
    compute: Callable[[int, int], int],
    a: int,
    b: int,
) -> Any:
    value = compute(int(a), int(b))  # division by zero is raised here
    return kind(value, rule(polynomial_of(a), polynomial_of(b)))


def fresh(value: int) -> int:
    """A new symbol's extent, for one axis of a value; 0 and 1 stay constants."""
    if value < LEAST:
        return int(value)
    return Extent(value, (((("s", next(_numbers), int(value)),), 1),))


def dynamic_shape(shape: Sequence[int], axes: Iterable[int] = (0,)) -> tuple[int, ...]:
    """A shape whose given axes are symbols of their own."""
    marked = set(axes)
    return tuple([fresh(n) if k in marked else n for k, n in enumerate(shape)])


def plain(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape of constants."""
    return tuple([int(n) for n in shape])


def same_extent(a: int, b: int) -> bool:
    """True if two extents are known to be one, by origin or as plain numbers."""
    if a is b or type(a) is type(b) is int:
        return a == b
    return isinstance(a, Extent) and isinstance(b, Extent) and a.polynomial == b.polynomial


def keep_origin(n: Any) -> int:
    """n as an int (as operator.index), an extent as it is.  Raises TypeError."""
    return n if isinstance(n, Extent) else operator.index(n)


def origins(*shapes: Sequence[int]) -> Any:
    """What tells shapes of equal numbers and different origins apart, None without dynamic axes:
    for the keys of memos."""
    found = [n.polynomial for shape in shapes for n in shape if isinstance(n, Extent)]
    return tuple(found) or None


def minimum(a: int, b: int) -> int:
    """The smaller of two extents, for all values of the symbols: no guard."""
    return _either("min", a, b)


def maximum(a: int, b: int) -> int:
    """The larger of two extents, for all values of the symbols: no guard."""
    return _either("max", a, b)


def _either(kind: str, a: int, b: int) -> int:
    one = a if isinstance(a, Extent) else b
    value = _NUMBERS[kind](int(a), int(b))
    if not isinstance(one, Extent):
        return value
    return type(one)(value, _extreme(kind, polynomial_of(a), polynomial_of(b)))


def common_factor(a: int, b: int) -> int:
    """A common divisor: the greatest of plain numbers, of extents what their terms share."""
    if not isinstance(a, Extent) and not isinstance(b, Extent):
        return math.gcd(a, b)
    terms = [*polynomial_of(a), *polynomial_of(b)]
    number = math.gcd(*(c for _, c in terms))
    shared = list(terms[0][0])
    for monomial, _ in terms[1:]:
        left = list(monomial)
        for atom in list(shared):
            if atom in left:
                left.remove(atom)
            else:
                shared.remove(atom)
    kind: Any = type(a) if isinstance(a, Extent) else type(b)
    if not shared:
        return number
    unit = [atom_value(atom) for atom in shared]
    return kind(number * math.prod(unit), ((tuple(shared), number),))


def atom_value(atom: Atom) -> int:
    """The value, or the hint, of an atom."""
    if atom[0] == "s":
        return atom[2] if len(atom) > 2 else standard_hint(0)
    parts = [_value_of(part) for part in atom[1:]]
    return _NUMBERS[atom[0]](*parts)


def _value_of(a: Polynomial) -> int:
    total = 0
    for monomial, coefficient in a:
        total += coefficient * math.prod(atom_value(atom) for atom in monomial)
    return total


def exact_quotient(a: int, b: int) -> int | None:
    """a / b if that is whole whatever the symbols are, else None."""
    if not isinstance(a, Extent) and not isinstance(b, Extent):
        return a // b if a % b == 0 else None
    quotient, rest = _divided(polynomial_of(a), polynomial_of(b))
    if rest:
        return None
    kind: Any = type(a) if isinstance(a, Extent) else type(b)
    return kind(int(a) // int(b), quotient)


# ------------------------------------------------------------------------- extents of a program


class Symbolic(Extent):
    """An extent of a program that is compiled for all values of its symbols.

    Equality is that of polynomials.  An order that depends on the symbols is decided for the sizes
    at hand, and a guard of the program.  Its int is a hint: the same in every program, so that what
    decides the order of a sum by it does so alike.
    """

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Symbolic):
            return self.polynomial == other.polynomial
        return False if isinstance(other, int) else int.__eq__(self, other)

    def __ne__(self, other: object) -> Any:
        equal = self == other
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        return hash(self.polynomial)

    def __lt__(self, other: Any) -> Any:
        return _less(self, other, 1) if isinstance(other, int) else int(self) < other

    def __le__(self, other: Any) -> Any:
        return _less(self, other, 0) if isinstance(other, int) else int(self) <= other

    def __gt__(self, other: Any) -> Any:
        return _less(other, self, 1) if isinstance(other, int) else int(self) > other

    def __ge__(self, other: Any) -> Any:
        return _less(other, self, 0) if isinstance(other, int) else int(self) >= other

    def __bool__(self) -> bool:
        if at_least(self, 1) or at_least(-1, self):
            return True
        return self > 0 if guess(self) >= 0 else self < 0

    def __pow__(self, exponent: int, modulus: Any = None) -> Any:
        result: Any = 1
        for _ in range(exponent):
            result = result * self
        return result

    def _refused(self, other: Any) -> Any:
        raise TypeError(f"{self!r}: bits of an extent that is not known")

    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refused
    __rshift__ = __rrshift__ = __lshift__ = __rlshift__ = _refused
    __rpow__: Any = _refused

    def bit_length(self) -> int:
        """Refused: the number is not known."""
        return self._refused(None)

    def __repr__(self) -> str:
        return show(self.polynomial)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)


def hint(n: int) -> int:
    """What n may be, as a plain number: for decisions of cost, which set no guard."""
    return int(n)


def symbol(number: int, value: int) -> Any:
    """The extent of a program's symbol, with a hint."""
    return Symbolic(value, (((("s", number),), 1),))


def size_range(value: int) -> int:
    """The number of the size range that a value lies in: 0 for an ordinary extent."""
    return next(k for k, (most, _) in enumerate(SIZE_RANGES) if value <= most)


def standard_hint(scale: int) -> int:
    """The hint of a symbol whose value lies in a size range.

    It is the same for all symbols: how a sum is cut into pieces must not depend on what else a
    program computes.
    """
    return SIZE_RANGES[scale][1]


class _Guards(threading.local):
    active: dict[Polynomial, None] | None = None
    sizes: Sequence[int] | None = None


_guards = _Guards()


@contextmanager
def recording_guards(sizes: Sequence[int] | None = None) -> Iterator[dict[Polynomial, None]]:
    """Collects the guards of the decisions made inside: polynomials that must be at least 0.

    sizes: values of the symbols for which the decisions are to be right; by default the hints.
    """
    outer = _guards.active, _guards.sizes
    _guards.active, _guards.sizes = {}, sizes
    try:
        yield _guards.active
    finally:
        _guards.active, _guards.sizes = outer


def guess(n: int) -> int:
    """What n is for the sizes that a program is compiled for: for choices that are right for some
    values only, which `require` makes guards of, and that change no bit of a result."""
    if not isinstance(n, Symbolic) or _guards.sizes is None:
        return int(n)
    return evaluate_polynomial(n.polynomial, _guards.sizes)


def _less(a: int, b: int, by: int) -> bool:
    """a + by <= b."""
    difference = subtract(subtract(polynomial_of(b), polynomial_of(a)), constant(by))
    if nonnegative(difference):
        return True
    opposite = subtract(scale(difference, -1), ONE)
    if nonnegative(opposite):
        return False
    holds = guess(a) + by <= guess(b)
    if _guards.active is not None:
        _guards.active[difference if holds else opposite] = None
    return holds


def simplified(guards: Iterable[Polynomial]) -> list[Polynomial]:
    """As strict guards, of all bounds on one symbol the closest only."""
    closest: dict[tuple[Atom, bool], int] = {}
    rest: dict[Polynomial, None] = {}
    for guard in guards:
        terms = dict(guard)
        number = terms.pop((), 0)
        if len(terms) != 1 or len(next(iter(terms))) != 1:
            rest[guard] = None
            continue
        (((atom,), factor),) = terms.items()
        bound = -(number // factor) if factor > 0 else number // -factor  # s >= bound, s <= bound
        known = closest.setdefault((atom, factor > 0), bound)
        closest[atom, factor > 0] = (max if factor > 0 else min)(known, bound)
    for (atom, below), bound in closest.items():
        sign = 1 if below else -1
        rest[add((((atom,), sign),), constant(-sign * bound))] = None
    return list(rest)


def require(a: int, least: int) -> None:
    """Makes a >= least a guard of the program unless it always holds."""
    if isinstance(a, Symbolic) and not at_least(a, least) and _guards.active is not None:
        _guards.active[subtract(a.polynomial, constant(least))] = None


# ----------------------------------------------------------------------------- text and transport


def show(a: Polynomial) -> str:
    """A polynomial as text: 49*s0 - 1."""
    text = ""
    for monomial, c in sorted(a, key=lambda term: (-len(term[0]), term)):
        size = [str(abs(c))] if abs(c) != 1 or not monomial else []
        term = "*".join([*size, *map(_show_atom, monomial)])
        text += f"-{term}" if c < 0 and not text else f" - {term}" if c < 0 else f" + {term}"
    return text.removeprefix(" + ") or "0"


def _show_atom(atom: Atom) -> str:
    if atom[0] == "s":
        return f"s{atom[1]}"
    a, b = show(atom[1]), show(atom[2])
    if atom[0] in ("min", "max"):
        return f"{atom[0]}({a}, {b})"
    return f"({_bracket(a)} {atom[0]} {_bracket(b)})"


def _bracket(text: str) -> str:
    return f"({text})" if " " in text else text


def encode(n: int) -> Any:
    """An extent of a program as a number or nested lists, as JSON holds it."""
    return _lists(n.polynomial) if isinstance(n, Extent) else n


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple([_tuples(v) for v in value]) if isinstance(value, list | tuple) else value


def decode(data: Any) -> int:
    """The extent that `encode` wrote."""
    if isinstance(data, int):
        return data
    polynomial = _tuples(data)
    return Symbolic(_value_of(polynomial), polynomial)


# ------------------------------------------------------------------- extents in index expressions


def generalise(*shapes: Sequence[int]) -> tuple[list[tuple[int, ...]], list[Atom]]:
    """Shapes over numbered symbols, and the symbols: what is derived from the result, and may be
    remembered, holds for all shapes of the same origins."""
    number: dict[Atom, Polynomial] = {}

    def general(n: int) -> int:
        if not isinstance(n, Extent):
            return n
        for atom in symbols_of(n.polynomial):
            number.setdefault(atom, (((("s", len(number)),), 1),))
        return Symbolic(int(n), replaced(n.polynomial, number))

    return [tuple(map(general, shape)) for shape in shapes], list(number)


def linear_form(*shapes: Sequence[int]) -> Any:
    """What shapes have in common that `generalise` to the same, found quickly; None if an extent
    is not a plain multiple of one symbol."""
    number: dict[Atom, int] = {}
    form: list[Any] = []
    for shape in shapes:
        form.append(len(shape))
        for n in shape:
            if not isinstance(n, Extent):
                form.append(n)
                continue
            polynomial = n.polynomial
            ((monomial, factor), *rest) = polynomial
            if rest or len(monomial) != 1 or monomial[0][0] != "s":
                return None
            form.append((number.setdefault(monomial[0], len(number)), factor))
    return tuple(form)


def specialise(e: Any, symbols: Sequence[Atom]) -> Any:
    """An expression over numbered symbols with the symbols themselves."""
    return renamed(e, {("s", k): (((atom,), 1),) for k, atom in enumerate(symbols)})


def renamed(e: Any, value: Mapping[Atom, Polynomial]) -> Any:
    """Nested tuples with the symbols of their extents replaced by polynomials."""

    def other(n: int) -> int:
        polynomial = replaced(n.polynomial, value)  # type: ignore[attr-defined]
        return Extent(_value_of(polynomial), polynomial)

    return map_extents(e, other)


def symbols_in(e: Any) -> list[Atom]:
    """The symbols of the extents in nested tuples, in order of appearance."""
    found: dict[Atom, None] = {}

    def note(n: int) -> int:
        found.update(dict.fromkeys(symbols_of(n.polynomial)))  # type: ignore[attr-defined]
        return n

    map_extents(e, note)
    return list(found)


def map_extents(e: Any, rule: Callable[[int], int]) -> Any:
    """Nested tuples with every extent in them mapped."""
    if isinstance(e, tuple):
        new = [map_extents(part, rule) for part in e]
        if all(a is b for a, b in zip(new, e)):
            return e
        return type(e)(*new) if hasattr(e, "_fields") else tuple(new)
    return rule(e) if isinstance(e, Extent) else e


def has_extents(e: Any) -> bool:
    """True if an extent occurs in nested tuples."""
    if isinstance(e, tuple):
        return any(map(has_extents, e))
    return isinstance(e, Extent)


def slice_indices(key: slice, extent: int) -> tuple[int, int, int]:
    """Start, stop and step, as `slice.indices`, which would forget where the extent is from."""
    step = 1 if key.step is None else keep_origin(key.step)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    lowest, highest = (0, extent) if step > 0 else (-1, extent - 1)

    def bound(n: Any, default: int) -> int:
        if n is None:
            return default
        n = keep_origin(n)
        if n < 0:
            n = n + extent
        return lowest if n < lowest else highest if n > highest else n

    start = bound(key.start, lowest if step > 0 else highest)
    return start, bound(key.stop, highest if step > 0 else lowest), step


def slice_length(start: int, stop: int, step: int) -> int:
    """How many numbers a slice selects."""
    span = stop - start if step > 0 else start - stop
    return -(-span // abs(step)) if span > 0 else 0
