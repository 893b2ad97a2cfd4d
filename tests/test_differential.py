"""Array functions against NumPy on drawn dtypes, shapes and values: 0-d, empty, size one, odd and
broadcast shapes; NaN, ±inf, -0.0, the extremes of integers.

Values are computed by the printed Python kernels; a share of the cases by machine code, too.
METAOP_FUZZ=20000 draws so many in all, instead of about 700.
"""

from __future__ import annotations

import itertools
import math
import os
import string
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import metaop as mo
from tests.helpers import TOLERANCE, python_value
from tests.strategies import compiled

SHARE = int(os.environ.get("METAOP_FUZZ", "700")) / 1300
DTYPES = "float32 float64 float16 int8 int32 int64 uint8 uint16 uint64 bool".split()
SHAPES = [(), (0,), (1,), (5,), (3, 1), (1, 4), (3, 4), (2, 0, 3), (2, 3, 5), (1, 1, 1), (7, 1, 2)]
RNG = np.random.default_rng(7)


def special(dtype: str) -> list[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return [True, False]
    if kind.kind == "f":
        return [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25]
    info = np.iinfo(kind)
    return [info.min, info.max, 0, 1, 2, 3, info.max - 1]


@st.composite
def arrays(draw: Any, shape: tuple[int, ...], dtype: str, calm: bool = False) -> np.ndarray:
    """Special and random values; calm: finite, without ties that only rounding breaks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(size=shape) < 0.5
    if kind.kind == "f":
        array = rng.normal(size=shape).astype(kind)
    else:
        array = rng.integers(-9 if kind.kind == "i" else 0, 10, size=shape).astype(kind)
    if not calm and array.size:
        count = int(rng.integers(0, array.size + 1))
        places = rng.permutation(array.size)[:count]
        values = np.array(special(dtype), kind)
        array.reshape(-1)[places] = values[rng.integers(0, len(values), count)]
    return np.asarray(array)


def narrow(result: Any, operands: list[np.ndarray]) -> np.ndarray:
    """NumPy's result in the dtype of metaop, which makes no float64 of others."""
    result = np.asarray(result)
    made_up = result.dtype == np.float64 and not any(a.dtype == np.float64 for a in operands)
    return result.astype(np.float32) if made_up else result


def compare(got: mo.Var, want: np.ndarray, case: Any, tolerance: float | None = None) -> None:
    assert got.shape == want.shape, (got.shape, want.shape)
    assert got.dtype.name == want.dtype.name, (got.dtype, want.dtype)
    relative, absolute = TOLERANCE.get(want.dtype.name, (0, 0))
    relative = max(relative, tolerance or 0)
    found = [python_value(got)] if got._node.storage is None else []
    if compiled(case, 20):
        found.append(got.numpy())
    for value in found:
        np.testing.assert_allclose(value, want, rtol=relative, atol=max(absolute, relative))


def numpys(function: Callable[..., Any], *operands: Any, **options: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*operands, **options)


# ------------------------------------------------------------------------------------ elementwise

FLOATS = "float32 float64 float16"
NUMBERS = " ".join(d for d in DTYPES if d != "bool")
EVERY = " ".join(DTYPES)
UNARY: dict[str, tuple[str, str]] = {  # ours -> NumPy's, on which dtypes
    "signbit": ("signbit", FLOATS + " int8 int32"),
    "isposinf": ("isposinf", FLOATS), "isneginf": ("isneginf", FLOATS),
    "sinc": ("sinc", FLOATS + " int32"), "deg2rad": ("deg2rad", FLOATS + " int8"),
    "rad2deg": ("rad2deg", FLOATS), "nan_to_num": ("nan_to_num", FLOATS + " int32"),
    "square": ("square", NUMBERS), "abs": ("abs", EVERY), "sign": ("sign", NUMBERS),
    "negative": ("negative", NUMBERS), "positive": ("positive", NUMBERS),
    "floor": ("floor", EVERY), "ceil": ("ceil", EVERY), "round": ("rint", FLOATS),
    "trunc": ("trunc", EVERY), "isnan": ("isnan", EVERY), "isfinite": ("isfinite", EVERY),
    "logical_not": ("logical_not", EVERY), "reciprocal": ("reciprocal", FLOATS),
    "exp": ("exp", FLOATS + " int8"), "log1p": ("log1p", FLOATS), "sqrt": ("sqrt", FLOATS),
}  # fmt: skip
BINARY: dict[str, tuple[str, str]] = {
    "logaddexp": ("logaddexp", FLOATS), "logaddexp2": ("logaddexp2", FLOATS),
    "heaviside": ("heaviside", FLOATS), "nextafter": ("nextafter", "float32 float64 float16"),
    "fmod": ("fmod", FLOATS), "float_power": ("float_power", "float32"),
    "copysign": ("copysign", FLOATS), "hypot": ("hypot", FLOATS), "fmax": ("fmax", EVERY),
    "fmin": ("fmin", EVERY), "maximum": ("maximum", EVERY), "minimum": ("minimum", EVERY),
    "add": ("add", EVERY), "multiply": ("multiply", EVERY), "subtract": ("subtract", NUMBERS),
    "divide": ("divide", EVERY), "atan2": ("arctan2", FLOATS), "equal": ("equal", EVERY),
    "less": ("less", EVERY), "logical_xor": ("logical_xor", EVERY),
    "remainder": ("remainder", FLOATS), "floor_divide": ("floor_divide", FLOATS),
    "isclose": ("isclose", FLOATS),
}  # fmt: skip


@settings(max_examples=int(200 * SHARE), deadline=None)
@given(st.sampled_from(sorted(UNARY)), st.sampled_from(SHAPES), st.data())
def test_functions_of_one_operand(name: str, shape: tuple[int, ...], data: Any) -> None:
    theirs, dtypes = UNARY[name]
    x = data.draw(arrays(shape, data.draw(st.sampled_from(dtypes.split()))))
    wide = x.astype(np.float32) if x.dtype == np.int8 and name in ("exp", "deg2rad") else x
    want = narrow(numpys(getattr(np, theirs), wide), [x])  # NumPy has float16 for int8
    compare(getattr(mo, name)(mo.array(x)), want, (name, shape, x.tolist()), 1e-5)


@settings(max_examples=int(250 * SHARE), deadline=None)
@given(st.sampled_from(sorted(BINARY)), st.sampled_from(SHAPES), st.data())
def test_functions_of_two_operands_broadcast(name: str, shape: Any, data: Any) -> None:
    theirs, dtypes = BINARY[name]
    a = data.draw(arrays(shape, data.draw(st.sampled_from(dtypes.split()))))
    own = shape[data.draw(st.integers(0, len(shape))) :]
    own = tuple(1 if data.draw(st.booleans()) else n for n in own)
    b = data.draw(arrays(own, data.draw(st.sampled_from(dtypes.split()))))
    want = narrow(numpys(getattr(np, theirs), a, b), [a, b])
    if name in ("divide", "logaddexp") and "f" not in a.dtype.kind + b.dtype.kind:
        want = want.astype(np.float32)
    if name == "float_power":
        want = want.astype(np.float32)
    if name == "isclose":  # NumPy computes 16-bit tolerances in 64 bits
        assume(a.dtype == b.dtype == np.float64)
    got = getattr(mo, name)(mo.array(a), mo.array(b))
    case = (name, a.tolist(), b.tolist())
    if name == "nextafter":
        np.testing.assert_array_equal(python_value(got), want)
        return
    tolerance = 2e-3 if want.dtype == np.float16 else 1e-5
    compare(got, want, case, tolerance)


# ------------------------------------------------------------------------ reductions along an axis


def axes_of(draw: Any, shape: tuple[int, ...]) -> int:
    return draw(st.integers(-len(shape), len(shape) - 1))


ALONG: dict[str, tuple[Any, str, bool]] = {  # NumPy's, dtypes, may be empty along the axis
    "cumsum": (np.cumsum, "float64 int8 int32 uint8 uint64 bool", True),
    "cumprod": (np.cumprod, "float64 int8 int64 uint16", True),
    "cummax": (np.maximum.accumulate, "float32 float64 int8 uint64", True),
    "cummin": (np.minimum.accumulate, "float32 float64 int8 uint64", True),
    "logcumsumexp": (np.logaddexp.accumulate, "float64", True),
    "sort": (np.sort, EVERY, True),
    "argsort": (lambda x, axis: np.argsort(x, axis=axis, kind="stable"), EVERY, True),
    "diff": (lambda x, axis: np.diff(x, axis=axis), NUMBERS + " bool", True),
    "ptp": (np.ptp, NUMBERS, False), "nansum": (np.nansum, "float32 float64 int32", True),
    "nanprod": (np.nanprod, "float64", True), "nanmax": (np.nanmax, "float32 float64", False),
    "nanmin": (np.nanmin, "float32 float64 int8", False),
    "nanmean": (np.nanmean, "float32 float64", True),
    "nanvar": (np.nanvar, "float64", True), "median": (np.median, "float64", False),
    "max": (np.max, EVERY, False), "argmin": (np.argmin, EVERY, False),
    "count_nonzero": (np.count_nonzero, EVERY, True), "flip": (np.flip, EVERY, True),
}  # fmt: skip


@settings(max_examples=int(250 * SHARE), deadline=None)
@given(st.sampled_from(sorted(ALONG)), st.sampled_from(SHAPES[1:]), st.data())
def test_functions_along_an_axis(name: str, shape: Any, data: Any) -> None:
    theirs, dtypes, of_nothing = ALONG[name]
    axis = axes_of(data.draw, shape)
    assume(of_nothing or shape[axis])
    x = data.draw(arrays(shape, data.draw(st.sampled_from(dtypes.split()))))
    want = numpys(theirs, x, axis=axis)
    if name in ("argsort", "argmin", "count_nonzero"):
        want = np.asarray(want, np.int64)
    want = narrow(want, [x])
    got = getattr(mo, name)(mo.array(x), axis=axis)
    compare(got, want, (name, axis, x.tolist()), 1e-5 if want.dtype == np.float32 else 1e-9)


@settings(max_examples=int(60 * SHARE), deadline=None)
@given(st.sampled_from(["cumsum", "cumprod", "cummax", "cummin"]), st.integers(1, 150), st.data())
def test_long_scans_are_those_of_numpy(name: str, length: int, data: Any) -> None:
    """Lengths around the blocks of a scan and beyond."""
    shape = data.draw(st.sampled_from([(length,), (2, length), (length, 3)]))
    axis = shape.index(length)
    x = data.draw(arrays(shape, data.draw(st.sampled_from(["float64", "int64"])), calm=True))
    x = np.where(x == 0, 1, x) if name == "cumprod" else x
    want = np.asarray(ALONG[name][0](x, axis=axis))
    compare(getattr(mo, name)(mo.array(x), axis), want, (name, shape), 1e-9)


# --------------------------------------------------------------------------------------- movement


@settings(max_examples=int(150 * SHARE), deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.data())
def test_functions_that_move_elements(shape: Any, dtype: str, data: Any) -> None:
    x = data.draw(arrays(shape, dtype))
    rank = len(shape)
    small = st.integers(-3, 3)
    choices: dict[str, Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]] = {
        "ravel": lambda: ((), {}),
        "atleast_2d": lambda: ((), {}),
        "atleast_3d": lambda: ((), {}),
        "tile": lambda: ((data.draw(st.lists(st.integers(0, 3), max_size=3)),), {}),
        "diagflat": lambda: ((data.draw(small),), {}),
    }
    if rank:
        axis = axes_of(data.draw, shape)
        n = shape[axis]
        counts = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
        choices |= {
            "roll": lambda: ((data.draw(st.integers(-9, 9)), axis), {}),
            "repeat": lambda: ((data.draw(st.integers(0, 3)) if n == 1 else counts, axis), {}),
            "array_split": lambda: ((data.draw(st.integers(1, 4)), axis), {}),
            "flip": lambda: ((axis,), {}),
            "moveaxis": lambda: ((axis, axes_of(data.draw, shape)), {}),
            "expand_dims": lambda: ((axes_of(data.draw, (*shape, 1)),), {}),
        }
    if rank == 2:
        choices["diag"] = lambda: ((data.draw(small),), {})
    if rank >= 2:
        choices |= {
            "rot90": lambda: ((data.draw(st.integers(-5, 5)), (0, rank - 1)), {}),
            "diagonal": lambda: ((data.draw(small), 0, rank - 1), {}),
            "tril": lambda: ((data.draw(small),), {}),
            "triu": lambda: ((data.draw(small),), {}),
        }
    name = data.draw(st.sampled_from(sorted(choices)))
    positional, options = choices[name]()
    want = getattr(np, name)(x, *positional, **options)
    got = getattr(mo, name)(mo.array(x), *positional, **options)
    for y, w in zip(got if isinstance(got, list) else [got], want if isinstance(got, list)
                    else [want], strict=True):  # fmt: skip
        compare(y, np.asarray(w), (name, shape, positional))


@settings(max_examples=int(60 * SHARE), deadline=None)
@given(st.sampled_from(SHAPES[1:]), st.data())
def test_padding(shape: Any, data: Any) -> None:
    mode = data.draw(st.sampled_from(["constant", "edge", "reflect", "symmetric", "wrap"]))
    assume(mode == "constant" or 0 not in shape)
    x = data.draw(arrays(shape, "float32", calm=True))
    width = [tuple(data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=2))) for _ in shape]
    compare(mo.pad(mo.array(x), width, mode), np.pad(x, width, mode), (mode, shape, width))


# ------------------------------------------------------------------------------ sorting, searching


@settings(max_examples=int(80 * SHARE), deadline=None)
@given(st.sampled_from(DTYPES), st.integers(0, 9), st.booleans(), st.data())
def test_descending_order_is_stable(dtype: str, n: int, descending: bool, data: Any) -> None:
    x = data.draw(arrays((2, n), dtype))
    order = python_value(mo.argsort(mo.array(x), descending=descending))

    def rank(value: Any) -> Any:  # NaN is the largest
        return 10**400 if value != value else value.item() if np.isfinite(value) else (
            10**399 if value > 0 else -(10**399))  # fmt: skip

    for row, found in zip(x, order):
        assert sorted(found.tolist()) == list(range(n))
        keys = [(rank(row[k]) * (-1 if descending else 1), k) for k in found]
        assert all(a <= b or a[0] == b[0] for a, b in itertools.pairwise(keys))
        assert all(a[1] < b[1] for a, b in itertools.pairwise(keys) if a[0] == b[0])


@settings(max_examples=int(60 * SHARE), deadline=None)
@given(st.sampled_from(DTYPES), st.sampled_from(["left", "right"]), st.data())
def test_searchsorted_and_unique(dtype: str, side: str, data: Any) -> None:
    x = data.draw(arrays((7,), dtype, calm=True))
    values = data.draw(arrays((3, 2), dtype, calm=True))
    ordered = np.sort(x)
    got = mo.searchsorted(mo.array(ordered), mo.array(values), side=side)
    np.testing.assert_array_equal(python_value(got), np.searchsorted(ordered, values, side))
    found = mo.unique(mo.array(x), True, True, True)
    for mine, theirs in zip(found, np.unique(x, True, True, True), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)


# ------------------------------------------------------------------------------------------ einsum


@st.composite
def equations(draw: Any) -> tuple[str, list[tuple[int, ...]]]:
    """Equations of up to four operands, with repeated and broadcast labels and an ellipsis."""
    labels = draw(st.lists(st.sampled_from("abcdeZ"), min_size=1, max_size=4, unique=True))
    extent = {c: draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 4)) for c in labels}
    dots = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    parts, shapes = [], []
    for _ in range(draw(st.integers(1, 4))):
        own = draw(st.lists(st.sampled_from(labels), max_size=4))
        # NumPy takes an extent of one for any label, but not twice in one operand with another
        narrow = draw(st.booleans())
        shape = [1 if narrow and own.count(c) == 1 and draw(st.booleans()) else extent[c]
                 for c in own]  # fmt: skip
        if dots and draw(st.booleans()):
            place = draw(st.integers(0, len(own)))
            inner = dots[draw(st.integers(0, len(dots))) :]
            inner = tuple(1 if draw(st.integers(0, 3)) == 0 else n for n in inner)
            parts.append("".join(own[:place]) + "..." + "".join(own[place:]))
            shape[place:place] = inner
        else:
            parts.append("".join(own))
        shapes.append(tuple(shape))
    equation = ",".join(parts)
    if draw(st.booleans()):
        used = sorted({c for p in parts for c in p if c != "."})
        output = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
        place = draw(st.integers(0, len(output)))
        ellipsis = "..." if any("." in p for p in parts) else ""
        equation += "->" + "".join(output[:place]) + ellipsis + "".join(output[place:])
    return equation, shapes


@settings(max_examples=int(150 * SHARE), deadline=None)
@given(equations(), st.sampled_from(["float64", "int32"]), st.data())
def test_einsum_is_numpys(case: Any, dtype: str, data: Any) -> None:
    equation, shapes = case
    operands = [data.draw(arrays(shape, dtype, calm=True)) for shape in shapes]
    try:
        want = np.asarray(np.einsum(equation, *operands))
    except ValueError:
        assume(False)
    got = mo.einsum(equation, *map(mo.array, operands))
    compare(got, want, case, 1e-9)


@settings(max_examples=int(60 * SHARE), deadline=None)
@given(equations(), st.data())
def test_gradients_of_einsum_are_torchs(case: Any, data: Any) -> None:
    torch = pytest.importorskip("torch")
    equation, shapes = case
    arrays_ = [data.draw(arrays(shape, "float64", calm=True)) for shape in shapes]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays_]
    try:
        np.einsum(equation, *arrays_)
        y = torch.einsum(equation, *theirs)
    except (ValueError, RuntimeError):  # torch has no size-one extents of repeated labels
        assume(False)
    weights = RNG.normal(size=tuple(y.shape))
    want = torch.autograd.grad((y * torch.tensor(weights)).sum(), theirs)
    ours = [mo.array(a, requires_grad=True) for a in arrays_]
    got = mo.grad((mo.einsum(equation, *ours) * weights).sum(), ours)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(python_value(a), b.numpy(), rtol=1e-8, atol=1e-10)


def test_einsum_contracts_in_the_cheapest_order() -> None:
    from metaop.einsum import path_of

    extents = dict(zip("abcd", (2, 1000, 3, 500)))
    sets = [frozenset("ab"), frozenset("bc"), frozenset("cd")]
    assert path_of(sets, frozenset("ad"), extents) == [(0, 1), (0, 1)]
    extents = dict(zip("abcd", (500, 3, 1000, 2)))
    assert path_of(sets, frozenset("ad"), extents) == [(1, 2), (0, 1)]
    many = [frozenset(string.ascii_lowercase[k : k + 2]) for k in range(12)]
    sizes = dict.fromkeys(string.ascii_lowercase, 2)
    assert len(path_of(many, frozenset("am"), sizes)) == 11


@pytest.mark.parametrize("equation, shapes, message", [
    ("ij,jk->ik", [(2, 3), (4, 5)], r"label 'j' is 3 and 4"),
    ("ij->ijj", [(2, 3)], r"each label of an operand once"),
    ("ij->k", [(2, 3)], r"each label of an operand once"),
    ("ijk->i", [(2, 3)], r"'ijk' does not fit an operand of 2 axes"),
    ("ij,jk", [(2, 3)], r"2 operands are described, 1 are given"),
    ("i*->i", [(2, 3)], r"'\*' is no label"),
])  # fmt: skip
def test_einsum_refuses(equation: str, shapes: list[Any], message: str) -> None:
    with pytest.raises(mo.ShapeError, match=message):
        mo.einsum(equation, *(mo.zeros(s) for s in shapes))
