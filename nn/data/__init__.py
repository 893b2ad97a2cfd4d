"""Data sets and the loader that cuts them into batches."""

from typing import TYPE_CHECKING

from ..hints import refuse
from .dataset import (
    ConcatDataset,
    Dataset,
    ImageDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from .digits import Digits
from .fashion_mnist import DataNotFoundError, FashionMNIST
from .loader import DataLoader

__all__ = [
    "ConcatDataset",
    "DataLoader",
    "DataNotFoundError",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "ImageDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "random_split",
]


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
