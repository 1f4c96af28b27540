"""git-tar: makes the cluster match the branch that a push moved."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .converge import Report, converge
from .pipeline import Pipeline
from .sdk import messages, records, secrets
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import Busy, Failed, Unavailable
from .sdk.messages import Push
from .sdk.settings import Settings
from .sdk.slots import Slots
from .sources import Sources

SLOTS = Slots()
SOURCES = Sources(Path(tempfile.gettempdir()) / "git-tar-templates")
BUSY = "another push of this repository is on its way and takes this one along"


@function("git-tar", takes="POST of gh-push's message, signed in X-Cloud-Signature")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    body = messages.verified(event.body, event.headers, keys)
    push = messages.unseal(body, "git-tar", Push)
    pipeline = Pipeline(push, settings, keys, SOURCES)
    repository = (push.scm, push.repository.id)
    try:
        with SLOTS.taken(settings.parallel_long_calls, repository, busy=BUSY):
            report = converge(pipeline, settings.converge_rounds)
    except Exception as error:
        final = given_up(error, push, settings)
        pipeline.report(Report(push.after, records.outcome_of(final), error=str(final)))
        raise final from error
    if report.outcome == "failed":
        raise Failed(report.error, details={"report": asdict(report)})
    return answer(200, {"delivery": push.delivery, **asdict(report)})


def given_up(error: Exception, push: Push, settings: Settings) -> Exception:
    """What may work later is tried again by the queue, but not for ever."""
    waited_long = time.time() - push.at > settings.push_patience
    if isinstance(error, Unavailable) and not isinstance(error, Busy) and waited_long:
        return Failed(f"given up after {settings.push_patience:g} s: {error.message}")
    return error
