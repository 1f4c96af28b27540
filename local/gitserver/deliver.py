"""Sends the event of a push to gh-push, and shows what becomes of it until it has ended."""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from sdk import messages, records, secrets
from sdk.errors import CloudError
from sdk.gateway import Gateway
from sdk.records import Record
from sdk.settings import Settings

from ..calls import FAILED, Queue
from ..timeline import Timeline, verdict
from . import event
from .event import Update
from .repository import ROOT, BareRepository

FOLLOWED = ("git-tar", "buildshiprun", "garbage-collect")
ANSWER_SECONDS = 15
FOLLOW_SECONDS = 20 * 60
AGAIN_SECONDS = 0.5
QUEUE_SECONDS = 5


def deliver(repository: BareRepository, update: Update, settings: Settings, public_url: str) -> str:
    """Deliver and follow; returns why the push failed, empty if it did not."""
    started = time.time()
    gateway = Gateway.of(settings)
    keys = secrets.read("github-webhook-secret", settings.secret_mount_path)
    body, headers = event.signed(event.payload(repository, update, public_url=public_url), keys)
    say(f"{repository.owner}/{repository.name} at {update.after[:10]}")
    try:
        follower = follow(gateway, started, headers["X-GitHub-Delivery"])
        answer = messages.decode(gateway.invoke("gh-push", body, headers, ANSWER_SECONDS), dict[str, object])
    except CloudError as error:
        return f"gh-push did not take the event: {error.message}"
    if "ignored" in answer:
        say(f"ignored: {answer['ignored']}")
        return ""
    timeline, delivery = Timeline(started), headers["X-GitHub-Delivery"]
    before: tuple[str, ...] = ()
    say(f"{time.time() - started:6.1f} s  {'gh-push':<16} queued")
    for record in follower:
        # Another delivery's run may take this commit along, but not one that ended before.
        taken_along = record.sha == update.after and record.time >= started
        if not taken_along and record.delivery != delivery:
            continue
        told = (record.function, record.stage, record.outcome, record.error)
        if told != before:  # a push that waits says so at every try
            for line in timeline.lines(record, time.time()):
                say(line)
        before = told
        if record.terminal:
            # Our own delivery's run may find a newer head, never an older one: the ref moved before.
            if record.sha not in (update.after, ""):
                say(f"it ended for {record.sha[:10]}, a newer commit that was pushed meanwhile")
            return verdict(record)
    return "no end was seen; it may still succeed: python -m local logs git-tar"


def follow(gateway: Gateway, started: float, delivery: str) -> Iterator[Record]:
    """The records of all stages from `started` on, as they come; ends when the time is up.

    A call that failed for good ends the delivery also when git-tar had no word for it, as one whose signature
    it does not know.
    """
    found: queue.Queue[Record] = queue.Queue()
    since = datetime.fromtimestamp(started - 1, timezone.utc).isoformat()
    deadline = started + FOLLOW_SECONDS

    def read(name: str) -> None:
        while time.time() < deadline:
            with suppress(CloudError, OSError):
                for text in gateway.logs(name, since, follow=True, read_seconds=FOLLOW_SECONDS):
                    if record := records.parse(text):
                        found.put(record)
            time.sleep(AGAIN_SECONDS)  # the gateway restarts, or the function is not there yet

    def watch() -> None:
        while time.time() < deadline:
            time.sleep(QUEUE_SECONDS)
            with suppress(CloudError, OSError):
                for call in Queue.at(gateway).calls():
                    if (call.delivery, call.state) == (delivery, FAILED):
                        time.sleep(QUEUE_SECONDS)  # its own last record may be on its way
                        said = f"{call.function} answered {call.status}, call {call.id} of the queue"
                        found.put(_ended(delivery, f"{said}: {call.error}"))
                        return

    for name in FOLLOWED:
        threading.Thread(target=read, args=(name,), daemon=True).start()
    threading.Thread(target=watch, daemon=True).start()
    return _until(found, deadline)


def _ended(delivery: str, error: str) -> Record:
    at = datetime.now(timezone.utc).isoformat()
    return Record(at, delivery, "", "", "", "", records.TERMINAL_STAGE, "failed", 0, error)


def _until(found: queue.Queue[Record], deadline: float) -> Iterator[Record]:
    seen: set[tuple[str, ...]] = set()
    while (left := deadline - time.time()) > 0:
        try:
            record = found.get(timeout=left)
        except queue.Empty:
            return
        key = (record.at, record.delivery, record.stage, record.function, record.outcome)
        if key not in seen:  # a stream that was cut is read again from its start
            seen.add(key)
            yield record


def say(line: str) -> None:
    """stderr: git shows it to the author as `remote: …`, at once."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """`python -m local.gitserver.deliver OWNER/NAME REF`: deliver the event of REF's head again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("repository")
    parser.add_argument("ref")
    arguments = parser.parse_args()
    folder = ROOT / f"{arguments.repository}.git"
    if not folder.is_dir():
        sys.exit(f"there is no repository {arguments.repository}: push to it first")
    repository = BareRepository.at(Path(folder))
    head = repository.git("rev-parse", "--verify", f"{arguments.ref}^{{commit}}")
    update, public_url = Update(head, head, arguments.ref), os.environ.get("PUBLIC_URL", "")
    sys.exit(deliver(repository, update, Settings.read(), public_url) or 0)


if __name__ == "__main__":
    main()
