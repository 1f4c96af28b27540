"""Programs out of Debian's packages, unpacked beside the checkout: nothing is installed, no daemon starts."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .conftest import ROOT

FOLDER = ROOT / ".cloud" / "packages"


def fetch(*names: str) -> None:
    """Unpack each package, once."""
    missing = [name for name in names if not (FOLDER / f"{name}.fetched").exists()]
    if not missing:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        Path(work).chmod(0o755)  # apt downloads as a user of its own
        command = ("apt-get", "-oAPT::Sandbox::User=root", "download", "-q", *missing)
        subprocess.run(command, cwd=work, check=True, capture_output=True, timeout=300)
        for package in Path(work).glob("*.deb"):
            subprocess.run(("dpkg", "-x", str(package), str(FOLDER)), check=True, timeout=60)
    for name in missing:
        (FOLDER / f"{name}.fetched").touch()


def environment() -> Mapping[str, str]:
    """For a program from there: with its libraries."""
    libraries = ":".join(
        str(FOLDER / path / f"{platform.machine()}-linux-gnu") for path in ("usr/lib", "lib")
    )
    return {**os.environ, "LD_LIBRARY_PATH": libraries}


def program(name: str) -> str | None:
    path = ":".join(str(FOLDER / folder) for folder in ("usr/bin", "usr/sbin"))
    return shutil.which(name) or shutil.which(name, path=path)
