"""Every hand-over of a push, and what happens when it fails: the table of docs/guarantees.md as a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

import buildshiprun.handler
import buildshiprun.sdk.sessions
import buildshiprun.ship
import garbage_collect.sdk.sessions
import gh_push.handler
import gh_push.sdk.sessions
import git_tar.sdk.sessions
from git_tar.sdk import records, secrets_file

from . import test_gh_push, test_pipeline, test_sealed_secrets
from .fakes import Answer, Event, FakeGateway, Server
from .test_pipeline import HANDLER, Cloud, files, stack, stages

cloud, seal_key = test_pipeline.cloud, test_sealed_secrets.seal_key
Failure = Callable[[Callable[[], Answer]], Answer]


@dataclass(frozen=True)
class Point:
    """A hand-over: the requests to one of the fakes that make it."""

    server: str
    method: str
    path: str
    is_json: bool | None = None

    def made_by(self, method: str, path: str, body: bytes) -> bool:
        fits = self.is_json is None or self.is_json == body.startswith(b"{")
        return fits and (method, path.partition("?")[0]) == (self.method, self.path)


POINTS = {
    "git-tar to buildshiprun": Point("gateway", "POST", "/function/buildshiprun", False),
    "git-tar to buildshiprun, closing": Point("gateway", "POST", "/function/buildshiprun", True),
    "buildshiprun to garbage-collect": Point("gateway", "POST", "/function/garbage-collect"),
    "buildshiprun to of-builder, image": Point("builder", "GET", "/image"),
    "buildshiprun to of-builder, build": Point("builder", "POST", "/build"),
    "buildshiprun to gateway, status": Point("gateway", "GET", "/system/function/alice-one"),
    "buildshiprun to gateway, secrets": Point("gateway", "GET", "/system/secrets"),
    "buildshiprun to gateway, a sealed secret": Point("gateway", "PUT", "/system/secrets"),
    "buildshiprun to gateway, update": Point("gateway", "PUT", "/system/functions"),
    "buildshiprun to gateway, create": Point("gateway", "POST", "/system/functions"),
    "garbage-collect to gateway, list": Point("gateway", "GET", "/system/functions"),
    "garbage-collect to gateway, delete": Point("gateway", "DELETE", "/system/functions"),
}
POINT = pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())


def cut(answering: Callable[[], Answer]) -> Answer:
    """The connection ends without an answer, and nothing was done."""
    raise ConnectionAbortedError


def lost(answering: Callable[[], Answer]) -> Answer:
    """All was done, and the answer never arrives."""
    answering()
    raise ConnectionAbortedError


def applied(answering: Callable[[], Answer]) -> Answer:
    answering()
    return 502, b""


def broken_off(answering: Callable[[], Answer]) -> Answer:
    """All was done, and the connection ends in the middle of the answer."""
    status, content, *_ = answering()
    half = content[: len(content) // 2]
    return status, half, {"Content-Length": str(len(content) + 1), "Connection": "close"}


def answered(status: int, body: bytes = b"") -> Callable[[Callable[[], Answer]], Answer]:
    return lambda answering: (status, body)


FAILURES = {
    "cut": cut,
    "lost": lost,
    "broken off": broken_off,
    "done, but 502": applied,
    "killed": answered(500, b"Can't reach service for: x.\n"),
}
RETRIED = (408, 425, 429, 502, 503, 504)


@pytest.fixture
def fail(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[[Point, Iterable[Failure]], list[str]]:
    """Makes the first requests of a point fail, each in its way; the list that it returns grows with each."""

    def install(point: Point, failures: Iterable[Failure]) -> list[str]:
        server: Server = cloud.gateway if point.server == "gateway" else cloud.builder
        whole, left, failed = server.answer, iter(failures), list[str]()

        def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            with server.lock:
                failure = next(left, None) if point.made_by(method, path, body) else None
            if failure is None:
                return whole(method, path, headers, body)
            failed.append(path)
            return failure(lambda: whole(method, path, headers, body))

        monkeypatch.setattr(server, "answer", answer)
        return failed

    for sdk in (buildshiprun.sdk, garbage_collect.sdk, gh_push.sdk, git_tar.sdk):
        monkeypatch.setattr(sdk.sessions, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("buildshiprun.ship.POLL_SECONDS", 0.01)
    monkeypatch.setattr("git_tar.pipeline.PATIENCE_SECONDS", 2)
    monkeypatch.setattr("git_tar.pipeline.FINISH_SECONDS", 2)
    return install


def changed(cloud: Cloud) -> str:
    """A push that makes every hand-over: one is updated, new created with secrets, and old removed."""
    assert cloud.push(cloud.origin.commit(files("one", "old")))[0] == 200
    cloud.gateway.secrets.add("gh-3-db")
    text = json.loads(stack("one", "new"))
    text["functions"]["new"]["secrets"] = ["db", "own"]
    second = {"one/handler.py": HANDLER + "# 2\n", "new/handler.py": HANDLER, "stack.yml": json.dumps(text)}
    second["secrets.yml"] = secrets_file.document(test_sealed_secrets.sealed(own="sealed"))
    return cloud.origin.commit(second)


def is_live(cloud: Cloud, sha: str) -> bool:
    return set(cloud.live) == {"alice-one", "alice-new"} and all(
        f":{sha}@sha256:" in image for image in cloud.live.values()
    )


FAILURE = pytest.mark.parametrize(
    "failures",
    [[failure] for failure in FAILURES.values()] + [[answered(status) for status in RETRIED]],
    ids=[*FAILURES, "each status"],
)


@FAILURE
@POINT
def test_what_fails_at_first_is_done_again_within_the_push(
    point: Point, failures: list[Failure], cloud: Cloud, fail: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = changed(cloud)
    failed = fail(point, failures)
    status, answer = cloud.push(sha)
    if status == 503 and point.method == "DELETE":  # what can't be deleted is left to the queue
        status, answer = cloud.push(sha)
    assert (status, answer.get("outcome")) == (200, "ok"), answer
    assert len(failed) == len(failures), "the hand-over was made"
    assert is_live(cloud, sha)
    last = stages(capsys)[-1]
    assert (last.stage, last.outcome, last.terminal) == ("push", "ok", True)


class Killed(BaseException):
    """kill -9: nothing of ours catches it."""


OF_BUILDSHIPRUN = [
    name for name, point in POINTS.items() if name.startswith("buildshiprun to") and point.is_json is None
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OF_BUILDSHIPRUN)
def test_a_buildshiprun_that_is_killed_in_the_middle_is_called_again_within_the_push(
    name: str, when: str, cloud: Cloud, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around each of its calls; the gateway then has a connection that is cut, and passes that on."""
    sha, killed, whole = changed(cloud), list[str](), requests.Session.request

    def request(self: requests.Session, method: str, url: str, **rest: Any) -> requests.Response:
        is_last = not killed and POINTS[name].made_by(method, urlsplit(url).path, b"")
        if is_last:
            killed.append(url)
        if is_last and when == "before":
            raise Killed
        response = whole(self, method, url, **rest)
        if is_last:
            raise Killed
        return response

    def dying(event: Event) -> Mapping[str, Any]:
        try:
            return buildshiprun.handler.handle(event, None)
        except Killed:
            raise ConnectionAbortedError from None

    monkeypatch.setattr(requests.Session, "request", request)
    cloud.gateway.handlers["buildshiprun"] = dying
    status, answer = cloud.push(sha)
    assert (status, answer.get("outcome"), len(killed)) == (200, "ok", 1), answer
    assert is_live(cloud, sha)


@POINT
def test_what_stays_away_is_tried_later_and_removes_nothing(
    point: Point, cloud: Cloud, fail: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("git_tar.pipeline.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("git_tar.pipeline.FINISH_SECONDS", 0.1)
    sha = changed(cloud)
    failed = fail(point, repeat(answered(503)))
    status, answer = cloud.push(sha)
    assert (status, answer["error"]["code"]) == (503, "unavailable"), answer
    last = stages(capsys)[-1]
    assert (last.stage, last.outcome, last.terminal) == ("push", "retry", False)
    assert "alice-old" in cloud.live
    assert len(failed) > 1, "within its time, it was tried again"
    monkeypatch.undo()


@POINT
def test_a_401_fails_the_push_for_good_and_rings_the_alarm(
    point: Point, cloud: Cloud, fail: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = changed(cloud)
    before = cloud.live
    body = json.dumps({"error": {"code": "unauthorized", "message": "the signature does not match"}})
    failed = fail(point, repeat(answered(401, body.encode())))
    capsys.readouterr()
    status, answer = cloud.push(sha)
    assert (status, answer["error"]["code"]) == (500, "misconfigured"), answer
    assert status not in git_tar.sdk.errors.RETRIED, "the queue keeps it aside"
    assert "must hold the same secrets" in answer["error"]["message"]
    assert len(failed) <= len(("one", "new")), "nothing is tried again"
    shown = capsys.readouterr()
    last = [record for record in map(records.parse, shown.out.splitlines()) if record][-1]
    assert (last.stage, last.outcome, last.terminal) == ("push", "failed", True)
    assert "must hold the same secrets" in last.error
    assert "ALARM: an operator must act: " in shown.err
    assert "alice-old" in cloud.live
    assert set(before) <= set(cloud.live)


def alarmed(log: str) -> set[str]:
    """The functions whose log says that an operator must act."""
    rows = [json.loads(line) for line in log.splitlines() if "ALARM: an operator must act: " in line]
    return {row["from"] for row in rows}


@pytest.mark.parametrize(
    "point",
    [point for point in POINTS.values() if point.path.startswith("/system/")],
    ids=[name for name, point in POINTS.items() if point.path.startswith("/system/")],
)
def test_a_403_of_the_gateway_itself_rings_the_alarm_too(
    point: Point, cloud: Cloud, fail: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = changed(cloud)
    failed = fail(point, repeat(answered(403, b"forbidden")))
    status, answer = cloud.push(sha)
    assert (status, answer["error"]["code"]) == (500, "misconfigured"), answer
    assert f"the user of the secret basic-auth-user may not {point.method}" in answer["error"]["message"]
    assert len(failed) <= len(("one", "new"))
    assert "git-tar" in alarmed(capsys.readouterr().err)
    assert "alice-old" in cloud.live


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_deploy_that_the_gateway_refuses_once_is_sent_again(method: str, cloud: Cloud, fail: Any) -> None:
    sha = changed(cloud)
    fail(Point("gateway", method, "/system/functions"), [answered(500, b"conflict\n")])
    assert cloud.push(sha)[0] == 200
    assert is_live(cloud, sha)


@pytest.mark.parametrize(("method", "status"), [("PUT", 202), ("POST", 200)])
def test_a_deploy_that_is_answered_200_and_not_done_is_no_success(
    method: str, status: int, cloud: Cloud, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubernetes may answer: only a GET that shows the nonce says that it was done."""
    monkeypatch.setattr("git_tar.pipeline.PATIENCE_SECONDS", 0)
    sha = changed(cloud)
    failed = fail(Point("gateway", method, "/system/functions"), repeat(answered(status)))
    code, answer = cloud.push(sha)
    assert (code, answer["error"]["code"]) == (503, "unavailable"), answer
    assert "the gateway took the deploy, but does not show it" in answer["error"]["message"]
    assert len(failed) == buildshiprun.ship.PUT_TRIES
    assert "alice-old" in cloud.live, "nothing is collected"


@FAILURE
def test_an_event_is_queued_also_when_the_queue_fails_at_first(
    failures: list[Failure], gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    if failures == [FAILURES["killed"]]:
        pytest.skip("the queue is the gateway itself")
    monkeypatch.setattr(gh_push.sdk.sessions, "PAUSE_SECONDS", 0.01)
    whole, left = gateway.answer, iter(failures)

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        failure = next(left, None)
        if failure is None:
            return whole(method, path, headers, body)
        return failure(lambda: whole(method, path, headers, body))

    monkeypatch.setattr(gateway, "answer", answer)
    assert test_gh_push.call()[0] == 202
    assert {name for name, _, _ in gateway.queued} == {"git-tar"}


@pytest.mark.parametrize(
    ("status", "answered_with", "code"),
    [
        (503, 503, "unavailable"),
        (429, 503, "unavailable"),
        (401, 500, "misconfigured"),
        (404, 500, "misconfigured"),
        (500, 502, "upstream"),
    ],
)
def test_an_event_that_is_not_queued_is_never_answered_as_if_it_were(
    status: int, answered_with: int, code: str, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gh_push.handler, "QUEUE_SECONDS", 0.3)
    gateway.overrides.append(lambda method, path, body: (status, b"no"))
    got, answer = test_gh_push.call()
    assert (got, answer["error"]["code"]) == (answered_with, code)
