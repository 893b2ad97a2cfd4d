"""The planted faults still fit the source, and the three cheapest are noticed.

All of them: `python -m tests.mutants`, some minutes.
"""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import REPOSITORY, killed, plant
from tests.mutants.table import MUTANTS

CHEAP = ["arena:", "loops:", "share:"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_every_fault_has_its_place(mutant, tmp_path):
    source = (REPOSITORY / mutant.path).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    target = tmp_path / mutant.path
    target.parent.mkdir(parents=True)
    target.write_text(source, encoding="utf-8")
    plant(mutant, tmp_path)
    compile(target.read_text(encoding="utf-8"), mutant.path, "exec")


@pytest.mark.parametrize("word", CHEAP)
def test_a_fault_is_noticed(word):
    (mutant,) = [m for m in MUTANTS if m.name.startswith(word)]
    assert killed(mutant)


def test_there_are_faults_in_every_package():
    assert {m.path.split("/")[0] for m in MUTANTS} == {"metaop", "compiler", "nn"}
    assert len(MUTANTS) >= 15
