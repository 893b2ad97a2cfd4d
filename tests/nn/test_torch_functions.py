"""Functions of `nn.functional` against torch's of the same name: values, and gradients in every
argument of floats.

Each line is Python that is evaluated twice, with F of metaop and of torch, and `a b c` its arrays.
Values are those of the printed Python kernels in float64; a sample is compared in machine code.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import metaop as mo
from tests.helpers import python_value

torch = pytest.importorskip("torch")


def real(*shape: int) -> Any:
    return lambda rng: rng.standard_normal(shape)


def share(*shape: int) -> Any:
    """Numbers between 0 and 1."""
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def below(high: int, *shape: int) -> Any:
    """Integers from 0."""
    return lambda rng: rng.integers(0, high, shape)


def signs(*shape: int) -> Any:
    return lambda rng: np.sign(rng.standard_normal(shape))


LINES: list[tuple[str, tuple[Any, ...]]] = []


def lines(*operands: Any, text: str) -> None:
    """One line of the table for every line of the text."""
    LINES.extend((line.strip(), operands) for line in text.strip().splitlines())


lines(real(2, 3, 7), text="""
    F.pad(a, (1, 2))
    F.pad(a, (-1, 2, 0, -1), value=1.5)
    F.pad(a, (2, 3), mode="reflect")
    F.pad(a, (2, 3), mode="replicate")
    F.pad(a, (2, 3), mode="circular")
    F.max_pool1d(a, 3, 2, 1)
    F.max_pool1d(a, 3, 2, 1, 2, True, True)
    F.avg_pool1d(a, 3, 2, 1, True, False)
    F.lp_pool1d(a * a, 3, 2)
    F.adaptive_avg_pool1d(a, 3)
    F.adaptive_max_pool1d(a, 4, return_indices=True)
    F.max_unpool1d(*F.max_pool1d(a, 2, return_indices=True), 2, output_size=(7,))
    F.interpolate(a, 10)
    F.interpolate(a, scale_factor=2, mode="linear")
    F.interpolate(a, 3, mode="linear", align_corners=True)
    F.interpolate(a, 4, mode="area")
    F.interpolate(a, 9, mode="nearest-exact")
    """)  # fmt: skip
lines(real(2, 2, 4, 5), text="""
    F.pad(a, (1, 2, 2, 1), mode="reflect")
    F.max_pool2d(a, (2, 3), return_indices=True)
    F.avg_pool2d(a, 2, 1, divisor_override=3)
    F.lp_pool2d(a * a, 2.5, 2, 1)
    F.adaptive_avg_pool2d(a, (2, None))
    F.adaptive_avg_pool2d(a, 3)
    F.adaptive_max_pool2d(a, (3, 2), return_indices=True)
    F.adaptive_max_pool2d(a[0], 2)
    F.max_unpool2d(*F.max_pool2d(a, 2, return_indices=True), 2, output_size=(4, 5))
    F.interpolate(a, scale_factor=2)
    F.interpolate(a, (3, 7), mode="bilinear")
    F.interpolate(a, (7, 9), mode="bilinear", align_corners=True)
    F.interpolate(a, scale_factor=1.7, mode="bilinear")
    F.interpolate(a, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True)
    F.interpolate(a, (7, 3), mode="bicubic")
    F.interpolate(a, (3, 8), mode="bicubic", align_corners=True)
    F.interpolate(a, scale_factor=(1.3, 0.7), mode="bicubic")
    F.interpolate(a, (1, 1), mode="bilinear", align_corners=True)
    """)  # fmt: skip
lines(real(1, 2, 3, 4, 4), text="""
    F.max_pool3d(a, 2, return_indices=True)
    F.avg_pool3d(a, 2, 1, 1, divisor_override=5)
    F.lp_pool3d(a * a, 2, 2, ceil_mode=True)
    F.adaptive_avg_pool3d(a, (2, 3, 2))
    F.adaptive_max_pool3d(a, (2, 3, 2), return_indices=True)
    F.max_unpool3d(*F.max_pool3d(a, (1, 2, 2), return_indices=True), (1, 2, 2))
    F.pad(a, (1, 1, 2, 0, 1, 2), mode="replicate")
    F.interpolate(a, (2, 5, 6), mode="trilinear")
    F.interpolate(a, scale_factor=2, mode="trilinear", align_corners=True)
    """)  # fmt: skip
lines(real(2, 2, 4, 5), real(2, 3, 3, 2), text="""
    F.grid_sample(a, b, align_corners=False)
    F.grid_sample(a, b, align_corners=True, padding_mode="border")
    F.grid_sample(a, b, align_corners=False, padding_mode="reflection")
    F.grid_sample(a, b, align_corners=True, padding_mode="reflection")
    F.grid_sample(a, b, align_corners=False, mode="bicubic")
    F.grid_sample(a, b, align_corners=False, mode="bicubic", padding_mode="border")
    F.grid_sample(a, b.detach(), align_corners=False, mode="nearest")
    """)  # fmt: skip
lines(real(1, 2, 3, 4, 3), real(1, 2, 2, 2, 3), text="""
    F.grid_sample(a, b, align_corners=False)
    """)  # fmt: skip
lines(real(2, 2, 3), text="""
    F.affine_grid(a, (2, 1, 3, 4), align_corners=False)
    F.affine_grid(a, (2, 1, 3, 4), align_corners=True)
    """)  # fmt: skip
lines(real(1, 3, 4), text="""
    F.affine_grid(a, (1, 1, 2, 3, 4), align_corners=False)
    """)  # fmt: skip

lines(real(3, 4), text="""
    F.celu(a, 0.7)
    F.threshold(a, 0.1, 20.0)
    F.hardshrink(a, 0.3)
    F.softshrink(a, 0.3)
    F.tanhshrink(a)
    F.glu(a)
    F.glu(a[:2], 0)
    F.rrelu(a)
    F.rms_norm(a, (4,))
    F.normalize(a)
    F.normalize(a, 3.0, -1)
    F.normalize(a, 1, 0)
    F.pdist(a)
    F.pdist(a, 1.0)
    """)  # fmt: skip
lines(real(2, 4, 3, 2), real(4), share(4), text="""
    F.prelu(a, b)
    F.prelu(a, b[:1])
    F.instance_norm(a, None, None, b, c)
    F.instance_norm(a, b.detach(), c.detach(), b, c, use_input_stats=False)
    F.local_response_norm(a, 3)
    F.local_response_norm(a, 2, 0.1, 0.5, 2.0)
    F.pixel_shuffle(a, 2)
    F.pixel_unshuffle(F.pixel_shuffle(a, 2), 2)
    F.channel_shuffle(a, 2)
    F.rms_norm(a, (3, 2), a[0, 0], 0.1)
    F.unfold(a, 2, padding=1)
    F.fold(F.unfold(a, 2), (3, 2), 2)
    """)  # fmt: skip
lines(real(5, 3), real(5, 3), real(5, 3), text="""
    F.cosine_similarity(a, b)
    F.cosine_similarity(a, b[:1], -1)
    F.pairwise_distance(a, b)
    F.pairwise_distance(a, b, 1.0, keepdim=True)
    F.triplet_margin_loss(a, b, c)
    F.triplet_margin_loss(a, b, c, 0.5, 1.0, swap=True, reduction="none")
    F.triplet_margin_with_distance_loss(a, b, c, margin=2.0, reduction="sum")
    F.huber_loss(a, b, delta=0.5)
    F.huber_loss(a, b, reduction="sum")
    F.kl_div(F.log_softmax(a, 1), F.softmax(b, 1), reduction="batchmean")
    F.kl_div(a, b, reduction="sum", log_target=True)
    F.kl_div(a, (b * (b > 0)).detach(), reduction="none")
    F.poisson_nll_loss(a, b * b)
    F.poisson_nll_loss(a * a, 3 * b * b, log_input=False, full=True, reduction="none")
    F.gaussian_nll_loss(a, b, c * c)
    F.gaussian_nll_loss(a, b, c[:, 0] ** 2, eps=0.3, full=True, reduction="none")
    """)  # fmt: skip
lines(real(5, 3), real(5, 3), signs(5, 3), text="""
    F.hinge_embedding_loss(a, c)
    F.soft_margin_loss(a, c.detach())
    F.margin_ranking_loss(a, b, c, 0.2)
    F.multilabel_soft_margin_loss(a, (c + 1) / 2, b[0])
    """)  # fmt: skip
lines(real(5, 3), real(5, 3), signs(5), below(3, 5), text="""
    F.cosine_embedding_loss(a, b, c, 0.1)
    F.multi_margin_loss(a, d)
    F.multi_margin_loss(a, d, p=2, margin=0.5, weight=b[0].detach() ** 2, reduction="none")
    F.multi_margin_loss(a[0], d[0])
    """)  # fmt: skip
lines(real(2, 4), lambda rng: np.array([[3, 0, -1, 1], [2, -1, 0, 1]]), text="""
    F.multilabel_margin_loss(a, b)
    F.multilabel_margin_loss(a[0], b[0])
    """)  # fmt: skip
lines(real(2, 3), real(2, 4), real(5, 3, 4), real(5), text="""
    F.bilinear(a, b, c, d)
    """)  # fmt: skip
lines(below(6, 3, 4), real(6, 2), real(3, 4), text="""
    F.embedding_bag(a, b)
    F.embedding_bag(a, b, mode="max")
    F.embedding_bag(a, b, mode="sum", per_sample_weights=c)
    F.embedding_bag(a, b, padding_idx=1)
    F.embedding_bag(a, b, mode="max", padding_idx=2)
    """)  # fmt: skip
lines(below(6, 7), real(6, 2), lambda rng: np.array([0, 2, 2, 5]), real(7), text="""
    F.embedding_bag(a, b, c)
    F.embedding_bag(a, b, c, mode="max")
    F.embedding_bag(a, b, c, mode="sum", per_sample_weights=d)
    F.embedding_bag(a, b, m.tensor([0, 2, 2, 7]), include_last_offset=True)
    """)  # fmt: skip
lines(real(2, 3, 4, 4), real(3, 2, 3, 3), real(2), text="""
    F.conv_transpose2d(a, b, c, 2, 1, 1)
    """)  # fmt: skip
lines(real(7, 3, 5), lambda rng: np.array([[1, 2, 2], [4, 1, 3], [3, 1, 1]]), text="""
    F.ctc_loss(F.log_softmax(a, 2), b, m.tensor([7, 6, 7]), m.tensor([3, 2, 1]))
    F.ctc_loss(F.log_softmax(a, 2), b, m.tensor([7, 2, 7]), m.tensor([3, 3, 1]), zero_infinity=True)
    F.ctc_loss(F.log_softmax(a, 2), b, m.tensor([7, 7, 7]), m.tensor([3, 2, 1]), reduction="none")
    F.ctc_loss(F.log_softmax(a, 2), b.reshape(-1)[:6], (7, 5, 7), (3, 1, 2), reduction="sum")
    F.ctc_loss(F.log_softmax(a[:, 0], 1), b[0], m.tensor(6), m.tensor(3))
    """)  # fmt: skip


def flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]


def weighted(results: list[Any], wrap: Any) -> Any:
    """A number that depends on every element of the results that are floats."""
    total = 0
    for k, y in enumerate(results):
        if "float" in str(y.dtype):
            weights = np.random.default_rng(k).uniform(0.5, 1.5, tuple(y.shape))
            total = total + (y * wrap(weights)).sum()
    return total


def evaluated(line: str, module: Any, arrays: list[np.ndarray], wrap: Any) -> tuple[Any, Any]:
    """The operands and the results of a line."""
    operands = [wrap(array) for array in arrays]
    names = dict(zip("abcd", operands))
    return operands, flat(eval(line, {"F": module.nn.functional, "m": module, **names}))


def as_variable(array: np.ndarray) -> mo.Var:
    return mo.array(array, requires_grad=array.dtype == np.float64)


def as_tensor(array: np.ndarray) -> Any:
    return torch.tensor(array, requires_grad=array.dtype == np.float64)


def arrays_of(line: str, operands: tuple[Any, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(line.encode()))
    return [make(rng) for make in operands]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("line, operands", LINES, ids=[line for line, _ in LINES])
def test_function_agrees_with_torch(line: str, operands: tuple[Any, ...]) -> None:
    arrays = arrays_of(line, operands)
    ours, got = evaluated(line, mo, arrays, as_variable)
    theirs, want = evaluated(line, torch, arrays, as_tensor)
    compare = [y.numpy() if zlib.crc32(line.encode()) % 8 == 0 else python_value(y) for y in got]
    for y, w in zip(compare, want, strict=True):
        assert y.shape == tuple(w.shape)
        assert y.dtype == w.detach().numpy().dtype
        np.testing.assert_allclose(y, w.detach().numpy(), rtol=1e-9, atol=1e-9)
    loss = weighted(want, torch.tensor)
    if not getattr(loss, "requires_grad", False):
        return
    loss.backward()
    reached = [(v, t) for v, t in zip(ours, theirs, strict=True) if t.grad is not None]
    gradients = mo.grad(weighted(got, mo.array), [v for v, _ in reached])
    for gradient, (_, tensor) in zip(gradients, reached, strict=True):
        np.testing.assert_allclose(
            python_value(gradient), tensor.grad.numpy(), rtol=1e-7, atol=1e-9
        )
