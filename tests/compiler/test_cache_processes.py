"""The disk cache from outside: what a second process compiles, imports and computes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Trains a little, and prints what it did: a hash of every parameter and buffer, the kernels that
# metaop counted, the compilations that Numba counted, whether Numba was imported, the warnings.
TRAINING = """
import hashlib, json, sys, warnings
warnings.simplefilter("always")
caught = warnings.catch_warnings(record=True)
found = caught.__enter__()
import numpy as np
import metaop as mo
from metaop import nn
from metaop.compiler import fingerprint

compilations = 0
if {count}:
    from numba.core import event
    class Listener(event.Listener):
        def on_start(self, event):
            global compilations
            compilations += 1
        def on_end(self, event):
            pass
    event.register("numba:compile", Listener())

mo.manual_seed(3)
generator = np.random.default_rng(0)
{network}
optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    loss = nn.functional.cross_entropy(net(mo.array(images)), mo.array(labels))
    optimizer.step(loss)
state = b"".join(np.ascontiguousarray(v.numpy()).tobytes() for v in net.state_dict().values())
stats = mo.stats()
print(json.dumps(dict(
    sha=hashlib.sha256(state).hexdigest(), loss=loss.item(), compiled=stats.compiled,
    loaded=stats.loaded, programs=stats.programs, compilations=compilations,
    numba="numba" in sys.modules, warnings=[str(w.message) for w in found],
)))
"""
SMALL = """
net = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
images, labels = generator.normal(size=(32, 20)).astype("f4"), generator.integers(0, 10, 32)
"""
LENET = """
net = nn.models.LeNetBN()
images, labels = generator.normal(size=(8, 1, 28, 28)).astype("f4"), generator.integers(0, 10, 8)
"""


def start(
    folder: Path | None, network: str = SMALL, count: bool = False, **environment: str
) -> subprocess.Popen[str]:
    text = TRAINING.replace("{count}", str(count)).replace("{network}", network)
    setting = {} if folder is None else {"METAOP_CACHE": str(folder)}
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, **setting, **environment},
    )  # fmt: skip


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output)


def train(folder: Path | None, network: str = SMALL, **options: Any) -> dict[str, Any]:
    return report(start(folder, network, **options))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder that a process has filled, and what that process did."""
    folder = tmp_path_factory.mktemp("cache") / "compiled"
    return folder, train(folder, count=True)


def copy_of(filled: tuple[Path, dict[str, Any]], folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    for path in filled[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o600)
    return folder


def test_the_first_process_compiles_each_kernel_once(filled: tuple[Path, dict[str, Any]]):
    folder, first = filled
    names = [path.name.partition("-")[0] for path in folder.iterdir()]
    assert first["compiled"] == first["compilations"] == names.count("kernel") > 10
    assert first["programs"] == names.count("program") > 0
    assert first["numba"] and not first["warnings"]


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_second_process_compiles_nothing_and_runs_no_pass(
    filled: tuple[Path, dict[str, Any]], seed: str
):
    folder, first = filled
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    second = train(folder, PYTHONHASHSEED=seed)
    assert second["compiled"] == second["programs"] == 0 and not second["numba"]
    assert second["loaded"] == first["compiled"]
    assert (second["sha"], second["loss"]) == (first["sha"], first["loss"])
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_second_process_that_has_numba_hears_of_no_compilation(
    filled: tuple[Path, dict[str, Any]],
):
    assert train(filled[0], count=True)["compilations"] == 0


def test_training_lenet_again_does_not_import_numba():
    first = train(None, LENET)  # in the cache that the tests share
    second = train(None, LENET)
    assert not second["numba"] and second["compiled"] == second["programs"] == 0
    assert second["sha"] == first["sha"]


def test_without_a_cache_the_result_is_the_same(filled: tuple[Path, dict[str, Any]]):
    alone = train(None, METAOP_CACHE="off")
    assert alone["sha"] == filled[1]["sha"] and alone["loaded"] == 0 and not alone["warnings"]


def test_another_cpu_has_entries_of_its_own(filled: tuple[Path, dict[str, Any]], tmp_path: Path):
    folder = copy_of(filled, tmp_path / "cache")
    other = train(folder, METAOP_CPU="generic")
    assert other["compiled"] > 0 and other["loaded"] == 0
    again = train(folder)
    assert again["compiled"] == 0 and again["sha"] == filled[1]["sha"]


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": lambda path: path.write_bytes(
        path.read_bytes()[:-40] + bytes([path.read_bytes()[-40] ^ 4]) + path.read_bytes()[-39:]
    ),
    "open to all": lambda path: path.chmod(0o666),
    "gone": lambda path: path.unlink(),
}
if hasattr(os, "geteuid") and os.geteuid() == 0:
    DAMAGES["foreign"] = lambda path: os.chown(path, 12345, 12345)


@pytest.mark.parametrize("kinds", [("kernel",), ("program",), ("kernel", "program")])
def test_what_is_damaged_is_compiled_again(
    filled: tuple[Path, dict[str, Any]], tmp_path: Path, kinds: tuple[str, ...]
):
    folder = copy_of(filled, tmp_path / "cache")
    damaged = sorted(path for path in folder.iterdir() if path.name.startswith(kinds))
    for path, damage in zip(damaged, itertools.cycle(DAMAGES.values())):
        damage(path)
    repaired = train(folder)
    assert repaired["sha"] == filled[1]["sha"]
    assert len(repaired["warnings"]) <= 1
    assert repaired["programs"] == filled[1]["programs"] or kinds == ("kernel",)
    assert repaired["compiled"] == (filled[1]["compiled"] if "kernel" in kinds else 0)
    again = train(folder)
    assert again["compiled"] == again["programs"] == 0 and not again["warnings"]
    assert again["sha"] == filled[1]["sha"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has access lists")
def test_a_folder_open_to_others_gives_one_warning_and_is_not_written(
    filled: tuple[Path, dict[str, Any]], tmp_path: Path
):
    tmp_path.chmod(0o777)
    refused = train(tmp_path)
    assert refused["sha"] == filled[1]["sha"]
    assert len(refused["warnings"]) == 1 and "other users" in refused["warnings"][0]
    assert not list(tmp_path.iterdir())


def test_four_processes_fill_one_cache_at_once(filled: tuple[Path, dict[str, Any]], tmp_path: Path):
    processes = [start(tmp_path / "cache", METAOP_THREADS="1") for _ in range(4)]
    reports = [report(process) for process in processes]
    assert {each["sha"] for each in reports} == {filled[1]["sha"]}
    assert not any(each["warnings"] for each in reports)
    assert train(tmp_path / "cache")["compiled"] == 0


def test_killed_processes_leave_a_cache_that_is_right(
    filled: tuple[Path, dict[str, Any]], tmp_path: Path
):
    folder = tmp_path / "cache"
    for kernels in (1, 5, 8):
        process = start(folder)
        while process.poll() is None and len(list(folder.glob("kernel-*"))) < kernels:
            time.sleep(0.001)
        process.kill()
        process.communicate()
    last = train(folder)
    assert last["sha"] == filled[1]["sha"] and not last["warnings"]


def modules_after(program: str) -> set[str]:
    text = f"{program}\nimport sys; print(*sys.modules)"
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        [sys.executable, "-c", text], text=True, stdout=subprocess.PIPE, check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    return set(finished.stdout.split())


def test_importing_metaop_imports_no_compiler():
    loaded = modules_after("import metaop")
    stages = {f"metaop.compiler.{name}" for name in ("pipeline", "schedule", "loops", "codegen")}
    assert "metaop.var" in loaded
    assert not loaded & {"numba", "llvmlite", "llvmlite.binding", *stages}


def test_a_cached_program_imports_no_stage_of_the_compiler():
    program = "import metaop as mo; print((mo.array([1.0, 2.0]) * 2.75).numpy())"
    modules_after(program)
    loaded = modules_after(program)
    assert not loaded & {"numba", "metaop.compiler.pipeline", "metaop.compiler.fuse"}


def test_a_second_process_with_another_batch_size_compiles_nothing(
    filled: tuple[Path, dict[str, Any]],
):
    another = train(filled[0], SMALL.replace("32", "47"))
    assert another["compiled"] == another["programs"] == 0 and not another["numba"]
