"""Var as users of PyTorch and NumPy expect it: values, printing, copies, in-place, what is kept."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn

FLOATS = np.array([1.5, -2.0, 3.25], np.float32)


# ------------------------------------------------------------------------------- what goes in


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1.0, 2.0], "float32"),
        (1.5, "float32"),
        ([1, 2], "int64"),
        (3, "int64"),
        ([True, False], "bool"),
        (np.array([1.0, 2.0]), "float64"),
        (np.float64(2), "float64"),
        (np.array([1, 2], np.int8), "int8"),
    ],
)
def test_python_floats_become_float32_ints_int64_and_arrays_keep_their_dtype(
    data: Any, dtype: str
) -> None:
    assert mo.array(data).dtype.name == dtype


def test_array_copies_at_the_call() -> None:
    buffer = np.ones(4, np.float32)
    first = mo.array(buffer)
    lazy = first + 1
    buffer[:] = 7
    assert first.tolist() == [1, 1, 1, 1]
    assert lazy.tolist() == [2, 2, 2, 2]


def test_array_of_a_var_is_another_var_of_the_value_it_has_now() -> None:
    x = mo.array([1.0, 2.0])
    y = mo.array(x)
    x += 1
    assert y.tolist() == [1, 2]


# ------------------------------------------------------------------------------- what comes out


def test_repr_shows_shape_and_dtype_and_never_computes() -> None:
    x = mo.array([[1.0, 2.0]]) + 1
    before = mo.stats().launched
    assert repr(x) == "Var(f32[1,2], pending)"
    assert mo.stats().launched == before
    x.sync()
    assert repr(x) == "Var([[2., 3.]], dtype=float32)"


@pytest.mark.parametrize(
    ("look", "want"),
    [
        (str, "Var(2.5, dtype=float32)"),
        (lambda x: f"{x:.3f}", "2.500"),
        (float, 2.5),
        (int, 2),
        (bool, True),
        (lambda x: x.item(), 2.5),
        (lambda x: x.tolist(), 2.5),
        (math.exp, math.exp(2.5)),
        (lambda x: float(x.numpy()), 2.5),
        (lambda x: float(np.asarray(x)), 2.5),
    ],
)
def test_looking_at_a_value_computes_it(look: Any, want: Any) -> None:
    x = mo.array(1.0) * 2.5
    assert x._node.storage is None
    assert look(x) == want
    assert x._node.storage is not None


def test_print_computes(capsys: pytest.CaptureFixture[str]) -> None:
    print(mo.array([1.0]) + 1)
    assert capsys.readouterr().out == "Var([2.], dtype=float32)\n"


def test_sum_len_iteration_and_membership_are_those_of_a_sequence() -> None:
    x = mo.array([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert sum(list(x)).tolist() == [4, 6]  # type: ignore[arg-type]
    assert 3.0 in x
    assert 5.0 not in x
    assert list(range(4))[mo.array(2)] == 2


@pytest.mark.parametrize("attempt", [len, iter])
def test_a_0d_var_has_no_length(attempt: Any) -> None:
    with pytest.raises(TypeError, match="0-d Var"):
        attempt(mo.array(1.0))


def test_ndarrays_and_numpy_numbers_on_the_left_give_a_var() -> None:
    x = mo.array([1.0, 2.0])
    for product in (np.array([2.0, 2.0], np.float32) * x, np.float32(2) * x, 2 * x):
        assert isinstance(product, mo.Var)
        assert product.tolist() == [2, 4]
    assert isinstance(np.ones(2, np.float32) - x, mo.Var)


def test_only_one_element_has_a_truth_value() -> None:
    with pytest.raises(mo.ShapeError, match=r"one element, it is i64\[2\]"):
        bool(mo.array([1, 2]))


def test_a_float_is_no_index() -> None:
    with pytest.raises(mo.DTypeError, match="not an integer"):
        [1, 2, 3][mo.array(1.0)]


# ---------------------------------------------------------------- memory that nobody writes later


def test_a_hundred_losses_kept_in_a_list_are_a_hundred_different_numbers() -> None:
    w = mo.array([4.0, -3.0], requires_grad=True)
    losses, arrays, views = [], [], []
    for _ in range(100):
        loss = (w * w).sum()
        loss.backward()
        with mo.no_grad():
            w -= w.grad * 0.01
        w.grad = None
        losses.append(loss)
        arrays.append(loss.numpy())
        views.append(w.__array__(copy=False))
    numbers = [loss.item() for loss in losses]
    assert len(set(numbers)) == 100
    assert numbers == [float(a) for a in arrays]
    assert len({v.tobytes() for v in views}) == 100


def test_an_exported_view_is_read_only_and_outlives_its_var() -> None:
    x = mo.array(FLOATS) + 0.0
    view = x.__array__(copy=False)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    x += 1
    del x
    for _ in range(50):  # memory of the same size is asked for again and again
        mo.array(FLOATS * 7).sync()
    assert view.tolist() == FLOATS.tolist()


def test_numpy_gives_a_copy_of_its_own() -> None:
    x = mo.array(FLOATS)
    array = x.numpy()
    array[:] = 0
    assert x.tolist() == FLOATS.tolist()


def test_asarray_takes_a_dtype_and_refuses_a_copy_that_it_must_not_make() -> None:
    x = mo.array(FLOATS)
    assert np.asarray(x, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy=False"):
        x.__array__(np.float64, copy=False)


def test_dlpack_gives_a_copy() -> None:
    x = mo.array(FLOATS)
    array = np.from_dlpack(x)
    x += 1
    assert array.tolist() == FLOATS.tolist()


# ------------------------------------------------------------------------------------- in place


def test_a_var_holds_the_value_it_was_recorded_with() -> None:
    w = mo.array([1.0, 2.0])
    y = w * 10
    w += 5
    assert y.tolist() == [10, 20]
    assert w.tolist() == [6, 7]


@pytest.mark.parametrize(
    ("update", "want"),
    [
        (lambda x: x.__iadd__(2), [3, 4]),
        (lambda x: x.__isub__(1), [0, 1]),
        (lambda x: x.__imul__(3), [3, 6]),
        (lambda x: x.__itruediv__(2), [0.5, 1]),
        (lambda x: x.__ipow__(2), [1, 4]),
    ],
)
def test_in_place_operators_keep_the_object(update: Any, want: list[float]) -> None:
    x = mo.array([1.0, 2.0])
    same = update(x)
    assert same is x
    assert x.tolist() == want


def test_a_part_is_a_value_and_writing_it_leaves_the_whole_alone() -> None:
    x = mo.array([1.0, 2.0, 3.0])
    y = x[0]
    y += 1
    assert x.tolist() == [1, 2, 3]
    assert y.item() == 2


def test_updating_an_item_changes_the_whole() -> None:
    x = mo.array([1.0, 2.0, 3.0])
    same = x
    x[0] += 1
    x[1:] *= 2
    assert x is same
    assert x.tolist() == [2, 4, 6]


def test_writing_into_a_part_says_how_to_write_into_the_whole() -> None:
    x = mo.zeros(2, 2)
    with pytest.raises(TypeError, match=r"write x\[0, 1\] = v"):
        x[0][1] = 5.0


def test_in_place_updates_that_do_not_fit_are_refused() -> None:
    x = mo.array([1.0, 2.0])
    with pytest.raises(mo.ShapeError, match=r"the result is f32\[3,2\] but the Var is f32\[2\]"):
        x += mo.zeros(3, 2)
    count = mo.array([1, 2])
    with pytest.raises(mo.DTypeError, match="cannot write float32 into a Var of int64"):
        count += 0.5
    assert x.tolist() == [1, 2]
    assert count.tolist() == [1, 2]


def test_a_leaf_is_updated_under_no_grad_only() -> None:
    w = mo.array([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"with mo.no_grad\(\): w -= lr \* w.grad"):
        w -= 1
    with mo.no_grad():
        w -= 1
    assert w.tolist() == [0]
    assert w.requires_grad
    assert w.is_leaf


FILLED = {
    "fill_": (lambda w: w.fill_(0.5), [0.5, 0.5, 0.5]),
    "zero_": (lambda w: w.zero_(), [0, 0, 0]),
    "copy_": (lambda w: w.copy_(mo.array([4.0, 5.0, 6.0])), [4, 5, 6]),
    "copy_ broadcasts": (lambda w: w.copy_(mo.array(2.0)), [2, 2, 2]),
    "assign": (lambda w: w.assign([7.0, 8.0, 9.0]), [7, 8, 9]),
}


@pytest.mark.parametrize("name", FILLED)
@pytest.mark.parametrize("kind", [mo.array, nn.Parameter])
def test_fillers_write_in_place_and_return_the_var(name: str, kind: Any) -> None:
    fill, want = FILLED[name]
    w = kind(FLOATS)
    wanted = w.requires_grad
    before = w * 1
    assert fill(w) is w
    assert w.tolist() == want
    assert w.requires_grad == wanted
    assert before.tolist() == FLOATS.tolist()


def test_random_fillers_draw_from_their_distribution() -> None:
    mo.manual_seed(3)
    w = nn.Parameter(np.zeros(4000, np.float32))
    u = w.uniform_(2.0, 4.0).numpy()
    assert u.min() >= 2
    assert u.max() < 4
    assert abs(u.mean() - 3) < 0.05
    z = w.normal_(1.0, 0.5).numpy()
    assert abs(z.mean() - 1) < 0.05
    assert abs(z.std() - 0.5) < 0.03


def test_data_is_the_value_as_a_constant_and_can_be_assigned() -> None:
    w = nn.Parameter([1.0, 2.0])
    assert not w.data.requires_grad
    w.data = w.data - 1
    assert w.tolist() == [0, 1]
    w.data += 5
    assert w.tolist() == [5, 6]
    assert w.requires_grad


def test_assign_refuses_what_does_not_fit() -> None:
    w = mo.zeros(2, 3)
    with pytest.raises(mo.ShapeError, match=r"cannot write f32\[2\] into f32\[2,3\]"):
        w.assign(mo.zeros(2))
    with pytest.raises(mo.DTypeError, match=r"cannot write f32\[\] into i64\[1\]"):
        mo.array([1]).assign(0.5)


# ------------------------------------------------------------------------- shapes and conversions


def test_size_numel_dim_and_device_answer_as_in_torch() -> None:
    x = mo.zeros(2, 3)
    assert (x.size, x.size(), x.size(0), x.size(-1)) == (6, (2, 3), 2, 3)
    assert (x.numel(), x.dim(), x.ndim, x.nbytes, x.device) == (6, 2, 2, 24, "cpu")


def test_conversions_and_views_of_torch_exist() -> None:
    x = mo.array([[1.5, 2.5], [3.5, 4.5]])
    for same in (x.cpu(), x.contiguous(), x.float(), x.to("cpu"), x.to(mo.float32)):
        assert same is x
    assert x.long().tolist() == [[1, 2], [3, 4]]
    assert x.int().dtype is mo.int32
    assert x.double().dtype is mo.float64
    assert x.to(mo.float16).dtype is mo.float16
    assert x.view(4).tolist() == x.view(-1).tolist() == [1.5, 2.5, 3.5, 4.5]
    assert x.T.tolist() == [[1.5, 3.5], [2.5, 4.5]]
    with pytest.raises(ValueError, match="no device 'cuda'"):
        x.to(device="cuda")


# ------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int64", "bool", "float64"])
def test_pickling_keeps_value_and_dtype(dtype: str) -> None:
    x = mo.array([1, 0, 3]).astype(getattr(mo, dtype if dtype != "bool" else "bool_"))
    again = pickle.loads(pickle.dumps(x))
    assert again.dtype is x.dtype
    assert again.tolist() == x.tolist()


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_of_a_parameter_is_a_parameter_of_its_own(duplicate: Any) -> None:
    w = nn.Parameter([1.0, 2.0])
    other = duplicate(w)
    assert type(other) is nn.Parameter
    assert other.requires_grad
    assert other.is_leaf
    with mo.no_grad():
        w += 1
    assert other.tolist() == [1, 2]
    (other * 3).sum().backward()
    assert other.grad.tolist() == [3, 3]
    assert w.grad is None


def test_deepcopy_copies_the_gradient_and_shares_what_is_shared() -> None:
    w = nn.Parameter([1.0, 2.0])
    (w * 3).sum().backward()
    first, second = copy.deepcopy([w, w])
    assert first is second
    assert first.grad.tolist() == [3, 3]
    assert first.grad is not w.grad


def test_a_module_can_be_copied_and_pickled_with_its_training_state() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net(mo.array(np.ones((5, 3), np.float32))).sum().item()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        for (name, a), (same, b) in zip(net.state_dict().items(), other.state_dict().items()):
            assert name == same
            assert a.tolist() == b.tolist()


# ------------------------------------------------------------------------------- requires_grad


def test_data_requires_no_gradient_and_a_parameter_does() -> None:
    assert not mo.array([1.0]).requires_grad
    assert nn.Parameter([1.0]).requires_grad
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad


def test_integers_cannot_require_a_gradient() -> None:
    with pytest.raises(mo.DTypeError, match=r"only a float .* not i64\[1\]"):
        mo.array([1], requires_grad=True)


def test_requires_grad_can_be_changed_on_leaves_only() -> None:
    w = nn.Parameter([2.0])
    y = w * w
    with pytest.raises(RuntimeError, match=r"write x = x.detach\(\)"):
        y.requires_grad = False
    y.requires_grad = True  # it does already: its history stays
    y.sum().backward()
    assert w.grad.tolist() == [4]
    w.requires_grad = False
    assert not (w * 2).requires_grad


def test_a_gradient_has_the_shape_of_its_var() -> None:
    w = nn.Parameter([1.0, 2.0])
    with pytest.raises(mo.ShapeError, match=r"grad of f32\[2\] cannot be f32\[3\]"):
        w.grad = mo.zeros(3)


def test_in_place_functions_of_torch_keep_history() -> None:
    x = mo.array(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x * 1
    assert y.masked_fill_(x > 4, 0.0) is y
    y.scatter_add_(0, mo.array([[1, 0, 1]]), x[:1] * 2)
    assert y.numpy().tolist() == [[0, 3, 2], [3, 4, 4]]
    slope = mo.grad(y.sum(), x)
    assert slope.numpy().tolist() == [[3, 3, 3], [1, 1, 0]]
    assert mo.array([1.0, 9.0]).clamp_(max=7.0).sub_(1).numpy().tolist() == [0, 6]


# ------------------------------------------------------------------------------------- attributes


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cuda", "leave it out"),
        ("clone", "x.detach()"),
        ("ndimension", "write x.ndim"),
        ("new_zeros", "mo.zeros(shape, dtype=x.dtype)"),
        ("reshap", "did you mean reshape"),
        ("to_sparse", "no sparse storage"),
    ],
)
def test_an_unknown_attribute_says_what_to_write(name: str, advice: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(mo.array([1.0]), name)
    assert name in str(caught.value)
    assert advice in str(caught.value)
    assert not hasattr(mo.array([1.0]), name)


def test_every_attribute_of_a_torch_tensor_exists_or_says_what_to_write() -> None:
    torch = pytest.importorskip("torch")
    x = mo.ones((2, 2))
    for name in dir(torch.Tensor):
        if not name.startswith("_") and not hasattr(x, name):
            with pytest.raises(AttributeError, match=rf"no attribute '{name}'(; write |: )"):
                getattr(x, name)


def test_a_name_that_the_package_does_not_have_says_what_to_write() -> None:
    for name, advice in (
        ("relu", r"write mo\.nn\.functional\.relu"), ("Tensor", r"write mo\.Var"),
        ("arrray", "did you mean array"), ("gcd", "with NumPy"),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=advice):
            getattr(mo, name)
