"""Averages of parameters: those of torch.optim.swa_utils."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn.optim import swa_utils

torch = pytest.importorskip("torch")
BATCHES = np.random.default_rng(0).standard_normal((5, 8, 3)).astype(np.float32)


def net_of(library: Any) -> Any:
    return library.Sequential(library.Linear(3, 4), library.BatchNorm1d(4), library.Linear(4, 1))


def assert_same_state(ours: Any, theirs: Any, without: str = "") -> None:
    state, wanted = ours.state_dict(), theirs.state_dict()
    assert sorted(state) == sorted(wanted)
    for key in wanted.keys() - {without}:
        value = wanted[key]
        np.testing.assert_allclose(state[key].numpy(), value.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("decay", [None, 0.7])
@pytest.mark.parametrize("jit", [False, True])
def test_averages_are_torchs(decay: float | None, use_buffers: bool, jit: bool) -> None:
    theirs, ours = net_of(torch.nn), net_of(nn)
    ours.load_state_dict(theirs.state_dict())
    fn = None if decay is None else torch.optim.swa_utils.get_ema_avg_fn(decay)
    wanted = torch.optim.swa_utils.AveragedModel(theirs, avg_fn=fn, use_buffers=use_buffers)
    own = None if decay is None else swa_utils.get_ema_avg_fn(decay)
    average = swa_utils.AveragedModel(ours, avg_fn=own, use_buffers=use_buffers)
    optimizer = nn.optim.SGD(ours.parameters(), lr=0.1)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1)

    def step(x: Any) -> None:
        optimizer.step((ours(x) ** 2).mean())
        average.update_parameters(ours)

    step = mo.jit(step) if jit else step
    for x in BATCHES:
        step(mo.array(x))
        reference.zero_grad()
        (theirs(torch.tensor(x)) ** 2).mean().backward()
        reference.step()
        wanted.update_parameters(theirs)
    # torch rounds a mean of counts at each step; here counts are the model's
    assert_same_state(average, wanted, "module.1.num_batches_tracked" if use_buffers else "")
    assert average.module[1].num_batches_tracked.item() == len(BATCHES)
    x = BATCHES[0]
    want = wanted.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(average.eval()(mo.array(x)).numpy(), want, rtol=1e-4, atol=1e-5)


def test_update_bn_takes_the_statistics_of_all_batches() -> None:
    theirs, ours = net_of(torch.nn), net_of(nn)
    ours.load_state_dict(theirs.state_dict())
    ours.eval(), theirs.eval()
    swa_utils.update_bn([(mo.array(x), 0) for x in BATCHES], ours)
    torch.optim.swa_utils.update_bn([(torch.tensor(x), 0) for x in BATCHES], theirs)
    assert_same_state(ours, theirs)
    assert ours[1].momentum == 0.1 and not ours.training


def test_a_decay_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decay must be in 0 … 1, got 1\.5"):
        swa_utils.get_ema_avg_fn(1.5)
