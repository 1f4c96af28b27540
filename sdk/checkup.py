"""A function's own answer to how it is: what it sees of its settings, secrets and neighbours.

The operator asks each function at its path `/check`, with a message signed as those between functions; the
path only leads here, the signed body decides. Nothing of it is a secret: names, seconds, and what is wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import __version__, messages, secrets
from .errors import CloudError, Misconfigured
from .gateway import Gateway
from .settings import Settings, seconds

PATH = "/check"
# The longest that an answer may be held back.
HOLD_SECONDS = 900
MAX_AGE = 300
_WATCHDOG = ("read_timeout", "write_timeout", "exec_timeout")
_OURS = ("build_timeout", "deploy_timeout", "push_timeout", "message_max_age")

# What a function's neighbours have to say against themselves, by their names; empty if nothing.
Neighbours = Callable[[Settings], Mapping[str, str]]


@dataclass(frozen=True)
class Wanted:
    """`hold`: seconds to wait before the answer, which shows what a long call has to pass; then only that."""

    hold: float = 0


@dataclass(frozen=True)
class Check:
    """The operator → any function, as it is on the wire: `{"check": {…}}`."""

    check: Wanted


@dataclass(frozen=True)
class Health:
    """`at`: its clock, in seconds since 1970; `timeouts` in seconds; `secrets`: names of what it can read."""

    name: str
    version: str
    at: float
    timeouts: Mapping[str, float] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    neighbours: Mapping[str, str] = field(default_factory=dict)


def checked(name: str, body: bytes, headers: Mapping[str, str], neighbours: Neighbours | None) -> Health:
    """Answer a message to `/check`; what it is refused for is raised."""
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    wanted = messages.unseal(messages.verified(body, headers, keys), name, Check, max_age=MAX_AGE).check
    at = time.time()
    if wanted.hold:
        time.sleep(min(max(0, wanted.hold), HOLD_SECONDS))
        return Health(name, __version__, at)
    found = {
        "gateway": problem(lambda: _ask_gateway(settings)),
        **(neighbours(settings) if neighbours else {}),
    }
    return Health(name, __version__, at, timeouts(settings), _readable(settings.secret_mount_path), found)


def timeouts(settings: Settings) -> Mapping[str, float]:
    """The watchdog's, where the environment has them, and ours."""
    found = {name: float(getattr(settings, name)) for name in _OURS}
    for name in _WATCHDOG:
        try:
            found[name] = seconds(os.environ[name])
        except (KeyError, ValueError):
            continue
    return found


def problem(ask: Callable[[], object]) -> str:
    """Why `ask` failed, empty if it did not."""
    try:
        ask()
    except CloudError as error:
        return f"{error.code}: {error.message}"
    return ""


def _ask_gateway(settings: Settings) -> None:
    """As this function does: with its credentials, if it has some."""
    if settings.basic_auth and secrets.find("basic-auth-user", settings.secret_mount_path):
        Gateway.of(settings).list()
    else:
        Gateway(settings.gateway_url).ping()


def _readable(folder: str) -> tuple[str, ...]:
    names = (file.name for file in Path(folder).iterdir()) if Path(folder).is_dir() else ()
    found = []
    for name in names:
        try:
            if secrets.find(name, folder):
                found.append(name)
        except Misconfigured:
            continue
    return tuple(sorted(found))
