"""git-tar: makes the cluster match the branch that a push moved."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from . import disk, github
from .along import Along
from .converge import Report, converge
from .departure import ANOTHER, Leaving
from .fetch import Remote
from .mirrors import Mirrors
from .overtaken import Cuts
from .patience import Patience
from .pipeline import Pipeline
from .sdk import github_app, messages, records, secrets, status
from .sdk.customers import Customers
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import Busy, CloudError, Failed, Misconfigured, Refused, Unavailable, Upstream
from .sdk.messages import Left, Push
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.slots import Slots
from .setbacks import Resting, Setbacks
from .template_cache import TemplateCache

records.listeners.append(status.tell)

SLOTS = Slots()
SENDING = Slots()
MIRRORS = Mirrors(Path(tempfile.gettempdir()) / "git-tar-mirrors")
TEMPLATES = TemplateCache(Path(tempfile.gettempdir()) / "git-tar-templates", MIRRORS)
TOKENS = github_app.Tokens()
PATIENCE = Patience()
CUSTOMERS = Customers()
CUSTOMERS_SECONDS = 10
CUTS = Cuts()
ALONG = Along()
SETBACKS = Setbacks(Path(tempfile.gettempdir()) / "setbacks.json")
BUSY = "another push of this repository is on its way and takes this one along"


class NoCustomer(Refused):
    """The owner is not on the list of customers."""


@function("git-tar", takes="POST of gh-push's messages, signed in X-Cloud-Signature")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    body = messages.verified(event.body, event.headers, keys)
    if messages.carries(body, "left"):
        return leave(messages.unseal(body, "git-tar", Left), settings, keys)
    return deploy(messages.unseal(body, "git-tar", Push), settings, keys)


def deploy(push: Push, settings: Settings, keys: Keys) -> Answer:
    """Make the cluster match the branch."""
    began = time.monotonic()
    deadline = began + settings.push_timeout
    remote = Remote(push.repository.clone_url)
    pipeline = Pipeline(push, remote, settings, keys, MIRRORS, TEMPLATES, SETBACKS, CUTS, SENDING, deadline)
    if taken := ALONG.taken(push):
        pipeline.report(taken)
        return answer(200, {"delivery": push.delivery, **asdict(taken)})
    try:
        with SLOTS.taken(settings.parallel_long_calls, pipeline.repository, busy=BUSY), disk.checked():
            now, remote = github.located(push, TOKENS, settings)
            # Again, and by the owner of now: the push may have been queued before the list changed.
            check_customer(now.repository.owner.login, settings)
            pipeline = replace(pipeline, push=now, remote=remote)
            report = converge(pipeline, settings.converge_rounds)
            PATIENCE.forget(push.delivery)
            ALONG.ended(push, began, report)
    except Exception as error:
        if isinstance(error, Busy):
            CUTS.hint(pipeline.repository)
        if let_go(error, push, settings):
            return answer(200, {"delivery": push.delivery, "outcome": "skipped", "error": str(error)})
        final = given_up(error, PATIENCE.lost_since(push.delivery, error), settings)
        pipeline.report(Report(push.after, records.outcome_of(final), error=str(final)))
        if not isinstance(final, Unavailable):
            ALONG.forget(push)
        raise final from error
    if report.outcome == "failed":
        raise Failed(report.error, details={"report": asdict(report)})
    return answer(200, {"delivery": push.delivery, **asdict(report)})


def check_customer(owner: str, settings: Settings) -> None:
    try:
        CUSTOMERS.check(owner, settings, CUSTOMERS_SECONDS)
    except Refused as error:
        raise NoCustomer(error.message) from None


def leave(left: Left, settings: Settings, keys: Keys) -> Answer:
    """Remove what GitHub confirms is gone; nothing else."""
    deadline = time.monotonic() + settings.push_timeout
    try:
        # One at a time: however many there are, and however slow GitHub is, pushes go on beside it.
        with SLOTS.taken(settings.parallel_long_calls, "leave", busy=ANOTHER):
            outcomes = Leaving(left, settings, keys, TOKENS, SLOTS, deadline).work()
        waiting = [each for each in outcomes if each.outcome in ("retry", "busy")]
        if waiting:
            kind = Busy if all(each.outcome == "busy" for each in waiting) else Unavailable
            raise kind("; ".join(each.error for each in waiting))
        PATIENCE.forget(left.delivery)
    except CloudError as error:
        raise given_up(error, PATIENCE.lost_since(left.delivery, error), settings) from error
    failed = [each.error for each in outcomes if each.outcome in ("failed", "refused", "misconfigured")]
    told = [asdict(each) for each in outcomes]
    if failed:
        hopeless = any(each.outcome == "misconfigured" for each in outcomes)
        raise (Misconfigured if hopeless else Failed)("; ".join(failed), details={"repositories": told})
    return answer(200, {"delivery": left.delivery, "left": left.left.cause, "repositories": told})


def let_go(error: Exception, push: Push, settings: Settings) -> bool:
    """Whether a look that reconcile asked for need not be tried again, nor told of: another one will follow.

    So what it asks for never piles up in the queue, however busy the cloud is.
    """
    is_old = time.time() - push.at > settings.push_patience
    is_let_go = isinstance(error, (Resting, NoCustomer)) or (isinstance(error, Busy) and is_old)
    return push.periodic and is_let_go


def given_up(error: Exception, seconds: float, settings: Settings) -> Exception:
    """What may work later is `Unavailable`, for the queue to try again, until it has failed for too long."""
    if not isinstance(error, (Unavailable, Upstream)):
        return error
    if seconds > settings.push_patience:
        return Failed(f"given up after {seconds:.0f} s: {error.message}")
    return error if isinstance(error, Unavailable) else Unavailable(error.message)
