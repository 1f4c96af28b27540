"""github-status: shows on the commit, on GitHub, what became of a push."""

from __future__ import annotations

import time
from typing import Any

from .report import Memory, Reporter
from .sdk import messages, secrets
from .sdk.edge import Answer, Event, answer, function
from .sdk.gateway import Gateway
from .sdk.settings import Settings
from .sdk.slots import Slots
from .sdk.status import RECEIVER, Told, shows

SLOTS, MEMORY = Slots(), Memory()
SECONDS = 90
BUSY = "another push of this repository is being told of"


@function(RECEIVER, takes="POST of a stage record, signed in X-Cloud-Signature")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    deadline = time.monotonic() + SECONDS
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    body = messages.verified(event.body, event.headers, keys)
    told = messages.unseal(body, RECEIVER, Told)
    if not shows(told.scm, settings):
        return answer(200, {"ignored": "report_status is off, or there is no GitHub App"})
    with SLOTS.taken(settings.parallel_long_calls, (told.scm, told.repo_id), busy=BUSY):
        reporter = Reporter(Gateway.of(settings), settings, MEMORY, deadline)
        return answer(200, {"changes": reporter.report(told)})
