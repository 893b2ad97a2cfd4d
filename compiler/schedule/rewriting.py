"""Nests and trees with other loops, names or values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metaop.index import Expr, substitute, transform

from ..loops import Apply, Check, Load, Value, rewrite
from ..nest import Nest, Tree


def tree_of(nest: Nest) -> Tree:
    """The tree of one nest: iterations that write different results share nothing."""
    if not nest.scatter:
        return Tree(nest.rank, [nest])
    inner = [k for k in range(nest.rank) if k not in nest.parallel]
    order = [*nest.parallel, *inner]
    nest = permuted(nest, [*order, *range(nest.rank, len(nest.extents))])
    nest.parallel = tuple(range(len(nest.parallel)))
    return Tree(len(nest.parallel), [nest])


def map_nest(nest: Nest, index: Callable[[Expr], Expr]) -> Nest:
    """The nest with every index expression mapped, each once."""
    memo: dict[Value, Value] = {}
    known: dict[Expr, Expr] = {}

    def once(e: Expr) -> Expr:
        found = known.get(e)
        if found is None:
            found = known[e] = index(e)
        return found

    return nest.having(
        named={n: rewrite(v, once, memo) for n, v in nest.named.items()},
        value=rewrite(nest.value, once, memo),
        offset=once(nest.offset),
        guard=once(nest.guard),
        exists=once(nest.exists),
        order=tuple(map(once, nest.order)),
        carried=tuple(map(once, nest.carried)),
    )


def permuted(nest: Nest, order: Sequence[int]) -> Nest:
    """The nest with its loops in another order: new loop p is loop order[p]."""
    at: list[Expr] = [0] * len(order)
    for position, k in enumerate(order):
        at[k] = ("i", position)
    new = map_nest(nest, lambda e: substitute(e, at))
    new.extents = [nest.extents[k] for k in order]
    if nest.parts is not None:
        new.parts = tuple(nest.parts[k] for k in order[: nest.rank])
    new.reads_at = [(n, tuple(substitute(e, at) for e in place)) for n, place in nest.reads_at]
    return new


def map_values(nest: Nest, change: Callable[[Value], Value]) -> Nest:
    """The nest with `change` applied to every value after its arguments."""
    memo: dict[Value, Value] = {}

    def visit(value: Value) -> Value:
        known = memo.get(value)
        if known is None:
            args = tuple(visit(a) for a in value.args)
            known = memo[value] = change(value.rebuild(args, lambda e: e))
        return known

    named = {name: visit(value) for name, value in nest.named.items()}
    return nest.having(named=named, value=visit(nest.value))


def distinct_names(tree: Tree) -> Tree:
    """The tree with the names of integers and checks numbered through its nests."""
    count = checks = 0
    nests: list[Nest] = []
    for nest in tree.all_nests:
        names = {name: f"t{count + k}" for k, name in enumerate(nest.named)}
        names |= {name: f"check{checks + k}" for k, name in enumerate(nest.checks)}
        count += len(nest.named)
        checks += len(nest.checks)
        nests.append(_renamed(nest, names))
    count_of_nests = len(tree.nests)
    return Tree(tree.root, nests[:count_of_nests], nests[count_of_nests:], tree.across)


def _renamed(nest: Nest, names: dict[str, str]) -> Nest:
    called = {name: buffer.name for name, buffer in nest.buffers.items()}
    if all(old == new for old, new in (names | called).items()):
        return nest

    def leaf(e: Expr) -> Expr | None:
        if isinstance(e, tuple) and e[0] == "val":
            return ("val", names.get(e[1], e[1]), *e[2:])
        return None

    def change(value: Value) -> Value:
        value = value.rebuild(value.args, lambda e: transform(e, leaf))
        match value:
            case Load():
                return Load(
                    called[value.buffer], value.offset, value.guard, value.fill, value.dtype
                )
            case Check():
                number = transform(value.number, leaf)
                return Check(value.value, value.low, value.high, number, value.guard)
            case Apply():
                number = transform(value.number, leaf)
                return Apply(value.function, value.args, number, value.guard, value.dtype)
        return value

    new = map_values(nest, change)
    return new.having(
        named={names[n]: v for n, v in new.named.items()},
        checks={names[n]: site for n, site in nest.checks.items()},
        buffers={b.name: b for b in nest.buffers.values()},
        reads_at=[(called[n], at) for n, at in nest.reads_at],
        offset=transform(nest.offset, leaf),
        guard=transform(nest.guard, leaf),
        exists=transform(nest.exists, leaf),
    )
