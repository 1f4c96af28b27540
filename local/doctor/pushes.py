"""The way of a push: the event, of-builder, the registry, the nodes, the queue, and the net under it all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone

from sdk import records, signature
from sdk.errors import CloudError, Failed
from sdk.gateway import Status
from sdk.naming import CLOUD

from ..calls import FAILED, Queue, Queued
from ..following import rfc3339
from .cloud import READ_SECONDS, Cloud
from .findings import Finding, fail, ok, unseen, warn

RECONCILE_MINUTES = 15
# Takes pushes; what it answers with 422 is the author's to mend.
PUSHED = "git-tar"
_BODY = b"{}"
_NO_CLOCK = "deploy OpenFaaS's cron-connector: without it lost events stay lost"
_NO_CLOCK_HERE = (
    "the gateway calls it every five minutes: wait, if the cloud was just restored; else see "
    "python -m local logs reconcile, and docker logs openfaas-cloud-gateway"
)
_FINE = {
    "of-builder": "answers buildshiprun; BuildKit and the registry answer it",
    "registry push": "an image was built and pushed",
    "registry pull": "the registry has it",
}
_REMEDIES = {
    "gateway": "are gateway_url, basic-auth-user and basic-auth-password what the gateway has?",
    "of-builder": "is builder_url right, and reached by buildshiprun? See docs/deploy-builder.md",
    "registry push": "are builder-secret and push_repository_url right? See of-builder's log",
    "registry pull": "see the registry's log; is its storage writable?",
}


def neighbours(cloud: Cloud) -> Iterator[Finding]:
    """What the functions say of the gateway, of-builder and the registry."""
    for name, health in cloud.healths.items():
        for neighbour, problem in health.neighbours.items():
            if problem:
                yield fail(neighbour, f"{name} says: {problem}", _REMEDIES.get(neighbour, ""))
    told = cloud.healths["buildshiprun"].neighbours if "buildshiprun" in cloud.healths else {}
    for neighbour, what in _FINE.items():
        if told.get(neighbour) == "":
            yield ok(neighbour, what)
    if not told:
        yield unseen("of-builder", "of-builder and the registry", "buildshiprun would be asked, see health")


def pull(cloud: Cloud) -> Iterator[Finding]:
    """Whether the cluster pulls: something that was pushed runs, or nothing does."""
    pushed = [status for status in cloud.there.values() if f"{CLOUD}git-repo" in (status.labels or {})]
    wanted: list[str] = []
    for status in pushed:
        current = cloud.gateway.get(status.name)
        if current and current.available_replicas:
            host = current.image.partition("/")[0]
            yield ok("cluster pull", f"{current.name} runs, from {host}")
            return
        if current and (current.replicas or current.failure):
            wanted.append(current.name)
    if wanted:
        names = ", ".join(sorted(wanted)[:3])
        yield warn(
            "cluster pull",
            f"of {len(pushed)} functions that were pushed none is ready, such as {names}",
            "is repository_url the registry as the nodes reach it? See docs/install-kubernetes.md",
        )
    elif pushed:
        yield unseen(
            "cluster pull",
            "whether the nodes can pull: all that was pushed is scaled to 0, or gone",
            "call a function that was pushed, then run doctor again",
        )
    else:
        yield unseen("cluster pull", "whether the nodes can pull: nothing was pushed yet", "push a function")


def webhook(cloud: Cloud) -> Iterator[Finding]:
    if "gh-push" not in cloud.there:
        return
    for name in cloud.messaged():
        reply = cloud.ask("POST", f"/function/{name}", _BODY)
        if reply.status == 401:
            continue
        if 200 <= reply.status < 300:
            yield fail(
                "webhook",
                f"{name} takes what nobody signed",
                "this is none of our functions: deploy it again",
            )
        else:
            said = f"{name} does not refuse an unsigned call as it should: {reply.said}"
            yield fail("webhook", said, f"faas-cli logs {name}; a secret that is missing, most often")
    if not cloud.webhook:
        yield unseen(
            "webhook", "whether gh-push and GitHub have the same secret", "give --webhook-secret-file"
        )
    else:
        signed = {signature.GITHUB_HEADER: signature.sign(_BODY, cloud.webhook), "X-GitHub-Event": "ping"}
        reply = cloud.ask("POST", "/function/gh-push", _BODY, signed)
        if reply.status == 200:
            yield ok("webhook", "gh-push answers a signed ping, and none takes an unsigned call")
        else:
            remedy = "put the webhook secret of the GitHub App into github-webhook-secret, and deploy gh-push"
            yield fail("webhook", f"gh-push refuses a signed ping: {reply.said}", remedy)
    yield unseen(
        "webhook",
        "whether GitHub reaches gh-push",
        "the App's page on GitHub, under Advanced, shows each delivery with its answer",
    )


def reconcile(cloud: Cloud) -> Iterator[Finding]:
    """Whether a clock calls reconcile: then it leaves records."""
    if "reconcile" not in cloud.there:
        return
    since = rfc3339(time.time() - RECONCILE_MINUTES * 60)
    try:
        lines = cloud.gateway.logs("reconcile", since, follow=False, read_seconds=READ_SECONDS)
        last = [record for record in map(records.parse, lines) if record]
    except CloudError as error:
        yield warn(
            "logs", f"can't be read: {error.message}", "trace and metrics need the gateway's /system/logs"
        )
        return
    if not last and _is_young(cloud.there["reconcile"]):
        yield unseen(
            "reconcile",
            "whether a clock calls reconcile: it was only just deployed",
            f"run doctor again in {RECONCILE_MINUTES} minutes",
        )
    elif not last:
        yield warn(
            "reconcile",
            f"was not called in the last {RECONCILE_MINUTES} minutes",
            _NO_CLOCK_HERE if cloud.is_local else _NO_CLOCK,
        )
    elif last[-1].outcome != "ok":
        yield warn("reconcile", f"{last[-1].outcome}: {last[-1].error}", "faas-cli logs reconcile")
    else:
        yield ok("reconcile", f"looked after the repositories at {last[-1].at[:19]}Z")


def queue(cloud: Cloud) -> Iterator[Finding]:
    """What failed for good, where the gateway tells: the local one does."""
    try:
        failed = [call for call in Queue.at(cloud.gateway).calls() if call.state == FAILED]
    except CloudError:
        return
    authors = [call for call in failed if _is_authors(cloud, call)]
    ours = [call for call in failed if call not in authors]
    if ours:
        said = f"{len(ours)} calls failed for good, of {_functions(ours)}"
        yield warn("queue", said, "python -m local queue; then queue retry, or queue drop")
    if authors:
        said = f"{len(authors)} calls failed for good because of authors, of {_functions(authors)}"
        yield ok("queue", f"{said}: python -m local queue shows them")
    elif not ours:
        yield ok("queue", "no call failed for good")


def _is_authors(cloud: Cloud, call: Queued) -> bool:
    """Whether it failed by what an author has to mend: a push, or the author's own function."""
    platform = {function.name for function in cloud.platform}
    return call.function not in platform or (call.function == PUSHED and call.status == Failed.status)


def _is_young(status: Status) -> bool:
    """Whether it may not have been called yet. A gateway that tells no time has an old one."""
    with suppress(ValueError):
        created = datetime.fromisoformat(status.created_at[:19]).replace(tzinfo=timezone.utc)
        return time.time() - created.timestamp() < RECONCILE_MINUTES * 60
    return False


def _functions(calls: Iterable[Queued]) -> str:
    return ", ".join(sorted({call.function for call in calls}))
