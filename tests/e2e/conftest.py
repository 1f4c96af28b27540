"""The running cloud of this machine; one is started if there is none."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.state import State
from tests.conftest import ROOT

from .cloud import Cloud, Repository


@pytest.fixture(scope="session")
def cloud() -> Cloud:
    subprocess.run([sys.executable, "-m", "local", "up"], cwd=ROOT, check=True, timeout=600)
    return Cloud(State.here())


@pytest.fixture
def owner() -> str:
    """An owner of the test's own, so that tests don't meet."""
    return f"t{uuid.uuid4().hex[:6]}"


@pytest.fixture
def repository(cloud: Cloud, tmp_path: Path, owner: str) -> Iterator[Callable[..., Repository]]:
    """Makes repositories; what they deployed is deleted afterwards."""

    made: list[Repository] = []

    def make(name: str = "repo", owner_: str = owner) -> Repository:
        made.append(Repository(cloud, tmp_path / f"{owner_}-{name}", owner_, name))
        return made[-1]

    yield make
    for repo in made:  # a push that is still queued finds no branch, and deploys nothing
        repo.delete_branch()
    for function in cloud.gateway.list():
        if function.name.startswith(f"{owner}-"):
            cloud.gateway.delete(function.name)
