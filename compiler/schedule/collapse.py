"""Loops that walk through memory as one become one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from metaop.index import (
    Expr,
    Terms,
    is_condition,
    loops_of,
    simplify,
    substitute,
    terms_of,
    unflatten,
)

from ..loops import IndexValue, Load
from ..nest import Nest, Tree, dependencies
from .rewriting import map_nest, tree_of


def accesses(nest: Nest) -> list[Expr]:
    """The index expressions that are offsets or numbers, the store's among them."""
    found = [nest.offset]
    for value, _ in dependencies(nest):
        if isinstance(value, Load):
            found.append(value.offset)
        elif isinstance(value, IndexValue):
            found.append(value.expr)
    return found


def _opaque_terms(forms: list[Terms]) -> set[int]:
    """Loops that occur in an offset other than as a plain term."""
    opaque: set[int] = set()
    for terms in forms:
        for atom in terms:
            if atom is not None and atom[0] != "i":
                opaque |= loops_of(atom)
    return opaque


def opaque_loops(nest: Nest, forms: list[Terms]) -> set[int]:
    """Loops that occur anywhere but as a plain term of an offset."""
    opaque = _opaque_terms(forms) | loops_of(nest.guard) | loops_of(nest.exists)
    for value, _ in dependencies(nest):
        for e in value.indices:
            if is_condition(e):
                opaque |= loops_of(e)
    return opaque


def collapse(nest: Nest) -> Nest:
    """A nest by itself with its loops collapsed."""
    return collapse_tree(tree_of(nest)).nests[0]


def collapse_tree(tree: Tree) -> Tree:
    """Merges adjacent loops that every access walks as one, and drops loops of extent one.

    for i0 < 256: for i1 < 576: y[i0*576 + i1]   ->   for i1 < 147456: y[i1]

    Root loops are merged in all nests alike.  For a reduction the accesses are those that decide
    its order; another access may then need the parts of the merged loop, i1 // 576 and i1 % 576.
    A map is made to run in the loops of a reduction of its tree where its store alone allows it.
    """
    each = [_Collapse(nest, tree.root) for nest in tree.nests]
    reductions = {tuple(one.inside()): None for one in each if one.nest.op is not None}
    for position, one in enumerate(each):
        if one.nest.op is None and tuple(one.inside()) not in reductions:
            whole = _Collapse(one.nest, tree.root, merged=False)
            if any(whole.adopt(extents) for extents in reductions):
                each[position] = whole
    roots = [k for k in range(tree.root) if tree.nests[0].extents[k] != 1]
    for outer, inner in reversed(list(pairwise(roots))):
        if all(one.walks_as_one(outer, inner) for one in each):
            for one in each:
                one.merge(outer, inner)
    last = [_Collapse(nest, 0) for nest in tree.last]
    nests = [one.finished() for one in each]
    root = sum(n != 1 for n in each[0].extents[: tree.root])
    return Tree(root, nests, [one.finished() for one in last], tree.across)


class _Collapse:
    """The loops of one nest while they are merged."""

    def __init__(self, nest: Nest, root: int, merged: bool = True):
        self.nest, self.root = nest, root
        self.extents = list(nest.extents)
        if nest.order:
            self.forms = [terms_of(e, nest.extents) for e in (nest.offset, *nest.order)]
            self.opaque = _opaque_terms(self.forms)
        else:
            self.forms = [terms_of(e, nest.extents) for e in accesses(nest)]
            self.opaque = opaque_loops(nest, self.forms)
        self.owner: dict[int, int] = {}  # of a merged loop: the one that it became part of
        live = [k for k, n in enumerate(nest.extents) if n != 1]
        inner = [k for k in live if root <= k < nest.rank]
        for group in (inner, [k for k in live if k >= nest.rank]) if merged else ():
            for outer, second in reversed(list(pairwise(group))):
                if self.walks_as_one(outer, second):
                    self.merge(outer, second)

    def inside(self) -> list[int]:
        """The extents of the loops that are left inside the root loops."""
        return [n for n in self.extents[self.root :] if n != 1]

    def adopt(self, extents: Sequence[int]) -> bool:
        """Merges loops of a map to those extents, if the store walks each group as one."""
        live = [k for k in range(self.root, len(self.extents)) if self.extents[k] != 1]
        pairs: list[tuple[int, int]] = []
        for wanted in extents:
            if not live:
                return False
            group = [live.pop(0)]
            total = self.extents[group[0]]
            while live and total != wanted:
                total *= self.extents[live[0]]
                group.append(live.pop(0))
            if total != wanted:
                return False
            pairs += pairwise(group)
        store = terms_of(self.nest.offset, self.nest.extents)
        if live or self.nest.scatter or _opaque_terms([store]):
            return False
        for outer, inner in pairs:
            ratio = store.get(("i", outer), 0), store.get(("i", inner), 0) * self.extents[inner]
            if ratio[0] != ratio[1]:
                return False
        for outer, inner in reversed(pairs):
            self.merge(outer, inner)
        return True

    def walks_as_one(self, outer: int, inner: int) -> bool:
        if outer in self.opaque or inner in self.opaque or self.nest.scatter:
            return False
        n = self.extents[inner]
        return all(
            terms.get(("i", outer), 0) == terms.get(("i", inner), 0) * n for terms in self.forms
        )

    def merge(self, outer: int, inner: int) -> None:
        for terms in self.forms:
            coefficient = terms.pop(("i", inner), 0)
            terms.pop(("i", outer), None)
            if coefficient != 0:
                terms[("i", outer)] = coefficient
        self.extents[outer] *= self.extents[inner]
        self.extents[inner] = 1
        self.owner[inner] = outer

    def first_of(self, loop: int) -> int:
        while loop in self.owner:
            loop = self.owner[loop]
        return loop

    def finished(self) -> Nest:
        """The nest over the loops that are left, numbered from 0."""
        nest, extents = self.nest, self.extents
        live = [k for k, n in enumerate(extents) if n != 1]
        number = {k: position for position, k in enumerate(live)}
        new_extents = [extents[k] for k in live]
        at: list[Expr] = [("i", number[k]) if k in number else 0 for k in range(len(extents))]
        for first in set(self.owner.values()) - set(self.owner):
            parts = [k for k in range(len(extents)) if self.first_of(k) == first]
            merged = unflatten(at[first], [nest.extents[k] for k in parts])
            for k, part in zip(parts, merged):
                at[k] = part

        def index(e: Expr) -> Expr:
            return simplify(substitute(e, at), new_extents)

        new = map_nest(nest, index)
        new.extents = new_extents
        new.rank = sum(k < nest.rank for k in live)
        new.parallel = tuple(number[k] for k in nest.parallel if k in number)
        new.parts = None
        return new
