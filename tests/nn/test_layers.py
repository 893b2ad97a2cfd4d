"""Layers, activations and losses against PyTorch: values, gradients, running statistics."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn

torch = pytest.importorskip("torch")
F, TF = nn.functional, torch.nn.functional
rng = np.random.default_rng(0)


def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_agrees(ours, theirs, *arrays, tolerance=1e-5):
    """Outputs agree, and so do the gradients of a weighted sum of them in every argument."""
    vars_ = [mo.Var(a, requires_grad=True) for a in arrays]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*vars_), theirs(*tensors)
    weights = np.linspace(-1, 1, out.size, dtype=np.float32).reshape(out.shape) + 0.3
    gradients = mo.grad((out * mo.array(weights)).sum(), vars_)
    (expected * torch.tensor(weights)).sum().backward()
    close(out.numpy(), expected.detach().numpy(), tolerance)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        close(gradient.numpy(), tensor.grad.numpy(), tolerance)


def assert_modules_agree(ours, theirs, x, tolerance=1e-5):
    """With equal state: outputs, gradients in x and in all parameters, and the state afterwards."""
    ours.load_state_dict(theirs.state_dict())
    parameters = dict(ours.named_parameters())
    data, tensor = mo.Var(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    theirs.zero_grad()
    out, expected = ours(data), theirs(tensor)
    weights = draw(*out.shape)
    gradients = mo.grad((out * mo.array(weights)).sum(), [data, *parameters.values()])
    (expected * torch.tensor(weights)).sum().backward()
    close(out.numpy(), expected.detach().numpy(), tolerance)
    close(gradients[0].numpy(), tensor.grad.numpy(), tolerance)
    theirs_by_name = dict(theirs.named_parameters())
    for name, gradient in zip(parameters, gradients[1:], strict=True):
        close(gradient.numpy(), theirs_by_name[name].grad.numpy(), tolerance)
    assert_same_state(ours, theirs, tolerance)


def assert_same_state(ours, theirs, tolerance=1e-5):
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    for name, value in ours.state_dict().items():
        close(value.numpy(), expected[name].numpy(), tolerance)


# --- activations ----------------------------------------------------------------------------------

ACTIVATIONS = """
ReLU() ReLU6() Sigmoid() Tanh() LeakyReLU(0.2) ELU(1.5) SELU() GELU() GELU(approximate="tanh")
SiLU() Mish() Softplus() Softplus(2.0,3.0) Softsign() Hardsigmoid() Hardswish() LogSigmoid()
Hardtanh(-2.0,2.0) Softmax(0) LogSoftmax(0) Softmin(0)
""".split()


@pytest.mark.parametrize("layer", ACTIVATIONS)
def test_activation_agrees_with_torch(layer):
    # Kinks (0, 2, 6) and large values, where a careless formula overflows, among them.
    x = np.array([-100, -4, -2, -1.5, -0.3, 0, 1e-3, 0.7, 1.2, 2, 4, 6, 100], np.float32)
    assert_agrees(eval(f"nn.{layer}"), eval(f"torch.nn.{layer}"), x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [1, -1])
def test_softmax_agrees_with_torch_over_any_axis(name, axis):
    x = draw(2, 5, 3) * 20
    assert_agrees(lambda v: getattr(F, name)(v, axis), lambda t: getattr(TF, name)(t, axis), x)


def test_relu_keeps_nan_and_is_zero_at_zero():
    x = mo.Var(np.array([np.nan, -1, 0, 2], np.float32), requires_grad=True)
    out = F.relu(x)
    (gradient,) = mo.grad(out.sum(), [x])
    np.testing.assert_array_equal(out.numpy(), [np.nan, 0, 0, 2])
    np.testing.assert_array_equal(gradient.numpy()[1:], [0, 0, 1])


def test_softmax_of_huge_logits_is_finite():
    out = F.softmax(mo.array([1e4, 1e4 - 1, -1e4]), 0).numpy()
    close(out, [1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0])


def test_gelu_names_its_two_forms():
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'exact'"):
        F.gelu(mo.zeros((1,)), "exact")


# --- linear and shape -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (3,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_agrees_with_torch(shape, bias):
    assert_modules_agree(nn.Linear(3, 4, bias), torch.nn.Linear(3, 4, bias), draw(*shape))


def test_linear_refuses_what_does_not_fit():
    layer = nn.Linear(3, 4)
    with pytest.raises(
        mo.errors.ShapeError,
        match=r"inner sizes must agree, input is f32\[2,5\], weight is f32\[4,3\] \(5 != 3\)",
    ):
        layer(mo.zeros((2, 5)))
    with pytest.raises(mo.errors.ShapeError, match=r"no axis != 3"):
        layer(mo.zeros(()))
    with pytest.raises(mo.errors.DTypeError, match=r"input is f64\[2,3\].*astype\('float32'\)"):
        layer(mo.zeros((2, 3), dtype=mo.float64))


@pytest.mark.parametrize(
    "layer",
    [
        "Conv1d(2, 3, 2)",
        "Conv2d(2, 4, 3, stride=2, padding=1, bias=False)",
        "Conv2d(2, 4, (1, 3), groups=2)",
        "MaxPool2d(2)",
        "AvgPool2d(2, 1)",
        "Flatten()",
        "Flatten(0, 1)",
        "Unflatten(1, (1, 2))",
        "Identity()",
    ],
)
def test_layer_agrees_with_torch(layer):
    x = draw(2, 2, 5) if "1d" in layer else draw(2, 2, 5, 4)
    assert_modules_agree(eval(f"nn.{layer}"), eval(f"torch.nn.{layer}"), x)


def test_convolution_layers_refuse_bad_arguments():
    with pytest.raises(
        ValueError, match="groups must divide in_channels 3 and out_channels 4, got 2"
    ):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="channels and kernel_size must be positive"):
        nn.Conv2d(3, 4, 0)
    with pytest.raises(mo.errors.DTypeError, match="dtypes must agree"):
        nn.Conv2d(1, 1, 1)(mo.zeros((1, 1, 2, 2), dtype=mo.float64))


def test_flatten_and_unflatten_refuse_bad_axes():
    with pytest.raises(mo.errors.ShapeError, match="axis 3 is out of range for rank 2"):
        F.flatten(mo.zeros((2, 3)), 3)
    with pytest.raises(ValueError, match="start_dim 1 comes after end_dim 0"):
        F.flatten(mo.zeros((2, 3)), 1, 0)
    with pytest.raises(mo.errors.ShapeError, match=r"sizes \(2, 2\) do not multiply to axis 1"):
        F.unflatten(mo.zeros((2, 3)), 1, (2, 2))


# --- normalisation --------------------------------------------------------------------------------

BATCH_NORMS = [
    ("BatchNorm1d(3)", (6, 3)),
    ("BatchNorm1d(3)", (4, 3, 5)),
    ("BatchNorm2d(3)", (4, 3, 2, 5)),
    ("BatchNorm2d(3, eps=1e-2, momentum=0.3)", (4, 3, 2, 5)),
    ("BatchNorm2d(3, momentum=None)", (4, 3, 2, 5)),
    ("BatchNorm1d(3, affine=False)", (6, 3)),
    ("BatchNorm1d(3, track_running_stats=False)", (6, 3)),
]


def randomised(module):
    """The torch module with parameters that are not all ones and zeros."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(draw(*parameter.shape)))
    return module


@pytest.mark.parametrize("layer, shape", BATCH_NORMS)
def test_batch_norm_agrees_with_torch_in_training_and_inference(layer, shape):
    ours, theirs = eval(f"nn.{layer}"), randomised(eval(f"torch.nn.{layer}"))
    for _ in range(2):
        assert_modules_agree(ours, theirs, draw(*shape) * 3 + 1)
    ours.eval(), theirs.eval()
    assert_modules_agree(ours, theirs, draw(*shape))


def test_batch_norm_of_a_large_mean_has_unit_variance():
    """Story: E[x²] - E[x]² cancels in float32 at mean 1e4, std 1, and gives nonsense."""
    x = (rng.standard_normal((512, 4)) + 1e4).astype(np.float32)
    norm = nn.BatchNorm1d(4)
    out = norm(mo.array(x)).numpy()
    assert abs(out.std(axis=0) - 1).max() < 1e-3
    close(norm.running_var.numpy(), 0.9 + 0.1 * x.astype(np.float64).var(axis=0, ddof=1), 1e-4)


def test_batch_norm_in_inference_changes_nothing():
    norm = nn.BatchNorm1d(2).eval()
    out = norm(mo.array([[3.0, 4.0]]))
    close(out.numpy(), [[3, 4]])
    assert norm.num_batches_tracked.item() == 0
    np.testing.assert_array_equal(norm.running_mean.numpy(), [0, 0])


def test_batch_norm_statistics_have_no_history():
    norm = nn.BatchNorm1d(2)
    norm(mo.Var(draw(4, 2), requires_grad=True))
    assert not norm.running_mean.requires_grad and not norm.running_var.requires_grad


def test_batch_norm_reset_forgets():
    norm = nn.BatchNorm1d(2)
    norm(mo.array(draw(4, 2)))
    norm.reset_parameters()
    assert norm.num_batches_tracked.item() == 0
    np.testing.assert_array_equal(norm.running_var.numpy(), [1, 1])


def test_batch_norm_refuses_what_does_not_fit():
    with pytest.raises(
        mo.errors.ShapeError, match=r"BatchNorm2d: x must have rank 4, got f32\[2,3\]"
    ):
        nn.BatchNorm2d(3)(mo.zeros((2, 3)))
    with pytest.raises(mo.errors.ShapeError, match=r"BatchNorm1d: x must have rank 2 or 3"):
        nn.BatchNorm1d(3)(mo.zeros((2, 3, 4, 4)))
    with pytest.raises(mo.errors.ShapeError, match=r"channels must agree.*\(4 != 3\)"):
        nn.BatchNorm1d(3)(mo.zeros((2, 4)))
    with pytest.raises(ValueError, match="more than one value per channel, input is f32"):
        nn.BatchNorm1d(3)(mo.zeros((1, 3)))


@pytest.mark.parametrize(
    "layer, shape",
    [
        ("LayerNorm(5)", (2, 3, 5)),
        ("LayerNorm((3, 5), eps=1e-3)", (2, 3, 5)),
        ("LayerNorm(5, bias=False)", (4, 5)),
        ("LayerNorm(5, elementwise_affine=False)", (4, 5)),
        ("GroupNorm(2, 4)", (3, 4, 5)),
        ("GroupNorm(1, 4)", (3, 4)),
        ("GroupNorm(4, 4, affine=False)", (2, 4, 3, 2)),
    ],
)
def test_layer_and_group_norm_agree_with_torch(layer, shape):
    theirs = randomised(eval(f"torch.nn.{layer}"))
    assert_modules_agree(eval(f"nn.{layer}"), theirs, draw(*shape), 2e-5)


def test_layer_and_group_norm_refuse_what_does_not_fit():
    with pytest.raises(mo.errors.ShapeError, match=r"input must end in the axes \(4,\), got f32"):
        nn.LayerNorm(4)(mo.zeros((2, 3)))
    with pytest.raises(mo.errors.ShapeError, match="2 groups do not divide the channels"):
        F.group_norm(mo.zeros((2, 3)), 2)
    with pytest.raises(ValueError, match="num_groups must divide num_channels 4, got 3"):
        nn.GroupNorm(3, 4)


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_scales_what_it_keeps():
    mo.manual_seed(0)
    out = nn.Dropout(0.3)(mo.ones((100, 100))).numpy()
    close(np.unique(out), [0, 1 / 0.7])
    assert abs((out == 0).mean() - 0.3) < 0.02


def test_dropout_draws_anew_and_is_off_in_inference():
    layer, x = nn.Dropout(0.5), mo.ones((64,))
    first, second = layer(x), layer(x)
    assert (first.numpy() != second.numpy()).any()
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())


def test_dropout_gradient_has_the_mask_of_the_value():
    x = mo.Var(np.ones(64, np.float32), requires_grad=True)
    out = F.dropout(x, 0.4)
    (gradient,) = mo.grad(out.sum(), [x])
    np.testing.assert_array_equal(gradient.numpy(), out.numpy())


def test_dropout_at_its_ends():
    x = mo.array([1.0, 2.0])
    np.testing.assert_array_equal(F.dropout(x, 0.0).numpy(), [1, 2])
    np.testing.assert_array_equal(F.dropout(x, 1.0).numpy(), [0, 0])
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match="p must be between 0 and 1"):
            nn.Dropout(p)
        with pytest.raises(ValueError, match="p must be between 0 and 1"):
            F.dropout(x, p)


# --- losses ---------------------------------------------------------------------------------------

REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "loss", ["MSELoss", "L1Loss", "SmoothL1Loss", "BCELoss", "BCEWithLogitsLoss"]
)
def test_elementwise_loss_agrees_with_torch(loss, reduction):
    if loss == "BCELoss":
        x, y = (1 / (1 + np.exp(-draw(2, 4, 3)))).astype(np.float32)
    else:
        x, y = draw(2, 4, 3) * 2
        y = np.abs(y) / 4 if loss == "BCEWithLogitsLoss" else y
    ours = getattr(nn, loss)(reduction=reduction)
    theirs = getattr(torch.nn, loss)(reduction=reduction)
    assert_agrees(lambda v: ours(v, mo.array(y)), lambda t: theirs(t, torch.tensor(y)), x)


def test_binary_cross_entropy_with_weights_agrees_with_torch():
    x, y, weight, positive = draw(4, 3), np.abs(draw(4, 3)) / 4, np.abs(draw(3)), np.abs(draw(3))
    assert_agrees(
        lambda v: nn.BCEWithLogitsLoss(mo.array(weight), pos_weight=mo.array(positive))(
            v, mo.array(y)
        ),
        lambda t: torch.nn.BCEWithLogitsLoss(
            torch.tensor(weight), pos_weight=torch.tensor(positive)
        )(t, torch.tensor(y)),
        x,
    )


CLASSIFICATION = [
    {},
    {"ignore_index": 2},
    {"weight": True},
    {"weight": True, "ignore_index": 1},
]
SMOOTHED = [
    {"label_smoothing": 0.1},
    {"label_smoothing": 0.2, "weight": True, "ignore_index": 1},
]


def assert_classification_agrees(name, options, shape, reduction):
    options = dict(options, reduction=reduction)
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels.flat[0], labels.flat[1] = 1, 2
    weight = np.abs(draw(shape[1])) + 0.1 if options.pop("weight", False) else None
    ours = getattr(nn, name)(None if weight is None else mo.array(weight), **options)
    theirs = getattr(torch.nn, name)(None if weight is None else torch.tensor(weight), **options)
    assert_agrees(
        lambda v: ours(v, mo.array(labels)), lambda t: theirs(t, torch.tensor(labels)), draw(*shape)
    )


@pytest.mark.parametrize("options", CLASSIFICATION + SMOOTHED)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_agrees_with_torch(options, reduction):
    assert_classification_agrees("CrossEntropyLoss", options, (6, 4), reduction)


@pytest.mark.parametrize("options", CLASSIFICATION)
def test_nll_loss_agrees_with_torch(options):
    assert_classification_agrees("NLLLoss", options, (6, 4), "mean")


@pytest.mark.parametrize("name", ["NLLLoss", "CrossEntropyLoss"])
def test_classification_of_pixels_agrees_with_torch(name):
    assert_classification_agrees(name, {"weight": True}, (2, 4, 3, 2), "mean")


def test_classification_of_one_sample_agrees_with_torch():
    label = mo.array(np.array(2))
    assert_agrees(
        lambda v: F.cross_entropy(v, label), lambda t: TF.cross_entropy(t, torch.tensor(2)), draw(4)
    )


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}])
def test_cross_entropy_of_probabilities_agrees_with_torch(options):
    y = rng.random((5, 3)).astype(np.float32)
    assert_agrees(
        lambda v: F.cross_entropy(v, mo.array(y), **options),
        lambda t: TF.cross_entropy(t, torch.tensor(y), **options),
        draw(5, 3),
    )


@pytest.mark.parametrize("label", [4, -1])
def test_a_label_out_of_range_is_reported_by_the_read(label):
    loss = F.cross_entropy(mo.zeros((2, 4)), mo.array(np.array([0, label])))
    with pytest.raises(IndexError):
        loss.item()


def test_an_ignored_label_needs_no_range():
    loss = F.cross_entropy(mo.zeros((2, 4)), mo.array(np.array([0, -100])))
    close(loss.item(), np.log(4))


def test_losses_refuse_what_does_not_fit():
    x = mo.zeros((2, 4))
    with pytest.raises(mo.errors.DTypeError, match=r"labels must be integers, .* target is f32"):
        F.cross_entropy(x, mo.zeros((2,)))
    with pytest.raises(mo.errors.ShapeError, match=r"without its class axis, input is f32\[2,4\]"):
        F.nll_loss(x, mo.zeros((3,), dtype=mo.int64))
    with pytest.raises(mo.errors.ShapeError, match="one number per class"):
        F.cross_entropy(x, mo.zeros((2,), dtype=mo.int64), mo.ones((3,)))
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        F.mse_loss(x, x, reduction="avg")
    with pytest.raises(ValueError, match="label_smoothing must be in 0 … 1, got 2"):
        F.cross_entropy(x, mo.zeros((2,), dtype=mo.int64), label_smoothing=2)


def test_mse_loss_warns_when_it_broadcasts():
    with pytest.warns(UserWarning, match=r"target f32\[3,1\] is broadcast against input f32\[3\]"):
        F.mse_loss(mo.zeros((3,)), mo.zeros((3, 1)))


@pytest.mark.parametrize("label", [3, -1])
def test_an_index_that_torch_refuses_is_refused(label):
    """-1 was the last row of an embedding, and no class of one_hot: nobody was told."""
    index = mo.array(np.array([0, label]))
    for call in (
        lambda: nn.Embedding(3, 2)(index),
        lambda: nn.EmbeddingBag(3, 2)(index[None]),
        lambda: F.one_hot(index, 3),
    ):
        with pytest.raises(IndexError, match=f"index {label} is out of bounds .*allowed: 0 to 2"):
            call().numpy()


@pytest.mark.parametrize("shape, dim", [((0, 3), 0), ((3, 0), 1), ((0, 3), 1)])
def test_softmax_of_nothing_is_nothing(shape, dim):
    for function in (F.softmax, F.log_softmax):
        assert function(mo.zeros(shape), dim).numpy().shape == shape


def test_one_hot_is_that_of_torch():
    labels = np.array([[0, 2], [1, 1]])
    expected = TF.one_hot(torch.tensor(labels), 3).numpy()
    np.testing.assert_array_equal(F.one_hot(mo.array(labels), 3).numpy(), expected)
    np.testing.assert_array_equal(F.one_hot(mo.array(labels)).numpy(), expected)


# --- LeNet ----------------------------------------------------------------------------------------


def torch_lenet():
    t = torch.nn
    return t.Sequential(
        *(t.Conv2d(1, 6, 5), t.BatchNorm2d(6), t.Sigmoid(), t.AvgPool2d(2, 2)),
        *(t.Conv2d(6, 16, 5), t.BatchNorm2d(16), t.Sigmoid(), t.AvgPool2d(2, 2)),
        *(t.Flatten(), t.Linear(256, 120), t.BatchNorm1d(120), t.Sigmoid()),
        *(t.Linear(120, 84), t.BatchNorm1d(84), t.Sigmoid(), t.Linear(84, 10)),
    )


def test_lenet_with_torch_weights_gives_torch_logits_in_both_modes():
    ours, theirs = nn.models.LeNetBN(), torch_lenet()
    ours.load_state_dict(theirs.state_dict())
    x = draw(4, 1, 28, 28)
    for _ in range(2):
        out, expected = ours(mo.array(x)), theirs(torch.tensor(x))
        close(out.numpy(), expected.detach().numpy(), 1e-4)
        assert_same_state(ours, theirs)
        ours.eval(), theirs.eval()


def test_torch_loads_the_state_of_lenet():
    ours, theirs = nn.models.LeNetBN().eval(), torch_lenet().eval()
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    x = draw(2, 1, 28, 28)
    close(ours(mo.array(x)).numpy(), theirs(torch.tensor(x)).detach().numpy())


def test_lenet_trains_as_in_torch():
    ours, theirs = nn.models.LeNetBN(), torch_lenet()
    ours.load_state_dict(theirs.state_dict())
    a = nn.optim.SGD(ours.parameters(), lr=0.5, momentum=0.5)
    b = torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.5)
    x, labels = draw(8, 1, 28, 28), rng.integers(0, 10, 8)
    for _ in range(3):
        loss = F.cross_entropy(ours(mo.array(x)), mo.array(labels))
        expected = TF.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
        a.step(loss)
        b.zero_grad()
        expected.backward()
        b.step()
        close(loss.item(), expected.item(), 1e-4)
    assert_same_state(ours, theirs, 2e-3)
