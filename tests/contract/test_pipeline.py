"""The four functions together, as the gateway calls them: real git and tars, fakes around them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import buildshiprun.handler
import garbage_collect.handler
import git_tar.handler
from git_tar.sdk import messages, records
from git_tar.sdk.messages import Push
from git_tar.sdk.records import Record
from git_tar.sdk.secrets import Keys
from tests.conftest import ROOT
from tests.repositories import MASTER, Origin
from tests.unit.test_messages import PUSH

from .fakes import Event, FakeBuilder, FakeGateway

KEYS = Keys("payload-secret", (b"payload",))
HANDLER = "def handle(event, context):\n    return 'hello'\n"


def stack(*names: str, **extra: str) -> str:
    functions = {
        name: {"lang": "python3-http", "handler": f"./{name}", "image": f"{name}:latest"} for name in names
    }
    return json.dumps({"provider": {"name": "openfaas"}, "functions": functions, **extra})


def files(*names: str) -> dict[str, str]:
    return {"stack.yml": stack(*names), **{f"{name}/handler.py": HANDLER for name in names}}


class Cloud:
    """An origin, and git-tar called as gh-push's message would call it."""

    def __init__(self, origin: Origin, gateway: FakeGateway, builder: FakeBuilder) -> None:
        self.origin, self.gateway, self.builder = origin, gateway, builder

    def push(self, sha: str, **change: Any) -> tuple[int, Mapping[str, Any]]:
        repository = {**vars(PUSH.repository), "clone_url": self.origin.url}
        fields = {"after": sha, "repository": type(PUSH.repository)(**repository), **change}
        body = messages.seal("git-tar", Push(**{**vars(PUSH), **fields}))
        answer = git_tar.handler.handle(Event(body, messages.headers(body, KEYS)), None)
        return answer["statusCode"], json.loads(answer["body"])

    @property
    def live(self) -> dict[str, str]:
        return {name: rows["image"] for name, rows in self.gateway.functions.items()}


@pytest.fixture
def cloud(
    tmp_path: Path, gateway: FakeGateway, builder: FakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    gateway.handlers = {
        "buildshiprun": lambda event: buildshiprun.handler.handle(event, None),
        "garbage-collect": lambda event: garbage_collect.handler.handle(event, None),
    }
    monkeypatch.setenv("custom_templates", str(ROOT / "local"))
    monkeypatch.setenv("allowed_git_hosts", f"file://{tmp_path}")
    monkeypatch.setenv("deploy_timeout", "2s")
    monkeypatch.setenv("build_args", "PYTHON_IMAGE=base:1")
    work = tmp_path / "work-folders"
    work.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(work))
    yield Cloud(Origin(tmp_path), gateway, builder)
    assert not list(work.iterdir()), "a work folder is removed whatever happens"


def stages(capsys: pytest.CaptureFixture[str]) -> list[Record]:
    found = [records.parse(line) for line in capsys.readouterr().out.splitlines()]
    return [record for record in found if record]


def test_a_push_builds_and_deploys_every_function_by_digest(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = cloud.origin.commit(files("one", "two"))
    status, answer = cloud.push(sha)
    assert (status, answer["outcome"], answer["sha"]) == (200, "ok", sha)
    image = cloud.live["alice-one"]
    assert image.startswith(f"127.0.0.1:5000/github/3/7/one:{sha}@sha256:")
    assert set(cloud.live) == {"alice-one", "alice-two"}
    contexts = {name: context for context in cloud.builder.contexts for name in context}
    assert contexts["function/handler.py"]["function/handler.py"].decode() == HANDLER
    assert "Dockerfile" in contexts["function/handler.py"]
    recorded = stages(capsys)
    assert {(record.function, record.stage, record.outcome) for record in recorded} >= {
        ("", "fetch", "ok"),
        ("one", "shrinkwrap", "ok"),
        ("one", "build", "ok"),
        ("one", "deploy", "ok"),
        ("", "collect", "ok"),
        ("", "push", "ok"),
    }
    assert recorded[-1].terminal
    assert all((record.sha, record.delivery, record.owner) == (sha, "d-1", "alice") for record in recorded)


def test_the_same_push_again_does_nothing(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    before = dict(cloud.gateway.functions["alice-one"])
    status, answer = cloud.push(sha)
    assert (status, answer["results"][0]["outcome"]) == (200, "unchanged")
    assert cloud.gateway.functions["alice-one"] == before
    assert len(cloud.builder.built) == 1


def test_an_image_of_the_same_context_is_not_built_again(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    cloud.gateway.functions.clear()
    assert cloud.push(sha)[0] == 200
    assert len(cloud.builder.built) == 1
    assert set(cloud.live) == {"alice-one"}


def test_a_renamed_function_goes_only_after_the_new_one_is_live(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one", "old")))
    others = {"service": "bob-x", "image": "i", "labels": {"com.openfaas.cloud.git-cloud": "1"}}
    cloud.gateway.functions |= {"bob-x": others, "platform": {"service": "platform", "image": "i"}}
    cloud.gateway.calls.clear()
    status, answer = cloud.push(cloud.origin.commit(files("one", "new")))
    assert (status, answer["removed"]) == (200, ["alice-old"])
    assert set(cloud.live) == {"alice-one", "alice-new", "bob-x", "platform"}
    order = [call[0] for call in cloud.gateway.calls if call[1] == "/system/functions" and call[0] != "GET"]
    assert order == ["PUT", "POST", "DELETE"]


def test_a_build_that_fails_leaves_the_old_version_and_says_why(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.push(cloud.origin.commit(files("one", "two")))
    before = cloud.live
    capsys.readouterr()
    cloud.builder.failing["two"] = [
        {"log": ["#4 RUN make"], "status": "in_progress"},
        {"log": ["#4 ERROR: no rule"], "status": "failed", "error": "exit code: 2", "code": "failed"},
    ]
    changed = {**files("one", "two"), "two/handler.py": "# changed\n"}
    del changed["one/handler.py"]
    status, answer = cloud.push(cloud.origin.commit({**changed, "stack.yml": stack("one", "two")}))
    assert (status, answer["error"]["code"]) == (422, "failed")
    assert "1 of 2 functions failed: two" in answer["error"]["message"]
    assert cloud.live == before
    [build] = [record for record in stages(capsys) if record.stage == "build" and record.outcome == "failed"]
    assert build.error == "exit code: 2"
    assert build.log == ["#4 RUN make", "#4 ERROR: no rule"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"log": ["x"], "status": "in_progress"}],
        [{"status": "failed", "error": "BuildKit is down", "code": "unavailable"}],
    ],
    ids=["empty", "cut", "ours"],
)
def test_a_stream_without_success_is_never_a_success(
    lines: list[Mapping[str, Any]], cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """faas-cli takes a stream that just ends for a success."""
    monkeypatch.setattr("git_tar.pipeline.PATIENCE_SECONDS", 0)
    cloud.builder.failing["one"] = lines
    status, answer = cloud.push(cloud.origin.commit(files("one")))
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert cloud.live == {}


def test_a_version_that_does_not_start_is_rolled_back(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flaw 12: a deploy counted as done without waiting until the function answers."""
    first = cloud.origin.commit(files("one"))
    cloud.push(first)
    good = cloud.live["alice-one"]
    second = cloud.origin.commit({"one/handler.py": "raise SystemExit\n"})

    def crash(method: str, path: str, body: bytes) -> None:
        for rows in cloud.gateway.functions.values():
            if second in rows["image"]:
                cloud.gateway.failures[rows["image"]] = "exit status 1"

    cloud.gateway.overrides.append(crash)
    cloud.gateway.logs["alice-one"] = ["Traceback", "SystemExit"]
    capsys.readouterr()
    status, answer = cloud.push(second)
    assert (status, answer["error"]["code"]) == (422, "failed")
    assert cloud.live["alice-one"] == good
    [deploy] = [record for record in stages(capsys) if record.stage == "deploy"]
    assert deploy.log == ["Traceback", "SystemExit"]
    assert "exit status 1" in deploy.error


def test_a_version_that_never_gets_ready_fails_within_the_timeout(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("deploy_timeout", "0.5s")
    cloud.gateway.polls_until_ready = 10_000
    status, answer = cloud.push(cloud.origin.commit(files("one")))
    assert status == 422
    assert "alice-one was not ready within 0.5 s" in str(answer)


def test_a_deploy_that_was_answered_502_but_applied_counts_once(cloud: Cloud) -> None:
    """Flaw 12: a slow gateway reported failure for a deploy that happens."""
    applied: list[bytes] = []

    def lose_answer(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if (method, path) != ("POST", "/system/functions") or applied:
            return None
        applied.append(body)
        rows = json.loads(body)
        cloud.gateway.functions[rows["service"]] = rows
        return 502, b""

    cloud.gateway.overrides.append(lose_answer)
    assert cloud.push(cloud.origin.commit(files("one")))[0] == 200
    assert len(cloud.gateway.made("POST", "/system/functions")) == 1


def test_a_version_deployed_by_somebody_else_meanwhile_wins(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))

    def overtake(method: str, path: str, body: bytes) -> None:
        if (method, path) == ("GET", "/system/function/alice-one") and "alice-one" in cloud.gateway.functions:
            rows = cloud.gateway.functions["alice-one"]
            rows["annotations"] = {**rows["annotations"], "com.openfaas.cloud.nonce": "somebody-else"}

    cloud.gateway.overrides.append(overtake)
    status, answer = cloud.push(sha)
    assert status == 422
    assert "another version was deployed at the same time" in str(answer)


def test_another_owners_function_is_not_touched(cloud: Cloud) -> None:
    theirs = {
        "service": "alice-one",
        "image": "i",
        "labels": {
            "com.openfaas.cloud.git-cloud": "1",
            "com.openfaas.cloud.git-scm": "github",
            "com.openfaas.cloud.git-repo-id": "999",
            "com.openfaas.cloud.git-owner": "mallory",
        },
    }
    cloud.gateway.functions["alice-one"] = theirs
    status, answer = cloud.push(cloud.origin.commit(files("one")))
    assert (status, cloud.gateway.functions["alice-one"]) == (422, theirs)
    assert "belongs to mallory" in str(answer)
    assert not cloud.builder.built


def test_a_secret_that_is_not_there_is_noticed_before_the_deploy(cloud: Cloud) -> None:
    text = json.loads(stack("one"))
    text["functions"]["one"]["secrets"] = ["db"]
    sha = cloud.origin.commit({**files("one"), "stack.yml": json.dumps(text)})
    status, answer = cloud.push(sha)
    assert status == 422
    assert "no such secret: gh-3-db" in str(answer)
    assert not cloud.gateway.made("PUT", "/system/functions")
    cloud.gateway.secrets.add("gh-3-db")
    assert cloud.push(sha)[0] == 200
    assert cloud.gateway.functions["alice-one"]["secrets"] == ["gh-3-db"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stack.yml": "provider: ["}, "stack.yml: line"),
        ({"stack.yml": "provider: {name: openfaas}\nfunctions: {}"}, "has no functions: nothing changes"),
        (
            {"stack.yml": stack("one").replace("python3-http", "cobol")},
            "the languages here are: python3-http",
        ),
        ({"stack.yml": stack("one").replace('"./one"', '"../.."')}, "leaves the repository"),
        ({"stack.yml": stack("one").replace('"one":', '"One":')}, "function name 'One' is not allowed"),
    ],
)
def test_a_stack_that_is_wrong_fails_the_push_and_changes_nothing(
    change: dict[str, str], said: str, cloud: Cloud
) -> None:
    cloud.push(cloud.origin.commit(files("one", "two")))
    before = cloud.live
    status, answer = cloud.push(cloud.origin.commit(change))
    assert status == 422
    assert said in str(answer)
    assert cloud.live == before


def test_a_stack_file_that_vanished_deletes_nothing(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    (cloud.origin.work / "stack.yml").unlink()
    status, answer = cloud.push(cloud.origin.commit({"README.md": "gone"}))
    assert (status, set(cloud.live)) == (422, {"alice-one"})
    assert "no stack.yml" in str(answer)


def test_an_unreachable_server_changes_nothing_and_may_work_later(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    cloud.origin.bare.rename(cloud.origin.bare.with_suffix(".away"))
    assert cloud.push(sha)[0] == 503
    assert set(cloud.live) == {"alice-one"}


def test_what_stays_unavailable_fails_in_the_end(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("push_patience", "0s")
    cloud.origin.bare.rename(cloud.origin.bare.with_suffix(".away"))
    status, answer = cloud.push("a" * 40)
    assert status == 422
    assert "given up after" in answer["error"]["message"]
    assert stages(capsys)[-1].terminal


def test_a_branch_that_is_gone_changes_nothing(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    cloud.origin.delete(MASTER)
    status, answer = cloud.push(sha)
    assert (status, answer["outcome"]) == (200, "skipped")
    assert set(cloud.live) == {"alice-one"}


def test_a_clone_url_outside_the_allowed_origins_is_refused(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("allowed_git_hosts", "https://github.com")
    status, answer = cloud.push(cloud.origin.commit(files("one")))
    assert (status, answer["error"]["code"]) == (403, "refused")


def test_two_pushes_of_one_repository_do_not_run_at_once(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    with git_tar.handler.SLOTS.taken(3, ("github", 7)):
        status, answer = cloud.push(sha)
    assert status == 503
    assert "another push of this repository" in answer["error"]["message"]
    assert cloud.push(sha)[0] == 200


def test_two_functions_with_one_image_name_do_not_share_an_image(cloud: Cloud) -> None:
    """Flaw 15: two functions with the same image name in one stack shared one reference."""
    text = stack("one", "two").replace('"two:latest"', '"one:latest"')
    cloud.push(cloud.origin.commit({**files("one", "two"), "stack.yml": text}))
    assert len(set(cloud.live.values())) == 2


def test_the_environment_file_and_the_operators_build_args_are_used(cloud: Cloud) -> None:
    text = json.loads(stack("one"))
    text["functions"]["one"] |= {"environment": {"A": "1", "B": "1"}, "environment_file": ["env.yml"]}
    extra = {"stack.yml": json.dumps(text), "env.yml": "environment:\n  B: 2\n"}
    assert cloud.push(cloud.origin.commit({**files("one"), **extra}))[0] == 200
    rows = cloud.gateway.functions["alice-one"]
    assert rows["envVars"] == {"A": "1", "B": "2"}
    assert rows["envProcess"] == "python index.py"


@pytest.mark.parametrize("name", ["git-tar", "buildshiprun", "garbage-collect"])
@pytest.mark.parametrize("attack", ["unsigned", "wrong key", "for another"])
def test_an_inner_function_refuses_what_is_not_for_it(name: str, attack: str, cloud: Cloud) -> None:
    """Flaw 5: signed requests could be replayed, and owners travelled in unsigned headers."""
    receiver = "gh-push" if attack == "for another" else name
    body = messages.seal(receiver, PUSH)
    keys = Keys("payload-secret", (b"guess",)) if attack == "wrong key" else KEYS
    headers = {} if attack == "unsigned" else messages.headers(body, keys)
    handlers = {
        "git-tar": git_tar.handler.handle,
        "buildshiprun": buildshiprun.handler.handle,
        "garbage-collect": garbage_collect.handler.handle,
    }
    answer = handlers[name](Event(body, headers), None)
    assert answer["statusCode"] == 401
    assert not cloud.gateway.calls
    assert not cloud.builder.calls


@pytest.mark.parametrize("body", [b"", b"not a tar", b"{}", b"\0" * 10_240])
def test_a_signed_body_that_is_no_shipment_is_malformed(body: bytes, cloud: Cloud) -> None:
    answer = buildshiprun.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    assert answer["statusCode"] in (400, 401)


def test_an_old_message_is_not_acted_on(cloud: Cloud) -> None:
    body = messages.seal("garbage-collect", PUSH, now=1)
    answer = garbage_collect.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    assert answer["statusCode"] == 401
    assert "too old" in answer["body"]
