"""The functions together, as the gateway calls them: real git and tars, fakes around them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import git
import msgspec
import pytest

import buildshiprun.handler
import garbage_collect.handler
import git_tar.handler
import git_tar.overtaken
import github_status.handler
import reconcile.handler
from git_tar.along import Along
from git_tar.mirrors import Mirrors
from git_tar.overtaken import Cuts
from git_tar.sdk import messages, records
from git_tar.sdk.github_app import Tokens
from git_tar.sdk.messages import Installation, Push
from git_tar.sdk.records import Record
from git_tar.sdk.secrets import Keys
from git_tar.setbacks import Setbacks
from git_tar.template_cache import TemplateCache
from tests.conftest import ROOT
from tests.repositories import MASTER, Origin
from tests.unit.test_messages import PUSH

from .fakes import Event, FakeBuilder, FakeGateway, running
from .github import APP, INSTALLATION, TOKEN, FakeGitHub

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
    mirrors = Mirrors(tmp_path / "mirrors")
    monkeypatch.setattr(git_tar.handler, "MIRRORS", mirrors)
    monkeypatch.setattr(git_tar.handler, "CUTS", Cuts())
    monkeypatch.setattr(git_tar.handler, "ALONG", Along())
    monkeypatch.setattr(git_tar.handler, "SETBACKS", Setbacks(tmp_path / "setbacks.json"))
    monkeypatch.setattr(git_tar.handler, "TEMPLATES", TemplateCache(tmp_path / "templates", mirrors))
    yield Cloud(Origin(tmp_path), gateway, builder)
    assert not list(work.iterdir()), "a work folder is removed whatever happens"


def stages(capsys: pytest.CaptureFixture[str]) -> list[Record]:
    found = [records.parse(line) for line in capsys.readouterr().out.splitlines()]
    return [record for record in found if record]


def test_a_look_of_reconcile_tells_of_what_it_does_and_else_only_that_it_ended(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = cloud.origin.commit(files("one", "two"))
    cloud.push(sha)
    assert not records.changed_nothing(stages(capsys))
    look = {"delivery": "reconcile-1", "periodic": True}
    cloud.push(sha, **look)
    quiet = stages(capsys)
    assert [(each.stage, each.outcome, each.sha) for each in quiet] == [("push", "ok", sha)]
    assert records.changed_nothing(quiet)
    del cloud.gateway.functions["alice-one"]
    cloud.gateway.functions["alice-old"] = {**cloud.gateway.functions["alice-two"], "service": "alice-old"}
    cloud.push(sha, **look)
    healed = stages(capsys)
    assert {(each.function, each.stage) for each in healed} == {
        ("one", "check"),
        ("one", "build"),
        ("one", "deploy"),
        ("", "collect"),
        ("", "push"),
    }
    assert {each.path for each in healed} == {"github/3/7"}
    for one in (each for each in healed if each.stage in ("deploy", "collect")):
        assert not records.changed_nothing([one, healed[-1]])


def test_what_fails_in_a_look_of_reconcile_is_told(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    sha = cloud.origin.commit({"readme": "no stack"})
    cloud.push(sha, delivery="reconcile-1", periodic=True)
    found = stages(capsys)
    assert [(each.stage, each.outcome) for each in found] == [("push", "failed")]
    assert not records.changed_nothing(found)


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
    assert order == ["POST", "DELETE"]


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


def test_what_is_put_back_is_the_last_ready_version_with_all_that_belongs_to_it(cloud: Cloud) -> None:
    """Kubernetes' status has no environment: it comes from what was kept."""
    text = json.loads(stack("one"))
    text["functions"]["one"] |= {
        "environment": {"COLOUR": "blue"},
        "secrets": ["db"],
        "labels": {"team": "a"},
        "annotations": {"topic": "t"},
        "limits": {"memory": "64Mi"},
    }
    cloud.gateway.secrets.add("gh-3-db")
    cloud.push(cloud.origin.commit({**files("one"), "stack.yml": json.dumps(text)}))

    def shown() -> Mapping[str, Any]:
        rows = cloud.gateway.functions["alice-one"]
        lasting = {key: text for key, text in rows["annotations"].items() if not key.endswith(".nonce")}
        return {**rows, "annotations": lasting}

    before = shown()
    assert before["envVars"] == {"COLOUR": "blue"}
    text["functions"]["one"]["environment"] = {"COLOUR": "red"}

    def crash(method: str, path: str, body: bytes) -> None:
        rows = cloud.gateway.functions["alice-one"]
        cloud.gateway.failures.clear()
        if rows["envVars"] != before["envVars"]:
            cloud.gateway.failures[rows["image"]] = "exit status 1"

    cloud.gateway.overrides.append(crash)
    assert cloud.push(cloud.origin.commit({"stack.yml": json.dumps(text)}))[0] == 422
    assert len(cloud.gateway.made("PUT", "/system/functions")) == 2, "the broken one, and the one before"
    assert shown() == before


def test_what_was_too_large_to_be_kept_is_not_put_back_and_the_push_says_so(cloud: Cloud) -> None:
    """faasd's annotations hold 4,096 bytes."""
    text = json.loads(stack("one"))
    text["functions"]["one"]["environment"] = {f"K{n}": os.urandom(60).hex() for n in range(100)}
    cloud.push(cloud.origin.commit({**files("one"), "stack.yml": json.dumps(text)}))
    second = cloud.origin.commit({"one/handler.py": "raise SystemExit\n"})

    def crash(method: str, path: str, body: bytes) -> None:
        image = cloud.live["alice-one"]
        if second in image:
            cloud.gateway.failures[image] = "exit status 1"

    cloud.gateway.overrides.append(crash)
    status, answer = cloud.push(second)
    assert status == 422
    assert "exit status 1; it stays: no ready version before it is kept whole" in str(answer)
    assert second in cloud.live["alice-one"]


def test_a_version_is_put_back_also_when_its_log_cannot_be_read(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cloud.origin.commit(files("one"))
    cloud.push(first)
    good = cloud.live["alice-one"]
    second = cloud.origin.commit({"one/handler.py": "raise SystemExit\n"})

    def crash(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        for rows in cloud.gateway.functions.values():
            if second in rows["image"]:
                cloud.gateway.failures[rows["image"]] = "exit status 1"
        return (500, b"broken") if path == "/system/logs" else None

    cloud.gateway.overrides.append(crash)
    status, answer = cloud.push(second)
    assert (status, cloud.live["alice-one"]) == (422, good)
    assert "exit status 1" in str(answer)


def test_a_version_that_never_gets_ready_fails_within_the_timeout(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("deploy_timeout", "0.5s")
    cloud.gateway.polls_until_ready = 10_000
    status, answer = cloud.push(cloud.origin.commit(files("one")))
    assert status == 422
    assert "alice-one was not ready within 0.5 s (setting deploy_timeout): ready is what answers" in str(
        answer
    )


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


def somebody_else_deploys(cloud: Cloud, **annotations: str) -> None:
    """Another attempt deploys alice-one, right after it was there first."""

    def overtake(method: str, path: str, body: bytes) -> None:
        if (method, path) == ("GET", "/system/function/alice-one") and "alice-one" in cloud.gateway.functions:
            cloud.gateway.overrides.remove(overtake)
            rows = cloud.gateway.functions["alice-one"]
            theirs = {"nonce": "somebody-else", **annotations}
            named = {f"com.openfaas.cloud.{name}": text for name, text in theirs.items()}
            rows["annotations"] = {**rows["annotations"], **named}

    cloud.gateway.overrides.append(overtake)


def test_another_version_deployed_by_somebody_else_meanwhile_is_looked_at_again(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = cloud.origin.commit(files("one"))
    somebody_else_deploys(cloud, digest="another")
    status, answer = cloud.push(sha)
    assert (status, answer["results"][0]["outcome"]) == (200, "ok")
    deploys = [record.outcome for record in stages(capsys) if record.stage == "deploy"]
    assert deploys == ["superseded", "ok"]


@pytest.mark.parametrize("is_new", [True, False])
def test_what_an_operator_deploys_while_a_deploy_fails_is_not_overwritten(is_new: bool, cloud: Cloud) -> None:
    """It has no nonce; that is not the same as not to be there."""
    sha = cloud.origin.commit(files("one"))
    if not is_new:
        assert cloud.push(sha)[0] == 200
        sha = cloud.origin.commit({"one/handler.py": HANDLER + "# 2"})

    def refuse(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if path != "/system/functions" or method not in ("PUT", "POST"):
            return None
        cloud.gateway.overrides.remove(refuse)
        cloud.gateway.functions["alice-one"] = {"service": "alice-one", "image": "by-hand"}
        return 502, b""

    cloud.gateway.overrides.append(refuse)
    status, _ = cloud.push(sha)
    assert status == 422
    assert cloud.gateway.functions["alice-one"]["image"] == "by-hand"


def test_the_same_version_deployed_by_another_attempt_is_waited_for(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = cloud.origin.commit(files("one"))
    somebody_else_deploys(cloud)
    status, answer = cloud.push(sha)
    assert (status, answer["results"][0]["outcome"]) == (200, "ok")
    assert [record.outcome for record in stages(capsys) if record.stage == "deploy"] == ["ok"]


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
    assert "belongs to a private repository of mallory" in str(answer), "what is not known to be public"
    assert not cloud.builder.built


def test_a_secret_that_is_not_there_is_noticed_before_the_deploy(cloud: Cloud) -> None:
    text = json.loads(stack("one"))
    text["functions"]["one"]["secrets"] = ["db"]
    sha = cloud.origin.commit({**files("one"), "stack.yml": json.dumps(text)})
    status, answer = cloud.push(sha)
    assert status == 422
    assert "alice has no such secret: db (in the cluster: gh-3-db)" in str(answer)
    assert "by `python -m local secret set alice db`" in str(answer)
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


def test_a_push_that_another_took_along_looks_at_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = cloud.origin.commit(files("one"))
    with git_tar.handler.SLOTS.taken(3, ("github", 7)):
        assert cloud.push(sha, delivery="first")[0] == 503
    head = cloud.origin.commit({"one/handler.py": HANDLER + "# 2"})
    assert cloud.push(head, delivery="second")[0] == 200
    cloud.gateway.calls.clear()
    told: list[Record] = []
    monkeypatch.setattr(records, "listeners", [lambda record, subject: told.append(record)])
    with monkeypatch.context() as patch:
        patch.setattr(git_tar.handler, "converge", None)
        status, answer = cloud.push(sha, delivery="first")
    assert (status, answer["outcome"], answer["sha"]) == (200, "ok", head)
    assert not cloud.gateway.calls
    assert [(each.delivery, each.sha, each.stage, each.outcome) for each in told] == [
        ("first", head, "push", "ok")
    ]


def test_a_push_that_came_while_another_was_at_work_looks_for_itself(cloud: Cloud) -> None:
    """The other one may have read the head before it came."""
    sha, ship = cloud.origin.commit(files("one")), cloud.gateway.handlers["buildshiprun"]
    hints: list[bool] = []

    def meanwhile(event: Event) -> Any:
        assert cloud.push(sha, delivery="second")[0] == 503
        hints.extend(watch.has_hint for watch in git_tar.handler.CUTS._watching.values())
        return ship(event)

    cloud.gateway.handlers["buildshiprun"] = meanwhile
    assert cloud.push(sha, delivery="first")[0] == 200
    assert hints == [True], "and it is a sign that the branch may have moved"
    cloud.gateway.handlers["buildshiprun"] = ship
    status, answer = cloud.push(sha, delivery="second")
    assert (status, [each["outcome"] for each in answer["results"]]) == (200, ["unchanged"])


def test_what_failed_takes_nothing_along(cloud: Cloud) -> None:
    sha = cloud.origin.commit({"stack.yml": "functions: {}"})
    with git_tar.handler.SLOTS.taken(3, ("github", 7)):
        assert cloud.push(sha, delivery="first")[0] == 503
    assert cloud.push(sha, delivery="second")[0] == 422
    cloud.origin.commit(files("one"))
    status, answer = cloud.push(sha, delivery="first")
    assert (status, [each["outcome"] for each in answer["results"]]) == (200, ["ok"])


def test_who_asks_for_a_rerun_sees_each_function_anew(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    with git_tar.handler.SLOTS.taken(3, ("github", 7)):
        assert cloud.push(sha, delivery="rerun-1")[0] == 503
    assert cloud.push(sha, delivery="second")[0] == 200
    status, answer = cloud.push(sha, delivery="rerun-1")
    assert (status, [each["outcome"] for each in answer["results"]]) == (200, ["unchanged"])


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


def test_all_records_of_git_tar_have_the_calls_id(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those of the functions, which are shipped by threads of their own."""
    sha = cloud.origin.commit(files("one", "two"))
    repository = type(PUSH.repository)(**{**vars(PUSH.repository), "clone_url": cloud.origin.url})
    body = messages.seal("git-tar", Push(**{**vars(PUSH), "after": sha, "repository": repository}))
    git_tar.handler.handle(Event(body, {**messages.headers(body, KEYS), "X-Call-Id": "c-9"}), None)
    called = {(record.stage, record.call) for record in stages(capsys)}
    assert called >= {("fetch", "c-9"), ("shrinkwrap", "c-9"), ("push", "c-9")}
    assert ("shrinkwrap", "") not in called


@pytest.mark.parametrize("name", ["git-tar", "buildshiprun", "garbage-collect", "reconcile", "github-status"])
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
        "reconcile": reconcile.handler.handle,
        "github-status": github_status.handler.handle,
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


@pytest.fixture
def github(
    cloud: Cloud, secret_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeGitHub]:
    """A private repository on a GitHub that knows the cloud as its App."""
    fake = FakeGitHub(cloud.origin)
    fake.write_key(secret_folder)
    monkeypatch.setenv("github_app_id", APP)
    monkeypatch.setenv("github_api_url", fake.url)
    monkeypatch.setenv("allowed_git_hosts", fake.url)
    monkeypatch.setattr(git_tar.handler, "TOKENS", Tokens())
    with running(fake):
        yield fake


def test_a_private_repository_is_read_with_a_token_that_shows_nowhere(
    cloud: Cloud,
    github: FakeGitHub,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flaw 2: a clone token was logged, stayed in .git/config, and was copied into the image."""
    commands: list[str] = []
    execute = git.Git.execute

    def watched(self: git.Git, command: Any, *arguments: Any, **named: Any) -> Any:
        commands.extend(command)
        return execute(self, command, *arguments, **named)

    monkeypatch.setattr(git.Git, "execute", watched)
    root = {**files("one"), "stack.yml": stack("one").replace("./one", ".")}
    sha = cloud.origin.commit(root)
    status, answer = cloud.push(sha, installation=Installation(INSTALLATION))
    assert (status, answer["outcome"]) == (200, "ok")
    shown = capfd.readouterr()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "mirrors").rglob("*") if path.is_file())
    contexts = repr(cloud.builder.contexts)
    for place in (
        shown.out,
        shown.err,
        json.dumps(answer),
        " ".join(commands),
        contexts,
        kept.decode("latin-1"),
    ):
        assert TOKEN not in place
    assert "one/handler.py" in contexts


def test_without_credentials_a_private_repository_fails_clearly(
    cloud: Cloud, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("github_app_id", "")
    repository = {**vars(PUSH.repository), "clone_url": github.clone_url}
    sha = cloud.origin.commit(files("one"))
    status, answer = cloud.push(sha, repository=type(PUSH.repository)(**repository))
    assert (status, answer["error"]["code"]) == (422, "failed")
    assert "there is no such repository, or it is private" in answer["error"]["message"]


def test_a_server_that_sends_elsewhere_is_not_followed(
    cloud: Cloud, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("github_app_id", "")
    elsewhere = {"Location": f"{github.url}/mallory/decoy.git/info/refs?service=git-upload-pack"}
    monkeypatch.setattr(github, "answer", lambda *_: (301, b"", elsewhere))
    repository = {**vars(PUSH.repository), "clone_url": github.clone_url}
    status, answer = cloud.push("a" * 40, repository=type(PUSH.repository)(**repository))
    assert (status, "has moved: push again" in answer["error"]["message"]) == (422, True)
    assert not github.made("GET", "/mallory")


def test_a_repository_is_found_by_its_id_wherever_it_is_now(cloud: Cloud, github: FakeGitHub) -> None:
    github.full_name, github.owner_id = "bob/moved", 9
    status, answer = cloud.push(cloud.origin.commit(files("one")), installation=Installation(INSTALLATION))
    assert (status, answer["outcome"]) == (200, "ok")
    assert set(cloud.live) == {"bob-one"}
    labels = cloud.gateway.functions["bob-one"]["labels"]
    assert labels["com.openfaas.cloud.git-owner-id"] == "9"


def test_a_name_that_somebody_else_registered_leads_nowhere(cloud: Cloud, github: FakeGitHub) -> None:
    """The event's URL is not used where the App can ask for the repository by its id."""
    decoy = {**vars(PUSH.repository), "clone_url": f"{github.url}/mallory/decoy.git"}
    sha = cloud.origin.commit(files("one"))
    changes = {"repository": type(PUSH.repository)(**decoy), "installation": Installation(INSTALLATION)}
    assert cloud.push(sha, **changes)[0] == 200
    assert not github.made("GET", "/mallory")


def test_submodules_and_lfs_are_told_of(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5\n"
    cloud.origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/lib")
    (cloud.origin.work / "vendor" / "lib").mkdir(parents=True)
    extra = {".gitattributes": "*.bin filter=lfs\n", "one/model.bin": pointer, ".gitmodules": ""}
    assert cloud.push(cloud.origin.commit({**files("one"), **extra}))[0] == 200
    [fetched] = [record for record in stages(capsys) if record.stage == "fetch"]
    assert fetched.log == [
        "submodules are not fetched here: vendor/lib",
        "Git LFS is not fetched here, only pointers: one/model.bin",
    ]


def test_a_stack_file_of_any_size_is_refused_unread(cloud: Cloud) -> None:
    """Zeros pack well: half a GiB of them is a small push."""
    text = stack("one") + "\n" + " " * 300_000
    status, answer = cloud.push(cloud.origin.commit({**files("one"), "stack.yml": text}))
    assert status == 422
    assert "262144 are allowed" in str(answer)


@pytest.mark.parametrize("name", ["a\0b", "/etc/passwd", "../env.yml", "link", "loop", "one", ""])
def test_an_environment_file_that_is_none_fails_its_function(name: str, cloud: Cloud) -> None:
    text = json.loads(stack("one", "two"))
    text["functions"]["one"]["environment_file"] = [name]
    (cloud.origin.work / "link").symlink_to("/etc/passwd")
    (cloud.origin.work / "loop").symlink_to("loop")
    status, answer = cloud.push(cloud.origin.commit({**files("one", "two"), "stack.yml": json.dumps(text)}))
    assert (status, set(cloud.live)) == (422, {"alice-two"})
    assert "one: environment_file" in str(answer)


def test_a_file_name_that_is_not_utf_8_fails_its_function(cloud: Cloud) -> None:
    cloud.origin.write(files("one", "two"))
    (cloud.origin.work / "one" / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    status, answer = cloud.push(cloud.origin.commit({}))
    assert (status, set(cloud.live)) == (422, {"alice-two"})
    assert "the names of files must be UTF-8" in str(answer)


def test_names_of_variables_in_an_environment_file_are_checked(cloud: Cloud) -> None:
    text = json.loads(stack("one"))
    text["functions"]["one"]["environment_file"] = ["env.yml"]
    extra = {"stack.yml": json.dumps(text), "env.yml": "environment:\n  A=B: x\n"}
    status, answer = cloud.push(cloud.origin.commit({**files("one"), **extra}))
    assert status == 422
    assert "'A=B' is no name of a variable" in str(answer)


def test_an_author_cannot_write_a_stage_record(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    forged = records.Record(
        "2026-01-01T00:00:00+00:00", "d-1", "bob", "shop", "a" * 40, "", "push", "failed", 0, error="forged"
    )
    key = f"x\n{msgspec.json.encode(forged).decode()}\n"
    text = json.dumps({"provider": {"name": "openfaas"}, "functions": {key: []}})
    assert cloud.push(cloud.origin.commit({"stack.yml": text}))[0] == 422
    shown = capfd.readouterr()
    found = [records.parse(line) for line in (shown.out + shown.err).splitlines()]
    assert "forged" in shown.err
    assert {record.owner for record in found if record} == {"alice"}


def test_a_push_that_only_waits_for_its_turn_is_not_given_up(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("push_patience", "0s")
    monkeypatch.setattr(git_tar.pipeline, "PATIENCE_SECONDS", 0.1)
    sha = cloud.origin.commit(files("one"))
    with buildshiprun.handler.SLOTS.taken(3, "alice-one"):
        for _ in range(2):
            status, answer = cloud.push(sha)
            assert (status, answer["error"]["code"]) == (503, "busy")
    assert cloud.push(sha)[0] == 200


def test_what_could_not_be_collected_is_tried_again(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.push(cloud.origin.commit(files("one", "two")))
    shutil.rmtree(cloud.origin.work / "two")
    sha = cloud.origin.commit({"stack.yml": stack("one")})
    refuse: list[bool] = [True]

    def keep(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (500, b"no") if refuse and method == "DELETE" else None

    cloud.gateway.overrides.append(keep)
    capsys.readouterr()
    status, answer = cloud.push(sha)
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    last = stages(capsys)[-1]
    assert (last.stage, last.outcome, last.terminal) == ("push", "retry", False)
    refuse.clear()
    assert cloud.push(sha)[1]["removed"] == ["alice-two"]


def test_a_push_that_takes_long_goes_on_later(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("push_timeout", "0s")
    sha = cloud.origin.commit(files("one"))
    assert cloud.push(sha)[1]["error"]["code"] == "busy"
    monkeypatch.setenv("push_timeout", "10m")
    assert cloud.push(sha)[0] == 200


def test_a_push_that_is_overtaken_ships_no_more_of_it(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_tar.overtaken, "WATCH_SECONDS", 0.01)
    monkeypatch.setenv("parallel_functions", "1")
    first = cloud.origin.commit(files("one", "two"))
    newer: list[str] = []

    def overtake(method: str, path: str, body: bytes) -> None:
        if not newer and path == "/system/function/alice-one":
            newer.append(cloud.origin.commit({"two/handler.py": HANDLER + "# newer"}))

    cloud.gateway.overrides.append(overtake)
    status, answer = cloud.push(first)
    assert (status, answer["sha"]) == (200, newer[0])
    assert f":{newer[0]}@" in cloud.live["alice-two"]
    assert len([1 for context in cloud.builder.contexts if context]) == 2, "two was built once"


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_tar.overtaken, "WATCH_SECONDS", 0.01)


def newer(cloud: Cloud) -> str:
    return cloud.origin.commit({"one/handler.py": f"{HANDLER}# {uuid4()}"})


def test_a_build_that_is_overtaken_is_ended(
    cloud: Cloud, quick_watch: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first, pushed = cloud.origin.commit(files("one")), list[str]()

    def lasts(image: str) -> float:
        if not image.endswith(first):
            return 0
        pushed.append(newer(cloud))
        return 20

    cloud.builder.lasts = lasts
    status, answer = cloud.push(first)
    assert (status, answer["outcome"], [answer["sha"]]) == (200, "ok", pushed)
    assert [image.rpartition(":")[2] for image in cloud.builder.built] == pushed
    shown = [(record.sha, record.outcome) for record in stages(capsys) if record.stage in ("build", "push")]
    assert shown == [
        (first, "superseded"),
        (first, "superseded"),
        (pushed[0], "ok"),
        (pushed[0], "ok"),
    ]


def test_a_busy_repository_still_deploys(cloud: Cloud, quick_watch: None) -> None:
    """Each build sees a newer push, and is long enough to be ended."""
    shas: list[str] = []

    def lasts(image: str) -> float:
        shas.append(image.rpartition(":")[2])
        newer(cloud)
        return 1

    cloud.builder.lasts = lasts
    status, _ = cloud.push(cloud.origin.commit(files("one")))
    assert (status, len(shas)) == (503, 5), "it is queued again: the branch still moves"
    assert [image.rpartition(":")[2] for image in cloud.builder.built] == [shas[2]], "two are ended in a row"
    assert f":{shas[2]}@" in cloud.live["alice-one"]
    cloud.push(newer(cloud))
    assert f":{shas[8]}@" in cloud.live["alice-one"]


def test_a_deploy_that_is_overtaken_is_not_broken_off(cloud: Cloud, quick_watch: None) -> None:
    first = cloud.origin.commit(files("one"))
    told: list[int] = []

    def overtake(method: str, path: str, body: bytes) -> None:
        if (method, path) == ("POST", "/system/functions"):
            newer(cloud)
            cloud.gateway.polls_until_ready = 10**6
        if cloud.builder.made("DELETE", "/build") and path == "/system/function/alice-one" and not told:
            told.append(cloud.gateway._polls["alice-one"])
            cloud.gateway.polls_until_ready = 0

    cloud.gateway.overrides.append(overtake)
    status, _ = cloud.push(first)
    assert (status, len(told)) == (200, 1), "it was told while the first version started"
    assert [len(cloud.gateway.made(method, "/system/functions")) for method in ("POST", "PUT")] == [1, 1]


def test_what_waits_for_a_busy_buildshiprun_is_not_sent_once_it_is_overtaken(
    cloud: Cloud, quick_watch: None
) -> None:
    first, pushed = cloud.origin.commit(files("one")), list[str]()

    def busy(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if path != "/function/buildshiprun" or body.startswith(b"{"):
            return None
        if first.encode() not in body:
            return None
        pushed.append(pushed[0] if pushed else newer(cloud))
        return 503, b'{"error": {"code": "busy", "message": "in a moment"}}'

    cloud.gateway.overrides.append(busy)
    status, answer = cloud.push(first)
    assert (status, answer["sha"]) == (200, pushed[0])


def test_a_namespace_that_is_allowed_is_deployed_to(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.loads(stack("one"))
    text["functions"]["one"]["namespace"] = "staging"
    sha = cloud.origin.commit({**files("one"), "stack.yml": json.dumps(text)})
    assert "namespace 'staging' is not allowed" in str(cloud.push(sha)[1])
    monkeypatch.setenv("allowed_namespaces", "staging")
    status, answer = cloud.push(sha)
    assert (status, answer["results"][0]["name"]) == (200, "one.staging")
    assert answer["results"][0]["url"].endswith("/function/alice-one.staging")
    assert cloud.gateway.functions["alice-one"]["namespace"] == "staging"
    assert cloud.gateway.made("GET", "/system/functions?namespace=staging")


def test_a_key_of_stack_yml_that_nothing_reads_is_told_by_the_fetch(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(stack("one"))
    rows["functions"]["one"]["secret"] = ["db"]
    status, _ = cloud.push(cloud.origin.commit({**files("one"), "stack.yml": json.dumps(rows)}))
    [fetched] = [record for record in stages(capsys) if record.stage == "fetch"]
    assert (status, fetched.outcome) == (200, "ok")
    assert list(fetched.log) == ["stack.yml: functions.one.secret is ignored: did you mean secrets?"]
