"""Every tool on a training step of ResNet-18, and on the examples.

The step is recorded and compiled once for all commands: `stages_of` keeps what it made.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import metaop as mo
from metaop import inspection, nn, roofline
from metaop.cli import main
from metaop.inspection import FORMATS
from metaop.profiling import COMPUTED, KernelProfile
from metaop.roofline import Point, Roofline
from metaop.stages import STAGES, Stages
from metaop.targets import load_target, make_inputs, repeated_step
from tests.golden import assert_golden
from tests.test_pictures import CODE, STAGE, check

ROOT = Path(__file__).resolve().parents[1]
MODEL = """
from metaop import nn

def net():
    return nn.models.resnet18(num_classes=10, stem="cifar")
"""
INPUT = ["--input", "f32[2,3,16,16]"]
MEASURED = Roofline(
    "a CPU", "", [Point(1, 100.0, 10.0, 15.0, 9.0, 14.0, 0.1, 4.0, [(1 << 16, 80.0)])]
)


@pytest.fixture(scope="module")
def made() -> dict[Any, Stages]:
    return {}


@pytest.fixture
def resnet(
    made: dict[Any, Stages], tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> list[str]:
    """The arguments that make the step; the stages of equal ones are made once."""
    original = inspection.stages_of

    def stages_of(target: Any, inputs: Any, train: bool, title: str) -> Stages:
        key = type(target), train, title
        if key not in made:
            made[key] = original(target, inputs, train, title)
        return made[key]

    monkeypatch.setattr(inspection, "stages_of", stages_of)
    monkeypatch.setattr(roofline, "known", lambda *_: MEASURED)
    path = tmp_path_factory.mktemp("model") / "resnet.py"
    path.write_text(MODEL)
    return [f"{path}:net", *INPUT, "--train"]


def printed(capsys: Any, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    text: str = capsys.readouterr().out
    assert text.endswith("\n")
    return text


# --- dump -----------------------------------------------------------------------------------------

FEW = ["--kernel", "k3", "--kernel", "k40"]
START = {
    "graph": "graph net(a0: f32[2,3,16,16], a1: f32[64,3,3,3], ",
    "canonical": "# s0 = 2, or any other size\ngraph net(a0: f32[s0,3,16,16], ",
    "fused": "k3: ", "loops": "# fuses ", "source": "from metaop.compiler.python_kernels import *",
    "llvm": "; ---- k3: LLVM IR", "asm": "# ---- k3: machine code", "memory": "arena of ",
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_dump_prints_every_stage_of_the_step(resnet, capsys, stage):
    text = printed(capsys, "dump", *resnet, "--stage", stage, *FEW)
    assert text.startswith(START[stage])
    if stage in ("graph", "canonical"):
        for end in ("net.layer4.1.conv2", "net.layer1.0.bn1, backward", "net.fc, optimizer"):
            assert f", {end}\n" in text


@pytest.mark.parametrize("stage", STAGES)
def test_json_of_every_stage_of_the_step_fulfils_the_schema(resnet, capsys, stage):
    text = printed(capsys, "dump", *resnet, "--stage", stage, "--format", "json", *FEW)
    (content,) = json.loads(text)["stages"].values()
    if stage in STAGE:
        check(content, STAGE[stage], stage)
    else:
        assert set(content) == {"k3", "k40"}
        assert all(isinstance(code, CODE[stage]) for code in content.values())


@pytest.mark.parametrize("stage", ["graph", "canonical", "fused"])
@pytest.mark.parametrize("format", [f for f in FORMATS if f not in ("text", "json")])
def test_pictures_of_the_step(resnet, capsys, stage, format):
    text = printed(capsys, "dump", *resnet, "--stage", stage, "--format", format)
    if format == "svg":
        ElementTree.fromstring(text)
    else:
        assert text.startswith("digraph" if format == "dot" else "<!doctype html>")
    for module in ("layer1", "layer2", "layer3", "layer4", "fc"):
        assert module in text


@pytest.mark.parametrize("name", ["share", "algebra", "invert", "split", "compose"])
def test_every_pass_over_the_step_is_a_difference(resnet, capsys, name):
    text = printed(capsys, "dump", *resnet, "--pass", name)
    assert text.startswith((f"--- before {name}\n+++ after {name}\n", f"# {name} changes nothing"))


def test_explain_knows_every_kernel_and_boundary_of_the_step(made, resnet, capsys):
    printed(capsys, "dump", *resnet, "--stage", "memory")
    (stages,) = [s for (kind, train, _), s in made.items() if train and kind.__name__ == "ResNet"]
    kernels = [inspection._kernel_info(step, stages) for step in stages.steps]
    assert len(kernels) > 100
    known = {f"v{n}" for n in range(10_000)}
    for kernel in kernels:
        assert kernel.writes and kernel.bytes > 0 and f"def {kernel.name}(" in kernel.source
    assert len(stages.boundaries) > 100
    for boundary in stages.boundaries:
        assert boundary.reason and boundary.target.name in known, boundary


# --- profile --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profiled() -> mo.profile:
    """One step, profiled."""
    mo.manual_seed(0)
    net = nn.models.resnet18(num_classes=10, stem="cifar")
    step = repeated_step(net, make_inputs(INPUT[1]), "net", train=True, jit=False)
    step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "known", lambda *_: MEASURED)
        with mo.profile() as found:
            step()
    return found


def test_profile_of_the_step_knows_kernels_lines_and_modules(profiled):
    found = json.loads(profiled.json())
    assert found["programs"] == 1 and found["roofline"]["peak"] == 100.0
    for kernel in found["kernels"]:
        assert set(kernel) == {*KernelProfile.__dataclass_fields__, *COMPUTED}
        assert kernel["calls"] == 1 and kernel["seconds"] > 0 and kernel["bytes"] > 0
    modules = {path for kernel in found["kernels"] for path in kernel["modules"]}
    assert {"ResNet.conv1", "ResNet.layer3.0.downsample.0", "ResNet.fc"} <= modules
    lines = [kernel["lines"] for kernel in found["kernels"]]
    assert sum(any(line.startswith("test_tools.py:") for line in some) for some in lines) > 100


def test_the_page_of_a_profile_is_of_the_same_kernels_and_shaded_by_it(resnet, profiled, made):
    net, *_ = load_target(resnet[0])
    page = mo.dump(net, inputs=make_inputs(INPUT[1]), train=True, title="net", format="html",
                   profile=profiled)  # fmt: skip
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    kernels = {k["name"]: k for k in data["stages"]["fused"]["kernels"]}
    assert len(kernels) > 100
    for kernel in profiled.kernels:
        shown = kernels[kernel.name]
        assert (shown["flops"], shown["seconds"]) == (kernel.flops, kernel.mean_seconds)
        assert shown["roofline"] == kernel.share


def test_a_page_is_shaded_only_by_a_profile_of_its_program(resnet, capsys):
    x = mo.ones(3).sync()
    with mo.profile() as found:
        mo.exp(x).sync()
    with pytest.raises(ValueError, match="the profile is of 1 programs, or of another one"):
        mo.dump(mo.tanh(x * 2) @ x, format="html", profile=found)
    assert main(["profile", *resnet, "--format", "html", "--jit"]) == 2
    assert "without --jit" in capsys.readouterr().err


# --- the others -----------------------------------------------------------------------------------


def test_summary_golden(resnet, capsys):
    assert_golden(printed(capsys, "summary", resnet[0], *INPUT))


def test_debug_nans_names_the_layer_of_the_step_that_made_one():
    net = nn.models.resnet18(num_classes=10, stem="cifar")
    net.layer1[0].bn1.eps = -1e6  # the root of a negative number
    with mo.debug_nans(), pytest.raises(mo.NonFiniteError) as caught:
        net(mo.ones(2, 3, 16, 16)).sync()
    assert "sqrt made 64 NaN in f32[1,64,1,1]" in str(caught.value)


# --- the examples ---------------------------------------------------------------------------------

IMAGES = "f32[2,4,8,8]"
EXAMPLES = {
    "lenet_bn.py:lenet": "f32[2,1,28,28]",
    "two_layer.py:JittorNet": "f32[5,1]",
    "two_layer.py:TorchNet": "f32[5,1]",
    "batch_norm.py:channel_sum": IMAGES,
    "convolution.py:in_index_notation": f"{IMAGES},f32[3,4,3,3]",
    "four_operators.py:tropical": f"{IMAGES},f32[3,4,3,3]",
    "four_operators.py:adder": f"{IMAGES},f32[3,4,3,3]",
}


@pytest.mark.parametrize(("target", "shapes"), EXAMPLES.items())
def test_every_tool_on_the_examples(target, shapes, capsys, monkeypatch):
    monkeypatch.setattr(roofline, "known", lambda *_: MEASURED)
    step = [str(ROOT / "examples" / target), "--input", shapes]
    trains = ":lenet" in target or "Net" in target
    step += ["--train"] * trains
    content = json.loads(printed(capsys, "dump", *step, "--stage", "all", "--format", "json",
                                 "--kernel", "k0"))  # fmt: skip
    assert list(content["stages"]) == list(STAGES)
    shown = {name for step in content["stages"]["memory"]["steps"] for name in step}
    profiled = json.loads(printed(capsys, "profile", *step, "--steps", "1", "--format", "json"))
    assert {k["name"] for k in profiled["kernels"]} == shown
    if trains:
        assert " parameters " in printed(capsys, "summary", *step[:3])
