"""Golden texts: what a test printed last time, in a file named after the test.

    assert_golden(text)     compares with tests/golden/MODULE.TEST.txt

`METAOP_REGENERATE=1 python -m pytest tests/…` writes the files anew; read the difference before
committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def golden_path(test: str) -> Path:
    """The file of a test, given as pytest names it: tests/a/test_b.py::test_c[d]."""
    path, _, name = test.partition("::")
    name = re.sub(r"[^\w.-]+", "-", name.replace("::", ".")).strip("-")
    return FOLDER / f"{Path(path).stem}.{name}.txt"


def assert_golden(text: str) -> None:
    """The text is what the running test printed when its golden file was written."""
    path = golden_path(os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0])
    text = "".join(line.rstrip() + "\n" for line in text.rstrip().splitlines())
    if os.environ.get("METAOP_REGENERATE") == "1":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    assert path.exists(), f"no {path}: run the test once with METAOP_REGENERATE=1"
    wanted = path.read_text(encoding="utf-8")
    assert text == wanted, f"differs from {path} (METAOP_REGENERATE=1 writes it anew)"
