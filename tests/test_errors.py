"""Errors: raised where the mistake is, on the user's line, and what they leave behind."""

from __future__ import annotations

import code
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.errors import Site, user_site
from metaop.graph import Escape


def here() -> int:
    """The caller's line."""
    return sys._getframe(1).f_lineno


# ------------------------------------------------------------------------------- the user's line


def test_the_users_line_in_a_module_is_the_one_of_the_call() -> None:
    x = mo.array([1.0]) + 1
    assert str(x._node.site) == f"test_errors.py:{here() - 1}"


def test_the_users_line_of_a_layer_is_where_the_layer_was_called() -> None:
    layer = nn.Linear(2, 3)
    y = layer(mo.zeros(4, 2))
    assert str(y._node.site) == f"test_errors.py:{here() - 1}"


def test_the_users_line_in_a_users_module_is_within_its_forward() -> None:
    class Net(nn.Module):
        def forward(self, x: mo.Var) -> mo.Var:
            return x * 2

    assert Net()(mo.zeros(2))._node.site.code is Net.forward.__code__


def test_a_gradient_has_the_line_of_its_forward_operation() -> None:
    w = mo.array([1.0], requires_grad=True)
    y = mo.exp(w)
    line = here() - 1
    g = mo.grad(y.sum(), w)
    assert str(g._node.site) == f"test_errors.py:{line}"


def test_a_call_over_several_lines_is_named_by_the_line_of_the_call() -> None:
    x = mo.zeros(2)
    first = here() + 1
    y = mo.add(
        x,
        x,
    )
    assert first <= y._node.site.line <= first + 3


def test_the_users_line_is_right_in_executed_code() -> None:
    space: dict[str, Any] = {"mo": mo}
    exec(compile("\n\nx = mo.array([1.0])\ny = x + 1\n", "<cell 7>", "exec"), space)
    assert str(space["y"]._node.site) == "<cell 7>:4"


def test_the_users_line_is_right_at_the_prompt() -> None:
    console = code.InteractiveConsole({"mo": mo}, filename="<stdin>")
    for line in (
        "x = mo.array([1.0])",
        "def f(x):",
        "    y = x",
        "    return y + 1",
        "",
        "z = f(x)",
    ):
        console.push(line)
    assert str(console.locals["z"]._node.site) == "<stdin>:3"


def test_the_users_line_is_right_with_python_c() -> None:
    program = "import metaop as mo\nx = mo.array([1.0])\n\ny = x[mo.array([5])]\ny.item()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    assert "IndexError: index 5 is out of bounds" in result.stderr
    assert "recorded at <string>:4" in result.stderr


def test_a_site_holds_a_code_object_and_an_offset_and_nothing_of_the_frame() -> None:
    site = user_site()
    assert Site.__slots__ == ("code", "offset", "_line")  # the line: a number, once it is known
    assert site.line == here() - 2
    assert site.filename == __file__


# -------------------------------------------------------------------------- raised at the call


@pytest.mark.parametrize(
    ("attempt", "kind", "text"),
    [
        (lambda: mo.zeros(2, 3) + mo.zeros(4), mo.ShapeError, r"a is f32\[2,3\] and b is f32\[4\]"),
        (lambda: mo.zeros(2, 3) @ mo.zeros(4, 5), mo.ShapeError, r"f32\[2,3\].*f32\[4,5\]"),
        (lambda: mo.zeros(2, 3).reshape(4, 2), mo.ShapeError, r"f32\[2,3\]"),
        (lambda: mo.zeros(2)[5], IndexError, "index 5 is out of bounds for axis 0 with size 2"),
        (lambda: mo.zeros(2)[0, 0], IndexError, r"too many indices: x is f32\[2\]"),
        (lambda: mo.zeros(2).sum(3), mo.ShapeError, "axis 3"),
        (lambda: mo.zeros(3).item(), mo.ShapeError, r"one element, it is f32\[3\]"),
        (lambda: mo.array([object()]), mo.DTypeError, "cannot make a Var of"),
        (lambda: mo.array([1, 2]).backward(), mo.DTypeError, "must be a float, it is i64"),
        (lambda: nn.Parameter([1.0, 2.0]).backward(), mo.ShapeError, r"call .sum\(\)"),
    ],
)
def test_a_mistake_in_shapes_dtypes_or_arguments_is_raised_at_the_call(
    attempt: Callable[[], Any], kind: type[Exception], text: str
) -> None:
    launched = mo.stats().launched
    with pytest.raises(kind, match=text) as caught:
        attempt()
    assert caught.traceback[1].path.name == "test_errors.py"
    assert mo.stats().launched == launched


def test_every_error_of_ours_is_a_metaop_error_and_one_of_python() -> None:
    for kind, base in [
        (mo.ShapeError, ValueError),
        (mo.DTypeError, TypeError),
        (mo.StaleValueError, RuntimeError),
        (mo.IndexExpressionError, ValueError),
        (mo.CompilerBug, RuntimeError),
    ]:
        assert issubclass(kind, (mo.MetaopError))
        assert issubclass(kind, base)


# ----------------------------------------------------------------- raised by the call that computes


def test_an_index_out_of_range_is_raised_by_the_read_and_names_value_bounds_and_line() -> None:
    x = mo.array([1.0, 2.0])
    y = x[mo.array([0, 7])]
    line = here() - 1
    with pytest.raises(
        IndexError, match=rf"index 7 .* size 2 \(allowed: -2 to 1\).*test_errors.py:{line}"
    ):
        y.numpy()


def test_integer_division_by_zero_is_raised_by_the_read_and_names_the_line() -> None:
    y = mo.array([6, 7]) // mo.array([2, 0])
    line = here() - 1
    with pytest.raises(ZeroDivisionError, match=f"test_errors.py:{line}"):
        print(y)


def test_a_host_callback_that_raises_names_its_line_and_spares_the_others() -> None:
    def factorise(a: np.ndarray) -> np.ndarray:
        if not a.all():
            raise np.linalg.LinAlgError("singular matrix")
        return 1 / a

    def record(values: list[float]) -> mo.Var:
        x = mo.array(values) * 1.0
        return mo.Var._of(Escape("invert", factorise, (2,), mo.float32, x._node))

    good, bad, other = record([1.0, 2.0]), record([1.0, 0.0]), mo.array([1.0]) + 1
    message = r"singular matrix \(in invert, recorded at test_errors.py"
    with pytest.raises(np.linalg.LinAlgError, match=message):
        mo.sync()
    with pytest.raises(np.linalg.LinAlgError, match=message):
        (bad + 1).numpy()
    assert repr(bad) == "Var(f32[2], failed)"
    assert good.tolist() == [1, 0.5]
    assert other.tolist() == [2]


def test_a_failed_var_raises_its_own_error_whenever_it_is_read() -> None:
    x, wrong = mo.array([1.0, 2.0]), mo.array([9])
    first = x[wrong]
    second = first * 2
    other = x[mo.array([-8])]
    for _ in range(3):
        with pytest.raises(IndexError, match="index 9"):
            second.item()
        with pytest.raises(IndexError, match="index -8"):
            other.item()
    assert repr(second) == "Var(f32[1], failed)"


def test_raising_again_does_not_collect_frames() -> None:
    y = mo.array([1.0])[mo.array([9])]
    lengths = []
    for _ in range(4):
        with pytest.raises(IndexError) as caught:
            y.item()
        lengths.append(len(caught.traceback))
    assert len(set(lengths[1:])) == 1


def test_other_vars_of_the_same_program_are_right() -> None:
    x = mo.array([1.0, 2.0])
    good, bad = x + 1, x[mo.array([5])]
    with pytest.raises(IndexError):
        mo.sync()
    launched = mo.stats().launched
    assert good.tolist() == [2, 3]
    assert mo.stats().launched == launched
    mo.sync()  # what failed is left out from now on
    assert bad._node.error is not None


def test_a_sync_raises_the_first_error_after_all_else_is_computed() -> None:
    x = mo.array([1.0, 2.0])
    failing = [x[mo.array([5])], x + 1, x[mo.array([6])], x + 2]
    with pytest.raises(IndexError, match=r"index [56]"):
        mo.sync()
    assert [v._node.storage is not None for v in failing] == [False, True, False, True]


# -------------------------------------------------------------------- what an error leaves behind


def trained() -> tuple[nn.Module, Any]:
    mo.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return net, mo.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def state(net: nn.Module, opt: Any) -> dict[str, Any]:
    buffers = [v for s in opt.state.values() for v in s.values() if isinstance(v, mo.Var)]
    return {k: v.tolist() for k, v in net.state_dict().items()} | {
        str(i): v.tolist() for i, v in enumerate(buffers)
    }


def test_a_label_out_of_range_is_raised_by_the_step_and_nothing_has_changed() -> None:
    net, opt = trained()
    x = mo.array(np.eye(3, dtype=np.float32))
    opt.step(nn.functional.cross_entropy(net(x), mo.array([0, 1, 1])))
    before = state(net, opt)
    loss = nn.functional.cross_entropy(net(x), mo.array([0, 2, 1]))
    line = here() - 1
    with pytest.raises(IndexError, match=rf"index 2 .* size 2 .*test_errors.py:{line}"):
        opt.step(loss)
    assert state(net, opt) == before
    opt.step(nn.functional.cross_entropy(net(x), mo.array([0, 1, 1])))
    assert state(net, opt) != before


def test_a_label_out_of_range_read_before_the_step_leaves_all_as_it_was() -> None:
    net, opt = trained()
    x = mo.array(np.eye(3, dtype=np.float32))
    mo.sync()
    before = state(net, opt)
    loss = nn.functional.cross_entropy(net(x), mo.array([0, 5, 1]))
    with pytest.raises(IndexError, match="index 5"):
        loss.item()
    with pytest.raises(IndexError, match="index 5"):
        opt.step(loss)
    assert state(net, opt) == before


def test_an_update_that_the_error_does_not_concern_is_not_lost() -> None:
    """Found here: every write that was pending when a kernel failed was taken back, and w was 1."""
    w, x = mo.array([1.0]), mo.array([1.0, 2.0])
    w += 1
    with pytest.raises(IndexError):
        x[mo.array([5])].item()
    assert w.tolist() == [2]


def test_a_write_of_a_failed_value_is_taken_back() -> None:
    w, x = mo.array([1.0]), mo.array([1.0, 2.0])
    w.assign(x[mo.array([5])])
    with pytest.raises(IndexError, match="index 5"):
        w.numpy()
    assert w.tolist() == [1]


def test_writes_made_together_are_taken_back_together_with_what_they_count() -> None:
    a, b, x, steps = mo.array([1.0]), mo.array([2.0]), mo.array([1.0, 2.0]), [0]

    def count(by: int) -> Callable[[], None]:
        def change() -> None:
            steps[0] += by

        return change

    mo.assign_all([(a, a + 1), (b, x[mo.array([5])])], count(1), count(-1))
    assert steps == [1]
    with pytest.raises(IndexError):
        mo.sync()
    assert (a.item(), b.item(), steps) == (1, 2, [0])
    mo.assign_all([(a, a + 1), (b, b + 1)], count(1), count(-1))
    mo.sync()
    assert (a.item(), b.item(), steps) == (2, 3, [1])


class Counts(nn.Module):
    """Counts its calls and runs into an error on demand."""

    def __init__(self) -> None:
        self.register_buffer("calls", mo.array([0.0]))

    def forward(self, x: mo.Var, fails: bool) -> mo.Var:
        self.calls += 1
        if fails:
            raise KeyError("on demand")
        return x * 2


def test_an_exception_in_a_forward_leaves_nothing_pending() -> None:
    net = Counts()
    mo.sync()
    with pytest.raises(KeyError):
        net(mo.zeros(2), True)
    assert net.calls.tolist() == [0]
    net(mo.zeros(2), False)
    assert net.calls.tolist() == [1]


def test_a_transaction_undoes_all_writes_of_its_block() -> None:
    x, y = mo.array([1.0, 2.0]), mo.array([3.0])
    with pytest.raises(KeyError), mo.transaction():
        x += 1
        x[0] = 7.0
        x.numpy()  # also what has been computed in the meantime
        with mo.transaction():
            y.fill_(0.0)
        raise KeyError
    assert x.tolist() == [1, 2]
    assert y.tolist() == [3]


# ------------------------------------------------------------------------------------- memory


def test_out_of_memory_names_the_bytes_and_the_line_and_leaves_parameters_intact() -> None:
    w, other = nn.Parameter([1.0, 2.0]), mo.array([1.0])
    other += 1
    huge = mo.zeros(1 << 30, 1 << 20) + other
    line = here() - 1
    with pytest.raises(MemoryError, match=rf"4,503,599,627,370,496 bytes.*:{line}"):
        huge.sync()
    assert other.tolist() == [2]
    with mo.no_grad():
        w += huge[0, 0]
    del huge
    mo.sync()
    assert w.tolist() == [3, 4]


def test_a_step_that_does_not_fit_into_memory_leaves_parameters_intact() -> None:
    w = nn.Parameter([1.0, 2.0])
    x = mo.zeros(1 << 25, 1 << 25)
    with mo.no_grad():
        mo.assign_all([(w, w + 1), (x, x + 1)])
    with pytest.raises(MemoryError, match=r"f32\[33554432,33554432\]"):
        mo.sync()
    del x
    assert w.tolist() == [1, 2]


# ---------------------------------------------------------------------------------- programs


def test_a_program_with_an_uncaught_error_shows_the_users_line() -> None:
    program = textwrap.dedent("""
        import metaop as mo
        def f(x):
            return x @ mo.zeros(5, 2)
        f(mo.zeros(3, 4))
    """)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ShapeError" in result.stderr
    assert 'File "<string>", line 4, in f' in result.stderr
