"""Sentences of the semantics, and traps of other frameworks, that no module's own tests hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn import functional as F

RNG = np.random.default_rng(0)


def test_contributions_are_added_in_descending_order_of_their_consumers() -> None:
    """Of 1e8, 1 and -1e8 in float32 each order has a sum of its own."""
    for factors in ([1e8, 1.0, -1e8], [1.0, 1e8, -1e8], [1e8, -1e8, 1.0]):
        x = nn.Parameter(mo.ones(()))
        consumers = [x * factor for factor in factors]
        mo.stack(consumers).sum().backward()
        expected = np.float32(factors[2]) + np.float32(factors[1]) + np.float32(factors[0])
        assert x.grad is not None and x.grad.item() == expected


def test_creation_takes_a_tuple_or_separate_extents() -> None:
    for make in (mo.zeros, mo.ones, mo.empty, mo.rand, mo.randn):
        assert make(2, 3).shape == make((2, 3)).shape == (2, 3)


def test_float64_input_with_float32_weights_is_refused() -> None:
    with pytest.raises(mo.errors.DTypeError, match="dtypes must agree"):
        nn.Linear(3, 2)(mo.array(np.zeros((1, 3))))
    with pytest.raises(mo.errors.DTypeError, match="dtypes must agree"):
        nn.Conv2d(1, 1, 3)(mo.array(np.zeros((1, 1, 4, 4))))


def test_a_training_step_may_be_written_with_in_place_operators() -> None:
    w = nn.Parameter(mo.array([1.0, 2.0]))
    same = w
    (w * w).sum().backward()
    with mo.no_grad():
        w -= 0.25 * w.grad
    assert w is same and w.requires_grad
    assert w.tolist() == [0.5, 1.0]


def test_names_for_one_thing_are_one() -> None:
    assert mo.optim is nn.optim
    assert mo.manual_seed is mo.seed is mo.set_global_seed
    assert nn.data.__name__ == "metaop.nn.data"


def test_adam_counts_steps_and_not_backward_calls() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Parameter(mo.ones(3)), torch.ones(3, requires_grad=True)
    adam, reference = nn.optim.Adam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(2):
        for _ in range(3):
            (ours * ours).sum().backward()
            (theirs * theirs).sum().backward()
        adam.step()
        reference.step()
        adam.zero_grad()
        reference.zero_grad()
    assert adam.state[ours]["step"] == 2
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_a_pooling_window_may_be_as_large_as_its_input(kind: str) -> None:
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    ours = getattr(F, f"{kind}_pool2d")(mo.array(x), (4, 5)).numpy()
    theirs = getattr(torch.nn.functional, f"{kind}_pool2d")(torch.tensor(x), (4, 5)).numpy()
    assert ours.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_bool_mask_selects_what_attention_sees() -> None:
    torch = pytest.importorskip("torch")
    q, k, v = RNG.standard_normal((3, 2, 5, 4)).astype(np.float32)
    mask = np.tril(np.ones((5, 5), bool))
    scores = mo.matmul(mo.array(q), mo.array(k).mT) / 2.0
    weights = F.softmax(mo.where(mo.array(mask), scores, -np.inf), -1)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.tensor, (q, k, v)), attn_mask=torch.tensor(mask)
    )
    ours = mo.matmul(weights, mo.array(v)).numpy()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_bad_windows_are_refused_at_the_call() -> None:
    x, w = mo.ones((1, 1, 4, 4)), mo.ones((1, 1, 3, 3))
    for call in (
        lambda: mo.conv2d(x, w, padding=-1),
        lambda: mo.conv2d(x, w, stride=0),
        lambda: mo.conv2d(x, w, dilation=0),
        lambda: mo.max_pool2d(x, 2, stride=0),
        lambda: mo.avg_pool2d(x, 2, padding=-1),
        lambda: mo.max_pool2d(x, 5),
    ):
        with pytest.raises(ValueError, match=r"must be|does not fit"):
            call()


def test_empty_inputs_have_numpys_answers() -> None:
    empty = mo.zeros((0, 3))
    assert mo.sum(empty).item() == 0 and mo.prod(empty).item() == 1
    assert np.isnan(mo.mean(empty).item())
    assert mo.matmul(mo.zeros((2, 0)), empty).tolist() == np.zeros((2, 3)).tolist()
    assert F.relu(empty).shape == (0, 3)
    assert mo.conv2d(mo.zeros((0, 1, 4, 4)), mo.ones((2, 1, 3, 3))).numpy().shape == (0, 2, 2, 2)
    with pytest.raises(ValueError, match="nothing to choose from"):
        mo.max(empty, axis=0)


def test_the_mean_of_ten_million_ones_is_one() -> None:
    """A running sum in float32 is exact for ones, but 9 % off for tenths."""
    numbers = np.ones(10_000_000, np.float32)
    assert abs(mo.array(numbers).mean().item() - 1) < 1e-6
    tenth = np.float32(0.1)
    assert abs(mo.array(numbers * tenth).mean().item() / float(tenth) - 1) < 1e-6


def test_the_readme_says_what_there_is_not() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    for missing in ("complex numbers", "FFT", "sparse storage"):
        assert missing in readme
