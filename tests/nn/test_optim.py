"""Optimisers: trajectories against PyTorch, both ways to step, state, and what they refuse."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn import optim

rng = np.random.default_rng(0)
START = [rng.standard_normal(shape).astype(np.float32) for shape in [(3, 2), (2,)]]
DATA = [rng.standard_normal((5, n)).astype(np.float32) for n in (3, 2)]


def parameters():
    return [nn.Parameter(value) for value in START]


def loss_of(weight, bias, array):
    """Mean square of a small linear model; works on Vars and on tensors."""
    error = array(DATA[0]) @ weight + bias - array(DATA[1])
    return (error * error).mean()


def trajectory(optimiser, params, steps=5):
    """The parameters after each of `steps` steps by `step(loss)`."""
    out = []
    for _ in range(steps):
        optimiser.step(loss_of(*params, mo.array))
        out.append([p.numpy() for p in params])
    return out


def torch_trajectory(name, options, steps=5):
    torch = pytest.importorskip("torch")
    params = [torch.nn.Parameter(torch.tensor(value)) for value in START]
    optimiser = getattr(torch.optim, name)(params, **options)
    out = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(*params, torch.tensor).backward()
        optimiser.step()
        out.append([p.detach().numpy().copy() for p in params])
    return out


def assert_close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "name, options",
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 1.0, "weight_decay": 0.05}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
        ("Adam", {"lr": 0.05}),
        ("Adam", {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
        ("Adam", {"lr": 0.1, "amsgrad": True}),
        ("AdamW", {"lr": 0.05}),
        ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
        ("RMSprop", {"lr": 0.05, "weight_decay": 0.1}),
        ("RMSprop", {"lr": 0.05, "alpha": 0.9, "momentum": 0.9, "centered": True}),
        ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.3}),
        ("Adadelta", {"lr": 2.0, "rho": 0.8, "weight_decay": 0.1}),
        ("Adamax", {"lr": 0.1, "weight_decay": 0.1}),
        ("NAdam", {"lr": 0.1, "weight_decay": 0.1}),
        ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("RAdam", {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1}),
        ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("Rprop", {"lr": 0.1}),
        ("ASGD", {"lr": 0.1, "lambd": 0.1, "weight_decay": 0.1, "t0": 2}),
    ],
)
def test_trajectory_is_that_of_torch(name, options):
    params = parameters()
    steps = 8 if name == "RAdam" else 5  # its divisor counts from the 6th on
    ours = trajectory(getattr(optim, name)(params, **options), params, steps)
    assert_close(ours, torch_trajectory(name, options, steps))


@pytest.mark.parametrize("name, options", [("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_step_with_loss_is_zero_grad_backward_step(name, options):
    params, twins = parameters(), parameters()
    expected = trajectory(getattr(optim, name)(params, lr=0.1, **options), params)
    optimiser = getattr(optim, name)(twins, lr=0.1, **options)
    for values in expected:
        optimiser.zero_grad()
        loss_of(*twins, mo.array).backward()
        optimiser.step()
        for twin, value in zip(twins, values, strict=True):
            np.testing.assert_array_equal(twin.numpy(), value)


def test_step_with_loss_leaves_no_gradient():
    params = parameters()
    optimiser = optim.SGD(params, lr=0.1)
    loss_of(*params, mo.array).backward()
    assert params[0].grad is not None
    optimiser.step(loss_of(*params, mo.array))
    assert all(p.grad is None for p in params)


def test_step_ignores_a_gradient_accumulated_before_step_with_loss():
    params, twins = parameters(), parameters()
    loss_of(*params, mo.array).backward()
    a, b = (
        trajectory(optim.SGD(params, lr=0.1), params, 1),
        trajectory(optim.SGD(twins, 0.1), twins, 1),
    )
    assert_close(a, b)


def test_parameters_without_a_gradient_stay():
    weight, bias = parameters()
    optimiser = optim.SGD([weight, bias], lr=0.1, weight_decay=0.1, momentum=0.9)
    (weight * weight).sum().backward()
    optimiser.step()
    np.testing.assert_array_equal(bias.numpy(), START[1])
    assert not np.array_equal(weight.numpy(), START[0])
    assert optimiser.state[weight]["step"] == 1 and optimiser.state[bias]["step"] == 0


def test_frozen_parameters_stay():
    weight, bias = parameters()
    bias.requires_grad = False
    optimiser = optim.Adam([weight, bias])
    optimiser.step(loss_of(weight, bias, mo.array))
    np.testing.assert_array_equal(bias.numpy(), START[1])
    assert bias not in optimiser.state


def test_parameters_keep_their_identity():
    params = parameters()
    before = [id(p) for p in params]
    optimiser = optim.Adam(params)
    trajectory(optimiser, params, 1)
    assert [id(p) for p in optimiser.param_groups[0]["params"]] == before


def test_zero_grad_sets_none_or_zeros():
    params = parameters()
    optimiser = optim.SGD(params, lr=0.1)
    loss_of(*params, mo.array).backward()
    optimiser.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(params[1].grad.numpy(), [0, 0])
    optimiser.zero_grad()
    assert params[1].grad is None


# --- hyperparameters and groups -------------------------------------------------------------------


def test_the_learning_rate_may_change_between_steps():
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Parameter([1.0]), torch.nn.Parameter(torch.tensor([1.0]))
    a, b = optim.SGD([ours], lr=0.4), torch.optim.SGD([theirs], lr=0.4)
    for lr in (0.4, 0.3, 0.07):
        a.lr = b.param_groups[0]["lr"] = lr
        a.step((ours * ours).sum())
        b.zero_grad()
        (theirs * theirs).sum().backward()
        b.step()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)
    assert a.param_groups[0]["lr"] == a.lr == 0.07
    a.param_groups[0]["lr"] = 0.5
    assert a.lr == 0.5


def test_groups_have_hyperparameters_of_their_own():
    weight, bias = parameters()
    optimiser = optim.SGD([{"params": [weight], "lr": 0.0}, {"params": bias}], lr=0.1)
    trajectory(optimiser, [weight, bias], 1)
    np.testing.assert_array_equal(weight.numpy(), START[0])
    assert not np.array_equal(bias.numpy(), START[1])
    assert [group["lr"] for group in optimiser.param_groups] == [0.0, 0.1]
    optimiser.lr = 0.2
    assert [group["lr"] for group in optimiser.param_groups] == [0.2, 0.2]
    optimiser.add_param_group({"params": [nn.Parameter([1.0])], "momentum": 0.5})
    assert optimiser.param_groups[2]["momentum"] == 0.5


def test_momentum_may_be_switched_on_later():
    params = parameters()
    optimiser = optim.SGD(params, lr=0.1)
    trajectory(optimiser, params, 1)
    optimiser.param_groups[0]["momentum"] = 0.9
    trajectory(optimiser, params, 1)
    assert "momentum_buffer" in optimiser.state[params[0]]


def test_a_module_trains():
    """y = 2x + 1 by full-batch descent to a mean square error of 1e-3."""
    mo.manual_seed(0)
    net = nn.Linear(1, 1)
    optimiser = optim.SGD(net.parameters(), lr=0.3, momentum=0.5)
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(-1, 1)
    data, target = mo.array(x), mo.array(2 * x + 1)
    for _ in range(60):
        loss = nn.functional.mse_loss(net(data), target)
        optimiser.step(loss)
    assert loss.item() < 1e-3


def test_a_failing_step_leaves_parameters_and_state():
    net = nn.Linear(2, 3)
    optimiser = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    before = net.weight.numpy()
    labels = mo.array(np.array([0, 3]))
    with pytest.raises(IndexError):
        optimiser.step(nn.functional.cross_entropy(net(mo.ones((2, 2))), labels))
    np.testing.assert_array_equal(net.weight.numpy(), before)
    assert optimiser.state[net.weight]["step"] == 0
    np.testing.assert_array_equal(
        optimiser.state[net.weight]["momentum_buffer"].numpy(), 0 * before
    )
    optimiser.step(net(mo.ones((2, 2))).sum())
    assert not np.array_equal(net.weight.numpy(), before)


# --- state dict -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, options", [("SGD", {"momentum": 0.9}), ("Adam", {"amsgrad": True})])
def test_training_goes_on_from_a_state_dict_as_if_uninterrupted(name, options):
    params = parameters()
    optimiser = getattr(optim, name)(params, lr=0.1, **options)
    trajectory(optimiser, params, 2)
    saved, values = optimiser.state_dict(), [p.numpy() for p in params]
    expected = trajectory(optimiser, params, 2)

    twins = [nn.Parameter(value) for value in values]
    resumed = getattr(optim, name)(twins, lr=0.9, **options)
    resumed.load_state_dict(saved)
    assert resumed.lr == 0.1
    for a, b in zip(trajectory(resumed, twins, 2), expected, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_state_dict_has_torch_layout():
    params = parameters()
    optimiser = optim.Adam(params)
    trajectory(optimiser, params, 1)
    state = optimiser.state_dict()
    assert state["param_groups"][0]["params"] == [0, 1]
    assert state["param_groups"][0]["betas"] == (0.9, 0.999)
    assert set(state["state"][1]) == {"step", "exp_avg", "exp_avg_sq"}


def test_load_state_dict_refuses_what_does_not_fit_and_changes_nothing():
    params = parameters()
    optimiser = optim.SGD(params, lr=0.1, momentum=0.9)
    state = optimiser.state_dict()
    with pytest.raises(ValueError, match=r"groups have \[1\] parameters here, \[2\] in the state"):
        optim.SGD(params[:1], lr=0.1).load_state_dict(state)
    bad = copy.copy(state)
    bad["state"] = {0: {"step": 3, "momentum_buffer": mo.zeros((7,))}}
    with pytest.raises(
        ValueError, match=r"momentum_buffer is f32\[7\], its parameter is f32\[3,2\]"
    ):
        optimiser.load_state_dict(bad)
    assert optimiser.state[params[0]]["step"] == 0


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: optim.SGD([], lr=0.1), ValueError, "got no parameters"),
        (lambda: optim.SGD(nn.Parameter([1.0]), lr=0.1), TypeError, "must be an iterable of Vars"),
        (lambda: optim.SGD([1.0], lr=0.1), TypeError, "an optimiser moves Vars, got float"),
        (
            lambda: optim.SGD([nn.Parameter([1.0])], lr=-1),
            ValueError,
            "lr must be at least 0, got -1",
        ),
        (
            lambda: optim.SGD([nn.Parameter([1.0])], lr=0.1, nesterov=True),
            ValueError,
            "nesterov needs a momentum",
        ),
        (
            lambda: optim.Adam([nn.Parameter([1.0])], betas=(1.0, 0.9)),
            ValueError,
            "betas must be in",
        ),
        (lambda: optim.SGD([nn.Parameter([1.0])] * 2, lr=1), ValueError, "more than one place"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_repr_shows_the_groups():
    text = repr(optim.SGD([nn.Parameter([1.0])], lr=0.1))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.1\n")


def test_lion_steps_by_signs_and_decays():
    """Algorithm 2 of the paper, in NumPy: torch has none."""
    params = parameters()
    optimiser = optim.Lion(params, lr=0.1, betas=(0.5, 0.8), weight_decay=0.2)
    weights, means = [v.astype(np.float64) for v in START], [0.0, 0.0]
    for weight, bias in trajectory(optimiser, params, 4):
        error = DATA[0] @ weights[0] + weights[1] - DATA[1]
        gradients = [2 * DATA[0].T @ error / error.size, 2 * error.sum(0) / error.size]
        for k, g in enumerate(gradients):
            direction = np.sign(0.5 * means[k] + 0.5 * g) + 0.2 * weights[k]
            weights[k] = weights[k] - 0.1 * direction
            means[k] = 0.8 * means[k] + 0.2 * g
        assert_close([[weight, bias]], [weights])


def test_state_of_another_shape_than_its_parameter_is_loaded():
    params, twins = parameters(), parameters()
    optimiser, other = optim.NAdam(params), optim.NAdam(twins)
    trajectory(optimiser, params, 2)
    other.load_state_dict(optimiser.state_dict())
    assert (
        other.state[twins[0]]["mu_product"].item()
        == optimiser.state[params[0]]["mu_product"].item()
    )
