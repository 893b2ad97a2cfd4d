"""The machine: which CPU code is made for, from LLVM to object code, from that to an address.

Object code is loaded by LLVM's JIT linker, in the process that compiled it as in one that found it
on disk; dropping the `Code` frees its memory.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from metaop.config import config

PASSES = ("sroa", "simplify_cfg", "instruction_combine", "loop_simplify", "loop_rotate",
          "instruction_combine", "simplify_cfg")  # fmt: skip


class Processor(NamedTuple):
    """What code is made for: LLVM's triple of the system, name of the CPU and list of features."""

    triple: str
    cpu: str
    features: str


# Settings of METAOP_CPU besides host and generic, each a level of x86-64 that other CPUs include:
# LLVM's name for it, and those of its features that the host must have and the code generator asks.
LEVELS = {
    "avx2": ("x86-64-v3", "+avx,+avx2,+f16c,+fma"),
    "sse4": ("x86-64-v2", "+sse4.1,+sse4.2"),
}


def processor() -> Processor:
    """The processor of the settings: the host, or a plainer one of its architecture.

    Raises ValueError for a METAOP_CPU that is unknown or that the host cannot run.
    """
    triple = _triple()
    if config.cpu == "host":
        return Processor(triple, *host())
    if config.cpu == "generic":
        return Processor(triple, "generic", "")
    if config.cpu not in LEVELS:
        known = ", ".join(["host", "generic", *LEVELS])
        raise ValueError(f"METAOP_CPU must be one of {known}, is {config.cpu!r}.")
    name, features = LEVELS[config.cpu]
    if not set(features.split(",")) <= set(host()[1].split(",")):
        raise ValueError(f"METAOP_CPU={config.cpu}: this CPU does not have all of {features}.")
    return Processor(triple, name, features)


@functools.cache
def _triple() -> str:
    return llvm.get_process_triple()


@functools.cache
def host() -> tuple[str, str]:
    """This CPU's name and features; LLVM knows some CPUs by a name that tells too little.

    Whole 512-bit vectors are wanted where the CPU has them.
    """
    try:
        features = llvm.get_host_cpu_features()
        text = features.flatten()
    except RuntimeError:  # LLVM cannot tell
        return llvm.get_host_cpu_name(), ""
    return llvm.get_host_cpu_name(), (
        text + ",-prefer-256-bit" if features.get("avx512f") else text
    )


def vector_registers() -> tuple[int, int]:
    """How many vector registers the processor has, and of how many bytes."""
    triple, _, features = processor()
    if triple.startswith(("aarch64", "arm64")):
        return 32, 16
    if "+avx512f" in features:
        return 32, 64
    return 16, 32 if "+avx" in features else 16


def has_avx512() -> bool:
    """Whether a register holds 16 float32, and LLVM has names for what AVX-512 does with them."""
    triple, _, features = processor()
    return triple.startswith(("x86_64", "amd64")) and "+avx512f" in features


def has_maximum() -> bool:
    """Whether one instruction finds the larger of two floats, NaN if either is, and 0.0 of 0.0 and
    -0.0: as ARM's does."""
    return processor().triple.startswith(("aarch64", "arm64"))


def hides_lanes() -> bool:
    """Whether LLVM must not know the lanes of a mask.

    For AVX without AVX-512, LLVM 22 reads a half of a masked load whose lanes are known to be off
    as if they were on: outside of the memory, and with wrong results.
    """
    triple, _, features = processor()
    is_x86 = triple.startswith(("x86_64", "amd64"))
    return is_x86 and "+avx" in features and "+avx512f" not in features


def data_layout() -> str:
    """How LLVM lays data out in memory for the processor of the settings."""
    return _data_layout(processor())


@functools.cache
def _data_layout(made_for: Processor) -> str:
    return str(_target_machine(made_for).target_data)


def target_machine() -> Any:
    """LLVM's code generator for the processor of the settings."""
    return _target_machine(processor())


@functools.cache
def _target_machine(made_for: Processor) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(made_for.triple)
    return target.create_target_machine(
        cpu=made_for.cpu, features=made_for.features, opt=2, reloc="pic",
        codemodel="jitdefault", jit=True,
    )  # fmt: skip


# ---------------------------------------------------------------------------------- generating


def optimised(assembly: str, name: str) -> Any:
    """The module of LLVM assembly after the pipeline; its one function is called `name`."""
    module = llvm.parse_assembly(assembly)
    module.triple, module.data_layout = processor().triple, data_layout()
    manager, builder = _pipeline(processor())
    if any(map(_is_part, module.functions)):
        _inlining().run(module, builder)
    for function in module.functions:
        if not function.is_declaration:
            function.name = name
            manager.run(function, builder)
    module.verify()
    return module


def linked(assembly: str, parts: list[str]) -> str:
    """The assembly of a function with the functions that it calls, which are to be inlined."""
    module = llvm.parse_assembly(assembly)
    names = {f.name for f in module.functions if not f.is_declaration}
    for part in parts:
        module.link_in(llvm.parse_assembly(part))
    for function in module.functions:
        if not function.is_declaration and function.name not in names:
            function.linkage = llvm.Linkage.internal
            function.add_function_attribute("alwaysinline")
    return str(module)


def _is_part(function: Any) -> bool:
    return not function.is_declaration and function.linkage == llvm.Linkage.internal


@functools.cache
def _inlining() -> Any:
    manager = llvm.create_new_module_pass_manager()
    manager.add_always_inliner_pass()
    manager.add_global_dead_code_eliminate_pass()
    return manager


@functools.cache
def _pipeline(made_for: Processor) -> tuple[Any, Any]:
    """The passes, and what runs them."""
    manager = llvm.create_new_function_pass_manager()
    for one in PASSES:
        getattr(manager, f"add_{one}_pass")()
    options = llvm.create_pipeline_tuning_options()
    return manager, llvm.create_pass_builder(_target_machine(made_for), options)


def object_code(assembly: str, name: str) -> bytes:
    """Object code of LLVM assembly that defines one function, which will be called `name`."""
    return bytes(target_machine().emit_object(optimised(assembly, name)))


# ------------------------------------------------------------------------------------- loading


class Code:
    """Functions in memory: their addresses are good as long as this object is alive."""

    __slots__ = ("_tracker", "addresses", "nbytes")

    def __init__(self, tracker: Any, addresses: dict[str, int], nbytes: int):
        self._tracker, self.addresses, self.nbytes = tracker, addresses, nbytes


_numbers = itertools.count()
_linking = threading.Lock()


def load(objects: list[bytes], names: list[str]) -> Code:
    """The functions `names` of some object files, in memory."""
    builder = llvm.JITLibraryBuilder()
    for content in objects:
        builder.add_object_img(content)
    for name in names:
        builder.export_symbol(name)
    builder.add_current_process()  # what LLVM calls for what a CPU lacks
    with _linking:
        tracker = builder.link(_linker(), f"metaop_{next(_numbers)}")
    return Code(tracker, {n: tracker[n] for n in names}, sum(map(len, objects)))


@functools.cache
def _linker() -> Any:
    if sys.platform.startswith("linux"):
        try:  # conversions of float16 for an x86 without instructions for it
            ctypes.CDLL("libgcc_s.so.1", ctypes.RTLD_GLOBAL)
        except OSError:
            pass  # then linking fails on such a CPU, and says so
    return llvm.create_lljit_compiler(_target_machine(Processor(_triple(), *host())))


# ---------------------------------------------------------------------------- what the CPU can do


class InstructionSet(NamedTuple):
    """What code for the CPU of the settings may use: the widest vectors, in bits, and whether a
    multiplication and an addition are one instruction."""

    name: str
    vector_bits: int
    fma: bool


def instruction_set() -> InstructionSet:
    """That of the settings: x86-64 with SSE2, AVX, AVX2 or AVX-512, arm64 with NEON, or another."""
    made_for = processor()
    architecture = made_for.triple.split("-")[0]
    if architecture in ("aarch64", "arm64"):
        return InstructionSet("arm64 NEON", 128, True)
    if architecture not in ("x86_64", "amd64"):
        return InstructionSet(architecture, 128, False)
    has = set(made_for.features.split(","))
    for feature, name, bits in (("avx512f", "AVX-512", 512), ("avx2", "AVX2", 256),
                                ("avx", "AVX", 256)):  # fmt: skip
        if f"+{feature}" in has:
            return InstructionSet(f"x86-64 {name}", bits, "+fma" in has or bits == 512)
    return InstructionSet("x86-64 SSE2", 128, "+fma" in has)


@functools.cache
def brand() -> str:
    """The CPU's name as its maker writes it, where the system tells; else LLVM's name for it."""
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or host()[0]
