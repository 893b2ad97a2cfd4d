"""What is shipped: sources and a data set, nothing that was compiled on some machine."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = {"metaop", "compiler", "nn", "pyproject.toml", "README.md", "LICENSE"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of a wheel built from a copy of the sources."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if int(version.split(".")[0]) < 77:
        pytest.skip("the build needs setuptools 77")
    copy = tmp_path_factory.mktemp("wheel") / "sources"
    copy.mkdir()
    for name in sorted(SHIPPED):
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    build = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    built = subprocess.run(
        [sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(copy / built.stdout.splitlines()[-1]) as wheel:
        return wheel.namelist()


def test_nothing_in_the_wheel_is_compiled(names: list[str]):
    kinds = {Path(name).suffix for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert kinds == {".py", ".typed", ".npz", ".txt", ".html"}
    data = {Path(name).name for name in names if name.endswith((".npz", ".txt", ".html"))}
    assert {"digits.npz", "DIGITS_LICENSE.txt", "page.html"} <= data
    assert not any("kernel-" in name or "program-" in name for name in names)


def test_every_module_is_in_the_wheel(names: list[str]):
    modules = [
        str(Path("metaop") / top / path.relative_to(REPOSITORY / folder))
        for top, folder in (("", "metaop"), ("compiler", "compiler"), ("nn", "nn"))
        for path in (REPOSITORY / folder).rglob("*.py")
        if folder != "metaop" or path.parent == REPOSITORY / folder
    ]
    assert {Path(name).as_posix() for name in modules} <= set(names)
    assert {name.split("/")[0] for name in names if name.endswith(".py")} == {"metaop"}
