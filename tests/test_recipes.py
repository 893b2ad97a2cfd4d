"""What a recipe records is what the function would have recorded, whatever the operands."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop import recipes
from metaop.compiler.keys import canonical
from metaop.graph import Node, pending
from metaop.nn import functional
from metaop.recipes import remembered
from tests.api_table import TABLE, Function


@contextmanager
def without_recipes() -> Iterator[None]:
    """Every function runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes._Call, "describe", lambda self, values: False)
        yield


def nodes_of(result: Any) -> list[Node]:
    if isinstance(result, mo.Var):
        return [result._node]
    return [node for part in result for node in nodes_of(part)]


def structure(result: Any) -> Any:
    """All that tells a recorded result from others, but for what its leaves hold."""
    roots = nodes_of(result)
    graph = pending(roots)
    history = [(n.requires_grad, n.stop, n.depth, str(n.site)) for n in graph]
    form = canonical(graph, roots)
    return form.key, form.values, history


def is_like_the_function_itself(call: Callable[..., Any], make: Callable[[], list[Any]]) -> None:
    """The third call, from a recipe if there is one, records what the function does."""
    for _ in range(2):
        call(*make())
    operands = make()
    repeated, again = call(*operands), call(*operands)
    with without_recipes():
        plain = call(*operands)
    assert structure(repeated) == structure(plain)
    assert structure(again) == structure(plain)


RECORDED = [function for function in TABLE if function.note != "computes at the call"]


@pytest.mark.parametrize("function", RECORDED, ids=lambda f: f"{f.name}-{f.note}")
def test_a_repeated_call_records_what_the_function_does(function: Function) -> None:
    given_name: Any = mo
    for part in function.name.split("."):
        given_name = getattr(given_name, part)
    call = function.call or (lambda m, *x: given_name(*x))
    rng = np.random.default_rng(zlib.crc32(function.name.encode()))

    def operands() -> list[mo.Var]:
        arrays = [make(rng) for make in function.operands]
        return [mo.array(a, requires_grad=function.grad and a.dtype.kind == "f") for a in arrays]

    is_like_the_function_itself(lambda *x: call(mo, *x), operands)


extents = st.integers(0, 5)


@settings(max_examples=25, deadline=None)
@given(st.tuples(extents, st.integers(1, 4), extents), st.sampled_from([(), (0,), (1,), (0, 1)]),
       st.integers(0, 2), st.booleans())  # fmt: skip
def test_extents_of_any_origin_are_those_of_the_function(
    shape: tuple[int, ...], dynamic: tuple[int, ...], axis: int, keepdims: bool
) -> None:
    def make() -> list[Any]:
        return [mo.dynamic(mo.zeros(*shape), dynamic) if dynamic else mo.zeros(*shape)]

    calls: list[Callable[[Any], Any]] = [
        lambda x: mo.mean(x, axis, keepdims),
        lambda x: mo.concat([x, x[:1], x], axis) if axis == 0 else mo.concat([x, x], axis),
        lambda x: mo.reshape(x, (x.shape[0] * x.shape[1], x.shape[2])),
        lambda x: mo.ravel(x),
        lambda x: x[1:, ..., None],
        lambda x: mo.var(mo.swapaxes(x, 0, axis), axis),
        lambda x: mo.pad(x, 2),
        lambda x: mo.einsum("abc,abd->acd", x, x),
    ]
    for call in calls:
        is_like_the_function_itself(call, make)


@pytest.mark.parametrize("swapped", [False, True])
def test_extents_of_several_origins_may_be_older_or_younger(swapped: bool) -> None:
    """The terms of a sum of extents are sorted by the age of their symbols."""

    def make() -> list[Any]:
        found = [mo.array(np.zeros((n, 2), np.float32)) for n in (3, 5)]
        return found[::-1] if swapped else found

    def joined(a: mo.Var, b: mo.Var) -> list[mo.Var]:
        rows = mo.concat([a, b, a])
        return [rows, mo.outer(a[:, 0], b[1:, 0]), mo.reshape(rows, (-1,)), mo.split(rows, [2])[1]]

    for _ in range(2):
        joined(*make()[::-1])
    is_like_the_function_itself(joined, make)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_recipe_serves_arrays_of_other_origins(batch: int) -> None:
    rng = np.random.default_rng(0)
    w = mo.array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    for _ in range(4):
        x = rng.normal(size=(batch, 3, 8, 8)).astype(np.float32)
        image = mo.array(x)
        found = mo.avg_pool2d(mo.conv2d(image, w, padding=1), 2).reshape((image.shape[0], -1))
        with without_recipes():
            plain = mo.avg_pool2d(mo.conv2d(image, w, padding=1), 2).reshape((batch, -1))
        np.testing.assert_array_equal(found.numpy(), plain.numpy())
        assert str(found.shape) == str(plain.shape)


def counted() -> tuple[Callable[..., Any], list[Any]]:
    """A function that is remembered, and the arguments of the calls in which it ran."""
    runs: list[Any] = []

    @remembered
    def scaled(x: mo.Var, by: Any = 1.0) -> mo.Var:
        runs.append(by)
        return x * by + 1.0

    return scaled, runs


def test_a_function_runs_twice_for_operands_of_one_kind() -> None:
    scaled, runs = counted()
    for _ in range(5):
        np.testing.assert_array_equal(scaled(mo.ones(3), 2.0).numpy(), [3.0, 3.0, 3.0])
    assert runs == [2.0, 2.0]


def test_arguments_that_compare_equal_are_told_apart() -> None:
    scaled, _ = counted()
    x = mo.array(np.array([2, 3]))
    values = (1, 1.0, True, 0.0, -0.0, 0, False)
    for _ in range(4):
        for by in values:
            with without_recipes():
                plain = scaled(x, by)
            found = scaled(x, by)
            assert found.dtype is plain.dtype
            np.testing.assert_array_equal(np.signbit(found.numpy()), np.signbit(plain.numpy()))
            np.testing.assert_array_equal(found.numpy(), plain.numpy())


def test_parameters_are_operands_and_told_from_other_vars() -> None:
    scaled, runs = counted()
    plain, parameter = mo.ones(3), mo.nn.Parameter(mo.ones(3))
    for _ in range(4):
        assert not scaled(plain, 4.0).requires_grad and scaled(parameter, 4.0).requires_grad
    assert len(runs) == 4


def test_one_operand_given_twice_is_no_two_operands() -> None:
    @remembered
    def same(x: mo.Var, y: mo.Var) -> mo.Var:
        return x + 1.0 if x is y else x + 2.0

    x, y = mo.zeros(2), mo.zeros(2)
    for _ in range(4):
        assert same(x, x).tolist() == [1.0, 1.0] and same(x, y).tolist() == [2.0, 2.0]


def test_a_function_that_looks_at_a_value_runs_at_every_call() -> None:
    for count in (1, 2, 3, 4):
        repeated = mo.repeat(mo.arange(2), mo.array(np.array([count, 1])), 0)
        assert repeated.tolist() == [0] * count + [1]


def test_gradients_pass_where_they_pass_in_the_function() -> None:
    scaled, runs = counted()
    x = mo.array(np.ones(3, np.float32), requires_grad=True)
    for _ in range(3):
        with mo.no_grad():
            assert not scaled(x, 3.0).requires_grad
        scaled(x, 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [9.0, 9.0, 9.0])
    assert len(runs) == 4


def test_an_operand_that_is_returned_is_itself() -> None:
    x = mo.ones(2, 3)
    assert all(mo.atleast_1d(x) is x for _ in range(4))


def test_what_is_recorded_has_the_users_line() -> None:
    x = mo.ones(2, 3)
    sites = [str(mo.var(x, 1)._node.site) for _ in range(4)]
    assert len(set(sites)) == 1 and sites[0].startswith("test_recipes.py:")
    other = str(mo.var(x, 1)._node.site)
    assert other != sites[0] and other.startswith("test_recipes.py:")


def test_an_error_is_raised_at_every_call() -> None:
    x = mo.ones(2, 3)
    for _ in range(4):
        with pytest.raises(mo.errors.ShapeError, match="axis 5 does not exist"):
            mo.mean(x, 5)


def test_losses_of_a_network_are_those_without_recipes() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(5, 3, 6, 6)).astype(np.float32) for _ in range(2)]

    def losses() -> list[float]:
        mo.manual_seed(0)
        net = mo.nn.Sequential(
            mo.nn.Conv2d(3, 4, 3), mo.nn.BatchNorm2d(4), mo.nn.GELU(), mo.nn.Flatten(),
            mo.nn.Linear(64, 5), mo.nn.LayerNorm(5),
        )  # fmt: skip
        optimizer = mo.nn.optim.SGD(net.parameters(), lr=0.1)
        found = []
        for batch in 8 * batches:
            loss = functional.cross_entropy(net(mo.array(batch)), mo.arange(5))
            optimizer.step(loss)
            found.append(loss.item())
        return found

    with without_recipes():
        plain = losses()
    assert losses() == plain and plain[-1] < plain[0]
