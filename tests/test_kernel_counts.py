"""How many kernels forty expressions compile to: one golden table.

Movement, slices, pads, concats, masks and random numbers do not break fusion; a kernel more is a
chain of reductions that cannot share an outer loop.  Counted, not compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import metaop as mo
from metaop.nn import functional as F
from tests.golden import assert_golden

RNG = np.random.default_rng(0)


def operand(*shape: int) -> mo.Var:
    return mo.array(RNG.normal(size=shape).astype(np.float32)).sync()


def expressions() -> dict[str, Any]:
    x, y, w = operand(64, 96), operand(64, 96), operand(96, 48)
    v, image, kernel = operand(96), operand(4, 8, 16, 16), operand(8, 8, 3, 3)
    labels = mo.array(RNG.integers(0, 96, 64)).sync()
    order = mo.array(RNG.integers(0, 64, 32)).sync()
    places = (order[:, None] + mo.zeros(32, 96, dtype="int64")).sync()
    return {
        "x * y + 1": x * y + 1,
        "tanh(x) transposed + y.T": mo.tanh(x).T + y.T,
        "reshape, then transpose, then add": mo.transpose(x.reshape(96, 64)) * y,
        "slices with steps": x[::2, ::-1] + y[1::2],
        "pad and add": mo.pad(x, 1) * 2 + mo.pad(y, 1, "reflect"),
        "concat of two expressions": mo.concat([x * 2, mo.exp(y)]),
        "stack and sum": mo.stack([x, y]).sum(0),
        "roll and flip": mo.roll(x, 3, 0) - mo.flip(y, 1),
        "tile times x": mo.tile(v, (64, 1)) * x,
        "triangle": mo.tril(x) + mo.triu(y),
        "where and a mask": mo.where(x > 0, x, y * 0.1),
        "dropout": mo.random.bernoulli(0.5, (64, 96)) * x,
        "uniform + x": mo.random.uniform((64, 96)) + x,
        "sum of everything": (x * y).sum(),
        "sum of rows": (x * y).sum(1),
        "sum of columns": (x + y).sum(0),
        "mean of squares": (x * x).mean(),
        "norm of rows": mo.norm(x, 1),
        "maximum of rows less minimum": mo.ptp(x, 1),
        "mean and subtract": x - x.mean(1, keepdims=True),
        "variance of rows": x.var(1),
        "standard scores of rows": (x - x.mean(1, True)) / (x.std(1, keepdims=True) + 1e-5),
        "softmax": F.softmax(x, 1),
        "log softmax": F.log_softmax(x, 1),
        "cross entropy": F.cross_entropy(x, labels),
        "logsumexp": mo.logsumexp(x, 1),
        "argmax of rows": mo.argmax(x, 1),
        "matmul": x @ w,
        "matmul, bias, relu": F.relu(x @ w + operand(48)),
        "einsum of two": mo.einsum("ij,kj->ik", x, y),
        "einsum of three": mo.einsum("ij,jk,kl->il", x, w, operand(48, 5)),
        "outer product plus": mo.outer(v, v) + 1,
        "gather of rows": x[order] * 2,
        "one_hot times": mo.one_hot(labels, 96) * x,
        "scatter_add": mo.scatter_add(x, 0, places, y[:32]),
        "cumsum of a long row": mo.cumsum(operand(1000)),
        "convolution": mo.conv2d(image, kernel, padding=1),
        "convolution and relu": F.relu(mo.conv2d(image, kernel, padding=1)),
        "max pooling": mo.max_pool2d(image, 2),
        "layer norm": F.layer_norm(x, (96,)),
        "batch norm in inference": F.batch_norm(image, operand(8), operand(8) ** 2),
        "an assignment to a part": assigned(x, y),
    }  # fmt: skip


def assigned(x: mo.Var, y: mo.Var) -> mo.Var:
    z = x * 2
    z[1:-1, ::2] = y[1:-1, ::2]
    return z + 1


def test_kernel_counts_golden() -> None:
    table = expressions()
    assert len(table) >= 40
    counts = {name: len(mo.explain(value).kernels) for name, value in table.items()}
    assert_golden("".join(f"{count}  {name}\n" for name, count in counts.items()))
