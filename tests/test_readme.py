"""Every program and output in the README is real."""

from __future__ import annotations

import linecache
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metaop as mo
from metaop.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", README, re.DOTALL)


def test_readme_has_the_two_programs():
    assert len(PROGRAMS) == 2


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=["train", "see"])
def test_readme_program_prints_what_the_readme_says(program, output, tmp_path):
    name = "see.py" if "dump" in program else "train.py"
    (tmp_path / name).write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == output


def test_the_tools_that_the_readme_names_exist():
    commands = set(re.findall(r"`metaop (\w+)", README))
    assert commands == set(COMMANDS)
    for name in re.findall(r"`mo\.(\w+)`", README):
        assert hasattr(mo, name), name
    assert hasattr(mo.nn.Module, "summary") and hasattr(mo.config, "check_nan")


def test_readme_links_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_readme_dump_command_runs(tmp_path):
    line = next(line for line in README.splitlines() if line.strip().startswith("metaop dump"))
    arguments = line.split("metaop ", 1)[1].replace("'", "").split()
    done = subprocess.run(
        [sys.executable, "-m", "metaop.cli", *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "def k0(" in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_programs_in_the_docs_run(path):
    text = path.read_text(encoding="utf-8")
    inside, lines = False, []
    for line in text.splitlines():  # prose becomes empty lines, so that tracebacks name the place
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    assert any(lines)
    source = "\n".join(lines)
    linecache.cache[str(path)] = (len(source), None, source.splitlines(keepends=True), str(path))
    exec(compile(source, str(path), "exec"), {})
