"""Holding back Ctrl-C where stopping half-way would leave values torn."""

from __future__ import annotations

# The plain functions: those of the signal module make an enum of every number, at 2 µs a call.
import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

_SIGINT = int(signal.SIGINT)
Handler = Callable[[int, "FrameType | None"], object]


class uninterrupted:  # noqa: N801 - a context manager, read as a word in a with statement
    """Notes SIGINT while the body runs and delivers it, to the handler that was there, afterwards.

        with uninterrupted():
            write_back()        # Ctrl-C here ...
        ...                     # ... raises KeyboardInterrupt here

    Python gives signals to the main thread only, so in any other thread this does nothing; nor
    does it where SIGINT is ignored or left to the system.  It nests: inside another one, which
    notes the signal anyway, it does nothing.  Each use is a new object.
    """

    __slots__ = ("_handler", "_noted")

    def __init__(self) -> None:
        self._handler: Handler | None = None
        self._noted: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        handler = _signal.getsignal(_SIGINT)
        if type(getattr(handler, "__self__", None)) is uninterrupted or not callable(handler):
            return
        if threading.get_ident() == threading.main_thread().ident:
            self._handler = handler
            _signal.signal(_SIGINT, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        handler = self._handler
        if handler is None:
            return
        current = _signal.signal(_SIGINT, handler)
        if current != self._note:
            # The body installed a handler: the user's wish for the time after it, too.
            _signal.signal(_SIGINT, current)
        if self._noted is not None:
            handler(*self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = (number, frame)
