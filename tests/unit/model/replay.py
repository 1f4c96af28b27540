"""A worker that can be stopped, copied and taken up anywhere, although it is ordinary Python.

Our code is deterministic: what it asks the outside for next depends only on the answers it has had. So a
worker *is* its program and the list of its answers (a `Node`). To go on from there, the program is run again
from its beginning with those answers, until it asks for something that has no answer yet; that is found once
for each list and then remembered. No threads, no snapshots, and a state of the world is a plain value.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

LONG = 10_000.0  # seconds: longer than any deadline of ours


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    content: bytes = b""


@dataclass(frozen=True)
class Call:
    """A request to the gateway. `by`: whose repository's worker asks, for the model to judge.

    `over`: the tag of what it may write over, if the gateway has tags.
    """

    method: str
    path: str
    body: str = ""
    by: int = 0
    over: str = ""

    @property
    def reads(self) -> bool:
        return self.method == "GET"


@dataclass(frozen=True)
class Head:
    """The branch's head, at the repository's URL."""

    url: str


@dataclass(frozen=True)
class Locate:
    """Where the repository of an id is now, by the API."""

    repo_id: int


@dataclass(frozen=True)
class Build:
    content: str


@dataclass(frozen=True)
class Sleep:
    """A pause between two looks: it ends with True once the look would show something else, or, where nothing
    will change by itself, with False when the caller's time is over."""


@dataclass(frozen=True)
class Invoke:
    """Calls of other functions at the same time; the answers are a tuple of `Reply`."""

    programs: tuple[Program, ...]


@dataclass(frozen=True)
class Acknowledge:
    """Only planted bugs ask for this: the queue may forget the job before it has ended."""


Request = Call | Head | Locate | Build | Sleep | Invoke | Acknowledge


class Program(Protocol):
    """What a worker does; a frozen dataclass."""

    @property
    def name(self) -> str:
        """Unique among the workers of a schedule."""

    @property
    def key(self) -> Hashable:
        """What the worker holds alone in its process (sdk/slots.py), None if nothing."""

    def run(self, outside: Outside) -> Reply: ...


class Stop(BaseException):
    """Ends a run at the first question without an answer. Our code catches only `Exception`."""


class Outside:
    """One run of a program: gives the answers that are known, and notes the first that is missing."""

    current: Outside

    def __init__(self, program: Program, answers: tuple[Any, ...]) -> None:
        self._answers = answers
        self._given = 0
        self._name = program.name
        self._nonces = 0
        self._clock = 0.0
        self.calls = 0
        self.missing: Request | None = None
        self.look: tuple[Call, Reply] | None = None
        self.fresh = False

    def ask(self, request: Request) -> Any:
        if self.missing is not None:  # a `finally` on the way out
            raise Stop
        if self._given == len(self._answers):
            self.missing = request
            raise Stop
        answer = self._answers[self._given]
        self._given += 1
        self.fresh = isinstance(request, Call) and request.reads
        if isinstance(request, Call) and request.reads:
            self.look = request, answer
        return answer

    def sleep(self, seconds: float) -> None:
        self._clock += seconds if self.ask(Sleep()) else LONG

    def monotonic(self) -> float:
        return self._clock

    def nonce(self) -> str:
        self._nonces += 1
        return f"{self._name}/{self._nonces}"

    def invoked(self) -> int:
        """A number for each call of another function, so that workers and nonces have names of their own."""
        self.calls += 1
        return self.calls


class Node:
    """A worker at one point. `request` is what it asks for next; `outcome`, if not None, how it has ended.

    `look` is the last GET and what it showed, `fresh` whether nothing else was asked since.

    Nodes are made once for each list of answers, so that they can be compared by identity.
    """

    __slots__ = ("_next", "answers", "fresh", "look", "outcome", "program", "request")

    def __init__(self, program: Program, answers: tuple[Any, ...] = ()) -> None:
        self.program, self.answers = program, answers
        self._next: dict[Any, Node] = {}
        self.outcome: Reply | None = None
        outside = Outside.current = Outside(program, answers)
        with suppress(Stop):
            self.outcome = program.run(outside)
        self.request = outside.missing
        self.look, self.fresh = outside.look, outside.fresh

    def after(self, answer: Any) -> Node:
        node = self._next.get(answer)
        if node is None:
            node = self._next[answer] = Node(self.program, (*self.answers, answer))
        return node

    @property
    def started(self) -> bool:
        return bool(self.answers)
