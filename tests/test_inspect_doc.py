"""docs/inspect.md: every program prints what stands below it.

`METAOP_REGENERATE=1 python -m pytest tests/test_inspect_doc.py` writes the outputs anew.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from metaop import roofline
from metaop.cli import main
from metaop.compiler import machine
from metaop.roofline import Point, Roofline

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "inspect.md"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```(text|llvm|asm)\n(.*?)```\n)?", re.DOTALL)


def printed(text: str) -> list[tuple[str, str, str]]:
    """(kind, output in the text, what the program prints) of every program, run in order."""
    namespace: dict[str, Any] = {}
    found = []
    for match in BLOCK.finditer(text):
        program, kind, output = match.groups()
        before = text[: match.start(1)].count("\n")
        source = "\n" * before + program
        linecache.cache["inspect.md"] = (len(source), None, source.splitlines(True), "inspect.md")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(source, "inspect.md", "exec"), namespace)
        found.append((kind or "", output or "", out.getvalue().rstrip() + "\n" if kind else ""))
    return found


def regenerated(text: str) -> str:
    outputs = iter(printed(text))

    def block(match: re.Match[str]) -> str:
        kind, _, new = next(outputs)
        program = f"```python\n{match.group(1)}```\n"
        return f"{program}\n```{kind}\n{new}```\n" if kind else program

    return BLOCK.sub(block, text)


def instructions(code: str) -> set[str]:
    """The names of instructions, without operands."""
    return {line.partition(" = ")[2].split()[0] if " = " in line else line.split()[0]
            for line in code.splitlines() if line.strip()}  # fmt: skip


@pytest.mark.usefixtures("no_disk_cache")
def test_every_program_prints_what_stands_below_it():
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("METAOP_REGENERATE") == "1":
        text = regenerated(text)
        PAGE.write_text(text, encoding="utf-8", newline="\n")
    found = printed(text)
    assert [kind for kind, _, _ in found].count("text") >= 6
    for kind, output, new in found:
        if kind == "text":
            assert new == output
        elif kind == "llvm":
            assert instructions(new) >= instructions(output)
        elif kind == "asm" and "+avx512f" in machine.processor().features:
            assert instructions(new) == instructions(output)


MEASURED = Roofline("a CPU", "an instruction set", [
    Point(1, 100.0, 10.0, 15.0, 9.0, 14.0, 0.1, 4.0, [(1 << 16, 80.0), (1 << 29, 10.0)])
])  # fmt: skip
COMMAND = re.compile(r"```\nmetaop ([^\n]*)\n```\n.*?```text\n(.*?)```", re.DOTALL)


def labels(output: str) -> list[str]:
    """The names that lines begin with."""
    return re.findall(r"^ *([A-Za-z][\w' ]*?)(?= {2}|$)", output, re.MULTILINE)


@pytest.mark.parametrize("name", ["profile", "roofline", "summary", "doctor"])
def test_a_command_prints_what_stands_below_it(name, monkeypatch, capsys):
    """Exactly for the summary; for what is measured: the same heads of lines and columns."""
    commands = {line.split()[0]: (line, output) for line, output in COMMAND.findall(
        PAGE.read_text(encoding="utf-8"))}  # fmt: skip
    line, output = commands[name]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(roofline, "known", lambda *_: MEASURED)
    status = main([*shlex.split(line), *(["--steps", "1"] if name == "profile" else [])])
    printed_now, complaint = capsys.readouterr()
    assert status == 0 or name == "doctor", complaint  # a doctor may find something
    if name == "summary":
        assert printed_now == output
    elif name == "doctor":
        assert set(labels(output)) - set(labels(printed_now)) <= {"nothing is wrong"}
    else:
        head = {"profile": 0, "roofline": 1}[name]
        assert printed_now.splitlines()[head] == output.splitlines()[head]
        last = [re.findall("[A-Za-z]+", "".join(text.splitlines()[-2:]))
                for text in (printed_now, output)]  # fmt: skip
        assert last[0] == last[1]


def test_the_command_for_a_page_runs(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    (line,) = re.findall(r"^    metaop (.*--format html.*)$", text, re.MULTILINE)
    arguments = line.replace("'", "").split()
    arguments[-1] = str(tmp_path / "step.html")
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 0
    assert (tmp_path / "step.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out == ""


def test_the_table_of_reasons_is_complete():
    """Every reason that the grouping can give stands in the page."""
    from metaop.compiler import group as module

    source = Path(module.__file__).read_text(encoding="utf-8")
    rules = re.findall(r'return "([^"]+)"|Boundary\(source, target, "([^"]+)"\)', source)
    known = {words for pair in rules for words in pair} | set(module.COSTS.values())
    page = PAGE.read_text(encoding="utf-8")
    for rule in known - {""}:
        assert rule.partition(" has ")[0] in page, rule
