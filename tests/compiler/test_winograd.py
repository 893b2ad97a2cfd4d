"""Winograd's algorithm: what the pass makes of a graph and leaves alone, what comes out, how wrong
it is, when it is used."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import metaop as mo
import metaop.nn.functional as F
from metaop.compiler import assemble, pipeline
from metaop.compiler.loops import verify
from metaop.compiler.nest import Tree
from metaop.compiler.passes.compose import compose
from metaop.compiler.passes.invert import invert
from metaop.compiler.passes.share import share
from metaop.compiler.passes.winograd import winograd
from metaop.config import config
from metaop.graph import ReindexReduce
from tests.compiler.stages import (
    ALL_PASSES,
    after,
    input_values,
    operations,
    recorded,
    reference_values,
    run_machine,
    run_printed,
    text_of,
)
from tests.compiler.test_contraction import shrink
from tests.golden import assert_golden

# `metaop.compiler.passes.winograd` may name the function: the module by its full name
MODULE = importlib.import_module("metaop.compiler.passes.winograd")
MOST_ERROR = 5e-6  # relative root mean square, of 256 channels in float32
RELATIVE = {"float32": 2e-6, "float64": 1e-14}
PASSES = (share, invert, winograd, compose, share)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewrites what pays and what does not."""
    everything(monkeypatch)


def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, least in (("LEAST_CHANNELS", 1), ("LEAST_TILES", 1), ("MOST_PRODUCTS", 9.0)):
        monkeypatch.setattr(MODULE, name, least)


def values(*shape: int, dtype: str = "float32") -> mo.Var:
    generator = np.random.default_rng([*shape])
    x = mo.array(generator.standard_normal(shape).astype(dtype))
    x.requires_grad = True
    return x


def convolved(x: np.ndarray, w: np.ndarray, pad: int) -> np.ndarray:
    """A convolution by NumPy."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(padded, w.shape[2:], axis=(2, 3))
    return np.einsum("ncijrq,ocrq->noij", windows, w, optimize=True)


def relative_error(got: mo.Var, want: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got.numpy() - want) ** 2) / np.mean(want**2)))


# --- the pass -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("always")
def test_winograd_golden():
    graph = recorded(F.conv2d(values(1, 2, 5, 4), values(3, 2, 3, 3), None, 1, 1))
    assert_golden(f"{text_of(graph, 'before')}\n{text_of(after(graph, [winograd]), 'after')}")


def gradient_of_the_image(case: tuple[int, ...]) -> mo.Var:
    n, channels, outputs, height, width, pad = case
    x = values(n, channels, height, width, dtype="float64")
    y = F.conv2d(x, values(outputs, channels, 3, 3, dtype="float64"), None, 1, pad)
    return mo.grad(y, [x], grad_outputs=values(*map(int, y.shape), dtype="float64"))[0]


def convolution(case: tuple[int, ...]) -> mo.Var:
    n, channels, outputs, height, width, pad = case
    x = values(n, channels, height, width, dtype="float64")
    return F.conv2d(x, values(outputs, channels, 3, 3, dtype="float64"), None, 1, pad)


def transposed(case: tuple[int, ...]) -> mo.Var:
    n, channels, outputs, height, width, pad = case
    x = values(n, channels, height, width, dtype="float64")
    return mo.conv_transpose2d(x, values(channels, outputs, 3, 3, dtype="float64"), padding=pad)


def grouped(case: tuple[int, ...]) -> mo.Var:
    n, channels, outputs, height, width, pad = case
    x = values(n, 2 * channels, height, width, dtype="float64")
    return F.conv2d(x, values(2 * outputs, channels, 3, 3, dtype="float64"), None, 1, pad, groups=2)


def flipped(case: tuple[int, ...]) -> mo.Var:
    """One window forward and one backward."""
    n, channels, outputs, height, width, _ = case
    x = values(n, height + 2, width + 2, channels, dtype="float64")
    w = values(3, 3, channels, outputs, dtype="float64")
    loops = (n, height, width, outputs, channels, 3, 3)
    windows = x.reindex(loops, lambda b, i, j, o, c, r, q: (b, i + r, j - q + 2, c))
    taps = w.reindex(loops, lambda b, i, j, o, c, r, q: (r, q, c, o))
    return (windows * taps).sum(axis=(4, 5, 6))


def volume(case: tuple[int, ...]) -> mo.Var:
    """Three windows."""
    n, channels, outputs, height, width, pad = case
    x = values(n, channels, 4, height, width, dtype="float64")
    return mo.conv3d(x, values(outputs, channels, 3, 3, 3, dtype="float64"), padding=pad)


KINDS = (convolution, gradient_of_the_image, transposed, grouped, flipped, volume)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("case", [(1, 2, 1, 4, 4, 1), (2, 1, 2, 5, 5, 0), (1, 1, 1, 4, 7, 2)])
def test_a_rewritten_sum_is_the_definition(kind: Callable, case: tuple[int, ...]) -> None:
    result = kind(case)
    graph, inputs = recorded(result), input_values(result)
    new = after(graph, PASSES)
    sizes = [n.shape[:2] for n in new.nodes if isinstance(n, ReindexReduce)]
    assert (4, 4) in sizes, text_of(new)
    for got, want in zip(reference_values(new, inputs), reference_values(graph, inputs)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def gradient_of_the_filter() -> mo.Var:
    w = values(32, 32, 3, 3)
    return mo.grad(F.conv2d(values(4, 32, 8, 8), w, None, 1, 1).sum(), [w])[0]


LEFT_ALONE = {
    "stride 2": lambda: F.conv2d(values(4, 32, 8, 8), values(32, 32, 3, 3), None, 2, 1),
    "dilation 2": lambda: F.conv2d(values(4, 32, 8, 8), values(32, 32, 3, 3), None, 1, 1, 2),
    "5 x 5 taps": lambda: F.conv2d(values(4, 32, 8, 8), values(32, 32, 5, 5), None, 1, 2),
    "3 x 1 taps": lambda: F.conv2d(values(4, 32, 8, 8), values(32, 32, 3, 1), None, 1, 0),
    "the gradient of a filter": gradient_of_the_filter,
    "few channels": lambda: F.conv2d(values(4, 3, 8, 8), values(64, 3, 3, 3), None, 1, 1),
    "few tiles": lambda: F.conv2d(values(1, 32, 8, 8), values(32, 32, 3, 3), None, 1, 1),
    "few results": lambda: F.conv2d(values(4, 64, 8, 8), values(8, 64, 3, 3), None, 1, 1),
    "depthwise": lambda: F.conv2d(values(4, 32, 8, 8), values(32, 1, 3, 3), None, 1, 1, groups=32),
    "one position": lambda: F.conv2d(values(9, 32, 3, 3), values(32, 32, 3, 3), None, 1, 0),
    "16-bit floats": lambda: F.conv2d(
        values(4, 32, 8, 8).astype("float16"), values(32, 32, 3, 3).astype("float16"), None, 1, 1
    ),
    "a matrix product": lambda: values(32, 32) @ values(32, 32),
    "pooling": lambda: F.max_pool2d(values(4, 32, 8, 8), 3, 1),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_winograd_leaves_alone(name: str) -> None:
    graph = after(recorded(LEFT_ALONE[name]()), [share, invert])
    assert operations(after(graph, [winograd])) == operations(graph)


# --- kernels --------------------------------------------------------------------------------------


def computed(graph, inputs: list[np.ndarray], run: Callable) -> np.ndarray:
    """The output of a graph by its kernels, one after the other."""
    fused, grouped = pipeline.group_graph(graph)
    memory = {b: np.full(b.size, np.nan, b.dtype.storage) for b in fused.buffers}
    for buffer in fused.buffers:
        if buffer.role == "in":
            memory[buffer] = np.ravel(inputs[buffer.position]).copy()
    for number, tree in enumerate(grouped.trees):
        assert isinstance(tree, Tree)
        for one in assemble.schedule_tree(tree, number):
            verify(one.kernel)
            for buffer in one.buffers:
                memory.setdefault(buffer, np.full(buffer.size, np.nan, buffer.dtype.storage))
            arrays = [memory[b] for b in one.buffers]
            run(one.kernel, arrays, list(one.integers.values()), one.chunks)
    (output,) = graph.outputs
    return memory[fused.place[output]].reshape(output.shape)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("case", [(2, 5, 6, 6, 4, 1), (1, 3, 20, 5, 7, 0), (3, 20, 2, 4, 3, 2)])
def test_layers_are_the_same_to_both_printers(monkeypatch, case):
    shrink(monkeypatch)
    result = convolution(case)
    graph, inputs = recorded(result), input_values(result)
    new = after(graph, [*PASSES, *ALL_PASSES])
    want = convolved(*(a.reshape(n.shape) for a, n in zip(inputs, graph.inputs)), case[-1])
    for run in (run_printed, run_machine):
        np.testing.assert_allclose(computed(new, inputs, run), want, rtol=0, atol=1e-12)


def kernels(*results: mo.Var) -> list:
    """The kernels that compute some results, without those that pack operands."""
    return [k for k in mo.explain(*results).kernels if "_" not in k.name]


def test_transforms_and_products_are_one_kernel_beside_that_of_the_filter():
    x, w = values(2, 64, 14, 14), values(64, 64, 3, 3)
    with mo.winograd():
        y = F.relu(F.conv2d(x, w, None, 1, 1))
        assert len(kernels(y)) == 2


def test_a_filter_is_transformed_once_for_a_step():
    x, w = values(4, 64, 8, 8), values(64, 64, 3, 3)
    with mo.winograd():
        y = F.conv2d(x, w, None, 1, 1)
        (g,) = mo.grad(y, [x], grad_outputs=values(4, 64, 8, 8))
        assert len(kernels(y, g)) == 3


# --- results --------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 3), channels=st.sampled_from((1, 32, 40)), outputs=st.sampled_from((33, 64)),
    height=st.integers(1, 11), width=st.integers(1, 11), pad=st.integers(0, 2),
    dtype=st.sampled_from(("float32", "float64")),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_convolutions_and_gradients_are_those_of_numpy(
    n: int, channels: int, outputs: int, height: int, width: int, pad: int, dtype: str
) -> None:
    height, width = (max(size, 3 - 2 * pad) for size in (height, width))
    x = values(n, channels, height, width, dtype=dtype)
    w = values(outputs, channels, 3, 3, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch, mo.winograd():
        everything(patch)
        mo.compiler.programs.forget()
        y = F.conv2d(x, w, None, 1, pad)
        g = values(*map(int, y.shape), dtype=dtype)
        (gx,) = mo.grad(y, [x], grad_outputs=g)
        mo.sync()
    wide = [v.numpy().astype("float64") for v in (x, w, g)]
    turned = wide[1][:, :, ::-1, ::-1].swapaxes(0, 1)
    around = convolved(wide[2], turned, 2)[:, :, pad : pad + height, pad : pad + width]
    assert relative_error(y, convolved(*wide[:2], pad)) < RELATIVE[dtype]
    assert relative_error(gx, around) < RELATIVE[dtype]


@pytest.mark.usefixtures("always")
def test_an_image_of_one_pixel_is_a_part_of_its_tile():
    x, w = values(3, 32, 1, 1), values(33, 32, 3, 3)
    with mo.winograd():
        y = F.conv2d(x, w, None, 1, 1)
        mo.sync()
    assert relative_error(y, convolved(x.numpy(), w.numpy(), 1)) < RELATIVE["float32"]


@pytest.mark.usefixtures("always")
def test_results_by_tiles_are_read_by_what_follows():
    x, w = values(3, 32, 6, 6), values(33, 32, 3, 3)
    with mo.winograd():
        y = F.conv2d(x, w, None, 1, 1)
        z = mo.abs(y)
        mo.sync()
    want = convolved(x.numpy().astype("float64"), w.numpy(), 1)
    assert relative_error(y, want) < RELATIVE["float32"]
    assert relative_error(z, np.abs(want)) < RELATIVE["float32"]


def test_the_error_of_256_channels_is_small():
    x, w = values(2, 256, 14, 14), values(256, 256, 3, 3)
    with mo.winograd():
        y = F.conv2d(x, w, None, 1, 1)
        g = values(2, 256, 14, 14)
        (gx,) = mo.grad(y, [x], grad_outputs=g)
        mo.sync()
    wide = [v.numpy().astype("float64") for v in (x, w, g)]
    direct = relative_error(F.conv2d(x, w, None, 1, 1), convolved(*wide[:2], 1))
    error = relative_error(y, convolved(*wide[:2], 1))
    assert direct < error < MOST_ERROR
    turned = wide[1][:, :, ::-1, ::-1].swapaxes(0, 1)
    assert relative_error(gx, convolved(wide[2], turned, 1)) < MOST_ERROR


# --- the setting ----------------------------------------------------------------------------------


def result_of(x: mo.Var, w: mo.Var) -> mo.Var:
    return F.conv2d(x, w, None, 1, 1)


def test_it_is_off_unless_asked_for():
    x, w = values(4, 64, 8, 8), values(64, 64, 3, 3)
    assert not config.winograd
    assert winograd not in ALL_PASSES
    usual = result_of(x, w).numpy()
    with mo.winograd(False):
        assert (result_of(x, w).numpy() == usual).all()
    with mo.winograd():
        other = result_of(x, w).numpy()
    assert (other != usual).any()
    np.testing.assert_allclose(other, usual, rtol=0, atol=1e-3)
    assert (result_of(x, w).numpy() == usual).all()


def test_it_is_a_statement_a_context_and_a_decorator():
    seen: list[bool] = []

    @mo.winograd()
    def function() -> None:
        seen.append(config.winograd)

    try:
        assert not config.winograd
        function()
        mo.winograd(True)
        with mo.winograd(False):
            seen.append(config.winograd)
        seen.append(config.winograd)
    finally:
        mo.winograd(False)
    assert seen == [True, False, True]


def test_it_concerns_its_own_thread():
    found: list[bool] = []
    with mo.winograd():
        thread = threading.Thread(target=lambda: found.append(config.winograd))
        thread.start()
        thread.join()
    assert found == [False]


def test_switching_it_replays_no_other_trace():
    x, w = values(4, 64, 8, 8), values(64, 64, 3, 3)
    traced = mo.jit(lambda x, w: mo.grad((result_of(x, w) ** 2).sum(), [x])[0])
    found = {}
    for round_ in range(2):
        for on in (False, True):
            with mo.winograd(on):
                found[round_, on] = traced(x, w).numpy()
    for on in (False, True):
        with mo.winograd(on):
            plain = mo.grad((result_of(x, w) ** 2).sum(), [x])[0].numpy()
        assert (found[0, on] == found[1, on]).all() and (found[0, on] == plain).all()
    assert (found[0, False] != found[0, True]).any()


def test_what_is_made_of_several_layers_may_follow_a_gradient():
    """The results of a tile were asked for ahead in loops that begin only after that."""
    generator = np.random.default_rng(0)
    x, w, v = (mo.array(generator.standard_normal(shape).astype(np.float32))
               for shape in ((4, 64, 16, 16), (64, 64, 3, 3), (64, 64, 3, 3)))  # fmt: skip
    x.requires_grad = True
    found = []
    for enabled in (False, True):
        with mo.winograd(enabled):
            y = mo.conv2d(mo.maximum(mo.conv2d(x, w, padding=1), 0.0), v, padding=1)
            found.append(mo.grad((y * y).sum(), [x])[0].numpy())
    scale = np.abs(found[0]).max()
    np.testing.assert_allclose(found[1] / scale, found[0] / scale, atol=1e-4)
