"""Convolution and pooling: values against loops and PyTorch, gradients, and what they refuse."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

import metaop as mo

rng = np.random.default_rng(0)


def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def assert_agrees(ours, theirs, *arrays, tolerance=1e-5):
    """Outputs agree, and so do the gradients of a weighted sum of them in every argument."""
    torch = pytest.importorskip("torch")
    vars_ = [mo.Var(a, requires_grad=True) for a in arrays]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*vars_), theirs(torch, *tensors)
    np.testing.assert_allclose(
        out.numpy(), expected.detach().numpy(), rtol=tolerance, atol=tolerance
    )
    weights = draw(*out.shape)
    gradients = mo.grad((out * mo.array(weights)).sum(), vars_)
    (expected * torch.tensor(weights)).sum().backward()
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(
            gradient.numpy(), tensor.grad.numpy(), rtol=tolerance, atol=10 * tolerance
        )


# --- convolution ----------------------------------------------------------------------------------


def convolution_in_loops(x, w, stride, padding):
    """The definition: seven nested loops."""
    (batch, channels, height, width), (outputs, _, rows, columns) = x.shape, w.shape
    out_height = (height + 2 * padding - rows) // stride + 1
    out_width = (width + 2 * padding - columns) // stride + 1
    out = np.zeros((batch, outputs, out_height, out_width), np.float64)
    for n, o, i, j in np.ndindex(out.shape):
        for c, r, q in itertools.product(range(channels), range(rows), range(columns)):
            a, b = i * stride + r - padding, j * stride + q - padding
            if 0 <= a < height and 0 <= b < width:
                out[n, o, i, j] += x[n, c, a, b] * w[o, c, r, q]
    return out


@pytest.mark.parametrize("stride, padding", [(1, 0), (2, 1)])
def test_conv2d_is_seven_nested_loops(stride, padding):
    x, w = draw(2, 3, 6, 5), draw(4, 3, 3, 2)
    out = mo.conv2d(mo.array(x), mo.array(w), stride, padding)
    np.testing.assert_allclose(
        out.numpy(), convolution_in_loops(x, w, stride, padding), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "shape, kernel, options",
    [
        ((2, 3, 7, 6), (4, 3, 3, 3), {}),
        ((2, 3, 7, 6), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
        ((2, 3, 8, 8), (2, 3, 3, 3), {"stride": 3, "padding": 2}),
        ((1, 2, 8, 9), (3, 2, 3, 3), {"dilation": 2, "padding": 1}),
        ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
        ((2, 3, 5, 5), (3, 1, 3, 3), {"groups": 3, "stride": 2}),
        ((1, 2, 6, 5), (3, 2, 4, 3), {"padding": "same"}),
        ((1, 2, 6, 5), (3, 2, 2, 2), {"padding": "valid"}),
        ((2, 3, 4, 4), (5, 3, 1, 1), {}),
        ((2, 2, 3, 3), (2, 2, 3, 3), {}),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv2d_agrees_with_torch(shape, kernel, options):
    assert_agrees(
        lambda x, w: mo.conv2d(x, w, **options),
        lambda torch, x, w: torch.nn.functional.conv2d(x, w, **options),
        draw(*shape),
        draw(*kernel),
    )


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "dilation": 2}, {"groups": 2}])
def test_conv1d_agrees_with_torch(options):
    channels = 4 // options.get("groups", 1)
    assert_agrees(
        lambda x, w: mo.conv1d(x, w, **options),
        lambda torch, x, w: torch.nn.functional.conv1d(x, w, **options),
        draw(2, 4, 9),
        draw(6, channels, 3),
    )


@pytest.mark.parametrize("groups", [4, 256])
@pytest.mark.parametrize("convolve", [mo.conv2d, mo.conv_transpose2d])
def test_a_filter_of_dynamic_size_is_divided_into_groups_by_its_size_now(groups, convolve):
    """The outputs of a filter that `array` made were taken for any number: 256 groups divided their
    hint to nothing, and the parts of fewer groups were added up one element at a time."""
    torch = pytest.importorskip("torch")
    name = convolve.__name__
    x, w = draw(2, groups, 5, 5), draw(groups, 1, 3, 3)
    ours = [mo.array(a) for a in (x, w)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, w)]
    for a in ours:
        a.requires_grad = True
    y = convolve(*ours, padding=1, groups=groups)
    expected = getattr(torch.nn.functional, name)(*theirs, padding=1, groups=groups)
    gradients = mo.grad(y.sum(), ours)
    expected.sum().backward()
    adds_to_memory = re.compile(r"^ *v\d+\[.*\] add= ", re.MULTILINE)
    for one in (y, *gradients):
        assert not adds_to_memory.search(mo.dump(one, stage="loops"))
    for found, want in zip([y, *gradients], [expected.detach(), *(t.grad for t in theirs)]):
        np.testing.assert_allclose(found.numpy(), want.numpy(), rtol=1e-5, atol=1e-4)


def test_an_empty_batch_gives_an_empty_output():
    assert mo.conv2d(mo.zeros((0, 1, 5, 5)), mo.zeros((2, 1, 3, 3))).numpy().shape == (0, 2, 3, 3)


def convolve(shape=(1, 1, 5, 5), kernel=(1, 1, 3, 3), **options):
    return mo.conv2d(mo.zeros(shape), mo.zeros(kernel), **options)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"shape": (8, 3, 28, 28), "kernel": (6, 1, 5, 5)},
            r"conv2d\(x, w\): channels must agree, x is f32\[8,3,28,28\], w is f32\[6,1,5,5\] "
            r"\(3 != 1\)",
        ),
        (
            {"shape": (1, 5, 5)},
            r"x must be \[batch,channels,height,width\], got f32\[1,5,5\]; .*x\[",
        ),
        ({"kernel": (3, 3)}, r"w must be \[out,in,height,width\], got f32\[3,3\]"),
        (
            {"kernel": (1, 1, 6, 3)},
            r"does not fit in x f32\[1,1,5,5\]: it spans 6, the padded .* 5",
        ),
        ({"kernel": (1, 1, 0, 3)}, r"the window must not be empty"),
        (
            {"shape": (1, 4, 5, 5), "kernel": (3, 2, 3, 3), "groups": 2},
            "2 groups do not divide w's 3",
        ),
    ],
)
def test_conv2d_refuses_shapes_that_do_not_fit(arguments, message):
    with pytest.raises(mo.errors.ShapeError, match=message):
        convolve(**arguments)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"stride": -2}, "stride must be at least 1, got -2"),
        ({"stride": 1.5}, "stride must be integers, got 1.5"),
        ({"stride": (1, 1, 1)}, r"stride must be one integer or 2, got \(1, 1, 1\)"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": "full"}, "padding must be integers, 'same' or 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"dilation": 0}, "dilation must be at least 1"),
        ({"groups": 0}, "groups must be at least 1"),
    ],
)
def test_conv2d_refuses_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        convolve(**options)


def test_conv2d_refuses_mixed_dtypes():
    x, w = mo.zeros((1, 1, 5, 5), dtype=mo.float64), mo.zeros((1, 1, 3, 3))
    with pytest.raises(mo.errors.DTypeError, match=r"dtypes must agree, x is f64\[.*w is f32\["):
        mo.conv2d(x, w)


# --- pooling --------------------------------------------------------------------------------------

POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2)},
    {"kernel_size": (6, 7)},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("options", [*POOLS, {"kernel_size": 2, "dilation": 2, "padding": 1}])
def test_max_pool2d_agrees_with_torch(options):
    assert_agrees(
        lambda x: mo.max_pool2d(x, **options),
        lambda torch, x: torch.nn.functional.max_pool2d(x, **options),
        draw(2, 3, 6, 7),
    )


@pytest.mark.parametrize(
    "options",
    [
        *POOLS,
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        {"kernel_size": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True},
    ],
)
def test_avg_pool2d_agrees_with_torch(options):
    assert_agrees(
        lambda x: mo.avg_pool2d(x, **options),
        lambda torch, x: torch.nn.functional.avg_pool2d(x, **options),
        draw(2, 3, 6, 7),
    )


def test_max_pool2d_gives_the_gradient_of_a_tie_to_the_first():
    x = mo.Var(np.zeros((1, 1, 4, 4), np.float32), requires_grad=True)
    (gradient,) = mo.grad(mo.max_pool2d(x, 2).sum(), [x])
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(gradient.numpy()[0, 0], expected)


def test_max_pool2d_padding_never_wins():
    below = mo.full((1, 1, 2, 2), -5.0)
    np.testing.assert_array_equal(mo.max_pool2d(below, 2, padding=1).numpy()[0, 0], [[-5, -5]] * 2)
    whole = mo.array(np.full((1, 1, 2, 2), -5, np.int32))
    np.testing.assert_array_equal(mo.max_pool2d(whole, 2, padding=1).numpy()[0, 0], [[-5, -5]] * 2)


def test_max_pool2d_keeps_nan():
    x = draw(1, 1, 4, 4)
    x[0, 0, 1, 1] = np.nan
    assert np.isnan(mo.max_pool2d(mo.array(x), 2).numpy()).tolist() == [
        [[[True, False], [False] * 2]]
    ]


@pytest.mark.parametrize("pool", [mo.max_pool2d, mo.avg_pool2d])
@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernel_size": 2, "stride": 0}, "stride must be at least 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": 2.0}, "kernel_size must be integers, got 2.0"),
        (
            {"kernel_size": 2, "padding": 2},
            "padding must be at most half the window, got padding 2",
        ),
        ({"kernel_size": 2, "padding": -1}, "padding must be at least 0"),
        ({"kernel_size": 9}, r"the window does not fit in x f32\[1,1,5,5\]"),
    ],
)
def test_pooling_refuses_bad_arguments(pool, options, message):
    with pytest.raises(ValueError, match=message):
        pool(mo.zeros((1, 1, 5, 5)), **options)


@pytest.mark.parametrize("pool", [mo.max_pool2d, mo.avg_pool2d])
def test_pooling_refuses_another_rank(pool):
    with pytest.raises(mo.errors.ShapeError, match=r"x must be \[batch,channels,height,width\]"):
        pool(mo.zeros((5, 5)), 2)


@pytest.mark.parametrize("channels", [455, 512])
def test_the_filter_gradient_of_many_groups(channels):
    """Its taps are unrolled: what a vector reads differs from tap to tap."""
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((3, channels, 14, 14)).astype(np.float32) for _ in range(2))
    w = mo.array(np.zeros((channels, 1, 3, 3), np.float32))
    w.requires_grad = True
    y = mo.conv2d(mo.array(x), w, padding=1, groups=channels)
    found = mo.grad((y * mo.array(g)).sum(), w).numpy()
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    seen = np.lib.stride_tricks.sliding_window_view(wide, (14, 14), axis=(2, 3))
    want = np.einsum("ncrqij,ncij->crq", seen, g, dtype=np.float64)[:, None]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels, size, stride", [(3, 8, 1), (16, 7, 1), (16, 12, 2)])
def test_padding_is_zeros_which_an_infinite_weight_makes_nan(
    channels: int, size: int, stride: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, channels, size, size)).astype("f4")
    w = rng.normal(size=(4, channels, 3, 3)).astype("f4")
    w[0, 0, 0, 0], w[1, 1, 2, 1] = np.inf, -np.inf
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    with np.errstate(invalid="ignore"):
        products = windows[:, None, :, ::stride, ::stride] * w[:, :, None, None]
        want = np.isnan(products.sum((2, 5, 6)))
    assert 0 < want.sum() < want.size
    threads = mo.get_num_threads()
    try:
        for count in (1, 3):
            mo.set_num_threads(count)
            got = mo.nn.functional.conv2d(mo.array(x), mo.array(w), padding=1, stride=stride)
            np.testing.assert_array_equal(np.isnan(got.numpy()), want)
    finally:
        mo.set_num_threads(threads)
