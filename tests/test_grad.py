"""Gradients: every row of the table against central differences, and what mo.grad and backward do.

A row of the table without a case here fails.
"""

from __future__ import annotations

import importlib
import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import metaop as mo
from metaop import indexing, reference
from metaop.errors import user_site
from metaop.graph import (
    CONVERSIONS,
    OPERATORS,
    REDUCTIONS,
    Apply,
    Elementwise,
    Escape,
    Piece,
    RandomBits,
    Reindex,
    ReindexReduce,
)
from metaop.index import conjunction
from tests.helpers import numeric_gradient, python_value
from tests.strategies import compiled, index_function, index_maps, reads_of_inputs

rules = importlib.import_module("metaop.grad")  # metaop.grad is also the function
rng = np.random.default_rng(0)


def variable(data: Any, dtype: str = "float64") -> mo.Var:
    return mo.array(np.asarray(data, dtype), requires_grad=np.dtype(dtype).kind == "f")


def gradient(y: mo.Var, *vs: mo.Var, weights: Any = None) -> list[np.ndarray]:
    start = None if weights is None else mo.array(np.asarray(weights, y.dtype.name))
    return [python_value(g) for g in mo.grad(y, list(vs), start)]


def close(got: Any, want: Any, rtol: float = 1e-6, atol: float = 1e-7) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


# ------------------------------------------------------------------------ elementwise operators

ANY = [-1.7, -0.6, -0.1, 0.3, 0.8, 2.1]
INSIDE = [-0.8, -0.3, 0.1, 0.6]
POSITIVE = [0.2, 0.7, 1.5, 4.0]
PAIRS = ([-1.7, -0.6, 0.3, 0.8, 2.1, -2.0], [0.9, -1.4, 1.2, -0.5, 0.7, -3.1])
INTEGERS = ([-7, 5, 3, -2], [2, 3, 1, 2])

# op -> points of each operand, dtype if not float64, and how many derivatives are compared
CASES: dict[str, tuple[tuple[Any, ...], int]] = {
    **dict.fromkeys(
        (
            "neg copy again barrier exp exp2 expm1 sin cos atan sinh cosh tanh asinh sigmoid erf "
            "erfc abs"
        ).split(),
        ((ANY,), 3),
    ),
    **dict.fromkeys("sqrt log log2 log10".split(), ((POSITIVE,), 3)),
    **dict.fromkeys("asin acos atanh tan erfinv".split(), ((INSIDE,), 3)),
    **dict.fromkeys("lgamma digamma".split(), (([-1.7, -0.6, 0.3, 0.8, 2.1, 6.5],), 3)),
    "log1p": (([-0.6, -0.2, 0.4, 2.0],), 3),
    "acosh": (([1.3, 2.0, 3.5],), 3),
    **dict.fromkeys("add sub mul div atan2 hypot".split(), (PAIRS, 3)),
    **dict.fromkeys("maximum minimum fmax fmin copysign".split(), (PAIRS, 3)),
    "mod": (([5.3, -5.3, 5.3, -5.3], [2.1, 2.1, -2.1, -2.1]), 2),
    "pow": (([0.3, 0.8, 2.1, 1.4], [0.9, -1.4, 1.2, 3.0]), 3),
    "where": (([True, False, True], [0.3, 0.8, 2.1], [1.0, -2.0, 0.5]), 2),
    "cast": (([0.5, -1.25, 3.0],), 2),
    **dict.fromkeys(
        "sign floor ceil round trunc isnan isinf isfinite bitcast".split(), ((ANY,), 1)
    ),
    **dict.fromkeys("lt le gt ge eq ne".split(), (PAIRS, 1)),
    "floordiv": (([5.3, -5.3, 5.3, -5.3], [2.1, 2.1, -2.1, -2.1]), 1),
    **dict.fromkeys("truncdiv truncmod bitand bitor bitxor shl shr".split(), (INTEGERS, 0)),
    "invert": ((INTEGERS[0],), 0),
    "logical_not": (([True, False],), 0),
    **{op: (([True, False], [True, True]), 0) for op in (
        "logical_and logical_or logical_xor"
    ).split()},
}  # fmt: skip


def apply(op: str, *vars: mo.Var) -> mo.Var:
    if op == "cast":
        return mo.astype(vars[0], "float64")
    dtype = mo.int64 if op == "bitcast" else None
    return mo.Var._of(Elementwise(op, *(v._node for v in vars), dtype=dtype))


def derivative(op: str, orders: tuple[int, ...], arrays: list[np.ndarray]) -> np.ndarray:
    """The partial derivative of op in the given operands, one after the other, by what twice its
    results gives: a rule that drops the gradient it gets would be right for the plain sum."""
    vars_ = [mo.array(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y = apply(op, *vars_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mo.UnreachedGradientWarning)
        for k in orders:
            y = mo.grad((y * 2).sum(), vars_[k]) / 2 if y.requires_grad else mo.zeros_like(y)
    return python_value(y)


def test_every_operator_has_a_gradient_rule_and_a_case() -> None:
    assert set(rules.ELEMENTWISE) == set(OPERATORS) | set(CONVERSIONS)
    assert set(CASES) == set(rules.ELEMENTWISE)


@pytest.mark.parametrize("op", list(rules.ELEMENTWISE))
def test_derivatives_of_an_operator_are_central_differences(op: str) -> None:
    points, order = CASES[op]
    arrays = [np.asarray(p) for p in points]
    operands = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    if not order:
        assert not operands
        y = apply(op, *(mo.array(a) for a in arrays))
        assert not y.dtype.is_float and not y.requires_grad
        return
    h = 1e-5
    for orders in itertools.chain(*(itertools.product(operands, repeat=n) for n in range(order))):
        for k in operands:
            got = derivative(op, (*orders, k), arrays)
            step = [a + h * (j == k) if j in operands else a for j, a in enumerate(arrays)]
            back = [a - h * (j == k) if j in operands else a for j, a in enumerate(arrays)]
            if orders:
                high, low = derivative(op, orders, step), derivative(op, orders, back)
            else:
                dtype = "float64" if op == "cast" else "int64" if op == "bitcast" else None
                high, low = (reference.elementwise(op, *a, dtype=dtype) for a in (step, back))
            if high.dtype.kind != "f":
                assert not got.any()
                continue
            close(got, (high - low) / (2 * h), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("op", ["exp", "div", "pow", "maximum", "where"])
def test_machine_code_gives_the_same_gradients(op: str) -> None:
    arrays = [np.asarray(p) for p in CASES[op][0]]
    vars_ = [mo.array(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    floats = [v for v in vars_ if v.requires_grad]
    for g in mo.grad(apply(op, *vars_).sum(), floats):
        printed = python_value(g)
        close(g.numpy(), printed, rtol=1e-13)


@pytest.mark.parametrize("order", range(1, 7))
def test_derivatives_of_whole_powers_end_in_zeros_also_at_zero(order: int) -> None:
    """The factor x**(b-1) was formed where b had become 0: the fifth derivative of x**3 at 0 was
    0 * inf = NaN."""
    x = variable([0.0, -1.5, 2.0])
    y = x**3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mo.UnreachedGradientWarning)
        for _ in range(order):
            y = mo.grad(y.sum(), x)
    want = {1: 3 * x.numpy() ** 2, 2: 6 * x.numpy(), 3: np.full(3, 6.0)}.get(order, np.zeros(3))
    np.testing.assert_array_equal(python_value(y), want)


def test_mixed_derivative_of_a_power_is_right_where_the_exponent_is_zero() -> None:
    x, p = variable([1.5, 2.0]), variable([0.0, 0.0])
    dx = mo.grad((x**p).sum(), x)
    close(python_value(mo.grad(dx.sum(), p)), 1 / x.numpy())


def test_the_gradient_of_a_root_is_the_one_of_numpy_at_the_edges() -> None:
    x = variable([0.0, np.inf, 4.0])
    np.testing.assert_array_equal(*gradient(mo.sqrt(x).sum(), x), [np.inf, 0.0, 0.25])


# ------------------------------------------------------------------------------------ node kinds


def _callback() -> tuple[Any, list[np.ndarray]]:
    def build(x: mo.Var) -> mo.Var:
        def backward(node: Escape, g: Any) -> tuple[Any]:
            return (rules.mul(g, rules.times(node.inputs[0], 2.0)),)

        node = Escape("square", np.square, x.shape, x.dtype, x._node, gradient=backward)
        return mo.Var._of(node)

    return build, [np.array([0.5, -2.0, 3.0])]


def _two_pieces() -> tuple[Any, list[np.ndarray]]:
    def build(x: mo.Var, y: mo.Var) -> mo.Var:
        first = Piece(0, (("sub", 2, ("i", 0)),), ("lt", ("i", 0), 2))
        rest = Piece(1, (("floordiv", ("i", 0), 2),))
        return mo.Var._of(Reindex((7,), (first, rest), x._node, y._node, fill=3.0))

    return build, [rng.normal(size=3), rng.normal(size=3)]


@mo.kernel
def square_of_half(i: Any, x: Any) -> Any:
    """A loop over a value: a function of numbers that is part of a kernel."""
    value = x[i]
    while value > 1:
        value = value / 2
    return value * x[i]


KINDS: dict[type, tuple[Any, list[np.ndarray]]] = {
    Elementwise: (lambda x, y: mo.Var._of(Elementwise("mul", x._node, y._node)),
                  [rng.normal(size=4), rng.normal(size=4)]),
    Reindex: _two_pieces(),
    ReindexReduce: (lambda x: x.reindex_reduce("add", (3,), lambda i, j: (2 * i + j - 1,)),
                    [rng.normal(size=(3, 2))]),
    Escape: _callback(),
    Apply: (square_of_half, [np.array([-0.7, 0.4, 1.7, 5.3])]),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(rules.TABLE), ids=lambda kind: kind.__name__)
def test_gradient_of_a_kind_of_node_is_central_differences(kind: type) -> None:
    if kind is RandomBits:
        bits = mo.Var._of(RandomBits((3,), mo.array([1, 2], "uint32")._node,
                                     mo.array(0, "uint32")._node))  # fmt: skip
        assert not bits.dtype.is_float and rules.TABLE[kind](bits._node, None) == (None, None)
        return
    build, arrays = KINDS[kind]
    vars_ = [variable(a) for a in arrays]
    y = build(*vars_)
    assert type(y._node) is kind
    weights = rng.normal(size=y.shape)

    def value(*operands: np.ndarray) -> float:
        return float((python_value(build(*map(mo.array, operands))) * weights).sum())

    for got, want in zip(gradient(y, *vars_, weights=weights), numeric_gradient(value, arrays)):
        close(got, want)


def test_a_host_callback_without_a_gradient_says_so() -> None:
    x = variable([1.0])
    y = mo.Var._of(Escape("lookup", np.copy, (1,), mo.float64, x._node))
    with pytest.raises(mo.DTypeError, match="lookup has no gradient"):
        mo.grad(y, x)


# ------------------------------------------------------------------------------------ reductions

WRITES: dict[str, tuple[tuple[int, ...], Any, Any]] = {
    "plain": ((3,), lambda i, j: (i,), None),
    "everything": ((), lambda i, j: (), None),
    "transposed": ((4, 3), lambda i, j: (j, i), None),
    "overlapping": ((6,), lambda i, j: (i + j,), None),
    "strided": ((8,), lambda i, j: (2 * i + j,), None),
    "partly outside": ((4,), lambda i, j: (2 * i - j + 1,), None),
    "masked": ((3,), lambda i, j: (i,), lambda i, j: i != j),
    "through an input": ((3,), "rows", None),
}
ROWS = np.array([[0, 2, 2, 1], [2, 0, 5, 2], [1, 1, 0, 0]])


def reduced(op: str, write: str, x: Any) -> Any:
    """The reduction of a Var by metaop, or of an ndarray by the reference."""
    shape, index, where = WRITES[write]
    if isinstance(x, mo.Var):
        rows = mo.array(ROWS)
        return x.reindex_reduce(op, shape, (lambda i, j: rows) if index == "rows" else index, where)
    through = (lambda i, j: (ROWS[i, j],)) if index == "rows" else index
    return reference.reindex_reduce(op, x, shape, through, where)


def test_every_reduction_with_a_gradient_is_tested() -> None:
    assert set(rules._REDUCTIONS) == {"add", "maximum", "minimum", "multiply"}
    assert set(rules._REDUCTIONS) < set(REDUCTIONS)


@pytest.mark.parametrize("write", list(WRITES))
@pytest.mark.parametrize("op", list(rules._REDUCTIONS))
def test_first_and_second_derivatives_of_a_reduction(op: str, write: str) -> None:
    x = rng.permutation(12).reshape(3, 4) / 5 - 1.3
    weights = rng.normal(size=WRITES[write][0])
    direction = rng.normal(size=x.shape)
    used = np.isfinite(reduced(op, write, x))  # nothing was written elsewhere

    def value(a: np.ndarray) -> float:
        return float(np.where(used, reduced(op, write, a) * weights, 0).sum())

    def first(a: np.ndarray) -> np.ndarray:
        v = variable(a)
        return gradient(reduced(op, write, v), v, weights=weights)[0]

    close(first(x), numeric_gradient(value, [x])[0])
    v = variable(x)
    (g,) = mo.grad(reduced(op, write, v), [v], mo.array(weights))
    if op == "multiply" and write != "transposed":  # one factor each: linear
        (second,) = gradient((g * mo.array(direction)).sum(), v)
        close(second, numeric_gradient(lambda a: float((first(a) * direction).sum()), [x])[0])


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
@pytest.mark.parametrize("write", ["plain", "everything", "overlapping", "through an input"])
def test_a_product_with_zeros_has_right_first_and_second_derivatives(
    write: str, zeros: int
) -> None:
    """The Hessian lost its entries between the zero factor and the others where the product was
    divided by the factor (a write through an input)."""
    x = rng.normal(size=(3, 4)) + 2
    x.reshape(-1)[[0, 1, 3][:zeros]] = 0
    weights = rng.normal(size=WRITES[write][0])

    def value(a: np.ndarray) -> float:
        return float((reduced("multiply", write, a) * weights).sum())

    v = variable(x)
    (g,) = mo.grad(reduced("multiply", write, v), [v], mo.array(weights))
    close(python_value(g), numeric_gradient(value, [x])[0], atol=1e-6)
    hessian = np.stack([gradient(g.reshape(-1)[k], v)[0] for k in (0, 1, 2, 7)])
    rows = []
    h = 1e-3  # a product is linear in every factor: differences of it are exact
    for k in (0, 1, 2, 7):

        def slope(a: np.ndarray, k: int = k) -> float:
            step = np.zeros((3, 4))
            step.reshape(-1)[k] = h
            return (value(a + step) - value(a - step)) / (2 * h)

        rows.append(numeric_gradient(slope, [x], h)[0])
    close(hessian, np.stack(rows), atol=1e-6)


def test_a_long_product_has_the_gradient_of_all_its_factors() -> None:
    x = 1 + 0.1 * rng.normal(size=200)
    v = variable(x)
    close(*gradient(v.prod(), v), x.prod() / x, rtol=1e-10)
    x[[17]] = 0
    v = variable(x)
    want = np.zeros(200)
    want[17] = np.delete(x, 17).prod()
    close(*gradient(v.prod(), v), want, rtol=1e-10)


# -------------------------------------------------------------------------------------- third

THIRD = {
    "x**3": (lambda x: x**3, lambda x: 6 + 0 * x),
    "exp": (mo.exp, np.exp),
    "sin": (mo.sin, lambda x: -np.cos(x)),
    "tanh": (mo.tanh, lambda x: (1 - np.tanh(x) ** 2) * (6 * np.tanh(x) ** 2 - 2)),
    "sum of squares times x": (lambda x: (x * x).sum() * x, None),
    "product": (lambda x: x.prod() * x, None),
    "matmul": (lambda x: mo.matmul(x[None], mo.matmul(x[:, None], x[None] * x)), None),
    "sigmoid": (mo.sigmoid, None),
    "softmax": (lambda x: mo.exp(x) / mo.exp(x).sum(), None),
}


@pytest.mark.parametrize("name", list(THIRD))
def test_third_derivatives(name: str) -> None:
    f, formula = THIRD[name]
    point = np.array([0.3, -0.7, 1.2])
    w = [rng.normal(size=3) for _ in range(3)]

    def second(a: np.ndarray) -> mo.Var:
        x = variable(a)
        y = f(x)
        g = mo.grad(y, x, mo.array(np.ones(y.shape)))
        return mo.grad((g * mo.array(w[0])).sum(), x), x

    g, x = second(point)
    (third,) = gradient((g * mo.array(w[1])).sum(), x)
    if formula is not None:
        close(third, formula(point) * w[0] * w[1])
    close(
        third,
        numeric_gradient(lambda a: float((python_value(second(a)[0]) * w[1]).sum()), [point])[0],
        rtol=1e-5,
    )


# -------------------------------------------------------------------------------- adjoint identity


@settings(max_examples=150, deadline=None)
@given(index_maps())
def test_reindex_and_its_gradient_are_adjoint(case: Any) -> None:
    """<reindex x, y> == <x, reindex_reduce y>, and both are the loops that define them."""
    x, y = rng.normal(size=case.source), rng.normal(size=case.shape)
    v = variable(x)
    inputs = [mo.array(a)._node for a in case.inputs]
    out = mo.Var._of(Reindex(case.shape, case.pieces, v._node, *inputs))
    want = reference.reindex(
        [x],
        case.shape,
        [(0, *index_function(p.indices, p.condition, case.inputs)) for p in case.pieces],
    )
    np.testing.assert_array_equal(python_value(out), want)
    (back,) = gradient(out, v, weights=y)
    assert math.isclose(
        float((want * y).sum()), float((x * back).sum()), rel_tol=1e-9, abs_tol=1e-9
    )
    scattered = np.zeros(case.source)
    earlier: Any = ("true",)
    for piece in case.pieces:
        condition = conjunction(earlier, piece.condition)
        index, holds = index_function(piece.indices, condition, case.inputs)
        scattered += reference.reindex_reduce("add", y, case.source, index, holds)
        earlier = conjunction(earlier, ("not", piece.condition))
    close(back, scattered, rtol=1e-12, atol=1e-12)
    if compiled(case):
        np.testing.assert_array_equal(out.numpy(), want)
        close(mo.grad(out, v, mo.array(y)).numpy(), scattered, rtol=1e-12, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(index_maps(pieces=1))
def test_reindex_reduce_and_its_gradient_are_adjoint(case: Any) -> None:
    """The other way round: case.shape is written into case.source."""
    y, x = rng.normal(size=case.shape), rng.normal(size=case.source)
    (piece,) = case.pieces
    v = variable(y)
    inputs = [mo.array(a)._node for a in case.inputs]
    node = ReindexReduce(
        "add", case.source, piece.indices, v._node, *inputs, condition=piece.condition
    )
    out = mo.Var._of(node)
    index, holds = index_function(piece.indices, piece.condition, case.inputs)
    want = reference.reindex_reduce("add", y, case.source, index, holds)
    close(python_value(out), want, rtol=1e-12, atol=1e-12)
    (back,) = gradient(out, v, weights=x)
    close(float((want * x).sum()), float((y * back).sum()), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(back, reference.reindex([x], case.shape, [(0, index, holds)]))
    assert set(reads_of_inputs(piece)) <= set(range(1, len(inputs) + 1))


# ------------------------------------------------------------------------------------------ ties


@pytest.mark.parametrize("name", ["amax", "amin", "max", "min"])
def test_equal_extremes_over_everything_share_the_gradient(name: str) -> None:
    x = variable([[2.0, 2.0, 1.0], [1.0, 2.0, 1.0]])
    winner = x.numpy() == (2.0 if "max" in name else 1.0)
    close(*gradient(getattr(x, name)(), x), winner / winner.sum())


@pytest.mark.parametrize("name", ["max", "min"])
def test_over_an_axis_the_first_of_equal_extremes_takes_the_gradient(name: str) -> None:
    x = variable([[2.0, 2.0, 1.0, 1.0], [1.0, 2.0, 2.0, 1.0]])
    want = {"max": [[1, 0, 0, 0], [0, 1, 0, 0]], "min": [[0, 0, 1, 0], [1, 0, 0, 0]]}[name]
    np.testing.assert_array_equal(*gradient(getattr(x, name)(1).sum(), x), want)


@pytest.mark.parametrize("name", ["amax", "amin"])
def test_over_an_axis_amax_and_amin_share(name: str) -> None:
    x = variable([[2.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    want = {"amax": [[0.5, 0.5, 0], [1 / 3] * 3], "amin": [[0, 0, 1], [1 / 3] * 3]}[name]
    close(*gradient(getattr(x, name)(axis=1).sum(), x), want)


@pytest.mark.parametrize("f", [mo.maximum, mo.minimum])
def test_equal_operands_of_maximum_and_minimum_share_the_gradient(f: Any) -> None:
    a, b = variable([1.0, 2.0, 3.0]), variable([2.0, 2.0, 2.0])
    da, db = gradient(f(a, b).sum(), a, b)
    np.testing.assert_array_equal(da + db, 1.0)
    assert da[1] == db[1] == 0.5


def test_max_pooling_gives_the_gradient_to_the_first_of_equal_maxima() -> None:
    x = variable(np.ones((1, 1, 4, 4)))
    (g,) = gradient(mo.max_pool2d(x, 2).sum(), x)
    np.testing.assert_array_equal(g[0, 0], [[1, 0, 1, 0], [0] * 4] * 2)
    x = variable(np.zeros((1, 1, 3, 3)))
    (g,) = gradient(mo.max_pool2d(x, 3, stride=1, padding=1).sum(), x)
    assert g.sum() == 9 and g[0, 0, 0, 0] == 4


def test_where_written_as_relu_has_no_gradient_at_zero() -> None:
    x = variable([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(*gradient(mo.where(x <= 0, 0.0, x).sum(), x), [0, 0, 1])


def test_the_winner_may_be_nan() -> None:
    x = variable([1.0, np.nan, 3.0])
    np.testing.assert_array_equal(*gradient(x.max(0), x), [0, 1, 0])


def test_nan_in_the_branch_not_chosen_leaves_gradients_clean() -> None:
    x = variable([-1.0, 0.0, 4.0])
    safe = mo.where(x > 0, x, 1.0)
    (g,) = gradient(mo.where(x > 0, mo.sqrt(safe), 0.0).sum(), x)
    np.testing.assert_array_equal(g, [0, 0, 0.25])
    a, b = variable([1.0, 2.0]), variable([np.nan, np.inf])
    da, db = gradient(mo.where(mo.array([True, True]), a * 3, b).sum(), a, b)
    np.testing.assert_array_equal([da, db], [[3, 3], [0, 0]])
    (g,) = gradient(mo.where(x > 0, 0.0, x * mo.array([1.0, np.nan, np.nan])).sum(), x)
    assert (g[0] == 1 and g[2] == 0) or np.isnan(g[2])


def test_a_masked_reindex_of_nan_leaves_gradients_clean() -> None:
    x = variable([np.nan, 1.0, 2.0])
    (g,) = gradient((x.reindex((3,), lambda i: (i,), where=lambda i: i > 0) ** 2).sum(), x)
    np.testing.assert_array_equal(g, [0, 2, 4])


# ------------------------------------------------------------------------------------- movement

INDEX = np.array([2, 0, 2, 2, 1])


def _assigned(x: Any, v: Any) -> Any:
    y = mo.array(x) if isinstance(x, np.ndarray) else x * 1.0
    y[1:, ::2] = v
    return y


def _assigned_by_index(x: Any, v: Any) -> Any:
    y = x * 1.0
    y[[0, 2, 0]] = v[:, None]
    return y


MOVEMENT = {
    "gather with repeats": (lambda x: x[mo.array(INDEX)], [(3, 4)]),
    "take": (lambda x: indexing.take(x, INDEX, axis=1), [(2, 3)]),
    "take_along_axis": (
        lambda x: indexing.take_along_axis(x, mo.array(np.array([[0, 0, 2], [1, 1, 0]])), 1),
        [(2, 3)],
    ),
    "negative steps": (lambda x: x[::-2, 1:], [(4, 3)]),
    "assignment of a slice": (_assigned, [(3, 4), (2, 2)]),
    "assignment by repeated indices": (_assigned_by_index, [(3, 2), (3,)]),
    "concat": (lambda x, y: mo.concat([x, y, x], 1), [(2, 3), (2, 1)]),
    "stack": (lambda x, y: mo.stack([x, y], 1), [(2, 3), (2, 3)]),
    "pad with a number": (lambda x: mo.pad(x, ((1, 2), (0, 1)), constant_values=2.0), [(2, 3)]),
    "pad edge": (lambda x: mo.pad(x, ((1, 2), (0, 1)), "edge"), [(2, 3)]),
    "pad reflect": (lambda x: mo.pad(x, ((1, 1), (2, 1)), "reflect"), [(2, 3)]),
    "pad wrap": (lambda x: mo.pad(x, ((3, 2), (4, 1)), "wrap"), [(2, 3)]),
    "flip": (lambda x: mo.flip(x, 0), [(3, 2)]),
    "roll": (lambda x: mo.roll(x, 2, 0), [(3, 2)]),
    "broadcast": (lambda x: mo.broadcast_to(x, (4, 2, 3)), [(2, 1)]),
    "tile": (lambda x: mo.tile(x, (2, 3)), [(2, 2)]),
    "repeat": (lambda x: mo.repeat(x, 3, 1), [(2, 2)]),
    "transpose": (lambda x: x.transpose(2, 0, 1), [(2, 3, 2)]),
    "reshape": (lambda x: x.reshape(3, 4), [(2, 6)]),
    "diagonal": (lambda x: x.reindex((3,), lambda i: (i, i)), [(3, 3)]),
    "matmul": (mo.matmul, [(2, 3), (3, 2)]),
    "batched matmul": (mo.matmul, [(2, 1, 3), (3, 2)]),
    "convolution": (lambda x, w: mo.conv2d(x, w, 2, 1), [(1, 2, 4, 3), (2, 2, 2, 2)]),
    "mean": (lambda x: x.mean(1), [(2, 3)]),
    "variance": (lambda x: x.var(0), [(4, 2)]),
    "logsumexp": (lambda x: x.logsumexp(1), [(2, 3)]),
    "sum over no elements": (lambda x: x[2:].sum(0) + x[0], [(2, 3)]),
}


@pytest.mark.parametrize("name", list(MOVEMENT))
def test_gradient_of_a_movement_is_central_differences(name: str) -> None:
    f, shapes = MOVEMENT[name]
    arrays = [rng.normal(size=s) for s in shapes]
    vars_ = [variable(a) for a in arrays]
    y = f(*vars_)
    weights = rng.normal(size=y.shape)

    def value(*operands: np.ndarray) -> float:
        return float((python_value(f(*map(mo.array, operands))) * weights).sum())

    for got, want in zip(gradient(y, *vars_, weights=weights), numeric_gradient(value, arrays)):
        assert got.shape == want.shape
        close(got, want)


def test_the_gradient_of_a_cast_has_the_dtype_of_each_side() -> None:
    x = variable([1.0, 2.0], "float32")
    y = (x.astype("float64") * 3.0).astype("float32")
    g = mo.grad(y.sum(), x)
    assert g.dtype is mo.float32
    np.testing.assert_array_equal(python_value(g), [3, 3])


def test_no_gradient_passes_through_an_integer() -> None:
    x = variable([1.5, 2.5])
    y = x.astype("int64").astype("float64") * x
    np.testing.assert_array_equal(*gradient(y.sum(), x), [1, 2])
    n = mo.array([1, 2])
    with pytest.warns(mo.UnreachedGradientWarning):
        g = mo.grad((n * x).sum(), n)
    assert g.dtype is mo.int64 and not g.numpy().any()
    with pytest.raises(mo.DTypeError, match="only a float Var can require a gradient"):
        n.requires_grad = True


# ------------------------------------------------------------------------------- mo.grad, backward


def test_grad_returns_the_structure_that_it_was_given() -> None:
    a, b, c = variable(2.0), variable([3.0]), variable([[4.0]])
    loss = (a * b * c).sum()
    assert mo.grad(loss, a).shape == ()
    for structure in ([a, b], (a, b), {"a": a, "rest": [b, (c,)]}, [], {"none": ()}):
        result = mo.grad(loss, structure)
        assert type(result) is type(structure)
    result = mo.grad(loss, {"a": a, "rest": [b, (c,)]})
    assert result["a"].numpy() == 12 and result["rest"][1][0].numpy() == 6
    with pytest.raises(TypeError, match="expected Vars, got int"):
        mo.grad(loss, [a, 3])


def test_unreached_vars_get_zeros_and_one_warning_on_the_users_line() -> None:
    x, y, z = variable([1.0]), variable([1.0, 2.0]), variable(0.0, "float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = user_site().line + 1
        _, gy, gz = mo.grad(x.sum(), [x, y, z])
    (warning,) = caught
    assert warning.category is mo.UnreachedGradientWarning
    assert (warning.filename, warning.lineno) == (__file__, line)
    assert str(warning.message).startswith("2 of the Vars")
    assert gy.shape == (2,) and not gy.numpy().any() and gz.dtype is mo.float32


def test_a_loss_of_several_elements_needs_grad_outputs() -> None:
    x = variable([1.0, 2.0])
    with pytest.raises(mo.ShapeError, match=r"f64\[2\].*call .sum\(\) or pass grad_outputs="):
        mo.grad(x * 2, x)
    with pytest.raises(mo.ShapeError, match=r"call .sum\(\)"):
        (x * 2).backward()
    with pytest.raises(mo.ShapeError, match=r"the gradient is f64\[3\], the loss f64\[2\]"):
        mo.grad(x * 2, x, mo.array(np.ones(3)))
    np.testing.assert_array_equal(*gradient(x * 2, x, weights=[1, 10]), [2, 20])
    np.testing.assert_array_equal(*gradient((x * 2).sum().reshape(1, 1), x), [2, 2])


def test_an_integer_loss_is_refused() -> None:
    x = mo.array([1, 2])
    with pytest.raises(mo.DTypeError, match=r"the loss must be a float, it is i64\[\]"):
        mo.grad(x.sum(), x)
    with pytest.raises(mo.DTypeError, match="must be a float"):
        x.sum().backward()


def test_any_var_can_be_differentiated_by_also_in_the_middle() -> None:
    x = mo.array(np.array([1.0, 2.0]))  # data: requires_grad is False
    y = x * x
    z = y * 3.0
    loss = (z * y).sum()
    np.testing.assert_array_equal(*gradient(loss, x), 12 * x.numpy() ** 3)
    np.testing.assert_array_equal(*gradient(loss, y), 6 * x.numpy() ** 2)
    np.testing.assert_array_equal(*gradient(loss, loss), 1.0)


def test_a_loss_read_before_it_could_be_differentiated_says_so() -> None:
    """It gave zeros with a warning that the Var did not influence the loss."""
    x = mo.array(np.array([1.0, 2.0]))
    loss = (x * x).sum()
    loss.item()
    with pytest.raises(mo.StaleValueError, match=r"requires_grad = True first"):
        mo.grad(loss, x)


def test_reading_a_loss_that_requires_a_gradient_keeps_its_history() -> None:
    x = variable([1.0, 2.0])
    y = x * x
    assert y.numpy().tolist() == [1, 4]
    loss = (y * 2.0).sum()
    assert loss.item() == 10
    np.testing.assert_array_equal(*gradient(loss, x), [4, 8])


def test_backward_accumulates_and_zero_is_none() -> None:
    x = variable([1.0, 2.0])
    assert x.grad is None
    for count in (1, 2, 3):
        (x * x).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), count * 2 * x.numpy())
    assert isinstance(x.grad, mo.Var) and not x.grad.requires_grad


def test_backward_twice_names_the_line_of_the_first() -> None:
    x = variable([1.0])
    y = x * x
    loss = y.sum()
    line = user_site().line + 1
    loss.backward()
    with pytest.raises(
        mo.StaleValueError, match=rf"dropped at test_grad\.py:{line};.*retain_graph"
    ):
        loss.backward()
    with pytest.raises(mo.StaleValueError, match="dropped at"):
        mo.grad(loss, x)


def test_retain_graph_allows_a_second_backward() -> None:
    x = variable([3.0])
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.item() == 12
    with pytest.raises(mo.StaleValueError):
        loss.backward()


def test_grad_keeps_history_unless_told_otherwise() -> None:
    x = variable([3.0])
    loss = (x * x * x).sum()
    g = mo.grad(loss, x)
    assert mo.grad(g.sum(), x).item() == 18
    h = mo.grad(loss, x, retain_graph=False)
    assert not h.requires_grad and h.item() == 27
    with pytest.raises(mo.StaleValueError):
        mo.grad(loss, x)


def test_backward_of_something_without_leaves_says_so() -> None:
    with pytest.raises(mo.DTypeError, match="does not depend on anything that requires a gradient"):
        mo.array(1.0).backward()


def test_backward_with_a_gradient_of_the_losss_shape() -> None:
    x = variable([1.0, 2.0])
    (x * x).backward(np.array([1.0, 0.5]))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


def test_detach_and_no_grad_are_constants() -> None:
    x = variable([2.0])
    np.testing.assert_array_equal(*gradient((x.detach() * x).sum(), x), [2])
    with mo.no_grad():
        y = x * x
        assert not y.requires_grad
        with mo.enable_grad():
            z = x * x
    assert z.requires_grad
    np.testing.assert_array_equal(*gradient((y * x + z).sum(), x), [8])


def test_grad_modes_nest_decorate_and_survive_exceptions() -> None:
    assert mo.is_grad_enabled()

    @mo.no_grad()
    def inside(depth: int = 0) -> bool:
        return mo.is_grad_enabled() if depth == 2 else inside(depth + 1)

    assert inside() is False and mo.is_grad_enabled()

    @mo.enable_grad()
    def enabled() -> bool:
        return mo.is_grad_enabled()

    with mo.no_grad():
        assert enabled() is True and not mo.is_grad_enabled()
        with mo.set_grad_enabled(True):
            assert mo.is_grad_enabled()
        assert not mo.is_grad_enabled()
    with pytest.raises(KeyError), mo.no_grad(), mo.enable_grad():
        raise KeyError
    assert mo.is_grad_enabled()
    try:
        mo.set_grad_enabled(False)
        assert not mo.is_grad_enabled()
    finally:
        mo.set_grad_enabled(True)
    assert mo.is_grad_enabled()


def test_an_exception_in_a_decorated_function_restores_the_mode() -> None:
    @mo.no_grad()
    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert mo.is_grad_enabled()


def test_contributions_are_added_whatever_their_order() -> None:
    x = variable([0.5, -1.0])
    terms = [lambda: mo.exp(x), lambda: x * x, lambda: mo.sin(x), lambda: 3.0 * x]
    results = []
    for order in itertools.permutations(range(4)):
        total = terms[order[0]]()
        for k in order[1:]:
            total = total + terms[k]()
        results.append(gradient(total.sum(), x)[0])
    want = np.exp(x.numpy()) + 2 * x.numpy() + np.cos(x.numpy()) + 3
    for got in results:
        close(got, want, rtol=1e-14)


def test_a_value_used_many_times_gets_all_its_gradient() -> None:
    x = variable(1.0)
    y = x
    for _ in range(12):
        y = y + y
    assert gradient(y, x)[0] == 4096


# ----------------------------------------------------------------------------- overwritten values


def test_backward_through_an_overwritten_value_names_the_line_of_the_write() -> None:
    x = variable([1.0, 2.0])
    y = x * 2.0
    loss = (y * y).sum()
    line = user_site().line + 1
    y += 1.0
    with pytest.raises(mo.StaleValueError, match=rf"overwritten at test_grad\.py:{line}") as error:
        loss.backward()
    assert f"made at test_grad.py:{line - 3}" in str(error.value)
    with pytest.raises(mo.StaleValueError, match="write x = x"):
        mo.grad(loss, x)


def test_backward_that_needs_no_overwritten_value_works() -> None:
    x = variable([1.0, 2.0])
    y = x * 2.0
    loss = (y + 3.0).sum()
    y += 1.0
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


def test_a_weight_updated_after_the_forward_is_stale_for_its_gradient() -> None:
    w, x = variable([2.0]), mo.array(np.array([3.0]))
    loss = (w * w * x).sum()
    with mo.no_grad():
        line = user_site().line + 1
        w -= 0.1
    for ask in (loss.backward, lambda: mo.grad(loss, w)):
        with pytest.raises(mo.StaleValueError, match=rf"overwritten at test_grad\.py:{line}"):
            ask()
    assert mo.grad(loss, x).item() == 4  # the product w * w was recorded with the old w


def test_an_accumulator_is_differentiated_through_its_updates() -> None:
    x = variable([1.0, 2.0])
    total = mo.zeros(2, dtype="float64")
    for k in range(4):
        total += x * float(k)
    np.testing.assert_array_equal(*gradient(total.sum(), x), [6, 6])


def test_grad_outputs_made_from_a_value_that_was_overwritten_later_are_as_recorded() -> None:
    """The check for overwritten values looked into how grad_outputs had been made."""
    x, scale = variable([1.0, 2.0]), mo.array(np.array([2.0, 2.0]))
    y = x * x
    outputs = scale * 5.0
    scale += 1.0
    np.testing.assert_array_equal(python_value(mo.grad(y, x, outputs)), [20, 40])


def test_item_assignment_is_differentiated_on_both_sides() -> None:
    x, v = variable([1.0, 2.0, 3.0]), variable([5.0])
    y = x * x
    y[1] = v[0] * 2.0
    gx, gv = gradient((y * y).sum(), x, v)
    np.testing.assert_array_equal(gx, [4, 0, 108])
    np.testing.assert_array_equal(gv, [40])
