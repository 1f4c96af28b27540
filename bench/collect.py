"""garbage-collect with a thousand functions to delete, beside plain deletes by as many threads."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from sdk import messages, naming
from sdk.messages import Collect
from sdk.secrets import Keys

from . import served
from .measure import Measure, Samples, interleaved, seconds
from .served import ROOT, SECRETS

_FUNCTIONS = 1000
_PAUSE = 0.005
_THREADS = 8
_KEYS = Keys("payload-secret", (SECRETS["payload-secret"].encode(),))
_LABELS = {
    "git-cloud": "1",
    "git-scm": "local",
    "git-repo-id": "7",
    "git-owner-id": "1",
    "git-owner": "alice",
}


def _request(count: int) -> bytes:
    request = Collect("local", "bench", "alice", 1, "repo", 7, ("kept",), 40 * "0", "push", limit=count)
    return messages.seal("garbage-collect", request)


def collect(repeat: int, count: int = _FUNCTIONS) -> Samples:
    """Both delete `count` functions of a gateway that takes 5 ms for each call."""
    names = [f"alice-f{number}" for number in range(count)]
    labels = {naming.CLOUD + name: text for name, text in _LABELS.items()}
    rows = [
        {"name": name, "namespace": "openfaas-fn", "image": "i", "labels": labels, "etag": name}
        for name in ("alice-kept", *names)
    ]
    with tempfile.TemporaryDirectory(prefix="bench-collect-") as folder:
        work, port = Path(folder), served.free_port()
        command = ("-m", "bench.neighbour", str(port), folder)
        with (
            served.program(command, port, {"TMPDIR": folder}) as gateway,
            served.function(
                ROOT / "garbage-collect", work, gateway_url=gateway.url, git_scm="local"
            ) as function,
        ):

            def fill() -> None:
                told = {"pause": _PAUSE, "functions": rows}
                requests.put(f"{gateway.url}/bench/functions", json=told, timeout=30).raise_for_status()

            def ours() -> float:
                fill()
                body = _request(count)
                headers = messages.headers(body, _KEYS)
                return seconds(lambda: _ok(requests.post(function.url, body, headers=headers, timeout=60)))

            def floor() -> float:
                fill()
                return seconds(lambda: _deleted(gateway.url, names))

            return interleaved(repeat, ours, floor)


def _ok(answer: requests.Response) -> None:
    assert answer.ok, answer.text


def _deleted(url: str, names: Sequence[str]) -> None:
    local = threading.local()

    def delete(name: str) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False
        body = {"functionName": name}
        _ok(local.session.delete(f"{url}/system/functions", json=body, auth=("admin", "s3cret"), timeout=30))

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(delete, names))


MEASURES = (
    Measure(
        "collect_1000",
        "1,000 functions that left, at a gateway that takes 5 ms a call",
        "8 threads that delete them by pooled sessions",
        "s",
        1.3,
        collect,
    ),
)
