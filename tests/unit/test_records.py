from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.timeline import verdict
from sdk import records
from sdk.errors import CloudError, Failed, Refused, Superseded, Unavailable
from sdk.records import Record, Stage, Subject

SUBJECT = Subject("d-1", "alice", "hello", "a" * 40)


def printed(capsys: pytest.CaptureFixture[str]) -> list[Record]:
    found = [records.parse(line) for line in capsys.readouterr().out.splitlines()]
    return [record for record in found if record]


def test_a_silent_stage_prints_only_what_did_not_go_well(capsys: pytest.CaptureFixture[str]) -> None:
    def silently(error: CloudError | None) -> None:
        with records.stage("fetch", SUBJECT) as told:
            told.silent = True
            if error:
                raise error

    silently(None)
    assert printed(capsys) == []
    with pytest.raises(Failed, match="no such branch"):
        silently(Failed("no such branch"))
    assert [(each.outcome, each.error) for each in printed(capsys)] == [("failed", "no such branch")]


def test_a_stage_prints_one_line_that_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with records.stage("deploy", SUBJECT, "hello") as told:
        told.url = "http://x"
    [record] = printed(capsys)
    assert (record.delivery, record.owner, record.repo, record.sha) == ("d-1", "alice", "hello", "a" * 40)
    assert (record.function, record.stage, record.outcome, record.url) == (
        "hello",
        "deploy",
        "ok",
        "http://x",
    )
    assert record.seconds >= 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Failed("x"), "failed"),
        (Refused("x"), "refused"),
        (Superseded("x"), "superseded"),
        (Unavailable("x"), "retry"),
        (CloudError("x"), "failed"),
        (RuntimeError("x"), "failed"),
    ],
)
def test_a_stage_that_raises_prints_why(
    error: Exception, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)), records.stage("build", SUBJECT, "hello"):
        raise error
    [record] = printed(capsys)
    assert (record.outcome, record.error) == (outcome, "x")


def test_a_failure_brings_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failed), records.stage("build", SUBJECT, "hello"):
        raise Failed("x", details={"log": ["one", "two"]})
    assert printed(capsys)[0].log == ["one", "two"]


def test_a_line_stays_short_whatever_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    told = Stage("failed", ["x" * 10_000] * 1_000 + ["the last line"])
    records.emit("build", SUBJECT, "hello", told, 1, "e" * 10_000)
    out = capsys.readouterr().out
    assert len(out) < 12 * 1024
    assert records.parse(out).log[-1] == "the last line"  # type: ignore[union-attr]


def test_a_watchdogs_prefix_is_skipped_and_other_lines_are_none() -> None:
    line = (
        '{"at":"2026-11-22T12:00:00.000+00:00","delivery":"d","owner":"o","repo":"r","sha":"s","function":"","stage":"push",'
        '"outcome":"ok","seconds":1}'
    )
    assert records.parse(f"2026/11/22 12:00:00 stdout: {line}") == records.parse(line) != None  # noqa: E711
    assert records.parse(line).terminal  # type: ignore[union-attr]
    assert records.parse(line.replace("2026-11-22T", "yesterday ")) is None
    for other in ("", "Traceback", "{", '{"at": 5}', "{}", "\x00{"):
        assert records.parse(other) is None


@given(st.text())
def test_any_line_is_a_record_or_none(line: str) -> None:
    records.parse(line)


def record(stage: str, outcome: str, **rest: object) -> Record:
    fields = {"function": "hello", "seconds": 2.0, **rest}
    return Record("1970-01-01T00:00:13Z", "d", "alice", "hello", "s", stage=stage, outcome=outcome, **fields)  # type: ignore[arg-type]


def test_only_a_failure_fails_a_push() -> None:
    assert verdict(record("push", "failed", error="why\nnot")) == "why not"
    assert verdict(record("push", "refused")) == "refused"
    for outcome in ("ok", "superseded", "skipped"):
        assert verdict(record("push", outcome)) == ""
    assert not record("push", "retry").terminal


def test_a_record_stays_short_also_with_text_that_json_makes_long(capsys: pytest.CaptureFixture[str]) -> None:
    """The engine's log driver splits lines of over 16 KiB, and a split record is lost."""
    told = Stage("failed", ["\x1b" * 500 for _ in range(100)])
    records.emit("build", SUBJECT, "f", told, 1, "\x1b" * 5_000)
    line = capsys.readouterr().out
    assert len(line.encode()) < 16 * 1024
    assert records.parse(line)
