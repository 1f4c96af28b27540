"""The local git server's hook with real git: a push becomes GitHub's event, and shows what follows."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from local.gitserver import deliver, heads, hook
from local.gitserver.event import Update, payload
from local.gitserver.repository import BareRepository, ensure, owner_id
from sdk import signature
from sdk.secrets import Keys
from sdk.settings import Settings
from tests.conftest import ROOT
from tests.repositories import MASTER, Origin

from .fakes import Event, FakeGateway

DELIVERY_RECORD = {"owner": "alice", "repo": "hello", "function": "", "seconds": 0.1, "outcome": "ok"}


class Served:
    """A bare repository of the server, with the hook installed, that an author pushes to."""

    def __init__(self, folder: Path, gateway: FakeGateway, secret_folder: Path) -> None:
        self.repository = ensure("/alice/hello.git/git-receive-pack", folder / "srv")
        hooks = folder / "hooks"
        hooks.mkdir()
        program = hooks / "proc-receive"
        program.write_text(f"#!/bin/sh\nexec {sys.executable} {ROOT}/local/gitserver/proc-receive\n")
        program.chmod(0o755)
        for key, value in {"core.hooksPath": str(hooks), "receive.procReceiveRefs": "refs/heads"}.items():
            self.repository.git("config", key, value)
        self.author = Origin(folder)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "gateway_url": gateway.url,
            "secret_mount_path": str(secret_folder),
            "PUBLIC_URL": "http://127.0.0.1:8082",
        }

    def push(self, *refs: str) -> subprocess.CompletedProcess[str]:
        command = ("git", "-C", str(self.author.work), "push", str(self.repository.folder), *refs)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def head(self, ref: str = MASTER) -> str:
        return self.repository.git("for-each-ref", "--format=%(objectname)", ref)


@pytest.fixture
def served(tmp_path: Path, gateway: FakeGateway, secret_folder: Path) -> Served:
    return Served(tmp_path, gateway, secret_folder)


def receiving(gateway: FakeGateway, outcome: str, error: str = "", head: str = "") -> list[Event]:
    """Make gh-push take events, and git-tar record the end of their pushes, or of a newer `head`."""
    events: list[Event] = []

    def gh_push(event: Event) -> Mapping[str, Any]:
        events.append(event)
        sha, delivery = json.loads(event.body)["after"], event.headers["X-GitHub-Delivery"]
        now = datetime.now(timezone.utc)
        record = {**DELIVERY_RECORD, "at": now.isoformat(), "delivery": delivery, "sha": sha}
        before = {**record, "at": (now - timedelta(minutes=1)).isoformat(), "stage": "push"}
        before |= {"delivery": "an earlier one", "outcome": "failed"}
        other = {**record, "delivery": "other", "sha": "f" * 40, "stage": "push"}
        fetch = {**record, "stage": "fetch"}
        end = {**record, "stage": "push", "outcome": outcome, "error": error, "sha": head or sha}
        gateway.logs["git-tar"] = [json.dumps(row) for row in (before, other, fetch, end)]
        return {"statusCode": 202, "body": json.dumps({"delivery": delivery, "queued": {}})}

    gateway.handlers["gh-push"] = gh_push
    return events


def test_a_push_sends_githubs_event_signed_and_succeeds_when_it_is_live(
    served: Served, gateway: FakeGateway
) -> None:
    events = receiving(gateway, "ok")
    sha = served.author.commit({"stack.yml": "x"})
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == 0, pushed.stderr
    assert served.head() == sha
    [event] = events
    assert event.headers["X-GitHub-Event"] == "push"
    signature.verify(event.body, event.headers["X-Hub-Signature-256"], Keys("k", (b"webhook",)))
    sha1 = hmac.new(b"webhook", event.body, hashlib.sha1).hexdigest()
    assert event.headers["X-Hub-Signature"] == f"sha1={sha1}"
    body = json.loads(event.body)
    assert (body["ref"], body["before"], body["after"]) == (MASTER, "0" * 40, sha)
    assert body["repository"]["clone_url"] == "http://git-server:8080/alice/hello.git"
    for line in ("gh-push          queued", "fetched in 0.1 s", "done: everything is live"):
        assert line in pushed.stderr
    assert "new branch" in pushed.stderr


def test_a_push_fails_when_the_pipeline_does_but_its_commit_is_stored(
    served: Served, gateway: FakeGateway
) -> None:
    receiving(gateway, "failed", "1 of 1 functions failed: hello")
    sha = served.author.commit({"stack.yml": "x"})
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == 1
    assert "[remote rejected]" in pushed.stderr
    assert "1 of 1 functions failed: hello" in pushed.stderr
    assert "python -m local retry" in pushed.stderr
    assert "amended? git push -f cloud" in pushed.stderr
    assert served.head() == sha


def test_a_push_that_git_tar_does_not_take_ends_and_says_why(
    served: Served, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git-tar can't believe a call whose signature it does not know, so it records nothing of it."""
    events = receiving(gateway, "ok")

    def queue(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        gateway.logs.clear()
        if path != "/system/queue" or not events:
            return None
        delivery = events[-1].headers["X-GitHub-Delivery"]
        call = {
            "id": 7,
            "function": "git-tar",
            "state": "failed",
            "status": 401,
            "error": "it does not match",
        }
        return 200, json.dumps([{**call, "delivery": "another"}, {**call, "delivery": delivery}]).encode()

    gateway.overrides.append(queue)
    served.author.commit({"stack.yml": "x"})
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == 1
    assert "git-tar answered 401, call 7 of the queue: it does not match" in pushed.stderr


def test_a_superseded_push_has_not_failed(served: Served, gateway: FakeGateway) -> None:
    receiving(gateway, "superseded")
    served.author.commit({"stack.yml": "x"})
    assert served.push(f"HEAD:{MASTER}").returncode == 0


@pytest.mark.parametrize(("outcome", "code"), [("ok", 0), ("failed", 1)])
def test_a_push_whose_run_finds_a_newer_head_ends_with_that(
    outcome: str, code: int, served: Served, gateway: FakeGateway
) -> None:
    receiving(gateway, outcome, head="b" * 40)
    served.author.commit({"stack.yml": "x"})
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == code, pushed.stderr
    assert "it ended for bbbbbbbbbb, a newer commit" in pushed.stderr


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        ("a\u2028b\x0cc".encode(), "a\u2028b\x0cc"),
        (b"a\x1cb\x85\xe9", "a\x1cb\ufffd\ufffd"),
        (b"a\rb", "a\nb"),
        (b"one\n\nmore", "one"),
    ],
    ids=["line ends of Unicode", "no UTF-8", "carriage return", "with a body"],
)
def test_any_commit_message_makes_an_event(
    message: bytes, subject: str, served: Served, gateway: FakeGateway, tmp_path: Path
) -> None:
    events = receiving(gateway, "ok")
    served.author.commit({"stack.yml": "x"})
    (tmp_path / "message").write_bytes(message)
    options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "i18n.commitEncoding=unknown")
    served.author.git(*options, "commit", "--quiet", "--allow-empty", "-F", str(tmp_path / "message"))
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == 0, pushed.stderr
    commits = json.loads(events[0].body)["commits"]
    assert [commit["message"] for commit in commits] == ["x", subject]
    assert commits[-1]["committer"]["email"] == "a@b"


def test_a_retry_names_the_cloud_as_the_push_did(
    served: Served, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = receiving(gateway, "ok")
    served.environment["PUBLIC_URL"] = "http://127.0.0.1:9082"
    served.author.commit({"stack.yml": "x"})
    served.push(f"HEAD:{MASTER}")
    monkeypatch.setenv("PUBLIC_URL", "http://127.0.0.1:9082")
    monkeypatch.setattr(deliver, "ROOT", served.repository.folder.parent.parent)
    monkeypatch.setattr(sys, "argv", ["deliver", "alice/hello", MASTER])
    with pytest.raises(SystemExit, match=r"^0$"):
        deliver.main()
    first, again = (json.loads(event.body)["repository"]["html_url"] for event in events)
    assert first == again == "http://127.0.0.1:9082/alice/hello"


def test_an_ignored_event_says_why(served: Served, gateway: FakeGateway) -> None:
    body = json.dumps({"delivery": "d", "ignored": "branch wip is not built: master is"})
    gateway.handlers["gh-push"] = lambda event: {"statusCode": 200, "body": body}
    served.author.commit({"a": "x"})
    pushed = served.push("HEAD:refs/heads/wip")
    assert pushed.returncode == 0
    assert "ignored: branch wip is not built" in pushed.stderr


@pytest.mark.parametrize(("outcome", "code"), [("ok", 0), ("failed", 1)])
def test_a_push_names_the_page_of_its_checks_where_they_are_played(
    outcome: str, code: int, served: Served, gateway: FakeGateway
) -> None:
    receiving(gateway, outcome, "hello")
    served.author.commit({"stack.yml": "x"})
    assert "checks" not in served.push(f"HEAD:{MASTER}").stderr
    served.environment["CHECKS_URL"] = "http://127.0.0.1:8083"
    sha = served.author.commit({"stack.yml": "y"})
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == code
    assert f"its checks: http://127.0.0.1:8083/alice/hello/commit/{sha}" in pushed.stderr


def test_a_cloud_that_is_down_fails_the_push_clearly(served: Served) -> None:
    served.author.commit({"a": "x"})
    pushed = served.push(f"HEAD:{MASTER}")
    assert pushed.returncode == 1
    assert "gh-push did not take the event" in pushed.stderr


def test_a_branch_can_be_forced_and_deleted(served: Served, gateway: FakeGateway) -> None:
    events = receiving(gateway, "ok")
    served.author.commit({"a": "1"})
    served.push(f"HEAD:{MASTER}")
    served.author.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--amend", "--quiet", "-m", "y")
    assert served.push(f"HEAD:{MASTER}").returncode == 1, "not without --force"
    assert served.push("--force", f"HEAD:{MASTER}").returncode == 0
    assert json.loads(events[-1].body)["forced"]
    body = json.dumps({"delivery": "d", "ignored": "branch master was deleted: what is deployed stays"})
    gateway.handlers["gh-push"] = lambda event: {"statusCode": 200, "body": body}
    assert served.push(f":{MASTER}").returncode == 0
    assert not served.head()


def test_a_tag_needs_no_pipeline(served: Served, gateway: FakeGateway) -> None:
    served.author.commit({"a": "x"})
    assert served.push("HEAD:refs/tags/v1").returncode == 0
    assert not gateway.made("POST", "/function/gh-push")


def test_a_push_waits_for_the_end_of_its_pipeline(served: Served, gateway: FakeGateway) -> None:
    events = receiving(gateway, "ok")
    served.author.commit({"stack.yml": "x"})
    original, ended = gateway.handlers["gh-push"], threading.Event()

    def late(event: Event) -> Mapping[str, Any]:
        answer, whole = original(event), gateway.logs["git-tar"]
        gateway.logs["git-tar"] = whole[:-1]

        def end() -> None:
            gateway.logs["git-tar"] = whole
            ended.set()

        threading.Timer(1, end).start()
        return answer

    gateway.handlers["gh-push"] = late
    assert served.push(f"HEAD:{MASTER}").returncode == 0
    assert ended.is_set()
    assert len(events) == 1


def test_the_event_has_githubs_shape(served: Served, gateway: FakeGateway, shared: Path) -> None:
    receiving(gateway, "ok")
    sha = served.author.commit({"stack.yml": "x"})
    served.push(f"HEAD:{MASTER}")
    ours = payload(served.repository, Update("0" * 40, sha, MASTER), public_url="http://127.0.0.1:8082")
    real = json.loads((shared / "github" / "push.branch.json").read_text())
    assert set(real) - {"installation"} == set(ours)
    same_shape(ours, real, "")


def same_shape(ours: Any, real: Any, path: str) -> None:
    if isinstance(ours, dict):
        for key, value in ours.items():
            assert key in real, f"GitHub's event has no {path}.{key}"
            same_shape(value, real[key], f"{path}.{key}")
    elif isinstance(ours, list) and ours and real:
        same_shape(ours[0], real[0], f"{path}[0]")
    elif ours is not None and real is not None:
        assert type(ours) is type(real), path


def test_ids_are_stable_and_those_of_repositories_differ(tmp_path: Path) -> None:
    one, two = (ensure(f"/alice/{name}.git/info/refs", tmp_path) for name in ("one", "two"))
    again = ensure("/alice/one.git/git-receive-pack", tmp_path)
    assert (again.id, again.folder) == (one.id, one.folder)
    assert one.id != two.id
    assert owner_id("Alice") == owner_id("alice") != owner_id("bob")
    assert BareRepository.at(one.folder) == one


@pytest.mark.parametrize(
    "path",
    [
        "/hello.git/info/refs",
        "/alice/../../etc.git/info/refs",
        "/alice/hello/info/refs",
        "/Alice/hello.git/info/refs",
        "/alice/.git/info/refs",
        "/alice/-x.git/info/refs",
        "/openfaas-cloud/templates.git/info/refs",
        "/alice/hello.git/HEAD",
        "/alice/hello.git/info/refs/../../x",
        "",
    ],
)
def test_a_path_that_names_no_authors_repository_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OWNER/NAME"):
        ensure(path, tmp_path)
    assert not list(tmp_path.iterdir())


def test_packet_lines_are_read_and_written() -> None:
    old, new = "0" * 40, "a" * 40
    line = f"{old} {new} refs/heads/a b"
    data = b"000dversion=10000" + b"%04x%s0000" % (len(line) + 4, line.encode())
    sink = io.BytesIO()
    assert hook.negotiate(io.BytesIO(data), sink) == [Update(old, new, "refs/heads/a b")]
    assert sink.getvalue() == b"000dversion=10000"
    hook.write(sink, "ng refs/heads/x because")
    assert sink.getvalue().endswith(b"001bng refs/heads/x because")


def test_the_head_of_each_repository_is_delivered_again(
    served: Served, gateway: FakeGateway, secret_folder: Path
) -> None:
    """After a restore. One that nothing was pushed to has none; nobody pushes to the platform's own."""
    events = receiving(gateway, "ok")
    sha = served.author.commit({"stack.yml": "x"})
    assert served.push(f"HEAD:{MASTER}").returncode == 0
    root = served.repository.folder.parent.parent
    ensure("/bob/empty.git/git-receive-pack", root)
    BareRepository.at(root / "openfaas-cloud" / "templates.git").create()
    settings = Settings(gateway_url=gateway.url, secret_mount_path=str(secret_folder))
    assert heads.deliver(settings, "http://127.0.0.1:8082", root) == (1, [])
    first, again = events
    assert json.loads(again.body)["after"] == sha
    assert json.loads(again.body)["before"] == sha
    assert again.headers["X-GitHub-Delivery"] != first.headers["X-GitHub-Delivery"]
    gateway.handlers["gh-push"] = lambda event: {"statusCode": 403, "body": "not for you"}
    delivered, [problem] = heads.deliver(settings, "", root)
    assert delivered == 0
    assert problem.startswith("alice/hello: ")


def test_an_amended_commit_is_pushed_by_force_after_a_push_that_failed(
    served: Served, gateway: FakeGateway
) -> None:
    receiving(gateway, "failed", "hello")
    served.author.commit({"stack.yml": "x"})
    assert served.push(f"HEAD:{MASTER}").returncode == 1
    amended = ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--amend", "-m", "y")
    served.author.git(*amended)
    assert "non-fast-forward" in served.push(f"HEAD:{MASTER}").stderr
    receiving(gateway, "ok")
    forced = served.push("-f", f"HEAD:{MASTER}")
    assert (forced.returncode, served.head()) == (0, served.author.git("rev-parse", "HEAD")), forced.stderr
