"""What the machine can do: multiply-adds a second, and bytes a second through memory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def peak(threads: int) -> float:
    """GFLOP/s of a kernel that only multiplies and adds in registers, the best of five runs."""
    from metaop.compiler.executor import Launch, NativeProgram, executor
    from metaop.compiler.kernels import machine_code
    from metaop.compiler.keys import kernel_key

    kernel, sums = _multiply_adds()
    address = machine_code(kernel_key(kernel), kernel).address
    steps, items = 20_000, 64
    memory = np.linspace(0, 1, 4096, dtype=np.float32)
    status = np.zeros(8, np.int64)
    table = np.array([status.ctypes.data, memory.ctypes.data], np.int64)
    program = NativeProgram([[Launch(address, [1, items, steps], items)]])
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        executor().run(program, table.ctypes.data, threads)
        seconds = time.perf_counter() - start
        best = max(best, 2.0 * sums * 16 * steps * items / seconds / 1e9)
    return best


def _multiply_adds() -> tuple[Any, int]:
    from metaop import dtype as dt
    from metaop.compiler.loops import (
        For,
        Grid,
        Init,
        Kernel,
        Let,
        Load,
        Parameter,
        Ref,
        Store,
        Update,
    )
    from metaop.index import TRUE

    kind, count = dt.float32, 12
    grid, lane, each, step = 0, 1, 2, 3
    place = ("add", ("mul", ("i", each), 16), ("i", lane))
    x, y = Ref("x", (each,), kind), Ref("y", (), kind)
    many = {each: count}
    inner = [
        For(each, 0, count, "unroll", [Let("x", (each,), Load("a", place, TRUE, 0.0, kind))]),
        Let("y", (), Load("a", ("i", lane), TRUE, 0.0, kind)),
        For(each, 0, count, "unroll", [Init("sum", (each,), "add", kind)]),
        For(step, 0, ("val", "steps"), "serial",
            [For(each, 0, count, "unroll", [Update("sum", (each,), "fma", (x, y))])]),
        For(each, 0, count, "unroll",
            [Store("a", ("add", place, 1024), Ref("sum", (each,), kind))]),
    ]  # fmt: skip
    body = [Grid((grid,), (("val", "items"),), [For(lane, 0, 16, "vector", inner)])]
    kernel = Kernel("peak", [Parameter("a", kind, True)], ["items", "steps"], many, body)
    kernel.narrow = True
    return kernel, count


def bandwidth(threads: int, elements: int = 1 << 24) -> float:
    """GB/s, read and written together, of a kernel that copies 64 MB, the best of five runs."""
    import metaop as mo

    mo.set_num_threads(threads)
    copy = mo.jit(lambda x: x + 0.0)
    x = mo.array(np.ones(elements, np.float32))
    best = 0.0
    for _ in range(7):
        start = time.perf_counter()
        copy(x)
        mo.sync()
        best = max(best, 2e-9 * x.nbytes / (time.perf_counter() - start))
    return best
