"""What a run does, from its seed alone: pushes, deliveries and faults, round by round. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

_Key = TypeVar("_Key")

# How a function is broken on purpose: it dies at start, its folder is not there, or the name of its
# service is a canary's.
CRASH, MISSING, CLASH = "crash", "missing", "clash"
# How a stack.yml is broken on purpose.
NO_YAML, NO_FUNCTIONS = "no yaml", "no functions"

MOST_FUNCTIONS = 3
# Rounds of one kind between two verdicts; every other such segment is strict.
SEGMENT = 10


@dataclass(frozen=True)
class Repo:
    """`clashing`: names of functions whose services are canaries."""

    owner: str
    name: str
    names: Sequence[str]
    clashing: Sequence[str] = ()

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


def repos(prefix: str) -> tuple[Repo, ...]:
    """Three owners, one with two repositories and canaries that its names can meet."""
    return (
        Repo(f"{prefix}-a", "one", "fghi", ("x", "y")),
        Repo(f"{prefix}-a", "two", "pqrs"),
        Repo(f"{prefix}-b", "one", "fghi"),
        Repo(f"{prefix}-c", "one", "fghi"),
    )


@dataclass(frozen=True)
class Function:
    """`code` is in the handler, `version` in the environment: both are in the answer."""

    code: int
    version: int
    broken: str = ""


@dataclass(frozen=True)
class Commit:
    """A commit of a repository, numbered from 0; `broken` says how its stack.yml is."""

    number: int
    parent: int | None
    functions: Mapping[str, Function]
    broken: str = ""

    @property
    def is_good(self) -> bool:
        return not self.broken and not any(function.broken for function in self.functions.values())


@dataclass(frozen=True)
class Push:
    """The branch moves to `commit`, `at` seconds into the round.

    Its event is delivered that many seconds later as `events` says: once, more often, or never.
    """

    repo: Repo
    commit: Commit
    what: str
    at: float
    events: tuple[float, ...]


@dataclass(frozen=True)
class Fault:
    """`kind`: kill (of `count` replicas), disk, or what the proxy does to the next `count` calls `target`."""

    kind: str
    target: str
    at: float
    seconds: float = 0
    count: int = 1


@dataclass(frozen=True)
class Takeover:
    """A function is broken by a push; while it fails, the operator deploys something by that name."""

    repo: Repo
    function: str


@dataclass(frozen=True)
class Round:
    number: int
    strict: bool
    pushes: tuple[Push, ...]
    faults: tuple[Fault, ...]
    takeover: Takeover | None = None


# Weights: so many of each card are in a deck. A strict segment has no fault that leaves a shipment behind
# whose git-tar is gone: such a one may write late, and only the next pass repairs it. There, the state must
# be right before any pass.
_MOVES = {"change": 8, "set": 4, "add": 4, "remove": 3, "revert": 3, "back": 2, "fork": 2}
_BREAKS = {"": 24, CRASH: 2, MISSING: 1, CLASH: 2, NO_YAML: 1, NO_FUNCTIONS: 1}
_SHAPES = {"one": 6, "two": 5, "again": 4, "reversed": 2, "unheard": 2, "overtaken": 2, "takeover": 2}
_DELIVERIES = {"once": 10, "twice": 3, "late": 2, "dropped": 2}
_FAULTS: Mapping[tuple[str, str], int] = {
    ("kill", "gh-push"): 4,
    ("kill", "buildshiprun"): 7,
    ("kill", "garbage-collect"): 4,
    ("kill", "of-builder"): 6,
    ("kill", "registry"): 4,
    ("disk", "git-tar"): 3,
    ("disk", "of-builder"): 2,
    **{("delay", call): 1 for call in ("ship", "build", "deploy", "delete", "status", "list", "collect")},
    **{("cut", call): 1 for call in ("build", "image", "deploy", "status", "list", "collect")},
    **{("500", call): 1 for call in ("build", "deploy", "delete", "collect", "status")},
    **{("502 applied", call): 1 for call in ("build", "deploy", "delete", "collect", "queue")},
    **{("cut applied", call): 1 for call in ("build", "deploy", "delete", "collect", "queue")},
}
_LOOSE_FAULTS: Mapping[tuple[str, str], int] = {
    **_FAULTS,
    ("kill", "git-tar"): 12,
    ("kill", "gateway"): 8,
    ("cut", "ship"): 2,
    ("500", "ship"): 1,
    ("cut applied", "ship"): 2,
    ("502 applied", "ship"): 2,
    ("late", "deploy"): 2,
    ("late", "ship"): 2,
    ("late", "collect"): 2,
}
_ROUND_SECONDS = 2.5


class Deck(Generic[_Key]):
    """Draws by weight as from a shuffled deck, so that no seed goes long without one of the cards."""

    def __init__(self, seed: str, weights: Mapping[_Key, int]):
        self._dice, self._weights, self._cards = random.Random(seed), weights, list[_Key]()

    def draw(self) -> _Key:
        if not self._cards:
            self._cards = [key for key, weight in self._weights.items() for _ in range(weight)]
            self._dice.shuffle(self._cards)
        return self._cards.pop()


class Decks:
    """All that a run draws from."""

    def __init__(self, seed: int, known: Sequence[Repo]):
        self.shapes = Deck(f"{seed}/shapes", _SHAPES)
        self.deliveries = Deck(f"{seed}/deliveries", _DELIVERIES)
        self.moves = Deck(f"{seed}/moves", _MOVES)
        self.broken = {repo: Deck(f"{seed}/{repo.full_name}", _breaks(repo)) for repo in known}
        self.strict_faults = Deck(f"{seed}/strict", _FAULTS)
        self.loose_faults = Deck(f"{seed}/loose", _LOOSE_FAULTS)


def _breaks(repo: Repo) -> Mapping[str, int]:
    return {what: weight for what, weight in _BREAKS.items() if what != CLASH or repo.clashing}


def rounds(seed: int, number: int, known: Sequence[Repo]) -> Iterator[Round]:
    """The first `number` rounds of `seed`; more rounds begin with the same ones."""
    decks = Decks(seed, known)
    authors = [Author(repo, decks) for repo in known]
    for at in range(1, number + 1):
        yield _round(at, random.Random(f"{seed}/{at}"), decks, authors)


def _round(number: int, dice: random.Random, decks: Decks, authors: Sequence[Author]) -> Round:
    strict = (number - 1) // SEGMENT % 2 == 0
    # Before the verdict, so that no later event of the repository mends what is wrong.
    is_last = strict and number % SEGMENT == 0
    shape = "missed" if is_last else decks.shapes.draw()
    author, other = dice.sample(authors, 2)
    good = [each for each in authors if each.head.is_good]
    if shape == "takeover" and good:
        author = dice.choice(good)
        function = dice.choice(sorted(author.head.functions))
        push = Push(author.repo, author.breaks(function), "takeover", 0.0, (0.0,))
        slow = Fault("delay", "logs", 0, seconds=3, count=3)  # the rollback comes after the log is read
        return Round(number, strict, (push,), (slow,), Takeover(author.repo, function))
    if shape == "missed":
        faults = [Fault("delay", "build", 0, seconds=round(dice.uniform(5, 8), 1), count=2)]
    else:
        faults = [_fault(dice, decks, strict) for _ in range(dice.choice((1, 1, 1, 2)))]
    if shape == "overtaken":
        faults.append(Fault("delay", "build", 0, seconds=round(dice.uniform(2, 8), 1)))
    moved = (author, other) if is_last else (author,)
    pushes = [push for each in moved for push in _pushes(shape, dice, decks, each, other)]
    return Round(number, strict, tuple(pushes), tuple(faults))


def _pushes(shape: str, dice: random.Random, decks: Decks, author: Author, other: Author) -> Iterator[Push]:
    start = round(dice.uniform(0, 0.5), 2)
    if shape == "missed":  # the head moves while the commit before is built, and nobody is told
        yield author.push(dice, start, (0.0,), author.change)
        yield author.push(dice, round(start + dice.uniform(2, 4), 2), (), author.change)
        return
    if shape in ("again", "reversed", "unheard", "overtaken"):
        later = round(start + dice.uniform(0.3, 2.0), 2)
        first, second = {
            "again": (_delivery(dice, decks), _delivery(dice, decks)),
            "reversed": ((round(later - start + 1.0, 2),), (0.0,)),
            "unheard": ((0.0,), ()),
            "overtaken": ((0.0,), (0.0,)),
        }[shape]
        yield author.push(dice, start, first)
        yield author.push(dice, later, second)
        return
    yield author.push(dice, start, _delivery(dice, decks))
    if shape == "two":
        yield other.push(dice, round(start + dice.uniform(0, 0.2), 2), _delivery(dice, decks))


def _delivery(dice: random.Random, decks: Decks) -> tuple[float, ...]:
    kind = decks.deliveries.draw()
    soon = round(dice.uniform(0, 0.2), 2)
    if kind == "twice":
        return (soon, round(soon + dice.uniform(0, 3), 2))
    if kind == "late":
        return (round(dice.uniform(2, 6), 2),)
    return () if kind == "dropped" else (soon,)


def _fault(dice: random.Random, decks: Decks, strict: bool) -> Fault:
    kind, target = (decks.strict_faults if strict else decks.loose_faults).draw()
    at = round(dice.uniform(0.2, _ROUND_SECONDS), 2)
    if kind == "kill":
        return Fault(kind, target, at, count=dice.choice((1, 2)))
    seconds = {"delay": dice.uniform(0.5, 5), "disk": dice.uniform(0.5, 3), "late": dice.uniform(1, 6)}
    # The proxy's faults wait for their call, so they are set at the round's start.
    starts = at if kind == "disk" else 0
    return Fault(kind, target, starts, round(seconds.get(kind, 0), 1), dice.choice((1, 1, 2)))


@dataclass
class Author:
    """Who pushes to a repository, and what was pushed so far."""

    repo: Repo
    decks: Decks
    commits: list[Commit] = field(default_factory=list)
    position: int = 0
    contents: int = 0

    def __post_init__(self) -> None:
        self._commit({name: self._new() for name in self.repo.names[:2]}, None)

    @property
    def head(self) -> Commit:
        return self.commits[self.position]

    @property
    def change(self) -> str:
        """What leads to something new that works."""
        return "change" if self.head.is_good else "mend"

    def push(self, dice: random.Random, at: float, events: tuple[float, ...], what: str = "") -> Push:
        what = what or self._what(dice)
        return Push(self.repo, self._move(what, dice), what, at, events)

    def breaks(self, function: str) -> Commit:
        """The commit that breaks `function`, at its start."""
        broken = {**self.head.functions, function: self._new(CRASH)}
        return self._commit(broken, self.position)

    def _what(self, dice: random.Random) -> str:
        if not self.head.is_good and dice.random() < 0.6:
            return "mend"
        broken = self.decks.broken[self.repo].draw() if self.head.is_good else ""
        return broken or self.decks.moves.draw()

    def _move(self, what: str, dice: random.Random) -> Commit:
        """The new head; what can't be done is a change instead."""
        head, functions = self.head, dict(self.head.functions)
        there = sorted(functions)
        good = [commit for commit in self.commits[-8:] if commit.is_good and commit is not head]
        if what == "back" and good:
            self.position = dice.choice(good).number
            return self.head
        if what in ("revert", "fork") and good:
            older = dice.choice(good)
            if what == "fork":
                changed = {**older.functions, min(older.functions): self._new()}
                return self._commit(changed, older.number)
            return self._commit(older.functions, self.position)
        if what in (NO_YAML, NO_FUNCTIONS):
            return self._commit(functions, self.position, what)
        if what == "mend":
            functions = {name: self._mended(function) for name, function in functions.items()}
            functions = {name: functions[name] for name in functions if name not in self.repo.clashing}
        elif what == "add" and len(there) < MOST_FUNCTIONS:
            functions[dice.choice(sorted(set(self.repo.names) - set(there)))] = self._new()
        elif what == "remove" and len(set(there) - set(self.repo.clashing)) > 1:
            del functions[dice.choice(there)]
        elif what == "set":
            name = dice.choice(there)
            self.contents += 1
            functions[name] = replace(functions[name], version=self.contents)
        elif what == CLASH:
            functions[dice.choice(self.repo.clashing)] = self._new(CLASH)
        else:
            name = dice.choice(there)
            functions[name] = self._new(what if what in (CRASH, MISSING) else functions[name].broken)
        return self._commit(functions, self.position)

    def _mended(self, function: Function) -> Function:
        return self._new() if function.broken else function

    def _new(self, broken: str = "") -> Function:
        self.contents += 1
        return Function(self.contents, 0, broken)

    def _commit(self, functions: Mapping[str, Function], parent: int | None, broken: str = "") -> Commit:
        self.commits.append(Commit(len(self.commits), parent, dict(functions), broken))
        self.position = len(self.commits) - 1
        return self.head
