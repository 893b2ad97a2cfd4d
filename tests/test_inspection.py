"""dump, explain and stats show what will run, and run nothing."""

import numpy as np
import pytest

import metaop as mo
from metaop import nn


def two_by_three():
    return mo.array(np.arange(6, dtype=np.float32).reshape(2, 3))


def test_dump_of_a_graph_names_types_and_lines():
    x = two_by_three()
    text = mo.dump(mo.exp(x).sum(1), title="f")
    assert text.splitlines()[0] == "graph f(a0: f32[2,3]) -> v1"
    assert "v0: f32[2,3] = exp a0    # test_inspection.py:" in text
    assert "v1: f32[2] = reindex_reduce.add v0 [i0]    # test_inspection.py:" in text


def test_every_stage_uses_the_same_names():
    y = mo.tanh(two_by_three() @ two_by_three().T)
    for stage in ("graph", "canonical", "loops", "source"):
        text = mo.dump(y, stage)
        assert "a0" in text
        assert "v4" in text, stage
        assert " 0x" not in text


def test_dump_computes_nothing():
    y = mo.exp(two_by_three())
    before = mo.stats()
    mo.dump(y, "all")
    mo.explain(y)
    after = mo.stats()
    for counter in ("launched", "compiled", "programs"):
        assert getattr(after, counter) == getattr(before, counter)
    assert "pending" in repr(y)


def test_dump_writes_the_file_it_returns(tmp_path):
    text = mo.dump(mo.exp(two_by_three()), "source", tmp_path / "k.py")
    assert (tmp_path / "k.py").read_text() == text
    compile(text, "k.py", "exec")


def test_dump_of_a_training_step_leaves_the_net_alone():
    mo.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    mo.sync()
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    text = mo.dump(net, inputs=[mo.ones(5, 3)], train=True)
    assert ", backward" in text
    assert text.count("sub") >= len(list(net.parameters()))
    for name, value in net.state_dict().items():
        assert value.numpy().tobytes() == state[name].tobytes(), name


def test_dump_refuses_an_unknown_stage_and_a_wrong_target():
    with pytest.raises(ValueError, match="stage must be one of"):
        mo.dump(two_by_three(), "assembly language")
    with pytest.raises(TypeError, match="expected Vars"):
        mo.dump(3)


def test_explain_counts_bytes_and_flops_of_a_matrix_product():
    a, b = mo.ones(8, 16).sync(), mo.ones(16, 4).sync()
    (kernel,) = mo.explain(a @ b).kernels
    assert kernel.reads == ["a0", "a1"]
    assert len(kernel.writes) == 1
    assert kernel.bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert kernel.flops == 2 * 8 * 16 * 4
    assert "for i" in kernel.source
    assert kernel.name in repr(kernel)


def test_explained_kernels_are_the_launched_ones():
    x = mo.random.normal((40, 30)).sync()
    y = mo.exp(x - x.max(axis=1, keepdims=True))
    y = y / y.sum(1, keepdims=True)
    expected = len(mo.explain(y).kernels)
    mo.sync(y * 1)  # the program of y has run before, so that only y's launches are counted
    y = mo.exp(x - x.max(axis=1, keepdims=True))
    y = y / y.sum(1, keepdims=True)
    before = mo.stats().launched
    y.sync()
    assert mo.stats().launched - before == expected


def test_a_computed_value_is_explained_as_no_work_but_a_copy():
    x = two_by_three()
    assert len(mo.explain(x).kernels) <= 1


@pytest.mark.usefixtures("no_disk_cache")
def test_stats_count_compilations_once_per_kernel():
    x = mo.random.normal((7, 11, 13)).sync()
    before = mo.stats()
    (mo.sinh(x) * 1.25).sync()
    (mo.sinh(x) * 2.5).sync()  # another number: an input of the same program
    after = mo.stats()
    assert after.compiled - before.compiled <= 1
    assert after.programs - before.programs == 1
    assert after.compile_seconds >= before.compile_seconds
    assert after.arena_bytes >= 0
    assert after.live_nodes > 0
