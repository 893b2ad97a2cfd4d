"""Modules and parameters in lists and dicts."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from metaop import support

from ..module import Module
from ..parameter import Parameter


class _Numbered(Module):
    """Submodules in order, reached by position; their names are "0", "1", … unless given."""

    def _numbered(self) -> dict[str, Any]:
        """The table of submodules, which a trace of `mo.jit` is told of."""
        if support.recording.trace is not None:
            self._meet(support.recording.trace)
        return self._table("_modules")

    def _keys(self) -> list[str]:
        return list(self._numbered())

    def _key(self, position: int) -> str:
        keys, i = self._keys(), operator.index(position)
        if not -len(keys) <= i < len(keys):
            raise IndexError(
                f"{type(self).__name__}: position {i} is out of range for {len(keys)} modules"
            )
        return keys[i]

    def _rename(self, modules: Iterable[Module]) -> None:
        """Hold these modules and no others, numbered from 0."""
        numbered = {str(i): module for i, module in enumerate(modules)}
        table = self._table("_modules")
        table.clear()
        table.update(numbered)

    def __len__(self) -> int:
        return len(self._numbered())

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._numbered().values()))

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return self._sliced({key: getattr(self, key) for key in self._keys()[position]})
        return getattr(self, self._key(position))

    def _sliced(self, named: Mapping[str, Module]) -> Module:
        raise NotImplementedError

    def __setitem__(self, position: int, module: Module) -> None:
        self.register_module(self._key(position), module)

    def __delitem__(self, position: int | slice) -> None:
        keys = self._keys()
        dropped = set(keys[position] if isinstance(position, slice) else [self._key(position)])
        self._rename(getattr(self, key) for key in keys if key not in dropped)

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end; returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, position: int, module: Module) -> Any:
        """Put a module before `position`, renumbering those after it; returns self."""
        modules = list(self)
        modules.insert(position, module)
        self._rename(modules)
        return self


class Sequential(_Numbered):
    """`layers[-1](… layers[1](layers[0](x)))`.

    Takes the layers, or one mapping of names to layers.  `net[0]` and `net[1:3]` read by position.

    Source: as torch.nn.Sequential.
    """

    def __init__(self, *layers: Any):
        super().__init__()
        named = layers[0] if len(layers) == 1 and isinstance(layers[0], Mapping) else None
        pairs = named.items() if named is not None else enumerate(layers)
        for name, module in pairs:
            self.register_module(str(name), module)

    def _sliced(self, named: Mapping[str, Module]) -> Sequential:
        return Sequential(named)

    def forward(self, x: Any) -> Any:
        """x through every layer in turn."""
        for layer in self:
            x = layer(x)
        return x


class ModuleList(_Numbered):
    """A list of modules whose parameters belong to the module that holds it.

    Source: as torch.nn.ModuleList.
    """

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self.extend(modules)

    def _sliced(self, named: Mapping[str, Module]) -> ModuleList:
        return ModuleList(named.values())

    def __repr__(self) -> str:
        """Equal neighbours share a line: "(0-2): 3 x ReLU()"."""
        lines, first = [], 0
        for text, group in groupby(repr(module) for module in self):
            count = len(list(group))
            label = f"({first})" if count == 1 else f"({first}-{first + count - 1})"
            times = "" if count == 1 else f"{count} x "
            lines.append(f"{label}: {times}{text}".replace("\n", "\n  "))
            first += count
        return (
            f"{type(self).__name__}("
            + "".join(f"\n  {line}" for line in lines)
            + ("\n)" if lines else ")")
        )


class _Table(Module):
    """A table of modules or of parameters that belong to the module that holds it."""

    _kind = "_parameters"

    def _named(self) -> dict[str, Any]:
        """The table, which a trace of `mo.jit` is told of."""
        if support.recording.trace is not None:
            self._meet(support.recording.trace)
        return self._table(self._kind)

    def _put(self, key: str, value: Any) -> None:
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(key, parameter)

    def __len__(self) -> int:
        return len(self._named())


class _Dict(_Table):
    """The methods of a dict that is a table."""

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()):
        super().__init__()
        self.update(values)

    def __getitem__(self, key: str) -> Any:
        return self._named()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._put(key, value)

    def __delitem__(self, key: str) -> None:
        self._forget(self._kind, key)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._named()))

    def __contains__(self, key: object) -> bool:
        return key in self._named()

    def keys(self) -> list[str]:
        """The names."""
        return list(self._named())

    def values(self) -> list[Any]:
        """What has the names."""
        return list(self._named().values())

    def items(self) -> list[tuple[str, Any]]:
        """(name, value) in order."""
        return list(self._named().items())

    def update(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add values, in place of those of equal names."""
        for key, value in values.items() if isinstance(values, Mapping | _Dict) else values:
            self._put(key, value)

    def pop(self, key: str) -> Any:
        """Take a value out."""
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        """Take all values out."""
        for key in self.keys():
            del self[key]


class ModuleDict(_Dict):
    """A dict of modules whose parameters belong to the module that holds it.

    Source: as torch.nn.ModuleDict.
    """

    _kind = "_modules"

    def _put(self, key: str, value: Any) -> None:
        self.register_module(key, value)


class ParameterList(_Table):
    """A list of parameters.  Source: as torch.nn.ParameterList."""

    def __init__(self, values: Iterable[Any] = ()):
        super().__init__()
        self.extend(values)

    def _key(self, position: int) -> str:
        i, count = operator.index(position), len(self)
        if not -count <= i < count:
            raise IndexError(f"ParameterList: position {i} is out of range for {count} parameters")
        return str(i % count)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return ParameterList(list(self._named().values())[position])
        return self._named()[self._key(position)]

    def __setitem__(self, position: int, value: Any) -> None:
        self._put(self._key(position), value)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._named().values()))

    def append(self, value: Any) -> ParameterList:
        """Add a parameter, or an array as one, at the end; returns self."""
        self._put(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add parameters at the end; returns self."""
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        """The parameters' kinds, one a line."""
        return _kinds(self._named())


class ParameterDict(_Dict):
    """A dict of parameters.  Source: as torch.nn.ParameterDict."""

    def extra_repr(self) -> str:
        """The parameters' kinds, one a line."""
        return _kinds(self._named())


def _kinds(table: Mapping[str, Any]) -> str:
    return "\n".join(f"({k}): {support.describe(v)}" for k, v in table.items())
