"""Short tracebacks: what an error of metaop displays is the user's lines and the message.

    Traceback (most recent call last):
      File "train.py", line 7, in <module>
        loss = net(x).sum()
    metaop.errors.ShapeError: matmul(a, b): inner sizes must agree, …

Only the display is short, in scripts, threads, a REPL and IPython.  The exception keeps its whole
traceback, which debuggers, pytest, `logging` and `traceback` see.  METAOP_TRACEBACK=full, or
`mo.config.traceback = "full"`, displays all of it; a `CompilerBug` always does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from .config import config
from .errors import STANDARD_LIBRARY, CompilerBug, is_library, is_own


def shortened(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without metaop's own frames and those of libraries that metaop called.

    One without a frame of metaop's, or without any other, is returned as it is.
    """
    entries = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    own = [_is_hidden(entry) for entry in entries]
    if True not in own:
        return entries[0] if entries else None
    last = len(own) - 1 - own[::-1].index(True)
    shown: list[TracebackType] = []
    behind_own = False
    for position, entry in enumerate(entries):
        file = entry.tb_frame.f_code.co_filename
        called = position > last and is_library(file)  # by metaop, directly or not
        behind_own = own[position] or called or (behind_own and file.startswith(STANDARD_LIBRARY))
        if not behind_own:
            shown.append(entry)
    short: TracebackType | None = None
    for entry in reversed(shown):
        short = TracebackType(short, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return short or entries[0]


def _is_hidden(entry: TracebackType) -> bool:
    file = entry.tb_frame.f_code.co_filename
    return is_own(file) or file.startswith("<trace of ")


@contextmanager
def short(error: BaseException | None) -> Iterator[None]:
    """While the body displays an error, it and those that led to it have short tracebacks."""
    chain: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if one is not None and one not in chain:
            chain.append(one)
            left += [one.__cause__, one.__context__]
    if config.traceback == "full" or any(isinstance(one, CompilerBug) for one in chain):
        chain = []
    whole = [(one, one.__traceback__) for one in chain]
    try:
        for one, trace in whole:
            one.__traceback__ = shortened(trace)
        yield
    finally:
        for one, trace in whole:
            one.__traceback__ = trace


def _of_scripts(show: Callable[..., Any]) -> Callable[..., Any]:
    """`sys.excepthook`, of scripts and the REPL."""

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        whole = error.__traceback__ if error is not None else None
        if error is not None:
            error.__traceback__ = trace  # a REPL leaves out its own frames
        try:
            with short(error):
                show(kind, error, error.__traceback__ if error is not None else trace)
        finally:
            if error is not None:
                error.__traceback__ = whole

    return hook


def _of_threads(show: Callable[..., Any]) -> Callable[..., Any]:
    """`threading.excepthook`."""

    def hook(args: Any) -> None:
        with short(args.exc_value):
            kind, error = args.exc_type, args.exc_value
            trace = args.exc_traceback if error is None else error.__traceback__
            show(threading.ExceptHookArgs((kind, error, trace, args.thread)))

    return hook


def _of_ipython(shell: Any, kind: Any, error: BaseException, trace: Any, tb_offset: Any) -> None:
    """The handler of IPython and notebooks, which have no `sys.excepthook`."""
    with short(error):
        shell.showtraceback((kind, error, error.__traceback__), tb_offset=tb_offset)


def install() -> None:
    """Makes what is displayed short from now on: called by `import metaop`."""
    sys.excepthook = _of_scripts(sys.excepthook)
    threading.excepthook = _of_threads(threading.excepthook)
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((Exception,), _of_ipython)
