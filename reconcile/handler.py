"""reconcile: has every installed repository looked at again, as the net under lost events."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict
from typing import Any

from .github import App
from .look import Look, Reconciler
from .pace import Pace
from .sdk import messages, records, secrets
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import Upstream
from .sdk.gateway import Gateway
from .sdk.github_app import Tokens
from .sdk.messages import Reconcile
from .sdk.records import Subject
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.slots import Slots
from .turns import Looks, Turns

SLOTS, TOKENS, PACE = Slots(), Tokens(), Pace()
LOOKS, SUSPECTS = Looks(), Turns()
LIST_SECONDS = 120


@function("reconcile", takes="POST: empty, as of a clock, or a request signed in X-Cloud-Signature")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    asked = request(event, keys, settings)
    with SLOTS.taken(1, "look", busy="reconcile is at it"):
        if asked is None and not PACE.may():
            return answer(200, {"queued": 0, "reason": "somebody asked just now"})
        app = App(TOKENS, settings, time.monotonic() + LIST_SECONDS)
        reconciler = Reconciler(Gateway.of(settings), app, settings, keys, LOOKS, SUSPECTS)
        with records.stage("reconcile", Subject(f"reconcile-{uuid.uuid4()}", "", "", "")) as stage:
            look = reconciler.look(asked)
            stage.log = look.lines()
            if look.problems:
                raise Upstream(
                    "not all could be looked at: " + "; ".join(look.problems), details=shown(look, asked)
                )
    return answer(200, shown(look, asked))


def request(event: Event, keys: Keys, settings: Settings) -> Reconcile | None:
    """What the operator asks for; None of a clock, which says nothing and signs nothing."""
    if not event.body:
        return None
    body = messages.verified(event.body, event.headers, keys)
    return messages.unseal(body, "reconcile", Reconcile, max_age=settings.message_max_age)


def shown(look: Look, asked: Reconcile | None) -> dict[str, Any]:
    """Names are for the operator: anybody may call a function."""
    if asked is None:
        return {"queued": len(look.queued), "uninstalled": len(look.uninstalled), "left": look.left}
    return asdict(look)
