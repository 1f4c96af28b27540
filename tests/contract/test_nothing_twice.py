"""What need not be done is not done: counted in builds, deploys and calls of git."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from git_tar.fetch import Client
from sdk.messages import Owner
from tests.repositories import Origin
from tests.unit.test_messages import PUSH

from . import test_pipeline
from .fakes import FakeBuilder
from .test_pipeline import HANDLER, Cloud, files, stack

cloud = test_pipeline.cloud
NEXT = "refs/heads/next"


def changed(cloud: Cloud, sha: str, **push: Any) -> tuple[int, int]:
    """How many builds and deploys the push took; it must succeed."""
    builds, calls = len(cloud.builder.built), len(cloud.gateway.calls)
    status, answer = cloud.push(sha, **push)
    assert (status, answer.get("outcome")) == (200, "ok"), answer
    writes = [call for call in cloud.gateway.calls[calls:] if call[:2] in DEPLOYS]
    return len(cloud.builder.built) - builds, len(writes)


DEPLOYS = {("PUT", "/system/functions"), ("POST", "/system/functions")}


def with_function(**rows: Any) -> dict[str, str]:
    """The files of one function with more in its stack.yml."""
    text = json.loads(stack("one"))
    text["functions"]["one"].update(rows)
    return {**files("one"), "stack.yml": json.dumps(text)}


def test_what_is_live_and_ready_is_left_alone(cloud: Cloud) -> None:
    assert changed(cloud, cloud.origin.commit(files("one", "two"))) == (2, 2)
    before = dict(cloud.live)
    assert changed(cloud, cloud.origin.commit({"README.md": "new"})) == (0, 0)
    assert changed(cloud, cloud.origin.commit({})) == (0, 0)
    assert cloud.live == before


def test_of_many_functions_only_the_changed_one_is_built_and_deployed(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one", "two", "three")))
    assert changed(cloud, cloud.origin.commit({"two/handler.py": f"{HANDLER}# 2\n"})) == (1, 1)
    assert cloud.builder.built[-1].rpartition(":")[0].endswith("/two")


def test_a_revert_is_not_built_again(cloud: Cloud) -> None:
    changed(cloud, cloud.origin.commit(files("one")))
    first = cloud.live["alice-one"]
    assert changed(cloud, cloud.origin.commit({"one/handler.py": f"{HANDLER}# 2\n"})) == (1, 1)
    assert changed(cloud, cloud.origin.commit(files("one"))) == (0, 1)
    assert cloud.live["alice-one"].rpartition("@")[2] == first.rpartition("@")[2]


def test_another_branch_with_the_same_is_not_built_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    assert changed(cloud, cloud.origin.commit({"README.md": "new"}, NEXT), ref=NEXT) == (0, 1)
    assert cloud.gateway.functions["alice-one"]["labels"]["com.openfaas.cloud.git-branch"] == "next"


def test_what_was_removed_and_comes_back_is_not_built_again(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one", "two")))
    assert changed(cloud, cloud.origin.commit({"stack.yml": stack("one")})) == (0, 0)
    assert set(cloud.live) == {"alice-one"}
    assert changed(cloud, cloud.origin.commit({"stack.yml": stack("one", "two")})) == (0, 1)


def test_a_deploy_asks_the_gateway_no_more_than_it_has_to(cloud: Cloud) -> None:
    """Whose is it; is it still, after the build; does it show what was sent, and is that ready."""
    cloud.push(cloud.origin.commit(files("one")))
    cloud.gateway.calls.clear()
    cloud.push(cloud.origin.commit({"one/handler.py": f"{HANDLER}# 2\n"}))
    asked = [call[0] for call in cloud.gateway.calls if call[1].startswith("/system/function")]
    assert asked == ["GET", "GET", "PUT", "GET", "GET"], "the last one is garbage-collect's list"


@pytest.mark.parametrize(
    "rows",
    [
        {"environment": {"X": "1"}},
        {"environment_file": ["env.yml"]},
        {"labels": {"team": "blue"}},
        {"annotations": {"topic": "t"}},
        {"limits": {"memory": "64Mi"}},
        {"requests": {"cpu": "50m"}},
        {"secrets": ["db"]},
        {"fprocess": "python other.py"},
    ],
    ids=str,
)
def test_another_configuration_is_deployed_without_a_build(rows: dict[str, Any], cloud: Cloud) -> None:
    cloud.gateway.secrets.add("gh-3-db")
    cloud.push(cloud.origin.commit({**files("one"), "env.yml": "environment: {X: '1'}"}))
    image = cloud.live["alice-one"].rpartition("@")[2]
    assert changed(cloud, cloud.origin.commit(with_function(**rows))) == (0, 1)
    assert cloud.live["alice-one"].rpartition("@")[2] == image


def test_the_operators_limits_are_deployed_without_a_build(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    monkeypatch.setenv("function_memory_limit_mb", "256")
    assert changed(cloud, sha) == (0, 1)
    assert changed(cloud, sha) == (0, 0)


def test_what_is_not_ready_is_deployed_again_without_a_build(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    cloud.gateway.functions["alice-one"]["image"] += "0"
    cloud.gateway.failures[cloud.live["alice-one"]] = "exit status 1"
    assert changed(cloud, sha) == (0, 1)


def test_another_epoch_builds_all_anew_with_the_templates_of_now(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates").mkdir()
    templates = Origin(tmp_path / "templates")
    template = {
        "template/python3-http/template.yml": "",
        "template/python3-http/Dockerfile": "FROM scratch\n",
    }
    templates.commit(template)
    monkeypatch.setenv("custom_templates", templates.url)
    sha = cloud.origin.commit(files("one", "two"))
    assert changed(cloud, sha) == (2, 2)
    newer = {"template/python3-http/Dockerfile": "FROM scratch\nCMD new\n"}
    templates.commit(newer)
    assert changed(cloud, sha) == (0, 0), "templates are asked for by age"
    for push in ({"periodic": True}, {}):
        monkeypatch.setenv("build_epoch", f"2026-11 {push}")
        assert changed(cloud, sha, **push) == (2, 2)
        assert cloud.builder.contexts[-1]["Dockerfile"].endswith(b"CMD new\n")
        assert changed(cloud, sha) == (0, 0)


def test_nothing_is_used_again_across_owners(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    theirs = replace(PUSH.repository, id=8, owner=Owner("bob", 4), clone_url=cloud.origin.url)
    assert changed(cloud, sha, repository=theirs) == (1, 1)
    assert "/github/4/8/one:" in cloud.live["bob-one"]


class Meeting:
    """Builds that end only once `size` of them, the first ones, are there at once; counts the most."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.lock = threading.Lock()
        self.size, self.begun, self.here, self.most = size, 0, 0, 0

    @contextmanager
    def attended(self) -> Iterator[None]:
        with self.lock:
            self.begun += 1
            self.here += 1
            self.most, is_early = max(self.most, self.here), self.begun <= self.size
        try:
            if is_early:
                self.barrier.wait(30)
            yield
        finally:
            with self.lock:
                self.here -= 1


@pytest.mark.parametrize("together", [2, 3])
def test_functions_of_one_push_are_built_together_but_no_more_than_the_setting_says(
    together: int, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting, build = Meeting(together), FakeBuilder._build

    def attended(self: FakeBuilder, body: bytes) -> Any:
        with meeting.attended():
            return build(self, body)

    monkeypatch.setattr(FakeBuilder, "_build", attended)
    monkeypatch.setenv("parallel_functions", str(together))
    names = [f"f{number}" for number in range(7)]
    assert changed(cloud, cloud.origin.commit(files(*names))) == (7, 7)
    assert meeting.most == together


def test_pushes_at_once_wait_for_their_turn_without_asking_for_it(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that buildshiprun has no slot for would have sent its whole context in vain."""
    meeting, build = Meeting(3), FakeBuilder._build

    def attended(self: FakeBuilder, body: bytes) -> Any:
        with meeting.attended():
            return build(self, body)

    monkeypatch.setattr(FakeBuilder, "_build", attended)
    sha = cloud.origin.commit(files("a", "b", "c", "d"))
    theirs = replace(PUSH.repository, id=8, owner=Owner("bob", 4), clone_url=cloud.origin.url)
    with ThreadPoolExecutor() as pool:
        pushes = [pool.submit(cloud.push, sha), pool.submit(cloud.push, sha, repository=theirs)]
        assert [push.result()[0] for push in pushes] == [200, 200]
    sent = cloud.gateway.made("POST", "/function/buildshiprun")
    assert len(sent) == 8 + 2, "8 functions, and 2 closing messages"
    assert meeting.most == 3


@pytest.fixture
def calls_of_git(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of git that ran, in their order."""
    ran: list[str] = []
    run = Client.run

    def counted(self: Client, *arguments: str, **named: Any) -> str:
        ran.append(next(word for word in arguments if not word.startswith("-")))
        return run(self, *arguments, **named)

    monkeypatch.setattr(Client, "run", counted)
    return ran


CHECKED_OUT = ["ls-tree", "read-tree"]


def test_a_push_runs_no_more_of_git_than_it_needs(cloud: Cloud, calls_of_git: list[str]) -> None:
    """The head is asked for before the fetch, after the last deploy, and after something was removed."""

    def push(files: dict[str, str], *, looks: int = 1) -> list[str]:
        sha = cloud.origin.commit(files)
        calls_of_git.clear()
        assert cloud.push(sha)[0] == 200
        assert (calls_of_git[0], calls_of_git[-looks:]) == ("ls-remote", ["ls-remote"] * looks)
        return calls_of_git[1:-looks]

    assert push(files("one")) == ["init", "fetch", *CHECKED_OUT]
    assert push({"one/handler.py": HANDLER + "# 2"}) == ["fetch", *CHECKED_OUT]
    assert push(files("two"), looks=2) == ["fetch", *CHECKED_OUT]
    sha = cloud.origin.git("rev-parse", "HEAD")
    calls_of_git.clear()
    cloud.push(sha)
    assert calls_of_git == ["ls-remote", *CHECKED_OUT, "ls-remote"]
