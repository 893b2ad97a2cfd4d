"""Every graph pass: what it makes of a small graph, what it leaves alone, and that it changes no
number."""

from __future__ import annotations

import importlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.compiler import pipeline
from metaop.compiler.passes.algebra import algebra
from metaop.compiler.passes.compose import compose
from metaop.compiler.passes.invert import invert
from metaop.compiler.passes.share import share
from metaop.compiler.passes.split import split
from metaop.compiler.passes.winograd import winograd
from metaop.compiler.rewrite import Graph, Input, map_graph, verify
from metaop.errors import CompilerBug
from metaop.graph import Elementwise, Reindex, ReindexReduce, is_projection
from tests.compiler.random_graphs import draw_graph
from tests.compiler.stages import (
    ALL_PASSES,
    after,
    input_values,
    machine_values,
    operations,
    printed_values,
    recorded,
    reference_values,
    text_of,
)
from tests.golden import assert_golden

PASSES = [share, algebra, invert, split, compose]
# `metaop.compiler.passes.split` may name the function: the module by its full name
SPLIT_MODULE = importlib.import_module("metaop.compiler.passes.split")
TOLERANCE = {"rtol": 2e-5, "atol": 1e-5}


def f32(*shape: int) -> mo.Var:
    count = int(np.prod(shape))
    return mo.array((np.arange(count, dtype=np.float32) - count // 3).reshape(shape) / 4)


def before_and_after(x: mo.Var, *passes: pipeline.GraphPass) -> str:
    graph = recorded(x)
    return f"{text_of(graph, 'before')}\n{text_of(after(graph, passes), 'after')}"


def unchanged(x: mo.Var, graph_pass: pipeline.GraphPass) -> bool:
    graph = recorded(x)
    return operations(after(graph, [graph_pass])) == operations(graph)


def assert_same_values(graph: Graph, inputs: list[np.ndarray], other: Graph) -> None:
    want = reference_values(graph, inputs)
    for got, wanted in zip(reference_values(other, inputs), want, strict=True):
        np.testing.assert_allclose(got, wanted, **TOLERANCE)


# --- share ----------------------------------------------------------------------------------------


def test_share_golden():
    a = f32(2, 3)
    assert_golden(before_and_after(mo.exp(a) + mo.exp(a), share))


def test_share_merges_equal_subgraphs_bottom_up():
    a = f32(2, 3)
    graph = after(recorded(mo.tanh(mo.exp(a) * a) - mo.tanh(mo.exp(a) * a)), [share])
    assert operations(graph) == ["exp", "mul", "tanh", "sub"]


def test_share_keeps_different_fills_apart():
    a = f32(4)
    one = mo.reindex(a, (6,), lambda i: (i - 1,), fill=0.0)
    two = mo.reindex(a, (6,), lambda i: (i - 1,), fill=-0.0)
    assert unchanged(one * two, share)


def test_share_keeps_different_number_inputs_apart():
    a = f32(4)
    graph = after(recorded((a * 0.7) - (a * 0.9)), [share])
    assert operations(graph).count("mul") == 2


def test_share_keeps_different_dtypes_apart():
    a = f32(4)
    graph = after(recorded(a.astype("float64").sum() + a.astype("float16").sum()), [share])
    assert operations(graph).count("cast") >= 2


# --- algebra --------------------------------------------------------------------------------------


def test_algebra_golden():
    a = f32(2, 3)
    base = mo.negative(mo.negative(a)) * 1.0 - 0.0
    power = mo.pow(base, mo.full((2, 3), 2.0))  # of a number it would be a product at once
    assert_golden(before_and_after(power / 1.0, algebra))


REWRITTEN = {
    "x * 1": lambda x: x * 1.0,
    "1 * x": lambda x: 1.0 * x,
    "x / 1": lambda x: x / 1.0,
    "x - 0": lambda x: x - 0.0,
    "--x": lambda x: mo.negative(-x),
    "x ** 1": lambda x: x**1.0,
    "where c x x": lambda x: mo.where(x > 0, x, x),
    "identity reindex": lambda x: mo.reindex(x, x.shape, lambda i: (i,)),
    "identity reindex_reduce": lambda x: mo.reindex_reduce(x, "add", x.shape, lambda i: (i,)),
    "int + 0": lambda x: x.astype("int32") + 0,
}
LEFT_ALONE = {
    "x + 0.0 turns -0.0 into 0.0": lambda x: x + 0.0,
    "0.0 + x": lambda x: 0.0 + x,
    "x * 0 keeps NaN": lambda x: x * 0.0,
    "x - x keeps NaN and inf": lambda x: x - x,
    "x / x": lambda x: x / x,
    "x * -1 is no negation of NaN's sign": lambda x: x * -1.0,
    "x - (-0.0) turns -0.0 into 0.0": lambda x: x - (-0.0),
    "0 - x is not -x for 0.0": lambda x: 0.0 - x,
    "where c x y": lambda x: mo.where(x > 0, x, -x),
    "a shifted reindex": lambda x: mo.reindex(x, x.shape, lambda i: (i + 1,)),
    "a masked reindex": lambda x: mo.reindex(x, x.shape, lambda i: (i,), where=lambda i: i < 2),
}
SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1e-40], np.float32)


@pytest.mark.parametrize("name", REWRITTEN)
def test_algebra_rewrites(name):
    x = mo.array(SPECIAL[:4])
    assert not operations(after(recorded(REWRITTEN[name](x) * x), [algebra]))[:-1] or not unchanged(
        REWRITTEN[name](x), algebra
    )


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_algebra_leaves_alone(name):
    assert unchanged(LEFT_ALONE[name](mo.array(SPECIAL)), algebra)


@pytest.mark.parametrize("name", [*REWRITTEN, *LEFT_ALONE])
def test_algebra_keeps_every_bit_of_special_values(name):
    x = mo.array(SPECIAL[:4] if name == "int + 0" else SPECIAL)
    result = (REWRITTEN | LEFT_ALONE)[name](x)
    graph, inputs = recorded(result), input_values(result)
    for changed in (graph, after(graph, [algebra])):
        got = reference_values(changed, inputs)[0]
        want = reference_values(graph, inputs)[0]
        np.testing.assert_array_equal(got, want)
        if got.dtype.kind == "f" and name != "identity reindex_reduce":  # 0.0 + -0.0 is 0.0
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])


# --- invert ---------------------------------------------------------------------------------------


def test_invert_golden_windows():
    y = f32(4, 3)
    assert_golden(
        before_and_after(mo.reindex_reduce(y, "add", (6,), lambda i, j: (i + j,)), invert)
    )


def test_invert_golden_residues():
    y = f32(4, 3)
    assert_golden(
        before_and_after(mo.reindex_reduce(y, "add", (9,), lambda i, j: (2 * i + j,)), invert)
    )


def test_invert_golden_picked_label():
    y, label = f32(4), mo.array(np.array([0, 2, 1, 2]))
    out = mo.reindex_reduce(y, "add", (4, 3), ["i0", "@e0(i0)"], extras=[label])
    assert_golden(before_and_after(out, invert))


def test_invert_golden_reshape():
    y = f32(4, 3)
    assert_golden(
        before_and_after(mo.reindex_reduce(y, "add", (12,), lambda i, j: (3 * i + j,)), invert)
    )


def test_invert_leaves_a_plain_reduction_alone():
    assert unchanged(f32(3, 4).sum(axis=1), invert)


def test_invert_leaves_a_scatter_through_an_index_alone():
    y, at = f32(5, 2), mo.array(np.array([0, 2, 2, 1, 0]))
    assert unchanged(mo.reindex_reduce(y, "add", (3, 2), ["@e0(i0)", "i1"], extras=[at]), invert)


AFFINE = {
    "shifted": lambda y: mo.reindex_reduce(y, "add", (7, 5), lambda i, j: (i + 1, j - 1)),
    "flipped": lambda y: mo.reindex_reduce(y, "add", (4, 6), lambda i, j: (3 - i, 5 - j)),
    "transposed": lambda y: mo.reindex_reduce(y, "add", (6, 4), lambda i, j: (j, i)),
    "stride 3": lambda y: mo.reindex_reduce(y, "add", (10, 6), lambda i, j: (3 * i, j)),
    "stride 3 window 6": lambda y: mo.reindex_reduce(y, "add", (15,), lambda i, j: (3 * i + j,)),
    "negative stride": lambda y: mo.reindex_reduce(y, "add", (12,), lambda i, j: (6 - 2 * i + j,)),
    "diagonal": lambda y: mo.reindex_reduce(y, "add", (9,), lambda i, j: (i + j,)),
    "antidiagonal": lambda y: mo.reindex_reduce(y, "add", (9,), lambda i, j: (i - j + 5,)),
    "dilated": lambda y: mo.reindex_reduce(y, "add", (14,), lambda i, j: (i + 2 * j,)),
    "both strides above 1": lambda y: mo.reindex_reduce(
        y, "add", (20,), lambda i, j: (2 * i + 3 * j,)
    ),
    "quotient": lambda y: mo.reindex_reduce(y, "add", (4, 3), lambda i, j: (i, j // 2)),
    "remainder": lambda y: mo.reindex_reduce(y, "add", (4, 4), lambda i, j: (i, j % 4)),
    "out of range": lambda y: mo.reindex_reduce(y, "add", (3, 3), lambda i, j: (i - 1, 2 * j - 3)),
    "maximum": lambda y: mo.reindex_reduce(y, "maximum", (9,), lambda i, j: (2 * i + j - 1,)),
    "product": lambda y: mo.reindex_reduce(y, "multiply", (9,), lambda i, j: (i + j,)),
    "conditional": lambda y: mo.reindex_reduce(
        y, "add", (9,), lambda i, j: (i + j,), where=lambda i, j: i < j
    ),
    "a whole number": lambda y: mo.reindex_reduce(y, "add", (3, 6), lambda i, j: (1, j)),
}


@pytest.mark.parametrize("name", AFFINE)
def test_invert_makes_a_gather_of_every_affine_write(name):
    result = AFFINE[name](f32(4, 6))
    graph, inputs = recorded(result), input_values(result)
    inverted = after(graph, [invert])
    reductions = [n for n in inverted.nodes if isinstance(n, ReindexReduce)]
    assert all(is_projection(n) for n in reductions), text_of(inverted)
    assert_same_values(graph, inputs, inverted)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6),
       st.integers(-3, 3), st.integers(1, 14))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_invert_of_strided_windows_is_their_definition(a, b, n, m, shift, size):
    y = f32(n, m)
    result = mo.reindex_reduce(y, "add", (size,), lambda i, j: (a * i + b * j + shift,))
    graph, inputs = recorded(result), input_values(result)
    assert_same_values(graph, inputs, after(graph, [invert]))


def test_invert_of_a_write_that_leaves_the_result_is_no_reshape():
    # Both sizes are 10 and the offsets agree, so this was taken for a reshape: row 1, which is
    # outside what is written, came out as the numbers that the definition drops.
    y = f32(1, 10)
    result = mo.reindex_reduce(y, "add", (2, 5), lambda i, j: (0, j))
    graph, inputs = recorded(result), input_values(result)
    assert_same_values(graph, inputs, after(graph, [invert]))


def test_invert_does_no_arithmetic_on_structural_zeros():
    # The gradient of a window of 3 with stride 2: 9 results of at most 2 terms, not of 3.
    y = f32(4, 3)
    result = mo.reindex_reduce(y, "add", (9,), lambda i, j: (2 * i + j,))
    graph = after(recorded(result), [invert])
    assert max(n.size for n in graph.nodes if isinstance(n, Reindex)) == 18


# --- split ----------------------------------------------------------------------------------------


def test_split_golden():
    assert_golden(before_and_after(mo.ones((3, 65_536)).sum(axis=1), split))


def test_split_golden_with_a_last_piece_that_is_shorter():
    assert_golden(before_and_after(mo.ones((65_537,)).sum(), split))


@pytest.mark.parametrize("shape", [(3000, 65), (8, 100), (1, 8191)])
def test_split_leaves_large_results_and_short_reductions_alone(shape):
    assert unchanged(mo.ones(shape).sum(axis=1), split)


def test_split_leaves_products_of_sixteen_blocks_alone():
    """A gradient's halves were added up column by column: a transformer's step took 8 % more."""
    x, g = f32(8192, 256), f32(8192, 256)
    assert unchanged(x.T @ g, split)
    assert not unchanged(x[:, :128].T @ g, split)


@pytest.mark.parametrize("op", ["sum", "max", "prod", "min"])
@pytest.mark.parametrize("shape,axis", [((50,), 0), ((4, 33), 1), ((33, 4), 0), ((3, 17, 5), 1),
                                        ((3, 17, 5), (0, 2)), ((2, 41, 2), (0, 1, 2))])  # fmt: skip
def test_split_keeps_values_whatever_the_pieces(monkeypatch, op, shape, axis):
    monkeypatch.setattr(SPLIT_MODULE, "SHORT", 8)
    monkeypatch.setattr(SPLIT_MODULE, "PIECE", 3)
    x = f32(*shape) / 16
    result = getattr(mo, op)(x, axis=axis)
    graph, inputs = recorded(result), input_values(result)
    pieces = after(graph, [split])
    assert operations(pieces) != operations(graph)
    assert_same_values(graph, inputs, pieces)
    np.testing.assert_allclose(
        printed_values(after(pieces, [compose]), inputs)[0], getattr(x.numpy(), op)(axis=axis),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


# --- compose --------------------------------------------------------------------------------------


def test_compose_golden():
    a = f32(4, 6)
    assert_golden(before_and_after(mo.transpose(a)[2:, :], compose))


def test_compose_golden_keeps_the_inner_condition():
    a = f32(4)
    padded = mo.reindex(a, (8,), lambda i: (i - 2,))
    assert_golden(before_and_after(mo.reindex(padded, (5,), lambda i: (2 * i,)), compose))


def test_compose_leaves_another_fill_outside_alone():
    a = f32(4)
    ones_around = mo.reindex(a, (6,), lambda i: (i - 1,), fill=1.0)
    assert unchanged(mo.reindex(ones_around, (9,), lambda i: (i - 1,), fill=0.0), compose)


def test_compose_takes_another_fill_where_the_outer_never_fills():
    a = f32(4)
    ones_around = mo.reindex(a, (6,), lambda i: (i - 1,), fill=1.0)
    graph = after(recorded(mo.reindex(ones_around, (6,), lambda i: (5 - i,), fill=0.0)), [compose])
    assert operations(graph) == ["reindex"]


def test_compose_leaves_pieces_alone():
    assert unchanged(mo.concat([f32(2, 3), f32(2, 3)])[1:], compose)


def test_compose_of_permutations_is_their_product():
    # Two swapped indices here went unnoticed once: equal extents hide them, these are distinct.
    a = f32(2, 3, 5)
    result = mo.permute_dims(mo.permute_dims(a, (1, 2, 0)), (1, 2, 0))
    graph, inputs = recorded(result), input_values(result)
    composed = after(graph, [compose])
    assert operations(composed) == ["reindex"]
    want = a.numpy().transpose(1, 2, 0).transpose(1, 2, 0)
    np.testing.assert_array_equal(reference_values(composed, inputs)[0], want)


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("graph_pass", PASSES, ids=lambda p: p.__name__)
@given(draw=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_a_program_computes_the_definition_with_and_without(graph_pass, draw):
    results = draw_graph(draw)
    graph, inputs = recorded(*results), input_values(*results)
    want = reference_values(graph, inputs)
    others = [p for p in ALL_PASSES if p is not graph_pass]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SPLIT_MODULE, "SHORT", 6)
        patch.setattr(SPLIT_MODULE, "PIECE", 2)
        for passes in ([graph_pass], others, ALL_PASSES):
            got = printed_values(after(graph, passes), inputs)
            for one, wanted in zip(got, want, strict=True):
                np.testing.assert_allclose(one, wanted, equal_nan=True, **TOLERANCE)


@pytest.mark.parametrize("seed", range(6))
def test_machine_code_of_random_graphs_computes_the_definition(seed):
    results = draw_graph(random.Random(seed), length=14)
    graph, inputs = recorded(*results), input_values(*results)
    want = reference_values(graph, inputs)
    for one, wanted in zip(machine_values(after(graph, ALL_PASSES), inputs), want, strict=True):
        np.testing.assert_allclose(one, wanted, equal_nan=True, **TOLERANCE)


def test_running_the_passes_twice_changes_nothing():
    for seed in range(20):
        graph = after(recorded(*draw_graph(random.Random(seed))), [*ALL_PASSES, *ALL_PASSES])
        again = after(graph, ALL_PASSES)
        assert operations(again) == operations(graph), text_of(graph) + text_of(again)


def test_a_pass_that_changes_a_type_is_a_bug():
    graph = recorded(f32(2, 3) * 2.0)

    def sum_everything(node):
        return recorded(f32(3).sum()).outputs[0] if isinstance(node, Elementwise) else node

    with pytest.raises(CompilerBug, match="sum_everything changed the type"):
        map_graph(graph, sum_everything)


def test_verify_rejects_what_does_not_fit():
    a = Input(0, (2, 3), mo.float32)
    b = Input(1, (3,), mo.float32)
    c = Input(2, (2, 3), mo.float64)
    for node, message in [
        (Elementwise("add", a, b), "differ in shape"),
        (Elementwise("add", a, c), "differ in dtype"),
        (Elementwise("bitand", a, a), "not defined on"),
    ]:
        with pytest.raises(CompilerBug, match=message):
            verify(Graph([node], [a, b, c], {}))


def test_every_pass_is_in_the_pipeline_and_tested_here():
    others = {winograd}  # in test_winograd.py
    assert {graph_pass for _, graph_pass in pipeline.PASSES} == {*PASSES, *others}
    assert all(name == graph_pass.__name__ for name, graph_pass in pipeline.PASSES)
