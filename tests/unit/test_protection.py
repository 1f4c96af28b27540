"""What the BuildKit at hand enforces is found out once, however many ask."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from of_builder import protection
from of_builder.buildkit import BuildKit
from of_builder.protection import Protections, Watch
from of_builder.settings import Settings


def test_many_builds_at_once_are_one_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = []

    async def probe(buildkit: BuildKit) -> Protections:
        probes.append(buildkit)
        await asyncio.sleep(0)
        return Protections({"source_policy": True})

    async def ask() -> list[Protections]:
        watch = Watch(BuildKit(Settings(), tmp_path))
        return await asyncio.gather(*(watch.protections() for _ in range(5)))

    monkeypatch.setattr(protection, "_probe", probe)
    assert len(asyncio.run(ask())) == 5
    assert len(probes) == 1
