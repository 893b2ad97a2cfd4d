"""What cached code depends on besides its own text: our sources, the compilers, the machine.

Sources are hashed as they lie on disk, so that no one needs to remember to raise a number: once
per process, in one or two milliseconds, when the first key is made.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from metaop.config import config

from . import machine

# The modules that a kernel's code depends on; what else makes a kernel is in the kernel's text.
KERNEL_SOURCES = (
    "compiler/codegen.py", "compiler/emit_llvm.py", "compiler/llvm_ops.py", "compiler/loops.py",
    "compiler/machine.py", "compiler/outside_in.py", "compiler/python_kernels.py",
    "compiler/user_code.py", "compiler/vecmath/*.py", "config.py", "dtype.py", "errors.py",
    "extent.py", "graph.py", "index.py", "recording.py", "storage.py",
)  # fmt: skip


def kernel_entry(text: str) -> str:
    """The name of the disk cache's entry for a kernel of this text (`keys.kernel_key`)."""
    return _entry("kernel", _kernel_sources(), text)


def program_entry(structure: object) -> str | None:
    """The name of the entry for the program of a structure (`keys.structure_of`), None if the
    structure has parts that only this process knows."""
    text = repr(structure)  # tuples of numbers and words, printed alike by every process
    if " at 0x" in text:
        return None
    return _entry("program", _program_sources(), text)


def _entry(kind: str, sources: str, text: str) -> str:
    parts = (sources, *machine.processor(), config.cpu, text)
    return f"{kind}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


@functools.cache
def _kernel_sources() -> str:
    root = _root()
    return _digest(file for name in KERNEL_SOURCES for file in sorted(root.glob(name)))


@functools.cache
def _program_sources() -> str:
    root = _root()
    return _digest([*sorted((root / "compiler").rglob("*.py")), *sorted(root.glob("*.py"))])


def _root() -> Path:
    """The folder of the package metaop, which has the compiler's as a link or as a folder."""
    spec = importlib.util.find_spec("metaop")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256(f"{llvmlite.__version__} {llvm.llvm_version_info} ".encode())
    total.update(_numba_version())
    for file in files:
        content = file.read_bytes()
        total.update(b"%d %s " % (len(content), file.name.encode()))
        total.update(content)
    return total.hexdigest()


def _numba_version() -> bytes:
    """The file in which numba's version is written: importing numba takes 0.3 s."""
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        return b"none"
    return (Path(spec.origin).parent / "_version.py").read_bytes()
