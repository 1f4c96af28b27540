"""How a push is shown, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from local import showing
from local.gitserver import deliver
from local.showing import show
from local.timeline import Timeline, verdict
from sdk.records import Record


def record(stage: str, outcome: str, **rest: Any) -> Record:
    fields = {
        "at": "1970-01-01T00:00:13+00:00",
        "function": "hello",
        "seconds": 2.0,
        "sha": "s",
        "delivery": "d",
    }
    return Record(owner="alice", repo="shop", stage=stage, outcome=outcome, **{**fields, **rest})


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (record("queue", "ok", function=""), ["   3.0 s  gh-push          queued"]),
        (record("check", "ok"), []),
        (record("build", "ok"), ["   3.0 s  hello            built in 2.0 s"]),
        (record("build", "unchanged"), ["   3.0 s  hello            image is there already"]),
        (record("deploy", "ok", url="http://x"), ["   3.0 s  hello            live in 2.0 s  http://x"]),
        (record("fetch", "ok", function=""), ["   3.0 s  fetch            fetched in 2.0 s"]),
        (
            record("build", "failed", error="exit code: 2", log=["make: no rule"]),
            ["   3.0 s  hello            build failed: exit code: 2", "            | make: no rule"],
        ),
        (
            record("push", "failed", function="", error="1 of 1", log=["said before"]),
            ["   3.0 s  push             push failed: 1 of 1"],
        ),
        (
            record("fetch", "failed", function="", error="two\nlines"),
            ["   3.0 s  fetch            fetch failed: two", "            | lines"],
        ),
        (record("build", "ok", at="1970-01-01T00:00:09Z"), ["   0.0 s  hello            built in 2.0 s"]),
    ],
)
def test_a_record_is_a_line_of_the_timeline(shown: Record, expected: list[str]) -> None:
    assert list(Timeline(started=10).lines(shown)) == expected


@given(st.text(), st.text(), st.text())
def test_nothing_of_it_is_obeyed_by_a_terminal(error: str, logged: str, name: str) -> None:
    shown = record("build", "failed", function=name, error=error, log=[logged], url=logged)
    for line in [*Timeline(0).lines(shown), verdict(shown)]:
        assert line.isprintable()


def test_it_knows_what_goes_on() -> None:
    timeline = Timeline(started=3)

    def after(stage: str, outcome: str = "ok", function: str = "") -> str:
        list(timeline.lines(record(stage, outcome, function=function)))
        return timeline.going_on(13).removesuffix(" …").removeprefix("  10.0 s  ")

    assert timeline.going_on(13) == ""
    assert after("queue") == "the push waits in the queue"
    assert after("fetch") == "the push is packed"
    assert after("shrinkwrap", function="a") == "a is sent to buildshiprun"
    assert after("shrinkwrap", function="b") == "a is sent to buildshiprun, b is sent to buildshiprun"
    assert after("check", function="a") == "a is built, b is sent to buildshiprun"
    assert after("build", "failed", function="a") == "b is sent to buildshiprun"
    assert after("build", "unchanged", function="b") == "b starts"
    assert after("deploy", function="b") == "the push is tidied up"
    assert after("push", "retry") == "the push waits, and is tried again"
    assert after("push", "ok") == ""


LINES = [
    "alice/shop",
    "   1.0 s  the push is packed …",
    "   2.0 s  a  [red]build failed[/]: x",
    "            | [b]",
]


def test_where_there_is_no_terminal_the_lines_are_as_they_are() -> None:
    file = io.StringIO()
    show(LINES, Console(file=file))
    assert file.getvalue().splitlines() == LINES


def test_on_a_terminal_what_goes_on_makes_way_and_no_text_is_markup() -> None:
    file = io.StringIO()
    show(LINES, Console(file=file, force_terminal=True, width=200, color_system="standard"))
    shown = file.getvalue()
    assert "\x1b[31m   2.0 s  a  [red]build failed[/]: x" in shown, "in red"
    assert "[b]" in shown
    assert "   1.0 s  the push is packed" not in shown, "it stands beside the spinner only"


def test_on_a_terminal_gits_lines_are_shown_as_the_timeline_and_its_status_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(showing, "stderr", Console(file=file, force_terminal=True, width=200))
    says = "import sys; print('remote:    1.0 s  a   live in 1.0 s   ', file=sys.stderr); sys.exit(3)"
    assert showing.followed((sys.executable, "-c", says)) == 3
    assert "   1.0 s  a   live in 1.0 s" in file.getvalue()
    assert "remote:" not in file.getvalue()


def test_a_push_that_is_silent_shows_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deliver, "SILENCE_SECONDS", -1)
    fetched, end = record("fetch", "ok", function=""), record("push", "ok", function="")
    other = record("fetch", "failed", function="", sha="f" * 40, delivery="another")
    follower = [None, other, fetched, None, fetched, end, fetched]
    assert deliver.shown(follower, Timeline(started=10), "s", "d") == ""
    shown = [line.partition(" s  ")[2].split(" in ")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == [
        "gh-push          queued",
        "the push waits",
        "fetch            fetched",
        "the push is packed …",
        "push             done: everything is live",
    ]
