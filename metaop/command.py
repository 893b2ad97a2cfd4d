"""Whether this process is the command `metaop`; then Ctrl-C ends it at once and without a word.

Imported first of all, since Python's own handler would show a traceback through whatever is being
imported, and one through what runs at exit.  The signal's default action is what a shell expects:
status 130, and the end of a loop of commands.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module `signal` takes a while itself
import os
import sys

MODULES = ("metaop", "metaop.__main__", "metaop.cli")  # of `python -m`
SCRIPTS = ("metaop", "metaop.exe", "metaop-script.py")


def is_command() -> bool:
    """True for `metaop …` and `python -m metaop …`, False for a program that imports metaop."""
    if sys.argv[:1] == ["-m"]:  # until the module is found
        module = sys.orig_argv[-len(sys.argv)]
        return module.removeprefix("-m") in MODULES
    return bool(sys.argv) and os.path.basename(sys.argv[0]) in SCRIPTS


def end_on_interrupt() -> None:
    """Leaves Ctrl-C to the system, unless something else has been done about it already."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


if is_command():
    end_on_interrupt()
