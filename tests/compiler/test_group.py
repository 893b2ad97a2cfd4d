"""How many kernels things become, counted by the executor, and what those kernels touch."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop import life, nn
from metaop.compiler import group, programs
from metaop.compiler.executor import executor
from metaop.compiler.nest import Buffer
from metaop.compiler.program import Bound
from metaop.config import config
from metaop.extent import evaluate
from metaop.graph import pending
from tests.compiler.stages import only
from tests.helpers import python_value
from tests.strategies import compiled

LARGE = (64, 64, 56, 56)
ROWS = (8192, 1024)


def f32(*shape: int, seed: int = 0) -> mo.Var:
    return mo.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def program_of(asked: list[mo.Var]) -> Bound:
    """The program of these Vars and the recorded writes, not run."""
    nodes = [v._node for v in asked] + [w.new for w in life._writes]
    nodes = list(dict.fromkeys(nodes))
    return programs.program_for(pending(nodes), nodes)[0]


def launched(asked: list[mo.Var]) -> tuple[int, Bound]:
    """How many kernels computing these Vars and the recorded writes launches, and their program."""
    program = program_of(asked)
    before = executor().launch_count
    mo.sync()
    return executor().launch_count - before, program


def contractions_in(program: Bound) -> int:
    """Launches that sum products; what packs their operands is named after them."""
    return sum(
        any(n.contraction for n in la.tree.nests) and "_" not in la.kernel.name
        for la in program.launches
    )


def check_one_kernel(asked: list[mo.Var], large: set[int], chunks: int = 32) -> None:
    """One launch of one root; buffers of `large` sizes read and written, no such temporary."""
    count, program = launched(asked)
    assert count == len(program.launches) == 1
    launch = only(program.launches)
    biggest = max(large)
    buffers = [*launch.tree.reads, *launch.tree.writes]
    sizes = {evaluate(buffer.size, program.sizes) for buffer in buffers}
    touched = {size for size in sizes if size * 4 > biggest}
    assert touched <= large, touched
    temporaries = [evaluate(t.nbytes, program.sizes) for t in program.program.temporaries]
    assert not [nbytes for nbytes in temporaries if nbytes >= biggest]
    assert launch.scratch < min(2 * biggest, 1 << 19)
    assert chunks <= launch.chunks <= 64


# --- normalisations -------------------------------------------------------------------------------


def batch_norm_forward(shape: tuple[int, ...]) -> list[mo.Var]:
    x = f32(*shape).requires_grad_()
    net = nn.Sequential(nn.BatchNorm2d(shape[1]), nn.ReLU())
    mo.sync()
    return [net(x)]


def batch_norm_backward(shape: tuple[int, ...]) -> list[mo.Var]:
    x = f32(*shape).requires_grad_()
    net = nn.Sequential(nn.BatchNorm2d(shape[1]), nn.ReLU())
    upstream = f32(*shape, seed=1)
    y = net(x)
    mo.sync()
    return list(mo.grad((y * upstream).sum(), [x, *net.parameters()], retain_graph=False))


@pytest.mark.parametrize("make", [batch_norm_forward, batch_norm_backward])
def test_batch_norm_and_relu_with_running_statistics_are_one_kernel(make: Callable) -> None:
    size = int(np.prod(LARGE))
    check_one_kernel(make(LARGE), {size})


@pytest.mark.parametrize("shape", [(256, 8, 12, 12), (256, 16, 8, 8)])
@pytest.mark.parametrize("make", [batch_norm_forward, batch_norm_backward])
def test_batch_norm_of_few_channels_is_one_kernel(make: Callable, shape: tuple[int, ...]) -> None:
    """Little work: one iteration per channel is enough to share out."""
    check_one_kernel(make(shape), {int(np.prod(shape))}, chunks=shape[1])


@pytest.mark.parametrize("shape", [(64, 3, 128, 128), (256, 6, 24, 24)])
@pytest.mark.parametrize("make", [batch_norm_forward, batch_norm_backward])
def test_batch_norm_of_few_channels_and_much_work_is_split(
    make: Callable, shape: tuple[int, ...]
) -> None:
    count, program = launched(make(shape))
    assert count > 1
    size = np.prod(shape)
    assert all(la.chunks >= 32 for la in program.launches if la.tree.iterations >= size)


@pytest.mark.parametrize("features", [120, 84])
def test_batch_norm_after_a_dense_layer_is_one_kernel(features: int) -> None:
    x = f32(256, features).requires_grad_()
    net = nn.Sequential(nn.BatchNorm1d(features), nn.Sigmoid())
    mo.sync()
    count, _ = launched([net(x)])
    assert count == 1


def test_softmax_is_one_kernel() -> None:
    size = int(np.prod(ROWS))
    check_one_kernel([nn.functional.softmax(f32(*ROWS), 1)], {size})


def test_row_normalisation_is_one_kernel() -> None:
    size = int(np.prod(ROWS))
    norm = nn.LayerNorm(ROWS[1])
    mo.sync()
    check_one_kernel([norm(f32(*ROWS))], {size})


@pytest.mark.parametrize("shape", [ROWS, (256, 10)])
def test_log_softmax_and_picking_labels_are_one_kernel_each_way(shape: tuple[int, int]) -> None:
    x = f32(*shape).requires_grad_()
    labels = mo.array(np.random.default_rng(1).integers(0, shape[1], shape[0]))
    loss = nn.functional.cross_entropy(x, labels)
    count, program = launched([loss])
    assert count == 1
    written = only(program.launches).tree.writes[0]
    assert evaluate(written.size, program.sizes) <= shape[0]
    (gradient,) = mo.grad(loss, [x], retain_graph=False)
    count, program = launched([gradient])
    assert count == 1
    if shape is ROWS:
        assert only(program.launches).chunks >= 32


# --- chains and epilogues -------------------------------------------------------------------------


def test_a_chain_of_45_operators_is_one_kernel() -> None:
    x = f32(512, 1000)
    y = x
    for k in range(15):
        y = mo.tanh(y) * 0.9 + float(k)
    check_one_kernel([y], {512 * 1000})


def test_convolution_bias_and_relu_are_one_kernel() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    mo.sync()
    with mo.no_grad():
        y = nn.functional.relu(conv(f32(8, 3, 32, 32)))
    count, program = launched([y])
    assert count <= 2
    assert contractions_in(program) == 1


def test_flatten_between_convolution_and_linear_is_no_kernel() -> None:
    conv, linear = nn.Conv2d(3, 8, 3), nn.Linear(8 * 30 * 30, 10)
    mo.sync()
    with mo.no_grad():
        h = conv(f32(4, 3, 32, 32))
        count, program = launched([linear(h.reshape(4, -1))])
    contractions = contractions_in(program)
    assert contractions == 2
    assert count - contractions <= 2  # packing alone


def test_concat_of_two_convolutions_copies_neither() -> None:
    one, two = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 5, 3)
    mo.sync()
    x = f32(4, 3, 32, 32)
    with mo.no_grad():
        y = mo.concat([one(x), two(x)], 1)
    _, program = launched([y])
    assert contractions_in(program) == 2
    assert all(any(n.contraction for n in la.tree.nests) for la in program.launches[-2:])
    temporaries = [evaluate(t.nbytes, program.sizes) for t in program.program.temporaries]
    assert max(temporaries, default=0) < 4 * 4 * 5 * 900
    config.fuse = False
    try:
        with mo.no_grad():
            apart = mo.concat([one(x), two(x)], 1).numpy()
    finally:
        config.fuse = True
    assert (y.numpy() == apart).all()


def large_writes(program: Bound) -> list[int]:
    """Sizes of the buffers of more than 64 elements that a program's kernels write."""
    written = [b for launch in program.launches for b in launch.tree.writes]
    sizes = [evaluate(buffer.size, program.sizes) for buffer in written]
    return [size for size in sizes if size > 64]


def test_dropout_writes_no_mask() -> None:
    x = f32(256, 4096).requires_grad_()
    y = nn.functional.dropout(x * 1.5, 0.5, training=True)
    _, program = launched([y])
    assert large_writes(program) == [x.numel()]
    (gradient,) = mo.grad((y * y).sum(), [x], retain_graph=False)
    _, program = launched([gradient])
    assert large_writes(program) == [x.numel()]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_an_optimiser_step_is_one_phase_of_one_kernel(optimizer: str) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if optimizer == "SGD" else {}
    shapes = [(40, 30), (50,), (33, 3, 5, 5), (7,), (1000,)]
    parameters = [nn.Parameter(f32(*shape)) for shape in shapes]
    opt = getattr(nn.optim, optimizer)(parameters, lr=0.1, **options)
    for _ in range(2):
        for p in parameters:
            p.grad = f32(*p.shape, seed=2)
        opt.step()
    runs = {id(p): p.runs for p in programs._programs.values()}
    for p in parameters:
        p.grad = f32(*p.shape, seed=3)
    opt.step()
    program = only([p for p in programs._programs.values() if p.runs != runs[id(p)]])
    (segment,) = program.segments
    assert len(segment) == 1
    assert len(program.launches) == len(shapes)
    assert len({launch.key for launch in program.launches}) == 1


# --- what is computed does not change -------------------------------------------------------------


def test_trees_compute_what_separate_nests_compute_bit_for_bit() -> None:
    """The order in which a reduction adds up belongs to its nest, not to its kernel."""

    def results() -> list[np.ndarray]:
        x = f32(32, 48, 14, 14).requires_grad_()
        net = nn.Sequential(nn.BatchNorm2d(48), nn.Sigmoid(), nn.AvgPool2d(2))
        y = net(x)
        rows = nn.functional.softmax(f32(300, 77), 1)
        loss = (y * y).mean() + nn.functional.cross_entropy(
            f32(64, 10).requires_grad_(), mo.array(np.arange(64) % 10)
        )
        grads = mo.grad(loss, [x, *net.parameters()], retain_graph=False)
        return [v.numpy() for v in (rows, y, loss, *grads)]

    together = results()
    config.fuse = False
    try:
        apart = results()
    finally:
        config.fuse = True
    for a, b in zip(together, apart, strict=True):
        assert (a == b).all()


# --- pieces of one buffer -------------------------------------------------------------------------


def test_what_reads_results_around_its_own_is_not_made_in_their_loops() -> None:
    """The gradient of a maximum over windows asks for the winner of every window around.  It ran in
    the loops of that search, as both walk over x, and took the winner of its own window for all."""
    x, g = f32(2, 128, 3, 3).numpy(), f32(2, 128, 3, 3, seed=1).numpy()
    a = mo.array(x, requires_grad=True)
    found = mo.grad((mo.max_pool2d(a, 3, 1, 1) * mo.array(g)).sum(), a).numpy()
    want = np.zeros_like(x)
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    for n, c, i, j in np.ndindex(x.shape):
        r, q = np.unravel_index(wide[n, c, i : i + 3, j : j + 3].argmax(), (3, 3))
        want[n, c, i + r - 1, j + q - 1] += g[n, c, i, j]
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)


def test_boxes_of_one_buffer_share_the_loops_that_both_span() -> None:
    x, y = f32(40, 24), f32(40, 8)
    joined = mo.concat([nn.functional.softmax(x, 1), y * 2], 1)
    (tree,) = (launch.tree for launch in program_of([joined]).launches)
    assert tree.root == 1 and len(tree.writes) == 1
    want = np.concatenate([nn.functional.softmax(x, 1).numpy(), y.numpy() * 2], 1)
    np.testing.assert_array_equal(joined.numpy(), want)


def test_a_row_of_dear_pieces_lives_within_its_iteration() -> None:
    x, y = f32(40, 24), f32(40, 8)
    total = mo.concat([mo.lgamma(x), mo.lgamma(y)], 1).sum(1)
    (tree,) = (launch.tree for launch in program_of([total]).launches)
    assert [b.size for b in {n.target for n in tree.nests} if b.role == "local"] == [32]
    want = mo.lgamma(x).numpy().sum(1) + mo.lgamma(y).numpy().sum(1)
    np.testing.assert_allclose(total.numpy(), want, rtol=1e-5)


def test_boxes_that_overlap_are_filled_in_order() -> None:
    """Rows 0 to 29 of one box and rows 10 to 39 of the other may not be filled side by side."""
    x = f32(30, 24)
    y = mo.lgamma(x)
    z = mo.zeros(40, 24)
    z[:30] = y
    z[10:] = 1 - y
    want = np.zeros((40, 24), np.float32)
    want[:30] = y.numpy()
    want[10:] = 1 - y.numpy()
    np.testing.assert_array_equal(z.numpy(), want)


# --- loops that follow their readers --------------------------------------------------------------


def test_rows_are_computed_where_a_pad_a_slice_a_flip_or_a_reshape_reads_them() -> None:
    x = f32(300, 96)
    p = nn.functional.softmax(x, 1)
    for y in (mo.pad(p, 1), p[1:-1] * 2, p[::2] * 2, mo.flip(p, 0) * 2, p.reshape(150, 192) * 2):
        assert len(mo.explain(y).kernels) == 1


def test_rows_that_something_else_reads_are_computed_for_all() -> None:
    x = f32(300, 96)
    total = x.sum(1)
    largest = mo.exp(x - total[:, None]).max(1)
    assert len(mo.explain(total[3:] + largest[3:], total).kernels) == 2


def test_loops_that_do_not_follow_from_an_index_by_division_are_not_followed() -> None:
    """Every third row of a padded column: index 3 * i + j - 1, and j is not (index + 1) % 2."""
    x = f32(6, 5)
    y = moved(
        ("slice", 1, 3), moved(("pad", 1, 0), rows_of("centred", x, mo).max(1)[:, None], mo), mo
    )
    want = np.pad(rows_of("centred", x.numpy(), np).max(1)[:, None], 1, constant_values=0.5)
    with mock.patch.multiple(group, SMALL_WORK=0, LITTLE_WORK=0, ENOUGH_ITEMS=2):
        np.testing.assert_allclose(python_value(y * 1.0, grouped=True), want[1:-1:3, :2], rtol=1e-5)


def test_a_transposed_array_is_summed_as_the_array_lies() -> None:
    image = f32(40, 32, 20, 20)
    last = mo.transpose(image, (0, 2, 3, 1))
    y = mo.transpose(nn.functional.layer_norm(last, (32,)), (0, 3, 1, 2))
    (launch,) = program_of([y]).launches
    assert not any(nest.lanes for nest in launch.tree.nests)
    assert len(mo.explain(nn.functional.softmax(f32(300, 96).T, 0)).kernels) == 1


def rows_of(kind: str, x: Any, xp: Any) -> Any:
    match kind:
        case "softmax":
            e = xp.exp(x - x.max(1, keepdims=True))
            return e / e.sum(1, keepdims=True)
        case "centred":
            return x - x.mean(1, keepdims=True)
        case "sums":
            return x.sum(1)[:, None] * 2


def moved(move: Any, y: Any, xp: Any) -> Any:
    match move:
        case ("pad", before, after):
            return xp.pad(y, [(before, after)] * y.ndim, constant_values=0.5)
        case ("slice", first, step):
            return y[first::step] if len(y) > first else y
        case ("flip", axis):
            return xp.flip(y, axis % y.ndim)
        case ("transpose",):
            return y.T
        case ("roll", shift):
            return xp.roll(y, shift, 0)
        case ("join", axis):
            return xp.concat([y, y * 2], axis % y.ndim)
        case ("stack",):
            return xp.stack([y, y + 1, 1 - y], 1)
        case ("split", k):
            n = y.shape[0]
            return y.reshape(n // k, k, *y.shape[1:]) if n % k == 0 else y
        case ("flat",):
            return y.reshape(-1)
        case ("centre",):
            return y - y.mean(0, keepdims=True)
        case ("sum", axis):
            return y.sum(axis % y.ndim, keepdims=True)
    return y


MOVES = st.one_of(
    st.tuples(st.just("pad"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("slice"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("flip"), st.integers(0, 3)),
    st.tuples(st.just("transpose")),
    st.tuples(st.just("roll"), st.integers(-2, 2)),
    st.tuples(st.just("join"), st.integers(0, 1)),
    st.tuples(st.just("stack")),
    st.tuples(st.just("split"), st.integers(2, 3)),
    st.tuples(st.just("flat")),
    st.tuples(st.just("centre")),
    st.tuples(st.just("sum"), st.integers(0, 3)),
)


@settings(max_examples=int(os.environ.get("METAOP_EXAMPLES", "60")), deadline=None)
@given(
    st.sampled_from(["softmax", "centred", "sums"]),
    st.lists(MOVES, min_size=1, max_size=4),
    st.integers(4, 6),
)
def test_trees_of_moved_rows_are_numpys(rows: str, moves: list[Any], count: int) -> None:
    """Kernels as for large arrays: no work is too little to be kept apart."""
    x = f32(count, 5)
    want, got = rows_of(rows, x.numpy(), np), rows_of(rows, x, mo)
    for move in moves:
        if want.size < 500 and want.ndim < 5:
            want, got = moved(move, want, np), moved(move, got, mo)
    limits = {"SMALL_WORK": 0, "LITTLE_WORK": 0, "ENOUGH_ITEMS": 2}
    with mock.patch.multiple(group, **limits):
        value = python_value(got * 1.5, grouped=True)
        np.testing.assert_allclose(value, want * np.float32(1.5), rtol=2e-5, atol=1e-5)
        if compiled((rows, moves), 20):
            np.testing.assert_allclose((got * 1.5).numpy(), value, rtol=2e-5, atol=1e-5)


def test_boundaries_say_why() -> None:
    with mo.no_grad():
        h = nn.functional.conv2d(f32(8, 3, 32, 32), f32(8, 3, 3, 3))
        y = h - h.mean(axis=(0, 2, 3), keepdims=True)
    why = mo.explain(y).boundaries
    assert any("contraction" in b.reason for b in why)
    assert "boundaries" in mo.dump(y, "fused")


# --- what stands between two groups ---------------------------------------------------------------


def searched(grouping: group._Grouping, one: group._Group, other: group._Group) -> bool:
    """The definition: a path from inside over something outside back, whole groups at a time."""
    inside = {*one.all_nests, *other.all_nests}
    stack = [n for nest in inside for n in grouping.after[nest] if n not in inside]
    seen = set()
    while stack:
        item = stack.pop()
        if item in inside:
            return True
        if item not in seen:
            mates = [item, *grouping.group_of[item].all_nests]
            seen.update(mates)
            stack.extend(n for mate in mates for n in grouping.after[mate])
    return False


def test_many_single_numbers_are_several_kernels() -> None:
    """600 of them were one kernel, and four times as long to compile as 300."""
    numbers = [(f32(3, seed=k) * (k + 3.25)).sum() for k in range(100)]
    program = program_of([sum(numbers[1:], numbers[0])])
    assert len(program.launches) > 4
    assert max(len(n.tree.all_nests) for n in program.launches) <= group.LARGEST_TREE


def test_what_stands_between_two_groups_is_found_by_sets_as_by_search(
    monkeypatch: pytest.MonkeyPatch,
):
    answers: list[bool] = []

    def compared(
        grouping: group._Grouping, one: group._Group, other: group._Group
    ) -> Buffer | None:
        found = by_sets(grouping, one, other)
        answers.append(found is not None)
        assert answers[-1] == searched(grouping, one, other)
        return found

    by_sets = group._Grouping.between
    monkeypatch.setattr(group._Grouping, "between", compared)
    monkeypatch.setattr(config, "cache", "off")
    programs.forget()
    net = nn.models.LeNetBN()
    images, labels = f32(64, 1, 28, 28), mo.array(np.arange(64) % 10)
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    optimizer.step(nn.functional.cross_entropy(net(images), labels))
    mo.sync()
    assert answers.count(True) > 20 and answers.count(False) > 100
