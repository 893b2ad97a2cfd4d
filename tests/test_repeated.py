"""Steps that are made again: `optimizer.step(loss)` gives the same bits as a step that is recorded,
and is recorded wherever that could make a difference."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.build import reduce
from metaop.compiler import program, programs
from metaop.config import config
from metaop.graph import Elementwise, Scalar, _sequence, toposort
from metaop.repeated import Attempt

STEPS = 5


def data(seed: int = 0, batch: int = 6) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    return (
        mo.array(generator.standard_normal((batch, 4)).astype(np.float32)),
        mo.array(generator.integers(0, 3, batch)),
    )


def network() -> Any:
    mo.manual_seed(1)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Sigmoid(), nn.Linear(8, 3)
    )


def state_of(net: Any, optimizer: Any) -> list[bytes]:
    """The bits of all that a training changes."""
    own = [v for state in optimizer.state.values() for v in state.values()]
    values = [*net.state_dict().values(), *own]
    return [v.numpy().tobytes() if isinstance(v, mo.Var) else repr(v).encode() for v in values]


def trained(make: Callable[[Any], Any], change: Callable[[Any, int], None]) -> list[bytes]:
    net = network()
    optimizer = make(net)
    losses = []
    for k in range(STEPS):
        change(optimizer, k)
        x, t = data(k)
        loss = nn.functional.cross_entropy(net(x), t)
        optimizer.step(loss)
        losses.append(loss)
    return state_of(net, optimizer) + [loss.numpy().tobytes() for loss in losses]


def other_rates(optimizer: Any, k: int) -> None:
    optimizer.lr = 0.1 / (k + 1)


def decay_from_the_third(optimizer: Any, k: int) -> None:
    optimizer.param_groups[0]["weight_decay"] = 0.1 if k > 2 else 0.0


def rate_that_is_a_literal(optimizer: Any, k: int) -> None:
    optimizer.lr = (0.3, 0.5, 0.3, 1.0, 0.5)[k]


def two_groups(net: Any) -> Any:
    groups = [{"params": net[0].parameters(), "lr": 0.3}, {"params": net[4].parameters()}]
    return nn.optim.SGD(groups, lr=0.1, momentum=0.7)


OPTIMIZERS = {
    "sgd": lambda net: nn.optim.SGD(net.parameters(), lr=0.1),
    "nesterov": lambda net: nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "dampened": lambda net: nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, dampening=0.3),
    "adam": lambda net: nn.optim.Adam(net.parameters(), amsgrad=True),
    "adamw": lambda net: nn.optim.AdamW(net.parameters(), lr=0.01),
    "groups": two_groups,
}


CASES = [(name, other_rates) for name in OPTIMIZERS]
CASES += [("nesterov", decay_from_the_third), ("sgd", rate_that_is_a_literal)]


@pytest.mark.parametrize(("name", "change"), CASES)
def test_a_repeated_step_has_the_bits_of_a_recorded_one(
    name: str, change: Any, monkeypatch: pytest.MonkeyPatch
):
    repeated = trained(OPTIMIZERS[name], change)
    monkeypatch.setattr(config, "repeat", False)
    assert repeated == trained(OPTIMIZERS[name], change)


@pytest.fixture
def repeats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each step was a repeated one."""
    found: list[bool] = []
    programs.steps.clear()
    plain = Attempt.repeat

    def repeat(self: Attempt, *args: Any) -> bool:
        found.append(plain(self, *args))
        return found[-1]

    monkeypatch.setattr(Attempt, "repeat", repeat)
    yield found


def test_the_second_step_records_the_forward_pass_and_one_rule(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    counts = []
    for k in range(4):
        x, t = data(k)
        before = next(_sequence)
        loss = nn.functional.cross_entropy(net(x), t)
        forward = next(_sequence)
        optimizer.step(loss)
        counts.append((forward - before, next(_sequence) - forward))
    assert repeats == [False, True, True, True]
    assert counts[1][1] < 40 < counts[0][1]


def test_other_batch_sizes_are_repeated_each_by_itself(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    for batch in (5, 7, 5, 7):
        x, t = data(0, batch)
        optimizer.step(nn.functional.cross_entropy(net(x), t))
    assert repeats == [False, False, True, True]


def test_what_else_is_pending_is_computed_with_the_step(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    right = mo.zeros(())
    for k in range(4):
        x, t = data(k)
        flat = x.reshape(-1)  # alive, and no work
        logits = net(x)
        right += (logits.argmax(1) == t).sum()
        loss = nn.functional.cross_entropy(logits, t)
        optimizer.step(loss)
        assert "pending" not in repr(logits) + repr(right) + repr(flat)
        assert np.array_equal(flat.numpy(), x.numpy().reshape(-1))
    assert repeats[2:] == [True, True]


def test_the_history_of_the_loss_is_dropped(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        x, t = data()
        logits = net(x)
        loss = nn.functional.cross_entropy(logits, t)
        optimizer.step(loss)
        assert all(p.grad is None for p in net.parameters())
        assert not loss.requires_grad and not logits.requires_grad
        with pytest.raises(mo.errors.StaleValueError, match=r"dropped at .*test_repeated"):
            loss.backward()
    assert repeats[-1]


def test_another_loss_keeps_the_history_of_its_own(repeats: list[bool]):
    net, other = network(), nn.Linear(4, 1)
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        x, t = data()
        second = (other(x) ** 2).sum()
        optimizer.step(nn.functional.cross_entropy(net(x), t))
        (g,) = mo.grad(second, [other.weight])
        expected = 2 * other(x).numpy().T @ x.numpy()
        assert np.allclose(g.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert repeats[-1]


def test_a_bad_label_is_an_error_on_the_users_line_and_changes_nothing(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, t = data()
    for _ in range(3):
        optimizer.step(nn.functional.cross_entropy(net(x), t))
    before = state_of(net, optimizer)
    loss = nn.functional.cross_entropy(net(x), t + 2)
    with pytest.raises(IndexError, match=r"index [34] is out of bounds .*test_repeated.py"):
        optimizer.step(loss)
    assert repeats[-2:] == [True, False]
    assert state_of(net, optimizer) == before
    optimizer.step(nn.functional.cross_entropy(net(x), t))
    assert repeats[-1] and state_of(net, optimizer) != before


def test_a_hook_sees_every_step():
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x, t = data()
    seen: list[Any] = []
    for k in range(5):
        if k == 3:
            net[0].weight.register_hook(seen.append)
        optimizer.step(nn.functional.cross_entropy(net(x), t))
    assert len(seen) == 2


class Double(mo.Function):
    """2 x, whose backward counts its calls."""

    calls = 0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        Double.calls += 1
        return g * 2


def test_a_custom_gradient_runs_at_every_step():
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x, t = data()
    for _ in range(4):
        optimizer.step(nn.functional.cross_entropy(Double.apply(net(x)), t))
    assert Double.calls == 4


class Counting(nn.optim.SGD):
    """A rule of the user's, which may do anything."""

    calls = 0

    def update(self, parameter: Any, gradient: Any, state: Any, group: Any) -> Any:
        self.calls += 1
        return super().update(parameter, gradient, state, group)


def test_a_rule_of_the_users_runs_at_every_step():
    net = network()
    optimizer = Counting(net.parameters(), lr=0.1)
    x, t = data()
    for _ in range(4):
        optimizer.step(nn.functional.cross_entropy(net(x), t))
    assert optimizer.calls == 4 * len(list(net.parameters()))


def test_a_parameter_out_of_reach_is_warned_of_at_every_step():
    net, other = network(), nn.Linear(4, 1)
    optimizer = nn.optim.SGD([*net.parameters(), *other.parameters()], lr=0.1)
    for _ in range(4):
        x, t = data()
        beside = other(x)  # read, but not by the loss
        with pytest.warns(mo.errors.UnreachedGradientWarning):
            optimizer.step(nn.functional.cross_entropy(net(x), t))
        assert beside.shape == (6, 1)


def test_a_frozen_parameter_stays_where_it_is(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x, t = data()
    for k in range(6):
        if k == 3:
            net[0].weight.requires_grad = False
            before = net[0].weight.numpy()
        optimizer.step(nn.functional.cross_entropy(net(x), t))
    assert np.array_equal(net[0].weight.numpy(), before)
    assert repeats == [False, True, True, False, True, True]


def test_a_value_overwritten_before_the_step_is_still_stale():
    w = nn.Parameter(mo.ones((3,)))
    optimizer = nn.optim.SGD([w], lr=0.1)
    for k in range(4):
        loss = (w * w).sum()
        if k == 3:
            with mo.no_grad():
                w *= 2.0
            with pytest.raises(mo.errors.StaleValueError, match="overwritten at"):
                optimizer.step(loss)
        else:
            optimizer.step(loss)


def test_a_value_that_was_read_before_the_step_is_not_computed_twice(repeats: list[bool]):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x, t = data()
    for _ in range(3):
        logits = net(x)
        first = logits.numpy()
        optimizer.step(nn.functional.cross_entropy(logits, t))
        assert np.array_equal(logits.numpy(), first)
    assert repeats == [False, False, False]


# ------------------------------------------------------- programs, with and without repeated steps

Same = Callable[[Callable[[], list[Any]]], list[bool]]


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch, repeats: list[bool]) -> Same:
    """Asserts that a program gives the same values with and without; which of its steps were
    repeated when it ran for the second time with."""

    def run(body: Callable[[], list[Any]]) -> list[bool]:
        found = []
        for repeat in (False, True, True):
            monkeypatch.setattr(config, "repeat", repeat)
            repeats.clear()
            found.append([v.numpy() if isinstance(v, mo.Var) else v for v in body()])
        plain, first, second = found
        for value, *others in zip(plain, first, second, strict=True):
            for other in others:
                np.testing.assert_array_equal(value, other)
        return repeats

    return run


def parameter(*values: float) -> Any:
    return nn.Parameter(mo.array(np.array(values, np.float32)))


def test_maxima_that_tie_in_other_ways_are_other_steps(same: Same):
    def body() -> list[Any]:
        found = []
        for ties in ("share", "first"):
            w = parameter(1, 1, 0.5)
            optimizer = nn.optim.SGD([w], lr=0.125)
            for _ in range(2):
                largest = mo.Var._of(reduce("maximum", (w * 1.5)._node, (0,), ties))
                optimizer.step(largest)
                found.append(w.numpy())
        assert not np.array_equal(found[0], found[2])
        return found

    assert same(body) == [True] * 4


def test_a_pending_leaf_and_a_plain_copy_are_other_steps(same: Same):
    def body() -> list[Any]:
        found = []
        for is_leaf in (False, True):
            w = parameter(1, 2, 3)
            optimizer = nn.optim.SGD([w], lr=0.1)
            for _ in range(2):
                y = mo.Var._of(Elementwise("copy", (w * 3.0)._node))
                if is_leaf:
                    leaf = nn.Parameter(mo.zeros((3,)))
                    leaf.assign(w * 3.0)
                    y = leaf
                optimizer.step((y * w).sum())
                found.append(w.numpy())
        assert not np.array_equal(found[0], found[2])
        return found

    assert same(body) == [True] * 4


RULE = """
    class Rule(SGD):
        def state_names(self, group):
            return ("a", "b")

        def update(self, parameter, gradient, state, group):
            first, second = state[{!r}], state[{!r}]
            return parameter - gradient * first, {{"a": first + 1.5, "b": second + 3.5}}
"""


def test_rules_whose_states_change_roles_are_other_steps(same: Same):
    def body() -> list[Any]:
        found = []
        for names in (("a", "b"), ("b", "a")):
            space = {"SGD": nn.optim.SGD, "__name__": "metaop.nn.optim.made_here"}
            source = textwrap.dedent(RULE.format(*names))
            exec(compile(source, nn.__file__, "exec"), space)
            w = parameter(1, 2, 3)
            optimizer: Any = space["Rule"]([w], lr=0.1)
            for _ in range(3):
                optimizer.step((w * w * w).sum())
                found.append(w.numpy())
        assert not np.array_equal(found[2], found[5])
        return found

    assert same(body) == [True] * 6


def test_a_parameter_of_another_group_is_another_step(same: Same):
    def body() -> list[Any]:
        found = []
        for size in (1, 2):
            vars = [parameter(1, 2), parameter(3, 4), parameter(5, 6)]
            groups = [{"params": vars[:size], "lr": 0.3}, {"params": vars[size:], "lr": 0.03}]
            optimizer = nn.optim.SGD(groups)
            for _ in range(2):
                optimizer.step((vars[0] * vars[1] * vars[2]).sum())
            found += [v.numpy() for v in vars]
        assert not np.array_equal(found[1], found[4])
        return found

    assert same(body) == [True] * 4


def test_a_value_that_was_overwritten_since_is_stale_in_a_step_that_is_known(same: Same):
    def body() -> list[Any]:
        w, v, found = parameter(1, 2), mo.array([1.0, 2.0]), []
        optimizer = nn.optim.SGD([w], lr=0.1)
        for k in range(4):
            loss = (w * v).sum()
            if k == 3:
                v.assign(mo.ones((2,)).sync())  # of which nothing is pending
                with pytest.raises(mo.errors.StaleValueError, match="overwritten"):
                    optimizer.step(loss)
            else:
                optimizer.step(loss)
            found.append(w.numpy())
        return found

    assert same(body) == [True, True, True, False]


def optimisers(base: Any = nn.optim.Optimizer) -> list[Any]:
    """Those of metaop's own that have a rule."""
    found = [c for c in base.__subclasses__() if c.__module__.startswith("metaop.")]
    below = [c for own in found for c in optimisers(own)]
    return [c for c in found if c.update is not nn.optim.Optimizer.update] + below


@pytest.mark.parametrize("make", optimisers())
def test_the_rule_of_an_optimiser_is_the_same_for_all_shapes(make: Any):
    """One sample of it stands for all parameters of a kind."""
    seen = []
    for shape in ((), (3,), (2, 3), (2, 1, 3, 3)):
        w = nn.Parameter(mo.ones(shape))
        optimizer = make([w])
        group = optimizer.param_groups[0]
        state = {**optimizer.state[w], "step": 7}
        with mo.no_grad():
            value, new = optimizer.update(w, mo.ones(shape).sync(), state, group)
        nodes = toposort([value._node, *[v._node for v in new.values()]])
        operations = [n.op for n in nodes if isinstance(n, Elementwise)]
        numbers = [n.value for n in nodes if isinstance(n, Scalar)]
        seen.append((operations, numbers, list(new)))
    assert seen == seen[:1] * 4


def test_a_running_total_of_losses_lets_steps_be_repeated(same: Same):
    def body() -> list[Any]:
        w, total, early = parameter(1, 2, 3), mo.array(0.0), mo.array(0.0)
        optimizer = nn.optim.SGD([w], lr=0.01)
        for _ in range(4):
            loss = (w * w).sum()
            early = early * 0.5 + loss
            optimizer.step(loss)
            total += loss
            assert not total.requires_grad and not early.requires_grad
        return [w, total, early]

    assert all(same(body))


def test_a_loss_made_from_one_that_is_over_is_stale_at_every_step(same: Same):
    def body() -> list[Any]:
        w, old, found = nn.Parameter(mo.array(2.0)), mo.array(1.0), []
        optimizer = nn.optim.SGD([w], lr=0.01)
        for k in range(6):
            loss = w * old
            try:
                optimizer.step(loss)
                found.append(w.numpy())
            except mo.errors.StaleValueError as error:
                found.append(str(error)[:20])
            old = loss if k % 2 else mo.array(1.0)
        assert [type(item) for item in found].count(str) == 2
        return found

    same(body)


def test_steps_beside_writes_modes_and_rates_that_change(same: Same):
    def body() -> list[Any]:
        net = network()
        optimizer = nn.optim.Adam(net.parameters(), lr=0.05)
        losses = []
        for k in range(10):
            net.train(k % 4 != 3)
            net[2].p = (0.3, 0.5, 0.0)[k % 3]
            net[0].weight.requires_grad = k != 4
            optimizer.lr = (0.05, 0.5, 0.0)[k // 4]
            if k == 2:
                optimizer.param_groups[0]["weight_decay"] = 0.1
            if k in (5, 6):
                with mo.no_grad():
                    net[4].bias.assign(net[4].bias * 0.5)
                    if k == 6:
                        mo.sync()
            if k == 7:
                optimizer.state[net[4].weight]["step"] = 2
                optimizer.state[net[4].weight]["exp_avg"].assign(mo.zeros((3, 8)))
            if k == 8:
                mo.manual_seed(5)
            x, t = data(k, 4 + k % 2)
            loss = nn.functional.cross_entropy(net(x), t)
            if k == 9:
                loss.backward()
                optimizer.step()
            else:
                optimizer.step(loss)
            losses.append(loss)
        return [*losses, *state_of(net, optimizer)]

    assert sum(same(body)) == 7  # recorded with a pending bias or state


def test_two_optimisers_and_two_losses_on_one_network(same: Same):
    def body() -> list[Any]:
        a, b = parameter(1, 2), parameter(3, 4)
        first, second = nn.optim.SGD([a, b], lr=0.1), nn.optim.SGD([b, a], lr=0.2, momentum=0.5)
        found: list[Any] = []
        for k in range(4):
            shared = a * b
            beside = (shared * shared).sum()
            first.step((a - shared).sum())
            second.step((b - a * a).sum() if k % 2 else (a - b * b).sum())
            with pytest.raises((mo.errors.StaleValueError, mo.errors.DTypeError)):
                beside.backward()
            found += [a.numpy(), b.numpy(), beside]
        return found

    assert all(same(body))


class Renamed(nn.optim.SGD):
    """A subclass without a rule of its own."""


def test_classes_and_assignments_of_the_users_are_recorded(repeats: list[bool]):
    calls = []

    def update(parameter: Any, gradient: Any, state: Any, group: Any) -> Any:
        calls.append(1)
        return parameter - len(calls) * gradient, {}

    w = parameter(1, 2, 3)
    for make in (Renamed, nn.optim.SGD):
        optimizer = make([w], lr=0.1)
        if make is not Renamed:
            optimizer.update = update
        for _ in range(3):
            optimizer.step((w * w).sum())
    assert len(calls) == 3 and repeats == []


def test_an_interrupt_leaves_a_repeated_step_as_if_it_had_not_begun(
    repeats: list[bool], monkeypatch: pytest.MonkeyPatch
):
    net = network()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, t = data()
    for _ in range(2):
        optimizer.step(nn.functional.cross_entropy(net(x), t))
    before = state_of(net, optimizer)
    loss = nn.functional.cross_entropy(net(x), t)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(program, "launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(loss)
    assert [state["step"] for state in optimizer.state.values()] == [2] * 6
    optimizer.step(loss)
    assert repeats[-1]
    after = state_of(net, optimizer)
    assert after != before
    assert [state["step"] for state in optimizer.state.values()] == [3] * 6


def test_a_step_on_what_is_no_loss_is_an_error(repeats: list[bool]):
    w = parameter(1, 2, 3)
    optimizer = nn.optim.SGD([w], lr=0.1)
    for bad in (w * 2.0, (w * 2.0).sum().astype(mo.int32)):
        with pytest.raises((TypeError, ValueError)):
            optimizer.step(bad)
    assert repeats == []
