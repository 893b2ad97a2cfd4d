"""Loops and branches as one operation: scan, while_loop, cond."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop.compiler import pipeline

RNG = np.random.default_rng(0)
STEPS = 500


def recurrent(w: mo.Var, u: mo.Var, xs: Any, h: Any) -> mo.Var:
    def step(h: mo.Var, x: mo.Var) -> tuple[mo.Var, mo.Var]:
        h = mo.tanh(h @ w + x @ u)
        return h, h

    return mo.scan(step, h, xs)[1]


def test_a_recurrent_net_of_500_steps_and_its_gradient() -> None:
    xs, h = RNG.normal(size=(STEPS, 4, 3)), np.zeros((4, 8))
    w = mo.array(RNG.normal(size=(8, 8)) * 0.3, requires_grad=True)
    u = mo.array(RNG.normal(size=(3, 8)), requires_grad=True)
    weights = RNG.normal(size=(STEPS, 4, 8))
    before = pipeline.statistics.compiled + getattr(pipeline.statistics, "loaded", 0)
    ys = recurrent(w, u, xs, h)
    found = [g.numpy() for g in mo.grad((ys * weights).sum(), [w, u])]
    # one body, its gradient, and what stands around them: not 500 of them
    after = pipeline.statistics.compiled + getattr(pipeline.statistics, "loaded", 0)
    assert after - before < 30

    states, state = [h], h
    for x in xs:
        state = np.tanh(state @ w.numpy() + x @ u.numpy())
        states.append(state)
    np.testing.assert_allclose(ys.numpy(), np.stack(states[1:]), rtol=1e-9, atol=1e-12)
    gw, gu, g = np.zeros((8, 8)), np.zeros((3, 8)), np.zeros((4, 8))
    for k in reversed(range(STEPS)):
        g = (g + weights[k]) * (1 - states[k + 1] ** 2)
        gw, gu, g = gw + states[k].T @ g, gu + xs[k].T @ g, g @ w.numpy().T
    np.testing.assert_allclose(found[0], gw, rtol=1e-8)
    np.testing.assert_allclose(found[1], gu, rtol=1e-8)


def test_a_second_scan_of_the_same_structure_compiles_nothing() -> None:
    def total(scale: float) -> np.ndarray:
        return mo.scan(lambda c, x: (c * scale + x, c), 0.0, np.arange(4, dtype="f4"))[0].numpy()

    assert total(0.37) == pytest.approx(((0 * 0.37 + 1) * 0.37 + 2) * 0.37 + 3)
    programs = pipeline.statistics.programs
    assert total(0.21) == pytest.approx(((0 * 0.21 + 1) * 0.21 + 2) * 0.21 + 3)
    # the body of a new recording is put together anew, but found by its structure
    assert pipeline.statistics.programs == programs


def test_a_cached_loop_keeps_no_value_of_its_first_call() -> None:
    """The program of a scan held the weights and inputs of the call that it was compiled in."""

    def run() -> list[weakref.ref]:
        w = mo.array(RNG.normal(size=(3, 3)), requires_grad=True)
        xs = mo.array(RNG.normal(size=(4, 3)))
        last, ys = mo.scan(lambda c, x: (mo.tanh(c @ w + x), c), np.zeros(3), xs)
        mo.grad(ys.sum() + last.sum(), w).sync()
        return [weakref.ref(w._node.storage), weakref.ref(xs._node.storage)]

    held = run()
    gc.collect()
    assert [reference() for reference in held] == [None, None]


def nested(w: mo.Var, start: mo.Var) -> mo.Var:
    """Carries and results of several dtypes, nested, backwards, with a constant from outside."""
    rows = mo.array(np.linspace(0.1, 0.9, 10).reshape(5, 2))

    def step(state: Any, x: mo.Var) -> Any:
        value, count = state["value"], state["count"]
        value = value * mo.sin(w * x) + w[0] * count.astype("float64")
        return {"value": value, "count": count + 1}, (value * value, count)

    state, (squares, counts) = mo.scan(step, {"value": start, "count": 0}, rows, reverse=True)
    assert counts.dtype is mo.int64
    return state["value"].sum() + squares.sum()


def test_gradients_of_scans_are_central_differences_to_second_order() -> None:
    assert mo.gradcheck(nested, (RNG.normal(size=2), RNG.normal(size=2)), order=2)


def test_scan_returns_what_the_loop_does() -> None:
    xs = RNG.integers(0, 9, size=6)

    def step(state: Any, x: mo.Var) -> Any:
        a, b = state
        return (b, (a + x) % 7), (a > 3, a.astype("bfloat16"))

    (a, b), (flags, halves) = mo.scan(step, (1, 2), xs)
    p, q, seen = 1, 2, []
    for x in xs:
        seen.append(p)
        p, q = q, (p + x) % 7
    assert (int(a), int(b)) == (p, q)
    assert flags.numpy().tolist() == [s > 3 for s in seen]
    assert halves.dtype is mo.bfloat16 and halves.numpy().tolist() == seen


def test_scan_without_xs_and_without_ys() -> None:
    last, nothing = mo.scan(lambda c, _: (c * 2, None), 1.0, length=10)
    assert last.item() == 1024 and nothing is None
    empty, ys = mo.scan(lambda c, x: (c + x, c), 1.0, np.zeros(0, "f4"))
    assert empty.item() == 1 and ys.shape == (0,)


def test_a_scan_inside_a_scan() -> None:
    matrix = RNG.normal(size=(3, 4))

    def row(total: mo.Var, xs: mo.Var) -> Any:
        inner, _ = mo.scan(lambda c, x: (c * 0.5 + x, None), mo.array(np.array(0.0)), xs)
        return total + inner, inner

    got, each = mo.scan(row, mo.array(np.array(0.0)), matrix)
    want = matrix @ (0.5 ** np.arange(3, -1, -1.0))
    np.testing.assert_allclose(each.numpy(), want)
    np.testing.assert_allclose(got.item(), want.sum())


# ------------------------------------------------------------------------------ while_loop and cond


def grown(a: mo.Var, b: mo.Var) -> mo.Var:
    value, _ = mo.while_loop(
        lambda s: s[0].sum() < 50.0, lambda s: (s[0] * b + 1, s[1] + 1), (a, 0)
    )
    return value


def test_while_loop_and_its_gradient() -> None:
    a, b = np.array([1.0, 2.0]), np.array(1.5)
    want = a
    while want.sum() < 50:
        want = want * b + 1
    np.testing.assert_allclose(grown(mo.array(a), mo.array(b)).numpy(), want)
    assert mo.gradcheck(grown, (a, b), order=2)


def branch(a: mo.Var, b: mo.Var) -> mo.Var:
    return mo.cond(a.sum() > 0, lambda a: mo.sin(a) * b, lambda a: a * a, a)


@pytest.mark.parametrize("sign", [1, -1])
def test_cond_and_its_gradients(sign: int) -> None:
    a, b = sign * np.array([1.0, 2.0]), np.array(1.5)
    want = np.sin(a) * b if sign > 0 else a * a
    np.testing.assert_allclose(branch(mo.array(a), mo.array(b)).numpy(), want)
    assert mo.gradcheck(branch, (a, b), order=2)


def scanned(a: Any, b: Any, xp: Any) -> Any:
    """sum of h_k * h_k, h_k = tanh(h_(k-1) * b + x_k), h_0 = a."""
    xs = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
    if xp is mo:

        def step(h: mo.Var, x: mo.Var) -> Any:
            h = mo.tanh(h * b + x)
            return h, h * h

        return mo.scan(step, a, xs)[1].sum()
    total = 0
    for x in xp.tensor(xs):
        a = xp.tanh(a * b + x)
        total = total + (a * a).sum()
    return total


def looped(a: Any, b: Any, xp: Any) -> Any:
    """The cubes of a = sin(a) * b + a, repeated while the sum is below 5."""
    if xp is mo:
        a = mo.while_loop(lambda a: a.sum() < 5.0, lambda a: mo.sin(a) * b + a, a)
    else:
        while a.sum() < 5.0:
            a = xp.sin(a) * b + a
    return (a * a * a).sum()


def chosen(a: Any, b: Any, xp: Any) -> Any:
    branches = (lambda a: xp.exp(a) * b * b), (lambda a: a * a * b)
    if xp is mo:
        return mo.cond(a.sum() > 2.0, *branches, a).sum()
    return branches[0 if a.sum() > 2.0 else 1](a).sum()


@pytest.mark.parametrize("f", [scanned, looped, chosen])
def test_hessians_of_loops_and_branches_are_torchs(f: Any) -> None:
    torch = pytest.importorskip("torch")
    both = np.array([[0.4, 0.9], [0.7, 1.3]])
    got = mo.hessian(lambda v: f(v[0], v[1], mo))(mo.array(both)).numpy()
    want = torch.autograd.functional.hessian(lambda v: f(v[0], v[1], torch), torch.tensor(both))
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-10, atol=1e-12)
    assert abs(want).max() > 0.1


def test_only_the_chosen_branch_is_computed() -> None:
    table = mo.array([1.0, 2.0])

    def outside(k: mo.Var) -> mo.Var:
        return table[k]

    k = mo.array(5)
    assert mo.cond(k < 2, outside, lambda k: mo.array(-1.0), k).item() == -1.0
    with pytest.raises(IndexError, match="index 5 is out of bounds"):
        mo.cond(k > 2, outside, lambda k: mo.array(-1.0), k).item()


def test_loops_under_vmap() -> None:
    a = np.array([[1.0, 2.0], [-1.0, -2.0]])
    got = mo.vmap(lambda v: mo.cond(v.sum() > 0, lambda v: v, lambda v: -v, v))(a)
    np.testing.assert_allclose(got.numpy(), np.abs(a))
    xs = RNG.normal(size=5)
    starts = mo.array(RNG.normal(size=3), requires_grad=True)
    last = mo.vmap(lambda s: mo.scan(lambda c, x: (c * x + 1, None), s, xs)[0])(starts)
    np.testing.assert_allclose(mo.grad(last.sum(), starts).numpy(), np.full(3, xs.prod()))


# ----------------------------------------------------------------------------------------- errors


def test_errors_of_loops() -> None:
    with pytest.raises(mo.DTypeError, match=r"must keep its shapes and dtypes, i64\[\] became f32"):
        mo.scan(lambda c, x: (c + 0.5, c), 0, length=3)
    with pytest.raises(mo.ShapeError, match=r"f32\[2\] became f32\[3\]"):
        mo.scan(lambda c, x: (mo.zeros(3), c), mo.zeros(2), length=3)
    with pytest.raises(mo.ShapeError, match="one length"):
        mo.scan(lambda c, x: (c, c), 0, (np.zeros(2), np.zeros(3)))
    with pytest.raises(mo.JitError, match="recorded once for all values"):
        mo.scan(lambda c, x: (c if c > 0 else -c, c), 1.0, length=3)
    with pytest.raises(mo.JitError, match="function given to scan writes to a Var from outside"):
        mo.scan(lambda c, x: (c + mo.random.uniform(), c), 1.0, length=3)
    with pytest.raises(mo.DTypeError, match="must return one 0-d bool"):
        mo.while_loop(lambda c: c, lambda c: c, 1.0)
    with pytest.raises(mo.ShapeError, match=r"they return f32\[\] and f32\[2\]"):
        mo.cond(True, lambda: mo.array(1.0), lambda: mo.zeros(2))


def test_an_index_out_of_range_in_a_body_is_an_index_error() -> None:
    table = mo.array([1.0, 2.0])
    last, _ = mo.scan(lambda c, k: (c + table[k], None), 0.0, np.array([0, 1, 7]))
    with pytest.raises(IndexError, match=r"index 7 is out of bounds .* \(in scan"):
        last.item()
    # and nothing else is harmed
    assert mo.scan(lambda c, k: (c + table[k], None), 0.0, np.array([0, 1]))[0].item() == 3.0


def test_temporaries_around_a_loop_survive_its_body() -> None:
    """The body's program once shared the arena with the program that was waiting for it."""
    x = mo.array(RNG.normal(size=(64, 64)))
    stored = mo.linalg.inv(x @ x.T + 64 * mo.eye(64, dtype="float64"))  # lies in the arena
    last, _ = mo.scan(lambda c, _: (mo.sort(mo.tanh(c @ c)) * 0.5, None), x, length=5)
    got = (stored @ last).numpy()
    want = np.linalg.inv(x.numpy() @ x.numpy().T + 64 * np.eye(64))
    c = x.numpy()
    for _ in range(5):
        c = np.sort(np.tanh(c @ c)) * 0.5
    np.testing.assert_allclose(got, want @ c, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", ["scan", "while_loop", "cond", "checkpoint"])
def test_backward_and_step_give_the_gradients_of_grad(form: str) -> None:
    """backward() and step(loss) record no gradients of gradients: the bodies of loops and branches
    then had no history, and what they read from outside got zeros."""
    x = mo.array(RNG.normal(size=(4, 3)))
    w = mo.array(RNG.normal(size=(3, 3)), requires_grad=True)
    cell = functools.partial(lambda w, h: mo.tanh(h @ w), w)
    forms: dict[str, Callable[[], Any]] = {
        "scan": lambda: mo.scan(lambda h, row: (cell(h) + row, None), x[0], x)[0],
        "while_loop": lambda: mo.while_loop(
            lambda s: s[0] < 3, lambda s: (s[0] + 1, cell(s[1])), (mo.array(0), x[0])
        )[1],
        "cond": lambda: mo.cond(x[0, 0] < 99, cell, lambda h: h, x),
        "checkpoint": lambda: mo.checkpoint(cell, x),
    }

    def loss() -> mo.Var:
        return (forms[form]() ** 2).sum()

    gradient = mo.grad(loss(), w).numpy()
    assert abs(gradient).max() > 0.01
    loss().backward()
    np.testing.assert_array_equal(w.grad.numpy(), gradient)
    moved = w.numpy() - 0.5 * gradient
    mo.optim.SGD([w], lr=0.5).step(loss())
    np.testing.assert_allclose(w.numpy(), moved, rtol=1e-12)


# ---------------------------------------------------------------------------------------- sizes


def programs_of(call: Callable[[], Any]) -> int:
    """How many programs a call compiles."""
    before = pipeline.statistics.programs
    call()
    return pipeline.statistics.programs - before


def recurrence(length: int, batch: int) -> None:
    """A recurrent net and its gradients are NumPy's."""
    rng = np.random.default_rng(length)
    xs = mo.dynamic(mo.array(rng.normal(size=(length, batch, 3))), (0, 1))
    w = mo.array(rng.normal(size=(3, 3)) * 0.3, requires_grad=True)
    last, ys = mo.scan(lambda h, x: (mo.tanh(h @ w + x), h), mo.zeros_like(xs[0]), xs)
    found = mo.grad(last.sum() + ys.sum(), w)
    states = [np.zeros((batch, 3))]
    for x in xs.numpy():
        states.append(np.tanh(states[-1] @ w.numpy() + x))
    g, want = np.ones((batch, 3)), np.zeros((3, 3))
    for before, after in zip(states[-2::-1], states[:0:-1]):
        flow = g * (1 - after**2)
        want += before.T @ flow
        g = flow @ w.numpy().T + 1
    mo.sync(last, ys, found)
    np.testing.assert_allclose(last.numpy(), states[-1], rtol=1e-9)
    np.testing.assert_allclose(ys.numpy(), states[:-1], rtol=1e-9)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-8)


def halvings(size: int) -> None:
    rng = np.random.default_rng(size)
    x = mo.array(rng.normal(size=size), requires_grad=True)
    y = mo.while_loop(lambda v: (v * v).sum() > 1e-3, lambda v: v * 0.5, x)
    want, steps = x.numpy(), 0
    while (want * want).sum() > 1e-3:
        want, steps = want * 0.5, steps + 1
    np.testing.assert_allclose(y.numpy(), want)
    np.testing.assert_allclose(mo.grad(y.sum(), x).numpy(), np.full(size, 0.5**steps))


def choice(size: int) -> None:
    rng = np.random.default_rng(size)
    x = mo.array(rng.normal(size=size), requires_grad=True)
    for sign in (1, -1):
        y = mo.cond(
            mo.array(sign) > 0, lambda x: mo.concat([x, x * x]), lambda x: mo.concat([x, -x]), x
        )
        want = np.concatenate([x.numpy(), x.numpy() ** 2 if sign > 0 else -x.numpy()])
        np.testing.assert_allclose(y.numpy(), want)
        slope = 1 + 2 * x.numpy() if sign > 0 else np.zeros(size)
        np.testing.assert_allclose(mo.grad(y.sum(), x).numpy(), slope)


def callbacks(size: int) -> None:
    rng = np.random.default_rng(size)
    x = mo.array(rng.normal(size=(size, 3)))
    np.testing.assert_array_equal(mo.sort(x, 0).numpy(), np.sort(x.numpy(), 0))
    gram = x.numpy().T @ x.numpy() + np.eye(3)
    inverse = mo.linalg.inv(mo.vmap(lambda row: mo.outer(row, row))(x) + np.eye(3))
    want = np.linalg.inv(x.numpy()[:, :, None] * x.numpy()[:, None] + np.eye(3))
    np.testing.assert_allclose(inverse.numpy(), want, rtol=1e-9)
    np.testing.assert_allclose(
        mo.linalg.inv(x.T @ x + np.eye(3)).numpy(), np.linalg.inv(gram), rtol=1e-6
    )


@pytest.mark.parametrize("run, first, others", [
    (recurrence, (9, 12), [(14, 12), (12, 9), (8, 15)]),
    (halvings, (11,), [(8,), (15,), (1000,)]),
    (choice, (11,), [(8,), (15,), (1000,)]),
    (callbacks, (11,), [(8,), (15,), (1000,)]),
])  # fmt: skip
def test_loops_and_callbacks_of_other_sizes_compile_nothing(
    run: Callable[..., None], first: tuple[int, ...], others: list[tuple[int, ...]]
) -> None:
    run(*first)
    assert programs_of(lambda: [run(*sizes) for sizes in others]) == 0


@pytest.mark.parametrize("length", [3, 5])
def test_a_body_that_makes_something_of_a_length_it_is_not_given(length: int) -> None:
    """The rows do not tell how many there are: each length has a program of its own."""
    xs = mo.array(np.arange(float(length)))

    def step(c: mo.Var, x: mo.Var) -> Any:
        return c + x * mo.arange(xs.shape[0]).sum() / xs.shape[0], None

    assert mo.scan(step, 0.0 * xs[0], xs)[0].item() == sum(range(length)) ** 2 / length
    assert mo.scan(lambda c, _: (c + 1.0, None), 0.0, length=xs.shape[0])[0].item() == length
