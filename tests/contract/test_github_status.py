"""github-status with the other functions, and a GitHub that has rules: it shows, and holds nobody up."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from cachetools import TTLCache

import buildshiprun.sdk.records
import buildshiprun.sdk.status
import garbage_collect.sdk.records
import gh_push.handler
import gh_push.sdk.records
import gh_push.sdk.status
import git_tar.handler
import git_tar.sdk.records
import git_tar.sdk.status
import github_status.handler
from git_tar.sdk.github_app import Tokens
from github_status.report import Memory
from github_status.sdk import messages
from github_status.sdk.slots import Slots
from tests.unit.test_messages import PUSH
from tests.unit.test_push import EVENT

from . import test_gh_push, test_pipeline
from .checks import FakeChecks
from .fakes import Answer, Event, running
from .github import APP, INSTALLATION, REPOSITORY
from .test_pipeline import HANDLER, KEYS, Cloud, files

SECONDS = 30
cloud = test_pipeline.cloud
PRIVATE = {"installation": git_tar.sdk.messages.Installation(INSTALLATION)}
FUNCTIONS: dict[str, ModuleType] = {
    "gh-push": gh_push.sdk.records,
    "git-tar": git_tar.sdk.records,
    "buildshiprun": buildshiprun.sdk.records,
    "garbage-collect": garbage_collect.sdk.records,
}
TELLING = (gh_push.sdk.status, git_tar.sdk.status, buildshiprun.sdk.status)


@pytest.fixture
def github(cloud: Cloud, secret_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeChecks]:
    """GitHub with the repository; what the functions print can be read through the gateway."""
    fake = FakeChecks(cloud.origin)
    fake.write_key(secret_folder)
    monkeypatch.setenv("github_app_id", APP)
    monkeypatch.setenv("github_api_url", fake.url)
    monkeypatch.setenv("allowed_git_hosts", f"{fake.url}, file://{cloud.origin.bare.parent}")
    monkeypatch.setenv("report_status", "true")
    monkeypatch.setattr(git_tar.handler, "TOKENS", Tokens())
    monkeypatch.setattr(github_status.handler, "MEMORY", Memory())
    readable(cloud, monkeypatch)
    with running(fake):
        yield fake
        settled()


def readable(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the functions print is what github-status reads through the gateway, where it is called, too."""
    for name, records in FUNCTIONS.items():
        lines = cloud.gateway.logs.setdefault(name, [])

        def keep(record: Any, subject: Any, lines: list[str] = lines) -> None:
            lines.append(msgspec.json.encode(record).decode())

        monkeypatch.setattr(records, "listeners", [keep, *records.listeners])
    cloud.gateway.handlers["github-status"] = lambda event: github_status.handler.handle(event, None)


def settled() -> None:
    """Everything was told."""
    for module in TELLING:
        assert module.MESSENGER.idle(SECONDS), module


def push(cloud: Cloud, github: FakeChecks, changes: dict[str, str], **change: Any) -> tuple[int, str]:
    sha = cloud.origin.commit(changes)
    github.commits.add(sha)
    status, _ = cloud.push(sha, **PRIVATE, **change)
    return status, sha


def work_off(cloud: Cloud) -> list[int]:
    """What github-status makes of what is queued for it."""
    queued = [(body, headers) for name, body, headers in cloud.gateway.queued if name == "github-status"]
    cloud.gateway.queued[:] = [each for each in cloud.gateway.queued if each[0] != "github-status"]
    answers = [github_status.handler.handle(Event(body, headers), None) for body, headers in queued]
    return [answer["statusCode"] for answer in answers]


def test_each_function_and_the_stack_have_one_run_that_ends_live(
    cloud: Cloud, github: FakeChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("gateway_pretty_url", "https://user.example.com/function")
    status, sha = push(cloud, github, files("one", "two"))
    settled()
    assert status == 200
    assert github.latest == {"stack-deploy": "success", "one": "success", "two": "success"}
    assert len(github.runs) == 3
    one = next(run for run in github.runs if run["name"] == "one")
    assert (one["details_url"], one["head_sha"]) == ("https://alice.example.com/one", sha)
    assert one["output"]["title"] == "is live: https://alice.example.com/one"
    assert "| build | ok |" in one["output"]["summary"]
    assert {run["external_id"] for run in github.runs} == {"openfaas-cloud/push"}
    assert set(github.tokens.values()) == {"checks: write"}


def test_a_build_that_fails_shows_the_end_of_the_kept_log_as_text_alone(
    cloud: Cloud, github: FakeChecks
) -> None:
    cloud.builder.failing["one"] = [
        {"log": ["#5 RUN make"], "status": "in_progress"},
        {"status": "failed", "error": "exit code: 2", "code": "failed"},
    ]
    kept = "`````\n# not a heading @alice\n" + "".join(f"line {number}\n" for number in range(20_000))
    kept += "```\nmake: no rule https://a:b@host/x\n"
    sha = cloud.origin.commit(files("one"))
    github.commits.add(sha)
    cloud.builder.logs[f"registry:5000/github/3/7/one:{sha}"] = (kept, True)
    status, _ = cloud.push(sha, **PRIVATE)
    settled()
    assert (status, github.latest) == (422, {"stack-deploy": "failure", "one": "failure"})
    output = next(run["output"] for run in github.runs if run["name"] == "one")
    assert output["title"] == "build failed: exit code: 2"
    assert output["text"].startswith("````\n")
    assert "make: no rule https://***@host/x" in output["text"]
    assert 63_000 < len(output["text"]) <= 65_535
    cloud.builder.logs.clear()
    github.runs.clear()
    push(cloud, github, {"one/handler.py": HANDLER + "# again\n"})
    settled()
    output = next(run["output"] for run in github.runs if run["name"] == "one")
    assert output["text"] == "```\n#5 RUN make\n```"


@pytest.mark.parametrize("enforced", [True, False], ids=["422 for the token", "403 for the call"])
def test_without_the_permission_for_checks_there_are_statuses(
    enforced: bool, cloud: Cloud, github: FakeChecks
) -> None:
    github.granted -= {"checks: write"}
    github.enforced = enforced
    status, sha = push(cloud, github, files("one"))
    settled()
    assert (status, github.runs) == (200, [])
    latest = {row["context"]: row for row in github.statuses}
    assert {name: row["state"] for name, row in latest.items()} == {
        "stack-deploy": "success",
        "one": "success",
    }
    assert latest["one"]["description"].startswith("is live: http")
    assert latest["one"]["target_url"].endswith("/function/alice-one")
    assert {row["head_sha"] for row in github.statuses} == {sha}
    before = len(github.statuses)
    cloud.push(sha, **PRIVATE)
    settled()
    assert len(github.statuses) == before, "the same again is not told"


def test_without_any_permission_the_push_is_live_and_the_log_says_what_is_missing(
    cloud: Cloud, github: FakeChecks, capfd: pytest.CaptureFixture[str]
) -> None:
    github.granted -= {"checks: write", "statuses: write"}
    status, _ = push(cloud, github, files("one"))
    settled()
    assert (status, set(cloud.live)) == (200, {"alice-one"})
    assert "the App needs statuses: write" in capfd.readouterr().err


ERRORS: dict[str, Callable[[], Answer]] = {
    "500": lambda: (500, b"{}"),
    "502": lambda: (502, b"<html>"),
    "429": lambda: (429, b"{}", {"Retry-After": "30"}),
    "403 with retry-after": lambda: (403, b'{"message": "secondary rate limit"}', {"Retry-After": "30"}),
    "403 without": lambda: (403, b'{"message": "You have exceeded a secondary rate limit."}'),
    "403 none left": lambda: (
        403,
        b"{}",
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(10**10)},
    ),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in TELLING:
        monkeypatch.setattr(module, "_TRY_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", ERRORS)
def test_what_github_can_not_take_now_is_left_to_the_queue_and_ends_right(
    error: str, cloud: Cloud, github: FakeChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = [True]
    github.before.append(
        lambda method, path: ERRORS[error]() if fails and path.startswith("/repos/") else None
    )
    status, _ = push(cloud, github, files("one"))
    settled()
    assert (status, github.runs) == (200, [])
    asked = len(github.made("GET", "/repos/"))
    assert asked == 1, "GitHub is left alone for a while"
    queued = list(cloud.gateway.queued)
    assert [name for name, _, _ in queued] == ["github-status"], "the last word of the push"
    assert work_off(cloud) == [503]
    assert len(github.made("GET", "/repos/")) == asked
    fails.clear()
    monkeypatch.setattr(github_status.handler, "MEMORY", Memory())
    cloud.gateway.queued[:] = queued
    assert work_off(cloud) == [200]
    assert github.latest == {"stack-deploy": "success", "one": "success"}


def test_what_is_remembered_bears_several_threads() -> None:
    """cachetools says that its caches do not; one that breaks raises at every later look."""
    memory = Memory(without_checks=TTLCache(1000, 0.0005))

    def look(thread: int) -> None:
        for number in range(20_000):
            installation = thread * 10 + number % 50
            if memory.may_check(installation):
                memory.may_not_check(installation)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(look, range(4)))
    finally:
        sys.setswitchinterval(interval)


def test_a_push_ends_while_github_hangs(cloud: Cloud, github: FakeChecks) -> None:
    """Of a public repository: reading a private one asks GitHub's API, too."""
    goes_on = threading.Event()
    github.before.append(lambda method, path: None if goes_on.wait(SECONDS) else (500, b""))
    sha = cloud.origin.commit(files("one"))
    github.commits.add(sha)
    assert cloud.push(sha, scm="gitlab")[0] == 200
    record = git_tar.sdk.records.parse(cloud.gateway.logs["git-tar"][-1])
    assert record
    git_tar.sdk.status.MESSENGER.take(git_tar.sdk.status.Told("github", 3, REPOSITORY, sha, record))
    assert cloud.push(sha, scm="gitlab")[0] == 200
    assert not github.runs, "GitHub has not answered yet"
    goes_on.set()
    settled()
    assert github.latest == {"stack-deploy": "success", "one": "success"}


@pytest.mark.usefixtures("impatient")
def test_a_push_is_as_good_where_there_is_no_github_status(
    cloud: Cloud, github: FakeChecks, capfd: pytest.CaptureFixture[str]
) -> None:
    del cloud.gateway.handlers["github-status"]
    assert push(cloud, github, files("one"))[0] == 200
    settled()
    assert "not told of alice/hello@" in capfd.readouterr().err
    assert "github-status" in [name for name, _, _ in cloud.gateway.queued]


def test_messages_in_any_order_and_twice_change_nothing_that_is_over(
    cloud: Cloud, github: FakeChecks
) -> None:
    push(cloud, github, files("one"))
    settled()
    before = json.dumps(github.runs)
    calls = cloud.gateway.made("POST", "/function/github-status")
    assert len(calls) >= 2
    for _, _, headers, body in [*reversed(calls), *calls]:
        given = {"X-Cloud-Signature": headers["X-Cloud-Signature"]}
        assert github_status.handler.handle(Event(body, given), None)["statusCode"] == 200
    assert json.dumps(github.runs) == before


@pytest.mark.usefixtures("impatient")
def test_two_replicas_that_make_a_run_at_once_leave_one_that_is_shown(
    cloud: Cloud, github: FakeChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cloud.gateway.handlers["github-status"]
    push(cloud, github, files("one"))
    settled()
    [(_, body, headers)] = [each for each in cloud.gateway.queued if each[0] == "github-status"]
    other: list[int] = []

    def first(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/check-runs") and not other:
            other.append(0)
            monkeypatch.setattr(github_status.handler, "SLOTS", Slots())  # the other replica's own
            other.append(github_status.handler.handle(Event(body, headers), None)["statusCode"])

    github.before.append(first)
    assert github_status.handler.handle(Event(body, headers), None)["statusCode"] == 200
    assert other == [0, 200]
    assert github.latest == {"stack-deploy": "success", "one": "success"}
    assert all(run["status"] == "completed" for run in github.runs)
    assert len(github.runs) <= 4


def test_reconciles_look_at_what_is_live_changes_nothing_and_mends_what_was_lost(
    cloud: Cloud, github: FakeChecks
) -> None:
    _, sha = push(cloud, github, files("one"))
    settled()
    github.calls.clear()
    periodic = {**PRIVATE, "delivery": "reconcile-1", "periodic": True}
    assert cloud.push(sha, **periodic)[0] == 200
    settled()
    assert not [call for call in github.calls if call[0] != "GET" and call[1].startswith("/repos/")]
    assert len(cloud.gateway.made("POST", "/function/github-status")[-1][3]) < 2_000
    for run in github.runs:
        run.update(status="in_progress", conclusion=None)
    assert cloud.push(sha, **{**periodic, "delivery": "reconcile-2"})[0] == 200
    settled()
    assert github.latest == {"stack-deploy": "success", "one": "success"}
    assert len(github.runs) == 2


@pytest.mark.usefixtures("impatient")
def test_what_takes_long_goes_on_in_another_call(
    cloud: Cloud, github: FakeChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(github_status.handler, "SECONDS", 0)
    push(cloud, github, files("one"))
    settled()
    assert github.runs == []
    monkeypatch.setattr(github_status.handler, "SECONDS", SECONDS)
    assert work_off(cloud) == [200]
    assert github.latest == {"stack-deploy": "success", "one": "success"}


def test_an_app_that_was_installed_anew_gets_another_token(cloud: Cloud, github: FakeChecks) -> None:
    push(cloud, github, files("one"))
    settled()
    github.tokens.clear()
    github.runs.clear()
    push(cloud, github, {"one/handler.py": HANDLER + "# newer\n"})
    settled()
    assert github.latest == {"stack-deploy": "success", "one": "success"}


def test_a_commit_that_github_does_not_know_is_not_tried_for_ever(cloud: Cloud, github: FakeChecks) -> None:
    sha = cloud.origin.commit(files("one"))
    assert cloud.push(sha, **PRIVATE)[0] == 200
    settled()
    assert (github.runs, cloud.gateway.queued) == ([], [])


def rerequested(sha: str, **change: Any) -> dict[str, Any]:
    return {
        "action": "rerequested",
        "check_run": {
            "id": 1,
            "head_sha": sha,
            "check_suite": {"head_branch": "master"},
            "app": {"id": int(APP)},
            **change,
        },
        "repository": EVENT["repository"],
        "installation": {"id": INSTALLATION},
        "sender": {"id": 1, "login": "alice"},
    }


def test_re_run_runs_the_push_again_and_shows_it_anew(cloud: Cloud, github: FakeChecks) -> None:
    cloud.builder.failing["one"] = [{"status": "failed", "error": "the base is gone", "code": "failed"}]
    _, sha = push(cloud, github, files("one"))
    settled()
    assert github.latest == {"stack-deploy": "failure", "one": "failure"}
    cloud.builder.failing.clear()
    status, answer = test_gh_push.call(json.dumps(rerequested(sha)).encode(), "check_run")
    settled()
    assert (status, answer["queued"]["after"]) == (202, sha)
    assert github.latest == {"stack-deploy": "queued", "one": "failure"}
    [(name, body, _)] = cloud.gateway.queued
    assert name == "git-tar"
    queued = messages.unseal(body, "git-tar", git_tar.sdk.messages.Push)
    assert cloud.push(sha, **PRIVATE, delivery=queued.delivery)[0] == 200
    settled()
    assert github.latest == {"stack-deploy": "success", "one": "success"}
    assert [run["conclusion"] for run in github.runs] == ["failure", "failure", "success", "success"]


def test_gh_push_answers_while_github_status_hangs(cloud: Cloud, github: FakeChecks) -> None:
    goes_on = threading.Event()

    def hang(event: Event) -> dict[str, Any]:
        assert goes_on.wait(SECONDS)
        return {"statusCode": 200, "body": "{}"}

    cloud.gateway.handlers["github-status"] = hang
    assert test_gh_push.call()[0] == 202
    assert [name for name, _, _ in cloud.gateway.queued] == ["git-tar"]
    goes_on.set()


def test_where_nothing_is_to_be_told_nobody_is_called(
    cloud: Cloud, github: FakeChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("report_status", "false")
    push(cloud, github, files("one"))
    monkeypatch.setenv("report_status", "true")
    cloud.push(cloud.origin.commit(files("one", "two")), scm="gitlab")
    settled()
    assert not cloud.gateway.made("POST", "/function/github-status")
    body = messages.seal("github-status", git_tar.sdk.status.Told("gitlab", 3, 7, "", LAST))
    answer = github_status.handler.handle(Event(body, git_tar.sdk.messages.headers(body, KEYS)), None)
    assert json.loads(answer["body"]) == {"ignored": "report_status is off, or there is no GitHub App"}


LAST = git_tar.sdk.records.Record(
    "2026-01-01T00:00:00+00:00", "d-1", PUSH.repository.owner.login, "hello", "a" * 40, "", "push", "ok", 0
)
