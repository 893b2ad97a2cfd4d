"""Samplers: in which order the items of a data set are read, and which of them form a batch.

Every `iter(sampler)` of a random one draws a new order from a generator, by default metaop's own,
which `mo.manual_seed` settles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import metaop as mo


class Sampler:
    """Anything that yields indices, or lists of them, and has a length."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class SequentialSampler(Sampler):
    """0, 1, … len(data_source) - 1."""

    def __init__(self, data_source: Any):
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class _Random(Sampler):
    """What random samplers share."""

    generator: mo.random.Generator | None

    def _words(self, count: int) -> np.ndarray:
        """Random uint64, of a stream that a new number of the generator begins."""
        low, high = mo.random.random_bits(2, generator=self.generator).tolist()
        return np.random.Philox(np.random.SeedSequence(low | high << 32)).random_raw(count)

    def _order(self, count: int) -> np.ndarray:
        return np.argsort(self._words(count), kind="stable")


class RandomSampler(_Random):
    """All indices in a random order, or `num_samples` of them.

    replacement: each is drawn from all.  More samples than items without replacement are several
    orders, one after another.
    """

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: mo.random.Generator | None = None,
    ):
        if num_samples is not None:
            _check_positive("RandomSampler", "num_samples", num_samples)
        self.data_source, self.replacement = data_source, replacement
        self._num_samples, self.generator = num_samples, generator

    @property
    def num_samples(self) -> int:
        """How many are drawn."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        count, wanted = len(self.data_source), self.num_samples
        if not count:
            return iter(())
        if self.replacement:
            return iter((self._words(wanted) % np.uint64(count)).astype(np.int64).tolist())
        orders = [self._order(count) for _ in range(-(-wanted // count))]
        return iter(np.concatenate(orders)[:wanted].tolist())

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(_Random):
    """Given indices in a random order."""

    def __init__(self, indices: Sequence[int], generator: mo.random.Generator | None = None):
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        return iter([self.indices[k] for k in self._order(len(self.indices)).tolist()])

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_Random):
    """`num_samples` indices, k with a probability in proportion to weights[k].

    Without replacement each one at most once: the largest log(u)/weight (Efraimidis and Spirakis
    2006), which are as many draws one after another.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: mo.random.Generator | None = None,
    ):
        _check_positive("WeightedRandomSampler", "num_samples", num_samples)
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1 or not (self.weights >= 0).all() or not self.weights.any():
            raise ValueError(
                "WeightedRandomSampler: weights are a list of numbers from 0 on, not all 0"
            )
        if not replacement and num_samples > np.count_nonzero(self.weights):
            raise ValueError(
                f"WeightedRandomSampler: {num_samples} samples without replacement, "
                f"{np.count_nonzero(self.weights)} weights are not 0"
            )
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        count = self.num_samples if self.replacement else len(self.weights)
        uniform = ((self._words(count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        if self.replacement:
            ends = np.cumsum(self.weights)
            return iter(np.searchsorted(ends, uniform * ends[-1], side="right").tolist())
        with np.errstate(divide="ignore"):
            keys = np.log(uniform) / self.weights  # -inf where the weight is 0
        return iter(np.argsort(-keys, kind="stable")[: self.num_samples].tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of `batch_size` indices of another sampler; the last may be shorter, or is left out."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False):
        _check_positive("BatchSampler", "batch_size", batch_size)
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count: int = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


def _check_positive(where: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{where}: {name} must be an int from 1 on, is {value!r}")
