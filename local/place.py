"""Which cloud a command is about: this machine's, or any gateway with its credentials."""

from __future__ import annotations

import base64
import binascii
import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from sdk.gateway import Gateway

from .errors import CommandError
from .state import State

F = TypeVar("F", bound=Callable[..., Any])
# Names that are offered for one that is not there.
_MEANT = 3
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def options(command: F) -> F:
    """--gateway, --username and --password-file, as arguments of `gateway`."""
    for option in (
        click.option(
            "--password-file", type=_FILE, help="File with the password; else faas-cli's login is used."
        ),
        click.option("--username", default="admin", show_default=True),
        click.option("--gateway", "url", metavar="URL", help="The gateway; this machine's cloud without it."),
    ):
        command = option(command)
    return command


def gateway(url: str | None, username: str, password_file: Path | None) -> Gateway:
    """The gateway, with credentials if there are any."""
    state = State.here()
    if not url:
        if not state.exists:
            raise CommandError(
                "there is no cloud on this machine: start it with `make up`, or name one by --gateway"
            )
        return state.gateway
    if password_file:
        return Gateway(url, (username, password_file.read_text().strip()))
    if local(url):
        return state.gateway
    return Gateway(url, login(url))


def local(url: str | None) -> State | None:
    """This machine's cloud, if that is what the URL stands for."""
    state = State.here()
    names = (state.gateway_url, state.gateway_url.replace("127.0.0.1", "localhost")) if state.exists else ()
    return state if state.exists and (not url or url.rstrip("/") in names) else None


def login(url: str) -> tuple[str, str] | None:
    """What `faas-cli login` has kept for that gateway."""
    folder = os.environ.get("OPENFAAS_CONFIG") or Path.home() / ".openfaas"
    try:
        found = yaml.safe_load((Path(folder) / "config.yml").read_text())
        rows = [row for row in found["auths"] if str(row["gateway"]).rstrip("/") == url.rstrip("/")]
        if not rows or rows[0].get("auth") != "basic":
            return None
        user, _, password = base64.b64decode(rows[0]["token"], validate=True).decode().partition(":")
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError, binascii.Error):
        return None
    return user, password


def known(url: str | None, username: str, password_file: Path | None) -> Gateway:
    """The gateway for a command that can do nothing without credentials."""
    found = gateway(url, username, password_file)
    if not found.auth:
        raise CommandError(
            f"no credentials of {found.url}: run `faas-cli login --gateway {found.url} --password-stdin`, or "
            "give --username and --password-file"
        )
    return found


def unknown(name: str, gateway: Gateway) -> str:
    """That there is no such function, and which ones may be meant."""
    names = sorted(function.name for function in gateway.list())
    ends = [each for each in names if each.endswith(f"-{name}")]
    close = difflib.get_close_matches(name, names, n=_MEANT)
    meant = list(dict.fromkeys((*ends, *close)))[:_MEANT]
    return f"there is no function {name}" + (f": did you mean {' or '.join(meant)}?" if meant else "")
