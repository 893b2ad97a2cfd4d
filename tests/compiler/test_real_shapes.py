"""Layers at the sizes of known networks, and drawn layers of such sizes, against PyTorch: results
and all gradients, with and without jit, on plainer processors, with one thread and with three, by
Winograd's algorithm; some forward only.

Sums of products of small integers must be equal to the last bit, whatever the order of additions.
What divides or takes roots may differ from float64 by 4 * (4 + sqrt(terms)) * 2^-24 of the largest
value, where `terms` is the length of the longest sum.

A sample runs by default; METAOP_FUZZ=1000 runs the whole table and draws so many layers.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

import metaop as mo
from metaop.compiler import machine
from tests.compiler.real_shapes import (
    Case,
    Layer,
    alone,
    around,
    computed,
    depthwise,
    drawn,
    expected,
    kept,
    table,
)

pytest.importorskip("torch")
DRAWN = int(os.environ.get("METAOP_FUZZ", "0"))
SAMPLE = 6  # of the table, and as many drawn
ONCE_WRONG = [  # each at its real size only
    around(Layer(512, 28, 512, 1, 2, 0), alone, "ResNet-50"),
    around(depthwise(455, 14, 3), alone, "depthwise"),
]


def hashed(case: Case) -> int:
    return zlib.crc32(case.name.encode())


def sampled() -> list[Case]:
    every = table()
    if DRAWN:
        return [*ONCE_WRONG, *every]
    small = [case for case in every if case.elements < 5e5]
    return [*ONCE_WRONG, *sorted(small, key=hashed)[:SAMPLE]]


@pytest.fixture(autouse=True)
def settings_are_restored() -> Iterator[None]:
    threads = mo.get_num_threads()
    yield
    mo.set_num_threads(threads)


def vary(case: Case, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Settings by the hash of the name: how often which is drawn does not depend on the table."""
    number = hashed(case)
    mo.set_num_threads((1, 2, 2, 3)[number % 4])
    monkeypatch.setattr(mo.config, "cpu", ("host", "host", "avx2", "sse4")[number // 4 % 4])
    try:
        machine.processor()
    except ValueError:  # this machine cannot run it
        monkeypatch.setattr(mo.config, "cpu", "host")
    options = {"jit": number // 16 % 2, "winograd": number // 32 % 4 == 0}
    return {name: bool(wanted) for name, wanted in options.items()} | {"backward": number % 5 > 0}


def assert_torchs(case: Case, jit: bool, winograd: bool, backward: bool) -> None:
    if case.again:
        assert_torchs(case.again, jit, winograd, backward)
    with mo.winograd(winograd):
        got = computed(case, jit, backward)
    for found, want in zip(got, expected(case, got[0])):
        if not case.terms:
            np.testing.assert_array_equal(found, want)
            continue
        most = 4 * (4 + case.terms**0.5) * 2.0**-24 * np.abs(want).max()
        np.testing.assert_allclose(found, want, rtol=0, atol=most)


@pytest.mark.parametrize("case", sampled(), ids=lambda case: case.name)
def test_a_layer_of_a_network(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_torchs(case, **vary(case, monkeypatch))


@pytest.mark.parametrize("case", drawn(DRAWN or SAMPLE), ids=lambda case: case.name)
def test_a_drawn_layer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_torchs(case, **vary(case, monkeypatch))


@pytest.mark.parametrize("backward", [False, True])
def test_results_of_winograds_products_are_read_by_what_follows(backward: bool) -> None:
    assert_torchs(around(Layer(64, 28, 64, 3), kept, "Winograd"), False, True, backward)
