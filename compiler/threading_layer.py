"""The pool of native threads under a run, and how many of them to use.

Numba ships three small extension modules that each export the same function

    parallel_for(function, args, dims, steps, data, inner_ndim, array_count, threads)

over a different pool: `omp` (OpenMP), `tbb` (Intel's oneTBB) and `workqueue` (Numba's own).  They
are loaded from their files, without importing Numba, which would cost a quarter of a second in a
process that compiles nothing.  `alone` is the layer with no pool: the calling thread does it all.

What differs between them, and what follows from it here:

| layer     | region  | pool                          | two threads at once | after fork      |
|-----------|---------|-------------------------------|---------------------|-----------------|
| omp       | 2 us    | grows as regions ask          | one pool each       | child is killed |
| tbb       | 2-4 us  | grows as regions ask          | one pool            | child has none  |
| workqueue | 25+ us  | made once; a region that asks | process is aborted  | child has none  |
|           |         | for more writes past its end  |                     |                 |
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import operator
import os
import site
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

MOST_THREADS = 1024  # OpenMP ends the process where the system refuses a thread
OLDEST_TBB = 12060  # TBB_INTERFACE_VERSION of 2021.6, the first that Numba's module works with

# Two copies of LLVM's OpenMP in one process end it, and on macOS other packages bring their own.
AUTOMATIC = ("tbb", "workqueue") if sys.platform == "darwin" else ("omp", "tbb", "workqueue")

MODULES = {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}
NAMES = (*MODULES, "alone")


@dataclass(frozen=True)
class ThreadingLayer:
    """One started pool: the addresses of its entry points and the most threads it can give.

    `module` is kept because unloading the extension module would stop the pool.
    """

    name: str
    capacity: int
    parallel_for: int = 0
    get_num_threads: int = 0
    set_num_threads: int = 0
    module: ModuleType | None = None


ALONE = ThreadingLayer("alone", capacity=1)


class LayerError(ImportError):
    """This threading layer cannot be used here; the message says why."""


# -- choice ------------------------------------------------------------------------------------


def wanted_layer() -> str:
    """The layer named by METAOP_THREADING_LAYER, or "auto".

    Raises ValueError for a name that is none of omp, tbb, workqueue, alone, auto.
    """
    name = os.environ.get("METAOP_THREADING_LAYER", "").strip().lower() or "auto"
    if name not in (*NAMES, "auto"):
        raise ValueError(
            f"METAOP_THREADING_LAYER must be one of {', '.join(NAMES)} or auto, is {name!r}."
        )
    return name


def start_layer(name: str, threads: int) -> ThreadingLayer:
    """The layer of that name, or for "auto" the first that loads, ready for `threads` threads.

    Raises ValueError if a layer asked for by name cannot be loaded.
    """
    if name == "alone":
        return ALONE
    if name != "auto":
        try:
            return _load(name, threads)
        except LayerError as reason:
            raise ValueError(
                f"METAOP_THREADING_LAYER={name}: this layer cannot be loaded ({reason}). "
                "Unset the variable to use the first one that can."
            ) from reason
    for candidate in AUTOMATIC:
        try:
            return _load(candidate, threads)
        except LayerError:
            continue
    return ALONE


def _load(name: str, threads: int) -> ThreadingLayer:
    """Load one layer's module and start its pool.

    The pool of workqueue never grows, and Numba's functions, if the user runs any, share it: so it
    gets a thread for every CPU even if fewer are asked for.  The other two make threads as regions
    need them.  tbb's launch_threads is not called: it would install fork handlers that complain
    whenever another thread forks.  omp's is called with 0, which only notes the process id.
    """
    if name == "tbb":
        _preload_tbb()
    module = _load_module(MODULES[name])
    capacity = MOST_THREADS
    if name == "omp":
        _entry(module, "launch_threads", None, ctypes.c_int)(0)
    if name == "workqueue":
        _entry(module, "launch_threads", None, ctypes.c_int)(max(threads, os.cpu_count() or 1))
        capacity = _launched_threads(module)
    return ThreadingLayer(
        name,
        capacity,
        module.parallel_for,
        module.get_num_threads,
        module.set_num_threads,
        module,
    )


# -- loading -----------------------------------------------------------------------------------


def _load_module(name: str) -> ModuleType:
    """Numba's extension module of that name, from its file, without importing Numba."""
    loaded = sys.modules.get(f"numba.np.ufunc.{name}")
    if loaded is not None:
        return loaded
    path = _module_file(name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LayerError(f"{path} is not an extension module")
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        raise LayerError(str(error)) from error
    return module


def _module_file(name: str) -> Path:
    """The file of one of Numba's extension modules."""
    numba = importlib.util.find_spec("numba")  # finds the package and does not run it
    if numba is None or numba.origin is None:
        raise LayerError("numba is not installed")
    folder = Path(numba.origin).parent / "np" / "ufunc"
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / (name + suffix)
        if path.exists():
            return path
    raise LayerError(f"this build of numba has no {name}")


def _entry(module: ModuleType, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function that the module exports as an address, callable from Python."""
    return ctypes.CFUNCTYPE(result, *arguments)(getattr(module, name))


def _launched_threads(module: ModuleType) -> int:
    """How many threads the pool was made with, by us or by Numba before us.

    A thread that never set its own number is told the pool's, so a fresh thread asks.
    """
    answers: list[int] = []
    ask = _entry(module, "get_num_threads", ctypes.c_int)
    asker = threading.Thread(target=lambda: answers.append(ask()))
    asker.start()
    asker.join()
    return max(1, answers[0])


def _preload_tbb() -> None:
    """Load oneTBB's library, which its wheel puts where the dynamic linker does not look."""
    reason = "oneTBB is not installed; pip install tbb"
    for path in _tbb_candidates():
        try:
            library = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            version = library.TBB_runtime_interface_version()
        except (OSError, AttributeError):
            continue
        if version >= OLDEST_TBB:
            return
        reason = f"oneTBB has interface version {version}, older than {OLDEST_TBB}"
    raise LayerError(reason)


def _tbb_candidates() -> Iterator[str]:
    """Where oneTBB's library may be: next to this Python, in the user's site, or anywhere."""
    prefixes = [sys.prefix, sys.base_prefix]
    if site.ENABLE_USER_SITE and site.USER_BASE:
        prefixes.append(site.USER_BASE)
    if sys.platform == "win32":
        folder, name = "Library/bin", "tbb12.dll"
    elif sys.platform == "darwin":
        folder, name = "lib", "libtbb.12.dylib"
    else:
        folder, name = "lib", "libtbb.so.12"
    for prefix in dict.fromkeys(prefixes):
        path = Path(prefix) / folder / name
        if path.exists():
            yield str(path)
    yield name


# -- how many threads --------------------------------------------------------------------------


def check_thread_count(value: object, source: str = "the number of threads") -> int:
    """`value` as a usable number of threads; ValueError naming `source` otherwise."""
    count = 0
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        count = operator.index(value)
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"{source} must be a whole number from 1 to {MOST_THREADS}, is {value!r}.")
    return count


def default_threads() -> int:
    """METAOP_THREADS, or what this process may use: its CPUs or its quota, the smaller."""
    text = os.environ.get("METAOP_THREADS", "").strip()
    if text:
        return check_thread_count(int(text) if text.isdecimal() else text, "METAOP_THREADS")
    return usable_cpus()


def usable_cpus() -> int:
    """The CPUs this process may run on, no more than its cgroup quota rounded up."""
    cpus = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    quota = cgroup_quota()
    if quota is not None:
        cpus = min(cpus, -int(-quota // 1))
    return max(1, min(cpus, MOST_THREADS))


def cgroup_quota(
    root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup"
) -> float | None:
    """The CPUs' worth of time that the kernel grants this process, or None without a limit.

    A group's limit binds all groups inside it, so the smallest on the way to the root counts.
    """
    quotas: list[float] = []
    for line in _read(membership).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in _folders_up(Path(root, controllers), group):
            read = _quota_v1 if controllers else _quota_v2
            quota = read(folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _folders_up(mount: Path, group: str) -> Iterator[Path]:
    """The group's folder and those around it up to the mount.

    Inside a container the group may be named as the host sees it and have no folder; the mount
    itself is then the container's own group.
    """
    folder = mount / group.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _quota_v2(folder: Path) -> float | None:
    """`cpu.max` holds "quota period" in microseconds, or "max period"."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    """One file for the quota, -1 for none, and one for the period."""
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """quota / period if both are positive numbers, else None."""
    if not (quota.strip().isdecimal() and period.strip().isdecimal()):
        return None
    return int(quota) / int(period) if int(quota) and int(period) else None


def _read(path: str | Path) -> str:
    """The text of a small file, empty if it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
