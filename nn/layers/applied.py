"""Applied: a layer that is a function with some of its arguments fixed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import metaop as mo

from ..module import Module


class Applied(Module):
    """`function(*inputs, **arguments)`; the constructor takes the arguments behind the inputs.

    A subclass names the function, and how many inputs it has.  `saved` are the arguments that are
    buffers of the module, `hidden` those that the layer itself gives, `defaults` its own defaults.

        class Hardshrink(Applied):
            function = staticmethod(functional.hardshrink)

        Hardshrink(lambd=0.3)(x)        # functional.hardshrink(x, lambd=0.3)
    """

    function: Callable[..., Any]
    inputs = 1
    saved: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ("training",)
    defaults: dict[str, Any] = {}
    _arguments: inspect.Signature

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the function's signature: what follows the inputs is the constructor's."""
        super().__init_subclass__(**kwargs)
        if "function" not in vars(cls):
            return
        parameters = list(inspect.signature(cls.function).parameters.values())[cls.inputs :]
        kept = [p for p in parameters if p.name not in cls.hidden]
        cls._arguments = inspect.Signature(
            [p.replace(default=cls.defaults.get(p.name, p.default)) for p in kept]
        )
        cls.__signature__ = cls._arguments  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **options: Any):
        super().__init__()
        try:
            bound = self._arguments.bind(*args, **options)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}{self._arguments}: {error}") from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name in self.saved:
                self.register_buffer(name, None if value is None else mo.asarray(value))
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        """The function of the inputs and the arguments."""
        if len(inputs) != self.inputs:
            raise TypeError(f"{type(self).__name__} takes {self.inputs} Vars, got {len(inputs)}")
        return type(self).function(*inputs, **self._given())

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._arguments.parameters}

    def extra_repr(self) -> str:
        """The constructor's arguments, those at their default left out."""
        shown = {
            name: getattr(self, name)
            for name, p in self._arguments.parameters.items()
            if name not in self.saved and name != "inplace"
        }
        return ", ".join(
            f"{name}={value!r}"
            for name, value in shown.items()
            if value != self._arguments.parameters[name].default
        )
