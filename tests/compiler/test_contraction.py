"""Contractions as kernels of register tiles over packed panels: the classes of their loops, the
loops as text, and what both printers compute, whatever the shapes and the blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop import nn
from metaop.compiler import contraction, pipeline
from metaop.compiler.contraction import Plan, blocks, borders, build, plan
from metaop.compiler.contraction.classify import Contraction, classify, prepared
from metaop.compiler.emit_python import emit_python
from metaop.compiler.loops import Fetch, show_kernel, statements, verify
from metaop.compiler.nest import Buffer, Nest
from metaop.extent import Extent, evaluate, symbol
from tests.compiler.stages import (
    ALL_PASSES,
    after,
    input_values,
    nests,
    only,
    recorded,
    run_machine,
    run_printed,
)
from tests.golden import assert_golden
from tests.helpers import python_value

RELATIVE = {"float32": 2e-5, "float64": 1e-12}
Run = Callable[..., object]


def values(*shape: int, dtype: str = "float32", seed: int = 0) -> mo.Var:
    generator = np.random.default_rng([seed, *shape])
    return mo.array(generator.standard_normal(shape).astype(dtype))


def trained(*shape: int, dtype: str = "float32") -> mo.Var:
    x = values(*shape, dtype=dtype)
    x.requires_grad = True
    return x


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that small shapes have several of each, on any machine the same."""
    shrink(monkeypatch)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "KEPT", 18)
    monkeypatch.setattr(blocks, "LONGEST_CHAIN", 11)
    monkeypatch.setattr(blocks, "KEPT_DOTS", (20,))
    monkeypatch.setattr(blocks, "MOST_ROWS", (4, 8))
    monkeypatch.setattr(blocks, "LEAST_ROWS", 4)
    monkeypatch.setattr(blocks, "MOST_DOT", (5,))
    monkeypatch.setattr(blocks, "MOST_COLUMNS", (30, 48))
    for module in (blocks, build):
        monkeypatch.setattr(module, "SHARED", 3)
    monkeypatch.setattr(blocks, "processors", lambda: 4)
    monkeypatch.setattr(blocks, "registers", lambda dtype: (16, dtype.itemsize // 4))
    always(monkeypatch)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels also where another schedule is faster."""
    always(monkeypatch)


def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contraction, "pays", lambda found, divided: True)
    monkeypatch.setattr(contraction, "choose_direct", lambda found: None)


# --- running a plan -------------------------------------------------------------------------------


def planned(result: mo.Var) -> tuple[Nest, Plan]:
    nest = only(nests(result))
    made = plan(nest, "k0")
    assert made is not None, nest.show()
    for launch in made.launches:
        verify(launch.kernel)
    return nest, made


def computed(
    nest: Nest, made: Plan, inputs: list[np.ndarray], run: Run, chunks: int | None = None,
    backwards: bool = False,
) -> np.ndarray:  # fmt: skip
    """What the kernels write, one after the other."""
    memory: dict[Buffer, np.ndarray] = {}
    for buffer in nest.buffers.values():
        memory[buffer] = np.ravel(inputs[buffer.position]).copy()
    for buffer in (*made.temporaries, nest.target):
        memory[buffer] = np.full(buffer.size, np.nan, buffer.dtype.storage)
    for launch in made.launches:
        count = chunks or launch.chunks
        order = range(count - 1, -1, -1) if backwards else range(count)
        arrays = [memory[b] for b in launch.buffers]
        run(launch.kernel, arrays, list(launch.integers.values()), count, only_chunks=order)
    return memory[nest.target]


def assert_close(got: np.ndarray, want: np.ndarray, dtype: str = "float32") -> None:
    scale = np.abs(want[np.isfinite(want)]).max(initial=1e-30)
    np.testing.assert_allclose(got.reshape(want.shape) / scale, want / scale, rtol=0,
                               atol=RELATIVE[dtype])  # fmt: skip


def assert_computes(result: mo.Var, want: np.ndarray, dtype: str = "float32") -> Plan:
    """Both printers' results are `want`."""
    nest, made = planned(result)
    inputs = input_values(result)
    assert_close(computed(nest, made, inputs, run_machine), want, dtype)
    assert_close(computed(nest, made, inputs, run_printed), want, dtype)
    return made


# --- the definitions, in float64 ------------------------------------------------------------------


def windows(x: np.ndarray, size: int, stride: int, pad: int, gap: int) -> np.ndarray:
    """x [n, c, h, w] seen through windows: a copy [n, c, i, j, r, q]."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    span = (size - 1) * gap + 1
    seen = np.lib.stride_tricks.sliding_window_view(x, (span, span), axis=(2, 3))
    return seen[:, :, ::stride, ::stride, ::gap, ::gap]


def convolved(x: np.ndarray, w: np.ndarray, stride: int, pad: int, gap: int,
              groups: int) -> np.ndarray:  # fmt: skip
    seen = windows(x, w.shape[2], stride, pad, gap)
    parts = [
        np.einsum("ncijrq,ocrq->noij", one, filters.astype(np.float64))
        for one, filters in zip(np.split(seen, groups, 1), np.split(w, groups, 0))
    ]
    return np.concatenate(parts, 1)


def filter_gradient(x: np.ndarray, w: np.ndarray, g: np.ndarray, stride: int, pad: int, gap: int,
                    groups: int) -> np.ndarray:  # fmt: skip
    seen = windows(x, w.shape[2], stride, pad, gap)
    parts = [
        np.einsum("ncijrq,noij->ocrq", one, part.astype(np.float64))
        for one, part in zip(np.split(seen, groups, 1), np.split(g, groups, 1))
    ]
    return np.concatenate(parts, 0)


def image_gradient(x: np.ndarray, w: np.ndarray, g: np.ndarray, stride: int, pad: int, gap: int,
                   groups: int) -> np.ndarray:  # fmt: skip
    """The adjoint of the convolution, tap by tap."""
    size, rows, columns = w.shape[2], *g.shape[2:]
    wide = np.zeros((*x.shape[:2], x.shape[2] + 2 * pad, x.shape[3] + 2 * pad))
    channels, outputs = x.shape[1] // groups, w.shape[0] // groups
    for part in range(groups):
        mine, theirs = slice(part * channels, (part + 1) * channels), slice(
            part * outputs, (part + 1) * outputs)  # fmt: skip
        for r in range(size):
            for q in range(size):
                tap = np.einsum(
                    "noij,oc->ncij", g[:, theirs].astype(np.float64), w[theirs, :, r, q]
                )
                wide[:, mine, r * gap : r * gap + stride * (rows - 1) + 1 : stride,
                     q * gap : q * gap + stride * (columns - 1) + 1 : stride] += tap  # fmt: skip
    return wide[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]]


# --- products of matrices -------------------------------------------------------------------------

MATRICES = [
    (2, 3, 2),
    (17, 5, 33),
    (9, 31, 50),
    (2, 40, 20),
    (30, 2, 16),
    (5, 70, 19),
    (26, 26, 26),
]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("m", "k", "n"), MATRICES)
def test_a_product_of_matrices_in_small_blocks(m: int, k: int, n: int):
    a, b = values(m, k), values(k, n, seed=1)
    assert_computes(a @ b, a.numpy().astype(np.float64) @ b.numpy())


@pytest.mark.usefixtures("packed")
@pytest.mark.parametrize(("m", "k", "n"), [(33, 70, 40), (8, 300, 20), (200, 9, 7)])
def test_a_product_of_matrices(m: int, k: int, n: int):
    a, b = values(m, k), values(k, n, seed=1)
    assert_computes(a @ b, a.numpy().astype(np.float64) @ b.numpy())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("left", [False, True], ids=["a", "a transposed"])
@pytest.mark.parametrize("right", [False, True], ids=["b", "b transposed"])
def test_transposed_operands(left: bool, right: bool):
    a, b = values(*((70, 21) if left else (21, 70))), values(*((18, 70) if right else (70, 18)))
    x, y = mo.transpose(a) if left else a, mo.transpose(b) if right else b
    want = (a.numpy().T if left else a.numpy()).astype(np.float64) @ (
        b.numpy().T if right else b.numpy()
    )
    assert_computes(x @ y, want)


@pytest.mark.usefixtures("packed")
def test_a_product_of_two_matrices_along_k_is_in_the_dot_form():
    a, b = values(20, 500), values(9, 500)
    made = assert_computes(a @ mo.transpose(b), a.numpy().astype(np.float64) @ b.numpy().T)
    assert made.form == "dot"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("one", "two"), [((3, 9, 13), (3, 13, 20)), ((9, 13), (2, 13, 20)),
                                          ((2, 3, 5, 17), (3, 17, 18))])  # fmt: skip
def test_batches_of_matrices(one: tuple[int, ...], two: tuple[int, ...]):
    a, b = values(*one), values(*two)
    assert_computes(a @ b, a.numpy().astype(np.float64) @ b.numpy())


@pytest.mark.usefixtures("small_blocks")
def test_float64_adds_up_in_float64():
    a, b = values(19, 33, dtype="float64"), values(33, 21, dtype="float64")
    assert_computes(a @ b, a.numpy() @ b.numpy(), "float64")


@pytest.mark.usefixtures("small_blocks")
def test_factors_that_are_expressions_are_evaluated_while_packing():
    a, b = values(19, 33), values(33, 21)
    result = mo.maximum(a, 0.0) @ mo.minimum(b, 0.5)
    x, y = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    made = assert_computes(result, np.maximum(x, 0) @ np.minimum(y, 0.5))
    assert "maximum" in text(made) and "minimum" in text(made)


# --- convolutions and their gradients -------------------------------------------------------------

# batch, channels, height, outputs, window, stride, padding, dilation, groups
CONVOLUTIONS = [
    (2, 3, 7, 4, 3, 1, 1, 1, 1),
    (1, 4, 9, 3, 3, 2, 1, 1, 1),
    (2, 2, 8, 5, 2, 3, 0, 1, 1),
    (2, 3, 11, 2, 3, 2, 2, 2, 1),
    (2, 4, 6, 6, 3, 1, 1, 1, 2),
    (1, 6, 7, 4, 3, 2, 1, 1, 2),
    (3, 5, 5, 7, 1, 1, 0, 1, 1),
    (2, 4, 7, 9, 1, 2, 0, 1, 1),
    (2, 5, 8, 40, 1, 2, 0, 1, 1),
    (1, 2, 13, 3, 7, 2, 3, 1, 1),
    (1, 3, 4, 2, 4, 1, 3, 1, 1),
]


def parts(case: tuple[int, ...]) -> tuple[mo.Var, mo.Var, mo.Var, np.ndarray, tuple[int, ...]]:
    n, c, h, o, size, stride, pad, gap, groups = case
    x, w = trained(n, c, h, h), trained(o, c // groups, size, size)
    y = mo.conv2d(x, w, stride=stride, padding=pad, dilation=gap, groups=groups)
    g = values(*y.shape, seed=2)
    return x, w, y, g.numpy(), (stride, pad, gap, groups)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_a_convolution(case: tuple[int, ...]):
    x, w, y, _, settings_ = parts(case)
    assert_computes(y, convolved(x.numpy(), w.numpy(), *settings_))


def gradient(case: tuple[int, ...], of: int) -> tuple[mo.Var, np.ndarray]:
    x, w, y, g, settings_ = parts(case)
    found = mo.grad((y * mo.array(g)).sum(), [x, w])[of]
    define = (image_gradient, filter_gradient)[of]
    return found, define(x.numpy(), w.numpy(), g, *settings_)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_the_gradient_of_an_image(case: tuple[int, ...]):
    assert_computes(*gradient(case, 0))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_the_gradient_of_a_filter(case: tuple[int, ...]):
    assert_computes(*gradient(case, 1))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("most", [(9,), (40, 90)], ids=["one window a block", "several"])
@pytest.mark.parametrize(
    "case",
    [
        (2, 3, 9, 8, 3, 1, 1, 1, 1),
        (3, 2, 7, 33, 3, 2, 1, 1, 1),
        (2, 4, 11, 17, 5, 3, 2, 1, 1),
        (2, 5, 8, 19, 2, 1, 0, 1, 1),
        (5, 4, 3, 20, 3, 1, 1, 1, 1),
        (2, 3, 12, 18, 7, 1, 3, 1, 1),
    ],
    ids=str,
)
def test_a_filter_s_gradient_over_the_image_as_it_lies(
    case: tuple[int, ...], most: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    """The panel of an image holds every element once, not once for every tap that sees it."""
    monkeypatch.setattr(blocks, "registers", lambda dtype: (32, 1))
    monkeypatch.setattr(blocks, "MOST_ROWS", most)
    monkeypatch.setattr(blocks, "KEPT", 30)
    monkeypatch.setattr(blocks, "_dot_options", lambda c: iter(()))
    monkeypatch.setattr(blocks.Costs, "_pack_taps", lambda *arguments: -1e9)
    made = assert_computes(*gradient(case, 1))
    assert made.blocks is not None and made.blocks.taps is not None
    assert made.blocks.taps.count % case[4] == 0


def choose_first(
    monkeypatch: pytest.MonkeyPatch, panels: str, wanted: Callable[[blocks.Option], bool]
) -> None:
    """The first option with panels of a kind that is as wanted, whatever it costs."""

    def search(c: Contraction) -> blocks.Choice | None:
        for turned in (False, True):
            choice = blocks.Choice(turned, panels)
            for k, family in enumerate(blocks._options(c.turned() if turned else c, choice)):
                for position in range(len(family.inner)):
                    if wanted(family[position]):
                        return replace(choice, place=(k, position))
        return None

    monkeypatch.setattr(blocks, "_search", search)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "case",
    [
        (2, 3, 9, 20, 3, 1, 1, 1, 1),
        (5, 20, 3, 4, 3, 1, 1, 1, 1),
        (2, 17, 8, 5, 2, 1, 0, 1, 1),
        (2, 18, 12, 3, 5, 1, 3, 1, 1),
        (2, 33, 11, 3, 3, 1, 2, 2, 1),
    ],
    ids=str,
)
def test_an_image_s_gradient_over_taps_counted_backwards(
    case: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    def backwards(option: blocks.Option) -> bool:
        assert option.taps is not None
        return all(step == -case[7] for _, step in option.taps.taps.values())

    monkeypatch.setattr(blocks, "registers", lambda dtype: (32, 1))
    monkeypatch.setattr(blocks, "KEPT", 30)
    choose_first(monkeypatch, "taps", backwards)
    made = assert_computes(*gradient(case, 0))
    assert made.blocks is not None and made.blocks.taps is not None


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 8, 16), (1, 2, 5, 32), (2, 2, 3, 4, 16)], ids=str)
def test_no_vector_of_columns_has_results_of_two_rows(
    shape: tuple[int, ...], columns: int, monkeypatch: pytest.MonkeyPatch
):
    """Rows of results that are whole vectors: none is computed for the borders between them."""
    monkeypatch.setattr(blocks, "tiles", lambda *arguments: [blocks.Tile(2, columns)])
    monkeypatch.setattr(blocks, "MOST_COLUMNS", (96,))
    choose_first(
        monkeypatch, "windows", lambda one: one.windows is not None and one.windows.row_by_row
    )
    size, rank = 3, len(shape) - 2
    x, w = values(*shape), values(5, shape[1], *[size] * rank, seed=1)
    convolve = mo.conv2d if rank == 2 else mo.conv3d
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), *[(1, 1)] * rank])
    seen = np.lib.stride_tricks.sliding_window_view(padded, [size] * rank, axis=range(2, rank + 2))
    letters = "ijk"[:rank], "pqr"[:rank]
    equation = f"nc{letters[0]}{letters[1]},oc{letters[1]}->no{letters[0]}"
    made = assert_computes(convolve(x, w, padding=1), np.einsum(equation, seen, w.numpy()))
    assert made.blocks is not None and made.blocks.windows is not None
    assert made.blocks.windows.row_by_row
    assert made.blocks.columns % 16 == 0 and made.blocks.columns <= 96


def kept_as_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, of images packed as they lie wherever that can be."""
    monkeypatch.setattr(blocks, "MOST_COLUMNS", (64, 400))
    monkeypatch.setattr(blocks, "KEPT", 80)
    monkeypatch.setattr(blocks, "LONGEST_CHAIN", 33)
    monkeypatch.setattr(blocks.Costs, "_again", lambda self, windows, n: -1e9 if windows else 1.0)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("of", ["result", "image"])
@pytest.mark.parametrize(
    "case",
    [
        (2, 3, 8, 5, 5, 1, 4, 1, 1),
        (3, 4, 6, 3, 3, 1, 1, 1, 1),
        (2, 2, 9, 4, 3, 1, 4, 2, 1),
        (2, 3, 11, 4, 4, 1, 2, 1, 1),
        (1, 2, 40, 3, 5, 1, 2, 1, 1),
    ],
    ids=str,
)
def test_taps_that_see_only_the_border_are_left_out(
    case: tuple[int, ...], of: str, monkeypatch: pytest.MonkeyPatch
):
    """The bits are the same with and without."""
    kept_as_windows(monkeypatch)
    x, w, y, _, settings_ = parts(case)
    found, want = (y, convolved(x.numpy(), w.numpy(), *settings_))
    if of == "image":
        found, want = gradient(case, 0)
    bits = []
    for begin, left_out in ((math.inf, False), (-math.inf, True)):
        monkeypatch.setattr(borders, "BEGIN", begin)
        assert ("last_tap" in text(assert_computes(found, want))) == left_out
        bits.append(computed(*planned(found), input_values(found), run_machine))
    np.testing.assert_array_equal(*bits)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("strange", [math.inf, math.nan])
def test_no_tap_of_a_filter_that_is_not_finite_is_left_out(
    strange: float, monkeypatch: pytest.MonkeyPatch
):
    """0 times an infinity is a NaN: it depended on the blocks in which results it was."""
    kept_as_windows(monkeypatch)
    x, w = trained(2, 3, 8, 8), trained(5, 3, 5, 5).numpy()
    w[1, 2, 0, 1] = w[4, 0, 4, 4] = strange
    y = mo.conv2d(x, nn.Parameter(w), padding=4)
    want = convolved(x.numpy(), w, 1, 4, 1, 1)
    assert np.isnan(want).sum() > np.isinf(w).sum() and np.isfinite(want[:, 0]).all()
    for begin, left_out in ((math.inf, False), (-math.inf, True)):
        monkeypatch.setattr(borders, "BEGIN", begin)
        assert ("last_tap" in text(assert_computes(y, want))) == left_out


def test_rows_of_taps_that_a_wide_border_leaves():
    """The gradient of LeNet's second convolution: 22 of 30 rows of taps see more than zeros."""
    border = borders.Border(begin=4, end=12, count=5, distance=-1, inner=5, pitch=16)
    assert border.share(12, 32) == 22 / 30
    assert border.share(12, 16) == 40 / 60


@pytest.mark.usefixtures("small_blocks")
def test_pixels_as_rows_for_any_number_of_images(monkeypatch: pytest.MonkeyPatch):
    """Pixels are taps of the filter's, whether the number of images is known or not; one kernel
    with an unknown number serves all."""
    packed: list[Any] = []
    pack_taps = build.Builder.pack_taps
    monkeypatch.setattr(
        build.Builder, "pack_taps", lambda self, *a: packed.append(self.c) or pack_taps(self, *a)
    )
    monkeypatch.setattr(mo.config, "cache", "off")
    monkeypatch.setattr(blocks, "registers", lambda dtype: (32, 1))
    monkeypatch.setattr(blocks.Costs, "_pack_taps", lambda *arguments: -1e9)
    w = values(18, 3, 3, 3, seed=1)
    for count in (2, 3, 5, 8, 9, 21):
        x = values(count, 3, 4, 5)
        y = mo.conv2d(x, w, padding=1)
        want = convolved(x.numpy(), w.numpy(), 1, 1, 1, 1)
        made = assert_computes(y, want)
        assert made.blocks is not None and made.blocks.taps is not None
        assert_close(mo.conv2d(x, w, padding=1).numpy(), want)
        assert "rows_of_run" in text(made)  # no vector of rows has results of two images
    dynamic = [c for c in packed if isinstance(c.size(c.m), Extent)]
    assert len(dynamic) == 1


@pytest.mark.usefixtures("packed")
@pytest.mark.parametrize("case", [(2, 20, 19, 17, 3, 1, 1, 1, 1), (3, 16, 17, 24, 3, 2, 1, 1, 2),
                                  (5, 33, 7, 40, 3, 1, 1, 1, 1), (2, 40, 30, 9, 5, 1, 0, 1, 1)],
                         ids=str)  # fmt: skip
def test_larger_convolutions_in_the_blocks_of_this_machine(case: tuple[int, ...]):
    x, w, y, g, settings_ = parts(case)
    dx, dw = mo.grad((y * mo.array(g)).sum(), [x, w])
    results = {
        y: convolved(x.numpy(), w.numpy(), *settings_),
        dx: image_gradient(x.numpy(), w.numpy(), g, *settings_),
        dw: filter_gradient(x.numpy(), w.numpy(), g, *settings_),
    }
    for result, want in results.items():
        nest, made = planned(result)
        assert_close(computed(nest, made, input_values(result), run_machine), want)


@pytest.mark.parametrize("case", [(2, 16, 14, 16, 1, 2, 0, 1, 1), (3, 16, 9, 16, 1, 1, 0, 1, 1),
                                  (2, 16, 10, 16, 3, 2, 1, 1, 1)], ids=str)  # fmt: skip
def test_packing_stays_inside_its_panels(case: tuple[int, ...]):
    """Rows of a panel whose inner loops run as one were packed up to 15 elements further than there
    was room for: zeros in whatever lies behind the panel."""
    x, w, y, g, settings_ = parts(case)
    for result, want in zip(mo.grad((y * mo.array(g)).sum(), [x, w]),
                            [image_gradient(x.numpy(), w.numpy(), g, *settings_),
                             filter_gradient(x.numpy(), w.numpy(), g, *settings_)]):  # fmt: skip
        assert_close(python_value(result, grouped=True), want)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, ...]:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    size = draw(st.integers(1, 4))
    gap = draw(st.integers(1, 2))
    pad = draw(st.integers(0, 2))
    height = draw(st.integers(max(1, (size - 1) * gap + 1 - 2 * pad), 14))
    return (
        draw(st.integers(1, 3)), groups * draw(st.integers(1, 5)), height,
        groups * draw(st.integers(1, 5)), size, draw(st.integers(1, 3)), pad, gap, groups,
    )  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(cases())
def test_any_convolution_and_its_gradients(case: tuple[int, ...]):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)
        x, w, y, g, settings_ = parts(case)
        dx, dw = mo.grad((y * mo.array(g)).sum(), [x, w])
        for result, want in (
            (y, convolved(x.numpy(), w.numpy(), *settings_)),
            (dx, image_gradient(x.numpy(), w.numpy(), g, *settings_)),
            (dw, filter_gradient(x.numpy(), w.numpy(), g, *settings_)),
        ):
            nest = nests(result)[-1]
            made = plan(nest, "k0") if nest.contraction else None
            if made is not None and len(nests(result)) == 1:
                assert_close(computed(nest, made, input_values(result), run_machine), want)


# --- what does not change a bit -------------------------------------------------------------------


def several() -> Iterator[mo.Var]:
    yield values(29, 45) @ values(45, 70)
    yield values(29, 45) @ mo.transpose(values(30, 45))
    yield parts((2, 3, 11, 9, 3, 2, 1, 1, 1))[2]
    yield gradient((2, 3, 11, 9, 3, 2, 1, 1, 1), 0)[0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("number", range(4))
def test_results_do_not_depend_on_chunks_or_their_order(number: int):
    result = list(several())[number]
    nest, made = planned(result)
    inputs = input_values(result)
    want = computed(nest, made, inputs, run_machine)
    assert max(launch.chunks for launch in made.launches) > 1
    for chunks, backwards in ((1, False), (3, True), (7, False)):
        got = computed(nest, made, inputs, run_machine, chunks, backwards)
        assert got.tobytes() == want.tobytes()


def test_results_do_not_depend_on_the_number_of_threads():
    a, b = values(150, 300).numpy(), values(300, 170).numpy()
    results = []
    for threads in (1, 2, 3):
        mo.set_num_threads(threads)
        results.append((mo.array(a) @ mo.array(b)).numpy().tobytes())
    mo.set_num_threads(2)
    assert len(set(results)) == 1


# --- classes, code, memory ------------------------------------------------------------------------


def classes(result: mo.Var) -> tuple[int, int, int, int]:
    found = classify(*prepared(only(nests(result))))
    assert found is not None
    return tuple(math.prod(found.nest.extents[k] for k in loops)
                 for loops in (found.batch, found.m, found.n, found.k))  # fmt: skip


def test_the_loops_of_a_matrix_product_are_m_n_and_k():
    assert classes(values(5, 6) @ values(6, 7)) == (1, 5, 7, 6)


def test_the_loops_of_a_batch_are_in_both_factors():
    assert classes(values(3, 5, 6) @ values(3, 6, 7)) == (3, 5, 7, 6)


def test_the_images_and_positions_of_a_convolution_are_one_class():
    assert classes(parts((2, 3, 8, 5, 3, 1, 1, 1, 1))[2]) == (1, 5, 2 * 8 * 8, 27)


def test_the_groups_of_a_convolution_are_a_batch():
    assert classes(parts((2, 6, 8, 4, 3, 1, 1, 1, 2))[2]) == (2, 2, 2 * 8 * 8, 27)


def test_the_residues_of_a_strided_gradient_are_a_batch():
    found, _ = gradient((2, 3, 8, 5, 3, 2, 1, 1, 1), 0)
    assert classes(found) == (2 * 2, 3, 2 * 4 * 4, 5 * 2 * 2)


def test_a_depthwise_convolution_has_no_rows_to_tile():
    assert classes(parts((2, 4, 8, 4, 3, 1, 1, 1, 4))[2]) == (4, 1, 2 * 8 * 8, 9)


def test_a_plain_sum_is_no_contraction():
    assert plan(only(nests(values(40, 50).sum(axis=1))), "k0") is None


def test_few_products_need_no_panels():
    assert plan(only(nests(values(8, 16) @ values(16, 16))), "k0") is None


def test_no_option_costs_less_than_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options are left out by their floors, which must not change the choice."""
    searched: list[Contraction] = []
    search = blocks._search
    monkeypatch.setattr(blocks, "_search", lambda c: searched.append(c) or search(c))
    monkeypatch.setattr(blocks, "registers", lambda dtype: (32, 1))
    case = (8, 32, 14, 64, 3, 1, 1, 1, 1)
    results = [parts(case)[2], gradient_only(case, 0), gradient_only(case, 1),
               gradient_only((8, 32, 14, 64, 3, 2, 1, 1, 1), 0),
               values(70, 300) @ values(300, 90)]  # fmt: skip
    for result in results:
        mo.explain(result)
        planned(result)  # the same with sizes that are known
    kinds = set()
    for c in searched:
        for one, turned in ((c, False), (c.turned(), True)):
            costs = blocks.Costs(one)
            for panels in ("plain", "windows", "taps"):
                cheapest = math.inf, (0, 0)
                for k, family in enumerate(blocks._options(one, blocks.Choice(turned, panels))):
                    floors = costs.floors(family)
                    assert len(floors) == len(family.inner)
                    found = [costs.of(family[position]) for position in range(len(floors))]
                    assert all(floor <= cost for floor, cost in zip(floors, found))
                    cheapest = min(cheapest, *((cost, (k, j)) for j, cost in enumerate(found)))
                    kinds.add((panels, family.form))
                chosen = blocks._cheaper(costs, blocks.Choice(turned, panels), None)
                assert (chosen is None) == (cheapest[0] == math.inf)
                assert chosen is None or (chosen[0], chosen[2].place) == cheapest
    assert kinds == {
        ("plain", "dot"),
        *((panels, "outer") for panels in ("plain", "windows", "taps")),
    }


@pytest.mark.parametrize("size", [1, 3, 7])
def test_scratch_and_temporaries_are_no_larger_than_the_operands(size: int):
    case = (8, 64, 28, 64, size, 1, size // 2, 1, 1)
    for result in (parts(case)[2], gradient_only(case, 0), gradient_only(case, 1)):
        nest, made = planned(result)
        own = sum(b.nbytes for b in made.temporaries)
        scratch = max(one.kernel.scratch_bytes(list(one.integers.values()))
                      for one in made.launches)  # fmt: skip
        operands = nest.target.nbytes + sum(b.nbytes for b in nest.buffers.values())
        assert own <= operands
        assert scratch <= 1 << 20


def gradient_only(case: tuple[int, ...], of: int) -> mo.Var:
    x, w, y, g, _ = parts(case)
    return mo.grad((y * mo.array(g)).sum(), [x, w])[of]


def test_no_window_is_unfolded_in_memory():
    _, made = planned(parts((8, 32, 28, 32, 3, 1, 1, 1, 1))[2])
    image = 8 * 32 * 28 * 28
    assert sum(b.size for b in made.temporaries) < image / 4


@pytest.mark.usefixtures("small_blocks")
def test_a_loop_over_pieces_of_a_dynamic_axis_ends_with_the_axis():
    """A batch of 8 was summed in pieces of 126 examples, of which 118 were packed as zeros."""
    x, w, y, g, options = parts((8, 64, 14, 64, 3, 1, 1, 1, 2))
    (found,) = mo.grad((y * mo.array(g)).sum(), [w])
    end = r"end\d+: i64 = \((max\(1, )?max\(0, min\(n\d+ - i\d+ \* \d+, \d+\)"
    assert re.search(end, mo.dump(found, stage="loops"))
    assert_close(found.numpy(), filter_gradient(x.numpy(), w.numpy(), g, *options))


def test_steps_of_rows_that_lie_as_in_memory_are_known_to_a_kernel_of_one_block():
    """The gradient of a layer after attention: it read steps that nothing had written."""
    u, w = trained(2, 8, 11, 3), trained(24, 24)
    y = mo.nn.functional.linear(u.swapaxes(1, 2).reshape((2, 11, 24)), w)
    g = values(2, 11, 24, seed=2)
    found = mo.grad((y * g).sum(), w).numpy()
    heads = u.numpy().astype(np.float64).swapaxes(1, 2).reshape(22, 24)
    assert_close(found, g.numpy().reshape(22, 24).T @ heads)


# --- what is done with a result -------------------------------------------------------------------


@pytest.fixture
def wide_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen for two processors with 32 registers of 16 lanes."""
    monkeypatch.setattr(blocks, "registers", lambda dtype: (32, dtype.itemsize // 4))
    monkeypatch.setattr(blocks, "processors", lambda: 2)


@pytest.mark.usefixtures("wide_registers")
@pytest.mark.parametrize("turned", [False, True])
def test_what_finished_sums_are_combined_with_is_fetched_some_rows_ahead(turned):
    """The update of a weight with its gradient took 18 % of the product, waiting for memory."""
    x, g, w = values(900, 160), values(900, 640, seed=1), values(160, 640, seed=2)
    result = values(640, 160) - (x.T @ g).T if turned else w - x.T @ g
    graph = after(recorded(result), ALL_PASSES)
    tree = only(pipeline.group_graph(graph)[1].trees)
    made = plan(tree, "k0")
    assert made is not None
    kernel = made.launches[-1].kernel
    assert ("turned" in show_kernel(kernel)) == turned
    (weight,) = set(tree.nests[1].reads) - {tree.nests[0].target}
    (fetch,) = (
        s for s in statements(kernel.body) if isinstance(s, Fetch) and s.buffer == weight.name
    )
    steps = made.launches[-1].integers
    ahead = fetch.offset[2]  # rows times the step from row to row
    assert ahead[0] == "mul" and ahead[2] == build.ROWS_AHEAD
    assert steps[ahead[1][1]] == (160 if turned else 640)


@pytest.mark.usefixtures("wide_registers")
def test_a_product_with_a_transpose_turns_it_rather_than_add_up_along_rows():
    """a @ b.T of two dynamic sizes was computed by dots: 150 instead of 195 GFLOP/s."""
    a, b = values(256, 784), values(512, 784)
    sizes = [mo.dynamic(x, 0) for x in (a, b)]
    text = mo.dump(sizes[0] @ sizes[1].T, stage="loops")
    assert "panel_b" in text and "totals" not in text


@pytest.mark.usefixtures("small_blocks")
def test_what_is_made_of_a_result_is_stored_with_it():
    """relu(a @ b + bias) * a2, and a @ b itself, are one kernel beside packing."""
    a, b, bias, other = values(19, 33), values(33, 21), values(21), values(19, 21)
    product = a @ b
    y = mo.maximum(product + bias, 0.0) * other
    graph = after(recorded(product, y), ALL_PASSES)
    _, grouped = pipeline.group_graph(graph)
    made = plan(only(grouped.trees), "k0")
    assert made is not None
    assert [b.role for b in made.tree.writes] == ["out", "out"]
    exact = a.numpy().astype(np.float64) @ b.numpy()
    want = [exact, np.maximum(exact + bias.numpy(), 0) * other.numpy()]
    for found, wanted in zip((product.numpy(), y.numpy()), want, strict=True):
        assert_close(found, wanted)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_of_rows_are_cut_when_the_kernel_runs():
    """As many as keep threads busy, none of them empty, whatever the number of rows."""
    b = values(33, 21)
    for rows in (*range(2, 36), 47, 64, 65, 97, 130):
        a = values(rows, 33)
        assert_close((a @ b).numpy(), a.numpy().astype(np.float64) @ b.numpy())
        side = blocks.Flat([0], 8, symbol(0, rows), 4, wanted=5)
        count, stride = (evaluate(n, [rows]) for n in (side.count, side.stride))
        assert stride <= 8 and stride % 4 == 0
        assert (count - 1) * stride < rows <= count * stride
        assert count >= min(5, -(-rows // 8))


@pytest.mark.parametrize("left", [False, True], ids=["w", "w.T"])
def test_a_row_is_the_same_however_many_there_are(left: bool, monkeypatch: pytest.MonkeyPatch):
    """The last rows of a block are computed in lower tiles, with the same bits."""
    monkeypatch.setattr(blocks, "registers", lambda dtype: (32, 1))
    monkeypatch.setattr(blocks, "VARYING", 9.0)  # vectors along the columns
    a, b = values(67, 700).numpy(), values(1, *((300, 700) if left else (700, 300)))[0]
    weight = b.T if left else b
    assert "whole: i64 = " in mo.dump(mo.array(a) @ weight, stage="loops")
    assert "whole" not in mo.dump(mo.array(a[None])[0] @ weight, stage="loops")
    exact = a.astype(np.float64) @ weight.numpy()
    rows = (mo.array(a) @ weight).numpy()
    assert_close(rows, exact)
    for count in (*range(2, 41), 57, 63):
        np.testing.assert_array_equal((mo.array(a[:count]) @ weight).numpy(), rows[:count])


# --- as text --------------------------------------------------------------------------------------


def text(made: Plan) -> str:
    return "\n".join(show_kernel(one.kernel) for one in made.launches)


@pytest.mark.usefixtures("small_blocks")
def test_matmul_golden():
    assert_golden(text(planned(values(20, 40) @ values(40, 50))[1]))


@pytest.mark.usefixtures("small_blocks")
def test_convolution_golden():
    assert_golden(text(planned(parts((2, 3, 8, 5, 3, 1, 1, 1, 1))[2])[1]))


@pytest.mark.usefixtures("small_blocks")
def test_gradient_of_a_strided_convolution_golden():
    assert_golden(text(planned(gradient((1, 3, 8, 5, 3, 2, 1, 1, 1), 0)[0])[1]))


@pytest.mark.usefixtures("small_blocks")
def test_gradient_of_a_filter_golden():
    made = planned(gradient((2, 3, 40, 5, 3, 1, 1, 1, 1), 1)[0])[1]
    assert_golden(text(made))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows", [5, 8, 9, 39])
def test_columns_pass_the_rows_of_a_block_in_groups(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "GROUP", 150)  # bytes: one tile
    monkeypatch.setattr(blocks, "MOST_ROWS", (24,))
    monkeypatch.setattr(blocks, "tiles", lambda *arguments: [blocks.Tile(2, 2)])
    choose_first(monkeypatch, "plain", lambda one: one.form == "outer")
    a, b = values(rows, 40), values(40, 50, seed=1)
    made = assert_computes(a @ b, a.numpy().astype("float64") @ b.numpy())
    assert made.blocks is not None and made.blocks.group == 1


def test_every_kernel_prints_as_python():
    _, made = planned(values(64, 64) @ values(64, 64))
    for launch in made.launches:
        assert f"def {launch.kernel.name}(" in emit_python(launch.kernel)


def test_pieces_of_one_array_that_a_tile_makes_are_told_apart() -> None:
    """A recurrent net whose states are stacked: the kernel of the second state's product fills both
    pieces of the stack, and what followed read the piece that was made last in place of both, so
    the gradient was wrong."""
    x, w = values(2, 3, 4, dtype="float64"), values(4, 4, dtype="float64")
    b = values(4, dtype="float64")
    first = mo.tanh(x[0] + mo.zeros((3, 4), dtype="float64") @ w + b)
    second = mo.tanh(x[1] + first @ w + b)
    found = mo.grad((mo.stack([first, second]) ** 2).sum(), b).numpy()  # before the states are
    h1, h2 = first.numpy(), second.numpy()
    g2 = 2 * h2 * (1 - h2**2)
    g1 = (2 * h1 + g2 @ w.numpy().T) * (1 - h1**2)
    np.testing.assert_allclose(found, (g1 + g2).sum(0), rtol=1e-12)
