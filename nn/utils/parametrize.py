"""Parameters computed from others whenever they are read.

    parametrize.register_parametrization(layer, "weight", Symmetric())

`layer.weight` is then `Symmetric()(layer.parametrizations.weight.original)`: what is trained and
saved is the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metaop import Var, errors

from ..hints import refuse
from ..layers.container import ModuleDict
from ..module import Module
from ..parameter import Parameter

# What torch.nn.utils.weight_norm and spectral_norm named what is kept here.
OLD_NAMES = {
    "_g": "original0", "_v": "original1", "_orig": "original", "_u": "0._u",
}  # fmt: skip
OLD_NAMES_OF_SPECTRAL_NORM = {**OLD_NAMES, "_v": "0._v"}


class ParametrizationList(Module):
    """The originals of one parameter, and the modules "0", "1", … that make it of them in turn.

    The first is called with all originals, each other one with the result of the one before.
    """

    _makes_parameter = True

    def __init__(self, first: Module, originals: dict[str, Var]):
        super().__init__()
        for name, value in originals.items():
            if isinstance(value, Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)
        self.register_module("0", first)

    def originals(self) -> list[Var]:
        """What the parameter is computed from."""
        own = {**self._table("_parameters"), **self._table("_buffers")}
        return list(own.values())

    def append(self, parametrization: Module) -> None:
        """One more module, behind the others."""
        self.register_module(str(len(self._table("_modules"))), parametrization)

    def forward(self) -> Var:
        """The parameter."""
        first, *others = self.children()
        value: Var = first(*self.originals())
        for parametrization in others:
            value = parametrization(value)
        return value

    def _adapt(self, state: dict[str, Any], prefix: str) -> None:
        owner, _, name = prefix.removesuffix(".").rpartition("parametrizations.")
        is_spectral = f"{owner}{name}_orig" in state
        for old, new in (OLD_NAMES_OF_SPECTRAL_NORM if is_spectral else OLD_NAMES).items():
            if f"{owner}{name}{old}" in state:
                state[f"{prefix}{new}"] = state.pop(f"{owner}{name}{old}")


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, unsafe: bool = False
) -> Module:
    """Makes a parameter or buffer of a module one that parametrization computes; the module.

    If parametrization has a method `right_inverse`, the originals are what that makes of the value
    now: a Var, or several, which forward then takes.  A second parametrization takes what the first
    one made.

    Raises: ValueError for another name, or, unless unsafe, where the result would have another
    shape or dtype.  Source: as torch.nn.utils.parametrize.register_parametrization.
    """
    if is_parametrized(module, tensor_name):
        made = module.parametrizations[tensor_name]
        if not unsafe:
            _check(parametrization(made()), made(), tensor_name)
        made.append(parametrization)
        return module
    value = {**module._table("_parameters"), **module._table("_buffers")}.get(tensor_name)
    if value is None:
        raise ValueError(
            f"register_parametrization: {type(module).__name__} has no parameter or buffer "
            f"{tensor_name!r}"
        )
    made = ParametrizationList(parametrization, _originals(value, parametrization))
    if not unsafe:
        _check(made(), value, tensor_name)
    if not is_parametrized(module):
        module.register_module("parametrizations", ModuleDict())
    delattr(module, tensor_name)
    module.parametrizations[tensor_name] = made
    return module


def _originals(value: Var, parametrization: Module) -> dict[str, Var]:
    if not hasattr(parametrization, "right_inverse"):
        return {"original": value}
    inverse = parametrization.right_inverse(value.detach())
    several = isinstance(inverse, list | tuple)
    kind: Any = Parameter if isinstance(value, Parameter) else Var
    found = {
        f"original{k}" if several else "original": kind(part.detach())
        for k, part in enumerate(inverse if several else [inverse])
    }
    for part in found.values():
        part.requires_grad = value.requires_grad
    return found


def _check(made: Var, value: Var, name: str) -> None:
    if made.shape != value.shape or made.dtype is not value.dtype:
        raise ValueError(
            f"register_parametrization: {name} is {errors.describe(value)} and would be "
            f"{errors.describe(made)}; unsafe=True allows it"
        )


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a parameter of the module, or any, is computed from others."""
    made: Mapping[str, Any] | None = module._table("_modules").get("parametrizations")
    if made is None:
        return False
    return tensor_name in made if tensor_name is not None else len(made) > 0


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Makes a parameter one of the module's own again, with its value now; the module.

    With leave_parametrized=False it has the value of its original, of which there must be one.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"remove_parametrizations: {tensor_name!r} has no parametrization")
    made = module.parametrizations[tensor_name]
    originals = made.originals()
    if not leave_parametrized and len(originals) > 1:
        raise ValueError(
            f"remove_parametrizations: {tensor_name!r} has {len(originals)} originals, none of "
            "which is its value; leave_parametrized must be True"
        )
    value = made() if leave_parametrized else originals[0]
    module.parametrizations.pop(tensor_name)
    if not len(module.parametrizations):
        del module.parametrizations
    if isinstance(originals[0], Parameter):
        module.register_parameter(
            tensor_name, Parameter(value.detach(), requires_grad=originals[0].requires_grad)
        )
    else:
        module.register_buffer(tensor_name, value.detach())
    return module


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
