"""Prometheus metrics of the pushes, from the stage records: an exporter that follows any gateway's logs.

No function keeps counters of its own: there may be several replicas of each, and nobody scrapes through a
gateway. Labels are words of ours only, never a name or a commit.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import click
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from sdk.records import QUEUE_STAGE, Record

from . import place
from .errors import CommandError
from .following import FUNCTIONS, Follower

V = TypeVar("V")

STAGES = (
    QUEUE_STAGE,
    "fetch",
    "shrinkwrap",
    "check",
    "build",
    "deploy",
    "collect",
    "push",
    "leave",
    "reconcile",
)
OUTCOMES = ("ok", "unchanged", "failed", "refused", "superseded", "skipped", "retry")
OTHER = "other"
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200)

# What is known of pushes, at most; and how long, for some never end.
PUSHES = 10_000
WAIT_SECONDS = 24 * 3600
WORK_SECONDS = 3600
BUILD_SECONDS = 15 * 60


@dataclass
class Underway:
    """A push that has not ended: `received`, if by gh-push; `begun` by git-tar; `building`, since when."""

    last: float
    received: float | None = None
    begun: bool = False
    building: dict[str, float] = field(default_factory=dict)

    def is_known(self, now: float) -> bool:
        return now - self.last < (WORK_SECONDS if self.begun else WAIT_SECONDS)


class Meter:
    """What the records add up to, from its start on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._underway: OrderedDict[str, Underway] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()
        self.pushes = self._counter("pushes", "Pushes that ended, by how", "outcome")
        self.stages = self._counter(
            "stages", "Stages that ended, by how; retry: it is tried again", "stage", "outcome"
        )
        self.stage_seconds = self._histogram("stage_seconds", "Seconds of each stage", "stage")
        self.push_seconds = self._histogram("push_seconds", "Seconds from GitHub's event to the push's end")
        self.queue_seconds = self._histogram(
            "queue_seconds", "Seconds from GitHub's event to the fetched commit"
        )
        self.readable = Gauge(
            "openfaas_cloud_log_readable",
            "Whether the function's log can be read",
            ["function"],
            registry=self.registry,
        )
        # All of them from the start: an increase from nothing to 1 is none to Prometheus.
        for stage in STAGES:
            self.stage_seconds.labels(stage)
            for outcome in OUTCOMES:
                self.stages.labels(stage, outcome)
        for outcome in OUTCOMES:
            self.pushes.labels(outcome)
        for name, meaning, read in (
            ("queue_age_seconds", "Age of the oldest push that git-tar has not begun", self._queue_age),
            ("pushes_waiting", "Pushes that git-tar has not begun", lambda: len(self._waiting())),
            ("pushes_running", "Pushes that git-tar works on", self._running),
            ("builds_running", "Functions whose image is built, or looked for", self._building),
        ):
            Gauge(f"openfaas_cloud_{name}", meaning, registry=self.registry).set_function(read)

    def take(self, record: Record) -> None:
        if record.stage == QUEUE_STAGE and not record.is_received:
            return  # a function waits for its turn: nothing has ended
        stage = record.stage if record.stage in STAGES else OTHER
        outcome = record.outcome if record.outcome in OUTCOMES else OTHER
        self.stages.labels(stage, outcome).inc()
        if record.stage != "push":
            self.stage_seconds.labels(stage).observe(record.seconds)
        if record.ends:
            self.pushes.labels(outcome).inc()
        with self._lock:
            self._note(record)

    def _note(self, record: Record) -> None:
        """The records of one push come from several logs, not always in order."""
        if record.ends:
            push = self._underway.pop(record.delivery, None)
            if push and push.received is not None:
                self.push_seconds.observe(max(0, record.time - push.received))
            _keep(self._ended, record.delivery, record.time)
            return
        if not record.repo or record.time <= self._ended.get(record.delivery, 0):
            return  # it is nobody's push, or late
        if record.is_received and record.outcome != "ok":
            return  # GitHub was told so
        if record.delivery not in self._underway:
            _keep(self._underway, record.delivery, Underway(record.time))
        push = self._underway[record.delivery]
        push.last = max(push.last, record.time)
        if record.is_received:
            push.received = record.time
        elif record.stage == "push":  # it waits for its turn, or for what is unavailable
            push.begun = False
            push.building.clear()
        else:
            if not push.begun and record.stage == "fetch" and push.received is not None:
                self.queue_seconds.observe(max(0, record.time - push.received))
            push.begun = True
        if (record.stage, record.outcome) == ("check", "ok"):
            push.building[record.function] = record.time
        elif record.stage in ("build", "deploy"):
            push.building.pop(record.function, None)

    def _known(self) -> list[Underway]:
        now = time.time()
        with self._lock:
            return [
                replace(push, building=dict(push.building))
                for push in self._underway.values()
                if push.is_known(now)
            ]

    def _waiting(self) -> list[float]:
        """Since when."""
        return [push.received for push in self._known() if not push.begun and push.received is not None]

    def _running(self) -> float:
        return sum(push.begun for push in self._known())

    def _queue_age(self) -> float:
        return max([0.0, *(time.time() - received for received in self._waiting())])

    def _building(self) -> float:
        now = time.time()
        return sum(now - at < BUILD_SECONDS for push in self._known() for at in push.building.values())

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"openfaas_cloud_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(f"openfaas_cloud_{name}", meaning, labels, buckets=_SECONDS, registry=self.registry)


@click.command("metrics")
@place.options
@click.option("--listen", default="127.0.0.1:9400", show_default=True, metavar="HOST:PORT")
def command(url: str | None, username: str, password_file: Path | None, listen: str) -> None:
    """Serve Prometheus metrics of the pushes, until Ctrl-C. They count from the start of this command."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.UsageError("--listen takes HOST:PORT, as 127.0.0.1:9400")
    gateway = place.known(url, username, password_file)
    meter = Meter()
    try:
        server, _thread = start_http_server(int(port), host.strip("[]"), meter.registry)
    except OSError as error:
        raise CommandError(f"--listen {listen}: {error.strerror}") from None
    click.echo(f"metrics of {gateway.url} at http://{host}:{server.server_port}/metrics", err=True)
    with suppress(KeyboardInterrupt):
        follow(Follower(gateway, time.time()), meter)


def _keep(rows: OrderedDict[str, V], key: str, value: V) -> None:
    """Put it last; the oldest makes room."""
    rows.pop(key, None)
    rows[key] = value
    if len(rows) > PUSHES:
        rows.popitem(last=False)


def follow(follower: Follower, meter: Meter) -> None:
    for record in follower:
        if record:
            meter.take(record)
        else:
            for name in FUNCTIONS:
                meter.readable.labels(name).set(follower.reads(name))
