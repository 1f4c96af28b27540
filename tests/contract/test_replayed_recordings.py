"""Every recorded exchange with a real gateway, asked again of the local one.

What it says otherwise is in differences.py, with why.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from local.gateway.settings import Settings
from sdk.settings import Seconds

from . import recordings
from .differences import DIFFERENT, NOT_REPLAYED
from .local_gateway import Client, run
from .openapi import described
from .recordings import Exchange
from .replay import CAT, HELLO, Delete, Deploy, Got, Replay, Step, replayed
from .swarm import FakeSwarm

_V1 = f"{HELLO}:v1"
_ENV = {"envProcess": "env", "envVars": {"healthcheck_interval": "1s"}}

# What was done between the recordings, or is otherwise after one of the differences.
BEFORE: Mapping[str, tuple[Step, ...]] = {
    "63-redeploy": (Delete("hello"),),
    "89-list": (Deploy("cat", CAT, {"envProcess": "cat"}),),
    "90b-delete-cat-retry": (Deploy("cat", CAT),),
    **{f"95-ref-{number}": (Delete("r"),) for number in range(1, 12)},
    "96-ref-with-docker-config": (Delete("r"),),
    "F1-deploy-crashing": (Deploy("hello", _V1), Deploy("cat", CAT, _ENV)),
    "F17-list": (Deploy("mem", _V1), Deploy("bad2", CAT, {"envProcess": "cat"})),
    "F20-label-ok": (Delete("lab"),),
    "J1-inflight-during-put": (Deploy("hello", _V1),),
}
AT_ONCE = {
    "F14-concurrent-put-a": "F14-concurrent-put-b",
    "J1-inflight-during-put": "J2-put",
}
# Those that tests of their own replay.
APART = {"C8-async-256001-bytes", "C9-callbacks-received"}
REPLAYED = [name for name in recordings.names() if name not in NOT_REPLAYED and name not in APART]
# Headers whose value a client may look at, and those that need only be there.
_SAME = ("Www-Authenticate", "X-Content-Type-Options", "X-Openfaas-Internal")
_THERE = ("X-Call-Id", "X-Start-Time")
# Of callbacks: what the worker's client adds, and what the function says.
_NOT_OURS = {"User-Agent", "Accept-Encoding", "Connection", "X-Served-By", "Date"}
_TOLD = {
    "Content-Type",
    "Content-Length",
    "X-Content-Type-Options",
    "X-Fn-Version",
    "X-Function-Name",
    "X-Function-Status",
    "X-Openfaas-Internal",
}


def session_of(name: str) -> str:
    """They were made in a row: of faasd, with a queue, with short timeouts, of what crashes."""
    if name[0].isdigit():
        return "faasd"
    return "queue" if name == "D11-ok" else {"C": "queue", "D": "timeouts"}.get(name[0], "crashes")


def steps_of(session: str) -> list[Step]:
    steps: list[Step] = [Deploy("hello", _V1)] if session == "timeouts" else []
    for name in REPLAYED:
        if session_of(name) == session and name not in AT_ONCE.values():
            steps += BEFORE.get(name, ())
            steps.append((name, AT_ONCE[name]) if name in AT_ONCE else name)
    return steps


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "basic-auth-user").write_text("admin")
    (folder / "basic-auth-password").write_text("s3cret")

    @cache
    def of(session: str) -> Replay:
        settings = Settings(
            secret_mount_path=str(folder),
            queue_path=str(tmp_path_factory.mktemp("queue")),
            queue_attempts=1,
            callback_networks=("127.0.0.0/8",),
            upstream_timeout=Seconds(0.4 if session == "timeouts" else 60),
            probation=Seconds(0.1),
            connect_patience=Seconds(0.1),
        )
        return asyncio.run(replayed(settings, steps_of(session)))

    return of


@pytest.mark.parametrize("name", REPLAYED)
def test_it_answers_as_the_recorded_gateway(name: str, answers: Any) -> None:
    got, exchange = answers(session_of(name)).answers[name], recordings.load(name)
    found = differences(exchange, got)
    if name not in DIFFERENT:
        assert not found
        return
    assert found, "it is no longer different: take it off the list"
    listed = DIFFERENT[name]
    assert got.status == listed.status
    assert re.match(listed.text, got.body.decode())


def test_each_recording_is_replayed_or_named_with_a_reason() -> None:
    there = set(recordings.names())
    assert set(DIFFERENT) <= set(REPLAYED)
    assert set(BEFORE) | set(AT_ONCE) | set(AT_ONCE.values()) <= set(REPLAYED)
    assert set(NOT_REPLAYED) | APART <= there
    assert there == set(NOT_REPLAYED) | APART | set(REPLAYED)
    assert all(recordings.is_exchange(name) for name in REPLAYED)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in REPLAYED
        if (response := recordings.load(name).response) and b'"headers":{' in response.body
    ],
)
def test_a_function_is_asked_as_the_recorded_one_was(name: str, answers: Any) -> None:
    """The recorded function answered with what it was asked."""
    response = recordings.load(name).response
    assert response
    seen, asked = json.loads(response.body), answers(session_of(name)).answers[name].asked
    assert {key: asked[key] for key in ("method", "path", "query", "body")} == {
        key: seen[key] for key in ("method", "path", "query", "body")
    }
    # Go's client asks for gzip by itself; Host and Content-Length are no headers to it.
    assert {*seen["headers"]} - {"Accept-Encoding"} == {*asked["headers"]} - {"Host", "Content-Length"}
    for header in {*seen["headers"]} - {"Accept-Encoding", "X-Call-Id", "X-Start-Time", "X-Forwarded-For"}:
        assert asked["headers"][header] == seen["headers"][header]


@pytest.mark.parametrize("name", REPLAYED)
def test_what_it_answers_is_of_the_described_shape(name: str, answers: Any, shared: Path) -> None:
    got, exchange = answers(session_of(name)).answers[name], recordings.load(name)
    described(shared).check_answer(exchange.method, exchange.path, got.status, got.body)


def test_callbacks_say_what_the_recorded_ones_did(answers: Any) -> None:
    made = {path: (headers, body) for path, headers, body in answers("queue").callbacks}
    recorded = {message.start.split()[1]: message for message in recordings.callbacks()}
    assert made.keys() == recorded.keys() == {"/cb", "/cb2", "/cb3"}
    for path, message in recorded.items():
        headers, body = made[path]
        assert body == message.body
        theirs = {name.title() for name in message.headers} - _NOT_OURS
        assert theirs <= headers.keys()
        assert float(headers["X-Duration-Seconds"]) >= 0
        for name in theirs & _TOLD:
            assert headers[name] == message.headers[name]
    assert made["/cb2"][0]["X-Call-Id"] == "mine-7"


def test_a_body_that_is_too_large_for_the_queue_is_refused_as_recorded(settings: Settings) -> None:
    text = (recordings.FOLDER / "C8-async-256001-bytes.txt").read_text()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        async with client.post("/async-function/hello", data=b"x" * 256_001) as answer:
            assert answer.status == 500
            assert (await answer.text()).strip() == text.strip().splitlines()[-1].replace(
                " for OpenFaaS CE", ""
            )

    run(settings, test)


def differences(exchange: Exchange, got: Got) -> list[str]:
    """What of the recorded answer is not in ours; ours may say more."""
    recorded = exchange.response
    if recorded is None:
        return ["the connection was closed without an answer"]
    mine = {name.title(): text for name, text in got.headers.items()}
    theirs = {name.title(): text for name, text in recorded.headers.items()}
    found = [] if got.status == exchange.status else [f"status {got.status}"]
    found += [name for name in _SAME if name in theirs and mine.get(name) != theirs[name]]
    found += [name for name in _THERE if name in theirs and name not in mine]
    if _media_type(mine) != _media_type(theirs) and recorded.body:
        found.append(f"Content-Type {_media_type(mine)}")
    if not _says(recorded.body, got.body):
        found.append(f"body {got.body[:300]!r}")
    return found


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0]


def _says(recorded: bytes, got: bytes) -> bool:
    try:
        return _has(json.loads(got), json.loads(recorded))
    except ValueError:
        return got == recorded


def _has(mine: Any, theirs: Any) -> bool:
    """Whether mine has all of theirs; the order of functions is no one's promise, times are their own."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        keys = theirs.keys() - {"createdAt"}
        return keys <= mine.keys() and all(_has(mine[key], theirs[key]) for key in keys)
    if isinstance(theirs, list) and isinstance(mine, list):
        pairs = zip(sorted(mine, key=_name), sorted(theirs, key=_name), strict=False)
        return len(mine) == len(theirs) and all(_has(*pair) for pair in pairs)
    return bool(mine == theirs)


def _name(row: Any) -> str:
    return str(row["name"]) if isinstance(row, dict) else str(row)
