"""Python's collector of cyclic garbage, held back while a program is compiled."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """No automatic collection while the body runs.

    Compiling makes millions of small objects, nearly all of which live until it ends; looking
    through them again and again takes a quarter of the time.  `collect_young` frees what is garbage
    before that.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def collect_young() -> None:
    """Frees what has become garbage of what was made since the last time."""
    gc.collect(0)
