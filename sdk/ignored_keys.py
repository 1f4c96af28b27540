"""Keys of stack.yml that nobody reads: they are left alone, as by faas-cli, and told. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from difflib import get_close_matches

_MOST = 20
_LONGEST = 60


@dataclass
class IgnoredKeys:
    """Takes what is found; a file may hold many, so the first few are told and the rest counted."""

    _told: list[str] = field(default_factory=list)
    _more: int = 0

    def add(self, path: str, key: str, known: Collection[str]) -> None:
        """`key` stands below `path` (empty at the top), where `known` are read."""
        if key.startswith("x-"):  # says itself that it is nobody's: a place for anchors
            return
        if len(self._told) == _MOST:
            self._more += 1
            return
        place = f"{path}.{key[:_LONGEST]}".lstrip(".")
        near = get_close_matches(key[:_LONGEST].lower(), known, 1)
        said = f": did you mean {near[0]}?" if near else ": nothing reads such a key"
        self._told.append(f"{place} is ignored{said}")

    def lines(self) -> tuple[str, ...]:
        return (*self._told, *([f"{self._more} more keys are ignored"] if self._more else ()))
