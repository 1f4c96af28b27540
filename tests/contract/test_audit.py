"""`audit_url`: it gets the records, and whatever it does, no push waits or fails for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from sdk import audit, records
from sdk.records import Stage, Subject

from .fakes import Answer, Server, running

SUBJECT = Subject("d-1", "alice", "shop", "a" * 40)
PATIENCE = 10


class Receiver(Server):
    """Takes records; `answering` decides what it answers, one call at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.answering: Callable[[], Answer] = lambda: (202, b"")
        self.came = threading.Semaphore(0)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.came.release()
        return self.answering()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    server = Receiver()
    monkeypatch.setenv("audit_url", f"{server.url}/token")
    with running(server):
        yield server


def emit(number: int) -> None:
    records.emit("build", SUBJECT, f"f{number}", Stage(), 1)


def sender() -> audit.Sender:
    [found] = audit._senders.values()
    return found


def test_it_gets_the_very_records_in_order(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        emit(number)
    for _ in range(3):
        assert receiver.came.acquire(timeout=PATIENCE)
    assert [body.decode() for _, path, _, body in receiver.calls] == capsys.readouterr().out.splitlines()
    assert {(method, path) for method, path, _, _ in receiver.calls} == {("POST", "/token")}


def test_one_that_hangs_holds_nobody_up_and_what_waits_is_bounded(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "WAITING", 5)
    go_on = threading.Event()

    def hang() -> Answer:
        go_on.wait(PATIENCE)
        return 202, b""

    receiver.answering = hang
    emit(0)
    assert receiver.came.acquire(timeout=PATIENCE), "it is being sent, and will not be taken"
    for number in range(1, 20):
        emit(number)
    assert sender().dropped == 14
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 20, "the records themselves are all there"
    assert shown.err.count("records dropped: too many wait") == 1
    assert "token" not in shown.err
    go_on.set()
    for _ in range(5):
        assert receiver.came.acquire(timeout=PATIENCE)


@pytest.mark.parametrize("status", [301, 401, 404, 500, 503])
def test_a_refusal_is_told_once_and_not_tried_again(
    status: int, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answering = lambda: (status, b"", {"Location": "/elsewhere"})
    for number in range(3):
        emit(number)
    for _ in range(3):
        assert receiver.came.acquire(timeout=PATIENCE)
    receiver.answering = lambda: (202, b"")
    emit(3)
    assert receiver.came.acquire(timeout=PATIENCE)  # so the three before are done with
    assert len(receiver.calls) == 4
    assert sender().dropped == 3
    assert capsys.readouterr().err.count(f"1 records dropped: it answered {status}") == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no url at all", "http://[", "ftp://x/"])
def test_a_url_that_nobody_answers_fails_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("audit_url", url)
    done = threading.Event()
    real = audit.Sender._drop

    def drop(self: audit.Sender, problem: str) -> None:
        real(self, problem)
        done.set()

    monkeypatch.setattr(audit.Sender, "_drop", drop)
    emit(0)
    assert done.wait(PATIENCE)
    assert records.parse(capsys.readouterr().out)


def test_a_process_that_can_start_no_thread_fails_nothing_and_sends_later(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        emit(0)
    shown = capsys.readouterr()
    assert records.parse(shown.out)
    assert "record dropped" in shown.err
    emit(1)
    assert receiver.came.acquire(timeout=PATIENCE)
