"""The running cloud of this machine; one is started if there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from local.state import State
from tests.conftest import ROOT

from . import builder as builders
from .builder import Driver, OfBuilder
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


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine that runs the cloud. Here nothing starts one: what of-builder does needs no new images."""
    state = State.here()
    if not state.exists:
        pytest.skip("no cloud runs here: make up")
    client = docker.from_env(timeout=60)
    yield client
    builders.remove_pushed(client, state)
    client.close()


@pytest.fixture(scope="session")
def other_registry(engine: docker.DockerClient) -> Iterator[str]:
    """A registry that is not the cloud's, so that images may be built from what it has."""
    with builders.registry(engine) as host:
        yield host
        builders.remove_images(engine, f"{host}/")


@pytest.fixture(scope="session", params=["engine", "standalone"])
def driver(
    request: pytest.FixtureRequest,
    engine: docker.DockerClient,
    other_registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Driver]:
    """Each BuildKit that of-builder can drive."""
    python = builders.python_image(engine)
    allowed = f"{other_registry}/*,docker.io/*"
    if request.param == "engine":
        yield Driver("engine", {"allowed_sources": allowed}, python, other_registry)
        return
    program = builders.find_buildkitd()
    if not program or os.geteuid() != 0:
        pytest.skip("needs root and a buildkitd, on the PATH or named by BUILDKITD")
    base = builders.push(engine, python, f"{other_registry}/{python}")
    folder = tmp_path_factory.mktemp("buildkitd")
    with builders.buildkitd(program, folder, other_registry, State.here().registry) as url:
        settings = {"buildkit_url": url, "allowed_sources": allowed}
        yield Driver("standalone", settings, base, other_registry, program)


@pytest.fixture(scope="session")
def builder(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfBuilder]:
    """An of-builder that is not the cloud's, with default settings."""
    with builders.of_builder(driver, tmp_path_factory.mktemp("of-builder")) as running:
        yield running
