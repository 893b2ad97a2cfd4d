"""Machine code of this process: each kernel once, from memory, from disk, or compiled now."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from metaop.errors import CompilerBug

from .cache import cache
from .collector import collect_young
from .signals import uninterrupted

if TYPE_CHECKING:  # these and what they import load with the first program, not with metaop
    from .loops import Kernel
    from .machine import Code

# Kernels that are kept though no program of this process uses them at the moment; some 30 kB each.
MOST_KEPT = 1024
LONGEST_TURN = 2e-4  # seconds that LLVM's thread waits for the one that schedules


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
    with compiling, Batch() as batch:
        name = batch.add(key, kernel)
        return batch.loaded()[name]


class Batch:
    """Kernels that are needed together: while one is being scheduled and written as LLVM assembly,
    LLVM makes object code of those before it in a thread of its own.

        with Batch() as batch:
            names = [batch.add(key, kernel) for …]
            loaded = batch.loaded()

    What is in memory or on disk is not compiled; all others are linked together in the end, which
    takes a quarter of the time of each alone.
    """

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}  # by name, as the others
        self._found: dict[str, LoadedKernel] = {}
        self._jobs: dict[str, Future[Compiled]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._switch_interval = 0.0

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            sys.setswitchinterval(self._switch_interval)
            self._thread.shutdown(cancel_futures=True)

    def add(self, key: str, kernel: Kernel) -> str:
        """The name of the kernel of a key (`keys.kernel_key`), which is compiled if need be."""
        from .fingerprint import kernel_entry

        name = kernel_entry(key)
        if name not in self._keys:
            self._keys[name] = key
            found = stored_kernels([name])
            if found:
                self._found |= found
            else:
                self._jobs[name] = self._compile(name, kernel)
        return name

    def _compile(self, name: str, kernel: Kernel) -> Future[Compiled]:
        from .codegen import assembly_of  # numba and llvmlite.ir load at the first compilation

        started = time.perf_counter()
        with uninterrupted():  # a signal inside one of LLVM's callbacks would be lost
            assembly = assembly_of(kernel)
            collect_young()
        seconds = time.perf_counter() - started
        job = (name, kernel, assembly, seconds)
        try:
            return self._started().submit(_object_code, *job)
        except RuntimeError:  # no thread is to be had, as when the interpreter is about to end
            done: Future[Compiled] = Future()
            done.set_result(_object_code(*job))
            return done

    def _started(self) -> ThreadPoolExecutor:
        """The thread, which needs the interpreter for a moment between two calls of LLVM."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "metaop-compile")
            self._switch_interval = sys.getswitchinterval()
            sys.setswitchinterval(min(self._switch_interval, LONGEST_TURN))
        return self._thread

    def loaded(self) -> dict[str, LoadedKernel]:
        """All kernels that were added, by name, in memory."""
        made = {name: job.result() for name, job in self._jobs.items()}
        if made:
            try:
                with uninterrupted():  # as above
                    self._found |= _keep({name: one.code for name, one in made.items()})
            except RuntimeError as error:
                keys = "\n".join(self._keys[name] for name in made)
                raise CompilerBug(f"linking: {error}\n{keys}") from error
        for name, one in made.items():
            self._found[name].compile_seconds = one.seconds
            statistics.compile_seconds += one.seconds
        statistics.compiled += len(made)
        self._jobs = {}
        return self._found


class Compiled(NamedTuple):
    """Object code, and how long it took."""

    code: bytes
    seconds: float


def _object_code(name: str, kernel: Kernel, assembly: str, seconds: float) -> Compiled:
    """Object code of a kernel's assembly, on disk too; seconds: what writing that took."""
    from .codegen import object_code_of

    started = time.perf_counter()
    content = object_code_of(kernel, assembly, _symbol(name))
    store = cache()
    if store is not None:
        store.write(name, content)
    return Compiled(content, seconds + time.perf_counter() - started)


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


def _keep(objects: dict[str, bytes]) -> dict[str, LoadedKernel]:
    """Object code in memory, linked together."""
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
