"""gh-push beside a bare Flask application that does the least of the same."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from local.gitserver import event
from local.gitserver.event import Update
from local.gitserver.repository import BareRepository
from sdk.messages import NO_COMMIT
from sdk.secrets import Keys
from sdk.signature import GITHUB_HEADER

from . import clients, served
from .clients import Connection
from .measure import QUICK_REPEAT, Measure, Samples, interleaved, quantile
from .repositories import committed
from .served import ROOT, SECRETS, Served

_REQUESTS = 300
_CLIENTS = 8
_EVENT_BYTES = 8 * 1024


@contextmanager
def _both() -> Iterator[tuple[Served, Served, Mapping[str, bytes]]]:
    """gh-push, the bare application, and the requests that both get."""
    with tempfile.TemporaryDirectory(prefix="bench-webhook-") as folder:
        work, gateway = Path(folder), served.free_port()
        plain, url = served.free_port(), f"http://127.0.0.1:{gateway}"
        secrets = {"WEBHOOK": SECRETS["github-webhook-secret"], "PAYLOAD": SECRETS["payload-secret"]}
        environment = {"TMPDIR": folder}
        with (
            served.program(("-m", "bench.neighbour", str(gateway), folder), gateway, environment),
            served.program(("-m", "bench.plain_app", str(plain), url), plain, environment | secrets) as floor,
            served.function(ROOT / "gh-push", work, gateway_url=url, git_scm="local") as ours,
        ):
            yield ours, floor, _requests(work)


def _requests(work: Path) -> Mapping[str, bytes]:
    """A push of some 8 KB, and the same with a signature that is wrong."""
    folder = work / "repo.git"
    repository = BareRepository("alice", "repo", folder)
    repository.create()
    sha = committed(folder, [{"handler.py": f"{number}\n"} for number in range(12)], message="x" * 200)
    payload = event.payload(repository, Update(NO_COMMIT, sha, "refs/heads/master"), public_url="http://git")
    keys = Keys("github-webhook-secret", (SECRETS["github-webhook-secret"].encode(),))
    body, headers = event.signed(payload, keys)
    size = len(json.dumps(payload))
    assert 0.75 * _EVENT_BYTES < size < 1.25 * _EVENT_BYTES, f"the event has {size} bytes"
    bad = {**headers, GITHUB_HEADER: "sha256=" + 64 * "0"}
    return {
        "good": clients.request("POST", "/", headers, body),
        "bad": clients.request("POST", "/", bad, body),
    }


def _of_one(kind: str, status: int, figure: Callable[[list[float]], float], repeat: int) -> Samples:
    """By one client: `figure` of the milliseconds of many requests."""
    with _both() as (ours, floor, requests):

        def one(server: Served) -> float:
            with closing(Connection(server.port)) as connection:
                found = clients.latencies(connection, requests[kind], status, _REQUESTS)
            return figure([1000 * took for took in found])

        return interleaved(repeat, partial(one, ours), partial(one, floor))


def _of_many(repeat: int) -> Samples:
    with _both() as (ours, floor, requests):

        def many(server: Served) -> float:
            return 1000 * clients.pace(server.port, requests["good"], 202, _CLIENTS, _REQUESTS // 4)

        return interleaved(repeat, partial(many, ours), partial(many, floor))


def _p99(figures: list[float]) -> float:
    return quantile(figures, 0.99)


_FLOOR = "a bare Flask and waitress application that checks, reads and does one pooled POST"
MEASURES = (
    Measure(
        "webhook",
        "gh-push takes a push of 8 KB, median",
        _FLOOR,
        "ms",
        1.6,
        partial(_of_one, "good", 202, statistics.median),
        repeat=QUICK_REPEAT,
    ),
    Measure(
        "webhook_p99",
        "the same, 99 of 100 are faster",
        _FLOOR,
        "ms",
        1.6,
        partial(_of_one, "good", 202, _p99),
        repeat=QUICK_REPEAT,
    ),
    Measure(
        "webhook_bad",
        "an event with a bad signature, median",
        "the same application refuses it",
        "ms",
        1.6,
        partial(_of_one, "bad", 401, statistics.median),
        repeat=QUICK_REPEAT,
    ),
    Measure("webhook_8", "8 clients at once, per request", _FLOOR, "ms", 1.6, _of_many),
)
