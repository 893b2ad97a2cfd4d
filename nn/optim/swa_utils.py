"""Averages of a model's parameters over its training: of all steps, or exponentially weighted.

average = AveragedModel(net, avg_fn=get_ema_avg_fn(0.999))
for x, y in loader:
    optimizer.step(loss(net(x), y))
    average.update_parameters(net)
average(x)                                     # the net with averaged parameters
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import metaop as mo
from metaop import Var

from ..hints import refuse
from ..module import Module

Average = Callable[[Var, Var, Var], Var]  # (averaged, current, how many were averaged) -> averaged


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """`averaged = decay * averaged + (1 - decay) * current`."""
    if not 0 <= decay <= 1:
        raise ValueError(f"get_ema_avg_fn: decay must be in 0 … 1, got {decay}")
    return lambda averaged, current, count: decay * averaged + (1 - decay) * current


def get_swa_avg_fn() -> Average:
    """The mean: `averaged += (current - averaged) / (count + 1)`."""
    return lambda averaged, current, count: averaged + (current - averaged) / (count + 1)


class AveragedModel(Module):
    """A copy of a model, `module`, whose parameters are averages of those it was updated with.

    avg_fn: (averaged, current, count) -> averaged, Vars; by default the mean.  The first update
    takes the model's parameters.  Buffers of floats are averaged with use_buffers; others, and all
    without it, are the model's.
    Source: Izmailov et al. 2018, algorithm 1; as torch.optim.swa_utils.AveragedModel.
    """

    def __init__(self, model: Module, avg_fn: Average | None = None, use_buffers: bool = False):
        super().__init__()
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", mo.zeros((), dtype=mo.int64))
        self.avg_fn, self.use_buffers = avg_fn or get_swa_avg_fn(), use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model with averaged parameters returns."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Averages the parameters of the model, which has the structure of the first, in."""
        count = self.n_averaged
        writes: list[tuple[Var, Var]] = [(count, count + 1)]
        with mo.uninterrupted(), mo.no_grad():
            for own, other in zip(self.module.parameters(), model.parameters(), strict=True):
                writes.append((own, self._averaged(own, other.detach())))
            for mine, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                averages = self.use_buffers and mine.dtype.is_float
                writes.append((mine, self._averaged(mine, theirs) if averages else theirs.detach()))
            mo.assign_all(writes)

    def _averaged(self, own: Var, other: Var) -> Var:
        count = self.n_averaged
        mean = self.avg_fn(own.detach(), other, count.astype(own.dtype))
        return mo.where(count == 0, other, mean)


def update_bn(loader: Iterable[Any], model: Module) -> None:
    """Batch norms' running statistics as the averages over all batches of a loader.

    loader: batches, or tuples that begin with one; model: in the end in the mode it was in.
    Source: as torch.optim.swa_utils.update_bn.
    """
    norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
    if not norms:
        return
    momenta, training = [m.momentum for m in norms], model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        with mo.no_grad():
            for batch in loader:
                model(batch[0] if isinstance(batch, list | tuple) else batch)
                mo.sync()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
