"""mo.save and mo.load keep every value, dtype and structure, and refuse broken files."""

import numpy as np
import pytest

import metaop as mo
from metaop import nn


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_a_var_comes_back_with_its_dtype_and_bits(tmp_path, dtype):
    x = mo.array(np.arange(6).reshape(2, 3)).astype(dtype)
    mo.save({"x": x}, tmp_path / "x.safetensors")
    back = mo.load(tmp_path / "x.safetensors")["x"]
    assert back.dtype is x.dtype
    assert back.numpy().tobytes() == x.numpy().tobytes()


def test_bfloat16_comes_back_as_bfloat16(tmp_path):
    x = mo.array([1.0, -2.5, 3.140625]).astype("bfloat16")
    mo.save([x], tmp_path / "x.safetensors")
    (back,) = mo.load(tmp_path / "x.safetensors")
    assert back.dtype is mo.bfloat16
    assert back.numpy().tolist() == [1.0, -2.5, 3.140625]


def test_a_tree_of_vars_and_numbers_keeps_its_structure(tmp_path):
    tree = {"epoch": 3, "lr": 0.5, "name": "net", "list": [mo.ones(2), {"deep": mo.zeros(())}]}
    mo.save(tree, tmp_path / "tree.safetensors")
    back = mo.load(tmp_path / "tree.safetensors")
    assert (back["epoch"], back["lr"], back["name"]) == (3, 0.5, "net")
    assert back["list"][0].numpy().tolist() == [1, 1]
    assert back["list"][1]["deep"].shape == ()


def test_training_resumes_to_the_bit_from_a_checkpoint(tmp_path):
    def make():
        mo.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        return net, nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def train(net, opt, steps):
        x = mo.array(np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3))
        for _ in range(steps):
            opt.step((net(x) ** 2).mean())

    net, opt = make()
    train(net, opt, 2)
    mo.save({"net": net.state_dict(), "opt": opt.state_dict()}, tmp_path / "half.safetensors")
    train(net, opt, 2)

    resumed, resumed_opt = make()
    saved = mo.load(tmp_path / "half.safetensors")
    resumed.load_state_dict(saved["net"])
    resumed_opt.load_state_dict(saved["opt"])
    train(resumed, resumed_opt, 2)
    for (name, a), b in zip(net.state_dict().items(), resumed.state_dict().values()):
        assert a.numpy().tobytes() == b.numpy().tobytes(), name


def test_a_broken_file_raises_checkpoint_error(tmp_path):
    path = tmp_path / "x.safetensors"
    mo.save({"x": mo.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(mo.CheckpointError, match=r"x\.safetensors"):
        mo.load(path)
