"""layout: rows of boxes within groups within groups.

Each group is laid out by itself, and is a box to the group around it: its children are ranked by
the edges between them, a rank is a row, and the order within rows is that of few crossings.  So a
group that is folded changes only the sizes of those around it, and whoever draws needs to do no
more than stack rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MOST_IN_A_ROW = 6  # children without edges between them; more are several rows
SWEEPS = 4  # down and up, to reduce crossings
GAP_X, GAP_Y, PADDING, HEADER = 24.0, 46.0, 18.0, 28.0


@dataclass(eq=False)
class Box:
    """What is drawn: its size, and the names of the groups that it is in, outermost first."""

    key: str
    width: float
    height: float
    group: tuple[str, ...] = ()
    x: float = 0.0
    y: float = 0.0


@dataclass(eq=False)
class Group:
    """Boxes and groups in rows; the outermost has the path ()."""

    path: tuple[str, ...]
    name: str = ""
    rows: list[list[Box | Group]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0

    def groups(self) -> Iterable[Group]:
        """This group and all in it, outer ones first."""
        yield self
        for row in self.rows:
            for child in row:
                if isinstance(child, Group):
                    yield from child.groups()


def arrange(boxes: Sequence[Box], edges: Iterable[tuple[str, str]]) -> Group:
    """The rows of every group; `boxes` are in an order in which no edge leads backwards, if there
    is one."""
    edges = list(edges)
    return _arranged((), "", list(boxes), edges, {b.key: k for k, b in enumerate(boxes)})


def _arranged(
    path: tuple[str, ...],
    name: str,
    boxes: list[Box],
    edges: list[tuple[str, str]],
    order: dict[str, int],
) -> Group:
    depth = len(path)
    inside: dict[str, list[Box]] = {}
    for box in boxes:
        if len(box.group) > depth:
            inside.setdefault(box.group[depth], []).append(box)
    if len(inside) == 1 and path and all(len(box.group) > depth for box in boxes):
        (only,) = inside  # a group of one group is that group
        return _arranged((*path, only), f"{name}.{only}", boxes, edges, order)
    child_of: dict[str, Box | Group] = {}
    for box in boxes:
        if len(box.group) <= depth or (len(inside[box.group[depth]]) == 1 and path):
            child_of[box.key] = box
    for part, members in inside.items():
        if members[0].key not in child_of:
            child = _arranged((*path, part), part, members, _within(members, edges), order)
            child_of |= dict.fromkeys((m.key for m in members), child)
    first: dict[Box | Group, int] = {}
    for key, found in child_of.items():
        first[found] = min(first.get(found, order[key]), order[key])
    links = {(child_of[a], child_of[b]) for a, b in edges if a in child_of and b in child_of}
    links = {(a, b) for a, b in links if first[a] < first[b]}
    children = sorted(first, key=lambda child: first[child])
    return Group(path, name, _ordered(_rows(children, links), links))


def _within(boxes: list[Box], edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    keys = {box.key for box in boxes}
    return [(a, b) for a, b in edges if a in keys and b in keys]


Link = tuple["Box | Group", "Box | Group"]


def _rows(children: list[Box | Group], links: set[Link]) -> list[list[Box | Group]]:
    """Children by the longest path that leads to them; rows that are too long are broken."""
    rank: dict[Box | Group, int] = {}
    sources: dict[Box | Group, list[Box | Group]] = {}
    for a, b in links:
        sources.setdefault(b, []).append(a)
    for child in children:
        rank[child] = 1 + max((rank[a] for a in sources.get(child, [])), default=-1)
    targets: dict[Box | Group, list[Box | Group]] = {}
    for a, b in links:
        targets.setdefault(a, []).append(b)
    for child in children:  # what needs nothing stands next to what needs it
        if child not in sources and child in targets:
            rank[child] = min(rank[b] for b in targets[child]) - 1
    rows: list[list[Box | Group]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for child in children:
        rows[rank[child]].append(child)
    return [row[k : k + MOST_IN_A_ROW] for row in rows for k in range(0, len(row), MOST_IN_A_ROW)]


def _ordered(rows: list[list[Box | Group]], links: set[Link]) -> list[list[Box | Group]]:
    """Each row by the mean place of the neighbours, down and up a few times."""
    neighbours: dict[Box | Group, list[Box | Group]] = {}
    for a, b in links:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    place: dict[Box | Group, float] = {}
    for row in rows:
        place |= {child: k - len(row) / 2 for k, child in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {
                child: sum(place[n] for n in near) / len(near) if near else place[child]
                for child in row
                for near in [neighbours.get(child, [])]
            }
            row.sort(key=lambda child: (wanted[child], place[child]))
            place |= {child: k - len(row) / 2 for k, child in enumerate(row)}
    return rows


def place(group: Group, x: float = 0.0, y: float = 0.0) -> None:
    """Gives every box and group its place: rows one below the other, each in the middle."""
    _measure(group)
    _move(group, x, y)


def _measure(group: Group) -> None:
    for row in group.rows:
        for child in row:
            if isinstance(child, Group):
                _measure(child)
    widths = [sum(c.width for c in row) + GAP_X * (len(row) - 1) for row in group.rows]
    heights = [max(c.height for c in row) for row in group.rows]
    head = HEADER if group.path else 0.0
    group.width = max([*widths, 7.0 * len(group.name) + 40]) + 2 * PADDING
    group.height = sum(heights) + GAP_Y * max(len(heights) - 1, 0) + head + 2 * PADDING


def _move(group: Group, x: float, y: float) -> None:
    group.x, group.y = x, y
    top = y + PADDING + (HEADER if group.path else 0.0)
    for row in group.rows:
        width = sum(c.width for c in row) + GAP_X * (len(row) - 1)
        height = max(c.height for c in row)
        left = x + (group.width - width) / 2
        for child in row:
            at = top + (height - child.height) / 2
            if isinstance(child, Group):
                _move(child, left, at)
            else:
                child.x, child.y = left, at
            left += child.width + GAP_X
        top += height + GAP_Y
