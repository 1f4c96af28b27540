"""What must be live, from a bare repository alone; and how a commit says it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import plan
from .plan import Commit, Function, Repo

BRANCH = "refs/heads/master"
_TOKEN = re.compile(r'^TOKEN = "(.*)"$', re.MULTILINE)
_BROKEN = "broken on purpose"
_HANDLER = """import os

TOKEN = "{token}"


def handle(event, context):
    return {{"statusCode": 200, "body": TOKEN + "/" + os.environ["version"]}}
"""


@dataclass(frozen=True)
class Head:
    """A commit that the branch was at: each function's answer, None for one that is broken on purpose.

    `is_valid`: its stack.yml can be read and has functions.
    """

    sha: str
    functions: Mapping[str, str | None]
    is_valid: bool = True

    @property
    def is_good(self) -> bool:
        return self.is_valid and None not in self.functions.values()


def files(repo: Repo, commit: Commit) -> Mapping[str, str]:
    """What is in a commit; empty files are kept."""
    found = {"stack.yml": _stack(commit)}
    for name, function in commit.functions.items():
        if function.broken != plan.MISSING:
            found[f"{name}/handler.py"] = _handler(repo, name, function)
            found[f"{name}/requirements.txt"] = ""
    return found


def _handler(repo: Repo, name: str, function: Function) -> str:
    text = _HANDLER.format(token=f"{repo.full_name}/{name}/{function.code}")
    return f'{text}\n\nraise SystemExit("{_BROKEN}")\n' if function.broken == plan.CRASH else text


def _stack(commit: Commit) -> str:
    if commit.broken == plan.NO_YAML:
        return "functions: [\n"
    functions = {
        name: {
            "lang": "python3-http",
            "handler": f"./{name}",
            "image": f"{name}:latest",
            "environment": {"version": str(function.version)},
        }
        for name, function in commit.functions.items()
    }
    if commit.broken == plan.NO_FUNCTIONS:
        functions = {}
    return yaml.safe_dump({"version": 1.0, "provider": {"name": "openfaas"}, "functions": functions})


def heads(folder: Path, clashing: frozenset[str] = frozenset()) -> list[Head]:
    """All that the branch of the bare repository `folder` was at, oldest first, by its log of the ref."""
    shas = git(folder, "log", "--walk-reflogs", "--format=%H", BRANCH).split()
    return [read(folder, sha, clashing) for sha in reversed(shas)]


def read(folder: Path, sha: str, clashing: frozenset[str] = frozenset()) -> Head:
    """The functions of a commit; those named `clashing` count as broken."""
    try:
        functions = yaml.safe_load(git(folder, "show", f"{sha}:stack.yml"))["functions"]
    except (yaml.YAMLError, subprocess.CalledProcessError):
        functions = {}
    tokens = {
        str(name): None if name in clashing else _answer(folder, sha, entry)
        for name, entry in functions.items()
    }
    return Head(sha, tokens, bool(tokens))


def _answer(folder: Path, sha: str, entry: Mapping[str, object]) -> str | None:
    path = f"{entry['handler']}/handler.py".removeprefix("./")
    try:
        text = git(folder, "show", f"{sha}:{path}")
    except subprocess.CalledProcessError:
        return None
    token, environment = _TOKEN.search(text), entry["environment"]
    assert token
    assert isinstance(environment, dict)
    return None if _BROKEN in text else f"{token[1]}/{environment['version']}"


def git(folder: Path, *arguments: str, stdin: str | None = None) -> str:
    """What git prints, in a bare repository."""
    command = ("git", f"--git-dir={folder}", *arguments)
    done = subprocess.run(command, input=stdin, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()
