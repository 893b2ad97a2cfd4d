"""Kernels for other processors than this one: plainer x86-64, and arm64 as object code."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

import metaop as mo
from metaop.compiler import codegen, machine, programs
from metaop.compiler.contraction import blocks
from metaop.compiler.loops import Kernel
from metaop.compiler.vecmath import FUNCTIONS
from metaop.graph import pending
from metaop.nn import functional as F
from tests.compiler.test_contraction import assert_computes, convolved, parts, shrink

ROOT = Path(__file__).resolve().parents[2]
X86 = llvm.get_process_triple().startswith(("x86_64", "amd64"))
BY_FMA = (
    "matmul",
    "convolution",
    "strided",
)  # elsewhere every operation is rounded as IEEE 754 says


def operand(seed: int, *shape: int, dtype: str = "float32") -> mo.Var:
    draw = np.random.default_rng(seed).normal(size=shape)
    return mo.array(draw) if dtype == "float64" else mo.array(draw.astype("f4")).astype(dtype)


def sample() -> dict[str, mo.Var]:
    """Programs of every kind."""
    x, y = operand(0, 37, 50), operand(1, 37, 50)
    wide, k = operand(2, 9, 21, dtype="float64"), mo.array(np.arange(-40, 60).reshape(4, 25))
    image, gamma = operand(3, 4, 5, 7, 6), operand(4, 5)
    filters = mo.nn.Parameter(operand(11, 4, 2, 3, 3).numpy())
    image.requires_grad = gamma.requires_grad = True
    normed = F.relu(F.batch_norm(image, None, None, gamma, gamma * 0.5, training=True))
    g_image, g_gamma = mo.grad((normed * image).sum(), [image, gamma])
    strided = mo.conv2d(operand(10, 2, 2, 5, 4), filters, 2, 1)
    found = {
        "arithmetic": (x * y - 1.5) / (mo.abs(x) + 0.1), "floor": x // y + x % 0.7,
        "integers": (k * 77 // 5) ^ (k << 3), "comparison": mo.where(x > y, x, mo.minimum(y, 0.3)),
        "sum of rows": x.sum(1), "sum": (x * y).sum(), "mean of columns": wide.mean(0),
        "maximum": mo.amax(x, 1), "argmax": mo.argmax(y, 0), "cumsum": mo.cumsum(wide, 1),
        "softmax": F.softmax(x, 1), "log softmax": F.log_softmax(wide, 0),
        "batch norm": normed, "gradient of its input": g_image, "gradient of its scale": g_gamma,
        "layer norm": F.layer_norm(x, (50,)), "random": mo.random.normal((300,)),
        "matmul": x @ y.T, "convolution": mo.conv2d(image, operand(5, 3, 5, 3, 3), padding=1),
        # its masks have a half that is known to be empty, on which LLVM ended the process (AVX2)
        "strided": mo.grad((strided * operand(12, 2, 4, 3, 2)).sum(), filters),
    }  # fmt: skip
    for dtype in ("float16", "bfloat16"):
        a, b = operand(6, 333, dtype=dtype), operand(7, 333, dtype=dtype)
        found[f"{dtype}"] = (mo.exp(a) * b + 0.25) / (mo.abs(b) + 1)
        found[f"{dtype} sum"] = (a * b).sum()
    return found


def functions() -> dict[str, mo.Var]:
    """Every polynomial of vecmath, in both precisions."""
    found = {}
    for dtype in ("float32", "float64"):
        a = mo.abs(operand(8, 40, dtype=dtype)) * 0.9 + 0.01
        b = operand(9, 40, dtype=dtype)
        for name in FUNCTIONS:
            call = getattr(mo, name)
            argument = mo.minimum(a, 0.99) if name in ("erfinv", "atanh", "asin", "acos") else a
            two = name in ("pow", "atan2", "hypot")
            found[f"{name} {dtype}"] = call(argument, b) if two else call(argument)
    return found


def computed(make: Any, cpu: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    monkeypatch.setattr(mo.config, "cpu", cpu)
    mo.manual_seed(5)
    found = make()
    mo.sync(*found.values())
    return {name: value.numpy() for name, value in found.items()}


def offered(cpu: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(mo.config, "cpu", cpu)
    try:
        machine.processor()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("make", "cpu"),
    [(sample, "avx2"), (sample, "generic"), (functions, "avx2"), (functions, "sse4")],
)
def test_a_plainer_processor_gives_the_same_bits_but_for_fma(
    make: Any, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not offered(cpu, monkeypatch):
        pytest.skip(f"this machine cannot run {cpu}")
    want, got = computed(make, "host", monkeypatch), computed(make, cpu, monkeypatch)
    for name, value in want.items():
        if name in BY_FMA:
            np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], value, err_msg=name)


def assembly_of(var: mo.Var) -> list[tuple[Kernel, str, bytes]]:
    program, _ = programs.program_for(pending([var._node]), [var._node])
    kernels = [launch.kernel for launch in program.launches if launch.kernel is not None]
    compiled = [codegen.compile_kernel(kernel, "k") for kernel in kernels]
    return [(c.kernel, c.assembly(), c.code) for c in compiled]


def test_a_half_of_a_mask_that_is_known_to_be_empty_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LLVM loads a half of a vector unmasked if it knows its lanes to be off (AVX2): the rows that
    were packed for this convolution held the numbers beyond them."""
    if not offered("avx2", monkeypatch):
        pytest.skip("this machine cannot run avx2")
    shrink(monkeypatch)
    x, w, y, _, settings = parts((2, 3, 7, 4, 3, 1, 1, 1, 1))
    assert_computes(y, convolved(x.numpy(), w.numpy(), *settings))


@pytest.mark.skipif(not X86, reason="names of x86's instructions and registers")
def test_each_level_of_x86_uses_its_own_instructions(
    monkeypatch: pytest.MonkeyPatch, no_disk_cache: None
) -> None:
    for cpu, register, fused in (("avx2", "ymm", True), ("sse4", "xmm", False)):
        if not offered(cpu, monkeypatch):
            pytest.skip(f"this machine cannot run {cpu}")
        text = "".join(code for _, code, _ in assembly_of(operand(0, 64, 64) @ operand(1, 64, 64)))
        assert register in text and "zmm" not in text
        assert ("vfmadd" in text) is fused
        assert "fmaf" not in text  # no call for each lane where there is no instruction
        assert cpu == "avx2" or "ymm" not in text


def test_an_unknown_processor_is_named() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import metaop as mo; mo.ones(3).numpy()"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "METAOP_CPU": "z80"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "METAOP_CPU must be one of host, generic, avx2, sse4, is 'z80'" in made.stderr


# ------------------------------------------------------------------------------------------- arm64

ARM = {
    "Linux": machine.Processor("aarch64-unknown-linux-gnu", "generic", "+neon"),
    "macOS": machine.Processor("arm64-apple-darwin22.0.0", "apple-m1", "+neon,+fullfp16"),
}


def has_arm() -> bool:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        llvm.Target.from_triple(ARM["Linux"].triple)
    except RuntimeError:
        return False
    return True


def machine_of(code: bytes) -> int:
    """The processor that an object file of ELF or Mach-O names."""
    at = ("<H", 18) if code.startswith(b"\x7fELF") else ("<I", 4)
    return struct.unpack_from(at[0], code, at[1])[0]


def not_loaded(objects: list[bytes], names: list[str]) -> machine.Code:
    return machine.Code(None, dict.fromkeys(names, 0), 0)


@pytest.mark.skipif(not has_arm(), reason="this LLVM cannot generate code for arm64")
@pytest.mark.parametrize("system", ARM)
def test_arm64_kernels_are_object_code_with_vector_fma(
    system: str, monkeypatch: pytest.MonkeyPatch, no_disk_cache: None
) -> None:
    kernels = ("matmul", "convolution", "softmax", "batch norm", "float16", "bfloat16 sum")
    with monkeypatch.context() as other:
        made = {name: var for name, var in sample().items() if name in kernels}
        other.setattr(machine, "processor", lambda: ARM[system])
        other.setattr(mo.config, "cpu", f"arm64 {system}")  # in the keys of programs
        other.setattr(machine, "load", not_loaded)
        assert blocks.registers(mo.float32) == (32, 4)
        found = {name: assembly_of(var) for name, var in made.items()}
    for name, results in found.items():
        assert results
        for _, text, code in results:
            assert machine_of(code) == (0xB7 if system == "Linux" else 0x0100000C), name
            assert not re.search(r"\bbl\s+_?fma", text), name
    fma = re.compile(r"fmla(\.4s|\s+v\d+\.4s)")
    for name in ("matmul", "convolution", "softmax"):  # exp is a polynomial
        assert any(fma.search(text) for _, text, _ in found[name]), name
    for name in ("batch norm", "bfloat16 sum"):  # no contraction of what a user wrote
        assert not any("fmla" in text or "fmadd" in text for _, text, _ in found[name]), name
