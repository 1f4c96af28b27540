"""Pushes, as list-functions reads them from the stage records."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from list_functions import timelines
from list_functions.sdk import records
from list_functions.sdk.records import Record
from list_functions.timelines import Push
from tests.contract.pages import ALICE, BOB, Story

NOW = 1_000_010


def read(*stories: Story, owner: str = ALICE, now: float = NOW) -> list[Push]:
    found = [record for story in stories for record in ours(story)]
    random.Random(7).shuffle(found)  # each function's log is read by itself
    return timelines.pushes(found, owner, now)


def ours(story: Story) -> list[Record]:
    lines = [line for told in story.lines.values() for line in told]
    return [found for line in lines if (found := records.parse(line))]


def states(push: Push) -> list[str]:
    return [step.state for step in push.steps]


def whole() -> Story:
    return Story().queued().fetched("hello").built("hello", 1.8).live("hello", 4.5).done(4.7)


def test_a_push_has_its_four_steps_each_with_its_time() -> None:
    [push] = read(whole())
    assert (push.outcome, push.state, push.sha, push.repo) == ("ok", "done", "a" * 40, "hello")
    assert [(step.name, step.state, round(step.at - 1_000_000, 1)) for step in push.steps] == [
        ("Queued", "done", 0),
        ("Fetched", "done", 0.4),
        ("Built", "done", 1.8),
        ("Deployed", "done", 4.5),
    ]
    [part] = push.parts
    assert (part.said, part.has_log, part.url) == (
        "live in 2.7 s",
        True,
        "http://127.0.0.1:8080/function/alice-hello",
    )
    assert push.ended - push.begun == pytest.approx(4.8)


@pytest.mark.parametrize(
    ("story", "outcome", "wanted"),
    [
        (Story().queued(), "queued", ["done", "now", "todo", "todo"]),
        (Story().queued().fetched(), "running", ["done", "done", "now", "todo"]),
        (Story().queued().fetched("hello"), "running", ["done", "done", "now", "todo"]),
        (Story().queued().fetched("hello").built("hello", 2), "running", ["done", "done", "done", "now"]),
        (
            Story().queued().fetched("hello").tell("git-tar", "push", 2, "retry", error="of-builder is away"),
            "waiting",
            ["done", "done", "now", "todo"],
        ),
    ],
    ids=["queued", "fetched", "building", "starting", "waiting"],
)  # fmt: skip
def test_a_push_on_its_way_says_where_it_is(story: Story, outcome: str, wanted: list[str]) -> None:
    [push] = read(story)
    assert (push.outcome, push.is_open, states(push)) == (outcome, True, wanted)


def test_a_push_that_is_turned_away_has_ended() -> None:
    story = Story().tell("gh-push", "queue", 0, "refused", error="alice is not on the list of customers")
    [push] = read(story)
    assert (push.outcome, push.error) == ("refused", "alice is not on the list of customers")
    assert (push.is_open, states(push)) == (False, ["failed", "skipped", "skipped", "skipped"])


def test_a_push_that_nothing_was_heard_of_for_long_is_not_waited_for() -> None:
    [push] = read(Story().queued().fetched("hello"), now=NOW + 3600)
    assert (push.outcome, push.is_open) == ("lost", False)
    assert "now" not in states(push)


def test_a_failed_build_says_why_and_what_went_well() -> None:
    story = Story().queued().fetched("one", "two").built("one", 2).live("one", 3)
    story.built("two", 4, "failed", error="exit code: 2", log=["make: ***"]).done(5, "failed", "two failed")
    [push] = read(story)
    assert (push.outcome, states(push)) == ("failed", ["done", "done", "failed", "failed"])
    assert [step.note for step in push.steps] == ["", "", "1 of 2", "1 of 2"]
    assert push.steps[3].at == 1_000_003
    one, two = push.parts
    assert (one.state, two.state, two.said, two.error, two.log) == (
        "done", "failed", "build failed", "exit code: 2", ("make: ***",),
    )  # fmt: skip


def test_a_start_that_failed_is_no_failed_build() -> None:
    story = Story().queued().fetched("hello").built("hello", 2)
    story.tell("buildshiprun", "deploy", 4, "failed", "hello", error="exit 1").done(5, "failed", "hello")
    [push] = read(story)
    assert states(push) == ["done", "done", "done", "failed"]
    assert push.parts[0].said == "start failed"


def test_what_is_unchanged_needs_no_build() -> None:
    [push] = read(Story().queued().fetched("hello").live("hello", 1, "unchanged").done(2))
    assert states(push) == ["done"] * 4
    assert (push.parts[0].said, push.parts[0].has_log) == ("unchanged", False)


def test_of_a_push_that_follows_a_newer_commit_the_last_pass_is_shown() -> None:
    story = Story().queued().fetched("old").tell("git-tar", "push", 1, "superseded")
    newer = replace(story, sha="b" * 40)
    newer.fetched("new", after=2).built("new", 4)
    [push] = read(newer)
    assert (push.sha, push.outcome, [part.function for part in push.parts]) == ("b" * 40, "running", ["new"])


def test_a_second_try_that_finds_the_work_done_hides_it_not() -> None:
    story = whole().tell("buildshiprun", "deploy", 6, "unchanged", "hello")
    assert read(story)[0].parts[0].said == "live in 2.7 s"


def test_a_function_that_is_refused_at_packing_hides_not_what_the_others_did() -> None:
    story = Story().queued().fetched("pay").tell("git-tar", "shrinkwrap", 0.6, "refused", "shop", error="no")
    [push] = read(story.built("pay", 2).live("pay", 3).done(4, "failed", "1 of 2 functions failed: shop"))
    assert [(step.state, step.note) for step in push.steps[2:]] == [("failed", "1 of 2")] * 2
    assert [(part.function, part.said) for part in push.parts] == [
        ("pay", "live in 2.7 s"),
        ("shop", "packing refused"),
    ]


def test_an_unchanged_function_is_live_though_its_check_ended_in_the_same_millisecond() -> None:
    story = Story().queued().fetched("hello").tell("buildshiprun", "check", 1, function="hello")
    told = ours(story.live("hello", 1, "unchanged").done(2))
    for found in (told, told[::-1]):
        [push] = timelines.pushes(found, ALICE, NOW)
        assert (push.parts[0].said, push.parts[0].state) == ("unchanged", "done")


def test_a_push_that_is_tried_again_is_live_still() -> None:
    again = whole().tell("git-tar", "shrinkwrap", 5, function="hello")
    again.tell("buildshiprun", "check", 6, function="hello").live("hello", 6, "unchanged").done(7)
    assert read(again)[0].parts[0].said == "live in 2.7 s"


def test_an_image_that_is_there_already_is_deployed() -> None:
    [push] = read(Story().queued().fetched("hello").built("hello", 2, "unchanged").live("hello", 4).done(5))
    assert (push.parts[0].said, push.parts[0].has_log) == ("live in 2.7 s", False)


@pytest.mark.parametrize(("outcome", "said"), [("failed", "check failed"), ("refused", "refused")])
def test_what_is_stopped_at_the_check_says_so(outcome: str, said: str) -> None:
    story = Story().queued().fetched("hello").tell("buildshiprun", "check", 1, outcome, "hello", error="why")
    [push] = read(story.done(2, "failed", "1 of 1 functions failed: hello"))
    assert (push.parts[0].said, push.parts[0].error) == (said, "why")


FOUND_RIGHT = [
    Story("reconcile-1").done(2),
    Story("reconcile-2").fetched("hello").done(2),  # as git-tar once told of it
    Story("reconcile-3").queued().fetched("hello").live("hello", 1, "unchanged").done(2),
    Story("reconcile-4").tell("git-tar", "push", 1, "retry", error="another push is on its way"),
    Story("reconcile-5").tell("git-tar", "push", 1, "skipped", error="the branch is gone"),
    Story("reconcile-6").tell("git-tar", "push", 1, "superseded"),
]


@pytest.mark.parametrize("story", FOUND_RIGHT, ids=lambda story: story.delivery)
def test_what_reconcile_found_as_it_should_be_is_no_push(story: Story) -> None:
    assert read(story) == read(story, now=NOW + 3600) == []


DONE = [
    Story("reconcile-1").built("hello", 1).live("hello", 2).done(3),
    Story("reconcile-2").tell("buildshiprun", "check", 1, function="hello"),
    Story("reconcile-3").tell("git-tar", "push", 1, "failed", error="no stack.yml"),
    Story("reconcile-4").tell("garbage-collect", "collect", 1, log=["removed alice-old"])
    .tell("git-tar", "push", 2),
]  # fmt: skip


@pytest.mark.parametrize("story", DONE, ids=lambda story: story.delivery)
def test_what_reconcile_did_is_shown_as_its_own(story: Story) -> None:
    [push] = read(story)
    assert push.is_by_reconcile
    assert not read(whole())[0].is_by_reconcile


def test_what_the_fetch_tells_is_shown_with_the_push() -> None:
    said = "stack.yml: functions.hello.handlr is ignored: did you mean handler?"
    [push] = read(Story("d-1").queued().tell("git-tar", "fetch", 1, log=[said]).done(2))
    assert push.notes == (said,)


def test_what_reconcile_deploys_was_fetched() -> None:
    [push] = read(DONE[0])
    assert (push.outcome, states(push)) == ("ok", ["done"] * 4)
    assert read(DONE[3])[0].notes == ("removed alice-old",)


def test_a_repository_that_is_tidied_up_or_leaves_is_no_push() -> None:
    gone = Story().tell("garbage-collect", "collect", 1, log=["removed alice-old"])
    assert read(gone.tell("git-tar", "leave", 2)) == []


def test_nobody_sees_anothers_push_whatever_the_names() -> None:
    mine, theirs = whole(), replace(whole(), delivery="d-2", path="github/33/9", lines={}).queued()
    nowhere = replace(whole(), delivery="d-3", path="", lines={}).queued()
    assert [push.delivery for push in read(mine, theirs, nowhere)] == ["d-1"]
    assert [push.delivery for push in read(mine, theirs, nowhere, owner=BOB)] == []
    assert {push.delivery for push in read(mine, theirs, nowhere, owner="")} == {"d-1", "d-2"}


def test_the_newest_push_is_first() -> None:
    older = replace(whole(), delivery="d-0", at=999_000, lines={}).queued()
    assert [push.delivery for push in read(older, whole())] == ["d-1", "d-0"]


RECORDS = st.builds(
    Record,
    at=st.integers(0, 60).map(lambda second: f"2026-01-01T00:00:{second % 60:02}+00:00"),
    delivery=st.sampled_from(["d-1", "reconcile-1"]),
    owner=st.just("alice"),
    repo=st.just("hello"),
    sha=st.sampled_from(["", "a", "b"]),
    function=st.sampled_from(["", "one", "two"]),
    stage=st.sampled_from(
        ["queue", "fetch", "shrinkwrap", "check", "build", "deploy", "collect", "push", "?"]
    ),
    outcome=st.sampled_from(["ok", "unchanged", "failed", "refused", "superseded", "skipped", "retry", "?"]),
    seconds=st.just(0.5),
    path=st.just("github/3/7"),
)


@given(st.lists(RECORDS), st.integers(0, 10**10))
def test_whatever_was_recorded_is_a_push(found: list[Record], now: int) -> None:
    for push in timelines.pushes(found, ALICE, now):
        assert len(push.steps) == 4
        assert push.is_open or not {"now", "todo"} & {*states(push), *(part.state for part in push.parts)}
