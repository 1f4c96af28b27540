"""Seals an author's secret into secrets.yml, for any cloud: only its public key is needed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import requests

from sdk import sealing, secrets_file
from sdk.sealing import Home
from sdk.settings import Settings

from .author import REMOTE, SCM
from .errors import CommandError
from .gitserver.repository import ROOT as SERVED
from .gitserver.repository import owner_id
from .state import State

SECONDS = 15
GITHUB = "github"
_HOME = re.compile(r"(?P<scm>github|gitlab|local)/(?P<owner>[0-9]{1,18})/(?P<repo>[0-9]{1,18})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_.][A-Za-z0-9_.-]*")
_GITHUB = re.compile(r"(?:https://(?:[^/@]+@)?|ssh://git@|git@)github\.com[/:](.+?)(?:\.git)?/?")
_GIT_SERVER = "openfaas-cloud-git-server"


def seal(name: str, value: str, folder: Path, home: Home, key: str) -> Path:
    """Add the secret to the folder's secrets.yml, or replace it there."""
    file = folder / secrets_file.NAME
    texts = secrets_file.parse(file.read_bytes()) if file.exists() else {}
    if texts is None:
        raise CommandError(f"{file} is no file of sealed secrets: move it away, the cloud needs the name")
    whole = {**texts, name: sealing.seal(key, name, value, home)}
    if len(whole) > secrets_file.MOST:
        raise CommandError(f"{file} would have more than {secrets_file.MOST} secrets")
    content = secrets_file.document(whole).encode()
    if len(content) > secrets_file.FILE_BYTES:
        raise CommandError(f"{file} would have more than {secrets_file.FILE_BYTES} bytes")
    file.write_bytes(content)
    return file


def public_key(gateway: str) -> str:
    """What buildshiprun tells everybody."""
    told = _json(f"{gateway.rstrip('/')}/function/buildshiprun", {})
    if not isinstance(key := told.get("seal_key"), str):
        raise CommandError(f"the cloud at {gateway} opens no sealed secrets: it has no seal-key")
    return key


def home_of(folder: Path, name: str, ids: str) -> Home:
    """The repository by ids: as given, as GitHub knows `name`, or as the folder's remotes tell."""
    if ids:
        match = _HOME.fullmatch(ids)
        if not match:
            raise CommandError("--id is SCM/OWNER-ID/REPOSITORY-ID, such as github/583231/1296269")
        return Home(match["scm"], int(match["owner"]), int(match["repo"]))
    if name:
        return _on_github(name)
    if url := _remote(folder, REMOTE):
        return _on_this_machine(url)
    if match := _GITHUB.fullmatch(_remote(folder, "origin")):
        return _on_github(match[1])
    raise CommandError(
        "which repository is it for? On the local cloud push it first, by python -m local push DIR --owner "
        "NAME; for GitHub's say --repo OWNER/NAME, for others --id SCM/OWNER-ID/REPOSITORY-ID"
    )


def _on_github(name: str) -> Home:
    if not _NAME.fullmatch(name):
        raise CommandError(f"{name!r} is not OWNER/NAME")
    token = os.environ.get("GITHUB_TOKEN", "")
    told = _json(
        f"{Settings.read().github_api_url.rstrip('/')}/repos/{name}",
        {"Authorization": f"Bearer {token}"} if token else {},
    )
    try:
        return Home(GITHUB, int(told["owner"]["id"]), int(told["id"]))
    except (KeyError, TypeError, ValueError):
        raise CommandError(f"GitHub does not tell the ids of {name}: give them with --id") from None


def _on_this_machine(url: str) -> Home:
    owner, _, name = url.removesuffix(".git").rpartition("/")
    owner = owner.rpartition("/")[2]
    folder = SERVED / owner / f"{name}.git"
    ask = ("docker", "exec", _GIT_SERVER, "git", f"--git-dir={folder}", "config", "cloud.id")
    told = subprocess.run(ask, capture_output=True, text=True)
    if told.returncode or not told.stdout.strip().isdigit():
        raise CommandError(
            f"the local cloud does not know {owner}/{name} yet: push it first, by "
            f"python -m local push DIR --owner {owner}; then seal"
        )
    return Home(SCM, owner_id(owner), int(told.stdout))


def _remote(folder: Path, name: str) -> str:
    ask = ("git", "-C", str(folder), "remote", "get-url", name)
    return subprocess.run(ask, capture_output=True, text=True).stdout.strip()


def _json(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        answer = requests.get(url, headers=headers, timeout=SECONDS)
        if answer.status_code == 404:
            raise CommandError(f"{url} is not there; for a private repository set GITHUB_TOKEN, or give --id")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=dict[str, Any])
    except (requests.RequestException, msgspec.MsgspecError) as error:
        raise CommandError(f"{url} does not answer as it should: {type(error).__name__}") from None


def key_of(key: str, gateway: str, state: State) -> str:
    """The key as given, or as the gateway's cloud tells it; this machine's without either."""
    if key:
        return key
    if not gateway and not state.exists:
        raise CommandError("whose cloud is it for? give its --gateway URL, or its public --key")
    return public_key(gateway or state.gateway_url)
