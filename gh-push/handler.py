"""gh-push: checks that an event is GitHub's, answers at once, and queues what git-tar has to look at."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from . import push
from .sdk import messages, records, secrets, signature, status
from .sdk.customers import Customers
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import TooLarge
from .sdk.gateway import Gateway
from .sdk.messages import Left, Push
from .sdk.records import Subject
from .sdk.settings import Settings

records.listeners.append(status.tell)

# GitHub waits for 10 s, of which the list of customers may take 1.5. The last try begins within these, and
# takes at most 4 s.
QUEUE_SECONDS = 4
CUSTOMERS_SECONDS = 1.5
CUSTOMERS = Customers()
# What the queue of OpenFaaS CE takes in one message.
QUEUE_BYTES = 256_000


@function("gh-push", takes="POST of a GitHub webhook event, signed in X-Hub-Signature-256")
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    webhook = secrets.read(
        "github-webhook-secret", settings.secret_mount_path, fallback="github_webhook_secret"
    )
    signature.verify(event.body, event.headers.get(signature.GITHUB_HEADER), webhook)
    delivery = event.headers.get("X-GitHub-Delivery") or str(uuid.uuid4())
    found = push.interpret(
        event.body,
        event.headers.get("X-GitHub-Event"),
        delivery,
        scm=settings.git_scm,
        build_branch=settings.build_branch,
        app=settings.github_app_id,
    )
    if isinstance(found, push.Ignored):
        return answer(200, {"delivery": delivery, "ignored": found.reason})
    with records.stage(records.QUEUE_STAGE, subject_of(found)):
        if isinstance(found, Push):
            CUSTOMERS.check(found.repository.owner.login, settings, CUSTOMERS_SECONDS)
        hand_over(found, settings)
    return answer(202, {"delivery": delivery, "queued": described(found)})


def subject_of(found: Push | Left) -> Subject:
    if isinstance(found, Left):
        return Subject(found.delivery, found.left.owner.login, "", "")
    repo, owner, sha = found.repository, found.repository.owner, found.after
    return Subject(found.delivery, owner.login, repo.name, sha, found.scm, owner.id, repo.id, sha)


def hand_over(found: Push | Left, settings: Settings) -> None:
    """Queue it for git-tar."""
    body = messages.seal("git-tar", found)
    if len(body) > QUEUE_BYTES:
        raise TooLarge(f"the event's description has {len(body)} bytes, {QUEUE_BYTES} can be queued")
    payload = secrets.read("payload-secret", settings.secret_mount_path)
    # The delivery is for whoever looks at the queue: git-tar believes the signed body alone.
    headers = {**messages.headers(body, payload), "X-GitHub-Delivery": found.delivery}
    Gateway(settings.gateway_url).queue("git-tar", body, headers, QUEUE_SECONDS)


def described(found: Push | Left) -> Mapping[str, Any]:
    """What was queued, for who looks at GitHub's list of deliveries."""
    if isinstance(found, Push):
        return {"repository": found.repository.full_name, "ref": found.ref, "after": found.after}
    left = found.left
    return {"left": left.cause, "owner": left.owner.login, "repositories": left.repositories or "all"}
