"""Operators that a user writes: mo.kernel and mo.numpy_code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop.kernels import code_key
from tests.helpers import python_value

RNG = np.random.default_rng(0)


@mo.kernel(shape=lambda x, w: (x.shape[0] - w.shape[0] + 1,))
def smoothed(i: Any, x: Any, w: Any) -> Any:
    total = 0.0
    for r in range(w.shape[0]):
        total += x[i + r] * w[r]
    return total


@mo.kernel
def collatz(i: Any, x: Any) -> Any:
    """How many steps from x[i] to 1: a loop that a value ends."""
    n, steps = x[i], 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def double_of_g(g: mo.Var, x: mo.Var) -> mo.Var:
    return g * mo.where(x > 0, 2.0, 0.0)


@mo.kernel(gradient=double_of_g)
def doubled_above_0(i: Any, j: Any, x: Any) -> Any:
    if x[i, j] > 0:
        return 2 * x[i, j]
    return 0.0


def test_a_function_of_symbols_becomes_meta_operators() -> None:
    x, w = RNG.normal(size=20), RNG.normal(size=5)
    got = smoothed(mo.array(x), mo.array(w))
    np.testing.assert_allclose(python_value(got), np.convolve(x, w[::-1], "valid"))
    assert mo.gradcheck(smoothed, (x, w), order=2)
    fused = mo.exp(smoothed(mo.array(x).sync(), mo.array(w).sync()) * 2)
    assert len(mo.explain(fused).kernels) == 1


def test_a_loop_that_a_value_ends_is_compiled_by_numba() -> None:
    got = collatz(mo.array(np.arange(1, 30)))

    def steps(n: int) -> int:
        return 0 if n == 1 else 1 + steps(n // 2 if n % 2 == 0 else 3 * n + 1)

    assert got.numpy().tolist() == [steps(n) for n in range(1, 30)]
    branched = mo.kernel(lambda i, x: x[i] if x[i] > 0 else -x[i])
    x = mo.array([1.0, -2.0], requires_grad=True)
    with pytest.raises(mo.DTypeError, match="no gradient"):
        mo.grad(branched(x).sum(), x)


def test_a_compiled_kernel_with_its_own_gradient() -> None:
    x = RNG.normal(size=(3, 4))
    v = mo.array(x, requires_grad=True)
    y = doubled_above_0(v)
    np.testing.assert_allclose(y.numpy(), np.where(x > 0, 2 * x, 0))
    np.testing.assert_allclose(mo.grad(y.sum(), v).numpy(), np.where(x > 0, 2.0, 0.0))
    assert mo.gradcheck(doubled_above_0, x)


def test_a_second_call_compiles_nothing() -> None:
    x = mo.array(np.arange(1, 5))
    collatz(x).sync()
    programs = mo.stats().programs
    collatz(mo.array(np.arange(3, 7))).sync()
    assert mo.stats().programs == programs


def test_reading_outside_is_an_index_error() -> None:
    @mo.kernel
    def beyond(i: Any, x: Any) -> Any:
        return x[i + 1] if x[i] > 0 else x[i]

    with pytest.raises(IndexError):
        beyond(mo.array([1.0, 2.0])).numpy()


def test_16_bit_floats_are_computed_in_float32() -> None:
    @mo.kernel(dtype="float16")
    def limited(i: Any, x: Any) -> Any:
        return x[i] if x[i] < 1 else x[i] * 0 + 1

    got = limited(mo.array([0.5, 3.0], dtype="float16"))
    assert got.dtype is mo.float16 and got.numpy().tolist() == [0.5, 1.0]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(mo.ShapeError, match="3 arguments are declared, there are 1 indices and 1"):
        smoothed.__class__(smoothed.function, (3,), None, None)(mo.zeros(5))
    with pytest.raises(TypeError, match=r"mo\.where"):
        i = mo.axes(3)[0]
        bool(mo.zeros(3)[i] > 0)


# --------------------------------------------------------------------------------------- the key

FACTOR = 2.0


def helper(x: float) -> float:
    return x * FACTOR


def makes(constant: Any, inner: Any = helper) -> Any:
    return lambda i, x: inner(x[i]) + constant + math.pi


def test_the_key_holds_constants_closures_and_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    key = code_key(makes(1.0))
    assert key is not None and key == code_key(makes(1.0))
    assert key != code_key(makes(2.0)) != code_key(makes(2))
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert key != code_key(makes(1.0))


def test_what_holds_an_object_has_no_key() -> None:
    assert code_key(makes([1.0])) is None
    assert code_key(makes(1.0, inner=np.sin)) is None
    assert code_key(lambda i, x: sum(k for k in (1, 2))) != code_key(
        lambda i, x: sum(k for k in (1, 3))
    )


# ------------------------------------------------------------------------------------- NumPy code


def forward(np: Any, data: dict[str, Any]) -> None:
    a, b = data["inputs"]
    c, d = data["outputs"]
    np.add(a, b, out=c)
    np.subtract(a, b, out=d)


def backward_a(np: Any, data: dict[str, Any]) -> None:
    np.copyto(data["outputs"][0], data["dout"])


def backward_b(np: Any, data: dict[str, Any]) -> None:
    sign = 1 if data["out_index"] == 0 else -1
    np.copyto(data["outputs"][0], sign * data["dout"])


def test_numpy_code_is_jittors() -> None:
    a, b = RNG.normal(size=(2, 5))
    va, vb = mo.array(a, requires_grad=True), mo.array(b, requires_grad=True)
    c, d = mo.numpy_code([a.shape] * 2, [va.dtype] * 2, [va, vb], forward, [backward_a, backward_b])
    np.testing.assert_allclose(c.numpy(), a + b)
    np.testing.assert_allclose(d.numpy(), a - b)
    ga, gb = mo.grad((c * 3 + d).sum(), [va, vb])
    np.testing.assert_allclose(ga.numpy(), np.full(5, 4.0))
    np.testing.assert_allclose(gb.numpy(), np.full(5, 2.0))


def test_numpy_code_of_one_result() -> None:
    def square(np: Any, data: dict[str, Any]) -> None:
        np.multiply(data["inputs"][0], data["inputs"][0], out=data["outputs"][0])

    x = mo.array([1.0, 2.0], requires_grad=True)
    y = mo.numpy_code((2,), "float32", [x], square)
    assert y.numpy().tolist() == [1.0, 4.0]
    with pytest.raises(mo.DTypeError, match="one backward function for each of 1 inputs"):
        mo.grad(y.sum(), x)
