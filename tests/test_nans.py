"""The NaN finder names the operation that made a NaN or an infinity, and undoes what it spoiled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metaop as mo
from metaop import nans, nn

ROOT = Path(mo.__file__).resolve().parents[1]


def here() -> int:
    """The line of the caller."""
    return sys._getframe(1).f_lineno


def vector(*values: float) -> mo.Var:
    return mo.array(np.array(values, np.float32))


def test_the_first_operation_that_makes_a_nan_is_named_with_its_inputs_and_line():
    a, b = vector(0, 1, 2), vector(0, 4, 5)
    with mo.debug_nans():
        y, line = mo.exp(a / b) + 1, here()
        z = y.sum()
        with pytest.raises(mo.NonFiniteError) as caught:
            z.item()
    text = str(caught.value).splitlines()
    assert text[0] == f"test_nans.py:{line}: div made 1 NaN in f32[3]"
    assert text[1] == "  div a b: 1 NaN, the rest from 0.25 to 0.4"
    assert text[2].startswith("  a: f32[3]: all from 0 to 2, recorded at test_nans.py:")
    assert text[3].startswith("  b: f32[3]: all from 0 to 5, recorded at test_nans.py:")
    assert text[4] == f"  it reaches f32[], recorded at test_nans.py:{line + 1}"


CASES = {
    "log of zero": (lambda: mo.log(vector(1, 0)), "log made 1 inf in f32[2]"),
    "overflow": (lambda: mo.exp(vector(1, 1000)), "exp made 1 inf in f32[2]"),
    "infinity from an infinity": (
        lambda: mo.log(vector(0, 1)) - mo.log(vector(0, 1)), "log made 1 inf"),
    "inf - inf that was given": (
        lambda: vector(np.inf, 1) - vector(np.inf, 2), "sub made 1 NaN in f32[2]"),
    "a sum that overflows": (
        lambda: vector(3e38, 3e38).sum(), "add made 1 inf in f32[]"),
    "the mean of nothing": (lambda: mo.zeros(0, 3).mean(0), "div made 3 NaN"),
    "a NaN that was given": (
        lambda: vector(1, np.nan) * 3 + 1, "mul was given NaN, and made 1 NaN"),
    "half precision": (
        lambda: vector(300, 1).astype("float16") ** 2, "made 1 inf in f16[2]"),
    "double precision": (lambda: mo.sqrt(mo.array([-1.0, 4.0]).astype("float64")), "f64[2]"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), CASES.values(), ids=CASES)
def test_what_makes_it_is_found(make, message):
    with mo.debug_nans():
        y = make()
        with pytest.raises(mo.NonFiniteError, match=re.escape(message)):
            y.numpy()


FINE = {
    "a NaN that nothing reads": lambda: mo.where(vector(1, 0) > 0, mo.log(vector(1, 0)), 0),
    "a mask of infinities": lambda: mo.where(vector(1, 0) > 0, vector(1, 2), -mo.inf),
    "a softmax over a mask": lambda: nn.functional.softmax(
        mo.where(vector(1, 0, 1) > 0, vector(1, 2, 3), -mo.inf), 0
    ),
    "a pool with padding": lambda: nn.functional.max_pool2d(mo.ones(1, 1, 4, 4), 3, padding=1),
    "integers": lambda: vector(1, 2).astype("int32") + 1,
    "an infinity that is only kept": lambda: mo.minimum(vector(np.inf, 1), vector(np.inf, 2)),
}


@pytest.mark.parametrize("make", FINE.values(), ids=FINE)
def test_what_is_meant_is_no_error(make):
    expected = make().numpy()
    with mo.debug_nans():
        np.testing.assert_array_equal(make().numpy(), expected)


def test_the_masked_operation_is_not_blamed_for_another_ones_nan():
    """The logarithm makes infinities that `where` throws away; the division is at fault."""
    x = vector(0, 1)
    with mo.debug_nans():
        y = mo.where(x > 0, mo.log(x), 0) + (x - 1) / (x - 1)
        with pytest.raises(mo.NonFiniteError, match="div made 1 NaN"):
            y.numpy()


def test_a_gradient_is_told_apart():
    """The square root's gradient at 0, times the 0 of `where`."""
    w = nn.Parameter(vector(0, 1))
    with mo.debug_nans():
        (g,) = mo.grad(mo.where(w > 0, mo.sqrt(w), 0).sum(), [w])
        with pytest.raises(mo.NonFiniteError, match=r"made 1 NaN in f32\[2\], in the back"):
            g.numpy()


def test_products_too_large_to_store_are_searched_without(monkeypatch):
    """One product of 8·8·8 overflows; it is never stored."""
    monkeypatch.setattr(nans, "STORED_BYTES", 1000)
    stored = []
    plain = nans._Search.stored
    monkeypatch.setattr(nans._Search, "stored", lambda s, n: stored.append(n.size) or plain(s, n))
    a, b = np.ones((8, 8), np.float32), np.ones((8, 8), np.float32)
    a[2, 3], b[3, :] = 3e38, 100
    with mo.debug_nans():
        y = mo.array(a) @ mo.array(b)
        with pytest.raises(mo.NonFiniteError, match=re.escape("mul made 8 inf in f32[8,8,8]")):
            (y + 1).numpy()
    assert stored and max(stored) <= 64


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "jit"])
def test_a_step_that_makes_a_nan_changes_nothing_and_the_next_one_goes_on(jit):
    mo.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

    def step(x):
        loss = mo.log(net(x) ** 2).mean()
        optimizer.step(loss)
        return loss

    run = mo.jit(step) if jit else step
    good = np.ones((4, 3), np.float32)
    run(mo.array(good))
    mo.sync()
    before = net.weight.numpy().copy()
    bad = good.copy()
    bad[1, 1] = np.nan
    with mo.debug_nans():
        with pytest.raises(mo.NonFiniteError, match="was given NaN"):
            run(mo.array(bad)).item()
        np.testing.assert_array_equal(net.weight.numpy(), before)
        assert np.isfinite(run(mo.array(good)).item())
    assert not np.array_equal(net.weight.numpy(), before)


def test_the_end_of_the_block_computes_what_is_pending_and_restores_the_mode():
    with pytest.raises(mo.NonFiniteError):
        with mo.debug_nans():
            y = mo.log(vector(0))
    assert not mo.config.check_nan
    assert mo.log(vector(0)).item() == -np.inf
    with pytest.raises(mo.NonFiniteError):
        y.item()


def test_a_jitted_function_gets_vars_for_its_arrays():
    with mo.debug_nans():
        assert mo.jit(lambda pair: pair[0].mean() * pair[1])((np.ones(3, np.float32), 2.0)) == 2
        with pytest.raises(mo.NonFiniteError, match="log made 3 inf"):
            mo.jit(lambda x: mo.log(x).mean())(np.zeros(3, np.float32))


def test_without_the_mode_nothing_is_searched(monkeypatch):
    monkeypatch.setattr(nans, "find", lambda *_: pytest.fail("searched"))
    assert np.isnan((vector(0) / vector(0)).item())


def test_the_documentation_shows_what_is_printed(tmp_path):
    page = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    section = page.split("## NaN finder")[1]
    (program,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    (output,) = re.findall(r"```text\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    (tmp_path / "nan.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "nan.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == output, done.stderr


def test_the_environment_turns_it_on(tmp_path):
    (tmp_path / "train.py").write_text(
        "import metaop as mo\nx = mo.array([0.0, 1.0])\ny = 1 / x\nprint(y.numpy())\n"
    )
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "METAOP_CHECK_NAN": "1",
             "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "NonFiniteError: train.py:3: div made 1 inf in f32[2]" in done.stderr
