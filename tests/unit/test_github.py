"""Tokens of the GitHub App, against an API that checks the JWT as GitHub does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
import responses
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from git_tar import github
from git_tar.fetch import Remote
from git_tar.sdk import github_app
from git_tar.sdk.errors import CloudError, Failed, Misconfigured, Refused, Unavailable, Upstream
from git_tar.sdk.messages import Installation, Push
from git_tar.sdk.settings import Settings
from tests.unit.test_messages import PUSH

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
API = "https://api.github.com"
TOKENS, REPOSITORY = f"{API}/app/installations/42/access_tokens", f"{API}/repositories/7"
PRIVATE = Push(**{**vars(PUSH), "installation": Installation(42)})
NOW: dict[str, Any] = {
    "id": 7,
    "name": "renamed",
    "full_name": "bob/renamed",
    "clone_url": "https://github.com/bob/renamed.git",
    "html_url": "https://github.com/bob/renamed",
    "private": True,
    "owner": {"login": "bob", "id": 9, "type": "User"},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "private-key").write_bytes(pem)
    return Settings(github_app_id="12", secret_mount_path=str(tmp_path))


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def minted(text: str = "ghs_hunter2", minutes: float = 60) -> dict[str, str]:
    expires = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    return {"token": text, "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}


def test_without_an_app_the_events_url_is_read_without_credentials(settings: Settings) -> None:
    here = replace(settings, github_app_id="")
    assert github.located(PRIVATE, github_app.Tokens(), here) == (PRIVATE, Remote(PUSH.repository.clone_url))


def test_the_token_is_for_this_repository_and_reads_contents_only(
    settings: Settings, api: responses.RequestsMock
) -> None:
    def mint(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        given = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(given, KEY.public_key(), algorithms=["RS256"], issuer="12")
        assert claims["exp"] - claims["iat"] <= 600
        assert claims["iat"] < time.time()
        assert json.loads(request.body or "") == {
            "repository_ids": [7],
            "permissions": {"contents": "read"},
        }
        return 201, {}, json.dumps(minted())

    api.add_callback(responses.POST, TOKENS, mint)
    api.get(REPOSITORY, json=NOW)
    push, remote = github.located(PRIVATE, github_app.Tokens(), settings)
    assert remote == Remote("https://github.com/bob/renamed.git", "ghs_hunter2")
    assert (push.repository.owner.login, push.repository.owner.id) == ("bob", 9)
    assert (push.repository.id, push.repository.full_name) == (7, "bob/renamed")
    assert api.calls[1].request.headers["Authorization"] == "Bearer ghs_hunter2"
    assert "hunter2" not in repr(remote)


def test_a_token_is_minted_again_only_shortly_before_it_expires(
    settings: Settings, api: responses.RequestsMock
) -> None:
    api.post(TOKENS, json=minted("first", minutes=60), status=201)
    api.post(TOKENS, json=minted("second", minutes=10), status=201)
    api.post(TOKENS, json=minted("third", minutes=60), status=201)
    tokens = github_app.Tokens()
    assert [tokens.token(42, 7, settings) for _ in range(2)] == ["first", "first"]
    assert [tokens.token(42, 8, settings) for _ in range(3)] == ["second", "third", "third"]
    assert "first" not in repr(tokens)


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {}, Misconfigured),
        (403, {}, Refused),
        (403, {"X-RateLimit-Remaining": "0"}, Unavailable),
        (403, {"Retry-After": "60"}, Unavailable),
        (404, {}, Failed),
        (422, {}, Refused),
        (429, {}, Unavailable),
        (502, {}, Unavailable),
        (301, {"Location": "https://evil.example"}, Refused),
    ],
)
def test_what_github_refuses_is_told_apart(
    status: int,
    headers: dict[str, str],
    error: type[CloudError],
    settings: Settings,
    api: responses.RequestsMock,
) -> None:
    api.post(TOKENS, status=status, headers=headers)
    with pytest.raises(error):
        github.located(PRIVATE, github_app.Tokens(), settings)


def test_github_that_cant_be_reached_is_unavailable(settings: Settings, api: responses.RequestsMock) -> None:
    with pytest.raises(Unavailable, match="can't be reached"):
        github.located(PRIVATE, github_app.Tokens(), settings)


@pytest.mark.parametrize(
    "key", [None, b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_key_that_is_missing_or_none_is_the_operators(key: bytes | None, settings: Settings) -> None:
    file = Path(settings.secret_mount_path) / "private-key"
    file.unlink()
    if key is not None:
        file.write_bytes(key)
    with pytest.raises(Misconfigured, match="private-key"):
        github.located(PRIVATE, github_app.Tokens(), settings)


def test_another_repository_than_the_one_asked_for_is_not_taken(
    settings: Settings, api: responses.RequestsMock
) -> None:
    api.post(TOKENS, json=minted(), status=201)
    api.get(REPOSITORY, json={**NOW, "id": 8})
    with pytest.raises(Upstream, match="repository 8 for 7"):
        github.located(PRIVATE, github_app.Tokens(), settings)


@pytest.mark.parametrize(
    ("status", "headers", "body", "seconds"),
    [
        (429, {"Retry-After": "30"}, "", 30),
        (403, {"Retry-After": "30"}, "", 30),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", 60),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1000"}, "", 1),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}, "", 3600),
        (403, {}, "You have exceeded a secondary rate limit", 60),
        (500, {}, "", 5),
    ],
)
def test_github_is_left_alone_for_as_long_as_it_wants(
    status: int,
    headers: dict[str, str],
    body: str,
    seconds: int,
    settings: Settings,
    api: responses.RequestsMock,
) -> None:
    api.get(REPOSITORY, status=status, headers=headers, body=body)
    with pytest.raises(Unavailable) as caught:
        github_app.ask("GET", "/repositories/7", "t", settings)
    assert caught.value.retry_after == seconds


def test_a_permission_that_the_app_lacks_is_named(settings: Settings, api: responses.RequestsMock) -> None:
    api.post(TOKENS, status=422, body='{"message": "The permissions requested are not granted"}')
    with pytest.raises(Refused, match="the App needs checks: write"):
        github_app.Tokens().token(42, 7, settings, "checks: write")
    assert json.loads(api.calls[0].request.body or "")["permissions"] == {"checks": "write"}
