"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import metaop as mo
from metaop import Var

from .optimizer import Group, Optimizer, State, check_at_least_zero


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
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
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
