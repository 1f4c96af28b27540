"""What is watched all the time: the stage records, calls of functions that nobody changes, the canaries."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone

import docker
import requests

from local.gitserver.deliver import FOLLOWED
from local.state import State
from sdk import records
from sdk.errors import CloudError
from sdk.records import Record

from . import quiet
from .nemesis import Nemesis
from .platform import COUNTED, Api

_PAUSE_SECONDS = 0.25
_CALL_SECONDS = 10
_AGAIN_SECONDS = 0.3


class Records:
    """Every stage record from now on."""

    def __init__(self, state: State) -> None:
        self._found: list[Record] = []
        self._state = state
        self._since = datetime.now(timezone.utc).isoformat()
        for name in FOLLOWED:
            threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def of(self, repo: str, since: float = 0) -> list[Record]:
        """The records of the repository OWNER/NAME, oldest first."""
        mine = [row for row in self._found if f"{row.owner}/{row.repo}" == repo and row.time >= since]
        return sorted(mine, key=lambda row: row.time)

    def _read(self, name: str) -> None:
        seen: set[str] = set()
        while True:  # a stream that is cut is read again from its start
            with suppress(CloudError, OSError):
                for text in self._state.gateway.logs(name, self._since, follow=True, read_seconds=600):
                    record = records.parse(text)
                    if record and text not in seen:
                        seen.add(text)
                        self._found.append(record)
            time.sleep(_AGAIN_SECONDS)


@dataclass
class Caller:
    """Calls functions whose answers are known: `steady` by name, changed while it runs."""

    state: State
    nemesis: Nemesis
    steady: Mapping[str, str]
    calls: int = 0
    excused: int = 0
    failed: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self, names: Collection[str]) -> None:
        """Somebody is about to change these."""
        with self._lock:
            self.steady = {name: right for name, right in self.steady.items() if name not in names}

    def start(self) -> None:
        for at in range(2):
            threading.Thread(target=self._loop, args=(at,), daemon=True).start()

    def stop(self) -> None:
        self._end.set()

    def _loop(self, number: int) -> None:
        with requests.Session() as session:
            while not self._end.wait(_PAUSE_SECONDS):
                steady = sorted(self.steady.items())
                if steady:
                    name, right = steady[(self.calls + number) % len(steady)]
                    self._one(session, name, right)

    def _one(self, session: requests.Session, name: str, right: str) -> None:
        begun, told = time.time(), ""
        try:
            found = session.get(f"{self.state.gateway_url}/function/{name}", timeout=_CALL_SECONDS)
            if (found.status_code, found.text) != (200, right):
                told = f"{found.status_code} {found.text[:100]!r} instead of {right!r}"
        except requests.RequestException as error:
            told = repr(error)
        self.calls += 1
        if not told or self.steady.get(name) != right:  # the plan changes it just now
            return
        if self.nemesis.excused(begun, time.time()):
            self.excused += 1
        else:
            self.failed.append(f"{time.strftime('%H:%M:%S')} {name}: {told}")


@dataclass
class Canaries:
    """Functions that nobody may touch: what the gateway and Swarm say of each, by name."""

    state: State
    engine: docker.DockerClient
    seen: dict[str, tuple[object, object]] = field(default_factory=dict)

    def add(self, *names: str) -> None:
        self.seen.update({name: self._look(name) for name in names})

    def forget(self, name: str) -> None:
        self.seen.pop(name, None)

    def touched(self) -> Iterator[str]:
        """Each canary that is not as it was; it is then taken as it is now."""
        for name, before in list(self.seen.items()):
            now = self._look(name)
            if now != before:
                self.seen[name] = now
                yield f"{name} was written to: it was {before}, it is {now}"

    def _look(self, name: str) -> tuple[object, object]:
        status = Api(self.state).status(name) or {}
        said = {key: row for key, row in status.items() if key not in COUNTED}
        return said, quiet.generations(self.engine, name).get(name)
