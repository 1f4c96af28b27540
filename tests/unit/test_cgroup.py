"""The control group of the build steps, in both versions of control groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local import cgroup


class Engine:
    def __init__(self, driver: str = "cgroupfs", memory: int = 8 * 1024**3) -> None:
        self.told: dict[str, Any] = {"CgroupDriver": driver, "MemTotal": memory}

    def info(self) -> dict[str, Any]:
        return self.told


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)


def ensure(root: Path, engine: Engine) -> str:
    return cgroup.ensure(engine, root)  # type: ignore[arg-type]


def test_version_1_has_a_folder_for_each_kind_of_limit(tmp_path: Path) -> None:
    for kind in ("memory", "pids", "cpu"):
        (tmp_path / kind).mkdir()
    assert ensure(tmp_path, Engine()) == ensure(tmp_path, Engine()) == "openfaas-cloud-builds"
    limits = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/*/*")}
    assert limits == {
        "memory/openfaas-cloud-builds/memory.limit_in_bytes": str(4 * 1024**3),
        "pids/openfaas-cloud-builds/pids.max": "4096",
        "cpu/openfaas-cloud-builds/cpu.shares": "512",
    }


def test_version_2_has_one_folder(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    assert ensure(tmp_path, Engine(memory=10)) == "openfaas-cloud-builds"
    files = {file.name: file.read_text() for file in (tmp_path / "openfaas-cloud-builds").iterdir()}
    assert files == {"memory.max": str(1024**3), "pids.max": "4096", "cpu.weight": "50"}


def test_where_we_may_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ensure(tmp_path, Engine(driver="systemd")) == ""
    assert ensure(tmp_path / "nothing", Engine()) == ""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert ensure(tmp_path, Engine()) == ""


def test_the_group_is_removed_with_what_buildkit_left_in_it(tmp_path: Path) -> None:
    for kind in ("memory", "pids", "cpu"):
        (tmp_path / kind / "openfaas-cloud-builds" / "buildkit" / "x").mkdir(parents=True)
    (tmp_path / "memory" / "other").mkdir()
    cgroup.remove(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob("*/*"))] == ["memory/other"]
