"""Stages as JSON, DOT and SVG, the same names in all; what a notebook shows."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop import nn
from metaop.inspection import stages_of
from metaop.pictures.document import VERSION, document
from metaop.pictures.layout import Box, Group, arrange, place
from metaop.pictures.render import render
from metaop.show import number_of
from metaop.stages import STAGES, Stages

LARGEST_PAGE = 3_000_000  # bytes


@pytest.fixture(scope="module")
def lenet() -> Stages:
    """A training step of LeNet."""
    mo.manual_seed(0)
    return stages_of(nn.models.LeNetBN(), [mo.ones(8, 1, 28, 28).sync()], True, "net")


@pytest.fixture(scope="module")
def resnet() -> Stages:
    """A training step of ResNet-18."""
    return stages_of(
        nn.models.resnet18(10, stem="cifar"), [mo.ones(64, 3, 32, 32).sync()], True, "net"
    )


# --- JSON -----------------------------------------------------------------------------------------

LINE = {"file": str, "number": int, "code": str}
NODE = {
    "name": str, "kind": str, "op": str, "text": str, "dtype": str, "shape": [int], "inputs": [str],
    "module": str, "phase": str, "line": LINE,
}  # fmt: skip
GRAPH = {"nodes": [NODE], "outputs": [str]}
KERNEL = {
    "name": str, "packs": (str, type(None)), "nodes": [str], "operators": str, "module": str,
    "phase": str, "lines": [LINE], "reads": [str], "writes": [str], "bytes": int, "flops": int,
    "chunks": int, "step": int,
}  # fmt: skip
BOUNDARY = {
    "source": str, "target": str, "from": str, "to": str, "reason": str,
    "iterations": (int, type(None)), "read_again": int,
}  # fmt: skip
BUFFER = {
    "name": str, "role": str, "dtype": str, "shape": [int], "bytes": int, "first": int, "last": int,
    "offset": (int, type(None)), "written_by": [str], "read_by": [str],
}  # fmt: skip
STAGE: dict[str, Any] = {
    "graph": GRAPH, "canonical": GRAPH, "fused": {"kernels": [KERNEL], "boundaries": [BOUNDARY]},
    "memory": {"arena_bytes": int, "steps": [[str]], "buffers": [BUFFER]},
}  # fmt: skip
CODE = {"loops": dict, "source": str, "llvm": (str, dict), "asm": (str, dict)}


def check(value: Any, schema: Any, place: str = "") -> None:
    """The value has the types and the keys of the schema, no more and no less."""
    if isinstance(schema, list):
        assert isinstance(value, list), place
        for k, item in enumerate(value):
            check(item, schema[0], f"{place}[{k}]")
    elif isinstance(schema, dict):
        assert set(value) == set(schema), place
        for key, part in schema.items():
            check(value[key], part, f"{place}.{key}")
    else:
        assert isinstance(value, schema), f"{place}: {value!r}"


def test_json_of_all_stages_fulfils_the_schema():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    text = mo.dump(net, "all", inputs=[mo.ones(5, 3)], train=True, format="json", title="net")
    found = json.loads(text)
    assert (found["schema"], found["version"], found["title"]) == ("metaop.dump", VERSION, "net")
    assert list(found["stages"]) == list(STAGES)
    for stage, content in found["stages"].items():
        if stage in STAGE:
            check(content, STAGE[stage], stage)
        else:
            assert all(isinstance(code, CODE[stage]) for code in content.values())


def test_every_stage_has_the_same_names(lenet):
    stages = document(lenet, ("canonical", "fused", "loops", "source", "memory"))["stages"]
    nodes = {node["name"] for node in stages["canonical"]["nodes"]}
    kernels = {kernel["name"] for kernel in stages["fused"]["kernels"]}
    for kernel in stages["fused"]["kernels"]:
        assert set(kernel["nodes"]) <= nodes
        for buffer in (*kernel["reads"], *kernel["writes"]):
            assert buffer in nodes or "_panel_" in buffer or re.fullmatch(r"v\d+", buffer)
    assert kernels == set(stages["loops"]) == set(stages["source"])
    assert kernels == {name for step in stages["memory"]["steps"] for name in step}
    ends = {b[end] for b in stages["fused"]["boundaries"] for end in ("from", "to")}
    assert ends <= kernels


def test_every_node_knows_its_line_its_module_and_its_phase(lenet):
    nodes = document(lenet, ("canonical",))["stages"]["canonical"]["nodes"]
    made = [node for node in nodes if node["kind"] not in ("input", "scalar")]
    assert {node["phase"] for node in made} == {"forward", "backward", "optimizer"}
    modules = {node["module"] for node in made if node["phase"] != "forward"}
    assert {"net.0", "net.1", "net.4", "net.15"} <= modules
    inside = [node for node in made if node["phase"] == "forward" and node["module"]]
    assert all(node["module"].startswith("net") for node in inside)
    assert all(node["line"]["number"] > 0 and node["line"]["code"] for node in made)


def test_a_module_in_a_module_has_a_dotted_path():
    class Net(nn.Module):
        def __init__(self):
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
            self.shared = nn.Sequential(nn.Tanh())

        def forward(self, x):
            for layer in self.layers:
                x = self.shared(layer(x))
            return nn.ReLU()(x)

    text = mo.dump(Net(), inputs=[mo.ones(2, 3)], title="net")
    for path in ("net.layers.0", "net.layers.1", "net.shared.0", "net.ReLU"):
        assert re.search(rf", {re.escape(path)}\n", text), path


def test_live_buffers_of_the_arena_do_not_overlap(lenet):
    memory = document(lenet, ("memory",))["stages"]["memory"]
    placed = [b for b in memory["buffers"] if b["offset"] is not None]
    assert len(placed) > 10
    for k, one in enumerate(placed):
        assert one["offset"] + one["bytes"] <= memory["arena_bytes"]
        for other in placed[:k]:
            together = one["first"] <= other["last"] and other["first"] <= one["last"]
            apart = (one["offset"] + one["bytes"] <= other["offset"]
                     or other["offset"] + other["bytes"] <= one["offset"])  # fmt: skip
            assert apart or not together, (one, other)


def test_a_profile_is_part_of_the_kernels(lenet):
    profile = {"k0": 0.25, "k1": {"seconds": 0.5, "roofline": 0.125}}
    kernels = document(lenet, ("fused",), (), profile)["stages"]["fused"]["kernels"]
    found = {k["name"]: (k.get("seconds"), k.get("roofline")) for k in kernels}
    assert found["k0"] == (0.25, None)
    assert found["k1"] == (0.5, 0.125)
    assert found["k2"] == (None, None)


# --- layout ---------------------------------------------------------------------------------------


def overlap(one: Box | Group, other: Box | Group) -> bool:
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


def all_children(group: Group) -> list[tuple[Group, list[Box | Group]]]:
    return [(g, [child for row in g.rows for child in row]) for g in group.groups()]


def test_boxes_lie_in_their_groups_and_do_not_overlap():
    draw = np.random.default_rng(0)
    paths = [("a",), ("a", "b"), ("a", "b", "c"), ("d",), ()]
    boxes = [
        Box(f"k{k}", float(draw.integers(40, 200)), 30.0, paths[draw.integers(len(paths))])
        for k in range(60)
    ]
    edges = [(f"k{a}", f"k{b}") for a, b in draw.integers(0, 60, (90, 2)) if a < b]
    root = arrange(boxes, edges)
    place(root)
    seen = []
    for group, children in all_children(root):
        for k, child in enumerate(children):
            assert group.x <= child.x and child.x + child.width <= group.x + group.width
            assert group.y <= child.y and child.y + child.height <= group.y + group.height
            assert not any(overlap(child, other) for other in children[:k])
        seen += [child.key for child in children if isinstance(child, Box)]
    assert sorted(seen) == sorted(box.key for box in boxes)


def test_a_chain_leads_downwards_and_crossings_are_removed():
    boxes = [Box(name, 50, 20) for name in "abcdef"]
    edges = [("a", "c"), ("b", "d"), ("c", "e"), ("d", "f"), ("a", "d")]
    root = arrange(boxes, edges)
    place(root)
    at = {box.key: box for box in boxes}
    assert all(at[a].y < at[b].y for a, b in edges)
    crossed = [("a", "y"), ("b", "x")]
    boxes = [Box(name, 50, 20) for name in "abxy"]
    place(arrange(boxes, crossed))
    at = {box.key: box for box in boxes}
    assert (at["a"].x < at["b"].x) == (at["y"].x < at["x"].x)


# --- DOT and SVG ----------------------------------------------------------------------------------


def test_dot_declares_every_end_of_an_edge(lenet):
    text = render(lenet, "fused", "dot")
    assert text.count("{") == text.count("}") > 3
    declared = set(re.findall(r'^ *"(\w+)" \[label', text, re.MULTILINE))
    ends = re.findall(r'^ *"(\w+)" -> "(\w+)"', text, re.MULTILINE)
    assert ends and {name for pair in ends for name in pair} <= declared
    assert declared == {step.name for step in lenet.steps}
    assert 'subgraph "cluster backward.net' in text


@pytest.mark.parametrize("stage", ["graph", "fused"])
def test_svg_is_well_formed_and_shows_everything(lenet, stage):
    text = render(lenet, stage, "svg")
    root = ElementTree.fromstring(text)
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    graph = lenet.recorded
    nodes = {graph.names[n] for n in graph.nodes if n.inputs and number_of(n) is None}
    assert (nodes if stage == "graph" else {step.name for step in lenet.steps}) <= ids
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/", "")


# --- thousands of nodes ---------------------------------------------------------------------------


def test_pictures_of_resnet_are_small(resnet):
    assert len(resnet.recorded.nodes) > 2000
    assert len(resnet.steps) > 100
    for stage, form in (("graph", "svg"), ("fused", "svg"), ("all", "html")):
        assert len(render(resnet, stage, form).encode()) < LARGEST_PAGE


# --- notebooks ------------------------------------------------------------------------------------


def test_a_pending_var_is_drawn_and_a_computed_one_is_printed():
    x = mo.array([1.0, 2.0])
    y = mo.exp(x) + 1
    before = mo.stats().launched
    svg = y._repr_svg_()
    assert svg is not None and "exp a0" in svg
    assert y._repr_html_() is None
    assert mo.stats().launched == before
    assert "pending" in repr(y)
    y.sync()
    assert y._repr_svg_() is None and y._repr_html_() is None


def test_a_large_graph_is_a_line_in_a_notebook():
    y = mo.array([1.0, 2.0])
    for _ in range(80):
        y = mo.tanh(y)
    assert y._repr_svg_() is None
    html = y._repr_html_()
    assert html is not None and "f32[2]" in html and "81 nodes" in html


def test_a_module_is_a_table_in_a_notebook():
    before = mo.stats().launched
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    table = ElementTree.fromstring(net._repr_html_())
    rows = [[cell.text or "" for cell in row] for row in table]
    assert rows[1][0] == "0" and "weight f32[4,3], bias f32[4]" in rows[1][2]
    assert rows[1][3] == "16"
    assert rows[3][1].startswith("ReLU")
    assert rows[-1] == ["Sequential", "", "", "24"]
    assert mo.stats().launched == before
