"""Optimisers whose step follows the size or the sign of past gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import metaop as mo
from metaop import Var

from .adam import check_betas
from .optimizer import Group, Optimizer, State, check_at_least_zero


def _decayed(parameter: Var, gradient: Var, group: Group) -> Var:
    """The gradient with `weight_decay * w` added."""
    decay = group["weight_decay"]
    return gradient + decay * parameter if decay else gradient


class RMSprop(Optimizer):
    """`w -= lr * g / (sqrt(v) + eps)`, v the moving average of g²: `v = alpha*v + (1-alpha)*g²`.

    With centered, the square of g's own moving average is taken off v.  With momentum, the step is
    `b = momentum*b + g / (…)` times lr.

    State: square_avg (v), momentum_buffer (b), grad_avg.
    Source: Hinton 2012, lecture 6e; centered: Graves 2013; as torch.optim.RMSprop.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ):
        check_at_least_zero(
            lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
        )
        defaults = {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
            "momentum": momentum, "centered": centered,
        }  # fmt: skip
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """square_avg, and what momentum and centered need."""
        momentum = ("momentum_buffer",) if group["momentum"] else ()
        return ("square_avg", *momentum, *(("grad_avg",) if group["centered"] else ()))

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the gradient over the root of its mean square."""
        gradient, alpha = _decayed(parameter, gradient, group), group["alpha"]
        square = alpha * state["square_avg"] + (1 - alpha) * (gradient * gradient)
        new_state, spread = {"square_avg": square}, square
        if group["centered"]:
            mean = state["grad_avg"] + (1 - alpha) * (gradient - state["grad_avg"])
            new_state["grad_avg"], spread = mean, square - mean * mean
        direction = gradient / (mo.sqrt(spread) + group["eps"])
        if group["momentum"]:
            direction = group["momentum"] * state["momentum_buffer"] + direction
            new_state["momentum_buffer"] = direction
        return parameter - group["lr"] * direction, new_state


class Adagrad(Optimizer):
    """`w -= lr_t * g / (sqrt(s) + eps)`, s the sum of all g²; `lr_t = lr / (1 + (t-1) * lr_decay)`.

    State: sum (s), initial_accumulator_value at first.
    Source: Duchi et al. 2011; as torch.optim.Adagrad.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ):
        check_at_least_zero(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps,
            initial_accumulator_value=initial_accumulator_value,
        )  # fmt: skip
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
        }  # fmt: skip
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The sum of the squares."""
        return ("sum",)

    def initial(self, name: str, parameter: Var, group: Group) -> Var:
        """The given value everywhere."""
        value = group["initial_accumulator_value"]
        return mo.full(parameter.shape, value, dtype=parameter.dtype)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the gradient over the root of the sum of squares."""
        gradient = _decayed(parameter, gradient, group)
        total = state["sum"] + gradient * gradient
        size = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        return parameter - size * gradient / (mo.sqrt(total) + group["eps"]), {"sum": total}


class Adadelta(Optimizer):
    """`w -= lr * d`, `d = sqrt(u + eps) / sqrt(v + eps) * g`, u and v moving averages of d², g².

    State: square_avg (v), acc_delta (u).
    Source: Zeiler 2012, algorithm 1; as torch.optim.Adadelta.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        check_at_least_zero(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)
        if rho > 1:
            raise ValueError(f"rho must be at most 1, got {rho}")
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The moving averages of the squares of gradients and steps."""
        return ("square_avg", "acc_delta")

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step of the size that past steps had."""
        gradient, rho, eps = _decayed(parameter, gradient, group), group["rho"], group["eps"]
        square = rho * state["square_avg"] + (1 - rho) * (gradient * gradient)
        delta = mo.sqrt(state["acc_delta"] + eps) / mo.sqrt(square + eps) * gradient
        moved = rho * state["acc_delta"] + (1 - rho) * (delta * delta)
        return parameter - group["lr"] * delta, {"square_avg": square, "acc_delta": moved}


class Adamax(Optimizer):
    """`w -= lr / (1 - b1^t) * m / u`, `u = max(b2 * u, |g| + eps)`, m as in Adam.

    State: exp_avg (m), exp_inf (u).
    Source: Kingma and Ba 2015, algorithm 2; as torch.optim.Adamax.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        check_at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The moving average, and the largest gradient, which fades."""
        return ("exp_avg", "exp_inf")

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the first moment over the largest gradient."""
        gradient, (beta1, beta2) = _decayed(parameter, gradient, group), group["betas"]
        mean = state["exp_avg"] + (1 - beta1) * (gradient - state["exp_avg"])
        largest = mo.maximum(beta2 * state["exp_inf"], mo.abs(gradient) + group["eps"])
        size = group["lr"] / (1 - beta1 ** state["step"])
        return parameter - size * mean / largest, {"exp_avg": mean, "exp_inf": largest}


class Rprop(Optimizer):
    """`w -= size * sign(g)`, a size for each element: times etas[1] where g keeps its sign, at most
    step_sizes[1]; times etas[0] where it changes, at least step_sizes[0], and then no step.

    State: prev (the gradient before), step_size, lr at first.
    Source: Riedmiller and Braun 1993; as torch.optim.Rprop.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
    ):
        check_at_least_zero(lr=lr)
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"etas must be below and above 1, got {etas}")
        defaults = {"lr": lr, "etas": tuple(etas), "step_sizes": tuple(step_sizes)}
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The gradient before, and the size of each element's step."""
        return ("prev", "step_size")

    def initial(self, name: str, parameter: Var, group: Group) -> Var:
        """Zeros, and lr for the size of a step."""
        value = group["lr"] if name == "step_size" else 0
        return mo.full(parameter.shape, value, dtype=parameter.dtype)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the signs alone."""
        (less, more), (smallest, largest) = group["etas"], group["step_sizes"]
        turn = state["prev"] * gradient
        factor = mo.where(turn > 0, more, mo.where(turn < 0, less, 1.0)).astype(parameter.dtype)
        size = mo.clip(state["step_size"] * factor, smallest, largest)
        kept = mo.where(turn < 0, 0, gradient)
        return parameter - size * mo.sign(kept), {"prev": kept, "step_size": size}


class ASGD(Optimizer):
    """Averaged gradient descent: `w = (1 - lambd*eta) * w - eta*g`, and `ax` the mean of w from t0.

    `eta = lr / (1 + lambd*lr*t)^alpha`; `ax` starts to average at step t0.

    State: ax.
    Source: Polyak and Juditsky 1992; as torch.optim.ASGD.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
    ):
        check_at_least_zero(lr=lr, weight_decay=weight_decay)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay
        }  # fmt: skip
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The average."""
        return ("ax",)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step, and the average of the parameters."""
        gradient, t = _decayed(parameter, gradient, group), state["step"]
        lr, lambd, alpha = group["lr"], group["lambd"], group["alpha"]
        before = t - 1  # of which eta is that of this step
        eta = lr / (1 + lambd * lr * before) ** alpha
        value = parameter * (1 - lambd * eta) - eta * gradient
        if before <= group["t0"]:
            return value, {"ax": value}
        return value, {"ax": state["ax"] + (value - state["ax"]) / (before - group["t0"])}


class Lion(Optimizer):
    """`w -= lr * (sign(b1*m + (1-b1)*g) + weight_decay * w)`, then `m = b2*m + (1-b2)*g`.

    State: exp_avg (m).
    Source: Chen et al. 2023, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        check_at_least_zero(lr=lr, weight_decay=weight_decay)
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The moving average of the gradient."""
        return ("exp_avg",)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the sign of the interpolated gradient."""
        (beta1, beta2), mean = group["betas"], state["exp_avg"]
        direction = mo.sign(beta1 * mean + (1 - beta1) * gradient)
        value = parameter * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * direction
        return value, {"exp_avg": beta2 * mean + (1 - beta2) * gradient}
