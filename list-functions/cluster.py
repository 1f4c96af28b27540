"""What list-functions reads: the gateway's functions, the stream of stage records, of-builder's logs.

It keeps nothing: what the gateway has of a log is what a page shows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone

from . import live, timelines
from .live import Live
from .sdk import naming, records, secrets
from .sdk.builder import Builder, Log
from .sdk.errors import CloudError, Unavailable
from .sdk.gateway import Gateway
from .sdk.records import Record
from .sdk.settings import Settings
from .timelines import Push

READERS_SECRET = "builder-readers"  # noqa: S105 - its name
# Whose records tell of a push.
TELLERS = ("gh-push", "git-tar", "buildshiprun", "garbage-collect")
READ_SECONDS, ALL_SECONDS = 5, 8
# Pages that look again by themselves may be many: they share what one of them has read.
FRESH_SECONDS = 2


@dataclass(frozen=True)
class Build:
    """The build of one function: where its image is, and what its records say if there is no log."""

    title: str
    repository: str
    tag: str = ""
    context: str = ""
    sha: str = ""
    said: str = ""
    lines: tuple[str, ...] = ()
    is_building: bool = False


@dataclass(frozen=True)
class Told:
    """The newest records, and why there are not all of them."""

    records: Sequence[Record] = ()
    problems: Sequence[str] = ()


@dataclass
class Stream:
    """The records as one reader after the other finds them."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read: float = float("-inf")
    _told: Told = Told()

    def read(self, settings: Settings) -> Told:
        with self._lock:
            if time.monotonic() - self._read > FRESH_SECONDS:
                self._told = _newest(Gateway.of(settings), settings)
                self._read = time.monotonic()
            return self._told


@dataclass(frozen=True)
class Cluster:
    """All of it that `owner` may see: `<scm>/<id>`, empty for everybody's."""

    settings: Settings
    owner: str
    stream: Stream = field(repr=False)

    def live(self) -> list[Live]:
        return live.owned(Gateway.of(self.settings).list(), self.owner)

    def pushes(self) -> list[Push]:
        return timelines.pushes(self.stream.read(self.settings).records, self.owner, time.time())

    def problems(self) -> Sequence[str]:
        return self.stream.read(self.settings).problems

    def deployed(self, service: str) -> Build | None:
        """The build of what is live under that name."""
        for each in self.live():
            if each.service == service:
                return Build(
                    service,
                    self._repository(each.path, each.function),
                    context=each.context,
                    sha=each.label("sha"),
                )
        return None

    def part(self, delivery: str, function: str) -> Build | None:
        """The build of a function of a push."""
        for push in self.pushes():
            for part in push.parts:
                if (push.delivery, part.function) == (delivery, function):
                    repository = self._repository(push.path, function)
                    return Build(
                        f"{push.owner}/{push.repo}: {function}",
                        repository,
                        tag=push.sha,
                        sha=push.sha,
                        said=": ".join(filter(None, (part.said, part.error))),
                        lines=part.log,
                        is_building=part.is_building,
                    )
        return None

    def log(self, build: Build) -> Log | None:
        keys = secrets.read(READERS_SECRET, self.settings.secret_mount_path)
        builder = Builder(self.settings.builder_url, keys)
        return builder.log(build.repository, tag=build.tag, context=build.context)

    def _repository(self, path: str, function: str) -> str:
        return naming.image_path(self.settings.push_repository_url, path, function)


def _newest(gateway: Gateway, settings: Settings) -> Told:
    """What the last lines of each of the functions' logs tell, read within `ALL_SECONDS`."""
    deadline = time.monotonic() + ALL_SECONDS
    since = datetime.fromtimestamp(time.time() - settings.pushes_age, timezone.utc).isoformat()
    tail = settings.pushes_lines

    def read(name: str) -> Told:
        newest: deque[Record] = deque(maxlen=tail)
        try:
            for line in gateway.logs(name, since, follow=False, read_seconds=READ_SECONDS, tail=tail):
                if record := records.parse(line):
                    newest.append(record)
                if time.monotonic() > deadline:
                    raise Unavailable(f"the log of {name} is long, and was not read to its end")
        except CloudError as error:
            return Told(newest, (error.message,))
        return Told(newest)

    with ThreadPoolExecutor(len(TELLERS)) as pool:
        told = list(pool.map(read, TELLERS))
    return Told(
        [record for each in told for record in each.records],
        [problem for each in told for problem in each.problems],
    )
