"""Nothing that a jitted function sees may change without a new trace: the same program with and
without jit, what it sees changed between its calls."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn

Jit = Callable[[Any], Any]
FACTOR = 2.0


def drawn(*shape: int, seed: int = 0) -> mo.Var:
    generator = np.random.default_rng([seed, *shape])
    return mo.array(generator.standard_normal(shape).astype(np.float32))


X = drawn(3, 4)


class Settings:
    scale, mode = 2.0, "mul"


def attributes_of_a_class(jit: Jit) -> list:
    f = jit(lambda x: x * Settings.scale if Settings.mode == "mul" else x - Settings.scale)
    found = [f(X)]
    for scale, mode in [(3.5, "mul"), (3.5, "sub"), (2.0, "mul")]:
        Settings.scale, Settings.mode = scale, mode
        found.append(f(X))
    return found


def attributes_of_the_classes_of_a_module(jit: Jit) -> list:
    class Base(nn.Module):
        gain = 2.0

    class Scale(Base):
        def forward(self, x: Any) -> Any:
            return x * self.gain

    f = jit(Scale())
    found = [f(X)]
    for kind, gain in [(Base, 5.0), (Scale, 7.0), (Base, 9.0)]:  # the third one is hidden
        kind.gain = gain
        found.append(f(X))
    del Scale.gain
    return [*found, f(X)]


def methods(jit: Jit) -> list:
    class Base(nn.Module):
        def forward(self, x: Any) -> Any:
            return self.inner(x)

        def inner(self, x: Any) -> Any:
            return x + 1.0

    class Derived(Base):
        pass

    f = jit(Derived())
    found = [f(X)]
    for kind, shift in [(Base, 2.0), (Derived, 3.0)]:
        kind.inner = lambda self, x, shift=shift: x + shift  # type: ignore[method-assign]
        found.append(f(X))
    return found


def properties_and_static_methods(jit: Jit) -> list:
    factors = [2.0]

    class Scale(nn.Module):
        @property
        def factor(self) -> float:
            return factors[0]

        @staticmethod
        def shifted(x: Any) -> Any:
            return x + factors[0]

        def forward(self, x: Any) -> Any:
            return self.shifted(x) * self.factor

    f = jit(Scale())
    found = [f(X)]
    factors[0] = 3.0
    return [*found, f(X)]


def code_and_defaults(jit: Jit) -> list:
    def scaled(x: Any, k: float = 2.0, *, shifts: Any = [1.0]) -> Any:  # noqa: B006
        return x * k + shifts[0]

    f = jit(lambda x: scaled(x))
    found = [f(X)]
    scaled.__defaults__ = (3.0,)
    found.append(f(X))
    scaled.__kwdefaults__["shifts"][0] = 4.0
    found.append(f(X))
    scaled.__code__ = (lambda x, k, *, shifts: x - k).__code__
    return [*found, f(X)]


def a_function_of_a_library(jit: Jit) -> list:
    f = jit(lambda x: nn.functional.relu(x))
    found, before = [f(X)], nn.functional.relu
    nn.functional.relu = lambda x: x * 10.0
    try:
        found.append(f(X))
    finally:
        nn.functional.relu = before
    return [*found, f(X)]


def partials(jit: Jit) -> list:
    factors = {"k": 2.0}
    partial = functools.partial(lambda shift, x: x * factors["k"] + shift, 1.0)
    of_argument = jit(lambda function, x: function(x))
    found = []
    for k in (2.0, 5.0):
        factors["k"] = k
        found += [f(X) for f in (jit(partial), jit(lambda x: partial(x)))]
        found.append(of_argument(partial, X))
    return found


def containers(jit: Jit) -> list:
    queue, raw, names, array = collections.deque([1.0, 2.0]), bytearray(b"\1"), {1, 2}, np.ones(2)
    named = jit(lambda x: x * queue[0] + raw[0] + len(names) if array[0] else x)
    given = jit(lambda x, q, r, n: x * q[0] + r[0] + len(n))
    found = []
    for change in (
        lambda: None,
        lambda: queue.appendleft(5.0),
        lambda: raw.__setitem__(0, 9),
        lambda: names.add(7),
        lambda: array.fill(0.0),
    ):
        change()
        found += [named(X), given(X, queue, raw, names)]
    return found


def an_argument_that_is_a_var_from_outside(jit: Jit) -> list:
    w = drawn(4)

    def shift(x: Any) -> Any:
        x += 1.0
        return x + w

    f, other = jit(shift), drawn(4, seed=1)
    return [f(other), f(w), f(other), f(w), other, w]


def an_argument_that_is_a_parameter(jit: Jit) -> list:
    layer = nn.Linear(4, 2)
    with mo.no_grad():
        layer.weight.copy_(drawn(2, 4))
        layer.bias.fill_(0.5)
    optimizer = nn.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

    @jit
    def step(x: Any, w: Any) -> Any:
        loss = (layer(x) ** 2).mean() + (w * w).sum()
        optimizer.step(loss)
        return loss

    found = [step(X, w) for w in (drawn(2, 4), layer.weight, drawn(2, 4), layer.weight)]
    return [*found, layer.weight, layer.bias]


def gradients_of_an_argument_from_outside(jit: Jit) -> list:
    w, other = drawn(4).requires_grad_(), drawn(4, seed=2).requires_grad_()
    f = jit(lambda x: mo.grad((x * x * w).sum(), [w, x]))
    return [*f(other), *f(w), *f(other)]


PROGRAMS = [
    attributes_of_a_class, attributes_of_the_classes_of_a_module, methods,
    properties_and_static_methods, code_and_defaults, a_function_of_a_library, partials, containers,
    an_argument_that_is_a_var_from_outside, an_argument_that_is_a_parameter,
    gradients_of_an_argument_from_outside,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_no_replay_is_stale(program: Callable[[Jit], list]) -> None:
    """Each of these replayed what had been recorded before the change."""
    plain, jitted = ([x.numpy() for x in program(jit)] for jit in (lambda f: f, mo.jit))
    assert [a.tobytes() for a in plain] == [a.tobytes() for a in jitted]


def test_an_ndarray_argument_is_returned_as_a_var() -> None:
    """An object of the tracer itself was returned, and never what had been written to it."""

    @mo.jit
    def f(x: Any, y: Any) -> Any:
        x += 1.0
        return x, y, x, x * y

    for start in (0.0, 1.0):
        x, y = np.full(3, start, np.float32), np.full(3, start + 2, np.float32)
        results = f(x, y)
        x += 5.0  # nothing lies in memory that the caller may change
        y += 5.0
        assert all(isinstance(v, mo.Var) for v in results)
        one, two = start + 1, start + 2
        assert [v.tolist()[0] for v in results] == [one, two, one, one * two]


def test_what_a_function_sees_is_recorded_once_while_it_stays() -> None:
    class Scale(nn.Module):
        kinds, table = ["mul"], {"k": 2.0}

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(x) * self.table["k"] * len(self.kinds)

    f = mo.jit(Scale())
    for _ in range(3):
        f(X)
    assert f.count == 1
