"""Short tracebacks: the user's lines and the message, wherever an error is displayed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import metaop as mo
from metaop import nn


class Net(nn.Module):
    def forward(self, x):
        return x @ mo.ones((3, 2))  # the line at fault


def main():
    Net()(mo.ones((2, 5)))  # the call


{call}
"""


def displayed(*command: str, given: str | None = None, full: bool = False) -> str:
    """What a process of this interpreter writes to stderr."""
    env = {k: v for k, v in os.environ.items() if k != "METAOP_TRACEBACK"}
    env |= {"METAOP_TRACEBACK": "full"} if full else {}
    options = ["-W", "error"]
    done = subprocess.run(
        [sys.executable, *options, *command], input=given, env=env, text=True, capture_output=True,
        timeout=60,
    )  # fmt: skip
    return done.stderr


def frames(text: str) -> list[str]:
    """The functions of the frames shown."""
    lines = text.splitlines()
    return [line.rsplit(" in ", 1)[-1] for line in lines if line.lstrip().startswith("File ")]


@pytest.mark.parametrize("full", [False, True])
def test_a_script_shows_its_own_frames_and_the_message(tmp_path: Path, full: bool) -> None:
    file = tmp_path / "train.py"
    file.write_text(SCRIPT.format(call="main()"))
    text = displayed(str(file), full=full)
    assert "inner sizes must agree" in text and "the line at fault" in text and "the call" in text
    if full:
        assert "matmul" in frames(text) and "__call__" in frames(text)
    else:
        assert frames(text) == ["<module>", "main", "forward"]


def test_a_thread_shows_its_own_frames(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    call = "import threading\n\nt = threading.Thread(target=main)\nt.start()\nt.join()"
    file.write_text(SCRIPT.format(call=call))
    text = displayed(str(file))
    assert frames(text)[-2:] == ["main", "forward"] and "matmul" not in frames(text)


def test_a_repl_shows_its_own_frames() -> None:
    text = displayed("-i", "-q", given="import metaop as mo\nmo.ones((2, 3)) @ mo.ones((2, 3))\n")
    assert frames(text) == ["<module>"] and "inner sizes must agree" in text


def test_the_console_of_the_standard_library_shows_no_frame_of_metaop() -> None:
    given = "import metaop as mo\nmo.ones((2, 3)) @ mo.ones((2, 3))\n"
    text = displayed("-m", "code", "-q", given=given)  # it shows one of its own, by version
    assert frames(text)[-1] == "<module>" and "matmul" not in frames(text)
    assert "inner sizes must agree" in text


def test_code_that_is_executed_shows_its_own_frames() -> None:
    program = "exec('import metaop as mo\\ndef f():\\n    mo.ones((2, 3)).reshape(5)\\nf()')"
    text = displayed("-c", program)
    assert frames(text) == ["<module>", "<module>", "f"] and "sizes must agree" in text


def test_errors_of_kernels_and_their_causes_are_short(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(
        "import metaop as mo\n\n\ndef look():\n    try:\n"
        "        print(mo.ones(3)[mo.array([7])])\n"
        "    except IndexError as error:\n        raise ValueError('bad label') from error\n\n\n"
        "look()\n"
    )
    text = displayed(str(file))
    assert frames(text) == ["look", "<module>", "look"]
    assert "index 7 is out of bounds" in text and "direct cause" in text


def test_errors_of_others_are_shown_whole() -> None:
    text = displayed("-c", "import metaop, json\njson.loads('{')")
    assert frames(text)[:2] == ["<module>", "loads"] and "raw_decode" in frames(text)


def test_the_exception_keeps_its_whole_traceback_and_a_hook_its_place() -> None:
    program = (
        "import sys, traceback\n"
        "seen = []\n"
        "sys.excepthook = lambda *args: seen.append(args)\n"
        "import metaop as mo\n"
        "try:\n"
        "    mo.ones((2, 3)).reshape(5)\n"
        "except ValueError as e:\n"
        "    error = e\n"
        "whole = error.__traceback__\n"
        "sys.excepthook(type(error), error, whole)\n"
        "assert error.__traceback__ is whole\n"
        "assert len(traceback.extract_tb(whole)) > 1\n"
        "assert len(traceback.extract_tb(seen[0][2])) == 1\n"
        "mo.config.traceback = 'full'\n"
        "sys.excepthook(type(error), error, whole)\n"
        "assert seen[1][2] is whole\n"
    )
    assert displayed("-c", program) == ""
