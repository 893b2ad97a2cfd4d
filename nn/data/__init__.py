"""Data sets and the loader that cuts them into batches."""

from .dataset import Dataset, ImageDataset, TensorDataset
from .digits import Digits
from .fashion_mnist import DataNotFoundError, FashionMNIST
from .loader import DataLoader

__all__ = [
    "DataLoader",
    "DataNotFoundError",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "ImageDataset",
    "TensorDataset",
]
