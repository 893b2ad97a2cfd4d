"""Machine code of this process: each kernel once, from memory, from disk, or compiled now."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaop.errors import CompilerBug

from .cache import cache
from .signals import uninterrupted

if TYPE_CHECKING:  # these and what they import load with the first program, not with metaop
    from .loops import Kernel
    from .machine import Code

# Kernels that are kept though no program of this process uses them at the moment; some 30 kB each.
MOST_KEPT = 1024


@dataclass
class Statistics:
    """What the compiler did in this process.

    programs: compiled here; program_seconds, program_cpu: wall and CPU time of making and loading
    programs, the compilation of their kernels included.
    """

    compiled: int = 0
    loaded: int = 0
    compile_seconds: float = 0.0
    programs: int = 0
    loaded_programs: int = 0
    program_seconds: float = 0.0
    program_cpu: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time of the block to that of making programs."""
        started, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.program_seconds += time.perf_counter() - started
            self.program_cpu += time.thread_time() - cpu


class LoadedKernel:
    """A kernel in memory, as long as this object lives.

    name: of its entry in the disk cache; address: of
    int32 (ret, exc, table, args, chunk, chunks, scratch); compile_seconds: 0 if it was on disk.
    """

    __slots__ = ("name", "address", "compile_seconds", "_code")

    def __init__(self, name: str, code: Code):
        self.compile_seconds = 0.0
        self.name, self.address, self._code = name, code.addresses[_symbol(name)], code


statistics = Statistics()
compiling = threading.RLock()
_kernels: OrderedDict[str, LoadedKernel] = OrderedDict()  # used last in the end


def machine_code(key: str, kernel: Kernel) -> LoadedKernel:
    """The kernel of a key (`keys.kernel_key`), in memory."""
    from .fingerprint import kernel_entry

    name = kernel_entry(key)
    with compiling:
        found = stored_kernels([name])
        return found[name] if found else _compiled(name, key, kernel)


def stored_kernels(names: Iterable[str]) -> dict[str, LoadedKernel] | None:
    """Kernels from memory or from disk by the names of their entries, None if one is missing."""
    found: dict[str, LoadedKernel] = {}
    objects: dict[str, bytes] = {}
    store = cache()
    for name in dict.fromkeys(names):
        if name in _kernels:
            found[name] = _kernels[name]
            _kernels.move_to_end(name)
            continue
        content = store.read(name) if store is not None else None
        if content is None:
            return None
        objects[name] = content
    if objects:
        try:
            found |= _keep(objects)
        except RuntimeError:  # not object code of this platform
            return None
        statistics.loaded += len(objects)
    return found


def _compiled(name: str, key: str, kernel: Kernel) -> LoadedKernel:
    from .codegen import compile_kernel  # numba and llvmlite.ir load at the first compilation

    started = time.perf_counter()
    with uninterrupted():  # a signal inside one of LLVM's callbacks would be lost
        content = compile_kernel(kernel, _symbol(name)).code
        try:
            loaded = _keep({name: content})[name]
        except RuntimeError as error:
            raise CompilerBug(f"linking: {error}\n{key}") from error
    store = cache()
    if store is not None:
        store.write(name, content)
    statistics.compiled += 1
    loaded.compile_seconds = time.perf_counter() - started
    statistics.compile_seconds += loaded.compile_seconds
    return loaded


def _keep(objects: dict[str, bytes]) -> dict[str, LoadedKernel]:
    """Object code in memory, linked together: that takes a quarter of the time of each alone."""
    from .machine import load

    code = load(list(objects.values()), [_symbol(name) for name in objects])
    loaded = {name: LoadedKernel(name, code) for name in objects}
    _kernels.update(loaded)
    while len(_kernels) > MOST_KEPT:
        _kernels.popitem(last=False)
    return loaded


def _symbol(name: str) -> str:
    return "k" + name.rpartition("-")[2]


def forget() -> None:
    """Drops every kernel; those that a program holds live on with it."""
    _kernels.clear()
