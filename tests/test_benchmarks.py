"""The benchmarks' rows compute one thing in all frameworks; their machinery and tables."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import networks, report, turns
from benchmarks.frameworks import Metaop, Numpy, Torch, state_of
from benchmarks.rows import ALL
from metaop.nn import models

NETWORKS = [
    (lambda: models.LeNetBN(), networks.lenet),
    (lambda: models.MLP(), networks.mlp),
    (lambda: models.resnet18(10, stem="cifar"), networks.resnet18),
    (lambda: models.TransformerClassifier(), networks.transformer),
]


@pytest.mark.parametrize("pair", NETWORKS, ids=["lenet", "mlp", "resnet18", "transformer"])
def test_both_networks_of_a_row_have_one_state(pair):
    pytest.importorskip("torch")
    ours, theirs = (make().state_dict() for make in pair)
    assert {k: tuple(v.shape) for k, v in ours.items()} == {
        k: tuple(v.shape) for k, v in theirs.items()
    }


@pytest.mark.parametrize("name", [
    "matmul 1000x37x515", "max-plus convolution 16→16 32² b8", "conv3x3 256 14² b32 +bwd, Winograd",
])  # fmt: skip
def test_a_row_computes_the_same_in_every_framework(name):
    pytest.importorskip("torch")
    row = ALL[name]
    settings = {"metaop": Metaop(), "torch": Torch(), "numpy": Numpy()}
    works = {k: make(row.arrays(), settings[k]) for k, make in row.makers.items()}
    digests = {
        k: turns.digest([result for _ in range(row.calls) for result in work()])
        for k, work in works.items()
    }
    for digest in digests.values():
        assert turns.difference(digest, digests["torch"]) < row.tolerance


def test_difference_sees_one_wrong_element_among_the_fifty():
    x = np.arange(100.0)
    y = x.copy()
    y[-1] += 1
    assert turns.difference(turns.digest([x]), turns.digest([x])) == 0
    assert turns.difference(turns.digest([x]), turns.digest([y])) == pytest.approx(1 / 99)


def test_initial_state_depends_on_names_only():
    one = state_of({"a.weight": (4, 3), "a.bias": (4,)})
    two = state_of({"a.bias": (4,), "a.weight": (4, 3)})
    np.testing.assert_array_equal(one["a.weight"], two["a.weight"])
    assert not one["a.bias"].any()


def test_a_worker_answers_and_tells_of_its_errors():
    worker = turns.Worker("benchmarks", "numpy", 1)
    try:
        assert worker.ask("versions") == {"numpy": np.__version__}
        assert len(worker.ask("row", ["matmul 1024", 1])) == 1
        with pytest.raises(turns.WorkerError, match="KeyError"):
            worker.ask("row", ["no such row", 1])
    finally:
        worker.close()


def test_tables_show_ratios_and_bars_that_are_missed(tmp_path):
    times = {"metaop": [2.0, 4.0], "plain": [4.0, 8.0], "eager": [6.0, 4.0], "pages": [1.0, 2.0]}
    row = {"row": "r", "faults": {"last": "differs"}, "limit": 1.5, "bars": (1.5, 1.5),
           "ms": {"metaop": 3.0, "plain": 6.0, "eager": 5.0, "pages": 1.5}}  # fmt: skip
    row.update(report.ratios(times, 1.5))
    assert row["default"] == {"name": "eager", "ratio": 2.0}  # of 3 and 1
    assert row["expert"] == {"name": "pages", "ratio": 0.5}
    assert (row["plain"], row["share"]) == (0.5, 0.5)
    assert report.bars(row) == "1.5 / 1.5 missed"
    assert report.line(row).endswith("last: differs")
    results = {"machine": {"cpu": "c", "cores": 2, "system": "s", "python": "3", "date": "d",
                           "threads": 2}, "limits": {"peak": 1.0, "bandwidth": 1.0},
               "versions": {"metaop": "0"}, "rounds": 2, "rows": [row]}  # fmt: skip
    table = report.markdown(results)
    assert "| r | 3.00 | 5.00 (PyTorch eager) | 2.00 | 1.5 | 1.50 (PyTorch keeping pages)" in table
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put(str(page), table)
    report.put(str(page), table)
    assert page.read_text() == f"before\n{report.BEGIN}\n\n{table}\n\n{report.END}\nafter\n"
