"""Who comes next, where not all can come at once."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass
class Turns:
    """In memory: after a restart the order begins anew, with another one first (Python seeds `hash`)."""

    _last: dict[Hashable, int] = field(default_factory=dict)
    _round: int = 0

    def next(self, keys: Collection[K], limit: int) -> list[K]:
        """The `limit` of `keys` whose last turn was longest ago; those that are not there are forgotten."""
        self._round += 1
        chosen = sorted(keys, key=lambda key: (self._last.get(key, 0), hash(key)))[: max(0, limit)]
        kept: dict[Hashable, int] = {key: self._last[key] for key in keys if key in self._last}
        kept.update(dict.fromkeys(chosen, self._round))
        self._last = kept
        return chosen


@dataclass
class Looks:
    """Turns of those that have functions and of those that have none yet, to whom a quarter is kept."""

    deployed: Turns = field(default_factory=Turns)
    new: Turns = field(default_factory=Turns)

    def next(self, deployed: Collection[K], new: Collection[K], limit: int) -> list[K]:
        first = self.deployed.next(deployed, limit - min(limit // 4, len(new)))
        return [*first, *self.new.next(new, limit - len(first))]
