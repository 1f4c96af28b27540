"""The doctor against our own functions behind a gateway, each thing broken in turn."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from local.cli import main
from local.gateway.settings import Settings as GatewaySettings
from local.state import State
from sdk import messages, secrets, stack
from sdk.checkup import Check, Health, Wanted
from tests.conftest import ROOT

from .fakes import Answer, Event, FakeBuilder, FakeGateway
from .local_gateway import Client, run
from .swarm import FakeSwarm

PLATFORM = {function.name: function for function in stack.parse((ROOT / "stack.yml").read_bytes()).functions}
SECRETS = {name for function in PLATFORM.values() for name in function.secrets}
MESSAGED = sorted(name for name, function in PLATFORM.items() if "payload-secret" in function.secrets)


@dataclass
class Installation:
    """All functions behind a gateway, with of-builder; as `doctor` finds them."""

    gateway: FakeGateway
    builder: FakeBuilder
    folder: Path

    def deploy(self) -> None:
        self.gateway.secrets |= SECRETS
        for name, function in PLATFORM.items():
            self.gateway.handlers[name] = partial(answered, name)
            self.gateway.functions[name] = {
                "service": name,
                "image": "x",
                "envVars": dict(function.environment),
                "secrets": list(function.secrets),
            }
        self.gateway.functions["alice-hello"] = {
            "service": "alice-hello",
            "image": "127.0.0.1:5000/github/3/7/hello:sha@sha256:1",
            "labels": {"com.openfaas.cloud.git-repo": "hello"},
        }
        at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        fields = ("delivery", "owner", "repo", "sha", "function")
        record = {"at": at, "stage": "reconcile", "outcome": "ok", "seconds": 1, **dict.fromkeys(fields, "")}
        self.gateway.logs["reconcile"] = [json.dumps(record)]

    def doctor(self, *more: str, keys: bool = True) -> tuple[int, list[str]]:
        password = self.folder / "basic-auth-password"
        given = ["--gateway", self.gateway.url, "--password-file", str(password), *more]
        if keys:
            given += ["--payload-secret-file", str(self.folder / "payload-secret")]
            given += ["--webhook-secret-file", str(self.folder / "github-webhook-secret")]
        done = CliRunner().invoke(main, ("doctor", *given))
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout.splitlines()

    def finds(self, *said: str, **how: Any) -> None:
        """It finds just these, and says of each what to do."""
        code, lines = self.doctor(**how)
        found = [line for line in lines if line.startswith(("warn ", "fail "))]
        assert code == 1, lines
        assert len(found) == len(said), found
        for line, part in zip(found, said, strict=True):
            assert part in line
            assert " → " in line


def answered(name: str, event: Event) -> Mapping[str, Any]:
    handler = importlib.import_module(f"{name.replace('-', '_')}.handler")
    answer: Mapping[str, Any] = handler.handle(event, None)
    return answer


@pytest.fixture
def there(
    gateway: FakeGateway, builder: FakeBuilder, secret_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    for name in PLATFORM["buildshiprun"].environment:
        if name.endswith("_timeout"):
            monkeypatch.setenv(name, "900s")
    monkeypatch.setenv("builder_url", builder.url)
    (secret_folder / "seal-key").write_text(base64.b64encode(bytes(32)).decode())
    monkeypatch.setattr(State, "here", classmethod(lambda cls: State(secret_folder / "none")))
    made = Installation(gateway, builder, secret_folder)
    made.deploy()
    return made


def test_where_all_is_fine_it_says_so_and_what_it_cannot_see(there: Installation) -> None:
    code, lines = there.doctor()
    assert code == 0, "\n".join(lines)
    for said in (
        "answers: faasd dev",
        f"all {len(PLATFORM)} are deployed, answer, and are of version",
        f"all {len(SECRETS)} are there",
        "of-builder   answers buildshiprun",
        "registry push an image was built and pushed",
        "cluster pull alice-hello runs, from 127.0.0.1:5000",
        "clocks       at most",
        "git-tar: 900 s, its longest call takes 780 s",
        "gh-push answers a signed ping",
        "reconcile    looked after the repositories",
        "can't be seen from here: the gateway's read_timeout, write_timeout and upstream_timeout",
        "can't be seen from here: the queue worker's ack_wait",
        "can't be seen from here: whether GitHub reaches gh-push",
    ):
        assert [line for line in lines if said in line], (said, lines)
    assert [image.rpartition("/")[2] for image in there.builder.built] == ["doctor:check"]
    assert not there.gateway.queued


def test_with_the_gateways_credentials_alone_it_names_what_it_would_need(there: Installation) -> None:
    code, lines = there.doctor(keys=False)
    assert code == 0, "\n".join(lines)
    unseen = [line for line in lines if line.startswith("unseen ")]
    for flag in ("--payload-secret-file", "--webhook-secret-file"):
        assert [line for line in unseen if flag in line]
    assert [line for line in lines if "ok     timeouts     git-tar: 900 s" in line], (
        "as the gateway shows them"
    )


def test_as_json_it_is_for_scripts(there: Installation) -> None:
    del there.gateway.functions["reconcile"]
    code, lines = there.doctor("--json")
    told = json.loads("\n".join(lines))
    assert (code, told["fine"]) == (1, False)
    assert {"level": "fail", "about": "functions", "found": "reconcile is not deployed"}.items() <= next(
        finding for finding in told["findings"] if finding["level"] == "fail"
    ).items()


def test_nothing_that_it_prints_is_a_secret(there: Installation) -> None:
    (there.folder / "builder-secret").write_text("no longer the builder's")
    _, lines = there.doctor("--json")
    for file in there.folder.iterdir():
        value = file.read_text().strip()
        assert value in ("admin", "builder", "payload", "webhook") or value not in "\n".join(lines)


def refuse(path: str, answer: Answer) -> Callable[[str, str, bytes], Answer | None]:
    return lambda method, asked, body: answer if asked == path else None


def test_a_gateway_that_is_away_or_refuses_is_the_only_finding(there: Installation) -> None:
    there.gateway.overrides.append(refuse("/healthz", (503, b"")))
    there.finds("gateway      the gateway's /healthz answered 503")
    there.gateway.overrides.clear()
    (there.folder / "basic-auth-password").write_text("wrong")
    there.finds("gateway      its password is refused")


def test_a_function_that_is_missing_or_not_ready_or_old(there: Installation) -> None:
    there.gateway.functions["git-tar"]["image"] = "broken"
    there.gateway.failures["broken"] = "exit 1"
    there.finds("git-tar: exit 1")
    there.gateway.failures.clear()
    there.gateway.handlers["gh-push"] = lambda event: {"statusCode": 200, "body": '{"version": "0.0.9"}'}
    _, lines = there.doctor()
    assert [line for line in lines if "of different versions: gh-push 0.0.9" in line]
    assert [line for line in lines if "gh-push takes what nobody signed" in line]


def test_what_is_scaled_to_zero_is_no_fault(there: Installation) -> None:
    """A call wakes it: one of the platform's is called, an author's is left alone."""
    asleep = {name: json.dumps({"name": name, "image": "x"}).encode() for name in ("git-tar", "alice-hello")}

    def answer(method: str, path: str, body: bytes) -> Answer | None:
        _, _, what, name = f"{path}///".split("/")[:4]
        if path.startswith("/function/"):
            asleep.pop(what, None)
        return (200, asleep[name]) if what == "function" and name in asleep else None

    there.gateway.overrides.append(answer)
    code, lines = there.doctor(keys=False)
    assert code == 0, "\n".join(lines)
    assert list(asleep) == ["alice-hello"]
    assert [line for line in lines if "can't be seen from here: whether the nodes can pull: all" in line]


@pytest.mark.usefixtures("rotating")
def test_a_secret_that_is_missing(there: Installation) -> None:
    there.gateway.secrets.remove("builder-secret")
    there.finds("builder-secret is there, but the gateway does not list it")
    (there.folder / "builder-secret").unlink()
    code, lines = there.doctor()
    assert code == 1
    assert [
        line for line in lines if "builder-secret is missing → faas-cli secret create builder-secret" in line
    ]
    assert [
        line for line in lines if "buildshiprun says: misconfigured: secret builder-secret is missing" in line
    ]


def test_an_empty_secret_that_is_listed(there: Installation) -> None:
    (there.folder / "github-webhook-secret").write_text("")
    _, lines = there.doctor(keys=False)
    assert [line for line in lines if "gh-push does not refuse an unsigned call as it should: secret" in line]


def test_another_secret_than_the_functions_have(there: Installation, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    code, lines = there.doctor(
        "--payload-secret-file",
        str(tmp_path / "other"),
        "--webhook-secret-file",
        str(tmp_path / "other"),
        keys=False,
    )
    assert code == 1
    assert len([line for line in lines if "does not know this payload-secret" in line]) == len(MESSAGED)
    assert [line for line in lines if "gh-push refuses a signed ping: the signature does not match" in line]


def test_of_builder_and_the_registry(there: Installation) -> None:
    there.builder.ready = (503, b'{"ready": false, "registry": "the registry does not answer"}')
    there.finds("buildshiprun says: unavailable: of-builder is not ready: " + '{"ready": false')
    there.builder.ready = (200, b"{}")
    there.builder.failing["doctor"] = [
        {"log": ["pushing"], "status": "failed", "error": "denied", "code": "misconfigured"}
    ]
    code, lines = there.doctor()
    assert code == 1
    assert [
        line
        for line in lines
        if "registry push buildshiprun says: misconfigured: denied → are builder-" in line
    ]
    assert [
        line for line in lines if "registry pull buildshiprun says: upstream: the registry does not" in line
    ]


def test_nodes_that_do_not_pull(there: Installation) -> None:
    there.gateway.failures[there.gateway.functions["alice-hello"]["image"]] = "can't pull"
    there.finds("of 1 functions that were pushed none is ready, such as alice-hello")


@pytest.mark.parametrize(
    ("apart", "said"), [(60, "are 60 s apart"), (900, "its clock and the one here are minutes apart")]
)
def test_clocks_that_differ(
    there: Installation, apart: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time

    class Late:
        """The time module, as it is on another machine."""

        sleep = staticmethod(time.sleep)

        @staticmethod
        def time() -> float:
            return real() + apart

    for module in ("checkup", "messages"):
        monkeypatch.setattr(importlib.import_module(f"git_tar.sdk.{module}"), "time", Late)
    there.finds(said)


def test_timeouts_that_are_too_short(there: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("exec_timeout", "20s")
    there.finds(*(f"{name}: exec_timeout is 20 s" for name in ("git-tar", "buildshiprun", "garbage-collect")))


def test_a_clock_that_does_not_call_reconcile(there: Installation) -> None:
    there.gateway.logs.clear()
    there.finds("reconcile    was not called in the last 15 minutes → deploy OpenFaaS's cron-connector")


@pytest.mark.parametrize(("minutes", "is_fine"), [(2, True), (14, True), (16, False), (60, False)])
def test_a_reconcile_that_was_just_deployed_is_given_time(
    minutes: int, is_fine: bool, there: Installation
) -> None:
    there.gateway.logs.clear()
    created = datetime.now(timezone.utc) - timedelta(minutes=minutes)
    there.gateway.functions["reconcile"]["createdAt"] = created.strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
    code, lines = there.doctor()
    assert (code == 0) is is_fine, lines
    assert any(line.startswith("unseen reconcile") for line in lines) is is_fine


@pytest.mark.parametrize("status", [0, 401, 403, 500, 503])
def test_calls_that_failed_for_good(status: int, there: Installation) -> None:
    calls = [
        {"id": 1, "function": "git-tar", "state": "failed", "status": status},
        {"id": 2, "function": "x", "state": "waiting"},
        {"id": 3, "function": "alice-hello", "state": "failed", "status": 500},
        {"id": 4, "function": "git-tar", "state": "failed", "status": 422},
    ]
    there.gateway.overrides.append(refuse("/system/queue", (200, json.dumps(calls).encode())))
    there.finds("1 calls failed for good, of git-tar")


def test_calls_that_failed_because_of_authors_are_no_fault_of_the_installation(there: Installation) -> None:
    calls = [
        {"id": 1, "function": "git-tar", "state": "failed", "status": 422},
        {"id": 2, "function": "alice-hello", "state": "failed", "status": 500},
    ]
    there.gateway.overrides.append(refuse("/system/queue", (200, json.dumps(calls).encode())))
    code, lines = there.doctor()
    assert code == 0, lines
    said = "2 calls failed for good because of authors, of alice-hello, git-tar"
    assert [line for line in lines if line.startswith("ok ") and said in line]


def test_on_the_local_cloud_the_gateway_is_the_clock(there: Installation) -> None:
    there.gateway.logs.clear()
    info = {"provider": {"provider": "openfaas-cloud-local", "orchestration": "swarm"}, "version": {}}
    there.gateway.overrides.append(refuse("/system/info", (200, json.dumps(info).encode())))
    there.finds(
        "reconcile    was not called in the last 15 minutes → the gateway calls it every five minutes"
    )


def test_measured_a_call_is_held_as_long_as_a_push_takes(
    there: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The functions do not really wait; that a call is cut is the gateway's 502."""
    held: list[float] = []
    for name in ("git_tar", "buildshiprun"):
        checkup = importlib.import_module(f"{name}.sdk.checkup")
        monkeypatch.setattr(checkup, "time", type("Time", (), {"time": time.time, "sleep": held.append}))
    code, lines = there.doctor("--measure")
    assert code == 0, "\n".join(lines)
    assert sorted(held) == [270, 780]
    assert [line for line in lines if "a call of buildshiprun that took 270 s came through" in line]

    def cut(method: str, path: str, body: bytes) -> Answer | None:
        return (502, b"") if b'"hold":780' in body else None

    there.gateway.overrides.append(cut)
    code, lines = there.doctor("--measure")
    assert code == 1
    assert [
        line for line in lines if "780 s did not come through: it answered 502 → set read_timeout" in line
    ]


def ask(name: str, folder: Path, body: bytes, key: str = "payload-secret") -> tuple[int, Any]:
    handle = importlib.import_module(f"{name.replace('-', '_')}.handler").handle
    headers = messages.headers(body, secrets.read(key, str(folder)))
    answer = handle(Event(body, headers, path="/check"), None)
    return answer["statusCode"], json.loads(answer["body"])


@pytest.mark.parametrize("name", MESSAGED)
def test_only_the_operator_is_told_how_a_function_is(name: str, there: Installation) -> None:
    asked = messages.seal(name, Check(Wanted()))
    assert ask(name, there.folder, asked)[0] == 200
    assert ask(name, there.folder, asked, "builder-secret")[0] == 401
    assert ask(name, there.folder, messages.seal("another", Check(Wanted())))[0] == 401
    assert ask(name, there.folder, messages.seal(name, Check(Wanted()), now=time.time() - 3600))[0] == 401
    assert ask(name, there.folder, messages.seal(name, {"check": 5}))[0] == 400
    assert ask(name, there.folder, b"")[0] == 400


def test_a_function_tells_names_of_secrets_and_no_more(there: Installation) -> None:
    _, told = ask("git-tar", there.folder, messages.seal("git-tar", Check(Wanted())))
    assert set(told) == set(Health.__dataclass_fields__)
    assert "payload-secret" in told["secrets"]
    for file in there.folder.iterdir():
        assert f'"{file.read_text().strip()}"' not in json.dumps(told)


def test_the_local_gateway_tells_its_own_timeout(
    settings: GatewaySettings, secret_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the real local gateway, with no function deployed yet."""

    async def test(client: Client, swarm: FakeSwarm) -> None:
        url, password = str(client.make_url("/")), str(secret_folder / "basic-auth-password")
        arguments = ("doctor", "--gateway", url, "--password-file", password)
        monkeypatch.setattr(State, "here", classmethod(lambda cls: State(secret_folder / "none")))
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        lines = done.output.splitlines()
        assert done.exit_code == 1
        assert [line for line in lines if "answers: openfaas-cloud-local" in line]
        assert len([line for line in lines if "is not deployed" in line]) == len(PLATFORM)
        assert [line for line in lines if "gateway and queue wait 960 s, a push takes up to 780 s" in line]
        assert [line for line in lines if "no call failed for good" in line]

    run(settings, test)
