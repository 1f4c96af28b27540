"""The recorded exchanges, asked again of a local gateway in the recorded order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from local.gateway.settings import Settings

from . import recordings
from .local_gateway import AUTH, Client, serving, until
from .receiver import Receiver, receiving
from .recordings import Exchange, Message
from .swarm import Behaviour, FakeSwarm

HELLO, CAT = "127.0.0.1:18085/acme/hello", "127.0.0.1:18085/acme/cat:latest"
DIGEST = f"{HELLO}@sha256:3b6893558fe8599bfc501b174361c522078b9d21bfe4d172e1a065bcf75dbebe"
# What the recorded gateway could pull; it starts, unless it says otherwise.
IMAGES: Mapping[str, Behaviour] = {
    f"{HELLO}:v1": Behaviour(),
    f"{HELLO}:v2": Behaviour(),
    "localhost:18085/acme/hello:v1": Behaviour(),
    DIGEST: Behaviour(),
    CAT: Behaviour(),
    "127.0.0.1:18085/acme/crash:v1": Behaviour(dies_after=0.0),
    "127.0.0.1:18085/acme/noexec:v1": Behaviour(rejected='exec: "/bin/missing": no such file'),
}
# The gateway's own of what an answer says.
_GATEWAYS = frozenset(
    "x-call-id x-served-by x-start-time date connection content-length host user-agent accept-encoding "
    "x-duration-seconds x-function-name x-function-status".split()
)
# Where the recorded callbacks went.
_RECEIVER = "http://127.0.0.1:18090"


@dataclass(frozen=True)
class Got:
    """What the gateway answered, and what the function had been asked, if it was."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deploy:
    """What was done between two recordings: a function is there, as if it had just been deployed."""

    name: str
    image: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Delete:
    name: str


# A step is a recording, recordings that were made at once, or what was done between them.
Step = str | tuple[str, ...] | Deploy | Delete


class Images(FakeSwarm):
    """A Swarm that pulls what the recorded gateway could, and whose functions answer as the recorded ones."""

    def __init__(self) -> None:
        super().__init__()
        self.replayed: Exchange | None = None
        self.asked: dict[str, Any] = {}
        for image, behaviour in IMAGES.items():
            self.behaviours[image] = Behaviour(**{**vars(behaviour), "answer": self.answer})

    async def check_image(self, image: str) -> None:
        if image not in IMAGES:
            self.unpullable.add(image)
        await super().check_image(image)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/sleep":
            await asyncio.sleep(float(request.query["d"].removesuffix("s")) / 10)
        self.asked = {
            "method": request.method,
            "path": request.path,
            "query": request.query_string,
            "body": body.decode(),
            "headers": dict(request.headers),
        }
        recorded = _called_back(request.path, self.asked["body"])
        if not recorded and self.replayed:
            recorded = self.replayed.response
        if recorded is None or "X-Openfaas-Internal" in recorded.headers:
            return web.Response(text="there was no answer of a function")
        headers = {name: text for name, text in recorded.headers.items() if name.lower() not in _GATEWAYS}
        return web.Response(body=recorded.body, headers=headers)


def _called_back(path: str, body: str) -> Message | None:
    """The recorded function answered with what it was asked."""
    for message in recordings.callbacks():
        if message.headers["X-Function-Status"] == "200":
            seen = json.loads(message.body)
            if (seen["path"], seen["body"]) == (path, body):
                return message
    return None


@dataclass(frozen=True)
class Replay:
    """The local gateway's answers by recording, and the callbacks that it made: path, headers, body."""

    answers: Mapping[str, Got]
    callbacks: Sequence[tuple[str, Mapping[str, str], bytes]]


async def replayed(settings: Settings, steps: Sequence[Step]) -> Replay:
    swarm = Images()
    found: dict[str, Got] = {}
    # What the tests' client would add was not on the wire.
    added = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
    try:
        async with (
            receiving() as receiver,
            serving(settings, swarm) as client,
            aiohttp.ClientSession(skip_auto_headers=added) as plain,
        ):
            for step in steps:
                if isinstance(step, (Deploy, Delete)):
                    await _do(client, step)
                else:
                    names = (step,) if isinstance(step, str) else step
                    calls = [_ask(plain, client, swarm, receiver, name) for name in names]
                    found.update(zip(names, await asyncio.gather(*calls), strict=True))
                await until(lambda: _is_settled(client))
            await until(lambda: _is_quiet(client))
    finally:
        await swarm.close()
    return Replay(found, receiver.got)


async def _do(client: Client, step: Deploy | Delete) -> None:
    if isinstance(step, Delete):
        await client.delete("/system/functions", json={"functionName": step.name})
        return
    sent = {"service": step.name, "image": step.image, **step.more}
    if (await client.put("/system/functions", json=sent)).status == 404:
        assert (await client.post("/system/functions", json=sent)).status == 200


async def _ask(
    plain: aiohttp.ClientSession, client: Client, swarm: Images, receiver: Receiver, name: str
) -> Got:
    exchange = recordings.load(name)
    swarm.replayed, swarm.asked = exchange, {}
    headers = {
        key: text.replace(_RECEIVER, receiver.origin)
        for key, text in exchange.request.headers.items()
        if key != "Connection"
    }
    url, body = client.make_url(exchange.path), exchange.request.body or None
    async with plain.request(exchange.method, url, headers=headers, data=body) as answer:
        return Got(answer.status, dict(answer.headers), await answer.read(), swarm.asked)


async def _is_settled(client: Client) -> bool:
    """Whether each function is ready, or known not to get ready: the recordings are seconds apart."""
    found = await (await client.get("/system/functions", headers=AUTH)).json()
    return all(
        rows.get("availableReplicas") or rows.get("failure") or not rows.get("replicas") for rows in found
    )


async def _is_quiet(client: Client) -> bool:
    """Whether the queue has done all it can."""
    return all(call["state"] == "failed" for call in await (await client.get("/system/queue")).json())
