"""Sequential and ModuleList: numbered submodules."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from metaop import support

from ..module import Module


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
