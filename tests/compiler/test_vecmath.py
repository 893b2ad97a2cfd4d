"""The functions of `compiler/vecmath`, run as what they become: LLVM machine code.

`LlvmOps` writes a function as a loop over vectors of 16 lanes (or over scalars) with llvmlite, so
the tests see what the optimiser and the processor make of the text. References: float64 NumPy and
`math` for float32, mpmath for float64.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from metaop.compiler import vecmath

WIDTHS = [32, 64]
LANES = {32: 16, 64: 8}
FLOAT = {32: np.float32, 64: np.float64}
BINARY = {"pow", "atan2", "hypot"}

# ------------------------------------------------------------------------------- the LLVM backend


class LlvmOps:
    """`vecmath.Ops` as LLVM instructions on vectors of `lanes` numbers; scalars for lanes = 1."""

    def __init__(self, builder: ir.IRBuilder, width: int, lanes: int) -> None:
        self.builder = builder
        self.width = width
        self.lanes = lanes
        self.float_type = self._shaped(ir.FloatType() if width == 32 else ir.DoubleType())
        self.int_type = self._shaped(ir.IntType(width))

    def _shaped(self, scalar: ir.Type) -> ir.Type:
        return scalar if self.lanes == 1 else ir.VectorType(scalar, self.lanes)

    def _filled(self, kind: ir.Type, value: float | int) -> ir.Constant:
        return ir.Constant(kind, value if self.lanes == 1 else [value] * self.lanes)

    def const(self, value: float) -> Any:
        rounded = float(np.float32(value)) if self.width == 32 else value
        return self._filled(self.float_type, rounded)

    def iconst(self, value: int) -> Any:
        return self._filled(self.int_type, value)

    def _intrinsic(self, name: str, *arguments: Any) -> Any:
        suffix = f"f{self.width}" if self.lanes == 1 else f"v{self.lanes}f{self.width}"
        kind = ir.FunctionType(self.float_type, [self.float_type] * len(arguments))
        full = f"llvm.{name}.{suffix}"
        module = self.builder.module
        function = module.globals.get(full) or ir.Function(module, kind, full)
        return self.builder.call(function, arguments)

    def rarely(self, mask: Any, usual: tuple, slow: Callable[[], tuple]) -> tuple:
        """Branch around the slow code when no lane needs it."""
        builder = self.builder
        any_lane = mask
        if self.lanes > 1:
            kind = ir.FunctionType(ir.IntType(1), [mask.type])
            full = f"llvm.vector.reduce.or.v{self.lanes}i1"
            function = builder.module.globals.get(full) or ir.Function(builder.module, kind, full)
            any_lane = builder.call(function, [mask])
        before = builder.block
        with builder.if_then(any_lane, likely=False):
            values = [builder.select(mask, b, a) for a, b in zip(usual, slow(), strict=True)]
            inside = builder.block
        merged = []
        for a, b in zip(usual, values, strict=True):
            phi = builder.phi(a.type)
            phi.add_incoming(a, before)
            phi.add_incoming(b, inside)
            merged.append(phi)
        return tuple(merged)


def _add_instructions() -> None:
    """Give `LlvmOps` its methods, from tables: our name -> the builder's name."""
    plain = {
        **{"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "neg": "fneg"},
        **{"iadd": "add", "isub": "sub", "imul": "mul", "iand": "and_", "ior": "or_"},
        **{"ixor": "xor", "select": "select", "mask_and": "and_", "mask_or": "or_"},
        "mask_not": "not_",
    }
    intrinsics = {
        **{"abs": "fabs", "sqrt": "sqrt", "fma": "fma", "floor": "floor", "copysign": "copysign"},
        **{"round_even": "roundeven", "minimum": "minimum", "maximum": "maximum"},
    }
    compares = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=="}
    shifts = {"ishl": "shl", "ilshr": "lshr", "iashr": "ashr"}

    def instruction(name: str) -> Callable:
        return lambda self, *args: getattr(self.builder, name)(*args)

    def intrinsic(name: str) -> Callable:
        return lambda self, *args: self._intrinsic(name, *args)

    def compare(kind: str, sign: str) -> Callable:
        return lambda self, a, b: getattr(self.builder, kind)(sign, a, b)

    def shift(name: str) -> Callable:
        return lambda self, a, n: getattr(self.builder, name)(a, self.iconst(n))

    def cast(name: str, target: str) -> Callable:
        return lambda self, a: getattr(self.builder, name)(a, getattr(self, target))

    methods: dict[str, Callable] = {ours: instruction(name) for ours, name in plain.items()}
    methods |= {ours: intrinsic(name) for ours, name in intrinsics.items()}
    methods |= {ours: compare("fcmp_ordered", sign) for ours, sign in compares.items()}
    methods |= {ours: shift(name) for ours, name in shifts.items()}
    methods["ne"] = compare("fcmp_unordered", "!=")
    methods["isnan"] = lambda self, a: self.builder.fcmp_unordered("uno", a, a)
    methods["ieq"] = compare("icmp_signed", "==")
    methods["ilt"] = compare("icmp_signed", "<")
    methods["to_int"] = cast("fptosi", "int_type")
    methods["to_float"] = cast("sitofp", "float_type")
    methods["bits"] = cast("bitcast", "int_type")
    methods["from_bits"] = cast("bitcast", "float_type")
    for name, method in methods.items():
        setattr(LlvmOps, name, method)


_add_instructions()


class WithoutBranch(LlvmOps):
    """A backend that only selects."""

    rarely = None  # type: ignore[assignment]


def _loop_module(function: Callable, arity: int, width: int, lanes: int, ops: type) -> ir.Module:
    """for (i = 0; i < n; ++i) out[i] = function(a[i], ...), on vectors."""
    module = ir.Module()
    size = ir.IntType(64)
    pointer = ir.IntType(8).as_pointer()
    kernel = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [pointer] * (arity + 1) + [size]), "kernel"
    )
    entry, body, done = (kernel.append_basic_block(name) for name in ("entry", "body", "done"))
    builder = ir.IRBuilder(entry)
    instructions = ops(builder, width, lanes)
    vector = instructions.float_type.as_pointer()
    *inputs, output = (builder.bitcast(pointer, vector) for pointer in kernel.args[:-1])
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(size)
    index.add_incoming(ir.Constant(size, 0), entry)
    loaded = [builder.load(builder.gep(base, [index]), align=4) for base in inputs]
    builder.store(function(instructions, *loaded), builder.gep(output, [index]), align=4)
    following = builder.add(index, ir.Constant(size, 1))
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, kernel.args[-1]), body, done)
    builder.position_at_end(done)
    builder.ret_void()
    return module


def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(llvm.get_host_cpu_name(), features, opt=2)


def _optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


@functools.cache
def compiled(name: str, width: int, lanes: int, ops: type = LlvmOps) -> Callable:
    """The function as machine code on arrays of a multiple of `lanes` numbers."""
    arity = 2 if name in BINARY else 1
    machine = _machine()
    source = _loop_module(vecmath.FUNCTIONS[name], arity, width, lanes, ops)
    module = llvm.parse_assembly(str(source))
    module.verify()
    _optimise(module, machine)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (arity + 1), ctypes.c_int64)
    address = kind(engine.get_function_address("kernel"))

    def run(*arrays: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty_like(arrays[0]) if out is None else out
        address(*(array.ctypes.data for array in (*arrays, out)), out.size // lanes)
        return out

    run.engine = engine  # type: ignore[attr-defined]  # keeps the code alive
    return run


def evaluate(
    name: str, *arrays: Any, lanes: int | None = None, ops: type = LlvmOps, width: int = 32
) -> np.ndarray:
    """The function over arrays of any size."""
    arrays = tuple(np.ascontiguousarray(array, FLOAT[width]) for array in arrays)
    lanes = LANES[width] if lanes is None else lanes
    padding = -arrays[0].size % lanes
    padded = [np.concatenate([array, np.ones(padding, array.dtype)]) for array in arrays]
    return compiled(name, width, lanes, ops)(*padded)[: arrays[0].size]


# ------------------------------------------------------------------------- references and samples


def _wide_sigmoid(x: np.ndarray) -> np.ndarray:
    falling = np.exp(-np.abs(x))
    return np.where(x < 0, falling, 1.0) / (1.0 + falling)


# Every function in float64: exact enough to judge float32, and NumPy's word on special values.
REFERENCE: dict[str, Callable] = {
    **{name: getattr(np, name) for name in ("exp", "exp2", "expm1", "log", "log2", "log10")},
    **{name: getattr(np, name) for name in ("log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh},
    **{"acosh": np.arccosh, "atanh": np.arctanh, "atan2": np.arctan2, "hypot": np.hypot},
    "pow": np.power,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
    "sigmoid": _wide_sigmoid,
}
# mpmath's way to say it, where it has no function of that name
EXACT: dict[str, Callable] = {
    "exp2": lambda mpmath, x: mpmath.power(2, x),
    "log2": lambda mpmath, x: mpmath.log(x, 2),
    "pow": lambda mpmath, x, y: mpmath.power(x, y),
    "sigmoid": lambda mpmath, x: 1 / (1 + mpmath.exp(-x)),
    "lgamma": lambda mpmath, x: mpmath.re(mpmath.loggamma(x)),
}
# The functions that NumPy lacks, and special values of theirs: arguments, then results.
_NAN, _INF = math.nan, math.inf
WITHOUT_NUMPY: dict[str, tuple[list[float], list[float]]] = {
    "erfinv": (
        [0.0, -0.0, 1.0, -1.0, 1.5, -1.5, _INF, -_INF, _NAN],
        [0.0, -0.0, _INF, -_INF, _NAN, _NAN, _NAN, _NAN, _NAN],
    ),
    "lgamma": (
        [0.0, -0.0, 1.0, 2.0, -1.0, -2.0, -1e30, _INF, -_INF, _NAN, 1e308, -1e37, -1e308],
        [_INF, _INF, 0.0, 0.0, _INF, _INF, _INF, _INF, _INF, _NAN, _INF, _INF, _INF],
    ),
    "digamma": (
        [0.0, -0.0, -1.0, -2.0, -1e30, _INF, -_INF, _NAN],
        [-_INF, _INF, _NAN, _NAN, _NAN, _INF, _NAN, _NAN],
    ),
}

every_function = pytest.mark.parametrize("name", sorted(vecmath.FUNCTIONS))
every_numpy_function = pytest.mark.parametrize("name", sorted(REFERENCE))
every_width = pytest.mark.parametrize("width", WIDTHS)


def reference(name: str, *arrays: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return REFERENCE[name](*(array.astype(np.float64) for array in arrays))


def samples(width: int, count: int, seed: int) -> np.ndarray:
    """Finite numbers: of every exponent, and where the functions have their shapes."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(f"i{width // 8}")
    bounds = np.iinfo(kind)
    anything = rng.integers(bounds.min, bounds.max, count, kind, endpoint=True).view(FLOAT[width])
    spreads = [rng.normal(0, scale, count) for scale in (0.01, 1, 30, 300, 1e5)]
    groups = [anything, rng.uniform(-1.2, 1.2, count), 1 + rng.normal(0, 0.01, count), *spreads]
    drawn = np.concatenate([group.astype(FLOAT[width]) for group in groups])
    return rng.permutation(drawn[np.isfinite(drawn)])


def arguments(name: str, width: int, count: int) -> list[np.ndarray]:
    """Samples for each argument; for pow half of them with a result between 0 and inf."""
    first = samples(width, count, 1)
    if name == "erfinv":
        return [first[np.abs(first) < 1]]
    if name in WITHOUT_NUMPY:  # the gamma functions have a bound for positive numbers
        return [first[(first > 2.0**-120) & (first < 2.0**120)]]
    if name not in BINARY:
        return [first]
    second = samples(width, count, 2)[: first.size]
    first = first[: second.size]
    if name == "pow":
        first = np.abs(first)
        rng = np.random.default_rng(3)
        top = 100 if width == 32 else 720
        with np.errstate(all="ignore"):
            fitting = rng.uniform(-top - 10, top, first.size) / np.log(first.astype(np.float64))
            second = np.where(rng.random(first.size) < 0.8, fitting, second)
            second = second.astype(FLOAT[width])
    return [first, second]


def last_place(values: np.ndarray, width: int) -> np.ndarray:
    """The unit of the last place of the working type at `values`."""
    info = np.finfo(FLOAT[width])
    exponent = np.maximum(np.frexp(values)[1] - 1, info.minexp)
    return np.ldexp(1.0, exponent - info.nmant)


def worst_error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error of float32 results against float64 ones, in units of the last place.

    NaN must be NaN, and what rounds to inf must be inf or be the largest number's neighbour.
    """
    assert np.array_equal(np.isnan(got), np.isnan(want))
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = want.astype(np.float32)
        error = np.abs(got.astype(np.float64) - want) / last_place(want, 32)
    agree = (got == rounded) & ~np.isfinite(got)
    return float(np.max(np.where(agree | np.isnan(want), 0.0, error)))


def exact_errors(name: str, got: np.ndarray, *arrays: np.ndarray, width: int = 64) -> np.ndarray:
    """Errors against mpmath, in units of the last place; 0 for NaN and inf."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workprec(140):
        exact = EXACT.get(name) or (lambda mpmath, *values: getattr(mpmath, name)(*values))
        errors = np.zeros(got.size)
        for i in np.flatnonzero(np.isfinite(got)):
            want = exact(mpmath, *(mpmath.mpf(float(array[i])) for array in arrays))
            unit = last_place(got[i : i + 1].astype(np.float64), width)[0]
            errors[i] = abs(mpmath.mpf(float(got[i])) - want) / mpmath.mpf(float(unit))
    return errors


# --------------------------------------------------------------------------------------- accuracy


@every_function
@every_width
def test_every_function_states_a_bound(name: str, width: int) -> None:
    assert 0.5 <= vecmath.ULP[name, width] <= 4
    assert (name in REFERENCE) != (name in WITHOUT_NUMPY)


def test_the_functions_of_networks_are_within_two_ulp() -> None:
    assert all(vecmath.ULP[name, 32] <= 2 for name in ("exp", "log", "tanh", "erf", "sigmoid"))
    assert vecmath.ULP["pow", 32] <= 2


@every_numpy_function
def test_float32_error_is_within_the_stated_bound(name: str) -> None:
    drawn = arguments(name, 32, 10000 if name in ("erf", "erfc") else 50000)
    got = evaluate(name, *drawn)
    assert worst_error(got, reference(name, *drawn)) <= vecmath.ULP[name, 32]


@every_function
def test_float64_error_is_within_the_stated_bound(name: str) -> None:
    drawn = arguments(name, 64, 400)
    if name in ("sigmoid", "erf", "erfc"):  # mpmath fails on large numbers here
        drawn = [array[np.abs(array) < 800] for array in drawn]
    got = evaluate(name, *drawn, width=64)
    domain = np.isfinite(got)
    if name in REFERENCE:
        assert np.array_equal(np.isnan(got), np.isnan(reference(name, *drawn)))
    kept = [array[domain] for array in drawn]
    assert exact_errors(name, got[domain], *kept).max() <= vecmath.ULP[name, 64]


@pytest.mark.parametrize("name", sorted(WITHOUT_NUMPY))
def test_float32_error_without_numpy_is_within_the_stated_bound(name: str) -> None:
    x = arguments(name, 32, 500)[0]
    got = evaluate(name, x)
    assert np.isfinite(got).all()
    assert exact_errors(name, got, x, width=32).max() <= vecmath.ULP[name, 32]


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
@every_width
def test_gamma_functions_of_negative_numbers_are_right_to_a_few_units_of_their_terms(
    name: str, width: int
) -> None:
    mpmath = pytest.importorskip("mpmath")
    x = -np.random.default_rng(0).uniform(0, 12, 400).astype(FLOAT[width])
    x = x[np.abs(x - np.rint(x)) > 0.01]
    got = evaluate(name, x, width=width)
    exact = EXACT.get(name) or (lambda mpmath, value: mpmath.digamma(value))
    error = [abs(exact(mpmath, mpmath.mpf(float(v))) - float(g)) for v, g in zip(x, got)]
    terms = np.abs(evaluate(name, -x, width=width)) + np.pi / np.abs(np.sin(np.pi * x)) + 3
    assert np.all(np.array(error, float) <= 4 * np.finfo(FLOAT[width]).eps * terms)


@pytest.mark.parametrize(
    ("name", "start", "stop"),
    [("exp", -104, -87), ("exp2", -150, -126), ("sigmoid", -104, -87), ("erfc", 9.2, 10.1)],
)
def test_results_below_the_smallest_normal_number_underflow_gradually(
    name: str, start: float, stop: float
) -> None:
    x = np.linspace(start, stop, 10001, dtype=np.float32)
    got, want = evaluate(name, x), reference(name, x)
    assert np.abs(got - want).max() <= vecmath.ULP[name, 32] * 2.0**-149
    assert np.count_nonzero((got > 0) & (got < 2.0**-126)) > 1000


@pytest.mark.parametrize("name", ["log", "log2", "log10", "log1p", "asinh", "sin", "expm1"])
def test_arguments_below_the_smallest_normal_number_count(name: str) -> None:
    x = (np.arange(1, 5000) * 2.0**-149).astype(np.float32)
    assert worst_error(evaluate(name, x), reference(name, x)) <= vecmath.ULP[name, 32]


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
@pytest.mark.parametrize(
    ("width", "hardest"),
    # The numbers closest to a multiple of pi/2, and others of every size.
    [(32, 16367173 * 2.0**72), (64, 6381956970095103 * 2.0**797)],
)
def test_angles_of_any_size_are_reduced_exactly(name: str, width: int, hardest: float) -> None:
    exponents = np.arange(0, 127 if width == 32 else 1023, 3)
    multiples = np.rint(2.0 ** np.arange(1, 40)) * (math.pi / 2)
    x = np.concatenate([[hardest], 1.2345678 * 2.0**exponents, multiples]).astype(FLOAT[width])
    got = evaluate(name, x, width=width)
    if width == 32:
        assert worst_error(got, reference(name, x)) <= vecmath.ULP[name, 32]
    else:
        assert exact_errors(name, got, x).max() <= vecmath.ULP[name, 64]


# ------------------------------------------------------------------------------------ exact results

_SPECIAL = [
    *(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 10.0, 100.0, 1000.0, 1e30, 3e38, _INF, 1e-45, 1e-39),
    *(16777216.0, 16777217.0, 33554432.0, 2.0**53 + 1, 2.0**53),
]
SPECIAL = [*_SPECIAL, *(-value for value in _SPECIAL), _NAN]
SPECIAL_64 = [5e-324, -5e-324, 1e-310, 1.7e308, -1.7e308]


@pytest.mark.parametrize("name", sorted(WITHOUT_NUMPY))
@every_width
def test_special_values_without_numpy_are_the_mathematical_limits(name: str, width: int) -> None:
    with np.errstate(over="ignore"):
        x, want = (np.array(column, FLOAT[width]) for column in WITHOUT_NUMPY[name])
    got = evaluate(name, x, width=width)
    np.testing.assert_array_equal(got, want)
    known = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(want[known]))


@every_numpy_function
@every_width
@pytest.mark.parametrize("lanes", [0, 1], ids=["vector", "scalar"])
def test_special_values_are_numpys(name: str, width: int, lanes: int) -> None:
    values = np.array(SPECIAL + (SPECIAL_64 if width == 64 else []), FLOAT[width])
    grid = [values]
    if name in BINARY:
        grid = [array.ravel() for array in np.meshgrid(values, values)]
    got = evaluate(name, *grid, width=width, lanes=lanes or LANES[width])
    with np.errstate(all="ignore"):
        want = reference(name, *grid).astype(FLOAT[width])
        # NumPy's own error in float64 is not ours to judge here.
        close = np.abs(got - want) <= 8 * last_place(want.astype(np.float64), width)
    same = (np.isnan(got) & np.isnan(want)) | (got == want) | close
    signs = np.isnan(want) | (np.signbit(got) == np.signbit(want))
    wrong = np.flatnonzero(~(same & signs))
    assert not wrong.size, [(*(a[i] for a in grid), got[i], want[i]) for i in wrong[:5]]


@every_function
@every_width
def test_a_scalar_has_the_bits_of_a_lane(name: str, width: int) -> None:
    drawn = [array[:2000] for array in arguments(name, width, 400)]
    vector = evaluate(name, *drawn, width=width)
    scalar = evaluate(name, *drawn, width=width, lanes=1)
    np.testing.assert_array_equal(vector, scalar)


@pytest.mark.parametrize("name", ["sin", "cos", "tan", "lgamma", "digamma"])
@every_width
def test_a_backend_without_branches_gives_the_same(name: str, width: int) -> None:
    x = samples(width, 300, 5)
    branching, selecting = (evaluate(name, x, width=width, ops=o) for o in (LlvmOps, WithoutBranch))
    np.testing.assert_array_equal(branching, selecting)


ODD = ["sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "erfinv"]


@pytest.mark.parametrize("name", ODD)
@every_width
def test_odd_functions_are_odd_to_the_last_bit(name: str, width: int) -> None:
    x = samples(width, 1000, 6)
    np.testing.assert_array_equal(evaluate(name, -x, width=width), -evaluate(name, x, width=width))


@every_width
def test_powers_and_logarithms_with_an_exact_result_have_it(width: int) -> None:
    exponents = np.arange(-149 if width == 32 else -1074, 128 if width == 32 else 1024)
    powers = np.ldexp(1.0, exponents)
    np.testing.assert_array_equal(evaluate("exp2", exponents, width=width), powers)
    np.testing.assert_array_equal(evaluate("log2", powers, width=width), exponents)
    two = np.full(exponents.size, 2.0)
    np.testing.assert_array_equal(evaluate("pow", two, exponents, width=width), powers)
    tens = np.arange(11 if width == 32 else 23)  # exact in the working type
    np.testing.assert_array_equal(evaluate("log10", 10.0**tens, width=width), tens)
    pairs = [(b, e) for b, e in itertools.product(range(2, 60), range(7)) if b**e < 2**24]
    bases, exponents = (np.array(column, float) for column in zip(*pairs, strict=True))
    got = evaluate("pow", -bases, exponents, width=width)
    np.testing.assert_array_equal(got, (-bases) ** exponents)


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sigmoid", "atan", "log", "asinh"])
def test_monotone_functions_do_not_step_back_by_more_than_their_error(name: str) -> None:
    x = np.sort(np.abs(samples(32, 5000, 7)))
    steps = np.diff(np.minimum(evaluate(name, x).astype(np.float64), 2.0**128))
    slack = vecmath.ULP[name, 32] * last_place(reference(name, x[:-1]), 32)
    assert np.all(steps >= -slack)
