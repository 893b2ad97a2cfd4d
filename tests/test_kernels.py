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
    x = mo.array([1.0, -2.0], requires_grad=True)
    with pytest.raises(mo.DTypeError, match="no gradient"):
        mo.grad(halved(x).sum(), x)


@mo.kernel
def halved(i: Any, x: Any) -> Any:
    value = x[i]
    while value > 0.1:
        value = value / 2
    return value


# ------------------------------------------------------------------------------- ifs become where


@mo.kernel
def piecewise(i: Any, j: Any, x: Any) -> Any:
    a = x[i, j]
    if 0 < a and a < 2:
        return math.sqrt(a)
    return 1.0 if a == 0 else np.exp(a) * max(a, -1.0)


def piecewise_in_numpy(x: np.ndarray) -> np.ndarray:
    root = np.sqrt(np.where(x > 0, x, 0))
    other = np.where(x == 0, 1.0, np.exp(x) * np.maximum(x, -1.0))
    return np.where((x > 0) & (x < 2), root, other)


def test_ifs_on_values_are_fused_with_their_neighbours() -> None:
    x = RNG.normal(size=(6, 7)) * 2
    x[0, :2] = 0
    v = mo.array(x).sync()
    np.testing.assert_allclose(python_value(piecewise(v)), piecewise_in_numpy(x), rtol=1e-14)
    np.testing.assert_allclose(piecewise(v).numpy(), piecewise_in_numpy(x), rtol=1e-14)
    assert len(mo.explain((piecewise(v * 2) + 1).sum()).kernels) == 1


def test_a_way_that_is_not_taken_adds_nothing_to_the_gradient() -> None:
    """The derivative of the root is infinite at 0, and 0 times infinity is NaN."""
    x = mo.array(np.array([[0.0, 0.25, -0.5]]), requires_grad=True)
    g = mo.grad(piecewise(x).sum(), x).numpy()
    np.testing.assert_allclose(g, [[0, 1, np.exp(-0.5) * (1 - 0.5)]])
    y = RNG.uniform(0.1, 1.9, size=(2, 3)) * np.array([1, -1, 1.2])
    assert mo.gradcheck(piecewise, y, order=2)


def test_a_guarded_read_of_a_neighbour() -> None:
    @mo.kernel
    def upwind(i: Any, x: Any) -> Any:
        if i == 0:
            return x[0]
        return x[i] - x[i - 1] if x[i] > x[i - 1] else 0.5

    x = RNG.normal(size=9)
    d = np.diff(x)
    want = np.concatenate([x[:1], np.where(d > 0, d, 0.5)])
    np.testing.assert_allclose(upwind(mo.array(x)).numpy(), want)


def test_equality_of_values_is_not_that_of_objects() -> None:
    """`x[i] == 0` was False for every value: an expression had Python's own ==."""
    one_for_zero = mo.kernel(lambda i, x: 1 if x[i] == 0 else x[i])
    assert one_for_zero(mo.array([0, 2, 0])).numpy().tolist() == [1, 2, 1]
    i = mo.axes(3)[0]
    x = mo.array([1.0, 2.0, 3.0])
    assert (x[i] != 2).array().numpy().tolist() == [True, False, True]


def test_a_division_of_integers_is_done_only_where_the_function_comes_to_it() -> None:
    safe = mo.kernel(lambda i, a, b: a[i] // b[i] if b[i] != 0 else -1)
    assert safe(mo.array([7, 8]), mo.array([0, 3])).numpy().tolist() == [-1, 2]


def test_a_kernel_with_its_own_gradient() -> None:
    x = RNG.normal(size=(3, 4))
    v = mo.array(x, requires_grad=True)
    y = doubled_above_0(v)
    np.testing.assert_allclose(y.numpy(), np.where(x > 0, 2 * x, 0))
    np.testing.assert_allclose(mo.grad(y.sum(), v).numpy(), np.where(x > 0, 2.0, 0.0))
    assert mo.gradcheck(doubled_above_0, x)
    assert len(mo.explain(mo.exp(doubled_above_0(mo.array(x).sync()))).kernels) == 1
    slow = mo.kernel(halved.function, gradient=lambda g, x: 3 * g)
    assert mo.grad(slow(v[0]).sum(), v).numpy()[0].tolist() == [3.0] * 4


def test_a_second_call_compiles_nothing() -> None:
    x = mo.array(np.arange(1, 5))
    collatz(x).sync()
    programs = mo.stats().programs
    collatz(mo.array(np.arange(3, 7))).sync()
    assert mo.stats().programs == programs


def test_reading_outside_is_an_index_error() -> None:
    @mo.kernel
    def beyond(i: Any, x: Any) -> Any:
        k = i
        while x[k] > 0:
            k += 1
        return x[k]

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


def test_the_key_holds_what_inner_functions_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A global read by a function inside the function was left out: a change of it was not seen."""

    def outer(i: Any, x: Any) -> Any:
        return (lambda v: v * FACTOR)(x[i])

    key = code_key(outer)
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    assert None is not key != code_key(outer)


def test_the_key_holds_a_function_of_numba() -> None:
    import numba

    key = code_key(makes(1.0, inner=numba.njit(helper)))
    assert key is not None and key != code_key(makes(1.0))
    assert key != code_key(makes(1.0, inner=numba.njit(fastmath=True)(helper)))


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
