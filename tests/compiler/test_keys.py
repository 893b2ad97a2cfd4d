"""Keys: one program for all sizes of the dynamic axes; sameness by origin, never by number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numba.core import event

import metaop as mo
from metaop import nn
from metaop.compiler import pipeline, programs
from metaop.compiler.keys import canonical, kernel_key, structure_of
from metaop.extent import Extent, standard_hint
from metaop.graph import pending
from metaop.stages import Stages

pytestmark = pytest.mark.usefixtures("no_disk_cache")
RNG = np.random.default_rng(3)
SIZES = (256, 96, 200, 65, 64, 17, 16, 11, 10, 7, 6, 3, 2)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def key_of(*results: mo.Var) -> Any:
    """The key without sizes of pending Vars."""
    roots = [v._node for v in results]
    return canonical(pending(roots), roots).key


def key_with_sizes(*results: mo.Var) -> Any:
    roots = [v._node for v in results]
    return structure_of(pending(roots), roots)[0]


@contextmanager
def numba_compilations() -> Iterator[list[int]]:
    """Counts, in a list of one number, how often Numba compiles something."""

    class Counter(event.Listener):
        def on_start(self, event: Any) -> None:
            count[0] += 1

        def on_end(self, event: Any) -> None:
            pass

    count, listener = [0], Counter()
    event.register("numba:compiler_lock", listener)
    try:
        yield count
    finally:
        event.unregister("numba:compiler_lock", listener)


# --------------------------------------------------------------------------------------- networks


def small_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))


def small_convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(16 * 4, 10),
    )  # fmt: skip


class Attention(nn.Module):
    """One head split into four, with reshapes that merge and split the dynamic axes."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.out = nn.Linear(16, 10)

    def forward(self, x: mo.Var) -> mo.Var:
        b, t, d = x.shape
        q, k, v = mo.split(self.project(x.reshape(b * t, d)).reshape(b, t, 48), 3, axis=2)
        q, k, v = (a.reshape(b, t, 4, 4).permute(0, 2, 1, 3) for a in (q, k, v))
        weights = nn.functional.softmax(mo.matmul(q, k.swapaxes(2, 3)) * 0.5, dim=3)
        merged = mo.matmul(weights, v).permute(0, 2, 1, 3).reshape(b, t, d)
        return self.out(merged.mean(axis=1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (small_mlp, (20,)),
    "convolutional": (small_convolutional, (1, 8, 8)),
    "attention": (Attention, (5, 16)),
}


def gradients(net: nn.Module, rows: tuple[int, ...], batch: int) -> list[mo.Var]:
    """The loss of one step, its gradients and the new running statistics, pending."""
    x, y = mo.array(floats(batch, *rows)), mo.array(RNG.integers(0, 10, batch))
    loss = nn.functional.cross_entropy(net(x), y)
    weights = list(net.parameters())
    return [loss, *mo.grad(loss, weights, retain_graph=False)]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_batch_sizes_have_one_key(name: str) -> None:
    make, rows = NETWORKS[name]
    net = make()
    mo.sync()
    keys, with_sizes = [], set()
    for batch in (*SIZES, 1):
        step = gradients(net, rows, batch)
        keys.append(key_of(*step))
        with_sizes.add(key_with_sizes(*step))
        mo.sync()
    assert all(key == keys[0] for key in keys[:-1])
    assert keys[-1] != keys[0]
    assert len(with_sizes) == len(keys)


@pytest.mark.parametrize("name", NETWORKS)
def test_other_batch_sizes_compile_nothing_and_are_as_if_compiled_afresh(name: str) -> None:
    make, rows = NETWORKS[name]

    def losses(sizes: Sequence[int]) -> dict[int, bytes]:
        found = {}
        for batch in sizes:
            mo.manual_seed(batch)
            net, x, y = states[batch]
            net.load_state_dict(initial)
            optimizer = nn.optim.SGD(net.parameters(), lr=0.1 + batch / 1000, momentum=0.9)
            step = []
            for _ in range(2):
                loss = nn.functional.cross_entropy(net(mo.array(x)), mo.array(y))
                optimizer.step(loss)
                step.append(loss.numpy().tobytes())
            step += [p.numpy().tobytes() for p in net.parameters()]
            found[batch] = b"".join(step)
        return found

    mo.manual_seed(0)
    model = make()
    initial = {k: v.numpy() for k, v in model.state_dict().items()}
    batches = (256, 96, 200)
    states = {b: (model, floats(b, *rows), RNG.integers(0, 10, b)) for b in batches}
    pipeline.forget()
    with numba_compilations() as first:
        mine = losses(batches[:1])
    assert first[0] > 0
    before = pipeline.statistics.programs
    with numba_compilations() as later:
        mine |= losses(batches[1:])
    assert later == [0]
    assert pipeline.statistics.programs == before
    for batch in batches[1:]:
        pipeline.forget()
        assert losses([batch])[batch] == mine[batch]


def test_sizes_equal_to_other_extents_compile_nothing_that_others_had_not() -> None:
    pipeline.forget()
    net = small_convolutional()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

    def train(batch: int) -> None:
        x, y = mo.array(floats(batch, 1, 8, 8)), mo.array(RNG.integers(0, 10, batch))
        optimizer.step(nn.functional.cross_entropy(net(x), y))

    for batch in (65, 65, 17, 11, 7):
        train(batch)
    before = pipeline.statistics.programs
    with numba_compilations() as compiled:
        for batch in (64, 16, 10, 6):
            train(batch)
    assert compiled == [0]
    assert pipeline.statistics.programs == before


# ------------------------------------------------------------------------------------- what is key


def test_structure_is_part_of_the_key() -> None:
    def step(batch: int, width: int, op: Callable[[Any], Any]) -> mo.Var:
        return op(mo.array(floats(batch, width))).sum(axis=0)

    key = key_of(step(5, 8, mo.exp))
    assert key == key_of(step(50, 8, mo.exp))
    assert key != key_of(step(5, 9, mo.exp))
    assert key != key_of(step(5, 8, mo.log))


def test_a_dynamic_axis_is_marked() -> None:
    def step(batch: int, length: int, dynamic: bool) -> mo.Var:
        x = mo.array(floats(batch, length, 4))
        if dynamic:
            assert mo.dynamic(x, 1) is x
        return x.sum(axis=(0, 1))

    assert key_of(step(5, 7, True)) == key_of(step(6, 9, True)) == key_of(step(8, 8, True))
    assert key_of(step(5, 7, False)) != key_of(step(5, 9, False))
    x = floats(6, 9, 4)
    y = mo.dynamic(mo.array(x), (0, 1))
    np.testing.assert_allclose(y.sum(axis=(0, 1)).numpy(), x.sum((0, 1)), rtol=1e-5)


def test_rows_of_unequal_lengths_next_to_each_other_are_one_piece_of_machine_code() -> None:
    for shapes, axes, axis in (((100, 70), (60, 90)), (0, 1), 1), (((70,), (90,)), 0, 0):
        xs = [mo.dynamic(mo.array(floats(*shape)), axes) for shape in shapes]
        ys = [nn.functional.softmax(x, axis) for x in xs]
        steps = Stages([y._node for y in ys]).steps
        assert len(steps) >= 2
        assert 2 * len({kernel_key(step.kernel) for step in steps}) == len(steps)


def test_dynamic_keeps_a_leaf_and_refuses_history() -> None:
    w = mo.dynamic(mo.array(floats(3, 4), requires_grad=True), 1)
    (w * w).sum().backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), 2 * w.numpy())
    with pytest.raises(ValueError, match="made from what requires a gradient"):
        mo.dynamic(w * 2, 0)


def test_a_parameter_has_no_dynamic_axis() -> None:
    w = nn.Parameter(floats(8, 4))
    w2 = nn.Parameter(mo.array(floats(8, 4)) * 2)
    for parameter in (w, w2):
        assert all(type(n) is int for n in parameter.shape)
        parameter.data = floats(8, 4)
        assert all(type(n) is int for n in parameter.shape)
    assert type(mo.array(floats(8, 4)).shape[0]) is Extent


def test_what_meets_a_constant_is_constant() -> None:
    w = nn.Parameter(floats(8, 4))
    mo.sync()

    def scaled(x: mo.Var) -> mo.Var:
        return w * x  # x was data: its first axis can only be 8

    form = canonical(*_graph(scaled(mo.array(floats(8, 4)))))
    assert form.values == ()


def test_operands_share_their_symbol() -> None:
    a, b = mo.array(floats(5, 4)), mo.array(floats(5, 4))
    assert canonical(*_graph(a + b)).values == (5,)
    assert canonical(*_graph(mo.matmul(a, mo.array(floats(4, 3))))).values == (5,)
    c = mo.array(floats(6, 4))
    assert canonical(*_graph(mo.concat([a, c]))).values == (5, 6)
    assert canonical(*_graph(a + c[1:])).values == (5,)  # c's is one more
    assert canonical(*_graph(a[:2])).values == (5,)


def _graph(result: mo.Var) -> tuple[list, list]:
    return pending([result._node]), [result._node]


def test_a_seed_and_a_rate_are_no_part_of_a_key() -> None:
    x = mo.array(floats(6, 4))
    mo.manual_seed(1)
    mo.sync()
    first = key_of(mo.random.uniform((6, 4)) * x * 0.3)
    mo.sync()
    mo.manual_seed(2)
    assert first == key_of(mo.random.uniform((6, 4)) * x * 0.7)


# ------------------------------------------------------------------------------------------ guards


def test_sizes_that_break_a_guard_have_a_program_of_their_own() -> None:
    pipeline.forget()
    x = floats(300, 3)

    def tail(batch: int) -> np.ndarray:
        return mo.array(x[:batch])[5:].sum(axis=0).numpy()

    for batch in (300, 9, 8, 6):
        np.testing.assert_allclose(tail(batch), x[5:batch].sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(tail(5), np.zeros(3, np.float32))


def test_which_program_serves_a_size_depends_on_nothing_else() -> None:
    x, w = floats(40, 33), floats(33, 12)
    sizes = (40, 3, 2, 7, 5)

    def results(order: Sequence[int]) -> dict[int, bytes]:
        pipeline.forget()
        return {n: (mo.array(x[:n]) @ mo.array(w)).numpy().tobytes() for n in order}

    assert results(sizes) == results(sizes[::-1])


def test_long_axes_are_another_program() -> None:
    assert standard_hint(0) != standard_hint(1)
    short, long = (key_of(mo.array(floats(n, 2)).sum()) for n in (1024, 1025))
    assert short != long
    total = mo.array(np.ones(3_000_000, np.float32)).sum()
    assert float(total.item()) == 3_000_000


# -------------------------------------------------------------------------------- what is computed

CASES: dict[str, Callable[[mo.Var], mo.Var]] = {
    "slice": lambda x: x[1:-1, 2],
    "step": lambda x: x[::2],
    "backwards": lambda x: x[::-3, 1:],
    "last": lambda x: x[-1] + x[1],
    "flip": lambda x: mo.flip(x, 0) + x,
    "roll": lambda x: mo.roll(x, 3, 0),
    "roll flat": lambda x: mo.roll(x, 5),
    "tile": lambda x: mo.tile(x, (2, 1)),
    "repeat": lambda x: mo.repeat(x, 3, 0),
    "flatten": lambda x: x.reshape(-1) * 2,
    "to columns": lambda x: x.reshape(-1, 2).sum(axis=0),
    "transposed": lambda x: x.T @ x,
    "gram": lambda x: x @ x.T,
    "concat": lambda x: mo.concat([x, x[2:], x[:1]]),
    "pad": lambda x: mo.pad(x, ((2, 1), (0, 0)), "reflect"),
    "cumulative": lambda x: mo.tril(x @ x.T) @ x,
    "argmax": lambda x: mo.argmax(x, axis=0),
    "softmax over the batch": lambda x: nn.functional.softmax(x, dim=0),
    "variance": lambda x: mo.var(x, axis=0) + mo.mean(x),
    "gather": lambda x: x[mo.array([1, 0, 2])],
    "take from": lambda x: x[:, mo.array([1, 0])],
    "split": lambda x: mo.split(x, [2], axis=0)[1],
    "scatter": lambda x: x.reindex_reduce("add", (4, 3), lambda i, j: (i % 4, j)),
    "windows": lambda x: x.reindex((x.shape[0] - 2, 3, 3), lambda i, r, j: (i + r, j)).max(axis=1),
    "random": lambda x: mo.random.uniform(x.shape) + x,
    "index": lambda x: mo.index(x.shape, 0) + x,
    "full": lambda x: mo.full((x.shape[0], 2), 3.0) * x[:, :2],
    "long sum": lambda x: mo.tile(mo.abs(x), (1, 3000)).sum(),  # of one sign: nothing cancels
}


@pytest.mark.parametrize("name", CASES)
def test_all_sizes_of_an_axis_compute_what_each_computes_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (12, 4, 7, 40, 8, 3, 33)
    arrays = {n: floats(n, 3) if name != "to columns" else floats(n, 4) for n in sizes}

    def results() -> list[np.ndarray]:
        found = []
        for n in sizes:
            mo.manual_seed(n)
            found.append(CASES[name](mo.array(arrays[n])).numpy())
        return found

    pipeline.forget()
    together = results()
    made = len(programs._structures.values())
    monkeypatch.setattr(sys.modules["metaop.var"], "dynamic_shape", tuple)
    alone = results()
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    assert made <= 9, "hardly any size shares a program"
