"""The command line: metaop dump."""

import subprocess
import sys
from pathlib import Path

import pytest

import metaop as mo
from metaop.cli import load_target, main, make_inputs

MODEL = """
import metaop as mo
from metaop import nn

net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
value = mo.exp(mo.array([1.0, 2.0]))

def double(x):
    return x * 2

def step():
    return mo.array([3.0]) + 1

if __name__ == "__main__":
    raise SystemExit("the file must be imported, not run")
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "a_model.py"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["value"], "= exp a0"),
        (["double", "--input", "f32[3]"], "v0: f32[3] = mul a0 2.0"),
        (["step"], "= add a0 1.0"),
        (["net", "--input", "f32[5,4]", "--stage", "source"], "def k0("),
        (["net", "--input", "f32[5,4]", "--train"], ", backward"),
        (["net", "--input", "f32[5,4]", "--train", "--stage", "loops"], "kernel k0("),
    ],
)
def test_dump_prints_the_stage_of_a_target(model, capsys, arguments, expected):
    assert main(["dump", f"{model}:{arguments[0]}", *arguments[1:]]) == 0
    assert expected in capsys.readouterr().out


def test_dump_writes_to_a_file(model, tmp_path, capsys):
    out = tmp_path / "graph.txt"
    assert main(["dump", f"{model}:value", "-o", str(out)]) == 0
    assert out.read_text().startswith("graph value(")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:net", "no such file"),
        ("metaop", "TARGET is file.py:name"),
        ("metaop:missing", "missing"),
    ],
)
def test_a_bad_target_is_one_line_and_exit_status_1(target, message, capsys):
    assert main(["dump", target]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_inputs_are_made_from_their_types():
    x, labels = make_inputs("f32[2,3], i64[2]")
    assert (x.shape, x.dtype) == ((2, 3), mo.float32)
    assert (labels.shape, labels.dtype) == ((2,), mo.int64)
    with pytest.raises(ValueError, match="cannot read"):
        make_inputs("f32(2)")


def test_a_module_name_is_a_target():
    target, name = load_target("metaop.nn.functional:relu")
    assert name == "relu"
    assert target is mo.nn.functional.relu


def test_the_console_command_runs_as_a_module(model):
    done = subprocess.run(
        [sys.executable, "-m", "metaop.cli", "dump", f"{model}:value"],
        capture_output=True, text=True, timeout=60, cwd=Path(mo.__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("graph value(")
