"""The commands of a guide, as somebody would run them who follows it: block after block, in one shell.

What needs no cluster runs: openssl, sed, git, htpasswd, github-app. What speaks to a cluster, to Docker, a
registry or the world does not: kubectl, helm, faas-cli, docker, curl, and python -m local where it needs a
cloud, are tests/standin.py, which looks at the form of a command and at the files that it names, and notes
it. Blocks of the kind `sh machine` change the machine that they run on: bash reads them, nothing more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.commands import ROOT, blocks

RUN, MACHINE = "sh", "sh machine"
KUBERNETES, FAASD, SWARM = (ROOT / "docs" / f"install-{name}.md" for name in ("kubernetes", "faasd", "swarm"))
_LEFT_OUT = (
    ".git",
    ".venv",
    ".cloud",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "secrets",
    "tls",
    "github.yml",
)
STANDINS = ("kubectl", "helm", "faas-cli", "docker", "curl", "make", "sleep")


@dataclass(frozen=True)
class Call:
    """One command that was not run; `keys` are those of the secret or map that it makes."""

    tool: str
    argv: Sequence[str]
    stdin: str = ""
    keys: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        return " ".join((self.tool, *self.argv))


@dataclass(frozen=True)
class Run:
    """A guide that was followed: what it left, and what it would have done elsewhere."""

    page: Path
    folder: Path
    status: int
    output: str

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    @cached_property
    def calls(self) -> list[Call]:
        return [Call(**json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]

    def made(self, beginning: str) -> list[Call]:
        return [call for call in self.calls if call.line.startswith(beginning)]

    def index(self, part: str) -> int:
        """Which call it was, of the last that has this in it."""
        return max(number for number, call in enumerate(self.calls) if part in call.line)

    @cached_property
    def functions(self) -> Mapping[str, Any]:
        """Of stack.yml as it is after the guide's changes."""
        return dict(yaml.safe_load((self.checkout / "stack.yml").read_text())["functions"])

    @cached_property
    def settings(self) -> Mapping[str, str]:
        from sdk.stack import parse_environment_file

        return parse_environment_file((self.checkout / "gateway_config.yml").read_bytes())

    @cached_property
    def documents(self) -> list[Mapping[str, Any]]:
        """What is applied to Kubernetes."""
        texts = [call.stdin for call in self.made("kubectl apply") if call.stdin]
        return [row for text in texts for row in yaml.safe_load_all(text) if row]


def follow(page: Path, folder: Path, github_api: str, elsewhere: Mapping[str, str] | None = None) -> Run:
    """Run the blocks of `page` in a copy of this repository below `folder`.

    `elsewhere` has paths of the machine's that stand for others here.
    """
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    text = "".join(text for kind, text in blocks(page) if kind == RUN)
    for there, here in (elsewhere or {}).items():
        text = text.replace(there, here)
    (folder / "calls").touch()
    _programs(folder, checkout)
    home = folder / "home"
    (home / ".openfaas").mkdir(parents=True)
    (home / ".openfaas" / "LICENSE").write_text("a licence")
    bare = folder / "github" / "acme" / "hello.git"
    subprocess.run(("git", "init", "--quiet", "--bare", str(bare)), check=True)
    done = subprocess.run(
        ("bash", "-euo", "pipefail", "-c", text),
        cwd=checkout,
        env=_environment(folder, home, github_api),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return Run(page, folder, done.returncode, done.stdout)


def _environment(folder: Path, home: Path, github_api: str) -> Mapping[str, str]:
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "github_api_url": github_api,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder / 'github'}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        **{
            f"GIT_{who}_{what}": "alice@example.com"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }


def _programs(folder: Path, checkout: Path) -> None:
    """The stand-ins on PATH, and the checkout's Python, which runs some of `local` for real."""
    missing = () if shutil.which("htpasswd") else ("htpasswd",)
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (folder / "bin").mkdir()
    files = [folder / "bin" / name for name in (*STANDINS, *missing)]
    for file in (*files, checkout / ".venv" / "bin" / "python"):
        file.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={ROOT}:{ROOT / 'of-builder'} GUIDE={folder}\n"
            f'exec {sys.executable} -m tests.standin {file.name} "$@"\n'
        )
        file.chmod(0o755)
