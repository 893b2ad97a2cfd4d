"""Nothing reads or writes outside a buffer: each lies against a page that may not be touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FENCE = '''
import ctypes, mmap, sys
import numpy as np
from metaop import storage
from metaop.compiler import executor, program

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
held = []

def fenced(nbytes):
    """Memory of exactly so many bytes: its end, or its start, touches a protected page."""
    pages = -(-max(nbytes, 1) // PAGE)
    block = mmap.mmap(-1, (pages + 2) * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for guard in (base, base + (pages + 1) * PAGE):
        assert libc.mprotect(guard, PAGE, 0) == 0
    held.append(block)
    ctypes.memset(base + PAGE, 0xA5, pages * PAGE)
    return base + PAGE if SIDE == "start" else base + (pages + 1) * PAGE - nbytes

class Owner:
    pass

def take(nbytes):
    return Owner(), fenced(nbytes), 0

def plan(lifetimes):
    return {t: fenced(t.nbytes) for t in lifetimes}, 0

SIDE = sys.argv[1]
storage.pool.take = take
program.plan_arena = plan
program.arena.reserve = lambda nbytes: 0
executor._Scratch.reserve = lambda self, nbytes: fenced(nbytes)
'''

WORK = (
    FENCE
    + """
import metaop as mo
from metaop import nn

draw = np.random.default_rng(0)
def f32(*shape):
    return mo.array(draw.standard_normal(shape).astype(np.float32))

for n in (1, 3, 16, 31, 65, 1000):
    x = f32(n, 7)
    (x * 2.5 + 1.0).numpy()
    nn.functional.softmax(f32(5, n), 1).numpy()
    x.sum(axis=0).numpy(), x.sum(axis=1).numpy(), mo.max(x, axis=1).numpy()
    mo.transpose(x).sync(), x[::-1].sync(), mo.concat([x, x[:1]], 0).sync()
    (f32(n, 19) @ f32(19, n + 1)).numpy()
    mo.exp(x.astype(mo.float16)).numpy(), (x > 0).numpy(), x.astype(mo.bfloat16).numpy()
    mo.take(f32(9, n), mo.array([0, 8, 3]), axis=0).numpy()
SHAPES = [(7, 3, 1, 1, 1), (13, 5, 2, 2, 1), (9, 1, 1, 0, 1), (11, 3, 2, 0, 3), (29, 7, 2, 3, 1)]
for size, kernel, stride, padding, groups in SHAPES:
    x = f32(3, 6, size, size).requires_grad_()
    conv = nn.Conv2d(6, 9, kernel, stride, padding, groups=groups)
    loss = (conv(x) ** 2).sum()
    [g.numpy() for g in mo.grad(loss, [x, conv.weight, conv.bias])]
net = nn.models.LeNetBN()
opt = nn.optim.Adam(net.parameters())
for batch in (3, 5):
    x, y = f32(batch, 1, 28, 28), mo.array(draw.integers(0, 10, batch))
    opt.step(nn.functional.cross_entropy(net(x), y))
    with mo.no_grad():
        net.eval()(x).numpy()
    net.train()
table = f32(11, 5).requires_grad_()
mo.grad((mo.take(table, mo.array([1, 10, 0, 1]), axis=0) ** 2).sum(), [table])[0].numpy()
print("whole")
"""
)

BEYOND = (
    FENCE
    + """
x = storage.Storage(100)
where = x.address + (100 if SIDE == "end" else -1)
ctypes.string_at(where, 1)
print("not reached")
"""
)


def run(script: str, side: str, tmp: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, side], capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": str(ROOT), "METAOP_THREADS": "2"}, check=False,
    )  # fmt: skip


needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the fence is built of Linux calls"
)


@needs_linux
@pytest.mark.parametrize("side", ["end", "start"])
def test_the_fence_stops_what_reads_beyond_it(side: str, tmp_path: Path) -> None:
    made = run(BEYOND, side, tmp_path)
    assert made.returncode == -signal.SIGSEGV
    assert "not reached" not in made.stdout


@needs_linux
@pytest.mark.parametrize("side", ["end", "start"])
def test_nothing_reads_or_writes_outside_a_buffer(side: str, tmp_path: Path) -> None:
    made = run(WORK, side, tmp_path)
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.split() == ["whole"]
