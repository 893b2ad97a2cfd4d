"""Every setting of metaop and the environment variable behind it, in one place.

| variable | meaning | default |
|---|---|---|
| METAOP_THREADS | threads a kernel may use | affinity and cgroup quota, the smaller |
| METAOP_THREADING_LAYER | omp, tbb, workqueue or alone | the first that loads |
| METAOP_CACHE | folder of compiled code; 0 or off: none is kept | the user's cache |
| METAOP_DATA | folder with data sets | the user's cache |
| METAOP_CHECK | 1: verify what every stage of compilation makes | 0 |
| METAOP_CHECK_NAN | 1: the first operation that makes a NaN or infinity is an error | 0 |
| METAOP_DUMP | after:PASS prints the graph after a pass of whatever is compiled, to stderr | |
| METAOP_FUSE | 0: every loop nest is a kernel of its own | 1 |
| METAOP_WINOGRAD | 1: convolutions of 3 x 3 taps by Winograd's algorithm, see `mo.winograd` | 0 |
| METAOP_REPEAT | 0: `optimizer.step(loss)` records every step anew, see `metaop/repeated.py` | 1 |
| METAOP_CPU | code for: host, or a plainer CPU: generic, on x86-64 also sse4 or avx2 | host |
| METAOP_TRACEBACK | full: errors display metaop's own frames, too | short |
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass


def _flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0", "false", "no")


_FUSE = os.environ.get("METAOP_FUSE", "1") not in ("0", "false", "no")
_WINOGRAD = _flag("METAOP_WINOGRAD")
_thread = threading.local()


@dataclass
class Config:
    """Settings that a program may change at run time."""

    check: bool = _flag("METAOP_CHECK")
    check_nan: bool = _flag("METAOP_CHECK_NAN")
    repeat: bool = os.environ.get("METAOP_REPEAT", "1") not in ("0", "false", "no")
    cpu: str = os.environ.get("METAOP_CPU", "host")
    traceback: str = os.environ.get("METAOP_TRACEBACK", "short")
    cache: str = os.environ.get("METAOP_CACHE", "")
    dump: str = os.environ.get("METAOP_DUMP", "")
    # Recorded work that nobody asked for yet is bounded: a chain deeper than this, or an
    # in-place update of a value that has this many pending operations below it, is computed;
    # past so many nodes, or so many bytes of values that they read, the oldest part is.
    pending_depth: int = 4096
    pending_update_depth: int = 16
    pending_nodes: int = 65_536
    pending_bytes: int = 1 << 30

    @property
    def fuse(self) -> bool:
        """Whether nests become common kernels: per Python thread, see `mo.no_fuse`."""
        return getattr(_thread, "fuse", _FUSE)

    @fuse.setter
    def fuse(self, wanted: bool) -> None:
        _thread.fuse = wanted

    @property
    def winograd(self) -> bool:
        """Whether `compiler/passes/winograd.py` runs: per Python thread, see `mo.winograd`."""
        return getattr(_thread, "winograd", _WINOGRAD)

    @winograd.setter
    def winograd(self, wanted: bool) -> None:
        _thread.winograd = wanted


config = Config()
