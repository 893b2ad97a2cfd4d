"""Every test runs with the IR verified after each pass, and shares one cache of compiled kernels.

The cache lies in pytest's own, so workers and later runs find what one of them compiled; the
processes that tests start find it, too.  A test that counts compilations takes a folder of its own.
"""

import gc
import os
import signal
from collections.abc import Iterator

import pytest

import metaop as mo

mo.config.check = True


def pytest_configure(config: pytest.Config) -> None:
    if "METAOP_CACHE" not in os.environ and hasattr(config, "cache") and config.cache is not None:
        os.environ["METAOP_CACHE"] = str(config.cache.mkdir("metaop"))
        mo.config.cache = os.environ["METAOP_CACHE"]


@pytest.fixture
def no_disk_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count compilations: nothing comes from disk in this process."""
    monkeypatch.setattr(mo.config, "cache", "off")


@pytest.fixture
def settled() -> None:
    """For tests that count what a call compiles, records or frees: nothing is pending, and no
    garbage lies about, from earlier tests; writes that are pending join the next program."""
    gc.collect()
    mo.sync()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also in the background of a shell, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
