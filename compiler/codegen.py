"""Machine code for kernels: one Numba function each, whose body is one intrinsic that writes the
scheduled nest; Numba's optimiser rounds are replaced by one short pipeline.

Numba is imported by the first compilation, not before: it takes longer to import than most
programs take to run from the cache.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import llvmlite.binding as llvm

from metaop.config import config
from metaop.errors import CompilerBug

from .emit_llvm import emit_llvm
from .loops import Kernel

PASSES = ("sroa", "simplify_cfg", "instruction_combine", "new_gvn", "loop_simplify", "loop_rotate",
          "instruction_combine", "simplify_cfg")  # fmt: skip


class CompiledKernel:
    """Machine code: `address` of int32 kernel(ret, exc, table, args, chunk, chunks, scratch)."""

    def __init__(self, address: int, library: Any, seconds: float):
        self.address, self.library, self.seconds = address, library, seconds

    def llvm(self) -> str:
        """The optimised LLVM IR."""
        return self.library.get_llvm_str()

    def assembly(self) -> str:
        """The machine code as text."""
        return self.library.get_asm_str()


def compile_kernel(kernel: Kernel) -> CompiledKernel:
    """Compiles one kernel, about 50 ms."""
    started = time.perf_counter()
    target = _target()
    function = _function_around(kernel)
    try:
        result = target.compile(function)
        address = result.library.get_pointer_to_function(result.fndesc.mangled_name)
    except Exception as error:
        from .loops import show_kernel

        raise CompilerBug(f"code generation: {error}\n{show_kernel(kernel)}") from error
    return CompiledKernel(address, result.library, time.perf_counter() - started)


def _function_around(kernel: Kernel) -> Any:
    """def kernel(table, args, chunk, chunks, scratch): nest(the same)"""
    from numba import types
    from numba.extending import intrinsic

    def nest(
        typing_context: Any, table: Any, args: Any, chunk: Any, chunks: Any, scratch: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit_llvm(kernel, builder, list(values))
            return context.get_dummy_value()

        return types.void(table, args, chunk, chunks, scratch), generate

    namespace: dict[str, Any] = {"nest": intrinsic(nest), "__name__": "metaop.kernels"}
    names = "table, args, chunk, chunks, scratch"
    source = f"def kernel({names}):\n    nest({names})\n"
    exec(source, namespace)
    return namespace["kernel"]


class _Target:
    """Numba's CPU target with our optimiser pipeline and the host's full vector width."""

    def __init__(self) -> None:
        from numba import types
        from numba.core import codegen
        from numba.core.compiler import Flags, compile_extra
        from numba.core.cpu import CPUContext
        from numba.core.registry import cpu_target

        class Library(codegen.JITCodeLibrary):
            def _optimize_functions(self, module: Any) -> None:
                module.data_layout = self._codegen._data_layout

            def _optimize_final_module(self) -> None:
                _optimise(self._final_module, self._codegen._tm)

        class Codegen(codegen.JITCPUCodegen):
            _library_class = Library

            def _customize_tm_options(self, options: dict[str, Any]) -> None:
                super()._customize_tm_options(options)
                options["cpu"], options["features"] = cpu_name(), cpu_features()

        class Context(CPUContext):
            def init(self) -> None:
                super().init()
                self._internal_codegen = Codegen("metaop")

        self._typing = cpu_target.typing_context
        self._context = Context(self._typing)
        pointer = types.CPointer(types.int64)
        memory = types.CPointer(types.uint8)
        self._signature = types.void(pointer, pointer, types.int64, types.int64, memory)
        flags: Any = Flags()
        flags.nrt = False
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.error_model = "numpy"
        flags.release_gil = True
        self._flags = flags
        self._compile_extra = compile_extra

    def compile(self, function: Any) -> Any:
        signature = self._signature
        return self._compile_extra(
            self._typing, self._context, function, signature.args, signature.return_type,
            self._flags.copy(), {},
        )  # fmt: skip


@functools.cache
def _target() -> _Target:
    return _Target()


def _optimise(module: Any, machine: Any) -> None:
    """One short pipeline: the nest is already vectorised, tiled and free of redundant loads."""
    manager = llvm.create_new_function_pass_manager()
    for name in PASSES:
        getattr(manager, f"add_{name}_pass")()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    for function in module.functions:
        if not function.is_declaration:
            manager.run(function, builder)


def cpu_name() -> str:
    """The CPU that code is made for: the host's, or LLVM's generic one with METAOP_CPU=generic."""
    return "generic" if config.cpu == "generic" else llvm.get_host_cpu_name()


def cpu_features() -> str:
    """Its features.  Whole 512-bit vectors are wanted where the CPU has them."""
    if config.cpu == "generic":
        return ""
    features = llvm.get_host_cpu_features()
    text = features.flatten()
    return text + ",-prefer-256-bit" if features.get("avx512f") else text
