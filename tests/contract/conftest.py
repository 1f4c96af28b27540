from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.gateway.settings import Settings
from sdk.settings import Seconds

from .fakes import FakeBuilder, FakeGateway, running


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
