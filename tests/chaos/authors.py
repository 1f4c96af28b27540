"""Repositories of the run: commits go into the git server past its hook, events are ours to deliver."""

from __future__ import annotations

import io
import secrets
import tarfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests
from docker.models.containers import Container

from local.gitserver import event
from local.gitserver.event import Update
from local.gitserver.repository import ROOT, BareRepository
from local.state import State
from sdk import secrets as secret_files
from sdk.messages import NO_COMMIT

from .expected import BRANCH, files, git
from .plan import Commit, Repo

SERVER = "openfaas-cloud-git-server"
_DELIVERY_SECONDS = 10  # GitHub waits no longer
_TIME = "1750000000 +0000"  # every commit's: no decision may use it


@dataclass(frozen=True)
class Move:
    """The branch moved to `sha`, between the times `begun` and `ended`."""

    before: str
    sha: str
    begun: float
    ended: float


@dataclass
class Author:
    """A repository's author, with a repository of his own in `folder`."""

    repo: Repo
    folder: Path
    state: State
    shas: dict[int, str] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    # What gh-push took: when, and of which commit.
    accepted: list[tuple[float, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bare(self) -> Path:
        return ROOT / self.repo.owner / f"{self.repo.name}.git"

    @property
    def head(self) -> str:
        return self.moves[-1].sha if self.moves else NO_COMMIT

    def create(self, engine: docker.DockerClient) -> None:
        """The bare repository on the server, with a log of its branch, and ours with the same id."""
        server = engine.containers.get(SERVER)
        path = f"/{self.repo.full_name}.git/info/refs"
        execute(server, "python3", "-m", "local.gitserver.repository", path)
        execute(server, "git", f"--git-dir={self.bare}", "config", "core.logAllRefUpdates", "true")
        number = str(secrets.randbits(40))  # chosen here: what a program in a container prints may be lost
        execute(server, "git", f"--git-dir={self.bare}", "config", "cloud.id", number)
        self.folder.mkdir(parents=True)
        git(self.folder, "init", "--quiet", "--bare", "--initial-branch=master")
        git(self.folder, "config", "cloud.id", number)

    @property
    def id(self) -> int:
        return BareRepository(self.repo.owner, self.repo.name, self.folder).id

    def push(self, commit: Commit, engine: docker.DockerClient) -> Move:
        """Move the server's branch to `commit`; nobody is told."""
        with self._lock:
            sha, before = self._sha(commit), self.head
            git(self.folder, "update-ref", BRANCH, sha)
            bundle = f"/tmp/{self.repo.owner}-{self.repo.name}.bundle"
            packed = self.folder / "bundle"
            git(self.folder, "bundle", "create", "--quiet", str(packed), BRANCH)
            server = engine.containers.get(SERVER)
            put(server, "/tmp", {Path(bundle).name: packed.read_bytes()})
            begun = time.time()
            where = f"--git-dir={self.bare}"
            execute(server, "git", where, "fetch", "--quiet", bundle, f"+{BRANCH}:{BRANCH}")
            self.moves.append(Move(before, sha, begun, time.time()))
            return self.moves[-1]

    def deliver(self, move: Move) -> bool:
        """Send gh-push the event of a push, as GitHub would: once, whatever becomes of it."""
        repository = BareRepository(self.repo.owner, self.repo.name, self.folder)
        update = Update(move.before, move.sha, BRANCH)
        keys = secret_files.read("github-webhook-secret", str(self.state.secrets_folder))
        body, headers = event.signed(event.payload(repository, update, public_url=self.state.git_url), keys)
        url = f"{self.state.gateway_url}/function/gh-push"
        try:
            status = requests.post(url, body, headers=headers, timeout=_DELIVERY_SECONDS).status_code
        except requests.RequestException:
            return False
        if status == 202:
            self.accepted.append((time.time(), move.sha))
        return status == 202

    def fetch(self, engine: docker.DockerClient, folder: Path) -> Path:
        """A copy of the server's repository, with its log of the branch."""
        stream, _ = engine.containers.get(SERVER).get_archive(str(self.bare))
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            archive.extractall(folder, filter="data")
        return folder / self.bare.name

    def _sha(self, commit: Commit) -> str:
        """The commit in our repository, made if it isn't there."""
        if commit.number not in self.shas:
            parent = self.shas.get(-1 if commit.parent is None else commit.parent)
            stream = _import(files(self.repo, commit), f"commit {commit.number}", parent)
            git(self.folder, "fast-import", "--quiet", "--force", stdin=stream)
            self.shas[commit.number] = git(self.folder, "rev-parse", "refs/work")
        return self.shas[commit.number]


def _import(tree: Mapping[str, str], message: str, parent: str | None) -> str:
    """https://git-scm.com/docs/git-fast-import"""
    lines = ["reset refs/work", "", "commit refs/work", f"committer chaos <chaos@example.com> {_TIME}"]
    lines += [f"data {len(message)}", message, *([f"from {parent}"] if parent else []), "deleteall"]
    for path, text in tree.items():
        lines += [f"M 100644 inline {path}", f"data {len(text.encode())}", text]
    return "\n".join(lines) + "\n"


def put(container: Container, folder: str, content: Mapping[str, bytes]) -> None:
    """Write files into a container."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    container.put_archive(folder, packed.getvalue())


def execute(container: Container, *command: str) -> str:
    """What a program prints in a container; `RuntimeError` if it fails."""
    code, output = container.exec_run(list(command))
    assert isinstance(output, bytes)
    if code:
        raise RuntimeError(f"{command[:4]} in {container.name}: {output.decode(errors='replace')}")
    return output.decode().strip()
