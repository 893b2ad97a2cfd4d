"""What a data set is: a length and items; rows of whole arrays where it has them in memory."""

from __future__ import annotations

from typing import Any

import numpy as np


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
