"""list-functions: an owner's functions as JSON, and as a page with the pushes and the builds' logs."""

from __future__ import annotations

import time
from typing import Any

from . import page
from .asked import Asked, wants_page
from .cluster import Cluster, Stream
from .live import described
from .sdk import links, secrets
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import Missing
from .sdk.links import Link
from .sdk.settings import Settings
from .sdk.slots import Slots

SLOTS, STREAM = Slots(), Stream()
TAKES = "GET with the query of a link, as `python -m local link OWNER` makes it: JSON, or a page for browsers"


@function("list-functions", takes=TAKES, reads=True, shown=page.refusal)
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    link = links.read(event.query, secrets.read(links.SECRET, settings.secret_mount_path))
    asked = Asked.read(event.query)
    cluster = Cluster(settings, link.owner, STREAM)
    with SLOTS.taken(settings.parallel_long_calls):
        if asked.function:
            return log(asked, link, cluster)
        if wants_page(event):
            return overview(asked, link, cluster)
        now = time.time()
        return answer(200, [described(each, settings, now) for each in cluster.live()], page.PRIVATE)


def overview(asked: Asked, link: Link, cluster: Cluster) -> Answer:
    """What is live, and the newest pushes, or those before a time."""
    pushes = [push for push in cluster.pushes() if not asked.before or push.begun < asked.before]
    return page.overview(asked, link, cluster, pushes)


def log(asked: Asked, link: Link, cluster: Cluster) -> Answer:
    """The log of a function's build: of a push, or of what is live."""
    found = cluster.part(asked.push, asked.function) if asked.push else cluster.deployed(asked.function)
    if not found:
        raise Missing("there is no such build, or it is too long ago: its records are gone")
    return page.log(asked, link, found, cluster.log(found))
