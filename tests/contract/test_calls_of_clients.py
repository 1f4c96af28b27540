"""What our code and faas-cli ask of a gateway: it is described, was recorded, and is served here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from buildshiprun import deployment
from local.gateway.deployment import parse
from local.gateway.settings import Settings
from local.gateway.swarm import LIVE, task_template
from sdk.gateway import Gateway
from tests.conftest import DATA, ROOT
from tests.unit.test_deployment import spec_of

from . import recordings
from .fakes import Answer, Server, running
from .local_gateway import V1, Client, deployed, run, until
from .openapi import described
from .swarm import FakeSwarm

_SPEC = deployment.complete(spec_of(), "r/x:t@sha256:1", "n", spec_of())
CALLS: Mapping[str, Callable[[Gateway], Any]] = {
    "ping": Gateway.ping,
    "info": Gateway.info,
    "list": Gateway.list,
    "namespaces": Gateway.namespaces,
    "get": lambda gateway: gateway.get("hello"),
    "deploy": lambda gateway: gateway.deploy(_SPEC),
    "create": lambda gateway: gateway.create(_SPEC),
    "delete": lambda gateway: gateway.delete("hello"),
    "secret_names": Gateway.secret_names,
    "set_secret": lambda gateway: gateway.set_secret("s", "v"),
    "invoke": lambda gateway: gateway.invoke("hello", b"x", {}, 5),
    "queue": lambda gateway: gateway.queue("hello", b"x", {}, 5),
    "logs": lambda gateway: list(
        gateway.logs("hello", "2026-01-01T00:00:00Z", follow=False, read_seconds=5, tail=3)
    ),
}
# Logs were not recorded: they are faasd's journal.
UNRECORDED = {("GET", "/system/logs")}
# Calls in our sources that are no method of the client; of /system/queue there is no description.
_IN_SOURCE = re.compile(r'"([A-Z]{3,7})", f?"(/(?:system|function|async-function|healthz)\b[^"?]*)')
_SOURCES = (
    "sdk",
    "local",
    "gh-push",
    "git-tar",
    "buildshiprun",
    "garbage-collect",
    "reconcile",
    "github-status",
)
_OURS = "/system/queue"


class Listener(Server):
    """Nothing is there to be updated, so that what is created is asked for too."""

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        path = path.partition("?")[0]
        if method == "PUT":
            return 404, b"not found\n"
        if path.startswith("/system/function/"):
            return 200, b'{"name": "hello"}'
        return 200, b"{}" if path == "/system/info" else b"[]"


def asked(call: Callable[[Gateway], Any], namespace: str) -> list[tuple[str, str, bytes]]:
    server = Listener()
    with running(server):
        call(Gateway(server.url, ("admin", "s3cret"), namespace=namespace))
    return [(method, path, body) for method, path, _, body in server.calls]


def test_each_call_of_our_client_is_among_these() -> None:
    assert {name for name in vars(Gateway) if callable(getattr(Gateway, name)) and name[0] != "_"} == {
        *CALLS,
        "of",
    }


@pytest.mark.parametrize("namespace", ["", "staging"])
@pytest.mark.parametrize("name", CALLS)
def test_what_our_client_asks_is_described(name: str, namespace: str, shared: Path) -> None:
    made = asked(CALLS[name], namespace)
    assert made
    for method, path, body in made:
        described(shared).check_request(method, path, body)


@pytest.mark.parametrize("name", CALLS)
def test_what_our_client_asks_was_recorded(name: str) -> None:
    known = recorded()
    for method, path, body in asked(CALLS[name], ""):
        call = (method, template(path))
        assert call in UNRECORDED or call in known
        if body.startswith(b"{"):
            assert any(json.loads(body).keys() & keys for keys in known[call])


def test_every_call_in_our_sources_is_described_or_recorded(shared: Path) -> None:
    found = {
        (method, re.sub(r"\{[^}]*\}", "x", path))
        for folder in _SOURCES
        for file in sorted((ROOT / folder).rglob("*.py"))
        if "local/gateway" not in file.as_posix()
        for method, path in _IN_SOURCE.findall(file.read_text())
    }
    assert len(found) > 10
    for method, path in found:
        is_known = (method, template(path)) in recorded() or described(shared).operation(method, path)
        assert is_known or path.startswith(_OURS), f"{method} {path}"


def recorded() -> Mapping[tuple[str, str], list[set[str]]]:
    """The calls that were recorded, with the keys of their bodies."""
    found: dict[tuple[str, str], list[set[str]]] = {}
    for name in filter(recordings.is_exchange, recordings.names()):
        exchange = recordings.load(name)
        keys: set[str] = set()
        if exchange.request.body.startswith(b"{") and exchange.request.body.endswith(b"}"):
            keys = set(json.loads(exchange.request.body))
        found.setdefault((exchange.method, template(exchange.path)), []).append(keys)
    return found


def template(path: str) -> str:
    """`/function/NAME` of any path below it."""
    return re.sub(r"^(/system/[a-z-]+|/(?:async-)?function)/.*", r"\1/NAME", path.partition("?")[0])


DEPLOYS = [
    case for case in json.loads((DATA / "faas-cli" / "deploy.json").read_text())["cases"] if case["requests"]
]
# What faas-cli leaves to the gateway to refuse.
REFUSED = {
    "full": "namespace dev is not supported here",
    "full-flags": "namespace dev is not supported here",
    "full-namespace-flag": "namespace prod is not supported here",
    "replace-with-namespace": "namespace dev is not supported here",
    "no-image": "invalid reference format",
    "uppercase-name": "invalid reference format",
    "gateway-flag": "404 page not found",  # there is no gateway below a path
}


@pytest.mark.parametrize("case", DEPLOYS, ids=[case["name"] for case in DEPLOYS])
def test_what_faas_cli_deploys_is_served(case: dict[str, Any], settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await client.post("/system/secrets", json={"name": "s1", "value": "v"})
        requests = [*case["requests"]]
        if requests[-1]["method"] == "PUT":  # it goes on to create what can't be updated
            requests.append({**requests[-1], "method": "POST"})
        for request in requests:
            headers = {"Content-Type": request["headers"]["Content-Type"]}
            body = request["body_raw"].encode()
            async with client.request(
                request["method"], request["path"], data=body, headers=headers
            ) as answer:
                status, said = answer.status, await answer.text()
            if case["name"] in REFUSED:
                assert said.startswith(REFUSED[case["name"]])
            else:
                assert status == 200 or (status, said) == (404, "service f not found\n")
        assert bool(swarm.services) is (case["name"] not in REFUSED)

    run(settings, test)


def test_a_secret_that_is_named_twice_is_mounted_once(settings: Settings) -> None:
    """As `faas-cli deploy --secret s1 --secret s1` does; Swarm takes no two mounts at one place."""
    deploy = parse(b'{"service": "f", "image": "a/f", "secrets": ["s1", "s1"]}')
    mounted = task_template(deploy, {"s1": ("id", "s1-1")}, settings)["ContainerSpec"]["Secrets"]
    assert [row["SecretID"] for row in mounted] == ["id"]


# https://github.com/openfaas/faas-cli, commands, proxy, and the go-sdk that it uses: what each command asks.
FAAS_CLI: Mapping[str, tuple[str, str, Any, int]] = {
    "login": ("GET", "/system/functions", None, 200),
    "list": ("GET", "/system/functions?namespace=openfaas-fn", None, 200),
    "describe, ready NAME": ("GET", "/system/function/hello?namespace=openfaas-fn", None, 200),
    "describe of what is not there": ("GET", "/system/function/nope", None, 404),
    "ready": ("GET", "/healthz", None, 200),
    "version": ("GET", "/system/info", None, 200),
    "namespaces": ("GET", "/system/namespaces", None, 200),
    "namespace get": ("GET", "/system/namespace/openfaas-fn", None, 404),
    "namespace create": ("POST", "/system/namespace/", {"name": "dev"}, 404),
    "namespace update": ("PUT", "/system/namespace/dev", {"name": "dev"}, 405),
    "namespace remove": ("DELETE", "/system/namespace/dev", {"name": "dev"}, 405),
    "scale, of the go-sdk": (
        "POST",
        "/system/scale-function/hello",
        {"serviceName": "hello", "namespace": "", "replicas": 2},
        200,
    ),
    "invoke": ("POST", "/function/hello", {}, 200),
    "invoke in a namespace": ("GET", "/function/hello.openfaas-fn?a=1", None, 200),
    "invoke --async": ("POST", "/async-function/hello", {}, 202),
    "secret list": ("GET", "/system/secrets?namespace=openfaas-fn", None, 200),
    "secret create": (
        "POST",
        "/system/secrets",
        {"name": "s", "namespace": "openfaas-fn", "value": "v"},
        200,
    ),
    "secret update": ("PUT", "/system/secrets", {"name": "s1", "rawValue": "AAEC"}, 200),
    "secret remove": ("DELETE", "/system/secrets", {"name": "s1"}, 200),
    "remove": ("DELETE", "/system/functions", {"functionName": "hello", "namespace": ""}, 200),
    "remove what is not there": ("DELETE", "/system/functions", {"functionName": "nope"}, 404),
}


@pytest.mark.parametrize("command", FAAS_CLI)
def test_what_faas_cli_asks_is_served(command: str, settings: Settings) -> None:
    method, path, body, status = FAAS_CLI[command]

    async def test(client: Client, swarm: FakeSwarm) -> None:
        await client.post("/system/secrets", json={"name": "s1", "value": "v"})
        await deployed(client)
        await until(lambda: is_proven(swarm))
        async with client.request(method, path, json=body) as answer:
            assert answer.status == status

    run(settings, test)


async def is_proven(swarm: FakeSwarm) -> bool:
    return swarm.of(V1).generation.state == LIVE
