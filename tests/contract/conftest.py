from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.gateway.settings import Settings
from sdk.settings import Seconds
from tests.guides import FAASD, KUBERNETES, SWARM, Run, follow
from tests.repositories import Origin

from .fakes import FakeBuilder, FakeGateway, running
from .registration import FakeRegistration

# The lines of faasd 0.19.0's own files that the guide changes.
COMPOSE = """services:
  gateway:
    environment:
      - read_timeout=60s
      - write_timeout=60s
      - upstream_timeout=65s
    ports:
       - "8080:8080"
  queue-worker:
    environment:
      - ack_wait=5m5s
      - max_inflight=1
"""
UNIT = '[Service]\nEnvironment="secret_mount_path={{.SecretMountPath}}"\nRestart=on-failure\n'


@pytest.fixture
def gateway(secret_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A gateway, and the environment of a function that finds it."""
    fake = FakeGateway()
    monkeypatch.setenv("gateway_url", fake.url)
    monkeypatch.setenv("secret_mount_path", str(secret_folder))
    monkeypatch.setenv("report_status", "false")  # GitHub is told in tests of just that
    with running(fake):
        yield fake


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBuilder]:
    fake = FakeBuilder()
    monkeypatch.setenv("builder_url", fake.url)
    with running(fake):
        yield fake


@pytest.fixture
def settings(tmp_path: Path, secret_folder: Path) -> Settings:
    """The local gateway's, with pauses that suit tests."""
    return Settings(
        secret_mount_path=str(secret_folder),
        queue_path=str(tmp_path / "queue"),
        queue_backoff=Seconds(0.05),
        queue_backoff_limit=Seconds(0.1),
        queue_attempts=5,
        probation=Seconds(0.4),
        drain_timeout=Seconds(3),
        connect_patience=Seconds(0.3),
    )


@pytest.fixture(scope="session")
def github_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    fake = FakeRegistration(Origin(tmp_path_factory.mktemp("origin")))
    with running(fake):
        yield fake.api


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory, github_api: str) -> Run:
    return follow(KUBERNETES, tmp_path_factory.mktemp("kubernetes"), github_api)


@pytest.fixture(scope="session")
def faasd(tmp_path_factory: pytest.TempPathFactory, github_api: str) -> Run:
    folder = tmp_path_factory.mktemp("faasd")
    (folder / "lib" / "secrets").mkdir(parents=True)
    (folder / "lib" / "secrets" / "basic-auth-user").write_text("admin")
    (folder / "lib" / "secrets" / "basic-auth-password").write_text("s3cret")
    (folder / "faasd" / "hack").mkdir(parents=True)
    (folder / "faasd" / "docker-compose.yaml").write_text(COMPOSE)
    (folder / "faasd" / "hack" / "faasd-provider.service").write_text(UNIT)
    elsewhere = {"/var/lib/faasd": str(folder / "lib"), "/root/faasd": str(folder / "faasd")}
    return follow(FAASD, folder, github_api, elsewhere)


@pytest.fixture(scope="session")
def swarm(tmp_path_factory: pytest.TempPathFactory, github_api: str) -> Run:
    return follow(SWARM, tmp_path_factory.mktemp("swarm"), github_api)


@pytest.fixture(params=["kubernetes", "faasd"])
def run(request: pytest.FixtureRequest) -> Run:
    """A guide to OpenFaaS."""
    found: Run = request.getfixturevalue(request.param)
    return found
