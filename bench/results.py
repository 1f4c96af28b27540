"""bench/RESULTS.md: a run with the machine that it ran on. Generated, never typed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from . import growth
from .growth import Point
from .measure import Measure, Row, markdown

_PROGRAMS = (("git", "--version"), ("docker", "--version"), ("docker", "buildx", "version"), ("uname", "-sr"))


def page(rows: Sequence[Row], measures: Mapping[str, Measure], points: Sequence[Point]) -> str:
    described = "\n".join(f"- {line}" for line in machine())
    parts = [
        "# Results of `make bench`",
        f"Written by `python -m bench --results` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, on:",
        described,
        "`ours` and `floor` are medians of `n` turns each, taken one after the other in the same run.",
        markdown(rows, measures).rstrip(),
    ]
    if points:
        parts += ["## How cost grows", growth.markdown(points).rstrip()]
    return "\n\n".join(parts) + "\n"


def machine() -> Sequence[str]:
    """What it ran on; the load tells how quiet it was."""
    processor = _row("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = int((_row("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1024**2
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return [
        f"{os.cpu_count()} × {processor}, {memory:.0f} GiB of memory; load in the end: {load}",
        f"Python {platform.python_version()}",
        *(_said(command) for command in _PROGRAMS),
    ]


def _row(file: str, name: str) -> str:
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _said(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except OSError:
        return f"no {command[0]}"
    return done.stdout.strip() or f"no {' '.join(command)}"
