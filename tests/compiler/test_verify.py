"""METAOP_CHECK finds a compiler that went wrong, at every stage from groups of nests on."""

from __future__ import annotations

import dataclasses

import pytest

import metaop as mo
from metaop.compiler import pipeline, verify
from metaop.compiler.program import Temporary
from metaop.errors import CompilerBug
from metaop.graph import pending


def recorded():
    """Two kernels, the second of which reads a temporary of the first, and a third beside it."""
    x = mo.ones(64, 64).sync()
    y = mo.exp(x).sum(0) / 3
    return [mo.stop_fuse(mo.sin(y))._node, (mo.stop_fuse(mo.tanh(x)) @ x)._node]


@pytest.fixture
def stages():
    asked = recorded()
    nodes = pending(asked)
    graph = pipeline.run_passes(pipeline.import_graph(nodes, asked))
    return pipeline.group_graph(graph)


@pytest.fixture
def program():
    asked = recorded()
    return pipeline.compile_program(pending(asked), asked)


def test_what_the_compiler_makes_is_right(stages, program):
    verify.verify_grouped(*stages)
    verify.verify_program(program)
    assert len(program.launches) > 2 and program.temporaries


def test_a_tree_that_comes_too_early_is_found(stages):
    fused, grouped = stages
    grouped.trees.reverse()
    with pytest.raises(CompilerBug, match="is read before it is written"):
        verify.verify_grouped(fused, grouped)


def test_an_output_without_a_tree_is_found(stages):
    fused, grouped = stages
    grouped.trees.pop()
    with pytest.raises(CompilerBug, match="nothing writes the outputs"):
        verify.verify_grouped(fused, grouped)


def test_a_written_input_is_found(stages):
    fused, grouped = stages
    grouped.trees[0].nests[0].target.role = "in"
    with pytest.raises(CompilerBug, match=r"the input v\d+ is written"):
        verify.verify_grouped(fused, grouped)


def test_a_race_within_a_phase_is_found(program):
    (segment,) = program.segments
    segment[0].extend(segment.pop(1))
    with pytest.raises(CompilerBug, match="races with a kernel of its phase"):
        verify.verify_program(program)


def test_a_phase_that_comes_too_early_is_found(program):
    (segment,) = program.segments
    segment.reverse()
    with pytest.raises(CompilerBug, match="reads slots that are not written"):
        verify.verify_program(program)


def test_a_temporary_that_dies_too_early_is_found(program):
    first = program.temporaries[0]
    program.temporaries[0] = first._replace(last=first.first - 1)
    with pytest.raises(CompilerBug, match=f"uses temporary {first.slot}, which lives"):
        verify.verify_program(program)


def test_a_launch_with_other_arguments_than_its_kernel_takes_is_found(program):
    launch = program.launches[0]
    launch.integers.append(1)
    with pytest.raises(CompilerBug, match="gets other arguments than it takes"):
        verify.verify_program(program)


def test_temporaries_that_overlap_are_found(program):
    first = program.temporaries[0]
    program.temporaries[:] = [first, Temporary(99, 64, first.first, first.last)]
    program.slots = 100
    with pytest.raises(CompilerBug, match="ends after the arena"):
        bound = dataclasses.replace(program).bind()
        verify.verify_arena(bound, {first.slot: (0, 64), 99: (1 << 40, 64)})
    with pytest.raises(CompilerBug, match=f"temporaries {first.slot} and 99 overlap"):
        verify.verify_arena(bound, {first.slot: (0, 128), 99: (64, 64)})


def test_the_checks_run_when_the_setting_is_on(monkeypatch):
    called = []
    monkeypatch.setattr(pipeline, "verify_program", called.append)
    asked = recorded()
    monkeypatch.setattr(mo.config, "check", False)
    pipeline.compile_program(pending(asked), asked)
    assert not called
    monkeypatch.setattr(mo.config, "check", True)
    pipeline.compile_program(pending(asked), asked)
    assert len(called) == 1
