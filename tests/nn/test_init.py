"""Initial values: ranges, moments and patterns against the formulas and PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn import init

SHAPE = (60, 40, 3, 3)
FAN_IN, FAN_OUT = 40 * 9, 60 * 9


@pytest.fixture(autouse=True)
def seeded():
    mo.manual_seed(0)


def filled(function, *args, shape=SHAPE, **kwargs):
    parameter = nn.Parameter(mo.zeros(shape))
    assert function(parameter, *args, **kwargs) is parameter
    assert parameter.requires_grad and parameter.grad is None
    return parameter.numpy()


@pytest.mark.parametrize(
    "function, args, bound",
    [
        (init.uniform_, (-0.3, 0.3), 0.3),
        (init.xavier_uniform_, (), math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (init.xavier_uniform_, (2.0,), 2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (init.kaiming_uniform_, (), math.sqrt(6 / FAN_IN)),
        (init.kaiming_uniform_, (math.sqrt(5), "fan_out"), math.sqrt(1 / FAN_OUT)),
        (init.kaiming_uniform_, (0, "fan_in", "tanh"), 5 / 3 * math.sqrt(3 / FAN_IN)),
        (init.lecun_uniform_, (), math.sqrt(3 / FAN_IN)),
    ],
)
def test_uniform_fills_its_range(function, args, bound):
    values = filled(function, *args)
    assert abs(values).max() <= bound
    assert abs(values).max() > 0.999 * bound
    assert abs(values.mean()) < 0.02 * bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    "function, args, std",
    [
        (init.normal_, (0.0, 0.5), 0.5),
        (init.xavier_normal_, (), math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (init.kaiming_normal_, (), math.sqrt(2 / FAN_IN)),
        (init.kaiming_normal_, (0.5, "fan_out"), math.sqrt(2 / 1.25 / FAN_OUT)),
        (init.lecun_normal_, (), math.sqrt(1 / FAN_IN)),
    ],
)
def test_normal_has_its_standard_deviation(function, args, std):
    values = filled(function, *args)
    assert abs(values.mean()) < 0.03 * std
    assert values.std() == pytest.approx(std, rel=0.02)
    assert abs(values).max() > 3 * std


def test_trunc_normal_is_a_normal_cut_off():
    """The quantiles within ±2 std are those of the truncated distribution."""
    values = filled(init.trunc_normal_, 1.0, 0.5, 0.0, 2.0).ravel()
    assert values.min() >= 0 and values.max() <= 2
    inside = math.erf(2 / math.sqrt(2))
    for z in (-1.5, -0.5, 0.0, 0.5, 1.5):
        expected = (math.erf(z / math.sqrt(2)) / inside + 1) / 2
        assert (values <= 1 + 0.5 * z).mean() == pytest.approx(expected, abs=0.01)


def test_inverse_error_function_inverts_erf():
    x = np.linspace(-0.9999, 0.9999, 41)
    back = init._erfinv(mo.array(x.astype(np.float32))).numpy()
    np.testing.assert_allclose([math.erf(v) for v in back], x, atol=2e-6)


def test_constants_and_patterns():
    np.testing.assert_array_equal(filled(init.constant_, 0.3, shape=(2,)), np.float32([0.3, 0.3]))
    np.testing.assert_array_equal(filled(init.ones_, shape=(2,)), [1, 1])
    np.testing.assert_array_equal(filled(init.zeros_, shape=(2,)), [0, 0])
    np.testing.assert_array_equal(filled(init.eye_, shape=(2, 3)), np.eye(2, 3))


@pytest.mark.parametrize("shape, groups", [((4, 2, 3), 1), ((4, 2, 3, 2), 2), ((2, 3, 3, 3), 1)])
def test_dirac_is_that_of_torch(shape, groups):
    torch = pytest.importorskip("torch")
    expected = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
    np.testing.assert_array_equal(filled(init.dirac_, groups, shape=shape), expected)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"])
def test_calculate_gain_is_that_of_torch(name):
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)


def test_calculate_gain_takes_a_slope_and_lists_what_it_knows():
    assert init.calculate_gain("leaky_relu", 1.0) == 1.0
    with pytest.raises(ValueError, match=r"no nonlinearity 'swish'; there are .*relu"):
        init.calculate_gain("swish")


def test_other_dtypes_are_filled():
    weight = nn.Parameter(mo.zeros((3, 3), dtype=mo.float64))
    assert init.xavier_normal_(weight).dtype is mo.float64
    assert weight.numpy().all()


@pytest.mark.parametrize(
    "layer",
    [lambda: nn.Linear(400, 200), lambda: nn.Conv2d(16, 100, 5), lambda: nn.Conv1d(40, 200, 5)],
)
def test_layers_start_uniform_on_one_over_root_fan_in(layer):
    module = layer()
    bound = 1 / math.sqrt(math.prod(module.weight.shape[1:]))
    for values in (module.weight.numpy(), module.bias.numpy()):
        assert 0.9 * bound < abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_two_layers_start_different_and_a_seed_repeats_them():
    first, second = nn.Linear(3, 3).weight.numpy(), nn.Linear(3, 3).weight.numpy()
    assert not np.array_equal(first, second)
    mo.manual_seed(0)
    np.testing.assert_array_equal(nn.Linear(3, 3).weight.numpy(), first)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda v: init.xavier_uniform_(v), ValueError, r"need two axes or more, got f32\[3\]"),
        (lambda v: init.eye_(v), ValueError, r"a matrix is needed, got f32\[3\]"),
        (lambda v: init.dirac_(v), ValueError, r"a weight of 3 to 5 axes is needed"),
        (
            lambda v: init.kaiming_normal_(mo.zeros((2, 2)), mode="both"),
            ValueError,
            "mode must be 'fan_in' or 'fan_out', got 'both'",
        ),
        (lambda v: init.dirac_(mo.zeros((3, 1, 2)), 2), ValueError, "2 groups do not divide 3"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(mo.zeros((3,)))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3)])
def test_orthogonal_rows_or_columns_have_length_gain(shape):
    matrix = init.orthogonal_(mo.zeros(shape), gain=2.0).numpy().reshape(shape[0], -1)
    square = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(square, 4 * np.eye(len(square)), atol=1e-5)


def test_sparse_has_its_share_of_zeros_in_each_column():
    matrix = init.sparse_(mo.zeros((10, 40)), 0.25, std=0.5).numpy()
    assert ((matrix == 0).sum(0) == 3).all()
    assert abs(matrix[matrix != 0].std() - 0.5) < 0.1
