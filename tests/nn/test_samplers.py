"""Samplers and streams: what torch.utils.data gives, in an order of metaop's own generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop.nn import data

DRAWS = 20_000


def epochs(loader: data.DataLoader) -> list[list[int]]:
    return [batch.tolist() for (batch,) in loader]


@pytest.mark.parametrize("count", [0, 1, 7, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_of_a_sampler_are_torchs(count: int, drop_last: bool) -> None:
    theirs = pytest.importorskip("torch").utils.data
    ours = data.BatchSampler(data.SequentialSampler(range(count)), 4, drop_last)
    want = theirs.BatchSampler(theirs.SequentialSampler(range(count)), 4, drop_last)
    assert (list(ours), len(ours)) == (list(want), len(want))


@pytest.mark.parametrize("options", [
    {}, {"num_samples": 3}, {"num_samples": 25}, {"replacement": True},
    {"replacement": True, "num_samples": 30},
])  # fmt: skip
def test_random_samples_are_as_many_and_as_often_as_torchs(options: dict[str, Any]) -> None:
    theirs = pytest.importorskip("torch").utils.data.RandomSampler(range(10), **options)
    ours = data.RandomSampler(range(10), **options)
    got, want = list(ours), list(theirs)
    assert len(got) == len(ours) == len(want) == len(theirs)
    if not options.get("replacement"):
        counts = np.bincount(got, minlength=10)
        assert (counts.min(), counts.max()) == tuple(
            f(np.bincount(want, minlength=10)) for f in (np.min, np.max)
        )


def test_every_epoch_has_another_order_which_the_seed_settles() -> None:
    def drawn() -> list[list[int]]:
        mo.manual_seed(3)
        sampler = data.RandomSampler(range(50))
        return [list(sampler), list(sampler)]

    first, second = drawn()
    assert sorted(first) == sorted(second) == list(range(50)) and first != second
    assert drawn() == [first, second]
    own = [list(data.RandomSampler(range(50), generator=mo.random.Generator(5))) for _ in range(2)]
    assert own[0] == own[1] != first
    subset = list(data.SubsetRandomSampler([7, 3, 9]))
    assert sorted(subset) == [3, 7, 9]


def test_all_orders_are_equally_likely() -> None:
    mo.manual_seed(0)
    sampler = data.RandomSampler(range(3))
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(1200):
        order = tuple(sampler)
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 20.5  # chi-square, 5 degrees, 0.1 %


def test_weights_are_probabilities() -> None:
    mo.manual_seed(0)
    weights = np.array([0.0, 1.0, 3.0, 0.5])
    drawn = list(data.WeightedRandomSampler(weights, DRAWS))
    share = np.bincount(drawn, minlength=4) / DRAWS
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.015)
    first = [next(iter(data.WeightedRandomSampler(weights, 2, False))) for _ in range(1000)]
    np.testing.assert_allclose(
        np.bincount(first, minlength=4) / 1000, weights / weights.sum(), atol=0.05
    )
    for _ in range(20):
        assert sorted(data.WeightedRandomSampler(weights, 3, False)) == [1, 2, 3]


def test_a_loader_takes_items_in_a_samplers_order() -> None:
    items = np.arange(10) * 10
    assert epochs(data.DataLoader(items, 3, sampler=[9, 0, 4, 4])) == [[90, 0, 40], [40]]
    batches = data.DataLoader(items, batch_sampler=[[1], [2, 3], [0, 0, 9]])
    assert epochs(batches) == [[10], [20, 30], [0, 0, 90]] and len(batches) == 3
    dropped = data.DataLoader(items, 3, drop_last=True, sampler=data.SubsetRandomSampler(range(7)))
    assert len(dropped) == 2 and [len(b) for b in epochs(dropped)] == [3, 3]
    slow = data.DataLoader(list(items), 4, sampler=range(9, -1, -3), prefetch=0)
    assert epochs(slow) == [[90, 60, 30, 0]]


class Stream(data.IterableDataset):
    """The numbers from 0 on, pairs of them."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return ((k, k / 2) for k in range(self.count))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_stream_is_cut_into_batches_as_torch_does(prefetch: int) -> None:
    for drop_last, want in ((False, [[0, 1, 2], [3, 4, 5], [6]]), (True, [[0, 1, 2], [3, 4, 5]])):
        loader = data.DataLoader(Stream(7), 3, drop_last=drop_last, prefetch=prefetch)
        for _ in range(2):
            got = list(loader)
            assert [numbers.tolist() for numbers, _ in got] == want
            assert [halves.tolist() for _, halves in got] == [[k / 2 for k in b] for b in want]
    with pytest.raises(TypeError, match="has no len"):
        len(loader)


REFUSED = {
    "shuffle or sampler": (lambda: data.DataLoader([1], shuffle=True, sampler=[0]), "not both"),
    "batches": (lambda: data.DataLoader([1], 2, batch_sampler=[[0]]), "stands for batch_size"),
    "a shuffled stream": (lambda: data.DataLoader(Stream(3), shuffle=True), "its own order"),
    "no samples": (lambda: data.RandomSampler([1], num_samples=0), "num_samples must be an int"),
    "a negative weight": (lambda: data.WeightedRandomSampler([1, -1], 2), "numbers from 0 on"),
    "too many": (lambda: data.WeightedRandomSampler([1, 0], 2, False), "1 weights are not 0"),
    "no batch": (lambda: data.BatchSampler([0], 0), "batch_size must be an int from 1 on"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_at_the_call(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
