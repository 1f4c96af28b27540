"""Several checks of one thing: all that is wrong with it is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import CloudError, Failed, Refused, TooLarge

_MOST = 20


class Problems:
    """Takes what an author has to mend; any other error passes, as it is no word on the author's files."""

    def __init__(self) -> None:
        self.found: list[CloudError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Run one check. After `TooLarge` no other is run: what is bounded ends there."""
        try:
            yield
        except (Refused, Failed) as error:
            self.found.append(error)
        except TooLarge as error:
            self.found.append(error)
            self.tell()

    def tell(self) -> None:
        """Raise what was found as one error, of the first one's class; nothing if all is well."""
        if self.found:
            told = list(dict.fromkeys(error.message for error in self.found))
            more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
            raise type(self.found[0])("; ".join((*told[:_MOST], *more)))
