"""500 small builds with cancelled clients, bad tars and restarts: nothing leaks, no success is a lie.

By hand: `make soak`, which takes some five minutes and needs the running cloud. SOAK_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import docker
import pytest
import requests

from local.state import State
from sdk.registry import Registry
from tests.e2e.builder import (
    Driver,
    OfBuilder,
    of_builder,
    python_image,
    remove_pushed,
    tar,
    unique,
)
from tests.e2e.cloud import until

LIVES, BUILDS_A_LIFE, BUILDS_OF_THE_LAST = 10, 25, 350
CLIENTS = 4
WARM = 100
KINDS = {"build": 60, "step": 10, "again": 10, "cancel": 10, "bad": 6, "failing": 4}


@dataclass
class Soak:
    """The clients' dice, and what they were told."""

    base: str
    dice: random.Random
    told: Counter[str] = field(default_factory=Counter)
    digests: dict[str, str] = field(default_factory=dict)
    last: bytes = b""

    def one(self, builder: OfBuilder, kind: str, number: int) -> None:
        """One request; what is answered is noted, what is cut off by a restart is no answer."""
        image = builder.image(unique())
        try:
            if kind == "cancel":
                self._cancel(builder, self._tar(image, number))
                self.told["cancelled"] += 1
                return
            body = self._body(kind, image, number)
            answer = builder.post(body, stream=self.dice.random() < 0.5)
        except (requests.RequestException, ValueError):
            self.told["cut off"] += 1
            return
        if answer.last.get("status") == "success":
            self.digests[str(answer.last["digest"])] = builder.repository(str(answer.last["image"]))
        self.told[f"{kind}: {answer.last.get('status') or answer.status}"] += 1

    def has_told(self, enough: int) -> bool:
        return sum(self.told.values()) >= enough

    def _body(self, kind: str, image: str, number: int) -> bytes:
        if kind == "bad":
            return self._bad(image)
        if kind == "failing":
            return tar(f"FROM {self.base}\nRUN echo {number} && exit 3\n", image)
        if kind == "step":
            return tar(f"FROM {self.base}\nRUN echo {number}\n", image)
        if kind == "build" or not self.last:
            self.last = self._tar(image, number)
        return self.last

    def _tar(self, image: str, number: int) -> bytes:
        return tar("FROM scratch\nCOPY . /\n", image, files={"x": f"{number} {self.dice.random()}" * 1000})

    def _bad(self, image: str) -> bytes:
        good = tar("FROM scratch\n", image, files={"../../x": "x"})
        return self.dice.choice([b"no tar", good, good[:700], b"", os.urandom(5000)])

    def _cancel(self, builder: OfBuilder, body: bytes) -> None:
        answer = builder.open(body)
        time.sleep(self.dice.random() * 0.4)
        answer.close()


def has_no_buildx(builder: OfBuilder) -> bool:
    return not builder.buildx()


def rss(pid: int) -> int:
    """In KiB."""
    return int(re.findall(r"VmRSS:\s+([0-9]+)", Path(f"/proc/{pid}/status").read_text())[0])


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def state() -> State:
    state = State.here()
    assert state.exists, "the cloud must be up: make up"
    return state


@pytest.fixture
def driver(state: State) -> Iterator[Driver]:
    engine = docker.from_env(timeout=60)
    yield Driver("engine", {}, python_image(engine), "")
    remove_pushed(engine, state)


@pytest.mark.timeout(1800)
def test_five_hundred_builds_leak_nothing(driver: Driver, state: State, tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    print(f"\nSOAK_SEED={seed}")
    soak = Soak(driver.base, random.Random(seed))
    for life in range(LIVES):
        with of_builder(driver, tmp_path) as builder, ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(soak.one, builder, kind, at) for at, kind in kinds(soak, BUILDS_A_LIFE)]
            enough = sum(soak.told.values()) + soak.dice.randrange(10, BUILDS_A_LIFE - CLIENTS)
            until(partial(soak.has_told, enough), 120, "a number of answers")
            builder.process.kill() if life % 2 else builder.process.terminate()
            builder.process.wait(20)
            for job in jobs:
                job.result()
        print(f"life {life + 1} of {LIVES + 1}: {sum(soak.told.values())} requests, {dict(soak.told)}")
        until(partial(has_no_buildx, builder), 10, "the end of every buildx, which the kernel tells to")
    with of_builder(driver, tmp_path) as builder:
        run(soak, builder, WARM)
        before = rss(builder.process.pid), descriptors(builder.process.pid)
        run(soak, builder, BUILDS_OF_THE_LAST - WARM)
        after = rss(builder.process.pid), descriptors(builder.process.pid)
        print(f"RSS {before[0]} → {after[0]} KiB, descriptors {before[1]} → {after[1]}; {dict(soak.told)}")
        assert after[0] < before[0] * 1.1
        assert after[1] <= before[1] + 2
        assert not builder.buildx()
        [own] = builder.work.iterdir()
        assert not list(own.glob("build-*"))
        assert builder.metric("of_builder_running") == builder.metric("of_builder_queue_depth") == 0
    assert not list(builder.work.iterdir()), "a stopped of-builder leaves no folder"
    assert len(soak.digests) > 150
    for digest, path in soak.digests.items():
        assert is_whole(Registry(f"http://{state.registry}"), path, digest), (
            f"{path}@{digest} can't be pulled"
        )


def kinds(soak: Soak, number: int) -> Iterator[tuple[int, str]]:
    for at in range(number):
        yield soak.dice.randrange(10**9) + at, soak.dice.choices(list(KINDS), list(KINDS.values()))[0]


def run(soak: Soak, builder: OfBuilder, number: int) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for job in [pool.submit(soak.one, builder, kind, at) for at, kind in kinds(soak, number)]:
            job.result()


def is_whole(registry: Registry, path: str, digest: str) -> bool:
    """Whether the registry has the manifest and all that it names."""
    manifest = registry.manifest(path, digest)
    if not manifest:
        return False
    config, layers = manifest.rows["config"], manifest.rows["layers"]
    assert isinstance(config, dict)
    assert isinstance(layers, list)
    url = f"{registry.url}/v2/{path}/blobs"
    return all(requests.head(f"{url}/{part['digest']}", timeout=10).ok for part in (config, *layers))
