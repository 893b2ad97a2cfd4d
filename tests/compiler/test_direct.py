"""The direct form of contractions: windows of few products over each channel, or few channels.

The oracle is NumPy in float64, and the loop nest that such a contraction comes from: it adds the
same products in the same order, so both must agree to the bit, unless the nest adds in lanes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.compiler import pipeline
from metaop.compiler.contraction import Plan, direct, plan
from metaop.compiler.loops import verify
from metaop.compiler.nest import Buffer, Nest
from metaop.compiler.schedule import schedule
from tests.compiler.stages import (  # fmt: skip
    ALL_PASSES,
    after,
    input_values,
    nests,
    only,
    recorded,
    run_machine,
    run_printed,
)
from tests.compiler.test_contraction import (
    assert_close,
    computed,
    convolved,
    gradient,
    image_gradient,
    parts,
    text,
    trained,
    values,
)
from tests.golden import assert_golden

# batch, channels, height, outputs, window, stride, padding, dilation, groups
DEPTHWISE = [
    (2, 3, 7, 3, 3, 1, 1, 1, 3),
    (1, 2, 28, 2, 5, 1, 2, 1, 2),
    (2, 2, 16, 2, 3, 1, 1, 1, 2),
    (2, 2, 9, 2, 3, 2, 1, 1, 2),
    (1, 2, 20, 2, 5, 2, 2, 1, 2),
    (1, 3, 20, 3, 3, 1, 2, 2, 3),
    (1, 2, 19, 2, 7, 1, 3, 1, 2),
    (1, 2, 30, 2, 5, 3, 1, 1, 2),
    (1, 2, 13, 2, 3, 1, 0, 1, 2),
    (1, 3, 40, 3, 4, 2, 0, 3, 3),
    (1, 1, 112, 1, 3, 1, 1, 1, 1),
    (1, 1, 150, 1, 3, 2, 20, 1, 1),
    (2, 4, 12, 8, 3, 1, 1, 1, 4),
    (1, 4, 12, 8, 3, 2, 1, 1, 4),
    (2, 8, 11, 8, 3, 1, 1, 1, 2),
    (1, 4, 13, 2, 3, 1, 1, 1, 2),
]


def direct_plan(nest: Nest) -> Plan | None:
    """The kernel of the direct form, None for what has another one."""
    made = plan(nest, "k0")
    if made is None or made.form != "direct":
        return None
    verify(only(made.launches).kernel)
    return made


def by_loops(nest: Nest, inputs: list[np.ndarray]) -> np.ndarray:
    """What the loop nest itself computes."""
    made = schedule(nest)
    memory: dict[Buffer, np.ndarray] = {
        b: np.ravel(inputs[b.position]) for b in nest.buffers.values()
    }
    memory[nest.target] = np.full(nest.target.size, np.nan, nest.target.dtype.storage)
    arrays = [memory[b] for b in made.buffers]
    run_machine(made.kernel, arrays, list(made.integers.values()), made.chunks)
    return memory[nest.target]


def assert_direct(result: mo.Var, want: np.ndarray | None = None, printed: bool = True) -> None:
    """The direct form computes `want`, or else what the loop nest computes, to the bit."""
    nest = only(nests(result))
    made = direct_plan(nest)
    assert made is not None, nest.show()
    inputs = input_values(result)
    got = computed(nest, made, inputs, run_machine)
    if not nest.lanes:  # which adds up side by side what lies side by side
        assert got.tobytes() == by_loops(nest, inputs).tobytes()
    exact = by_loops(nest, inputs) if want is None else want
    assert_close(got, exact, result.dtype.name)
    if printed:
        assert_close(computed(nest, made, inputs, run_printed), got, result.dtype.name)


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_a_convolution(case: tuple[int, ...]):
    x, w, y, _, options = parts(case)
    assert_direct(y, convolved(x.numpy(), w.numpy(), *options), math.prod(y.shape) < 2000)


@pytest.mark.parametrize("case", [c for c in DEPTHWISE if c[7] == 1 or c[5] == 1], ids=str)
def test_the_gradient_of_an_image(case: tuple[int, ...]):
    found, want = gradient(case, 0)
    assert_direct(found, want, math.prod(found.shape) < 2000)


@pytest.mark.parametrize("registers", [(32, 1), (16, 2), (16, 4)])
def test_no_result_depends_on_the_registers(registers, monkeypatch: pytest.MonkeyPatch):
    case = (1, 2, 20, 2, 5, 1, 2, 1, 2)
    monkeypatch.setattr(direct, "registers", lambda dtype: registers)
    x, w, y, _, options = parts(case)
    assert_direct(y, convolved(x.numpy(), w.numpy(), *options), printed=False)


@pytest.mark.parametrize("room", [1, 3000])
def test_panels_of_a_part_of_an_image(room: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(direct, "MOST_PANEL", room)
    for case in ((1, 2, 30, 2, 3, 1, 1, 1, 2), (1, 2, 31, 2, 5, 2, 2, 1, 2)):
        assert_direct(parts(case)[2], printed=False)
        assert_direct(gradient(case, 0)[0], printed=False)


def test_float64():
    x, w = trained(1, 2, 14, 14, dtype="float64"), trained(2, 1, 3, 3, dtype="float64")
    y = mo.conv2d(x, w, padding=1, groups=2)
    assert_direct(y, convolved(x.numpy(), w.numpy(), 1, 1, 1, 2))


def test_windows_along_one_axis_and_along_three():
    assert_direct(mo.conv1d(values(2, 3, 50), values(3, 1, 5), padding=2, groups=3))
    x, w = values(1, 2, 6, 7, 18), values(2, 1, 3, 3, 3)
    assert_direct(mo.conv3d(x, w, padding=1, groups=2), printed=False)


def test_windows_that_do_not_cover_an_image_of_three_axes():
    x, w = values(1, 2, 9, 7, 18), values(2, 1, 2, 3, 3)
    assert_direct(mo.conv3d(x, w, stride=(3, 1, 2), padding=1, groups=2), printed=False)


def test_a_factor_that_is_an_expression_is_evaluated_where_it_is_read():
    """exp of what lies outside the image is 1: zeros are no substitute for it."""
    x, w, shift = values(1, 2, 12, 12), values(2, 1, 3, 3), values(2)
    padded = mo.exp(mo.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))))
    y = mo.conv2d(padded, w + shift[:, None, None, None], groups=2)
    image = np.exp(np.pad(x.numpy().astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1))))
    weights = w.numpy() + shift.numpy()[:, None, None, None]
    np.testing.assert_allclose(
        y.numpy(), convolved(image, weights, 1, 0, 1, 2), rtol=1e-4, atol=1e-4
    )


def test_what_is_made_of_a_result_is_stored_with_it():
    """relu(conv(x, w) + bias), and the convolution itself, are one kernel."""
    x, w, bias = values(2, 3, 14, 14), values(3, 1, 3, 3), values(3)
    y = mo.conv2d(x, w, padding=1, groups=3)
    z = mo.maximum(y + bias[:, None, None], 0.0)
    graph = after(recorded(y, z), ALL_PASSES)
    _, grouped = pipeline.group_graph(graph)
    made = plan(only(grouped.trees), "k0")
    assert made is not None and made.form == "direct"
    assert [b.role for b in made.tree.writes] == ["out", "out"]
    exact = convolved(x.numpy(), w.numpy(), 1, 1, 1, 3)
    assert_close(y.numpy(), exact)
    assert_close(z.numpy(), np.maximum(exact + bias.numpy()[:, None, None], 0))


@pytest.mark.parametrize("special", [np.inf, np.nan])
def test_what_is_not_finite_reaches_the_windows_that_see_it_and_no_other(special: float):
    for case in ((1, 2, 20, 2, 3, 1, 1, 1, 2), (1, 2, 20, 2, 3, 2, 1, 1, 2)):
        _, w, y, g, options = parts(case)
        g[0, 1, 3, 4] = special
        x = mo.Var(np.zeros((1, 2, 20, 20), np.float32), requires_grad=True)
        y = mo.conv2d(x, w, stride=case[5], padding=1, groups=2)
        (found,) = mo.grad((y * mo.array(g)).sum(), [x])
        with np.errstate(invalid="ignore"):
            want = image_gradient(x.numpy(), w.numpy(), g, *options)
        np.testing.assert_array_equal(np.isfinite(found.numpy()), np.isfinite(want))


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, ...]:
    groups = draw(st.integers(1, 3))
    size, gap, pad = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(0, 4))
    height = draw(st.integers(max(1, (size - 1) * gap + 1 - 2 * pad), 40))
    return (
        draw(st.integers(1, 2)), groups * draw(st.sampled_from([1, 1, 2])), height,
        groups * draw(st.sampled_from([1, 1, 3])), size, draw(st.integers(1, 4)), pad, gap, groups,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(cases())
def test_any_window_is_computed_as_by_the_loop_nest(case: tuple[int, ...]):
    for result in (parts(case)[2], gradient(case, 0)[0], gradient(case, 1)[0]):
        nest = nests(result)[-1]
        if nest.contraction and len(nests(result)) == 1 and direct_plan(nest) is not None:
            assert_direct(result, printed=False)


def test_results_do_not_depend_on_chunks_or_their_order():
    nest = only(nests(result := gradient((2, 3, 31, 3, 5, 2, 2, 1, 3), 0)[0]))
    made, inputs = direct_plan(nest), input_values(result)
    assert made is not None and made.launches[0].chunks > 1
    want = computed(nest, made, inputs, run_machine)
    for chunks, backwards in ((1, False), (3, True), (7, False)):
        got = computed(nest, made, inputs, run_machine, chunks, backwards)
        assert got.tobytes() == want.tobytes()


def test_a_product_of_matrices_has_no_windows():
    for result in (values(40, 3) @ values(3, 50), values(3, 40, 60) @ values(60)):
        assert direct_plan(only(nests(result))) is None


def test_a_window_golden(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(direct, "registers", lambda dtype: (8, 2))
    x, w = values(2, 3, 9, 20), values(3, 1, 2, 2)
    made = direct_plan(only(nests(mo.conv2d(x, w, stride=(1, 2), padding=1, groups=3))))
    assert made is not None
    assert_golden(text(made))
