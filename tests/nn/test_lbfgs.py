"""LBFGS: the points that PyTorch's goes through, and what a step asks of its closure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn

START = [np.array([-1.2, 1.0, 0.5]), np.array([[0.3], [-0.7]])]


def rosenbrock(x: Any, w: Any) -> Any:
    """A bent valley in three numbers, and a bowl in two more that one of the three tilts."""
    valley = (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    return valley + ((w - x[0]) ** 2).sum() + (w**4).sum()


def parameters(dtype: Any = np.float64) -> list[nn.Parameter]:
    return [nn.Parameter(mo.array(value.astype(dtype))) for value in START]


def closure_of(optimizer: Any, params: list[Any], calls: list[float]) -> Any:
    def closure() -> Any:
        optimizer.zero_grad()
        loss = rosenbrock(*params)
        loss.backward()
        calls.append(loss.item())
        return loss

    return closure


@pytest.mark.parametrize("options", [
    {"lr": 0.01}, {"lr": 0.05, "max_iter": 7, "history_size": 3}, {"lr": 0.02, "max_eval": 3},
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 2, "lr": 0.5},
    {"line_search_fn": "strong_wolfe", "max_eval": 9},
    {"line_search_fn": "strong_wolfe", "lr": 40.0},
], ids=str)  # fmt: skip
def test_every_loss_and_every_point_is_pytorchs(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = parameters(), [torch.nn.Parameter(torch.tensor(value)) for value in START]
    optimizer = nn.optim.LBFGS(ours, **options)
    reference = torch.optim.LBFGS(theirs, **options)
    seen: tuple[list[float], list[float]] = ([], [])
    for _ in range(4):
        first = optimizer.step(closure_of(optimizer, ours, seen[0]))
        assert first.item() == pytest.approx(
            reference.step(closure_of(reference, theirs, seen[1])).item(), rel=1e-6
        )
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-6, atol=1e-9)
    assert len(seen[0]) == len(seen[1]) > 8
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-5, atol=1e-12)
    state, wanted = optimizer.state_dict()["state"][0], reference.state_dict()["state"][0]
    assert state.keys() == wanted.keys() - {"al"}
    assert [state[k] for k in ("func_evals", "n_iter")] == [len(seen[0]), wanted["n_iter"]]


def test_the_line_search_finds_the_bottom_of_the_valley_without_a_call_of_backward() -> None:
    params = parameters()
    optimizer = nn.optim.LBFGS(params, line_search_fn="strong_wolfe")
    for _ in range(5):
        loss = optimizer.step(lambda: rosenbrock(*params))
    (gradient, _) = mo.grad(rosenbrock(*params), params)
    assert np.abs(gradient.numpy()).max() < 1e-4 < loss.item() < 1.5


def test_a_step_compiles_nothing_that_the_steps_before_had_not() -> None:
    params = parameters(np.float32)
    optimizer = nn.optim.LBFGS(params, lr=0.01)
    for _ in range(2):
        optimizer.step(lambda: rosenbrock(*params))
    before = mo.stats().programs
    optimizer.step(lambda: rosenbrock(*params))
    assert mo.stats().programs == before


def test_a_saved_state_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    params = parameters()
    optimizer = nn.optim.LBFGS(params, lr=0.02)
    optimizer.step(lambda: rosenbrock(*params))
    mo.save({"w": [p.detach() for p in params], "o": optimizer.state_dict()}, tmp_path / "state")
    optimizer.step(lambda: rosenbrock(*params))

    saved = mo.load(tmp_path / "state")
    again = [nn.Parameter(value) for value in saved["w"]]
    other = nn.optim.LBFGS(again, lr=1.0)
    other.load_state_dict(saved["o"])
    assert other.lr == 0.02
    other.step(lambda: rosenbrock(*again))
    for a, b in zip(params, again, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_an_error_in_the_closure_leaves_the_parameters_where_they_were() -> None:
    params = parameters()
    optimizer = nn.optim.LBFGS(params, line_search_fn="strong_wolfe")
    calls: list[float] = []

    def closure() -> Any:
        calls.append(0)
        if len(calls) == 5:
            raise KeyError("the fifth")
        return rosenbrock(*params)

    with pytest.raises(KeyError, match="the fifth"):
        optimizer.step(closure)
    assert [p.numpy().tolist() for p in params] == [value.tolist() for value in START]


def test_what_it_cannot_do_is_said() -> None:
    params = parameters()
    optimizer = nn.optim.LBFGS(params)
    with pytest.raises(TypeError, match="give a function that returns it"):
        optimizer.step(rosenbrock(*params))
    with pytest.raises(ValueError, match="one group of parameters"):
        optimizer.add_param_group({"params": [nn.Parameter(mo.zeros(2))]})
    with pytest.raises(ValueError, match="must be 'strong_wolfe' or None, got 'armijo'"):
        nn.optim.LBFGS(params, line_search_fn="armijo")


def test_a_parameter_that_is_not_trained_stays() -> None:
    params = parameters()
    params[1].requires_grad = False
    nn.optim.LBFGS(params, lr=0.01).step(lambda: rosenbrock(*params))
    np.testing.assert_array_equal(params[1].numpy(), START[1])
    assert (params[0].numpy() != START[0]).any()
