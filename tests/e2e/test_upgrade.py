"""`git pull && make up` with pushes and calls in flight: `up` of a checkout that differs in all images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from tests.conftest import ROOT

from .cloud import Cloud, Repository, until

Make = Callable[..., Repository]

SECONDS_WITHOUT = 15  # docs/operating.md says some; this machine may be busy
NAP = 2
PLATFORM = ("registry", "of-builder", "gateway", "git-server")
SLOW = f"import time\n\ndef handle(event, context):\n    time.sleep({NAP})\n    return 'slept'\n"


@dataclass
class Call:
    began: float
    ended: float
    status: int


@dataclass
class Load:
    """Calls of a function and pushes, again and again, until told to stop."""

    done: threading.Event = field(default_factory=threading.Event)
    calls: list[Call] = field(default_factory=list)
    pushes: list[tuple[float, float, int, str]] = field(default_factory=list)

    def call(self, url: str) -> None:
        while not self.done.is_set():
            began = time.monotonic()
            try:
                status = requests.get(url, timeout=30).status_code
            except requests.RequestException:
                status = 0
            self.calls.append(Call(began, time.monotonic(), status))
            time.sleep(0.05)

    def push(self, repo: Repository) -> None:
        number = 0
        while not self.done.is_set():
            number += 1
            repo.functions(hello=f"text {number}")
            began = time.monotonic()
            code, told = repo.push()
            self.pushes.append((began, time.monotonic(), code, told))


@pytest.fixture
def changed(tmp_path: Path, cloud: Cloud) -> Iterator[Path]:
    """A checkout with another file in all images; afterwards the cloud is this one's again."""
    checkout = tmp_path / "checkout"
    shutil.copytree(
        ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests")
    )
    with (checkout / "sdk" / "errors.py").open("a") as file:
        file.write(f"\n# changed {time.time()}\n")
    yield checkout
    assert cloud.cli("up").returncode == 0


def up(checkout: Path) -> None:
    subprocess.run(
        (sys.executable, "-m", "local", "up"),
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        timeout=600,
    )


@pytest.mark.timeout(900)
def test_pushes_end_live_and_calls_fail_only_while_the_gateway_is_replaced(
    cloud: Cloud, repository: Make, changed: Path
) -> None:
    pushed, asked = repository("pushed"), repository("asked")
    asked.functions(slow="")
    asked.commit({"slow/handler.py": SLOW})
    assert asked.push()[0] == 0
    before = {name: cloud.container(name).id for name in PLATFORM}
    images = {function.name: function.image for function in cloud.gateway.list()}
    load = Load()
    threads = [
        threading.Thread(target=load.call, args=(cloud.url("alice-hello"),)),
        threading.Thread(target=load.call, args=(cloud.url(asked.service("slow")),)),
        threading.Thread(target=load.push, args=(pushed,)),
    ]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(load.pushes) > 0 and len(load.calls) > 0)
        began = time.monotonic()
        up(changed)
        ended = time.monotonic()
    finally:
        load.done.set()
        for thread in threads:
            thread.join()

    assert all(cloud.container(name).id != before[name] for name in PLATFORM)
    after = {function.name: function.image for function in cloud.gateway.list()}
    assert all(after[name] != images[name] for name in ("gh-push", "git-tar", "buildshiprun"))

    failed = [call for call in load.calls if call.status != 200]
    assert {call.status for call in failed} <= {0}, "the gateway answers no error of its own"
    if failed:
        assert max(call.ended for call in failed) - min(call.began for call in failed) < SECONDS_WITHOUT
        refused = min(call.began for call in failed if call.ended - call.began < NAP / 4)
        assert all(call.began > refused - NAP / 4 for call in failed), "what was being done has ended"

    during = [push for push in load.pushes if push[0] < ended and push[1] > began]
    assert during
    broken = [
        told for _, _, code, told in load.pushes if code and not told.startswith("fatal: unable to access")
    ]
    assert len(broken) <= 1, "only one that begins in the moment of the stop breaks off"
    assert all("RPC failed" in told for told in broken), broken
    text = f"text {len(load.pushes)}"
    until(lambda: pushed.call("hello") == (200, text), seconds=120, what="the last push")
