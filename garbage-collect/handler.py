"""garbage-collect: deletes a repository's functions that are no longer in its stack.yml."""

from __future__ import annotations

import time
from typing import Any

from .sdk import messages, records, secrets
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import CloudError, Upstream
from .sdk.gateway import Gateway
from .sdk.messages import Collect
from .sdk.records import Subject
from .sdk.settings import Settings
from .stale import is_owned, stale

GONE_SECONDS = 10


@function("garbage-collect", takes="POST of buildshiprun's garbage request, signed in X-Cloud-Signature")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    body = messages.verified(event.body, event.headers, keys)
    request = messages.unseal(body, "garbage-collect", Collect, max_age=settings.message_max_age)
    subject = Subject(request.delivery, request.owner, request.repo, request.sha)
    with records.stage("collect", subject) as told:
        removed, failed = collect(Gateway.of(settings), request)
        told.log = [f"removed {name}" for name in removed]
        if failed:
            raise Upstream("could not be deleted: " + ", ".join(sorted(failed)), details={"removed": removed})
    return answer(200, {"removed": removed})


def collect(gateway: Gateway, request: Collect) -> tuple[list[str], dict[str, str]]:
    """Delete what is stale; the names deleted, and those that could not be with the reason."""
    removed: list[str] = []
    failed: dict[str, str] = {}
    for name in stale(gateway.list(), request):
        try:
            if delete(gateway, name, request):
                removed.append(name)
        except CloudError as error:
            failed[name] = error.message
    return removed, failed


def delete(gateway: Gateway, name: str, request: Collect) -> bool:
    """Delete `name` if it is still the repository's, and wait until it is gone."""
    current = gateway.get(name)
    if current is None or not is_owned(current, request):
        return False
    gateway.delete(name)
    deadline = time.monotonic() + GONE_SECONDS
    while gateway.get(name) is not None:
        if time.monotonic() > deadline:
            raise Upstream(f"{name} is still there {GONE_SECONDS} s after it was deleted")
        time.sleep(0.1)
    return True
