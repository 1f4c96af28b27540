"""`trace`: one push through all its stages, from the records that every gateway keeps with the logs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sdk.gateway import Gateway
from sdk.records import RECONCILE, Record, changed_nothing

from . import place
from .errors import CommandError
from .following import Follower, recorded
from .showing import out, show
from .timeline import Timeline, shown, verdict

_SHA = re.compile(r"[0-9a-f]{4,40}")
FOLLOW_SECONDS = 20 * 60
CUT = "how it ended is not known any more: git-tar was deployed anew since, and its log began anew"


@click.command("trace")
@click.argument("which", metavar="SHA|DELIVERY")
@click.option("--follow", "-f", is_flag=True, help="Go on until the push has ended.")
@click.option(
    "--since",
    type=click.IntRange(1, 60 * 24 * 366),
    default=60 * 24,
    show_default=True,
    metavar="MINUTES",
    help="How far to look back.",
)
@place.options
def command(
    which: str, follow: bool, since: int, url: str | None, username: str, password_file: Path | None
) -> None:
    """Show one push through all stages: what each did, how long it took, and why it failed.

    SHA is a commit, or the beginning of one; DELIVERY is GitHub's id of the event. Exits with 1 if the push
    failed.
    """
    gateway = place.known(url, username, password_file)
    found, problems = recorded(gateway, time.time() - since * 60, about(which))
    console = out()
    for problem in problems:
        console.print(f"can't be read: {shown(problem)}", markup=False, soft_wrap=True)
    if not found:
        raise CommandError(nothing(which, since, on_github=not place.local(url)))
    pushes, looks = worth(told(found), which)
    if looks:
        console.print(f"reconcile looked {looks} times and changed nothing", markup=False)
    show((line for push in pushes for line in push.lines()), console)
    last = pushes[-1]
    if last.is_cut:
        console.print(CUT, markup=False, soft_wrap=True)
        return
    if not last.end and follow:
        show(last.rest(gateway), console)
    if not last.end:
        console.print("it has not ended: go on by `trace -f`", markup=False)
    elif verdict(last.end):
        raise click.exceptions.Exit(1)


def about(which: str) -> Callable[[Record], bool]:
    """Whether a record is of the commit that begins so, or of that delivery."""
    wanted = which.strip().lower()
    by_sha = bool(_SHA.fullmatch(wanted))

    def matches(record: Record) -> bool:
        return record.delivery.lower() == wanted or (by_sha and record.sha.startswith(wanted))

    return matches


@dataclass
class Push:
    """One delivery, as far as it is known."""

    records: list[Record]

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def end(self) -> Record | None:
        """Its last word, unless more was said since: another try of the same delivery."""
        return self.records[-1] if self.records[-1].ends else None

    @property
    def is_cut(self) -> bool:
        """Whether nothing is there of git-tar, which says how a push ended, but of what it called."""
        stages = {record.stage for record in self.records}
        return not stages & {"fetch", "push", "leave"} and bool(
            stages & {"check", "build", "deploy", "collect"}
        )

    def lines(self) -> Iterator[str]:
        # gh-push's record is printed once it has answered: git-tar may have been quicker.
        began = min(record.time - record.seconds for record in self.records)
        self.timeline = Timeline(began)
        first = next((record for record in self.records if record.owner), self.first)
        repository = shown(f"{first.owner}/{first.repo}".rstrip("/"))
        by = ", by reconcile" if first.delivery.startswith(RECONCILE) else ""
        delivery = f"delivery {shown(first.delivery)}"
        yield f"{repository} at {shown(first.sha[:10])}, {delivery}, {first.at[:19]}Z{by}"
        for record in self.records:
            yield from self.timeline.lines(record)

    def rest(self, gateway: Gateway) -> Iterator[str]:
        """What comes until it has ended; after `lines`."""
        known = set(map(_key, self.records))
        for record in Follower(gateway, self.records[-1].time - 1, seconds=FOLLOW_SECONDS):
            if record is None:
                yield self.timeline.going_on(time.time())
            elif record.delivery == self.first.delivery and _key(record) not in known:
                self.records.append(record)
                yield from self.timeline.lines(record)
                if self.end:
                    return


def told(found: Sequence[Record]) -> list[Push]:
    """The pushes in the records, by their deliveries; the records are sorted."""
    if len(commits := {record.sha for record in found if record.sha}) > 1:
        deliveries = {record.delivery for record in found}
        if len(deliveries) > 1:
            some = ", ".join(sorted(sha[:12] for sha in commits)[:10])
            raise CommandError(f"that is the beginning of {len(commits)} commits, name more of it: {some}")
    pushes: dict[str, Push] = {}
    for record in found:
        pushes.setdefault(record.delivery, Push([])).records.append(record)
    return list(pushes.values())


def worth(pushes: Sequence[Push], which: str) -> tuple[Sequence[Push], int]:
    """Those to show, and how many looks of reconcile that changed nothing are left out.

    What is asked for by its delivery's id is shown; and the last of them, where there is nothing else.
    """
    if pushes[0].first.delivery.lower() == which.strip().lower():
        return pushes, 0
    kept = [push for push in pushes if not changed_nothing(push.records)] or pushes[-1:]
    return kept, len(pushes) - len(kept)


def nothing(which: str, since: int, *, on_github: bool) -> str:
    """Why there may be none, and where else to look."""
    if not re.fullmatch(r"[0-9a-f-]{4,}|[a-z]+-[0-9a-f-]+", which.strip().lower()):
        return (
            f"no record of {which}: `trace` takes a commit's hash, or its beginning, as `git rev-parse HEAD` "
            "prints it; or a delivery's id"
        )
    event = "whether the event came: the App's page on GitHub, under Advanced, has each delivery and answer"
    return (
        f"no record of {which} in the last {since} minutes. Look further back by --since; or see\n"
        + (f"  {event}\n" if on_github else "")
        + "  whether gh-push refused it: python -m local logs gh-push\n"
        "  whether it waits: python -m local queue on the local cloud, else the log of the queue-worker\n"
        "  whether all is well: python -m local doctor\n"
        "python -m local reconcile brings the repository to its head, whatever was lost"
    )


def _key(record: Record) -> tuple[str, ...]:
    return record.at, record.stage, record.function, record.outcome, record.sha
