"""winograd: sums over windows of 3 x 3 taps with 16 multiplications for 4 results instead of 36.

    out[…, i, j] = sum over c, r, q of x[…, c, i + r, j + q] * w[…, c, r, q]

 -> V[a, b, c, t, u] = B x B^T of the tile x[…, c, 2t + 0…3, 2u + 0…3]
    U[a, b, c]       = G w G^T
    M[a, b, t, u]    = sum over c of U[a, b, c] * V[a, b, c, t, u]
    out[…, i, j]     = (A M A^T)[i % 2, j % 2] of tile i // 2, j // 2

        | 1  0 -1  0 |        | 1    0    0  |
    B = | 0  1  1  0 |    G = | 1/2  1/2 1/2 |    A = | 1  1 -1  0 |
        | 0  1 -1  0 |        | 1/2 -1/2 1/2 |        | 0  1  1 -1 |
        | 0  1  0 -1 |        | 0    0    1  |

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015, F(2x2, 3x3); row
2 of B and column 2 of A have the other sign there.

A window is a reduced loop r of extent 3 and a loop i of the result, of which one factor, the image,
knows only i + r or i - r, and the other one, the filter, only r.  So convolutions of stride 1, the
gradients of their images and transposed convolutions are rewritten, whatever their borders; of more
than two windows the last two.  Leaves alone: strides, dilation, gradients of filters, 16-bit
floats, and sums of or for so few channels that the transforms cost more than they save.

Results differ in rounding.  An infinity or a NaN reaches all four results of its tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from metaop import dtype as dt
from metaop.dtype import DType
from metaop.extent import hint
from metaop.graph import (
    Elementwise,
    IndexOf,
    Node,
    Piece,
    Reindex,
    ReindexReduce,
    Scalar,
    identity_indices,
    is_projection,
    size_of,
)
from metaop.index import (
    TRUE,
    Expr,
    conjunction,
    conjuncts,
    loops_of,
    simplify,
    substitute,
    within,
)

from ..rewrite import Graph, map_graph

TAPS, TILE, STEP = 3, 4, 2  # of a window; of the image, and of the result, for one tile
LEAST_CHANNELS = 32  # that are summed, and that are made: fewer do not pay for the transforms
LEAST_TILES = 64  # of all images together: fewer do not pay for the transform of the filter
MOST_PRODUCTS = 0.75  # of those without the rewrite, with what tiles compute beyond odd edges


def winograd(graph: Graph) -> Graph:
    """The graph whose sums over windows of 3 x 3 taps are rewritten where that pays."""
    return map_graph(graph, lambda node: rewritten(node) or node)


def rewritten(node: Node) -> Node | None:
    """The rewritten form of one node, None if it has none or it does not pay."""
    found = recognised(node)
    return found.result() if found is not None and found.pays() else None


# ------------------------------------------------------------------------------------ recognising


@dataclass(frozen=True)
class Access:
    """base[indices] where the condition holds, else 0; over the loops of a product."""

    base: Node
    indices: tuple[Expr, ...]
    condition: Expr

    @property
    def loops(self) -> frozenset[int]:
        """The loops that it varies with."""
        return loops_of(self.condition).union(*map(loops_of, self.indices))

    def at(self, loops: Sequence[Expr], shape: Sequence[int]) -> Access:
        """The access at other loops, of these extents."""
        indices = tuple(simplify(substitute(e, loops), shape) for e in self.indices)
        return Access(self.base, indices, simplify(substitute(self.condition, loops), shape))

    def over(self, shape: tuple[int, ...]) -> Node:
        """The access as a node."""
        return Reindex(shape, (Piece(0, self.indices, self.condition),), self.base)


@dataclass(frozen=True)
class Window:
    """The image knows only `position + tap` (or, backward, `position - tap`)."""

    position: int
    tap: int
    backward: bool

    def first(self, at: Expr) -> Expr:
        """The position whose window begins at an index of the image, for the tap's own index."""
        tap: Expr = ("i", self.tap)
        return ("sub", ("add", at, tap), TAPS - 1) if self.backward else ("sub", at, tap)


def recognised(node: Node) -> Product | None:
    """A sum of products over two windows, None for all else."""
    if not isinstance(node, ReindexReduce) or node.op != "add" or not is_projection(node):
        return None
    shape = node.inputs[0].shape
    kept = [e[1] for e in node.indices]
    taps = [k for k, n in enumerate(shape) if n == TAPS and k not in kept]
    if node.dtype not in (dt.float32, dt.float64) or len(taps) < 2:
        return None
    product = _access(node.inputs[0], Access(node.inputs[0], identity_indices(len(shape)), TRUE))
    y = product.base
    if not isinstance(y, Elementwise) or y.op != "mul":
        return None
    factors = [_access(f, Access(f, product.indices, TRUE)) for f in y.inputs]
    for image, kernel in (factors, factors[::-1]):
        found = _product(node, image, kernel, product.condition, kept, taps)
        if found is not None:
            return found
    return None


def _access(node: Node, at: Access) -> Access:
    """The access below reindexes that fill with 0."""
    while isinstance(node, Reindex) and len(node.pieces) == len(node.inputs) == 1:
        piece, source = node.pieces[0], node.inputs[0]
        if node.fill != 0 or 0 in source.shape:
            break
        inside = conjunction(at.condition, substitute(piece.condition, at.indices))
        indices = tuple(substitute(e, at.indices) for e in piece.indices)
        at = Access(source, indices, conjunction(inside, within(indices, source.shape)))
        node = source
    return at


def _product(
    node: ReindexReduce,
    image: Access,
    kernel: Access,
    guard: Expr,
    kept: list[int],
    taps: list[int],
) -> Product | None:
    """The product with these roles of its factors; `guard` says where it exists."""
    shape = node.inputs[0].shape
    kernel = kernel.at(identity_indices(len(shape)), shape)
    for part in conjuncts(simplify(guard, shape)):
        if loops_of(part) <= kernel.loops - set(taps):
            kernel = Access(kernel.base, kernel.indices, conjunction(kernel.condition, part))
        else:
            image = Access(image.base, image.indices, conjunction(image.condition, part))
    windows: list[Window] = []
    for tap in taps:
        positions = [k for k in kept if k in image.loops and k not in kernel.loops]
        for position in positions if tap in kernel.loops else []:
            window = _window(image, position, tap, shape)
            if window is not None and all(position != w.position for w in windows):
                windows.append(window)
                break
    if len(windows) < 2:
        return None
    return Product(node, image, kernel, windows[-2:])


def _window(image: Access, position: int, tap: int, shape: Sequence[int]) -> Window | None:
    """How the image sees a tap together with a position, None if it knows them apart."""
    for backward in (False, True):
        window = Window(position, tap, backward)
        if tap not in _beginning_at(image, [window], shape).loops:
            return window
    return None


def _beginning_at(image: Access, windows: Iterable[Window], shape: Sequence[int]) -> Access:
    """The image with the loop of each position for where in it a tap lies; loops of tiles may
    reach beyond the last position."""
    at = list(identity_indices(len(shape)))
    longer = list(shape)
    for window in windows:
        at[window.position] = window.first(("i", window.position))
        longer[window.position] = _tiles(shape[window.position]) * STEP + TILE - STEP
    return image.at(at, longer)


def _tiles(positions: int) -> int:
    return -(-positions // STEP)


# --------------------------------------------------------------------------------------- rewriting


class Product:
    """out = sum over windows, and over other loops, of image * kernel."""

    def __init__(self, node: ReindexReduce, image: Access, kernel: Access, windows: list[Window]):
        self.node, self.kernel, self.windows = node, kernel, windows
        self.dtype = node.dtype
        self.shape = node.inputs[0].shape
        self.image = _beginning_at(image, windows, self.shape)
        self.kept = [e[1] for e in node.indices]
        self.positions = [w.position for w in windows]
        self.taps = [w.tap for w in windows]
        self.summed = [k for k in range(len(self.shape)) if k not in (*self.kept, *self.taps)]

    def size(self, loops: Iterable[int]) -> int:
        """How many iterations some loops have, about."""
        return hint(size_of(self.shape[k] for k in loops))

    def pays(self) -> bool:
        """True if there are channels enough for what the transforms of tiles cost, tiles enough for
        that of the filter, and tiles that are whole enough."""
        made = [k for k in self.kept if k not in self.image.loops]
        images = [k for k in self.kept if k in self.image.loops and k not in self.positions]
        images = [k for k in images if k not in self.kernel.loops]
        tiles = size_of(_tiles(hint(self.shape[k])) for k in self.positions)
        few = min(self.size(made), self.size(self.summed)) < LEAST_CHANNELS
        few = few or tiles * self.size(images) < LEAST_TILES
        return not few and TILE**2 * tiles <= MOST_PRODUCTS * TAPS**2 * self.size(self.positions)

    def result(self) -> Node:
        """The sums by tiles."""
        sums = self.sums(self.transformed_image(), self.transformed_kernel())
        whole = tuple(
            _tiles(self.shape[k]) * STEP if k in self.positions else self.shape[k]
            for k in self.kept
        )
        result = self.untransformed(sums, whole)
        if whole == self.node.shape:
            return result
        return Reindex(self.node.shape, (Piece(0, identity_indices(len(whole))),), result)

    def transformed_image(self) -> Node:
        """B x B^T: [4, 4, loops of the image, tiles in the place of positions]."""
        self.image_loops = [k for k in self.summed + self.kept if k in self.image.loops]
        shape = (TILE, TILE, *map(self.extent, self.image_loops))
        sign = self.sign()

        def part(rows: str, columns: str) -> Node:
            at: list[Expr] = [0] * len(self.shape)
            for place, k in enumerate(self.image_loops, 2):
                at[k] = ("i", place)
            for axis, (k, kind) in enumerate(zip(self.positions, (rows, columns))):
                tap = (kind, ("i", axis), 1 if kind == "min" else 2)
                at[k] = ("add", ("mul", at[k], STEP), tap)
            return self.image.at(at, shape).over(shape)

        def columns(rows: str) -> Node:
            return _signed(part(rows, "min"), sign, 1, part(rows, "max"))

        return _signed(columns("min"), sign, 0, columns("max"))

    def sign(self) -> Node:
        """What the second element in a row of B is multiplied by: [-1, 1, -1, -1]."""
        index, one = IndexOf((TILE,), 0), _number(1, dt.int64, (TILE,))
        plus, minus = (_number(v, self.dtype, (TILE,)) for v in (1.0, -1.0))
        return Elementwise("where", Elementwise("eq", index, one), plus, minus)

    def transformed_kernel(self) -> Node:
        """G w G^T: [4, 4, loops of the kernel, in the order of its own axes]."""
        loops: list[int] = []
        for e in (*self.kernel.indices, self.kernel.condition):
            loops += [k for k in sorted(loops_of(e)) if k not in (*loops, *self.taps)]
        self.kernel_loops = loops
        rows = tuple(self.shape[k] for k in loops)
        shape = (TILE, TILE, *rows, TAPS, TAPS)
        at: list[Expr] = [0] * len(self.shape)
        for place, k in enumerate((*loops, *self.taps), 2):
            at[k] = ("i", place)
        taps = self.kernel.at(at, shape).over(shape)
        last = len(shape) - 2
        at_both = (("i", 0), ("i", 1), ("i", last), ("i", last + 1))
        both = Reindex(shape, (Piece(0, at_both),), _in_both(_coefficients(self.dtype)))
        product = Elementwise("mul", both, taps)
        return ReindexReduce("add", shape[:last], identity_indices(last), product)

    def extent(self, loop: int) -> int:
        """Of a loop, in tiles if it is a position."""
        return _tiles(self.shape[loop]) if loop in self.positions else self.shape[loop]

    def sums(self, image: Node, kernel: Node) -> Node:
        """M[a, b, …]: [4, 4, the loops of the result, positions last]."""
        others = [k for k in self.kept if k not in self.positions]
        made = [k for k in others if k not in self.image.loops]
        self.order = [k for k in others if k not in made]
        self.order = [*made, *self.order, *self.positions]
        loops = [*self.order, *self.summed]
        shape = (TILE, TILE, *map(self.extent, loops))
        place = {k: ("i", position) for position, k in enumerate(loops, 2)}
        at_image = (("i", 0), ("i", 1), *(place[k] for k in self.image_loops))
        rows = tuple(
            _mirrored(("i", axis)) if window.backward else ("i", axis)
            for axis, window in enumerate(self.windows)
        )
        at_kernel = (*rows, *(place[k] for k in self.kernel_loops))
        product = Elementwise(
            "mul",
            Reindex(shape, (Piece(0, at_image),), image),
            Reindex(shape, (Piece(0, at_kernel),), kernel),
        )
        rank = 2 + len(self.order)
        return ReindexReduce("add", shape[:rank], identity_indices(rank), product)

    def untransformed(self, sums: Node, shape: tuple[int, ...]) -> Node:
        """A M A^T at the tile and the place in it of each result."""
        at: dict[int, Expr] = {k: ("i", place) for place, k in enumerate(self.kept)}
        inside: list[Expr] = []
        for k in self.positions:
            inside.append(("mod", at[k], STEP))
            at[k] = ("floordiv", at[k], STEP)
        rest = tuple(at[k] for k in self.order)

        def row(a: Expr) -> Node:
            return _combined(inside[1], lambda b: Reindex(shape, (Piece(0, (a, b, *rest)),), sums))

        return _combined(inside[0], row)


def _combined(s: Expr, term: Callable[[Expr], Node]) -> Node:
    """A row of A: term(1) + term(2s) - term(2 + s) for s = 0, 1."""
    added = Elementwise("add", term(1), term(("mul", s, 2)))
    return Elementwise("sub", added, term(("add", s, 2)))


def _signed(first: Node, sign: Node, axis: int, second: Node) -> Node:
    """first + sign[i of the axis] * second"""
    spread = Reindex(first.shape, (Piece(0, (("i", axis),)),), sign)
    return Elementwise("add", first, Elementwise("mul", spread, second))


def _coefficients(dtype: DType) -> Node:
    """G"""
    shape = (TILE, TAPS)
    a, r = IndexOf(shape, 0), IndexOf(shape, 1)
    one, zero, half, minus = (_number(v, dtype, shape) for v in (1.0, 0.0, 0.5, -1.0))

    def equal(index: Node, value: int) -> Node:
        return Elementwise("eq", index, _number(value, dt.int64, shape))

    def unit(k: int) -> Node:
        return Elementwise("where", equal(r, k), one, zero)

    inner = Elementwise("logical_and", equal(a, 2), equal(r, 1))
    halves = Elementwise("where", inner, Elementwise("mul", minus, half), half)
    outer = Elementwise("where", equal(a, TILE - 1), unit(TAPS - 1), halves)
    return Elementwise("where", equal(a, 0), unit(0), outer)


def _in_both(each: Node) -> Node:
    """[a, b, r, q]: each[a, r] * each[b, q]"""
    shape = (TILE, TILE, TAPS, TAPS)
    rows, columns = (
        Reindex(shape, (Piece(0, (("i", axis), ("i", axis + 2))),), each) for axis in (0, 1)
    )
    return Elementwise("mul", rows, columns)


def _number(value: float, dtype: DType, shape: tuple[int, ...]) -> Node:
    return Reindex(shape, (Piece(0, ()),), Scalar(value, dtype))


def _mirrored(a: Expr) -> Expr:
    """The row of G of the taps in reverse order."""
    return ("where", ("eq", a, 0), TILE - 1, ("where", ("eq", a, TILE - 1), 0, a))
