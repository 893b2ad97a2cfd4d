"""Sums of gradients over the axes that a broadcast repeats, without what is constant along them.

    sum(-(w * r + d * c + d * c))  ->  -(sum(w) * r + sum(d) * c + sum(d) * c)

where r and c are repeated along the axes of the sum, and one of them is made from another such sum.
On the left, c must be known before the sum can begin; on the right all sums are found in one pass
over the arrays: so for the gradients of normalisation.  It is the same gradient, rounded in another
order.  Left alone: values of 16 bits, which overflow sooner.
"""

from __future__ import annotations

from collections.abc import Set

from .build import add, div, mul, neg
from .graph import Elementwise, Node, Piece, Reindex, ReindexReduce, Shape
from .index import TRUE, Expr, substitute

MOST_TERMS = 8
MOST_STEPS = 32  # from a factor back to the sum that it is made from

Factor = tuple[str, Reindex]  # mul or div, by what
Term = tuple[bool, list[Factor], Node]  # is it subtracted, its constant factors, the rest of it


def sum_apart(node: Reindex, g: Node) -> Node | None:
    """The sum of g over the axes along which node, of one unconditional piece, repeats its input;
    None if nothing is to be taken out."""
    indices = node.pieces[0].indices
    if not isinstance(g, Elementwise) or g.op not in _LINEAR or g.dtype.compute is not g.dtype:
        return None
    kept = {e[1]: p for p, e in enumerate(indices) if isinstance(e, tuple) and e[0] == "i"}
    if len(kept) + sum(e == 0 for e in indices) != len(indices) or len(kept) == len(node.shape):
        return None
    terms = _terms(g, kept.keys())
    if not terms or not any(_waits(f.inputs[0], g.size) for _, fs, _ in terms for _, f in fs):
        return None
    shape = node.inputs[0].shape
    total: Node | None = None
    sums: dict[Node, Node] = {}
    for negative, factors, rest in terms:
        if rest not in sums:
            sums[rest] = ReindexReduce("add", shape, indices, rest)
        part = sums[rest]
        for op, factor in factors:
            part = (mul if op == "mul" else div)(part, _at(factor, kept, shape))
        part = neg(part) if negative else part
        total = part if total is None else add(total, part)
    return total


_LINEAR = ("neg", "add", "mul", "div")


def _terms(g: Node, kept: Set[int]) -> list[Term]:
    """What g is the sum of; empty if there are many terms, or if one has no constant factor.

    Sums inside of products stay what they are: x less its mean is small only as a whole."""
    found: list[Term] = []
    left: list[Term] = [(False, [], g)]
    while left:
        negative, factors, part = left.pop()
        op = part.op if isinstance(part, Elementwise) else ""
        factor = _factor(op, part, kept)
        if op == "neg":
            left.append((not negative, factors, part.inputs[0]))
        elif op == "add" and not factors:
            left += [(negative, [], side) for side in reversed(part.inputs)]
        elif factor is not None:
            taken, rest = factor
            left.append((negative, [(op, taken), *factors], rest))
        elif factors and len(found) < MOST_TERMS:
            found.append((negative, factors, part))
        else:
            return []
    return found


def _factor(op: str, part: Node, kept: Set[int]) -> tuple[Reindex, Node] | None:
    """What a product or quotient has as a constant factor, and the rest."""
    if op not in ("mul", "div"):
        return None
    a, b = part.inputs
    for taken, rest in ((b, a), (a, b)) if op == "mul" else ((b, a),):
        if isinstance(taken, Reindex) and _is_constant(taken, kept):
            return taken, rest
    return None


def _is_constant(node: Reindex, kept: Set[int]) -> bool:
    """True for a value that is repeated along all axes but the kept ones."""
    if len(node.pieces) != 1 or node.pieces[0].condition != TRUE:
        return False
    indices = node.pieces[0].indices
    return all(e == 0 or (isinstance(e, tuple) and e[0] == "i" and e[1] in kept) for e in indices)


def _waits(value: Node, size: int) -> bool:
    """True if a value is made from a sum over at least so many elements."""
    seen, left = {value}, [value]
    while left and len(seen) < MOST_STEPS:
        node = left.pop()
        if isinstance(node, ReindexReduce) and node.inputs and node.inputs[0].size >= size:
            return True
        for source in node.inputs:
            if source.size < size and source not in seen:
                seen.add(source)
                left.append(source)
    return False


def _at(factor: Reindex, kept: dict[int, int], shape: Shape) -> Node:
    """What a factor repeats, in the shape of the sum."""
    source = factor.inputs[0]
    at: list[Expr] = [("i", kept.get(k, 0)) for k in range(len(factor.shape))]
    indices = tuple(substitute(e, at) for e in factor.pieces[0].indices)
    if source.shape == shape and all(
        e == ("i", k) or n == 1 for k, (e, n) in enumerate(zip(indices, shape))
    ):
        return source
    return Reindex(shape, (Piece(0, indices),), source)
