"""github-status's decisions: from stage records to what GitHub shows, whatever their order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from github_status import runs
from github_status.boards import Api, Statuses
from github_status.runs import Change, Run, Shown
from github_status.sdk.records import Record
from github_status.sdk.settings import Settings

SHA, NEWER = "a" * 40, "b" * 40
URL = "http://x/function/alice-one"


def record(
    at: float, stage: str, outcome: str = "ok", function: str = "", *, delivery: str = "d-1", **more: object
) -> Record:
    """A record of the push, `at` seconds after it."""
    time = f"2026-01-01T00:{int(at) // 60:02}:{at % 60:06.3f}+00:00"
    whole = Record(time, delivery, "alice", "hello", SHA, function, stage, outcome, 0.5)
    return replace(whole, **more)  # type: ignore[arg-type]


def pushed(*functions: str, delivery: str = "d-1", at: float = 0) -> list[Record]:
    """A push that goes well."""
    found = [record(at, "queue"), record(at + 1, "fetch")]
    found += [record(at + 1.1, "queue", function=name) for name in functions]
    for name in functions:
        found += [
            record(at + 2, "shrinkwrap", function=name),
            record(at + 3, "check", function=name),
            record(at + 4, "build", function=name),
            record(at + 5, "deploy", function=name, url=f"http://x/function/alice-{name}"),
        ]
    found += [record(at + 6, "collect"), record(at + 7, "push")]
    return [replace(each, delivery=delivery) for each in found]


def wanted(
    records: Iterable[Record], delivery: str = "d-1", sha: str = SHA, asked: str = ""
) -> dict[str, Run]:
    return runs.wanted(runs.about(records, sha, delivery, asked), delivery)


def brief(found: dict[str, Run]) -> dict[str, tuple[str, str]]:
    return {name: (run.conclusion or run.status, run.title) for name, run in found.items()}


@dataclass
class GitHub:
    """Check runs, and GitHub's rule: what is completed stays as it is."""

    there: list[Shown] = field(default_factory=list)

    def make(self, changes: Sequence[Change]) -> None:
        for change in changes:
            run = change.run
            shown = Shown(
                change.id or len(self.there) + 1,
                run.name,
                run.external_id,
                run.status,
                run.conclusion,
                run.title,
            )
            if change.id:
                assert self.there[change.id - 1].status != runs.COMPLETED
                self.there[change.id - 1] = shown
            else:
                self.there.append(shown)

    def look(self, records: Iterable[Record], delivery: str = "d-1", sha: str = SHA) -> None:
        self.make(self.plan(records, delivery, sha))

    def plan(self, records: Iterable[Record], delivery: str = "d-1", sha: str = SHA) -> list[Change]:
        found = wanted(records, delivery, sha)
        return runs.plan(found, self.there, every_attempt=runs.mends(delivery))

    @property
    def latest(self) -> dict[str, str]:
        """What people see: of each name the newest."""
        return {
            each.name: each.conclusion or each.status for each in sorted(self.there, key=lambda row: row.id)
        }


def test_a_push_goes_from_queued_to_live() -> None:
    records = pushed("one")
    seen = [brief(wanted(records[:upto])) for upto in range(1, len(records) + 1)]
    assert seen[0] == {"stack-deploy": ("queued", "queued")}
    assert seen[1] == {"stack-deploy": ("in_progress", "fetched in 0.5 s")}
    assert seen[2]["one"] == ("queued", "queued")
    assert seen[3]["one"] == ("in_progress", "packed in 0.5 s")
    assert seen[5]["one"] == ("in_progress", "built in 0.5 s")
    assert seen[6]["one"] == ("success", f"is live: {URL}")
    assert seen[7]["stack-deploy"] == ("in_progress", "tidied up in 0.5 s")
    assert seen[8]["stack-deploy"] == ("success", "everything is live after 7 s")
    assert wanted(records)["one"].url == URL
    assert "| build | ok | 0.5 |" in wanted(records)["one"].summary


@pytest.mark.parametrize(
    ("outcome", "conclusion"),
    [
        ("ok", "success"),
        ("failed", "failure"),
        ("refused", "failure"),
        ("superseded", "neutral"),
        ("skipped", "neutral"),
        ("something new", "neutral"),
    ],
)
def test_the_end_of_a_push_is_its_conclusion(outcome: str, conclusion: str) -> None:
    assert wanted([record(1, "push", outcome)])["stack-deploy"].conclusion == conclusion


def test_a_function_that_fails_says_why_and_the_others_are_live() -> None:
    records = [
        *pushed("one")[:-2],
        record(2, "queue", function="two"),
        record(3, "build", "failed", "two", error="exit code: 1", log=["#5 pip install", "no such package"]),
        record(8, "push", "failed", error="1 of 2 functions failed: two"),
    ]
    found = wanted(records)
    assert brief(found) == {
        "stack-deploy": ("failure", "failed: 1 of 2 functions failed: two"),
        "one": ("success", f"is live: {URL}"),
        "two": ("failure", "build failed: exit code: 1"),
    }
    assert (found["two"].log, found["two"].built) == (("#5 pip install", "no such package"), "two")
    assert "exit code: 1" in found["two"].summary


def test_what_of_stack_yml_is_ignored_is_told_though_all_is_live() -> None:
    said = "stack.yml: functions.one.environmnt is ignored: did you mean environment?"
    records = [replace(each, log=[said]) if each.stage == "fetch" else each for each in pushed("one")]
    found = wanted(records * 2)["stack-deploy"]
    assert (found.conclusion, found.summary.count(said)) == ("success", 1)
    assert "ignored" not in wanted(pushed("one"))["stack-deploy"].summary


def test_what_was_not_begun_is_neutral_once_the_push_has_ended() -> None:
    records = [record(0, "queue", function="one"), record(1, "push", "superseded")]
    assert brief(wanted(records))["one"] == ("neutral", "superseded")
    records = [record(0, "queue", function="one"), record(1, "push", "failed", error="secrets")]
    assert brief(wanted(records))["one"] == ("neutral", "not deployed: see stack-deploy")


def test_a_push_that_waits_says_for_what() -> None:
    records = [record(0, "queue"), record(1, "push", "retry", error="another push is on its way")]
    assert brief(wanted(records)) == {"stack-deploy": ("queued", "waits: another push is on its way")}


def test_a_push_that_was_overtaken_before_its_turn_is_neutral() -> None:
    records = [record(0, "queue"), *[replace(each, sha=NEWER) for each in pushed("one")[1:]]]
    found = wanted(records)
    assert found["stack-deploy"].conclusion == "neutral"
    assert NEWER[:10] in found["stack-deploy"].summary
    assert wanted(records, sha=NEWER)["stack-deploy"].conclusion == "success"
    alone = [replace(record(7, "push"), sha=NEWER)]  # where gh-push's log is lost
    assert wanted(alone, asked=SHA)["stack-deploy"].conclusion == "neutral"


def test_a_commit_that_a_delivery_goes_on_with_is_not_superseded_by_the_one_before() -> None:
    records = [record(0, "queue"), record(1, "push", "superseded")]
    records += [record(2, "fetch", sha=NEWER)]
    assert wanted(records, sha=NEWER)["stack-deploy"].status == "in_progress"


def test_another_delivery_of_a_commit_that_is_live_changes_nothing() -> None:
    github = GitHub()
    github.look(pushed("one"))
    before = list(github.there)
    github.look([*pushed("one"), record(9, "push", "retry", delivery="d-2", error="busy")], "d-2")
    github.look([*pushed("one"), *pushed("one", delivery="d-2", at=10)[:4]], "d-2")
    github.look(pushed("one", delivery="reconcile-1", at=300), "reconcile-1")
    assert github.there == before


def test_what_is_in_progress_is_not_queued_again_by_what_comes_late() -> None:
    github = GitHub()
    github.look(pushed("one")[:4])
    before = list(github.there)
    github.look(pushed("one")[:1])
    github.look([record(0, "push", "retry", error="busy")])
    assert github.there == before


def test_reconcile_completes_what_nobody_told_of() -> None:
    github = GitHub()
    github.look(pushed("one")[:4])
    assert github.latest == {"stack-deploy": "in_progress", "one": "in_progress"}
    # Nothing to do, says buildshiprun: no record of a deploy.
    quiet = [record(300, "fetch"), record(301, "shrinkwrap", function="one"), record(302, "push")]
    github.look([replace(each, delivery="reconcile-1") for each in quiet], "reconcile-1")
    assert github.latest == {"stack-deploy": "success", "one": "success"}
    assert len(github.there) == 2


def test_a_failure_that_was_mended_is_a_run_of_its_own() -> None:
    github = GitHub()
    github.look([record(1, "deploy", "failed", "one"), record(2, "push", "failed")])
    github.look(pushed("one", delivery="reconcile-1", at=300), "reconcile-1")
    assert github.latest == {"stack-deploy": "success", "one": "success"}
    assert [each.conclusion for each in github.there if each.name == "one"] == ["failure", "success"]


def test_a_re_run_is_told_of_anew() -> None:
    github, failed = GitHub(), [record(1, "deploy", "failed", "one"), record(2, "push", "failed")]
    github.look(failed)
    again = pushed("one", delivery="rerun-1", at=100)
    github.look([*failed, *again[:4]], "rerun-1")
    assert github.latest == {"stack-deploy": "in_progress", "one": "in_progress"}
    github.look(failed)  # what comes late
    github.look([*failed, *again], "rerun-1")
    assert github.latest == {"stack-deploy": "success", "one": "success"}
    assert len(github.there) == 4
    github.look([*failed, *again, record(300, "push", delivery="reconcile-1")], "reconcile-1")
    assert len(github.there) == 4


def test_others_checks_of_that_name_are_left_alone() -> None:
    github = GitHub([Shown(1, "one", "", "in_progress"), Shown(2, "one", "ci", "completed", "failure")])
    github.look(pushed("one"))
    assert [each.external_id for each in github.there if each.name == "one"] == [
        "",
        "ci",
        "openfaas-cloud/push",
    ]


def test_of_two_runs_that_replicas_made_at_once_the_newer_goes_on() -> None:
    github, records = GitHub(), pushed("one")
    plans = [github.plan(records[:4]) for _ in range(2)]
    for changes in plans:
        github.make(changes)
    github.look(records)
    assert [(each.name, each.conclusion) for each in github.there] == [
        ("stack-deploy", "neutral"),
        ("one", "neutral"),
        ("stack-deploy", "success"),
        ("one", "success"),
    ]
    assert github.plan(records) == []


def test_a_function_named_as_the_stack_is_told_apart() -> None:
    assert set(wanted(pushed("stack-deploy"))) == {"stack-deploy", "stack-deploy (function)"}


def test_a_large_stack_is_not_told_of_every_stage() -> None:
    names = [f"f{number}" for number in range(20)]
    github, writes = GitHub(), 0
    records = pushed(*names)
    for upto in range(1, len(records) + 1):
        changes = github.plan(records[:upto])
        writes += len(changes)
        github.make(changes)
    assert writes <= 3 * (len(names) + 1)
    assert set(github.latest.values()) == {"success"}


STORIES: list[list[Record]] = [
    pushed("one", "two"),
    [*pushed("one")[:5], record(6, "push", "retry", error="x"), *pushed("one", at=10)],
    [
        *pushed("one", "two")[:-2],
        record(6, "deploy", "failed", "two", error="x"),
        record(7, "push", "failed", error="y"),
    ],
    [*pushed("one"), *pushed("one", delivery="d-2", at=3)],
    [*pushed("one")[:6], record(8, "push", "superseded")],
    [record(0, "queue"), record(1, "fetch", "failed", error="no stack.yml"), record(2, "push", "failed")],
    [
        *[record(0, "queue"), record(1, "push", "retry")],
        *[replace(each, sha=NEWER) for each in pushed("one")],
    ],
]


@given(st.sampled_from(STORIES), st.randoms(use_true_random=False), st.integers(0, 12))
def test_in_any_order_and_however_often_it_ends_the_same(
    story: list[Record], chance: random.Random, looks: int
) -> None:
    """Each look sees what was recorded until then, in any order; the last one sees all."""
    straight, github = GitHub(), GitHub()
    straight.look(story)
    for _ in range(looks):
        seen = story[: chance.randint(1, len(story))]
        seen = chance.choices(seen, k=len(seen)) + seen
        chance.shuffle(seen)
        github.look(seen, seen[0].delivery)
    for _ in range(2):
        shuffled = chance.sample(story, len(story))
        github.look(shuffled)
    assert github.latest == straight.latest
    assert github.plan(story) == []
    assert len({each.name for each in github.there if each.status != "completed"}) == 0


@given(st.text() | st.text(alphabet="`~\n\x1b[0m").map(lambda text: text * 50))
def test_nothing_in_a_log_ends_its_block(text: str) -> None:
    block = runs.fenced(text)
    fence, *lines = block.split("\n")
    assert re.fullmatch("`{3,}", fence)
    assert lines[-1] == fence
    assert not [line for line in lines[:-1] if fence in line]
    assert len(block) <= runs.TEXT_LIMIT
    assert not re.search(r"[\x00-\x08\x1b]", block)


def test_of_a_long_log_the_end_is_shown() -> None:
    block = runs.fenced("".join(f"line {number} é\n" for number in range(50_000)))
    assert "line 49999" in block
    assert 60_000 < len(block.encode()) <= runs.TEXT_LIMIT
    assert len(runs.fenced("`" * 200_000)) <= runs.TEXT_LIMIT
    assert len(runs.fenced("é`" * 60_000)) <= runs.TEXT_LIMIT


def test_a_push_that_is_turned_away_has_failed() -> None:
    [(name, (conclusion, title))] = brief(
        wanted([record(0, "queue", "refused", error="no customer")])
    ).items()
    assert (name, conclusion) == ("stack-deploy", "failure")
    assert title == "failed: no customer"


@given(st.text(), st.sampled_from(["openfaas-cloud/push", "openfaas-cloud/rerun-12345678-9"]))
def test_a_commit_status_is_one_line_of_140_that_shows_which_re_run_it_is_of(
    text: str, external_id: str
) -> None:
    board = Statuses(Api("/repos/a/b", "", Settings()))
    run = Run("one", external_id, "completed", runs.line(text), "", 0, "neutral")
    fitted = board.fitted(run)
    assert len(fitted.title) <= 140
    assert "\n" not in fitted.title
    assert fitted.conclusion == "success"
    assert ("rerun-12345678" in fitted.title) == ("rerun" in external_id) or "rerun-" in text
