"""mo.Function: gradients of one's own, in PyTorch's style and in Jittor's; retain_graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn


class Cube(mo.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class JittorCube(mo.Function):
    def execute(self, x: Any) -> Any:
        self.x = x
        return x * x * x

    def grad(self, g: Any) -> Any:
        return g * 3 * self.x * self.x


class Exp(mo.Function):
    """Keeps its result."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = mo.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0]


class JittorExp(mo.Function):
    def execute(self, x: Any) -> Any:
        self.y = mo.exp(x)
        return self.y

    def grad(self, g: Any) -> Any:
        return g * self.y


CALLS = {
    "static": (lambda x: Cube.apply(x), 3),
    "apply": (lambda x: JittorCube.apply(x), 3),
    "instance": (lambda x: JittorCube()(x), 3),
}


@pytest.mark.parametrize("style", CALLS)
@pytest.mark.parametrize("read", [False, True])
def test_gradients_of_every_order(style: str, read: bool) -> None:
    cube = CALLS[style][0]
    x = mo.array([2.0, -1.5], requires_grad=True)
    y = cube(x)
    value = np.array([2.0, -1.5], np.float32)
    if read:
        np.testing.assert_allclose(y.numpy(), value**3, rtol=1e-6)
    first = mo.grad(y.sum(), x)
    second = mo.grad(first.sum(), x)
    third = mo.grad(second.sum(), x)
    np.testing.assert_allclose(first.numpy(), 3 * value**2, rtol=1e-6)
    np.testing.assert_allclose(second.numpy(), 6 * value, rtol=1e-6)
    np.testing.assert_allclose(third.numpy(), [6, 6], rtol=1e-6)


@pytest.mark.parametrize("kind", [Exp, JittorExp])
def test_a_result_that_is_kept_leads_to_the_argument(kind: Any) -> None:
    x = mo.array([0.5], requires_grad=True)
    y = kind.apply(x)
    for _ in range(4):
        y = mo.grad(y.sum(), x)
        np.testing.assert_allclose(y.numpy(), np.exp(np.float32([0.5])), rtol=1e-6)


class ScaleAndShift(mo.Function):
    """Two results, of different shapes, arguments that are no Vars."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float, w: Any, name: str) -> Any:
        ctx.save_for_backward(x, w)
        ctx.factor = factor
        ctx.seen = (ctx.needs_input_grad, name)
        return x * w * factor, (x + w).sum()

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        x, w = ctx.saved_tensors
        assert ctx.seen == ((True, False, True, False), "n")
        return g * w * ctx.factor + h, None, g * x * ctx.factor + h, None


@pytest.mark.parametrize("used", ["both", "first", "second"])
def test_several_results_and_plain_arguments_as_in_torch(used: str) -> None:
    torch = pytest.importorskip("torch")

    class Theirs(torch.autograd.Function):  # type: ignore[misc, name-defined]
        forward = ScaleAndShift.forward
        backward = ScaleAndShift.backward

    def loss(apply: Any, x: Any, w: Any) -> Any:
        a, b = apply(x, 1.5, w, "n")
        weights = {"both": (1, 2), "first": (3, 0), "second": (0, 3)}[used]
        total = x.sum()
        total = total + (a * a).sum() * weights[0] if weights[0] else total
        return total + b * b * weights[1] if weights[1] else total

    x, w = np.float32([1, 2, 3]), np.float32([0.5, -1, 2])
    theirs = [torch.tensor(v, requires_grad=True) for v in (x, w)]
    want = torch.autograd.grad(loss(Theirs.apply, *theirs), theirs)
    ours = [mo.array(v, requires_grad=True) for v in (x, w)]
    for g, h in zip(mo.grad(loss(ScaleAndShift.apply, *ours), ours), want):
        np.testing.assert_allclose(g.numpy(), h.numpy(), rtol=1e-6)


def test_jittors_grad_gets_none_for_a_result_that_is_not_used() -> None:
    seen: list[Any] = []

    class Two(mo.Function):
        def execute(self, x: Any) -> Any:
            return x * 2, x * 3

        def grad(self, g: Any, h: Any) -> Any:
            seen.append((g is None, h is None))
            return h * 3

    x = mo.array([1.0], requires_grad=True)
    assert mo.grad(Two.apply(x)[1].sum(), x).item() == 3
    assert seen == [(True, False)]


class OnlyTheFirst(mo.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        return x * y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 10, None


def test_none_is_no_gradient() -> None:
    x, y = (nn.Parameter([v]) for v in (2.0, 3.0))
    OnlyTheFirst.apply(x, y).sum().backward()
    assert x.grad is not None and x.grad.item() == 10
    assert y.grad is None


def test_no_gradient_is_computed_where_none_is_wanted() -> None:
    with mo.no_grad():
        assert not Cube.apply(nn.Parameter([2.0])).requires_grad
    assert not Cube.apply(mo.array([2.0])).requires_grad


def test_a_wrong_gradient_is_refused() -> None:
    class Wrong(mo.Function):
        answer: Any = None

        def execute(self, x: Any, y: Any) -> Any:
            return x + y

        def grad(self, g: Any) -> Any:
            return self.answer(g)

    x, y = (mo.array([1.0, 2.0], requires_grad=True) for _ in range(2))
    for answer, error, message in [
        (lambda self, g: g, TypeError, "must have 2 values, one for each argument, it has 1"),
        (lambda self, g: (g.sum(), g), mo.ShapeError, r"f32\[2\] is f32\[\]"),
        (lambda self, g: (1.0, g), TypeError, "must be a Var or None, not float"),
    ]:
        Wrong.answer = answer
        with pytest.raises(error, match=message):
            mo.grad(Wrong.apply(x, y).sum(), [x, y])


def test_what_is_kept_is_the_version_of_the_call() -> None:
    w = nn.Parameter([2.0])
    for kind in (Cube, JittorCube):
        loss = kind.apply(w).sum()
        with mo.no_grad():
            w += 1
        with pytest.raises(mo.StaleValueError, match="overwritten"):
            loss.backward()


def test_a_computed_function_drops_its_history_with_the_step() -> None:
    import gc

    w = nn.Parameter([0.1])
    optimizer = nn.optim.SGD([w], lr=0.01)

    def step() -> None:
        loss = Cube.apply(w).sum()
        loss.item()
        optimizer.step(loss)

    step()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        step()
    gc.collect()
    assert len(gc.get_objects()) - before < 20


@pytest.mark.parametrize("kind", [Cube, JittorCube])
def test_inside_jit_it_makes_the_same_steps(kind: Any) -> None:
    outcomes = []
    for jitted in (False, True):
        w = nn.Parameter([0.3, 0.7])
        optimizer = nn.optim.Adam([w], lr=0.01)

        def step(x: Any, w: Any = w, optimizer: Any = optimizer) -> Any:
            loss = (kind.apply(w * x) - 1).sum()
            optimizer.step(loss)
            return loss

        call: Any = mo.jit(step) if jitted else step
        losses = [call(mo.array([k + 1.0, 2.0])).item() for k in range(4)]
        outcomes.append((losses, w.numpy().tolist()))
    assert outcomes[0] == outcomes[1]
    assert call.count == 1


def test_a_gradient_from_outside_a_trace_says_what_to_do() -> None:
    f = mo.jit(lambda x: Cube.apply(x))
    with pytest.raises(mo.JitError, match=r"mo\.Function Cube.*inside the jitted function"):
        f(mo.array([1.0], requires_grad=True))
    with mo.no_grad():
        assert f(mo.array([2.0], requires_grad=True)).item() == 8


# -------------------------------------------------------------------- retain_graph, accumulation


def test_backward_twice_needs_retain_graph() -> None:
    w = nn.Parameter([3.0])
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert w.grad is not None and w.grad.item() == 12
    with pytest.raises(mo.StaleValueError, match="retain_graph=True"):
        loss.backward()


def test_gradients_accumulate_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    start = np.float32([1.0, -2.0, 0.5])
    data = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    ours, theirs = nn.Parameter(start), torch.nn.Parameter(torch.tensor(start))
    for row in data:
        (mo.tanh(ours * mo.array(row)).sum() / 4).backward()
        (torch.tanh(theirs * torch.tensor(row)).sum() / 4).backward()
    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-5, atol=1e-6)
    ours.grad = None
    (ours * ours).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), 2 * start)
