"""metaop doctor tells what is there, and warns of what is wrong."""

from __future__ import annotations

import json
import os
import platform

import llvmlite
import numba
import numpy as np
import pytest

import metaop as mo
from metaop import doctor
from metaop.cli import main
from metaop.compiler import cache as cache_module


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No settings but a cache folder of its own; no checks."""
    for name in list(os.environ):
        if name.startswith("METAOP_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(mo.config, "check", False)
    monkeypatch.setattr(mo.config, "cache", str(tmp_path))
    return tmp_path


def test_versions_and_places_are_real(clean):
    facts = doctor.examine().facts
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["versions"]["llvmlite"] == llvmlite.__version__
    assert facts["versions"]["numba"] == numba.__version__
    assert facts["versions"]["python"].startswith(platform.python_version())
    assert facts["threads"]["count"].startswith(f"{mo.get_num_threads()} (")
    assert str(clean) in facts["cache"]["folder"] and facts["cache"]["state"] == "writable"


def test_a_sound_installation_has_no_warnings_and_exit_status_0(clean, capsys):
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong\n")


def test_json_has_the_documented_schema(clean, capsys):
    assert main(["doctor", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {"version", "facts", "warnings"} and data["version"] == 1
    assert list(data["facts"]) == ["versions", "processor", "threads", "cache", "settings"]
    assert all(isinstance(v, str) for group in data["facts"].values() for v in group.values())


WRONG = {
    "unknown": ({"METAOP_THREADZ": "3"}, {}, "METAOP_THREADZ is no setting of metaop"),
    "check": ({}, {"check": True}, "METAOP_CHECK is set"),
    "check_nan": ({}, {"check_nan": True}, "METAOP_CHECK_NAN is set"),
    "generic": ({}, {"cpu": "generic"}, "METAOP_CPU is set"),
    "cache off": ({}, {"cache": "off"}, "nothing is cached on disk (off)"),
    "fuse": ({}, {"fuse": False}, "METAOP_FUSE is set: nothing is fused"),
}


@pytest.mark.parametrize(("variables", "settings", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_a_warning(clean, monkeypatch, capsys, variables, settings, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, value in settings.items():
        monkeypatch.setattr(mo.config, name, value)
    assert main(["doctor"]) == 1
    assert f"warning: {message}" in capsys.readouterr().out


def test_a_folder_of_the_cache_that_others_may_write_is_told(clean, monkeypatch):
    if not hasattr(os, "geteuid"):
        pytest.skip("there are no such permissions here")
    shared = clean / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr(mo.config, "cache", str(shared))
    cache_module._opened.cache_clear()
    found = doctor.examine()
    assert "may be written by other users" in found.facts["cache"]["state"]
    assert any("nothing is cached" in text for text in found.warnings)


def test_more_threads_than_cpus_are_told(clean):
    count = mo.get_num_threads()
    mo.set_num_threads(doctor.usable_cpus() + 3)
    try:
        assert any("threads share" in text for text in doctor.examine().warnings)
    finally:
        mo.set_num_threads(count)


def test_a_compiler_that_does_not_work_is_told(clean, monkeypatch):
    from metaop.compiler import codegen

    def broken(*_):
        raise OSError("no such library")

    monkeypatch.setattr(codegen, "assembly_of", broken)
    (text,) = doctor.examine().warnings
    assert text == "a kernel cannot be compiled or run: OSError: no such library"
