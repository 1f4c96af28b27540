"""Our python3-http template as a real process: the upstream contract, readiness, and draining."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import ROOT

TEMPLATE = ROOT / "local" / "template" / "python3-http"
HANDLER = """
import time

def handle(event, context):
    if event.path == "/none":
        return None
    if event.path == "/text":
        return "text"
    if event.path == "/bytes":
        return {"body": b"\\x00\\xff", "headers": {"Content-Type": "application/octet-stream"}}
    if event.path == "/slow":
        time.sleep(1)
        return {"body": "slow"}
    if event.path == "/broken":
        raise RuntimeError("broken")
    return {
        "statusCode": 201,
        "body": {
            "method": event.method,
            "path": event.path,
            "query": dict(event.query),
            "body": event.body.decode(),
            "mine": event.headers.get("X-Mine"),
            "host": context.hostname,
        },
        "headers": {"X-Theirs": "2"},
    }
"""


class Process:
    """The template's index.py, with the port replaced by a free one."""

    def __init__(self, folder: Path, handler: str) -> None:
        (folder / "function").mkdir()
        (folder / "function" / "handler.py").write_text(handler)
        text = (TEMPLATE / "index.py").read_text()
        patched = text.replace("port=8080", "port=0").replace(
            "    signal.signal(", "    print(server.effective_port, flush=True)\n    signal.signal("
        )
        assert patched.count("port=0") == 1
        (folder / "index.py").write_text(patched)
        self.process = subprocess.Popen(
            [sys.executable, "index.py"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"HOSTNAME": "box", "PATH": ""},
        )

    @property
    def url(self) -> str:
        if not hasattr(self, "port"):
            assert self.process.stdout
            self.port = int(self.process.stdout.readline())
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, HANDLER)
    yield process
    process.process.kill()
    process.process.communicate()


def test_a_handler_gets_and_returns_what_the_upstream_template_passes(served: Process) -> None:
    answer = requests.patch(f"{served.url}/a/b?x=1", data="hi", headers={"X-Mine": "1"}, timeout=10)
    assert (answer.status_code, answer.headers["X-Theirs"]) == (201, "2")
    assert answer.json() == {
        "method": "PATCH",
        "path": "/a/b",
        "query": {"x": "1"},
        "body": "hi",
        "mine": "1",
        "host": "box",
    }
    assert requests.get(f"{served.url}/none", timeout=10).status_code == 200
    assert requests.get(f"{served.url}/text", timeout=10).text == "text"
    assert requests.get(f"{served.url}/bytes", timeout=10).content == b"\x00\xff"
    assert requests.get(f"{served.url}/broken", timeout=10).status_code == 500


def test_the_handler_that_the_page_for_authors_shows_works(tmp_path: Path) -> None:
    shown = re.search(r"```python\n(def handle.*?)```", (ROOT / "docs" / "repositories.md").read_text(), re.S)
    assert shown
    process = Process(tmp_path, shown[1])
    try:
        answer = requests.get(f"{process.url}/a", timeout=10)
        assert (answer.json(), answer.headers["X-Served-By"]) == ({"hello": "world"}, "box")
        assert requests.get(f"{process.url}/?name=you", timeout=10).json() == {"hello": "you"}
        assert requests.post(process.url, data="me", timeout=10).json() == {"hello": "me"}
    finally:
        process.process.kill()
        process.process.communicate()


def test_readiness_is_answered_without_the_handler(served: Process) -> None:
    for path in ("/_/ready", "/_/health"):
        answer = requests.get(served.url + path, timeout=10)
        assert (answer.status_code, answer.text) == (200, "OK\n")


def test_it_finishes_what_it_works_on_before_it_ends(served: Process) -> None:
    answers: list[str] = []
    url = served.url
    caller = threading.Thread(target=lambda: answers.append(requests.get(f"{url}/slow", timeout=10).text))
    caller.start()
    time.sleep(0.3)
    served.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    while requests.get(f"{url}/_/ready", timeout=10).status_code != 503:
        assert time.monotonic() < deadline
    caller.join()
    assert answers == ["slow"]
    assert served.process.wait(5) == 0


def test_an_idle_one_ends_at_once(served: Process) -> None:
    assert requests.get(f"{served.url}/_/ready", timeout=10).ok
    started = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(5) == 0
    assert time.monotonic() - started < 2


def test_a_handler_that_cannot_be_imported_ends_the_process_with_its_trace(tmp_path: Path) -> None:
    process = Process(tmp_path, "import nothing_of_that_name\n").process
    _, told = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "nothing_of_that_name" in told
