"""mo.jit: the same bits as without it, nothing stale, and what a trace refuses."""

from __future__ import annotations

import gc
import hashlib
import inspect
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn import functional as F

BATCH, FEATURES, CLASSES = 16, 6, 4


def batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [
        (generator.standard_normal((BATCH, FEATURES)).astype(np.float32),
         generator.integers(0, CLASSES, BATCH))
        for _ in range(count)
    ]  # fmt: skip


class Net(nn.Module):
    def __init__(self) -> None:
        self.hidden = nn.Linear(FEATURES, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.fc(self.drop(mo.tanh(self.norm(self.hidden(x)))))


def digest(net: nn.Module, optimizer: Any = None) -> str:
    """sha256 of everything that training changes."""
    found = [(name, v.numpy()) for name, v in net.state_dict().items()]
    found += [(f"{name}.grad", p.grad.numpy()) for name, p in net.named_parameters()
              if p.grad is not None]  # fmt: skip
    for state in () if optimizer is None else optimizer.state.values():
        for name, value in sorted(dict(state).items()):
            found.append((name, value.numpy() if isinstance(value, mo.Var) else np.array(value)))
    found.append(("random", mo.random.default_generator().calls.numpy()))
    sha = hashlib.sha256()
    for name, array in found:
        sha.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


class Run:
    """A training run, with or without jit: `step(x, t)`, and what a scenario may change."""

    def __init__(self, jitted: bool, optimizer: Callable[[Any], Any] | None = None):
        mo.manual_seed(0)
        self.net = net = Net()
        make = optimizer or (lambda ps: nn.optim.SGD(ps, lr=0.1, momentum=0.9))
        self.optimizer = opt = make(net.parameters())

        def step(x: Any, t: Any) -> Any:
            loss = F.cross_entropy(net(x), t)
            opt.step(loss)
            return loss

        self.step: Any = mo.jit(step) if jitted else step
        self.jitted = jitted
        self.losses: list[Any] = []

    def train(self, count: int, before: Callable[[int], object] = lambda k: None) -> None:
        for k, (x, t) in enumerate(batches(count)):
            before(k)
            given = (x, t) if self.jitted else (mo.array(x), mo.array(t))
            self.losses.append(self.step(*given))

    def outcome(self) -> tuple[list[float], str]:
        return [loss.item() for loss in self.losses], digest(self.net, self.optimizer)


def learning_rate_schedule(run: Run) -> None:
    run.train(6, lambda k: setattr(run.optimizer, "lr", 0.3 / (k + 2)))


def a_learning_rate_that_becomes_a_literal(run: Run) -> None:
    run.train(5, lambda k: setattr(run.optimizer, "lr", [0.1, 0.5, 0.3, 1.0, 0.2][k]))


def train_eval_train(run: Run) -> None:
    run.train(6, lambda k: run.net.train(k not in (2, 3)))


def one_layer_in_eval(run: Run) -> None:
    run.train(4, lambda k: run.net.norm.train(k % 2 == 0))


def freezing_a_layer(run: Run) -> None:
    run.train(6, lambda k: run.net.hidden.requires_grad_(k not in (2, 3)))


def replacing_fc(run: Run) -> None:
    def replace(k: int) -> None:
        if k == 2:
            run.net.fc = nn.Linear(8, CLASSES)
            run.optimizer.param_groups[0]["params"][-2:] = run.net.fc.parameters()
        if k == 3:
            group = run.optimizer.param_groups[0]
            taken = [group["params"].pop(), group["params"].pop()]
            run.optimizer.add_param_group({"params": taken, "lr": 0.05})

    run.train(5, replace)


def dropout_p_changed(run: Run) -> None:
    run.train(5, lambda k: setattr(run.net.drop, "p", 0.1 * (k + 1)))


def dropout_with_a_reseed(run: Run) -> None:
    run.train(6, lambda k: mo.manual_seed(k) if k % 2 else None)


def a_hyperparameter_switched(run: Run) -> None:
    run.train(5, lambda k: run.optimizer.param_groups[0].update(nesterov=k >= 2))


def parameters_written_between_steps(run: Run) -> None:
    def write(k: int) -> None:
        with mo.no_grad():
            run.net.fc.weight *= 0.9
            run.net.fc.bias.assign(mo.ones(CLASSES) * k)

    run.train(4, write)


def state_loaded_between_steps(run: Run) -> None:
    saved: list[Any] = []

    def load(k: int) -> None:
        if k == 1:
            saved[:] = [run.net.state_dict(), run.optimizer.state_dict()]
        if k == 4:
            run.net.load_state_dict(saved[0])
            run.optimizer.load_state_dict(saved[1])

    run.train(6, load)


SCENARIOS = [
    learning_rate_schedule, a_learning_rate_that_becomes_a_literal, train_eval_train,
    one_layer_in_eval, freezing_a_layer, replacing_fc, dropout_p_changed, dropout_with_a_reseed,
    a_hyperparameter_switched, parameters_written_between_steps,
    state_loaded_between_steps,
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_the_final_state_is_that_of_a_run_without_jit(scenario: Callable[[Run], None]) -> None:
    outcomes = []
    for jitted in (False, True):
        run = Run(jitted)
        scenario(run)
        outcomes.append(run.outcome())
    assert outcomes[0] == outcomes[1]


def test_lenet_has_the_state_it_has_without_jit() -> None:
    generator = np.random.default_rng(0)
    data = [(generator.standard_normal((8, 1, 28, 28)).astype(np.float32),
             generator.integers(0, 10, 8)) for _ in range(3)]  # fmt: skip
    outcomes = []
    for jitted in (False, True):
        mo.manual_seed(0)
        net = nn.models.LeNetBN()
        optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def step(x: Any, t: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            loss = F.cross_entropy(net(mo.array(x)), mo.array(t))
            optimizer.step(loss)
            return loss

        call: Any = mo.jit(step) if jitted else step
        losses = [call(x, t).item() for x, t in data]
        outcomes.append((losses, digest(net, optimizer)))
    assert outcomes[0] == outcomes[1]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda ps: nn.optim.SGD(ps, lr=0.1),
    "dampened": lambda ps: nn.optim.SGD(ps, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda ps: nn.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda ps: nn.optim.Adam(ps, lr=0.01, weight_decay=0.01),
    "amsgrad": lambda ps: nn.optim.Adam(ps, lr=0.01, amsgrad=True),
    "adamw": lambda ps: nn.optim.AdamW(ps, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_makes_the_steps_it_makes_without_jit(name: str) -> None:
    outcomes = []
    for jitted in (False, True):
        run = Run(jitted, OPTIMIZERS[name])
        run.train(5, lambda k, run=run: setattr(run.optimizer, "lr", 0.03 / (k + 3)))  # type: ignore[misc]
        outcomes.append(run.outcome())
    assert outcomes[0] == outcomes[1]
    assert run.step.count == (2 if name == "dampened" else 1)


def test_a_count_of_steps_that_leaves_the_others_is_recorded_again() -> None:
    outcomes = []
    for jitted in (False, True):
        run = Run(jitted, lambda ps: nn.optim.Adam(ps, lr=0.1))
        state = run.optimizer.state[run.net.fc.weight]

        def before(k: int, state: Any = state) -> None:
            if k == 3:
                state["step"] = 20

        run.train(6, before)
        outcomes.append(run.outcome())
    assert run.step.count == 2
    assert outcomes[0] == outcomes[1]


def test_state_made_in_a_trace_is_the_optimisers() -> None:
    def switch(run: Run, k: int) -> None:
        run.optimizer.param_groups[0]["momentum"] = 0.9 if k >= 2 else 0.0

    outcomes = []
    for jitted in (False, True):
        run = Run(jitted, OPTIMIZERS["sgd"])
        run.train(5, lambda k, run=run: switch(run, k))  # type: ignore[misc]
        outcomes.append(run.outcome())
    assert outcomes[0] == outcomes[1]


def test_a_repeated_step_is_recorded_once_and_builds_no_graph() -> None:
    run = Run(True)
    run.train(2)
    nodes = []
    x, t = batches(1)[0]
    for _ in range(3):
        before = next(mo.graph._sequence)
        run.step(x, t)
        nodes.append(next(mo.graph._sequence) - before)
    assert run.step.count == 1
    assert nodes[-1] <= 3  # the loss, and the counter read here


def accumulate(jitted: bool, loss_calls: int) -> str:
    mo.manual_seed(0)
    net = Net()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def add(x: Any, t: Any) -> Any:
        loss = F.cross_entropy(net(x), t) / 4
        loss.backward()
        return loss

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    if jitted:
        add, update = mo.jit(add), mo.jit(update)
    for k, (x, t) in enumerate(batches(loss_calls)):
        add(mo.array(x), mo.array(t))
        if k % 4 == 3:
            update()
    return digest(net, optimizer)


@pytest.mark.parametrize("calls", [3, 8])  # 3: gradients are left, and are part of the state
def test_gradients_accumulate_over_calls(calls: int) -> None:
    assert accumulate(True, calls) == accumulate(False, calls)


def test_backward_step_and_zero_grad_inside() -> None:
    results = []
    for jitted in (False, True):
        run = Run(jitted)
        net, optimizer = run.net, run.optimizer

        def step(x: Any, t: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            loss = F.cross_entropy(net(mo.array(x)), mo.array(t))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        run.step = mo.jit(step) if jitted else step
        run.train(4)
        assert all(p.grad is None for p in net.parameters())
        results.append(run.outcome())
    assert results[0] == results[1]


def test_the_repr_lists_the_guards() -> None:
    run = Run(True)
    run.train(1)
    text = repr(run.step)
    for guard in ("net.drop.p == 0.3", "net.training", "net.fc.weight is the same f32[4,8]",
                  "net.hidden.weight.requires_grad is True", "nesterov == False"):  # fmt: skip
        assert guard in text


# ------------------------------------------------------------------------------------ arguments


def test_the_key_holds_shapes_dtypes_structure_and_plain_values() -> None:
    @mo.jit
    def f(x: Any, n: Any = None, **more: Any) -> Any:
        return x * n if n is not None else x + sum(more.values())

    x = mo.array([1.0, 2.0])
    calls: list[tuple[Callable[[], Any], list[float]]] = [
        (lambda: f(x, 3), [3, 6]), (lambda: f(x, 4), [4, 8]), (lambda: f(x, 3), [3, 6]),
        (lambda: f(x, True), [1, 2]), (lambda: f(x, b=x), [2, 4]), (lambda: f(x, c=x, b=x), [3, 6]),
        (lambda: f(np.array([1.0, 2.0]), 3), [3, 6]), (lambda: f(x[:1], 3), [3]),
    ]  # fmt: skip
    for call, want in calls:
        assert call().tolist() == want
    assert f.count == 7


@pytest.mark.usefixtures("settled")
def test_recordings_that_differ_in_sizes_alone_share_their_code() -> None:
    run = Run(jitted=True)
    for size in (BATCH, 12, 7):
        x, t = batches(1)[0]
        run.step(x[:size], t[:size])
    assert len(run.step.traces) == 3
    assert len({id(trace.enter.__code__) for trace in run.step.traces}) == 1


def test_float_arguments_are_inputs() -> None:
    @mo.jit
    def f(x: Any, a: float) -> Any:
        return x * a + a**2 / 3

    def plain(x: Any, a: float) -> Any:
        return x * a + a**2 / 3

    x = mo.array([1.0, 2.0])
    for a in (0.3, 0.7, 1e100, -0.25, float("nan"), float("inf")):
        np.testing.assert_array_equal(f(x, a).numpy(), plain(x, a).numpy())
    assert f.count == 1
    for a in (2.0, 0.0, -0.0, 0.3):  # values that a rewrite may test
        np.testing.assert_array_equal(f(x, a).numpy(), plain(x, a).numpy())


def test_a_comparison_of_a_float_argument_is_a_guard() -> None:
    @mo.jit
    def f(x: Any, a: float) -> Any:
        return x + a if a > 0.1 else x - a

    x = mo.array([1.0])
    assert [f(x, a).item() for a in (0.25, 0.75, 0.0625, 0.3)] == pytest.approx(
        [1.25, 1.75, 0.9375, 1.3]
    )
    assert f.count == 2


def test_nested_arguments_and_results() -> None:
    class Pair(tuple):
        __slots__ = ()

    @mo.jit
    def f(data: Any) -> Any:
        a, rest = data["a"], data["rest"]
        return {"sum": a + rest[0], "rest": [rest[0], (a * 2, None, 3, "x")], "again": a}

    a, b = mo.array([1.0]), mo.array([2.0])
    for _ in range(3):
        result = f({"a": a, "rest": (b,)})
        assert result["sum"].item() == 3
        assert result["rest"][0] is b and result["again"] is a
        double, *others = result["rest"][1]
        assert double.item() == 2 and others == [None, 3, "x"]


def test_results_never_lie_in_memory_that_a_later_call_writes() -> None:
    weight = mo.array(np.zeros(100, np.float32))

    @mo.jit
    def f(x: Any) -> Any:
        with mo.no_grad():
            weight.assign(weight + x)
        return weight * 1.5, weight + 0.0

    kept = [f(mo.array(np.float32(1))) for _ in range(20)]
    views = [np.asarray(weight.detach())]
    for _ in range(5):
        f(mo.array(np.float32(1)))
        views.append(weight.__array__(copy=False))
    for k, (a, b) in enumerate(kept, start=1):
        assert a.numpy()[0] == 1.5 * k and b.numpy()[99] == k
    assert [v[0] for v in views] == [20, 21, 22, 23, 24, 25]


def test_pending_work_reads_the_version_it_was_recorded_with() -> None:
    weight = mo.array([1.0])

    @mo.jit
    def f() -> None:
        with mo.no_grad():
            weight.assign(weight * 2)

    later = []
    for _ in range(5):
        f()
        later.append(weight + 10)
    assert [v.item() for v in later] == [12, 14, 18, 26, 42]


def test_an_argument_written_in_place_is_the_callers() -> None:
    @mo.jit
    def f(x: Any) -> Any:
        x += 1
        return x * 2

    a, b = mo.array([1.0]), mo.array([5.0])
    assert [f(a).item(), f(b).item(), f(a).item()] == [4, 12, 6]
    assert (a.item(), b.item()) == (3, 6)


def test_vars_from_outside_are_read_as_they_are_at_each_call() -> None:
    scale = mo.array([2.0])
    listed = [mo.array([1.0])]

    @mo.jit
    def f(x: Any) -> Any:
        return x * scale + listed[0]

    x = mo.array([3.0])
    assert f(x).item() == 7
    scale.assign([10.0])
    listed[0] += 1
    assert f(x).item() == 32
    assert f.count == 1


FLAG, GLOBAL_SCALE = True, mo.array([2.0])


def helper(x: Any) -> Any:
    return x * GLOBAL_SCALE if FLAG else x


def test_globals_and_cells_are_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    offset = 1

    @mo.jit
    def f(x: Any) -> Any:
        return helper(x) + offset

    x = mo.array([3.0])
    assert f(x).item() == 7
    offset = 2
    assert f(x).item() == 8
    monkeypatch.setitem(globals(), "FLAG", False)  # read by a function that f calls
    assert f(x).item() == 5
    monkeypatch.setitem(globals(), "FLAG", True)
    monkeypatch.setitem(globals(), "GLOBAL_SCALE", mo.array([5.0]))
    assert f(x).item() == 17


def test_an_ndarray_from_outside_is_guarded_by_its_content() -> None:
    held = np.float32([1.0, 2.0])

    @mo.jit
    def f(x: Any) -> Any:
        own = np.linspace(0, 1, 2, dtype=np.float32)
        return x + mo.array(held) + mo.array(own)

    x = mo.array([10.0, 10.0])
    assert f(x).tolist() == [11, 13] and f(x).tolist() == [11, 13]
    held[0] = 5
    assert f(x).tolist() == [15, 13]
    assert f.count == 2
    assert "ndarray float32[2] holds what it held" in repr(f)


def test_lists_and_dicts_of_the_users_are_guards() -> None:
    weights = {"a": [mo.array([1.0])]}
    options = ["double"]

    @mo.jit
    def f(x: Any) -> Any:
        y = x + weights["a"][0]
        return y * 2 if "double" in options else y

    x = mo.array([1.0])
    assert f(x).item() == 4
    options.clear()
    assert f(x).item() == 2
    weights["a"][0] = mo.array([5.0])
    assert f(x).item() == 6
    weights["a"].insert(0, mo.array([7.0]))
    assert f(x).item() == 8


class Recurrent(nn.Module):
    def __init__(self) -> None:
        self.cell = nn.Linear(4, 4)
        self.state: Any = None
        self.pair: Any = (mo.zeros(1), mo.ones(1))
        self.calls = 0.0

    def forward(self, x: Any) -> Any:
        if self.state is None:
            self.state = mo.zeros((2, 4))
        with mo.no_grad():
            self.state = mo.tanh(self.cell(x) + self.state)
            a, b = self.pair
            self.pair = (b, a + b)
        return self.state.sum()


def test_plain_var_attributes_are_state() -> None:
    outcomes = []
    for jitted in (False, True):
        mo.manual_seed(3)
        net = Recurrent()
        call: Any = mo.jit(net) if jitted else net
        x = mo.ones((2, 4))
        values = [call(x).item() for _ in range(4)]
        held = net.state
        values.append(call(x).item())
        net.state = mo.zeros((2, 4))
        values += [call(x).item(), held.sum().item(), net.pair[1].item()]
        outcomes.append(values)
    assert outcomes[0] == outcomes[1]
    assert call.count == 2  # without a state, and with one


def test_a_module_may_have_children_that_are_never_called() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            self.used, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: mo.Var) -> mo.Var:
            return self.used(x)

    net, x = Idle(), mo.ones((2, 3))
    jitted = mo.jit(lambda x: net(x).sum())
    assert jitted(x).item() == jitted(x).item() == net(x).sum().item()


def test_methods_and_modules_can_be_jitted() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.factor = 2

        @mo.jit
        def run(self, x: Any) -> Any:
            return x * self.factor

    trainer, other = Trainer(), Trainer()
    x = mo.array([1.0])
    assert trainer.run(x).item() == 2
    trainer.factor = 3
    assert trainer.run(x).item() == 3 and other.run(x).item() == 2


def test_attributes_of_plain_objects_are_guards() -> None:
    class Slotted:
        __slots__ = ("factor",)

    slotted, space, inner = Slotted(), types.SimpleNamespace(factor=2), types.SimpleNamespace(k=1)
    slotted.factor, space.inner = 3, inner

    @mo.jit
    def f(x: Any) -> Any:
        return x * slotted.factor * space.factor + space.inner.k

    x = mo.array([1.0])
    assert f(x).item() == 7
    slotted.factor = 5
    assert f(x).item() == 11
    space.factor = 1
    assert f(x).item() == 6
    inner.k = 0
    assert f(x).item() == 5


def test_grad_mode_is_part_of_the_key() -> None:
    w = nn.Parameter([2.0])
    f = mo.jit(lambda: mo.is_grad_enabled())
    g = mo.jit(lambda x: mo.grad((x * w).sum(), w).detach())
    assert f() is True
    with mo.no_grad():
        assert f() is False
    assert g(mo.array([3.0])).item() == 3


def test_gradients_pass_through_what_a_jitted_function_returns() -> None:
    outcomes = []
    for jitted in (False, True):
        run = Run(False)
        net, optimizer = run.net, run.optimizer
        forward: Any = mo.jit(net) if jitted else net
        values = []
        for k, (x, t) in enumerate(batches(4)):
            inputs = mo.array(x, requires_grad=True)
            loss = F.cross_entropy(forward(inputs * (k + 1.5)), mo.array(t))
            values.append(mo.grad(loss, inputs).numpy().tolist())
            optimizer.step(loss)
            values.append(loss.item())
        outcomes.append((values, digest(net, optimizer)))
    assert outcomes[0] == outcomes[1]
    assert forward.count == 1


def test_second_derivatives_pass_through_a_jitted_function() -> None:
    cube = mo.jit(lambda x, a: a * x * x * x)
    for value in (2.0, 3.0):
        x = mo.array([value], requires_grad=True)
        (first,) = (mo.grad(cube(x, 0.75).sum(), x),)
        assert first.item() == 0.75 * 3 * value**2
        assert mo.grad(first.sum(), x).item() == 0.75 * 6 * value
    assert cube.count == 1


def test_backward_to_a_history_outside_says_what_to_do() -> None:
    w = nn.Parameter([2.0])
    y = w * 3

    @mo.jit
    def f() -> None:
        (y * 2).sum().backward()  # reaches out

    with pytest.raises(mo.JitError, match=r"history outside the trace.*x\.detach\(\)"):
        f()


def test_nested_jit_is_one_trace() -> None:
    inner = mo.jit(lambda x: x * 2)
    outer = mo.jit(lambda x: inner(x) + 1)
    assert [outer(mo.array([k])).item() for k in (1, 2)] == [3, 5]
    assert (outer.count, inner.count) == (1, 0)


# --------------------------------------------------------------------------------------- errors


def line_of(text: str) -> str:
    """How a message names the line of this file that holds a text."""
    lines, first = inspect.getsourcelines(inspect.getmodule(line_of))  # type: ignore[arg-type]
    number = next(k for k, line in enumerate(lines, start=max(first, 1)) if text in line)
    return rf"test_jit\.py:{number}\b"


def looks_by_if(x: Any) -> Any:
    if x > 0:  # looks
        return x
    return -x


def looks_by_item(x: Any) -> Any:
    return x * x.item()  # item


def looks_by_print(x: Any) -> Any:
    print(x)  # print
    return x


def looks_by_float(x: Any) -> Any:
    return x * float(x)  # float


def looks_by_numpy(x: Any) -> Any:
    return mo.array(x.numpy())  # numpy


@pytest.mark.parametrize(
    "function, mark",
    [
        (looks_by_if, "# looks"), (looks_by_item, "# item"), (looks_by_print, "# print"),
        (looks_by_float, "# float"), (looks_by_numpy, "# numpy"),
    ],
)  # fmt: skip
def test_asking_for_a_value_names_the_line_and_where(function: Any, mark: str) -> None:
    with pytest.raises(mo.JitError, match=line_of(mark) + r".*mo\.where"):
        mo.jit(function)(mo.array(1.0))


def test_repr_of_a_traced_var_computes_nothing() -> None:
    texts = []
    w = mo.array([1.0])

    @mo.jit
    def f(x: Any) -> Any:
        texts.append(repr(x + w))
        texts.append(repr(w))
        return x

    f(mo.array([1.0]))
    assert texts == ["Var(f32[1], pending)"] * 2


def takes_the_root(x: Any, a: float) -> Any:
    return x * float(a)  # plain


def test_a_traced_number_made_plain_names_the_line() -> None:
    with pytest.raises(mo.JitError, match=line_of("# plain")):
        mo.jit(takes_the_root)(mo.array([1.0]), 0.3)


ESCAPED: list[Any] = []


def lets_escape(x: Any) -> Any:
    y = x + 1  # escapes
    ESCAPED.append(y)
    return y * 2


def test_a_var_that_escapes_is_dead_and_says_so() -> None:
    ESCAPED.clear()
    f = mo.jit(lets_escape)
    assert f(mo.array([1.0])).item() == 4
    (dead,) = ESCAPED
    for use in (lambda: dead * 2, lambda: dead.item(), lambda: dead.sum()):
        with pytest.raises(mo.JitError, match=line_of("# escapes") + ".*lets_escape.*return it"):
            use()
    with pytest.raises(mo.JitError, match=r"a Var that is there before: state.assign\(value\)"):
        dead.numpy()
    mo.sync()  # nothing is left pending


def test_an_exception_in_a_trace_leaves_everything_as_it_was() -> None:
    run = Run(True)
    run.train(1)
    net, optimizer = run.net, run.optimizer
    before = digest(net, optimizer)
    attributes = dict(net.__dict__)

    @mo.jit
    def broken(x: Any) -> None:
        loss = net(x).sum()
        net.extra = loss
        optimizer.lr = 0.9
        optimizer.step(loss)
        with mo.no_grad():
            net.fc.bias.assign(mo.ones(CLASSES))
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        broken(mo.ones((BATCH, FEATURES)))
    assert net.__dict__ == attributes and optimizer.lr == 0.1
    mo.sync()
    assert digest(net, optimizer) == before


def test_a_failed_check_in_a_replay_names_the_line_and_changes_nothing() -> None:
    run = Run(True)
    run.train(2)
    before = digest(run.net, run.optimizer)
    x, t = batches(1)[0]
    wrong = t.copy()
    wrong[3] = CLASSES
    pattern = rf"index {CLASSES} is out of bounds.*" + line_of("loss = F.cross_entropy(net(x), t)")
    for _ in range(2):
        with pytest.raises(IndexError, match=pattern):
            run.step(x, wrong)
        assert digest(run.net, run.optimizer) == before
    run.step(x, t)
    assert digest(run.net, run.optimizer) != before


def test_a_forward_that_raises_later_takes_back_what_a_jitted_part_wrote() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.norm = nn.BatchNorm1d(FEATURES)
            self.part = mo.jit(self.norm)

        def forward(self, x: Any) -> Any:
            with mo.no_grad():
                self.part(x)
            raise RuntimeError("on purpose")

    outer = Outer()
    before = digest(outer)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="on purpose"):
            outer(mo.ones((BATCH, FEATURES)))
        assert digest(outer) == before


def test_requires_grad_may_not_change_in_a_trace() -> None:
    w = nn.Parameter([1.0])

    @mo.jit
    def f() -> None:
        w.requires_grad_(False)  # freezes

    with pytest.raises(mo.JitError, match=line_of("# freezes")):
        f()
    assert w.requires_grad


def test_memory_stays_flat_over_many_replays() -> None:
    run = Run(True)
    run.train(3)
    x, t = batches(1)[0]
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        run.step(x, t)
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_a_trace_keeps_no_value_of_its_first_call() -> None:
    weight = nn.Parameter(np.zeros((100, 100), np.float32))
    optimizer = nn.optim.SGD([weight], lr=0.1)

    @mo.jit
    def step(x: Any) -> None:
        optimizer.step((x @ weight).sum())

    first = mo.array(np.ones((100, 100), np.float32))
    kept = [weakref.ref(first._node.storage), weakref.ref(weight._node.storage)]
    step(first)
    del first
    for _ in range(3):
        step(mo.array(np.ones((100, 100), np.float32)))
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_only_the_trace_replayed_last_holds_memory_for_the_next_values() -> None:
    """Every trace of a function kept two copies of all parameters for its own next replay."""
    weights = [mo.nn.Parameter(np.ones(30_000, np.float32)) for _ in range(4)]

    @mo.jit
    def step(scale: mo.Var) -> None:
        with mo.no_grad():
            for w in weights:
                w *= scale.mean()

    gc.collect()
    held = []
    for batch in (3, 4, 5, 6, 7, 8, 9, 3, 3, 4, 9):
        step(mo.array(np.full(batch, 0.5, np.float32)))
        mo.array(0.0)  # what came back is counted now
        held.append(mo.storage.pool.used_bytes)
    assert max(held[1:]) <= held[0] + 120_000
    for w in weights:
        np.testing.assert_array_equal(w.numpy(), np.float32(0.5**11))


def test_a_replay_writes_into_the_memory_of_the_value_before_the_last() -> None:
    run = Run(True)
    run.train(3)
    x, t = batches(1)[0]
    weight = run.net.fc.weight
    seen = []
    for _ in range(6):
        run.step(x, t)
        seen.append(weight._node.storage.address)
    assert len(set(seen)) == 2
    held = weight.__array__(copy=False)  # now the memory is read by somebody
    before = held.copy()
    for _ in range(3):
        run.step(x, t)
    np.testing.assert_array_equal(held, before)


def test_threads_trace_and_replay_at_once() -> None:
    data = batches(6)

    def alone(results: list[Any], number: int, jitted: bool) -> None:
        weight = nn.Parameter(np.full((FEATURES, CLASSES), 0.1 * (number + 1), np.float32))
        optimizer = nn.optim.SGD([weight], lr=0.1, momentum=0.9)

        def step(x: Any, t: Any) -> Any:
            loss = F.cross_entropy(x @ weight, t)
            optimizer.step(loss)
            return loss

        call: Any = mo.jit(step) if jitted else step
        losses = [call(mo.array(x), mo.array(t)).item() for x, t in data]
        results[number] = (losses, weight.numpy().tolist())

    want: list[Any] = [None] * 4
    for number in range(4):
        alone(want, number, False)
    got: list[Any] = [None] * 4
    threads = [threading.Thread(target=alone, args=(got, k, k % 2 == 0)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == want


def test_sync_in_a_trace_does_nothing() -> None:
    @mo.jit
    def f(x: Any) -> Any:
        y = (x + 1).sync()
        mo.sync()
        return y * 2

    assert [f(mo.array([k])).item() for k in (1.0, 2.0)] == [4, 6]


def test_attributes_may_have_the_names_that_a_trace_gives_numbers() -> None:
    """`self.n1` was taken for the trace's first number in the text of a guard: KeyError."""

    class Block(nn.Module):
        def __init__(self) -> None:
            self.n0, self.n1 = nn.Linear(3, 3), nn.LayerNorm(3)

        def forward(self, x: Any) -> Any:
            return self.n1(self.n0(x))

    block = Block()
    x = mo.ones((2, 3))
    jitted = mo.jit(block)
    np.testing.assert_array_equal(jitted(x).numpy(), block(x).numpy())
    assert "n1" in repr(jitted)


def test_modules_that_only_guards_meet_keep_their_parameters() -> None:
    """A child that the function does not call, or another model of the same class, is first met
    when guards are made; it was taken for emptied by the function, and the first commit did so."""

    class Net(nn.Module):
        def __init__(self) -> None:
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            return self.used(x)

    net = Net()
    step = mo.jit(lambda x: net(x).sum())
    for _ in range(2):
        step(mo.ones((2, 3)))
    assert [name for name, _ in net.named_parameters()] == [
        "used.weight", "used.bias", "unused.weight", "unused.bias",
    ]  # fmt: skip
    assert net.unused(mo.ones((2, 3))).shape == (2, 3)
