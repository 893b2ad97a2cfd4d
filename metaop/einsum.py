"""Einstein's summation: every equation that NumPy accepts, contracted two operands at a time in the
order that needs the fewest multiplications.

    mo.einsum("bij,bjk->bik", a, b)         mo.einsum("ii->i", a)         mo.einsum("...i,i", a, v)
"""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Iterable, Sequence
from typing import Any

from .build import cast, permute, reduce
from .dtype import promote_all
from .errors import ShapeError, describe
from .graph import Elementwise, Node, Piece, Reindex, size_of
from .index import Expr
from .recipes import remembered
from .var import Var, node_of

Labels = tuple[str, ...]
EXHAUSTIVE = 7  # operands up to which the best order is searched for


class _Term:
    """An operand, or a product of some: a node and the label of each of its axes."""

    def __init__(self, node: Node, labels: Labels):
        self.node, self.labels = node, labels


# ------------------------------------------------------------------------------------ the equation


def _parse(equation: str, ranks: list[int]) -> tuple[list[Labels], Labels]:
    """The labels of every operand and of the result; the axes of `...` get numbers as labels."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise ShapeError(
            f"einsum({equation!r}): {len(parts)} operands are described, {len(ranks)} are given"
        )
    for character in text.replace("...", "").replace(",", "").replace("->", ""):
        if character not in string.ascii_letters:
            raise ShapeError(f"einsum({equation!r}): {character!r} is no label")
    longest = 0
    for part, rank in zip(parts, ranks):
        if "..." in part:
            longest = max(longest, rank - (len(part) - 3))
    inputs = [_labels(equation, part, rank, longest) for part, rank in zip(parts, ranks)]
    dots = tuple(f"{k}" for k in range(longest))
    if arrow:
        before, ellipsis, after = right.partition("...")
        output: Labels = (*before, *(dots if ellipsis else ()), *after)
    else:
        counts = [c for labels in inputs for c in labels if c not in dots]
        output = (*dots, *sorted(c for c in set(counts) if counts.count(c) == 1))
    known = {c for labels in inputs for c in labels}
    if len(set(output)) != len(output) or not set(output) <= known:
        raise ShapeError(f"einsum({equation!r}): the result has each label of an operand once")
    return inputs, output


def _labels(equation: str, part: str, rank: int, longest: int) -> Labels:
    before, ellipsis, after = part.partition("...")
    inner = rank - len(before) - len(after)
    if inner < 0 or (inner and not ellipsis):
        raise ShapeError(f"einsum({equation!r}): {part!r} does not fit an operand of {rank} axes")
    return (*before, *(f"{k}" for k in range(longest - inner, longest)), *after)


def _from_lists(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """The form `einsum(a, [0, 1], b, [1, 2], [0, 2])` as an equation."""

    def letters(sublist: Iterable[Any]) -> str:
        return "".join("..." if s is Ellipsis else string.ascii_letters[s] for s in sublist)

    count = len(operands) // 2
    arrays = [operands[2 * k] for k in range(count)]
    equation = ",".join(letters(operands[2 * k + 1]) for k in range(count))
    if len(operands) % 2:
        equation += "->" + letters(operands[-1])
    return equation, arrays


# --------------------------------------------------------------------------------- the contraction


def _extents(equation: str, terms: list[_Term]) -> dict[str, int]:
    extents: dict[str, int] = {}
    for term in terms:
        for label, n in zip(term.labels, term.node.shape):
            known = extents.get(label, 1)
            if known != 1 and n != 1 and n != known:
                raise ShapeError(
                    f"einsum({equation!r}): label {label!r} is {known} and {n}, the operands are "
                    + ", ".join(describe(t.node) for t in terms)
                )
            if known == 1:
                extents[label] = n
    return extents


def _without_repeats(term: _Term, extents: dict[str, int]) -> _Term:
    """ii -> i: the diagonal; axes of size one that another operand extends are dropped."""
    kept: list[str] = []
    for label, n in zip(term.labels, term.node.shape):
        if label not in kept and (n != 1 or extents[label] == 1):
            kept.append(label)
    labels = tuple(kept)
    if labels == term.labels:
        return term
    shape = tuple(extents[label] for label in labels)
    indices: list[Expr] = []
    for label, n in zip(term.labels, term.node.shape):
        # an axis of size one beside a longer one of the same label is repeated along it
        plain = label in labels and (n != 1 or extents[label] == 1)
        indices.append(("i", labels.index(label)) if plain else 0)
    return _Term(Reindex(shape, (Piece(0, tuple(indices)),), term.node), labels)


def _summed(term: _Term, keep: set[str]) -> _Term:
    """Labels that nobody else needs are summed at once."""
    axes = tuple(k for k, label in enumerate(term.labels) if label not in keep)
    if not axes:
        return term
    op = "logical_or" if term.node.dtype.kind == "b" else "add"
    return _Term(reduce(op, term.node, axes), tuple(c for c in term.labels if c in keep))


def _pair(a: _Term, b: _Term, keep: Labels, extents: dict[str, int]) -> _Term:
    """The product of two terms, summed over all labels but those to keep."""
    gone = tuple(dict.fromkeys(c for c in (*a.labels, *b.labels) if c not in keep))
    order = (*keep, *gone)
    space = tuple(extents[c] for c in order)
    spread = [
        Reindex(space, (Piece(0, tuple(("i", order.index(c)) for c in t.labels)),), t.node)
        for t in (a, b)
    ]
    boolean = a.node.dtype.kind == "b"
    product = Elementwise("logical_and" if boolean else "mul", *spread)
    axes = tuple(range(len(keep), len(order)))
    return _Term(reduce("logical_or" if boolean else "add", product, axes), keep)


def _cost(labels: Iterable[str], extents: dict[str, int]) -> int:
    return size_of(max(extents[c], 1) for c in labels)


def path_of(
    inputs: Sequence[frozenset[str]], output: frozenset[str], extents: dict[str, int]
) -> list[tuple[int, int]]:
    """Which two terms are multiplied next; each product takes the place behind the others.

    The cost of a product is its number of multiplications.  Up to some operands all orders are
    compared, beyond that the cheapest product comes next.
    """
    terms = list(inputs)
    if len(terms) <= 2:
        return [(0, 1)] * (len(terms) - 1)
    if len(terms) <= EXHAUSTIVE:
        return _best_path(tuple(terms), output, extents)
    path = []
    while len(terms) > 1:
        i, j = min(
            itertools.combinations(range(len(terms)), 2),
            key=lambda pair: (_cost(terms[pair[0]] | terms[pair[1]], extents), pair),
        )
        path.append((i, j))
        made = _product_labels(terms, i, j, output)
        terms = [t for k, t in enumerate(terms) if k not in (i, j)] + [made]
    return path


def _product_labels(
    terms: Sequence[frozenset[str]], i: int, j: int, output: frozenset[str]
) -> frozenset[str]:
    others = output.union(*(t for k, t in enumerate(terms) if k not in (i, j)))
    return (terms[i] | terms[j]) & others


def _best_path(
    inputs: tuple[frozenset[str], ...], output: frozenset[str], extents: dict[str, int]
) -> list[tuple[int, int]]:
    @functools.cache
    def best(terms: tuple[frozenset[str], ...]) -> tuple[int, tuple[tuple[int, int], ...]]:
        if len(terms) < 2:
            return 0, ()
        found = []
        for i, j in itertools.combinations(range(len(terms)), 2):
            made = _product_labels(terms, i, j, output)
            rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
            cost, path = best((*rest, made))
            found.append((cost + _cost(terms[i] | terms[j], extents), ((i, j), *path)))
        return min(found)

    return list(best(inputs)[1])


@remembered
def einsum(equation: Any, *operands: Any) -> Var:
    """The sum of products over the labels that the result lacks (as numpy.einsum).

    equation: "ij,jk->ik", with `...` for any axes; a label repeated in one operand is a diagonal;
    without "->" the result has the labels that occur once, sorted.  Also `einsum(a, [0, 1], b,
    [1, 2], [0, 2])`.  Raises ShapeError.
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))  # type: ignore[assignment]
    elif len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    nodes = [node_of(a) for a in operands]
    inputs, output = _parse(equation, [len(n.shape) for n in nodes])
    dtype = promote_all([n.dtype for n in nodes])
    terms = [_Term(cast(n, dtype.compute), labels) for n, labels in zip(nodes, inputs)]
    extents = _extents(equation, terms)
    terms = [_without_repeats(t, extents) for t in terms]
    result = _contracted(terms, output, extents)
    return Var._of(cast(Elementwise("copy", result), dtype))


def _contracted(terms: list[_Term], output: Labels, extents: dict[str, int]) -> Node:
    for number, term in enumerate(terms):
        others = {c for k, t in enumerate(terms) if k != number for c in t.labels}
        terms[number] = _summed(term, others | set(output))
    sets = [frozenset(t.labels) for t in terms]
    for i, j in path_of(sets, frozenset(output), extents):
        a, b = terms[i], terms[j]
        rest = [t for k, t in enumerate(terms) if k not in (i, j)]
        needed = set(output).union(*(t.labels for t in rest))
        if rest:
            keep = tuple(dict.fromkeys(c for c in (*a.labels, *b.labels) if c in needed))
        else:
            keep = tuple(c for c in output if c in a.labels or c in b.labels)
        terms = [*rest, _pair(a, b, keep, extents)]
    return _arranged(terms[0], output, extents)


def _arranged(term: _Term, output: Labels, extents: dict[str, int]) -> Node:
    """The axes in the order of the result; labels of size one that no term has are added."""
    if term.labels == output:
        return term.node
    if set(term.labels) == set(output):
        return permute(term.node, [term.labels.index(c) for c in output])
    indices = tuple(("i", output.index(c)) for c in term.labels)
    return Reindex(tuple(extents[c] for c in output), (Piece(0, indices),), term.node)
