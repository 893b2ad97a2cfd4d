"""Machine code of this process: each kernel once, found by its key, compiled if it is new."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from .loops import Kernel
from .machine import load
from .signals import uninterrupted


@dataclass
class Statistics:
    """What the compiler did in this process."""

    compiled: int = 0
    compile_seconds: float = 0.0
    programs: int = 0


statistics = Statistics()
compiling = threading.RLock()
_kernels: dict[str, Any] = {}


def machine_code(key: str, kernel: Kernel) -> Any:
    """The compiled kernel of a key, compiled now if it is new."""
    compiled = _kernels.get(key)
    if compiled is None:
        from .codegen import compile_kernel  # numba and llvmlite.ir load at the first compilation

        started = time.perf_counter()
        with uninterrupted():  # a signal inside one of LLVM's callbacks would be lost
            compiled = _kernels[key] = _loaded(compile_kernel(kernel))
        statistics.compiled += 1
        statistics.compile_seconds += time.perf_counter() - started
    return compiled


class LoadedKernel:
    """A kernel in memory: `address` of int32 (ret, exc, table, args, chunk, chunks, scratch)."""

    def __init__(self, code: Any, name: str):
        self.code, self.address = code, code.addresses[name]


def _loaded(compiled: Any) -> LoadedKernel:
    return LoadedKernel(load([compiled.code], [compiled.name]), compiled.name)


def forget() -> None:
    """Drops every compiled kernel."""
    _kernels.clear()
