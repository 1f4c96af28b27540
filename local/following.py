"""The stage records of a cloud, from its functions' logs, which every OpenFaaS gateway hands out."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone

from sdk import records
from sdk.errors import CloudError
from sdk.gateway import Gateway
from sdk.records import Record

FUNCTIONS = ("gh-push", "git-tar", "buildshiprun", "garbage-collect", "reconcile")

# A stream that is silent for so long is opened anew.
STREAM_SECONDS = 20 * 60
AGAIN_SECONDS = 0.5
BEAT_SECONDS = 1.0
# A stream that was cut is read again from a little before its last record.
OVERLAP_SECONDS = 5
# A stream that ends sooner was none.
LIVED_SECONDS = 5
_READ_SECONDS = 60
_REMEMBERED = 10_000
_QUEUED = 10_000


def recorded(
    gateway: Gateway, since: float, wanted: Callable[[Record], bool]
) -> tuple[list[Record], list[str]]:
    """The wanted records from `since` on, by their time, and why a function's log can't be read."""
    found, problems = Seen(), list[str]()
    kept: list[Record] = []
    for name in FUNCTIONS:
        try:
            for text in gateway.logs(name, rfc3339(since), follow=False, read_seconds=_READ_SECONDS):
                record = records.parse(text)
                if record and wanted(record) and found.is_new(record):
                    kept.append(record)
        except CloudError as error:
            problems.append(f"{name}: {error.message}")
    return sorted(kept, key=lambda record: record.time), problems


class Follower:
    """The records of all stages from `started` on, as they come; and None every second, to look at the clock.

    It ends `seconds` after it began.
    """

    def __init__(
        self,
        gateway: Gateway,
        started: float,
        *,
        names: Sequence[str] = FUNCTIONS,
        seconds: float = float("inf"),
    ) -> None:
        self.gateway = gateway
        self.names = names
        self._found: queue.Queue[Record] = queue.Queue(_QUEUED)
        self._deadline = time.monotonic() + seconds
        self._failed: dict[str, float] = {}
        for name in names:
            threading.Thread(target=self._read, args=(name, started), daemon=True).start()

    def put(self, record: Record) -> None:
        """A record that is known otherwise."""
        self._found.put(record)

    def reads(self, name: str) -> bool:
        """Whether the log of `name` can be read just now."""
        return time.monotonic() - self._failed.get(name, float("-inf")) > 2 * LIVED_SECONDS

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._deadline

    def __iter__(self) -> Iterator[Record | None]:
        seen, beat = Seen(), time.monotonic() + BEAT_SECONDS
        while not self.is_over:
            with suppress(queue.Empty):
                record = self._found.get(timeout=max(0, beat - time.monotonic()))
                if seen.is_new(record):
                    yield record
            if time.monotonic() >= beat:
                yield None
                beat = time.monotonic() + BEAT_SECONDS

    def _read(self, name: str, since: float) -> None:
        while not self.is_over:
            begun = time.monotonic()
            with suppress(CloudError, OSError):  # the gateway restarts, or the function is not there yet
                lines = self.gateway.logs(name, rfc3339(since), follow=True, read_seconds=STREAM_SECONDS)
                for text in lines:
                    if record := records.parse(text):
                        since = max(since, record.time - OVERLAP_SECONDS)
                        self._found.put(record)
                begun = float("-inf")  # it ended as streams do
            if time.monotonic() - begun < LIVED_SECONDS:
                self._failed[name] = time.monotonic()
            time.sleep(AGAIN_SECONDS)


class Seen:
    """Which records came already: those of a stream that was cut come again."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def is_new(self, record: Record) -> bool:
        key = (record.at, record.delivery, record.stage, record.function, record.outcome, record.sha)
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)
        return True


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
