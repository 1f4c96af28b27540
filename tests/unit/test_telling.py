"""How the functions tell github-status: from a thread of its own, the newest record of each push."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sdk import records, status
from sdk.errors import Busy, Failed
from sdk.records import Record, Stage, Subject
from sdk.settings import Settings
from sdk.status import Messenger, Told

SHA = "a" * 40
RECORD = Record("2026-01-01T00:00:00+00:00", "d-1", "alice", "hello", SHA, "", "fetch", "ok", 1)
TOLD = Told("github", 3, 7, "", RECORD)
LAST = replace(TOLD, record=replace(RECORD, stage="push"))
SUBJECT = Subject("d-1", "alice", "hello", SHA, "github", 3, 7, SHA)
SECONDS = 30
Held = tuple[list[Told], threading.Event, threading.Event]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    found: list[Told] = []
    monkeypatch.setattr(status, "send", lambda told, settings: found.append(told))
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """What is sent, an event that the first is on its way, and one that lets it arrive."""
    found: list[Told] = []
    begun, goes_on = threading.Event(), threading.Event()

    def send(told: Told, settings: Settings) -> None:
        found.append(told)
        begun.set()
        assert goes_on.wait(SECONDS)

    monkeypatch.setattr(status, "send", send)
    yield found, begun, goes_on
    goes_on.set()


def test_while_one_is_on_its_way_the_newest_takes_the_place_of_those_before(
    held: Held,
) -> None:
    found, begun, goes_on = held
    messenger = Messenger()
    first = replace(TOLD, record=replace(RECORD, delivery="d-0"))
    messenger.take(first)
    assert begun.wait(SECONDS)
    newest = replace(TOLD, record=replace(RECORD, stage="build"))
    other = replace(TOLD, repo_id=8)
    for told in (TOLD, newest, other):
        messenger.take(told)
    goes_on.set()
    assert messenger.idle(SECONDS)
    assert found == [first, newest, other]


def test_a_last_word_is_not_replaced_by_what_comes_late(sent: list[Told]) -> None:
    messenger = Messenger(_thread=threading.main_thread())  # nothing is sent
    messenger.take(LAST)
    messenger.take(TOLD)
    assert list(messenger.waiting.values()) == [LAST]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(status, "_WAITING", 3)
    messenger = Messenger(_thread=threading.main_thread())
    for number in range(5):
        messenger.take(replace(TOLD, repo_id=number))
    assert [told.repo_id for told in messenger.waiting.values()] == [2, 3, 4]
    assert capsys.readouterr().err.count("too many pushes wait") == 2


@pytest.mark.parametrize(("error", "says"), [(Failed("no"), True), (KeyError("x"), True), (Busy("b"), False)])
def test_the_thread_outlives_every_error(
    error: Exception, says: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Told] = []

    def send(told: Told, settings: Settings) -> None:
        found.append(told)
        if len(found) == 1:
            raise error

    monkeypatch.setattr(status, "send", send)
    messenger = Messenger()
    for number in range(2):
        messenger.take(replace(TOLD, repo_id=number))
        assert messenger.idle(SECONDS)
    assert len(found) == 2
    assert ("status: not told of alice/hello@" in capsys.readouterr().err) == says


def test_without_a_thread_to_be_had_the_stage_goes_on(
    sent: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    messenger = Messenger()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        messenger.take(TOLD)
    messenger.take(replace(TOLD, repo_id=8))
    assert messenger.idle(SECONDS)
    assert [told.repo_id for told in sent] == [7, 8]


@pytest.mark.parametrize(
    ("change", "settings", "is_told"),
    [
        ({}, {}, True),
        ({}, {"report_status": "false"}, False),
        ({}, {"github_app_id": ""}, False),
        ({"scm": "local"}, {}, True),
        ({"scm": "local"}, {"github_app_id": ""}, False),
        ({"scm": "gitlab"}, {}, False),
        ({"sha": ""}, {}, False),
        ({"sha": "0" * 40}, {}, False),
        ({"delivery": "reconcile-1"}, {}, False),
    ],
)
def test_only_what_github_can_show_is_told(
    change: dict[str, str],
    settings: dict[str, str],
    is_told: bool,
    sent: list[Told],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in {"github_app_id": "12", **settings}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(records, "listeners", [status.tell])
    records.emit("fetch", replace(SUBJECT, **change), "", Stage(), 1)  # type: ignore[arg-type]
    assert status.MESSENGER.idle(SECONDS)
    assert [told.record.sha for told in sent] == ([SHA] if is_told else [])


def test_of_reconcile_the_end_is_told(sent: list[Told], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("github_app_id", "12")
    subject = replace(SUBJECT, delivery="reconcile-1", asked="0" * 40)
    status.tell(replace(RECORD, delivery="reconcile-1", stage="push"), subject)
    assert status.MESSENGER.idle(SECONDS)
    assert [(told.record.stage, told.asked) for told in sent] == [("push", "")]


def test_a_record_shows_of_the_ids_its_path_alone(capsys: pytest.CaptureFixture[str]) -> None:
    records.emit("fetch", SUBJECT, "", Stage(), 1)
    line = capsys.readouterr().out
    assert "_id" not in line
    assert "asked" not in line
