"""Links to the page of list-functions, for authors and operators."""

from __future__ import annotations

import time
from pathlib import Path

from sdk import links, naming, secrets
from sdk.links import EVERYBODY, Link

from .author import SCM
from .gitserver.repository import owner_id
from .state import State

DAY_SECONDS = 86400


def local(owner: str, days: int, state: State) -> str:
    """A link for this machine's cloud; without an owner, one that shows everybody's."""
    path = naming.owner_path(SCM, owner_id(owner)) if owner else ""
    return made(owner, path, days, state.gateway_url, state.secret_file(links.SECRET))


def made(owner: str, path: str, days: int, gateway: str, secret: Path) -> str:
    """`path` is `<scm>/<owner id>`: names are given to others in time."""
    until = int(time.time()) + days * DAY_SECONDS
    link = Link(owner or EVERYBODY, path if owner else "", until)
    return link.url(gateway, secrets.read(secret.name, str(secret.parent)))
