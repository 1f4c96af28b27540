"""gh-push as it is called: signatures, statuses, and what it hands to the gateway."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gh_push import handler
from gh_push.sdk import messages, secrets, signature
from gh_push.sdk.messages import Push
from tests.unit.test_push import EVENT

from .fakes import Event, FakeGateway

BODY = json.dumps(EVENT).encode()
KEY = b"webhook"


def call(
    body: bytes = BODY, event: str = "push", key: bytes = KEY, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    signed = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    given = {"X-GitHub-Event": event, "X-GitHub-Delivery": "d-1", "X-Hub-Signature-256": signed}
    given |= headers or {}
    answer = handler.handle(Event(body, {name: value for name, value in given.items() if value}), None)
    return answer["statusCode"], json.loads(answer["body"])


def test_a_push_is_answered_202_and_queued_signed_for_git_tar(
    gateway: FakeGateway, secret_folder: Path
) -> None:
    status, answer = call()
    assert status == 202
    assert answer == {
        "delivery": "d-1",
        "queued": {"repository": "alice/hello", "ref": "refs/heads/master", "after": "a" * 40},
    }
    [(name, body, headers)] = gateway.queued
    assert name == "git-tar"
    signature.verify(body, headers["X-Cloud-Signature"], secrets.read("payload-secret", str(secret_folder)))
    push = messages.unseal(body, "git-tar", Push, max_age=60)
    assert push.repository.clone_url == "https://github.com/alice/hello.git"
    assert len(body) < 1_000, "the event is trimmed"


def test_ping_is_answered_with_pong(gateway: FakeGateway) -> None:
    assert call(b"{}", "ping") == (200, {"delivery": "d-1", "ignored": "pong"})
    assert not gateway.calls


def test_another_branch_is_answered_200_with_the_reason(gateway: FakeGateway) -> None:
    status, answer = call(json.dumps({**EVENT, "ref": "refs/heads/wip"}).encode())
    assert (status, answer["ignored"]) == (200, "branch wip is not built: master is")
    assert not gateway.calls


@pytest.mark.parametrize(
    "header",
    ["", "sha256=" + "0" * 64, "sha1=" + hmac.new(KEY, BODY, hashlib.sha1).hexdigest()],
    ids=["missing", "wrong", "sha1"],
)
def test_a_bad_signature_is_401_before_anything_is_read(header: str, gateway: FakeGateway) -> None:
    status, answer = call(headers={"X-Hub-Signature-256": header})
    assert (status, answer["error"]["code"]) == (401, "unauthorized")
    assert not gateway.calls


def test_a_sha1_signature_in_its_own_header_is_401(gateway: FakeGateway) -> None:
    sha1 = "sha1=" + hmac.new(KEY, BODY, hashlib.sha1).hexdigest()
    assert call(headers={"X-Hub-Signature-256": "", "X-Hub-Signature": sha1})[0] == 401
    assert not gateway.calls


def test_without_the_secret_everything_is_refused(gateway: FakeGateway, secret_folder: Path) -> None:
    (secret_folder / "github-webhook-secret").unlink()
    status, answer = call(key=b"")
    assert status == 500
    assert "github-webhook-secret is missing" in answer["error"]["message"]
    assert not gateway.calls


@pytest.mark.usefixtures("rotating")
def test_the_secret_of_github_yml_works_and_a_file_wins(
    gateway: FakeGateway, secret_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("github_webhook_secret", "from-github.yml")
    assert call(key=b"from-github.yml")[0] == 401
    (secret_folder / "github-webhook-secret").unlink()
    assert call(key=b"from-github.yml")[0] == 202


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_malformed_json_is_400(body: bytes, gateway: FakeGateway) -> None:
    status, answer = call(body)
    assert (status, answer["error"]["code"]) == (400, "malformed")


def test_a_gateway_that_is_down_is_503(monkeypatch: pytest.MonkeyPatch, secret_folder: Path) -> None:
    monkeypatch.setattr(handler, "QUEUE_SECONDS", 0.5)
    monkeypatch.setenv("secret_mount_path", str(secret_folder))
    monkeypatch.setenv("gateway_url", "http://127.0.0.1:9/")
    status, answer = call()
    assert (status, answer["error"]["code"]) == (503, "unavailable")


def test_a_gateway_that_hangs_is_503_within_githubs_ten_seconds(gateway: FakeGateway) -> None:
    def hang(method: str, path: str, body: bytes) -> None:
        time.sleep(6)

    gateway.overrides.append(hang)
    started = time.monotonic()
    assert call()[0] == 503
    assert time.monotonic() - started < 9.5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_queue_that_refuses_is_never_answered_200(
    status: int, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "QUEUE_SECONDS", 0.5)
    gateway.overrides.append(lambda method, path, body: (status, b"no"))
    assert call()[0] >= 500


def test_get_says_what_it_is(gateway: FakeGateway) -> None:
    answer = json.loads(handler.handle(Event(method="GET"), None)["body"])
    assert answer["name"] == "gh-push"
    assert "X-Hub-Signature-256" in answer["takes"]
    assert answer["version"]
