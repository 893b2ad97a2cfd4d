"""Every function of `tests/api_table.py` against NumPy and PyTorch: values, first and second
derivatives.

Values and derivatives are those of the printed Python kernels; machine code is compared on a sample
of the functions, because compiling them all would take minutes.
"""

from __future__ import annotations

import re
import runpy
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaop as mo
from tests.api_table import TABLE, Function
from tests.feature_names import NAMES, TESTED_IN
from tests.helpers import python_value

IDS = [f"{number}-{f.name}" for number, f in enumerate(TABLE)]


def flat(results: Any) -> list[Any]:
    """The results of a function as a list."""
    return list(results) if isinstance(results, list | tuple) else [results]


def called(function: Function, which: str, module: Any, operands: list[Any]) -> list[Any]:
    """What a module's counterpart returns."""
    given = getattr(function, which) if which != "call" else function.call or function.name
    if callable(given):
        return flat(given(module, *operands))
    for part in given.split("."):
        module = getattr(module, part)
    return flat(module(*operands))


def operands_of(function: Function) -> list[np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(function.name.encode()))
    return [make(rng) for make in function.operands]


def close(got: np.ndarray, want: Any, rtol: float = 1e-9) -> None:
    want = np.asarray(want)
    assert got.shape == want.shape, (got.shape, want.shape)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("function", TABLE, ids=IDS)
def test_values(function: Function) -> None:
    arrays = operands_of(function)
    got = called(function, "call", mo, [mo.array(a) for a in arrays])
    with np.errstate(all="ignore"):
        if function.numpy is not None:
            want = called(function, "numpy", np, arrays)
        elif function.torch is not None:
            torch = pytest.importorskip("torch")
            want = called(function, "torch", torch, [torch.from_numpy(a) for a in arrays])
        else:
            blocks = pytest.importorskip("scipy.linalg")
            want = called(Function("", "", (), numpy=function.name), "numpy", blocks, arrays)
    assert len(got) == len(want)
    for y, w in zip(got, want):
        w = np.asarray(w)
        assert isinstance(y, mo.Var)
        if w.dtype.kind in "biu":
            np.testing.assert_array_equal(python_value(y), w)
            assert y.dtype.kind == w.dtype.kind
        else:
            close(python_value(y), w)
            assert y.dtype is mo.float64 or w.dtype != np.float64


@pytest.mark.parametrize(
    "function", [f for f in TABLE if zlib.crc32(f.name.encode()) % 7 == 0], ids=lambda f: f.name
)
def test_machine_code_computes_the_same(function: Function) -> None:
    arrays = operands_of(function)
    got = called(function, "call", mo, [mo.array(a) for a in arrays])
    printed = [python_value(y) for y in got if y._node.storage is None]
    for y, want in zip([y for y in got if y._node.storage is None], printed):
        close(y.numpy(), want, 1e-12)


# ------------------------------------------------------------------------------------- derivatives


def weights_for(shape: tuple[int, ...], number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=shape)


def weighted(results: list[Any], wrap: Any) -> Any:
    """A number that depends on every float result, each element with its own weight."""
    total = None
    for number, y in enumerate(results):
        if y.dtype not in (mo.float64,) and "float64" not in str(y.dtype):
            continue
        term = (wrap(weights_for(tuple(y.shape), number)) * y).sum()
        total = term if total is None else total + term
    return total


def derivatives(function: Function, arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The gradient, and the gradient of its weighted sum."""
    xs = [mo.array(a, requires_grad=a.dtype == np.float64) for a in arrays]
    floats = [x for x in xs if x.requires_grad]
    loss = weighted(called(function, "call", mo, xs), mo.array)
    orders = []
    for _ in range(function.grad or 0):
        if loss is None or not loss.requires_grad:
            orders.append([np.zeros(x.shape) for x in floats])
            continue
        gradients = mo.grad(loss, floats)
        orders.append([python_value(g) for g in gradients])
        loss = weighted(gradients, mo.array)
    return orders


def torch_derivatives(function: Function, arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    torch = pytest.importorskip("torch")
    xs = [torch.tensor(a, requires_grad=a.dtype == np.float64) for a in arrays]
    floats = [x for x in xs if x.requires_grad]
    loss = weighted(called(function, "torch", torch, xs), torch.tensor)
    orders = []
    for _ in range(function.grad or 0):
        if not loss.requires_grad:
            orders.append([np.zeros(tuple(x.shape)) for x in floats])
            continue
        found = torch.autograd.grad(loss, floats, create_graph=True, allow_unused=True)
        gradients = [torch.zeros_like(x) if g is None else g for g, x in zip(found, floats)]
        orders.append([g.detach().numpy(force=True) for g in gradients])
        loss = weighted(gradients, torch.tensor)
    return orders


def numeric_derivative(function: Function, arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    """First derivatives of NumPy's function by central differences."""

    def value(*operands: np.ndarray) -> float:
        results = called(function, "numpy", np, list(operands))
        return float(
            sum(
                (weights_for(y.shape, k) * y).sum()
                for k, y in enumerate(results)
                if y.dtype == np.float64
            )
        )

    found = []
    for k, array in enumerate(arrays):
        if array.dtype != np.float64:
            continue
        slope = np.zeros_like(array)
        for i in np.ndindex(*array.shape):
            high, low = array.copy(), array.copy()
            high[i] += 1e-6
            low[i] -= 1e-6
            up = value(*arrays[:k], high, *arrays[k + 1 :])
            down = value(*arrays[:k], low, *arrays[k + 1 :])
            slope[i] = (up - down) / 2e-6
        found.append(slope)
    return [found]


def check_second_order(
    function: Function, arrays: list[np.ndarray], got: list[list[np.ndarray]]
) -> None:
    """The second derivative along a direction is the central difference of the first, which is
    compared with NumPy's."""
    if function.grad != 2:
        return
    floats = [k for k, a in enumerate(arrays) if a.dtype == np.float64]
    directions = [weights_for(arrays[k].shape, 100 + k) for k in floats]
    once = replace(function, grad=1)

    def slope(h: float) -> float:
        moved = list(arrays)
        for k, direction in zip(floats, directions):
            moved[k] = arrays[k] + h * direction
        (gradients,) = derivatives(once, moved)
        return sum((weights_for(g.shape, j) * g).sum() for j, g in enumerate(gradients))

    along = sum((g * d).sum() for g, d in zip(got[1], directions))
    np.testing.assert_allclose(along, (slope(1e-5) - slope(-1e-5)) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function", [f for f in TABLE if f.grad], ids=[i for i, f in zip(IDS, TABLE) if f.grad]
)
@pytest.mark.filterwarnings("ignore::metaop.UnreachedGradientWarning")
def test_derivatives(function: Function) -> None:
    arrays = operands_of(function)
    if any(np.isnan(a).any() for a in arrays if a.dtype == np.float64) and not function.torch:
        pytest.skip("no central differences at NaN")
    got = derivatives(function, arrays)
    if function.torch is not None:
        want, rtol = torch_derivatives(function, arrays), 1e-7
    elif function.numpy is not None:
        want, rtol = numeric_derivative(function, arrays), 1e-6
        check_second_order(function, arrays, got)
    else:
        want, rtol = got, 0.0
    for order_got, order_want in zip(got, want):
        for a, b in zip(order_got, order_want, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-8)


# ---------------------------------------------------------------------------------- completeness


def test_the_table_names_every_array_function() -> None:
    """A function that is exported is compared here, or named with the test that has it."""
    elsewhere = set(
        """
        compare debug_nans dynamic jit no_fuse print_graph profile
        stop_fuse winograd cond scan while_loop vmap vjp jvp jacobian
        hessian hvp value_and_grad gradcheck checkpoint kernel numpy_code take_along_dim
        msort chain_matmul matvec vecmat broadcast_shapes ascontiguousarray Axis DType
        Generator Indexed Var array as_tensor asarray assign_all axes broadcast
        broadcast_to can_cast config dump e enable_grad explain finfo from_dlpack
        from_numpy get_num_threads grad iinfo index inf is_floating_point is_grad_enabled
        is_tensor isdtype load manual_seed nan ndim newaxis no_grad numel optim pi reindex
        reindex_reduce result_type save seed set_global_seed set_grad_enabled
        set_num_threads shape size stats sync tensor transaction uninterrupted empty
        empty_like rand rand_like randint randn randn_like randperm bernoulli multinomial
        clamp_min clamp_max inverse pinverse
        """.split()
    )
    known = {f.name.split(".")[-1] for f in TABLE} | elsewhere
    known |= {alias for f in TABLE for alias in f.aliases}
    functions = {id(getattr(mo, f.name)) for f in TABLE if "." not in f.name}
    modules = type(mo)
    missing = [
        name
        for name in dir(mo)
        if not name.startswith("_") and not isinstance(getattr(mo, name), modules)
        and not isinstance(getattr(mo, name), mo.DType) and name not in known
        and id(getattr(mo, name)) not in functions and not re.match("[A-Z]", name)
        and not hasattr(mo.random, name) and not hasattr(mo.linalg, name)
    ]  # fmt: skip
    assert not missing, missing


def test_every_name_of_the_language_exists_and_is_tested() -> None:
    in_table = {f.name for f in TABLE} | {alias for f in TABLE for alias in f.aliases}
    same = {id(getattr(mo, f.name)) for f in TABLE if "." not in f.name}
    for path, names in TESTED_IN.items():
        text = (Path(__file__).resolve().parents[1] / path).read_text(encoding="utf-8")
        for name in names.split():
            assert re.search(rf"\b{name}\b", text), f"{path} does not name {name}"
    elsewhere = {name for names in TESTED_IN.values() for name in names.split()}
    for name in (name for names in NAMES.values() for name in names.split()):
        found: Any = mo
        for part in name.split("."):
            found = getattr(found, part)
        assert name in in_table or id(found) in same or name.split(".")[-1] in elsewhere, name


def test_a_complete_qr_of_a_tall_matrix_has_no_gradient() -> None:
    x = mo.array(np.ones((3, 2)), requires_grad=True)
    with pytest.raises(mo.DTypeError, match=r"f64\[3,2\].* no gradient.*mode='reduced'"):
        mo.grad(mo.linalg.qr(x, mode="complete").R.sum(), x)


def test_functions_of_linalg_are_in_the_table() -> None:
    named = {f.name.split(".")[-1] for f in TABLE}
    assert set(mo.linalg.__all__) <= named, set(mo.linalg.__all__) - named


def test_the_documentation_is_that_of_the_table() -> None:
    """docs/api.md is generated: `python docs/generate_api.py` writes it anew."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    made = runpy.run_path(str(docs / "generate_api.py"))["document"]()
    assert (docs / "api.md").read_text(encoding="utf-8") == made


def test_further_names_of_torch_and_numpy() -> None:
    rng = np.random.default_rng(0)
    x, m, v = rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3)), rng.normal(size=3)
    close(mo.matvec(m, v).numpy(), m @ v)
    close(mo.vecmat(x[:, 0], m).numpy(), x[:, 0] @ m)
    close(mo.chain_matmul(x, x.T, x).numpy(), x @ x.T @ x)
    close(mo.msort(mo.array(x)).numpy(), np.sort(x, 0))
    at = np.argsort(x, 1)
    close(mo.take_along_dim(x, at, 1).numpy(), np.sort(x, 1))
    close(mo.take_along_dim(x, at).numpy(), x.ravel()[at.ravel()])
    assert mo.broadcast_shapes((3, 1), (4,)) == (3, 4)
    with pytest.raises(mo.ShapeError, match="do not broadcast"):
        mo.broadcast_shapes((3,), (4,))
    for got, want in zip(mo.where(x > 0), np.where(x > 0), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)
    assert mo.clamp_min(x, 0).numpy().min() == 0 and mo.clamp_max(x, 0).numpy().max() == 0
    assert (mo.numel(x), mo.shape(x), mo.ndim(x)) == (6, (2, 3), 2)
