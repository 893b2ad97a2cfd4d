"""Operators that a user writes: mo.kernel and mo.numpy_code."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop.compiler import python_kernels
from metaop.errors import NotScalar
from metaop.graph import ScalarFunction
from metaop.kernels import code_key
from metaop.life import live_pending
from metaop.scalar_code import scalar_form
from metaop.scalar_gradient import derivative
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


@mo.kernel
def first_small(i: Any, x: Any) -> Any:
    """Reads where only a value says: a host callback."""
    k = i
    while x[k] > 1:
        k += 1
    return x[k]


def test_what_reads_where_a_value_says_is_a_host_callback_and_says_why() -> None:
    x = mo.array([3.0, 0.5, 2.0, 1.0], requires_grad=True)
    y = first_small(x)
    assert "first_small, it reads where only a value says: k" in repr(mo.explain(y))
    assert y.numpy().tolist() == [0.5, 0.5, 1, 1]
    with pytest.raises(mo.DTypeError, match="first_small has no gradient"):
        mo.grad(first_small(x).sum(), x)


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


# ------------------------------------------------------- functions of numbers are parts of kernels


@mo.kernel
def halved(i: Any, x: Any) -> Any:
    value = x[i]
    while value > LIMIT:
        value = value / 2
    return value


def halved_in_numpy(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    while (x > LIMIT).any():
        x = np.where(x > LIMIT, x / 2, x)
    return x


def chain(x: mo.Var) -> mo.Var:
    return (mo.maximum(halved(x * 2) + 1, 0) * 3).sum()


def test_a_chain_with_a_users_loop_is_one_kernel() -> None:
    x = RNG.normal(size=1003).astype(np.float32)
    half = halved_in_numpy(2 * x).astype(np.float32)
    want = np.sum(np.maximum(half + 1, 0) * 3, dtype=np.float64)
    with mo.no_fuse():
        apart = chain(mo.array(x)).numpy()
    np.testing.assert_allclose(apart, want, rtol=1e-6)
    np.testing.assert_array_equal(halved(mo.array(x) * 2).numpy(), half)
    np.testing.assert_array_equal(python_value(halved(mo.array(x[:40]) * 2)), half[:40])
    np.testing.assert_allclose(python_value(chain(mo.array(x)), grouped=True), want, rtol=1e-5)
    jitted = mo.jit(chain)
    threads = mo.get_num_threads()
    try:
        for count in (1, 2, 3):
            mo.set_num_threads(count)
            for function in (chain, jitted):
                function(mo.array(x)).sync()
                before = mo.stats().launched
                assert function(mo.array(x)).numpy() == apart
                assert mo.stats().launched == before + 1
    finally:
        mo.set_num_threads(threads)


def within(a: float, b: float) -> bool:
    return a * a + b * b <= 4.0


@mo.kernel(shape=lambda re, im: (im.shape[0], re.shape[0]), dtype="int32")
def mandelbrot(i: Any, j: Any, re: Any, im: Any) -> Any:
    a, b, n = 0.0, 0.0, 0
    while n < 50 and within(a, b):
        a, b = a * a - b * b + re[j], 2 * a * b + im[i]
        n += 1
    return n


def test_mandelbrots_set_in_one_kernel_with_the_sum_of_its_rows() -> None:
    re, im = np.linspace(-2, 1, 33), np.linspace(-1, 1, 19)
    z, n = np.zeros((19, 33), np.complex128), np.zeros((19, 33), np.int64)
    for _ in range(50):
        inside = z.real**2 + z.imag**2 <= 4
        n += inside
        z = np.where(inside, z * z + re + 1j * im[:, None], z)
    got = mandelbrot(mo.array(re).sync(), mo.array(im).sync())
    np.testing.assert_array_equal(python_value(got), n)
    rows = (got * 2 - 1).sum(1)
    assert len(mo.explain(rows).kernels) == 1
    np.testing.assert_array_equal(rows.numpy(), (n * 2 - 1).sum(1))
    np.testing.assert_array_equal(got.numpy(), n)


@mo.kernel
def greatest_divisor(i: Any, a: Any, b: Any) -> Any:
    x, y = a[i], b[i]
    while y != 0:
        x, y = y, x % y
    return x


@pytest.mark.parametrize("dtype", ["int32", "uint8", "uint64"])
def test_integers_are_integers(dtype: str) -> None:
    a, b = RNG.integers(0, 100, (2, 40)).astype(dtype)
    got = greatest_divisor(mo.array(a), mo.array(b))
    np.testing.assert_array_equal(python_value(got), np.gcd(a, b))
    assert got.numpy().dtype == dtype
    np.testing.assert_array_equal(got.numpy(), np.gcd(a, b))


@mo.kernel(dtype="int64")
def quotient(i: Any, x: Any) -> Any:
    n = x[i]
    while n > 1:
        n -= 1
    return 10 // n


def test_a_division_by_zero_in_it_is_an_error_with_its_name() -> None:
    assert quotient(mo.array([1, 2, 3])).numpy().tolist() == [10, 10, 10]
    with pytest.raises(ZeroDivisionError, match=r"in quotient, recorded at test_kernels.py"):
        (quotient(mo.array([1, 0, 3])) + 1).numpy()
    with pytest.raises(ZeroDivisionError):
        python_value(quotient(mo.array([1, 0, 3])))


def test_it_is_called_only_where_there_is_something() -> None:
    """For what padding adds, or in the lanes past the end, it would divide by zero."""
    x = np.arange(1, 20)
    got = mo.pad(quotient(mo.array(x)), (3, 4)).reshape(2, 13).sum(0)
    assert len(mo.explain(got).kernels) == 1
    want = np.pad(np.full(19, 10), (3, 4)).reshape(2, 13).sum(0)
    assert python_value(got).tolist() == got.numpy().tolist() == want.tolist()


def test_another_batch_size_compiles_nothing(no_disk_cache: None) -> None:
    def loss(n: int) -> mo.Var:
        return chain(mo.array(RNG.normal(size=n)))

    loss(64).sync()
    compiled = mo.stats().compiled
    for n in (96, 65, 200):
        loss(n).sync()
    assert mo.stats().compiled == compiled


EVERY = """sqrt exp expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh
    acosh atanh erf erfc lgamma fabs floor ceil trunc isnan isinf isfinite""".split()
LINES = [f"    if k == {k}: return 1.0 * math.{name}(v)" for k, name in enumerate(EVERY)]
EVERY_SOURCE = "\n".join(
    ["def every(k, x):", "    v = x[k]", *LINES, "    return math.pow(v, 2.5)"]
)


def test_functions_of_math_are_those_of_python(tmp_path: Any) -> None:
    file = tmp_path / "every.py"
    file.write_text(EVERY_SOURCE)
    scope = {"math": math}
    exec(compile(EVERY_SOURCE, str(file), "exec"), scope)
    x = np.array([1.4 if name == "acosh" else 0.4 for name in [*EVERY, "pow"]])
    want = [float(getattr(math, name)(v)) for name, v in zip(EVERY, x)] + [0.4**2.5]
    got = mo.kernel(scope["every"])(mo.array(x))
    assert len(mo.explain(got).kernels) == 1
    np.testing.assert_allclose(python_value(got), want, rtol=1e-14)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-14)


def _raises(i: Any, x: Any) -> Any:
    while x[i] > 0:
        raise ValueError
    return x[i]


def _writes(i: Any, x: Any) -> Any:
    while x[i] > 0:
        x[i] = 0
    return x[i]


def _passes_a_whole_array(i: Any, x: Any) -> Any:
    while x[i] > 0:
        return np.sum(x)
    return x[i]


def _has_a_list(i: Any, x: Any) -> Any:
    found = [x[i]]
    while found[0] > 0:
        found[0] -= 1
    return found[0]


def _may_not_return(i: Any, x: Any) -> Any:
    while x[i] > 0:
        return 1.0


def _reads_a_table(i: Any, x: Any) -> Any:
    return x[i] * len(TABLE)


def _goes_over_numbers(i: Any, x: Any) -> Any:
    for v in (1.0, 2.0):
        if v > x[i]:
            return v
    return 0.0


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_raises, "it has what a kernel cannot hold: raise ValueError"),
        (_writes, "it writes into an array: x\\[i\\]"),
        (_passes_a_whole_array, "it uses an operand as a whole: x"),
        (_has_a_list, "it has what a kernel cannot hold: \\[x\\[i\\]\\]"),
        (_may_not_return, "it may end without a return"),
        (_reads_a_table, "it uses something that is no number|it asks"),
        (_goes_over_numbers, "it loops over something other than a range"),
        (np.sin, "it is no Python function"),
        (eval("lambda i, x: x[i]"), "its source is not at hand"),
    ],
)  # fmt: skip
def test_what_no_kernel_can_hold_is_named(function: Any, reason: str) -> None:
    with pytest.raises(NotScalar, match=reason):
        scalar_form(function, 1)


TABLE = [1.0]


def test_a_read_that_may_be_outside_is_left_to_a_host_callback() -> None:
    @mo.kernel
    def shifted(i: Any, x: Any) -> Any:
        value = x[i + 1]
        while value > 1:
            value = value / 2
        return value

    inside = shifted.__class__(shifted.function, lambda x: (x.shape[0] - 1,), None, None)
    x = mo.array([1.0, 4.0, 3.0])
    assert len(mo.explain(inside(x)).kernels) == 1
    assert inside(x).numpy().tolist() == [1.0, 0.75]
    assert "may read outside of f32[3], at [i0 + 1]" in repr(mo.explain(shifted(x)))
    with pytest.raises(IndexError):
        shifted(x).numpy()


def test_a_number_that_it_finds_outside_is_that_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert halved(mo.array([1.0])).numpy() == 0.0625
    monkeypatch.setitem(globals(), "LIMIT", 0.3)
    assert halved(mo.array([1.0])).numpy() == 0.25


def test_what_a_module_has_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number in a module of the user was not seen to change."""
    settings = types.ModuleType("settings")
    settings.least = 0.3  # type: ignore[attr-defined]

    @mo.kernel
    def lowered(i: Any, x: Any) -> Any:
        value = x[i]
        while value > settings.least:
            value = value / 2
        return value

    key = code_key(lowered.function)
    assert lowered(mo.array([1.0])).numpy() == 0.25
    settings.least = 0.1  # type: ignore[attr-defined]
    assert None is not key != code_key(lowered.function)
    assert lowered(mo.array([1.0])).numpy() == 0.0625


SECOND = """
import sys, numpy as np, metaop as mo

@mo.kernel
def halved(i, x):
    value = x[i]
    while value > 0.1:
        value = value / 2
    return value

x = mo.array(np.arange(40.0), requires_grad=True)
y = mo.exp(halved(x * 2)).sum()
print(float(y), float(mo.grad(y, x).sum()))
print(mo.stats().compiled, mo.stats().programs, "numba" in sys.modules)
"""


def test_a_second_process_compiles_nothing_and_needs_no_numba(tmp_path: Any) -> None:
    file = tmp_path / "second.py"
    file.write_text(SECOND)
    environment = {**os.environ, "METAOP_CACHE": str(tmp_path / "cache")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "METAOP_CHECK": "0"}
    first, second = (
        subprocess.run(
            [sys.executable, str(file)], env=environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(2)
    )
    assert first[1].endswith("True") and second == [first[0], "0 0 False"]


# ----------------------------------------------------------------------------- their derivatives


@mo.kernel
def root(i: Any, x: Any, a: Any) -> Any:
    """The y with y**3 + a*y = x, by Newton's method."""
    y, n = x[i], 0
    while abs(y**3 + a[i] * y - x[i]) > 1e-14 and n < 60:
        y -= (y**3 + a[i] * y - x[i]) / (3 * y * y + a[i])
        n += 1
    return y + min(y, 0.0)


def bump(u: float, v: float) -> float:
    return math.exp(-u * u) * v


@mo.kernel(shape=lambda x, w: (x.shape[0], w.shape[0]))
def mixture(i: Any, j: Any, x: Any, w: Any) -> Any:
    s, t = x[i], 1.0
    for k in range(5):
        s, t = math.sin(s) + bump(s, t), max(s * w[j], t) if t < 3 else t
        if s > 2:
            break
        s += 0.1 * k * w[j]
    while s > 3:
        s = s / 2
    return s * t + math.sqrt(abs(s) + 1) + math.atan2(s, t + 2) + x.shape[0] ** 2 * s


@mo.kernel
def cosines(i: Any, x: Any) -> Any:
    value = x[i]
    while value > 0.5:
        value = value * math.cos(value)
    return value


@pytest.mark.parametrize(("function", "order"), [(cosines, 2), (mixture, 1)])
def test_loops_are_differentiated(function: Any, order: int) -> None:
    operands = [RNG.uniform(0.5, 1.5, n) for n in (4, 3)][: order % 2 + 1]
    assert mo.gradcheck(function, tuple(operands), order=order)


def test_a_name_that_a_loop_takes_has_no_derivative_any_more() -> None:
    def taken(i: Any, x: Any) -> Any:
        value = x[i]
        total = value
        for value in range(3):
            total = total * 2 + value
        return total + value

    x = mo.array([1.0], requires_grad=True)
    function = scalar_form(taken, 1).function
    space = dict(vars(python_kernels))
    exec(derivative(function, 0).source, space)
    assert space[derivative(function, 0).name](5.0) == 8
    assert mo.grad(mo.kernel(taken)(x).sum(), x).numpy().tolist() == [8.0]


def evened(name: str) -> Any:
    """A kernel of some name that Numba compiles for integers alone."""

    def function(i: Any, x: Any) -> Any:
        value = x[i]
        while value & 1:
            value = value - 1
        return value

    function.__name__ = name
    return mo.kernel(function)


def test_what_numba_cannot_type_is_an_error_that_names_the_function() -> None:
    """Also where a function of another name has the same code."""
    for name in ("odd", "even"):
        kernel = evened(name)
        assert kernel(mo.array([2, 3])).numpy().tolist() == [2, 2]
        with pytest.raises(mo.DTypeError, match=f"{name}: Numba cannot compile it"):
            kernel(mo.array([2.0, 3.0])).numpy()


def test_what_failed_and_was_dropped_fails_nothing_later() -> None:
    """Numba's error keeps itself alive, and with it the frames and Vars of who called it."""
    weight = mo.zeros(3)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(mo.DTypeError, match="Numba cannot compile it"):
            evened("dropped")(mo.array([2.0, 3.0])).numpy()
        assert live_pending()
        weight += 1
        mo.sync()
        assert not live_pending()
    finally:
        gc.enable()
    assert weight.numpy().tolist() == [1, 1, 1]


def test_an_index_may_count_from_the_end() -> None:
    @mo.kernel
    def mirrored(i: Any, x: Any) -> Any:
        value = x[x.shape[0] - 1 - i] + len(x)
        while value > 10:
            value = value - 10
        return value

    for n in (4, 50, 7):
        x = RNG.uniform(0, 5, n)
        got = mirrored(mo.array(x))
        assert len(mo.explain(got).kernels) == 1
        np.testing.assert_allclose(got.numpy(), 10 - (-(x[::-1] + n) % 10), rtol=1e-12)


def test_a_derivative_without_a_rule_is_an_error_that_says_so() -> None:
    function = scalar_form(lambda i, x: math.lgamma(x[i]), 1).function
    with pytest.raises(NotScalar, match="digamma has no derivative here"):
        derivative(derivative(function, 0), 0)


def test_the_derivative_of_a_root_is_that_of_the_equation() -> None:
    """dy/dx = 1 / (3 y² + a), in one kernel with what is around it."""
    x, a = RNG.uniform(0.5, 2, (2, 30))
    v, w = mo.array(x, requires_grad=True), mo.array(a)
    y = root(v * 2, w)
    flow = mo.grad(mo.exp(y).sum(), v)
    assert len(mo.explain(flow).kernels) == 1
    solved = y.numpy()
    np.testing.assert_allclose(solved**3 + a * solved, 2 * x, rtol=1e-12)
    np.testing.assert_allclose(flow.numpy(), np.exp(solved) * 2 / (3 * solved**2 + a), rtol=1e-12)


EXPRESSIONS = [
    *(f"math.{name}(v)" for name in EVERY if name not in ("acosh", "lgamma")),
    "math.acosh(v + 1)", "math.pow(v, 2.5)", "v ** 0.3", "v ** 3", "math.hypot(v, 2 * v - 1)",
    "math.atan2(v, 2.0)", "math.copysign(v, -1.0)", "abs(v - 1)", "min(v, 1 - v)", "max(v, 2 * v)",
    "v % 0.25", "(-v) / (1 + v)", "float(int(5 * v)) * v", "+v if v > 0.2 else v * v",
    "bump(v, v * v)", "max(v, 0.1, v * v)", "np.exp2(v)",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_rule_of_a_derivative(expression: str, tmp_path: Any) -> None:
    source = f"def f(i, x):\n    v = x[i]\n    return {expression}"
    (tmp_path / "f.py").write_text(source)
    scope = {"math": math, "np": np, "bump": bump}
    exec(compile(source, str(tmp_path / "f.py"), "exec"), scope)
    function = scalar_form(scope["f"], 1).function

    def value_of(made: ScalarFunction, x: float) -> float:
        space = dict(vars(python_kernels))
        exec(made.source, space)
        return space[made.name](x)

    x, h = 0.37, 1e-6
    rule, second = derivative(function, 0), derivative(derivative(function, 0), 0)
    for f, df in ((function, rule), (rule, second)):
        slope = (value_of(f, x + h) - value_of(f, x - h)) / (2 * h)
        np.testing.assert_allclose(value_of(df, x), slope, rtol=1e-6, atol=1e-8)


def test_equal_arguments_of_max_share_the_gradient() -> None:
    x = mo.array([1.0, 2.0], requires_grad=True)

    @mo.kernel
    def clipped(i: Any, x: Any) -> Any:
        value = x[i]
        while value > 1.5:
            value = value - 1
        return max(value, 1.0)

    assert mo.grad(clipped(x).sum(), x).numpy().tolist() == [0.5, 0.5]


LIMIT = 0.1

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
