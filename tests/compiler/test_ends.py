"""Serial loops end where the condition on all that they do first fails."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler.ends import end_early, end_of
from metaop.compiler.loops import Check, Const, For, Init, Load, Store, Update, show_kernel
from metaop.dtype import float32
from metaop.index import TRUE, evaluate
from tests.compiler.stages import (
    ALL_PASSES,
    after,
    input_values,
    machine_values,
    printed_values,
    recorded,
    reference_values,
    scheduled,
)

EXTENTS = [5, 23, 16]
I0, I1, I2 = (("i", k) for k in range(3))
PLACE = ("add", ("mul", I0, 23), I1)


def summed(guard, unguarded=()):
    """A loop i1 that adds x[PLACE] where the guard holds."""
    x = Load("x", PLACE, guard, 0.0, float32)
    update = Update("acc", (), "add", (x,), guard)
    return For(1, 0, 23, "serial", [For(2, 0, 16, "vector", [update]), *unguarded]), update


def test_a_loop_ends_where_its_condition_fails_and_nothing_inside_asks_again():
    inside = ("lt", PLACE, 100)
    loop, update = summed(("and", inside, ("lt", I2, 9)))
    end_early([loop], EXTENTS)
    ends = [evaluate(loop.stop, [i0, 0, 0]) for i0 in range(6)]
    assert ends == [23, 23, 23, 23, 100 - 4 * 23, 0]
    assert update.guard == ("lt", I2, 9) and update.values[0].guard == ("lt", I2, 9)


@pytest.mark.parametrize("kind", ["lt", "le"])
@pytest.mark.parametrize("step", [1, 2, 7])
def test_it_ends_with_the_first_iteration_that_does_not_meet_the_comparison(kind, step):
    part = (kind, ("add", ("mul", I1, step), I0), 40)
    end = end_of(part, 1, [60, 100, 16])
    for i0 in range(60):
        first = next(i1 for i1 in range(100) if not evaluate(part, [i0, i1, 0]))
        assert max(0, evaluate(end, [i0, 0, 0])) == first


@pytest.mark.parametrize(
    "guard",
    [
        TRUE,
        ("lt", I0, 3),  # says nothing about the loop
        ("lt", ("sub", 0, I1), 0),  # holds from an iteration on
        ("lt", ("mod", PLACE, 7), 3),
        ("lt", ("add", I1, I2), 12),  # another end for every lane
        ("eq", I1, 3),
    ],
)
def test_other_conditions_stay(guard):
    loop, update = summed(guard)
    end_early([loop], EXTENTS)
    assert loop.stop == 23 and update.guard == guard


@pytest.mark.parametrize(
    "more",
    [
        Store("y", I1, Const(1.0, float32)),
        Update("other", (), "add", (Const(1.0, float32),)),
    ],
)
def test_a_loop_that_does_something_anyway_runs_to_its_end(more):
    inside = ("lt", PLACE, 100)
    loop, update = summed(inside, unguarded=[more])
    end_early([loop], EXTENTS)
    assert loop.stop == 23 and update.guard == inside


def test_the_lanes_of_a_vector_loop_around_it_end_together():
    x = Load("x", PLACE, ("lt", PLACE, 100), 0.0, float32)
    loop = For(1, 0, 23, "serial", [Update("acc", (), "add", (x,), x.guard)])
    end_early([For(0, 0, 16, "vector", [Init("acc", (), "add", float32), loop])], EXTENTS)
    assert loop.stop == 23


def test_a_check_inside_reports_as_before():
    x = Check(Load("x", PLACE, TRUE, 0, float32), 0, 9, ("val", "check0"), TRUE)
    loop = For(1, 0, 23, "serial", [Update("acc", (), "add", (x,), ("lt", PLACE, 100))])
    end_early([loop], EXTENTS)
    assert loop.stop == 23


def test_pieces_of_a_long_sum_end_where_it_ends():
    generator = np.random.default_rng(0)
    x, g = (generator.standard_normal((211, 8, 7, 7)).astype(np.float32) for _ in range(2))
    w = mo.ones((8, 1, 3, 3)).requires_grad_()
    loss = (nn.functional.conv2d(mo.array(x), w, padding=1, groups=8) * mo.array(g)).sum()
    result = mo.grad(loss, [w])[0]
    graph, inputs = recorded(result), input_values(result)
    (pieces, _), ready = scheduled(result), after(graph, ALL_PASSES)
    text = show_kernel(pieces.kernel)
    assert "serial i4 in range(0, min(max(0, 211 - i3 * 11), 11))" in text
    assert "< 211" not in text
    for values in (printed_values(ready, inputs), machine_values(ready, inputs)):
        np.testing.assert_allclose(values[0], reference_values(graph, inputs)[0], 2e-5, 2e-5)
