"""Asks the function reconcile to look at what is installed, and says what it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdk import messages, secrets
from sdk.gateway import Gateway
from sdk.messages import Reconcile

from .state import State

SECONDS = 240


def reconcile(repository: str, state: State) -> Iterator[str]:
    """What it did, as lines of text."""
    body = messages.seal("reconcile", Reconcile(repository))
    keys = secrets.read("payload-secret", str(state.secrets_folder))
    answer = Gateway(state.gateway_url).invoke("reconcile", body, messages.headers(body, keys), SECONDS)
    look = messages.decode(answer, _Look)
    yield from (f"queued {name}" for name in look.queued)
    yield from (f"uninstalled {name}" for name in look.uninstalled)
    if look.left:
        yield f"{look.left} more wait for their turn: run it again"
    if look.queued:
        yield "what becomes of it: python -m local logs git-tar"
    else:
        yield "no repository is installed: push one"


@dataclass(frozen=True)
class _Look:
    queued: tuple[str, ...]
    uninstalled: tuple[str, ...]
    left: int
