"""The command line: targets, errors, exit statuses, examples; what dump prints."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import metaop as mo
from metaop import errors, roofline
from metaop.cli import COMMANDS, main
from metaop.roofline import Point, Roofline
from metaop.targets import load_target, make_inputs

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


BROKEN = {
    "no_such_import.py": "import nothing_of_that_name\n",
    "syntax.py": "def f(:\n",
    "exits.py": "import sys\nsys.exit('not now')\n",
    "raises.py": "import metaop as mo\n\ndef f():\n    return mo.ones(2, 3) @ mo.ones(4)\n",
    "returns_no_var.py": "def f():\n    return 3\n\ndef g():\n    return [f(), '']\n\n"
    "async def h(): ...\n",
    "a_package/__init__.py": "",
    "a_package/inside.py": "from . import x\n",
    "needs_arguments.py": "class Net:\n    def __init__(self, width: int): ...\n",
    "in_the_library.py": "import json\n\ndef f():\n    return json.loads(3)\n",
}


TALKS = """
print("imported")

def f(x):
    print("called")
    return x + 1
"""

MEASURED = Roofline("a CPU", "an instruction set", [
    Point(1, 100.0, 10.0, 15.0, 9.0, 14.0, 0.1, 4.0, [(1 << 16, 80.0), (1 << 29, 10.0)])
])  # fmt: skip


@pytest.fixture
def known_roofline(monkeypatch):
    """Nothing is measured in these tests."""
    monkeypatch.setattr(roofline, "known", lambda *_: MEASURED)


@pytest.fixture
def broken(tmp_path):
    (tmp_path / "a_package").mkdir()
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.py").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", ["dump", "profile"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (["nowhere.py:net"], "no such file: nowhere.py"),
        (["metaop"], "TARGET is file.py:name"),
        (["metaop:"], "TARGET is file.py:name"),
        (["..:f"], "TARGET is file.py:name"),
        (["{}:f"], "TARGET is file.py:name"),
        (["{}/folder.py:f"], "not a file: "),
        (["{}/needs_arguments.py:Net"], "Net(width) is a class that needs arguments"),
        (["{}/in_the_library.py:f"], "(in_the_library.py:4)"),
        (["metaop:missing"], "metaop has no 'missing'"),
        (["metaop:exq"], "exp"),
        (["no_such_module_anywhere:f"], "No module named 'no_such_module_anywhere'"),
        (
            ["{}/no_such_import.py:f"],
            "No module named 'nothing_of_that_name' (no_such_import.py:1)",
        ),
        (["{}/syntax.py:f"], "SyntaxError"),
        (["{}/exits.py:f"], "not now"),
        (["{}/raises.py:f"], "(raises.py:4)"),
        (["{}/a_model.py:double"], "cannot be called with 0 inputs: missing a required argument"),
        (["{}/a_model.py:net", "--input", "f32[5,7]"], "f32[5,7]"),
        (["{}/a_model.py:net", "--input", "f32(5)"], "cannot read 'f32(5)'"),
        (["{}/a_model.py:net", "--input", "f33[5]"], "no such dtype: 'f33'"),
        (["{}/a_model.py:net", "--input", "f32[9999999999999]"], "f32[9999999999999] is too large"),
        (["{}/a_model.py:net"], "net(x) cannot be called with 0 inputs"),
        (["{}/a_model.py:net", "--input", "f32[5,4],f32[1]"], "cannot be called with 2 inputs"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_status_2(
    broken, model, command, target, message, capsys
):
    assert main([command, *(part.replace("{}", str(broken)) for part in target)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("metaop: ") and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dump", "{}/returns_no_var.py:f"], "returns Vars, got 3"),
        (["dump", "{}/returns_no_var.py:g"], "returns Vars, got [int, str]"),
        (["dump", "{}/returns_no_var.py:h"], "an async function"),
        (["dump", "{}/a_package/inside.py:f"], "; write a_package.inside:NAME in {}"),
        (["summary", "{}/a_model.py:double"], "double is of type function, summary needs a Module"),
        (["summary", "{}/a_model.py:net"], "net(x) cannot be called with 0 inputs"),
        (["summary", "{}/needs_arguments.py:Net"], "Net(width) is a class that needs arguments"),
        (["profile", "{}/a_model.py:value"], "value is a value"),
        (["profile", "{}/a_model.py:step", "--train"], "no parameters() to train"),
        (["dump", "{}/a_model.py:value", "-o", "{}/no/such/folder"], "No such file or directory"),
    ],
)
def test_what_one_command_cannot_do(broken, model, arguments, message, capsys):
    assert main([part.replace("{}", str(broken)) for part in arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("metaop: ") and message.replace("{}", str(broken)) in error


@pytest.mark.parametrize(
    "arguments",
    [["profile"], ["profile", "x:y", "--steps", "0"], ["profile", "x:y", "--sort", "size"], []],
)
def test_wrong_options_are_told_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: metaop")


@pytest.mark.parametrize("command", ["dump", "profile"])
def test_what_a_target_prints_is_not_mixed_with_the_output(
    tmp_path, known_roofline, capsys, command
):
    (tmp_path / "talks.py").write_text(TALKS)
    arguments = [command, f"{tmp_path}/talks.py:f", "--input", "f32[3]", "--format", "json"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert captured.err.startswith("imported\ncalled\n")


def test_all_of_a_traceback_is_shown_on_request(model, monkeypatch, capsys):
    monkeypatch.setenv("METAOP_TRACEBACK", "full")
    assert main(["dump", f"{model}:missing"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--jit"], ["--train"], ["--train", "--jit"]])
def test_profile_counts_the_steps(model, known_roofline, capsys, more):
    arguments = [f"{model}:net", "--input", "f32[6,4]", "--steps", "4", "--format", "json"]
    assert main(["profile", *arguments, *more]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["kernels"] and {k["calls"] for k in data["kernels"]} == {4}
    assert data["seconds"]["compiling"] == 0
    assert all(k["share"] > 0 for k in data["kernels"] if k["flops"])


def test_steps_that_no_line_of_the_users_asks_for_are_counted(
    model, known_roofline, capsys, monkeypatch
):
    """Each step of `python -m metaop profile --train` had kernels of its own."""
    monkeypatch.setattr(errors, "_own", {})
    monkeypatch.setattr(errors, "is_own", lambda filename: True)
    test_profile_counts_the_steps(model, None, capsys, ["--train"])


@pytest.mark.parametrize(
    ("format", "start"), [("text", " total ms "), ("csv", "name,program,"), ("chrome", "{")]
)
def test_profile_writes_its_formats(model, known_roofline, tmp_path, format, start):
    out = tmp_path / "out"
    arguments = [f"{model}:step", "--sort", "bytes", "--format", format, "-o", str(out)]
    assert main(["profile", *arguments]) == 0
    assert out.read_text().startswith(start)


def test_profile_measures_the_roofline_if_nobody_did(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mo.config, "cache", str(tmp_path / "cache"))
    measured = []
    monkeypatch.setattr(roofline, "measure", lambda n: measured.append(list(n)) or MEASURED)
    assert main(["profile", f"{model}:step"]) == 0
    captured = capsys.readouterr()
    assert len(measured) == 1 and "measuring the machine's roofline" in captured.err
    assert "roofline: 100 GFLOP/s, 10 GB/s from memory" in captured.out


def test_roofline_prints_what_was_measured(known_roofline, capsys):
    assert main(["roofline"]) == 0
    assert "a CPU, an instruction set" in capsys.readouterr().out
    assert main(["roofline", "--format", "json"]) == 0
    assert Roofline.from_json(capsys.readouterr().out) == MEASURED


SCRIPT = """import sys
from metaop.cli import main
sys.exit(main())
"""  # as an installation writes it


@pytest.fixture(params=["script", "-m metaop"])
def run(request, tmp_path):
    """The command as a user starts it: `run(arguments, folder)`, with a first place for modules."""
    (tmp_path / "metaop").write_text(SCRIPT)
    start = [str(tmp_path / "metaop")] if request.param == "script" else request.param.split()

    def run(arguments, folder="", **options):
        settings = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        path = os.pathsep.join([str(folder), str(Path(mo.__file__).parent.parent)])
        return subprocess.run(
            [sys.executable, *start, *arguments], text=True, timeout=120, stderr=subprocess.PIPE,
            cwd=tmp_path, env={**settings, "PYTHONPATH": path}, **options,
        )  # fmt: skip

    return run


unix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes are others there")


@unix
@pytest.mark.parametrize("arguments", [["dump", "a_model.py:value"], ["--help"]])
def test_a_closed_pipe_ends_quietly(run, model, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = run(arguments, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_pipe_of_the_targets_own_is_its_error(tmp_path, capsys):
    """It was once taken for that of the output: the command ended without a word."""
    (tmp_path / "pipes.py").write_text("def f():\n    raise BrokenPipeError('mine')\n")
    assert main(["dump", f"{tmp_path}/pipes.py:f"]) == 2
    assert capsys.readouterr().err == "metaop: BrokenPipeError: mine (pipes.py:2)\n"


INTERRUPT = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@unix
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("moment", ["metaop is imported", "the target is imported", "exit"])
def test_ctrl_c_ends_quietly_at_every_moment(run, model, tmp_path, moment):
    """While metaop was imported, and at exit, it once showed a traceback."""
    early = tmp_path / "early"
    early.mkdir()
    if moment == "metaop is imported":  # which imports numpy
        (early / "numpy.py").write_text(INTERRUPT)
    elif moment == "exit":
        at_exit = "".join(f"    {line}\n" for line in INTERRUPT.splitlines())
        model.write_text(MODEL + f"\nimport atexit\n@atexit.register\ndef end():\n{at_exit}")
    else:
        model.write_text(INTERRUPT)
    done = run(["dump", "a_model.py:value"], early, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.startswith("graph value(") == (moment == "exit")


@unix
@pytest.mark.usefixtures("interruptible")
def test_a_program_that_imports_metaop_keeps_its_ctrl_c(tmp_path):
    program = "import metaop\ntry:\n    " + "; ".join(INTERRUPT.splitlines()) + (
        "\nexcept KeyboardInterrupt:\n    print('caught')")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], text=True, stdout=subprocess.PIPE,
                          cwd=Path(mo.__file__).parent.parent, timeout=60)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "caught\n")


def test_ctrl_c_ends_a_call_quietly(model, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("metaop.cli.load_target", interrupted)
    assert main(["dump", f"{model}:value"]) == 130
    assert capsys.readouterr() == ("", "")


def examples_of(command, capsys):
    """The commands that `metaop COMMAND --help` shows."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = capsys.readouterr().out
    return [line.strip() for line in text.split("examples:\n")[1].splitlines()]


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_the_examples_of_every_help_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(Path(__file__).parents[1] / "examples")
    if name == "cache":
        monkeypatch.setattr(mo.config, "cache", str(tmp_path / "cache"))
    examples = examples_of([name] if name else [], capsys)
    assert examples
    if name is None:
        assert len(examples) == len(COMMANDS)  # each is one of its command's, which has its turn
        return
    if name == "doctor":  # the tests' own settings are no fault
        monkeypatch.setattr(mo.config, "check", False)
    if name in ("profile", "roofline"):
        monkeypatch.setattr(roofline, "known", lambda *_: MEASURED)
    for example in examples:
        arguments = shlex.split(example)
        assert arguments[:2] == ["metaop", name]
        assert main(arguments[1:]) == 0, example
    assert capsys.readouterr().out


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


@pytest.mark.parametrize("run", ["script", "-m metaop", "-m metaop.cli"], indirect=True)
def test_the_console_command_runs(run, model):
    done = run(["dump", f"{model}:value"], stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("graph value(")
