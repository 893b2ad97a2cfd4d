"""Learning rates over time: `scheduler.step()` after every epoch, or every batch, sets `lr`.

A learning rate is an input of the compiled step, so no change of it compiles anything.  Names,
arguments and numbers are those of torch.optim.lr_scheduler.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..hints import refuse
from .optimizer import Group, Optimizer


class LRScheduler:
    """The base: a subclass says what a group's learning rate is at epoch `last_epoch` (`rate`).

    optimizer: its groups get an entry initial_lr, the rate that epoch 0 starts from.
    base_lrs: those rates; last_epoch: how many steps were made.  Making a scheduler sets the rates
    of epoch 0.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: optimizer must be an Optimizer, "
                f"got {type(optimizer).__name__}"
            )
        self.optimizer, self.last_epoch = optimizer, last_epoch
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def rate(self, group: Group, base: float) -> float:
        """The learning rate of a group at `last_epoch`; group["lr"] is that of the epoch before."""
        raise NotImplementedError

    def rates(self) -> list[float]:
        """The learning rate of every group at `last_epoch`."""
        groups = self.optimizer.param_groups
        return [self.rate(group, base) for group, base in zip(groups, self.base_lrs, strict=True)]

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch, or to a given one."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"] = rate

    def get_last_lr(self) -> list[float]:
        """The learning rate of every group now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser and functions."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "optimizer" and not callable(value)
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict()` gave; the optimiser has a state dict of its own."""
        vars(self).update(state_dict)


class _Multiplied(LRScheduler):
    """`lr[t] = lr[t-1] * factor(t) / factor(t-1)`: so several of them may act on one optimiser."""

    def factor(self, t: int) -> float:
        """lr over the initial lr at epoch t."""
        raise NotImplementedError

    def rate(self, group: Group, base: float) -> float:
        """By the quotient of two factors."""
        if self.last_epoch == 0:
            return group["lr"] * self.factor(0)
        before = self.factor(self.last_epoch - 1)
        return group["lr"] * self.factor(self.last_epoch) / before if before else group["lr"]


class StepLR(_Multiplied):
    """`lr * gamma ** (t // step_size)`."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """One gamma for each step_size epochs."""
        return self.gamma ** (t // self.step_size)


class MultiStepLR(_Multiplied):
    """`lr * gamma ** k` after k of the milestones."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ):
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """One gamma for each milestone up to t."""
        return self.gamma ** bisect_right(sorted(self.milestones.elements()), t)


class ExponentialLR(_Multiplied):
    """`lr * gamma ** t`."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """One gamma for each epoch."""
        return self.gamma**t


class ConstantLR(_Multiplied):
    """`lr * factor` for total_iters epochs, then lr."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if not 0 < factor <= 1:
            raise ValueError(f"ConstantLR: factor must be in (0, 1], got {factor}")
        self.share, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """The share, then 1."""
        return self.share if t < self.total_iters else 1.0


class LinearLR(_Multiplied):
    """`lr` times a factor that goes in a line from start_factor to end_factor in total_iters
    epochs: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                "LinearLR: start_factor must be in (0, 1] and end_factor in [0, 1], "
                f"got {start_factor} and {end_factor}"
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """The place on the line."""
        share = min(t, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * share


class PolynomialLR(_Multiplied):
    """`lr * (1 - min(t, total_iters) / total_iters) ** power`."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ):
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """What is left, to the power."""
        return (1 - min(t, self.total_iters) / self.total_iters) ** self.power


class MultiplicativeLR(LRScheduler):
    """`lr[t] = lr[t-1] * lr_lambda(t)`."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ):
        self.lr_lambdas = _one_each(optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def rates(self) -> list[float]:
        """The rates before, times each group's factor."""
        if self.last_epoch == 0:
            return list(self.base_lrs)
        return [
            group["lr"] * factor(self.last_epoch)
            for group, factor in zip(self.optimizer.param_groups, self.lr_lambdas, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser and the functions."""
        return {k: v for k, v in super().state_dict().items() if k != "lr_lambdas"}


class LambdaLR(MultiplicativeLR):
    """`lr * lr_lambda(t)`; lr_lambda is one function, or one for each group."""

    def rates(self) -> list[float]:
        """The initial rates, times each group's factor."""
        return [
            base * factor(self.last_epoch)
            for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]


def _one_each(optimizer: Optimizer, given: Any) -> list[Any]:
    """One value for each group."""
    count = len(optimizer.param_groups)
    values = list(given) if isinstance(given, list | tuple) else [given] * count
    if len(values) != count:
        raise ValueError(f"one value or {count}, one for each group, are needed, got {len(values)}")
    return values


class CosineAnnealingLR(LRScheduler):
    """`eta_min + (lr - eta_min) (1 + cos(pi t / T_max)) / 2`.

    Source: Loshchilov and Hutter 2017, eq. 5, without restarts.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1  # noqa: N803
    ):  # fmt: skip
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, group: Group, base: float) -> float:
        """By the quotient of two cosines, so that others may act on the rate, too."""
        t, top, low = self.last_epoch, self.T_max, self.eta_min
        if t == 0:
            return group["lr"]
        if (t - 1 - top) % (2 * top) == 0:  # at the bottom the quotient is without meaning
            return group["lr"] + (base - low) * (1 - math.cos(math.pi / top)) / 2
        now, before = (1 + math.cos(math.pi * k / top) for k in (t, t - 1))
        return low + (group["lr"] - low) * now / before


class CosineAnnealingWarmRestarts(LRScheduler):
    """A cosine from lr to eta_min in T_0 epochs, then again in T_mult times as many, and so on.

    `step(epoch)` may be given a fraction of an epoch.
    Source: Loshchilov and Hutter 2017, eq. 5.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,  # noqa: N803
        T_mult: int = 1,  # noqa: N803
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ):
        if T_0 < 1 or T_mult < 1:
            raise ValueError(f"T_0 and T_mult must be at least 1, got {T_0} and {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, group: Group, base: float) -> float:
        """By the place within the present period."""
        place, length = float(self.last_epoch), self.T_0
        if self.T_mult == 1:
            place %= length
        while place >= length:
            place, length = place - length, length * self.T_mult
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * place / length)) / 2


def _between(start: float, end: float, share: float, strategy: str) -> float:
    """From start to end along a line, or half a cosine."""
    if strategy == "cos":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


class _WithMomentum(LRScheduler):
    """A scheduler that moves the momentum against the learning rate."""

    def _set_momentum(self, group: Group, value: float) -> None:
        if "betas" in group:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class OneCycleLR(_WithMomentum):
    """From max_lr / div_factor up to max_lr in pct_start of the steps, then down to the first rate
    over final_div_factor; with cycle_momentum, momentum (or beta1) goes the other way.

    total_steps, or epochs times steps_per_epoch; one `step()` a batch.
    Source: Smith and Topin 2018.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
            )
        self.total_steps = total_steps or (epochs or 0) * (steps_per_epoch or 0)
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        last, up = self.total_steps - 1, pct_start * self.total_steps - 1
        ends = [up, 2 * up, last] if three_phase else [up, last]
        self.max_lrs = _one_each(optimizer, max_lr)
        first, end = 1 / div_factor, 1 / div_factor / final_div_factor
        # what lr and momentum are at the end of each phase, as shares of max_lr and as values
        self.phases = list(zip(ends, [1.0, first, end] if three_phase else [1.0, end], strict=True))
        low, high = base_momentum, max_momentum
        self.first_share = first
        self.momenta = [high, low, *([high, high] if three_phase else [high])]
        for group, top in zip(optimizer.param_groups, self.max_lrs, strict=True):
            group["initial_lr"] = top * first
        super().__init__(optimizer, last_epoch)

    def rates(self) -> list[float]:
        """By the phase that the present step lies in; sets the momentum, too."""
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(f"OneCycleLR: step {t + 1} of {self.total_steps} steps")
        start, share, number = 0.0, self.first_share, 0
        for number, (end, until) in enumerate(self.phases):
            if t <= end or number == len(self.phases) - 1:
                break
            start, share = end, until
        along = (t - start) / (end - start)
        if self.cycle_momentum:
            before, after = self.momenta[number : number + 2]
            value = _between(before, after, along, self.anneal_strategy)
            for group in self.optimizer.param_groups:
                self._set_momentum(group, value)
        return [
            _between(top * share, top * until, along, self.anneal_strategy) for top in self.max_lrs
        ]


class CyclicLR(_WithMomentum):
    """From base_lr to max_lr in step_size_up steps and back in step_size_down, for ever.

    mode: the height of the triangle is the same in every cycle ("triangular"), halves
    ("triangular2"), or is gamma^t ("exp_range"); scale_fn(x), of the cycle or with scale_mode
    "iterations" of t, in their place.
    Source: Smith 2017.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ):
        scales: dict[str, tuple[Callable[[float], float], str]] = {
            "triangular": (lambda cycle: 1.0, "cycle"),
            "triangular2": (lambda cycle: 0.5 ** (cycle - 1), "cycle"),
            "exp_range": (lambda t: gamma**t, "iterations"),
        }
        if scale_fn is None and mode not in scales:
            raise ValueError(f"CyclicLR: mode must be one of {', '.join(scales)}, got {mode!r}")
        self.scale_fn, self.scale_mode = (scale_fn, scale_mode) if scale_fn else scales[mode]
        self.up, self.down = step_size_up, step_size_down or step_size_up
        self.max_lrs, self.cycle_momentum = _one_each(optimizer, max_lr), cycle_momentum
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        bases = _one_each(optimizer, base_lr)
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            group["initial_lr"] = base
        super().__init__(optimizer, last_epoch)

    def rates(self) -> list[float]:
        """By the height of the triangle at the present step; sets the momentum, too."""
        t, period = self.last_epoch, self.up + self.down
        cycle, place = t // period + 1, t % period
        height = place / self.up if place <= self.up else (period - place) / self.down
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else t)
        if self.cycle_momentum:
            value = self.max_momentum - (self.max_momentum - self.base_momentum) * height
            for group in self.optimizer.param_groups:
                self._set_momentum(group, value)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [base + (top - base) * height for base, top in pairs]


class SequentialLR(LRScheduler):
    """Schedulers one after the other: number k acts from milestones[k-1] on, from its epoch 0."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ):
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedulers need {len(schedulers) - 1} "
                f"milestones, got {len(milestones)}"
            )
        _check_optimizer("SequentialLR", optimizer, schedulers)
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        self.optimizer, self.last_epoch = optimizer, last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self.schedulers[0].step(0)

    def step(self, epoch: int | None = None) -> None:
        """Let the scheduler whose turn it is make its step."""
        self.last_epoch += 1
        number = bisect_right(self.milestones, self.last_epoch)
        first = number > 0 and self.milestones[number - 1] == self.last_epoch
        if first:
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"]
        self.schedulers[number].step(*([0] if first else []))

    def state_dict(self) -> dict[str, Any]:
        """That of every scheduler, and the number of steps."""
        return _nested_state(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict()` gave."""
        _load_nested_state(self, state_dict)


class ChainedScheduler(LRScheduler):
    """Several schedulers that act on the rate at every step, one after another."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        if not schedulers:
            raise ValueError("ChainedScheduler: at least one scheduler is needed")
        self.optimizer = optimizer or schedulers[0].optimizer
        _check_optimizer("ChainedScheduler", self.optimizer, schedulers)
        self.schedulers = list(schedulers)

    def step(self, epoch: int | None = None) -> None:
        """A step of each."""
        for scheduler in self.schedulers:
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """That of every scheduler."""
        return _nested_state(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict()` gave."""
        _load_nested_state(self, state_dict)


def _check_optimizer(name: str, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
    if any(scheduler.optimizer is not optimizer for scheduler in schedulers):
        raise ValueError(f"{name}: all schedulers must have the same optimizer")


def _nested_state(self: Any) -> dict[str, Any]:
    rest = {k: v for k, v in vars(self).items() if k not in ("optimizer", "schedulers")}
    return {**rest, "_schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}


def _load_nested_state(self: Any, state_dict: dict[str, Any]) -> None:
    vars(self).update({k: v for k, v in state_dict.items() if k != "_schedulers"})
    for scheduler, state in zip(self.schedulers, state_dict["_schedulers"], strict=True):
        scheduler.load_state_dict(state)


class ReduceLROnPlateau(LRScheduler):
    """`lr *= factor` when `step(metric)` has brought nothing better for more than patience steps.

    mode: whether less ("min") or more ("max") is better; threshold: by how much, as a share of the
    best so far (threshold_mode "rel") or as it is ("abs"); cooldown: steps that do not count after
    a reduction; min_lr: the least rate; eps: the least change.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ):
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1, got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                "ReduceLROnPlateau: mode must be 'min' or 'max' and threshold_mode 'rel' or 'abs', "
                f"got {mode!r} and {threshold_mode!r}"
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lrs = _one_each(optimizer, min_lr)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def is_better(self, metric: float, best: float) -> bool:
        """Whether metric beats best by more than the threshold."""
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            return metric * sign > best * sign + self.threshold
        return metric * sign > best * (1 + sign * self.threshold) * sign

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take notice of a metric; reduce the rate if there was nothing better for too long."""
        metric = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(metric, self.best):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            rate = max(group["lr"] * self.factor, least)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
