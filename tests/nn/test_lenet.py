"""LeNet with batch norm: beside PyTorch step by step, and what a step costs."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn.data import DataLoader, Digits


def images_and_labels(seed: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (batch, 28, 28), dtype=np.uint8)
    return images, generator.integers(0, 10, batch)


def step(net: nn.Module, optimizer: nn.optim.Optimizer, images, labels) -> mo.Var:
    logits = net(mo.array(images)[:, None] / 255)
    loss = nn.functional.cross_entropy(logits, mo.array(labels))
    optimizer.step(loss)
    return loss


def torch_lenet():
    t = pytest.importorskip("torch").nn
    return t.Sequential(
        *(t.Conv2d(1, 6, 5), t.BatchNorm2d(6), t.Sigmoid(), t.AvgPool2d(2, 2)),
        *(t.Conv2d(6, 16, 5), t.BatchNorm2d(16), t.Sigmoid(), t.AvgPool2d(2, 2)),
        *(t.Flatten(), t.Linear(256, 120), t.BatchNorm1d(120), t.Sigmoid()),
        *(t.Linear(120, 84), t.BatchNorm1d(84), t.Sigmoid(), t.Linear(84, 10)),
    )


def test_steps_of_training_agree_with_torch():
    """Both drift apart by their rounding, which a step multiplies; eight steps stay close."""
    torch = pytest.importorskip("torch")
    ours, theirs = nn.models.LeNetBN(), torch_lenet()
    theirs.load_state_dict({k: torch.from_numpy(v.numpy()) for k, v in ours.state_dict().items()})
    optimizer = nn.optim.SGD(ours.parameters(), lr=0.1)
    expected_optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for seed in range(8):
        images, labels = images_and_labels(seed, 32 if seed < 7 else 21)
        loss = step(ours, optimizer, images, labels)
        expected_optimizer.zero_grad()
        logits = theirs(torch.from_numpy(images)[:, None] / 255)
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        expected.backward()
        expected_optimizer.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.state_dict()[name].numpy(), value.numpy(), rtol=1e-3, atol=1e-4, err_msg=name
        )
    ours.eval(), theirs.eval()
    images, _ = images_and_labels(9, 64)
    with mo.no_grad(), torch.no_grad():
        logits = theirs(torch.from_numpy(images)[:, None] / 255).numpy()
        np.testing.assert_allclose(
            ours(mo.array(images)[:, None] / 255).numpy(), logits, rtol=1e-3, atol=1e-3
        )


def test_logits_of_a_torch_state_dict_are_torchs():
    torch = pytest.importorskip("torch")
    theirs, ours = torch_lenet().eval(), nn.models.LeNetBN().eval()
    ours.load_state_dict(theirs.state_dict())
    images, _ = images_and_labels(0, 300)
    with mo.no_grad(), torch.no_grad():
        expected = theirs(torch.from_numpy(images)[:, None] / 255).numpy()
        got = ours(mo.array(images)[:, None] / 255).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def trained(threads: int) -> bytes:
    """The state after a few steps on digits, the last of them on a smaller batch."""
    before = mo.get_num_threads()
    mo.set_num_threads(threads)
    try:
        mo.manual_seed(3)
        net = nn.models.LeNetBN()
        optimizer = nn.optim.SGD(net.parameters(), lr=1.0)
        digits = Digits().as_fashion_shape()
        loader = DataLoader((digits.images[:200], digits.labels[:200]), 64, shuffle=True, seed=0)
        for images, labels in loader:
            step(net, optimizer, images, labels)
        return b"".join(value.numpy().tobytes() for value in net.state_dict().values())
    finally:
        mo.set_num_threads(before)


def test_the_state_has_the_same_bits_for_any_number_of_threads():
    states = {threads: trained(threads) for threads in (1, 2, 3)}
    assert states[1] == states[2] == states[3]
    assert trained(2) == states[2]


@pytest.mark.usefixtures("no_disk_cache")
def test_nothing_is_compiled_after_the_second_step():
    net = nn.models.LeNetBN()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.3)
    images, labels = images_and_labels(0, 64)
    for _ in range(2):
        step(net, optimizer, images, labels)
    before = mo.stats()
    for seed in range(3):
        optimizer.lr *= 0.9
        step(net, optimizer, *images_and_labels(seed, 64))
    after = mo.stats()
    assert (after.compiled, after.programs) == (before.compiled, before.programs)


def test_a_wrong_label_leaves_the_network_as_it_was():
    net = nn.models.LeNetBN()
    optimizer = nn.optim.SGD(net.parameters(), lr=1.0)
    before = {name: value.numpy() for name, value in net.state_dict().items()}
    images, labels = images_and_labels(0, 16)
    labels[5] = 10
    with pytest.raises(IndexError, match="index 10 is out of bounds for an axis of size 10"):
        step(net, optimizer, images, labels)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name], err_msg=name)
    labels[5] = 9
    assert np.isfinite(step(net, optimizer, images, labels).item())
