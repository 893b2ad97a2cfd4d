"""Nothing reads or writes outside a buffer: each lies against a page that may not be touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FENCE = """
import ctypes, sys
import numpy as np
import metaop as mo
from metaop import nn, storage
from metaop.compiler.contraction.build import Builder
from metaop.compiler.contraction.direct import Direct
from tests import fence

SIDE = sys.argv[1]
fence.install(SIDE)
"""

WORK = (
    FENCE
    + """
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

CONTRACTIONS = (
    FENCE
    + """
from metaop.compiler.contraction import blocks, direct

blocks.processors = lambda: 4  # the same forms on every machine
blocks.registers = direct.registers = lambda dtype: (32, dtype.itemsize // 4)
met = set()

def noted(plan, kinds):
    def planned(self):
        made = plan(self)
        met.update(kind for kind, holds in kinds(self, made).items() if holds)
        return made
    return planned

Builder.plan = noted(Builder.plan, lambda b, made: {
    made.form: True, "turned": b.turned, "windows": b.blocks.windows, "taps": b.blocks.taps,
    "layers": b.c.layers, "packed once": b.packing, "blocks of k": b.blocks.k.count > 1})
Direct.plan = noted(Direct.plan, lambda d, made: {
    "direct": True, "several panels": len(d.w.panels) > 1, "rows only": d.w.deep,
    "computed factor": any(s.name == "factors" for s in d.scratch)})

draw = np.random.default_rng(0)
def whole(*shape):
    return mo.array(draw.integers(-2, 3, shape).astype("f4"), requires_grad=True)

def check(result, *operands):
    loss = (result * mo.array(draw.integers(-2, 3, result.shape).astype("f4"))).sum()
    for x in (result, *mo.grad(loss, list(operands))):
        assert np.isfinite(x.numpy()).all()

for m, k, n in [(3, 4096, 5), (197, 64, 63), (515, 37, 100)]:
    for turned in (False, True):
        a, b = whole(m, k), whole(n, k)
        check((b @ a.T).T if turned else a @ b.T, a, b)
a, b = whole(2, 3, 50, 40), whole(2, 3, 40, 21)
check(a @ b, a, b)
q, k, v = whole(2, 3, 37, 16), whole(2, 3, 37, 16), whole(2, 3, 37, 16)
check(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)
LAYERS = [  # images, filters, stride, padding, groups
    ((3, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1), ((3, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1),
    ((1, 64, 32, 32), (64, 64, 3, 3), 1, 1, 1), ((3, 3, 32, 32), (64, 3, 3, 3), 1, 1, 1),
    ((1, 128, 14, 14), (32, 128, 3, 3), 1, 1, 1), ((2, 64, 15, 15), (130, 64, 1, 1), 2, 0, 1),
    ((1, 32, 13, 13), (48, 16, 3, 3), 2, 1, 2), ((2, 5, 19, 19), (5, 1, 5, 5), 2, 2, 5),
    ((2, 24, 9, 9), (24, 1, 3, 3), 1, 1, 24), ((1, 3, 30, 30), (3, 1, 7, 7), 1, 3, 3),
]
for image, window, stride, padding, groups in LAYERS:
    x, w = whole(*image), whole(*window)
    check(mo.conv2d(x, w, stride=stride, padding=padding, groups=groups), x, w)
x, w = whole(1, 64, 17, 17), whole(64, 3, 4, 4)
check(mo.conv_transpose2d(x, w, stride=2, padding=1), x, w)
with mo.winograd(True):
    x, w = whole(2, 64, 14, 14), whole(64, 64, 3, 3)
    check(mo.conv2d(x, w, padding=1), x, w)
x, w = whole(1, 2, 12, 12), whole(2, 1, 3, 3)
check(mo.conv2d(mo.exp(x), mo.exp(w), padding=1, groups=2), x, w)
print(", ".join(sorted(met)))
"""
)
KINDS = ["blocks of k", "computed factor", "direct", "dot", "layers", "outer", "packed once",
         "rows only", "several panels", "taps", "turned", "windows"]  # fmt: skip

BEYOND = {
    "a buffer": """
x = storage.Storage(100)
ctypes.string_at(x.address + (100 if SIDE == "end" else -1), 1)
""",
    "a panel": """
whole = Direct.plane
Direct.plane = lambda self, panel: whole(self, panel) // 2
x, w = (mo.array(np.ones(shape, "f4")) for shape in ((1, 2, 30, 30), (2, 1, 3, 3)))
mo.conv2d(x, w, padding=1, groups=2).sync()
""",
    "a buffer that is no more": """
x = storage.Storage(100)
address = x.address
del x
ctypes.string_at(address, 1)
""",
}


def run(script: str, side: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, side], capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": str(ROOT), "METAOP_THREADS": "2", "METAOP_CACHE": "0"},
        check=False,
    )  # fmt: skip


needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the fence is built of Linux calls"
)


@needs_linux
@pytest.mark.parametrize(("side", "what"), [("start", "a buffer"), *(("end", w) for w in BEYOND)])
def test_the_fence_stops_what_reads_beyond_it(side: str, what: str) -> None:
    made = run(FENCE + BEYOND[what], side)
    assert made.returncode == -signal.SIGSEGV, made.stderr[-3000:]


@needs_linux
@pytest.mark.parametrize("side", ["end", "start"])
def test_nothing_reads_or_writes_outside_a_buffer(side: str) -> None:
    made = run(WORK, side)
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.split() == ["whole"]


@needs_linux
@pytest.mark.parametrize("side", ["end", "start"])
def test_nothing_reads_or_writes_outside_a_panel(side: str) -> None:
    """What a contraction packed was written up to 15 elements behind its end.  Panels hold NaN when
    a kernel begins, so that what was never packed shows as well."""
    made = run(CONTRACTIONS, side)
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.strip().split(", ") == KINDS
