"""Packages on Debian and Ubuntu: what this machine's apt reaches, and how to install from it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CommandError
from .steps import run

# Debian 12's engine is too old (docs/local-cloud.md says why); Debian 13's runs on Debian 12.
NEXT_SUITE = {"bookworm": "trixie"}


@dataclass(frozen=True)
class System:
    """`id` and `codename` as in /etc/os-release, such as debian and bookworm."""

    id: str
    codename: str

    @classmethod
    def here(cls) -> System:
        try:
            lines = Path("/etc/os-release").read_text().splitlines()
        except OSError:
            return cls("unknown", "")
        rows = dict(line.split("=", 1) for line in lines if "=" in line)
        return cls(rows.get("ID", "unknown").strip('"'), rows.get("VERSION_CODENAME", "").strip('"'))

    @property
    def has_apt(self) -> bool:
        return self.id in ("debian", "ubuntu")

    @property
    def suite(self) -> str:
        """The release that images and the engine come from."""
        return NEXT_SUITE.get(self.codename, self.codename)


def must_be_installable(packages: Sequence[str]) -> None:
    """Raise what to do by hand where packages can't be installed from here."""
    if os.geteuid() or not System.here().has_apt:
        raise CommandError(
            f"not installed: {', '.join(packages)}. As root on Debian or Ubuntu this is done for you; "
            "otherwise install it and start `up` again"
        )


def install(packages: Sequence[str]) -> None:
    """From this machine's own sources."""
    must_be_installable(packages)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(("apt-get", "update", "-q"), what="apt-get update")
    run(("apt-get", "install", "-qy", "--no-install-recommends", *packages), what="apt-get install")


def install_from_suite(packages: Sequence[str], suite: str) -> None:
    """From another release, which is left in no source of this machine's."""
    must_be_installable(packages)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(("apt-get", "update", "-q"), what="apt-get update")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)  # apt downloads as a user of its own
        (work / "sources.list").write_text(sources(suite))
        for path in ("lists/partial", "cache/archives/partial", "parts", "debs"):
            (work / path).mkdir(parents=True)
        options = [
            f"-oDir::State::lists={work}/lists",
            f"-oDir::Etc::sourcelist={work}/sources.list",
            f"-oDir::Etc::sourceparts={work}/parts",
            f"-oDir::Cache={work}/cache",
            "-oAPT::Sandbox::User=root",
        ]
        run(("apt-get", *options, "update", "-q"), what=f"apt-get update of {suite}")
        run(
            ("apt-get", *options, "download", "-q", *packages),
            folder=work / "debs",
            what=f"download from {suite}",
        )
        debs = sorted(str(path) for path in (work / "debs").glob("*.deb"))
        run(("apt-get", "install", "-qy", "--no-install-recommends", *debs), what="apt-get install")


def sources(suite: str) -> str:
    """apt's one-line sources for `suite`, from the mirrors that this machine uses."""
    fields = "$(ORIGIN)|$(REPO_URI)|$(COMPONENT)|$(CODENAME)"
    listed = run(("apt-get", "indextargets", "--format", fields, "Created-By: Packages"))
    codename, lines = System.here().codename, set[str]()
    releases = (codename, f"{codename}-security", f"{codename}-updates")
    for row in listed.splitlines():
        origin, uri, component, release = row.split("|")
        if origin in ("Debian", "Ubuntu") and component in ("main", "universe") and release in releases:
            lines.add(f"deb {uri} {release.replace(codename, suite)} {component}\n")
    if not lines:
        raise CommandError("apt knows no source of this distribution: run `apt-get update` and look")
    return "".join(sorted(lines))
