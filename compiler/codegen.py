"""Machine code for kernels: one Numba function each, whose body is one intrinsic that writes the
scheduled nest as LLVM assembly; LLVM makes object code of it in one short pipeline.

    kernel --Numba--> LLVM assembly --machine.object_code--> object code

The function is the same for every kernel but for what its intrinsic writes, so Numba reads and
types it once; each kernel is one lowering of it.  Numba gets contexts of our own that hold nothing
but this function: it registers nothing per kernel, and loads no implementation of anything else.

Numba is imported by the first compilation, not before: it takes longer to import than most
programs take to run from the cache.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

from llvmlite import ir

from metaop.errors import CompilerBug

from . import machine, user_code
from .emit_llvm import emit_llvm
from .loops import Kernel, functions_of, show_kernel

NAMES = "table, args, chunk, chunks, scratch"


class CompiledKernel:
    """Object code that defines int32 `name`(ret, exc, table, args, chunk, chunks, scratch)."""

    def __init__(self, kernel: Kernel, name: str, code: bytes, seconds: float):
        self.kernel, self.name, self.code, self.seconds = kernel, name, code, seconds

    def llvm(self) -> str:
        """The optimised LLVM assembly."""
        return optimised_assembly(self.kernel, self.name)

    def assembly(self) -> str:
        """The machine code as text."""
        return machine_text(self.kernel, self.name)


def compile_kernel(kernel: Kernel, name: str = "kernel") -> CompiledKernel:
    """Compiles one kernel, about 20 ms."""
    started = time.perf_counter()
    code = object_code_of(kernel, assembly_of(kernel), name)
    return CompiledKernel(kernel, name, code, time.perf_counter() - started)


def object_code_of(kernel: Kernel, assembly: str, name: str) -> bytes:
    """The object code that LLVM makes of a kernel's assembly."""
    try:
        return machine.object_code(assembly, name)
    except Exception as error:
        raise _bug(kernel, error) from error


def optimised_assembly(kernel: Kernel, name: str = "kernel") -> str:
    """The LLVM assembly of a kernel after the passes of `machine.PASSES`."""
    return str(machine.optimised(assembly_of(kernel), name))


def machine_text(kernel: Kernel, name: str = "kernel") -> str:
    """The machine code of a kernel in LLVM's assembly language for this CPU."""
    module = machine.optimised(assembly_of(kernel), name)
    return str(machine.target_machine().emit_assembly(module))


def assembly_of(kernel: Kernel) -> str:
    """The LLVM assembly that Numba makes of a kernel, before any optimisation."""
    machine.processor()  # what METAOP_CPU says wrongly is no fault of ours
    codes = [user_code.code_of(value) for value in functions_of(kernel)]
    try:
        assembly = _target().assembly_of(kernel)
        return machine.linked(assembly, [c.assembly for c in codes]) if codes else assembly
    except Exception as error:
        raise _bug(kernel, error) from error


def _bug(kernel: Kernel, error: Exception) -> CompilerBug:
    return CompilerBug(f"code generation: {error}\n{show_kernel(kernel)}")


class _Target:
    """Numba for one function: its contexts, what it found out, and the kernel it lowers now."""

    def __init__(self) -> None:
        from numba import types
        from numba.core.compiler import Flags

        self._lock = threading.RLock()
        self._kernel: Kernel | None = None
        pointer, memory = types.CPointer(types.int64), types.CPointer(types.uint8)
        self._arguments = (pointer, pointer, types.int64, types.int64, memory)
        self._typing, self._context = _contexts()
        nest = _intrinsic(self._typing, self._context, self._arguments, self._generate)
        namespace: dict[str, Any] = {"nest": nest, "__name__": "metaop.kernels"}
        exec(f"def kernel({NAMES}):\n    nest({NAMES})\n", namespace)
        self._function = namespace["kernel"]
        flags: Any = Flags()
        flags.nrt = False
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.error_model = "numpy"
        flags.release_gil = True
        self._flags = flags
        self._typed: Any = None

    def assembly_of(self, kernel: Kernel) -> str:
        from numba.core import event

        data = {"dispatcher": self._function, "args": self._arguments, "return_type": None}
        with self._lock, event.trigger_event("numba:compile", data=data):
            self._kernel = kernel
            try:
                return self._lowered()
            finally:
                self._kernel = None

    def _lowered(self) -> str:
        from numba.core.compiler_lock import global_compiler_lock
        from numba.core.funcdesc import PythonFunctionDescriptor
        from numba.core.lowering import Lower
        from numba.core.targetconfig import ConfigStack

        with global_compiler_lock:
            if self._typed is None:
                self._typed = self._types()
            code, types_of, calls, result = self._typed
            described = PythonFunctionDescriptor.from_specialized_function(
                code, types_of, result, calls, self._context.mangler, False, False, ()
            )
            library = self._context.codegen().create_library("kernel")
            with self._context.push_code_library(library), ConfigStack().enter(self._flags):
                Lower(self._context, library, described, code, {}).lower()
        return str(library.assembly)

    def _types(self) -> Any:
        from numba import types

        made = (self._typing, self._context, None, self._arguments, types.void)
        return _front()(*made, self._flags.copy(), {}).typed(self._function)

    def _generate(self, context: Any, builder: Any, signature: Any, values: Any) -> Any:
        assert self._kernel is not None
        emit_llvm(self._kernel, builder, list(values))
        return context.get_dummy_value()


@functools.cache
def _target() -> _Target:
    return _Target()


def _contexts() -> tuple[Any, Any]:
    """A typing context and a target context that know the builtins, our library and no more."""
    from numba.core import codegen
    from numba.core.codegen import CodeLibrary
    from numba.core.cpu import CPUContext
    from numba.core.typing.context import BaseContext

    class Library(codegen.JITCodeLibrary):
        """Keeps the assembly that Numba wrote, and makes nothing of it: LLVM may be at work on
        another kernel meanwhile, and is not to be waited for."""

        assembly = ""

        def __init__(self, codegen: Any, name: str):
            CodeLibrary.__init__(self, codegen, name)

        def add_ir_module(self, module: Any) -> None:
            self.assembly = str(module)

    class Codegen(codegen.JITCPUCodegen):
        _library_class = Library

        def _create_empty_module(self, name: str) -> Any:
            module = ir.Module(name)
            module.triple, module.data_layout = machine.processor().triple, machine.data_layout()
            return module

    class Context(CPUContext):
        def init(self) -> None:
            super().init()
            self._internal_codegen = Codegen("metaop")

        def load_additional_registries(self) -> None:
            from numba.cpython import builtins  # noqa: F401 - None is one of its constants

        def declare_env_global(self, module: Any, name: str) -> None:
            """A kernel has no Python objects to keep."""

        def post_lowering(self, module: Any, library: Any) -> None:
            """A kernel needs nothing of Numba's runtime."""

    typing = BaseContext()
    return typing, Context(typing)


def _intrinsic(typing: Any, context: Any, arguments: Any, generate: Any) -> Any:
    """A function without a body, known to two contexts only, whose calls `generate` writes.

    numba.extending.intrinsic does the same for all of Numba, and first loads all of it.
    """
    from numba import types
    from numba.core.typing.templates import ConcreteTemplate, signature

    def nest() -> None: ...

    class Template(ConcreteTemplate):
        key = nest
        cases = [signature(types.void, *arguments)]

    typing.insert_global(nest, types.Function(Template))
    context.insert_func_defn([(generate, nest, arguments)])
    return nest


def _front() -> Any:
    """Numba's passes before lowering, as a compiler."""
    from numba.core import typed_passes, untyped_passes
    from numba.core.compiler import CompilerBase, _EarlyPipelineCompletion
    from numba.core.compiler_machinery import AnalysisPass, PassManager, register_pass

    @register_pass(mutates_CFG=False, analysis_only=True)
    class Typed(AnalysisPass):
        _name = "metaop_typed"

        def __init__(self) -> None:
            AnalysisPass.__init__(self)

        def run_pass(self, state: Any) -> bool:
            raise _EarlyPipelineCompletion(
                (state.func_ir, state.typemap, state.calltypes, state.return_type)
            )

    class Front(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            passes = PassManager("metaop_front")
            passes.add_pass(untyped_passes.TranslateByteCode, "bytecode to IR")
            passes.add_pass(untyped_passes.FixupArgs, "arguments")
            passes.add_pass(untyped_passes.IRProcessing, "IR processing")
            passes.add_pass(typed_passes.NopythonTypeInference, "types")
            passes.add_pass(Typed, "stop here")
            passes.finalize()
            return [passes]

        def typed(self, function: Any) -> Any:
            return self.compile_extra(function)

    return Front
