"""Memory of values: aligned, pooled, immutable once computed.

A storage lives as long as a node or an exported array refers to it; then its memory goes back to
a pool, because touching fresh pages costs more than most kernels.  Small values are cut from
slabs: a loss kept in a list costs 16 bytes of memory, not an allocation.
"""

from __future__ import annotations

import functools
import mmap
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np

ALIGNMENT = 64
POOL_BYTES = 1 << 30
TINY = 16  # up to this size, as for numbers, a value has a quarter of a cache line
SMALL = 512  # up to this size a value lies in a slab
SLAB_BYTES = 1 << 14
MAPPED = 1 << 17  # from so many bytes on, memory is mapped by itself
HUGE = 1 << 22  # from so many on, huge pages are asked for, as NumPy does
SPARE = 32  # free memory beyond the most that ever was in use: so much of that, at most

Block = tuple[Any, int, int]  # what owns the memory, the address, the size


@functools.lru_cache(maxsize=4096)
def size_class(nbytes: int) -> int:
    """The allocation size for a request: 16 bytes, multiples of 64, eighths of a power of two."""
    if nbytes <= TINY:
        return TINY
    if nbytes <= SMALL:
        return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
    step = _step(nbytes)
    return -(-nbytes // step) * step


def _step(nbytes: int) -> int:
    """The distance between two size classes."""
    return 1 << max((nbytes - 1).bit_length() - 4, 6)


def aligned_bytes(nbytes: int) -> tuple[np.ndarray, int]:
    """Uninitialised memory and the first aligned address in it.

    Much of it is mapped by itself: in the C library's heap, blocks of ever new sizes would leave
    holes between small things that stay (LeNet at 200 batch sizes grew by 40 %).
    """
    try:
        raw = mapped_bytes(nbytes, HUGE) if nbytes >= MAPPED else None
        if raw is None:
            raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError):  # ValueError: more than an address can count
        raise MemoryError(f"cannot allocate {nbytes:,} bytes") from None
    start = raw.__array_interface__["data"][0]
    return raw, -(-start // ALIGNMENT) * ALIGNMENT


def mapped_bytes(nbytes: int, huge: int) -> np.ndarray | None:
    """Pages of this process alone, huge ones from so many bytes on, where there are such; None
    where the system maps no such memory, or no more of it."""
    if os.name != "posix":
        return None
    try:
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        return None
    if nbytes >= huge and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            pages.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # a kernel without
    return np.frombuffer(pages, np.uint8)


class _Lease(weakref.ref):
    """Memory lent to a storage, which comes back to the pool when the storage dies.

    The callback is a C function: no Python code runs then, in which a Ctrl-C could get lost.
    """

    __slots__ = ("size", "owner", "address")

    size: int
    owner: Any
    address: int


class Pool:
    """Free memory by size class, bounded in bytes: past the bound the class that was not used for
    longest goes back to the system.  A request may get a block of up to 9/8 of its size, and before
    new memory is taken, so much goes back that what is held is no more than ever was in use: so
    batches of many sizes need hardly more memory than one of the largest.

    lent: the leases, kept so that those in a cycle of garbage are returned too;
    lent_bytes: all that was ever lent, a clock for whoever bounds memory; used_bytes: lent now.
    """

    def __init__(self, limit: int = POOL_BYTES):
        self.limit = limit
        self.free_bytes = 0
        self.lent_bytes = self.used_bytes = self._most_used = 0
        self._returned: deque[_Lease] = deque()
        self.give: Any = self._returned.append
        self.lent: set[_Lease] = set()
        self._free: dict[int, list[Block]] = {}
        self._last_return: dict[int, int] = {}  # per class: lent_bytes then
        self.lock = threading.Lock()

    def take(self, nbytes: int) -> Block:
        """Memory of at least nbytes, used before if there is some.  Raises MemoryError."""
        size = size_class(nbytes)
        with self.lock:
            if self._returned:
                self._collect()
            self.lent_bytes += size
            blocks = self._free.get(size) or self._larger(size)
            if blocks:
                block = blocks.pop()
                size = block[2]
                self.free_bytes -= size
            else:
                block = self._slab(size) if size <= SMALL else self._fresh(size)
            self.used_bytes += size
            if self.used_bytes > self._most_used:
                self._most_used = self.used_bytes
            return block

    def _fresh(self, size: int) -> Block:
        """New memory, before which what is held beyond the most that ever was in use goes back."""
        most = max(self._most_used, self.used_bytes + size)
        most += most // SPARE
        while self.free_bytes + self.used_bytes + size > most:
            if not (self._give_back_oldest(size // 4) or self._give_back_oldest()):
                break
        try:
            return *aligned_bytes(size), size
        except MemoryError:
            self._free.clear()
            self.free_bytes = 0
            return *aligned_bytes(size), size

    def _give_back_oldest(self, least: int = SMALL) -> bool:
        """Returns a block of the class that was not used for longest, of those larger than `least`
        and those that lie in no slab; False if there is none."""
        last = self._last_return
        least = max(least, SMALL)
        while True:
            oldest = min((s for s in last if s > least), key=last.__getitem__, default=0)
            if not oldest:
                return False
            blocks = self._free.get(oldest)
            if blocks:
                blocks.pop()
                self.free_bytes -= oldest
                return True
            del last[oldest]

    def _larger(self, size: int) -> list[Block] | None:
        """Free blocks of the next class that has some, of classes up to 9/8 of the size."""
        if size <= SMALL:
            return None
        largest = size + size // 8
        while (size := size_class(size + 1)) <= largest:
            blocks = self._free.get(size)
            if blocks:
                return blocks
        return None

    def _slab(self, size: int) -> Block:
        """One block of a new slab; the others are free."""
        raw, start = aligned_bytes(SLAB_BYTES)
        addresses = range(start + size, start + SLAB_BYTES - size + 1, size)
        self._free.setdefault(size, []).extend((raw, address, size) for address in addresses)
        self.free_bytes += len(addresses) * size
        return raw, start, size

    def _collect(self) -> None:
        """Makes returned memory free, and gives back to the system what is too much.

        A Ctrl-C in between loses at most a block to the system.
        """
        while self._returned:
            lease = self._returned.popleft()
            size = getattr(lease, "size", 0)
            if size:  # else Ctrl-C came before the lease was written out
                self.lent.discard(lease)
                self._free.setdefault(size, []).append((lease.owner, lease.address, size))
                self._last_return[size] = self.lent_bytes
                self.free_bytes += size
                self.used_bytes -= size
        while self.free_bytes > self.limit and self._give_back_oldest():
            pass

    def clear(self) -> None:
        """Returns all free memory to the system."""
        with self.lock:
            self._collect()
            self._free.clear()
            self.free_bytes = 0


pool = Pool()


class Storage:
    """The bytes of one value."""

    __slots__ = ("nbytes", "address", "_lease", "__weakref__")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        owner, self.address, size = pool.take(nbytes)
        lease = _Lease(self, pool.give)
        self._lease: Any = lease
        lease.owner, lease.address = owner, self.address
        pool.lent.add(lease)
        lease.size = size  # last: without it the lease counts as unwritten

    @classmethod
    def of_array(cls, array: np.ndarray) -> Storage:
        """A copy of an array's bytes in row-major order."""
        storage = cls(array.nbytes)
        storage.view(array.dtype, array.shape)[...] = array
        return storage

    @classmethod
    def borrowed(cls, array: np.ndarray) -> Storage:
        """The memory of a C-contiguous array itself, which is kept alive and never pooled."""
        storage = cls.__new__(cls)
        storage.nbytes = array.nbytes
        storage.address = array.__array_interface__["data"][0]
        storage._lease = array
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
