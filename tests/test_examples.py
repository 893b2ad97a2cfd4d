"""Every example runs as a user would run it, and finds what it says it finds."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metaop as mo

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def output_of(arguments: list, folder: Path) -> str:
    """What a Python process prints, run in `folder` with this checkout importable."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run(name: str, folder: Path, *arguments: object) -> str:
    return output_of([ROOT / "examples" / name, *arguments], folder)


def figures(text: str, pattern: str) -> list[float]:
    """Every number that the pattern's group finds, at least one."""
    found = [float(number) for number in re.findall(pattern, text)]
    assert found, f"{pattern!r} finds nothing in:\n{text}"
    return found


def test_every_example_has_a_test_here():
    assert EXAMPLES == [
        "batch_norm.py", "convolution.py", "four_operators.py", "lenet_bn.py", "two_layer.py",
    ]  # fmt: skip


# --- lenet_bn.py ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lenet(tmp_path_factory) -> tuple[str, Path]:
    """What a small training on the digits prints with 2 threads, and its folder of results."""
    folder = tmp_path_factory.mktemp("lenet")
    check = ["--check-torch"] if importlib.util.find_spec("torch") else []
    return run_lenet(folder, 2, *check), folder / "results"


def run_lenet(folder: Path, threads: int, *more: str) -> str:
    small = ["--data", "digits", "--batch-size", 128, "--limit", 300, "--epochs", 8]
    return run("lenet_bn.py", folder, *small, "--threads", threads, "--out", "results", *more)


def test_lenet_trains_saves_reloads_and_draws(lenet):
    text, results = lenet
    assert "300 images to train with, 297 to test with" in text
    assert "reloaded: equal to the bit" in text
    assert "epoch 1, 0 afterwards" in text  # kernels compiled
    losses = figures(text, r"epoch +\d+: loss ([\d.]+)")
    assert len(losses) == 8 and losses[-1] < 0.5 * losses[0]
    assert len(re.findall(r"  [\d,]+ examples/s\n", text)) == 8
    for name in ("gamma", "beta"):
        (line,) = re.findall(rf"{name} of the first batch norm: (.*)", text)
        assert len(line.split()) == 6
    state = mo.load(results / "lenet_bn.safetensors")
    assert state["0.weight"].shape == (6, 1, 5, 5) and len(state) == 30
    assert all(np.isfinite(value.numpy()).all() for value in state.values())
    curves = results / "lenet_bn.png"
    if curves.exists():
        assert curves.read_bytes().startswith(b"\x89PNG")
    else:
        assert "matplotlib is not installed" in text


def test_lenet_ends_in_the_same_bits_with_one_thread(lenet, tmp_path):
    texts = lenet[0], run_lenet(tmp_path, 1)
    first, second = (re.findall(r"sha256 of the final state: (\w{64})", text) for text in texts)
    assert first == second and len(first) == 1


def test_lenet_agrees_with_torch(lenet):
    pytest.importorskip("torch")
    assert figures(lenet[0], r"difference from PyTorch's is ([\d.e-]+)")[0] < 1e-5


def test_lenet_says_in_one_line_that_it_uses_the_digits(tmp_path):
    """Neither a data set on disk nor a network: both are taken away before the example runs."""
    code = f"""
import os, pathlib, runpy, sys, urllib.request
from metaop.nn.data import fashion_mnist

def no_network(*args, **kwargs):
    raise OSError("no network in this test")

os.environ.pop("METAOP_DATA", None)
urllib.request.urlopen = no_network
fashion_mnist.DEBIAN_FOLDER = pathlib.Path("nowhere")
fashion_mnist.cache_folder = lambda: pathlib.Path("nowhere")
sys.argv = ["lenet_bn.py", "--epochs", "1", "--limit", "128"]
runpy.run_path({str(ROOT / "examples" / "lenet_bn.py")!r}, run_name="__main__")
"""
    first, second, *_ = output_of(["-c", code], tmp_path).splitlines()
    assert first.startswith("Fashion-MNIST is neither on this machine nor to be downloaded: using")
    assert "digits" in first and "do not apply" in first
    assert second == "128 images to train with, 128 to test with"


# --- the others -----------------------------------------------------------------------------------


def test_two_layer_learns_the_square_in_both_styles(tmp_path):
    text = run("two_layer.py", tmp_path)
    assert figures(text, r"final MSE on \[0, 1\): ([\d.]+)")[0] <= 0.01
    assert "Jittor's style and PyTorch's: equal to the bit" in text
    graph = (tmp_path / "runs" / "two_layer" / "graph.txt").read_text("utf-8")
    assert graph.startswith("graph two_layer(") and " exp " in graph and graph in text


def test_batch_norm_from_scratch_agrees_with_the_library_and_with_its_gradient_by_hand(tmp_path):
    text = run("batch_norm.py", tmp_path)
    assert "[64, 20]" in text and "[16, 6, 12, 12]" in text
    differences = figures(text, r"(\d\.\de[+-]\d\d)")
    assert len(differences) == 2 * (1 + 2 + 3 + 3 + 1)
    assert max(differences) < 2e-6


def test_convolution_is_the_same_in_three_notations(tmp_path):
    text = run("convolution.py", tmp_path)
    differences = figures(text, r"(?:y|dx|dw) (\d\.\de[+-]\d\d)")
    assert len(differences) == 4 * 3 and max(differences) < 2e-6
    assert "reindex_reduce.add" in text and "def k0(" in text and "flops" in text


def test_four_operators_agree_with_loops(tmp_path):
    """Their gradients are those of central differences in a smaller size."""
    text = run("four_operators.py", tmp_path)
    errors = figures(text, r"differs from loops by (\S+)")
    assert len(errors) == 4 and max(errors) < 1e-4
    spec = importlib.util.spec_from_file_location("four", ROOT / "examples" / "four_operators.py")
    four = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(four)
    four.N, four.C, four.K, four.H, four.W = 1, 1, 2, 4, 4
    four.OH = four.OW = 2
    for function, _, arrays in four.operands().values():
        doubled = [np.asarray(a, np.float64) for a in arrays]
        assert mo.gradcheck(function, doubled)
