"""What a data set is: a length and items; rows of whole arrays where it has them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import metaop as mo


class Dataset:
    """Anything with `len(dataset)` items, each of which is `dataset[i]`.

    An item is an array or number, a tuple of them, or a dict of them.  A subclass that holds its
    items as arrays may also define `arrays()`, a tuple of ndarrays of one length such that item i
    is the tuple of their i-th rows: a DataLoader then cuts whole batches out of them at once.
    A class that overrides `__getitem__` below such an `arrays()` is read item by item.
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")


class IterableDataset:
    """Items in the order of `iter(dataset)`, however many there are: a stream."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class TensorDataset(Dataset):
    """The rows of arrays of equal length: item i is `(arrays[0][i], arrays[1][i], ...)`."""

    def __init__(self, *arrays: Any):
        """arrays: ndarrays, or what NumPy can read as such; they are not copied."""
        if not arrays:
            raise ValueError("TensorDataset(*arrays): needs at least one array")
        self._arrays = tuple(np.asarray(array) for array in arrays)
        if any(array.ndim == 0 for array in self._arrays):
            raise ValueError("TensorDataset(*arrays): a 0-d array has no rows")
        lengths = [len(array) for array in self._arrays]
        if len(set(lengths)) > 1:
            raise ValueError(f"TensorDataset(*arrays): lengths must be equal, are {lengths}")

    def __len__(self) -> int:
        return len(self._arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(array[index] for array in self._arrays)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays themselves."""
        return self._arrays


class ImageDataset(Dataset):
    """Labelled images in memory: item i is `(images[i], int(labels[i]))`.

    images: [n, height, width]; labels: int64 [n].
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, but {len(labels)} labels")
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])

    def arrays(self) -> tuple[np.ndarray, ...]:
        """`(images, labels)`."""
        return self.images, self.labels

    def __repr__(self) -> str:
        size = "x".join(map(str, self.images.shape[1:]))
        return f"{type(self).__name__}({len(self)} images of {size})"


class Subset(Dataset):
    """Some items of a data set, in a given order: item i is `dataset[indices[i]]`."""

    def __init__(self, dataset: Any, indices: Any):
        self.dataset, self.indices = dataset, np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]


class ConcatDataset(Dataset):
    """The items of several data sets, one after another."""

    def __init__(self, datasets: Any):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset(datasets): needs at least one data set")
        self._ends = np.cumsum([len(dataset) for dataset in self.datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"ConcatDataset: item {index} is out of range for {count} items")
        at = index % count
        number = int(np.searchsorted(self._ends, at, side="right"))
        return self.datasets[number][at - (int(self._ends[number - 1]) if number else 0)]


class StackDataset(Dataset):
    """Item i is the tuple, or the dict, of the items i of several data sets of one length."""

    def __init__(self, *datasets: Any, **named: Any):
        if bool(datasets) == bool(named):
            raise ValueError("StackDataset: give data sets, or data sets by name, and not both")
        self.datasets: Any = named or datasets
        lengths = {len(dataset) for dataset in (named.values() if named else datasets)}
        if len(lengths) > 1:
            raise ValueError(f"StackDataset: lengths must be equal, are {sorted(lengths)}")

    def __len__(self) -> int:
        first = next(iter(self.datasets.values())) if isinstance(self.datasets, dict) else None
        return len(self.datasets[0] if first is None else first)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)


def random_split(dataset: Any, lengths: Any, seed: int | None = None) -> list[Subset]:
    """Subsets of these lengths, without a common item; fractions that add up to 1 are lengths, too.

    seed: what the order depends on; None draws one from metaop's default generator, which
    `mo.manual_seed` settles.
    """
    count, given = len(dataset), list(lengths)
    if abs(sum(given) - 1) < 1e-6 and all(0 <= share <= 1 for share in given):
        floors = [int(count * share) for share in given]
        rest = count - sum(floors)
        given = [n + (k < rest) for k, n in enumerate(floors)]
    if sum(given) != count:
        raise ValueError(f"random_split: lengths must add up to {count}, {given} do not")
    if seed is None:
        low, high = mo.random.random_bits(2).tolist()
        seed = low | high << 32
    bits = np.random.Philox(np.random.SeedSequence(seed))
    order = np.argsort(bits.random_raw(count), kind="stable")
    ends = np.cumsum(given)
    return [Subset(dataset, order[end - n : end]) for end, n in zip(ends, given, strict=True)]
