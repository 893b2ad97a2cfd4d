"""Whether what is recorded can be differentiated: per Python thread, as in PyTorch."""

from __future__ import annotations

from contextlib import ContextDecorator
from typing import Any

from .recording import recording


class set_grad_enabled(ContextDecorator):  # noqa: N801 - read as a word in a with statement
    """Records with or without history from now on, or inside a `with`, or in a function.

    with mo.set_grad_enabled(training):
        y = net(x)
    """

    def __init__(self, enabled: bool):
        self.enabled = bool(enabled)
        self._saved = [recording.grad]
        recording.grad = self.enabled

    def __call__(self, function: Any) -> Any:
        """The function, recording so."""
        recording.grad = self._saved[0]  # a decorator changes nothing where it stands
        return super().__call__(function)

    def _recreate_cm(self) -> set_grad_enabled:
        return set_grad_enabled(self.enabled)

    def __enter__(self) -> set_grad_enabled:
        recording.grad = self.enabled
        return self

    def __exit__(self, *exception: Any) -> None:
        recording.grad = self._saved[0]


class _Mode(ContextDecorator):
    enabled = False

    def __init__(self) -> None:
        self._saved: list[bool] = []

    def _recreate_cm(self) -> _Mode:
        return type(self)()  # calls of a decorated function may overlap

    def __enter__(self) -> _Mode:
        self._saved.append(recording.grad)
        recording.grad = self.enabled
        return self

    def __exit__(self, *exception: Any) -> None:
        recording.grad = self._saved.pop()


class no_grad(_Mode):  # noqa: N801
    """What is recorded inside is a constant to every gradient: a context and a decorator."""


class enable_grad(_Mode):  # noqa: N801
    """Undoes an outer no_grad: a context and a decorator."""

    enabled = True


def is_grad_enabled() -> bool:
    """True outside `no_grad`."""
    return recording.grad
