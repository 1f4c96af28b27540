"""reconcile with the other functions: what an event that was lost would have done."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import garbage_collect.handler
import git_tar.handler
import reconcile.handler
from git_tar.sdk.customers import Customers
from reconcile.pace import Pace
from reconcile.sdk import messages
from reconcile.sdk.github_app import Tokens
from reconcile.sdk.messages import Collect, Departure, Left, Owner, Push, Reconcile
from reconcile.sdk.secrets import Keys
from reconcile.turns import Looks, Turns
from tests.unit.test_messages import PUSH

from . import test_pipeline
from .fakes import Event
from .github import INSTALLATION, NAMES_TOKEN, REPOSITORY, TOKEN, FakeGitHub, Installed
from .test_garbage_collect import deployed
from .test_pipeline import HANDLER, Cloud, files, stack, stages

CLOUD = "com.openfaas.cloud."
KEYS = Keys("payload-secret", (b"payload",))
cloud, github = test_pipeline.cloud, test_pipeline.github
COVERING_PATH, INSTALLATION_PATH = (
    f"/repositories/{REPOSITORY}/installation",
    f"/app/installations/{INSTALLATION}",
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a start."""
    for name, made in (("TOKENS", Tokens()), ("LOOKS", Looks()), ("SUSPECTS", Turns())):
        monkeypatch.setattr(reconcile.handler, name, made)
    monkeypatch.setattr("reconcile.pace.SECONDS", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that git-tar counts its pauses by: append to it to move it on."""
    later = [0.0]

    class Clock:
        @staticmethod
        def time() -> float:
            return time.time() + sum(later)

    monkeypatch.setattr("git_tar.setbacks.time", Clock)
    return later


def tick() -> tuple[int, Mapping[str, Any]]:
    """As a clock calls it: with nothing."""
    answer = reconcile.handler.handle(Event(), None)
    return answer["statusCode"], json.loads(answer["body"])


def by_hand(repository: str = "") -> tuple[int, Mapping[str, Any]]:
    body = messages.seal("reconcile", Reconcile(repository))
    answer = reconcile.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    return answer["statusCode"], json.loads(answer["body"])


def work_off(cloud: Cloud) -> list[tuple[int, Mapping[str, Any]]]:
    """What git-tar makes of what is queued for it."""
    queued = [(body, headers) for name, body, headers in cloud.gateway.queued if name == "git-tar"]
    cloud.gateway.queued.clear()
    answers = [git_tar.handler.handle(Event(body, headers), None) for body, headers in queued]
    return [(answer["statusCode"], json.loads(answer["body"])) for answer in answers]


def writes(cloud: Cloud) -> list[str]:
    return [
        call[0]
        for call in cloud.gateway.calls
        if call[1] == "/system/functions" and call[0] not in ("GET", "HEAD")
    ]


def uninstalls(cloud: Cloud) -> list[Collect]:
    bodies = [body for name, body, _ in cloud.gateway.queued if name == "garbage-collect"]
    return [messages.unseal(body, "garbage-collect", Collect) for body in bodies]


def test_a_push_whose_event_was_lost_is_made_up_for(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one", "old")))
    (cloud.origin.work / "one" / "handler.py").write_text(HANDLER + "# newer\n")
    sha = cloud.origin.commit({"stack.yml": stack("one")})
    assert tick() == (200, {"queued": 1, "uninstalled": 0, "left": 0})
    [(status, report)] = work_off(cloud)
    assert (status, report["outcome"], report["sha"]) == (200, "ok", sha)
    assert set(cloud.live) == {"alice-one"}
    assert f":{sha}@" in cloud.live["alice-one"]


def test_twice_in_a_row_changes_nothing(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one", "two")))
    before, built = dict(cloud.gateway.functions), len(cloud.builder.built)
    for look in (tick, by_hand, tick):
        cloud.gateway.calls.clear()
        assert look()[0] == 200
        [(status, report)] = work_off(cloud)
        assert (status, {result["outcome"] for result in report["results"]}) == (200, {"unchanged"})
        assert not writes(cloud)
        if look is tick:
            sent = [call[3] for call in cloud.gateway.made("POST", "/function/buildshiprun")]
            assert all(body.startswith(b"{") for body in sent), "no context is sent"
    assert (cloud.gateway.functions, len(cloud.builder.built)) == (before, built)


@pytest.mark.parametrize("change", ["unready", "changed hands", "edited"])
def test_what_is_not_as_it_should_be_is_sent_whole(change: str, cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    rows = cloud.gateway.functions["alice-one"]
    if change == "unready":
        cloud.gateway.failures[rows["image"]] = "exit status 1"
    elif change == "edited":
        rows["annotations"] = {**rows["annotations"], "com.openfaas.cloud.config": "?"}
    else:
        cloud.gateway.functions["alice-two"] = {**rows, "service": "alice-two"}
        theirs = {"git-repo-id": "8", "git-owner-id": "9", "git-owner": ""}  # so nobody asks for theirs
        rows["labels"] = {
            **rows["labels"],
            **{f"com.openfaas.cloud.{key}": text for key, text in theirs.items()},
        }
    cloud.gateway.calls.clear()
    tick()
    statuses = {status for status, _ in work_off(cloud)}
    assert [call for call in cloud.gateway.made("POST", "/function/buildshiprun") if call[3][:1] != b"{"]
    assert statuses == {200} if change == "edited" else 422 in statuses


def test_a_message_that_is_queued_twice_is_harmless(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    sha = cloud.origin.commit({"one/handler.py": HANDLER + "# newer\n"})
    tick()
    tick()
    assert [report["sha"] for _, report in work_off(cloud)] == [sha, sha]
    assert len(cloud.builder.built) == 2


def test_the_message_is_signed_and_says_what_gh_push_would(cloud: Cloud) -> None:
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    tick()
    [(name, body, headers)] = cloud.gateway.queued
    push = messages.unseal(messages.verified(body, headers, KEYS), name, Push, max_age=60)
    assert (name, push.scm, push.ref, push.before, push.periodic) == (
        "git-tar",
        "github",
        "refs/heads/master",
        sha,
        True,
    )
    assert push.repository.clone_url == cloud.origin.url
    assert (push.repository.full_name, push.repository.owner.id) == ("alice/hello", 3)


def test_a_function_that_was_deleted_by_hand_comes_back(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one", "two")))
    del cloud.gateway.functions["alice-two"]
    tick()
    work_off(cloud)
    assert set(cloud.live) == {"alice-one", "alice-two"}
    assert len(cloud.builder.built) == 2, "its image is still there"


def test_functions_of_every_namespace_are_found(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    cloud.gateway.functions["alice-one"]["namespace"] = "staging"
    assert tick()[1]["queued"] == 0
    cloud.gateway.namespaces = ["staging"]
    assert tick()[1]["queued"] == 1


def test_a_head_that_fails_is_tried_again_after_pauses_that_double(cloud: Cloud, clock: list[float]) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    cloud.builder.failing["one"] = [{"status": "failed", "error": "exit code: 2", "code": "failed"}]
    assert cloud.push(cloud.origin.commit({"one/handler.py": "broken\n"}))[0] == 422

    def tried() -> bool:
        tick()
        [(status, answer)] = work_off(cloud)
        assert (status, answer.get("outcome")) in ((422, None), (200, "skipped"))
        return status == 422

    for minutes in (5, 10, 20, 40):
        assert not tried()
        clock.append(minutes * 60 - 10)
        assert not tried()
        clock.append(11)
        assert tried()
    del cloud.builder.failing["one"]
    assert not tried()
    sha = cloud.origin.commit({"one/handler.py": HANDLER + "# mended\n"})
    tick()
    assert work_off(cloud)[0][1]["sha"] == sha, "another head is not left alone"


def test_a_head_that_rests_leaves_no_trace(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """An author who tries again must not be told the end of a look that did nothing."""
    cloud.push(cloud.origin.commit(files("one")))
    cloud.push(cloud.origin.commit({"stack.yml": "provider: ["}))
    tick()
    capsys.readouterr()
    assert work_off(cloud)[0][1]["outcome"] == "skipped"
    assert stages(capsys) == []


def test_what_the_operator_asks_for_is_tried_at_once(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    cloud.builder.failing["one"] = [{"status": "failed", "error": "no space", "code": "failed"}]
    cloud.push(cloud.origin.commit({"one/handler.py": HANDLER + "# newer\n"}))
    del cloud.builder.failing["one"]
    status, answer = by_hand("Alice/Hello")
    assert (status, answer["queued"]) == (200, ["alice/hello"])
    assert work_off(cloud)[0][1]["outcome"] == "ok"


def test_a_look_never_piles_up_where_nobody_is_free(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    with git_tar.handler.SLOTS.taken(1, ("github", 7)):
        tick()
        assert work_off(cloud)[0][0] == 503, "the queue tries it again"
        tick()
        monkeypatch.setenv("push_patience", "0s")
        assert work_off(cloud)[0][1]["outcome"] == "skipped"
    monkeypatch.delenv("push_patience")
    tick()
    assert work_off(cloud)[0][1]["outcome"] == "ok", "being busy is no failure"


def test_a_repository_that_cannot_be_read_keeps_its_functions(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    cloud.origin.bare.rename(cloud.origin.bare.with_suffix(".away"))
    tick()
    [(status, _)] = work_off(cloud)
    assert (status, set(cloud.live)) == (503, {"alice-one"})
    cloud.origin.bare.with_suffix(".away").rename(cloud.origin.bare)
    cloud.origin.delete("refs/heads/master")
    tick()
    assert work_off(cloud)[0][1]["outcome"] == "skipped"
    assert set(cloud.live) == {"alice-one"}
    assert not uninstalls(cloud)


def test_a_repository_that_was_made_again_is_not_looked_at_under_its_old_id(cloud: Cloud) -> None:
    """Each of both would take the functions over from the other."""
    sha = cloud.origin.commit(files("one", "two"))
    cloud.push(sha)
    again = {**vars(PUSH.repository), "id": 8, "clone_url": cloud.origin.url}
    two = dict(cloud.gateway.functions["alice-two"])
    cloud.push(sha, repository=type(PUSH.repository)(**again))
    cloud.gateway.functions["alice-two"] = {**two, "service": "alice-old"}
    tick()
    [(_, body, _)] = cloud.gateway.queued
    assert messages.unseal(body, "git-tar", Push).repository.id == 8


def test_no_more_than_the_limit_is_queued_and_the_others_come_next(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    one = cloud.gateway.functions["alice-one"]
    for number in range(100, 104):
        labels = {**one["labels"], f"{CLOUD}git-repo-id": str(number), f"{CLOUD}git-repo": f"r{number}"}
        cloud.gateway.functions[f"f{number}"] = {**one, "service": f"f{number}", "labels": labels}
    monkeypatch.setenv("reconcile_repositories", "3")
    assert [tick()[1] for _ in range(2)] == [{"queued": 3, "uninstalled": 0, "left": 2}] * 2
    queued = [messages.unseal(body, "git-tar", Push).repository.id for _, body, _ in cloud.gateway.queued]
    assert set(queued) == {7, 100, 101, 102, 103}
    assert len(set(queued[:3])) == 3


def test_a_queue_that_is_full_or_a_gateway_that_is_away_fails_the_look(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))

    def full(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (429, b"1000 calls of git-tar are waiting") if path.startswith("/async") else None

    cloud.gateway.overrides.append(full)
    assert tick()[0] == 503
    cloud.gateway.overrides[:] = [lambda *_: (500, b"panic")]
    assert tick()[0] == 503


def test_whoever_signs_nothing_learns_no_name_and_is_let_in_now_and_then(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconcile.pace.SECONDS", 30)
    monkeypatch.setattr(reconcile.handler, "PACE", Pace())
    cloud.push(cloud.origin.commit(files("one")))
    assert tick() == (200, {"queued": 1, "uninstalled": 0, "left": 0})
    assert tick() == (200, {"queued": 0, "reason": "somebody asked just now"})
    assert by_hand()[1]["queued"] == ["alice/hello"]


@pytest.mark.parametrize("kind", ["unsigned", "old", "for git-tar"])
def test_a_request_that_is_not_the_operators_is_refused(kind: str, cloud: Cloud) -> None:
    receiver = "git-tar" if kind == "for git-tar" else "reconcile"
    body = messages.seal(receiver, Reconcile(), now=1 if kind == "old" else None)
    headers = {} if kind == "unsigned" else messages.headers(body, KEYS)
    assert reconcile.handler.handle(Event(body, headers), None)["statusCode"] == 401
    assert not cloud.gateway.calls


def test_a_repository_that_is_not_installed_is_missing(cloud: Cloud) -> None:
    status, answer = by_hand("alice/nothing")
    assert (status, answer["error"]["code"]) == (404, "missing")


def test_a_repository_that_the_app_lists_gets_its_first_deploy(cloud: Cloud, github: FakeGitHub) -> None:
    sha = cloud.origin.commit(files("one"))
    assert tick() == (200, {"queued": 1, "uninstalled": 0, "left": 0})
    [(status, report)] = work_off(cloud)
    assert (status, report["sha"], set(cloud.live)) == (200, sha, {"alice-one"})
    assert tick()[1]["queued"] == 1, "what is listed and deployed is one repository"


def test_every_page_of_the_apps_list_is_read(
    cloud: Cloud, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("reconcile_repositories", "500")
    one = github._repository()
    github.more = [{**one, "id": number, "full_name": f"alice/{number}"} for number in range(1000, 1230)]
    assert tick()[1]["queued"] == 231
    monkeypatch.setattr("reconcile.github._PAGES", 2)
    assert tick()[1]["queued"] == 200


def test_a_repository_that_was_moved_is_followed_by_its_id(cloud: Cloud, github: FakeGitHub) -> None:
    cloud.origin.commit(files("one"))
    tick()
    work_off(cloud)
    github.full_name, github.owner_id = "bob/moved", 9
    assert by_hand("bob/moved")[1]["queued"] == ["bob/moved"]
    work_off(cloud)
    assert "bob-one" in cloud.live


@pytest.fixture
def left(cloud: Cloud, github: FakeGitHub) -> FakeGitHub:
    """GitHub after a repository with functions here has left the App's installation."""
    cloud.origin.commit(files("one"))
    tick()
    work_off(cloud)
    assert set(cloud.live) == {"alice-one"}
    github.installations[INSTALLATION].repositories.clear()
    return github


def test_what_the_apps_own_api_says_is_gone_is_uninstalled(cloud: Cloud, left: FakeGitHub) -> None:
    status, answer = by_hand()
    assert (status, answer["queued"], answer["uninstalled"]) == (200, [], ["alice/hello"])
    [request] = uninstalls(cloud)
    assert (request.uninstall, request.reason, request.functions) == (True, "uninstall", ())
    assert (request.scm, request.repo_id, request.owner_id) == ("github", 7, 3)


@pytest.mark.parametrize(
    "path",
    [
        "/app",
        "/app/installations",
        COVERING_PATH,
        INSTALLATION_PATH,
        f"{INSTALLATION_PATH}/access_tokens",
        "/installation/repositories",
    ],
)
def test_an_error_uninstalls_nothing_and_is_told(path: str, cloud: Cloud, left: FakeGitHub) -> None:
    # 404 is an answer of those that are asked for one thing: it is gone.
    answers = [404] if path in (COVERING_PATH, INSTALLATION_PATH) else []
    for status in {301, 401, 403, 404, 429, 500, 503}.difference(answers):
        left.failing[path] = status
        reconcile.handler.TOKENS._minted.clear()
        assert by_hand()[0] == 502
    assert not uninstalls(cloud)
    assert set(cloud.live) == {"alice-one"}


def test_only_a_404_for_its_id_uninstalls(cloud: Cloud, left: FakeGitHub) -> None:
    for status in (200, 301, 401, 403, 429, 451, 500, 503):
        left.failing[COVERING_PATH] = status
        by_hand()
    assert not uninstalls(cloud)


def test_what_another_installation_has_stays(cloud: Cloud, left: FakeGitHub) -> None:
    """Of an owner whose list can't be read, to whom it was transferred."""
    left.installations[43] = Installed()
    left.overrides.append(lambda _, path: (503, b"") if path.startswith("/app/installations/43/") else None)
    assert by_hand()[0] == 502
    assert not uninstalls(cloud)


def test_a_list_that_is_not_whole_uninstalls_nothing(cloud: Cloud, left: FakeGitHub) -> None:
    same = {**left._repository(), "id": 8}
    left.more = [same, same]  # one moved to the next page while it was read
    by_hand()
    assert not uninstalls(cloud)


def test_an_installation_that_is_suspended_or_another_owners_says_nothing(
    cloud: Cloud, left: FakeGitHub
) -> None:
    installation = left.installations[INSTALLATION]
    installation.suspended_at = "2026-01-01T00:00:00Z"
    by_hand()
    installation.suspended_at, left.owner_id = None, 4
    by_hand()
    assert not uninstalls(cloud)


def test_what_leaves_is_removed_once_whoever_says_so(cloud: Cloud, left: FakeGitHub) -> None:
    """reconcile twice before the queue is worked off, and GitHub's event in between."""
    cloud.gateway.functions["bob-x"] = deployed("bob-x", 8, git_owner="bob", git_owner_id="4")
    tick()
    left_event = Left("github", "d", Departure("repository deleted", Owner("alice", 3), 0, (REPOSITORY,)))
    tick()
    queued = [(body, headers) for name, body, headers in cloud.gateway.queued if name == "garbage-collect"]
    answers = [garbage_collect.handler.handle(Event(*each), None) for each in queued[:1]]
    body = messages.seal("git-tar", left_event)
    event = git_tar.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    answers += [garbage_collect.handler.handle(Event(*each), None) for each in queued[1:]]
    removed = [(answer["statusCode"], json.loads(answer["body"])["removed"]) for answer in answers]
    assert removed == [(200, ["alice-one"]), (200, [])]
    assert (event["statusCode"], json.loads(event["body"])["repositories"]) == (200, [])
    assert (set(cloud.live), len(cloud.gateway.made("DELETE", "/"))) == ({"bob-x"}, 1)
    assert tick()[1]["uninstalled"] == 0


def test_more_of_an_owner_than_the_limit_waits_for_the_operators_word(
    cloud: Cloud, left: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an event: also where each repository alone has fewer."""
    one = cloud.gateway.functions["alice-one"]
    labels = {**one["labels"], f"{CLOUD}git-repo-id": "100", f"{CLOUD}git-repo": "other"}
    cloud.gateway.functions["f"] = {**one, "service": "f", "labels": labels}
    monkeypatch.setenv("delete_limit", "1")
    status, answer = by_hand()
    assert (status, uninstalls(cloud)) == (502, [])
    assert "owner 3: 2 functions would be deleted, 1 are allowed at once" in answer["error"]["message"]
    monkeypatch.setenv("delete_limit", "2")
    assert by_hand()[0] == 200
    assert {request.repo_id for request in uninstalls(cloud)} == {7, 100}


def test_who_is_no_customer_is_not_told_every_five_minutes(
    cloud: Cloud,
    github: FakeGitHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "customers").write_text("bob\n")
    monkeypatch.setenv("customers_path", str(tmp_path / "customers"))
    monkeypatch.setenv("validate_customers", "true")
    monkeypatch.setattr(git_tar.handler, "CUSTOMERS", Customers())
    cloud.origin.commit(files("one"))
    tick()
    capsys.readouterr()
    [(status, answer)] = work_off(cloud)
    assert (status, answer["outcome"], stages(capsys), cloud.live) == (200, "skipped", [], {})
    assert "alice is not on the list" in answer["error"]


def test_a_clock_too_uninstalls_but_few_at_once(cloud: Cloud, left: FakeGitHub) -> None:
    one = cloud.gateway.functions["alice-one"]
    for number in range(100, 104):
        labels = {**one["labels"], f"{CLOUD}git-repo-id": str(number), f"{CLOUD}git-repo": f"r{number}"}
        cloud.gateway.functions[f"f{number}"] = {**one, "service": f"f{number}", "labels": labels}
    assert tick()[1] == {"queued": 0, "uninstalled": 3, "left": 0}
    tick()
    assert {request.repo_id for request in uninstalls(cloud)} == {7, 100, 101, 102, 103}


def test_what_is_not_githubs_is_looked_at_also_while_github_is_away(cloud: Cloud, left: FakeGitHub) -> None:
    labels = cloud.gateway.functions["alice-one"]["labels"]
    cloud.gateway.functions["local-one"] = {
        **cloud.gateway.functions["alice-one"],
        "service": "local-one",
        "labels": {**labels, "com.openfaas.cloud.git-scm": "local", "com.openfaas.cloud.git-private": "0"},
    }
    left.failing["/app/installations"] = 503
    assert tick()[0] == 502
    [(_, body, _)] = cloud.gateway.queued
    assert messages.unseal(body, "git-tar", Push).scm == "local"


def test_no_token_shows_anywhere(cloud: Cloud, left: FakeGitHub, capfd: pytest.CaptureFixture[str]) -> None:
    left.failing[COVERING_PATH] = 500
    answers = json.dumps([by_hand(), tick()])
    shown = capfd.readouterr()
    for token in (TOKEN, NAMES_TOKEN):
        assert token not in answers + shown.out + shown.err
    assert all(
        token.encode() not in body for token in (TOKEN, NAMES_TOKEN) for _, body, _ in cloud.gateway.queued
    )
