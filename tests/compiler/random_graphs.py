"""Small random graphs of meta-operators, for properties that hold for all graphs."""

from __future__ import annotations

import random

import numpy as np

import metaop as mo

MOST_ELEMENTS = 200


def draw_graph(draw: random.Random, length: int = 10) -> list[mo.Var]:
    """Results of `length` random operators on two arrays: elementwise, views, gathers, scatters."""
    made = [_array(draw, (3, 4)), _array(draw, (2, 5))]
    while len(made) < length + 2:
        x = draw.choice(made[-4:])
        y = draw.choice(OPERATORS)(draw, x, made)
        if y is not None and 0 < y.size <= MOST_ELEMENTS:
            made.append(y)
    return made[-2:]


def _array(draw: random.Random, shape: tuple[int, ...]) -> mo.Var:
    numbers = [draw.choice([-1.5, -1.0, -0.0, 0.0, 0.25, 1.0, 3.0]) for _ in range(np.prod(shape))]
    return mo.array(np.array(numbers, np.float32).reshape(shape))


def _unary(draw, x, made):
    return draw.choice([mo.tanh, mo.abs, mo.negative, mo.sigmoid, mo.floor])(x)


def _with_number(draw, x, made):
    number = draw.choice([0.0, -0.0, 1.0, 2.0, 0.5, -1.0, 0.7])
    return draw.choice([lambda: x * number, lambda: x + number, lambda: x - number])()


def _neutral(draw, x, made):
    return draw.choice([lambda: x / 1.0, lambda: x**2, lambda: x**1, lambda: mo.negative(-x)])()


def _binary(draw, x, made):
    same = [y for y in made if y.shape == x.shape]
    y = draw.choice(same)
    return draw.choice([mo.add, mo.multiply, mo.subtract, mo.maximum, mo.minimum])(x, y)


def _choose(draw, x, made):
    return mo.where(x > 0, draw.choice([y for y in made if y.shape == x.shape]), x)


def _transposed(draw, x, made):
    order = list(range(x.ndim))
    draw.shuffle(order)
    return mo.permute_dims(x, tuple(order))


def _reshaped(draw, x, made):
    return x.reshape(draw.choice([(-1,), (1, -1), (x.size, 1)]))


def _sliced(draw, x, made):
    if x.ndim == 0:
        return None
    step = draw.choice([1, 2, -1])
    return x[draw.randint(0, max(int(x.shape[0]) - 2, 0)) :: step]


def _padded(draw, x, made):
    widths = [(draw.randint(0, 2), draw.randint(0, 1)) for _ in range(x.ndim)]
    return mo.pad(x, widths) if x.ndim else None


def _spread(draw, x, made):
    return mo.broadcast_to(mo.expand_dims(x, 0), (draw.randint(1, 3), *x.shape))


def _reduced(draw, x, made):
    if x.ndim == 0:
        return None
    reduce = draw.choice([mo.sum, mo.max, mo.mean])
    return reduce(x, axis=draw.randrange(x.ndim), keepdims=draw.random() < 0.5)


def _windows(draw, x, made):
    """Strided windows, or their sum: what a convolution and its gradient are made of."""
    if x.ndim != 2:
        return None
    n, m = x.shape
    stride, dilation, shift = draw.randint(1, 3), draw.randint(1, 2), draw.randint(0, 1)
    if draw.random() < 0.5:
        return mo.reindex(x, (n, m, 2), lambda i, j, k: (i, stride * j + dilation * k - shift))
    return mo.reindex_reduce(x, "add", (n + 1, 5), lambda i, j: (i, stride * j - shift))


def _residues(draw, x, made):
    """The sum of overlapping or separate windows: the gradient of strided windows."""
    if x.ndim != 2:
        return None
    stride = draw.randint(1, 3)
    op = draw.choice(["add", "maximum"])
    return mo.reindex_reduce(x, op, (stride * x.shape[0] + 2,), lambda i, j: (stride * i + j,))


def _joined(draw, x, made):
    same = [y for y in made if y.shape == x.shape]
    return mo.concat([x, draw.choice(same)], axis=0) if x.ndim else None


def _picked(draw, x, made):
    if x.ndim == 0:
        return None
    at = mo.array(np.array([draw.randrange(int(x.shape[0])) for _ in range(3)], np.int64))
    return mo.take(x, at, axis=0)


OPERATORS = [
    _unary, _with_number, _neutral, _binary, _choose, _transposed, _reshaped, _sliced, _padded,
    _spread, _reduced, _windows, _residues, _joined, _picked,
]  # fmt: skip
