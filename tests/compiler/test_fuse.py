"""Fusion: which values get memory, how many nests a computation takes, what each one reads."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler import pipeline
from metaop.compiler.fuse import LONGEST_CHAIN, cheap_again, choose_stores, fuse, reshape_base
from metaop.compiler.merge import merge_copies
from metaop.graph import Elementwise, Reindex, ReindexReduce
from tests.compiler.stages import (
    ALL_PASSES,
    after,
    fused,
    input_values,
    machine_values,
    nests,
    only,
    printed_values,
    recorded,
    reference_values,
)
from tests.golden import assert_golden


def f32(*shape: int) -> mo.Var:
    count = int(np.prod(shape))
    return mo.array((np.arange(count, dtype=np.float32) % 17 - 8).reshape(shape) / 4)


def nest_texts(*results: mo.Var) -> str:
    return "\n".join(nest.show() for nest in nests(*results))


def assert_computes_definition(*results: mo.Var, rtol: float = 1e-5) -> None:
    """The nests, printed and compiled, give what the recorded graph means."""
    graph, inputs = recorded(*results), input_values(*results)
    ready = after(graph, ALL_PASSES)
    want = reference_values(graph, inputs)
    for values in (printed_values(ready, inputs), machine_values(ready, inputs)):
        for got, wanted in zip(values, want, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=rtol, atol=1e-6)


def assert_counts(count: int, *results: mo.Var) -> None:
    found = nests(*results)
    assert len(found) == count, "\n".join(nest.show() for nest in found)
    assert_computes_definition(*results)


# --- one nest -------------------------------------------------------------------------------------


def test_a_chain_of_45_operators_is_one_nest():
    x = a = f32(5, 7)
    for k in range(15):
        x = mo.tanh(x * 0.7 + a) if k % 2 else mo.abs(x - a) / 3.0
    nest = only(nests(x))
    assert [b.role for b in nest.reads].count("in") == len(nest.reads)
    assert_computes_definition(x)


def test_a_chain_longer_than_the_bound_is_cut():
    x = f32(3)
    for _ in range(2 * LONGEST_CHAIN + 10):
        x = mo.abs(x)
    assert_counts(3, x)


def test_a_broadcast_operand_takes_no_kernel():
    a, b = f32(4, 6), f32(6)
    nest = only(nests(a * b + 1.0))
    assert [b.size for b in nest.reads] == [24, 6]


def test_a_sum_takes_its_producers_along():
    assert_counts(1, ((f32(4, 6) - 1.0) ** 2).sum(axis=1))


def test_matmul_stores_no_product_in_the_expanded_space():
    found = only(nests(f32(4, 6) @ f32(6, 5)))
    assert found.target.size == 20
    assert found.contraction


@pytest.mark.parametrize("factor", [1, 2])
def test_products_are_never_stored_in_the_expanded_space(factor):
    # The forward convolution and its gradients: every buffer is as large as an array, no larger.
    x, w = f32(2, 3, 9, 9), f32(4, 3, 3, 3)
    x.requires_grad = w.requires_grad = True
    out = mo.conv2d(x, w, stride=factor)
    gradients = mo.grad((out * out).sum(), [x, w])
    made = fused(out, *gradients)
    assert max(b.size for b in made.buffers) <= max(x.size, out.size)


def test_padding_is_inlined_into_its_reader():
    x, w = f32(1, 2, 6, 6), f32(3, 2, 3, 3)
    nest = only(nests(mo.conv2d(x, w, padding=1)))
    assert {b.role for b in nest.reads} == {"in"}
    assert_computes_definition(mo.conv2d(x, w, padding=1))


def test_softmax_parts():
    # max, sum of exponentials, quotient; the exponential is stored or computed twice, but the row
    # maximum and the sum are one number a row.
    found = nests(nn.functional.softmax(f32(6, 40), dim=1))
    assert [n.op for n in found if n.op] == ["maximum", "add"]
    assert len(found) <= 4
    assert [n.target.size for n in found if n.op] == [6, 6]


def test_softmax_golden():
    assert_golden(nest_texts(nn.functional.softmax(f32(6, 40), dim=1)))


# --- views ----------------------------------------------------------------------------------------


def test_a_reshape_of_a_stored_value_is_a_view():
    x = f32(4, 6)
    total = mo.exp(x) + 1.0
    made = fused(total, total.reshape(2, 12), total.reshape(24))
    assert len(made.nests) == 1
    assert len({made.place[n] for n in made.place if n.size == 24 and n.kind != "input"}) == 1


def test_flatten_between_layers_costs_no_kernel():
    x, w, v = f32(2, 3, 6, 6), f32(4, 3, 3, 3), f32(5, 64)
    net = nn.functional.linear(mo.flatten(mo.conv2d(x, w), 1), v)
    plain = [mo.conv2d(x, w), nn.functional.linear(f32(2, 64), v)]
    assert len(nests(net)) == sum(len(nests(part)) for part in plain) == 2
    assert_computes_definition(net)


def test_a_reshape_of_an_input_is_a_view_for_its_readers():
    assert_counts(1, f32(4, 6).reshape(8, 3) * 2.0)


def test_a_reindex_of_equal_offsets_that_leaves_its_source_is_no_view():
    # Offset and size of this one are those of a reshape, but columns 5 to 9 lie outside x: they
    # came out as row 1 instead of the fill.
    x = f32(2, 5) + 1.0
    y = mo.reindex(x, (1, 10), lambda i, j: (0, j))
    assert reshape_base(y._node) is y._node
    assert_computes_definition(y)
    assert_computes_definition(y, x)


# --- several pieces -------------------------------------------------------------------------------


def test_concat_writes_boxes_of_one_buffer():
    a, b = f32(2, 4), f32(3, 4)
    found = nests(mo.concat([mo.exp(a), b * 2.0]))
    assert len(found) == 2
    assert len({n.target for n in found}) == 1
    assert sorted(n.iterations for n in found) == [8, 12]
    assert_computes_definition(mo.concat([mo.exp(a), b * 2.0]))


def test_what_reads_a_concat_of_cheap_pieces_chooses_among_them():
    a, b = f32(5, 4), f32(5, 3)
    for joined in (mo.concat([a, b], 1), mo.stack([a, a * 2.0, a])):
        assert len(nests(joined.sum(1))) == 1
        assert_computes_definition(joined.sum(1))


def test_a_part_of_a_concat_reads_the_pieces_that_it_lies_in():
    a, b, c = f32(4, 3), f32(4, 2), f32(4, 5)
    part = mo.concat([a, b, c], 1)[:, 1:5] * 2.0
    assert [len(n.reads) for n in nests(part)] == [2]
    assert_computes_definition(part)


def test_pieces_that_are_dear_are_computed_in_their_boxes():
    a, b = f32(5, 4), f32(5, 3)
    total = mo.concat([mo.lgamma(a), mo.lgamma(b)], 1).sum(1)
    assert sorted(n.iterations for n in nests(total)) == [15, 20, 35]
    assert_computes_definition(total)


def test_boxes_that_leave_gaps_are_filled_first():
    x = f32(4)
    padded = mo.pad(x, [(1, 2)], constant_values=3.0)
    assert_computes_definition(padded * 1.0, padded)


def test_an_assigned_box_overwrites_a_copy():
    x = mo.zeros((5, 4))
    x[1:3, 2:] = f32(2, 2)
    found = nests(x)
    assert [n.iterations for n in found] == [20, 4]
    assert_computes_definition(x)


# --- store or repeat ------------------------------------------------------------------------------


def test_an_expensive_producer_that_is_repeated_is_stored():
    x, w = f32(8, 8), f32(8, 8)
    found = nests(mo.exp(mo.tanh(x)) @ w)
    assert len(found) == 2
    assert found[0].target.size == 64


def test_a_cheap_producer_that_is_repeated_is_not_stored():
    assert_counts(1, mo.abs(f32(8, 8)) @ f32(8, 8))


def test_an_expensive_producer_that_is_used_once_is_not_stored():
    assert_counts(1, mo.exp(mo.tanh(f32(8, 8))).sum(axis=0))


def test_what_is_spread_is_stored_not_the_spread():
    # exp of a row, spread over 64 rows and read 64 times more: the row is stored, not the square.
    row, w = f32(64), f32(64, 64)
    found = nests(mo.broadcast_to(mo.exp(mo.sin(row)), (64, 64)) @ w)
    assert max(n.target.size for n in found[:-1]) == 64


def test_random_numbers_are_drawn_once():
    mo.manual_seed(0)
    found = nests(mo.random.uniform((6, 6)) @ f32(6, 6))
    drawn = only([n for n in found if "threefry" in n.show()])
    assert drawn.iterations == 36


def test_everything_that_is_a_reduction_or_an_output_is_stored():
    x = f32(4, 5)
    row = x.sum(axis=1)
    y, z = mo.exp(row), row * 2.0
    graph = after(recorded(y, z), ALL_PASSES)
    stored, _ = choose_stores(graph)
    assert {n for n in graph.nodes if isinstance(n, ReindexReduce)} <= stored
    assert set(graph.outputs) <= stored
    assert len(stored) == 3


def test_the_order_of_a_reduction_is_chosen_only_where_it_matters():
    x = f32(4, 70)
    assert only(nests(x.sum(axis=1))).order
    assert not only(nests((x > 0).astype("int32").sum(axis=1))).order


def test_what_is_computed_from_a_stored_value_costs_only_its_own_work():
    x = f32(40, 50)
    dear = mo.sigmoid(mo.sin(x))
    above = mo.exp(dear + 1.0) * dear
    windows = mo.reindex(above, (40, 40, 11), lambda i, j, k: (i, j + k))
    graph = after(recorded(windows.max(axis=2), dear.sum(axis=1)), ALL_PASSES)
    made = fuse(graph)
    made.stored |= {n for n in graph.nodes if getattr(n, "op", None) == "sigmoid"}
    made.dear = {n for n in made.stored if isinstance(n, Elementwise)}
    costs: dict[str, float] = {}
    cheap_again(graph, made, lambda node, price: costs.setdefault(node.op, price.again) < 0)
    assert costs["mul"] < costs["sigmoid"]
    again: dict[str, float] = {}
    cheap_again(graph, made, lambda node, price: again.setdefault(node.op, price.again) >= 0)
    assert again["mul"] > costs["mul"] + costs["sigmoid"]


def test_a_mask_under_a_reduction_becomes_its_guard():
    # The gradient of a window: where the gather fills with 0 the sum has nothing to do.
    y = f32(6, 3)
    nest = only(nests(mo.reindex_reduce(y, "add", (8,), lambda i, j: (i + j,))))
    assert nest.guard != ("true",)
    assert_computes_definition(mo.reindex_reduce(y, "add", (8,), lambda i, j: (i + j,)))


def test_a_load_below_two_masks_keeps_both():
    # take(pad(x), index): the outer gather replaced the mask of the inner one by its own, read
    # outside x and returned what lay there.
    x, at = f32(2, 4), mo.array(np.array([0, 3, 1, 2]))
    padded = mo.reindex(x, (4, 6), lambda i, j: (i - 1, j - 1))
    assert_counts(1, mo.take(padded, at, axis=0))
    sevens = mo.reindex(x, (4, 6), lambda i, j: (i - 1, j - 1), fill=7.0)
    assert_counts(1, mo.take(sevens, at, axis=0))
    assert_counts(1, mo.reindex(sevens, (6, 6), lambda i, j: (i - 1, j), fill=5.0))


# --- merge_copies ---------------------------------------------------------------------------------


def merged(*results: mo.Var) -> tuple[int, int]:
    """The number of nests before and after copies were merged away."""
    made = fuse(after(recorded(*results), ALL_PASSES))
    before = len(made.nests)
    return before, len(merge_copies(made).nests)


def test_a_thousand_row_assignments_copy_no_matrix():
    x = mo.zeros((50, 4))
    for k in range(1, 50):
        x[k] = float(k)
    found = nests(x)
    assert sum(n.iterations for n in found) <= 50 * 4 + 49 * 4
    assert_computes_definition(x)


def test_a_copy_of_an_input_is_kept():
    x = f32(4, 3)
    y = mo.concat([x])
    y[1:2] = 1.0
    before, behind = merged(y)
    assert before == behind
    assert_computes_definition(y)


def test_a_copy_of_what_is_read_later_is_kept():
    x = f32(4, 3)
    base = mo.concat([x, x])  # stored: two pieces
    changed = mo.concat([base[:2] * 3.0, base[2:]])
    assert_computes_definition(changed, base)
    assert_computes_definition(changed + base)


def test_a_box_that_reads_what_it_overwrites_keeps_the_copy():
    x = mo.zeros((6,))
    x[0:3] = f32(3)
    x[1:5] = x[0:4] + 1.0
    assert_computes_definition(x)
    y = mo.zeros((6,))
    y[0:3] = f32(3)
    y[::-1] = y * 2.0
    assert_computes_definition(y)


def test_a_value_that_was_overwritten_in_place_is_computed_again():
    # The history of x keeps stored values for backward; the sum's memory held the assigned row.
    x = mo.Var(np.ones((3, 4), np.float32), requires_grad=True)
    total = x.sum(axis=1)
    y = mo.concat([total])
    y[0] = 99.0
    z = mo.concat([y])
    z[1] = 55.0
    np.testing.assert_array_equal(z.numpy(), [99, 55, 4])
    np.testing.assert_array_equal(y.numpy(), [99, 4, 4])
    np.testing.assert_array_equal(total.numpy(), [4, 4, 4])


def test_merging_takes_the_role_of_the_output():
    x = mo.zeros((5, 4))
    x[0:2] = 1.0
    x[3:4] = 2.0
    made = fused(x)
    out = only([b for b in made.buffers if b.role == "out"])
    assert {n.target for n in made.nests} == {out}


# --- odds and ends --------------------------------------------------------------------------------


def test_an_empty_reduction_is_a_constant():
    found = only(nests(mo.zeros((3, 0)).sum(axis=1)))
    assert not found.reads
    assert_computes_definition(mo.zeros((3, 0)).sum(axis=1))


def test_empty_results_take_no_nest():
    assert nests(mo.zeros((0, 3)) + 1.0) == []


def test_fusion_does_not_depend_on_the_order_of_recording():
    a, b = f32(4, 5), f32(4, 5)
    one = mo.exp(a).sum(axis=1) * mo.tanh(b).sum(axis=1)
    right = mo.tanh(b).sum(axis=1)
    two = mo.exp(a).sum(axis=1) * right
    assert len(nests(one)) == len(nests(two))


def test_every_stored_node_is_written_by_some_nest():
    x = f32(3, 4)
    graph = after(recorded((mo.exp(x).sum(axis=0) / 2.0).max(), x.T @ x), ALL_PASSES)
    made = pipeline.fuse_graph(graph)
    written = {n.target for n in made.nests}
    assert written == {b for b in made.buffers if b.role != "in"}
    assert all(
        isinstance(n, Elementwise | Reindex | ReindexReduce) for n in choose_stores(graph)[0]
    )


def test_nests_of_an_earlier_choice_are_those_that_would_be_made_anew():
    """Of a training step whose reductions are split, with more and more values inlined."""
    mo.manual_seed(0)
    net = mo.nn.models.LeNetBN()
    x, labels = mo.ones(8, 1, 28, 28), mo.zeros(8, dtype=mo.int64)
    loss = mo.nn.functional.cross_entropy(net(x), labels)
    graph = after(recorded(loss, *mo.grad(loss, list(net.parameters()))), ALL_PASSES)
    earlier, dear = fuse(graph), sorted(fuse(graph).dear, key=lambda node: node.sequence)
    assert dear
    for count in (1, len(dear) // 2, len(dear)):
        inlined = frozenset(dear[:count])
        anew, again = fuse(graph, inlined), fuse(graph, inlined, earlier)
        assert [nest.show() for nest in again.nests] == [nest.show() for nest in anew.nests]
        assert [b.name for b in again.buffers] == [b.name for b in anew.buffers]
        for one, other in zip(again.nests, anew.nests):
            assert (one.parts, one.lanes, one.order, one.reads_at) == (
                other.parts, other.lanes, other.order, other.reads_at)  # fmt: skip
            assert all(again.place[n] is one.target for n in one.nodes[-1:])
        earlier = again
