"""Adam and its kin: decoupled weight decay, Nesterov's momentum, a rectified first phase."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import metaop as mo
from metaop import Var

from .optimizer import Group, Optimizer, State, check_at_least_zero


def check_betas(betas: tuple[float, float]) -> None:
    """Raise ValueError for a factor outside [0, 1)."""
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be in [0, 1), got {betas}")


class Adam(Optimizer):
    """`w -= lr * m' / (sqrt(v') + eps)`, m and v the moving averages of g and g².

    `m = b1*m + (1-b1)*g`, `v = b2*v + (1-b2)*g²`; `m' = m / (1 - b1^t)` and `v' = v / (1 - b2^t)`
    at step t.  weight_decay adds `weight_decay * w` to g.  With amsgrad, the largest v so far takes
    the place of v.

    State: exp_avg (m), exp_avg_sq (v), and max_exp_avg_sq with amsgrad.
    Source: Kingma and Ba 2015, algorithm 1; amsgrad: Reddi et al. 2018.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ):
        check_at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
        }
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The two moving averages, and with amsgrad the largest second one."""
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the first moment over the root of the second."""
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        return self._moved(parameter, gradient, state, group)

    def _moved(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """The step itself, weight decay left aside."""
        (beta1, beta2), t = group["betas"], state["step"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        new_state = {
            "exp_avg": mean + (1 - beta1) * (gradient - mean),
            "exp_avg_sq": beta2 * square + (1 - beta2) * (gradient * gradient),
        }
        spread = new_state["exp_avg_sq"]
        if group["amsgrad"]:
            spread = mo.maximum(state["max_exp_avg_sq"], spread)
            new_state["max_exp_avg_sq"] = spread
        size = group["lr"] / (1 - beta1**t)
        scale = 1 / (1 - beta2**t) ** 0.5
        step = size * new_state["exp_avg"] / (mo.sqrt(spread) * scale + group["eps"])
        return parameter - step, new_state


class AdamW(Adam):
    """Adam with `w -= lr * weight_decay * w` before each step instead of a term in g.

    Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """Shrink the parameter, then one step of Adam."""
        shrunk = parameter * (1 - group["lr"] * group["weight_decay"])
        return self._moved(shrunk, gradient, state, group)


class NAdam(Adam):
    """Adam with Nesterov's momentum: `w -= lr * (mu' m / (1 - M mu') + (1-mu) g / (1 - M)) / d`.

    `mu = b1 (1 - 0.96^(t momentum_decay) / 2)`, mu' that of step t + 1, M the product of all mu so
    far, d Adam's divisor.  decoupled_weight_decay shrinks w as AdamW.

    State: exp_avg (m), exp_avg_sq (v), mu_product (M).
    Source: Dozat 2016; as torch.optim.NAdam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
    ):
        check_at_least_zero(lr=lr, eps=eps, weight_decay=weight_decay, decay=momentum_decay)
        check_betas(betas)
        defaults = {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        Optimizer.__init__(self, params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The two moving averages, and the product of the momenta."""
        return ("exp_avg", "exp_avg_sq", "mu_product")

    def initial(self, name: str, parameter: Var, group: Group) -> Var:
        """Zeros; 1 for the product."""
        if name == "mu_product":
            return mo.ones((), dtype=parameter.dtype)
        return super().initial(name, parameter, group)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step by the momentum that the next one will have."""
        parameter, gradient = _with_decay(parameter, gradient, group)
        (beta1, beta2), t, decay = group["betas"], state["step"], group["momentum_decay"]
        mu = beta1 * (1 - 0.5 * 0.96 ** (t * decay))
        following = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
        product = state["mu_product"] * mu
        mean = state["exp_avg"] + (1 - beta1) * (gradient - state["exp_avg"])
        square = beta2 * state["exp_avg_sq"] + (1 - beta2) * (gradient * gradient)
        divisor = mo.sqrt(square / (1 - beta2**t)) + group["eps"]
        ahead = group["lr"] * following / (1 - product * following) * mean
        now = group["lr"] * (1 - mu) / (1 - product) * gradient
        new_state = {"exp_avg": mean, "exp_avg_sq": square, "mu_product": product}
        return parameter - (ahead + now) / divisor, new_state


class RAdam(Adam):
    """Adam whose divisor counts only once its variance is known: from `rho > 5`, times a factor r.

    `rho = R - 2 t b2^t / (1 - b2^t)`, `R = 2 / (1 - b2) - 1`, and
    `r² = (rho-4)(rho-2)R / ((R-4)(R-2)rho)`; before, the step is `lr * m / (1 - b1^t)`.

    State: exp_avg (m), exp_avg_sq (v).
    Source: Liu et al. 2020, algorithm 2; as torch.optim.RAdam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
        for group in (self.defaults, *self.param_groups):
            group.setdefault("decoupled_weight_decay", decoupled_weight_decay)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step, rectified or without a divisor."""
        parameter, gradient = _with_decay(parameter, gradient, group)
        (beta1, beta2), t = group["betas"], state["step"]
        mean = state["exp_avg"] + (1 - beta1) * (gradient - state["exp_avg"])
        square = beta2 * state["exp_avg_sq"] + (1 - beta2) * (gradient * gradient)
        new_state = {"exp_avg": mean, "exp_avg_sq": square}
        step = group["lr"] / (1 - beta1**t) * mean
        limit = 2 / (1 - beta2) - 1
        rho = limit - 2 * t * beta2**t / (1 - beta2**t)
        if rho <= 5:
            return parameter - step, new_state
        ratio = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        factor = (ratio * (1 - beta2**t)) ** 0.5
        return parameter - factor * step / (mo.sqrt(square) + group["eps"]), new_state


def _with_decay(parameter: Var, gradient: Var, group: Group) -> tuple[Var, Var]:
    """Weight decay in its place: off the parameter, or in the gradient."""
    decay = group["weight_decay"]
    if not decay:
        return parameter, gradient
    if group["decoupled_weight_decay"]:
        return parameter * (1 - group["lr"] * decay), gradient
    return parameter, gradient + decay * parameter
