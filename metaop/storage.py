"""Memory of values: aligned, pooled, immutable once computed.

A storage lives as long as a node or an exported array refers to it; then its memory goes back to
a pool, because touching fresh pages costs more than most kernels.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

ALIGNMENT = 64
POOL_BYTES = 1 << 30


def size_class(nbytes: int) -> int:
    """The allocation size for a request: multiples of 64 bytes, then eighths of a power of two."""
    if nbytes <= 4096:
        return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
    step = 1 << max(nbytes.bit_length() - 4, 6)
    return -(-nbytes // step) * step


def aligned_bytes(nbytes: int) -> tuple[np.ndarray, int]:
    """Uninitialised memory and the first aligned address in it."""
    try:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    except MemoryError:
        raise MemoryError(f"cannot allocate {nbytes:,} bytes for a value") from None
    start = raw.__array_interface__["data"][0]
    return raw, -(-start // ALIGNMENT) * ALIGNMENT


class Pool:
    """Free memory by size class, bounded in bytes."""

    def __init__(self, limit: int = POOL_BYTES):
        self.limit = limit
        self.free_bytes = 0
        self._free: dict[int, list[tuple[np.ndarray, int]]] = {}
        self._lock = threading.RLock()  # re-entered when a collection frees a storage

    def take(self, nbytes: int) -> tuple[np.ndarray, int]:
        """Memory of at least nbytes, used before if there is some."""
        size = size_class(nbytes)
        with self._lock:
            blocks = self._free.get(size)
            if blocks:
                self.free_bytes -= size
                return blocks.pop()
        return aligned_bytes(size)

    def give(self, nbytes: int, block: tuple[np.ndarray, int]) -> None:
        """Takes memory back."""
        size = size_class(nbytes)
        with self._lock:
            if self.free_bytes + size <= self.limit:
                self._free.setdefault(size, []).append(block)
                self.free_bytes += size

    def clear(self) -> None:
        """Returns all free memory to the system."""
        with self._lock:
            self._free.clear()
            self.free_bytes = 0


pool = Pool()


class Storage:
    """The bytes of one value."""

    __slots__ = ("nbytes", "address", "_block", "__weakref__")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self._block = pool.take(nbytes)
        self.address = self._block[1]

    def __del__(self) -> None:
        try:
            pool.give(self.nbytes, self._block)
        except (AttributeError, TypeError):  # half-made, or the interpreter is going down
            pass

    @classmethod
    def of_array(cls, array: np.ndarray) -> Storage:
        """A copy of an array's bytes in row-major order."""
        storage = cls(array.nbytes)
        storage.view(array.dtype, array.shape)[...] = array
        return storage

    def view(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """An array over the bytes, which keeps this storage alive."""
        return np.asarray(_Export(self, dtype, shape))


class _Export:
    """The array interface of a storage; the array made from it holds on to the storage."""

    def __init__(self, storage: Storage, dtype: np.dtype, shape: tuple[int, ...]):
        self.storage = storage
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (storage.address, False),
        }
