"""Memory between protected pages: what reads or writes past an array of a kernel is stopped there.

`install` puts every buffer of this process against a page that may not be touched, on its end or on
its start, and so every scratch array of every thread, filled with NaN whenever a kernel begins.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Any

from metaop import storage
from metaop.compiler import emit_llvm, executor, program
from metaop.compiler.llvm_ops import BOOL, I8, I64, constant, memory_type
from metaop.compiler.loops import Kernel
from metaop.extent import hint

PAGE = mmap.PAGESIZE
ROOM = 1 << 22  # bytes of addresses for one scratch array and the protected pages around it
MOST_ARRAYS = 64  # of one kernel
POISON = 0xFF  # NaN in every float

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Address(int):
    """Where memory lies that is unmapped when this object dies: no one may use it afterwards."""

    block: mmap.mmap

    def __add__(self, other: int) -> Address:
        moved = Address(int(self) + other)
        moved.block = self.block
        return moved


def _mapped(nbytes: int, guards: Sequence[int]) -> Address:
    """New memory; pages at these distances from its start are protected."""
    block = mmap.mmap(-1, nbytes)
    base = Address(ctypes.addressof(ctypes.c_char.from_buffer(block)))
    base.block = block
    for guard in guards:
        if _libc.mprotect(base + guard, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return base


def fenced(nbytes: int, side: str) -> Address:
    """Memory of exactly so many bytes: its end, or its start, touches a protected page."""
    inside = -(-max(nbytes, 1) // PAGE) * PAGE
    start = _mapped(inside + 2 * PAGE, (0, inside + PAGE)) + PAGE
    ctypes.memset(start, 0xA5, inside)
    return start if side == "start" else start + (inside - nbytes)


def _give_back(lease: Any) -> None:
    lease.owner = None
    storage.pool.lent.discard(lease)


def install(side: str) -> None:
    """Fences all memory of this process from now on; side: "end" or "start"."""

    def take(nbytes: int) -> tuple[Any, int, int]:
        address = fenced(nbytes, side)
        return address.block, int(address), 0

    def place(lifetimes: Sequence[Any]) -> tuple[dict[Any, Address], int]:
        return {t: fenced(t.nbytes, side) for t in lifetimes}, 0

    storage.pool.take = take  # type: ignore
    storage.pool.give = _give_back
    program.plan_arena = place  # type: ignore
    program.arena.reserve = lambda nbytes: 0  # type: ignore
    fence_scratch(side)


def fence_scratch(side: str) -> None:
    """Fences the scratch arrays of kernels that are compiled from now on, one by one."""
    emit_llvm._Emitter.scratch_arrays = lambda self: _scratch_arrays(self, side)  # type: ignore
    Kernel.scratch_bytes = _scratch_bytes  # type: ignore
    executor._Scratch.reserve = _reserve  # type: ignore


_exact: Callable[[Kernel, Sequence[int]], int] = Kernel.scratch_bytes


def _scratch_bytes(kernel: Kernel, integers: Sequence[int]) -> int:
    assert len(kernel.scratch) <= MOST_ARRAYS, kernel.name
    assert hint(_exact(kernel, integers)) <= ROOM - 2 * PAGE, kernel.name
    return MOST_ARRAYS * ROOM if kernel.scratch else 0


def _reserve(self: Any, nbytes: int) -> int:
    if nbytes > self._nbytes:
        self._nbytes, self.address = nbytes, rooms(nbytes // ROOM)
    return self.address


def rooms(count: int) -> Address:
    """Memory for so many scratch arrays, of one thread or several."""
    ends = [place for k in range(count) for place in (k * ROOM, (k + 1) * ROOM - PAGE)]
    return _mapped(count * ROOM, ends)


def _scratch_arrays(emitter: Any, side: str) -> None:
    """In place of the emitter's: each array is in a room of its own."""
    b = emitter.raw
    for position, array in enumerate(emitter.kernel.scratch):
        nbytes = b.mul(emitter.scalar_index(array.elements), constant(I64, array.dtype.itemsize))
        start: Any = constant(I64, position * ROOM + PAGE)
        if side == "end":
            start = b.sub(constant(I64, (position + 1) * ROOM - PAGE), nbytes)
        place = b.gep(emitter.scratch, [start])
        emitter.b.call("llvm.memset.p0.i64", emit_llvm.ir.VoidType(), place,
                       constant(I8, POISON), nbytes, constant(BOOL, 0))  # fmt: skip
        emitter.dtypes[array.name] = array.dtype
        emitter.pointers[array.name] = b.bitcast(place, memory_type(array.dtype).as_pointer())
