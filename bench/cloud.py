"""The running cloud, with authors whose pushes are measured from the moment that gh-push took the event."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests

from local.calls import Queue
from local.gitserver import event
from local.gitserver.event import Update
from local.gitserver.repository import ROOT as BARE
from local.gitserver.repository import BareRepository
from local.state import State
from sdk import secrets
from sdk.messages import NO_COMMIT
from tests.chaos import quiet
from tests.chaos.authors import SERVER

from .repositories import BRANCH, committed, git
from .served import ROOT
from .shell import Shell

# To look costs time of the machine, too: each poll waits for so long, or for that part of what has passed.
POLL_SECONDS, POLL_PART = 0.01, 0.01
_SHORT_POLL_SECONDS = 0.002  # for what takes a tenth of a second
_LONGEST = 300
_QUIET_SECONDS = 120
Event = tuple[bytes, Mapping[str, str]]
_NEXT = "refs/bench/next"  # the git server's hook does not look after this one
_HANDLER = """import os

TEXT = {text!r}


def handle(event, context):
    return {{"statusCode": 200, "body": TEXT + os.environ.get("VALUE", "")}}
"""


def stack(names: Sequence[str], value: str = "") -> str:
    environment = f"    environment:\n      VALUE: '{value}'\n" if value else ""
    rows = "".join(
        f"  {name}:\n    lang: python3-http\n    handler: ./{name}\n    image: {name}:latest\n{environment}"
        for name in names
    )
    return f"version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n{rows}"


def handler(text: str) -> str:
    """A handler that answers `text`, and then the variable VALUE."""
    return _HANDLER.format(text=text)


@dataclass
class Cloud:
    state: State
    folder: Path
    engine: docker.DockerClient
    git_server: Shell
    owner: str = field(default_factory=lambda: f"bench-{uuid.uuid4().hex[:6]}")
    authors: list[Author] = field(default_factory=list)

    def author(self, *functions: str, text: str = "first") -> Author:
        """An author with a repository of these functions; nothing is deployed yet."""
        made = Author(self, f"repo{len(self.authors)}", functions)
        self.authors.append(made)
        made.commit(
            {f"{name}/handler.py": handler(text) for name in functions} | {"stack.yml": stack(functions)}
        )
        return made

    def url(self, service: str) -> str:
        return f"{self.state.gateway_url}/function/{service}"

    def until_quiet(self) -> None:
        """Nothing is queued, and no version is on its way in or out."""
        deadline = time.monotonic() + _QUIET_SECONDS
        if not (quiet.until_empty(self.state, deadline) and quiet.until_settled(self.engine, deadline)):
            raise RuntimeError(f"the cloud is not quiet after {_QUIET_SECONDS} s")

    def remove(self, authors: Sequence[Author]) -> None:
        """The branches, so that nobody deploys them again, and then the functions."""
        for author in authors:
            author.delete_branch()
            for service in author.services:
                self.state.gateway.delete(service)
        self.authors = [author for author in self.authors if author not in authors]
        self.until_quiet()


@dataclass
class Author:
    """A repository of functions; `head` is what was committed last."""

    cloud: Cloud
    name: str
    functions: Sequence[str]
    head: str = NO_COMMIT
    pushed: str = NO_COMMIT

    @property
    def services(self) -> Sequence[str]:
        return [f"{self.cloud.owner}-{name}" for name in self.functions]

    @property
    def url(self) -> str:
        """Where authors push to, and where anybody fetches by hand."""
        return f"{self.cloud.state.git_url}/{self.cloud.owner}/{self.name}.git"

    @property
    def _folder(self) -> Path:
        return self.cloud.folder / f"{self.name}.git"

    @property
    def _bare(self) -> Path:
        return BARE / self.cloud.owner / f"{self.name}.git"

    def commit(self, files: Mapping[str, str | bytes]) -> str:
        if not self._folder.exists():
            git("init", "--quiet", "--bare", "--initial-branch=master", self._folder)
        self.head = committed(self._folder, [files])
        return self.head

    def upload(self) -> None:
        """Bring the head's objects to the server; its branch stays where it is."""
        where = f"--git-dir={self._folder}"
        git(where, "push", "--quiet", "--force", self.url, f"{self.head}:{_NEXT}")
        number = self._at_server("config", "cloud.id")
        git(where, "config", "cloud.id", number)

    def move(self, sha: str = "") -> None:
        """Move the server's branch to the head, or to another commit that is there; nobody is told."""
        self._at_server("update-ref", BRANCH, sha or self.head)

    def event(self, sha: str = "") -> Event:
        """GitHub's event of that."""
        sha, state = sha or self.head, self.cloud.state
        repository = BareRepository(self.cloud.owner, self.name, self._folder)
        payload = event.payload(repository, Update(self.pushed, sha, BRANCH), public_url=state.git_url)
        self.pushed = sha
        return event.signed(payload, secrets.read("github-webhook-secret", str(state.secrets_folder)))

    def deliver(self, event: Event | None = None) -> float:
        """Send the event, or the head's; when gh-push had taken it, by time.perf_counter."""
        body, headers = event or self.event()
        answer = requests.post(self.cloud.url("gh-push"), body, headers=headers, timeout=10)
        accepted = time.perf_counter()
        assert answer.status_code == 202, answer.text
        self.delivery = headers["X-GitHub-Delivery"]
        return accepted

    def push(self) -> float:
        """All of it; when gh-push had taken the event."""
        self.upload()
        self.move()
        return self.deliver()

    def until_ended(self) -> None:
        """git-tar has answered: the queue has the call no longer."""
        queue = Queue.at(self.cloud.state.gateway)

        def is_over() -> bool:
            return all(call.delivery != self.delivery for call in queue.calls())

        until(is_over, "the push's end", _SHORT_POLL_SECONDS)

    def delete_branch(self) -> None:
        if self.pushed != NO_COMMIT:
            self._at_server("update-ref", "-d", BRANCH)

    def _at_server(self, *arguments: str) -> str:
        return self.cloud.git_server.run("git", f"--git-dir={self._bare}", *arguments)


def until_answers(url: str, text: str) -> None:
    """The one poll, of ours and of the floor."""
    with requests.Session() as session:
        session.trust_env = False

        def answers() -> bool:
            found = session.get(url, timeout=10)
            return found.status_code == 200 and found.text == text

        until(answers, f"{text!r} from {url}")


def until(check: Callable[[], bool], what: str, pause: float = POLL_SECONDS) -> None:
    began = time.monotonic()
    while not check():
        passed = time.monotonic() - began
        if passed > _LONGEST:
            raise RuntimeError(f"{what} did not come within {_LONGEST} s")
        time.sleep(max(pause, POLL_PART * passed))


@contextmanager
def running() -> Iterator[Cloud]:
    """The cloud of this machine; one is started if there is none. What was deployed to it goes again."""
    subprocess.run((sys.executable, "-m", "local", "up"), cwd=ROOT, check=True, timeout=900)
    with tempfile.TemporaryDirectory(prefix="bench-live-") as folder:
        server = Shell(SERVER)
        cloud = Cloud(State.here(), Path(folder), docker.from_env(timeout=60), server)
        cloud.until_quiet()
        try:
            yield cloud
        finally:
            cloud.remove(list(cloud.authors))
            cloud.engine.close()
            server.close()
