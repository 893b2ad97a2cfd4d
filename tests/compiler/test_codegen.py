"""Machine code: one Numba function per kernel, loaded, dropped, and found by what it depends on."""

from __future__ import annotations

import ast
import ctypes
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba.core import event

import metaop as mo
from metaop.compiler import codegen, fingerprint, kernels, llvm_ops, machine, programs
from metaop.compiler.keys import kernel_key, structure_of
from metaop.compiler.loops import Kernel
from metaop.errors import CompilerBug
from metaop.graph import pending

PACKAGE = Path(mo.__file__).parent


class Listener(event.Listener):
    """What Numba compiles in this thread; others may finish what earlier tests began."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.thread = threading.get_ident()

    def on_start(self, event: event.Event) -> None:
        if threading.get_ident() == self.thread:
            self.compiled.append(str(event.data["dispatcher"]))

    def on_end(self, event: event.Event) -> None:
        pass


def kernels_of(*results: mo.Var) -> list[Kernel]:
    asked = [v._node for v in results]
    program, _ = programs.program_for(pending(asked), asked)
    return [launch.kernel for launch in program.launches if launch.kernel is not None]


def chain(k: int) -> mo.Var:
    """A kernel of its own for each number."""
    y = mo.array(np.ones(5, np.float32))
    for digit in range(8):
        y = mo.sqrt(y) if k >> digit & 1 else mo.abs(y) + y
    return y


@pytest.mark.usefixtures("no_disk_cache", "settled")
def test_numba_compiles_one_function_for_each_kernel():
    programs.forget()
    with event.install_listener("numba:compile", Listener()) as listener:
        before = mo.stats().compiled
        for k in range(5):
            chain(k).numpy()
        assert len(listener.compiled) == mo.stats().compiled - before == 5, listener.compiled
        for k in range(5):
            chain(k).numpy()
        assert len(listener.compiled) == 5, listener.compiled


def test_a_compiled_kernel_shows_its_llvm_and_its_assembly():
    (kernel,) = kernels_of(mo.sqrt(mo.array(np.ones(500, np.float32))) * 3.5)
    compiled = codegen.compile_kernel(kernel, "shown")
    assert "define i32 @shown(" in compiled.llvm() and "@llvm.sqrt.v16f32" in compiled.llvm()
    assert "shown:" in compiled.assembly() and "sqrt" in compiled.assembly()


@pytest.mark.parametrize("shape", [(40, 50), (2100, 70), (5, 2050, 33)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_a_transpose_turns_squares_in_registers(shape: tuple[int, ...], dtype: str):
    """Whatever the strides are: they are arguments of the kernel."""
    x = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(dtype)
    turned = -mo.array(x).transpose()
    (kernel,) = kernels_of(turned)
    assert "scatter" not in codegen.assembly_of(kernel)
    np.testing.assert_array_equal(turned.numpy(), -x.transpose())


def test_compiling_twice_gives_the_same_bytes():
    (kernel,) = kernels_of(mo.exp(mo.array(np.ones((6, 7), np.float32))).sum(axis=1))
    first = codegen.compile_kernel(kernel, "k")
    codegen.compile_kernel(kernels_of(chain(3))[0], "another")
    assert codegen.compile_kernel(kernel, "k").code == first.code


def test_a_kernel_that_cannot_be_generated_is_a_bug_with_its_text():
    (kernel,) = kernels_of(mo.array(np.ones(5, np.float32)) * 1.5)
    kernel.buffers.clear()
    with pytest.raises(CompilerBug, match=r"code generation: .*\nkernel k0"):
        codegen.compile_kernel(kernel)


def test_a_kernel_needs_nothing_from_outside():
    """Not even memset: it is linked without the symbols of the process."""
    x = mo.array(np.linspace(0.1, 3, 24, dtype=np.float32).reshape(4, 6))
    results = [mo.exp(x), mo.tanh(x), mo.sin(x), x**1.7, mo.zeros((300, 300)) + x[0, 0], x @ x.T]
    for number, kernel in enumerate(kernels_of(*results)):
        code = codegen.compile_kernel(kernel, "k").code
        builder = llvm.JITLibraryBuilder().add_object_img(code).export_symbol("k")
        builder.link(machine._linker(), f"alone_{number}")


def test_float16_works_on_a_cpu_without_instructions_for_it(monkeypatch: pytest.MonkeyPatch):
    x = np.linspace(-3, 3, 50, dtype=np.float16)
    host = (mo.array(x) * 2.5 + 1.0).numpy()
    monkeypatch.setattr(mo.config, "cpu", "generic")
    assert np.array_equal((mo.array(x) * 2.5 + 1.0).numpy(), host)


# --- memory ---------------------------------------------------------------------------------------


def test_code_is_freed_with_the_last_that_holds_it():
    content = codegen.compile_kernel(kernels_of(chain(1))[0], "k").code
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("needs /proc")

    def resident() -> int:
        return int(pages.read_text().split()[1]) * 4096

    start = resident()
    held = [machine.load([content], ["k"]) for _ in range(300)]
    kept = resident() - start
    held.clear()
    start = resident()
    for _ in range(300):
        machine.load([content], ["k"])
    assert kept > 300 * 4096
    assert resident() - start < kept / 2


def test_a_program_keeps_its_kernels_when_the_process_forgets_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(kernels, "MOST_KEPT", 1)
    x = mo.array(np.arange(8, dtype=np.float32)).sync()

    def run() -> np.ndarray:
        return mo.sqrt(mo.sqrt(x).sum() + x).numpy()

    right = run()
    kernels.forget()
    for k in range(4):
        chain(k).numpy()
    gc.collect()
    assert len(kernels._kernels) <= 1
    assert np.array_equal(run(), right)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("no_disk_cache")
def test_many_kernels_take_little_memory():
    """2 000 may take 200 MB, half of it in the first few hundred; here are 100."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    for k in range(128, 148):
        chain(k).numpy()
    before, compiled = resident(), mo.stats().compiled
    for k in range(100):
        chain(k).numpy()
    assert mo.stats().compiled - compiled > 90
    assert resident() - before < 20


# --- what cached code depends on ------------------------------------------------------------------


def imported_by(name: str) -> Iterator[str]:
    """The modules of metaop that a module imports, whether at once or later."""
    file = file_of(name)
    parts = [*name.split("."), *["__init__"] * (file.name == "__init__.py")]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: -node.level] if node.level else []
            whole = ".".join([*above, *([node.module] if node.module else [])])
            yield whole
            yield from (f"{whole}.{alias.name}" for alias in node.names)


def file_of(name: str) -> Path:
    path = PACKAGE.parent / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def closure(start: str) -> set[str]:
    found, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name not in found and name.startswith("metaop.") and file_of(name).exists():
            found.add(name)
            todo += imported_by(name)
    return {str(file_of(name).relative_to(PACKAGE)) for name in found}


SOURCES = sorted(
    str(file.relative_to(PACKAGE))
    for pattern in fingerprint.KERNEL_SOURCES
    for file in PACKAGE.glob(pattern)
)


def test_the_key_of_a_kernel_holds_every_source_that_generates_code():
    assert closure("metaop.compiler.codegen") == set(SOURCES)


@pytest.mark.parametrize("changed", [*SOURCES, "numba", "cpu", "text"])
def test_a_change_of_anything_that_generates_code_changes_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str
):
    for name in SOURCES:
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((PACKAGE / name).read_bytes())
    monkeypatch.setattr(fingerprint, "_root", lambda: tmp_path)
    text = "kernel k(b0: f32*)"

    def entry() -> str:
        fingerprint._kernel_sources.cache_clear()
        return fingerprint.kernel_entry(text)

    try:
        before = entry()
        assert entry() == before
        if changed == "numba":
            monkeypatch.setattr(fingerprint, "_numba_version", lambda: b"0.0")
        elif changed == "cpu":
            monkeypatch.setattr(mo.config, "cpu", "generic")
        elif changed == "text":
            text += " "
        else:
            with (tmp_path / changed).open("a") as file:
                file.write("#")
        assert entry() != before
    finally:
        fingerprint._kernel_sources.cache_clear()


def test_a_structure_that_only_this_process_knows_has_no_entry():
    assert fingerprint.program_entry((("leaf", object()),)) is None
    assert fingerprint.program_entry((("leaf", (3, 4)),)) is not None


RECORDED: dict[str, Callable[[mo.Var], mo.Var]] = {
    "number": lambda x: x * 2.0,
    "another number": lambda x: x * -2.0,
    "nothing": lambda x: x * 0.0,
    "minus nothing": lambda x: x * -0.0,
    "fill": lambda x: mo.reindex(x, (9,), lambda i: (i - 2,), fill=2.0),
    "another fill": lambda x: mo.reindex(x, (9,), lambda i: (i - 2,), fill=3.0),
    "nan": lambda x: mo.reindex(x, (9,), lambda i: (i - 2,), fill=float("nan")),
    "index": lambda x: mo.reindex(x, (9,), lambda i: (i - 3,), fill=2.0),
    "shape": lambda x: mo.reindex(x, (8,), lambda i: (i - 2,), fill=2.0),
    "operator": lambda x: mo.sqrt(x),
    "dtype": lambda x: mo.sqrt(x.astype("float64")),
}


def test_structures_that_compute_different_things_have_different_entries():
    x = mo.array(np.arange(5, dtype=np.float32)).sync()
    entries = {}
    for name, record in RECORDED.items():
        node = record(x)._node
        entries[name] = fingerprint.program_entry(structure_of(pending([node]), [node])[0])
    assert None not in entries.values()
    assert len(set(entries.values())) == len(entries)


def test_the_text_of_a_kernel_is_its_key():
    """Equal texts are one entry, whatever the names that a program gives its buffers."""
    (one,), (other,) = kernels_of(chain(77)), kernels_of(chain(77))
    (different,) = kernels_of(chain(78))
    assert kernel_key(one) == kernel_key(other) != kernel_key(different)


def test_a_loaded_kernel_has_the_address_of_a_function():
    asked = [chain(5)._node]
    program, _ = programs.program_for(pending(asked), asked)
    for one in program.launches:
        assert ctypes.c_void_p(one.address).value
        assert one.address == one.code.address


def test_kernels_missing_on_disk_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(mo.config, "cache", str(tmp_path / "cache"))
    name = fingerprint.kernel_entry("no such kernel")
    assert kernels.stored_kernels([name]) is None
    found: Any = kernels.stored_kernels([])
    assert found == {}


# --- a program's kernels together -----------------------------------------------------------------


@pytest.mark.usefixtures("no_disk_cache")
def test_the_kernels_of_a_program_are_compiled_in_another_thread(monkeypatch: pytest.MonkeyPatch):
    programs.forget()
    threads: list[int] = []

    def noted(*arguments: Any) -> bytes:
        threads.append(threading.get_ident())
        return compiled(*arguments)

    compiled = codegen.object_code_of
    monkeypatch.setattr(codegen, "object_code_of", noted)
    interval, running = sys.getswitchinterval(), threading.active_count()
    results = [chain(k) for k in range(20, 23)]
    mo.sync()
    assert len(threads) == len(results)
    assert len(set(threads)) == 1 and threading.get_ident() not in threads
    assert sys.getswitchinterval() == interval and threading.active_count() == running
    assert gc.isenabled()


@pytest.mark.usefixtures("no_disk_cache")
def test_an_error_of_the_thread_is_raised_and_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
):
    programs.forget()

    def broken(*_: Any) -> bytes:
        raise OSError("out of registers")

    monkeypatch.setattr(machine, "object_code", broken)
    interval, running = sys.getswitchinterval(), threading.active_count()
    with pytest.raises(CompilerBug, match=r"out of registers\nkernel k0"):
        chain(30).numpy()
    assert sys.getswitchinterval() == interval and threading.active_count() == running
    assert gc.isenabled()
    monkeypatch.undo()
    assert chain(30).numpy().shape == (5,)


def test_a_program_can_be_compiled_while_the_interpreter_ends():
    code = (
        "import atexit, metaop as mo\n"
        "x = mo.array([1.0, 4.0, 9.0])\n"
        "atexit.register(lambda: print((mo.sqrt(x) + 0.25).tolist()))\n"
    )
    environment = {**os.environ, "METAOP_CACHE": "off"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stdout == "[1.25, 2.25, 3.25]\n", result.stderr


def test_constants_that_are_shared_keep_their_bits():
    kinds = [llvm_ops.FLOAT, llvm_ops.I32]
    values: list[Any] = [0.0, -0.0, float("nan"), 1.0, 1, True, 0]
    for kind in kinds:
        for value in values:
            if (kind is llvm_ops.FLOAT) == isinstance(value, float):
                for _ in range(2):
                    made = llvm_ops.constant(kind, value)
                    assert str(made) == str(ir.Constant(kind, value))
