"""1797 real handwritten digits that come with the package: no file to find, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import ImageDataset

_FILE = Path(__file__).with_name("digits.npz")
_TEST = 297  # the last images of the file


class Digits(ImageDataset):
    """Handwritten digits of 8x8 pixels with values 0..16: 1500 for training, 297 for testing.

    images: uint8 [n, 8, 8]; labels: int64 [n], 0..9.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository, test set; CC BY 4.0, see DIGITS_LICENSE.txt beside this file.
    """

    def __init__(self, train: bool = True):
        with np.load(_FILE, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
        rows = slice(None, -_TEST) if train else slice(-_TEST, None)
        super().__init__(images[rows], labels[rows].astype(np.int64))

    def as_fashion_shape(self) -> ImageDataset:
        """The same digits in the shape of Fashion-MNIST: uint8 [n, 28, 28], values 0..255.

        Each pixel becomes 3x3 equal ones, then a border of 2 zeros is added; 16 becomes 255.
        """
        scaled = (self.images.astype(np.uint16) * 255 + 8) // 16  # + 8: rounded, not cut off
        large = scaled.astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
        return ImageDataset(np.pad(large, ((0, 0), (2, 2), (2, 2))), self.labels)
