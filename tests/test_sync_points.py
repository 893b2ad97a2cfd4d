"""Reading a value before it is summed changes no bit: random programs with random sync points.

Each program is built of movement, elementwise operators, reductions and contractions.  It runs as
one, and again with values read on the way, which are then in memory when they are reduced.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest

import metaop as mo
from metaop import nn

Step = Callable[[mo.Var, random.Random], mo.Var]


def other(shape: tuple[int, ...], draw: random.Random) -> mo.Var:
    """An array of its own, none of whose axes is dynamic."""
    numbers = np.random.default_rng(draw.randrange(1 << 30))
    return nn.Parameter(mo.array(numbers.standard_normal(shape).astype(np.float32)))


def permuted(x: mo.Var, draw: random.Random) -> mo.Var:
    axes = list(range(x.ndim))
    draw.shuffle(axes)
    return x.transpose(axes)


def sliced(x: mo.Var, draw: random.Random) -> mo.Var:
    slices = []
    for n in x.shape:
        first, step = draw.randrange(max(n // 3, 1)), draw.choice((1, 1, 1, 2, -1))
        slices.append(slice(None, None, -1) if step < 0 else slice(first, None, step))
    return x[tuple(slices)]


def unfolded(x: mo.Var, draw: random.Random) -> mo.Var:
    if x.ndim > 3 or x.shape[-1] < 4:
        return x * 0.5
    k = draw.choice((2, 3))
    shape = (*x.shape[:-1], x.shape[-1] - k + 1, k)
    return x.reindex(shape, lambda *i: (*i[:-2], i[-2] + i[-1]))


def padded(x: mo.Var, draw: random.Random) -> mo.Var:
    return mo.pad(x, [(draw.randrange(2), draw.randrange(2)) for _ in x.shape])


def broadcast(x: mo.Var, draw: random.Random) -> mo.Var:
    if x.ndim > 3 or x.size > 4000:
        return x + 0.25
    axis = draw.randrange(x.ndim + 1)
    wider = mo.expand_dims(x, axis)
    return mo.broadcast_to(wider, (*x.shape[:axis], draw.choice((3, 7)), *x.shape[axis:]))


def reshaped(x: mo.Var, draw: random.Random) -> mo.Var:
    return x.reshape((-1, x.shape[-1])) if draw.random() < 0.5 else x.reshape((x.shape[0], -1))


def joined(x: mo.Var, draw: random.Random) -> mo.Var:
    return mo.concat([x, x * 2.0 if draw.random() < 0.5 else x], axis=draw.randrange(x.ndim))


def gathered(x: mo.Var, draw: random.Random) -> mo.Var:
    picks = [draw.randrange(x.shape[0]) for _ in range(x.shape[0])]
    return x[mo.array(picks)]


def added(x: mo.Var, draw: random.Random) -> mo.Var:
    y = other(x.shape[::-1], draw).transpose(tuple(range(x.ndim))[::-1])
    return y + x if draw.random() < 0.5 else x + y


def scaled(x: mo.Var, draw: random.Random) -> mo.Var:
    return draw.choice((lambda v: 1.5 - v, lambda v: mo.exp(-mo.abs(v)), mo.tanh))(x)


def softmax(x: mo.Var, draw: random.Random) -> mo.Var:
    return nn.functional.softmax(x, dim=draw.randrange(x.ndim))


def related(x: mo.Var, draw: random.Random) -> mo.Var:
    return x @ mo.exp(mo.swapaxes(x, -1, -2)) if draw.random() < 0.5 else mo.tanh(x) + x


def summed(x: mo.Var, draw: random.Random) -> mo.Var:
    if x.ndim < 3:
        return x - x.mean(axis=draw.randrange(x.ndim), keepdims=True)
    return x.sum(axis=draw.randrange(x.ndim))


def multiplied(x: mo.Var, draw: random.Random) -> mo.Var:
    if draw.random() < 0.5:
        return x @ other((x.shape[-1], draw.choice((5, 16, 33))), draw)
    return x @ other((draw.choice((5, 16, 33)), x.shape[-1]), draw).T


def convolved(x: mo.Var, draw: random.Random) -> mo.Var:
    if x.ndim != 3:
        return x * x
    weight = other((draw.choice((4, 17)), x.shape[1], 3), draw)
    return nn.functional.conv1d(x, weight, padding=1, stride=draw.choice((1, 2)))


STEPS: list[Step] = [
    permuted, permuted, sliced, unfolded, padded, broadcast, reshaped, joined, gathered, scaled,
    softmax, summed, related,
]  # fmt: skip
MORE_STEPS = [*STEPS, added, multiplied, convolved]  # which give each axis a fixed extent


def bits(seed: int, reads: random.Random | None) -> list[str | bytes]:
    """What a random program computes: every axis summed, the whole, and a gradient."""
    draw = random.Random(seed)
    shape = tuple(draw.choice((6, 13, 24, 40)) for _ in range(draw.choice((2, 3))))
    first = x = other(shape, draw)
    steps = MORE_STEPS
    if seed % 2:
        first = x = mo.dynamic(mo.array(x.detach().numpy()), draw.randrange(len(shape)))
        first.requires_grad = True
        steps = STEPS
    trail: list[str] = []

    def read(value: mo.Var) -> None:
        if reads is not None and reads.random() < 0.5:
            value.numpy()

    read(x)
    for _ in range(draw.randrange(2, 6)):
        step = draw.choice(steps)
        new = step(x, draw)
        if new.size > 60_000:
            continue
        x = new
        trail.append(step.__name__)
        read(x)
    results = [x.sum(axis=k) for k in range(x.ndim)] + [x.sum(), x.max(axis=0)]
    results += list(mo.grad((x * x).sum(), [first]))
    for result in results:
        read(result)
    return trail + [sha256(r.numpy().tobytes()).digest() for r in results]


@pytest.mark.parametrize("seed", range(16))
def test_reading_a_value_before_it_is_summed_changes_no_bit(seed: int) -> None:
    plain = bits(seed, None)
    for k in range(2):
        assert bits(seed, random.Random(1000 * seed + k)) == plain


def test_a_jitted_function_adds_up_a_stored_value_in_the_order_of_the_layout_it_carries() -> None:
    x = other((40, 24), random.Random(0)).detach()
    total = mo.jit(lambda v: v.sum(axis=1))
    for value in (x.T, x.T[:, ::-1], x.T.reshape((12, 2, 40))[:, 1]):
        plain = value.sum(axis=1).numpy()
        value.numpy()
        assert total(value).numpy().tobytes() == plain.tobytes()


def test_a_layout_is_that_of_a_program_from_disk_and_of_another_size() -> None:
    for n in (33, 70):
        x = mo.array(np.random.default_rng(n).standard_normal((n, 24)).astype(np.float32))
        plain = mo.exp(x.T).sum(axis=1).numpy()
        value = mo.exp(x.T)
        value.numpy()
        assert value.sum(axis=1).numpy().tobytes() == plain.tobytes()


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2)])
@pytest.mark.parametrize(
    "pairs",
    [
        lambda a, b: abs(a[:, :, None] - b[None]),
        lambda a, b: (a[:, :, None] - b.T[:, ::-1].T[None]) ** 2 * 0.5,
        lambda a, b: mo.maximum(mo.exp(a.T).T[:, :, None], b[None, :, ::-1]),
        lambda a, b: (a[:, :, None] + a[:, :24, None] * b[None]).transpose(2, 0, 1),
    ],
)
def test_what_repeats_all_its_operands_is_summed_in_their_order_wherever_it_is_read(
    pairs: Callable[[mo.Var, mo.Var], mo.Var], axis: int | tuple[int, ...]
) -> None:
    for n in (40, 5):
        a = other((n, 24), random.Random(n)).detach()
        b = other((24, 31), random.Random(2)).detach()
        plain = pairs(a, b).sum(axis=axis).numpy()
        value = pairs(a, b)
        value.numpy()
        again = (mo.sqrt(value) if axis == 0 else value).sum(axis=axis)
        if axis == 0:
            plain = mo.sqrt(pairs(a, b)).sum(axis=axis).numpy()
        assert again.numpy().tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    ("make", "reduce"),
    [
        (lambda a, b: a[:, :, None] * b[None], lambda v, a: v.sum(axis=1)),
        (lambda a, b: mo.zeros((24, 40)), lambda v, a: (v + a.T).sum(axis=1)),
    ],
    ids=["a product of two values that repeat elements", "an array of one number"],
)
def test_the_exceptions_are_right_within_rounding(
    make: Callable[[mo.Var, mo.Var], mo.Var], reduce: Callable[[mo.Var, mo.Var], mo.Var]
) -> None:
    a = other((40, 24), random.Random(1)).detach()
    b = other((24, 31), random.Random(2)).detach()
    plain = reduce(make(a, b), a).numpy()
    value = make(a, b)
    value.numpy()
    again = reduce(value, a).numpy()
    assert again.tobytes() != plain.tobytes()  # or ARCHITECTURE.md has an exception too many
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5)
