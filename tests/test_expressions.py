"""Random graphs: values are NumPy's, gradients are central differences.

`METAOP_EXAMPLES=2000 python -m pytest tests/test_expressions.py` looks further.
"""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.graph import toposort
from tests.helpers import numeric_gradient, python_value
from tests.strategies import compiled

EXAMPLES = int(os.environ.get("METAOP_EXAMPLES", "50"))
STEPS = 16
LARGEST = 60  # elements of a value
CLOSE_TO_A_KINK = 1e-3


@dataclass(frozen=True)
class Step:
    """One operation on values made earlier, with its further arguments."""

    name: str
    operands: tuple[int, ...]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Program:
    """Leaves of the given shapes, and steps; the last values are summed up."""

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    seed: int

    def leaves(self) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return [rng.uniform(-1.5, 1.5, s) for s in self.shapes]

    def values(self, leaves: list[Any], xp: Any) -> list[Any]:
        values = list(leaves)
        for step in self.steps:
            values.append(apply(step, values, xp))
        return values


def _windows(xp: Any, x: Any, size: int, stride: int) -> Any:
    """x[..., i*stride + r] for every position i and tap r."""
    count = (x.shape[-1] - size) // stride + 1
    if xp is np:
        return np.stack(
            [x[..., r : r + stride * (count - 1) + 1 : stride] for r in range(size)], -1
        )
    lead = x.shape[:-1]
    return x.reindex((*lead, count, size), lambda *i: (*i[:-2], i[-2] * stride + i[-1]))


def _gathered(xp: Any, x: Any, index: tuple[int, ...]) -> Any:
    rows = np.array(index)
    return x[rows] if xp is np else x[mo.array(rows)]


def _scattered(xp: Any, x: Any, index: tuple[int, ...], count: int) -> Any:
    """out[index[i]] += x[i]."""
    if xp is np:
        out = np.zeros((count, *x.shape[1:]))
        np.add.at(out, np.array(index), x)
        return out
    rows = mo.array(np.array(index))
    return x.reindex_reduce("add", (count, *x.shape[1:]), lambda i, *rest: (rows, *rest))


def _assigned(xp: Any, x: Any, key: Any, v: Any) -> Any:
    y = x.copy() if xp is np else x * 1.0
    y[key] = v
    return y


def _masked(xp: Any, a: Any, b: Any, period: int) -> Any:
    a, b = xp.broadcast_to(a, (a + b).shape), xp.broadcast_to(b, (a + b).shape)
    size = int(np.prod(a.shape))
    mask = (np.arange(size) % period == 0).reshape(a.shape)
    return xp.where(mask if xp is np else mo.array(mask), a, b)


def _softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x)
    return e / xp.sum(e, axis=-1, keepdims=True)


# name -> function of (xp, operands…, arguments…); smooth, bounded, or with a kink that is avoided
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda xp, a, b: a + b,
    "sub": lambda xp, a, b: a - b,
    "mul": lambda xp, a, b: a * b,
    "div": lambda xp, a, b: a / (1.5 + b * b),
    "maximum": lambda xp, a, b: xp.maximum(a, b),
    "minimum": lambda xp, a, b: xp.minimum(a, b),
    "where": _masked,
    "choose": lambda xp, a, b: xp.where(a < b, a * b, a - b),
    "number": lambda xp, a, c: c - a * 0.3,
    "exp": lambda xp, a: xp.exp(xp.tanh(a)),
    "sin": lambda xp, a: xp.sin(a),
    "tanh": lambda xp, a: xp.tanh(a),
    "sqrt": lambda xp, a: xp.sqrt(a * a + 1.0),
    "log": lambda xp, a: xp.log(1.0 + a * a),
    "abs": lambda xp, a: xp.abs(a),
    "power": lambda xp, a, n: a**n,
    "softmax": _softmax,
    "sum": lambda xp, a, axis, keep: xp.sum(a, axis=axis, keepdims=keep),
    "mean": lambda xp, a, axis, keep: xp.mean(a, axis=axis, keepdims=keep),
    "max": lambda xp, a, axis, keep: xp.max(a, axis=axis, keepdims=keep),
    "prod": lambda xp, a, axis, keep: xp.prod(xp.tanh(a) + 1.1, axis=axis, keepdims=keep),
    "var": lambda xp, a, axis, keep: xp.var(a, axis=axis, keepdims=keep),
    "transpose": lambda xp, a, order: xp.transpose(a, order),
    "reshape": lambda xp, a, shape: xp.reshape(a, shape),
    "flip": lambda xp, a, axis: xp.flip(a, axis),
    "roll": lambda xp, a, by, axis: xp.roll(a, by, axis),
    "pad": lambda xp, a, mode: xp.pad(a, ((1, 2),) * a.ndim, mode),
    "slice": lambda xp, a, key: a[key],
    "assign": _assigned,
    "concat": lambda xp, a, b: xp.concatenate([a, b, a], 0),
    "stack": lambda xp, a, b: xp.stack([a, b], -1),
    "broadcast": lambda xp, a, count: xp.broadcast_to(a, (count, *a.shape)),
    "matmul": lambda xp, a, b: xp.matmul(a, b),
    "outer": lambda xp, a, b: a[:, None] * b[None, :],
    "windows": _windows,
    "gather": _gathered,
    "scatter": _scattered,
}
CATALOGUE = list(OPERATIONS)


def apply(step: Step, values: list[Any], xp: Any) -> Any:
    operands = [values[k] for k in step.operands]
    if step.name == "assign":
        (key,) = step.arguments
        return _assigned(xp, operands[0], key, operands[1])
    return OPERATIONS[step.name](xp, *operands, *step.arguments)


@st.composite
def programs(draw: Any) -> Program:
    shapes = tuple(
        tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=3)))
        for _ in range(draw(st.integers(2, 3)))
    )
    seed = draw(st.integers(0, 1000))
    program = Program(shapes, (), seed)
    values: list[np.ndarray] = program.leaves()
    steps: list[Step] = []
    for _ in range(draw(st.integers(STEPS // 2, STEPS))):
        step = draw(_steps([v.shape for v in values]))
        value = apply(step, values, np)
        if value.size > LARGEST or np.abs(value).max() > 50 or _near_a_kink(step, values):
            step = Step("tanh", step.operands[:1])
            value = np.tanh(values[step.operands[0]])
        steps.append(step)
        values.append(value)
    return Program(shapes, tuple(steps), seed)


def _near_a_kink(step: Step, values: list[np.ndarray]) -> bool:
    """True where a central difference would step over a kink."""
    a, *rest = (values[k] for k in step.operands)
    if step.name in ("maximum", "minimum", "choose"):
        return bool((np.abs(a - rest[0]) < CLOSE_TO_A_KINK).any())
    if step.name == "abs":
        return bool((np.abs(a) < CLOSE_TO_A_KINK).any())
    if step.name == "max":
        axis = step.arguments[0]
        if a.shape[axis] < 2:
            return False
        ordered = np.sort(a, axis)
        gap = np.take(ordered, -1, axis) - np.take(ordered, -2, axis)
        return bool((gap < CLOSE_TO_A_KINK).any())
    return False


@st.composite
def _steps(draw: Any, shapes: list[tuple[int, ...]]) -> Step:
    """An operation that the shapes allow, rather on late values than on early ones."""
    last = len(shapes) - 1
    a = last - draw(st.sampled_from([0, 0, 0, 0, 1, 1, min(2, last), last]))
    shape = shapes[a]
    rank = len(shape)
    alike = [k for k, s in enumerate(shapes) if _broadcast(s, shape)][::-1]
    name = draw(st.sampled_from(CATALOGUE))
    axis = draw(st.integers(0, rank - 1)) if rank else 0
    b = draw(st.sampled_from(alike))
    match name:
        case "add" | "sub" | "mul" | "div" | "maximum" | "minimum" | "choose":
            if b != a or name in ("add", "mul"):
                return Step(name, (a, b))
        case "where":
            return Step(name, (a, b), (draw(st.integers(1, 3)),))
        case "number":
            return Step(name, (a,), (draw(st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.37])),))
        case "power":
            return Step(name, (a,), (draw(st.sampled_from([2, 3])),))
        case "exp" | "sin" | "sqrt" | "log" | "abs":
            return Step(name, (a,))
        case "sum" | "mean" | "max" | "prod" | "var" if rank:
            return Step(name, (a,), (axis, draw(st.booleans())))
        case "softmax" if rank:
            return Step(name, (a,))
        case "transpose" if rank > 1:
            return Step(name, (a,), (tuple(draw(st.permutations(range(rank)))),))
        case "reshape":
            return Step(name, (a,), (_other_shape(draw, shape),))
        case "flip" if rank:
            return Step(name, (a,), (axis,))
        case "roll" if rank:
            return Step(name, (a,), (draw(st.integers(-3, 3)), axis))
        case "pad" if rank in (1, 2):
            modes = ["constant", "edge", "wrap"] + ["reflect"] * (min(shape) > 2)
            return Step(name, (a,), (draw(st.sampled_from(modes)),))
        case "slice" if rank:
            return Step(name, (a,), (_key(draw, shape),))
        case "assign" if rank:
            key = _key(draw, shape)
            part = np.empty(shape)[key].shape
            fits = [k for k, s in enumerate(shapes) if _fits(s, part)]
            if fits:
                return Step(name, (a, draw(st.sampled_from(fits))), (key,))
        case "concat" if rank:
            joined = [k for k, s in enumerate(shapes) if s[1:] == shape[1:] and len(s) == rank]
            return Step(name, (a, draw(st.sampled_from(joined))))
        case "stack":
            equal = [k for k, s in enumerate(shapes) if s == shape]
            return Step(name, (a, draw(st.sampled_from(equal))))
        case "broadcast":
            return Step(name, (a,), (draw(st.integers(1, 3)),))
        case "matmul" if rank:
            fits = [k for k, s in enumerate(shapes) if _multiplies(shape, s)]
            if fits:
                return Step(name, (a, draw(st.sampled_from(fits))))
        case "outer" if rank == 1:
            vectors = [k for k, s in enumerate(shapes) if len(s) == 1]
            return Step(name, (a, draw(st.sampled_from(vectors))))
        case "windows" if rank and shape[-1] > 1:
            size = draw(st.integers(1, int(shape[-1])))
            return Step(name, (a,), (size, draw(st.integers(1, 2))))
        case "gather" | "scatter" if rank:
            count = shape[0] if name == "scatter" else draw(st.integers(1, 4))
            bound = 2 if name == "scatter" else shape[0]
            index = st.lists(st.integers(0, int(bound) - 1), min_size=count, max_size=count)
            return Step(name, (a,), (tuple(draw(index)), 2)[: 1 + (name == "scatter")])
    return Step("tanh", (a,))


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a[::-1], b[::-1]))


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) <= len(b) and all(m in (1, n) for m, n in zip(a[::-1], b[::-1]))


def _multiplies(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    if not b:
        return False
    inner = b[0] if len(b) == 1 else b[-2]
    return a[-1] == inner and _broadcast(a[:-2], b[:-2])


def _other_shape(draw: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    size = int(np.prod(shape))
    first = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    rest = size // first
    second = draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
    return draw(st.sampled_from([(size,), (first, rest), (first, second, rest // second)]))


def _key(draw: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """A basic index that selects something."""
    key: list[Any] = []
    for extent in shape:
        if draw(st.booleans()):
            key.append(slice(None))
        elif draw(st.booleans()):
            key.append(draw(st.integers(-int(extent), int(extent) - 1)))
        else:
            start = draw(st.integers(0, int(extent) - 1))
            key.append(slice(start, None, draw(st.sampled_from([1, 2, -1]))))
    return tuple(key)


# ---------------------------------------------------------------------------------------- tests


def total(program: Program, leaves: list[Any], xp: Any) -> tuple[Any, list[Any]]:
    """A weighted sum of the last value and, less, of all others: every step gets a gradient."""
    values = program.values(leaves, xp)
    loss = xp.sum(values[-1] * 1.0)
    for k, value in enumerate(values[len(leaves) : -1]):
        loss = loss + xp.sum(xp.sin(value)) * (0.1 + 0.05 * (k % 3))
    return loss, values


def test_every_operation_is_drawn() -> None:
    assert set(CATALOGUE) == set(OPERATIONS)


def test_a_graph_that_is_bent_much_has_central_differences() -> None:
    """The only one of 2000 random programs whose gradient was not that of differences of second
    order, which were wrong by 1e-6."""
    x = np.array(0.411)

    def f(x: Any, xp: Any) -> Any:
        return xp.sin(512.0 * x * x * x * x) * 0.1

    v = mo.array(x, requires_grad=True)
    (slope,) = numeric_gradient(lambda a: float(f(a, np)), [x], order=4)
    np.testing.assert_allclose(python_value(mo.grad(f(v, mo), v)), slope, rtol=1e-8)


def test_random_graphs_have_numpys_values_and_central_differences() -> None:
    sizes: list[int] = []
    drawn: set[str] = set()

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(programs())
    def check(program: Program) -> None:
        leaves = program.leaves()
        want, wanted = total(program, leaves, np)
        vars_ = [mo.array(a, requires_grad=True) for a in leaves]
        loss, values = total(program, vars_, mo)
        sizes.append(len(toposort(v._node for v in values)))
        drawn.update(step.name for step in program.steps)
        assert [v.shape for v in values] == [v.shape for v in wanted]
        np.testing.assert_allclose(python_value(values[-1]), wanted[-1], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(python_value(loss), want, rtol=1e-9, atol=1e-9)
        with warnings.catch_warnings():  # a leaf may be used by no step
            warnings.simplefilter("ignore", mo.UnreachedGradientWarning)
            gradients = mo.grad(loss, vars_)
        slopes = numeric_gradient(lambda *a: float(total(program, list(a), np)[0]), leaves, order=4)
        for got, slope in zip(gradients, slopes):
            scale = max(1.0, float(np.abs(slope).max(initial=0)))
            np.testing.assert_allclose(python_value(got), slope, rtol=2e-6, atol=3e-7 * scale)
        if compiled(program, 10):
            np.testing.assert_allclose(loss.numpy(), want, rtol=1e-9, atol=1e-9)
            for got, slope in zip(gradients, slopes):
                scale = max(1.0, float(np.abs(slope).max(initial=0)))
                np.testing.assert_allclose(got.numpy(), slope, rtol=2e-6, atol=3e-7 * scale)

    check()
    assert statistics.median(sizes) >= 15, sorted(sizes)
    assert len(drawn) >= 0.7 * len(OPERATIONS), sorted(set(OPERATIONS) - drawn)
