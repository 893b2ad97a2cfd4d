"""Memory of values: aligned, pooled, immutable once computed.

A storage lives as long as a node or an exported array refers to it; then its memory goes back to
a pool, because touching fresh pages costs more than most kernels.  Small values are cut from
slabs: a loss kept in a list costs 64 bytes of memory, not an allocation.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

ALIGNMENT = 64
POOL_BYTES = 1 << 30
SMALL = 4096  # up to this size a value lies in a slab
SLAB_BYTES = 1 << 16

Block = tuple[Any, int]  # what owns the memory, and the address


def size_class(nbytes: int) -> int:
    """The allocation size for a request: multiples of 64 bytes, then eighths of a power of two."""
    if nbytes <= SMALL:
        return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
    step = 1 << max(nbytes.bit_length() - 4, 6)
    return -(-nbytes // step) * step


def aligned_bytes(nbytes: int) -> tuple[np.ndarray, int]:
    """Uninitialised memory and the first aligned address in it."""
    try:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError):  # ValueError: more than an address can count
        raise MemoryError(f"cannot allocate {nbytes:,} bytes") from None
    start = raw.__array_interface__["data"][0]
    return raw, -(-start // ALIGNMENT) * ALIGNMENT


class Pool:
    """Free memory by size class, bounded in bytes: past the bound the class that was not used for
    longest goes back to the system.

    used_bytes: what storages hold now.
    """

    def __init__(self, limit: int = POOL_BYTES):
        self.limit = limit
        self.free_bytes = 0
        self.used_bytes = 0
        self._free: dict[int, list[Block]] = {}  # in the order of their last use
        self._lock = threading.RLock()  # re-entered when a collection frees a storage

    def take(self, nbytes: int) -> Block:
        """Memory of at least nbytes, used before if there is some.  Raises MemoryError."""
        size = size_class(nbytes)
        with self._lock:
            blocks = self._free.get(size)
            if not blocks:
                blocks = [self._fresh(size)] if size > SMALL else self._slab(size)
            self.free_bytes -= size
            self.used_bytes += size
            return blocks.pop()

    def _fresh(self, size: int) -> Block:
        """A block from the system, if need be after giving the free ones back."""
        try:
            block = aligned_bytes(size)
        except MemoryError:
            self.clear()
            block = aligned_bytes(size)
        self.free_bytes += size
        return block

    def _slab(self, size: int) -> list[Block]:
        """The free list of a small size, filled from one more slab."""
        raw, start = aligned_bytes(SLAB_BYTES)
        blocks = self._free.setdefault(size, [])
        count = SLAB_BYTES // size
        blocks += [(raw, start + k * size) for k in range(count)]
        self.free_bytes += count * size
        return blocks

    def give(self, nbytes: int, block: Block) -> None:
        """Takes memory back."""
        size = size_class(nbytes)
        with self._lock:
            blocks = self._free.pop(size, None)
            if blocks is None:
                blocks = []
            self._free[size] = blocks  # the class used last stands last
            blocks.append(block)
            self.free_bytes += size
            self.used_bytes -= size
            while self.free_bytes > self.limit:
                self._evict()

    def _evict(self) -> None:
        """Returns one block of the class that was used longest ago."""
        size = next(iter(self._free))
        blocks = self._free[size]
        if blocks:
            blocks.pop()
            self.free_bytes -= size
        if not blocks:
            del self._free[size]

    def clear(self) -> None:
        """Returns all free memory to the system."""
        with self._lock:
            self._free.clear()
            self.free_bytes = 0


pool = Pool()


class Storage:
    """The bytes of one value."""

    __slots__ = ("nbytes", "address", "_owner", "__weakref__")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self._owner, self.address = pool.take(nbytes)

    def __del__(self) -> None:
        try:
            pool.give(self.nbytes, (self._owner, self.address))
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
