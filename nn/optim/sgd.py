"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from metaop import Var

from .optimizer import Group, Optimizer, State, check_at_least_zero


class SGD(Optimizer):
    """`w -= lr * v`, where `v = momentum * v + (1 - dampening) * (g + weight_decay * w)`.

    g is the gradient.  The first v is the gradient itself, without dampening.  nesterov steps by
    `g + momentum * v` instead of v.  lr may be changed at any time: `opt.lr = 0.1`.

    State: momentum_buffer (v), if momentum is not 0.
    Source: Sutskever et al. 2013, in the form of torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        check_at_least_zero(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and dampening 0")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """momentum_buffer, if there is momentum."""
        return ("momentum_buffer",) if group["momentum"] else ()

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """One step down the (smoothed) gradient."""
        lr, momentum = group["lr"], group["momentum"]
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        if not momentum:
            return parameter - lr * gradient, {}
        dampened = group["dampening"] and state["step"] > 1
        share = (1 - group["dampening"]) * gradient if dampened else gradient
        buffer = momentum * state["momentum_buffer"] + share
        direction = gradient + momentum * buffer if group["nesterov"] else buffer
        return parameter - lr * direction, {"momentum_buffer": buffer}
