"""The schedule: which loops merge, which one is a vector, tiles, chunks, and the loops as text."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler import pipeline
from metaop.compiler.loops import LANES, For, Grid, Kernel, Let, show_kernel, statements, verify
from metaop.compiler.nest import Tree
from metaop.compiler.schedule import MOST_CHUNKS, SMALL_WORK, Scheduled, schedule
from metaop.compiler.schedule.collapse import collapse
from metaop.compiler.schedule.levels import MOST_ACCUMULATORS
from metaop.graph import pending
from tests.compiler.stages import (
    ALL_PASSES,
    after,
    input_values,
    machine_values,
    nests,
    only,
    printed_values,
    recorded,
    reference_values,
    scheduled,
)
from tests.golden import assert_golden

SCHEDULER = import_module("metaop.compiler.schedule.scheduler")
SPLIT_MODULE = import_module("metaop.compiler.passes.split")


def f32(*shape: int) -> mo.Var:
    count = int(np.prod(shape))
    return mo.array((np.arange(count, dtype=np.float32) % 23 - 11).reshape(shape) / 8)


def trained(*shape: int) -> mo.Var:
    x = f32(*shape)
    x.requires_grad = True
    return x


def kernel_of(*results: mo.Var) -> Scheduled:
    return only(scheduled(*results))


def texts(*results: mo.Var) -> str:
    return "\n".join(show_kernel(s.kernel) for s in scheduled(*results))


def loops(kernel: Kernel, how: str) -> list[For]:
    return [s for s in statements(kernel.body) if isinstance(s, For) and s.how == how]


def grid(kernel: Kernel) -> Grid:
    return only([s for s in statements(kernel.body) if isinstance(s, Grid)])


def convolution() -> tuple[mo.Var, mo.Var, mo.Var]:
    """Image, filter, and a number whose gradient is another image for the backward pass."""
    x, w = trained(2, 3, 12, 12), trained(8, 3, 3, 3)
    return x, w, (mo.conv2d(x, w, stride=2, padding=1) * f32(2, 8, 6, 6)).sum()


def assert_computes_definition(*results: mo.Var) -> None:
    graph, inputs = recorded(*results), input_values(*results)
    ready = after(graph, ALL_PASSES)
    want = reference_values(graph, inputs)
    for values in (printed_values(ready, inputs), machine_values(ready, inputs)):
        for got, wanted in zip(values, want, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-5)


# --- collapse -------------------------------------------------------------------------------------


def collapsed(x: mo.Var) -> tuple[list[int], int]:
    nest = collapse(only(nests(x)))
    return nest.extents, nest.rank


def test_a_contiguous_map_is_one_loop():
    assert collapsed(f32(4, 5, 6) + 1.0) == ([120], 1)


def test_loops_of_extent_one_disappear():
    assert collapsed(f32(1, 5, 1) + 1.0) == ([5], 1)


def test_a_broadcast_row_keeps_its_loop():
    assert collapsed(f32(4, 5, 6) + f32(6)) == ([20, 6], 2)


def test_a_transposed_operand_keeps_both_loops():
    assert collapsed(f32(4, 5) + mo.transpose(f32(5, 4))) == ([4, 5], 2)


def test_reduced_loops_merge_among_themselves():
    assert collapsed(f32(4, 5, 6).sum(axis=(1, 2))) == ([4, 30], 1)


def test_a_result_loop_never_merges_with_a_reduced_one():
    assert collapsed(f32(4, 5).sum(axis=1)) == ([4, 5], 1)


def test_a_loop_in_a_condition_stays():
    x = mo.reindex(f32(4, 5), (4, 5), lambda i, j: (i, j), where=lambda i, j: i < 2)
    assert collapsed(x) == ([4, 5], 2)


def test_channel_statistics_keep_the_channel():
    assert collapsed(f32(2, 3, 4, 5).sum(axis=(0, 2, 3))) == ([3, 2, 20], 1)


def test_collapsing_everything_leaves_one_evaluation():
    assert collapsed(f32(1, 1) + 1.0) == ([], 0)
    assert_computes_definition(f32(1, 1) + 1.0)


# --- the vector loop ------------------------------------------------------------------------------


def vector_extent(x: mo.Var) -> int:
    nest = collapse(only(nests(x)))
    return nest.extents[only(loops(kernel_of(x).kernel, "vector")).loop]


def test_the_vector_runs_along_the_unit_stride():
    assert vector_extent(f32(40, 48) + f32(48)) == 48


def test_a_row_sum_runs_along_the_row():
    assert vector_extent(f32(40, 48).sum(axis=1)) == 48


def test_a_column_sum_runs_along_the_row_too():
    assert vector_extent(f32(40, 48).sum(axis=0)) == 48


def test_matmul_runs_along_the_columns_of_the_result():
    assert vector_extent(f32(20, 33) @ f32(33, 48)) == 48


def test_matmul_with_a_transpose_runs_along_the_common_unit_stride():
    assert vector_extent(f32(20, 48) @ mo.transpose(f32(33, 48))) == 48


def test_a_single_row_times_a_matrix_runs_along_the_matrix_s_unit_stride():
    """Down the columns 4096 x 4096 took 61 ms, along them 5.5."""
    assert vector_extent(f32(1, 33) @ f32(33, 48)) == 48
    assert vector_extent(f32(1, 48) @ mo.transpose(f32(33, 48))) == 48
    assert vector_extent(mo.transpose(f32(33, 48))[:, None, :].sum(axis=2)) == 48


def test_a_transposed_copy_has_one_side_that_is_not_unit_stride():
    assert vector_extent(mo.transpose(f32(64, 48)) * 1.5) in (48, 64)


def test_channel_statistics_after_a_dense_layer_run_over_channels():
    assert vector_extent(((f32(64, 48) - f32(48)) ** 2).sum(axis=0)) == 48


def test_a_short_innermost_loop_is_no_good_vector():
    # 3 of 16 lanes used along the last axis; the axis before it is long.
    assert vector_extent(f32(256, 3).sum(axis=1)) == 256


# --- tiles ----------------------------------------------------------------------------------------


def tile_count(x: mo.Var) -> int:
    sizes = kernel_of(x).kernel.extents.values()
    return int(np.prod(list(sizes)))


def test_matmul_holds_several_results_in_registers():
    assert 4 <= tile_count(f32(64, 64) @ f32(64, 64)) <= MOST_ACCUMULATORS


@pytest.mark.parametrize("x", [lambda: f32(40, 48) * 2.0, lambda: f32(40, 3).sum(axis=1)])
def test_maps_and_very_short_sums_have_no_tiles(x):
    assert tile_count(x()) == 1


@pytest.mark.parametrize("rows", [2, 5, 7, 9, 11, 13, 17, 31])
def test_a_tile_that_does_not_divide_its_loop_overlaps_the_one_before(rows):
    product = f32(rows, 20) @ f32(20, 19)
    kernel = kernel_of(product).kernel
    starts = [s for s in statements(kernel.body) if isinstance(s, Let) and s.name[0] == "s"]
    tiles = [n for n in kernel.extents.values() if rows % n]
    assert len(starts) == len(tiles)
    assert_computes_definition(product)


def test_a_named_index_is_never_spread_over_lanes():
    # sum(take(table, at)): the tile over rows made the index a list of lanes, which no printer
    # could use inside another index.
    at = mo.array(np.array([2, 0, 1, 1, 2, 0, 2, 1]))
    assert_computes_definition(mo.abs(mo.take(f32(3, 12), at, axis=0)).sum(axis=1))


# --- the grid -------------------------------------------------------------------------------------


def test_small_work_is_one_chunk():
    assert kernel_of(f32(SMALL_WORK - 1) * 2.0).chunks == 1


@pytest.mark.parametrize("shape", [(SMALL_WORK * 64,), (300, 700), (7, 300_000), (33, 33, 33)])
def test_large_work_is_32_to_64_chunks(shape):
    made = kernel_of(f32(*shape) + f32(shape[-1]))
    assert MOST_CHUNKS // 2 <= made.chunks <= MOST_CHUNKS


def test_chunks_are_cut_at_whole_vectors():
    made = kernel_of(f32(100_003) * 2.0)
    start = only(loops(made.kernel, "vector")).start
    assert start[0] == "mul"
    assert made.integers[start[2][1]] % LANES == 0


def test_the_number_of_chunks_depends_on_shapes_alone():
    def chunks() -> list[int]:
        return [s.chunks for s in scheduled(f32(100, 200) @ f32(200, 64))]

    found = []
    before = mo.get_num_threads()
    try:
        for count in (1, 2, 3):
            mo.set_num_threads(count)
            found.append(chunks())
    finally:
        mo.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_a_scatter_runs_in_parallel_over_its_plain_loops_only():
    at = mo.array(np.arange(50) % 7)
    y = f32(50, 40)
    out = mo.reindex_reduce(y, "add", (7, 40), ["@e0(i0)", "i1"], extras=[at])
    fill, scatter = scheduled(out)
    assert scatter.tree.nests[0].parallel == (0,)
    assert 0 not in grid(scatter.kernel).loops
    assert fill.tree.nests[0].op is None
    assert_computes_definition(out)


def test_a_colliding_scatter_runs_in_one_piece():
    at = mo.array(np.arange(40_000) % 7)
    out = mo.reindex_reduce(mo.ones((40_000,)), "add", (7,), ["@e0(i0)"], extras=[at])
    scatter = scheduled(out)[-1]
    assert grid(scatter.kernel).loops == ()
    assert loops(scatter.kernel, "vector") == []
    assert scatter.chunks == 1


# --- arguments of the kernel ----------------------------------------------------------------------


def test_long_extents_and_offsets_are_arguments():
    first, second = kernel_of(f32(1000)[5:] * 2.0), kernel_of(f32(1000)[7:] * 2.0)
    assert pipeline.kernel_key(first.kernel) == pipeline.kernel_key(second.kernel)
    assert set(first.integers.values()) >= {5, 995}
    assert set(second.integers.values()) >= {7, 993}


def test_extents_up_to_32_are_constants():
    first, second, third = (kernel_of(f32(n, 3).sum(axis=1)) for n in (32, 31, 33))
    assert first.integers == second.integers == {}
    assert pipeline.kernel_key(first.kernel) != pipeline.kernel_key(second.kernel)
    assert set(third.integers.values()) == {33}


def test_the_length_of_a_plain_map_is_an_argument_however_short():
    first, second = kernel_of(f32(1000) * 2.0), kernel_of(f32(7) * 2.0)
    assert pipeline.kernel_key(first.kernel) == pipeline.kernel_key(second.kernel)


def test_indices_beyond_32_bits_are_wide():
    assert kernel_of(mo.ones((4, 5)) + f32(5)).kernel.narrow
    far = mo.reindex(f32(8), (4, 40), lambda i, j: (i * 1_000_000_000 + j - 2_999_999_999,))
    assert not kernel_of(far).kernel.narrow
    assert_computes_definition(far)


# --- loops as text --------------------------------------------------------------------------------


def test_matmul_golden():
    assert_golden(texts(f32(60, 70) @ f32(70, 50)))


def test_matmul_with_a_tile_that_does_not_divide_golden():
    assert_golden(texts(f32(19, 9) @ f32(9, 20)))


def test_row_softmax_golden():
    assert_golden(texts(nn.functional.softmax(f32(64, 100), dim=1)))


def test_convolution_golden():
    assert_golden(texts(mo.conv2d(f32(2, 3, 12, 12), f32(8, 3, 3, 3), stride=2, padding=1)))


def test_convolution_gradient_of_the_image_golden():
    x, _, number = convolution()
    assert_golden(texts(*mo.grad(number, [x])))


def test_convolution_gradient_of_the_filter_golden():
    _, w, number = convolution()
    assert_golden(texts(*mo.grad(number, [w])))


def test_transposed_copy_golden():
    assert_golden(texts(mo.transpose(f32(40, 50)) * 2.0))


def test_gather_golden():
    at = mo.array(np.array([3, 0, 2]))
    assert_golden(texts(mo.take(f32(4, 40), at, axis=0)))


def test_scatter_golden():
    at = mo.array(np.array([3, 0, 2]))
    out = mo.reindex_reduce(f32(3, 40), "add", (4, 40), ["@e0(i0)", "i1"], extras=[at])
    assert_golden(texts(out))


def test_guarded_sum_golden():
    assert_golden(texts(mo.reindex_reduce(f32(50, 3), "add", (52,), lambda i, j: (i + j,))))


def channel_gradients(shape: tuple[int, ...]) -> list[mo.Var]:
    """The gradients of a normalised, squashed and pooled image, and of its scales and shifts."""
    count = shape[1]
    x, scale, shift = trained(*shape), trained(count), trained(count)
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    normal = (x - mean) / mo.sqrt(variance + 1.0)
    y = mo.sigmoid(normal * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1))
    pooled = nn.functional.avg_pool2d(y, 2)
    return mo.grad((pooled * f32(*pooled.shape)).sum(), [x, scale, shift])


def test_maps_run_in_the_loops_of_the_reductions_that_read_them_golden(monkeypatch):
    monkeypatch.setattr(SPLIT_MODULE, "SHORT", 256)
    graph = after(recorded(*channel_gradients((8, 40, 8, 8))), ALL_PASSES)
    trees = pipeline.group_graph(graph)[1].trees
    assert_golden(show_kernel(schedule(only([t for t in trees if isinstance(t, Tree)])).kernel))


def test_stages_that_run_backwards_and_divided_loops_change_no_bit():
    apart, together = [], []
    with mo.no_fuse():
        apart = [g.numpy() for g in channel_gradients((140, 40, 8, 8))]
    together = [g.numpy() for g in channel_gradients((140, 40, 8, 8))]
    for one, other in zip(apart, together):
        np.testing.assert_array_equal(one, other)


def test_a_sum_of_many_rows_golden():
    assert_golden(texts(f32(2048, 512).sum(axis=0)))


@pytest.mark.parametrize("shape", [(40, 70), (33, 5, 3), (64, 16)])
@pytest.mark.parametrize("op", ["sum", "max", "prod"])
def test_sums_of_rows_compute_the_definition(monkeypatch, shape, op):
    monkeypatch.setattr(SCHEDULER, "LEAST_ROW", 1)
    monkeypatch.setattr(SCHEDULER, "LEAST_ROWS", 1)
    y = getattr(mo, op)(f32(*shape) / 4, axis=0)
    assert " = identity" not in texts(y)  # no register holds a result
    assert_computes_definition(y)


def test_a_sum_of_many_rows_is_that_of_its_columns():
    x = np.random.default_rng(0).standard_normal((2100, 512)).astype(np.float32)
    total = mo.array(x).sum(axis=0).numpy()
    np.testing.assert_allclose(total, x.astype(np.float64).sum(axis=0), rtol=0, atol=1e-4)


def test_a_sum_of_many_rows_that_reads_another_one_waits_for_all_of_its_rows():
    # softmax(x, 1).reshape(-1, 256).sum(0): the sum of exp(x - m) was added up row by row in the
    # loop that found m, which had seen no more rows by then
    x = np.random.default_rng(0).standard_normal((24, 128, 256)).astype(np.float32)
    y = nn.functional.softmax(mo.array(x), 1).reshape(-1, 256)
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    expected = (e / e.sum(axis=1, keepdims=True)).sum(axis=(0, 1))
    np.testing.assert_allclose(y.sum(axis=0).numpy(), expected, rtol=1e-5)


# --- all of it ------------------------------------------------------------------------------------

SHAPES = [(1,), (3, 1), (17, 5), (33, 16), (2, 3, 15), (50, 31)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_schedule_is_valid_and_computes_the_definition(shape):
    x = f32(*shape)
    results = [
        x * 2.0,
        x.sum(axis=0),
        mo.max(x, axis=-1),
        mo.transpose(x) + 1.0,
        x.reshape(-1)[::-1] - 1.0,
        x.reshape(shape[0], -1) @ mo.transpose(x.reshape(shape[0], -1)),
    ]
    for made in scheduled(*results):
        verify(made.kernel)
    assert_computes_definition(*results)


@pytest.mark.parametrize(("rows", "past"), [(3, None), (2000, 0), (9000, 1)])
def test_a_result_that_is_larger_than_the_caches_goes_past_them(rows: int, past: int | None):
    values = np.arange(rows * 1000, dtype=np.float32).reshape(rows, 1000)
    y = mo.exp(mo.array(values).sync() * 1e-9)
    made = kernel_of(y)
    assert ("past the caches if past0" in show_kernel(made.kernel)) == (past is not None)
    assert made.integers.get("past0") == past
    np.testing.assert_allclose(y.numpy(), np.exp(values * np.float32(1e-9)), 1e-6)


def test_what_the_same_kernel_reads_again_stays_in_the_caches():
    x = mo.array(np.ones((9000, 1000), np.float32)).sync()
    e = mo.exp(x)
    (kernel,) = mo.explain(e, e / e.sum(1, keepdims=True)).kernels
    past = [line for line in kernel.source.splitlines() if "past the caches" in line]
    assert len(past) == 1 and "/" in past[0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "bool"])
@pytest.mark.parametrize("shape", [(16, 17), (17, 16), (33, 50), (15, 40), (40, 15), (3, 200)])
def test_transposes_are_turned_in_squares(shape: tuple[int, int], dtype: str):
    """Whole squares, their last one moved back to stay inside; rows too short for one; masks."""
    x = (np.arange(np.prod(shape)) % 251 - 100).reshape(shape).astype(dtype)
    np.testing.assert_array_equal(mo.transpose(mo.array(x)).astype("int64").numpy(), x.T)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2), (2, 3, 0, 1)])
def test_transposes_of_images_are_those_of_numpy(order: tuple[int, ...]):
    x = np.random.default_rng(0).standard_normal((3, 17, 9, 20)).astype(np.float32)
    np.testing.assert_array_equal(
        (mo.transpose(mo.array(x), order) * 2).numpy(), x.transpose(order) * 2
    )


def test_a_piece_is_read_from_memory_also_where_another_kernel_fills_the_rest():
    """`w[0] = b` and sin(w).sum() were one kernel, the rest of w another: the sum took b, the
    result of its kernel's only nest for w, for every element.  Random programs found it, in
    test_expressions."""
    c, b = mo.array([1.5]).sync(), mo.array(1.3).sync()
    w = mo.concat([c, c, c])
    w[0] = b
    nodes = [mo.sin(w).sum()._node, w._node]
    graph = pipeline.run_passes(pipeline.import_graph(pending(nodes), nodes))
    *_, box, total = pipeline.fuse_graph(graph).nests
    kernel = pipeline.schedule_nest(Tree(0, [box, total]), 0).kernel
    assert f"sin({box.target.name}[i0])" in show_kernel(kernel)


@pytest.mark.parametrize("reduce", [mo.max, mo.sum])
def test_what_repeats_all_its_operands_is_reduced_in_tiles_of_results(reduce):
    """Windows against weights, whatever combines them: each value read serves several results, none
    is laid out for the lanes of one."""
    x, w = f32(8, 16, 32, 32), f32(16, 16, 3, 3)
    n, o, i, j, c, r, s = mo.axes(8, 16, 30, 30, 16, 3, 3)
    result = reduce(abs(x[n, c, i + r, j + s] - w[o, c, r, s]), over=(c, r, s))
    kernel = kernel_of(result).kernel
    tile = [s for s in statements(kernel.body) if isinstance(s, For) and s.how == "unroll"]
    vectors = [s for s in statements(kernel.body) if isinstance(s, For) and s.how == "vector"]
    assert tile and not kernel.scratch
    assert [v.stop for v in vectors] == [30]
