"""Data sets and the loader that cuts them into batches."""

from typing import TYPE_CHECKING

from ..hints import refuse
from .dataset import (
    ConcatDataset,
    Dataset,
    ImageDataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from .digits import Digits
from .fashion_mnist import DataNotFoundError, FashionMNIST
from .loader import DataLoader
from .sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "DataNotFoundError",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "ImageDataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "StackDataset",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "random_split",
]


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
