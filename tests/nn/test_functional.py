"""Functions of nn on what users give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn import functional as F

ARRAY = np.linspace(-1, 1, 2 * 4 * 6 * 6, dtype=np.float32).reshape(2, 4, 6, 6)
LABELS = np.array([1, 0, 2])
ON_ARRAYS: dict[str, Callable[[Any, Any], Any]] = {
    "avg_pool2d": lambda x, _: F.avg_pool2d(x, 2),
    "conv2d": lambda x, _: nn.Conv2d(4, 3, 3)(x),
    "batch_norm": lambda x, _: nn.BatchNorm2d(4)(x),
    "cross_entropy": lambda x, t: F.cross_entropy(x[0, 0, :3], t),
    "embedding": lambda x, t: nn.Embedding(5, 3)(t),
    "linear": lambda x, _: nn.Linear(6, 3)(x),
    "max_pool2d": lambda x, _: F.max_pool2d(x, 2),
    "nll_loss": lambda x, t: F.nll_loss(x[0, 0, :3], target=t),
    "scaled_dot_product_attention": lambda x, _: F.scaled_dot_product_attention(x, x, x),
    "softmax": lambda x, _: F.softmax(x, 1),
}


@pytest.mark.parametrize("name", ON_ARRAYS)
def test_ndarrays_are_taken_for_vars(name: str) -> None:
    """`net(batch)` with an ndarray was an AttributeError of NumPy's dtype."""
    found = []
    for convert in (np.asarray, mo.array):
        mo.manual_seed(0)
        found.append(ON_ARRAYS[name](convert(ARRAY), convert(LABELS)).numpy())
    np.testing.assert_array_equal(*found)
