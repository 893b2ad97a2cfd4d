"""How many kernels eighty expressions compile to: one golden table.

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
        **moved_rows(x, y),
        **composed(x, y, v, image, labels),
    }  # fmt: skip


def moved_rows(x: mo.Var, y: mo.Var) -> dict[str, Any]:
    """What is made of rows, moved: by transposes, reshapes, slices, pads, concats."""
    p = F.softmax(x, 1)
    return {
        "softmax of a transposed": F.softmax(x.T, 0),
        "softmax, transposed": p.T,
        "softmax, two rows as one": p.reshape(32, 192) * 2,
        "softmax, a row as two": p.reshape(128, 48) * 2,
        "softmax, flat": p.reshape(-1) + 1,
        "softmax, padded": mo.pad(p, 1),
        "softmax of a padded": F.softmax(mo.pad(x, 1), 1),
        "softmax, without first and last row": p[1:-1] * 2,
        "softmax, every second row": p[::2] * 2,
        "softmax, some columns": p[:, 3:50:2] * 2,
        "softmax, flipped": mo.flip(p, 0) * 2,
        "softmax, rolled": mo.roll(p, 1, 1) * 2,
        "softmax, tiled": mo.tile(p, (1, 2)),
        "softmax, its diagonal": mo.diagonal(p),
        "softmax in blocks": F.softmax(x.reshape(64, 8, 12), 2).reshape(64, 96) * y,
        "softmax twice": F.softmax(p * y, 1),
        "layer norm of rows joined": F.layer_norm(mo.concat([x, y]), (96,)),
        "layer norm of joined rows": F.layer_norm(mo.concat([x, y], 1), (192,)),
        "sum of joined rows": mo.concat([x, y], 1).sum(1),
        "mean of a stack": mo.stack([x, y, x * y]).mean(0),
        "maximum of a stack": mo.stack([x, y], -1).max(-1),
        "variance of joined columns": mo.concat([x, y]).var(0),
        "two softmaxes side by side": mo.concat([p, F.softmax(y, 1)], 1),
        "two softmaxes of arrays of their own lengths": mo.concat([p, F.softmax(y, 1)]),
    }


def composed(x: mo.Var, y: mo.Var, v: mo.Var, image: mo.Var, labels: mo.Var) -> dict[str, Any]:
    """What networks are made of."""
    half, cos, sin = operand(2, 4, 32, 16), operand(32, 8), operand(32, 8)
    a, b = half[..., :8], half[..., 8:]
    scores = half @ mo.swapaxes(operand(2, 4, 32, 16), -1, -2)
    causal = mo.tril(mo.ones((32, 32))) > 0
    gain, bias = operand(8), operand(8)
    last = mo.transpose(image, (0, 2, 3, 1))
    patches = mo.transpose(image.reshape(4, 8, 4, 4, 4, 4), (0, 2, 4, 1, 3, 5)).reshape(64, 128)
    return {
        "rotary embedding": mo.concat([a * cos - b * sin, b * cos + a * sin], -1),
        "attention scores, masked, softmax": F.softmax(mo.where(causal, scores, -mo.inf), -1),
        "gated unit": F.silu(x[:, :48]) * x[:, 48:],
        "RMS norm": x * mo.rsqrt((x * x).mean(1, keepdims=True) + 1e-6) * v,
        "RMS norm, half of it": mo.split(x * mo.rsqrt((x * x).mean(1, True) + 1e-6), 2, 1)[0],
        "group norm": F.group_norm(image, 2, gain, bias),
        "layer norm over channels": mo.transpose(F.layer_norm(last, (8,)), (0, 3, 1, 2)),
        "layer norm of patches": F.layer_norm(patches, (128,)),
        "cross entropy, smoothed": F.cross_entropy(x, labels, label_smoothing=0.1),
        "entropy": -(F.softmax(x, 1) * F.log_softmax(x, 1)).sum(1),
        "rows scaled to [0, 1]": (x - x.min(1, True)) / (x.max(1, True) - x.min(1, True)),
        "mask of the five largest": mo.where(x >= mo.topk(x, 5, 1)[0][:, -1:], x, 0.0),
        "channels scaled by their means": image * F.sigmoid(image.mean((2, 3), True)),
        "variation along rows": mo.abs(x[:, 1:] - x[:, :-1]).sum(1),
        "distances of all pairs": ((x[:, None] - y[None]) ** 2).sum(-1),
        "a user's loop, scaled": lowered(x * 2) * 3,
        "a user's loop, relu, sum": (F.relu(lowered(x * 2)) + 1).sum(),
        "a user's loop, its gradient": gradient_of_a_loop(x),
        "softmax of a user's loop": F.softmax(lowered(x), 1),
    }


@mo.kernel
def lowered(i: Any, j: Any, x: Any) -> Any:
    value = x[i, j]
    while value > 0.1:
        value = value * value / 2
    return value


def gradient_of_a_loop(x: mo.Var) -> mo.Var:
    z = mo.array(x.numpy(), requires_grad=True).sync()
    return mo.grad(mo.exp(lowered(z * 2)).sum(), z)


def assigned(x: mo.Var, y: mo.Var) -> mo.Var:
    z = x * 2
    z[1:-1, ::2] = y[1:-1, ::2]
    return z + 1


def test_kernel_counts_golden() -> None:
    table = expressions()
    assert len(table) >= 80
    counts = {name: len(mo.explain(value).kernels) for name, value in table.items()}
    assert_golden("".join(f"{count}  {name}\n" for name, count in counts.items()))
