"""Repositories that left: gh-push's hint through git-tar and garbage-collect, and a GitHub that knows."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import git_tar.handler
from git_tar.sdk import messages, records
from git_tar.sdk.messages import Departure, Left, Owner, Push

from .fakes import Answer, Event
from .github import INSTALLATION, REPOSITORY, FakeGitHub, Installed
from .test_garbage_collect import deployed
from .test_gh_push import call as webhook
from .test_handovers import alarmed
from .test_pipeline import KEYS, Cloud, cloud, files, github, stages

__all__ = ["cloud", "github"]  # fixtures

ALICE = Owner("alice", 3)
LABELS: dict[str, Any] = {"git_owner": "alice", "git_owner_id": "3", "git_repo": "hello"}


def hello(*names: str, repo_id: int = REPOSITORY, **labels: str) -> dict[str, dict[str, Any]]:
    return {f"alice-{name}": deployed(f"alice-{name}", repo_id, **{**LABELS, **labels}) for name in names}


def leave(
    cloud: Cloud,
    *repositories: int,
    installation: int = INSTALLATION,
    owner: Owner = ALICE,
    scm: str = "github",
) -> tuple[int, Mapping[str, Any]]:
    return send(Left(scm, "d-1", Departure("installation deleted", owner, installation, repositories)))


def send(message: object) -> tuple[int, Mapping[str, Any]]:
    body = messages.seal("git-tar", message)
    answer = git_tar.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    return answer["statusCode"], json.loads(answer["body"])


def deletions(cloud: Cloud) -> int:
    return len(cloud.gateway.made("DELETE", "/"))


def uninstall(github: FakeGitHub) -> None:
    del github.installations[INSTALLATION]


def suspend(github: FakeGitHub) -> None:
    github.installations[INSTALLATION].suspended_at = "2026-01-01T00:00:00Z"


def deselect(github: FakeGitHub) -> None:
    github.installations[INSTALLATION].repositories.clear()


@pytest.mark.parametrize("how", [uninstall, suspend, deselect])
@pytest.mark.parametrize("named", [(), (REPOSITORY,), (REPOSITORY, 999)], ids=["all", "it", "it and another"])
def test_what_github_confirms_is_gone_is_removed(
    how: Any, named: tuple[int, ...], cloud: Cloud, github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {
        "bob-x": deployed("bob-x", 8, **{**LABELS, "git_owner_id": "4"}),
        "x": deployed("x", git_cloud="0"),
    }
    cloud.gateway.functions |= {**hello("one", "two"), **others}
    how(github)
    status, answer = leave(cloud, *named)
    assert (status, set(cloud.live)) == (200, {"bob-x", "x"})
    [told] = answer["repositories"]
    assert (told["repository"], told["outcome"]) == (REPOSITORY, "removed")
    assert told["removed"] == ["alice-one", "alice-two"]
    [record] = [each for each in stages(capsys) if each.stage == "leave"]
    assert (record.owner, record.repo, record.outcome) == ("alice", "hello", "ok")
    assert leave(cloud, *named)[1]["repositories"] == [], "the same event again does nothing"


def test_a_repository_that_was_deleted_is_confirmed_without_an_installations_id(
    cloud: Cloud, github: FakeGitHub
) -> None:
    cloud.gateway.functions |= hello("one")
    deselect(github)
    assert leave(cloud, REPOSITORY, installation=0)[0] == 200
    assert not cloud.live


@pytest.mark.parametrize("named", [(), (REPOSITORY,)])
def test_what_is_still_there_stays_and_is_followed_where_it_is_now(
    named: tuple[int, ...], cloud: Cloud, github: FakeGitHub
) -> None:
    """An old event, sent again, or another's body: the API knows better."""
    cloud.gateway.functions |= hello("one")
    status, answer = leave(cloud, *named)
    assert (status, answer["repositories"][0]["outcome"]) == (200, "followed")
    assert (set(cloud.live), deletions(cloud)) == ({"alice-one"}, 0)
    [(name, body, _)] = cloud.gateway.queued
    push = messages.unseal(body, "git-tar", Push)
    assert (name, push.ref, push.repository.full_name) == ("git-tar", "refs/heads/master", "alice/hello")


def test_an_app_that_was_installed_anew_still_has_its_repositories(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    github.installations = {43: Installed()}
    assert leave(cloud)[1]["repositories"][0]["outcome"] == "followed"
    assert set(cloud.live) == {"alice-one"}


def test_what_comes_back_during_the_removal_is_deployed_again(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    uninstall(github)

    def come_back(method: str, path: str, body: bytes) -> None:
        if method == "DELETE":
            github.installations[INSTALLATION] = Installed()

    cloud.gateway.overrides.append(come_back)
    assert leave(cloud)[1]["repositories"][0]["outcome"] == "followed"
    assert len(cloud.gateway.queued) == 1


BROKEN: dict[str, Answer] = {
    "401": (401, b"{}"),
    "403": (403, b"{}"),
    "limited": (403, b"{}", {"X-RateLimit-Remaining": "0"}),
    "429": (429, b"{}"),
    "500": (500, b""),
    "503": (503, b""),
    "redirect": (301, b"", {"Location": "https://evil.example"}),
    "no JSON": (200, b"<html>"),
    "empty": (200, b""),
    "other JSON": (200, b"[]"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
@pytest.mark.parametrize(
    "path", ["/repositories/7/installation", "/app", f"/app/installations/{INSTALLATION}"]
)
def test_an_error_is_no_absence(kind: str, path: str, cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    deselect(github)
    github.overrides.append(lambda _, asked: BROKEN[kind] if asked == path else None)
    status, _ = leave(cloud)
    assert status in ((500,) if kind == "401" else (422, 503))
    assert (set(cloud.live), deletions(cloud)) == ({"alice-one"}, 0)


def test_a_404_for_everything_is_no_absence(cloud: Cloud, github: FakeGitHub) -> None:
    """As of a wrong github_api_url: the App itself must be known there."""
    cloud.gateway.functions |= hello("one")
    github.overrides.append(lambda method, path: (404, b"{}"))
    assert leave(cloud)[0] == 422
    assert deletions(cloud) == 0


def test_two_statements_that_differ_delete_nothing(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    github.overrides.append(lambda _, path: (404, b"{}") if path.endswith("/installation") else None)
    assert leave(cloud)[1]["repositories"][0]["outcome"] == "followed"
    assert deletions(cloud) == 0


def test_another_apps_key_confirms_nothing(
    cloud: Cloud, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.gateway.functions |= hello("one")
    uninstall(github)
    monkeypatch.setenv("github_app_id", "13")
    assert leave(cloud)[1]["error"]["code"] == "misconfigured"
    assert deletions(cloud) == 0


@pytest.mark.parametrize("scm", ["github", "local"])
def test_without_an_app_nothing_is_deleted_and_it_is_said_how_to(
    scm: str, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.gateway.functions |= hello("one", git_scm=scm)
    status, answer = leave(cloud, scm=scm)
    assert (status, answer["repositories"][0]["outcome"], deletions(cloud)) == (200, "skipped", 0)
    [record] = [each for each in stages(capsys) if each.stage == "leave"]
    assert record.outcome == "skipped"
    assert "To remove alice-one by hand: python -m local collect alice/hello --uninstall" in record.error


def test_a_repository_without_functions_costs_no_call_of_the_api(
    cloud: Cloud, github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave(cloud, *range(1, 50))[1]["repositories"] == []
    assert not github.calls
    assert [each.error for each in stages(capsys) if each.stage == "leave"] == [
        "installation deleted: nothing of it is deployed"
    ]


def test_a_mass_deletion_is_refused_over_all_repositories_together(
    cloud: Cloud, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f{number}" for number in range(6)]
    functions = {**hello(*names), **hello(*(f"g{name}" for name in names), repo_id=8)}
    cloud.gateway.functions |= functions
    uninstall(github)
    status, answer = leave(cloud)
    assert (status, deletions(cloud)) == (422, 0)
    assert (
        "12 functions would be deleted, 10 are allowed at once: nothing is deleted"
        in answer["error"]["message"]
    )
    monkeypatch.setenv("delete_limit", "12")
    assert leave(cloud)[0] == 200
    assert not cloud.live


def test_what_github_has_not_answered_counts_towards_the_limit(cloud: Cloud, github: FakeGitHub) -> None:
    names = [f"f{number}" for number in range(6)]
    cloud.gateway.functions |= {**hello(*names), **hello(*(f"g{name}" for name in names), repo_id=8)}
    uninstall(github)
    github.overrides.append(lambda _, path: (503, b"") if path.startswith("/repositories/8/") else None)
    assert leave(cloud)[0] == 503
    assert deletions(cloud) == 0


def test_one_that_is_refused_does_not_hold_up_the_others(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= {**hello("one"), **hello("other", repo_id=8)}
    uninstall(github)
    github.overrides.append(lambda _, path: (403, b"") if path.startswith("/repositories/8/") else None)
    status, answer = leave(cloud)
    assert (status, set(cloud.live)) == (422, {"alice-other"})
    assert [each["outcome"] for each in answer["error"]["repositories"]] == ["removed", "refused"]


def test_a_push_that_is_on_its_way_is_waited_for(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    uninstall(github)
    with git_tar.handler.SLOTS.taken(3, ("github", REPOSITORY)):
        status, answer = leave(cloud)
    assert (status, answer["error"]["code"], deletions(cloud)) == (503, "busy", 0)
    assert leave(cloud)[0] == 200


@pytest.mark.parametrize("status", [401, 403])
def test_a_gateway_that_does_not_let_us_delete_rings_the_alarm(
    status: int, cloud: Cloud, github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.gateway.functions |= {**hello("one", "two"), **hello("other", repo_id=8)}
    uninstall(github)
    cloud.gateway.overrides.append(lambda method, *_: (status, b"") if method == "DELETE" else None)
    got, answer = leave(cloud)
    assert (got, answer["error"]["code"]) == (500, "misconfigured")
    assert "could not be deleted: alice-one, alice-two: " in answer["error"]["message"]
    assert {each["outcome"] for each in answer["error"]["repositories"]} == {"misconfigured"}
    shown = capsys.readouterr()
    assert alarmed(shown.err) == {"git-tar", "garbage-collect"}
    told = [record for line in shown.out.splitlines() if (record := records.parse(line))]
    assert {record.outcome for record in told if record.stage == "leave"} == {"failed"}


def test_departures_are_looked_at_one_at_a_time_so_that_pushes_go_on(
    cloud: Cloud, github: FakeGitHub
) -> None:
    cloud.gateway.functions |= hello("one")
    uninstall(github)
    asked, go_on = threading.Event(), threading.Event()

    def hang(method: str, path: str) -> None:
        if path == f"/repositories/{REPOSITORY}/installation":
            asked.set()
            assert go_on.wait(30)

    github.overrides.append(hang)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(leave, cloud)
        try:
            assert asked.wait(10)
            for _ in range(3):
                status, answer = leave(cloud)
                assert (status, answer["error"]["code"]) == (503, "busy")
                assert answer["error"]["message"] == "another departure is being looked at"
            with git_tar.handler.SLOTS.taken(3, "a push"), git_tar.handler.SLOTS.taken(3, "another"):
                pass
        finally:
            go_on.set()
        assert first.result()[0] == 200
    assert not cloud.live
    assert leave(cloud)[0] == 200


def test_a_departure_waits_while_pushes_take_all_slots(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    uninstall(github)
    slots = git_tar.handler.SLOTS
    with slots.taken(3, 1), slots.taken(3, 2), slots.taken(3, 3):
        status, answer = leave(cloud)
    assert (status, answer["error"]["code"]) == (503, "busy")
    assert not cloud.gateway.calls
    assert leave(cloud)[0] == 200


def test_a_cluster_that_cannot_be_read_is_asked_again_later(cloud: Cloud, github: FakeGitHub) -> None:
    uninstall(github)
    cloud.gateway.overrides.append(lambda _, path, __: (500, b"") if path == "/system/functions" else None)
    assert leave(cloud)[0] == 503


def test_a_transferred_repositorys_functions_go_once_the_new_ones_are_live(
    cloud: Cloud, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event names no installation; more functions than delete_limit have moved, none is lost."""
    names = [f"f{number}" for number in range(3)]
    monkeypatch.setenv("delete_limit", "0")
    sha = cloud.origin.commit(files(*names))
    assert cloud.push(sha, installation=messages.Installation(INSTALLATION))[0] == 200
    assert set(cloud.live) == {f"alice-{name}" for name in names}
    github.full_name, github.owner_id = "bob/moved", 9
    github.installations = {43: Installed()}
    cloud.gateway.calls.clear()
    status, answer = cloud.push("", before="", installation=None)
    assert (status, answer["removed"]) == (200, [f"alice-{name}" for name in names])
    assert set(cloud.live) == {f"bob-{name}" for name in names}
    order = [call[0] for call in cloud.gateway.calls if call[1] == "/system/functions" and call[0] != "GET"]
    assert order == ["POST"] * 3 + ["DELETE"] * 3
    labels = cloud.gateway.functions["bob-f0"]["labels"]
    assert labels["com.openfaas.cloud.git-owner-id"] == "9"


def test_a_transfer_that_fails_leaves_the_old_functions(cloud: Cloud, github: FakeGitHub) -> None:
    sha = cloud.origin.commit(files("one", "two"))
    cloud.push(sha, installation=messages.Installation(INSTALLATION))
    github.full_name, github.owner_id = "bob/moved", 9
    cloud.gateway.functions["bob-two"] = deployed("bob-two", 99, git_owner="bob-x")
    status, _ = cloud.push("", before="", installation=None)
    assert status == 422
    assert set(cloud.live) == {"alice-one", "alice-two", "bob-one", "bob-two"}


def test_a_push_that_would_remove_too_much_is_live_and_says_so(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("delete_limit", "1")
    cloud.push(cloud.origin.commit(files("one", "two", "three")))
    for name in ("two", "three"):
        (cloud.origin.work / name / "handler.py").unlink()
    status, answer = cloud.push(cloud.origin.commit({**files("one", "four")}))
    assert (status, set(cloud.live)) == (422, {"alice-one", "alice-two", "alice-three", "alice-four"})
    assert "everything is live, but 2 functions would be deleted, 1 are allowed" in answer["error"]["message"]


def test_the_hint_comes_from_the_webhook_and_goes_through(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.gateway.functions |= hello("one")
    uninstall(github)
    account = {"id": 3, "login": "alice"}
    event = {"action": "deleted", "installation": {"id": INSTALLATION, "account": account}, "sender": account}
    status, answer = webhook(json.dumps(event).encode(), "installation")
    assert (status, answer["queued"]["left"]) == (202, "installation deleted")
    [(name, body, headers)] = cloud.gateway.queued
    told = git_tar.handler.handle(Event(body, headers), None)
    assert (name, told["statusCode"], cloud.live) == ("git-tar", 200, {})


@pytest.mark.parametrize("key", ["", "guess"])
def test_an_unsigned_hint_is_refused(key: str, cloud: Cloud) -> None:
    body = messages.seal("git-tar", Left("github", "d", Departure("x", ALICE)))
    headers = {"X-Cloud-Signature": f"sha256={key or '0' * 64}"}
    assert git_tar.handler.handle(Event(body, headers), None)["statusCode"] == 401
    assert not cloud.gateway.calls


@pytest.mark.parametrize(
    "left", [None, [], {}, {"cause": "x"}, {"cause": "x", "owner": {"login": "a", "id": "3"}}]
)
def test_a_signed_hint_that_is_none_is_malformed(left: object, cloud: Cloud) -> None:
    body = json.dumps({"for": "git-tar", "at": 1, "scm": "github", "delivery": "d", "left": left}).encode()
    answer = git_tar.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    assert answer["statusCode"] == 400
    assert not cloud.gateway.calls


def test_every_record_of_it_can_be_read(
    cloud: Cloud, github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.gateway.functions |= hello("one")
    leave(cloud)
    for line in capsys.readouterr().out.splitlines():
        record = records.parse(line)
        assert record
        assert record.outcome in {"ok", "unchanged", "failed", "refused", "superseded", "skipped", "retry"}
