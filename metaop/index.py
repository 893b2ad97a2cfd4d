"""Index expressions as data: what a reindex reads, where a reindex_reduce writes.

Grammar (plain tuples and ints; hashable, printable, free of code):

    e ::= int | ("i", k)                          the k-th loop index
        | ("add"|"sub"|"mul", e, e)
        | ("floordiv"|"mod", e, e)                Python's signs
        | ("div"|"rem", e, e)                     C's signs (Jittor's / and %)
        | ("min"|"max", e, e) | ("where", c, e, e)
        | ("read", k, (e, ...), check)            the k-th integer input at (e, ...);
                                                  check: (low, high) or None
        | ("val", name)                           a value named earlier (compiler only)
        | ("axis", axis)                          a named loop (index notation only)
    c ::= ("lt"|"le"|"eq"|"ne", e, e) | ("and"|"or", c, c) | ("not", c) | ("true",)

`simplify` brings an expression into a normal form, a sum of coefficients times atoms, using the
range of every loop index; equal normal forms are equal expressions (not the reverse).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeVar

from .errors import IndexExpressionError
from .extent import Extent, at_least, common_factor, exact_quotient, hint, keep_origin

A = TypeVar("A")
R = TypeVar("R")
Expr = Any  # int or a tuple of the grammar above
Range = tuple[int, int]  # inclusive bounds
Extents = Sequence[int]
TRUE = ("true",)
FALSE = ("not", TRUE)
HUGE = 1 << 62


def loop(k: int) -> Expr:
    """The k-th loop index."""
    return ("i", k)


# ----------------------------------------------------------------------------------- arithmetic


def _truncating_div(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a >= 0) == (b >= 0) else -quotient


FOLD: dict[str, Callable[[int, int], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "div": _truncating_div,
    "rem": lambda a, b: a - b * _truncating_div(a, b),
    "min": min,
    "max": max,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}
CONDITIONS = frozenset(("lt", "le", "eq", "ne", "and", "or", "not", "true"))


def is_condition(e: Expr) -> bool:
    """True for a condition, False for an integer expression."""
    return isinstance(e, tuple) and e[0] in CONDITIONS


def as_integer(e: Expr) -> Expr:
    """e with every condition that stands for an integer written as one: 1 if it holds, else 0."""
    typed = _typed(e)
    return ("where", typed, 1, 0) if is_condition(typed) else typed


def as_truth(e: Expr) -> Expr:
    """e as a condition: an integer is true if it is not 0."""
    typed = _typed(e)
    return typed if is_condition(typed) else ("ne", typed, 0)


def _typed(e: Expr) -> Expr:
    parts = children(e)
    if not parts:
        return e
    if e[0] in ("and", "or", "not"):
        return rebuild(e, [as_truth(p) for p in parts])
    if e[0] == "where":
        return ("where", as_truth(e[1]), as_integer(e[2]), as_integer(e[3]))
    return rebuild(e, [as_integer(p) for p in parts])


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct sub-expressions of e."""
    if isinstance(e, int) or e[0] in ("i", "val", "true", "axis"):
        return ()
    return e[2] if e[0] == "read" else e[1:]


def rebuild(e: Expr, parts: Sequence[Expr]) -> Expr:
    """e with its direct sub-expressions replaced by `parts`."""
    if e[0] == "read":
        return ("read", e[1], tuple(parts), *e[3:])
    return (e[0], *parts)


def transform(e: Expr, leaf: Callable[[Expr], Expr | None]) -> Expr:
    """e rebuilt from the leaves up; `leaf` may replace any node (None: keep and go on)."""
    replaced = leaf(e)
    if replaced is not None:
        return replaced
    parts = children(e)
    if not parts:
        return e
    new = tuple(transform(p, leaf) for p in parts)
    return e if new == parts else rebuild(e, new)


def substitute(e: Expr, indices: Sequence[Expr]) -> Expr:
    """e with every loop index k replaced by indices[k]."""
    if isinstance(e, int):
        return e
    kind = e[0]
    if kind == "i":
        return indices[e[1]]
    if kind in ("val", "true", "axis"):
        return e
    if kind == "read":
        return rebuild(e, [substitute(p, indices) for p in e[2]])
    return (kind, *[substitute(p, indices) for p in e[1:]])


@lru_cache(maxsize=1 << 14)
def loops_of(e: Expr) -> frozenset[int]:
    """The loop indices that occur in e."""
    return _leaves("i", e)


@lru_cache(maxsize=1 << 14)
def integers_of(e: Expr) -> frozenset[str]:
    """The names of the values in e."""
    return _leaves("val", e)


def _leaves(kind: str, e: Expr) -> frozenset[Any]:
    """What the leaves of a kind stand for."""
    found = set()
    parts = [e]
    while parts:
        part = parts.pop()
        if type(part) is tuple and part:
            if part[0] == kind:
                found.add(part[1])
            else:
                parts.extend(part)  # a read's indices are one part; names and numbers are skipped
    return frozenset(found)


def contains(e: Expr, kinds: tuple[str, ...]) -> bool:
    """True if a node of one of the kinds occurs in e."""
    if isinstance(e, int):
        return False
    return e[0] in kinds or any(contains(p, kinds) for p in children(e))


def reads_of(e: Expr) -> list[Expr]:
    """The reads of integer inputs in e, outermost last."""
    if isinstance(e, int):
        return []
    found = [r for part in children(e) for r in reads_of(part)]
    return [*found, e] if e[0] == "read" else found


def evaluate(e: Expr, indices: Sequence[int], read: Callable[..., int] | None = None) -> Any:
    """The value of e at concrete loop indices; `read(k, position)` supplies integer inputs."""
    if isinstance(e, int):
        return e
    kind = e[0]
    if kind == "i":
        return indices[e[1]]
    if kind == "true":
        return True
    if kind == "read":
        assert read is not None
        return read(e[1], tuple(evaluate(p, indices, read) for p in e[2]))
    if kind == "where":
        return evaluate(e[2] if evaluate(e[1], indices, read) else e[3], indices, read)
    parts = [evaluate(p, indices, read) for p in e[1:]]
    if kind == "and":
        return parts[0] and parts[1]
    if kind == "or":
        return parts[0] or parts[1]
    return not parts[0] if kind == "not" else FOLD[kind](*parts)


# ----------------------------------------------------------------------------------- intervals


def interval(e: Expr, extents: Extents, known: dict[Expr, Range] | None = None) -> Range:
    """Inclusive bounds of e when loop index k runs over range(extents[k]).

    known: of expressions over the same loops; those of all parts are added.
    """
    if isinstance(e, int):
        return (e, e)
    if known is None:
        return _interval(e, extents, known)
    if e not in known:
        known[e] = _interval(e, extents, known)
    return known[e]


def _interval(e: Expr, extents: Extents, known: dict[Expr, Range] | None) -> Range:
    kind = e[0]
    if kind == "i":
        last = extents[e[1]] - 1
        return (0, last if isinstance(last, Extent) else max(last, 0))  # loops are not empty
    if kind == "read" or kind == "val":
        check = e[3] if kind == "read" else (e[2] if len(e) > 2 else None)
        return (check[0], check[1] - 1) if check else (-HUGE, HUGE)
    if kind in CONDITIONS:
        return (0, 1)
    if kind == "where":
        a, b = interval(e[2], extents, known), interval(e[3], extents, known)
        return (_least((a[0], b[0])), _greatest((a[1], b[1])))
    a, b = interval(e[1], extents, known), interval(e[2], extents, known)
    return _INTERVAL[kind](a, b)


def fit_32_bits(found: Iterable[Expr], extents: Extents) -> bool:
    """True if no part of some expressions can leave 32 bits."""
    seen: set[Expr] = set()
    known: dict[Expr, Range] = {}

    def fits(e: Expr) -> bool:
        if e in seen:
            return True
        seen.add(e)
        if not is_condition(e):
            low, high = interval(e, extents, known)
            if low < -(1 << 31) or high >= 1 << 31:
                return False
        return all(map(fits, children(e)))

    return all(map(fits, found))


def conditions_of(found: Iterable[Expr]) -> list[Expr]:
    """The outermost conditions in some expressions."""
    conditions: list[Expr] = []
    for e in found:
        conditions += [e] if is_condition(e) else conditions_of(children(e))
    return conditions


def _least(values: Sequence[int]) -> int:
    """The smallest of several bounds; no bound if that depends on dynamic extents."""
    for value in values:
        if all(at_least(other, value) for other in values):
            return value
    return -HUGE


def _greatest(values: Sequence[int]) -> int:
    for value in values:
        if all(at_least(value, other) for other in values):
            return value
    return HUGE


def _corners(op: Callable[[int, int], int], a: Range, b: Range) -> Range:
    values = [op(x, y) for x in a for y in b]
    return (_least(values), _greatest(values))


def _interval_mul(a: Range, b: Range) -> Range:
    for (low, high), factor in ((a, b), (b, a)):
        if factor[0] == factor[1] and type(factor[0]) is int:  # by a number
            ends = low * factor[0], high * factor[0]
            return ends if factor[0] >= 0 else ends[::-1]
    return _corners(FOLD["mul"], a, b)


def _interval_div(op: Callable[[int, int], int]) -> Callable[[Range, Range], Range]:
    def rule(a: Range, b: Range) -> Range:
        if not at_least(b[0], 1):
            return (-HUGE, HUGE)
        if all(type(bound) is int for bound in (*a, *b)):
            return _corners(op, a, b)
        if at_least(a[0], 0):  # all roundings agree
            return (a[0] // b[1], a[1] // b[0])
        return (-HUGE, HUGE)

    return rule


def _interval_mod(a: Range, b: Range) -> Range:
    if b[0] != b[1] or not at_least(b[0], 1):
        return (-HUGE, HUGE)
    if at_least(a[0], 0) and at_least(b[0] - 1, a[1]):
        return a
    return (0, b[0] - 1)


def _interval_rem(a: Range, b: Range) -> Range:
    if b[0] != b[1] or not at_least(b[0], 1):
        return (-HUGE, HUGE)
    return (0 if at_least(a[0], 0) else 1 - b[0], 0 if at_least(0, a[1]) else b[0] - 1)


_INTERVAL: dict[str, Callable[[Range, Range], Range]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _interval_mul,
    "floordiv": _interval_div(FOLD["floordiv"]),
    "div": _interval_div(FOLD["div"]),
    "mod": _interval_mod,
    "rem": _interval_rem,
    "min": lambda a, b: (_least((a[0], b[0])), _upper_of_least(a[1], b[1])),
    "max": lambda a, b: (_lower_of_greatest(a[0], b[0]), _greatest((a[1], b[1]))),
}


def _upper_of_least(a: int, b: int) -> int:
    """A bound on min(x, y) for x <= a, y <= b: either, the smaller if that is known."""
    return b if at_least(a, b) else a


def _lower_of_greatest(a: int, b: int) -> int:
    return b if at_least(b, a) else a


# --------------------------------------------------------------------------------- normal form

Terms = dict[Expr, int]  # atom -> coefficient; the atom None stands for the constant


def terms_of(e: Expr, extents: Extents) -> Terms:
    """e as a sum of coefficient * atom (key None: the constant), atoms in normal form."""
    if isinstance(e, int):
        return _constant(e)
    kind = e[0]
    if kind in ("add", "sub"):
        sign = 1 if kind == "add" else -1
        result = dict(terms_of(e[1], extents))
        for atom, coefficient in terms_of(e[2], extents).items():
            _accumulate(result, atom, sign * coefficient)
        return result
    if kind == "i":
        return {e: 1} if extents[e[1]] != 1 else {}
    if kind == "mul":
        if isinstance(e[2], int):
            return _scaled(terms_of(e[1], extents), e[2])
        a, b = terms_of(e[1], extents), terms_of(e[2], extents)
        if not b or set(b) == {None}:
            return _scaled(a, b.get(None, 0))
        if not a or set(a) == {None}:
            return _scaled(b, a.get(None, 0))
        return {("mul", from_terms(a), from_terms(b)): 1}
    if kind in ("floordiv", "mod", "div", "rem"):
        dividend = _recombine(terms_of(e[1], extents), extents)
        return _division_terms(kind, dividend, simplify(e[2], extents), extents)
    return {_simplify_atom(e, extents): 1} if not _folds(e, extents) else _folded(e, extents)


def _constant(value: int) -> Terms:
    return {None: value} if value != 0 else {}


def _accumulate(terms: Terms, atom: Expr, coefficient: int) -> None:
    total = terms.get(atom, 0) + coefficient
    if total != 0:
        terms[atom] = total
    else:
        terms.pop(atom, None)


def _scaled(terms: Terms, factor: int) -> Terms:
    return {atom: c * factor for atom, c in terms.items()} if factor != 0 else {}


def _simplify_atom(e: Expr, extents: Extents) -> Expr:
    parts = children(e)
    return rebuild(e, [simplify(p, extents) for p in parts]) if parts else e


def _folds(e: Expr, extents: Extents) -> bool:
    if e[0] in ("i", "val", "read"):
        return e[0] == "i" and extents[e[1]] == 1
    low, high = interval(e, extents)
    return low == high or e[0] in ("min", "max", "where")


def _folded(e: Expr, extents: Extents) -> Terms:
    """A node whose value the ranges decide: min, max, where, an index of extent one."""
    if e[0] == "i":
        return {}
    low, high = interval(e, extents)
    if low == high:
        return _constant(low)
    if e[0] == "where":
        condition = simplify(e[1], extents)
        if condition in (TRUE, FALSE):
            return terms_of(e[2] if condition == TRUE else e[3], extents)
    if e[0] in ("min", "max"):
        a, b = interval(e[1], extents), interval(e[2], extents)
        if at_least(b[0], a[1]):
            return terms_of(e[1] if e[0] == "min" else e[2], extents)
        if at_least(a[0], b[1]):
            return terms_of(e[2] if e[0] == "min" else e[1], extents)
    return {_simplify_atom(e, extents): 1}


def _terms_interval(terms: Terms, extents: Extents) -> Range:
    low = high = 0
    for atom, coefficient in terms.items():
        if atom is None:
            low, high = low + coefficient, high + coefficient
        else:
            a, b = interval(atom, extents)
            if at_least(coefficient, 0):
                low, high = low + coefficient * a, high + coefficient * b
            elif at_least(0, coefficient):
                low, high = low + coefficient * b, high + coefficient * a
            else:
                return -HUGE, HUGE
    return low, high


def _division_terms(kind: str, terms: Terms, divisor: Expr, extents: Extents) -> Terms:
    """(k*A + B) // k -> A + B // k and (k*A + B) % k -> B % k, both for k > 0."""
    if not isinstance(divisor, int) or not at_least(divisor, 1):
        if type(divisor) is int and set(terms) <= {None} and divisor:
            if type(terms.get(None, 0)) is int:
                return _constant(FOLD[kind](terms.get(None, 0), divisor))
        return {(kind, from_terms(terms), divisor): 1}
    if kind in ("div", "rem"):  # C's signs agree with Python's on non-negative numbers
        if not at_least(_terms_interval(terms, extents)[0], 0):
            return {(kind, from_terms(terms), divisor): 1}
        kind = "floordiv" if kind == "div" else "mod"
    rest: Terms = {}
    whole: Terms = {}
    for atom, coefficient in terms.items():
        exact = exact_quotient(coefficient, divisor)
        if exact is not None:
            whole[atom] = exact
        elif atom is None and type(coefficient) is type(divisor) is int:
            quotient, rest[atom] = divmod(coefficient, divisor)
            if quotient:
                whole[atom] = quotient
        else:  # keep a term whole: its parts have no better form
            rest[atom] = coefficient
    base = _common_quotient(*_terms_interval(rest, extents), divisor)
    if base is not None:
        if kind == "floordiv":
            _accumulate(whole, None, base)
            return whole
        _accumulate(rest, None, -base * divisor)
        return rest
    split = _split_low_part(rest, divisor, extents)
    if split is not None:
        factor, high_part, low_part = split
        inner = _division_terms(kind, high_part, divisor // factor, extents)
        if kind == "mod":
            inner, whole = _scaled(inner, factor), low_part
        return _sum(whole, inner)
    if kind == "floordiv":
        return _sum(whole, _floordiv_atom(rest, divisor, extents))
    return _mod_atom(rest, divisor, extents)


def _common_quotient(low: int, high: int, divisor: int) -> int | None:
    """The quotient that all numbers from low to high have, None if that is not known."""
    if type(low) is type(high) is type(divisor) is int:
        return low // divisor if low // divisor == high // divisor else None
    for quotient in (0, -1):
        if at_least(low, quotient * divisor) and at_least((quotient + 1) * divisor - 1, high):
            return quotient
    return None


def _sum(a: Terms, b: Terms, factor: int = 1) -> Terms:
    result = dict(a)
    for atom, coefficient in b.items():
        _accumulate(result, atom, factor * coefficient)
    return result


def _split_low_part(
    terms: Terms, divisor: int, extents: Extents
) -> tuple[int, Terms, Terms] | None:
    """g, A, B with terms = g*A + B, 0 <= B < g and g a divisor of `divisor`, so that
    terms // (g*k) = A // k and terms % (g*k) = g*(A % k) + B."""
    factors = {common_factor(c, divisor) for atom, c in terms.items() if atom is not None}
    for factor in sorted(factors, key=hint, reverse=True):
        if factor == 1 or factor == divisor:
            continue
        high: Terms = {}
        low: Terms = {}
        for atom, coefficient in terms.items():
            exact = exact_quotient(coefficient, factor)
            if exact is not None:
                high[atom] = exact
            elif atom is None and type(coefficient) is type(factor) is int:
                _accumulate(high, None, coefficient // factor)
                _accumulate(low, None, coefficient % factor)
            else:
                low[atom] = coefficient
        bounds = _terms_interval(low, extents)
        if at_least(bounds[0], 0) and at_least(factor - 1, bounds[1]):
            return factor, high, low
    return None


def _common_factor(terms: Terms, divisor: int) -> int:
    factor = divisor
    for atom, coefficient in terms.items():
        if atom is not None:
            factor = common_factor(factor, coefficient)
    return factor


def _reduced(terms: Terms, factor: int) -> Terms | None:
    """The terms divided by a factor of all coefficients, the constant rounded down; None if it
    cannot be."""
    reduced: Terms = {}
    for atom, coefficient in terms.items():
        quotient = exact_quotient(coefficient, factor)
        if quotient is None:
            if atom is not None or type(coefficient) is not int or type(factor) is not int:
                return None
            quotient = coefficient // factor
        _accumulate(reduced, atom, quotient)
    return reduced


def _floordiv_atom(terms: Terms, divisor: int, extents: Extents) -> Terms:
    """(g*A + c) // (g*k) -> (A + c // g) // k, and (x // a) // b -> x // (a*b)."""
    factor = _common_factor(terms, divisor)
    reduced = _reduced(terms, factor) if factor != 1 else None
    if reduced is not None:
        return _division_terms("floordiv", reduced, divisor // factor, extents)
    if len(terms) == 1:
        ((atom, coefficient),) = terms.items()
        if coefficient == 1 and atom is not None and atom[0] == "floordiv":
            if isinstance(atom[2], int) and at_least(atom[2], 1):
                inner = terms_of(atom[1], extents)
                return _division_terms("floordiv", inner, atom[2] * divisor, extents)
    return {("floordiv", from_terms(terms), divisor): 1}


def _mod_atom(terms: Terms, divisor: int, extents: Extents) -> Terms:
    """(g*A) % (g*k) -> g * (A % k), and (x % (k*m)) % k -> x % k."""
    factor = _common_factor(terms, divisor)
    constant = terms.get(None, 0)
    if factor != 1 and exact_quotient(constant, factor) is not None:
        reduced = _reduced(terms, factor)
        assert reduced is not None
        return _scaled(_division_terms("mod", reduced, divisor // factor, extents), factor)
    if len(terms) == 1:
        ((atom, coefficient),) = terms.items()
        if coefficient == 1 and atom is not None and atom[0] == "mod":
            if isinstance(atom[2], int) and exact_quotient(atom[2], divisor) is not None:
                return _division_terms("mod", terms_of(atom[1], extents), divisor, extents)
    return {("mod", from_terms(terms), divisor): 1}


def _recombine(terms: Terms, extents: Extents) -> Terms:
    """What undoes a reshape in a linear offset:

    m*k*(x // k) + m*(x % k)            ->  m*x
    m*k*((a + x // k) % n) + m*(x % k)  ->  m*((k*a + x) % (k*n))
    """
    changed = True
    while changed:
        changed = False
        for atom, coefficient in list(terms.items()):
            for x, k, whole in _quotients_in(atom, extents):
                m = exact_quotient(coefficient, k)
                if m is None:
                    continue
                remainder = terms_of(("mod", x, k), extents)
                divided = [a for a in remainder if a is not None and a[0] != "i"]
                if divided and all(terms.get(a) == remainder[a] * m for a in divided):
                    terms = _sum(terms, remainder, -m)
                    del terms[atom]
                    terms = _sum(terms, terms_of(whole, extents), m)
                    changed = True
                    break
            if changed:
                break
    return terms


def _quotients_in(atom: Expr, extents: Extents) -> list[tuple[Expr, int, Expr]]:
    """Every x and k of x // k in the atom, with what k * atom + x % k is."""
    if atom is None or atom[0] not in ("floordiv", "mod") or not isinstance(atom[2], int):
        return []
    if atom[0] == "floordiv":
        return [(atom[1], atom[2], atom[1])]
    if not contains(atom[1], ("floordiv",)):
        return []
    terms = terms_of(atom[1], extents)
    found = []
    for part, coefficient in terms.items():
        if (
            part is None
            or part[0] != "floordiv"
            or coefficient != 1
            or not isinstance(part[2], int)
        ):
            continue
        x, k = part[1:]
        rest = from_terms({a: c * k for a, c in terms.items() if a is not part})
        found.append((x, k, ("mod", ("add", rest, x), k * atom[2])))
    return found


def from_terms(terms: Terms) -> Expr:
    """The expression of a sum: atoms in a fixed order, a positive one first, the constant last."""
    atoms = sorted((a for a in terms if a is not None), key=_atom_order)
    constant = terms.get(None, 0)
    result: Expr = None
    first = next((a for a in atoms if not at_least(0, terms[a])), None)
    if first is not None:  # a + b - c rather than -c + a + b
        atoms = [first, *(a for a in atoms if a is not first)]
    elif atoms and not at_least(0, constant):
        result, constant = constant, 0
    for atom in atoms:
        coefficient = terms[atom]
        if result is None:
            result = atom if coefficient == 1 else ("mul", atom, coefficient)
        elif at_least(0, coefficient):
            result = ("sub", result, atom if coefficient == -1 else ("mul", atom, -coefficient))
        else:
            result = ("add", result, atom if coefficient == 1 else ("mul", atom, coefficient))
    if result is None:
        return constant
    if constant != 0:
        negative = at_least(0, constant)
        return ("sub", result, -constant) if negative else ("add", result, constant)
    return result


def _atom_order(atom: Expr) -> tuple[int, int, str]:
    return (0, atom[1], "") if atom[0] == "i" else (1, 0, repr(atom))


class _Remembered(threading.local):
    results: dict[tuple[Any, ...], Any] | None = None


_remembered = _Remembered()


@contextmanager
def remembering() -> Iterator[None]:
    """Every expression is simplified once while the body runs, and so is what `remembered` marks.

    Not where integers in expressions are told apart though they are equal, as by their origin.
    """
    outer, _remembered.results = _remembered.results, {}
    try:
        yield
    finally:
        _remembered.results = outer


def recalled(key: tuple[Any, ...], make: Callable[[], R]) -> R:
    """make(), once for each key while `remembering`."""
    known = _remembered.results
    if known is None:
        return make()
    if key not in known:
        known[key] = make()
    return known[key]


def remembered(rule: Callable[[A], R]) -> Callable[[A], R]:
    """A function of what does not change, computed once for each argument while `remembering`."""

    @wraps(rule)
    def once(argument: A) -> R:
        return recalled((rule, argument), lambda: rule(argument))

    return once


def simplify(e: Expr, extents: Extents) -> Expr:
    """e in normal form, given the extent of every loop index."""
    if isinstance(e, int) or e is TRUE:
        return e
    known = _remembered.results
    if known is None:
        return _normal_form(e, extents)
    key = (e, tuple(extents))
    found = known.get(key)
    if found is None:
        found = known[key] = _normal_form(e, extents)
    return found


def _normal_form(e: Expr, extents: Extents) -> Expr:
    if e[0] in CONDITIONS:
        return _simplify_condition(e, extents)
    return from_terms(_recombine(terms_of(e, extents), extents))


def _simplify_condition(c: Expr, extents: Extents) -> Expr:
    kind = c[0]
    if kind == "true":
        return c
    if kind == "not":
        inner = _simplify_condition(c[1], extents)
        return inner[1] if inner[0] == "not" else ("not", inner)
    if kind == "and":
        return conjunction(_simplify_condition(c[1], extents), _simplify_condition(c[2], extents))
    if kind == "or":
        a, b = _simplify_condition(c[1], extents), _simplify_condition(c[2], extents)
        if TRUE in (a, b):
            return TRUE
        return b if a == FALSE else a if b == FALSE else ("or", a, b)
    difference = terms_of(("sub", c[1], c[2]), extents)
    low, high = _terms_interval(difference, extents)
    decided = _decide(kind, low, high)
    if decided is not None:
        return TRUE if decided else FALSE
    return (kind, simplify(c[1], extents), simplify(c[2], extents))


def _decide(kind: str, low: int, high: int) -> bool | None:
    """The truth of `difference kind 0` when low <= difference <= high, None if it varies."""
    if kind == "lt":
        return True if at_least(-1, high) else False if at_least(low, 0) else None
    if kind == "le":
        return True if at_least(0, high) else False if at_least(low, 1) else None
    apart = at_least(low, 1) or at_least(-1, high)
    equal = True if low == high == 0 else False if apart else None
    return equal if kind == "eq" or equal is None else not equal


def conjunction(a: Expr, b: Expr) -> Expr:
    """a and b, with trivial and repeated parts dropped."""
    if a == TRUE or a == b:
        return b
    if b == TRUE:
        return a
    if FALSE in (a, b):
        return FALSE
    known = conjuncts(a)
    for part in conjuncts(b):
        if part not in known:
            a = ("and", a, part)
    return a


def conjuncts(c: Expr) -> list[Expr]:
    """The parts of a conjunction."""
    if c == TRUE:
        return []
    return [*conjuncts(c[1]), *conjuncts(c[2])] if c[0] == "and" else [c]


def within(indices: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The condition that an index tuple lies inside a shape."""
    condition: Expr = TRUE
    for e, size in zip(indices, shape):
        condition = conjunction(condition, conjunction(("le", 0, e), ("lt", e, size)))
    return condition


def flatten(indices: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The row-major offset of an index tuple in an array of this shape."""
    offset: Expr = 0
    for e, size in zip(indices, shape):
        offset = ("add", ("mul", offset, size), e)
    return offset


def unflatten(offset: Expr, shape: Sequence[int]) -> tuple[Expr, ...]:
    """The index tuple in an array of this shape of a row-major offset."""
    result = []
    for d in range(len(shape)):
        stride = 1
        for size in shape[d + 1 :]:
            stride *= size
        e: Expr = ("floordiv", offset, stride) if stride != 1 else offset
        result.append(("mod", e, shape[d]) if d and shape[d] != 0 else e)
    return tuple(result)


# -------------------------------------------------------------------------------------- output

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "lt": "<", "le": "<=",
          "eq": "==", "ne": "!=", "and": "and", "or": "or"}  # fmt: skip
_BINDING = {"or": 1, "and": 2, "lt": 4, "le": 4, "eq": 4, "ne": 4, "add": 5, "sub": 5,
            "mul": 6, "floordiv": 6, "mod": 6}  # fmt: skip

_FUNCTIONS = {"min": "min", "max": "max", "div": "truncdiv", "rem": "truncmod"}


def show(
    e: Expr,
    name: Callable[[int], str] = "i{}".format,
    read: Callable[[Expr, str], str] | None = None,
    level: int = 0,
) -> str:
    """e as text; `name(k)` prints loop index k, `read(e, position)` a read of an input."""
    if isinstance(e, int):
        text = str(e)
        return text if level < 6 or (text[0] != "-" and " " not in text) else f"({text})"
    kind = e[0]
    if kind == "i":
        return name(e[1])
    if kind == "val":
        return str(e[1])
    if kind == "axis":
        return repr(e[1])
    if kind == "true":
        return "True"
    if kind == "not":
        return (
            f"not {show(e[1], name, read, 3)}"
            if level < 3
            else f"(not {show(e[1], name, read, 3)})"
        )
    if kind == "read":
        position = ", ".join(show(p, name, read) for p in e[2])
        return read(e, position) if read else f"@{e[1]}[{position}]"
    if kind in _FUNCTIONS:
        return f"{_FUNCTIONS[kind]}({show(e[1], name, read)}, {show(e[2], name, read)})"
    if kind == "where":
        condition, yes, no = (show(p, name, read, 1) for p in e[1:])
        return f"({yes} if {condition} else {no})"
    own = _BINDING[kind]
    text = f"{show(e[1], name, read, own)} {_SIGNS[kind]} {show(e[2], name, read, own + 1)}"
    return f"({text})" if own < level else text


# --------------------------------------------------------------------- what users write: objects


def as_index(value: Any, context: str = "index expression") -> Expr:
    """The expression of an Index, an int or a bool; IndexExpressionError for anything else."""
    if isinstance(value, Index):
        return value.expr
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if hasattr(value, "__index__"):
        return keep_origin(value)
    raise IndexExpressionError(
        f"{context}: expected integers and loop indices, got {value!r} of type "
        f"{type(value).__name__}; an index is an integer: use // instead of /"
    )


def _binary(kind: str, swap: bool = False) -> Callable[[Index, Any], Any]:
    def method(self: Index, other: Any) -> Any:
        a, b = self.expr, as_index(other)
        return Index((kind, b, a) if swap else (kind, a, b))

    return method


def _logical(kind: str) -> Callable[[Index, Any], Any]:
    def method(self: Index, other: Any) -> Any:
        return Index((kind, _as_condition(self), _as_condition(other)))

    return method


def _as_condition(value: Any) -> Expr:
    """The expression of a condition; an integer is none, because & | ~ are not bitwise here."""
    e = as_index(value)
    if not is_condition(e):
        raise IndexExpressionError(
            f"{show(e)} is an integer: & | ~ combine conditions; write % 2 for the last bit, "
            "!= 0 for a truth value"
        )
    return e


class _Undecided(threading.local):
    """Who answers for conditions that only values decide: `metaop.branches`, or nobody."""

    decide: Callable[[Any], bool] | None = None


undecided = _Undecided()


class Index:
    """A loop index or arithmetic on loop indices, as written in a meta-operator.

    `+ - * // %` and unary minus with Python's meaning, `< <= > >= == !=`, `& | ~` on conditions.
    """

    __slots__ = ("expr",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expr: Expr):
        self.expr = expr

    __add__, __radd__ = _binary("add"), _binary("add", True)
    __sub__, __rsub__ = _binary("sub"), _binary("sub", True)
    __mul__, __rmul__ = _binary("mul"), _binary("mul", True)
    __floordiv__, __rfloordiv__ = _binary("floordiv"), _binary("floordiv", True)
    __mod__, __rmod__ = _binary("mod"), _binary("mod", True)
    __lt__, __le__ = _binary("lt"), _binary("le")
    __gt__, __ge__ = _binary("lt", True), _binary("le", True)
    __eq__, __ne__ = _binary("eq"), _binary("ne")
    __and__, __rand__ = _logical("and"), _logical("and")
    __or__, __ror__ = _logical("or"), _logical("or")

    def __neg__(self) -> Index:
        return Index(("sub", 0, self.expr))

    def __invert__(self) -> Index:
        return Index(("not", _as_condition(self)))

    def __truediv__(self, other: Any) -> Index:
        raise IndexExpressionError(
            f"{self!r} / {other!r}: an index is an integer: write // (or Jittor's '/' in a string)"
        )

    def __bool__(self) -> bool:
        if undecided.decide is not None:
            return undecided.decide(self)
        raise IndexExpressionError(
            f"{self!r}: the value of an index is not known while the expression is recorded; "
            "combine conditions with & and |, choose with metaop.index.where"
        )

    def __repr__(self) -> str:
        return show(self.expr)


def where(condition: Any, yes: Any, no: Any) -> Index:
    """The index `yes` where the condition holds, else `no`."""
    return Index(("where", _as_condition(condition), as_index(yes), as_index(no)))


def minimum(a: Any, b: Any) -> Index:
    """The smaller of two indices."""
    return Index(("min", as_index(a), as_index(b)))


def maximum(a: Any, b: Any) -> Index:
    """The larger of two indices."""
    return Index(("max", as_index(a), as_index(b)))


def identity_range(rank: int) -> tuple[Expr, ...]:
    """(i0, i1, …)."""
    return tuple(("i", k) for k in range(rank))
