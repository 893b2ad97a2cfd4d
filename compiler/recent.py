"""Recent: what was used last, of things whose keys are large."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

FEWEST = 16  # items that are remembered however large they are


@dataclass
class _Item:
    """Something remembered: the size of its key, and when it was used last."""

    value: Any
    size: int
    used: int


class Recent:
    """A memory of items of certain sizes, which forgets what was not used for longest."""

    def __init__(self, limit: int):
        self.limit = limit
        self.total = 0
        self._items: dict[Any, _Item] = {}
        self._clock = itertools.count()

    def get(self, key: Any) -> Any:
        """The value of a key, None if it is not remembered."""
        item = self._items.get(key)
        if item is None:
            return None
        item.used = next(self._clock)
        return item.value

    def put(self, key: Any, value: Any, size: int) -> None:
        """Remembers a value, for which others may have to go."""
        self._items[key] = _Item(value, size, next(self._clock))
        self.total += size
        if self.total > self.limit and len(self._items) > FEWEST:
            by_use = sorted(self._items.items(), key=lambda pair: pair[1].used)
            for old, item in by_use[:-FEWEST]:
                del self._items[old]
                self.total -= item.size
                if 5 * self.total <= 4 * self.limit:
                    break

    def values(self) -> list[Any]:
        """Everything remembered."""
        return [item.value for item in self._items.values()]

    def clear(self) -> None:
        """Forgets everything."""
        self._items.clear()
        self.total = 0
