"""One of our functions as it runs in its container: the real template, a process of its own, a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "local" / "template" / "python3-http"
_START_SECONDS = 20
SECRETS = {
    "github-webhook-secret": "webhook",
    "payload-secret": "payload",
    "builder-secret": "builder",
    "basic-auth-user": "admin",
    "basic-auth-password": "s3cret",
}


@dataclass(frozen=True)
class Served:
    """A program that serves at `port` of loopback."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def secret_folder(work: Path) -> Path:
    """A folder of secret files, as a cluster mounts them."""
    folder = work / "secrets"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in SECRETS.items():
        (folder / name).write_text(text)
    return folder


@contextmanager
def function(handler: Path, work: Path, **settings: str) -> Iterator[Served]:
    """The function in the folder `handler`, with our sdk, under the python3-http template."""
    folder, port = work / f"{handler.name}-image", free_port()
    shutil.copytree(TEMPLATE, folder)
    for file in (*handler.glob("*.py"), *handler.glob("*.sh")):
        shutil.copy(file, folder / "function")
    shutil.copytree(ROOT / "sdk", folder / "function" / "sdk")
    text = (folder / "index.py").read_text()
    assert text.count("port=8080") == 1
    (folder / "index.py").write_text(text.replace("port=8080", f"port={port}"))
    secrets = str(secret_folder(work))
    environment = {"secret_mount_path": secrets, "TMPDIR": str(work), **settings}
    with program(("index.py",), port, environment, folder) as served:
        yield served


@contextmanager
def program(
    arguments: Sequence[str], port: int, environment: Mapping[str, str], folder: Path = ROOT
) -> Iterator[Served]:
    """Python with `arguments`, in `folder`, once it listens at `port`; ended afterwards."""
    said = folder / f"output-{port}" if folder != ROOT else Path(environment["TMPDIR"]) / f"output-{port}"
    with said.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, *arguments),
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_listening(process, port, said)
        yield Served(port, process)
    finally:
        process.kill()
        process.wait()


def _await_listening(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not start: {said.read_text()[-2000:]}")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
