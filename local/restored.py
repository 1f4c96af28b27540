"""What `restore` left for `up` to do: authors' secrets and functions back into the cluster.

They come before the platform's functions: calls that wait in the queue find them as they were. What was
being pushed when the backup was made may be in it by half, so that each branch's head is delivered again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import docker
import msgspec

from sdk.errors import CloudError, Superseded
from sdk.gateway import Gateway

from . import archive
from .errors import CommandError
from .state import State
from .steps import console

_AT_ONCE = 4


def is_there(state: State) -> bool:
    return state.restored_folder.is_dir()


def functions(state: State) -> None:
    """Secrets and functions that are not there yet. What can't be deployed is told, and keeps none back."""
    gateway = state.gateway
    there = gateway.secret_names()
    for file in _files(state, archive.SECRETS):
        if file.name not in there:
            gateway.set_secret(file.name, file.read_bytes())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for problem in pool.map(partial(_deploy, gateway), _files(state, archive.FUNCTIONS)):
            if problem:
                console.print(f"[red]{problem}[/]", soft_wrap=True)


def heads(client: docker.DockerClient, state: State) -> None:
    """Deliver every branch's head again; then nothing is left to do."""
    git_server = client.containers.get("openfaas-cloud-git-server")
    code, output = git_server.exec_run(["python3", "-m", "local.gitserver.heads"])
    assert isinstance(output, bytes)
    if code:
        raise CommandError(f"the heads of repositories can't be delivered:\n{output.decode().strip()}")
    console.print(output.decode().strip(), soft_wrap=True)
    shutil.rmtree(state.restored_folder)


def _deploy(gateway: Gateway, file: Path) -> str:
    """Why it could not be deployed."""
    try:
        gateway.create(msgspec.json.decode(file.read_bytes()))
    except Superseded:  # by a push, or an `up` that ended early
        return ""
    except CloudError as error:
        return f"{file.stem} is not deployed: {error.message}"
    return ""


def _files(state: State, kind: str) -> Sequence[Path]:
    return sorted((state.restored_folder / kind).glob("*"))
