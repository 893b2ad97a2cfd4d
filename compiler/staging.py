"""staging: what a vector loop would read element by element is first laid out as it is read.

    vector i2 in range(0, 576):
      s += x[i2] * y[i2 // 48 * 12 + i2 % 24 // 2]

 -> serial i3 in range(0, 12):
      serial i4 in range(0, 2):
        serial i5 in range(0, 2):
          vector i6 in range(0, 12):
            t[i3*48 + i4*24 + i6*2 + i5] = y[i3*12 + i6]
    vector i2 in range(0, 576):
      s += x[i2] * t[i2]

A loop divided by constants is the loops over its parts, in which every access is plain.  Left
alone: indices that are read, loops whose extent the kernel does not know, and divisors that do not
divide one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from metaop.extent import Extent
from metaop.index import TRUE, Expr, children, from_terms, loops_of, simplify, substitute, terms_of

from .loops import Load, integers_of

SHORTEST, LONGEST = 32, 4096  # elements that are laid out at a time


def parts_of(load: Load, loop: int, extents: Sequence[int]) -> tuple[int, ...] | None:
    """The extents of the parts by which an access divides a loop; None if it does not, or not by
    numbers that divide one another."""
    n = extents[loop]
    if isinstance(n, Extent) or not SHORTEST <= n <= LONGEST:
        return None
    if integers_of(load.offset) or integers_of(load.guard):
        return None
    divisors = sorted({*_divisors(load.offset, loop), *_divisors(load.guard, loop)})
    chain = [1, *divisors, n]
    if not divisors or 0 in divisors or any(b % a for a, b in pairwise(chain)):
        return None
    return tuple(b // a for a, b in pairwise(chain) if a != b)[::-1]


def in_parts(
    load: Load, at: Sequence[Expr], parts: Sequence[int], extents: Sequence[int]
) -> Load | None:
    """The access with loops replaced by `at`, if it is a plain one in the loops `parts`."""
    terms = terms_of(substitute(load.offset, at), extents)
    if any(atom is not None and atom[0] != "i" and loops_of(atom) & set(parts) for atom in terms):
        return None
    guard = TRUE if load.guard == TRUE else simplify(substitute(load.guard, at), extents)
    return Load(load.buffer, from_terms(terms), guard, load.fill, load.dtype)


def _divisors(e: Expr, loop: int) -> Iterator[int]:
    """How far apart the steps are of what divides a loop; 0 for what is divided otherwise."""
    if isinstance(e, int) or loop not in loops_of(e):
        return
    if e[0] in ("floordiv", "mod"):
        yield e[2] * _scale(e[1]) if type(e[2]) is int and e[2] > 0 else 0
    elif e[0] in ("div", "rem"):
        yield 0
    for part in children(e):
        yield from _divisors(part, loop)


def _scale(e: Expr) -> int:
    """The number by which e divides a loop."""
    match e:
        case ("floordiv", inner, int() as d):
            return d * _scale(inner)
        case ("mod", inner, _):
            return _scale(inner)
    return 1
