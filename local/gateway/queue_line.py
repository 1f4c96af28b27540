"""The calls of one function that are still to be made, by their ids: which one is next, and whose turn it is.

A function that works on a few calls at once tells the others that it is busy. Were all of them made again
whenever one has ended, nearly all would be told so again. So each end is one turn: of the oldest that was not
asked since an end. If that finds no room either, since another call of its repository is worked on, say, or
fails, the turn is the next one's, until one is taken or all have been asked. What one of a repository is
told, the others of it would be told, too: after an end one is asked for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass
class Try:
    """A call that is being made.

    `ended`: how many had ended when it began. `has_turn`: it has a turn, which it has not used yet.
    """

    id: int
    ended: int
    has_turn: bool


@dataclass(frozen=True)
class _Pause:
    """`asked`: how many had ended when it was last told to wait for its turn; None if it was not."""

    timer: asyncio.TimerHandle
    asked: int | None


class Line:
    """Each call is here once: it has a turn, waits for a worker, pauses, or is one of those worked on."""

    def __init__(self) -> None:
        self.working = 0
        self._ended = 0
        self._turns: deque[int] = deque()
        self._waiting: deque[int] = deque()
        self._pausing: dict[int, _Pause] = {}
        self._groups: dict[int, str] = {}

    def __len__(self) -> int:
        return self.working + len(self._turns) + len(self._waiting) + len(self._pausing)

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
        self.working += 1
        return Try(ready.popleft(), self._ended, has_turn)

    def has_room(self, made: Try) -> None:
        """It has ended, well or not, but not for want of room: there is some for another one."""
        self._ended += 1
        made.has_turn = False
        self._hand_on()

    def pause(self, number: int, timer: asyncio.TimerHandle, asked: int | None) -> None:
        self._pausing[number] = _Pause(timer, asked)

    def over(self, made: Try) -> None:
        """The try is over; if the call is not, it pauses already, and is one of those that are asked."""
        self.working -= 1
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
            self._groups.get(number) for number, pause in self._pausing.items() if pause.asked == self._ended
        }
        told.discard(None)
        due = (number for number in self._pausing if self._groups.get(number) not in told)
        oldest = min(filter(self._is_due, due), default=None)
        if oldest is not None:
            self._end_pause(oldest)
            self._turns.append(oldest)

    def _is_due(self, number: int) -> bool:
        """Whether it waits for its turn, and one has ended since it was last asked."""
        pause = self._pausing.get(number)
        return pause is not None and pause.asked is not None and pause.asked < self._ended

    def _end_pause(self, number: int) -> bool:
        pause = self._pausing.pop(number, None)
        if pause:
            pause.timer.cancel()
        return pause is not None
