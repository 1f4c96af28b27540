"""garbage-collect: deletes a repository's functions that are no longer in its stack.yml."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from .sdk import messages, naming, records, secrets
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import CloudError, Misconfigured, Superseded, Upstream
from .sdk.gateway import Gateway, Status
from .sdk.messages import Collect, Inventory
from .sdk.records import Stage, Subject
from .sdk.settings import Settings
from .stale import check_kept, check_limit, held, is_moved, is_owned, leaving

GONE_SECONDS = 10
# Deletes at once, each perhaps with a look before it: enough to hide the time of both calls.
THREADS = 16


@function("garbage-collect", takes="POST of a garbage request or inventory, signed in X-Cloud-Signature")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    body = messages.verified(event.body, event.headers, keys)
    age = settings.message_max_age
    if messages.carries(body, "inventory"):
        asked = messages.unseal(body, "garbage-collect", Inventory, max_age=age)
        return answer(200, inventory(asked, settings))
    request = messages.unseal(body, "garbage-collect", Collect, max_age=age)
    subject = Subject(
        request.delivery,
        request.owner,
        request.repo,
        request.sha,
        request.scm,
        request.owner_id,
        request.repo_id,
    )
    with records.stage("collect", subject) as told:
        return answer(200, tidy(request, settings, told))


def tidy(request: Collect, settings: Settings, told: Stage) -> Mapping[str, Any]:
    """Delete what is stale, all or, at the first doubt, nothing; a dry run only says what it would do."""
    there = functions(Gateway.of(settings), settings.allowed_namespaces)
    doomed = chosen(there, request)
    names = sorted(each.shown for each in doomed)
    try:
        if doomed:
            check_kept(((space.namespace, status) for space, found in there for status in found), request)
        lost = [each.shown for each in doomed if not is_moved(each.status, request)]
        check_limit(lost, settings.delete_limit if request.limit is None else request.limit)
    except CloudError as error:
        if not request.dry_run:
            raise type(error)(error.message, details={"would_remove": names}) from None
        told.outcome = "skipped"
        return {"removed": [], "would_remove": names, "refused": error.message}
    if request.dry_run:
        told.outcome, told.log = "skipped", [f"would remove {name}" for name in names]
        return {"removed": [], "would_remove": names}
    removed, failed = collect(doomed, request)
    told.log = [f"removed {name}" for name in removed]
    # Every few minutes, for every repository, there is nothing to delete.
    told.silent = not doomed and request.delivery.startswith(records.RECONCILE)
    if failed:
        reasons = "; ".join(sorted({error.message for error in failed.values()}))
        said = f"could not be deleted: {', '.join(sorted(failed))}: {reasons}"
        hopeless = any(isinstance(error, Misconfigured) for error in failed.values())
        raise (Misconfigured if hopeless else Upstream)(said, details={"removed": removed})
    return {"removed": removed}


def inventory(asked: Inventory, settings: Settings) -> Mapping[str, Any]:
    """Which repositories have functions here, and which."""
    there = functions(Gateway.of(settings), settings.allowed_namespaces)
    found = held([status for _, statuses in there for status in statuses], asked.scm, asked.inventory)
    return {"repositories": [asdict(each) for each in found]}


def functions(gateway: Gateway, namespaces: Sequence[str]) -> list[tuple[Gateway, list[Status]]]:
    """All functions: of the default namespace, and of each other one."""
    default = gateway.list()
    known = {function.namespace for function in default}  # the default namespace by its name
    others = [replace(gateway, namespace=name) for name in namespaces if name not in known]
    return [(gateway, default), *((other, other.list()) for other in others)]


@dataclass(frozen=True)
class Doomed:
    """A function that is to go, and where it is."""

    gateway: Gateway
    status: Status

    @property
    def shown(self) -> str:
        return naming.qualified(self.status.name, self.gateway.namespace)


def chosen(there: Sequence[tuple[Gateway, Sequence[Status]]], request: Collect) -> list[Doomed]:
    found = [
        Doomed(gateway, status)
        for gateway, statuses in there
        for status in leaving(statuses, request, gateway.namespace)
    ]
    return sorted(found, key=lambda each: each.shown)


def collect(doomed: Sequence[Doomed], request: Collect) -> tuple[list[str], dict[str, CloudError]]:
    """Delete them, some at once; the names deleted, and those that could not be with the reason."""
    failed: dict[str, CloudError] = {}

    def tried(each: Doomed) -> bool:
        try:
            return delete(each.gateway, each.status, request)
        except CloudError as error:
            failed[each.shown] = error
            return False

    with ThreadPoolExecutor(THREADS) as pool:
        deleted = [each for each, done in zip(doomed, pool.map(tried, doomed), strict=True) if done]
    failed |= await_gone(deleted, request)
    return [each.shown for each in deleted if each.shown not in failed], failed


def delete(gateway: Gateway, listed: Status, request: Collect) -> bool:
    """Delete the function if it is still the repository's; whether it may have been this call that did.

    A gateway with ETags deletes what was listed and nothing else. With others, or if that was changed
    meanwhile, there is a look right before it.
    """
    if listed.etag:
        with suppress(Superseded):
            gateway.delete(listed.name, over=listed)
            return True
    current = gateway.get(listed.name)
    if current is None or not is_owned(current, request):
        return False
    gateway.delete(current.name, over=current)
    return True


def await_gone(deleted: Sequence[Doomed], request: Collect) -> Mapping[str, CloudError]:
    """Wait until a list has them no longer; those that are still on it, with the reason."""
    deadline = time.monotonic() + GONE_SECONDS
    try:
        while left := still_there(deleted, request):
            if time.monotonic() > deadline:
                late = Upstream(f"still there {GONE_SECONDS} s after it was deleted")
                return {each.shown: late for each in left}
            time.sleep(0.1)
    except CloudError as error:
        return {each.shown: error for each in deleted}
    return {}


def still_there(deleted: Sequence[Doomed], request: Collect) -> list[Doomed]:
    there = {
        (gateway, status.name)
        for gateway in {each.gateway for each in deleted}
        for status in gateway.list()
        if is_owned(status, request)
    }
    return [each for each in deleted if (each.gateway, each.status.name) in there]
