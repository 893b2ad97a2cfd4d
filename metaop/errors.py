"""The errors a user can meet, and the user's line that each of them names.

A `Site` is where in the user's program an operation was recorded; finding it costs well under a
microsecond because nothing but the code object and the instruction offset is kept.
"""

from __future__ import annotations

import copy
import copyreg
import os
import sys
from types import CodeType
from typing import Any

from .recording import recording

# metaop's own source: frames whose code lives below it are never "the user's line".
PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_REAL_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
_OWN_FOLDERS = (PACKAGE, _REAL_ROOT + "compiler" + os.sep, _REAL_ROOT + "nn" + os.sep,
                _REAL_ROOT + "metaop" + os.sep)  # fmt: skip


class MetaopError(Exception):
    """The base of every error that metaop itself defines."""


class ShapeError(MetaopError, ValueError):
    """Shapes, ranks or sizes of an operation's operands do not fit together."""


class DTypeError(MetaopError, TypeError):
    """An operation is not defined for these element types."""


class IndexExpressionError(MetaopError, ValueError):
    """An index expression of a meta-operator is malformed: wrong arity, a float, bad syntax."""


class StaleValueError(MetaopError, RuntimeError):
    """A gradient needs a value that has been overwritten, or history that has been dropped."""


class NonFiniteError(MetaopError, FloatingPointError):
    """An operation made a NaN or an infinity, and `mo.debug_nans` was to tell."""


class JitError(MetaopError, RuntimeError):
    """A traced function did something that a trace cannot replay."""


class CheckpointError(MetaopError, ValueError):
    """A checkpoint file is broken or is not what the caller expects."""


class NotScalar(Exception):
    """Why a user's function cannot be one of numbers, and so no part of a kernel; caught inside."""


class CompilerBug(MetaopError, RuntimeError):
    """metaop is wrong, not the user: names the pass and shows the IR around the fault."""


class UnreachedGradientWarning(UserWarning):
    """A gradient was asked for a Var that the loss does not depend on."""


class Site:
    """One place in the user's program: `str(site)` is "train.py:41"."""

    __slots__ = ("code", "offset", "_line")

    def __init__(self, code: CodeType, offset: int):
        self.code, self.offset = code, offset
        self._line: int | None = None

    @property
    def filename(self) -> str:
        """The source file as the interpreter knows it ("<stdin>" in a REPL)."""
        return self.code.co_filename

    @property
    def line(self) -> int:
        """The line number in that file."""
        if self._line is None:
            self._line = self._found_line()
        return self._line

    def _found_line(self) -> int:
        line = self.code.co_firstlineno
        for start, end, number in self.code.co_lines():
            if start <= self.offset < end and number is not None:
                return number
            line = number if number is not None else line
        return line

    def __str__(self) -> str:
        return f"{os.path.basename(self.filename)}:{self.line}"


_sites: dict[tuple[int, int], Site] = {}  # by code and offset; each keeps its code alive


def _new_site(code: CodeType, offset: int) -> Site:
    """A site that is met for the first time."""
    if len(_sites) > 10_000:
        _sites.clear()
    return _sites.setdefault((id(code), offset), Site(code, offset))


# copying an object is no line of the user's, what asks for the copy is
_own: dict[str, bool] = {copy.__file__: True, copyreg.__file__: True}


def is_own(filename: str) -> bool:
    """True for a file of metaop's own source."""
    own = filename.startswith(_OWN_FOLDERS) or filename.startswith("<frozen")
    _own[filename] = own
    return own


def count_as_own(filename: str) -> None:
    """From now on frames of this file are no line of the user's."""
    _own[filename] = True


STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


def is_library(filename: str) -> bool:
    """True for code that a user does not change while a program runs."""
    return (
        filename.startswith(STANDARD_LIBRARY)
        or is_own(filename)
        or "site-packages" in filename
        or "dist-packages" in filename
    )


def user_site() -> Site:
    """The site that is being recorded for, by default the innermost frame that is not metaop's."""
    return recording.site or recording.layer or site_above(1)


def site_above(skipped: int) -> Site:
    """The innermost frame that is not metaop's own; so many frames below the caller's are.

    They are not looked at, because every frame object that Python has to make costs.
    """
    frame: Any = sys._getframe(skipped)
    while frame is not None:
        code = frame.f_code
        filename = code.co_filename
        own = _own.get(filename)
        if own is None:
            own = is_own(filename)
        if not own:
            offset = frame.f_lasti
            return _sites.get((id(code), offset)) or _new_site(code, offset)
        frame = frame.f_back
    return _layer_site()


_OWN_PLACES = tuple(os.path.join(*names) for names in (
    ("nn", "models", ""), ("nn", "layers", ""), ("metaop", "inspection.py"),
))  # fmt: skip


def _layer_site() -> Site:
    """Where no frame is the user's (the command line calls a network): the innermost line of a
    model of metaop's own, else of a layer, else of the dump that adds a loss and a step."""
    frames: list[Any] = [sys._getframe(3)]
    while frames[-1].f_back is not None:
        frames.append(frames[-1].f_back)
    chosen = [f for place in _OWN_PLACES for f in frames if place in f.f_code.co_filename]
    frame = chosen[0] if chosen else frames[-1]
    return _new_site(frame.f_code, frame.f_lasti)


def describe(node_or_var: Any) -> str:
    """`f32[64,32]`: how dtype and shape are written in every message and dump."""
    return f"{node_or_var.dtype.short}[{','.join(map(str, node_or_var.shape))}]"


def describe_all(**operands: Any) -> str:
    """`x is f32[2,3], w is f32[4]`: the operands of an operation in a message."""
    return ", ".join(f"{name} is {describe(value)}" for name, value in operands.items())
