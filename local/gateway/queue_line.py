"""The calls of one function that are still to be made, by their ids: which one is next, and whose turn it is.

A function that works on a few calls at once tells the others that it is busy. Were all of them made again
whenever one has ended, nearly all would be told so again. So a call is due again once one that was being
made beside it has ended, and each end is one turn: of the oldest that is due. If that finds no room either,
since another call of its repository is worked on, say, or fails, the turn is the next one's, until one is
taken or all have been asked. What one of a repository is told, the others of it would be told, too: one is
asked for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass
class Try:
    """A call that is being made, or was.

    `beside`: the tries that were made at the same time, by their numbers. `is_due`: one of them has ended, so
    that another answer may come. `has_turn`: it has a turn, which it has not used yet.
    """

    id: int
    number: int = 0
    beside: set[int] = field(default_factory=set)
    has_turn: bool = False
    is_due: bool = False

    def see_end(self, number: int) -> None:
        """If there was none beside it, what it waits for is none of ours, and any end may be the one."""
        self.is_due = self.is_due or number in self.beside or not self.beside


@dataclass(frozen=True)
class _Pause:
    """`told`: the try that was told to wait for its turn; None if it was not."""

    timer: asyncio.TimerHandle
    told: Try | None


class Line:
    """Each call is here once: it has a turn, waits for a worker, pauses, or is one of those worked on."""

    def __init__(self) -> None:
        self._tries = 0
        self._made: dict[int, Try] = {}
        self._turns: deque[int] = deque()
        self._waiting: deque[int] = deque()
        self._pausing: dict[int, _Pause] = {}
        self._groups: dict[int, str] = {}

    def __len__(self) -> int:
        return self.working + len(self._turns) + len(self._waiting) + len(self._pausing)

    @property
    def working(self) -> int:
        return len(self._made)

    def add(self, number: int, group: str = "") -> None:
        """A call that is to be made; `group` is the repository that it is about, if it is known."""
        self._waiting.append(number)
        if group:
            self._groups[number] = group

    def take(self) -> Try | None:
        """The next one to be made; those that have a turn come before those that were never asked."""
        has_turn = bool(self._turns)
        ready = self._turns or self._waiting
        if not ready:
            return None
        self._tries += 1
        for other in self._made.values():
            if not other.is_due:
                other.beside.add(self._tries)
        made = Try(ready.popleft(), self._tries, set(self._made), has_turn)
        self._made[made.number] = made
        return made

    def has_room(self, made: Try) -> None:
        """It has ended, well or not, but not for want of room: there is some for another one."""
        for other in self._made.values():
            other.see_end(made.number)
        for pause in self._pausing.values():
            if pause.told:
                pause.told.see_end(made.number)
        made.has_turn = False
        self._hand_on()

    def pause(self, number: int, timer: asyncio.TimerHandle, told: Try | None) -> None:
        self._pausing[number] = _Pause(timer, told)

    def over(self, made: Try) -> None:
        """The try is over; if the call is not, it pauses already, and is one of those that are asked."""
        del self._made[made.number]
        for other in self._made.values():  # of long ones, which many come and go beside
            other.beside.discard(made.number)
        if made.id not in self._pausing:
            self._groups.pop(made.id, None)
        if made.has_turn:
            self._hand_on()
        elif self._is_due(made.id):  # an end while it was asked, which may have found nobody
            self._end_pause(made.id)
            self._waiting.appendleft(made.id)

    def resume(self, number: int) -> None:
        """End the pause of a call, if it is in one."""
        if self._end_pause(number):
            self._waiting.append(number)

    def leave(self, number: int) -> bool:
        """Forget a call that is not worked on, whose turn is then the next one's; whether it was here."""
        self._groups.pop(number, None)
        if number in self._turns:
            self._turns.remove(number)
            self._hand_on()
        elif number in self._waiting:
            self._waiting.remove(number)
        else:
            return self._end_pause(number)
        return True

    def close(self) -> None:
        for number in list(self._pausing):
            self._end_pause(number)

    def _hand_on(self) -> None:
        told = {
            self._groups.get(number)
            for number, pause in self._pausing.items()
            if pause.told and not pause.told.is_due
        }
        told.discard(None)
        due = (number for number in self._pausing if self._groups.get(number) not in told)
        oldest = min(filter(self._is_due, due), default=None)
        if oldest is not None:
            self._end_pause(oldest)
            self._turns.append(oldest)

    def _is_due(self, number: int) -> bool:
        pause = self._pausing.get(number)
        return pause is not None and pause.told is not None and pause.told.is_due

    def _end_pause(self, number: int) -> bool:
        pause = self._pausing.pop(number, None)
        if pause:
            pause.timer.cancel()
        return pause is not None
