"""`python -m tests.mutants [WORDS]`: plants each fault in a copy of the tree and says whether its
tests notice; given words, the faults whose names contain one of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant

REPOSITORY = Path(__file__).resolve().parents[2]
# one process, no cache: the tests stop at the first failure anyway
ALONE = ("-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib")
PARTS = ("metaop", "compiler", "nn", "tests", "pyproject.toml")


def copy_tree(target: Path) -> None:
    """The packages and their tests, links kept."""
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, target / part, symlinks=True, ignore=ignore)
        else:
            shutil.copy2(source, target / part)


def plant(mutant: Mutant, tree: Path) -> None:
    """Writes the fault; ValueError if its place is not there exactly once."""
    path = tree / mutant.path
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {source.count(mutant.old)} places in {mutant.path}")
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")


def passes(tests: str, tree: Path) -> bool:
    """True if the tests pass in a tree; RuntimeError if there were none."""
    arguments = tests.split(" -k ")[0].split()
    if " -k " in tests:
        arguments += ["-k", tests.split(" -k ")[1]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", *ALONE, *arguments],
        cwd=tree, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode > 1:  # below 0: the fault brought the process down, which is noticed
        raise RuntimeError(f"{tests}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def killed(mutant: Mutant) -> bool:
    """True if the mutant's tests fail with the fault and pass without."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        plant(mutant, tree)
        return not passes(mutant.tests, tree)


def main(words: list[str]) -> int:
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for tests in dict.fromkeys(m.tests for m in chosen):
            if not passes(tests, Path(folder)):
                print(f"these fail without any fault: {tests}")
                return 2
    survivors = 0
    for mutant in chosen:
        started = time.perf_counter()
        dead = killed(mutant)
        survivors += not dead
        seconds = time.perf_counter() - started
        print(f"{'killed  ' if dead else 'SURVIVED'} {seconds:5.1f} s  {mutant.name}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
