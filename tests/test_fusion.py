"""What a user can say about fusion."""

from __future__ import annotations

import threading

import numpy as np

import metaop as mo
from metaop.config import config


def f32(*shape: int) -> mo.Var:
    return mo.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def softmax(x: mo.Var) -> mo.Var:
    e = mo.exp(x - mo.max(x, axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_no_fuse_leaves_every_nest_by_itself_and_changes_no_bit() -> None:
    x = f32(300, 70)
    fused = softmax(x)
    assert len(mo.explain(fused).kernels) == 1
    with mo.no_fuse():
        apart = softmax(x)
        assert len(mo.explain(apart).kernels) > 1
        apart.sync()
    assert (fused.numpy() == apart.numpy()).all()
    assert config.fuse


def test_no_fuse_concerns_its_own_thread() -> None:
    found: list[bool] = []
    with mo.no_fuse():
        thread = threading.Thread(target=lambda: found.append(config.fuse))
        thread.start()
        thread.join()
    assert found == [True]


def test_stop_fuse_is_a_boundary_that_says_so() -> None:
    x = f32(300, 70).requires_grad_()
    y = (mo.exp(x) * 2.0).stop_fuse()
    z = y.sum(axis=1) + 1.0
    why = mo.explain(z)
    assert len(why.kernels) == 2
    assert [b.reason for b in why.boundaries] == ["stop_fuse()"]
    (g,) = mo.grad(z.sum(), [x])
    np.testing.assert_allclose(g.numpy(), 2 * np.exp(x.numpy()), rtol=1e-5)


def test_compare_shows_kernels_bytes_and_time() -> None:
    found = mo.compare(softmax, f32(300, 70))
    assert found.fused.kernels == 1 < found.unfused.kernels
    assert found.fused.bytes < found.unfused.bytes
    assert found.fused.ms > 0
    assert [line.split()[0] for line in repr(found).splitlines()] == ["kernels", "fused", "unfused"]
