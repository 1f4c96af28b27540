"""garbage-collect: deletes a repository's functions that are no longer in its stack.yml."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .sdk import messages, naming, records, secrets
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
        removed, failed = collect(Gateway.of(settings), request, settings.allowed_namespaces)
        told.log = [f"removed {name}" for name in removed]
        if failed:
            raise Upstream("could not be deleted: " + ", ".join(sorted(failed)), details={"removed": removed})
    return answer(200, {"removed": removed})


def collect(
    gateway: Gateway, request: Collect, namespaces: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Delete what is stale; the names deleted, and those that could not be with the reason."""
    removed: list[str] = []
    failed: dict[str, str] = {}
    default = gateway.list()
    known = {function.namespace for function in default}  # the default namespace by its name
    others = [replace(gateway, namespace=name) for name in namespaces if name not in known]
    for there, functions in [(gateway, default), *((other, other.list()) for other in others)]:
        for name in stale(functions, request, there.namespace):
            shown = naming.qualified(name, there.namespace)
            try:
                if delete(there, name, request):
                    removed.append(shown)
            except CloudError as error:
                failed[shown] = error.message
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
