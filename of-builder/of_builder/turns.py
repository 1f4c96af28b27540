"""Whose build comes next: the owners take turns, and within an owner's builds the first come first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager


class Ticket:
    """A build that waits or runs."""

    def __init__(self, owner: str) -> None:
        self.owner = owner


class Turns:
    """At most `parallel` builds at once; who has many waiting does not keep others waiting for all."""

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self.running: list[Ticket] = []
        self.waiting: list[Ticket] = []
        self._started: dict[str, int] = {}  # of owners with builds: when one of theirs was started last
        self._starts = 0
        self._moved = asyncio.Event()

    @contextmanager
    def ticket(self, owner: str) -> Iterator[Ticket]:
        """A place in the queue, until it is left; waiting for the turn is `ahead`."""
        ticket = Ticket(owner)
        self.waiting.append(ticket)
        self._move()
        try:
            yield ticket
        finally:
            (self.running if ticket in self.running else self.waiting).remove(ticket)
            self._move()

    async def ahead(self, ticket: Ticket) -> AsyncIterator[int]:
        """How many builds are ahead, each time that it changes; ends when it is the ticket's turn."""
        told = -1
        while ticket not in self.running:
            ahead = len(self.running) + self._order().index(ticket)
            if ahead != told:
                told = ahead
                yield ahead
            else:
                await self._moved.wait()

    def _order(self) -> list[Ticket]:
        """Those that wait: by how many of their owner come before, then by whose turn was longest ago."""
        before = Counter(ticket.owner for ticket in self.running)
        places = {}
        for ticket in self.waiting:
            places[ticket] = (before[ticket.owner], self._started.get(ticket.owner, 0))
            before[ticket.owner] += 1
        return sorted(self.waiting, key=places.__getitem__)

    def _move(self) -> None:
        while self.waiting and len(self.running) < self.parallel:
            following = self._order()[0]
            self.waiting.remove(following)
            self.running.append(following)
            self._starts += 1
            self._started[following.owner] = self._starts
        there = {ticket.owner for ticket in (*self.running, *self.waiting)}
        self._started = {owner: at for owner, at in self._started.items() if owner in there}
        self._moved.set()
        self._moved = asyncio.Event()
