"""Modules against torch's of the same name: constructor, state dict, repr where there is none of
our own, and what they compute; in the printed Python kernels, as compiling them would take long."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.nn.layers.applied import Applied
from tests.helpers import python_value

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)

# for the shapes of the inputs: the layers
ON_FLOATS: dict[tuple[tuple[int, ...], ...], str] = {
    ((2, 4),): """CELU(0.7) Threshold(0.1,20.0) Hardshrink(0.2) Softshrink() Tanhshrink() GLU(0)
        PReLU() PReLU(4) RReLU(0.1,0.2) RMSNorm(4) RMSNorm(4,elementwise_affine=False)
        ConstantPad1d(1,2.0) Dropout1d() AlphaDropout(0.2) FeatureAlphaDropout()""",
    ((2, 4, 6),): """MaxPool1d(2) MaxPool1d(3,2,1,return_indices=True) AvgPool1d(2,1,1)
        LPPool1d(2,2) AdaptiveAvgPool1d(4) AdaptiveMaxPool1d(4) InstanceNorm1d(4,affine=True)
        Upsample(9) InstanceNorm1d(4,track_running_stats=True) ZeroPad1d((1,2)) ReflectionPad1d(2)
        ReplicationPad1d((2,0)) CircularPad1d(2) ConvTranspose1d(4,2,3,2,padding=1)
        Upsample(scale_factor=2.0,mode="linear") Conv1d(4,2,3,padding=1,padding_mode="circular")""",
    ((2, 4, 4, 6),): """LPPool2d(2.0,(2,1)) AdaptiveAvgPool2d((None,2))
        AvgPool2d(2,divisor_override=3) AdaptiveMaxPool2d(3,return_indices=True) InstanceNorm2d(4)
        LocalResponseNorm(3) Softmax2d() PixelShuffle(2) PixelUnshuffle(2) ChannelShuffle(2)
        Unfold(2,padding=1) ReflectionPad2d(1)
        ReplicationPad2d((1,2,0,1)) CircularPad2d(1) ZeroPad2d(-1) ConstantPad2d((1,0,2,1),0.5)
        UpsamplingNearest2d(scale_factor=2) UpsamplingBilinear2d((3,5)) Dropout2d()
        ConvTranspose2d(4,2,3,stride=2,output_padding=1,groups=2,bias=False)
        Conv2d(4,2,3,padding="same",padding_mode="reflect",dilation=(1,2))""",
    ((1, 2, 3, 4, 4),): """MaxPool3d(2) AvgPool3d(2,1) LPPool3d(2,2) AdaptiveAvgPool3d(2)
        AdaptiveMaxPool3d((1,2,3)) InstanceNorm3d(2) BatchNorm3d(2) ReflectionPad3d(1) ZeroPad3d(1)
        ReplicationPad3d(1) CircularPad3d(1) ConstantPad3d(1,2.0) Dropout3d()
        Conv3d(2,3,2,padding=1) ConvTranspose3d(2,3,2)""",
    ((3, 4), (3, 4)): """CosineSimilarity() CosineSimilarity(dim=0) PairwiseDistance(1.0)
        HuberLoss(delta=0.5) Bilinear(4,4,2) KLDivLoss(reduction="batchmean",log_target=True)
        PoissonNLLLoss(full=True)""",
    ((3, 4), (3, 4), (3, 4)): """TripletMarginLoss(margin=0.5)
        TripletMarginWithDistanceLoss(swap=True)""",
}  # fmt: skip
CASES = [(layer, shapes) for shapes, layers in ON_FLOATS.items() for layer in layers.split()]


def both(layer: str) -> tuple[Any, Any]:
    ours, theirs = eval(f"nn.{layer}"), eval(f"torch.nn.{layer}")
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    if "Dropout" in layer or "RReLU" in layer:
        ours.eval(), theirs.eval()
    return ours, theirs


def assert_same(got: Any, want: Any) -> None:
    got, want = ([y] if hasattr(y, "shape") else list(y) for y in (got, want))
    for y, w in zip(got, want, strict=True):
        np.testing.assert_allclose(python_value(y), w.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layer, shapes", CASES, ids=[layer for layer, _ in CASES])
def test_layer_computes_what_torchs_does(layer: str, shapes: Any) -> None:
    ours, theirs = both(layer)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    if "Poisson" in layer:
        arrays[1] = arrays[1] ** 2
    assert_same(ours(*map(mo.array, arrays)), theirs(*map(torch.tensor, arrays)))
    for (_, ours_now), (_, theirs_now) in zip(
        sorted(ours.state_dict().items()), sorted(theirs.state_dict().items()), strict=True
    ):
        assert_same(ours_now, theirs_now)


LABELLED = {
    "GaussianNLLLoss(full=True)": ([3, 4], [3, 4], np.full((3, 1), 0.5, np.float32)),
    "HingeEmbeddingLoss(0.5)": ([3], np.array([1, -1, 1], np.float32)),
    "MarginRankingLoss(0.1)": ([3], [3], np.array([1, -1, 1], np.float32)),
    "SoftMarginLoss()": ([3], np.array([1, -1, 1], np.float32)),
    "CosineEmbeddingLoss()": ([3, 4], [3, 4], np.array([1, -1, 1])),
    "MultiMarginLoss(p=2)": ([3, 4], np.array([1, 3, 0])),
    "MultiLabelMarginLoss()": ([1, 4], np.array([[3, 0, -1, 1]])),
    "MultiLabelSoftMarginLoss()": ([2, 3], np.array([[0, 1, 1], [1, 0, 0]], np.float32)),
    "CTCLoss()": ([5, 1, 3], np.array([[1, 2]]), np.array([5]), np.array([2])),
    "EmbeddingBag(5,3,mode='sum',padding_idx=1)": (np.array([[1, 4, 0], [2, 2, 1]]),),
}


@pytest.mark.parametrize("layer", LABELLED)
def test_layer_of_labels_computes_what_torchs_does(layer: str) -> None:
    arrays = [
        rng.standard_normal(a).astype(np.float32) if isinstance(a, list) else a
        for a in LABELLED[layer]
    ]
    ours, theirs = both(layer)
    got = ours(*map(mo.array, arrays))
    want = theirs(*map(torch.tensor, arrays)).detach().numpy()
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)


def test_pooling_goes_back() -> None:
    x = mo.array(rng.standard_normal((1, 2, 4, 4)).astype(np.float32))
    out, places = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(out, places)
    np.testing.assert_array_equal(nn.MaxPool2d(2)(back).numpy(), np.maximum(out.numpy(), 0))
    assert nn.ConvTranspose2d(1, 1, 3, 2)(x[:, :1], (1, 1, 10, 10)).shape == (1, 1, 10, 10)
    with pytest.raises(ValueError, match=r"output_size must be at least \[9, 9\]"):
        nn.ConvTranspose2d(1, 1, 3, 2)(x[:, :1], (8, 8))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize("first", [False, True])
def test_decoder_and_transformer_agree_with_torch(first: bool) -> None:
    options = {"dim_feedforward": 8, "dropout": 0.0, "batch_first": first, "norm_first": first}
    theirs = torch.nn.Transformer(4, 2, 1, 2, **options)
    ours = nn.Transformer(4, 2, 1, 2, **options)
    ours.load_state_dict(theirs.state_dict())
    src, tgt = (rng.standard_normal(s).astype(np.float32) for s in ((3, 2, 4), (3, 2, 4)))
    masks = [m.Transformer.generate_square_subsequent_mask(2 if first else 3)
             for m in (nn, torch.nn)]  # fmt: skip
    got = ours(mo.array(src), mo.array(tgt), tgt_mask=masks[0])
    want = theirs(torch.tensor(src), torch.tensor(tgt), tgt_mask=masks[1])
    np.testing.assert_allclose(got.numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_containers_hold_what_is_trained() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.parts = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ReLU()})
            self.scales = nn.ParameterList([np.ones(2, np.float32), np.zeros(3, np.float32)])
            self.named = nn.ParameterDict({"c": np.ones((), np.float32)})

        def forward(self, x: mo.Var) -> mo.Var:
            for part in self.parts.values():
                x = part(x)
            return x * self.scales[0] * self.named["c"]

    net = Net()
    assert list(net.state_dict()) == [
        "parts.a.weight", "parts.a.bias", "scales.0", "scales.1", "named.c",
    ]  # fmt: skip
    assert list(net.parts) == ["a", "b"] and "a" in net.parts and len(net.scales) == 2
    assert net.parts.pop("b").__class__ is nn.ReLU and net.parts.keys() == ["a"]
    assert net.scales[-1].shape == (3,) and [p.shape for p in net.scales[:1]] == [(2,)]
    assert net.scales.append(np.ones(1, np.float32))[2].shape == (1,)
    with pytest.raises(IndexError, match="position 3 is out of range for 3 parameters"):
        net.scales[3]
    optimiser = nn.optim.SGD(net.parameters(), lr=0.1)
    optimiser.step(net(mo.ones((4, 2))).sum() + net.scales[1].sum() + net.scales[2].sum())
    step = mo.jit(net)
    net.named["c"] = np.full((), 2, np.float32)
    x = mo.ones((4, 2))
    np.testing.assert_array_equal(step(x).numpy(), net(x).numpy())


def test_dropout_of_channels_keeps_or_drops_them_whole() -> None:
    mo.manual_seed(0)
    out = nn.Dropout2d(0.5)(mo.ones((8, 8, 3, 3))).numpy()
    assert set(out.reshape(64, 9).sum(1)) == {0, 18}
    long = nn.AlphaDropout(0.3)(mo.array(rng.standard_normal(100_000).astype(np.float32))).numpy()
    assert abs(long.mean()) < 0.02 and abs(long.std() - 1) < 0.02
    slopes = nn.RReLU(0.1, 0.2)(mo.full((1000,), -1.0)).numpy()
    assert (-slopes >= 0.1).all() and (-slopes <= 0.2).all() and slopes.std() > 0.02


def test_gumbel_softmax_draws_by_the_logits() -> None:
    mo.manual_seed(0)
    logits = mo.log(mo.array([[0.2, 0.3, 0.5]] * 20_000))
    drawn = nn.functional.gumbel_softmax(logits, hard=True).numpy()
    np.testing.assert_allclose(drawn.mean(0), [0.2, 0.3, 0.5], atol=0.015)
    assert set(np.unique(drawn.round(5))) == {0, 1}


def test_an_applied_layer_shows_and_checks_its_arguments() -> None:
    assert str(inspect.signature(nn.Softshrink)) == "(lambd: 'float' = 0.5)"
    assert repr(nn.Softshrink(0.3)) == "Softshrink(lambd=0.3)" and repr(nn.GLU()) == "GLU()"
    with pytest.raises(TypeError, match=r"Hardshrink\(lambd: 'float' = 0.5\): got an unexpected"):
        nn.Hardshrink(lamda=1)
    with pytest.raises(TypeError, match="CosineSimilarity takes 2 Vars, got 1"):
        nn.CosineSimilarity()(mo.zeros((2, 2)))
    assert issubclass(nn.MultiMarginLoss, Applied)
    assert list(nn.MultiMarginLoss(weight=np.ones(3)).state_dict()) == ["weight"]
