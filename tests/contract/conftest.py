from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .fakes import FakeBuilder, FakeGateway, running


@pytest.fixture
def gateway(secret_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A gateway, and the environment of a function that finds it."""
    fake = FakeGateway()
    monkeypatch.setenv("gateway_url", fake.url)
    monkeypatch.setenv("secret_mount_path", str(secret_folder))
    with running(fake):
        yield fake


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBuilder]:
    fake = FakeBuilder()
    monkeypatch.setenv("builder_url", fake.url)
    with running(fake):
        yield fake
