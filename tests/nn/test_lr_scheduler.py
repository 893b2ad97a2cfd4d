"""Learning rates over time against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn

torch = pytest.importorskip("torch")

SCHEDULERS = """
StepLR(o, 3, 0.5)
MultiStepLR(o, [2, 5, 5], 0.5)
ExponentialLR(o, 0.9)
ConstantLR(o, 0.25, 4)
LinearLR(o, 0.1, 0.9, 6)
LinearLR(o, 0.5, 0.0, 4)
PolynomialLR(o, 8, 2.0)
LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (t + 1)])
MultiplicativeLR(o, lambda t: 0.95 + t / 100)
CosineAnnealingLR(o, 5, 0.01)
CosineAnnealingWarmRestarts(o, 3, 2, 0.01)
CosineAnnealingWarmRestarts(o, 4)
OneCycleLR(o, 0.5, 25)
OneCycleLR(o, [0.5, 0.7], epochs=5, steps_per_epoch=5, three_phase=True, pct_start=0.4)
OneCycleLR(o, 0.5, 25, anneal_strategy="linear", div_factor=10)
CyclicLR(o, 0.1, 0.5, 4)
CyclicLR(o, 0.1, 0.5, 4, 2, mode="triangular2")
CyclicLR(o, 0.1, [0.5, 0.6], 3, mode="exp_range", gamma=0.9, cycle_momentum=False)
SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 10)], [5])
SequentialLR(o, [s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.8), s.StepLR(o, 2)], [3, 8])
ChainedScheduler([s.LinearLR(o, 0.1, 1.0, 5), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 6)])
""".strip().splitlines()


def groups(module):
    values = [np.ones(2, np.float32), np.ones(3, np.float32)]
    wrap = nn.Parameter if module is mo else lambda v: torch.nn.Parameter(torch.tensor(v))
    params = [{"params": [wrap(values[0])]}, {"params": [wrap(values[1])], "lr": 0.3}]
    return module.optim.SGD(params, lr=0.1, momentum=0.9)


def made(line, module):
    optimiser = groups(module)
    return optimiser, eval("s." + line, {"o": optimiser, "s": module.optim.lr_scheduler})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("line", SCHEDULERS)
def test_rates_are_those_of_torch(line):
    (ours, scheduler), (theirs, expected) = made(line, mo), made(line, torch)
    for _ in range(24):
        for group, wanted in zip(ours.param_groups, theirs.param_groups, strict=True):
            for name in ("lr", "momentum"):
                assert group[name] == pytest.approx(wanted[name], rel=1e-9, abs=1e-12)
        assert scheduler.get_last_lr() == [group["lr"] for group in ours.param_groups]
        scheduler.step()
        expected.step()


@pytest.mark.parametrize("options", [
    {}, {"mode": "max", "threshold": 0.1}, {"threshold_mode": "abs", "cooldown": 2, "min_lr": 0.02},
])  # fmt: skip
def test_a_plateau_reduces_the_rate_as_in_torch(options):
    ours, theirs = groups(mo), groups(torch)
    given = {"factor": 0.5, "patience": 1, **options}
    scheduler = mo.optim.lr_scheduler.ReduceLROnPlateau(ours, **given)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **given)
    for metric in [3.0, 2.0, 2.0, 2.1, 1.9, 2.5, 2.5, 2.5, 1.0, 1.0, 1.0, 1.0, 1.05, 1.2]:
        scheduler.step(mo.array(metric))
        expected.step(metric)
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("line", [SCHEDULERS[k] for k in (1, 7, 9, 12, 15, 18)])
def test_a_saved_state_goes_on_where_it_was(line):
    (optimiser, scheduler), (other, twin) = made(line, mo), made(line, mo)
    for _ in range(6):
        scheduler.step()
    twin.load_state_dict(scheduler.state_dict())
    other.load_state_dict(optimiser.state_dict())
    for _ in range(6):
        for one in (scheduler, twin):
            one.step()
        assert twin.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_new_rate_compiles_nothing(compiled):
    weight = nn.Parameter(np.ones(3, np.float32))
    optimiser = nn.optim.Adam([weight], lr=0.1)
    scheduler = nn.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, 20)

    def step(x):
        loss = ((weight - x) ** 2).sum()
        optimiser.step(loss)
        return loss

    run = mo.jit(step) if compiled else step
    x = mo.array(np.zeros(3, np.float32))
    for _ in range(2):
        run(x).item()
        scheduler.step()
    programs = mo.stats().compiled
    for _ in range(4):
        run(x).item()
        scheduler.step()
    assert mo.stats().compiled == programs


def test_what_a_scheduler_refuses():
    optimiser = groups(mo)
    schedulers = mo.optim.lr_scheduler
    with pytest.raises(TypeError, match="optimizer must be an Optimizer, got int"):
        schedulers.StepLR(1, 2)
    with pytest.raises(ValueError, match="2 schedulers need 1 milestones, got 0"):
        schedulers.SequentialLR(optimiser, [schedulers.StepLR(optimiser, 1)] * 2, [])
    with pytest.raises(ValueError, match="one for each group, are needed, got 3"):
        schedulers.LambdaLR(optimiser, [abs] * 3)
