"""Module.summary and `metaop summary`: shapes, parameters, arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.cli import main


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )  # fmt: skip


def test_rows_hold_shapes_parameters_and_flops_of_each_layer():
    found = net().summary(mo.zeros((2, 3, 4, 4)))
    assert [(r.path, r.kind, r.output, r.parameters) for r in found.rows] == [
        ("0", "Conv2d", "f32[2,8,4,4]", 216),
        ("1", "BatchNorm2d", "f32[2,8,4,4]", 16),
        ("2", "ReLU", "f32[2,8,4,4]", 0),
        ("3", "Flatten", "f32[2,128]", 0),
        ("4", "Linear", "f32[2,10]", 1290),
    ]
    products = {row.kind: row.flops for row in found.rows}
    assert products["Conv2d"] == 2 * 2 * 8 * 16 * 27  # a multiply-add is two
    assert products["Linear"] == 2 * 2 * 10 * 128 + 2 * 10  # and the bias
    assert products["ReLU"] == products["Flatten"] == 0
    assert found.parameters == found.trained == 216 + 16 + 1290
    assert found.flops == sum(products.values())


def test_resnet18_takes_as_much_arithmetic_as_published():
    """1.814 billion multiply-adds for an image of 224x224, torchvision's documentation says."""
    found = nn.models.resnet18().summary(mo.zeros((1, 3, 224, 224)))
    products = sum(row.flops for row in found.rows if row.kind in ("Conv2d", "Linear"))
    assert products == pytest.approx(2 * 1.814e9, rel=2e-3)


def test_summary_computes_nothing_and_leaves_the_network_as_it_was():
    layers = net()
    layers[1].eval()
    mo.sync()
    before, launched = dict(layers.state_dict()), mo.stats().launched
    layers.summary(np.ones((2, 3, 4, 4), np.float32) * mo.ones((1,)))
    assert mo.stats().launched == launched
    assert [m.training for m in layers] == [True, False, True, True, True]
    assert not any("forward" in vars(m) for m in layers.modules())
    for name, value in layers.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())


def test_a_module_called_twice_counts_twice_and_its_parameters_once():
    class Twice(nn.Module):
        def __init__(self):
            self.layer, self.unused = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)
            self.unused.requires_grad_(False)

        def forward(self, x):
            return self.layer(self.layer(x)) + 1.5

    found = Twice().summary(mo.zeros((3, 4)))
    rows = {row.path: row for row in found.rows}
    assert rows["layer"].flops == 2 * (2 * 3 * 4 * 4) and rows["layer"].parameters == 16
    assert rows[""].flops == 12 and rows[""].parameters == 0
    assert rows["unused"].output == "" and "not called" in repr(found)
    assert (found.parameters, found.trained) == (26, 16)


def test_an_error_in_the_network_leaves_it_as_it_was():
    layers = net()
    with pytest.raises(mo.errors.ShapeError):
        layers.summary(mo.zeros((2, 4, 4, 4)))
    assert layers.training and "forward" not in vars(layers[0])


def test_the_command_prints_the_table(capsys):
    assert main(["summary", "metaop.nn.models:MLP", "--input", "f32[5,784]"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "layer  module  output      parameters      flops",
        "------------------------------------------------",
        "0      Linear  f32[5,512]     401,920  4,016,640",
        "1      ReLU    f32[5,512]           0          0",
        "2      Linear  f32[5,512]     262,656  2,624,000",
        "3      ReLU    f32[5,512]           0          0",
        "4      Linear  f32[5,10]        5,130     51,250",
        "------------------------------------------------",
        "total                         669,706  6,691,890",
        "669,706 of the parameters are trained",
    ]
    assert main(["summary", "metaop.nn.functional:SELU_ALPHA"]) == 2
    assert "summary needs a Module" in capsys.readouterr().err
