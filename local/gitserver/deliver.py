"""Sends the event of a push to gh-push, and shows what becomes of it until it has ended."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from sdk import messages, records, secrets
from sdk.errors import CloudError
from sdk.gateway import Gateway
from sdk.records import QUEUE_STAGE, Record
from sdk.sessions import persistently
from sdk.settings import Settings

from ..calls import FAILED, Queue
from ..following import Follower
from ..timeline import Timeline, verdict
from . import event
from .event import Update
from .repository import ROOT, BareRepository

# gh-push's own record is its answer.
FOLLOWED = ("git-tar", "buildshiprun", "garbage-collect")
ANSWER_SECONDS = 15
GATEWAY_SECONDS = 30
FOLLOW_SECONDS = 20 * 60
QUEUE_SECONDS = 5
# After so much silence, what is waited for is shown.
SILENCE_SECONDS = 15


def deliver(repository: BareRepository, update: Update, settings: Settings, public_url: str) -> str:
    """Deliver and follow; returns why the push failed, empty if it did not."""
    started = time.time()
    gateway = Gateway.of(settings)
    keys = secrets.read("github-webhook-secret", settings.secret_mount_path)
    body, headers = event.signed(event.payload(repository, update, public_url=public_url), keys)
    say(f"{repository.owner}/{repository.name} at {update.after[:10]}")
    try:
        follower = follow(gateway, started, headers["X-GitHub-Delivery"])
        answer = messages.decode(sent(gateway, body, headers), dict[str, object])
    except CloudError as error:
        return f"gh-push did not take the event: {error.message}"
    if "ignored" in answer:
        say(f"ignored: {answer['ignored']}")
        return ""
    problem = shown(follower, Timeline(started), update.after, headers["X-GitHub-Delivery"])
    if (checks := os.environ.get("CHECKS_URL")) and update.after != messages.NO_COMMIT:
        say(f"its checks: {checks}/{repository.full_name}/commit/{update.after}")
    return problem


def sent(gateway: Gateway, body: bytes, headers: Mapping[str, str]) -> bytes:
    """gh-push's answer to the event. Twice is no harm: a gateway that is replaced is waited for."""
    return persistently(
        lambda: gateway.invoke("gh-push", body, headers, ANSWER_SECONDS), seconds=GATEWAY_SECONDS
    )


def shown(follower: Iterable[Record | None], timeline: Timeline, sha: str, delivery: str) -> str:
    """Show the push until it ends; returns why it failed, empty if it did not."""
    for line in timeline.lines(Record(now(), delivery, "", "", sha, "", QUEUE_STAGE, "ok", 0)):
        say(line)
    before: tuple[str, ...] = ()
    said_at = time.monotonic()
    for record in follower:
        if record is None:
            if time.monotonic() - said_at > SILENCE_SECONDS:
                say(timeline.going_on(time.time()))
                said_at = time.monotonic()
            continue
        # Another delivery's run may take this commit along, but not one that ended before.
        taken_along = record.sha == sha and record.time >= timeline.started
        if not taken_along and record.delivery != delivery:
            continue
        told = (record.function, record.stage, record.outcome, record.error)
        if told != before:  # a push that waits says so at every try
            for line in timeline.lines(record):
                say(line)
            said_at = time.monotonic()
        before = told
        if record.terminal:
            # Our own delivery's run may find a newer head, never an older one: the ref moved before.
            if record.sha not in (sha, ""):
                say(f"it ended for {record.sha[:10]}, a newer commit that was pushed meanwhile")
            return verdict(record)
    return "no end was seen; it may still succeed: python -m local logs git-tar"


def follow(gateway: Gateway, started: float, delivery: str) -> Follower:
    """The records from `started` on.

    A call that failed for good ends the delivery also when git-tar had no word for it, as one whose signature
    it does not know.
    """
    follower = Follower(gateway, started - 1, names=FOLLOWED, seconds=FOLLOW_SECONDS)

    def watch() -> None:
        while not follower.is_over:
            time.sleep(QUEUE_SECONDS)
            with suppress(CloudError, OSError):
                for call in Queue.at(gateway).calls():
                    if (call.delivery, call.state) == (delivery, FAILED):
                        time.sleep(QUEUE_SECONDS)  # its own last record may be on its way
                        said = f"{call.function} answered {call.status}, call {call.id} of the queue"
                        follower.put(_ended(delivery, f"{said}: {call.error}"))
                        return

    threading.Thread(target=watch, daemon=True).start()
    return follower


def _ended(delivery: str, error: str) -> Record:
    return Record(now(), delivery, "", "", "", "", records.TERMINAL_STAGE, "failed", 0, error)


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def say(line: str) -> None:
    """stderr: git shows it to the author as `remote: …`, at once."""
    if line:
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
