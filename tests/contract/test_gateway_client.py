"""Our gateway client against what a real gateway answered."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sdk.errors import CloudError, Failed, Misconfigured, Superseded, Unavailable, Upstream
from sdk.gateway import Gateway

from . import recordings
from .fakes import Answer, Server, running


class Replay(Server):
    """Answers each request with the next recording, whose method and path it must have."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.exchanges = [recordings.load(name) for name in names]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        exchange = self.exchanges.pop(0) if len(self.exchanges) > 1 else self.exchanges[0]
        assert method == exchange.method
        assert path.split("?")[0].rpartition("/")[0] == exchange.path.split("?")[0].rpartition("/")[0]
        if exchange.request.body.startswith(b"{"):
            assert set(json.loads(body)) & set(json.loads(exchange.request.body))
        if exchange.response is None:
            raise ConnectionAbortedError
        return exchange.status, exchange.response.body


def replayed(call: Callable[[Gateway], Any], *names: str) -> Any:
    server = Replay(*names)
    with running(server):
        return call(Gateway(server.url, ("admin", "s3cret"), read_seconds=5))


SPEC = {"service": "hello", "image": "r/hello@sha256:1"}


def test_functions_are_listed_with_labels_and_environment() -> None:
    [hello] = replayed(Gateway.list, "57-list-full")
    assert (hello.name, hello.labels, hello.env_vars["A"]) == ("hello", {"l1": "x"}, "1")
    assert hello.secrets == ("s1",)
    assert replayed(Gateway.list, "02-functions-empty") == []


def test_a_status_has_its_ready_replicas() -> None:
    status = replayed(lambda gateway: gateway.get("hello"), "08-function-status")
    assert (status.available_replicas, status.annotations) == (1, {"a1": "y"})
    assert replayed(lambda gateway: gateway.get("crash"), "F2-status-crashed").available_replicas == 0


def test_a_missing_function_is_none() -> None:
    assert replayed(lambda gateway: gateway.get("hello"), "03-function-status-missing") is None


def test_a_deploy_updates_or_creates() -> None:
    replayed(lambda gateway: gateway.deploy(SPEC), "11-update-ok")
    replayed(lambda gateway: gateway.deploy(SPEC), "13-update-missing", "06-deploy-ok")


def test_what_is_there_is_not_created_over() -> None:
    with pytest.raises(Superseded, match="already exists"):
        replayed(lambda gateway: gateway.create(SPEC), "10-deploy-already-exists")


def test_deleting_what_is_gone_is_fine() -> None:
    replayed(lambda gateway: gateway.delete("hello"), "15-delete-ok")
    replayed(lambda gateway: gateway.delete("nope"), "14-delete-missing")


def test_secrets_are_listed_and_set() -> None:
    assert replayed(Gateway.secret_names, "33-secret-list") == {"s1"}
    assert replayed(Gateway.secret_names, "30-secrets-empty") == set()
    replayed(lambda gateway: gateway.set_secret("s1", "v"), "34-secret-update")


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("07-functions-one-no-prometheus", Unavailable, "does not answer"),
        ("05-wrong-auth", Misconfigured, "must hold the same secrets"),
    ],
)
def test_an_error_is_never_an_empty_list(name: str, kind: type[CloudError], said: str) -> None:
    with pytest.raises(kind, match=said):
        replayed(Gateway.list, name)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("60-update-unpullable", Upstream, "unable to pull image"),
        ("64-update-missing-secret", Failed, "unable to find secret: ghost"),
    ],
)
def test_a_refused_deploy_keeps_the_gateways_words(name: str, kind: type[CloudError], said: str) -> None:
    with pytest.raises(kind, match=said):
        replayed(lambda gateway: gateway.deploy(SPEC), name)


@pytest.mark.parametrize("name", ["21-invoke-unknown", "D1-upstream-timeout", "F3-invoke-crashed"])
def test_a_function_that_cannot_be_reached_may_work_later(name: str) -> None:
    exchange = recordings.load(name)

    class Once(Server):
        def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            assert exchange.response
            return exchange.status, exchange.response.body

    server = Once()
    with running(server), pytest.raises(Unavailable):
        Gateway(server.url).invoke("nope", b"x", {}, 5)


def test_a_call_is_queued_by_a_gateway_that_has_a_queue() -> None:
    replayed(lambda gateway: gateway.queue("hello", b"{}", {}, 5), "C4-async-unknown-fn")
    with pytest.raises(Misconfigured, match="queue-worker"):
        replayed(lambda gateway: gateway.queue("hello", b"{}", {}, 5), "22-async-no-nats")


def test_a_log_that_breaks_off_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"text": "one"}\n')

        thread = threading.Thread(target=serve)
        thread.start()
        lines = Gateway(f"http://127.0.0.1:{server.getsockname()[1]}").logs(
            "f", "2026-01-01T00:00:00Z", follow=False, read_seconds=5
        )
        with pytest.raises(Unavailable, match="the log of f broke off"):
            list(lines)
        thread.join()
