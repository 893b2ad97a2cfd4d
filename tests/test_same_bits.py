"""The same bits whatever runs a program: threads, layers, caches, fusion, jit, places of reads; and
right answers from several Python threads and in forked children, on every threading layer."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metaop as mo
from metaop import nn

ROOT = Path(__file__).resolve().parents[1]


def has_tbb() -> bool:
    try:
        importlib.metadata.distribution("tbb")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


LAYERS = ["omp", "workqueue", "alone", *(["tbb"] if has_tbb() else [])]

TRAINING = """
import hashlib, os, sys, threading
import numpy as np
import metaop as mo
from metaop import nn

def trained(jit):
    mo.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(6 * 7 * 7, 40), nn.BatchNorm1d(40), nn.Tanh(), nn.Linear(40, 5),
    )
    opt = nn.optim.Adam(net.parameters(), lr=0.01)
    draw = np.random.default_rng(0)
    x = mo.array(draw.random((33, 1, 16, 16), np.float32))
    y = mo.array(draw.integers(0, 5, 33))
    def step(x, y):
        loss = nn.functional.cross_entropy(net(x), y)
        opt.step(loss)
        return loss
    step = mo.jit(step) if jit else step
    for _ in range(3):
        step(x, y)
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
"""

# what could be added up by each thread by itself, or by whoever comes first
ONE = (
    TRAINING
    + """
draw = np.random.default_rng(1)
rows = mo.array(draw.integers(0, 7, 20_000))
table = nn.Parameter(draw.standard_normal((7, 5)).astype(np.float32))
(gradient,) = mo.grad((nn.functional.embedding(rows, table) * rows[:, None]).tanh().sum(), [table])
numbers = mo.array(draw.standard_normal((30_000, 11)).astype(np.float32))
sums = [gradient, numbers.sum(), numbers.sum(0), (numbers.T @ numbers)]
more = hashlib.sha256(b"".join(value.numpy().tobytes() for value in sums)).hexdigest()
print(trained(jit=len(sys.argv) > 1) + more)
"""
)

MANY = (
    TRAINING
    + """
found = [trained(False)]
def compute(k):
    a = mo.array(np.full((300, 300), k, np.float32))
    for _ in range(20):
        got = (a @ a + a).sum().item()
        assert got == 300 * 300 * (300.0 * k * k + k), (k, got)
    found.append("right")
threads = [threading.Thread(target=compute, args=(k,)) for k in range(1, 5)]
[t.start() for t in threads]
[t.join() for t in threads]
child = os.fork()
if child == 0:
    a = mo.array(np.full((300, 300), 2, np.float32))
    right = (a @ a).sum().item() == 300 * 300 * 1200.0 and trained(False) == found[0]
    os._exit(0 if right else 1)
_, status = os.waitpid(child, 0)
print(*found, os.waitstatus_to_exitcode(status))
"""
)


def output(script: str, *arguments: str, **environment: str) -> str:
    """What a script prints in a process of its own."""
    made = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout.strip()


def test_threads_layers_cache_jit_and_fusion_change_no_bit(tmp_path: Path) -> None:
    """Fusion reorders no addition here: how a reduction adds up belongs to its nest.

    What a process finds in the cache was decided for the threads of another, so one has none.
    """
    cache = {"METAOP_CACHE": str(tmp_path)}
    first = output(ONE, **cache)
    assert len(first) == 128
    again = {
        "full cache": output(ONE, **cache),
        "jit": output(ONE, "jit", **cache),
        "fusion off": output(ONE, METAOP_FUSE="0", **cache),
        **{f"{n} threads": output(ONE, METAOP_THREADS=str(n), **cache) for n in (1, 2)},
        "3 threads, no cache": output(ONE, METAOP_THREADS="3", METAOP_CACHE="0"),
        **{
            layer: output(ONE, METAOP_THREADING_LAYER=layer, METAOP_THREADS="3", **cache)
            for layer in LAYERS
        },
    }
    assert {name for name, digest in again.items() if digest != first} == set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("layer", LAYERS)
def test_four_threads_and_a_forked_child_compute_right(layer: str) -> None:
    found = output(MANY, METAOP_THREADING_LAYER=layer, METAOP_THREADS="3").split()
    assert found[1:] == ["right"] * 4 + ["0"]


AMID = """
import os, signal, threading
import metaop as mo
x, stopped = mo.arange(1000).astype("float32"), threading.Event()

def compute():
    while not stopped.is_set():
        (x * 2.0).sum().item()

other = threading.Thread(target=compute)
other.start()
for _ in range(10):
    child = os.fork()
    if not child:
        signal.alarm(20)  # kills a child that waits for a lock
        os._exit(0 if (x * 2.0).sum().item() == 999000 else 1)
    print(os.waitpid(child, 0)[1])
stopped.set()
other.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_forked_while_a_thread_computes_gets_no_lock_of_it() -> None:
    assert output(AMID, PYTHONWARNINGS="ignore").split() == ["0"] * 10


# --------------------------------------------------------------------------- where values are read


def state_after(disturb: random.Random | None) -> str:
    """The digest of a training's state, with reads, deletions and collections at random places."""
    mo.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(45, 12), nn.LayerNorm(12), nn.Linear(12, 4),
    )  # fmt: skip
    opt = nn.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    draw = np.random.default_rng(0)

    def maybe(value: mo.Var) -> mo.Var:
        if disturb is not None:
            match disturb.randrange(5):
                case 0:
                    value.numpy()
                case 1:
                    gc.collect()
                case 2:
                    extra = value * 2.0
                    del extra
                case 3:
                    value.sum().item()
        return value

    for _ in range(3):
        h = mo.array(draw.random((9, 2, 8, 8), np.float32))
        labels = mo.array(draw.integers(0, 4, 9))
        for layer in net:
            h = maybe(layer(maybe(h)))
        loss = maybe(nn.functional.cross_entropy(h, labels))
        loss.backward()
        for p in net.parameters():
            maybe(p.grad)
        opt.step()
        opt.zero_grad()
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def test_reading_deleting_and_collecting_anywhere_changes_no_bit() -> None:
    plain = state_after(None)
    for seed in range(2):
        assert state_after(random.Random(seed)) == plain, f"seed {seed}"
