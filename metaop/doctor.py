"""What to paste into a bug report: machine, settings, versions, and what is wrong with them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from . import roofline
from .compiler import machine
from .compiler.cache import Cache, CacheWarning, cache
from .compiler.executor import executor
from .compiler.threading_layer import cgroup_quota, usable_cpus, wanted_layer
from .config import Config, config

VERSION = 1
DEPENDENCIES = ("numpy", "llvmlite", "numba")


@dataclass
class Examination:
    """Facts by group and name, and warnings; `repr` is for people, `json` has docs/inspect.md's
    schema."""

    facts: dict[str, dict[str, str]]
    warnings: list[str]

    def json(self) -> str:
        """As JSON."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"

    def __repr__(self) -> str:
        lines = []
        for group, facts in self.facts.items():
            lines.append(group)
            lines += [f"  {name:12} {value}" for name, value in facts.items()]
        lines += [f"warning: {text}" for text in self.warnings] or ["nothing is wrong"]
        return "\n".join(lines)


def examine() -> Examination:
    """Looks at everything, compiles one kernel and runs it on all threads."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stored = cache()
    fault = str(caught[0].message) if caught else "off"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)  # told above
        facts = {
            "versions": _versions(),
            "processor": _processor(),
            "threads": _threads(),
            "cache": {"folder": "none", "state": fault} if stored is None else _cache(stored),
            "settings": _settings(),
        }
        return Examination(facts, [*_self_test(), *_warnings(facts)])


# --------------------------------------------------------------------------------------- facts


def _versions() -> dict[str, str]:
    import llvmlite.binding as llvm

    from . import __version__

    return {
        "metaop": f"{__version__} in {os.path.dirname(os.path.abspath(__file__))}",
        "python": f"{platform.python_version()} ({platform.python_implementation()}) "
                  f"in {sys.executable}",
        **{name: _version(name) for name in DEPENDENCIES},
        "LLVM": ".".join(map(str, llvm.llvm_version_info)),
        "system": platform.platform(),
    }  # fmt: skip


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _processor() -> dict[str, str]:
    isa = machine.instruction_set()
    known = roofline.known()
    return {
        "name": machine.brand(),
        "LLVM's name": machine.processor().cpu,
        "code for": f"{isa.name}, vectors of {isa.vector_bits} bits"
                    f"{', fused multiply-add' if isa.fma else ''}",
        "roofline": "not measured yet (`metaop roofline`)" if known is None else
                    f"{known.at(executor().threads).peak:.0f} GFLOP/s, "
                    f"{known.at(executor().threads).memory:.0f} GB/s from memory",
    }  # fmt: skip


def _threads() -> dict[str, str]:
    quota = cgroup_quota()
    return {
        "count": f"{executor().threads} ({_source_of_threads()})",
        "CPUs": f"{os.cpu_count()}, of which this process may use {usable_cpus()}",
        "quota": "none" if quota is None else f"{quota:g} CPUs by its cgroup",
        "layer": f"{executor().layer} ({_source_of_layer()})",
    }


def _source_of_threads() -> str:
    if os.environ.get("METAOP_THREADS", "").strip():
        return "METAOP_THREADS"
    return "affinity and cgroup quota, the smaller"


def _source_of_layer() -> str:
    return "the first that loads" if wanted_layer() == "auto" else "METAOP_THREADING_LAYER"


def _cache(store: Cache) -> dict[str, str]:
    source = "METAOP_CACHE" if config.cache.strip() else "the user's cache"
    entries = store.entries()
    return {
        "folder": f"{store.folder} ({source})",
        "size": f"{len(entries)} entries, {sum(e.nbytes for e in entries):,} of at most "
                f"{store.limit:,} bytes",
        "state": "writable" if os.access(store.folder, os.W_OK) else "read only",
    }  # fmt: skip


def _settings() -> dict[str, str]:
    found = {k: v for k, v in sorted(os.environ.items()) if k.startswith("METAOP_") and v}
    return found or {"METAOP_*": "none is set"}


# ------------------------------------------------------------------------------------ warnings


def _self_test() -> Iterator[str]:
    """Compiles and runs a kernel, and compares what it computes."""
    from .compiler import programs
    from .creation import array

    saved = config.cache
    config.cache = "off"  # compile it here and now
    try:
        programs.forget()
        x = np.arange(65_536, dtype=np.float32)
        found = float((array(x) * 2 + 1).sum().item())
        if found != float(2 * x.astype(np.float64).sum() + x.size):
            yield f"a kernel computes {found} instead of 2·0 + 1 + 2·1 + 1 + …"
    except Exception as error:
        yield f"a kernel cannot be compiled or run: {type(error).__name__}: {error}"
    finally:
        config.cache = saved


def _warnings(facts: dict[str, dict[str, str]]) -> Iterator[str]:
    yield from _old_versions()
    yield from _unknown_settings()
    if facts["cache"]["state"] == "read only":
        yield "the cache's folder cannot be written to: each process compiles anew"
    if facts["cache"]["folder"] == "none":
        yield f"nothing is cached on disk ({facts['cache']['state']}): each process compiles anew"
    threads, layer = executor().threads, executor().layer
    if threads > usable_cpus():
        yield f"{threads} threads share {usable_cpus()} CPUs"
    if layer == "alone" and usable_cpus() > 1:
        yield "no threading layer loads, or none is wanted: kernels run on one thread"
    if layer == "workqueue" and sys.platform.startswith("linux"):
        yield "the threading layer is workqueue: omp starts a program 20 µs sooner"
    for name, is_on, effect in (
        ("METAOP_CHECK", config.check, "programs are always compiled anew, and verified"),
        ("METAOP_CHECK_NAN", config.check_nan, "every result is searched for NaN and infinity"),
        ("METAOP_FUSE", not config.fuse, "nothing is fused"),
        ("METAOP_CPU", config.cpu == "generic", "code is for a plain CPU, not for this one"),
    ):
        if is_on:
            yield f"{name} is set: {effect}"


def _old_versions() -> Iterator[str]:
    """What is older than metaop's own requirements, as far as its installation tells them."""
    try:
        requirements = importlib.metadata.requires("metaop") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in requirements:
        match = re.match(r"([\w-]+)>=([\d.]+)$", requirement)
        if match and match[1] in DEPENDENCIES and _numbers(_version(match[1])) < _numbers(match[2]):
            yield f"{match[1]} {_version(match[1])} is older than {match[2]}"


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


def _unknown_settings() -> Iterator[str]:
    known = set(re.findall(r"METAOP_\w+", sys.modules[Config.__module__].__doc__ or ""))
    for name in sorted(os.environ):
        if name.startswith("METAOP_") and known and name not in known:
            yield f"{name} is no setting of metaop"
