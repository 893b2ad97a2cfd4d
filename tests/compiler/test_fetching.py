"""The last loops of an iteration fetch what the next iteration reads first: where, and how far."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.compiler import fetching, pipeline
from metaop.compiler.loops import Fetch, For, Stmt, statements
from metaop.compiler.nest import Tree
from metaop.compiler.schedule import Scheduled, schedule
from tests.compiler.stages import ALL_PASSES, after, only, recorded


def normalised(*shape: int) -> mo.Var:
    """Every channel less its mean, by its deviation."""
    x = mo.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    centred = x - x.mean((0, 2, 3), keepdims=True)
    return centred / mo.sqrt((centred * centred).mean((0, 2, 3), keepdims=True) + 1.0)


def kernel_of(result: mo.Var) -> Scheduled:
    trees = pipeline.group_graph(after(recorded(result), ALL_PASSES))[1].trees
    return schedule(only([tree for tree in trees if isinstance(tree, Tree)]))


def vector_loops(work: Scheduled) -> list[list[Stmt]]:
    found = [s for s in statements(work.kernel.body) if isinstance(s, For) and s.how == "vector"]
    return [loop.body for loop in found]


def fetches(work: Scheduled) -> list[Fetch]:
    return [stmt for stmt in statements(work.kernel.body) if isinstance(stmt, Fetch)]


def test_the_last_loop_fetches_what_the_next_channel_is_read_from():
    work = kernel_of(normalised(40, 64, 32, 32))
    fetch = only(fetches(work))
    assert fetch in vector_loops(work)[-1]
    kind, _, (_, name) = fetch.offset
    assert kind == "add" and work.integers[name] == 32 * 32


def test_a_row_is_fetched_where_it_is_read_for_the_last_time():
    rows = mo.array(np.zeros((512, 1024), np.float32))
    work = kernel_of(nn.functional.softmax(rows, 1))
    fetch = only(fetches(work))
    loops = vector_loops(work)
    assert fetch in loops[1] and len(loops) == 3  # the third reads what the second has made
    assert work.integers[fetch.offset[2][1]] == 1024


@pytest.mark.parametrize(
    "make",
    [
        lambda: normalised(8, 48, 8, 8),
        lambda: mo.array(np.zeros((512, 1024), np.float32)) + 1,
        lambda: nn.functional.softmax(mo.array(np.zeros((4096, 128), np.float32)), 1),
    ],
    ids=["in a cache already", "read once", "rows that follow each other closely"],
)
def test_nothing_is_fetched(make):
    assert not fetches(kernel_of(make()))


def test_what_no_cache_would_hold_until_it_is_read_is_not_fetched(monkeypatch):
    monkeypatch.setattr(fetching, "MOST_AHEAD", 1 << 16)
    assert not fetches(kernel_of(normalised(32, 64, 32, 32)))


def test_fetches_behind_the_last_channel_do_no_harm(monkeypatch):
    monkeypatch.setattr(fetching, "LEAST_BUFFER", 0)
    assert fetches(kernel_of(normalised(9, 48, 7, 11)))
    got, x = (
        normalised(9, 48, 7, 11).numpy(),
        np.random.default_rng(0)
        .standard_normal((9, 48, 7, 11))
        .astype(np.float32)
        .astype(np.float64),
    )
    centred = x - x.mean((0, 2, 3), keepdims=True)
    want = centred / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1)
    np.testing.assert_allclose(got, want, atol=1e-6)
