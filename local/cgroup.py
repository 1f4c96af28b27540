"""A control group for build steps: together they take no more than half of this machine.

https://docs.kernel.org/admin-guide/cgroup-v2.html, and for version 1 cgroup-v1/ beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import docker

NAME = "openfaas-cloud-builds"
ROOT = Path("/sys/fs/cgroup")
PROCESSES = 4096
_LEAST_MEMORY = 1024**3


def ensure(client: docker.DockerClient, root: Path = ROOT) -> str:
    """The group's name for BuildKit; empty where we may not make one, or systemd does (docs/builder.md)."""
    if os.geteuid() or client.info()["CgroupDriver"] != "cgroupfs":
        return ""
    memory = max(_LEAST_MEMORY, int(client.info()["MemTotal"]) // 2)
    try:
        for file, value in _limits(root, memory).items():
            file.parent.mkdir(exist_ok=True)
            file.write_text(str(value))
    except OSError:
        return ""
    return NAME


def remove(root: Path = ROOT) -> None:
    """Once no build runs; BuildKit leaves empty groups in it."""
    for group in {file.parent for file in _limits(root, 0)}:
        for folder in (*group.glob("*/*/"), *group.glob("*/"), group):
            with suppress(OSError):
                folder.rmdir()


def _limits(root: Path, memory: int) -> Mapping[Path, int]:
    """In both versions: memory in bytes, a number of processes, and half of the others' share of the CPU."""
    if (root / "cgroup.controllers").exists():
        group = root / NAME
        return {group / "memory.max": memory, group / "pids.max": PROCESSES, group / "cpu.weight": 50}
    return {
        root / "memory" / NAME / "memory.limit_in_bytes": memory,
        root / "pids" / NAME / "pids.max": PROCESSES,
        root / "cpu" / NAME / "cpu.shares": 512,
    }
