"""invert: golden small graphs, and the inverted graph against the definition for random maps."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop import reference, support
from metaop.compiler.passes.invert import LARGEST_GROWTH, inverted
from metaop.extent import plain
from metaop.graph import REDUCTIONS, Node, Piece, Reindex, ReindexReduce, identity_of, is_projection
from metaop.index import TRUE, contains, loops_of, show
from tests.strategies import IndexMap, index_function, index_maps

rng = np.random.default_rng(0)
I0, I1, I2, I3 = (("i", k) for k in range(4))


def scatter(
    shape: Any, indices: Any, y: Any, op: str = "add", condition: Any = TRUE, *inputs: Any
) -> ReindexReduce:
    """out[indices] op= y, where y is an array or the shape of one."""
    array = rng.normal(size=y) if isinstance(y, tuple) else y
    nodes = [mo.array(a)._node for a in (array, *inputs)]
    for node in nodes:
        node.shape = plain(node.shape)
    return ReindexReduce(op, shape, indices, *nodes, condition=condition)


def text(node: Node | None) -> list[str]:
    """The graph above the leaves, a line for each node."""
    lines = []
    while node is not None and node.inputs:
        if isinstance(node, ReindexReduce):
            lines.append(f"{node.op} to {node.shape} at {_row(node.indices)}")
        else:
            assert isinstance(node, Reindex)
            (piece,) = node.pieces
            line = f"{node.shape} reads {_row(piece.indices)}"
            lines.append(line if piece.condition == TRUE else f"{line} if {show(piece.condition)}")
        node = node.inputs[0]
    return lines[::-1]


def _row(indices: Any) -> str:
    return "[" + ", ".join(map(show, indices)) + "]"


def value(node: Node) -> np.ndarray:
    """The value of a graph of reindexes and reductions by the loops that define them."""
    if not node.inputs:
        assert node.storage is not None
        return np.array(node.storage.view(node.dtype.storage, node.shape))
    source, *inputs = map(value, node.inputs)
    if isinstance(node, ReindexReduce):
        index, holds = index_function(node.indices, node.condition, inputs)
        return reference.reindex_reduce(node.op, source, node.shape, index, holds)
    assert isinstance(node, Reindex)
    (piece,) = node.pieces
    return reference.reindex(
        [source],
        node.shape,
        [(0, *index_function(piece.indices, piece.condition, inputs))],
        fill=node.fill,
    )


# ---------------------------------------------------------------------------------------- golden

GOLDEN = {
    "the gradient of a window of three": (
        ((6,), (("add", I0, I1),), (4, 3)),
        ["(6, 3) reads [i0 - i1, i1] if 0 <= i0 - i1 and i0 - i1 < 4", "add to (6,) at [i0]"],
    ),
    "the gradient of a window of three at every second place": (
        ((9,), (("add", ("mul", I0, 2), I1),), (4, 3)),
        [
            "(9, 2) reads [i0 // 2 - i1, i1 * 2 + i0 % 2] if "
            "0 <= i0 // 2 - i1 and i0 // 2 - i1 < 4 and i1 * 2 + i0 % 2 < 3",
            "add to (9,) at [i0]",
        ],
    ),
    "the gradient of a slice": (
        ((7,), (("add", ("mul", I0, 2), 1),), (3,)),
        ["(7,) reads [(i0 + 1) // 2 - 1] if (i0 + 1) % 2 == 0 and 0 <= (i0 + 1) // 2 - 1"],
    ),
    "the gradient of a flip": (((4,), (("sub", 3, I0),), (4,)), ["(4,) reads [3 - i0]"]),
    "the gradient of a transpose": (((3, 2), (I1, I0), (2, 3)), ["(3, 2) reads [i1, i0]"]),
    "the gradient of a repetition": (
        ((3,), (("floordiv", I0, 2),), (6,)),
        ["(3, 2) reads [i0 * 2 + i1]", "add to (3,) at [i0]"],
    ),
    "the gradient of a tiling": (
        ((3,), (("mod", I0, 3),), (6,)),
        ["(3, 2) reads [i0 + i1 * 3]", "add to (3,) at [i0]"],
    ),
    "the gradient of a diagonal": (
        ((3, 3), (I0, I0), (3,)),
        ["(3, 3) reads [i0] if i0 == i1"],
    ),
    "the gradient of the nearest of every three": (
        ((8,), (("floordiv", ("mul", I0, 2), 3),), (12,)),
        [
            "(8, 2) reads [i1 + (i0 * 3 + 1) // 2] if "
            "i1 + (i0 * 3 + 1) // 2 < 12 and (i1 * 2 + (i0 * 3 + 1) // 2 * 2) // 3 == i0",
            "add to (8,) at [i0]",
        ],
    ),
    "the gradient of the next of every two, at the border the last": (
        ((4,), (("min", ("floordiv", ("add", I0, 1), 2), 3),), (8,)),
        [
            "(4, 3) reads [i0 * 2 + i1 - 1] if 0 <= i0 * 2 + i1 - 1 and min(i0 + i1 // 2, 3) == i0",
            "add to (4,) at [i0]",
        ],
    ),
    "the gradient of a reshape": (
        ((6,), (("add", ("mul", I0, 3), I1),), (2, 3)),
        ["(6,) reads [i0 // 3, i0 % 3]"],
    ),
}


def _normal(lines: list[str]) -> list[str]:
    """Conditions in a fixed order: their order is no part of the meaning."""
    result = []
    for line in lines:
        head, _, tail = line.partition(" if ")
        result.append(head + (" if " + " and ".join(sorted(tail.split(" and "))) if tail else ""))
    return result


@pytest.mark.parametrize("name", list(GOLDEN))
def test_inverted_graph(name: str) -> None:
    arguments, want = GOLDEN[name]
    node = scatter(*arguments)
    assert _normal(text(inverted(node))) == _normal(want)
    np.testing.assert_allclose(value(inverted(node)), value(node), rtol=1e-14)


def test_a_plain_reduction_is_left_alone() -> None:
    assert inverted(scatter((3,), (I0,), (3, 4))) is None
    assert inverted(scatter((), (), (3, 4))) is None
    assert inverted(scatter((4,), (I1,), (3, 4))) is None


def test_a_write_through_an_input_is_left_a_scatter() -> None:
    rows = np.array([0, 2, 2, 1])
    assert inverted(scatter((3,), (("read", 1, (I0,), None),), (4,), "add", TRUE, rows)) is None


def test_the_gradient_of_picking_a_label_is_a_select() -> None:
    labels = np.array([2, 0, 1])
    node = scatter((3, 4), (I0, ("read", 1, (I0,), None)), (3,), "add", TRUE, labels)
    result = inverted(node)
    assert text(result) == ["(3, 4) reads [i0] if @1[i0] == i1"]
    np.testing.assert_array_equal(value(result), value(node))


def test_an_inversion_that_multiplies_the_work_is_not_made() -> None:
    """out[i0 * i1] += y has no inverse; a sparse write would read y for all of out."""
    assert inverted(scatter((9,), (("mul", I0, I1),), (3, 3))) is None
    far = scatter((10_000,), (("mul", I0, 1000), ), (2, 3))  # fmt: skip
    result = inverted(far)
    if result is not None:
        work = (result.inputs[0] if isinstance(result, ReindexReduce) else result).size
        assert work <= LARGEST_GROWTH * (far.inputs[0].size + far.size)


def test_a_write_partly_outside_is_no_reshape_although_its_offsets_are_in_order() -> None:
    """out[0, i0] += y[i0, 0] into [2, 1] was taken for a reshape: out[0, 1] is not out[1, 0]."""
    node = scatter((2, 1), (0, I0), (2, 1))
    np.testing.assert_array_equal(value(inverted(node)), value(node))


def test_empty_arrays_are_left_alone() -> None:
    assert inverted(scatter((0,), (("add", I0, 1),), (3,))) is None
    assert inverted(scatter((3,), (("add", I0, 1),), (0,))) is None


def test_steps_by_an_extent_that_is_an_argument_are_left_a_scatter() -> None:
    """What is counted for one size would not hold for another."""
    y = mo.array(rng.normal(size=8))
    node = mo.reindex_reduce(
        y, "add", (8,), lambda i: (support.index_minimum(i * 2 // 3, y.shape[0]),)
    )
    assert inverted(node._node) is None


def test_steps_of_which_one_takes_nearly_all_are_left_a_scatter() -> None:
    assert inverted(scatter((99,), (("max", ("sub", I0, 90), 0),), (99,))) is None


@st.composite
def steps(draw: Any) -> Any:
    """An expression that grows with i0."""
    e: Any = I0
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(("add", "sub", "mul", "floordiv", "min", "max")))
        low = 1 if kind in ("mul", "floordiv") else -3
        e = (kind, e, draw(st.integers(low, 7)))
    return e


@settings(max_examples=200, deadline=None)
@given(steps(), st.integers(1, 12), st.integers(1, 9), st.sampled_from(("add", "maximum")))
def test_writes_by_steps_are_their_definition(e: Any, count: int, size: int, op: str) -> None:
    node = scatter((size,), (e,), numbers(op, (count,), count), op)
    result = inverted(node)
    if result is not None:
        assert result.shape == node.shape
        np.testing.assert_array_equal(value(result), value(node))


# -------------------------------------------------------------------------- structural zeros


def iterations(node: Node) -> int:
    """How many terms computing the inverted node visits."""
    result = inverted(node)
    assert result is not None
    return (result.inputs[0] if isinstance(result, ReindexReduce) else result).size


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (4, 2), (5, 3), (7, 2), (2, 2), (3, 3)])
def test_a_strided_window_costs_no_terms_that_are_always_zero(window: int, stride: int) -> None:
    """Every output visits ceil(window / stride) terms, not `window`: as many as it ever gets."""
    count = 16
    length = (count - 1) * stride + window
    node = scatter((length,), (("add", ("mul", I0, stride), I1),), (count, window))
    assert iterations(node) == length * -(-window // stride)
    definition = count * window
    assert iterations(node) <= definition * (1 + (stride - 1) / window) + window * window
    np.testing.assert_allclose(value(inverted(node)), value(node), rtol=1e-13)


def test_two_strided_windows_take_the_residue_form_on_both_axes() -> None:
    indices = (("add", ("mul", I0, 2), I2), ("add", ("mul", I1, 2), I3))
    node = scatter((13, 13), indices, (6, 6, 3, 3))
    assert iterations(node) == 13 * 13 * 2 * 2
    np.testing.assert_allclose(value(inverted(node)), value(node), rtol=1e-13)


def test_padding_and_dilation_are_inverted() -> None:
    node = scatter((7,), (("sub", ("add", I0, ("mul", I1, 2)), 2),), (7, 3))
    assert iterations(node) == 21
    np.testing.assert_allclose(value(inverted(node)), value(node), rtol=1e-13)


# ------------------------------------------------------------------------------------ any map


def numbers(op: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Small whole numbers, on which every order of a reduction gives the same."""
    drawn = np.random.default_rng(seed)
    if op.startswith("logical"):
        return drawn.integers(0, 2, shape).astype(bool)
    array = drawn.integers(-3, 4, shape)
    return array if op.startswith("bitwise") else array.astype(np.float64)


@settings(max_examples=300, deadline=None)
@given(index_maps(pieces=1))
def test_the_inverted_graph_computes_the_definition(case: IndexMap) -> None:
    (piece,) = case.pieces
    for seed, op in enumerate(REDUCTIONS):
        y = numbers(op, case.shape, seed)
        node = scatter(case.source, piece.indices, y, op, piece.condition, *case.inputs)
        result = inverted(node)
        if result is None:
            return
        assert result.shape == node.shape and result.dtype is node.dtype
        if isinstance(result, ReindexReduce):
            assert is_projection(result)
            assert result.inputs[0].fill == identity_of(op, node.dtype)
        np.testing.assert_array_equal(value(result), value(node), err_msg=op)


@settings(max_examples=200, deadline=None)
@given(index_maps(pieces=1, reads=False))
def test_every_affine_write_of_separate_loops_is_inverted(case: IndexMap) -> None:
    (piece,) = case.pieces
    loops = [k for e in piece.indices for k in loops_of(e)]
    if len(set(loops)) < len(loops) or any(contains(e, ("floordiv", "mod")) for e in piece.indices):
        return
    node = scatter(case.source, piece.indices, case.shape, "add", piece.condition)
    assert is_projection(node) or inverted(node) is not None


def test_maximum_keeps_how_ties_share_their_gradient() -> None:
    y = mo.array(np.ones((4, 3)))._node
    node = ReindexReduce("maximum", (6,), (("add", I0, I1),), y, ties="first")
    assert inverted(node).ties == "first"


def test_the_inverse_of_a_prefix_of_pieces_is_masked() -> None:
    """The gradient of a concatenation: one part reads its own box."""
    a, b = mo.array(np.zeros((2, 2))), mo.array(np.zeros((3, 2)))
    joined = mo.concat([a, b])._node
    g = mo.array(rng.normal(size=(5, 2)))._node
    rules = importlib.import_module("metaop.grad")
    for back, rows in zip(rules.TABLE[Reindex](joined, g), (slice(0, 2), slice(2, 5))):
        result = inverted(back)
        assert isinstance(result, Reindex)
        np.testing.assert_array_equal(value(result), value(g)[rows])
    assert isinstance(joined.pieces[0], Piece)
