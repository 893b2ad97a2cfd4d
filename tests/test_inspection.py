"""dump, explain and stats show what will run, and run nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metaop as mo
from metaop import life, nn
from metaop.promised import promise_pending


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


def test_what_exists_when_a_function_is_called_is_an_input_and_is_not_computed():
    """The numbers that a network and its data are drawn from were once part of a step."""
    mo.manual_seed(0)
    net, x = nn.Linear(3, 2), mo.random.normal((4, 3))
    launched = mo.stats().launched
    text = mo.dump(lambda: net(x).sum(), title="f")
    assert "random_bits" not in text and "a2: f32[" in text
    assert mo.stats().launched == launched
    assert x._node.storage is None and net.weight._node.storage is None


def test_a_value_that_the_function_reads_is_there():
    x = mo.random.normal((5,)) * 0 + 3

    def step():
        return x * 2 if x.sum().item() == 15 else x

    assert "mul a0 2.0" in mo.dump(step)
    assert x.numpy().tolist() == [3.0] * 5


def test_an_input_that_is_not_computed_has_the_layout_that_it_will_have():
    """The order of sums follows layouts, so the kernels shown would be others."""
    mo.manual_seed(0)
    grid = mo.random.normal((6, 4))
    values = [grid.T, mo.ones(4, 3) * 2, grid + 1, grid[::2], grid.sum(0), mo.zeros(3)]
    with life.rehearsal():
        promise_pending()
        promised = [v._node.layout for v in values]
    mo.sync()
    assert promised == [v._node.layout for v in values]
    assert any(layout is not None for layout in promised)


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


def test_explain_takes_structures_functions_and_modules():
    x = mo.ones((512, 256)).sync()
    pair = mo.mean(x), {"largest": mo.max(x)}
    assert len(mo.explain(pair).kernels) == len(mo.explain(mo.mean(x), mo.max(x)).kernels) == 1
    assert len(mo.explain(mo.exp, inputs=[x]).kernels) == 1
    net = nn.LSTM(8, 4)
    net.state_dict()
    steps = mo.ones((3, 2, 8)).sync()
    assert str(mo.explain(net, inputs=[steps])) == str(mo.explain(net(steps)))
    assert "lstm" in mo.dump(net, inputs=[steps])  # (outputs, (h, c))


def test_explain_says_what_it_cannot_explain():
    with pytest.raises(TypeError, match="expected Vars or something that returns Vars, got 3"):
        mo.explain(3)


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


def test_a_pass_is_shown_as_a_difference():
    text = mo.dump(mo.exp(two_by_three() * 1.0), pass_name="algebra", title="f")
    lines = text.splitlines()
    assert lines[:2] == ["--- before algebra", "+++ after algebra"]
    assert any(line.startswith("-  ") and "mul a0 1.0" in line for line in lines)
    assert mo.dump(mo.exp(two_by_three()), pass_name="split") == "# split changes nothing\n"
    with pytest.raises(ValueError, match="no pass 'fold'; there are share, algebra"):
        mo.dump(two_by_three(), pass_name="fold")


def test_code_of_one_kernel_alone():
    y = mo.exp(mo.stop_fuse(mo.ones(64, 64).sync() * 2))
    for stage, mark in (("source", "def k1("), ("llvm", "define i32 @k1("), ("asm", "k1:")):
        text = mo.dump(y, stage, kernels=["k1"])
        assert mark in text
        assert mark.replace("k1", "k0") not in text
    with pytest.raises(ValueError, match="no kernel 'k7'; there are k0, k1"):
        mo.dump(y, "source", kernels=["k7"])


def test_equal_kernels_have_their_machine_code_once():
    y = mo.ones(64, 64).sync()
    for _ in range(3):
        y = mo.stop_fuse(mo.exp(y))
    text = mo.dump(y, "asm")
    assert text.count("# as that of k0") == 2


def test_what_is_shown_is_what_is_launched():
    """A product in tiles was once shown as the plain loops that it is not compiled to."""
    a, b = mo.ones(2048, 2048).sync(), mo.ones(2048, 2048).sync()  # both are packed apart
    kernels = mo.explain(a @ b).kernels
    before = mo.stats().launched
    (a @ b).sync()
    assert mo.stats().launched - before == len(kernels) > 1
    text = mo.dump(a @ b, "loops")
    assert all(f"kernel {kernel.name}(" in text for kernel in kernels)
    assert "v3_panel_b" in text


def test_memory_names_sizes_lives_and_places():
    text = mo.dump(mo.exp(mo.stop_fuse(mo.ones(64, 64).sync() * 2)), "memory")
    assert text.startswith("arena of 16,384 bytes, 2 phases\n")
    assert "v1: f32[64,64], 16,384 bytes at 0, phases 0-1; written by k0; read by k1" in text


def test_print_graph_prints_the_graph(capsys):
    mo.print_graph(mo.exp(two_by_three()))
    assert capsys.readouterr().out.startswith(
        "graph graph(a0: f32[2,3]) -> v0\n  v0: f32[2,3] = exp"
    )


def test_a_network_called_by_nobodys_line_shows_the_lines_that_made_its_layers():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    code = compile("import metaop as mo\ntext = mo.dump(net, inputs=[x])", mo.__file__, "exec")
    namespace = {"net": net, "x": mo.ones(2, 3)}
    exec(code, namespace)  # as the command line calls it: no frame is the user's
    lines = [line for line in namespace["text"].splitlines() if ", sequential.0" in line]
    assert lines and all("container.py" not in line for line in lines)


def test_a_model_of_metaops_own_that_nobodys_line_calls_shows_its_lines():
    """`metaop dump` named a line of Python's runpy, or of the command's script."""
    done = subprocess.run(
        [sys.executable, "-m", "metaop", "dump", "metaop.nn.models:LeNetBN", "--input",
         "f32[2,1,28,28]", "--train"],
        capture_output=True, text=True, timeout=60, cwd=Path(mo.__file__).parent.parent,
    )  # fmt: skip
    lines = done.stdout.splitlines()[1:]
    assert lines and all("# lenet.py:" in line or "inspection.py:" in line for line in lines)


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )  # fmt: skip


PROGRAM = "import metaop as mo; print(mo.exp(mo.array([1.0]) * 1.0).numpy().shape)"


def test_an_environment_variable_prints_the_graph_after_a_pass():
    done = run(PROGRAM, METAOP_DUMP="after:algebra", METAOP_CACHE="off")
    assert done.stdout == "(1,)\n"
    assert done.stderr.startswith("graph after_algebra(a0: f32[")
    assert "exp" in done.stderr and "mul" not in done.stderr
    wrong = run(PROGRAM, METAOP_DUMP="after:everything", METAOP_CACHE="off")
    assert "it is one of after:algebra" in wrong.stderr


def test_import_loads_no_pictures():
    program = "import sys, metaop; print([m for m in sys.modules if 'pictures' in m])"
    assert run(program).stdout == "[]\n"


def test_a_training_step_of_an_optimiser_has_its_phase():
    net = nn.Linear(3, 2)
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x, target = mo.ones(4, 3), mo.zeros(4, 2)

    def step() -> mo.Var:
        loss = nn.functional.mse_loss(net(x), target)
        for parameter, gradient in zip(net.parameters(), mo.grad(loss, list(net.parameters()))):
            parameter.grad = gradient
        optimizer.step()
        return loss

    before = [p.numpy() for p in net.parameters()]
    text = mo.dump(step)
    assert mo.dump(mo.jit(step)) == text
    assert all((p.numpy() == b).all() for p, b in zip(net.parameters(), before))
    assert text.count(", optimizer\n") >= 2
    assert ", Linear, backward\n" in text
