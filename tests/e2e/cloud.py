"""What e2e tests do with a cloud: push real repositories with git, and call what is live."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests
from docker.models.containers import Container

from local.author import set_remote
from local.state import State
from sdk.gateway import Gateway
from tests.conftest import ROOT

PATIENCE = 60


def handler(text: str) -> str:
    """A handler that answers `text`."""
    return f"def handle(event, context):\n    return {{'statusCode': 200, 'body': {text!r}}}\n"


def stack(*names: str, **extra: object) -> str:
    functions = "".join(
        f"  {name}:\n    lang: python3-http\n    handler: ./{name}\n    image: {name}:latest\n"
        + "".join(f"    {key}: {value}\n" for key, value in extra.items())
        for name in names
    )
    return f"version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n{functions}"


@dataclass
class Cloud:
    state: State
    engine: docker.DockerClient = field(default_factory=lambda: docker.from_env(timeout=60))

    @property
    def gateway(self) -> Gateway:
        return self.state.gateway

    def url(self, name: str) -> str:
        return f"{self.state.gateway_url}/function/{name}"

    def call(self, name: str) -> tuple[int, str]:
        answer = requests.get(self.url(name), timeout=30)
        return answer.status_code, answer.text

    def cli(self, *arguments: str, stdin: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "local", *arguments]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        return subprocess.run(
            command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=300, env=environment
        )

    def container(self, name: str) -> Container:
        return self.engine.containers.get(f"openfaas-cloud-{name}")

    def deployed(self, name: str) -> str:
        """Names what is deployed as `name`."""
        found = self.gateway.get(name)
        assert found
        return found.etag

    def names(self) -> set[str]:
        return {function.name for function in self.gateway.list()}


def execute(container: Container, *command: str) -> str:
    """What a program prints in a container."""
    output = container.exec_run(list(command)).output
    assert isinstance(output, bytes)
    return output.decode()


class Repository:
    """An author's repository of functions, with the remote `cloud`."""

    def __init__(self, cloud: Cloud, folder: Path, owner: str, name: str) -> None:
        self.cloud, self.folder, self.owner = cloud, folder, owner
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "author")
        self.git("config", "user.email", "author@example.com")
        set_remote(folder, owner, name, cloud.state)

    def git(self, *arguments: str) -> str:
        command = ("git", "-C", str(self.folder), *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: Mapping[str, str], remove: tuple[str, ...] = ()) -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in remove:
            self.git("rm", "-rq", name)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def functions(self, **texts: str) -> str:
        """Commit a stack of functions that answer with the given texts."""
        files = {f"{name}/handler.py": handler(text) for name, text in texts.items()}
        requirements = {f"{name}/requirements.txt": "" for name in texts}
        return self.commit({"stack.yml": stack(*texts), **requirements, **files})

    def start_push(self) -> subprocess.Popen[str]:
        command = ("git", "-C", str(self.folder), "push", "cloud")
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def push(self) -> tuple[int, str]:
        """`git push cloud`: its exit status, and all that the author sees."""
        process = self.start_push()
        out, told = process.communicate(timeout=300)
        return process.returncode, out + told

    def delete_branch(self) -> None:
        command = ("git", "-C", str(self.folder), "push", "cloud", ":refs/heads/master")
        subprocess.run(command, capture_output=True, timeout=60)

    def service(self, function: str) -> str:
        return f"{self.owner}-{function}"

    def call(self, function: str) -> tuple[int, str]:
        return self.cloud.call(self.service(function))


@dataclass
class Caller:
    """Calls a function in a loop, as its users would."""

    url: str
    answers: list[tuple[int, str]] = field(default_factory=list)

    @property
    def counted(self) -> Mapping[tuple[int, str], int]:
        return Counter(self.answers)

    @contextmanager
    def calling(self, threads: int = 2) -> Iterator[None]:
        done = threading.Event()

        def loop() -> None:
            with requests.Session() as session:
                while not done.is_set():
                    try:
                        answer = session.get(self.url, timeout=30)
                        self.answers.append((answer.status_code, answer.text))
                    except requests.RequestException as error:
                        self.answers.append((0, repr(error)))

        callers = [threading.Thread(target=loop) for _ in range(threads)]
        for caller in callers:
            caller.start()
        try:
            yield
        finally:
            done.set()
            for caller in callers:
                caller.join()


def until(check: Callable[[], bool], seconds: float = PATIENCE, what: str = "it") -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)
