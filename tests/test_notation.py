"""Meta-operators in the three notations: the same values and gradients, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import reference
from metaop.graph import REDUCTIONS
from metaop.index import evaluate
from metaop.jittor_strings import parse
from tests.helpers import assert_value, numeric_gradient, python_value

rng = np.random.default_rng(1)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


# ------------------------------------------------------- the same operator in the three notations

N, H, W, C, K, R, S = 2, 5, 4, 2, 3, 3, 2
OH, OW = H - R + 1, W - S + 1


def convolution_python(x: mo.Var, w: mo.Var) -> mo.Var:
    shape = (N, OH, OW, K, R, S, C)
    windows = x.reindex(shape, lambda n, i, j, k, r, s, c: (n, i + r, j + s, c))
    return (windows * w.reindex(shape, lambda n, i, j, k, r, s, c: (r, s, c, k))).sum((4, 5, 6))


def convolution_strings(x: mo.Var, w: mo.Var) -> mo.Var:
    shape = [N, OH, OW, K, R, S, C]
    windows = x.reindex(shape, ["i0", "i1+i4", "i2+i5", "i6"])
    return (windows * w.reindex(shape, ["i4", "i5", "i6", "i3"])).sum((4, 5, 6))


def convolution_axes(x: mo.Var, w: mo.Var) -> mo.Var:
    n, i, j, k = mo.axes(N, OH, OW, K)
    r, s, c = mo.axes(R, S, C)
    return mo.sum(x[n, i + r, j + s, c] * w[r, s, c, k], over=(r, s, c))


def convolution_loops(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    out = np.zeros((N, OH, OW, K))
    for n, i, j, k, r, s, c in itertools.product(*map(range, (N, OH, OW, K, R, S, C))):
        out[n, i, j, k] += x[n, i + r, j + s, c] * w[r, s, c, k]
    return out


def matmul_python(a: mo.Var, b: mo.Var) -> mo.Var:
    left = a.reindex((3, 5, 4), lambda i, j, k: (i, k))
    return (left * b.reindex((3, 5, 4), lambda i, j, k: (k, j))).reindex_reduce(
        "add", (3, 5), lambda i, j, k: (i, j)
    )


def matmul_strings(a: mo.Var, b: mo.Var) -> mo.Var:
    product = a.reindex([3, 5, 4], ["i0", "i2"]) * b.reindex([3, 5, 4], ["i2", "i1"])
    return product.reindex_reduce("add", [3, 5], ["i0", "i1"])


def matmul_axes(a: mo.Var, b: mo.Var) -> mo.Var:
    i, j, k = mo.axes(3, 5, 4)
    return mo.sum(a[i, k] * b[k, j], over=k)


def pooling_axes(x: mo.Var) -> mo.Var:
    n, i, r = mo.axes(3, 3, 2)
    return mo.max(x[n, 2 * i + r], over=r)


def transpose_axes(x: mo.Var) -> mo.Var:
    i, j = mo.axes(4, 3)
    return x[j, i].array(i, j)


SAME = {
    "convolution": (
        (convolution_python, convolution_strings, convolution_axes),
        convolution_loops,
        [(N, H, W, C), (R, S, C, K)],
    ),
    "matmul": ((matmul_python, matmul_strings, matmul_axes), np.matmul, [(3, 4), (4, 5)]),
    "max pooling": (
        (
            lambda x: x.reindex((3, 3, 2), lambda n, i, r: (n, 2 * i + r)).max(-1),
            lambda x: x.reindex_reduce("maximum", [3, 3], ["i0", "i1/2"]),
            pooling_axes,
        ),
        lambda x: x.reshape(3, 3, 2).max(-1),
        [(3, 6)],
    ),
    "sum pooling": (
        (
            lambda x: x.reindex_reduce("add", (3, 3), lambda n, i: (n, i // 2)),
            lambda x: x.reindex_reduce("add", [3, 3], ["i0", "(i1-i1%2)/2"]),
            lambda x: mo.sum(x[(a := mo.axes(3, 3, 2))[0], 2 * a[1] + a[2]], over=a[2]),
        ),
        lambda x: x.reshape(3, 3, 2).sum(-1),
        [(3, 6)],
    ),
    "transposition": (
        (
            lambda x: x.reindex((4, 3), lambda i, j: (j, i)),
            lambda x: x.reindex(["xshape1", "xshape0"] and [4, 3], ["i1", "i0"]),
            transpose_axes,
        ),
        np.transpose,
        [(3, 4)],
    ),
}


@pytest.mark.parametrize("name", list(SAME))
def test_three_notations_give_the_values_and_gradients_of_the_loops(name: str) -> None:
    functions, loops, shapes = SAME[name]
    arrays = [draw(*s) for s in shapes]
    want = loops(*arrays)
    weights = draw(*want.shape)
    slopes = numeric_gradient(lambda *a: float((loops(*a) * weights).sum()), arrays, 1e-4)
    for function in functions:
        vars_ = [mo.array(a, requires_grad=True) for a in arrays]
        out = function(*vars_)
        gradients = mo.grad(out, vars_, mo.array(weights))
        for got, slope in zip(gradients, slopes):
            np.testing.assert_allclose(python_value(got), slope, rtol=1e-7, atol=1e-8)
        assert_value(out, want)


@pytest.mark.usefixtures("no_disk_cache")
def test_the_three_notations_record_the_same_kernels() -> None:
    """One compiled kernel serves them all: the notation leaves no trace."""
    x, w = mo.array(draw(N, H, W, C)), mo.array(draw(R, S, C, K))
    convolution_python(x, w).numpy()
    before = mo.stats().compiled
    convolution_strings(x, w).numpy()
    convolution_axes(x, w).numpy()
    assert mo.stats().compiled == before


# -------------------------------------------------------------------------------------- strings

C_ARITHMETIC = [
    ("i0-3", lambda i, j: i - 3),
    ("(i0-3)/2", lambda i, j: int((i - 3) / 2)),
    ("(i0-3)%2", lambda i, j: int(np.fmod(i - 3, 2))),
    ("-i0/2", lambda i, j: int(-i / 2)),
    ("i0*2+i1%3", lambda i, j: i * 2 + j % 3),
    ("min(i0,i1)+max(i0,2)", lambda i, j: min(i, j) + max(i, 2)),
    ("i0<2", lambda i, j: int(i < 2)),
    ("(i0<2)+(i1>=3)", lambda i, j: (i < 2) + (j >= 3)),
    ("i0<2 && i1!=1 || !(i0==i1)", lambda i, j: int((i < 2 and j != 1) or not (i == j))),
    ("!i0==0", lambda i, j: int((not i) == 0)),
    ("!i0", lambda i, j: int(not i)),
    ("i0 && i1", lambda i, j: int(bool(i) and bool(j))),
    ("(i0<2)&(i1<2)", lambda i, j: int(i < 2 and j < 2)),
    ("(i0<2)|(i1<2)", lambda i, j: int(i < 2 or j < 2)),
    ("xshape0-oshape1", lambda i, j: 10 - 4),
    ("i0 if i1<2 else i1", lambda i, j: i if j < 2 else j),
]  # fmt: skip


@pytest.mark.parametrize(("text", "f"), C_ARITHMETIC, ids=[t for t, _ in C_ARITHMETIC])
def test_a_string_means_what_it_means_in_c(text: str, f: Any) -> None:
    names = {"xshape0": 10, "oshape0": 5, "oshape1": 4}
    e = parse(text, 2, names)
    for i, j in itertools.product(range(5), range(4)):
        assert int(evaluate(e, [i, j])) == f(i, j), (i, j)
    x = np.arange(10.0)
    got = mo.array(x).reindex([5, 4], [text], fill=-1.0)
    want = reference.reindex([x], (5, 4), [(0, lambda i, j: (f(i, j),), None)], fill=-1.0)
    np.testing.assert_array_equal(python_value(got), want)


@pytest.mark.parametrize(
    "text", ["(i0-7)/2+3", "(i0-7)%2+1", "(i0-i1*2)/3+4", "(i0-i1*2)%3+2", "!i0==0", "i0 && i1"]
)
def test_machine_code_has_the_signs_of_c(text: str) -> None:
    """The printed kernel had `/` and `%%`: the first is a float in Python, the second no Python."""
    x = mo.array(np.arange(12.0))
    e = parse(text, 2)
    want = [[float(evaluate(e, [i, j])) for j in range(4)] for i in range(9)]
    assert_value(x.reindex([9, 4], [text]), want)


def test_overflow_conditions_and_value_are_jittors_names_of_where_and_fill() -> None:
    x = draw(4, 4)
    jittor = mo.array(x).reindex(
        [4, 4], ["i0", "i1"], overflow_value=-7.0, overflow_conditions=["i0>i1", "i1==3"]
    )
    ours = mo.array(x).reindex(
        (4, 4), lambda i, j: (i, j), fill=-7.0, where=lambda i, j: (i <= j) & (j != 3)
    )
    want = np.where(np.tril(np.ones((4, 4)), -1) + (np.arange(4) == 3), -7, x)
    np.testing.assert_array_equal(python_value(jittor), want)
    np.testing.assert_array_equal(python_value(ours), want)
    folded = mo.array(x).reindex_reduce("add", [4], ["i0"], overflow_conditions=["i0>i1"])
    np.testing.assert_allclose(python_value(folded), np.triu(x).sum(1))


def test_extras_are_read_in_strings() -> None:
    x, rows, columns = draw(5, 4), np.array([4, 0, 9]), np.array([[1, 3], [0, 0], [2, -1]])
    out = mo.array(x).reindex(
        [3, 2], ["@e0(i0)", "@e1(i0,i1)"], fill=3.0, extras=[mo.array(rows), mo.array(columns)]
    )
    want = reference.reindex(
        [x], (3, 2), [(0, lambda i, j: (rows[i], columns[i, j]), None)], fill=3.0
    )
    assert_value(out, want)


# ------------------------------------------------------------------------------------- lambdas


def test_an_integer_var_inside_an_index_is_read_at_the_loop_indices() -> None:
    x, rows = mo.array(draw(5, 3), requires_grad=True), np.array([4, 0, 9, -1])
    index = mo.array(rows)
    out = x.reindex((4, 3), lambda i, j: (index, j), fill=1.0)
    want = np.where((rows < 5)[:, None] & (rows >= 0)[:, None], x.numpy()[rows % 5], 1.0)
    assert_value(out, want)
    g = mo.grad(out.sum(), x)
    np.testing.assert_array_equal(python_value(g)[:, 0], [1, 0, 0, 0, 1])


def test_where_may_be_a_function_a_string_or_an_integer_var() -> None:
    x = draw(4)
    mask = mo.array(np.array([1, 0, 0, 2]))
    for where, keep in (
        (lambda i: i % 2 == 0, [1, 0, 1, 0]),
        ("i0%2", [0, 1, 0, 1]),
        (lambda i: mask, [1, 0, 0, 1]),
    ):
        out = mo.array(x).reindex((4,), lambda i: (i,), where=where)
        np.testing.assert_array_equal(python_value(out), np.where(keep, x, 0))


def test_outside_x_reads_the_fill_value_of_every_dtype() -> None:
    for dtype, fill in (("float32", -np.inf), ("float64", 2.5), ("int8", 7), ("bool", True)):
        x = np.ones(3).astype(dtype)
        out = mo.array(x).reindex((5,), lambda i: (i - 1,), fill=fill)
        assert out.dtype.name == dtype
        want = reference.reindex([x], (5,), [(0, lambda i: (i - 1,), None)], fill=fill)
        assert_value(out, want)


def test_a_read_outside_is_the_fill_value_although_its_offsets_are_those_of_a_reshape() -> None:
    """x[0, i0] of x[2, 1] was taken for a view of x, and read x[1, 0] for x[0, 1]."""
    x = mo.array(np.array([[1.0], [2.0]]))
    for source in (x, x * 1.0, x.sum(1, keepdims=True)):
        assert_value(source.reindex((2, 1), lambda i, j: (0, i), fill=-1.0), [[1.0], [-1.0]])


def test_a_fill_that_does_not_fit_is_refused() -> None:
    x = mo.array([1, 2])
    with pytest.raises(mo.DTypeError, match=r"fill 2.5 does not fit i64\[2\]"):
        x.reindex((3,), lambda i: (i,), fill=2.5)
    with pytest.raises(mo.DTypeError, match="fill must be a number"):
        x.reindex((3,), lambda i: (i,), fill="0")


@pytest.mark.parametrize(
    ("source", "shape", "index"),
    [
        ((), (3,), lambda i: ()),
        ((3,), (), lambda: (2,)),
        ((), (), lambda: ()),
        ((0,), (3,), lambda i: (i,)),
        ((3,), (0,), lambda i: (i,)),
        ((2, 0), (2, 2), lambda i, j: (i, j)),
        ((1, 1), (2, 2), lambda i, j: (0, 0)),
    ],
)
def test_0d_and_empty_shapes(source: Any, shape: Any, index: Any) -> None:
    x = draw(*source) if source else np.array(1.5)
    v = mo.array(x, requires_grad=True)
    out = v.reindex(shape, index, fill=9.0)
    want = reference.reindex([x], shape, [(0, lambda *i: index(*i), None)], fill=9.0)
    g = mo.grad(out.sum(), v)
    back = reference.reindex_reduce("add", np.ones(shape), source, lambda *i: index(*i))
    np.testing.assert_array_equal(python_value(g), back)
    assert_value(out, want)
    folded = mo.array(np.ones(shape)).reindex_reduce("multiply", source, index)
    np.testing.assert_array_equal(
        python_value(folded),
        reference.reindex_reduce("multiply", np.ones(shape), source, lambda *i: index(*i)),
    )


# -------------------------------------------------------------------------------- reindex_reduce

TARGETS = {
    "rows": ((3,), lambda i, j: (i,)),
    "diagonals": ((6,), lambda i, j: (i + j,)),
    "outside": ((2,), lambda i, j: (i - j,)),
    "through a Var": ((4,), None),
}
THROUGH = np.array([[0, 2, 2, 5], [3, 0, -1, 3], [1, 1, 2, 2]])


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("op", REDUCTIONS)
def test_reindex_reduce_is_its_loop(op: str, target: str) -> None:
    shape, index = TARGETS[target]
    kinds = ["int64", "bool"] if op.startswith(("logical", "bitwise")) else ["float64", "int32"]
    through = mo.array(THROUGH)
    for dtype in kinds:
        y = rng.integers(0, 7, (3, 4)).astype(dtype)
        out = mo.array(y).reindex_reduce(op, shape, index or (lambda i, j: through))
        want = reference.reindex_reduce(op, y, shape, index or (lambda i, j: (THROUGH[i, j],)))
        np.testing.assert_array_equal(python_value(out), want)
        if dtype == kinds[0]:
            np.testing.assert_array_equal(out.numpy(), want)


def test_jittors_names_of_reductions() -> None:
    y = mo.array(np.array([[1.0, 2.0], [3.0, 4.0]]))
    for name, want in (("sum", [3, 7]), ("mul", [2, 12]), ("max", [2, 4]), ("min", [1, 3])):
        np.testing.assert_array_equal(python_value(y.reindex_reduce(name, [2], ["i0"])), want)
    with pytest.raises(ValueError, match=r"op must be one of add, multiply, .*not 'mean'"):
        y.reindex_reduce("mean", [2], ["i0"])
    with pytest.raises(mo.DTypeError, match="bitwise_and: not defined for f64"):
        y.reindex_reduce("bitwise_and", [2], ["i0"])


# ------------------------------------------------------------------------------ index notation


def test_an_expression_over_axes_computes_with_vars_and_numbers() -> None:
    a, b = draw(3, 4), draw(4)
    i, j = mo.axes(3, 4)
    x, y = mo.array(a), mo.array(b)
    pairs = [
        (x[i, j] * y[j] + 1.0, a * b + 1),
        (2.0 - x[i, j] / 4.0, 2 - a / 4),
        (-(abs(x[i, j]) ** 2.0), -(np.abs(a) ** 2)),
        (x[i, j] - y[j] * x[i, j], a - b * a),
        (3.0 // (x[i, j] + 10.0) + x[i, j] % 2.0, 3 // (a + 10) + a % 2),
        ((x[i, j] < y[j]), a < b),
        (mo.array(np.float64(2)) * x[i, j], 2 * a),
    ]
    for e, want in pairs:
        np.testing.assert_allclose(python_value(e.array(i, j)), want)
        np.testing.assert_allclose(python_value(e.array(j, i)), np.transpose(want))


def test_reductions_over_axes() -> None:
    a = draw(3, 4, 2)
    i, j, k = mo.axes(3, 4, 2)
    e = mo.array(a)[i, j, k]
    for f, g in ((mo.sum, np.sum), (mo.max, np.max), (mo.min, np.min)):
        np.testing.assert_allclose(python_value(f(e, over=(i, k))), g(a, axis=(0, 2)))
        np.testing.assert_allclose(python_value(f(e, over=j)), g(a, axis=1))
    flags = mo.array(a > 0)[i, j, k]
    np.testing.assert_array_equal(python_value(mo.all(flags, over=j)), (a > 0).all(1))
    np.testing.assert_array_equal(python_value(mo.any(flags, over=(j, k))), (a > 0).any((1, 2)))


def test_a_product_over_axes() -> None:
    """mo.prod was reduction.prod, which knows no axes, because its import came after names'."""
    a = draw(3, 4)
    i, j = mo.axes(3, 4)
    np.testing.assert_allclose(python_value(mo.prod(mo.array(a)[i, j], over=j)), a.prod(1))


def test_reads_outside_x_are_zero_in_index_notation() -> None:
    a = draw(5)
    i, r = mo.axes(5, 3)
    out = mo.sum(mo.array(a)[i + r - 1], over=r)
    np.testing.assert_allclose(python_value(out), np.convolve(a, np.ones(3), "same"))


def test_an_integer_var_is_read_inside_an_index() -> None:
    table, ids = draw(6, 2), np.array([[5, 0, 1], [1, 1, 7]])
    n, t, d = mo.axes(2, 3, 2)
    v = mo.array(table, requires_grad=True)
    out = v[mo.array(ids)[n, t], d].array(n, t, d)
    want = reference.reindex([table], (2, 3, 2), [(0, lambda n, t, d: (ids[n, t], d), None)])
    assert_value(out, want)
    g = python_value(mo.grad(out.sum(), v))
    np.testing.assert_array_equal(g[:, 0], [1, 3, 0, 0, 0, 1])
    with pytest.raises(mo.DTypeError, match=r"an index must be an integer, got f64"):
        v[v[t, d], d].array(t, d)


def test_numbers_among_the_axes() -> None:
    a = draw(3, 4)
    (i,) = mo.axes(3)
    np.testing.assert_array_equal(python_value(mo.array(a)[i, 2].array()), a[:, 2])
    np.testing.assert_array_equal(python_value(mo.array(a)[2 - i, i].array(i)),
                                  a[[2, 1, 0], [0, 1, 2]])  # fmt: skip


# --------------------------------------------------------------------------------------- errors

X = np.arange(6.0).reshape(2, 3)
ERROR = mo.IndexExpressionError
REFUSED = {
    "too few expressions": (
        lambda x: x.reindex((4,), lambda i: (i,)),
        ERROR, r"reindex: 2 index expressions are needed, 1 were given"),
    "too many expressions": (
        lambda x: x.reindex((4,), ["i0", "i0", "0"]),
        ERROR, r"2 index expressions are needed, 3 were given"),
    "a function of another arity": (
        lambda x: x.reindex((4,), lambda i, j: (i, j)),
        ERROR, r"the index function takes 2 indices, but there are 1 loops"),
    "a write of another rank": (
        lambda x: x.reindex_reduce("add", (4,), lambda i, j: (i, j)),
        ERROR, r"reindex_reduce: 1 index expressions are needed, 2 were given"),
    "a float": (
        lambda x: x.reindex((4,), lambda i: (i, 0.5)),
        ERROR, r"expected integers and loop indices, got 0.5 of type float; .* use // instead"),
    "a true division": (
        lambda x: x.reindex((4,), lambda i: (i / 2, 0)),
        ERROR, r"i0 / 2: an index is an integer: write // \(or Jittor's '/' in a string\)"),
    "a float in a string": (
        lambda x: x.reindex([4], ["i0*0.5", "0"]),
        ERROR, r"'i0\*0.5': '0.5' is not allowed; use integers"),
    "a float Var": (
        lambda x: x.reindex((2,), lambda i: (x.sum(1), i)),
        mo.DTypeError, r"an index must be an integer, got f64\[2\]"),
    "an unknown name": (
        lambda x: x.reindex([4], ["i0", "k"]), ERROR, r"'k': unknown name 'k'"),
    "a loop that is not there": (
        lambda x: x.reindex([4], ["i0", "i1"]), ERROR, r"i1 does not exist, there are 1 loop"),
    "an extent that is not there": (
        lambda x: x.reindex([4], ["i0", "xshape2"]), ERROR, r"unknown name 'xshape2'"),
    "an input that is not there": (
        lambda x: x.reindex([4], ["i0", "@e0(i0)"]), ERROR, r"@e0 needs extras\[0\]"),
    "an input of another rank": (
        lambda x: x.reindex([4], ["i0", "@e0(i0,i0)"], extras=[mo.array([1])]),
        ERROR, r"i64\[1\] is read with 2 indices"),
    "an input without a number": (
        lambda x: x.reindex([4], ["i0", "@ex(i0)"]), ERROR, r"is not allowed"),
    "bad syntax": (lambda x: x.reindex([4], ["i0", "i0+"]), ERROR, r"'i0\+': invalid syntax"),
    "a call": (
        lambda x: x.reindex([4], ["i0", "abs(i0)"]), ERROR, r"'abs\(i0\)' is not allowed"),
    "an attribute": (
        lambda x: x.reindex([4], ["i0", "i0.real"]), ERROR, r"'i0.real' is not allowed"),
    "a bitwise operator": (
        lambda x: x.reindex([4], ["i0", "i0&1"]), ERROR, r"'i0 & 1' is not allowed"),
    "min of one": (lambda x: x.reindex([4], ["i0", "min(i0)"]), ERROR, r"is not allowed"),
    "a tilde": (lambda x: x.reindex([4], ["i0", "~i0"]), ERROR, r"~ is not allowed; write !"),
    "a branch on an index": (
        lambda x: x.reindex((4,), lambda i: (0, i if i < 2 else 0)),
        ERROR, r"i0 < 2: the value of an index is not known"),
    "a division by zero": (
        lambda x: x.reindex((4,), lambda i: (i // 0, 0)),
        ERROR, r"divisor of i0 // 0 must be positive, but may be 0; write max\(divisor, 1\)"),
    "a division by a loop": (
        lambda x: x.reindex((4,), lambda i: (0, 2 % i)), ERROR, r"2 % i0 must be positive"),
    "a negative divisor": (
        lambda x: x.reindex([4], ["0", "i0/-2"]), ERROR, r"must be positive, but may be -2"),
    "a negative extent": (
        lambda x: x.reindex((-4,), lambda i: (i, 0)),
        mo.ShapeError, r"reindex: extents must not be negative, got \(-4,\)"),
    "a negative extent of a write": (
        lambda x: x.reindex_reduce("add", (-1,), lambda i, j: (i,)),
        mo.ShapeError, r"reindex_reduce: extents must not be negative"),
    "a negative axis": (lambda x: mo.axes(3, -1), mo.ShapeError, r"non-negative integer, not -1"),
    "an axis that is no integer": (
        lambda x: mo.axes(1.5), mo.ShapeError, r"non-negative integer, not 1.5"),
    "an axis that is not in the expression": (
        lambda x: mo.sum(x[mo.axes(2)[0], 0], over=mo.axes(3)), ERROR, r"not an axis of the"),
    "an order without one of the axes": (
        lambda x: x[(a := mo.axes(2, 3))[0], a[1]].array(a[0]),
        ERROR, r"name each of the 2 axes of the expression once"),
    "too few axes": (
        lambda x: x[mo.axes(2)[0]], ERROR, r"2 index expressions are needed, 1 were given"),
    "a slice among axes": (
        lambda x: x[mo.axes(2)[0], :], ERROR, r"expected integers and loop indices, got slice"),
    "a named axis in a function": (
        lambda x: x.reindex((2,), lambda i: (i, mo.axes(3)[0])),
        ERROR, r"reindex: axis\d+ is an axis of index notation: write x\[…\] with it"),
    "a true division of an axis": (
        lambda x: x[mo.axes(2)[0], mo.axes(3)[0] / 2], ERROR, r"axis\d+ / 2: an index is an int"),
    "an index as a value": (
        lambda x: x * mo.axes(3)[0], TypeError, r"an index is not a value; use mo.index"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_at_the_call(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(mo.array(X))
