"""A cloud with something to see: what list-functions reads, and the function itself as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from local.staging import STAGED
from sdk.links import Link
from sdk.records import Record
from sdk.secrets import Keys
from tests.conftest import ROOT

from .fakes import FakeBuilder, FakeGateway

CLOUD = "com.openfaas.cloud."
KEYS = Keys("link-secret", (b"link",))
TEMPLATE = ROOT / "local" / "template" / "python3-http"
ALICE, BOB = "github/3", "github/4"
HOSTILE = "</pre><script>document.title='owned'</script><img src=x onerror=alert(1)> \x1b[31mred\x1b[0m &amp;"


def link(user: str = "alice", owner: str = ALICE, seconds: float = 3600) -> dict[str, str]:
    return Link(user, owner, int(time.time() + seconds)).query(KEYS)


def deployed(
    owner: str, function: str, *, owner_id: int = 3, repo_id: int = 7, at: float = 0, **more: Any
) -> dict[str, Any]:
    """A function as buildshiprun deploys it."""
    digest = f"sha256:{'0f1e2d3c' * 8}"
    labels = {
        "git-cloud": "1",
        "git-scm": "github",
        "git-owner": owner,
        "git-owner-id": str(owner_id),
        "git-repo": "hello",
        "git-repo-id": str(repo_id),
        "git-branch": "master",
        "git-sha": "a" * 40,
        "git-deploytime": str(int(at)),
    }
    return {
        "service": f"{owner}-{function}",
        "image": f"127.0.0.1:5000/github/{owner_id}/{repo_id}/{function}:{'a' * 40}@{digest}",
        "envVars": {"PASSWORD": "hunter2"},
        "labels": {CLOUD + name: value for name, value in labels.items()},
        "annotations": {
            f"{CLOUD}git-repo-url": f"https://github.com/{owner}/hello",
            f"{CLOUD}digest": "c" * 64,
            f"{CLOUD}spec": "what-a-rollback-needs",
        },
        **more,
    }


@dataclass
class Story:
    """The records of a push, as its stages would print them."""

    delivery: str = "d-1"
    owner: str = "alice"
    repo: str = "hello"
    sha: str = "a" * 40
    path: str = "github/3/7"
    at: float = 1_000_000
    lines: dict[str, list[str]] = field(default_factory=dict)

    def tell(
        self, name: str, stage: str, after: float, outcome: str = "ok", function: str = "", **more: Any
    ) -> Story:
        record = Record(
            at=datetime.fromtimestamp(self.at + after, timezone.utc).isoformat(timespec="milliseconds"),
            delivery=self.delivery,
            owner=self.owner,
            repo=self.repo,
            sha=more.pop("sha", self.sha),
            function=function,
            stage=stage,
            outcome=outcome,
            seconds=more.pop("seconds", 0),
            path=self.path,
            **more,
        )
        self.lines.setdefault(name, []).append(msgspec.json.encode(record).decode())
        return self

    def queued(self, after: float = 0) -> Story:
        return self.tell("gh-push", "queue", after)

    def fetched(self, *functions: str, after: float = 0.4) -> Story:
        self.tell("git-tar", "fetch", after, seconds=0.3)
        for function in functions:
            self.tell("git-tar", "shrinkwrap", after + 0.1, function=function)
        return self

    def built(self, function: str, after: float, outcome: str = "ok", **more: Any) -> Story:
        self.tell("buildshiprun", "check", after - 1, function=function)
        return self.tell("buildshiprun", "build", after, outcome, function, seconds=1.1, **more)

    def live(self, function: str, after: float, outcome: str = "ok") -> Story:
        url = f"http://127.0.0.1:8080/function/{self.owner}-{function}"
        return self.tell("buildshiprun", "deploy", after, outcome, function, seconds=2.7, url=url)

    def done(self, after: float, outcome: str = "ok", error: str = "") -> Story:
        if outcome == "ok":
            self.tell("garbage-collect", "collect", after)
        return self.tell("git-tar", "push", after + 0.1, outcome, error=error)

    def records(self) -> list[Record]:
        return [msgspec.json.decode(line, type=Record) for told in self.lines.values() for line in told]

    def into(self, gateway: FakeGateway) -> None:
        for name, told in self.lines.items():
            gateway.logs.setdefault(name, []).extend(told)


def furnish(gateway: FakeGateway, builder: FakeBuilder, now: float) -> None:
    """Alice's cloud, with a push of each kind; and bob's, that she must not see."""
    for rows in (
        deployed("alice", "hello", at=now - 250),
        deployed("alice", "resize-image", repo_id=8, at=now - 90_000),
        deployed("alice", "worker", repo_id=8, at=now - 900_000),
        deployed("bob", "secret", owner_id=4, repo_id=9, at=now),
    ):
        gateway.functions[rows["service"]] = rows
    gateway.functions["git-tar"] = {"service": "git-tar", "image": "i", "labels": {"role": "x"}}
    gateway.failures[gateway.functions["alice-worker"]["image"]] = "exit status 1"
    tools = Story(repo="image-tools", path="github/3/8")
    failing = [f"#{number} RUN make all" for number in range(9, 14)]
    for story in (
        replace(tools, delivery="d-5", at=now - 5, sha="e" * 40, lines={})
        .queued().fetched("resize-image", "worker")
        .built("worker", 2.5).live("worker", 4),
        Story("d-4", at=now - 250, sha="a" * 40).queued().fetched("hello").built("hello", 1.8)
        .live("hello", 4.5).done(4.7),
        replace(tools, delivery="d-3", at=now - 4000, sha="b" * 40, lines={})
        .queued().fetched("resize-image", "worker")
        .built("resize-image", 2.8).live("resize-image", 5.5)
        .built("worker", 8, "failed", error='process "/bin/sh -c make all" did not complete: exit code: 2',
               log=[*failing, HOSTILE, "make: *** No rule to make target 'all'. Stop."])
        .done(8.4, "failed", "1 of 2 functions failed: worker"),
        Story("d-2", at=now - 8000, sha="d" * 40).queued().fetched("hello").done(3, "superseded"),
        Story("d-1", at=now - 90_000, sha="c" * 40).queued().fetched("hello")
        .live("hello", 1.2, "unchanged").done(1.4),
        Story("d-bob", "bob", "secrets", "f" * 40, "github/4/9", now - 60).queued().fetched("secret"),
    ):  # fmt: skip
        story.into(gateway)
    steps = "".join(f"#{number} [{number}/9] RUN pip install package-{number}\n" for number in range(1, 9))
    builder.logs |= {
        f"registry:5000/github/3/8/resize-image:{'e' * 40}": (steps, False),
        f"registry:5000/github/3/8/worker:{'b' * 40}": ("\n".join((*failing, HOSTILE)) + "\n", True),
        f"registry:5000/github/3/7/hello:ctx-{'c' * 64}": (steps, True),
        f"registry:5000/github/4/9/secret:{'f' * 40}": ("bob's log\n", True),
    }


@contextmanager
def served(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """list-functions under the template, as in its container; the address that it answers at."""
    (folder / "function").symlink_to(STAGED / "list_functions")
    text = (TEMPLATE / "index.py").read_text().replace("port=8080", "port=0")
    told = "    print(server.effective_port, flush=True)\n    signal.signal("
    (folder / "index.py").write_text(text.replace("    signal.signal(", told))
    process = subprocess.Popen(
        (sys.executable, "index.py"),
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout and process.stdout.close()
